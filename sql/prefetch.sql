-- Look-ahead changes when a block is read and never what a query returns.
--
-- test/t runs this file too, with everything cold: it sets the variable "cold" to
-- a file that the sums are written to, and cold() then empties the caches.
-- What this file prints is the same in both.
\set SHOW_CONTEXT never
SET lc_messages = 'C';
SET client_min_messages = warning;
CREATE SCHEMA look;
SET search_path = look, public;

SET look.setting = 'nexusmem.enable_prefetch';
SET look.by_cursor = '{true}';
SET look.loops = 'false';
\getenv srcdir PG_ABS_SRCDIR
\set helpers :srcdir '/sql/look_ahead.inc'
\set ECHO none
\i :helpers
\set ECHO all

-- 20,000 rows, some 1,100 blocks, k in random order over them
CREATE TABLE t (id int, k int, v int, s text, n int, pad text);
INSERT INTO t
SELECT i, i * 7919 % 20011, i * 104729 % 1000, 's' || lpad((i * 6007 % 20011)::text, 5, '0'),
	CASE WHEN i % 10 <> 0 THEN i * 3557 % 20011 END, repeat(chr(97 + i % 26), 350)
FROM generate_series(1, 20000) AS i;
CREATE UNIQUE INDEX t_k ON t (k);
CREATE INDEX t_k_v ON t (k) INCLUDE (v);
CREATE INDEX t_v_id ON t (v, id) WITH (fillfactor = 10);
CREATE INDEX t_s ON t (s COLLATE "C");
CREATE INDEX t_n ON t (n DESC NULLS LAST);
CREATE INDEX t_part ON t (k) WHERE v < 100;
CREATE INDEX t_expr ON t ((k / 2));
-- each value 100 times: posting lists
CREATE TABLE dup (d int, w int, pad text);
INSERT INTO dup SELECT i * 7919 % 100, i, repeat('x', 200) FROM generate_series(1, 10000) AS i;
CREATE INDEX dup_d ON dup (d);
VACUUM (ANALYZE, FREEZE) t, dup;
CHECKPOINT;

SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_sort = off;
SET enable_incremental_sort = off;
SET max_parallel_workers_per_gather = 0;
SET plan_cache_mode = auto;
SET jit = off;

-- shapes of one scan
SELECT same('SELECT id, k FROM t WHERE k BETWEEN 1000 AND 2500 ORDER BY k', distances => '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id, k FROM t WHERE k BETWEEN 3000 AND 4500 ORDER BY k DESC', 'Index Scan Backward', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id, k FROM t WHERE k > 1000 AND v % 100 = 0 ORDER BY k LIMIT 15');
SELECT same('SELECT id, k FROM t WHERE k < 15000 AND v % 100 = 0 ORDER BY k DESC LIMIT 15', 'Index Scan Backward');
SELECT n, same(format('SELECT id, pad FROM t WHERE k >= 5000 ORDER BY k LIMIT %s', n))
FROM unnest('{0,1,2,3,10,50}'::int[]) AS n;
SELECT same('SELECT id FROM t WHERE k >= 5000 ORDER BY k OFFSET 100 LIMIT 10');
SELECT same('SELECT id FROM t WHERE k = 7777');
SELECT same('SELECT id FROM t WHERE k > 20005 ORDER BY k');
SELECT same('SELECT id FROM t WHERE k > 30000 ORDER BY k');
SELECT same('SELECT id FROM t WHERE k > 9 AND k < 5 ORDER BY k');
SELECT same('SELECT id FROM t WHERE k > 19000 ORDER BY k');
SELECT same('SELECT id FROM t WHERE k < 1000 ORDER BY k DESC');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 100 AND 140 ORDER BY v, id');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 100 AND 140 ORDER BY v DESC, id DESC');
SELECT same('SELECT id, s FROM t WHERE s COLLATE "C" BETWEEN ''s05'' AND ''s06'' ORDER BY s COLLATE "C"');
SELECT same('SELECT id, k FROM t WHERE k BETWEEN 100 AND 9000 AND v < 100 ORDER BY k', 't_part');
SELECT same('SELECT id, k FROM t WHERE k / 2 BETWEEN 100 AND 500 ORDER BY k / 2', 't_expr');
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 20 AND 30 ORDER BY d');
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 20 AND 30 ORDER BY d DESC');
SELECT same('SELECT d, w FROM dup WHERE d = 55');

-- NULLs at either end
SELECT same('SELECT id, n FROM t WHERE n < 700 ORDER BY n DESC NULLS LAST');
SELECT same('SELECT id, n FROM t ORDER BY n NULLS FIRST LIMIT 2500', 'Backward');
SELECT same('SELECT id, n FROM t WHERE n IS NULL LIMIT 500');
SELECT same('SELECT id, n FROM t WHERE n IS NOT NULL ORDER BY n DESC NULLS LAST LIMIT 500');

