#!/bin/bash
# bench/structures.sh: counters and maps in a server, against a sequence, a row
# that all update, an unlogged table, and dshash.
#
#	PAIRS=5		pairs of runs of each case
#	ENTRIES=1000000	of map and table, with values of 100 bytes
#	ROWS=100000	operations of a run in a statement or loop
#	UPDATES=2000	of one row, in a run
#	BLOCK=100	of them in a transaction, where the row's versions are to be few
#	CLIENTS=4	of what runs at the same time
#	SECONDS_A_RUN=3	of pgbench
#	CASES=counter,blocks,map,commit,dshash,dshash_small
#
# One session's figures are its CPU time (/proc/self/schedstat): nanoseconds of one
# operation, in a statement over generate_series or in a loop in PL/pgSQL. The
# "floor" is the same statement that only makes the keys. The session has touched
# all memory before, and has seen there that reads find all entries; what the first touches
# cost is told apart. Figures of several clients are operations a second by the clock.
#
# A row that a transaction has updated n times has n versions, none of which may be removed
# before it ends, and the next UPDATE walks along them to find the last one. So the ratio
# of "counter_add against UPDATE, no commits", all in one transaction, grows with UPDATES.
# "in blocks of BLOCK" is as many UPDATEs in transactions of BLOCK each, without waiting for
# the disk (synchronous_commit off): versions then are as few as a page of the table holds.
#
# The memory of nexusmem's maps is in transparent huge pages, as it is by default where the
# kernel allows it; that of dshash, in PostgreSQL's dynamic shared memory areas, is in pages of
# 4 kB, for nobody asks for more. So a part of what "dshash" tells is the pages': random reads
# wait for fewer page walks. "dshash_small" is the same on a server with huge_pages = off, where
# neither has any.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 5
param ENTRIES 1000000
param ROWS 100000
param UPDATES 2000
param BLOCK 100
param CLIENTS 4
param SECONDS_A_RUN 3
param CASES counter,blocks,map,commit,dshash,dshash_small
bench_begin structures "$@"

as_postgres mkdir -p "$NXM_TMP/tree/bench" "$NXM_TMP/tree/src"
as_postgres cp -r "$NXM_BUILD/bench/dshash_user" "$NXM_TMP/tree/bench/"
as_postgres cp "$NXM_BUILD/src/nexusmem_api.h" "$NXM_TMP/tree/src/"
nxm_log build as_postgres make -C "$NXM_TMP/tree/bench/dshash_user" PG_CONFIG="$PG_CONFIG" with_llvm=no
DSHASH=$NXM_TMP/tree/bench/dshash_user/dshash_user

nxm_cluster_start main "shared_preload_libraries = 'nexusmem,$DSHASH'
shared_buffers = 1GB
max_wal_size = 8GB
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
nexusmem.memory_limit = 1GB
nexusmem.save = off"
nxm_psql <<-SQL
	CREATE EXTENSION nexusmem;
	CREATE FUNCTION dshash_put(text, text) RETURNS bool LANGUAGE c STRICT AS '$DSHASH';
	CREATE FUNCTION dshash_get(text) RETURNS text LANGUAGE c STRICT AS '$DSHASH';
	CREATE FUNCTION dshash_run(bigint, int, int, bigint) RETURNS bigint LANGUAGE c STRICT AS '$DSHASH';
	CREATE FUNCTION nexusmem_count(bigint, text) RETURNS bigint LANGUAGE c STRICT AS '$DSHASH';
	CREATE FUNCTION nexusmem_run(bigint, int, int, bigint) RETURNS bigint LANGUAGE c STRICT AS '$DSHASH';
	$CREATE_CPU
	CREATE UNLOGGED TABLE kv (k text PRIMARY KEY, v text);
	CREATE TABLE hot (id int PRIMARY KEY, n bigint);
	INSERT INTO hot VALUES (1, 0);
	CREATE SEQUENCE s;
	DO \$\$ BEGIN PERFORM nexusmem.counter_create('exact'), nexusmem.counter_create('striped', true); END \$\$;
SQL

# keys in random order: 611953 is a prime that divides no usual number of entries
KEY="('k' || ((i::bigint * 611953 + @) % $ENTRIES))"
ORDERED="('k' || ((i::bigint + @ * 1000) % $ENTRIES))"
VALUE="'$(printf 'v%.0s' {1..100})'"

