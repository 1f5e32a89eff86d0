/*
 * map.c
 *	  The hash map.  map.h has the design: shape, linearization, growth.
 *
 * Orders.  Slots and headers are changed by CAS alone (release) and read with
 * acquire where what they name is read; a scan over the tags is relaxed, and a
 * slot that it found is read again with acquire after its item was protected.
 * Successor segments are published by the CAS of `next`, directories by the
 * store of `directory`.
 *
 * The gate of a migration is the parent bucket's `migrated`: nobody works on the
 * two buckets that follow before it is set, for they are reached by way of the
 * parent until all of its buckets are.  So a helper that has protected an item
 * and then finds the gate shut may read the item.
 */
#include "map.h"

/* The checker makes these small. */
#ifndef NXM_BUCKET_SLOTS
#define NXM_BUCKET_SLOTS 15
#define NXM_OVERFLOW_SLOTS 8
#define NXM_MIN_LOG 2			/* buckets of the first segment */
#define NXM_MAX_LOG 6			/* buckets of a segment of a large map */
/* what fills up the size class of the segment: 15 for 64 buckets, 9,216 bytes */
#define POOL_OF(log) \
	((log) == 6 ? 15 : (log) == 5 ? 7 : (log) == 4 ? 3 : 1)
#endif

/*
 * Buckets that a writer migrates besides its own.  With 2 the old segments of
 * 1,000,000 growing entries took 1 byte an entry more; 8 is no better than 4.
 */
#define HELP 4

#define CHAIN_SLOTS (NXM_BUCKET_SLOTS + NXM_OVERFLOW_SLOTS)

/* Slots. */
#define STATE_SHIFT		62
#define OPEN			(UINT64_C(1) << STATE_SHIFT)
#define TENTATIVE		(UINT64_C(2) << STATE_SHIFT)
#define FROZEN			(UINT64_C(3) << STATE_SHIFT)
#define STATE_MASK		FROZEN
#define FREQ_MASK		(UINT64_C(3) << 60)
#define TAG_BITS		26
#define TAG_MASK		(((UINT64_C(1) << TAG_BITS) - 1) << NXM_REF_BITS)
#define EMPTY			OPEN

/* Headers. */
#define H_STATUS		UINT64_C(3)
#define H_UNINIT		UINT64_C(0)
#define H_OPEN			UINT64_C(1)
#define H_FROZEN		UINT64_C(2)
#define H_MIGRATED		UINT64_C(4)
#define H_PENDING_SHIFT 3
#define H_PENDING		(UINT64_C(0x3F) << H_PENDING_SHIFT)
#define H_OVERFLOW_SHIFT 9
#define H_OVERFLOW		(UINT64_C(0x7F) << H_OVERFLOW_SHIFT)
#define H_VERSION_ONE	(UINT64_C(1) << 16)

/* Directory word and entries. */
#define DEPTH_SHIFT		34
#define SERIAL_ONE		(UINT64_C(1) << 40)
#define ENTRY_LOG_SHIFT 34
#define ENTRY_DEPTH_SHIFT 40
#define PAGE_ENTRIES_LOG 13
#define PAGE_ENTRIES	(1 << PAGE_ENTRIES_LOG)
#define FLAT_DEPTH		11		/* a directory of one object up to here */
#define MAX_DEPTH		24
#define FIRST_TAG_BIT	6
#define MAX_BUCKET_DEPTH 32

/* In `next` of a segment of a body that clear cut off: there is no successor. */
#define CUT				UINT64_C(1)

typedef struct Bucket
{
	NxmAtomic	header;
	NxmAtomic	slot[NXM_BUCKET_SLOTS];
} Bucket;

typedef struct Overflow
{
	NxmAtomic	slot[NXM_OVERFLOW_SLOTS];
} Overflow;

/*
 * 64 bytes, the buckets, the overflow buckets.  With 64 buckets 9,216 bytes.
 */
typedef struct Segment
{
	NxmAtomic	next;			/* first successor; 0: none */
	NxmAtomic	migrated;		/* buckets */
	NxmAtomic	pool;			/* bit i: overflow bucket i is used */
	NxmAtomic	cursor;			/* next bucket for a helper */
	uint64_t	prefix;			/* first position; immutable */
	uint32_t	log;			/* of the number of buckets; immutable */
	uint32_t	depth;			/* bits of prefix; immutable */
	uint64_t	sibling;		/* of a first successor: the second one, or 0 */
	uint64_t	unused;
	Bucket		bucket[];
} Segment;

/* Where a position is: an OPEN bucket, when looked up. */
typedef struct Place
{
	Segment    *seg;
	Segment    *parent;			/* of seg, if reached by way of it */
	Bucket     *bucket;
	Overflow   *overflow;		/* the first one of seg */
	uint64_t	header;
	uint32_t	log;
	uint32_t	depth;
} Place;

static inline uint64_t
position_of(uint64_t hash)
{
	unsigned __int128 x = hash;
	uint64_t	z = hash - ((uint64_t) (x * x >> 64) >> 2);

	return z + (uint64_t) ((unsigned __int128) z * UINT64_C(0x5555555555555555) >> 64);
}

