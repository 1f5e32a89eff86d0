-- The C interface of nexusmem, called from another extension. Kinds: 0 counter,
-- 1 map, 2 stack, 3 queue. Flags: 1 read, 2 write, 4 create, 8 striped.
\set VERBOSITY sqlstate
SELECT user_version();

-- a statement that makes shared memory does not end for other extensions
SELECT user_ends(), user_add('first', 1, 2 | 4), user_ends();
SELECT user_drop(0, 'first');

-- counters
SELECT user_value('hits');
SELECT user_exists(0, 'hits');
SELECT user_add('hits', 5, 2);
SELECT user_add('hits', 5, 2 | 4), user_add('hits', -2, 2), nexusmem.counter_add('hits', 10);
SELECT user_value('hits'), nexusmem.counter_get('hits'), user_exists(0, 'hits');
SELECT user_add('hits', 1, 1);
SELECT user_set('hits', 9223372036854775807), user_value('hits');
SELECT user_add('hits', 1, 2);
SELECT user_value('hits');
SELECT user_drop(0, 'hits'), user_drop(0, 'hits'), user_value('hits');
SELECT user_add('striped', 3, 2 | 4 | 8), user_add('striped', 4, 2), user_value('striped');

-- a handle outlives transactions, drops and another object of its name
SELECT user_kept_add(1), user_kept_add(1);
BEGIN; SELECT user_kept_add(1); ROLLBACK;
SELECT user_kept_add(1);
SELECT nexusmem.counter_drop('kept');
SELECT user_kept_add(1);
SELECT user_drop(0, 'kept'), nexusmem.counter_set('kept', 41), user_kept_add(1);

-- maps
SELECT user_size('m'), user_get('m', 'a'), user_delete('m', 'a'), user_exists(1, 'm');
SELECT user_put('m', 'a', 'one'), user_put('m', 'a', 'two'), user_put('m', 'b', 'bytes', 1);
SELECT * FROM user_get('m', 'a');
SELECT * FROM user_get('m', 'b');
SELECT nexusmem.map_get('m', 'a'), nexusmem.map_get_bytea('m', 'b');
SELECT nexusmem.map_put('m', 'j', '{"k": 1}'::jsonb), (user_get('m', 'j')).type;
SELECT user_put_if('m', 'a', NULL, 'three'), user_put_if('m', 'a', 'one', 'three'), user_put_if('m', 'a', 'two', 'three'), user_put_if('m', 'c', NULL, 'new'), user_put_if('m', 'd', 'x', 'new');
SELECT (user_get('m', 'a')).value, (user_get('m', 'c')).value, user_get('m', 'd');
SELECT user_map_add('m', 'n', 5), user_map_add('m', 'n', -7), (user_get('m', 'n')).value;
SELECT user_map_add('m', 'a', 1);
SELECT user_map_add('m', 'n', -9223372036854775806);
SELECT user_map_add('m', 'n', -1);
SELECT user_delete('m', 'n'), user_delete('m', 'n'), user_size('m');
-- into the caller's memory: it has room for the value and a 0 byte, or one byte less, or none
SELECT size, (user_read('m', 'a', size)).* FROM (VALUES (0), (1), (5), (6), (100)) s(size);
SELECT user_read('m', 'absent', 100), user_read('absent', 'a', 100), user_put('m', 'empty', ''), user_read('m', 'empty', 1), user_read('m', 'empty', 0), user_delete('m', 'empty');

-- what is no text, in a database of UTF-8: rows have none of it, and maps no such name
\set VERBOSITY default
SELECT user_put_bytes('t', 'k\303\251y', '\303\251'), user_put_bytes('t', 'bytes', '\377\000', 1);
SELECT length(key), length(value) FROM nexusmem.map_entries('t') ORDER BY 1;
SELECT user_put_bytes('zero', 'a\000b', 'v'), user_put_bytes('invalid', '\377', 'v'), user_put_bytes('value', 'k', 'a\000b');
SELECT * FROM nexusmem.map_entries('zero');
SELECT * FROM nexusmem.map_entries('invalid');
SELECT * FROM nexusmem.map_entries('value');
SELECT user_put_bytes('\377', 'k', 'v');
SELECT count(nexusmem.map_drop(m)) FROM unnest(ARRAY['t', 'zero', 'invalid', 'value']) m;
\set VERBOSITY sqlstate

