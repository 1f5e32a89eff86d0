/*
 * prefetch_am.c
 *	  Look-ahead in scans of hash, GiST and SP-GiST indexes.
 *
 * They keep what comes next in their scan's private state in two ways:
 *
 * - a batch: the heap TIDs of the page that was read last, in the order in which
 *   they will be returned (hash; GiST and SP-GiST where the scan has no order);
 * - a queue: pages to be read and, in ordered (distance) scans, heap TIDs, as a
 *   pairing heap whose first node comes next.
 *
 * Both are read and never changed.  Of the queue the first nodes are found by a
 * search of the heap's tree, best first, that looks at up to VISITS nodes: a
 * node comes after its parent.  A page that will be read may put others before
 * what is in the queue now, so the order is a guess; what is asked for will
 * still be needed unless the scan ends.
 *
 * How far, and whether at all, is as in prefetch_index.c.  A heap block in flight
 * is used when the scan returns a tuple of it; a page of the index when it is
 * found in shared_buffers.  The queue is looked at when half of what may be in
 * flight has been used, not at every tuple.
 *
 * State of a scan hangs on scan->orderByData, as the btree's does, where the scan
 * has no order-by operators.  Scans that have some are kept in lists, by a hash of their
 * address, from which endscan or the end of their memory context removes them.
 *
 * The private states carry no promise between minor releases: their allocated
 * size is checked at the first scan of a process, and where it is another
 * look-ahead switches itself off, for the whole server.
 *
 * Limits: the heap blocks behind pages not yet read are unknown.  In a hash index
 * one bucket page at a time.  Other access methods, built in (GIN and BRIN have
 * bitmap scans alone) or not, are left as they are.
 */
#include "prefetch_internal.h"

#include "access/gist_private.h"
#include "access/gistscan.h"
#include "access/hash.h"
#include "access/spgist.h"
#include "access/spgist_private.h"
#include "catalog/pg_am.h"
#include "common/hashfn.h"
#include "compat.h"
#include "lib/binaryheap.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "prefetch_index.h"
#include "prefetch_page.h"
#include "utils/memutils.h"

/* nodes of a queue looked at, at most */
#define VISITS 256
/* of ordered scans: a query has as many as a table has partitions */
#define ORDERED_LISTS 1024
/* pages of the index remembered as looked at, by their low bits */
#define RECENT_PAGES 64

/* A block in flight. */
typedef struct Asked
{
	BlockNumber block;
	bool		is_page;		/* of the index */
} Asked;

typedef struct AmLook
{
	NxmLookAhead base;

	/* in a list of ordered scans, where the scan is one */
	IndexScanDesc scan;
	dlist_node	node;
	bool		listed;
	MemoryContextCallback at_reset;

	ScanDirection dir;
	BlockNumber page;			/* of the batch */
	int			current;		/* item returned last, in scan order */
	int			next;			/* item to look at next, in scan order */
	int			n;				/* items of the batch */
	binaryheap *nodes;			/* for the search of a queue */
	BlockNumber recent_page[RECENT_PAGES];

	int			nasked;			/* oldest first */
	Asked		asked[FLEXIBLE_ARRAY_MEMBER];	/* max_distance of them */
} AmLook;

/* TIDs in the order of the scan, of which the one at `current` was returned. */
typedef struct Batch
{
	const char *first;
	int			stride;			/* bytes, negative backward */
	int			n;
	int			current;
	BlockNumber page;			/* where they come from, if that is known */
	BlockNumber next_page;		/* of the index, certain to come */
} Batch;

/* One access method. */
typedef struct Kind
{
	const char *name;
	Size		opaque_size;
	bool		layout_known;
	amgettuple_function gettuple;
	amrescan_function rescan;
	amendscan_function endscan;
	void		(*batch) (IndexScanDesc scan, ScanDirection dir, Batch *batch);
	pairingheap *(*queue) (IndexScanDesc scan);
	/* the block that a node of the queue is about; *is_page: of the index */
	BlockNumber (*node) (pairingheap_node *node, bool *is_page);
} Kind;

