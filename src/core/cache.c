/*
 * cache.c
 *	  The cache: operations on a key.  cache.h has the design.
 *
 * Orders.  As in the map: slots are changed by CAS (release), which publishes the
 * item, and read with acquire after the item was protected.  The frequency is
 * changed by CAS of the slot too, so that it fails where the slot has changed.
 *
 * A write makes its item before it changes the slot, and keeps the room that the
 * item has until it has changed it, or never will: then the room is dead.  Where
 * memory is short it evicts, which takes away the hazard, and begins anew.
 */
#include "cache_internal.h"
#include "map_lookup.h"

/* Steps of eviction, of about a segment each, that one write does for its room. */
#define MOST_STEPS			64
/* Units that a write evicts, at least, when pages are short. */
#define LEAST_STEP			64
/* Percent of its slots from which on a segment of the index is full all over. */
#define DENSE				92
/* How much the share of small moves with a key that comes back. */
#define ADAPT				4
/* Memory is short for the index when less than one in so many pages is left. */
#define SHORT_SHARE			32
/* The index may grow as it likes while it takes less than one in so many bytes of items. */
#define FREE_INDEX_SHARE			32

/* For lookups in the index. */
static inline bool
has_key(const void *item, const NxmKey *key)
{
	return item_has_key(item, key);
}

/* Has it expired?  The clock is asked only where there is a deadline. */
static inline bool
is_over(NxmCacheView *view, NxmRef ref, const void *item, int64_t *deadline)
{
	uint32_t	header = item_header(item);

	*deadline = 0;
	if (__builtin_expect((header & C_DEADLINE) == 0, 1))
		return false;
	*deadline = item_deadline(view->space, ref, item, header);
	return *deadline <= view->now(view->env);
}

/* A value that is in the item. */
static inline NxmResult
copy_inline(const void *item, uint32_t header, NxmBuffer *buffer)
{
	buffer->len = C_LEN(header);
	buffer->type = C_TYPE(header);
	if (__builtin_expect(buffer->len > buffer->size, 0))
		return NXM_NEED_BUFFER;
	nxm_copy_out(buffer->data, (const char *) item + item_value_offset(header),
				 buffer->len);
	return NXM_OK;
}

/*
 * Moves the hazard within what a slot names.  The slot has the same word after, and
 * its segment the same life: in between nothing was protected, and the word might
 * have come again with another item in the same place.
 */
static bool
move_hazard(NxmSpace *space, NxmRef to, NxmAtomic *slot, uint64_t word,
			NxmCacheSegment *segment, uint64_t life)
{
	nxm_protect(space, to);
	/* acquire: who put the word there again opened the segment again before */
	return ((nxm_load(slot) ^ word) & ~FREQ_MASK) == 0 &&
		SEG_LIFE(nxm_load(&segment->word)) == life;
}

NxmResult
nxm_cache_protect_value(NxmSpace *space, const void *item, NxmAtomic *slot,
						uint64_t word)
{
	NxmCacheSegment *segment = segment_at(space, word & NXM_REF_MASK);
	uint64_t	life = SEG_LIFE(nxm_load(&segment->word));
	NxmRef		ref = BIG_REF(item_big(item, item_header(item)));
	const NxmItem *big = nxm_at(space, ref);

	if (big == NULL)
		return NXM_NEED_CHUNK;
	/* the value is retired only after the slot was changed */
	if (!move_hazard(space, ref, slot, word, segment, life))
		return NXM_EXISTS;
	return nxm_item_is_mapped(space, big) ? NXM_OK : NXM_NEED_CHUNK;
}

NxmResult
nxm_cache_check_value(NxmSpace *space, const void *item, NxmAtomic *slot,
					  uint64_t word)
{
	NxmRef		ref = word & NXM_REF_MASK;
	NxmCacheSegment *segment = segment_at(space, ref);
	uint64_t	life = SEG_LIFE(nxm_load(&segment->word));
	NxmResult	result = nxm_cache_protect_value(space, item, slot, word);

	if (result != NXM_OK)
		return result;
	return move_hazard(space, ref, slot, word, segment, life) ? NXM_OK : NXM_EXISTS;
}

