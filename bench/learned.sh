#!/bin/bash
# bench/learned.sh: what learned look-ahead gains where the same lookups come again, and
# what look-ahead of each kind does to many sessions that saturate the device.
#
#	PAIRS=3			pairs of runs of each case
#	ROWS=150000		of each of the 5 tables, 1 kB each, in an order that their keys
#				know nothing of
#	FILL=10			fillfactor of their indexes: with 10 they have as many leaves as those of
#				tables of 10 times the size, so that few lookups share one
#	PAGES=500		sequences of 20 lookups, 4 in each table
#	CLIENTS=8		of the case clients, and which kinds of look-ahead it is run with:
#	KINDS="learned index nestloop"
#	CASES=...		the cases to run, as they are named below
#
# A is nexusmem.enable_learned_prefetch = off, B is on. A page is a sequence of lookups
# by primary key, each a statement of its own in PL/pgSQL, as an application does them.
# Which keys a page has is chance, the same each time. Before each run the server
# restarts, and the files of all tables and indexes leave the operating system's cache:
# what was learned comes from the file. All runs take pages in an order of their own.
# Sessions have touched all of shared_buffers before the clock starts (see lib.sh), but
# those of the case clients.
#
# recurring	pages that were run once before, with it on
# fresh		pages that nobody has run before, in one session and in turns of 8 pages with it
#		off, on, and off again, in all orders: so both meet the same noise. "fresh, alike" is
#		off against off again: how far the figure can be trusted
# clients	CLIENTS sessions at once: throughput and 99th percentile with each kind of
#		look-ahead and without any: recurring pages (learned), 50 rows of a range
#		(index), 50 probes (nestloop)
# cached	recurring pages, all in shared_buffers
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 3
param ROWS 150000
param FILL 10
param PAGES 500
param CLIENTS 8
param KINDS "learned index nestloop"
param SEED $RANDOM
CASES=${CASES:-"recurring fresh clients cached"}
bench_begin learned "$@"

echo "preparing: 5 tables of $ROWS rows"
nxm_cluster_start main "$COLD_CONF
shared_buffers = 1GB
checkpoint_timeout = 1h
jit = off
enable_hashjoin = off
enable_mergejoin = off
enable_seqscan = off"
nxm_psql <<-SQL
	SET max_parallel_workers_per_gather = 0;
	CREATE EXTENSION nexusmem;
	CREATE EXTENSION pg_prewarm;
	$(filler 1024)
	DO \$\$
	BEGIN
		FOR t IN 0 .. 4 LOOP
			EXECUTE format('CREATE TABLE t%s (k int, pad text)', t);
			EXECUTE format('ALTER TABLE t%s ALTER pad SET STORAGE PLAIN', t);
			EXECUTE format('INSERT INTO t%s SELECT k, repeat(''x'', 950) FROM (SELECT k FROM generate_series(0, $ROWS - 1) k ORDER BY hashint4extended(k, $SEED + %s)) s', t, t);
			EXECUTE format('ALTER TABLE t%s ADD PRIMARY KEY (k) WITH (fillfactor = $FILL)', t);
		END LOOP;
	END \$\$;
	VACUUM (FREEZE, ANALYZE);
	-- the keys of a page
	CREATE FUNCTION keys(page int) RETURNS int[] LANGUAGE sql IMMUTABLE AS
	\$\$SELECT array_agg(abs(hashint4extended(page * 20 + i, $SEED) % $ROWS)::int ORDER BY i) FROM generate_series(1, 20) i\$\$;
	CREATE FUNCTION page(page int) RETURNS int LANGUAGE plpgsql AS \$\$
	DECLARE
		ks int[] := keys(page); key int; n int := 0; x text;
	BEGIN
		FOR i IN 0 .. 3 LOOP
			key := ks[i * 5 + 1];
			SELECT pad INTO x FROM t0 WHERE k = key; n := n + octet_length(x);
			key := ks[i * 5 + 2];
			SELECT pad INTO x FROM t1 WHERE k = key; n := n + octet_length(x);
			key := ks[i * 5 + 3];
			SELECT pad INTO x FROM t2 WHERE k = key; n := n + octet_length(x);
			key := ks[i * 5 + 4];
			SELECT pad INTO x FROM t3 WHERE k = key; n := n + octet_length(x);
			key := ks[i * 5 + 5];
			SELECT pad INTO x FROM t4 WHERE k = key; n := n + octet_length(x);
		END LOOP;
		RETURN n;
	END \$\$;
	-- the same of one table: a range, and probes
	CREATE FUNCTION range(page int) RETURNS bigint LANGUAGE plpgsql AS \$\$
	DECLARE
		n bigint;
	BEGIN
		EXECUTE format('SELECT sum(length(pad)) FROM (SELECT pad FROM t%s WHERE k BETWEEN \$1 AND \$1 + 49 ORDER BY k) x', page % 5)
			INTO n USING (keys(page))[1];
		RETURN n;
	END \$\$;
	CREATE FUNCTION probes(page int) RETURNS bigint LANGUAGE plpgsql AS \$\$
	DECLARE
		n bigint;
	BEGIN
		EXECUTE format('SELECT sum(length(pad)) FROM generate_series(\$1, \$1 + 49) i JOIN t%s ON k = i * 101 %% $ROWS', page % 5)
			INTO n USING (keys(page))[1];
		RETURN n;
	END \$\$;
	CHECKPOINT;
