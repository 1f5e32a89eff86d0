/*
 * cache_counts.c
 *	  The cache: what is counted of its operations.  cache.h has the design.
 *
 * Each process counts in a line of its own, so that who reads a key writes to no line
 * that others use.  The lines of the first NXM_CACHE_STRIPES processes are in the
 * partition.  Those of further ones are in blocks of lines.  Who finds that its block is
 * missing asks for it, and shares a line of the partition's until there is one.  Who finds
 * that it is in a chunk that is not mapped has that mapped and begins anew, before it has
 * changed anything; where that is too late, as in eviction, it shares a line, too.  Blocks
 * are made by housekeeping, and by who opens a segment, as long as all of them take at
 * most one in NXM_CACHE_COUNTS_SHARE of the partition's memory: of 1,000 processes 64
 * kB, where a partition has 2 MB, of 100 at most 8 kB, where it has 256 kB.  So
 * processes share lines in partitions that are smaller than that, where memory is short,
 * and from process NXM_CACHE_STRIPES + NXM_CACHE_COUNT_BLOCKS * NXM_CACHE_COUNT_LINES
 * (2,080) on.
 *
 * Where a partition has come to have half of that memory, blocks are retired by the
 * epoch, and what is in them is added to the lines in the partition.  What is counted
 * at that moment by who still has the block before it is lost, and for as long sums are
 * too low.
 *
 * Orders.  Counts are relaxed: nobody concludes anything from them.  A reference of a
 * block is stored with release, after its lines were set to 0, and read with acquire.
 */
#include "cache_internal.h"

/* Blocks may take one in so many bytes. */
#ifndef NXM_CACHE_COUNTS_SHARE
#define NXM_CACHE_COUNTS_SHARE 32
#endif
#define BLOCK_SIZE			(NXM_CACHE_COUNT_LINES * sizeof(NxmCacheCounts))
#define BLOCK_BYTES			((uint64_t) nxm_object_size(BLOCK_SIZE))

static void
add_block(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part, int i)
{
	NxmSpace   *space = view->space;
	NxmCacheCounts *lines;
	NxmRef		ref;
	uint64_t	wanted = COUNTS_WANTED;

	if (!nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP) ||
		!nxm_cache_take(view, cache, BLOCK_BYTES, NXM_CACHE_KEEP))
		return;
	ref = nxm_alloc(space, BLOCK_SIZE);
	if (ref == 0)
	{
		nxm_cache_give(cache, BLOCK_BYTES);
		return;
	}
	lines = nxm_at(space, ref);
	for (int line = 0; line < NXM_CACHE_COUNT_LINES; line++)
		for (int c = 0; c < NXM_CACHE_LINE_COUNTERS; c++)
			nxm_init(&lines[line].counter[c], 0);
	/* release: publishes the lines.  Fails if somebody else was first, or it is closed */
	if (!nxm_cas(&part->counts[i], &wanted, ref))
	{
		nxm_free(space, ref);
		nxm_cache_give(cache, BLOCK_BYTES);
	}
}

static void
remove_block(NxmSpace *space, NxmCache *cache, NxmCachePartition *part, int i, NxmRef ref)
{
	NxmCacheCounts *lines = nxm_at(space, ref);
	NxmCacheCounts *to = &part->stripe[space->proc % NXM_CACHE_STRIPES];

	/* later, where it could not be kept until nobody counts there any more */
	if (lines == NULL || !nxm_can_retire(space, 1) || !nxm_cas(&part->counts[i], &ref, 0))
		return;
	for (int line = 0; line < NXM_CACHE_COUNT_LINES; line++)
		for (int c = 0; c < NXM_CACHE_NCOUNTERS; c++)
			nxm_fetch_add_relaxed(&to->counter[c],
								  nxm_load_relaxed(&lines[line].counter[c]));
	nxm_cache_give(cache, BLOCK_BYTES);
	nxm_retire_epoch(space, ref);
}

void
nxm_counts_set(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
			   uint64_t make, uint64_t keep)
{
	uint64_t	there = nxm_counts_bytes(part) / BLOCK_BYTES;

	for (int i = 0; i < NXM_CACHE_COUNT_BLOCKS; i++)
	{
		NxmRef		ref = nxm_load(&part->counts[i]);

		if (ref == COUNTS_WANTED && there < make)
		{
			add_block(view, cache, part, i);
			there++;
		}
		else if (ref > COUNTS_WANTED && there > keep)
		{
			remove_block(view->space, cache, part, i, ref);
			there--;
		}
	}
}