static inline uint64_t
tag_of(uint64_t position)
{
	return (position >> 32 << NXM_REF_BITS) & TAG_MASK;
}

static inline uint64_t
first_bits(uint64_t position, uint32_t n)
{
	return n == 0 ? 0 : position >> (64 - n);
}

static inline uint64_t
bucket_number(uint64_t position, uint32_t depth, uint32_t log)
{
	return first_bits(position << depth, log);
}

static inline Overflow *
overflows_of(Segment *seg, uint32_t log)
{
	return (Overflow *) &seg->bucket[(size_t) 1 << log];
}

static size_t
segment_size(uint32_t log)
{
	return sizeof(Segment) + (sizeof(Bucket) << log) +
		sizeof(Overflow) * (size_t) POOL_OF(log);
}

/* Slot i of a chain; the header tells whether there are more than the first. */
static inline NxmAtomic *
slot_at(const Place *place, uint64_t header, int i)
{
	if (i < NXM_BUCKET_SLOTS)
		return &place->bucket->slot[i];
	return &place->overflow[((header & H_OVERFLOW) >> H_OVERFLOW_SHIFT) - 1]
		.slot[i - NXM_BUCKET_SLOTS];
}

static inline int
chain_slots(uint64_t header)
{
	return (header & H_OVERFLOW) != 0 ? CHAIN_SLOTS : NXM_BUCKET_SLOTS;
}

static inline int
pending_slot(uint64_t header)
{
	return (int) ((header & H_PENDING) >> H_PENDING_SHIFT) - 1;
}

static inline uint64_t
next_version(uint64_t header)
{
	return header + H_VERSION_ONE;
}

static void
count(NxmSpace *space, NxmMap *map, int64_t entries, int64_t bytes)
{
	int			i = space->proc % NXM_MAP_STATS;

	if (entries != 0)
		nxm_fetch_add_relaxed(&map->stats[i].entries, (uint64_t) entries);
	if (bytes != 0)
		nxm_fetch_add_relaxed(&map->stats[i].bytes, (uint64_t) bytes);
}

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

/* Directories. */

static inline uint32_t
directory_depth(uint64_t directory)
{
	return (uint32_t) (directory >> DEPTH_SHIFT) & 0x3F;
}

/* NULL: a chunk is not mapped. */
static inline NxmAtomic *
directory_entry(NxmSpace *space, uint64_t directory, uint64_t i)
{
	void	   *at = nxm_at(space, directory & NXM_REF_MASK);

	if (at == NULL)
		return NULL;
	if (directory_depth(directory) > FLAT_DEPTH)
	{
		at = nxm_at(space, NXM_GET(((uint64_t *) at)[i >> PAGE_ENTRIES_LOG]));
		if (at == NULL)
			return NULL;
		i &= PAGE_ENTRIES - 1;
	}
	return (NxmAtomic *) at + i;
}

static uint32_t
directory_pages(uint32_t depth)
{
	return depth <= FLAT_DEPTH ? 0 :
		depth <= PAGE_ENTRIES_LOG ? 1 : UINT32_C(1) << (depth - PAGE_ENTRIES_LOG);
}

/* Entries are undefined.  0: nxm_no_object() tells why. */
static NxmRef
new_directory(NxmSpace *space, uint32_t depth)
{
	uint32_t	npages = directory_pages(depth);
	NxmRef		ref = nxm_alloc(space, npages == 0 ? sizeof(uint64_t) << depth :
								sizeof(uint64_t) * npages);
	uint64_t   *pages;

	if (ref == 0 || npages == 0)
		return ref;
	pages = nxm_at(space, ref);
	for (uint32_t i = 0; i < npages; i++)
	{
		NxmRef		page = nxm_alloc(space, NXM_PAGE_SIZE);

		if (page == 0)
		{
			while (i > 0)
				nxm_free(space, pages[--i]);
			nxm_free(space, ref);
			return 0;
		}
		NXM_SET(pages[i], page);
	}
	return ref;
}

static NxmResult
retire_directory(NxmSpace *space, uint64_t directory)
{
	NxmRef		ref = directory & NXM_REF_MASK;
	uint64_t   *pages = nxm_at(space, ref);

	for (uint32_t i = 0; i < directory_pages(directory_depth(directory)); i++)
		nxm_retire_epoch(space, NXM_GET(pages[i]));
	nxm_retire_epoch(space, ref);
	return NXM_OK;
}

/* Segments. */

static NxmRef
new_segment(NxmSpace *space, uint32_t log, uint32_t depth, uint64_t prefix)
{
	NxmRef		ref = nxm_alloc(space, segment_size(log));
	Segment    *seg;

	if (ref == 0)
		return 0;
	seg = nxm_at(space, ref);
	NXM_WRITES(seg, segment_size(log));
	memset((void *) seg, 0, segment_size(log));	/* all slots UNINIT */
	seg->log = log;
	seg->depth = depth;
	seg->prefix = prefix;
	return ref;
}

