# shellcheck shell=bash
# test/lib.sh: what the shell scripts under test/ and bench/ share. Source it.
#
# A script begins like this:
#
#	set -euo pipefail
#	. "$(dirname "$0")/lib.sh"
#	nxm_pg_config			# which PostgreSQL: sets PG_CONFIG, PG_BIN, PG_MAJOR
#	nxm_private "$@"		# the installation becomes a private overlay
#	nxm_init demo			# NXM_TMP, NXM_LOG, removed (and servers stopped) on exit
#	nxm_build				# builds a copy of the tree and installs it
#	nxm_cluster_start main "shared_preload_libraries = 'nexusmem'"
#	nxm_psql -c 'CREATE EXTENSION nexusmem'
#
# The user's own PostgreSQL is left alone: nxm_private restarts the script in a
# mount namespace in which an overlay that dies with it lies over PostgreSQL's
# library, extension and header directories. Where that is not allowed (most
# containers) the extension is installed for real, and uninstalled at the end; one
# that is there already would be lost, so the script ends and says so.
#
# initdb and postgres refuse to run as root: as root everything of the server's
# runs as NXM_USER (postgres), otherwise as the caller.
#
# Limits: Linux, GNU tools. Not for paths with newlines. A SIGKILL of the
# script leaves its servers and its directory behind.

NXM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
NXM_CLUSTERS=()
NXM_UNINSTALL=
export LC_ALL=C.UTF-8
unset LANGUAGE

if [ "$(id -u)" = 0 ]; then
	: "${NXM_CACHE:=/var/cache/nexusmem}"
	if [ -z "${NXM_USER:-}" ]; then
		NXM_USER=nobody
		! id postgres >/dev/null 2>&1 || NXM_USER=postgres
	fi
else
	: "${NXM_CACHE:=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/nexusmem}"
	NXM_USER=$(id -un)
fi
export NXM_CACHE NXM_USER

nxm_say() { printf '%s\n' "$*" >&2; }

nxm_die() { nxm_say "${0##*/}: $*"; exit 1; }

# nxm_tail LOG [LINES]: the end of a log, indented, on stderr.
nxm_tail() {
	nxm_say "  $1:"
	tail -n "${2:-20}" "$1" 2>/dev/null | sed 's/^/  | /' >&2 || true
}

# nxm_log NAME COMMAND...: run it with its output in $NXM_LOG/NAME.log; when it
# fails, show where that is and how it ends.
nxm_log() {
	local log=$NXM_LOG/$1.log rc=0
	shift
	"$@" >>"$log" 2>&1 </dev/null || rc=$?
	if [ "$rc" != 0 ]; then
		nxm_say "${0##*/}: failed with status $rc: $*"
		nxm_tail "$log"
	fi
	return "$rc"
}

# nxm_can_build PG_CONFIG: are its development files there? Debian's server package
# has PGXS without the headers.
nxm_can_build() {
	[ -x "$1" ] && [ -e "$("$1" --pgxs)" ] && [ -e "$("$1" --includedir-server)/postgres.h" ]
}

# nxm_find_pg: prints the pg_config to use: $PG_CONFIG, else that of the newest
# supported server with development files, else nothing.
nxm_find_pg() {
	if [ -n "${PG_CONFIG:-}" ]; then
		type -P "$PG_CONFIG" || true
		return 0
	fi
	local v c
	for v in 19 18 17 16 15; do
		c=/usr/lib/postgresql/$v/bin
		if [ -x $c/postgres ] && nxm_can_build $c/pg_config; then
			printf '%s\n' $c/pg_config
			return 0
		fi
	done
	if c=$(type -P pg_config) && nxm_can_build "$c" && [ -x "$("$c" --bindir)/postgres" ]; then
		printf '%s\n' "$c"
	fi
}

