-- Counters, maps, stacks and queues: what they do.
\pset null NULL
SET search_path = nexusmem, public;
SET client_min_messages = warning;

-- nothing is left of another test
SELECT count(*) FROM structures;

-- counters: made by the first write, no value before
SELECT counter_get('hits');
SELECT counter_add('hits'), counter_add('hits', 5), counter_add('hits', -2), counter_get('hits');
SELECT counter_set('hits', 40), counter_get('hits'), counter_set('new', 7), counter_get('new');
SELECT counter_create('hits'), counter_create('made'), counter_get('made'), counter_create('made', true);
-- one call site, several names
SELECT i, counter_add('c' || i % 3) FROM generate_series(1, 7) AS i ORDER BY i;
-- and one name many times
SELECT count(*), max(counter_add('loop')) FROM generate_series(1, 10000);
-- a striped one gives no value back, and is exact when read
SELECT counter_create('striped', true), counter_add('striped'), counter_add('striped', 41), counter_get('striped');
SELECT count(counter_add('striped')) FROM generate_series(1, 1000);
SELECT counter_get('striped'), counter_set('striped', -5), counter_get('striped');
-- the ends of bigint
SELECT counter_set('hits', 9223372036854775806), counter_add('hits');
SELECT counter_set('hits', -9223372036854775807), counter_add('hits', -1), counter_set('hits', 0);
SELECT counter_drop('made'), counter_drop('made'), counter_get('made');
-- made anew after a drop, at the same call site
CREATE FUNCTION bump(name text) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN counter_add(name); END';
SELECT bump('x'), bump('x'), counter_drop('x'), bump('x'), counter_drop('x');
DO $$
DECLARE
	v bigint;
BEGIN
	FOR i IN 1 .. 100 LOOP
		v := counter_add('dropped');
		IF v <> (i - 1) % 10 + 1 THEN
			RAISE 'counter is % at %', v, i;
		END IF;
		IF i % 10 = 0 AND NOT counter_drop('dropped') THEN
			RAISE 'not dropped at %', i;
		END IF;
	END LOOP;
END $$;

-- maps
SELECT map_get('m', 'k'), map_size('m'), map_delete('m', 'k'), map_clear('m'), map_drop('m');
SELECT count(*) FROM structures WHERE kind = 'map';
SELECT map_put('m', 'k', 'v'), map_put('m', 'k', 'w'), map_get('m', 'k'), map_get('m', 'other'), map_size('m');
SELECT map_delete('m', 'k'), map_delete('m', 'k'), map_get('m', 'k'), map_size('m');
-- types: literals and varchar are text; so is NULL, which is no value
SELECT map_put('m', 'literal', '5'), map_put('m', 'varchar', 'x'::varchar), map_put('m', 'name', 'x'::name),
	map_put('m', 'bytea', '\x00ff'::bytea), map_put('m', 'jsonb', '{"a": [1, 2.50, null]}'::jsonb),
	map_put('m', 'empty', ''), map_put('m', 'empty bytea', ''::bytea);
SELECT map_get('m', 'literal'), map_get('m', 'varchar'), map_get_bytea('m', 'bytea'), map_get_jsonb('m', 'jsonb'),
	map_get_jsonb('m', 'jsonb') #>> '{a,1}' AS second, map_get('m', 'empty') = '' AS empty,
	map_get_bytea('m', 'empty bytea') = '' AS empty_bytea;
SELECT pg_typeof(map_get('m', 'k')), pg_typeof(map_get_bytea('m', 'k')), pg_typeof(map_get_jsonb('m', 'k'));
SELECT * FROM map_entries('m') ORDER BY key COLLATE "C";
SELECT * FROM map_entries('no such map');
-- compare and set
SELECT map_put_if('p', 'k', 'a', 'b') AS no_map, map_put_if('p', 'k', NULL, 'a') AS absent,
	map_put_if('p', 'k', NULL, 'b') AS present, map_put_if('p', 'k', 'b', 'c') AS other,
	map_put_if('p', 'k', 'a', 'c') AS same, map_get('p', 'k');
