/*
 * core_atomic.h
 *	  The atomic operations that src/core is written in.
 *
 * Everything shared in core that changes is a 64-bit word of type NxmAtomic, touched
 * by these macros alone, or plain bytes, each access after a mark, NXM_READS() or
 * NXM_WRITES().  What is immutable once it is published is read without.  In the
 * extension they are C11's operations and the marks are nothing.
 * A program compiled with NXM_CHECKED takes them from "check_atomic.h", where
 * test/unit/check.c runs processes as fibers over a model of C11's memory: each
 * word keeps its history of stores, an acquire load may return any of them that
 * happens-before allows, and a plain access that is not ordered with a
 * conflicting one is a race.
 *
 * nxm_load() acquires and nxm_store() releases; what is named relaxed orders nothing.
 * All other read-modify-write operations acquire and release.  nxm_cas() is strong: it fails only when the word differs, and then
 * stores what it saw, with acquire, in *expected.
 */
#ifndef NXM_CORE_ATOMIC_H
#define NXM_CORE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define NXM_CACHE_LINE 64

#ifdef NXM_CHECKED
#include "check_atomic.h"
#else

#include <stdatomic.h>

typedef _Atomic uint64_t NxmAtomic;

/* Before anybody else can see the word. */
#define nxm_init(p, v)			atomic_store_explicit(p, v, memory_order_relaxed)

#define nxm_load_relaxed(p)		atomic_load_explicit(p, memory_order_relaxed)
#define nxm_load(p)				atomic_load_explicit(p, memory_order_acquire)
#define nxm_store_relaxed(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#define nxm_store(p, v)			atomic_store_explicit(p, v, memory_order_release)
#define nxm_cas(p, expected, v) \
	atomic_compare_exchange_strong_explicit(p, expected, v, \
		memory_order_acq_rel, memory_order_acquire)
#define nxm_exchange(p, v)		atomic_exchange_explicit(p, v, memory_order_acq_rel)
#define nxm_fetch_add(p, v)		atomic_fetch_add_explicit(p, v, memory_order_acq_rel)
#define nxm_fetch_add_relaxed(p, v) \
	atomic_fetch_add_explicit(p, v, memory_order_relaxed)
#define nxm_fetch_or(p, v)		atomic_fetch_or_explicit(p, v, memory_order_acq_rel)
#define nxm_fetch_and(p, v)		atomic_fetch_and_explicit(p, v, memory_order_acq_rel)
/* Orders all before it against all after it, stores against loads too. */
#define nxm_fence()				atomic_thread_fence(memory_order_seq_cst)

/* n plain bytes at p are about to be read, or written. */
#define NXM_READS(p, n)			((void) 0)
#define NXM_WRITES(p, n)		((void) 0)
/* The object of n bytes at p is free memory from now on; or ours again. */
#ifdef NXM_ASAN
#include <sanitizer/asan_interface.h>
#define NXM_POISON(p, n)		__asan_poison_memory_region(p, n)
#define NXM_UNPOISON(p, n)		__asan_unpoison_memory_region(p, n)
#else
#define NXM_POISON(p, n)		((void) 0)
#define NXM_UNPOISON(p, n)		((void) 0)
#endif

#endif							/* NXM_CHECKED */

/* Copies plain shared bytes to private memory, and back. */
static inline void
nxm_copy_out(void *to, const void *from, size_t n)
{
	NXM_READS(from, n);
	memcpy(to, from, n);
}

static inline void
nxm_copy_in(void *to, const void *from, size_t n)
{
	NXM_WRITES(to, n);
	memcpy(to, from, n);
}

static inline uint64_t
nxm_eight_bytes(const char *p)
{
	uint64_t	eight;

	memcpy(&eight, p, sizeof(eight));
	return eight;
}

static inline uint32_t
nxm_four_bytes(const char *p)
{
	uint32_t	four;

	memcpy(&four, p, sizeof(four));
	return four;
}

/* nxm_copy_in() for what most often is short. */
static inline void
nxm_copy_in_short(char *to, const char *from, size_t n)
{
	uint64_t	first;
	uint64_t	last;

	if (n < 8 || n > 16)
	{
		nxm_copy_in(to, from, n);
		return;
	}
	NXM_WRITES(to, n);
	first = nxm_eight_bytes(from);
	last = nxm_eight_bytes(from + n - 8);
	memcpy(to, &first, 8);
	memcpy(to + n - 8, &last, 8);
}

/*
 * memcmp() == 0, for what most often is short: without a call, for which a caller
 * would have to save registers.
 */
static inline bool
nxm_bytes_equal(const char *a, const char *b, size_t n)
{
	if (n >= 8)
	{
		/* the first and the last ones, which may overlap, and what is between them */
		uint64_t	differs = (nxm_eight_bytes(a) ^ nxm_eight_bytes(b)) |
			(nxm_eight_bytes(a + n - 8) ^ nxm_eight_bytes(b + n - 8));

		for (size_t i = 8; __builtin_expect(i + 8 < n, 0); i += 8)
			differs |= nxm_eight_bytes(a + i) ^ nxm_eight_bytes(b + i);
		return differs == 0;
	}
	if (n >= 4)
		return nxm_four_bytes(a) == nxm_four_bytes(b) &&
			nxm_four_bytes(a + n - 4) == nxm_four_bytes(b + n - 4);
	return n == 0 ||
		(a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
}

/* Plain shared words, with their marks. */
#define NXM_GET(lvalue)			(NXM_READS(&(lvalue), sizeof(lvalue)), (lvalue))
#define NXM_SET(lvalue, v)		(NXM_WRITES(&(lvalue), sizeof(lvalue)), (lvalue) = (v))

#endif							/* NXM_CORE_ATOMIC_H */
