-- Who may use which structure.
\set VERBOSITY terse
SET lc_messages = 'C';
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_nexusmem_a, regress_nexusmem_b, regress_nexusmem_c, regress_nexusmem_group, regress_nexusmem_stats;
CREATE ROLE regress_nexusmem_a;
CREATE ROLE regress_nexusmem_b;
CREATE ROLE regress_nexusmem_c;
CREATE ROLE regress_nexusmem_group;
CREATE ROLE regress_nexusmem_stats IN ROLE pg_read_all_stats;

-- without USAGE on the schema: nothing
SET ROLE regress_nexusmem_a;
SELECT nexusmem.counter_add('a');
SELECT * FROM nexusmem.structures;
RESET ROLE;
GRANT USAGE ON SCHEMA nexusmem TO PUBLIC;
SET search_path = nexusmem, public;

-- whoever creates it owns it
SET ROLE regress_nexusmem_a;
SELECT counter_add('a', 5), map_put('a', 'k', 'v'), stack_push('a', 'v'), queue_push('a', 'v');
SELECT kind, name, owner FROM structures ORDER BY kind COLLATE "C";
RESET ROLE;

-- others may do nothing, nor see it
SET ROLE regress_nexusmem_b;
SELECT counter_add('a');
SELECT counter_get('a');
SELECT counter_set('a', 1);
SELECT counter_create('a');
SELECT counter_drop('a');
SELECT * FROM counter_drain();
SELECT map_put('a', 'k', 'w');
SELECT map_get('a', 'k');
SELECT map_put_if('a', 'k', 'v', 'w');
SELECT map_delete('a', 'k');
SELECT map_add('a', 'k', 1);
SELECT map_size('a');
SELECT * FROM map_entries('a');
SELECT map_clear('a');
SELECT map_drop('a');
SELECT stack_push('a', 'w');
SELECT stack_pop('a');
SELECT stack_depth('a');
SELECT stack_drop('a');
SELECT queue_push('a', 'w');
SELECT queue_pop('a');
SELECT queue_length('a');
SELECT queue_drop('a');
SELECT share('map', 'a', 'regress_nexusmem_b', 'write');
SELECT unshare('map', 'a', 'regress_nexusmem_a');
SELECT * FROM structures;
-- superusers may everything, and who reads statistics may look
RESET ROLE;
SELECT counter_get('a'), map_get('a', 'k'), stack_depth('a'), queue_length('a');
SELECT kind, name, owner FROM structures ORDER BY kind COLLATE "C";
SET ROLE regress_nexusmem_stats;
SELECT kind, name, owner, entries FROM structures ORDER BY kind COLLATE "C";
SELECT map_get('a', 'k');
RESET ROLE;

-- shared for reading
SET ROLE regress_nexusmem_a;
SELECT share('counter', 'a', 'regress_nexusmem_b', 'read'), share('map', 'a', 'regress_nexusmem_b', 'read'),
	share('stack', 'a', 'regress_nexusmem_b', 'read'), share('queue', 'a', 'regress_nexusmem_b', 'read');
SELECT share('map', 'a', 'regress_nexusmem_b', 'read') AS again;
SET ROLE regress_nexusmem_b;
SELECT counter_get('a'), map_get('a', 'k'), map_size('a'), stack_depth('a'), queue_length('a'), counter_create('a');
SELECT * FROM map_entries('a');
SELECT kind, name, owner FROM structures ORDER BY kind COLLATE "C";
SELECT counter_add('a');
SELECT * FROM counter_drain();
SELECT map_put('a', 'k', 'w');
SELECT map_clear('a');
SELECT stack_pop('a');
SELECT queue_pop('a');
SELECT map_drop('a');
SELECT share('map', 'a', 'regress_nexusmem_c', 'read');
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');

