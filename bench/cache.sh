#!/bin/bash
# bench/cache.sh: the cache in a server, against an unlogged table with an expiry
# check; what an item takes; throughput by the number of clients.
#
#	PAIRS=5		pairs of runs of each case
#	ENTRIES=1000000	of cache and table, with values of 100 bytes
#	ROWS=100000	operations of a run in a statement or loop
#	SECONDS_A_RUN=3	of pgbench
#	CASES=table,mset,bytes,clients,latency
#
# One session's figures are its CPU time (/proc/self/schedstat): nanoseconds of one
# operation, in a statement over generate_series or in a loop in PL/pgSQL. The
# "floor" is the same statement that only makes the keys. Of mset they are nanoseconds of
# a key, which A sets by 32 in one call of cache_mset and B one by one; both read their keys
# in random order, with values of 100 bytes, from a table. The session has touched
# all memory before, and has seen there that reads find all entries. Figures of several
# clients are operations a second by the clock. What share of the segments in use is live
# entries: bench/core_cache.sh, for no view tells segments from the index. Latencies are of statements over the socket, with one client a core; those
# of the operations alone: bench/core_cache.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 5
param ENTRIES 1000000
param ROWS 100000
param SECONDS_A_RUN 3
param CASES table,mset,bytes,clients,latency
bench_begin cache "$@"

nxm_cluster_start main "shared_preload_libraries = 'nexusmem'
shared_buffers = 1GB
max_wal_size = 8GB
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
nexusmem.cache_size = 1GB
nexusmem.save = off"
nxm_psql <<-SQL
	CREATE EXTENSION nexusmem;
	$CREATE_CPU
	CREATE UNLOGGED TABLE kv (k text PRIMARY KEY, v text, expires timestamptz);
SQL

# keys in random order: 611953 is a prime that divides no usual number of entries
KEY="('k' || ((i::bigint * 611953 + @) % $ENTRIES))"
ORDERED="('k' || ((i::bigint + @ * 1000) % $ENTRIES))"
VALUE="'$(printf 'v%.0s' {1..100})'::text"
PAYLOAD=$(awk -v n="$ENTRIES" 'BEGIN { for (i = 0; i < n; i++) sum += length("k" i) + 100; print sum / n }')

# fill [TTL [CACHE]]: all keys; the time to live may depend on i
fill() {
	nxm_psql -Atc "SELECT count(*) FROM (SELECT nexusmem.cache_set('k' || i, $VALUE, ${1:-NULL}, '${2:-default}') FROM generate_series(0, $ENTRIES - 1) i OFFSET 0) s" >/dev/null
}

# filled [CACHE]: SQL that is an error unless all keys are there
filled() { echo "SELECT all_of(count(nexusmem.cache_get('k' || i, '${1:-default}')), $ENTRIES) FROM generate_series(0, $ENTRIES - 1) i"; }

