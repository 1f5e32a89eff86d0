/*
 * sql_cache.h
 *	  What the SQL functions of caches share.
 *
 * A cache comes into being with the first write; one that does not exist is like one
 * that is empty.
 *
 * Times to live.  An interval is so many microseconds, a month of it 30 days.
 * Nothing more than zero: expired at once.  Infinite, or a thousand years or more: it
 * does not expire.  NULL: the default of the cache, without which it does not expire
 * either.
 */
#ifndef NXM_SQL_CACHE_H
#define NXM_SQL_CACHE_H

#include "caches.h"
#include "sql_structures.h"

/* Microseconds of an interval; 0: it does not expire; below 0: expired at once. */
extern int64 nxm_ttl_of(const Interval *interval);

/*
 * Opens the cache of this name, for the current role and in this database, as
 * nxm_object_open().  create: with the first write.  NULL: there is none, nor room for it.
 */
static inline NxmSite *
nxm_cache_open(FunctionCallInfo fcinfo, NxmBytes name, NxmPrivilege privilege,
			   bool create)
{
	return nxm_open(fcinfo, NXM_KIND_CACHE, name, privilege, create);
}

/*
 * The text of a key, in the current memory context, NULL: it is not there.  A value of
 * another type raises datatype_mismatch.
 */
extern text *nxm_cache_read(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key);

/*
 * Is the key there?  That is not counted as a hit or miss, and makes no cache.  Then
 * *deadline is when it expires, in the time of caches, 0: never; deadline may be NULL.
 */
extern bool nxm_cache_look(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key,
						   NxmPrivilege privilege, int64_t *deadline);

typedef enum NxmStored
{
	NXM_STORED,
	NXM_NOT_STORED,				/* for want of room; the key is absent */
	NXM_THERE					/* if_absent: and it was not */
} NxmStored;

/*
 * Stores a value, in a cache that is made if need be.  ttl NULL: the cache's
 * default.  if_absent: only if the key is.  note: so that nobody stores a value after
 * it whose computing has begun before.  Raises no error for want of memory.
 */
extern NxmStored nxm_cache_store(FunctionCallInfo fcinfo, NxmBytes name,
								 const NxmKey *key, const NxmValue *value,
								 const Interval *ttl, bool if_absent, bool note);

/*
 * Deletes a key; note: so that nobody stores a value that is being computed of it.
 * false: it was not there.
 */
extern bool nxm_cache_remove(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key,
							 bool note);

/*
 * The view for writing about so many bytes to the cache of *site: with what role_limit
 * leaves to it.  May raise configuration_limit_exceeded.
 */
static inline NxmCacheView *
nxm_cache_writing(const NxmSite *site, size_t bytes)
{
	NxmCacheView *view;
	uint64		most = 0;

	if (unlikely(nxm_role_limit >= 0))
		most = nxm_role_limit_of_object(site->owner, site->id, bytes);
	view = nxm_cache_view();
	view->max_bytes = most;
	return view;
}

#endif							/* NXM_SQL_CACHE_H */
