/*
 * stress_env.c
 *	  A space of src/core without a server: see stress_env.h.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stress_env.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES ((size_t) 2 << 20)

/* A chunk's place in its file: as far apart as the largest is long. */
#define CHUNK_AT(n) ((off_t) (n) << 31)

_Static_assert((UINT64_C(1) << 31) == (uint64_t) NXM_MAX_CHUNK_PAGES * NXM_PAGE_SIZE,
			   "the largest chunk");

static void
die(const char *what)
{
	perror(what);
	exit(2);
}

static void *
map(Env *env, int fd, size_t size, off_t offset)
{
	void	   *hint = NULL;
	int			flags = MAP_SHARED;
	void	   *p;

	if (env->huge && size >= HUGE_BYTES)
	{
		/* of as much room as has an aligned place for it; the rest costs nothing */
		p = mmap(NULL, size + HUGE_BYTES, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED)
			die("mmap");
		hint = (char *) p + (HUGE_BYTES - (uintptr_t) p % HUGE_BYTES) % HUGE_BYTES;
		flags |= MAP_FIXED;
	}
	else if (env->scattered)
		hint = (void *) (uintptr_t) (UINT64_C(0x100000000000) +
									 (env_random(&env->random) >> 24) / 65536 * 65536);
	p = mmap(hint, size, PROT_READ | PROT_WRITE, flags, fd, offset);
	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void
set_world(Env *env, void *p)
{
	env->world = p;
	env->shared = (NxmSpaceShared *) ((char *) p + env->world->space_at);
	env->test = (char *) p + env->world->test_at;
}

Env *
env_create(int nprocs, int nnodes, uint64_t limit, size_t test_size,
		   uint32_t chunk_pages, uint32_t max_chunk_pages)
{
	Env		   *env = calloc(1, sizeof(Env));
	size_t		page = (size_t) sysconf(_SC_PAGESIZE);
	uint64_t	test_at = sizeof(World) + page - sizeof(World) % page +
		(nxm_space_size(nprocs) + page - 1) / page * page;
	uint64_t	size = test_at + (test_size + page - 1) / page * page;
	World	   *world;

	if (env == NULL || (env->lock = malloc(sizeof(pthread_mutex_t))) == NULL)
		die("malloc");
	pthread_mutex_init(env->lock, NULL);
	env->world_fd = memfd_create("world", MFD_CLOEXEC);
	env->chunk_fd = memfd_create("chunks", MFD_CLOEXEC);
	if (env->world_fd < 0 || env->chunk_fd < 0 ||
		ftruncate(env->world_fd, (off_t) size) != 0 ||
		ftruncate(env->chunk_fd, CHUNK_AT(NXM_MAX_CHUNKS)) != 0)
		die("memfd");
	world = map(env, env->world_fd, size, 0);
	world->space_at = sizeof(World) + page - sizeof(World) % page;
	world->test_at = test_at;
	world->size = size;
	nxm_init(&world->chunk_pages, chunk_pages);
	nxm_init(&world->max_chunk_pages, max_chunk_pages);
	set_world(env, world);
	nxm_space_init(env->shared, nprocs, nnodes, limit);
	return env;
}

void
env_remap(Env *env, uint64_t seed)
{
	World	   *old = env->world;

	env->scattered = true;
	env->random = env_mix(seed) | 1;
	set_world(env, map(env, env->world_fd, old->size, 0));
	if (mprotect(old, env->world->size, PROT_NONE) != 0)
		die("mprotect");
	for (int i = 0; i < NXM_MAX_CHUNKS; i++)
		if (env->chunks[i] != NULL)
		{
			if (mprotect(env->chunks[i], env->chunk_bytes[i], PROT_NONE) != 0)
				die("mprotect");
			env->chunks[i] = NULL;
		}
}

static bool
populate(NxmSpace *space, int chunk, void *page)
{
	Env		   *env = space->env;
	World	   *world = env->world;
	uint64_t	fail = nxm_load_relaxed(&world->fail_populate);

	if (fail != 0 && nxm_fetch_add_relaxed(&world->populations, 1) % fail == 0)
		return false;
	if (madvise(page, NXM_PAGE_SIZE, MADV_POPULATE_WRITE) == 0)
		return true;
	return errno == EINVAL &&
		fallocate(env->chunk_fd, 0,
				  CHUNK_AT(chunk) + ((char *) page - space->base[chunk]),
				  NXM_PAGE_SIZE) == 0;
}

static bool
depopulate(NxmSpace *space, int chunk, void *page)
{
	Env		   *env = space->env;
	World	   *world = env->world;
	uint64_t	fail = nxm_load_relaxed(&world->fail_depopulate);

	(void) chunk;
	if (fail != 0 && nxm_fetch_add_relaxed(&world->depopulations, 1) % fail == 0)
		return false;
	if (nxm_load_relaxed(&world->keep) == 0 &&
		madvise(page, NXM_PAGE_SIZE, MADV_REMOVE) != 0)
		die("madvise(MADV_REMOVE)");
	return true;
}

void
env_open(Env *env, NxmSpace *space, int proc, int node)
{
	memset(space, 0, sizeof(*space));
	nxm_space_open(space, env->shared);
	space->populate = populate;
	space->depopulate = depopulate;
	space->env = env;
	if (proc >= 0)
		nxm_proc_attach(space, proc, node, (uint64_t) getpid());
}

static void
map_chunk(NxmSpace *space, int chunk)
{
	Env		   *env = space->env;
	/* pairs with the publication: who knows the chunk finds it complete */
	uint64_t	pages = nxm_load(&space->shared->chunks[chunk].published);

	if (pages == 0)
	{
		fprintf(stderr, "a reference into chunk %d, which there is not\n", chunk);
		abort();
	}
	pthread_mutex_lock(env->lock);
	if (env->chunks[chunk] == NULL)
	{
		env->chunk_bytes[chunk] = pages * NXM_PAGE_SIZE;
		env->chunks[chunk] = map(env, env->chunk_fd, env->chunk_bytes[chunk],
								 CHUNK_AT(chunk));
	}
	nxm_chunk_mapped(space, chunk, env->chunks[chunk]);
	pthread_mutex_unlock(env->lock);
}

void
env_map_all(NxmSpace *space)
{
	for (int i = 0; i < NXM_MAX_CHUNKS; i++)
		if (space->base[i] == NULL &&
			nxm_load(&space->shared->chunks[i].published) != 0)
			map_chunk(space, i);
}

void
env_populate(NxmSpace *space)
{
	for (int i = 0; i < NXM_MAX_CHUNKS; i++)
		if (space->base[i] != NULL)
			madvise(space->base[i],
					(size_t) nxm_load(&space->shared->chunks[i].bump) * NXM_PAGE_SIZE,
					MADV_POPULATE_READ);
}

void
env_collapse(NxmSpace *space)
{
	for (int i = 0; i < NXM_MAX_CHUNKS; i++)
	{
		size_t		used = space->base[i] == NULL ? 0 :
			(size_t) nxm_load(&space->shared->chunks[i].bump) * NXM_PAGE_SIZE;

		/* a range that is refused stays as it is */
		for (size_t at = 0; at + HUGE_BYTES <= used; at += HUGE_BYTES)
			(void) madvise(space->base[i] + at, HUGE_BYTES, MADV_COLLAPSE);
	}
}

void
env_must(NxmResult r)
{
	if (r == NXM_OK || r == NXM_EXISTS || r == NXM_ABSENT)
		return;
	fprintf(stderr, "result %d\n", (int) r);
	exit(1);
}

/* false: there are as many chunks as there can be. */
static bool
add_chunk(NxmSpace *space, uint64_t nchunks)
{
	Env		   *env = space->env;
	World	   *world = env->world;
	uint64_t	nobody = 0;
	int			chunk = -1;

	while (!nxm_cas(&world->growing, &nobody, 1))
	{
		nobody = 0;
		sched_yield();
	}
	/* somebody else was first? */
	if (nxm_load(&space->shared->nchunks) == nchunks && nchunks < NXM_MAX_CHUNKS)
	{
		uint64_t	pages = nxm_load_relaxed(&world->chunk_pages);
		size_t		head = (size_t) nxm_chunk_first_page((uint32_t) pages) * NXM_PAGE_SIZE;

		if (pages * 2 <= nxm_load_relaxed(&world->max_chunk_pages))
			nxm_store_relaxed(&world->chunk_pages, pages * 2);
		pthread_mutex_lock(env->lock);
		env->chunk_bytes[nchunks] = pages * NXM_PAGE_SIZE;
		env->chunks[nchunks] = map(env, env->chunk_fd, env->chunk_bytes[nchunks],
								   CHUNK_AT(nchunks));
		pthread_mutex_unlock(env->lock);
		if (fallocate(env->chunk_fd, 0, CHUNK_AT(nchunks), (off_t) head) != 0)
			die("fallocate");
		chunk = nxm_chunk_add(space, env->chunks[nchunks], (uint32_t) pages,
							  space->need_node, nchunks);
		if (chunk != (int) nchunks)
		{
			fprintf(stderr, "the new chunk is %d and not %d\n", chunk,
					(int) nchunks);
			abort();
		}
		nxm_chunk_mapped(space, chunk, env->chunks[nchunks]);
	}
	nxm_store(&world->growing, 0);
	return nchunks < NXM_MAX_CHUNKS;
}

bool
env_again_slow(NxmSpace *space, NxmResult result)
{
	NxmSpaceShared *shared = space->shared;
	uint64_t	nchunks = nxm_load(&shared->nchunks);
	NxmWant		want = space->want;

	if (result == NXM_NEED_CHUNK)
	{
		if (space->need_chunk >= 0)
			map_chunk(space, space->need_chunk);
		space->need_chunk = -1;
		return true;
	}
	if (result == NXM_NEED_EPOCH)
	{
		nxm_epoch_poll(space);
		return true;
	}
	if (result != NXM_NEED_MEMORY)
		return false;
	space->want = NXM_WANT_NOTHING;
	switch (want)
	{
		case NXM_WANT_CHUNK:
			/* There may be a new one that this view does not know yet. */
			for (uint64_t i = 0; i < nchunks; i++)
				if (space->base[i] == NULL &&
					shared->chunks[i].node == (uint32_t) space->need_node)
				{
					map_chunk(space, (int) i);
					return true;
				}
			return add_chunk(space, nchunks);
		case NXM_WANT_LIMIT:
			/* Pages kept on another node's free stack can go. */
			nxm_trim(space);
			return nxm_load(&shared->account[0].pages) < nxm_load(&shared->account[0].page_limit);
		case NXM_WANT_SPACE:
		case NXM_WANT_NOTHING:
			break;
	}
	return false;
}

uint64_t
env_memory(Env *env)
{
	struct stat st;

	if (fstat(env->chunk_fd, &st) != 0)
		die("fstat");
	return (uint64_t) st.st_blocks * 512;
}

uint64_t
env_descriptor_pages(Env *env)
{
	uint64_t	n = 0;

	for (int i = 0; i < NXM_MAX_CHUNKS; i++)
		if (nxm_load(&env->shared->chunks[i].published) != 0)
			n += env->shared->chunks[i].first_page;
	return n;
}

uint64_t
env_used_pages(Env *env)
{
	uint64_t	n = 0;

	for (uint64_t i = 0; i < env->shared->nnodes; i++)
		n += nxm_load(&env->shared->nodes[i].used_pages);
	return n;
}

uint64_t
env_hash(const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t	h = len * UINT64_C(0x9e3779b97f4a7c15);

	for (; len >= 8; len -= 8, p += 8)
	{
		uint64_t	word;

		memcpy(&word, p, 8);
		h = env_mix(h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	}
	for (; len > 0; len--, p++)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return env_mix(h);
}