SELECT map_put_if('p', 'k', 'c'::bytea, 'd'::bytea) AS other_type,
	map_put_if('p', 'b', NULL, '\x01'::bytea), map_put_if('p', 'b', '\x01'::bytea, '\x02'), map_get_bytea('p', 'b'),
	map_put_if('p', 'j', NULL, '[1]'::jsonb), map_put_if('p', 'j', '[1]'::jsonb, '[2]'), map_get_jsonb('p', 'j');
-- numbers in maps
SELECT map_add('n', 'k', 5), map_add('n', 'k', -7), map_get('n', 'k'), map_put('n', 'k', '100'), map_add('n', 'k', 1);
SELECT map_put('n', 'max', '9223372036854775806'), map_add('n', 'max', 1), map_put('n', 'min', '-9223372036854775808'), map_add('n', 'min', 0);
-- lengths
SELECT map_put('l', repeat('k', 1024), repeat('v', n)) AS new, length(map_get('l', repeat('k', 1024)))
FROM unnest('{0,1,1000,1023,1024,1025,2000,8000,16000,17000,65536,100000,1048575,1048576}'::int[]) AS n;
SELECT map_get('l', repeat('k', 1023)), map_size('l'), md5(map_get('l', repeat('k', 1024))) = md5(repeat('v', 1048576)) AS same;
SELECT length(value) FROM map_entries('l');
-- long ones lie in pieces, which take about as much as they hold
CREATE TEMP TABLE structures_pieces AS
SELECT n, substr((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 4096) AS i), 131072 - n + 1) AS v
FROM unnest('{16367,16368,16369,16376,16384,16385,20000,32768,32769,61440,61441,65535,65536,65537,81920,81921,126976,126977,131072}'::int[]) AS n;
SELECT count(map_put('pieces', n::text, v)) FROM structures_pieces;
SELECT n AS other FROM structures_pieces WHERE map_get('pieces', n::text) IS DISTINCT FROM v;
SELECT count(*) AS same FROM structures_pieces WHERE map_put_if('pieces', n::text, v, 'x');
SELECT count(map_put('pieces', n::text, substr(v, 1, 17000))) FROM structures_pieces WHERE n > 17000;
SELECT bytes < entries * 20000 AS packed FROM structures WHERE name = 'pieces';
SELECT map_drop('pieces');
DROP TABLE structures_pieces;
-- toasted, compressed and short arguments
CREATE TABLE structures_values (id int, t text, b bytea, j jsonb);
ALTER TABLE structures_values ALTER t SET STORAGE EXTERNAL;
INSERT INTO structures_values
SELECT i, repeat('text ' || i, i * 100), convert_to(repeat('bytea ' || i, i * 100), 'UTF8'),
	jsonb_build_object('id', i, 'long', repeat('jsonb', i * 100), 'list', (SELECT jsonb_agg(x) FROM generate_series(1, i) x))
FROM generate_series(1, 100, 9) AS i;
SELECT bool_and(map_put('v', 't' || id, t) AND map_put('v', 'b' || id, b) AND map_put('v', 'j' || id, j)) FROM structures_values;
SELECT count(*), bool_and(map_get('v', 't' || id) = t AND map_get_bytea('v', 'b' || id) = b AND map_get_jsonb('v', 'j' || id) = j)
FROM structures_values;
SELECT count(*), bool_and(e.value = CASE left(e.key, 1) WHEN 't' THEN v.t WHEN 'b' THEN v.b::text ELSE v.j::text END)
FROM map_entries('v') e JOIN structures_values v ON v.id = substr(e.key, 2)::int;
-- many keys: all are there, once
SELECT count(*) FILTER (WHERE map_put('many', 'key ' || i, 'value ' || i)) FROM generate_series(1, 20000) AS i;
SELECT map_size('many'), count(*), count(DISTINCT key), bool_and(value = 'value' || substr(key, 4)) FROM map_entries('many');
SELECT count(*) FROM generate_series(1, 20000) AS i WHERE map_get('many', 'key ' || i) = 'value ' || i;
SELECT count(*) FILTER (WHERE map_delete('many', 'key ' || i)) FROM generate_series(1, 20000, 2) AS i;
SELECT map_size('many'), count(*), count(*) FILTER (WHERE substr(key, 5)::int % 2 = 0) AS even FROM map_entries('many');
SELECT map_clear('many'), map_size('many'), map_clear('many'), map_get('many', 'key 2'), map_put('many', 'key 2', 'x'), map_size('many');
SELECT map_drop('many'), map_drop('many'), map_size('many');
-- in parallel workers too
CREATE TABLE structures_keys AS SELECT i FROM generate_series(1, 20000) AS i;
SELECT count(map_put('many', 'key ' || i, i::text)) FROM structures_keys;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT sum(map_get('many', 'key ' || i)::int) FROM structures_keys;
SELECT sum(map_get('many', 'key ' || i)::int) FROM structures_keys;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;
SELECT map_drop('many');

