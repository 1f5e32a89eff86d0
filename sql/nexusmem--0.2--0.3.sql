/* sql/nexusmem--0.2--0.3.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION nexusmem UPDATE TO '0.3'" to load this file. \quit

-- Learned look-ahead

CREATE FUNCTION nexusmem.predictor_predict(rel regclass, block bigint)
RETURNS TABLE (relid oid, block bigint, confidence real)
AS 'MODULE_PATHNAME', 'nxm_sql_predictor_predict'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.predictor_predict(regclass, bigint) IS
'blocks of this database that were missed after this one, of relations that one may read, the likeliest first';

CREATE FUNCTION nexusmem.predictor_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_predictor_reset'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.predictor_reset() IS
'forgets all recorded sequences, those of all databases and those in the file';

REVOKE ALL ON FUNCTION nexusmem.predictor_reset() FROM PUBLIC;

-- With whom structures are shared

CREATE FUNCTION nexusmem.read_sharing(OUT kind text, OUT name text,
	OUT grantee oid, OUT privilege text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_sharing'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_sharing() IS
'behind the view sharing';

CREATE VIEW nexusmem.sharing AS
SELECT s.kind, s.name, pg_catalog.pg_get_userbyid(s.grantee) AS grantee, s.privilege
FROM nexusmem.read_sharing() s;
COMMENT ON VIEW nexusmem.sharing IS
'what share() gave to whom, of the rows of the view structures: a row for each privilege; grantee NULL: everyone with USAGE on the schema; write includes read';

GRANT SELECT ON nexusmem.sharing TO PUBLIC;

COMMENT ON VIEW nexusmem.node_memory IS
'memory of the shared structures and of the caches, by node, and of the learned sequences: address space, memory behind it, and, asked of the kernel, how much of it lies on the node''s memories and how much there is; NULL: the kernel would not tell; node NULL: bound to none';

COMMENT ON VIEW nexusmem.stat_prefetch IS
'blocks read ahead, by table and kind of look-ahead: asked for, reached by the scan, never reached, and passed over since they were there; of kind learned by index too';

-- What was not told before

COMMENT ON SCHEMA nexusmem IS
'nexusmem: NUMA placement, index look-ahead, shared-memory structures and caches';

COMMENT ON FUNCTION nexusmem.cache_mset(text[], text[], interval, text) IS
'stores many text values; returns for how many there was room';

COMMENT ON FUNCTION nexusmem.cache_expire(text, interval, text) IS
'lets a key expire after another time, NULL: after the cache''s default; false: there is no such key, or there was no room for the time, and the key was removed';

COMMENT ON FUNCTION nexusmem.relation_nodes(regclass) IS
'where the valid buffers of one relation lie, those of its indexes and its TOAST table not counted';

COMMENT ON FUNCTION nexusmem.pin_backend(int, int) IS
'pins a server process to a node, until unpin_backend() or its end; false: it could not be, or there is no such process, and a warning says which';

COMMENT ON FUNCTION nexusmem.unpin_backend(int) IS
'gives a server process the CPUs of the postmaster, until it is pinned again or ends; false: it was on no node, or, with a warning, there is no such process';
