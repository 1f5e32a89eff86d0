/*
 * plan_walk.h
 *	  Walks over the nodes of a query that has been started.
 *
 * PostgreSQL's own, planstate_tree_walker(), enters a sub-plan once for each node that
 * refers to it.  Copies of a condition in many partitions, or in the arms of a UNION
 * ALL, refer to the same one, and its own nodes may refer to others.
 */
#ifndef NXM_PLAN_WALK_H
#define NXM_PLAN_WALK_H

#include "postgres.h"

#include "executor/execdesc.h"
#include "nodes/execnodes.h"

/*
 * node: never NULL.  It goes on below it by nxm_walk_below(); true: the walk is over.
 */
typedef bool (*NxmNodeVisitor) (PlanState *node, void *context);

/* Calls it for the top of the plan and of each sub-plan. */
extern bool nxm_walk_query(QueryDesc *query, NxmNodeVisitor visit, void *context);

/* Calls it for the nodes that this one takes rows from: not of sub-plans. */
extern bool nxm_walk_below(PlanState *node, NxmNodeVisitor visit, void *context);

#endif							/* NXM_PLAN_WALK_H */
