#!/bin/bash
# test/numa/guest.sh MACHINE: the checks made inside a machine of run.sh, as its
# root, one line each:
#
#	ok - name
#	not ok - name
#	ok - name # SKIP reason
#
# Lines that begin with # are for the reader. Nothing written here outlives the
# machine except below /out. Emulation is slow: few statements, little data.
set -uo pipefail
machine=$1
. /out/env # PG_CONFIG PG_BIN PG_MAJOR NXM_USER NXM_BUILD DATA PAUSED
bad=0

diag() { sed 's/^/# /' <<<"$*"; }
ok() { echo "ok - $1"; }
not_ok() { # NAME [EXPLANATION]
	bad=1
	echo "not ok - $1"
	if [ -n "${2:-}" ]; then diag "$2"; fi
}
skip() { echo "ok - $1 # SKIP $2"; }
is() { # GOT EXPECTED NAME
	if [ "$1" = "$2" ]; then ok "$3"; else not_ok "$3" "got:      $1
expected: $2"; fi
}
like() { # GOT REGEX NAME
	if [[ $1 =~ $2 ]]; then ok "$3"; else not_ok "$3" "got:      $1
expected: $2"; fi
}

as_postgres() {
	setpriv --reuid "$NXM_USER" --regid "$(id -g "$NXM_USER")" --init-groups env -C / "$@"
}

# q SQL: its result, unaligned; errors too, since a check shows what it got.
q() { as_postgres "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -h /tmp -U postgres -d postgres -c "$1" 2>&1; }

# show SQL: its result as lines for the reader.
show() { diag "$(as_postgres "$PG_BIN/psql" -Xq -P pager=off -h /tmp -U postgres -d postgres -c "$1" 2>&1)"; }

# server_start ["conf lines"] [COMMAND...]: start the server in place, with these
# settings and none from an earlier start, behind the command (numactl, deny).
# Its log is /out/server.log, from the first start on.
server_start() {
	local conf=${1:-}
	shift || true
	grep -q guest.conf "$DATA/postgresql.conf" || echo "include_if_exists 'guest.conf'" >>"$DATA/postgresql.conf"
	printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '/tmp'" "fsync = off" \
		"shared_preload_libraries = 'nexusmem'" "$conf" >"$DATA/guest.conf"
	echo "--- server_start: $conf" >>/out/server.log
	as_postgres "$@" "$PG_BIN/pg_ctl" -D "$DATA" -w -s -t 120 start >>/out/server.log 2>&1 </dev/null && workers_run && return
	not_ok "the server starts with: ${conf//$'\n'/, }" "$(tail -n 20 /out/server.log)"
	return 1
}
# Until status says of no worker any more that it is not running.
workers_run() {
	local i
	for ((i = 0; i < 1000; i++)); do
		case $(q "SELECT bool_and(detail !~ 'is not running') FROM nexusmem.status") in
			f) sleep 0.2 ;;
			*) return 0 ;;
		esac
	done
}
server_stop() { [ ! -e "$DATA/postmaster.pid" ] || as_postgres "$PG_BIN/pg_ctl" -D "$DATA" -w -s -m "${1:-fast}" stop; }

# session NAME [NODE]: opens a psql that tell() writes to and reads from, and that
# stays open; pinned to the node.
declare -A session_in session_out
fifos=$(mktemp -d)
chmod 755 "$fifos"
session() {
	local in out
	mkfifo -m 666 "$fifos/$1.in" "$fifos/$1.out"
	as_postgres "$PG_BIN/psql" -XAtq -h /tmp -U postgres -d postgres <"$fifos/$1.in" >"$fifos/$1.out" 2>&1 &
	exec {in}>"$fifos/$1.in" {out}<"$fifos/$1.out"
	session_in[$1]=$in session_out[$1]=$out
	[ -z "${2:-}" ] || tell "$1" "SELECT nexusmem.pin_backend(pg_backend_pid(), $2); SELECT 1" >/dev/null
}
# tell NAME SQL: runs it there and prints the result.
tell() {
	begin_tell "$1" "$2"
	end_tell "$1"
}
# The same in two steps, so that several sessions are at work.
begin_tell() { printf '%s;\n\\echo end-of-answer\n' "$2" >&"${session_in[$1]}"; }
end_tell() {
	local line
	while IFS= read -r line <&"${session_out[$1]}" && [ "$line" != end-of-answer ]; do
		printf '%s\n' "$line"
	done
}
close_session() {
	local in=${session_in[$1]} out=${session_out[$1]}
	exec {in}>&- {out}<&-
	unset "session_in[$1]" "session_out[$1]"
	rm "$fifos/$1.in" "$fifos/$1.out"
}

# Fills shared_buffers with pages of a table.
fill_buffers() {
	q "SET client_min_messages = warning;
		DROP TABLE IF EXISTS fill;
		CREATE UNLOGGED TABLE fill (x text);
		ALTER TABLE fill ALTER x SET STORAGE plain;
		INSERT INTO fill SELECT repeat('x', 7900) FROM generate_series(1, $1)"
}

# even NAME NODES TOLERANCE: the buffers lie on these nodes, evenly within so
# many percent.
even() {
	is "$(q "SELECT string_agg(node::text, ',' ORDER BY node) FROM nexusmem.shared_buffers_nodes WHERE bytes > 0")" \
		"$2" "$1: buffers are on nodes $2"
	is "$(q "SELECT bool_and(abs(bytes - avg) <= avg * $3 / 100.0) FROM (SELECT bytes, avg(bytes) OVER () FROM nexusmem.shared_buffers_nodes WHERE bytes > 0) s")" \
		t "$1: within $3 % of even"
}

status() { q "SELECT state || ': ' || detail FROM nexusmem.status WHERE feature = '$1'"; }
postmaster_mappings() { wc -l <"/proc/$(head -n 1 "$DATA/postmaster.pid")/maps"; }

on="nexusmem.enable_numa_optimizations = on"
small="shared_buffers = 64MB"
names=(a b c d)
# Does the kernel say that what a node has is there?  Looking makes a page again that is
# given back at that moment, and so does putting its range into a huge page.
there="on_node_bytes = resident_bytes AND resident_bytes BETWEEN used_bytes AND used_bytes + 32 * 65536"

# used: kB of structures on each node, as the session `watch` sees them.
used() { tell watch "SELECT string_agg((used_bytes / 1024)::text, ' ' ORDER BY node) FROM nexusmem.node_memory WHERE owner = 'structures' AND node IS NOT NULL"; }

# fill_map SESSION MAP N: its node and N values of 1,000 bytes
fill_map() {
	tell "$1" "SELECT count(nexusmem.map_put('$2', k::text, repeat('x', 1000))) FROM generate_series(1, $3) k"
}

