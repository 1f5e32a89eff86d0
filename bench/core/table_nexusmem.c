/*
 * table_nexusmem.c
 *	  The map of src/core, over one shared mapping, each thread with a view of
 *	  its own.
 */
#include <stdio.h>
#include <stdlib.h>

#include "stress_env.h"
#include "tables.h"

typedef struct View
{
	NxmSpace	space;
} __attribute__((aligned(2 * NXM_CACHE_LINE))) View;

static Env *env;
static NxmMap *map;
static View views[MAX_THREADS + 1];

static void
check(NxmResult r)
{
	if (r == NXM_OK || r == NXM_EXISTS || r == NXM_ABSENT)
		return;
	fprintf(stderr, "nexusmem: result %d\n", (int) r);
	exit(1);
}

static void
create(void)
{
	NxmSpace   *space = &views[MAX_THREADS].space;
	NxmResult	r;

	env = env_create(MAX_THREADS + 1, 1, UINT64_C(1) << 20, sizeof(NxmMap), 128,
					 NXM_MAX_CHUNK_PAGES);
	map = env->test;
	env->huge = huge_pages;
	env_open(env, space, MAX_THREADS, 0);
	ENV_DO(space, r, nxm_map_init(space, map));
	check(r);
}

static void
settle(void)
{
	if (huge_pages)
	{
		env_map_all(&views[MAX_THREADS].space);
		env_collapse(&views[MAX_THREADS].space);
	}
}

static void
begin(int thread)
{
	env_open(env, &views[thread].space, thread, 0);
	env_map_all(&views[thread].space);
}

static void
end(int thread)
{
	nxm_proc_detach(&views[thread].space);
}

static bool
get(int thread, const NxmKey *key, NxmBuffer *buffer)
{
	NxmSpace   *space = &views[thread].space;
	NxmResult	r;

	ENV_DO(space, r, nxm_map_get(space, map, key, buffer));
	check(r);
	return r == NXM_OK;
}

static void
put(int thread, const NxmKey *key, const NxmValue *value)
{
	NxmSpace   *space = &views[thread].space;
	NxmResult	r;

	ENV_DO(space, r, nxm_map_put(space, map, key, value));
	check(r);
}

const Table nexusmem_table = {
	"nexusmem", "the map of src/core", create, settle, begin, end, get, put
};
