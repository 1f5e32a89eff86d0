/*
 * arena_chunks.c
 *	  Makes, maps and populates the DSM segments that are chunks of the space.
 *
 * Making one.  PostgreSQL allocates all of a posix segment when it makes it,
 * before anybody could say where, and a policy does not move what is there.  So
 * the memory is given back at once, but for the pages of descriptors, then the
 * policy is set, and pages get their memory again one by one as the space hands
 * them out.  The policy lies on the shared object: it holds for whoever asks for
 * the page, in whichever process.  The descriptors are placed by this process's
 * own policy, set while the segment is made.  MPOL_PREFERRED: a node that is
 * full is no error.
 *
 * Taking memory is asking the kernel to write to the page (nxm_seam_populate):
 * a full /dev/shm makes that fail, where touching the page would be SIGBUS.
 * Where the kernel can't be asked (before 5.14), or won't give memory back, the
 * chunk is "solid": all of it stays as it was made.
 *
 * Accounts.  Structures and caches each have a limit.  They take their pages from the
 * same chunks, but where there is a node for caches, and then the others are for
 * structures.  A chunk's descriptors count against the account that it was made for, but
 * where those of more than a page would be more than a 32nd of its limit, against the one
 * that has more left, of those that take pages from the chunk: a limit that is far below
 * the other would be used up by them.
 *
 * Sizes.  A chunk doubles what its node has, from 4 MB on, up to a quarter of the
 * limit, of who takes pages from it, for as much is taken for a moment while it is made;
 * not more than half of what /dev/shm has left, for parallel query lives there too;
 * and enough that the chunks that may still be made can hold the limits.
 *
 * That they can.  Nodes for one account have f chunks to come, but for the first ones of
 * nodes that have none, and want R bytes; of these f the other nodes, which want R', need
 * g = R' / 2 GB, rounded up.  A chunk has R / (f - g) bytes or more, so R / (f - g) is not
 * more for the next one, and while it is 2 GB at most, f - 1 is not below g + R / 2 GB,
 * which is the same of the other nodes.  A chunk is halved for the sake of its descriptors,
 * 1/204 of it, only where it holds more than six times what either account has left.
 *
 * Lock.  One process at a time grows, under the anchor's grow_lock.  No error
 * may leave there with a segment that nobody knows, so those of making it are
 * caught.  Mapping takes no lock: what is published is immutable.
 *
 * Segments of type mmap are files, to which policies do not apply, and slices of
 * min_dynamic_shared_memory are memory that PostgreSQL has placed: neither is
 * bound.  A slice need not begin at a page's edge, but is at the same address
 * in every process, so the offset at which pages begin is the same too.
 *
 * Limits: a process that is stopped while it grows keeps others from growing; who
 * waits for it cannot be cancelled.
 * Memory nodes past NXM_MEMORY_NODES share.
 */
#include "arena_chunks.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include "compat.h"
#include "core/cache.h"
#include "core/pause.h"
#include "nodes.h"
#include "numa_seam.h"
#include "segment.h"
#include "storage/dsm.h"
#include "storage/dsm_impl.h"

#define MB UINT64CONST(1048576)
#define FIRST_CHUNK_BYTES	(4 * MB)
/* what a short /dev/shm may shrink a chunk to */
#define LEAST_CHUNK_BYTES	(1 * MB)
#define MOST_CHUNK_BYTES	((uint64) NXM_MAX_CHUNK_PAGES * NXM_PAGE_SIZE)

/* of a limit, and of what is left of it, for descriptors at most, if more than a page */
#define DESCRIPTORS_SHARE	32

/* Half of the chunks, so that each node can have a first and a larger one. */
#define NXM_MEMORY_NODES	(NXM_MAX_CHUNKS / 2)

StaticAssertDecl(NXM_MEMORY_NODES <= NXM_SPACE_NODES,
				 "a space has as many nodes");
StaticAssertDecl(NXM_PAGE_SIZE <= 0xFFFFFF, "an offset fits a chunk's handle");

/* Nodes that the space in use was made for. */
static int	most_nodes = NXM_MEMORY_NODES;

