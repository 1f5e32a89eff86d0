/*
 * prefetch_parallel.c
 *	  What look-ahead did in parallel workers, for their leader's EXPLAIN ANALYZE.
 *
 * What look-ahead counts in a node of a plan ends with the process that ran it,
 * and among what PostgreSQL brings from a worker to its leader there is no room
 * for it.  So a worker that has run its part of an instrumented query adds it to
 * a table in shared memory, where the leader takes it out.
 *
 * An entry is found by the node's plan_node_id and by the handle of the dynamic
 * shared memory segment through which leader and workers work together.  No two
 * queries have the same segment, not even a query that is run within itself: text
 * and statement would not tell those apart.
 *
 * - A worker is told the handle when it is started (bgw_main_arg).
 * - The leader's segment is made by the first call of a Gather or Gather Merge node
 *   and gone when the query has run, so its function is wrapped by ours, which
 *   looks after each row.  Only in a query that is instrumented.  A node that is
 *   shut down and scanned again (below LIMIT) makes another segment: then, and
 *   when somebody asks, the reports of the last one are taken to memory of the
 *   query's.  Several launches with one segment add up in the table.
 *
 * A leader has waited for its workers when a node is shut down and when a
 * query has run, and a worker reports before it says that it is done.
 *
 * What nobody asked for leaves the table with the query.  What one that failed
 * leaves behind, before the leader knew of the segment, gives way when the table is
 * full: the oldest does.
 *
 * One LWLock, taken in instrumented queries with a Gather alone: by a worker once
 * for each node that read ahead, by the leader where it takes entries.
 *
 * Limits: MAX_REPORTS entries; where more are needed at once, counts are
 * missing.  Without preloading none are brought.
 */
#include "prefetch_parallel.h"

#include "access/parallel.h"
#include "compat.h"
#include "executor/execParallel.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "tcop/dest.h"

#define MAX_REPORTS 512

/* What workers counted in one node. */
typedef struct Report
{
	int			plan_node_id;
	int			distance;
	int64		stat[NXM_NUM_PREFETCH_STATS];
} Report;

typedef struct Entry
{
	dsm_handle	segment;
	uint64		serial;			/* in the order in which entries were made */
	Report		report;
} Entry;

typedef struct Reports
{
	LWLock		lock;
	/* under the lock */
	uint64		next_serial;
	int			nentries;
	Entry		entry[MAX_REPORTS];
} Reports;

/* Of a query: a Gather or Gather Merge node. */
typedef struct Gathering
{
	struct Gathering *next;
	PlanState  *node;
	ExecProcNodeMtd exec;		/* its own */
	dsm_handle	segment;		/* its last; DSM_HANDLE_INVALID: none yet */
} Gathering;

/* What was taken out of the table. */
typedef struct Taken
{
	struct Taken *next;
	Report		report;
} Taken;

/* An instrumented query with such nodes, in that query's memory. */
typedef struct Leader
{
	struct Leader *next;
	EState	   *estate;
	Gathering  *gatherings;
	Taken	   *taken;
} Leader;

static Reports *reports = NULL;
static Leader *leaders = NULL;	/* the innermost first */

static void
add_up(Report *to, const int64 stat[NXM_NUM_PREFETCH_STATS], int distance)
{
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		to->stat[i] += stat[i];
	to->distance = Max(to->distance, distance);
}

/* Makes one where there is none.  Lock exclusive. */
static Report *
report_of(dsm_handle segment, int plan_node_id)
{
	Entry	   *entry;
	Entry	   *oldest = &reports->entry[0];

	for (int i = 0; i < reports->nentries; i++)
	{
		entry = &reports->entry[i];
		if (entry->segment == segment &&
			entry->report.plan_node_id == plan_node_id)
			return &entry->report;
		if (entry->serial < oldest->serial)
			oldest = entry;
	}
	entry = reports->nentries < MAX_REPORTS ?
		&reports->entry[reports->nentries++] : oldest;
	memset(entry, 0, sizeof(*entry));
	entry->segment = segment;
	entry->serial = reports->next_serial++;
	entry->report.plan_node_id = plan_node_id;
	return &entry->report;
}