# nxm_pg_config: sets and exports PG_CONFIG, PG_BIN and PG_MAJOR.
nxm_pg_config() {
	local c
	c=$(nxm_find_pg)
	[ -n "$c" ] || nxm_die "no PostgreSQL 15 or newer with development files${PG_CONFIG:+ (PG_CONFIG=$PG_CONFIG)}: run test/deps.sh"
	PG_CONFIG=$c
	PG_BIN=$("$c" --bindir)
	PG_MAJOR=$("$c" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
	export PG_CONFIG PG_BIN PG_MAJOR
}

# nxm_other_majors: those that test/matrix runs, without this machine's.
nxm_other_majors() { printf '%s\n' 15 17 18 19 | grep -vx "$PG_MAJOR"; }

# nxm_apt DIR TYPES "URI SUITE COMPONENT" lines: sets NXM_APT, the options for an apt
# that knows these repositories alone, as each of TYPES (deb, deb-src), and keeps its
# state in DIR.
nxm_apt() {
	local dir=$1 keys=() k type
	for k in /usr/share/keyrings/{debian,ubuntu}-archive-keyring.gpg \
		/usr/share/postgresql-common/pgdg/apt.postgresql.org.{asc,gpg}; do
		if [ -e "$k" ]; then keys+=("$k"); fi
	done
	mkdir -p "$dir"/{lists,archives}/partial
	for type in $2; do
		sed "/./s|^|$type [signed-by=$(IFS=,; echo "${keys[*]}")] |" <<<"$3"
	done >"$dir/list"
	# a mirror may lag behind; signatures are still checked
	NXM_APT=(-qq -o "Dir::Etc::sourcelist=$dir/list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir" -o APT::Sandbox::User=root
		-o Acquire::Check-Valid-Until=false)
	apt-get "${NXM_APT[@]}" update
}

# nxm_private "$@": restart the calling script under overlays of the three
# directories that `make install` writes to. Returns where it already runs so,
# or where the kernel does not let it.
nxm_private() {
	[ -z "${NXM_PRIVATE:-}" ] || return 0
	export NXM_PRIVATE=no
	local lib share include ns=(unshare --mount --propagation private) back=
	lib=$("$PG_CONFIG" --pkglibdir)
	share=$("$PG_CONFIG" --sharedir)/extension
	include=$("$PG_CONFIG" --includedir-server)
	if [ "$(id -u)" != 0 ]; then
		ns=(unshare --user --map-root-user --mount --propagation private)
		back="unshare --user --map-user=$(id -u) --map-group=$(id -g)"
	fi
	# A tmpfs holds what is written, since an overlay cannot lie on another
	# one; unmounted lazily, it lives as long as the overlays do.
	local overlay='
		set -e
		t=$(mktemp -d /tmp/nexusmem-mnt.XXXXXX)
		trap "umount -l $t || true; rmdir $t" EXIT
		mount -t tmpfs tmpfs "$t"
		# in a user namespace the one below belongs to nobody: none can be made in it
		mkdir -p "$t/3/u/extension/nexusmem"
		n=0
		for d in "$1" "$2" "$3"; do
			n=$((n + 1)); mkdir -p "$t/$n/u" "$t/$n/w"
			mount -t overlay -o "lowerdir=$d,upperdir=$t/$n/u,workdir=$t/$n/w" overlay "$d"
			touch "$d/.nexusmem"; rm "$d/.nexusmem"
		done
		umount -l "$t"; rmdir "$t"
		shift 3
		exec '"$back"' "$@"'
	if "${ns[@]}" bash -c "$overlay" - "$lib" "$share" "$include" true >/dev/null 2>&1; then
		NXM_PRIVATE=yes exec "${ns[@]}" bash -c "$overlay" - "$lib" "$share" "$include" bash "$0" "$@"
	fi
}

# nxm_init NAME [BASE]: makes NXM_TMP, a directory under BASE (default TMPDIR, else
# /var/tmp: unlike /tmp it is seldom in memory, where look-ahead has nothing to do)
# owned by NXM_USER, and NXM_LOG in it (unless a caller has set it). On exit the
# servers are stopped and the directory is removed; after a failure the logs stay.
nxm_init() {
	local base=${2:-${TMPDIR:-/var/tmp}}
	NXM_TMP=$(mktemp -d "$base/nexusmem-$1.XXXXXX")
	if [ -z "${NXM_LOG:-}" ]; then NXM_LOG=$NXM_TMP/log; fi
	export NXM_TMP NXM_LOG
	trap nxm_cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	mkdir -p "$NXM_LOG"
	if [ "$(id -u)" = 0 ]; then chown "$NXM_USER:" "$NXM_TMP" "$NXM_LOG"; fi
	export PGHOST=$NXM_TMP PGUSER=postgres PGDATABASE=postgres
	unset PGPORT PGDATA PGOPTIONS PGSERVICE PGPASSWORD
}

nxm_cleanup() {
	local rc=$? d
	trap - EXIT
	trap '' INT TERM HUP
	set +e
	for d in "${NXM_CLUSTERS[@]+"${NXM_CLUSTERS[@]}"}"; do nxm_cluster_stop "$d" immediate >/dev/null 2>&1; done
	if [ -n "$NXM_UNINSTALL" ]; then make -s -C "$NXM_BUILD" uninstall PG_CONFIG="$PG_CONFIG" >/dev/null 2>&1; fi
	cd /
	if [ "$rc" = 0 ] || [ "$NXM_LOG" != "$NXM_TMP/log" ] || [ -z "$(ls -A "$NXM_LOG")" ]; then
		rm -rf --one-file-system "$NXM_TMP"
	else
		find "$NXM_TMP" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf --one-file-system {} +
		nxm_say "${0##*/}: logs are in $NXM_LOG"
	fi
	exit "$rc"
}

# as_postgres COMMAND...: run it as NXM_USER in NXM_TMP.
as_postgres() {
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid "$NXM_USER" --regid "$(id -g "$NXM_USER")" --init-groups \
			env -C "$NXM_TMP" HOME="$NXM_TMP" "$@"
	else
		env -C "$NXM_TMP" HOME="$NXM_TMP" "$@"
	fi
}

# nxm_copy DIR [FROM]: the tree without repository and build products, owned by
# NXM_USER.
nxm_copy() {
	mkdir -p "$1"
	tar -C "${2:-$NXM_ROOT}" --exclude-vcs --exclude=./test/unit/bin --exclude=./test/numa/bin --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=./src/built_for \
		--exclude=tmp_check --exclude=results --exclude=output_iso -cf - . | tar -C "$1" -xf -
	if [ "$(id -u)" = 0 ]; then chown -R "$NXM_USER:" "$1"; fi
}

# nxm_build: build a copy of the tree (NXM_BUILD) and install it. A second call,
# also from a script started by this one, finds NXM_BUILD set and does nothing.
# The checkout itself is only read.
nxm_build() {
	if [ -n "${NXM_BUILD:-}" ]; then return 0; fi
	local lib share mk
	lib=$("$PG_CONFIG" --pkglibdir)
	share=$("$PG_CONFIG" --sharedir)/extension
	if [ ! -w "$lib" ] || [ ! -w "$share" ]; then
		nxm_die "cannot write to $lib and $share; run: sudo PG_CONFIG=$PG_CONFIG $0"
	fi
	if [ "${NXM_PRIVATE:-}" != yes ] && [ -e "$lib/nexusmem.so" ]; then
		nxm_die "nexusmem in $lib would be replaced, for no overlay may be mounted here; first run: make uninstall PG_CONFIG=$PG_CONFIG"
	fi
	export NXM_BUILD=$NXM_TMP/build
	mk=(make -C "$NXM_BUILD" PG_CONFIG="$PG_CONFIG")
	# Bitcode of an earlier version: a user namespace cannot remove what is the real root's.
	if [ "$(id -u)" != 0 ]; then mk+=(bitcodedir=); fi
	nxm_copy "$NXM_BUILD"
	rm -f "$NXM_LOG/build.log"
	nxm_log build as_postgres "${mk[@]}" -j"$(nproc)"
	nxm_log build as_postgres mkdir -p "$NXM_BUILD/test/numa/bin"
	nxm_log build as_postgres cc -O2 -Wall -Wextra -o "$NXM_BUILD/test/numa/bin/deny" "$NXM_BUILD/test/numa/deny.c"
	if [ "${NXM_PRIVATE:-}" != yes ]; then NXM_UNINSTALL=1; fi
	nxm_log build "${mk[@]}" install
}

# A cluster is named by a directory: a plain name is one in NXM_TMP.
nxm_cluster_dir() {
	case $1 in
		/*) printf '%s' "$1" ;;
		*) printf '%s' "$NXM_TMP/$1" ;;
	esac
}

# nxm_cluster_start DIR ["conf lines" [COMMAND...]]: initdb unless DIR exists, append
# the lines to its postgresql.conf (a later line wins), start it, behind COMMAND, on a
# socket in NXM_TMP, with a port of its own and no TCP. nxm_psql and all of libpq's
# clients then mean this one. Superuser postgres, trust, UTF8, C locale.
# Returns 1, with the end of the server's log shown, when it does not start.
nxm_cluster_start() {
	local dir log
	dir=$(nxm_cluster_dir "$1")
	log=$NXM_LOG/$(basename "$dir").log
	if [ ! -e "$dir/PG_VERSION" ]; then
		nxm_log initdb as_postgres "$PG_BIN/initdb" -N -A trust -U postgres -E UTF8 --no-locale -D "$dir"
		as_postgres tee -a "$dir/postgresql.conf" >/dev/null <<-CONF
			listen_addresses = ''
			unix_socket_directories = '$NXM_TMP'
			port = $((5432 + ${#NXM_CLUSTERS[@]}))
		CONF
		NXM_CLUSTERS+=("$dir")
	fi
	if [ -n "${2:-}" ]; then printf '%s\n' "$2" | as_postgres tee -a "$dir/postgresql.conf" >/dev/null; fi
	nxm_cluster_use "$dir"
	if ! as_postgres "${@:3}" "$PG_BIN/pg_ctl" -D "$dir" -l "$log" -w -s -t 120 start >/dev/null 2>&1 </dev/null; then
		nxm_say "${0##*/}: the server in $dir did not start"
		nxm_tail "$log"
		return 1
	fi
}

