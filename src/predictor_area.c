/*
 * predictor_area.c
 *	  The shared memory of the learned predictor, and the file that it survives in.
 *
 * Memory.  One DSM segment of nexusmem.predictor_memory, made by the worker "nexusmem
 * memory" when nexusmem.enable_learned_prefetch is on for the first time, so nothing
 * is taken where nobody wants it.  It stays until the server stops; off and on again
 * goes on with what was known.  Backends map it at their first use.  PostgreSQL
 * allocates a posix segment whole: where /dev/shm has no room making it fails, which
 * is a row of status and tried again from time to time.
 *
 * Survival.  What is known is a help and never a fact, so that an old copy does no
 * harm: unlike structures it survives a crash too.  The worker writes the file every
 * nexusmem.predictor_save_interval if anything was learned, and when it ends, unless that
 * takes longer than EXIT_LIMIT_MS.  What it is doing when it is to end it gives up: a save
 * for the one that follows, a load for that of the next worker, or the next start.  The
 * file stays after it was loaded.  It is a saved_file.h file with one body,
 * nxm_predictor_save()'s.
 * A base backup has it, so a standby begins with what its primary knew.
 *
 * The worker is connected to no database, and answers barriers between blocks while it
 * writes.  Before it saves it compares the databases that the predictor knows with the
 * catalog; of relations only whoever predicts them finds out that they are gone.
 *
 * State is changed by the worker alone, but for save_wanted.
 *
 * Limits: without the worker (max_worker_processes) there is no predictor; without
 * preloading neither.  While the file is made durable the worker answers no barrier,
 * for as long as the disk takes to write some megabytes; nor while it makes the memory,
 * and nobody who resets the predictor does: some tenths of a second for each GB.
 */
#include "predictor_area.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "arena.h"
#include "memory_worker.h"
#include "miscadmin.h"
#include "numa_seam.h"
#include "port/atomics.h"
#include "postmaster/interrupt.h"
#include "saved_file.h"
#include "segment.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define DEFAULT_SAVE_INTERVAL_S 300
#define RETRY_INTERVAL_MS	60000
#define ATTACH_INTERVAL_MS	1000
#define DEFAULT_MEMORY_KB	(16 * 1024)
#define LEAST_MEMORY_KB		1024
#define MOST_MEMORY_KB \
	((int) Min(NXM_PREDICTOR_MAX_SIZE / 1024, MAX_KILOBYTES))
#define BLOCK_SIZE			(256 * 1024)
#define EXIT_LIMIT_MS		10000	/* to save when the worker ends, but for the last fsync */

typedef struct AreaShared
{
	/* set last, once; then handle and size do not change */
	pg_atomic_uint32 ready;
	dsm_handle	handle;
	uint64		size;

	/* set by anybody, taken by the worker */
	pg_atomic_uint32 save_wanted;
	/* by anybody: what the file had is not to come back from it */
	pg_atomic_uint32 resets;

	/* for status; single writer: the worker */
	pg_atomic_uint32 refused;
	pg_atomic_uint64 saved_at;
	pg_atomic_uint32 has_failed;	/* failed is set; it may be torn while it changes */
	uint32		no_memory;		/* NxmGrowth; with failed, as NxmPredictorAreaReport has it */
	char		failed[256];
} AreaShared;

bool		nxm_enable_learned_prefetch = false;
static int	predictor_memory = DEFAULT_MEMORY_KB;
static int	save_interval = DEFAULT_SAVE_INTERVAL_S;

static const NxmSavedFile predictor_file = {
	NXM_SAVED_FILE_NAMES("learned"),
	.what = "learned sequences",
	.magic = "NXMLRND",
	.format = 1,
	.oldest_format = 1
};

static AreaShared *shared = NULL;

/* This process's own. */
static NxmPredictor *predictor = NULL;
static bool attach_failed = false;
static TimestampTz attach_tried = 0;

/* The worker's: what of the predictor is in the file, and since when. */
static uint64 recorded_saved = 0;
static TimestampTz last_save = 0;
static TimestampTz last_attempt = 0;
static int64 deadline = 0;		/* of a save, as nxm_steady_ms(); 0: none */

static NxmPredictor *
predictor_of(dsm_segment *segment)
{
	/* a slice of main memory begins anywhere, at the same address in all processes */
	return (NxmPredictor *) TYPEALIGN(PG_CACHE_LINE_SIZE,
									  dsm_segment_address(segment));
}

