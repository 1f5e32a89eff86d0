-- What caches do.
SET lc_messages = 'C';
SET search_path = nexusmem, public;

-- a key has a value, of one of three types
SELECT cache_get('a'), cache_delete('a'), cache_ttl('a'), cache_expire('a', '1 hour'), cache_clear();
SELECT cache, entries FROM stat_cache;
SELECT cache_set('a', 'one'), cache_get('a'), cache_set('a', 'two'), cache_get('a');
SELECT cache_set('b', '\x00ff'::bytea), cache_set('j', '{"a": [1, 2]}'::jsonb), cache_set('v', 'x'::varchar);
SELECT cache_get_bytea('b'), cache_get_jsonb('j'), cache_get('v'), cache_get_jsonb('j') -> 'a' ->> 1 AS second;
SELECT cache_get('nothing'), cache_get_bytea('nothing'), cache_get_jsonb('nothing');
-- another type may take its place
SELECT cache_set('b', 'text'), cache_get('b');
-- parameters without a type
PREPARE untyped AS SELECT cache_set($1, $2, $3);
PREPARE typed AS SELECT cache_set($1, $2::jsonb, $3::interval);
SELECT name, parameter_types FROM pg_prepared_statements WHERE name ~ 'typed$' ORDER BY name DESC;
DEALLOCATE untyped;
DEALLOCATE typed;

-- only when absent
SELECT cache_add('a', 'three'), cache_get('a'), cache_add('new', 'first'), cache_add('new', 'second'), cache_get('new');
SELECT cache_add('new b', '\x01'::bytea), cache_add('new j', '1'::jsonb), cache_add('new j', '2'::jsonb), cache_get_jsonb('new j');
SELECT cache_delete('new'), cache_delete('new'), cache_get('new'), cache_add('new', 'third');

-- values short, empty and long; keys short and long
SELECT cache_set('', 'x');
SELECT cache_set('empty', ''), cache_get('empty') = '' AS empty, cache_get('empty') IS NULL AS absent;
SELECT n, cache_set('long', repeat('x', n)), length(cache_get('long')), cache_get('long') = repeat('x', n) AS same
FROM unnest(ARRAY[1, 1000, 1024, 1025, 8000, 16000, 16384, 20000, 65536, 100000, 1048576]) AS n;
SELECT cache_set(repeat('k', 1024), 'v'), cache_get(repeat('k', 1024)), cache_get(repeat('k', 1023));
SELECT cache_set('ключ', 'значение'), cache_get('ключ');

-- many at once: a row for each key, in their order, as text
SELECT cache_mset(ARRAY['m1', 'm2', 'm3', 'm2'], ARRAY['1', '2', '', 'again']);
SELECT key, value, value IS NULL AS absent FROM cache_mget(ARRAY['m3', 'nothing', 'm1', 'm2', 'm1', 'j', 'new b']);
SELECT count(*) FROM cache_mget('{}');
SELECT cache_mset('{}', '{}');
SELECT cache_mset(array_agg('n' || i), array_agg(i::text)) FROM generate_series(1, 1000) AS i;
SELECT count(*), count(value), sum(value::int), bool_and(key = 'n' || value) FILTER (WHERE value IS NOT NULL) AS right
FROM cache_mget((SELECT array_agg('n' || i) FROM generate_series(1, 1100) AS i));
SELECT cache_mset(array_agg('l' || i), array_agg(repeat(i::text, 50000))) FROM generate_series(10, 50) AS i;
SELECT count(*) FROM cache_mget((SELECT array_agg('l' || i) FROM generate_series(9, 50) AS i)) WHERE value = repeat(substr(key, 2), 50000);
SELECT value FROM cache_mget(ARRAY[['m1', 'm2'], ['m3', 'a']]);
SELECT value FROM cache_mget(ARRAY['a'], 'no such cache');
SELECT * FROM generate_series(1, 3) AS i, LATERAL cache_mget(ARRAY['m' || i]);

