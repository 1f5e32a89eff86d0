# A machine that refuses something: the server starts, and status says why.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('degraded');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.enable_numa_optimizations = on
nexusmem.num_nodes = 2
nexusmem.shared_buffers_placement = 'interleave'
max_worker_processes = 0
max_logical_replication_workers = 0
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION nexusmem');
is($node->safe_psql('postgres', q{SELECT state, hint FROM nexusmem.status WHERE feature = 'background worker'}),
	'degraded|Raise max_worker_processes, on standbys first, and restart the server.', 'no room for the worker');
is($node->safe_psql('postgres', 'SELECT count(node) FROM nexusmem.backends WHERE pid = pg_backend_pid()'), 1,
	'backends are placed all the same');
$node->safe_psql('postgres', q{SELECT count(nexusmem.cache_set('k' || i, repeat('x', 1000))) FROM generate_series(1, 20000) AS i});
cmp_ok($node->safe_psql('postgres', 'SELECT sum(bytes + overhead_bytes) FROM nexusmem.stat_cache'), '>', 20_000_000, 'a cache is filled');
is($node->safe_psql('postgres', 'SELECT nexusmem.cache_clear()'), 20000, 'and cleared');
cmp_ok($node->safe_psql('postgres', 'SELECT sum(bytes + overhead_bytes) FROM nexusmem.stat_cache'), '<', 4_000_000,
	'by who gives all of its memory back, for nobody else would');
$node->stop;
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');

my $deny = "$FindBin::RealBin/../numa/deny.c";
my $bin = PostgreSQL::Test::Utils::tempdir() . '/deny';
SKIP:
{
	skip 'no seccomp on this kernel', 12
	  if system("cc -O2 -o '$bin' '$deny' 2>/dev/null && '$bin' mbind -- true") != 0;
	my $from = -s $node->logfile;
	is(start_behind($node, $bin, 'mbind,set_mempolicy,get_mempolicy,move_pages,sched_setaffinity', '--'), 0,
		'EPERM from every NUMA system call: the server starts');
	is($node->safe_psql('postgres', q{SELECT string_agg(state, ',' ORDER BY feature) FROM nexusmem.status WHERE feature IN ('NUMA system calls', 'pinning')}),
		'degraded,degraded', 'status rows');
	like($node->safe_psql('postgres', q{SELECT detail FROM nexusmem.status WHERE feature = 'NUMA system calls'}),
		qr/get_mempolicy, set_mempolicy, mbind, move_pages, sched_setaffinity/, 'that name the calls');
	my $hint = q{SELECT hint FROM nexusmem.status WHERE feature = 'NUMA system calls'};
	is($node->safe_psql('postgres', $hint), 'In a container, grant the capability SYS_NICE, and for move_pages a seccomp profile that allows it.',
		'and what to do');
	is($node->safe_psql('postgres', q{SELECT sum(buffers) > 0, bool_and(node IS NULL OR buffers = 0) FROM nexusmem.shared_buffers_nodes}), 't|t',
		'buffers are on an unknown node, without an error');
	my ($rc, $out, $err) = $node->psql('postgres', 'SELECT nexusmem.pin_backend(pg_backend_pid(), 0)');
	is("$rc|$out", '0|f', 'pin_backend says false');
	is($node->safe_psql('postgres', q{SELECT count(nexusmem.map_put('m', k::text, repeat('x', 1000))) FROM generate_series(1, 1000) k;
		SELECT count(*) FROM generate_series(1, 1000) k WHERE nexusmem.map_get('m', k::text) = repeat('x', 1000)}), "1000\n1000", 'a map works');
	is($node->safe_psql('postgres', q{SELECT bool_and(on_node_bytes IS NULL), max(resident_bytes) > 1000000 FROM nexusmem.node_memory WHERE resident_bytes > 0}), 't|t',
		'of its memory the kernel tells how much there is, and not where');
	# of one memory there is nothing to bind
	like($node->safe_psql('postgres', q{SELECT state || ': ' || detail || coalesce(' ' || hint, '') FROM nexusmem.status WHERE feature = 'structure memory'}),
		-e '/sys/devices/system/node/node1' ? qr/^degraded: .*; 1 not bound to their nodes: the kernel refused .*SYS_NICE/ : qr/^active: [^;]*; structures and caches lie in [^;]*$/, 'status says so of its memory');
	my @lines = grep { /LOG:  nexusmem does without/ } split /\n/, server_log($node, $from);
	is(scalar @lines, 1, 'one LOG line');
	$node->stop;

	# SYS_NICE has containers make the others alone
	foreach my $some ([ 'move_pages', 'In a container, grant a seccomp profile that allows move_pages.' ],
		[ 'mbind,set_mempolicy,get_mempolicy', 'In a container, grant the capability SYS_NICE or a seccomp profile that allows these calls.' ])
	{
		start_behind($node, $bin, $some->[0], '--');
		is($node->safe_psql('postgres', $hint), $some->[1], "EPERM from $some->[0]: what to do");
		$node->stop;
	}
}

