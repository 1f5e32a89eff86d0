/*
 * memory_worker.c
 *	  The background worker "nexusmem memory".
 *
 * It loads what the last shutdown saved, frees what others left half freed, puts
 * new limits into force, keeps the caches in order (what has expired, what has to give
 * way), drops the structures of databases that were dropped where no backend did that (on the
 * primary of a standby, or in a life of the server without us), gives those of dropped roles away, and saves when the server stops.  It
 * also looks after the learned predictor (predictor_area.c), which is not one of the
 * structures and may be there without them.
 *
 * It is connected to no database, so that it stands in nobody's way, and reads
 * shared catalogs only; it works on a standby as well.  DROP DATABASE waits for
 * every process to answer a barrier: so everything here that takes long looks for
 * interrupts.
 *
 * It passes every PASS_INTERVAL_MS as long as there is any memory of ours, or more often
 * while there are caches with something in them (caches.c), and looks at the
 * catalogs every RECONCILE_INTERVAL_MS or when somebody said that a role or a
 * database may be gone.  Without memory there is nothing to look after, and it
 * sleeps until its latch is set: by whoever is about to use structures, just
 * before there is memory, so it passes some times more before it sleeps again.  One
 * who looked whether it sleeps before it did is noticed within IDLE_INTERVAL_MS.
 *
 * SIGTERM comes from the postmaster, or from anybody: from a superuser, or from what
 * signals all processes of a server that it stops, the postmaster among them.  A
 * shutdown that finds no worker saves nothing, and a line in postmaster.pid tells of
 * one only when the postmaster has got to write it.  So the worker stays for some
 * seconds, and begins nothing: the postmaster's own signal comes after the line.  A
 * shutdown at a recovery target never writes it, and must not be held up.
 *
 * Limits: it is not there for a second after it has ended otherwise than by a shutdown.
 * Where max_worker_processes leaves no room there is none at all, which the log tells at
 * the start and status later.  Then backends load what was saved, nothing is saved, and
 * catalogs are looked at by each session that comes to use structures, once, and by who
 * finds no memory.
 *
 * Whether the worker is there or not, CREATE DATABASE looks at them first, for nobody could
 * tell later that what is there of an OID was another database's.
 */
#include "memory_worker.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "arena.h"
#include "caches.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "predictor_area.h"
#include "registry.h"
#include "save.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "subtransaction.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* that freeing what was dropped takes in a pass, for caches have deadlines to keep */
#define DRAIN_MS				50
#define DRAIN_PAUSE_MS			1
/* less than the second in which what a cache had no time to notice is reclaimed */
#define PASS_INTERVAL_MS		750
#define RECONCILE_INTERVAL_MS	10000
#define COMPLAINT_INTERVAL_MS	60000
#define IDLE_INTERVAL_MS		60000
#define STOP_INTERVAL_MS		10
/* after a SIGTERM, for the server to say that it stops */
#define STAY_MS					5000
#define STAY_AT_TARGET_MS		500
/* s; not 0, for a worker that fails as it starts would do so without end */
#define RESTART_INTERVAL		1
/* of a catalog, by whoever has locked it: a shutdown waits for the worker as long */
#define LOCK_LIMIT				"1s"
/* passes that the worker makes after it was told to expect memory */
#define PASSES_TO_EXPECT		10

typedef struct MemoryWorkerShared
{
	pg_atomic_uint32 pid;		/* single writer: the worker */
	/* set by anybody, taken by the worker: catalogs may have changed */
	pg_atomic_uint32 reconcile;
	/* set by the worker, taken by anybody: it sleeps for want of memory */
	pg_atomic_uint32 idle;
} MemoryWorkerShared;

static MemoryWorkerShared *shared = NULL;

/* In a backend: its transaction has dropped a database or a role. */
static bool drop_pending = false;
static bool xact_callback_registered = false;

int
nxm_memory_worker_pid(void)
{
	return shared == NULL ? 0 : (int) pg_atomic_read_u32(&shared->pid);
}