-- shared for writing: reading too, but not dropping
SET ROLE regress_nexusmem_a;
SELECT share('map', 'a', 'regress_nexusmem_c', 'write'), share('counter', 'a', 'regress_nexusmem_c', 'write'), share('map', 'a', 'regress_nexusmem_b', 'write');
-- the view shows it, of what one may use
SELECT * FROM sharing ORDER BY 1, 2, 3, 4;
SET ROLE regress_nexusmem_c;
SELECT * FROM sharing ORDER BY 1, 2, 3, 4;
SET ROLE regress_nexusmem_group;
SELECT count(*) FROM sharing;
SET ROLE regress_nexusmem_stats;
SELECT count(*) FROM sharing;
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k'), map_put('a', 'k2', 'c'), counter_add('a'), map_clear('a'), map_put('a', 'k', 'v');
SELECT * FROM counter_drain();
SELECT map_drop('a');
SELECT counter_drop('a');
-- it stays its owner's
SELECT owner FROM structures WHERE kind = 'map';

-- taken back, and noticed by a call site that has used it
SET ROLE regress_nexusmem_a;
SELECT unshare('map', 'a', 'regress_nexusmem_b', 'write'), unshare('map', 'a', 'regress_nexusmem_b', 'write') AS again;
SET ROLE regress_nexusmem_b;
SELECT map_get('a', 'k');
SELECT map_put('a', 'k', 'w');
SET ROLE regress_nexusmem_a;
SELECT unshare('map', 'a', 'regress_nexusmem_c', 'read');
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');
SET ROLE regress_nexusmem_a;
SELECT unshare('map', 'a', 'regress_nexusmem_b'), unshare('map', 'a', 'regress_nexusmem_b') AS again, unshare('map', 'a', NULL) AS never;
SET ROLE regress_nexusmem_b;
SELECT map_get('a', 'k');

-- shared with everyone
SET ROLE regress_nexusmem_a;
SELECT share('map', 'a', NULL, 'read');
SELECT * FROM sharing WHERE kind = 'map' ORDER BY 3, 4;
SET ROLE regress_nexusmem_b;
SELECT map_get('a', 'k');
SELECT map_put('a', 'k', 'w');
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');
RESET ROLE;
REVOKE USAGE ON SCHEMA nexusmem FROM PUBLIC;
SET ROLE regress_nexusmem_c;
SELECT nexusmem.map_get('a', 'k');
RESET ROLE;
GRANT USAGE ON SCHEMA nexusmem TO PUBLIC;
SET ROLE regress_nexusmem_a;
SELECT unshare('map', 'a', NULL);
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');

-- with a group, and by membership in the owner
RESET ROLE;
SELECT share('map', 'a', 'regress_nexusmem_group', 'write');
GRANT regress_nexusmem_group TO regress_nexusmem_b;
SET ROLE regress_nexusmem_b;
SELECT map_put('a', 'k', 'b');
RESET ROLE;
REVOKE regress_nexusmem_group FROM regress_nexusmem_b;
SET ROLE regress_nexusmem_b;
SELECT map_put('a', 'k', 'b');
RESET ROLE;
GRANT regress_nexusmem_a TO regress_nexusmem_c;
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k'), stack_pop('a'), stack_drop('a'), share('queue', 'a', 'regress_nexusmem_b', 'write');
RESET ROLE;
REVOKE regress_nexusmem_a FROM regress_nexusmem_c;
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');
RESET ROLE;
-- one call site sees it too
CREATE FUNCTION peek() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN map_get('a', 'k');
EXCEPTION WHEN insufficient_privilege THEN
	RETURN 'denied';
END $$;
CREATE FUNCTION peek_in_turns() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 2 LOOP
		SET LOCAL ROLE regress_nexusmem_b;
		RETURN NEXT peek();
		RESET ROLE;
		RETURN NEXT peek();
		PERFORM share('map', 'a', 'regress_nexusmem_b', 'read');
		SET LOCAL ROLE regress_nexusmem_b;
		RETURN NEXT peek();
		RESET ROLE;
		PERFORM unshare('map', 'a', 'regress_nexusmem_b');
	END LOOP;
