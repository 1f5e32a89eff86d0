/*
 * lru.c
 *	  LRU, and segmented LRU.
 *
 * SLRU: a miss enters the probationary list, a hit there the protected one, which
 * has "protected" (0.8) of the bytes and gives its oldest back to the
 * probationary list (Karedla and others, IEEE Computer 1994).
 */
#include <stdlib.h>

#include "sim.h"

typedef struct Lru
{
	const Trace *trace;
	uint64_t	capacity;
	uint64_t	protected_capacity;
	List		lists[2];		/* 0: the only one, or probationary */
	Link	   *links;
	uint8_t    *where;			/* of each key: list + 1 */
} Lru;

static Lru *
create(const Trace *trace, uint64_t capacity, double protected_share)
{
	Lru		   *lru = allocate(1, sizeof(Lru));

	lru->trace = trace;
	lru->capacity = capacity;
	lru->protected_capacity = (uint64_t) ((double) capacity * protected_share);
	list_init(&lru->lists[0]);
	list_init(&lru->lists[1]);
	lru->links = allocate(trace->nkeys, sizeof(Link));
	lru->where = allocate(trace->nkeys, 1);
	return lru;
}

static void *
lru_create(const Trace *trace, uint64_t capacity, const char *options)
{
	(void) options;
	return create(trace, capacity, 0);
}

static void *
slru_create(const Trace *trace, uint64_t capacity, const char *options)
{
	return create(trace, capacity, policy_option(options, "protected", 0.8));
}

static void
move(Lru *lru, uint32_t key, int list)
{
	uint32_t	size = lru->trace->sizes[key];

	if (lru->where[key] != 0)
		list_remove(&lru->lists[lru->where[key] - 1], lru->links, key, size);
	lru->where[key] = (uint8_t) (list + 1);
	if (list >= 0)
		list_push(&lru->lists[list], lru->links, key, size);
}

static bool
lru_request(void *self, uint64_t i)
{
	Lru		   *lru = self;
	uint32_t	key = lru->trace->keys[i];
	bool		hit = lru->where[key] != 0;

	move(lru, key, hit && lru->protected_capacity > 0 ? 1 : 0);
	while (lru->lists[1].bytes > lru->protected_capacity)
		move(lru, lru->lists[1].oldest, 0);
	while (lru->lists[0].bytes + lru->lists[1].bytes > lru->capacity)
		move(lru, lru->lists[0].oldest != NONE ? lru->lists[0].oldest : lru->lists[1].oldest, -1);
	return hit;
}

static uint64_t
lru_used(void *self)
{
	Lru		   *lru = self;

	return lru->lists[0].bytes + lru->lists[1].bytes;
}

static void
lru_destroy(void *self)
{
	Lru		   *lru = self;

	free(lru->links);
	free(lru->where);
	free(lru);
}

const Policy lru_policy = {
	"lru", "least recently used", lru_create, lru_request, lru_used, lru_destroy
};
const Policy slru_policy = {
	"slru", "segmented LRU, 80 % protected", slru_create, lru_request, lru_used, lru_destroy
};
