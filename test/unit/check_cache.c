/*
 * check_cache.c
 *	  The cache in the model checker: a few processes, segments of three or four
 *	  items, and so few pages that they are evicted all the time.
 *
 * As a cache it is linearizable if each key is: a get may find nothing at any time,
 * but what it finds was the last thing set, and what was once not found does not
 * come again by itself.  Where memory is ample and nothing has a deadline, the
 * cache is a map, and checked as one.
 *
 * Where there are deadlines time is read once by each operation, so that one may
 * find an entry there, and then take effect when others have seen it expire.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_internal.h"
#include "check_core.h"

#define KEYS 8
#define CROWD 10				/* keys where many are to be in few buckets */
#define NUMBERS 120

enum
{
	GET,
	SET,						/* arg: value */
	ADD,
	DELETE,
	EXPIRE,
	CLEAR						/* result 0: it was not done */
};

static NxmCache *cache;
static NxmAtomic *largest;		/* for the views; NULL: there is one cache alone */
static NxmAtomic *clock;
static NxmCacheView views[CHECK_MAX_PROCS];
static bool strict;				/* it is a map */
static bool expiring;			/* there are deadlines */
static bool crowded;			/* there are CROWD keys */
static bool changing;			/* they are not those that values were set with */
static int	ghosts_added;		/* by no eviction */
static int64_t deadline_of[NUMBERS];	/* of the value; -1: any */

/* state: is it there, its value; was it found absent, with that value */
static bool
apply(int64_t *state, const CheckOp *op)
{
	bool		seen_over = expiring && state[2] != 0;
	bool		there = state[0] != 0 || (seen_over && op->kind != GET && op->kind != ADD);
	bool		absent = !strict || !there;
	int64_t		value = state[0] != 0 ? state[1] : state[3];

	switch (op->kind)
	{
		case GET:
			if (op->result[0] == NXM_OK)
				return there && op->result[1] == state[1];
			if (state[0] != 0)
			{
				state[2] = 1;
				state[3] = state[1];
			}
			state[0] = state[1] = 0;
			return absent;
		case SET:
			state[2] = 0;
			state[0] = op->result[0] != NXM_ABSENT;
			state[1] = state[0] != 0 ? op->arg[0] : 0;
			return op->result[0] == NXM_EXISTS ? there :
				op->result[0] == NXM_OK ? absent : !strict;
		case ADD:
			if (op->result[0] == NXM_EXISTS)
				return there;
			state[2] = 0;
			state[0] = op->result[0] != NXM_ABSENT;
			state[1] = state[0] != 0 ? op->arg[0] : 0;
			return op->result[0] == NXM_OK ? absent : !strict;
		case DELETE:
			state[0] = state[1] = state[2] = 0;
			return op->result[0] == NXM_OK ? there : absent;
		case EXPIRE:
			if (op->result[0] == NXM_OK)
			{
				state[0] = there;
				state[1] = value;
				state[2] = 0;
				return there;
			}
			state[0] = state[1] = 0;
			return absent;
		default:
			if (op->result[0] != 0)
				state[0] = state[1] = state[2] = 0;
			return true;
	}
}

static const char *
describe(const CheckOp *op)
{
	static const char *const kinds[] = {
		"get", "set", "add", "delete", "expire", "clear"
	};
	static char text[100];

	snprintf(text, sizeof(text), "key %d %s %d gave %d, %d", op->key,
			 kinds[op->kind], (int) op->arg[0], (int) op->result[0],
			 (int) op->result[1]);
	return text;
}

static const CheckSpec spec = {"cache", apply, describe};

/*
 * Of a crowd keys 0 to 5 stay together for one split, in the second half of the index,
 * and 6 to 9, in the first half, for two.
 */
static uint64_t
hash_of(int number)
{
	static const uint64_t hashes[CROWD] = {
		0xb0, 0xbc, 0xdc, 0xe9, 0xc8, 0xf8, 0x03, 0x11, 0x1b, 0x27
	};

	if (crowded)
		return hashes[number] << 56;
	return (uint64_t) (2 * number + 1) << 60 | (uint64_t) (number + 1) * 0x1234567;
}

static uint64_t
hash(const char *data, size_t len)
{
	(void) len;
	return hash_of(data[1] - '0');
}

static int64_t
now(void *env)
{
	(void) env;
	return (int64_t) nxm_load(clock);
}

static NxmCachePartition *
partition(void)
{
	return nxm_at(check_space(), nxm_load(&cache->partition[0]));
}

static NxmKey
key_of(int number)
{
	static char names[CROWD][4];
	NxmKey		key = {names[number], 2, hash_of(number)};

	snprintf(names[number], sizeof(names[number]), "k%d", number);
	return key;
}

static NxmCacheView *
view(void)
{
	NxmCacheView *mine = &views[check_self()];

	*mine = (NxmCacheView) {
		.space = check_space(),.hash = hash,.now = now,.home = 0,.cannot_grow = true,
		.largest = largest
	};
	return mine;
}

#define DO(r, operation) \
	do { \
		nxm_enter(check_space()); \
		(r) = (operation); \
		nxm_leave(check_space()); \
	} while (check_again(r))

/* The number that a value says, which was asked for at this time. */
static int
number_seen(const char *data, size_t len, int64_t asked)
{
	int			seen = check_number(data, len);

	check_assert(seen > 0 && seen < NUMBERS);
	if (deadline_of[seen] > 0 && deadline_of[seen] <= asked)
		check_fail("a value after its deadline");
	return seen;
}

/* One operation, recorded.  A long value is not in the segment. */
static NxmResult
operate(int kind, int number, int value_number, int64_t deadline, bool is_long)
{
	NxmCacheView *v = view();
	CheckOp    *op = check_begin(kind, number, value_number, 0);
	NxmKey		key = key_of(number);
	NxmValue	value = check_value(value_number, is_long ? 30 : 2);
	char		bytes[32];
	NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};
	int64_t		asked = now(NULL);
	int64_t		ends = 0;
	int			seen = 0;
	NxmResult	result;

	switch (kind)
	{
		case GET:
			DO(result, nxm_cache_get(v, cache, &key, &buffer, &ends));
			break;
		case SET:
		case ADD:
			deadline_of[value_number] = changing ? -1 : deadline;
			if (kind == SET)
				DO(result, nxm_cache_set(v, cache, &key, &value, deadline));
			else
				DO(result, nxm_cache_add(v, cache, &key, &value, deadline));
			break;
		case DELETE:
			DO(result, nxm_cache_delete(v, cache, &key));
			break;
		default:
			DO(result, nxm_cache_expire(v, cache, &key, deadline));
			break;
	}
	check_assert(result == NXM_OK || result == NXM_ABSENT || result == NXM_EXISTS);
	if (kind == GET && result == NXM_OK)
	{
		seen = number_seen(bytes, buffer.len, asked);
		if (ends != 0 && ends <= asked)
			check_fail("a value after its deadline, as it says itself");
		if (deadline_of[seen] >= 0 && deadline_of[seen] != ends)
			check_fail("a value with deadline %d and not %d", (int) ends,
					   (int) deadline_of[seen]);
	}
	/* a deadline that has passed sets nothing */
	if (kind == SET && deadline != 0 && deadline <= now(NULL))
		result = result == NXM_EXISTS ? NXM_EXISTS : NXM_OK;
	check_end(op, result, seen);
	return result;
}

/*
 * Several gets at once, each recorded on its own: a key may be among them twice.  There
 * is room for one long value and a short one, or for some short ones.
 */
#define BATCH 4

static void
get_many(const int *numbers, int n)
{
	CheckOp    *ops[BATCH];
	NxmKey		keys[BATCH];
	NxmCacheAnswer answers[BATCH];
	/* it has half of them */
	char		bytes[64];
	NxmBuffer	buffer = {bytes, sizeof(bytes) / 2, 0, NXM_TEXT};
	int64_t		asked = now(NULL);
	int			seen[BATCH] = {0};
	int			done = 0;
	int			taken = 0;
	NxmResult	result;

	for (int i = 0; i < n; i++)
	{
		ops[i] = check_begin(GET, numbers[i], 0, 0);
		keys[i] = key_of(numbers[i]);
	}
	do
	{
		DO(result, nxm_cache_get_many(view(), cache, keys, n, answers, &done, &buffer));
		check_assert(result == NXM_OK || result == NXM_NEED_BUFFER);
		check_assert(buffer.len <= buffer.size);
		check_assert(result == NXM_OK ? done == n :
					 answers[done].len > buffer.size - buffer.len);
		for (; taken < done; taken++)
		{
			const NxmCacheAnswer *answer = &answers[taken];

			check_assert(answer->result == NXM_OK || answer->result == NXM_ABSENT);
			if (answer->result == NXM_OK)
			{
				check_assert(answer->at + answer->len <= buffer.len);
				seen[taken] = number_seen(bytes + answer->at, answer->len, asked);
			}
		}
		buffer.len = 0;
	} while (result != NXM_OK);
	for (int i = 0; i < n; i++)
		check_end(ops[i], answers[i].result, seen[i]);
}