# read_map SESSION MAP: how many of its 2,500 values are as they were written
read_map() {
	tell "$1" "SELECT count(*) FROM generate_series(1, 2500) k WHERE nexusmem.map_get('$2', k::text) = repeat('x', 1000)"
}

# That row of status, with its hint.
structure_memory() { q "SELECT state || ': ' || detail || ' ' || coalesce(hint, '') FROM nexusmem.status WHERE feature = 'structure memory'"; }

# Structures on four nodes: their memory is where it is said to be.
check_structures() {
	local n i pid node before after grown
	server_stop
	server_start "$on
$small
nexusmem.memory_limit = 64MB" || return
	is "$(q "SELECT count(*) FILTER (WHERE owner = 'structures'), sum(used_bytes) FROM nexusmem.node_memory")" "4|0" "nothing is taken before it is needed"
	session watch
	# one to each node, so that each allocates on another
	for n in 0 1 2 3; do
		session "${names[n]}"
		pid=$(tell "${names[n]}" "SELECT pg_backend_pid()")
		tell watch "SELECT nexusmem.pin_backend($pid, $n)" >/dev/null
		is "$(tell "${names[n]}" "SELECT nexusmem.my_node()")" $n "a backend on node $n"
	done
	# makes the map and what else there is one of
	fill_map a shared 100 >/dev/null
	for n in 0 1 2 3; do
		read -ra before <<<"$(used)"
		is "$(fill_map "${names[n]}" "map $n" 2500)" 2500 "the backend on node $n writes"
		read -ra after <<<"$(used)"
		# 2,500 values take 2.6 MB; descriptors of the chunk, and an index, are little
		for node in 0 1 2 3; do
			grown=$((after[node] - before[node]))
			if [ $node = $n ]; then
				is "$((grown > 2400 && grown < 3600))" 1 "node $n has it ($grown kB)"
			else
				is "$((grown < 200))" 1 "and node $node has not ($grown kB)"
			fi
		done
	done
	is "$(wait_for "SELECT count(*) = 4 FROM nexusmem.node_memory WHERE owner = 'structures' AND $there AND used_bytes > 2500000")" \
		t "the kernel says that all of it is on its node"
	like "$(status 'structure memory')" '^active: .*' "status: active"
	show "SELECT * FROM nexusmem.node_memory"
	show "SELECT detail FROM nexusmem.status WHERE feature = 'structure memory'"

	# what one node has the others use
	is "$(read_map d 'map 0')" 2500 "a backend on node 3 reads what node 0 has"
	is "$(wait_for "SELECT count(*) = 4 FROM nexusmem.node_memory WHERE owner = 'structures' AND $there")" t "which leaves it there"

	# Moved by somebody, and back: what that session has mapped, as by reading it.
	local elsewhere="on_node_bytes < resident_bytes"
	pid=$(tell b "SELECT pg_backend_pid()")
	read_map b 'map 1' >/dev/null
	migratepages "$pid" 1 2
	is "$(wait_for "SELECT string_agg(node::text, ',') FILTER (WHERE $elsewhere) = '1' AND count(*) FILTER (WHERE $there) = 3 FROM nexusmem.node_memory WHERE owner = 'structures'")" \
		t "moved from node 1 to node 2: the kernel says that it lies elsewhere"
	like "$(structure_memory)" '^degraded: .*; [1-9][0-9]? % of sampled pages on their nodes A node may be short of memory' "status: degraded, and what to do"
	show "SELECT * FROM nexusmem.node_memory WHERE owner = 'structures'"
	migratepages "$pid" 2 1
	is "$(wait_for "SELECT count(*) = 4 FROM nexusmem.node_memory WHERE owner = 'structures' AND $there")" t "moved back: all of it is on its node"
	like "$(structure_memory)" '^active: .*; 100 % of sampled pages on their nodes $' "status: active again"

	# striped counters
	read -ra before <<<"$(used)"
	is "$(tell a "SELECT count(nexusmem.counter_create('striped ' || k, true)) FROM generate_series(1, 1000) k")" 1000 "1,000 striped counters"
	read -ra after <<<"$(used)"
	for node in 0 1 2 3; do
		grown=$((after[node] - before[node]))
		# a stripe of 64 bytes a CPU: one CPU a node
		is "$((grown >= 60))" 1 "which have stripes on node $node ($grown kB)"
	done
	for n in a b c d; do
		tell $n "SELECT count(nexusmem.counter_add('striped ' || k)) FROM generate_series(1, 100) k, generate_series(1, 10)" >/dev/null
	done
	is "$(tell watch "SELECT sum(nexusmem.counter_get('striped ' || k)) FROM generate_series(1, 100) k")" 4000 "what all nodes add is in the sum"

	for n in a b c d; do close_session $n; done

	# eight clients, two to a node
	cat >/tmp/add.sql <<-'SQL'
		SELECT nexusmem.counter_add('sum', x), nexusmem.counter_add('striped 1', x), nexusmem.map_add('sums', 'k' || x % 3, x), nexusmem.queue_push('q', x::text), nexusmem.queue_pop('q') IS NOT NULL,
			nexusmem.map_put('keys', x || ' ' || :client_id, 'v') FROM generate_series(1, 20) x;
	SQL
	local pgbench before_sum
	before_sum=$(tell watch "SELECT nexusmem.counter_get('striped 1')")
	pgbench=$(as_postgres "$PG_BIN/pgbench" -n -M prepared -h /tmp -U postgres -c 8 -j 4 -t 25 -f /tmp/add.sql postgres 2>&1)
	like "$pgbench" 'processed: 200/200' "8 clients: all transactions"
	is "$(tell watch "SELECT nexusmem.counter_get('sum'), nexusmem.counter_get('striped 1') - $before_sum, (SELECT sum(value::bigint) FROM nexusmem.map_entries('sums')), nexusmem.queue_length('q'), nexusmem.map_size('keys')")" \
		"42000|42000|42000|0|160" "8 clients: the sums"
	pid=$(tell watch "SELECT pg_backend_pid()")
	kill -KILL "$pid"
	close_session watch
	for ((i = 0; i < 1000; i++)); do
		[ "$(q "SELECT count(*) FROM nexusmem.structures")" != 0 ] || break
		sleep 0.2
	done
	is "$(q "SELECT nexusmem.map_put('m', 'k', 'v'), count(*), nexusmem.map_get('m', 'k') FROM nexusmem.structures")" "t|0|v" "SIGKILL: the server recovers, and structures are empty"

	# nodes that are not the kernel's
	server_stop
	server_start "$on
$small
nexusmem.num_nodes = 2
nexusmem.memory_limit = 64MB" || return
	session watch
	for n in 0 1; do
		session "${names[n]}" $n
		fill_map "${names[n]}" "map $n" 2500 >/dev/null
	done
	is "$(wait_for "SELECT count(*) = 2 FROM nexusmem.node_memory WHERE owner = 'structures' AND $there AND used_bytes > 2500000")" t "two logical nodes of two memories each: all of it is on its node"
	show "SELECT * FROM nexusmem.node_memory"
	for n in a b watch; do close_session $n; done

	# memory that the kernel does not bind, below a policy that puts all of it on node 0, which
	# is to have room
	server_stop
	sync
	echo 3 >/proc/sys/vm/drop_caches
	server_start "$on
$small" numactl --preferred=0 "$NXM_BUILD/test/numa/bin/deny" mbind,set_mempolicy -- || return
	session b 1
	is "$(fill_map b 'map 1' 2500)" 2500 "mbind refused: a backend on node 1 writes"
	is "$(read_map b 'map 1')" 2500 "and reads"
	is "$(q "SELECT on_node_bytes = 0 AND $elsewhere FROM nexusmem.node_memory WHERE owner = 'structures' AND node = 1")" t "the kernel says that it lies elsewhere"
	like "$(structure_memory)" '^degraded: .*; [1-9] not bound to their nodes: the kernel refused .*SYS_NICE' "status: not bound, why, and what to do"
	show "SELECT * FROM nexusmem.node_memory WHERE owner = 'structures'"
	close_session b

	# memory that it does not tell of, nor moves: descriptors of buffers stay where they are
	server_stop
	server_start "$on
$small
nexusmem.shared_buffers_placement = partition" "$NXM_BUILD/test/numa/bin/deny" move_pages -- || return
	like "$(status 'shared_buffers placement')" '^degraded: [0-9]+ stripes of 64 buffers without their descriptors over 4 memories, pages of 4 kB; the descriptors could not be moved: Operation not permitted; the kernel would not tell' "move_pages refused: shared_buffers is placed without its descriptors"
	session b 1
	is "$(fill_map b 'map 1' 2500)" 2500 "move_pages refused: a backend on node 1 writes"
	is "$(q "SELECT on_node_bytes IS NULL, resident_bytes > 2500000 FROM nexusmem.node_memory WHERE owner = 'structures' AND node = 1")" "t|t" "how much there is is known, and not where"
	like "$(structure_memory)" '^degraded: .*; the kernel would not tell where pages lie: Operation not permitted In a container, grant a seccomp profile that allows move_pages[.]$' "status: not told, and what to do, for which SYS_NICE is not enough"
	close_session b
}

