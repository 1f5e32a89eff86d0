/*
 * prefetch_leaf.c
 *	  Look-ahead of a btree scan across leaves: what the next ones hold.
 *
 * A btree scan knows the items of the leaf it stands on and the link to the
 * next.  Near the end of what is known that leaf is asked for; when the scan is
 * about to run out of blocks to ask for, or when the leaf is in memory, it is
 * read, under a share lock of its own, and the heap blocks of the items that
 * the scan will return from it are copied.  Then the one behind it, up to
 * MAX_LEAVES.
 *
 * The end of the range is respected: each item is checked with the scan's own
 * preprocessed keys, as _bt_checkkeys() would (which cannot be called: it
 * changes the scan).  Where the last item of a leaf passes, and each key bounds
 * the scan at one end, all items before it pass.  Keys that this file cannot
 * decide (row comparisons, arrays where they advance within a leaf, functions
 * that are not PostgreSQL's own or call such) keep the scan to one leaf.
 *
 * All of it is a hint.  A leaf may be split, emptied or deleted before the scan
 * gets there; the scan then finds other items than those copied, and what was
 * asked for in vain is counted as wasted.  The left link in a backward scan
 * may be out of date in the same way, and is not corrected.
 *
 * Arrival.  On the next leaf, places are counted from its first item on: those
 * of the ring move.  If the leaf holds as many items as were copied they are
 * taken to be the same; else each place of the ring is found again by its block.
 *
 * Locks: one share lock at a time, on a leaf, while the scan at most pins
 * another.  Comparison functions run under it, as they do in the btree itself.
 *
 * Limits: a leaf that was looked into counts as one more buffer hit of the
 * index.  Nothing is known behind a leaf that is damaged (prefetch_page.c).  Not
 * for parallel scans: the next leaf is another worker's.  Memory: 22 kB, in scans that get near the end of a leaf
 * while blocks are read.
 */
#include "prefetch_internal.h"

#include "access/transam.h"
#include "btree_probe.h"
#include "compat.h"
#include "prefetch_page.h"
#include "utils/memutils.h"

#define MAX_LEAVES 4

typedef struct Leaf
{
	BlockNumber page;
	bool		asked;			/* from the disk, by us */
	int			n;				/* items that the scan will return */
	BlockNumber block[MaxTIDsPerBTreePage]; /* of the heap, in scan order */
} Leaf;

struct NxmLeaves
{
	int			head;			/* of leaf[] */
	int			n;				/* leaves known */

	/* behind the last leaf known, or the current one */
	bool		link_known;
	bool		link_looked_at;
	bool		link_asked;		/* and is being read from the disk */
	BlockNumber link;			/* P_NONE: the scan ends before */

	Leaf		leaf[MAX_LEAVES];
};

StaticAssertDecl((MAX_LEAVES + 1) * MaxTIDsPerBTreePage < PG_INT16_MAX,
				 "ring holds places");

static inline Leaf *
leaf_at(NxmLeaves *leaves, int i)
{
	return &leaves->leaf[(leaves->head + i) % MAX_LEAVES];
}

int
nxm_leaves_end(const NxmBtreeLook *la)
{
	int			end = la->size;

	for (int i = 0; la->leaves != NULL && i < la->leaves->n; i++)
		end += leaf_at(la->leaves, i)->n;
	return end;
}

BlockNumber
nxm_leaves_block(const NxmBtreeLook *la, int place)
{
	int			i = 0;

	place -= la->size;
	while (place >= leaf_at(la->leaves, i)->n)
		place -= leaf_at(la->leaves, i++)->n;
	Assert(i < la->leaves->n);
	return leaf_at(la->leaves, i)->block[place];
}

int
nxm_leaves_in_flight(const NxmBtreeLook *la)
{
	int			n;

	if (la->leaves == NULL)
		return 0;
	n = la->leaves->link_asked ? 1 : 0;
	for (int i = 0; i < la->leaves->n; i++)
	{
		if (leaf_at(la->leaves, i)->asked)
			n++;
	}
	return n;
}

