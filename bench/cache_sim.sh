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
#	SEGMENT=16384	bytes of a segment of the engine. The server's have 65536: with SEGMENT=65536
#			a capacity in bytes is fewer of them, as it is there. Entries of equal size are
#			made to fit: a capacity is 250 segments, whatever these have
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
#
# Verdicts on the engine, in points of hit ratio: in that replay it is to be at most 0.3 below
# "s3fifo", which is S3-FIFO by items; in any other, where all policies take part, at most 3.0
# below the best one (but belady, which knows the future).
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

bench_head cache_sim
"$NXM_TMP/bin/cache_sim" "${args[@]}" "${traces[@]}"

# columns: trace, policy, capacity, hits
[ ${#traces[@]} = 1 ] || echo
awk -F'\t' -v equal="$EQUAL" -v some="$POLICIES" '
	function verdict(what, distance, most) {
		printf "%-24.24s %12d  %-28s %6.2f below  <= %.1f: %s\n", trace[what], capacity[what], than[what], distance, most,
			distance <= most ? "met" : "MISSED"
	}
	{
		at = $1 "\t" $3
		if (!(at in trace)) { trace[at] = $1; capacity[at] = $3; order[++n] = at }
		hits[at, $2] = $4
		if ($2 != "belady" && (!(at in best) || $4 > best[at])) { best[at] = $4; than[at] = $2 }
	}
	END {
		for (i = 1; i <= n; i++) {
			at = order[i]
			if (!((at, "engine") in hits))
				continue
			if (equal && trace[at] ~ /^OLTP/ && capacity[at] ~ /^(1000|5000|15000)$/) {
				if (!((at, "s3fifo") in hits))
					continue
				than[at] = "the engine to S3-FIFO"
				verdict(at, hits[at, "s3fifo"] - hits[at, "engine"], 0.3)
			} else if (some == "") {
				than[at] = "the engine to " than[at]
				verdict(at, best[at] - hits[at, "engine"], 3)
			} else if (!told++)
				print "no verdict on the best policy: POLICIES leaves some out"
		}
	}' "$NXM_TMP/data"

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