int
nxm_space_node_count(void)
{
	return Min(nxm_topology()->nnodes, most_nodes);
}

int
nxm_space_node_of(int node)
{
	return node * nxm_space_node_count() / nxm_topology()->nnodes;
}

int
nxm_space_node_first(int space_node)
{
	int			count = nxm_space_node_count();

	return (space_node * nxm_topology()->nnodes + count - 1) / count;
}

int
nxm_space_unbound_node(void)
{
	int			count = nxm_space_node_count();

	return !nxm_enable_numa_caching && count > 1 ? count : -1;
}

int
nxm_space_nodes(void)
{
	return nxm_space_node_count() + (nxm_space_unbound_node() >= 0);
}

void
nxm_space_found(const NxmSpaceShared *shared)
{
	/* without the one that is bound to none: not preloaded, caches are not partitioned */
	most_nodes = Max((int) shared->nnodes - 1, 1);
}

uint64
nxm_chunk_descriptor_pages(NxmSpaceShared *shared, int account)
{
	int			n = (int) nxm_load(&shared->nchunks);
	uint64		pages = 0;

	for (int i = 0; i < n; i++)
	{
		if (nxm_chunk_account(&shared->chunks[i]) == account)
			pages += shared->chunks[i].first_page;
	}
	return pages;
}

bool
nxm_chunk_populate(NxmSpace *space, int chunk, void *page)
{
	uint32		flags = NXM_CHUNK_FLAGS(space->shared->chunks[chunk].handle);

	if ((flags & NXM_CHUNK_SOLID) != 0)
		return true;
	return nxm_seam_populate(page, NXM_PAGE_SIZE) == 0;
}

/*
 * Huge pages are taken apart first, which the kernel leaves undone, without saying so,
 * while another process has one in its hands, as by a page fault: it is asked what
 * became of it.
 */
bool
nxm_chunk_depopulate(NxmSpace *space, int chunk, void *page)
{
	uint32		flags = NXM_CHUNK_FLAGS(space->shared->chunks[chunk].handle);
	unsigned char exists[NXM_MAX_PARTS];
	int			parts = (int) (NXM_PAGE_SIZE / sysconf(_SC_PAGESIZE));

	if ((flags & NXM_CHUNK_SOLID) != 0)
		return true;
	/* where it fails the memory stays, and will again: as where it can't be given back */
	if (nxm_seam_release(page, NXM_PAGE_SIZE) != 0 ||
		(flags & NXM_CHUNK_SMALL_PAGES) != 0 || nxm_chunk_huge_bytes(false) == 0)
		return true;
	if (nxm_seam_resident(page, NXM_PAGE_SIZE, exists) != 0)
		return true;
	/* a part that is there alone was made again, as nxm_arena_measure() may */
	for (int i = 0; i < parts; i++)
	{
		if ((exists[i] & 1) == 0)
			return true;
	}
	return false;
}

/*
 * Where this process uses a segment: mapped once more, where huge pages can be mapped
 * whole, unless it will have none.
 */
static char *
aligned(bool small_pages, dsm_segment *segment)
{
	char	   *start = dsm_segment_address(segment);
	Size		huge = nxm_chunk_huge_bytes(small_pages);
	char	   *second;

	if (huge == 0 || dsm_segment_map_length(segment) < huge)
		return start;
	second = nxm_seam_map_aligned(start, dsm_segment_map_length(segment), huge);
	return second == NULL ? start : second;
}

void
nxm_chunk_map(NxmSpace *space, int chunk)
{
	uint64		handle = space->shared->chunks[chunk].handle;
	dsm_segment *segment;

	if (space->base[chunk] != NULL)
		return;
	NXM_PAUSE("map chunk");
	segment = dsm_find_mapping(NXM_CHUNK_DSM(handle));
	if (segment == NULL)
	{
		char	   *reason;

		/* which leaves nothing behind that looks like a mapping where it fails */
		segment = nxm_segment_attach(NXM_CHUNK_DSM(handle), &reason);
		if (segment == NULL && reason != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("could not map a segment of nexusmem's shared memory"),
					 errdetail_internal("%s", reason)));
		if (segment == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a segment of nexusmem's shared memory does not exist any more"),
					 errhint("Restart the server.")));
	}
	nxm_chunk_mapped(space, chunk,
					 aligned((NXM_CHUNK_FLAGS(handle) & NXM_CHUNK_SMALL_PAGES) != 0,
							 segment) + NXM_CHUNK_OFFSET(handle));
}

