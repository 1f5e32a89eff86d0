# Processes that die or are stopped in the middle of operations on the shared
# structures and caches. By default 200 backends and 200 background workers are ended by SIGTERM
# and 40 backends by SIGKILL; NXM_KILLS=200 makes that 200, NXM_KILLS=0 none. Where it is
# less than 40, half as many are ended by SIGTERM, and at half of the places, the other half
# with the next major of PostgreSQL; pops, in which is nothing of the server's, at none, and
# the growth of memory where a lock is held.
#
# Two servers: one with the library as it is installed, whose processes are ended at
# random, and one with a build of the same sources that has places to stop at
# (src/core/pause.h), where each of them is tried.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy;
use IPC::Run ();
use NxmBuild;
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $MB = 1048576;
my $kills = $ENV{NXM_KILLS} // 40;
my $few = $kills < 40;
my $ends = $few ? 100 : 200;
my $root = "$FindBin::RealBin/../..";
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($node, $create, @victims, $session, $before, $from);

sub q1 { return $node->safe_psql('postgres', $_[0]); }
sub used { return q1('SELECT sum(used_bytes) FROM nexusmem.node_memory'); }
sub status { return q1(q{SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = 'structure memory'}); }
sub wait_for { return wait_until($node, $_[0]); }

sub make
{
	my ($name, $path) = @_;
	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'nexusmem'
dynamic_library_path = '$path'
nexusmem.num_nodes = 2
max_connections = 100
shared_buffers = 1MB
max_wal_size = 32MB
fsync = off
autovacuum = off
restart_after_crash = on
log_statement = none
});
	$node->start;
	return;
}

# What a backend does until it is killed. As in nxm_torture.c, `done` and `begun` are
# bounds of what is there, wherever it ends.
my $victims = q{
CREATE PROCEDURE operate(n int) LANGUAGE plpgsql AS $$
DECLARE
	v text;
	k text;
	i int := 0;
BEGIN
	PERFORM nexusmem.counter_add('begun ' || x, 0), nexusmem.counter_add('done ' || x, 0) FROM generate_series(0, 2) x;
	-- entries give way
	PERFORM nexusmem.cache_create('torture', 600000);
	LOOP
		i := i + 1;
		EXIT WHEN i = n;
		k := 'k' || (random() * 3000)::int;
		PERFORM nexusmem.map_put('torture', k, repeat('x', i % 300));
		PERFORM nexusmem.map_get('torture', k);
		IF i % 3 = 0 THEN PERFORM nexusmem.map_delete('torture', k); END IF;
		PERFORM nexusmem.counter_add('begun 0');
		PERFORM nexusmem.map_add('torture', 'sum', 1);
		PERFORM nexusmem.counter_add('done 0');
		PERFORM nexusmem.counter_add('begun 1'), nexusmem.counter_add('begun 2');
		PERFORM nexusmem.queue_push('torture', repeat('y', i % 500));
		PERFORM nexusmem.stack_push('torture', repeat('z', i % 500));
		PERFORM nexusmem.counter_add('done 1'), nexusmem.counter_add('done 2');
		FOR j IN 1 .. i % 3 LOOP
			PERFORM nexusmem.counter_add('done 1', -1), nexusmem.counter_add('done 2', -1);
			v := nexusmem.queue_pop('torture');
			IF v IS NULL THEN PERFORM nexusmem.counter_add('done 1'); ELSE PERFORM nexusmem.counter_add('begun 1', -1); END IF;
			v := nexusmem.stack_pop('torture');
			IF v IS NULL THEN PERFORM nexusmem.counter_add('done 2'); ELSE PERFORM nexusmem.counter_add('begun 2', -1); END IF;
		END LOOP;
		k := 'k' || (random() * 3000)::int;
		PERFORM nexusmem.cache_set(k, k || repeat(' c', i % 300), NULL, 'torture');
		k := 'k' || (random() * 3000)::int;
		v := nexusmem.cache_get(k, 'torture');
		IF split_part(v, ' ', 1) <> k THEN RAISE 'cache: % of %', v, k; END IF;
		k := 'k' || (random() * 3000)::int;
		v := nexusmem.cache_fetch(k, format('SELECT %L', k || ' fetched'), NULL, 'torture');
		IF split_part(v, ' ', 1) <> k THEN RAISE 'cache: % of %', v, k; END IF;
		-- structures that come and go
		IF i % 50 = 0 THEN
			PERFORM nexusmem.map_put('passing', repeat('p', 20), 'v'), nexusmem.queue_push('passing', 'v'), nexusmem.map_clear('passing');
			PERFORM nexusmem.map_drop('passing'), nexusmem.queue_drop('passing');
			PERFORM nexusmem.cache_set('k', repeat('p', 20000), NULL, 'passing'), nexusmem.cache_clear('passing'), nexusmem.cache_drop('passing');
		END IF;
		PERFORM nexusmem.counter_add('rounds');
	END LOOP;
END $$;
-- what is there is between `done` and `begun`, which differ by at most one a process
CREATE FUNCTION consistent(dead int) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN there BETWEEN done AND begun AND begun - done <= dead THEN 'ok'
		ELSE format('%s: %s, done %s, begun %s', what, there, done, begun) END, ', ' ORDER BY what)
	FROM (VALUES (0, nexusmem.map_get('torture', 'sum')::bigint), (1, nexusmem.queue_length('torture')), (2, nexusmem.stack_depth('torture'))) t (what, there),
		LATERAL (SELECT nexusmem.counter_get('begun ' || what) AS begun, nexusmem.counter_get('done ' || what) AS done) c
$$;
-- every entry can be reached, and everything can be popped
CREATE FUNCTION whole() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint := 0;
	v bytea;
	lengths bigint := nexusmem.queue_length('torture') + nexusmem.stack_depth('torture');
BEGIN
	IF nexusmem.map_size('torture') <> (SELECT count(*) FROM nexusmem.map_entries('torture')) OR
		EXISTS (SELECT FROM nexusmem.map_entries('torture') WHERE key LIKE 'k%' AND nexusmem.map_get('torture', key) IS DISTINCT FROM value) OR
		EXISTS (SELECT FROM nexusmem.map_entries('torture') WHERE key LIKE 'w%' AND nexusmem.map_get_bytea('torture', key)::text IS DISTINCT FROM value) THEN
		RETURN 'map';
	END IF;
	FOR i IN 1 .. lengths LOOP
		BEGIN
			IF nexusmem.queue_pop('torture') IS NOT NULL THEN n := n + 1; CONTINUE; END IF;
		EXCEPTION WHEN datatype_mismatch THEN
			IF nexusmem.queue_pop_bytea('torture') IS NOT NULL THEN n := n + 1; CONTINUE; END IF;
		END;
		BEGIN
			IF nexusmem.stack_pop('torture') IS NOT NULL THEN n := n + 1; END IF;
		EXCEPTION WHEN datatype_mismatch THEN
			IF nexusmem.stack_pop_bytea('torture') IS NOT NULL THEN n := n + 1; END IF;
		END;
	END LOOP;
	RETURN CASE WHEN n = lengths AND nexusmem.queue_length('torture') = 0 AND nexusmem.stack_depth('torture') = 0 THEN 'ok' ELSE 'lists' END;
