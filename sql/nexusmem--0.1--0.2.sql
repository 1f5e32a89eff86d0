/* sql/nexusmem--0.1--0.2.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION nexusmem UPDATE TO '0.2'" to load this file. \quit

-- Cache

CREATE FUNCTION nexusmem.cache_set(key text, value text,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_cache_set_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_set(text, text, interval, text) IS
'stores a value, for a time or for good, in a cache, which is created if need be; other entries give way';

CREATE FUNCTION nexusmem.cache_set(key text, value bytea,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_cache_set_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_set(text, bytea, interval, text) IS
'stores a value, for a time or for good, in a cache, which is created if need be; other entries give way';

CREATE FUNCTION nexusmem.cache_set(key text, value jsonb,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_cache_set_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_set(text, jsonb, interval, text) IS
'stores a value, for a time or for good, in a cache, which is created if need be; other entries give way';

CREATE FUNCTION nexusmem.cache_add(key text, value text,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_add_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_add(text, text, interval, text) IS
'stores a value only if the key is absent; false: it is not, or there was no room';

CREATE FUNCTION nexusmem.cache_add(key text, value bytea,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_add_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_add(text, bytea, interval, text) IS
'stores a value only if the key is absent; false: it is not, or there was no room';

CREATE FUNCTION nexusmem.cache_add(key text, value jsonb,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_add_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_add(text, jsonb, interval, text) IS
'stores a value only if the key is absent; false: it is not, or there was no room';

CREATE FUNCTION nexusmem.cache_get(key text, cache text DEFAULT 'default')
RETURNS text
AS 'MODULE_PATHNAME', 'nxm_sql_cache_get_text'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.cache_get(text, text) IS
'the text value of a key in a cache, NULL where there is none or it has expired';

CREATE FUNCTION nexusmem.cache_get_bytea(key text, cache text DEFAULT 'default')
RETURNS bytea
AS 'MODULE_PATHNAME', 'nxm_sql_cache_get_bytea'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.cache_get_bytea(text, text) IS
'the bytea value of a key in a cache, NULL where there is none or it has expired';

CREATE FUNCTION nexusmem.cache_get_jsonb(key text, cache text DEFAULT 'default')
RETURNS jsonb
AS 'MODULE_PATHNAME', 'nxm_sql_cache_get_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.cache_get_jsonb(text, text) IS
'the jsonb value of a key in a cache, NULL where there is none or it has expired';

CREATE FUNCTION nexusmem.cache_mget(keys text[], cache text DEFAULT 'default')
RETURNS TABLE (key text, value text)
AS 'MODULE_PATHNAME', 'nxm_sql_cache_mget'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.cache_mget(text[], text) IS
'a row for each key, in their order, with its value in text form, NULL where there is none';

CREATE FUNCTION nexusmem.cache_mset(keys text[], "values" text[],
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS integer
AS 'MODULE_PATHNAME', 'nxm_sql_cache_mset'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_mset(text[], text[], interval, text) IS
'stores many text values; returns how many were';

CREATE FUNCTION nexusmem.cache_delete(key text, cache text DEFAULT 'default')
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_delete'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_delete(text, text) IS
'removes a key from a cache; false: there was none';

CREATE FUNCTION nexusmem.cache_ttl(key text, cache text DEFAULT 'default')
RETURNS interval
AS 'MODULE_PATHNAME', 'nxm_sql_cache_ttl'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.cache_ttl(text, text) IS
'time until a key expires, NULL where it does not or there is none';

CREATE FUNCTION nexusmem.cache_expire(key text, ttl interval,
	cache text DEFAULT 'default')
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_expire'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_expire(text, interval, text) IS
'lets a key expire after another time, NULL: after the cache''s default; false: there is no such key';

CREATE FUNCTION nexusmem.cache_clear(cache text DEFAULT 'default')
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_cache_clear'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_clear(text) IS
'removes all keys from a cache; returns how many there were';

CREATE FUNCTION nexusmem.cache_drop(cache text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_drop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_drop(text) IS
'drops a cache; false: there was none';

CREATE FUNCTION nexusmem.cache_create(cache text, max_bytes bigint DEFAULT NULL,
	default_ttl interval DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_cache_create'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.cache_create(text, bigint, interval) IS
'creates a cache with a limit of its own and a time to live for what is stored without one; false: there is one, which stays as it is';

CREATE FUNCTION nexusmem.read_stat_cache(OUT cache text, OUT node int,
	OUT entries bigint, OUT bytes bigint, OUT overhead_bytes bigint,
	OUT hits bigint, OUT misses bigint, OUT sets bigint, OUT evictions bigint,
	OUT expirations bigint, OUT local_hits bigint, OUT remote_hits bigint,
	OUT refusals bigint, OUT owner oid, OUT max_bytes bigint,
	OUT default_ttl_us bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_stat_cache'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_stat_cache() IS
'behind the view stat_cache';

CREATE VIEW nexusmem.stat_cache AS
SELECT s.cache, s.node, s.entries, s.bytes, s.overhead_bytes, s.hits, s.misses,
	s.sets, s.evictions, s.expirations, s.local_hits, s.remote_hits, s.refusals,
	pg_catalog.pg_get_userbyid(s.owner) AS owner, s.max_bytes,
	pg_catalog.justify_hours(pg_catalog.make_interval(secs =>
		s.default_ttl_us::double precision OPERATOR(pg_catalog./) 1000000)) AS default_ttl
FROM nexusmem.read_stat_cache() s;
COMMENT ON VIEW nexusmem.stat_cache IS
'caches of this database that one may read, or all for pg_read_all_stats, by partition: what is in them and what was done with them; node NULL: not bound to one';

CREATE FUNCTION nexusmem.stat_cache_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_stat_cache_reset'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stat_cache_reset() IS
'lets the counters of stat_cache begin at 0 again, of all caches of this database';

REVOKE ALL ON FUNCTION nexusmem.stat_cache_reset() FROM PUBLIC;
GRANT SELECT ON nexusmem.stat_cache TO PUBLIC;

-- What is of caches too now

COMMENT ON FUNCTION nexusmem.share(text, text, regrole, text) IS
'lets a role (NULL: everyone with USAGE on the schema) read or write a structure or a cache; false: it may already';
COMMENT ON VIEW nexusmem.structures IS
'counters, maps, stacks, queues and caches of this database that one may read, or all for pg_read_all_stats; bytes: of the structure and its entries, about; node NULL: a cache, see stat_cache';
COMMENT ON VIEW nexusmem.node_memory IS
'memory of the shared structures and of the caches, by node: address space, memory behind it, and, asked of the kernel, how much of it lies on the node''s memories and how much there is; NULL: the kernel would not tell; node NULL: bound to none';

-- Computing what is missing

CREATE FUNCTION nexusmem.cache_fetch(key text, query text,
	ttl interval DEFAULT NULL, cache text DEFAULT 'default')
RETURNS text
AS 'MODULE_PATHNAME', 'nxm_sql_cache_fetch'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION nexusmem.cache_fetch(text, text, interval, text) IS
'the value of a key; where it is missing, the single value of a query, run as the caller, by one of the sessions that miss it at once, and stored where others may see it';