void
nxm_memory_worker_wake(void)
{
	int			pid = nxm_memory_worker_pid();
	PGPROC	   *proc = pid == 0 ? NULL : BackendPidGetProc(pid);

	/* should it have ended meanwhile, somebody else looks up once */
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

/*
 * May a backend, in the middle of whatever it does, compare the structures with the catalogs?
 * Not by those of another time, nor by what its own transaction has dropped, and may have
 * back.  A load must raise no errors of catalogs, and a parallel worker has a leader.
 */
static bool
may_reconcile(void)
{
	NxmSaveReport report;

	nxm_save_report(&report);
	return report.state == NXM_LOAD_DONE && IsTransactionState() &&
		/* a catalog may be locked for long */
		InterruptHoldoffCount == 0 && !IsParallelWorker() && !HistoricSnapshotActive() && !drop_pending;
}

/* In a backend that may.  drain: begin to free what it drops.  false: there was nothing to change. */
static bool
reconcile_here(bool drain)
{
	static bool busy = false;	/* a change may want memory itself */
	int			changed = 0;

	if (busy)
		return false;
	busy = true;
	PG_TRY();
	{
		changed = nxm_registry_reconcile();
		if (changed > 0 && drain)
			nxm_registry_help_drain(0);
	}
	PG_FINALLY();
	{
		busy = false;
	}
	PG_END_TRY();
	return changed > 0;
}

/* For the arena. */
static bool
last_resort(void)
{
	return nxm_memory_worker_pid() == 0 && may_reconcile() && reconcile_here(true);
}

/* For the registry, before a name is looked up. */
static void
before_use(void)
{
	static bool reconciled = false;

	nxm_load_wait();
	if (unlikely(nxm_memory_worker_pid() == 0) && !reconciled && may_reconcile())
	{
		/* an error is one statement's, not each one's */
		reconciled = true;
		(void) reconcile_here(true);
	}
	if (shared != NULL && unlikely(pg_atomic_read_u32(&shared->idle) != 0) &&
		pg_atomic_exchange_u32(&shared->idle, 0) != 0)
		nxm_memory_worker_wake();
}

static void
at_commit(XactEvent event, void *arg)
{
	(void) arg;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			if (drop_pending)
			{
				pg_atomic_write_u32(&shared->reconcile, 1);
				nxm_memory_worker_wake();
			}
			drop_pending = false;
			break;
		case XACT_EVENT_ABORT:
			drop_pending = false;
			break;
		default:
			break;
	}
}

Oid
nxm_memory_worker_utility(const Node *statement)
{
	if (shared == NULL)
		return InvalidOid;
	if (IsA(statement, CreatedbStmt))
	{
		nxm_load_settle();
		if (may_reconcile())
			(void) reconcile_here(false);
	}
	if (!IsA(statement, DropdbStmt) && !IsA(statement, DropRoleStmt) &&
		!IsA(statement, DropOwnedStmt))
		return InvalidOid;
	if (!xact_callback_registered)
	{
		RegisterXactCallback(at_commit, NULL);
		xact_callback_registered = true;
	}
	drop_pending = true;
	if (!IsA(statement, DropdbStmt))
		return InvalidOid;
	nxm_load_settle();
	return get_database_oid(((const DropdbStmt *) statement)->dbname, true);
}

static void
drop_structures(void *database)
{
	nxm_registry_drop_database(*(Oid *) database);
}

void
nxm_memory_worker_database_dropped(Oid database)
{
	/* its files are gone: nothing may keep the statement from its commit any more */
	HOLD_INTERRUPTS();
	CommandCounterIncrement();
	/* it was another one, should the name have changed hands before it was locked */
	if (get_database_name(database) == NULL)
		/* what is left then is for the worker to find */
		(void) nxm_catch(drop_structures, &database);
	RESUME_INTERRUPTS();
}

