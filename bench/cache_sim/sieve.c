/*
 * sieve.c
 *	  SIEVE (NSDI 2024): a FIFO with a bit an entry that a hit sets; a hand walks
 *	  from old to new, clears bits, and evicts where there is none.
 */
#include <stdlib.h>

#include "sim.h"

typedef struct Sieve
{
	const Trace *trace;
	uint64_t	capacity;
	List		list;
	Link	   *links;
	uint8_t    *state;			/* of each key: 0 out, 1 in, 2 in and visited */
	uint32_t	hand;			/* NONE: at the oldest */
} Sieve;

static void *
sieve_create(const Trace *trace, uint64_t capacity, const char *options)
{
	Sieve	   *sieve = allocate(1, sizeof(Sieve));

	(void) options;
	sieve->trace = trace;
	sieve->capacity = capacity;
	list_init(&sieve->list);
	sieve->links = allocate(trace->nkeys, sizeof(Link));
	sieve->state = allocate(trace->nkeys, 1);
	sieve->hand = NONE;
	return sieve;
}

static void
evict(Sieve *sieve)
{
	uint32_t	key = sieve->hand;

	for (;;)
	{
		if (key == NONE)
			key = sieve->list.oldest;
		if (sieve->state[key] == 1)
			break;
		sieve->state[key] = 1;
		key = sieve->links[key].newer;
	}
	sieve->hand = sieve->links[key].newer;
	sieve->state[key] = 0;
	list_remove(&sieve->list, sieve->links, key, sieve->trace->sizes[key]);
}

static bool
sieve_request(void *self, uint64_t i)
{
	Sieve	   *sieve = self;
	uint32_t	key = sieve->trace->keys[i];
	uint32_t	size = sieve->trace->sizes[key];

	if (sieve->state[key] != 0)
	{
		sieve->state[key] = 2;
		return true;
	}
	while (sieve->list.bytes + size > sieve->capacity)
		evict(sieve);
	list_push(&sieve->list, sieve->links, key, size);
	sieve->state[key] = 1;
	return false;
}

static uint64_t
sieve_used(void *self)
{
	return ((Sieve *) self)->list.bytes;
}

static void
sieve_destroy(void *self)
{
	Sieve	   *sieve = self;

	free(sieve->links);
	free(sieve->state);
	free(sieve);
}

const Policy sieve_policy = {
	"sieve", "SIEVE", sieve_create, sieve_request, sieve_used, sieve_destroy
};
