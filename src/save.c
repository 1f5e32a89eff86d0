/*
 * save.c
 *	  Survival of the shared structures: whether there is something to load, and who
 *	  may use the structures when.  save_write.c writes the file, load.c reads it.
 *
 * The rule is that of unlogged tables.  After a clean shutdown everything is
 * there again; after a crash the structures are empty, for an older copy would
 * count twice, and the caches, for it would serve what was deleted.  So the file is
 * renamed before it is loaded and removed once it was, no start loads one that was
 * renamed, and none loads a file unless pg_control says that the last shutdown was clean.
 *
 * Start.  The postmaster looks, while it makes shared memory, which is before
 * recovery changes pg_control.  A file that is good becomes PENDING.  Whoever
 * needs the structures first, mostly our worker, makes that LOADING, loads, and
 * says DONE; the others sleep on a condition variable until then.  A loader that
 * is cancelled or dies names the file as before and makes it PENDING again, and the next
 * one starts over: the file goes last.  So a session leaves it to the worker, if there is
 * one and it comes within some seconds: no statement_timeout ends that one's load.  Files
 * that cannot be loaded are put beside, which the log is told, and no client.
 *
 * Shutdown.  Our worker is told by SIGTERM, and tells a shutdown of the server from
 * a signal to itself by the line in postmaster.pid that the postmaster writes
 * before it signals anybody.  It waits until no process is left that has used the
 * structures, for these may have something to undo when they abort.  That does not
 * prolong a shutdown, since the postmaster waits for the same processes.  (For
 * connections that have used nothing it waits only CLIENTS_LIMIT_MS: they cannot
 * be told from a kind of process that ends after us.)
 *
 * Then the worker says CLOSED, closes the registry and looks at every process's
 * epoch until it was in no section once.  A section that begins later sees the
 * registry closed, one that follows a lookup from before as well: its process comes
 * here, and gets an error.  From then on the structures stand still.
 *
 * Should the worker be started again in the same life of the server, it was no
 * shutdown: the worker removes the file and says DONE.
 *
 * A shutdown before the file was loaded says KEPT: nobody loads it any more, and a load
 * under way comes to nothing.
 *
 * What cannot be loaded is left where it is should it have no other name to be given: with
 * another magic, so that the next start does not load it, for tables go on meanwhile.  What is
 * older than a crash or has been loaded is removed, or loses its header.  Where not even that
 * can be done, as in a directory that nobody may write to, the next clean shutdown does it,
 * for the start after that one would load it.
 *
 * The state and the loader are changed by compare-and-exchange, CLOSED excepted,
 * which only the one worker says, after DONE, and takes back, as it does KEPT.
 *
 * Limits: saving gives up where a process is stopped inside a section.  A walsender of a
 * logical client is not waited for: it outlives the save, and gets the error.  A server
 * that stops itself at a recovery target does not write the line, and saves nothing.
 * Single-user mode neither loads nor saves: the file waits.
 */
#include "save.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "compat.h"
#include "memory_worker.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "save_file.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/pidfile.h"
#include "utils/wait_event.h"

#define CLIENTS_LIMIT_MS	10000	/* for connections to end that used nothing */
#define SECTIONS_LIMIT_MS	2000	/* for sections to end */
#define POLL_MS				10
#define ASK_WORKER			5	/* times, a second each, to load */

typedef struct SaveShared
{
	pg_atomic_uint32 state;		/* NxmLoadState */
	pg_atomic_uint32 loader;	/* pid while LOADING; a hint, see loader_exit() */
	pg_atomic_uint32 attempts;	/* to load; changed by the loader */
	/* single writer: the postmaster at the start, then the loader */
	pg_atomic_uint32 refused;
	pg_atomic_uint32 loaded;
	pg_atomic_uint32 dropped;
	/*
	 * Is there a file that must not be loaded, and could not be removed or marked?  Single
	 * writer: the postmaster at the start, then the loader, then the worker.
	 */
	pg_atomic_uint32 stale;		/* 0, or: */
#define STALE_GOOD			1	/* one that may be loaded if somebody wants to */
#define STALE_BAD			2
	ConditionVariable changed;	/* state did */
} SaveShared;

int			nxm_save_what = NXM_SAVE_STRUCTURES;

const NxmSavedFile nxm_structures_file = {
	NXM_SAVED_FILE_NAMES("structures"),
	.what = "saved structures",
	.magic = "NXMSAVE",
	.format = 2,
	.oldest_format = 1
};

