#!/bin/bash
# test/demo.sh [DIRECTORY]: shows nexusmem on this machine's own files.
#
# Builds the extension, starts a private cluster with it, loads an inventory of
# the files below DIRECTORY (default /) and asks for the largest ones, cold, with
# look-ahead off and on. Everything is removed at the end; no existing cluster is
# touched.
#
# Limits: cold means out of shared_buffers (a restart) and out of the operating
# system's cache (posix_fadvise); where files lie in memory, as on tmpfs, there
# is nothing to read ahead and the demo says so.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

dir=${1:-/}
pairs=${PAIRS:-3}
rows=${ROWS:-20000}
[ -d "$dir" ] || nxm_die "no directory $dir"

nxm_pg_config
nxm_private "$@"
# unlike /tmp, /var/tmp is seldom in memory
nxm_init demo "${DEMO_TMP:-/var/tmp}"

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
note() { printf '   %s\n' "$*"; }
q() { nxm_psql -At "$@"; }
table() { nxm_psql -P pager=off -P footer=off -c "$1" | sed 's/^/   /'; }

SECONDS=0
step "Building nexusmem for $("$PG_CONFIG" --version)"
nxm_build
note "done ($SECONDS s)"

step "Starting a private cluster"
conf="shared_preload_libraries = 'nexusmem'
nexusmem.enable_numa_optimizations = on
nexusmem.shared_buffers_placement = partition
shared_buffers = 256MB
max_wal_size = 4GB
fsync = off
autovacuum = off
max_parallel_workers_per_gather = 0"
nxm_cluster_start demo "$conf"
q -c 'CREATE EXTENSION nexusmem; CREATE EXTENSION pg_prewarm'
note "in $NXM_TMP, on a socket of its own; removed at the end"
note ""
note "What works here, and what does not and why (nexusmem.status):"
table "SELECT feature, state, detail FROM nexusmem.status"

step "The nodes of this machine (nexusmem.nodes)"
table "SELECT node, cpus, pg_size_pretty(memory_bytes) AS memory, pg_size_pretty(free_bytes) AS free, distances, source, backends FROM nexusmem.nodes"
note "Where server processes run (nexusmem.backends):"
table "SELECT pid, backend_type, node, reason, cpus_allowed, current_cpu FROM nexusmem.backends ORDER BY pid"
if [ "$(q -c 'SELECT count(*) FROM nexusmem.nodes')" = 1 ]; then
	note "One node: every process may use all CPUs, and pinning changes nothing."
	note "nexusmem.num_nodes = 2 would divide this machine."
fi

step "Taking an inventory of the files below $dir"
q -c "CREATE TABLE files (path text, size bigint, owner text, changed timestamptz,
	accessed timestamptz, extension text, mode text, kind text, inode bigint, links int)"