# wait_for SQL: until the session `watch` sees that it is true; what it saw last.
wait_for() {
	local i seen
	for ((i = 0; i < 1000; i++)); do
		seen=$(tell watch "$1")
		[ "$seen" != t ] || break
		sleep 0.2
	done
	echo "$seen"
}

# all SQL: said by one session on each node at once; what each answers, in lines.
all() {
	local n
	for n in "${names[@]}"; do begin_tell "$n" "$1"; done
	for n in "${names[@]}"; do end_tell "$n"; done
}

# at_home: those sessions take memory of their own nodes again, after want of it has made
# them take others'.
at_home() {
	local n
	for n in 0 1 2 3; do tell "${names[n]}" "SELECT nexusmem.pin_backend(pg_backend_pid(), $n)" >/dev/null; done
}

# set_limit MB: and waits until it is in force.
set_limit() {
	echo "nexusmem.memory_limit = $1MB" >>"$DATA/guest.conf"
	tell watch "SELECT pg_reload_conf()" >/dev/null
	is "$(wait_for "SELECT detail ~ ' of $1.0 MB' FROM nexusmem.status WHERE feature = 'structure memory'")" t "the limit is $1 MB"
}

# refused: are writers of all nodes, from now on?
refused() {
	tell watch "SELECT nexusmem.counter_set('refused ' || n, 0) FROM generate_series(0, 3) n" >/dev/null
	wait_for "SELECT bool_and(nexusmem.counter_get('refused ' || n) > 0) FROM generate_series(0, 3) n"
}

# write_on: a session on each node, w0 to w3, overwrites without end; they have begun.
write_on() {
	local n
	tell watch "SELECT nexusmem.counter_set('written ' || n, 0) FROM generate_series(0, 3) n" >/dev/null
	for n in 0 1 2 3; do
		session w$n $n
		begin_tell w$n "SELECT overwrite_for('1 day', 0)"
	done
	is "$(wait_for "SELECT bool_and(nexusmem.counter_get('written ' || n) > 0) FROM generate_series(0, 3) n")" t "writers on all nodes have begun"
}

# is_stopped PID: until the process is.
is_stopped() { wait_for "SELECT pg_read_file('/proc/$1/stat') ~ '^[0-9]+ [(].*[)] T '"; }

