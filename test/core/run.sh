#!/bin/bash
# test/core/run.sh: PostgreSQL's own regression and isolation suites against
# private clusters with nexusmem preloaded and its features on: whatever the
# server promises still holds.
#
# The suites come from the source package of the installed server (downloaded
# once, kept in the cache); only their helper libraries are compiled. Where no
# repository has that very minor's source, the newest minor of which one has both
# source and programs is run instead, unpacked into the cache.
#
# Prints `ok - ...` lines, and notes as `## ...`. NXM_CORE_CONF replaces the lines of postgresql.conf
# (empty: a server without nexusmem). Limits: needs apt and a source repository.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
nxm_pg_config
nxm_private "$@"
nxm_init core

# fsync says nothing here and costs minutes
COMMON="fsync = off
max_prepared_transactions = 4"
CONF=${NXM_CORE_CONF-"shared_preload_libraries = 'nexusmem'
nexusmem.enable_numa_optimizations = on
nexusmem.num_nodes = 2
nexusmem.node_source = even
nexusmem.shared_buffers_placement = interleave
nexusmem.enable_prefetch = on
nexusmem.enable_nestloop_prefetch = on
nexusmem.prefetch_distance = 32"}
VERSION=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([^ ]+).*/\1/')

skip() {
	printf 'ok - core: suites of PostgreSQL %s # SKIP %s\n' "$VERSION" "$1"
	exit 0
}

# fetch DIR: leave the suites' part of the source in DIR, with its version, and
# the programs of that version where the installed ones are of another.
fetch() {
	local dir=$1 apt=$NXM_TMP/apt pkg=postgresql-$PG_MAJOR have v
	have=$(dpkg-query -W -f '${Version}' "$pkg")
	# where a package comes from its source is too:
	# package | version | URI suite/component architecture Packages
	nxm_apt "$apt" deb-src "$(apt-cache madison "$pkg" | awk '$5 ~ "://" && $6 ~ "/" {
		n = split($6, s, "/"); sub("/" s[n] "$", "", $6); print $5, $6, s[n] }' | sort -u)"
	mkdir -p "$apt"/{source,x,programs}
	for v in "$have" $(apt-cache madison "$pkg" | awk -v have="$have" '$3 != have { print $3 }' | sort -uVr); do
		rm -f "$apt"/source/*
		(cd "$apt/source" && apt-get "${NXM_APT[@]}" source --download-only --tar-only "$pkg=$v") || continue
		[ "$v" != "$have" ] || break
		(cd "$apt/programs" && apt-get -qq -o APT::Sandbox::User=root download \
			"$pkg=$v" "postgresql-client-$PG_MAJOR=$v" "postgresql-server-dev-$PG_MAJOR=$v") && break
	done
	set -- "$apt"/source/*.orig.tar.*
	if [ ! -e "$1" ] || { [ "$v" != "$have" ] && [ "$(find "$apt/programs" -name '*.deb' | wc -l)" != 3 ]; }; then
		echo "no repository has the source of $pkg $have"
		return 1
	fi
	tar -C "$apt/x" --strip-components=1 -xf "$1" --wildcards \
		'*/src/test/regress' '*/src/test/isolation' '*/contrib/spi'
	rm -rf "$dir" "$dir.new"
	mkdir -p "$dir.new/server"
	mv "$apt/x/src/test/regress" "$apt/x/src/test/isolation" "$apt/x/contrib/spi" "$dir.new/"
	basename "$1" | sed -E 's/^[^_]*_(.*)\.orig\.tar.*/\1/' >"$dir.new/version"
	find "$apt/programs" -name '*.deb' -exec dpkg-deb -x {} "$dir.new/server" \;
	chmod -R u=rwX,go=rX "$dir.new"
	mv "$dir.new" "$dir"
}

SRC=$NXM_CACHE/core/$VERSION
mkdir -p "$NXM_CACHE/core"
exec 9>"$NXM_CACHE/core/.lock"
flock 9
if [ ! -e "$SRC/version" ]; then
	type -P apt-get dpkg-query dpkg-deb >/dev/null || skip "no apt to fetch the source package with"
	(set -e; fetch "$SRC") >"$NXM_LOG/core-fetch.log" 2>&1 9>&- ||
		skip "the source package could not be fetched: $(grep . "$NXM_LOG/core-fetch.log" | tail -n 1)"
