#!/bin/bash
# bench/placement.sh: does placing shared_buffers burden the postmaster?
#
#	PAIRS=5		pairs of runs
#	SHARED_BUFFERS=16GB	of address space; memory is used by its descriptors alone
#	CONNECTIONS=200	of a run
#
# A is shared_buffers_placement = default, B is partition. The figures: the
# postmaster's mappings (/proc/PID/maps), its CPU time for one connection, nearly
# all of it fork, and the time a connection takes. Needs two NUMA memories; where
# there is one it says so and ends. Address space past the memory wants
# vm.overcommit_memory = 1.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 5
param SHARED_BUFFERS 16GB
param CONNECTIONS 200
memories=$(find /sys/devices/system/node -maxdepth 1 -name 'node[0-9]*' -exec grep -l 'MemTotal: *[1-9]' {}/meminfo \; 2>/dev/null | wc -l)
if [ "$memories" -lt 2 ]; then
	echo "bench/placement.sh: skipped: this machine has $memories NUMA memory, and placement needs two"
	exit 0
fi
bench_begin placement "$@"

nxm_cluster_start main "shared_preload_libraries = 'nexusmem'
shared_buffers = $SHARED_BUFFERS
autovacuum = off"
nxm_psql -c 'CREATE EXTENSION nexusmem'
echo 'SELECT 1;' | as_postgres tee "$NXM_TMP/select.sql" >/dev/null

# run PLACEMENT: "mappings postmaster's-CPU-us connection-us"
run() {
	local pid before after maps
	nxm_cluster_stop main
	nxm_cluster_start main "nexusmem.shared_buffers_placement = $1"
	pid=$(head -n 1 "$(nxm_cluster_dir main)/postmaster.pid")
	maps=$(wc -l <"/proc/$pid/maps")
	as_postgres "$PG_BIN/pgbench" -n -C -f "$NXM_TMP/select.sql" -c 1 -t 20 >/dev/null
	before=$(cut -d' ' -f1 "/proc/$pid/schedstat")
	as_postgres "$PG_BIN/pgbench" -n -C -f "$NXM_TMP/select.sql" -c 1 -t "$CONNECTIONS" >"$NXM_TMP/out"
	after=$(cut -d' ' -f1 "/proc/$pid/schedstat")
	awk -v maps="$maps" -v ns="$((after - before))" -v n="$CONNECTIONS" '
		/^tps/ { print maps, ns / n / 1000, 1e6 / $3 }' "$NXM_TMP/out"
}

for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	take "a run with default" "$(run default)" maps_a cpu_a us_a
	take "a run with partition" "$(run partition)" maps_b cpu_b us_b
	pair mappings "$maps_a" "$maps_b"
	pair "postmaster's CPU a connection" "$cpu_a" "$cpu_b"
	pair "time a connection" "$us_a" "$us_b"
done
nxm_psql -At -F', ' -c "SELECT '  ' || feature, state, detail FROM nexusmem.status WHERE feature LIKE 'shared_buffers%'"

echo
echo "partition / default: median (least to greatest); pairs default:partition"
report mappings B/A mappings '<=' 1.0
report "postmaster's CPU a connection" B/A us
report "time a connection" B/A us