# A server of which everything is asked at once, with a library that has places to
# stop at.
check_strain() {
	local n pid log most short conf seen
	install -m 755 "$PAUSED/nexusmem.so" "$PAUSED/test/modules/nxm_torture/nxm_torture.so" "$("$PG_CONFIG" --pkglibdir)"
	server_stop
	log=$(stat -c %s /out/server.log)
	server_start "$on
$small
nexusmem.save = off
nexusmem.memory_limit = 32MB" || return
	is "$(q "$(grep -v '^\\' "$PAUSED/test/modules/nxm_torture/nxm_torture--1.0.sql" | sed 's/MODULE_PATHNAME/nxm_torture/')
CREATE VIEW own AS SELECT *, $there AS there FROM nexusmem.node_memory WHERE owner = 'structures' AND node IS NOT NULL;
$(cat <<-'SQL'
	CREATE FUNCTION used() RETURNS bigint LANGUAGE sql AS 'SELECT sum(used_bytes)::bigint FROM own';
	-- bytes of what was replaced
	CREATE FUNCTION overwrite(n int) RETURNS bigint LANGUAGE sql AS $$
		SELECT sum(length(v)) FILTER (WHERE NOT nexusmem.map_put('m', 'k' || k, v))
		FROM generate_series(1, 200) k, generate_series(1, n), repeat('new ' || k, 30) v
	$$;
	-- the same until this time has passed and so many bytes were replaced
	CREATE FUNCTION overwrite_for(span interval, bytes bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		replaced bigint := 0;
	BEGIN
		WHILE replaced < bytes OR clock_timestamp() < statement_timestamp() + span LOOP
			replaced := replaced + overwrite(5);
			PERFORM nexusmem.counter_add('written ' || nexusmem.my_node());
		END LOOP;
		RETURN replaced;
	END $$;
	-- workers that die where they are, in the middle of operations
	CREATE PROCEDURE end_workers(n int) LANGUAGE plpgsql AS $$
	DECLARE
		goal bigint;
		worker int;
	BEGIN
		FOR i IN 1 .. n LOOP
			goal := coalesce(nexusmem.counter_get('rounds'), 0) + 1;
			worker := torture_worker_start('all', '');
			WHILE coalesce(nexusmem.counter_get('rounds'), 0) < goal LOOP END LOOP;
			IF NOT nexusmem.pin_backend(worker, nexusmem.my_node()) THEN RAISE 'not pinned'; END IF;
			WHILE nexusmem.counter_get('rounds') < goal + 17 * i LOOP END LOOP;
			IF NOT torture_worker_end() THEN RAISE 'not ended'; END IF;
		END LOOP;
	END $$;
	-- are there no fewer than were done, and no more than were begun, of `dead` processes?
	CREATE FUNCTION consistent(dead int) RETURNS boolean LANGUAGE sql AS $$
		SELECT bool_and(n BETWEEN done AND begun AND begun - done <= dead)
		FROM (VALUES (0, nexusmem.map_get('torture', 'sum')::bigint), (1, nexusmem.queue_length('torture')), (2, nexusmem.stack_depth('torture'))) t (what, n),
			LATERAL (SELECT nexusmem.counter_get('begun ' || what) AS begun, nexusmem.counter_get('done ' || what) AS done) c
	$$;
	CREATE FUNCTION drop_all() RETURNS TABLE (dropped boolean, n bigint) LANGUAGE sql AS $$
		SELECT bool_and(CASE kind WHEN 'map' THEN nexusmem.map_drop(name) WHEN 'counter' THEN nexusmem.counter_drop(name)
			WHEN 'stack' THEN nexusmem.stack_drop(name) WHEN 'cache' THEN nexusmem.cache_drop(name) ELSE nexusmem.queue_drop(name) END), count(*) FROM nexusmem.structures
	$$;
	-- stores until it is over, whatever the limit is; how many there were
	CREATE FUNCTION store() RETURNS int LANGUAGE plpgsql AS $$
	DECLARE
		node text := nexusmem.my_node();
		n int := 0;
	BEGIN
		WHILE nexusmem.counter_get('over') = 0 LOOP
			BEGIN
				PERFORM nexusmem.map_put('limited ' || node, 'k' || n, repeat('x', 1000)), nexusmem.counter_add('stored');
				n := n + 1;
			EXCEPTION WHEN configuration_limit_exceeded THEN
				PERFORM nexusmem.counter_add('refused ' || node);
			END;
		END LOOP;
		RETURN n;
	END $$;
	CREATE FUNCTION fill(map text, n int) RETURNS bigint LANGUAGE sql AS $$
		SELECT count(nexusmem.map_put(map || ' ' || nexusmem.my_node(), 'f' || k, repeat('y', 1000))) FROM generate_series(1, n) k
	$$;
	CREATE FUNCTION discard(map text) RETURNS bigint LANGUAGE sql AS $$
		SELECT count(*) FILTER (WHERE nexusmem.map_drop(map || ' ' || n)) FROM generate_series(0, 3) n
	$$;
	-- the entries of these maps of all nodes, if each is there and as it was stored
	CREATE FUNCTION whole(map text, filler text) RETURNS bigint LANGUAGE sql AS $$
		SELECT CASE WHEN bool_and(e.n = nexusmem.map_size(map || ' ' || node)) THEN sum(e.n) END
		FROM generate_series(0, 3) node,
			LATERAL (SELECT count(*) FILTER (WHERE value = repeat(filler, 1000)) AS n FROM nexusmem.map_entries(map || ' ' || node)) e
	$$;
SQL
)")" "" "functions"
	session watch

	# 61 structures, and 40 backends that attach, write to all and leave
	cat >/tmp/wave.sql <<-'SQL'
		SELECT nexusmem.map_add('nodes', nexusmem.my_node()::text, 1), count(nexusmem.map_put('map ' || k % 20, pg_backend_pid() || ' ' || k, repeat('w', 100))),
			count(nexusmem.counter_add('counter ' || k % 20)), count(nexusmem.queue_push('queue ' || k % 10, 'v')::text), count(nexusmem.stack_push('stack ' || k % 10, 'v')::text)
		FROM generate_series(1, 60) k;
	SQL
	like "$(as_postgres "$PG_BIN/pgbench" -n -C -h /tmp -U postgres -c 8 -j 4 -t 5 -f /tmp/wave.sql postgres 2>&1)" 'processed: 40/40' "40 backends attach and leave"
	is "$(tell watch "SELECT count(*), sum(entries) FILTER (WHERE name LIKE 'map %'), sum(entries) FILTER (WHERE kind IN ('stack', 'queue')), (SELECT sum(nexusmem.counter_get('counter ' || k)) FROM generate_series(0, 19) k) FROM nexusmem.structures")" \
		"61|2400|4800|2400" "61 structures have all that they wrote"
	is "$(tell watch "SELECT string_agg(key, ',' ORDER BY key), sum(value::int) FROM nexusmem.map_entries('nodes')")" "0,1,2,3|40" "from all nodes"
	is "$(tell watch "SELECT * FROM drop_all()")" "t|61" "all are dropped"
	is "$(wait_for "SELECT max(used_bytes) <= 10 * 65536 FROM own")" t "and leave next to nothing on any node"

	# NULL, empty, too long and the longest, of every argument
	is "$(as_postgres "$PG_BIN/psql" -Xaq -h /tmp -U postgres -d postgres <"$NXM_BUILD/sql/structure_errors.sql" 2>&1 | diff "$NXM_BUILD/expected/structure_errors.out" - | head -n 20)" "" "bad input: as on any machine"

	# a reader stopped in the middle, on another node than what it reads
	for n in 0 1 2 3; do
		session "${names[n]}" $n
		tell "${names[n]}" "SET statement_timeout = '300s'" >/dev/null
	done
	session reader 3
	pid=$(tell reader "SELECT pg_backend_pid()")
	tell a "SELECT count(nexusmem.map_put('m', 'k' || k, '')) FROM generate_series(1, 200) k" >/dev/null
	all "SELECT overwrite(2)" >/dev/null
	tell a "SELECT count(nexusmem.map_put('m', 'k' || k, 'old ' || k)) FROM generate_series(1, 200) k" >/dev/null
	# the name is found by such an operation, too: for the first one
	begin_tell reader "SELECT string_agg(nexusmem.map_get('m', 'k' || x), ',') FROM generate_series(6, 7) x WHERE x < 7 OR torture_pause_at('get')"
	is "$(is_stopped "$pid")" t "a reader is stopped in an operation"
	all "SELECT overwrite(2)" >/dev/null
	most=$(tell watch "SELECT used() + 1048576")
	is "$(all "SELECT overwrite_for('10 s', 2000000) > 2000000")" $'t\nt\nt\nt' "for 10 seconds writers on all nodes replace more than 2 MB each"
	is "$(wait_for "SELECT used() <= $most")" t "memory stays bounded"
	is "$(wait_for "SELECT state = 'degraded' AND detail ~ 'process $pid is stopped' FROM nexusmem.status WHERE feature = 'structure memory'")" t "status names the process"
	kill -CONT "$pid"
	is "$(end_tell reader)" "old 6,old 7" "it goes on, and has what was there"
	close_session reader
	like "$(status 'structure memory')" '^active: ' "status: active again"

	# processes of all nodes that are ended in the middle of operations
	for n in "${names[@]}"; do
		is "$(tell "$n" "CALL end_workers(3)")" "" "three background workers die where they are, of session $n"
	done
	is "$(tail -c "+$((log + 1))" /out/server.log | grep -c 'FATAL:  terminating background worker "nxm_torture"')" 12 "by FATAL out of a signal handler"
	is "$(tell watch "SELECT consistent(12)")" t "what they counted is there"
	is "$(tell watch "SELECT nexusmem.map_size('torture') = count(*) FROM nexusmem.map_entries('torture')")" t "in a map that is whole"
	is "$(tell watch "SELECT nexusmem.counter_get('wrong')")" 0 "what they read of a cache is whole, and of its key"
	write_on
	is "$(tell watch "SELECT bool_and(pg_terminate_backend(pid, 300000)), count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'overwrite_for' AND pid <> pg_backend_pid()")" "t|4" "which are terminated"
	is "$(for n in 0 1 2 3; do end_tell w$n; done | grep -c '^FATAL:  terminating connection')" 4 "while they overwrite"
	for n in 0 1 2 3; do close_session w$n; done
	is "$(tell watch "SELECT nexusmem.map_size('m'), count(*), count(nexusmem.map_get('m', key)) FROM nexusmem.map_entries('m')")" "200|200|200" "the map is whole"
	like "$(status 'structure memory')" '^active: ' "status: active"
	is "$(tell watch "SELECT dropped FROM drop_all()")" t "all are dropped"
	is "$(wait_for "SELECT max(used_bytes) <= 16 * 65536 FROM own")" t "each node has its memory again"

	# the limit, with writers on all nodes
	tell watch "SELECT nexusmem.counter_create(c) FROM unnest('{over,stored,refused 0,refused 1,refused 2,refused 3}'::text[]) c" >/dev/null
	set_limit 16
	for n in "${names[@]}"; do begin_tell "$n" "SET statement_timeout = 0; SELECT store()"; done
	is "$(refused)" t "a limit is reached on all nodes"
	set_limit 24
	is "$(wait_for "SELECT used() > 20 * 1048576")" t "raised while they write: there is more"
	is "$(refused)" t "up to the limit"
	set_limit 8
	most=$(tell watch "SELECT used()")
	is "$(refused)" t "lowered below what is used: no more"
	is "$(tell watch "SELECT used() BETWEEN 16 * 1048576 AND $most")" t "which stays"
	like "$(tell watch "SELECT discard('limited')")" '^[1-4]$' "their maps are dropped while they write"
	is "$(wait_for "SELECT sum(used_bytes) <= 8 * 1048576 AND sum(resident_bytes) <= 12 * 1048576 FROM own")" t "the kernel has the rest again"
	seen=$(tell watch "SELECT nexusmem.counter_get('stored')")
	tell watch "SELECT discard('limited')" >/dev/null
	is "$(wait_for "SELECT nexusmem.counter_get('stored') > $seen + 1000")" t "and they have room again"
	is "$(tell watch "SELECT nexusmem.counter_add('over')")" 1 "over"
	is "$(for n in "${names[@]}"; do end_tell "$n"; done | awk '$1 > 0' | wc -l)" 4 "each node has stored, and met no other error"
	is "$(tell watch "SELECT whole('limited', 'x') > 0")" t "what is there is whole"
	tell watch "SELECT discard('limited')" >/dev/null
	is "$(wait_for "SELECT max(used_bytes) <= 16 * 65536 AND sum(resident_bytes) <= 4 * 1048576 FROM own")" t "dropped: each node has its memory again"
	set_limit 64
	at_home
	is "$(all "SELECT fill('filled', 2500)")" $'2500\n2500\n2500\n2500' "raised: filled again on all nodes"
	is "$(wait_for "SELECT count(*) = 4 FROM own WHERE there AND used_bytes > 2500000")" t "the kernel says that all of it is on its node"

	# /dev/shm with room for 6 MB more
	short=$(df -k --output=used /dev/shm | tail -n 1)
	setpriv --no-new-privs mount -o "remount,size=$((short + 6144))k" /dev/shm
	is "$(all "SELECT fill('short', 8000)" | grep -c '^ERROR:  the operating system has no more shared memory')" 4 "/dev/shm is full: an error on all nodes"
	is "$(tell watch "SELECT whole('filled', 'y')")" 10000 "what is there is whole"
	setpriv --no-new-privs mount -o remount,size=50% /dev/shm
	at_home
	is "$(all "SELECT fill('short', 2500)")" $'2500\n2500\n2500\n2500' "made larger: there is more on all nodes"
	is "$(tell watch "SELECT whole('short', 'y') >= 10000 AND whole('filled', 'y') = 10000")" t "what is there is whole"
	is "$(wait_for "SELECT count(*) = 4 FROM own WHERE there AND used_bytes > 5000000")" t "all of it on its node"
	like "$(status 'structure memory')" '^active: ' "status: active"
	show "SELECT * FROM own"
	for n in "${names[@]}" watch; do close_session "$n"; done
	is "$(tail -c "+$((log + 1))" /out/server.log | grep -c 'terminated by signal\|TRAP\|PANIC')" 0 "nothing crashed"

	# a writer killed in an operation, while others are in theirs
	session watch
	session killed 2
	pid=$(tell killed "SELECT pg_backend_pid()")
	write_on
	begin_tell killed "SELECT torture_pause_at('committed'); SELECT nexusmem.map_put('m', 'mine', 'v')"
	is "$(is_stopped "$pid")" t "a writer is stopped in an operation"
	kill -KILL "$pid"
	for ((n = 0; n < 1000; n++)); do
		[ "$(q "SELECT count(*) FROM nexusmem.structures")" != 0 ] || break
		sleep 0.2
	done
	is "$(q "SELECT (SELECT count(*) FROM nexusmem.structures), max(used_bytes) <= 10 * 65536 FROM own; SELECT nexusmem.map_put('m', 'k', 'v'), nexusmem.map_get('m', 'k')")" $'0|t\nt|v' "killed: the server recovers, structures are empty, and usable"
	for n in killed w0 w1 w2 w3 watch; do close_session $n; done
	is "$(tail -c "+$((log + 1))" /out/server.log | grep -o 'terminated by signal [0-9]*\|TRAP\|PANIC')" "terminated by signal 9" "by that alone"

	# other kinds of memory
	for conf in "dynamic_shared_memory_type = mmap" "dynamic_shared_memory_type = sysv" "min_dynamic_shared_memory = 64MB"; do
		server_stop
		server_start "$on
$small
nexusmem.save = off
nexusmem.memory_limit = 32MB
$conf" || return
		session watch
		for n in 0 1 2 3; do
			tell watch "SELECT nexusmem.pin_backend(pg_backend_pid(), $n)" >/dev/null
			is "$(tell watch "SELECT fill('kind', 1200)")" 1200 "$conf: node $n writes"
		done
		is "$(q "SELECT nexusmem.counter_create('s', true); SELECT nexusmem.queue_push('q', 'v'); SELECT nexusmem.counter_add('s', 2); SELECT nexusmem.counter_get('s'), nexusmem.queue_pop('q'), whole('kind', 'y')")" $'t\n\n\n2|v|4800' "$conf: others read"
		case $conf in
			*mmap) like "$(status 'structure memory')" '^degraded: .*; [4-9] not bound to their nodes: dynamic_shared_memory_type is mmap$' "$conf: status says that it is not bound" ;;
			*sysv) is "$(wait_for "SELECT count(*) = 4 FROM own WHERE there AND used_bytes > 1200000")" t "$conf: all of it is on its node" ;;
			*64MB) like "$(status 'structure memory')" '^degraded: .*; [4-9] not bound to their nodes: they are in min_dynamic_shared_memory$' "$conf: status says that it is not bound" ;;
		esac
		tell watch "SELECT discard('kind')" >/dev/null
		is "$(wait_for "SELECT max(used_bytes) <= 16 * 65536 FROM own")" t "$conf: dropped"
		close_session watch
	done
}

