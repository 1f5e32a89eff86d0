-- Who may do what.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_nexusmem_user, regress_nexusmem_monitor;
RESET client_min_messages;
CREATE ROLE regress_nexusmem_user;
CREATE ROLE regress_nexusmem_monitor IN ROLE pg_monitor;

-- without USAGE on the schema: nothing
SET ROLE regress_nexusmem_user;
SELECT nexusmem.my_node();
SELECT * FROM nexusmem.nodes;
SELECT * FROM nexusmem.status;
SELECT * FROM nexusmem.backends;
SELECT * FROM nexusmem.session_prefetch();
SELECT nexusmem.pin_backend(pg_backend_pid(), 0);
RESET ROLE;

-- with it: one may look
GRANT USAGE ON SCHEMA nexusmem TO regress_nexusmem_user;
SET ROLE regress_nexusmem_user;
SELECT nexusmem.my_node() >= 0 AS ok;
SELECT count(*) > 0 AS ok FROM nexusmem.nodes;
SELECT count(*) > 0 AS ok FROM nexusmem.status;
SELECT count(*) >= 0 AS ok FROM nexusmem.backends;
SELECT count(*) > 0 AS ok FROM nexusmem.shared_buffers_nodes;
SELECT count(*) > 0 AS ok FROM nexusmem.relation_nodes('pg_class');
SELECT count(*) >= 0 AS ok FROM nexusmem.stat_prefetch;
SELECT count(*) > 0 AS ok FROM nexusmem.session_prefetch();
-- and change one's own look-ahead
SET nexusmem.enable_prefetch = off;
RESET nexusmem.enable_prefetch;
SET nexusmem.prefetch_distance = 8;
RESET nexusmem.prefetch_distance;
-- but not the server, not even for oneself
SELECT nexusmem.pin_backend(pg_backend_pid(), 0);
SELECT nexusmem.unpin_backend(pg_backend_pid());
SELECT nexusmem.rebalance();
SELECT nexusmem.stat_prefetch_reset();
SET nexusmem.preferred_node = 0;
ALTER ROLE regress_nexusmem_user SET nexusmem.preferred_node = 0;
SET nexusmem.enable_numa_optimizations = on;
SET nexusmem.scheduling_policy = database;
ALTER SYSTEM SET nexusmem.enable_numa_optimizations = on;
-- no views behind one's back
INSERT INTO nexusmem.nodes DEFAULT VALUES;
CREATE TABLE nexusmem.mine (i int);
CREATE FUNCTION nexusmem.my_node() RETURNS int LANGUAGE sql AS 'SELECT 1';
RESET ROLE;

-- this session belongs to the superuser who logged in; SET ROLE does not change that
SELECT pg_backend_pid() AS pid \gset
SET ROLE regress_nexusmem_user;
SELECT count(*) AS rows_of_others FROM nexusmem.backends WHERE pid = :pid;
SELECT count(*) AS named FROM nexusmem.backends WHERE usename IS NOT NULL AND usename <> current_user;
SELECT count(*) AS databases FROM nexusmem.backends WHERE datname IS NOT NULL;
-- not by the function behind the view either, and no process of others'
SELECT count(*) AS rows_of_others FROM nexusmem.read_backend_nodes(ARRAY[:pid]);
SELECT count(*) AS rows_of_init FROM nexusmem.read_backend_nodes(ARRAY[1]);
RESET ROLE;
SET ROLE regress_nexusmem_monitor;
SELECT count(*) AS rows_of_others FROM nexusmem.backends WHERE pid = :pid AND usename IS NOT NULL;
SELECT count(*) > 0 AS background FROM nexusmem.backends WHERE backend_type = 'checkpointer';
SELECT nexusmem.rebalance();
RESET ROLE;
SELECT count(*) AS own_row FROM nexusmem.backends WHERE pid = :pid;
-- logged in as that role: one's own row
SET SESSION AUTHORIZATION regress_nexusmem_user;
SELECT count(*) > 0 AS ok FROM nexusmem.nodes;
SELECT nexusmem.rebalance();
RESET SESSION AUTHORIZATION;

-- granted
GRANT EXECUTE ON FUNCTION nexusmem.pin_backend(int, int), nexusmem.unpin_backend(int),
	nexusmem.rebalance(), nexusmem.stat_prefetch_reset() TO regress_nexusmem_user;
GRANT SET ON PARAMETER nexusmem.preferred_node TO regress_nexusmem_user;
SELECT min(node) AS node FROM nexusmem.nodes WHERE cpu_count > 0 \gset
SET ROLE regress_nexusmem_user;
SELECT nexusmem.pin_backend(pg_backend_pid(), :node);
SELECT nexusmem.unpin_backend(pg_backend_pid());
SELECT nexusmem.rebalance() >= 0 AS ok;
SELECT nexusmem.stat_prefetch_reset();
SET nexusmem.preferred_node = :node;
SHOW nexusmem.preferred_node;
RESET nexusmem.preferred_node;
RESET ROLE;

-- a definer's function lends its owner's
CREATE FUNCTION lent() RETURNS boolean LANGUAGE sql SECURITY DEFINER
AS 'SELECT count(*) > 0 FROM nexusmem.backends WHERE pid = pg_backend_pid()';
SET ROLE regress_nexusmem_user;
SELECT lent();
RESET ROLE;
DROP FUNCTION lent();

REVOKE ALL ON PARAMETER nexusmem.preferred_node FROM regress_nexusmem_user;
DROP OWNED BY regress_nexusmem_user;
DROP ROLE regress_nexusmem_user, regress_nexusmem_monitor;
