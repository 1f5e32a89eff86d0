/*
 * cache_evict.c
 *	  Taking items out of segments that are to be given back.  cache.h has the
 *	  design.
 *
 * Who has claimed a segment goes through its items from `cursor` on, a few at a
 * time, and then leaves it to whoever comes next.  An item is found in the index by
 * its reference alone: as long as the segment is ours nothing else has the same
 * one.  Not found means that it was overwritten, deleted or moved.
 *
 * Clearing puts another body into the index, in which the items of the old one are
 * not found although slots of the old one name them until it is drained.  A clear
 * sets `dead` before it changes the body.  So items are looked up while `dead` was
 * 0 before, and what was found counts only if it is 0 after.
 */
#include "cache_internal.h"
#include "map_lookup.h"

/* Segments of the index drained in one call. */
#define DRAIN_STEPS			8

size_t
nxm_cache_item_bytes(const void *item)
{
	uint32_t	header = item_header(item);
	size_t		bytes = (size_t) item_units(header) * NXM_REF_UNIT;

	if ((header & C_BIG) != 0)
		bytes += big_bytes(item_big(item, header));
	return bytes;
}

void
nxm_cache_removed(NxmSpace *space, NxmCache *cache, NxmCachePartition *part,
				  NxmRef ref, const void *item, bool with_value)
{
	uint32_t	header = item_header(item);
	size_t		bytes = nxm_cache_item_bytes(item);

	nxm_map_count(space, &part->index, -1, -(int64_t) bytes);
	if ((header & C_BIG) != 0 && with_value)
	{
		uint64_t	big = item_big(item, header);

		/* relaxed: a sum */
		nxm_fetch_add_relaxed(&part->big, -(uint64_t) big_bytes(big));
		nxm_cache_give(cache, big_bytes(big));
		nxm_retire(space, BIG_REF(big));
	}
	/* last: once all is dead the segment is given back, but for our hazard */
	nxm_cache_dead(space, part, ref, item_units(header));
}

/* The slot that names an item; NULL, or NXM_EXISTS: look again. */
static NxmResult
find_slot(const NxmPlace *place, NxmRef ref, NxmAtomic **slot, uint64_t *word)
{
	*slot = NULL;
	for (int i = 0; i < chain_slots(place->header); i++)
	{
		NxmAtomic  *at = slot_at(place, i);
		uint64_t	w = nxm_load(at);

		if ((w & STATE_MASK) == FROZEN)
			return NXM_EXISTS;
		if ((w & NXM_REF_MASK) == ref && (w & STATE_MASK) == OPEN)
		{
			*slot = at;
			*word = w;
			return NXM_OK;
		}
	}
	return NXM_OK;
}

/*
 * Copies an item to another segment: of the same window, however near that is, unless
 * windows have become wider.  NXM_OK: the room is reserved and written, to be published;
 * NXM_NEED_MEMORY: there is none.
 */
static NxmResult
copy_item(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		  const NxmVictim *victim, NxmRef ref, int kind, int64_t now, NxmRoom *room)
{
	NxmSpace   *space = view->space;
	const char *item = nxm_at(space, ref);
	uint32_t	header = item_header(item);
	uint32_t	scale = SEG_SCALE(victim->word);
	uint64_t	due = nxm_load_relaxed(&victim->segment->due);
	int64_t		deadline = item_deadline(space, ref, item, header);
	uint32_t	wider = nxm_cache_wider_scale(part, scale, deadline - now);
	uint64_t	weight = (header & C_BIG) != 0 ? big_bytes(item_big(item, header)) : 0;
	uint32_t	copied = header;
	char	   *to;
	NxmResult	result;

	if (wider != scale)
	{
		scale = wider;
		due = due_of(deadline, scale);
		copied &= ~C_SHORT;
	}
	result = nxm_cache_reserve(view, cache, part, kind, scale, due, item_units(copied),
							   weight, true, room);
	if (result != NXM_OK)
		return result;
	to = nxm_at(space, room->ref);
	NXM_READS(item, (size_t) item_units(header) * NXM_REF_UNIT);
	if (copied == header && scale == SEG_SCALE(victim->word))
		nxm_copy_in(to, item, (size_t) item_units(header) * NXM_REF_UNIT);
	else
	{
		NXM_SET(((uint32_t *) to)[0], copied);
		NXM_SET(((uint32_t *) to)[1], lack_of(deadline, due, scale, LACK_BITS));
		nxm_copy_in(to + item_key_offset(copied), item_key(item, header),
					C_KEY_LEN(header) + ((header & C_BIG) != 0 ? sizeof(NxmRef) : C_LEN(header)));
	}
	return NXM_OK;
}