static dlist_head ordered_scans[ORDERED_LISTS];	/* zeroes are empty */

static void
batch_of_hash(IndexScanDesc scan, ScanDirection dir, Batch *batch)
{
	HashScanPosData *pos = &((HashScanOpaque) scan->opaque)->currPos;
	bool		forward = ScanDirectionIsForward(dir);

	batch->first = (const char *) &pos->items[forward ? pos->firstItem : pos->lastItem].heapTid;
	batch->stride = (forward ? 1 : -1) * (int) sizeof(HashScanPosItem);
	batch->n = pos->lastItem - pos->firstItem + 1;
	batch->current = forward ? pos->itemIndex - pos->firstItem :
		pos->lastItem - pos->itemIndex;
	batch->page = pos->currPage;
	batch->next_page = forward ? pos->nextPage : pos->prevPage;
}

static void
batch_of_gist(IndexScanDesc scan, ScanDirection dir, Batch *batch)
{
	GISTScanOpaque so = (GISTScanOpaque) scan->opaque;

	(void) dir;
	batch->first = (const char *) &so->pageData[0].heapPtr;
	batch->stride = sizeof(GISTSearchHeapItem);
	batch->n = scan->numberOfOrderBys > 0 ? 0 : so->nPageData;
	batch->current = so->curPageData - 1;
	batch->page = InvalidBlockNumber;
	batch->next_page = InvalidBlockNumber;
}

static void
batch_of_spgist(IndexScanDesc scan, ScanDirection dir, Batch *batch)
{
	SpGistScanOpaque so = (SpGistScanOpaque) scan->opaque;

	(void) dir;
	batch->first = (const char *) &so->heapPtrs[0];
	batch->stride = sizeof(ItemPointerData);
	batch->n = scan->numberOfOrderBys > 0 ? 0 : so->nPtrs;
	batch->current = so->iPtr - 1;
	batch->page = InvalidBlockNumber;
	batch->next_page = InvalidBlockNumber;
}

static pairingheap *
queue_of_gist(IndexScanDesc scan)
{
	return ((GISTScanOpaque) scan->opaque)->queue;
}

static pairingheap *
queue_of_spgist(IndexScanDesc scan)
{
	return ((SpGistScanOpaque) scan->opaque)->scanQueue;
}

static BlockNumber
node_of_gist(pairingheap_node *node, bool *is_page)
{
	GISTSearchItem *item = pairingheap_container(GISTSearchItem, phNode, node);

	*is_page = !GISTSearchItemIsHeap(*item);
	return *is_page ? item->blkno :
		ItemPointerGetBlockNumberNoCheck(&item->data.heap.heapPtr);
}

static BlockNumber
node_of_spgist(pairingheap_node *node, bool *is_page)
{
	SpGistSearchItem *item = pairingheap_container(SpGistSearchItem, phNode, node);

	*is_page = !item->isLeaf;
	return ItemPointerGetBlockNumberNoCheck(&item->heapPtr);
}

static Kind hash_kind = {
	"hash", sizeof(HashScanOpaqueData), false,
	hashgettuple, hashrescan, hashendscan, batch_of_hash, NULL, NULL
};
static Kind gist_kind = {
	"GiST", sizeof(GISTScanOpaqueData), false,
	gistgettuple, gistrescan, gistendscan, batch_of_gist, queue_of_gist, node_of_gist
};
static Kind spgist_kind = {
	"SP-GiST", sizeof(SpGistScanOpaqueData), false,
	spggettuple, spgrescan, spgendscan, batch_of_spgist, queue_of_spgist, node_of_spgist
};

static dlist_head *
list_of(IndexScanDesc scan)
{
	return &ordered_scans[murmurhash32((uint32) ((uintptr_t) scan >> 3)) % ORDERED_LISTS];
}

static AmLook *
look_of(IndexScanDesc scan)
{
	dlist_iter	iter;

	if (scan->numberOfOrderBys == 0)
		return (AmLook *) scan->orderByData;
	dlist_foreach(iter, list_of(scan))
	{
		AmLook	   *la = dlist_container(AmLook, node, iter.cur);

		if (la->scan == scan)
			return la;
	}
	return NULL;
}

