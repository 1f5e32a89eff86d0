#!/bin/bash
# test/core/run.sh [MAJOR...]: PostgreSQL's own regression and isolation suites against
# private clusters with nexusmem preloaded and all of it on: whatever the server
# promises still holds. Of this machine's PostgreSQL, and of 15 and 18 in a chroot
# (../chroot.sh) where this machine has another.
#
# The suites come from the source package of the installed server (downloaded
# once, kept in the cache); only their helper libraries are compiled. Where no
# repository has that very minor's source, the newest minor of which one has both
# source and programs is run instead, unpacked into the cache.
#
# Look-ahead acts where blocks are read, and asks for those that are not in the
# operating system's cache. So shared_buffers is smaller than the suites' tables, and
# the server may not call posix_fadvise: then look-ahead cannot tell, and asks for
# every block that it lacks. debug_force_prefetch makes it look where nothing is
# lacking. What it asked for is counted at the end.
#
# Exceptions. The function of memoize that shows plans by EXPLAIN ANALYZE would show the
# node that look-ahead in nested loops puts in: in it that is off.
#
# Prints `ok - ...` lines, and notes as `## ...`. NXM_CORE_CONF replaces the lines of
# postgresql.conf that load nexusmem (empty: a server without it).
# Limits: needs apt and a source repository.
#
# run.sh --suites DIR does the work, where that PostgreSQL is: DIR holds the suites.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

