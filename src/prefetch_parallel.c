/*
 * prefetch_parallel.c
 *	  What look-ahead did in parallel workers, for their leader's EXPLAIN ANALYZE.
 *
 * What look-ahead counts in a node of a plan ends with the process that ran it,
 * and among what PostgreSQL brings from a worker to its leader there is no room
 * for it.  So a worker that has run its part of an instrumented query adds it to
 * a table in shared memory, where the leader looks.
 *
 * An entry is found by the node's plan_node_id and by the handle of the dynamic
 * shared memory segment through which leader and workers work together.  No two
 * queries have the same segment, not even a query that is run within itself: text
 * and statement would not tell those apart.
 *
 * - A worker is told the handle when it is started (bgw_main_arg).
 * - The leader's segment is made by the first call of a Gather or Gather Merge node
 *   and gone when the query has run, before anything is printed.  So the node's
 *   function is wrapped by ours, which looks after each row: in a query that is
 *   instrumented, and in no other.  Scans of the node after the first start
 *   workers with the same segment; what those report is added.
 *
 * A leader has waited for its workers when a query has run, and a worker reports
 * before it says that it is done.
 *
 * A query's entries leave the table with the query.  What one that failed leaves
 * behind, before the leader knew of the segment, gives way when the table is
 * full: the oldest does.
 *
 * One LWLock, taken in instrumented queries with a Gather alone: by a worker once
 * for each node that read ahead, by the leader once for each that it prints.
 *
 * Limits: MAX_REPORTS entries; where more are needed at once, counts are
 * missing.  Without preloading none are brought.
 */
#include "prefetch_parallel.h"

#include "access/parallel.h"
#include "compat.h"
#include "executor/execParallel.h"
#include "executor/executor.h"
#include "plan_walk.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "tcop/dest.h"

#define MAX_REPORTS 512

/* What workers counted in one node. */
typedef struct Report
{
	dsm_handle	segment;
	int			plan_node_id;
	uint64		serial;			/* in the order in which they were made */
	int64		stat[NXM_NUM_PREFETCH_STATS];
	int			distance;
} Report;

typedef struct Reports
{
	LWLock		lock;
	/* under the lock */
	uint64		next_serial;
	int			n;
	Report		report[MAX_REPORTS];
} Reports;

/* Of a query: a Gather or Gather Merge node. */
typedef struct Gathering
{
	struct Gathering *next;
	PlanState  *node;
	ExecProcNodeMtd exec;		/* its own */
	dsm_handle	segment;		/* DSM_HANDLE_INVALID: none yet */
} Gathering;

/* An instrumented query with such nodes, in that query's memory. */
typedef struct Leader
{
	struct Leader *next;
	EState	   *estate;
	Gathering  *gatherings;
} Leader;

static Reports *reports = NULL;
static Leader *leaders = NULL;	/* the innermost first */

/* NULL: there is none.  Lock held. */
static Report *
find_report(dsm_handle segment, int plan_node_id)
{
	for (int i = 0; i < reports->n; i++)
	{
		Report	   *report = &reports->report[i];

		if (report->segment == segment && report->plan_node_id == plan_node_id)
			return report;
	}
	return NULL;
}

/* An empty one; where the table is full, in place of the oldest.  Lock exclusive. */
static Report *
new_report(dsm_handle segment, int plan_node_id)
{
	Report	   *report = &reports->report[0];

	if (reports->n < MAX_REPORTS)
		report = &reports->report[reports->n++];
	else
	{
		for (int i = 1; i < reports->n; i++)
		{
			if (reports->report[i].serial < report->serial)
				report = &reports->report[i];
		}
	}
	memset(report, 0, sizeof(*report));
	report->segment = segment;
	report->plan_node_id = plan_node_id;
	report->serial = reports->next_serial++;
	return report;
}

static void
forget_reports(dsm_handle segment)
{
	int			kept = 0;

	LWLockAcquire(&reports->lock, LW_EXCLUSIVE);
	for (int i = 0; i < reports->n; i++)
	{
		if (reports->report[i].segment != segment)
			reports->report[kept++] = reports->report[i];
	}
	reports->n = kept;
	LWLockRelease(&reports->lock);
}

static Leader *
leader_of(const EState *estate)
{
	for (Leader *leader = leaders; leader != NULL; leader = leader->next)
	{
		if (leader->estate == estate)
			return leader;
	}
	return NULL;
}

