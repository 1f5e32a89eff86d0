# sql/prefetch.sql again, with next to nothing cached: small shared_buffers, and the
# files leave the operating system's cache before each query. What it prints must
# be what it prints when all is cached, and what PostgreSQL alone gives.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('shapes');
$node->init(extra => [ '-E', 'UTF8', '--no-locale' ]);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
shared_buffers = 1MB
autovacuum = off
datestyle = 'Postgres, MDY'
});
$node->start;
plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk'
  if !on_disk($node);
$node->safe_psql('postgres', 'CREATE EXTENSION nexusmem');

my $root = "$FindBin::RealBin/../..";
my $sums = PostgreSQL::Test::Utils::tempdir() . '/sums';
my ($out, $err) = ('', '');
IPC::Run::run([ 'psql', '-X', '-a', '-q', '-d', $node->connstr('postgres'), '-v', "cold=$sums", '-f', "$root/sql/prefetch.sql" ],
	'>', \$out, '2>&1');
my @expected = split /\n/, slurp_file("$root/expected/prefetch.out");
my @got = map { s/^psql:\S+: //r } split /\n/, $out;
# the first difference, if any: the whole would not be readable
my $i = 0;
$i++ while $i < @got && $i < @expected && $got[$i] eq $expected[$i];
is($got[$i] // 'the end', $expected[$i] // 'the end', 'every shape gives the same rows when cold (line ' . ($i + 1) . ')');
my ($issued) = -e $sums ? slurp_file($sums) =~ /(\d+)/ : (0);
cmp_ok($issued // 0, '>', 1000, 'and blocks were read ahead meanwhile');
unlike(server_log($node), qr/TRAP|PANIC|leak/, 'nothing bad in the log');
$node->stop;
done_testing();
