#!/bin/bash
# bench/cached.sh: what look-ahead costs where there is nothing to gain: all pages
# in shared_buffers, or all in the operating system's cache.
#
#	PAIRS=7		pairs of runs of each case
#	CHUNKS=9	parts of a run, see below
#	ROWS=1000000	of the table, about 120 bytes each, in no order of its key
#
# The figure is the backend's CPU time (/proc/self/schedstat, in nanoseconds).
# Even that doubles at times when other processes want the same CPUs and caches,
# so a run is cut in chunks, all alike, of some 10 ms; the chunks of A and B take
# turns, and of two that were neighbours what else went on was much the same. What
# counts are the two whose ratio is the median of a run.
#
# In shared_buffers three states are compared: "absent", a cluster without the
# library; and, in a cluster that is a copy of it, page by page, with the library
# preloaded, enable_prefetch "off" and "on". Each pair has new sessions.
#
# In the operating system's cache, shared_buffers has 4 MB, and off and on take
# turns in one session.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 7
param CHUNKS 9
param ROWS 1000000
param SEED $RANDOM
bench_begin cached "$@"

echo "preparing: $ROWS rows"
nxm_cluster_start absent "shared_buffers = 1GB
max_wal_size = 4GB
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0"
nxm_psql <<-SQL
	CREATE EXTENSION pg_prewarm;
	CREATE TABLE bench AS SELECT k, hashint4(k) AS v, repeat('x', 80) AS pad
		FROM (SELECT k FROM generate_series(1, $ROWS) k ORDER BY hashint4extended(k, $SEED)) s;
	ALTER TABLE bench ADD PRIMARY KEY (k);
	CREATE TABLE outside AS SELECT k FROM bench LIMIT 6000;
	VACUUM (FREEZE, ANALYZE) bench, outside;
	CHECKPOINT;
SQL
nxm_cluster_stop absent
clone_cluster absent loaded
nxm_cluster_start absent
nxm_psql -Atc "SELECT pg_prewarm('bench'), pg_prewarm('bench_pkey')" >/dev/null
nxm_cluster_start loaded "shared_preload_libraries = 'nexusmem'"
nxm_psql -Atc "SELECT pg_prewarm('bench'), pg_prewarm('bench_pkey')" >/dev/null

# LOOP times QUERY, from a random @s on. The loop's own cost is in the figure.
define() {
	case $1 in
		point) LOOP=3000 QUERY="v FROM bench WHERE k = @s" ;;
		range_*)
			n=${1#range_}
			LOOP=$((20000 / n + (n > 20000))) QUERY="count(pad) FROM (SELECT pad FROM bench WHERE k BETWEEN @s AND @s + $((n - 1)) ORDER BY k) x"
			;;
		index_only_*)
			n=${1#index_only_}
			LOOP=$((100000 / n)) QUERY="count(k) FROM (SELECT k FROM bench WHERE k BETWEEN @s AND @s + $((n - 1)) ORDER BY k) x"
			;;
		limit_10) LOOP=1500 QUERY="count(pad) FROM (SELECT pad FROM bench WHERE k >= @s ORDER BY k LIMIT 10) x" ;;
		nested_loop) LOOP=1 QUERY="count(b.pad) FROM outside o JOIN bench b ON b.k = o.k WHERE o.k <> @s" ;;
	esac
}
CASES="point range_10 range_100 range_1000 range_100000 limit_10 index_only_1000 index_only_100000 nested_loop"
PLAN="SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_hashjoin = off;
	SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off; SET plan_cache_mode = force_generic_plan;"

