-- Reading ahead over the outer side of a nested loop changes when a block is read,
-- and never rows, errors, sequences or plans.
--
-- test/t runs this file too, with everything cold: it sets the variable "cold" to
-- a file that the sums are written to, and cold() then empties the caches.
-- What this file prints is the same in both.
\set SHOW_CONTEXT never
SET lc_messages = 'C';
SET client_min_messages = warning;
CREATE SCHEMA look;
SET search_path = look, public;

SET look.setting = 'nexusmem.enable_nestloop_prefetch';
SET look.by_cursor = '{false,true}';
SET look.loops = 'true';
\getenv srcdir PG_ABS_SRCDIR
\set helpers :srcdir '/sql/look_ahead.inc'
\set ECHO none
\i :helpers
\set ECHO all

-- k, in random order over some 1,000 blocks
CREATE TABLE t (id int, k int, v int, s text, n int, pad text);
INSERT INTO t
SELECT i, i * 7919 % 20011, i * 104729 % 1000, 's' || lpad((i * 6007 % 20011)::text, 5, '0'),
	CASE WHEN i % 10 <> 0 THEN i * 3557 % 20011 END, repeat(chr(97 + i % 26), 350)
FROM generate_series(1, 20000) AS i;
CREATE UNIQUE INDEX t_k ON t (k);
CREATE INDEX t_v_id ON t (v, id DESC);
CREATE INDEX t_id_v ON t (id NULLS FIRST, v DESC NULLS LAST) INCLUDE (n);
CREATE INDEX t_s ON t (s COLLATE "C");
CREATE INDEX t_n ON t (n DESC);
CREATE INDEX t_expr ON t ((k / 2));
CREATE INDEX t_part ON t (k) WHERE v < 100;
-- the outer side; each value of d 20 times
CREATE TABLE o (i int, k int, k8 bigint, k2 smallint, d int, n int, s text, v varchar(20), x int);
INSERT INTO o SELECT i, i * 31 % 20011, i * 37 % 20011, i * 41 % 20011, i % 100,
	CASE WHEN i % 3 <> 0 THEN i * 3557 % 20011 END, 's' || lpad((i * 6007 % 20011)::text, 5, '0'),
	's' || lpad((i * 6011 % 20011)::text, 5, '0'), i - 1500
FROM generate_series(1, 2000) AS i;
CREATE INDEX o_i ON o (i);
CREATE TABLE dup (d int, w int, pad text);
INSERT INTO dup SELECT i * 7919 % 100, i, repeat('x', 200) FROM generate_series(1, 10000) AS i;
CREATE INDEX dup_d ON dup (d);
VACUUM (ANALYZE, FREEZE) t, o, dup;
CHECKPOINT;

SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SET enable_memoize = off;
SET max_parallel_workers_per_gather = 0;
SET jit = off;

-- keys
SELECT same('SELECT o.i, t.id, t.pad FROM o JOIN t ON t.k = o.k', 't_k', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k8', 't_k');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k2', 't_k');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.s COLLATE "C" = o.s', 't_s');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.s COLLATE "C" = o.v', 't_s');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.n = o.n', 't_n');
SELECT same('SELECT o.i, t.pad FROM o LEFT JOIN t ON t.n = o.n', 't_n');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.k / 2 = o.k', 't_expr');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k AND t.v < 100', 't_part');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.v = o.d WHERE o.i < 200', 't_v_id');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.v = o.d AND t.id = o.i + 300', 't_v_id|t_id_v');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.v = 17 AND t.id = o.i', 't_v_id|t_id_v');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.id = o.k AND t.v = o.d', 't_id_v|t_v_id');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.v = o.d AND t.id > o.i WHERE o.i < 200', 't_v_id');
SELECT same('SELECT o.i, t.n FROM o JOIN t ON t.id = o.k', 't_id_v');
SELECT same('SELECT o.i, d.w FROM o JOIN dup d ON d.d = o.d WHERE o.i < 50', 'dup_d');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k + 1000000', 't_k');

