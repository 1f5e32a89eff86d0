# The shared structures under load: nothing is lost or doubled with eight clients at
# once, whatever happens to the limit; hundreds of backends, a hundred structures and
# a million keys come and go; standbys, parallel queries, dropped databases and roles.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

needs_shm(192);

my $MB = 1048576;
my $node = PostgreSQL::Test::Cluster->new('load');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = 2
max_connections = 230
fsync = off
log_statement = none
autovacuum = off
});
$node->start;

sub q1 { return $node->safe_psql('postgres', $_[0]); }
sub used { return q1('SELECT sum(used_bytes) FROM nexusmem.node_memory'); }
# One node is asked after another: what goes from one to the next meanwhile counts twice.
sub used_under_load { return (sort { $a <=> $b } used(), used())[0]; }
sub wait_for { return wait_until($node, $_[0]); }

# bench($clients, $transactions, $script): starts a pgbench with this script.
my $scripts = 0;
sub bench
{
	my ($clients, $transactions, $script) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script' . $scripts++;
	append_to_file($file, $script);
	my $run = { out => '' };
	$run->{h} = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-h', $node->host, '-p', $node->port,
			'-c', $clients, '-j', 2, '-t', $transactions, '-f', $file, 'postgres' ],
		'<', \undef, '>&', \$run->{out}, IPC::Run::timeout(3 * $PostgreSQL::Test::Utils::timeout_default));
	return $run;
}
sub running
{
	my ($run) = @_;
	$run->{h}->pump_nb;
	return $run->{h}->pumpable;
}
sub finished
{
	my ($run, $name) = @_;
	my $done = $run->{h}->finish;
	ok($done && $run->{out} !~ /aborted|ERROR/, $name) or diag($run->{out});
	return;
}

