/*
 * map_internal.h
 *	  What the files of the map share: the layout of slots, headers, segments and
 *	  directories, and the steps of growth.  map.h has the design.
 */
#ifndef NXM_MAP_INTERNAL_H
#define NXM_MAP_INTERNAL_H

#include "map.h"
#include "pause.h"

/* The checker makes these small. */
#ifndef NXM_BUCKET_SLOTS
#define NXM_BUCKET_SLOTS 31
#define NXM_BUCKET_LINES 4
#define NXM_OVERFLOW_SLOTS 8
#define NXM_MIN_LOG 1			/* buckets of the first segment */
#define NXM_MAX_LOG 5			/* buckets of a segment of a large map */
/* what fills up the size class of the segment: 15 for 32 buckets, 9,216 bytes */
#define POOL_OF(log) \
	((log) == 5 ? 15 : (log) == 4 ? 7 : (log) == 3 ? 3 : 1)
#define NXM_CHAIN_OVERFLOWS 4	/* most overflow buckets of a chain */
#define NXM_EXTENT_OVERFLOWS 24 /* 1,536 bytes */
_Static_assert((NXM_BUCKET_SLOTS + 1) * sizeof(NxmAtomic) == NXM_BUCKET_LINES * NXM_CACHE_LINE &&
			   NXM_OVERFLOW_SLOTS * sizeof(NxmAtomic) == NXM_CACHE_LINE,
			   "buckets are whole lines");
#endif

/*
 * Buckets that a writer migrates besides its own.  With 2 the old segments of
 * 1,000,000 growing entries took 1 byte an entry more, with 4 0.2.
 */
#define HELP 8

/* Extents of a segment, and its overflow buckets with them. */
#define NXM_EXTENTS 2
#define EXTENT_BYTES	(NXM_EXTENT_OVERFLOWS * sizeof(NxmOverflow))
#define MOST_OVERFLOWS(log) (POOL_OF(log) + NXM_EXTENTS * NXM_EXTENT_OVERFLOWS)

/* Slots of a chain at most, and of one that a migration fills. */
#define CHAIN_SLOTS (NXM_BUCKET_SLOTS + NXM_CHAIN_OVERFLOWS * NXM_OVERFLOW_SLOTS)
#define FILLED_SLOTS (NXM_BUCKET_SLOTS + NXM_OVERFLOW_SLOTS)

/* Slots. */
#define STATE_SHIFT		62
#define OPEN			(UINT64_C(1) << STATE_SHIFT)
#define TENTATIVE		(UINT64_C(2) << STATE_SHIFT)
#define FROZEN			(UINT64_C(3) << STATE_SHIFT)
#define STATE_MASK		FROZEN
#define FREQ_SHIFT		60		/* of caches */
#define FREQ_ONE		(UINT64_C(1) << FREQ_SHIFT)
#define FREQ_MASK		(UINT64_C(3) << FREQ_SHIFT)
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
#define H_OVERFLOW_BITS 6		/* of the number of each overflow bucket */
#define H_OVERFLOW		(UINT64_C(0xFFFFFF) << H_OVERFLOW_SHIFT)
#define H_VERSION_ONE	(UINT64_C(1) << 33)
_Static_assert(MOST_OVERFLOWS(NXM_MAX_LOG) < 1 << H_OVERFLOW_BITS &&
			   NXM_CHAIN_OVERFLOWS <= 24 / H_OVERFLOW_BITS,
			   "the numbers of overflow buckets fit");
_Static_assert(CHAIN_SLOTS < 64, "pending fits");
_Static_assert(CHAIN_SLOTS < 2 * (NXM_BUCKET_SLOTS + 1),
			   "one successor at most has an overflow bucket");

/* Directory word and entries. */
#define DEPTH_SHIFT		34
#define SERIAL_ONE		(UINT64_C(1) << 40)
#define ENTRY_LOG_SHIFT 34
#define ENTRY_DEPTH_SHIFT 40
#define PAGE_ENTRIES_LOG NXM_PAGE_SHIFT
#define PAGE_ENTRIES	(1 << PAGE_ENTRIES_LOG)
#ifndef FLAT_DEPTH				/* the checker makes it small */
#define FLAT_DEPTH		11		/* a directory of one object up to here */
#endif
#define MAX_DEPTH		24
#ifndef FIRST_TAG_BIT
#define FIRST_TAG_BIT	5
#endif
/* beyond it tags do not tell how to split */
#define MAX_BUCKET_DEPTH (FIRST_TAG_BIT + TAG_BITS)

