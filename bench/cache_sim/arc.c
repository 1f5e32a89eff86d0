/*
 * arc.c
 *	  ARC (FAST 2003), by bytes.
 *
 * T1 and T2 hold what was requested once and more often of late, B1 and B2
 * remember what was evicted from them.  With sizes: target and lists are in
 * bytes, a ghost hit moves the target by the size requested times the ratio of
 * the ghost lists, and each "if full" of the paper becomes a loop.
 */
#include <stdlib.h>

#include "sim.h"

enum
{
	T1, T2, B1, B2, OUT
};

typedef struct Arc
{
	const Trace *trace;
	double		capacity;
	double		target;			/* of T1 */
	List		lists[4];
	Link	   *links;
	uint8_t    *where;
} Arc;

static void *
arc_create(const Trace *trace, uint64_t capacity, const char *options)
{
	Arc		   *arc = allocate(1, sizeof(Arc));

	(void) options;
	arc->trace = trace;
	arc->capacity = (double) capacity;
	for (int l = 0; l < 4; l++)
		list_init(&arc->lists[l]);
	arc->links = allocate(trace->nkeys, sizeof(Link));
	arc->where = allocate(trace->nkeys, 1);
	for (uint32_t k = 0; k < trace->nkeys; k++)
		arc->where[k] = OUT;
	return arc;
}

static double
bytes(const Arc *arc, int list)
{
	return (double) arc->lists[list].bytes;
}

static void
move(Arc *arc, uint32_t key, int to)
{
	uint32_t	size = arc->trace->sizes[key];

	if (arc->where[key] != OUT)
		list_remove(&arc->lists[arc->where[key]], arc->links, key, size);
	arc->where[key] = (uint8_t) to;
	if (to != OUT)
		list_push(&arc->lists[to], arc->links, key, size);
}

/* Makes room for size bytes in T1 and T2 together. */
static void
replace(Arc *arc, uint32_t size, bool in_b2)
{
	while (bytes(arc, T1) + bytes(arc, T2) + size > arc->capacity)
	{
		if (arc->lists[T1].oldest != NONE &&
			(bytes(arc, T1) > arc->target ||
			 (in_b2 && bytes(arc, T1) == arc->target) || arc->lists[T2].oldest == NONE))
			move(arc, arc->lists[T1].oldest, B1);
		else
			move(arc, arc->lists[T2].oldest, B2);
	}
}

static double
at_least_1(double a, double b)
{
	return a > b ? a / b : 1;
}

static bool
arc_request(void *self, uint64_t i)
{
	Arc		   *arc = self;
	uint32_t	key = arc->trace->keys[i];
	uint32_t	size = arc->trace->sizes[key];

	switch (arc->where[key])
	{
		case T1:
		case T2:
			move(arc, key, T2);
			return true;
		case B1:
			arc->target += size * at_least_1(bytes(arc, B2), bytes(arc, B1));
			if (arc->target > arc->capacity)
				arc->target = arc->capacity;
			replace(arc, size, false);
			move(arc, key, T2);
			return false;
		case B2:
			arc->target -= size * at_least_1(bytes(arc, B1), bytes(arc, B2));
			if (arc->target < 0)
				arc->target = 0;
			replace(arc, size, true);
			move(arc, key, T2);
			return false;
	}
	while (bytes(arc, T1) + bytes(arc, B1) + size > arc->capacity)
		move(arc, arc->lists[B1].oldest != NONE ? arc->lists[B1].oldest : arc->lists[T1].oldest, OUT);
	while (bytes(arc, T1) + bytes(arc, B1) + bytes(arc, T2) + bytes(arc, B2) + size > 2 * arc->capacity &&
		   arc->lists[B2].oldest != NONE)
		move(arc, arc->lists[B2].oldest, OUT);
	replace(arc, size, false);
	move(arc, key, T1);
	return false;
}

static uint64_t
arc_used(void *self)
{
	Arc		   *arc = self;

	return arc->lists[T1].bytes + arc->lists[T2].bytes;
}

static void
arc_destroy(void *self)
{
	Arc		   *arc = self;

	free(arc->links);
	free(arc->where);
	free(arc);
}

const Policy arc_policy = {
	"arc", "ARC", arc_create, arc_request, arc_used, arc_destroy
};