-- several ranges in one scan
SELECT same('SELECT id, k FROM t WHERE k = ANY (ARRAY(SELECT i * 40 FROM generate_series(1, 400) AS i)) ORDER BY k');
SELECT same('SELECT id, k FROM t WHERE k IN (5, 17, 19999, 4, 5, NULL, 2500, 2501, 2502) ORDER BY k DESC');
SELECT same('SELECT id, v FROM t WHERE v IN (3, 5, 7, 500, 501) AND id > 500 ORDER BY v, id');
SELECT same('SELECT d, w FROM dup WHERE d IN (3, 4, 90, 2) ORDER BY d');
SELECT same('SELECT id, v FROM t WHERE (v, id) > (500, 7000) ORDER BY v, id LIMIT 700');
SELECT same('SELECT id, v FROM t WHERE (v, id) < (500, 7000) ORDER BY v DESC, id DESC LIMIT 700');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 10 AND 900 AND id = ANY (''{17,34,51}'') ORDER BY v, id');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 10 AND 400 AND id BETWEEN 5 AND 900 ORDER BY v, id');

-- index-only, with one page in ten not all-visible
SELECT same('SELECT k, v FROM t WHERE k BETWEEN 100 AND 2100 ORDER BY k', 'Index Only Scan');
UPDATE t SET pad = upper(pad) WHERE id % 190 = 0;
SELECT same('SELECT k, v FROM t WHERE k BETWEEN 100 AND 2100 ORDER BY k', 'Index Only Scan');
SELECT same('SELECT k, v FROM t WHERE k BETWEEN 100 AND 2100 ORDER BY k DESC', 'Index Only Scan Backward');
SELECT same('SELECT v, id FROM t WHERE v = 17 ORDER BY id', 'Index Only Scan');
SELECT same('SELECT min(k), max(k) FROM t WHERE k > 17', 'Index Only Scan');

-- dead tuples: found dead once, killed, skipped then
UPDATE t SET pad = upper(pad) WHERE k BETWEEN 6000 AND 7000;
DELETE FROM dup WHERE w % 3 = 0;
SELECT same('SELECT id, k, left(pad, 1) FROM t WHERE k BETWEEN 5900 AND 7100 ORDER BY k');
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 40 AND 50 ORDER BY d');

-- joins
SET enable_hashjoin = off;
SET enable_material = off;
SET enable_memoize = off;
SET enable_mergejoin = off;
SELECT same('SELECT a.id, b.w FROM (SELECT * FROM t WHERE k BETWEEN 100 AND 130 ORDER BY k) a JOIN dup b ON b.d = a.k - 100', 'Nested Loop');
SELECT same('SELECT a.id, b.id FROM t a JOIN t b ON b.k = a.v * 20 WHERE a.k BETWEEN 100 AND 700 ORDER BY a.k', 'Nested Loop');
SELECT same('SELECT a.k, x.* FROM t a, LATERAL (SELECT b.id FROM t b WHERE b.k >= a.k ORDER BY b.k LIMIT 5) x WHERE a.k < 300 ORDER BY a.k', 'Nested Loop');
SELECT same('SELECT a.k, x.* FROM t a, LATERAL (SELECT b.id FROM t b WHERE b.k <= a.k ORDER BY b.k DESC LIMIT 20) x WHERE a.k < 100 ORDER BY a.k', 'Nested Loop');
SELECT same('SELECT a.k, (SELECT max(b.w) FROM dup b WHERE b.d = a.k % 100 AND b.w < a.id) FROM t a WHERE a.k < 60 ORDER BY a.k', 'SubPlan|Index');
SELECT same('SELECT a.k FROM t a WHERE a.k < 400 AND EXISTS (SELECT FROM dup b WHERE b.d = a.v AND b.w > 9000) ORDER BY a.k', 'Index');
SELECT same('SELECT a.k FROM t a WHERE a.k < 400 AND NOT EXISTS (SELECT FROM dup b WHERE b.d = a.v AND b.w > 9900) ORDER BY a.k', 'Index');
SELECT same('SELECT a.k FROM t a WHERE a.k < 400 AND a.v IN (SELECT b.d FROM dup b WHERE b.w > 9000) ORDER BY a.k', 'Index');
SET enable_nestloop = off;
SET enable_mergejoin = on;
-- each value of dup comes many times on both sides: mark and restore
SELECT same('SELECT a.d, a.w, b.w FROM dup a JOIN dup b ON a.d = b.d WHERE a.d < 4 AND b.d < 4 AND a.w % 7 = 0', 'Merge Join');
SELECT same('SELECT a.d, a.w, b.w FROM dup a LEFT JOIN dup b ON a.d = b.d AND b.w < 3000 WHERE a.d < 3', 'Merge');
-- outer joins, for PostgreSQL 18 and newer remove an inner self-join
SELECT same('SELECT a.k, b.k FROM t a LEFT JOIN t b ON a.k = b.k WHERE a.k BETWEEN 500 AND 1200 ORDER BY a.k', 'Merge (Left|Right) Join');
SELECT same('SELECT a.k, b.k FROM t a LEFT JOIN t b ON a.k = b.k AND b.id % 3 = 0 WHERE a.k BETWEEN 500 AND 1200 ORDER BY a.k DESC', 'Join');
RESET enable_nestloop;
RESET enable_hashjoin;
RESET enable_material;
RESET enable_memoize;

