/*
 * map_drain.c
 *	  Clearing and dropping a map: its body is cut off at once, and freed in
 *	  steps.  map.h has the design.
 *
 * A segment that was cut off has CUT for a successor, so that it can't grow, and
 * its buckets freeze as those of a growing one do; an operation that meets one
 * begins anew, in the body that the directory names by then.
 *
 * A housekeeper may be at work in the directory that is cut off, or be stopped
 * there.  It changes the entries of a segment one by one to its successors, by
 * CAS, the last one last.  A drain makes the last entry unchangeable first, and so
 * knows which it was: done, so that the segment is not to be found any more, or
 * not, and then the segment leads to its successors.
 *
 * Limits: a process that is stopped between its two stores in cut_off() keeps
 * others from clearing this map.  One that is stopped in a drain while the directory is
 * replaced exactly a multiple of 2^24 times would pass for one of the present body.
 */
#include "map_internal.h"

/* An index of more bytes has grown: this is more than the first one takes. */
#define GROWN_BYTES (16 * sizeof(NxmBucket))
/* Bytes that wait for the epoch, from which on nothing is cleared past the limit. */
#define MOST_WAITING (64 * NXM_PAGE_SIZE)

/* Puts another body, or none, in place of the present one.  mark: as nxm_map_clear_to(). */
static NxmResult
cut_off(NxmMap *map, uint64_t body, uint64_t mark)
{
	uint64_t	none = 0;
	uint64_t	directory;

	if (!nxm_cas(&map->dead, &none, CUTTING))
		return NXM_EXISTS;
	/*
	 * The directory first: whoever finds the old body being drained must find the
	 * new one in its place, or it would go round until we go on.
	 */
	directory = nxm_load(&map->directory);
	do
	{
		if ((directory & NXM_REF_MASK) == 0)
		{
			nxm_store(&map->dead, 0);
			return NXM_DROPPED;
		}
		/* release: publishes the new body.  A housekeeper may double the old one */
	} while (!nxm_cas(&map->directory, &directory,
					  ((directory & ~(SERIAL_ONE - 1)) + SERIAL_ONE) | body));
	/* relaxed: nobody else is here, and the store below publishes it */
	nxm_store_relaxed(&map->mark, mark);
	nxm_store(&map->dead, directory);
	return NXM_OK;
}

NxmResult
nxm_map_clear(NxmSpace *space, NxmMap *map, uint64_t *removed)
{
	return nxm_map_clear_to(space, map, NXM_MIN_LOG, 0, removed);
}

NxmResult
nxm_map_clear_to(NxmSpace *space, NxmMap *map, uint32_t log, uint64_t mark,
				 uint64_t *removed)
{
	bool		past_limit = space->past_limit;
	uint64_t	body;
	NxmResult	result;

	*removed = nxm_map_entries(map);
	if (nxm_load(&map->dead) != 0)
		return NXM_EXISTS;
	/*
	 * Not where it takes more than it gives back, nor while much waits for the epoch: then
	 * a loop would pass the limit without end.
	 */
	space->past_limit |= space->account == 0 &&
		(*removed != 0 || nxm_load_relaxed(&map->memory) > GROWN_BYTES) &&
		nxm_load_relaxed(&space->shared->account[0].limbo) < MOST_WAITING;
	body = nxm_map_new_body(space, map, log);
	space->past_limit = past_limit;
	if (body == 0)
		return nxm_no_object(space);
	result = cut_off(map, body, mark);
	if (result != NXM_OK)
		nxm_map_free_body(space, map, body);
	return result;
}

NxmResult
nxm_map_drop(NxmMap *map)
{
	return cut_off(map, 0, 0);
}

void
nxm_map_fini(NxmSpace *space, NxmMap *map)
{
	nxm_map_free_body(space, map, nxm_load_relaxed(&map->directory));
}

static NxmResult
item_prepare(NxmSpace *space, const NxmMapItems *items, NxmAtomic *slot,
			 uint64_t word)
{
	const NxmItem *item = nxm_at(space, word & NXM_REF_MASK);

	(void) items;
	(void) slot;
	return item != NULL && nxm_item_is_mapped(space, item) ? NXM_OK : NXM_NEED_CHUNK;
}

static void
item_removed(NxmSpace *space, const NxmMapItems *items, NxmMap *map, NxmRef ref)
{
	size_t		bytes = nxm_item_bytes(nxm_at(space, ref));

	(void) items;
	nxm_retire(space, ref);
	nxm_map_count(space, map, -1, -(int64_t) bytes);
}

/*
 * Takes all items out of a segment of a dead body and of its successors.  Any
 * number of processes may at once; an item is retired by whoever's CAS takes it
 * out.
 */