const NxmLookAhead *
nxm_am_look(IndexScanDesc scan)
{
	AmLook	   *la = look_of(scan);

	return la == NULL ? NULL : &la->base;
}

static void
leave_list(void *arg)
{
	AmLook	   *la = (AmLook *) arg;

	if (la->listed)
		dlist_delete(&la->node);
	la->listed = false;
}

static inline const ItemPointerData *
tid_at(const Batch *batch, int i)
{
	return (const ItemPointerData *) (batch->first + i * (ptrdiff_t) batch->stride);
}

/*
 * The scan has returned its first tuple.  Nothing where it is known to be the
 * only one.
 */
static void
begin_look_ahead(IndexScanDesc scan, Kind *kind, ScanDirection dir)
{
	int			max_distance;
	AmLook	   *la;
	Batch		batch;

	if (!nxm_look_layout(scan, kind->opaque_size, &kind->layout_known, kind->name))
		return;
	kind->batch(scan, dir, &batch);
	if (batch.n > 0 &&
		(batch.current < 0 || batch.current >= batch.n ||
		 !ItemPointerEquals(&scan->xs_heaptid,
							unconstify(ItemPointerData *, tid_at(&batch, batch.current)))))
	{
		nxm_look_switch_off(psprintf("a %s scan's private state does not hold the tuple that the scan returned", kind->name));
		return;
	}
	if (batch.current + 1 >= batch.n && !BlockNumberIsValid(batch.next_page) &&
		(kind->queue == NULL || kind->queue(scan) == NULL ||
		 pairingheap_is_empty(kind->queue(scan))))
		return;

	max_distance = nxm_look_distance(scan);
	la = MemoryContextAllocExtended(GetMemoryChunkContext(scan),
									offsetof(AmLook, asked) +
									sizeof(Asked) * max_distance,
									MCXT_ALLOC_NO_OOM);
	if (la == NULL)
		return;					/* the scan goes on without */
	nxm_look_begin(&la->base, scan, max_distance);
	la->scan = scan;
	la->dir = NoMovementScanDirection;
	la->page = InvalidBlockNumber;
	la->current = -1;
	la->next = 0;
	la->n = 0;
	la->nodes = NULL;
	la->nasked = 0;
	for (int i = 0; i < RECENT_PAGES; i++)
		la->recent_page[i] = InvalidBlockNumber;
	la->listed = scan->numberOfOrderBys > 0;
	if (la->listed)
	{
		dlist_push_head(list_of(scan), &la->node);
		la->at_reset.func = leave_list;
		la->at_reset.arg = la;
		MemoryContextRegisterResetCallback(GetMemoryChunkContext(scan),
										   &la->at_reset);
	}
	else
		scan->orderByData = (ScanKey) la;
}

/* Returns how many. */
static int
drop_heap_blocks(AmLook *la)
{
	int			kept = 0;
	int			dropped;

	for (int i = 0; i < la->nasked; i++)
	{
		if (la->asked[i].is_page)
			la->asked[kept++] = la->asked[i];
	}
	dropped = la->nasked - kept;
	la->nasked = kept;
	return dropped;
}

/* The scan has returned a tuple of this heap block. */
static void
reach_heap(AmLook *la, BlockNumber block)
{
	for (int i = 0; i < la->nasked; i++)
	{
		if (!la->asked[i].is_page && la->asked[i].block == block)
		{
			nxm_look_count(&la->base, NXM_STAT_used);
			la->nasked--;
			memmove(&la->asked[i], &la->asked[i + 1],
					sizeof(Asked) * (la->nasked - i));
			return;
		}
	}
}

/* Which pages of the index has the scan come to? */
static void
reach_pages(AmLook *la, Relation index)
{
	int			kept = 0;

	for (int i = 0; i < la->nasked; i++)
	{
		if (la->asked[i].is_page && nxm_is_buffered(index, la->asked[i].block))
			nxm_look_count(&la->base, NXM_STAT_used);
		else
			la->asked[kept++] = la->asked[i];
	}
	la->nasked = kept;
}

