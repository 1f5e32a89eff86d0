#!/bin/bash
# test/matrix/matrix.sh SRC [builds] [MAJOR...]: SRC on other compilers and other
# PostgreSQL majors (default: all; the majors are those of 15, 17, 18, 19 that are not this
# machine's).
#
# `builds`: it is built here with every warning an error, by gcc and clang. And for each
# major, in a chroot (../chroot.sh): built with -Werror, installed, and `make installcheck`
# (pg_regress, isolation, TAP) run with the library preloaded; of what is drawn at random
# each has half as much, drawn anew.
#
# Prints `ok - ...` lines. Limits: those of chroots; what cannot be had is skipped.
# NXM_MATRIX_JOBS (default 2) run at a time.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

CONF="shared_preload_libraries = 'nexusmem'"

# check MAJOR: build as root, test as postgres, in its chroot. Leaves `out` (of build and
# installcheck) and the logs in $NXM_LOG/pgMAJOR.
check() {
	local v=$1 dir=$NXM_TMP/build-$1 logs=$NXM_LOG/pg$1 rc=0
	mkdir "$dir"
	NXM_USER=root nxm_copy "$dir" "$SRC"
	printf '%s\n' "$CONF" >"$dir/conf"
	cat >"$dir/as-root" <<-EOF
		set -eux
		cd /build
		MK="make PG_CONFIG=/usr/lib/postgresql/$v/bin/pg_config"
		\$MK -s clean
		if \$MK -j2 COPT=-Werror; then touch warning-free; else \$MK -s clean; \$MK -j2; fi
		\$MK install
		mkdir -p test/numa/bin
		cc -O2 -o test/numa/bin/deny test/numa/deny.c
		chown -R postgres: /build
		setpriv --reuid postgres --regid postgres --init-groups sh /build/as-postgres
	EOF
	cat >"$dir/as-postgres" <<-EOF
		set -eux
		cd /build
		export HOME=/tmp PGHOST=/tmp PGUSER=postgres PATH=/usr/lib/postgresql/$v/bin:\$PATH
		export NXM_DIFF_SEED=$v NXM_DIFF_QUERIES=600 NXM_KILLS=10
		initdb -N -A trust -E UTF8 --no-locale -D /tmp/data
		cat conf >>/tmp/data/postgresql.conf
		pg_ctl -w -s -D /tmp/data -l /build/server.log -o "-F -c listen_addresses='' -k /tmp" start || {
			cat /build/server.log
			exit 1
		}
		touch started
		# what PostgreSQL::Test::Cluster copies since 17, made as it would make it
		env -u LC_ALL LC_MESSAGES=C initdb -N -A trust -D /tmp/template
		export INITDB_TEMPLATE=/tmp/template
		make -i installcheck PG_CONFIG=/usr/lib/postgresql/$v/bin/pg_config PROVE_FLAGS="-v --timer" 2>&1 | tee out
		pg_ctl -s -D /tmp/data -m immediate stop
	EOF
	"$NXM_ROOT/test/chroot.sh" run "$v" "$dir" sh /build/as-root || rc=$?
	(
		cd "$dir"
		shopt -s nullglob
		cp -a --parents ou[t] server.lo[g] warning-fre[e] regression.* result[s] output_is[o] tmp_check/lo[g] "$logs/"
	)
	[ -e "$dir/started" ] || return $((rc ? rc : 1))
}

# one MAJOR: all of it, `ok - ...` lines on stdout.
one() {
	local v=$1 log logs=$NXM_LOG/pg$1 p="pg$1" why
	rm -rf "$logs"
	mkdir -p "$logs"
	if ! why=$("$NXM_ROOT/test/chroot.sh" prepare "$v"); then
		echo "ok - $p # SKIP $why"
		return
	fi
	log=$logs/log
	if ! check "$v" >"$log" 2>&1 </dev/null; then
		echo "not ok - $p: builds and starts"
		nxm_tail "$log"
		return
	fi
	if [ -e "$logs/warning-free" ]; then
		echo "ok - $p: builds without warnings"
	else
		echo "not ok - $p: builds without warnings"
		grep -m 10 'error:' "$log" | sed 's/^/  | /' >&2
	fi
	nxm_tally "$p" "$logs/out"
	nxm_differences "$logs/regression.diffs"
	nxm_differences "$logs/output_iso/regression.diffs"
	nxm_crashed "$p" "$logs/server.log"
}

# told NAME LOG STATUS: how a build went.
told() {
	if [ "$3" = 0 ]; then
		echo "ok - $1: builds without warnings"
	else
		echo "not ok - $1: builds without warnings"
		nxm_say "  $2:"
		grep -m 10 -E '(warning|error):' "$2" | sed 's/^/  | /' >&2 || true
	fi
}

# warnings NAME TREE MAKE-ARGUMENTS...: one build there, with warnings as errors.
warnings() {
	local log rc=0
	log=$NXM_LOG/$(tr ' ' - <<<"$1").log
	as_postgres make -C "$2" -j"$(nproc)" PG_CONFIG="$PG_CONFIG" "${@:3}" >"$log" 2>&1 || rc=$?
	told "$1" "$log" "$rc"
}

builds() {
	local dir=$NXM_TMP/w rc=0
	if [ -n "${NXM_BUILD:-}" ]; then
		# gcc's was made for the other parts
		! grep -qE '^src/.*warning:' "$NXM_LOG/build.log" || rc=1
		told "gcc $PG_MAJOR" "$NXM_LOG/build.log" "$rc"
	else
		nxm_copy "$dir" "$SRC"
		warnings "gcc $PG_MAJOR" "$dir" COPT=-Werror
	fi
	if type -P clang >/dev/null; then
		rm -rf "$dir"
		nxm_copy "$dir" "$SRC"
		# PostgreSQL's CFLAGS, and an attribute in its headers, are gcc's alone
		warnings "clang $PG_MAJOR" "$dir" CC=clang CFLAGS="-O2 -g -fPIC -Wall -Wextra -Werror -Wno-ignored-attributes"
	else
		echo "ok - clang $PG_MAJOR # SKIP clang is not installed"
	fi
}

[ -e "${1:-}/Makefile" ] || nxm_die "usage: $0 SRC [builds] [MAJOR...]"
SRC=$(realpath "$1")
shift
nxm_pg_config
nxm_init matrix
if [ $# = 0 ]; then
	mapfile -t majors < <(nxm_other_majors)
	set -- builds "${majors[@]}"
fi

{
	for v; do
		while [ "$(jobs -pr | wc -l)" -ge "${NXM_MATRIX_JOBS:-2}" ]; do wait -n; done
		if [ "$v" = builds ]; then
			builds
		else
			one "$v" >"$NXM_TMP/pg$v.tally" &
		fi
	done
	wait
	for v; do [ "$v" = builds ] || cat "$NXM_TMP/pg$v.tally"; done
} | tee "$NXM_TMP/tally"
! grep -q '^not ok' "$NXM_TMP/tally"
