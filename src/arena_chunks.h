/*
 * arena_chunks.h
 *	  The segments that are the chunks of the space.  For arena*.c.
 */
#ifndef NXM_ARENA_CHUNKS_H
#define NXM_ARENA_CHUNKS_H

#include "arena.h"

/* the kernel's pages in one of ours, with the smallest that there are */
#define NXM_MAX_PARTS		(NXM_PAGE_SIZE / 4096)

/*
 * NxmChunk.handle, immutable:
 *
 *	63     56 55                    32 31                     0
 *	+--------+------------------------+------------------------+
 *	| flags  | where in it pages begin |   handle of the segment |
 *	+--------+------------------------+------------------------+
 */
#define NXM_CHUNK_DSM(h)	((dsm_handle) (h))
#define NXM_CHUNK_OFFSET(h) ((Size) ((h) >> 32) & 0xFFFFFF)
#define NXM_CHUNK_FLAGS(h)	((uint32) ((h) >> 56))

/* Its memory is never given back, for it could not be taken again safely. */
#define NXM_CHUNK_SOLID			0x01
/* Not bound to its node, though there is something to choose from: */
#define NXM_CHUNK_UNBOUND_TYPE	0x02	/* dynamic_shared_memory_type = mmap */
#define NXM_CHUNK_UNBOUND_MAIN	0x04	/* min_dynamic_shared_memory */
#define NXM_CHUNK_UNBOUND_REFUSED 0x08	/* the kernel said no */
/* Its descriptors count against the caches' limit */
#define NXM_CHUNK_CACHE			0x10
/* Not to be put into huge pages */
#define NXM_CHUNK_SMALL_PAGES	0x20
#define NXM_CHUNK_UNBOUND \
	(NXM_CHUNK_UNBOUND_TYPE | NXM_CHUNK_UNBOUND_MAIN | NXM_CHUNK_UNBOUND_REFUSED)

typedef enum NxmGrowth
{
	NXM_GROWN,					/* by this process or by another */
	NXM_GROW_TABLE_FULL,		/* there are NXM_MAX_CHUNKS */
	NXM_GROW_LIMIT,				/* the account's limit has no room for one */
	NXM_GROW_NO_SEGMENT,		/* PostgreSQL has no segment left */
	NXM_GROW_NO_MEMORY			/* the operating system has none; see the reason */
} NxmGrowth;

/* The space of an anchor. */
extern NxmSpaceShared *nxm_arena_shared(NxmAnchor *anchor);

/* Maps a published chunk, if it is not.  May raise an error. */
extern void nxm_chunk_map(NxmSpace *space, int chunk);
extern void nxm_chunk_map_all(NxmSpace *space);

/* Could a page be handed out on the node without another chunk? */
extern bool nxm_chunk_room(NxmSpace *space, int node);

/* How many could, about. */
extern uint64 nxm_chunk_free_pages(NxmSpace *space, int node);

/*
 * Would as many chunks as there may be hold both limits, with their sizes chosen anew, as
 * after a restart?
 */
extern bool nxm_chunks_would_do(NxmSpaceShared *shared);

/*
 * Adds a chunk on the node that space wants one on, unless somebody has done so
 * since.  Raises no error; for NXM_GROW_NO_MEMORY *reason, in the current memory
 * context, tells more.
 */
extern NxmGrowth nxm_chunk_grow(NxmSpace *space, LWLock *lock, char **reason);

/* NxmSpace's callbacks. */
extern bool nxm_chunk_populate(NxmSpace *space, int chunk, void *page);
extern bool nxm_chunk_depopulate(NxmSpace *space, int chunk, void *page);

/*
 * Size of the huge pages that chunks may be put into, and at a multiple of which they
 * are mapped; 0: none.  in_main: of a slice of min_dynamic_shared_memory.
 */
extern Size nxm_chunk_huge_bytes(bool in_main);

/*
 * For the worker, with all chunks mapped, once a second: puts some more into huge
 * pages, in 50 ms or a little more.  Returns the bytes that are in such.
 */
extern uint64 nxm_chunk_collapse(NxmSpace *space);

/* Pages that hold descriptors, and count against an account's limit. */
extern uint64 nxm_chunk_descriptor_pages(NxmSpaceShared *shared, int account);

static inline int
nxm_chunk_account(const NxmChunk *chunk)
{
	return (NXM_CHUNK_FLAGS(chunk->handle) & NXM_CHUNK_CACHE) != 0;
}

/* The first logical node of a node of the space, and the reverse. */
extern int	nxm_space_node_first(int space_node);
extern int	nxm_space_node_of(int node);
extern int	nxm_space_node_count(void);

/* Nodes of a space, the one that is bound to none included. */
extern int	nxm_space_nodes(void);
/* The node for caches that are not partitioned, which is bound to none; -1: none. */
extern int	nxm_space_unbound_node(void);

/*
 * Not preloaded: a space that was made by a process that may have found fewer nodes than
 * this one, as it was allowed fewer CPUs; it has no more than it was made for.
 */
extern void nxm_space_found(const NxmSpaceShared *shared);

#endif							/* NXM_ARENA_CHUNKS_H */
