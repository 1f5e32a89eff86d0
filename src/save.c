/*
 * save.c
 *	  Survival of the shared structures: whether there is something to load, who
 *	  may use the structures when, and writing the file.  load.c reads it.
 *
 * The rule is that of unlogged tables.  After a clean shutdown everything is
 * there again; after a crash the structures are empty, for an older copy would
 * count twice, and the caches, for it would serve what was deleted.  So the file is removed as soon as it was loaded, and a start loads
 * it only if pg_control says that the last shutdown was clean.
 *
 * Start.  The postmaster looks, while it makes shared memory, which is before
 * recovery changes pg_control.  A file that is good becomes PENDING.  Whoever
 * needs the structures first, mostly our worker, makes that LOADING, loads, and
 * says DONE; the others sleep on a condition variable until then.  A loader that
 * is cancelled or dies makes it PENDING again, and the next one starts over: the
 * file goes last.  Files that cannot be loaded are put beside with a WARNING.
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
 * The state and the loader are changed by compare-and-exchange, CLOSED excepted,
 * which only the one worker says and takes back.
 *
 * Limits: saving gives up where a process is stopped inside a section, and after
 * WRITE_LIMIT_MS; of caches it saves what it can until CACHES_LIMIT_MS.  A walsender of a logical client is not waited for: it outlives
 * the save, and gets the error.  A server that stops itself at a recovery target
 * does not write the line, and saves nothing.  Single-user mode neither loads nor
 * saves: the file waits.
 */
#include "save.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "caches.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
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
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define CLIENTS_LIMIT_MS	10000	/* for connections to end that used nothing */
#define SECTIONS_LIMIT_MS	2000	/* for sections to end */
#define WRITE_LIMIT_MS		30000	/* for writing, fsync not counted */
#define CACHES_LIMIT_MS		20000	/* of these, until caches are cut short */
#define POLL_MS				10
#define BLOCK_SIZE			(256 * 1024)

typedef struct SaveShared
{
	pg_atomic_uint32 state;		/* NxmLoadState */
	pg_atomic_uint32 loader;	/* pid while LOADING; a hint, see loader_exit() */
	pg_atomic_uint32 attempts;	/* to load; changed by the loader */
	/* single writer: the postmaster at the start, then the loader */
	pg_atomic_uint32 refused;
	pg_atomic_uint32 loaded;
	pg_atomic_uint32 dropped;
	ConditionVariable changed;	/* state did */
} SaveShared;

int			nxm_save_what = NXM_SAVE_STRUCTURES;

static const struct config_enum_entry save_options[] = {
	{"off", NXM_SAVE_OFF, false},
	{"structures", NXM_SAVE_STRUCTURES, false},
	{"all", NXM_SAVE_ALL, false},
	{NULL, 0, false}
};

static SaveShared *shared = NULL;
static bool loading = false;	/* this process is the loader */
static bool exit_registered = false;

/* One save.  Private memory. */
typedef struct Saver
{
	NxmSpace   *space;
	TimestampTz deadline;
	TimestampTz caches_deadline;
	bool		caches;			/* it is their turn */
	bool		cut_short;		/* some entries of caches were left out */
	int			fd;
	char	   *block;			/* not written yet */
	size_t		block_used;
	uint64		length;			/* of the file so far, block included */
	pg_crc32c	body_crc;
	uint32		objects;

	/* the frame being filled */
	char	   *frame;			/* NXM_FRAME_MAX bytes, behind the frame itself */
	size_t		frame_used;
	uint32		frame_count;

	/* the entries of the bucket that a scan reads, as in a frame */
	char	   *bucket;
	size_t		bucket_size;
	size_t		bucket_used;
	size_t		wanted;			/* bucket_size that the last NEED_BUFFER was for */

	const char *what_failed;	/* NULL: all is well */
	int			failed_errno;	/* 0: what_failed says it all */
} Saver;

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
	/* a barrier: whatever was loaded is there before DONE is seen */
	pg_atomic_exchange_u32(&shared->state, state);
	ConditionVariableBroadcast(&shared->changed);
}

