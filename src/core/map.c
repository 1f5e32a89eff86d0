/*
 * map.c
 *	  The hash map: looking up, writing, iterating.  map.h has the design.
 *
 * Orders.  Slots and headers are changed by CAS alone (release) and read with
 * acquire where what they name is read; a scan over the tags is relaxed, and a
 * slot that it found is read again with acquire after its item was protected.
 * Successor segments are published by the CAS of `next`, directories by the
 * store of `directory`.
 */
#include "map_internal.h"

uint64_t
nxm_map_entries(NxmMap *map)
{
	uint64_t	sum = 0;

	for (int i = 0; i < NXM_MAP_STATS; i++)
		sum += nxm_load_relaxed(&map->stats[i].entries);
	/* a delete may be counted, and the insert before it not yet */
	return (int64_t) sum < 0 ? 0 : sum;
}

uint64_t
nxm_map_bytes(NxmMap *map)
{
	uint64_t	sum = 0;

	for (int i = 0; i < NXM_MAP_STATS; i++)
		sum += nxm_load_relaxed(&map->stats[i].bytes);
	return (int64_t) sum < 0 ? 0 : sum;
}

NxmResult
nxm_map_init(NxmSpace *space, NxmMap *map)
{
	uint64_t	body = nxm_map_new_body(space);

	if (body == 0)
		return nxm_no_object(space);
	nxm_store(&map->directory, body);
	return NXM_OK;
}

/*
 * Where the directory says that a position is.  NXM_OK: the bucket may be in any
 * state.
 */
static inline NxmResult
look_in_directory(NxmSpace *space, NxmMap *map, uint64_t position, NxmPlace *place)
{
	uint64_t	directory;
	NxmAtomic  *entry;
	uint64_t	word;

	do
	{
		directory = nxm_load(&map->directory);
		if (__builtin_expect((directory & NXM_REF_MASK) == 0, 0))
			return NXM_DROPPED;
		entry = directory_entry(space, directory,
								first_bits(position, directory_depth(directory)));
		if (__builtin_expect(entry == NULL, 0))
			return NXM_NEED_CHUNK;
		word = nxm_load(entry);
		/* of a body that has been cut off and drained meanwhile: anew */
	} while (__builtin_expect((word & NXM_REF_MASK) == 0, 0));
	place->parent = NULL;
	place->log = (uint32_t) (word >> ENTRY_LOG_SHIFT) & 0x3F;
	place->depth = (uint32_t) (word >> ENTRY_DEPTH_SHIFT) & 0x3F;
	place->seg = nxm_at(space, word & NXM_REF_MASK);
	return __builtin_expect(place->seg == NULL, 0) ? NXM_NEED_CHUNK : NXM_OK;
}

/* The bucket of a position in place->seg. */
static inline void
look_in_segment(uint64_t position, NxmPlace *place)
{
	uint64_t	b = bucket_number(position, place->depth, place->log);

	place->bucket = &place->seg->bucket[b];
	place->header = nxm_load(&place->bucket->header);
	place->overflow = overflows_of(place->seg, place->log);
}

/* For locate(): the bucket at place is not open. */
static __attribute__((noinline)) NxmResult
locate_slow(NxmSpace *space, NxmMap *map, uint64_t position, NxmPlace *place)
{
	while ((place->header & H_STATUS) != H_OPEN)
	{
		uint64_t	next = nxm_load(&place->seg->next);
		NxmResult	result;

		if (next == CUT)
		{
			result = look_in_directory(space, map, position, place);
			if (result != NXM_OK)
				return result;
			look_in_segment(position, place);
			continue;
		}
		if ((place->header & H_MIGRATED) == 0)
		{
			result = nxm_map_migrate(space, place->seg,
									 (uint32_t) (place->bucket - place->seg->bucket));
			if (result != NXM_OK)
				return result;
		}
		place->parent = place->seg;
		place->seg = nxm_at(space, next);
		if (place->seg == NULL)
			return NXM_NEED_CHUNK;
		if (NXM_GET(place->seg->sibling) != 0 &&
			(position << place->depth >> 63) != 0)
		{
			place->seg = nxm_at(space, NXM_GET(place->seg->sibling));
			if (place->seg == NULL)
				return NXM_NEED_CHUNK;
		}
		place->depth = NXM_GET(place->seg->depth);
		place->log = NXM_GET(place->seg->log);
		look_in_segment(position, place);
	}
	return NXM_OK;
}

