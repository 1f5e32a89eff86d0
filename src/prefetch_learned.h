/*
 * prefetch_learned.h
 *	  Records the blocks that index scans miss, and reads ahead what the predictor
 *	  expects after them.
 */
#ifndef NXM_PREFETCH_LEARNED_H
#define NXM_PREFETCH_LEARNED_H

#include "postgres.h"

#include "access/amapi.h"
#include "compat.h"
#include "predictor_area.h"
#include "utils/rel.h"

/* NULL: no index of this process has had it. */
extern IndexAmRoutine *nxm_learned_routine;

/* See below. */
extern void nxm_learned_change_seat(Relation index, IndexAmRoutine *look_ahead);

/*
 * An index of a plan that has our look-ahead's routine is given one that records as
 * well; or, when the setting is off, the look-ahead's again.  To be called at the start
 * of each execution.  Raises no errors but those of want of a few bytes of memory.
 */
static inline void
nxm_learned_take_seat(Relation index, IndexAmRoutine *look_ahead)
{
	if (unlikely(nxm_enable_learned_prefetch ||
				 index->rd_indam == nxm_learned_routine))
		nxm_learned_change_seat(index, look_ahead);
}

/* A plan that may have had parallel workers has run, and has not ended yet. */
extern void nxm_learned_parallel_ran(void);

#endif							/* NXM_PREFETCH_LEARNED_H */
