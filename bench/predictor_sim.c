/*
 * predictor_sim.c
 *	  Prefetchers on traces of blocks, before an LRU cache: the predictor of src/core
 *	  beside others.  predictor_sim.sh builds and runs it.
 *
 * A request for a block that is not in the cache is a miss, and the block comes in.  A
 * prefetcher is asked at each miss, and at the first request for a block that it had
 * brought in, which would have been a miss without it; what it asks for comes in at
 * once, as if it had been requested, unless it is there.
 *
 *	hits		of 100 requests
 *	precision	of 100 blocks brought in by prefetching, how many were requested before
 *				they were evicted
 *
 * An id of the trace is relation << 32 | block, so that other numbers are one relation.
 *
 * Prefetchers, with their options:
 *
 *	none
 *	next			the next block
 *	leap			Leap (ATC 2020): the step that more than half of the last differences
 *					have in common, of history=32; up to window=8 blocks
 *	markov			first order (ISCA 1997), of unlimited memory: a successor that came
 *					after the block in confidence=0.8 of at least twice; successors=4
 *	learned			src/core/predictor.c: confidence=0.5, ahead=16, memory=64 (MB)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "predictor.h"
#include "sim.h"

#define MOST_AHEAD 64
#define SUCCESSORS 4

/* Blocks, requested or only prefetched, by number of their first appearance. */
typedef struct Sim
{
	uint32_t	nblocks;
	uint32_t	room;
	uint64_t   *ids;
	uint32_t   *table;			/* open addressing: number + 1 */
	uint64_t	mask;
	Link	   *links;
	uint8_t    *where;
	List		cached;			/* its bytes are blocks */
	uint64_t	capacity;
	uint64_t	requests;
	uint64_t	hits;
	uint64_t	issued;
	uint64_t	used;
} Sim;

enum
{
	OUT, REQUESTED, PREFETCHED
};

typedef struct Prefetcher
{
	const char *name;
	void	   *(*create) (const char *options);
	/* asks for blocks by bring() */
	void		(*request) (void *self, Sim *sim, uint64_t id, bool was_prefetched);
} Prefetcher;

static uint32_t *
slot_of(const Sim *sim, uint64_t id)
{
	uint64_t	at = mix(id) & sim->mask;

	while (sim->table[at] != 0 && sim->ids[sim->table[at] - 1] != id)
		at = (at + 1) & sim->mask;
	return &sim->table[at];
}

static uint32_t
block_of(Sim *sim, uint64_t id)
{
	uint32_t   *slot;

	if (sim->nblocks == sim->room)
	{
		sim->room = sim->room ? 2 * sim->room : 65536;
		sim->ids = grow(sim->ids, sim->room, sizeof(uint64_t));
		sim->links = grow(sim->links, sim->room, sizeof(Link));
		sim->where = grow(sim->where, sim->room, 1);
		free(sim->table);
		sim->mask = 2 * (uint64_t) sim->room - 1;
		sim->table = allocate(sim->mask + 1, sizeof(uint32_t));
		for (uint32_t b = 0; b < sim->nblocks; b++)
			*slot_of(sim, sim->ids[b]) = b + 1;
	}
	slot = slot_of(sim, id);
	if (*slot == 0)
	{
		sim->ids[sim->nblocks] = id;
		sim->where[sim->nblocks] = OUT;
		*slot = ++sim->nblocks;
	}
	return *slot - 1;
}

static void
bring_in(Sim *sim, uint32_t block, uint8_t how)
{
	if (sim->cached.bytes == sim->capacity)
	{
		uint32_t	victim = sim->cached.oldest;

		list_remove(&sim->cached, sim->links, victim, 1);
		sim->where[victim] = OUT;
	}
	list_push(&sim->cached, sim->links, block, 1);
	sim->where[block] = how;
}

/* false: it is there */
static bool
bring(Sim *sim, uint64_t id)
{
	uint32_t	block = block_of(sim, id);

	if (sim->where[block] != OUT)
		return false;
	bring_in(sim, block, PREFETCHED);
	sim->issued++;
	return true;
}

static void
request(Sim *sim, uint64_t id, const Prefetcher *prefetcher, void *self)
{
	uint32_t	block = block_of(sim, id);
	uint8_t		was = sim->where[block];

	sim->requests++;
	if (was == OUT)
		bring_in(sim, block, REQUESTED);
	else
	{
		sim->hits++;
		sim->used += was == PREFETCHED;
		list_remove(&sim->cached, sim->links, block, 1);
		list_push(&sim->cached, sim->links, block, 1);
		sim->where[block] = REQUESTED;
	}
	if (was != REQUESTED)
		prefetcher->request(self, sim, id, was == PREFETCHED);
}

static void *
nothing_create(const char *options)
{
	(void) options;
	return NULL;
}

static void
none_request(void *self, Sim *sim, uint64_t id, bool was_prefetched)
{
	(void) self;
	(void) sim;
	(void) id;
	(void) was_prefetched;
}

