/* sql/nexusmem--0.1.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION nexusmem" to load this file. \quit

-- Status

CREATE FUNCTION nexusmem.read_status(OUT feature text, OUT state text,
	OUT detail text, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_status'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_status() IS
'behind the view status';

CREATE VIEW nexusmem.status AS SELECT * FROM nexusmem.read_status();
COMMENT ON VIEW nexusmem.status IS
'what is active, degraded or off, why, and what to do about it';

-- Topology and placement

CREATE FUNCTION nexusmem.read_nodes(OUT node int, OUT cpus text,
	OUT cpu_count int, OUT memory_bytes bigint, OUT free_bytes bigint,
	OUT distances int[], OUT source text, OUT backends int)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_nodes'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_nodes() IS
'behind the view nodes';

CREATE VIEW nexusmem.nodes AS SELECT * FROM nexusmem.read_nodes();
COMMENT ON VIEW nexusmem.nodes IS
'nodes of this server: their CPUs, memory, distances, and the backends placed on them';

CREATE FUNCTION nexusmem.read_backend_nodes(pids int[], OUT pid int,
	OUT node int, OUT reason text, OUT cpus_allowed text, OUT current_cpu int)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_backend_nodes'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_backend_nodes(int[]) IS
'behind the view backends: home and affinity of the given server processes';

CREATE VIEW nexusmem.backends AS
WITH activity AS MATERIALIZED (
	SELECT a.pid, a.backend_type, a.datname, a.usename
	FROM pg_catalog.pg_stat_activity a
	WHERE a.usesysid IS NULL
		OR pg_catalog.pg_has_role(a.usesysid, 'USAGE')
		OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
)
SELECT a.pid, a.backend_type, a.datname, a.usename, n.node, n.reason,
	n.cpus_allowed, n.current_cpu
FROM activity a
JOIN nexusmem.read_backend_nodes(
	(SELECT pg_catalog.array_agg(b.pid) FROM activity b)) n
	ON n.pid OPERATOR(pg_catalog.=) a.pid;
COMMENT ON VIEW nexusmem.backends IS
'server processes: the node each is placed on and why, the CPUs it may use and the one it uses';

CREATE FUNCTION nexusmem.my_node()
RETURNS int
AS 'MODULE_PATHNAME', 'nxm_my_node'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.my_node() IS
'node of this session, or of the CPU it runs on where it is not pinned';

CREATE FUNCTION nexusmem.pin_backend(pid int, node int)
RETURNS bool
AS 'MODULE_PATHNAME', 'nxm_pin_backend'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.pin_backend(int, int) IS
'pins a server process to a node, until unpin_backend()';

CREATE FUNCTION nexusmem.unpin_backend(pid int)
RETURNS bool
AS 'MODULE_PATHNAME', 'nxm_unpin_backend'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.unpin_backend(int) IS
'gives a server process its original CPUs back, for good; false where it was not pinned';

CREATE FUNCTION nexusmem.rebalance()
RETURNS int
AS 'MODULE_PATHNAME', 'nxm_rebalance'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.rebalance() IS
'moves backends that nexusmem.scheduling_policy placed off overfull nodes; returns how many';

CREATE FUNCTION nexusmem.read_shared_buffers_nodes(OUT node int,
	OUT buffers bigint, OUT bytes bigint, OUT dirty bigint, OUT split bigint,
	OUT sampling int)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_shared_buffers_nodes'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_shared_buffers_nodes() IS
'behind the view shared_buffers_nodes';

CREATE VIEW nexusmem.shared_buffers_nodes AS
SELECT * FROM nexusmem.read_shared_buffers_nodes();
COMMENT ON VIEW nexusmem.shared_buffers_nodes IS
'where valid buffers lie, asked of the kernel; node NULL: it would not tell; sampling n: one buffer in n was asked about';

CREATE FUNCTION nexusmem.relation_nodes(rel regclass, OUT node int,
	OUT buffers bigint, OUT bytes bigint, OUT dirty bigint, OUT split bigint,
	OUT sampling int)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_relation_nodes'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.relation_nodes(regclass) IS
'where the valid buffers of one relation lie';

-- Lock-free structures
--
-- A NULL argument is an error of its own, so that none is STRICT.  Those that only
-- read may run in parallel workers.

CREATE FUNCTION nexusmem.counter_add(name text, delta bigint DEFAULT 1)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_counter_add'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.counter_add(text, bigint) IS
'adds to a counter, which is created if need be, and returns its new value, NULL for a striped one';

CREATE FUNCTION nexusmem.counter_get(name text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_counter_get'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.counter_get(text) IS
'value of a counter, NULL where there is none';

CREATE FUNCTION nexusmem.counter_set(name text, value bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_counter_set'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.counter_set(text, bigint) IS
'sets a counter, which is created if need be, and returns its old value';

CREATE FUNCTION nexusmem.counter_create(name text, striped boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_counter_create'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.counter_create(text, boolean) IS
'creates a counter, a striped one spread over nodes; false: there is one of that name';

CREATE FUNCTION nexusmem.counter_drop(name text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_counter_drop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.counter_drop(text) IS
'drops a counter; false: there was none';

CREATE FUNCTION nexusmem.counter_drain(pattern text DEFAULT '%', OUT name text, OUT value bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_sql_counter_drain'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.counter_drain(text) IS
'reads and zeroes each counter with a name LIKE the pattern that one may write to; added back should the transaction abort';

CREATE FUNCTION nexusmem.map_put(map text, key text, value text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_put_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_put(text, text, text) IS
'puts a value into a map, which is created if need be; true: the key is new';

CREATE FUNCTION nexusmem.map_put(map text, key text, value bytea)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_put_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_put(text, text, bytea) IS
'puts a value into a map, which is created if need be; true: the key is new';

CREATE FUNCTION nexusmem.map_put(map text, key text, value jsonb)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_put_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_put(text, text, jsonb) IS
'puts a value into a map, which is created if need be; true: the key is new';

CREATE FUNCTION nexusmem.map_get(map text, key text)
RETURNS text
AS 'MODULE_PATHNAME', 'nxm_sql_map_get_text'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.map_get(text, text) IS
'text value of a key in a map, NULL where there is none';

CREATE FUNCTION nexusmem.map_get_bytea(map text, key text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'nxm_sql_map_get_bytea'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.map_get_bytea(text, text) IS
'bytea value of a key in a map, NULL where there is none';

CREATE FUNCTION nexusmem.map_get_jsonb(map text, key text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'nxm_sql_map_get_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.map_get_jsonb(text, text) IS
'jsonb value of a key in a map, NULL where there is none';

CREATE FUNCTION nexusmem.map_put_if(map text, key text, expected text, value text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_put_if_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_put_if(text, text, text, text) IS
'puts a value in place of the expected one, or, where that is NULL, only if the key is absent; false: it is not as expected';

CREATE FUNCTION nexusmem.map_put_if(map text, key text, expected bytea, value bytea)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_put_if_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_put_if(text, text, bytea, bytea) IS
'puts a value in place of the expected one, or, where that is NULL, only if the key is absent; false: it is not as expected';

CREATE FUNCTION nexusmem.map_put_if(map text, key text, expected jsonb, value jsonb)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_put_if_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_put_if(text, text, jsonb, jsonb) IS
'puts a value in place of the expected one, or, where that is NULL, only if the key is absent; false: it is not as expected';

CREATE FUNCTION nexusmem.map_delete(map text, key text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_delete'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_delete(text, text) IS
'removes a key from a map; false: there was none';

CREATE FUNCTION nexusmem.map_add(map text, key text, delta bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_map_add'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_add(text, text, bigint) IS
'adds to the decimal number that a key has as text, 0 where there is none, and returns the sum';

CREATE FUNCTION nexusmem.map_size(map text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_map_size'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.map_size(text) IS
'number of keys in a map, 0 where there is no such map';

CREATE FUNCTION nexusmem.map_entries(map text, OUT key text, OUT value text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_sql_map_entries'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.map_entries(text) IS
'keys and values of a map, bytea and jsonb in their text form; a key that is there throughout is returned once';

CREATE FUNCTION nexusmem.map_clear(map text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_map_clear'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_clear(text) IS
'removes all keys from a map; returns how many there were';

CREATE FUNCTION nexusmem.map_drop(map text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_map_drop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.map_drop(text) IS
'drops a map; false: there was none';

CREATE FUNCTION nexusmem.stack_push(stack text, value text)
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_stack_push_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_push(text, text) IS
'pushes a value to a stack, which is created if need be';

CREATE FUNCTION nexusmem.stack_push(stack text, value bytea)
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_stack_push_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_push(text, bytea) IS
'pushes a value to a stack, which is created if need be';

CREATE FUNCTION nexusmem.stack_push(stack text, value jsonb)
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_stack_push_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_push(text, jsonb) IS
'pushes a value to a stack, which is created if need be';

CREATE FUNCTION nexusmem.stack_pop(stack text)
RETURNS text
AS 'MODULE_PATHNAME', 'nxm_sql_stack_pop_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_pop(text) IS
'takes the text value that was pushed last from a stack, NULL where it is empty';

CREATE FUNCTION nexusmem.stack_pop_bytea(stack text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'nxm_sql_stack_pop_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_pop_bytea(text) IS
'takes the bytea value that was pushed last from a stack, NULL where it is empty';

CREATE FUNCTION nexusmem.stack_pop_jsonb(stack text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'nxm_sql_stack_pop_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_pop_jsonb(text) IS
'takes the jsonb value that was pushed last from a stack, NULL where it is empty';

CREATE FUNCTION nexusmem.stack_depth(stack text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_stack_depth'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.stack_depth(text) IS
'number of values on a stack, 0 where there is no such stack';

CREATE FUNCTION nexusmem.stack_drop(stack text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_stack_drop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stack_drop(text) IS
'drops a stack; false: there was none';

CREATE FUNCTION nexusmem.queue_push(queue text, value text)
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_queue_push_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_push(text, text) IS
'pushes a value to a queue, which is created if need be';

CREATE FUNCTION nexusmem.queue_push(queue text, value bytea)
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_queue_push_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_push(text, bytea) IS
'pushes a value to a queue, which is created if need be';

CREATE FUNCTION nexusmem.queue_push(queue text, value jsonb)
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_sql_queue_push_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_push(text, jsonb) IS
'pushes a value to a queue, which is created if need be';

CREATE FUNCTION nexusmem.queue_pop(queue text)
RETURNS text
AS 'MODULE_PATHNAME', 'nxm_sql_queue_pop_text'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_pop(text) IS
'takes the text value that was pushed first from a queue, NULL where it is empty';

CREATE FUNCTION nexusmem.queue_pop_bytea(queue text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'nxm_sql_queue_pop_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_pop_bytea(text) IS
'takes the bytea value that was pushed first from a queue, NULL where it is empty';

CREATE FUNCTION nexusmem.queue_pop_jsonb(queue text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'nxm_sql_queue_pop_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_pop_jsonb(text) IS
'takes the jsonb value that was pushed first from a queue, NULL where it is empty';

CREATE FUNCTION nexusmem.queue_length(queue text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'nxm_sql_queue_length'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION nexusmem.queue_length(text) IS
'number of values in a queue, 0 where there is no such queue';

CREATE FUNCTION nexusmem.queue_drop(queue text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_sql_queue_drop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.queue_drop(text) IS
'drops a queue; false: there was none';

CREATE FUNCTION nexusmem.share(kind text, name text, role regrole, privilege text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_share'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.share(text, text, regrole, text) IS
'lets a role (NULL: everyone with USAGE on the schema) read or write a structure; false: it may already';

CREATE FUNCTION nexusmem.unshare(kind text, name text, role regrole,
	privilege text DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'nxm_unshare'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.unshare(text, text, regrole, text) IS
'takes back what share() gave a role: write, or read and with it write; NULL: both; false: there was nothing';

CREATE FUNCTION nexusmem.read_structures(OUT kind text, OUT name text,
	OUT owner oid, OUT node int, OUT entries bigint, OUT bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_structures'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_structures() IS
'behind the view structures';

CREATE VIEW nexusmem.structures AS
SELECT s.kind, s.name, pg_catalog.pg_get_userbyid(s.owner) AS owner, s.node,
	s.entries, s.bytes
FROM nexusmem.read_structures() s;
COMMENT ON VIEW nexusmem.structures IS
'counters, maps, stacks and queues of this database that one may read, or all for pg_read_all_stats; bytes: of the structure and its entries, without a map''s index';

GRANT SELECT ON nexusmem.structures TO PUBLIC;

-- Prefetch

CREATE FUNCTION nexusmem.read_stat_prefetch(OUT dbid oid, OUT relid oid,
	OUT kind text, OUT issued bigint, OUT used bigint, OUT wasted bigint,
	OUT skipped bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_stat_prefetch'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_stat_prefetch() IS
'behind the view stat_prefetch';

CREATE VIEW nexusmem.stat_prefetch AS
SELECT d.datname, s.relid, s.kind, s.issued, s.used, s.wasted, s.skipped
FROM nexusmem.read_stat_prefetch() s
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.dbid;
COMMENT ON VIEW nexusmem.stat_prefetch IS
'blocks read ahead, by table: issued = used + wasted; skipped were found cached';

CREATE FUNCTION nexusmem.stat_prefetch_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'nxm_stat_prefetch_reset'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.stat_prefetch_reset() IS
'forgets what stat_prefetch shows';

CREATE FUNCTION nexusmem.session_prefetch(OUT kind text, OUT issued bigint,
	OUT used bigint, OUT wasted bigint, OUT skipped bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_session_prefetch_stats'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.session_prefetch() IS
'blocks that this session has read ahead since it began; wasted ones are known at the end of their transaction';

-- Whoever is given USAGE on the schema may look; changing the server is for
-- superusers until they grant it.
REVOKE ALL ON FUNCTION nexusmem.pin_backend(int, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION nexusmem.unpin_backend(int) FROM PUBLIC;
REVOKE ALL ON FUNCTION nexusmem.rebalance() FROM PUBLIC;
REVOKE ALL ON FUNCTION nexusmem.stat_prefetch_reset() FROM PUBLIC;

GRANT SELECT ON nexusmem.status, nexusmem.nodes, nexusmem.backends,
	nexusmem.shared_buffers_nodes, nexusmem.stat_prefetch TO PUBLIC;
-- What others granted on the schema before would count as granted here, and pg_dump
-- would leave it out.  (By a function, since there may be no language for DO.)
CREATE FUNCTION nexusmem.grant_usage() RETURNS void
AS 'GRANT USAGE ON SCHEMA nexusmem TO pg_monitor' LANGUAGE sql;
SELECT nexusmem.grant_usage() FROM pg_catalog.pg_namespace n
WHERE n.nspname OPERATOR(pg_catalog.=) 'nexusmem' AND n.nspacl IS NULL;
DROP FUNCTION nexusmem.grant_usage();

-- Node memory

CREATE FUNCTION nexusmem.read_node_memory(OUT node int, OUT owner text,
	OUT reserved_bytes bigint, OUT used_bytes bigint,
	OUT on_node_bytes bigint, OUT resident_bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'nxm_node_memory'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION nexusmem.read_node_memory() IS
'behind the view node_memory';

CREATE VIEW nexusmem.node_memory AS SELECT * FROM nexusmem.read_node_memory();
COMMENT ON VIEW nexusmem.node_memory IS
'memory of the shared structures, by node: address space, memory behind it, and, asked of the kernel, how much of it lies on the node''s memories and how much there is; NULL: the kernel would not tell';

GRANT SELECT ON nexusmem.node_memory TO PUBLIC;
