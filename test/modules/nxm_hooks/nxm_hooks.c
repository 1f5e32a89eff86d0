/*
 * nxm_hooks.c
 *	  An extension that gives a query another plan while the executor starts.
 *
 * Loaded before nexusmem, its hook runs inside that of nexusmem.  With
 * nxm_hooks.replace on, the PlannedStmt that the executor has begun is replaced by
 * a copy; at the executor's end a NOTICE tells whether the query still has it.
 *
 * Limits: one query at a time.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static bool replace = false;
static PlannedStmt *ours = NULL;
static ExecutorStart_hook_type prev_start = NULL;
static ExecutorEnd_hook_type prev_end = NULL;

static void
executor_start(QueryDesc *query, int eflags)
{
	if (prev_start)
		prev_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	ours = NULL;
	if (replace)
	{
		ours = MemoryContextAlloc(query->estate->es_query_cxt, sizeof(*ours));
		*ours = *query->plannedstmt;
		query->plannedstmt = ours;
	}
}

static void
executor_end(QueryDesc *query)
{
	if (ours != NULL)
		ereport(NOTICE,
				(errmsg("the plan is %s", query->plannedstmt == ours ?
						"still the other extension's" : "not the other extension's")));
	ours = NULL;
	if (prev_end)
		prev_end(query);
	else
		standard_ExecutorEnd(query);
}

void
_PG_init(void)
{
	DefineCustomBoolVariable("nxm_hooks.replace", "Replaces plans.", NULL,
							 &replace, false, PGC_USERSET, 0, NULL, NULL, NULL);
	prev_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_end = ExecutorEnd_hook;
	ExecutorEnd_hook = executor_end;
}
