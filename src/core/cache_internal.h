/*
 * cache_internal.h
 *	  What the files of the cache share: the layout of items, segments, chains and
 *	  partitions, and the steps that operations and housekeeping are made of.
 *	  cache.h has the design.
 *
 *	cache.c			operations
 *	cache_batch.c	many keys at once, iteration
 *	cache_segment.c	opening segments, reserving room, writing items
 *	cache_chain.c	the order of segments, and what is to be evicted first
 *	cache_evict.c	taking items out of a segment, giving it back
 *	cache_recycle.c	writing again where an item was overwritten
 *	cache_ghost.c	fingerprints of what was evicted
 *	cache_counts.c	statistics
 *	cache_tick.c	making, clearing, dropping, housekeeping
 */
#ifndef NXM_CACHE_INTERNAL_H
#define NXM_CACHE_INTERNAL_H

#include "cache.h"
#include "map_internal.h"

/* Bytes of a page that a segment uses; the checker and simulators make it small. */
#ifndef NXM_CACHE_SEGMENT
#define NXM_CACHE_SEGMENT	NXM_PAGE_SIZE
#endif
#define SEGMENT_UNITS		(NXM_CACHE_SEGMENT / NXM_REF_UNIT)
/* The first unit of a segment has its deadline, for readers. */
#define HEAD_UNITS			1
/* A longer item has its value in an item of its own. */
#ifndef NXM_CACHE_INLINE
#define NXM_CACHE_INLINE \
	(NXM_CACHE_SEGMENT >= 4096 ? NXM_CACHE_SEGMENT / 4 : NXM_CACHE_SEGMENT - 16)
#endif

/* Segments sealed before they were half full that are noted, to be evicted first. */
#ifndef NXM_CACHE_UNDERFULL
#define NXM_CACHE_UNDERFULL	128
#endif

/* Windows of deadlines that a partition writes to at once, at most. */
#ifndef NXM_CACHE_WINDOWS
#define NXM_CACHE_WINDOWS	256
#endif
/*
 * Lines of counters: of the first processes, in the partition; in a block; and blocks
 * of a partition, see cache_counts.c.
 */
#ifndef NXM_CACHE_STRIPES
#define NXM_CACHE_STRIPES	32
#endif
#ifndef NXM_CACHE_COUNT_LINES
#define NXM_CACHE_COUNT_LINES	64
#endif
#ifndef NXM_CACHE_COUNT_BLOCKS
#define NXM_CACHE_COUNT_BLOCKS	32
#endif
/*
 * Rooms of overwritten items: lists, of which processes below as many have each one
 * of their own, and what is in one.
 */
#ifndef NXM_CACHE_ROOM_LISTS
#define NXM_CACHE_ROOM_LISTS	16
#endif
#ifndef NXM_CACHE_ROOMS
#define NXM_CACHE_ROOMS		16
#endif
#ifndef NXM_CACHE_ROOM_ALIGN	/* the checker makes it small */
#define NXM_CACHE_ROOM_ALIGN NXM_CACHE_LINE
#endif
/* Segments known to be worth taking first. */
#ifndef NXM_CACHE_RIPE
#define NXM_CACHE_RIPE		16
#endif
/* Drained segments that hazards hold back, of which it is known where they are. */
#ifndef NXM_CACHE_HELD
#define NXM_CACHE_HELD		64
#endif
/* Entries of a block of a chain: 256 bytes. */
#ifndef NXM_CHAIN_ENTRIES
#define NXM_CHAIN_ENTRIES	29
#endif

/* Names that one look for sparse segments is to end after. */
#ifndef NXM_CACHE_SEEK
#define NXM_CACHE_SEEK		4096
#endif

/* Pages below the limits that only copies may take. */
#ifndef NXM_CACHE_KEEP
#define NXM_CACHE_KEEP		2
#endif
/* Pages beyond these below which sets begin to evict. */
#ifndef NXM_CACHE_AHEAD
#define NXM_CACHE_AHEAD		2
#endif

/* Reads since it was inserted that let an item of average size move from small to main. */
#ifndef NXM_CACHE_PROMOTE
#define NXM_CACHE_PROMOTE	2
#endif
/*
 * The share of segments that is small, of SHARE_ALL: at first, and between which it
 * is adapted.
 */
#define SHARE_ALL			(INT64_C(1) << 30)
#ifndef NXM_CACHE_SMALL_SHARE
#define NXM_CACHE_SMALL_SHARE (SHARE_ALL / 10)
#endif
#define MIN_SHARE			(SHARE_ALL / 50)
#define MAX_SHARE			(SHARE_ALL / 5 * 4)

/*
 * Buckets of an empty index, as a power of two: so many that the tags alone tell
 * how to split them.
 */
#define NXM_CACHE_MIN_LOG	FIRST_TAG_BIT

/* Bytes of index that an entry takes on average, see map.h. */
#ifndef NXM_CACHE_INDEX_BYTES
#define NXM_CACHE_INDEX_BYTES 11
#endif
/* An index of so many bytes is small enough in any case. */
#ifndef NXM_CACHE_SMALL_INDEX
#define NXM_CACHE_SMALL_INDEX NXM_PAGE_SIZE
#endif