if has_case counter; then
	echo "counters"
	WARM="SELECT 1;"
	# with the first pair, which is not counted
	AFTER="SELECT all_of(n, $UPDATES * ($PAIRS + 1)) FROM hot;"
	ALL=("counter_add against nextval" "$(over "nexusmem.counter_add('exact')" "$ROWS")" "$ROWS" "$(over "nextval('s')" "$ROWS")" "$ROWS"
		"floor of counters" "$(over "i" "$ROWS")" "$ROWS" "$(over "i" "$ROWS")" "$ROWS"
		"striped against exact" "$(over "nexusmem.counter_add('striped') IS NULL" "$ROWS")" "$ROWS" "$(over "nexusmem.counter_add('exact') IS NULL" "$ROWS")" "$ROWS"
		"counter_add against UPDATE, no commits" "$(loop "y := nexusmem.counter_add('exact')" "$ROWS")" "$ROWS" "$(loop "UPDATE hot SET n = n + 1 WHERE id = 1" "$UPDATES")" "$UPDATES")
	BETWEEN="VACUUM hot;"
	in_one_session
	BETWEEN='' AFTER=''
	minus "floor of counters" "counter_add against nextval"
	figure "floor of counters"
	report "counter_add against nextval" A/B "ns" '<=' 0.5
	report "counter_add against nextval, floor subtracted" A/B "ns" '<=' 0.5
	report "striped against exact" B/A "ns"
	report "counter_add against UPDATE, no commits" B/A "ns" '>=' 20
	for which in exact striped; do
		echo "$(over "nexusmem.counter_add('$which')" 10000);" | as_postgres tee "$NXM_TMP/$which.sql" >/dev/null
		echo "SELECT nexusmem_count(100000, '$which');" | as_postgres tee "$NXM_TMP/$which-c.sql" >/dev/null
	done
	for ((p = 1; p <= PAIRS; p++)); do
		pair "striped against exact, $CLIENTS clients, SQL" "$(clients "$NXM_TMP/striped.sql" 10000)" "$(clients "$NXM_TMP/exact.sql" 10000)"
		pair "striped against exact, $CLIENTS clients, C" "$(clients "$NXM_TMP/striped-c.sql" 100000)" "$(clients "$NXM_TMP/exact-c.sql" 100000)"
	done
	report "striped against exact, $CLIENTS clients, SQL" A/B "a second" '>=' 1
	report "striped against exact, $CLIENTS clients, C" A/B "a second" '>=' 1
	echo
fi

# blocks NAME STATEMENT: the procedure NAME(blocks, block): CPU nanoseconds of a statement
blocks() {
	cat <<-SQL
		CREATE PROCEDURE $1(blocks int, block int, INOUT ns numeric) LANGUAGE plpgsql AS \$\$
		DECLARE
			y bigint;
			began bigint;
		BEGIN
			began := $CPU_NS;
			FOR b IN 1..blocks LOOP
				FOR i IN 1..block LOOP $2; END LOOP;
				COMMIT;
			END LOOP;
			ns := round(($CPU_NS - began)::numeric / (blocks * block), 1);
		END \$\$;
	SQL
}

if has_case blocks; then
	echo "counters, in transactions of $BLOCK statements"
	[ "$UPDATES" -ge "$BLOCK" ] && [ "$ROWS" -ge "$BLOCK" ] || nxm_die "UPDATES and ROWS must be at least BLOCK"
	{
		blocks counter_blocks "y := nexusmem.counter_add('exact')"
		blocks update_blocks "UPDATE hot SET n = n + 1 WHERE id = 1"
	} | nxm_psql
	for ((p = 1; p <= PAIRS; p++)); do
		nxm_psql -At -F' ' <<-SQL >"$NXM_TMP/out"
			SET synchronous_commit = off;
			UPDATE hot SET n = 0;
			-- the first call of each plans
			CALL counter_blocks(1, $BLOCK, 0);
			CALL update_blocks(1, $BLOCK, 0);
			VACUUM hot;
			CALL counter_blocks($((ROWS / BLOCK)), $BLOCK, 0);
			CALL update_blocks($((UPDATES / BLOCK)), $BLOCK, 0);
			SELECT all_of(n, $(((UPDATES / BLOCK + 1) * BLOCK))) FROM hot;
		SQL
		take "counter_add against UPDATE, in blocks" "$(paste -sd' ' "$NXM_TMP/out")" _ _ a b _
		pair "counter_add against UPDATE, in blocks of $BLOCK" "$a" "$b"
	done
	report "counter_add against UPDATE, in blocks of $BLOCK" B/A "ns" '>=' 20
	echo
fi

