#!/bin/bash
# bench/instructions.sh: how many more instructions a backend executes with the
# library, in cached scans and in statements that have nothing to look ahead.
#
#	ROWS=200000	of the table, about 120 bytes each, in no order of its key
#	LOOPS=1		multiplies the work of each case
#
# valgrind counts them in a single-user backend, so that the figures hardly differ
# from run to run, whatever else the machine does: there are no pairs. Each case
# runs with once and three times the work, and the difference is what counts:
# starting the backend is not in the figure, nor reading the pages for the first
# time. The data directory of "absent" and of "loaded" is the same; look-ahead is
# on in the latter.
#
# Limits: instructions are not time, and those of the kernel are not counted.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param ROWS 200000
param LOOPS 1
type -P valgrind >/dev/null || nxm_die "valgrind is not installed"
bench_begin instructions "$@"

nxm_cluster_start main "shared_buffers = 512MB
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
plan_cache_mode = force_generic_plan
enable_bitmapscan = off
enable_sort = off
enable_hashjoin = off
enable_mergejoin = off
enable_material = off
enable_memoize = off"
nxm_psql <<-SQL
	CREATE TABLE bench AS SELECT k, hashint4(k) AS v, repeat('x', 80) AS pad
		FROM (SELECT k FROM generate_series(1, $ROWS) k ORDER BY hashint4(k)) s;
	ALTER TABLE bench ADD PRIMARY KEY (k);
	CREATE TABLE none (k int);
	CREATE TABLE outside AS SELECT k FROM bench LIMIT 5000;
	VACUUM (FREEZE, ANALYZE) bench, none, outside;
SQL
nxm_cluster_stop main

# WORK times QUERY, from a place @s on
define() {
	SEQ=off
	case $1 in
		point) WORK=5000 QUERY="v FROM bench WHERE k = @s" ;;
		range_*)
			n=${1#range_}
			WORK=$((50000 / n)) QUERY="count(pad) FROM (SELECT pad FROM bench WHERE k BETWEEN @s AND @s + $((n - 1)) ORDER BY k) x"
			;;
		index_only_*)
			n=${1#index_only_}
			WORK=$((100000 / n)) QUERY="count(k) FROM (SELECT k FROM bench WHERE k BETWEEN @s AND @s + $((n - 1)) ORDER BY k) x"
			;;
		limit_10) WORK=3000 QUERY="count(pad) FROM (SELECT pad FROM bench WHERE k >= @s ORDER BY k LIMIT 10) x" ;;
		nested_loop) WORK=2 QUERY="count(b.pad) FROM outside o JOIN bench b ON b.k = o.k WHERE o.k <> @s" SEQ=on ;;
		select_1) WORK=5000 QUERY="(SELECT 1 LIMIT 1)" SEQ=on ;;
		join_of_6) WORK=2000 QUERY="count(*) FROM none a, none b, none c, none d, none e, none f" SEQ=on ;;
		*) nxm_die "no case $1" ;;
	esac
	WORK=$((WORK * LOOPS))
}

# count WORK QUERY LIBRARIES: instructions of a backend that does this
count() {
	# single-user mode ends a command with the line
	cat <<-SQL >"$NXM_TMP/single"
		SET enable_seqscan = $SEQ
		DO \$\$ DECLARE s int; n bigint; BEGIN n := count(pad) FROM bench WHERE k > 0; FOR i IN 1..$1 LOOP s := 1 + (i::bigint * 7919 % ($ROWS / 2))::int; n := ${2//@s/s}; END LOOP; END \$\$
	SQL
	# the library asks the kernel some things from a child, which is not to be counted
	as_postgres valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null --child-silent-after-fork=yes \
		"$PG_BIN/postgres" --single -D "$(nxm_cluster_dir main)" -c shared_preload_libraries="$3" postgres \
		<"$NXM_TMP/single" >"$NXM_TMP/single.out" 2>&1 || { cat "$NXM_TMP/single.out"; nxm_die "the backend failed"; }
	# a single-user backend goes on after an error, and then has done less
	if grep -q 'ERROR:' "$NXM_TMP/single.out"; then nxm_die "$(grep -m 1 'ERROR:' "$NXM_TMP/single.out")"; fi
	sed -n 's/,//g; s/.*I *refs: *//p' "$NXM_TMP/single.out"
}

printf '%-20s %14s %14s %10s %10s\n' "instructions" "absent" "loaded" "ratio" "more each"
for c in ${CASES:-point range_10 range_100 range_1000 range_50000 limit_10 index_only_1000 index_only_100000 nested_loop select_1 join_of_6}; do
	define "$c"
	# each by itself: within an expression nxm_die() would end but $(...)
	a3=$(count $((WORK * 3)) "$QUERY" "")
	a1=$(count "$WORK" "$QUERY" "")
	b3=$(count $((WORK * 3)) "$QUERY" nexusmem)
	b1=$(count "$WORK" "$QUERY" nexusmem)
	figures "$c" "$a3" "$a1" "$b3" "$b1"
	a=$((a3 - a1)) b=$((b3 - b1))
	if [ "$a" -le 0 ] || [ "$b" -le 0 ]; then nxm_die "$c: three times the work is $a more, loaded $b"; fi
	awk -v c="$c" -v a="$a" -v b="$b" -v n=$((WORK * 2)) 'BEGIN {
		printf "%-20s %14d %14d %9.4fx %10.1f  <= 1.02: %s\n", c, a, b, b / a, (b - a) / n, (b <= a * 1.02) ? "met" : "MISSED" }'
done
echo "(more each: additional instructions for one run of the statement)"
