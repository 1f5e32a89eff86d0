/*
 * map_lookup.h
 *	  Finding a key in a hash index, for all that is made with one: inlined, for the
 *	  comparison of keys and for what the caller does next.  map.h has the design.
 *
 * What slots refer to is the caller's: it tells how to compare a key, with
 * something that is protected.
 */
#ifndef NXM_MAP_LOOKUP_H
#define NXM_MAP_LOOKUP_H

#include "map_internal.h"

/* A constant where it is passed, so that it is inlined. */
typedef bool (*NxmHasKey) (const void *item, const NxmKey *key);

/* Where a key was found. */
typedef struct NxmFound
{
	void	   *item;			/* protected */
	NxmAtomic  *slot;
	uint64_t	word;			/* in the slot, when the item was protected */
	int			number;			/* of the slot in its chain; not by nxm_map_find() */
} NxmFound;

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
}

/* For nxm_map_locate(): the bucket at place is not open. */
extern NxmResult nxm_map_locate_slow(NxmSpace *space, NxmMap *map,
									 uint64_t position, NxmPlace *place);

/* Finds the OPEN bucket of a position, migrating what is on the way to it. */
static inline __attribute__((always_inline)) NxmResult
nxm_map_locate(NxmSpace *space, NxmMap *map, uint64_t position, NxmPlace *place)
{
	NxmResult	result = look_in_directory(space, map, position, place);

	if (__builtin_expect(result != NXM_OK, 0))
		return result;
	look_in_segment(position, place);
	if (__builtin_expect((place->header & H_STATUS) != H_OPEN, 0))
	{
		/* a copy, so that ours need not be in memory */
		NxmPlace	copy = *place;

		result = nxm_map_locate_slow(space, map, position, &copy);
		*place = copy;
		if (result != NXM_OK)
			return result;
	}
	return nxm_map_find_overflows(space, place, place->header) ? NXM_OK : NXM_NEED_CHUNK;
}

/*
 * Which of n words may be slots of interest to nxm_map_look_up(): those OPEN with our
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
	/* the header is none: its first bits are 0, see next_version() */
	return candidates_of_eight(&bucket->header + line * LINE_WORDS, want);
}

/*
 * Protects the item of a slot that was seen with word w, OPEN and not EMPTY, and
 * looks whether it has the key.  *item: NULL if not.  NXM_EXISTS: the slot has
 * another word by now, which is in *w.
 */
static inline __attribute__((always_inline)) NxmResult
check_item(NxmSpace *space, NxmAtomic *slot, uint64_t *w, const NxmKey *key,
		   NxmHasKey has_key, void **item)
{
	void	   *at = nxm_at(space, *w & NXM_REF_MASK);
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
	if (__builtin_expect(has_key(at, key), 1))
		*item = at;
	return NXM_OK;
}

/*
 * Looks a key up in the chain at place.  found->item is NULL if it is not there.
 * NXM_EXISTS: the chain changes its shape: locate it anew.
 */