-- scans, values of every length up to the limit
SELECT count(*) FROM (SELECT user_put('big', 'key ' || i, repeat('v', i)) FROM generate_series(1, 3000) i OFFSET 0) s;
SELECT * FROM user_scan('big', 10000);
SELECT sum(length('key ' || i) + i) FROM generate_series(1, 3000) i;
SELECT entries FROM user_scan('big', 10);
SELECT * FROM user_scan('none', 10);
SELECT user_put('big', repeat('k', 1024), repeat('v', 1048576));
SELECT length((user_get('big', repeat('k', 1024))).value), entries FROM user_scan('big', 10000);
SELECT user_put('big', repeat('k', 1025), 'v');
SELECT user_put('big', 'k', repeat('v', 1048577));
SELECT user_put('big', '', 'v');
\set VERBOSITY terse
SELECT user_put('big', 'k', 'v', 7);
\set VERBOSITY sqlstate
SELECT bool_and((user_get('big', 'key ' || i)).value = repeat('v', i)) FROM generate_series(1, 3000) i;

-- stacks and queues
SELECT user_pop(2, 's'), user_length(2, 's'), user_pop(3, 'q'), user_length(3, 'q');
SELECT user_push(2, 's', v), user_push(3, 'q', v) FROM unnest(ARRAY['a', 'b', repeat('long', 10000)]) v;
SELECT user_length(2, 's'), user_length(3, 'q'), nexusmem.stack_depth('s'), nexusmem.queue_length('q');
SELECT length(user_pop(2, 's')), user_pop(2, 's'), nexusmem.stack_pop('s'), user_pop(2, 's');
SELECT user_pop(3, 'q'), nexusmem.queue_pop('q'), length(user_pop(3, 'q')), user_pop(3, 'q');

-- names and kinds
SELECT user_exists(0, '');
SELECT user_exists(0, repeat('n', 63)), user_exists(0, repeat('n', 64));
\set VERBOSITY terse
SELECT user_exists(4, 'n');
SELECT user_drop(-1, 'n');
SELECT user_add('n', 1, 0);
SELECT user_null_exists();
\set VERBOSITY sqlstate
SELECT user_exists(0, 'm'), user_exists(1, 'm');