/* In `next` of a segment of a body that clear cut off: there is no successor. */
#define CUT				UINT64_C(1)
/* In `extent` of a segment that is retired: there will be no other. */
#define EXTENT_CLOSED	(UINT64_C(1) << 63)
/* In an entry of a directory that clear cut off: it is not to change any more. */
#define ENTRY_DEAD		(UINT64_C(1) << 63)
/* In `dead`: somebody is cutting a body off. */
#define CUTTING			UINT64_C(1)

typedef struct NxmBucket
{
	NxmAtomic	header;
	NxmAtomic	slot[NXM_BUCKET_SLOTS];
} NxmBucket;

/*
 * A bucket is a few lines of the cache; the header is the first word of the first.
 * A key is put into the line that its tag prefers while there is room, so that
 * most reads need no more than one.
 */
#define LINE_WORDS		((NXM_BUCKET_SLOTS + 1) / NXM_BUCKET_LINES)

/* The first slot of a line, and the one after its last. */
#define LINE_BEGIN(line)	((line) == 0 ? 0 : (line) * LINE_WORDS - 1)
#define LINE_END(line)		((line) * LINE_WORDS + LINE_WORDS - 1)

static inline int
preferred_line(uint64_t slot_word)
{
	return (int) (slot_word >> NXM_REF_BITS) & (NXM_BUCKET_LINES - 1);
}

typedef struct NxmOverflow
{
	NxmAtomic	slot[NXM_OVERFLOW_SLOTS];
} NxmOverflow;

/*
 * 64 bytes, the buckets, the first overflow buckets.  With 32 buckets 9,216 bytes.
 */
typedef struct NxmSegment
{
	NxmAtomic	next;			/* first successor; 0: none */
	NxmAtomic	migrated;		/* buckets */
	NxmAtomic	pool;			/* bit i: overflow bucket i is used */
	NxmAtomic	cursor;			/* next bucket for a helper */
	NxmAtomic	extent[NXM_EXTENTS];	/* more overflow buckets; 0: none yet */
	uint32_t	prefix;			/* first 32 bits of the first position; immutable */
	uint16_t	log;			/* of the number of buckets; immutable */
	uint16_t	depth;			/* bits of prefix; immutable */
	uint64_t	sibling;		/* of a first successor: the second one, or 0 */
	NxmBucket		bucket[];
} NxmSegment;

_Static_assert(offsetof(NxmSegment, bucket) == NXM_CACHE_LINE, "the first bucket begins at a line");

/* Where a position is: an OPEN bucket, when looked up. */
typedef struct NxmPlace
{
	NxmSegment    *seg;
	NxmSegment    *parent;			/* of seg, if reached by way of it */
	NxmBucket     *bucket;
	NxmOverflow   *overflow[NXM_CHAIN_OVERFLOWS];	/* those that header names */
	uint64_t	header;
	uint32_t	log;
	uint32_t	depth;
} NxmPlace;

/* y of map.h, Position: x - x^2 / 4, and a third of that more. */
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
	return (position >> (64 - FIRST_TAG_BIT - TAG_BITS) << NXM_REF_BITS) & TAG_MASK;
}

/*
 * The bit of a position, from the first one on, that parts the buckets which follow, in
 * a word with the position's tag.  bit: from FIRST_TAG_BIT on.
 */
static inline int
side_of(uint64_t word, uint32_t bit)
{
	return (int) (word >> (NXM_REF_BITS + FIRST_TAG_BIT + TAG_BITS - 1 - bit)) & 1;
}

/* n: up to 63 */
static inline uint64_t
first_bits(uint64_t position, uint32_t n)
{
	return position >> 1 >> (63 - n);
}

static inline uint64_t
bucket_number(uint64_t position, uint32_t depth, uint32_t log)
{
	return first_bits(position << depth, log);
}

static inline NxmOverflow *
overflows_of(NxmSegment *seg, uint32_t log)
{
	return (NxmOverflow *) &seg->bucket[(size_t) 1 << log];
}