/* Marks of indexes that were cut off: what becomes of the entries. */
#define MARK_CLEARED		UINT64_C(0)
#define MARK_EVICTED		UINT64_C(1)

#define KIND_SMALL			0
#define KIND_MAIN			1

/*
 * Word 0 beside a page's descriptor.  Used: units given out.  Scale: the power of
 * two of its times to live, 0: it has no deadlines.
 *
 *	63                      26 25     20  19  18   16 15          0
 *	+-------------------------+---------+----+-------+------------+
 *	|          life           |  scale  |kind| state |    used    |
 *	+-------------------------+---------+----+-------+------------+
 */
#define SEG_USED(w)			((uint32_t) (w) & 0xFFFF)
#define SEG_STATE_MASK		(UINT64_C(7) << 16)
#define SEG_NONE			(UINT64_C(0) << 16)
#define SEG_OPEN			(UINT64_C(1) << 16)
#define SEG_SEALED			(UINT64_C(2) << 16)
#define SEG_EVICTING		(UINT64_C(3) << 16)
#define SEG_DRAINED			(UINT64_C(4) << 16)
#define SEG_STATE(w)		((w) & SEG_STATE_MASK)
#define SEG_KIND(w)			((int) ((w) >> 19) & 1)
#define SEG_KIND_SHIFT		19
#define SEG_SCALE(w)		((uint32_t) ((w) >> 20) & 0x3F)
#define SEG_SCALE_SHIFT		20
#define SEG_LIFE(w)			((w) >> 26)
#define SEG_LIFE_SHIFT		26
_Static_assert(SEGMENT_UNITS <= 0xFFFF, "the units of a segment fit");

/* The words beside the descriptor of a page that is a segment. */
typedef struct NxmCacheSegment
{
	NxmAtomic	word;			/* above */
	NxmAtomic	done;			/* low bits of the life 63..32, units: dead 31..16,
								 * committed 15..0 */
	NxmAtomic	due;			/* its deadline; 0: none */
	NxmAtomic	cursor;			/* unit that eviction goes on with; by who evicts */
	NxmAtomic	weight;			/* bytes of the values that its items name */
	NxmAtomic	sealed_at;		/* count of small's ghost then */
} NxmCacheSegment;

#define DONE_COMMITTED(d)	((uint32_t) (d) & 0xFFFF)
#define DONE_DEAD(d)		((uint32_t) (d) >> 16)
#define DONE_LIFE(d)		((uint32_t) ((d) >> 32))
#define DONE_LIFE_SHIFT		32
#define DEAD_ONE			(UINT64_C(1) << 16)

/*
 * A segment in its life, as chains name it: life 59..22, page + 1.  0: not yet
 * written; GONE: given back.
 */
#define NAME_PAGE_BITS		22
#define NAME_PAGE(n)		((uint32_t) ((n) & ((1 << NAME_PAGE_BITS) - 1)) - 1)
#define NAME_LIFE(n)		((n) >> NAME_PAGE_BITS)
#define NAME_GONE			UINT64_MAX
#define NAME_OF(page, life) ((life) << NAME_PAGE_BITS | ((page) + UINT64_C(1)))

/*
 * An open segment as writers find it: a tag of its window 63..48, its life's low
 * bits 47..22, page + 1.  0: none; CELL_CLOSED: there will be none any more.
 */
#define CELL_LIFE_MASK		((UINT64_C(1) << 26) - 1)
#define CELL_LIFE(c)		((c) >> NAME_PAGE_BITS & CELL_LIFE_MASK)
#define CELL_TAG(c)			((c) >> 48)
#define CELL_CLOSED			UINT64_MAX

/*
 * Time to live, beyond eight times the slack, in scales 22 to 45: windows of half a
 * second to 51 days.  Window and slack are an eighth of it at most, or a second.
 */
#define MIN_SCALE			22
#define MAX_SCALE			45
#define WINDOW_SHIFT(scale) ((scale) - 3)
/*
 * Where windows are too many for a small partition they are wider: on level n by n to 2n
 * scales, to the next multiple of n + 1.
 */
#define MAX_LEVEL			7
#define WIDEST_SCALE		55
#define WINDOW_SLACK		(INT64_C(1) << 18)
_Static_assert(WINDOW_SLACK >= NXM_CACHE_PERIOD * 5 / 4,
			   "a pass of housekeeping may take a quarter of its period");
_Static_assert((INT64_C(1) << WINDOW_SHIFT(MIN_SCALE)) + WINDOW_SLACK <= 1000000,
			   "what expires soon is reclaimed within a second");

/* The head of a segment: its deadline, and its scale. */
#define HEAD_SCALE_SHIFT	58
#define HEAD_DUE(h)			((int64_t) ((h) & ((UINT64_C(1) << HEAD_SCALE_SHIFT) - 1)))
#define HEAD_SCALE(h)		((uint32_t) ((h) >> HEAD_SCALE_SHIFT))
_Static_assert(NXM_CACHE_LAST_DEADLINE + (INT64_C(1) << WINDOW_SHIFT(WIDEST_SCALE)) <=
			   INT64_C(1) << HEAD_SCALE_SHIFT,
			   "it has the end of the last deadline's window");

