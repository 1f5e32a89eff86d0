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
'blocks that this session has read ahead since it began';

-- Whoever is given USAGE on the schema may look; changing the server is for
-- superusers until they grant it.
REVOKE ALL ON FUNCTION nexusmem.pin_backend(int, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION nexusmem.unpin_backend(int) FROM PUBLIC;
REVOKE ALL ON FUNCTION nexusmem.rebalance() FROM PUBLIC;
REVOKE ALL ON FUNCTION nexusmem.stat_prefetch_reset() FROM PUBLIC;

GRANT SELECT ON nexusmem.status, nexusmem.nodes, nexusmem.backends,
	nexusmem.shared_buffers_nodes, nexusmem.stat_prefetch TO PUBLIC;
GRANT USAGE ON SCHEMA nexusmem TO pg_monitor;

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
