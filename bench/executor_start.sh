#!/bin/bash
# bench/executor_start.sh: what the library adds to a statement that has nothing to
# look ahead, in nanoseconds.
#
#	PAIRS=15	pairs of runs of each case
#	LOOPS=200000	statements in a run
#
# A PL/pgSQL loop runs a planned statement: ExecutorStart, one row, ExecutorEnd,
# and hardly anything else. The figure is the difference of the backend's CPU time
# (/proc/self/schedstat) for one statement between a cluster without the library
# and its copy with the library preloaded and pinning and look-ahead on. Each run
# is a new session. Besides a plan of one node there is one of 13 (six tables
# joined, all empty), since the library looks at every node, and one that has an
# index scan, which finds nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 15
param LOOPS 200000
bench_begin executor_start "$@"

nxm_cluster_start absent "autovacuum = off
jit = off"
nxm_psql -c "CREATE TABLE none (k int PRIMARY KEY)" -c "VACUUM ANALYZE none"
nxm_cluster_stop absent
clone_cluster absent loaded
nxm_cluster_start absent
nxm_cluster_start loaded "shared_preload_libraries = 'nexusmem'
nexusmem.enable_numa_optimizations = on
nexusmem.num_nodes = 2"

define() {
	LOOP=$LOOPS
	case $1 in
		result) STATEMENT="PERFORM 1" ;;
		join_of_6) STATEMENT="PERFORM FROM none a, none b, none c, none d, none e, none f" LOOP=$((LOOPS / 8)) ;;
		index_scan) STATEMENT="PERFORM FROM none WHERE k = i" LOOP=$((LOOPS / 2)) ;;
	esac
}
CASES="result join_of_6 index_scan"

# run CLUSTER CASE: nanoseconds of CPU time a statement
run() {
	define "$2"
	nxm_cluster_use "$1"
	nxm_psql -At <<-SQL
		SET max_parallel_workers_per_gather = 0; SET plan_cache_mode = force_generic_plan;
		SET enable_bitmapscan = off;
		$([ "$2" = index_scan ] || echo "SET enable_indexscan = off; SET enable_indexonlyscan = off;")
		$([ "$2" != index_scan ] || echo "SET enable_seqscan = off;")
		DO \$\$
		DECLARE
			began bigint;
		BEGIN
			FOR i IN 1..$((LOOP / 20 + LOOP)) LOOP
				IF i = $((LOOP / 20)) THEN began := $CPU_NS; END IF;
				$STATEMENT;
			END LOOP;
			PERFORM set_config('bench.ns', (($CPU_NS - began) / $LOOP)::text, false);
		END \$\$;
		SELECT current_setting('bench.ns');
	SQL
}

for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	for c in $CASES; do
		a=$(run absent "$c")
		b=$(run loaded "$c")
		pair "$c" "$a" "$b"
	done
done

echo
echo "CPU time a statement, loaded - not loaded: median (least to greatest); pairs not-loaded:loaded"
for c in $CASES; do report "$c" B-A ns '<=' 1000; done