/* A loader that goes away lets others try. */
static void
loader_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	if (loading && pg_atomic_read_u32(&shared->loader) == (uint32) MyProcPid)
	{
		loading = false;
		set_state(NXM_LOAD_PENDING);
	}
}

/* Keeps a file that is not loaded. */
static void
put_beside(const char *why)
{
	pg_atomic_write_u32(&shared->refused, 1);
	/* what is no file at all cannot be renamed durably */
	if (durable_rename(NXM_SAVE_FILE, NXM_SAVE_REFUSED, DEBUG1) == 0 ||
		rename(NXM_SAVE_FILE, NXM_SAVE_REFUSED) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("saved structures in file \"%s\" were not loaded: %s",
						NXM_SAVE_FILE, why),
				 errhint("The file is kept as \"%s\" until another one is refused.",
						 NXM_SAVE_REFUSED)));
	else
	{
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("saved structures in file \"%s\" were not loaded: %s",
						NXM_SAVE_FILE, why),
				 errdetail("Could not rename it to \"%s\": %m",
						   NXM_SAVE_REFUSED)));
		/* It must not be loaded another time, so rather none. */
		(void) durable_unlink(NXM_SAVE_FILE, LOG);
	}
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
	(void) unlink(NXM_SAVE_TMP);	/* of a save that was cut short */
	if (stat(NXM_SAVE_FILE, &st) != 0)
		return;
	if (shutdown_was_clean())
		pg_atomic_write_u32(&shared->state, NXM_LOAD_PENDING);
	else
		put_beside("the server was not shut down cleanly after they were saved");
}

void
nxm_load_wait(void)
{
	if (likely(shared == NULL || state_now() == NXM_LOAD_DONE) || loading)
		return;

	for (;;)
	{
		NxmLoadState state = state_now();

		if (state == NXM_LOAD_DONE)
			break;
		if (state == NXM_LOAD_CLOSED)
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("shared structures are closed: the server is shutting down")));
		}
		if (state == NXM_LOAD_PENDING)
		{
			ConditionVariableCancelSleep();
			if (nxm_load_now(NULL))
				return;
			continue;
		}
		/* timed, should the loader end without a word */
		(void) ConditionVariableTimedSleep(&shared->changed, 1000,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

bool
nxm_load_now(volatile sig_atomic_t *stop)
{
	uint32		expected = NXM_LOAD_PENDING;
	bool		again;
	NxmLoadResult result;

	if (shared == NULL || state_now() == NXM_LOAD_DONE)
		return true;
	if (!exit_registered)
	{
		before_shmem_exit(loader_exit, 0);
		exit_registered = true;
	}
	if (!pg_atomic_compare_exchange_u32(&shared->state, &expected,
										NXM_LOAD_LOADING))
		return expected == NXM_LOAD_DONE;
	pg_atomic_write_u32(&shared->loader, (uint32) MyProcPid);
	loading = true;
	again = pg_atomic_fetch_add_u32(&shared->attempts, 1) > 0;

	PG_TRY();
	{
		nxm_load_file(again, stop, &result);
	}
	PG_CATCH();
	{
		loading = false;
		set_state(NXM_LOAD_PENDING);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (result.stopped)
	{
		loading = false;
		set_state(NXM_LOAD_PENDING);
		return false;
	}

	/* From here to DONE nothing may be interrupted: the file is gone. */
	HOLD_INTERRUPTS();
	if (result.refused != NULL)
		put_beside(result.refused);
	else
	{
		pg_atomic_write_u32(&shared->loaded, result.objects);
		pg_atomic_write_u32(&shared->dropped, result.dropped);
		if (result.dropped > 0)
			put_beside(psprintf("%u of %u found no room", result.dropped,
								result.objects));
		else
			(void) durable_unlink(NXM_SAVE_FILE, LOG);
		ereport(LOG,
				(errmsg_plural("loaded %u of %u saved structure",
							   "loaded %u of %u saved structures",
							   result.objects,
							   result.objects - result.dropped, result.objects)));
	}
	loading = false;
	set_state(NXM_LOAD_DONE);
	RESUME_INTERRUPTS();
	return true;
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
	uint64		lines = nxm_load_relaxed(&space->shared->procs_used);

	for (uint64 i = 0; i < lines; i++)
	{
		int			pid = (int) nxm_load_relaxed(&space->lines[i].owner);

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

		if (pid != 0 && BackendPidGetProc(pid) != NULL)
			n--;
	}
	return n > 0;
}

bool
nxm_save_may_begin(TimestampTz since)
{
	if (shared == NULL || nxm_save_what == NXM_SAVE_OFF)
		return true;
	return !users_left(nxm_space()) &&
		(!connections_left() ||
		 TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
									CLIENTS_LIMIT_MS));
}

/* Sleeps for a poll.  false: the time since start is over. */
static bool
poll_until(TimestampTz start, int limit_ms)
{
	if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), limit_ms))
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
	TimestampTz start = GetCurrentTimestamp();
	uint64		lines;

	/* in this order: who finds the registry closed comes to see CLOSED */
	set_state(NXM_LOAD_CLOSED);
	nxm_registry_close();

	lines = nxm_load(&space->shared->procs_used);
	for (uint64 i = 0; i < lines; i++)
	{
		if ((int) i == space->proc)
			continue;
		/* acquire: what the section did is seen */
		while (nxm_load(&space->lines[i].epoch) != 0)
		{
			if (!poll_until(start, SECTIONS_LIMIT_MS))
				return false;
		}
	}
	return true;
}

