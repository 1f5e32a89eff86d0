/*
 * engine.c
 *	  The cache of src/core as a policy: the code that the server runs, in a space of
 *	  its own, in one process.
 *
 * Capacities of the others are those of what they hold; the engine's limit is on
 * all of its memory.  So for entries of equal size a limit is looked for first at
 * which it holds as many of them as the capacity says, and lowered where it later
 * holds more.  Their size is such that the capacity is "segments" (250) segments,
 * whatever the size of these is: with fewer it is like a smaller cache of the server.
 *
 * Entries of other sizes have these, key and value together, and the limit is the
 * capacity: what the engine needs beside them is paid from it, other than with the
 * other policies.  How many segments there are then depends on their size, which the
 * Makefile has: SEGMENT.
 *
 * Housekeeping is done every "tick" (64) requests.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache.h"
#include "sim.h"
#include "stress_env.h"

#define KEY_LEN		8
/* an item's header, and what a segment begins with */
#define ITEM_HEADER 4
#define SEGMENT_HEAD 8
#define NO_LIMIT	(UINT64_C(1) << 40)
#define CHUNK_PAGES 4096
/* Keys that the search for a limit uses: none of a trace. */
#define FRESH_KEYS	(UINT64_C(1) << 40)

typedef struct Engine
{
	const Trace *trace;
	uint64_t	capacity;
	bool		equal;
	uint32_t	value_len;		/* of equal ones */
	uint64_t	every;
	uint64_t	max_bytes;
	Env		   *env;
	NxmSpace	space;
	NxmCacheView view;
	char	   *value;
} Engine;

static uint64_t
hash(const char *key, size_t len)
{
	return env_hash(key, len);
}

static int64_t
now(void *env)
{
	(void) env;
	return 1;
}

static void
must(NxmResult result)
{
	if (result == NXM_OK || result == NXM_EXISTS || result == NXM_ABSENT)
		return;
	fprintf(stderr, "the engine says %d\n", (int) result);
	exit(1);
}

static NxmKey
key_of(const uint64_t *number)
{
	return (NxmKey) {(const char *) number, KEY_LEN, env_hash(number, KEY_LEN)};
}

/* The cache is in memory that is not the space's, which is as good here. */
static NxmCache *
cache_of(Engine *e)
{
	return e->env->test;
}

static uint64_t
entries(Engine *e)
{
	NxmCacheStats stats;

	return nxm_cache_stats(&e->view, cache_of(e), 0, &stats) ? stats.entries : 0;
}

static void
tick(Engine *e)
{
	NxmResult	result;

	do
	{
		ENV_DO(&e->space, result, nxm_cache_tick(&e->view, cache_of(e)));
		must(result);
	} while (result != NXM_ABSENT);
}

static void
set(Engine *e, uint64_t number, uint32_t len)
{
	NxmKey		key = key_of(&number);
	NxmValue	value = {e->value, len, NXM_BYTEA};
	NxmResult	result;

	ENV_DO(&e->space, result, nxm_cache_set(&e->view, cache_of(e), &key, &value, 0));
	must(result);
}

static void
open_cache(Engine *e, uint64_t max_bytes)
{
	NxmResult	result;

	e->max_bytes = max_bytes;
	e->env = env_create(1, 1, NO_LIMIT, sizeof(NxmCache), CHUNK_PAGES, NXM_MAX_CHUNK_PAGES);
	nxm_store(&e->env->shared->account[NXM_CACHE_ACCOUNT].page_limit, NO_LIMIT);
	env_open(e->env, &e->space, 0, 0);
	e->view = (NxmCacheView) {.space = &e->space,.hash = hash,.now = now,.home = 0};
	ENV_DO(&e->space, result, nxm_cache_init(&e->view, cache_of(e), 1, max_bytes));
	must(result);
}