if has_case table; then
	echo "against the table: $ENTRIES values of 100 bytes"
	nxm_psql -c "INSERT INTO kv SELECT 'k' || i, $VALUE FROM generate_series(0, $ENTRIES - 1) i" -c 'VACUUM (ANALYZE) kv' -c CHECKPOINT
	hour="interval '1 hour'"
	fill
	fill "$hour" ttl
	live="(expires IS NULL OR expires > now())"
	upsert() { printf 'INSERT INTO kv VALUES (%s, %s, %s) ON CONFLICT (k) DO UPDATE SET v = excluded.v, expires = excluded.expires' "$KEY" "$VALUE" "$1"; }
	AFTER="$(filled); $(filled ttl); SELECT all_of(count(*), $ENTRIES) FROM kv WHERE $live;"
	WARM="SELECT count(*) FROM (SELECT nexusmem.cache_set(k, v) FROM kv OFFSET 0) s; SELECT count(*) FROM (SELECT nexusmem.cache_set(k, v, $hour, 'ttl') FROM kv OFFSET 0) s; $AFTER"
	few=$((ROWS / 5))
	ALL=("floor" "$(over "$KEY" "$ROWS")" "$ROWS" "$(over "$KEY" "$ROWS")" "$ROWS"
		"cache_get, random order" "$(over "nexusmem.cache_get($KEY)" "$ROWS")" "$ROWS" "$(over "(SELECT v FROM kv WHERE k = $KEY AND $live)" "$ROWS")" "$ROWS"
		"cache_get, key order" "$(over "nexusmem.cache_get($ORDERED)" "$ROWS")" "$ROWS" "$(over "(SELECT v FROM kv WHERE k = $ORDERED AND $live)" "$ROWS")" "$ROWS"
		"cache_get, loop" "$(loop "x := nexusmem.cache_get($KEY)" "$ROWS")" "$ROWS" "$(loop "SELECT v INTO x FROM kv WHERE k = $KEY AND $live" "$ROWS")" "$ROWS"
		"cache_set, loop" "$(loop "b := nexusmem.cache_set($KEY, $VALUE) IS NULL" "$ROWS")" "$ROWS" "$(loop "$(upsert NULL)" "$few")" "$few"
		"cache_set with a TTL, loop" "$(loop "b := nexusmem.cache_set($KEY, $VALUE, $hour, 'ttl') IS NULL" "$ROWS")" "$ROWS" "$(loop "$(upsert "now() + $hour")" "$few")" "$few"
		"cache_get with a TTL, loop" "$(loop "x := nexusmem.cache_get($KEY, 'ttl')" "$ROWS")" "$ROWS" "$(loop "SELECT v INTO x FROM kv WHERE k = $KEY AND $live" "$ROWS")" "$ROWS")
	BETWEEN="VACUUM kv;"
	in_one_session
	BETWEEN='' AFTER=''
	nxm_psql -Atc "SELECT nexusmem.cache_drop('ttl')" >/dev/null
	minus "floor" "cache_get, random order"
	figure "floor"
	report "cache_get, loop" B/A ns '>=' 8
	report "cache_get, random order, floor subtracted" B/A ns '>=' 7
	report "cache_get, random order" B/A ns '>=' 5
	report "cache_get, key order" B/A ns
	report "cache_get with a TTL, loop" B/A ns
	report "cache_set, loop" B/A ns '>=' 10
	report "cache_set with a TTL, loop" B/A ns '>=' 10
	echo
fi

if has_case mset; then
	echo "cache_mset of 32 keys against single sets: $ENTRIES values of 100 bytes"
	nxm_psql <<-SQL
		CREATE TABLE single AS SELECT i, 'k' || (i::bigint * 611953 % $ENTRIES) AS k, $VALUE AS v FROM generate_series(0, $ENTRIES - 1) i;
		CREATE TABLE batch (i int, k text[], v text[]);
		-- not compressed
		ALTER TABLE batch ALTER k SET STORAGE PLAIN, ALTER v SET STORAGE PLAIN;
		INSERT INTO batch SELECT s.i / 32, array_agg(k ORDER BY s.i), array_agg(v) FROM single s GROUP BY s.i / 32;
		CREATE INDEX ON single (i);
		CREATE INDEX ON batch (i);
		VACUUM (ANALYZE) single, batch;
		CHECKPOINT;
	SQL
	fill
	batches=$((ROWS / 32)) places=$((ENTRIES / 32 - ROWS / 32))
	[ "$places" -gt 0 ] || nxm_die "ROWS must be less than ENTRIES"
	WARM="SELECT all_of(sum(nexusmem.cache_mset(k, v)), $ENTRIES) FROM batch; SELECT count(*) FROM (SELECT nexusmem.cache_set(k, v) FROM single OFFSET 0) s; $(filled);"
	ALL=("cache_mset of 32 / cache_set"
		"SELECT sum(nexusmem.cache_mset(k, v)) FROM batch WHERE i BETWEEN @ % $places AND @ % $places + $((batches - 1))" $((batches * 32))
		"SELECT count(*) FROM (SELECT nexusmem.cache_set(k, v) FROM single WHERE i BETWEEN @ % $places * 32 AND @ % $places * 32 + $((batches * 32 - 1)) OFFSET 0) s" $((batches * 32)))
	in_one_session
	report "cache_mset of 32 / cache_set" B/A ns '>=' 1
	nxm_psql -c 'DROP TABLE single, batch'
	echo
fi

# one cache_get and one cache_set a statement, of a random key
single_scripts() {
	printf '\\set key random(0, %d)\n%s\n' $((ENTRIES - 1)) "SELECT nexusmem.cache_get('k' || :key);" | as_postgres tee "$NXM_TMP/get.sql" >/dev/null
	printf '\\set key random(0, %d)\n%s\n' $((ENTRIES - 1)) "SELECT nexusmem.cache_set('k' || :key, $VALUE);" | as_postgres tee "$NXM_TMP/set.sql" >/dev/null
}

