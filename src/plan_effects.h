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
 * What was found of a statement's sub-plans, each by twice its id, + whole.  All NULL at
 * first; in the memory context that is then the current one.
 */
typedef struct NxmSubPlanEffects
{
	Bitmapset  *known;
	Bitmapset  *quiet;			/* of these */
	Bitmapset  *failing;		/* of these, not leakproof */
} NxmSubPlanEffects;

/*
 * To be set before the first call; leakproof to true, which it stays if nothing
 * raises an error that depends on the row, or says something else at another time.
 */
typedef struct NxmEffects
{
	PlannedStmt *stmt;			/* of the sub-plans */
	NxmSubPlanEffects *subplans;
	bool		leakproof;
	bool		added_functions;	/* expressions call some that are not PostgreSQL's */
	Bitmapset  *params;			/* set by nested loops inside of the plan */
	bool		whole;			/* also what is done with the plan's first row */
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