static const struct config_enum_entry save_options[] = {
	{"off", NXM_SAVE_OFF, false},
	{"structures", NXM_SAVE_STRUCTURES, false},
	{"all", NXM_SAVE_ALL, false},
	{NULL, 0, false}
};

static SaveShared *shared = NULL;
static bool loading = false;	/* this process is the loader */
static bool taken = false;		/* and has given the file its other name */
static bool settled = false;	/* and has loaded it, or will not */
static bool exit_registered = false;

/*
 * State
 */

static NxmLoadState
state_now(void)
{
	return (NxmLoadState) pg_atomic_read_u32(&shared->state);
}

static void
set_state(NxmLoadState state)
{
	pg_atomic_exchange_u32(&shared->state, state);
	ConditionVariableBroadcast(&shared->changed);
}

/* Keeps a file that is not loaded; where it must not be later, that is seen to. */
static void
put_beside(const char *path, const char *why, NxmRefused what)
{
	pg_atomic_write_u32(&shared->refused, 1);
	if (!nxm_saved_refuse(&nxm_structures_file, path, why, what))
		pg_atomic_write_u32(&shared->stale,
							what == NXM_REFUSED_LEFT ? STALE_GOOD : STALE_BAD);
}

/*
 * The file, while it is loaded.  It has another name from before anything is made of it,
 * so that it can never be loaded at a later start as well: not should it turn out that it
 * cannot be removed.
 */

/* Without an error, which a file opened for a transaction may raise. */
static bool
flush_directory(void)
{
	int			fd = BasicOpenFile(NXM_SAVED_DIR, O_RDONLY | PG_BINARY);
	/* what PostgreSQL's own puts up with, where directories cannot be flushed */
	bool		ok = fd < 0 ? errno == EISDIR || errno == EACCES :
		pg_fsync(fd) == 0 || errno == EBADF || errno == EINVAL;
	int			save_errno = errno;

	if (fd >= 0)
		close(fd);
	errno = save_errno;
	return ok;
}

/* Returns why it cannot be loaded; NULL: all is well. */
static const char *
take_file(void)
{
	nxm_begin_operation();
	taken = rename(nxm_structures_file.path, NXM_STRUCTURES_LOADING) == 0;
	nxm_end_operation();
	if (!taken)
		return psprintf("it could not be renamed to \"%s\": %m",
						NXM_STRUCTURES_LOADING);
	if (!flush_directory())
		return psprintf("its directory could not be flushed: %m");
	return NULL;
}

/* For another attempt. */
static void
put_back_file(void)
{
	if (taken &&
		(rename(NXM_STRUCTURES_LOADING, nxm_structures_file.path) != 0 ||
		 !flush_directory()))
		ereport(LOG_SERVER_ONLY,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m",
						NXM_STRUCTURES_LOADING, nxm_structures_file.path)));
	taken = false;
}

/*
 * Ends this process's load.  The structures may be used if it is settled that they are
 * all there, otherwise others try; neither where the file is to be kept.
 */
static void
end_load(void)
{
	uint32		expected = NXM_LOAD_LOADING;

	/* what is said of the file ends with a look at them, and the state is yet to change */
	HOLD_INTERRUPTS();
	if (!settled)
		put_back_file();
	nxm_begin_operation();
	/* a barrier: whatever was loaded is there before DONE is seen */
	if (!pg_atomic_compare_exchange_u32(&shared->state, &expected,
										settled ? NXM_LOAD_DONE : NXM_LOAD_PENDING))
		settled = false;
	loading = false;
	nxm_end_operation();
	ConditionVariableBroadcast(&shared->changed);
	/* last: without it they are gone */
	if (!settled)
		put_back_file();
	else if (taken && pg_atomic_read_u32(&shared->dropped) > 0)
	{
		char		why[64];

		snprintf(why, sizeof(why), "%u of %u could not be loaded",
				 pg_atomic_read_u32(&shared->dropped),
				 pg_atomic_read_u32(&shared->loaded));
		put_beside(NXM_STRUCTURES_LOADING, why, NXM_REFUSED_STAYS);
	}
	else if (taken)
		(void) durable_unlink(NXM_STRUCTURES_LOADING, LOG_SERVER_ONLY);
	taken = false;
	RESUME_INTERRUPTS();
}