/*
 * SIGINT is lock_timeout, or pg_cancel_backend(), which is meant for a statement.  To end by
 * that would be wrong: until the worker is there again, a shutdown saves nothing.
 */
static void
handle_cancel(SIGNAL_ARGS)
{
	(void) postgres_signal_arg;
	if (!get_timeout_indicator(LOCK_TIMEOUT, false))
		return;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
leave(int code, Datum arg)
{
	(void) code;
	(void) arg;
	pg_atomic_write_u32(&shared->pid, 0);
}

/* What postgresql.conf says for sessions is not meant for our transactions. */
static void
override_settings(void)
{
	SetConfigOption("lock_timeout", LOCK_LIMIT, PGC_SUSET, PGC_S_OVERRIDE);
	/* a standby has no serializable ones */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
					PGC_S_OVERRIDE);
	/* of 17 and newer; it would end the worker */
	if (GetConfigOption("transaction_timeout", true, false) != NULL)
		SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
}

/* An error is no reason to end: it is tried again, and all else goes on. */
static void
reconcile(void)
{
	static TimestampTz complained = 0;
	MemoryContext context = CurrentMemoryContext;

	pgstat_report_activity(STATE_RUNNING, "reconciling shared structures");
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		(void) nxm_registry_reconcile();
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		TimestampTz now = GetCurrentTimestamp();
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		if (nxm_is_over(complained, now, COMPLAINT_INTERVAL_MS))
		{
			complained = now;
			ereport(WARNING,
					(errcode(error->sqlerrcode),
					 errmsg("nexusmem could not look for structures of dropped databases and roles: %s",
							error->message)));
		}
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Does what there is to do, and sets *wait to when there is more, in ms.  false:
 * there is no memory to look after.
 */
static bool
pass(TimestampTz *reconciled, long *wait)
{
	int			caches_wait;
	int64		drain_until;
	bool		more = false;

	NxmAnchor  *anchor = nxm_anchor_if_any();
	TimestampTz now = GetCurrentTimestamp();

	*wait = PASS_INTERVAL_MS;
	if (anchor == NULL)
		return false;
	/* a backend may be loading, or have given up loading */
	if (!nxm_load_now(&ShutdownRequestPending))
		return true;
	nxm_arena_tick();
	if (nxm_load(&nxm_space()->shared->nchunks) == 0)
		return false;

	if (pg_atomic_exchange_u32(&shared->reconcile, 0) != 0 ||
		nxm_is_over(*reconciled, now, RECONCILE_INTERVAL_MS))
	{
		*reconciled = now;
		reconcile();
	}
	drain_until = nxm_steady_ms() + DRAIN_MS;
	while (!ShutdownRequestPending &&
		   (more = nxm_registry_drain_some() == NXM_DRAIN_MORE) &&
		   nxm_steady_ms() < drain_until)
		CHECK_FOR_INTERRUPTS();
	caches_wait = nxm_caches_tick(&ShutdownRequestPending);
	if (caches_wait >= 0)
		*wait = Min(caches_wait, PASS_INTERVAL_MS);
	if (more)
		*wait = Min(*wait, DRAIN_PAUSE_MS);
	return true;
}

/* How long to sleep after a pass that wanted the next one after wait ms. */
static long
sleep_time(bool memory, long wait)
{
	static int	passes = 0;		/* without memory */

	/* at first, too: an idle server is woken a few times, then seldom */
	if (memory)
		passes = 0;
	else if (pg_atomic_read_u32(&shared->idle) != 0 ||
			 ++passes >= PASSES_TO_EXPECT)
	{
		passes = 0;
		pg_atomic_exchange_u32(&shared->idle, 1);
		return IDLE_INTERVAL_MS;
	}
	return wait;
}

/* How long to stay after a SIGTERM, while no shutdown is known of. */
static int
stay_time(void)
{
	const char *action = GetConfigOption("recovery_target_action", true, false);

	return RecoveryInProgress() && action != NULL && strcmp(action, "shutdown") == 0 ?
		STAY_AT_TARGET_MS : STAY_MS;
}

void
nxm_memory_worker_main(Datum arg)
{
	TimestampTz reconciled = 0;
	int64		leave_at = 0;	/* unless the server stops: we were told to end */
	int64		stopping = 0;	/* since when we know that the server stops */
	bool		waiting = false;	/* then: for others */
	MemoryContext context;

	(void) arg;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, handle_cancel);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	override_settings();

	before_shmem_exit(leave, 0);
	pg_atomic_write_u32(&shared->pid, MyProcPid);
	pg_atomic_write_u32(&shared->idle, 0);
	context = AllocSetContextCreate(TopMemoryContext, "nexusmem memory worker",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	nxm_save_reopen();

	for (;;)
	{
		long		timeout = STOP_INTERVAL_MS;
		bool		stop;

		if (stopping == 0 && leave_at == 0)
		{
			bool		memory = pass(&reconciled, &timeout);
			long		learned;

			MemoryContextSwitchTo(context);
			learned = nxm_predictor_area_tick();
			timeout = sleep_time(memory, timeout);
			if (learned >= 0 && learned < timeout)
				timeout = learned;
		}
		else if (stopping == 0)
		{
			/* a pass may load, which takes as long as it takes */
			timeout = Max(leave_at - nxm_steady_ms(), 0);
		}
		/* a lock that a pass has waited for may have taken the latch's wake-up */
		if (stopping == 0 && (ShutdownRequestPending || ConfigReloadPending))
			timeout = 0;
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		/* what was set before the shutdown says what is to be saved */
		stop = ShutdownRequestPending;
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (stop && stopping == 0)
		{
			/* before the look, so that the postmaster's own signal is noticed later */
			ShutdownRequestPending = false;
			if (nxm_server_stopping())
				stopping = nxm_steady_ms();
			else if (leave_at == 0)
				leave_at = nxm_steady_ms() + stay_time();
		}
		if (stopping == 0 && leave_at != 0 && nxm_steady_ms() >= leave_at)
		{
			/* takes a time, in which the server may begin to stop */
			nxm_predictor_area_save();
			/* not 0, or the postmaster would never start it again */
			if (!nxm_server_stopping())
				proc_exit(1);
			stopping = nxm_steady_ms();
		}
		if (stopping != 0)
		{
			ShutdownRequestPending = true;
			if (nxm_save_may_begin(stopping))
			{
				nxm_save_now();
				nxm_predictor_area_save();
				proc_exit(1);
			}
			/* for whoever wonders why, when no session can be had any more */
			if (!waiting)
				set_ps_display("waiting for sessions to end");
			waiting = true;
		}
	}
}

Size
nxm_memory_worker_size(void)
{
	return sizeof(MemoryWorkerShared);
}

void
nxm_memory_worker_shmem_init(void *ptr, bool found)
{
	shared = ptr;
	if (found)
		return;
	pg_atomic_init_u32(&shared->pid, 0);
	pg_atomic_init_u32(&shared->reconcile, 0);
	pg_atomic_init_u32(&shared->idle, 0);
}

void
nxm_memory_worker_init(void)
{
	BackgroundWorker worker;

	if (!process_shared_preload_libraries_in_progress)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = RESTART_INTERVAL;
	strlcpy(worker.bgw_library_name, "nexusmem", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "nxm_memory_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "nexusmem memory", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "nexusmem memory", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
	/* PostgreSQL logs that there are too many, not which, nor what it means */
	if (IsPostmasterEnvironment && !nxm_worker_is_registered(worker.bgw_name))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there is no room for the background worker \"%s\"",
						worker.bgw_name),
				 errdetail("Shared structures will not be saved when the server stops."),
				 errhint(NXM_HINT_WORKERS)));
	nxm_registry_load_hook = before_use;
	nxm_arena_last_resort_hook = last_resort;
}
