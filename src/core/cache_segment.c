/*
 * cache_segment.c
 *	  Segments of the cache: opening them, and reserving room in them.  cache.h has
 *	  the design.
 *
 * A segment is opened in this order: a page; an entry in the chain; the words
 * beside the page, in state OPEN; the cell that writers find it in, by CAS; its
 * name in the entry; and then its head is committed.  So it is not evicted before
 * it is in the chain.  Who loses the race for the cell gives all back.
 *
 * A writer that is held up between finding the cell and reserving fails by the
 * segment's life, which is part of the word that it changes.
 */
#include "cache_internal.h"

/*
 * A segment that holds values elsewhere is full with so many bytes of them, or with so
 * large a part of what its cache may use: else a cache of long values is a few segments,
 * which go one after another whatever was read.
 */
#define MIN_WEIGHT			(1024 * 1024)
#define WEIGHT_SHARE		256
/* ... and in a small cache, with so large a part of it, lest it be all in one */
#define WEIGHT_PART			8

/*
 * Segments of which there is one that is open, for a window of deadlines: half full, as
 * they are on average, these take a sixteenth of the memory.
 */
#define WINDOW_PART			8
#ifndef NXM_CACHE_LEAST_WINDOWS
#define NXM_CACHE_LEAST_WINDOWS	4
#endif
/* When so large a part of these was sealed before it was half full windows are widened. */
#define STRAIN				4
/* Windows open at once, that one time to live seldom has. */
#define FEW_WINDOWS			3
/* Microseconds for which windows stay as wide as they are. */
#define LEVEL_PERIOD		INT64_C(300000000)

void
nxm_cache_use_memory(NxmCacheView *view, NxmCache *cache, const NxmCachePartition *part)
{
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);

	nxm_allocate_from(view->space, NXM_CACHE_ACCOUNT, part->node);
	view->space->counted = &cache->used;
	view->space->most = max_bytes == 0 ? UINT64_MAX : max_bytes;
}

void
nxm_cache_leave_memory(NxmSpace *space)
{
	nxm_allocate_from(space, 0, -1);
	space->counted = NULL;
}

uint64_t
nxm_cache_room(NxmCacheView *view, NxmCache *cache, const NxmCachePartition *part)
{
	NxmSpaceShared *shared = view->space->shared;
	NxmAccount *account = &shared->account[NXM_CACHE_ACCOUNT];
	/* relaxed, all of them: the limits themselves are kept where memory is taken */
	uint64_t	pages = nxm_load_relaxed(&account->pages);
	uint64_t	kept = nxm_load_relaxed(&shared->nodes[part->node].nkept);
	/* more than these are waiting for the kernel */
	uint64_t	most = nxm_load_relaxed(&account->page_limit) +
		(kept < NXM_KEPT_PAGES ? kept : NXM_KEPT_PAGES);
	uint64_t	room = pages < most ? most - pages : 0;
	uint64_t	own = nxm_cache_own_room(view, cache);

	return own < room ? own : room;
}

bool
nxm_cache_is_over(NxmCacheView *view, NxmCache *cache)
{
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);

	return nxm_account_is_over(view->space, NXM_CACHE_ACCOUNT) ||
		(max_bytes != 0 && nxm_load_relaxed(&cache->used) > max_bytes);
}

bool
nxm_cache_has_room(NxmCacheView *view, NxmCache *cache,
				   const NxmCachePartition *part, uint64_t beyond)
{
	return nxm_cache_room(view, cache, part) > beyond;
}