/* Returns what nxm_look_learn() does. */
static bool
look_at_block(IndexScanDesc scan, AmLook *la, BlockNumber block, bool is_page,
			  Buffer *vmbuf)
{
	NxmLookResult found;

	if (is_page)
	{
		BlockNumber *recent = &la->recent_page[block % RECENT_PAGES];

		if (*recent == block || RelationUsesLocalBuffers(scan->indexRelation))
			return true;
		*recent = block;
		found = nxm_look_at_index(&la->base, scan->indexRelation, block);
		/* that the index is cached tells nothing of the heap */
		if (found != NXM_LOOK_SUBMITTED)
			return true;
	}
	else
		found = nxm_look_at(&la->base, scan->heapRelation, block, vmbuf);
	if (found == NXM_LOOK_SUBMITTED)
	{
		la->asked[la->nasked].block = block;
		la->asked[la->nasked++].is_page = is_page;
	}
	return nxm_look_learn(&la->base, found);
}

static int
compare_nodes(NxmHeapNode a, NxmHeapNode b, void *arg)
{
	pairingheap *queue = (pairingheap *) arg;

	return queue->ph_compare((pairingheap_node *) DatumGetPointer(a),
							 (pairingheap_node *) DatumGetPointer(b),
							 queue->ph_arg);
}

/* Looks at what is first in the queue. */
static void
look_at_queue(IndexScanDesc scan, AmLook *la, const Kind *kind, int in_flight,
			  Buffer *vmbuf)
{
	pairingheap *queue = kind->queue(scan);
	int			visits = 1;

	if (queue == NULL || pairingheap_is_empty(queue))
		return;
	/* in its memory, or anew where the queue is another one after a rescan */
	if (la->nodes == NULL || la->nodes->bh_arg != queue)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(la));

		if (la->nodes != NULL)
			binaryheap_free(la->nodes);
		la->nodes = NULL;
		la->nodes = binaryheap_allocate(VISITS, compare_nodes, queue);
		MemoryContextSwitchTo(old);
	}
	binaryheap_reset(la->nodes);
	binaryheap_add(la->nodes, PointerGetDatum(pairingheap_first(queue)));
	while (la->nasked < in_flight && !binaryheap_empty(la->nodes))
	{
		pairingheap_node *node = (pairingheap_node *)
			DatumGetPointer(binaryheap_remove_first(la->nodes));
		bool		is_page;
		BlockNumber block = kind->node(node, &is_page);

		if (!look_at_block(scan, la, block, is_page, vmbuf))
			break;
		for (node = node->first_child; node != NULL && visits < VISITS;
			 node = node->next_sibling)
		{
			binaryheap_add(la->nodes, PointerGetDatum(node));
			visits++;
		}
	}
}

static pg_noinline void
look_ahead(IndexScanDesc scan, AmLook *la, const Kind *kind, ScanDirection dir)
{
	Batch		batch;
	Buffer		vmbuf = InvalidBuffer;
	int			in_flight;
	bool		more = true;

	kind->batch(scan, dir, &batch);
	if (batch.n != la->n || batch.page != la->page || dir != la->dir ||
		batch.current <= la->current)
	{
		if (la->n > 0)
			nxm_look_wasted(&la->base, drop_heap_blocks(la));
		la->page = batch.page;
		la->dir = dir;
		la->n = batch.n;
		la->next = 0;
	}
	la->current = batch.current;
	la->next = Max(la->next, batch.current + 1);
	la->base.credit = Min(la->base.credit + 1, la->base.max_distance);
	reach_heap(la, ItemPointerGetBlockNumberNoCheck(&scan->xs_heaptid));

	in_flight = Min(la->base.credit, la->base.distance);
	if (!la->base.quiet || *la->base.reads >= la->base.next_look)
	{
		if (la->nasked >= in_flight / 2)
			reach_pages(la, scan->indexRelation);
		while (more && la->nasked < in_flight && la->next < batch.n &&
			   la->next <= la->current + in_flight * NXM_LOOK_WINDOW)
		{
			const ItemPointerData *tid = tid_at(&batch, la->next++);

			more = look_at_block(scan, la, ItemPointerGetBlockNumberNoCheck(tid),
								 false, &vmbuf);
		}
		if (more && la->nasked < in_flight && BlockNumberIsValid(batch.next_page))
			more = look_at_block(scan, la, batch.next_page, true, &vmbuf);
		if (more && la->nasked <= in_flight / 2 && kind->queue != NULL)
			look_at_queue(scan, la, kind, in_flight, &vmbuf);
		if (BufferIsValid(vmbuf))
			ReleaseBuffer(vmbuf);
	}
	nxm_look_sleep(&la->base, la->nasked);
}

