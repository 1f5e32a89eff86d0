#!/bin/bash
# test/numa/vm.sh [options] [--] COMMAND [ARGUMENT...]
# Boots a throw-away virtual machine with several NUMA nodes, whose root is this
# machine's own root file system (read-only, under an overlay in memory), runs
# the command there as root, relays its output and exit status, powers off.
#
#	-m "512 512 512 512"	MiB of each node; 0: a node without memory
#	-c "0 1 2 3"			virtual CPUs of each node ("0-1"; "-": none)
#	-d "s:d:v ..."			distances (default with 4 nodes: asymmetric, see below;
#							otherwise and when empty: 10 and 20)
#	-a "hugepages=64"		kernel command line
#	-t SECONDS				limit (default 300)
#	-o DIR					directory writable in the guest, as /out
#	-K						KVM instead of emulation
#	-v						the kernel's console on stderr at the end
#
# What the guest writes outside /out is gone afterwards. A data directory made on
# the host can be served in place in the guest: faster than an initdb there.
# Boots in about 5 s under emulation, which has no AVX-512.
#
# Exit status 125: the guest gave none; 77: no machine to be had, the reason is
# on stderr. Limits: x86-64. The kernel is Debian's generic one, unpacked into
# the cache (0.5 GB): the cloud flavour lacks 9p.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

mem_mb="512 512 512 512" cpus="0 1 2 3" append= limit=300 out= kvm= verbose= dist=default
while getopts m:c:d:a:t:o:Kv o; do
	case $o in
		m) mem_mb=$OPTARG ;;
		c) cpus=$OPTARG ;;
		d) dist=$OPTARG ;;
		a) append=$OPTARG ;;
		t) limit=$OPTARG ;;
		o) out=$OPTARG ;;
		K) kvm=1 ;;
		v) verbose=loglevel=7 ;;
		*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || nxm_die "no command"

unable() { nxm_say "vm: $*"; exit 77; }
[ "$(uname -m)" = x86_64 ] || unable "virtual machines are run on x86-64 only"
for c in qemu-system-x86_64 cpio depmod modprobe insmod switch_root xz dpkg-deb; do
	PATH=$PATH:/usr/sbin:/sbin type -P $c >/dev/null || unable "$c is not installed"
done
PATH=$PATH:/usr/sbin:/sbin

