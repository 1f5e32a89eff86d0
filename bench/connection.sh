#!/bin/bash
# bench/connection.sh: what pinning adds to a connection, in microseconds.
#
#	PAIRS=15	pairs of runs
#	SECONDS_A_RUN=3	of each
#	NUM_NODES=2	nexusmem.num_nodes: on one node there is nothing to pin to
#
# pgbench -C with one client connects, runs SELECT 1 and disconnects, over and
# over. One cluster; enable_numa_optimizations is turned off and on by a reload
# between the runs. Two figures: the time from one connection to the next, and the
# CPU time of the ended backends. Where strace may be used, it also counts the
# system calls of pinning in a few connections, and their time (strace makes each
# of them slower).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 15
param SECONDS_A_RUN 3
param NUM_NODES 2
bench_begin connection "$@"

nxm_cluster_start main "shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = $NUM_NODES
autovacuum = off"
nxm_psql -c 'CREATE EXTENSION nexusmem'
echo 'SELECT 1;' | as_postgres tee "$NXM_TMP/select.sql" >/dev/null

turn() {
	nxm_psql -c "ALTER SYSTEM SET nexusmem.enable_numa_optimizations = $1" -Atc 'SELECT pg_reload_conf()' >/dev/null
	sleep 0.3
}

# run on|off: "microseconds CPU-microseconds" a connection
run() {
	local before after
	turn "$1"
	before=$(ended_cpu main)
	as_postgres "$PG_BIN/pgbench" -n -C -f "$NXM_TMP/select.sql" -c 1 -T "$SECONDS_A_RUN" >"$NXM_TMP/out"
	sleep 0.2
	after=$(ended_cpu main)
	awk -v cpu="$(awk -v a="$after" -v b="$before" 'BEGIN { print a - b }')" '
		/actually processed/ { split($NF, n, "/"); done = n[1] }
		/^tps/ { tps = $3 }
		END { print 1e6 / tps, cpu * 1000 / done }' "$NXM_TMP/out"
}

run off >/dev/null
run on >/dev/null
nxm_psql -At -F', ' -c "SELECT '  ' || feature, state, detail FROM nexusmem.status WHERE feature IN ('pinning', 'memory policy')"
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	read -r us_a cpu_a <<<"$(run off)"
	read -r us_b cpu_b <<<"$(run on)"
	pair "time a connection" "$us_a" "$us_b"
	pair "CPU time a connection" "$cpu_a" "$cpu_b"
done

echo
echo "pinning on - off: median (least to greatest); pairs off:on"
report "time a connection" B-A us '<=' 50
report "CPU time a connection" B-A us '<=' 50

if type -P strace >/dev/null; then
	turn on
	pid=$(head -n 1 "$(nxm_cluster_dir main)/postmaster.pid")
	strace -f -T -qq -e trace=sched_setaffinity,sched_getaffinity,set_mempolicy,get_mempolicy \
		-p "$pid" -o "$NXM_TMP/strace" 2>"$NXM_TMP/strace.err" &
	tracer=$!
	sleep 1
	as_postgres "$PG_BIN/pgbench" -n -C -f "$NXM_TMP/select.sql" -c 1 -t 50 >/dev/null || true
	kill "$tracer" 2>/dev/null || true
	wait "$tracer" 2>/dev/null || true
	awk '/</ { call = $2; sub(/\(.*/, "", call); t = $NF; gsub(/[<>]/, "", t); n[call]++; sum[call] += t }
		END { for (c in n) printf "    %-20s %.1f calls, %.1f us a connection under strace\n", c, n[c] / 50, sum[c] * 1e6 / 50 }' "$NXM_TMP/strace"
fi