uint32_t
nxm_cache_window(const NxmCachePartition *part, int64_t deadline, int64_t now,
				 uint32_t *scale, uint64_t *due)
{
	int64_t		beyond = deadline - now - 8 * WINDOW_SLACK;
	uint32_t	log = 63 - (uint32_t) __builtin_clzll(beyond > 0 ? (uint64_t) beyond : 1);
	/* relaxed: any level will do */
	uint32_t	level = (uint32_t) nxm_load_relaxed(&part->level);

	if (deadline == 0)
	{
		*scale = 0;
		*due = 0;
		return 0;
	}
	log = log < MIN_SCALE ? MIN_SCALE : log > MAX_SCALE ? MAX_SCALE : log;
	*scale = (log + 2 * level) / (level + 1) * (level + 1);
	if (*scale > WIDEST_SCALE)
		*scale = WIDEST_SCALE;
	*due = due_of(deadline, *scale);
	return *scale - log;
}

/* So many windows may have an open segment at once. */
static uint32_t
most_windows(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	uint64_t	bytes = nxm_cache_segment_bytes(part) + nxm_load_relaxed(&part->big);
	uint64_t	segments = bytes / NXM_CACHE_SEGMENT +
		nxm_cache_room(view, cache, part) / cache->npartitions;

	segments /= WINDOW_PART;
	return segments < NXM_CACHE_LEAST_WINDOWS ? NXM_CACHE_LEAST_WINDOWS :
		segments > NXM_CACHE_WINDOWS ? NXM_CACHE_WINDOWS : (uint32_t) segments;
}

/* How full a segment is, in units: with a part of what its values take that are elsewhere. */
static uint32_t
fullness(const NxmCacheSegment *segment, uint64_t word, uint32_t part)
{
	uint64_t	full = SEG_USED(word) +
		nxm_load_relaxed(&segment->weight) / part / NXM_REF_UNIT;

	return full > SEGMENT_UNITS ? SEGMENT_UNITS : (uint32_t) full;
}

/*
 * That of a window's cell; 0: there is none that is open.  Of what values take elsewhere a
 * quarter, as if each had little: segments with one or two long ones alone waste too much.
 */
static uint32_t
used_of_cell(NxmSpace *space, uint64_t c)
{
	NxmCacheSegment *segment;
	uint64_t	word;

	if (c == 0 || c == CELL_CLOSED)
		return 0;
	segment = segment_named(space, c);
	/* not mapped: it may be open */
	if (segment == NULL)
		return HEAD_UNITS;
	word = nxm_load_relaxed(&segment->word);
	return (SEG_LIFE(word) & CELL_LIFE_MASK) == CELL_LIFE(c) && SEG_STATE(word) == SEG_OPEN ?
		fullness(segment, word, 4) : 0;
}

static uint32_t
open_windows(NxmSpace *space, NxmCachePartition *part)
{
	uint32_t	nopen = 0;

	for (int i = 0; i < NXM_CACHE_WINDOWS; i++)
		nopen += used_of_cell(space, nxm_load(&part->window[i])) > 0;
	return nopen;
}

/* By one, unless another one has changed it since that was the level. */
static void
raise_level(NxmCachePartition *part, uint64_t level)
{
	nxm_store_relaxed(&part->level_since, 0);
	(void) nxm_cas(&part->level, &level, level + 1);
}

void
nxm_cache_narrow(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	uint64_t	level = nxm_load_relaxed(&part->level);
	int64_t		since = (int64_t) nxm_load_relaxed(&part->level_since);
	int64_t		now;

	if (level == 0)
		return;
	now = view->now(view->env);
	if (since != 0 && since <= now && now - since < LEVEL_PERIOD)
		return;
	nxm_store_relaxed(&part->level_since, (uint64_t) now);
	/* if that is too narrow, it is found out at the cost of so many segments */
	if (since != 0 &&
		open_windows(view->space, part) < most_windows(view, cache, part) / 2 + 1)
		(void) nxm_cas(&part->level, &level, level - 1);
}

uint32_t
nxm_cache_wider_scale(const NxmCachePartition *part, uint32_t scale, int64_t left)
{
	uint32_t	level = (uint32_t) nxm_load_relaxed(&part->level);
	uint32_t	wider = (scale + level) / (level + 1) * (level + 1);

	if (scale == 0 || wider > WIDEST_SCALE ||
		(lack_shift(wider, LACK_BITS) > 0 &&
		 INT64_C(1) << lack_shift(wider, LACK_BITS) > left >> 22))
		return scale;
	return wider;
}