/* Takes one of a segment's entries out of the table.  false: there is none. */
static bool
take_report(dsm_handle segment, Report *report)
{
	bool		found = false;

	LWLockAcquire(&reports->lock, LW_EXCLUSIVE);
	for (int i = 0; i < reports->nentries && !found; i++)
	{
		Entry	   *entry = &reports->entry[i];

		if (entry->segment == segment)
		{
			found = true;
			*report = entry->report;
			*entry = reports->entry[--reports->nentries];
		}
	}
	LWLockRelease(&reports->lock);
	return found;
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

static Taken *
taken_of(Leader *leader, int plan_node_id)
{
	for (Taken *taken = leader->taken; taken != NULL; taken = taken->next)
	{
		if (taken->report.plan_node_id == plan_node_id)
			return taken;
	}
	return NULL;
}

/* Takes what the workers of a node have reported to the query's memory. */
static void
take_reports(Leader *leader, const Gathering *gathering)
{
	Report		report;

	if (gathering->segment == DSM_HANDLE_INVALID)
		return;
	while (take_report(gathering->segment, &report))
	{
		Taken	   *taken = taken_of(leader, report.plan_node_id);

		if (taken == NULL)
		{
			taken = MemoryContextAllocZero(leader->estate->es_query_cxt,
										   sizeof(Taken));
			taken->report.plan_node_id = report.plan_node_id;
			taken->next = leader->taken;
			leader->taken = taken;
		}
		add_up(&taken->report, report.stat, report.distance);
	}
}

/* At the query's end, be it an error: raises none. */
static void
forget_leader(void *arg)
{
	Leader	   *leader = arg;
	Report		report;

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
		while (g->segment != DSM_HANDLE_INVALID &&
			   take_report(g->segment, &report))
			;
	}
}

/* In place of ExecGather() and ExecGatherMerge(). */
static TupleTableSlot *
exec_gathering(PlanState *node)
{
	Leader	   *leader = leader_of(node->state);
	Gathering  *gathering = leader->gatherings;
	TupleTableSlot *slot;
	ParallelExecutorInfo *info;

	while (gathering->node != node)
		gathering = gathering->next;
	slot = gathering->exec(node);
	info = IsA(node, GatherState) ? ((GatherState *) node)->pei :
		((GatherMergeState *) node)->pei;
	/* without a segment no worker was started */
	if (info != NULL && info->pcxt->seg != NULL)
	{
		dsm_handle	segment = dsm_segment_handle(info->pcxt->seg);

		if (segment != gathering->segment)
		{
			take_reports(leader, gathering);
			gathering->segment = segment;
		}
	}
	return slot;
}

static bool
find_gatherings(PlanState *node, void *context)
{
	Leader	   *leader = context;

	if (node == NULL)
		return false;
	if (IsA(node, GatherState) || IsA(node, GatherMergeState))
	{
		Gathering  *gathering = palloc(sizeof(Gathering));

		gathering->node = node;
		gathering->exec = node->ExecProcNodeReal;
		gathering->segment = DSM_HANDLE_INVALID;
		gathering->next = leader->gatherings;
		leader->gatherings = gathering;
		ExecSetExecProcNode(node, exec_gathering);
	}
	return planstate_tree_walker(node, find_gatherings, context);
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
	leader->taken = NULL;
	callback->func = forget_leader;
	callback->arg = leader;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, callback);
	leader->next = leaders;
	leaders = leader;
	(void) find_gatherings(query->planstate, leader);
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

	LWLockAcquire(&reports->lock, LW_EXCLUSIVE);
	add_up(report_of(segment, node->plan->plan_node_id), stat, distance);
	LWLockRelease(&reports->lock);
}

void
nxm_prefetch_parallel_add(const PlanState *node,
						  int64 stat[NXM_NUM_PREFETCH_STATS], int *distance)
{
	Leader	   *leader = leader_of(node->state);
	Taken	   *taken;

	if (leader == NULL)
		return;
	for (Gathering *g = leader->gatherings; g != NULL; g = g->next)
		take_reports(leader, g);
	taken = taken_of(leader, node->plan->plan_node_id);
	if (taken == NULL)
		return;
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		stat[i] += taken->report.stat[i];
	*distance = Max(*distance, taken->report.distance);
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
	reports->nentries = 0;
}
