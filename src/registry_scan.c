/*
 * registry_scan.c
 *	  Going through all objects, and what is in them.
 *
 * A scan copies what is known of the objects of one bucket of anchor->names at a time: again
 * where a name was made there meanwhile, so that each object that is there throughout is seen
 * once.  That must be so short that others, however fast they make and drop names, leave time
 * for it.  So what is in an object is summed afterwards, for who wants it, in a section of its
 * own for each object.
 *
 * Limits: where interrupts are held nobody could cancel a scan, and it gives up after
 * MOST_HELD_ROUNDS in vain.
 */
#include "registry.h"

#include "caches.h"
#include "core/pause.h"
#include "miscadmin.h"
#include "registry_internal.h"

/* Of NXM_SCAN_TRIES each, of some microseconds, for one bucket. */
#define MOST_HELD_ROUNDS 256

/* Entries and bytes of a cache. */
static NxmResult
add_cache_sums(NxmObject *object, NxmObjectSums *sums)
{
	NxmCacheView *view = nxm_cache_view();
	NxmCache   *cache = &object->u.c.cache;

	NXM_PAUSE("sums");
	sums->entries = 0;
	sums->cache_used = nxm_load_relaxed(&cache->used);
	nxm_registry_space->need_chunk = -1;
	for (int i = 0; i < (int) cache->npartitions; i++)
	{
		NxmCacheStats stats;

		if (nxm_cache_stats(view, cache, i, &stats))
		{
			sums->entries += stats.entries;
			sums->bytes += stats.used_bytes;
		}
		else if (nxm_registry_space->need_chunk >= 0)
			return NXM_NEED_CHUNK;
	}
	return NXM_OK;
}

/* In a section. */
static NxmResult
take_sums(NxmObject *object, NxmObjectSums *sums)
{
	sums->entries = 1;
	sums->bytes = nxm_object_size(sizeof(NxmObject));
	sums->cache_used = 0;
	switch ((NxmKind) object->kind)
	{
		case NXM_KIND_COUNTER:
			sums->bytes += object->u.counter.nstripes * sizeof(NxmStripe);
			break;
		case NXM_KIND_MAP:
			sums->entries = nxm_map_entries(&object->u.map);
			sums->bytes += nxm_map_bytes(&object->u.map) +
				nxm_map_index_bytes(&object->u.map);
			break;
		case NXM_KIND_STACK:
			sums->entries = nxm_stack_depth(&object->u.stack);
			sums->bytes += nxm_load_relaxed(&object->u.stack.bytes);
			break;
		case NXM_KIND_QUEUE:
			sums->entries = nxm_queue_length(&object->u.queue);
			sums->bytes += nxm_load_relaxed(&object->u.queue.bytes);
			break;
		case NXM_KIND_CACHE:
			return add_cache_sums(object, sums);
	}
	return NXM_OK;
}

bool
nxm_object_sums(const NxmObjectInfo *info, NxmObjectSums *sums)
{
	NxmResult	result;

	NXM_IN_SECTION(
	{
		NxmObject  *object;

		result = nxm_object_find(info, &object);
		if (result == NXM_OK)
			result = take_sums(object, sums);
	});
	return result == NXM_OK;
}

/* What a scan copies of one bucket. */
typedef struct Batch
{
	uint64		generation;
	size_t		count;
	size_t		size;
	NxmObjectInfo *info;
} Batch;

static void
batch_begin(void *context)
{
	((Batch *) context)->count = 0;
}

static NxmResult
batch_add(NxmSpace *space, NxmRef item_ref, const NxmItem *item, void *context)
{
	Batch	   *batch = context;
	NxmRef		ref;
	NxmBuffer	buffer = {(char *) &ref, sizeof(ref), 0, NXM_INTERNAL};
	NxmObject  *object;
	NxmResult	result;

	(void) item_ref;
	if (batch->count == batch->size)
		return NXM_NEED_BUFFER;
	result = nxm_item_copy(space, item, &buffer);
	if (result != NXM_OK)
		return result;
	object = nxm_at(space, ref);
	if (object == NULL)
		return NXM_NEED_CHUNK;
	batch->info[batch->count].generation = batch->generation;
	result = nxm_object_copy_info(object, &batch->info[batch->count]);
	if (result == NXM_OK)
		batch->count++;
	return result;
}

bool
nxm_registry_scan(void (*each) (const NxmObjectInfo *info, void *context),
				  void *context)
{
	Batch		batch;
	uint64		position = 0;
	int			rounds = 0;		/* in vain, at this position */
	NxmResult	result;

	if (nxm_registry_space == NULL)
		nxm_registry_attach();
	if (nxm_load(&nxm_registry_anchor->names.directory) == 0)
		return true;
	batch.size = 16;
	batch.info = palloc(batch.size * sizeof(NxmObjectInfo));
	do
	{
		uint64		at;

		CHECK_FOR_INTERRUPTS();
		batch.count = 0;
		NXM_IN_SECTION(
		{
			at = position;
			batch.generation = nxm_load(&nxm_registry_anchor->generation);
			result = nxm_map_scan(nxm_registry_space,
								  &nxm_registry_anchor->names, &at,
								  batch_begin, batch_add, &batch);
		});
		if (result == NXM_NEED_BUFFER)
		{
			batch.size *= 2;
			batch.info = repalloc(batch.info,
								  batch.size * sizeof(NxmObjectInfo));
			continue;
		}
		if (result == NXM_OK && at == position)
		{
			if (++rounds >= MOST_HELD_ROUNDS && InterruptHoldoffCount > 0)
				break;
			continue;
		}
		rounds = 0;
		position = at;
		for (size_t i = 0; i < batch.count; i++)
			each(&batch.info[i], context);
	} while (result == NXM_OK || result == NXM_NEED_BUFFER);
	pfree(batch.info);
	return result == NXM_ABSENT;
}
