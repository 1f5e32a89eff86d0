#!/bin/bash
# bench/predictor_sim.sh [TRACE...]: prefetchers on traces of blocks, before an LRU cache.
#
#	PREFETCHERS=	all; else some, with their options, separated by blanks:
#			"next leap learned:confidence=0.3,memory=4"
#	PAGES=2000,10000	sizes of the cache
#	PARTS=1		so many parts of each trace are reported by themselves
#
# bench/predictor_sim.c has the prefetchers and what is measured. A TRACE is a file, or
# makes one: see bench/cache_sim/trace.c; bench/cache_sim.sh tells where to find some.
# Without any, 500 page-shaped sequences of 20 lookups are read four times, and then
# sequences that do not come again, each pass reported by itself.
#
# The trace "OLTP" numbers pages by their first request: what next-block gains there are
# first requests for the most part, and no sign of a disk's order. On it, with 2,000
# pages, others have measured LRU 42.5 % hits, next-block 60.7 (precision 38 %), Leap
# 44.9 (73 %), first-order Markov 44.1 (90 %). Where it was replayed as one part with all
# prefetchers, the predictor's targets there follow: at least one point more hits than
# next-block, more than Leap and Markov, a precision of at least 70 %. Mithril (SoCC 2017) is not replayed: its
# authors give 14.5 % fewer misses than LRU on block traces, on average.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

param PREFETCHERS ""
param PAGES 2000,10000
param PARTS "$(($# > 0 ? 1 : 4))"

nxm_init bench-predictor_sim "${BENCH_DIR:-/var/tmp}"
nxm_log build make -C "$NXM_ROOT/bench/cache_sim" BIN="$NXM_TMP/bin" "$NXM_TMP/bin/predictor_sim"

traces=("$@")
if [ ${#traces[@]} = 0 ]; then traces=(sequences 'sequences:repeat=0'); fi
args=(-k "$PARTS")
for pages in ${PAGES//,/ }; do args+=(-c "$pages"); done
for prefetcher in $PREFETCHERS; do args+=(-p "$prefetcher"); done

bench_head predictor_sim published "Mithril (SoCC 2017): 14.5 % fewer misses than LRU, average of its block traces"
"$NXM_TMP/bin/predictor_sim" "${args[@]}" "${traces[@]}" | tee "$NXM_TMP/results"

# columns: trace, pages, part, prefetcher, hits, precision
awk '
	function verdict(what, is, target, met) {
		printf "%-8s %6s pages  %-34s %6.2f  %s: %s\n", "OLTP", pages, what, is, target, met ? "met" : "MISSED"
	}
	$1 ~ /^OLTP/ { parts = $3 > parts ? $3 : parts; hits[$2, $4] = $5; precision[$2, $4] = $6
		if (!seen[$2]++) sizes[++n] = $2 }
	END {
		for (i = 1; i <= n; i++) {
			pages = sizes[i]
			l = hits[pages, "learned"]
			if (parts > 1 || !((pages, "learned") in hits) || !((pages, "next") in hits) ||
				!((pages, "leap") in hits) || !((pages, "markov") in hits))
				continue
			if (!printed++)
				print ""
			verdict("learned, hits", l, sprintf(">= next-block + 1 = %.2f", hits[pages, "next"] + 1), l >= hits[pages, "next"] + 1)
			verdict("learned, hits", l, sprintf("> leap = %.2f", hits[pages, "leap"]), l > hits[pages, "leap"])
			verdict("learned, hits", l, sprintf("> markov = %.2f", hits[pages, "markov"]), l > hits[pages, "markov"])
			verdict("learned, precision", precision[pages, "learned"], ">= 70", precision[pages, "learned"] >= 70)
		}
	}' "$NXM_TMP/results"
