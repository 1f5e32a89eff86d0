#!/bin/bash
# test/run.sh [PART...]: everything that this machine can test, in these parts:
#
#	unit	the core without a server: test/unit
#	host	pg_regress, isolation and TAP on this machine's PostgreSQL, preloaded
#	core	PostgreSQL's own suites with everything on: test/core
#	numa	virtual machines with several NUMA nodes: test/numa
#	matrix	other compilers, other PostgreSQL majors: test/matrix
#
# A test is one test of pg_regress or of isolation, one TAP test point, or one
# check in a virtual machine. What cannot run here is counted as skipped, with
# the reason. The last line is the sum; status 1 when anything failed.
#
# Slow things (chroots, a kernel, the server's source) are kept in NXM_CACHE. The
# checkout and the PostgreSQL installed are left as they were. Logs are removed
# after success unless NXM_LOG names a directory for them. Two parts run at a time
# (NXM_JOBS=1: one). NXM_NO_DEPS=1: do not look for missing packages.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

part_unit() {
	as_postgres make -s -C "$NXM_BUILD/test/unit" check >"$NXM_LOG/unit.raw" 2>&1 </dev/null ||
		echo "make: *** [check] Error $?" >>"$NXM_LOG/unit.raw"
	nxm_tally unit "$NXM_LOG/unit.raw"
}

part_host() {
	nxm_cluster_start host "shared_preload_libraries = 'nexusmem'"
	# -i: isolation and TAP also after a failure in pg_regress
	as_postgres make -i -C "$NXM_BUILD" installcheck PG_CONFIG="$PG_CONFIG" PROVE_FLAGS="-v --timer" \
		>"$NXM_LOG/host.raw" 2>&1 </dev/null || true
	nxm_tally host "$NXM_LOG/host.raw"
	nxm_crashed host "$NXM_LOG/host.log"
	mkdir -p "$NXM_LOG/host"
	(
		cd "$NXM_BUILD"
		shopt -s nullglob
		cp -a --parents -t "$NXM_LOG/host" regression.diff[s] output_iso/regression.diff[s] tmp_check/lo[g] 2>/dev/null
	) || true
}

if [ "${1:-}" = --part ]; then
	nxm_init "$2"
	case $2 in
		unit | host) "part_$2" ;;
		core) "$NXM_ROOT/test/core/run.sh" ;;
		numa) "$NXM_ROOT/test/numa/run.sh" ;;
		matrix) "$NXM_ROOT/test/matrix/matrix.sh" "$NXM_ROOT" ;;
	esac
	exit
fi

for p; do
	case $p in
		unit | host | core | numa | matrix) ;;
		*) nxm_die "no part $p; parts: unit host core numa matrix" ;;
	esac
done
[ $# != 0 ] || set -- unit host core numa matrix

if [ -z "${NXM_PRIVATE:-}" ] && [ -z "${NXM_NO_DEPS:-}" ]; then "$NXM_ROOT/test/deps.sh" all >/dev/null; fi
nxm_pg_config
nxm_private "$@"
nxm_init test
SECONDS=0
echo "$("$PG_CONFIG" --version), $(uname -srm), $(nproc) CPUs, logs in $NXM_LOG"
if ! nxm_build; then
	echo "not ok - build"
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi

# run_part NAME: run it, then print its result in one piece.
run_part() {
	local p=$1 rc=0 start=$SECONDS out=$NXM_LOG/$1.out err=$NXM_LOG/$1.err pid
	# a session of its own, so that an interrupt ends all of it
	setsid bash "$0" --part "$p" >"$out" 2>"$err" </dev/null &
	pid=$!
	trap 'kill -TERM -- -$pid 2>/dev/null; wait $pid; exit 143' INT TERM HUP
	wait $pid || rc=$?
	if ! grep -q '^not ok' "$out" && { [ $rc != 0 ] || ! grep -q '^ok' "$out"; }; then
		echo "not ok - $p: runs to its end (status $rc)" >>"$out"
	fi
	{
		printf '%-7s %s  (%d s)\n' "$p" "$(count "$out")" $((SECONDS - start))
		# failures, with the lines that explain them, and notes
		awk '/^## / { print "        " substr($0, 4); next }
			/^not ok - / { print "  FAILED  " substr($0, 10); failed = 1; next }
			!/^# / { failed = 0 }
			failed { print "          " substr($0, 3) }' "$out"
		sed -n -E 's/^ok - (.*) # SKIP (.*)/  skipped \1: \2/p' "$out" | sort | uniq -c | sed -E 's/^ +1 //; s/^ +([0-9]+) (.*)/\2 (\1 times)/'
		if grep -q '^not ok' "$out"; then tail -n 40 "$err" | sed 's/^/  | /'; fi
	} >"$NXM_TMP/$p.report"
	cat "$NXM_TMP/$p.report"
}

# count FILES...: "N passed, N failed, N skipped"
count() {
	cat "$@" | awk '/^not ok/ { f++ } /^ok/ { if (/ # SKIP/) s++; else p++ }
		END { printf "%d passed, %d failed, %d skipped", p, f, s }'
}

# Two lanes that take about as long.
lane() {
	local p
	for p; do run_part "$p"; done
}
one=() two=() files=()
for p; do
	case $p in
		matrix | core) two+=("$p") ;;
		*) one+=("$p") ;;
	esac
	files+=("$NXM_LOG/$p.out")
done
if [ "${NXM_JOBS:-2}" = 1 ]; then one=("$@") two=(); fi
lanes=()
stop() { kill -TERM "${lanes[@]}" 2>/dev/null; wait; exit 143; }
trap stop INT TERM HUP
lane "${one[@]+"${one[@]}"}" &
lanes+=($!)
lane "${two[@]+"${two[@]}"}" &
lanes+=($!)
wait "${lanes[0]}" || true
wait "${lanes[1]}" || true

printf 'in %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
count "${files[@]}"
echo
! grep -q '^not ok' "${files[@]}"
