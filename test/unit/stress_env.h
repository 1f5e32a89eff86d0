/*
 * stress_env.h
 *	  A space of src/core without a server: for the stress programs here and the
 *	  benchmarks under bench/core.
 *
 * A world is two files without a name: one holds the anchor and the data of the
 * test, the other the chunks, each at its own offset, sparse.  A view is what a
 * process, or a thread, has of it.
 *
 * Threads share their mappings, so that ThreadSanitizer and AddressSanitizer,
 * which go by address, see what they do to each other; but each thread's table
 * of chunks is its own, and begins empty, so that each meets NXM_NEED_CHUNK.
 * Processes map everything at other addresses, chosen at random, and lose what
 * they inherited at fork: an address kept in shared memory is a crash.
 */
#ifndef STRESS_ENV_H
#define STRESS_ENV_H

#include "space.h"

typedef struct World
{
	NxmAtomic	growing;		/* lock: who adds a chunk */
	NxmAtomic	stop;			/* 1: the phase is over */
	NxmAtomic	failed;			/* 1: `message` is being written; 2: is complete */
	NxmAtomic	chunk_pages;	/* of the next chunk; changed under the lock */
	NxmAtomic	max_chunk_pages;
	NxmAtomic	fail_populate;	/* n: one in n calls fails; 0: none */
	NxmAtomic	populations;
	NxmAtomic	fail_depopulate;	/* the same of taking memory away */
	NxmAtomic	depopulations;
	NxmAtomic	keep;			/* 1: memory is not given back to the kernel */
	uint64_t	space_at;		/* offsets in the file; immutable */
	uint64_t	test_at;
	uint64_t	size;
	char		message[256];
} World;

typedef struct Env
{
	World	   *world;
	NxmSpaceShared *shared;
	void	   *test;
	int			world_fd;
	int			chunk_fd;
	bool		scattered;		/* map at random addresses */
	bool		huge;			/* map where huge pages can be mapped */
	uint64_t	random;
	char	   *chunks[NXM_MAX_CHUNKS]; /* of this process; under `lock` */
	size_t		chunk_bytes[NXM_MAX_CHUNKS];
	void	   *lock;
} Env;

/*
 * A world with an empty space for nprocs processes, and test_size zeroed bytes
 * for the test.  limit: of its memory, in pages.  chunk_pages: of the first
 * chunk; each further one has twice as many, up to max_chunk_pages.
 */
extern Env *env_create(int nprocs, int nnodes, uint64_t limit, size_t test_size,
					   uint32_t chunk_pages, uint32_t max_chunk_pages);

/* In a child, after fork: maps the world anew, and drops what was inherited. */
extern void env_remap(Env *env, uint64_t seed);

/* A view for this thread.  proc -1: not attached. */
extern void env_open(Env *env, NxmSpace *space, int proc, int node);

/*
 * What to do with a result: true: repeat the operation, for a chunk was mapped or
 * added.  Not in a section.
 */
extern bool env_again_slow(NxmSpace *space, NxmResult result);

static inline bool
env_again(NxmSpace *space, NxmResult result)
{
	return __builtin_expect(result == NXM_NEED_CHUNK ||
							result == NXM_NEED_MEMORY ||
							result == NXM_NEED_EPOCH, 0) &&
		env_again_slow(space, result);
}

/* Runs an operation in a section of its own until it is done. */
#define ENV_DO(space, r, operation) \
	do { \
		nxm_enter(space); \
		(r) = (operation); \
		nxm_leave(space); \
	} while (env_again(space, r))

/* Ends the program, unless an operation did what it should, or found it so. */
extern void env_must(NxmResult r);

/* Maps every chunk there is. */
extern void env_map_all(NxmSpace *space);
/* Fills this process's page tables with what is used of the mapped chunks. */
extern void env_populate(NxmSpace *space);

/*
 * Puts what is used of the mapped chunks into huge pages of 2 MB, as the server's memory
 * worker does, if env->huge was set before there were chunks.
 */
extern void env_collapse(NxmSpace *space);

/* Bytes of memory behind the chunks, asked of the kernel. */
extern uint64_t env_memory(Env *env);
/* Pages that hold the chunks' descriptors, and are never given back. */
extern uint64_t env_descriptor_pages(Env *env);
/* Pages handed out, all nodes. */
extern uint64_t env_used_pages(Env *env);

/* xorshift64*; the state is not 0 */
static inline uint64_t
env_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* 0 to below - 1 */
static inline uint32_t
env_below(uint64_t *state, uint32_t below)
{
	return (uint32_t) (((env_random(state) >> 32) * below) >> 32);
}

/* Mixes 64 bits: MurmurHash3's finalizer. */
static inline uint64_t
env_mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}

extern uint64_t env_hash(const void *data, size_t len);

#endif							/* STRESS_ENV_H */
