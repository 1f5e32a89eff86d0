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
# after success unless NXM_LOG names a directory for them. Up to three things run at a
# time (NXM_JOBS=1: one). NXM_NO_DEPS=1: do not look for missing packages.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

part_unit() {
	as_postgres make -s -j"$(nproc)" -C "$NXM_BUILD/test/unit" check >"$NXM_LOG/unit.raw" 2>&1 </dev/null ||
		echo "make: *** [check] Error $?" >>"$NXM_LOG/unit.raw"
	nxm_tally unit "$NXM_LOG/unit.raw"
}

part_host() {
	nxm_cluster_start host "shared_preload_libraries = 'nexusmem'
fsync = off"
	# -i: isolation and TAP also after a failure in pg_regress
	as_postgres make -i -C "$NXM_BUILD" installcheck PG_CONFIG="$PG_CONFIG" PROVE_FLAGS="-v --timer" \
		>"$NXM_LOG/host.raw" 2>&1 </dev/null || true
	nxm_tally host "$NXM_LOG/host.raw"
	nxm_differences "$NXM_BUILD/regression.diffs"
	nxm_differences "$NXM_BUILD/output_iso/regression.diffs"
	nxm_crashed host "$NXM_LOG/host.log"
	mkdir -p "$NXM_LOG/host"
	(
		cd "$NXM_BUILD"
		shopt -s nullglob
		cp -a --parents -t "$NXM_LOG/host" regression.diff[s] output_iso/regression.diff[s] tmp_check/lo[g] 2>/dev/null
	) || true
}

if [ "${1:-}" = --job ]; then
	nxm_init "$2"
	case $2 in
		unit | host) "part_$2" ;;
		core) "$NXM_ROOT/test/core/run.sh" ;;
		numa) "$NXM_ROOT/test/numa/run.sh" ;;
		matrix-*) "$NXM_ROOT/test/matrix/matrix.sh" "$NXM_ROOT" "${2#matrix-}" ;;
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

# A part is one job, or several. Jobs of a row run one after the other, those of the
# pool two at a time beside it, the longest first. In the row unit comes last: it can use
# what the pool no longer does.
jobs_of() {
	local v
	case $1 in
		matrix)
			for v in $(nxm_other_majors); do echo "matrix-$v"; done
			echo matrix-builds
			;;
		*) echo "$1" ;;
	esac
}
row=() pool=() parts=() files=()
# in the order in which their results are told
for p in numa host core matrix unit; do
	if [[ " $* " = *" $p "* ]]; then parts+=("$p"); fi
done
for p in numa unit; do
	if [[ " $* " = *" $p "* ]]; then row+=("$p"); fi
done
for p in matrix-18 matrix-17 host matrix-19 matrix-15 core matrix-builds; do
	# not by a pipe: grep -q ends before what it reads, and pipefail takes that for a failure
	if [[ " $* " = *" ${p%-*} "* && " $(jobs_of "${p%-*}" | tr '\n' ' ')" = *" $p "* ]]; then pool+=("$p"); fi
done

# run_job NAME: run it, and tell what is to be told then.
run_job() {
	local j=$1 rc=0 start=$SECONDS pid=
	trap '[ -z "$pid" ] || kill -TERM -- -$pid 2>/dev/null; wait; exit 143' INT TERM HUP
	# a session of its own, so that an interrupt ends all of it
	setsid bash "$0" --job "$j" >"$NXM_LOG/$j.out" 2>"$NXM_LOG/$j.err" </dev/null &
	pid=$!
	wait $pid || rc=$?
	end_job "$j" "$start" "$rc"
	tell
}

# end_job NAME START STATUS: one that has not told of its end has failed.
end_job() {
	local out=$NXM_LOG/$1.out
	if ! grep -q '^not ok' "$out" && { [ "$3" != 0 ] || ! grep -q '^ok' "$out"; }; then
		echo "not ok - $1: runs to its end (status $3)" >>"$out"
	fi
	echo "$2 $SECONDS" >"$NXM_TMP/$1.ended"
}