static inline __attribute__((always_inline)) NxmResult
nxm_map_look_up(NxmSpace *space, const NxmPlace *place, uint64_t tag,
				const NxmKey *key, NxmHasKey has_key, NxmFound *found)
{
	uint64_t	want = OPEN | tag;
	int			line = preferred_line(tag);
	int			part = 0;		/* preferred line, the others, overflow buckets */
	int			before = line * LINE_WORDS - 1; /* the slot of bit 0 in mask */
	uint32_t	mask = candidates_in_line(place->bucket, line, want);

	found->item = NULL;
	for (;;)
	{
		int			i;
		NxmAtomic  *at;
		uint64_t	w;

		if (mask == 0)
		{
			if (part < NXM_BUCKET_LINES - 1)
			{
				line = (line + 1) & (NXM_BUCKET_LINES - 1);
				before = line * LINE_WORDS - 1;
				mask = candidates_in_line(place->bucket, line, want);
			}
			else
			{
				int			k = part - (NXM_BUCKET_LINES - 1);

				if (k == chain_overflows(place->header))
					return NXM_OK;
				before = NXM_BUCKET_SLOTS + k * NXM_OVERFLOW_SLOTS;
				mask = candidates_of_eight(place->overflow[k]->slot, want);
			}
			part++;
			continue;
		}
		i = before + __builtin_ctz(mask);
		mask &= mask - 1;
		at = slot_at(place, i);
		w = nxm_load_relaxed(at);

again:
		if ((w & STATE_MASK) == OPEN)
		{
			NxmResult	result;

			if ((w & TAG_MASK) != tag || w == EMPTY)
				continue;
			result = check_item(space, at, &w, key, has_key, &found->item);
			if (__builtin_expect(result == NXM_EXISTS, 0))
				goto again;
			if (__builtin_expect(result != NXM_OK, 0))
				return result;
			if (found->item != NULL)
			{
				found->slot = at;
				found->number = i;
				found->word = w;
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

/*
 * The number of an EMPTY slot of the chain, in the preferred line if it can be; -1: the
 * chain has none, or none for this tag.
 */
static inline int
nxm_map_empty_slot(const NxmPlace *place, uint64_t tag)
{
	int			line = preferred_line(tag);
	int			noverflows = chain_overflows(place->header);

	if (noverflows > 0 && nxm_map_side_is_full(place, tag))
		return -1;
	for (int part = 0; part < NXM_BUCKET_LINES + noverflows; part++)
	{
		NxmAtomic  *words;
		int			first;
		uint32_t	mask;

		if (part < NXM_BUCKET_LINES)
		{
			words = &place->bucket->header + line * LINE_WORDS;
			first = line * LINE_WORDS - 1;
			line = (line + 1) & (NXM_BUCKET_LINES - 1);
		}
		else
		{
			words = place->overflow[part - NXM_BUCKET_LINES]->slot;
			first = NXM_BUCKET_SLOTS + (part - NXM_BUCKET_LINES) * NXM_OVERFLOW_SLOTS;
		}
		for (mask = candidates_of_eight(words, EMPTY); mask != 0; mask &= mask - 1)
		{
			if (nxm_load_relaxed(&words[__builtin_ctz(mask)]) == EMPTY)
				return first + __builtin_ctz(mask);
		}
	}
	return -1;
}

/*
 * The common case of a get, and of a put of a key that is there: it is in a LIVE slot
 * of the preferred line of the bucket that the directory names.  found->item is NULL where it is not, or not so
 * simple.
 *
 * The bucket's header is not looked at.  Segments in the directory have been
 * filled, so an OPEN slot there is no work in progress; and if the bucket is
 * frozen, or has migrated, those of its slots that are not FROZEN still are what
 * counts, for migrating begins to fill a successor when all of them are.
 */
static inline __attribute__((always_inline)) NxmResult
look_up_fast(NxmSpace *space, NxmMap *map, uint64_t position, const NxmKey *key,
			 NxmHasKey has_key, NxmFound *found)
{
	NxmPlace	place;
	uint64_t	tag = tag_of(position);
	int			line = preferred_line(tag);
	uint32_t	mask;
	NxmResult	result = look_in_directory(space, map, position, &place);

	found->item = NULL;
	if (__builtin_expect(result != NXM_OK, 0))
		return result;
	place.bucket = &place.seg->bucket[bucket_number(position, place.depth, place.log)];
	mask = candidates_in_line(place.bucket, line, OPEN | tag);
	if (mask != 0)
	{
		NxmAtomic  *slot = &place.bucket->header + line * LINE_WORDS +
			__builtin_ctz(mask);
		uint64_t	w = nxm_load_relaxed(slot);

		if ((w & (STATE_MASK | TAG_MASK)) == (OPEN | tag) && (w & NXM_REF_MASK) != 0)
		{
			result = check_item(space, slot, &w, key, has_key, &found->item);
			found->slot = slot;
			found->word = w;
		}
	}
	return result == NXM_EXISTS ? NXM_OK : result;
}

/*
 * nxm_map_find() in all other cases.  Not inlined, so that the registers that it
 * takes are not saved in the common one.
 */
static __attribute__((noinline, unused)) NxmResult
nxm_map_find_slow(NxmSpace *space, NxmMap *map, uint64_t position, const NxmKey *key,
				  NxmHasKey has_key, NxmFound *found)
{
	for (;;)
	{
		NxmPlace	place;
		NxmResult	result = nxm_map_locate(space, map, position, &place);

		if (result != NXM_OK)
			return result;
		result = nxm_map_look_up(space, &place, tag_of(position), key, has_key, found);
		if (result == NXM_OK)
			return found->item == NULL ? NXM_ABSENT : NXM_OK;
		if (result != NXM_EXISTS)
			return result;
	}
}

/*
 * Finds the entry of a key.  NXM_OK: its item is protected; NXM_ABSENT; or why it
 * can't be told.
 */
static inline __attribute__((always_inline)) NxmResult
nxm_map_find(NxmSpace *space, NxmMap *map, uint64_t position, const NxmKey *key,
			 NxmHasKey has_key, NxmFound *found)
{
	NxmResult	result = look_up_fast(space, map, position, key, has_key, found);

	if (__builtin_expect(found->item == NULL && result == NXM_OK, 0))
	{
		/* a copy, so that the caller's need not be in memory */
		NxmFound	copy;

		result = nxm_map_find_slow(space, map, position, key, has_key, &copy);
		*found = copy;
	}
	return result;
}

/*
 * What a batch of finds reads first, to be loaded while others are: the entry of
 * the directory; by way of it the bucket, NULL if that is not simple; by way of
 * that the item.  Nothing that is read here is relied on.
 */
static inline void
nxm_map_prefetch_entry(NxmSpace *space, NxmMap *map, uint64_t position)
{
	uint64_t	directory = nxm_load(&map->directory);
	NxmAtomic  *entry;

	if ((directory & NXM_REF_MASK) == 0)
		return;
	entry = directory_entry(space, directory,
							first_bits(position, directory_depth(directory)));
	if (entry != NULL)
		__builtin_prefetch((const void *) entry);
}

static inline NxmBucket *
nxm_map_prefetch_bucket(NxmSpace *space, NxmMap *map, uint64_t position)
{
	NxmPlace	place;
	NxmBucket  *bucket;

	if (look_in_directory(space, map, position, &place) != NXM_OK)
		return NULL;
	bucket = &place.seg->bucket[bucket_number(position, place.depth, place.log)];
	__builtin_prefetch((const void *) (&bucket->header +
									   preferred_line(tag_of(position)) * LINE_WORDS));
	return bucket;
}

static inline void
nxm_map_prefetch_item(NxmSpace *space, NxmBucket *bucket, uint64_t position)
{
	uint64_t	tag = tag_of(position);
	int			line = preferred_line(tag);
	uint32_t	mask = candidates_in_line(bucket, line, OPEN | tag);
	uint64_t	word;
	char	   *base;

	if (mask == 0)
		return;
	/* relaxed: the address alone is used */
	word = nxm_load_relaxed(&bucket->header + line * LINE_WORDS + __builtin_ctz(mask));
	base = space->base[nxm_ref_chunk(word & NXM_REF_MASK)];
	if (base == NULL)
		return;
	base += (word & ((UINT64_C(1) << NXM_CHUNK_SHIFT) - 1)) * NXM_REF_UNIT;
	__builtin_prefetch(base);
	__builtin_prefetch(base + NXM_CACHE_LINE);
}

#endif							/* NXM_MAP_LOOKUP_H */