/*
 * Header of an item.
 *
 *	 31   29    28   27 26 25          11 10        0
 *	+---+---+------+-----+--------------+-----------+
 *	| 0 |big| ddl  |type | value length | key length|
 *	+---+---+------+-----+--------------+-----------+
 *
 * Of a short one with a deadline, which needs one byte more instead of four: what lacks
 * to the segment's has 4, 4 and 3 bits here, the low ones first, and 8 in that byte.
 *
 *	 31 30 28 27 26 25 22 21         11 10 7 6        0
 *	+---+----+-----+-----+-------------+----+----------+
 *	| 1 |lack|type |lack |value length |lack|key length|
 *	+---+----+-----+-----+-------------+----+----------+
 */
#define C_KEY_LEN(h)		((h) & 0x7FF)
#define C_LEN_SHIFT			11
#define C_LEN(h)			((h) >> C_LEN_SHIFT & 0x7FFF)
#define C_TYPE_SHIFT		26
#define C_TYPE(h)			((NxmType) ((h) >> C_TYPE_SHIFT & 3))
#define C_DEADLINE			(UINT32_C(1) << 28)
#define C_BIG				(UINT32_C(1) << 29)
#define C_SHORT				(UINT32_C(1) << 31)
#define MAX_SHORT_KEY		0x7F
#define MAX_SHORT_LEN		0x7FF
#define C_SHORT_MASK \
	(C_SHORT | 3 << C_TYPE_SHIFT | MAX_SHORT_LEN << C_LEN_SHIFT | MAX_SHORT_KEY)
#define SHORT_LACK_BITS		19
#define C_SHORT_LACK(h, byte) \
	(((h) >> 7 & 0xF) | ((h) >> 22 & 0xF) << 4 | ((h) >> 28 & 7) << 8 | \
	 (uint32_t) (byte) << 11)
#define C_SET_SHORT_LACK(l) \
	(((l) & 0xF) << 7 | ((l) >> 4 & 0xF) << 22 | ((l) >> 8 & 7) << 28)
#define SHORT_LACK_BYTE(l)	((uint8_t) ((l) >> 11))
_Static_assert(WINDOW_SHIFT(MIN_SCALE) <= SHORT_LACK_BITS,
			   "deadlines within seconds are exact");

typedef struct NxmChainBlock
{
	NxmAtomic	next;			/* reference; 0: the last one; CHAIN_CLOSED */
	NxmAtomic	count;			/* entries given out, or more; and a mark, see cache_chain.c */
	NxmAtomic	due;			/* no segment of it is due before; UINT64_MAX: none is */
	NxmAtomic	entry[NXM_CHAIN_ENTRIES];	/* names */
} NxmChainBlock;

#define CHAIN_CLOSED		UINT64_C(1)
/* In a chain's lock: it is closed, and nobody takes blocks out of it any more. */
#define LOCK_CLOSED			UINT64_MAX

typedef struct NxmChain
{
	NxmAtomic	head;			/* reference of the first block; by who has the lock */
	NxmAtomic	tail;			/* of the last one, or one before */
	NxmAtomic	lock;			/* try-lock of who takes blocks out, or seeks */
	NxmAtomic	segments;		/* that there are */
	NxmAtomic	blocks;			/* that there are, about: one may be taken out before it is
								 * counted */
	NxmAtomic	sought;			/* block that seeking sparse segments goes on with; 0: the
								 * first; by who has the lock */
	NxmAtomic	cleaned;		/* block behind which cleaning goes on; 0: it begins; by who
								 * has the lock */
	uint64_t	unused;
} NxmChain;

/* The room of an item that was overwritten, see cache_recycle.c. */
typedef struct NxmFreeRoom
{
	NxmAtomic	name;
	NxmAtomic	sort;			/* size, kind and scale; before the name is written */
} NxmFreeRoom;

/* What was evicted from segments of a kind, see cache_ghost.c. */
typedef struct NxmGhost
{
	NxmAtomic	table;			/* number of lines 63..34, reference */
	NxmAtomic	count;			/* entries put into it so far */
	uint64_t	time_bits;		/* of an entry; immutable */
} NxmGhost;

/* What one process has counted: a line. */
#define NXM_CACHE_LINE_COUNTERS (NXM_CACHE_LINE / (int) sizeof(NxmAtomic))
typedef struct NxmCacheCounts
{
	NxmAtomic	counter[NXM_CACHE_LINE_COUNTERS];
} NxmCacheCounts;

_Static_assert(NXM_CACHE_NCOUNTERS <= NXM_CACHE_LINE_COUNTERS &&
			   sizeof(NxmCacheCounts) == NXM_CACHE_LINE, "counts are a line");

/* In place of a block of lines: there will be none; a process has asked for it. */
#define COUNTS_CLOSED		UINT64_C(1)
#define COUNTS_WANTED		UINT64_C(2)

