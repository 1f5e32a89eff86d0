/*
 * belady.c
 *	  Belady's MIN, which knows the future: evicts what is requested again last.
 *
 * The key just requested may be the one that goes.  With equal sizes nothing is
 * better.  With sizes the optimum is NP-hard to find, and this is the usual
 * approximation: the furthest next request goes first, whatever its size, and
 * size-aware policies can get more hits than it.
 */
#include <stdlib.h>

#include "sim.h"

#define NEVER UINT64_MAX

typedef struct Entry
{
	uint64_t	next;			/* request */
	uint32_t	key;
} Entry;

typedef struct Belady
{
	const Trace *trace;
	uint64_t	capacity;
	uint64_t	bytes;
	uint64_t   *next;			/* of each request: that of the same key */
	uint64_t   *current;		/* of each key in the cache: its next; else 0 */
	Entry	   *heap;			/* the furthest on top; may have outdated ones */
	uint64_t	nheap;
} Belady;

static void *
belady_create(const Trace *trace, uint64_t capacity, const char *options)
{
	Belady	   *b = allocate(1, sizeof(Belady));
	uint64_t   *seen = allocate(trace->nkeys, sizeof(uint64_t));

	(void) options;
	b->trace = trace;
	b->capacity = capacity;
	b->next = allocate(trace->nrequests, sizeof(uint64_t));
	b->current = allocate(trace->nkeys, sizeof(uint64_t));
	b->heap = allocate(trace->nrequests + 1, sizeof(Entry));
	for (uint32_t k = 0; k < trace->nkeys; k++)
		seen[k] = NEVER;
	for (uint64_t i = trace->nrequests; i-- > 0;)
	{
		b->next[i] = seen[trace->keys[i]];
		seen[trace->keys[i]] = i;
	}
	free(seen);
	return b;
}

static void
push(Belady *b, Entry entry)
{
	uint64_t	at = b->nheap++;

	while (at > 0 && b->heap[(at - 1) / 2].next < entry.next)
	{
		b->heap[at] = b->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	b->heap[at] = entry;
}

static Entry
pop(Belady *b)
{
	Entry		top = b->heap[0];
	Entry		last = b->heap[--b->nheap];
	uint64_t	at = 0;

	for (;;)
	{
		uint64_t	child = 2 * at + 1;

		if (child + 1 < b->nheap && b->heap[child + 1].next > b->heap[child].next)
			child++;
		if (child >= b->nheap || b->heap[child].next <= last.next)
			break;
		b->heap[at] = b->heap[child];
		at = child;
	}
	b->heap[at] = last;
	return top;
}

static bool
belady_request(void *self, uint64_t i)
{
	Belady	   *b = self;
	uint32_t	key = b->trace->keys[i];
	bool		hit = b->current[key] != 0;

	b->current[key] = b->next[i];
	if (!hit)
		b->bytes += b->trace->sizes[key];
	push(b, (Entry) {b->next[i], key});
	while (b->bytes > b->capacity)
	{
		Entry		victim = pop(b);

		if (b->current[victim.key] == victim.next)
		{
			b->current[victim.key] = 0;
			b->bytes -= b->trace->sizes[victim.key];
		}
	}
	return hit;
}

static uint64_t
belady_used(void *self)
{
	return ((Belady *) self)->bytes;
}

static void
belady_destroy(void *self)
{
	Belady	   *b = self;

	free(b->next);
	free(b->current);
	free(b->heap);
	free(b);
}

const Policy belady_policy = {
	"belady", "the future known", belady_create, belady_request, belady_used, belady_destroy
};