# fsync says nothing here and costs minutes. Of tables much larger than
# shared_buffers, sequential scans begin where another one is, and rows come in
# another order than the suites expect. 7 background workers are free, as without
# nexusmem: of 5, the last leader of deadlock-parallel gets none, does their work itself
# and keeps their locks. Two clusters at a time have predictor_memory, maybe
# in a container's /dev/shm of 64 MB; it is in kB, as check() reads it back.
COMMON="fsync = off
max_worker_processes = 10
max_prepared_transactions = 4
shared_buffers = 2MB
synchronize_seqscans = off"
CONF=${NXM_CORE_CONF-"shared_preload_libraries = 'nexusmem'
nexusmem.enable_numa_optimizations = on
nexusmem.enable_numa_caching = on
nexusmem.num_nodes = 2
nexusmem.node_source = even
nexusmem.shared_buffers_placement = interleave
nexusmem.enable_prefetch = on
nexusmem.enable_nestloop_prefetch = on
nexusmem.enable_learned_prefetch = on
nexusmem.predictor_memory = 2048
nexusmem.debug_force_prefetch = on
nexusmem.prefetch_distance = 32"}

# fetch DIR PACKAGE VERSION REPOSITORIES: leave the suites' part of the source in DIR,
# with its version, and the programs of that version where it is not VERSION.
fetch() {
	local dir=$1 pkg=$2 have=$3 major=${2##*-} apt=$NXM_TMP/apt-$2 v
	nxm_apt "$apt" "deb-src deb" "$4"
	mkdir -p "$apt"/{source,x,programs}
	for v in "$have" $(apt-cache "${NXM_APT[@]}" madison "$pkg" | awk -v have="$have" '$3 != have { print $3 }' | sort -uVr); do
		rm -f "$apt"/source/*
		(cd "$apt/source" && apt-get "${NXM_APT[@]}" source --download-only --tar-only "$pkg=$v") || continue
		[ "$v" != "$have" ] || break
		(cd "$apt/programs" && apt-get "${NXM_APT[@]}" download \
			"$pkg=$v" "postgresql-client-$major=$v" "postgresql-server-dev-$major=$v") && break
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

# one MAJOR: all of it, `ok - ...` lines on stdout.
one() {
	local v=$1 dir=$NXM_TMP/core-$1 logs=$NXM_LOG/core-$1 pkg=postgresql-$1 at=() why version have repositories source rc=0
	mkdir -p "$logs"
	if [ "$v" = "$PG_MAJOR" ]; then
		version=$("$PG_CONFIG" --version)
		# where a package comes from its source is too:
		# package | version | URI suite/component architecture Packages
		repositories=$(apt-cache madison "$pkg" 2>/dev/null | awk '$5 ~ "://" && $6 ~ "/" {
			n = split($6, s, "/"); sub("/" s[n] "$", "", $6); print $5, $6, s[n] }' | sort -u) || true
	else
		if ! why=$(NXM_LOG=$logs "$NXM_ROOT/test/chroot.sh" prepare "$v"); then
			echo "ok - core $v # SKIP $why"
			return
		fi
		at=(chroot "$("$NXM_ROOT/test/chroot.sh" root "$v")")
		version=$("${at[@]}" "/usr/lib/postgresql/$v/bin/pg_config" --version)
		repositories=$(sed -n 's/^deb //p' "${at[1]}/etc/apt/sources.list")
	fi
	version=$(sed -E 's/^PostgreSQL ([^ ]+).*/\1/' <<<"$version")

	source=$NXM_CACHE/core/$version
	exec 9>"$NXM_CACHE/core/.lock"
	flock 9
	if [ ! -e "$source/version" ]; then
		why=
		if ! type -P apt-get dpkg-query dpkg-deb >/dev/null; then
			why="no apt to fetch the source package with"
		elif ! have=$("${at[@]+"${at[@]}"}" dpkg-query -W -f '${Version}' "$pkg" 2>&1); then
			why=$have
		elif ! bash "$0" --fetch "$source" "$pkg" "$have" "$repositories" >"$logs/fetch.log" 2>&1 9>&-; then
			why="the source package could not be fetched: $(grep . "$logs/fetch.log" | tail -n 1 || true)"
		fi
		if [ -n "$why" ]; then
			echo "ok - core $v: suites of PostgreSQL $version # SKIP $why"
			return
		fi
	fi
	exec 9>&-
	[ "$(cat "$source/version")" = "$version" ] ||
		echo "## PostgreSQL $(cat "$source/version") stands in for $version, whose source is not to be had"

	mkdir "$dir"
	cp -r "$source" "$dir/suites"
	if [ "$v" = "$PG_MAJOR" ]; then
		NXM_LOG=$logs bash "$0" --suites "$dir/suites" >"$logs/results" || rc=$?
	else
		NXM_USER=root nxm_copy "$dir/tree"
		mkdir "$dir/log"
		chmod a+rwx "$dir" "$dir/log"
		# there the installation is private, and nothing is built yet
		"$NXM_ROOT/test/chroot.sh" run "$v" "$dir" env -u NXM_BUILD -u NXM_USER \
			NXM_PRIVATE=yes NXM_LOG=/build/log TMPDIR=/build PG_CONFIG="/usr/lib/postgresql/$v/bin/pg_config" \
			bash /build/tree/test/core/run.sh --suites /build/suites >"$logs/results" </dev/null || rc=$?
		cp -r "$dir/log/." "$logs/"
	fi
	cat "$logs/results"
	if [ "$rc" != 0 ]; then
		grep -q '^not ok' "$logs/results" || echo "not ok - core $v: runs to its end (status $rc)"
		nxm_say "core $v: see $logs"
	fi
	rm -rf --one-file-system "$dir"
}

# suite NAME SCHEDULE: one suite on its running cluster; output in $NXM_LOG/NAME.out
suite() {
	local name=$1 out=$NXM_TMP/$1-out pgxs
	local args=(--inputdir="$W/$name" --outputdir="$out" --bindir="$PG_BIN"
		--host="$PGHOST" --port="$PGPORT" --user=postgres --schedule="$W/$name/$2")
	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/$name
	as_postgres mkdir -p "$out"
	case $name in
		regress) as_postgres "$pgxs/pg_regress" "${args[@]}" --dlpath="$W/regress" --max-concurrent-tests=20 ;;
		isolation) as_postgres "$pgxs/pg_isolation_regress" "${args[@]}" ;;
	esac >"$NXM_LOG/$name.out" 2>&1 </dev/null || true
	! [ -s "$out/regression.diffs" ] || cp "$out/regression.diffs" "$NXM_LOG/$name.diffs"
}

# is GOT EXPECTED NAME: one test point.
is() {
	if [ "$1" = "$2" ]; then
		echo "ok - $3"
	else
		printf 'not ok - %s\n# got:      %s\n# expected: %s\n' "$3" "$(paste -s -d , <<<"$1")" "$(paste -s -d , <<<"$2")"
	fi
}