q1(q{
CREATE EXTENSION nexusmem;
CREATE UNLOGGED TABLE drained (v bigint);
CREATE UNLOGGED TABLE popped (consumer int, n int, kind text, v text);
CREATE UNLOGGED TABLE ledger (client int, k int, d int);
CREATE UNLOGGED TABLE tickets (v bigint);
CREATE UNLOGGED TABLE swaps (client int, n bigint);

-- one client's pushes and pops; what it popped goes to a table
CREATE FUNCTION lists(client int, first int, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	v text;
	stack text[] := '{}';
	queue text[] := '{}';
BEGIN
	FOR i IN first + 1 .. first + n LOOP
		PERFORM nexusmem.stack_push('s', client || ':' || i || repeat('.', i % 300));
		PERFORM nexusmem.queue_push('q', client || ':' || i || repeat('.', i % 300));
		-- as often as pushed, but not in step
		FOR j IN 1 .. (i * 7 % 3) LOOP
			v := nexusmem.stack_pop('s');
			IF v IS NOT NULL THEN stack := stack || v; END IF;
			v := nexusmem.queue_pop('q');
			IF v IS NOT NULL THEN queue := queue || v; END IF;
		END LOOP;
	END LOOP;
	INSERT INTO popped SELECT client, first * 2 + ord, 'stack', x FROM unnest(stack) WITH ORDINALITY u(x, ord);
	INSERT INTO popped SELECT client, first * 2 + ord, 'queue', x FROM unnest(queue) WITH ORDINALITY u(x, ord);
END $$;

-- puts, gets and deletes of overlapping keys: the ledger has each change of what is there
CREATE FUNCTION churn(client int, n int, keys int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	k int;
	v text;
	changes int[] := '{}';
	old text;
	swapped bigint := 0;
BEGIN
	FOR i IN 1 .. n LOOP
		k := 1 + floor(random() * keys);
		CASE i % 4
		WHEN 0 THEN
			IF nexusmem.map_delete('churn', 'k' || k) THEN changes := changes || -k; END IF;
		WHEN 1 THEN
			v := nexusmem.map_get('churn', 'k' || k);
			IF v IS NOT NULL AND v !~ ('^' || k || ':\d+:\d+:(x*)$') THEN
				RAISE EXCEPTION 'key % has %', k, v;
			END IF;
		ELSE
			IF nexusmem.map_put('churn', 'k' || k, k || ':' || client || ':' || i || ':' || repeat('x', i % 200)) THEN
				changes := changes || k;
			END IF;
		END CASE;
		-- keys that are there throughout, changed by compare-and-set alone
		IF i % 8 = 0 THEN
			k := 1 + floor(random() * 5);
			old := nexusmem.map_get('churn', 'p' || k);
			IF nexusmem.map_put_if('churn', 'p' || k, old, (old::bigint + 1)::text) THEN swapped := swapped + 1; END IF;
		END IF;
	END LOOP;
	INSERT INTO ledger SELECT client, abs(x), sign(x) FROM unnest(changes) x;
	INSERT INTO swaps VALUES (client, swapped);
END $$;
});

# counters, map_add, and counter_drain at the same time
q1(q{SELECT nexusmem.counter_create('striped', true); SELECT nexusmem.counter_create('striped drained', true)});
my $run = bench(8, 2500, q{
\set k random(1, 4)
SELECT nexusmem.counter_add('exact', 3), nexusmem.counter_add('striped', 5), nexusmem.map_add('few', 'key' || :k, 7),
	nexusmem.counter_add('exact drained'), nexusmem.counter_add('striped drained', 2);
});
my $session = session($node);
my $drains = 0;
while (running($run))
{
	ask($session, q{INSERT INTO drained SELECT value FROM nexusmem.counter_drain('% drained')});
	# what a transaction that aborts has taken is added back
	ask($session, q{BEGIN; INSERT INTO drained SELECT value FROM nexusmem.counter_drain('% drained'); ROLLBACK}) if $drains++ % 2;
}
finished($run, '8 clients add');
cmp_ok($drains, '>', 2, 'while others drain');
is(q1(q{SELECT nexusmem.counter_get('exact')}), 60000, 'exact counter: the sum');
is(q1(q{SELECT nexusmem.counter_get('striped')}), 100000, 'striped counter: the sum');
is(q1(q{SELECT sum(value::bigint) || ' ' || count(*) FROM nexusmem.map_entries('few')}), '140000 4', 'map_add on few keys: the sum');
ask($session, q{INSERT INTO drained SELECT value FROM nexusmem.counter_drain('% drained')});
is(q1(q{SELECT sum(v) FROM drained}), 60000, 'counter_drain: what was drained is what was added');
finished(bench(8, 500, q{INSERT INTO tickets SELECT nexusmem.counter_add('ticket');}), '8 clients draw tickets');
is(q1(q{SELECT count(DISTINCT v) || ' ' || min(v) || ' ' || max(v) FROM tickets}), '4000 1 4000', 'each has its own');

# stack and queue
finished(bench(8, 4, q{
SELECT nexusmem.counter_add('pushed by ' || :client_id, 400) - 400 AS first \gset
SELECT lists(:client_id, :first, 400);
}), '8 clients push and pop');
my $left = q1(q{SELECT nexusmem.stack_depth('s') || ' ' || nexusmem.queue_length('q')});
q1(q{
DO $$
DECLARE
	v text;
	i int := 0;
BEGIN
	LOOP
		v := nexusmem.stack_pop('s');
		EXIT WHEN v IS NULL;
		INSERT INTO popped VALUES (99, i, 'stack', v);
		i := i + 1;
	END LOOP;
	i := 0;
	LOOP
		v := nexusmem.queue_pop('q');
		EXIT WHEN v IS NULL;
		INSERT INTO popped VALUES (99, i, 'queue', v);
		i := i + 1;
	END LOOP;
END $$});
is(q1(q{SELECT count(*) FILTER (WHERE kind = 'stack') || ' ' || count(*) FILTER (WHERE kind = 'queue') FROM popped WHERE consumer = 99}), $left, 'depth and length are what can be popped');
foreach my $kind ('stack', 'queue')
{
	is(q1(qq{SELECT count(*) || ' ' || count(DISTINCT v) FROM popped WHERE kind = '$kind'}), '12800 12800', "$kind: as many came out as went in, none twice");
	is(q1(qq{
SELECT count(*) FROM (
	SELECT c || ':' || i || repeat('.', i % 300) FROM generate_series(0, 7) c, generate_series(1, 1600) i
	EXCEPT SELECT v FROM popped WHERE kind = '$kind') s}), 0, "$kind: every value unharmed");
}
is(q1(q{
SELECT count(*) FROM (
	SELECT split_part(v, ':', 2), lag(rtrim(split_part(v, ':', 2), '.')::int) OVER (PARTITION BY consumer, split_part(v, ':', 1) ORDER BY n) AS before,
		rtrim(split_part(v, ':', 2), '.')::int AS i
	FROM popped WHERE kind = 'queue') s WHERE before >= i}), 0, 'queue: what one client pushed another pops in that order');

# a map that grows under all of it
q1(q{SELECT nexusmem.map_put('churn', 'p' || k, '0') FROM generate_series(1, 500) k});
$run = bench(8, 6, 'SELECT churn(:client_id, 4000, 20000);');
my ($scans, $wrong) = (0, 0);
while (running($run))
{
	my $seen = ask($session, q{SELECT count(*) || ' ' || count(DISTINCT key) FROM nexusmem.map_entries('churn') WHERE key LIKE 'p%'});
	$wrong++ if $seen ne '500 500';
	$scans++;
}
finished($run, '8 clients put, get and delete while the map grows');
cmp_ok($scans, '>', 2, 'and is scanned');
is($wrong, 0, 'a scan sees each entry that is there throughout exactly once');
is(q1(q{SELECT count(*) FROM (SELECT k, sum(d) FROM ledger GROUP BY k HAVING sum(d) NOT IN (0, 1)) s}), 0, 'no key was put twice or deleted twice');
is(q1(q{
WITH expected AS (SELECT 'k' || k AS key FROM ledger GROUP BY k HAVING sum(d) = 1),
	found AS (SELECT key FROM nexusmem.map_entries('churn') WHERE key LIKE 'k%')
SELECT (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE found) s) || ' ' || (SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE expected) s)}),
	'0 0', 'what is there is what was put and not deleted');
