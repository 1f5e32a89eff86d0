/*
 * caches.c
 *	  The caches among the objects of the registry.
 *
 * One account of the space bounds all of them, so one that grows may have to take
 * memory from another: the largest, whose reference is in anchor->largest.  The
 * worker chooses it at each of its passes, and between these whoever finds nothing to
 * take there.
 * The word is changed under the registry lock alone, and reset when that cache is
 * dropped, so a section that finds a cache there may use it to its end.
 *
 * The worker keeps a list of the caches, so that it does not go through all objects
 * several times a second.  Making a cache raises anchor->caches_made, which voids
 * the list; a dropped one is found to be so.
 *
 * Limits: the deadlines are of the system's clock; setting that moves them.
 */
#include "caches.h"

#include "arena_chunks.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Steps of housekeeping for one cache in a pass, of less than a millisecond each. */
#define STEPS			256
/* Between two passes, ms: with work left, with caches in use. */
#define WAIT_BUSY		5
#define WAIT_USED		(NXM_CACHE_PERIOD / 1000)

/* Pages below the limit with which caches give way to each other; a value has 17. */
#define NEAR_LIMIT		32

/* A session chooses the largest cache again after so many ms. */
#define CHOOSE_MS		1000

/* Steps that making way takes before it looks anew. */
#define WAY_STEPS		32

/* Steps of freeing dropped caches after a write; and after so many ms when that fails. */
#define DROPPED_STEPS	4
#define DROPPED_MS		10

typedef struct KnownCache
{
	NxmObjectInfo info;
	uint64		used;			/* when it was looked at last; 0: it is empty */
} KnownCache;

typedef struct CacheList
{
	KnownCache *cache;
	int			count;
	int			size;
} CacheList;

static NxmCacheView the_view;

static uint64_t
hash_key(const char *key, size_t len)
{
	return nxm_hash(key, len);
}

static int64_t
now(void *env)
{
	(void) env;
	return nxm_cache_time(GetCurrentTimestamp());
}

NxmCacheView *
nxm_cache_view(void)
{
	NxmSpace   *space = nxm_space();	/* a new home, a new limit */

	if (unlikely(the_view.space == NULL))
	{
		/* what stays as it is for the life of the process */
		the_view.hash = hash_key;
		the_view.now = now;
		the_view.first_node = Max(nxm_space_unbound_node(), 0);
		the_view.largest = &nxm_anchor()->largest;
		the_view.space = space;
	}
	the_view.home = nxm_enable_numa_caching ? nxm_memory_node() : 0;
	the_view.cannot_grow = false;
	the_view.max_bytes = 0;
	return &the_view;
}

int
nxm_cache_partitions(void)
{
	return nxm_enable_numa_caching ? nxm_space_node_count() : 1;
}

uint64
nxm_cache_least_bytes(void)
{
	/* an open segment of each chain, and what the engine keeps for copies */
	return (uint64) (2 + 2 * nxm_cache_partitions()) * NXM_PAGE_SIZE;
}

/* The larger of two caches. */
typedef struct Largest
{
	bool		any;
	uint64		used;			/* 0: it is empty, whatever its index takes */
	uint64		bytes;			/* what it takes, index and all, empty or not */
	NxmObjectInfo info;
} Largest;

/* In a section.  0: it has nothing that could give way. */
static uint64
used_of(NxmCacheView *view, NxmCache *cache)
{
	return nxm_cache_is_empty(view, cache) ? 0 : nxm_load_relaxed(&cache->used);
}

static void
compare(const NxmObjectInfo *info, void *context)
{
	Largest    *largest = context;
	NxmCacheView *view;
	uint64		used = 0;
	uint64		bytes = 0;
	NxmResult	result;

	if (info->kind != NXM_KIND_CACHE)
		return;
	view = nxm_cache_view();
	do
	{
		NxmObject  *object;

		nxm_begin_operation();
		nxm_enter(view->space);
		result = nxm_object_find(info, &object);
		if (result == NXM_OK)
		{
			used = used_of(view, &object->u.c.cache);
			bytes = nxm_load_relaxed(&object->u.c.cache.used);
		}
		nxm_leave(view->space);
		nxm_end_operation();
	} while (nxm_again(view->space, result));
	/* of empty ones that whose index takes most */
	if (result != NXM_OK ||
		(largest->any && (used < largest->used ||
						  (used == largest->used && bytes <= largest->bytes))))
		return;
	largest->any = true;
	largest->used = used;
	largest->bytes = bytes;
	largest->info = *info;
}

/* Housekeeping of the largest cache.  true: something was freed. */
static bool
take_from_largest(void)
{
	NxmCacheView *view = nxm_cache_view();
	NxmResult	result;
	bool		freed = false;

	for (int i = 0; i < WAY_STEPS; i++)
	{
		nxm_begin_operation();
		nxm_enter(view->space);
		{
			NxmRef		ref = nxm_load(view->largest);
			NxmCache   *cache = ref == 0 ? NULL : nxm_at(view->space, ref);

			if (ref == 0)
				result = NXM_ABSENT;
			else
				result = cache == NULL ? NXM_NEED_CHUNK : nxm_cache_tick(view, cache);
		}
		nxm_leave(view->space);
		nxm_end_operation();
		CHECK_FOR_INTERRUPTS();
		if (result == NXM_NEED_CHUNK)
			(void) nxm_again(view->space, result);
		else if (result == NXM_OK)
			freed = true;
		else if (result != NXM_EXISTS)
			break;
	}
	return freed;
}

/* false: there are no caches. */
static bool
choose_largest(void)
{
	Largest    *largest = palloc(sizeof(Largest));
	bool		any;

	largest->any = false;
	/* of those that it saw, should it give up */
	(void) nxm_registry_scan(compare, largest);
	any = largest->any;
	if (any)
		nxm_registry_set_largest(&largest->info);
	pfree(largest);
	return any;
}

