/*
 * worker.c
 *	  The background worker "nexusmem".
 *
 * It places the background processes that run no hook of ours, frees the homes
 * of processes that ended without a word, and renews pins that were lost.  It
 * connects to no database, starts with the server (on a standby too), and sleeps
 * until SIGHUP while pinning is off.
 *
 * Limits: where max_worker_processes leaves no room PostgreSQL logs that there are
 * too many background workers, and does not start it; status tells that it is this one.
 * Everything else works without it.
 */
#include "worker.h"

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "scheduler.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#define PASS_INTERVAL_MS 1000

typedef struct WorkerShared
{
	pg_atomic_uint32 pid;		/* single writer: the worker */
} WorkerShared;

static WorkerShared *shared = NULL;

int
nxm_worker_pid(void)
{
	return shared == NULL ? 0 : (int) pg_atomic_read_u32(&shared->pid);
}

static void
leave(int code, Datum arg)
{
	(void) code;
	(void) arg;
	pg_atomic_write_u32(&shared->pid, 0);
}

void
nxm_worker_main(Datum arg)
{
	(void) arg;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(leave, 0);
	pg_atomic_write_u32(&shared->pid, MyProcPid);
	nxm_scheduler_place_worker();

	for (;;)
	{
		int			placed = nxm_scheduler_background_pass();
		bool		idle = placed == 0 && !nxm_enable_numa_optimizations;

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (idle ? 0 : WL_TIMEOUT),
						 idle ? -1 : PASS_INTERVAL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		/* not 0, or the postmaster would never start it again */
		if (ShutdownRequestPending)
			proc_exit(1);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

Size
nxm_worker_size(void)
{
	return sizeof(WorkerShared);
}

void
nxm_worker_shmem_init(void *ptr, bool found)
{
	shared = ptr;
	if (!found)
		pg_atomic_init_u32(&shared->pid, 0);
}

void
nxm_worker_init(void)
{
	BackgroundWorker worker;

	if (!process_shared_preload_libraries_in_progress)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "nexusmem", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "nxm_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "nexusmem", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "nexusmem", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