/* Housekeeping: a step, or all there is. */
static void
tick(bool all)
{
	NxmResult	result;

	do
		DO(result, nxm_cache_tick(view(), cache));
	while (all && result != NXM_ABSENT);
	check_assert(result == NXM_OK || result == NXM_EXISTS || result == NXM_ABSENT);
}

static void
clear(void)
{
	CheckOp    *ops[CROWD];
	NxmCacheCursor cursor = {0, 0};
	uint64_t	removed = 0;
	int			nkeys = crowded ? CROWD : KEYS;
	NxmResult	result;

	for (int i = 0; i < nkeys; i++)
		ops[i] = check_begin(CLEAR, i, 0, 0);
	DO(result, nxm_cache_clear(view(), cache, &cursor, &removed));
	check_assert(result == NXM_OK || result == NXM_EXISTS || result == NXM_NEED_MEMORY);
	for (int i = 0; i < nkeys; i++)
		check_end(ops[i], result == NXM_OK, 0);
}

/* Iteration, with no other process. */
typedef struct Scan
{
	int			entries;
	NxmRef		ref[CROWD];		/* of their items; entries and bucket_entries of them */
	size_t		bytes;
	size_t		big;			/* of these, of values elsewhere; set at the end */
	int			bucket_entries;
	size_t		bucket_bytes;
} Scan;

static void
scan_begin(void *context)
{
	Scan	   *scan = context;

	scan->bucket_entries = 0;
	scan->bucket_bytes = 0;
}

static NxmResult
scan_each(NxmCacheView *v, const NxmCacheEntry *entry, void *context)
{
	Scan	   *scan = context;
	char		bytes[32];
	NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};
	int			n = scan->entries + scan->bucket_entries;

	check_assert(n < CROWD);
	scan->ref[n] = entry->word & NXM_REF_MASK;
	for (int i = 0; i < n; i++)
		check_assert(scan->ref[i] != scan->ref[n]);
	check_assert((entry->word & TAG_MASK) ==
				 tag_of(position_of(hash(entry->key, entry->key_len))));
	scan->bucket_entries++;
	scan->bucket_bytes += nxm_cache_item_bytes(entry->item);
	check_assert(nxm_cache_entry_value(v, entry, &buffer) == NXM_OK);
	check_assert(buffer.len == entry->len);
	check_number(bytes, buffer.len);
	return NXM_OK;
}

static bool
is_named(const Scan *scan, NxmRef ref)
{
	for (int i = 0; i < scan->entries; i++)
		if (scan->ref[i] == ref)
			return true;
	return false;
}

/* A segment of a chain: as the head of cache.h has it.  Slots that name items of it. */
static int
check_segment(NxmCachePartition *part, NxmRef page, int kind, Scan *scan)
{
	NxmSpace   *space = check_space();
	NxmCacheSegment *segment = segment_at(space, page);
	uint64_t	word = nxm_load(&segment->word);
	uint64_t	done = nxm_load(&segment->done);
	uint64_t	due = nxm_load(&segment->due);
	uint64_t	head = NXM_GET(*head_at(space, page));
	uint64_t	values = 0;
	uint32_t	alive = 0;
	uint32_t	at = HEAD_UNITS;
	int			named = 0;

	check_assert(nxm_ref_size(space, page) == NXM_PAGE_SIZE);
	/* nobody is about to do anything with it */
	check_assert(SEG_STATE(word) == SEG_OPEN || SEG_STATE(word) == SEG_SEALED);
	check_assert(SEG_KIND(word) == kind);
	check_assert(SEG_USED(word) <= SEGMENT_UNITS);
	check_assert(DONE_LIFE(done) == (uint32_t) SEG_LIFE(word));
	check_assert(DONE_COMMITTED(done) == SEG_USED(word));
	check_assert((uint64_t) HEAD_DUE(head) == due);
	check_assert((due != 0) == (SEG_SCALE(word) != 0));
	check_assert(due == 0 || nxm_load(&part->next_due) >> 16 <= due >> 16);
	while (at < SEG_USED(word))
	{
		const void *item = nxm_at(space, page + at);
		uint32_t	header = item_header(item);

		if (is_named(scan, page + at))
		{
			named++;
			alive += item_units(header);
			values += nxm_cache_item_bytes(item) - (size_t) item_units(header) * NXM_REF_UNIT;
			check_assert(((header & C_DEADLINE) != 0) == (due != 0));
			check_assert(item_deadline(space, page + at, item, header) <= (int64_t) due);
		}
		at += item_units(header);
	}
	check_assert(at == SEG_USED(word));
	if (alive != SEG_USED(word) - HEAD_UNITS - DONE_DEAD(done))
		check_fail("a segment of %d units has %d dead and %d that slots name",
				   (int) SEG_USED(word), (int) DONE_DEAD(done), (int) alive);
	check_assert(values <= nxm_load(&segment->weight));
	scan->big += values;
	return named;
}

/* Does a cell name the segment, in its life? */
static bool
has_cell(NxmCachePartition *part, NxmRef page, uint64_t life)
{
	for (int i = 0; i < 2 + NXM_CACHE_WINDOWS; i++)
	{
		uint64_t	c = nxm_load(i < 2 ? &part->open[i] : &part->window[i - 2]);

		if (c != 0 && NAME_PAGE(c) == nxm_ref_page(page) &&
			CELL_LIFE(c) == (life & CELL_LIFE_MASK))
			return true;
	}
	return false;
}

/* The bytes of an index segment, its extents, and its successors. */
static size_t
index_bytes(NxmRef ref)
{
	NxmSpace   *space = check_space();
	NxmSegment *seg = nxm_at(space, ref);
	uint64_t	next = nxm_load(&seg->next);
	size_t		bytes = nxm_ref_size(space, ref);

	for (int i = 0; i < NXM_EXTENTS; i++)
		if ((nxm_load(&seg->extent[i]) & NXM_REF_MASK) != 0)
			bytes += nxm_ref_size(space, nxm_load(&seg->extent[i]) & NXM_REF_MASK);
	if (next != 0 && next != CUT)
	{
		NxmRef		sibling = NXM_GET(((NxmSegment *) nxm_at(space, next))->sibling);

		bytes += index_bytes(next) + (sibling == 0 ? 0 : index_bytes(sibling));
	}
	return bytes;
}

/* Fingerprints in a ghost; adds its memory. */
static int
fingerprints(NxmGhost *ghost, size_t *bytes)
{
	NxmSpace   *space = check_space();
	uint64_t	table = nxm_load(&ghost->table);
	NxmAtomic  *words;
	int			n = 0;

	if ((table & NXM_REF_MASK) == 0)
		return 0;
	*bytes += nxm_ref_size(space, table & NXM_REF_MASK);
	words = nxm_at(space, table & NXM_REF_MASK);
	/* lines of 64 bytes, of 32 entries */
	for (uint64_t i = 0; i < (table >> NXM_REF_BITS) * 8; i++)
		for (int lane = 0; lane < 4; lane++)
			n += (nxm_load(&words[i]) >> (16 * lane) & 0xFFFF) != 0;
	return n;
}

