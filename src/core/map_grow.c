/*
 * map_grow.c
 *	  Growth of the map: segments, directories, migration, housekeeping.  map.h
 *	  has the design.
 *
 * The gate of a migration is the parent bucket's `migrated`: nobody works on the
 * two buckets that follow before it is set, for they are reached by way of the
 * parent until all of its buckets are.  So a helper that has protected an item
 * and then finds the gate shut may read the item.
 */
#include "map_internal.h"

static size_t
segment_size(uint32_t log)
{
	return sizeof(NxmSegment) + (sizeof(NxmBucket) << log) +
		sizeof(NxmOverflow) * (size_t) POOL_OF(log);
}

static void
count_memory(NxmSpace *space, NxmMap *map, NxmRef ref, uint64_t sign)
{
	uint64_t	bytes = sign * nxm_ref_size(space, ref);

	/* relaxed: sums */
	nxm_fetch_add_relaxed(&map->memory, bytes);
	nxm_fetch_add_relaxed(&map->uncounted, bytes);
}

NxmRef
nxm_map_alloc(NxmSpace *space, NxmMap *map, size_t size)
{
	NxmRef		ref = nxm_alloc(space, size);

	if (ref != 0)
		count_memory(space, map, ref, 1);
	return ref;
}

void
nxm_map_free(NxmSpace *space, NxmMap *map, NxmRef ref)
{
	count_memory(space, map, ref, UINT64_MAX);
	nxm_free(space, ref);
}

void
nxm_map_retire(NxmSpace *space, NxmMap *map, NxmRef ref)
{
	count_memory(space, map, ref, UINT64_MAX);
	nxm_retire_epoch(space, ref);
}

/* Entries are undefined.  0: nxm_no_object() tells why. */
static NxmRef
new_directory(NxmSpace *space, NxmMap *map, uint32_t depth)
{
	uint32_t	npages = directory_pages(depth);
	NxmRef		ref = nxm_map_alloc(space, map, npages == 0 ? sizeof(uint64_t) << depth :
									sizeof(uint64_t) * npages);
	uint64_t   *pages;

	if (ref == 0 || npages == 0)
		return ref;
	pages = nxm_at(space, ref);
	for (uint32_t i = 0; i < npages; i++)
	{
		NxmRef		page = nxm_map_alloc(space, map, NXM_PAGE_SIZE);

		if (page == 0)
		{
			while (i > 0)
				nxm_map_free(space, map, pages[--i]);
			nxm_map_free(space, map, ref);
			return 0;
		}
		NXM_SET(pages[i], page);
	}
	return ref;
}

void
nxm_map_retire_directory(NxmSpace *space, NxmMap *map, uint64_t directory)
{
	NxmRef		ref = directory & NXM_REF_MASK;
	uint64_t   *pages = nxm_at(space, ref);

	for (uint32_t i = 0; i < directory_pages(directory_depth(directory)); i++)
		nxm_map_retire(space, map, NXM_GET(pages[i]));
	nxm_map_retire(space, map, ref);
}