# check NAME: the results of a suite, and whether nexusmem was there and acted.
check() {
	local name=$1 p="core $PG_MAJOR $1" want got
	nxm_tally "$p" "$NXM_LOG/$name.out"
	nxm_differences "$NXM_LOG/$name.diffs"
	nxm_crashed "$p" "$NXM_LOG/core-$name.log"
	[ -n "$CONF" ] || return 0
	nxm_cluster_use "core-$name"

	want=$(sed -n '/^nexusmem/p' <<<"$CONF" | sort)
	got=$(nxm_psql -At -c "SELECT name || ' = ' || setting FROM pg_settings
		WHERE name LIKE 'nexusmem.%' AND sourcefile IS NOT NULL" | sort)
	is "$got" "$want" "$p: nexusmem is loaded with its settings"
	want="background worker, cache, learned look-ahead, pinning, saved structures"
	got=$(nxm_psql -At -c "SELECT string_agg(feature, ', ' ORDER BY feature COLLATE \"C\") FROM nexusmem.status
		WHERE state = 'active' AND feature = ANY (string_to_array('$want', ', '))")
	is "$got" "$want" "$p: at the end its workers run and its features are active"

	# Blocks of tables that are still there: isolation drops all of its own
	got=$(nxm_psql -At -c "SELECT kind || ' ' || sum(issued) FROM nexusmem.stat_prefetch
		WHERE issued > 0 GROUP BY kind ORDER BY kind")
	echo "## $p: blocks read ahead: $(paste -s -d , <<<"${got:-none}")"
	[ "$name" = regress ] || return 0
	want="index scans, nested loops and learned sequences read ahead"
	if [ ${#BEHIND[@]} = 0 ]; then
		echo "ok - $p: $want # SKIP no seccomp on this kernel"
	else
		is "$(cut -d ' ' -f 1 <<<"$got" | paste -s -d ' ')" "index learned nestloop" "$p: $want"
	fi
}

# all_suites DIR: both, each on a cluster of its own, side by side: one computes, the
# other waits.
all_suites() {
	local m s pids=()
	W=$1
	BEHIND=()
	if [ -d "$W/server/usr" ]; then
		# PostgreSQL finds its directories relative to its programs
		PG_CONFIG=$W/server/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
		unset NXM_BUILD
		nxm_pg_config
	fi
	if [ "$(id -u)" = 0 ]; then chown -R "$NXM_USER:" "$W"; fi
	if [ -n "$CONF" ]; then
		nxm_build
		BEHIND=("$NXM_BUILD/test/numa/bin/deny" fadvise64 --)
		as_postgres "${BEHIND[@]}" true || BEHIND=()
	fi

	for m in regress:regress spi:refint spi:autoinc; do
		# the suite expects what refint says with this
		printf 'MODULES = %s\nPG_CPPFLAGS = -DREFINT_VERBOSE\nPGXS := $(shell $(PG_CONFIG) --pgxs)\ninclude $(PGXS)\n' "${m#*:}" >"$W/${m#*:}.mk"
		nxm_log helpers as_postgres make -C "$W/${m%:*}" -f "$W/${m#*:}.mk" PG_CONFIG="$PG_CONFIG" with_llvm=no
	done
	as_postgres cp "$W/spi/refint.so" "$W/spi/autoinc.so" "$W/regress/"
	# the exceptions
	case $CONF in *enable_nestloop_prefetch*)
		sed -i 's/^language plpgsql as$/set nexusmem.enable_nestloop_prefetch = off &/' \
			"$W"/regress/{sql/memoize.sql,expected/memoize.out}
		;;
	esac

	for s in regress:parallel_schedule isolation:isolation_schedule; do
		nxm_cluster_start "core-${s%:*}" "$COMMON
$CONF" "${BEHIND[@]+"${BEHIND[@]}"}"
		[ -z "$CONF" ] || nxm_psql -c 'CREATE EXTENSION nexusmem'
		suite "${s%:*}" "${s#*:}" &
		pids+=($!)
	done
	wait "${pids[@]}"
	for s in regress isolation; do check "$s"; done
}

case ${1:-} in
	--fetch)
		fetch "${@:2}"
		exit
		;;
	--suites)
		nxm_pg_config
		nxm_init core
		# not in a pipe: what is started there would not be stopped in the end
		all_suites "$2" >"$NXM_TMP/tally"
		cat "$NXM_TMP/tally"
		! grep -q '^not ok' "$NXM_TMP/tally"
		exit
		;;
esac

nxm_pg_config
nxm_private "$@"
nxm_init core
if [ $# = 0 ]; then
	set -- "$PG_MAJOR"
	for v in 15 18; do
		if [ "$v" != "$PG_MAJOR" ]; then set -- "$@" "$v"; fi
	done
fi
mkdir -p "$NXM_CACHE/core"
for v; do one "$v"; done | tee "$NXM_TMP/tally"
! grep -q '^not ok' "$NXM_TMP/tally"