/*
 * Writing
 */

static bool
fail(Saver *saver, const char *what, int err)
{
	if (saver->what_failed == NULL)
	{
		saver->what_failed = what;
		saver->failed_errno = err;
	}
	return false;
}

static bool
write_all(Saver *saver, const char *data, size_t len, off_t offset)
{
	while (len > 0)
	{
		ssize_t		n;

		errno = 0;
		n = pg_pwrite(saver->fd, data, len, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(saver, "could not write the file",
						errno != 0 ? errno : ENOSPC);
		data += n;
		offset += n;
		len -= n;
	}
	return true;
}

static bool
flush_block(Saver *saver)
{
	bool		ok = write_all(saver, saver->block, saver->block_used,
							   (off_t) (saver->length - saver->block_used));

	saver->block_used = 0;
	return ok;
}

static bool
put(Saver *saver, const void *data, size_t len)
{
	const char *p = data;

	COMP_CRC32C(saver->body_crc, data, len);
	while (len > 0)
	{
		size_t		n = Min(len, BLOCK_SIZE - saver->block_used);

		memcpy(saver->block + saver->block_used, p, n);
		saver->block_used += n;
		saver->length += n;
		p += n;
		len -= n;
		if (saver->block_used == BLOCK_SIZE && !flush_block(saver))
			return false;
	}
	return true;
}

/* Writes the frame that was filled, and begins an empty one. */
static bool
put_frame(Saver *saver, NxmSaveFrameType type)
{
	NxmSaveFrame frame;

	/* load.c refuses a file with a longer one */
	Assert(saver->frame_used <= NXM_FRAME_MAX);
	frame.type = type;
	frame.length = (uint32) saver->frame_used;
	frame.count = saver->frame_count;
	INIT_CRC32C(frame.crc);
	COMP_CRC32C(frame.crc, &frame.type,
				sizeof(frame) - offsetof(NxmSaveFrame, type));
	COMP_CRC32C(frame.crc, saver->frame, saver->frame_used);
	FIN_CRC32C(frame.crc);

	if (!put(saver, &frame, sizeof(frame)) ||
		!put(saver, saver->frame, saver->frame_used))
		return false;
	saver->frame_used = 0;
	saver->frame_count = 0;
	if (GetCurrentTimestamp() > saver->deadline)
		return fail(saver, "writing took too long", 0);
	CHECK_FOR_INTERRUPTS();
	return true;
}

/* Adds to the frame; there is room. */
static void
add(Saver *saver, const void *data, size_t len)
{
	Assert(len <= NXM_FRAME_MAX - saver->frame_used);
	memcpy(saver->frame + saver->frame_used, data, len);
	saver->frame_used += len;
}

/* An entry was added to the frame, which is written once it is full. */
static bool
end_entry(Saver *saver, uint32 *entries)
{
	saver->frame_count++;
	(*entries)++;
	return saver->frame_used < NXM_FRAME_FILL ||
		put_frame(saver, NXM_FRAME_ENTRIES);
}

static void
begin_bucket(void *context)
{
	Saver	   *saver = context;

	saver->bucket_used = 0;
}

/* In a section: an entry of a map goes to the bucket's others. */
static NxmResult
add_item(NxmSpace *space, NxmRef ref, const NxmItem *item, void *context)
{
	Saver	   *saver = context;
	NxmSaveEntry entry;
	NxmBuffer	value;
	NxmResult	r;
	char	   *p;

	(void) ref;
	entry.key_len = (uint16) NXM_ITEM_KEY_LEN(item->header);
	entry.value_len = NXM_ITEM_LEN(item->header);
	entry.type = (uint16) NXM_ITEM_TYPE(item->header);
	saver->wanted = saver->bucket_used + sizeof(entry) + entry.key_len +
		entry.value_len;
	if (saver->wanted > saver->bucket_size)
		return NXM_NEED_BUFFER;

	p = saver->bucket + saver->bucket_used;
	value.data = p + sizeof(entry) + entry.key_len;
	value.size = entry.value_len;
	r = nxm_item_copy(space, item, &value);
	if (r != NXM_OK)
		return r;
	memcpy(p, &entry, sizeof(entry));
	memcpy(p + sizeof(entry), nxm_item_key(item), entry.key_len);
	saver->bucket_used = saver->wanted;
	return NXM_OK;
}

/* In a section: an entry of a cache goes to the bucket's others. */
static NxmResult
add_cache_entry(NxmCacheView *view, const NxmCacheEntry *from, void *context)
{
	Saver	   *saver = context;
	NxmSaveEntry entry;
	int64		deadline = from->deadline;
	NxmBuffer	value;
	NxmResult	r;
	char	   *p;

	entry.key_len = (uint16) from->key_len;
	entry.value_len = from->len;
	entry.type = (uint16) from->type;
	saver->wanted = saver->bucket_used + sizeof(entry) + sizeof(deadline) +
		entry.key_len + entry.value_len;
	if (saver->wanted > saver->bucket_size)
		return NXM_NEED_BUFFER;

	p = saver->bucket + saver->bucket_used;
	memcpy(p + sizeof(entry), &deadline, sizeof(deadline));
	memcpy(p + sizeof(entry) + sizeof(deadline), from->key, from->key_len);
	value.data = p + sizeof(entry) + sizeof(deadline) + entry.key_len;
	value.size = saver->bucket_size -
		(saver->bucket_used + sizeof(entry) + sizeof(deadline) + entry.key_len);
	r = nxm_cache_entry_value(view, from, &value);
	if (r == NXM_ABSENT)
		return NXM_OK;
	if (r == NXM_NEED_BUFFER)
		saver->wanted += value.len - entry.value_len;
	if (r != NXM_OK)
		return r;
	entry.value_len = (uint32) value.len;
	entry.type = (uint16) value.type;
	memcpy(p, &entry, sizeof(entry));
	saver->bucket_used += sizeof(entry) + sizeof(deadline) + entry.key_len +
		entry.value_len;
	return NXM_OK;
}

/*
 * Moves a bucket's entries into frames.  One by one, since a bucket of long values
 * is longer than a frame may be.
 */
static bool
put_bucket(Saver *saver, uint32 *entries)
{
	size_t		more = saver->caches ? sizeof(int64) : 0;

	for (size_t at = 0; at < saver->bucket_used;)
	{
		NxmSaveEntry entry;
		size_t		len;

		memcpy(&entry, saver->bucket + at, sizeof(entry));
		len = sizeof(entry) + more + entry.key_len + entry.value_len;
		if (len > NXM_FRAME_MAX - saver->frame_used)
			return fail(saver, "an entry is too long", 0);
		add(saver, saver->bucket + at, len);
		at += len;
		if (!end_entry(saver, entries))
			return false;
	}
	return true;
}

static bool
save_map(Saver *saver, const NxmObjectInfo *info, uint32 *entries)
{
	uint64		position = 0;
	NxmResult	r;

	do
	{
		NxmObject  *object;
		uint64		before = position;

		nxm_begin_operation();
		nxm_enter(saver->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
			r = nxm_map_scan(saver->space, &object->u.map, &position,
							 begin_bucket, add_item, saver);
		nxm_leave(saver->space);
		nxm_end_operation();

		if (r == NXM_ABSENT || (r == NXM_OK && position != before))
		{
			if (!put_bucket(saver, entries))
				return false;
		}
		else if (r == NXM_OK)
			CHECK_FOR_INTERRUPTS();	/* the scan only wanted to be interruptible */
		else if (r == NXM_NEED_BUFFER)
		{
			saver->bucket_size = Max(saver->wanted, saver->bucket_size * 2);
			saver->bucket = repalloc_huge(saver->bucket, saver->bucket_size);
		}
		else if (r == NXM_DROPPED)
			return true;
		else if (!nxm_again(saver->space, r))
			return fail(saver, "a map could not be read", 0);
	} while (r != NXM_ABSENT);
	return true;
}

/* The entries of a cache, as long as there is time. */
static bool
save_cache(Saver *saver, const NxmObjectInfo *info, uint32 *entries)
{
	NxmCacheView *view = nxm_cache_view();
	NxmCacheCursor cursor = {0, 0};
	NxmResult	r;

	do
	{
		NxmObject  *object;
		NxmCacheCursor before = cursor;

		if (GetCurrentTimestamp() > saver->caches_deadline)
		{
			saver->cut_short = true;
			return true;
		}
		nxm_begin_operation();
		nxm_enter(saver->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
			r = nxm_cache_scan(view, &object->u.c.cache, &cursor, begin_bucket,
							   add_cache_entry, saver);
		nxm_leave(saver->space);
		nxm_end_operation();

		if (r == NXM_ABSENT ||
			(r == NXM_OK && memcmp(&cursor, &before, sizeof(cursor)) != 0))
		{
			if (!put_bucket(saver, entries))
				return false;
			saver->bucket_used = 0;
		}
		else if (r == NXM_OK)
			CHECK_FOR_INTERRUPTS();	/* the scan only wanted to be interruptible */
		else if (r == NXM_NEED_BUFFER)
		{
			saver->bucket_size = Max(saver->wanted, saver->bucket_size * 2);
			saver->bucket = repalloc_huge(saver->bucket, saver->bucket_size);
		}
		else if (r == NXM_DROPPED)
			return true;
		else if (!nxm_again(saver->space, r))
			return fail(saver, "a cache could not be read", 0);
	} while (r != NXM_ABSENT);
	return true;
}

/* A stack or a queue. */
static bool
save_list(Saver *saver, const NxmObjectInfo *info, uint32 *entries)
{
	NxmRef		at = 0;

	do
	{
		NxmObject  *object;
		NxmBuffer	value;
		NxmSaveEntry entry;
		NxmResult	r;

		value.data = saver->frame + saver->frame_used + sizeof(entry);
		value.size = NXM_FRAME_MAX - saver->frame_used - sizeof(entry);
		nxm_begin_operation();
		nxm_enter(saver->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
			r = info->kind == NXM_KIND_STACK ?
				nxm_stack_peek(saver->space, &object->u.stack, &at, &value) :
				nxm_queue_peek(saver->space, &object->u.queue, &at, &value);
		nxm_leave(saver->space);
		nxm_end_operation();

		if (r == NXM_ABSENT || r == NXM_DROPPED)
			break;
		/* the frame has room for the longest value */
		if (r == NXM_NEED_BUFFER)
			return fail(saver, "a value is too long", 0);
		if (nxm_again(saver->space, r))
			continue;
		if (r != NXM_OK)
			return fail(saver, "a stack or a queue could not be read", 0);

		entry.key_len = 0;
		entry.value_len = (uint32) value.len;
		entry.type = (uint16) value.type;
		add(saver, &entry, sizeof(entry));
		saver->frame_used += value.len;
		if (!end_entry(saver, entries))
			return false;
		if (at == 0)
			break;
	} while (true);
	return true;
}

/* false: it is none, or has no value. */
static bool
read_counter(Saver *saver, const NxmObjectInfo *info, int64 *value)
{
	NxmResult	r;

	do
	{
		NxmObject  *object;
		int64_t		v = 0;

		nxm_begin_operation();
		nxm_enter(saver->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
			r = nxm_counter_get(saver->space, &object->u.counter, &v);
		nxm_leave(saver->space);
		nxm_end_operation();
		*value = v;
	} while (nxm_again(saver->space, r));

	if (r == NXM_OVERFLOW)
		ereport(WARNING,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("counter \"%s\" was not saved: its value is out of range",
						info->name)));
	return r == NXM_OK;
}

/* For nxm_registry_scan(). */
static void
save_object(const NxmObjectInfo *info, void *context)
{
	Saver	   *saver = context;
	NxmSaveObject object;
	uint32		entries = 0;

	if (saver->what_failed != NULL ||
		(info->kind == NXM_KIND_CACHE) != saver->caches)
		return;

	memset(&object, 0, sizeof(object));
	object.kind = info->kind;
	object.database = info->database;
	object.owner = info->owner;
	object.node = (uint32) info->node;
	object.striped = info->options.striped;
	object.name_len = info->name_len;
	object.grants = info->acl.count;
	if (info->kind == NXM_KIND_COUNTER &&
		!read_counter(saver, info, &object.value))
		return;

	add(saver, &object, sizeof(object));
	add(saver, info->name, info->name_len);
	for (uint32 i = 0; i < info->acl.count; i++)
	{
		NxmSaveGrant grant;

		grant.role = info->acl.entry[i].role;
		grant.privileges = info->acl.entry[i].privileges;
		add(saver, &grant, sizeof(grant));
	}
	if (info->kind == NXM_KIND_CACHE)
	{
		NxmSaveCache cache = {info->options.max_bytes, info->options.default_ttl};

		add(saver, &cache, sizeof(cache));
	}
	if (!put_frame(saver, NXM_FRAME_OBJECT))
		return;

	if (info->kind == NXM_KIND_MAP && !save_map(saver, info, &entries))
		return;
	if (info->kind == NXM_KIND_CACHE && !save_cache(saver, info, &entries))
		return;
	if ((info->kind == NXM_KIND_STACK || info->kind == NXM_KIND_QUEUE) &&
		!save_list(saver, info, &entries))
		return;
	if (saver->frame_used > 0 && !put_frame(saver, NXM_FRAME_ENTRIES))
		return;
	saver->frame_count = entries;
	if (put_frame(saver, NXM_FRAME_END))
		saver->objects++;
}

/* The file is open, and there is a header's place at its beginning. */
static bool
write_file(Saver *saver)
{
	NxmSaveHeader header;

	INIT_CRC32C(saver->body_crc);
	saver->length = sizeof(header);
	nxm_registry_scan(save_object, saver);
	if (nxm_save_what == NXM_SAVE_ALL)
	{
		saver->caches = true;
		nxm_registry_scan(save_object, saver);
	}
	if (saver->what_failed != NULL || !flush_block(saver))
		return false;
	if (saver->objects == 0)
		return true;
	FIN_CRC32C(saver->body_crc);

	/* The body first: a header means a whole file. */
	if (pg_fsync(saver->fd) != 0)
		return fail(saver, "could not fsync the file", errno);
	memset(&header, 0, sizeof(header));
	strlcpy(header.magic, NXM_SAVE_MAGIC, sizeof(header.magic));
	header.byte_order = NXM_SAVE_BYTE_ORDER;
	header.format = NXM_SAVE_FORMAT;
	header.system_identifier = GetSystemIdentifier();
	header.length = saver->length;
	header.saved_at = GetCurrentTimestamp();
	header.objects = saver->objects;
	header.alignment = MAXIMUM_ALIGNOF;
	header.body_crc = saver->body_crc;
	INIT_CRC32C(header.header_crc);
	COMP_CRC32C(header.header_crc, &header,
				offsetof(NxmSaveHeader, header_crc));
	FIN_CRC32C(header.header_crc);
	if (!write_all(saver, (char *) &header, sizeof(header), 0))
		return false;
	if (pg_fsync(saver->fd) != 0)
		return fail(saver, "could not fsync the file", errno);
	return true;
}

static bool
save_file(Saver *saver)
{
	bool		ok;

	if (MakePGDirectory(NXM_SAVE_DIR) != 0 && errno != EEXIST)
		return fail(saver, "could not create directory \"" NXM_SAVE_DIR "\"",
					errno);
	/* whatever log_file_mode or group access say */
	(void) chmod(NXM_SAVE_DIR, S_IRWXU);
	(void) unlink(NXM_SAVE_TMP);
	saver->fd = OpenTransientFilePerm(NXM_SAVE_TMP,
									  O_WRONLY | O_CREAT | O_EXCL | PG_BINARY,
									  S_IRUSR | S_IWUSR);
	if (saver->fd < 0)
		return fail(saver, "could not create file \"" NXM_SAVE_TMP "\"", errno);

	saver->block = palloc(BLOCK_SIZE);
	saver->frame = palloc(NXM_FRAME_MAX);
	saver->bucket_size = NXM_FRAME_FILL;
	saver->bucket = palloc(saver->bucket_size);
	ok = write_file(saver);
	if (CloseTransientFile(saver->fd) != 0 && ok)
		ok = fail(saver, "could not close the file", errno);
	if (ok && saver->objects > 0)
	{
		if (durable_rename(NXM_SAVE_TMP, NXM_SAVE_FILE, LOG) != 0)
			ok = fail(saver, "could not rename file \"" NXM_SAVE_TMP "\"",
					  errno);
	}
	else
		(void) unlink(NXM_SAVE_TMP);
	return ok;
}

static void
save(void)
{
	NxmSpace   *space = nxm_space();
	Saver	   *saver;
	bool		ok;

	if (state_now() != NXM_LOAD_DONE)
		return;					/* the file is there yet, and nothing else is */

	saver = palloc0(sizeof(Saver));
	saver->space = space;
	saver->fd = -1;
	ok = close_structures(space) ||
		fail(saver, "a process is stopped in the middle of an operation", 0);
	if (ok && nxm_load(&space->shared->nchunks) > 0)
	{
		saver->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  WRITE_LIMIT_MS);
		saver->caches_deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 CACHES_LIMIT_MS);
		ok = save_file(saver);
		if (ok && saver->objects > 0)
			ereport(LOG,
					(errmsg_plural("saved %u shared structure, %llu bytes",
								   "saved %u shared structures, %llu bytes",
								   saver->objects, saver->objects,
								   (unsigned long long) saver->length)));
		if (ok && saver->cut_short)
			ereport(LOG,
					(errmsg("some entries of caches were not saved, for it would have taken too long")));
	}
	if (!ok)
	{
		errno = saver->failed_errno;
		if (errno != 0)
			ereport(WARNING,
					(errcode_for_file_access(),
					 errmsg("shared structures were not saved: %s: %m",
							saver->what_failed)));
		else
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("shared structures were not saved: %s",
							saver->what_failed)));
	}
}

void
nxm_save_now(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (shared == NULL || nxm_save_what == NXM_SAVE_OFF)
		return;
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
		(void) unlink(NXM_SAVE_TMP);
	}
	PG_END_TRY();
}

void
nxm_save_reopen(void)
{
	if (shared == NULL || state_now() != NXM_LOAD_CLOSED)
		return;
	if (durable_unlink(NXM_SAVE_FILE, DEBUG1) != 0 && errno != ENOENT)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", NXM_SAVE_FILE)));
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