static void
close_cache(Engine *e)
{
	Env		   *env = e->env;

	nxm_proc_detach(&e->space);
	for (int c = 0; c < NXM_MAX_CHUNKS; c++)
		if (env->chunks[c] != NULL)
			munmap(env->chunks[c], env->chunk_bytes[c]);
	close(env->world_fd);
	close(env->chunk_fd);
	munmap(env->world, env->world->size);
	free(env->lock);
	free(env);
}

/* Entries that a cache with this limit holds at most, of fresh keys. */
static uint64_t
held_with(Engine *e, uint64_t max_bytes)
{
	uint64_t	most = 0;

	open_cache(e, max_bytes);
	for (uint64_t i = 0; i < 4 * e->capacity; i++)
	{
		set(e, FRESH_KEYS + i, e->value_len);
		if (i % e->every == 0)
			tick(e);
		if (i >= e->capacity / 2 && i % 16 == 0 && entries(e) > most)
			most = entries(e);
	}
	close_cache(e);
	return most;
}

static void *
engine_create(const Trace *trace, uint64_t capacity, const char *options)
{
	Engine	   *e = allocate(1, sizeof(Engine));
	uint64_t	max_bytes = capacity;

	e->trace = trace;
	e->capacity = capacity;
	e->equal = trace->bytes == trace->nkeys;
	e->every = (uint64_t) policy_option(options, "tick", 64);
	e->value = allocate(NXM_MAX_VALUE, 1);
	if (e->equal)
	{
		uint64_t	in_segment = (capacity + (uint64_t) policy_option(options, "segments", 250) - 1) /
			(uint64_t) policy_option(options, "segments", 250);
		uint64_t	item = (NXM_CACHE_SEGMENT - SEGMENT_HEAD) / in_segment / 8 * 8;
		uint64_t	low = 0;
		uint64_t	high = 4 * capacity * (item + 64) + (1 << 20);

		if (item < KEY_LEN + ITEM_HEADER)
			item = KEY_LEN + ITEM_HEADER;
		e->value_len = (uint32_t) (item - KEY_LEN - ITEM_HEADER);
		/* low: holds no more than capacity */
		while (high - low > NXM_CACHE_SEGMENT / 2)
		{
			uint64_t	middle = low + (high - low) / 2;

			if (held_with(e, middle) <= capacity)
				low = middle;
			else
				high = middle;
		}
		max_bytes = low;
	}
	open_cache(e, max_bytes);
	return e;
}

static bool
engine_request(void *self, uint64_t i)
{
	Engine	   *e = self;
	uint64_t	number = e->trace->keys[i];
	uint32_t	size = e->trace->sizes[number];
	NxmKey		key = key_of(&number);
	NxmBuffer	buffer = {e->value, NXM_MAX_VALUE, 0, NXM_BYTEA};
	NxmResult	result;

	if (i % e->every == 0)
		tick(e);
	ENV_DO(&e->space, result, nxm_cache_get(&e->view, cache_of(e), &key, &buffer, NULL));
	must(result);
	if (result == NXM_OK)
		return true;
	if (e->equal)
		size = e->value_len;
	else
		size = size <= KEY_LEN ? 0 : size - KEY_LEN > NXM_MAX_VALUE ? NXM_MAX_VALUE : size - KEY_LEN;
	set(e, number, size);
	while (e->equal && entries(e) > e->capacity)
	{
		e->max_bytes -= NXM_CACHE_SEGMENT;
		nxm_store(&cache_of(e)->max_bytes, e->max_bytes);
		tick(e);
	}
	return false;
}

static uint64_t
engine_used(void *self)
{
	Engine	   *e = self;

	/* of other sizes the limit is on more than the entries, and kept by the engine */
	return e->equal ? entries(e) : 0;
}

static void
engine_destroy(void *self)
{
	Engine	   *e = self;

	close_cache(e);
	free(e->value);
	free(e);
}

const Policy engine_policy = {
	"engine", "the cache of src/core", engine_create, engine_request, engine_used, engine_destroy
};
