/*
 * prefetch_whole.c
 *	  Which index scans with array keys are surely asked for all their rows?
 *
 * Such a scan may read ahead as far as it likes: nothing is read in vain.  An
 * index scan does not know who asks it for rows, but the plan above it does, and
 * the count that the query is run for.  So when a query starts, its plan is
 * walked from the top, with the rules of nestloop_plan.c, and the scans are
 * remembered that nothing in it stops early.
 *
 * For scans with array keys alone: in a short cached query the walk would be
 * felt, and what an array leads to is worth most.
 *
 * Queries that are being executed are a list of this process; an entry is in the
 * query's own memory, whose end takes it out.
 *
 * Limits: not in parallel workers, which see a part of the plan, nor below nodes
 * of other extensions, nor in the copies of a plan that re-check an updated row.
 * Sub-plans count as stopped early, but for what is below an aggregate or a sort
 * of theirs.
 */
#include "prefetch_internal.h"

#include "access/parallel.h"
#include "miscadmin.h"
#include "nestloop_plan.h"
#include "prefetch_nestloop.h"

typedef struct WholeScan
{
	PlanState  *state;			/* an IndexScanState or IndexOnlyScanState */
	bool		complete;		/* however the query is run */
} WholeScan;

typedef struct WholeQuery
{
	struct WholeQuery *next;
	EState	   *estate;
	bool		run_to_end;		/* ExecutorRun was given no count */
	int			nscans;
	WholeScan	scan[FLEXIBLE_ARRAY_MEMBER];
} WholeQuery;

static WholeQuery *queries = NULL;

static void visit(WholeQuery *query, PlanState *state, NxmLoopEarly early);

static void
visit_all(WholeQuery *query, PlanState **states, int n, NxmLoopEarly early)
{
	for (int i = 0; i < n; i++)
		visit(query, states[i], early);
}

/* early: as for a loop in the place of this node. */
static void
visit(WholeQuery *query, PlanState *state, NxmLoopEarly early)
{
	NxmLoopEarly outer = early;
	NxmLoopEarly inner = early;

	if (state == NULL)
		return;
	check_stack_depth();
	switch (nodeTag(state))
	{
		case T_IndexScanState:
		case T_IndexOnlyScanState:
			if (early != NXM_LOOP_EARLY && nxm_has_array_key(state))
			{
				WholeScan  *scan = &query->scan[query->nscans++];

				scan->state = state;
				scan->complete = early == NXM_LOOP_COMPLETE;
			}
			break;
		case T_AppendState:
			visit_all(query, ((AppendState *) state)->appendplans,
					  ((AppendState *) state)->as_nplans, early);
			break;
		case T_MergeAppendState:
			visit_all(query, ((MergeAppendState *) state)->mergeplans,
					  ((MergeAppendState *) state)->ms_nplans, early);
			break;
		case T_SubqueryScanState:
			visit(query, ((SubqueryScanState *) state)->subplan, early);
			break;
		case T_CustomScanState:
			/* our own passes on what it is asked for */
			if (!nxm_is_nestloop_node(state))
				outer = NXM_LOOP_EARLY;
			break;
		default:
			nxm_loop_early_below(state->plan, &outer, &inner);
			break;
	}
	visit(query, outerPlanState(state), outer);
	visit(query, innerPlanState(state), inner);
}

static void
forget(void *arg)
{
	for (WholeQuery **link = &queries; *link != NULL; link = &(*link)->next)
	{
		if (*link == arg)
		{
			*link = (*link)->next;
			return;
		}
	}
}

void
nxm_whole_start(QueryDesc *desc, int nscans)
{
	MemoryContext context = desc->estate->es_query_cxt;
	MemoryContextCallback *callback;
	WholeQuery *query;
	ListCell   *cell;

	if (IsParallelWorker())
		return;
	query = MemoryContextAlloc(context, offsetof(WholeQuery, scan) +
							   sizeof(WholeScan) * nscans);
	query->estate = desc->estate;
	query->run_to_end = false;
	query->nscans = 0;
	visit(query, desc->planstate, NXM_LOOP_AS_RUN);
	foreach(cell, desc->estate->es_subplanstates)
		visit(query, lfirst(cell), NXM_LOOP_EARLY);

	callback = MemoryContextAlloc(context, sizeof(*callback));
	callback->func = forget;
	callback->arg = query;
	MemoryContextRegisterResetCallback(context, callback);
	query->next = queries;
	queries = query;
}

void
nxm_prefetch_index_run(QueryDesc *desc, uint64 count)
{
	for (WholeQuery *query = queries; query != NULL; query = query->next)
	{
		if (query->estate == desc->estate)
			query->run_to_end = count == 0;
	}
}

bool
nxm_is_whole(IndexScanDesc desc)
{
	for (WholeQuery *query = queries; query != NULL; query = query->next)
	{
		for (int i = 0; i < query->nscans; i++)
		{
			PlanState  *state = query->scan[i].state;

			if (desc == (IsA(state, IndexScanState) ?
						 ((IndexScanState *) state)->iss_ScanDesc :
						 ((IndexOnlyScanState *) state)->ioss_ScanDesc))
				return query->scan[i].complete || query->run_to_end;
		}
	}
	return false;
}
