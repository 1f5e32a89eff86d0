/*
 * queue.c
 *	  Michael and Scott's queue over references.  queue.h has the design.
 */
#include "queue.h"

#include "pause.h"

#define COUNT_ONE (UINT64_C(1) << NXM_REF_BITS)
/* fewer than the count can tell, by more than there are processes to look at once */
#define MAX_LENGTH ((UINT64_C(1) << 30) - (UINT64_C(1) << 20))

static const NxmValue nothing = {"", 0, NXM_INTERNAL};

static inline uint64_t
advance(uint64_t word, NxmRef ref)
{
	return ((word & ~NXM_REF_MASK) + COUNT_ONE) | ref;
}

NxmResult
nxm_queue_init(NxmSpace *space, NxmQueue *queue)
{
	NxmRef		dummy;
	NxmResult	result = nxm_item_new(space, NULL, &nothing, NXM_ITEM_LINKED, &dummy);

	if (result != NXM_OK)
		return result;
	nxm_init(&queue->head, dummy);
	nxm_init(&queue->tail, dummy);
	nxm_init(&queue->bytes, nxm_item_bytes(nxm_at(space, dummy)));
	nxm_init(&queue->dropped, 0);
	return NXM_OK;
}

NxmResult
nxm_queue_push(NxmSpace *space, NxmQueue *queue, const NxmValue *value)
{
	NxmRef		ref;
	size_t		bytes;
	NxmResult	result = nxm_item_new(space, NULL, value, NXM_ITEM_LINKED, &ref);

	if (result != NXM_OK)
		return result;
	bytes = nxm_item_bytes(nxm_at(space, ref));
	/* before it can be popped, and its bytes be taken off */
	nxm_fetch_add_relaxed(&queue->bytes, bytes);
	for (;;)
	{
		uint64_t	tail = nxm_load(&queue->tail);
		NxmItem    *last = nxm_at(space, tail & NXM_REF_MASK);
		uint64_t	link = 0;
		uint64_t	length;

		if (last == NULL)
		{
			nxm_fetch_add_relaxed(&queue->bytes, -bytes);
			nxm_item_free(space, ref);
			return NXM_NEED_CHUNK;
		}
		/* tail is never behind head, so what it names now is not retired */
		nxm_protect(space, tail & NXM_REF_MASK);
		/* of one moment, if tail stays as it is until the second look */
		length = nxm_queue_length(queue);
		if (nxm_load(&queue->tail) != tail)
			continue;
		if (length >= MAX_LENGTH)
		{
			nxm_fetch_add_relaxed(&queue->bytes, -bytes);
			nxm_item_free(space, ref);
			return nxm_is_full(space);
		}
		/* release: publishes the item.  Pairs with the loads of links */
		if (nxm_cas(NXM_ITEM_LINK(last), &link, ref))
		{
			NXM_PAUSE("linked");
			(void) nxm_cas(&queue->tail, &tail, advance(tail, ref));
			return NXM_OK;
		}
		/* somebody's item is behind it: tail is to go there first */
		(void) nxm_cas(&queue->tail, &tail, advance(tail, link));
	}
}

/*
 * Takes the oldest item: into the buffer, for it to become the dummy.  Where that
 * is NULL, takes the dummy alone; with last, of a queue that nobody uses any more, the
 * last one too, which leaves a queue without a dummy.
 */
