/*
 * prefetch_index.c
 *	  Look-ahead in index scans and index-only scans: seat, pace, and the btree.
 *
 * An index scan fetches heap blocks one by one, each when its tuple is asked
 * for.  The index leaf that it stands on already names the blocks that come
 * next.  This module asks the operating system for them ahead of time, with
 * posix_fadvise through PrefetchBuffer(), and leaves everything else as it is:
 * it consumes nothing of the scan, reads no block itself and keeps no pins, so
 * that it can change when a block is read and never what the scan returns.
 *
 * The seat.  The executor calls an index through its relcache entry's rd_indam.
 * After ExecutorStart we point the rd_indam of each index of the plan whose
 * access method we know to a copy of that method's routine, with amgettuple and
 * amrescan replaced by ours, which call the originals.  A rebuilt relcache entry has its
 * own routine again and gets ours at the next ExecutorStart.  The copy lives as
 * long as the process.  (In 15 to 18 each relcache entry owns its routine, in
 * 19 all share a const one: a pointer to ours serves both.)
 *
 * State of a scan hangs on scan->orderByData, which a btree, having no order-by
 * operators, leaves NULL: there it is found with one load, is NULL in scans
 * that somebody began before us, and is freed by index_endscan() itself.  It is
 * allocated when something has been read since the leaf's first tuple, or with
 * that leaf's SHORT_SCANth tuple: a short cached scan does without.
 *
 * Look-ahead.  After each tuple the items behind it in the scan direction
 * (BTScanOpaque->currPos.items, copied by the btree when it read the leaf) are
 * looked at, block by block: in shared_buffers? then nothing.  Else asked for,
 * and the item remembered in a ring; it counts as used when the scan reaches
 * it.  An index-only scan passes over blocks that are all-visible.  The items
 * of the leaves behind come from prefetch_leaf.c, what array keys will find
 * from prefetch_array.c; hash, GiST and SP-GiST are in prefetch_am.c.  How far:
 *
 * - credit: the tuples returned, less the blocks wasted by earlier rescans,
 *   at most the distance.  No more blocks are ever in flight.  So LIMIT n
 *   wastes at most n reads, and nothing is asked for at the first tuple.  It
 *   outlives a rescan: an inner scan whose blocks are all used keeps it.  A scan
 *   with array keys that is surely asked for all its rows does without.
 * - distance: nexusmem.prefetch_distance.  8 + distance cached blocks in a row
 *   halve it; below 1 the scan is quiet.
 * - quiet: nothing is looked at until this process has read a block (of
 *   anything: pgBufferUsage tells), which in a cached scan is never.  Then the
 *   next block is looked at; if it has to be read from the disk the scan wakes,
 *   else it lets n more reads pass, n growing fourfold up to QUIET_STEP.  Scans
 *   begin quiet, with what the last scan of the same table found.
 *
 * It looks at most NXM_LOOK_WINDOW times as many items ahead as it may have blocks in
 * flight, for many may name one block, be cached or all-visible; an index-only
 * scan in batches of half of that, so that a page of the visibility map is
 * pinned once a batch.
 *
 * "Cached" includes the operating system's cache, where asking is useless and
 * costs a system call: the call's time tells.  From memory it takes a fraction
 * of a microsecond, to the disk several.  The threshold is THRESHOLD times the
 * median of calls for a page that surely is cached.
 *
 * Self-check.  An access method's scan state is private to it, and this file is
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
 * Limits: those of prefetch_leaf.c, prefetch_array.c and prefetch_am.c.
 */
