/*
 * caches.h
 *	  The caches among the objects of the registry: how this process works on them,
 *	  and what looks after all of them.
 */
#ifndef NXM_CACHES_H
#define NXM_CACHES_H

#include "registry.h"

#include <signal.h>

#include "datatype/timestamp.h"

/*
 * Caches have microseconds since 1970, and SQL and the saved file since 2000: before that
 * a machine without a battery has its clock until it is set, and the time of a cache must
 * be above 0.
 */
#define NXM_CACHE_EPOCH \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* The time of a cache at t; one before 1970 is the first that there is. */
static inline int64
nxm_cache_time(TimestampTz t)
{
	return Max(t + NXM_CACHE_EPOCH, 1);
}

static inline TimestampTz
nxm_cache_timestamp(int64 time)
{
	return time - NXM_CACHE_EPOCH;
}

/*
 * This process's view, as of now.  One for all operations: what an operation set in
 * it holds until it is asked for again.  Raises no error where the process is
 * attached.
 */
extern NxmCacheView *nxm_cache_view(void);

/* Partitions of a cache made in this server. */
extern int	nxm_cache_partitions(void);
/* Fewer bytes than these are no limit that a cache could work below. */
extern uint64 nxm_cache_least_bytes(void);

/*
 * What to do with the result of an operation on a cache: true: it is to be
 * repeated, opened anew if it was NXM_DROPPED.  Raises no error for want of
 * memory; NXM_NEED_MEMORY with false: there is none to be had.  Not in a section.
 */
static inline bool
nxm_cache_again(NxmCacheView *view, NxmResult result)
{
	uint64		most;

	if (likely(result != NXM_NEED_CHUNK && result != NXM_NEED_MEMORY))
		return unlikely(result == NXM_DROPPED);
	if (result == NXM_NEED_MEMORY && view->cannot_grow)
		return false;
	most = view->max_bytes;
	if (!nxm_cache_again_slow(view->space, result))
		view->cannot_grow = true;
	/* caches that were dropped may have been worked on, with no such limit */
	view->max_bytes = most;
	return true;
}

/*
 * An operation asked for memory of the caches: finds some, if it must be in the
 * largest cache.  false: it asked for none, or there is none.  Not in a section.
 */
extern bool nxm_caches_make_way(NxmResult result);

/*
 * A value was not stored for want of room: chooses anew which cache is to give way,
 * unless that was done a moment ago.  true: it is worth trying again.
 */
extern bool nxm_caches_choose_again(void);

/*
 * After a write: a cache that was dropped and is not freed yet cannot give way, so where
 * caches are at their limit this frees a part of it.  Not in a section.
 */
extern void nxm_caches_free_dropped_slow(void);

static inline void
nxm_caches_free_dropped(void)
{
	/* relaxed: it only tells to look */
	if (unlikely(nxm_load_relaxed(&nxm_registry_anchor->buried) != 0))
		nxm_caches_free_dropped_slow();
}

/*
 * For the worker: housekeeping of all caches, of all databases.  Returns how many
 * milliseconds it may wait until the next time; -1: no cache has anything in it.
 */
extern int	nxm_caches_tick(volatile sig_atomic_t *stop);

#endif							/* NXM_CACHES_H */