NxmPredictor *
nxm_predictor_area(void)
{
	dsm_segment *segment;
	char	   *reason;
	TimestampTz now;

	if (likely(predictor != NULL))
		return predictor;
	if (shared == NULL || pg_atomic_read_u32(&shared->ready) == 0)
		return NULL;
	pg_read_barrier();			/* pairs with make_area() */

	now = attach_failed ? GetCurrentTimestamp() : 0;
	if (attach_failed &&
		!nxm_is_over(attach_tried, now, ATTACH_INTERVAL_MS))
		return NULL;
	segment = nxm_segment_attach(shared->handle, &reason);
	if (segment == NULL)
	{
		attach_tried = GetCurrentTimestamp();
		if (!attach_failed)
			ereport(LOG,
					(errmsg("nexusmem could not map the memory of the learned predictor: %s",
							reason != NULL ? reason : "it does not exist any more")));
		attach_failed = true;
		return NULL;
	}
	attach_failed = false;
	predictor = predictor_of(segment);
	return predictor;
}

/* Returns 0, or as errno why the file is there yet. */
static int
unlink_file(void)
{
	return unlink(predictor_file.path) == 0 || errno == ENOENT ? 0 : errno;
}

/* Then, when it may be raised: makes that durable. */
static void
file_unlinked(int err)
{
	errno = err;
	if (err != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", predictor_file.path)));
	if (access(NXM_SAVED_DIR, F_OK) == 0)
		(void) fsync_fname_ext(NXM_SAVED_DIR, true, false, WARNING);
}

void
nxm_predictor_area_reset(void)
{
	NxmPredictor *p;
	int			err;

	if (shared == NULL)
		return;
	if (pg_atomic_read_u32(&shared->ready) == 0)
	{
		err = unlink_file();

		/*
		 * Pairs with make_area(): either that has not found the file, or it sees the
		 * count raised after it has set ready, or we see ready.
		 */
		pg_atomic_fetch_add_u32(&shared->resets, 1);
		file_unlinked(err);
		pg_memory_barrier();
		if (pg_atomic_read_u32(&shared->ready) == 0)
			return;
	}
	p = nxm_predictor_area();
	if (p == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map the memory of the learned predictor"),
				 errhint("Repeat it in another session.")));
	nxm_predictor_reset(p);
	/* a barrier: pairs with write_saved(), which may put what was before there */
	pg_atomic_fetch_add_u32(&shared->resets, 1);
	/* not left to the worker, whose save may fail, or come after a crash */
	err = unlink_file();
	pg_atomic_write_u32(&shared->save_wanted, 1);
	nxm_memory_worker_wake();
	file_unlinked(err);
}

void
nxm_predictor_area_report(NxmPredictorAreaReport *report)
{
	memset(report, 0, sizeof(*report));
	if (shared == NULL)
		return;
	report->ready = pg_atomic_read_u32(&shared->ready) != 0;
	pg_read_barrier();
	report->bytes = report->ready ? shared->size : 0;
	report->refused = pg_atomic_read_u32(&shared->refused) != 0;
	report->saved_at = (TimestampTz) pg_atomic_read_u64(&shared->saved_at);
	if (pg_atomic_read_u32(&shared->has_failed) != 0)
	{
		pg_read_barrier();
		strlcpy(report->failed, shared->failed, sizeof(report->failed));
		report->no_memory = (NxmGrowth) shared->no_memory;
	}
}

bool
nxm_predictor_area_memory(NxmPredictorAreaMemory *memory)
{
	Size		page = sysconf(_SC_PAGESIZE);
	unsigned char exists[BLOCK_SIZE / 4096];
	char	   *start = (char *) nxm_predictor_area();
	char	   *end;

	memset(memory, 0, sizeof(*memory));
	if (shared == NULL || pg_atomic_read_u32(&shared->ready) == 0)
		return false;
	pg_read_barrier();			/* pairs with make_area() */
	memory->bytes = shared->size;
	if (start == NULL)
		return true;
	end = start + memory->bytes;
	memory->asked = true;
	for (char *at = (char *) TYPEALIGN_DOWN(page, start); at < end; at += BLOCK_SIZE)
	{
		Size		length = Min(BLOCK_SIZE, end - at);

		CHECK_FOR_INTERRUPTS();
		if (nxm_seam_resident(at, length, exists) != 0)
		{
			memory->asked = false;
			return true;
		}
		for (Size i = 0; i < (length + page - 1) / page; i++)
		{
			if ((exists[i] & 1) != 0)
				memory->resident += page;
		}
	}
	/* the first and the last page may be others' in part */
	memory->resident = Min(memory->resident, memory->bytes);
	return true;
}

