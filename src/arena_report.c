/*
 * arena_report.c
 *	  What the arena has, and where the kernel says that it is.
 *
 * move_pages() knows only pages that this process has mapped, and mapping one
 * that does not exist would make it.  So mincore() is asked first, which looks at
 * the shared object, and what exists is mapped by the kernel
 * (nxm_seam_map), which can fail and cannot raise SIGBUS.  A page that is
 * given back in between is made again, empty: at most 64 kB, until it is handed
 * out the next time.
 *
 * Limits: past max_pages one page is picked at random out of each run of n, and
 * the figures are multiplied.  So where most of the space is free, nothing may be told of
 * a node: nxm_arena_sample() picks among the pages in use.
 */
#include "arena.h"

#include <unistd.h>

#include "arena_chunks.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes.h"
#include "numa_seam.h"

const char *
nxm_arena_why_unbound(const NxmArenaReport *report)
{
	uint32		flags = report->unbound_flags;

	if ((flags & NXM_CHUNK_UNBOUND_TYPE) != 0)
		return "dynamic_shared_memory_type is mmap";
	if ((flags & NXM_CHUNK_UNBOUND_MAIN) != 0)
		return "they are in min_dynamic_shared_memory";
	if ((flags & NXM_CHUNK_UNBOUND_REFUSED) != 0)
		return "the kernel refused";
	return NULL;
}

/* A stopped process that keeps others from freeing memory, or 0. */
static int
stopped_process(NxmSpaceShared *shared, uint64 *held_items)
{
	NxmSpace	space;
	uint64		epoch = nxm_load(&shared->epoch);
	NxmProcScan scan = {0, 0};
	int			stopped = 0;
	int			proc;

	nxm_space_open(&space, shared);
	*held_items = 0;
	while ((proc = nxm_next_proc(&space, &scan)) >= 0)
	{
		NxmProcLine *line = &space.lines[proc];
		uint64		pid = nxm_load(&line->owner);
		uint64		theirs = nxm_load(&line->epoch);
		bool		holds = nxm_load(&line->held) != 0;

		*held_items += holds;
		if (pid == 0 || theirs == 0 || (!holds && theirs == epoch))
			continue;
		/* others are there for a moment */
		if (stopped == 0 && nxm_seam_stopped((pid_t) pid))
			stopped = (int) pid;
	}
	return stopped;
}

NxmArenaState
nxm_arena_report(NxmArenaReport *report)
{
	const char *why;
	NxmArenaState state = nxm_arena_look(&why);
	NxmSpaceShared *shared;

	memset(report, 0, sizeof(*report));
	report->why = why;
	if (state != NXM_ARENA_READY)
		return state;
	shared = nxm_arena_shared(nxm_anchor_if_any());
	report->huge = nxm_load_relaxed(&nxm_anchor_if_any()->huge_bytes);
	report->chunks = (int) nxm_load(&shared->nchunks);
	for (int i = 0; i < report->chunks; i++)
	{
		uint32		f = NXM_CHUNK_FLAGS(shared->chunks[i].handle);

		report->reserved += nxm_load(&shared->chunks[i].published) * NXM_PAGE_SIZE;
		report->unbound += (f & NXM_CHUNK_UNBOUND) != 0;
		report->solid += (f & NXM_CHUNK_SOLID) != 0;
		report->unbound_flags |= f & NXM_CHUNK_UNBOUND;
	}
	for (int i = 0; i < NXM_ACCOUNTS; i++)
	{
		uint64		descriptors = nxm_chunk_descriptor_pages(shared, i);

		report->used[i] = (nxm_load(&shared->account[i].pages) + descriptors) * NXM_PAGE_SIZE;
		report->limit[i] = nxm_load_relaxed(&nxm_anchor_if_any()->limit_kb[i]) * 1024;
	}
	report->stopped_pid = stopped_process(shared, &report->held_items);
	report->epoch_limbo = nxm_load(&shared->limbo);
	report->leaked = nxm_load(&shared->leaked);
	return state;
}

/*
 * Asks the kernel about one page of the space, on a logical node, -1: none: which
 * parts of it exist, and where.  parts: the kernel's pages in one of ours.
 */
static void
ask(NxmNodeMemory *memory, int home, char *page, int parts)
{
	const NxmOsNodeSet *mems = home < 0 ? NULL : &nxm_topology()->node[home].mems;
	Size		part_size = NXM_PAGE_SIZE / parts;
	unsigned char exists[NXM_MAX_PARTS];
	void	   *addr[NXM_MAX_PARTS];
	int			node[NXM_MAX_PARTS];
	int			n = 0;
	int			err;

	if (nxm_seam_resident(page, NXM_PAGE_SIZE, exists) != 0)
		return;
	memory->asked = true;
	for (int i = 0; i < parts; i++)
	{
		if ((exists[i] & 1) != 0)
			addr[n++] = page + i * part_size;
	}
	if (n == 0)
		return;
	memory->resident += n * part_size;
	if (mems == NULL)
		return;
	/* with a kernel that cannot map, those that this process has used are known */
	(void) nxm_seam_map(page, NXM_PAGE_SIZE);
	err = nxm_seam_page_nodes(addr, n, node);
	if (err != 0)
	{
		memory->refused = err;
		return;
	}
	for (int i = 0; i < n; i++)
	{
		if (node[i] < 0)
			continue;
		memory->told = true;
		if (nxm_osnodeset_count(mems) == 0 || nxm_osnodeset_has(mems, node[i]))
			memory->on_node += part_size;
		else
			memory->elsewhere += part_size;
	}
}

