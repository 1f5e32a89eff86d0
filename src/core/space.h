/*
 * space.h
 *	  Shared memory that structures live in: references, pages, objects, and
 *	  when freed memory may be used again.
 *
 * Layout.  A space is at most NXM_MAX_CHUNKS chunks, each mapped anywhere in a
 * process, each on one node.  A reference names a byte in it:
 *
 *	33       28 27                                             0
 *	+----------+-----------------------------------------------+
 *	|  chunk   |              offset in units of 8 bytes       |
 *	+----------+-----------------------------------------------+
 *
 * 34 bits, so that a slot of an index has 30 to spare.  0 is no reference (it
 * is the head of chunk 0).  A chunk of n pages of 64 kB begins with the n page
 * descriptors; the pages that these take up are never handed out.  A page's
 * number in the space is its reference >> 13.
 *
 * Objects.  A page holds objects of one size class, or one raw page.  Which of
 * its objects are free is a bitmap in the descriptor, outside the page, so that
 * an empty page's memory can be given back to the kernel.  Classes are 8 bytes
 * apart from 32 to 256, and 16 to a doubling from there to 16 kB: up to 256 at most
 * 7 bytes of an object are lost (or what lacks to 32), beyond at most 6 %.  So is the
 * end of a page, where no object fits any more: at most 9 % of it with objects up to
 * 8 kB, 19 % beyond.
 *
 * Allocating takes an object from the process's ready stack, else from its
 * magazine (up to 64 bits of one bitmap word, taken by one CAS), else refills
 * the magazine from the class's first listed page, else takes a page.
 *
 *	state of a page				where it is
 *	FREE						on a stack of its node's, kept or free, or never used
 *	SLAB, listed				on the stack of its class: may have free objects
 *	SLAB, not listed			had none; the next to free one lists it again
 *	EMPTY, listed				given back, still on the stack of its class until
 *								it comes to the top
 *	RAW							handed out whole
 *
 * Who has a page alone, popped or with all its objects in hand, changes its life and
 * status: by a store, but from SLAB to EMPTY by CAS, for LISTED may change meanwhile,
 * which is set by CAS by who lists the page, and cleared by who has popped it.
 *
 * The kernel may refuse to take a page's memory away, for a moment (depopulate()).  A
 * page that nobody refers to is then kept with it; one that is on the stack of its
 * class stays SLAB, all free, and nxm_sweep() tries again.  Either stays counted.
 *
 * A process that read a page's number from the class's stack and was held up
 * may find the page in another life.  It takes bits first and compares the
 * state after: bits taken pin the life of a page, for a page with objects out
 * is never released.  Stacks of pages carry a tag in the top word, changed by
 * every operation, against the same page having been popped and pushed again.
 *
 * Accounts.  All memory is counted in one of NXM_ACCOUNTS accounts, each with a
 * limit of its own: pages that have memory behind them.  Pages with objects hold
 * those of one account.  Processes keep free objects ready of account 0 alone: those of
 * the caches are long, and their pages needed.  A page that is kept populated is counted
 * where it was last, and changes the account when it is taken for another.
 *
 * Reclamation.  Two kinds of memory are read without a lock.
 *
 * - Payloads (items): a reader publishes the item as its hazard, fences, and
 *   looks again whether it is still where it found it (Michael 2004).
 *   nxm_retire() puts an item that cannot be found any more in the process's
 *   limbo; a full limbo is flushed: fence, read all hazards, and free those that
 *   nobody names.  Each of the others is noted in the line of a process whose
 *   hazard it is, and freed by a later flush, of whichever process, that sees the
 *   hazard gone.  A process has one hazard, so one note is enough: what a new note
 *   displaces is not this process's hazard any more, and is freed, or noted
 *   with another that names it.  So a stopped reader holds back one item, and with it
 *   the page where it is.
 * - Index arrays and descriptors: the epoch that a reader publishes when it
 *   enters a section (Fraser 2004).  nxm_retire_epoch() puts the object in the
 *   process's epoch limbo with the global epoch; it is freed when the epoch is
 *   two further, which needs every process in a section to have seen each.
 *
 * A section is entered by nxm_enter(), which publishes the epoch, and left by
 * nxm_leave(), which withdraws epoch and hazard.  Sections do not nest; in one
 * nothing may block, raise an error or allocate private memory.  The operations
 * of all structures run in a section that their caller entered, so that the
 * caller can look there whether the structure still exists.
 *
 * Ends of processes.  nxm_proc_detach() gives everything back that the process
 * has in its limbos and magazines.  What must still wait for the epoch stays
 * where it is, and is taken over by whoever polls with an empty epoch limbo, or
 * by the next process in that place.  A detaching process must not be in the
 * middle of an operation: the caller keeps signals that end it away for as long.
 *
 * Errors.  Nothing here raises one.  An operation that meets a chunk that this
 * process has not mapped sets space->need_chunk and says NXM_NEED_CHUNK; one
 * that finds no memory says NXM_NEED_MEMORY, with the node in space->need_node.
 * The caller leaves the section, maps or grows, and repeats the whole call.
 *
 * EMPTY pages have no memory, just their addresses.  Before a node asks for another
 * chunk it takes those that are on top of the stacks of all classes, or just below the top.
 *
 * Limits: 64 chunks of at most 2 GB.  EMPTY pages below two of their class with objects
 * out cannot be used for another class until one of the two is taken off the stack, full
 * or EMPTY.
 */
