-- Bad input to the structures: a clear error, nothing changed.
\set SHOW_CONTEXT never
SET lc_messages = 'C';
SET search_path = nexusmem, public;
CREATE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	detail text;
	hint text;
	result text;
BEGIN
	EXECUTE sql INTO result;
	RETURN coalesce(result, 'NULL');
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN state || ' ' || left(sqlerrm, 100) ||
		CASE WHEN detail <> '' THEN ' (' || detail || ')' ELSE '' END ||
		CASE WHEN hint <> '' THEN ' [' || hint || ']' ELSE '' END;
END $$;

-- every function with every argument NULL, and no name
SELECT call, try('SELECT ' || replace(call, '?', 'NULL')) FROM (VALUES
	('counter_add(?)'), ('counter_add(?, 1)'), ('counter_add(''x'', ?)'), ('counter_get(?)'),
	('counter_set(?, 1)'), ('counter_set(''x'', ?)'), ('counter_create(?)'), ('counter_create(''x'', ?)'),
	('counter_drop(?)'), ('counter_drain(?)'),
	('map_put(?, ''k'', ''v'')'), ('map_put(''x'', ?, ''v'')'), ('map_put(''x'', ''k'', ?)'),
	('map_put(''x'', ''k'', ?::bytea)'), ('map_put(''x'', ''k'', ?::jsonb)'),
	('map_get(?, ''k'')'), ('map_get(''x'', ?)'), ('map_get_bytea(?, ''k'')'), ('map_get_bytea(''x'', ?)'),
	('map_get_jsonb(?, ''k'')'), ('map_get_jsonb(''x'', ?)'),
	('map_put_if(?, ''k'', ''a'', ''b'')'), ('map_put_if(''x'', ?, ''a'', ''b'')'), ('map_put_if(''x'', ''k'', ''a'', ?)'),
	('map_put_if(''x'', ''k'', ?, ?)'), ('map_put_if(''x'', ''k'', ''a'', ?::bytea)'), ('map_put_if(''x'', ''k'', ''1'', ?::jsonb)'),
	('map_delete(?, ''k'')'), ('map_delete(''x'', ?)'),
	('map_add(?, ''k'', 1)'), ('map_add(''x'', ?, 1)'), ('map_add(''x'', ''k'', ?)'),
	('map_size(?)'), ('map_entries(?)'), ('map_clear(?)'), ('map_drop(?)'),
	('stack_push(?, ''v'')'), ('stack_push(''x'', ?)'), ('stack_push(''x'', ?::bytea)'), ('stack_push(''x'', ?::jsonb)'),
	('stack_pop(?)'), ('stack_pop_bytea(?)'), ('stack_pop_jsonb(?)'), ('stack_depth(?)'), ('stack_drop(?)'),
	('queue_push(?, ''v'')'), ('queue_push(''x'', ?)'), ('queue_push(''x'', ?::bytea)'), ('queue_push(''x'', ?::jsonb)'),
	('queue_pop(?)'), ('queue_pop_bytea(?)'), ('queue_pop_jsonb(?)'), ('queue_length(?)'), ('queue_drop(?)'),
	('share(?, ''x'', NULL, ''read'')'), ('share(''map'', ?, NULL, ''read'')'), ('share(''map'', ''x'', NULL, ?)'),
	('unshare(?, ''x'', NULL, ''read'')'), ('unshare(''map'', ?, NULL, ''read'')')) AS c(call);

-- names: empty, the longest, one past it
SELECT replace(call, '?', 'name') AS call, try('SELECT ' || replace(call, '?', '''''')) AS empty,
	try('SELECT ' || replace(call, '?', 'repeat(''n'', 64)')) AS too_long,
	try('SELECT ' || replace(call, '?', 'repeat(''n'', 63)')) AS longest
