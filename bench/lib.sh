# shellcheck shell=bash
# bench/lib.sh: what the benchmarks share, on top of test/lib.sh. Source it.
#
# A benchmark compares A and B, interleaved: A B A B ... Each pair gives a ratio,
# and the result is the median of the ratios with the least and the greatest.
# Ratios carry over to other machines, times do not.
#
# Every benchmark runs on a private cluster below BENCH_DIR (default /var/tmp,
# which unlike /tmp is seldom in memory), removed at the end.

. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"
# A command that fails within $(...) ends that too, so that nothing is made of the rest.
shopt -s inherit_errexit

BENCH_PARAMS=

# param NAME DEFAULT: a parameter that the environment may set.
param() {
	if [ -z "${!1:-}" ]; then printf -v "$1" '%s' "$2"; fi
	BENCH_PARAMS+=" $1=${!1}"
}

# said WHAT VALUE: a line of what a benchmark says of itself.
said() { printf '  %-11s %s\n' "$1" "$2"; }

# version_of PACKAGE: of what pkg-config knows by that name.
version_of() { pkg-config --modversion "$1" 2>/dev/null || echo unknown; }

# bench_head NAME [WHAT VALUE]...: what is measured on what, and what else there is to say.
bench_head() {
	echo "bench/$1.sh"
	shift
	said commit "$(git -C "$NXM_ROOT" describe --always --dirty 2>/dev/null || echo "none (no git repository)")"
	if [ -n "${PG_BIN:-}" ]; then said PostgreSQL "$("$PG_CONFIG" --version | sed 's/^PostgreSQL //')"; fi
	while [ $# -gt 0 ]; do
		said "$1" "$2"
		shift 2
	done
	said compiler "$(cc --version | sed -n 1p)"
	said kernel "$(uname -srm)"
	said CPU "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort | uniq -c | sed -n '1s/^ *\([0-9]*\) /\1 x /p')"
	said storage "$(findmnt -no SOURCE,FSTYPE -T "$NXM_TMP" 2>/dev/null || echo unknown)"
	said parameters "${BENCH_PARAMS# }"
	said load "$(cut -d' ' -f1-3 /proc/loadavg) when it began"
	echo
}

# bench_begin NAME "$@": build, install privately, say what is measured on what.
bench_begin() {
	local name=$1
	shift
	nxm_pg_config
	nxm_private "$@"
	nxm_init "bench-$name" "${BENCH_DIR:-/var/tmp}"
	nxm_build
	mkdir -p "$NXM_TMP/pairs"
	bench_head "$name"
}

# figures CASE FIGURE...: ends the script where one is no number. Call it in the main shell:
# a side that fails within $(...) leaves an empty word, and awk divides by that.
figures() {
	local f
	for f in "${@:2}"; do
		[[ $f =~ ^-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$ ]] || nxm_die "$1: \"$f\" is not a figure, of: $(printf '"%s" ' "${@:2}")"
	done
}

# take CASE LINE NAME...: the figures of a line, with blanks or bars between them, into
# variables of these names. One too few, or too many, ends the script.
take() {
	local take_words take_names=("${@:3}") take_i
	IFS=' |' read -r -a take_words <<<"$2"
	[ ${#take_words[@]} = ${#take_names[@]} ] || nxm_die "$1: \"$2\" is not ${#take_names[@]} figures (${take_names[*]})"
	figures "$1" "${take_words[@]}"
	for take_i in "${!take_names[@]}"; do printf -v "${take_names[take_i]}" '%s' "${take_words[take_i]}"; done
}

# pair CASE A B: one pair of figures of a case.
pair() {
	[ $# = 3 ] || nxm_die "$1: $(($# - 1)) figures instead of a pair: ${*:2}"
	figures "$@"
	echo "$2 $3" >>"$(pairs_of "$1")"
}

pairs_of() { printf "%s" "$NXM_TMP/pairs/${1//\//:}"; }

# median: of the numbers on standard input, one a line.
median() {
	local v
	mapfile -t v < <(sort -g)
	[ ${#v[@]} -gt 0 ] || nxm_die "a median of nothing"
	figures "a median" "${v[@]}"
	printf '%s\n' "${v[@]}" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# least: of the same.
least() {
	local v
	mapfile -t v < <(sort -g)
	[ ${#v[@]} -gt 0 ] || nxm_die "the least of nothing"
	figures "the least" "${v[@]}"
	echo "${v[0]}"
}

# report CASE "A/B"|"B/A"|"B-A" UNIT [">=" | "<=" TARGET]: the result of a case, and
# under it its pairs. There is no ratio to a figure that is not above 0.
report() {
	local ratios
	[ -s "$(pairs_of "$1")" ] || nxm_die "$1: no pair was measured"
	awk -v what="$2" '{ print what == "B-A" ? $2 - $1 : $1 <= 0 || $2 <= 0 ? "of " $1 " and " $2 : what == "A/B" ? $1 / $2 : $2 / $1 }' \
		"$(pairs_of "$1")" | sort -g >"$NXM_TMP/ratios"
	mapfile -t ratios <"$NXM_TMP/ratios"
	figures "$1, $2" "${ratios[@]}"
	[ -z "${4:-}" ] || figures "the target of $1" "${5:-}"
	awk -v name="$1" -v unit="$3" -v op="${4:-}" -v target="${5:-}" -v diff="$([ "$2" != B-A ] || echo 1)" -v ratios="$NXM_TMP/ratios" '
		function show(x) { return sprintf(diff ? "%.2f" : "%.3f", x) }
		{ list = list sprintf("  %.4g:%.4g", $1, $2) }
		END {
			while ((getline r <ratios) > 0) v[++n] = r
			m = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
			verdict = ""
			if (op != "")
				verdict = sprintf("  %s %s: %s", op, target, (op == ">=" ? m >= target : m <= target) ? "met" : "MISSED")
			printf "%-34s %8s %s  (%s to %s)%s\n", name, show(m), diff ? unit : "x", show(v[1]), show(v[n]), verdict
			printf "    %s%s\n", unit, list
		}' "$(pairs_of "$1")"
}

# relation_files RELATION: the files of its main fork, one a line.
relation_files() {
	local f
	f=$(cluster_dir)/$(nxm_psql -Atc "SELECT pg_relation_filepath('$1')")
	printf '%s\n' "$f"
	find "${f%/*}" -name "${f##*/}.*" | sort
}

# until_true QUERY: waits until it says so.
until_true() {
	local i
	for ((i = 0; i < 1200; i++)); do
		[ "$(nxm_psql -Atc "$1")" != t ] || return 0
		sleep 0.05
	done
	nxm_die "still not true: $1"
}

cluster_dir() { nxm_psql -Atc 'SHOW data_directory'; }

# evict FILE...: out of the operating system's cache. Nothing of them may be dirty. Then they
# are read past that cache: what lies below, such as the host of a virtual machine, may have
# one too, and what A has read must not be in it for B alone.
evict() {
	local f
	for f; do as_postgres dd if="$f" iflag=nocache count=0 status=none; done
	for f; do as_postgres dd if="$f" of=/dev/null bs=8M iflag=direct status=none 2>/dev/null || true; done
	if type -P fincore >/dev/null; then
		fincore -nbo PAGES,FILE "$@" | awk '$1 > 200 { print "still cached: " $1 " pages of " $2; bad = 1 } END { exit bad }' ||
			nxm_die "the operating system does not let go of cached pages here (is $NXM_TMP on disk?)"
	fi
}

# settle_memory: waits until the memory worker has put what was filled into huge pages, as it
# has in a server that has been up for a while.
settle_memory() {
	local i now last= same=0
	for ((i = 0; i < 120 && same < 4; i++)); do
		now=$(nxm_psql -Atc "SELECT coalesce(substring(detail FROM '([0-9]+) MB in huge pages'), '0') FROM nexusmem.status WHERE detail LIKE '%huge pages%'")
		same=$([ "$now" = "$last" ] && echo $((same + 1)) || echo 0)
		last=$now
		sleep 1
	done
	echo "in huge pages: ${last:-0} MB"
}

# What follows measures cold runs of the cluster main, and whole clusters.

COLD_CONF="shared_preload_libraries = 'nexusmem'
wal_level = minimal
max_wal_senders = 0
max_wal_size = 8GB
autovacuum = off
maintenance_work_mem = 512MB
work_mem = 256MB"

# cold_start "conf lines" FILE...: starts it anew, with nothing of the files in any cache.
cold_start() {
	local conf=$1
	shift
	nxm_cluster_stop main
	evict "$@"
	nxm_cluster_start main "$conf"
}

# from_places QUERY REPEAT LAST: a DO block that runs SELECT QUERY once for each of REPEAT
# random numbers @s from 1 to LAST, and leaves milliseconds and the sum of the results in
# bench.ms and bench.rows.
from_places() {
	cat <<-SQL
		DO \$\$
		DECLARE
			starts int[] := ARRAY(SELECT 1 + (random() * ($3 - 1))::int FROM generate_series(1, $2));
			s int;
			n bigint;
			total bigint := 0;
			began timestamptz;
		BEGIN
			-- below all keys: plans, loads catalogs, reads the leftmost pages
			FOREACH s IN ARRAY -1000000 || starts LOOP
				IF s > 0 AND began IS NULL THEN began := clock_timestamp(); END IF;
				n := ${1//@s/s};
				total := total + n;
			END LOOP;
			PERFORM set_config('bench.ms', (extract(epoch FROM clock_timestamp() - began) * 1000)::text, false);
			PERFORM set_config('bench.rows', total::text, false);
		END \$\$;
	SQL
}

# clone_cluster FROM TO: a stopped cluster, page by page the same, on a port of its own.
clone_cluster() {
	local dir
	dir=$(nxm_cluster_dir "$2")
	as_postgres cp -a "$(nxm_cluster_dir "$1")" "$dir"
	echo "port = $((5432 + ${#NXM_CLUSTERS[@]}))" | as_postgres tee -a "$dir/postgresql.conf" >/dev/null
	NXM_CLUSTERS+=("$dir")
}

# ended_cpu DIR: CPU milliseconds that the ended children of this server took.
ended_cpu() {
	local pid
	pid=$(head -n 1 "$(nxm_cluster_dir "$1")/postmaster.pid")
	awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($14 + $15) * 1000 / hz }' "/proc/$pid/stat"
}

# CPU nanoseconds of the session so far, for PL/pgSQL. The kernel brings its figure
# up to date when a process goes to sleep, else at ticks alone.
CPU_NS="split_part(CASE WHEN pg_sleep(0.0001) IS NOT NULL THEN pg_read_file('/proc/self/schedstat') END, ' ', 1)::bigint"

# What follows measures operations of one session, or of several clients.

# the SQL function cpu(command, n): CPU nanoseconds of one of the n operations of a command.
# A SELECT returns how many of them found what they looked for, INSERT and UPDATE how many
# rows they wrote: an error unless all did. A DO block returns nothing: see WARM and AFTER.
# all_of(did, n) is the same check.
CREATE_CPU="CREATE FUNCTION all_of(did bigint, n bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
	BEGIN
		IF did IS DISTINCT FROM n THEN RAISE 'it did % of %', did, n; END IF;
		RETURN n;
	END \$\$;
	CREATE FUNCTION cpu(command text, n bigint) RETURNS numeric LANGUAGE plpgsql AS \$\$
	DECLARE
		selects bool := command LIKE 'SELECT %';
		did bigint;
		took bigint;
		began bigint := $CPU_NS;
	BEGIN
		IF selects THEN
			EXECUTE command INTO STRICT did;
		ELSE
			EXECUTE command;
			GET DIAGNOSTICS did = ROW_COUNT;
		END IF;
		took := $CPU_NS - began;
		IF command NOT LIKE 'DO %' THEN PERFORM all_of(did, n); END IF;
		RETURN round(took::numeric / n, 1);
	END \$\$;"

# has_case NAME: is it in the list CASES?
has_case() { [[ ,$CASES, == *,$1,* ]]; }

# in_one_session: pairs of CPU ns of an operation, of all cases in the array ALL: CASE A
# N B M, where A is a command of N operations and B one of M, in which @ is a number that
# differs with each run. WARM is run first, BETWEEN after each pair, AFTER last: both tell
# by all_of() that what loops look for is there.
in_one_session() {
	local p a b n m name count
	{
		echo "$WARM"
		for ((p = 0; p <= PAIRS; p++)); do
			set -- "${ALL[@]}"
			while [ $# -gt 0 ]; do
				name=$1 a=${2//@/$((p * 7919 + RANDOM))} n=$3 b=${4//@/$((p * 104729 + RANDOM))} m=$5
				shift 5
				printf "SELECT '%s', cpu(\$cmd\$%s\$cmd\$, %d), cpu(\$cmd\$%s\$cmd\$, %d);\n" "$name" "$a" "$n" "$b" "$m"
				[ -z "${BETWEEN:-}" ] || echo "$BETWEEN"
			done
		done
		echo "${AFTER:-}"
	} >"$NXM_TMP/script"
	chmod a+r "$NXM_TMP/script"
	# the first pair plans and warms up
	nxm_psql -At -F'	' -f "$NXM_TMP/script" >"$NXM_TMP/out"
	awk -F'\t' 'NF == 3 && seen[$1]++' "$NXM_TMP/out" >"$NXM_TMP/out2"
	count=$(wc -l <"$NXM_TMP/out2")
	[ "$count" = $((PAIRS * ${#ALL[@]} / 5)) ] || nxm_die "$count pairs of figures instead of $PAIRS of each of $((${#ALL[@]} / 5)) cases"
	while IFS='	' read -r name a b; do pair "$name" "$a" "$b"; done <"$NXM_TMP/out2"
}

# minus FLOOR CASE: a case of the pairs of CASE less the first figures of FLOOR.
minus() {
	local floors lines i f a b
	mapfile -t floors < <(cut -d' ' -f1 "$(pairs_of "$1")")
	mapfile -t lines <"$(pairs_of "$2")"
	[ ${#floors[@]} = ${#lines[@]} ] || nxm_die "$2: ${#lines[@]} pairs, ${#floors[@]} of $1"
	for i in "${!lines[@]}"; do
		take "$2 and $1" "${lines[i]} ${floors[i]}" a b f
		pair "$2, floor subtracted" "$(awk -v x="$a" -v f="$f" 'BEGIN { print x - f }')" "$(awk -v x="$b" -v f="$f" 'BEGIN { print x - f }')"
	done
}

# figure CASE: the medians of both of its columns.
figure() {
	local a b
	a=$(cut -d' ' -f1 "$(pairs_of "$1")" | median)
	b=$(cut -d' ' -f2 "$(pairs_of "$1")" | median)
	printf '%-44s %10.1f %10.1f ns\n' "$1" "$a" "$b"
}

# over EXPRESSION N, loop STATEMENT N: a command that does it N times, i being the number.
over() { printf 'SELECT count(%s) FROM (SELECT generate_series(1, %s)) s(i)' "$1" "$2"; }
loop() { printf 'DO $do$ DECLARE x text; y bigint; b bool; i bigint; BEGIN FOR i IN 1..%s LOOP %s; END LOOP; END $do$' "$2" "$1"; }

# warm_clients CLIENTS N WARM SCRIPT[@WEIGHT]...: operations a second of so many clients at
# the same time, for what they do in scripts; N commands in one count as so many operations
# each. Each client first runs WARM and waits for the others: a backend's first touches of
# shared memory are not measured. All are to be there at the end: where one has gone, the
# others had its share of the machine.
warm_clients() {
	local n=$1 operations=$2 warm=$3 script lock bench before connected scripts=()
	shift 3
	for script; do
		{
			printf '\\if :warm = 0\n\\set warm 1\n%s;\nSELECT pg_advisory_lock_shared(1);\n\\endif\n' "$warm"
			cat "${script%@*}"
		} | as_postgres tee "${script%@*}.warm" >/dev/null
		scripts+=(-f "${script%@*}.warm$([[ $script != *@* ]] || echo "@${script##*@}")")
	done
	nxm_psql -Atc 'SELECT pg_advisory_lock(1)' -c 'SELECT pg_sleep(600)' >/dev/null 2>&1 &
	lock=$!
	until_true "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
	as_postgres "$PG_BIN/pgbench" -n -M prepared -D warm=0 -c "$n" -j "$((n < 2 ? 1 : 2))" -T 1000 -P 1 "${scripts[@]}" >/dev/null 2>"$NXM_TMP/progress" &
	bench=$!
	until_true "SELECT count(*) = $n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
	nxm_psql -Atc "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted" >/dev/null
	before=$(grep -c '^progress' "$NXM_TMP/progress" || true)
	sleep "$((SECONDS_A_RUN + 2))"
	connected=$(nxm_psql -Atc "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'")
	if [ "$connected" != "$n" ]; then
		nxm_tail "$NXM_TMP/progress"
		nxm_die "only $connected of $n clients are left at the end"
	fi
	nxm_psql -Atc "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'" >/dev/null
	wait "$bench" "$lock" 2>/dev/null || true
	# from the first whole second after they began
	awk -v from="$((before + 2))" -v seconds="$SECONDS_A_RUN" -v n="$operations" '
		/^progress/ && ++line >= from && line < from + seconds { sum += $4; lines++ }
		END { if (lines > 0) print sum / lines * n }' "$NXM_TMP/progress"
}

# clients SCRIPT [N]: the same of CLIENTS, that run CLIENTS_WARM first.
clients() { warm_clients "$CLIENTS" "${2:-1}" "${CLIENTS_WARM:-SELECT 1}" "$1"; }

# filler MB: SQL that makes a table of that size. A session that runs TOUCH_BUFFERS before
# the clock starts has touched all of as large shared_buffers, as one that has been at work
# for a while has: else each page of them costs a page fault in either run.
filler() {
	cat <<-SQL
		CREATE TABLE filler (pad text);
		ALTER TABLE filler ALTER pad SET STORAGE PLAIN;
		INSERT INTO filler SELECT repeat('x', 7000) FROM generate_series(1, $(($1 * 128 + 1000)));
		VACUUM (FREEZE) filler;
	SQL
}
TOUCH_BUFFERS="SELECT pg_prewarm('filler') \\g /dev/null"