-- stacks: last in, first out
SELECT stack_pop('s'), stack_depth('s'), stack_drop('s');
SELECT i, stack_push('s', 'value ' || i) FROM generate_series(1, 3) AS i ORDER BY i;
SELECT stack_depth('s'), stack_pop('s'), stack_pop('s'), stack_push('s', 'four'), stack_pop('s'), stack_pop('s'), stack_pop('s'), stack_depth('s');
SELECT stack_push('s', '5'), stack_push('s', 'v'::varchar), stack_push('s', '\x05'::bytea), stack_push('s', '[5]'::jsonb), stack_push('s', '');
SELECT stack_pop('s') = '' AS empty, stack_pop_jsonb('s'), stack_pop_bytea('s'), stack_pop('s'), stack_pop('s');
SELECT stack_push('s', repeat('x', n)) FROM unnest('{0,251,252,253,8187,8188,8189,16384,1048576}'::int[]) AS n;
SELECT length(stack_pop('s')) FROM generate_series(1, 10);
SELECT count(stack_push('s', i::text)) FROM generate_series(1, 10000) AS i;
SELECT stack_depth('s');
SELECT sum(stack_pop('s')::int) FROM generate_series(1, 10000);
SELECT stack_push('s', 'left'), stack_drop('s'), stack_drop('s'), stack_depth('s'), stack_pop('s');

-- queues: first in, first out
SELECT queue_pop('q'), queue_length('q'), queue_drop('q');
SELECT i, queue_push('q', 'value ' || i) FROM generate_series(1, 3) AS i ORDER BY i;
SELECT queue_length('q'), queue_pop('q'), queue_pop('q'), queue_push('q', 'four'), queue_pop('q'), queue_pop('q'), queue_pop('q'), queue_length('q');
SELECT queue_push('q', '5'), queue_push('q', 'v'::varchar), queue_push('q', '\x05'::bytea), queue_push('q', '[5]'::jsonb), queue_push('q', '');
SELECT queue_pop('q'), queue_pop('q'), queue_pop_bytea('q'), queue_pop_jsonb('q'), queue_pop('q') = '' AS empty;
SELECT queue_push('q', repeat('x', n)) FROM unnest('{0,251,252,253,8187,8188,8189,16384,1048576}'::int[]) AS n;
SELECT length(queue_pop('q')) FROM generate_series(1, 10);
SELECT count(queue_push('q', i::text)) FROM generate_series(1, 10000) AS i;
SELECT queue_length('q');
SELECT sum(queue_pop('q')::int) FROM generate_series(1, 10000);
SELECT queue_push('q', 'left'), queue_drop('q'), queue_drop('q'), queue_length('q'), queue_pop('q');

-- kinds have names of their own
SELECT counter_add('same'), map_put('same', 'k', 'v'), stack_push('same', 'x'), queue_push('same', 'y');
SELECT kind, name, owner = current_user AS mine, node >= 0 AS node, entries, bytes > 0 AS bytes
FROM structures WHERE name = 'same' ORDER BY kind COLLATE "C";
SELECT counter_drop('same'), map_drop('same'), stack_drop('same'), queue_drop('same');
-- names are bytes
SELECT counter_add(repeat('n', 63)), counter_add('Ünïcødé'), counter_add(' '), counter_add('a''b"c'), counter_add('a%b_c');
SELECT octet_length(name) FROM structures WHERE name !~ '^[a-z]+[0-9]?$' ORDER BY name COLLATE "C";