_Static_assert(NXM_CACHE_PROMOTE < FREQ_MASK >> FREQ_SHIFT, "once more can be counted");

/*
 * With how many of its reads counted an item stays: in main a copy takes one of them off.  By
 * its size, so that of what is read as often that stays of which more find room: where entries
 * have 32 bytes to 16 kB that is 0.1 to 1.4 points of hits (bench/cache_sim.sh, sizes=1).
 */
static uint64_t
reads_to_stay(const NxmCachePartition *part, int kind, uint64_t bytes)
{
	/* relaxed: a hint */
	uint64_t	average = nxm_load_relaxed(&part->average);
	uint64_t	reads = kind == KIND_MAIN ? 1 : NXM_CACHE_PROMOTE;

	/* 0: of entries and bytes one is counted, and the other not yet */
	if (average == 0)
		return reads;
	/* more are not counted */
	if (bytes > 3 * average)
		return FREQ_MASK >> FREQ_SHIFT;
	if (2 * bytes > 3 * average)
		return reads + 1;
	return reads > 1 && 2 * bytes < average ? reads - 1 : reads;
}

/*
 * Takes one item out of its slot, or has the slot name a copy.  NXM_OK: no slot
 * names it.  NXM_NEED_MEMORY: it is to be copied and can't.
 */
static NxmResult
take_out(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		 const NxmVictim *victim, NxmRef ref, int64_t now)
{
	NxmSpace   *space = view->space;
	const void *item = nxm_at(space, ref);
	uint32_t	header = item_header(item);
	int			kind = SEG_KIND(victim->word);
	NxmRoom		room = {0};
	uint64_t	stays;
	uint64_t	hash;
	uint64_t	position;
	bool		expired;

	stays = reads_to_stay(part, kind, nxm_cache_item_bytes(item));
	NXM_READS(item_key(item, header), C_KEY_LEN(header));
	hash = view->hash(item_key(item, header), C_KEY_LEN(header));
	position = position_of(hash);
	expired = (header & C_DEADLINE) != 0 &&
		item_deadline(space, ref, item, header) <= now;

	for (;;)
	{
		NxmPlace	place;
		NxmAtomic  *slot;
		uint64_t	word;
		uint64_t	frequency;
		uint64_t	to = EMPTY;
		NxmResult	result = nxm_map_locate(space, &part->index, position, &place);

		/* dropped: whoever drains the index takes it out */
		if (result == NXM_DROPPED)
			result = NXM_ABSENT;
		else if (result == NXM_OK)
		{
			result = find_slot(&place, ref, &slot, &word);
			if (result == NXM_EXISTS)
				continue;
			if (slot == NULL)
				result = NXM_ABSENT;
			else if ((header & C_BIG) != 0)
				result = nxm_cache_protect_value(space, item, slot, word);
			if (result == NXM_EXISTS)
				continue;
		}
		if (result != NXM_OK)
		{
			if (room.ref != 0)
				nxm_cache_abandon(&room);
			return result == NXM_ABSENT ? NXM_OK : result;
		}

		frequency = (word & FREQ_MASK) >> FREQ_SHIFT;
		if (!expired && (victim->compact || (!victim->drop && frequency >= stays)))
		{
			if (room.ref == 0)
			{
				result = copy_item(view, cache, part, victim, ref,
								   victim->compact ? kind : KIND_MAIN, now, &room);
				if (result == NXM_NEED_CHUNK ||
					(result != NXM_OK && victim->compact))
					return result;
				if (result == NXM_OK)
					continue;	/* the slot may have changed: look again */
			}
			else
				to = OPEN | (word & TAG_MASK) | room.ref |
					(victim->compact ? frequency :
					 kind == KIND_MAIN ? frequency - 1 : 0) << FREQ_SHIFT;
		}
		NXM_PAUSE("evict");
		/* release: publishes the copy.  Fails if it was read, written or moved */
		if (!nxm_cas(slot, &word, to))
			continue;
		if (to != EMPTY)
		{
			/* a sum, as that of the bytes of what is dead is */
			if (room.units != item_units(header))
				nxm_map_count(space, &part->index, 0,
							  ((int64_t) room.units - item_units(header)) * NXM_REF_UNIT);
			nxm_cache_commit(&room);
			nxm_cache_dead(space, part, ref, item_units(header));
			return NXM_OK;
		}
		if (room.ref != 0)
			nxm_cache_abandon(&room);
		nxm_cache_removed(space, cache, part, ref, item, true);
		if (expired)
			count(space, part, NXM_CACHE_COUNTER_expirations);
		else
		{
			count(space, part, NXM_CACHE_COUNTER_evictions);
			if (nxm_load_relaxed(&part->evicted) == 0)
				nxm_store_relaxed(&part->evicted, 1);
			nxm_ghost_add(space, &part->ghost[kind], hash);
		}
		return NXM_OK;
	}
}