cache=$NXM_CACHE/vm
mkdir -p "$cache"
work=$(mktemp -d "${TMPDIR:-/tmp}/nexusmem-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT
exec 9>"$cache/.lock"
flock 9

# --- the kernel: only unpacked, never installed
fetch_kernel() {
	local dir=$1 pkg
	if apt-cache show linux-image-amd64 >/dev/null 2>&1; then
		NXM_APT=(-qq -o APT::Sandbox::User=root)
	else # not Debian
		nxm_apt "$work/apt" deb "https://deb.debian.org/debian bookworm main"
		NXM_APT+=(-o APT::Architecture=amd64 -o Dir::State::status=/dev/null)
	fi
	pkg=$(apt-cache "${NXM_APT[@]}" depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
	mkdir -p "$dir/x"
	(cd "$dir" && apt-get "${NXM_APT[@]}" download "$pkg" && dpkg-deb -x ./*.deb x && rm -f ./*.deb) || return
	# since Debian 13 the modules are in usr/lib
	[ -e "$dir/x/lib" ] || ln -s usr/lib "$dir/x/lib"
	depmod -b "$dir/x" "$(basename "$dir"/x/lib/modules/*)"
}
if [ ! -e "$cache/kernel/x" ]; then
	rm -rf "$cache/kernel" "$cache/kernel.new"
	(set -e; fetch_kernel "$cache/kernel.new") >"$work/log" 2>&1 9>&- || {
		rm -rf "$cache/kernel.new"
		unable "no kernel to be had: $(grep . "$work/log" | tail -n 1)"
	}
	mv "$cache/kernel.new" "$cache/kernel"
fi
kv=$(basename "$cache"/kernel/x/lib/modules/*)

# The ELF image inside boots directly and spares the emulator the unpacking.
kernel=$cache/kernel/vmlinux
if [ ! -s "$kernel" ]; then
	z=$cache/kernel/x/boot/vmlinuz-$kv
	off=$(LC_ALL=C grep -aobP '\xFD7zXZ\x00' "$z" | head -n 1 | cut -d: -f1) || true
	tail -c +$((${off:-0} + 1)) "$z" | xz -dc --single-stream 2>/dev/null >"$work/vmlinux" || true
	if [ "$(head -c 4 "$work/vmlinux" | tail -c 3)" = ELF ]; then
		mv "$work/vmlinux" "$kernel"
	else
		kernel=$z
	fi
fi

# --- initramfs: bash, mount, insmod, switch_root of this machine, and the modules.
# Kept as long as those programs stay the same.
initrd=$cache/initrd-$kv-$(cat "$0" "$(type -P bash)" "$(readlink -f "$(type -P insmod)")" | cksum | cut -d' ' -f1)
if [ ! -e "$initrd" ]; then
	i=$work/initrd
	mkdir -p "$i"/{bin,mods,proc,sys,dev,lo,rw,root}
	for b in bash mount mkdir insmod switch_root; do
		p=$(readlink -f "$(type -P $b)")
		cp "$p" "$i/bin/$b"
		ldd "$p" | grep -o '/[^ ]*' | while read -r l; do
			mkdir -p "$i$(dirname "$l")"
			cp -Ln "$l" "$i$l"
		done
	done
	n=10
	for m in virtio_pci 9pnet_virtio 9p overlay; do
		modprobe -d "$cache/kernel/x" -S "$kv" --show-depends $m
	done | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r f; do
		b=$n-$(basename "$f")
		case $f in
			*.xz) xz -dc "$f" >"$i/mods/${b%.xz}" ;;
			*.zst) zstd -dqc "$f" >"$i/mods/${b%.zst}" ;;
			*) cp "$f" "$i/mods/$b" ;;
		esac
		n=$((n + 1))
	done
	cat >"$i/init" <<-'INIT'
		#!/bin/bash
		export PATH=/bin
		mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
		for m in /mods/*; do insmod $m; done
		o=trans=virtio,version=9p2000.L,msize=512000
		mount -t 9p -o ro,cache=loose,access=any,$o host /lo || exec bash
		mount -t tmpfs -o size=75% tmpfs /rw; mkdir /rw/u /rw/w
		mount -t overlay -o lowerdir=/lo,upperdir=/rw/u,workdir=/rw/w overlay /root
		mkdir -p /root/out /root/proc /root/sys /root/dev
		mount -t 9p -o access=any,$o out /root/out
		for d in proc sys dev; do mount --move /$d /root/$d; done
		exec switch_root /root /bin/bash /out/.guest
	INIT
	chmod +x "$i/init"
	(cd "$i" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd.cpio"
	rm -f "$cache"/initrd-*
	mv "$work/initrd.cpio" "$initrd"
fi
exec 9>&-

# --- what the guest runs
[ -n "$out" ] || out=$work/out
mkdir -p "$out"
out=$(readlink -f "$out")
rm -f "$out/.rc"
: >"$out/.log"
{
	cat <<-'GUEST'
		export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
		ln -sfn /proc/self/fd /dev/fd; for i in 0:stdin 1:stdout 2:stderr; do ln -sf /proc/self/fd/${i%:*} /dev/${i#*:}; done
		mkdir -p /dev/pts /dev/shm
		# setuid programs may belong to nobody here, when an ordinary user runs the machine
		mount() { setpriv --no-new-privs mount "$@"; }
		mount -t devpts devpts /dev/pts
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm
		mount -t tmpfs -o mode=755 tmpfs /run
		mkdir -p /run/lock; install -d -m 2775 -o postgres -g postgres /run/postgresql 2>/dev/null
		ip link set lo up 2>/dev/null; hostname numavm
		cd /
	GUEST
	echo "( cd $(printf %q "$PWD") 2>/dev/null; exec $(printf '%q ' "$@") ) >/out/.log 2>&1 </dev/null"
	cat <<-'GUEST'
		echo $? >/out/.rc
		sync
		echo o >/proc/sysrq-trigger; sleep 60
	GUEST
} >"$out/.guest"

# --- the machine
read -ra mem <<<"$mem_mb"
read -ra cpu <<<"$cpus"
if [ "$dist" = default ]; then
	dist=
	if [ ${#mem[@]} = 4 ]; then
		dist="0:1:15 0:2:21 0:3:28 1:0:16 1:2:22 1:3:29 2:0:23 2:1:24 2:3:17 3:0:30 3:1:31 3:2:18"
	fi
fi
total=0 ncpu=0 numa=()
for i in "${!mem[@]}"; do
	n="node,nodeid=$i"
	if [ "${cpu[i]}" != - ]; then
		n+=",cpus=${cpu[i]}"
		ncpu=$((ncpu + ${cpu[i]#*-} - ${cpu[i]%-*} + 1))
	fi
	if [ "${mem[i]}" != 0 ]; then
		numa+=(-object "memory-backend-ram,id=m$i,size=${mem[i]}M")
		n+=",memdev=m$i"
		total=$((total + mem[i]))
	fi
	numa+=(-numa "$n")
done
for d in $dist; do
	IFS=: read -r s t v <<<"$d"
	numa+=(-numa "dist,src=$s,dst=$t,val=$v")
done
accel=(-accel tcg,thread=multi -cpu max,la57=off)
[ -z "$kvm" ] || accel=(-accel kvm -cpu host,-arch-capabilities)
console=(-serial null)
[ -z "$verbose" ] || console=(-serial "file:$work/console")

set +e
timeout "$limit" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
	-machine q35 "${accel[@]}" -smp "$ncpu,sockets=$ncpu,cores=1,threads=1" \
	-m "${total}M" "${numa[@]}" -kernel "$kernel" -initrd "$initrd" \
	-append "console=ttyS0 ${verbose:-quiet} mitigations=off panic=-1 numa_balancing=disable $append" \
	-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
	-virtfs local,path="$out",mount_tag=out,security_model=none,multidevs=remap \
	-device virtio-rng-pci "${console[@]}" </dev/null 2>"$work/qemu" &
qemu=$!
trap 'kill $qemu 2>/dev/null; exit 143' INT TERM HUP
tail -q -n +1 -s 0.1 -f --pid=$qemu "$out/.log" &
relay=$!
wait $qemu
status=$?
wait $relay
grep -v '^$' "$work/qemu" >&2
[ -z "$verbose" ] || cat "$work/console" >&2
if ! rc=$(cat "$out/.rc" 2>/dev/null); then
	if [ "$status" = 124 ]; then why="the limit of $limit s was reached"; else why="qemu's status was $status"; fi
	nxm_say "vm: no exit status from the guest: $why"
	rc=125
fi
exit "$rc"
