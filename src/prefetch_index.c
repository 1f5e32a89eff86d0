/*
 * prefetch_index.c
 *	  Look-ahead in btree index scans and index-only scans.
 *
 * An index scan fetches heap blocks one by one, each when its tuple is asked
 * for.  The index leaf that it stands on already names the blocks that come
 * next.  This module asks the operating system for them ahead of time, with
 * posix_fadvise through PrefetchBuffer(), and leaves everything else as it is:
 * it consumes nothing of the scan, reads no block itself and keeps no pins, so
 * that it can change when a block is read and never what the scan returns.
 *
 * The seat.  The executor calls an index through its relcache entry's rd_indam.
 * After ExecutorStart we point the rd_indam of each btree index of the plan to
 * a copy of the btree's routine, with amgettuple and amrescan replaced by
 * ours, which call the originals.  A rebuilt relcache entry has its
 * own routine again and gets ours at the next ExecutorStart.  The copy lives as
 * long as the process.  (In 15 to 18 each relcache entry owns its routine, in
 * 19 all share a const one: a pointer to ours serves both.)
 *
 * State of a scan hangs on scan->orderByData, which a btree, having no order-by
 * operators, leaves NULL: there it is found with one load, is NULL in scans
 * that somebody began before us, and is freed by index_endscan() itself.  It is
 * allocated at the first tuple that has others behind it on its leaf.
 *
 * Look-ahead.  After each tuple the items behind it in the scan direction
 * (BTScanOpaque->currPos.items, copied by the btree when it read the leaf) are
 * looked at, block by block: in shared_buffers? then nothing.  Else asked for,
 * and the item remembered in a ring; it counts as used when the scan reaches
 * it.  An index-only scan passes over blocks that are all-visible.  How far:
 *
 * - credit: the tuples returned, less the blocks wasted by earlier rescans,
 *   at most the distance.  No more blocks are ever in flight.  So LIMIT n
 *   wastes at most n reads, and nothing is asked for at the first tuple.  It
 *   outlives a rescan: an inner scan whose blocks are all used keeps it.
 * - distance: nexusmem.prefetch_distance.  8 + distance cached blocks in a row
 *   halve it; below 1 the scan is quiet.
 * - quiet: nothing is looked at until this process has read a block (of
 *   anything: pgBufferUsage tells), which in a cached scan is never.  Then the
 *   next block is looked at; if it has to be read from the disk the scan wakes,
 *   else it lets n more reads pass, n growing fourfold up to QUIET_STEP.  Scans
 *   begin quiet, with what the last scan of the same table found.
 *
 * It looks at most WINDOW times as many items ahead as it may have blocks in
 * flight, for many may name one block, be cached or all-visible; an index-only
 * scan in batches of half of that, so that a page of the visibility map is
 * pinned once a batch.
 *
 * "Cached" includes the operating system's cache, where asking is useless and
 * costs a system call: the call's time tells.  From memory it takes a fraction
 * of a microsecond, to the disk several.  The threshold is THRESHOLD times the
 * median of calls for a page that surely is cached.
 *
 * Self-check.  The btree's scan state is private to it, and this file is
 * compiled for one layout.  At the first scan of a process its allocated size
 * must be that of our layout, and whenever state is allocated the item that we
 * take for the current one must have the heap TID that the scan returned.
 * Otherwise look-ahead switches itself off, for the whole server, and status
 * says why.
 *
 * Not for: catalogs, tables that are no heaps, snapshots that are not MVCC
 * (planner probes of an index's ends, CLUSTER), bitmap scans (core reads ahead
 * there).
 *
 * Limits: it stops at the end of each leaf; the next one is not known before
 * the btree reads it.
 */
#include "prefetch_index.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "access/nbtree.h"
#include "access/reloptions.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/visibilitymap.h"
#include "catalog/catalog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_tablespace.h"
#include "commands/tablespace.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "numa_seam.h"
#include "portability/instr_time.h"
#include "prefetch_stats.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define DEFAULT_DISTANCE 32
#define MAX_DISTANCE 1000
#define QUIET_STEP 128
/* so many reads a scan may miss for what the one before it found */
#define INHERITED_STEP 8
/* items looked at ahead, for each block that may be in flight */
#define WINDOW 16
/* halfway, by ratio, between a cached call and one that reaches the disk */
#define THRESHOLD 4.0
#define CALIBRATION_CALLS 33
/* blocks remembered as looked at, by their low bits */
#define RECENT_BLOCKS 64