static void
next_request(void *self, Sim *sim, uint64_t id, bool was_prefetched)
{
	(void) self;
	(void) was_prefetched;
	(void) bring(sim, id + 1);
}

typedef struct Leap
{
	uint64_t	history;
	uint64_t	most;
	int64_t    *steps;			/* the last ones, newest at n % history */
	uint64_t	n;
	uint64_t	last;			/* id */
	uint64_t	window;
	uint64_t	hits;			/* since blocks were asked for last */
} Leap;

static void *
leap_create(const char *options)
{
	Leap	   *leap = allocate(1, sizeof(Leap));

	leap->history = (uint64_t) policy_option(options, "history", 32);
	leap->most = (uint64_t) policy_option(options, "window", 8);
	leap->steps = allocate(leap->history, sizeof(int64_t));
	return leap;
}

/* The paper's FindTrend, with Boyer and Moore's vote; false: no majority. */
static bool
leap_trend(const Leap *leap, int64_t *trend)
{
	for (uint64_t w = leap->history / 8 > 0 ? leap->history / 8 : 1; w <= leap->history; w *= 2)
	{
		int64_t		candidate = 0;
		uint64_t	votes = 0;
		uint64_t	count = 0;

		for (uint64_t i = 0; i < w; i++)
		{
			int64_t		step = leap->steps[(leap->n - i) % leap->history];

			if (votes == 0)
				candidate = step;
			votes = step == candidate ? votes + 1 : votes - 1;
		}
		for (uint64_t i = 0; i < w; i++)
			count += leap->steps[(leap->n - i) % leap->history] == candidate;
		if (count > w / 2 && candidate != 0)
		{
			*trend = candidate;
			return true;
		}
	}
	return false;
}

static void
leap_request(void *self, Sim *sim, uint64_t id, bool was_prefetched)
{
	Leap	   *leap = self;
	int64_t		trend;
	bool		found;
	uint64_t	window = 1;

	leap->steps[++leap->n % leap->history] = (int64_t) (id - leap->last);
	leap->last = id;
	leap->hits += was_prefetched;
	found = leap_trend(leap, &trend);
	/* the paper's GetPrefetchWindowSize */
	if (leap->hits == 0)
		window = found && leap->steps[leap->n % leap->history] == trend;
	else
		while (window < leap->hits + 1 && window < leap->most)
			window *= 2;
	if (window < leap->window / 2)
		window = leap->window / 2;
	leap->window = window;
	if (window == 0 || !found)
		return;
	leap->hits = 0;
	for (uint64_t i = 1; i <= window; i++)
		(void) bring(sim, id + i * (uint64_t) trend);
}

typedef struct Successors
{
	uint64_t	ids[SUCCESSORS];
	uint32_t	counts[SUCCESSORS];
	uint32_t	total;
} Successors;

typedef struct Markov
{
	double		confidence;
	Successors *of;				/* each block of the simulation */
	uint32_t	room;
	uint32_t	last;			/* block + 1 */
} Markov;

static void *
markov_create(const char *options)
{
	Markov	   *markov = allocate(1, sizeof(Markov));

	markov->confidence = policy_option(options, "confidence", 0.8);
	return markov;
}

static void
markov_request(void *self, Sim *sim, uint64_t id, bool was_prefetched)
{
	Markov	   *markov = self;
	Successors *s;

	(void) was_prefetched;
	if (markov->room < sim->room)
	{
		markov->of = grow(markov->of, sim->room, sizeof(Successors));
		memset(markov->of + markov->room, 0, (sim->room - markov->room) * sizeof(Successors));
		markov->room = sim->room;
	}
	if (markov->last != 0)
	{
		int			at = 0;

		s = &markov->of[markov->last - 1];
		/* that, or an empty one, or the least */
		for (int i = 0; i < SUCCESSORS; i++)
		{
			if (s->counts[i] > 0 && s->ids[i] == id)
			{
				at = i;
				break;
			}
			if (s->counts[i] < s->counts[at])
				at = i;
		}
		if (s->ids[at] != id)
			s->counts[at] = 0;
		s->ids[at] = id;
		s->counts[at]++;
		s->total++;
	}
	markov->last = block_of(sim, id) + 1;
	s = &markov->of[markov->last - 1];
	for (int i = 0; i < SUCCESSORS; i++)
		if (s->total >= 2 && s->counts[i] >= markov->confidence * s->total)
			(void) bring(sim, s->ids[i]);
}

typedef struct Learned
{
	NxmPredictor *predictor;
	NxmPredictorSession session;
	int			ahead;
} Learned;

