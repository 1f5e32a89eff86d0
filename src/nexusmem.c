/*
 * nexusmem.c
 *	  _PG_init: what there is, and the hooks that several features share.
 */
#include "postgres.h"

#include "api.h"
#include "arena.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "memory_worker.h"
#include "miscadmin.h"
#include "nodes.h"
#include "placement.h"
#include "prefetch_explain.h"
#include "prefetch_index.h"
#include "prefetch_learned.h"
#include "prefetch_nestloop.h"
#include "prefetch_parallel.h"
#include "prefetch_stats.h"
#include "predictor_area.h"
#include "registry.h"
#include "save.h"
#include "scheduler.h"
#include "shmem.h"
#include "single_flight.h"
#include "slot.h"
#include "status.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "worker.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static const NxmShmemModule modules[] = {
	{"nexusmem slots", nxm_slots_size, NULL, nxm_slots_shmem_init},
	{"nexusmem scheduler", nxm_scheduler_size, NULL, nxm_scheduler_shmem_init},
	{"nexusmem prefetch", nxm_prefetch_stats_size, nxm_prefetch_stats_extra,
	nxm_prefetch_stats_shmem_init},
	{"nexusmem prefetch of workers", nxm_prefetch_parallel_size, NULL,
	nxm_prefetch_parallel_shmem_init},
	{"nexusmem arena", nxm_arena_size, NULL, nxm_arena_shmem_init},
	{"nexusmem save", nxm_save_size, NULL, nxm_save_shmem_init},
	{"nexusmem predictor", nxm_predictor_area_size, NULL,
	nxm_predictor_area_shmem_init},
	{"nexusmem worker", nxm_worker_size, NULL, nxm_worker_shmem_init},
	{"nexusmem memory worker", nxm_memory_worker_size, NULL,
	nxm_memory_worker_shmem_init},
};

static ExecutorStart_hook_type prev_executor_start = NULL;
static ExecutorRun_hook_type prev_executor_run = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;

static void
executor_start(QueryDesc *query, int eflags)
{
	PlannedStmt *own_plan = query->plannedstmt;
	PlannedStmt *our_plan;
	MemoryContext plan_context;

	nxm_scheduler_statement();
	plan_context = nxm_prefetch_nestloop_plan(query, eflags);
	our_plan = query->plannedstmt;
	if (prev_executor_start)
		prev_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	nxm_prefetch_nestloop_started(query, own_plan, our_plan, plan_context);
	nxm_prefetch_index_start(query, eflags);
	if (unlikely(query->estate->es_instrument != 0))
		nxm_prefetch_parallel_start(query);
	nxm_flight_statement(query);
}

static void
executor_run(NXM_EXECUTOR_RUN_ARGS)
{
	nxm_prefetch_nestloop_run(query, count);
	nxm_prefetch_index_run(query, count);
	if (prev_executor_run)
		prev_executor_run(NXM_EXECUTOR_RUN_PASS);
	else
		standard_ExecutorRun(NXM_EXECUTOR_RUN_PASS);
	if (query->plannedstmt->parallelModeNeeded)
		nxm_learned_parallel_ran();
	if (unlikely(query->estate->es_instrument != 0))
	{
		nxm_prefetch_explain_ran(query);
		nxm_prefetch_nestloop_ran(query);
	}
}

static void
process_utility(PlannedStmt *stmt, const char *query, bool read_only,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Oid			database;

	nxm_scheduler_statement();
	database = nxm_memory_worker_utility(stmt->utilityStmt);
	if (prev_process_utility)
		prev_process_utility(stmt, query, read_only, context, params, env,
							 dest, qc);
	else
		standard_ProcessUtility(stmt, query, read_only, context, params, env,
								dest, qc);
	if (unlikely(OidIsValid(database)))
		nxm_memory_worker_database_dropped(database);
}

static void
install_hooks(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	if (process_shared_preload_libraries_in_progress)
	{
		prev_process_utility = ProcessUtility_hook;
		ProcessUtility_hook = process_utility;
	}
}

void
_PG_init(void)
{
	nxm_nodes_init();
	nxm_scheduler_init();
	nxm_placement_init();
	nxm_arena_init();
	nxm_registry_init();
	nxm_prefetch_index_init();
	nxm_prefetch_nestloop_init();
	nxm_prefetch_stats_init();
	nxm_prefetch_explain_init();
	nxm_predictor_area_init();
	nxm_save_init();
	nxm_worker_init();
	nxm_memory_worker_init();
	nxm_api_init();
	nxm_shmem_init(modules, lengthof(modules), nxm_placement_apply);
	nxm_status_init();
	install_hooks();

	/*
	 * Loaded later, postgresql.conf may rightly hold settings that are not
	 * defined now; reserving the prefix would complain of them.
	 */
	if (process_shared_preload_libraries_in_progress)
		MarkGUCPrefixReserved("nexusmem");
}