/* With no other process, and nothing left to do: is all as cache.h says? */
static void
check_invariants(Scan *scan)
{
	NxmSpace   *space = check_space();
	NxmCachePartition *part = partition();
	uint64_t	directory = nxm_load(&part->index.directory);
	NxmRef		seen[60];
	int			nseen = 0;
	int			named = 0;
	int			segments = 0;
	size_t		ghosts = 0;
	size_t		index = nxm_ref_size(space, directory & NXM_REF_MASK);
	NxmCacheStats stats;

	check_assert(nxm_cache_stats(view(), cache, 0, &stats));
	for (int kind = 0; kind < 2; kind++)
	{
		NxmChain   *chain = &part->chain[kind];
		int			before = nseen;
		uint64_t	blocks = 0;

		check_assert(nxm_load(&chain->lock) == 0);
		for (NxmRef ref = nxm_load(&chain->head); ref != 0;)
		{
			NxmChainBlock *block = nxm_at(space, ref);

			for (uint64_t i = 0; i < nxm_load(&block->count) && i < NXM_CHAIN_ENTRIES; i++)
			{
				uint64_t	name = nxm_load(&block->entry[i]);
				NxmRef		page = (NxmRef) NAME_PAGE(name) << NXM_PAGE_SHIFT;
				NxmCacheSegment *segment;

				check_assert(name != 0);
				if (name == NAME_GONE)
					continue;
				segment = segment_at(space, page);
				if (SEG_LIFE(nxm_load(&segment->word)) != NAME_LIFE(name))
					continue;
				for (int s = 0; s < nseen; s++)
					if (seen[s] == page)
						check_fail("a segment is in the chains twice");
				check_assert(nseen < LENGTH(seen));
				seen[nseen++] = page;
				named += check_segment(part, page, kind, scan);
				check_assert(nxm_load(&segment->due) == 0 ||
							 nxm_load(&block->due) <= nxm_load(&segment->due));
				check_assert(SEG_STATE(nxm_load(&segment->word)) != SEG_OPEN ||
							 has_cell(part, page, NAME_LIFE(name)));
			}
			ref = nxm_load(&block->next);
			blocks++;
		}
		check_assert(nxm_load(&chain->segments) == (uint64_t) (nseen - before));
		check_assert(nxm_load(&chain->blocks) == blocks);
	}
	if (named != scan->entries)
		check_fail("of %d slots %d name an item of a segment", scan->entries, named);
	for (uint32_t page = space->shared->chunks[0].first_page;
		 page < nxm_load(&space->shared->chunks[0].published); page++)
		segments += SEG_STATE(nxm_load(nxm_page_words(space, page))) != SEG_NONE;
	if (segments != nseen)
		check_fail("of %d segments %d are in the chains", segments, nseen);
	check_assert(nxm_load(&part->waiting) == 0);

	for (int i = 0; i < NXM_CACHE_ROOM_LISTS * NXM_CACHE_ROOMS; i++)
	{
		uint64_t	name = nxm_load(&part->room[i / NXM_CACHE_ROOMS][i % NXM_CACHE_ROOMS].name);
		NxmRef		ref = name & NXM_REF_MASK;
		uint64_t	life = name << 1 >> (NXM_REF_BITS + 1);

		/* 1: somebody is at it */
		check_assert(name != 1);
		if (name != 0 && (SEG_LIFE(nxm_load(&segment_at(space, ref)->word)) &
						  ((UINT64_C(1) << (63 - NXM_REF_BITS)) - 1)) == life)
			check_assert(!is_named(scan, ref));
	}

	for (int kind = 0; kind < 2; kind++)
	{
		int			n = fingerprints(&part->ghost[kind], &ghosts);

		if ((uint64_t) n > nxm_load(&part->ghost[kind].count))
			check_fail("%d fingerprints of %d evictions", n, (int) nxm_load(&part->ghost[kind].count));
	}
	check_assert(ghosts == nxm_ghost_bytes(part));
	check_assert(nxm_load(&part->ghost[0].count) + nxm_load(&part->ghost[1].count) <=
				 stats.evictions + (uint64_t) ghosts_added);

	check_assert(nxm_load(&part->index.dead) == 0 && nxm_load(&part->index.housekeeper) == 0);
	for (uint64_t i = 0; i < UINT64_C(1) << directory_depth(directory); i++)
	{
		NxmRef		ref = nxm_load(directory_entry(space, directory, i)) & NXM_REF_MASK;

		if (i == 0 || (nxm_load(directory_entry(space, directory, i - 1)) & NXM_REF_MASK) != ref)
			index += index_bytes(ref);
	}
	if (nxm_load(&part->index.memory) != index)
		check_fail("an index of %d bytes is counted as %d", (int) index,
				   (int) nxm_load(&part->index.memory));
	check_assert(nxm_load(&part->big) == scan->big);
	index += ghosts + scan->big + (size_t) nseen * NXM_CACHE_SEGMENT +
		nxm_object_size(sizeof(NxmCachePartition));
	if (nxm_load(&cache->used) != index)
		check_fail("%d bytes are used, %d are counted", (int) index, (int) nxm_load(&cache->used));
	check_assert(stats.used_bytes == index);
}

static void
finish(void)
{
	NxmCachePartition *part = partition();
	Scan		scan = {0};
	NxmCacheCursor cursor = {0, 0};
	uint64_t	before;
	int			nkeys = crowded ? CROWD : KEYS;
	int			here = 0;
	NxmResult	result;

	for (int i = 2; i < CHECK_MAX_PROCS; i++)
		if (views[i].space != NULL)
			nxm_leave(views[i].space);
	tick(true);
	for (int i = 0; i < nkeys; i++)
		if (operate(GET, i, 0, 0, false) == NXM_OK)
			here++;
	for (int i = 0; i < nkeys; i++)
		check_linearizable(&spec, i);
	/* what has expired and is not reclaimed is counted still */
	before = nxm_load(clock);
	nxm_store(clock, 1);
	do
	{
		DO(result, nxm_cache_scan(view(), cache, &cursor, scan_begin, scan_each, &scan));
		scan.entries += scan.bucket_entries;
		scan.bytes += scan.bucket_bytes;
		scan_begin(&scan);
	} while (result == NXM_OK);
	nxm_store(clock, before);
	check_assert(result == NXM_ABSENT);
	check_assert(scan.entries >= here);
	if (nxm_map_entries(&part->index) != (uint64_t) scan.entries)
		check_fail("%d entries are counted, %d are there",
				   (int) nxm_map_entries(&part->index), scan.entries);
	if (nxm_map_bytes(&part->index) != scan.bytes)
		check_fail("%d bytes are counted, %d are there",
				   (int) nxm_map_bytes(&part->index), (int) scan.bytes);
	check_invariants(&scan);

	DO(result, nxm_cache_drop(view(), cache));
	check_assert(result == NXM_OK);
	/* NXM_EXISTS: what waits for the epoch comes first */
	for (int i = 0; i < 200 && (result == NXM_OK || result == NXM_EXISTS); i++)
		DO(result, nxm_cache_drain(view(), cache));
	check_assert(result == NXM_ABSENT);
	check_assert(nxm_load(&cache->used) == 0);
	check_all_free(0);
}

/* pages: of the account, of which all but the segments takes FIXED_PAGES or so. */
static void
setup(int procs, int pages, int n)
{
	NxmResult	result;

	memset(views, 0, sizeof(views));
	memset(deadline_of, 0, sizeof(deadline_of));
	strict = expiring = changing = crowded = false;
	ghosts_added = 0;
	largest = NULL;
	cache = check_shared(sizeof(*cache), "cache");
	clock = check_shared(sizeof(*clock), "clock");
	nxm_init(clock, 1000000);
	check_core_setup(procs, 60);
	nxm_store(&check_space()->shared->account[NXM_CACHE_ACCOUNT].page_limit,
			  (uint64_t) pages);
	DO(result, nxm_cache_init(view(), cache, 1, 0));
	check_assert(result == NXM_OK);
	for (int i = 0; i < n; i++)
		operate(SET, i, i + 1, 0, false);
}

#define AMPLE 50
#define FEW 11

static void
setup_map(void)
{
	setup(3, AMPLE, check_pick(5));
	strict = true;
}

static void
setup_few_pages(void)
{
	setup(3, FEW + check_pick(3), check_pick(KEYS + 1));
}

static void
setup_ample(void)
{
	setup(3, AMPLE, check_pick(5));
}

static void
random_operation(int proc, int i, bool deadlines)
{
	int			key = check_pick(KEYS);
	int			value = 10 + 30 * (proc - 1) + i;
	int64_t		deadline = !deadlines || check_pick(3) == 0 ? 0 :
		now(NULL) + 1 + check_pick(2000);
	bool		is_long = check_pick(6) == 0;

	switch (check_pick(10))
	{
		case 0:
		case 1:
		case 2:
			operate(GET, key, 0, 0, false);
			break;
		case 3:
		case 4:
		case 5:
		case 6:
			operate(SET, key, value, deadline, is_long);
			break;
		case 7:
			operate(ADD, key, value, deadline, is_long);
			break;
		case 8:
			operate(DELETE, key, 0, 0, false);
			break;
		default:
			if (deadlines)
				nxm_fetch_add(clock, 500);
			else
				tick(false);
	}
}

static void
body(int proc)
{
	for (int i = 0; i < 5; i++)
	{
		random_operation(proc, i, false);
		if (check_pick(8) == 0)
			check_reattach();
	}
}

static void
body_deadlines(int proc)
{
	expiring = true;
	for (int i = 0; i < 5; i++)
		random_operation(proc, i, true);
}

/* The deadline of an entry is another one than that of its value. */
static void
body_expire(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		int			key = check_pick(2);
		int			value = 10 + 30 * (proc - 1) + i;

		switch (check_pick(4))
		{
			case 0:
				operate(GET, key, 0, 0, false);
				break;
			case 1:
				operate(SET, key, value, 0, check_pick(3) == 0);
				break;
			case 2:
				nxm_fetch_add(clock, 500);
				break;
			default:
				operate(EXPIRE, key, 0, check_pick(3) == 0 ? 0 : now(NULL) + 700, false);
		}
	}
}

static void
setup_expire(void)
{
	setup(3, AMPLE, 0);
	expiring = changing = true;
	operate(SET, 0, 1, 0, false);
	operate(SET, 1, 2, 0, false);
}

static void
body_clear(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		random_operation(proc, i, false);
		if (check_pick(5) == 0)
			clear();
		if (check_pick(3) == 0)
			tick(false);
	}
}

/* A limit is lowered below what the index takes. */
static NxmAtomic *inserted;
static NxmAtomic *refused;

static void
insert(int number, int value)
{
	NxmResult	result = operate(SET, number, value, 0, value % 3 == 0);

	if (result == NXM_OK)
		nxm_fetch_add(inserted, 1);
	if (result == NXM_ABSENT)
		nxm_fetch_add(refused, 1);
}

static void
setup_lowered(void)
{
	setup(3, AMPLE, 0);
	inserted = check_shared(sizeof(*inserted), "inserted");
	refused = check_shared(sizeof(*refused), "refused");
	for (int i = 0; i < KEYS; i++)
		insert(i, i + 1);
}

