/*
 * tinylfu.c
 *	  W-TinyLFU (ACM ToS 2017), with the window adapted by hill climbing
 *	  (Middleware 2018).
 *
 * A miss enters the window, an LRU of "window" (0.01) of the bytes.  What leaves
 * it is admitted to the main space, an SLRU, if it is requested more often than
 * what would have to leave that, by a count-min sketch of four rows of 4-bit
 * counters that are halved every 10 times as many requests as entries fit.
 *
 * "climb" (1): after each such sample the window grows or shrinks, on in the
 * same direction while the hit ratio rises, back where it fell, by steps of 6.25 %
 * that decay by 2 % each, and begin anew where the ratio moved by 5 points.
 *
 * With sizes the candidate has to beat all that would have to leave for it
 * together.  The number of entries is that of the trace's mean size.
 */
#include <stdlib.h>

#include "sim.h"

enum
{
	OUT, WINDOW, PROBATION, PROTECTED
};

typedef struct TinyLfu
{
	const Trace *trace;
	double		capacity;
	double		window_capacity;
	List		lists[4];
	Link	   *links;
	uint8_t    *where;

	uint8_t    *counters;		/* 4 rows */
	uint64_t	mask;
	uint64_t	sample;
	uint64_t	counted;

	bool		climb;
	double		step;
	double		last_ratio;
	uint64_t	hits;
	uint64_t	requests;
} TinyLfu;

static void *
tinylfu_create(const Trace *trace, uint64_t capacity, const char *options)
{
	TinyLfu    *t = allocate(1, sizeof(TinyLfu));
	uint64_t	entries = (uint64_t) ((double) capacity * trace->nkeys / (double) trace->bytes) + 1;

	t->trace = trace;
	t->capacity = (double) capacity;
	t->window_capacity = policy_option(options, "window", 0.01) * (double) capacity;
	for (int l = 0; l < 4; l++)
		list_init(&t->lists[l]);
	t->links = allocate(trace->nkeys, sizeof(Link));
	t->where = allocate(trace->nkeys, 1);
	for (t->mask = 15; t->mask < 4 * entries;)
		t->mask = 2 * t->mask + 1;
	t->counters = allocate(4, t->mask + 1);
	t->sample = 10 * entries;
	t->climb = policy_option(options, "climb", 1) != 0;
	t->step = 0.0625 * (double) capacity;
	return t;
}

static void
move(TinyLfu *t, uint32_t key, int to)
{
	uint32_t	size = t->trace->sizes[key];

	if (t->where[key] != OUT)
		list_remove(&t->lists[t->where[key]], t->links, key, size);
	t->where[key] = (uint8_t) to;
	if (to != OUT)
		list_push(&t->lists[to], t->links, key, size);
}

static uint8_t *
counter(TinyLfu *t, uint32_t key, int row)
{
	uint64_t	x = (key + 1 + ((uint64_t) row << 32)) * UINT64_C(0x9E3779B97F4A7C15);

	x = (x ^ (x >> 32)) * UINT64_C(0xD6E8FEB86659FD93);
	return &t->counters[(uint64_t) row * (t->mask + 1) + ((x ^ (x >> 32)) & t->mask)];
}

static int
frequency(TinyLfu *t, uint32_t key)
{
	int			least = 15;

	for (int row = 0; row < 4; row++)
		if (*counter(t, key, row) < least)
			least = *counter(t, key, row);
	return least;
}

static void
count(TinyLfu *t, uint32_t key)
{
	bool		added = false;

	for (int row = 0; row < 4; row++)
		if (*counter(t, key, row) < 15)
		{
			(*counter(t, key, row))++;
			added = true;
		}
	if (!added || ++t->counted < t->sample)
		return;
	for (uint64_t i = 0; i < 4 * (t->mask + 1); i++)
		t->counters[i] /= 2;
	t->counted /= 2;
}