-- above the scan
SELECT same('SELECT DISTINCT ON (d) d, w FROM dup WHERE d < 30 ORDER BY d', 'Unique');
SELECT same('SELECT d, count(*), sum(w) FROM dup WHERE d < 30 GROUP BY d ORDER BY d', 'Group');
SELECT same('SELECT k, lag(id) OVER (ORDER BY k) FROM t WHERE k < 700', 'WindowAgg');
SELECT same('(SELECT id FROM t WHERE k < 300 ORDER BY k) UNION ALL (SELECT id FROM t WHERE k > 19800 ORDER BY k DESC)');
SELECT same('WITH RECURSIVE r AS (SELECT id, k, 1 AS n FROM t WHERE k = 77 UNION ALL SELECT t.id, t.k, r.n + 1 FROM r JOIN t ON t.k = r.id WHERE r.n < 50) SELECT * FROM r', 'Recursive Union');
SELECT same('WITH m AS MATERIALIZED (SELECT id, k FROM t WHERE k < 500 ORDER BY k) SELECT * FROM m a, m b WHERE a.k = b.k + 1', 'CTE');
SELECT same('SELECT id, 1 / (30 - (k - 1000)) FROM t WHERE k BETWEEN 1000 AND 2500 ORDER BY k');
SELECT same('SELECT id FROM t WHERE k BETWEEN 1000 AND 2500 AND 1 / (1030 - k) IS NOT NULL ORDER BY k');

