/*
 * plan_effects.h
 *	  What is seen of evaluating an expression or running a plan ahead of time.
 */
#ifndef NXM_PLAN_EFFECTS_H
#define NXM_PLAN_EFFECTS_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "nodes/plannodes.h"

/*
 * To be set before the first call; leakproof to true, which it stays if nothing
 * raises an error that depends on the row, or says something else at another time.
 */
typedef struct NxmEffects
{
	PlannedStmt *stmt;			/* of the sub-plans */
	bool		leakproof;
	bool		added_functions;	/* expressions call some that are not PostgreSQL's */
	Bitmapset  *params;			/* set by nested loops inside of the plan */
	bool		whole;			/* also what is done with the plan's first row */
	Bitmapset  *quiet_ctes;		/* found so, NULL at first: twice the id, + whole */
	Bitmapset  *failing_ctes;	/* of these, not leakproof */
} NxmEffects;

/*
 * Does evaluating this expression, or list of them, have no effect?  Catalog
 * look-ups may raise errors; memory is left in CurrentMemoryContext.
 */
extern bool nxm_expr_is_quiet(NxmEffects *effects, const void *expr);

/*
 * Can more rows be asked of this plan without an effect: after its first, or,
 * with whole, any?
 */
extern bool nxm_plan_is_quiet(NxmEffects *effects, Plan *plan);

#endif							/* NXM_PLAN_EFFECTS_H */
