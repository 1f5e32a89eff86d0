# cache_fetch(): of many sessions one computes; what is not stored; what fails.
#
# The sessions that compute stop at gates: advisory locks that a session of ours
# holds. How often something is computed is counted by counter_add(), which is not
# undone and assigns no transaction ID.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NxmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('fetch');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'nexusmem'
autovacuum = off
fsync = off
max_connections = 100
max_prepared_transactions = 2
deadlock_timeout = 100ms
});
$node->start;

sub sql { return $node->safe_psql($_[1] // 'postgres', "SET search_path = public, nexusmem; $_[0]") }

# what psql says of a statement that fails, with its SQLSTATE
sub failure
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "SET search_path = public, nexusmem; $sql", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err;
}

sub wait_for
{
	my ($query, $name) = @_;
	ok($node->poll_query_until('postgres', $query), $name);
	return;
}

# how many sessions wait for a gate; for a key
sub wait_at_gate
{
	my ($gate, $n) = @_;
	return wait_for("SELECT count(*) = $n FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND objid = $gate AND NOT granted", "$n at gate $gate");
}

sub wait_for_key
{
	my ($n) = @_;
	return wait_for("SELECT count(*) = $n FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 20056 AND NOT granted", "$n waiting for the key");
}

sub key_locks { return sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 20056}) }

sub runs { return sql(q{SELECT counter_set('runs', 0)}) }