# tell: the results of the parts that have ended, as long as those before them have.
tell() {
	local p
	exec 8>"$NXM_TMP/lock"
	flock 8
	for p in "${parts[@]}"; do
		if [ ! -e "$NXM_TMP/$p.told" ]; then
			part_result "$p" >"$NXM_TMP/result" || break
			cat "$NXM_TMP/result"
			touch "$NXM_TMP/$p.told"
		fi
	done
	exec 8>&-
}

# part_result PART: what it did. Fails where a job has not ended.
part_result() {
	local p=$1 j outs=() errs=() times=()
	for j in $(jobs_of "$p"); do
		[ -e "$NXM_TMP/$j.ended" ] || return
		outs+=("$NXM_LOG/$j.out")
		if grep -q '^not ok' "$NXM_LOG/$j.out"; then errs+=("$NXM_LOG/$j.err"); fi
		times+=("$NXM_TMP/$j.ended")
	done
	printf '%-7s %s  (%d s)\n' "$p" "$(count "${outs[@]}")" \
		"$(awk 'NR == 1 || $1 < b { b = $1 } $2 > e { e = $2 } END { print e - b }' "${times[@]}")"
	# failures, with the lines that explain them, and notes
	awk '/^## [0-9]+ s / { next }
		/^## / { print "        " substr($0, 4); next }
		/^not ok - / { print "  FAILED  " substr($0, 10); failed = 1; next }
		!/^# / { failed = 0 }
		failed { print "          " substr($0, 3) }' "${outs[@]}"
	sed -n -E 's/^ok - (.*) # SKIP (.*)/  skipped \1: \2/p' "${outs[@]}" | sort | uniq -c | sed -E 's/^ +1 //; s/^ +([0-9]+) (.*)/\2 (\1 times)/'
	for j in "${errs[@]+"${errs[@]}"}"; do tail -n 40 "$j" | sed 's/^/  | /'; done
}

# count FILES...: "N passed, N failed, N skipped"
count() {
	cat "$@" | awk '/^not ok/ { f++ } /^ok/ { if (/ # SKIP/) s++; else p++ }
		END { printf "%d passed, %d failed, %d skipped", p, f, s }'
}

run_row() {
	local j
	for j; do run_job "$j" || true; done
}
run_pool() {
	local j
	trap 'kill -TERM $(jobs -p) 2>/dev/null; wait; exit 143' INT TERM HUP
	for j; do
		while [ "$(jobs -pr | wc -l)" -ge "$slots" ]; do wait -n || true; done
		run_job "$j" &
	done
	wait
}
slots=2 running=()
# What an interrupt ends.
stop() {
	kill -TERM "${running[@]}" 2>/dev/null
	wait
	# also those that had ended behind one that had not
	for p in "${parts[@]}"; do
		[ -e "$NXM_TMP/$p.told" ] || { part_result "$p" >"$NXM_TMP/result" && cat "$NXM_TMP/result"; } || true
	done
	exit 143
}
trap stop INT TERM HUP
if [ "${NXM_JOBS:-2}" = 1 ]; then row+=("${pool[@]+"${pool[@]}"}") pool=(); fi
run_row "${row[@]+"${row[@]}"}" &
running+=($!)
run_pool "${pool[@]+"${pool[@]}"}" &
running+=($!)
for p in "${running[@]}"; do wait "$p" || true; done

for j in "${row[@]+"${row[@]}"}" "${pool[@]+"${pool[@]}"}"; do
	files+=("$NXM_LOG/$j.out")
	if [ ! -e "$NXM_TMP/$j.ended" ]; then
		touch "$NXM_LOG"/"$j".{out,err}
		end_job "$j" "$SECONDS" unknown
	fi
done
tell
cat "${files[@]}" | sed -n 's/^## \([0-9]* s \)/\1/p' | sort -rn | awk 'NR == 1 { print "what took longest:" } NR <= 20 { print "        " $0 }'
printf 'in %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
count "${files[@]}"
echo
! grep -q '^not ok' "${files[@]}"
