/*
 * btree_probe.c
 *	  Where a btree keeps the rows of a key, found ahead of the scan for them.
 *
 * Look-ahead that knows the next keys of an index, but not yet their rows, has
 * to descend the index itself.  index_beginscan() and _bt_first() would count as
 * scans in pg_stat_all_indexes and take predicate locks.  This descent does
 * neither, remembers no stack and changes nothing.  (The pages that it reads
 * count as buffer accesses, which they are.)
 *
 * Two stages, for the leaf is often the page that has to be read from the disk.
 * nxm_btree_probe_leaf() goes down to level 1 and returns the leaf's number,
 * which the caller reads ahead; nxm_btree_probe_blocks(), called some time
 * later, reads the leaf and returns the heap blocks, which the caller reads
 * ahead as well.
 *
 * Where the search starts is what _bt_first() does for such keys; how pages are
 * searched is what _bt_search(), _bt_moveright() and _bt_binsrch() do: one page
 * locked at a time, in share mode; a page that was split since its parent was
 * read sends the search to the right (Lehman and Yao, 1981), as does one that is
 * half-dead or deleted.  The leaf of stage 1 may even be recycled when
 * stage 2 comes: then no item there matches, or the search gives up.
 *
 * A page that is damaged (prefetch_page.c) or not one of a btree's ends the
 * search without an error: the scan, if it gets there, will say so.
 *
 * Limits: items on the leaf to the right (or, backward, to the left) are not
 * looked for.  No temporary tables.
 */
#include "btree_probe.h"

#include "access/transam.h"
#include "catalog/pg_am.h"
#include "compat.h"
#include "miscadmin.h"
#include "prefetch_page.h"
#include "utils/lsyscache.h"

/* pages to the right that one level may cost, past which the search gives up */
#define MAX_STEPS 16

bool
nxm_btree_probe_init(NxmBtreeProbe *probe, Relation index,
					 const NxmProbeKey *keys, int nkeys, ScanDirection dir)
{
	BTScanInsert key = &probe->key;

	if (index->rd_rel->relam != BTREE_AM_OID || !index->rd_index->indisvalid ||
		RelationUsesLocalBuffers(index) || nkeys < 1 ||
		nkeys > IndexRelationGetNumberOfKeyAttributes(index))
		return false;

	probe->index = index;
	probe->dir = dir;
	probe->nequal = 0;
	probe->root = P_NONE;
	/* by read_meta(), before they are used */
	key->heapkeyspace = false;
	key->allequalimage = false;
	key->anynullkeys = false;
	key->nextkey = ScanDirectionIsBackward(dir);
	key->scantid = NULL;
	key->keysz = nkeys;

	for (int i = 0; i < nkeys; i++)
	{
		AttrNumber	column = i + 1;
		int			flags = index->rd_indoption[i] << SK_BT_INDOPTION_SHIFT;
		StrategyNumber strategy = keys[i].strategy;

		if (strategy == BTEqualStrategyNumber)
			probe->nequal++;
		else
		{
			if ((flags & SK_BT_DESC) != 0)
				strategy = BTCommuteStrategyNumber(strategy);
			if (i != nkeys - 1)
				return false;
			/* which of the bounds is the one that the scan starts at? */
			if (ScanDirectionIsBackward(dir) ?
				strategy > BTLessEqualStrategyNumber :
				strategy < BTGreaterEqualStrategyNumber)
				return false;
			key->nextkey = strategy == BTGreaterStrategyNumber ||
				strategy == BTLessEqualStrategyNumber;
		}

		if (keys[i].type == index->rd_opcintype[i] ||
			!OidIsValid(keys[i].type))
			ScanKeyEntryInitializeWithInfo(&key->scankeys[i], flags, column,
										   InvalidStrategy, InvalidOid,
										   keys[i].collation,
										   index_getprocinfo(index, column,
															 BTORDER_PROC),
										   (Datum) 0);
		else
		{
			RegProcedure proc = get_opfamily_proc(index->rd_opfamily[i],
												  index->rd_opcintype[i],
												  keys[i].type, BTORDER_PROC);

			if (!RegProcedureIsValid(proc))
				return false;
			ScanKeyEntryInitialize(&key->scankeys[i], flags, column,
								   InvalidStrategy, keys[i].type,
								   keys[i].collation, proc, (Datum) 0);
		}
	}
	/* called with a page locked, for keys that the scan may never get to */
	for (int i = 0; i < nkeys; i++)
	{
		if (key->scankeys[i].sk_func.fn_oid >= FirstNormalObjectId ||
			nxm_type_holds_others(index->rd_opcintype[i]))
			return false;
	}
	nxm_set_insertion_backward(key, ScanDirectionIsBackward(dir));
	return true;
}