sql(q{CREATE EXTENSION nexusmem;
SELECT counter_create('runs');
CREATE FUNCTION slow(v text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nexusmem.counter_add('runs');
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN v;
END $$;
CREATE FUNCTION quick(v text) RETURNS text LANGUAGE sql AS $$ SELECT nexusmem.counter_add('runs'); SELECT v $$;
CREATE FUNCTION caught(key text, query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN nexusmem.cache_fetch(key, query);
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, NULL);
});

my $keeper = session($node);
sub close_gate { return ask($keeper, "SELECT pg_advisory_lock($_[0])") }
sub open_gate { return ask($keeper, "SELECT pg_advisory_unlock($_[0])") }

# fetch_slowly($session, $key, $value, [$cache])
sub fetch_slowly
{
	my ($s, $key, $value, $cache) = @_;
	return send_query($s, "SELECT nexusmem.cache_fetch('$key', 'SELECT public.slow(''$value'')'" . ($cache ? ", NULL, '$cache'" : '') . ')');
}

# what it returns
is(sql(q{SELECT cache_fetch('plain', 'SELECT v FROM t WHERE id = 1')}), 'one', 'computed');
is(sql(q{UPDATE t SET v = 'uno' WHERE id = 1; SELECT cache_fetch('plain', 'SELECT v FROM t WHERE id = 1')}), 'one', 'and cached');
is(sql(q{UPDATE t SET v = 'one' WHERE id = 1; SELECT cache_fetch('int', 'SELECT count(*) FROM t;'), cache_fetch('bool', 'SELECT true'), cache_fetch('empty', $$SELECT ''$$),
	cache_fetch('array', 'SELECT array_agg(id ORDER BY id) FROM t'), cache_fetch('show', 'SHOW search_path')}), '3|t||{1,2,3}|public, nexusmem', 'any type, as its output function writes it');

# of 50 sessions one computes
my @s = map { session($node) } 1 .. 50;
close_gate(1);
fetch_slowly($_, 'many', 'value') for @s;
wait_for_key(49);
wait_at_gate(1, 1);
wait_for(q{SELECT count(*) = 50 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory' AND query LIKE 'SELECT nexusmem.cache_fetch%'}, 'a wait event');
open_gate(1);
is(scalar(grep { answer($_) eq 'value' } @s), 50, 'all have the value');
is(runs(), 1, 'which was computed once');
is(key_locks(), 0, 'no lock is left');

# the one that computes is terminated, and the next one cancelled
close_gate(1);
my @few = @s[ 0 .. 9 ];
fetch_slowly($few[0], 'dying', 'value');
wait_at_gate(1, 1);
fetch_slowly($_, 'dying', 'value') for @few[ 1 .. 9 ];
wait_for_key(9);
sql("SELECT pg_terminate_backend($few[0]{pid})");
wait_for_key(8);
wait_at_gate(1, 1);
my $heir = sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 20056 AND granted});
sql("SELECT pg_cancel_backend($heir)");
wait_for_key(7);
wait_at_gate(1, 1);
open_gate(1);
my %answers;
$answers{ answer($_) =~ /canceling/ ? 'cancelled' : $_->{out} =~ s/\n//r }++ for @few[ 1 .. 9 ];
is_deeply(\%answers, { cancelled => 1, value => 8 }, 'a waiter takes over, and then another');
is(runs(), 3, 'computed to its end by the third');
eval { $few[0]{h}->finish };
shift @s;

# and left nothing: the key is computed by one session, as those see that delete it in caches
# that are not there, many enough for each word of the counts
sql(q{SELECT cache_delete('dying')});
close_gate(1);
fetch_slowly($s[0], 'dying', 'again');
wait_at_gate(1, 1);
is(sql(q{SELECT count(*) FROM (SELECT cache_delete('dying', 'no cache ' || i) AS there FROM generate_series(1, 20000) i) x WHERE there}), 0, 'a key of that name is deleted in other caches meanwhile');
open_gate(1);
is(answer($s[0]), 'again', 'the key of the terminated session is computed');
is(sql(q{SELECT cache_get('dying')}), 'again', 'and stored');
runs();

# waiters give up
close_gate(1);
fetch_slowly($s[0], 'waited', 'value');
wait_at_gate(1, 1);
send_query($s[1], q{SELECT nexusmem.cache_fetch('waited', 'SELECT 1')});
wait_for_key(1);
sql("SELECT pg_cancel_backend($s[1]{pid})");
like(answer($s[1]), qr/canceling statement due to user request.*while waiting for another session to compute key "waited" of cache "default"/s, 'a waiter is cancelled');
like(ask($s[1], q{SET statement_timeout = 100; SELECT nexusmem.cache_fetch('waited', 'SELECT 1')}), qr/due to statement timeout/, 'or timed out');
for (1 .. 1000) { last if ask($s[1], 'SET statement_timeout = 0') eq ''; }
like(ask($s[1], q{SET lock_timeout = 100; SELECT nexusmem.cache_fetch('waited', 'SELECT 1')}), qr/due to lock timeout/, 'or does not wait so long for a lock');
ask($s[1], 'RESET lock_timeout');

# those whose value would not be stored do not wait
is(ask($s[1], q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT nexusmem.cache_fetch('waited', 'SELECT 1'); COMMIT}), 1, 'REPEATABLE READ does not wait');
is(ask($s[1], q{BEGIN; UPDATE public.t SET v = v; SELECT nexusmem.cache_fetch('waited', 'SELECT 2'); ROLLBACK}), 2, 'nor does a transaction that has written');

# the lock is of that call, and another session can go on while the transaction stays open
ask($s[2], 'BEGIN');
is(ask($s[2], q{SELECT nexusmem.cache_fetch('in transaction', 'SELECT public.quick(''a'')')}), 'a', 'in a transaction');
is(ask($s[2], q{SELECT count(*) FROM pg_locks WHERE objsubid = 20056 AND pid = pg_backend_pid()}), 0, 'which holds no lock afterwards');
is(ask($s[2], "SELECT 1 FROM public.t WHERE id = 1 FOR UPDATE; PREPARE TRANSACTION 'p'"), 1, 'and can be prepared');
is(ask($s[2], "COMMIT PREPARED 'p'"), '', 'and committed');

# pg_advisory_unlock_all() does not release it
is(ask($s[2], q{SELECT nexusmem.cache_fetch('unlock', 'SELECT count(*) FROM (SELECT pg_advisory_unlock_all()) x, pg_locks WHERE objsubid = 20056 AND granted AND pid = pg_backend_pid()')}),
	1, 'pg_advisory_unlock_all() leaves it');
open_gate(1);
is(answer($s[0]), 'value', 'the one that computed');
is(sql(q{SELECT cache_fetch('waited', 'SELECT 3')}), 'value', 'stored');
runs();

# one that waited, or is in a transaction, computes of what was committed before the key was
# deleted: rows, functions, and what the planner evaluates
sql(q{CREATE FUNCTION body() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN 'old body'; END $$;
CREATE FUNCTION folded() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT v FROM public.t WHERE id = 1); END $$;});
for (['body', 'SELECT public.body()', q{CREATE OR REPLACE FUNCTION body() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN 'new body'; END $$}, 'new body'],
	['folded', 'SELECT public.folded()', q{UPDATE t SET v = 'new row' WHERE id = 1}, 'new row'])
{
	my ($what, $query, $change, $value) = @$_;
	ask($s[1], "SELECT nexusmem.cache_fetch('warm $what', '$query')");
	ask($s[2], "BEGIN; SELECT nexusmem.cache_fetch('warm $what 2', '$query')");
	close_gate(1);
	fetch_slowly($s[0], "key $what", 'slow');
	wait_at_gate(1, 1);
	send_query($s[1], "SELECT nexusmem.cache_fetch('key $what', '$query')");
	wait_for_key(1);
	sql($change);
	sql("SELECT cache_delete('key $what')");
	open_gate(1);
	is(answer($s[0]), 'slow', "$what: the one that computed before");
	is(answer($s[1]), $value, "$what: one that waited computes anew");
	is(sql("SELECT cache_get('key $what')"), $value, "$what: and stores that");
	is(ask($s[2], "SELECT nexusmem.cache_fetch('key $what 2', '$query'); COMMIT"), $value, "$what: in a transaction that has called it before, too");
}
sql(q{UPDATE t SET v = 'one' WHERE id = 1});
runs();