static NxmRef
new_segment(NxmSpace *space, NxmMap *map, uint32_t log, uint32_t depth, uint64_t prefix)
{
	NxmRef		ref = nxm_map_alloc(space, map, segment_size(log));
	NxmSegment    *seg;

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
new_open_segment(NxmSpace *space, NxmMap *map, uint32_t log)
{
	NxmRef		ref = new_segment(space, map, log, 0, 0);
	NxmSegment    *seg;

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

uint64_t
nxm_map_new_body(NxmSpace *space, NxmMap *map, uint32_t log)
{
	NxmRef		seg = new_open_segment(space, map, log);
	NxmRef		directory;

	if (seg == 0)
		return 0;
	directory = new_directory(space, map, 0);
	if (directory == 0)
	{
		nxm_map_free(space, map, seg);
		return 0;
	}
	nxm_init((NxmAtomic *) nxm_at(space, directory),
			 entry_for(seg, log, 0));
	return directory;
}

void
nxm_map_free_body(NxmSpace *space, NxmMap *map, uint64_t body)
{
	NxmAtomic  *entry = nxm_at(space, body);

	nxm_map_free(space, map, nxm_load_relaxed(entry) & NXM_REF_MASK);
	nxm_map_free(space, map, body);
}

/*
 * Sees to it that a committed insert is LIVE and nothing pending.  Replaces the
 * hazard.  The header may be another one afterwards in any way.
 */
void
nxm_map_complete_pending(NxmSpace *space, const NxmPlace *place, uint64_t header)
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

/*
 * Fills a bucket of a successor from UNINIT, each word into the line it prefers
 * while there is room; overflow: for the 32nd and on.  Everybody who fills it has
 * the same words in the same order, and so puts them into the same slots.
 */
static void
fill(NxmBucket *bucket, NxmOverflow *overflow, const uint64_t *words, int n)
{
	uint64_t	chain[CHAIN_SLOTS];
	uint64_t	rest[CHAIN_SLOTS];
	int			nrest = 0;
	int			at[NXM_BUCKET_LINES];
	int			slots = n > NXM_BUCKET_SLOTS ? CHAIN_SLOTS : NXM_BUCKET_SLOTS;

	for (int i = 0; i < slots; i++)
		chain[i] = EMPTY;
	for (int line = 0; line < NXM_BUCKET_LINES; line++)
		at[line] = LINE_BEGIN(line);
	for (int i = 0; i < n; i++)
	{
		int			line = preferred_line(words[i]);

		if (at[line] < LINE_END(line))
			chain[at[line]++] = words[i];
		else
			rest[nrest++] = words[i];
	}
	for (int i = 0; nrest > 0; i++)
	{
		if (chain[i] == EMPTY)
			chain[i] = rest[--nrest];
	}

	for (int i = 0; i < slots; i++)
	{
		NxmAtomic  *slot = i < NXM_BUCKET_SLOTS ? &bucket->slot[i] :
			&overflow->slot[i - NXM_BUCKET_SLOTS];
		uint64_t	uninit = 0;

		(void) nxm_cas(slot, &uninit, chain[i]);
	}
}

/*
 * Migrates bucket b of a segment with a successor.  Any number of processes may
 * at once.  NXM_OK: it has migrated.
 */
NxmResult
nxm_map_migrate(NxmSpace *space, NxmSegment *seg, uint32_t b)
{
	uint32_t	log = NXM_GET(seg->log);
	uint32_t	depth = NXM_GET(seg->depth);
	NxmPlace		place = {.bucket = &seg->bucket[b],.overflow = overflows_of(seg, log)};
	uint64_t	header = nxm_load(&place.bucket->header);
	uint64_t	next = nxm_load(&seg->next);
	NxmSegment    *target;
	NxmBucket     *to;
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
			nxm_map_complete_pending(space, &place, header);
			header = nxm_load(&place.bucket->header);
		}
		else if (nxm_cas(&place.bucket->header, &header,
						 next_version((header & ~H_STATUS) | H_FROZEN)))
		{
			header = next_version((header & ~H_STATUS) | H_FROZEN);
			break;
		}
	}

	NXM_PAUSE("migrate");
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
		if (bit + 1 > FIRST_TAG_BIT)
			side = (int) (word >> (NXM_REF_BITS + FIRST_TAG_BIT + TAG_BITS - 1 - bit)) & 1;
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

	NXM_PAUSE("fill");
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

NxmResult
nxm_map_migrate_all(NxmSpace *space, NxmSegment *seg)
{
	uint32_t	n = UINT32_C(1) << NXM_GET(seg->log);

	for (uint32_t b = 0; b < n; b++)
	{
		NxmResult	result = nxm_map_migrate(space, seg, b);

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

/* Gives a segment successors, if it has none. */
static NxmResult
grow(NxmSpace *space, NxmMap *map, NxmSegment *seg)
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
		space->want = NXM_WANT_NOTHING;
		return NXM_NEED_MEMORY;
	}
	if (log < NXM_MAX_LOG)
		first = new_segment(space, map, log + 1, depth, prefix);
	else
	{
		first = new_segment(space, map, log, depth + 1, prefix);
		if (first != 0)
		{
			second = new_segment(space, map, log, depth + 1,
								 prefix | UINT64_C(1) << (63 - depth));
			if (second == 0)
			{
				nxm_map_free(space, map, first);
				first = 0;
			}
			else
				NXM_SET(((NxmSegment *) nxm_at(space, first))->sibling, second);
		}
	}
	if (first == 0)
		return nxm_no_object(space);
	if (!nxm_cas(&seg->next, &none, first))
	{
		nxm_map_free(space, map, first);
		if (second != 0)
			nxm_map_free(space, map, second);
	}
	return NXM_OK;
}

/* Frees a directory that nobody has seen. */
static void
free_directory(NxmSpace *space, NxmMap *map, uint64_t directory)
{
	NxmRef		ref = directory & NXM_REF_MASK;
	uint64_t   *pages = nxm_at(space, ref);

	for (uint32_t i = 0; i < directory_pages(directory_depth(directory)); i++)
		nxm_map_free(space, map, NXM_GET(pages[i]));
	nxm_map_free(space, map, ref);
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
	ref = new_directory(space, map, depth + 1);
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
	/* release: publishes the entries.  Fails if the body was cut off */
	if (!nxm_cas(&map->directory, &directory, doubled))
	{
		free_directory(space, map, doubled);
		return false;
	}
	nxm_map_retire_directory(space, map, directory);
	return true;
}

bool
nxm_map_directory_is_mapped(NxmSpace *space, uint64_t directory)
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
 * Puts the successors of a segment, first and perhaps a second one, into its
 * place in the directory.  true: all of its entries are changed, and whoever did
 * it retires the segment.  false: the body is being drained.
 *
 * Drains begin with the last entry, which is changed last here: as long as it
 * names the segment, a drain finds its successors through it.
 */
static bool
replace_in_directory(NxmSpace *space, uint64_t directory, NxmRef ref,
					 NxmSegment *seg, NxmRef first, NxmRef second)
{
	uint32_t	depth = directory_depth(directory);
	uint64_t	from = first_bits(NXM_GET(seg->prefix), depth);
	uint64_t	n = UINT64_C(1) << (depth - NXM_GET(seg->depth));
	NxmSegment *successor = nxm_at(space, first);

	for (uint64_t i = 0; i < n; i++)
	{
		uint64_t	old = entry_for(ref, NXM_GET(seg->log), NXM_GET(seg->depth));
		uint64_t	new = entry_for(second != 0 && i >= n / 2 ? second : first,
									NXM_GET(successor->log),
									NXM_GET(successor->depth));

		/* release: publishes the successor to who has not come by way of seg */
		if (!nxm_cas(directory_entry(space, directory, from + i), &old, new))
			return false;
	}
	return true;
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
	NXM_PAUSE("keep house");
	for (;;)
	{
		uint64_t	directory = nxm_load(&map->directory);
		uint32_t	depth = directory_depth(directory);
		NxmAtomic  *entry;
		NxmRef		ref;
		NxmSegment    *seg;
		NxmSegment    *first;
		NxmRef		next;
		NxmRef		sibling;

		if ((directory & NXM_REF_MASK) == 0 ||
			!nxm_map_directory_is_mapped(space, directory))
			break;
		entry = directory_entry(space, directory, first_bits(position, depth));
		ref = nxm_load(entry) & NXM_REF_MASK;
		/* cut off, and drained already */
		if (ref == 0)
			break;
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
		if (!replace_in_directory(space, directory, ref, seg, next, sibling))
			break;
		nxm_map_retire(space, map, ref);
	}
	nxm_store(&map->housekeeper, 0);
}

/* What a writer does for a growth that it met. */
void
nxm_map_help_growth(NxmSpace *space, NxmMap *map, NxmSegment *seg, uint64_t position)
{
	uint32_t	n = UINT32_C(1) << NXM_GET(seg->log);

	for (int i = 0; i < HELP && !has_migrated(seg); i++)
	{
		uint64_t	b = nxm_load_relaxed(&seg->cursor);

		/* all were begun, perhaps by somebody who is stopped now: anew */
		b = b < 2 * n ? nxm_fetch_add_relaxed(&seg->cursor, 1) : b;
		if (b >= 2 * n)
		{
			(void) nxm_map_migrate_all(space, seg);
			break;
		}
		if (nxm_map_migrate(space, seg, (uint32_t) b & (n - 1)) != NXM_OK)
			return;
	}
	if (has_migrated(seg))
		keep_house(space, map, position);
}

/* Are all keys of a full chain of one hash, as far as tags tell? */
static bool
is_one_hash(const NxmPlace *place)
{
	uint64_t	tag = nxm_load_relaxed(slot_at(place, place->header, 0)) & TAG_MASK;

	for (int i = 1; i < chain_slots(place->header); i++)
	{
		uint64_t	word = nxm_load_relaxed(slot_at(place, place->header, i));

		if ((word & TAG_MASK) != tag || (word & NXM_REF_MASK) == 0)
			return false;
	}
	return (place->header & H_OVERFLOW) != 0;
}

/* Lets the bucket of a place grow. */
static NxmResult
split(NxmSpace *space, NxmMap *map, const NxmPlace *place)
{
	NxmResult	result;

	/* no number of buckets would part them */
	if (is_one_hash(place))
	{
		space->need_chunk = -1;
		space->want = NXM_WANT_NOTHING;
		return NXM_NEED_MEMORY;
	}
	result = grow(space, map, place->seg);

	/* cut off: the position is in another body by now */
	if (result != NXM_OK || nxm_load(&place->seg->next) == CUT)
		return result;
	return nxm_map_migrate(space, place->seg,
				   (uint32_t) (place->bucket - place->seg->bucket));
}

/*
 * Makes room in a full chain: an overflow bucket, or successors.  NXM_OK: look
 * again.
 */
NxmResult
nxm_map_make_room(NxmSpace *space, NxmMap *map, const NxmPlace *place, uint64_t position)
{
	uint64_t	pool;
	uint64_t	header = place->header;
	NxmOverflow   *overflow;
	int			i;

	/*
	 * Until the parent has migrated, overflow buckets are for its chains, and
	 * there must be no successors: their helpers would freeze buckets that the
	 * parent has yet to fill.
	 */
	if (place->parent != NULL && !has_migrated(place->parent))
	{
		NxmResult	result = nxm_map_migrate_all(space, place->parent);

		if (result == NXM_OK)
			keep_house(space, map, position);
		return result;
	}
	if ((header & H_OVERFLOW) != 0)
		return split(space, map, place);
	pool = nxm_load(&place->seg->pool);
	do
	{
		i = __builtin_ctzll(~pool);
		if (pool == UINT64_MAX || i >= POOL_OF(place->log))
			return split(space, map, place);
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