/* At the query's end, be it an error: raises none. */
static void
forget_leader(void *arg)
{
	Leader	   *leader = arg;

	for (Leader **link = &leaders; *link != NULL; link = &(*link)->next)
	{
		if (*link == leader)
		{
			*link = leader->next;
			break;
		}
	}
	for (Gathering *g = leader->gatherings; g != NULL; g = g->next)
	{
		if (g->segment != DSM_HANDLE_INVALID)
			forget_reports(g->segment);
	}
}

/* In place of ExecGather() and ExecGatherMerge(). */
static TupleTableSlot *
exec_gathering(PlanState *node)
{
	Gathering  *gathering = leader_of(node->state)->gatherings;
	TupleTableSlot *slot;
	ParallelExecutorInfo *info;

	while (gathering->node != node)
		gathering = gathering->next;
	slot = gathering->exec(node);
	info = IsA(node, GatherState) ? ((GatherState *) node)->pei :
		((GatherMergeState *) node)->pei;
	/* without a segment no worker was started */
	if (info != NULL && info->pcxt->seg != NULL)
		gathering->segment = dsm_segment_handle(info->pcxt->seg);
	return slot;
}

static bool
find_gatherings(PlanState *node, void *context)
{
	Leader	   *leader = context;

	/* another extension's node may hold the same child twice: ours would call itself */
	if ((IsA(node, GatherState) || IsA(node, GatherMergeState)) &&
		node->ExecProcNodeReal != exec_gathering)
	{
		Gathering  *gathering = palloc(sizeof(Gathering));

		gathering->node = node;
		gathering->exec = node->ExecProcNodeReal;
		gathering->segment = DSM_HANDLE_INVALID;
		gathering->next = leader->gatherings;
		leader->gatherings = gathering;
		ExecSetExecProcNode(node, exec_gathering);
	}
	return nxm_walk_below(node, find_gatherings, context);
}

void
nxm_prefetch_parallel_start(QueryDesc *query)
{
	EState	   *estate = query->estate;
	MemoryContext old;
	MemoryContextCallback *callback;
	Leader	   *leader;

	if (!query->plannedstmt->parallelModeNeeded || reports == NULL)
		return;
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	leader = palloc(sizeof(Leader));
	callback = palloc(sizeof(MemoryContextCallback));
	leader->estate = estate;
	leader->gatherings = NULL;
	callback->func = forget_leader;
	callback->arg = leader;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, callback);
	leader->next = leaders;
	leaders = leader;
	(void) nxm_walk_query(query, find_gatherings, leader);
	MemoryContextSwitchTo(old);
}

bool
nxm_prefetch_parallel_is_part(const QueryDesc *query)
{
	/* not a query of a function that the worker calls */
	return IsParallelWorker() && query->dest->mydest == DestTupleQueue &&
		reports != NULL;
}

void
nxm_prefetch_parallel_report(const PlanState *node,
							 const int64 stat[NXM_NUM_PREFETCH_STATS],
							 int distance)
{
	dsm_handle	segment = DatumGetUInt32(MyBgworkerEntry->bgw_main_arg);
	int			id = node->plan->plan_node_id;
	Report	   *report;

	LWLockAcquire(&reports->lock, LW_EXCLUSIVE);
	report = find_report(segment, id);
	if (report == NULL)
		report = new_report(segment, id);
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		report->stat[i] += stat[i];
	report->distance = Max(report->distance, distance);
	LWLockRelease(&reports->lock);
}

void
nxm_prefetch_parallel_add(const PlanState *node,
						  int64 stat[NXM_NUM_PREFETCH_STATS], int *distance)
{
	Leader	   *leader = leader_of(node->state);

	if (leader == NULL)
		return;
	LWLockAcquire(&reports->lock, LW_SHARED);
	for (Gathering *g = leader->gatherings; g != NULL; g = g->next)
	{
		const Report *report = find_report(g->segment,
										   node->plan->plan_node_id);

		if (report == NULL)
			continue;
		for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
			stat[i] += report->stat[i];
		*distance = Max(*distance, report->distance);
	}
	LWLockRelease(&reports->lock);
}

Size
nxm_prefetch_parallel_size(void)
{
	return sizeof(Reports);
}

void
nxm_prefetch_parallel_shmem_init(void *ptr, bool found)
{
	reports = ptr;
	if (found)
		return;
	LWLockInitialize(&reports->lock,
					 nxm_new_lwlock_tranche("nexusmem_prefetch_parallel"));
	reports->next_serial = 0;
	reports->n = 0;
}
