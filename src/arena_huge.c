/*
 * arena_huge.c
 *	  Puts the memory of chunks into huge pages.
 *
 * Why.  Each process pays a page fault for each page of shared memory that it
 * touches first, and has page tables of its own for it: 256 MB in 4 kB pages took a
 * process 65,536 faults of 1.9 us and 512 kB of tables, in 2 MB pages 128 faults of
 * 10 us and no tables to speak of.  Random reads of it took 187 ns instead of 213,
 * for want of page walks.
 *
 * How.  madvise(MADV_COLLAPSE), Linux 6.1: the kernel copies a range into one huge
 * page and puts that into the shared object in its place, whatever is set below
 * /sys/kernel/mm/transparent_hugepage but for "deny" in shmem_enabled, and needs no
 * privilege and no reserved pages.
 * It takes the node that most of the range is on, so placement stays as it was.
 *
 * A process maps a huge page whole only where its addresses go with offsets in the
 * object.  PostgreSQL maps segments anywhere, so each process maps a chunk a second
 * time, where it is aligned (nxm_seam_map_aligned()), and uses that mapping alone.
 *
 * Which.  Ranges all of whose pages have memory behind them, so that no more is taken
 * than is counted.  A page given back later takes its range apart again, in the
 * kernel, or has to be given back once more (nxm_chunk_depopulate()).  When the range is
 * full once more it is put together once more: where nobody saw it apart, when its turn
 * comes to be asked for again.  Pages of it that are given back in the very moment are made
 * again, empty, until they are handed out the next time.  So nothing is put together while
 * more is in use than a limit allows, which many pages are given back for.
 *
 * By whom.  The memory worker, some at each pass: copying 2 MB takes it milliseconds,
 * in which others who touch the range wait.  What has been done is known to it alone,
 * and found out again by asking the kernel once, should it be started anew.
 *
 * Not where huge_pages is off, in segments that are not posix ones (files, and memory
 * that PostgreSQL has placed), nor in memory interleaved over nodes by 4 kB pages.
 */
#include "arena_chunks.h"

#include <errno.h>

#include "compat.h"
#include "miscadmin.h"
#include "numa_seam.h"
#include "portability/instr_time.h"
#include "storage/dsm_impl.h"
#include "storage/pg_shmem.h"

/* Of a pass, ms. */
#define PASS_MS			50
/*
 * Of the ranges that have been put together a pass looks at one in so many, and asks
 * the kernel to put one in so many together again, for they may have been apart.
 */
#define LOOK_EVERY		8
#define ASK_EVERY		256

/* Of more than this, as with kernel pages of 64 kB, few would ever be full. */
#define MOST_HUGE_BYTES	(4 * 1024 * 1024)
#define LEAST_HUGE_BYTES (2 * 1024 * 1024)
#define MAX_RANGES		(NXM_MAX_CHUNK_PAGES / (LEAST_HUGE_BYTES / NXM_PAGE_SIZE))

/* Ranges that have been put together, in the worker. */
static uint64 done[NXM_MAX_CHUNKS][MAX_RANGES / 64];

Size
nxm_chunk_huge_bytes(bool in_main)
{
	Size		size;

	if (huge_pages == HUGE_PAGES_OFF || in_main ||
		dynamic_shared_memory_type != DSM_IMPL_POSIX)
		return 0;
	size = nxm_seam_huge_page_size();
	return size >= LEAST_HUGE_BYTES && size <= MOST_HUGE_BYTES ? size : 0;
}

/* Has each page of a range memory behind it? */
static bool
is_full(NxmSpace *space, int chunk, uint32 first, uint32 n)
{
	uint32		first_page = space->shared->chunks[chunk].first_page;

	for (uint32 i = Max(first, first_page); i < first + n; i++)
	{
		if (nxm_page_account(space, ((uint32) chunk << NXM_CHUNK_PAGE_SHIFT) + i) < 0)
			return false;
	}
	return true;
}

/* Are pages being given back, since a limit was lowered? */
static bool
is_over_limit(NxmSpace *space)
{
	for (int i = 0; i < NXM_ACCOUNTS; i++)
	{
		if (nxm_account_is_over(space, i))
			return true;
	}
	return false;
}

uint64
nxm_chunk_collapse(NxmSpace *space)
{
	static bool worked = false;
	static bool refused = false;
	static uint32 pass = 0;
	int			nchunks = (int) nxm_load(&space->shared->nchunks);
	Size		size = nxm_chunk_huge_bytes(false);
	uint32		pages = size / NXM_PAGE_SIZE;
	uint64		total = 0;
	uint32		number = 0;		/* of a range, over all chunks */
	bool		go_on = !refused;
	instr_time	began;

	pass++;
	INSTR_TIME_SET_CURRENT(began);
	for (int c = 0; size != 0 && c < nchunks; c++)
	{
		NxmChunk   *chunk = &space->shared->chunks[c];
		/* who raced for the last page has counted on */
		uint32		ranges = Min(nxm_load(&chunk->bump),
								 nxm_load(&chunk->published)) / pages;

		/* one made since all were mapped: the next time */
		if (space->base[c] == NULL ||
			(NXM_CHUNK_FLAGS(chunk->handle) &
			 (NXM_CHUNK_SOLID | NXM_CHUNK_SMALL_PAGES)) != 0 ||
			(uintptr_t) space->base[c] % size != 0)
			continue;
		for (uint32 r = 0; r < ranges; r++, number++)
		{
			uint64	   *word = &done[c][r / 64];
			uint64		bit = UINT64CONST(1) << (r % 64);
			bool		wanted = (*word & bit) == 0 ||
				(number + pass) % ASK_EVERY == 0;

			if ((wanted || (number + pass) % LOOK_EVERY == 0) &&
				!is_full(space, c, r * pages, pages))
			{
				*word &= ~bit;
				continue;
			}
			if (wanted && go_on && !is_over_limit(space))
			{
				int			err = nxm_seam_collapse(space->base[c] + r * size, size);
				instr_time	now;

				if (err == 0)
				{
					*word |= bit;
					worked = true;
				}
				else
					*word &= ~bit;
				/* an older kernel; else something is the matter with this range */
				refused |= !worked &&
					(err == EINVAL || err == ENOSYS || err == EPERM);
				INSTR_TIME_SET_CURRENT(now);
				INSTR_TIME_SUBTRACT(now, began);
				go_on = !refused && err != ENOMEM && err != EBUSY &&
					INSTR_TIME_GET_MILLISEC(now) < PASS_MS;
				CHECK_FOR_INTERRUPTS();
			}
			total += (*word & bit) != 0 ? size : 0;
		}
	}
	return total;
}
