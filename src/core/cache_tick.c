/*
 * cache_tick.c
 *	  The cache: making, clearing, dropping, housekeeping.  cache.h has the design.
 *
 * Dropping.  The index is cut off and drained; the cells of open segments are
 * closed, after which no segment can be opened; segments are given back until the
 * chains count none; then the chains are closed and all is retired by the epoch,
 * for who is held up in an operation may have the partition before it still.
 */
#include "cache_internal.h"

/* Units that a step of housekeeping evicts: about 300 items of 100 bytes. */
#define TICK_UNITS			4096
/* Steps of evicting in one call. */
#define EVICT_STEPS			8
/* One in so many bytes may be dead before segments are compacted. */
#define DEAD_SHARE			20

/*
 * An index is replaced that takes more than one in INDEX_SHARE of the bytes that its
 * partition may use, and of which less than one in INDEX_SPARSE is needed.  With I of
 * A bytes it has A - I for items, with another one at least A / (A - I / 2) times as
 * many entries find room: a fifth more, which is worth filling the cache anew.  And
 * it does not come to that by itself: an index that grows with its entries, however
 * small these are, is needed, and so is most of it when their number varies by less
 * than INDEX_SPARSE.
 */
#define INDEX_SHARE			3
#define INDEX_SPARSE		2

static void
free_partition(NxmSpace *space, NxmRef ref)
{
	NxmCachePartition *part = nxm_at(space, ref);

	for (int kind = 0; kind < 2; kind++)
	{
		NxmRef		block = nxm_load_relaxed(&part->chain[kind].head);

		if (block != 0)
			nxm_free(space, block);
	}
	nxm_free(space, ref);
}

/* 0: nxm_no_object() tells why. */
static NxmRef
new_partition(NxmCacheView *view, int number)
{
	NxmSpace   *space = view->space;
	int			node = (view->first_node + number) % (int) space->shared->nnodes;
	NxmCachePartition *part;
	NxmRef		ref;
	uint64_t	body;

	nxm_allocate_from(space, NXM_CACHE_ACCOUNT, node);
	ref = nxm_alloc(space, sizeof(NxmCachePartition) > NXM_MAX_OBJECT ? NXM_PAGE_SIZE :
					sizeof(NxmCachePartition));
	if (ref == 0)
		return 0;
	part = nxm_at(space, ref);
	NXM_WRITES(part, sizeof(NxmCachePartition));
	memset((void *) part, 0, sizeof(NxmCachePartition));
	part->node = node;
	part->number = number;
	nxm_init(&part->next_due, UINT64_MAX);
	nxm_init(&part->share, NXM_CACHE_SMALL_SHARE);
	part->ghost[KIND_SMALL].time_bits = 4;
	part->ghost[KIND_MAIN].time_bits = 2;
	if (nxm_chain_init(space, &part->chain[0]) != NXM_OK ||
		nxm_chain_init(space, &part->chain[1]) != NXM_OK ||
		(body = nxm_map_new_body(space, &part->index, NXM_CACHE_MIN_LOG)) == 0)
	{
		int			need_chunk = space->need_chunk;

		free_partition(space, ref);
		space->need_chunk = need_chunk;
		return 0;
	}
	nxm_init(&part->index.directory, body);
	return ref;
}

NxmResult
nxm_cache_init(NxmCacheView *view, NxmCache *cache, int npartitions,
			   uint64_t max_bytes)
{
	NxmSpace   *space = view->space;
	NxmResult	result = NXM_OK;

	nxm_init(&cache->max_bytes, max_bytes);
	cache->npartitions = (uint64_t) npartitions;
	/* a limit that leaves no room for these is none to work below */
	space->counted = &cache->used;
	space->most = UINT64_MAX;
	for (int i = 0; i < npartitions && result == NXM_OK; i++)
	{
		NxmRef		ref = new_partition(view, i);

		if (ref == 0)
			result = nxm_no_object(space);
		nxm_init(&cache->partition[i], ref);
	}
	nxm_cache_leave_memory(space);
	if (result == NXM_OK)
		nxm_fetch_add_relaxed(&cache->used, (uint64_t) npartitions * PARTITION_BYTES);
	else
		nxm_cache_fini(space, cache);
	return result;
}