NxmResult
nxm_cache_copy_value(NxmSpace *space, const void *item, NxmAtomic *slot,
					 uint64_t word, NxmBuffer *buffer)
{
	uint32_t	header = item_header(item);
	NxmRef		big;
	NxmResult	result;

	if ((header & C_BIG) == 0)
		return copy_inline(item, header, buffer);
	big = BIG_REF(item_big(item, header));
	result = nxm_cache_protect_value(space, item, slot, word);
	return result != NXM_OK ? result : nxm_item_copy(space, nxm_at(space, big), buffer);
}

/* Reads an entry: its value and counts that, or with buffer NULL its deadline. */
static inline __attribute__((always_inline)) NxmResult
read_entry(NxmCacheView *view, NxmCache *cache, const NxmKey *key,
		   NxmBuffer *buffer, int64_t *deadline)
{
	NxmSpace   *space = view->space;
	int			home = home_of(cache, key->hash);
	uint64_t	position = position_of(key->hash);
	NxmResult	result;
	NxmCachePartition *part = partition_at(space, cache, home, &result);
	NxmFound	found;
	int64_t		ends;

	if (__builtin_expect(part == NULL, 0))
		return result;
	for (;;)
	{
		result = nxm_map_find(space, &part->index, position, key, has_key, &found);
		if (__builtin_expect(result != NXM_OK, 0))
		{
			if (result == NXM_ABSENT && buffer != NULL &&
				!try_count(space, part, NXM_CACHE_COUNTER_misses))
				return NXM_NEED_CHUNK;
			return result;
		}
		if (__builtin_expect(is_over(view, found.word & NXM_REF_MASK, found.item, &ends), 0))
		{
			if (buffer != NULL && !try_count(space, part, NXM_CACHE_COUNTER_misses))
				return NXM_NEED_CHUNK;
			return NXM_ABSENT;
		}
		NXM_PAUSE("found");
		if (buffer != NULL)
		{
			if (__builtin_expect((item_header(found.item) & C_BIG) == 0, 1))
				result = copy_inline(found.item, item_header(found.item), buffer);
			else
				result = nxm_cache_copy_value(space, found.item, found.slot,
											  found.word, buffer);
			if (__builtin_expect(result == NXM_EXISTS, 0))
				continue;
			/* it is read again, when there is a buffer: one read */
			if (__builtin_expect(result != NXM_OK, 0))
				return result;
			/* before the slot is changed: it may be repeated, too */
			if (__builtin_expect(!try_count(space, part, home == view->home ?
											NXM_CACHE_COUNTER_local_hits :
											NXM_CACHE_COUNTER_remote_hits), 0))
				return NXM_NEED_CHUNK;
			/* at its cap the slot is not written to: a hot key's line stays shared */
			if ((found.word & FREQ_MASK) != FREQ_MASK)
			{
				uint64_t	word = found.word;

				/* pairs with nothing: what fails is a lost read */
				(void) nxm_cas(found.slot, &word, word + FREQ_ONE);
			}
		}
		if (deadline != NULL)
			*deadline = ends;
		return NXM_OK;
	}
}

NxmResult
nxm_cache_get(NxmCacheView *view, NxmCache *cache, const NxmKey *key,
			  NxmBuffer *buffer, int64_t *deadline)
{
	return read_entry(view, cache, key, buffer, deadline);
}

/* What a write does. */
typedef enum Deed
{
	SET,
	ADD,
	DELETE,
	EXPIRE
} Deed;

typedef struct Write
{
	Deed		deed;
	const NxmKey *key;
	const NxmValue *value;		/* of SET and ADD */
	int64_t		deadline;
	int64_t		now;			/* where there is a deadline */
	/* the item that it stores */
	NxmRoom		room;
	uint64_t	big;			/* with the value, if that is elsewhere; ours */
	size_t		bytes;
	bool		asked;			/* the ghost was */
	int			kind;
	uint32_t	stored;			/* units; 0: nothing was */
} Write;

