/*
 * prefetch_array.c
 *	  Look-ahead of a btree scan for = ANY (array): the elements to come.
 *
 * Such a scan goes from one element of its arrays to the next.  They are known,
 * sorted, from the scan's start, so the leaf of an element to come can be found
 * by a descent (btree_probe.c) and asked for, and later, when it is there, its
 * items' heap blocks.  What lies on the scan's current leaf is left to
 * prefetch_index.c.
 *
 * Steps.  Several arrays are gone through like the digits of a number, the last
 * column's fastest; steps number these combinations in the scan's direction.
 * Leaves are asked for up to `distance` steps ahead, so many at a time that they
 * are half of what may be in flight.  Heap blocks follow at once where the leaf
 * is in memory, and half that distance ahead where it is not.  A leaf is in
 * flight until it has been searched.
 *
 * Where all rows are surely wanted (prefetch_whole.c) the scan goes to the full
 * distance at once, else by its credit, as in prefetch_index.c.
 *
 * A leaf counts as used when the scan comes to its step (it descends there, be
 * there a match or not), a heap block when the scan returns a tuple of it.
 *
 * Keys: the probe takes the columns from the first one on that have equality,
 * by an array or not.  Where the scan has other keys as well, the leaf tells
 * more rows than it will return; then leaves are read ahead and heap blocks are
 * not.
 *
 * All pointers into the scan's private state are taken anew each time, for a
 * rescan or the btree's own preprocessing replaces them.
 *
 * Limits: in PostgreSQL 15 and 16 elements that have no rows return no tuple,
 * and while the btree runs through such nothing is read ahead.  No parallel
 * scans, no skip arrays (18).  Memory: 3 kB, and 40 to 80 bytes for each block
 * that may be in flight.
 */
#include "prefetch_internal.h"

#include "btree_probe.h"
#include "compat.h"
#include "prefetch_page.h"
#include "utils/memutils.h"

/* heap blocks read ahead for one element */
#define MAX_BLOCKS 16

/* A block asked for and not reached. */
typedef struct Asked
{
	int			step;
	BlockNumber block;
	bool		is_leaf;
} Asked;

/* Two arrays that happen to have the same size. */
typedef struct Slot
{
	BlockNumber leaf;			/* of a step, by its number's low bits */
	bool		leaf_asked;		/* and it is being read from the disk */
	bool		leaf_counted;	/* and is one of leaves_in_flight, for this step */
	Asked		asked;			/* the first `count` of them */
} Slot;

struct NxmArrays
{
	bool		prepared;		/* what follows, since the scan began anew */
	bool		usable;
	bool		exact;			/* the probe's keys are all the scan has */
	ScanDirection dir;
	int			nkeys;
	int			array[INDEX_MAX_KEYS];	/* of a key, in arrayKeys; -1: none */
	int			nsteps;

	int			current;		/* step that the scan is at */
	int			past;			/* steps before it are past for sure */
	int			past_page;		/* the same when the scan leaves this page */
	BlockNumber page;
	int			leaf_next;		/* step whose leaf is found next */
	int			heap_next;		/* step whose leaf is read next */
	int			count;			/* asked for and not reached */
	int			leaves_in_flight;	/* of these, not searched */
	int			heap_in_flight;
	int			size;			/* power of two, over twice max_distance */

	NxmBtreeProbe probe;
	Slot		slot[FLEXIBLE_ARRAY_MEMBER];
};

static inline Slot *
slot_of_step(NxmArrays *a, int step)
{
	return &a->slot[step & (a->size - 1)];
}

int
nxm_arrays_in_flight(const NxmBtreeLook *la)
{
	return la->arrays == NULL ? 0 : la->arrays->count;
}

int
nxm_arrays_forget(NxmBtreeLook *la)
{
	int			n = nxm_arrays_in_flight(la);

	if (la->arrays != NULL)
	{
		la->arrays->prepared = false;
		la->arrays->count = 0;
	}
	la->whole = false;
	return n;
}

/* The array of a column, or -1. */
static int
array_of_column(BTScanOpaque so, AttrNumber column)
{
	for (int i = 0; i < so->numArrayKeys; i++)
	{
		if (nxm_btree_array_key(so, i)->sk_attno == column)
			return i;
	}
	return -1;
}