/* A page of the index, pinned and share-locked, or InvalidBuffer. */
static Buffer
read_page(const NxmBtreeProbe *probe, BlockNumber block)
{
	Buffer		buffer = nxm_read_ahead(probe->index, block);

	if (BufferIsValid(buffer))
		LockBuffer(buffer, BT_READ);
	return buffer;
}

static bool
is_btree_page(Page page)
{
	return !PageIsNew(page) &&
		PageGetSpecialSize(page) == MAXALIGN(sizeof(BTPageOpaqueData));
}

/* Is it a page of a btree's tree, which may be searched?  Share lock held. */
static bool
is_tree_page(Page page)
{
	return is_btree_page(page) && !P_ISMETA(BTPageGetOpaque(page));
}

/* Learns from the meta page what _bt_metaversion() and _bt_getroot() do. */
static void
read_meta(NxmBtreeProbe *probe)
{
	BTScanInsert key = &probe->key;
	Buffer		buffer = read_page(probe, BTREE_METAPAGE);
	Page		page;

	if (!BufferIsValid(buffer))
		return;
	page = BufferGetPage(buffer);
	if (is_btree_page(page) && P_ISMETA(BTPageGetOpaque(page)))
	{
		BTMetaPageData *meta = BTPageGetMeta(page);

		if (meta->btm_magic == BTREE_MAGIC &&
			meta->btm_version >= BTREE_MIN_VERSION &&
			meta->btm_version <= BTREE_VERSION)
		{
			key->heapkeyspace = meta->btm_version > BTREE_NOVAC_VERSION;
			key->allequalimage = key->heapkeyspace && meta->btm_allequalimage;
			probe->root = meta->btm_fastroot;
			probe->root_level = meta->btm_fastlevel;
		}
	}
	UnlockReleaseBuffer(buffer);
}

/*
 * The root, or the lowest level of one page, pinned and share-locked.  As in
 * _bt_getroot(), one that was found earlier still is if it has no siblings.
 */
static Buffer
read_root(NxmBtreeProbe *probe)
{
	bool		again = probe->root != P_NONE;

	for (;;)
	{
		Buffer		buffer;
		BTPageOpaque opaque;

		if (!again)
			read_meta(probe);
		if (probe->root == P_NONE)
			return InvalidBuffer;
		buffer = read_page(probe, probe->root);
		if (BufferIsValid(buffer))
		{
			Page		page = BufferGetPage(buffer);

			opaque = is_tree_page(page) ? BTPageGetOpaque(page) : NULL;
			if (opaque != NULL && !P_IGNORE(opaque) &&
				opaque->btpo_level == probe->root_level &&
				(!again || (P_LEFTMOST(opaque) && P_RIGHTMOST(opaque))))
				return buffer;
			UnlockReleaseBuffer(buffer);
		}
		probe->root = P_NONE;
		if (!again)
			return InvalidBuffer;
		again = false;
	}
}

/*
 * The page that has the key, from this pinned and share-locked one on to the
 * right.  InvalidBuffer (nothing pinned): there is none.
 */
static Buffer
move_right(NxmBtreeProbe *probe, Buffer buffer)
{
	int			goes_right = probe->key.nextkey ? 0 : 1;

	for (int steps = 0; steps < MAX_STEPS; steps++)
	{
		Page		page = BufferGetPage(buffer);
		BTPageOpaque opaque;
		BlockNumber next;

		if (!is_tree_page(page))
			break;
		opaque = BTPageGetOpaque(page);
		if (P_RIGHTMOST(opaque))
		{
			if (P_IGNORE(opaque))
				break;
			return buffer;
		}
		if (!P_IGNORE(opaque) &&
			_bt_compare(probe->index, &probe->key, page, P_HIKEY) < goes_right)
			return buffer;
		next = opaque->btpo_next;
		UnlockReleaseBuffer(buffer);
		CHECK_FOR_INTERRUPTS();
		buffer = read_page(probe, next);
		if (!BufferIsValid(buffer))
			return buffer;
	}
	UnlockReleaseBuffer(buffer);
	return InvalidBuffer;
}

/*
 * The first item not less than the key (with nextkey: greater), which may be
 * one past the last.
 */
