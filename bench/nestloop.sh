#!/bin/bash
# bench/nestloop.sh: what look-ahead over the outer side gains in nested loops.
#
#	PAIRS=5		pairs of runs of each case
#	ROWS=800000	of the table that is probed, 1 kB each, in no order of its key
#	CHUNKS=15	parts of a run of the cached cases
#	CASES=...	the cases to run, as they are named below
#
# A is without look-ahead, B with it. IN_SCAN=on has A use the index scans' own, which
# gains where the inner side returns several rows: B is then what this setting adds.
# Both run the same queries, which differ from pair to pair.
#
# Cold: before each run the server restarts, and the files of what is probed leave
# the operating system's cache; "warm index" reads the index back into
# shared_buffers. The outer side is in shared_buffers always, but for the joins of
# tables. Sessions have planned their query and loaded its catalogs before the
# clock starts. The ceiling is ceiling.c on the table's own files, once in each pair:
# what reading ahead at a distance of 32 can gain on this device.
#
# The session has touched all of shared_buffers before (see lib.sh), which are small.
#
# Cached: all in shared_buffers, or, with 4 MB of these, all in the operating system's
# cache. The figure is the backend's CPU time; a run is cut in chunks of A and B that take
# turns in one session, and the least one of each counts: what other processes do to a chunk
# can only add to it. cached_rows is many joins of
# one outer row each, with nothing to look ahead to: it tells, without a target, what it
# costs that the plan is another one.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 5
param ROWS 800000
param CHUNKS 15
param SEED $RANDOM
param DISTANCE -1
param IN_SCAN off
COLD="probes_100 probes_1000 probes_10000 warm_index_10000 index_only_10000 limit_10 limit_100 parallel_10000 orders directory"
CASES=${CASES:-"$COLD cached cached_rows os_cached"}
bench_begin nestloop "$@"

# define CASE: QUERY, what follows SELECT, with @s for where to begin; REPEAT times
# at other places; PLAN, which its plan must show.
define() {
	TARGET=() REPEAT=1 WARM='' SET='' PLAN='Index Scan using bench_k on bench'
	local n=${1##*_}
	case $1 in
		probes_* | warm_index_*)
			REPEAT=$((n >= 3000 ? 1 : 3000 / n))
			QUERY="count(b.pad) FROM outside a JOIN bench b ON b.k = a.k WHERE a.n BETWEEN @s AND @s + $((n - 1))"
			case $1 in
				probes_1000) TARGET=('>=' 3) ;;
				probes_10000) TARGET=('>=' 3.5) ;;
				warm_*) WARM=bench_k TARGET=('>=' 3) ;;
			esac
			;;
		index_only_*)
			QUERY="count(b.k) FROM outside a JOIN bench b ON b.k = a.k WHERE a.n BETWEEN @s AND @s + $((n - 1))"
			PLAN='Index Only Scan using bench_k on bench'
			;;
		parallel_*)
			QUERY="count(b.pad) FROM outside a JOIN bench b ON b.k = a.k WHERE a.n BETWEEN @s AND @s + $((n - 1))"
			SET="SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
				SET min_parallel_index_scan_size = 0; SET min_parallel_table_scan_size = 0;"
			PLAN='Parallel Index'
			;;
		limit_*)
			REPEAT=$((3000 / n))
			QUERY="count(x.pad) FROM (SELECT b.pad FROM outside a JOIN bench b ON b.k = a.k WHERE a.n >= @s ORDER BY a.n LIMIT $n) x"
			case $n in 10) TARGET=('>=' 0.95) ;; esac
			;;
		orders)
			QUERY="count(l.pad) FROM customer c JOIN orders o ON o.customer = c.id JOIN line l ON l.order_id = o.id WHERE c.region BETWEEN @s % 90 AND @s % 90 + 1"
			PLAN='Index Scan using line_order_id on line'
			TARGET=('>=' 2.5)
			;;
		directory)
			QUERY="count(b.pad) FROM file a JOIN file b ON b.directory = a.directory AND b.id <> a.id WHERE a.id BETWEEN @s AND @s + 1000"
			PLAN='Index Scan using file_directory on file'
			TARGET=('>=' 2.5)
			;;
		cached | os_cached)
			QUERY="count(b.pad) FROM outside a JOIN bench b ON b.k = a.k WHERE a.n BETWEEN @s AND @s + 2999"
			TARGET=('>=' 0.97)
			if [ "$1" = os_cached ]; then TARGET=('>=' 0.95); fi
			;;
		cached_rows)
			# loops of one outer row: what changing the plan costs
			REPEAT=1000
			QUERY="count(b.pad) FROM outside a JOIN bench b ON b.k = a.k WHERE a.n = @s"
			;;
		*) nxm_die "no case $1" ;;
	esac
}