int
nxm_leaves_forget(NxmBtreeLook *la)
{
	int			n = nxm_leaves_in_flight(la);

	if (la->leaves != NULL)
	{
		la->leaves->n = 0;
		la->leaves->link_known = false;
		la->leaves->link_asked = false;
	}
	return n;
}

/* May the scan go on to another leaf, and can its keys be checked there? */
static bool
goes_on(IndexScanDesc scan, ScanDirection dir)
{
	BTScanOpaque so = (BTScanOpaque) scan->opaque;

	if (scan->parallel_scan != NULL ||
		(ScanDirectionIsForward(dir) ? !so->currPos.moreRight :
		 !so->currPos.moreLeft))
		return false;
	for (int i = 0; i < so->numberOfKeys; i++)
	{
		ScanKey		key = &so->keyData[i];

		if ((key->sk_flags & SK_ROW_HEADER) != 0 ||
			((key->sk_flags & SK_SEARCHARRAY) != 0 &&
			 !NXM_BTREE_ARRAY_BY_ELEMENT))
			return false;
		if ((key->sk_flags & SK_ISNULL) == 0 &&
			(key->sk_func.fn_oid >= FirstNormalObjectId ||
			 nxm_type_holds_others(scan->indexRelation->rd_opcintype[key->sk_attno - 1])))
			return false;
	}
	return true;
}

typedef enum KeyCheck
{
	KEYS_PASS,
	KEYS_FAIL,					/* of this item; others may pass */
	KEYS_END					/* of this item and all behind it */
} KeyCheck;

/* Columns past natts, which a high key lacks, pass.  See _bt_checkkeys(). */
static KeyCheck
check_keys(IndexScanDesc scan, IndexTuple tuple, int natts, ScanDirection dir)
{
	BTScanOpaque so = (BTScanOpaque) scan->opaque;
	TupleDesc	desc = RelationGetDescr(scan->indexRelation);
	int			required = ScanDirectionIsForward(dir) ? SK_BT_REQFWD :
		SK_BT_REQBKWD;

	for (int i = 0; i < so->numberOfKeys; i++)
	{
		ScanKey		key = &so->keyData[i];
		Datum		value;
		bool		isnull;
		bool		passes;

		if (key->sk_attno > natts)
			continue;
		value = index_getattr(tuple, key->sk_attno, desc, &isnull);
		if (isnull || (key->sk_flags & SK_ISNULL) != 0)
			passes = (key->sk_flags & SK_SEARCHNULL) != 0 ? isnull :
				(key->sk_flags & SK_SEARCHNOTNULL) != 0 ? !isnull : false;
		else
			passes = DatumGetBool(FunctionCall2Coll(&key->sk_func,
													key->sk_collation,
													value, key->sk_argument));
		if (!passes)
			return (key->sk_flags & required) != 0 ? KEYS_END : KEYS_FAIL;
	}
	return KEYS_PASS;
}

/* Does each key bound the scan at one end? */
static bool
keys_are_bounds(BTScanOpaque so)
{
	for (int i = 0; i < so->numberOfKeys; i++)
	{
		if ((so->keyData[i].sk_flags & (SK_BT_REQFWD | SK_BT_REQBKWD)) == 0)
			return false;
	}
	return true;
}

/* Appends an item's heap blocks. */
static void
add_item(Leaf *leaf, IndexTuple tuple, bool forward)
{
	int			n = BTreeTupleIsPosting(tuple) ? BTreeTupleGetNPosting(tuple) : 1;

	for (int i = 0; i < n && leaf->n < (int) MaxTIDsPerBTreePage; i++)
	{
		ItemPointer tid = !BTreeTupleIsPosting(tuple) ? &tuple->t_tid :
			BTreeTupleGetPostingN(tuple, forward ? i : n - 1 - i);

		leaf->block[leaf->n++] = ItemPointerGetBlockNumberNoCheck(tid);
	}
}

