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
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(d, ''), 'HINT: ' || nullif(h, ''));
END $$;
\pset tuples_only on
\pset format unaligned

-- names
SELECT try($$SELECT cache_set('k', 'v', NULL, '')$$);
SELECT try($$SELECT cache_set('k', 'v', NULL, repeat('n', 64))$$);
SELECT try($$SELECT cache_set('k', 'v', NULL, NULL)$$);
SELECT try($$SELECT cache_get('k', '')$$);
SELECT try($$SELECT cache_get('k', NULL)$$);
SELECT try($$SELECT cache_clear(NULL)$$);
SELECT try($$SELECT cache_drop(NULL)$$);
SELECT try($$SELECT cache_drop(repeat('n', 64))$$);
SELECT try($$SELECT cache_create(NULL)$$);
SELECT try($$SELECT cache_create('')$$);
SELECT try($$SELECT cache_set('k', 'v', NULL, repeat('n', 63)), cache_drop(repeat('n', 63))$$);

-- keys
SELECT try($$SELECT cache_set('', 'v')$$);
SELECT try($$SELECT cache_set(NULL, 'v'::text)$$);
SELECT try($$SELECT cache_set(repeat('k', 1025), 'v')$$);
SELECT try($$SELECT cache_add('', 'v')$$);
SELECT try($$SELECT cache_get('')$$);
SELECT try($$SELECT cache_get(NULL)$$);
SELECT try($$SELECT cache_get_bytea(repeat('k', 1025))$$);
SELECT try($$SELECT cache_get_jsonb(NULL)$$);
SELECT try($$SELECT cache_delete('')$$);
SELECT try($$SELECT cache_delete(NULL)$$);
SELECT try($$SELECT cache_ttl(NULL)$$);
SELECT try($$SELECT cache_expire(NULL, '1 hour')$$);
SELECT try($$SELECT cache_expire('', '1 hour')$$);
SELECT try($$SELECT cache_mget(NULL)$$);
SELECT try($$SELECT cache_mget(ARRAY['a', NULL])$$);
SELECT try($$SELECT cache_mget(ARRAY['a', ''])$$);
SELECT try($$SELECT cache_mget(ARRAY['a'], NULL)$$);

-- values
SELECT try($$SELECT cache_set('k', NULL)$$);
SELECT try($$SELECT cache_set('k', NULL::jsonb)$$);
SELECT try($$SELECT cache_add('k', NULL)$$);
SELECT try($$SELECT cache_set('k', repeat('x', 1048577))$$);
SELECT try($$SELECT cache_set('k', repeat('x', 1048577)::bytea)$$);
SELECT try($$SELECT cache_mset(ARRAY['a'], NULL)$$);
SELECT try($$SELECT cache_mset(NULL, ARRAY['a'])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', 'b'], ARRAY['x', NULL])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', NULL], ARRAY['x', 'y'])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', 'b'], ARRAY['x'])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', repeat('k', 1025)], ARRAY['x', 'y'])$$);
SELECT try($$SELECT cache_mset(ARRAY['a', 'b'], ARRAY['x', repeat('x', 1048577)])$$);
-- of these nothing was stored
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