void
nxm_chunk_map_all(NxmSpace *space)
{
	int			n = (int) nxm_load(&space->shared->nchunks);

	for (int i = 0; i < n; i++)
		nxm_chunk_map(space, i);
}

bool
nxm_chunk_room(NxmSpace *space, int node)
{
	NxmNodeSpace *n = &space->shared->nodes[node];
	uint64		newest;
	NxmChunk   *chunk;

	/* the top's tag is in its upper half */
	if ((uint32) nxm_load(&n->free_pages) != 0 ||
		(uint32) nxm_load(&n->kept_pages) != 0)
		return true;
	newest = nxm_load(&n->chunk);
	if (newest == 0)
		return false;
	chunk = &space->shared->chunks[newest - 1];
	return nxm_load(&chunk->bump) < nxm_load(&chunk->published);
}

uint64
nxm_chunk_free_pages(NxmSpace *space, int node)
{
	NxmSpaceShared *shared = space->shared;
	int			nchunks = (int) nxm_load(&shared->nchunks);
	uint64		used = nxm_load(&shared->nodes[node].used_pages);
	uint64		all = 0;

	for (int i = 0; i < nchunks; i++)
	{
		NxmChunk   *chunk = &shared->chunks[i];

		if ((int) chunk->node == node)
			all += nxm_load(&chunk->published) - chunk->first_page;
	}
	/* read at another moment */
	return all > used ? all - used : 0;
}

bool
nxm_chunks_would_do(NxmSpaceShared *shared)
{
	/* one of each node may be smaller */
	return ((uint64) nxm_memory_limit + nxm_cache_size) * 1024 <=
		(NXM_MAX_CHUNKS - shared->nnodes) * MOST_CHUNK_BYTES;
}

/* Is a node for an account?  Others than those that it is for borrow there. */
static bool
is_for(int node, int account)
{
	int			unbound = nxm_space_unbound_node();

	return unbound < 0 || (node == unbound) == (account == NXM_CACHE_ACCOUNT);
}

/* The limits of the accounts that a node is for, in bytes. */
static uint64
limit_on(int node)
{
	return ((is_for(node, 0) ? (uint64) nxm_memory_limit : 0) +
			(is_for(node, NXM_CACHE_ACCOUNT) ? (uint64) nxm_cache_size : 0)) * 1024;
}

/* Bytes for the next chunk of a node.  Under the lock, with room in the table. */
static uint64
chunk_bytes(NxmSpace *space, int node)
{
	NxmSpaceShared *shared = space->shared;
	int			nchunks = (int) nxm_load(&shared->nchunks);
	int			unbound = nxm_space_unbound_node();
	uint64		limit = limit_on(node);
	uint64		have = 0;
	/* of nodes for the other account, where this one is for one */
	uint64		others = ((uint64) nxm_memory_limit + nxm_cache_size) * 1024 - limit;
	uint64		others_have = 0;
	int			waiting = 0;	/* other nodes that have no chunk yet */
	int			left;
	uint64		bytes;

	for (int i = 0; i < nchunks; i++)
	{
		NxmChunk   *chunk = &shared->chunks[i];
		uint64		size = nxm_load(&chunk->published) * NXM_PAGE_SIZE;

		if ((int) chunk->node == node)
			have += size;
		else if ((int) chunk->node == unbound || node == unbound)
			others_have += size;
	}
	for (int i = 0; i < (int) shared->nnodes; i++)
		waiting += i != node && nxm_load(&shared->nodes[i].chunk) == 0;
	left = NXM_MAX_CHUNKS - nchunks - waiting;
	if (others > others_have)
		left -= (int) ((others - others_have + MOST_CHUNK_BYTES - 1) / MOST_CHUNK_BYTES);
	/* both cannot be held: one of the largest that doubling would make */
	if (left < 1)
		left = 4;

	bytes = Min(have + FIRST_CHUNK_BYTES, Max(limit / 4, FIRST_CHUNK_BYTES));
	if (limit > have)
		bytes = Max(bytes, (limit - have) / left);

	if (dynamic_shared_memory_type == DSM_IMPL_POSIX)
	{
		struct statvfs fs;

		/* one that has no limit says that it has no blocks */
		if (statvfs("/dev/shm", &fs) == 0 && fs.f_blocks != 0)
			bytes = Min(bytes, (uint64) fs.f_bavail * fs.f_frsize / 2);
	}
	bytes = Min(Max(bytes, LEAST_CHUNK_BYTES), MOST_CHUNK_BYTES);
	return bytes / NXM_PAGE_SIZE * NXM_PAGE_SIZE;
}

