/*
 * cache_batch.c
 *	  The cache: many keys at once, and iteration.  cache.h has the design.
 *
 * A get waits for memory three times: for the directory, the bucket, the item.  A
 * batch goes over all keys for each of these, so that the waits overlap; then it
 * gets them one by one, with one hazard, and finds all in the processor's cache.
 * What it looks at before the gets tells it only what to load: it may be outdated.
 */
#include "cache_internal.h"
#include "map_lookup.h"

void
nxm_cache_prefetch(NxmCacheView *view, NxmCache *cache, const NxmKey *keys,
				   int nkeys)
{
	NxmSpace   *space = view->space;
	NxmCachePartition *parts[NXM_CACHE_BATCH];
	NxmBucket  *buckets[NXM_CACHE_BATCH];
	NxmResult	result;

	if (nkeys > NXM_CACHE_BATCH)
		nkeys = NXM_CACHE_BATCH;
	for (int i = 0; i < nkeys; i++)
	{
		parts[i] = partition_at(space, cache, home_of(cache, keys[i].hash), &result);
		if (parts[i] != NULL)
			nxm_map_prefetch_entry(space, &parts[i]->index, position_of(keys[i].hash));
	}
	for (int i = 0; i < nkeys; i++)
		buckets[i] = parts[i] == NULL ? NULL :
			nxm_map_prefetch_bucket(space, &parts[i]->index, position_of(keys[i].hash));
	for (int i = 0; i < nkeys; i++)
		if (buckets[i] != NULL)
			nxm_map_prefetch_item(space, buckets[i], position_of(keys[i].hash));
}

NxmResult
nxm_cache_get_many(NxmCacheView *view, NxmCache *cache, const NxmKey *keys,
				   int nkeys, NxmCacheAnswer *answers, int *done,
				   NxmBuffer *buffer)
{
	if (nkeys > NXM_CACHE_BATCH)
		return NXM_TOO_LONG;
	nxm_cache_prefetch(view, cache, keys + *done, nkeys - *done);
	for (; *done < nkeys; ++*done)
	{
		NxmCacheAnswer *answer = &answers[*done];
		NxmBuffer	rest = {buffer->data + buffer->len, buffer->size - buffer->len, 0, NXM_TEXT};

		answer->result = nxm_cache_get(view, cache, &keys[*done], &rest, NULL);
		answer->type = rest.type;
		answer->len = (uint32_t) rest.len;
		answer->at = buffer->len;
		if (answer->result == NXM_OK)
			buffer->len += rest.len;
		else if (answer->result != NXM_ABSENT)
			return answer->result;
	}
	return NXM_OK;
}

typedef struct Scan
{
	NxmCacheView *view;
	void		(*begin) (void *context);
	NxmResult	(*each) (NxmCacheView *view, const NxmCacheEntry *entry,
						 void *context);
	void	   *context;
	uint64_t	seen;
} Scan;

static void
scan_begin(void *context)
{
	Scan	   *scan = context;

	scan->begin(scan->context);
}

/* An item that is protected, as each() is to see it. */
static NxmResult
scan_slot(NxmSpace *space, NxmAtomic *slot, uint64_t word, void *context)
{
	Scan	   *scan = context;
	NxmRef		ref = word & NXM_REF_MASK;
	const void *item = nxm_at(space, ref);
	uint32_t	header = item_header(item);
	NxmCacheEntry entry = {
		.key = item_key(item, header),
		.key_len = C_KEY_LEN(header),
		.len = C_LEN(header),
		.type = C_TYPE(header),
		.frequency = (int) ((word & FREQ_MASK) >> FREQ_SHIFT),
		.deadline = item_deadline(space, ref, item, header),
		.item = item,
		.slot = slot,
		.word = word
	};

	if (entry.deadline != 0 && entry.deadline <= scan->view->now(scan->view->env))
		return NXM_OK;
	NXM_READS(entry.key, entry.key_len);
	if ((header & C_BIG) != 0)
		entry.len = BIG_LEN(item_big(item, header));
	scan->seen += entry.key_len + entry.len;
	return scan->each(scan->view, &entry, scan->context);
}

NxmResult
nxm_cache_scan(NxmCacheView *view, NxmCache *cache, NxmCacheCursor *cursor,
			   void (*begin) (void *context),
			   NxmResult (*each) (NxmCacheView *view, const NxmCacheEntry *entry,
								  void *context),
			   void *context)
{
	Scan		scan = {view, begin, each, context, 0};
	NxmResult	result;
	NxmCachePartition *part;

	if (cursor->partition >= cache->npartitions)
		return NXM_ABSENT;
	part = partition_at(view->space, cache, (int) cursor->partition, &result);
	if (part == NULL)
		return result;
	result = nxm_map_scan_slots(view->space, &part->index, &cursor->position,
								scan_begin, scan_slot, &scan.seen, &scan);
	if (result != NXM_ABSENT)
		return result;
	cursor->position = 0;
	return ++cursor->partition < cache->npartitions ? NXM_OK : NXM_ABSENT;
}

NxmResult
nxm_cache_entry_value(NxmCacheView *view, const NxmCacheEntry *entry,
					  NxmBuffer *buffer)
{
	NxmResult	result = nxm_cache_copy_value(view->space, entry->item, entry->slot,
											  entry->word, buffer);

	return result == NXM_EXISTS ? NXM_ABSENT : result;
}