-- time to live
SELECT cache_ttl('a') IS NULL AS never, cache_ttl('nothing') IS NULL AS absent;
SELECT cache_set('t', 'x', '1 hour'), cache_ttl('t') BETWEEN '59 minutes' AND '1 hour' AS left;
SELECT cache_expire('t', '2 days'), cache_ttl('t') BETWEEN '1 day 23:59' AND '2 days' AS left, cache_get('t');
SELECT cache_expire('t', NULL), cache_ttl('t') IS NULL AS never, cache_get('t');
SELECT cache_set('t', 'y', '1 month'), cache_ttl('t') BETWEEN '29 days 23:59' AND '30 days' AS month;
SELECT cache_set('t', 'y', '1 year 1 day'), cache_ttl('t') BETWEEN '360 days 23:59' AND '361 days' AS year;
SELECT cache_set('t', 'y', '1 hour'), cache_set('t', 'z'), cache_ttl('t') IS NULL AS never;
SELECT cache_set('t', 'y', '2000 years'), cache_get('t'), cache_ttl('t') IS NULL AS never;
SELECT cache_set('t', 'y', '178000000 years'), cache_get('t'), cache_ttl('t') IS NULL AS never;
-- the same wherever one is given; lasts: so many days, or for ever
CREATE FUNCTION pg_temp.lasts(key text, days int, cache text DEFAULT 'default') RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE WHEN days IS NULL THEN cache_ttl(key, cache) IS NULL AND cache_get(key, cache) = 'x'
		ELSE cache_ttl(key, cache) BETWEEN make_interval(days => days) - interval '1 minute' AND make_interval(days => days) END
$$;
SELECT ttl, cache_add('add ' || ttl, 'x', ttl), pg_temp.lasts('add ' || ttl, days),
	cache_mset(ARRAY['mset ' || ttl], ARRAY['x'], ttl), pg_temp.lasts('mset ' || ttl, days),
	cache_fetch('fetch ' || ttl, $$SELECT 'x'$$, ttl), pg_temp.lasts('fetch ' || ttl, days),
	cache_set('expire ' || ttl, 'x', '1 hour') IS NOT NULL AS set, cache_expire('expire ' || ttl, ttl), pg_temp.lasts('expire ' || ttl, days),
	cache_create('c ' || ttl, default_ttl => ttl), cache_add('k', 'x', cache => 'c ' || ttl), pg_temp.lasts('k', days, 'c ' || ttl), cache_drop('c ' || ttl)
FROM (VALUES (interval '1 month', 30), ('2 months 3 days', 63), ('1 year 1 day', 361), ('2000 years', NULL), ('178000000 years', NULL)) AS t(ttl, days);
-- gone at its deadline, and not before
SELECT clock_timestamp() AS before, cache_set('t', 'soon', '300 ms') \gset
SELECT cache_get('t') = 'soon' OR clock_timestamp() >= :'before'::timestamptz + '300 ms' AS is_there;
SELECT NOT cache_add('t', 'no', '300 ms') OR clock_timestamp() >= :'before'::timestamptz + '300 ms' AS not_added;
SELECT pg_sleep(0.4);
SELECT cache_get('t'), cache_ttl('t'), cache_expire('t', '1 hour'), cache_delete('t');
SELECT cache_set('t', 'soon', '200 ms'), pg_sleep(0.3), cache_add('t', 'then'), cache_get('t');
SELECT cache_set('t', 'soon', '200 ms'), cache_set('t', 'stays'), pg_sleep(0.3), cache_get('t');
SELECT cache_set('t', 'stays', '1 hour'), cache_expire('t', '200 ms'), pg_sleep(0.3), cache_get('t');
SELECT cache_mset(ARRAY['e1', 'e2'], ARRAY['x', 'y'], '200 ms'), pg_sleep(0.3);
SELECT * FROM cache_mget(ARRAY['e1', 'e2']);
-- nothing more than zero: expired at once, and what was there is gone
SELECT cache_set('t', 'was'), cache_set('t', 'is', '0'), cache_get('t');
SELECT cache_set('t', 'was'), cache_set('t', 'is', '-1 second'), cache_get('t');
SELECT cache_set('t', 'was'), cache_set('t', 'is', '1 day -1 month'), cache_get('t');
SELECT cache_set('t', 'was'), cache_expire('t', '0'), cache_get('t');
SELECT cache_add('t', 'x', '0'), cache_get('t'), cache_add('t', 'y'), cache_get('t');
-- for which there was room
SELECT cache_mset(ARRAY['e1', 't'], ARRAY['x', 'z'], '0');
SELECT * FROM cache_mget(ARRAY['e1', 't']);

