
# The memory worker puts full stretches of node memory into huge pages, under sessions
# that read and write them; what is freed goes back all the same.
use strict;
use warnings;
use FindBin;
use IPC::Run ();
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $size_file = '/sys/kernel/mm/transparent_hugepage/hpage_pmd_size';
needs_shm(96);
my ($major, $minor) = `uname -r` =~ /^(\d+)\.(\d+)/;
plan skip_all => 'this kernel has no transparent huge pages' if !-e $size_file;
plan skip_all => 'shmem_enabled is deny' if slurp_file('/sys/kernel/mm/transparent_hugepage/shmem_enabled') =~ /\[deny\]/;
plan skip_all => 'huge pages of this machine are not of 2 MB' if slurp_file($size_file) != 2 * 1024 * 1024;
plan skip_all => 'Linux before 6.1 does not make huge pages when asked' if $major < 6 || ($major == 6 && $minor < 1);

my $MB = 1048576;
my $N = 30000;
my $node = PostgreSQL::Test::Cluster->new('huge');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'\nnexusmem.num_nodes = 1\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION nexusmem');

sub q1 { return $node->safe_psql('postgres', $_[0]); }
sub status { return q1(q{SELECT detail FROM nexusmem.status WHERE feature = 'structure memory'}); }
sub huge { return status() =~ /(\d+) MB in huge pages/ ? $1 : 0; }

# how often the kernel had no free memory for one
sub refused { return slurp_file('/proc/vmstat') =~ /^thp_collapse_alloc_failed (\d+)/m ? $1 : 0; }
my $refused = refused();

# so_much_huge($mb, $name, @sessions): that much is. Where the kernel had none to give the
# script ends here.
sub so_much_huge
{
	my ($mb, $name, @sessions) = @_;
	if (huge() < $mb && refused() > $refused)
	{
		SKIP: { skip 'the kernel had no free memory for huge pages: thp_collapse_alloc_failed rose', 1; }
		close_session($_) foreach @sessions;
		$node->stop;
		done_testing();
		exit;
	}
	return cmp_ok(huge(), '>=', $mb, $name);
}

# mapped_huge($session): kB of segments that its backend has mapped in huge pages. Of
# PostgreSQL's own memory the kernel may make some unasked.
sub mapped_huge
{
	my ($s) = @_;
	my ($kb, $segment) = (0, 0);
	foreach (split /\n/, slurp_file("/proc/$s->{pid}/smaps"))
	{
		$segment = m{ /dev/shm/PostgreSQL} if /^[0-9a-f]+-[0-9a-f]+ /;
		$kb += $1 if $segment && /^ShmemPmdMapped:\s+(\d+) kB/;
	}
	return $kb;
}
my $right = "SELECT count(*) FROM generate_series(1, $N) k WHERE nexusmem.map_get('m', k::text) = repeat(chr(65 + k % 26), 1000)";

# sessions that go on while it happens
my $writer = session($node);
is(ask($writer, "SELECT count(nexusmem.map_put('m', k::text, repeat(chr(65 + k % 26), 1000))) FROM generate_series(1, $N) k"), $N, 'filled');
my ($rounds, $wrong) = (0, 0);
until (huge() >= 20 || $rounds == 1000)
{
	$wrong++ if ask($writer, "SELECT count(nexusmem.map_put('m', k::text, repeat(chr(65 + k % 26), 1000))) FROM generate_series(1, 2000) k") != 2000;
	$wrong++ if ask($writer, $right) != $N;
	$rounds++;
}
so_much_huge(20, 'most of it is in huge pages after a while', $writer);
is($wrong, 0, "all was right meanwhile");
# looking makes a page again that is given back at that moment
ok($node->poll_query_until('postgres', 'SELECT sum(resident_bytes) BETWEEN sum(used_bytes) AND sum(used_bytes) + 4 * 65536 FROM nexusmem.node_memory'), 'nothing more exists than is counted');

my $reader = session($node);
is(ask($reader, $right), $N, 'another session reads all');
cmp_ok(mapped_huge($reader), '>=', 20 * 1024, 'and has mapped it in huge pages');

