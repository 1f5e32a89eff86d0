/*
 * cache_recycle.c
 *	  Writing an item to where another one was overwritten.  cache.h has the design.
 *
 * Keys are mostly overwritten with values as long as those before.  In a log each
 * would leave a dead item, and to keep a share u of it alive a cleaner copies up to
 * u / (1 - u) items for each.  So an overwritten item's room is written again, for a
 * value of about the same size, of the same kind and window of deadlines, that
 * replaces another one
 * (slack space recycling; Oh et al., MSST 2010).  It takes the place in the order of
 * segments that the overwritten one had, as S3-FIFO has it.  A new key's item goes
 * to the end of the log.
 *
 * A room that is given goes into a list of its partition, among whose lists the
 * processes are divided:
 *
 *	name	63     62           34 33          0
 *			+-----+---------------+------------+
 *			|clear|     life      |  reference |	0: none; BUSY: being written
 *			+-----+---------------+------------+
 *
 * Life: the low bits of the segment's.  It is clear when after it was given all
 * hazards were seen without it, which is asked of many at once; from then on nobody
 * reads there, for no slot names it.
 *
 * Taking one is made of these steps:
 *
 *	1. its name is taken out of the list, so that it is ours alone;
 *	2. its size is taken off `committed` and `dead`, by CAS of the word that has the
 *	   segment's life, too;
 *	3. the segment's word is written as it is, by CAS.
 *
 * Who evicts changes that word, and then looks again whether all is committed: if
 * that comes after 3 it sees 2, and lets the segment go; if before, 3 fails, and 2 is
 * undone.  Items before `cursor` have been looked at, so a segment that is evicted in
 * part takes no new ones.
 *
 * A value elsewhere is protected by way of its item (nxm_cache_check_value()), which
 * relies on no other item being in the same place as long as the segment lives.  So
 * the room of an item with such a value is not given.
 *
 * The smallest that is large enough is taken, and none that is larger by more than a
 * quarter.
 *
 * Limits: what is displaced from a full list, and what is left over of a room, stays
 * dead until its segment is compacted.  A process that is stopped while it has places of
 * a list marked BUSY, which may be all of them, leaves them so: the list is shorter, and
 * where it has none left its processes use the next one.
 */
#include "cache_internal.h"

#define ROOM_CLEAR			(UINT64_C(1) << 63)
#define ROOM_LIFE_SHIFT		NXM_REF_BITS
#define ROOM_LIFE_MASK		((UINT64_C(1) << (63 - ROOM_LIFE_SHIFT)) - 1)
#define ROOM_LIFE(n)		((n) >> ROOM_LIFE_SHIFT & ROOM_LIFE_MASK)
#define ROOM_REF(n)			((n) & NXM_REF_MASK)
/* No room has this reference: a segment begins with its head. */
#define ROOM_BUSY			UINT64_C(1)

/* What a room must have in common with the item; its window of deadlines, too. */
static inline uint64_t
sort_of(uint32_t units, int kind, uint32_t scale)
{
	return units | (uint64_t) kind << SEG_KIND_SHIFT | (uint64_t) scale << SEG_SCALE_SHIFT;
}

#define SORT_UNITS_MASK		UINT64_C(0xFFFF)
#define SORT_UNITS(s)		((uint32_t) ((s) & SORT_UNITS_MASK))

/* One unit in so many of an item's size may be left over of its room. */
#define SPARE_SHARE			4
/* Rooms to try to take for one. */
#define TRIES				4

/* This process's list, or, where others have all places of it, the next one. */
static inline NxmFreeRoom *
list_of(NxmSpace *space, NxmCachePartition *part)
{
	NxmFreeRoom *list = part->room[space->proc % NXM_CACHE_ROOM_LISTS];

	/* most often the first one is not BUSY.  Relaxed: any list will do */
	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
	{
		if (nxm_load_relaxed(&list[i].name) != ROOM_BUSY)
			return list;
	}
	return part->room[(space->proc + 1) % NXM_CACHE_ROOM_LISTS];
}

void
nxm_cache_give_room(NxmSpace *space, NxmCachePartition *part, NxmRef ref,
					uint32_t units)
{
	NxmFreeRoom *list = list_of(space, part);
	uint64_t	word = nxm_load(&segment_at(space, ref)->word);
	NxmFreeRoom *to = NULL;
	uint64_t	before = 0;

	for (int i = 0; i < NXM_CACHE_ROOMS && to == NULL; i++)
	{
		before = nxm_load_relaxed(&list[i].name);
		if (before == 0)
			to = &list[i];
	}
	if (to == NULL)
	{
		/* any, so that sorts nobody asks for do not stay */
		to = &list[(ref * UINT64_C(0x9E3779B97F4A7C15) >> 32) % NXM_CACHE_ROOMS];
		before = nxm_load_relaxed(&to->name);
	}
	/* lost, where others write to the list too */
	if (before == ROOM_BUSY || !nxm_cas(&to->name, &before, ROOM_BUSY))
		return;
	nxm_store_relaxed(&to->sort, sort_of(units, SEG_KIND(word), SEG_SCALE(word)));
	/* release: the sort, and that the slot was changed */
	nxm_store(&to->name, (SEG_LIFE(word) & ROOM_LIFE_MASK) << ROOM_LIFE_SHIFT | ref);
}

/*
 * Makes clear what is.  Nobody else may have the rooms while the hazards are looked at:
 * one that was taken, written, read and given again meanwhile has the same name.
 */
