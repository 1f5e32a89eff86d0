/*
 * prefetch_internal.h
 *	  What the look-ahead of every kind of index scan shares, and the parts of
 *	  the btree's.  For prefetch_*.c alone.
 */
#ifndef NXM_PREFETCH_INTERNAL_H
#define NXM_PREFETCH_INTERNAL_H

#include "postgres.h"

#include "access/amapi.h"
#include "access/nbtree.h"
#include "access/relscan.h"
#include "nodes/execnodes.h"
#include "prefetch_index.h"
#include "prefetch_stats.h"
#include "utils/rel.h"

/* items looked at ahead, for each block that may be in flight */
#define NXM_LOOK_WINDOW 16
/* blocks remembered as looked at, by their low bits */
#define NXM_RECENT_BLOCKS 64

/* What one scan counts: most have nothing to, so it is made with the first block. */
typedef struct NxmLookCounts
{
	NxmPrefetchCounts *table;	/* what the transaction counts of the table */
	int64		stat[NXM_NUM_PREFETCH_STATS];	/* the scan's own */
} NxmLookCounts;

/*
 * How far and whether at all: the part that knows nothing of an index.  Made
 * anew by every scan, so it is small.
 */
typedef struct NxmLookAhead
{
	/* Nothing to do while *reads is below wake_at. */
	int64		wake_at;
	const int64 *reads;			/* in pgBufferUsage, or a constant 0: never */

	bool		quiet;
	bool		index_only;
	int			distance;		/* in force */
	int			max_distance;
	int			credit;
	int			cached_run;		/* cached blocks in a row */
	int			step;			/* reads between two looks while quiet */
	int64		next_look;		/* *reads from which on to look again, while quiet */
	Oid			heap;
	BlockNumber nblocks;		/* of the heap, as last asked */
	NxmLookCounts *counts;		/* NULL: nothing counted yet */
	BlockNumber recent[NXM_RECENT_BLOCKS];
} NxmLookAhead;

/* Could it be asked for, and did that go to the disk? */
typedef enum NxmLookResult
{
	NXM_LOOK_NOT_NEEDED,		/* looked at lately, or not to be read */
	NXM_LOOK_CACHED,			/* in shared_buffers, or in memory */
	NXM_LOOK_SUBMITTED			/* being read from the disk */
} NxmLookResult;

/* prefetch_index.c */

/*
 * Most blocks in flight for this scan; 0 where it is none to look ahead in, or
 * the settings say so.  May raise errors.
 */
extern int	nxm_look_distance(IndexScanDesc scan);
/* la begins quiet, with what the last scan of the same table found. */
extern void nxm_look_begin(NxmLookAhead *la, IndexScanDesc scan,
						   int max_distance);
/*
 * Asks for a heap block unless it is cached.  *vmbuf: a pinned page of the
 * visibility map or InvalidBuffer, the caller's to release.
 */
extern NxmLookResult nxm_look_at(NxmLookAhead *la, Relation heap,
								 BlockNumber block, Buffer *vmbuf);
/*
 * Counts a block, for the scan and for its table.  Never fails: where memory is
 * short, for the table alone.
 */
extern void nxm_look_count(NxmLookAhead *la, NxmPrefetchStat stat);
/* Asks for a block of the index; it counts as one of the table's. */
extern NxmLookResult nxm_look_at_index(NxmLookAhead *la, Relation index,
									   BlockNumber block);
/* What a look found; false: look no further now. */
extern bool nxm_look_learn(NxmLookAhead *la, NxmLookResult found);
/* So many blocks that were asked for will not be reached. */
extern void nxm_look_wasted(NxmLookAhead *la, int nblocks);
/* The scan has returned a tuple; while quiet, how many reads to let pass. */
extern void nxm_look_sleep(NxmLookAhead *la, int in_flight);
/* Switches look-ahead off for the whole server, for status to tell. */
extern void nxm_look_switch_off(const char *reason);
/*
 * Does scan->opaque have the size of a struct of that many bytes?  false also
 * where memory is short: *known is then not set.
 */
extern bool nxm_look_layout(IndexScanDesc scan, Size size, bool *known,
							const char *am);

/* Is it on, by the settings and by the self-check? */
extern bool nxm_look_enabled(void);

/* An access method whose routine ours takes the place of. */
typedef struct NxmSeat
{
	Oid			am;
	amgettuple_function gettuple;
	amrescan_function rescan;
	amendscan_function endscan;
	amgettuple_function our_gettuple;
	amrescan_function our_rescan;
	amendscan_function our_endscan;
	/* what the relcache gave us and our copy of it, made at the first use */
	IndexAmRoutine *theirs;
	IndexAmRoutine *ours;
} NxmSeat;