/* What leaves the window: to the main space, or out. */
static void
admit(TinyLfu *t, uint32_t candidate)
{
	double		room = t->capacity - t->window_capacity;
	double		excess = (double) (t->lists[PROBATION].bytes + t->lists[PROTECTED].bytes +
								   t->trace->sizes[candidate]) - room;
	uint32_t	victim = t->lists[PROBATION].oldest;
	bool		in_probation = true;
	double		freed = 0;
	int			sum = 0;

	while (freed < excess)
	{
		if (victim == NONE && in_probation)
		{
			victim = t->lists[PROTECTED].oldest;
			in_probation = false;
		}
		if (victim == NONE)
			break;
		freed += t->trace->sizes[victim];
		sum += frequency(t, victim);
		victim = t->links[victim].newer;
	}
	if (freed < excess || (freed > 0 && frequency(t, candidate) <= sum))
	{
		move(t, candidate, OUT);
		return;
	}
	for (; freed > 0; freed -= t->trace->sizes[victim])
	{
		victim = t->lists[PROBATION].oldest != NONE ? t->lists[PROBATION].oldest : t->lists[PROTECTED].oldest;
		move(t, victim, OUT);
	}
	move(t, candidate, PROBATION);
}

static void
adapt(TinyLfu *t)
{
	double		ratio = (double) t->hits / (double) t->requests;
	double		change = ratio - t->last_ratio;

	if (change < 0)
		t->step = -t->step;
	t->window_capacity += t->step;
	if (t->window_capacity < 0.01 * t->capacity)
		t->window_capacity = 0.01 * t->capacity;
	if (t->window_capacity > 0.8 * t->capacity)
		t->window_capacity = 0.8 * t->capacity;
	if (change >= 0.05 || change <= -0.05)
		t->step = t->step < 0 ? -0.0625 * t->capacity : 0.0625 * t->capacity;
	else
		t->step *= 0.98;
	t->last_ratio = ratio;
	t->hits = 0;
	t->requests = 0;
	/* a larger window takes from the main space what would go next */
	while ((double) (t->lists[PROBATION].bytes + t->lists[PROTECTED].bytes) > t->capacity - t->window_capacity)
		move(t, t->lists[PROBATION].oldest != NONE ? t->lists[PROBATION].oldest : t->lists[PROTECTED].oldest, WINDOW);
}

static bool
tinylfu_request(void *self, uint64_t i)
{
	TinyLfu    *t = self;
	uint32_t	key = t->trace->keys[i];
	double		protected_capacity = 0.8 * (t->capacity - t->window_capacity);
	bool		hit = t->where[key] != OUT;

	count(t, key);
	switch (t->where[key])
	{
		case OUT:
		case WINDOW:
			move(t, key, WINDOW);
			break;
		default:
			move(t, key, PROTECTED);
	}
	while ((double) t->lists[PROTECTED].bytes > protected_capacity && t->lists[PROTECTED].oldest != NONE)
		move(t, t->lists[PROTECTED].oldest, PROBATION);
	while ((double) t->lists[WINDOW].bytes > t->window_capacity && t->lists[WINDOW].oldest != NONE)
		admit(t, t->lists[WINDOW].oldest);
	t->hits += hit;
	if (++t->requests >= t->sample && t->climb)
		adapt(t);
	return hit;
}

static uint64_t
tinylfu_used(void *self)
{
	TinyLfu    *t = self;

	return t->lists[WINDOW].bytes + t->lists[PROBATION].bytes + t->lists[PROTECTED].bytes;
}

static void
tinylfu_destroy(void *self)
{
	TinyLfu    *t = self;

	free(t->links);
	free(t->where);
	free(t->counters);
	free(t);
}

const Policy tinylfu_policy = {
	"tinylfu", "W-TinyLFU, adaptive", tinylfu_create, tinylfu_request, tinylfu_used, tinylfu_destroy
};