/* Pages for a value elsewhere, whose last part most often finds place beside those of others. */
static uint64_t
pages_beside(size_t len)
{
	return len < NXM_MAX_OBJECT ? 0 : len / NXM_PAGE_SIZE + 1;
}

/*
 * Is there room for a value elsewhere?  NXM_OK, or NXM_NEED_MEMORY: others have to
 * give way first, or, with NXM_WANT_NOTHING, all of them would not do.
 */
static NxmResult
find_room_for(NxmCacheView *view, NxmCache *cache, const NxmCachePartition *part,
			  size_t len)
{
	NxmSpace   *space = view->space;
	uint64_t	pages = pages_beside(len);
	uint64_t	max_bytes = nxm_cache_max_bytes(view, cache);

	if (pages == 0 || nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP + pages))
		return NXM_OK;
	space->need_chunk = -1;
	/* segments for its item, and for copies, have to go on beside it */
	pages += NXM_CACHE_KEEP + 2;
	if (pages >= nxm_load_relaxed(&space->shared->account[NXM_CACHE_ACCOUNT].page_limit) ||
		(max_bytes != 0 && pages * NXM_CACHE_SEGMENT > max_bytes))
		space->want = NXM_WANT_NOTHING;
	else
		space->want = NXM_WANT_LIMIT;
	return NXM_NEED_MEMORY;
}

/*
 * Makes the item, of the value or, for EXPIRE, of a protected one.  NXM_OK, or as
 * nxm_cache_reserve().
 */
static NxmResult
make_item(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		  Write *write, const void *old)
{
	NxmSpace   *space = view->space;
	const NxmKey *key = write->key;
	const char *data = NULL;
	uint32_t	len;
	NxmType		type;
	bool		big;
	uint32_t	header;
	uint32_t	scale;
	uint32_t	wider;
	uint32_t	lack = 0;
	uint64_t	due;
	char	   *to;
	NxmResult	result;

	if (write->deed == EXPIRE)
	{
		uint32_t	old_header = item_header(old);

		big = (old_header & C_BIG) != 0;
		len = C_LEN(old_header);
		type = C_TYPE(old_header);
		if (big)
			write->big = item_big(old, old_header);
		else
			data = (const char *) old + item_value_offset(old_header);
	}
	else
	{
		len = write->value->len;
		type = write->value->type;
		data = write->value->data;
		big = 8 + key->len + (size_t) len > NXM_CACHE_INLINE;
		if (big && write->big == 0)
		{
			uint64_t	new = (uint64_t) len << NXM_REF_BITS;
			NxmRef		ref;

			result = find_room_for(view, cache, part, len);
			if (result != NXM_OK)
				return result;
			if (!nxm_cache_take(view, cache, big_bytes(new), NXM_CACHE_KEEP))
				return nxm_limit_reached(space);
			result = nxm_item_new(space, NULL, write->value, 0, &ref);
			if (result != NXM_OK)
			{
				nxm_cache_give(cache, big_bytes(new));
				return result;
			}
			/* relaxed: a sum.  Before it can be found, and its bytes be taken off */
			nxm_fetch_add_relaxed(&part->big, big_bytes(new));
			write->big = ref | new;
		}
	}
	len = big ? 0 : len;

	wider = nxm_cache_window(part, write->deadline, write->now, &scale, &due);
	header = key->len | len << C_LEN_SHIFT | (uint32_t) type << C_TYPE_SHIFT |
		(big ? C_BIG : 0);
	if (scale != 0)
	{
		header |= C_DEADLINE;
		lack = lack_of(write->deadline, due, scale, SHORT_LACK_BITS);
		/* of a window that is wider a short one would tell its deadline less well */
		if (!big && key->len <= MAX_SHORT_KEY && len <= MAX_SHORT_LEN &&
			lack >> SHORT_LACK_BITS == 0 &&
			(wider == 0 || lack_shift(scale, SHORT_LACK_BITS) == 0))
			header |= C_SHORT;
		else
			lack = lack_of(write->deadline, due, scale, LACK_BITS);
	}
	if (item_units(header) > SEGMENT_UNITS - HEAD_UNITS)
		return NXM_TOO_LONG;
	if (old == NULL || big ||
		!nxm_cache_recycle(space, part, write->kind, scale, due, item_units(header),
						   &write->room))
	{
		result = nxm_cache_reserve(view, cache, part, write->kind, scale, due,
								   item_units(header), big ? big_bytes(write->big) : 0,
								   false, &write->room);
		if (result != NXM_OK)
			return result;
	}

	to = nxm_at(space, write->room.ref);
	if ((header & C_SHORT) != 0)
	{
		NXM_SET(((uint32_t *) to)[0], (header & C_SHORT_MASK) | C_SET_SHORT_LACK(lack));
		NXM_SET(((uint8_t *) to)[4], SHORT_LACK_BYTE(lack));
	}
	else
	{
		NXM_SET(((uint32_t *) to)[0], header);
		if (scale != 0)
			NXM_SET(((uint32_t *) to)[1], lack);
	}
	nxm_copy_in(to + item_key_offset(header), key->data, key->len);
	if (big)
		nxm_copy_in(to + item_value_offset(header), &write->big, sizeof(write->big));
	else
	{
		NXM_READS(data, write->deed == EXPIRE ? len : 0);
		nxm_copy_in(to + item_value_offset(header), data, len);
	}
	write->bytes = (size_t) item_units(header) * NXM_REF_UNIT +
		(big ? big_bytes(write->big) : 0);
	return NXM_OK;
}