-- caches have names
SELECT cache_set('a', 'other', NULL, 'second'), cache_get('a', 'second'), cache_get('a');
SELECT cache_add('a', 'x', cache => 'second'), cache_add('b', 'x', cache => 'second'), cache_delete('b', 'second'), cache_ttl('a', 'second');
SELECT cache_mset(ARRAY['k'], ARRAY['v'], '1 hour', 'second'), cache_expire('k', NULL, 'second'), cache_get(key => 'k', cache => 'second');
SELECT * FROM cache_mget(ARRAY['k', 'a'], 'second');
SELECT cache_clear('second'), cache_get('a', 'second'), cache_clear('second'), cache_drop('second'), cache_drop('second'), cache_clear('second');

-- made with a default time to live, and a limit
SELECT cache_create('made', default_ttl => '1 hour'), cache_create('made', 1000000), cache_create('made');
SELECT cache_set('a', 'x', NULL, 'made'), cache_ttl('a', 'made') BETWEEN '59 minutes' AND '1 hour' AS default_ttl;
SELECT cache_set('a', 'x', '1 day', 'made'), cache_ttl('a', 'made') BETWEEN '23:59' AND '1 day' AS given;
SELECT cache_expire('a', NULL, 'made'), cache_ttl('a', 'made') BETWEEN '59 minutes' AND '1 hour' AS default_ttl;
SELECT cache_set('a', 'x', '1000 years', 'made'), cache_ttl('a', 'made') IS NULL AS never;
SELECT cache_create('small', 1000000, '1 day'), cache_create('plain', NULL, NULL);
SELECT cache, max_bytes, default_ttl, owner = current_user AS mine FROM stat_cache WHERE cache IN ('made', 'small', 'plain') ORDER BY 1;
SELECT count(cache_set('k' || i, repeat('x', 100), NULL, 'small')) FROM generate_series(1, 50000) AS i;
SELECT entries BETWEEN 1000 AND 9000 AS filled, bytes + overhead_bytes <= 1000000 AS bounded, sets, refusals FROM stat_cache WHERE cache = 'small';
-- soon, for the memory worker may evict something between one count and the other
DO $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		IF (SELECT sets = entries + evictions FROM stat_cache WHERE cache = 'small') THEN RETURN; END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RAISE 'what was set is neither there nor evicted';
END $$;
SELECT cache_get('k50000', 'small') = repeat('x', 100) AS newest, cache_get('k1', 'small') AS oldest;
-- what is read often stays
SELECT count(cache_set('hot' || i, 'h', NULL, 'small')) FROM generate_series(1, 20) AS i;
DO $$
BEGIN
	FOR i IN 1 .. 20000 LOOP
		PERFORM cache_set('w' || i, repeat('x', 100), NULL, 'small');
		PERFORM cache_get('hot' || i % 20 + 1, 'small');
	END LOOP;
END $$;
SELECT count(*) > 15 AS stayed FROM generate_series(1, 20) AS i WHERE cache_get('hot' || i, 'small') = 'h';
-- a value that its cache has no room for removes the one before
SELECT cache_set('big', 'v', NULL, 'small'), cache_set('big', repeat('x', 1048576), NULL, 'small'), cache_get('big', 'small') IS NULL AS gone;
SELECT entries > 1000 AS others_stay FROM stat_cache WHERE cache = 'small';
SELECT refusals FROM stat_cache WHERE cache = 'small';
SELECT count(cache_set('big' || i, repeat('x', 100000), NULL, 'small')) FROM generate_series(1, 50) AS i;
SELECT bytes + overhead_bytes <= 1000000 AS bounded, cache_get('big50', 'small') = repeat('x', 100000) AS newest FROM stat_cache WHERE cache = 'small';
SELECT cache_add('big', repeat('x', 1048576), NULL, 'small'), cache_mset(ARRAY['big', 'tiny'], ARRAY[repeat('x', 1048576), 't'], NULL, 'small');
SELECT cache_drop('small'), cache_drop('made'), cache_drop('plain');
-- values longer than a quarter of a page take about as much as they are
SELECT cache_create('parts', 4000000);
SELECT count(cache_set('k' || i, repeat('x', 17000), NULL, 'parts')) FROM generate_series(1, 300) AS i;
SELECT bytes + overhead_bytes <= 4000000 AS bounded, entries > 100 AS packed FROM stat_cache WHERE cache = 'parts';
SELECT cache_drop('parts');

-- not transactional
BEGIN;
SELECT cache_set('a', 'in a transaction'), cache_delete('b');
ROLLBACK;
SELECT cache_get('a'), cache_get('b');
BEGIN READ ONLY;
SELECT cache_set('a', 'in a read-only one'), cache_get('a');
COMMIT;