/* Copies from a locked leaf.  Returns false where the range ends on it. */
static bool
copy_items(IndexScanDesc scan, Page page, ScanDirection dir, Leaf *leaf)
{
	BTPageOpaque opaque = BTPageGetOpaque(page);
	bool		forward = ScanDirectionIsForward(dir);
	int			natts = IndexRelationGetNumberOfAttributes(scan->indexRelation);
	OffsetNumber low = P_FIRSTDATAKEY(opaque);
	OffsetNumber high = PageGetMaxOffsetNumber(page);
	int			step = forward ? 1 : -1;
	bool		all_pass;

	leaf->n = 0;
	if (high < low)
		return true;
	all_pass = keys_are_bounds((BTScanOpaque) scan->opaque) &&
		check_keys(scan, (IndexTuple) PageGetItem(page, PageGetItemId(page, forward ? high : low)),
				   natts, dir) == KEYS_PASS;
	for (int i = forward ? low : high; i >= low && i <= high; i += step)
	{
		ItemId		id = PageGetItemId(page, i);
		IndexTuple	tuple = (IndexTuple) PageGetItem(page, id);

		if (scan->ignore_killed_tuples && ItemIdIsDead(id))
			continue;
		if (!all_pass)
		{
			KeyCheck	check = check_keys(scan, tuple, natts, dir);

			if (check == KEYS_END)
				return false;
			if (check == KEYS_FAIL)
				continue;
		}
		add_item(leaf, tuple, forward);
	}
	if (forward && !P_RIGHTMOST(opaque))
	{
		IndexTuple	high_key = (IndexTuple)
			PageGetItem(page, PageGetItemId(page, P_HIKEY));

		if (check_keys(scan, high_key,
					   BTreeTupleGetNAtts(high_key, scan->indexRelation),
					   dir) == KEYS_END)
			return false;
	}
	return true;
}

/* The page as a leaf of a btree, or NULL. */
static BTPageOpaque
opaque_of_leaf(Page page)
{
	BTPageOpaque opaque;

	if (PageIsNew(page) ||
		PageGetSpecialSize(page) != MAXALIGN(sizeof(BTPageOpaqueData)))
		return NULL;
	opaque = BTPageGetOpaque(page);
	return P_ISLEAF(opaque) ? opaque : NULL;
}

static void
set_link(NxmLeaves *leaves, BlockNumber link)
{
	leaves->link_known = true;
	leaves->link_looked_at = false;
	leaves->link_asked = false;
	leaves->link = link;
}

/* Reads the link's page, and makes it a leaf that is known. */
static void
read_leaf(IndexScanDesc scan, NxmBtreeLook *la)
{
	NxmLeaves  *leaves = la->leaves;
	bool		forward = ScanDirectionIsForward(la->dir);
	Buffer		buf = nxm_read_ahead(scan->indexRelation, leaves->link);
	Page		page;
	BTPageOpaque opaque;
	BlockNumber link = P_NONE;

	if (!BufferIsValid(buf))
	{
		set_link(leaves, P_NONE);
		return;
	}
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buf);
	opaque = opaque_of_leaf(page);
	if (opaque != NULL)
	{
		link = forward ? opaque->btpo_next : opaque->btpo_prev;
		if (!P_IGNORE(opaque))
		{
			Leaf	   *leaf = leaf_at(leaves, leaves->n);

			leaf->page = leaves->link;
			leaf->asked = leaves->link_asked;
			if (!copy_items(scan, page, la->dir, leaf))
				link = P_NONE;
			leaves->n++;
		}
	}
	UnlockReleaseBuffer(buf);
	set_link(leaves, link);
}

/* The link of the leaf that the scan stands on. */
static BlockNumber
link_of_current(IndexScanDesc scan, ScanDirection dir)
{
	BTScanPosData *pos = &((BTScanOpaque) scan->opaque)->currPos;
	BlockNumber link = P_NONE;
	BTPageOpaque opaque;
	Buffer		buf;

	if (ScanDirectionIsForward(dir))
		return pos->nextPage;
	if (nxm_btree_left_link(pos, &link))
		return link;
	buf = nxm_read_ahead(scan->indexRelation, pos->currPage);
	if (!BufferIsValid(buf))
		return link;
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	opaque = opaque_of_leaf(BufferGetPage(buf));
	if (opaque != NULL)
		link = opaque->btpo_prev;
	UnlockReleaseBuffer(buf);
	return link;
}