/* Made anew by every scan, so it is small: 0.4 kB at the default distance. */
typedef struct LookAhead
{
	/* Nothing to do while *reads is below wake_at. */
	int64		wake_at;
	const int64 *reads;			/* in pgBufferUsage; &no_reads: not for us */

	bool		quiet;
	bool		index_only;
	ScanDirection dir;
	BlockNumber page;			/* leaf that the following are about */
	int			current;		/* item returned last */
	int			next;			/* item to look at next */
	int			distance;		/* in force */
	int			max_distance;
	int			credit;
	int			cached_run;		/* cached blocks in a row */
	int			step;			/* reads between two looks while quiet */
	int64		next_look;		/* *reads from which on to look again, while quiet */
	Oid			heap;
	BlockNumber nblocks;		/* of the heap, as last asked */
	NxmPrefetchCounts *counts;
	BlockNumber recent[RECENT_BLOCKS];

	/* items asked for and not reached, oldest first */
	int			ring_head;
	int			ring_count;
	int			ring_size;		/* power of two, over max_distance */
	int16		ring[FLEXIBLE_ARRAY_MEMBER];
} LookAhead;

StaticAssertDecl(MaxTIDsPerBTreePage < PG_INT16_MAX, "ring holds item indexes");

bool		nxm_enable_prefetch = true;
int			nxm_prefetch_distance = -1;

static bool switched_off = false;	/* the self-check failed */
static bool size_checked = false;
static IndexAmRoutine *btree_routine = NULL;	/* what the relcache gave us */
static IndexAmRoutine *our_routine = NULL;
static double threshold = 0;	/* seconds of one call; 0: not known */
static bool calibrated = false;
static bool tablespace_known = false;
static const int64 no_reads = 0;

/*
 * The last verdict "cached" of a scan of this relation, which the next scan of
 * it begins with: else each short scan would ask in vain anew.
 */
static struct
{
	Oid			heap;
	int			step;
	int64		next_look;
}			verdict;

static bool look_ahead_gettuple(IndexScanDesc scan, ScanDirection dir);
static void look_ahead_rescan(IndexScanDesc scan, ScanKey keys, int nkeys,
							  ScanKey orderbys, int norderbys);

static void
switch_off(const char *reason)
{
	switched_off = true;
	nxm_prefetch_switch_off(reason);
}

/*
 * pg_control is a file that every cluster has and every checkpoint keeps in
 * the operating system's cache.
 */
static void
calibrate(void)
{
	int			fd = open("global/pg_control", O_RDONLY | O_CLOEXEC);

	calibrated = true;
	if (fd < 0)
		return;
	threshold = THRESHOLD * nxm_seam_cached_advice_us(fd, CALIBRATION_CALLS) / 1e6;
	close(fd);
}

double
nxm_prefetch_threshold_us(void)
{
	if (!calibrated)
		calibrate();
	return threshold * 1e6;
}

/* Is the setting as it was built, and not as somebody wanted it? */
static bool
io_concurrency_is_default(void)
{
	static struct config_generic *setting = NULL;

	if (setting == NULL)
		setting = nxm_find_setting("effective_io_concurrency");
	return setting != NULL && setting->source == PGC_S_DEFAULT;
}

static void
forget_tablespace(Datum arg, NxmSysCacheId cache_id, uint32 hash)
{
	(void) arg;
	(void) cache_id;
	(void) hash;
	tablespace_known = false;
}

/*
 * What the tablespace itself sets effective_io_concurrency to, or -1.  Asked
 * by every scan, so the last answer is kept until pg_tablespace changes, be it
 * while the answer is being found.  last names a tablespace only when answer
 * is its own: looking may throw.
 */