/* The account of a page of a chunk: what it has its memory for, else whose chunk. */
static int
account_of(NxmSpace *space, int chunk, uint64 page, bool *used)
{
	NxmChunk   *c = &space->shared->chunks[chunk];
	int			account = nxm_chunk_account(c);
	int			counted;

	*used = page < c->first_page;
	if (*used)
		return account;
	counted = nxm_page_account(space, (uint32_t) (((uint32_t) chunk << NXM_CHUNK_PAGE_SHIFT) + page));
	*used = counted >= 0;
	return *used ? counted : account;
}

int
nxm_arena_measure(NxmNodeMemory *memory, int max_pages)
{
	NxmSpace   *space = nxm_space();
	NxmSpaceShared *shared = space->shared;
	int			nchunks = (int) nxm_load(&shared->nchunks);
	int			nnodes = (int) shared->nnodes;
	int			n = nnodes * NXM_ACCOUNTS;
	int			parts = (int) (NXM_PAGE_SIZE / sysconf(_SC_PAGESIZE));
	uint64		pages = 0;
	uint64		run;

	for (int i = 0; i < nchunks; i++)
	{
		nxm_chunk_map(space, i);
		pages += nxm_load(&shared->chunks[i].published);
	}
	run = pages / max_pages + 1;

	memset(memory, 0, sizeof(NxmNodeMemory) * n);
	for (int i = 0; i < n; i++)
	{
		int			node = i / NXM_ACCOUNTS;

		memory[i].node = node == nxm_space_unbound_node() ? -1 :
			nxm_space_node_first(node);
		memory[i].account = i % NXM_ACCOUNTS;
	}
	for (int i = 0; i < nchunks; i++)
	{
		NxmChunk   *chunk = &shared->chunks[i];
		NxmNodeMemory *m = &memory[chunk->node * NXM_ACCOUNTS];
		uint64		npages = nxm_load(&chunk->published);
		uint64		asked = 0;

		for (uint64 page = 0; page < npages; page++)
		{
			bool		used;
			int			account = account_of(space, i, page, &used);

			/* one of each run */
			if (page % run == 0)
			{
				asked = page;
				if (run > 1)
					asked += pg_prng_uint64_range(&pg_global_prng_state, 0, run - 1);
				CHECK_FOR_INTERRUPTS();
			}
			m[account].reserved += NXM_PAGE_SIZE;
			m[account].used += used ? NXM_PAGE_SIZE : 0;
			if (page == asked)
				ask(&m[account], m->node, space->base[i] + page * NXM_PAGE_SIZE, parts);
		}
	}
	for (int i = 0; i < n; i++)
	{
		memory[i].resident *= run;
		memory[i].on_node *= run;
		memory[i].elsewhere *= run;
	}
	return n;
}

void
nxm_arena_sample(NxmNodeMemory *sum, int max_pages)
{
	NxmSpace   *space = nxm_space();
	NxmSpaceShared *shared = space->shared;
	int			nchunks = (int) nxm_load(&shared->nchunks);
	int			unbound = nxm_space_unbound_node();
	int			parts = (int) (NXM_PAGE_SIZE / sysconf(_SC_PAGESIZE));
	uint64		in_use = 0;
	uint64		run;
	uint64		seen = 0;
	uint64		asked = 0;		/* the next one to ask about */

	memset(sum, 0, sizeof(NxmNodeMemory));
	for (int i = 0; i < (int) shared->nnodes; i++)
	{
		if (i != unbound)
			in_use += nxm_load(&shared->nodes[i].used_pages);
	}
	run = in_use / max_pages + 1;
	for (int i = 0; i < nchunks; i++)
	{
		NxmChunk   *chunk = &shared->chunks[i];
		uint64		npages = Min(nxm_load(&chunk->bump), nxm_load(&chunk->published));

		if ((int) chunk->node == unbound)
			continue;
		nxm_chunk_map(space, i);
		for (uint64 page = 0; page < npages; page++)
		{
			bool		used;
			bool		due;

			(void) account_of(space, i, page, &used);
			if (!used)
				continue;
			due = seen == asked;
			/* in the next run */
			if (due)
				asked = (seen / run + 1) * run +
					pg_prng_uint64_range(&pg_global_prng_state, 0, run - 1);
			seen++;
			if (!due && page > 0)
				continue;
			CHECK_FOR_INTERRUPTS();
			ask(sum, nxm_space_node_first((int) chunk->node),
				space->base[i] + page * NXM_PAGE_SIZE, parts);
		}
	}
}