# cache_size MB: sets it, or the default of this script for none
cache_size() {
	if [ -n "${1:-}" ]; then nxm_psql -c "ALTER SYSTEM SET nexusmem.cache_size = '$1MB'"; else nxm_psql -c 'ALTER SYSTEM RESET nexusmem.cache_size'; fi
	nxm_psql -Atc 'SELECT pg_reload_conf()' >/dev/null
	sleep 2
}

# item_bytes WHAT TARGET: all memory of caches, for each entry, beyond key and value; and
# what stat_cache says of it
item_bytes() {
	local line each entries used bytes overhead
	line=$(nxm_psql -At -F' ' <<-SQL
		SELECT (used - $used_before)::numeric / entries - $PAYLOAD, entries, used - $used_before, bytes, overhead
		FROM (SELECT sum(entries) AS entries, sum(bytes) AS bytes, sum(overhead_bytes) AS overhead FROM nexusmem.stat_cache) c,
			(SELECT sum(used_bytes) AS used FROM nexusmem.node_memory) m;
	SQL
	)
	take "$1" "$line" each entries used bytes overhead
	[[ $each != -* ]] || nxm_die "$1: less memory is in use than the entries take: what was cleared before counts as theirs"
	awk -v what="$1" -v target="$2" -v each="$each" -v n="$entries" -v used="$used" -v bytes="$bytes" -v overhead="$overhead" 'BEGIN {
		printf "%-34s %8.1f  (%d entries, %.1f MB in use; stat_cache: bytes %.1f, overhead_bytes %.1f an entry)  <= %s: %s\n",
			what, each, n, used / 1048576, bytes / n, overhead / n, target, each <= target ? "met" : "MISSED" }'
}

if has_case bytes; then
	echo "bytes of overhead an item, of keys and values of $PAYLOAD bytes, everything counted"
	nxm_psql -Atc "SELECT nexusmem.cache_clear()" >/dev/null
	# what was cleared is drained by a worker
	used_before='' same=0
	for ((i = 0; i < 300 && same < 10; i++)); do
		now=$(nxm_psql -Atc 'SELECT sum(used_bytes) FROM nexusmem.node_memory')
		if [ "$now" = "$used_before" ]; then same=$((same + 1)); else same=0; fi
		used_before=$now
		sleep 0.2
	done
	fill
	item_bytes "filled once" 20
	nxm_psql -Atc "SELECT count(*) FROM (SELECT nexusmem.cache_set('k' || (random() * ($ENTRIES - 1))::int, $VALUE) FROM generate_series(1, 2 * $ENTRIES) OFFSET 0) s" >/dev/null
	sleep 2
	item_bytes "after as many random overwrites, 2x" 20
	nxm_psql -Atc "SELECT nexusmem.cache_clear()" >/dev/null
	sleep 2
	fill "make_interval(hours => 1 << (i % 8))"
	item_bytes "with 8 different TTLs" 20
	limit=$(awk -v n="$ENTRIES" -v p="$PAYLOAD" 'BEGIN { print int(n * (p + 20) / 2 / 1048576) }')
	cache_size "$limit"
	fill
	take "full, of the limit" "$(nxm_psql -At -F' ' -c "SELECT sum(entries), $limit::bigint * 1048576 / sum(entries)::numeric - $PAYLOAD FROM nexusmem.stat_cache")" entries each
	awk -v n="$entries" -v each="$each" -v limit="$limit" 'BEGIN {
		printf "%-34s %8.1f  (%d entries in cache_size = %d MB)  <= 20: %s\n", "full, of the limit", each, n, limit, each <= 20 ? "met" : "MISSED" }'
	cache_size
	echo
fi