SETTINGS="SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_hashjoin = off;
	SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off; SET jit = off;
	SET max_parallel_workers_per_gather = 0; SET plan_cache_mode = force_generic_plan;"

# run on|off SEED: "ms rows issued" of the case that is defined.
run() {
	nxm_psql -At <<-SQL
		SET nexusmem.enable_nestloop_prefetch = $1;
		SET nexusmem.enable_prefetch = $(if [ "$1" = on ]; then echo on; else echo "$IN_SCAN"; fi);
		SET nexusmem.prefetch_distance = $DISTANCE;
		$SETTINGS $SET
		$TOUCH_BUFFERS
		SELECT pg_prewarm(r) FROM unnest('{outside,outside_n${WARM:+,$WARM}}'::text[]) r \g /dev/null
		SELECT setseed($2 / 100000.0) \g /dev/null
		$(from_places "$QUERY" "$REPEAT" $((ROWS - 20000 + 1)))
		SELECT current_setting('bench.ms'), current_setting('bench.rows'), sum(issued) FROM nexusmem.session_prefetch() WHERE kind = 'nestloop';
	SQL
}

# chunks SEED: "off on", the least CPU time of either's chunks.
# of the setting of nested loops alone: the inner scans have their own look-ahead in both
chunks() {
	nxm_psql -At <<-SQL | tail -n 1
		$SETTINGS
		SELECT setseed($1 / 100000.0) \g /dev/null
		DO \$\$
		DECLARE
			s int;
			seed float;
			n bigint;
			began bigint;
			took bigint;
			least bigint[] := '{NULL,NULL}';
		BEGIN
			FOR chunk IN 0..$CHUNKS LOOP
				seed := random();
				FOR i IN 1..2 LOOP
					PERFORM set_config('nexusmem.enable_nestloop_prefetch', (ARRAY['off', 'on'])[i], false);
					-- once to fill the CPU's caches, once for the clock
					FOR j IN 0..2 * $REPEAT - 1 LOOP
						IF j % $REPEAT = 0 THEN PERFORM setseed(seed); END IF;
						IF j = $REPEAT THEN began := $CPU_NS; END IF;
						s := 1 + (random() * ($ROWS - 20000))::int;
						n := ${QUERY//@s/s};
					END LOOP;
					took := $CPU_NS - began;
					IF chunk > 0 THEN least[i] := least(least[i], took); END IF;
					PERFORM setseed(seed / 2);
				END LOOP;
			END LOOP;
			PERFORM set_config('bench.ns', least[1] || ' ' || least[2], false);
		END \$\$;
		SELECT current_setting('bench.ns');
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
	CREATE TABLE bench (k int, pad text);
	ALTER TABLE bench ALTER pad SET STORAGE PLAIN;
	INSERT INTO bench SELECT k, repeat('x', 950)
		FROM (SELECT k FROM generate_series(1, $ROWS) k ORDER BY hashint4extended(k, $SEED)) s;
	CREATE TABLE outside AS SELECT row_number() OVER ()::int AS n, k
		FROM (SELECT k FROM generate_series(1, $ROWS) k ORDER BY hashint4extended(k, $SEED + 1)) s;
	-- 100 regions of 20 customers, 10 orders each, 5 lines each
	CREATE TABLE customer AS SELECT i AS id, i % 100 AS region, repeat('c', 300) AS pad
		FROM generate_series(1, 2000) i ORDER BY hashint4extended(i, $SEED + 2);
	CREATE TABLE orders AS SELECT i AS id, i % 2000 + 1 AS customer, repeat('o', 500) AS pad
		FROM generate_series(1, 20000) i ORDER BY hashint4extended(i, $SEED + 3);
	CREATE TABLE line AS SELECT i AS id, i % 20000 + 1 AS order_id, repeat('l', 900) AS pad
		FROM generate_series(1, 100000) i ORDER BY hashint4extended(i, $SEED + 4);
	-- 50,000 directories of 4 to 5 files
	CREATE TABLE file AS SELECT i AS id, md5((hashint4extended(i, 7) % 50000)::text) AS directory, repeat('f', 400) AS pad
		FROM generate_series(1, $ROWS) i ORDER BY hashint4extended(i, $SEED + 5);
	COMMIT;
	CREATE INDEX bench_k ON bench (k);
	CREATE INDEX outside_n ON outside (n);
	CREATE INDEX customer_region ON customer (region);
	CREATE INDEX orders_customer ON orders (customer);
	CREATE INDEX line_order_id ON line (order_id);
	CREATE INDEX file_id ON file (id);
	CREATE INDEX file_directory ON file (directory);
	VACUUM (FREEZE, ANALYZE) bench, outside, customer, orders, line, file;
	-- an aborted DELETE takes all-visible from pages and leaves no other trace
	BEGIN;
	DELETE FROM bench WHERE k % 5 = 0;
	ROLLBACK;
	SELECT count(pad) FROM bench \g /dev/null
	CHECKPOINT;
SQL
mapfile -t FILES < <(for r in bench bench_k customer customer_region orders orders_customer line line_order_id file file_id file_directory; do relation_files "$r"; done)
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

cc -O2 -o "$NXM_TMP/ceiling" "$NXM_ROOT/bench/ceiling.c"
mapfile -t TABLE < <(relation_files bench)
declare -A ISSUED
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	nxm_cluster_stop main
	evict "${TABLE[@]}"
	take ceiling "$("$NXM_TMP/ceiling" 10000 32 $((SEED + p)) "${TABLE[@]}")" a b
	pair ceiling "$a" "$b"
	nxm_cluster_start main
	n=0
	for c in $CASES; do
		seed=$(((SEED + p * 1009 + ++n * 101) % 100000))
		define "$c"
		case $c in *cached*) continue ;; esac
		cold_start "" "${FILES[@]}"
		take "$c off" "$(run off $seed)" off rows _
		cold_start "" "${FILES[@]}"
		take "$c on" "$(run on $seed)" on rows_on issued
		if [ "$rows" != "$rows_on" ]; then nxm_die "$c: $rows rows with look-ahead off, $rows_on with it on"; fi
		pair "$c" "$off" "$on"
		ISSUED[$c]=$issued
	done
done
# small shared_buffers come last: the configuration stays
for size in 2GB 4MB; do
	cases=$(for c in $CASES; do case $size:$c in 2GB:cached* | 4MB:os_cached) echo "$c" ;; esac done)
	if [ -z "$cases" ]; then continue; fi
	nxm_cluster_stop main
	nxm_cluster_start main "shared_buffers = $size"
	nxm_psql -Atc "SELECT pg_prewarm('bench', 'read'), pg_prewarm('bench_k', 'read')" >/dev/null
	if [ "$size" = 2GB ]; then nxm_psql -Atc "SELECT pg_prewarm('bench'), pg_prewarm('bench_k'), pg_prewarm('outside'), pg_prewarm('outside_n')" >/dev/null; fi
	for ((p = 1; p <= PAIRS; p++)); do
		for c in $cases; do
			define "$c"
			take "$c" "$(chunks $(((SEED + p * 1009) % 100000)))" off on
			pair "$c" "$off" "$on"
		done
	done
done

echo
echo "speed-up, off / on: median (least to greatest); pairs off:on"
report ceiling A/B ms
for c in $CASES; do
	define "$c"
	unit=ms
	case $c in *cached*) unit='CPU ns' ;; esac
	report "$c" A/B "$unit" "${TARGET[@]+"${TARGET[@]}"}"
done
echo
echo "blocks read ahead in the last run: $(for c in $CASES; do printf '%s %s  ' "$c" "${ISSUED[$c]:-}"; done)"