/* What draining the index does to the items of a cache. */
typedef struct Owner
{
	NxmMapItems items;
	NxmCache   *cache;
	NxmCachePartition *part;
	bool		evicts;			/* the item that was prepared last */
} Owner;

static NxmResult
drain_prepare(NxmSpace *space, const NxmMapItems *items, NxmAtomic *slot,
			  uint64_t word)
{
	const void *item = nxm_at(space, word & NXM_REF_MASK);
	Owner	   *owner = (Owner *) items;

	/* relaxed: it came before the index was cut off, and changes when that is drained */
	owner->evicts = nxm_load_relaxed(&owner->part->index.mark) == MARK_EVICTED;
	if (item == NULL)
		return NXM_NEED_CHUNK;
	if ((item_header(item) & C_BIG) == 0)
		return NXM_OK;
	return nxm_cache_check_value(space, item, slot, word);
}

static void
drained(NxmSpace *space, const NxmMapItems *items, NxmMap *map, NxmRef ref)
{
	const Owner *owner = (const Owner *) items;

	(void) map;
	nxm_cache_removed(space, owner->cache, owner->part, ref, nxm_at(space, ref), true);
	if (owner->evicts)
		count(space, owner->part, NXM_CACHE_COUNTER_evictions);
}

NxmResult
nxm_cache_drain_index(NxmSpace *space, NxmCache *cache, NxmCachePartition *part)
{
	Owner		owner = {{drain_prepare, drained}, cache, part, false};
	NxmResult	result = nxm_keeps_retired(space);

	for (int i = 0; i < DRAIN_STEPS && result == NXM_OK; i++)
	{
		/*
		 * The epoch first, if it goes on: a tick leaves the section before more, a write
		 * that comes back in it drains a segment each time.
		 */
		if (i > 0 && space->local->nretired - space->local->nunmapped >=
			NXM_EPOCH_LIMBO_HIGH)
			break;
		result = nxm_map_drain_items(space, &part->index, &owner.items);
	}
	return result;
}

