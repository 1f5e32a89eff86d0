/*
 * prefetch_learned.c
 *	  Records the blocks that index scans miss, and reads ahead what the predictor
 *	  expects after them.
 *
 * Look-ahead within a scan cannot help a page of an application that looks up one
 * customer, then its orders, then their lines: each scan returns a row or a few.  But
 * such pages come again, and then miss the same blocks in the same order.
 * core/predictor.c knows such sequences; this file feeds it and acts upon it.
 *
 * The seat.  PostgreSQL has no hook where blocks are read.  Btree indexes of a plan,
 * which have the routine of prefetch_index.c, get one of ours in front of it, and
 * pgBufferUsage tells whether this process has read blocks (of anything but temporary
 * tables) since it looked last:
 *
 * - while the btree looked for a tuple: its leaf was missed;
 * - between the return of a tuple and the next call for any index, be it for a tuple, a
 *   rescan or the end of a scan: the heap block of that tuple was missed.
 *
 * A prefetched block is still read into shared_buffers, and so is recorded like one
 * that was not.  With the setting off no index has this routine, and nothing costs
 * anything; with it on a cached scan pays two comparisons and a store a tuple.
 *
 * What is recorded.  Blocks are named by the relation's OID, which a rewrite of the
 * table leaves as it is.  Only of indexes of permanent and unlogged tables, not in
 * parallel workers, whose blocks are in no order.  Of one scan, rescans included, at
 * most MOST_OF_SCAN blocks, and none while look-ahead is awake in it: long scans are
 * look-ahead's, and would push all else out of the predictor's memory.  Of a query with
 * parallel workers only leaves: where a Gather ends its workers' reads become the
 * leader's, and pass for the heap block of whatever tuple came last.
 *
 * Predictions.  After each miss that was recorded the predictor is asked for what comes
 * next, A_MISS blocks at most, for as long as less than prefetch_distance of them are
 * awaited.  The backend itself asks the operating system: the call takes some
 * microseconds, of which a worker, which would have to be woken for each, saves
 * none.  For each block, on the way of any other reader:
 *
 * - a lock on the relation, if it is free at once and without raising an error when the
 *   lock table is full; given back before anything else is done, so nobody ever waits
 *   for it, and DROP DATABASE knows nothing of us;
 * - the relation: none, it was dropped, and is forgotten;
 * - its file and its length, for asking for a block past the end raises an error;
 * - PrefetchBuffer().
 *
 * This happens where the executor is between two tuples, as it is when it calls a
 * function that reads a catalog: in a transaction, with no LWLock held.  Errors that
 * remain are those of reading catalogs: a cancel, a broken disk.
 *
 * Blocks in the operating system's cache need not be asked for.  The time of the call
 * tells, see prefetch_index.c.  USELESS such answers in a row make this session quiet:
 * it records on, and predicts one block only after `step` misses, a number that grows
 * up to QUIET_STEP, until an answer comes from the disk.
 *
 * Accounts.  A prediction is counted when its outcome is known: used when its block
 * is missed, or wasted after FLIGHT_WINDOW other misses or at the session's end.
 *
 * Limits: bitmap scans, sequential scans and catalogs are not recorded, nor heap blocks
 * of index-only scans, nor pages of an index above its leaves.  What else is read
 * between two calls, a TOAST table's blocks for one, passes for the heap block.
 */
#include "prefetch_learned.h"

#include "access/nbtree.h"
#include "access/parallel.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "prefetch_index.h"
#include "prefetch_stats.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#define A_MISS			16
#define MOST_FLIGHTS	128
#define FLIGHT_WINDOW	64
#define MOST_OF_SCAN	64
#define MOST_SCANS_KEPT	1024	/* room for them, from one transaction to the next */
#define FILES			64		/* remembered at a time, by OID */
#define USELESS			8
#define QUIET_STEP		128

IndexAmRoutine *nxm_learned_routine = NULL;
static IndexAmRoutine *under = NULL;	/* the look-ahead's */

static NxmPredictor *predictor = NULL;	/* NULL: no session yet */
static NxmPredictorSession session;

/* pgBufferUsage.shared_blks_read as far as it has been looked at. */
static int64 reads_seen = 0;

