#!/bin/bash
# test/chroot.sh prepare MAJOR
# test/chroot.sh root MAJOR
# test/chroot.sh run MAJOR DIR COMMAND...
#
# A Debian with another major of PostgreSQL than this machine's: a chroot of the suite
# that has it, with the server's development files and a compiler.
#
# `prepare` makes it once (35 s, 0.5 GB in the cache). Where that is not possible
# here it prints why, on one line, and returns 1; what apt said is then in $NXM_LOG, if set.
# `root` prints its directory, to be read only. `run` runs COMMAND as root in an
# overlay over it, with DIR, which stays, as /build. Mounts and processes die with the
# command: it has mount, process and IPC namespaces of its own.
#
# Limits: needs root, the right to mount, and debootstrap. Debian has no package of
# 14 or 16.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# the suite for a major; 19 is a candidate: from experimental, on a base of sid
declare -A SUITE=([15]=bookworm [17]=trixie [18]=forky [19]=sid)
PKGS="gcc make libc6-dev libnuma-dev libipc-run-perl"
CACHE=$NXM_CACHE/matrix
NAMESPACES=(unshare --mount --propagation private --pid --fork --kill-child --mount-proc --ipc)

# make_root: the chroot, unless it is there.
make_root() {
	local s=${SUITE[$v]} mirror script
	exec 9>"$CACHE/.lock-$v"
	flock 9
	[ "$(cat "$root/.nexusmem" 2>/dev/null)" != "$PKGS" ] || return 0
	rm -rf --one-file-system "$root"
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
		grep -v -- -security | head -n 1) || true
	mirror=${mirror:-http://deb.debian.org/debian}
	mirror=${mirror%/}
	script=/usr/share/debootstrap/scripts/$s
	[ -e "$script" ] || script=${script%/*}/sid
	debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$s" "$root" "$mirror" "$script"
	case $s in
		forky | sid) ;;
		*) echo "deb $mirror-security $s-security main" >>"$root/etc/apt/sources.list" ;;
	esac
	if [ "$v" = 19 ]; then
		echo "deb $mirror experimental main" >>"$root/etc/apt/sources.list"
		printf '%s\n' 'Package: postgresql*19* libpq* postgresql-common* postgresql-client-common' \
			'Pin: release a=experimental' 'Pin-Priority: 900' >"$root/etc/apt/preferences.d/postgresql"
	fi
	mkdir -p "$root/etc/postgresql-common"
	echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
	# a mirror may lag behind; signatures are still checked
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90mirror"
	printf 'path-exclude=/usr/share/%s/*\n' man doc locale >"$root/etc/dpkg/dpkg.cfg.d/slim"
	mount -t proc proc "$root/proc"
	# only the headers of server-dev: installed, it would bring clang and LLVM
	chroot "$root" sh -euxc "
		apt-get update -q
		apt-get install -qy --no-install-recommends postgresql-$v $PKGS
		cd /tmp
		apt-get download postgresql-server-dev-$v
		dpkg -x postgresql-server-dev-$v*.deb /
		apt-get clean
		rm -rf /tmp/*.deb /var/lib/apt/lists/*"
	umount "$root/proc"
	echo "$PKGS" >"$root/.nexusmem"
}

# enter DIR COMMAND...: in namespaces of our own.
enter() {
	local dir=$1 m
	shift
	# at a place that hides nothing of ours
	mount -t tmpfs -o size=90% tmpfs "$root/mnt"
	mkdir "$root"/mnt/{upper,work,root}
	m=$root/mnt/root
	mount -t overlay -o "lowerdir=$root,upperdir=$root/mnt/upper,workdir=$root/mnt/work" overlay "$m"
	mount -t proc proc "$m/proc"
	mount -t sysfs -o ro sysfs "$m/sys"
	mount -t tmpfs -o mode=1777 tmpfs "$m/dev/shm"
	# not in memory like the rest: look-ahead is tested on reads from a disk
	mkdir "$m/build"
	mount --bind "$dir" "$m/build"
	chroot "$m" "$@"
}

prepare() {
	local log=/dev/null
	if [ -n "${NXM_LOG:-}" ]; then log=$NXM_LOG/pg$v-prepare.log; fi
	if [ -z "${SUITE[$v]:-}" ]; then
		echo "no Debian package of PostgreSQL $v"
	elif [ "$(id -u)" != 0 ]; then
		echo "a chroot needs root"
	elif ! type -P debootstrap >/dev/null; then
		echo "debootstrap is not installed"
	elif ! "${NAMESPACES[@]}" mount -t tmpfs tmpfs /mnt 2>/dev/null; then
		echo "not allowed to mount here"
	elif ! "${NAMESPACES[@]}" bash -x "$0" --make "$v" >"$log" 2>&1 </dev/null; then
		echo "its chroot could not be made: $(grep -E '^[EW]:' "$log" | tail -n 1)"
		nxm_tail "$log"
	else
		return 0
	fi
	return 1
}

export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
[ $# -ge 2 ] || nxm_die "usage: $0 prepare|root|run MAJOR [DIR COMMAND...]"
what=$1 v=$2 root=$CACHE/pg$2
shift 2
case $what in
	prepare) mkdir -p "$CACHE" && prepare ;;
	root) printf '%s\n' "$root" ;;
	run) exec "${NAMESPACES[@]}" bash "$0" --enter "$v" "$@" ;;
	--make) make_root ;;
	--enter) enter "$@" ;;
	*) nxm_die "no $what" ;;
esac