SQL
FILES=()
for t in t0 t1 t2 t3 t4 t0_pkey t1_pkey t2_pkey t3_pkey t4_pkey; do
	mapfile -t -O ${#FILES[@]} FILES < <(relation_files $t)
done

# restart on|off ["conf lines"]: with all data on disk alone, and learned look-ahead so
restart() {
	cold_start "nexusmem.enable_learned_prefetch = $1
nexusmem.enable_prefetch = on
nexusmem.enable_nestloop_prefetch = off
${2:-}" "${FILES[@]}"
	if [ "$1" = on ]; then
		for ((i = 0; i < 100; i++)); do
			if [ "$(nxm_psql -Atc "SELECT state FROM nexusmem.status WHERE feature = 'learned look-ahead'")" = active ]; then return; fi
			sleep 0.1
		done
		nxm_die "learned look-ahead does not become active"
	fi
}

# order_of FIRST SEED: PAGES pages from FIRST on, in an order of their own
order_of() { echo "SELECT array_agg(p ORDER BY hashint4extended(p, $2)) FROM generate_series($1, $1 + $PAGES - 1) p"; }

# Nanoseconds that the session was ready to run and had no CPU: on a busy machine most
# of them are owed to others.
WAITED_NS="split_part(pg_read_file('/proc/self/schedstat'), ' ', 2)::bigint"

# run FIRST SEED [TIMES]: "ms ms_less_waited issued used wasted" of the pages in one session
run() {
	nxm_psql -At <<-SQL
		SET plan_cache_mode = force_generic_plan;
		$TOUCH_BUFFERS
		DO \$\$
		DECLARE
			pages int[] := ($(order_of "$1" "$2"));
			p int; n bigint := 0; began timestamptz; waited bigint;
		BEGIN
			-- plans, and loads catalogs
			n := page(-1);
			FOR i IN 1 .. ${3:-1} LOOP
				waited := ${WAITED_NS};
				began := clock_timestamp();
				FOREACH p IN ARRAY pages LOOP
					n := n + page(p);
				END LOOP;
			END LOOP;
			PERFORM set_config('bench.ms', (extract(epoch FROM clock_timestamp() - began) * 1000)::text, false);
			PERFORM set_config('bench.waited', ((${WAITED_NS} - waited) / 1e6)::text, false);
		END \$\$;
		SELECT current_setting('bench.ms'), current_setting('bench.ms')::numeric - current_setting('bench.waited')::numeric, issued, used, wasted FROM nexusmem.session_prefetch() WHERE kind = 'learned';
	SQL
}

# many FUNCTION FIRST: "pages/s p99_us" of CLIENTS sessions, each with pages of its own
many() {
	rm -f "$NXM_LOG"/latency*
	# each session's first transaction loads catalogs of all tables, and does not count
	cat >"$NXM_TMP/page.sql" <<-SQL
		\\if :warm = 0
		\\set warm 1
		SELECT sum($1(100000000 + i)) FROM generate_series(0, 4) i;
		\\else
		SELECT $1($2 + nextval('pages')::int % $PAGES);
		\\endif
	SQL
	chmod a+r "$NXM_TMP/page.sql"
	nxm_psql -qc 'SET client_min_messages = warning; DROP SEQUENCE IF EXISTS pages; CREATE SEQUENCE pages MINVALUE 0'
	(cd "$NXM_TMP" && as_postgres "$PG_BIN/pgbench" -n -M prepared -D warm=0 -c "$CLIENTS" -j 2 -t $((PAGES / CLIENTS + 1)) -l --log-prefix="$NXM_LOG/latency" -f page.sql) |
		awk '/^tps/ { printf "%s ", $3 }' || nxm_die "pgbench failed"
	cat "$NXM_LOG"/latency* | sort -n -k 1,1 -k 2,2 | awk '$1 != client { client = $1; next } { print $3 }' | sort -n | awk '{ v[NR] = $1 } END { print v[int(NR * 0.99 + 0.5)] }'
	rm -f "$NXM_LOG"/latency*
}

# fresh FIRST: "off|on|again" ms, and then the same less the time waited for a CPU, of
# about PAGES pages each, from FIRST on
fresh() {
	local orders=("off on again" "on again off" "again off on" "again on off" "off again on" "on off again")
	local at=$1 arm setting turn pages=8
	{
		cat <<-SQL
			SET plan_cache_mode = force_generic_plan;
			$TOUCH_BUFFERS
			CREATE TEMP TABLE took (arm text, ms float8, waited float8);
			CREATE PROCEDURE pg_temp.turn(arm text, setting text, first int) LANGUAGE plpgsql AS \$\$
			DECLARE
				n bigint; began timestamptz; waited bigint;
			BEGIN
				IF current_setting('nexusmem.enable_learned_prefetch') <> setting THEN
					RAISE 'nexusmem.enable_learned_prefetch is not %', setting;
				END IF;
				-- plans, loads catalogs, and lets indexes have the routine of the setting
				n := page(-1);
				waited := ${WAITED_NS};
				began := clock_timestamp();
				FOR p IN first .. first + $((pages - 1)) LOOP
					n := n + page(p);
				END LOOP;
				INSERT INTO took VALUES (arm, extract(epoch FROM clock_timestamp() - began) * 1000, (${WAITED_NS} - waited) / 1e6);
			END \$\$;
			CALL pg_temp.turn('first', 'on', $at);
		SQL
		for ((turn = 0; turn < (PAGES + pages - 1) / pages; turn++)); do
			for arm in ${orders[turn % 6]}; do
				at=$((at + pages))
				setting=${arm/again/off}
				# reloaded by this session alone, before its next statement
				cat <<-SQL
					ALTER SYSTEM SET nexusmem.enable_learned_prefetch = $setting;
					COPY (SELECT WHERE false) TO PROGRAM 'kill -HUP \$PPID';
					CALL pg_temp.turn('$arm', '$setting', $at);
				SQL
			done
		done
		cat <<-SQL
			ALTER SYSTEM RESET nexusmem.enable_learned_prefetch;
			WITH s AS (SELECT arm, sum(ms) AS ms, sum(ms - waited) AS less FROM took GROUP BY arm)
			SELECT a.ms, b.ms, c.ms, a.less, b.less, c.less FROM s a, s b, s c WHERE (a.arm, b.arm, c.arm) = ('off', 'on', 'again');
		SQL
	} >"$NXM_TMP/fresh.sql"
	chmod a+r "$NXM_TMP/fresh.sql"
	nxm_psql -At -f "$NXM_TMP/fresh.sql"
}

# many_with KIND on|off FIRST: the same with look-ahead of this kind, cold
many_with() {
	case $1 in
		learned)
			restart "$2"
			many page "$3"
			;;
		index)
			restart off "nexusmem.enable_prefetch = $2"
			many range "$3"
			;;
		nestloop)
			restart off "nexusmem.enable_nestloop_prefetch = $2"
			many probes "$3"
			;;
	esac
}