END $$;
CREATE FUNCTION drop_all() RETURNS void LANGUAGE sql AS $$
	SELECT CASE kind WHEN 'map' THEN nexusmem.map_drop(name) WHEN 'counter' THEN nexusmem.counter_drop(name)
		WHEN 'stack' THEN nexusmem.stack_drop(name) WHEN 'cache' THEN nexusmem.cache_drop(name) ELSE nexusmem.queue_drop(name) END FROM nexusmem.structures
$$;
-- There is what is counted, entries and bytes, by their keys, and no more than the limit
-- allows.  Of two looks: housekeeping may come between.  A time to live takes up to 4 bytes,
-- and a value that is not in its item up to 3,000 more than it has.
CREATE FUNCTION cache_is_whole(what text) RETURNS boolean LANGUAGE sql AS $$
	SELECT coalesce(count(v) = (SELECT sum(entries) FROM nexusmem.stat_cache WHERE cache = what) AND
		bool_and(v IS NULL OR split_part(v, ' ', 1) = 'k' || k) AND
		(SELECT sum(bytes) FROM nexusmem.stat_cache WHERE cache = what) BETWEEN sum((least + 7) / 8 * 8) AND sum((least + more + 7) / 8 * 8) AND
		(SELECT sum(bytes + overhead_bytes) <= max(max_bytes) FROM nexusmem.stat_cache WHERE cache = what), false)
	FROM generate_series(0, 20000) k, nexusmem.cache_get('k' || k, what) v,
		LATERAL (SELECT 4 + length('k' || k) + length(v) AS least, CASE WHEN nexusmem.cache_ttl('k' || k, what) IS NULL THEN 0 ELSE 4 END +
			CASE WHEN length(v) > 16000 THEN 3000 ELSE 0 END AS more) b
$$;
-- Values that nxm_torture has not written so: a key, a number, and that many letters.
CREATE FUNCTION written_by_no_worker(what text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM generate_series(0, 20000) k, nexusmem.cache_get('k' || k, what) v
	WHERE v IS DISTINCT FROM 'k' || k || ' ' || split_part(v, ' ', 2) || ' ' || repeat(chr(97 + split_part(v, ' ', 2)::int % 26), split_part(v, ' ', 2)::int)
$$;
};

sub cache_is_whole
{
	my ($cache, $name) = @_;
	return ok(wait_for("SELECT cache_is_whole('$cache')"), ($name // '') . 'of a cache there is what is counted') || diag(q1('SELECT * FROM nexusmem.stat_cache'));
}

# start_victims($n): psqls that are in the middle of it.
sub start_victims
{
	my ($n) = @_;
	my @started;
	# those of the round before, which are leaving
	wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'});
	my $before = q1(q{SELECT coalesce(nexusmem.counter_get('rounds'), 0)});
	foreach my $i (1 .. $n)
	{
		my $v = { out => '' };
		$v->{h} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=victim', '-c', 'CALL operate(1000000000)' ],
			'<', \undef, '>&', \$v->{out}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		push @started, $v;
	}
	wait_for("SELECT count(*) = $n AND nexusmem.counter_get('rounds') > $before FROM pg_stat_activity WHERE application_name = 'victim' AND state = 'active'");
	return @started;
}

# stopped($pid): waits until the process is.
sub stopped
{
	my ($pid) = @_;
	return wait_for("SELECT pg_read_file('/proc/$pid/stat') ~ '^[0-9]+ [(].*[)] T '");
}

# The module that all of this needs.
may_build() or plan skip_all => 'no compiler';
mkdir "$dir/include" or die;
mkdir "$dir/include/nexusmem" or die;
copy("$root/src/nexusmem_api.h", "$dir/include/nexusmem/") or die;
build("$dir/torture", "'$root'/test/modules/nxm_torture/.", "NEXUSMEM_INCLUDE='$dir/include' COPT=-Werror");

make('death', "$dir/torture:\$libdir");
$create = 'CREATE EXTENSION nexusmem;' . script("$dir/torture/nxm_torture--1.0.sql", 'nxm_torture') . $victims;
q1($create);

# SIGTERM to backends
@victims = start_victims(5);
$session = session($node);
ask($session, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
$_->{h}->finish foreach @victims;
wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'});
is(q1('SELECT whole()'), 'ok', 'warmed up');
ask($session, 'SELECT drop_all()');
wait_for("SELECT sum(used_bytes) < 8 * $MB FROM nexusmem.node_memory");
$before = used();
my $dead = 0;
foreach my $round (1 .. $ends / 10)
{
	@victims = start_victims(10);
	$dead += ask($session, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'victim'});
	$_->{h}->finish foreach @victims;
}
is($dead, $ends, "$ends backends are terminated while they operate");
wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'});
is(q1("SELECT consistent($dead)"), 'ok, ok, ok', 'what they counted is there');
is(q1('SELECT whole()'), 'ok', 'and whole');
cache_is_whole('torture');
like(status(), qr/^active/, 'status: nothing was lost');
ask($session, 'SELECT drop_all()');
ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), 'the memory is as it was') or diag("$before before, now " . used());

# SIGTERM to background workers that die where they are, two at a time, each after its first
# round; their cache has room for a part of what they write to it
ask($session, q{
CREATE PROCEDURE end_workers(first int, last int) LANGUAGE plpgsql AS $$
DECLARE
	rounds text;
BEGIN
	FOR i IN first .. last LOOP
		rounds := 'rounds of ' || torture_worker_start('all', '');
		WHILE coalesce(nexusmem.counter_get(rounds), 0) <= i * 2 % 500 LOOP END LOOP;
		IF NOT torture_worker_end() THEN RAISE EXCEPTION 'not ended'; END IF;
		PERFORM nexusmem.counter_drop(rounds);
	END LOOP;
END $$});
$from = -s $node->logfile;
my @enders = ($session, session($node));
is(ask($session, q{SELECT nexusmem.cache_create('torture', 600000)}), 't', 'a cache that is too small');
my $said = '';
for (my $first = 1; $first <= $ends / 2; $first += 10)
{
	send_query($_, "CALL end_workers($first, $first + 9)") foreach @enders;
	$said .= answer($_) foreach @enders;
}
is($said, '', "$ends background workers die where they are") or diag(server_log($node, $from));
close_session($enders[1]);
is(q1("SELECT consistent($ends)"), 'ok, ok, ok', 'what they counted is there');
is(q1('SELECT whole()'), 'ok', 'and whole');
is(q1(q{SELECT nexusmem.counter_get('wrong')}), '0', 'what they read of a cache was whole, and of its key');
cmp_ok(q1(q{SELECT sum(evictions) FROM nexusmem.stat_cache WHERE cache = 'torture'}), '>', 100, 'and has evicted some');
is(q1(q{SELECT written_by_no_worker('torture')}), '0', 'all as they were written');
# what has expired is counted as long as its segment is there; it may be nearly all
q1(q{SELECT count(nexusmem.cache_set('k' || k, 'k' || k || ' 0 ', NULL, 'torture')) FROM generate_series(0, 15) k});
cache_is_whole('torture');
cmp_ok(q1(q{SELECT sum(entries) FROM nexusmem.stat_cache WHERE cache = 'torture'}), '>=', 16, 'it has entries');
like(status(), qr/^active/, 'status: nothing was lost');
my $fatal = () = server_log($node, $from) =~ /FATAL:  terminating background worker/g;
cmp_ok($fatal, '>', $ends * 3 / 4, 'by FATAL out of the signal handler');
ask($session, 'SELECT drop_all()');
ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), 'the memory is as it was') or diag("$before before, now " . used());
close_session($session);
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');