static NxmResult
drain_segment(NxmSpace *space, NxmMap *map, NxmSegment *seg,
			  const NxmMapItems *items)
{
	uint32_t	log = NXM_GET(seg->log);
	NxmPlace		place = {.seg = seg,.log = log};
	uint64_t	next = 0;

	if (!nxm_cas(&seg->next, &next, CUT) && next != CUT)
	{
		NxmSegment    *first;
		NxmResult	result = nxm_map_migrate_all(space, seg);

		if (result != NXM_OK)
			return result;
		first = nxm_at(space, next);
		if (first == NULL)
			return NXM_NEED_CHUNK;
		result = drain_segment(space, map, first, items);
		if (result == NXM_OK && NXM_GET(first->sibling) != 0)
		{
			NxmSegment    *second = nxm_at(space, NXM_GET(first->sibling));

			if (second == NULL)
				return NXM_NEED_CHUNK;
			result = drain_segment(space, map, second, items);
		}
		return result;
	}

	for (uint32_t b = 0; b < UINT32_C(1) << log; b++)
	{
		uint64_t	header;

		place.bucket = &seg->bucket[b];
		header = nxm_load(&place.bucket->header);
		for (;;)
		{
			if (!nxm_map_find_overflows(space, &place, header))
				return NXM_NEED_CHUNK;
			if ((header & H_STATUS) == H_FROZEN)
				break;
			if ((header & H_PENDING) != 0)
			{
				nxm_map_complete_pending(space, &place, header);
				header = nxm_load(&place.bucket->header);
			}
			else if (nxm_cas(&place.bucket->header, &header,
							 next_version((header & ~H_STATUS) | H_FROZEN)))
				header = next_version((header & ~H_STATUS) | H_FROZEN);
		}
		for (int i = 0; i < chain_slots(header); i++)
		{
			NxmAtomic  *slot = slot_at(&place, i);
			uint64_t	word = nxm_load(slot);

			while (word != FROZEN)
			{
				NxmRef		ref = (word & STATE_MASK) == OPEN ? word & NXM_REF_MASK : 0;
				NxmResult	prepared;

				if (ref != 0)
				{
					nxm_protect(space, ref);
					if (nxm_load(slot) != word)
					{
						word = nxm_load(slot);
						continue;
					}
					prepared = items->prepare(space, items, slot, word);
					if (prepared == NXM_EXISTS)
					{
						word = nxm_load(slot);
						continue;
					}
					if (prepared != NXM_OK)
						return prepared;
				}
				if (nxm_cas(slot, &word, FROZEN))
				{
					if (ref != 0)
						items->removed(space, items, map, ref);
					break;
				}
			}
		}
	}
	return NXM_OK;
}

/* Retires a drained segment with its successors. */
static void
retire_segments(NxmSpace *space, NxmMap *map, NxmRef ref)
{
	NxmSegment    *seg = nxm_at(space, ref);
	uint64_t	next = nxm_load(&seg->next);

	if (next != CUT)
	{
		NxmSegment    *first = nxm_at(space, next);
		NxmRef		sibling = NXM_GET(first->sibling);

		retire_segments(space, map, next);
		if (sibling != 0)
			retire_segments(space, map, sibling);
	}
	nxm_map_retire_segment(space, map, ref);
}

NxmResult
nxm_map_drain(NxmSpace *space, NxmMap *map)
{
	static const NxmMapItems items = {item_prepare, item_removed};

	return nxm_map_drain_items(space, map, &items);
}

NxmResult
nxm_map_drain_items(NxmSpace *space, NxmMap *map, const NxmMapItems *items)
{
	uint64_t	dead = nxm_load(&map->dead);
	uint32_t	depth = directory_depth(dead);
	uint64_t	serial = dead & ~(SERIAL_ONE - 1);
	uint64_t	i;

	/* cutting: it is for whoever does it to come here after */
	if (dead == 0 || dead == CUTTING)
		return NXM_ABSENT;
	if (!nxm_map_directory_is_mapped(space, dead) ||
		!nxm_can_retire(space, directory_pages(depth) + 1))
		return NXM_NEED_CHUNK;

	/*
	 * Of a body before it may say where here the middle of a segment is: a process that
	 * was held up may set it at any time.
	 */
	i = nxm_load_relaxed(&map->drained);
	i = (i & ~(SERIAL_ONE - 1)) == serial ? i & (SERIAL_ONE - 1) : 0;
	for (; i < UINT64_C(1) << depth; i++)
	{
		uint64_t	last = (UINT64_C(1) << depth) - 1 - i;
		NxmAtomic  *entry = directory_entry(space, dead, last);
		uint64_t	word = nxm_fetch_or(entry, ENTRY_DEAD) | ENTRY_DEAD;
		NxmSegment    *seg;
		uint64_t	n;
		NxmResult	result;

		if ((word & NXM_REF_MASK) == 0)
			continue;
		seg = nxm_at(space, word & NXM_REF_MASK);
		if (seg == NULL)
			return NXM_NEED_CHUNK;
		result = drain_segment(space, map, seg, items);
		if (result != NXM_OK)
			return result;
		n = UINT64_C(1) << (depth - NXM_GET(seg->depth));
		/* the others first, so that the last one decides */
		while (--n > 0)
			nxm_store(directory_entry(space, dead, last - n), ENTRY_DEAD);
		if (nxm_cas(entry, &word, ENTRY_DEAD))
			retire_segments(space, map, word & NXM_REF_MASK);
		nxm_store_relaxed(&map->drained, serial | i);
		return NXM_OK;
	}
	if (nxm_cas(&map->dead, &dead, 0))
		nxm_map_retire_directory(space, map, dead);
	return NXM_ABSENT;
}