void
nxm_cache_widen_few(NxmSpace *space, NxmCachePartition *part)
{
	uint64_t	level = nxm_load_relaxed(&part->level);
	uint32_t	nopen = open_windows(space, part);

	if (nopen < FEW_WINDOWS || level >= MAX_LEVEL ||
		nxm_cache_segment_bytes(part) / NXM_CACHE_SEGMENT > 2 * (uint64_t) nopen)
		return;
	raise_level(part, level);
}

/*
 * A window's segment is to be sealed for want of others, before it is half full.  Makes
 * windows wider if there were many; those that are narrower are not written to any more.
 */
static NxmResult
widen(NxmSpace *space, NxmCachePartition *part, uint32_t most)
{
	uint64_t	level = nxm_load_relaxed(&part->level);
	NxmResult	result;

	if (nxm_fetch_add_relaxed(&part->strain, 1) + 1 < most / STRAIN || level >= MAX_LEVEL)
		return NXM_OK;
	result = nxm_cache_seal(space, part, false);
	if (result != NXM_OK)
		return result;
	nxm_store_relaxed(&part->strain, 0);
	raise_level(part, level);
	return NXM_EXISTS;
}

/* Is it dead for half of it, or all?  after: as it is since this many units died. */
static bool
has_ripened(uint64_t word, uint64_t done, uint32_t units)
{
	uint32_t	dead = DONE_DEAD(done);
	uint32_t	before = dead - units;

	return (dead >= SEGMENT_UNITS / 2 && before < SEGMENT_UNITS / 2) ||
		dead == SEG_USED(word) - HEAD_UNITS;
}

void
nxm_cache_dead(NxmSpace *space, NxmCachePartition *part, NxmRef ref, uint32_t units)
{
	uint32_t	page = nxm_ref_page(ref);
	NxmCacheSegment *segment = segment_at(space, ref);
	uint64_t	done = nxm_fetch_add(&segment->done, units * DEAD_ONE) +
		units * DEAD_ONE;
	uint64_t	word = nxm_load(&segment->word);

	if (SEG_STATE(word) == SEG_SEALED && has_ripened(word, done, units))
		nxm_cache_ripen(part, NAME_OF(page, SEG_LIFE(word)));
}

void
nxm_cache_commit(const NxmRoom *room)
{
	/* release: the item is published.  Pairs with the load of who evicts */
	nxm_fetch_add(&room->segment->done, room->units);
}

void
nxm_cache_abandon(const NxmRoom *room)
{
	nxm_fetch_add(&room->segment->done, room->units * DEAD_ONE + room->units);
}

void
nxm_segment_seal(NxmCachePartition *part, NxmCacheSegment *segment, uint32_t page,
				 uint64_t life)
{
	uint64_t	word = nxm_load(&segment->word);
	uint64_t	done;

	if (SEG_LIFE(word) != life || SEG_STATE(word) != SEG_OPEN)
		return;
	/*
	 * Before, for whoever finds it sealed.  A hint: it is a little wrong if two seal, and
	 * that of a later life, perhaps in another cache, if we are held up here.
	 */
	nxm_store_relaxed(&segment->sealed_at,
					  nxm_load_relaxed(&part->ghost[KIND_SMALL].count));
	do
	{
		if (SEG_LIFE(word) != life || SEG_STATE(word) != SEG_OPEN)
			return;
		/* pairs with the reservations: no more room is given out */
	} while (!nxm_cas(&segment->word, &word, word - SEG_OPEN + SEG_SEALED));
	if (SEG_SCALE(word) != 0 && fullness(segment, word, 1) < SEGMENT_UNITS / 2)
		nxm_cache_note_underfull(part, NAME_OF(page, life));
	/* written to, so that what dies now is seen, or sees it sealed: see nxm_cache_dead() */
	done = nxm_fetch_add(&segment->done, 0);
	if (DONE_DEAD(done) >= SEGMENT_UNITS / 2 ||
		DONE_DEAD(done) == SEG_USED(word) - HEAD_UNITS)
		nxm_cache_ripen(part, NAME_OF(page, life));
}

