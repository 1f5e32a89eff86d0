#!/bin/bash
# bench/connection.sh: what pinning adds to a connection, in microseconds.
#
#	PAIRS=15	pairs of runs
#	CHUNKS=9	parts of a run, see below
#	CONNECTIONS=40	in a part
#	NUM_NODES=2	nexusmem.num_nodes: on one node there is nothing to pin to
#
# Two figures. The first is the whole: pgbench -C with one client connects, runs
# SELECT 1 and disconnects, over and over, on two clusters with the library, of
# which one has enable_numa_optimizations on. Their parts take turns, and the least
# of each counts. On a machine that does other work the CPU that a backend was
# pinned to may be busy: the first figure then tells more of that than of pinning.
#
# The second is the work itself: a session moves itself from node to node with
# pin_backend(), which asks the kernel twice where a connection asks once; the same
# loop with my_node() instead is subtracted.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 15
param CHUNKS 9
param CONNECTIONS 40
param NUM_NODES 2
bench_begin connection "$@"

nxm_cluster_start off "shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = $NUM_NODES
autovacuum = off"
nxm_psql -c 'CREATE EXTENSION nexusmem'
nxm_cluster_stop off
clone_cluster off on
nxm_cluster_start off
nxm_cluster_start on "nexusmem.enable_numa_optimizations = on"
nxm_psql -At -F', ' -c "SELECT '  ' || feature, state, detail FROM nexusmem.status WHERE feature IN ('pinning', 'memory policy')"
echo 'SELECT 1;' | as_postgres tee "$NXM_TMP/select.sql" >/dev/null

# connect CLUSTER: microseconds from one connection to the next
connect() {
	nxm_cluster_use "$1"
	as_postgres "$PG_BIN/pgbench" -n -C -f "$NXM_TMP/select.sql" -c 1 -t "$CONNECTIONS" | awk '/^tps/ { print 1e6 / $3 }'
}

# call FUNCTION: microseconds of a call
call() {
	nxm_cluster_use on
	nxm_psql -At <<-SQL
		DO \$\$
		DECLARE
			began timestamptz;
		BEGIN
			FOR i IN 0..2000 LOOP
				IF i = 1 THEN began := clock_timestamp(); END IF;
				PERFORM nexusmem.$1;
			END LOOP;
			PERFORM set_config('bench.us', (extract(epoch FROM clock_timestamp() - began) * 1e6 / 2000)::text, false);
		END \$\$;
		SELECT current_setting('bench.us');
	SQL
}

connect off >/dev/null
connect on >/dev/null
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	for ((i = 0; i < CHUNKS; i++)); do
		a=$(connect off)
		b=$(connect on)
		figures "time of a connection" "$a" "$b"
		echo "$a $b"
	done >"$NXM_TMP/chunks"
	pair "time of a connection" "$(cut -d' ' -f1 "$NXM_TMP/chunks" | least)" "$(cut -d' ' -f2 "$NXM_TMP/chunks" | least)"
	a=$(call 'my_node()')
	b=$(call "pin_backend(pg_backend_pid(), i % $NUM_NODES)")
	pair "moving to another node, twice" "$a" "$b"
done

echo
echo "pinning on - off: median (least to greatest); pairs off:on"
report "time of a connection" B-A us '<=' 50
report "moving to another node, twice" B-A us '<=' 100
