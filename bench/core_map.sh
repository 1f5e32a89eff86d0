#!/bin/bash
# bench/core_map.sh: the map of src/core, without a server, against Concurrency
# Kit's ck_ht behind locks and hash tables of 256 shards behind mutexes and
# rwlocks; the length of operations while it grows; the bytes of an entry.
#
#	ENTRIES=1000000
#	ROUNDS=5	the tables take turns in each
#	SECONDS_A_RUN=0.4
#	THREADS=1,2,16
#	PAGES=huge	of all tables' memory, as a server's structures have them; or small: 4 kB
#	PLOT=		a file: an SVG plot is written there
#
# As root it installs what it needs of libck-dev and gnuplot-nox.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param ENTRIES 1000000
param ROUNDS 5
param SECONDS_A_RUN 0.4
param THREADS 1,2,16
param PAGES huge
: "${PLOT:=}"

need=()
[ -e /usr/include/ck_ht.h ] || need+=(libck-dev)
[ -z "$PLOT" ] || type -P gnuplot >/dev/null || need+=(gnuplot-nox)
if [ ${#need[@]} -gt 0 ]; then
	if [ "$(id -u)" != 0 ] || ! type -P apt-get >/dev/null; then
		nxm_die "install: ${need[*]}"
	fi
	nxm_say "installing ${need[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${need[@]}" >/dev/null
fi

nxm_init bench-core_map "${BENCH_DIR:-/var/tmp}"
nxm_log build make -C "$NXM_ROOT/bench/core" BIN="$NXM_TMP/bin"

bench_head core_map libck "$(version_of ck)"

"$NXM_TMP/bin/bench_growth" bytes -n "$ENTRIES"
echo
"$NXM_TMP/bin/bench_growth" latency -n "$ENTRIES" -r "$ROUNDS" -p "$(nproc | awk '{ print ($1 > 8 ? 8 : $1) }')"
echo
"$NXM_TMP/bin/bench_map" -n "$ENTRIES" -r "$ROUNDS" -t "$SECONDS_A_RUN" -T "$THREADS" -P "$PAGES" -o "$NXM_TMP/data"

[ -n "$PLOT" ] || exit 0
gnuplot <<GNUPLOT
set terminal svg size 1000,620 font "sans-serif,12" background "white"
set output "$PLOT"
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 noborder
set boxwidth 0.9
set grid ytics lc rgb "#dddddd"
set yrange [0:*]
set xtics nomirror
set ytics nomirror
set border 3
set multiplot layout 2,3 title "Million operations a second by threads, $ENTRIES entries, $(nproc) cores"
do for [keys in "uniform zipf"] {
	do for [reads in "100 95 50"] {
		set title sprintf("%s keys, %s %% reads", keys, reads)
		if (keys eq "uniform" && reads eq "100") { set key top left } else { unset key }
		pick(v) = (stringcolumn(1) eq keys && stringcolumn(2) eq reads) ? v : NaN
		file = sprintf("< grep -P '^%s\\\\t%s\\\\t' $NXM_TMP/data", keys, reads)
		plot file using 4:xticlabels(3) title "nexusmem" lc rgb "#1f6f8b", \\
			"" using 6 title "ck_ht, mutexes" lc rgb "#e07a5f", \\
			"" using 8 title "mutexes" lc rgb "#b8b8b8", \\
			"" using 10 title "rwlocks" lc rgb "#7d7d7d", \\
			"" using 12 title "ck_ht, ck_epoch" lc rgb "#f2cc8f"
	}
}
unset multiplot
GNUPLOT
echo "plot: $PLOT"
