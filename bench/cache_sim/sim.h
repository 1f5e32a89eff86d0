/*
 * sim.h
 *	  The eviction simulator: traces, and policies behind one table of functions.
 *
 * A trace is a sequence of requests for keys, numbered 0 to nkeys - 1 in the
 * order of their first request, so that a policy keeps what it knows of a key in
 * an array.  A key has one size: one that is requested with another size is
 * another key, as an object that was changed is.
 *
 * A policy is asked request by request, answers whether it was a hit, and after
 * a miss has the key in the cache, or has decided not to.  It counts bytes and
 * never holds more than its capacity; what is larger than the capacity is never
 * stored (the program does not ask for it).  With equal sizes of 1 the capacity
 * is one in entries.  What a policy remembers of keys that it does not hold is
 * not counted, except in the engine's own.
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Spreads numbers (splitmix64). */
static inline uint64_t
mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

/* realloc() that ends the program where memory is short. */
static inline void *
grow(void *p, size_t n, size_t size)
{
	p = realloc(p, n * size);
	if (p == NULL)
	{
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return p;
}

typedef struct Trace
{
	char		name[64];
	uint64_t	nrequests;
	uint32_t	nkeys;
	uint32_t   *keys;			/* of each request */
	uint32_t   *sizes;			/* of each key, in bytes, at least 1 */
	uint64_t   *ids;			/* of each key: its number in the file, or a hash */
	uint64_t	bytes;			/* of all keys */
} Trace;

typedef struct Policy
{
	const char *name;
	const char *what;
	/* options: "a=1,b=2", see policy_option() */
	void	   *(*create) (const Trace *trace, uint64_t capacity, const char *options);
	/* the request number i of the trace; true: a hit */
	bool		(*request) (void *self, uint64_t i);
	/* bytes held now */
	uint64_t	(*used) (void *self);
	void		(*destroy) (void *self);
} Policy;

/* policies.c: all there are, ending in NULL */
extern const Policy *const policies[];
extern const Policy *policy_find(const char *name, size_t len);
extern double policy_option(const char *options, const char *name, double otherwise);

extern const Policy lru_policy;
extern const Policy slru_policy;
extern const Policy sieve_policy;
extern const Policy arc_policy;
extern const Policy lirs_policy;
extern const Policy tinylfu_policy;
extern const Policy s3fifo_policy;
extern const Policy belady_policy;
extern const Policy segments_policy;

#ifdef WITH_ENGINE
extern const Policy engine_policy;
#endif

/*
 * trace.c.  Reads a file, or makes what a "zipf:..." and so on describes;
 * equal: all sizes are 1.  NULL after a message where that fails.
 */
extern Trace *trace_open(const char *what, bool equal);
extern Trace *trace_of_keys(const char *name, const uint32_t *keys, uint64_t n);
extern Trace *trace_of_sizes(const char *name, const uint32_t *keys, uint64_t n,
							 const uint32_t *sizes);
extern void trace_free(Trace *trace);

/* util.c */
extern void *allocate(size_t n, size_t size);	/* zeroed; ends the program */

/* A doubly linked list through an array of links by key; head is the newest. */
#define NONE UINT32_MAX

typedef struct Link
{
	uint32_t	newer;
	uint32_t	older;
} Link;

typedef struct List
{
	uint32_t	newest;
	uint32_t	oldest;
	uint64_t	bytes;
} List;

static inline void
list_init(List *list)
{
	*list = (List) {NONE, NONE, 0};
}

static inline void
list_push(List *list, Link *links, uint32_t key, uint32_t size)
{
	links[key] = (Link) {NONE, list->newest};
	if (list->newest != NONE)
		links[list->newest].newer = key;
	else
		list->oldest = key;
	list->newest = key;
	list->bytes += size;
}

static inline void
list_remove(List *list, Link *links, uint32_t key, uint32_t size)
{
	Link		link = links[key];

	if (link.newer != NONE)
		links[link.newer].older = link.older;
	else
		list->newest = link.older;
	if (link.older != NONE)
		links[link.older].newer = link.newer;
	else
		list->oldest = link.newer;
	list->bytes -= size;
}

#endif							/* SIM_H */
