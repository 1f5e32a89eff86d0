/*
 * lirs.c
 *	  LIRS (SIGMETRICS 2002), by bytes.
 *
 * The stack holds keys by their last request: all LIR keys, of which the oldest
 * is its bottom, and HIR keys younger than that, in the cache or not.  The queue
 * holds the HIR keys that are in the cache, "hir" (0.01) of the bytes.  A HIR key
 * requested while on the stack becomes LIR, and the bottom HIR.  Keys on the
 * stack that are not in the cache are bounded to "ghost" (2) times the capacity,
 * the first to have gone first; the paper does not bound them.
 */
#include <stdlib.h>

#include "sim.h"

#define ON_STACK	1
#define IN_QUEUE	2			/* HIR, in the cache */
#define IS_LIR		4
#define IS_GHOST	8			/* HIR, not in the cache, on the stack */

typedef struct Lirs
{
	const Trace *trace;
	uint64_t	capacity;
	uint64_t	lir_capacity;
	uint64_t	ghost_capacity;
	uint64_t	lir_bytes;
	List		stack;
	List		queue;
	List		ghost;
	Link	   *stack_links;
	Link	   *links;			/* of queue and ghost */
	uint8_t    *state;
} Lirs;

static void *
lirs_create(const Trace *trace, uint64_t capacity, const char *options)
{
	Lirs	   *lirs = allocate(1, sizeof(Lirs));
	double		hir = policy_option(options, "hir", 0.01) * (double) capacity;

	lirs->trace = trace;
	lirs->capacity = capacity;
	lirs->lir_capacity = capacity - (hir < 1 ? 1 : (uint64_t) hir);
	lirs->ghost_capacity = (uint64_t) (policy_option(options, "ghost", 2) * (double) capacity);
	list_init(&lirs->stack);
	list_init(&lirs->queue);
	list_init(&lirs->ghost);
	lirs->stack_links = allocate(trace->nkeys, sizeof(Link));
	lirs->links = allocate(trace->nkeys, sizeof(Link));
	lirs->state = allocate(trace->nkeys, 1);
	return lirs;
}

static void
leave_stack(Lirs *lirs, uint32_t key)
{
	uint32_t	size = lirs->trace->sizes[key];

	if (lirs->state[key] & ON_STACK)
		list_remove(&lirs->stack, lirs->stack_links, key, size);
	if (lirs->state[key] & IS_GHOST)
		list_remove(&lirs->ghost, lirs->links, key, size);
	if (lirs->state[key] & IS_LIR)
		lirs->lir_bytes -= size;
	lirs->state[key] &= IN_QUEUE;
}

static void
onto_stack(Lirs *lirs, uint32_t key, uint8_t as)
{
	uint32_t	size = lirs->trace->sizes[key];

	leave_stack(lirs, key);
	list_push(&lirs->stack, lirs->stack_links, key, size);
	if (as & IS_LIR)
		lirs->lir_bytes += size;
	lirs->state[key] |= ON_STACK | as;
}

static void
leave_queue(Lirs *lirs, uint32_t key)
{
	if (lirs->state[key] & IN_QUEUE)
		list_remove(&lirs->queue, lirs->links, key, lirs->trace->sizes[key]);
	lirs->state[key] &= (uint8_t) ~IN_QUEUE;
}

static void
into_queue(Lirs *lirs, uint32_t key)
{
	leave_queue(lirs, key);
	list_push(&lirs->queue, lirs->links, key, lirs->trace->sizes[key]);
	lirs->state[key] |= IN_QUEUE;
}

/* The bottom of the stack is to be LIR. */
static void
prune(Lirs *lirs)
{
	while (lirs->stack.oldest != NONE && !(lirs->state[lirs->stack.oldest] & IS_LIR))
		leave_stack(lirs, lirs->stack.oldest);
}

static void
demote(Lirs *lirs)
{
	uint32_t	key = lirs->stack.oldest;

	leave_stack(lirs, key);
	into_queue(lirs, key);
	prune(lirs);
}

static void
make_lir(Lirs *lirs, uint32_t key)
{
	leave_queue(lirs, key);
	onto_stack(lirs, key, IS_LIR);
	prune(lirs);
	while (lirs->lir_bytes > lirs->lir_capacity)
		demote(lirs);
}

static void
make_room(Lirs *lirs, uint32_t size)
{
	while (lirs->lir_bytes + lirs->queue.bytes + size > lirs->capacity)
	{
		uint32_t	key;

		if (lirs->queue.oldest == NONE)
			demote(lirs);
		key = lirs->queue.oldest;
		leave_queue(lirs, key);
		if (lirs->state[key] & ON_STACK)
		{
			list_push(&lirs->ghost, lirs->links, key, lirs->trace->sizes[key]);
			lirs->state[key] |= IS_GHOST;
		}
	}
	while (lirs->ghost.bytes > lirs->ghost_capacity)
		leave_stack(lirs, lirs->ghost.oldest);
}

static bool
lirs_request(void *self, uint64_t i)
{
	Lirs	   *lirs = self;
	uint32_t	key = lirs->trace->keys[i];
	uint32_t	size = lirs->trace->sizes[key];

	if (lirs->state[key] & IS_LIR)
	{
		onto_stack(lirs, key, IS_LIR);
		prune(lirs);
		return true;
	}
	if (lirs->state[key] & IN_QUEUE)
	{
		if (lirs->state[key] & ON_STACK)
			make_lir(lirs, key);
		else
		{
			onto_stack(lirs, key, 0);
			into_queue(lirs, key);
		}
		return true;
	}
	make_room(lirs, size);
	if (lirs->state[key] & IS_GHOST || lirs->lir_bytes + size <= lirs->lir_capacity)
		make_lir(lirs, key);
	else
	{
		onto_stack(lirs, key, 0);
		into_queue(lirs, key);
	}
	return false;
}

static uint64_t
lirs_used(void *self)
{
	Lirs	   *lirs = self;

	return lirs->lir_bytes + lirs->queue.bytes;
}

static void
lirs_destroy(void *self)
{
	Lirs	   *lirs = self;

	free(lirs->stack_links);
	free(lirs->links);
	free(lirs->state);
	free(lirs);
}

const Policy lirs_policy = {
	"lirs", "LIRS", lirs_create, lirs_request, lirs_used, lirs_destroy
};
