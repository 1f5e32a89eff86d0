/*
 * arena.h
 *	  Node memory: the chunks of a space (core/space.h) in dynamic shared memory.
 */
#ifndef NXM_ARENA_H
#define NXM_ARENA_H

#include "postgres.h"

#include <signal.h>
#include <time.h>

#include "core/flight.h"
#include "core/item.h"
#include "core/map.h"
#include "core/space.h"
#include "port/atomics.h"
#include "shmem.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

/* Bumped with every change of what is in the anchor or in a space, or of nxm_hash(). */
#ifndef NXM_LAYOUT_VERSION		/* a test raises it */
#define NXM_LAYOUT_VERSION 17
#endif

/* What to do where PostgreSQL has no dynamic shared memory segment left. */
#define NXM_HINT_CONNECTIONS "Raise max_connections, on standbys first, and restart the server."

/*
 * What is shared apart from the space itself.  In main shared memory when
 * preloaded, else, from 17 on, in a segment of the DSM registry.
 */
typedef struct NxmAnchor
{
	uint32		magic;			/* immutable */
	uint32		version;		/* NXM_LAYOUT_VERSION of who made it; immutable */
	uint64		size;			/* of the anchor with its space; immutable */
	uint32		tranche;		/* of the locks; immutable */
	LWLock		grow_lock;		/* who adds chunks, or changes the limits in force */
	int64		limits_as_of;	/* when these were read by who stored them; the lock's */
	NxmAtomic	limit_kb[NXM_ACCOUNTS]; /* the settings in force; changed under the lock */
	LWLock		registry_lock;	/* creating, dropping and sharing; see registry.c */
	NxmAtomic	generation;		/* of names and privileges: a change voids what call
								 * sites remember; and NXM_CLOSED of registry.h */
	NxmAtomic	next_id;		/* of objects */
	NxmAtomic	buried;			/* dropped objects: see registry.c */
	NxmAtomic	cleared;		/* 1: a map was, and may not be drained yet */
	NxmAtomic	largest;		/* NxmRef of the NxmCache that is to give way to others, 0:
								 * none; changed under the registry lock */
	NxmAtomic	caches_made;	/* caches ever made */
	NxmAtomic	cache_short;	/* TimestampTz: last time that caches had to do with less
								 * than their limit; 0: never */
	NxmAtomic	cache_short_why;	/* NxmGrowth of arena_chunks.h: why then; stored before */
	NxmAtomic	cache_not_made; /* TimestampTz: last time that a write found no room to make
								 * its cache; 0: never */
	NxmAtomic	huge_bytes;		/* of chunks, in huge pages; by the worker */
	NxmFlights	flights;		/* values being computed: see single_flight.c */
	/* the registry: (database, kind, name) to object */
	NxmMap		names __attribute__((aligned(NXM_CACHE_LINE)));
} NxmAnchor;

typedef enum NxmArenaState
{
	NXM_ARENA_NONE,				/* none here, or nobody has made one */
	NXM_ARENA_OTHER_VERSION,	/* made by another version of the library */
	NXM_ARENA_NO_MEMORY,		/* to look for it, not even that: nxm_arena_look() alone */
	NXM_ARENA_NO_REGISTRY,		/* the DSM registry's entry is no good: the same */
	NXM_ARENA_READY
} NxmArenaState;

/* nexusmem.memory_limit and nexusmem.cache_size, kB */
extern int	nxm_memory_limit;
extern int	nxm_cache_size;
/* nexusmem.enable_numa_caching; false where it is not defined */
extern bool nxm_enable_numa_caching;

extern void nxm_arena_init(void);	/* settings */
extern Size nxm_arena_size(void);	/* of the anchor */
extern void nxm_arena_shmem_init(void *ptr, bool found);

/*
 * This process's view of the shared space, attached at the first call.  Raises
 * object_not_in_prerequisite_state where there is none: not preloaded on 15 and
 * 16; an anchor of another layout version.
 */
extern NxmSpace *nxm_space(void);
extern NxmAnchor *nxm_anchor(void);