# the pages of a pair, learned
teach() {
	restart on
	run "$1" 1 >/dev/null
}

USED=
declare -A rate p99
for ((p = 1; p <= PAIRS; p++)); do
	echo "pair $p of $PAIRS"
	first=$((p * PAGES * 8))
	# the second run of two is the slower one, alike or not
	order="off on"
	if ((p % 2 == 0)); then order="on off"; fi
	for c in $CASES; do
		case $c in
			recurring)
				teach $first
				restart off
				take "recurring, off" "$(run $first $((SEED + p)))" off off2 _ _ _
				restart on
				take "recurring, on" "$(run $first $((SEED + p)))" on on2 issued used wasted
				pair recurring "$off" "$on"
				pair "recurring, CPU wait subtracted" "$off2" "$on2"
				USED+="  $issued issued, $used used, $wasted wasted"$'\n'
				;;
			fresh)
				restart on
				take fresh "$(fresh $((first + 4 * PAGES)))" off on again off2 on2 again2
				pair fresh "$off" "$on"
				pair "fresh, alike" "$off" "$again"
				pair "fresh, CPU wait subtracted" "$off2" "$on2"
				pair "fresh, alike, CPU wait subtracted" "$off2" "$again2"
				;;
			clients)
				teach $((first + 2 * PAGES))
				for kind in $KINDS; do
					for setting in $order; do
						figures=$(many_with "$kind" $setting $((first + 2 * PAGES)))
						take "clients, $kind, $setting" "$figures" "rate[$setting]" "p99[$setting]"
					done
					pair "clients, $kind, pages/s" "${rate[off]}" "${rate[on]}"
					pair "clients, $kind, p99" "${p99[off]}" "${p99[on]}"
				done
				;;
			cached)
				restart off
				take "cached, off" "$(run $first $((SEED + p)) 4)" off off2 _ _ _
				restart on
				take "cached, on" "$(run $first $((SEED + p)) 4)" on on2 _ _ _
				pair cached "$off" "$on"
				pair "cached, CPU wait subtracted" "$off2" "$on2"
				;;
			*) nxm_die "no case $c" ;;
		esac
	done
done

echo
echo "median (least to greatest); pairs off:on"
for c in $CASES; do
	case $c in
		recurring)
			report recurring A/B ms '>=' 2
			report 'recurring, CPU wait subtracted' A/B ms
			;;
		fresh)
			report fresh A/B ms '>=' 0.98
			report 'fresh, alike' A/B ms
			report 'fresh, CPU wait subtracted' A/B ms
			report 'fresh, alike, CPU wait subtracted' A/B ms
			;;
		clients)
			for kind in $KINDS; do
				report "clients, $kind, pages/s" B/A pages/s '>=' 1
				report "clients, $kind, p99" B/A us '<=' 1.05
			done
			;;
		cached)
			report cached A/B ms '>=' 0.97
			report 'cached, CPU wait subtracted' A/B ms
			;;
	esac
done
echo "recurring pages, blocks:"
printf '%s' "$USED"
