/*
 * stack.c
 *	  Treiber's stack over references.  stack.h has the design.
 */
#include "stack.h"

#include "pause.h"

#define DEPTH_ONE	(UINT64_C(1) << NXM_REF_BITS)
#define MAX_DEPTH	((UINT64_C(1) << 30) - 1)

void
nxm_stack_init(NxmStack *stack)
{
	nxm_init(&stack->top, 0);
	nxm_init(&stack->bytes, 0);
	nxm_init(&stack->dropped, 0);
}

NxmResult
nxm_stack_push(NxmSpace *space, NxmStack *stack, const NxmValue *value)
{
	NxmRef		ref;
	NxmItem    *item;
	uint64_t	top;
	NxmResult	result = nxm_item_new(space, NULL, value, NXM_ITEM_LINKED, &ref);

	if (result != NXM_OK)
		return result;
	item = nxm_at(space, ref);
	nxm_fetch_add_relaxed(&stack->bytes, nxm_item_bytes(item));
	top = nxm_load_relaxed(&stack->top);
	do
	{
		if (top >> NXM_REF_BITS == MAX_DEPTH)
		{
			nxm_fetch_add_relaxed(&stack->bytes, -nxm_item_bytes(item));
			nxm_item_free(space, ref);
			return nxm_is_full(space);
		}
		nxm_store_relaxed(NXM_ITEM_LINK(item), top & NXM_REF_MASK);
		/* release: publishes the item and its link.  Pairs with pop's load */
	} while (!nxm_cas(&stack->top, &top,
					  ((top & ~NXM_REF_MASK) + DEPTH_ONE) | ref));
	return NXM_OK;
}

/*
 * Takes the top off: into the buffer, or, where that is NULL, to be freed alone.
 * Several may at once.
 */
static inline __attribute__((always_inline)) NxmResult
take(NxmSpace *space, NxmStack *stack, int type, NxmBuffer *buffer)
{
	uint64_t	top = nxm_load(&stack->top);

	for (;;)
	{
		NxmRef		ref = top & NXM_REF_MASK;
		NxmItem    *item;
		uint64_t	again;
		uint64_t	link;
		NxmResult	result;

		/*
		 * Relaxed: it was stored before the first item was drained, and so is seen with a
		 * top from after that.
		 */
		if (buffer != NULL && __builtin_expect(nxm_load_relaxed(&stack->dropped) != 0, 0))
			return NXM_DROPPED;
		if (ref == 0)
			return NXM_ABSENT;
		item = nxm_at(space, ref);
		if (item == NULL)
			return NXM_NEED_CHUNK;
		nxm_protect(space, ref);
		again = nxm_load(&stack->top);
		if (again != top)
		{
			top = again;
			continue;
		}
		result = nxm_item_check_pop(space, item, type, buffer);
		if (result != NXM_OK)
			return result;
		/* relaxed: stored before the item was published, and so seen with top */
		link = nxm_load_relaxed(NXM_ITEM_LINK(item));
		NXM_PAUSE("pop");
		if (!nxm_cas(&stack->top, &top,
					 ((top & ~NXM_REF_MASK) - DEPTH_ONE) | link))
			continue;
		nxm_item_copy_popped(space, item, buffer);
		nxm_fetch_add_relaxed(&stack->bytes, -nxm_item_bytes(item));
		nxm_retire(space, ref);
		return NXM_OK;
	}
}

NxmResult
nxm_stack_pop(NxmSpace *space, NxmStack *stack, int type, NxmBuffer *buffer)
{
	return take(space, stack, type, buffer);
}

uint64_t
nxm_stack_depth(NxmStack *stack)
{
	return nxm_load(&stack->top) >> NXM_REF_BITS;
}

NxmResult
nxm_stack_drain(NxmSpace *space, NxmStack *stack, int max)
{
	NxmResult	result = NXM_OK;

	/* relaxed: the CAS of the top releases it */
	nxm_store_relaxed(&stack->dropped, 1);
	for (int i = 0; i < max && result == NXM_OK; i++)
		result = take(space, stack, -1, NULL);
	return result;
}

NxmResult
nxm_stack_peek(NxmSpace *space, NxmStack *stack, NxmRef *at, NxmBuffer *buffer)
{
	NxmRef		ref = *at != 0 ? *at : nxm_load(&stack->top) & NXM_REF_MASK;
	NxmItem    *item;
	NxmResult	result;

	if (ref == 0)
		return NXM_ABSENT;
	item = nxm_at(space, ref);
	if (item == NULL)
		return NXM_NEED_CHUNK;
	result = nxm_item_copy(space, item, buffer);
	if (result == NXM_OK)
		*at = nxm_load(NXM_ITEM_LINK(item));
	return result;
}