-- statistics
SELECT cache_drop('default');
SELECT cache_set('a', 'x'), cache_get('a'), cache_get('a'), cache_get('b'), cache_add('a', 'y'), cache_set('e', 'x', '0');
SELECT count(*) FROM cache_mget(ARRAY['a', 'b', 'c']);
SELECT cache, entries, bytes > 0 AS bytes, overhead_bytes > 0 AS overhead, hits, misses, sets, evictions, expirations, local_hits + remote_hits = hits AS hits_add_up, refusals, max_bytes, default_ttl FROM stat_cache;
SELECT stat_cache_reset();
SELECT entries, hits, misses, sets, local_hits, remote_hits FROM stat_cache;
SELECT kind, name, node, entries, bytes > 0 AS bytes FROM structures;
SELECT owner, sum(used_bytes) > 0 AS used FROM node_memory GROUP BY owner ORDER BY owner;
SELECT feature, state FROM status WHERE feature = 'cache';

-- through call sites that remember
CREATE FUNCTION fill_and_count(c text, n int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	found bigint := 0;
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM cache_set('f' || i, i::text, NULL, c);
	END LOOP;
	FOR i IN 1 .. n LOOP
		IF cache_get('f' || i, c) = i::text THEN
			found := found + 1;
		END IF;
	END LOOP;
	RETURN found;
END $$;
SELECT fill_and_count('f1', 1000), fill_and_count('f2', 1000);
SELECT cache_drop('f1'), fill_and_count('f1', 10), (SELECT entries FROM stat_cache WHERE cache = 'f1');
CREATE FUNCTION drop_and_set() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	all_ text := '';
BEGIN
	FOR i IN 1 .. 3 LOOP
		all_ := all_ || coalesce(cache_get('k', 'f1'), '-');
		PERFORM cache_set('k', i::text, NULL, 'f1');
		all_ := all_ || cache_get('k', 'f1');
		PERFORM cache_drop('f1');
	END LOOP;
	RETURN all_;
END $$;
SELECT drop_and_set();
DROP FUNCTION fill_and_count(text, int), drop_and_set();
SELECT cache_drop('f2'), cache_drop('default');

-- a random history, against a model
CREATE TEMP TABLE model (key text PRIMARY KEY, value text);
CREATE FUNCTION play(seed float8, steps int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	k text;
	v text;
	r float8;
	was text;
	is_ text;
	wrong int := 0;
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. steps LOOP
		k := 'k' || floor(random() * 200);
		r := random();
		v := repeat(md5(random()::text), 1 + floor(random() * random() * random() * 900)::int);
		SELECT value INTO was FROM model WHERE key = k;
		IF r < 0.4 THEN
			is_ := cache_get(k, 'played');
			wrong := wrong + (is_ IS DISTINCT FROM was)::int;
		ELSIF r < 0.7 THEN
			PERFORM cache_set(k, v, CASE WHEN random() < 0.5 THEN interval '1 hour' END, 'played');
			INSERT INTO model VALUES (k, v) ON CONFLICT (key) DO UPDATE SET value = v;
		ELSIF r < 0.8 THEN
			wrong := wrong + (cache_add(k, v, NULL, 'played') IS DISTINCT FROM (was IS NULL))::int;
			INSERT INTO model VALUES (k, v) ON CONFLICT DO NOTHING;
		ELSIF r < 0.9 THEN
			wrong := wrong + (cache_delete(k, 'played') IS DISTINCT FROM (was IS NOT NULL))::int;
			DELETE FROM model WHERE key = k;
		ELSIF r < 0.95 THEN
			wrong := wrong + (cache_expire(k, CASE WHEN random() < 0.5 THEN interval '1 day' END, 'played') IS DISTINCT FROM (was IS NOT NULL))::int;
		ELSIF r < 0.999 THEN
			PERFORM cache_set(k, v, '0', 'played');
			DELETE FROM model WHERE key = k;
		ELSE
			PERFORM cache_clear('played');
			TRUNCATE model;
		END IF;
	END LOOP;
	RETURN wrong || ' wrong, ' || (SELECT count(*) FROM model) - (SELECT entries FROM stat_cache WHERE cache = 'played') || ' too few';
END $$;
SELECT play(0.1, 20000);
SELECT count(*) FROM model WHERE cache_get(key, 'played') IS DISTINCT FROM value;
SELECT cache_drop('played');
DROP FUNCTION play(float8, int);
DROP TABLE model;
SELECT count(*) FROM structures;