static void *
learned_create(const char *options)
{
	Learned    *learned = allocate(1, sizeof(Learned));
	size_t		size = nxm_predictor_size((size_t) (policy_option(options, "memory", 64) * 1048576));

	if (size == 0)
	{
		fprintf(stderr, "learned: too little memory\n");
		exit(1);
	}
	learned->predictor = nxm_predictor_init(aligned_alloc(NXM_CACHE_LINE,
														  (size + 63) / 64 * 64), size);
	nxm_predictor_begin(&learned->session);
	learned->session.confidence = (float) policy_option(options, "confidence", NXM_PREDICTOR_CONFIDENCE);
	learned->ahead = (int) policy_option(options, "ahead", 16);
	if (learned->ahead > MOST_AHEAD)
		learned->ahead = MOST_AHEAD;
	return learned;
}

static void
learned_request(void *self, Sim *sim, uint64_t id, bool was_prefetched)
{
	Learned    *learned = self;
	NxmPrediction found[MOST_AHEAD];
	int			n;

	(void) was_prefetched;
	nxm_predictor_record(learned->predictor, &learned->session,
						 (NxmBlock) {1, (uint32_t) (id >> 32) + 1, (uint32_t) id});
	n = nxm_predictor_predict(learned->predictor, &learned->session, learned->ahead, found);
	for (int f = 0; f < n; f++)
		if (!bring(sim, (uint64_t) (found[f].block.relation - 1) << 32 | found[f].block.number))
			nxm_predictor_decline(learned->predictor, &learned->session, &found[f]);
}

static const Prefetcher prefetchers[] = {
	{"none", nothing_create, none_request},
	{"next", nothing_create, next_request},
	{"leap", leap_create, leap_request},
	{"markov", markov_create, markov_request},
	{"learned", learned_create, learned_request},
};

#define NPREFETCHERS (sizeof(prefetchers) / sizeof(prefetchers[0]))

/* One line for each part of the trace. */
static void
run(const Trace *trace, uint64_t capacity, const char *what, uint64_t parts)
{
	const char *colon = strchr(what, ':');
	size_t		len = colon ? (size_t) (colon - what) : strlen(what);
	const Prefetcher *prefetcher = NULL;
	Sim			sim = {.capacity = capacity};
	Sim			before = sim;
	void	   *self;

	for (size_t p = 0; p < NPREFETCHERS; p++)
		if (strlen(prefetchers[p].name) == len && strncmp(prefetchers[p].name, what, len) == 0)
			prefetcher = &prefetchers[p];
	if (prefetcher == NULL)
	{
		fprintf(stderr, "%s: no such prefetcher\n", what);
		exit(2);
	}
	list_init(&sim.cached);
	self = prefetcher->create(colon ? colon + 1 : NULL);
	for (uint64_t part = 0; part < parts; part++)
	{
		for (uint64_t i = part * trace->nrequests / parts; i < (part + 1) * trace->nrequests / parts; i++)
			request(&sim, trace->ids[trace->keys[i]], prefetcher, self);
		printf("%-20.20s %8" PRIu64 " %5" PRIu64 "  %-28s %6.2f", trace->name, capacity, part + 1, what,
			   100.0 * (double) (sim.hits - before.hits) / (double) (sim.requests - before.requests));
		if (sim.issued > before.issued)
			printf(" %9.1f %10" PRIu64 " %10" PRIu64 "\n",
				   100.0 * (double) (sim.used - before.used) / (double) (sim.issued - before.issued),
				   sim.issued - before.issued, sim.used - before.used);
		else
			printf(" %9s %10d %10" PRIu64 "\n", "-", 0, sim.used - before.used);
		before = sim;
	}
	fflush(stdout);
	free(sim.ids);
	free(sim.table);
	free(sim.links);
	free(sim.where);
	/* what the prefetcher has is left to the end of the program */
}

int
main(int argc, char **argv)
{
	const char *what[32];
	size_t		nwhat = 0;
	uint64_t	capacities[16];
	size_t		ncapacities = 0;
	uint64_t	parts = 1;
	int			opt;

	while ((opt = getopt(argc, argv, "c:p:k:")) != -1)
	{
		if (opt == 'c' && ncapacities < 16 && (capacities[ncapacities] = strtoull(optarg, NULL, 10)) > 0)
			ncapacities++;
		else if (opt == 'p' && nwhat < 32)
			what[nwhat++] = optarg;
		else if (opt != 'k' || (parts = strtoull(optarg, NULL, 10)) < 1)
			return 2;
	}
	printf("%-20s %8s %5s  %-28s %6s %9s %10s %10s\n", "trace", "pages", "part", "prefetcher", "hits",
		   "precision", "issued", "used");
	for (int t = optind; t < argc; t++)
	{
		Trace	   *trace = trace_open(argv[t], true);

		if (trace == NULL)
			return 1;
		for (size_t c = 0; c < ncapacities; c++)
			for (size_t p = 0; p < (nwhat > 0 ? nwhat : NPREFETCHERS); p++)
				run(trace, capacities[c], nwhat > 0 ? what[p] : prefetchers[p].name, parts);
		trace_free(trace);
	}
	return 0;
}