# SIGKILL
my ($recovered, $empty, $usable) = (0, 0, 0);
foreach my $round (1 .. $kills)
{
	@victims = start_victims(2);
	my $pid = q1(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' LIMIT 1});
	$recovered++ if survives_kill($node, $pid);
	$_->{h}->finish foreach @victims;
	$empty++ if q1('SELECT count(*) FROM nexusmem.structures') eq '0';
	$usable++ if q1(q{CALL operate(20); SELECT consistent(0), whole(), cache_is_whole('torture')}) eq 'ok, ok, ok|ok|t';
}
SKIP:
{
	skip 'NXM_KILLS is 0', 4 if $kills == 0;
	is($recovered, $kills, "SIGKILL in mid-operation, $kills times (NXM_KILLS): the server recovers");
	is($empty, $kills, 'structures are gone');
	is($usable, $kills, 'and usable again');
	like(status(), qr/^active/, 'status');
}
$node->stop;
unlike(server_log($node), qr/TRAP|PANIC|terminated by signal (?!9)/, 'no other crash');

# The other build.
build_library("$dir/library", 'NXM_PAUSE_POINTS', 'NXM_(?:PAUSE|LACKS)');
make('stopped', "$dir/library:$dir/torture:\$libdir");
q1(library_script() . script("$dir/torture/nxm_torture--1.0.sql", 'nxm_torture') . $victims . q{
CREATE FUNCTION prepare() RETURNS void LANGUAGE sql AS $$
	SELECT count(nexusmem.map_put('m', 'k' || k, 'old ' || k)) FROM generate_series(1, 500) k;
	SELECT sum(CASE WHEN nexusmem.queue_push('q', 'q' || k) IS NULL THEN 0 ELSE 1 END + CASE WHEN nexusmem.stack_push('s', 's' || k) IS NULL THEN 0 ELSE 1 END) FROM generate_series(1, 100) k;
	SELECT nexusmem.counter_add('c');
	SELECT nexusmem.cache_create('c', 1500000);
	SELECT count(nexusmem.cache_set('k' || k, rpad('k' || k || ' old', 900), NULL, 'c')) FROM generate_series(1, 3000) k;
$$;
-- what sessions do at once, and a worker that ends in the middle of it
CREATE FUNCTION overwrite_cache() RETURNS void LANGUAGE sql AS $$
	SELECT count(nexusmem.cache_set('k' || k, rpad('k' || k || ' overwritten', 500 + k % 5 * 100), NULL, 'c')), count(nexusmem.cache_get('k' || k, 'c'))
		FROM generate_series(1001, 3000) k
$$;
CREATE FUNCTION make_caches() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM nexusmem.cache_create('made ' || i) FROM generate_series(1, 10) i;
	EXCEPTION WHEN configuration_limit_exceeded THEN
		-- what could give way is with others at that moment
	END;
	PERFORM nexusmem.cache_drop('made ' || i) FROM generate_series(1, 10) i;
END $$;
-- what others do while one is stopped
CREATE FUNCTION others(round int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	v text;
	found int := 0;
BEGIN
	PERFORM nexusmem.map_put('m', 'k' || k, repeat('new ' || k, 20)) FROM generate_series(1, 500) k, generate_series(1, 10);
	PERFORM nexusmem.map_put('m', 'r' || round || ' ' || k, 'r' || round) FROM generate_series(1, 5000) k;
	PERFORM nexusmem.map_delete('m', 'r' || round || ' ' || k) FROM generate_series(2, 5000, 2) k;
	PERFORM nexusmem.queue_push('q', 'other'), nexusmem.queue_pop('q'), nexusmem.stack_push('s', 'other'), nexusmem.stack_pop('s') FROM generate_series(1, 2000);
	PERFORM nexusmem.counter_add('c') FROM generate_series(1, 2000);
	FOR k IN 1 .. 2000 LOOP
		PERFORM nexusmem.cache_set('k' || k, rpad('k' || k || ' other ' || round, 900), NULL, 'c');
		-- NULL where it is evicted by then: it may have the place of what was to be evicted next
		v := nexusmem.cache_get('k' || k, 'c');
		IF v <> rpad('k' || k || ' other ' || round, 900) THEN RAISE 'another value is cached: %', rtrim(v); END IF;
		found := found + (v IS NOT NULL)::int;
	END LOOP;
	IF found < 1000 THEN RAISE '% of 2000 cached values are there', found; END IF;
	FOR i IN 1 .. 5 LOOP
		PERFORM nexusmem.map_put('passing', k::text, 'v'), nexusmem.queue_push('passing', 'v') FROM generate_series(1, 300) k;
		PERFORM nexusmem.map_clear('passing');
		PERFORM nexusmem.map_drop('passing'), nexusmem.queue_drop('passing');
		PERFORM nexusmem.cache_set(k::text, 'v', NULL, 'passing') FROM generate_series(1, 300) k;
		PERFORM nexusmem.cache_clear('passing'), nexusmem.cache_drop('passing');
	END LOOP;
	IF (SELECT count(*) FROM nexusmem.map_entries('m') WHERE key LIKE 'k%') <> 500 OR
		(SELECT count(*) FROM nexusmem.map_entries('m') WHERE key LIKE 'r%') <> 2500 * round THEN
		RAISE 'entries are missing';
	END IF;
END $$;
-- Values are replaced, and entries come and go, of which there are no more in the end:
-- after others(1) the index has room for all.  The bytes of what was replaced.
CREATE FUNCTION overwrite() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	bytes bigint;
BEGIN
	SELECT sum(length(v)) FILTER (WHERE NOT nexusmem.map_put('m', 'k' || k, v)) INTO bytes
		FROM generate_series(1, 500) k, generate_series(1, 20), repeat('new ' || k, 20) v;
	PERFORM overwrite_cache();
	PERFORM nexusmem.map_put('m', 'r1 ' || k, 'r1'), nexusmem.map_delete('m', 'r1 ' || k) FROM generate_series(2, 5000, 2) k;
	PERFORM nexusmem.queue_push('q', repeat('q', 200)), nexusmem.queue_pop('q'), nexusmem.stack_push('s', repeat('s', 200)), nexusmem.stack_pop('s') FROM generate_series(1, 1000);
	RETURN bytes;
END $$;
-- all that is in a list, as it comes off
CREATE FUNCTION take_off(list text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	v text;
	taken text[] := '{}';
BEGIN
	LOOP
		v := CASE list WHEN 'q' THEN nexusmem.queue_pop(list) ELSE nexusmem.stack_pop(list) END;
		IF v IS NULL THEN RETURN taken; END IF;
		taken := taken || rtrim(v);
	END LOOP;
END $$;
CREATE FUNCTION put_on(list text, taken text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. cardinality(taken) LOOP
		IF list = 'q' THEN PERFORM nexusmem.queue_push(list, rpad(taken[i], 1000)); ELSE PERFORM nexusmem.stack_push(list, rpad(taken[i], 1000)); END IF;
	END LOOP;
END $$;
-- as several do at once: some of the values change places
CREATE FUNCTION shuffle(list text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	taken text[];
BEGIN
	FOR i IN 1 .. 300 LOOP
		taken := '{}';
		FOR k IN 0 .. i % 20 LOOP
			taken := taken || CASE list WHEN 'q' THEN nexusmem.queue_pop(list) ELSE nexusmem.stack_pop(list) END;
		END LOOP;
		PERFORM put_on(list, array_remove(taken, NULL));
	END LOOP;
END $$;
CREATE FUNCTION count_off(list text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	taken text[] := take_off(list);
BEGIN
	PERFORM put_on(list, taken);
	RETURN (SELECT format('%s, %s different', count(v), count(DISTINCT v)) FROM unnest(taken) v);
END $$;
CREATE FUNCTION reserved() RETURNS bigint LANGUAGE sql AS 'SELECT sum(reserved_bytes) FROM nexusmem.node_memory';
-- puts values until there is another segment: how many
CREATE FUNCTION grow(map text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	before bigint := reserved();
	n int := 0;
BEGIN
	WHILE n % 50 <> 0 OR reserved() = before LOOP
		n := n + 1;
		PERFORM nexusmem.map_put(map, n::text, rpad(n::text, 8000));
	END LOOP;
	RETURN n;
END $$;
CREATE FUNCTION has_grown(map text, n int) RETURNS boolean LANGUAGE sql AS $$
	SELECT n > 0 AND nexusmem.map_size(map) = n AND count(*) FILTER (WHERE nexusmem.map_get(map, k::text) = rpad(k::text, 8000)) = n FROM generate_series(1, n) k
$$;
CREATE FUNCTION map_all() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM nexusmem.structures'});

# Where to stop; what to do there; what that is to say; what others see meanwhile, with
# a statement and what it says; what a worker does that comes there.
my $grow = q{SELECT count(nexusmem.map_put('m', 'g' || k, 'grown')) FROM generate_series(1, 20000) k};
sub set_cache { return "SELECT count(nexusmem.cache_set('k' || k, rpad('k' || k || ' of the stopped', 900), NULL, 'c')) FROM generate_series(1, $_[0]) i, generate_series(1, $_[1]) k"; }
my @cached = (q{SELECT nexusmem.cache_set('k3000', 'k3000 of another', NULL, 'c'), nexusmem.cache_get('k3000', 'c')}, '|k3000 of another', 'overwrite_cache()');
my @places = (
	# the name, too, is found by a map_get: so that of 'm' is found before
	[ 'get', q{SELECT nexusmem.map_get('m', 'k' || x) FROM generate_series(6, 7) x WHERE x < 7 OR torture_pause_at('get')}, "old 6\nold 7", q{SELECT nexusmem.map_put('m', 'k7', 'another')}, 'f' ],
	[ 'allocated', q{SELECT nexusmem.map_put('m', 'mine', repeat('m', 5000))}, 't', q{SELECT nexusmem.map_get('m', 'mine') IS NULL}, 't' ],
	[ 'reserved', q{SELECT nexusmem.map_put('m', 'mine', 'of the stopped')}, 't', q{SELECT nexusmem.map_get('m', 'mine') IS NULL, nexusmem.map_put('m', 'mine', 'of another')}, 't|t' ],
	[ 'committed', q{SELECT nexusmem.map_put('m', 'mine', 'of the stopped')}, 't', q{SELECT nexusmem.map_get('m', 'mine'), nexusmem.map_put('m', 'mine', 'of another')}, 'of the stopped|f' ],
	[ 'migrate', $grow, '20000', q{SELECT nexusmem.map_size('m') > 500}, 't' ],
	[ 'fill', $grow, '20000', q{SELECT nexusmem.map_size('m') > 500}, 't' ],
	[ 'keep house', $grow, '20000', q{SELECT nexusmem.map_size('m') > 500}, 't' ],
	[ 'linked', q{SELECT nexusmem.queue_push('q', 'of the stopped')}, '', q{SELECT count(*) FILTER (WHERE v = 'of the stopped') FROM (SELECT nexusmem.queue_pop('q') AS v, nexusmem.queue_push('q', 'x') FROM generate_series(1, 101)) s}, '1', 'queue' ],
	[ 'found', q{SELECT rtrim(nexusmem.cache_get('k3000', 'c'))}, 'k3000 old', @cached ],
	[ 'room taken', set_cache(5, 500), 2500, @cached ],
	[ 'opened', set_cache(1, 20000), 20000, @cached ],
	[ 'claimed', set_cache(1, 20000), 20000, @cached ],
	[ 'evict', set_cache(1, 20000), 20000, @cached ],
);
my $get = $places[0];
# The same of pops; how many are on the list then. Others that are faster have those begin anew
# that have not taken a value yet.
my @pops = (
	[ 'pop', q{SELECT nexusmem.stack_pop('s')}, 's100', 'stack_drop', 100, 'stack' ],
	[ 'take', q{SELECT nexusmem.queue_pop('q')}, 'q1', 'queue_drop', 100, 'queue' ],
	[ 'taken', q{SELECT nexusmem.queue_pop('q')}, 'q1', 'queue_drop', 99, 'queue' ],
);
if ($few)
{
	my $major = int(q1('SHOW server_version_num') / 10000);
	@places = @places[ grep { ($_ + $major) % 2 } 0 .. $#places ];
	@pops = ();
}

# stop_at($place, $sql, %param): a session, with these connection parameters, that
# is stopped there.
sub stop_at
{
	my ($place, $sql, %param) = @_;
	my $s = session($node, 'postgres', %param);
	is(ask($s, "SELECT torture_pause_at('$place')"), 't', "$place: a place to stop at") if $sql !~ /torture_pause_at/;
	send_query($s, $sql);
	ok(stopped($s->{pid}), "$place: stopped there");
	return $s;
}

sub others
{
	my ($session, $round) = @_;
	return is(ask($session, "SELECT others($round)"), '', "others go on, round $round");
}

# overwrite($seconds, $megabytes, @sessions): all of these at once, until both are
# over; what they said if that is no number.
sub overwrite
{
	my ($seconds, $megabytes, @sessions) = @_;
	my $began = Time::HiRes::time();
	my $bytes = 0;
	while (Time::HiRes::time() - $began < $seconds || $bytes < $megabytes * $MB)
	{
		send_query($_, 'SELECT overwrite()') foreach @sessions;
		foreach my $said (map { answer($_) } @sessions)
		{
			return $said if $said !~ /^\d+$/;
			$bytes += $said;
		}
	}
	return '';
}

# end_at($place, $sql): a session that ends where it was stopped.
sub end_at
{
	my ($place, $sql) = @_;
	my $s = stop_at($place, $sql);
	q1("SELECT pg_terminate_backend($s->{pid})");
	kill 'CONT', $s->{pid};
	eval { $s->{h}->finish };
	return ok(wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $s->{pid}"), "$place: and ended");
}

sub fill { return ask($session, "SELECT count(nexusmem.map_put('$_[0]', k::text, repeat('x', 1000))) FROM generate_series(1, 5000) k"); }

# all that a stopped one has held back is freed when everything is dropped
sub all_back
{
	my ($place) = @_;
	q1('SELECT drop_all()');
	return ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), "$place: all memory is given back") || diag("$before before, now " . used() . ': ' . status());
}

$session = session($node);
my @writers = ($session, session($node));
ask($_, q{SET statement_timeout = '20s'}) foreach @writers;
ask($session, 'SELECT prepare()');
others($session, $_) foreach 1 .. 2;
overwrite(0, 1, @writers);
ask($session, 'SELECT drop_all()');
wait_for("SELECT sum(used_bytes) < 8 * $MB FROM nexusmem.node_memory");
$before = used();
foreach my $p (@places)
{
	my ($place, $sql, $answer, $look, $seen) = @$p;
	ask($session, 'SELECT prepare()');
	my $s = stop_at($place, $sql);
	is(ask($session, $look), $seen, "$place: what others see");
	others($session, $_) foreach 1 .. 3;
	# once to have all of their own, then by the clock for one that only reads
	is(overwrite(0, 1, @writers), '', "$place: others overwrite what is there");
	my $used = used();
	is(overwrite($place eq 'get' ? $ends / 20 : 0, 20, @writers), '', "$place: more than 20 MB of it");
	# a writer that was held up in an operation may have kept more for a moment
	ok(wait_for("SELECT sum(used_bytes) < $used + $MB FROM nexusmem.node_memory"), "$place: memory stays bounded");
	is(ask($session, q{SELECT nexusmem.map_clear('m') > 0, nexusmem.cache_clear('c') > 0; SELECT prepare(); SELECT nexusmem.queue_drop('q'), nexusmem.cache_drop('c'); SELECT prepare()}), "t|t\n\nt|t\n", "$place: the map and a cache are cleared, the queue and the cache dropped");
	ok(wait_for(qq{SELECT state = 'degraded' AND detail ~ 'process $s->{pid} is stopped' FROM nexusmem.status WHERE feature = 'structure memory'}), "$place: status names the process");
	kill 'CONT', $s->{pid};
	is(answer($s), $answer, "$place: it goes on and has what it was to have");
	others($session, 1);
	is(ask($session, q{SELECT nexusmem.map_size('m') = count(*) AND count(*) = count(nexusmem.map_get('m', key)) FROM nexusmem.map_entries('m')}), 't', "$place: the map is whole");
	cache_is_whole('c', "$place: ");
	ok(wait_for(q{SELECT state = 'active' FROM nexusmem.status WHERE feature = 'structure memory'}), "$place: status: active");
	all_back($place);
	close_session($s);
}

# What others take off a list and put back while a pop is stopped is all there, once.
foreach my $p (@pops)
{
	my ($place, $sql, $answer, $drop, $left, $kind) = @$p;
	my $list = substr $kind, 0, 1;
	my $used;
	# all of one length, so that what is freed is used again
	ask($session, "SELECT prepare(); SELECT count_off('$list')");
	my $s = stop_at("$place*", $sql);
	for my $turn (0 .. 3)
	{
		send_query($_, "SELECT shuffle('$list')") foreach @writers;
		is(join('', map { answer($_) } @writers), '', "$place: others take values off and put them back");
		is(ask($session, "SELECT count_off('$list')"), "$left, $left different", "$place: each is there, once");
		$used //= used();
		next if $left != 100;
		kill 'CONT', $s->{pid};
		ok(stopped($s->{pid}), "$place: it begins anew");
	}
	ok(wait_for("SELECT sum(used_bytes) < $used + $MB FROM nexusmem.node_memory"), "$place: memory stays bounded");
	kill 'CONT', $s->{pid};
	my $popped = answer($s) =~ s/ +\z//r;
	is($popped, $answer, "$place: it has what it had taken") if $left != 100;
	is(ask($session, "SELECT array_agg(v ORDER BY v) = ARRAY(SELECT '$list' || k AS v FROM generate_series(1, 100) k ORDER BY v) FROM unnest(take_off('$list') || '$popped'::text) v"), 't',
		"$place: what it has and what is left are all");
	# of a list that is dropped meanwhile
	ask($session, 'SELECT prepare()');
	is(ask($s, "SELECT torture_pause_at('$place')"), 't', "$place: to stop there once more");
	send_query($s, $sql);
	ok(stopped($s->{pid}), "$place: stopped");
	is(ask($session, qq{SELECT nexusmem.map_clear('m') > 0; SELECT nexusmem.$drop('$list'); SELECT prepare(); SELECT nexusmem.map_clear('m') > 0}), "t\nt\n\nt", "$place: the list is dropped");
	ok(wait_for(qq{SELECT state = 'degraded' AND detail ~ 'process $s->{pid} is stopped' FROM nexusmem.status WHERE feature = 'structure memory'}), "$place: status names the process");
	kill 'CONT', $s->{pid};
	is(answer($s), $answer, "$place: it has what it had taken, or of the list that is there");
	close_session($s);
	all_back($place);
}

# ended while they are stopped: by SIGTERM they die at the end of the operation
foreach my $p (@places, @pops)
{
	my ($place, $sql) = @$p;
	ask($session, 'SELECT prepare()');
	my $s = stop_at($place, $sql);
	is(ask($session, "SELECT pg_terminate_backend($s->{pid})"), 't', "$place: a backend is told to end");
	kill 'CONT', $s->{pid};
	eval { $s->{h}->finish };
	ok(wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $s->{pid}"), "$place: and ends");
	others($session, 1);
	my $pid = ask($session, "SELECT torture_worker_start('@{[$p->[5] // 'map']}', '$place')");
	ok(stopped($pid), "$place: a background worker is stopped");
	kill 'TERM', $pid;
	kill 'CONT', $pid;
	is(ask($session, 'SELECT torture_worker_end()'), 't', "$place: and ends");
	is(ask($session, q{SELECT coalesce(nexusmem.map_size('torture'), 0) = (SELECT count(*) FROM nexusmem.map_entries('torture')) AND
		bool_and(there BETWEEN coalesce(nexusmem.counter_get('done ' || what), 0) AND coalesce(nexusmem.counter_get('begun ' || what), 0))
		FROM (VALUES (1, coalesce(nexusmem.queue_length('torture'), 0)), (2, coalesce(nexusmem.stack_depth('torture'), 0))) t (what, there)}), 't', "$place: the structures are whole");
	cache_is_whole('c', "$place: ");
	all_back($place);
}

# What is known of names is copied without what is in them, so that others, however fast they
# make and drop names, do not have it copied again and again: for one cache there is one stop.
q1(q{SELECT drop_all(); SELECT nexusmem.cache_set('k', 'v', NULL, 'only'), nexusmem.counter_add('steady')});
my $listed = q{SELECT string_agg(name || ' ' || entries, ', ' ORDER BY name) FROM nexusmem.structures};
my $client = session($node);
is(ask($client, "$listed; SELECT torture_pause_at('sums*')"), "only 1, steady 1\nt", 'sums: a session that has mapped all memory');
send_query($client, $listed);
ok(stopped($client->{pid}), 'sums: stopped there');
my $passing = 'FROM generate_series(1, 1000) i WHERE nexusmem.counter_create($$x$$ || i) AND nexusmem.counter_drop($$x$$ || i)';
is(q1("SELECT count(*) $passing"), '1000', 'sums: names come and go');
kill 'CONT', $client->{pid};
my $state = qq{SELECT CASE WHEN pg_read_file('/proc/$client->{pid}/stat') ~ '^[0-9]+ [(].*[)] T ' THEN 'stopped' ELSE state END FROM pg_stat_activity WHERE pid = $client->{pid}};
wait_for("SELECT s <> 'active' FROM ($state) t (s)");
is(q1($state), 'idle', 'who has copied what is known of them goes on with its sums');
for (1 .. 100)
{
	last if q1($state) eq 'idle';
	kill 'CONT', $client->{pid};
}
is(answer($client), 'only 1, steady 1', 'and sees each that was there throughout, once');
send_query($client, $listed);
ok(stopped($client->{pid}), 'sums: stopped there again');
q1(q{SELECT nexusmem.counter_drop('steady'), nexusmem.cache_drop('only'), nexusmem.counter_add('steady')});
kill 'CONT', $client->{pid};
like(answer($client), qr/^(only [01])?(, )?(steady 1)?$/, 'what was dropped and made anew meanwhile is not there twice');
close_session($client);

# Where names come and go so fast that it never gets to the end, who looks at all of them can be
# cancelled, and DROP DATABASE, which cannot, leaves the rest to the worker.
my $others = used();
q1('CREATE DATABASE other');
like($node->safe_psql('other', library_script() . q{SELECT count(nexusmem.map_put('m', k::text, repeat('x', 1000))) FROM generate_series(1, 5000) k}), qr/^5000$/m, 'another database');
cmp_ok(used(), '>', $others + 2 * $MB, 'has memory');
$client = session($node);
is(ask($client, q{SELECT torture_pause_at('a quiet bucket*')}), 't', 'a session that is always too slow');
ask($client, q{SET statement_timeout = '1s'});
like(ask($client, 'SELECT count(*) FROM nexusmem.sharing'), qr/canceling statement due to statement timeout/, 'can be cancelled');
ask($client, 'RESET statement_timeout');
send_query($client, 'DROP DATABASE other');
ok(wait_for("SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $client->{pid}"), 'DROP DATABASE comes to an end') or die;
is(answer($client), '', 'without an error');
ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), 'the worker finds the rest') or diag("$before before, now " . used());
close_session($client);
q1('SELECT drop_all()');

# Workers that make caches, for which the largest one gives way, and end with a segment of
# that half evicted: others are to go on with it. Each that is not given back is 64 kB.
$node->append_conf('postgresql.conf', 'nexusmem.cache_size = 4MB');
$node->reload;
wait_for(q{SELECT current_setting('nexusmem.cache_size') = '4MB'});
my $ended = 0;
my $makers = $few ? 0 : 20;
my $fill_big = q{SELECT count(nexusmem.cache_set('k' || k, rpad('k' || k || ' big', 900), NULL, 'big')) FROM generate_series(1, 6000) k};
for (1 .. $makers)
{
	# one that begins while there is room, or comes to have some, makes all of its caches of
	# what it has dropped: then another one is tried
	my $stopped = 0;
	for (my $workers = 0; !$stopped && $workers < 20; $workers++)
	{
		ask($session, $fill_big);
		my $pid = ask($session, q{SELECT torture_worker_start('make_caches()', 'claimed')});
		for (my $tries = 0; !$stopped && $tries < 20; $tries++)
		{
			ask($session, $fill_big);
			$stopped = (eval { slurp_file("/proc/$pid/stat") } // '') =~ /^\d+ \(.*\) T /;
		}
		kill 'TERM', $pid;
		kill 'CONT', $pid;
		$stopped = 0 if ask($session, 'SELECT torture_worker_end()') ne 't';
	}
	$ended += $stopped;
}
is($ended, $makers, 'claimed: workers that are making a cache end');
all_back('claimed');
$node->append_conf('postgresql.conf', 'nexusmem.cache_size = 256MB');
$node->reload;
# and what they had yet to free the memory worker frees
foreach my $p ([ 'buried', 'drop' ], [ 'cleared', 'clear' ])
{
	my ($place, $what) = @$p;
	is(fill('big'), '5000', "$place: filled");
	end_at($place, "SELECT nexusmem.map_$what('big')");
	ok(wait_for("SELECT sum(used_bytes) < $before + $MB FROM nexusmem.node_memory"), "$place: all memory is given back") || diag("$before before, now " . used());
}
ask($session, 'SELECT drop_all()');
like(status(), qr/^active/, 'status: nothing was lost');
close_session($_) foreach @writers;
unlike(server_log($node), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');

# by SIGKILL all structures go
foreach my $p ($kills == 0 ? () : (@places, @pops))
{
	my ($place, $sql) = @$p;
	q1('SELECT prepare()');
	my $s = stop_at($place, $sql);
	ok(survives_kill($node, $s->{pid}), "$place: killed: the server recovers");
	eval { $s->{h}->finish };
	is(q1(q{SELECT count(*) FROM nexusmem.structures; SELECT prepare(); SELECT others(1)}), "0\n\n", "$place: killed: structures are gone, and usable");
}

# Where memory grows. Nothing has been used after a restart, and no segment is large: so those
# places are soon come to.
sub on_node
{
	my ($n, $s) = @_;
	is(ask($s, "SELECT nexusmem.pin_backend(pg_backend_pid(), $n)"), 't', "a session on node $n");
	return $s;
}
sub has_grown { return is(ask($session, "SELECT has_grown('$_[0]', $_[1])"), 't', $_[2]); }
q1('SELECT drop_all()');
$node->append_conf('postgresql.conf', "nexusmem.memory_limit = 64MB\nnexusmem.cache_size = 4MB");
foreach my $place ($few ? 'add chunk' : ('want chunk', 'add chunk', 'map chunk'))
{
	my $maps = $place eq 'map chunk';
	$node->restart;
	if ($kills != 0)
	{
		q1('SELECT prepare()') if $maps;
		my $s = stop_at($place, q{SELECT nexusmem.counter_add('c')});
		ok(survives_kill($node, $s->{pid}), "$place: killed: the server recovers");
		eval { $s->{h}->finish };
		is(q1('SELECT count(*) FROM nexusmem.structures'), '0', "$place: killed: structures are gone");
	}
	$session = on_node(0, session($node));
	my @others = (on_node(0, session($node)), on_node(1, session($node)));
	ask($_, q{SET statement_timeout = '20s'}) foreach $session, $others[1];
	is(ask($session, q{SELECT prepare(); SELECT count(nexusmem.map_put('spare', k::text, repeat('x', 8000))) FROM generate_series(1, 300) k}), "\n300", "$place: usable");
	is(ask($others[1], q{SELECT nexusmem.map_put('elsewhere', 'k', 'v')}), 't', "$place: on both nodes");
	my $s = on_node(0, session($node));
	if ($maps)
	{
		# one that pops from a segment that others have made since
		is(ask($s, q{SELECT map_all() > 0; SELECT torture_pause_at('map chunk')}), "t\nt", "$place: a session that has mapped all memory");
		like(ask($session, q{SELECT grow('g')}), qr/^\d+$/, "$place: there is more");
		ask($session, q{SELECT nexusmem.stack_push('new', rpad(k::text, 8000)) FROM generate_series(1, 3) k});
		send_query($s, q{SELECT rtrim(nexusmem.stack_pop('new'))});
	}
	else
	{
		is(ask($s, "SELECT torture_pause_at('$place')"), 't', "$place: a place to stop at");
		send_query($s, q{SELECT grow('g')});
	}
	ok(stopped($s->{pid}), "$place: stopped there");
	is(ask($session, q{SELECT nexusmem.map_drop('spare')}), 't', "$place: there is room");
	others($session, 1);
	my $rounds = 2;
	others($others[1], $rounds);
	my $reserved = q1('SELECT reserved()');
	send_query($others[0], q{SELECT grow('h')});
	if ($place eq 'add chunk')
	{
		ok(wait_for("SELECT wait_event_type = 'LWLock' AND wait_event = 'nexusmem' FROM pg_stat_activity WHERE pid = $others[0]->{pid}"), "$place: who has no room waits");
		q1("SELECT pg_cancel_backend($others[0]->{pid})");
		is(q1('SELECT reserved()'), $reserved, "$place: nobody else makes a segment");
		others($others[1], ++$rounds);
	}
	else
	{
		has_grown('h', answer($others[0]), "$place: another session makes a segment");
		is(ask($session, q{SELECT rtrim(nexusmem.stack_pop('new'))}), $maps ? '3' : '', "$place: and pops what was to be popped");
		$reserved = q1('SELECT reserved()');
	}
	like(status(), qr/^active/, "$place: status: it holds nothing back");
	kill 'CONT', $s->{pid};
	my $said = answer($s);
	if ($maps)
	{
		is($said, '2', "$place: it goes on and pops the next one");
		is(ask($session, q{SELECT rtrim(nexusmem.stack_pop('new')), nexusmem.stack_depth('new')}), '1|0', "$place: one is left");
	}
	else
	{
		has_grown('g', $said, "$place: it goes on and has put all");
	}
	if ($place eq 'add chunk')
	{
		like(answer($others[0]), qr/canceling statement due to user request/, "$place: who waited is cancelled then");
		has_grown('h', ask($others[0], q{SELECT nexusmem.map_drop('h'); SELECT grow('h')}) =~ s/^t\n//r, "$place: and can make a segment");
	}
	else
	{
		is(q1('SELECT reserved()'), $reserved, "$place: it makes no segment where there is one");
	}
	# what it opens before may have it map all that there is
	if (!$maps)
	{
		my $pid = ask($session, "SELECT torture_worker_start('grow(''h'')', '$place')");
		ok(stopped($pid), "$place: a background worker is stopped");
		kill 'TERM', $pid;
		kill 'CONT', $pid;
		is(ask($session, 'SELECT torture_worker_end()'), 't', "$place: and ends");
	}
	has_grown('ours', ask($session, q{SELECT grow('ours')}), "$place: others make segments");
	others($others[1], ++$rounds);
	q1('SELECT drop_all()');
	ok(wait_for("SELECT sum(used_bytes) < 8 * $MB FROM nexusmem.node_memory"), "$place: all memory is given back") || diag(used());
	close_session($_) foreach $s, $session, @others;
}
unlike(server_log($node), qr/terminated by signal (?!9)|TRAP|PANIC/, 'no other crash');
$node->append_conf('postgresql.conf', "nexusmem.memory_limit = 256MB\nnexusmem.cache_size = 256MB");
$node->reload;

# A shutdown waits for a background worker, though that is no connection: what its abort gives
# back is saved.
q1(q{SELECT drop_all(); SELECT nexusmem.counter_add('drained', 5)});
my $drainer = q1(q{SELECT torture_worker_start('drain', '')});
ok(wait_for(q{SELECT nexusmem.counter_get('drained') = 0}), 'a background worker has drained a counter');
kill 'STOP', $drainer;
ok(wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'}), 'the memory worker runs');
my $saver = q1(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexusmem memory'});
$from = -s $node->logfile;
system('pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-W', '-s', 'stop');
my $title = '';
for (1 .. 18000)
{
	last if !-e "/proc/$saver" || $title =~ /waiting for sessions to end/;
	Time::HiRes::sleep(0.01);
	$title = eval { slurp_file("/proc/$saver/cmdline") } // '';
}
kill 'CONT', $drainer;
like($title, qr/waiting for sessions to end/, 'stopped, it is waited for');
ok($node->wait_for_log(qr/database system is shut down/, $from), 'the shutdown ends with it');
$node->{_pid} = undef;
$node->start;
is(q1(q{SELECT nexusmem.counter_get('drained')}), '5', 'and what it gave back was saved');

# A shutdown while a client that it does not wait for is about to look a name up.
q1(q{SELECT drop_all(); SELECT nexusmem.counter_add('c', 5)});
$client = stop_at('look up', q{SELECT nexusmem.counter_add('c', 1)}, replication => 'database');
$from = -s $node->logfile;
system('pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-W', '-s', 'stop');
ok($node->wait_for_log(qr/saved 1 shared structure/, $from), 'a walsender stopped before it looks a name up: structures are saved');
kill 'CONT', $client->{pid};
# the checkpointer, once it has begun to shut down, ends it
eval { answer($client) };
like($client->{err}, qr/^ERROR:  shared structures are closed|^FATAL:  terminating connection/, 'then it finds none');
unlike($client->{out}, qr/^6$/m, 'and changes nothing');
close_session($client);
ok($node->wait_for_log(qr/database system is shut down/, $from), 'the shutdown ends');
$node->{_pid} = undef;
$node->start;
is(q1(q{SELECT nexusmem.counter_get('c')}), '5', 'what was saved is all that there was');

# A shutdown while such a client is stopped in the middle of an operation: nothing is
# saved of what it may be changing, and that is not waited for without end.
q1('SELECT prepare()');
my $saved = $node->data_dir . '/pg_nexusmem/structures';
$client = stop_at(@$get[ 0, 1 ], replication => 'database');
$from = -s $node->logfile;
system('pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-W', '-s', 'stop');
ok($node->wait_for_log(qr/WARNING:  shared structures were not saved: a process is stopped in the middle of an operation/, $from),
	'a walsender stopped in an operation: structures are not saved, with a warning');
# by the checkpointer, which then waits for walsenders itself
ok($node->wait_for_log(qr/LOG:  shutting down/, $from), 'and the shutdown goes on');
kill 'CONT', $client->{pid};
eval { answer($client) };
close_session($client);
ok($node->wait_for_log(qr/database system is shut down/, $from), 'to its end');
ok(!-e $saved && !-e "$saved.tmp", 'there is no file');
unlike(server_log($node, $from), qr/saved \d+ shared|terminated by signal|TRAP|PANIC/, 'nothing else was said');
$node->{_pid} = undef;
$node->start;
is(q1('SELECT count(*) FROM nexusmem.structures'), '0', 'the next start is empty');
is(q1(q{SELECT prepare(); SELECT others(1)}), "\n", 'and usable');

# A load that is cancelled between two structures, of one node: the next one has all of the
# room. Its process is moved there, which does not move what it loads.
$node->append_conf('postgresql.conf', 'nexusmem.memory_limit = 8MB');
q1('SELECT drop_all()');
q1(q{SELECT nexusmem.pin_backend(pg_backend_pid(), 0);
	SELECT count(nexusmem.map_put(m, k::text, repeat('x', 1000))) FROM unnest(ARRAY['one', 'two']) m, generate_series(1, 3000) k});
$node->stop;
# without the worker the first user loads
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$from = -s $node->logfile;
$node->start;
$client = stop_at('loaded', q{SELECT nexusmem.map_size('one')});
kill 'INT', $client->{pid};
kill 'CONT', $client->{pid};
like(answer($client), qr/canceling statement due to user request/, 'loaded: the load is cancelled');
close_session($client);
$client = stop_at('loaded', q{SELECT nexusmem.map_size('one')});
is(q1("SELECT nexusmem.pin_backend($client->{pid}, 1)"), 't', 'loaded: the next one is moved to the other node');
kill 'CONT', $client->{pid};
is(answer($client), '3000', 'and goes on');
is(q1(q{SELECT string_agg(name || ' ' || entries, ',' ORDER BY name) FROM nexusmem.structures}), 'one 3000,two 3000', 'it loads all');
is(q1(q{SELECT string_agg(node::text, ',') FROM nexusmem.node_memory WHERE owner = 'structures' AND used_bytes > 1000000}), '0', 'onto the node where it was');
unlike(server_log($node, $from), qr/not loaded/, 'without a warning');
close_session($client);

# Without the worker, too, what was dropped or cleared by who did not get to free it has
# made room for others.  Whoever drops something frees some of it each time.
sub is_freed
{
	my ($most, $what, $drop) = @_;
	$drop //= q{SELECT nexusmem.counter_drop('passing') FROM nexusmem.counter_add('passing')};
	for (1 .. 50)
	{
		last if used() < $most;
		ask($session, $drop) for 1 .. 10;
	}
	return cmp_ok(used(), '<', $most, $what);
}
$session = session($node);
ask($session, 'SELECT drop_all()');
is(fill('big'), '5000', 'more than half of the limit');
like(fill('next'), qr/memory limit/, 'there is no room for as much again');
is(ask($session, q{SELECT nexusmem.map_drop('next')}), 't', 'dropped by who frees it');
end_at('buried', q{SELECT nexusmem.map_drop('big')});
is(fill('next'), '5000', 'a drop that ended before it freed anything: there is room');
end_at('buried', q{SELECT nexusmem.map_drop('next')});
my $not_there = q{SELECT nexusmem.map_drop('next')};
is(ask($session, $not_there), 'f', 'the same again: dropping what is not there');
is_freed(3 * $MB, 'frees what was', $not_there);
# Who drops something frees that, and what others have dropped for a moment only.
sub fill_stack { return ask($session, "SELECT count(*) FILTER (WHERE nexusmem.stack_push('$_[0]', repeat('x', 1000)) IS NOT NULL) FROM generate_series(1, $_[1]) k"); }
is(fill_stack('big', 3500), '3500', 'nearly half of the limit');
end_at('buried', q{SELECT nexusmem.stack_drop('big')});
is(fill_stack('own', 3000), '3000', 'nearly as much again');
my $all = used();
is(ask($session, q{SELECT torture_pause_at('time to help')}), 't', 'a session that has no more time');
is(ask($session, q{SELECT nexusmem.stack_drop('own')}), 't', 'drops its own');
# but for a megabyte that is kept for later
cmp_ok(used(), '<', $all - 1.5 * $MB, 'which is freed');
cmp_ok(used(), '>', 4 * $MB, 'what others have dropped is there');
is(fill('next'), '5000', 'until there has to be room');
is(ask($session, q{SELECT nexusmem.map_drop('next')}), 't', 'dropped');
is_freed(3 * $MB, 'all is free');
is(fill('big'), '5000', 'filled again');
end_at('cleared', q{SELECT nexusmem.map_clear('big')});
is(fill('next'), '5000', 'a clear that ended before it freed anything: there is room');
ask($session, 'SELECT drop_all()');
is(fill('big') . ask($session, q{SELECT nexusmem.map_put('m', 'k' || k, 'old ' || k) FROM generate_series(6, 7) k}), "5000t\nt", 'filled again');
$client = stop_at(@$get[ 0, 1 ]);
is(ask($session, q{SELECT nexusmem.map_drop('big')}), 't', 'dropped while somebody may be reading in it');
is(fill('next'), '5000', 'what was in it is free all the same');
is(ask($session, q{SELECT nexusmem.map_drop('next')}), 't', 'dropped as well');
# a megabyte each round, of which the last value of a queue is a part
my $idle = used();
my %rounds = (
	map => q{SELECT count(nexusmem.map_put('passing', k::text, repeat('x', 1000))) FROM generate_series(1, 1000) k},
	stack => q{SELECT count(*) FILTER (WHERE nexusmem.stack_push('passing', repeat('x', 1000)) IS NOT NULL) FROM generate_series(1, 1000) k},
	queue => q{SELECT count(*) FILTER (WHERE nexusmem.queue_push('passing', repeat('x', 1000 * k)) IS NOT NULL) FROM generate_series(400, 600, 200) k},
	cache => q{SELECT count(nexusmem.cache_set(k::text, repeat('x', 1000), NULL, 'passing')) FROM generate_series(1, 1000) k});
foreach my $kind (sort keys %rounds)
{
	my $used = used();
	is(join(' ', map { ask($session, "$rounds{$kind}; SELECT nexusmem.${kind}_drop('passing')") =~ /^\d+\nt$/ ? () : 'failed' } 1 .. 40), '',
		"$kind: filled and dropped 40 times");
	ok(wait_for("SELECT sum(used_bytes) < $used + 4 * $MB FROM nexusmem.node_memory"), "$kind: hardly anything is held back") || diag("$used before, now " . used());
}
kill 'CONT', $client->{pid};
is(answer($client), "old 6\nold 7", 'who goes on');
is_freed($idle + 2 * $MB, 'and what little was held back is free');
is(fill('next'), '5000', 'to be used');
close_session($client);

# caches do not evict, where there is such memory
sub fill_cache { return ask($session, "SELECT count(nexusmem.cache_set(k::text, repeat('x', 950), NULL, '$_[0]')) FROM generate_series(1, 3000) k"); }
$node->append_conf('postgresql.conf', 'nexusmem.cache_size = 4MB');
$node->reload;
wait_for(q{SELECT current_setting('nexusmem.cache_size') = '4MB'});
fill_cache('big') for 1 .. 2;
end_at('buried', q{SELECT nexusmem.cache_drop('big')});
# what was dropped is free when others have left their sections, which writes do not wait for
my $kept = 0;
for (my $rounds = 0; $rounds < 50 && $kept <= 2500; $rounds++)
{
	fill_cache('next');
	$kept = ask($session, q{SELECT count(*) FROM generate_series(1, 3000) k WHERE nexusmem.cache_get(k::text, 'next') IS NOT NULL});
}
cmp_ok($kept, '>', 2500, 'a cache has the room of one whose drop ended before it freed anything');

# an object that cannot be freed is lost, which status says until the server restarts
like(status(), qr/^active/, 'status: nothing was lost');
ask($session, 'SELECT prepare()');
is(ask($session, q{SELECT torture_pause_at('mapping')}), 't', 'mapping: to be missed once');
# frees its objects, the most of them not to what the session keeps ready
ask($session, 'SELECT drop_all()');
is(q1(q{SELECT state, detail ~ '; 1 object was lost$', hint FROM nexusmem.status WHERE feature = 'structure memory'}),
	'degraded|t|Restart the server when that is convenient.', 'status: an object was lost');
is(ask($session, 'SELECT prepare()'), '', 'and all goes on');
close_session($session);
$node->restart;
like(status(), qr/^active/, 'status: after a restart');
unlike(server_log($node, $from), qr/terminated by signal|TRAP|PANIC/, 'the log is quiet');
$node->stop;
done_testing();