static int
tablespace_io_concurrency(Oid tablespace)
{
	static bool registered = false;
	static Oid	last = InvalidOid;
	static int	answer;
	HeapTuple	tuple;
	Datum		options;
	bool		isnull;

	if (!OidIsValid(tablespace))
		tablespace = MyDatabaseTableSpace;
	if (tablespace_known && tablespace == last)
		return answer;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(TABLESPACEOID, forget_tablespace,
									  (Datum) 0);
		registered = true;
	}
	last = InvalidOid;
	answer = -1;
	tablespace_known = true;
	tuple = SearchSysCache1(TABLESPACEOID, ObjectIdGetDatum(tablespace));
	if (HeapTupleIsValid(tuple))
	{
		options = SysCacheGetAttr(TABLESPACEOID, tuple,
								  Anum_pg_tablespace_spcoptions, &isnull);
		if (!isnull)
		{
			TableSpaceOpts *opts = (TableSpaceOpts *)
				tablespace_reloptions(options, false);

			if (opts != NULL)
				answer = opts->effective_io_concurrency;
		}
		ReleaseSysCache(tuple);
	}
	last = tablespace;
	return answer;
}

int
nxm_prefetch_distance_for(Oid tablespace)
{
	int			concurrency;

	if (nxm_direct_io())
		return 0;				/* there is no cache to read into */
	if (nxm_prefetch_distance >= 0)
		return nxm_prefetch_distance;
	concurrency = tablespace_io_concurrency(tablespace);
	if (concurrency < 0)
		concurrency = io_concurrency_is_default() ? DEFAULT_DISTANCE :
			effective_io_concurrency;
	return Min(concurrency, MAX_DISTANCE);
}

/* The self-check's first half, once a process. */
static bool
layout_size_is_known(IndexScanDesc scan)
{
	void	   *ours = palloc_extended(sizeof(BTScanOpaqueData),
									   MCXT_ALLOC_NO_OOM);
	bool		same;

	if (ours == NULL)
		return false;
	same = GetMemoryChunkSpace(ours) == GetMemoryChunkSpace(scan->opaque);
	pfree(ours);
	size_checked = true;
	if (!same)
		switch_off("the size of a btree scan's private state is not that of the PostgreSQL that nexusmem was built for");
	return same;
}

/* The second half: do we see in the private state what the scan returned? */
static bool
layout_shows_current(IndexScanDesc scan, BTScanPosData *pos)
{
	if (pos->firstItem >= 0 && pos->firstItem <= pos->itemIndex &&
		pos->itemIndex <= pos->lastItem &&
		pos->lastItem < (int) MaxTIDsPerBTreePage &&
		ItemPointerEquals(&scan->xs_heaptid, &pos->items[pos->itemIndex].heapTid))
		return true;
	switch_off("a btree scan's private state does not hold the tuple that the scan returned");
	return false;
}

static pg_noinline LookAhead *
begin_look_ahead(IndexScanDesc scan, BTScanPosData *pos)
{
	LookAhead  *la;
	int			max_distance = 0;
	int			ring_size = 1;
	bool		eligible;

	if ((!size_checked && !layout_size_is_known(scan)) ||
		!layout_shows_current(scan, pos))
		return NULL;

	eligible = scan->heapRelation != NULL && scan->numberOfOrderBys == 0 &&
		scan->heapRelation->rd_tableam == GetHeapamTableAmRoutine() &&
		!IsCatalogRelationOid(RelationGetRelid(scan->heapRelation)) &&
		scan->xs_snapshot != NULL &&
		scan->xs_snapshot->snapshot_type == SNAPSHOT_MVCC;
	if (eligible)
		max_distance = nxm_prefetch_distance_for(scan->heapRelation->rd_rel->reltablespace);
	while (ring_size <= max_distance)
		ring_size *= 2;

	la = MemoryContextAllocExtended(GetMemoryChunkContext(scan),
									offsetof(LookAhead, ring) +
									sizeof(int16) * ring_size,
									MCXT_ALLOC_NO_OOM);
	if (la == NULL)
		return NULL;			/* the scan goes on without */

	if (!calibrated)
		calibrate();
	la->quiet = true;
	la->index_only = scan->xs_want_itup;
	la->dir = NoMovementScanDirection;
	la->page = InvalidBlockNumber;
	la->current = 0;
	la->next = 0;
	la->distance = max_distance;
	la->max_distance = max_distance;
	la->credit = 0;
	la->cached_run = 0;
	la->step = 1;
	la->reads = max_distance == 0 ? &no_reads :
		RelationUsesLocalBuffers(scan->indexRelation) ?
		&pgBufferUsage.local_blks_read : &pgBufferUsage.shared_blks_read;
	la->next_look = *la->reads + 1;
	la->heap = eligible ? RelationGetRelid(scan->heapRelation) : InvalidOid;
	if (max_distance > 0 && verdict.heap == la->heap &&
		verdict.next_look > la->next_look)
	{
		la->step = Min(verdict.step, INHERITED_STEP);
		la->next_look = Min(verdict.next_look, *la->reads + INHERITED_STEP);
	}
	la->wake_at = la->next_look;
	la->nblocks = 0;
	la->counts = NULL;
	la->ring_head = 0;
	la->ring_count = 0;
	la->ring_size = ring_size;
	for (int i = 0; i < RECENT_BLOCKS; i++)
		la->recent[i] = InvalidBlockNumber;
	scan->orderByData = (ScanKey) la;
	return la;
}