/* A segment whose buckets are open and empty. */
static NxmRef
new_open_segment(NxmSpace *space, uint32_t log)
{
	NxmRef		ref = new_segment(space, log, 0, 0);
	Segment    *seg;

	if (ref == 0)
		return 0;
	seg = nxm_at(space, ref);
	for (uint32_t b = 0; b < UINT32_C(1) << log; b++)
	{
		nxm_init(&seg->bucket[b].header, H_OPEN | H_VERSION_ONE);
		for (int i = 0; i < NXM_BUCKET_SLOTS; i++)
			nxm_init(&seg->bucket[b].slot[i], EMPTY);
	}
	return ref;
}

static inline uint64_t
entry_for(NxmRef ref, uint32_t log, uint32_t depth)
{
	return ref | (uint64_t) log << ENTRY_LOG_SHIFT |
		(uint64_t) depth << ENTRY_DEPTH_SHIFT;
}

/* A directory word for an empty body; 0: nxm_no_object() tells why. */
static uint64_t
new_body(NxmSpace *space)
{
	NxmRef		seg = new_open_segment(space, NXM_MIN_LOG);
	NxmRef		directory;

	if (seg == 0)
		return 0;
	directory = new_directory(space, 0);
	if (directory == 0)
	{
		nxm_free(space, seg);
		return 0;
	}
	nxm_init((NxmAtomic *) nxm_at(space, directory),
			 entry_for(seg, NXM_MIN_LOG, 0));
	return directory;
}

NxmResult
nxm_map_init(NxmSpace *space, NxmMap *map)
{
	uint64_t	body = new_body(space);

	if (body == 0)
		return nxm_no_object(space);
	nxm_store(&map->directory, body);
	return NXM_OK;
}

/*
 * Sees to it that a committed insert is LIVE and nothing pending.  Replaces the
 * hazard.  The header may be another one afterwards in any way.
 */
static void
complete_pending(NxmSpace *space, const Place *place, uint64_t header)
{
	NxmAtomic  *slot = slot_at(place, header, pending_slot(header));
	uint64_t	word = nxm_load(slot);

	if ((word & STATE_MASK) == TENTATIVE)
	{
		/*
		 * Is this the word that the header speaks of?  It is if the header still
		 * says so after the word was read; and while its item is protected the
		 * same word does not come again.
		 */
		nxm_protect(space, word & NXM_REF_MASK);
		if (nxm_load(&place->bucket->header) != header)
			return;
		(void) nxm_cas(slot, &word, (word & ~STATE_MASK) | OPEN);
	}
	(void) nxm_cas(&place->bucket->header, &header,
				   next_version(header) & ~H_PENDING);
}

/* Fills a bucket of a successor from UNINIT; overflow: for the 16th and on. */
static void
fill(Bucket *bucket, Overflow *overflow, const uint64_t *words, int n)
{
	for (int i = 0; i < NXM_BUCKET_SLOTS; i++)
	{
		uint64_t	uninit = 0;

		(void) nxm_cas(&bucket->slot[i], &uninit, i < n ? words[i] : EMPTY);
	}
	if (n <= NXM_BUCKET_SLOTS)
		return;
	for (int i = NXM_BUCKET_SLOTS; i < CHAIN_SLOTS; i++)
	{
		uint64_t	uninit = 0;

		(void) nxm_cas(&overflow->slot[i - NXM_BUCKET_SLOTS], &uninit,
					   i < n ? words[i] : EMPTY);
	}
}

/*
 * Migrates bucket b of a segment with a successor.  Any number of processes may
 * at once.  NXM_OK: it has migrated.
 */