static void
body_lowered(int proc)
{
	if (proc == 1)
		nxm_store(&cache->max_bytes, nxm_load(&partition()->index.memory));
	for (int i = 0; i < 4; i++)
	{
		if (proc == 3 && check_pick(2) == 0)
			operate(GET, check_pick(KEYS), 0, 0, false);
		else if (proc == 1 || check_pick(3) == 0)
			tick(false);
		else
			insert(check_pick(KEYS), 10 + 30 * (proc - 1) + i);
	}
}

static void
finish_lowered(void)
{
	NxmCacheStats stats;

	tick(true);
	check_assert(nxm_load(&partition()->index.mark) == MARK_EVICTED);
	nxm_enter(check_space());
	check_assert(nxm_cache_stats(view(), cache, 0, &stats));
	nxm_leave(check_space());
	/* who was refused has deleted its key */
	if (nxm_load(refused) == 0 && stats.entries + stats.evictions != nxm_load(inserted))
		check_fail("%d entries are there, %d were evicted of %d", (int) stats.entries,
				   (int) stats.evictions, (int) nxm_load(inserted));
	check_assert(stats.used_bytes == nxm_load(&cache->used));
	nxm_store(&cache->max_bytes, 0);
	finish();
}

/*
 * A limit of the cache's own, that leaves room for one segment more.  So much else is
 * counted in what it uses that its index is not in the way.
 */
#define BALLAST 100000

static void
limit_one_more(int procs, int n)
{
	setup(procs, AMPLE, n);
	nxm_fetch_add(&cache->used, BALLAST);
	nxm_store(&cache->max_bytes, nxm_load(&cache->used) +
			  (NXM_CACHE_KEEP + 1) * NXM_CACHE_SEGMENT);
}

static void
setup_limit(void)
{
	limit_one_more(3, check_pick(5));
}

/* kept: what is left to copies, too. */
static void
check_limit(uint64_t kept)
{
	uint64_t	used = nxm_load(&cache->used) + kept;

	if (used > nxm_load(&cache->max_bytes))
		check_fail("%d bytes past the limit", (int) (used - nxm_load(&cache->max_bytes)));
}

static void
body_limit(int proc)
{
	expiring = true;
	for (int i = 0; i < 4; i++)
	{
		random_operation(proc, i, true);
		check_limit(0);
	}
}

/* Both have a segment to open, and none is sealed that would make up for it. */
static void
setup_two_segments(void)
{
	limit_one_more(2, 1);
	/* what is new goes to small */
	nxm_store(&partition()->evicted, 1);
}

static void
open_at_the_limit(int proc)
{
	expiring = true;
	operate(SET, 3 + proc, 10 * proc, proc == 1 ? 0 : now(NULL) + 400, false);
	check_limit(NXM_CACHE_KEEP * NXM_CACHE_SEGMENT);
}

static void
finish_limit(void)
{
	check_limit(0);
	nxm_fetch_add(&cache->used, -(uint64_t) BALLAST);
	nxm_store(&cache->max_bytes, 0);
	finish();
}

/* Fills segments with other keys, so that those of the first keys are evicted. */
static void
fill(int proc, int first, int n)
{
	for (int i = 0; i < n; i++)
		operate(SET, first + i, 10 + 30 * (proc - 1) + i, 0, false);
}

static void
setup_full(void)
{
	setup(2, FEW, KEYS);
}

static void
get_while_evicted(int proc)
{
	if (proc == 1)
	{
		operate(GET, 6, 0, 0, false);
		operate(GET, 7, 0, 0, false);
	}
	else
		fill(proc, 0, 6);
}

/* Reclaims what it can, again and again, and writes to what was given back. */
static void
setup_two(void)
{
	setup(2, AMPLE, 1);
}

static void
get_while_reused(int proc)
{
	if (proc == 1)
		operate(GET, 0, 0, 0, false);
	else
	{
		operate(DELETE, 0, 0, 0, false);
		for (int i = 0; i < 4; i++)
		{
			operate(SET, 1, 41 + i, 0, false);
			operate(DELETE, 1, 0, 0, false);
		}
		tick(true);
		for (int i = 0; i < 4; i++)
			operate(SET, 2 + i, 50 + i, 0, false);
	}
}

static void
set_while_evicted(int proc)
{
	if (proc == 1)
	{
		operate(SET, 6, 10, 0, false);
		operate(GET, 6, 0, 0, false);
	}
	else
		fill(proc, 0, 5);
}

static void
evict_and_evict(int proc)
{
	fill(proc, 4 * (proc - 1), 3);
}

static void
overwrite_deadline(int proc)
{
	expiring = true;
	if (proc == 1)
	{
		operate(SET, 0, 10, now(NULL) + 400, false);
		nxm_fetch_add(clock, 500);
		operate(GET, 0, 0, 0, false);
	}
	else
	{
		operate(SET, 0, 40, 0, false);
		operate(GET, 0, 0, 0, false);
	}
}

/* A segment that expires while it is read, and reused. */
static void
setup_expiring(void)
{
	setup(2, AMPLE, 0);
	operate(SET, 0, 1, now(NULL) + 400, false);
}

static void
expire_and_get(int proc)
{
	expiring = true;
	if (proc == 1)
		operate(GET, 0, 0, 0, false);
	else
	{
		nxm_fetch_add(clock, 2000000);
		tick(true);
		operate(SET, 1, 40, 0, false);
	}
}

/*
 * A segment is mostly dead, and there is no page to copy the rest of it to; another one
 * expires.
 */
static NxmRef pages[60];
static int	npages;

static void
setup_no_pages(void)
{
	NxmSpace   *space;

	setup(1, 1000, KEYS);
	space = check_space();
	operate(SET, 0, 20, now(NULL) + 400, false);
	operate(DELETE, 1, 0, 0, false);
	operate(DELETE, 2, 0, 0, false);
	nxm_allocate_from(space, NXM_CACHE_ACCOUNT, 0);
	for (npages = 0; npages < LENGTH(pages); npages++)
		if ((pages[npages] = nxm_alloc(space, NXM_PAGE_SIZE)) == 0)
			break;
	nxm_allocate_from(space, 0, -1);
	check_assert(space->want == NXM_WANT_CHUNK);
}

static void
expire_without_pages(int proc)
{
	NxmCacheStats stats;

	(void) proc;
	expiring = true;
	nxm_fetch_add(clock, 2000000);
	tick(true);
	check_assert(nxm_cache_stats(view(), cache, 0, &stats));
	check_assert(stats.expirations == 1);
}

static void
finish_no_pages(void)
{
	while (npages > 0)
		nxm_free(check_space(), pages[--npages]);
	finish();
}

/* More than there are places to note has expired, for as many who evict it at once. */
static void
expire_for_many(int proc)
{
	enum { MANY = NXM_CACHE_RIPE + 2 };
	NxmVictim	victim[MANY + 1];
	NxmResult	result = NXM_OK;
	int			n = 0;

	(void) proc;
	expiring = true;
	/* two windows have segments open, of one entry each */
	for (int i = 0; i < MANY; i++)
		operate(SET, i, 1 + i, now(NULL) + 400 + 600000 * i, false);
	nxm_fetch_add(clock, 10000000);
	while (n < MANY + 1 && result == NXM_OK)
	{
		DO(result, nxm_cache_pick(view(), partition(), REACH_RIPE, &victim[n]));
		n += result == NXM_OK;
	}
	check_assert(result == NXM_ABSENT);
	if (n != MANY)
		check_fail("%d of %d segments that have expired can be evicted", n, MANY);
	while (n-- > 0)
		nxm_store(&victim[n].segment->word, victim[n].word - SEG_EVICTING + SEG_SEALED);
	nxm_fetch_add(clock, 10000000);
	tick(true);
	check_assert(nxm_cache_segment_bytes(partition()) == 0);
}

static void
clear_and_evict(int proc)
{
	if (proc == 1)
	{
		clear();
		tick(false);
	}
	else
		fill(proc, 0, 5);
}

/* Long values: the item that has one is retired when its key is written again. */
static void
setup_long(void)
{
	setup(2, AMPLE, 0);
	operate(SET, 0, 1, 0, true);
}

static void
get_long(int proc)
{
	if (proc == 1)
		operate(GET, 0, 0, 0, false);
	else
	{
		operate(SET, 0, 40, 0, true);
		operate(SET, 0, 41, 0, true);
		operate(SET, 1, 42, 0, true);
	}
}

/* Long values alone, none of them longer than others, so that a read has one stay. */
static void
setup_few_pages_for_long(void)
{
	setup(3, FEW + check_pick(3), 0);
}

static void
body_long(int proc)
{
	for (int i = 0; i < 5; i++)
	{
		int			key = check_pick(4);

		if (check_pick(2) == 0)
			operate(GET, key, 0, 0, false);
		else
			operate(SET, key, 10 + 30 * (proc - 1) + i, 0, true);
	}
}

/* Its bytes may be taken off as soon as it can be found. */
static void
set_and_delete_long(int proc)
{
	if (proc == 1)
		operate(SET, 0, 10, 0, true);
	else
		operate(DELETE, 0, 0, 0, false);
	check_assert((int64_t) nxm_load(&partition()->big) >= 0);
}