/* The item is not going to be published. */
static void
drop_item(NxmSpace *space, NxmCache *cache, NxmCachePartition *part, Write *write)
{
	if (write->room.ref != 0)
		nxm_cache_abandon(&write->room);
	write->room.ref = 0;
	if (write->big != 0 && write->deed != EXPIRE)
	{
		nxm_item_free(space, BIG_REF(write->big));
		nxm_fetch_add_relaxed(&part->big, -(uint64_t) big_bytes(write->big));
		nxm_cache_give(cache, big_bytes(write->big));
	}
	write->big = 0;
}

/*
 * What to do about a result of an allocation that wanted a page and so many beyond:
 * NXM_OK: something was evicted, repeat; NXM_ABSENT: there is no room; else return it to
 * the caller.
 */
static NxmResult
find_memory(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
			uint64_t beyond, NxmResult result, int *steps)
{
	NxmSpace   *space = view->space;

	if (result != NXM_NEED_MEMORY)
		return result;
	if (space->want == NXM_WANT_NOTHING)
		return NXM_ABSENT;
	if (space->want == NXM_WANT_CHUNK && !view->cannot_grow &&
		nxm_cache_has_room(view, cache, part, 0))
		return result;
	space->want = NXM_WANT_NOTHING;
	if (++*steps > MOST_STEPS)
		return NXM_ABSENT;
	if (nxm_load_relaxed(&part->waiting) != 0 &&
		nxm_cache_give_back(view, cache, part) == NXM_OK)
		return NXM_OK;
	/* where all of many segments was read, copying that would be all there is time for */
	result = nxm_cache_make_way(view, cache, part, beyond, SEGMENT_UNITS,
								*steps > MOST_STEPS / 2 ? REACH_READ : REACH_ALL);
	/* long values that were evicted are to be free now, and not after the section */
	if (space->local->nbig > 0)
		nxm_flush(space);
	return result;
}

/*
 * A key comes back that was evicted from main, or a moment ago from small: main, or
 * small, should have been larger.  Marginal gain against marginal loss, so that a
 * loop over more than there is room for moves nothing.
 */