/* The items asked for and not reached will not be. */
static void
waste_ring(LookAhead *la)
{
	if (la->ring_count == 0)
		return;
	la->credit = Max(0, la->credit - la->ring_count);
	la->ring_count = 0;			/* the transaction's end counts them wasted */
}

bool
nxm_is_buffered(Relation rel, BlockNumber block)
{
	BufferTag	tag;
	uint32		hash;
	LWLock	   *lock;
	int			id;

	nxm_init_buffer_tag(&tag, nxm_rel_locator(rel), MAIN_FORKNUM, block);
	hash = BufTableHashCode(&tag);
	lock = BufMappingPartitionLock(hash);
	LWLockAcquire(lock, LW_SHARED);
	id = BufTableLookup(&tag, hash);
	LWLockRelease(lock);
	return id >= 0;
}

/* Could it be asked for, and did that go to the disk? */
typedef enum LookResult
{
	LOOK_NOT_NEEDED,			/* looked at lately, or not to be read */
	LOOK_CACHED,				/* in shared_buffers, or in memory */
	LOOK_SUBMITTED				/* being read from the disk */
} LookResult;

/* *vmbuf: a pinned page of the visibility map, the caller's to release. */
static LookResult
look_at(LookAhead *la, Relation heap, BlockNumber block, Buffer *vmbuf)
{
	BlockNumber *recent = &la->recent[block % RECENT_BLOCKS];
	PrefetchBufferResult answer;
	instr_time	before;
	instr_time	after;

	if (*recent == block)
		return LOOK_NOT_NEEDED;
	*recent = block;

	if (la->index_only && VM_ALL_VISIBLE(heap, block, vmbuf))
		return LOOK_NOT_NEEDED;

	if (la->counts == NULL)
		la->counts = nxm_prefetch_counts(RelationGetRelid(heap),
										 NXM_PREFETCH_INDEX);
	if (!RelationUsesLocalBuffers(heap) && nxm_is_buffered(heap, block))
	{
		la->counts->stat[NXM_STAT_skipped]++;
		return LOOK_CACHED;
	}

	/* a damaged index may name blocks that asking for would raise an error */
	if (block >= la->nblocks)
	{
		la->nblocks = RelationGetNumberOfBlocks(heap);
		if (block >= la->nblocks)
			return LOOK_NOT_NEEDED;
	}

	INSTR_TIME_SET_CURRENT(before);
	answer = PrefetchBuffer(heap, MAIN_FORKNUM, block);
	INSTR_TIME_SET_CURRENT(after);
	INSTR_TIME_SUBTRACT(after, before);
	if (!answer.initiated_io ||
		INSTR_TIME_GET_DOUBLE(after) < threshold)
	{
		la->counts->stat[NXM_STAT_skipped]++;
		return LOOK_CACHED;
	}
	la->counts->stat[NXM_STAT_issued]++;
	return LOOK_SUBMITTED;
}

static inline BlockNumber
block_of(const BTScanPosData *pos, int item)
{
	return ItemPointerGetBlockNumberNoCheck(&pos->items[item].heapTid);
}

static void
remember(LookAhead *la, int item)
{
	la->ring[(la->ring_head + la->ring_count++) & (la->ring_size - 1)] = item;
}

static void
fall_quiet(LookAhead *la, int step)
{
	la->quiet = true;
	la->step = step;
	la->next_look = *la->reads + step;
	verdict.heap = la->heap;
	verdict.step = step;
	verdict.next_look = la->next_look;
}

/*
 * Keeps up to min(credit, distance) blocks in flight.  While quiet, stops at
 * the first block that tells whether it is worth while.
 */
