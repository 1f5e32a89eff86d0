/*
 * buffer_nodes.c
 *	  Counts the valid buffers by the node that their memory lies on.
 *
 * move_pages() knows only pages that the asking process has mapped, so the
 * kernel is told to map them first, neighbours at once: on a virtual machine all
 * of it takes a fifteenth of the time that it takes with reading one byte of each,
 * which is done where the kernel can't (before Linux 5.14).  Mapping a page of a
 * valid buffer allocates nothing; buffers never used are not looked at.
 *
 * Descriptors are read without their header locks, as
 * pg_buffercache_summary() does: a buffer that changes hands meanwhile may be
 * counted for either, which a statistic can bear and the buffer manager's
 * callers should not have to wait for.
 *
 * Past MAX_ASKED buffers one is picked at random out of each run of n, about
 * SAMPLED of them, and the figures are multiplied.  A fixed step would fall into
 * step with stripes.  The standard error of a node's share p is at most
 * sqrt(p(1-p)/SAMPLED), 0.6 % of all buffers.
 */
#include "buffer_nodes.h"

#include <errno.h>
#include <unistd.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes.h"
#include "placement.h"

/*
 * Neighbours are cheap: these, all of 1 GB, cost about twice as much as SAMPLED ones,
 * for each of which the kernel maps 64 kB, with tables of its own for each 2 MB.
 */
#define MAX_ASKED 131072
#define SAMPLED 8192
#define BATCH 512
/* a block that starts inside a page touches one page more than it fills */
#define MAX_PAGES_A_BLOCK ((BLCKSZ + 4095) / 4096 + 1)

typedef struct Batch
{
	int			nbuffers;
	int			npages;
	int			id[BATCH];
	bool		dirty[BATCH];
	int			pages_of[BATCH];
	int			bytes_of[BATCH * MAX_PAGES_A_BLOCK];
	void	   *page[BATCH * MAX_PAGES_A_BLOCK];
	int			node[BATCH * MAX_PAGES_A_BLOCK];
} Batch;

static int
logical_node(int os_node)
{
	int			node = os_node < 0 ? -1 :
		nxm_topology_node_of_memory(nxm_topology(), os_node);

	return node < 0 ? NXM_NODE_UNKNOWN : node;
}

static void
add_buffer(Batch *batch, int id, bool dirty, size_t page_size)
{
	char	   *start = BufferBlocks + (size_t) id * BLCKSZ;
	char	   *end = start + BLCKSZ;
	int			pages = 0;

	for (char *p = start; p < end;)
	{
		char	   *next = (char *) TYPEALIGN_DOWN(page_size, p) + page_size;
		int			i = batch->npages++;

		batch->page[i] = p;
		batch->bytes_of[i] = (int) (Min(next, end) - p);
		pages++;
		p = next;
	}
	batch->id[batch->nbuffers] = id;
	batch->pages_of[batch->nbuffers] = pages;
	batch->dirty[batch->nbuffers++] = dirty;
}

/* Maps the pages of a batch into this process, a run of neighbouring buffers at a time. */
static void
map(const Batch *batch)
{
	size_t		os_page = (size_t) sysconf(_SC_PAGESIZE);
	int			next;
	int			i = 0;

	for (int b = 0; b < batch->nbuffers; b = next)
	{
		char	   *start = (char *) TYPEALIGN_DOWN(os_page, batch->page[i]);
		char	   *end = BufferBlocks;
		int			first = i;

		for (next = b; next < batch->nbuffers && batch->id[next] - batch->id[b] == next - b; next++)
			i += batch->pages_of[next];
		end += (size_t) (batch->id[next - 1] + 1) * BLCKSZ;
		if (nxm_seam_map(start, end - start) != EINVAL)
			continue;
		for (; first < i; first++)
			(void) *(volatile char *) batch->page[first];
	}
}

static void
ask(Batch *batch, NxmBufferNodes *out)
{
	int			err;

	if (batch->nbuffers == 0)
		return;
	map(batch);
	err = nxm_seam_page_nodes(batch->page, batch->npages, batch->node);
	if (err != 0)
	{
		out->refused = err;
		for (int i = 0; i < batch->npages; i++)
			batch->node[i] = -1;
	}

	for (int b = 0, i = 0; b < batch->nbuffers; b++)
	{
		int			first = logical_node(batch->node[i]);
		bool		split = false;

		for (int last = i + batch->pages_of[b]; i < last; i++)
		{
			int			node = logical_node(batch->node[i]);

			out->node[node].bytes += batch->bytes_of[i];
			split |= node != first;
		}
		out->node[first].buffers++;
		out->node[first].dirty += batch->dirty[b];
		out->node[first].split += split;
	}
	batch->nbuffers = batch->npages = 0;
}

static bool
wanted(int id, const NxmLocator *relation, uint64 *state)
{
	BufferDesc *desc = GetBufferDescriptor(id);

	*state = nxm_buffer_state(desc);
	if ((*state & BM_VALID) == 0)
		return false;
	return relation == NULL ||
		nxm_buffer_tag_is(&desc->tag, relation);
}

void
nxm_buffer_nodes(NxmBufferNodes *out, const NxmLocator *relation)
{
	/* asking the kernel anew walks all that this process has mapped */
	static size_t page_size = 0;
	Batch	   *batch = palloc0(sizeof(Batch));
	uint64		state;
	int64		valid = 0;
	int64		asked = 0;
	int64		seen = 0;
	int64		pick = 0;

	memset(out, 0, sizeof(*out));
	out->sampling = 1;
	if (page_size == 0)
		page_size = nxm_placement_result()->page_size;
	if (page_size == 0)
		page_size = Max(nxm_seam_page_size(BufferBlocks),
						(size_t) sysconf(_SC_PAGESIZE));

	for (int id = 0; id < NBuffers; id++)
	{
		if (id % 65536 == 0)
			CHECK_FOR_INTERRUPTS();
		valid += wanted(id, relation, &state);
	}
	if (valid > MAX_ASKED)
		out->sampling = (int) ((valid + SAMPLED - 1) / SAMPLED);

	for (int id = 0; id < NBuffers; id++)
	{
		if (id % 65536 == 0)
			CHECK_FOR_INTERRUPTS();
		if (!wanted(id, relation, &state))
			continue;
		if (seen % out->sampling == 0)
			pick = seen + (out->sampling == 1 ? 0 :
						   pg_prng_uint64_range(&pg_global_prng_state, 0,
												out->sampling - 1));
		if (seen++ != pick)
			continue;
		add_buffer(batch, id, (state & BM_DIRTY) != 0, page_size);
		asked++;
		if (batch->nbuffers == BATCH)
		{
			CHECK_FOR_INTERRUPTS();
			ask(batch, out);
		}
	}
	ask(batch, out);
	pfree(batch);

	if (out->sampling > 1 && asked > 0)
	{
		double		scale = (double) valid / asked;

		for (int i = 0; i <= NXM_MAX_NODES; i++)
		{
			out->node[i].buffers *= scale;
			out->node[i].bytes *= scale;
			out->node[i].dirty *= scale;
			out->node[i].split *= scale;
		}
	}
}