static void
adapt(NxmCachePartition *part, int direction, const Write *write)
{
	int64_t		bytes = (int64_t) (write->key->len + (write->value == NULL ? 0 :
													  write->value->len));
	int64_t		all = (int64_t) (nxm_cache_segment_bytes(part) + NXM_CACHE_SEGMENT +
								 nxm_load_relaxed(&part->big));
	int64_t		more = direction * ADAPT * bytes * SHARE_ALL / all;
	uint64_t	before = nxm_load_relaxed(&part->share);
	int64_t		share;

	do
	{
		share = (int64_t) before + more;
		share = share < MIN_SHARE ? MIN_SHARE : share > MAX_SHARE ? MAX_SHARE : share;
	} while (!nxm_cas(&part->share, &before, (uint64_t) share));
}

/*
 * Segments that there is room for, where each has about as much elsewhere as those that
 * there are.
 */
static uint64_t
segments_to_come(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	/* relaxed: a sum */
	uint64_t	big = nxm_load_relaxed(&part->big);

	return nxm_cache_room(view, cache, part) /
		(1 + big / (nxm_cache_segment_bytes(part) + NXM_CACHE_SEGMENT));
}

/* The kind of segment that an item goes to: that of the one it replaces, if any. */
static int
kind_for(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part, Write *write,
		 const void *item, NxmRef ref)
{
	NxmSpace   *space = view->space;
	uint64_t	since;

	if (item != NULL)
		return SEG_KIND(nxm_load_relaxed(&segment_at(space, ref)->word));
	if (write->asked)
		return write->kind;
	write->asked = true;
	/* main is filled first, which what comes later has to contend with */
	if (nxm_load_relaxed(&part->evicted) == 0 &&
		nxm_cache_main_has_share(part, segments_to_come(view, cache, part)))
		return KIND_MAIN;
	if (!nxm_ghost_take(space, &part->ghost[KIND_SMALL], write->key->hash, &since))
	{
		if (!nxm_ghost_take(space, &part->ghost[KIND_MAIN], write->key->hash, &since))
			return KIND_SMALL;
		adapt(part, -1, write);
		return nxm_cache_main_has_share(part, 0) ? KIND_MAIN : KIND_SMALL;
	}
	if (nxm_ghost_was_last(&part->ghost[KIND_SMALL], since))
		adapt(part, 1, write);
	return nxm_cache_examine(space, part, since) ? KIND_MAIN : KIND_SMALL;
}

/* The index names the item. */
static void
published(NxmSpace *space, NxmCachePartition *part, Write *write)
{
	nxm_map_count(space, &part->index, 1, (int64_t) write->bytes);
	write->big = 0;
	/* last: from now on the item may be evicted */
	nxm_cache_commit(&write->room);
	write->room.ref = 0;
	write->stored = write->room.units;
	if (write->deed != EXPIRE)
		count(space, part, NXM_CACHE_COUNTER_sets);
}

/*
 * Is a full chain to lose an entry rather than to have its segment grow?  So it is
 * where memory is short, entries are short, and the segment is not full all over: or by
 * and by, with entries coming and going, each would grow because of one crowd or another.
 */
static bool
is_crowd(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		 const NxmPlace *place, uint64_t tag)
{
	NxmAccount *account = &view->space->shared->account[NXM_CACHE_ACCOUNT];
	uint64_t	near = NXM_CACHE_KEEP + NXM_CACHE_AHEAD +
		nxm_load_relaxed(&account->page_limit) / SHORT_SHARE;

	return place->parent == NULL && nxm_map_is_crowded(place, tag) &&
		/* relaxed: sums */
		nxm_load_relaxed(&part->index.memory) * FREE_INDEX_SHARE >
		nxm_cache_segment_bytes(part) + nxm_load_relaxed(&part->big) &&
		!nxm_cache_has_room(view, cache, part, near) &&
		nxm_map_percent_used(view->space, place) < DENSE;
}

/*
 * How soon an entry would be evicted anyway, if it is not read: the more the sooner.
 * A hint, of words that may be of another life by now.
 */