/* Gives a segment back that no slot names.  NXM_EXISTS: somebody reads in it. */
static NxmResult
give_back(NxmSpace *space, NxmCache *cache, NxmCachePartition *part,
		  const NxmVictim *victim)
{
	NxmChain   *chain = &part->chain[SEG_KIND(victim->word)];

	/* ours may be in it, from what we did before */
	nxm_unprotect(space);
	/* pairs with nxm_protect(): we see the hazard, or they the slot changed */
	if (nxm_page_is_read(space, nxm_ref_page(victim->page)))
	{
		nxm_cache_hold(part, NAME_OF(nxm_ref_page(victim->page), SEG_LIFE(victim->word)));
		nxm_fetch_add_relaxed(&part->waiting, 1);
		nxm_store(&victim->segment->word, victim->word - SEG_EVICTING + SEG_DRAINED);
		return NXM_EXISTS;
	}
	/* release: who opens it again, or finds it gone, comes after */
	nxm_store(&victim->segment->word, (SEG_LIFE(victim->word) + 1) << SEG_LIFE_SHIFT);
	nxm_free(space, victim->page);
	nxm_cache_give(cache, NXM_CACHE_SEGMENT);
	if (nxm_chain_free(chain) > 2 * NXM_CHAIN_ENTRIES)
		(void) nxm_chain_clean(space, chain, nxm_chain_is_sparse(chain));
	/* last: who closes the partition waits for it */
	nxm_fetch_add(&chain->segments, (uint64_t) -1);
	return NXM_OK;
}

/* Goes on with a victim, and leaves it, or gives it back. */
static NxmResult
work_on(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
		NxmVictim *victim, uint32_t units, NxmReach reach)
{
	NxmSpace   *space = view->space;
	NxmCacheSegment *segment = victim->segment;
	uint32_t	used = SEG_USED(victim->word);
	/* the word was acquired after the one before released it */
	uint32_t	begin = (uint32_t) nxm_load_relaxed(&segment->cursor);
	uint32_t	cursor = begin;
	NxmResult	result = NXM_OK;

	/* by invariant 5: and then no slot names any, in whatever body */
	if (DONE_DEAD(nxm_load(&segment->done)) == used - HEAD_UNITS)
		cursor = used;
	else
	{
		int64_t		now = nxm_load_relaxed(&segment->due) == 0 ? 0 :
			view->now(view->env);

		/* a sum over lines that others write to: not in each of many small steps */
		if (begin == HEAD_UNITS)
		{
			uint64_t	entries = nxm_map_entries(&part->index);

			nxm_store_relaxed(&part->average,
							  entries == 0 ? 0 : nxm_map_bytes(&part->index) / entries);
		}
		if (nxm_load(&part->index.dead) != 0)
			result = NXM_ABSENT;
		while (result == NXM_OK && cursor < used && cursor - begin < units)
		{
			NxmRef		ref = victim->page + cursor;
			uint32_t	size = item_units(item_header(nxm_at(space, ref)));

			result = take_out(view, cache, part, victim, ref, now);
			if (result == NXM_OK)
				cursor += size;
			else if (result == NXM_NEED_MEMORY && victim->compact && reach != REACH_RIPE)
			{
				/* no page is left for copies: then it is evicted like any other */
				victim->compact = false;
				result = NXM_OK;
			}
		}
		if (nxm_load(&part->index.dead) != 0)
		{
			cursor = begin;
			result = result == NXM_OK ? NXM_ABSENT : result;
		}
		nxm_store_relaxed(&segment->cursor, cursor);
	}
	if (cursor == used)
	{
		result = give_back(space, cache, part, victim);
		return result == NXM_EXISTS ? NXM_OK : result;
	}
	/* release: hands it to the next one, with its cursor */
	nxm_store(&segment->word, victim->word - SEG_EVICTING + SEG_SEALED);
	/* no room for copies is as good as nothing to do */
	return result == NXM_NEED_MEMORY ? NXM_ABSENT : result;
}

