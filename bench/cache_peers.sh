#!/bin/bash
# bench/cache_peers.sh: the cache over a local socket and from SQL, against an
# unlogged table, Redis, and memcached through pgmemcache.
#
#	PAIRS=15	pairs of runs of each case
#	ENTRIES=1000000	of each side, keys of 7 bytes and values of 100
#	CLIENTS=4	each waits for its answers
#	SECONDS_A_RUN=1	after a warm-up of WARM=1, of the same operation
#	BATCH=32	keys of cache_mget, and requests that Redis gets at once
#	ROWS=100000	operations in a statement, through pgmemcache a fifth
#	CASES=socket,batch,table,memcached
#
# One client program does all sides (bench/cache_peers/client.c: libpq with a
# prepared statement, hiredis), on the cores that the servers run on as well.
# Servers are private ones, with Unix sockets alone; Redis saves nothing.
#
# As root it installs what it needs of redis-server, libhiredis-dev, memcached and
# pgmemcache, without starting services. Where there is no pgmemcache for this
# PostgreSQL, that case is left out, and said to be.
#
# What is beside cache_get against SELECT 1: what a parameter costs that comes back as the
# result (SELECT $1::text), and a built-in function of it with a result as long as a value.
# shellcheck disable=SC2016 # the $1 of statements
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PAIRS 15
param ENTRIES 1000000
param CLIENTS 4
param SECONDS_A_RUN 1
param WARM 1
param BATCH 32
param ROWS 100000
param CASES socket,batch,table,memcached