/* A cache's share of a node. */
typedef struct NxmCachePartition
{
	NxmMap		index;			/* its counts are of the cache's entries */
	NxmChain	chain[2];
	NxmAtomic	open[2];		/* cells of segments without deadlines */
	NxmGhost	ghost[2];		/* by kind */
	NxmAtomic	share;			/* of small segments, of SHARE_ALL */
	NxmAtomic	evicted;		/* 1: something was, to make room */
	NxmAtomic	examined;		/* name of a main segment to be evicted next; 0: none */
	NxmAtomic	next_due;		/* no segment is due before; UINT64_MAX: none is */
	NxmAtomic	waiting;		/* segments DRAINED that a hazard held back, about */
	NxmAtomic	big;			/* bytes of values that are not in segments */
	NxmAtomic	average;		/* bytes of an entry, when a victim was last begun; 0: unknown */
	int			node;			/* of the space; immutable */
	int			number;			/* immutable */
	NxmAtomic	sparse;			/* the round of seeking them, see cache_chain.c */
	NxmAtomic	level;			/* of windows, 0 to MAX_LEVEL */
	NxmAtomic	strain;			/* segments sealed for others since that was changed */
	NxmAtomic	level_since;	/* time; 0: housekeeping has not seen it yet */
	NxmAtomic	window[NXM_CACHE_WINDOWS];	/* cells of segments with deadlines */
	NxmAtomic	ripe[NXM_CACHE_RIPE];	/* names; 0: free */
	NxmAtomic	nunderfull;		/* of these, about; signed */
	NxmAtomic	underfull[NXM_CACHE_UNDERFULL]; /* names likewise, of segments sealed before
												 * they were half full */
	NxmAtomic	held[NXM_CACHE_HELD];	/* likewise, of some that are DRAINED */
	/* each list in lines of its own */
	NxmFreeRoom room[NXM_CACHE_ROOM_LISTS][NXM_CACHE_ROOMS]
				__attribute__((aligned(NXM_CACHE_ROOM_ALIGN)));
	/* blocks of lines: references; 0: none; or one of the above.  Seldom written */
	NxmAtomic	counts[NXM_CACHE_COUNT_BLOCKS];
	NxmCacheCounts stripe[NXM_CACHE_STRIPES] __attribute__((aligned(NXM_CACHE_LINE)));
} NxmCachePartition;

_Static_assert(sizeof(NxmCachePartition) % NXM_CACHE_LINE == 0 &&
			   offsetof(NxmCachePartition, stripe) % NXM_CACHE_LINE == 0,
			   "each process counts in a line of its own");
_Static_assert(offsetof(NxmCachePartition, chain) % NXM_CACHE_LINE == 0 &&
			   sizeof(NxmChain) == NXM_CACHE_LINE, "a chain is a line");
_Static_assert(offsetof(NxmCachePartition, room) % NXM_CACHE_ROOM_ALIGN == 0 &&
			   sizeof(((NxmCachePartition *) 0)->room[0]) % NXM_CACHE_ROOM_ALIGN == 0,
			   "lists of rooms share no line");

/* Memory of a partition itself. */
#define PARTITION_BYTES		nxm_object_size(sizeof(NxmCachePartition))

/* Where a new item is going to be. */
typedef struct NxmRoom
{
	NxmRef		ref;			/* 0: none is reserved */
	uint32_t	units;
	NxmCacheSegment *segment;
} NxmRoom;

/* The words beside a segment's page.  NULL: not mapped. */
static inline NxmCacheSegment *
segment_at(NxmSpace *space, NxmRef ref)
{
	return (NxmCacheSegment *) nxm_page_words(space, nxm_ref_page(ref));
}

/* The same of a segment that a name, or a cell, is of. */
static inline NxmCacheSegment *
segment_named(NxmSpace *space, uint64_t name)
{
	return segment_at(space, (NxmRef) NAME_PAGE(name) << NXM_PAGE_SHIFT);
}

/* The head of the segment that an item is in, whose page is mapped. */
static inline uint64_t *
head_at(NxmSpace *space, NxmRef ref)
{
	return nxm_at(space, ref & ~((UINT64_C(1) << NXM_PAGE_SHIFT) - 1));
}

/* Of headers as item_header() has them, here and below. */
static inline uint32_t
item_key_offset(uint32_t header)
{
	return (header & (C_SHORT | C_DEADLINE)) == 0 ? 4 : (header & C_SHORT) != 0 ? 5 : 8;
}

static inline uint32_t
item_value_offset(uint32_t header)
{
	return item_key_offset(header) + C_KEY_LEN(header);
}

/* Units of an item. */
static inline uint32_t
item_units(uint32_t header)
{
	uint32_t	bytes = item_value_offset(header) +
		((header & C_BIG) != 0 ? (uint32_t) sizeof(NxmRef) : C_LEN(header));

	return (bytes + NXM_REF_UNIT - 1) / NXM_REF_UNIT;
}

/* An item's header, without what a short one has of its deadline. */
static inline uint32_t
item_header(const void *item)
{
	uint32_t	header = NXM_GET(*(const uint32_t *) item);

	return __builtin_expect((header & C_SHORT) == 0, 1) ? header :
		(header & C_SHORT_MASK) | C_DEADLINE;
}

static inline const char *
item_key(const void *item, uint32_t header)
{
	return (const char *) item + item_key_offset(header);
}

/*
 * What a C_BIG one has for its value: the reference of the item that has it, and
 * above that its length.
 */
static inline uint64_t
item_big(const void *item, uint32_t header)
{
	uint64_t	big;

	nxm_copy_out(&big, (const char *) item + item_value_offset(header), sizeof(big));
	return big;
}