/* Finds the OPEN bucket of a position, migrating what is on the way to it. */
static inline __attribute__((always_inline)) NxmResult
locate(NxmSpace *space, NxmMap *map, uint64_t position, NxmPlace *place)
{
	NxmResult	result = look_in_directory(space, map, position, place);

	if (__builtin_expect(result != NXM_OK, 0))
		return result;
	look_in_segment(position, place);
	if (__builtin_expect((place->header & H_STATUS) != H_OPEN, 0))
	{
		/* a copy, so that ours need not be in memory */
		NxmPlace	copy = *place;

		result = locate_slow(space, map, position, &copy);
		*place = copy;
	}
	return result;
}

/*
 * Which of n words may be slots of interest to look_up(): those OPEN with our
 * tag, and all TENTATIVE and FROZEN ones, which have the first bit set.  No
 * branches: which slot it will be can't be predicted.  A hint: the word is loaded
 * again before it counts.
 */
static inline uint32_t
candidates(NxmAtomic *words, int n, uint64_t want)
{
	uint32_t	mask = 0;

#pragma GCC unroll 8
	for (int i = 0; i < n; i++)
	{
		uint64_t	differs = (nxm_load_relaxed(&words[i]) ^ want) &
			(STATE_MASK | TAG_MASK);

		mask |= (uint32_t) ((int64_t) differs <= 0) << i;
	}
	return mask;
}

/*
 * The same of the eight words of a line, where the processor has vectors of 16
 * bytes: it loads each aligned word of one whole.  State and tag are in the upper
 * halves of words.
 */
#if defined(__SSE2__) && !defined(NXM_CHECKED) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>

static inline __m128i
upper_halves(const __m128i *two)
{
	return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(_mm_load_si128(two)),
										   _mm_castsi128_ps(_mm_load_si128(two + 1)),
										   _MM_SHUFFLE(3, 1, 3, 1)));
}

static inline uint32_t
candidates_of_eight(NxmAtomic *words, uint64_t want)
{
	const __m128i *line = (const __m128i *) words;
	const __m128i mask = _mm_set1_epi32((int) ((STATE_MASK | TAG_MASK) >> 32));
	const __m128i wanted = _mm_set1_epi32((int) (want >> 32));
	__m128i		a = upper_halves(line);
	__m128i		b = upper_halves(line + 2);

	a = _mm_or_si128(a, _mm_cmpeq_epi32(_mm_and_si128(a, mask), wanted));
	b = _mm_or_si128(b, _mm_cmpeq_epi32(_mm_and_si128(b, mask), wanted));
	/* the first bits of all: set in the word, or equal */
	return (uint32_t) _mm_movemask_ps(_mm_castsi128_ps(a)) |
		(uint32_t) _mm_movemask_ps(_mm_castsi128_ps(b)) << 4;
}

_Static_assert(LINE_WORDS == 8, "a line is eight words");
#else
#define candidates_of_eight(words, want) candidates(words, LINE_WORDS, want)
#endif

/* The same of a line of a bucket; bit i: its word i. */
static inline uint32_t
candidates_in_line(NxmBucket *bucket, int line, uint64_t want)
{
	uint32_t	header = line == 0;

	/* the header is none */
	return candidates_of_eight(&bucket->header + line * LINE_WORDS, want) & ~header;
}

/*
 * Protects the item of a slot that was seen with word w, OPEN and not EMPTY, and
 * looks whether it has the key.  *item: NULL if not.  NXM_EXISTS: the slot has
 * another word by now, which is in *w.
 */
static inline __attribute__((always_inline)) NxmResult
check_item(NxmSpace *space, NxmAtomic *slot, uint64_t *w, const NxmKey *key,
		   NxmItem **item)
{
	NxmItem    *at = nxm_at(space, *w & NXM_REF_MASK);
	uint64_t	confirmed;

	*item = NULL;
	if (__builtin_expect(at == NULL, 0))
		return NXM_NEED_CHUNK;
	/* they come while the fence waits */
	__builtin_prefetch(at);
	__builtin_prefetch((char *) at + NXM_CACHE_LINE);
	__builtin_prefetch((char *) at + 2 * NXM_CACHE_LINE);
	nxm_protect(space, *w & NXM_REF_MASK);
	confirmed = nxm_load(slot);
	if (__builtin_expect(confirmed != *w, 0))
	{
		*w = confirmed;
		return NXM_EXISTS;
	}
	if (__builtin_expect(nxm_item_has_key(at, key), 1))
		*item = at;
	return NXM_OK;
}