-- not transactional ...
BEGIN;
SELECT counter_set('t', 1), map_put('t', 'k', 'v'), stack_push('t', 'v'), queue_push('t', 'v');
ROLLBACK;
SELECT counter_get('t'), map_get('t', 'k'), stack_pop('t'), queue_pop('t');
BEGIN;
SAVEPOINT s;
SELECT counter_add('t');
ROLLBACK TO s;
SELECT counter_drop('t');
ROLLBACK;
SELECT counter_get('t');
-- ... work in a read-only transaction, and give it no transaction number
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT counter_add('t'), map_put('t', 'k', 'w'), map_get('t', 'k'), stack_push('t', 'v'), stack_pop('t'), map_clear('t'), counter_drop('t');
SELECT * FROM counter_drain('hits');
SELECT pg_current_xact_id_if_assigned();
COMMIT;

-- draining: what counters have is taken ...
SELECT counter_drop(name) FROM structures WHERE kind = 'counter' AND name !~ '^c' ORDER BY name COLLATE "C";
SELECT counter_add('d.a', 5), counter_add('d.b', -3), counter_create('d.s', true), counter_add('d.s', 8), counter_create('d.z'), counter_add('e', 1);
SELECT * FROM counter_drain('d.%') ORDER BY name COLLATE "C";
SELECT * FROM counter_drain('d.%') ORDER BY name COLLATE "C";
SELECT counter_add('d.a', 5), counter_get('e');
SELECT * FROM counter_drain('no such%');
SELECT * FROM counter_drain('d_a');
SELECT * FROM counter_drain('d\_a');
SELECT * FROM counter_drain() ORDER BY name COLLATE "C";
-- ... and given back when the transaction aborts
SELECT counter_add('d.a', 5), counter_add('d.s', 8);
BEGIN;
SELECT * FROM counter_drain('d.%') ORDER BY name COLLATE "C";
SELECT counter_add('d.a', 100), counter_get('d.s');
ROLLBACK;
SELECT counter_get('d.a'), counter_get('d.s');
-- by subtransaction
BEGIN;
SAVEPOINT a;
SELECT * FROM counter_drain('d.a');
SELECT counter_add('d.a', 7);
SAVEPOINT b;
SELECT * FROM counter_drain('d.a');
SELECT counter_add('d.a', 11);
ROLLBACK TO b;
SELECT counter_get('d.a') AS "7 and 11";
SELECT * FROM counter_drain('d.a');
RELEASE a;
SELECT counter_add('d.a', 13);
SAVEPOINT c;
SELECT * FROM counter_drain('d.a');
RELEASE c;
SELECT counter_get('d.a') AS zero;
ROLLBACK;
SELECT counter_get('d.a') AS "105 and 7 and 11 and 13";
BEGIN;
SAVEPOINT a;
SELECT * FROM counter_drain('d.a');
RELEASE a;
COMMIT;
SELECT counter_get('d.a') AS zero;
-- in an exception block
SELECT counter_set('d.a', 3);
DO $$
BEGIN
	BEGIN
		PERFORM * FROM counter_drain('d.a');
		RAISE 'no';
	EXCEPTION WHEN OTHERS THEN
		NULL;
	END;
	RAISE NOTICE '%', counter_get('d.a');
