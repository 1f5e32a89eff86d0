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

NxmRef
nxm_map_alloc(NxmSpace *space, NxmMap *map, size_t size)
{
	uint64_t	bytes = nxm_object_size(size);
	NxmRef		ref;

	if (space->counted != NULL && !nxm_take_bytes(space->counted, bytes, space->most))
	{
		(void) nxm_limit_reached(space);
		return 0;
	}
	ref = nxm_alloc(space, size);
	/* relaxed, here and below: sums */
	if (ref != 0)
	{
		nxm_fetch_add_relaxed(&map->memory, bytes);
		space->index_bytes += bytes;
	}
	else if (space->counted != NULL)
		nxm_fetch_add_relaxed(space->counted, -bytes);
	return ref;
}

static void
count_out(NxmSpace *space, NxmMap *map, uint64_t bytes)
{
	nxm_fetch_add_relaxed(&map->memory, -bytes);
	if (space->counted != NULL)
		nxm_fetch_add_relaxed(space->counted, -bytes);
}

void
nxm_map_free(NxmSpace *space, NxmMap *map, NxmRef ref)
{
	count_out(space, map, nxm_ref_size(space, ref));
	nxm_free(space, ref);
}

void
nxm_map_retire(NxmSpace *space, NxmMap *map, NxmRef ref)
{
	count_out(space, map, nxm_ref_size(space, ref));
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
new_segment(NxmSpace *space, NxmMap *map, uint32_t log, uint32_t depth, uint32_t prefix)
{
	NxmRef		ref = nxm_map_alloc(space, map, segment_size(log));
	NxmSegment    *seg;

	if (ref == 0)
		return 0;
	seg = nxm_at(space, ref);
	NXM_WRITES(seg, segment_size(log));
	memset((void *) seg, 0, segment_size(log));	/* all slots UNINIT */
	seg->log = (uint16_t) log;
	seg->depth = (uint16_t) depth;
	seg->prefix = prefix;
	return ref;
}

/*
 * Retires a segment that can't be found any more, with its extents.  Who looks at a
 * chain of it still finds these by the words here, which are closed to more of them.
 */
void
nxm_map_retire_segment(NxmSpace *space, NxmMap *map, NxmRef ref)
{
	NxmSegment *seg = nxm_at(space, ref);

	for (int i = 0; i < NXM_EXTENTS; i++)
	{
		/* pairs with the CAS of add_extent(): it fails, or we see its extent */
		uint64_t	extent = nxm_fetch_or(&seg->extent[i], EXTENT_CLOSED);

		if ((extent & NXM_REF_MASK) != 0)
		{
			/* its chunk need not be mapped here, so its size is not asked for */
			count_out(space, map, nxm_object_size(EXTENT_BYTES));
			nxm_retire_epoch(space, extent & NXM_REF_MASK);
		}
	}
	nxm_map_retire(space, map, ref);
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

/* The overflow bucket of a number of a segment; NULL: a chunk is not mapped. */
static NxmOverflow *
overflow_at(NxmSpace *space, NxmSegment *seg, uint32_t log, int number)
{
	NxmOverflow *extent;

	if (number < POOL_OF(log))
		return overflows_of(seg, log) + number;
	number -= POOL_OF(log);
	/* set before the number was given out */
	extent = nxm_at(space, nxm_load(&seg->extent[number / NXM_EXTENT_OVERFLOWS]) &
					NXM_REF_MASK);
	return extent == NULL ? NULL : extent + number % NXM_EXTENT_OVERFLOWS;
}

/* For nxm_map_find_overflows(): the overflow buckets that header names. */
bool
nxm_map_find_overflows_slow(NxmSpace *space, NxmPlace *place, uint64_t header)
{
	for (int i = 0; i < chain_overflows(header); i++)
	{
		place->overflow[i] = overflow_at(space, place->seg, place->log,
										 overflow_number(header, i));
		if (place->overflow[i] == NULL)
			return false;
		__builtin_prefetch((const void *) place->overflow[i]);
	}
	return true;
}

/*
 * Sees to it that a committed insert is LIVE and nothing pending.  Replaces the
 * hazard.  The header may be another one afterwards in any way.
 */
void
nxm_map_complete_pending(NxmSpace *space, const NxmPlace *place, uint64_t header)
{
	NxmAtomic  *slot = slot_at(place, pending_slot(header));
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
	uint64_t	chain[FILLED_SLOTS];
	uint64_t	rest[FILLED_SLOTS];
	int			nrest = 0;
	int			at[NXM_BUCKET_LINES];
	int			slots = n > NXM_BUCKET_SLOTS ? FILLED_SLOTS : NXM_BUCKET_SLOTS;

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
	NxmPlace		place = {.seg = seg,.bucket = &seg->bucket[b],.log = log};
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
		NxmAtomic  *slot = slot_at(&place, i);
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
			side = side_of(word, bit);
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
	/* one of the target's own, or no side has as many, see nxm_map_side_is_full() */
	overflow = overflow_number(header, 0);
	for (int side = 0; side < 2; side++)
	{
		if (n[side] > NXM_BUCKET_SLOTS)
			nxm_fetch_or(&target->pool, UINT64_C(1) << overflow);
		fill(&to[side],
			 n[side] <= NXM_BUCKET_SLOTS ? NULL :
			 overflows_of(target, NXM_GET(target->log)) + overflow,
			 words[side], n[side]);
	}
	for (int side = 0; side < 2; side++)
	{
		uint64_t	uninit = H_UNINIT;

		(void) nxm_cas(&to[side].header, &uninit, H_OPEN | H_VERSION_ONE |
					   (n[side] > NXM_BUCKET_SLOTS ?
						(uint64_t) (overflow + 1) << H_OVERFLOW_SHIFT : 0));
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
	uint32_t	prefix = NXM_GET(seg->prefix);
	uint64_t	none = 0;
	NxmRef		first;
	NxmRef		second = 0;

	if (nxm_load(&seg->next) != 0)
		return NXM_OK;
	if (depth + log >= MAX_BUCKET_DEPTH)
	{
		return nxm_is_full(space);
	}
	if (log < NXM_MAX_LOG)
		first = new_segment(space, map, log + 1, depth, prefix);
	else
	{
		first = new_segment(space, map, log, depth + 1, prefix);
		if (first != 0)
		{
			second = new_segment(space, map, log, depth + 1,
								 prefix | UINT32_C(1) << (31 - depth));
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

/*
 * Would there be memory for a directory of several pages, as far as is known?  Else each
 * write that wants it doubled would take what there is, and give it back.
 */
static bool
has_memory(NxmSpace *space, uint64_t npages)
{
	NxmAccount *account = &space->shared->account[space->account];
	uint32_t	node = space->alloc_node < 0 ? space->local->node : (uint32_t) space->alloc_node;

	/* relaxed, both: a hint */
	if (space->counted != NULL && space->most != UINT64_MAX &&
		nxm_load_relaxed(space->counted) + (npages + 1) * NXM_PAGE_SIZE > space->most)
		return false;
	/* one for the object that names them; what is kept is counted already */
	return space->past_limit ||
		nxm_load_relaxed(&account->pages) + npages + 1 <=
		nxm_load_relaxed(&account->page_limit) +
		nxm_load_relaxed(&space->shared->nodes[node].nkept);
}

/* The same of a directory.  If not, notes that it is wanted. */
static bool
directory_fits(NxmSpace *space, NxmMap *map, uint32_t depth)
{
	uint32_t	npages = directory_pages(depth);

	if (depth > MAX_DEPTH)
		return false;
	if (npages <= 1 || has_memory(space, npages))
		return true;
	/* not again, in the line that all readers load.  Relaxed: a hint */
	if (nxm_load_relaxed(&map->wanted) != depth)
		nxm_store_relaxed(&map->wanted, depth);
	return false;
}

uint32_t
nxm_map_pages_wanted(NxmMap *map)
{
	/* relaxed, both: a hint */
	uint32_t	depth = (uint32_t) nxm_load_relaxed(&map->wanted);

	return depth != 0 && depth == directory_depth(nxm_load_relaxed(&map->directory)) + 1 ?
		directory_pages(depth) + 1 : 0;
}

/* Doubles the directory.  The housekeeper. */
static bool
double_directory(NxmSpace *space, NxmMap *map, uint64_t directory)
{
	uint32_t	depth = directory_depth(directory);
	NxmRef		ref;
	uint64_t	doubled;

	if (!directory_fits(space, map, depth + 1))
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
	uint64_t	from = first_bits((uint64_t) NXM_GET(seg->prefix) << 32, depth);
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

/* A segment that has migrated, and what is to be put in its place. */
typedef struct Migrated
{
	uint64_t	directory;
	NxmRef		ref;
	NxmSegment *seg;
	NxmRef		first;
	NxmRef		second;			/* or 0 */
	bool		doubles;		/* the directory has one entry for both */
} Migrated;

/* What there is at a position.  false: nothing, or something is not mapped. */
static bool
find_migrated(NxmSpace *space, NxmMap *map, uint64_t position, Migrated *found)
{
	uint64_t	directory = nxm_load(&map->directory);
	uint32_t	depth = directory_depth(directory);
	NxmSegment *first;

	if ((directory & NXM_REF_MASK) == 0 ||
		!nxm_map_directory_is_mapped(space, directory))
		return false;
	found->directory = directory;
	found->ref = nxm_load(directory_entry(space, directory, first_bits(position, depth))) &
		NXM_REF_MASK;
	/* cut off, and drained already */
	if (found->ref == 0)
		return false;
	found->seg = nxm_at(space, found->ref);
	if (found->seg == NULL)
		return false;
	found->first = nxm_load(&found->seg->next);
	if (found->first == 0 || found->first == CUT || !has_migrated(found->seg))
		return false;
	first = nxm_at(space, found->first);
	if (first == NULL)
		return false;
	found->second = NXM_GET(first->sibling);
	found->doubles = found->second != 0 && NXM_GET(found->seg->depth) == depth;
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
	Migrated	found;

	if (nxm_load_relaxed(&map->housekeeper) != 0)
		return;
	/* each write comes here while there is no memory: not to the line that readers load */
	if (!find_migrated(space, map, position, &found) ||
		(found.doubles && !directory_fits(space, map, directory_depth(found.directory) + 1)))
		return;
	if (!nxm_cas(&map->housekeeper, &nobody, (uint64_t) space->proc + 1))
		return;
	NXM_PAUSE("keep house");
	while (find_migrated(space, map, position, &found) &&
		   nxm_can_retire(space, directory_pages(directory_depth(found.directory)) + 1))
	{
		if (found.doubles)
		{
			if (!double_directory(space, map, found.directory))
				break;
			continue;
		}
		if (!replace_in_directory(space, found.directory, found.ref, found.seg,
								  found.first, found.second))
			break;
		nxm_map_retire_segment(space, map, found.ref);
	}
	nxm_store(&map->housekeeper, 0);
}

static void
help_growth(NxmSpace *space, NxmMap *map, NxmSegment *seg, uint64_t position)
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

/* What a writer does for a growth that it met. */
void
nxm_map_help_growth(NxmSpace *space, NxmMap *map, NxmSegment *seg, uint64_t position)
{
	int			need_chunk = space->need_chunk;
	NxmWant		want = space->want;

	help_growth(space, map, seg, position);
	/* what the write itself is in need of, and not its help */
	space->need_chunk = need_chunk;
	space->want = want;
}

/* Are all keys of a chain of one hash, as far as tags tell, and as many as may be? */
static bool
is_one_hash(const NxmPlace *place)
{
	uint64_t	tag = 0;
	int			n = 0;

	for (int i = 0; i < chain_slots(place->header); i++)
	{
		uint64_t	word = nxm_load_relaxed(slot_at(place, i));

		if ((word & NXM_REF_MASK) == 0)
			continue;
		if (n++ == 0)
			tag = word & TAG_MASK;
		else if ((word & TAG_MASK) != tag)
			return false;
	}
	return n >= FILLED_SLOTS;
}

/* Lets the bucket of a place grow. */
static NxmResult
split(NxmSpace *space, NxmMap *map, const NxmPlace *place)
{
	NxmResult	result;

	/* no number of buckets would part them */
	if (is_one_hash(place))
	{
		return nxm_is_full(space);
	}
	result = grow(space, map, place->seg);

	/* cut off: the position is in another body by now */
	if (result != NXM_OK || nxm_load(&place->seg->next) == CUT)
		return result;
	return nxm_map_migrate(space, place->seg,
				   (uint32_t) (place->bucket - place->seg->bucket));
}

/*
 * What migrate() relies on: a successor is to have no more entries than a bucket has
 * slots, or one overflow bucket's more, if the first one of the chain has a number
 * that all segments have.  So it is in a chain without others.  In one that has them an
 * insert looks at the entries that there are: while its bucket's header stays the same,
 * and else it fails, no other comes.
 */
bool
nxm_map_side_is_full(const NxmPlace *place, uint64_t tag)
{
	bool		has_own = overflow_number(place->header, 0) < POOL_OF(place->log);
	uint32_t	bit = place->depth + place->log;
	int			side;
	/* so many slots of others, or of nobody, show that it is not */
	int			others = chain_slots(place->header) + 1 -
		(has_own ? FILLED_SLOTS : NXM_BUCKET_SLOTS);
	NxmAtomic  *words = place->bucket->slot;
	int			n = NXM_BUCKET_SLOTS;

	if (others <= 1)
		return false;
	side = side_of(tag, bit);
	for (int part = 0;; part++)
	{
		for (int i = 0; i < n; i++)
		{
			uint64_t	word = nxm_load_relaxed(&words[i]);

			if (((word & NXM_REF_MASK) == 0 || side_of(word, bit) != side) && --others == 0)
				return false;
		}
		if (part == chain_overflows(place->header))
			return true;
		words = place->overflow[part]->slot;
		n = NXM_OVERFLOW_SLOTS;
	}
}

/* Overflow buckets that a segment has with its extents. */
static int
pool_size(NxmSegment *seg, uint32_t log)
{
	int			size = POOL_OF(log);

	/* acquire: of an extent that is here overflow buckets may be given out */
	for (int i = 0; i < NXM_EXTENTS && (nxm_load(&seg->extent[i]) & NXM_REF_MASK) != 0; i++)
		size += NXM_EXTENT_OVERFLOWS;
	return size;
}

bool
nxm_map_is_crowded(const NxmPlace *place, uint64_t tag)
{
	return chain_overflows(place->header) == NXM_CHAIN_OVERFLOWS ||
		nxm_map_side_is_full(place, tag) ||
		__builtin_popcountll(nxm_load_relaxed(&place->seg->pool)) >=
		pool_size(place->seg, place->log);
}

int
nxm_map_percent_used(NxmSpace *space, const NxmPlace *place)
{
	uint32_t	nbuckets = UINT32_C(1) << place->log;
	int			size = pool_size(place->seg, place->log);
	uint64_t	pool = nxm_load(&place->seg->pool);
	uint32_t	used = 0;

	for (uint32_t b = 0; b < nbuckets; b++)
		for (int i = 0; i < NXM_BUCKET_SLOTS; i++)
			used += nxm_load_relaxed(&place->seg->bucket[b].slot[i]) != EMPTY;
	for (int number = 0; number < size; number++)
	{
		NxmOverflow *overflow = (pool >> number & 1) == 0 ? NULL :
			overflow_at(space, place->seg, place->log, number);

		for (int i = 0; overflow != NULL && i < NXM_OVERFLOW_SLOTS; i++)
			used += nxm_load_relaxed(&overflow->slot[i]) != EMPTY;
	}
	return (int) (used * 100 / (nbuckets * NXM_BUCKET_SLOTS +
								(uint32_t) size * NXM_OVERFLOW_SLOTS));
}

/* Gives a segment an extent, if it has none with this number. */
static NxmResult
add_extent(NxmSpace *space, NxmMap *map, NxmSegment *seg, int number)
{
	uint64_t	none = 0;
	NxmRef		ref;

	if (nxm_load(&seg->extent[number]) != 0)
		return NXM_OK;
	ref = nxm_map_alloc(space, map, EXTENT_BYTES);
	if (ref == 0)
		return nxm_no_object(space);
	/* release: who finds it may write to it */
	if (!nxm_cas(&seg->extent[number], &none, ref))
		nxm_map_free(space, map, ref);
	return NXM_OK;
}

NxmResult
nxm_map_make_room(NxmSpace *space, NxmMap *map, const NxmPlace *place, uint64_t position,
				  bool dense)
{
	uint64_t	pool;
	uint64_t	header = place->header;
	int			noverflows = chain_overflows(header);
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
	if (noverflows == (dense ? NXM_CHAIN_OVERFLOWS : 1) ||
		(noverflows > 0 && nxm_map_side_is_full(place, tag_of(position))))
		return split(space, map, place);
	pool = nxm_load(&place->seg->pool);
	do
	{
		i = __builtin_ctzll(~pool);
		if (pool == UINT64_MAX ||
			i >= (dense ? MOST_OVERFLOWS(place->log) : POOL_OF(place->log)))
			return split(space, map, place);
		if (i >= pool_size(place->seg, place->log))
		{
			NxmResult	result = add_extent(space, map, place->seg,
											(i - POOL_OF(place->log)) / NXM_EXTENT_OVERFLOWS);

			/* closed: the segment has migrated */
			if (result == NXM_OK && i >= pool_size(place->seg, place->log))
				return split(space, map, place);
			if (result != NXM_OK)
				return result;
		}
	} while (!nxm_cas(&place->seg->pool, &pool, pool | UINT64_C(1) << i));

	overflow = overflow_at(space, place->seg, place->log, i);
	for (int s = 0; overflow != NULL && s < NXM_OVERFLOW_SLOTS; s++)
		nxm_store_relaxed(&overflow->slot[s], EMPTY);
	/* release: publishes the empty slots */
	if (overflow == NULL ||
		!nxm_cas(&place->bucket->header, &header,
				 next_version(header) |
				 (uint64_t) (i + 1) << (H_OVERFLOW_SHIFT + noverflows * H_OVERFLOW_BITS)))
		nxm_fetch_and(&place->seg->pool, ~(UINT64_C(1) << i));
	return overflow == NULL ? NXM_NEED_CHUNK : NXM_OK;
}
