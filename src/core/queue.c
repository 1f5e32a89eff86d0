/*
 * queue.c
 *	  Michael and Scott's queue over references.  queue.h has the design.
 */
#include "queue.h"

#include "pause.h"

#define COUNT_ONE (UINT64_C(1) << NXM_REF_BITS)
/* fewer than the count can tell, by more than there are processes to look at once */
#define MAX_LENGTH ((UINT64_C(1) << 30) - (UINT64_C(1) << 20))

static inline uint64_t
advance(uint64_t word, NxmRef ref)
{
	return ((word & ~NXM_REF_MASK) + COUNT_ONE) | ref;
}

NxmResult
nxm_queue_init(NxmSpace *space, NxmQueue *queue)
{
	NxmValue	nothing = {"", 0, NXM_INTERNAL};
	NxmRef		dummy;
	NxmResult	result = nxm_item_new(space, NULL, &nothing, true, &dummy);

	if (result != NXM_OK)
		return result;
	nxm_init(&queue->head, dummy);
	nxm_init(&queue->tail, dummy);
	nxm_init(&queue->bytes, nxm_item_bytes(nxm_at(space, dummy)));
	return NXM_OK;
}

NxmResult
nxm_queue_push(NxmSpace *space, NxmQueue *queue, const NxmValue *value)
{
	NxmRef		ref;
	size_t		bytes;
	NxmResult	result = nxm_item_new(space, NULL, value, true, &ref);

	if (result != NXM_OK)
		return result;
	/* not to be read any more once it can be popped */
	bytes = nxm_item_bytes(nxm_at(space, ref));
	for (;;)
	{
		uint64_t	tail = nxm_load(&queue->tail);
		NxmItem    *last = nxm_at(space, tail & NXM_REF_MASK);
		uint64_t	link = 0;

		if (last == NULL)
		{
			nxm_item_free(space, ref);
			return NXM_NEED_CHUNK;
		}
		/* tail is never behind head, so what it names now is not retired */
		nxm_protect(space, tail & NXM_REF_MASK);
		if (nxm_load(&queue->tail) != tail)
			continue;
		if (nxm_queue_length(queue) >= MAX_LENGTH)
		{
			nxm_item_free(space, ref);
			space->need_chunk = -1;
			space->want = NXM_WANT_NOTHING;
			return NXM_NEED_MEMORY;
		}
		/* release: publishes the item.  Pairs with the loads of links */
		if (nxm_cas(NXM_ITEM_LINK(last), &link, ref))
		{
			nxm_fetch_add_relaxed(&queue->bytes, bytes);
			NXM_PAUSE("linked");
			(void) nxm_cas(&queue->tail, &tail, advance(tail, ref));
			return NXM_OK;
		}
		/* somebody's item is behind it: tail is to go there first */
		(void) nxm_cas(&queue->tail, &tail, advance(tail, link));
	}
}