#define BIG_REF(b)			((b) & NXM_REF_MASK)
#define BIG_LEN(b)			((uint32_t) ((b) >> NXM_REF_BITS))

/* Bytes of memory of such a value. */
static inline size_t
big_bytes(uint64_t big)
{
	uint64_t	header = (uint64_t) BIG_LEN(big) << 11;

	if (nxm_item_head_bytes(header) > NXM_MAX_OBJECT)
		return nxm_item_big_bytes(header | NXM_ITEM_BIG);
	return nxm_object_size(nxm_item_head_bytes(header));
}

/* By how much what lacks to a window's end is shifted, so that it fits these bits. */
static inline uint32_t
lack_shift(uint32_t scale, uint32_t bits)
{
	return WINDOW_SHIFT(scale) > bits ? WINDOW_SHIFT(scale) - bits : 0;
}

/* Bits of what lacks, of an item that is not short. */
#define LACK_BITS			31

/* The end of a deadline's window: no deadline of it is later. */
static inline uint64_t
due_of(int64_t deadline, uint32_t scale)
{
	return ((((uint64_t) deadline - 1) >> WINDOW_SHIFT(scale)) + 1) << WINDOW_SHIFT(scale);
}

/* What a deadline lacks to the end of its window, for an item: rounded up. */
static inline uint32_t
lack_of(int64_t deadline, uint64_t due, uint32_t scale, uint32_t bits)
{
	uint32_t	shift = lack_shift(scale, bits);

	return (uint32_t) ((due - (uint64_t) deadline + (UINT64_C(1) << shift) - 1) >> shift);
}

/* The deadline of an item, 0: none.  It is protected, or ours. */
static inline int64_t
item_deadline(NxmSpace *space, NxmRef ref, const void *item, uint32_t header)
{
	uint64_t	head;
	uint64_t	lack;

	if ((header & C_DEADLINE) == 0)
		return 0;
	head = NXM_GET(*head_at(space, ref));
	if ((header & C_SHORT) != 0)
		lack = (uint64_t) C_SHORT_LACK(NXM_GET(*(const uint32_t *) item),
									   NXM_GET(((const uint8_t *) item)[4])) <<
			lack_shift(HEAD_SCALE(head), SHORT_LACK_BITS);
	else
		lack = (uint64_t) NXM_GET(((const uint32_t *) item)[1]) <<
			lack_shift(HEAD_SCALE(head), LACK_BITS);
	return HEAD_DUE(head) - (int64_t) lack;
}

static inline bool
item_has_key(const void *item, const NxmKey *key)
{
	uint32_t	header = item_header(item);
	const char *data = item_key(item, header);

	if (C_KEY_LEN(header) != key->len)
		return false;
	NXM_READS(data, key->len);
	return memcmp(data, key->data, key->len) == 0;
}

static inline int
home_of(const NxmCache *cache, uint64_t hash)
{
	/* the index takes the upper half */
	return (int) ((hash & 0xFFFFFFFF) * cache->npartitions >> 32);
}

/* NULL: *result is NXM_DROPPED or NXM_NEED_CHUNK. */
static inline NxmCachePartition *
partition_at(NxmSpace *space, NxmCache *cache, int number, NxmResult *result)
{
	NxmRef		ref = nxm_load(&cache->partition[number]);
	NxmCachePartition *part;

	if (__builtin_expect(ref == 0, 0))
	{
		*result = NXM_DROPPED;
		return NULL;
	}
	part = nxm_at(space, ref);
	if (__builtin_expect(part == NULL, 0))
		*result = NXM_NEED_CHUNK;
	return part;
}

/* The line that a process beyond the first ones counts in; NULL: as counts_of(). */
static inline NxmCacheCounts *
counts_beyond(NxmSpace *space, NxmCachePartition *part)
{
	int			line = space->proc - NXM_CACHE_STRIPES;
	int			block = line / NXM_CACHE_COUNT_LINES;
	uint64_t	ref = block < NXM_CACHE_COUNT_BLOCKS ? nxm_load(&part->counts[block]) :
		COUNTS_CLOSED;

	if (ref > COUNTS_WANTED)
	{
		NxmCacheCounts *lines = nxm_at(space, ref);

		return lines == NULL ? NULL : &lines[line % NXM_CACHE_COUNT_LINES];
	}
	if (ref == 0)
		(void) nxm_cas(&part->counts[block], &ref, COUNTS_WANTED);
	return &part->stripe[space->proc % NXM_CACHE_STRIPES];
}

/* The line that a process counts in.  NULL: its chunk is not mapped; need_chunk is set. */
static inline NxmCacheCounts *
counts_of(NxmSpace *space, NxmCachePartition *part)
{
	return space->proc < NXM_CACHE_STRIPES ? &part->stripe[space->proc] :
		counts_beyond(space, part);
}

/*
 * Counts, for who can repeat what he does.  false: counts_of() is not mapped, and nothing
 * was counted.
 */
static inline bool
try_count(NxmSpace *space, NxmCachePartition *part, int counter)
{
	NxmCacheCounts *counts = counts_of(space, part);

	if (__builtin_expect(counts == NULL, 0))
		return false;
	/* relaxed: nobody concludes anything from it */
	nxm_fetch_add_relaxed(&counts->counter[counter], 1);
	return true;
}