END $$;
SELECT * FROM peek_in_turns();
-- a superuser no more
ALTER ROLE regress_nexusmem_c SUPERUSER;
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');
RESET ROLE;
ALTER ROLE regress_nexusmem_c NOSUPERUSER;
SET ROLE regress_nexusmem_c;
SELECT map_get('a', 'k');
RESET ROLE;
-- a definer's function lends its owner's
CREATE FUNCTION lent() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = nexusmem AS $$ SELECT map_get('a', 'k') $$;
SET ROLE regress_nexusmem_c;
SELECT lent();
RESET ROLE;
DROP FUNCTION lent();

-- no more roles than there is room for
DO $$ BEGIN FOR i IN 1 .. 64 LOOP EXECUTE 'CREATE ROLE regress_nexusmem_r' || i; END LOOP; END $$;
SELECT count(*) FROM generate_series(1, 63) AS i WHERE share('map', 'a', ('regress_nexusmem_r' || i)::regrole, 'read');
SELECT share('map', 'a', 'regress_nexusmem_r64', 'read');
SELECT unshare('map', 'a', 'regress_nexusmem_r63'), share('map', 'a', 'regress_nexusmem_r64', 'write');
SET ROLE regress_nexusmem_r64;
SELECT map_put('a', 'k', 'r');
SET ROLE regress_nexusmem_r63;
SELECT map_put('a', 'k', 'r');
RESET ROLE;
SELECT count(*) FROM generate_series(1, 64) AS i WHERE unshare('map', 'a', ('regress_nexusmem_r' || i)::regrole);
DO $$ BEGIN FOR i IN 1 .. 64 LOOP EXECUTE 'DROP ROLE regress_nexusmem_r' || i; END LOOP; END $$;

-- settings
SET ROLE regress_nexusmem_a;
SET nexusmem.role_limit = '1GB';
SET nexusmem.enable_lock_free_structures = off;
RESET ROLE;
SET nexusmem.enable_lock_free_structures = off;
ALTER ROLE regress_nexusmem_a SET nexusmem.role_limit = '1MB';
\set VERBOSITY sqlstate
SET nexusmem.role_limit = -2;
\set VERBOSITY terse
GRANT SET ON PARAMETER nexusmem.role_limit TO regress_nexusmem_a;
SET ROLE regress_nexusmem_a;
-- a role's structures count, wherever they are written from
SET nexusmem.role_limit = '4kB';
SELECT map_put('a', 'long', repeat('x', 10000));
SELECT map_put('a', 'short', repeat('x', 100));
SELECT queue_push('a', repeat('x', 10000));
SELECT queue_push('a', repeat('x', 100));
RESET ROLE;
SELECT map_put('a', 'long', repeat('x', 10000));
SELECT queue_push('a', repeat('x', 10000));
-- how much it has is for those who may see all of its structures
SELECT share('map', 'a', r, 'write') FROM unnest('{regress_nexusmem_b,regress_nexusmem_stats}'::regrole[]) AS r;
CREATE FUNCTION told() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM map_put('a', 'long', repeat('x', 10000));
	RETURN NULL;
EXCEPTION WHEN configuration_limit_exceeded THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(detail, '\d+', 'n', 'g');
END $$;
SELECT told();
SET ROLE regress_nexusmem_a;
SELECT told();
SET ROLE regress_nexusmem_stats;
SELECT told();
SET ROLE regress_nexusmem_b;
SELECT told();
-- another role's is another sum
SET ROLE regress_nexusmem_c;
SELECT counter_add('c');
RESET ROLE;
RESET nexusmem.role_limit;
REVOKE SET ON PARAMETER nexusmem.role_limit FROM regress_nexusmem_a;

SELECT counter_drop('a'), map_drop('a'), queue_drop('a'), counter_drop('c');
SELECT count(*) FROM structures;
REVOKE USAGE ON SCHEMA nexusmem FROM PUBLIC;
DROP FUNCTION peek(), peek_in_turns(), told();
DROP ROLE regress_nexusmem_a, regress_nexusmem_b, regress_nexusmem_c, regress_nexusmem_group, regress_nexusmem_stats;