static uint64_t
nearness_to_eviction(NxmSpace *space, NxmCachePartition *part, NxmRef ref)
{
	const NxmCacheSegment *segment;
	uint64_t	word;
	uint64_t	age = 0;

	/* not mapped here */
	if (nxm_at(space, ref) == NULL)
		return 0;
	segment = segment_at(space, ref);
	word = nxm_load_relaxed(&segment->word);
	if (SEG_STATE(word) != SEG_OPEN)
		age = nxm_load_relaxed(&part->ghost[KIND_SMALL].count) -
			nxm_load_relaxed(&segment->sealed_at);
	/* below 0: who sealed it in another life was late */
	if ((int64_t) age < 0)
		age = 0;
	/* small segments have a tenth of main's time or so */
	return age | (SEG_KIND(word) == KIND_SMALL ? UINT64_C(1) << 63 : 0);
}

/*
 * Evicts from a chain the entry read least, of those on the side of the tag if that is
 * full.  Of several it is the one that would soonest be evicted anyway: its room is dead
 * until its segment is given back.  NXM_OK: look again; NXM_NEED_CHUNK.
 */
static NxmResult
crowd_out(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		  const NxmPlace *place, uint64_t tag)
{
	NxmSpace   *space = view->space;
	uint32_t	bit = place->depth + place->log;
	bool		any_side = !nxm_map_side_is_full(place, tag);
	NxmAtomic  *slot = NULL;
	uint64_t	word = 0;
	uint64_t	nearest = 0;
	const void *item;
	uint32_t	header;

	for (int i = 0; i < chain_slots(place->header); i++)
	{
		NxmAtomic  *at = slot_at(place, i);
		uint64_t	w = nxm_load_relaxed(at);
		uint64_t	near;

		if ((w & STATE_MASK) != OPEN || w == EMPTY ||
			(!any_side && side_of(w, bit) != side_of(tag, bit)) ||
			(slot != NULL && (w & FREQ_MASK) > (word & FREQ_MASK)))
			continue;
		near = nearness_to_eviction(space, part, w & NXM_REF_MASK);
		if (slot == NULL || (w & FREQ_MASK) < (word & FREQ_MASK) || near > nearest)
		{
			slot = at;
			word = w;
			nearest = near;
		}
	}
	if (slot == NULL)
		return NXM_OK;
	item = nxm_at(space, word & NXM_REF_MASK);
	if (item == NULL)
		return NXM_NEED_CHUNK;
	nxm_protect(space, word & NXM_REF_MASK);
	if (nxm_load(slot) != word)
		return NXM_OK;
	/*
	 * One that is being inserted may be pending still, and must not be changed.  After
	 * that load: who saw the slot LIVE sees the header that came before.
	 */
	if ((nxm_load(&place->bucket->header) & H_PENDING) != 0)
		return NXM_OK;
	header = item_header(item);
	if ((header & C_BIG) != 0)
	{
		NxmResult	result = nxm_cache_check_value(space, item, slot, word);

		if (result != NXM_OK)
			return result == NXM_EXISTS ? NXM_OK : result;
	}
	/* fails if it was read, written or moved */
	if (nxm_cas(slot, &word, EMPTY))
	{
		nxm_cache_removed(space, cache, part, word & NXM_REF_MASK, item, true);
		count(space, part, NXM_CACHE_COUNTER_evictions);
	}
	return NXM_OK;
}