nxm_pg_config
# before the private namespace, which would hide new files from dpkg later
if [ -z "${NXM_PRIVATE:-}" ]; then
	need=()
	[ -e /usr/include/hiredis/hiredis.h ] || need+=(libhiredis-dev)
	type -P redis-server >/dev/null || need+=(redis-server)
	if has_case memcached; then
		type -P memcached >/dev/null || need+=(memcached)
		if [ ! -e "$("$PG_CONFIG" --sharedir)/extension/pgmemcache.control" ] &&
			apt-cache show "postgresql-$PG_MAJOR-pgmemcache" >/dev/null 2>&1; then
			need+=("postgresql-$PG_MAJOR-pgmemcache")
		fi
	fi
	if [ ${#need[@]} -gt 0 ]; then
		if [ "$(id -u)" != 0 ] || ! type -P apt-get >/dev/null; then nxm_die "install: ${need[*]}"; fi
		nxm_say "installing ${need[*]}"
		policy=/usr/sbin/policy-rc.d
		if [ -e $policy ]; then policy=; else
			printf '#!/bin/sh\nexit 101\n' >$policy
			chmod +x $policy
		fi
		rc=0
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${need[@]}" >/dev/null || rc=$?
		if [ -n "$policy" ]; then rm $policy; fi
		[ $rc = 0 ] || nxm_die "could not install ${need[*]}"
	fi
fi
bench_begin cache_peers "$@"
nxm_log build as_postgres make -C "$NXM_BUILD/bench/cache_peers" PG_CONFIG="$PG_CONFIG" BIN="$NXM_TMP/bin"

SERVERS=()
stop_servers() { local group; for group in "${SERVERS[@]+"${SERVERS[@]}"}"; do kill -- "-$group" 2>/dev/null || true; done; }
trap 'stop_servers; nxm_cleanup' EXIT

# start_server NAME COMMAND...: until its socket is there
start_server() {
	local name=$1 i
	shift
	# with a process group of its own: what is known is the shell's process
	set -m
	as_postgres "$@" >"$NXM_LOG/$name.log" 2>&1 </dev/null &
	set +m
	SERVERS+=($!)
	for ((i = 0; i < 100; i++)); do
		if [ -S "$NXM_TMP/$name.sock" ]; then return 0; fi
		sleep 0.1
	done
	nxm_tail "$NXM_LOG/$name.log"
	nxm_die "$name did not start"
}

libraries=nexusmem memcached_conf=
if has_case memcached; then
	if [ -e "$("$PG_CONFIG" --sharedir)/extension/pgmemcache.control" ]; then
		start_server memcached "$(type -P memcached)" -s "$NXM_TMP/memcached.sock" -m 512 -t 2
		libraries+=,pgmemcache
		memcached_conf="pgmemcache.default_servers = '$NXM_TMP/memcached.sock'"
	else
		echo "left out: there is no pgmemcache for PostgreSQL $PG_MAJOR here"
		echo
		CASES=${CASES//memcached/}
	fi
fi
start_server redis "$(type -P redis-server)" --port 0 --unixsocket "$NXM_TMP/redis.sock" \
	--save '' --appendonly no --daemonize no --dir "$NXM_TMP"
nxm_cluster_start main "shared_preload_libraries = '$libraries'
shared_buffers = 1GB
max_wal_size = 8GB
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
nexusmem.cache_size = 512MB
nexusmem.save = off
$memcached_conf"
said Redis "$(redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/')"
said client "$("$NXM_TMP/bin/cache_client" -V)"
if has_case memcached; then
	said memcached "$(memcached --version | sed 's/^memcached //')"
	said pgmemcache "$(sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$("$PG_CONFIG" --sharedir)/extension/pgmemcache.control")"
fi
echo

VALUE=$(printf 'v%.0s' {1..100})
nxm_psql <<-SQL
	CREATE EXTENSION nexusmem;
	CREATE UNLOGGED TABLE kv (k text PRIMARY KEY, v text, expires timestamptz);
	INSERT INTO kv SELECT lpad(i::text, 7, '0'), '$VALUE' FROM generate_series(0, $ENTRIES - 1) i;
	VACUUM (ANALYZE) kv;
	CHECKPOINT;
SQL
nxm_psql -Atc "SELECT count(nexusmem.cache_set(k, v)) FROM kv" >/dev/null
if has_case memcached; then
	nxm_psql -q -c 'CREATE EXTENSION pgmemcache' -c 'SELECT memcache_set(k, v) FROM kv' >/dev/null
fi

# client SIDE OPERATION [OPTIONS]: operations a second; all figures are kept
client() {
	local which=$1 operation=$2 address=
	shift 2
	case $which in
		postgres) address="host=$NXM_TMP port=$PGPORT dbname=postgres user=postgres" ;;
		redis) address=$NXM_TMP/redis.sock ;;
	esac
	as_postgres "$NXM_TMP/bin/cache_client" -s "$which" -a "$address" -o "$operation" \
		-c "$CLIENTS" -w "$WARM" -t "$SECONDS_A_RUN" -k "$ENTRIES" "$@" >"$NXM_TMP/figures"
	{ printf '%s\t' "$operation${*:+ $*}"; cat "$NXM_TMP/figures"; } >>"$NXM_TMP/latencies"
	cut -d' ' -f1 "$NXM_TMP/figures"
}

client redis set -f -b 100 >/dev/null

GET='SELECT nexusmem.cache_get($1)'
SET='SELECT nexusmem.cache_set($1, $2::text)'
# what a parameter, a call and a result of 100 bytes cost
BUILT_IN='SELECT rpad($1, 100)'
# what a parameter costs, and a result of the key's length
ECHO='SELECT $1::text'
MGET='SELECT key, value FROM nexusmem.cache_mget($1)'
TABLE_GET='SELECT v FROM kv WHERE k = $1 AND (expires IS NULL OR expires > now())'
TABLE_SET='INSERT INTO kv VALUES ($1, $2, NULL) ON CONFLICT (k) DO UPDATE SET v = excluded.v, expires = excluded.expires'

# statement SQL N: milliseconds by the clock. It returns how many keys it found, or stored:
# all N of them.
statement() {
	local out did
	out=$(nxm_psql -At -c "DO \$\$ BEGIN END \$\$" -c '\timing on' -c "$1")
	did=$(sed -n 1p <<<"$out")
	[ "$did" = "$2" ] || nxm_die "$did of $2: $1"
	sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' <<<"$out"
}