-- the outer side
SELECT same('SELECT g, t.pad FROM generate_series(1, 3000, 3) g JOIN t ON t.k = g', 'Function Scan');
SELECT same('SELECT g, t.pad FROM unnest(ARRAY(SELECT k FROM o)) g JOIN t ON t.k = g', 'Function Scan');
SELECT same('SELECT a, t.pad FROM (VALUES (3), (5), (NULL), (19999), (7), (8), (9)) v(a) JOIN t ON t.k = v.a', 'Values Scan');
SELECT same('SELECT x.k, t.pad FROM (SELECT DISTINCT k FROM o) x JOIN t ON t.k = x.k', 't_k');
SELECT same('SELECT x.k, x.c, t.pad FROM (SELECT d AS k, count(*) AS c FROM o GROUP BY d) x JOIN t ON t.k = x.k', 't_k');
SELECT same('SELECT x.k, t.pad FROM (SELECT k FROM o UNION ALL SELECT d FROM o) x JOIN t ON t.k = x.k', 'Append');
SELECT same('WITH x AS MATERIALIZED (SELECT k FROM o) SELECT x.k, t.pad FROM x JOIN t ON t.k = x.k', 'CTE Scan');
SELECT same('WITH RECURSIVE r AS (SELECT 77 AS id, 0 AS n UNION ALL SELECT t.id, r.n + 1 FROM r JOIN t ON t.k = r.id WHERE r.n < 50) SELECT * FROM r', 'WorkTable Scan');
SELECT same('WITH RECURSIVE r AS (SELECT i AS id, 0 AS n FROM o WHERE i < 300 UNION ALL SELECT t.id, r.n + 1 FROM r JOIN t ON t.k = r.id WHERE r.n < 5) SELECT * FROM r', 'WorkTable Scan');
SELECT same('SELECT o.i, t.id, u.pad FROM o JOIN t ON t.k = o.k JOIN t u ON u.n = t.id', 't_n');
SELECT same('SELECT o.i, (SELECT max(id) FROM t WHERE t.k = o.k) AS m, u.pad FROM o JOIN t u ON u.k = o.d WHERE o.i < 300', 't_k');

-- inner sides other than the scan
SELECT same('SELECT o.i, x.* FROM o, LATERAL (SELECT sum(length(pad)) FROM t WHERE t.v = o.d) x', 'Aggregate');
SELECT same('SELECT o.i, x.* FROM o, LATERAL (SELECT id, pad FROM t WHERE t.v = o.d ORDER BY id LIMIT 3) x', 'Limit');
SELECT same('SELECT o.i, x.* FROM o, LATERAL (SELECT id, pad FROM t WHERE t.v = o.d ORDER BY id DESC LIMIT 3) x', 'Limit');
SELECT same('SELECT o.i, x.* FROM o, LATERAL (SELECT t.id, u.pad FROM t JOIN t u ON u.k = t.id WHERE t.v = o.d) x WHERE o.i < 300', 't_v_id');
SELECT same('SELECT o.i, x.* FROM o, LATERAL (SELECT t.id, u.pad FROM t JOIN t u ON u.k = o.k WHERE t.v = o.d) x WHERE o.i < 300', 't_v_id');

-- Memoize
SET enable_memoize = on;
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.d', 'Memoize');
SELECT same('SELECT o.i, t.pad FROM o LEFT JOIN t ON t.k = o.d AND t.v < 500', 'Memoize');
RESET enable_memoize;
SET enable_memoize = off;

-- rescans: the ring belongs to the parameters that it was filled with
SELECT same('SELECT a.i, (SELECT sum(t.id) FROM o b JOIN t ON t.k = b.k WHERE b.d = a.d AND b.i < 300) FROM o a WHERE a.i < 100', 'SubPlan');
SELECT same('SELECT a.i, (SELECT string_agg(x.pad, '','') FROM (SELECT left(t.pad, 3) AS pad FROM o b JOIN t ON t.k = b.k WHERE b.i > a.i ORDER BY b.i LIMIT 3) x) FROM o a WHERE a.i < 300', 'SubPlan');
SELECT same('SELECT a.i, x.* FROM o a, LATERAL (SELECT b.i, t.id FROM o b JOIN t ON t.k = b.k WHERE b.i > a.i ORDER BY b.i LIMIT 4) x WHERE a.i < 300', 'Limit');
-- with rows in the ring when the scan is begun anew
SELECT same('SELECT a.i, x.* FROM o a, LATERAL (SELECT b.i, t.id FROM o b JOIN t ON t.k = b.k WHERE t.v > 700 + a.d ORDER BY b.i LIMIT 4) x WHERE a.i < 100', 'Limit');
SELECT same('SELECT a.i, (SELECT t.id FROM o b JOIN t ON t.k = b.k WHERE t.v > 850 + a.d ORDER BY b.i LIMIT 1) FROM o a JOIN t u ON u.k = a.k WHERE a.i < 100', 'SubPlan');
SELECT same('SELECT a.i FROM o a WHERE a.i < 300 AND EXISTS (SELECT FROM o b JOIN t ON t.k = b.k WHERE b.i > a.i AND t.v > 900)', 'Nested Loop');
SELECT same('SELECT a.i FROM o a WHERE a.i < 300 AND a.d NOT IN (SELECT t.v FROM o b JOIN t ON t.k = b.k WHERE b.i > a.i AND b.i < a.i + 50)', 'SubPlan');
SELECT same('SELECT a.i FROM o a WHERE EXISTS (SELECT FROM t WHERE t.k = a.k AND t.v > 900)', 't_k');
SELECT same('SELECT a.i FROM o a WHERE NOT EXISTS (SELECT FROM t WHERE t.k = a.k AND t.v > 900)', 't_k');

-- LIMIT
SELECT n, same(format('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k WHERE o.i >= 700 ORDER BY o.i LIMIT %s', n))
FROM unnest('{0,1,2,3,10,50}'::int[]) AS n;
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k WHERE t.v > 900 ORDER BY o.i OFFSET 5 LIMIT 30');