/* prefetch_am.c: hash, GiST, SP-GiST */

#define NXM_AM_SEATS 3
extern NxmSeat nxm_am_seats[NXM_AM_SEATS];

/* Of a scan whose index has one of these; NULL: none. */
extern const NxmLookAhead *nxm_am_look(IndexScanDesc scan);

typedef struct NxmLeaves NxmLeaves;
typedef struct NxmArrays NxmArrays;

/*
 * The look-ahead of a btree scan.  Places are counted from the first item that
 * the scan returned of its current leaf, in its direction, and go on over the
 * leaves behind it.
 */
typedef struct NxmBtreeLook
{
	NxmLookAhead base;

	ScanDirection dir;
	BlockNumber page;			/* current leaf */
	int			size;			/* items of it */
	int			current;		/* place of the item returned last */
	int			next;			/* place to look at next */
	NxmLeaves  *leaves;			/* read ahead; NULL: none yet */
	NxmArrays  *arrays;			/* elements to come; NULL: none yet */
	bool		whole;			/* array keys, and surely all rows are wanted */

	/* places asked for and not reached, oldest first */
	int			ring_head;
	int			ring_count;
	int			ring_size;		/* power of two, over max_distance */
	int16		ring[FLEXIBLE_ARRAY_MEMBER];
} NxmBtreeLook;

static inline int16 *
nxm_ring_at(NxmBtreeLook *la, int i)
{
	return &la->ring[(la->ring_head + i) & (la->ring_size - 1)];
}

/* prefetch_leaf.c */

/*
 * Asks for the leaf behind those that are known, or reads it if it is there.
 * May raise the errors that reading a page of an index may.
 */
extern void nxm_leaves_extend(IndexScanDesc scan, NxmBtreeLook *la,
							  int in_flight);
/* Places known: of the current leaf and of those read ahead. */
extern int	nxm_leaves_end(const NxmBtreeLook *la);
/* The block of a place that is not on the current leaf, below the end. */
extern BlockNumber nxm_leaves_block(const NxmBtreeLook *la, int place);
/* Blocks of the index that are in flight. */
extern int	nxm_leaves_in_flight(const NxmBtreeLook *la);
/*
 * The scan is on another leaf: makes it the current one.  false: it was not
 * read ahead, and nothing was done.
 */
extern bool nxm_leaves_arrive(NxmBtreeLook *la, const BTScanPosData *pos,
							  ScanDirection dir);
/* Forgets all that was read ahead.  Returns how many blocks were in flight. */
extern int	nxm_leaves_forget(NxmBtreeLook *la);

/* prefetch_array.c */

/*
 * The scan, which has array keys, has returned a tuple.  Takes note of what it
 * reached of the blocks in flight, and where `look` looks further ahead.  May
 * raise the errors that reading a page of an index may.
 */
extern void nxm_arrays_follow(IndexScanDesc scan, NxmBtreeLook *la,
							  ScanDirection dir, bool look);
/* Blocks asked for and not reached. */
extern int	nxm_arrays_in_flight(const NxmBtreeLook *la);
/* Forgets all that was read ahead.  Returns how many blocks were in flight. */
extern int	nxm_arrays_forget(NxmBtreeLook *la);

/* prefetch_whole.c */

/* A query starts with so many index scans that have array keys, of a btree. */
extern void nxm_whole_start(QueryDesc *desc, int nscans);
/* Is this one of them, and surely asked for all its rows? */
extern bool nxm_is_whole(IndexScanDesc desc);

/* Has this index scan, of a plan, array keys? */
static inline bool
nxm_has_array_key(const PlanState *state)
{
	bool		index_only = IsA(state, IndexOnlyScanState);
	const ScanKeyData *keys = index_only ?
		((const IndexOnlyScanState *) state)->ioss_ScanKeys :
		((const IndexScanState *) state)->iss_ScanKeys;
	int			nkeys = index_only ?
		((const IndexOnlyScanState *) state)->ioss_NumScanKeys :
		((const IndexScanState *) state)->iss_NumScanKeys;

	for (int i = 0; i < nkeys; i++)
	{
		if ((keys[i].sk_flags & SK_SEARCHARRAY) != 0)
			return true;
	}
	return false;
}

/* Item of a place on the current leaf. */
static inline int
nxm_item_at(const BTScanPosData *pos, ScanDirection dir, int place)
{
	return ScanDirectionIsForward(dir) ? pos->firstItem + place :
		pos->lastItem - place;
}

#endif							/* NXM_PREFETCH_INTERNAL_H */