/*
 * Looks a key up in the chain at place.  *item: its protected item, *slot and
 * *word where it is; NULL if there is none.  NXM_EXISTS: the chain changes its
 * shape: locate it anew.
 */
static inline __attribute__((always_inline)) NxmResult
look_up(NxmSpace *space, const NxmPlace *place, uint64_t tag, const NxmKey *key,
		NxmItem **item, int *slot, uint64_t *word)
{
	uint64_t	want = OPEN | tag;
	int			line = preferred_line(tag);
	int			part = 0;		/* preferred line, the other, overflow */
	int			before = line * LINE_WORDS - 1; /* the slot of bit 0 in mask */
	uint32_t	mask = candidates_in_line(place->bucket, line, want);

	*item = NULL;
	for (;;)
	{
		int			i;
		NxmAtomic  *at;
		uint64_t	w;

		if (mask == 0)
		{
			if (part == 0)
			{
				line = 1 - line;
				before = line * LINE_WORDS - 1;
				mask = candidates_in_line(place->bucket, line, want);
			}
			else if (part == 1 && (place->header & H_OVERFLOW) != 0)
			{
				before = NXM_BUCKET_SLOTS;
				mask = candidates(slot_at(place, place->header, before),
								  NXM_OVERFLOW_SLOTS, want);
			}
			else
				return NXM_OK;
			part++;
			continue;
		}
		i = before + __builtin_ctz(mask);
		mask &= mask - 1;
		at = slot_at(place, place->header, i);
		w = nxm_load_relaxed(at);

again:
		if ((w & STATE_MASK) == OPEN)
		{
			NxmResult	result;

			if ((w & TAG_MASK) != tag || w == EMPTY)
				continue;
			result = check_item(space, at, &w, key, item);
			if (__builtin_expect(result == NXM_EXISTS, 0))
				goto again;
			if (__builtin_expect(result != NXM_OK, 0))
				return result;
			if (*item != NULL)
			{
				*slot = i;
				*word = w;
				return NXM_OK;
			}
		}
		else if ((w & STATE_MASK) == FROZEN)
			return NXM_EXISTS;
		else if ((w & TAG_MASK) == tag)
		{
			uint64_t	header = nxm_load(&place->bucket->header);

			if (pending_slot(header) == i)
			{
				nxm_map_complete_pending(space, place, header);
				return NXM_EXISTS;
			}
		}
	}
}

/* The number of an EMPTY slot of the chain, in the preferred line if it can be; -1. */
static int
empty_slot(const NxmPlace *place, uint64_t tag)
{
	int			n = chain_slots(place->header);
	int			first = preferred_line(tag) == 0 ? 0 : FIRST_LINE_SLOTS;

	for (int i = 0; i < n; i++)
	{
		int			slot = i >= NXM_BUCKET_SLOTS ? i :
			first + i < NXM_BUCKET_SLOTS ? first + i : first + i - NXM_BUCKET_SLOTS;

		if (nxm_load_relaxed(slot_at(place, place->header, slot)) == EMPTY)
			return slot;
	}
	return -1;
}

/*
 * The common case of a get: the key is in a LIVE slot of the preferred line of
 * the bucket that the directory names.  *item is NULL where it is not, or not so
 * simple.
 *
 * The bucket's header is not looked at.  Segments in the directory have been
 * filled, so an OPEN slot there is no work in progress; and if the bucket is
 * frozen, or has migrated, those of its slots that are not FROZEN still are what
 * counts, for migrating begins to fill a successor when all of them are.
 */