/* Finds out what the probe is to look for. */
static void
prepare(IndexScanDesc scan, NxmArrays *a, ScanDirection dir)
{
	BTScanOpaque so = (BTScanOpaque) scan->opaque;
	NxmProbeKey keys[INDEX_MAX_KEYS];
	int			narrays = 0;
	int64		nsteps = 1;

	a->prepared = true;
	a->usable = false;
	a->exact = true;
	a->dir = dir;
	a->nkeys = 0;
	for (int i = 0; i < so->numberOfKeys; i++)
	{
		ScanKey		key = &so->keyData[i];
		int			array;

		if (key->sk_attno != a->nkeys + 1 ||
			key->sk_strategy != BTEqualStrategyNumber ||
			(key->sk_flags & (SK_ISNULL | SK_ROW_HEADER)) != 0)
		{
			a->exact = false;
			continue;
		}
		array = array_of_column(so, key->sk_attno);
		if (array >= 0)
		{
			narrays++;
			/* a skip array of 18 has no elements */
			if (so->arrayKeys[array].num_elems <= 0)
				return;
			nsteps *= so->arrayKeys[array].num_elems;
			if (nsteps > PG_INT32_MAX)
				return;
		}
		a->array[a->nkeys] = array;
		keys[a->nkeys].type = key->sk_subtype;
		keys[a->nkeys].collation = key->sk_collation;
		keys[a->nkeys].strategy = BTEqualStrategyNumber;
		a->nkeys++;
	}
	if (narrays == 0 || narrays != so->numArrayKeys ||
		!nxm_btree_probe_init(&a->probe, scan->indexRelation, keys, a->nkeys,
							  dir))
		return;
	for (int i = 0; i < so->numberOfKeys; i++)
	{
		ScanKey		key = &so->keyData[i];

		if (key->sk_attno <= a->nkeys &&
			key->sk_strategy == BTEqualStrategyNumber)
			nxm_btree_probe_set(&a->probe, key->sk_attno - 1, key->sk_argument);
	}
	a->nsteps = nsteps;
	a->current = -1;
	a->page = InvalidBlockNumber;
	a->past = 0;
	a->past_page = 0;
	a->leaf_next = 0;
	a->heap_next = 0;
	a->usable = true;
}

static int
step_of(BTScanOpaque so, const NxmArrays *a)
{
	int			combination = 0;

	for (int i = 0; i < a->nkeys; i++)
	{
		if (a->array[i] >= 0)
			combination = combination * so->arrayKeys[a->array[i]].num_elems +
				so->arrayKeys[a->array[i]].cur_elem;
	}
	return ScanDirectionIsForward(a->dir) ? combination :
		a->nsteps - 1 - combination;
}

static void
set_keys(BTScanOpaque so, NxmArrays *a, int step)
{
	int			combination = ScanDirectionIsForward(a->dir) ? step :
		a->nsteps - 1 - step;

	for (int i = a->nkeys - 1; i >= 0; i--)
	{
		BTArrayKeyInfo *array;

		if (a->array[i] < 0)
			continue;
		array = &so->arrayKeys[a->array[i]];
		nxm_btree_probe_set(&a->probe, i,
							array->elem_values[combination % array->num_elems]);
		combination /= array->num_elems;
	}
}

static void
remember(NxmArrays *a, int step, BlockNumber block, bool is_leaf)
{
	Asked	   *asked = &a->slot[a->count++].asked;

	asked->step = step;
	asked->block = block;
	asked->is_leaf = is_leaf;
	if (is_leaf)
		a->leaves_in_flight++;
	else
		a->heap_in_flight++;
}

/* Takes out what the scan has come to, or is past. */
static void
reach(NxmArrays *a, NxmLookAhead *la, BlockNumber heap_block)
{
	int			kept = 0;
	int			wasted = 0;

	a->leaves_in_flight = 0;
	a->heap_in_flight = 0;
	for (int i = 0; i < a->count; i++)
	{
		Asked	   *asked = &a->slot[i].asked;

		if (asked->step <= a->current &&
			(asked->is_leaf || asked->block == heap_block))
			nxm_look_count(la, NXM_STAT_used);
		else if (asked->step < a->past)
			wasted++;
		else
		{
			if (!asked->is_leaf)
				a->heap_in_flight++;
			else if (asked->step >= a->heap_next)
				a->leaves_in_flight++;
			a->slot[kept++].asked = *asked;
		}
	}
	a->count = kept;
	nxm_look_wasted(la, wasted);
}

/* The scan has returned a tuple: where is it now?  false: nothing to come. */
static bool
follow(IndexScanDesc scan, NxmBtreeLook *la, ScanDirection dir)
{
	BTScanOpaque so = (BTScanOpaque) scan->opaque;
	NxmArrays  *a = la->arrays;
	int			step;
	int			next;

	if (a->prepared && (a->dir != dir || (a->usable && step_of(so, a) < a->current)))
		nxm_look_wasted(&la->base, nxm_arrays_forget(la));
	if (!a->prepared)
	{
		prepare(scan, a, dir);
		/* a key less: the btree has found that it bounds the elements as well */
		la->whole = so->numberOfKeys == scan->numberOfKeys && nxm_is_whole(scan);
	}
	if (!a->usable)
		return false;

	step = step_of(so, a);
	if (a->page != so->currPos.currPage || step != a->current)
	{
		a->page = so->currPos.currPage;
		a->past = NXM_BTREE_ARRAY_BY_ELEMENT ? step : a->past_page;
		a->past_page = step;
	}
	a->current = step;
	next = nxm_btree_next_step(so, dir, step);
	a->heap_next = Max(a->heap_next, next);
	a->leaf_next = Max(a->leaf_next, a->heap_next);
	reach(a, &la->base, ItemPointerGetBlockNumberNoCheck(&scan->xs_heaptid));
	return next >= 0;
}