/*
 * The scan that returned a tuple last, and has not been called since; NULL: its block
 * is not to be recorded.  It is there yet: its end passes here, unless its index has
 * lost our routine, which makes this NULL, and where an error ends it, so does the
 * (sub)transaction.
 */
static IndexScanDesc last = NULL;

/*
 * Blocks recorded of each scan that has missed any.  By its address: an entry left by a
 * scan that an error ended is of no harm, and goes at the next beginning at that address
 * or at the transaction's end.
 */
typedef struct ScanMisses
{
	const void *scan;
	int			misses;
	char		status;			/* for simplehash */
} ScanMisses;

#define SH_PREFIX scans
#define SH_ELEMENT_TYPE ScanMisses
#define SH_KEY_TYPE const void *
#define SH_KEY scan
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) ((uintptr_t) (key) >> 3))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static scans_hash *scans = NULL; /* NULL: none yet */

/* Blocks asked for and not missed yet, in no order. */
typedef struct Flight
{
	Oid			relation;
	BlockNumber block;
	uint32		at;				/* by the clock */
} Flight;

static Flight flights[MOST_FLIGHTS];
static int	nflights = 0;
static uint32 clock_now = 0;	/* blocks recorded */

/* Files that were there when they were last looked for. */
static NxmLocator files[FILES];

static int	useless = 0;		/* answers in a row */
static bool quiet = false;
static int	step = 0;			/* misses between two predictions while quiet */
static int	until_next = 0;		/* of them, left */

static void
land(int i, bool used)
{
	NxmPrefetchCounts *counts = nxm_prefetch_counts(flights[i].relation,
													NXM_PREFETCH_LEARNED);

	counts->stat[NXM_STAT_issued]++;
	if (used)
		counts->stat[NXM_STAT_used]++;
	flights[i] = flights[--nflights];
}

static void
land_all(void)
{
	while (nflights > 0)
		land(nflights - 1, false);
}

/* A block was missed: of those in flight it, or what has flown for too long, lands. */
static void
land_some(Oid relation, BlockNumber block)
{
	for (int i = nflights - 1; i >= 0; i--)
	{
		if (flights[i].relation == relation && flights[i].block == block)
			land(i, true);
		else if (clock_now - flights[i].at > FLIGHT_WINDOW)
			land(i, false);
	}
}

typedef enum Asked
{
	ASKED_DISK,					/* it is being read */
	ASKED_MEMORY,				/* the operating system has it */
	ASKED_BUFFERED,				/* shared_buffers has it */
	ASKED_REFUSED,				/* no such block now, or somebody has locked it */
	ASKED_GONE					/* no such relation any more */
} Asked;

/* With a lock on the relation. */
static Asked
ask_relation(Relation rel, BlockNumber block)
{
	NxmLocator *file = &files[RelationGetRelid(rel) % FILES];
	NxmAsked	asked;

	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind) ||
		RelationUsesLocalBuffers(rel) ||
		(rel->rd_tableam != NULL && rel->rd_tableam != GetHeapamTableAmRoutine()))
		return ASKED_REFUSED;

	/* of a file that is not there even asking for its length raises an error */
	if (memcmp(file, nxm_rel_locator(rel), sizeof(*file)) != 0)
	{
		if (!smgrexists(RelationGetSmgr(rel), MAIN_FORKNUM))
			return ASKED_REFUSED;
		*file = *nxm_rel_locator(rel);
	}
	if (block >= RelationGetNumberOfBlocks(rel))
		return ASKED_REFUSED;

	asked = nxm_prefetch_ask(rel, block);
	return asked == NXM_ASKED_DISK ? ASKED_DISK :
		asked == NXM_ASKED_MEMORY ? ASKED_MEMORY : ASKED_BUFFERED;
}