# a filter that kills who makes the calls: whoever tries them is not the server
SKIP:
{
	my $calls = 'mbind,set_mempolicy,get_mempolicy,move_pages,migrate_pages,set_mempolicy_home_node,sched_setaffinity';
	skip 'no seccomp that kills on this kernel', 14
	  if !-x $bin || system("'$bin' -k $calls -- true") != 0;
	# some releases of libnuma make the calls as they are loaded, and from PostgreSQL 18 on the server may need it
	skip 'PostgreSQL is killed without nexusmem', 14
	  if system("'$bin' -k $calls -- postgres --version >/dev/null") != 0;
	my $dies = qr/terminated by signal|server closed the connection/;
	my $killed = qr/degraded: not made, .* killed by signal \d+ \(.*\): get_mempolicy, set_mempolicy, mbind, move_pages, sched_setaffinity \[.*SystemCallErrorNumber=EPERM/;
	my $calls_row = q{SELECT state || ': ' || detail || ' [' || hint || ']' FROM nexusmem.status WHERE feature = 'NUMA system calls'};

	my $from = -s $node->logfile;
	is(start_behind($node, $bin, '-k', $calls, '--'), 0, 'killed by each NUMA system call: the server starts');
	like($node->safe_psql('postgres', $calls_row), qr/^$killed/, 'status says so');
	is($node->safe_psql('postgres', q{SELECT state FROM nexusmem.status WHERE feature = 'pinning'}), 'degraded', 'of pinning too');
	my ($rc, $out, $err) = $node->psql('postgres', 'SELECT nexusmem.pin_backend(pg_backend_pid(), 0); SELECT count(*) FROM nexusmem.backends WHERE pid = pg_backend_pid()');
	is("$rc|$out", "0|f\n1", 'pin_backend says false, and its session goes on');
	is($node->safe_psql('postgres', q{SELECT count(nexusmem.map_put('m', k::text, repeat('x', 1000))) FROM generate_series(1, 1000) k}), '1000', 'a map works');
	is($node->safe_psql('postgres', q{SELECT bool_and(on_node_bytes IS NULL), max(resident_bytes) > 1000000 FROM nexusmem.node_memory WHERE resident_bytes > 0}), 't|t',
		'node_memory does not ask where it lies');
	is($node->safe_psql('postgres', q{SELECT sum(buffers) > 0, bool_and(node IS NULL OR buffers = 0) FROM nexusmem.shared_buffers_nodes}), 't|t', 'nor do views of the buffers');
	is($node->safe_psql('postgres', q{SELECT bool_and(free_bytes > 0) FROM nexusmem.nodes}), 't', 'how much memory is free is known');
	my @lines = grep { /LOG:  nexusmem does without/ } split /\n/, server_log($node, $from);
	is(scalar @lines, 1, 'one LOG line, from the postmaster');
	unlike(server_log($node, $from), $dies, 'nobody died');
	$node->stop;

	# a session that loads the library by itself tries the calls by itself
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$from = -s $node->logfile;
	is(start_behind($node, $bin, '-k', $calls, '--'), 0, 'not preloaded');
	($rc, $out, $err) = $node->psql('postgres', "SELECT nexusmem.my_node(); $calls_row");
	like($out, qr/^\d*\n$killed/, 'a session survives what status asks');
	is($rc, 0, 'without an error');
	unlike(server_log($node, $from), $dies, 'and so do the others');
	$node->stop;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'nexusmem'");
}

# PostgreSQL reads past the operating system's cache
SKIP:
{
	skip 'no debug_io_direct before PostgreSQL 16', 1 if $node->pg_version < 16;
	$node->append_conf('postgresql.conf', "debug_io_direct = data");
	my $started = $node->start(fail_ok => 1);
	my $got = $started ? $node->safe_psql('postgres', q{SELECT state, hint FROM nexusmem.status WHERE feature = 'index look-ahead'}) : '';
	$node->stop if $started;
	$node->append_conf('postgresql.conf', "debug_io_direct = ''");
	skip 'no direct I/O on this file system', 1 if !$started;
	is($got, 'off|Take data out of debug_io_direct and restart the server.', 'direct I/O: look-ahead is off, and status says why');
}

# bad values
$node->start;
foreach my $bad ([ 'nexusmem.prefetch_distance = -2', 'outside the valid range' ], [ 'nexusmem.prefetch_distance = 1001', 'outside the valid range' ],
	[ q{nexusmem.preferred_node = 'x'}, 'invalid value' ])
{
	my ($rc, $out, $err) = $node->psql('postgres', "SET $bad->[0]", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/22023.*$bad->[1]/s, $bad->[0]);
}
my ($rc, $out, $err) = $node->psql('postgres', q{ALTER SYSTEM SET nexusmem.scheduling_policy = 'best'}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/22023.*Available values: least_loaded, round_robin, database/s, 'an unknown policy');
$node->append_conf('postgresql.conf', "nexusmem.scheduling_policy = 'best'");
$node->reload;
is($node->safe_psql('postgres', 'SHOW nexusmem.scheduling_policy'), 'least_loaded', 'a bad value on reload changes nothing');
$node->stop;
# more nodes than memory is told apart for
$node->append_conf('postgresql.conf', "nexusmem.num_nodes = 64\nnexusmem.enable_numa_caching = on");
$node->start;
is($node->safe_psql('postgres', 'SHOW nexusmem.scheduling_policy'), 'least_loaded', 'nor does it keep the server from starting');
is($node->safe_psql('postgres', q{SELECT nexusmem.cache_set('k', 'v'); SELECT count(*), bool_and(node % 2 = 0) FROM nexusmem.stat_cache}), "\n32|t",
	'of 64 nodes, neighbours share a partition, shown as the first');
is($node->safe_psql('postgres', q{SELECT nexusmem.pin_backend(pg_backend_pid(), 63); SELECT nexusmem.counter_add('c'); SELECT node FROM nexusmem.structures WHERE kind = 'counter'}), "t\n1\n62",
	'and so do structures');
workers_run($node);
like($node->safe_psql('postgres', q{SELECT detail FROM nexusmem.status WHERE feature = 'cache'}), qr/, 32 partitions for 64 nodes$/, 'status says so');
$node->stop;
done_testing();