static NxmResult
migrate(NxmSpace *space, Segment *seg, uint32_t b)
{
	uint32_t	log = NXM_GET(seg->log);
	uint32_t	depth = NXM_GET(seg->depth);
	Place		place = {.bucket = &seg->bucket[b],.overflow = overflows_of(seg, log)};
	uint64_t	header = nxm_load(&place.bucket->header);
	uint64_t	next = nxm_load(&seg->next);
	Segment    *target;
	Bucket     *to;
	uint64_t	words[2][CHAIN_SLOTS];
	int			n[2] = {0, 0};
	int			overflow;

	for (;;)
	{
		if ((header & H_MIGRATED) != 0)
			return NXM_OK;
		if ((header & H_STATUS) == H_FROZEN)
			break;
		if ((header & H_PENDING) != 0)
		{
			complete_pending(space, &place, header);
			header = nxm_load(&place.bucket->header);
		}
		else if (nxm_cas(&place.bucket->header, &header,
						 next_version((header & ~H_STATUS) | H_FROZEN)))
		{
			header = next_version((header & ~H_STATUS) | H_FROZEN);
			break;
		}
	}

	target = nxm_at(space, next);
	if (target == NULL)
		return NXM_NEED_CHUNK;
	if (NXM_GET(target->sibling) != 0)
	{
		uint32_t	half = UINT32_C(1) << (log - 1);

		if (b >= half)
		{
			target = nxm_at(space, NXM_GET(target->sibling));
			if (target == NULL)
				return NXM_NEED_CHUNK;
		}
		to = &target->bucket[2 * (b & (half - 1))];
	}
	else
		to = &target->bucket[2 * b];

	for (int i = 0; i < chain_slots(header); i++)
	{
		NxmAtomic  *slot = slot_at(&place, header, i);
		uint64_t	word = nxm_load(slot);
		uint32_t	bit = depth + log;
		int			side;

		while ((word & STATE_MASK) != FROZEN)
		{
			uint64_t	frozen = (word & STATE_MASK) == OPEN ?
				(word & ~STATE_MASK) | FROZEN : FROZEN;

			if (nxm_cas(slot, &word, frozen))
				word = frozen;
		}
		if ((word & NXM_REF_MASK) == 0)
			continue;
		if (bit >= FIRST_TAG_BIT)
			side = (int) (word >> (NXM_REF_BITS + 31 - bit)) & 1;
		else
		{
			NxmItem    *item = nxm_at(space, word & NXM_REF_MASK);

			if (item == NULL)
				return NXM_NEED_CHUNK;
			nxm_protect(space, word & NXM_REF_MASK);
			if ((nxm_load(&place.bucket->header) & H_MIGRATED) != 0)
				return NXM_OK;
			side = (int) (NXM_GET(item->header) >> (59 - bit)) & 1;
		}
		words[side][n[side]++] = (word & ~STATE_MASK) | OPEN;
	}

	overflow = (int) ((header & H_OVERFLOW) >> H_OVERFLOW_SHIFT);
	for (int side = 0; side < 2; side++)
	{
		if (n[side] > NXM_BUCKET_SLOTS)
			nxm_fetch_or(&target->pool, UINT64_C(1) << (overflow - 1));
		fill(&to[side],
			 n[side] <= NXM_BUCKET_SLOTS ? NULL :
			 overflows_of(target, NXM_GET(target->log)) + overflow - 1,
			 words[side], n[side]);
	}
	for (int side = 0; side < 2; side++)
	{
		uint64_t	uninit = H_UNINIT;

		(void) nxm_cas(&to[side].header, &uninit, H_OPEN | H_VERSION_ONE |
					   (n[side] > NXM_BUCKET_SLOTS ?
						(uint64_t) overflow << H_OVERFLOW_SHIFT : 0));
	}
	if (nxm_cas(&place.bucket->header, &header, header | H_MIGRATED))
		nxm_fetch_add(&seg->migrated, 1);
	return NXM_OK;
}

static bool
has_migrated(Segment *seg)
{
	return nxm_load(&seg->migrated) >= UINT64_C(1) << NXM_GET(seg->log);
}

static NxmResult
migrate_all(NxmSpace *space, Segment *seg)
{
	uint32_t	n = UINT32_C(1) << NXM_GET(seg->log);

	for (uint32_t b = 0; b < n; b++)
	{
		NxmResult	result = migrate(space, seg, b);

		if (result != NXM_OK)
			return result;
	}
	/*
	 * All have, though somebody may have been stopped before counting one; who
	 * counts yet makes it more than there are.  Release: what they did is done.
	 */
	if (!has_migrated(seg))
		nxm_store(&seg->migrated, n);
	return NXM_OK;
}

/* Finds the OPEN bucket of a position, migrating what is on the way to it. */
static NxmResult
locate(NxmSpace *space, NxmMap *map, uint64_t position, Place *place)
{
	uint64_t	directory;
	NxmAtomic  *entry;
	uint64_t	word;

again:
	directory = nxm_load(&map->directory);
	if ((directory & NXM_REF_MASK) == 0)
		return NXM_DROPPED;
	entry = directory_entry(space, directory,
							first_bits(position, directory_depth(directory)));
	if (entry == NULL)
		return NXM_NEED_CHUNK;
	word = nxm_load(entry);
	/* of a body that has been cut off and drained meanwhile */
	if (word == 0)
		goto again;
	place->parent = NULL;
	place->log = (uint32_t) (word >> ENTRY_LOG_SHIFT) & 0x3F;
	place->depth = (uint32_t) (word >> ENTRY_DEPTH_SHIFT) & 0x3F;
	place->seg = nxm_at(space, word & NXM_REF_MASK);
	if (place->seg == NULL)
		return NXM_NEED_CHUNK;

	for (;;)
	{
		uint64_t	b = bucket_number(position, place->depth, place->log);
		uint64_t	next;
		NxmResult	result;

		place->bucket = &place->seg->bucket[b];
		__builtin_prefetch(&place->bucket->slot[NXM_BUCKET_SLOTS / 2]);
		place->header = nxm_load(&place->bucket->header);
		if ((place->header & H_STATUS) == H_OPEN)
		{
			place->overflow = overflows_of(place->seg, place->log);
			return NXM_OK;
		}

		next = nxm_load(&place->seg->next);
		if (next == CUT)
			goto again;
		if ((place->header & H_MIGRATED) == 0)
		{
			result = migrate(space, place->seg, (uint32_t) b);
			if (result != NXM_OK)
				return result;
		}
		place->parent = place->seg;
		place->seg = nxm_at(space, next);
		if (place->seg == NULL)
			return NXM_NEED_CHUNK;
		if (NXM_GET(place->seg->sibling) != 0)
		{
			if ((position << place->depth >> 63) != 0)
			{
				place->seg = nxm_at(space, NXM_GET(place->seg->sibling));
				if (place->seg == NULL)
					return NXM_NEED_CHUNK;
			}
		}
		place->depth = NXM_GET(place->seg->depth);
		place->log = NXM_GET(place->seg->log);
	}
}

