/*
 * nestloop_plan.h
 *	  Which nested loops of a plan can be looked ahead in, and how.
 */
#ifndef NXM_NESTLOOP_PLAN_H
#define NXM_NESTLOOP_PLAN_H

#include "postgres.h"

#include "nodes/extensible.h"
#include "nodes/plannodes.h"

/* most index scans of one inner side that are looked ahead in */
#define NXM_MAX_LOOP_TARGETS 4

/* Can it be that the loop is not asked for all its rows? */
typedef enum NxmLoopEarly
{
	NXM_LOOP_COMPLETE,			/* no: something above wants them all first */
	NXM_LOOP_AS_RUN,			/* if the query is run for a part of its rows */
	NXM_LOOP_EARLY				/* yes */
} NxmLoopEarly;

/*
 * What a plan node makes of this for its children.  In: *outer and *inner, what
 * it is for the node itself.  Out: for its outer and its inner child.
 */
extern void nxm_loop_early_below(const Plan *plan, NxmLoopEarly *outer,
								 NxmLoopEarly *inner);

/* An index scan below the inner side; node is one of the plan's. */
typedef struct NxmLoopTarget
{
	int			plan_node_id;	/* of the index scan */
	bool		index_only;
	bool		memoized;
	ScanDirection dir;
	/* one element for each key of the index, from the first on */
	List	   *strategies;		/* of int */
	List	   *types;			/* of Oid: of the values */
	List	   *collations;		/* of Oid */
	List	   *exprs;			/* of Expr over OUTER_VARs: the values */
	List	   *params;			/* of int: PARAM_EXECs that they also use */
} NxmLoopTarget;

typedef struct NxmLoop
{
	NxmLoopEarly early;
	/* plan_node_id of the Limit that counts the loop's outer rows; -1: none does */
	int			limit;
	/* in a parallel worker: the leader runs the query for a part of its rows */
	bool		in_part;
	/* the outer side, and with it reading ahead of it, raises no errors */
	bool		leakproof;
	int			ntargets;
	NxmLoopTarget target[NXM_MAX_LOOP_TARGETS];
} NxmLoop;

/*
 * A copy of the plan, in which a node of these methods stands between each
 * eligible nested loop and its outer side; NULL where there is none.  The plan
 * itself is left as it is; it has to live as long as the copy, which shares most
 * of it.  *context: what the copy lives in, a child of the current one.
 */
extern PlannedStmt *nxm_nestloop_plan(PlannedStmt *stmt,
									  const CustomScanMethods *methods,
									  MemoryContext *context);

/*
 * What nxm_nestloop_plan() wrote into a node of it; points into the plan.  No targets
 * where another version of the library did.
 */
extern void nxm_nestloop_read(const CustomScan *scan, NxmLoop *loop);

/* Writes into a node how the query is run: parallel workers get the plan after that. */
extern void nxm_nestloop_note_part(CustomScan *scan, bool in_part);

#endif							/* NXM_NESTLOOP_PLAN_H */