static void
loader_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	if (loading && pg_atomic_read_u32(&shared->loader) == (uint32) MyProcPid)
		end_load();
}

/* Does pg_control, not yet changed by this start, tell of a clean shutdown? */
static bool
shutdown_was_clean(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		clean = crc_ok &&
		(control->state == DB_SHUTDOWNED ||
		 control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pfree(control);
	return clean;
}

/* In the postmaster, at a start of the server and after a crash. */
static void
look_for_file(void)
{
	struct stat st;

	if (!IsPostmasterEnvironment)
		return;
	(void) unlink(nxm_structures_file.tmp);	/* of a save that was cut short */
	if (lstat(NXM_STRUCTURES_LOADING, &st) == 0)
		put_beside(NXM_STRUCTURES_LOADING,
				   "the server ended in the middle of it, or it could not be removed afterwards",
				   NXM_REFUSED_STAYS);
	if (stat(nxm_structures_file.path, &st) != 0)
	{
		if (errno != ENOENT && errno != ENOTDIR)
		{
			const char *why = psprintf("it could not be looked for: %m");

			put_beside(nxm_structures_file.path, why,
					   shutdown_was_clean() ? NXM_REFUSED_LEFT : NXM_REFUSED_FOR_EVER);
		}
		return;
	}
	if (shutdown_was_clean())
		pg_atomic_write_u32(&shared->state, NXM_LOAD_PENDING);
	else
		put_beside(nxm_structures_file.path,
				   "the server was not shut down cleanly after they were saved",
				   NXM_REFUSED_FOR_EVER);
}

void
nxm_load_wait(void)
{
	int			asked = 0;

	if (likely(shared == NULL || state_now() == NXM_LOAD_DONE) || loading)
		return;

	for (;;)
	{
		NxmLoadState state = state_now();

		if (state == NXM_LOAD_DONE)
			break;
		if (state == NXM_LOAD_CLOSED || state == NXM_LOAD_KEPT)
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("shared structures are closed: the server is shutting down")));
		}
		if (state == NXM_LOAD_PENDING)
		{
			int			worker = nxm_memory_worker_pid();

			/* a load that statement_timeout ends is begun anew: better by the worker */
			if (worker == 0 || worker == MyProcPid || ++asked > ASK_WORKER)
			{
				ConditionVariableCancelSleep();
				if (nxm_load_now(NULL))
					return;
				continue;
			}
			nxm_memory_worker_wake();
		}
		/* timed, should the loader end without a word */
		(void) ConditionVariableTimedSleep(&shared->changed, 1000,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

void
nxm_load_settle(void)
{
	NxmLoadState state = shared == NULL ? NXM_LOAD_DONE : state_now();

	if (state == NXM_LOAD_PENDING || state == NXM_LOAD_LOADING)
		nxm_load_wait();
}

/* Tells what came of it, and puts beside what cannot be loaded at all. */
static void
settle(const NxmLoadResult *result)
{
	bool		was_taken = taken;

	/* what is put beside is not removed */
	taken = taken && result->refused == NULL;
	pg_atomic_write_u32(&shared->loaded, result->objects);
	pg_atomic_write_u32(&shared->dropped, result->dropped);
	settled = true;
	if (result->refused != NULL)
	{
		/* no start loads one that was taken */
		if (was_taken)
			put_beside(NXM_STRUCTURES_LOADING, result->refused, NXM_REFUSED_STAYS);
		else
			put_beside(nxm_structures_file.path, result->refused, NXM_REFUSED_LEFT);
		return;
	}
	ereport(LOG_SERVER_ONLY,
			(errmsg_plural("loaded %u of %u saved structure",
						   "loaded %u of %u saved structures",
						   result->objects,
						   result->objects - result->dropped, result->objects)));
}

bool
nxm_load_now(volatile sig_atomic_t *stop)
{
	uint32		expected = NXM_LOAD_PENDING;

	if (shared == NULL || state_now() == NXM_LOAD_DONE)
		return true;
	if (!exit_registered)
	{
		before_shmem_exit(loader_exit, 0);
		exit_registered = true;
	}
	/* from here on signals can be held */
	(void) nxm_space();
	nxm_begin_operation();
	if (pg_atomic_compare_exchange_u32(&shared->state, &expected,
									   NXM_LOAD_LOADING))
	{
		pg_atomic_write_u32(&shared->loader, (uint32) MyProcPid);
		loading = true;
		taken = settled = false;
	}
	nxm_end_operation();
	if (!loading)
		return expected == NXM_LOAD_DONE;

	PG_TRY();
	{
		NxmLoadResult result = {0};

		if (pg_atomic_fetch_add_u32(&shared->attempts, 1) > 0)
			nxm_load_undo(stop);
		result.refused = take_file();
		if (result.refused == NULL)
			nxm_load_file(stop, &result);
		if (!result.stopped)
		{
			HOLD_INTERRUPTS();
			settle(&result);
			RESUME_INTERRUPTS();
		}
	}
	PG_FINALLY();
	{
		end_load();
	}
	PG_END_TRY();
	return settled;
}

void
nxm_save_report(NxmSaveReport *report)
{
	memset(report, 0, sizeof(*report));
	if (shared == NULL)
		return;
	report->state = state_now();
	report->loaded = pg_atomic_read_u32(&shared->loaded);
	report->dropped = pg_atomic_read_u32(&shared->dropped);
	report->refused = pg_atomic_read_u32(&shared->refused) != 0;
}

/*
 * Shutting down
 */

bool
nxm_server_stopping(void)
{
	FILE	   *file = AllocateFile("postmaster.pid", "r");
	char		line[MAXPGPATH];
	bool		stopping = false;

	if (file == NULL)
		return false;
	for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++)
	{
		if (i == LOCK_FILE_LINE_PM_STATUS)
		{
			stopping = strncmp(line, PM_STATUS_STOPPING,
							   strlen(PM_STATUS_STOPPING)) == 0;
			break;
		}
	}
	FreeFile(file);
	return stopping;
}

