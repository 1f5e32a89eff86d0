/*
 * s3fifo.c
 *	  S3-FIFO (SOSP 2023), item by item.
 *
 * A miss enters the small FIFO, which has "small" (0.1) of the bytes, or, where
 * the ghost remembers the key, the main one.  From small, what was hit "promote"
 * (2) times goes to main, else it leaves its key in the ghost, a FIFO of as many
 * bytes as main ("ghost" 0.9 of the capacity).  From main, what was hit gets
 * another round with one hit less.  Hits are counted up to "cap" (3).
 */
#include <stdlib.h>

#include "sim.h"

enum
{
	OUT, SMALL, MAIN, GHOST
};

typedef struct S3Fifo
{
	const Trace *trace;
	uint64_t	capacity;
	uint64_t	small;
	uint64_t	ghost;
	uint8_t		promote;
	uint8_t		cap;
	List		lists[4];
	Link	   *links;
	uint8_t    *where;
	uint8_t    *hits;
} S3Fifo;

static void *
s3fifo_create(const Trace *trace, uint64_t capacity, const char *options)
{
	S3Fifo	   *s3 = allocate(1, sizeof(S3Fifo));

	s3->trace = trace;
	s3->capacity = capacity;
	s3->small = (uint64_t) (policy_option(options, "small", 0.1) * (double) capacity);
	s3->ghost = (uint64_t) (policy_option(options, "ghost", 0.9) * (double) capacity);
	s3->promote = (uint8_t) policy_option(options, "promote", 2);
	s3->cap = (uint8_t) policy_option(options, "cap", 3);
	for (int l = 0; l < 4; l++)
		list_init(&s3->lists[l]);
	s3->links = allocate(trace->nkeys, sizeof(Link));
	s3->where = allocate(trace->nkeys, 1);
	s3->hits = allocate(trace->nkeys, 1);
	return s3;
}

static void
move(S3Fifo *s3, uint32_t key, int to)
{
	uint32_t	size = s3->trace->sizes[key];

	if (s3->where[key] != OUT)
		list_remove(&s3->lists[s3->where[key]], s3->links, key, size);
	s3->where[key] = (uint8_t) to;
	if (to != OUT)
		list_push(&s3->lists[to], s3->links, key, size);
}

static void
evict_small(S3Fifo *s3)
{
	uint32_t	key = s3->lists[SMALL].oldest;

	if (s3->hits[key] >= s3->promote)
	{
		s3->hits[key] = 0;
		move(s3, key, MAIN);
		return;
	}
	move(s3, key, GHOST);
	while (s3->lists[GHOST].bytes > s3->ghost)
		move(s3, s3->lists[GHOST].oldest, OUT);
}

static void
evict_main(S3Fifo *s3)
{
	uint32_t	key = s3->lists[MAIN].oldest;

	if (s3->hits[key] > 0)
	{
		s3->hits[key]--;
		move(s3, key, MAIN);
	}
	else
		move(s3, key, OUT);
}

static bool
s3fifo_request(void *self, uint64_t i)
{
	S3Fifo	   *s3 = self;
	uint32_t	key = s3->trace->keys[i];
	uint32_t	size = s3->trace->sizes[key];
	bool		remembered = s3->where[key] == GHOST;

	if (s3->where[key] == SMALL || s3->where[key] == MAIN)
	{
		if (s3->hits[key] < s3->cap)
			s3->hits[key]++;
		return true;
	}
	if (remembered)
		move(s3, key, OUT);
	while (s3->lists[SMALL].bytes + s3->lists[MAIN].bytes + size > s3->capacity)
	{
		if (s3->lists[MAIN].oldest == NONE ||
			(s3->lists[SMALL].bytes >= s3->small && s3->lists[SMALL].oldest != NONE))
			evict_small(s3);
		else
			evict_main(s3);
	}
	s3->hits[key] = 0;
	move(s3, key, remembered ? MAIN : SMALL);
	return false;
}

static uint64_t
s3fifo_used(void *self)
{
	S3Fifo	   *s3 = self;

	return s3->lists[SMALL].bytes + s3->lists[MAIN].bytes;
}

static void
s3fifo_destroy(void *self)
{
	S3Fifo	   *s3 = self;

	free(s3->links);
	free(s3->where);
	free(s3->hits);
	free(s3);
}

const Policy s3fifo_policy = {
	"s3fifo", "S3-FIFO by items", s3fifo_create, s3fifo_request, s3fifo_used, s3fifo_destroy
};