static void
clear_rooms(NxmSpace *space, NxmFreeRoom *list)
{
	uint64_t	names[NXM_CACHE_ROOMS];
	NxmRef		refs[NXM_CACHE_ROOMS];
	uint64_t	read;

	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
	{
		/* acquire: the change of the slot that named it */
		names[i] = nxm_load(&list[i].name);
		if (names[i] == ROOM_BUSY || (names[i] & ROOM_CLEAR) != 0 ||
			(names[i] != 0 && !nxm_cas(&list[i].name, &names[i], ROOM_BUSY)))
			names[i] = 0;
		refs[i] = ROOM_REF(names[i]);
	}
	read = nxm_hazards_on(space, refs, NXM_CACHE_ROOMS);
	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
	{
		if (names[i] != 0)
			nxm_store(&list[i].name,
					  names[i] | ((read >> i & 1) == 0 ? ROOM_CLEAR : 0));
	}
}

/*
 * Takes a room that is clear.  What is left over gets the header of an item that no
 * slot names, and stays dead.  false: it is not to be had.  The room's sort, read
 * apart from its name, may have been another's: it is only what made this one tried.
 */
static bool
take(NxmSpace *space, NxmFreeRoom *from, uint64_t name, int kind, uint32_t scale,
	 uint64_t due, uint32_t units, NxmRoom *room)
{
	NxmRef		ref = ROOM_REF(name);
	NxmCacheSegment *segment = segment_at(space, ref);
	uint64_t	size = units * (DEAD_ONE + 1);
	uint64_t	word;
	uint64_t	done;
	uint32_t	life;
	uint32_t	there;
	bool		gone;

	if (segment == NULL)
		return false;
	word = nxm_load(&segment->word);
	done = nxm_load(&segment->done);
	life = (uint32_t) SEG_LIFE(word);
	gone = (SEG_LIFE(word) & ROOM_LIFE_MASK) != ROOM_LIFE(name) ||
		SEG_STATE(word) == SEG_DRAINED ||
		nxm_load_relaxed(&segment->cursor) != HEAD_UNITS;
	if (!gone && (SEG_KIND(word) != kind || SEG_SCALE(word) != scale ||
				  nxm_load_relaxed(&segment->due) != due))
		return false;
	/* acquire: all hazards were seen without it */
	if (!nxm_cas(&from->name, &name, 0) || gone)
		return false;

	do
	{
		/* nor where who wrote the room last has yet to commit it */
		if (DONE_LIFE(done) != life || DONE_DEAD(done) < units ||
			DONE_COMMITTED(done) < HEAD_UNITS + units)
			return false;
	} while (!nxm_cas(&segment->done, &done, done - size));
	NXM_PAUSE("room taken");
	while ((uint32_t) SEG_LIFE(word) == life &&
		   (SEG_STATE(word) == SEG_OPEN || SEG_STATE(word) == SEG_SEALED))
	{
		/* pairs with claiming it: who does so from now on sees what is not committed */
		if (!nxm_cas(&segment->word, &word, word))
			continue;
		if (nxm_load_relaxed(&segment->cursor) != HEAD_UNITS)
			break;
		there = item_units(item_header(nxm_at(space, ref)));
		if (there < units)
			break;
		if (there > units)
			NXM_SET(*(uint32_t *) nxm_at(space, ref + units),
					(uint32_t) (((there - units) * NXM_REF_UNIT - sizeof(uint32_t)) << C_LEN_SHIFT));
		room->ref = ref;
		room->units = units;
		room->segment = segment;
		return true;
	}
	/* undone, if it has not been opened anew meanwhile */
	done = nxm_load(&segment->done);
	while (DONE_LIFE(done) == life &&
		   !nxm_cas(&segment->done, &done, done + size))
		;
	return false;
}

bool
nxm_cache_recycle(NxmSpace *space, NxmCachePartition *part, int kind, uint32_t scale,
				  uint64_t due, uint32_t units, NxmRoom *room)
{
	NxmFreeRoom *list = list_of(space, part);
	uint64_t	sort = sort_of(units, kind, scale);
	uint32_t	tried = 0;		/* of the list, by bits */
	int			tries = 0;

	while (tries < TRIES)
	{
		NxmFreeRoom *best = NULL;
		uint64_t	best_name = 0;
		uint32_t	there = units + units / SPARE_SHARE + 1;
		int			not_clear = 0;

		for (int i = 0; i < NXM_CACHE_ROOMS && there > units; i++)
		{
			uint64_t	name = nxm_load(&list[i].name);
			uint64_t	theirs = nxm_load_relaxed(&list[i].sort);

			if (name == 0 || name == ROOM_BUSY || (tried >> i & 1) != 0)
				continue;
			if ((name & ROOM_CLEAR) == 0)
				not_clear++;
			else if (((theirs ^ sort) & ~SORT_UNITS_MASK) == 0 &&
					 SORT_UNITS(theirs) >= units && SORT_UNITS(theirs) < there)
			{
				best = &list[i];
				best_name = name;
				there = SORT_UNITS(theirs);
			}
		}
		if (best != NULL && take(space, best, best_name, kind, scale, due, units, room))
			return true;
		if (best != NULL)
		{
			tries++;
			tried |= UINT32_C(1) << (best - list);
		}
		else if (tries == 0 && not_clear >= NXM_CACHE_ROOMS / 2)
		{
			/* so many at once, for it takes a look at each process */
			clear_rooms(space, list);
			tries++;
		}
		else
			break;
	}
	return false;
}
