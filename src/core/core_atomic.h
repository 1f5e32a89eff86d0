/*
 * core_atomic.h
 *	  The atomic operations that src/core is written in.
 *
 * Everything shared in core is a 64-bit word of type NxmAtomic, touched by these
 * macros alone, or plain bytes, touched between NXM_READS() and NXM_WRITES()
 * marks.  In the extension they are C11's operations and the marks are nothing.
 * A program compiled with NXM_CHECKED takes them from "check_atomic.h", where
 * test/unit/check.c runs processes as fibers over a model of C11's memory: each
 * word keeps its history of stores, an acquire load may return any of them that
 * happens-before allows, and a plain access that is not ordered with a
 * conflicting one is a race.
 *
 * Names carry the order.  Read-modify-write operations are acquire and release
 * at once.  nxm_cas() is strong: it fails only when the word differs, and then
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

/* Plain shared words, with their marks. */
#define NXM_GET(lvalue)			(NXM_READS(&(lvalue), sizeof(lvalue)), (lvalue))
#define NXM_SET(lvalue, v)		(NXM_WRITES(&(lvalue), sizeof(lvalue)), (lvalue) = (v))

#endif							/* NXM_CORE_ATOMIC_H */