list=$NXM_TMP/files.copy
# COPY's text format: backslash, tab and newline in names are escaped below
find "$dir" -xdev \( -path /proc -o -path /sys -o -path "$NXM_TMP" \) -prune -o \
	-printf '%p\037%s\037%u\037%T@\037%A@\037%m\037%y\037%i\037%n\036' 2>/dev/null |
	tr -d '\000' | awk 'BEGIN { RS = "\036"; FS = "\037"; OFS = "\t" }
		NF == 9 {
			if (++n % 100000 == 0) print "   " n " files so far" >"/dev/stderr"
			gsub(/\\/, "\\\\", $1); gsub(/\t/, "\\t", $1); gsub(/\n/, "\\n", $1); gsub(/\r/, "\\r", $1)
			name = $1; sub(/.*\//, "", name); ext = "\\N"
			if (match(name, /[^.]\.[A-Za-z0-9_]+$/)) ext = substr(name, RSTART + 2)
			print $1, $2, $3, $4, $5, ext, $6, $7, $8, $9
		}' >"$list" || true
if [ "$(id -u)" = 0 ]; then chown "$NXM_USER:" "$list"; fi
q <<-SQL
	SET client_encoding = 'SQL_ASCII';
	CREATE TEMP TABLE raw (path bytea, size bigint, owner text, changed float8, accessed float8,
		extension text, mode text, kind text, inode bigint, links int);
	ALTER TABLE raw ALTER path TYPE text;
	\copy raw FROM PROGRAM 'iconv -c -f UTF-8 -t UTF-8 "$list"'
	INSERT INTO files SELECT path, size, owner, to_timestamp(changed), to_timestamp(accessed),
		extension, mode, kind, inode, links FROM raw;
SQL
rm -f "$list"
n=$(q -c 'SELECT count(*) FROM files')
note "$n files found ($SECONDS s)"
[ "$n" -gt 0 ] || nxm_die "no files below $dir"

# A real server's table is larger than one machine's files: the same inventory of
# several hosts, until the table has some 500 MB.
copies=$(q -c "SELECT greatest(1, least(50, (500 * 1024 * 1024.0 / pg_relation_size('files'))::int))")
if [ "$copies" -gt 1 ]; then
	note "kept for $copies hosts, as a fleet's inventory: the table of one machine fits in any cache"
fi
q <<-SQL
	ALTER TABLE files ADD host int NOT NULL DEFAULT 1;
	INSERT INTO files SELECT f.*, h FROM (SELECT path, size, owner, changed, accessed,
		extension, mode, kind, inode, links FROM files) f, generate_series(2, $copies) h;
	CREATE INDEX files_size ON files (size);
	VACUUM ANALYZE files;
	CHECKPOINT;
SQL
table "SELECT to_char(count(*), 'FM999,999,999') AS rows, pg_size_pretty(pg_relation_size('files')) AS table, pg_size_pretty(pg_relation_size('files_size')) AS index, pg_size_pretty(sum(size)) AS bytes_of_files FROM files"
note "($SECONDS s)"

# Out of shared_buffers, and out of the operating system's cache.
data=$NXM_TMP/demo
path=$(q -c "SELECT pg_relation_filepath('files')")
make_cold() {
	local f
	nxm_cluster_stop demo
	for f in "$data/$path" "$data/$path".*; do
		if [ -f "$f" ]; then dd of="$f" oflag=nocache conv=notrunc,fdatasync count=0 status=none; fi
	done
	nxm_cluster_start demo
	q -c "SELECT pg_prewarm('files_size')" >/dev/null
}

query="SELECT * FROM files WHERE size > 0 ORDER BY size DESC LIMIT $rows"
run() { # off|on
	make_cold
	q <<-SQL
		SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
		SET nexusmem.enable_prefetch = $1;
		EXPLAIN (ANALYZE, TIMING off, COSTS off, BUFFERS) $query;
		SELECT 'issued', issued, used, wasted FROM nexusmem.session_prefetch() WHERE kind = 'index';
	SQL
}
ms() { sed -n 's/^Execution Time: \([0-9.]*\) ms/\1/p' <<<"$1"; }

step "A cold index scan: the $rows largest files of the fleet, largest first"
note "$query"
note ""
ratios=
for i in $(seq "$pairs"); do
	off=$(run off)
	on=$(run on)
	ratio=$(awk -v a="$(ms "$off")" -v b="$(ms "$on")" 'BEGIN { printf "%.2f", a / b }')
	ratios="$ratios $ratio"
	IFS='|' read -r _ issued used wasted < <(grep '^issued' <<<"$on")
	printf '   pair %d: look-ahead off %8.1f ms, on %8.1f ms: %s times as fast; %d blocks read ahead, %d used, %d wasted\n' \
		"$i" "$(ms "$off")" "$(ms "$on")" "$ratio" "$issued" "$used" "$wasted"
done
median=$(tr ' ' '\n' <<<"$ratios" | sed '/^$/d' | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')
printf '   %smedian: %s times as fast%s\n' "$bold" "$median" "$plain"
if [ "$issued" -lt 10 ]; then
	note "Hardly anything was read ahead: the files of this cluster come from memory,"
	note "or the table is small. Set DEMO_TMP to a directory on a disk."
fi

step "Where the buffers lie (nexusmem.shared_buffers_nodes)"
table "SELECT node, buffers, pg_size_pretty(bytes) AS size, dirty, split FROM nexusmem.shared_buffers_nodes"
note "and those of the table alone (nexusmem.relation_nodes):"
table "SELECT node, buffers, pg_size_pretty(bytes) AS size FROM nexusmem.relation_nodes('files')"

step "Done in $SECONDS s; removing everything"
