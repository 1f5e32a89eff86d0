# Not in shared_preload_libraries: everything answers, nothing ends a session, also where
# there is no shared memory to be had.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('plain');
$node->init;
# settings of a server that once had it preloaded
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = ''
nexusmem.num_nodes = 2
nexusmem.shared_buffers_placement = 'partition'
nexusmem.enable_numa_optimizations = on
nexusmem.prefetch_distance = 16
shared_buffers = 1MB
autovacuum = off
});
$node->start;

my $s = session($node);
is(ask($s, 'CREATE EXTENSION nexusmem'), '', 'CREATE EXTENSION');
foreach my $view (qw(status nodes backends shared_buffers_nodes stat_prefetch))
{
	unlike(ask($s, "SELECT * FROM nexusmem.$view"), qr/ERROR|FATAL/, "view $view");
}
foreach my $call ('my_node()', 'session_prefetch()', q{relation_nodes('pg_class')}, 'stat_prefetch_reset()')
{
	unlike(ask($s, "SELECT * FROM nexusmem.$call"), qr/ERROR|FATAL/, $call);
}
ask($s, "\\set VERBOSITY verbose\nSELECT 1");
foreach my $call ('pin_backend(pg_backend_pid(), 0)', 'unpin_backend(pg_backend_pid())', 'rebalance()', q{predictor_predict('pg_class', 0)}, 'predictor_reset()')
{
	like(ask($s, "SELECT nexusmem.$call"), qr/ERROR:  55000:.*HINT:  .*shared_preload_libraries/s, "$call: the documented error");
}
like(ask($s, "SELECT count(*) FROM nexusmem.$_"), $node->pg_version < 17 ?
	qr/ERROR:  55000: this function or view needs nexusmem's shared memory/ : qr/^\d+$/, "the view $_")
  foreach qw(structures sharing stat_cache node_memory);
like(ask($s, 'SHOW nexusmem.enable_prefetch'), qr/^on$/, 'settings of look-ahead exist');
like(ask($s, 'SHOW nexusmem.prefetch_distance'), qr/^16$/, 'with the values of postgresql.conf');
is(ask($s, q{SELECT state FROM nexusmem.status WHERE feature = 'shared memory'}), 'off', 'status: no shared memory');
like(ask($s, q{SELECT detail FROM nexusmem.status WHERE feature = 'shared memory'}), qr/\b$_\b.* have no effect/, "status: $_ has no effect") foreach qw(num_nodes node_source enable_numa_caching shared_buffers_placement predictor_memory);
like(ask($s, q{SELECT hint FROM nexusmem.status WHERE feature = 'pinning'}), qr/shared_preload_libraries/, 'status: what to do');
is(ask($s, 'SELECT pg_backend_pid()'), $s->{pid}, 'it is the same session still');
close_session($s);

# LOAD and session_preload_libraries
$s = session($node);
is(ask($s, q{LOAD 'nexusmem'}), '', 'LOAD');
ask($s, q{CREATE TABLE t AS SELECT k, repeat('x', 100) AS pad FROM generate_series(1, 20000) k; CREATE INDEX ON t (k); ANALYZE t; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off});
is(ask($s, q{SELECT count(*), sum(length(pad)) FROM (SELECT pad FROM t WHERE k > 100 ORDER BY k) s}), '19900|1990000', 'an index scan after LOAD');
close_session($s);

# the session's own table of counts: bounded, the newest stay, dropped ones leave
$s = session($node);
ask($s, q{LOAD 'nexusmem'; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off});
ask($s, q{DO $$ BEGIN
	FOR i IN 1 .. 530 LOOP
		EXECUTE format('CREATE UNLOGGED TABLE c%s AS SELECT k, repeat(''x'', 1500) AS pad FROM generate_series(1, 30) k', i);
		EXECUTE format('CREATE INDEX ON c%s (k)', i);
		COMMIT;
	END LOOP; END $$});
ask($s, q{DO $$ BEGIN
	FOR i IN 1 .. 530 LOOP
		EXECUTE format('SELECT sum(length(pad)) FROM (SELECT pad FROM c%s WHERE k > 0 ORDER BY k) s', i);
		COMMIT;
	END LOOP; END $$});
my $counted = q{FROM nexusmem.stat_prefetch s JOIN pg_class c ON c.oid = s.relid WHERE relname ~ '^c[0-9]+$'};
is(ask($s, "SELECT count(*), bool_or(relname = 'c1'), bool_or(relname = 'c530') $counted"), '512|f|t', 'without shared memory: 512 tables are counted, the newest');
is(ask($s, "DROP TABLE c529, c530; SELECT count(*), bool_or(relname = 'c528') $counted"), '510|t', 'dropped ones leave');
is(ask($s, "SELECT sum(length(pad)) FROM (SELECT pad FROM c1 WHERE k > 0 ORDER BY k) s; SELECT count(*), bool_or(relname = 'c1') $counted"), "45000\n511|t", 'and make room');
is(ask($s, 'SELECT nexusmem.stat_prefetch_reset(); SELECT count(*) FROM nexusmem.stat_prefetch'), "\n0", 'reset');
# as many in one transaction
ask($s, q{DO $$ BEGIN
	FOR i IN 101 .. 170 LOOP
		EXECUTE format('SELECT sum(length(pad)) FROM (SELECT pad FROM c%s WHERE k > 0 ORDER BY k) s', i);
	END LOOP; END $$});
is(ask($s, "SELECT count(*) $counted"), 70, 'all tables of a transaction are counted');
close_session($s);

$node->append_conf('postgresql.conf', q{session_preload_libraries = 'nexusmem'});
$node->reload;
$node->poll_query_until('postgres', 'SHOW session_preload_libraries', 'nexusmem');
$s = session($node);
is($s->{err}, '', 'session_preload_libraries: no complaint at connection');
my $force = force_parallel($node);
is(ask($s, "SET $force = on; SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT sum(length(pad)) FROM t WHERE k > 100"), '1990000', 'parallel workers load it too');
is(ask($s, q{SELECT state FROM nexusmem.status WHERE feature = 'index look-ahead'}), 'active', 'look-ahead is active');
close_session($s);

is($node->safe_psql('postgres', 'DROP EXTENSION nexusmem; CREATE EXTENSION nexusmem; SELECT 1'), 1, 'DROP and CREATE EXTENSION');
unlike(server_log($node), qr/FATAL|TRAP|PANIC/, 'no FATAL in the log');

# From 17 on structures begin with the DSM registry, which is not there yet. A backend
# that may make no file of its size is one that finds /dev/shm full.
$node->restart;
# nor may it write past there in a file of WAL, or of a table
$node->safe_psql('postgres', 'VACUUM');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$s = session($node);
my $from = -s $node->logfile;
sub most_bytes { return system('prlimit', "--pid=$s->{pid}", "--fsize=$_[0]:") == 0; }
SKIP:
{
	skip 'no DSM registry before PostgreSQL 17', 9 if $node->pg_version < 17;
	skip 'no prlimit', 9 if !most_bytes(900000);
	my $rows = q{SELECT feature, state, hint FROM nexusmem.status WHERE feature IN ('structure memory', 'cache') ORDER BY feature DESC};
	my $full = 'degraded|Enlarge /dev/shm (in a container with --shm-size).';
	is(ask($s, $rows), "structure memory|$full\ncache|$full", 'no memory for the registry: status says so');
	like(ask($s, q{SELECT detail FROM nexusmem.status WHERE feature = 'structure memory'}), qr/^not preloaded, and there is no memory .*: could not resize shared memory segment .*: File too large$/, 'and why');
	like(ask($s, 'SELECT count(*) FROM nexusmem.status'), qr/^\d\d$/, 'all rows are there');
	is(ask($s, "BEGIN; $rows; SELECT 1; COMMIT"), "structure memory|$full\ncache|$full\n1", 'also in a transaction, which goes on');
	like(ask($s, q{SELECT nexusmem.counter_add('c')}), qr/ERROR: .*File too large/, 'a structure is an error');
	most_bytes('unlimited');
	is(ask($s, q{SELECT nexusmem.counter_add('c')}), '1', 'and works when there is memory');
	is(ask($s, $rows), "structure memory|active|\ncache|degraded|Add nexusmem to shared_preload_libraries and restart the server.", 'as status tells');
	is($node->safe_psql('postgres', $rows), ask($s, $rows), 'in other sessions too');
	close_session($s);
	$s = session($node);
	most_bytes(900000);
	is(ask($s, $rows), $node->safe_psql('postgres', $rows), 'and in one that may make none, for that is not needed');
}
close_session($s);
unlike(server_log($node, $from), qr/FATAL|TRAP|PANIC|terminated by signal|leak/, 'the log is quiet');
$node->stop;
done_testing();