/* Gives a segment successors, if it has none. */
static NxmResult
grow(NxmSpace *space, Segment *seg)
{
	uint32_t	log = NXM_GET(seg->log);
	uint32_t	depth = NXM_GET(seg->depth);
	uint64_t	prefix = NXM_GET(seg->prefix);
	uint64_t	none = 0;
	NxmRef		first;
	NxmRef		second = 0;

	if (nxm_load(&seg->next) != 0)
		return NXM_OK;
	if (depth + log >= MAX_BUCKET_DEPTH)
	{
		space->need_chunk = -1;
		space->no_space = false;
		return NXM_NEED_MEMORY;
	}
	if (log < NXM_MAX_LOG)
		first = new_segment(space, log + 1, depth, prefix);
	else
	{
		first = new_segment(space, log, depth + 1, prefix);
		if (first != 0)
		{
			second = new_segment(space, log, depth + 1,
								 prefix | UINT64_C(1) << (63 - depth));
			if (second == 0)
			{
				nxm_free(space, first);
				first = 0;
			}
			else
				NXM_SET(((Segment *) nxm_at(space, first))->sibling, second);
		}
	}
	if (first == 0)
		return nxm_no_object(space);
	if (!nxm_cas(&seg->next, &none, first))
	{
		nxm_free(space, first);
		if (second != 0)
			nxm_free(space, second);
	}
	return NXM_OK;
}

/* Doubles the directory.  The housekeeper. */
static bool
double_directory(NxmSpace *space, NxmMap *map, uint64_t directory)
{
	uint32_t	depth = directory_depth(directory);
	NxmRef		ref;
	uint64_t	doubled;

	if (depth == MAX_DEPTH)
		return false;
	ref = new_directory(space, depth + 1);
	if (ref == 0)
		return false;
	doubled = ((directory & ~(SERIAL_ONE - 1)) + SERIAL_ONE) |
		(uint64_t) (depth + 1) << DEPTH_SHIFT | ref;
	for (uint64_t i = 0; i < UINT64_C(1) << depth; i++)
	{
		NxmAtomic  *from = directory_entry(space, directory, i);
		uint64_t	entry;

		/* read and written before: all of both is mapped */
		entry = nxm_load(from);
		nxm_store_relaxed(directory_entry(space, doubled, 2 * i), entry);
		nxm_store_relaxed(directory_entry(space, doubled, 2 * i + 1), entry);
	}
	/* release: publishes the entries */
	nxm_store(&map->directory, doubled);
	(void) retire_directory(space, directory);
	return true;
}

static bool
directory_is_mapped(NxmSpace *space, uint64_t directory)
{
	uint32_t	npages = directory_pages(directory_depth(directory));
	uint64_t   *pages = nxm_at(space, directory & NXM_REF_MASK);

	for (uint32_t i = 0; pages != NULL && i < npages; i++)
	{
		if (nxm_at(space, NXM_GET(pages[i])) == NULL)
			return false;
	}
	return pages != NULL;
}

/*
 * Puts migrated segments' successors into the directory, at a position.  What
 * can't be done, for want of memory or with a chunk not mapped, is left to
 * whoever comes next.
 */
static void
keep_house(NxmSpace *space, NxmMap *map, uint64_t position)
{
	uint64_t	nobody = 0;

	if (nxm_load_relaxed(&map->housekeeper) != 0 ||
		!nxm_cas(&map->housekeeper, &nobody, (uint64_t) space->proc + 1))
		return;
	for (;;)
	{
		uint64_t	directory = nxm_load(&map->directory);
		uint32_t	depth = directory_depth(directory);
		NxmAtomic  *entry;
		NxmRef		ref;
		Segment    *seg;
		Segment    *first;
		NxmRef		next;
		NxmRef		sibling;
		uint64_t	from;
		uint64_t	n;

		if ((directory & NXM_REF_MASK) == 0 ||
			!directory_is_mapped(space, directory))
			break;
		entry = directory_entry(space, directory, first_bits(position, depth));
		ref = nxm_load(entry) & NXM_REF_MASK;
		seg = nxm_at(space, ref);
		if (seg == NULL)
			break;
		next = nxm_load(&seg->next);
		if (next == 0 || next == CUT || !has_migrated(seg))
			break;
		first = nxm_at(space, next);
		if (first == NULL)
			break;
		sibling = NXM_GET(first->sibling);
		if (sibling != 0 && NXM_GET(seg->depth) == depth)
		{
			if (!double_directory(space, map, directory))
				break;
			continue;
		}
		from = first_bits(NXM_GET(seg->prefix), depth);
		n = UINT64_C(1) << (depth - NXM_GET(seg->depth));
		for (uint64_t i = 0; i < n; i++)
		{
			NxmRef		to = sibling != 0 && i >= n / 2 ? sibling : next;

			nxm_store(directory_entry(space, directory, from + i),
					  entry_for(to, NXM_GET(first->log), NXM_GET(first->depth)));
		}
		nxm_retire_epoch(space, ref);
	}
	nxm_store(&map->housekeeper, 0);
}