FROM (VALUES ('counter_add(?)'), ('counter_get(?)'), ('counter_set(?, 1)'), ('counter_create(?)'), ('counter_drop(?)'),
	('map_put(?, ''k'', ''v'')'), ('map_get(?, ''k'')'), ('map_put_if(?, ''k'', ''v'', ''w'')'), ('map_delete(?, ''k'')'),
	('map_get_bytea(?, ''k'')'), ('map_get_jsonb(?, ''k'')'),
	('map_add(?, ''k'', 1)'), ('map_size(?)'), ('map_entries(?)'), ('map_clear(?)'), ('map_drop(?)'),
	('stack_push(?, ''v'')'), ('stack_pop(?)'), ('stack_pop_bytea(?)'), ('stack_pop_jsonb(?)'), ('stack_depth(?)'), ('stack_drop(?)'),
	('queue_push(?, ''v'')'), ('queue_pop(?)'), ('queue_pop_bytea(?)'), ('queue_pop_jsonb(?)'), ('queue_length(?)'), ('queue_drop(?)'),
	('share(''map'', ?, NULL, ''read'')'), ('unshare(''map'', ?, NULL)')) AS c(call);
-- bytes count, not characters
SELECT try('SELECT counter_add(repeat(''ü'', 32))');

-- keys: empty, the longest, one past it
SELECT replace(call, '?', 'key') AS call, try('SELECT ' || replace(call, '?', '''''')) AS empty,
	try('SELECT ' || replace(call, '?', 'repeat(''k'', 1025)')) AS too_long,
	try('SELECT ' || replace(call, '?', 'repeat(''k'', 1024)')) AS longest
FROM (VALUES ('map_put(''x'', ?, ''v'')'), ('map_get(''x'', ?)'), ('map_get_bytea(''x'', ?)'), ('map_get_jsonb(''x'', ?)'),
	('map_put_if(''x'', ?, ''v'', ''w'')'), ('map_delete(''x'', ?)'), ('map_add(''x'', ?, 1)')) AS c(call);

-- values: the longest, one past it; a string takes 8 bytes more as jsonb
SELECT replace(call, '?', 'value') AS call, try('SELECT ' || replace(call, '?', 'repeat(''v'', 1048577)')) AS too_long,
	try('SELECT ' || replace(call, '?', 'repeat(''v'', 1048576)')) AS longest
FROM (VALUES ('map_put(''x'', ''k'', ?)'), ('map_put(''x'', ''k'', (?)::bytea)'), ('map_put_if(''x'', ''k'', NULL, ?)'),
	('map_put_if(''x'', ''k'', ?, ''v'')'), ('map_put(''x'', ''j'', to_jsonb(left(?, -8)))'),
	('map_put_if(''x'', ''b2'', NULL, (?)::bytea)'), ('map_put_if(''x'', ''b2'', (?)::bytea, ''v'')'),
	('map_put_if(''x'', ''j2'', NULL, to_jsonb(left(?, -8)))'), ('map_put_if(''x'', ''j2'', to_jsonb(left(?, -8)), ''1'')'),
	('stack_push(''x'', ?)'), ('stack_push(''x'', (?)::bytea)'), ('stack_push(''x'', to_jsonb(left(?, -8)))'),
	('queue_push(''x'', ?)'), ('queue_push(''x'', (?)::bytea)'), ('queue_push(''x'', to_jsonb(left(?, -8)))')) AS c(call);
SELECT map_size('x'), octet_length(map_get_bytea('x', 'k')), map_get_jsonb('x', 'j') = to_jsonb(repeat('v', 1048568)) AS jsonb,
	map_get_bytea('x', 'b2'), map_get_jsonb('x', 'j2'), stack_depth('x'), queue_length('x');
SELECT stack_pop_jsonb('x') = to_jsonb(repeat('v', 1048568)) AS jsonb, octet_length(stack_pop_bytea('x')), length(stack_pop('x')),
	length(queue_pop('x')), octet_length(queue_pop_bytea('x')), queue_pop_jsonb('x') = to_jsonb(repeat('v', 1048568)) AS jsonb;
SELECT map_drop('x'), stack_drop('x'), queue_drop('x');

-- other types are for the caller to cast
SELECT try('SELECT map_put(''x'', ''k'', 1)') ~ '^42883 ' AS no_function, try('SELECT stack_push(''x'', 1.5)') ~ '^42883 ' AS nor_this,
	try('SELECT queue_push(''x'', now())') ~ '^42883 ' AS nor_that, try('SELECT map_put(''x'', ''k'', ''[1]''::json)') ~ '^42883 ' AS no_json;
SELECT try('SELECT map_put(''x'', ''k'', 1::text)');