/*
 * Is there anything new that nxm_space() would see to: a limit, a home, a second in the
 * memory of another node?  For who does not call it at each operation.
 */
extern bool nxm_limit_changed;	/* the settings are not known to be in force */
extern bool nxm_borrowing;		/* this process is in another node's memory */
extern pg_atomic_uint64 *nxm_home;	/* NxmHome of its slot; NULL: it has none */
extern uint64 nxm_seen_home;	/* what it was when this process last looked */

static inline bool
nxm_home_changed(void)
{
	return nxm_home != NULL && pg_atomic_read_u64(nxm_home) != nxm_seen_home;
}

static inline bool
nxm_space_is_outdated(void)
{
	return nxm_limit_changed || nxm_borrowing || nxm_home_changed();
}

/* Called when this process has been detached, while it ends. */
extern void (*nxm_arena_detached_hook) (void);

/* What became of freeing a part of what was dropped or cleared. */
typedef enum NxmDrain
{
	NXM_DRAIN_NOTHING,			/* there is nothing to free */
	NXM_DRAIN_LATER,			/* some process may still use it: try again later */
	NXM_DRAIN_MORE				/* freed something: call again */
} NxmDrain;

/*
 * Does that, where an allocation failed.  Does not wait for a lock that somebody has before
 * there is anything in hand.  Not in a section.
 */
extern NxmDrain (*nxm_arena_drain_hook) (void);

/*
 * Called before an error for want of memory; true: something was dropped, so that there is
 * something to free now.  Not in a section.
 */
extern bool (*nxm_arena_last_resort_hook) (void);

/*
 * The anchor, if there is one, without making it; NULL also where it is of
 * another version.
 */
extern NxmAnchor *nxm_anchor_if_any(void);

/*
 * The same without an error where there is no memory for the DSM registry, which may be
 * made by asking it, or its entry is no good: then *reason, palloc'd, says why.  In a
 * transaction.
 */
extern NxmArenaState nxm_arena_look(const char **reason);

/*
 * What to do with the result of an operation of core: true: it is to be
 * repeated, for a chunk was mapped or memory added.  Raises
 * configuration_limit_exceeded or out_of_memory where there is no more memory;
 * then the caller must hold nothing of the space.  Never in a section.
 *
 *	do { r = nxm_map_put(space, map, &key, &value); } while (nxm_again(space, r));
 */
extern bool nxm_again_slow(NxmSpace *space, NxmResult result);

/*
 * The same for an operation on a cache, which has a choice: raises no error for want
 * of memory.  false: there is none to be had now, so entries have to give way.
 */
extern bool nxm_cache_again_slow(NxmSpace *space, NxmResult result);

/*
 * Frees a part of what was dropped or cleared and is not freed yet; false: nothing was.
 * wait: where others may still use it, for a moment.  What the space says is needed
 * stays.  Not in a section.
 */
extern bool nxm_arena_drain(NxmSpace *space, bool wait);

static inline bool
nxm_asks_for_more(NxmResult result)
{
	return result == NXM_NEED_CHUNK || result == NXM_NEED_MEMORY ||
		result == NXM_NEED_EPOCH;
}

static inline bool
nxm_again(NxmSpace *space, NxmResult result)
{
	return unlikely(nxm_asks_for_more(result)) && nxm_again_slow(space, result);
}

/*
 * The same for an operation that allocates in several accounts or on several nodes, and gives
 * all of it back where a part cannot be had: that it did is not to be taken for memory that
 * was freed, again and again.  *trusts: 0 at first, and kept from turn to turn.  quiet: where
 * there is no memory, false instead of an error.
 */
extern bool nxm_again_undone(NxmSpace *space, NxmResult result, int *trusts, bool quiet);

/*
 * Looks for interrupts in what is repeated like that.  Where this is not NULL, and set, raises
 * query_canceled: for a worker that only notes that it is to end.
 */
extern volatile sig_atomic_t *nxm_arena_stop;
extern void nxm_arena_check_interrupts(void);