# errors
like(failure(q{SELECT cache_fetch('bad', 'SELECT 1/0')}), qr/22012: division by zero.*SQL statement "SELECT 1\/0"/s, 'an error of the query');
is(sql(q{SELECT caught('bad', 'SELECT 1/0'), cache_fetch('bad', 'SELECT 1')}), '22012|1', 'is not cached');
ask($s[0], 'BEGIN; SAVEPOINT s');
like(ask($s[0], q{SELECT nexusmem.cache_fetch('saved', 'SELECT 1/0')}), qr/division by zero/, 'an error in a savepoint');
is(ask($s[0], 'ROLLBACK TO s'), '', 'rolled back');
is(ask($s[1], q{SELECT nexusmem.cache_fetch('saved', 'SELECT 5')}), 5, 'leaves no lock');
ask($s[0], 'ROLLBACK');
ask($s[0], 'BEGIN');
is(ask($s[0], q{SELECT public.caught('caught', 'SELECT 1/0')}), '22012', 'an error that is caught');
is(ask($s[1], q{SELECT nexusmem.cache_fetch('caught', 'SELECT 6')}), 6, 'leaves none either');
ask($s[0], 'COMMIT');
like(failure(q{SELECT cache_fetch('two', 'SELECT v FROM t')}), qr/21000: query of cache_fetch\(\) returned more than one row/, 'two rows');
like(failure(q{SELECT cache_fetch('two', 'SELECT id, v FROM t WHERE id = 1')}), qr/22023: query of cache_fetch\(\) must return one column, not 2/, 'two columns');
like(failure(q{SELECT cache_fetch('two', 'SELECT 1; SELECT 2')}), qr/22023: query of cache_fetch\(\) must be one statement that returns a value/, 'two statements');
like(failure(qq{SELECT cache_fetch('two', '$_')}), qr/22023: query of cache_fetch\(\) must be one statement that returns a value/, "query '$_'")
	for '', 'DELETE FROM t', 'CREATE TABLE u ()', ';';
is(sql(q{SELECT count(*) FROM t}), 3, 'which was not run');
like(failure(q{SELECT cache_fetch('no', 'no such thing')}), qr/42601: syntax error at or near "no"/, 'a syntax error');
like(failure(q{SELECT cache_fetch('no', 'COMMIT')}), qr/22023/, 'no transaction control');
like(failure(q{SELECT cache_fetch('no', NULL)}), qr/22023: query must not be null/, 'no query');
like(failure(q{SELECT cache_fetch(NULL, 'SELECT 1')}), qr/22023: key must not be null/, 'no key');
like(failure(q{SELECT cache_fetch('', 'SELECT 1')}), qr/22023: key must not be empty/, 'an empty key');
like(failure(q{SELECT cache_fetch('k', 'SELECT 1', NULL, NULL)}), qr/22023: name of a cache must not be null/, 'no cache');

# no row, and NULL, are NULL and not cached
is(sql(q{SELECT cache_fetch('none', 'SELECT v FROM t WHERE id = 7') IS NULL, cache_fetch('none', 'SELECT v FROM t WHERE id = 3') IS NULL, cache_fetch('none', 'SELECT v FROM t WHERE id = 2')}), 't|t|two', 'no row, NULL');

# who waited for a NULL computes it alone, all at once
sql(q{CREATE FUNCTION null_in_time() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(CASE WHEN nexusmem.counter_add('runs') = 1 THEN 1 ELSE 2 END);
	RETURN NULL;
END $$});
close_gate($_) for 1, 2;
send_query($_, q{SELECT nexusmem.cache_fetch('null', 'SELECT public.null_in_time()')}) for @s[ 0 .. 9 ];
wait_at_gate(1, 1);
wait_for_key(9);
open_gate(1);
wait_at_gate(2, 9);
open_gate(2);
is(scalar(grep { answer($_) eq '' } @s[ 0 .. 9 ]), 10, 'NULL for all');
is(runs(), 10, 'each computed it');

# writing: computed, not stored
sub not_stored
{
	my ($name, $before, $query, $value) = @_;
	my $key = "key of $name";
	is(sql("BEGIN $before; SELECT cache_fetch('$key', \$q\$$query\$q\$); COMMIT"), $value, "$name: computed");
	is(sql("SELECT cache_get('$key') IS NULL"), 't', "$name: not stored");
	return;
}
sql(q{CREATE FUNCTION writes() RETURNS text LANGUAGE sql AS $$ UPDATE t SET v = v WHERE id = 1 RETURNING v $$});
not_stored('a transaction that has written', q{; UPDATE t SET v = 'mine' WHERE id = 2}, 'SELECT v FROM t WHERE id = 2', 'mine');
not_stored('one whose savepoint has', q{; SAVEPOINT s; UPDATE t SET v = 'not' WHERE id = 2; ROLLBACK TO s}, 'SELECT v FROM t WHERE id = 2', 'mine');
not_stored('a statement that writes', '', q{INSERT INTO t VALUES (4, 'four') RETURNING v}, 'four');
not_stored('a function that writes', '', 'SELECT writes()', 'one');
not_stored('row locks', '', 'SELECT v FROM t WHERE id = 1 FOR UPDATE', 'one');
not_stored('REPEATABLE READ', 'ISOLATION LEVEL REPEATABLE READ', 'SELECT v FROM t WHERE id = 1', 'one');
not_stored('SERIALIZABLE', 'ISOLATION LEVEL SERIALIZABLE', 'SELECT v FROM t WHERE id = 1', 'one');
not_stored('a temporary table', '; CREATE TEMP TABLE tt AS SELECT 9 AS x; COMMIT; BEGIN', 'SELECT x FROM tt', '9');
not_stored('a temporary view', '; CREATE TEMP VIEW tv AS SELECT v FROM t WHERE id = 2; COMMIT; BEGIN', 'SELECT v FROM tv', 'mine');
not_stored('a cursor', '; DECLARE c CURSOR FOR SELECT 7', 'FETCH c', '7');
not_stored('a long value', '', q{SELECT repeat('x', 1048577)}, 'x' x 1048577);
is(sql(q{SELECT v FROM t WHERE id = 4}), 'four', 'what it wrote is there');
is(sql(q{BEGIN READ ONLY; SELECT cache_fetch('read only', 'SELECT 1'); COMMIT; SELECT cache_get('read only')}), "1\n1", 'READ ONLY: stored');