static inline __attribute__((always_inline)) NxmResult
look_up_fast(NxmSpace *space, NxmMap *map, uint64_t position, const NxmKey *key,
			 NxmItem **item)
{
	NxmPlace	place;
	uint64_t	tag = tag_of(position);
	int			line = preferred_line(tag);
	uint32_t	mask;
	NxmResult	result = look_in_directory(space, map, position, &place);

	*item = NULL;
	if (__builtin_expect(result != NXM_OK, 0))
		return result;
	place.bucket = &place.seg->bucket[bucket_number(position, place.depth, place.log)];
	mask = candidates_in_line(place.bucket, line, OPEN | tag);
	if (mask != 0)
	{
		NxmAtomic  *slot = &place.bucket->header + line * LINE_WORDS +
			__builtin_ctz(mask);
		uint64_t	w = nxm_load_relaxed(slot);

		if ((w & (STATE_MASK | TAG_MASK)) == (OPEN | tag) && w != EMPTY)
			result = check_item(space, slot, &w, key, item);
	}
	return result == NXM_EXISTS ? NXM_OK : result;
}

NxmResult
nxm_map_get(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmBuffer *buffer)
{
	uint64_t	position = position_of(key->hash);
	NxmItem    *item;
	NxmResult	result = look_up_fast(space, map, position, key, &item);

	while (__builtin_expect(item == NULL, 0))
	{
		NxmPlace	place;
		int			slot;
		uint64_t	word;

		if (result != NXM_OK && result != NXM_EXISTS)
			return result;
		result = locate(space, map, position, &place);
		if (result != NXM_OK)
			return result;
		result = look_up(space, &place, tag_of(position), key, &item, &slot,
						 &word);
		if (result == NXM_OK && item == NULL)
			return NXM_ABSENT;
	}
	NXM_PAUSE("get");
	return nxm_item_copy(space, item, buffer);
}

/* Makes the item that a write stores. */
static NxmResult
make_item(NxmSpace *space, const NxmKey *key, uint64_t position,
		  const NxmWrite *write, NxmRef *ref, size_t *bytes)
{
	NxmResult	result = nxm_item_new(space, key, &write->value, false, ref);
	NxmItem    *item;

	if (result != NXM_OK)
	{
		*ref = 0;
		return result;
	}
	item = nxm_at(space, *ref);
	/* the position's first bits, for splits of small maps */
	NXM_SET(item->header, item->header | position >> 36 << 32);
	*bytes = nxm_item_bytes(item);
	return NXM_OK;
}

/*
 * Puts a new item into an EMPTY slot of the chain as it was looked up.  false:
 * something changed, the item is still ours.
 */
static bool
insert(NxmSpace *space, const NxmPlace *place, int slot, uint64_t tag, NxmRef ref)
{
	NxmAtomic  *at = slot_at(place, place->header, slot);
	uint64_t	word = EMPTY;
	uint64_t	tentative = TENTATIVE | tag | ref;
	uint64_t	header = place->header;
	uint64_t	committed = next_version(header) |
		(uint64_t) (slot + 1) << H_PENDING_SHIFT;

	/* once committed it may be deleted before we have made it LIVE */
	nxm_protect(space, ref);
	if (!nxm_cas(at, &word, tentative))
		return false;
	NXM_PAUSE("reserved");
	if (!nxm_cas(&place->bucket->header, &header, committed))
	{
		/* fails if the bucket froze, and with it the reservation */
		(void) nxm_cas(at, &tentative, EMPTY);
		return false;
	}
	NXM_PAUSE("committed");
	(void) nxm_cas(at, &tentative, OPEN | tag | ref);
	(void) nxm_cas(&place->bucket->header, &committed,
				   next_version(committed) & ~H_PENDING);
	return true;
}