static Asked
ask(Oid relid, BlockNumber block)
{
	LOCKTAG		tag;
	LOCALLOCK  *lock;
	LockAcquireResult locked;
	Relation	rel;
	Asked		asked = ASKED_GONE;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	locked = nxm_lock_if_free(&tag, AccessShareLock, &lock);
	if (locked == LOCKACQUIRE_NOT_AVAIL)
		return ASKED_REFUSED;
	/* as LockRelationOid() does */
	if (locked != LOCKACQUIRE_ALREADY_CLEAR)
	{
		AcceptInvalidationMessages();
		MarkLockClear(lock);
	}
	rel = RelationIdGetRelation(relid);
	if (rel != NULL)
	{
		asked = ask_relation(rel, block);
		RelationClose(rel);
	}
	/* dropped by this very transaction, which may yet be rolled back? */
	else if (nxm_lock_is_held(&tag, AccessExclusiveLock))
		asked = ASKED_REFUSED;
	UnlockRelationOid(relid, AccessShareLock);
	return asked;
}

/* Did an answer make asking worth while, or not? */
static void
learn_from(Asked asked)
{
	if (asked == ASKED_DISK)
	{
		useless = 0;
		quiet = false;
	}
	else if (asked == ASKED_MEMORY && (quiet || ++useless >= USELESS))
	{
		step = quiet ? Min(step * 4, QUIET_STEP) : 4;
		until_next = step;
		useless = 0;
		quiet = true;
	}
}

/* Asks for a block that was predicted, unless that is of no use. */
static void
follow(const NxmPrediction *prediction)
{
	Oid			relation = prediction->block.relation;
	BlockNumber block = prediction->block.number;
	Asked		asked = ASKED_REFUSED;

	if (prediction->block.database == MyDatabaseId)
		asked = ask(relation, block);
	learn_from(asked);
	if (asked == ASKED_DISK)
	{
		Flight	   *flight = &flights[nflights++];

		flight->relation = relation;
		flight->block = block;
		flight->at = clock_now;
		return;
	}
	nxm_predictor_decline(predictor, &session, prediction);
	if (asked == ASKED_GONE)
		nxm_predictor_forget(predictor, MyDatabaseId, relation);
	if (asked == ASKED_MEMORY || asked == ASKED_BUFFERED)
		nxm_prefetch_counts(relation, NXM_PREFETCH_LEARNED)->stat[NXM_STAT_skipped]++;
}

/* After a miss: asks for what comes next. */
static void
predict(void)
{
	NxmPrediction found[A_MISS];
	int			room;
	int			n;

	if (quiet && until_next-- > 0)
		return;
	room = Min(nxm_prefetch_distance_for(InvalidOid), MOST_FLIGHTS) - nflights;
	room = Min(room, quiet ? 1 : A_MISS);
	if (room <= 0)
		return;
	n = nxm_predictor_predict(predictor, &session, room, found);
	for (int i = 0; i < n; i++)
		follow(&found[i]);
}

/* Has the scan had as many blocks recorded as it may? */
static bool
scan_is_long(const void *scan)
{
	scans_hash *table = scans;
	ScanMisses *entry;
	bool		found;

	if (table == NULL)
		table = scans_create(TopMemoryContext, 64, NULL);
	/* until 16 an error in growing leaves it of another size than it says: not seen again */
	scans = NULL;
	entry = scans_insert(table, scan, &found);
	scans = table;
	if (!found)
		entry->misses = 0;
	if (entry->misses == MOST_OF_SCAN)
		return true;
	entry->misses++;
	return false;
}

static void
forget_scan(const void *scan)
{
	if (scans != NULL && scans->members > 0)
		scans_delete(scans, scan);
}

static void
missed(const void *scan, Oid relation, BlockNumber block)
{
	NxmBlock	b = {MyDatabaseId, relation, block};

	if (!nxm_enable_learned_prefetch)
	{
		land_all();
		return;
	}
	if (scan_is_long(scan) || !IsTransactionState())
		return;
	clock_now++;
	land_some(relation, block);
	if (nxm_predictor_record(predictor, &session, b))
		predict();
}

/* Something was read since a tuple was returned: its heap block, then. */
static pg_noinline void
heap_missed(void)
{
	IndexScanDesc scan = last;

	last = NULL;
	/* in parallel mode what workers have read is added to ours, where a Gather ends */
	if (scan != NULL && !scan->xs_want_itup && !IsInParallelMode() &&
		!nxm_prefetch_index_awake(scan))
		missed(scan, RelationGetRelid(scan->heapRelation),
			   ItemPointerGetBlockNumberNoCheck(&scan->xs_heaptid));
	/* what predicting itself has read is no miss */
	reads_seen = pgBufferUsage.shared_blks_read;
}