# row security
sql(q{CREATE ROLE owner; CREATE ROLE reader; CREATE ROLE other;
GRANT USAGE, CREATE ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA nexusmem TO PUBLIC;
SET ROLE owner;
CREATE TABLE secret (who name, v text);
INSERT INTO secret VALUES ('reader', 'r'), ('other', 'o'), ('owner', 'x');
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret USING (who = current_user);
GRANT SELECT ON secret TO PUBLIC;
CREATE VIEW all_of_it AS SELECT * FROM secret;
GRANT SELECT ON all_of_it TO PUBLIC;
CREATE FUNCTION mine() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT string_agg(v, '') FROM secret); END $$;
CREATE FUNCTION mine_of(int) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN mine(); END $$;
ALTER FUNCTION mine() PARALLEL SAFE;
CREATE FUNCTION lowest() RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT min(mine_of(i)) FROM numbers; END $$;
CREATE TABLE numbers AS SELECT i FROM generate_series(1, 10) i;
GRANT SELECT ON numbers TO PUBLIC;
CREATE FUNCTION inlined() RETURNS SETOF text LANGUAGE sql STABLE AS $$ SELECT v FROM secret $$;
CREATE FUNCTION everything() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN RETURN (SELECT string_agg(v, '') FROM secret); END $$;
});
sub secure
{
	my ($name, $role, $query, $value, $stored) = @_;
	is(sql("SET ROLE $role; SELECT cache_fetch('secure $name', '$query'), cache_get('secure $name') IS NOT NULL"), "$value|$stored", "row security: $name");
	return;
}
secure('applied', 'reader', 'SELECT v FROM secret', 'r', 'f');
secure('applied in a function', 'reader', 'SELECT mine()', 'r', 'f');
my $workers = join '; SET ', 'reader', 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0', 'parallel_leader_participation = off';
secure('applied in parallel workers', $workers, 'SELECT min(mine_of(i)) FROM numbers', 'r', 'f');
secure('applied in parallel workers of a function', $workers, 'SELECT lowest()', 'r', 'f');
secure('applied in parallel workers of EXECUTE', "$workers; PREPARE p AS SELECT min(mine_of(i)) FROM numbers", 'EXECUTE p', 'r', 'f');
secure('none in parallel workers', $workers, 'SELECT sum(i) FROM numbers', '55', 't');
secure('applied in an inlined function', 'reader', 'SELECT string_agg(i, NULL) FROM inlined() i', 'r', 'f');
secure('applied in a subquery', 'reader', 'SELECT (SELECT v FROM secret)', 'r', 'f');
secure('applied in a nested fetch', 'reader', q{SELECT cache_fetch(''secure inner'', ''SELECT v FROM secret'')}, 'r', 'f');
secure('not applied to the owner', 'owner', 'SELECT count(*) FROM secret', '3', 't');
secure('not applied in a view of the owner', 'reader', 'SELECT count(*) FROM all_of_it', '3', 't');
secure('not applied in a function of the owner', 'reader', 'SELECT everything()', 'rox', 't');
secure('none', 'reader', 'SELECT 1', '1', 't');

# a query that changes the role
sql(q{SELECT cache_create('of both'), share('cache', 'of both', NULL, 'write')});
foreach my $cache ('default', 'of both')
{
	my $change = qq{cache_fetch('role', \$\$SELECT set_config('role', 'other', false)\$\$, NULL, '$cache')};
	is(sql("SET ROLE reader; SELECT $change; SELECT current_user, cache_get('role', '$cache'); SET ROLE reader; SELECT cache_get('role', '$cache') IS NULL"),
		"other\nother|\nt", "$cache: a query that changes the role is not stored");
}

# the caller's privileges and search_path
like(failure(q{SET ROLE other; SELECT cache_fetch('denied', 'SELECT v FROM t')}), qr/42501: permission denied for table t/, 'the caller\'s privileges');
sql(q{CREATE SCHEMA one; CREATE SCHEMA two; GRANT USAGE ON SCHEMA one, two TO PUBLIC;
CREATE VIEW one.place AS SELECT 'one' AS v; CREATE VIEW two.place AS SELECT 'two' AS v;
GRANT SELECT ON one.place, two.place TO PUBLIC});
is(sql(q{SET ROLE reader; SET search_path = one; SELECT nexusmem.cache_fetch('place', 'SELECT v FROM place');
SET ROLE other; SET search_path = two; SELECT nexusmem.cache_fetch('place', 'SELECT v FROM place')}), "one\ntwo", 'the caller\'s search_path, and cache');