/* nxm_map_write(), to be compiled for the commonest decide() too. */
static inline __attribute__((always_inline)) NxmResult
do_write(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write,
		 NxmAction (*decide) (NxmSpace *, NxmWrite *, const NxmItem *))
{
	uint64_t	position = position_of(key->hash);
	uint64_t	tag = tag_of(position);
	NxmSegment    *growing = NULL;
	NxmRef		ref = 0;		/* of the item that we store */
	size_t		bytes = 0;
	NxmResult	result;

	for (;;)
	{
		NxmPlace		place;
		NxmItem    *item;
		int			slot = 0;
		int			free;
		uint64_t	word = 0;
		NxmAction	action;

		result = locate(space, map, position, &place);
		if (result != NXM_OK)
			break;
		if (place.parent != NULL)
			growing = place.parent;
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		result = look_up(space, &place, tag, key, &item, &slot, &word);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			break;

		action = decide(space, write, item);
		result = write->result;
		if (action == NXM_KEEP || result == NXM_NEED_CHUNK ||
			(item == NULL && action == NXM_REMOVE))
			break;
		if (action == NXM_STORE)
		{
			if (ref != 0 && write->value_varies)
			{
				nxm_item_free(space, ref);
				ref = 0;
			}
			if (ref == 0)
			{
				NxmResult	made = make_item(space, key, position, write, &ref,
											 &bytes);

				if (made != NXM_OK)
				{
					result = made;
					break;
				}
			}
		}

		if (item != NULL)
		{
			uint64_t	header = nxm_load(&place.bucket->header);
			size_t		old_bytes;

			/* a slot is changed only when its insert is not pending any more */
			if (pending_slot(header) == slot)
			{
				nxm_map_complete_pending(space, &place, header);
				continue;
			}
			if (!nxm_item_is_mapped(space, item))
			{
				result = NXM_NEED_CHUNK;
				break;
			}
			old_bytes = nxm_item_bytes(item);
			if (!nxm_cas(slot_at(&place, place.header, slot), &word,
						 action == NXM_STORE ? OPEN | tag | ref : EMPTY))
				continue;
			nxm_retire(space, word & NXM_REF_MASK);
			if (action == NXM_STORE)
				nxm_map_count(space, map, 0, (int64_t) bytes - (int64_t) old_bytes);
			else
				nxm_map_count(space, map, -1, -(int64_t) old_bytes);
			if (action == NXM_STORE)
				ref = 0;
			break;
		}

		free = empty_slot(&place, tag);
		if (free < 0)
		{
			NxmResult	made = nxm_map_make_room(space, map, &place, position);

			if (made != NXM_OK)
			{
				result = made;
				break;
			}
			continue;
		}
		if (insert(space, &place, free, tag, ref))
		{
			ref = 0;
			nxm_map_count(space, map, 1, (int64_t) bytes);
			break;
		}
	}
	if (ref != 0)
		nxm_item_free(space, ref);
	if (growing != NULL)
		nxm_map_help_growth(space, map, growing, position);
	return result;
}

NxmResult
nxm_map_write(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write)
{
	return do_write(space, map, key, write, write->decide);
}

static inline NxmAction
decide_put(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	(void) space;
	write->result = item == NULL ? NXM_OK : NXM_EXISTS;
	return NXM_STORE;
}

NxmResult
nxm_map_put(NxmSpace *space, NxmMap *map, const NxmKey *key,
			const NxmValue *value)
{
	NxmWrite	write = {.value = *value};

	return do_write(space, map, key, &write, decide_put);
}

static NxmAction
decide_put_if(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	const NxmValue *expected = write->context;

	if (expected == NULL)
		write->result = item == NULL ? NXM_OK : NXM_EXISTS;
	else if (item == NULL)
		write->result = NXM_ABSENT;
	else
		write->result = nxm_item_compare(space, item, expected);
	return write->result == NXM_OK ? NXM_STORE : NXM_KEEP;
}

NxmResult
nxm_map_put_if(NxmSpace *space, NxmMap *map, const NxmKey *key,
			   const NxmValue *expected, const NxmValue *value)
{
	NxmWrite	write = {.decide = decide_put_if,.value = *value,
		.context = (void *) expected};

	return nxm_map_write(space, map, key, &write);
}

static NxmAction
decide_delete(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	(void) space;
	write->result = item == NULL ? NXM_ABSENT : NXM_OK;
	return NXM_REMOVE;
}

NxmResult
nxm_map_delete(NxmSpace *space, NxmMap *map, const NxmKey *key)
{
	NxmWrite	write = {.decide = decide_delete};

	return nxm_map_write(space, map, key, &write);
}

typedef struct Addition
{
	int64_t		delta;
	int64_t		sum;
	char		text[24];
} Addition;

