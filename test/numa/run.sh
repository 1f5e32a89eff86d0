#!/bin/bash
# test/numa/run.sh [MACHINE...]: nexusmem on machines with several NUMA nodes,
# booted by vm.sh one after the other. In each, guest.sh makes the checks.
#
# Built, installed and initdb'ed here once, the extension created: the machines see this
# file system, and what they write to the data directory is gone with them.
#
# Prints `ok - ...` lines, and notes as `## ...`. Limits: those of vm.sh (x86-64, qemu, emulated: slow, and
# no measure of speed).
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

# name | options of vm.sh
MACHINES="
asymmetric | -m '512 512 512 512' -c '0 1 2 3'
structures | -m '512 512 512 512' -c '0 1 2 3'
strain     | -m '512 512 512 512' -c '0 1 2 3'
caches     | -m '512 512 512 512' -c '0 1 2 3'
holes      | -m '512 512 0 512' -c '0 1 2 -'
huge       | -m '512 512 512 512' -c '0 1 2 3' -a 'hugepages=0:50,1:50,2:50,3:50'
huge-short | -m '512 512 512 512' -c '0 1 2 3' -a 'hugepages=0:64,1:64,2:4,3:64'
"

nxm_pg_config
nxm_private "$@"
nxm_init numa
nxm_build
DATA=$NXM_TMP/data
nxm_cluster_start "$DATA" "shared_preload_libraries = 'nexusmem'
fsync = off"
nxm_psql -c 'CREATE EXTENSION nexusmem'
nxm_cluster_stop "$DATA"

# The library once more, with the places to stop at of src/core/pause.h, and the module
# that names one: only what has such places is compiled again.
PAUSED=$NXM_TMP/paused
build_paused() {
	local f
	as_postgres mkdir -p "$PAUSED/test/modules"
	cp -a "$NXM_BUILD"/{Makefile,nexusmem.control,sql,src} "$PAUSED"
	cp -a "$NXM_BUILD/test/modules/nxm_torture" "$PAUSED/test/modules"
	grep -l NXM_PAUSE -r "$PAUSED/src" --include='*.c' | while read -r f; do rm -f "${f%.c}.o"; done
	nxm_log paused as_postgres make -C "$PAUSED" PG_CONFIG="$PG_CONFIG" COPT=-DNXM_PAUSE_POINTS -j2
	nxm_log paused as_postgres make -C "$PAUSED/test/modules/nxm_torture" PG_CONFIG="$PG_CONFIG" with_llvm=no
}
if [ $# = 0 ] || [[ " $* " = *" strain "* ]]; then build_paused; fi

bad=0
# seconds a machine may take
limit=${NXM_VM_LIMIT:-1800}
while IFS='|' read -r name options; do
	name=${name// /}
	[ -n "$name" ] || continue
	[ $# = 0 ] || [[ " $* " = *" $name "* ]] || continue
	eval "options=($options)"
	out=$NXM_TMP/out-$name
	log=$NXM_LOG/numa-$name
	mkdir -p "$out"
	# what guest.sh is told
	{
		for v in PG_CONFIG PG_BIN PG_MAJOR NXM_USER NXM_BUILD DATA PAUSED; do printf '%s=%q\n' $v "${!v}"; done
	} >"$out/env"
	SECONDS=0
	rc=0
	"$NXM_ROOT/test/numa/vm.sh" "${options[@]}" -t "$limit" -o "$out" -- \
		bash "$NXM_ROOT/test/numa/guest.sh" "$name" >"$log.out" 2>"$log.err" </dev/null || rc=$?
	! [ -e "$out/server.log" ] || cp "$out/server.log" "$log.server.log"
	if [ "$rc" = 77 ]; then
		echo "ok - numa # SKIP $(sed -n 's/^vm: //p' "$log.err" | tail -n 1)"
		break
	fi
	echo "## $name: $SECONDS s"
	# of several that hang the first is waited for that long; on a slow host the others need theirs
	if [ "$rc" = 125 ] && [ "$limit" -gt 900 ]; then limit=900; fi
	sed -E "s/^((not )?ok) - /\1 - numa $name: /" "$log.out"
	if grep -q '^not ok' "$log.out"; then
		bad=1
	elif [ "$rc" != 0 ] || ! grep -q '^ok' "$log.out"; then
		bad=1
		echo "not ok - numa $name: runs to its end (status $rc)"
		nxm_tail "$log.err"
		nxm_tail "$log.out"
	fi
done <<<"$MACHINES"
exit $bad