is(q1(q{SELECT nexusmem.map_size('churn') = 500 + (SELECT sum(d) FROM ledger)}), 't', 'map_size');
is(q1(q{SELECT count(*) FROM (SELECT k FROM ledger GROUP BY k HAVING sum(d) = 1) s WHERE nexusmem.map_get('churn', 'k' || k) IS NULL}), 0, 'and is found');
is(q1(q{SELECT sum(value::bigint) = (SELECT sum(n) FROM swaps) FROM nexusmem.map_entries('churn') WHERE key LIKE 'p%'}), 't', 'compare-and-set: no change is lost');
close_session($session);

# the limit lowered and raised under load
q1(q{
CREATE UNLOGGED TABLE stored (k text);
CREATE UNLOGGED TABLE refused (client int);
CREATE FUNCTION store(client int, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	k text;
BEGIN
	FOR i IN 1 .. n LOOP
		k := client || ':' || nexusmem.counter_add('stored by ' || client);
		BEGIN
			PERFORM nexusmem.map_put('limited', k, k || repeat('y', 1000));
			INSERT INTO stored VALUES (k);
		EXCEPTION WHEN configuration_limit_exceeded THEN
			INSERT INTO refused VALUES (client);
			EXIT;
		END;
	END LOOP;
END $$;
SELECT store(-1, 1);
});
sub set_limit
{
	my ($mb) = @_;
	q1("ALTER SYSTEM SET nexusmem.memory_limit = '${mb}MB'");
	$node->reload;
	# all processes know it; the memory worker puts it into force within a second
	return wait_for("SELECT current_setting('nexusmem.memory_limit') = '${mb}MB' AND (SELECT detail ~ ' of $mb.0 MB' FROM nexusmem.status WHERE feature = 'structure memory')");
}
ok(set_limit(48), 'the limit is lowered to 48 MB');
$run = bench(8, 1000000000, 'SELECT store(:client_id, 50);');
ok(wait_for('SELECT count(*) > 8 FROM refused'), 'reached under load');
my $most = used_under_load();
cmp_ok($most, '<=', 48 * $MB, 'and respected');
cmp_ok($most, '>', 40 * $MB, 'and used up');
ok(set_limit(80), 'raised under load');
q1('TRUNCATE refused');
ok(wait_for('SELECT count(*) > 8 FROM refused'), 'reached again');
$most = used_under_load();
cmp_ok($most, '<=', 80 * $MB, 'and respected');
cmp_ok($most, '>', 70 * $MB, 'and used up');
ok(set_limit(32), 'lowered below what is used');
$most = used();
q1('TRUNCATE refused');
ok(wait_for('SELECT count(*) > 8 FROM refused'), 'nothing more is stored');
cmp_ok(used(), '<=', $most, 'and no more memory used');
ok(set_limit(96), 'and raised');
q1('TRUNCATE refused');
ok(wait_for('SELECT count(*) > 8 FROM refused'), 'reached once more');
ok(running($run), 'no error but configuration_limit_exceeded');
$run->{h}->signal('TERM');
$run->{h}->finish;
unlike($run->{out}, qr/ERROR|aborted/, 'none');
wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'});
is(q1(q{SELECT count(*) FROM stored WHERE nexusmem.map_get('limited', k) IS DISTINCT FROM k || repeat('y', 1000)}), 0, 'nothing that was stored is lost');
is(q1(q{SELECT nexusmem.map_size('limited') = count(*) FROM stored}), 't', 'and nothing else is there');
cmp_ok(used(), '<=', 96 * $MB, 'the limit holds');
q1(q{SELECT nexusmem.map_drop('limited')});
ok(set_limit(32), 'dropped, and the limit lowered');
ok(wait_for("SELECT sum(resident_bytes) <= 32 * $MB FROM nexusmem.node_memory"), 'the kernel has the memory again');
set_limit(256);

# a million keys in a hundred structures, of two hundred backends
q1(q{
SELECT nexusmem.map_drop(name) FROM nexusmem.structures WHERE kind = 'map';
SELECT nexusmem.counter_drop(name) FROM nexusmem.structures WHERE kind = 'counter';
SELECT nexusmem.stack_drop('s'), nexusmem.queue_drop('q');
CREATE FUNCTION wave(client int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FILTER (WHERE nexusmem.map_put('map ' || k % 50, client || ':' || k, 'value ' || k)) +
		count(nexusmem.counter_add('counter ' || k % 24)) FROM generate_series(1, 5000) k
$$;
CREATE FUNCTION lists_wave(client int) RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(CASE WHEN nexusmem.stack_push('stack ' || k % 13, k::text) IS NULL THEN 0 ELSE 1 END) + sum(CASE WHEN nexusmem.queue_push('queue ' || k % 13, k::text) IS NULL THEN 0 ELSE 1 END)
	FROM generate_series(1, 200) k
$$});
is(q1('SELECT count(*) FROM nexusmem.structures'), 0, 'all dropped');
ok(wait_for("SELECT sum(used_bytes) < 16 * $MB FROM nexusmem.node_memory"), 'memory is given back') or diag(used());
my $before = used();
foreach my $round (1, 2)
{
	finished(bench(200, 1, 'SELECT wave(:client_id), lists_wave(:client_id);'), "wave $round: 200 backends write");
	is(q1(q{SELECT count(*) || ' ' || sum(entries) FILTER (WHERE kind = 'map') || ' ' || sum(entries) FILTER (WHERE kind IN ('stack', 'queue')) FROM nexusmem.structures}),
		'100 1000000 80000', 'a million keys in a hundred structures');
	is(q1(q{SELECT sum(nexusmem.counter_get('counter ' || k)) FROM generate_series(0, 23) k}), 1000000, 'counted');
	is(q1(q{SELECT count(*) FROM generate_series(0, 199) c, generate_series(7, 5000, 100) k WHERE nexusmem.map_get('map ' || k % 50, c || ':' || k) = 'value ' || k}), 10000, 'and found');
	q1(q{SELECT CASE kind WHEN 'map' THEN nexusmem.map_drop(name) WHEN 'counter' THEN nexusmem.counter_drop(name)
		WHEN 'stack' THEN nexusmem.stack_drop(name) ELSE nexusmem.queue_drop(name) END FROM nexusmem.structures});
	ok(wait_for("SELECT sum(used_bytes) < $before + 2 * $MB FROM nexusmem.node_memory"), 'dropped: the memory is as it was')
	  or diag("$before bytes before, now " . used());
}

# DROP DATABASE, DROP ROLE
q1('CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION nexusmem; SELECT count(nexusmem.map_put('m', k::text, repeat('z', 1000))) FROM generate_series(1, 10000) k});
is(q1('SELECT count(*) FROM nexusmem.structures'), 0, 'another database has names of its own');
# what was kept of before is used again
cmp_ok(used(), '>', 10_000_000, 'and memory');
q1('DROP DATABASE other');
# What stays is what segments describe themselves with, 320 bytes for each page of
# 64 kB and rounded up to pages, and the pages of the registry and the few objects that
# are left.  (Free pages that are kept, and what waits for the epoch, are given back
# by the worker's next pass.)
my $described = q{(SELECT sum(reserved_bytes) FROM nexusmem.node_memory) * 320 / 65536 +
	65536 * (SELECT substring(detail FROM 'in (\d+) segment')::int FROM nexusmem.status WHERE feature = 'structure memory')};
ok(wait_for("SELECT sum(used_bytes) <= $described + 8 * 65536 FROM nexusmem.node_memory"), 'DROP DATABASE frees it') or diag(used() . ' used, at most ' . q1("SELECT $described") . ' for descriptions');
q1(q{CREATE ROLE passing; GRANT USAGE ON SCHEMA nexusmem TO passing;
	SET ROLE passing; SELECT nexusmem.counter_add('orphan', 5); RESET ROLE});
is(q1(q{SELECT owner FROM nexusmem.structures WHERE name = 'orphan'}), 'passing', 'a role owns a counter');
q1('DROP OWNED BY passing; DROP ROLE passing');
ok(wait_for(q{SELECT owner = datdba::regrole::text FROM nexusmem.structures, pg_database WHERE name = 'orphan' AND datname = current_database()}), 'DROP ROLE: it is the database owner\'s');
is(q1(q{SELECT nexusmem.counter_get('orphan')}), 5, 'with its value');

# parallel query over functions that read
q1(q{CREATE TABLE t AS SELECT k FROM generate_series(1, 50000) k;
	ALTER TABLE t SET (parallel_workers = 2);
	ANALYZE t;
	SELECT count(nexusmem.map_put('par', k::text, (k * 2)::text)) FROM t});
my $parallel = q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; };
my $query = q{SELECT sum(nexusmem.map_get('par', k::text)::bigint) + sum(nexusmem.counter_get('orphan')) FROM t};
like(q1("$parallel EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) $query"), qr/Workers Launched: 2/, 'readers run in parallel');
is(q1("$parallel $query"), 50000 * 50001 + 250000, 'with the same result');
unlike(q1("$parallel EXPLAIN (COSTS OFF) SELECT sum(nexusmem.counter_add('orphan', 0)) FROM t"), qr/Partial Aggregate/, 'writers are left to the leader');

# read-only transactions and a hot standby
is(q1(q{BEGIN READ ONLY; SELECT nexusmem.counter_add('orphan'), nexusmem.map_put('par', 'new', 'v'), nexusmem.map_get('par', 'new'); ROLLBACK}), '6|t|v', 'in a read-only transaction');
is(q1(q{SELECT nexusmem.map_get('par', 'new')}), 'v', 'which ROLLBACK does not undo');
q1('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION nexusmem');
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
# which no transaction can be there, but sessions may set it, and the worker is no session
$standby->append_conf('postgresql.conf', 'default_transaction_isolation = serializable');
$ENV{PGOPTIONS} = "-c default_transaction_isolation=read\\ committed";
$standby->start;
sub s1 { return $standby->safe_psql('postgres', $_[0]); }
is(s1('SELECT pg_is_in_recovery(), count(*) FROM nexusmem.structures'), 't|0', 'a standby has structures of its own: none');
is(s1(q{SELECT nexusmem.counter_add('c', 2), nexusmem.map_put('m', 'k', 'v'), nexusmem.map_get('m', 'k'); SELECT nexusmem.queue_push('q', 'x'); SELECT nexusmem.queue_pop('q'); SELECT nexusmem.stack_push('s', 'y'); SELECT nexusmem.stack_pop('s')}),
	"2|t|v\n\nx\n\ny", 'all of them work there');
is(s1(q{SELECT count(nexusmem.map_put('big', k::text, repeat('z', 1000))) FROM generate_series(1, 10000) k}), 10000, 'and have memory');
is(s1('SELECT string_agg(kind, \',\' ORDER BY kind) FROM nexusmem.structures'), 'counter,map,map,queue,stack', 'structures');
# what is dropped on the primary is dropped here
$standby->safe_psql('other', q{SELECT count(nexusmem.map_put('m', k::text, repeat('z', 1000))) FROM generate_series(1, 10000) k});
q1('DROP DATABASE other');
ok($standby->poll_query_until('postgres', "SELECT sum(used_bytes) < 16 * $MB FROM nexusmem.node_memory"), 'a database dropped on the primary frees it');
$standby->stop;
delete $ENV{PGOPTIONS};
unlike(server_log($standby), qr/terminated by signal|TRAP|PANIC|could not look for/, 'the standby\'s log is quiet');

like(q1(q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'structure memory'}), qr/^active/, 'status: no object was lost');
$node->stop;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC|leak/, 'the log is quiet');
done_testing();