/* Looks the key up and does to its entry what is to be done. */
static NxmResult
change_index(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
			 Write *write)
{
	NxmSpace   *space = view->space;
	NxmMap	   *index = &part->index;
	uint64_t	position = position_of(write->key->hash);
	uint64_t	tag = tag_of(position);
	NxmSegment *growing = NULL;
	bool		refused = false;
	int			steps = 0;
	NxmResult	result;

	for (;;)
	{
		NxmPlace	place;
		NxmFound	found;
		NxmRef		ref = 0;
		uint64_t	to = EMPTY;
		int64_t		ends;
		bool		over = false;
		int			slot;

		result = nxm_map_locate(space, index, position, &place);
		if (result != NXM_OK)
			break;
		if (place.parent != NULL)
			growing = place.parent;
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		result = nxm_map_look_up(space, &place, tag, write->key, has_key, &found);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			break;
		if (found.item != NULL)
		{
			ref = found.word & NXM_REF_MASK;
			over = is_over(view, ref, found.item, &ends);
			if ((item_header(found.item) & C_BIG) != 0)
			{
				result = nxm_cache_check_value(space, found.item, found.slot,
											   found.word);
				if (result == NXM_EXISTS)
					continue;
				if (result != NXM_OK)
					break;
			}
		}

		/* what it will say */
		if (found.item == NULL || over)
			result = write->deed == SET || write->deed == ADD ? NXM_OK : NXM_ABSENT;
		else
			result = write->deed == SET || write->deed == ADD ? NXM_EXISTS : NXM_OK;
		if (found.item == NULL && (refused || write->deed == DELETE || write->deed == EXPIRE))
			break;
		if (found.item != NULL && !over && write->deed == ADD)
			break;

		if (!refused && write->deed != DELETE && !(write->deed == EXPIRE && over))
		{
			if (write->room.ref == 0)
			{
				NxmResult	made;

				write->kind = kind_for(view, cache, part, write, found.item, ref);
				made = make_item(view, cache, part, write, found.item);
				if (made != NXM_OK)
				{
					uint64_t	beyond = NXM_CACHE_KEEP;

					/* a value that has its pages wants a segment for its item alone */
					if (write->value != NULL && write->big == 0)
						beyond += pages_beside(write->value->len);
					made = find_memory(view, cache, part, beyond, made, &steps);
					if (write->deed == EXPIRE)
						write->big = 0; /* not ours, and perhaps gone by now */
					refused = made == NXM_ABSENT;
					if (made == NXM_OK || refused)
						continue;
					result = made;
					break;
				}
			}
			to = OPEN | tag | write->room.ref;
		}

		if (found.item != NULL)
		{
			uint64_t	header = nxm_load(&place.bucket->header);
			bool		moved = write->deed == EXPIRE && to != EMPTY;
			uint32_t	old;

			/* a slot is changed only when its insert is not pending any more */
			if (pending_slot(header) == found.number)
			{
				nxm_map_complete_pending(space, &place, header);
				if (moved)
					drop_item(space, cache, part, write);
				continue;
			}
			/* writing is a use, too */
			if (to != EMPTY)
				to |= (found.word & FREQ_MASK) == FREQ_MASK ? FREQ_MASK :
					(found.word & FREQ_MASK) + FREQ_ONE;
			/* release: publishes the item.  Fails where somebody was faster */
			if (!nxm_cas(found.slot, &found.word, to))
			{
				/* a copy is of this item, and it may be another one by now */
				if (moved)
					drop_item(space, cache, part, write);
				continue;
			}
			old = item_header(found.item);
			/* a value elsewhere goes from one item to the other */
			nxm_cache_removed(space, cache, part, ref, found.item,
							  !moved || write->big == 0);
			if (to != EMPTY && (old & C_BIG) == 0)
				nxm_cache_give_room(space, part, ref, item_units(old));
			if (to != EMPTY)
				published(space, part, write);
			if (over)
				count(space, part, NXM_CACHE_COUNTER_expirations);
			break;
		}

		slot = nxm_map_empty_slot(&place, tag);
		if (slot < 0)
		{
			NxmResult	made;

			if (is_crowd(view, cache, part, &place, tag))
			{
				result = crowd_out(view, cache, part, &place, tag);
				if (result != NXM_OK)
					break;
				continue;
			}
			if (nxm_cache_has_room(view, cache, part, 0))
				made = nxm_map_make_room(space, index, &place, position,
										 true);
			else
			{
				/* the index, too, grows below the cache's own limit alone */
				made = nxm_limit_reached(space);
			}
			if (made != NXM_OK)
			{
				made = find_memory(view, cache, part, 0, made, &steps);
				refused = made == NXM_ABSENT;
				if (made != NXM_OK && !refused)
				{
					result = made;
					break;
				}
			}
			continue;
		}
		if (nxm_map_insert(space, &place, slot, tag, write->room.ref))
		{
			published(space, part, write);
			break;
		}
	}
	drop_item(space, cache, part, write);
	if (refused && (result == NXM_OK || result == NXM_EXISTS || result == NXM_ABSENT))
	{
		count(space, part, NXM_CACHE_COUNTER_refusals);
		result = NXM_ABSENT;
	}
	if (growing != NULL)
		nxm_map_help_growth(space, index, growing, position);
	return result;
}