/* Is there more than one memory, and does the node know which is its own? */
static const NxmOsNodeSet *
memories_of(int node)
{
	const NxmTopology *topo = nxm_topology();
	const NxmOsNodeSet *mems;

	if (node == nxm_space_unbound_node())
		return NULL;
	mems = &topo->node[nxm_space_node_first(node)].mems;
	return topo->numa && nxm_osnodeset_count(mems) > 0 ? mems : NULL;
}

/*
 * Gives back what was allocated of a new segment but for its descriptors, and
 * binds the rest.  Returns NXM_CHUNK_* flags.
 */
static uint32
prepare_memory(char *base, uint32 npages, int node, bool in_main, bool placed)
{
	Size		descriptors = (Size) nxm_chunk_first_page(npages) * NXM_PAGE_SIZE;
	Size		bytes = (Size) npages * NXM_PAGE_SIZE;
	const NxmOsNodeSet *mems = memories_of(node);
	uint32		flags = nxm_chunk_huge_bytes(in_main) == 0 ||
		(mems != NULL && nxm_osnodeset_count(mems) > 1) ? NXM_CHUNK_SMALL_PAGES : 0;

	/* slices were used before */
	memset(base, 0, descriptors);

	/* a page that exists tells whether this kind of mapping can be populated */
	if (!nxm_seam_can_populate() ||
		nxm_seam_populate(base, NXM_PAGE_SIZE) != 0 ||
		nxm_seam_release(base + descriptors, bytes - descriptors) != 0)
		flags |= NXM_CHUNK_SOLID;

	if (mems == NULL)
		return flags;
	if (in_main)
		return flags | NXM_CHUNK_UNBOUND_MAIN;
	if (dynamic_shared_memory_type == DSM_IMPL_MMAP)
		return flags | NXM_CHUNK_UNBOUND_TYPE;
	if (nxm_seam_range_policy(base, bytes,
							  nxm_osnodeset_count(mems) > 1 ?
							  NXM_RANGE_INTERLEAVE : NXM_RANGE_PREFER,
							  mems) != 0 ||
		((flags & NXM_CHUNK_SOLID) != 0 && !placed))
		flags |= NXM_CHUNK_UNBOUND_REFUSED;
	return flags;
}

/* Pages that an account may still take. */
static uint64
left_of(NxmAccount *account)
{
	uint64		limit = nxm_load(&account->page_limit);
	uint64		pages = nxm_load(&account->pages);

	return limit > pages ? limit - pages : 0;
}

/*
 * Descriptors count against the limit.  The limit in force is lessened, not
 * computed anew: this process may not have heard of a new setting yet.  Somebody
 * who has puts it into force when we have let go of the lock.
 *
 * Charged before the segment is made, so that pages taken meanwhile leave room
 * for it.  false: there is none, or too little, and nothing is charged.
 */
static bool
charge_descriptors(NxmAccount *account, uint64 pages)
{
	uint64		limit = nxm_load(&account->page_limit);

	do
	{
		uint64		used = nxm_load(&account->pages);

		if (used + pages >= limit ||
			(pages > 1 && pages > (limit - used) / DESCRIPTORS_SHARE))
			return false;
	} while (!nxm_cas(&account->page_limit, &limit, limit - pages));
	return true;
}