/* How many overflow buckets a chain has. */
static inline int
chain_overflows(uint64_t header)
{
	uint64_t	numbers = (header & H_OVERFLOW) >> H_OVERFLOW_SHIFT;

	/* numbers begin at 1, and none is left out */
	return numbers == 0 ? 0 :
		(63 - __builtin_clzll(numbers)) / H_OVERFLOW_BITS + 1;
}

/* Which one of its segment the i-th of a chain is. */
static inline int
overflow_number(uint64_t header, int i)
{
	return (int) (header >> (H_OVERFLOW_SHIFT + i * H_OVERFLOW_BITS) &
				  ((1 << H_OVERFLOW_BITS) - 1)) - 1;
}

/* Slot i of a chain, of which place knows the overflow buckets. */
static inline NxmAtomic *
slot_at(const NxmPlace *place, int i)
{
	if (i < NXM_BUCKET_SLOTS)
		return &place->bucket->slot[i];
	i -= NXM_BUCKET_SLOTS;
	return &place->overflow[(unsigned) i / NXM_OVERFLOW_SLOTS]
		->slot[(unsigned) i % NXM_OVERFLOW_SLOTS];
}

static inline int
chain_slots(uint64_t header)
{
	return NXM_BUCKET_SLOTS + chain_overflows(header) * NXM_OVERFLOW_SLOTS;
}

static inline int
pending_slot(uint64_t header)
{
	return (int) ((header & H_PENDING) >> H_PENDING_SHIFT) - 1;
}

/*
 * Of 29 bits: one that was held up, while exactly a multiple of 2^28 keys were
 * inserted into its bucket, would not notice.  The first two bits stay 0: what looks
 * for slots takes no header for one.
 */
static inline uint64_t
next_version(uint64_t header)
{
	return (header + H_VERSION_ONE) & ~STATE_MASK;
}

static inline uint32_t
directory_depth(uint64_t directory)
{
	return (uint32_t) (directory >> DEPTH_SHIFT) & 0x3F;
}

