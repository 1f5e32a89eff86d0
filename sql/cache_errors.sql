-- What caches refuse, and how.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
SET lc_messages = 'C';
SET search_path = nexusmem, public;
-- without file and line
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	d text;
	h text;
	result text;
BEGIN
	EXECUTE statement INTO result;
	RETURN 'no error' || coalesce(': ' || left(nullif(result, ''), 40), '');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(d, ''), 'HINT: ' || nullif(h, ''));
END $$;
\pset tuples_only on
\pset format unaligned

-- every function with every argument NULL that makes no sense so
SELECT call, try('SELECT ' || replace(call, '?', 'NULL')) FROM (VALUES
	('cache_set(?, ''v''::text)'), ('cache_set(?, ''v''::bytea)'), ('cache_set(?, ''1''::jsonb)'),
	('cache_set(''k'', ?)'), ('cache_set(''k'', ?::bytea)'), ('cache_set(''k'', ?::jsonb)'), ('cache_set(''k'', ''v'', NULL, ?)'),
	('cache_add(?, ''v''::text)'), ('cache_add(?, ''v''::bytea)'), ('cache_add(?, ''1''::jsonb)'),
	('cache_add(''k'', ?)'), ('cache_add(''k'', ?::bytea)'), ('cache_add(''k'', ?::jsonb)'), ('cache_add(''k'', ''v'', NULL, ?)'),
	('cache_get(?)'), ('cache_get(''k'', ?)'), ('cache_get_bytea(?)'), ('cache_get_bytea(''k'', ?)'),
	('cache_get_jsonb(?)'), ('cache_get_jsonb(''k'', ?)'),
	('cache_mget(?)'), ('cache_mget(ARRAY[''a'', ?])'), ('cache_mget(ARRAY[''a''], ?)'),
	('cache_mset(?, ARRAY[''v''])'), ('cache_mset(ARRAY[''a'', ?], ARRAY[''v'', ''w''])'), ('cache_mset(ARRAY[''a''], ?)'),
	('cache_mset(ARRAY[''a'', ''b''], ARRAY[''v'', ?])'), ('cache_mset(ARRAY[''a''], ARRAY[''v''], NULL, ?)'),
	('cache_fetch(?, ''SELECT 1'')'), ('cache_fetch(''k'', ?)'), ('cache_fetch(''k'', ''SELECT 1'', NULL, ?)'),
	('cache_delete(?)'), ('cache_delete(''k'', ?)'), ('cache_ttl(?)'), ('cache_ttl(''k'', ?)'),
	('cache_expire(?, ''1 hour'')'), ('cache_expire(''k'', ''1 hour'', ?)'),
	('cache_clear(?)'), ('cache_drop(?)'), ('cache_create(?)'),
	('share(''cache'', ?, NULL, ''read'')'), ('unshare(''cache'', ?, NULL)')) AS c(call);

-- names: empty, one past the longest, the longest
SELECT replace(call, '?', 'name') AS call, try('SELECT ' || replace(call, '?', '''''')) AS empty,
	try('SELECT ' || replace(call, '?', 'repeat(''n'', 64)')) AS too_long,
	try('SELECT ' || replace(call, '?', 'repeat(''n'', 63)')) AS longest
FROM (VALUES ('cache_create(?)'), ('cache_set(''k'', ''v'', NULL, ?)'), ('cache_add(''k'', ''w'', NULL, ?)'),
	('cache_get(''k'', ?)'), ('cache_mset(ARRAY[''k''], ARRAY[''x''], NULL, ?)'), ('cache_mget(ARRAY[''k''], ?)'),
	('cache_fetch(''k'', ''SELECT 1'', NULL, ?)'), ('cache_ttl(''k'', ?)'), ('cache_expire(''k'', ''1 hour'', ?)'),
	('cache_delete(''k'', ?)'), ('cache_set(''b'', ''v''::bytea, NULL, ?)'), ('cache_add(''b'', ''w''::bytea, NULL, ?)'),
	('cache_get_bytea(''b'', ?)'), ('cache_set(''j'', ''1''::jsonb, NULL, ?)'), ('cache_add(''j'', ''2''::jsonb, NULL, ?)'),
	('cache_get_jsonb(''j'', ?)'), ('cache_clear(?)'), ('share(''cache'', ?, NULL, ''read'')'), ('unshare(''cache'', ?, NULL)'),
	('cache_drop(?)')) AS c(call);
-- bytes count, not characters
SELECT try($$SELECT cache_create(repeat('ü', 32))$$);
SELECT count(*) FROM stat_cache;

-- keys: empty, one past the longest, the longest
SELECT replace(call, '?', 'key') AS call, try('SELECT ' || replace(call, '?', '''''')) AS empty,
	try('SELECT ' || replace(call, '?', 'repeat(''k'', 1025)')) AS too_long,
	try('SELECT ' || replace(call, '?', 'repeat(''k'', 1024)')) AS longest