NxmResult
nxm_cache_seal(NxmSpace *space, NxmCachePartition *part, bool close)
{
	for (int i = 0; i < 2 + NXM_CACHE_WINDOWS; i++)
	{
		NxmAtomic  *cell = i < 2 ? &part->open[i] : &part->window[i - 2];
		uint64_t	c = nxm_load(cell);

		while (c != CELL_CLOSED && (c != 0 || close))
		{
			if (c != 0)
			{
				NxmCacheSegment *segment;
				uint64_t	word;

				segment = segment_named(space, c);
				if (segment == NULL)
					return NXM_NEED_CHUNK;
				word = nxm_load(&segment->word);
				if ((SEG_LIFE(word) & CELL_LIFE_MASK) == CELL_LIFE(c))
					nxm_segment_seal(part, segment, NAME_PAGE(c), SEG_LIFE(word));
			}
			if (nxm_cas(cell, &c, close ? CELL_CLOSED : 0))
				break;
		}
	}
	return NXM_OK;
}

/* The tag of a window's cell; never that of CELL_CLOSED. */
static uint64_t
window_tag(int kind, uint32_t scale, uint64_t due)
{
	uint64_t	mixed = ((due >> WINDOW_SHIFT(scale)) * 2 + (uint64_t) kind) * 64 + scale;

	return (mixed * UINT64_C(0x9E3779B97F4A7C15) >> 49) + 1;
}

typedef enum CellOwner
{
	CELL_OURS,					/* or not mapped: who reserves there is told */
	CELL_LEFT,					/* nobody's, or its segment is not open any more */
	CELL_OF_OTHERS				/* another window's */
} CellOwner;

/* Whose a cell with the tag of a window is, which other windows may have, too. */
static CellOwner
owner_of(NxmSpace *space, uint64_t c, int kind, uint32_t scale, uint64_t due)
{
	NxmCacheSegment *segment = segment_named(space, c);
	uint64_t	word;

	if (segment == NULL)
		return CELL_OURS;
	word = nxm_load(&segment->word);
	if ((SEG_LIFE(word) & CELL_LIFE_MASK) != CELL_LIFE(c) || SEG_STATE(word) != SEG_OPEN)
		return CELL_LEFT;
	return SEG_KIND(word) == kind && SEG_SCALE(word) == scale &&
		nxm_load_relaxed(&segment->due) == due ? CELL_OURS : CELL_OF_OTHERS;
}

/*
 * The cell of a window: the one that has it, else one that it can have.  *c: what
 * is in it.  *strain, where that is another's which is not half full: how many there
 * may be; else 0.
 */
static NxmAtomic *
find_cell(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part, uint64_t tag,
		  int kind, uint32_t scale, uint64_t due, uint64_t *c, uint32_t *strain)
{
	NxmSpace   *space = view->space;
	NxmAtomic  *left = NULL;
	NxmAtomic  *fullest = NULL;
	uint64_t	left_word = 0;
	uint32_t	most;
	uint32_t	nopen = 0;
	uint32_t	most_used = 0;

	*c = 0;
	*strain = 0;
	for (uint64_t i = 0; i < NXM_CACHE_WINDOWS; i++)
	{
		NxmAtomic  *cell = &part->window[(tag + i) % NXM_CACHE_WINDOWS];
		uint64_t	word = nxm_load(cell);
		CellOwner	owner = word == CELL_CLOSED ? CELL_OURS : CELL_LEFT;

		if (word != 0 && word != CELL_CLOSED)
			/* passing another's by: the two would else seal each other's at every write */
			owner = CELL_TAG(word) == tag ? owner_of(space, word, kind, scale, due) :
				CELL_OF_OTHERS;
		if (owner == CELL_OURS)
		{
			*c = word;
			return cell;
		}
	}

	most = most_windows(view, cache, part);
	/* from its own place on, so that it is found there */
	for (uint64_t i = 0; i < NXM_CACHE_WINDOWS; i++)
	{
		NxmAtomic  *cell = &part->window[(tag + i) % NXM_CACHE_WINDOWS];
		uint64_t	word = nxm_load(cell);
		uint32_t	used = used_of_cell(space, word);

		nopen += used > 0;
		if (used == 0 && left == NULL)
		{
			left = cell;
			left_word = word;
		}
		if (used > most_used)
		{
			fullest = cell;
			most_used = used;
			*c = word;
		}
	}
	if (left != NULL && (nopen < most || fullest == NULL))
	{
		*c = left_word;
		return left;
	}
	/* of those that others write to, the one that loses least by being sealed */
	*strain = most_used < SEGMENT_UNITS / 2 ? most : 0;
	return fullest;
}