/* Overwritten again and again: rooms are written again while they are read. */
static void
setup_rooms(void)
{
	setup(2, AMPLE, 2);
}

static void
get_while_recycled(int proc)
{
	if (proc == 1)
	{
		operate(GET, 0, 0, 0, false);
		operate(GET, 1, 0, 0, false);
	}
	else
		for (int i = 0; i < 5; i++)
			operate(SET, i & 1, 40 + i, 0, false);
}

/*
 * The same with a batch of gets: what is loaded ahead for all of it has gone, or is another
 * key's, by the time of a key's own get.
 */
static void
get_many_while_recycled(int proc)
{
	static const int numbers[] = {0, 1, 0};

	if (proc == 1)
		get_many(numbers, LENGTH(numbers));
	else
		get_while_recycled(proc);
}

/* ... and while what it loads ahead is deleted, evicted, and its segments are opened again. */
static void
get_many_while_reused(int proc)
{
	static const int numbers[] = {1, 0, 2};

	if (proc == 1)
		get_many(numbers, LENGTH(numbers));
	else
		get_while_reused(proc);
}

/* Batches of gets, whatever others do. */
static void
body_many(int proc)
{
	int			nkeys = crowded ? CROWD : KEYS;

	for (int i = 0; i < 5; i++)
	{
		int			numbers[BATCH];
		int			n = 2 + check_pick(BATCH - 1);

		for (int k = 0; k < n; k++)
			numbers[k] = check_pick(nkeys);
		if (check_pick(3) == 0)
			get_many(numbers, n);
		else if (proc == 1 && check_pick(5) == 0)
			clear();
		else if (crowded && check_pick(2) == 0)
			operate(SET, numbers[0], 10 + 30 * (proc - 1) + i, 0, false);
		else
			random_operation(proc, i, expiring);
		if (check_pick(8) == 0)
			check_reattach();
	}
}

static void
setup_many_deadlines(void)
{
	setup_few_pages();
	expiring = true;
}

/* Read more often than its count goes. */
static void
body_hot(int proc)
{
	for (int i = 0; i < 3; i++)
		operate(GET, 0, 0, 0, false);
	if (proc == 1)
		operate(SET, 0, 40, 0, false);
	for (int i = 0; i < 3; i++)
		operate(GET, 0, 0, 0, false);
}

/* One reads what another overwrites, and a third one writes where that was. */
static void
setup_three_rooms(void)
{
	setup(3, AMPLE, 2);
	operate(SET, 0, 3, 0, false);
	operate(SET, 1, 4, 0, false);
}

static void
get_while_others_recycle(int proc)
{
	if (proc == 1)
		operate(GET, 0, 0, 0, false);
	else if (proc == 2)
		operate(SET, 0, 40, 0, false);
	else
		operate(SET, 1, 10, 0, false);
}

/*
 * A room is looked at by one while another takes it, writes it, and gives it again, and
 * a third one reads what was written.
 */
static void
setup_one_room(void)
{
	setup(3, AMPLE, 2);
	operate(SET, 0, 3, 0, false);
}

static void
look_while_given_again(int proc)
{
	if (proc == 1)
		operate(SET, 1, 10, 0, false);
	else if (proc == 2)
	{
		/* to where key 0 was at first, and from there to where it was then */
		operate(SET, 0, 40, 0, false);
		operate(SET, 0, 41, 0, false);
	}
	else
		operate(GET, 0, 0, 0, false);
}

/* A few keys are overwritten, read and deleted, so that their segments are ripe soon. */
static void
body_rooms(int proc)
{
	for (int i = 0; i < 8; i++)
	{
		int			key = check_pick(3);

		switch (check_pick(8))
		{
			case 0:
			case 1:
				operate(GET, key, 0, 0, false);
				break;
			case 2:
				operate(DELETE, key, 0, 0, false);
				break;
			case 3:
				tick(false);
				break;
			default:
				operate(SET, key, 10 + 30 * (proc - 1) + i, 0, false);
		}
	}
}

/* ... and while their segments are evicted, and opened again. */
static void
recycle_while_evicted(int proc)
{
	if (proc == 1)
		for (int i = 0; i < 4; i++)
			operate(SET, i % 2 == 0 ? 3 : 6, 10 + i, 0, false);
	else
	{
		/* with key 3 overwritten all of its segment is dead then */
		for (int i = 0; i < 3; i++)
			operate(DELETE, i, 0, 0, false);
		tick(true);
		/* a new key's item is written to the end of the log */
		fill(proc, 0, 3);
		operate(DELETE, 5, 0, 0, false);
		operate(SET, 5, 50, 0, false);
		operate(SET, 2, 51, 0, false);
	}
}

static void
setup_rooms_full(void)
{
	setup(2, AMPLE, KEYS);
}

/* ... and while one of them is evicted in two steps. */
static void
recycle_between_steps(int proc)
{
	NxmResult	result;

	if (proc == 1)
	{
		/* the room of the first one is behind the first step, and is that of the second */
		operate(SET, 0, 10, 0, false);
		operate(SET, 1, 11, 0, false);
		operate(GET, 1, 0, 0, false);
	}
	else
		for (int i = 0; i < 2; i++)
		{
			DO(result, nxm_cache_evict(view(), cache, partition(), i == 0 ? 1 : 100,
									   REACH_SEALED));
			check_assert(result == NXM_OK || result == NXM_ABSENT || result == NXM_EXISTS);
		}
}

/* Several ask the ghost for one key. */
static NxmAtomic *told;

static void
setup_ghost(void)
{
	setup(3, AMPLE, 1);
	told = check_shared(sizeof(*told), "told");
	nxm_enter(check_space());
	nxm_ghost_add(check_space(), &partition()->ghost[KIND_SMALL], hash_of(0));
	ghosts_added = 2;
	nxm_leave(check_space());
}

static void
take_ghost(int proc)
{
	bool		yes;
	uint64_t	since;

	nxm_enter(check_space());
	if (proc == 3)
		nxm_ghost_add(check_space(), &partition()->ghost[KIND_SMALL], hash_of(1));
	else
	{
		yes = nxm_ghost_take(check_space(), &partition()->ghost[KIND_SMALL], hash_of(0), &since);
		if (yes)
			nxm_fetch_add(told, 1);
	}
	nxm_leave(check_space());
}

static void
finish_ghost(void)
{
	uint64_t	since;

	if (nxm_load(told) != 1)
		check_fail("the ghost told %d of one eviction", (int) nxm_load(told));
	nxm_enter(check_space());
	if (!nxm_ghost_take(check_space(), &partition()->ghost[KIND_SMALL], hash_of(1), &since))
		check_fail("the ghost lost an eviction");
	nxm_leave(check_space());
	finish();
}

/*
 * Lines of counts come, and go if `removing`, while others count in them.  The second
 * process and the third have lines of their own when there are both.
 */
static NxmAtomic *gets;
static bool removing;

static void
set_counts(int make, int keep)
{
	NxmResult	result;
	NxmCachePartition *part;

	nxm_enter(check_space());
	part = partition_at(check_space(), cache, 0, &result);
	if (part != NULL)
	{
		nxm_cache_use_memory(view(), cache, part);
		nxm_counts_set(view(), cache, part, (uint64_t) make, (uint64_t) keep);
		nxm_cache_leave_memory(check_space());
	}
	nxm_leave(check_space());
}

static void
setup_counts(void)
{
	setup(3, AMPLE, 3);
	gets = check_shared(sizeof(*gets), "gets");
	removing = check_pick(2) == 0;
}

static void
body_counts(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		if (proc == 3 || check_pick(2) == 0)
		{
			operate(GET, check_pick(4), 0, 0, false);
			nxm_fetch_add(gets, 1);
		}
		else
			set_counts(1 + check_pick(2), removing ? check_pick(3) : 2);
	}
}

static void
finish_counts(void)
{
	NxmCacheStats stats;
	uint64_t	counted;

	set_counts(0, 0);
	check_assert(nxm_counts_bytes(partition()) == 0);
	nxm_enter(check_space());
	check_assert(nxm_cache_stats(view(), cache, 0, &stats));
	nxm_leave(check_space());
	counted = stats.local_hits + stats.remote_hits + stats.misses;
	/* what is counted in a block that has just gone is lost */
	if (counted > nxm_load(gets) || (!removing && counted != nxm_load(gets)))
		check_fail("%d hits and misses are counted of %d", (int) counted, (int) nxm_load(gets));
	check_assert(stats.used_bytes == nxm_load(&cache->used));
	finish();
}

/*
 * Is a key worth more than the oldest segment of main?  There was none, and then there
 * is one, which is full.
 */
static void
setup_no_segments(void)
{
	setup(2, AMPLE, 0);
}

static void
examine_while_filled(int proc)
{
	if (proc == 1)
	{
		nxm_enter(check_space());
		(void) nxm_cache_examine(check_space(), partition(), 0);
		nxm_leave(check_space());
	}
	else
		fill(proc, 0, 5);
}