/*
 * The worker's part
 */

/* Is what is under way given up, for the worker is to end? */
static bool
is_given_up(void)
{
	return ShutdownRequestPending && deadline == 0;
}

/* For status, and once for the log.  no_memory: NXM_GROWN where it is not for want of it. */
static void
set_failed(NxmGrowth no_memory, const char *what, const char *why)
{
	bool		first = pg_atomic_read_u32(&shared->has_failed) == 0;

	if (is_given_up())
		return;
	shared->no_memory = no_memory;
	snprintf(shared->failed, sizeof(shared->failed), "%s: %s", what, why);
	pg_write_barrier();			/* pairs with nxm_predictor_area_report() */
	pg_atomic_write_u32(&shared->has_failed, 1);
	if (first)
		ereport(LOG, (errmsg("nexusmem: %s: %s", what, why)));
}

/* Nothing fails any more. */
static void
set_well(void)
{
	pg_atomic_write_u32(&shared->has_failed, 0);
}

static bool
is_late(void)
{
	return deadline != 0 && nxm_steady_ms() > deadline;
}

/* DROP DATABASE, for one, waits for all processes to. */
static void
answer(void)
{
	CHECK_FOR_INTERRUPTS();
	if (is_given_up())
		ereport(ERROR, (errmsg_internal("the worker ends")));
	if (is_late())
		ereport(ERROR, (errmsg_internal("saving took too long")));
}

/* NULL: it was loaded, or there is none. */
static const char *
read_saved(NxmPredictor *p)
{
	int			fd = OpenTransientFile(predictor_file.path, O_RDONLY | PG_BINARY);
	NxmSavedHeader header;
	struct stat st;
	const char *broken;
	char	   *body;
	size_t		len;

	if (fd < 0)
		return errno == ENOENT ? NULL : psprintf("it could not be opened: %m");
	if (fstat(fd, &st) != 0)
		broken = psprintf("it could not be opened: %m");
	else
		broken = nxm_saved_check(&predictor_file, fd, (uint64) st.st_size, &header,
								 &ShutdownRequestPending);
	/* before anything is said against the file */
	answer();
	if (broken == NULL)
	{
		len = header.length - sizeof(header);
		body = palloc_extended(len, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
		if (body == NULL)
			broken = "there was no memory to read it into";
		for (size_t at = 0; broken == NULL && at < len; at += BLOCK_SIZE)
		{
			answer();
			broken = nxm_saved_read(fd, body + at, Min(BLOCK_SIZE, len - at),
									sizeof(header) + at);
		}
		if (broken == NULL &&
			nxm_predictor_load(p, body, len, answer) != NXM_PREDICTOR_LOADED)
			broken = "its content makes no sense to this version of nexusmem";
	}
	CloseTransientFile(fd);
	return broken;
}

static void
load_saved(NxmPredictor *p)
{
	const char *broken = read_saved(p);

	if (broken == NULL)
		return;
	(void) nxm_saved_refuse(&predictor_file, predictor_file.path, broken,
							NXM_REFUSED_STAYS);
	pg_atomic_write_u32(&shared->refused, 1);
}

static uint64
recorded_now(void)
{
	NxmPredictorStats stats;

	nxm_predictor_stats(predictor, &stats);
	return stats.recorded;
}

/* Whatever of the file was loaded: the segment is there, and is the only one. */
static void
publish(dsm_segment *segment, Size size, uint32 resets)
{
	recorded_saved = recorded_now();
	last_save = GetCurrentTimestamp();
	shared->handle = dsm_segment_handle(segment);
	shared->size = size;
	/* pairs with nxm_predictor_area() */
	pg_write_barrier();
	pg_atomic_write_u32(&shared->ready, 1);
	/* pairs with the reset: an exchange is no barrier for loads that follow on some CPUs */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&shared->resets) != resets)
	{
		nxm_predictor_reset(predictor);
		pg_atomic_write_u32(&shared->save_wanted, 1);
	}
}

