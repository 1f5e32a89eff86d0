/*
 * queue.h
 *	  An unbounded first-in first-out queue for any number of processes: Michael
 *	  and Scott's (PODC 1996), over references.
 *
 * head names a dummy, whose link names the oldest item; tail names the last
 * item or the one before it.  Both words carry a count, which every change of
 * them raises by one, and which at an equal place in the list is equal:
 *
 *	head, tail	63             34 33             0
 *				+----------------+---------------+
 *				|     count      |   reference   |
 *				+----------------+---------------+
 *
 * length = count of tail - count of head, modulo 2^30, read head first.
 *
 * One hazard suffices.  A pop protects the dummy, reads its link, then protects
 * the item that the link names and looks whether head is still the same word:
 * the item is retired only after head has passed it, so it was not yet, and
 * will not be freed.  The dummy is not read again before the CAS of head has made it
 * ours, and its reference coming back to head is told by the count.
 *
 * The popped item becomes the dummy, so its memory is freed by the next pop.
 *
 * Draining takes the oldest item off like popping, while others may still be at it.  A
 * pop in between would find an item that was never the oldest: so it says NXM_DROPPED from
 * then on.
 *
 * Limits: 2^30 - 2^20 items; NXM_NEED_MEMORY in want of nothing beyond.
 *
 * Every operation runs in a section that its caller entered.
 */
#ifndef NXM_QUEUE_H
#define NXM_QUEUE_H

#include "item.h"

typedef struct NxmQueue
{
	NxmAtomic	head __attribute__((aligned(NXM_CACHE_LINE)));
	NxmAtomic	bytes;			/* of its items' memory, the dummy's included */
	NxmAtomic	dropped;		/* not 0: draining has begun */
	uint64_t	unused[5];
	NxmAtomic	tail;
	uint64_t	unused2[7];
} NxmQueue;

_Static_assert(offsetof(NxmQueue, tail) == NXM_CACHE_LINE &&
			   sizeof(NxmQueue) == 2 * NXM_CACHE_LINE, "head and tail share no line");

/* Allocates the first dummy. */
extern NxmResult nxm_queue_init(NxmSpace *space, NxmQueue *queue);
extern NxmResult nxm_queue_push(NxmSpace *space, NxmQueue *queue,
								const NxmValue *value);
/*
 * NXM_ABSENT: empty.  type -1: any; else another type is NXM_MISMATCH, kept.
 * NXM_DROPPED: it is being drained.
 */
extern NxmResult nxm_queue_pop(NxmSpace *space, NxmQueue *queue, int type,
							   NxmBuffer *buffer);
extern uint64_t nxm_queue_length(NxmQueue *queue);
/*
 * As nxm_stack_drain().  last: nobody uses it any more; at NXM_ABSENT the dummy is freed
 * too.  Else there is a dummy of less than a page, if there is memory for it.
 */
extern NxmResult nxm_queue_drain(NxmSpace *space, NxmQueue *queue, int max, bool last);
/* As nxm_stack_peek(), from the oldest on. */
extern NxmResult nxm_queue_peek(NxmSpace *space, NxmQueue *queue, NxmRef *at,
								NxmBuffer *buffer);

#endif							/* NXM_QUEUE_H */