END $$;
SELECT counter_get('d.a');
-- an error in the very statement
SELECT name, 1 / (value - value) FROM counter_drain('d.a');
SELECT counter_get('d.a');
-- dropped meanwhile: not made again
BEGIN;
SELECT * FROM counter_drain('d.a');
SELECT counter_drop('d.a');
ROLLBACK;
SELECT counter_get('d.a');
BEGIN;
SELECT counter_set('d.a', 3);
SELECT * FROM counter_drain('d.a');
SELECT counter_drop('d.a'), counter_add('d.a');
ROLLBACK;
SELECT counter_get('d.a') AS one;
-- no room for it any more: a warning, and why
SELECT counter_add('d.full', 5);
BEGIN;
SELECT * FROM counter_drain('d.full');
SELECT counter_set('d.full', 9223372036854775807);
ROLLBACK;
SELECT counter_get('d.full'), counter_drop('d.full');
-- flushed into a table
CREATE TABLE structures_totals (name text PRIMARY KEY, value bigint);
SELECT counter_set('d.a', 10);
INSERT INTO structures_totals SELECT * FROM counter_drain('d.a');
SELECT counter_add('d.a', 5);
INSERT INTO structures_totals AS t SELECT * FROM counter_drain('d.a')
ON CONFLICT (name) DO UPDATE SET value = t.value + excluded.value RETURNING *;
SELECT counter_add('d.a');
BEGIN;
SELECT * FROM counter_drain('d.a');
PREPARE TRANSACTION 'drained';

-- they outlive the extension, and a session
\c -
SET search_path = nexusmem, public;
SELECT counter_add('kept', 5);
DROP EXTENSION nexusmem;
CREATE EXTENSION nexusmem;
SELECT counter_get('kept');