# nxm_cluster_use DIR: let clients mean this cluster.
nxm_cluster_use() {
	PGPORT=$(sed -n 's/^port = //p' "$(nxm_cluster_dir "$1")/postgresql.conf" | tail -n 1)
	export PGPORT
}

# nxm_cluster_stop DIR [fast|smart|immediate]
nxm_cluster_stop() {
	as_postgres "$PG_BIN/pg_ctl" -D "$(nxm_cluster_dir "$1")" -w -s -m "${2:-fast}" stop
}

# nxm_psql ARGS...: psql as superuser, no startup file, stops at an error.
nxm_psql() {
	as_postgres "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 "$@"
}

# nxm_crashed PREFIX LOG: a failed test when a server process died of a signal in
# this log: between two tests that may pass unseen.
nxm_crashed() {
	if grep -q 'was terminated by signal' "$2"; then
		printf 'not ok - %s: %s\n' "$1" "$(grep -m 1 -o '[a-z ]*process.*was terminated by signal.*' "$2")"
	fi
}

# nxm_tally PREFIX FILE: see tally.awk.
nxm_tally() {
	awk -v prefix="$1" -f "$NXM_ROOT/test/tally.awk" "$2"
}

# nxm_differences FILE: notes of how what a suite of pg_regress got differs from what
# it expects, if it does.
nxm_differences() {
	[ ! -e "$1" ] || awk '/^[-+ @]/ && n++ < 60 { print "## | " $0 }' "$1"
}