/* For who cannot: where his line is not mapped, in one that others use. */
static inline void
count(NxmSpace *space, NxmCachePartition *part, int counter)
{
	if (!try_count(space, part, counter))
		nxm_fetch_add_relaxed(&part->stripe[space->proc % NXM_CACHE_STRIPES].counter[counter], 1);
}

/* Memory of a partition's segments, whatever they hold, about. */
static inline uint64_t
nxm_cache_segment_bytes(NxmCachePartition *part)
{
	return (nxm_load_relaxed(&part->chain[0].segments) +
			nxm_load_relaxed(&part->chain[1].segments)) * NXM_CACHE_SEGMENT;
}

/* cache.c */

/*
 * For an item with its value elsewhere, which is protected, or ours: moves the
 * hazard to the value, and sees to it that all of it is mapped.  NXM_OK; NXM_EXISTS:
 * the slot does not name this item any more; NXM_NEED_CHUNK.
 */
extern NxmResult nxm_cache_protect_value(NxmSpace *space, const void *item,
										 NxmAtomic *slot, uint64_t word);
/* The same, and then moves the hazard back to the item. */
extern NxmResult nxm_cache_check_value(NxmSpace *space, const void *item,
									   NxmAtomic *slot, uint64_t word);
/*
 * Copies a protected item's value.  One that is elsewhere takes the hazard from the
 * item: where the slot has another item by then, NXM_EXISTS: look it up again.
 */
extern NxmResult nxm_cache_copy_value(NxmSpace *space, const void *item,
									  NxmAtomic *slot, uint64_t word,
									  NxmBuffer *buffer);

/* cache_segment.c */

/* The limit of a cache's own, 0: none. */
static inline uint64_t
nxm_cache_max_bytes(const NxmCacheView *view, NxmCache *cache)
{
	uint64_t	max_bytes = nxm_load_relaxed(&cache->max_bytes);

	if (view->max_bytes != 0 && (max_bytes == 0 || view->max_bytes < max_bytes))
		return view->max_bytes;
	return max_bytes;
}

/* Pages that the cache's own limit leaves, whatever all caches have. */
static inline uint64_t
nxm_cache_own_room(const NxmCacheView *view, NxmCache *cache)
{
	/* relaxed, both: the limit itself is kept where memory is taken */
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);
	uint64_t	used = nxm_load_relaxed(&cache->used);

	return max_bytes == 0 ? UINT64_MAX :
		used < max_bytes ? (max_bytes - used) / NXM_CACHE_SEGMENT : 0;
}

/*
 * Counts bytes in `used` that are to be allocated, if so many pages of the cache's own
 * limit are left then.  What comes of it below the limit, index excepted, is counted so.
 */
static inline bool
nxm_cache_take(const NxmCacheView *view, NxmCache *cache, uint64_t bytes, uint64_t beyond)
{
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);

	beyond *= NXM_CACHE_SEGMENT;
	return nxm_take_bytes(&cache->used, bytes, max_bytes == 0 ? UINT64_MAX :
						  max_bytes > beyond ? max_bytes - beyond : 0);
}

/* They are given back, or were not to be had. */
static inline void
nxm_cache_give(NxmCache *cache, uint64_t bytes)
{
	/* relaxed: a sum */
	nxm_fetch_add_relaxed(&cache->used, -bytes);
}

/*
 * All that allocates for a partition does so between these two; its index counts in
 * `used` what it allocates, and frees.
 */
extern void nxm_cache_use_memory(NxmCacheView *view, NxmCache *cache,
								 const NxmCachePartition *part);
extern void nxm_cache_leave_memory(NxmSpace *space);

/* Pages left below the limits. */
extern uint64_t nxm_cache_room(NxmCacheView *view, NxmCache *cache,
							   const NxmCachePartition *part);

/* Are there pages below the limits, and this many beyond? */
extern bool nxm_cache_has_room(NxmCacheView *view, NxmCache *cache,
							   const NxmCachePartition *part, uint64_t beyond);

/* Is more used than a limit, as it is by now, allows? */
extern bool nxm_cache_is_over(NxmCacheView *view, NxmCache *cache);

/*
 * Window and scale of a deadline; 0 and 0: none.  By how much the scale is larger than
 * that of the time to live.
 */
extern uint32_t nxm_cache_window(const NxmCachePartition *part, int64_t deadline,
								 int64_t now, uint32_t *scale, uint64_t *due);
/*
 * The scale for a copy of an item from a segment of this scale: wider, if windows are by
 * now and its deadline can be told as well.  left: microseconds to that.
 */
extern uint32_t nxm_cache_wider_scale(const NxmCachePartition *part, uint32_t scale,
									  int64_t left);
/* Makes windows wider where few segments are not open, and none can be evicted. */
extern void nxm_cache_widen_few(NxmSpace *space, NxmCachePartition *part);
/* Makes windows narrower again where that has become possible; now and then. */
extern void nxm_cache_narrow(NxmCacheView *view, NxmCache *cache,
							 NxmCachePartition *part);

/*
 * Reserves room for an item in an open segment, which holds that segment back
 * until nxm_cache_commit() or nxm_cache_abandon().  weight: bytes of its value, if
 * that is elsewhere.  copying: for an item that is evicted.  NXM_OK; NXM_DROPPED;
 * NXM_NEED_CHUNK; NXM_NEED_MEMORY, with the space's `want`.  Leaves the hazard as
 * it is.
 */