static inline uint32_t
directory_pages(uint32_t depth)
{
	return depth <= FLAT_DEPTH ? 0 :
		depth <= PAGE_ENTRIES_LOG ? 1 : UINT32_C(1) << (depth - PAGE_ENTRIES_LOG);
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

static inline bool
has_migrated(NxmSegment *seg)
{
	return nxm_load(&seg->migrated) >= UINT64_C(1) << NXM_GET(seg->log);
}

static inline void
nxm_map_count(NxmSpace *space, NxmMap *map, int64_t entries, int64_t bytes)
{
	int			i = space->proc % NXM_MAP_STATS;

	if (entries != 0)
		nxm_fetch_add_relaxed(&map->stats[i].entries, (uint64_t) entries);
	if (bytes != 0)
		nxm_fetch_add_relaxed(&map->stats[i].bytes, (uint64_t) bytes);
}

/*
 * As nxm_alloc(), nxm_free() and nxm_retire_epoch(), for what the index itself is made
 * of, which is counted in map->memory, and in space->counted: past whose `most` there
 * is no memory.
 */
extern NxmRef nxm_map_alloc(NxmSpace *space, NxmMap *map, size_t size);
extern void nxm_map_free(NxmSpace *space, NxmMap *map, NxmRef ref);
extern void nxm_map_retire(NxmSpace *space, NxmMap *map, NxmRef ref);

/* For nxm_map_find_overflows(): the overflow buckets that header names. */
extern bool nxm_map_find_overflows_slow(NxmSpace *space, NxmPlace *place,
										uint64_t header);

/*
 * Finds out where the overflow buckets are of the chain whose header this is, or was:
 * later ones have the same, and perhaps more.  false: a chunk is not mapped.
 */
static inline bool
nxm_map_find_overflows(NxmSpace *space, NxmPlace *place, uint64_t header)
{
	return __builtin_expect((header & H_OVERFLOW) == 0, 1) ||
		nxm_map_find_overflows_slow(space, place, header);
}

/* 0: nxm_no_object() tells why.  A directory word for an empty body of 2^log buckets. */
extern uint64_t nxm_map_new_body(NxmSpace *space, NxmMap *map, uint32_t log);
/* Frees one that nobody else can have seen. */
extern void nxm_map_free_body(NxmSpace *space, NxmMap *map, uint64_t body);
extern void nxm_map_retire_directory(NxmSpace *space, NxmMap *map, uint64_t directory);
/* With its extents. */
extern void nxm_map_retire_segment(NxmSpace *space, NxmMap *map, NxmRef ref);
extern bool nxm_map_directory_is_mapped(NxmSpace *space, uint64_t directory);
/*
 * Pages that it takes to double a directory of several, where that failed for want of
 * memory; else 0.  A hint: after the map was cleared, or shrank, it may be an older one.
 */
extern uint32_t nxm_map_pages_wanted(NxmMap *map);

/*
 * Sees to it that a committed insert is LIVE and nothing pending.  Replaces the
 * hazard.  The header may be another one afterwards in any way.
 */
extern void nxm_map_complete_pending(NxmSpace *space, const NxmPlace *place,
									 uint64_t header);

/*
 * Migrates bucket b, or all, of a segment with a successor.  Any number of
 * processes may at once.  NXM_OK: it has migrated.  Replaces the hazard.
 */
extern NxmResult nxm_map_migrate(NxmSpace *space, NxmSegment *seg, uint32_t b);
extern NxmResult nxm_map_migrate_all(NxmSpace *space, NxmSegment *seg);

/* What a writer does for a growth that it met. */
extern void nxm_map_help_growth(NxmSpace *space, NxmMap *map, NxmSegment *seg,
								uint64_t position);

/*
 * Does a chain have as many entries of the side of a tag as may be?  Sides are the
 * two successors that a split would give it.
 */
extern bool nxm_map_side_is_full(const NxmPlace *place, uint64_t tag);

/*
 * Makes room in a chain that is full, or a side of it: an overflow bucket, or
 * successors.  dense: overflow buckets of extents too, and up to
 * NXM_CHAIN_OVERFLOWS; for an index of at least 2^FIRST_TAG_BIT buckets.  NXM_OK:
 * look again.
 */
extern NxmResult nxm_map_make_room(NxmSpace *space, NxmMap *map, const NxmPlace *place,
								   uint64_t position, bool dense);

/*
 * For a chain that has no EMPTY slot for a tag: can it have no more of them without
 * more memory?  And percent of the slots of a segment, with its overflow buckets, that
 * are used, about.
 */
extern bool nxm_map_is_crowded(const NxmPlace *place, uint64_t tag);
extern int	nxm_map_percent_used(NxmSpace *space, const NxmPlace *place);

/*
 * Puts an item into an EMPTY slot of the chain as it was looked up.  false:
 * something changed, the item is still the caller's.  Replaces the hazard.
 */
extern bool nxm_map_insert(NxmSpace *space, const NxmPlace *place, int slot,
						   uint64_t tag, NxmRef ref);

/* As nxm_map_scan(), with slots whose items are protected.  seen: by each(), in bytes. */
extern NxmResult nxm_map_scan_slots(NxmSpace *space, NxmMap *map, uint64_t *position,
									void (*begin) (void *context),
									NxmResult (*each) (NxmSpace *space,
													   NxmAtomic *slot,
													   uint64_t word,
													   void *context),
									const uint64_t *seen, void *context);

/* What draining does with what slots refer to, which is protected meanwhile. */
typedef struct NxmMapItems NxmMapItems;
struct NxmMapItems
{
	/*
	 * Can it be removed by this process?  NXM_OK: it can, and is protected;
	 * NXM_NEED_CHUNK; NXM_EXISTS: the slot was changed meanwhile.
	 */
	NxmResult	(*prepare) (NxmSpace *space, const NxmMapItems *items, NxmAtomic *slot,
							uint64_t word);
	/* It has been taken out of its slot: counts and frees it. */
	void		(*removed) (NxmSpace *space, const NxmMapItems *items, NxmMap *map,
							NxmRef ref);
};

/*
 * As nxm_map_clear(), with 2^log buckets to begin with, and nxm_map_drain().
 * map->mark has the mark as long as an item is to be taken out: who reads it when
 * the item was seen in its slot, and then takes that item out, has read the right one.
 */
extern NxmResult nxm_map_clear_to(NxmSpace *space, NxmMap *map, uint32_t log,
								  uint64_t mark, uint64_t *removed);
extern NxmResult nxm_map_drain_items(NxmSpace *space, NxmMap *map,
									 const NxmMapItems *items);

#endif							/* NXM_MAP_INTERNAL_H */