#include "prefetch_index.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "access/parallel.h"
#include "access/reloptions.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_tablespace.h"
#include "commands/tablespace.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "nodes/execnodes.h"
#include "numa_seam.h"
#include "plan_walk.h"
#include "portability/instr_time.h"
#include "prefetch_internal.h"
#include "prefetch_learned.h"
#include "prefetch_page.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define DEFAULT_DISTANCE 32
#define MAX_DISTANCE 1000
#define QUIET_STEP 128
/* so many reads a scan may miss for what the one before it found */
#define INHERITED_STEP 8
/* tuples of one leaf after which a scan gets its state, read or not */
#define SHORT_SCAN 16
/* halfway, by ratio, between a cached call and one that reaches the disk */
#define THRESHOLD 4.0
#define CALIBRATION_CALLS 33

bool		nxm_enable_prefetch = true;
int			nxm_prefetch_distance = -1;
bool		nxm_debug_force_prefetch = false;

static bool switched_off = false;	/* the self-check failed */
static bool layout_known = false;
static double threshold = 0;	/* seconds of one call; 0: not known */
static bool calibrated = false;
static bool tablespace_known = false;
static const int64 no_reads = 0;

/*
 * The scan without state that returned a leaf's first tuple last, what this
 * process had read by then, and tuples that it may return before it is looked at
 * again.  It may be gone, and another one in its place: that one is then looked
 * at later, or when it has read something.
 */
static IndexScanDesc fresh_scan = NULL;
static int64 fresh_reads = 0;
static int	fresh_tuples = 0;

StaticAssertDecl(InvalidBlockNumber == 0xFFFFFFFF, "set by bytes of 0xff");

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

void
nxm_look_switch_off(const char *reason)
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

bool
nxm_look_layout(IndexScanDesc scan, Size size, bool *known, const char *am)
{
	void	   *ours;
	bool		same;

	if (*known)
		return true;
	/* the rounding is the context's */
	ours = MemoryContextAllocExtended(GetMemoryChunkContext(scan->opaque), size,
									  MCXT_ALLOC_NO_OOM);
	if (ours == NULL)
		return false;
	same = GetMemoryChunkSpace(ours) == GetMemoryChunkSpace(scan->opaque);
	pfree(ours);
	if (same)
		*known = true;
	else
		nxm_look_switch_off(psprintf("the size of a %s scan's private state is not that of the PostgreSQL that nexusmem was built for", am));
	return same;
}

bool
nxm_look_enabled(void)
{
	return nxm_enable_prefetch && !switched_off;
}

/* The self-check's second half: do we see in the private state what the scan returned? */
static bool
layout_shows_current(IndexScanDesc scan, BTScanPosData *pos)
{
	if (pos->firstItem >= 0 && pos->firstItem <= pos->itemIndex &&
		pos->itemIndex <= pos->lastItem &&
		pos->lastItem < (int) MaxTIDsPerBTreePage &&
		ItemPointerEquals(&scan->xs_heaptid, &pos->items[pos->itemIndex].heapTid))
		return true;
	nxm_look_switch_off("a btree scan's private state does not hold the tuple that the scan returned");
	return false;
}

int
nxm_look_distance(IndexScanDesc scan)
{
	if (scan->heapRelation == NULL ||
		scan->heapRelation->rd_tableam != GetHeapamTableAmRoutine() ||
		IsCatalogRelationOid(RelationGetRelid(scan->heapRelation)) ||
		scan->xs_snapshot == NULL ||
		scan->xs_snapshot->snapshot_type != SNAPSHOT_MVCC)
		return 0;
	return nxm_prefetch_distance_for(scan->heapRelation->rd_rel->reltablespace);
}