static bool
is_walsender(int pid)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		/* one word; a walsender does not come or go while we look */
		if (WalSndCtl->walsnds[i].pid == pid)
			return true;
	}
	return false;
}

/* Is there a process, apart from us and walsenders, that has used structures? */
static bool
users_left(NxmSpace *space)
{
	NxmProcScan scan = {0, 0};
	int			proc;

	while ((proc = nxm_next_proc(space, &scan)) >= 0)
	{
		int			pid = (int) nxm_load_relaxed(&space->lines[proc].owner);

		if (pid != 0 && pid != MyProcPid && !is_walsender(pid) &&
			BackendPidGetProc(pid) != NULL)
			return true;
	}
	return false;
}

/*
 * Connections.  A backend that has detached from the space and has yet to abort is
 * one until that is done.
 */
static bool
connections_left(void)
{
	int			n = CountDBConnections(InvalidOid);

	for (int i = 0; i < max_wal_senders; i++)
	{
		pid_t		pid = WalSndCtl->walsnds[i].pid;
		PGPROC	   *proc = pid == 0 ? NULL : BackendPidGetProc(pid);

		if (proc != NULL && nxm_is_counted_connection(proc))
			n--;
	}
	return n > 0;
}

bool
nxm_save_may_begin(int64 since)
{
	if (shared == NULL || nxm_save_what == NXM_SAVE_OFF)
		return true;
	return !users_left(nxm_space()) &&
		(!connections_left() || nxm_steady_ms() >= since + CLIENTS_LIMIT_MS);
}

/* Sleeps for a poll.  false: it is time, by nxm_steady_ms(). */
static bool
poll_until(int64 limit)
{
	if (nxm_steady_ms() >= limit)
		return false;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 POLL_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();		/* barriers; nothing here ends us */
	return true;
}

/* Keeps everybody out.  false: a process does not leave its section. */
static bool
close_structures(NxmSpace *space)
{
	int64		limit = nxm_steady_ms() + SECTIONS_LIMIT_MS;
	NxmProcScan scan = {0, 0};
	int			proc;

	/* in this order: who finds the registry closed comes to see CLOSED */
	set_state(NXM_LOAD_CLOSED);
	nxm_registry_close();

	while ((proc = nxm_next_proc(space, &scan)) >= 0)
	{
		if (proc == space->proc)
			continue;
		/* acquire: what the section did is seen */
		while (nxm_load(&space->lines[proc].epoch) != 0)
		{
			if (!poll_until(limit))
				return false;
		}
	}
	return true;
}

/* In the log: why structures or caches are not in the file. */
static void
tell_not_saved(const char *what, const char *why, int err)
{
	errno = err;
	if (err != 0)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("%s were not saved: %s: %m", what, why)));
	else
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s were not saved: %s", what, why)));
}