# Caches on four nodes: a partition on each, one cache for all.
check_caches() {
	local n i got stale=0
	server_stop
	server_start "$on
$small
nexusmem.enable_numa_caching = on
nexusmem.cache_size = 32MB" || return
	session watch
	for n in 0 1 2 3; do
		session "${names[n]}" $n
		is "$(tell "${names[n]}" "SELECT nexusmem.my_node()")" $n "a backend on node $n"
	done

	# whoever writes, a key goes to its own node: about 2 MB to each
	is "$(tell b "SELECT count(nexusmem.cache_set('k' || k, repeat('x', 2000))) FROM generate_series(1, 4000) k")" 4000 "a backend on node 1 writes"
	is "$(q "SELECT string_agg(node::text, ',' ORDER BY node), sum(entries), bool_and(entries BETWEEN 800 AND 1200) FROM nexusmem.stat_cache")" \
		"0,1,2,3|4000|t" "a partition on each node, of about equal size"
	is "$(wait_for "SELECT count(*) = 4 FROM nexusmem.node_memory WHERE owner = 'caches' AND node IS NOT NULL AND used_bytes > 1600000 AND $there")" \
		t "the kernel says that all of each is on its node"
	like "$(status cache)" '^active: .*, a partition on each of 4 nodes$' "status: active"
	show "SELECT * FROM nexusmem.node_memory WHERE owner = 'caches'"
	for n in 0 1 2 3; do
		q "SELECT nexusmem.stat_cache_reset()" >/dev/null
		is "$(tell "${names[n]}" "SELECT count(nexusmem.cache_get('k' || k)) FROM generate_series(1, 4000) k")" 4000 "a backend on node $n reads all"
		is "$(q "SELECT sum(hits), bool_and(local_hits = CASE node WHEN $n THEN entries ELSE 0 END), bool_and(remote_hits = CASE node WHEN $n THEN 0 ELSE entries END) FROM nexusmem.stat_cache")" \
			"4000|t|t" "local hits are those on node $n, all others are remote"
	done
	is "$(wait_for "SELECT count(*) = 4 FROM nexusmem.node_memory WHERE owner = 'caches' AND node IS NOT NULL AND $there")" t "which leaves it where it is"

	# One writes, all read what it wrote when it says so: keys of all partitions.
	for ((i = 1; i <= 16; i++)); do
		tell "${names[i % 4]}" "SELECT nexusmem.cache_set('seen ' || $i % 8, '$i')" >/dev/null
		for n in "${names[@]}"; do
			got=$(tell "$n" "SELECT nexusmem.cache_get('seen ' || $i % 8)")
			[ "$got" = "$i" ] || ((stale++))
		done
	done
	is $stale 0 "one writes, then all read: the new value"
	# the same while the writer goes on
	q "$(cat "$NXM_BUILD/test/read_after_write.sql")" >/dev/null
	session writer 0
	for n in "${names[@]}"; do begin_tell "$n" "SELECT read_while_written(50)"; done
	begin_tell writer "SELECT write_until(4)"
	for n in 0 1 2 3; do
		is "$(end_tell "${names[n]}")" 0 "node 0 writes, node $n reads: never an older value than was written"
	done
	end_tell writer >/dev/null
	close_session writer
	for n in "${names[@]}" watch; do close_session "$n"; done

	# in two nodes of two memories each
	server_stop
	server_start "$on
$small
nexusmem.num_nodes = 2
nexusmem.enable_numa_caching = on" || return
	session watch
	q "SELECT count(nexusmem.cache_set('k' || k, repeat('x', 2000))) FROM generate_series(1, 3000) k" >/dev/null
	is "$(wait_for "SELECT count(*) = 2 FROM nexusmem.node_memory WHERE owner = 'caches' AND node IS NOT NULL AND $there AND used_bytes > 2000000")" t "two logical nodes of two memories each: all of it is on its node"
	close_session watch

	# not divided
	server_stop
	server_start "$on
$small
nexusmem.enable_numa_caching = off" || return
	q "SELECT count(nexusmem.cache_set('k' || k, repeat('x', 2000))) FROM generate_series(1, 1000) k" >/dev/null
	is "$(q "SELECT count(*), count(node), sum(entries) FROM nexusmem.stat_cache")" "1|0|1000" "not divided: one partition, of no node"
	is "$(q "SELECT sum(used_bytes) FILTER (WHERE node IS NULL) > 2000000, coalesce(sum(used_bytes) FILTER (WHERE node IS NOT NULL), 0), count(on_node_bytes) FILTER (WHERE node IS NULL) FROM nexusmem.node_memory WHERE owner = 'caches'")" \
		"t|0|0" "in memory that is bound to no node"
	like "$(status cache)" 'not partitioned$' "status: not partitioned"

	# beside a large segment of the caches, which is bound to no node
	server_stop
	server_start "$on
$small
nexusmem.cache_size = 20GB" || return
	q "SELECT nexusmem.cache_set('k', 'v'), nexusmem.counter_add('c')" >/dev/null
	is "$(q "SELECT reserved_bytes > 100 << 20 FROM nexusmem.node_memory WHERE node IS NULL AND owner = 'caches'")" t "a large segment is the caches'"
	is "$(for i in {1..10}; do status 'structure memory'; done | grep -cv '^active: .* 100 % of sampled pages on their nodes$')" 0 "status tells where structures are, always"
}