static void
look_further(IndexScanDesc scan, LookAhead *la, const BTScanPosData *pos,
			 int ahead, int end)
{
	int			in_flight = Min(la->credit, la->distance);
	int			window = in_flight * WINDOW;
	int			farthest = la->current + ahead * window;
	Buffer		vmbuf = InvalidBuffer;

	if (la->index_only && (la->next - la->current) * ahead > window / 2)
		return;

	while (la->ring_count < in_flight &&
		   (end - la->next) * ahead >= 0 &&
		   (farthest - la->next) * ahead >= 0)
	{
		int			item = la->next;
		LookResult	found;

		la->next += ahead;
		found = look_at(la, scan->heapRelation, block_of(pos, item), &vmbuf);
		if (found == LOOK_NOT_NEEDED)
			continue;
		if (found == LOOK_SUBMITTED)
		{
			if (la->quiet)
				la->distance = la->max_distance;
			la->quiet = false;
			verdict.heap = InvalidOid;
			la->cached_run = 0;
			remember(la, item);
		}
		else if (la->quiet)
		{
			fall_quiet(la, Min(la->step * 4, QUIET_STEP));
			break;
		}
		else if (++la->cached_run >= 8 + la->distance)
		{
			la->cached_run = 0;
			la->distance /= 2;
			if (la->distance == 0)
			{
				la->distance = la->max_distance;
				fall_quiet(la, QUIET_STEP);
				break;
			}
		}
	}
	if (BufferIsValid(vmbuf))
		ReleaseBuffer(vmbuf);
}

/* Not inlined: the fast way past it must not pay for its registers. */
static pg_noinline void
look_ahead(IndexScanDesc scan, LookAhead *la, const BTScanPosData *pos,
		   ScanDirection dir)
{
	int			ahead = ScanDirectionIsForward(dir) ? 1 : -1;
	int			first = ahead > 0 ? pos->firstItem : pos->lastItem;
	int			end = ahead > 0 ? pos->lastItem : pos->firstItem;
	int			item = pos->itemIndex;
	int			passed = (item - la->current) * ahead;

	/*
	 * Another leaf, another direction, or back on the same leaf (a restored
	 * mark, or the leaf read anew for other array keys): start again behind
	 * the current item.
	 */
	if (la->page != pos->currPage || la->dir != dir || passed <= 0)
	{
		waste_ring(la);
		la->page = pos->currPage;
		la->dir = dir;
		la->next = item + ahead;
		passed = 1;
		/* of this leaf, while quiet */
		if (la->quiet)
			passed = (item - first) * ahead + 1;
	}
	la->current = item;
	la->credit = Min(la->credit + passed, la->max_distance);

	while (la->ring_count > 0 &&
		   (item - la->ring[la->ring_head & (la->ring_size - 1)]) * ahead >= 0)
	{
		la->ring_head++;
		la->ring_count--;
		la->counts->stat[NXM_STAT_used]++;
	}
	if ((item - la->next) * ahead >= 0)
		la->next = item + ahead;

	if (!la->quiet || *la->reads >= la->next_look)
	{
		look_further(scan, la, pos, ahead, end);
		/* nothing there told anything: at the next read, then */
		if (la->quiet && *la->reads >= la->next_look)
			la->next_look = *la->reads + 1;
	}
	/* while blocks are in flight the scan has to be followed */
	la->wake_at = la->quiet && la->ring_count == 0 ? la->next_look : 0;
}

static pg_noinline bool
gettuple_and_look(IndexScanDesc scan, ScanDirection dir)
{
	BTScanOpaque so;
	LookAhead  *la;

	if (!btgettuple(scan, dir))
		return false;
	if (!nxm_enable_prefetch || switched_off)
		return true;

	la = (LookAhead *) scan->orderByData;
	so = (BTScanOpaque) scan->opaque;
	if (la != NULL)
		look_ahead(scan, la, &so->currPos, dir);
	/* nothing at the first tuple: it may be the only one wanted */
	else if (so->currPos.itemIndex != (ScanDirectionIsForward(dir) ?
									   so->currPos.lastItem :
									   so->currPos.firstItem))
		(void) begin_look_ahead(scan, &so->currPos);
	return true;
}

/*
 * The way of a cached scan is two loads, a comparison and a jump to the btree:
 * nothing else may stand before it, nor anything after it.
 */