/* It was sealed at no count that there has been: it is not old for that. */
static void
examine_at_no_count(int proc)
{
	NxmCachePartition *part = partition();
	NxmChainBlock *block = nxm_at(check_space(), nxm_load(&part->chain[KIND_MAIN].head));
	NxmCacheSegment *segment;

	fill(proc, 0, 5);
	segment = segment_named(check_space(), nxm_load(&block->entry[0]));
	check_assert(SEG_STATE(nxm_load(&segment->word)) == SEG_SEALED);
	nxm_store(&segment->sealed_at, nxm_load(&part->ghost[KIND_SMALL].count) + 1);
	nxm_enter(check_space());
	check_assert(!nxm_cache_examine(check_space(), part, 0));
	nxm_leave(check_space());
}

/* The chain alone: cleaned while names come, of which nothing is left. */
static void
body_names(int proc)
{
	NxmChain   *chain = &partition()->chain[KIND_MAIN];
	NxmAtomic  *entry;
	NxmResult	result;

	for (int i = 0; i < 4; i++)
	{
		if (proc == 1)
			DO(result, nxm_chain_clean(check_space(), chain, true));
		else
		{
			nxm_enter(check_space());
			nxm_allocate_from(check_space(), NXM_CACHE_ACCOUNT, 0);
			result = nxm_chain_reserve(check_space(), chain, 0, &entry);
			check_assert(result == NXM_OK);
			nxm_store(entry, NAME_GONE);
			nxm_allocate_from(check_space(), 0, -1);
			nxm_leave(check_space());
		}
		nxm_epoch_poll(check_space());
	}
}

/* Sparse segments are sought, a block in a step, while blocks are taken out. */
static void
setup_sought(void)
{
	NxmChain   *chain;
	NxmRef		second;
	NxmResult	result;

	setup(2, AMPLE, 0);
	chain = &partition()->chain[KIND_MAIN];
	body_names(2);
	body_names(2);
	second = nxm_load(&((NxmChainBlock *) nxm_at(check_space(), nxm_load(&chain->head)))->next);
	for (int i = 0; i < 2; i++)
	{
		check_assert(nxm_load(&chain->sought) == 0);
		DO(result, nxm_cache_find_sparse(check_space(), partition()));
		check_assert(result == NXM_ABSENT);
	}
	check_assert(nxm_load(&chain->sought) == second);
}

static void
seek_while_cleaned(int proc)
{
	NxmResult	result;

	for (int i = 0; i < 3; i++)
	{
		if (proc == 1)
			DO(result, nxm_chain_clean(check_space(), &partition()->chain[KIND_MAIN], true));
		else
			DO(result, nxm_cache_find_sparse(check_space(), partition()));
		nxm_epoch_poll(check_space());
	}
}

static void
setup_no_names(void)
{
	setup(1, AMPLE, 0);
}

/*
 * A chain of names that stay, of pages that nobody uses, in blocks of two.  Each is told by
 * its page.
 */
#define NAMES 24

static uint32_t
last_page(void)
{
	return (uint32_t) nxm_load(&check_space()->shared->chunks[0].published) - 1;
}

static void
add_name(int i, uint64_t due)
{
	uint32_t	page = last_page() - (uint32_t) i;
	uint64_t	word = nxm_load(nxm_page_words(check_space(), page));
	NxmAtomic  *entry;

	check_assert(SEG_STATE(word) == SEG_NONE);
	nxm_enter(check_space());
	nxm_allocate_from(check_space(), NXM_CACHE_ACCOUNT, 0);
	check_assert(nxm_chain_reserve(check_space(), &partition()->chain[KIND_MAIN], due,
								   &entry) == NXM_OK);
	nxm_store(entry, NAME_OF(page, SEG_LIFE(word)));
	nxm_allocate_from(check_space(), 0, -1);
	nxm_leave(check_space());
}

/*
 * Names that are not of `stay` go.  The others are there in order, and due by no later than
 * they were; of four blocks before the last one, if `clean`, no three would do.
 */
static void
check_names(uint32_t stay, const uint64_t *due, bool clean)
{
	NxmChain   *chain = &partition()->chain[KIND_MAIN];
	int			in_block[NAMES];
	int			nblocks = 0;
	int			next = 0;

	for (NxmRef ref = nxm_load(&chain->head); ref != 0;)
	{
		NxmChainBlock *block = nxm_at(check_space(), ref);

		in_block[nblocks] = 0;
		for (int i = 0; i < NXM_CHAIN_ENTRIES; i++)
		{
			uint64_t	name = nxm_load(&block->entry[i]);
			int			which = (int) (last_page() - NAME_PAGE(name));

			if (name == 0 || name == NAME_GONE)
				continue;
			check_assert(which >= next && which < NAMES);
			for (; next < which; next++)
				check_assert((stay >> next & 1) == 0);
			next = which + 1;
			check_assert(nxm_load(&block->due) <= due[which]);
			if ((stay >> which & 1) == 0)
				nxm_store(&block->entry[i], NAME_GONE);
			else
				in_block[nblocks]++;
		}
		nblocks++;
		ref = nxm_load(&block->next);
	}
	for (; next < NAMES; next++)
		check_assert((stay >> next & 1) == 0);
	check_assert(nxm_load(&chain->blocks) == (uint64_t) nblocks);
	for (int b = 0; clean && b + 4 < nblocks; b++)
		check_assert(in_block[b] + in_block[b + 1] + in_block[b + 2] + in_block[b + 3] >
					 3 * NXM_CHAIN_ENTRIES);
}

/* While they go, in any order, the chain is cleaned, by steps. */
static void
clean_names(int proc)
{
	NxmChain   *chain = &partition()->chain[KIND_MAIN];
	uint64_t	due[NAMES];
	uint32_t	stay = (UINT32_C(1) << NAMES) - 1;
	NxmVictim	victim;
	NxmResult	result;

	(void) proc;
	for (int i = 0; i < NAMES; i++)
	{
		due[i] = 100 + (uint64_t) check_pick(3);
		add_name(i, due[i]);
	}
	for (int steps = 0; steps < 20; steps++)
	{
		/* some, or the first ones */
		if (check_pick(2) == 0)
			stay &= ~(UINT32_C(1) << check_pick(NAMES));
		else if (check_pick(4) == 0)
			stay &= UINT32_MAX << check_pick(NAMES);
		check_names(stay, due, false);
		/* looks through all of it, and notes what is empty */
		DO(result, nxm_cache_pick(view(), partition(), REACH_SEALED, &victim));
		check_assert(result == NXM_ABSENT);
		DO(result, nxm_chain_clean(check_space(), chain, check_pick(4) != 0));
		check_assert(result == NXM_OK || result == NXM_EXISTS);
		nxm_epoch_poll(check_space());
	}
	/* the first time from where it was, then all of it */
	for (int i = 0; i < 2; i++)
	{
		do
		{
			DO(result, nxm_chain_clean(check_space(), chain, true));
			nxm_epoch_poll(check_space());
		} while (result == NXM_EXISTS);
		check_assert(result == NXM_OK && nxm_load(&chain->cleaned) == 0);
	}
	check_names(stay, due, true);
	check_names(0, due, false);
}

/* A step has come behind a block that is taken off the head then, and is gone. */
static void
clean_behind_what_goes(int proc)
{
	NxmChain   *chain = &partition()->chain[KIND_MAIN];
	uint64_t	due[NAMES] = {0};
	uint32_t	stay = UINT32_MAX << 10;
	NxmResult	result;

	(void) proc;
	for (int i = 0; i < NAMES; i++)
	{
		due[i] = UINT64_MAX;
		add_name(i, 0);
	}
	DO(result, nxm_chain_clean(check_space(), chain, true));
	check_assert(result == NXM_EXISTS && nxm_load(&chain->cleaned) != 0);
	check_names(stay, due, false);
	DO(result, nxm_chain_clean(check_space(), chain, false));
	for (int i = 0; i < 3; i++)
		nxm_epoch_poll(check_space());
	DO(result, nxm_chain_clean(check_space(), chain, true));
	check_assert(result == NXM_EXISTS);
	check_names(stay, due, false);
	check_names(0, due, false);
}

/* A name that is written while those behind it go, and blocks of such are taken out. */
static void
setup_one_name(void)
{
	setup(3, AMPLE, 0);
}

static void
write_while_cleaned(int proc)
{
	NxmResult	result;

	if (proc == 1)
		for (int i = 0; i < 2; i++)
		{
			NxmVictim	victim;

			DO(result, nxm_cache_pick(view(), partition(), REACH_SEALED, &victim));
			check_assert(result == NXM_ABSENT);
			DO(result, nxm_chain_clean(check_space(), &partition()->chain[KIND_MAIN], true));
		}
	else if (proc == 2)
		add_name(0, 0);
	else
		body_names(proc);
}

static void
finish_one_name(void)
{
	const uint64_t due[NAMES] = {UINT64_MAX};

	check_names(1, due, false);
	check_names(0, due, false);
	finish();
}

/* A chunk is needed for what cleaning retires: it is mapped first. */
static void
setup_far_names(void)
{
	setup(2, AMPLE, 0);
	for (int i = 0; i < 4; i++)
		body_names(2);
	check_far_record();
}