static NxmResult
do_write(NxmCacheView *view, NxmCache *cache, Write *write)
{
	NxmSpace   *space = view->space;
	NxmResult	result;
	NxmCachePartition *part = partition_at(space, cache,
										   home_of(cache, write->key->hash), &result);

	if (part == NULL)
		return result;
	/* what it counts comes after what must not happen twice */
	if (__builtin_expect(counts_of(space, part) == NULL, 0))
		return NXM_NEED_CHUNK;
	nxm_cache_use_memory(view, cache, part);
	if (write->deed == SET || write->deed == ADD)
		nxm_ghost_prefetch(space, part, write->key->hash);
	result = change_index(view, cache, part, write);
	/* what this one took is made up for ahead of need, by small steps of many */
	if (write->stored > 0 &&
		!nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP + NXM_CACHE_AHEAD))
		(void) nxm_cache_make_way(view, cache, part, NXM_CACHE_KEEP + NXM_CACHE_AHEAD,
								  2 * write->stored + LEAST_STEP, REACH_SEALED);
	nxm_cache_leave_memory(space);
	return result;
}

/* Has a deadline passed?  Looks at the clock where there is one. */
static bool
has_passed(NxmCacheView *view, Write *write)
{
	if (write->deadline == 0)
		return false;
	write->now = view->now(view->env);
	return write->deadline <= write->now;
}

NxmResult
nxm_cache_set(NxmCacheView *view, NxmCache *cache, const NxmKey *key,
			  const NxmValue *value, int64_t deadline)
{
	Write		write = {.deed = SET,.key = key,.value = value,.deadline = deadline};
	NxmResult	result;

	if (key->len > NXM_MAX_KEY || value->len > NXM_MAX_VALUE)
		return NXM_TOO_LONG;
	if (!has_passed(view, &write))
		return do_write(view, cache, &write);
	write.deed = DELETE;
	result = do_write(view, cache, &write);
	return result == NXM_OK ? NXM_EXISTS : result == NXM_ABSENT ? NXM_OK : result;
}

NxmResult
nxm_cache_add(NxmCacheView *view, NxmCache *cache, const NxmKey *key,
			  const NxmValue *value, int64_t deadline)
{
	Write		write = {.deed = ADD,.key = key,.value = value,.deadline = deadline};
	NxmResult	result;

	if (key->len > NXM_MAX_KEY || value->len > NXM_MAX_VALUE)
		return NXM_TOO_LONG;
	if (!has_passed(view, &write))
		return do_write(view, cache, &write);
	result = read_entry(view, cache, key, NULL, NULL);
	return result == NXM_OK ? NXM_EXISTS : result == NXM_ABSENT ? NXM_OK : result;
}

NxmResult
nxm_cache_delete(NxmCacheView *view, NxmCache *cache, const NxmKey *key)
{
	Write		write = {.deed = DELETE,.key = key};

	return do_write(view, cache, &write);
}

NxmResult
nxm_cache_deadline(NxmCacheView *view, NxmCache *cache, const NxmKey *key,
				   int64_t *deadline)
{
	return read_entry(view, cache, key, NULL, deadline);
}

NxmResult
nxm_cache_expire(NxmCacheView *view, NxmCache *cache, const NxmKey *key,
				 int64_t deadline)
{
	Write		write = {.deed = EXPIRE,.key = key,.deadline = deadline};

	if (has_passed(view, &write))
		write.deed = DELETE;
	return do_write(view, cache, &write);
}