-- parallel
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
-- not by same(), for a loop over a cursor is never parallel
SELECT cold();
SET nexusmem.enable_prefetch = off;
SELECT count(*), sum(id::bigint), sum(length(pad)) FROM t WHERE k BETWEEN 2000 AND 12000;
SELECT count(*), sum(k::bigint), sum(v) FROM t WHERE k BETWEEN 2000 AND 6000;
SELECT cold();
SET nexusmem.enable_prefetch = on;
SELECT count(*), sum(id::bigint), sum(length(pad)) FROM t WHERE k BETWEEN 2000 AND 12000;
SELECT count(*), sum(k::bigint), sum(v) FROM t WHERE k BETWEEN 2000 AND 6000;
-- a sub-plan that gathers, of several nodes
CREATE FUNCTION gathers(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	users int := 0;
	gathers int := 0;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
		users := users + (line ~ 'Filter: .*hashed SubPlan')::int;
		gathers := gathers + (line ~ 'Gather')::int;
	END LOOP;
	RETURN format('%s nodes, %s gather', users, gathers);
END $$;
SELECT gathers('SELECT k FROM (SELECT k FROM generate_series(1, 9) k UNION ALL SELECT k FROM generate_series(1, 9) k) x WHERE k NOT IN (SELECT k FROM t WHERE k < 2000)');
SET max_parallel_workers_per_gather = 0;

-- partitions; unlogged and temporary tables; catalogs; other access methods
CREATE TABLE p (k int, id int, pad text) PARTITION BY RANGE (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5000);
CREATE UNLOGGED TABLE p2 PARTITION OF p FOR VALUES FROM (5000) TO (15000);
CREATE TABLE p3 PARTITION OF p DEFAULT;
INSERT INTO p SELECT k, id, repeat('y', 200) FROM t;
CREATE INDEX p_k ON p (k);
CREATE INDEX p_id ON p (id);
CREATE TEMP TABLE temporary AS SELECT k, id, repeat('z', 200) AS pad FROM t;
CREATE INDEX ON temporary (k);
ANALYZE p;
ANALYZE temporary;
SELECT same('SELECT k, id FROM p WHERE k BETWEEN 4500 AND 5500 ORDER BY k', 'Append');
SELECT same('SELECT k, id FROM p WHERE k BETWEEN 14500 AND 15500 ORDER BY k DESC', 'Append');
SELECT same('SELECT k, id FROM p WHERE id BETWEEN 100 AND 1100 ORDER BY id', 'Merge Append');
SELECT same('SELECT k, id FROM p2 WHERE k BETWEEN 9000 AND 10000 ORDER BY k');
SELECT same('SELECT k, id FROM temporary WHERE k BETWEEN 4500 AND 6500 ORDER BY k');
SELECT split_part(same('SELECT relname FROM pg_class WHERE relname < ''pg_d'' ORDER BY relname', 'Index'), ',', 1);
SELECT split_part(same('SELECT attrelid::regclass, attname FROM pg_attribute WHERE attrelid < 2000 ORDER BY attrelid, attnum', 'Index'), ',', 1);
SELECT split_part(same('SELECT datname FROM pg_database ORDER BY oid', 'Index'), ',', 1);
CREATE TABLE others AS SELECT id, point(k % 141, v % 143) AS place, k FROM t WHERE k < 3000;
CREATE INDEX ON others USING gist (place);
CREATE INDEX ON others USING hash (k);
ANALYZE others;
SELECT same('SELECT place <-> point(70, 70) FROM others ORDER BY place <-> point(70, 70) LIMIT 200');
SELECT same('SELECT id FROM others WHERE k = 1234');

-- from leaf to leaf: ranges that end anywhere, a leaf's border among it
SELECT same('SELECT e, (SELECT sum(id) FROM (SELECT id FROM t WHERE k BETWEEN e - 900 AND e ORDER BY k) x) FROM generate_series(2000, 2400) e', 'Index Scan', '{-1}');
SELECT same('SELECT e, (SELECT sum(id) FROM (SELECT id FROM t WHERE k BETWEEN e AND e + 900 ORDER BY k DESC) x) FROM generate_series(2000, 2400) e', 'Index Scan Backward', '{-1}');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 300 AND 320 ORDER BY v, id', distances => '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 300 AND 320 ORDER BY v DESC, id DESC', 'Backward', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id, v FROM t WHERE v BETWEEN 300 AND 400 AND id % 50 = 3 ORDER BY v, id');
SELECT same('SELECT id, n FROM t WHERE n < 3000 ORDER BY n DESC NULLS LAST');
SELECT same('SELECT id, n FROM t WHERE n > 19000 ORDER BY n');
SELECT same('SELECT id, n FROM t WHERE n IS NULL');
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 10 AND 70 ORDER BY d');
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 10 AND 70 ORDER BY d DESC', 'Backward');
SELECT same('SELECT id, pad FROM t WHERE k > 3000 ORDER BY k LIMIT 1500');
SELECT same('SELECT id FROM t WHERE k BETWEEN 3000::bigint AND 5000::bigint ORDER BY k');
-- emptied leaves, some of them deleted
CREATE TABLE holes AS SELECT id, k, repeat('h', 300) AS pad FROM t;
CREATE INDEX holes_k ON holes (k);
DELETE FROM holes WHERE k BETWEEN 2000 AND 6000 OR k % 1000 > 300;
SELECT same('SELECT id, k FROM holes WHERE k BETWEEN 500 AND 9000 ORDER BY k');
VACUUM holes;
SELECT same('SELECT id, k FROM holes WHERE k BETWEEN 500 AND 9000 ORDER BY k');
SELECT same('SELECT id, k FROM holes WHERE k BETWEEN 500 AND 9000 ORDER BY k DESC', 'Backward');
-- the leaves behind are split while the scan goes on
CREATE FUNCTION grow(i int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF i % 7 = 0 THEN
		INSERT INTO holes SELECT -i, i + 150 + j, 'new' FROM generate_series(1, 40) j;
	END IF;
	RETURN i;
END $$;
BEGIN;
SET LOCAL nexusmem.enable_prefetch = off;
SELECT count(*) AS n, sum(id) AS ids, sum(g) AS ks FROM (SELECT id, grow(k) AS g FROM holes WHERE k BETWEEN 500 AND 12000 ORDER BY k OFFSET 0) x \gset off_
ROLLBACK;
SELECT cold();
BEGIN;
SELECT count(*) AS n, sum(id) AS ids, sum(g) AS ks FROM (SELECT id, grow(k) AS g FROM holes WHERE k BETWEEN 500 AND 12000 ORDER BY k OFFSET 0) x \gset on_
ROLLBACK;
SELECT :off_n = :on_n AND :off_ids = :on_ids AND :off_ks = :on_ks AS same, :on_n > 2000 AS many;

-- arrays
SELECT same('SELECT id, k FROM t WHERE k = ANY (ARRAY(SELECT i * 7919 % 25000 FROM generate_series(1, 700) AS i))', distances => '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id, k FROM t WHERE k = ANY (ARRAY(SELECT (i * 7919 % 25000)::bigint FROM generate_series(1, 700) AS i))');
SELECT same('SELECT id, k FROM t WHERE k = ANY (ARRAY(SELECT i * 40 FROM generate_series(1, 400) AS i)) ORDER BY k DESC', 'Backward');
SELECT same('SELECT id, k FROM t WHERE k = ANY (ARRAY(SELECT i * 40 FROM generate_series(1, 400) AS i)) ORDER BY k LIMIT 30');
SELECT same('SELECT id, k FROM t WHERE k = ANY (ARRAY[NULL, 5, NULL, 5, 9]::int[])');
SELECT same('SELECT id, k FROM t WHERE k = ANY (''{}''::int[])');
SELECT same('SELECT d, w FROM dup WHERE d = ANY (ARRAY(SELECT i * 3 FROM generate_series(1, 30) AS i)) ORDER BY d');
SELECT same('SELECT id, v FROM t WHERE v = ANY (ARRAY(SELECT i * 3 FROM generate_series(1, 90) AS i)) AND id = ANY (ARRAY(SELECT i * 3 FROM generate_series(1, 90) AS i))');
SELECT same('SELECT id, v FROM t WHERE v = ANY (ARRAY(SELECT i * 9 FROM generate_series(1, 90) AS i)) AND id BETWEEN 3000 AND 9000 ORDER BY v, id');
SELECT same('SELECT id, n FROM t WHERE n = ANY (ARRAY(SELECT i * 50 FROM generate_series(1, 300) AS i)) ORDER BY n DESC NULLS LAST');
SELECT same('SELECT id, n FROM t WHERE n = ANY (ARRAY(SELECT i * 50 FROM generate_series(1, 300) AS i)) ORDER BY n NULLS FIRST', 'Backward');
SELECT same('SELECT id, s FROM t WHERE s COLLATE "C" = ANY (ARRAY(SELECT ''s'' || lpad((i * 61)::text, 5, ''0'') FROM generate_series(1, 300) AS i))', 't_s');
SELECT same('SELECT k FROM t WHERE k = ANY (ARRAY(SELECT i * 40 FROM generate_series(1, 400) AS i))', 'Index Only Scan');
SELECT same('SELECT g, x.* FROM generate_series(1, 40) g, LATERAL (SELECT id, k FROM t WHERE k = ANY (ARRAY[g, g * 100, g * 200, g * 300, g * 400]) OFFSET 0) x', 'Nested Loop');

-- a sub-plan of many nodes is looked at once
CREATE FUNCTION memory_of(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	c refcursor;
	bytes bigint;
BEGIN
	OPEN c NO SCROLL FOR EXECUTE query;
	SELECT sum(used_bytes) INTO bytes FROM pg_backend_memory_contexts WHERE name = 'ExecutorState';
	CLOSE c;
	RETURN bytes;
END $$;
SELECT 'SELECT k FROM (' || string_agg('SELECT k FROM generate_series(1, 9) k', ' UNION ALL ') ||
	') x WHERE k NOT IN (' || string_agg('SELECT k FROM t WHERE k = ANY (''{5,9}'')', ' UNION ALL ') || ')' AS query FROM generate_series(1, 100) \gset
SET nexusmem.enable_prefetch = off;
SELECT memory_of(:'query') AS off \gset
SET nexusmem.enable_prefetch = on;
SELECT memory_of(:'query') - :off < 20000 AS little;

-- hash, GiST, SP-GiST; and a hash by another name, which is left alone
CREATE TABLE kinds AS SELECT id, k, k % 20 AS few, point(k * 37 % 1009, k * 101 % 997) AS place, s, int4range(k, k + k % 50) AS r, pad FROM t WHERE k < 6000;
CREATE INDEX kinds_few ON kinds USING hash (few);
CREATE INDEX kinds_place ON kinds USING gist (place);
CREATE INDEX kinds_r ON kinds USING gist (r);
CREATE INDEX kinds_s ON kinds USING spgist (s);
VACUUM ANALYZE kinds;
SELECT same('SELECT id FROM kinds WHERE few = 7', 'kinds_few', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id FROM kinds WHERE few = 7 LIMIT 20', 'kinds_few');
SELECT same('SELECT g, x.* FROM generate_series(1, 19) g, LATERAL (SELECT id FROM kinds WHERE few = g OFFSET 0) x', 'kinds_few');
SELECT same('SELECT id FROM kinds WHERE place <@ box ''(100,100),(700,600)''', 'kinds_place', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id FROM kinds WHERE place <@ box ''(100,100),(700,600)'' LIMIT 30', 'kinds_place');
SELECT same('SELECT place FROM kinds WHERE place <@ box ''(100,100),(700,600)''', 'Index Only Scan using kinds_place');
SELECT same('SELECT id FROM kinds WHERE r && int4range(1000, 3000)', 'kinds_r');
SELECT same('SELECT id FROM kinds ORDER BY place <-> point(500, 500)', 'kinds_place', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id FROM kinds ORDER BY place <-> point(500, 500) LIMIT 50', 'kinds_place');
SELECT same('SELECT id FROM kinds WHERE place <@ circle ''((300,300),200)'' ORDER BY place <-> point(350, 350)', 'kinds_place');
SELECT same('SELECT g, x.* FROM generate_series(100, 900, 40) g, LATERAL (SELECT id FROM kinds ORDER BY place <-> point(g, g) LIMIT 25) x', 'kinds_place');
SELECT same('SELECT a.id, x.* FROM (SELECT * FROM kinds ORDER BY place <-> point(1, 1) LIMIT 15) a, LATERAL (SELECT b.id FROM kinds b ORDER BY b.place <-> a.place LIMIT 7) x', 'kinds_place');
SELECT same('SELECT id, s FROM kinds WHERE s ^@ ''s01''', 'kinds_s');
SELECT same('SELECT s FROM kinds WHERE s BETWEEN ''s005'' AND ''s016''', 'kinds_s');
DROP INDEX kinds_place;
CREATE INDEX kinds_quad ON kinds USING spgist (place);
SELECT same('SELECT id FROM kinds WHERE place <@ box ''(100,100),(700,600)''', 'kinds_quad', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT place FROM kinds WHERE place <@ box ''(100,100),(700,600)''', 'Index Only Scan using kinds_quad');
SELECT same('SELECT id FROM kinds ORDER BY place <-> point(500, 500)', 'kinds_quad', '{-1,0,1,2,5,32,1000}');
SELECT same('SELECT id FROM kinds ORDER BY place <-> point(500, 500) LIMIT 50', 'kinds_quad');
SELECT same('SELECT g, x.* FROM generate_series(100, 900, 40) g, LATERAL (SELECT id FROM kinds ORDER BY place <-> point(g, g) LIMIT 25) x', 'kinds_quad');
DROP INDEX kinds_quad;
CREATE INDEX kinds_kd ON kinds USING spgist (place kd_point_ops);
SELECT same('SELECT id FROM kinds ORDER BY place <-> point(500, 500) LIMIT 500', 'kinds_kd');
CREATE ACCESS METHOD hash_by_another_name TYPE INDEX HANDLER hashhandler;
CREATE OPERATOR CLASS other_int4_ops DEFAULT FOR TYPE int4 USING hash_by_another_name AS OPERATOR 1 =, FUNCTION 1 hashint4(int4);
DROP INDEX kinds_few;
CREATE INDEX kinds_other ON kinds USING hash_by_another_name (few);
SELECT same('SELECT id FROM kinds WHERE few = 7', 'kinds_other');
DROP ACCESS METHOD hash_by_another_name CASCADE;
CREATE INDEX kinds_few ON kinds USING hash (few);
CREATE INDEX kinds_place ON kinds USING gist (place);

-- cursors
CREATE FUNCTION walk(query text, steps text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	c refcursor;
	step text;
	r record;
BEGIN
	PERFORM cold();
	OPEN c SCROLL FOR EXECUTE query;
	FOREACH step IN ARRAY steps LOOP
		CASE split_part(step, ' ', 1)
			WHEN 'forward' THEN
				FOR i IN 1 .. split_part(step, ' ', 2)::int LOOP
					FETCH NEXT FROM c INTO r;
					RETURN NEXT r::text;
				END LOOP;
			WHEN 'backward' THEN
				FOR i IN 1 .. split_part(step, ' ', 2)::int LOOP
					FETCH PRIOR FROM c INTO r;
					RETURN NEXT r::text;
				END LOOP;
			WHEN 'absolute' THEN
				FETCH ABSOLUTE split_part(step, ' ', 2)::int FROM c INTO r;
				RETURN NEXT r::text;
			WHEN 'relative' THEN
				FETCH RELATIVE split_part(step, ' ', 2)::int FROM c INTO r;
				RETURN NEXT r::text;
			WHEN 'first' THEN
				FETCH FIRST FROM c INTO r;
				RETURN NEXT r::text;
			WHEN 'last' THEN
				FETCH LAST FROM c INTO r;
				RETURN NEXT r::text;
			WHEN 'move' THEN
				MOVE RELATIVE split_part(step, ' ', 2)::int FROM c;
			WHEN 'set' THEN
				PERFORM set_config('nexusmem.prefetch_distance', split_part(step, ' ', 2), false);
			WHEN 'turn' THEN
				-- in this cursor's middle; the loop outside sets it again
				IF current_setting('nexusmem.prefetch_distance') = '1' THEN
					PERFORM set_config('nexusmem.enable_prefetch', split_part(step, ' ', 2), false);
				END IF;
		END CASE;
	END LOOP;
	CLOSE c;
END $$;
CREATE FUNCTION same_walk(query text, VARIADIC steps text[]) RETURNS text LANGUAGE sql AS $$
	SELECT same(format('SELECT * FROM walk(%L, %L::text[])', query, steps), 'walk')
$$;
SELECT same_walk('SELECT id, k FROM t WHERE k BETWEEN 1000 AND 2500 ORDER BY k',
	'forward 50', 'backward 20', 'forward 100', 'backward 130', 'backward 5', 'forward 700', 'backward 300');
SELECT same_walk('SELECT id, k FROM t WHERE k BETWEEN 1000 AND 2500 ORDER BY k DESC',
	'forward 50', 'backward 20', 'forward 100', 'backward 130', 'backward 5', 'forward 700', 'backward 300');
SELECT same_walk('SELECT id, k FROM t WHERE k BETWEEN 1000 AND 2500 ORDER BY k',
	'absolute 500', 'backward 100', 'absolute 3', 'forward 40', 'first', 'last', 'backward 40', 'absolute -10', 'relative -50', 'move 30', 'forward 30');
SELECT same_walk('SELECT d, w FROM dup WHERE d BETWEEN 20 AND 30 ORDER BY d',
	'forward 150', 'backward 120', 'forward 200', 'last', 'backward 300', 'first', 'forward 10');
SELECT same_walk('SELECT id, v FROM t WHERE v IN (3, 5, 7, 500, 501) AND id > 500 ORDER BY v, id',
	'forward 30', 'backward 25', 'forward 50', 'backward 60', 'last', 'backward 70');
SELECT same_walk('SELECT k, v FROM t WHERE k BETWEEN 100 AND 2100 ORDER BY k',
	'forward 300', 'backward 200', 'forward 500', 'last', 'backward 400');
SELECT same_walk('SELECT id, v FROM t WHERE v BETWEEN 100 AND 140 ORDER BY v, id',
	'forward 300', 'backward 250', 'forward 500', 'last', 'backward 400', 'absolute 300', 'forward 100', 'backward 50');
SELECT same_walk('SELECT id, k FROM t WHERE k = ANY (ARRAY(SELECT i * 40 FROM generate_series(1, 400) AS i)) ORDER BY k',
	'forward 100', 'backward 80', 'forward 200', 'last', 'backward 150', 'absolute 50', 'forward 20', 'first', 'forward 30');
SELECT same_walk('SELECT id FROM kinds WHERE few = 7',
	'forward 100', 'backward 80', 'forward 200', 'last', 'backward 150');
SELECT same_walk('SELECT id FROM kinds ORDER BY place <-> point(500, 500)',
	'forward 100', 'backward 80', 'forward 200', 'absolute 400', 'backward 150');
SELECT same_walk('SELECT id, k FROM t WHERE k BETWEEN 8000 AND 9000 ORDER BY k',
	'forward 60', 'turn off', 'forward 60', 'turn on', 'forward 60', 'turn off', 'backward 90', 'turn on', 'forward 200', 'turn on');

\set list 'SELECT id, k FROM t WHERE k BETWEEN 1000 AND 2000 ORDER BY k'
BEGIN;
SELECT cold();
DECLARE c SCROLL CURSOR WITH HOLD FOR :list;
FETCH 3 FROM c;
SAVEPOINT s;
FETCH ABSOLUTE 50 FROM c;
SELECT 1 / 0;
ROLLBACK TO s;
FETCH 2 FROM c;
FETCH BACKWARD 2 FROM c;
DECLARE d CURSOR FOR SELECT id, k FROM t WHERE k BETWEEN 3000 AND 4000 ORDER BY k DESC;
FETCH 40 FROM d \g /dev/null
SAVEPOINT s2;
DECLARE e CURSOR FOR :list;
FETCH 40 FROM e \g /dev/null
ROLLBACK TO s2;
FETCH 2 FROM d;
FETCH 1 FROM e;
ROLLBACK TO s2;
COMMIT;
FETCH 2 FROM c;
FETCH LAST FROM c;
FETCH ABSOLUTE 10 FROM c;
CLOSE c;
BEGIN;
DECLARE c NO SCROLL CURSOR FOR :list FOR UPDATE;
FETCH 3 FROM c;
UPDATE t SET v = -1 WHERE CURRENT OF c RETURNING id, k, v;
FETCH 40 FROM c \g /dev/null
DELETE FROM t WHERE CURRENT OF c RETURNING id, k;
FETCH 1 FROM c;
-- ended in its middle
ROLLBACK;

-- errors in the middle, outside PL/pgSQL
SELECT count(*) FROM (SELECT 1 / (30 - (k - 1000)) FROM t WHERE k BETWEEN 1000 AND 2500 ORDER BY k OFFSET 0) x;
SELECT same(:'list');

-- writing by index
BEGIN;
UPDATE t SET v = v + 1 WHERE k BETWEEN 9000 AND 9900;
DELETE FROM t WHERE k BETWEEN 9100 AND 9300;
SELECT same('SELECT id, k, v FROM t WHERE k BETWEEN 8900 AND 9950 ORDER BY k');
ROLLBACK;
SELECT same('SELECT id, k, v FROM t WHERE k BETWEEN 8900 AND 9950 ORDER BY k');
-- moves forward in the index that it is scanned by
BEGIN;
WITH u AS (UPDATE t SET k = k + 20011 WHERE k BETWEEN 15000 AND 16500 RETURNING k)
SELECT count(*), min(k), max(k) FROM u;
SELECT same('SELECT id, k FROM t WHERE k > 14900 ORDER BY k');
SELECT count(*), sum(k) FROM (SELECT k FROM t WHERE k > 30000 ORDER BY k FOR UPDATE) x;
SELECT count(*), sum(k) FROM (SELECT k FROM t WHERE k < 1000 ORDER BY k FOR SHARE SKIP LOCKED) x;
ROLLBACK;
INSERT INTO t (id, k) SELECT 30000 + k, k FROM t WHERE k BETWEEN 100 AND 200 ORDER BY k ON CONFLICT (k) DO NOTHING;
INSERT INTO t (id, k) SELECT id, k FROM t WHERE k BETWEEN 100 AND 200;
MERGE INTO dup USING (SELECT k FROM t WHERE k < 50) s ON d = s.k AND w < 500
WHEN MATCHED THEN UPDATE SET pad = 'merged' WHEN NOT MATCHED THEN DO NOTHING;
SELECT same('SELECT d, w, pad FROM dup WHERE d < 40 ORDER BY d');

-- the same prepared statement before and after the index changes under it
PREPARE q(int) AS SELECT count(*), sum(id::bigint) FROM (SELECT id FROM t WHERE k BETWEEN $1 AND $1 + 1000 ORDER BY k OFFSET 0) x;
SET plan_cache_mode = force_generic_plan;
EXECUTE q(3000);
EXECUTE q(3000);
REINDEX TABLE t;
EXECUTE q(3000);
REINDEX INDEX CONCURRENTLY t_k;
EXECUTE q(3000);
DROP INDEX t_k_v;
EXECUTE q(3000);
BEGIN;
DROP INDEX t_k;
DROP INDEX t_part;
EXECUTE q(3000);
ROLLBACK;
EXECUTE q(3000);
ALTER TABLE dup ALTER w TYPE bigint;
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 40 AND 50 ORDER BY d');
CLUSTER dup USING dup_d;
SELECT same('SELECT d, w FROM dup WHERE d BETWEEN 40 AND 50 ORDER BY d');
BEGIN;
TRUNCATE t;
EXECUTE q(3000);
INSERT INTO t (id, k) SELECT i, i FROM generate_series(3000, 3100) AS i;
EXECUTE q(3000);
ROLLBACK;
EXECUTE q(3000);
VACUUM FULL t;
EXECUTE q(3000);
RESET plan_cache_mode;
DEALLOCATE q;

-- PL/pgSQL: loops left in the middle, errors caught, transactions ended inside
CREATE FUNCTION loops() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r record;
	sum bigint := 0;
BEGIN
	FOR i IN 1 .. 5 LOOP
		FOR r IN SELECT id, k FROM t WHERE k >= i * 1000 ORDER BY k LOOP
			sum := sum + r.id;
			EXIT WHEN r.k > i * 1000 + 100;
		END LOOP;
		BEGIN
			FOR r IN SELECT id, 10 / (k - 5050) AS x FROM t WHERE k > 5000 ORDER BY k LOOP
				sum := sum + r.x;
			END LOOP;
		EXCEPTION WHEN division_by_zero THEN
			sum := sum + 1;
		END;
	END LOOP;
	RETURN sum;
END $$;
SELECT same('SELECT loops()', 'Result');
CREATE TABLE done (n bigint);
CREATE PROCEDURE batches() LANGUAGE plpgsql AS $$
DECLARE
	r record;
	n int := 0;
BEGIN
	FOR r IN SELECT id, k FROM t WHERE k BETWEEN 12000 AND 12500 ORDER BY k LOOP
		n := n + 1;
		INSERT INTO done VALUES (r.id);
		IF n % 100 = 0 THEN COMMIT; END IF;
		IF n % 150 = 0 THEN ROLLBACK; END IF;
	END LOOP;
END $$;
SET nexusmem.enable_prefetch = off;
CALL batches();
CREATE TABLE done_off AS TABLE done;
TRUNCATE done;
SET nexusmem.enable_prefetch = on;
SELECT cold();
CALL batches();
SELECT count(*) AS different FROM (TABLE done EXCEPT ALL TABLE done_off UNION ALL (TABLE done_off EXCEPT ALL TABLE done)) x;
SELECT count(*) FROM done;

-- isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT same(:'list');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT same(:'list');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT same(:'list');
COMMIT;

-- EXPLAIN runs the scan and nothing more
EXPLAIN (COSTS OFF) SELECT id FROM t WHERE k > 5 ORDER BY k;

-- what is counted adds up, in this session and in the view
SELECT count(*) AS wrong FROM nexusmem.session_prefetch()
WHERE issued <> used + wasted OR issued < 0 OR used < 0 OR wasted < 0 OR skipped < 0;
SELECT count(*) AS wrong FROM nexusmem.stat_prefetch
WHERE issued <> used + wasted OR issued < 0 OR used < 0 OR wasted < 0 OR skipped < 0;
SELECT kind FROM nexusmem.session_prefetch();
SELECT issued + skipped > 0 AS looked, kind, datname = current_database() AS here
FROM nexusmem.stat_prefetch WHERE relid = 't'::regclass;
SELECT count(*) AS catalogs FROM nexusmem.stat_prefetch WHERE relid < 16384;
\if :{?cold}
SELECT sum(issued) AS issued, sum(used) AS used, sum(wasted) AS wasted FROM nexusmem.session_prefetch() \g (format=unaligned tuples_only=on) :cold
\endif

-- a dropped relation leaves the view; one whose drop was undone does not
SELECT 't'::regclass::oid AS gone \gset
BEGIN;
DROP TABLE t;
SELECT count(*) FROM nexusmem.stat_prefetch WHERE relid = :gone;
ROLLBACK;
SELECT count(*) FROM nexusmem.stat_prefetch WHERE relid = 't'::regclass;
BEGIN;
SAVEPOINT s;
DROP TABLE t;
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM nexusmem.stat_prefetch WHERE relid = 't'::regclass;
DROP TABLE t;
SELECT count(*) FROM nexusmem.stat_prefetch WHERE relid = :gone;
SELECT nexusmem.stat_prefetch_reset();
SELECT count(*) FROM nexusmem.stat_prefetch WHERE datname = current_database();
SELECT issued >= 0 AS session_goes_on FROM nexusmem.session_prefetch();

DROP SCHEMA look CASCADE;