/* An optional sign and digits, that fit. */
static bool
parse_integer(const char *s, size_t len, int64_t *result)
{
	bool		negative = len > 0 && s[0] == '-';
	size_t		i = len > 0 && (s[0] == '-' || s[0] == '+') ? 1 : 0;
	int64_t		value = 0;

	if (i == len)
		return false;
	for (; i < len; i++)
	{
		if (s[i] < '0' || s[i] > '9' ||
			__builtin_mul_overflow(value, 10, &value) ||
			__builtin_sub_overflow(value, s[i] - '0', &value))
			return false;
	}
	/* gathered negative, for there is one more of these */
	if (!negative && value == INT64_MIN)
		return false;
	*result = negative ? value : -value;
	return true;
}

static uint32_t
print_integer(int64_t value, char *to)
{
	char		digits[24];
	uint32_t	n = 0;
	uint32_t	len = 0;
	uint64_t	rest = value < 0 ? -(uint64_t) value : (uint64_t) value;

	do
		digits[n++] = (char) ('0' + rest % 10);
	while ((rest /= 10) != 0);
	if (value < 0)
		to[len++] = '-';
	while (n > 0)
		to[len++] = digits[--n];
	return len;
}

static NxmAction
decide_add(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	Addition   *addition = write->context;
	int64_t		old = 0;

	if (item != NULL)
	{
		char		text[24];
		NxmBuffer	buffer = {text, sizeof(text), 0, NXM_TEXT};

		write->result = nxm_item_copy(space, item, &buffer);
		if (write->result == NXM_NEED_CHUNK)
			return NXM_KEEP;
		if (write->result != NXM_OK || buffer.type != NXM_TEXT ||
			!parse_integer(text, buffer.len, &old))
		{
			write->result = NXM_MISMATCH;
			return NXM_KEEP;
		}
	}
	if (__builtin_add_overflow(old, addition->delta, &addition->sum))
	{
		write->result = NXM_OVERFLOW;
		return NXM_KEEP;
	}
	write->result = NXM_OK;
	write->value.data = addition->text;
	write->value.len = print_integer(addition->sum, addition->text);
	write->value.type = NXM_TEXT;
	return NXM_STORE;
}

NxmResult
nxm_map_add(NxmSpace *space, NxmMap *map, const NxmKey *key, int64_t delta,
			int64_t *result)
{
	Addition	addition = {.delta = delta};
	NxmWrite	write = {.decide = decide_add,.value_varies = true,
		.context = &addition};
	NxmResult	done = nxm_map_write(space, map, key, &write);

	*result = addition.sum;
	return done;
}

NxmResult
nxm_map_scan(NxmSpace *space, NxmMap *map, uint64_t *position,
			 void (*begin) (void *context),
			 NxmResult (*each) (NxmSpace *space, NxmRef ref,
								const NxmItem *item, void *context),
			 void *context)
{
	NxmPlace		place;
	uint32_t	depth;
	uint64_t	step;

	for (int tries = 0;; tries++)
	{
		bool		changed = false;
		NxmResult	result = locate(space, map, *position, &place);

		if (result != NXM_OK)
			return result;
		/* so that the caller can look at interrupts */
		if (tries == 64)
			return NXM_OK;
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		begin(context);
		for (int i = 0; !changed && i < chain_slots(place.header); i++)
		{
			NxmAtomic  *slot = slot_at(&place, place.header, i);
			uint64_t	word = nxm_load(slot);
			NxmItem    *item;

			while ((word & STATE_MASK) == OPEN && word != EMPTY)
			{
				uint64_t	confirmed;

				item = nxm_at(space, word & NXM_REF_MASK);
				if (item == NULL)
					return NXM_NEED_CHUNK;
				nxm_protect(space, word & NXM_REF_MASK);
				confirmed = nxm_load(slot);
				if (confirmed == word)
				{
					result = each(space, word & NXM_REF_MASK, item, context);
					if (result != NXM_OK)
						return result;
					break;
				}
				word = confirmed;
			}
			changed = (word & STATE_MASK) == FROZEN;
		}
		/* a key deleted and inserted again might have been seen twice */
		if (!changed && nxm_load(&place.bucket->header) == place.header)
			break;
	}
	depth = place.depth + place.log;
	if (depth == 0)
		return NXM_ABSENT;
	step = UINT64_C(1) << (64 - depth);
	*position = (*position & ~(step - 1)) + step;
	return *position == 0 ? NXM_ABSENT : NXM_OK;
}
