/*
 * stack.h
 *	  A stack for any number of processes: Treiber's, over references.
 *
 *	top		63             34 33             0
 *			+----------------+---------------+
 *			|     depth      |   reference   |
 *			+----------------+---------------+
 *
 * Pushing is lock-free and needs no hazard: if top is what the new item's link
 * says when the CAS succeeds, it is the top, whatever happened in between.
 * Popping protects the top item, for it reads its link; while it is protected
 * its memory is not used again, so that the same reference in top is the same
 * item with the same link.  The depth is exact, for it changes with the top.
 *
 * After the CAS the popped item is the caller's alone to free; others that have it
 * protected may read it yet.  So a value is copied outside of the loop, but for one in
 * pieces, which have to be mapped: that is copied before the CAS.  The length is
 * checked before it, too: a buffer that is too short takes nothing from the stack.
 *
 * Draining takes the top off like popping, while others may still be at it.  A pop in
 * between would find an item that was never the top: so it says NXM_DROPPED from then on.
 *
 * Limits: 2^30 - 1 items; NXM_NEED_MEMORY in want of nothing beyond.
 *
 * Every operation runs in a section that its caller entered.
 */
#ifndef NXM_STACK_H
#define NXM_STACK_H

#include "item.h"

typedef struct NxmStack
{
	NxmAtomic	top;
	NxmAtomic	bytes;			/* of its items' memory */
	NxmAtomic	dropped;		/* not 0: draining has begun */
	uint64_t	unused[5];
} NxmStack;

extern void nxm_stack_init(NxmStack *stack);
extern NxmResult nxm_stack_push(NxmSpace *space, NxmStack *stack,
								const NxmValue *value);
/*
 * NXM_ABSENT: empty.  type -1: any; else another type is NXM_MISMATCH, kept.
 * NXM_DROPPED: it is being drained.
 */
extern NxmResult nxm_stack_pop(NxmSpace *space, NxmStack *stack, int type,
							   NxmBuffer *buffer);
extern uint64_t nxm_stack_depth(NxmStack *stack);
/*
 * Frees at most max items of a stack that was dropped, for good.  NXM_OK: there may be
 * more; NXM_ABSENT: it is empty, but for what those push who found it before.
 */
extern NxmResult nxm_stack_drain(NxmSpace *space, NxmStack *stack, int max);

/*
 * Copies items from the top downward without popping, for saving: only while
 * nobody else uses the stack.  *at: 0 to begin with the top; then the next one,
 * and 0 after the last: stop there.
 */
extern NxmResult nxm_stack_peek(NxmSpace *space, NxmStack *stack, NxmRef *at,
								NxmBuffer *buffer);

#endif							/* NXM_STACK_H */