cpus_of() { sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$1/status"; }

check_asymmetric() {
	is "$(q 'SELECT count(*) FROM nexusmem.nodes')" 4 "4 nodes"
	is "$(q 'SELECT distances FROM nexusmem.nodes WHERE node = 2')" "{23,24,10,17}" "distances as the firmware tells them"

	# a CPU that comes later, with all features off
	server_stop
	echo 0 >/sys/devices/system/cpu/cpu3/online
	server_start "nexusmem.enable_numa_optimizations = off" || return
	is "$(q "SELECT sum(cpu_count) FROM nexusmem.nodes")" 3 "started with a CPU offline"
	echo 1 >/sys/devices/system/cpu/cpu3/online
	is "$(cpus_of "$(head -n 1 "$DATA/postmaster.pid")")" "$(cpus_of $$)" "online again: the server may use it as anybody"

	server_stop
	server_start "$on
$small
nexusmem.shared_buffers_placement = interleave" || return
	local n pid node os_pages
	for n in a b c d; do
		session $n
		tell $n "SELECT 1" >/dev/null
	done
	# the session that asks is a fifth backend, so on an even load it shares a node
	is "$(q "SELECT count(DISTINCT node), string_agg(DISTINCT reason, ',') FROM nexusmem.backends WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")" \
		"4|policy" "four backends on four nodes"
	for n in a b c d; do
		pid=$(tell $n "SELECT pg_backend_pid()")
		node=$(tell $n "SELECT nexusmem.my_node()")
		is "$(sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$pid/status")" \
			"$(q "SELECT cpus FROM nexusmem.nodes WHERE node = $node")" "backend $n: its CPUs are those of node $node"
		# memory allocated from now on: a sort of some MB kept in private memory
		tell $n "SET work_mem = '64MB'; SELECT count(*) FROM (SELECT repeat(i::text, 20) AS x FROM generate_series(1, 20000) i ORDER BY 1 OFFSET 0) s" >/dev/null
		like "$(grep -c "prefer:$node\|prefer=static:$node" "/proc/$pid/numa_maps")" '^[1-9]' "backend $n: /proc tells that it prefers memory of node $node"
		os_pages=$(awk -v want="N$node" '/\[heap\]|anon=/ && !/file=/ {
			for (i = 3; i <= NF; i++) if (split($i, kv, "=") == 2 && kv[1] ~ /^N[0-9]+$/) {
				all += kv[2]; if (kv[1] == want) here += kv[2] } }
			END { print (all > 0 && here * 2 > all) ? "most" : "few " here "/" all }' "/proc/$pid/numa_maps")
		is "$os_pages" most "backend $n: most of its private pages are on node $node"
	done
	pid=$(tell a "SELECT pg_backend_pid()")
	is "$(q "SELECT nexusmem.pin_backend($pid, 3)")" t "pin_backend on another session"
	is "$(sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$pid/status")" 3 "it runs there at once"
	is "$(tell a "SELECT nexusmem.my_node()")" 3 "its memory follows at its next statement"
	is "$(q "SELECT nexusmem.unpin_backend($pid)")" t "unpin_backend"
	tell a "SELECT 1" >/dev/null
	is "$(sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$pid/status")" 0-3 "it has its CPUs back"
	is "$(grep -c prefer "/proc/$pid/numa_maps")" 0 "and its memory policy"
	# a CPU that goes away, and comes back
	echo 0 >/sys/devices/system/cpu/cpu3/online
	like "$(q "SELECT nexusmem.pin_backend($pid, 3)")" "could not pin process $pid to node 3: Invalid argument" "pin_backend to a node whose CPU is offline"
	like "$(q "SELECT state || hint FROM nexusmem.status WHERE feature = 'pinning'")" "^degraded.*restart" "status: degraded, and what to do"
	like "$(status topology)" "^degraded: .* have changed since the start" "status: topology"
	tell b "SET nexusmem.preferred_node = 3; SELECT 1" >/dev/null
	is "$(grep -c prefer "/proc/$(tell b "SELECT pg_backend_pid()")/numa_maps")" 0 "who prefers a node that it cannot be pinned to gets no memory there"
	like "$(status 'memory policy')" "^degraded: .* not be pinned" "status: memory policy"
	echo 1 >/sys/devices/system/cpu/cpu3/online
	session watch
	like "$(wait_for "SELECT cpus_allowed = '3' FROM nexusmem.backends WHERE pid = $(tell b "SELECT pg_backend_pid()")")" "^t$" "online again: it is pinned within seconds"
	tell b "SELECT 1" >/dev/null
	like "$(grep -c "prefer:3\|prefer=static:3" "/proc/$(tell b "SELECT pg_backend_pid()")/numa_maps")" '^[1-9]' "and at its next statement it prefers memory there"
	close_session watch
	like "$(status topology)" "^active" "status: topology again"
	like "$(q "SELECT nexusmem.pin_backend($pid, 3)")" "^t$" "pin_backend pins, too"
	like "$(status pinning)" "^active" "status: active again"
	for n in a b c d; do close_session $n; done

	is "$(fill_buffers 8400)" "" "shared_buffers filled"
	like "$(status 'shared_buffers placement')" '^active: interleaved.*verified, on 4 memories' "status: interleaved and verified, on each memory"
	even interleave 0,1,2,3 2
	show "SELECT * FROM nexusmem.shared_buffers_nodes"
	is "$(q "SELECT sum(buffers) > 1000, count(*) FROM nexusmem.relation_nodes('fill')")" "t|4" "relation_nodes"

	server_stop
	server_start "$small