void
nxm_cache_fini(NxmSpace *space, NxmCache *cache)
{
	for (int i = 0; i < (int) cache->npartitions; i++)
	{
		NxmRef		ref = nxm_load_relaxed(&cache->partition[i]);

		if (ref != 0)
		{
			NxmCachePartition *part = nxm_at(space, ref);

			nxm_map_free_body(space, &part->index, nxm_load_relaxed(&part->index.directory));
			free_partition(space, ref);
		}
		nxm_init(&cache->partition[i], 0);
	}
	nxm_init(&cache->used, 0);
}

NxmResult
nxm_cache_clear(NxmCacheView *view, NxmCache *cache, NxmCacheCursor *cursor,
				uint64_t *removed)
{
	NxmSpace   *space = view->space;
	NxmResult	result = NXM_OK;

	for (; cursor->partition < cache->npartitions; cursor->partition++)
	{
		NxmCachePartition *part = partition_at(space, cache, (int) cursor->partition,
											   &result);
		uint64_t	there;
		int			steps = 0;

		if (part == NULL)
			return result;
		nxm_cache_use_memory(view, cache, part);
		for (;;)
		{
			/* past the cache's own limit, until all else of it is drained */
			space->most = UINT64_MAX;
			result = nxm_map_clear_to(space, &part->index, NXM_CACHE_MIN_LOG,
									  MARK_CLEARED, &there);
			/* the new body's memory may have to be made room for */
			if (result != NXM_NEED_MEMORY || space->want == NXM_WANT_NOTHING ||
				(space->want == NXM_WANT_CHUNK && !view->cannot_grow) ||
				++steps > EVICT_STEPS ||
				nxm_cache_make_way(view, cache, part, 0, SEGMENT_UNITS, REACH_ALL) != NXM_OK)
				break;
		}
		nxm_cache_leave_memory(space);
		if (result != NXM_OK)
			return result;
		*removed += there;
	}
	return NXM_OK;
}

NxmResult
nxm_cache_drop(NxmCacheView *view, NxmCache *cache)
{
	for (int i = 0; i < (int) cache->npartitions; i++)
	{
		NxmResult	result;
		NxmCachePartition *part = partition_at(view->space, cache, i, &result);

		if (part == NULL && result == NXM_NEED_CHUNK)
			return result;
		/* one that is being cleared is dropped when that is drained */
		if (part != NULL)
			(void) nxm_map_drop(&part->index);
	}
	return NXM_OK;
}

/* Frees a part of a partition.  NXM_ABSENT: it is gone. */
static NxmResult
drain_partition(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	NxmSpace   *space = view->space;
	NxmRef		ref;
	NxmResult	result;

	(void) nxm_map_drop(&part->index);
	result = nxm_cache_drain_index(space, cache, part);
	if (result != NXM_ABSENT)
		return result;
	if ((nxm_load(&part->index.directory) & NXM_REF_MASK) != 0 ||
		nxm_load(&part->index.dead) != 0)
		return NXM_EXISTS;
	result = nxm_cache_seal(space, part, true);
	if (result != NXM_OK)
		return result;
	for (int i = 0; i < EVICT_STEPS; i++)
	{
		result = nxm_cache_give_back(view, cache, part);
		if (result == NXM_ABSENT || result == NXM_EXISTS)
			result = nxm_cache_evict(view, cache, part, TICK_UNITS, REACH_ALL);
		if (result != NXM_OK)
			break;
	}
	if (result != NXM_ABSENT)
		return result;
	/* acquire: pairs with who opened one before the cells were closed */
	if (nxm_load(&part->chain[0].segments) + nxm_load(&part->chain[1].segments) != 0)
		return NXM_EXISTS;
	result = nxm_chain_close(space, &part->chain[0]);
	if (result == NXM_OK)
		result = nxm_chain_close(space, &part->chain[1]);
	if (result != NXM_OK)
		return result;
	result = nxm_ghost_retire(space, cache, part);
	if (result == NXM_OK)
		result = nxm_counts_retire(space, cache, part);
	if (result != NXM_OK)
		return result;
	/* of several who come here one alone retires it */
	ref = nxm_exchange(&cache->partition[part->number], 0);
	if (ref == 0)
		return NXM_ABSENT;
	nxm_chain_retire(space, &part->chain[0]);
	nxm_chain_retire(space, &part->chain[1]);
	nxm_cache_give(cache, PARTITION_BYTES);
	nxm_retire_epoch(space, ref);
	return NXM_ABSENT;
}