fi
exec 9>&-

W=$NXM_TMP/suite
cp -r "$SRC" "$W"
if [ "$(id -u)" = 0 ]; then chown -R "$NXM_USER:" "$W"; fi
if [ -d "$W/server/usr" ]; then
	echo "## PostgreSQL $(cat "$W/version") stands in for $VERSION, whose source is not to be had"
	# PostgreSQL finds its directories relative to its programs
	PG_CONFIG=$W/server/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
	unset NXM_BUILD
	nxm_pg_config
fi
[ -z "$CONF" ] || nxm_build

for m in regress:regress spi:refint spi:autoinc; do
	# the suite expects what refint says with this
	printf 'MODULES = %s\nPG_CPPFLAGS = -DREFINT_VERBOSE\nPGXS := $(shell $(PG_CONFIG) --pgxs)\ninclude $(PGXS)\n' "${m#*:}" >"$W/${m#*:}.mk"
done
for m in regress:regress spi:refint spi:autoinc; do
	nxm_log core-build as_postgres make -C "$W/${m%:*}" -f "$W/${m#*:}.mk" PG_CONFIG="$PG_CONFIG" with_llvm=no
done
# memoize shows plans by EXPLAIN ANALYZE, and with them the node that look-ahead in
# nested loops puts in: there it is off.
case $CONF in *enable_nestloop_prefetch*)
	sed -i '1i SET nexusmem.enable_nestloop_prefetch = off;' "$W"/regress/{sql/memoize.sql,expected/memoize.out}
	;;
esac
as_postgres cp "$W/spi/refint.so" "$W/spi/autoinc.so" "$W/regress/"

# suite NAME: one suite on its running cluster; output in $NXM_LOG/core-NAME.out
suite() {
	local name=$1 out=$NXM_TMP/$1-out pgxs
	local args=(--inputdir="$W/$name" --outputdir="$out" --bindir="$PG_BIN"
		--host="$PGHOST" --port="$PGPORT" --user=postgres --schedule="$W/$name/$2")
	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/$name
	as_postgres mkdir -p "$out"
	case $name in
		regress) as_postgres "$pgxs/pg_regress" "${args[@]}" --dlpath="$W/regress" --max-concurrent-tests=20 ;;
		isolation) as_postgres "$pgxs/pg_isolation_regress" "${args[@]}" ;;
	esac >"$NXM_LOG/core-$name.out" 2>&1 </dev/null || true
	! [ -s "$out/regression.diffs" ] || cp "$out/regression.diffs" "$NXM_LOG/core-$name.diffs"
}

# Side by side, each on a cluster of its own: one computes, the other waits.
bad=0
pids=()
for s in regress:parallel_schedule isolation:isolation_schedule; do
	nxm_cluster_start "core-${s%:*}" "$COMMON
$CONF"
	loaded=$(nxm_psql -At -c "SELECT name || ' = ' || setting FROM pg_settings
		WHERE name LIKE 'nexusmem.%' AND sourcefile IS NOT NULL ORDER BY name")
	if [ -n "$CONF" ] && [ "$(wc -l <<<"$loaded")" != "$(grep -c '^nexusmem' <<<"$CONF")" ]; then
		bad=1
		echo "not ok - core ${s%:*}: nexusmem is loaded with these settings"
		sed 's/^/# /' <<<"$loaded"
	fi
	suite "${s%:*}" "${s#*:}" &
	pids+=($!)
done
wait "${pids[@]}"
for s in regress isolation; do
	nxm_tally "core $s" "$NXM_LOG/core-$s.out" >"$NXM_TMP/tally"
	nxm_crashed "core $s" "$NXM_LOG/core-$s.log" >>"$NXM_TMP/tally"
	cat "$NXM_TMP/tally"
	if grep -q '^not ok' "$NXM_TMP/tally"; then
		bad=1
		nxm_say "core: see core-$s.out, .diffs and .log in $NXM_LOG"
	fi
done
exit $bad