if has_case commit; then
	echo "counters, a commit each"
	echo "SELECT nexusmem.counter_add('exact');" | as_postgres tee "$NXM_TMP/counter.sql" >/dev/null
	echo "UPDATE hot SET n = n + 1 WHERE id = 1;" | as_postgres tee "$NXM_TMP/update.sql" >/dev/null
	for ((p = 1; p <= PAIRS; p++)); do
		pair "counter_add against UPDATE" "$(clients "$NXM_TMP/counter.sql")" "$(clients "$NXM_TMP/update.sql")"
		nxm_psql -c 'VACUUM hot'
		nxm_psql -c 'ALTER DATABASE postgres SET synchronous_commit = off'
		pair "and synchronous_commit off" "$(clients "$NXM_TMP/counter.sql")" "$(clients "$NXM_TMP/update.sql")"
		nxm_psql -c 'ALTER DATABASE postgres RESET synchronous_commit' -c 'VACUUM hot'
	done
	report "counter_add against UPDATE" A/B "a second" '>=' 5
	report "and synchronous_commit off" A/B "a second"
	echo
fi

fill() {
	nxm_psql -At -F'	' <<-SQL
		SELECT 'filling, first touches', cpu(\$\$SELECT count(nexusmem.map_put('bench', 'k' || i, $VALUE)) FROM generate_series(0, $ENTRIES - 1) i\$\$, $ENTRIES);
		SELECT 'filling again, no first touches', cpu(\$\$SELECT count(nexusmem.map_put('bench', 'k' || i, $VALUE)) FROM generate_series(0, $ENTRIES - 1) i\$\$, $ENTRIES);
	SQL
}

if has_case map; then
	echo "maps: $ENTRIES values of 100 bytes"
	nxm_psql -c "INSERT INTO kv SELECT 'k' || i, $VALUE FROM generate_series(0, $ENTRIES - 1) i" -c 'VACUUM (ANALYZE) kv' -c CHECKPOINT
	used_before=$(nxm_psql -Atc 'SELECT sum(used_bytes) FROM nexusmem.node_memory')
	fill | awk -F'\t' '{ printf "%-44s %10.1f ns\n", $1, $2 }'
	nxm_psql -At -F'	' <<-SQL | awk -F'\t' '{ printf "%-44s %10.1f ns\n", $1, $2 }'
		SELECT 'a new session reads all, first touches', cpu(\$\$SELECT count(nexusmem.map_get('bench', 'k' || i)) FROM generate_series(0, $ENTRIES - 1) i\$\$, $ENTRIES);
		SELECT 'the same session again', cpu(\$\$SELECT count(nexusmem.map_get('bench', 'k' || i)) FROM generate_series(0, $ENTRIES - 1) i\$\$, $ENTRIES);
	SQL
	line=$(nxm_psql -At -F' ' <<-SQL
		WITH payload AS (SELECT avg(length(k) + length(v)) AS p FROM kv)
		SELECT ((SELECT sum(used_bytes) FROM nexusmem.node_memory) - $used_before)::numeric / $ENTRIES - p,
			pg_total_relation_size('kv')::numeric / $ENTRIES - p FROM payload;
	SQL
	)
	take "bytes of overhead an entry" "$line" ours its
	awk -v ours="$ours" -v its="$its" 'BEGIN { printf "%-44s %10.1f  (table and index %.1f)  <= 32: %s\n", "bytes of overhead an entry", ours, its, ours <= 32 ? "met" : "MISSED" }'
	upsert="INSERT INTO kv VALUES ($KEY, $VALUE) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
	AFTER="SELECT all_of(count(nexusmem.map_get('bench', k)), $ENTRIES) FROM kv;"
	WARM="$AFTER SELECT all_of(count(nexusmem.map_put('bench', k, v)), $ENTRIES) FROM kv;"
	few=$((ROWS / 5))
	ALL=("floor of maps" "$(over "$KEY" "$ROWS")" "$ROWS" "$(over "$KEY" "$ROWS")" "$ROWS"
		"map_get, random order" "$(over "nexusmem.map_get('bench', $KEY)" "$ROWS")" "$ROWS" "$(over "(SELECT v FROM kv WHERE k = $KEY)" "$ROWS")" "$ROWS"
		"map_get, key order" "$(over "nexusmem.map_get('bench', $ORDERED)" "$ROWS")" "$ROWS" "$(over "(SELECT v FROM kv WHERE k = $ORDERED)" "$ROWS")" "$ROWS"
		"map_get, loop" "$(loop "x := nexusmem.map_get('bench', $KEY)" "$ROWS")" "$ROWS" "$(loop "SELECT v INTO x FROM kv WHERE k = $KEY" "$ROWS")" "$ROWS"
		"map_put, loop" "$(loop "b := nexusmem.map_put('bench', $KEY, $VALUE)" "$ROWS")" "$ROWS" "$(loop "$upsert" "$few")" "$few"
		"map_put, statement" "$(over "nexusmem.map_put('bench', $KEY, $VALUE)" "$ROWS")" "$ROWS" "INSERT INTO kv SELECT $KEY, $VALUE FROM generate_series(1, $few) i ON CONFLICT (k) DO UPDATE SET v = excluded.v" "$few")
	BETWEEN="VACUUM kv;"
	in_one_session
	BETWEEN='' AFTER=''
	minus "floor of maps" "map_get, random order"
	figure "floor of maps"
	report "map_get, loop" B/A ns '>=' 8
	report "map_get, random order, floor subtracted" B/A ns '>=' 7
	report "map_get, random order" B/A ns '>=' 5
	report "map_get, key order" B/A ns
	report "map_put, loop" B/A ns '>=' 10
	report "map_put, statement" B/A ns
	echo