/* What a writer does for a growth that it met. */
static void
help_growth(NxmSpace *space, NxmMap *map, Segment *seg, uint64_t position)
{
	uint32_t	n = UINT32_C(1) << NXM_GET(seg->log);

	for (int i = 0; i < HELP && !has_migrated(seg); i++)
	{
		uint64_t	b = nxm_load_relaxed(&seg->cursor);

		/* all were begun, perhaps by somebody who is stopped now: anew */
		b = b < 2 * n ? nxm_fetch_add_relaxed(&seg->cursor, 1) : b;
		if (b >= 2 * n)
		{
			(void) migrate_all(space, seg);
			break;
		}
		if (migrate(space, seg, (uint32_t) b & (n - 1)) != NXM_OK)
			return;
	}
	if (has_migrated(seg))
		keep_house(space, map, position);
}

/* Lets the bucket of a place grow. */
static NxmResult
split(NxmSpace *space, const Place *place)
{
	NxmResult	result = grow(space, place->seg);

	/* cut off: the position is in another body by now */
	if (result != NXM_OK || nxm_load(&place->seg->next) == CUT)
		return result;
	return migrate(space, place->seg,
				   (uint32_t) (place->bucket - place->seg->bucket));
}

/*
 * Makes room in a full chain: an overflow bucket, or successors.  NXM_OK: look
 * again.
 */
static NxmResult
make_room(NxmSpace *space, NxmMap *map, const Place *place, uint64_t position)
{
	uint64_t	pool;
	uint64_t	header = place->header;
	Overflow   *overflow;
	int			i;

	/*
	 * Until the parent has migrated, overflow buckets are for its chains, and
	 * there must be no successors: their helpers would freeze buckets that the
	 * parent has yet to fill.
	 */
	if (place->parent != NULL && !has_migrated(place->parent))
	{
		NxmResult	result = migrate_all(space, place->parent);

		if (result == NXM_OK)
			keep_house(space, map, position);
		return result;
	}
	if ((header & H_OVERFLOW) != 0)
		return split(space, place);
	pool = nxm_load(&place->seg->pool);
	do
	{
		i = __builtin_ctzll(~pool);
		if (pool == UINT64_MAX || i >= POOL_OF(place->log))
			return split(space, place);
	} while (!nxm_cas(&place->seg->pool, &pool, pool | UINT64_C(1) << i));

	overflow = &place->overflow[i];
	for (int s = 0; s < NXM_OVERFLOW_SLOTS; s++)
		nxm_store_relaxed(&overflow->slot[s], EMPTY);
	/* release: publishes the empty slots */
	if (!nxm_cas(&place->bucket->header, &header,
				 next_version(header) | (uint64_t) (i + 1) << H_OVERFLOW_SHIFT))
		nxm_fetch_and(&place->seg->pool, ~(UINT64_C(1) << i));
	return NXM_OK;
}

/*
 * Looks a key up in the chain at place.  *item: its protected item, *slot and
 * *word where it is; NULL if there is none.  *free: an EMPTY slot's number, or
 * -1.  NXM_EXISTS: the chain changes its shape: locate it anew.
 */
static inline NxmResult
look_up(NxmSpace *space, const Place *place, uint64_t tag, const NxmKey *key,
		NxmItem **item, int *slot, uint64_t *word, int *free)
{
	int			n = chain_slots(place->header);

	*item = NULL;
	if (free != NULL)
		*free = -1;
	for (int i = 0; i < n; i++)
	{
		NxmAtomic  *at = slot_at(place, place->header, i);
		uint64_t	w = nxm_load_relaxed(at);

again:
		if ((w & (STATE_MASK | TAG_MASK)) == (OPEN | tag))
		{
			uint64_t	confirmed;

			if (w == EMPTY)
			{
				if (free != NULL && *free < 0)
					*free = i;
				continue;
			}
			*item = nxm_at(space, w & NXM_REF_MASK);
			if (*item == NULL)
				return NXM_NEED_CHUNK;
			nxm_protect(space, w & NXM_REF_MASK);
			confirmed = nxm_load(at);
			if (confirmed != w)
			{
				*item = NULL;
				w = confirmed;
				goto again;
			}
			if (nxm_item_has_key(*item, key))
			{
				*slot = i;
				*word = w;
				return NXM_OK;
			}
			*item = NULL;
		}
		else if ((w & STATE_MASK) == FROZEN)
			return NXM_EXISTS;
		else if (w == EMPTY)
		{
			if (free != NULL && *free < 0)
				*free = i;
		}
		else if ((w & (STATE_MASK | TAG_MASK)) == (TENTATIVE | tag))
		{
			uint64_t	header = nxm_load(&place->bucket->header);

			if (pending_slot(header) == i)
			{
				complete_pending(space, place, header);
				return NXM_EXISTS;
			}
		}
	}
	return NXM_OK;
}