#ifndef NXM_SPACE_H
#define NXM_SPACE_H

#include <stddef.h>

#include "core_atomic.h"

typedef uint64_t NxmRef;

#define NXM_REF_BITS		34
#define NXM_REF_MASK		((UINT64_C(1) << NXM_REF_BITS) - 1)
#define NXM_REF_UNIT		8
#define NXM_CHUNK_SHIFT		28
#define NXM_MAX_CHUNKS		64
#ifndef NXM_PAGE_SIZE			/* the checker makes it small */
#define NXM_PAGE_SIZE		65536
#define NXM_PAGE_SHIFT		13	/* of a reference: 64 kB in units of 8 */
#endif
#define NXM_CHUNK_PAGE_SHIFT (NXM_CHUNK_SHIFT - NXM_PAGE_SHIFT)
#define NXM_MAX_CHUNK_PAGES (1 << (NXM_CHUNK_SHIFT - NXM_PAGE_SHIFT))
#ifndef NXM_SPACE_NODES
#define NXM_SPACE_NODES		64
#endif

/* Of what memory is counted for: structures, caches. */
#define NXM_ACCOUNTS		2

#define NXM_MIN_OBJECT		32
#ifndef NXM_MAX_OBJECT			/* the checker makes it small */
#define NXM_MAX_OBJECT		16384
#endif
#ifndef NXM_CLASSES				/* the checker makes it small */
#define NXM_CLASSES			125
#endif
#define NXM_PAGE_WORDS		(NXM_PAGE_SIZE / NXM_MIN_OBJECT / 64)

/* The checker makes these small. */
#ifndef NXM_LIMBO
#define NXM_LIMBO			64	/* items a process retires between two flushes */
#endif
#ifndef NXM_READY
#define NXM_READY			64	/* freed items a process keeps for its next ones */
#endif
#ifndef NXM_MAGAZINE_BYTES
#define NXM_MAGAZINE_BYTES	8192	/* most that a magazine takes at once */
#endif
/* populated pages that a node keeps rather than gives back */
#ifndef NXM_KEPT_PAGES
#define NXM_KEPT_PAGES		16
#endif

/* What an operation of core says. */
typedef enum NxmResult
{
	NXM_OK,
	NXM_ABSENT,					/* no such key; empty */
	NXM_EXISTS,					/* the key is there already */
	NXM_MISMATCH,				/* compare-and-set: another value */
	NXM_DROPPED,				/* the structure was dropped: look its name up anew */
	NXM_NEED_CHUNK,				/* map space->need_chunk and repeat */
	NXM_NEED_MEMORY,			/* grow space->need_node and repeat, or give up */
	NXM_NEED_EPOCH,				/* nxm_epoch_poll(), and repeat until the epoch has moved */
	NXM_NEED_BUFFER,			/* the caller's buffer is short: see the result's length */
	NXM_TOO_LONG,				/* key or value past its limit */
	NXM_OVERFLOW				/* a 64-bit integer would overflow */
} NxmResult;