if has_case clients; then
	echo "operations a second by clients, 95 % cache_get, 5 % cache_set"
	fill
	settle_memory
	key="'k' || ((i::bigint * 611953 + :seed) % $ENTRIES)"
	single_scripts
	{
		printf '\\set seed random(1, 1000000000)\n'
		printf 'SELECT count(CASE WHEN i %% 20 = 0 THEN CASE WHEN nexusmem.cache_set(%s, %s) IS NULL THEN 1 END ELSE length(nexusmem.cache_get(%s)) END) FROM generate_series(1, 10000) i;\n' "$key" "$VALUE" "$key"
	} | as_postgres tee "$NXM_TMP/many.sql" >/dev/null
	# the same without the cache: what the machine and the server make of more clients
	printf '\\set seed random(1, 1000000000)\nSELECT sum(hashtext(%s)) FROM generate_series(1, 10000) i;\n' "$key" | as_postgres tee "$NXM_TMP/floor_many.sql" >/dev/null
	printf '\\set key random(0, %d)\nSELECT hashtext(%s);\n' $((ENTRIES - 1)) "'k' || :key" | as_postgres tee "$NXM_TMP/floor.sql" >/dev/null
	warm=$(filled)
	kinds=("10,000 a statement" "one a statement" "10,000 a statement, without the cache" "one a statement, without the cache")
	for ((p = 0; p < PAIRS; p++)); do
		last=()
		for n in 1 2 4 16; do
			these=("$(warm_clients $n 10000 "$warm" "$NXM_TMP/many.sql")"
				"$(warm_clients $n 1 "$warm" "$NXM_TMP/get.sql@95" "$NXM_TMP/set.sql@5")"
				"$(warm_clients $n 10000 "$warm" "$NXM_TMP/floor_many.sql")"
				"$(warm_clients $n 1 "$warm" "$NXM_TMP/floor.sql")")
			for k in "${!kinds[@]}"; do
				[ -z "${last[*]}" ] || pair "$n clients against ${last[4]}, ${kinds[k]}" "${these[k]}" "${last[k]}"
			done
			last=("${these[@]}" "$n")
		done
	done
	for k in "${!kinds[@]}"; do
		for n in "2 clients against 1" "4 clients against 2" "16 clients against 4"; do
			report "$n, ${kinds[k]}" A/B "a second" $([ "$k" -ge 2 ] || echo ">= 0.95")
		done
	done
	# what is the cache's part in it
	for k in 0 1; do
		for n in "2 clients against 1" "4 clients against 2" "16 clients against 4"; do
			paste -d' ' "$(pairs_of "$n, ${kinds[k]}")" "$(pairs_of "$n, ${kinds[k + 2]}")" >"$NXM_TMP/both"
			while read -r line; do
				take "$n, ${kinds[k]}" "$line" more few floor_more floor_few
				pair "$n, ${kinds[k]}, with the cache over without" \
					"$(awk "BEGIN { print $more / $few }")" "$(awk "BEGIN { print $floor_more / $floor_few }")"
			done <"$NXM_TMP/both"
			report "$n, ${kinds[k]}, with the cache over without" A/B "ratio" '>=' 0.95
		done
	done
fi

if has_case latency; then
	echo
	echo "microseconds of a statement, half cache_get and half cache_set, a client a core"
	single_scripts
	fill
	limit=$(awk -v n="$ENTRIES" -v p="$PAYLOAD" 'BEGIN { print int(n * (p + 20) / 2 / 1048576) }')
	# latencies: median and 99.9 % of statements
	latencies() {
		rm -f "$NXM_TMP"/latency.*
		as_postgres "$PG_BIN/pgbench" -n -M prepared -c "$(nproc)" -j "$(nproc)" -T "$SECONDS_A_RUN" \
			-l --log-prefix="$NXM_TMP/latency" -f "$NXM_TMP/get.sql" -f "$NXM_TMP/set.sql" >/dev/null
		cat "$NXM_TMP"/latency.* | awk '{ print $3 }' | sort -n |
			awk '{ v[NR] = $1 } END { print v[int(NR * 0.5) + 1], v[int(NR * 0.999) + 1] }'
	}
	for ((p = 1; p <= PAIRS; p++)); do
		cache_size
		fill
		nxm_psql -Atc "$(filled)" >/dev/null
		take "latencies at rest" "$(latencies)" rest_median rest
		cache_size "$limit"
		fill
		take "latencies, evicting" "$(latencies)" evicting_median evicting
		pair "99.9 %, evicting / at rest" "$rest" "$evicting"
		pair "median, evicting / at rest" "$rest_median" "$evicting_median"
	done
	cache_size
	report "99.9 %, evicting / at rest" B/A us '<=' 10
	report "median, evicting / at rest" B/A us
fi