/* Finds the leaf of a step.  Returns what nxm_look_learn() does. */
static bool
look_at_leaf(IndexScanDesc scan, NxmArrays *a, NxmLookAhead *la)
{
	int			step = a->leaf_next++;
	Slot	   *slot = slot_of_step(a, step);
	BlockNumber leaf;
	NxmLookResult found;

	set_keys((BTScanOpaque) scan->opaque, a, step);
	leaf = nxm_btree_probe_leaf(&a->probe);
	slot->leaf = leaf;
	slot->leaf_asked = false;
	slot->leaf_counted = false;
	if (!BlockNumberIsValid(leaf))
		return true;
	if (step > a->heap_next && slot_of_step(a, step - 1)->leaf == leaf)
	{
		slot->leaf_asked = slot_of_step(a, step - 1)->leaf_asked;
		return true;
	}
	found = nxm_look_at_index(la, scan->indexRelation, leaf);
	slot->leaf_asked = slot->leaf_counted = found == NXM_LOOK_SUBMITTED;
	if (found == NXM_LOOK_SUBMITTED)
		remember(a, step, leaf, true);
	/* that the leaf is cached tells nothing of the heap */
	else if (a->exact && !la->index_only)
		return true;
	return nxm_look_learn(la, found);
}

/* Reads the leaf of a step and looks at the heap. */
static bool
look_at_heap(IndexScanDesc scan, NxmArrays *a, NxmLookAhead *la, int room,
			 Buffer *vmbuf)
{
	int			step = a->heap_next++;
	Slot	   *slot = slot_of_step(a, step);
	BlockNumber blocks[MAX_BLOCKS];
	int			n;

	a->leaves_in_flight -= slot->leaf_counted;
	slot->leaf_counted = false;
	if (!BlockNumberIsValid(slot->leaf))
		return true;
	set_keys((BTScanOpaque) scan->opaque, a, step);
	n = nxm_btree_probe_blocks(&a->probe, slot->leaf, blocks,
							   Min(room, MAX_BLOCKS));
	/* those that the same leaf is for need not wait for it */
	for (int i = step + 1; i < a->leaf_next && slot_of_step(a, i)->leaf == slot->leaf; i++)
		slot_of_step(a, i)->leaf_asked = false;
	for (int i = 0; i < n; i++)
	{
		NxmLookResult found = nxm_look_at(la, scan->heapRelation, blocks[i], vmbuf);

		if (found == NXM_LOOK_SUBMITTED)
			remember(a, step, blocks[i], false);
		if (!nxm_look_learn(la, found))
			return false;
	}
	return true;
}

static bool
make_arrays(NxmBtreeLook *la)
{
	int			size = 2 * la->ring_size;

	la->arrays = MemoryContextAllocExtended(GetMemoryChunkContext(la),
											offsetof(NxmArrays, slot) +
											sizeof(Slot) * size,
											MCXT_ALLOC_NO_OOM);
	if (la->arrays == NULL)
		return false;
	la->arrays->prepared = false;
	la->arrays->count = 0;
	la->arrays->size = size;
	return true;
}

void
nxm_arrays_follow(IndexScanDesc scan, NxmBtreeLook *la, ScanDirection dir,
				  bool look)
{
	int			others = la->ring_count + nxm_leaves_in_flight(la);
	NxmArrays  *a;
	Buffer		vmbuf = InvalidBuffer;
	bool		more = true;

	if (scan->parallel_scan != NULL ||
		(la->arrays == NULL && (!look || !make_arrays(la))))
		return;
	a = la->arrays;
	if (!follow(scan, la, dir) || !look)
		return;

	while (more)
	{
		int			most_asked = la->whole ? a->size : la->base.credit - others;
		int			most = Min(la->base.distance - others, most_asked);
		int			half = a->exact ? (most + 1) / 2 : most;
		int			room = Min(most_asked - a->count,
							   most - a->leaves_in_flight - a->heap_in_flight);
		bool		has_leaf = a->exact && a->heap_next < a->leaf_next;
		Slot	   *slot = slot_of_step(a, a->heap_next);

		/* several leaves, before one that is not there is waited for */
		if (room > 0 && a->leaves_in_flight < half &&
			a->leaf_next < Min(a->nsteps, a->current + 1 + most) &&
			!(has_leaf && (la->base.quiet || !slot->leaf_asked)))
		{
			more = look_at_leaf(scan, a, &la->base);
			continue;
		}
		if (!has_leaf ||
			(slot->leaf_asked && a->heap_next - a->current > half))
			break;
		room = Min(most_asked - a->count, room + slot->leaf_counted);
		if (room <= 0)
			break;
		more = look_at_heap(scan, a, &la->base, room, &vmbuf);
	}
	if (BufferIsValid(vmbuf))
		ReleaseBuffer(vmbuf);
}