# nesting
like(failure(q{SELECT cache_fetch('self', $$SELECT cache_fetch('self', 'SELECT 1')$$)}), qr/42P19: query that computes key "self" of cache "default" asks for that key itself/, 'recursion');
is(sql(q{SELECT cache_fetch('self', 'SELECT 1'), cache_fetch('outer', $$SELECT cache_fetch('inner', 'SELECT 2') || 'x'$$), cache_get('inner'), cache_get('outer')}), '1|2x|2|2x', 'nested, both stored');
is(sql(q{SELECT cache_fetch('survivor', $$SELECT caught('survivor', 'SELECT 1')$$)}), '42P19', 'recursion that is caught');
sql(q{CREATE FUNCTION nest(gate int, key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(gate);
	RETURN 'over ' || nexusmem.cache_fetch(key, format('SELECT public.quick(%L)', key));
END $$});
close_gate($_) for 1, 2;
send_query($s[0], q{SELECT nexusmem.cache_fetch('a', 'SELECT public.nest(1, ''b'')')});
send_query($s[1], q{SELECT nexusmem.cache_fetch('b', 'SELECT public.nest(2, ''a'')')});
wait_at_gate(1, 1);
wait_at_gate(2, 1);
send_query($s[2], q{SELECT nexusmem.cache_fetch('a', 'SELECT 1')});
wait_for_key(1);
open_gate(1);
is(answer($s[0]), 'over b', 'nested: computed although another session does');
open_gate(2);
is(answer($s[1]), 'over over b', 'nested: found what was stored meanwhile');
is(answer($s[2]), 'over b', 'who waited has it too');
is(sql(q{SELECT cache_get('a'), cache_get('b')}), 'over b|b', 'stored: what was first');
is(runs(), 1, 'computed once');

# a nested one that finds its key free computes it for others, too
close_gate(1);
send_query($s[0], q{SELECT nexusmem.cache_fetch('around', $$SELECT nexusmem.cache_fetch('within', 'SELECT public.slow(''v'')')$$)});
wait_at_gate(1, 1);
fetch_slowly($s[1], 'within', 'another');
wait_for_key(1);
open_gate(1);
is(answer($_), 'v', 'nested: computed while another session waits for it') for @s[ 0, 1 ];
is(runs(), 1, 'computed once');

# eight that are one in another are stored, and not what is deeper
sql(q{CREATE FUNCTION deeper(name text, n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF n > 0 THEN
		RETURN nexusmem.cache_fetch(name || n, format('SELECT public.deeper(%L, %s)', name, n - 1));
	END IF;
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN 'ground';
END $$});
close_gate(1);
send_query($s[0], q{SELECT public.deeper('level ', 12)});
wait_at_gate(1, 1);
is(key_locks(), 8, 'of 12 nested ones 8 keep others from computing the same');
is(sql(q{SET lock_timeout = '20s'; SELECT cache_fetch('level 4', 'SELECT ''another''')}), 'another', 'nobody waits for a deeper one');
sql(q{SELECT cache_delete('level 4')});
open_gate(1);
is(answer($s[0]), 'ground', '12 nested ones');
is(sql(q{SELECT string_agg(i::text, ' ' ORDER BY i) FROM generate_series(1, 12) i WHERE cache_get('level ' || i) = 'ground'}), '5 6 7 8 9 10 11 12', 'the outer 8 are stored');
is(sql(q{SELECT deeper('level ', 4), cache_get('level 4'), cache_get('level 1')}), 'ground|ground|ground', 'the others when they are asked for by themselves');

# few sessions that compute ever deeper take nothing from others: what those compute is stored,
# though many keys are set meanwhile
my @deep = @s[ 1 .. 14 ];
close_gate(1);
send_query($deep[$_], "SELECT public.deeper('deep $_ ', 80)") for 0 .. $#deep;
wait_at_gate(1, scalar @deep);
fetch_slowly($s[0], 'beside', 'value');
wait_at_gate(1, @deep + 1);
is(sql(q{SELECT count(*) FROM (SELECT cache_set('beside ' || i, 'x') FROM generate_series(1, 20000) i) x}), 20000, 'keys are set while sessions compute deep');
open_gate(1);
is(answer($s[0]), 'value', 'and another computes one key');
is(sql(q{SELECT cache_get('beside')}), 'value', 'which is stored');
is(scalar(grep { answer($_) eq 'ground' } @deep), scalar @deep, 'the deep ones end');
sql(q{SELECT count(cache_delete('beside ' || i)) FROM generate_series(1, 20000) i});

# locks of the caller's own
close_gate(1);
ask($s[1], 'BEGIN; SELECT pg_advisory_xact_lock(3)');
send_query($s[0], q{SELECT nexusmem.cache_fetch('dead', 'SELECT x FROM (SELECT public.slow(''value'') AS x, pg_advisory_xact_lock(3) OFFSET 0) y')});
wait_at_gate(1, 1);
send_query($s[1], q{SELECT nexusmem.cache_fetch('dead', 'SELECT ''own''')});
wait_for_key(1);
open_gate(1);
like(join(' ', sort map { my $a = answer($_); $a =~ /deadlock detected/ ? 'deadlock' : $a } @s[ 0, 1 ]), qr/^deadlock (own|value)$/, 'a deadlock is detected');
ask($s[1], 'ROLLBACK');
runs();

# a key that is deleted while it is computed is not stored
foreach my $how (q{cache_delete('gone')}, q{cache_expire('gone', '0')}, q{cache_set('gone', 'x', '0')}, q{cache_clear('default')}, q{cache_drop('default')})
{
	close_gate(1);
	fetch_slowly($s[0], 'gone', 'old');
	wait_at_gate(1, 1);
	send_query($s[1], q{SELECT nexusmem.cache_fetch('gone', 'SELECT ''new''')});
	wait_for_key(1);
	sql("SELECT $how");
	open_gate(1);
	is(answer($s[0]), 'old', "$how meanwhile");
	is(answer($s[1]), 'new', 'who waited computes it anew');
	is(sql(q{SELECT cache_get('gone'), cache_delete('gone')}), 'new|t', 'which is stored');
}

# nor in a cache that nobody has made yet
foreach my $how (q{cache_expire('gone', '0', 'unmade')}, q{cache_delete('gone', 'unmade')})
{
	close_gate(1);
	send_query($s[0], q{SELECT nexusmem.cache_fetch('gone', 'SELECT public.slow(''old'')', NULL, 'unmade')});
	wait_at_gate(1, 1);
	is(sql("SELECT $how"), 'f', "$how meanwhile");
	open_gate(1);
	is(answer($s[0]), 'old', 'computed in a cache that is not there yet');
	is(sql(q{SELECT cache_get('gone', 'unmade') IS NULL, cache_drop('unmade') IS NULL}), 't|f', 'and not stored');
}

# a cache that is dropped meanwhile does not come back, as another role's and without its limits
sql(q{CREATE ROLE maker; GRANT USAGE ON SCHEMA nexusmem TO maker; SET ROLE maker;
SELECT cache_create('made', 1000000, '1 min'), share('cache', 'made', 'reader', 'write')});
close_gate(1);
ask($s[0], 'SET ROLE reader');
send_query($s[0], q{SELECT nexusmem.cache_fetch('k', 'SELECT ''old'' FROM pg_advisory_xact_lock_shared(1)', NULL, 'made')});
wait_at_gate(1, 1);
is(sql(q{SET ROLE maker; SELECT cache_drop('made')}), 't', 'a cache is dropped meanwhile');
open_gate(1);
is(answer($s[0]), 'old', 'computed');
is(sql(q{SELECT cache_drop('made')}), 'f', 'and the cache stays dropped');
ask($s[0], 'RESET ROLE');

# who may not write to a cache holds up nobody there, also if he began before it was made
sub squat
{
	my ($cache) = @_;
	close_gate(1);
	send_query($s[0], qq{SELECT nexusmem.cache_fetch('top10', 'SELECT ''mine'' FROM pg_advisory_xact_lock_shared(1)', NULL, '$cache')});
	wait_at_gate(1, 1);
	return;
}
sub squatted
{
	my ($cache, $error, $name) = @_;
	is(sql("SELECT cache_create('$cache')"), 't', "$name: a cache of that name is made");
	is(ask($s[1], "SELECT nexusmem.cache_fetch('top10', 'SELECT ''value''', NULL, '$cache')"), 'value', 'whose role does not wait');
	open_gate(1);
	like(answer($s[0]), $error, 'who computes for a cache that is not his');
	is(sql("SELECT cache_get('top10', '$cache'), cache_drop('$cache')"), 'value|t', 'stores nothing there');
	return;
}
ask($s[0], 'SET ROLE reader');
# ends what would wait for ever
ask($s[1], q{SET lock_timeout = '1min'});
squat('claimed');
squatted('claimed', qr/permission denied for cache "claimed"/, 'before it was made');
is(ask($s[0], q{SELECT nexusmem.cache_create('claimed')}), 't', 'another role makes it');
squat('claimed');
is(sql(q{SET ROLE reader; SELECT cache_drop('claimed')}), 't', 'and drops it');
squatted('claimed', qr/^mine$/, 'another one before it');
ask($s[0], 'RESET ROLE');
ask($s[1], 'RESET lock_timeout');

# three sessions fetch a key, the third one when there is the cache
sub fetch_while_made
{
	my ($cache) = @_;
	close_gate(1);
	fetch_slowly($s[0], 'k', 'value', $cache);
	wait_at_gate(1, 1);
	fetch_slowly($s[1], 'k', 'value', $cache);
	wait_for_key(1);
	sql("SELECT cache_set('another', 'x', NULL, '$cache')");
	fetch_slowly($s[2], 'k', 'value', $cache);
	wait_for_key(2);
	return;
}

# but one role's sessions wait for each other, also where the cache is made meanwhile
runs();
fetch_while_made('growing');
open_gate(1);
is(answer($_), 'value', 'computed while its cache is made') for @s[ 0 .. 2 ];
is(runs(), 1, 'once');

# one by one where the first fails, whether they came before the cache or after it
fetch_while_made('grown');
sql("SELECT pg_cancel_backend($s[0]{pid})");
like(answer($s[0]), qr/canceling statement/, 'computed by one that is cancelled');
wait_at_gate(1, 1);
wait_for_key(1);
open_gate(1);
is(answer($_), 'value', 'by another, after its cache was made') for @s[ 1, 2 ];
is(runs(), 2, 'by one of them');

# a key that is deleted again while it is computed anew: the others do not wait for a third time
sql(q{CREATE FUNCTION in_turn() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint := least(nexusmem.counter_add('runs'), 3);
BEGIN
	PERFORM pg_advisory_xact_lock_shared(n);
	RETURN n;
END $$});
runs();
close_gate($_) for 1 .. 3;
send_query($_, q{SELECT nexusmem.cache_fetch('changing', 'SELECT public.in_turn()')}) for @s[ 0 .. 9 ];
wait_at_gate(1, 1);
wait_for_key(9);
sql(q{SELECT cache_delete('changing')});
open_gate(1);
wait_at_gate(2, 1);
wait_for_key(8);
sql(q{SELECT cache_delete('changing')});
open_gate(2);
wait_at_gate(3, 8);
open_gate(3);
is(join('', sort map { answer($_) } @s[ 0 .. 9 ]), '1233333333', 'deleted twice while it is computed');
is(runs(), 10, 'those that have waited twice compute');

# likewise where the first time was before they came
sql(q{SELECT cache_delete('changing')});
close_gate($_) for 1 .. 3;
send_query($s[0], q{SELECT nexusmem.cache_fetch('changing', 'SELECT public.in_turn()')});
wait_at_gate(1, 1);
sql(q{SELECT cache_clear()});
send_query($_, q{SELECT nexusmem.cache_fetch('changing', 'SELECT public.in_turn()')}) for @s[ 1 .. 9 ];
wait_for_key(9);
sql(q{SELECT cache_clear()});
open_gate(1);
wait_at_gate(2, 1);
wait_for_key(8);
sql(q{SELECT cache_clear()});
open_gate(2);
wait_at_gate(3, 8);
open_gate(3);
is(join('', sort map { answer($_) } @s[ 0 .. 9 ]), '1233333333', 'its cache cleared three times while it is computed');
is(runs(), 10, 'those that have waited twice compute');

# nor where another session computes the same one, which never stores it
close_gate(1);
fetch_slowly($s[0], 'gone', 'old');
wait_at_gate(1, 1);
ask($s[2], 'BEGIN ISOLATION LEVEL REPEATABLE READ');
fetch_slowly($s[2], 'gone', 'own');
wait_at_gate(1, 2);
sql(q{SELECT cache_delete('gone')});
open_gate(1);
is(answer($_), $_ == $s[0] ? 'old' : 'own', 'deleted while two compute it') for @s[ 0, 2 ];
ask($s[2], 'COMMIT');
is(sql(q{SELECT cache_get('gone') IS NULL}), 't', 'and not stored');

# deletes of other keys, of each word of the counts, cost it nothing
foreach my $how (q{cache_delete('u:' || i)}, q{cache_expire('u:' || i, '0')}, q{cache_set('u:' || i, 'x', '0')})
{
	close_gate(1);
	fetch_slowly($s[0], 'top', 'value');
	wait_at_gate(1, 1);
	is(sql("SELECT count(*) FROM (SELECT $how FROM generate_series(1, 30000) i) x"), 30000, "$how meanwhile");
	open_gate(1);
	is(answer($s[0]), 'value', 'another key is computed');
	is(sql(q{SELECT cache_get('top'), cache_delete('top')}), 'value|t', 'and stored');
}

# nor do those of keys of its name in other caches
foreach my $how (q{SELECT cache_delete('top', 'another')}, q{SET ROLE reader; SELECT cache_delete('top')})
{
	close_gate(1);
	fetch_slowly($s[0], 'top', 'value');
	wait_at_gate(1, 1);
	is(sql($how), 'f', "$how meanwhile");
	open_gate(1);
	is(answer($s[0]), 'value', 'that key of another cache is computed');
	is(sql(q{SELECT cache_get('top'), cache_delete('top')}), 'value|t', 'and stored');
}

# how many of five keys are, which go
sub stored { return sql(q{SELECT count(*) FROM (SELECT cache_get('top ' || i) AS v, cache_delete('top ' || i) AS there FROM generate_series(0, 4) i) x WHERE v = 'value' AND there}) }

# nor do caches that are emptied or dropped, which need not be there, however much is computed
foreach my $how (q{cache_clear('no cache ' || i)}, q{cache_drop('no cache ' || i)})
{
	close_gate(1);
	fetch_slowly($s[$_], "top $_", 'value') for 0 .. 4;
	wait_at_gate(1, 5);
	is(sql("SET ROLE reader; SELECT count($how) FROM generate_series(1, 20000) i"), 20000, "$how meanwhile");
	open_gate(1);
	is(answer($s[$_]), 'value', "key $_ is computed") for 0 .. 4;
	is(stored(), 5, 'and stored');
}

# nor those of its name in caches that are not there, where two compute one of that name
close_gate(1);
fetch_slowly($s[$_], "top $_", 'value') for 0 .. 4;
fetch_slowly($s[5], 'top 0', 'value', 'another');
wait_at_gate(1, 6);
is(sql(q{SET ROLE reader; SELECT count(*) FROM (SELECT cache_delete('top 0', 'no cache ' || i) FROM generate_series(1, 20000) i) x}), 20000, 'deleted in others meanwhile');
open_gate(1);
is(answer($s[$_]), 'value', "key $_ is computed") for 0 .. 5;
is(stored(), 5, 'and stored');

# one that is set meanwhile stays
close_gate(1);
fetch_slowly($s[0], 'set', 'old');
wait_at_gate(1, 1);
sql(q{SELECT cache_set('set', 'new')});
open_gate(1);
is(answer($s[0]), 'old', 'a key is set meanwhile');
is(sql(q{SELECT cache_get('set')}), 'new', 'and stays');

# one that is set meanwhile, and expires, is not followed by an older one
foreach my $how (q{cache_set('brief', 'new', '1 us')}, q{cache_add('brief', 'new', '1 us')}, q{cache_mset('{brief}', '{new}', '1 us')})
{
	close_gate(1);
	fetch_slowly($s[0], 'brief', 'old');
	wait_at_gate(1, 1);
	sql("SELECT $how");
	wait_for(q{SELECT nexusmem.cache_get('brief') IS NULL}, 'which expires');
	open_gate(1);
	is(answer($s[0]), 'old', "$how meanwhile");
	is(sql(q{SELECT cache_get('brief') IS NULL}), 't', 'and nothing older comes after it');
}
is(sql(q{SELECT cache_fetch('brief', 'SELECT 2'), cache_get('brief')}), '2|2', 'a later one does');

# time to live, caches by name, limits, types
is(sql(q{SELECT cache_fetch('hour', 'SELECT 1', '1 hour'), cache_ttl('hour') BETWEEN '59 min' AND '1 hour', cache_fetch('ever', 'SELECT 1'), cache_ttl('ever') IS NULL}), '1|t|1|t', 'time to live');
is(sql(q{SELECT cache_fetch('over', 'SELECT 1', '0'), cache_get('over') IS NULL, cache_fetch('over', 'SELECT 2', '-1 day'), cache_get('over') IS NULL}), '1|t|2|t', 'of nothing: computed, not stored');
is(sql(q{SELECT cache_create('minutes', NULL, '1 min'), cache_fetch('k', 'SELECT 1', NULL, 'minutes'), cache_ttl('k', 'minutes') BETWEEN '50 s' AND '1 min', cache_get('k') IS NULL}), 't|1|t|t', 'a cache with its own default');
is(sql(q{SELECT cache_fetch('k', 'SELECT 1/0', NULL, 'minutes'), cache_fetch('k', 'SELECT 2', NULL, 'new'), cache_get('k', 'new')}), '1|2|2', 'a cache made by it');
sql(q{SELECT share('cache', 'minutes', 'reader', 'read'), share('cache', 'minutes', 'other', 'write')});
is(sql(q{SET ROLE other; SELECT cache_fetch('k', 'SELECT 3', NULL, 'minutes'), cache_fetch('o', 'SELECT 3', NULL, 'minutes'); RESET ROLE; SELECT cache_get('o', 'minutes')}), "1|3\n3", 'a shared cache');
like(failure(qq{SET ROLE reader; SELECT cache_fetch('k', 'SELECT 1', NULL, '$_')}), qr/42501: permission denied for cache "$_"/, "cache $_: may not be written to") for 'minutes', 'new';
sql(q{SELECT cache_set('bytes', '\x01'::bytea)});
like(failure(q{SELECT cache_fetch('bytes', 'SELECT 1')}), qr/42804: value of key "bytes" in cache "default" is of type bytea, not text/, 'a value of another type');
is(sql(q{BEGIN; SET LOCAL nexusmem.role_limit = 1; SELECT cache_fetch('limited', 'SELECT 1'), cache_get('limited') IS NULL; SELECT 'goes on'; COMMIT}), "1|t\ngoes on", 'past the role\'s limit: computed, not stored');
like(failure(q{SELECT cache_fetch(repeat('k', 1025), 'SELECT 1')}), qr/22023: key is too long/, 'a long key');
is(sql(q{SELECT cache_fetch(repeat('k', 1024), 'SELECT 1', NULL, repeat('n', 63)), cache_drop(repeat('n', 63))}), '1|t', 'the longest key and name');
is(sql(q{SELECT count(*) FROM (SELECT cache_fetch('many ' || i, 'SELECT ' || i) FROM generate_series(1, 1000) i) x; SELECT count(*) FILTER (WHERE cache_get('many ' || i) = i::text) FROM generate_series(1, 1000) i}), "1000\n1000", 'many keys in a statement');
is(key_locks(), 0, 'no lock is left');
close_session($_) for @s, $keeper;

# an error while it is stored leaves the session as it was
sql(q{CREATE ROLE writer; GRANT USAGE ON SCHEMA nexusmem, public TO writer; SELECT cache_create('lent'); SELECT share('cache', 'lent', 'writer', 'write')});
my $borrower = session($node);
ask($borrower, 'SET ROLE writer');
ask($borrower, q{SET search_path = public, nexusmem});
sql(q{CREATE FUNCTION unshared() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM nexusmem.unshare('cache', 'lent', 'writer'); RETURN 'x'; END $$});
like(ask($borrower, q{SELECT cache_fetch('k', 'SELECT unshared()', NULL, 'lent')}), qr/permission denied/, 'the privilege goes while it is computed');
ask($borrower, q{SET statement_timeout = '100ms'});
like(ask($borrower, 'SELECT pg_sleep(60)'), qr/canceling statement/, 'and the session can be cancelled after it');
close_session($borrower);

# on a hot standby
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', q{SET search_path = public, nexusmem;
	SELECT pg_is_in_recovery(), cache_fetch('s', 'SELECT v FROM t WHERE id = 1'), cache_get('s')}), 't|one|one', 'a standby has its own');
$standby->promote;
is($standby->safe_psql('postgres', q{SET search_path = public, nexusmem;
	SELECT cache_get('s'), cache_fetch('s', 'SELECT 2'), cache_fetch('promoted', 'SELECT v FROM t WHERE id = 1'), cache_get('promoted')}), 'one|one|one|one', 'and keeps it when it is promoted');
$standby->stop;
$node->stop;
done_testing();
