#!/bin/bash
# test/deps.sh [build|all]: installs what `make demo` (build) or `make test` (all,
# the default) needs and this machine lacks. Prints the pg_config to be used.
#
# PostgreSQL is the one of $PG_CONFIG, else the newest installed server from 15
# on, else the distribution's. Existing clusters and settings are not touched,
# and installing PostgreSQL does not create one, nor does installing PgBouncer start
# it, now or when the machine starts.
#
# Limits: installs on Debian and Ubuntu, as root; otherwise it names what is
# missing and the command, and exits with 1.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

what=${1:-all}
build=(gcc make libc6-dev)
all=(libipc-run-perl libcmocka-dev perl util-linux
	numactl qemu-system-x86 cpio kmod xz-utils zstd
	debootstrap debian-archive-keyring bzip2)
# what a test is skipped without: left out where apt has it not or cannot install it, or who
# calls is not root
optional=(pgbouncer)
case $what in
	build) want=("${build[@]}") ;;
	all) want=("${build[@]}" "${all[@]}" "${optional[@]}") ;;
	*) nxm_die "usage: $0 [build|all]" ;;
esac
# virtual machines are run on amd64 alone
case $(uname -m) in x86_64) ;; *) want=("${want[@]/qemu-system-x86/}") ;; esac

if ! type -P dpkg-query apt-get >/dev/null; then
	missing=()
	for c in gcc make; do type -P $c >/dev/null || missing+=("$c"); done
	[ -n "$(nxm_find_pg)" ] || missing+=("PostgreSQL 15 or newer with its development files (PG_CONFIG)")
	[ ${#missing[@]} = 0 ] ||
		nxm_die "not a Debian or Ubuntu system, install by hand: $(printf '%s; ' "${missing[@]}")"
	nxm_find_pg
	exit 0
fi

# Which PostgreSQL. A server without development files gets them; a pg_config
# from elsewhere has to be complete.
add_server() {
	want+=("postgresql-$1" "postgresql-server-dev-$1")
}
pg=$(nxm_find_pg)
if [ -n "${PG_CONFIG:-}" ]; then
	if [[ $PG_CONFIG =~ ^/usr/lib/postgresql/([0-9]+)/ ]]; then
		add_server "${BASH_REMATCH[1]}"
	elif [ -z "$pg" ]; then
		nxm_die "PG_CONFIG=$PG_CONFIG is not a program"
	elif ! nxm_can_build "$pg"; then
		nxm_die "PG_CONFIG=$PG_CONFIG has no development files ($("$pg" --pgxs), $("$pg" --includedir-server))"
	fi
elif [ -z "$pg" ]; then
	major=
	for v in 19 18 17 16 15; do
		if [ -x /usr/lib/postgresql/$v/bin/postgres ]; then major=$v && break; fi
	done
fi

lacking() {
	local p have
	have=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "${want[@]}" 2>/dev/null || true)"
	missing=()
	for p in "${want[@]}"; do
		case $have in *" installed:$p "*) ;; *) [ -z "$p" ] || missing+=("$p") ;; esac
	done
}

updated=
update() {
	[ -z "$updated" ] || return 0
	updated=1
	log=$(mktemp "${TMPDIR:-/tmp}/nexusmem-deps.XXXXXX")
	nxm_say "deps: apt-get update"
	apt-get -qq update >"$log" 2>&1 || nxm_tail "$log" 5
}

lacking
if [ -z "${PG_CONFIG:-}" ] && [ -z "$pg" ] && [ -z "$major" ]; then
	# the distribution's, known once apt has its lists
	if [ "$(id -u)" = 0 ]; then update; fi
	major=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
	[ -n "$major" ] || nxm_die "no package postgresql to be had: check apt's sources"
	[ "$major" -ge 15 ] ||
		nxm_die "this distribution has PostgreSQL $major, nexusmem needs 15 or newer: see https://apt.postgresql.org"
fi
if [ -n "${major:-}" ]; then
	add_server "$major"
	lacking
fi

# The development files of the very server that is installed, where they are to be
# had: other ones would upgrade it, which restarts its clusters.
pin() {
	local i v p
	for i in "${!missing[@]}"; do
		case ${missing[i]} in postgresql-server-dev-*)
			v=$(dpkg-query -W -f '${Version}' "postgresql-${missing[i]##*-}" 2>/dev/null || true)
			if [ -n "$v" ] && apt-cache show "${missing[i]}=$v" >/dev/null 2>&1; then
				p=${missing[i]##*-}
				missing[i]+="=$v"
				missing+=("postgresql-$p=$v" "postgresql-client-$p=$v")
			fi ;;
		esac
	done
}

is_missing() { [[ " ${missing[*]} " == *" $1 "* ]]; }

drop_optional() {
	local i p
	for p in "${optional[@]}"; do
		for i in "${!missing[@]}"; do
			if [ "${missing[i]}" = "$p" ] &&
				{ [ "$(id -u)" != 0 ] || ! apt-cache show "$p" >/dev/null 2>&1; }; then
				unset "missing[i]"
			fi
		done
	done
}

if [ ${#missing[@]} != 0 ]; then
	if [ "$(id -u)" = 0 ]; then update; fi
	drop_optional
fi
if [ ${#missing[@]} != 0 ]; then
	pin
	install=(apt-get install -y --no-install-recommends "${missing[@]}")
	if [ "$(id -u)" != 0 ]; then
		nxm_say "deps: missing packages: ${missing[*]}"
		nxm_say "deps: run: sudo ${install[*]}"
		exit 1
	fi
	nxm_say "deps: installing ${missing[*]}"
	# the packages of a server make a cluster and start it unless told not to
	dropin=/etc/postgresql-common/createcluster.d/nexusmem.conf
	new=
	for d in /etc/postgresql-common /etc/postgresql-common/createcluster.d; do
		[ -d $d ] || { mkdir $d; new="$d $new"; }
	done
	policy=
	trap 'rm -f $dropin $policy; [ -z "$new" ] || rmdir --ignore-fail-on-non-empty $new 2>/dev/null' EXIT
	printf 'create_main_cluster = false\n' >$dropin
	# asked before a package starts its services
	if is_missing pgbouncer && [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\ncase $1 in pgbouncer*) exit 101 ;; esac\n' >$policy
		chmod +x $policy
	fi
	failed=
	DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq -o Dpkg::Use-Pty=0 >>"$log" 2>&1 </dev/null || failed=1
	if is_missing pgbouncer; then update-rc.d pgbouncer disable >/dev/null 2>&1 || true; fi
	if [ -n "$failed" ]; then
		nxm_tail "$log"
		lacking
		for p in "${missing[@]}"; do
			[[ " ${optional[*]} " == *" $p "* ]] || nxm_die "could not install: ${missing[*]}"
		done
		nxm_say "deps: going on without: ${missing[*]:-nothing}"
	fi
	rm -f "$log"
elif [ -n "$updated" ]; then
	rm -f "$log"
fi
pg=$(nxm_find_pg)
[ -n "$pg" ] || nxm_die "no usable pg_config after installing"
printf '%s\n' "$pg"