NxmResult
nxm_queue_pop(NxmSpace *space, NxmQueue *queue, int type, NxmBuffer *buffer)
{
	for (;;)
	{
		uint64_t	head = nxm_load(&queue->head);
		NxmItem    *dummy = nxm_at(space, head & NXM_REF_MASK);
		uint64_t	tail;
		uint64_t	link;
		NxmItem    *item;
		uint64_t	header;
		NxmResult	result;

		if (dummy == NULL)
			return NXM_NEED_CHUNK;
		nxm_protect(space, head & NXM_REF_MASK);
		if (nxm_load(&queue->head) != head)
			continue;
		link = nxm_load(NXM_ITEM_LINK(dummy));
		if (link == 0)
			return NXM_ABSENT;
		/* it is ours to retire, if we are the one who pops */
		if (!nxm_item_is_mapped(space, dummy))
			return NXM_NEED_CHUNK;
		/* head must not pass tail: an item named by tail would be retired */
		tail = nxm_load(&queue->tail);
		if (tail == head)
		{
			(void) nxm_cas(&queue->tail, &tail, advance(tail, link));
			continue;
		}
		item = nxm_at(space, link);
		if (item == NULL)
			return NXM_NEED_CHUNK;
		/* it is retired only after head has passed it */
		nxm_protect(space, link);
		if (nxm_load(&queue->head) != head)
			continue;
		header = NXM_GET(item->header);
		buffer->len = NXM_ITEM_LEN(header);
		buffer->type = NXM_ITEM_TYPE(header);
		if (type >= 0 && buffer->type != (NxmType) type)
			return NXM_MISMATCH;
		if (buffer->len > buffer->size)
			return NXM_NEED_BUFFER;
		if ((header & NXM_ITEM_BIG) != 0)
		{
			/* maps what the pieces need, while the item is still in place */
			result = nxm_item_copy(space, item, buffer);
			if (result != NXM_OK)
				return result;
		}
		if (!nxm_cas(&queue->head, &head, advance(head, link)))
			continue;
		/* the next pop may retire it, but the hazard keeps it */
		if ((header & NXM_ITEM_BIG) == 0)
			(void) nxm_item_copy(space, item, buffer);
		nxm_fetch_add_relaxed(&queue->bytes, -nxm_item_bytes(dummy));
		nxm_retire(space, head & NXM_REF_MASK);
		return NXM_OK;
	}
}

uint64_t
nxm_queue_length(NxmQueue *queue)
{
	/* head first: with both from one moment or tail from later, it is not below */
	uint64_t	head = nxm_load(&queue->head) >> NXM_REF_BITS;
	uint64_t	tail = nxm_load(&queue->tail) >> NXM_REF_BITS;

	return (tail - head) & ((UINT64_C(1) << 30) - 1);
}

NxmResult
nxm_queue_drain(NxmSpace *space, NxmQueue *queue, int max)
{
	for (int i = 0; i < max; i++)
	{
		uint64_t	head = nxm_load(&queue->head);
		NxmItem    *dummy;
		uint64_t	link;
		uint64_t	tail;

		if ((head & NXM_REF_MASK) == 0)
			return NXM_ABSENT;
		dummy = nxm_at(space, head & NXM_REF_MASK);
		if (dummy == NULL)
			return NXM_NEED_CHUNK;
		nxm_protect(space, head & NXM_REF_MASK);
		if (nxm_load(&queue->head) != head)
			continue;
		if (!nxm_item_is_mapped(space, dummy))
			return NXM_NEED_CHUNK;
		link = nxm_load(NXM_ITEM_LINK(dummy));
		tail = nxm_load(&queue->tail);
		if (link != 0 && tail == head)
			(void) nxm_cas(&queue->tail, &tail, advance(tail, link));
		/* the last one leaves a queue without a dummy, which is the end of it */
		if (!nxm_cas(&queue->head, &head, advance(head, link)))
			continue;
		nxm_fetch_add_relaxed(&queue->bytes, -nxm_item_bytes(dummy));
		nxm_retire(space, head & NXM_REF_MASK);
	}
	return NXM_OK;
}

NxmResult
nxm_queue_peek(NxmSpace *space, NxmQueue *queue, NxmRef *at, NxmBuffer *buffer)
{
	NxmItem    *item;
	NxmRef		ref = *at;
	NxmResult	result;

	if (ref == 0)
	{
		item = nxm_at(space, nxm_load(&queue->head) & NXM_REF_MASK);
		if (item == NULL)
			return NXM_NEED_CHUNK;
		ref = nxm_load(NXM_ITEM_LINK(item));
		if (ref == 0)
			return NXM_ABSENT;
	}
	item = nxm_at(space, ref);
	if (item == NULL)
		return NXM_NEED_CHUNK;
	result = nxm_item_copy(space, item, buffer);
	if (result == NXM_OK)
		*at = nxm_load(NXM_ITEM_LINK(item));
	return result;
}
