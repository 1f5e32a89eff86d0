-- Bad input: a clear error, or nothing; never a crash.
\set SHOW_CONTEXT never
SET lc_messages = 'C';
SELECT count(*) AS nodes FROM nexusmem.nodes \gset
CREATE OR REPLACE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$
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
	RETURN state || ' ' || sqlerrm ||
		CASE WHEN detail <> '' THEN ' (detail)' ELSE '' END ||
		CASE WHEN hint <> '' THEN ' (hint)' ELSE '' END;
END $$;

-- no such node
SELECT try('SELECT nexusmem.pin_backend(pg_backend_pid(), -1)');
SELECT try('SELECT nexusmem.pin_backend(pg_backend_pid(), -2147483648)');
SELECT try('SELECT nexusmem.pin_backend(pg_backend_pid(), 2147483647)');
SELECT try('SELECT nexusmem.pin_backend(pg_backend_pid(), 256)') ~ '^22023 node 256 does not exist \(detail\) \(hint\)$' AS ok;
SELECT regexp_replace(try('SELECT nexusmem.pin_backend(pg_backend_pid(), ' || :nodes || ')'), '\m' || :nodes || '\M', 'N', 'g');
-- no such process
SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1) AS postmaster \gset
SELECT try(format('SELECT nexusmem.pin_backend(%s, 0)', pid)) FROM unnest('{0,-1,1,2147483647,-2147483648}'::int[]) AS pid;
SELECT try(format('SELECT nexusmem.unpin_backend(%s)', pid)) FROM unnest('{0,-1,1,2147483647,-2147483648}'::int[]) AS pid;
SET client_min_messages = error;
SELECT nexusmem.pin_backend(:postmaster, 0) AS postmaster, nexusmem.unpin_backend(:postmaster) AS unpinned;
RESET client_min_messages;
-- both wrong
SELECT try('SELECT nexusmem.pin_backend(0, -1)') ~ '^22023 .* \(hint\)$' AS ok;
-- nothing of it was done
SELECT reason IN ('pin_backend') AS pinned FROM nexusmem.backends WHERE pid = pg_backend_pid();

-- strict
SELECT try(call) FROM (VALUES
	('SELECT nexusmem.pin_backend(NULL, 0)'),
	('SELECT nexusmem.pin_backend(pg_backend_pid(), NULL)'),
	('SELECT nexusmem.pin_backend(NULL, NULL)'),
	('SELECT nexusmem.unpin_backend(NULL)'),
	('SELECT count(*) FROM nexusmem.relation_nodes(NULL)')) AS x(call);

-- relation_nodes: a row a node, all zero where nothing is cached; an error where nothing can be, and no rows for what is gone
CREATE FUNCTION buffers(rel regclass) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN count(*) FILTER (WHERE node IS NOT NULL) <>
				(SELECT count(*) FROM nexusmem.nodes) THEN 'rows missing'
			WHEN sum(buffers) = 0 AND sum(bytes) = 0 THEN 'none'
			WHEN sum(buffers) > 0 AND bool_and(dirty BETWEEN 0 AND buffers)
				AND bool_and(split BETWEEN 0 AND buffers)
				AND (min(sampling) > 1 OR sum(bytes) = sum(buffers) * current_setting('block_size')::int)
				THEN 'some'
			ELSE 'wrong' END
	FROM nexusmem.relation_nodes(rel)
$$;
CREATE TABLE errors_table (id int PRIMARY KEY, t text);
INSERT INTO errors_table SELECT i, repeat('x', 100) FROM generate_series(1, 1000) AS i;
ALTER TABLE errors_table ALTER t SET STORAGE EXTERNAL;
INSERT INTO errors_table VALUES (0, repeat('x', 100000));
SELECT count(t) FROM errors_table;
CREATE VIEW errors_view AS SELECT * FROM errors_table;
CREATE MATERIALIZED VIEW errors_matview AS SELECT * FROM errors_table;
CREATE TABLE errors_partitioned (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE errors_partition PARTITION OF errors_partitioned FOR VALUES FROM (0) TO (1000000);
INSERT INTO errors_partitioned SELECT generate_series(0, 999);
CREATE TEMP TABLE errors_temp AS SELECT * FROM errors_table;
CREATE UNLOGGED TABLE errors_unlogged AS SELECT * FROM errors_table;
CREATE SEQUENCE errors_sequence;
SELECT nextval('errors_sequence');
CREATE TABLE errors_empty (id int);
SELECT rel, buffers(rel) FROM unnest(ARRAY['errors_table', 'errors_table_pkey',
	'errors_matview', 'errors_partition', 'errors_unlogged', 'errors_sequence',
	'errors_empty', 'pg_class', 'pg_attribute', 'pg_database', 'pg_authid', 'pg_proc',
	'pg_class_oid_index', 'pg_database_oid_index']::regclass[]) AS rel;
SELECT buffers(reltoastrelid) AS toast FROM pg_class WHERE relname = 'errors_table';
SELECT rel, try(format('SELECT count(*) FROM nexusmem.relation_nodes(%L)', rel)) FROM unnest('{errors_view,
	errors_partitioned,errors_partitioned_pkey,errors_temp,0,4294967295}'::text[]) AS rel;
SELECT try('SELECT count(*) FROM nexusmem.relation_nodes(''no_such_table'')');
-- of this relation alone
SELECT sum(n.buffers) <= pg_relation_size('errors_table') / current_setting('block_size')::int + 8 AS ok
FROM nexusmem.relation_nodes('errors_table') n;
-- with a new file and without one
TRUNCATE errors_unlogged;
SELECT buffers('errors_unlogged');
-- dropped meanwhile
SELECT 'errors_empty'::regclass::oid AS gone \gset
DROP TABLE errors_empty;
SELECT count(*) FROM nexusmem.relation_nodes(:gone);
-- behind a lock
BEGIN;
LOCK TABLE errors_table IN ACCESS EXCLUSIVE MODE;
SELECT buffers('errors_table');
ROLLBACK;

-- the functions behind the views, called by hand
SELECT count(*) FROM nexusmem.read_backend_nodes(NULL);
SELECT count(*) FROM nexusmem.read_backend_nodes('{}');
SELECT count(*) FROM nexusmem.read_backend_nodes('{NULL}');
SELECT count(*) FROM nexusmem.read_backend_nodes(ARRAY[pg_backend_pid()]);
SELECT count(*) FROM nexusmem.read_backend_nodes(ARRAY[ARRAY[pg_backend_pid()]]);
-- processes of others' are none of ours
SELECT count(*) FROM nexusmem.read_backend_nodes('{0,-1,1,2147483647,-2147483648}');

-- in all kinds of places
SELECT count(*) FROM generate_series(1, 3) AS i, LATERAL nexusmem.session_prefetch();
SELECT count(*) > 0 AS ok FROM nexusmem.status WHERE (SELECT nexusmem.my_node()) >= 0;
DO $$ BEGIN PERFORM * FROM nexusmem.nodes; PERFORM nexusmem.rebalance(); END $$;
BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) > 0 AS ok FROM nexusmem.backends;
SELECT nexusmem.stat_prefetch_reset();
COMMIT;
BEGIN;
SELECT 1 / 0;
SELECT nexusmem.my_node();
ROLLBACK;
\set VERBOSITY terse
SELECT nexusmem.my_node(1);
\set VERBOSITY default
SELECT nexusmem.my_node() >= 0 AS still_there;

DROP TABLE errors_table, errors_partitioned, errors_unlogged CASCADE;
DROP SEQUENCE errors_sequence;
DROP FUNCTION try(text), buffers(regclass);
