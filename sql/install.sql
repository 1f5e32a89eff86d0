-- What CREATE EXTENSION makes: names, types, marks, comments.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS nexusmem;
RESET client_min_messages;

CREATE EXTENSION nexusmem;
SELECT extversion, extrelocatable, nspname
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE extname = 'nexusmem';

-- everything of the extension's is in its schema
SELECT pg_describe_object(classid, objid, objsubid) AS outside
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'nexusmem')
	AND CASE classid
		WHEN 'pg_proc'::regclass THEN (SELECT pronamespace FROM pg_proc WHERE oid = objid)
		WHEN 'pg_class'::regclass THEN (SELECT relnamespace FROM pg_class WHERE oid = objid)
		ELSE 'nexusmem'::regnamespace END <> 'nexusmem'::regnamespace;

-- a comment on everything that can be called or read
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment
FROM pg_depend d
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'nexusmem')
	AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
	AND coalesce(obj_description(objid, classid::regclass::name), '') = '';
SELECT obj_description(oid, 'pg_extension') IS NOT NULL AS extension_has_comment
FROM pg_extension WHERE extname = 'nexusmem';
SELECT obj_description('nexusmem'::regnamespace, 'pg_namespace') IS NOT NULL AS schema_has_comment;

-- the views of the surface: columns in their order; more may follow
SELECT c.relname AS view,
	string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '
			   ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'nexusmem'::regnamespace AND c.relkind = 'v'
GROUP BY c.relname
ORDER BY c.relname COLLATE "C";

-- the functions
SELECT proname, pg_get_function_arguments(oid) AS arguments,
	pg_get_function_result(oid) AS result
FROM pg_proc
WHERE pronamespace = 'nexusmem'::regnamespace AND proname !~ '^read_'
ORDER BY proname COLLATE "C", pg_get_function_arguments(oid) COLLATE "C";
-- all depend on the session or on time
SELECT provolatile, proparallel, proisstrict, prosecdef, count(*) > 0 AS some
FROM pg_proc
WHERE pronamespace = 'nexusmem'::regnamespace
GROUP BY 1, 2, 3, 4;
-- parallel workers may run what reads, cache_fetch() lets there be none, the rest is the leader's
SELECT proparallel, oid::regprocedure AS function
FROM pg_proc
WHERE pronamespace = 'nexusmem'::regnamespace AND proparallel <> 'r'
ORDER BY proparallel, oid::regprocedure::text COLLATE "C";

-- what PUBLIC may execute, and who may look at the schema
SELECT proname
FROM pg_proc
WHERE pronamespace = 'nexusmem'::regnamespace AND proname !~ '^read_'
	AND NOT EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a
					WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
ORDER BY proname COLLATE "C";
SELECT has_schema_privilege('pg_monitor', 'nexusmem', 'USAGE') AS monitor,
	EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a
			WHERE n.nspname = 'nexusmem' AND a.grantee = 0) AS public;

-- every view can be read
SELECT count(*) > 0 AS ok FROM nexusmem.nodes;
SELECT count(*) > 0 AS ok FROM nexusmem.backends;
SELECT count(*) > 0 AS ok FROM nexusmem.status;
SELECT count(*) > 0 AS ok FROM nexusmem.shared_buffers_nodes;
SELECT count(*) >= 0 AS ok FROM nexusmem.sharing;
SELECT count(*) >= 0 AS ok FROM nexusmem.stat_prefetch;
SELECT count(*) > 0 AS ok FROM nexusmem.session_prefetch();

-- goes while a session uses it, and comes back; its schema stays, as
-- PostgreSQL leaves every schema that CREATE EXTENSION had to make
\set VERBOSITY sqlstate
BEGIN;
DROP EXTENSION nexusmem;
SELECT nexusmem.my_node();
ROLLBACK;
SELECT nexusmem.my_node() >= 0 AS there_after_rollback;
DROP EXTENSION nexusmem;
SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('nexusmem');
CREATE EXTENSION nexusmem;
SELECT nexusmem.my_node() >= 0 AS ok;
CREATE EXTENSION nexusmem;
ALTER EXTENSION nexusmem SET SCHEMA public;
DROP EXTENSION nexusmem;
DROP SCHEMA nexusmem;
CREATE EXTENSION nexusmem SCHEMA public;
CREATE EXTENSION nexusmem;
SELECT extname FROM pg_extension WHERE extname = 'nexusmem';