static pg_noinline bool
gettuple_and_look(IndexScanDesc scan, ScanDirection dir, Kind *kind)
{
	AmLook	   *la = look_of(scan);

	if (la != NULL && *la->base.reads < la->base.wake_at)
		return kind->gettuple(scan, dir);
	if (!kind->gettuple(scan, dir))
		return false;
	if (!nxm_look_enabled())
		return true;
	if (la != NULL)
		look_ahead(scan, la, kind, dir);
	/* nothing is asked for at the first tuple: it may be the only one wanted */
	else
		begin_look_ahead(scan, kind, dir);
	return true;
}

/* May the scan pass?  As in the btree, nothing else stands on a cached one's way. */
static inline bool
passes(IndexScanDesc scan)
{
	NxmLookAhead *la = (NxmLookAhead *) scan->orderByData;

	return scan->numberOfOrderBys == 0 && la != NULL && *la->reads < la->wake_at;
}

static bool
gettuple_hash(IndexScanDesc scan, ScanDirection dir)
{
	return passes(scan) ? hashgettuple(scan, dir) :
		gettuple_and_look(scan, dir, &hash_kind);
}

static bool
gettuple_gist(IndexScanDesc scan, ScanDirection dir)
{
	return passes(scan) ? gistgettuple(scan, dir) :
		gettuple_and_look(scan, dir, &gist_kind);
}

static bool
gettuple_spgist(IndexScanDesc scan, ScanDirection dir)
{
	return passes(scan) ? spggettuple(scan, dir) :
		gettuple_and_look(scan, dir, &spgist_kind);
}

static void
begin_again(IndexScanDesc scan)
{
	AmLook	   *la = look_of(scan);

	if (la == NULL)
		return;
	nxm_look_wasted(&la->base, la->nasked);
	la->nasked = 0;
	la->dir = NoMovementScanDirection;
	la->current = -1;
	la->n = 0;
	la->base.index_only = scan->xs_want_itup;
}

static void
rescan_hash(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
	begin_again(scan);
	hashrescan(scan, keys, nkeys, orderbys, norderbys);
}

static void
rescan_gist(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
	begin_again(scan);
	gistrescan(scan, keys, nkeys, orderbys, norderbys);
}

static void
rescan_spgist(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
	begin_again(scan);
	spgrescan(scan, keys, nkeys, orderbys, norderbys);
}

static void
end_ordered(IndexScanDesc scan)
{
	AmLook	   *la = scan->numberOfOrderBys > 0 ? look_of(scan) : NULL;

	if (la != NULL)
		leave_list(la);
}

static void
endscan_gist(IndexScanDesc scan)
{
	end_ordered(scan);
	gistendscan(scan);
}

static void
endscan_spgist(IndexScanDesc scan)
{
	end_ordered(scan);
	spgendscan(scan);
}

NxmSeat		nxm_am_seats[NXM_AM_SEATS] = {
	{HASH_AM_OID, hashgettuple, hashrescan, hashendscan,
	gettuple_hash, rescan_hash, hashendscan, NULL, NULL},
	{GIST_AM_OID, gistgettuple, gistrescan, gistendscan,
	gettuple_gist, rescan_gist, endscan_gist, NULL, NULL},
	{SPGIST_AM_OID, spggettuple, spgrescan, spgendscan,
	gettuple_spgist, rescan_spgist, endscan_spgist, NULL, NULL}
};
