/*
 * prefetch_page.c
 *	  Reading pages ahead of who needs them, without an error or a warning.
 *
 * Most of what look-ahead asks for it never reads.  But the index pages that
 * tell which heap blocks come next have to be, and a page that is damaged then
 * raises an error (of the visibility map: a warning), which a scan that stops
 * before it would not have raised.
 *
 * A page in shared_buffers has been verified when it was read.  Any other is
 * first read into memory of our own and verified as PostgreSQL does it, without
 * a word, and only if that succeeds into shared_buffers, from the operating
 * system's cache by now.  That costs a copy and a checksum, some microseconds
 * where the disk takes a hundred.
 *
 * The copy is looked at by nobody: between the two reads the page may change,
 * and a copy that was torn by somebody who wrote it fails the check, in vain.
 *
 * An error of the first read (EIO, a file that is too short) is dropped, which
 * is safe for what can raise it: files are opened and read there, and no buffer is
 * touched.
 *
 * Limits: the first read waits for the disk outside of buffer management, so that
 * track_io_timing and pg_stat_io count the second one alone, which does not.
 * Callers hold no lock and hold off no interrupts, as the error that is dropped would
 * let go of the latter.  What the check does not find, such as a page without a checksum whose
 * header alone is sane, is met as if the scan met it.
 */
#include "prefetch_page.h"

#include "access/visibilitymap.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/smgr.h"

/* Blocks of a table on one page of its visibility map; see visibilitymap.c. */
#define BLOCKS_PER_MAP_PAGE \
	((BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) * \
	 (BITS_PER_BYTE / BITS_PER_HEAPBLOCK))

/* The buffer of a block, not of a temporary relation; InvalidBuffer: none. */
static Buffer
buffer_of(Relation rel, ForkNumber fork, BlockNumber block)
{
	BufferTag	tag;
	uint32		hash;
	LWLock	   *lock;
	int			id;

	nxm_init_buffer_tag(&tag, nxm_rel_locator(rel), fork, block);
	hash = BufTableHashCode(&tag);
	lock = BufMappingPartitionLock(hash);
	LWLockAcquire(lock, LW_SHARED);
	id = BufTableLookup(&tag, hash);
	LWLockRelease(lock);
	return id + 1;
}

bool
nxm_is_buffered(Relation rel, BlockNumber block)
{
	return buffer_of(rel, MAIN_FORKNUM, block) != InvalidBuffer;
}

/* Can this block be read into a buffer without a word? */
static bool
is_sound(Relation rel, ForkNumber fork, BlockNumber block)
{
	MemoryContext context = CurrentMemoryContext;
	NxmReadBlock page;
	volatile bool sound = false;

	Assert(InterruptHoldoffCount == 0);
	/* with these, what is damaged is read, with a warning */
	if (ignore_checksum_failure || zero_damaged_pages)
		return false;
	PG_TRY();
	{
		SMgrRelation smgr = RelationGetSmgr(rel);

		if (block < smgrnblocks(smgr, fork))
		{
			smgrread(smgr, fork, block, page.data);
			sound = nxm_page_is_verified((Page) page.data, block);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return sound;
}

Buffer
nxm_read_ahead(Relation rel, BlockNumber block)
{
	if (!RelationUsesLocalBuffers(rel))
	{
		Buffer		buffer = buffer_of(rel, MAIN_FORKNUM, block);

		if (BufferIsValid(buffer) &&
			ReadRecentBuffer(*nxm_rel_locator(rel), MAIN_FORKNUM, block, buffer))
			return buffer;
	}
	return is_sound(rel, MAIN_FORKNUM, block) ? ReadBuffer(rel, block) :
		InvalidBuffer;
}

bool
nxm_is_passed_over(Relation heap, BlockNumber block, Buffer *vmbuf)
{
	if (!BufferIsValid(*vmbuf) || !visibilitymap_pin_ok(block, *vmbuf))
	{
		SMgrRelation smgr = RelationGetSmgr(heap);
		BlockNumber map_block = block / BLOCKS_PER_MAP_PAGE;
		BlockNumber nblocks = smgr->smgr_cached_nblocks[VISIBILITYMAP_FORKNUM];

		/* where there is no map, it is not read */
		if (nblocks == InvalidBlockNumber &&
			smgrexists(smgr, VISIBILITYMAP_FORKNUM))
			nblocks = smgrnblocks(smgr, VISIBILITYMAP_FORKNUM);
		if (nblocks != InvalidBlockNumber && map_block < nblocks &&
			(RelationUsesLocalBuffers(heap) ||
			 !BufferIsValid(buffer_of(heap, VISIBILITYMAP_FORKNUM, map_block))) &&
			!is_sound(heap, VISIBILITYMAP_FORKNUM, map_block))
			return true;
	}
	return VM_ALL_VISIBLE(heap, block, vmbuf);
}