nexusmem.shared_buffers_placement = partition" || return
	fill_buffers 8400 >/dev/null
	like "$(status 'shared_buffers placement')" '^active: [0-9]+ stripes of 64 buffers with their descriptors' "status: stripes with their descriptors"
	even partition 0,1,2,3 2
	show "SELECT * FROM nexusmem.shared_buffers_nodes"
	# 128 stripes, the first one in two parts, and the two ends of the array
	is "$(q "SELECT sum(split) <= 128 + 1 + 2 FROM nexusmem.shared_buffers_nodes")" t "no buffer is split inside a stripe (at most one at each edge)"

	# address space beyond this machine's memory
	echo 1 >/proc/sys/vm/overcommit_memory
	local plain placed
	server_stop
	server_start "shared_buffers = 4GB" || return
	plain=$(postmaster_mappings)
	server_stop
	server_start "shared_buffers = 4GB
nexusmem.shared_buffers_placement = partition" || return
	placed=$(postmaster_mappings)
	is "$placed" "$plain" "4 GB partitioned: the postmaster has as many mappings as without"
	# sampled all over, not in step with the stripes; 256 pages of buffers and 256 of descriptors
	like "$(status 'shared_buffers placement')" '^active:.* 512 of 512 sampled pages verified, on 4 memories' "4 GB partitioned: verified on each memory"
	show "SELECT detail FROM nexusmem.status WHERE feature = 'shared_buffers placement'"

	server_stop
	server_start "$small
