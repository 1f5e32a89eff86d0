#!/bin/bash
# check_source.sh: what the model checker takes for granted of the source of core:
# that nothing there is atomic but what it maps to its own operations.
set -u
cd "$(dirname "$0")/../../src/core" || exit 1

# Words of C11 and of compilers that make an access atomic, or order it.
words='\b(_Atomic|atomic_|ATOMIC_|memory_order|__atomic_|__sync_|stdatomic|volatile|asm\b|__asm__)'
status=0

# point NUMBER NAME FOUND: not ok where something was found.
point() {
	if [ -z "$3" ]; then
		echo "ok $1 - check_source: $2"
	else
		status=1
		echo "not ok $1 - check_source: $2"
		printf '%s\n' "$3" | sed 's/^/# /'
	fi
}

found=$(grep -nE "$words" ./*.[ch] | grep -v '^./core_atomic\.h:')
point 1 "core uses no atomic operations but those of core_atomic.h" "$found"
# else the words have grown stale
found=$(grep -qE "$words" core_atomic.h || echo "not found in core_atomic.h: $words")
point 2 "those of core_atomic.h would be found" "$found"
echo "1..2"
exit $status
