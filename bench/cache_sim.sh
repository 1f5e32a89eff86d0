#!/bin/bash
# bench/cache_sim.sh [TRACE...]: hit ratios of eviction policies on traces, by bytes.
#
#	POLICIES=	all; else some, with their options, separated by blanks:
#			"lru s3fifo:small=0.2 segments:segments=1000"
#	CAPACITIES=1%,5%,10%,25%,50%	of all keys' bytes, or numbers of bytes
#	EQUAL=		1: all entries count as one, and capacities are in entries
#	REQUESTS=	so many of each trace at most
#	PLOT=		a file: an SVG plot is written there
#	ENGINE=		another tree, the cache of whose src/core is replayed
#	SEGMENT=16384	bytes of a segment of the engine. The server's have 65536: a capacity in
#			bytes is then fewer of them, as it is there
#
# A TRACE is a file (.lis: ARC's, .csv, .bin: oracleGeneral, others: a key a line;
# compressed by gzip, xz, bzip2 or zstd or not), or makes one: see
# bench/cache_sim/trace.c. Without any, the synthetic ones there are replayed.
#
# Public ones: ARC's (OLTP, P1 to P14, DS1, S1 to S3) are in moka-rs/cache-trace;
# those of LIRS, cache2k (ORM, web), Corda and Scarab in ben-manes/caffeine, of
# CloudPhysics, Twitter and others in libCacheSim's collection.
#
# On "OLTP" (914,145 requests), EQUAL=1 CAPACITIES=1000,5000,15000, published
# figures and these agree: LRU 32.8/53.7/64.6, ARC 38.9/55.3/65.4.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param POLICIES ""
param CAPACITIES 1%,5%,10%,25%,50%
param EQUAL ""
param REQUESTS ""
param ENGINE ""
param SEGMENT 16384
: "${PLOT:=}"

if [ -n "$PLOT" ] && ! type -P gnuplot >/dev/null; then
	if [ "$(id -u)" != 0 ] || ! type -P apt-get >/dev/null; then nxm_die "install: gnuplot-nox"; fi
	nxm_say "installing gnuplot-nox"
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends gnuplot-nox >/dev/null
fi

nxm_init bench-cache_sim "${BENCH_DIR:-/var/tmp}"
nxm_log build make -C "$NXM_ROOT/bench/cache_sim" BIN="$NXM_TMP/bin" SEGMENT="$SEGMENT" ${ENGINE:+"ENGINE=$ENGINE"} all "$NXM_TMP/bin/cache_sim_check"
nxm_log check "$NXM_TMP/bin/cache_sim_check"

traces=()
for trace; do
	case $trace in
		*.gz) unpack=gzip ;;
		*.xz) unpack=xz ;;
		*.bz2) unpack=bzip2 ;;
		*.zst) unpack=zstd ;;
		*) unpack= ;;
	esac
	if [ -n "$unpack" ]; then
		type -P $unpack >/dev/null || nxm_die "$trace: install $unpack"
		file=$(basename "${trace%.*}")
		$unpack -dc "$trace" >"$NXM_TMP/$file"
		trace=$NXM_TMP/$file
	fi
	traces+=("$trace")
done
if [ ${#traces[@]} = 0 ]; then
	traces=('zipf:skew=0.7' 'zipf:skew=0.9' 'zipf:skew=1.1' 'scan:skew=0.9' mix loop shift
		'zipf:skew=0.9,sizes=1' 'scan:skew=0.9,sizes=1')
fi

args=(-c "$CAPACITIES" -d "$NXM_TMP/data")
[ -z "$EQUAL" ] || args+=(-e)
[ -z "$REQUESTS" ] || args+=(-n "$REQUESTS")
for policy in $POLICIES; do args+=(-p "$policy"); done

echo "bench/cache_sim.sh"
echo "  commit      $(git -C "$NXM_ROOT" describe --always --dirty 2>/dev/null || echo "none (no git repository)")"
echo "  parameters $BENCH_PARAMS"
echo
"$NXM_TMP/bin/cache_sim" "${args[@]}" "${traces[@]}"

[ -n "$PLOT" ] || exit 0
mapfile -t names < <(cut -f 1 "$NXM_TMP/data" | awk '!seen[$0]++')
colors=('#1f6f8b' '#e07a5f' '#3d9970' '#8e5ea2' '#c9a227' '#7d7d7d' '#d1495b' '#5b8c5a' '#333333')
mapfile -t labels < <(cut -f 2 "$NXM_TMP/data" | awk '!seen[$0]++')
columns=$((${#names[@]} < 3 ? ${#names[@]} : 3))
rows=$(((${#names[@]} + columns - 1) / columns))
{
	echo "set terminal svg size $((columns * 420)),$((rows * 320 + 40)) font 'sans-serif,12' background 'white'"
	echo "set output '$PLOT'"
	printf '%s\n' "set datafile separator '\t'"
	echo "set logscale x; set grid lc rgb '#dddddd'; set border 3; set tics nomirror; set format x '%.0s%c'"
	echo "set multiplot layout $rows,$columns title 'Hit ratio, %, by capacity'"
	for i in "${!names[@]}"; do
		if [ "$i" = 0 ]; then echo "set key bottom right samplen 1"; else echo "unset key"; fi
		echo "set title '${names[i]}' noenhanced"
		line=
		for j in "${!labels[@]}"; do
			style="lc rgb '${colors[j % ${#colors[@]}]}' lw 1.5 pt 7 ps 0.4"
			if [ "${labels[j]}" = belady ]; then style="lc rgb '#999999' dt 2 pt 0"; fi
			line+="${line:+, }'$NXM_TMP/data' using (stringcolumn(1) eq '${names[i]}' && stringcolumn(2) eq '${labels[j]}' ? \$3 : NaN):4 with linespoints $style title '${labels[j]}' noenhanced"
		done
		echo "plot $line"
	done
	echo "unset multiplot"
} >"$NXM_TMP/plot"
gnuplot "$NXM_TMP/plot"
echo "plot: $PLOT"
