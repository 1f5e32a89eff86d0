# sql/prefetch.sql and sql/nestloop_prefetch.sql, the plan shapes of look-ahead, with
# every table read from the disk: what they print must be what they print where
# everything is cached.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmBuild;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $node = PostgreSQL::Test::Cluster->new('shapes');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
max_parallel_workers = 8
});

if (!on_disk($node))
{
	plan skip_all => 'the data directory lies in memory: nothing is ever read from a disk';
}

# what empties both caches some thousand times: without it few buffers, so that what was
# read for one query can be pushed out before the next
my @evict;
my $shared_buffers = '2MB';
if (may_build())
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	build("$dir/hooks", "'$FindBin::RealBin'/../modules/nxm_hooks/.", 'COPT=-Werror');
	@evict = ('-v', "evict=$dir/hooks/nxm_hooks");
	$shared_buffers = '16MB';
}
$node->append_conf('postgresql.conf', "shared_buffers = $shared_buffers");

$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION nexusmem; CREATE EXTENSION pg_prewarm');
foreach my $name ('prefetch', 'nestloop_prefetch')
{
	my $sums = PostgreSQL::Test::Utils::tempdir() . "/$name";
	my $out;
	{
		local %ENV = (%ENV, PG_ABS_SRCDIR => $top, PGOPTIONS => '-c intervalstyle=postgres_verbose', PGTZ => 'PST8PDT', PGDATESTYLE => 'Postgres, MDY');
		IPC::Run::run([ 'psql', '-Xaq', '-v', "cold=$sums", @evict, '-d', $node->connstr('postgres') ],
			'<', "$top/sql/$name.sql", '>&', \$out);
	}
	my @want = split /\n/, slurp_file("$top/expected/$name.out");
	my @got = split /\n/, $out;
	my @differ = grep { ($got[$_] // '') ne ($want[$_] // '') } 0 .. ($#got > $#want ? $#got : $#want);
	is(scalar @differ, 0, "$name: every shape returns the same rows when it is read from the disk");
	diag("line " . ($differ[0] + 1) . ": got \"" . ($got[ $differ[0] ] // '') . "\", expected \"" . ($want[ $differ[0] ] // '') . '"') if @differ;

	my ($issued, $used, $wasted) = split /\|/, slurp_file($sums);
	chomp $wasted;
	cmp_ok($issued, '>', 1000, "and blocks were read ahead ($issued, $wasted of them wasted)");
	is($used + $wasted, $issued, 'issued = used + wasted');
}
unlike(server_log($node), qr/WARNING|TRAP|PANIC|leak/, 'no complaint in the log');
$node->stop;
done_testing();
