/*
 * counter.h
 *	  Counters: exact, one padded word; and striped, a padded word for each
 *	  stripe, spread over the nodes.
 *
 * An exact counter gives each caller its own new value.  A striped one gives
 * none: a process adds to the stripe of its node and number, and reading sums
 * them up, one after another, so that a sum may be a value that the counter
 * never had while others add; what was added before the sum began is in it.
 *
 * Overflow.  Adding is one fetch-and-add as long as the word is within 2^62 and
 * the delta within 2^40.  Beyond, it is a CAS loop that refuses to overflow.  The
 * processes, fewer than 2^18, that have looked and not yet added move the word by
 * less than 2^58, whatever has become of it meanwhile: so it is safe up to that far
 * from the ends.  What would set it, or add to it, so that it is nearer puts an end to
 * the fetch-and-adds first, by `slow`, for good, and then waits for two epochs, after
 * which nobody is about to do one: it says NXM_NEED_EPOCH.  (To take an addition back
 * that has overflowed would not do: others may have read, added to, or replaced what
 * it left.)  A striped counter that overflows as a sum says so when read; it refuses what
 * its sum would have room for where the caller's stripe has none.
 *
 * Every operation runs in a section that its caller entered.
 */
#ifndef NXM_COUNTER_H
#define NXM_COUNTER_H

#include "space.h"

#define NXM_MAX_STRIPES 64

_Static_assert(NXM_SPACE_NODES <= NXM_MAX_STRIPES, "each node has a stripe");

typedef struct NxmStripe
{
	NxmAtomic	value;
	NxmAtomic	slow;			/* 0: fetch-and-add; else no more, since this epoch; 1:
								 * since one that is to be noted */
	uint64_t	unused[6];
} NxmStripe;

_Static_assert(sizeof(NxmStripe) == NXM_CACHE_LINE, "stripes share no line");

typedef struct NxmCounter
{
	uint32_t	nstripes;		/* 0: exact.  Immutable */
	uint32_t	nnodes;			/* stripe i is on node i % nnodes.  Immutable */
	uint32_t	per_node;		/* stripes of each, a power of two.  Immutable */
	NxmRef		stripes[NXM_MAX_STRIPES];	/* of a striped one.  Immutable */
	NxmStripe	exact __attribute__((aligned(NXM_CACHE_LINE)));
} NxmCounter;

_Static_assert(sizeof(NxmCounter) % NXM_CACHE_LINE == 0,
			   "an exact counter shares no line with what follows");

/*
 * Makes a counter in zeroed memory.  A striped one takes stripes_per_node
 * stripes, made up to a power of two, on each of nnodes nodes, at most
 * NXM_MAX_STRIPES in all.
 */
extern NxmResult nxm_counter_init(NxmSpace *space, NxmCounter *counter,
								  bool striped, int nnodes, int stripes_per_node);
/* Frees the stripes.  Nobody uses it any more. */
extern void nxm_counter_fini(NxmSpace *space, NxmCounter *counter);

/*
 * NXM_OK; else (NXM_OVERFLOW, NXM_NEED_EPOCH, NXM_NEED_CHUNK) nothing was added.
 * *result: the new value, of an exact one; else meaningless.  node: the caller's, from
 * which it takes a stripe.
 */
extern NxmResult nxm_counter_add(NxmSpace *space, NxmCounter *counter, int node,
								 int64_t delta, int64_t *result);
/* NXM_OVERFLOW: the sum does not fit. */
extern NxmResult nxm_counter_get(NxmSpace *space, NxmCounter *counter,
								 int64_t *result);
/*
 * Sets it and gives the old value: atomic for an exact one; a striped one is
 * set stripe by stripe, and loses nothing that is added meanwhile.
 * NXM_OVERFLOW: it was set, and the old sum does not fit.  NXM_NEED_EPOCH,
 * NXM_NEED_CHUNK: nothing was set.
 */
extern NxmResult nxm_counter_set(NxmSpace *space, NxmCounter *counter,
								 int64_t value, int64_t *old);

#endif							/* NXM_COUNTER_H */