/*
 * Page descriptor: 320 bytes for 64 kB, 0.5 %.
 *
 *	state	63  32 31 17   16    15   8 7 5  4   3  2      0
 *			+-----+-----+-------+-----+---+---+---+--------+
 *			|life |     |account|class|   | P | L | status |
 *			+-----+-----+-------+-----+---+---+---+--------+
 *
 * life counts the pages that it was; L is "listed"; P is "populated": it has memory.
 */
typedef struct NxmPage
{
	NxmAtomic	state;
	NxmAtomic	next;			/* page below on its stack, + 1; 0: none */
	NxmAtomic	raw[6];			/* for who has it as a raw page; not touched here */
	NxmAtomic	free[NXM_PAGE_WORDS];
} NxmPage;

/* A chunk, in the anchor.  Immutable once published, but for bump. */
typedef struct NxmChunk
{
	NxmAtomic	published;		/* pages in it; 0: there is none */
	NxmAtomic	bump;			/* pages handed out for the first time */
	uint32_t	node;
	uint32_t	first_page;		/* the ones below hold descriptors */
	uint64_t	handle;			/* the owner's own: a DSM handle */
} NxmChunk;

/* What others read of a process: one cache line. */
typedef struct NxmProcLine
{
	NxmAtomic	epoch;			/* in a section since; 0: in none.  The process */
	NxmAtomic	hazard;			/* reference; 0: none.  The process */
	NxmAtomic	held;			/* retired item that others hold back for it; 0: none */
	NxmAtomic	owner;			/* pid; 0: free */
	NxmAtomic	left;			/* objects in the epoch limbo that the last owner left,
								 * 7..0; a serial above */
	uint64_t	unused[3];
} NxmProcLine;

_Static_assert(sizeof(NxmProcLine) == NXM_CACHE_LINE, "a line of a process");

/* Bits of one bitmap word, ours to hand out. */
typedef struct NxmMagazine
{
	uint32_t	page;			/* meaningless without bits */
	uint32_t	word;
	uint64_t	bits;
} NxmMagazine;

/* The process's own, until it has left it. */
typedef struct NxmRetired
{
	NxmAtomic	ref;
	NxmAtomic	epoch;
} NxmRetired;

#ifndef NXM_EPOCH_LIMBO
#define NXM_EPOCH_LIMBO 128
#endif

/*
 * Objects in its epoch limbo from which on a process should put off what retires many at
 * once, or ask nxm_can_retire() before: the limbo is moved to an object when it is full,
 * for which there may be no memory, and then they are lost.
 */
#define NXM_EPOCH_LIMBO_HIGH (NXM_EPOCH_LIMBO / 4 * 3)

/* In NxmProcLocal.limbo: an item's size class, above its reference. */
#define NXM_LIMBO_CLASS_SHIFT NXM_REF_BITS

/* What only the process itself touches; shared, for whoever comes after it. */
typedef struct NxmProcLocal
{
	uint32_t	nlimbo;
	uint32_t	nready;
	uint32_t	nretired;
	uint32_t	node;			/* that it allocates on */
	uint32_t	nbig;			/* items with pieces in limbo */
	uint32_t	nunmapped;		/* of nretired: free, but their chunk is not mapped */
	uint64_t	limbo[NXM_LIMBO];	/* references, and bits of space_reclaim.c */
	NxmRef		ready[NXM_READY];
	uint8_t		ready_class[NXM_READY];
	NxmRetired	retired[NXM_EPOCH_LIMBO];
	NxmMagazine magazine[NXM_CLASSES];
} NxmProcLocal;

