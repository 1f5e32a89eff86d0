/*
 * check_atomic.h
 *	  The operations of core/core_atomic.h in programs compiled with
 *	  NXM_CHECKED: calls of the memory model in check_memory.c.
 *
 * The word holds the newest value, so that memory that was only cleared, or
 * copied, is a valid start; the stores before it are kept beside, by address.
 * It is a struct, so that an access past the macros does not compile.
 */
#ifndef NXM_CHECK_ATOMIC_H
#define NXM_CHECK_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct NxmAtomic
{
	uint64_t	word;
} NxmAtomic;

_Static_assert(sizeof(NxmAtomic) == 8, "a word of shared memory");

typedef enum CheckOrder
{
	CHECK_RELAXED,
	CHECK_ACQUIRE,
	CHECK_RELEASE,
	CHECK_ACQ_REL
} CheckOrder;

typedef enum CheckRmw
{
	CHECK_EXCHANGE,
	CHECK_ADD,
	CHECK_OR,
	CHECK_AND
} CheckRmw;

/* For the trace. */
#define CHECK_HERE __func__, __LINE__

extern uint64_t check_load(const NxmAtomic *p, CheckOrder order,
						   const char *func, int line);
extern void check_store(NxmAtomic *p, uint64_t value, CheckOrder order,
						const char *func, int line);
extern bool check_cas(NxmAtomic *p, uint64_t *expected, uint64_t value,
					  CheckOrder order, const char *func, int line);
extern uint64_t check_rmw(NxmAtomic *p, CheckRmw op, uint64_t value,
						  CheckOrder order, const char *func, int line);
extern void check_fence(const char *func, int line);
extern void check_word_init(NxmAtomic *p, uint64_t value,
							const char *func, int line);
extern void check_plain(const void *p, size_t n, bool write,
						const char *func, int line);
extern void check_poison(const void *p, size_t n, const char *func, int line);
extern void check_unpoison(void *p, size_t n, const char *func, int line);

/* Nothing but a place where another process may go on. */
extern void check_pause(const char *func);

/* A page without objects loses its memory.  For the environment, not for core. */
extern void check_withdraw(void *p, size_t n, const char *func, int line);

#define nxm_init(p, v)			check_word_init(p, v, CHECK_HERE)
#define nxm_load_relaxed(p)		check_load(p, CHECK_RELAXED, CHECK_HERE)
#define nxm_load(p)				check_load(p, CHECK_ACQUIRE, CHECK_HERE)
#define nxm_store_relaxed(p, v) check_store(p, v, CHECK_RELAXED, CHECK_HERE)
#define nxm_store(p, v)			check_store(p, v, CHECK_RELEASE, CHECK_HERE)
#define nxm_cas(p, expected, v) \
	check_cas(p, expected, v, CHECK_ACQ_REL, CHECK_HERE)
#define nxm_exchange(p, v) \
	check_rmw(p, CHECK_EXCHANGE, v, CHECK_ACQ_REL, CHECK_HERE)
#define nxm_fetch_add(p, v) \
	check_rmw(p, CHECK_ADD, v, CHECK_ACQ_REL, CHECK_HERE)
#define nxm_fetch_add_relaxed(p, v) \
	check_rmw(p, CHECK_ADD, v, CHECK_RELAXED, CHECK_HERE)
#define nxm_fetch_or(p, v) \
	check_rmw(p, CHECK_OR, v, CHECK_ACQ_REL, CHECK_HERE)
#define nxm_fetch_and(p, v) \
	check_rmw(p, CHECK_AND, v, CHECK_ACQ_REL, CHECK_HERE)
#define nxm_fence()				check_fence(CHECK_HERE)

#define NXM_READS(p, n)			check_plain(p, n, false, CHECK_HERE)
#define NXM_WRITES(p, n)		check_plain(p, n, true, CHECK_HERE)
#define NXM_POISON(p, n)		check_poison(p, n, CHECK_HERE)
#define NXM_UNPOISON(p, n)		check_unpoison(p, n, CHECK_HERE)

#endif							/* NXM_CHECK_ATOMIC_H */