NxmResult
nxm_cache_drain(NxmCacheView *view, NxmCache *cache)
{
	NxmResult	all = NXM_ABSENT;

	for (int i = 0; i < (int) cache->npartitions; i++)
	{
		NxmResult	result;
		NxmCachePartition *part = partition_at(view->space, cache, i, &result);

		if (part == NULL && result == NXM_DROPPED)
			continue;
		if (part != NULL)
		{
			nxm_cache_use_memory(view, cache, part);
			result = drain_partition(view, cache, part);
			nxm_cache_leave_memory(view->space);
		}
		if (result == NXM_EXISTS)
			all = NXM_EXISTS;
		else if (result != NXM_ABSENT)
			return result;
	}
	return all;
}

/*
 * Bytes that a partition may take by the limits as they are, index and all.  What waits
 * for the epoch is as good as free: as long as it waits an index that is replaced would
 * do no more than wait, too.
 */
static uint64_t
partition_limit(NxmCacheView *view, NxmCache *cache)
{
	NxmAccount *account = &view->space->shared->account[NXM_CACHE_ACCOUNT];
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);
	uint64_t	used = nxm_load_relaxed(&cache->used);
	uint64_t	waiting = nxm_load_relaxed(&account->limbo) / NXM_PAGE_SIZE;
	uint64_t	pages = nxm_load_relaxed(&account->pages);
	uint64_t	page_limit = nxm_load_relaxed(&account->page_limit);
	uint64_t	most;

	pages -= waiting < pages ? waiting : pages;
	/* past a lowered limit all caches give way in proportion */
	most = pages > page_limit ? used * page_limit / pages :
		used + (page_limit - pages) * NXM_PAGE_SIZE;
	return (max_bytes != 0 && max_bytes < most ? max_bytes : most) / cache->npartitions;
}

static bool
index_is_in_the_way(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	uint64_t	index = nxm_load_relaxed(&part->index.memory);
	uint64_t	entries = nxm_map_entries(&part->index);
	uint64_t	most;
	uint64_t	beside;

	if (index <= NXM_CACHE_SMALL_INDEX ||
		nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP + NXM_CACHE_AHEAD))
		return false;
	most = partition_limit(view, cache);
	if (index <= most / INDEX_SHARE)
		return false;
	beside = index < most ? most - index : 0;
	/* of the size that they have; that is at least a unit, but for counts in flux */
	return entries == 0 ||
		beside / (nxm_map_bytes(&part->index) / entries + 1) * NXM_CACHE_INDEX_BYTES <
		index / INDEX_SPARSE;
}

NxmResult
nxm_cache_shrink_index(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	NxmSpace   *space = view->space;
	NxmAccount *account = &space->shared->account[NXM_CACHE_ACCOUNT];
	uint64_t	most = space->most;
	uint64_t	removed;
	NxmResult	result;

	if (nxm_load(&part->index.dead) != 0 || !index_is_in_the_way(view, cache, part))
		return NXM_ABSENT;
	/*
	 * An index larger than a limit leaves no page below it for another one; nor, where
	 * the limit is just above it, is there anything else to give way.
	 */
	space->past_limit = nxm_load_relaxed(&account->pages) >
		nxm_load_relaxed(&account->page_limit);
	if (nxm_load_relaxed(&cache->used) > most || nxm_cache_is_empty(view, cache))
		space->most = UINT64_MAX;
	result = nxm_map_clear_to(space, &part->index, NXM_CACHE_MIN_LOG, MARK_EVICTED,
							  &removed);
	space->past_limit = false;
	space->most = most;
	/* it is filled like a new one */
	if (result == NXM_OK)
		nxm_store_relaxed(&part->evicted, 0);
	return result == NXM_OK || result == NXM_NEED_CHUNK ? result : NXM_ABSENT;
}