/* Bytes of values elsewhere with which a segment is full. */
static uint64_t
most_weight(NxmCacheView *view, NxmCache *cache)
{
	NxmAccount *account = &view->space->shared->account[NXM_CACHE_ACCOUNT];
	uint64_t	limit = nxm_load_relaxed(&account->page_limit) * NXM_PAGE_SIZE;
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);
	uint64_t	most;

	if (max_bytes != 0 && max_bytes < limit)
		limit = max_bytes;
	most = limit / WEIGHT_SHARE < MIN_WEIGHT ? MIN_WEIGHT : limit / WEIGHT_SHARE;
	return most < limit / WEIGHT_PART ? most : limit / WEIGHT_PART;
}

/*
 * Reserves in the segment of a cell.  NXM_OK; NXM_ABSENT: it is sealed, perhaps
 * by us, and another is wanted; NXM_NEED_CHUNK.
 */
static NxmResult
take_room(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		  uint64_t c, int kind, uint32_t scale, uint64_t due, uint32_t units, uint64_t weight,
		  NxmRoom *room)
{
	NxmSpace   *space = view->space;
	NxmRef		page = (NxmRef) NAME_PAGE(c) << NXM_PAGE_SHIFT;
	NxmCacheSegment *segment = segment_at(space, page);
	uint64_t	word;

	if (segment == NULL)
		return NXM_NEED_CHUNK;
	word = nxm_load(&segment->word);
	for (;;)
	{
		bool		full = SEG_USED(word) + units > SEGMENT_UNITS;

		if ((SEG_LIFE(word) & CELL_LIFE_MASK) != CELL_LIFE(c) ||
			SEG_STATE(word) != SEG_OPEN)
			return NXM_ABSENT;
		if (SEG_KIND(word) != kind || SEG_SCALE(word) != scale ||
			nxm_load_relaxed(&segment->due) != due)
			full = true;		/* the cell was another window's */
		if (weight > 0 && !full)
			full = nxm_load_relaxed(&segment->weight) > 0 &&
				nxm_load_relaxed(&segment->weight) + weight > most_weight(view, cache);
		if (full)
		{
			nxm_segment_seal(part, segment, NAME_PAGE(c), SEG_LIFE(word));
			return NXM_ABSENT;
		}
		/* acquire: pairs with the store of the word by who opened it */
		if (nxm_cas(&segment->word, &word, word + units))
			break;
	}
	if (weight > 0)
		nxm_fetch_add_relaxed(&segment->weight, weight);
	room->ref = page + SEG_USED(word);
	room->units = units;
	room->segment = segment;
	return NXM_OK;
}

/*
 * Opens a segment and puts it into the cell in place of c.  NXM_OK: there is
 * another one in the cell, ours or somebody else's.
 */
