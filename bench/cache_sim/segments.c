/*
 * segments.c
 *	  S3-FIFO where whole segments are evicted, as by the cache of src/core, and
 *	  three additions to it.  A model, for trying parameters; the cache itself, where
 *	  the reads that an item needs go by its size, too, is replayed by engine.c.
 *
 * The bytes are divided into "segments" (250).  Items are appended to the open
 * segment of a chain, small or main, of their class (of "classes" (1): as of
 * times to live).  The oldest segment of a chain is evicted as a whole: what
 * survives is appended to main anew.  Open segments and two spare ones, which the
 * copies of an eviction may need, are paid from the capacity; an item of more
 * than a quarter of a segment is counted beside it.
 *
 * From small, what was hit "promote" (2) times goes to main with no hits counted,
 * the others' fingerprints into the ghost.  From main, what was hit goes on with a
 * hit less.  Hits are counted up to "cap" (3).
 *
 * "fill" (1): before the first eviction, new items fill main up to its share.
 * S3-FIFO otherwise has main empty when a loop begins, and never fills it.
 *
 * "paid" (1): a ghost hit goes to main only while main is below its share.  If it
 * is not, and the item was away for less time than has passed since the oldest
 * segment of main was full, that one is evicted first.  In a loop that is larger than the cache,
 * main's segments are then looked at once a round, and all their items were hit
 * once: main stays, as LIR blocks do in LIRS.  Time is counted in fingerprints
 * put into the ghost.
 *
 * "adapt" (1): small's share moves by what a little more of small, or of main,
 * would have hit: up by a hit among the ghost's newest, down by a hit in a second
 * ghost of what left main of late.
 *
 *	ghost, 32 to a line of 64 bytes		15      12 11           0
 *										+---------+-------------+
 *										|  time   | fingerprint |	0: empty
 *										+---------+-------------+
 *	time: of 16, of which 12 are as long as the ghost ("ghost" (1.2) entries an item)
 *	is.  An entry replaces the oldest of its line.
 *	The second ghost ("main_ghost" (0.1) entries an item) has 16-bit fingerprints,
 *	each line a FIFO.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define SMALL	0
#define MAIN	1
#define MAX_CLASSES 16
#define LINE	32
#define TIMES	16
#define MAX_AGE	12
#define LEAST_SHARE	0.02
#define MOST_SHARE	0.8
#define STEP	4
#define SPARE	2

typedef struct Segment
{
	uint32_t   *keys;
	uint32_t	nkeys;
	uint32_t	room;
	uint64_t	bytes;
	uint64_t	written;		/* last, in fingerprints */
	uint32_t	next;			/* younger in its chain, or free */
} Segment;

typedef struct Chain
{
	uint32_t	oldest;
	uint32_t	youngest;
	uint32_t	open;			/* not yet in the chain */
} Chain;

typedef struct Segments
{
	const Trace *trace;
	uint64_t	capacity;
	uint64_t	size;			/* of a segment */
	uint64_t	usable;
	Segment    *segments;
	uint32_t	nsegments;
	uint32_t	free;
	uint32_t	nused;
	uint64_t	beside;			/* bytes of large items */
	Chain		chains[2][MAX_CLASSES];
	uint32_t	nclasses;
	uint64_t	bytes[2];
	uint64_t	items_in_small;
	uint8_t    *in;				/* of each key: chain + 1 */
	uint8_t    *hits;
	uint32_t   *copied;			/* keys of the segment being evicted */
	uint32_t	copied_room;

	uint16_t   *ghost;
	uint64_t	nlines;
	uint64_t	tick;			/* fingerprints to a time */
	uint64_t	clock;			/* fingerprints so far */
	uint16_t   *main_ghost;
	uint8_t    *main_heads;
	uint64_t	nmain_lines;

	double		share;			/* of small */
	uint8_t		promote;
	uint8_t		cap;
	bool		fill;
	bool		paid;
	bool		adapt;
	bool		full;			/* something was evicted */
} Segments;