/* Makes the memory, and fills it with what was saved, before anybody uses it. */
static void
make_area(void)
{
	Size		size = nxm_predictor_size((size_t) predictor_memory * 1024);
	char	   *reason;
	dsm_segment *segment = nxm_segment_create(size + PG_CACHE_LINE_SIZE, &reason);
	volatile bool looked = false;
	uint32		resets = pg_atomic_read_u32(&shared->resets);

	if (segment == NULL)
	{
		set_failed(reason != NULL ? NXM_GROW_NO_MEMORY : NXM_GROW_NO_SEGMENT,
				   "no memory for the learned predictor",
				   reason != NULL ? reason : "PostgreSQL has no segment left");
		return;
	}
	predictor = nxm_predictor_init(predictor_of(segment), size);
	set_well();
	PG_TRY();
	{
		load_saved(predictor);
		looked = true;
	}
	PG_FINALLY();
	{
		if (!looked && is_given_up())
		{
			/* a part must not be saved as all there is: the next worker begins anew */
			predictor = NULL;
			dsm_unpin_segment(dsm_segment_handle(segment));
			dsm_detach(segment);
		}
		else
		{
			/* an error, as of no memory: the file may be good, and is not written over */
			if (!looked && rename(predictor_file.path, predictor_file.refused) == 0)
				pg_atomic_write_u32(&shared->refused, 1);
			publish(segment, size, resets);
		}
	}
	PG_END_TRY();
}

/* Forgets databases that are gone. */
static void
reconcile(void)
{
	uint32_t	cursor = 0;
	uint32_t	database;
	uint32_t	relation;
	Oid			known = InvalidOid; /* to be there */
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	while (nxm_predictor_next_relation(predictor, &cursor, &database, &relation))
	{
		CHECK_FOR_INTERRUPTS();
		if (database == known)
			continue;
		if (SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)))
			known = database;
		else
			nxm_predictor_forget(predictor, database, 0);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* NULL: it was written. */
static const char *
write_saved(uint64 *bytes)
{
	const char *what_failed = NULL;
	size_t		size = nxm_predictor_save_size(predictor);
	char	   *body = palloc_extended(size, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	pg_crc32c	crc;
	uint64		length = sizeof(NxmSavedHeader);
	int			fd;
	bool		ok = true;
	bool		late = false;
	uint32		resets = pg_atomic_read_u32(&shared->resets);

	if (body == NULL)
		return "out of memory";
	pg_read_barrier();
	size = nxm_predictor_save(predictor, body, size, answer);

	fd = nxm_saved_create(&predictor_file, &what_failed);
	if (fd < 0)
		return psprintf("%s: %m", what_failed);
	INIT_CRC32C(crc);
	for (size_t at = 0; ok && at < size; at += BLOCK_SIZE)
	{
		size_t		n = Min(BLOCK_SIZE, size - at);

		CHECK_FOR_INTERRUPTS();
		late = is_given_up() || is_late();
		COMP_CRC32C(crc, body + at, n);
		ok = !late && nxm_saved_write(fd, body + at, n, length, &what_failed);
		length += n;
	}
	FIN_CRC32C(crc);
	ok = ok && nxm_saved_finish(&predictor_file, fd, length, 1, crc, &what_failed);
	if (late)
		what_failed = "writing took too long";
	else if (!ok)
		what_failed = psprintf("%s: %m", what_failed);
	/* what was forgotten meanwhile is not kept: with a crash it would be there again */
	ok = ok && pg_atomic_read_u32(&shared->resets) == resets;
	if (!nxm_saved_close(&predictor_file, fd, ok, &what_failed))
		what_failed = psprintf("%s: %m", what_failed);
	/* then it is of before, and comes after the file was removed */
	if (pg_atomic_read_u32(&shared->resets) != resets && unlink_file() == 0)
		(void) fsync_fname_ext(NXM_SAVED_DIR, true, false, LOG);
	pfree(body);
	*bytes = length;
	return what_failed;
}

static void
save(void)
{
	uint64		recorded = recorded_now();
	uint64		bytes = 0;
	const char *failed;

	/* first, so that what is recorded meanwhile is saved the next time */
	last_save = GetCurrentTimestamp();
	failed = write_saved(&bytes);
	if (failed != NULL)
	{
		set_failed(NXM_GROWN, "learned sequences were not saved", failed);
		return;
	}
	recorded_saved = recorded;
	pg_atomic_write_u64(&shared->saved_at, (uint64) last_save);
	set_well();
	ereport(DEBUG1,
			(errmsg_internal("saved learned sequences, %llu bytes",
							 (unsigned long long) bytes)));
}

/* Calls what, in which an error is no reason to end. */
static void
guarded(void (*what) (void))
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		what();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		/* one that was half begun or ended too; where there is none it does nothing */
		AbortCurrentTransaction();
		/* the file that was being read or written; of another one nobody knows here */
		AtEOXact_Files(false);
		MemoryContextSwitchTo(context);
		set_failed(NXM_GROWN, "the learned predictor's worker failed", error->message);
	}
	PG_END_TRY();
}