static inline __attribute__((always_inline)) NxmResult
take(NxmSpace *space, NxmQueue *queue, int type, NxmBuffer *buffer, bool last)
{
	for (;;)
	{
		uint64_t	head = nxm_load(&queue->head);
		NxmItem    *dummy;
		uint64_t	tail;
		uint64_t	link;
		NxmItem    *item = NULL;
		NxmResult	result;

		if (buffer == NULL && (head & NXM_REF_MASK) == 0)
			return NXM_ABSENT;
		dummy = nxm_at(space, head & NXM_REF_MASK);
		if (dummy == NULL)
			return NXM_NEED_CHUNK;
		nxm_protect(space, head & NXM_REF_MASK);
		if (nxm_load(&queue->head) != head)
			continue;
		link = nxm_load(NXM_ITEM_LINK(dummy));
		/*
		 * Relaxed: it was stored before the first item was drained, and before a dummy
		 * was pushed, and so is seen with a head, and with a link, from after that.
		 */
		if (buffer != NULL && __builtin_expect(nxm_load_relaxed(&queue->dropped) != 0, 0))
			return NXM_DROPPED;
		if (!last && link == 0)
			return NXM_ABSENT;
		/* it is ours to retire, if we are the one who takes */
		if (!nxm_item_is_mapped(space, dummy))
			return NXM_NEED_CHUNK;
		/* head must not pass tail: an item named by tail would be retired */
		tail = nxm_load(&queue->tail);
		if (tail == head && link != 0)
		{
			(void) nxm_cas(&queue->tail, &tail, advance(tail, link));
			continue;
		}
		if (buffer != NULL)
		{
			item = nxm_at(space, link);
			if (item == NULL)
				return NXM_NEED_CHUNK;
			/* it is retired only after head has passed it */
			nxm_protect(space, link);
			if (nxm_load(&queue->head) != head)
				continue;
			result = nxm_item_check_pop(space, item, type, buffer);
			if (result != NXM_OK)
				return result;
		}
		NXM_PAUSE("take");
		if (!nxm_cas(&queue->head, &head, advance(head, link)))
			continue;
		NXM_PAUSE("taken");
		/* the next pop may retire it, but the hazard keeps it */
		if (buffer != NULL)
			nxm_item_copy_popped(space, item, buffer);
		nxm_fetch_add_relaxed(&queue->bytes, -nxm_item_bytes(dummy));
		nxm_retire(space, head & NXM_REF_MASK);
		return NXM_OK;
	}
}

NxmResult
nxm_queue_pop(NxmSpace *space, NxmQueue *queue, int type, NxmBuffer *buffer)
{
	return take(space, queue, type, buffer, false);
}

uint64_t
nxm_queue_length(NxmQueue *queue)
{
	/* head first: with both from one moment or tail from later, it is not below */
	uint64_t	head = nxm_load(&queue->head) >> NXM_REF_BITS;
	uint64_t	tail = nxm_load(&queue->tail) >> NXM_REF_BITS;

	return (tail - head) & ((UINT64_C(1) << 30) - 1);
}

/*
 * The dummy of an empty queue still has the memory of a value.  If that is more than a
 * page, another one is to take its place.  NXM_OK: one is behind it.
 */
static NxmResult
push_dummy(NxmSpace *space, NxmQueue *queue)
{
	bool		past_limit = space->past_limit;
	uint64_t	head = nxm_load(&queue->head);
	NxmItem    *dummy = nxm_at(space, head & NXM_REF_MASK);
	NxmResult	result;

	if (dummy == NULL)
		return NXM_NEED_CHUNK;
	nxm_protect(space, head & NXM_REF_MASK);
	if (nxm_load(&queue->head) != head)
		return NXM_OK;
	if (nxm_item_bytes(dummy) <= NXM_PAGE_SIZE)
		return NXM_ABSENT;
	/* at the limit, too: it gives more back */
	space->past_limit = true;
	result = nxm_queue_push(space, queue, &nothing);
	space->past_limit = past_limit;
	if (result != NXM_NEED_MEMORY)
		return result;
	/* then with the last ones */
	space->need_chunk = -1;
	space->want = NXM_WANT_NOTHING;
	return NXM_ABSENT;
}

NxmResult
nxm_queue_drain(NxmSpace *space, NxmQueue *queue, int max, bool last)
{
	NxmResult	result = NXM_OK;

	/* relaxed: the CAS of the head releases it */
	nxm_store_relaxed(&queue->dropped, 1);
	for (int i = 0; i < max && result == NXM_OK; i++)
	{
		result = take(space, queue, -1, NULL, last);
		if (result == NXM_ABSENT && !last)
			result = push_dummy(space, queue);
	}
	return result;
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
