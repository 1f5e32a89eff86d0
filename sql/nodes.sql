-- The view nodes and what else tells the topology, on any machine.
SELECT array_agg(node ORDER BY node) = array_agg(n ORDER BY node) AS numbered_from_0
FROM (SELECT node, (row_number() OVER (ORDER BY node) - 1)::int AS n FROM nexusmem.nodes) x;

-- each node's distances: one a node, itself nearest, the same both ways
SELECT count(*) AS wrong FROM nexusmem.nodes, (SELECT count(*) AS n FROM nexusmem.nodes) c
WHERE cardinality(distances) <> n;
SELECT count(*) AS wrong FROM nexusmem.nodes, unnest(distances) AS d
WHERE d < distances[node + 1] OR d < 10 OR d > 255;

-- a node has CPUs, or memory, or both; at least one has CPUs
SELECT count(*) AS wrong FROM nexusmem.nodes
WHERE cpu_count < 0 OR cpu_count = 0 AND coalesce(memory_bytes, 0) = 0
	OR (cpu_count > 0) <> (cpus <> '');
SELECT sum(cpu_count) > 0 AS some_cpus, sum(memory_bytes) > 0 AS some_memory FROM nexusmem.nodes;
SELECT count(*) AS wrong FROM nexusmem.nodes
WHERE free_bytes < 0 OR backends < 0;
SELECT count(DISTINCT source) AS sources FROM nexusmem.nodes;
SELECT count(*) AS wrong FROM nexusmem.nodes WHERE source NOT IN ('numa', 'cache', 'even');

-- the lists of CPUs say as many as are counted
CREATE FUNCTION pg_temp.cpus(list text) RETURNS SETOF int LANGUAGE sql AS $$
	SELECT generate_series(split_part(r, '-', 1)::int,
						   CASE WHEN r LIKE '%-%' THEN split_part(r, '-', 2)
								ELSE r END::int)
	FROM unnest(string_to_array(nullif(list, ''), ',')) AS r
$$;
SELECT count(*) AS wrong FROM nexusmem.nodes n
WHERE cpu_count <> (SELECT count(*) FROM pg_temp.cpus(n.cpus));

-- this session: on a node, and in the view once
SELECT nexusmem.my_node() IN (SELECT node FROM nexusmem.nodes WHERE cpu_count > 0) AS ok;
SELECT count(*), bool_and(backend_type = 'client backend') AS type,
	bool_and(datname = current_database()) AS datname,
	bool_and(usename = current_user) AS usename,
	bool_and(node IS NULL OR node IN (SELECT node FROM nexusmem.nodes)) AS node,
	bool_and(reason <> '') AS reason,
	bool_and(cpus_allowed <> '') AS cpus_allowed,
	bool_and(current_cpu IN (SELECT pg_temp.cpus(cpus_allowed))) AS current_cpu
FROM nexusmem.backends WHERE pid = pg_backend_pid();
-- background processes are told too, none twice
SELECT count(*) = count(DISTINCT pid) AS once,
	bool_or(backend_type = 'checkpointer') AS checkpointer,
	count(*) FILTER (WHERE backend_type = 'nexusmem') AS worker
FROM nexusmem.backends;
-- what nodes counts and what backends lists agree
SELECT n.node, n.backends, b.backends
FROM nexusmem.nodes n
LEFT JOIN (SELECT node, count(*) AS backends FROM nexusmem.backends
		   WHERE node IS NOT NULL AND reason NOT IN ('background')
		   GROUP BY node) b USING (node)
WHERE n.backends <> coalesce(b.backends, 0);

-- pinned by hand, whatever the policy: here, back, and no trace of it in the load
SELECT node, cpus AS node_cpus FROM nexusmem.nodes WHERE cpu_count > 0 ORDER BY node DESC LIMIT 1 \gset
SELECT sum(backends) AS before FROM nexusmem.nodes \gset
SELECT node AS home FROM nexusmem.backends WHERE pid = pg_backend_pid() \gset
SELECT nexusmem.pin_backend(pg_backend_pid(), :node);
SELECT nexusmem.my_node() = :node AS ok;
SELECT node = :node AS node, reason,
	ARRAY(SELECT pg_temp.cpus(cpus_allowed)) <@ ARRAY(SELECT pg_temp.cpus(:'node_cpus')) AS cpus
FROM nexusmem.backends WHERE pid = pg_backend_pid();
SELECT nexusmem.pin_backend(pg_backend_pid(), :node) AS again;
SELECT sum(backends) - :before IN (0, 1) AS counted_once FROM nexusmem.nodes;
-- moving backends about leaves what was done by hand
SELECT nexusmem.rebalance() >= 0 AS ok;
SELECT nexusmem.my_node() = :node AS ok;
-- not transactional
BEGIN;
SELECT nexusmem.unpin_backend(pg_backend_pid());
ROLLBACK;
SELECT node, reason FROM nexusmem.backends WHERE pid = pg_backend_pid();
SELECT nexusmem.unpin_backend(pg_backend_pid()) AS again;
SELECT sum(backends) <= :before AS given_back FROM nexusmem.nodes;
-- another process has the CPUs that the postmaster has
SELECT b.cpus_allowed = c.cpus_allowed AS original_cpus
FROM nexusmem.backends b, (SELECT array_to_string(array_agg(split_part(l, E'\t', 2)), '') AS cpus_allowed
	FROM regexp_split_to_table(pg_read_file('/proc/' || split_part(pg_read_file('postmaster.pid'), E'\n', 1) || '/status'), E'\n') AS l
	WHERE l LIKE 'Cpus_allowed_list:%') c
WHERE pid = pg_backend_pid();
-- a background process, too
SELECT pid AS checkpointer FROM nexusmem.backends WHERE backend_type = 'checkpointer' \gset
SELECT nexusmem.pin_backend(:checkpointer, :node);
SELECT node = :node AS node, reason FROM nexusmem.backends WHERE pid = :checkpointer;
SELECT nexusmem.unpin_backend(:checkpointer);
SELECT reason FROM nexusmem.backends WHERE pid = :checkpointer;

-- buffers: the node of each is told to a session that has yet to map them
\c -
SELECT coalesce(sum(buffers), 0) > 100 AND (SELECT detail !~ 'move_pages' FROM nexusmem.status WHERE feature = 'NUMA system calls') AS wrong
FROM nexusmem.shared_buffers_nodes WHERE node IS NULL;
-- none outside, and the view's sum is what pg_class of it says
SELECT count(*) = (SELECT count(*) FROM nexusmem.nodes) AS a_row_a_node
FROM nexusmem.shared_buffers_nodes WHERE node IS NOT NULL;
SELECT sum(buffers) > 0 AS some,
	sum(buffers) <= (SELECT setting::bigint FROM pg_settings WHERE name = 'shared_buffers') AS not_too_many,
	bool_and(sampling > 1 OR bytes >= 0) AS bytes,
	bool_and(dirty BETWEEN 0 AND buffers) AS dirty,
	bool_and(split BETWEEN 0 AND buffers) AS split,
	bool_and(sampling >= 1) AS sampling,
	bool_or(sampling > 1) OR sum(bytes) = sum(buffers) * current_setting('block_size')::int AS bytes_of_buffers
FROM nexusmem.shared_buffers_nodes;
