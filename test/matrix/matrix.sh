#!/bin/bash
# test/matrix/matrix.sh SRC [MAJOR...]: SRC on other compilers and other PostgreSQL
# majors (default 17, 18 and 19; those of 15, 17, 18, 19 that are not this machine's).
#
# First it is built here with every warning an error: gcc, clang, and without
# libnuma. Then, for each major, in a Debian chroot of the suite that has it: built
# with -Werror, installed, and `make installcheck` (pg_regress, isolation, TAP)
# run with the library preloaded.
#
# A chroot is made once (35 s, 0.5 GB in the cache); a run works on an overlay
# over it, in mount, process and IPC namespaces that die with it.
#
# Prints `ok - ...` lines. Limits: chroots need root, the right to mount, and
# debootstrap, else they are skipped. NXM_MATRIX_JOBS (default 2) run at a time.
# Debian has no package of 14 or 16.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

# the suite for a major; 19 is a candidate: from experimental, on a base of sid
declare -A SUITE=([15]=bookworm [17]=trixie [18]=forky [19]=sid)
PKGS="gcc make libc6-dev libnuma-dev libipc-run-perl"
CONF="shared_preload_libraries = 'nexusmem'"
CACHE=$NXM_CACHE/matrix

# prepare MAJOR: make its chroot unless it is there.
prepare() {
	local v=$1 s=${SUITE[$1]} r=$CACHE/pg$1 mirror script
	exec 9>"$CACHE/.lock-$v"
	flock 9
	[ "$(cat "$r/.nexusmem" 2>/dev/null)" != "$PKGS" ] || return 0
	rm -rf --one-file-system "$r"
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
		grep -v -- -security | head -n 1)
	mirror=${mirror:-http://deb.debian.org/debian}
	mirror=${mirror%/}
	script=/usr/share/debootstrap/scripts/$s
	[ -e "$script" ] || script=${script%/*}/sid
	debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$s" "$r" "$mirror" "$script"
	case $s in
		forky | sid) ;;
		*) echo "deb $mirror-security $s-security main" >>"$r/etc/apt/sources.list" ;;
	esac
	if [ "$v" = 19 ]; then
		echo "deb $mirror experimental main" >>"$r/etc/apt/sources.list"
		printf '%s\n' 'Package: postgresql*19* libpq* postgresql-common* postgresql-client-common' \
			'Pin: release a=experimental' 'Pin-Priority: 900' >"$r/etc/apt/preferences.d/postgresql"
	fi
	mkdir -p "$r/etc/postgresql-common"
	echo 'create_main_cluster = false' >"$r/etc/postgresql-common/createcluster.conf"
	printf '#!/bin/sh\nexit 101\n' >"$r/usr/sbin/policy-rc.d"
	chmod +x "$r/usr/sbin/policy-rc.d"
	# a mirror may lag behind; signatures are still checked
	echo 'Acquire::Check-Valid-Until "false";' >"$r/etc/apt/apt.conf.d/90mirror"
	printf 'path-exclude=/usr/share/%s/*\n' man doc locale >"$r/etc/dpkg/dpkg.cfg.d/slim"
	mount -t proc proc "$r/proc"
	# only the headers of server-dev: installed, it would bring clang and LLVM
	chroot "$r" sh -euxc "
		apt-get update -q
		apt-get install -qy --no-install-recommends postgresql-$v $PKGS
		cd /tmp
		apt-get download postgresql-server-dev-$v
		dpkg -x postgresql-server-dev-$v*.deb /
		apt-get clean
		rm -rf /tmp/*.deb /var/lib/apt/lists/*"
	umount "$r/proc"
	echo "$PKGS" >"$r/.nexusmem"
}

# check MAJOR: overlay on the pristine root, build as root, test as postgres.
# Leaves `out` (of build and installcheck) and the logs in $NXM_LOG/pgMAJOR.
check() {
	local v=$1 w=$NXM_TMP/pg$1 m=$NXM_TMP/pg$1/m logs=$NXM_LOG/pg$1 rc=0
	mkdir -p "$w" "$logs"
	mount -t tmpfs -o size=90% tmpfs "$w"
	mkdir "$w"/{u,w,m}
	mount -t overlay -o "lowerdir=$CACHE/pg$v,upperdir=$w/u,workdir=$w/w" overlay "$m"
	mount -t proc proc "$m/proc"
	mount -t sysfs -o ro sysfs "$m/sys"
	mount -t tmpfs -o mode=1777 tmpfs "$m/dev/shm"
	# not in memory like the rest: look-ahead is tested on reads from a disk
	mkdir "$NXM_TMP/build-$v" "$m/build"
	mount --bind "$NXM_TMP/build-$v" "$m/build"
	NXM_USER=root nxm_copy "$m/build" "$SRC"
	printf '%s\n' "$CONF" >"$m/conf"
	cat >"$m/as-root" <<-EOF
		set -eux
		cd /build
		MK="make PG_CONFIG=/usr/lib/postgresql/$v/bin/pg_config with_llvm=no"
		\$MK -s clean
		if \$MK -j2 COPT=-Werror; then touch /warning-free; else \$MK -s clean; \$MK -j2; fi
		\$MK install
		mkdir -p test/numa/bin
		cc -O2 -o test/numa/bin/deny test/numa/deny.c
		chown -R postgres: /build
		setpriv --reuid postgres --regid postgres --init-groups sh /as-postgres
	EOF
	cat >"$m/as-postgres" <<-EOF
		set -eux
		cd /build
		export HOME=/tmp PGHOST=/tmp PGUSER=postgres PATH=/usr/lib/postgresql/$v/bin:\$PATH
		initdb -N -A trust -E UTF8 --no-locale -D /tmp/data
		cat /conf >>/tmp/data/postgresql.conf
		pg_ctl -w -s -D /tmp/data -l /build/server.log -o "-F -c listen_addresses='' -k /tmp" start || {
			cat /build/server.log
			exit 1
		}
		touch /build/started
		make -i installcheck PG_CONFIG=/usr/lib/postgresql/$v/bin/pg_config with_llvm=no PROVE_FLAGS=-v 2>&1 | tee /build/out
		pg_ctl -s -D /tmp/data -m immediate stop
	EOF
	chroot "$m" sh /as-root || rc=$?
	cd "$m/build"
	shopt -s nullglob
	cp -a --parents ou[t] server.lo[g] regression.* result[s] output_is[o] tmp_check/lo[g] "$logs/"
	! [ -e "$m/warning-free" ] || touch "$logs/warning-free"
	[ -e started ] || return $((rc ? rc : 1))
}

# one MAJOR: all of it, `ok - ...` lines on stdout.
one() {
	local v=$1 log logs=$NXM_LOG/pg$1 p="pg$1"
	local ns=(unshare --mount --propagation private --pid --fork --kill-child --mount-proc --ipc)
	[ -n "${SUITE[$v]:-}" ] || { echo "ok - $p # SKIP no Debian package of PostgreSQL $v"; return; }
	[ "$(id -u)" = 0 ] || { echo "ok - $p # SKIP a chroot needs root"; return; }
	type -P debootstrap >/dev/null || { echo "ok - $p # SKIP debootstrap is not installed"; return; }
	"${ns[@]}" mount -t tmpfs tmpfs /mnt 2>/dev/null || { echo "ok - $p # SKIP not allowed to mount here"; return; }
	rm -rf "$logs"
	mkdir -p "$logs"
	log=$NXM_LOG/pg$v-prepare.log
	if ! "${ns[@]}" bash "$0" --step prepare "$v" >"$log" 2>&1 </dev/null; then
		echo "ok - $p # SKIP its chroot could not be made: $(grep -E '^[EW]:' "$log" | tail -n 1)"
		nxm_tail "$log"
		return
	fi
	log=$logs/log
	if ! "${ns[@]}" bash "$0" --step check "$v" "$SRC" >"$log" 2>&1 </dev/null; then
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
	nxm_crashed "$p" "$logs/server.log"
}

# warnings NAME MAKE-ARGUMENTS...: one build here, with warnings as errors.
warnings() {
	local name=$1 dir=$NXM_TMP/w log
	shift
	log=$NXM_LOG/$(tr ' ' - <<<"$name").log
	rm -rf "$dir"
	nxm_copy "$dir" "$SRC"
	if as_postgres make -C "$dir" -j"$(nproc)" PG_CONFIG="$PG_CONFIG" with_llvm=no "$@" >"$log" 2>&1; then
		echo "ok - $name: builds without warnings"
	else
		echo "not ok - $name: builds without warnings"
		nxm_say "  $log:"
		grep -m 10 'error:' "$log" | sed 's/^/  | /' >&2 || true
	fi
}

if [ "${1:-}" = --step ]; then
	export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	SRC=${4:-}
	set -x
	"$2" "$3"
	exit
fi

[ -e "${1:-}/Makefile" ] || nxm_die "usage: $0 SRC [MAJOR...]"
SRC=$(realpath "$1")
shift
nxm_pg_config
nxm_init matrix
mkdir -p "$CACHE"
if [ $# = 0 ]; then
	for v in 15 17 18 19; do
		if [ "$v" != "$PG_MAJOR" ]; then set -- "$@" "$v"; fi
	done
fi

{
	warnings "gcc $PG_MAJOR" COPT=-Werror
	warnings "gcc $PG_MAJOR without libnuma" COPT=-Werror NO_LIBNUMA=1
	if type -P clang >/dev/null; then
		# PostgreSQL's CFLAGS, and an attribute in its headers, are gcc's alone
		warnings "clang $PG_MAJOR" CC=clang CFLAGS="-O2 -g -fPIC -Wall -Wextra -Werror -Wno-ignored-attributes"
	else
		echo "ok - clang $PG_MAJOR # SKIP clang is not installed"
	fi
	for v; do
		while [ "$(jobs -pr | wc -l)" -ge "${NXM_MATRIX_JOBS:-2}" ]; do wait -n; done
		one "$v" >"$NXM_TMP/pg$v.tally" &
	done
	wait
	for v; do cat "$NXM_TMP/pg$v.tally"; done
} | tee "$NXM_TMP/tally"
! grep -q '^not ok' "$NXM_TMP/tally"