# each CASE N MILLISECONDS M MILLISECONDS: a pair of operations a second
each() {
	figures "$1" "${@:2}"
	pair "$1" "$(awk "BEGIN { print $2 / $3 * 1000 }")" "$(awk "BEGIN { print $4 / $5 * 1000 }")"
}

: >"$NXM_TMP/latencies"
for ((p = 1; p <= PAIRS; p++)); do
	if has_case socket; then
		pair "cache_get against SELECT 1" "$(client postgres "$GET")" "$(client postgres 'SELECT 1')"
		pair "a parameter and the key back against SELECT 1" "$(client postgres "$ECHO" -v 7)" "$(client postgres 'SELECT 1')"
		pair "cache_get against a built-in function" "$(client postgres "$GET")" "$(client postgres "$BUILT_IN")"
		pair "cache_get against Redis GET" "$(client postgres "$GET")" "$(client redis get)"
		pair "cache_set against Redis SET" "$(client postgres "$SET")" "$(client redis set)"
	fi
	if has_case batch; then
		pair "cache_mget of $BATCH against Redis GET, $BATCH at once" \
			"$(client postgres "$MGET" -b "$BATCH")" "$(client redis get -b "$BATCH")"
	fi
	if has_case table; then
		pair "cache_get against the table" "$(client postgres "$GET")" "$(client postgres "$TABLE_GET")"
		pair "cache_set against the table" "$(client postgres "$SET")" "$(client postgres "$TABLE_SET")"
		nxm_psql -c 'VACUUM kv'
	fi
	if has_case memcached; then
		few=$((ROWS / 5))
		key="lpad(((i::bigint * 611953 + $((p * 7919))) % $ENTRIES)::text, 7, '0')"
		a=$(statement "SELECT count(nexusmem.cache_get($key)) FROM generate_series(1, $ROWS) i" "$ROWS")
		b=$(statement "SELECT count(memcache_get($key)) FROM generate_series(1, $few) i" "$few")
		each "cache_get against memcache_get, from SQL" "$ROWS" "$a" "$few" "$b"
		a=$(statement "SELECT count(nexusmem.cache_set($key, '$VALUE'::text)) FROM generate_series(1, $ROWS) i" "$ROWS")
		b=$(statement "SELECT count(*) FILTER (WHERE memcache_set($key, '$VALUE')) FROM generate_series(1, $few) i" "$few")
		each "cache_set against memcache_set, from SQL" "$ROWS" "$a" "$few" "$b"
	fi
done

if has_case socket; then
	report "cache_get against SELECT 1" A/B "a second" '>=' 0.95
	report "a parameter and the key back against SELECT 1" A/B "a second"
	report "cache_get against a built-in function" A/B "a second"
	report "cache_get against Redis GET" A/B "a second" '>=' 1
	report "cache_set against Redis SET" A/B "a second" '>=' 1
fi
if has_case batch; then
	report "cache_mget of $BATCH against Redis GET, $BATCH at once" A/B "keys a second" '>=' 1.5
fi
if has_case table; then
	report "cache_get against the table" A/B "a second"
	report "cache_set against the table" A/B "a second"
fi
if has_case memcached; then
	report "cache_get against memcache_get, from SQL" A/B "a second" '>=' 10
	report "cache_set against memcache_set, from SQL" A/B "a second" '>=' 10
fi

echo
echo "over the socket, medians:            a second   us: median     99 %   99.9 %"
cut -f 1 "$NXM_TMP/latencies" | awk '!seen[$0]++' | while IFS= read -r operation; do
	awk -F'\t' -v operation="$operation" '$1 == operation { print $2 }' "$NXM_TMP/latencies" >"$NXM_TMP/these"
	printf '%-34.34s' "$operation"
	for column in 1 2 3 4; do
		middle=$(cut -d' ' -f$column "$NXM_TMP/these" | median)
		printf ' %10.0f' "$middle"
	done
	echo
done
