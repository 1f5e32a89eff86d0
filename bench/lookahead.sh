#!/bin/bash
# bench/lookahead.sh: what look-ahead gains in cold index scans, and what part of
# what the device allows.
#
#	PAIRS=5		pairs of runs of each case
#	ROWS=1500000	of the table, 1 kB each, in an order that its key knows nothing of
#	INDEX="cold warm"	the index: read from disk as well, or in shared_buffers
#	CASES=...	the cases to run, as they are named below
#
# A is nexusmem.enable_prefetch = off, B is on: both run the same ranges, which
# differ from pair to pair. Before each run the server restarts and the files of
# table and index leave the operating system's cache. Short scans are repeated at
# other places, still cold, so that a run reads enough to be timed. Sessions have
# planned their query, loaded its catalogs and touched all of shared_buffers before the
# clock starts.
#
# Limits: in a virtual machine the host's cache may have all of it, for both alike.
#
# The ceiling is ceiling.c on the table's own files, once in each pair.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 5
param ROWS 1500000
param INDEX "cold warm"
param SEED $RANDOM
param DISTANCE -1
CASES=${CASES:-"range_1 range_10 range_100 range_1000 range_10000 range_100000 wide_10000 ordered_100000 in_50 in_500 limit_1 limit_3 limit_10 limit_50 backward filtered index_only parallel"}
bench_begin lookahead "$@"

FROM_K="FROM bench WHERE k BETWEEN @s AND @s"
# define CASE: REPEAT scans of SPAN keys each; QUERY, what follows
# SELECT, with @s for the start; PLAN, which its plan must show.
define() {
	TARGET=() SET='' REPEAT=1 SPAN=10000 PLAN='Index Scan using bench_k'
	case $1 in
		range_*)
			SPAN=${1#range_}
			REPEAT=$((SPAN >= 3000 ? 1 : SPAN >= 10 ? 3000 / SPAN : 300))
			QUERY="count(pad) FROM (SELECT pad $FROM_K + $((SPAN - 1)) ORDER BY k) x"
			if [ "$SPAN" -ge 1000 ]; then TARGET=('>=' 3.5); fi
			;;
		limit_*)
			SPAN=${1#limit_}
			REPEAT=$((1500 / SPAN > 300 ? 300 : 1500 / SPAN))
			QUERY="count(pad) FROM (SELECT pad FROM bench WHERE k >= @s ORDER BY k LIMIT $SPAN) x"
			case $SPAN in 1 | 10) TARGET=('>=' 0.95) ;; esac
			;;
		wide_*)
			# some 30 entries a leaf
			SPAN=${1#wide_}
			QUERY="count(pad) FROM (SELECT pad FROM bench WHERE wide(k) BETWEEN wide(@s) AND wide(@s + $((SPAN - 1))) ORDER BY wide(k)) x"
			PLAN='Index Scan using bench_wide'
			;;
		ordered_*)
			# in the order of the table: the operating system reads ahead by itself
			SPAN=${1#ordered_}
			QUERY="count(pad) FROM (SELECT pad FROM bench WHERE place BETWEEN @s AND @s + $((SPAN - 1)) ORDER BY place) x"
			PLAN='Index Scan using bench_place'
			TARGET=('>=' 0.97)
			;;
		in_*)
			# so many keys, anywhere
			n=${1#in_}
			SPAN=1
			REPEAT=$((3000 / n))
			QUERY="count(pad) FROM bench WHERE k = ANY (ARRAY(SELECT (sign(@s) * (1 + (hashint4extended(i, @s) & 2147483647) % $ROWS))::int FROM generate_series(1, $n) i))"
			if [ "$n" = 500 ]; then TARGET=('>=' 3); fi
			;;
		backward)
			QUERY="count(pad) FROM (SELECT pad $FROM_K + 9999 ORDER BY k DESC) x"
			PLAN='Index Scan Backward using bench_k'
			;;
		filtered)
			QUERY="count(pad) FROM (SELECT pad $FROM_K + 9999 AND f = 7 ORDER BY k) x"
			TARGET=('>=' 3.3)
			;;
		index_only)
			SPAN=100000
			QUERY="count(k) FROM (SELECT k $FROM_K + 99999 ORDER BY k) x"
			PLAN='Index Only Scan using bench_k'
			;;
		parallel)
			QUERY="count(pad) $FROM_K + 9999"
			SET="SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
				SET min_parallel_index_scan_size = 0; SET min_parallel_table_scan_size = 0; SET cpu_tuple_cost = 1;"
			PLAN='Parallel Index Scan using bench_k'
			;;
		*) nxm_die "no case $1" ;;
	esac
	if [ "$SPAN" -ge "$ROWS" ]; then nxm_die "case $1 needs more than $SPAN rows"; fi
}

SETTINGS="SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off;
	SET max_parallel_workers_per_gather = 0; SET plan_cache_mode = force_generic_plan;"

# run on|off SEED: "ms rows issued" of the case that is defined.
run() {
	nxm_psql -At <<-SQL
		SET nexusmem.enable_prefetch = $1;
		SET nexusmem.prefetch_distance = $DISTANCE;
		$SETTINGS $SET
		$TOUCH_BUFFERS
		$WARM
		SELECT setseed($2 / 100000.0) \g /dev/null
		$(from_places "$QUERY" "$REPEAT" $((ROWS - SPAN + 1)))
		SELECT current_setting('bench.ms'), current_setting('bench.rows'), sum(issued) FROM nexusmem.session_prefetch();
	SQL
}