NxmResult
nxm_map_get(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmBuffer *buffer)
{
	uint64_t	position = position_of(key->hash);

	for (;;)
	{
		Place		place;
		NxmItem    *item;
		int			slot;
		uint64_t	word;
		NxmResult	result = locate(space, map, position, &place);

		if (result != NXM_OK)
			return result;
		result = look_up(space, &place, tag_of(position), key, &item, &slot,
						 &word, NULL);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			return result;
		if (item == NULL)
			return NXM_ABSENT;
		return nxm_item_copy(space, item, buffer);
	}
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
insert(NxmSpace *space, const Place *place, int slot, uint64_t tag, NxmRef ref)
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
	if (!nxm_cas(&place->bucket->header, &header, committed))
	{
		/* fails if the bucket froze, and with it the reservation */
		(void) nxm_cas(at, &tentative, EMPTY);
		return false;
	}
	(void) nxm_cas(at, &tentative, OPEN | tag | ref);
	(void) nxm_cas(&place->bucket->header, &committed,
				   next_version(committed) & ~H_PENDING);
	return true;
}

NxmResult
nxm_map_write(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write)
{
	uint64_t	position = position_of(key->hash);
	uint64_t	tag = tag_of(position);
	Segment    *growing = NULL;
	NxmRef		ref = 0;		/* of the item that we store */
	size_t		bytes = 0;
	NxmResult	result;

	for (;;)
	{
		Place		place;
		NxmItem    *item;
		int			slot;
		int			free;
		uint64_t	word;
		NxmAction	action;

		result = locate(space, map, position, &place);
		if (result != NXM_OK)
			break;
		if (place.parent != NULL)
			growing = place.parent;
		if ((place.header & H_PENDING) != 0)
		{
			complete_pending(space, &place, place.header);
			continue;
		}
		result = look_up(space, &place, tag, key, &item, &slot, &word, &free);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			break;

		action = write->decide(space, write, item);
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
				complete_pending(space, &place, header);
				continue;
			}
			old_bytes = nxm_item_bytes(item);
			if (!nxm_cas(slot_at(&place, place.header, slot), &word,
						 action == NXM_STORE ? OPEN | tag | ref : EMPTY))
				continue;
			nxm_retire(space, word & NXM_REF_MASK);
			if (action == NXM_STORE)
				count(space, map, 0, (int64_t) bytes - (int64_t) old_bytes);
			else
				count(space, map, -1, -(int64_t) old_bytes);
			if (action == NXM_STORE)
				ref = 0;
			break;
		}

		if (free < 0)
		{
			NxmResult	made = make_room(space, map, &place, position);

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
			count(space, map, 1, (int64_t) bytes);
			break;
		}
	}
	if (ref != 0)
		nxm_item_free(space, ref);
	if (growing != NULL)
		help_growth(space, map, growing, position);
	return result;
}

static NxmAction
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
	NxmWrite	write = {.decide = decide_put,.value = *value};

	return nxm_map_write(space, map, key, &write);
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
	Place		place;
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
			complete_pending(space, &place, place.header);
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

/* Puts another body, or none, in place of the present one. */
static NxmResult
cut_off(NxmSpace *space, NxmMap *map, uint64_t body)
{
	uint64_t	nobody = 0;
	uint64_t	directory;

	/* the housekeeper would go on changing the directory that is cut off */
	if (nxm_load(&map->dead) != 0 ||
		!nxm_cas(&map->housekeeper, &nobody, (uint64_t) space->proc + 1))
		return NXM_EXISTS;
	directory = nxm_load(&map->directory);
	if (nxm_load(&map->dead) != 0 || (directory & NXM_REF_MASK) == 0)
	{
		nxm_store(&map->housekeeper, 0);
		return (directory & NXM_REF_MASK) == 0 ? NXM_DROPPED : NXM_EXISTS;
	}
	/*
	 * This one first: whoever finds the old body being drained must find the new
	 * one in its place, or it would go round until we go on.
	 */
	nxm_store(&map->directory,
			  ((directory & ~(SERIAL_ONE - 1)) + SERIAL_ONE) | body);
	nxm_store(&map->dead, directory);
	nxm_store(&map->housekeeper, 0);
	return NXM_OK;
}

NxmResult
nxm_map_clear(NxmSpace *space, NxmMap *map, uint64_t *removed)
{
	uint64_t	body;
	NxmResult	result;

	*removed = nxm_map_entries(map);
	if (nxm_load(&map->dead) != 0)
		return NXM_EXISTS;
	body = new_body(space);
	if (body == 0)
		return nxm_no_object(space);
	result = cut_off(space, map, body);
	if (result != NXM_OK)
	{
		NxmAtomic  *entry = nxm_at(space, body);

		nxm_free(space, nxm_load_relaxed(entry) & NXM_REF_MASK);
		nxm_free(space, body);
	}
	return result;
}