void
nxm_look_begin(NxmLookAhead *la, IndexScanDesc scan, int max_distance)
{
	if (!calibrated)
		calibrate();
	la->quiet = !nxm_debug_force_prefetch || max_distance == 0;
	la->index_only = scan->xs_want_itup;
	la->distance = max_distance;
	la->max_distance = max_distance;
	la->credit = 0;
	la->cached_run = 0;
	la->step = 1;
	la->reads = max_distance == 0 ? &no_reads :
		RelationUsesLocalBuffers(scan->indexRelation) ?
		&pgBufferUsage.local_blks_read : &pgBufferUsage.shared_blks_read;
	la->next_look = *la->reads + 1;
	la->heap = max_distance > 0 ? RelationGetRelid(scan->heapRelation) :
		InvalidOid;
	if (max_distance > 0 && verdict.heap == la->heap &&
		verdict.next_look > la->next_look)
	{
		la->step = Min(verdict.step, INHERITED_STEP);
		la->next_look = Min(verdict.next_look, *la->reads + INHERITED_STEP);
	}
	la->wake_at = la->quiet ? la->next_look : 0;
	la->nblocks = 0;
	la->counts = NULL;
	memset(la->recent, 0xff, sizeof(la->recent));
}

static pg_noinline NxmBtreeLook *
begin_look_ahead(IndexScanDesc scan, BTScanPosData *pos)
{
	NxmBtreeLook *la;
	int			max_distance = 0;
	int			ring_size = 1;

	if (!nxm_look_layout(scan, sizeof(BTScanOpaqueData), &layout_known, "btree") ||
		!layout_shows_current(scan, pos))
		return NULL;

	max_distance = nxm_look_distance(scan);
	while (ring_size <= max_distance)
		ring_size *= 2;

	la = MemoryContextAllocExtended(GetMemoryChunkContext(scan),
									offsetof(NxmBtreeLook, ring) +
									sizeof(int16) * ring_size,
									MCXT_ALLOC_NO_OOM);
	if (la == NULL)
		return NULL;			/* the scan goes on without */

	nxm_look_begin(&la->base, scan, max_distance);
	la->dir = NoMovementScanDirection;
	la->page = InvalidBlockNumber;
	la->size = 0;
	la->current = 0;
	la->next = 0;
	la->leaves = NULL;
	la->arrays = NULL;
	la->whole = false;
	la->ring_head = 0;
	la->ring_count = 0;
	la->ring_size = ring_size;
	scan->orderByData = (ScanKey) la;
	return la;
}

void
nxm_look_wasted(NxmLookAhead *la, int nblocks)
{
	/* the transaction's end counts them */
	la->credit = Max(0, la->credit - nblocks);
}

/* What was asked for of this leaf and those behind it will not be reached. */
static void
forget_leaves(NxmBtreeLook *la)
{
	nxm_look_wasted(&la->base, la->ring_count + nxm_leaves_forget(la));
	la->ring_count = 0;
}