-- what fails in a row that nobody asks for does not fail; what is asked for does
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL ORDER BY o.i LIMIT 20');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL ORDER BY o.i LIMIT 29');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL ORDER BY o.i LIMIT 30');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k / (o.i - 130) WHERE o.i > 100 ORDER BY o.i LIMIT 20');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = 2147483000 + o.i WHERE o.i > 600 ORDER BY o.i LIMIT 20');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = 2147483000 + o.i WHERE o.i > 600 ORDER BY o.i LIMIT 60');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL');

-- an outer join by merging returns rows with no match before its inner side starts
CREATE TABLE unmatched AS SELECT i AS id, CASE WHEN i > 2 THEN i END AS k FROM generate_series(1, 100) i;
CREATE TABLE divided AS SELECT 50 AS k, 0 AS z;
ANALYZE unmatched, divided;
SET enable_seqscan = on;
SET enable_mergejoin = on;
SET nexusmem.debug_force_prefetch = on;
SELECT same('SELECT o.id, o.v, t.id FROM (SELECT u.id, d.v FROM unmatched u LEFT JOIN (SELECT k, 1 / z AS v FROM divided OFFSET 0) d ON u.k = d.k ORDER BY u.k DESC) o JOIN t ON t.v = o.id LIMIT 25',
	'Merge Left Join');
SELECT same('SELECT o.id, t.id FROM (SELECT u.id FROM unmatched u WHERE NOT EXISTS (SELECT FROM (SELECT k, 1 / z AS v FROM divided OFFSET 0) d WHERE u.k = d.k AND d.v > 0) ORDER BY u.k DESC) o JOIN t ON t.v = o.id LIMIT 25',
	'Merge Anti Join');
-- a sort on disk compares rows of different runs only when it has come to them
CREATE TABLE series AS SELECT i, repeat('x', 100) AS pad FROM generate_series(1, 4000) i;
ANALYZE series;
SET work_mem = '64kB';
SELECT same('SELECT o.i, t.id FROM (SELECT i, pad, CASE WHEN i = 3990 THEN ROW(8, ''x''::text) ELSE ROW(i, 0) END AS r FROM series ORDER BY r) o JOIN t ON t.v = o.i LIMIT 100',
	'Sort Key: .*ROW');
RESET work_mem;
RESET nexusmem.debug_force_prefetch;
SET enable_mergejoin = off;
SET enable_seqscan = off;
DROP TABLE unmatched, divided, series;

-- comparing records of other types fails; what is not asked for is not compared
CREATE TYPE pair AS (a int, b int);
CREATE TABLE pairs AS SELECT ROW(k, 0)::pair AS p, pad FROM t;
CREATE INDEX pairs_p ON pairs (p);
ANALYZE pairs;
SELECT same('SELECT o.i, x.pad FROM (SELECT i, CASE WHEN i < 130 THEN ROW(k, 0) ELSE ROW(k, ''x''::text) END AS r FROM o WHERE i > 100 ORDER BY i) o JOIN pairs x ON x.p = o.r LIMIT 20', 'pairs_p');
SELECT same('SELECT o.i, x.pad FROM o JOIN pairs x ON x.p = ROW(o.k, 0)::pair', 'pairs_p');
DROP TABLE pairs;
-- an array of arrays whose dimensions differ
SET nexusmem.debug_force_prefetch = on;
SELECT same('SELECT q.i, q.r, t.id FROM (SELECT i, d, ARRAY[CASE WHEN i = 103 THEN ''{1,2}''::int[] ELSE ''{1}''::int[] END, ''{1}''::int[]] AS r FROM o WHERE i > 100 ORDER BY i OFFSET 0) q JOIN t ON t.v = q.d LIMIT 25');
-- a field that has another type in one of the rows
SELECT same('SELECT q.i, q.f, t.id FROM (SELECT i, d, (r).f2 AS f FROM (SELECT i, d, ROW(k, 0) AS r FROM o WHERE false UNION ALL SELECT i, d, CASE WHEN i = 103 THEN ROW(k, ''x''::text) ELSE ROW(k, 0) END FROM o WHERE i > 100) u OFFSET 0) q JOIN t ON t.v = q.d LIMIT 25');
-- a negative LIMIT or OFFSET, computed for each row
SELECT same(format('SELECT q.i, t.id FROM (SELECT o.i, y.d FROM o, LATERAL (SELECT d FROM o p WHERE p.i = o.i %s CASE WHEN o.i = 103 THEN -1 ELSE %s END::bigint) y WHERE o.i > 100 ORDER BY o.i OFFSET 0) q JOIN t ON t.v = q.d LIMIT 25', clause, n))
FROM (VALUES ('LIMIT', 1), ('OFFSET', 0)) c (clause, n);
RESET nexusmem.debug_force_prefetch;

-- rows in front of an error may be kept
CREATE FUNCTION kept() RETURNS SETOF int LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL ORDER BY o.i;
EXCEPTION WHEN division_by_zero THEN
	RETURN;