-- every function: empty, one past the longest, the longest
CREATE FUNCTION user_try(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	result text;
BEGIN
	EXECUTE 'SELECT ' || call INTO result;
	RETURN left(coalesce(result, 'NULL'), 20);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || SQLERRM || CASE WHEN detail <> '' THEN ' (' || detail || ')' ELSE '' END;
END $$;
\pset format unaligned
SELECT replace(call, '?', 'name') AS call, user_try(replace(call, '?', '''''')) AS empty,
	user_try(replace(call, '?', 'repeat(''n'', 64)')) AS too_long, user_try(replace(call, '?', 'repeat(''n'', 63)')) AS longest
FROM (VALUES ('user_exists(0, ?)'), ('user_add(?, 1, 2)'), ('user_add(?, 1, 2 | 4)'), ('user_set(?, 5)'), ('user_value(?)'), ('user_drop(0, ?)'),
	('user_put(?, ''k'', ''v'')'), ('user_put_if(?, ''k'', ''v'', ''w'')'), ('user_get(?, ''k'')'), ('user_read(?, ''k'', 9)'), ('user_delete(?, ''k'')'),
	('user_map_add(?, ''k'', 2)'), ('user_size(?)'), ('user_scan(?, 9)'), ('user_drop(1, ?)'),
	('user_push(2, ?, ''v'')'), ('user_length(2, ?)'), ('user_pop(2, ?)'), ('user_drop(2, ?)'),
	('user_push(3, ?, ''v'')'), ('user_length(3, ?)'), ('user_pop(3, ?)'), ('user_drop(3, ?)')) c(call);
SELECT replace(call, '?', 'key') AS call, user_try(replace(call, '?', '''''')) AS empty,
	user_try(replace(call, '?', 'repeat(''k'', 1025)')) AS too_long, user_try(replace(call, '?', 'repeat(''k'', 1024)')) AS longest
FROM (VALUES ('user_put(''try'', ?, ''v'')'), ('user_get(''try'', ?)'), ('user_read(''try'', ?, 9)'), ('user_put_if(''try'', ?, ''v'', ''w'')'),
	('user_get(''try'', ?)'), ('user_delete(''try'', ?)'), ('user_put_if(''try'', ?, NULL, ''v'')'), ('user_delete(''try'', ?)'), ('user_map_add(''try'', ?, 3)')) c(call);
SELECT replace(call, '?', 'value') AS call, user_try(replace(call, '?', 'repeat(''v'', 1048577)')) AS too_long,
	user_try(replace(call, '?', 'repeat(''v'', 1048576)')) AS longest
FROM (VALUES ('user_put(''try'', ''k'', ?)'), ('user_put(''try'', ''b'', ?, 1)'), ('user_put_if(''try'', ''k'', ?, ''v'')'), ('user_put_if(''try'', ''k'', ''v'', ?)'),
	('user_push(2, ''try'', ?)'), ('user_push(3, ''try'', ?)')) c(call);
\pset format aligned
SELECT (user_get('try', 'k')).value = v AS k, (user_get('try', 'b')).value = v AS b, user_length(2, 'try'), user_pop(2, 'try') = v AS stack,
	user_length(3, 'try'), user_pop(3, 'try') = v AS queue, user_size('try') FROM repeat('v', 1048576) v;
SELECT user_drop(1, 'try'), user_drop(2, 'try'), user_drop(3, 'try');
DROP FUNCTION user_try(text);

-- privileges are the current role's
CREATE ROLE nxm_user_other;
SET ROLE nxm_user_other;
SELECT user_value('kept');
SELECT user_put('m', 'a', 'x');
SELECT user_drop(1, 'm');
SELECT user_add('own', 1, 2 | 4);
RESET ROLE;
SELECT nexusmem.share('counter', 'kept', 'nxm_user_other', 'read');
SET ROLE nxm_user_other;
SELECT user_value('kept');
SELECT user_add('kept', 1, 2);
RESET ROLE;

-- errors change nothing, and handles go on
DO $$
BEGIN
	PERFORM user_kept_add(9223372036854775807);
EXCEPTION WHEN numeric_value_out_of_range THEN
	RAISE NOTICE 'out of range';
END $$;
SELECT user_kept_add(0);

-- each way to store heeds the owner's role_limit: here about 100 kB more
CREATE FUNCTION user_fill(call text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	n int := 0;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		EXECUTE 'SELECT ' || call USING i;
		n := i;
	END LOOP;
	RETURN -1;
EXCEPTION WHEN configuration_limit_exceeded THEN
	RETURN n;
END $$;
SELECT ceil(sum(bytes) / 1024) + 100 AS role_limit FROM nexusmem.structures \gset
SET nexusmem.role_limit = :role_limit;
SELECT user_fill($$user_put('limited', 'key ' || $1, repeat('x', 100))$$) BETWEEN 500 AND 1000 AS ok, user_drop(1, 'limited');
SELECT user_fill($$user_put_if('limited', 'key ' || $1, NULL, repeat('x', 100))$$) BETWEEN 500 AND 1000 AS ok, user_drop(1, 'limited');
SELECT user_fill($$user_map_add('limited', 'key ' || $1, 1)$$) BETWEEN 1000 AND 4000 AS ok, user_drop(1, 'limited');
SELECT user_fill($$user_push(2, 'limited', repeat('x', 100))$$) BETWEEN 500 AND 1000 AS ok, user_drop(2, 'limited');
SELECT user_fill($$user_push(3, 'limited', repeat('x', 100))$$) BETWEEN 500 AND 1000 AS ok, user_drop(3, 'limited');
RESET nexusmem.role_limit;
DROP FUNCTION user_fill(text);

SELECT user_drop(0, 'kept'), user_drop(0, 'striped'), user_drop(0, 'own'), user_drop(1, 'm'), user_drop(1, 'big'), user_drop(2, 's'), user_drop(3, 'q');
DROP ROLE nxm_user_other;