NxmResult
nxm_map_drop(NxmSpace *space, NxmMap *map)
{
	return cut_off(space, map, 0);
}

/*
 * Takes all items out of a segment of a dead body and of its successors.  Any
 * number of processes may at once; an item is retired by whoever's CAS takes it
 * out.
 */
static NxmResult
drain_segment(NxmSpace *space, NxmMap *map, Segment *seg)
{
	uint32_t	log = NXM_GET(seg->log);
	Place		place = {.overflow = overflows_of(seg, log)};
	uint64_t	next = 0;

	if (!nxm_cas(&seg->next, &next, CUT) && next != CUT)
	{
		Segment    *first;
		NxmResult	result = migrate_all(space, seg);

		if (result != NXM_OK)
			return result;
		first = nxm_at(space, next);
		if (first == NULL)
			return NXM_NEED_CHUNK;
		result = drain_segment(space, map, first);
		if (result == NXM_OK && NXM_GET(first->sibling) != 0)
		{
			Segment    *second = nxm_at(space, NXM_GET(first->sibling));

			if (second == NULL)
				return NXM_NEED_CHUNK;
			result = drain_segment(space, map, second);
		}
		return result;
	}

	for (uint32_t b = 0; b < UINT32_C(1) << log; b++)
	{
		uint64_t	header;

		place.bucket = &seg->bucket[b];
		header = nxm_load(&place.bucket->header);
		while ((header & H_STATUS) != H_FROZEN)
		{
			if ((header & H_PENDING) != 0)
			{
				complete_pending(space, &place, header);
				header = nxm_load(&place.bucket->header);
			}
			else if (nxm_cas(&place.bucket->header, &header,
							 next_version((header & ~H_STATUS) | H_FROZEN)))
				header = next_version((header & ~H_STATUS) | H_FROZEN);
		}
		for (int i = 0; i < chain_slots(header); i++)
		{
			NxmAtomic  *slot = slot_at(&place, header, i);
			uint64_t	word = nxm_load(slot);

			while (word != FROZEN)
			{
				NxmRef		ref = (word & STATE_MASK) == OPEN ? word & NXM_REF_MASK : 0;
				size_t		bytes = 0;

				if (ref != 0)
				{
					NxmItem    *item = nxm_at(space, ref);

					if (item == NULL)
						return NXM_NEED_CHUNK;
					nxm_protect(space, ref);
					if (nxm_load(slot) != word)
					{
						word = nxm_load(slot);
						continue;
					}
					bytes = nxm_item_bytes(item);
				}
				if (nxm_cas(slot, &word, FROZEN))
				{
					if (ref != 0)
					{
						nxm_retire(space, ref);
						count(space, map, -1, -(int64_t) bytes);
					}
					break;
				}
			}
		}
	}
	return NXM_OK;
}

/* Retires a drained segment with its successors. */
static void
retire_segments(NxmSpace *space, NxmRef ref)
{
	Segment    *seg = nxm_at(space, ref);
	uint64_t	next = nxm_load(&seg->next);

	if (next != CUT)
	{
		Segment    *first = nxm_at(space, next);
		NxmRef		sibling = NXM_GET(first->sibling);

		retire_segments(space, next);
		if (sibling != 0)
			retire_segments(space, sibling);
	}
	nxm_retire_epoch(space, ref);
}

NxmResult
nxm_map_drain(NxmSpace *space, NxmMap *map)
{
	uint64_t	dead = nxm_load(&map->dead);
	uint32_t	depth = directory_depth(dead);
	uint64_t	first;

	if (dead == 0)
		return NXM_ABSENT;
	if (!directory_is_mapped(space, dead))
		return NXM_NEED_CHUNK;

again:
	first = nxm_load_relaxed(&map->drained);
	for (uint64_t i = first; i < UINT64_C(1) << depth; i++)
	{
		NxmAtomic  *entry = directory_entry(space, dead, i);
		uint64_t	word = nxm_load(entry);
		Segment    *seg;
		uint64_t	n;
		NxmResult	result;

		if (word == 0)
			continue;
		seg = nxm_at(space, word & NXM_REF_MASK);
		if (seg == NULL)
			return NXM_NEED_CHUNK;
		result = drain_segment(space, map, seg);
		if (result != NXM_OK)
			return result;
		n = UINT64_C(1) << (depth - NXM_GET(seg->depth));
		/* the last of its entries first, so that the first one decides */
		while (--n > 0)
			nxm_store(directory_entry(space, dead, i + n), 0);
		if (nxm_cas(entry, &word, 0))
			retire_segments(space, word & NXM_REF_MASK);
		nxm_store_relaxed(&map->drained, i);
		return NXM_OK;
	}
	if (first != 0)
	{
		/* a process that was held up may have set it for a body before */
		nxm_store_relaxed(&map->drained, 0);
		goto again;
	}
	if (nxm_cas(&map->dead, &dead, 0))
		(void) retire_directory(space, dead);
	return NXM_ABSENT;
}