/* Per node, in lines of its own.  Tops of stacks: tag 63..32, page + 1 in 31..0. */
typedef struct NxmNodeSpace
{
	/* top of the stack of free pages without memory */
	NxmAtomic	free_pages __attribute__((aligned(NXM_CACHE_LINE)));
	NxmAtomic	kept_pages;		/* of those with memory */
	NxmAtomic	nkept;			/* on it */
	NxmAtomic	used_pages;		/* handed out */
	NxmAtomic	chunk;			/* the newest one, + 1 */
	NxmAtomic	nempty;			/* EMPTY pages on the stacks below; a hint */
	uint64_t	unused[2];
	/* tops of the stacks of listed pages */
	NxmAtomic	slabs[NXM_ACCOUNTS][NXM_CLASSES];
} NxmNodeSpace;

_Static_assert(sizeof(NxmNodeSpace) % NXM_CACHE_LINE == 0, "nodes share no line");

typedef struct NxmAccount
{
	NxmAtomic	pages;			/* with memory behind them, all nodes */
	NxmAtomic	page_limit;		/* most of these */
	NxmAtomic	limbo;			/* bytes of objects in them that wait for the epoch */
} NxmAccount;

/*
 * The anchor.  Followed in memory by nprocs NxmProcLine, a bit for each of them in
 * NXM_PROC_WORDS() words, and nprocs NxmProcLocal.
 */
typedef struct NxmSpaceShared
{
	NxmAtomic	epoch;			/* from 2 on */
	NxmAccount	account[NXM_ACCOUNTS];
	NxmAtomic	nchunks;		/* published; also the generation of mappings */
	NxmAtomic	leaked;			/* objects given up, see space_reclaim.c */
	NxmAtomic	orphans;		/* top of the stack of NxmOrphans: tag 63..34, reference */
	NxmAtomic	limbo;			/* objects waiting for the epoch */
	uint64_t	nprocs;			/* immutable */
	uint64_t	nnodes;			/* immutable */
	NxmAtomic	unreleased;		/* 1: nxm_sweep() has something to do */
	uint64_t	unused[2];
	NxmChunk	chunks[NXM_MAX_CHUNKS];
	NxmNodeSpace nodes[NXM_SPACE_NODES];
} NxmSpaceShared;

_Static_assert(sizeof(NxmSpaceShared) % NXM_CACHE_LINE == 0,
			   "what follows begins at a line");

/* Words of a bit for each process, in whole cache lines. */
#define NXM_PROC_WORDS(nprocs) (((size_t) (nprocs) + 511) / 512 * 8)

typedef struct NxmSpace NxmSpace;

/* What the last allocation that failed was in want of. */
typedef enum NxmWant
{
	NXM_WANT_NOTHING,			/* NEED_MEMORY, but more would not help: 2^30 items, too many
								 * keys of one hash, a value too large for its cache */
	NXM_WANT_CHUNK,				/* pages on need_node: one newer than need_newest */
	NXM_WANT_LIMIT,				/* a higher page_limit, or limit of the owner's own */
	NXM_WANT_SPACE				/* memory that populate() can have */
} NxmWant;

/* A process's view of a space.  Private memory. */
struct NxmSpace
{
	NxmSpaceShared *shared;
	NxmProcLine *lines;
	NxmAtomic  *attached;		/* bits: the line has ever been owned */
	NxmProcLocal *locals;
	int			proc;			/* ours; -1: not attached */
	NxmProcLine *line;			/* ours */
	NxmProcLocal *local;
	char	   *base[NXM_MAX_CHUNKS];	/* NULL: not mapped here */

	int			need_chunk;		/* -1: none */
	int			need_node;
	uint64_t	need_newest;	/* the node's chunk word when there was no page */
	bool		limbo_due;		/* nxm_leave() has a limbo to empty */
	NxmWant		want;			/* reset by whoever acts on it */
	int			need_account;	/* that the memory was to be counted in */
	uint32_t	leaves;			/* of sections, with so many in it that it polls */
	uint64_t	polled_epoch;	/* when it polled last */
	uint32_t	polled_waiting;	/* for so many objects */
	NxmRef		record;			/* for the epoch limbo when that is full; 0: none yet */

	/* what nxm_alloc() takes, see nxm_allocate_from() */
	int			account;
	int			alloc_node;		/* -1: the process's own */
	bool		past_limit;		/* even past page_limit: for what gives more back */