extern NxmResult nxm_cache_reserve(NxmCacheView *view, NxmCache *cache,
								   NxmCachePartition *part, int kind,
								   uint32_t scale, uint64_t due, uint32_t units,
								   uint64_t weight, bool copying, NxmRoom *room);
/* Its item is written, and published. */
extern void nxm_cache_commit(const NxmRoom *room);
/* Its item is not going to be published. */
extern void nxm_cache_abandon(const NxmRoom *room);
/*
 * An item was taken out of its slot; it is still protected, or ours, or in a segment
 * that the caller has claimed.
 */
extern void nxm_cache_dead(NxmSpace *space, NxmCachePartition *part, NxmRef ref,
						   uint32_t units);

/*
 * Seals all open segments.  close: and no other can be opened.  NXM_OK or
 * NXM_NEED_CHUNK.
 */
extern NxmResult nxm_cache_seal(NxmSpace *space, NxmCachePartition *part,
								bool close);
/* Seals a segment of this life if it is open. */
extern void nxm_segment_seal(NxmCachePartition *part, NxmCacheSegment *segment,
							 uint32_t page, uint64_t life);

/* cache_recycle.c */

/*
 * An item was taken out of its slot for another one, counted dead, and is protected
 * still.  Its value is not elsewhere.
 */
extern void nxm_cache_give_room(NxmSpace *space, NxmCachePartition *part, NxmRef ref,
								uint32_t units);
/*
 * As nxm_cache_reserve(), in a room that was given.  false: there is none.
 */
extern bool nxm_cache_recycle(NxmSpace *space, NxmCachePartition *part, int kind,
							  uint32_t scale, uint64_t due, uint32_t units,
							  NxmRoom *room);

/* cache_chain.c */

/* An entry for a segment about to be opened.  NXM_DROPPED: the chain is closed. */
extern NxmResult nxm_chain_reserve(NxmSpace *space, NxmChain *chain, uint64_t due,
								   NxmAtomic **entry);
extern NxmResult nxm_chain_init(NxmSpace *space, NxmChain *chain);
/* No segment can be added any more.  NXM_EXISTS: somebody has its lock. */
extern NxmResult nxm_chain_close(NxmSpace *space, NxmChain *chain);
/* Retires the blocks of a closed chain. */
extern void nxm_chain_retire(NxmSpace *space, NxmChain *chain);
/* Entries of a chain's blocks that name no segment, about; signed. */
static inline int64_t
nxm_chain_free(NxmChain *chain)
{
	/* relaxed, both: an estimate */
	return (int64_t) (nxm_load_relaxed(&chain->blocks) * NXM_CHAIN_ENTRIES -
					  nxm_load_relaxed(&chain->segments));
}
/* Are they so many that it is worth cleaning?  Not in one that has been, see cache_chain.c. */
static inline bool
nxm_chain_is_sparse(NxmChain *chain)
{
	return nxm_chain_free(chain) >= 4 * NXM_CHAIN_ENTRIES +
		(int64_t) nxm_load_relaxed(&chain->segments) / 2;
}
/*
 * A step of cleaning: takes the first blocks out that have no segments, and if `all` goes on
 * where the step before came to, with those that have few.  NXM_EXISTS: it is to go on;
 * NXM_OK: it has come to the end, or cannot go on now; NXM_NEED_CHUNK.
 */
extern NxmResult nxm_chain_clean(NxmSpace *space, NxmChain *chain, bool all);

/* A segment that was claimed, in state SEG_EVICTING. */
typedef struct NxmVictim
{
	NxmRef		page;
	NxmCacheSegment *segment;
	uint64_t	word;
	bool		compact;		/* copy what lives */
	bool		drop;			/* else copy nothing, not even what was read */
} NxmVictim;

/* Is worth taking first.  false: there is no place to note it in. */
extern bool nxm_cache_ripen(NxmCachePartition *part, uint64_t name);
/* Is about to be DRAINED and to wait for a hazard. */
extern void nxm_cache_hold(NxmCachePartition *part, uint64_t name);
/* Was sealed before it was half full.  What finds no place stays in the order of segments. */
extern void nxm_cache_note_underfull(NxmCachePartition *part, uint64_t name);
/* A segment with this deadline was put into a chain. */
extern void nxm_cache_due(NxmCachePartition *part, uint64_t due);
/*
 * Is a key that was evicted from small so many evictions ago more worth than what
 * main has had for longer?  Then main's oldest segment is going to be evicted next.
 */
extern bool nxm_cache_examine(NxmSpace *space, NxmCachePartition *part,
							  uint64_t since);
/* Is less of the segments main than is its share? */
extern bool nxm_cache_main_has_share(NxmCachePartition *part, uint64_t room);
/* Is any segment due? */
extern bool nxm_cache_is_due(NxmCacheView *view, NxmCachePartition *part);

/* Which segments may be evicted. */
typedef enum NxmReach
{
	REACH_RIPE,					/* none that would lose what it need not */
	REACH_SEALED,				/* none that is open: what was just written stays */
	REACH_ALL,					/* where no other can be, those that are open */
	REACH_READ					/* and what was read since gives way, too */
} NxmReach;