void
nxm_look_count(NxmLookAhead *la, NxmPrefetchStat stat)
{
	NxmLookCounts *counts = la->counts;

	if (counts == NULL)
	{
		NxmPrefetchCounts *table = nxm_prefetch_counts(la->heap,
													   NXM_PREFETCH_INDEX);

		counts = MemoryContextAllocExtended(GetMemoryChunkContext(la),
											sizeof(NxmLookCounts),
											MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
		if (counts == NULL)
		{
			table->stat[stat]++;
			return;
		}
		counts->table = table;
		la->counts = counts;
	}
	counts->table->stat[stat]++;
	counts->stat[stat]++;
}

NxmAsked
nxm_prefetch_ask(Relation rel, BlockNumber block)
{
	PrefetchBufferResult answer;
	instr_time	before;
	instr_time	after;

	if (!calibrated)
		calibrate();
	INSTR_TIME_SET_CURRENT(before);
	answer = PrefetchBuffer(rel, MAIN_FORKNUM, block);
	INSTR_TIME_SET_CURRENT(after);
	INSTR_TIME_SUBTRACT(after, before);
	if (BufferIsValid(answer.recent_buffer))
		return NXM_ASKED_BUFFERED;
	return answer.initiated_io && INSTR_TIME_GET_DOUBLE(after) >= threshold ?
		NXM_ASKED_DISK : NXM_ASKED_MEMORY;
}

static NxmLookResult
ask_for(NxmLookAhead *la, Relation rel, BlockNumber block)
{
	if (nxm_prefetch_ask(rel, block) != NXM_ASKED_DISK)
	{
		nxm_look_count(la, NXM_STAT_skipped);
		return NXM_LOOK_CACHED;
	}
	nxm_look_count(la, NXM_STAT_issued);
	return NXM_LOOK_SUBMITTED;
}

NxmLookResult
nxm_look_at(NxmLookAhead *la, Relation heap, BlockNumber block, Buffer *vmbuf)
{
	BlockNumber *recent = &la->recent[block % NXM_RECENT_BLOCKS];

	if (*recent == block)
		return NXM_LOOK_NOT_NEEDED;
	*recent = block;

	if (la->index_only && nxm_is_passed_over(heap, block, vmbuf))
		return NXM_LOOK_NOT_NEEDED;

	if (!RelationUsesLocalBuffers(heap) && nxm_is_buffered(heap, block))
	{
		nxm_look_count(la, NXM_STAT_skipped);
		return NXM_LOOK_CACHED;
	}

	/* a damaged index may name blocks that asking for would raise an error */
	if (block >= la->nblocks)
	{
		la->nblocks = RelationGetNumberOfBlocks(heap);
		if (block >= la->nblocks)
			return NXM_LOOK_NOT_NEEDED;
	}
	return ask_for(la, heap, block);
}

NxmLookResult
nxm_look_at_index(NxmLookAhead *la, Relation index, BlockNumber block)
{
	if (!RelationUsesLocalBuffers(index) && nxm_is_buffered(index, block))
		return NXM_LOOK_CACHED;
	/* a damaged index may name pages that asking for would raise an error */
	if (block >= RelationGetNumberOfBlocks(index))
		return NXM_LOOK_NOT_NEEDED;
	return ask_for(la, index, block);
}

static void
fall_quiet(NxmLookAhead *la, int step)
{
	la->quiet = true;
	la->step = step;
	la->next_look = *la->reads + step;
	verdict.heap = la->heap;
	verdict.step = step;
	verdict.next_look = la->next_look;
}

bool
nxm_look_learn(NxmLookAhead *la, NxmLookResult found)
{
	if (found == NXM_LOOK_SUBMITTED)
	{
		if (la->quiet)
			la->distance = la->max_distance;
		la->quiet = false;
		verdict.heap = InvalidOid;
		la->cached_run = 0;
	}
	else if (found == NXM_LOOK_CACHED && la->quiet)
	{
		fall_quiet(la, Min(la->step * 4, QUIET_STEP));
		return false;
	}
	else if (found == NXM_LOOK_CACHED && !nxm_debug_force_prefetch &&
			 ++la->cached_run >= 8 + la->distance)
	{
		la->cached_run = 0;
		la->distance /= 2;
		if (la->distance == 0)
		{
			la->distance = la->max_distance;
			fall_quiet(la, QUIET_STEP);
			return false;
		}
	}
	return true;
}

void
nxm_look_sleep(NxmLookAhead *la, int in_flight)
{
	/* nothing there told anything: at the next read, then */
	if (la->quiet && *la->reads >= la->next_look)
		la->next_look = *la->reads + 1;
	/* while blocks are in flight the scan has to be followed */
	la->wake_at = la->quiet && in_flight == 0 ? la->next_look : 0;
}

/*
 * Keeps up to in_flight blocks in flight.  While quiet, stops at the first
 * block that tells whether it is worth while.
 */
static void
look_further(IndexScanDesc scan, NxmBtreeLook *la, const BTScanPosData *pos,
			 int in_flight)
{
	int			window = in_flight * NXM_LOOK_WINDOW;
	int			farthest = la->current + window;
	int			near_end = la->base.index_only ? window : in_flight;
	int			end = nxm_leaves_end(la);
	int			leaves_in_flight = nxm_leaves_in_flight(la);
	Buffer		vmbuf = InvalidBuffer;

	if (la->base.index_only && la->next - la->current > window / 2)
		return;

	while (la->ring_count + leaves_in_flight < in_flight)
	{
		NxmLookResult found;

		if (end - la->next < near_end && !la->base.quiet)
		{
			nxm_leaves_extend(scan, la, in_flight);
			end = nxm_leaves_end(la);
			leaves_in_flight = nxm_leaves_in_flight(la);
		}
		if (la->next >= end || la->next > farthest)
			break;
		found = nxm_look_at(&la->base, scan->heapRelation,
							la->next < la->size ?
							ItemPointerGetBlockNumberNoCheck(&pos->items[nxm_item_at(pos, la->dir, la->next)].heapTid) :
							nxm_leaves_block(la, la->next), &vmbuf);
		la->next++;
		if (found == NXM_LOOK_SUBMITTED)
			*nxm_ring_at(la, la->ring_count++) = la->next - 1;
		if (!nxm_look_learn(&la->base, found))
			break;
	}
	if (BufferIsValid(vmbuf))
		ReleaseBuffer(vmbuf);
}

/* Place of the item that the scan returned, on its leaf. */
static inline int
current_place(const BTScanPosData *pos, ScanDirection dir)
{
	return ScanDirectionIsForward(dir) ? pos->itemIndex - pos->firstItem :
		pos->lastItem - pos->itemIndex;
}

/* Not inlined: the fast way past it must not pay for its registers. */
static pg_noinline void
look_ahead(IndexScanDesc scan, NxmBtreeLook *la, const BTScanPosData *pos,
		   ScanDirection dir)
{
	int			place = current_place(pos, dir);
	int			size = pos->lastItem - pos->firstItem + 1;
	bool		follows = la->dir == dir &&
		((la->page == pos->currPage && la->size == size) ||
		 nxm_leaves_arrive(la, pos, dir));
	int			passed = place - la->current;
	bool		has_arrays = ((BTScanOpaque) scan->opaque)->numArrayKeys > 0;
	bool		look;
	int			in_flight;

	la->page = pos->currPage;

	/*
	 * A leaf that was not read ahead, another direction, or back on the same
	 * leaf (a restored mark, or the leaf read anew for other array keys): start
	 * again behind the current item.
	 */
	if (!follows || passed <= 0)
	{
		forget_leaves(la);
		la->dir = dir;
		la->size = size;
		la->next = place + 1;
		/* of this leaf, while quiet */
		passed = la->base.quiet ? place + 1 : 1;
	}
	la->current = place;
	la->base.credit = Min(la->base.credit + passed, la->base.max_distance);

	while (la->ring_count > 0 && *nxm_ring_at(la, 0) <= place)
	{
		la->ring_head++;
		la->ring_count--;
		nxm_look_count(&la->base, NXM_STAT_used);
	}
	la->next = Max(la->next, place + 1);

	look = !la->base.quiet || *la->base.reads >= la->base.next_look;
	in_flight = la->whole ? la->base.distance :
		Min(la->base.credit, la->base.distance);
	if (look)
		look_further(scan, la, pos, in_flight - nxm_arrays_in_flight(la));
	if (has_arrays)
	{
		/* unless what is nearer has told */
		look = !la->base.quiet || *la->base.reads >= la->base.next_look;
		nxm_arrays_follow(scan, la, dir, look);
	}
	nxm_look_sleep(&la->base, la->ring_count + nxm_leaves_in_flight(la) +
				   nxm_arrays_in_flight(la));
}

static inline int64
blocks_read(void)
{
	return pgBufferUsage.shared_blks_read + pgBufferUsage.local_blks_read;
}

/*
 * A scan without state has returned a tuple.  Not at the first one: it may be the
 * only one wanted.  The memory costs a short cached scan more than all else here,
 * so it waits for a read, or for SHORT_SCAN tuples.
 */
static void
begin_if_due(IndexScanDesc scan, BTScanPosData *pos, ScanDirection dir)
{
	int			place = current_place(pos, dir);
	int64		reads = blocks_read();
	int64		missed = 0;
	NxmBtreeLook *la;

	if (((BTScanOpaque) scan->opaque)->numArrayKeys == 0 &&
		!nxm_debug_force_prefetch)
	{
		if (place == 0)
		{
			fresh_scan = scan;
			fresh_reads = reads;
			fresh_tuples = SHORT_SCAN - 2;
			return;
		}
		if (fresh_scan == scan)
		{
			missed = reads - fresh_reads;
			if (missed == 0 && place < SHORT_SCAN - 1)
			{
				fresh_tuples = SHORT_SCAN - 2 - place;
				return;
			}
		}
		if (place == pos->lastItem - pos->firstItem &&
			!(ScanDirectionIsForward(dir) ? pos->moreRight : pos->moreLeft))
			return;
	}
	la = begin_look_ahead(scan, pos);
	if (la != NULL && missed > 0)
	{
		/* as if it had begun with that tuple */
		la->base.next_look -= missed;
		look_ahead(scan, la, pos, dir);
	}
}

static pg_noinline bool
gettuple_and_look(IndexScanDesc scan, ScanDirection dir)
{
	NxmBtreeLook *la;
	BTScanPosData *pos;

	if (!btgettuple(scan, dir))
		return false;
	if (!nxm_look_enabled())
		return true;

	la = (NxmBtreeLook *) scan->orderByData;
	pos = &((BTScanOpaque) scan->opaque)->currPos;
	if (la != NULL)
		look_ahead(scan, la, pos, dir);
	else
		begin_if_due(scan, pos, dir);
	return true;
}

/*
 * The way of a cached scan is two loads, a comparison and a jump to the btree, or
 * where it has no state yet some more: nothing else may stand before it, nor
 * anything after it.
 */
static bool
look_ahead_gettuple(IndexScanDesc scan, ScanDirection dir)
{
	NxmLookAhead *la = (NxmLookAhead *) scan->orderByData;

	if (la != NULL ? *la->reads < la->wake_at :
		scan == fresh_scan && blocks_read() == fresh_reads &&
		fresh_tuples-- > 0)
		return btgettuple(scan, dir);
	return gettuple_and_look(scan, dir);
}

static void
look_ahead_rescan(IndexScanDesc scan, ScanKey keys, int nkeys,
				  ScanKey orderbys, int norderbys)
{
	NxmBtreeLook *la = (NxmBtreeLook *) scan->orderByData;

	if (la != NULL)
	{
		forget_leaves(la);
		nxm_look_wasted(&la->base, nxm_arrays_forget(la));
		la->page = InvalidBlockNumber;
		la->base.index_only = scan->xs_want_itup;
	}
	btrescan(scan, keys, nkeys, orderbys, norderbys);
}

bool
nxm_prefetch_index_awake(IndexScanDesc scan)
{
	NxmBtreeLook *la = (NxmBtreeLook *) scan->orderByData;

	return la != NULL && !la->base.quiet;
}

static NxmSeat btree_seat = {
	BTREE_AM_OID, btgettuple, btrescan, btendscan,
	look_ahead_gettuple, look_ahead_rescan, btendscan, NULL, NULL
};

static NxmSeat *
seat_of(Oid am)
{
	if (am == BTREE_AM_OID)
		return &btree_seat;
	for (int i = 0; i < NXM_AM_SEATS; i++)
	{
		if (nxm_am_seats[i].am == am)
			return &nxm_am_seats[i];
	}
	return NULL;
}

bool
nxm_prefetch_index_stats(IndexScanDesc scan, int64 stat[NXM_NUM_PREFETCH_STATS],
						 int *distance)
{
	NxmAmRoutinePtr routine = scan->indexRelation->rd_indam;
	NxmSeat    *seat = seat_of(scan->indexRelation->rd_rel->relam);
	const NxmLookAhead *la;

	if (seat == NULL ||
		(routine != seat->ours && routine != nxm_learned_routine))
		return false;
	la = seat == &btree_seat ? (const NxmLookAhead *) scan->orderByData :
		nxm_am_look(scan);
	if (la == NULL || la->counts == NULL)
		return false;
	memcpy(stat, la->counts->stat, sizeof(la->counts->stat));
	stat[NXM_STAT_wasted] = stat[NXM_STAT_issued] - stat[NXM_STAT_used];
	*distance = la->max_distance;
	return true;
}

/* Gives an index our routine, if it is of a kind that we know. */
static void
take_seat(Relation index)
{
	NxmAmRoutinePtr routine;
	NxmSeat    *seat;

	if (index->rd_indam == btree_seat.ours ||
		RelationGetRelid(index) < FirstNormalObjectId)
		return;
	seat = seat_of(index->rd_rel->relam);
	routine = index->rd_indam;
	if (seat == NULL || routine == NULL || routine == seat->ours ||
		routine->amgettuple != seat->gettuple ||
		routine->amrescan != seat->rescan ||
		routine->amendscan != seat->endscan)
		return;
	if (seat->ours == NULL)
	{
		IndexAmRoutine *copy = MemoryContextAlloc(TopMemoryContext,
												  2 * sizeof(IndexAmRoutine));

		/* with its padding, which the comparison below looks at too */
		memcpy(&copy[0], routine, sizeof(IndexAmRoutine));
		memcpy(&copy[1], routine, sizeof(IndexAmRoutine));
		copy[1].amgettuple = seat->our_gettuple;
		copy[1].amrescan = seat->our_rescan;
		copy[1].amendscan = seat->our_endscan;
		seat->theirs = &copy[0];
		seat->ours = &copy[1];
	}
	/* another extension's changed copy is not ours to replace */
	if (memcmp(routine, seat->theirs, sizeof(IndexAmRoutine)) == 0)
		index->rd_indam = seat->ours;
}

/* *context: an int, to which index scans with array keys are added. */
static bool
take_seats(PlanState *state, void *context)
{
	Relation	index = NULL;

	if (IsA(state, IndexScanState))
		index = ((IndexScanState *) state)->iss_RelationDesc;
	else if (IsA(state, IndexOnlyScanState))
		index = ((IndexOnlyScanState *) state)->ioss_RelationDesc;
	if (index != NULL)
	{
		if (nxm_enable_prefetch || nxm_enable_learned_prefetch)
			take_seat(index);
		nxm_learned_take_seat(index, btree_seat.ours);
		*(int *) context += nxm_has_array_key(state);
	}
	return nxm_walk_below(state, take_seats, context);
}

void
nxm_prefetch_index_start(QueryDesc *query, int eflags)
{
#ifdef USE_PREFETCH
	int			narrays = 0;

	/* switched off, learned look-ahead leaves the seats that it has taken */
	if ((!nxm_enable_prefetch && !nxm_enable_learned_prefetch &&
		 nxm_learned_routine == NULL) || switched_off ||
		(eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0)
		return;
	if (unlikely(nxm_prefetch_off_reason()[0] != '\0'))
	{
		switched_off = true;
		return;
	}
	/*
	 * Of no relation, as SELECT f($1): the walk costs more than the rest of this.  A parallel
	 * worker is not told of them.
	 */
	if (query->plannedstmt->relationOids == NIL && !IsParallelWorker())
		return;
	(void) nxm_walk_query(query, take_seats, &narrays);
	if (narrays > 0)
		nxm_whole_start(query, narrays);
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
	DefineCustomBoolVariable("nexusmem.debug_force_prefetch",
							 "Reads ahead in all index scans and nested loops that may, be there something to read or not.",
							 "For tests.",
							 &nxm_debug_force_prefetch,
							 false,
							 PGC_SUSET,
							 GUC_NOT_IN_SAMPLE | GUC_EXPLAIN, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		calibrate();
}