static void
clean_far_names(int proc)
{
	NxmSpace   *space = check_space();
	NxmResult	result;

	if (proc != 1)
		return;
	do
	{
		nxm_enter(space);
		result = nxm_chain_clean(space, &partition()->chain[KIND_MAIN], true);
		nxm_leave(space);
	} while (check_far_again(result) || result == NXM_EXISTS);
	check_assert(result == NXM_OK);
	check_assert(nxm_load(&space->shared->leaked) == 0);
	check_assert(nxm_load(&space->shared->orphans) != 0);
}

static void
finish_far_names(void)
{
	NxmSpace   *space = check_space();
	NxmResult	result;

	nxm_store(&space->lines[1].epoch, 0);
	check_free_held();
	DO(result, nxm_cache_drop(view(), cache));
	check_assert(result == NXM_OK);
	for (int i = 0; i < 200 && (result == NXM_OK || result == NXM_EXISTS); i++)
		DO(result, nxm_cache_drain(view(), cache));
	check_assert(result == NXM_ABSENT);
	check_far_free();
}

/* One that nobody has seen needs no memory to be freed, nor to wait for the epoch. */
static void
fini_unseen(int proc)
{
	NxmSpace   *space = check_space();
	NxmCache   *unseen = check_shared(sizeof(*unseen), "unseen");
	uint64_t	limbo = nxm_load(&space->shared->limbo);

	if (proc != 1)
		return;
	check_assert(nxm_cache_init(view(), unseen, 2, 0) == NXM_OK);
	nxm_cache_fini(space, unseen);
	check_assert(nxm_load(&unseen->used) == 0);
	check_assert(nxm_load(&space->shared->limbo) == limbo);
}

/* Cleaned while names come and segments go. */
static void
body_chain(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		operate(SET, check_pick(3), 10 + 30 * (proc - 1) + i, 0, false);
		if (proc == 1)
		{
			NxmResult	result;

			DO(result, nxm_chain_clean(check_space(), &partition()->chain[KIND_SMALL], true));
		}
		else
			tick(false);
	}
}

/* Of segments that are due at one time or another. */
static void
body_chain_deadlines(int proc)
{
	NxmResult	result;

	expiring = true;
	for (int i = 0; i < 4; i++)
	{
		random_operation(proc, i, true);
		if (proc == 1)
			for (int kind = 0; kind < 2; kind++)
				DO(result, nxm_chain_clean(check_space(), &partition()->chain[kind], true));
		else
			tick(false);
		nxm_epoch_poll(check_space());
	}
}

/* Dropped while it is written to. */
static void
setup_drop(void)
{
	setup(3, AMPLE, check_pick(6));
}

static void
body_drop(int proc)
{
	NxmResult	result;
	NxmKey		key = key_of(proc);
	NxmValue	value = check_value(proc, check_pick(2) ? 30 : 2);

	if (proc == 1)
	{
		DO(result, nxm_cache_drop(view(), cache));
		check_assert(result == NXM_OK);
		for (int i = 0; i < 3; i++)
			DO(result, nxm_cache_drain(view(), cache));
		return;
	}
	for (int i = 0; i < 3; i++)
	{
		DO(result, nxm_cache_set(view(), cache, &key, &value, 0));
		check_assert(result == NXM_OK || result == NXM_EXISTS || result == NXM_DROPPED);
		key = key_of(proc + 3);
	}
}

static void
setup_counts_drop(void)
{
	setup_drop();
	for (int i = 0; i < NXM_CACHE_COUNT_BLOCKS; i++)
		nxm_store(&partition()->counts[i], COUNTS_WANTED);
	if (check_pick(2) == 0)
		set_counts(2, 2);
}

/* The second process makes the blocks, the third one counts in its own. */
static void
body_counts_drop(int proc)
{
	if (proc == 1)
	{
		body_drop(proc);
		return;
	}
	for (int i = 0; i < 3; i++)
	{
		NxmKey		key = key_of(check_pick(2));
		char		bytes[32];
		NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};
		NxmResult	result;

		if (proc == 2)
		{
			set_counts(2, 2);
			continue;
		}
		DO(result, nxm_cache_get(view(), cache, &key, &buffer, NULL));
		check_assert(result == NXM_OK || result == NXM_ABSENT || result == NXM_DROPPED);
	}
}

static void
finish_drop(void)
{
	NxmResult	result = NXM_OK;

	for (int i = 0; i < 200 && result != NXM_ABSENT; i++)
		DO(result, nxm_cache_drain(view(), cache));
	check_assert(result == NXM_ABSENT);
	check_assert(nxm_load(&cache->used) == 0);
	check_all_free(0);
}

/*
 * The account is full.  The largest cache, which it is by its ballast, gives way to the other
 * one, while it is written to, and is dropped at times.
 */
static NxmRef large_ref;
static NxmCache *large;

/* As long as there is one. */
static NxmResult
set_in_largest(int number)
{
	NxmKey		key = key_of(number);
	NxmValue	value = check_value(1, 2);

	return nxm_load(largest) == 0 ? NXM_DROPPED :
		nxm_cache_set(view(), large, &key, &value, 0);
}

static void
setup_largest(void)
{
	NxmAccount *account;
	NxmResult	result;

	setup(3, AMPLE, 1);
	account = &check_space()->shared->account[NXM_CACHE_ACCOUNT];
	large_ref = nxm_alloc(check_space(), sizeof(*large));
	large = nxm_at(check_space(), large_ref);
	nxm_init(&large->max_bytes, 0);
	nxm_init(&large->used, BALLAST);
	DO(result, nxm_cache_init(view(), large, 1, 0));
	check_assert(result == NXM_OK);
	largest = check_shared(sizeof(*largest), "largest");
	nxm_init(largest, large_ref);
	for (int i = 0; i < KEYS; i++)
		DO(result, set_in_largest(i));
	nxm_store(&account->page_limit, nxm_load(&account->pages) + (uint64_t) check_pick(3));
}

static void
body_largest(int proc)
{
	bool		drops = proc == 3 && check_pick(2) == 0;
	NxmResult	result;

	if (drops)
	{
		nxm_store(largest, 0);
		DO(result, nxm_cache_drop(view(), large));
		check_assert(result == NXM_OK);
	}
	for (int i = 0; i < 4; i++)
	{
		if (drops)
			DO(result, nxm_cache_drain(view(), large));
		else if (proc == 1 || check_pick(2) == 0)
			random_operation(proc, i, false);
		else
		{
			DO(result, set_in_largest(check_pick(KEYS)));
			check_assert(result == NXM_OK || result == NXM_EXISTS || result == NXM_ABSENT ||
						 result == NXM_DROPPED);
		}
	}
}

static void
finish_largest(void)
{
	NxmResult	result;

	nxm_store(largest, 0);
	DO(result, nxm_cache_drop(view(), large));
	for (int i = 0; i < 200 && (result == NXM_OK || result == NXM_EXISTS); i++)
		DO(result, nxm_cache_drain(view(), large));
	check_assert(result == NXM_ABSENT);
	if (nxm_load(&large->used) != BALLAST)
		check_fail("%d bytes are used of a dropped cache", (int) (nxm_load(&large->used) - BALLAST));
	nxm_free(check_space(), large_ref);
	finish();
}

/*
 * The index grows.  A bucket of 3 has up to two overflow buckets of 2: the first in its
 * segment, others in extents.
 */
static void
setup_index(int procs, int pages, int n)
{
	static const int order[CROWD] = {0, 1, 2, 3, 6, 7, 8, 4, 5, 9};

	setup(procs, pages, 0);
	crowded = true;
	strict = pages == AMPLE;
	for (int i = 0; i < n; i++)
		operate(SET, order[i], order[i] + 1, 0, false);
}

static void
setup_crowd(void)
{
	setup_index(3, AMPLE, 3 + check_pick(6));
}

static void
setup_crowd_few_pages(void)
{
	setup_index(3, FEW + 2 + check_pick(4), 3 + check_pick(6));
}

static void
body_crowd(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		int			key = check_pick(CROWD);

		switch (check_pick(8))
		{
			case 0:
				operate(GET, key, 0, 0, false);
				break;
			case 1:
				operate(DELETE, key, 0, 0, false);
				break;
			case 2:
				tick(false);
				break;
			case 3:
				operate(ADD, key, 10 + 30 * (proc - 1) + i, 0, false);
				break;
			default:
				operate(SET, key, 10 + 30 * (proc - 1) + i, 0, false);
		}
	}
}

/* Cleared between. */
static void
body_crowd_clear(int proc)
{
	for (int i = 0; i < 3; i++)
	{
		operate(SET, check_pick(CROWD), 10 + 30 * (proc - 1) + i, 0, false);
		if (check_pick(5) == 0)
			clear();
		tick(false);
	}
}

/* One bucket with one overflow bucket, both full. */
static void
setup_bucket(void)
{
	setup_index(2, AMPLE, 5);
}

/* Both want another overflow bucket, of an extent that is yet to be. */
static void
extent_and_extent(int proc)
{
	operate(SET, proc == 1 ? 5 : 7, 10 * proc, 0, false);
	operate(GET, proc == 1 ? 7 : 5, 0, 0, false);
}