fi

# against_dshash WHICH: which is what is said of the pages
against_dshash() {
	local p reads which share name rest get put key a b
	echo "maps against dshash, $CLIENTS clients, $1"
	fill >/dev/null
	nxm_psql -Atc "SELECT all_of(count(dshash_put('k' || i, $VALUE)), $ENTRIES) FROM generate_series(0, $ENTRIES - 1) i" >/dev/null
	settle_memory
	# of one session CPU time, which other work on the machine disturbs less than clients
	WARM="SELECT all_of(count(nexusmem.map_get('bench', 'k' || i)), $ENTRIES), all_of(count(dshash_get('k' || i)), $ENTRIES) FROM generate_series(0, $ENTRIES - 1) i;"
	ALL=("C, 100 % reads, one session, $1"
		"SELECT nexusmem_run($ROWS, 100, $ENTRIES, @)" "$ROWS" "SELECT dshash_run($ROWS, 100, $ENTRIES, @)" "$ROWS")
	in_one_session
	report "C, 100 % reads, one session, $1" B/A ns
	for reads in 100 95 50; do
		for which in nexusmem dshash; do
			echo "SELECT ${which}_run(100000, $reads, $ENTRIES, (random() * 1e9)::bigint);" | as_postgres tee "$NXM_TMP/$which$reads.sql" >/dev/null
		done
	done
	share="i % 20 = 0"
	for which in "nexusmem nexusmem.map_get('bench', @k) nexusmem.map_put('bench', @k, $VALUE)" "dshash dshash_get(@k) dshash_put(@k, $VALUE)"; do
		name=${which%% *} rest=${which#* }
		get=${rest%%) *}\) put=${rest#*) }
		key="('k' || ((i::bigint * 611953 + :seed) % $ENTRIES))"
		printf '\\set seed random(1, 1000000000)\nSELECT count(CASE WHEN %s THEN (%s)::text ELSE %s END) FROM generate_series(1, 50000) i;\n' \
			"$share" "${put//@k/$key}" "${get//@k/$key}" | as_postgres tee "$NXM_TMP/sql-$name.sql" >/dev/null
	done
	# what clients read is there
	CLIENTS_WARM="SELECT all_of(count(nexusmem.map_get('bench', 'k' || i)), $ENTRIES), all_of(count(dshash_get('k' || i)), $ENTRIES) FROM generate_series(0, $((ENTRIES - 1))) i"
	for ((p = 0; p < PAIRS; p++)); do
		for reads in 100 95 50; do
			a=$(clients "$NXM_TMP/nexusmem$reads.sql" 100000) b=$(clients "$NXM_TMP/dshash$reads.sql" 100000)
			pair "C, $reads % reads, $1" "$a" "$b"
		done
		a=$(clients "$NXM_TMP/sql-nexusmem.sql" 50000) b=$(clients "$NXM_TMP/sql-dshash.sql" 50000)
		pair "SQL, 95 % reads, $1" "$a" "$b"
	done
	for reads in 100 95 50; do report "C, $reads % reads, $1" A/B "a second" $([ "$1" != "huge pages" ] || echo '>= 1.5'); done
	report "SQL, 95 % reads, $1" A/B "a second"
}

if has_case dshash; then
	against_dshash "huge pages"
	echo
fi

if has_case dshash_small; then
	nxm_cluster_stop main
	nxm_cluster_start main "huge_pages = off"
	against_dshash "small pages"
fi
