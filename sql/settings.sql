-- The settings: what they are, and what they refuse.
\set SHOW_CONTEXT never
SET lc_messages = 'C';

SELECT name, vartype, context, boot_val, min_val, max_val, enumvals, unit
FROM pg_settings
WHERE name LIKE 'nexusmem.%'
ORDER BY name COLLATE "C";
SELECT name AS without_description FROM pg_settings
WHERE name LIKE 'nexusmem.%' AND coalesce(short_desc, '') = '';

-- the errors' SQLSTATE, hint and detail
CREATE OR REPLACE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	detail text;
	hint text;
BEGIN
	EXECUTE sql;
	RETURN 'done';
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN state || ' ' || sqlerrm ||
		CASE WHEN detail <> '' THEN ' (detail)' ELSE '' END ||
		CASE WHEN hint <> '' THEN ' (hint)' ELSE '' END;
END $$;

-- a user's own
SELECT try('SET nexusmem.enable_prefetch = off');
SELECT try('SET nexusmem.enable_prefetch = maybe');
SELECT try('SET nexusmem.prefetch_distance = -2');
SELECT try('SET nexusmem.prefetch_distance = 1001');
SELECT try('SET nexusmem.prefetch_distance = 99999999999');
SELECT try('SET nexusmem.prefetch_distance = ''far''');
SELECT try('SET nexusmem.prefetch_distance = ''8kB''');
SELECT try('SET nexusmem.prefetch_distance = 1000');
SELECT try('SET nexusmem.prefetch_distance = 0');
SELECT try('SET nexusmem.prefetch_distance = -1');
SELECT try('SET nexusmem.enable_prefetch = on');

-- the superuser's
SELECT count(*) AS nodes FROM nexusmem.nodes \gset
SELECT try('SET nexusmem.preferred_node = -2');
SELECT try('SET nexusmem.preferred_node = 1000000');
SELECT regexp_replace(try('SET nexusmem.preferred_node = ' || :nodes), '\m' || :nodes || '\M', 'N', 'g');
SELECT try('SET nexusmem.preferred_node = ''first''');
SELECT try('SET nexusmem.preferred_node = 0');
SELECT try('RESET nexusmem.preferred_node');
-- kept for a role: a NOTICE, for a dump may be of a machine with more nodes
CREATE ROLE regress_nexusmem_settings;
SET client_min_messages = warning; -- it tells how many there are
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.preferred_node = ' || :nodes);
SELECT try('ALTER DATABASE ' || current_database() || ' SET nexusmem.preferred_node = ' || :nodes);
SELECT try('ALTER DATABASE ' || current_database() || ' RESET nexusmem.preferred_node');
RESET client_min_messages;
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.preferred_node = -2');
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.preferred_node = 0');
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.prefetch_distance = -7');
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.prefetch_distance = 7');

-- not in a session
SELECT try('SET nexusmem.enable_numa_optimizations = on');
SELECT try('SET nexusmem.scheduling_policy = round_robin');
SELECT try('SET nexusmem.num_nodes = 2');
SELECT try('SET nexusmem.node_source = even');
SELECT try('SET nexusmem.shared_buffers_placement = interleave');
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.num_nodes = 2');
SELECT try('ALTER ROLE regress_nexusmem_settings SET nexusmem.scheduling_policy = database');

-- unknown values, where the file is written
\set VERBOSITY sqlstate
ALTER SYSTEM SET nexusmem.scheduling_policy = 'fastest';
ALTER SYSTEM SET nexusmem.node_source = 'sockets';
ALTER SYSTEM SET nexusmem.shared_buffers_placement = 'everywhere';
ALTER SYSTEM SET nexusmem.enable_numa_optimizations = 'sometimes';
ALTER SYSTEM SET nexusmem.num_nodes = -1;
ALTER SYSTEM SET nexusmem.num_nodes = 1000000;
ALTER SYSTEM SET nexusmem.prefetch_distance = -2;
\set VERBOSITY default

-- a misspelt setting is told, where the library is preloaded
SELECT try('SET nexusmem.prefech_distance = 7') ~ '^42' AS refused;

-- like any setting: transactions, functions
BEGIN;
SET LOCAL nexusmem.prefetch_distance = 5;
SAVEPOINT s;
SET nexusmem.prefetch_distance = 6;
ROLLBACK TO s;
SHOW nexusmem.prefetch_distance;
COMMIT;
SHOW nexusmem.prefetch_distance;
CREATE FUNCTION distance_inside() RETURNS text LANGUAGE sql
SET nexusmem.prefetch_distance = 9
AS $$ SELECT current_setting('nexusmem.prefetch_distance') $$;
SELECT distance_inside(), current_setting('nexusmem.prefetch_distance');

-- status follows the session's own settings
SELECT state FROM nexusmem.status WHERE feature = 'index look-ahead';
SET nexusmem.enable_prefetch = off;
SELECT state, hint FROM nexusmem.status WHERE feature = 'index look-ahead';
RESET nexusmem.enable_prefetch;
SET nexusmem.prefetch_distance = 0;
SELECT state, hint FROM nexusmem.status WHERE feature = 'index look-ahead';
RESET nexusmem.prefetch_distance;
-- where somebody has set it, the server's own setting tells
SET effective_io_concurrency = 0;
SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'index look-ahead';
SET nexusmem.prefetch_distance = 8;
SELECT state FROM nexusmem.status WHERE feature = 'index look-ahead';
RESET nexusmem.prefetch_distance;
RESET effective_io_concurrency;
SELECT state FROM nexusmem.status WHERE feature = 'index look-ahead';
-- nested loops have their own setting, and share the distance
SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'nested loop look-ahead';
SET nexusmem.enable_nestloop_prefetch = on;
SET nexusmem.enable_prefetch = off;
SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'nested loop look-ahead';
RESET nexusmem.enable_prefetch;
SET nexusmem.prefetch_distance = 0;
SELECT state, hint FROM nexusmem.status WHERE feature = 'nested loop look-ahead';
RESET nexusmem.prefetch_distance;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'nested loop look-ahead';
COMMIT;
RESET nexusmem.enable_nestloop_prefetch;
-- states are the three of the surface, with a reason; what can be done is told
SELECT feature, state, detail FROM nexusmem.status
WHERE state NOT IN ('active', 'degraded', 'off') OR coalesce(detail, '') = '';
SELECT feature FROM nexusmem.status WHERE state = 'degraded' AND hint IS NULL;
SELECT feature FROM nexusmem.status ORDER BY feature COLLATE "C";

DROP FUNCTION distance_inside();
DROP FUNCTION try(text);
DROP ROLE regress_nexusmem_settings;