static NxmResult
tick_partition(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	NxmSpace   *space = view->space;
	uint64_t	wanted = nxm_map_pages_wanted(&part->index);
	/* for what sets take ahead of need, or to double the directory of the index */
	uint64_t	beyond = wanted > NXM_CACHE_KEEP + NXM_CACHE_AHEAD ? wanted :
		NXM_CACHE_KEEP + NXM_CACHE_AHEAD;
	uint64_t	used;
	uint64_t	big;
	uint64_t	live;
	NxmResult	result;
	NxmResult	all = NXM_ABSENT;

	if (nxm_load(&part->index.dead) != 0)
	{
		result = nxm_cache_drain_index(space, cache, part);
		if (result != NXM_ABSENT)
			return result == NXM_EXISTS ? NXM_ABSENT : result;
	}
	if (nxm_load_relaxed(&part->waiting) != 0)
	{
		result = nxm_cache_give_back(view, cache, part);
		if (result != NXM_ABSENT && result != NXM_EXISTS)
			return result;
	}
	if (nxm_cache_is_over(view, cache))
		nxm_trim(space);
	result = nxm_cache_shrink_index(view, cache, part);
	if (result != NXM_ABSENT)
		return result;
	if (!nxm_cache_has_room(view, cache, part, beyond))
	{
		/* open segments for what is beyond the limits alone, and not ahead of need */
		if (nxm_cache_is_over(view, cache))
			result = nxm_cache_make_way(view, cache, part, 0, TICK_UNITS, REACH_ALL);
		else
			result = nxm_cache_make_way(view, cache, part, beyond, TICK_UNITS, REACH_SEALED);
		/* what else there is to do does not wait for the directory */
		if (result == NXM_OK &&
			nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP + NXM_CACHE_AHEAD))
			all = result;
		else if (result != NXM_ABSENT)
			return result;
	}
	/* expired, or dead for the most part */
	result = nxm_cache_evict(view, cache, part, TICK_UNITS, REACH_RIPE);
	if (result != NXM_ABSENT)
		return result;

	used = nxm_cache_segment_bytes(part);
	live = nxm_map_bytes(&part->index);
	big = nxm_load_relaxed(&part->big);
	/* a value elsewhere is counted before its item is */
	live -= big < live ? big : live;
	if (used > (uint64_t) NXM_CACHE_SEGMENT * DEAD_SHARE && live < used - used / DEAD_SHARE)
	{
		result = nxm_cache_find_sparse(space, part);
		if (result == NXM_OK)
			result = nxm_cache_evict(view, cache, part, TICK_UNITS, REACH_RIPE);
		if (result != NXM_ABSENT)
			return result;
	}
	for (int kind = 0; kind < 2; kind++)
	{
		NxmChain   *chain = &part->chain[kind];

		/* to the end, once it has begun */
		if (!nxm_chain_is_sparse(chain) && nxm_load_relaxed(&chain->cleaned) == 0)
			continue;
		result = nxm_chain_clean(space, chain, true);
		if (result == NXM_NEED_CHUNK)
			return result;
		if (result == NXM_EXISTS && all == NXM_ABSENT)
			all = result;
	}
	nxm_cache_narrow(view, cache, part);
	nxm_ghost_fit(view, cache, part);
	nxm_counts_fit(view, cache, part);
	return all;
}

NxmResult
nxm_cache_tick(NxmCacheView *view, NxmCache *cache)
{
	NxmResult	all = NXM_ABSENT;

	for (int i = 0; i < (int) cache->npartitions; i++)
	{
		NxmResult	result;
		NxmCachePartition *part = partition_at(view->space, cache, i, &result);

		if (part == NULL && result == NXM_DROPPED)
			continue;
		if (part != NULL)
		{
			nxm_cache_use_memory(view, cache, part);
			result = tick_partition(view, cache, part);
			nxm_cache_leave_memory(view->space);
		}
		if (result == NXM_NEED_CHUNK)
			return result;
		if (result == NXM_OK || (result == NXM_EXISTS && all == NXM_ABSENT))
			all = result;
	}
	return all;
}

bool
nxm_cache_is_empty(NxmCacheView *view, NxmCache *cache)
{
	for (int p = 0; p < (int) cache->npartitions; p++)
	{
		NxmResult	result;
		NxmCachePartition *part = partition_at(view->space, cache, p, &result);

		if (part == NULL ? result != NXM_DROPPED : nxm_cache_segment_bytes(part) != 0)
			return false;
	}
	return true;
}