/* Under the lock. */
static bool
is_within_share(NxmSpaceShared *shared, int account, uint64 pages)
{
	uint64		charged = nxm_chunk_descriptor_pages(shared, account);
	uint64		limit = nxm_load(&shared->account[account].page_limit) + charged;

	return pages == 1 || charged + pages <= limit / DESCRIPTORS_SHARE;
}

/* Under the lock, with room in the table. */
static NxmGrowth
add_chunk(NxmSpace *space, int node, char **reason)
{
	const NxmOsNodeSet *mems = memories_of(node);
	int			account;
	NxmAccount *accounts = space->shared->account;
	uint64		bytes = chunk_bytes(space, node);
	NxmMemPolicy policy;
	bool		placed = false;
	dsm_segment *segment;
	char	   *start;
	Size		offset;
	bool		in_main;
	uint32		npages;
	uint32		charged;
	uint32		flags;

	for (;;)
	{
		charged = nxm_chunk_first_page(bytes / NXM_PAGE_SIZE);
		account = space->need_account;
		if (is_within_share(space->shared, account, charged) &&
			charge_descriptors(&accounts[account], charged))
			break;
		if (is_for(node, !account) &&
			left_of(&accounts[!account]) > left_of(&accounts[account]))
			account = !account;
		if (charge_descriptors(&accounts[account], charged))
			break;
		/* near the limit a smaller one will do */
		if (bytes / 2 < LEAST_CHUNK_BYTES)
			return NXM_GROW_LIMIT;
		bytes = bytes / 2 / NXM_PAGE_SIZE * NXM_PAGE_SIZE;
	}

	if (mems != NULL && nxm_seam_get_policy(&policy) == 0)
		placed = nxm_seam_prefer(nxm_osnodeset_next(mems, -1)) == 0;
	/* a page more than asked for, as a slice may begin anywhere */
	while ((segment = nxm_segment_create(bytes + NXM_PAGE_SIZE, reason)) == NULL &&
		   *reason != NULL && bytes / 2 >= LEAST_CHUNK_BYTES)
		bytes = bytes / 2 / NXM_PAGE_SIZE * NXM_PAGE_SIZE;
	if (placed)
		(void) nxm_seam_set_policy(&policy);
	npages = segment == NULL ? 0 : (uint32) (bytes / NXM_PAGE_SIZE);
	/* what a smaller segment, or none, does not need */
	nxm_fetch_add(&accounts[account].page_limit,
				  charged - nxm_chunk_first_page(npages));
	if (segment == NULL)
		return *reason == NULL ? NXM_GROW_NO_SEGMENT : NXM_GROW_NO_MEMORY;

	in_main = nxm_dsm_in_main_memory(dsm_segment_handle(segment));
	start = aligned(in_main, segment);
	offset = in_main ? (char *) TYPEALIGN(NXM_PAGE_SIZE, start) - start : 0;
	flags = prepare_memory(start + offset, npages, node, in_main, placed);
	if (account == NXM_CACHE_ACCOUNT)
		flags |= NXM_CHUNK_CACHE;
	NXM_PAUSE("add chunk");
	(void) nxm_chunk_add(space, start + offset, npages, node,
						 (uint64) flags << 56 | (uint64) offset << 32 |
						 dsm_segment_handle(segment));
	return NXM_GROWN;
}

NxmGrowth
nxm_chunk_grow(NxmSpace *space, LWLock *lock, char **reason)
{
	int			node = space->need_node;
	NxmGrowth	growth;

	*reason = NULL;
	LWLockAcquire(lock, LW_EXCLUSIVE);

	/*
	 * Not: unless there is room.  A value of many pages gave those that it got
	 * back when there were not enough, and would get the same ones again.
	 */
	if (nxm_load(&space->shared->nodes[node].chunk) != space->need_newest)
		growth = NXM_GROWN;
	else if (left_of(&space->shared->account[space->need_account]) == 0)
		growth = NXM_GROW_LIMIT;
	else if (nxm_load(&space->shared->nchunks) >= NXM_MAX_CHUNKS)
		growth = NXM_GROW_TABLE_FULL;
	else
		growth = add_chunk(space, node, reason);
	LWLockRelease(lock);
	return growth;
}