static bool
look_ahead_gettuple(IndexScanDesc scan, ScanDirection dir)
{
	LookAhead  *la = (LookAhead *) scan->orderByData;

	if (la != NULL && *la->reads < la->wake_at)
		return btgettuple(scan, dir);
	return gettuple_and_look(scan, dir);
}

static void
look_ahead_rescan(IndexScanDesc scan, ScanKey keys, int nkeys,
				  ScanKey orderbys, int norderbys)
{
	LookAhead  *la = (LookAhead *) scan->orderByData;

	if (la != NULL)
	{
		waste_ring(la);
		la->page = InvalidBlockNumber;
		la->index_only = scan->xs_want_itup;
	}
	btrescan(scan, keys, nkeys, orderbys, norderbys);
}

/* Gives an index our routine, if it is a btree that we know. */
static void
take_seat(Relation index)
{
	NxmAmRoutinePtr routine;

	if (index == NULL || index->rd_indam == our_routine ||
		index->rd_rel->relam != BTREE_AM_OID ||
		RelationGetRelid(index) < FirstNormalObjectId)
		return;

	routine = index->rd_indam;
	if (routine == NULL || routine->amgettuple != btgettuple ||
		routine->amrescan != btrescan)
		return;
	if (our_routine == NULL)
	{
		IndexAmRoutine *copy = MemoryContextAlloc(TopMemoryContext,
												  2 * sizeof(IndexAmRoutine));

		/* with its padding, which the comparison below looks at too */
		memcpy(&copy[0], routine, sizeof(IndexAmRoutine));
		memcpy(&copy[1], routine, sizeof(IndexAmRoutine));
		copy[1].amgettuple = look_ahead_gettuple;
		copy[1].amrescan = look_ahead_rescan;
		btree_routine = &copy[0];
		our_routine = &copy[1];
	}
	/* another extension's changed copy is not ours to replace */
	if (memcmp(routine, btree_routine, sizeof(IndexAmRoutine)) == 0)
		index->rd_indam = our_routine;
}

static bool
take_seats(PlanState *state, void *context)
{
	if (state == NULL)
		return false;
	if (IsA(state, IndexScanState))
		take_seat(((IndexScanState *) state)->iss_RelationDesc);
	else if (IsA(state, IndexOnlyScanState))
		take_seat(((IndexOnlyScanState *) state)->ioss_RelationDesc);
	return planstate_tree_walker(state, take_seats, context);
}

void
nxm_prefetch_index_start(QueryDesc *query, int eflags)
{
#ifdef USE_PREFETCH
	if (!nxm_enable_prefetch || switched_off ||
		(eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0)
		return;
	if (unlikely(nxm_prefetch_off_reason()[0] != '\0'))
	{
		switched_off = true;
		return;
	}
	/* the plan of SELECT f($1): the walk costs more than the rest of this */
	if (IsA(query->planstate, ResultState) &&
		outerPlanState(query->planstate) == NULL &&
		query->planstate->initPlan == NIL && query->planstate->subPlan == NIL)
		return;
	(void) take_seats(query->planstate, NULL);
#endif
}

/* In place of the range that PostgreSQL checks: its message has no hint. */
static bool
check_distance(int *newval, void **extra, GucSource source)
{
	(void) extra;
	(void) source;
	if (*newval >= -1 && *newval <= MAX_DISTANCE)
		return true;
	GUC_check_errmsg("%d is outside the valid range for parameter \"%s\" (%d .. %d)",
					 *newval, "nexusmem.prefetch_distance", -1, MAX_DISTANCE);
	GUC_check_errhint("0 reads nothing ahead, -1 takes effective_io_concurrency where somebody has set it.");
	return false;
}

void
nxm_prefetch_index_init(void)
{
	DefineCustomBoolVariable("nexusmem.enable_prefetch",
							 "Reads ahead in index scans.",
							 NULL,
							 &nxm_enable_prefetch,
							 true,
							 PGC_USERSET,
							 GUC_EXPLAIN, NULL, NULL, NULL);
	DefineCustomIntVariable("nexusmem.prefetch_distance",
							"Most blocks in flight for one scan, at most 1000.",
							"-1 takes effective_io_concurrency where somebody has set it, and 32 where nobody has.",
							&nxm_prefetch_distance,
							-1, INT_MIN, INT_MAX,
							PGC_USERSET,
							GUC_EXPLAIN, check_distance, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		calibrate();
}