-- read as another type
SELECT map_put('y', 't', 'text'), map_put('y', 'b', '\x00'::bytea), map_put('y', 'j', '1'::jsonb);
SELECT f, k, try(format('SELECT %s(''y'', %L)', f, k))
FROM unnest('{map_get,map_get_bytea,map_get_jsonb}'::text[]) AS f, unnest('{t,b,j}'::text[]) AS k;
SELECT stack_push('y', 'text'), queue_push('y', 'text');
SELECT try('SELECT stack_pop_bytea(''y'')'), try('SELECT stack_pop_jsonb(''y'')'), try('SELECT queue_pop_bytea(''y'')'), try('SELECT queue_pop_jsonb(''y'')');
-- nothing was taken
SELECT stack_pop('y'), queue_pop('y');
SELECT stack_push('y', '\x00'::bytea), queue_push('y', '1'::jsonb);
SELECT try('SELECT stack_pop(''y'')'), try('SELECT queue_pop(''y'')'), stack_pop_bytea('y'), queue_pop_jsonb('y');

-- numbers
SELECT v, map_put('y', 'n', v) IS NOT NULL AS put, try('SELECT map_add(''y'', ''n'', 1)')
FROM unnest('{a,"",-,1.5," 1","1 ",+1,9223372036854775808,9223372036854775807,1e3,0x10}'::text[]) AS v;
SELECT try('SELECT map_add(''y'', ''b'', 1)'), try('SELECT map_add(''y'', ''j'', 1)'), map_get_bytea('y', 'b'), map_get_jsonb('y', 'j');
SELECT map_put('y', 'n', '-9223372036854775808') AS new, try('SELECT map_add(''y'', ''n'', -1)'), map_get('y', 'n');
SELECT counter_set('y', 9223372036854775807), try('SELECT counter_add(''y'')'), counter_get('y'), counter_add('y', -1);
SELECT counter_set('y', -9223372036854775808), try('SELECT counter_add(''y'', -1)'), counter_get('y');
SELECT counter_set('y', 0), counter_add('y', 9223372036854775807), try('SELECT counter_add(''y'', 9223372036854775807)'), counter_get('y');

-- sharing
SELECT try('SELECT share(''table'', ''y'', NULL, ''read'')'), try('SELECT share(''map'', ''y'', NULL, ''execute'')'),
	try('SELECT share(''map'', ''none'', NULL, ''read'')'), try('SELECT share(''map'', ''y'', ''no_such_role'', ''read'')'),
	try('SELECT share(''map'', ''y'', ''-'', ''read'')'), try('SELECT unshare(''queue'', ''none'', NULL)'), try('SELECT unshare(''map'', ''y'', NULL)');
SELECT try('SELECT share('''', ''y'', NULL, ''read'')'), try('SELECT share(''Map'', ''y'', NULL, ''read'')'), try('SELECT share(''map'', ''y'', NULL, '''')');
SELECT try('SELECT unshare(''map'', ''y'', NULL, ''execute'')'), try('SELECT unshare(''map'', ''y'', NULL, '''')'), try('SELECT unshare(''table'', ''y'', NULL)');

-- no name is like this one
SELECT try('SELECT counter_drain('''')'), counter_get('y');

-- in all kinds of places
SELECT try('SELECT counter_drain(''y'') FROM generate_series(1, 2)');
SELECT try('SELECT count(*) FROM generate_series(1, 3), LATERAL map_entries(''y'')');
SELECT try('SELECT map_put(''y'', ''k'', ''\'')') AS backslash;
SELECT try('SELECT counter_drain(''\'')');
CREATE TABLE structure_errors (k text CHECK (map_get('y', k) IS NULL), v text DEFAULT map_get('y', 't'));
SELECT try('INSERT INTO structure_errors VALUES (''none'') RETURNING v'), try('INSERT INTO structure_errors VALUES (''t'')');
DROP TABLE structure_errors;

SELECT map_drop('y'), stack_drop('y'), queue_drop('y'), counter_drop('y');
SELECT kind, length(name), entries FROM structures ORDER BY kind, name;
SELECT bool_and(CASE kind WHEN 'counter' THEN counter_drop(name) WHEN 'map' THEN map_drop(name)
	WHEN 'stack' THEN stack_drop(name) ELSE queue_drop(name) END) FROM structures;
SELECT count(*) FROM structures;
DROP FUNCTION try(text);