# block LOOP QUERY SEED SETTING: a DO block that leaves its CPU time in SETTING.
block() {
	cat <<-SQL
		DO \$\$
		DECLARE
			s int;
			n bigint;
			began bigint;
		BEGIN
			-- once to plan and to fill the CPU's caches, once for the clock
			FOR i IN 0..2 * $1 - 1 LOOP
				IF i % $1 = 0 THEN PERFORM setseed($3 / 100000.0); END IF;
				IF i = $1 THEN began := $CPU_NS; END IF;
				s := 1 + (random() * ($ROWS - 100001))::int;
				n := ${2//@s/s};
			END LOOP;
			PERFORM set_config('$4', ($CPU_NS - began)::text, false);
		END \$\$;
	SQL
}

# A session is a psql behind two pipes, so that several take turns.
declare -A IN OUT
open_session() {
	if [ "$1" = absent ]; then nxm_cluster_use absent; else nxm_cluster_use loaded; fi
	mkfifo "$NXM_TMP/$1.in" "$NXM_TMP/$1.out"
	nxm_psql -At <"$NXM_TMP/$1.in" >"$NXM_TMP/$1.out" &
	exec {fd}>"$NXM_TMP/$1.in"
	IN[$1]=$fd
	exec {fd}<"$NXM_TMP/$1.out"
	OUT[$1]=$fd
	rm "$NXM_TMP/$1.in" "$NXM_TMP/$1.out"
	{
		if [ "$1" != absent ]; then echo "SET nexusmem.enable_prefetch = $1;"; fi
		echo "$PLAN"
		# maps every page into the process
		echo "SELECT count(pad) FROM bench WHERE k > 0 \\g /dev/null"
	} >&"${IN[$1]}"
}
close_session() {
	local fd=${IN[$1]}
	exec {fd}>&-
	fd=${OUT[$1]}
	exec {fd}<&-
}
# chunk VARIANT SEED: its CPU nanoseconds, in NS
chunk() {
	{
		block "$LOOP" "$QUERY" "$2" bench.ns
		echo "SELECT current_setting('bench.ns');"
	} >&"${IN[$1]}"
	read -r NS <&"${OUT[$1]}" || nxm_die "the session of $1 has ended"
	figures "$c, $1" "$NS"
}

# median_chunk A B: of chunks, one a line, columns A and B of the one whose B / A is
# the median, in milliseconds
median_chunk() {
	awk -v a="$1" -v b="$2" '{ if ($a <= 0 || $b <= 0) print "none none none"; else print $b / $a, $a / 1e6, $b / 1e6 }' | sort -g |
		awk '{ line[NR] = $2 " " $3 } END { print line[int((NR + 1) / 2)] }'
}

for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	for v in absent off on; do open_session $v; done
	for c in $CASES; do
		define "$c"
		: >"$NXM_TMP/chunks"
		for ((i = 0; i <= CHUNKS; i++)); do
			line=
			for v in absent off on; do
				chunk $v $(((SEED + p * 1009) % 100000))
				line+=" $NS"
			done
			# the first one warms up
			[ $i = 0 ] || echo "$line" >>"$NXM_TMP/chunks"
		done
		take "$c, on/off" "$(median_chunk 2 3 <"$NXM_TMP/chunks")" a b
		pair "$c, on/off" "$a" "$b"
		take "$c, on/absent" "$(median_chunk 1 3 <"$NXM_TMP/chunks")" a b
		pair "$c, on/absent" "$a" "$b"
	done
	for v in absent off on; do close_session $v; done
	wait
done

echo "pages in the operating system's cache"
nxm_cluster_stop absent
nxm_cluster_stop loaded
nxm_cluster_start loaded "shared_buffers = 4MB"
relation_files bench | while read -r f; do cat "$f" >/dev/null; done
nxm_psql -Atc "SELECT pg_prewarm('bench_pkey', 'read')" >/dev/null
for n in 10 100 1000 10000; do
	{
		echo "$PLAN"
		for ((p = 1; p <= PAIRS; p++)); do
			for ((i = 0; i <= CHUNKS; i++)); do
				for v in off on; do
					echo "SET nexusmem.enable_prefetch = $v;"
					block $((12000 / n)) "count(pad) FROM (SELECT pad FROM bench WHERE k BETWEEN @s AND @s + $((n - 1)) ORDER BY k) x" \
						$(((SEED + p * 1009) % 100000)) bench.$v
				done
				echo "SELECT $p, $i, current_setting('bench.off'), current_setting('bench.on');"
			done
		done
	} | nxm_psql -At -F' ' >"$NXM_TMP/all"
	for ((p = 1; p <= PAIRS; p++)); do
		awk -v p=$p '$1 == p && $2 > 0 { print $3, $4 }' "$NXM_TMP/all" >"$NXM_TMP/chunks"
		[ "$(wc -l <"$NXM_TMP/chunks")" = "$CHUNKS" ] || nxm_die "range_$n: chunks are missing"
		take "range_$n, OS cache" "$(median_chunk 1 2 <"$NXM_TMP/chunks")" a b
		pair "range_$n, OS cache, off/on" "$a" "$b"
	done
done
nxm_cluster_stop loaded

echo
echo "CPU time in shared_buffers, on / off and on / absent: median (least to greatest); pairs"
for c in $CASES; do
	report "$c, on/off" B/A ms '<=' 1.02
	report "$c, on/absent" B/A ms '<=' 1.02
done
echo
echo "CPU time in the operating system's cache, off / on: median (least to greatest); pairs off:on"
for n in 10 100 1000 10000; do report "range_$n, OS cache, off/on" A/B ms '>=' 0.95; done
