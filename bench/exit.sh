#!/bin/bash
# bench/exit.sh: what the memory of structures adds to a connection and its end, in
# microseconds.
#
#	PAIRS=11		pairs of runs
#	CHUNKS=5		parts of a run, see below
#	CONNECTIONS=100	in a part
#	NUM_NODES=2		nexusmem.num_nodes: a segment is of one node
#	MEMORY_LIMIT=2GB	nexusmem.memory_limit
#	VALUES=700000	of 1,000 bytes: what makes many segments
#
# pgbench -C with one client connects, runs a statement and disconnects, over and
# over, on three clusters:
#
#	none	SELECT 1
#	one		reads some keys of a small map: the process attaches, and maps one segment
#	all		reads as many keys of a large map, which map every segment: those keys are
#			looked for first, with the kernel telling what the session has mapped
#
# The time is that from one connection to the next; ends of processes overlap with
# it. The CPU time is all that the server's processes took, the end included, told
# by the kernel when they have ended. The parts take turns. Of the time the least one of each
# counts; of the CPU time, told in steps of 10 ms, all parts together do.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 11
param CHUNKS 5
param CONNECTIONS 100
param NUM_NODES 2
param MEMORY_LIMIT 2GB
param VALUES 700000
bench_begin exit "$@"

for c in none one all; do
	nxm_cluster_start $c "shared_preload_libraries = 'nexusmem'
nexusmem.num_nodes = $NUM_NODES
nexusmem.memory_limit = $MEMORY_LIMIT
nexusmem.save = off
autovacuum = off"
	nxm_psql -c 'CREATE EXTENSION nexusmem'
	nxm_psql -c "SELECT nexusmem.map_put('m', 'first', 'v')" >/dev/null
done
# on every node in turn
nxm_cluster_use all
for ((i = 0; i < 8; i++)); do
	nxm_psql -Atc "SELECT nexusmem.pin_backend(pg_backend_pid(), $((i % NUM_NODES)))" -c "SELECT count(nexusmem.map_put('m', '$i ' || k, repeat('x', 1000))) FROM generate_series(1, $VALUES / 8) k" >/dev/null
done
keys=$(nxm_psql -At <<-SQL
	CREATE FUNCTION mapped() RETURNS int LANGUAGE sql AS \$\$
		SELECT count(DISTINCT split_part(line, '/dev/shm/', 2)) FROM regexp_split_to_table(pg_read_file('/proc/self/maps'), '\n') line WHERE line LIKE '%/dev/shm/PostgreSQL%'
	\$\$;
	DO \$\$
	DECLARE
		before int := mapped();
		keys text[] := '{}';
		now int;
	BEGIN
		FOR k IN 0 .. $VALUES / 8 / 500 LOOP
			FOR i IN 0 .. 7 LOOP
				PERFORM nexusmem.map_get('m', i || ' ' || k * 500 + 1);
				now := mapped();
				IF now > before THEN keys := keys || (i || ' ' || k * 500 + 1); END IF;
				before := now;
			END LOOP;
		END LOOP;
		PERFORM set_config('bench.keys', keys::text, false);
	END \$\$;
	SELECT current_setting('bench.keys');
SQL
)
nxm_psql -At -F', ' -c "SELECT '  ' || feature, state, detail FROM nexusmem.status WHERE feature = 'structure memory'"
echo "  keys that map them: $keys"
read="SELECT count(nexusmem.map_get('m', k)) FROM unnest('$keys'::text[]) k;"
nxm_psql -At -c "$read" -c "SELECT '  a session that has read these has ' || mapped() || ' segments'"
nxm_cluster_use one
nxm_psql -Atc "SELECT count(nexusmem.map_put('m', k, repeat('x', 1000))) FROM unnest('$keys'::text[]) k" >/dev/null
echo 'SELECT 1;' | as_postgres tee "$NXM_TMP/none.sql" >/dev/null
echo "$read" | as_postgres tee "$NXM_TMP/one.sql" "$NXM_TMP/all.sql" >/dev/null

# processes CLUSTER: of its clients
processes() { pgrep -c -P "$(head -n 1 "$(nxm_cluster_dir "$1")/postmaster.pid")" -f 'postgres: postgres postgres' || true; }

# connect CLUSTER: microseconds from one connection to the next, and of CPU
connect() {
	local before after time
	nxm_cluster_use "$1"
	before=$(ended_cpu "$1")
	time=$(as_postgres "$PG_BIN/pgbench" -n -C -f "$NXM_TMP/$1.sql" -c 1 -t "$CONNECTIONS" | awk '/^tps/ { print 1e6 / $3 }')
	until [ "$(processes "$1")" = 0 ]; do :; done
	after=$(ended_cpu "$1")
	figures "connections to $1" "$time" "$before" "$after"
	echo "$time $after $before" | awk -v n="$CONNECTIONS" '{ print $1, ($2 - $3) * 1000 / n }'
}

# least_of CLUSTER COLUMN, mean_of CLUSTER COLUMN
least_of() { cut -d' ' -f"$2" "$NXM_TMP/parts-$1" | least; }
mean_of() { awk -v c="$2" '{ s += $c } END { print s / NR }' "$NXM_TMP/parts-$1"; }

for c in none one all; do connect $c >/dev/null; done
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	for c in none one all; do : >"$NXM_TMP/parts-$c"; done
	for ((i = 0; i < CHUNKS; i++)); do
		for c in none one all; do connect $c >>"$NXM_TMP/parts-$c"; done
	done
	pair "all segments, not one: time" "$(least_of one 1)" "$(least_of all 1)"
	pair "all segments, not one: CPU" "$(mean_of one 2)" "$(mean_of all 2)"
	pair "all segments, not SELECT 1: time" "$(least_of none 1)" "$(least_of all 1)"
	pair "all segments, not SELECT 1: CPU" "$(mean_of none 2)" "$(mean_of all 2)"
done

echo
echo "a connection and its end: median (least to greatest)"
report "all segments, not one: time" B-A us '<=' 200
report "all segments, not one: CPU" B-A us '<=' 200
report "all segments, not SELECT 1: time" B-A us
report "all segments, not SELECT 1: CPU" B-A us