static void
save(void)
{
	NxmSpace   *space = nxm_space();
	NxmSaveResult result = {0};
	uint32		state = state_now();

	/*
	 * The file is there yet, and nothing else is.  Nor may it be loaded now, by a process
	 * that outlives us, since nobody would save that.
	 */
	while (state == NXM_LOAD_PENDING || state == NXM_LOAD_LOADING)
	{
		if (pg_atomic_compare_exchange_u32(&shared->state, &state, NXM_LOAD_KEPT))
		{
			ConditionVariableBroadcast(&shared->changed);
			return;
		}
	}

	if (!close_structures(space))
		result.what_failed = "a process is stopped in the middle of an operation";
	else if (nxm_load(&space->shared->nchunks) > 0)
	{
		nxm_save_write(nxm_save_what == NXM_SAVE_ALL, &result);
		if (result.what_failed == NULL && result.objects > 0)
			ereport(LOG,
					(errmsg_plural("saved %u shared structure, %llu bytes",
								   "saved %u shared structures, %llu bytes",
								   result.objects, result.objects,
								   (unsigned long long) result.length)));
		/* whatever was there was replaced */
		if (result.what_failed == NULL && result.objects > 0)
			pg_atomic_write_u32(&shared->stale, 0);
		if (result.what_failed == NULL && result.cut_short)
			ereport(LOG,
					(errmsg("some entries of caches were not saved, for it would have taken too long")));
	}
	if (result.what_failed != NULL)
		tell_not_saved("shared structures", result.what_failed, result.failed_errno);
	else if (result.caches_failed != NULL)
		tell_not_saved("caches", result.caches_failed, result.caches_errno);
}

/*
 * Sees to what must not be loaded, and could not be removed, marked or replaced before.
 * One that may be good is removed only where it cannot be kept.
 */
static void
discard_stale(void)
{
	if (pg_atomic_read_u32(&shared->stale) == 0)
		return;
	(void) chmod(NXM_SAVED_DIR, pg_dir_create_mode);
	if ((pg_atomic_read_u32(&shared->stale) == STALE_GOOD &&
		 nxm_saved_leave(&nxm_structures_file)) ||
		nxm_saved_discard(nxm_structures_file.path))
		pg_atomic_write_u32(&shared->stale, 0);
	else
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m",
						nxm_structures_file.path),
				 errdetail("It is out of date, and the next start would load it."),
				 errhint("Remove it before the server is started.")));
}

void
nxm_save_now(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (shared == NULL)
		return;
	if (nxm_save_what == NXM_SAVE_OFF)
	{
		discard_stale();
		return;
	}
	PG_TRY();
	{
		save();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("shared structures were not saved: %s",
						error->message)));
		(void) unlink(nxm_structures_file.tmp);
	}
	PG_END_TRY();
	discard_stale();
}

void
nxm_save_reopen(void)
{
	if (shared != NULL && state_now() == NXM_LOAD_KEPT)
		set_state(NXM_LOAD_PENDING);
	if (shared == NULL || state_now() != NXM_LOAD_CLOSED)
		return;
	if (!nxm_saved_discard(nxm_structures_file.path))
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m",
						nxm_structures_file.path)));
		pg_atomic_write_u32(&shared->stale, STALE_BAD);
	}
	nxm_registry_reopen();
	set_state(NXM_LOAD_DONE);
}

/*
 * Setting up
 */

Size
nxm_save_size(void)
{
	return sizeof(SaveShared);
}

void
nxm_save_shmem_init(void *ptr, bool found)
{
	shared = ptr;
	if (found)
		return;
	pg_atomic_init_u32(&shared->state, NXM_LOAD_DONE);
	pg_atomic_init_u32(&shared->loader, 0);
	pg_atomic_init_u32(&shared->attempts, 0);
	pg_atomic_init_u32(&shared->refused, 0);
	pg_atomic_init_u32(&shared->loaded, 0);
	pg_atomic_init_u32(&shared->dropped, 0);
	pg_atomic_init_u32(&shared->stale, 0);
	ConditionVariableInit(&shared->changed);
	if (!IsUnderPostmaster)
		look_for_file();
}

void
nxm_save_init(void)
{
	DefineCustomEnumVariable("nexusmem.save",
							 "What a clean shutdown saves of the shared structures and caches.",
							 "The next start loads it. After a crash they are empty.",
							 &nxm_save_what, NXM_SAVE_STRUCTURES, save_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}