static uint64_t
hash(uint32_t key)
{
	uint64_t	x = (key + UINT64_C(1)) * UINT64_C(0x9E3779B97F4A7C15);

	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

static void *
segments_create(const Trace *trace, uint64_t capacity, const char *options)
{
	Segments   *s = allocate(1, sizeof(Segments));
	double		items = (double) capacity * trace->nkeys / (double) trace->bytes;
	double		ghost = policy_option(options, "ghost", 1.2) * items;
	uint32_t	n = (uint32_t) policy_option(options, "segments", 250);

	s->trace = trace;
	s->capacity = capacity;
	s->size = n > 0 && capacity / n > 0 ? capacity / n : 1;
	/* copies may be in more than the spare ones for a moment */
	s->nsegments = (uint32_t) (capacity / s->size) + 2 * MAX_CLASSES + 2;
	s->usable = capacity > 8 * s->size ? capacity - (SPARE + 1) * s->size : capacity;
	s->segments = allocate(s->nsegments, sizeof(Segment));
	for (uint32_t i = 0; i < s->nsegments; i++)
		s->segments[i].next = i + 1 < s->nsegments ? i + 1 : NONE;
	s->nclasses = (uint32_t) policy_option(options, "classes", 1);
	if (s->nclasses < 1 || s->nclasses > MAX_CLASSES)
		s->nclasses = 1;
	for (int c = 0; c < 2; c++)
		for (int k = 0; k < MAX_CLASSES; k++)
			s->chains[c][k] = (Chain) {NONE, NONE, NONE};
	s->in = allocate(trace->nkeys, 1);
	s->hits = allocate(trace->nkeys, 1);

	s->nlines = (uint64_t) (ghost / LINE + 0.5) + (ghost / LINE < 0.5);
	s->ghost = allocate(s->nlines * LINE, sizeof(uint16_t));
	s->tick = (uint64_t) (ghost / MAX_AGE) + (ghost < MAX_AGE);
	s->nmain_lines = (uint64_t) (policy_option(options, "main_ghost", 0.1) * items / LINE + 0.5);
	if (s->nmain_lines == 0)
		s->nmain_lines = 1;
	s->main_ghost = allocate(s->nmain_lines * LINE, sizeof(uint16_t));
	s->main_heads = allocate(s->nmain_lines, 1);

	s->share = policy_option(options, "small", 0.1);
	s->promote = (uint8_t) policy_option(options, "promote", 2);
	s->cap = (uint8_t) policy_option(options, "cap", 3);
	s->fill = policy_option(options, "fill", 1) != 0;
	s->paid = policy_option(options, "paid", 1) != 0;
	s->adapt = policy_option(options, "adapt", 1) != 0;
	return s;
}

static uint16_t *
ghost_line(Segments *s, uint32_t key)
{
	return &s->ghost[(hash(key) & UINT32_MAX) % s->nlines * LINE];
}

static uint16_t
ghost_fingerprint(uint32_t key)
{
	uint16_t	f = (uint16_t) (hash(key) >> 52);

	return f ? f : 1;
}

static void
ghost_add(Segments *s, uint32_t key)
{
	uint16_t   *line = ghost_line(s, key);
	uint64_t	now = ++s->clock / s->tick;
	int			oldest = 0;
	uint64_t	most = 0;

	for (int i = 0; i < LINE; i++)
	{
		uint64_t	age = line[i] ? (now - (line[i] >> 12)) % TIMES : TIMES;

		/* before its time comes round, and it seems young again */
		if (age > MAX_AGE)
		{
			line[i] = 0;
			age = TIMES;
		}
		if (age > most)
		{
			most = age;
			oldest = i;
		}
	}
	line[oldest] = (uint16_t) (now % TIMES << 12 | ghost_fingerprint(key));
}

/* Takes it out; -1: not there, else its age in times. */
static int
ghost_take(Segments *s, uint32_t key)
{
	uint16_t   *line = ghost_line(s, key);
	uint64_t	now = s->clock / s->tick;

	for (int i = 0; i < LINE; i++)
		if ((line[i] & 0xFFF) == ghost_fingerprint(key))
		{
			uint64_t	age = (now - (line[i] >> 12)) % TIMES;

			line[i] = 0;
			if (age <= MAX_AGE)
				return (int) age;
		}
	return -1;
}

static uint16_t
main_fingerprint(uint32_t key)
{
	uint16_t	f = (uint16_t) (hash(key) >> 40);

	return f ? f : 1;
}

static void
main_ghost_add(Segments *s, uint32_t key)
{
	uint64_t	line = (hash(key) & UINT32_MAX) % s->nmain_lines;

	s->main_ghost[line * LINE + s->main_heads[line]] = main_fingerprint(key);
	s->main_heads[line] = (uint8_t) ((s->main_heads[line] + 1) % LINE);
}

static bool
main_ghost_take(Segments *s, uint32_t key)
{
	uint16_t   *line = &s->main_ghost[(hash(key) & UINT32_MAX) % s->nmain_lines * LINE];

	for (int i = 0; i < LINE; i++)
		if (line[i] == main_fingerprint(key))
		{
			line[i] = 0;
			return true;
		}
	return false;
}

static uint32_t
class_of(const Segments *s, uint32_t key)
{
	return (uint32_t) (hash(key) >> 36) % s->nclasses;
}

static bool
is_large(const Segments *s, uint32_t bytes)
{
	return bytes > s->size / 4 && bytes > 1;
}

static void
seal(Segments *s, Chain *chain)
{
	if (chain->open == NONE)
		return;
	if (chain->youngest != NONE)
		s->segments[chain->youngest].next = chain->open;
	else
		chain->oldest = chain->open;
	chain->youngest = chain->open;
	chain->open = NONE;
}

static bool
has_room(const Segments *s, const Chain *chain, uint32_t bytes)
{
	return chain->open != NONE && s->segments[chain->open].bytes + bytes <= s->size;
}

static void
append(Segments *s, int c, uint32_t key)
{
	Chain	   *chain = &s->chains[c][class_of(s, key)];
	uint32_t	bytes = s->trace->sizes[key];
	uint32_t	within = is_large(s, bytes) ? 0 : bytes;
	Segment    *segment;

	if (!has_room(s, chain, within))
	{
		seal(s, chain);
		chain->open = s->free;
		segment = &s->segments[chain->open];
		s->free = segment->next;
		s->nused++;
		segment->nkeys = 0;
		segment->bytes = 0;
		segment->next = NONE;
	}
	segment = &s->segments[chain->open];
	if (segment->nkeys == segment->room)
	{
		uint32_t   *keys = allocate(2 * segment->room + 8, sizeof(uint32_t));

		if (segment->nkeys > 0)
			memcpy(keys, segment->keys, segment->nkeys * sizeof(uint32_t));
		free(segment->keys);
		segment->keys = keys;
		segment->room = 2 * segment->room + 8;
	}
	segment->written = s->clock;
	segment->keys[segment->nkeys++] = key;
	segment->bytes += within;
	s->beside += bytes - within;
	s->bytes[c] += bytes;
	s->items_in_small += c == SMALL;
	s->in[key] = (uint8_t) (c + 1);
}

/* The class with the oldest segment of a chain; -1: none has one. */
static int
oldest_class(const Segments *s, int c)
{
	int			oldest = -1;

	for (int k = 0; k < (int) s->nclasses; k++)
		if (s->chains[c][k].oldest != NONE &&
			(oldest < 0 || s->segments[s->chains[c][k].oldest].written <
			 s->segments[s->chains[c][oldest].oldest].written))
			oldest = k;
	return oldest;
}

static void
leave(Segments *s, int c, uint32_t key)
{
	s->in[key] = 0;
	if (c == SMALL)
		ghost_add(s, key);
	else if (s->adapt)
		main_ghost_add(s, key);
}

/* The oldest of a chain; an open one where no other is left. */
static bool
evict_segment(Segments *s, int c)
{
	int			k = oldest_class(s, c);
	uint32_t	victim;
	Segment    *segment;
	uint32_t	n;

	if (k < 0)
	{
		for (k = 0; k < (int) s->nclasses; k++)
			seal(s, &s->chains[c][k]);
		k = oldest_class(s, c);
	}
	if (k < 0)
		return false;
	victim = s->chains[c][k].oldest;
	segment = &s->segments[victim];
	s->chains[c][k].oldest = segment->next;
	if (segment->next == NONE)
		s->chains[c][k].youngest = NONE;
	n = segment->nkeys;
	if (n > s->copied_room)
	{
		free(s->copied);
		s->copied = allocate(n, sizeof(uint32_t));
		s->copied_room = n;
	}
	memcpy(s->copied, segment->keys, n * sizeof(uint32_t));
	for (uint32_t i = 0; i < n; i++)
	{
		uint32_t	key = s->copied[i];
		uint32_t	bytes = s->trace->sizes[key];

		s->bytes[c] -= bytes;
		s->items_in_small -= c == SMALL;
		if (is_large(s, bytes))
			s->beside -= bytes;
		if (s->hits[key] < (c == SMALL ? s->promote : 1))
			leave(s, c, key);
		else
		{
			s->hits[key] = c == SMALL ? 0 : s->hits[key] - 1;
			append(s, MAIN, key);
		}
	}
	segment->next = s->free;
	s->free = victim;
	s->nused--;
	return true;
}

static uint64_t
main_share(const Segments *s)
{
	return (uint64_t) ((1 - s->share) * (double) s->usable);
}

static void
evict(Segments *s)
{
	int			first = s->bytes[MAIN] > main_share(s) ? MAIN : SMALL;

	s->full = true;
	if (!evict_segment(s, first))
		evict_segment(s, 1 - first);
}

/* Where a key that is not in the cache goes; may evict a segment of main. */
static int
choose(Segments *s, uint32_t key)
{
	uint32_t	bytes = s->trace->sizes[key];
	double		step = STEP * (double) bytes / (double) s->usable;
	int			age = ghost_take(s, key);
	bool		left_main = s->adapt && age < 0 && main_ghost_take(s, key);
	int			k;

	if (s->adapt && (age == 0 || left_main))
	{
		s->share += left_main ? -step : step;
		if (s->share < LEAST_SHARE)
			s->share = LEAST_SHARE;
		if (s->share > MOST_SHARE)
			s->share = MOST_SHARE;
	}
	if (s->fill && !s->full && s->bytes[MAIN] + bytes <= main_share(s))
		return MAIN;
	if (age < 0 && !left_main)
		return SMALL;
	if (!s->paid || s->bytes[MAIN] + bytes <= main_share(s))
		return MAIN;
	k = oldest_class(s, MAIN);
	if (left_main || k < 0 ||
		s->clock - s->segments[s->chains[MAIN][k].oldest].written <=
		(uint64_t) age * s->tick + s->items_in_small + s->tick / 2)
		return SMALL;
	evict_segment(s, MAIN);
	return s->bytes[MAIN] + bytes <= main_share(s) ? MAIN : SMALL;
}

static bool
segments_request(void *self, uint64_t i)
{
	Segments   *s = self;
	uint32_t	key = s->trace->keys[i];
	uint32_t	bytes = s->trace->sizes[key];
	uint32_t	within = is_large(s, bytes) ? 0 : bytes;
	uint64_t	spare = s->capacity > 8 * s->size ? SPARE * s->size : 0;
	int			to;

	if (s->in[key] != 0)
	{
		if (s->hits[key] < s->cap)
			s->hits[key]++;
		return true;
	}
	to = choose(s, key);
	while (s->nused > 0)
	{
		uint64_t	need = bytes - within;

		if (!has_room(s, &s->chains[to][class_of(s, key)], within))
			need += s->size;
		if (need == 0 || s->nused * s->size + s->beside + spare + need <= s->capacity)
			break;
		evict(s);
	}
	s->hits[key] = 0;
	append(s, to, key);
	return false;
}

static uint64_t
segments_used(void *self)
{
	Segments   *s = self;

	return s->bytes[SMALL] + s->bytes[MAIN];
}

static void
segments_destroy(void *self)
{
	Segments   *s = self;

	for (uint32_t i = 0; i < s->nsegments; i++)
		free(s->segments[i].keys);
	free(s->segments);
	free(s->in);
	free(s->hits);
	free(s->copied);
	free(s->ghost);
	free(s->main_ghost);
	free(s->main_heads);
	free(s);
}

const Policy segments_policy = {
	"segments", "S3-FIFO by segments, main filled first, ghost hits paid, small adapted",
	segments_create, segments_request, segments_used, segments_destroy
};