/*
 * Two buckets: the second one has an overflow bucket, and is to have another, of an
 * extent.  So is the first one, which can't use it, because its four keys are of one
 * side: the segment is split, and retired.
 */
static void
setup_sides(void)
{
	setup_index(2, AMPLE, 8);
}

static void
extent_and_split(int proc)
{
	operate(SET, proc == 1 ? 5 : 9, 10 * proc, 0, false);
	operate(GET, proc == 1 ? 9 : 5, 0, 0, false);
}

static void
extent_and_clear(int proc)
{
	if (proc == 1)
		operate(SET, 5, 10, 0, false);
	else
	{
		clear();
		tick(true);
	}
}

#define OFTEN CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL
#define ALL CHECK_EXHAUSTIVE, 20000
/* of more than a test has time for */
#define SOME CHECK_EXHAUSTIVE | CHECK_BOUNDED, 20000

static const char *const giving_back[] = {
	"give_back", "nxm_page_is_read", "check_item", "look_up_fast", "take_room",
	"open_segment", NULL
};

static const char *const opening[] = {
	"nxm_cache_room", "nxm_take_bytes", "open_segment", NULL
};

static const char *const recycling[] = {
	"take", "clear_rooms", "nxm_hazards_on", "nxm_cache_give_room", "check_item", "look_up_fast", NULL
};

static const char *const examining[] = {
	"nxm_cache_examine", "nxm_cache_main_has_share", "open_segment", NULL
};

static const char *const reading[] = {
	"check_item", "read_entry", "clear_rooms", "nxm_hazards_on", NULL
};

/* between look and store, between two writes, between the second look at a slot and the copy */
static const char *const looking[] = {
	"clear_rooms", "nxm_leave", "read_entry", NULL
};

static const char *const recycling_and_giving_back[] = {
	"take", "claim", "give_back", "open_segment", NULL
};

static const char *const recycling_and_stepping[] = {"take", "claim", "work_on", NULL};

static const char *const extending[] = {
	"nxm_map_make_room", "add_extent", "pool_size", "nxm_map_insert", NULL
};

static const char *const migrating[] = {"nxm_map_make_room", "nxm_map_migrate", NULL};

static const char *const growing[] = {
	"nxm_map_make_room", "add_extent", "pool_size", "nxm_map_migrate", "nxm_map_retire_segment",
	"keep_house", NULL
};

static const CheckCase cases[] = {
	{"as a map", 3, setup_map, body, finish, OFTEN, NULL},
	{"few pages", 3, setup_few_pages, body, finish, OFTEN, NULL},
	{"long values and few pages", 3, setup_few_pages_for_long, body_long, finish, OFTEN, NULL},
	{"deadlines", 3, setup_ample, body_deadlines, finish, OFTEN, NULL},
	{"deadlines and few pages", 3, setup_few_pages, body_deadlines, finish, OFTEN, NULL},
	{"deadlines that change", 3, setup_expire, body_expire, finish, OFTEN, NULL},
	{"clear", 3, setup_few_pages, body_clear, finish, OFTEN, NULL},
	{"limit below the index", 3, setup_lowered, body_lowered, finish_lowered, OFTEN, NULL},
	{"limit of the cache's own", 3, setup_limit, body_limit, finish_limit, OFTEN, NULL},
	{"chains cleaned", 3, setup_ample, body_chain, finish, OFTEN, NULL},
	{"chains with deadlines cleaned", 3, setup_ample, body_chain_deadlines, finish, OFTEN, NULL},
	{"names that go while a chain is cleaned by steps", 1, setup_no_names, clean_names, finish, CHECK_RANDOM, 500, 0, 0, NULL, NULL},
	{"a step of cleaning behind a block that goes", 1, setup_no_names, clean_behind_what_goes, finish, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"a name that is written while a chain is cleaned", 3, setup_one_name, write_while_cleaned, finish_one_name, OFTEN, NULL},
	{"a chunk needed for what cleaning retires", 2, setup_far_names, clean_far_names, finish_far_names, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"a cache that nobody has seen", 2, setup_ample, fini_unseen, finish, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"names alone", 3, setup_ample, body_names, finish, OFTEN, NULL},
	{"sparse segments sought while chains are cleaned", 2, setup_sought, seek_while_cleaned, finish, OFTEN, NULL},
	{"drop", 3, setup_drop, body_drop, finish_drop, OFTEN, NULL},
	{"a key that is read often", 2, setup_rooms, body_hot, finish, OFTEN, NULL},
	{"rooms that are written again", 3, setup_ample, body_rooms, finish, OFTEN, NULL},
	{"batches and few pages", 3, setup_few_pages, body_many, finish, OFTEN, NULL},
	{"batches, deadlines and few pages", 3, setup_many_deadlines, body_many, finish, OFTEN, NULL},
	{"batches and crowded buckets", 3, setup_crowd, body_many, finish, OFTEN, NULL},
	{"crowded buckets", 3, setup_crowd, body_crowd, finish, OFTEN, NULL},
	{"crowded buckets and few pages", 3, setup_crowd_few_pages, body_crowd, finish, OFTEN, NULL},
	{"crowded buckets cleared", 3, setup_crowd, body_crowd_clear, finish, OFTEN, NULL},
	{"counts", 3, setup_counts, body_counts, finish_counts, OFTEN, NULL},
	{"counts of a dropped cache", 3, setup_counts_drop, body_counts_drop, finish_drop, OFTEN, NULL},
	{"the largest cache gives way", 3, setup_largest, body_largest, finish_largest, OFTEN, NULL},
	{"ghost", 3, setup_ghost, take_ghost, finish_ghost, OFTEN, NULL},
	{"all schedules of a key that is examined and the first segments", 2, setup_no_segments, examine_while_filled, finish, ALL, 1, 0, NULL, examining},
	{"a segment that was sealed at no count", 1, setup_no_segments, examine_at_no_count, finish, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"all schedules of get and a segment that is reused", 2, setup_two, get_while_reused, finish, ALL, 3, 1, NULL, giving_back},
	{"all schedules of get and eviction", 2, setup_full, get_while_evicted, finish, ALL, 1, 1, NULL, NULL},
	{"schedules of set and eviction", 2, setup_full, set_while_evicted, finish, SOME, 1, 1, NULL, NULL},
	{"schedules of eviction and eviction", 2, setup_full, evict_and_evict, finish, SOME, 1, 1, NULL, NULL},
	{"all schedules of overwriting what has a deadline", 2, setup_two, overwrite_deadline, finish, ALL, 1, 1, NULL, NULL},
	{"all schedules of expiry and get", 2, setup_expiring, expire_and_get, finish, ALL, 2, 1, NULL, giving_back},
	{"all schedules of segments opened at the limit", 2, setup_two_segments, open_at_the_limit, finish_limit, ALL, 2, 0, NULL, opening},
	{"what has expired comes before what is to be copied", 1, setup_no_pages, expire_without_pages, finish_no_pages, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"more has expired than there are places to note", 1, setup_no_segments, expire_for_many, finish, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"all schedules of clear and eviction", 2, setup_full, clear_and_evict, finish, ALL, 1, 0, NULL, NULL},
	{"all schedules of get and a room that is written again", 2, setup_rooms, get_while_recycled, finish, ALL, 3, 2, NULL, recycling},
	{"all schedules of a batch and rooms that are written again", 2, setup_rooms, get_many_while_recycled, finish, ALL, 2, 1, NULL, NULL},
	{"all schedules of a batch and a segment that is reused", 2, setup_two, get_many_while_reused, finish, ALL, 2, 0, NULL, NULL},
	{"schedules of get and a room that others give and take", 3, setup_three_rooms, get_while_others_recycle, finish, SOME, 3, 2, NULL, reading},
	{"all schedules of a room that is looked at and given again", 3, setup_one_room, look_while_given_again, finish, ALL, 3, 0, NULL, looking},
	{"schedules of a room that is written again and eviction", 2, setup_full, recycle_while_evicted, finish, SOME, 2, 1, NULL, recycling_and_giving_back},
	{"all schedules of a room that is written again between steps of eviction", 2, setup_rooms_full, recycle_between_steps, finish, ALL, 2, 1, NULL, recycling_and_stepping},
	{"all schedules of extent and extent", 2, setup_bucket, extent_and_extent, finish, ALL, 2, 1, NULL, extending},
	{"schedules of extent and split", 2, setup_sides, extent_and_split, finish, SOME, 2, 1, NULL, growing},
	{"all schedules of an overflow bucket and migration", 2, setup_sides, extent_and_split, finish, ALL, 2, 0, NULL, migrating},
	{"schedules of extent and clear", 2, setup_sides, extent_and_clear, finish, SOME, 3, 1, NULL, growing},
	{"all schedules of long values", 2, setup_long, get_long, finish, ALL, 1, 1, NULL, NULL},
	{"all schedules of a long value that is set and deleted", 2, setup_no_segments, set_and_delete_long, finish, ALL, 1, 0, NULL, NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_cache", cases, LENGTH(cases));
}
