# Not preloaded, and the library is replaced while the server runs: structures of the
# version before are left alone, and the new one says why.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmBuild;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('another_version');
$node->pg_version >= 17 or plan skip_all => 'without preloading there are no structures before PostgreSQL 17';
may_build() or plan skip_all => 'no compiler';

# Functions name the library without a directory: a session finds the one that is
# installed, or the other build.
my $dir = PostgreSQL::Test::Utils::tempdir();
build_library("$dir/library", 'NXM_LAYOUT_VERSION=1000');
my @other = (options => "-c dynamic_library_path=$dir/library");
$node->init;
$node->start;
$node->safe_psql('postgres', library_script());

my $before = session($node);
my $after = session($node, 'postgres', @other);
ask($after, "\\set VERBOSITY verbose\nSELECT 1");
is(ask($before, q{SELECT nexusmem.counter_add('c', 5), nexusmem.map_put('m', 'k', 'v')}), '5|t', 'structures are made');

foreach my $call (q{counter_get('c')}, q{counter_add('c')}, q{counter_drop('c')}, q{counter_add('new')}, q{map_get('m', 'k')}, q{map_clear('m')}, q{queue_push('q', 'v')}, q{cache_set('k', 'v'::text)})
{
	like(ask($after, "SELECT nexusmem.$call"), qr/ERROR:  55000: nexusmem's shared memory was made by another version of the library\nHINT:  Restart the server/, "another version: $call");
}
like(ask($after, "SELECT * FROM nexusmem.$_"), qr/ERROR:  55000: /, "another version: view $_") foreach qw(structures node_memory);
foreach my $feature ('structures', 'structure memory', 'cache')
{
	is(ask($after, "SELECT state, detail, hint FROM nexusmem.status WHERE feature = '$feature'"), 'off|made by another version of the library|Restart the server.', "status: $feature");
}
foreach my $view (qw(status nodes))
{
	unlike(ask($after, "SELECT * FROM nexusmem.$view"), qr/ERROR|FATAL/, "view $view");
}
close_session($after);

my $look = q{SELECT nexusmem.counter_get('c'), nexusmem.map_get('m', 'k'), count(*) FROM nexusmem.structures};
is(ask($before, $look), '5|v|2', 'the version that made them has them unchanged');
is(ask($before, q{SELECT nexusmem.counter_add('c', 1)}), '6', 'and goes on');
my $another = session($node);
is(ask($another, $look), '6|v|2', 'in other sessions too');
close_session($_) foreach $before, $another;

$node->restart;
$after = session($node, 'postgres', @other);
is(ask($after, q{SELECT nexusmem.counter_add('c')}), '1', 'after a restart the other version has its own');
close_session($after);
$node->stop;

# the registry's entry is of another size, as that may be which there was no memory for
unlink "$dir/library/src/arena.o", "$dir/library/nexusmem.so";
is(system("make -C '$dir/library' PG_CONFIG=pg_config COPT=-DROOT_BYTES=2048 >/dev/null 2>&1"), 0, 'one with another root is built');
$node->start;
my $spoiler = session($node, 'postgres', @other);
is(ask($spoiler, q{SELECT nexusmem.counter_add('c')}), '1', 'and makes it');
close_session($spoiler);
$before = session($node);
foreach my $feature ('structure memory', 'cache')
{
	like(ask($before, "SELECT concat_ws('|', state, detail, hint) FROM nexusmem.status WHERE feature = '$feature'"), qr/^degraded\|not preloaded, and it cannot be looked for: requested DSM segment .*\|Restart the server\.$/, "status: $feature");
}
is(ask($before, 'BEGIN; SELECT count(*) > 10 FROM nexusmem.status; SELECT 1; COMMIT'), "t\n1", 'in a transaction, which goes on');
like(ask($before, q{SELECT nexusmem.counter_add('c')}), qr/ERROR:  requested DSM segment .*\nHINT:  Restart the server\./, 'a structure is an error, with a hint');
like(ask($before, q{SELECT 1}), qr/^1$/, 'and the session goes on');
close_session($before);
$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');
done_testing();