static bool
make_leaves(NxmBtreeLook *la)
{
	la->leaves = MemoryContextAllocExtended(GetMemoryChunkContext(la),
											sizeof(NxmLeaves),
											MCXT_ALLOC_NO_OOM);
	if (la->leaves == NULL)
		return false;
	la->leaves->head = 0;
	la->leaves->n = 0;
	la->leaves->link_known = false;
	la->leaves->link_asked = false;
	return true;
}

void
nxm_leaves_extend(IndexScanDesc scan, NxmBtreeLook *la, int in_flight)
{
	Relation	index = scan->indexRelation;
	NxmLeaves  *leaves;

	if (la->leaves == NULL && !make_leaves(la))
		return;
	leaves = la->leaves;
	if (!leaves->link_known)
		set_link(leaves, goes_on(scan, la->dir) ?
				 link_of_current(scan, la->dir) : P_NONE);
	if (leaves->link == P_NONE || leaves->n == MAX_LEAVES)
		return;

	if (RelationUsesLocalBuffers(index) || !nxm_is_buffered(index, leaves->link))
	{
		if (!leaves->link_looked_at)
		{
			/* a damaged link must not raise an error before the scan does */
			if (leaves->link >= RelationGetNumberOfBlocks(index))
			{
				leaves->link = P_NONE;
				return;
			}
			leaves->link_looked_at = true;
			leaves->link_asked = nxm_look_at_index(&la->base, index, leaves->link) ==
				NXM_LOOK_SUBMITTED;
		}
		/* while there is something to wait for, not for this */
		if (leaves->link_asked && la->ring_count > in_flight / 2)
			return;
	}
	read_leaf(scan, la);
}

/* Takes places that the scan will not come to from the front of the ring. */
static void
drop_before(NxmBtreeLook *la, int place)
{
	int			n = 0;

	while (n < la->ring_count && *nxm_ring_at(la, n) < place)
		n++;
	la->ring_head += n;
	la->ring_count -= n;
	nxm_look_wasted(&la->base, n);
}

/*
 * The leaf holds other items than those copied: finds the places of the ring
 * that are on it anew, by their blocks.
 */
static void
find_again(NxmBtreeLook *la, const Leaf *leaf, const BTScanPosData *pos,
		   ScanDirection dir, int size)
{
	int			kept = 0;
	int			from = 0;

	for (int i = 0; i < la->ring_count; i++)
	{
		int			place = *nxm_ring_at(la, i);

		if (place >= leaf->n)
			place += size - leaf->n;
		else
		{
			BlockNumber block = leaf->block[place];

			place = from;
			while (place < size &&
				   ItemPointerGetBlockNumberNoCheck(&pos->items[nxm_item_at(pos, dir, place)].heapTid) != block)
				place++;
			if (place == size)
				continue;
			from = place + 1;
		}
		*nxm_ring_at(la, kept++) = place;
	}
	nxm_look_wasted(&la->base, la->ring_count - kept);
	la->ring_count = kept;
	la->next = la->next >= leaf->n ? la->next + size - leaf->n :
		Min(la->next, size);
}

bool
nxm_leaves_arrive(NxmBtreeLook *la, const BTScanPosData *pos, ScanDirection dir)
{
	NxmLeaves  *leaves = la->leaves;
	int			size = pos->lastItem - pos->firstItem + 1;
	int			start = la->size;
	int			at = 0;

	if (leaves == NULL)
		return false;
	while (at < leaves->n && leaf_at(leaves, at)->page != pos->currPage)
		start += leaf_at(leaves, at++)->n;
	if (at == leaves->n)
		return false;

	drop_before(la, start);
	for (int i = 0; i < la->ring_count; i++)
		*nxm_ring_at(la, i) -= start;
	la->next = Max(la->next - start, 0);
	if (leaf_at(leaves, at)->n != size)
		find_again(la, leaf_at(leaves, at), pos, dir, size);
	la->size = size;
	la->current = -1;

	/* of those passed over, each was read because the scan needed it */
	for (int i = 0; i <= at; i++)
	{
		if (leaf_at(leaves, i)->asked)
			nxm_look_count(&la->base, NXM_STAT_used);
	}
	leaves->head = (leaves->head + at + 1) % MAX_LEAVES;
	leaves->n -= at + 1;
	return true;
}