static NxmResult
open_segment(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
			 NxmAtomic *cell, uint64_t c, uint64_t tag, int kind, uint32_t scale,
			 uint64_t due, bool copying)
{
	NxmSpace   *space = view->space;
	NxmChain   *chain = &part->chain[kind];
	NxmAtomic  *entry;
	NxmCacheSegment *segment;
	NxmRef		page;
	uint64_t	life;
	uint64_t	keep = copying ? 0 : NXM_CACHE_KEEP;
	NxmResult	result;

	if (!nxm_cache_has_room(view, cache, part, keep) ||
		!nxm_cache_take(view, cache, NXM_CACHE_SEGMENT, keep))
		return nxm_limit_reached(space);
	page = nxm_alloc(space, NXM_PAGE_SIZE);
	if (page == 0)
	{
		nxm_cache_give(cache, NXM_CACHE_SEGMENT);
		return nxm_no_object(space);
	}
	result = nxm_chain_reserve(space, chain, due, &entry);
	if (result != NXM_OK)
	{
		nxm_free(space, page);
		nxm_cache_give(cache, NXM_CACHE_SEGMENT);
		return result;
	}
	segment = segment_at(space, page);
	life = SEG_LIFE(nxm_load_relaxed(&segment->word));
	NXM_SET(*head_at(space, page), due | (uint64_t) scale << HEAD_SCALE_SHIFT);
	/* relaxed: the word publishes them */
	nxm_store_relaxed(&segment->done, life << DONE_LIFE_SHIFT);
	nxm_store_relaxed(&segment->due, due);
	nxm_store_relaxed(&segment->cursor, HEAD_UNITS);
	nxm_store_relaxed(&segment->weight, 0);
	nxm_store(&segment->word, life << SEG_LIFE_SHIFT |
			  (uint64_t) scale << SEG_SCALE_SHIFT |
			  (uint64_t) kind << SEG_KIND_SHIFT | SEG_OPEN | HEAD_UNITS);
	nxm_fetch_add(&chain->segments, 1);
	NXM_PAUSE("opened");
	if (!nxm_cas(cell, &c, tag << 48 | (life & CELL_LIFE_MASK) << NAME_PAGE_BITS |
				 (nxm_ref_page(page) + UINT64_C(1))))
	{
		/* nobody has seen it */
		nxm_store(&segment->word, (life + 1) << SEG_LIFE_SHIFT);
		nxm_free(space, page);
		nxm_cache_give(cache, NXM_CACHE_SEGMENT);
		nxm_store(entry, NAME_GONE);
		/* last: who closes the partition waits for it */
		nxm_fetch_add(&chain->segments, (uint64_t) -1);
		return NXM_OK;
	}
	nxm_store(entry, NAME_OF(nxm_ref_page(page), life));
	if (due != 0)
		nxm_cache_due(part, due);
	nxm_fetch_add(&segment->done, HEAD_UNITS);
	if (!copying)
	{
		nxm_ghost_fit(view, cache, part);
		nxm_counts_fit(view, cache, part);
	}
	return NXM_OK;
}

NxmResult
nxm_cache_reserve(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
				  int kind, uint32_t scale, uint64_t due, uint32_t units,
				  uint64_t weight, bool copying, NxmRoom *room)
{
	uint64_t	tag = scale == 0 ? 0 : window_tag(kind, scale, due);

	for (;;)
	{
		NxmAtomic  *cell = &part->open[kind];
		uint64_t	c;
		uint32_t	strain = 0;
		NxmResult	result;

		if (scale == 0)
			c = nxm_load(cell);
		else
			cell = find_cell(view, cache, part, tag, kind, scale, due, &c, &strain);
		if (c == CELL_CLOSED)
			return NXM_DROPPED;
		if (strain > 0)
		{
			result = widen(view->space, part, strain);
			if (result == NXM_EXISTS)
				continue;
			if (result != NXM_OK)
				return result;
		}
		if (c != 0)
		{
			result = take_room(view, cache, part, c, kind, scale, due, units, weight, room);
			if (result != NXM_ABSENT)
				return result;
		}
		result = open_segment(view, cache, part, cell, c, tag, kind, scale, due,
							  copying);
		if (result != NXM_OK)
			return result;
	}
}