	/* what the index of a map counts its memory in, beside the map; NULL: nothing */
	NxmAtomic  *counted;
	uint64_t	most;			/* bytes of it */
	uint64_t	index_bytes;	/* all that this process has taken for indexes of maps */

	/*
	 * Puts memory behind a page, or takes it away.  Must not raise errors.
	 * populate: false: there is none (a full file system, no huge page).
	 * depopulate: false: it is still there, for now; true also where it can never be
	 * taken away.
	 */
	bool		(*populate) (NxmSpace *space, int chunk, void *page);
	bool		(*depopulate) (NxmSpace *space, int chunk, void *page);
	void	   *env;			/* theirs */
};

static inline int
nxm_ref_chunk(NxmRef ref)
{
	return (int) (ref >> NXM_CHUNK_SHIFT);
}

static inline uint32_t
nxm_ref_page(NxmRef ref)
{
	return (uint32_t) (ref >> NXM_PAGE_SHIFT);
}

/* Where it is in this process.  NULL: its chunk is not mapped; need_chunk is set. */
static inline void *
nxm_at(NxmSpace *space, NxmRef ref)
{
	char	   *base = space->base[nxm_ref_chunk(ref)];

	if (__builtin_expect(base == NULL, 0))
	{
		space->need_chunk = nxm_ref_chunk(ref);
		return NULL;
	}
	return base + (ref & ((UINT64_C(1) << NXM_CHUNK_SHIFT) - 1)) * NXM_REF_UNIT;
}

/*
 * The words beside the descriptor of a raw page, for who has it; they are what the
 * one before left.  NULL: its chunk is not mapped; need_chunk is set.
 */
static inline NxmAtomic *
nxm_page_words(NxmSpace *space, uint32_t page)
{
	char	   *base = space->base[page >> NXM_CHUNK_PAGE_SHIFT];

	if (__builtin_expect(base == NULL, 0))
	{
		space->need_chunk = (int) (page >> NXM_CHUNK_PAGE_SHIFT);
		return NULL;
	}
	return ((NxmPage *) base)[page & (NXM_MAX_CHUNK_PAGES - 1)].raw;
}

/* Is more in use than the limit of an account, which was lowered? */
static inline bool
nxm_account_is_over(NxmSpace *space, int account)
{
	NxmAccount *a = &space->shared->account[account];

	return nxm_load_relaxed(&a->pages) > nxm_load_relaxed(&a->page_limit);
}

/*
 * From now on this process's nxm_alloc() takes memory of an account and on a node,
 * -1: its own.  At first they are 0 and -1.
 */
static inline void
nxm_allocate_from(NxmSpace *space, int account, int node)
{
	space->account = account;
	space->alloc_node = node;
}

/* Adds bytes to a count, unless that would be more than `most` then. */
static inline bool
nxm_take_bytes(NxmAtomic *counted, uint64_t bytes, uint64_t most)
{
	uint64_t	before = nxm_load_relaxed(counted);

	do
	{
		if (before > most || bytes > most - before)
			return false;
		/* a sum: it orders nothing */
	} while (!nxm_cas(counted, &before, before + bytes));
	return true;
}

/* Bytes of the anchor. */
extern size_t nxm_space_size(int nprocs);

/* Makes an empty one in zeroed memory.  limit: pages of account 0; of others 0. */
extern void nxm_space_init(NxmSpaceShared *shared, int nprocs, int nnodes,
						   uint64_t limit);

/* This process's view, not attached: it may look, and enter no section. */
extern void nxm_space_open(NxmSpace *space, NxmSpaceShared *shared);

/*
 * Takes line proc for this process; nobody else has it.  node: where it
 * allocates.  owner: any number but 0 to know it by, such as its pid.
 */
extern void nxm_proc_attach(NxmSpace *space, int proc, int node, uint64_t owner);
extern void nxm_proc_detach(NxmSpace *space);

/* Goes through the lines that have ever been owned.  At first {0, 0}. */
typedef struct NxmProcScan
{
	uint64_t	next;			/* that bits of `attached` are read from */
	uint64_t	bits;			/* read, and not yet told */
} NxmProcScan;