END $$;
\set copy 'COPY (SELECT t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL ORDER BY o.i) TO STDOUT'
SET nexusmem.enable_nestloop_prefetch = off;
SELECT cold();
SELECT count(*), sum(kept) FROM kept();
:copy \g |wc -l
SET nexusmem.enable_nestloop_prefetch = on;
SELECT cold();
SELECT count(*), sum(kept) FROM kept();
SELECT cold();
:copy \g |wc -l

-- what an outer row is found by may be something else at the next FETCH
CREATE TABLE whose AS SELECT i, k, CASE WHEN i % 3 = 0 THEN 'public' ELSE 'look' END::name AS schema FROM o;
CREATE INDEX whose_i ON whose (i);
ANALYZE whose;
CREATE FUNCTION turning() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	c CURSOR FOR SELECT whose.i FROM whose JOIN t ON t.k = whose.k WHERE whose.schema = current_schema ORDER BY whose.i;
	r record;
	got text[];
BEGIN
	OPEN c;
	FOR n IN 1..60 LOOP
		FETCH c INTO r;
		got := got || r.i::text;
		IF n = 40 THEN
			SET LOCAL search_path = public, look;
		END IF;
	END LOOP;
	CLOSE c;
	RETURN array_to_string(got[38:43], ' ');
END $$;
-- so may what says who deleted the row, and a function's own update be seen in it
CREATE TABLE touched (i int, k int);
CREATE FUNCTION bump(int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN UPDATE touched SET k = k WHERE i = $1; RETURN $1; END';
CREATE FUNCTION touching(OUT fetched int, OUT bumped int) LANGUAGE plpgsql AS $$
DECLARE
	c CURSOR FOR SELECT x.i, x.xmax FROM touched x JOIN t ON t.k = x.k;
	r record;
BEGIN
	TRUNCATE touched;
	INSERT INTO touched SELECT i, k FROM o ORDER BY i LIMIT 200;
	SELECT sum((x.xmax <> 0)::int), count(bump(x.i + 1)) INTO bumped FROM touched x JOIN t ON t.k = x.k;
	TRUNCATE touched;
	INSERT INTO touched SELECT i, k FROM o ORDER BY i LIMIT 200;
	OPEN c;
	LOOP
		FETCH c INTO r;
		EXIT WHEN r.i IS NULL OR r.xmax <> 0;
		IF r.i = 10 THEN
			UPDATE touched SET k = k;
		END IF;
	END LOOP;
	CLOSE c;
	fetched := r.i;
END $$;
-- a key is computed as often as without
CREATE FUNCTION told(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE NOTICE ''key %'', $1; RETURN $1; END';
SET nexusmem.debug_force_prefetch = on;
SET nexusmem.enable_nestloop_prefetch = off;
SELECT turning();
SELECT * FROM touching();
SET nexusmem.enable_nestloop_prefetch = on;
SELECT turning();
SELECT * FROM touching();
SET client_min_messages = notice;
SELECT o.i, t.id FROM o JOIN t ON t.k = told(o.k) WHERE o.i < 4;
SET client_min_messages = warning;
RESET nexusmem.debug_force_prefetch;
DROP TABLE whose, touched CASCADE;

-- what has an effect has it as often as without
CREATE SEQUENCE seq;
CREATE FUNCTION counting_sum(bigint, int) RETURNS bigint LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM nextval(''look.seq''); RETURN $1 + $2; END';
CREATE FUNCTION counting(bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM nextval(''look.seq''); RETURN $1; END';
CREATE FUNCTION counting_cmp(int, int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM nextval(''look.seq''); RETURN btint4cmp($1, $2); END';
CREATE AGGREGATE counts_rows(int) (SFUNC = counting_sum, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE counts_groups(int) (SFUNC = int4_sum, STYPE = bigint, FINALFUNC = counting);
CREATE DOMAIN counted AS int CHECK (nextval('look.seq') > 0 OR VALUE > 0);
CREATE TABLE few AS SELECT i FROM generate_series(0, 1000) i;
CREATE OPERATOR CLASS counting_ops FOR TYPE int4 USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 counting_cmp(int, int);
CREATE INDEX few_i ON few (i counting_ops);
ANALYZE few;
CREATE FUNCTION after(setting text, query text, OUT rows bigint, OUT last bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cold();
	PERFORM set_config('nexusmem.enable_nestloop_prefetch', setting, false);
	PERFORM setval('seq', 1);
	BEGIN
		EXECUTE format('SELECT count(x::text) FROM (%s OFFSET 0) x', query) INTO rows;
	EXCEPTION WHEN division_by_zero THEN
		rows := -1;
	END;
	last := currval('seq');
END $$;
SELECT q, off = looked AS same, off FROM unnest(ARRAY[
	'SELECT t.pad, x.s FROM (SELECT k, nextval(''seq'') AS s FROM o OFFSET 0) x JOIN t ON t.k = x.k LIMIT 20',
	'SELECT t.pad, nextval(''seq'') AS s FROM o JOIN t ON t.k = o.k LIMIT 20',
	'SELECT t.pad FROM o JOIN t ON t.k = o.k WHERE nextval(''seq'') + o.i > 0 LIMIT 20',
	'SELECT t.pad FROM o JOIN t ON t.k = o.k AND t.id + nextval(''seq'') > 0 LIMIT 20',
	'SELECT t.pad FROM (SELECT generate_series(1, 3) + nextval(''seq'') * 0 AS g, k FROM o OFFSET 0) x JOIN t ON t.k = x.k LIMIT 20',
	'SELECT t.pad, nextval(''seq'') AS s FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL ORDER BY o.i',
	'SELECT counts_rows(t.id) FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL',
	'SELECT counts_groups(t.id) FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL GROUP BY o.i ORDER BY o.i',
	'SELECT counts_rows(t.id) OVER (ORDER BY o.i) FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL',
	'SELECT o.i::counted, t.pad FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL ORDER BY o.i',
	'SELECT t.pad, few.i FROM o JOIN t ON t.k = o.k JOIN few ON few.i = t.v WHERE o.i > 100 AND 1 / (o.i - 180) IS NOT NULL ORDER BY o.i'
]) WITH ORDINALITY u(query, q), LATERAL (SELECT after('off', query)::text AS off) a, LATERAL (SELECT after('on', query)::text AS looked) b;
DROP FUNCTION after;
DROP TABLE few;
-- checks that have none, and CTEs that are referred to in very many ways
CREATE DOMAIN positive AS int CHECK (VALUE > -1);
CREATE DOMAIN small AS int CHECK (VALUE < 100000);
SELECT same('SELECT x.p, x.q, t.id FROM (SELECT i::positive AS p, d::small AS q, k FROM o OFFSET 0) x JOIN t ON t.k = x.k', 't_k');
SELECT same('SELECT x.p, t.id FROM (SELECT i::positive AS p, k::small AS k FROM o OFFSET 0) x JOIN t ON t.k = x.k + 1', 't_k');
SELECT same('WITH c0 AS MATERIALIZED (SELECT k FROM o LIMIT 1)' ||
	string_agg(format(', c%s AS MATERIALIZED (SELECT a.k FROM c%s a, c%s b)', i, i - 1, i - 1), '' ORDER BY i) ||
	' SELECT t.id FROM c40 JOIN t ON t.k = c40.k', 't_k') FROM generate_series(1, 40) i;

-- a sub-plan of many nodes is looked at once
CREATE FUNCTION memory_of(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	c refcursor;
	bytes bigint;
BEGIN
	OPEN c NO SCROLL FOR EXECUTE query;
	SELECT sum(used_bytes) INTO bytes FROM pg_backend_memory_contexts WHERE name IN ('ExecutorState', 'nexusmem plan');
	CLOSE c;
	RETURN bytes;
END $$;
SELECT 'SELECT k FROM (' || string_agg('SELECT k FROM generate_series(1, 9) k', ' UNION ALL ') ||
	') x WHERE k NOT IN (' || string_agg('SELECT t.id FROM t JOIN o ON t.k = o.k', ' UNION ALL ') || ')' AS query FROM generate_series(1, 20) \gset
SET nexusmem.enable_nestloop_prefetch = off;
SELECT memory_of(:'query') AS off \gset
SET nexusmem.enable_nestloop_prefetch = on;
SELECT memory_of(:'query') - :off BETWEEN 1000 AND 500000 AS little;
SELECT 'SELECT t.id FROM (SELECT k FROM (' || string_agg('SELECT k FROM generate_series(1, 9) k', ' UNION ALL ') ||
	') x WHERE k NOT IN (' || string_agg('SELECT i::positive FROM o', ' UNION ALL ') || ')) y JOIN t ON t.k = y.k' AS query FROM generate_series(1, 100) \gset
SET nexusmem.enable_nestloop_prefetch = off;
SELECT memory_of(:'query') AS off \gset
SET nexusmem.enable_nestloop_prefetch = on;
SELECT memory_of(:'query') - :off BETWEEN 1000 AND 200000 AS little;

-- cursors
BEGIN;
SELECT cold();
DECLARE c CURSOR FOR SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL ORDER BY o.i;
FETCH 3 FROM c;
MOVE 20 IN c;
FETCH 2 FROM c;
SAVEPOINT s;
FETCH 20 FROM c;
ROLLBACK TO s;
DECLARE d SCROLL CURSOR FOR SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 ORDER BY o.i;
MOVE 300 IN d;
FETCH BACKWARD 2 FROM d;
FETCH ABSOLUTE 700 FROM d;
DECLARE e NO SCROLL CURSOR WITH HOLD FOR SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 200 ORDER BY o.i;
FETCH 3 FROM e;
COMMIT;
FETCH 3 FROM e;
CLOSE e;
-- the setting changes while it runs
BEGIN;
SELECT cold();
SET LOCAL nexusmem.enable_nestloop_prefetch = on;
DECLARE c NO SCROLL CURSOR FOR SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 ORDER BY o.i;
MOVE 100 IN c;
SET LOCAL nexusmem.enable_nestloop_prefetch = off;
FETCH 2 FROM c;
MOVE 200 IN c;
SET LOCAL nexusmem.enable_nestloop_prefetch = on;
FETCH 2 FROM c;
MOVE 200 IN c;
FETCH ALL FROM c \g /dev/null
FETCH ALL FROM c;
COMMIT;

-- row locks, SERIALIZABLE, writing: no node is put in
SET nexusmem.enable_nestloop_prefetch = on;
CREATE FUNCTION nodes(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	line text;
	n bigint := 0;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
		n := n + (line ~ 'Custom Scan \(nexusmem Look-Ahead\)')::int;
	END LOOP;
	RETURN n;
END $$;
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k');
SELECT nodes('SELECT o.i, t.id, u.pad FROM o JOIN t ON t.k = o.k JOIN t u ON u.n = t.id');
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k FOR UPDATE OF o');
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k WHERE o.i + random() > 0');
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k WHERE 1 / o.i IS NOT NULL LIMIT 3');
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k WHERE 1 / (o.i + 1) IS NOT NULL');
SELECT c, nodes(format('SELECT o.%s, t.pad FROM o JOIN t ON t.k = o.k LIMIT 3', c)) FROM unnest('{ctid,xmin,xmax,cmin,cmax}'::text[]) c;
SELECT nodes('SELECT o.a, t.pad FROM (SELECT k, ARRAY[i, d] AS a FROM o OFFSET 0) o JOIN t ON t.k = o.k LIMIT 3');
SELECT nodes('SELECT o.a, t.pad FROM (SELECT k, ARRAY[ARRAY[i], ARRAY[d]] AS a FROM o OFFSET 0) o JOIN t ON t.k = o.k LIMIT 3');
SELECT nodes('SELECT o.f, t.pad FROM (SELECT k, (r).f2 AS f FROM (SELECT k, ROW(i, d) AS r FROM o OFFSET 0) r OFFSET 0) o JOIN t ON t.k = o.k LIMIT 3');
SELECT n, nodes(format('SELECT q.i, t.pad FROM (SELECT o.i, y.k FROM o, LATERAL (SELECT k FROM o p WHERE p.i = o.i %s) y OFFSET 0) q JOIN t ON t.k = q.k LIMIT 3', n))
FROM unnest('{LIMIT 1,LIMIT 1 OFFSET NULL,LIMIT 1 OFFSET o.k8,LIMIT o.k8}'::text[]) n;
SELECT nodes('SELECT o.i, t.pad, random() FROM o JOIN t ON t.k = o.k WHERE 1 / (o.i + 1) IS NOT NULL');
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k, random() r WHERE 1 / (o.i + 1) IS NOT NULL');
-- what starts after the first row, or anew, has effects then
CREATE FUNCTION noisy(i int) RETURNS SETOF int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN NEXT i; END';
SELECT nodes('SELECT f, t.pad FROM o, LATERAL noisy(o.k) f JOIN t ON t.k = f LIMIT 3');
SELECT nodes('SELECT q.s, t.pad FROM o, LATERAL (SELECT max(1 / (o.i + p.i + 1)) + o.k AS s FROM o p WHERE p.i < 3) q JOIN t ON t.k = q.s LIMIT 3');
SELECT nodes('SELECT t.pad FROM (SELECT k FROM o UNION ALL (SELECT k FROM o WHERE 1 / (i + 1) IS NOT NULL ORDER BY k)) q JOIN t ON t.k = q.k LIMIT 3');
SELECT nodes('SELECT * FROM (SELECT o.i, t.pad, row_number() OVER () AS n FROM o JOIN t ON t.k = o.k WHERE 1 / (o.i + 1) IS NOT NULL) x WHERE n <= 3');
DROP FUNCTION noisy;
SELECT nodes('INSERT INTO dup (d) SELECT t.id FROM o JOIN t ON t.k = o.k WHERE o.i < 3');
SELECT nodes('WITH w AS (DELETE FROM dup WHERE d < 0 RETURNING *) SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k');
SELECT nodes('SELECT c.oid, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.oid < 1300');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k');
COMMIT;
SET nexusmem.prefetch_distance = 0;
SELECT nodes('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k');
RESET nexusmem.prefetch_distance;

-- plans: EXPLAIN alone shows PostgreSQL's, and cached ones stay as they are
CREATE FUNCTION plan_of(options text, query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE format('EXPLAIN (COSTS OFF, %s) %s', options, query) LOOP
		CONTINUE WHEN line ~ 'Index Searches';
		RETURN NEXT regexp_replace(line, ' \(actual.*\)', '');
	END LOOP;
END $$;
SELECT plan_of('ANALYZE OFF', 'SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k WHERE o.i < 100');
SET nexusmem.prefetch_distance = 32;
SELECT plan_of('VERBOSE, ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF', 'SELECT o.i, o.k + 1, t.id FROM o JOIN t ON t.k = o.k8 WHERE o.i < 0');
RESET nexusmem.prefetch_distance;
SET plan_cache_mode = force_generic_plan;
PREPARE q(int) AS SELECT count(*), sum(t.id) FROM o JOIN t ON t.k = o.k WHERE o.i < $1;
SELECT cold();
EXECUTE q(100);
EXECUTE q(2000);
SET nexusmem.enable_nestloop_prefetch = off;
EXECUTE q(100);
SELECT plan_of('ANALYZE OFF', 'EXECUTE q(100)');
SET nexusmem.enable_nestloop_prefetch = on;
EXECUTE q(2000);
REINDEX TABLE t;
EXECUTE q(100);
DROP INDEX t_part;
ALTER TABLE o ALTER k TYPE bigint;
EXECUTE q(2000);
BEGIN;
TRUNCATE t;
EXECUTE q(2000);
ROLLBACK;
EXECUTE q(2000);
DEALLOCATE q;
RESET plan_cache_mode;

-- functions that run it many times, in one query
CREATE FUNCTION f(int) RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT sum(t.id) FROM o JOIN t ON t.k = o.k WHERE o.i BETWEEN $1 AND $1 + 20 $$;
CREATE FUNCTION srf(int) RETURNS SETOF int LANGUAGE sql STABLE ROWS 10 AS $$
	SELECT t.id FROM o JOIN t ON t.k = o.k WHERE o.i >= $1 ORDER BY o.i $$;
ALTER FUNCTION srf(int) SET enable_sort = off;
CREATE FUNCTION first_of(int) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT o.i, 100 / (o.i - $1 - 12) AS x, t.id FROM o JOIN t ON t.k = o.k WHERE o.i >= $1 ORDER BY o.i LOOP
		EXIT WHEN r.i >= $1 + 8;
	END LOOP;
	RETURN r.id;
END $$;
SELECT sum(f(g)) FROM generate_series(1, 500) g;
SELECT sum(first_of(g)) FROM generate_series(1, 500) g;
SELECT array_agg(s) FROM (SELECT srf(100) AS s LIMIT 5) x;
SELECT nexusmem.cache_fetch('nestloop', 'SELECT sum(t.id)::text FROM look.o JOIN look.t ON t.k = o.k');
SELECT nexusmem.cache_drop('default');

-- temporary and partitioned tables, other access methods
CREATE TEMP TABLE temporary AS TABLE t;
CREATE INDEX ON temporary (k);
ANALYZE temporary;
SELECT same('SELECT o.i, x.pad FROM o JOIN temporary x ON x.k = o.k', 'temporary');
CREATE TABLE hashed AS SELECT k, pad FROM t WHERE k < 3000;
CREATE INDEX ON hashed USING hash (k);
ANALYZE hashed;
SELECT same('SELECT o.i, x.pad FROM o JOIN hashed x ON x.k = o.d', 'hashed_k_idx');
CREATE TABLE p (k int, pad text) PARTITION BY RANGE (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5000);
CREATE TABLE p2 PARTITION OF p DEFAULT;
INSERT INTO p SELECT k, pad FROM t;
CREATE INDEX ON p (k);
ANALYZE p;
SELECT same('SELECT o.i, x.pad FROM o JOIN p x ON x.k = o.k', 'Append');
SELECT same('SELECT x.k, t.id FROM p x JOIN t ON t.k = x.k WHERE x.k BETWEEN 4500 AND 5500', 'Append');

-- an outer side, of a temporary table, that has few rows in many blocks is not read far ahead
CREATE TEMP TABLE sparse (f int, d int, pad text);
ALTER TABLE sparse ALTER pad SET STORAGE PLAIN;
INSERT INTO sparse SELECT i % 80, i, repeat('x', 7000) FROM generate_series(1, 960) i;
ANALYZE sparse;
CREATE FUNCTION rows_of_sparse(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
		IF line ~ 'Seq Scan on sparse' THEN
			RETURN substring(line FROM 'rows=(\d+)');
		END IF;
	END LOOP;
END $$;
SET nexusmem.debug_force_prefetch = on;
SELECT nodes(query), rows_of_sparse(query) BETWEEN 5 AND 6 AS few
FROM (VALUES ('SELECT t.id FROM sparse JOIN t ON t.v = sparse.d WHERE sparse.f = 0 LIMIT 100')) x (query);
RESET nexusmem.debug_force_prefetch;

-- forced: cached blocks are looked at too, from the first row on
CREATE FUNCTION looks(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	kinds text;
BEGIN
	CREATE TEMP TABLE before AS SELECT * FROM nexusmem.session_prefetch();
	EXECUTE 'SELECT count(*) FROM (' || query || ') s';
	SELECT string_agg(now.kind, ' ' ORDER BY now.kind COLLATE "C") INTO kinds
	FROM nexusmem.session_prefetch() now JOIN before USING (kind)
	WHERE now.issued + now.skipped > before.issued + before.skipped;
	DROP TABLE before;
	RETURN kinds;
END $$;
CREATE TABLE few AS SELECT k, repeat('x', 1000) AS pad FROM generate_series(1, 100) k;
CREATE INDEX ON few (k);
ANALYZE few;
SELECT looks('SELECT b.pad FROM few a JOIN few b ON b.k = a.k') IS NOT NULL AS filled_cache \gset
SELECT looks('SELECT b.pad FROM few a JOIN few b ON b.k = a.k');
SET nexusmem.debug_force_prefetch = on;
SELECT looks('SELECT b.pad FROM few a JOIN few b ON b.k = a.k');
-- keys of each shape are looked up
SELECT name, looks(query) ~ 'nestloop' AS looks FROM (VALUES
	('of int8', 'SELECT t.id FROM o JOIN t ON t.k = o.k8 WHERE o.i < 50'),
	('of int2', 'SELECT t.id FROM o JOIN t ON t.k = o.k2 WHERE o.i < 50'),
	('of text', 'SELECT t.pad FROM o JOIN t ON t.s COLLATE "C" = o.s WHERE o.i < 50'),
	('of varchar', 'SELECT t.pad FROM o JOIN t ON t.s COLLATE "C" = o.v WHERE o.i < 50'),
	('descending', 'SELECT t.pad FROM o JOIN t ON t.n = o.n WHERE o.i < 50'),
	('of an expression', 'SELECT t.pad FROM o JOIN t ON t.k / 2 = o.k WHERE o.i < 50'),
	('with a constant', 'SELECT t.pad FROM o JOIN t ON t.v = 17 AND t.id = o.i WHERE o.i < 500'),
	('not of the outer side', 'SELECT t.pad FROM o JOIN t ON t.k > o.k AND t.k < o.k + 3 WHERE o.i < 50')) x (name, query);
SELECT same('SELECT a.k, b.pad FROM few a JOIN few b ON b.k = a.k');
SELECT same('SELECT o.i, t.pad FROM o JOIN t ON t.k = o.k');
RESET nexusmem.debug_force_prefetch;

-- parallel: each worker over its part of the outer side
SET enable_seqscan = on;
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
SET look.by_cursor = '{false}';
SELECT same('SELECT count(*), sum(t.id), sum(length(t.pad)) FROM o JOIN t ON t.k = o.k', 'Gather', '{-1,0,1,1000}');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k ORDER BY o.i', 'Gather');
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k ORDER BY o.i, t.id LIMIT 300', 'Gather');
SELECT same('SELECT count(x.*) FROM (SELECT t.pad FROM o JOIN t ON t.k = o.k LIMIT 3) x', 'Gather');
SELECT same('SELECT sum(t.id), sum(u.id) FROM o JOIN t ON t.k = o.k JOIN t u ON u.n = t.id', 'Gather');
SELECT same('SELECT count(t.id) FROM o LEFT JOIN t ON t.k = o.k + 9000 WHERE o.i > (SELECT min(d) FROM dup) + 100', 'Gather');
SELECT same('SELECT sum(t.id) FROM o JOIN t ON t.v = o.d AND t.id = o.i + (SELECT min(w) FROM dup)', 'Gather');
SELECT same('SELECT d.g, x.n FROM generate_series(1, 3) d(g), LATERAL (SELECT count(t.pad) AS n FROM o JOIN t ON t.k = o.k + d.g) x', 'Gather');
SELECT same('SELECT count(t.id) FROM o JOIN t ON t.k = o.k WHERE 1 / (o.i - 180) IS NOT NULL', 'Gather');
-- many loops over what is disabled: the plan is written down once
CREATE TABLE bare AS SELECT i, k FROM o WHERE i <= 100;
ANALYZE bare;
SET enable_seqscan = off;
SET join_collapse_limit = 1;
SELECT same('SELECT count(*), sum(t1.id), sum(t20.id) FROM bare' ||
	string_agg(format(' JOIN t t%s ON t%1$s.k = bare.k', i), '' ORDER BY i), 'Nested Loop', '{-1}') FROM generate_series(1, 20) i;
RESET join_collapse_limit;
SET enable_seqscan = on;
-- by a cursor, which has no workers
SET look.by_cursor = '{false,true}';
SELECT same('SELECT o.i, t.id FROM o JOIN t ON t.k = o.k WHERE o.i > 100 AND 1 / (o.i - 130) IS NOT NULL ORDER BY o.i', 'Gather');
-- a node below Gather
SET nexusmem.enable_nestloop_prefetch = on;
SELECT nodes('SELECT count(t.pad) FROM o JOIN t ON t.k = o.k');
SELECT nodes('SELECT count(t.pad) FROM o JOIN t ON t.k = o.k WHERE o.i + random() > 0');

-- what is counted adds up
SELECT kind, issued = used + wasted AND issued >= 0 AND used >= 0 AND wasted >= 0 AND skipped >= 0 AS adds_up
FROM nexusmem.session_prefetch() ORDER BY kind;
SELECT count(*) AS wrong FROM nexusmem.stat_prefetch
WHERE issued <> used + wasted OR issued < 0 OR used < 0 OR wasted < 0 OR skipped < 0;
\if :{?cold}
SELECT issued, used, wasted FROM nexusmem.session_prefetch() WHERE kind = 'nestloop' \g (format=unaligned tuples_only=on) :cold
\endif

DROP SCHEMA look CASCADE;