/* Has somebody reset it?  Then it is to be saved, now or when that can be done. */
static bool
reset_wanted(void)
{
	if (pg_atomic_exchange_u32(&shared->save_wanted, 0) == 0)
		return false;
	recorded_saved = UINT64_MAX;
	return true;
}

static void
reconcile_and_save(void)
{
	reconcile();
	save();
}

long
nxm_predictor_area_tick(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		interval = save_interval * 1000L;
	long		wait;

	if (shared == NULL)
		return -1;
	if (predictor == NULL && pg_atomic_read_u32(&shared->ready) != 0)
	{
		/* a worker before us made it */
		if (nxm_predictor_area() == NULL)
			return RETRY_INTERVAL_MS;
		last_save = now;
	}
	/* who is to end begins nothing; what was learned is saved then */
	if (ShutdownRequestPending)
		return -1;
	if (predictor == NULL)
	{
		if (!nxm_enable_learned_prefetch)
			return -1;
		if (last_attempt == 0 || nxm_is_over(last_attempt, now, RETRY_INTERVAL_MS))
		{
			last_attempt = now;
			guarded(make_area);
		}
		if (pg_atomic_read_u32(&shared->ready) == 0)
			return RETRY_INTERVAL_MS;
	}

	if (reset_wanted())
		guarded(save);
	else if (nxm_is_over(last_save, now, (int) interval))
	{
		last_save = now;
		if (recorded_now() != recorded_saved)
			guarded(reconcile_and_save);
	}
	wait = TimestampDifferenceMilliseconds(now,
										   TimestampTzPlusMilliseconds(last_save,
																	   interval));
	/* the clock may have been set while it was saved */
	return Min(wait, interval) + 1;
}

void
nxm_predictor_area_save(void)
{
	if (predictor == NULL || (!reset_wanted() && recorded_now() == recorded_saved))
		return;
	/* the server may wait for it; giving up leaves the file of the last save */
	deadline = nxm_steady_ms() + EXIT_LIMIT_MS;
	guarded(save);
}

/*
 * Setting up
 */

Size
nxm_predictor_area_size(void)
{
	return sizeof(AreaShared);
}

void
nxm_predictor_area_shmem_init(void *ptr, bool found)
{
	shared = ptr;
	if (found)
		return;
	pg_atomic_init_u32(&shared->ready, 0);
	pg_atomic_init_u32(&shared->save_wanted, 0);
	pg_atomic_init_u32(&shared->resets, 0);
	pg_atomic_init_u32(&shared->refused, 0);
	pg_atomic_init_u64(&shared->saved_at, 0);
	pg_atomic_init_u32(&shared->has_failed, 0);
	shared->failed[0] = '\0';
}

void
nxm_predictor_area_init(void)
{
	DefineCustomBoolVariable("nexusmem.enable_learned_prefetch",
							 "Reads ahead what was missed before in the same sequence.",
							 "Sequences of blocks that sessions had to read are recorded, and survive a restart.",
							 &nxm_enable_learned_prefetch,
							 false,
							 PGC_SIGHUP,
							 0, NULL, NULL, NULL);
	DefineCustomIntVariable("nexusmem.predictor_save_interval",
							"How often recorded sequences are saved, if there are new ones.",
							"They are saved when the server stops, too.",
							&save_interval,
							DEFAULT_SAVE_INTERVAL_S, 1, 86400,
							PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("nexusmem.predictor_memory",
								"Memory of the sequences that learned look-ahead knows.",
								"It is taken when nexusmem.enable_learned_prefetch is on for the first time.",
								&predictor_memory,
								DEFAULT_MEMORY_KB, LEAST_MEMORY_KB, MOST_MEMORY_KB,
								PGC_POSTMASTER,
								GUC_UNIT_KB, NULL, NULL, NULL);
}