/*
 * Claims the segment to be evicted next.  NXM_OK; NXM_ABSENT: there is none that
 * can be; NXM_NEED_CHUNK.
 */
extern NxmResult nxm_cache_pick(NxmCacheView *view, NxmCachePartition *part,
								NxmReach reach, NxmVictim *victim);
/* Claims a DRAINED segment that nobody reads in. */
extern NxmResult nxm_cache_pick_drained(NxmSpace *space, NxmCachePartition *part,
										NxmVictim *victim);
/*
 * A step of looking for the sparsest segments, of those that are dead for a sixteenth.
 * NXM_OK: some are ripe; NXM_EXISTS: none yet, but the next steps are to find some;
 * NXM_ABSENT: perhaps none, look again another time; NXM_NEED_CHUNK.
 */
extern NxmResult nxm_cache_find_sparse(NxmSpace *space, NxmCachePartition *part);

/* cache_evict.c */

/*
 * Takes items of about this many units out of the next victim.  NXM_OK: something
 * was done; NXM_ABSENT: nothing can be; NXM_NEED_CHUNK.  Replaces the hazard.
 */
extern NxmResult nxm_cache_evict(NxmCacheView *view, NxmCache *cache,
								 NxmCachePartition *part, uint32_t units,
								 NxmReach reach);
/*
 * The same, in whichever cache is to give way for this one, and in whichever
 * partition of it can: open segments only where no partition has another.  beyond: as
 * there was no room by nxm_cache_has_room(); where that is so by the cache's own limit
 * no other cache gives way.
 */
extern NxmResult nxm_cache_make_way(NxmCacheView *view, NxmCache *cache,
									NxmCachePartition *part, uint64_t beyond,
									uint32_t units, NxmReach reach);
/* Gives back what waits for no hazard any more. */
extern NxmResult nxm_cache_give_back(NxmCacheView *view, NxmCache *cache,
									 NxmCachePartition *part);
/*
 * A few steps of draining what a clear has cut off; as nxm_map_drain().  NXM_EXISTS: later,
 * when some of what this process has retired is free, or there is memory to keep it in.
 */
extern NxmResult nxm_cache_drain_index(NxmSpace *space, NxmCache *cache,
									   NxmCachePartition *part);
/*
 * Counts an item out that was taken out of its slot, and is protected still, or in a
 * segment that the caller has claimed.
 * with_value: its value goes too, if that is elsewhere; it is mapped.
 */
extern void nxm_cache_removed(NxmSpace *space, NxmCache *cache,
							  NxmCachePartition *part, NxmRef ref, const void *item,
							  bool with_value);
/* Bytes of an item, its value included. */
extern size_t nxm_cache_item_bytes(const void *item);

/* cache_ghost.c */

extern void nxm_ghost_add(NxmSpace *space, NxmGhost *ghost, uint64_t hash);
/*
 * Was it there?  It is not any more: of those who ask at once one is told so.
 * *since: as many entries have been put in since, about.
 */
extern bool nxm_ghost_take(NxmSpace *space, NxmGhost *ghost, uint64_t hash,
						   uint64_t *since);
extern void nxm_ghost_prefetch(NxmSpace *space, NxmCachePartition *part,
							   uint64_t hash);
/* Is that so few that the key was among the last to be evicted? */
extern bool nxm_ghost_was_last(NxmGhost *ghost, uint64_t since);
/* Sees to it that the ghost has the size that goes with the entries. */
extern void nxm_ghost_fit(NxmCacheView *view, NxmCache *cache,
						  NxmCachePartition *part);
/* NXM_NEED_CHUNK: not all of them is mapped: to be called again. */
extern NxmResult nxm_ghost_retire(NxmSpace *space, NxmCache *cache,
								  NxmCachePartition *part);
/* Memory that they take. */
extern size_t nxm_ghost_bytes(NxmCachePartition *part);

/* cache_counts.c */

/* Sees to it that there are the blocks of lines that are wanted, as memory allows. */
extern void nxm_counts_fit(NxmCacheView *view, NxmCache *cache,
						   NxmCachePartition *part);
/* Makes blocks that are wanted up to so many, and removes some of more than `keep`. */
extern void nxm_counts_set(NxmCacheView *view, NxmCache *cache,
						   NxmCachePartition *part, uint64_t make, uint64_t keep);
/* For good.  NXM_NEED_CHUNK: to be called again. */
extern NxmResult nxm_counts_retire(NxmSpace *space, NxmCache *cache,
								   NxmCachePartition *part);
/* Memory that blocks take. */
extern uint64_t nxm_counts_bytes(NxmCachePartition *part);

/* cache_tick.c */

/*
 * Puts an empty index in place of one that is in the way: one that takes more than a
 * third of what the partition may use by the limits as they are, where less than half
 * of it would do for the entries that fit beside it.  NXM_OK: it is to be drained;
 * NXM_ABSENT: it is not in the way, or there is no memory for another one;
 * NXM_NEED_CHUNK.
 */
extern NxmResult nxm_cache_shrink_index(NxmCacheView *view, NxmCache *cache,
										NxmCachePartition *part);

#endif							/* NXM_CACHE_INTERNAL_H */