NxmResult
nxm_cache_evict(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
				uint32_t units, NxmReach reach)
{
	NxmVictim	victim;
	NxmResult	result;

	if (nxm_load(&part->index.dead) != 0)
	{
		result = nxm_cache_drain_index(view->space, cache, part);
		if (result != NXM_ABSENT)
			return result == NXM_EXISTS ? NXM_ABSENT : result;
		/* somebody is about to cut a body off: nothing can be done until then */
		return nxm_load(&part->index.dead) != 0 ? NXM_ABSENT : NXM_OK;
	}
	result = nxm_cache_pick(view, part, reach, &victim);
	if (result != NXM_OK)
		return result;
	victim.drop = reach == REACH_READ;
	NXM_PAUSE("claimed");
	return work_on(view, cache, part, &victim, units, reach);
}

NxmResult
nxm_cache_give_back(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	NxmVictim	victim;
	NxmResult	result;

	/* ours may be in one, from what we did before */
	nxm_unprotect(view->space);
	result = nxm_cache_pick_drained(view->space, part, &victim);
	if (result != NXM_OK)
		return result;
	nxm_fetch_add_relaxed(&part->waiting, (uint64_t) -1);
	return give_back(view->space, cache, part, &victim);
}

/* As nxm_cache_evict(), in this partition or else in another one of its cache. */
static NxmResult
evict_partitions(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
				 uint32_t units, NxmReach reach)
{
	NxmSpace   *space = view->space;
	NxmResult	result = nxm_cache_evict(view, cache, part, units, reach);

	/* the limits are the same for all partitions: a long value may want more than one has */
	for (int i = 1; result == NXM_ABSENT && i < (int) cache->npartitions; i++)
	{
		NxmCachePartition *theirs = partition_at(space, cache, (part->number + i) %
												 (int) cache->npartitions, &result);

		if (theirs == NULL)
			break;
		nxm_cache_use_memory(view, cache, theirs);
		result = nxm_cache_evict(view, cache, theirs, units, reach);
		nxm_cache_use_memory(view, cache, part);
		/* what their node would keep is not there for us */
		if (result == NXM_OK)
			nxm_trim(space);
	}
	return result;
}

NxmResult
nxm_cache_make_way(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part,
				   uint64_t beyond, uint32_t units, NxmReach reach)
{
	NxmSpace   *space = view->space;
	NxmAccount *account = &space->shared->account[NXM_CACHE_ACCOUNT];
	NxmRef		ref = view->largest == NULL ? 0 : nxm_load(view->largest);
	NxmResult	result;

	/* by the account, and not by the cache's own limit? */
	if (ref != 0 && nxm_cache_own_room(view, cache) > beyond &&
		nxm_load_relaxed(&account->pages) +
		(beyond > NXM_CACHE_KEEP + NXM_CACHE_AHEAD ? beyond :
		 NXM_CACHE_KEEP + NXM_CACHE_AHEAD) >=
		nxm_load_relaxed(&account->page_limit))
	{
		NxmCache   *other = nxm_at(space, ref);
		NxmCachePartition *theirs;

		if (other == NULL)
			return NXM_NEED_CHUNK;
		if (other != cache && nxm_load_relaxed(&other->used) / 2 >
			nxm_load_relaxed(&cache->used))
		{
			theirs = partition_at(space, other,
								  part->number % (int) other->npartitions, &result);
			if (theirs != NULL)
			{
				uint64_t	max_bytes = view->max_bytes;

				/* what the writer's limit leaves is no matter of theirs */
				view->max_bytes = 0;
				nxm_cache_use_memory(view, other, theirs);
				result = nxm_cache_evict(view, other, theirs, units, reach);
				view->max_bytes = max_bytes;
				nxm_cache_use_memory(view, cache, part);
			}
			if (result != NXM_ABSENT && result != NXM_DROPPED)
				return result;
		}
	}
	result = evict_partitions(view, cache, part, units,
							  reach == REACH_READ ? reach : REACH_SEALED);
	if (result == NXM_ABSENT && reach >= REACH_ALL)
		result = evict_partitions(view, cache, part, units, reach);
	if (result == NXM_ABSENT && reach >= REACH_ALL)
		result = nxm_cache_shrink_index(view, cache, part);
	return result;
}
