-- Learned look-ahead: who may ask, what is refused.
\set SHOW_CONTEXT never
SET lc_messages = 'C';
CREATE ROLE regress_nexusmem_owner;
CREATE ROLE regress_nexusmem_other;
CREATE ROLE regress_nexusmem_stats;
GRANT pg_read_all_stats TO regress_nexusmem_stats;
GRANT USAGE ON SCHEMA nexusmem TO regress_nexusmem_owner, regress_nexusmem_other, regress_nexusmem_stats;
CREATE SCHEMA learned AUTHORIZATION regress_nexusmem_owner;
GRANT USAGE ON SCHEMA learned TO regress_nexusmem_other, regress_nexusmem_stats;
SET search_path = learned, public;
SET ROLE regress_nexusmem_owner;
CREATE TABLE t (k int PRIMARY KEY, v int);
INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i;
CREATE TABLE p (k int PRIMARY KEY) PARTITION BY RANGE (k);
CREATE VIEW v AS TABLE t;
CREATE SEQUENCE s;

-- nothing is known: no rows, and no error
SELECT * FROM nexusmem.predictor_predict('t', 0);
SELECT * FROM nexusmem.predictor_predict('t_pkey', 0);
SELECT * FROM nexusmem.predictor_predict('s', 0);
SELECT * FROM nexusmem.predictor_predict('t', 1000000);
SELECT * FROM nexusmem.predictor_predict('t', 4294967294);
SELECT * FROM nexusmem.predictor_predict(NULL, 0);
SELECT * FROM nexusmem.predictor_predict('t', NULL);
SELECT pg_typeof(relid), pg_typeof(block), pg_typeof(confidence)
FROM (SELECT 1) x LEFT JOIN nexusmem.predictor_predict('t', 0) ON true;

-- refused
SELECT * FROM nexusmem.predictor_predict('t', -1);
SELECT * FROM nexusmem.predictor_predict('t', 4294967295);
SELECT * FROM nexusmem.predictor_predict('t', 9223372036854775807);
SELECT * FROM nexusmem.predictor_predict('p', 0);
SELECT * FROM nexusmem.predictor_predict('p_pkey', 0);
SELECT * FROM nexusmem.predictor_predict('v', 0);
SELECT * FROM nexusmem.predictor_predict(0, 0);
SELECT * FROM nexusmem.predictor_predict('nothing', 0);
SELECT nexusmem.predictor_reset();

-- who may ask: whoever may read the table, and pg_read_all_stats
SET ROLE regress_nexusmem_other;
SELECT * FROM nexusmem.predictor_predict('t', 0);
SELECT * FROM nexusmem.predictor_predict('t_pkey', 0);
SET ROLE regress_nexusmem_owner;
GRANT SELECT ON t TO regress_nexusmem_other;
SET ROLE regress_nexusmem_other;
SELECT * FROM nexusmem.predictor_predict('t', 0);
SELECT * FROM nexusmem.predictor_predict('t_pkey', 0);
SET ROLE regress_nexusmem_stats;
SELECT * FROM nexusmem.predictor_predict('t', 0);
SELECT nexusmem.predictor_reset();
RESET ROLE;
SELECT nexusmem.predictor_reset();

-- with the library loaded, the settings are a server's
SET nexusmem.enable_learned_prefetch = on;
SET nexusmem.predictor_memory = '32MB';
-- whose message has units from 17 on
\set VERBOSITY sqlstate
ALTER SYSTEM SET nexusmem.predictor_memory = '1kB';
\set VERBOSITY default
ALTER SYSTEM SET nexusmem.predictor_memory = '100TB';
ALTER SYSTEM SET nexusmem.enable_learned_prefetch = 'perhaps';
SELECT state, detail, hint FROM nexusmem.status WHERE feature = 'learned look-ahead';

DROP SCHEMA learned CASCADE;
DROP OWNED BY regress_nexusmem_owner, regress_nexusmem_other, regress_nexusmem_stats;
DROP ROLE regress_nexusmem_owner, regress_nexusmem_other, regress_nexusmem_stats;
