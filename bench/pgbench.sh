#!/bin/bash
# bench/pgbench.sh: pgbench -S, all in shared_buffers, with everything on (pinning,
# placement, look-ahead) against a server that has not loaded the library.
#
#	PAIRS=10	pairs of runs
#	SECONDS_A_RUN=8	of each
#	SCALE=50	of pgbench's tables
#	CLIENTS=2	as many as there are CPUs suits best
#	NUM_NODES=0	nexusmem.num_nodes; 0: the machine's own
#
# Two clusters, the second one a copy of the first, take turns. Besides the
# transactions a second, it shows the servers' CPU time for one transaction, which
# other processes on the machine disturb less.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 10
param SECONDS_A_RUN 8
param SCALE 50
param CLIENTS 2
param NUM_NODES 0
bench_begin pgbench "$@"

echo "preparing: scale $SCALE"
nxm_cluster_start absent "shared_buffers = $((SCALE * 20 + 128))MB
max_wal_size = 8GB
autovacuum = off"
nxm_log pgbench as_postgres "$PG_BIN/pgbench" -i -q -s "$SCALE"
nxm_psql -c CHECKPOINT
nxm_cluster_stop absent
clone_cluster absent loaded
nxm_cluster_start absent
nxm_cluster_start loaded "shared_preload_libraries = 'nexusmem'
nexusmem.enable_numa_optimizations = on
nexusmem.num_nodes = $NUM_NODES
nexusmem.shared_buffers_placement = partition
nexusmem.enable_prefetch = on"
nxm_psql -c 'CREATE EXTENSION nexusmem'
nxm_psql -At -F', ' -c "SELECT '  ' || feature, state, detail FROM nexusmem.status"

# run CLUSTER SECONDS: "transactions-a-second CPU-microseconds-a-transaction"
run() {
	local before after
	nxm_cluster_use "$1"
	before=$(ended_cpu "$1")
	as_postgres "$PG_BIN/pgbench" -n -S -M prepared -c "$CLIENTS" -j "$CLIENTS" -T "$2" >"$NXM_TMP/out"
	sleep 0.2 # until the backends have ended
	after=$(ended_cpu "$1")
	figures "CPU time of $1" "$before" "$after"
	awk -v cpu="$(awk -v a="$after" -v b="$before" 'BEGIN { print a - b }')" '
		/actually processed/ { split($NF, n, "/"); done = n[1] }
		/^tps/ { tps = $3 }
		END { if (done > 0) print tps, cpu * 1000 / done }' "$NXM_TMP/out"
}

for c in absent loaded; do
	nxm_cluster_use $c
	nxm_psql -c 'CREATE EXTENSION pg_prewarm' -Atc "SELECT sum(pg_prewarm(c.oid)) FROM pg_class c WHERE relname LIKE 'pgbench_%' AND relkind IN ('r', 'i')" >/dev/null
	run $c 3 >/dev/null
done
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	take "a run of absent" "$(run absent "$SECONDS_A_RUN")" tps_a cpu_a
	take "a run of loaded" "$(run loaded "$SECONDS_A_RUN")" tps_b cpu_b
	pair "transactions a second" "$tps_a" "$tps_b"
	pair "CPU time a transaction" "$cpu_a" "$cpu_b"
done

echo
echo "everything on / library not loaded: median (least to greatest); pairs not-loaded:on"
report "transactions a second" B/A tps '>=' 0.98
report "CPU time a transaction" B/A us