-- role_limit, of a role that has nothing in any other database
CREATE ROLE regress_nexusmem_limited;
GRANT USAGE ON SCHEMA nexusmem TO regress_nexusmem_limited;
SET nexusmem.role_limit = 0;
SET ROLE regress_nexusmem_limited;
\set VERBOSITY sqlstate
SELECT counter_add('over');
\set VERBOSITY default
RESET ROLE;
SET nexusmem.role_limit = '100kB';
CREATE FUNCTION fill(how text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 10000 LOOP
		PERFORM CASE how WHEN 'put' THEN map_put('limited', 'key ' || i, repeat('x', 100))
			WHEN 'put_if' THEN map_put_if('limited', 'key ' || i, NULL, repeat('x', 100))
			ELSE map_add('limited', 'key ' || i, 1) = 1 END;
	END LOOP;
	RETURN -1;
EXCEPTION WHEN configuration_limit_exceeded THEN
	RETURN map_size('limited');
END $$;
SET ROLE regress_nexusmem_limited;
-- about 100 kB of 100 bytes and what goes with them; what is stored stays
SELECT fill('put') BETWEEN 500 AND 1000 AS ok;
-- but for a step of the index
SELECT sum(bytes) <= 120 * 1024 AS within FROM structures;
SELECT count(*) = map_size('limited') AS ok FROM map_entries('limited');
SELECT map_get('limited', 'key 1') = repeat('x', 100) AS ok, map_delete('limited', 'key 1');
SELECT map_clear('limited') > 0 AS ok, fill('put_if') BETWEEN 500 AND 1000 AS put_if;
SELECT sum(bytes) <= 120 * 1024 AS within FROM structures;
SELECT map_clear('limited') > 0 AS ok, fill('add') BETWEEN 1000 AND 4000 AS add;
SELECT sum(bytes) <= 120 * 1024 AS within FROM structures;
SELECT map_clear('limited') > 0 AS ok, map_put('limited', 'key 1', 'fits');
-- also where the index grows several times in 30 entries, and the limit leaves room for
-- more than these when it is set
RESET ROLE;
RESET nexusmem.role_limit;
CREATE FUNCTION grow(prefix text, from_key int, to_key int) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN from_key .. to_key LOOP
		PERFORM map_add('growing', prefix || i, 1);
		IF i % 10 = 0 THEN
			RETURN QUERY SELECT bytes FROM structures WHERE name = 'growing';
		END IF;
	END LOOP;
EXCEPTION WHEN configuration_limit_exceeded THEN
	RETURN QUERY SELECT bytes FROM structures WHERE name = 'growing';
END $$;
-- where is chance: that of the cluster's hashes
CREATE FUNCTION grows_at(OUT prefix text, OUT keys bigint, OUT kb bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 50 LOOP
		prefix := 'key ' || i || ' ';
		WITH g AS MATERIALIZED (SELECT * FROM grow(prefix, 1, 60000) WITH ORDINALITY AS g(bytes, tens))
		SELECT a.tens * 10, a.bytes / 1024 + 6 INTO keys, kb FROM g AS a JOIN g AS b ON b.tens = a.tens + 3
		WHERE b.bytes - a.bytes > 36000 ORDER BY b.bytes - a.bytes DESC LIMIT 1;
		PERFORM map_drop('growing');
		EXIT WHEN keys IS NOT NULL;
	END LOOP;
END $$;
SELECT * FROM grows_at() \gset
SET ROLE regress_nexusmem_limited;
SELECT count(*) > 0 AS ok, map_drop('limited') FROM grow(:'prefix', 1, :keys);
RESET ROLE;
SET nexusmem.role_limit = :kb;
SET ROLE regress_nexusmem_limited;
SELECT max(bytes) <= (:kb + 20) * 1024 AS within, map_size('growing') BETWEEN :keys AND 60000 - 1 AS limited FROM grow(:'prefix', :keys + 1, 60000) AS bytes;
SELECT map_drop('growing');
RESET ROLE;
SET nexusmem.role_limit = '100kB';
CREATE FUNCTION fill_list(kind text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 10000 LOOP
		IF kind = 'stack' THEN
			PERFORM stack_push('limited', repeat('x', 100));
		ELSE
			PERFORM queue_push('limited', repeat('x', 100));
		END IF;
	END LOOP;
	RETURN -1;
EXCEPTION WHEN configuration_limit_exceeded THEN
	RETURN CASE kind WHEN 'stack' THEN stack_depth('limited') ELSE queue_length('limited') END;
END $$;
SET ROLE regress_nexusmem_limited;
SELECT fill_list('stack') BETWEEN 500 AND 1000 AS ok;
SELECT sum(bytes) <= 100 * 1024 AS within FROM structures;
-- emptied, it has room
SELECT stack_depth('limited') AS depth \gset
SELECT count(*) = :depth AS ok FROM generate_series(1, :depth) WHERE stack_pop('limited') = repeat('x', 100);
SELECT stack_push('limited', 'fits'), stack_drop('limited');
SELECT fill_list('queue') BETWEEN 500 AND 1000 AS ok;
SELECT sum(bytes) <= 100 * 1024 AS within FROM structures;
SELECT queue_length('limited') AS length \gset
SELECT count(*) = :length AS ok FROM generate_series(1, :length) WHERE queue_pop('limited') = repeat('x', 100);
SELECT queue_push('limited', 'fits'), queue_drop('limited');
RESET ROLE;
RESET nexusmem.role_limit;

SELECT kind, count(*) FROM structures GROUP BY kind ORDER BY kind COLLATE "C";
SELECT bool_and(CASE kind WHEN 'counter' THEN counter_drop(name) WHEN 'map' THEN map_drop(name)
	WHEN 'stack' THEN stack_drop(name) ELSE queue_drop(name) END) FROM structures;
SELECT count(*) FROM structures;
DROP TABLE structures_values, structures_keys, structures_totals;
DROP FUNCTION bump(text), fill(text), grow(text, int, int), grows_at(), fill_list(text);
REVOKE USAGE ON SCHEMA nexusmem FROM regress_nexusmem_limited;
DROP ROLE regress_nexusmem_limited;

-- more names at once than a session remembers, by two call sites in turns
SELECT sum(counter_add('n' || i, i) + counter_add('n' || 1 + i % 1000, 0)) > 0 AS ok FROM generate_series(1, 1000) AS i;
SELECT count(counter_add('n' || 1 + i % 1000, 1)) FROM generate_series(1, 3000) AS i;
SELECT count(*) FROM generate_series(1, 1000) AS i WHERE counter_get('n' || i) <> i + 3 OR counter_get('n' || 1001 - i) <> 1004 - i;
-- and while a value is being computed
SELECT cache_fetch('k', 'SELECT sum(counter_get(''n'' || i)) FROM generate_series(1, 1000) AS i', NULL, 'fetched'), cache_get('k', 'fetched');
SELECT cache_drop('fetched');
SELECT count(*) FILTER (WHERE counter_drop('n' || i)), count(counter_get('n' || i)) FROM generate_series(1, 1000) AS i;