void
nxm_counts_fit(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	uint64_t	bytes = nxm_cache_segment_bytes(part) +
		nxm_load_relaxed(&part->index.memory) + nxm_load_relaxed(&part->big);
	uint64_t	allowed = bytes / NXM_CACHE_COUNTS_SHARE / BLOCK_BYTES;

	nxm_counts_set(view, cache, part, allowed, 2 * allowed);
}

NxmResult
nxm_counts_retire(NxmSpace *space, NxmCache *cache, NxmCachePartition *part)
{
	for (int i = 0; i < NXM_CACHE_COUNT_BLOCKS; i++)
	{
		NxmRef		ref = nxm_load(&part->counts[i]);

		do
		{
			if (ref > COUNTS_WANTED &&
				(nxm_at(space, ref) == NULL || !nxm_can_retire(space, 1)))
				return NXM_NEED_CHUNK;
		} while (!nxm_cas(&part->counts[i], &ref, COUNTS_CLOSED));
		if (ref <= COUNTS_WANTED)
			continue;
		nxm_cache_give(cache, BLOCK_BYTES);
		nxm_retire_epoch(space, ref);
	}
	return NXM_OK;
}

uint64_t
nxm_counts_bytes(NxmCachePartition *part)
{
	uint64_t	bytes = 0;

	for (int i = 0; i < NXM_CACHE_COUNT_BLOCKS; i++)
		bytes += nxm_load_relaxed(&part->counts[i]) > COUNTS_WANTED ? BLOCK_BYTES : 0;
	return bytes;
}

static void
add_up(NxmCacheStats *stats, NxmCacheCounts *lines, int nlines)
{
	for (int i = 0; i < nlines; i++)
	{
#define X(name, text) \
		stats->name += nxm_load_relaxed(&lines[i].counter[NXM_CACHE_COUNTER_##name]);
		NXM_CACHE_COUNTERS(X)
#undef X
	}
}

bool
nxm_cache_stats(NxmCacheView *view, NxmCache *cache, int partition,
				NxmCacheStats *stats)
{
	NxmSpace   *space = view->space;
	NxmResult	result;
	NxmCachePartition *part = partition_at(space, cache, partition, &result);

	memset(stats, 0, sizeof(*stats));
	if (part == NULL)
		return false;
	add_up(stats, part->stripe, NXM_CACHE_STRIPES);
	for (int i = 0; i < NXM_CACHE_COUNT_BLOCKS; i++)
	{
		NxmRef		ref = nxm_load(&part->counts[i]);
		NxmCacheCounts *lines;

		if (ref <= COUNTS_WANTED)
			continue;
		lines = nxm_at(space, ref);
		if (lines == NULL)
			return false;
		add_up(stats, lines, NXM_CACHE_COUNT_LINES);
	}
	stats->entries = nxm_map_entries(&part->index);
	stats->bytes = nxm_map_bytes(&part->index);
	stats->used_bytes = nxm_cache_segment_bytes(part) + nxm_ghost_bytes(part) +
		nxm_counts_bytes(part) + nxm_load_relaxed(&part->index.memory) +
		PARTITION_BYTES + nxm_load_relaxed(&part->big);
	stats->node = part->node;
	return true;
}

static void
set_to_zero(NxmCacheCounts *lines, int nlines)
{
	for (int i = 0; i < nlines; i++)
		for (int c = 0; c < NXM_CACHE_NCOUNTERS; c++)
			nxm_store_relaxed(&lines[i].counter[c], 0);
}

void
nxm_cache_stats_reset(NxmCacheView *view, NxmCache *cache)
{
	NxmSpace   *space = view->space;

	for (int p = 0; p < (int) cache->npartitions; p++)
	{
		NxmResult	result;
		NxmCachePartition *part = partition_at(space, cache, p, &result);

		if (part == NULL)
			continue;
		set_to_zero(part->stripe, NXM_CACHE_STRIPES);
		for (int i = 0; i < NXM_CACHE_COUNT_BLOCKS; i++)
		{
			NxmRef		ref = nxm_load(&part->counts[i]);
			NxmCacheCounts *lines = ref > COUNTS_WANTED ? nxm_at(space, ref) : NULL;

			if (lines != NULL)
				set_to_zero(lines, NXM_CACHE_COUNT_LINES);
		}
	}
}