# taken apart again
ask($writer, "SELECT count(nexusmem.map_delete('m', k::text)) FROM generate_series(1, $N) k WHERE k % 500 <> 0");
ok($node->poll_query_until('postgres', "SELECT sum(resident_bytes) < 12 * $MB FROM nexusmem.node_memory"), 'what was deleted goes back to the kernel');
is(q1("$right AND k % 500 = 0"), $N / 500, 'the rest is as it was');
ok($node->poll_query_until('postgres', q{SELECT coalesce(substring(detail FROM '(\d+) MB in huge pages')::int, 0) < 12 FROM nexusmem.status WHERE feature = 'structure memory'}), 'and is not counted as huge any more');
is(ask($writer, "SELECT count(nexusmem.map_put('m', k::text, repeat(chr(65 + k % 26), 1000))) FROM generate_series(1, $N) k"), $N, 'filled again');
is(ask($reader, $right), $N, 'and read by who had it mapped');

# The kernel takes no huge page apart that somebody has in his hands at that moment, as
# sessions do that have just begun to use it. Among what goes is what they read.
ask($writer, q{SELECT nexusmem.map_drop('m')});
foreach my $i (0 .. 29)
{
	ask($writer, "SELECT count(nexusmem.map_put('m', k::text, repeat(chr(65 + k % 26), 1000))), count(nexusmem.map_put('n', (k / 10)::text, repeat(chr(65 + k / 10 % 26), 3000))) FROM generate_series($i * 1000, $i * 1000 + 999) k");
}
my $waited = 0;
ask($writer, 'SELECT pg_sleep(0.1)') until huge() >= 30 || $waited++ == 600;
so_much_huge(30, 'two maps in huge pages', $writer, $reader);
my $dir = PostgreSQL::Test::Utils::tempdir();
# each connection counts what it has read rightly; an error ends a client
append_to_file("$dir/read.sql", "SELECT nexusmem.counter_add('read', 1 / (count(*) = 3000)::int) FROM generate_series(0, 2999) k WHERE nexusmem.map_get('n', k::text) = repeat(chr(65 + k % 26), 3000);\n");
# to a file, for nobody reads meanwhile
my $readers = IPC::Run::start([ 'pgbench', '-n', '-C', '-c', 3, '-T', 600, '-f', "$dir/read.sql", $node->connstr('postgres') ], '>', '/dev/null', '2>', "$dir/errors");
my $read = q{coalesce(nexusmem.counter_get('read'), 0)};
ok(wait_until($node, "SELECT $read > 20"), 'sessions come and go');
my ($dropped) = ask($writer, "SELECT nexusmem.map_drop('m'), $read") =~ /^t\|(\d+)$/;
# but for pages of ranges that were being put together in that moment; and 3 may have begun before
ok(wait_until($node, "SELECT $read > $dropped + 3 AND sum(used_bytes) < 15 * $MB AND sum(resident_bytes) <= sum(used_bytes) + 3 * $MB FROM nexusmem.node_memory"), 'what was dropped goes back to the kernel, under those who read')
  or diag(q1('SELECT * FROM nexusmem.node_memory'));
is(slurp_file("$dir/errors"), '', 'which they saw nothing of');
$readers->kill_kill;
close_session($_) foreach $writer, $reader;
$node->stop;

# by PostgreSQL's own setting
$node->append_conf('postgresql.conf', "huge_pages = off\n");
$node->start;
$writer = session($node);
is(ask($writer, "SELECT count(nexusmem.map_put('m', k::text, repeat(chr(65 + k % 26), 1000))) FROM generate_series(1, $N) k"), $N, 'filled with huge_pages = off');
# the same work that was enough above, and some more
ask($writer, $right) foreach 0 .. 2 * $rounds + 5;
SKIP:
{
	skip 'shmem_enabled is force: the kernel makes them unasked', 1 if slurp_file('/sys/kernel/mm/transparent_hugepage/shmem_enabled') =~ /\[force\]/;
	is(mapped_huge($writer), 0, 'none are mapped');
}
is(huge(), 0, 'and none are made');
close_session($writer);
$node->stop;

done_testing();