/* Are all caches together at their limit? */
static bool
near_limit(void)
{
	NxmAccount *account = &nxm_registry_space->shared->account[NXM_CACHE_ACCOUNT];

	return nxm_load_relaxed(&account->pages) + NEAR_LIMIT >=
		nxm_load_relaxed(&account->page_limit);
}

/* Frees some of what was dropped, if that did not fail a moment ago.  Was any? */
static bool
free_dropped(int steps)
{
	static int64 failed = 0;	/* when nothing could be freed */
	int64		time = nxm_steady_ms();
	bool		any = false;

	if (time - failed < DROPPED_MS)
		return false;
	for (int i = 0; i < steps; i++)
	{
		if (!nxm_arena_drain(nxm_registry_space, false))
		{
			failed = time;
			break;
		}
		any = true;
	}
	return any;
}

bool
nxm_caches_choose_again(void)
{
	static TimestampTz last = 0;
	TimestampTz time = GetCurrentTimestamp();
	bool		dropped;

	/* it was the cache's own limit */
	if (!near_limit())
		return false;
	dropped = free_dropped(1);
	/* the largest one was dropped, and the worker has not come by since, or is not */
	if (nxm_load_relaxed(&nxm_registry_anchor->largest) != 0 &&
		!nxm_is_over(last, time, CHOOSE_MS))
		return dropped;
	last = time;
	return choose_largest() || dropped;
}

void
nxm_caches_free_dropped_slow(void)
{
	if (near_limit())
		(void) free_dropped(DROPPED_STEPS);
}

bool
nxm_caches_make_way(NxmResult result)
{
	NxmSpace   *space = nxm_registry_space;
	NxmWant		want = space->want;

	if (result != NXM_NEED_MEMORY || want == NXM_WANT_NOTHING ||
		space->need_account != NXM_CACHE_ACCOUNT)
		return false;
	nxm_arena_check_interrupts();
	if (want == NXM_WANT_CHUNK && nxm_cache_again_slow(space, result))
		return true;
	if (nxm_arena_drain(space, false))
		return true;
	if (!take_from_largest())
	{
		if (!choose_largest() || !take_from_largest())
		{
			space->want = want;
			return false;
		}
	}
	return true;
}

/* For nxm_registry_scan(). */
static void
collect(const NxmObjectInfo *info, void *context)
{
	CacheList  *list = context;

	if (info->kind != NXM_KIND_CACHE)
		return;
	if (list->count == list->size)
	{
		list->size = list->size == 0 ? 8 : list->size * 2;
		list->cache = list->cache == NULL ?
			MemoryContextAlloc(TopMemoryContext, list->size * sizeof(KnownCache)) :
			repalloc_huge(list->cache, list->size * sizeof(KnownCache));
	}
	list->cache[list->count].info = *info;
	list->cache[list->count++].used = 0;
}

/* As nxm_cache_tick(), or NXM_DROPPED: it is not there any more. */
static NxmResult
tick_one(KnownCache *known, volatile sig_atomic_t *stop)
{
	NxmObjectInfo *info = &known->info;
	NxmCacheView *view = nxm_cache_view();
	NxmResult	result = NXM_OK;

	for (int i = 0; i < STEPS && (result == NXM_OK || result == NXM_EXISTS) && !*stop; i++)
	{
		do
		{
			nxm_begin_operation();
			nxm_enter(view->space);
			{
				/* before the name: see registry.c */
				uint64		generation = nxm_load(&nxm_registry_anchor->generation);
				NxmObject  *object;

				result = nxm_object_find(info, &object);
				if (result == NXM_OK)
				{
					info->object = object;
					info->generation = generation;
					result = nxm_cache_tick(view, &object->u.c.cache);
					known->used = used_of(view, &object->u.c.cache);
				}
			}
			nxm_leave(view->space);
			nxm_end_operation();
			CHECK_FOR_INTERRUPTS();
		} while (result == NXM_NEED_CHUNK && nxm_again(view->space, result));
	}
	return result;
}

/*
 * Is a cache that is there the one that gives way?  The word says so, and not what this
 * process last stored there, for sessions choose as well.
 */
static bool
is_chosen(const NxmObjectInfo *info)
{
	NxmRef		ref = nxm_load_relaxed(&nxm_registry_anchor->largest);

	return ref != 0 &&
		nxm_at(nxm_registry_space, ref) == (void *) &info->object->u.c.cache;
}

int
nxm_caches_tick(volatile sig_atomic_t *stop)
{
	static CacheList list;
	static uint64 seen = 0;		/* caches_made, of the list */
	NxmAnchor  *anchor = nxm_anchor_if_any();
	uint64		made;
	const KnownCache *largest = NULL;
	int			wait = -1;

	if (anchor == NULL)
		return -1;
	made = nxm_load(&anchor->caches_made);
	if (made != seen)
	{
		list.count = 0;
		nxm_registry_scan(collect, &list);
		seen = made;
	}
	for (int i = 0; i < list.count && !*stop; i++)
	{
		KnownCache *known = &list.cache[i];
		NxmResult	result = tick_one(known, stop);

		if (result == NXM_DROPPED)
		{
			*known = list.cache[--list.count];
			i--;
			continue;
		}
		if (result == NXM_OK)
			wait = WAIT_BUSY;
		else if (known->used > 0 && wait < 0)
			wait = WAIT_USED;
		if (largest == NULL || known->used > largest->used)
			largest = known;
	}
	if (largest != NULL && !is_chosen(&largest->info))
		nxm_registry_set_largest(&largest->info);
	return wait;
}