$on
nexusmem.shared_buffers_placement = partition" "$NXM_BUILD/test/numa/bin/deny" mbind,set_mempolicy,get_mempolicy,move_pages,sched_setaffinity -- || return
	fill_buffers 100 >/dev/null
	is "$(q "SELECT string_agg(feature, ', ' ORDER BY feature) FROM nexusmem.status WHERE state = 'degraded'")" \
		"NUMA system calls, memory policy, pinning, shared_buffers placement" "all NUMA calls refused: status says so"
	is "$(q "SELECT count(*) FROM nexusmem.shared_buffers_nodes WHERE node IS NULL")" 1 "all NUMA calls refused: buffers are on an unknown node"
}

check_holes() {
	is "$(q "SELECT string_agg(node || ':' || cpu_count || ':' || (memory_bytes > 0), ' ' ORDER BY node) FROM nexusmem.nodes")" \
		"0:1:true 1:1:true 2:1:false 3:0:true" "a memory-less node and a CPU-less one"
	server_stop
	server_start "$small
$on
nexusmem.shared_buffers_placement = partition" || return
	local n pid
	for n in a b c d e; do
		session $n
		tell $n "SELECT 1" >/dev/null
	done
	is "$(q "SELECT string_agg(DISTINCT node::text, ',' ORDER BY node::text) FROM nexusmem.backends WHERE backend_type = 'client backend'")" \
		"0,1,2" "no backend on the CPU-less node"
	pid=$(q "SELECT pid FROM nexusmem.backends WHERE backend_type = 'client backend' AND node = 2 AND pid <> pg_backend_pid() LIMIT 1")
	like "$(grep -c "prefer:3" "/proc/$pid/numa_maps")" '^[1-9]' "the memory-less node's backend prefers its nearest neighbour, node 3"
	like "$(q "SELECT nexusmem.pin_backend($pid, 3)")" "ERROR:  node 3 has no CPUs.*HINT" "pin_backend refuses the CPU-less node"
	for n in a b c d e; do close_session $n; done
	fill_buffers 8400 >/dev/null
	even partition 0,1,3 3
	show "SELECT * FROM nexusmem.shared_buffers_nodes"
	server_stop
	server_start "$small
nexusmem.shared_buffers_placement = interleave" || return
	fill_buffers 8400 >/dev/null
	even interleave 0,1,3 2
	# three memories: small pages a huge one apart are on all of them, too
	check_no_huge "$small" 3
}

check_huge() {
	server_stop
	server_start "shared_buffers = 256MB
huge_pages = on
nexusmem.shared_buffers_placement = interleave" || return
	fill_buffers 33000 >/dev/null
	like "$(status 'shared_buffers placement')" '^active: interleaved by 2 MB pages' "status: 2 MB pages, verified"
	even interleave 0,1,2,3 4
	server_stop
	server_start "shared_buffers = 256MB
huge_pages = on
nexusmem.shared_buffers_placement = partition" || return
	fill_buffers 33000 >/dev/null
	like "$(status 'shared_buffers placement')" '^active: [0-9]+ stripes of 256 buffers without their descriptors' "status: stripes of 2 MB without their descriptors, verified"
	even partition 0,1,2,3 4
	show "SELECT * FROM nexusmem.shared_buffers_nodes"

	# huge pages that nobody reserved, all over shared_buffers if there is free memory in
	# such pieces; to verify them touches enough to make some
	local how huge
	server_stop
	echo 0 >/proc/sys/vm/nr_hugepages
	sync
	echo 3 >/proc/sys/vm/drop_caches
	echo 1 >/proc/sys/vm/compact_memory
	echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled
	for how in partition interleave; do
		huge=
		server_stop
		server_start "shared_buffers = 256MB
huge_pages = off
nexusmem.shared_buffers_placement = $how" || return
		is "$(grep -c '^ShmemHugePages: *0 kB' /proc/meminfo)" 0 "transparent huge pages, $how: the kernel has made some"
		if [[ $(status 'shared_buffers placement') != active:* ]]; then
			fill_buffers 33000 >/dev/null
			huge=$(awk '$1 == "ShmemHugePages:" {print int($2 / 1024)}' /proc/meminfo)
		fi
		if [ "${huge:-256}" -lt 250 ]; then
			skip "transparent huge pages, $how: verified" "the kernel had $huge MB of them"
		else
			like "$(status 'shared_buffers placement')" '^active: .*2 MB' "transparent huge pages, $how: verified"
		fi
		show "SELECT detail FROM nexusmem.status WHERE feature = 'shared_buffers placement'"
	done
	# the kernel would make some, and has none
	echo never >/sys/kernel/mm/transparent_hugepage/shmem_enabled
	check_no_huge "shared_buffers = 256MB" 4
}

# check_no_huge CONF MEMORIES: the kernel says that it makes huge pages of shared memory,
# and has none.
check_no_huge() {
	echo '[always] within_size advise never deny force' >/tmp/shmem_enabled
	mount --bind /tmp/shmem_enabled /sys/kernel/mm/transparent_hugepage/shmem_enabled
	server_stop
	server_start "$1
huge_pages = off
nexusmem.shared_buffers_placement = interleave" || return
	like "$(status 'shared_buffers placement')" "^active: interleaved by 4 kB pages.*verified, on $2 memories" "no huge pages where some are to be expected: small ones, verified"
	umount /sys/kernel/mm/transparent_hugepage/shmem_enabled
}

check_huge-short() {
	server_stop
	server_start "shared_buffers = 256MB
huge_pages = on
nexusmem.shared_buffers_placement = partition" || return
	is "$(fill_buffers 33000)" "" "a node with too few huge pages: all of shared_buffers can be used"
	like "$(status 'shared_buffers placement')" '^degraded: .* sampled pages verified' "a node with too few huge pages: degraded"
	show "SELECT * FROM nexusmem.shared_buffers_nodes"
	server_stop
	server_start "shared_buffers = 256MB
huge_pages = on
nexusmem.shared_buffers_placement = interleave" || return
	is "$(fill_buffers 33000)" "" "interleaved: all of shared_buffers can be used"
}

# those look at the machine before they give the server settings of their own
: >>/out/server.log
if [ "$machine" = asymmetric ] || [ "$machine" = holes ]; then
	server_start "" || exit 1
	show 'SELECT node, cpus, cpu_count, memory_bytes >> 20 AS mb, distances, source FROM nexusmem.nodes'
	show 'SELECT * FROM nexusmem.status'
fi
"check_$machine"
server_stop

exit $bad