/*
 * Between these two an operation may run: signals that would end the process in
 * its middle are kept away.  A client backend's wait for CHECK_FOR_INTERRUPTS
 * anyway, so this costs something in background workers alone.
 */
extern bool nxm_signals_matter; /* set when attached */

static inline void
nxm_begin_operation(void)
{
	if (unlikely(nxm_signals_matter))
		nxm_hold_signals();
}

static inline void
nxm_end_operation(void)
{
	if (unlikely(nxm_signals_matter))
		nxm_let_signals();
}

/* Is it ms since a time, or that yet to come, as where the clock was set back? */
static inline bool
nxm_is_over(TimestampTz since, TimestampTz now, int ms)
{
	return since > now || TimestampDifferenceExceeds(since, now, ms);
}

/* Milliseconds since some time, by a clock that nobody sets: for what is not to end early. */
static inline int64
nxm_steady_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * The node of the space that this process's stripes and memory are on: that of
 * its home, or of the CPU that it ran on when it attached.  Below the space's
 * nnodes, which are fewer than the logical nodes where these are many.
 */
extern int	nxm_memory_node(void);

/* For the worker: puts the limits into force, trims, moves the epoch on. */
extern void nxm_arena_tick(void);

/* For status: a row's worth of what the arena knows. */
typedef struct NxmArenaReport
{
	int			chunks;
	int			unbound;		/* chunks that could not be bound to their node */
	int			solid;			/* chunks whose memory is never given back */
	uint64		reserved;		/* bytes of address space in chunks */
	uint64		huge;			/* bytes of these that are in huge pages */
	uint64		used[NXM_ACCOUNTS]; /* bytes with memory behind them, by our count */
	uint64		limit[NXM_ACCOUNTS];	/* on these */
	int			stopped_pid;	/* of a process that holds memory back, or 0 */
	uint64		held_items;		/* retired ones that processes have as their hazards */
	uint64		epoch_limbo;	/* objects waiting for the epoch */
	uint64		leaked;			/* objects lost until the server restarts */
	uint32		unbound_flags;	/* NXM_CHUNK_UNBOUND_* of arena_chunks.h: why */
	const char *why;			/* NXM_ARENA_NO_MEMORY and _NO_REGISTRY: the reason */
} NxmArenaReport;

/* As nxm_arena_look().  The report is zero unless it is ready, `why` excepted. */
extern NxmArenaState nxm_arena_report(NxmArenaReport *report);

/* In words; NULL: all are bound, or there is nothing to bind to. */
extern const char *nxm_arena_why_unbound(const NxmArenaReport *report);

/*
 * The memory of one account on a node of the space; what the kernel says is
 * sampled.
 */
typedef struct NxmNodeMemory
{
	int			node;			/* logical; -1: bound to none */
	int			account;
	uint64		reserved;		/* as above; free pages are whose segment it is */
	uint64		used;
	uint64		resident;		/* bytes that the kernel says exist */
	uint64		on_node;		/* of these, on the node's memories */
	uint64		elsewhere;		/* of these, on others; both 0: not told */
	bool		asked;			/* resident is known */
	bool		told;			/* on_node and elsewhere are */
	int			refused;		/* errno of the kernel that would not tell them, or 0 */
} NxmNodeMemory;

#define NXM_NODE_MEMORIES (NXM_SPACE_NODES * NXM_ACCOUNTS)

/*
 * Fills an array of NXM_NODE_MEMORIES, by node and account, and returns their
 * number, asking about max_pages pages at most, picked at random where there are
 * more.  Attaches this process to the space and maps all of it.
 */
extern int	nxm_arena_measure(NxmNodeMemory *memory, int max_pages);

/*
 * Where pages with memory behind them lie that are bound to some node: adds up about
 * max_pages of them, picked at random where there are more, and the first page of each
 * chunk.  Else as above.
 */
extern void nxm_arena_sample(NxmNodeMemory *sum, int max_pages);

#endif							/* NXM_ARENA_H */