/*
 * The next one's number; -1: that was all.  Server processes are few of those there may
 * be, and some have the last numbers, so lines are not looked at that nobody had.
 */
static inline int
nxm_next_proc(const NxmSpace *space, NxmProcScan *scan)
{
	int			bit;

	while (scan->bits == 0)
	{
		if (scan->next >= space->shared->nprocs)
			return -1;
		/* acquire: pairs with nxm_proc_attach(): the line is as that made it, or later */
		scan->bits = nxm_load(&space->attached[scan->next / 64]);
		scan->next += 64;
	}
	bit = __builtin_ctzll(scan->bits);
	scan->bits &= scan->bits - 1;
	return (int) scan->next - 64 + bit;
}

/*
 * Publishes a new chunk of npages pages of 64 kB, zeroed and mapped at base in
 * this process, descriptor pages populated.  One process at a time.  Returns
 * its number, or -1 where there are NXM_MAX_CHUNKS.
 */
extern int	nxm_chunk_add(NxmSpace *space, char *base, uint32_t npages, int node,
						  uint64_t handle);
/* Pages of a chunk of npages that its descriptors take. */
extern uint32_t nxm_chunk_first_page(uint32_t npages);

/* For nxm_leave(): a limbo is to be emptied. */
extern void nxm_leave_slow(NxmSpace *space);

/* This process has mapped a chunk there. */
static inline void
nxm_chunk_mapped(NxmSpace *space, int chunk, char *base)
{
	space->base[chunk] = base;
	/* what it has in its epoch limbo may be in this one */
	if (space->local != NULL && space->local->nunmapped != 0)
	{
		space->local->nunmapped = 0;
		space->limbo_due = true;
	}
}

/* Begins a section; see the head of this file. */
static inline void
nxm_enter(NxmSpace *space)
{
	/* release: who sees it sees the sections before as over.  See nxm_epoch_poll() */
	nxm_store(&space->line->epoch, nxm_load(&space->shared->epoch));
	/*
	 * Pairs with the fences of nxm_retire_epoch() and nxm_epoch_poll(): what was
	 * removed before is not found from here on, or the epoch is seen.
	 */
	nxm_fence();
}

/* Ends it. */
static inline void
nxm_leave(NxmSpace *space)
{
	/* release: all reads of the section are over */
	nxm_store(&space->line->hazard, 0);
	nxm_store(&space->line->epoch, 0);
	if (__builtin_expect(space->limbo_due, 0))
		nxm_leave_slow(space);
}

/*
 * Names ref as the item read from, and fences.  The caller then looks
 * again whether ref is still where it was found; if not, it may not read it.
 */
static inline void
nxm_protect(NxmSpace *space, NxmRef ref)
{
	/* release: reads under the hazard before are over.  Pairs with the scan. */
	nxm_store(&space->line->hazard, ref);
	/* pairs with the fence of nxm_flush(): it sees the hazard, or we the removal */
	nxm_fence();
}

/* Ends that; what was read is read. */
static inline void
nxm_unprotect(NxmSpace *space)
{
	nxm_store(&space->line->hazard, 0);
}

/* For nxm_object_size(): of more than 256 bytes. */
extern size_t nxm_large_object_size(size_t size);

/* Bytes of the object that a request of size gets. */
static inline size_t
nxm_object_size(size_t size)
{
	if (__builtin_expect(size > 256, 0))
		return nxm_large_object_size(size);
	return size <= NXM_MIN_OBJECT ? NXM_MIN_OBJECT : (size + 7) & ~(size_t) 7;
}

/* The size class of a request of up to 256 bytes. */
static inline int
nxm_small_class(size_t size)
{
	return size <= NXM_MIN_OBJECT ? 0 : (int) (size - NXM_MIN_OBJECT + 7) / 8;
}

/* For nxm_alloc(): in all other cases. */
extern NxmRef nxm_alloc_slow(NxmSpace *space, size_t size);

