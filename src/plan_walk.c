/*
 * plan_walk.c
 *	  Walks over the nodes of a query that has been started.
 *
 * Below BitmapAnd and BitmapOr there are bitmap scans of indexes alone, which nobody
 * looks for: those are passed over.
 */
#include "plan_walk.h"

#include "miscadmin.h"

static inline bool
visit_one(PlanState *node, NxmNodeVisitor visit, void *context)
{
	return node != NULL && visit(node, context);
}

static bool
visit_all(PlanState **nodes, int n, NxmNodeVisitor visit, void *context)
{
	for (int i = 0; i < n; i++)
	{
		if (visit_one(nodes[i], visit, context))
			return true;
	}
	return false;
}

static bool
visit_list(List *nodes, NxmNodeVisitor visit, void *context)
{
	ListCell   *cell;

	foreach(cell, nodes)
	{
		if (visit_one(lfirst(cell), visit, context))
			return true;
	}
	return false;
}

bool
nxm_walk_below(PlanState *node, NxmNodeVisitor visit, void *context)
{
	check_stack_depth();
	if (visit_one(outerPlanState(node), visit, context) ||
		visit_one(innerPlanState(node), visit, context))
		return true;
	switch (nodeTag(node))
	{
		case T_AppendState:
			return visit_all(((AppendState *) node)->appendplans,
							 ((AppendState *) node)->as_nplans, visit, context);
		case T_MergeAppendState:
			return visit_all(((MergeAppendState *) node)->mergeplans,
							 ((MergeAppendState *) node)->ms_nplans, visit, context);
		case T_SubqueryScanState:
			return visit_one(((SubqueryScanState *) node)->subplan, visit, context);
		case T_CustomScanState:
			return visit_list(((CustomScanState *) node)->custom_ps, visit, context);
		default:
			return false;
	}
}

bool
nxm_walk_query(QueryDesc *query, NxmNodeVisitor visit, void *context)
{
	/* in a parallel worker those that it has no use for are NULL */
	return visit_one(query->planstate, visit, context) ||
		visit_list(query->estate->es_subplanstates, visit, context);
}
