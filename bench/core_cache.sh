#!/bin/bash
# bench/core_cache.sh: the cache of src/core, without a server: how long operations
# take while it evicts, against at rest; throughput by processes; bytes of an entry.
#
#	ENTRIES=1000000	of 7 bytes of key and 100 of value
#	ROUNDS=5
#	SECONDS_A_RUN=1
#	PROCESSES=1,2,4,16
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param ENTRIES 1000000
param ROUNDS 5
param SECONDS_A_RUN 1
param PROCESSES 1,2,4,16

nxm_init bench-core_cache "${BENCH_DIR:-/var/tmp}"
nxm_log build make -C "$NXM_ROOT/bench/cache_core" BIN="$NXM_TMP/bin"
bench_head core_cache

"$NXM_TMP/bin/bench_cache" latency -n "$ENTRIES" -r "$ROUNDS" -t "$SECONDS_A_RUN" \
	-p "$(nproc | awk '{ print ($1 > 8 ? 8 : $1) }')"
echo
"$NXM_TMP/bin/bench_cache" throughput -n "$ENTRIES" -r "$ROUNDS" -t "$SECONDS_A_RUN" -P "$PROCESSES"
echo
"$NXM_TMP/bin/bench_cache" bytes -n "$ENTRIES"