/*
 * An object of at least size bytes (at most NXM_MAX_OBJECT, or exactly
 * NXM_PAGE_SIZE) on the process's node, contents undefined.  0: there is none;
 * nxm_no_object() tells why.  Lock-free; in a section or not.  One of whole cache lines
 * begins at a line, for so do those of its class.
 */
static inline NxmRef
nxm_alloc(NxmSpace *space, size_t size)
{
	NxmProcLocal *local = space->local;
	uint32_t	top = local->nready - 1;

	/* who overwrites values of one length finds it on top of the ready stack */
	if (space->alloc_node < 0 && space->account == 0 && size <= 256 &&
		top < NXM_READY && local->ready_class[top] == nxm_small_class(size))
	{
		NxmRef		ref = local->ready[top];

		local->nready = top;
		NXM_UNPOISON(nxm_at(space, ref), nxm_object_size(size));
		return ref;
	}
	return nxm_alloc_slow(space, size);
}

/* The same on a node. */
extern NxmRef nxm_alloc_on(NxmSpace *space, int node, size_t size);

/*
 * Fences, and tells whether the hazard of any process is in a page.  If not, then
 * nobody reads what was not to be found in it before, or is going to.
 */
extern bool nxm_page_is_read(NxmSpace *space, uint32_t page);
/* The same of n references, at most 64: a bit for each that is a process's hazard. */
extern uint64_t nxm_hazards_on(NxmSpace *space, const NxmRef *refs, int n);

static inline NxmResult
nxm_no_object(const NxmSpace *space)
{
	return space->need_chunk >= 0 ? NXM_NEED_CHUNK : NXM_NEED_MEMORY;
}

/* No more memory would help. */
static inline NxmResult
nxm_is_full(NxmSpace *space)
{
	space->need_chunk = -1;
	space->want = NXM_WANT_NOTHING;
	return NXM_NEED_MEMORY;
}

/* An owner's limit is in the way, which the space does not know. */
static inline NxmResult
nxm_limit_reached(NxmSpace *space)
{
	space->need_chunk = -1;
	space->want = NXM_WANT_LIMIT;
	return NXM_NEED_MEMORY;
}

/*
 * Frees an object, or raw page, that no other process can be reading any more.  One
 * whose chunk is not mapped here is lost, and counted as leaked.
 */
extern void nxm_free(NxmSpace *space, NxmRef ref);

/* Frees what can be freed of this process's limbo, and held items of all. */
extern void nxm_flush(NxmSpace *space);

/* An index array or descriptor that can no longer be found. */
extern void nxm_retire_epoch(NxmSpace *space, NxmRef ref);
/*
 * Sees to it that there is an object for the epoch limbo when that is full, if that is
 * near, or would be with n more: at most NXM_EPOCH_LIMBO, for the last ones of more may
 * find it full again.  false: need_chunk is set; without any memory for it true, as
 * nothing helps.
 */
extern bool nxm_can_retire(NxmSpace *space, uint32_t n);
/*
 * The same for who may as well retire later: NXM_OK; NXM_NEED_CHUNK; or NXM_EXISTS, there is
 * no memory for that object, and what is retired while the epoch stands still may be lost.
 */
extern NxmResult nxm_keeps_retired(NxmSpace *space);
/* Tries to advance the epoch and frees what it lets.  Not in a section. */
extern void nxm_epoch_poll(NxmSpace *space);

/* Bytes of the object that ref is. */
extern size_t nxm_ref_size(NxmSpace *space, NxmRef ref);

/* Frees what this process keeps for its next objects. */
extern void nxm_give_back(NxmSpace *space);

/* Gives some of the pages that are kept populated back.  true: there may be more. */
extern bool nxm_trim(NxmSpace *space);

/*
 * Gives pages back that have no object out and whose memory could not be taken away
 * when that was so, if there are any: how many.  Looks at all pages of the chunks mapped
 * here.
 */
extern uint64_t nxm_sweep(NxmSpace *space);

/*
 * The account that a page of a mapped chunk is counted in; -1: it has no memory.  For
 * reports: it may have changed by then.
 */
extern int	nxm_page_account(NxmSpace *space, uint32_t page);

#endif							/* NXM_SPACE_H */