static OffsetNumber
first_not_less(NxmBtreeProbe *probe, Page page)
{
	OffsetNumber low = P_FIRSTDATAKEY(BTPageGetOpaque(page));
	OffsetNumber high = PageGetMaxOffsetNumber(page) + 1;
	int			goes_right = probe->key.nextkey ? 0 : 1;

	while (low < high)
	{
		OffsetNumber mid = low + (high - low) / 2;

		if (_bt_compare(probe->index, &probe->key, page, mid) >= goes_right)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

BlockNumber
nxm_btree_probe_leaf(NxmBtreeProbe *probe)
{
	Buffer		buffer = read_root(probe);
	int64		above = PG_INT64_MAX;

	for (;;)
	{
		Page		page;
		BTPageOpaque opaque;
		OffsetNumber offset;
		BlockNumber child;
		bool		child_is_leaf;

		if (BufferIsValid(buffer))
			buffer = move_right(probe, buffer);
		if (!BufferIsValid(buffer))
			return InvalidBlockNumber;
		page = BufferGetPage(buffer);
		opaque = BTPageGetOpaque(page);
		/* the link of a damaged page may lead up */
		if ((int64) opaque->btpo_level >= above)
		{
			UnlockReleaseBuffer(buffer);
			return InvalidBlockNumber;
		}
		above = opaque->btpo_level;
		if (P_ISLEAF(opaque))
		{
			/* the root, and there is no level above it */
			child = BufferGetBlockNumber(buffer);
			UnlockReleaseBuffer(buffer);
			return child;
		}

		/* the first item of an inner page counts as less than every key */
		offset = first_not_less(probe, page);
		if (offset <= P_FIRSTDATAKEY(opaque) ||
			offset > PageGetMaxOffsetNumber(page) + 1)
		{
			UnlockReleaseBuffer(buffer);
			return InvalidBlockNumber;
		}
		child = BTreeTupleGetDownLink((IndexTuple)
									  PageGetItem(page, PageGetItemId(page, offset - 1)));
		child_is_leaf = opaque->btpo_level == 1;
		UnlockReleaseBuffer(buffer);
		if (child_is_leaf)
			return child;
		CHECK_FOR_INTERRUPTS();
		buffer = read_page(probe, child);
	}
}

/*
 * Adds the heap blocks of an item, in the direction of the scan.  Returns how
 * many there are now.
 */
static int
add_blocks(IndexTuple item, bool backward, BlockNumber *blocks, int n, int max)
{
	int			nitems = BTreeTupleIsPosting(item) ?
		BTreeTupleGetNPosting(item) : 1;

	for (int i = 0; i < nitems && n < max; i++)
	{
		ItemPointer tid = BTreeTupleIsPosting(item) ?
			BTreeTupleGetPostingN(item, backward ? nitems - 1 - i : i) :
			&item->t_tid;
		BlockNumber block = ItemPointerGetBlockNumberNoCheck(tid);

		if (n == 0 || blocks[n - 1] != block)
			blocks[n++] = block;
	}
	return n;
}

int
nxm_btree_probe_blocks(NxmBtreeProbe *probe, BlockNumber leaf,
					   BlockNumber *blocks, int max)
{
	BTScanInsert key = &probe->key;
	bool		backward = ScanDirectionIsBackward(probe->dir);
	int			nkeys = key->keysz;
	int			n = 0;
	Buffer		buffer = read_page(probe, leaf);
	Page		page;
	OffsetNumber first;
	OffsetNumber last;
	OffsetNumber offset;

	if (BufferIsValid(buffer))
		buffer = move_right(probe, buffer);
	if (!BufferIsValid(buffer))
		return 0;
	page = BufferGetPage(buffer);
	if (!P_ISLEAF(BTPageGetOpaque(page)))
	{
		UnlockReleaseBuffer(buffer);
		return 0;
	}

	first = P_FIRSTDATAKEY(BTPageGetOpaque(page));
	last = PageGetMaxOffsetNumber(page);
	offset = first_not_less(probe, page);
	if (backward)
		offset--;
	key->keysz = probe->nequal;
	while (n < max && offset >= first && offset <= last &&
		   (key->keysz == 0 ||
			_bt_compare(probe->index, key, page, offset) == 0))
	{
		ItemId		id = PageGetItemId(page, offset);

		if (!ItemIdIsDead(id))
			n = add_blocks((IndexTuple) PageGetItem(page, id), backward,
						   blocks, n, max);
		if (backward)
			offset--;
		else
			offset++;
	}
	key->keysz = nkeys;
	UnlockReleaseBuffer(buffer);
	return n;
}