/* Something was read while the btree looked for a tuple. */
static pg_noinline void
leaf_missed(IndexScanDesc scan)
{
	BTScanPosData *pos = &((BTScanOpaque) scan->opaque)->currPos;

	if (BTScanPosIsValid(*pos) && !nxm_prefetch_index_awake(scan))
		missed(scan, RelationGetRelid(scan->indexRelation), pos->currPage);
	reads_seen = pgBufferUsage.shared_blks_read;
}

static bool
learned_gettuple(IndexScanDesc scan, ScanDirection dir)
{
	bool		found;

	if (unlikely(pgBufferUsage.shared_blks_read != reads_seen))
		heap_missed();
	found = under->amgettuple(scan, dir);
	if (unlikely(pgBufferUsage.shared_blks_read != reads_seen))
		leaf_missed(scan);
	last = found ? scan : NULL;
	return found;
}

static void
learned_rescan(IndexScanDesc scan, ScanKey keys, int nkeys,
			   ScanKey orderbys, int norderbys)
{
	if (unlikely(pgBufferUsage.shared_blks_read != reads_seen))
		heap_missed();
	last = NULL;
	under->amrescan(scan, keys, nkeys, orderbys, norderbys);
}

static IndexScanDesc
learned_beginscan(Relation index, int nkeys, int norderbys)
{
	IndexScanDesc scan = under->ambeginscan(index, nkeys, norderbys);

	/* what was known of one before it that an error has ended */
	forget_scan(scan);
	return scan;
}

static void
learned_endscan(IndexScanDesc scan)
{
	if (unlikely(pgBufferUsage.shared_blks_read != reads_seen))
		heap_missed();
	last = NULL;
	forget_scan(scan);
	under->amendscan(scan);
}

static void
end_session(int code, Datum arg)
{
	(void) code;
	(void) arg;
	land_all();
	nxm_prefetch_stats_flush();
	if (predictor != NULL)
		nxm_predictor_end(predictor, &session);
}

/* No scan outlives its transaction, and an error may have ended it. */
static void
at_end(XactEvent event, void *arg)
{
	(void) event;
	(void) arg;
	last = NULL;
	if (scans == NULL || scans->members == 0)
		return;
	if (scans->size <= MOST_SCANS_KEPT)
		scans_reset(scans);
	else
	{
		scans_destroy(scans);
		scans = NULL;
	}
}

static void
at_subabort(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
			void *arg)
{
	(void) id;
	(void) parent;
	(void) arg;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		last = NULL;
}

void
nxm_learned_parallel_ran(void)
{
	/* those whose tuple is still the last end when parallel mode is over */
	last = NULL;
	reads_seen = pgBufferUsage.shared_blks_read;
}

static bool
have_session(void)
{
	NxmPredictor *p;

	if (likely(predictor != NULL))
		return true;
	p = nxm_predictor_area();
	if (p == NULL)
		return false;
	nxm_predictor_begin(&session);
	/* each may fail; being called twice does none of them harm */
	RegisterXactCallback(at_end, NULL);
	RegisterSubXactCallback(at_subabort, NULL);
	before_shmem_exit(end_session, (Datum) 0);
	predictor = p;
	return true;
}

void
nxm_learned_change_seat(Relation index, IndexAmRoutine *look_ahead)
{
	if (!nxm_enable_learned_prefetch)
	{
		/* the end of a scan of it that is open does not pass here any more */
		last = NULL;
		if (index->rd_indam == nxm_learned_routine)
			index->rd_indam = look_ahead;
		return;
	}
	if (index->rd_indam != look_ahead || IsParallelWorker() ||
		RelationUsesLocalBuffers(index) || !have_session())
		return;
	if (nxm_learned_routine == NULL)
	{
		IndexAmRoutine *copy = MemoryContextAlloc(TopMemoryContext,
												  sizeof(IndexAmRoutine));

		*copy = *look_ahead;
		copy->amgettuple = learned_gettuple;
		copy->amrescan = learned_rescan;
		copy->ambeginscan = learned_beginscan;
		copy->amendscan = learned_endscan;
		under = look_ahead;
		nxm_learned_routine = copy;
	}
	index->rd_indam = nxm_learned_routine;
}