echo "preparing: $ROWS rows"
nxm_cluster_start main "$COLD_CONF
shared_buffers = 256MB"
nxm_psql <<-SQL
	SET max_parallel_workers_per_gather = 0;
	CREATE EXTENSION nexusmem;
	CREATE EXTENSION pg_prewarm;
	$(filler 256)
	BEGIN;
	CREATE TABLE bench (k int, f int, place int, pad text);
	CREATE FUNCTION wide(k int) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql RETURN lpad(k::text, 240, '0');
	ALTER TABLE bench ALTER pad SET STORAGE PLAIN;
	INSERT INTO bench SELECT k, abs(hashint4(k)) % 100, row_number() OVER (), repeat('x', 950)
		FROM (SELECT k FROM generate_series(1, $ROWS) k ORDER BY hashint4extended(k, $SEED)) s;
	COMMIT;
	CREATE INDEX bench_k ON bench (k);
	CREATE INDEX bench_place ON bench (place);
	$([[ $CASES != *wide* ]] || echo 'CREATE INDEX bench_wide ON bench (wide(k));')
	VACUUM (FREEZE, ANALYZE) bench;
	-- an aborted DELETE takes all-visible from a page and leaves no other trace
	BEGIN;
	DELETE FROM bench WHERE ctid = ANY (ARRAY(
		SELECT format('(%s,1)', b)::tid FROM generate_series(0, pg_relation_size('bench') / 8192 - 1, 100) b));
	ROLLBACK;
	SELECT count(pad) FROM bench \g /dev/null
	CHECKPOINT;
SQL
mapfile -t TABLE < <(relation_files bench)
mapfile -t INDEX_FILES < <(for i in $(nxm_psql -Atc "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'bench'::regclass"); do relation_files "$i"; done)
cc -O2 -o "$NXM_TMP/ceiling" "$NXM_ROOT/bench/ceiling.c"
nxm_psql -Atc "SELECT format('table %s, index %s', pg_size_pretty(pg_relation_size('bench')), pg_size_pretty(pg_relation_size('bench_k')))"
nxm_psql -Atc "SELECT format('status: %s, %s', state, detail) FROM nexusmem.status WHERE feature = 'index look-ahead'"

for c in $CASES; do
	define "$c"
	nxm_psql -At <<-SQL >"$NXM_TMP/plan"
		$SETTINGS $SET
		PREPARE q(int) AS SELECT ${QUERY//@s/\$1};
		EXPLAIN EXECUTE q(1);
	SQL
	grep -q "$PLAN" "$NXM_TMP/plan" || { cat "$NXM_TMP/plan"; nxm_die "$c has another plan than $PLAN"; }
done

# cold: nothing of table and index in any cache; warm: the index in shared_buffers
start() {
	cold_start "" "${TABLE[@]}" "${INDEX_FILES[@]}"
	WARM=
	if [ "$1" = warm ]; then WARM="SELECT pg_prewarm('${PLAN##* }') \\g /dev/null"; fi
}

declare -A ISSUED
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	nxm_cluster_stop main
	evict "${TABLE[@]}"
	take ceiling "$("$NXM_TMP/ceiling" 10000 32 $((SEED + p)) "${TABLE[@]}")" a b
	pair ceiling "$a" "$b"
	nxm_cluster_start main
	n=0
	for index in $INDEX; do
		for c in $CASES; do
			define "$c"
			seed=$(((SEED + p * 1009 + ++n * 101) % 100000))
			start "$index"
			take "$c off" "$(run off $seed)" off rows _
			start "$index"
			take "$c on" "$(run on $seed)" on rows_on issued
			if [ "$rows" != "$rows_on" ]; then nxm_die "$c: $rows rows with look-ahead off, $rows_on with it on"; fi
			pair "$c, index $index" "$off" "$on"
			ISSUED[$c]=$issued
		done
	done
done

echo
echo "speed-up, off / on: median (least to greatest); pairs off:on"
report ceiling A/B ms
for index in $INDEX; do
	for c in $CASES; do
		define "$c"
		report "$c, index $index" A/B ms "${TARGET[@]+"${TARGET[@]}"}"
	done
done
echo
echo "share of the ceiling, pair by pair"
for index in $INDEX; do
	for c in range_1000 range_10000 range_100000 filtered; do
		if [ "$c" = range_100000 ]; then least=0.90; else least=0.85; fi
		f=$(pairs_of "$c, index $index")
		[ -e "$f" ] || continue
		paste -d' ' "$f" "$(pairs_of ceiling)" | awk '{ print ($1 / $2) / ($3 / $4) }' | median |
			awk -v name="$c, index $index" -v least="$least" '{ printf("%-34s %7.0f %%  >= %.0f: %s\n", name, $1 * 100, least * 100, ($1 >= least) ? "met" : "MISSED") }'
	done
done
echo
echo "blocks read ahead in the last run: $(for c in $CASES; do printf '%s %s  ' "$c" "${ISSUED[$c]}"; done)"
