/*
 * prefetch_explain.c
 *	  What look-ahead did, in the lines of EXPLAIN ANALYZE.
 *
 * The node of nested loops (prefetch_nestloop.c) is ours and prints its line
 * itself.  Index scans and index-only scans are PostgreSQL's: from 18 on a hook
 * is called for each node of a plan that is printed, and finds by the node's scan
 * descriptor what look-ahead counted in it.  That is there until ExecutorEnd,
 * which EXPLAIN and auto_explain print before, and goes on over rescans.
 *
 * A scan has a line if blocks were asked for in it, and with BUFFERS: like the
 * numbers of buffers these depend on what happened to be cached.  Where it did
 * not read ahead, and with BUFFERS off, what EXPLAIN prints is PostgreSQL's own.
 *
 * What parallel workers count is in their scan descriptors and ends with them; it
 * comes to the leader by prefetch_parallel.c.
 */
#include "prefetch_explain.h"

#include "commands/explain.h"
#include "compat.h"
#include NXM_EXPLAIN_FORMAT_H
#include NXM_EXPLAIN_STATE_H
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "plan_walk.h"
#include "prefetch_index.h"
#include "prefetch_parallel.h"

#define LABEL "Look-Ahead"

static explain_per_node_hook_type prev_explain_node = NULL;
static bool hook_taken = false;

void
nxm_prefetch_explain(const int64 stat[NXM_NUM_PREFETCH_STATS], int distance,
					 struct ExplainState *es)
{
	static const char *const name[NXM_NUM_PREFETCH_STATS] = {
#define X(name, meaning) [NXM_STAT_##name] = #name,
		NXM_PREFETCH_STATS(X)
#undef X
	};
	StringInfoData buf;

	initStringInfo(&buf);
	if (es->format == EXPLAIN_FORMAT_TEXT)
	{
		for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
			appendStringInfo(&buf, "%s=" INT64_FORMAT " ", name[i], stat[i]);
		appendStringInfo(&buf, "distance=%d", distance);
		ExplainPropertyText(LABEL, buf.data, es);
	}
	else
	{
		for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		{
			resetStringInfo(&buf);
			appendStringInfo(&buf, LABEL " %s", name[i]);
			buf.data[sizeof(LABEL)] = pg_toupper((unsigned char) name[i][0]);
			ExplainPropertyInteger(buf.data, NULL, stat[i], es);
		}
		ExplainPropertyInteger(LABEL " Distance", NULL, distance, es);
	}
	pfree(buf.data);
}

static inline bool
is_index_scan(const PlanState *node)
{
	return IsA(node, IndexScanState) || IsA(node, IndexOnlyScanState);
}

/* What was counted in this process, in an index scan.  false: nothing. */
static bool
own_counts(const PlanState *node, int64 stat[NXM_NUM_PREFETCH_STATS],
		   int *distance)
{
	/* NULL: it never began, or in workers alone */
	IndexScanDesc scan = IsA(node, IndexScanState) ?
		((const IndexScanState *) node)->iss_ScanDesc :
		((const IndexOnlyScanState *) node)->ioss_ScanDesc;

	return scan != NULL && nxm_prefetch_index_stats(scan, stat, distance);
}

static void
explain_node(PlanState *node, List *ancestors, const char *relationship,
			 const char *plan_name, struct ExplainState *es)
{
	int64		stat[NXM_NUM_PREFETCH_STATS] = {0};
	int			distance = 0;

	if (prev_explain_node)
		prev_explain_node(node, ancestors, relationship, plan_name, es);
	if (!es->analyze || !es->buffers || !is_index_scan(node))
		return;
	(void) own_counts(node, stat, &distance);
	nxm_prefetch_parallel_add(node, stat, &distance);
	if (stat[NXM_STAT_issued] > 0)
		nxm_prefetch_explain(stat, distance, es);
}

static bool
report_node(PlanState *node, void *context)
{
	int64		stat[NXM_NUM_PREFETCH_STATS];
	int			distance;

	if (is_index_scan(node) && own_counts(node, stat, &distance))
		nxm_prefetch_parallel_report(node, stat, distance);
	return nxm_walk_below(node, report_node, context);
}

void
nxm_prefetch_explain_ran(QueryDesc *query)
{
	/* before 18 no line would tell */
	if (hook_taken && nxm_prefetch_parallel_is_part(query))
		(void) nxm_walk_query(query, report_node, NULL);
}

void
nxm_prefetch_explain_init(void)
{
	explain_per_node_hook_type *hook = nxm_explain_node_hook;

	if (hook == NULL)
		return;
	prev_explain_node = *hook;
	*hook = explain_node;
	hook_taken = true;
}