FROM (VALUES ('cache_add(?, ''\x01''::bytea)'), ('cache_get_bytea(?)'), ('cache_set(?, ''\x02''::bytea)'), ('cache_get_bytea(?)'),
	('cache_delete(?)'), ('cache_add(?, ''1''::jsonb)'), ('cache_get_jsonb(?)'), ('cache_set(?, ''2''::jsonb)'), ('cache_get_jsonb(?)'),
	('cache_delete(?)'), ('cache_add(?, ''v'')'), ('cache_get(?)'), ('cache_set(?, ''w'')'), ('cache_get(?)'),
	('cache_mset(ARRAY[?, ''b''], ARRAY[''x'', ''y''])'), ('(SELECT value FROM cache_mget(ARRAY[''a'', ?]) OFFSET 1)'),
	('cache_expire(?, ''1 hour'')'), ('cache_ttl(?) > ''59 minutes'''), ('cache_fetch(?, ''SELECT 1'')'),
	('cache_delete(?)'), ('cache_fetch(?, ''SELECT 1'')'), ('cache_get(?)'), ('cache_delete(?)')) AS c(call);
SELECT cache_delete('b');

-- values: one past the longest, the longest; a string takes 8 bytes more as jsonb
SELECT replace(call, '?', 'value') AS call, try('SELECT ' || replace(call, '?', 'repeat(''v'', 1048577)')) AS too_long,
	try('SELECT ' || replace(call, '?', 'repeat(''v'', 1048576)')) AS longest
FROM (VALUES ('cache_set(''st'', ?)'), ('cache_set(''sb'', (?)::bytea)'), ('cache_set(''sj'', to_jsonb(left(?, -8)))'),
	('cache_add(''at'', ?)'), ('cache_add(''ab'', (?)::bytea)'), ('cache_add(''aj'', to_jsonb(left(?, -8)))'),
	('cache_mset(ARRAY[''a'', ''m''], ARRAY[''x'', ?])'), ('length(cache_fetch(''f'', $$SELECT ?$$))')) AS c(call);
SELECT key, value = repeat('v', 1048576) AS same FROM cache_mget(ARRAY['st', 'at', 'm', 'f']);
SELECT key, cache_get_bytea(key) = repeat('v', 1048576)::bytea AS same FROM unnest(ARRAY['sb', 'ab']) AS key;
SELECT key, cache_get_jsonb(key) = to_jsonb(repeat('v', 1048568)) AS same FROM unnest(ARRAY['sj', 'aj']) AS key;
-- what cache_fetch() does not store it computes each time
SELECT length(cache_fetch('longer', $$SELECT repeat('v', 1048577)$$)), cache_get('longer') IS NULL AS absent;
-- what is refused leaves the value before
SELECT try($$SELECT cache_set('st', repeat('x', 1048577))$$), cache_get('st') = repeat('v', 1048576) AS same;
SELECT try($$SELECT cache_mset(ARRAY['a', 'st'], ARRAY['y', repeat('x', 1048577)])$$), cache_get('a'), cache_get('st') = repeat('v', 1048576) AS same;
SELECT cache_clear();

-- one element that is wrong, and nothing is stored
SELECT try($$SELECT cache_mset(ARRAY['a', 'b'], ARRAY['x'])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', repeat('k', 1025)], ARRAY['x', 'y'])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', 'b'], ARRAY['x', repeat('x', 1048577)])$$);
SELECT try(format('SELECT cache_mset(array_agg(k ORDER BY i), array_agg(v ORDER BY i)) FROM (SELECT i, CASE i WHEN 1 THEN ''a'' WHEN 500 THEN %s ELSE i::text END AS k, %s AS v FROM generate_series(1, 500) AS i) AS s', k, v))
FROM (VALUES ($$repeat('k', 1025)$$, $$'x'$$), ($$''$$, $$'x'$$), ($$NULL$$, $$'x'$$), ($$'last'$$, $$CASE i WHEN 500 THEN repeat('v', 1048577) ELSE 'x' END$$)) AS t(k, v);
SELECT cache_get('a') IS NULL, cache_get('k') IS NULL;
SELECT split_part(try($$SELECT cache_set('k', 1)$$), ' | ', 1);
SELECT split_part(try($$SELECT cache_set('k', 'v', '1 hour'::varchar)$$), ' | ', 1);

-- types
SELECT cache_set('t', 'x'), cache_set('b', '\x01'::bytea), cache_set('j', '1'::jsonb);
SELECT try($$SELECT cache_get('b')$$);
SELECT try($$SELECT cache_get('j')$$);
SELECT try($$SELECT cache_fetch('j', 'SELECT 1')$$);
SELECT try($$SELECT cache_get_bytea('t')$$);
SELECT try($$SELECT cache_get_bytea('j')$$);
SELECT try($$SELECT cache_get_jsonb('t')$$);
SELECT try($$SELECT cache_get_jsonb('b')$$);

-- cache_create
SELECT try($$SELECT cache_create('c', 0)$$);
SELECT try($$SELECT cache_create('c', -1)$$);
SELECT try($$SELECT cache_create('c', 262143)$$);
SELECT try($$SELECT cache_create('c', 262144), cache_drop('c')$$);
SELECT try($$SELECT cache_create('c', 9223372036854775807), cache_drop('c')$$);
SELECT try($$SELECT cache_create('c', NULL, '0')$$);
SELECT try($$SELECT cache_create('c', NULL, '-1 day')$$);
SELECT try($$SELECT cache_create('c', NULL, '5000 years'), cache_drop('c')$$);

-- sharing
SELECT try($$SELECT share('cache', 'nothing', NULL, 'read')$$);
SELECT try($$SELECT share('cache', 'default', NULL, 'read')$$);
SELECT try($$SELECT unshare('cache', 'default', NULL)$$);
SELECT try($$SELECT share('cupboard', 'x', NULL, 'read')$$);

SELECT cache_drop('default');
DROP FUNCTION try(text);
