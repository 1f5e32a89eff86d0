/*
 * cache_ghost.c
 *	  The ghosts: which keys were evicted of late, from small segments and from main.
 *
 * A table of lines of 32 entries; a key's line and fingerprint are of bits of its
 * mixed hash.
 *
 *	entry	15      12 11            0
 *			+---------+--------------+
 *			|  time   | fingerprint  |	fingerprint 0: none
 *			+---------+--------------+
 *
 * Time is the number of evictions, in twelfths of the entries that the ghost has,
 * modulo 16.  An entry goes where there is none, or in place of the line's oldest;
 * entries older than 12 are as good as none, and cleared by who meets them, before
 * time comes round and they look young.  The ghost of main has 2 bits of time, of
 * whose 4 values entries are good for 2, and 14 of fingerprint: a key taken for one
 * that main has lost counts for more there, where fewer are.  Taking an entry is a CAS to 0, so that one
 * of several inserts of the key takes it.
 *
 * Up to a page the table is one object, then an object with the references of its
 * pages.  That of small has entries for fifteen of sixteen of the partition's, that of
 * main for a tenth; when that has changed by a quarter another table, empty, takes its
 * place.  So it is while the cache fills for the first time, when nothing has been
 * evicted, and seldom later.  It is retired by the epoch.  2.1 bytes an entry of the
 * partition; one in 130 keys that were not evicted is taken for
 * one that was, which costs a place in main.
 *
 * Orders.  An entry is no more than a hint; it is read relaxed, and written by CAS.
 */
#include "cache_internal.h"

#define LINE_BYTES			64
#define LINE_ENTRIES		32
#define PAGE_LINES			(NXM_PAGE_SIZE / LINE_BYTES)
#ifndef NXM_GHOST_MIN_LINES
#define NXM_GHOST_MIN_LINES	2
#endif
#define MAX_LINES			(UINT64_C(2048) * PAGE_LINES)
/* Times that an entry is good for, of the 2^bits that are told apart. */
#define GOOD_TIMES(ghost)	((ghost)->time_bits == 4 ? UINT64_C(12) : UINT64_C(2))
/* Bits of its fingerprint. */
#define PRINT_BITS(ghost)	(16 - (ghost)->time_bits)
/*
 * The ghost of small lacks entries for one in so many of the partition's: on traces
 * nothing is lost by that, and 0.3 points of hits where it is one in eight.
 */
#define SMALL_LACKS			16
/* The ghost of main has entries for one in so many. */
#define MAIN_SHARE			10

#define GHOST_LINES(g)		((g) >> NXM_REF_BITS)
#define GHOST_REF(g)		((g) & NXM_REF_MASK)
/* There is none, and there will be none. */
#define GHOST_CLOSED		(UINT64_C(1) << 63)

static inline uint64_t
mix(uint64_t hash)
{
	hash ^= hash >> 32;
	return hash * UINT64_C(0xD6E8FEB86659FD93);
}

static inline uint64_t
print_of(const NxmGhost *ghost, uint64_t mixed)
{
	uint64_t	print = mixed & ((UINT64_C(1) << PRINT_BITS(ghost)) - 1);

	return print == 0 ? 1 : print;
}

/* NULL: there is no ghost, or it is not mapped. */
static NxmAtomic *
line_at(NxmSpace *space, uint64_t ghost, uint64_t mixed)
{
	NxmRef		ref = GHOST_REF(ghost);
	uint64_t	line;
	char	   *at;

	if (ref == 0)
		return NULL;
	line = (mixed >> 32) * GHOST_LINES(ghost) >> 32;
	at = nxm_at(space, ref);
	if (at != NULL && GHOST_LINES(ghost) > PAGE_LINES)
	{
		at = nxm_at(space, NXM_GET(((uint64_t *) at)[line / PAGE_LINES]));
		line %= PAGE_LINES;
	}
	return at == NULL ? NULL : (NxmAtomic *) (at + line * LINE_BYTES);
}

static inline uint64_t
time_of(NxmGhost *ghost, uint64_t table)
{
	uint64_t	unit = GHOST_LINES(table) * LINE_ENTRIES / GOOD_TIMES(ghost);

	return nxm_load_relaxed(&ghost->count) / (unit == 0 ? 1 : unit) &
		((UINT64_C(1) << ghost->time_bits) - 1);
}

static inline uint64_t
age_of(const NxmGhost *ghost, uint64_t entry, uint64_t time)
{
	return (time - (entry >> PRINT_BITS(ghost))) &
		((UINT64_C(1) << ghost->time_bits) - 1);
}

void
nxm_ghost_add(NxmSpace *space, NxmGhost *ghost, uint64_t hash)
{
	uint64_t	mixed = mix(hash);
	uint64_t	table = nxm_load(&ghost->table);
	NxmAtomic  *line = line_at(space, table, mixed);
	uint64_t	time;

	if (line == NULL)
		return;
	nxm_fetch_add_relaxed(&ghost->count, 1);
	time = time_of(ghost, table);
	/* it is lost, as others are, where so many write to the line */
	for (int tries = 0; tries < 4; tries++)
	{
		int			lane = 0;
		uint64_t	oldest = 0;
		uint64_t	word;
		int			shift;

		for (int i = 0; i < LINE_ENTRIES; i++)
		{
			uint64_t	entry = nxm_load_relaxed(&line[i / 4]) >> (i % 4 * 16) & 0xFFFF;
			uint64_t	age = entry == 0 ? 16 : age_of(ghost, entry, time);

			/* an empty one is older than any */
			if (age > oldest)
			{
				oldest = age;
				lane = i;
			}
			if (age > GOOD_TIMES(ghost) && age < 16)
			{
				word = nxm_load_relaxed(&line[i / 4]);
				if ((word >> (i % 4 * 16) & 0xFFFF) == entry)
					(void) nxm_cas(&line[i / 4], &word,
								   word & ~(UINT64_C(0xFFFF) << (i % 4 * 16)));
			}
		}
		shift = lane % 4 * 16;
		word = nxm_load_relaxed(&line[lane / 4]);
		if (nxm_cas(&line[lane / 4], &word, (word & ~(UINT64_C(0xFFFF) << shift)) |
					(time << PRINT_BITS(ghost) | print_of(ghost, mixed)) << shift))
			return;
	}
}

bool
nxm_ghost_take(NxmSpace *space, NxmGhost *ghost, uint64_t hash,
			   uint64_t *since)
{
	uint64_t	mixed = mix(hash);
	uint64_t	table = nxm_load(&ghost->table);
	NxmAtomic  *line = line_at(space, table, mixed);
	uint64_t	time;

	if (line == NULL)
		return false;
	time = time_of(ghost, table);
	for (int lane = 0; lane < LINE_ENTRIES; lane++)
	{
		int			shift = lane % 4 * 16;
		uint64_t	word = nxm_load_relaxed(&line[lane / 4]);

		while ((word >> shift & ((UINT64_C(1) << PRINT_BITS(ghost)) - 1)) ==
			   print_of(ghost, mixed) &&
			   age_of(ghost, word >> shift & 0xFFFF, time) <= GOOD_TIMES(ghost))
		{
			*since = (2 * age_of(ghost, word >> shift & 0xFFFF, time) + 1) *
				GHOST_LINES(table) * LINE_ENTRIES / (2 * GOOD_TIMES(ghost));
			/* of several inserts one alone counts it */
			if (nxm_cas(&line[lane / 4], &word, word & ~(UINT64_C(0xFFFF) << shift)))
				return true;
		}
	}
	return false;
}

bool
nxm_ghost_was_last(NxmGhost *ghost, uint64_t since)
{
	return since <= GHOST_LINES(nxm_load_relaxed(&ghost->table)) * LINE_ENTRIES /
		GOOD_TIMES(ghost);
}

void
nxm_ghost_prefetch(NxmSpace *space, NxmCachePartition *part, uint64_t hash)
{
	for (int kind = 0; kind < 2; kind++)
	{
		/* no pointer to follow for it but the directory's */
		NxmAtomic  *line = line_at(space, nxm_load(&part->ghost[kind].table), mix(hash));

		if (line != NULL)
			__builtin_prefetch((const void *) line);
	}
}

static inline uint64_t
page_count(uint64_t lines)
{
	return lines <= PAGE_LINES ? 0 : (lines + PAGE_LINES - 1) / PAGE_LINES;
}

/* Memory of a table of so many lines. */
static size_t
table_bytes(uint64_t lines)
{
	uint64_t	npages = page_count(lines);

	return npages == 0 ? nxm_object_size(LINE_BYTES * lines) :
		nxm_object_size(sizeof(uint64_t) * npages) + npages * NXM_PAGE_SIZE;
}

static size_t
ghost_bytes(uint64_t ghost)
{
	return GHOST_REF(ghost) == 0 ? 0 : table_bytes(GHOST_LINES(ghost));
}

size_t
nxm_ghost_bytes(NxmCachePartition *part)
{
	return ghost_bytes(nxm_load_relaxed(&part->ghost[KIND_SMALL].table)) +
		ghost_bytes(nxm_load_relaxed(&part->ghost[KIND_MAIN].table));
}

static void
free_ghost(NxmSpace *space, uint64_t ghost, void (*release) (NxmSpace *, NxmRef))
{
	const uint64_t *pages = nxm_at(space, GHOST_REF(ghost));

	for (uint64_t i = 0; i < page_count(GHOST_LINES(ghost)); i++)
		release(space, NXM_GET(pages[i]));
	release(space, GHOST_REF(ghost));
}

static void
clear_lines(NxmSpace *space, NxmRef ref, size_t bytes)
{
	NxmAtomic  *words = nxm_at(space, ref);

	for (size_t i = 0; i < bytes / sizeof(NxmAtomic); i++)
		nxm_init(&words[i], 0);
}

/* 0: there is no memory. */
static uint64_t
new_ghost(NxmSpace *space, uint64_t lines)
{
	uint64_t	npages = page_count(lines);
	uint64_t	ghost;
	NxmRef		ref;

	if (npages == 0)
	{
		ref = nxm_alloc(space, lines * LINE_BYTES > NXM_MAX_OBJECT ? NXM_PAGE_SIZE :
						lines * LINE_BYTES);
		if (ref == 0)
			return 0;
		clear_lines(space, ref, lines * LINE_BYTES);
		return ref | lines << NXM_REF_BITS;
	}
	ref = nxm_alloc(space, npages * sizeof(uint64_t));
	if (ref == 0)
		return 0;
	ghost = ref | lines << NXM_REF_BITS;
	for (uint64_t i = 0; i < npages; i++)
	{
		uint64_t   *pages = nxm_at(space, ref);
		NxmRef		page = nxm_alloc(space, NXM_PAGE_SIZE);

		if (page == 0)
		{
			while (i > 0)
				nxm_free(space, NXM_GET(pages[--i]));
			nxm_free(space, ref);
			return 0;
		}
		NXM_SET(pages[i], page);
		clear_lines(space, page, NXM_PAGE_SIZE);
	}
	return ghost;
}

/*
 * Can all of it be retired by this process?  More than its epoch limbo holds takes
 * records, and those may be in any chunk.  false: need_chunk is set.
 */
static bool
can_retire(NxmSpace *space, uint64_t ghost)
{
	const uint64_t *pages = nxm_at(space, GHOST_REF(ghost));
	int			nchunks = space->local->nretired + page_count(GHOST_LINES(ghost)) <
		NXM_EPOCH_LIMBO ? 0 : (int) nxm_load(&space->shared->nchunks);

	for (int i = 0; i < nchunks; i++)
	{
		if (space->base[i] == NULL)
		{
			space->need_chunk = i;
			return false;
		}
	}
	for (uint64_t i = 0; pages != NULL && i < page_count(GHOST_LINES(ghost)); i++)
	{
		if (nxm_at(space, NXM_GET(pages[i])) == NULL)
			return false;
	}
	return pages != NULL;
}

static void
fit(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part, NxmGhost *ghost,
	uint64_t lines)
{
	NxmSpace   *space = view->space;
	uint64_t	old = nxm_load(&ghost->table);
	uint64_t	new = 0;

	if (lines < NXM_GHOST_MIN_LINES)
		lines = NXM_GHOST_MIN_LINES;
	if (lines > MAX_LINES)
		lines = MAX_LINES;
	if (old == GHOST_CLOSED)
		return;
	if (GHOST_REF(old) != 0 && lines <= GHOST_LINES(old) + GHOST_LINES(old) / 4 + 1 &&
		lines + GHOST_LINES(old) / 4 + 1 >= GHOST_LINES(old))
		return;
	if (GHOST_REF(old) != 0 && !can_retire(space, old))
		return;
	if (nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP + page_count(lines)) &&
		nxm_cache_take(view, cache, table_bytes(lines), NXM_CACHE_KEEP))
	{
		new = new_ghost(space, lines);
		if (new == 0)
			nxm_cache_give(cache, table_bytes(lines));
	}
	/* one that is too large past a lowered limit goes, without another in its place */
	if (new == 0 && (lines >= GHOST_LINES(old) || !nxm_cache_is_over(view, cache)))
		return;
	/* release: publishes the lines.  Fails if another one has come meanwhile */
	if (!nxm_cas(&ghost->table, &old, new))
	{
		if (new != 0)
			free_ghost(space, new, nxm_free);
		nxm_cache_give(cache, ghost_bytes(new));
		return;
	}
	nxm_cache_give(cache, ghost_bytes(old));
	if (GHOST_REF(old) != 0)
		free_ghost(space, old, nxm_retire_epoch);
}

void
nxm_ghost_fit(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	uint64_t	entries = nxm_map_entries(&part->index);

	fit(view, cache, part, &part->ghost[KIND_SMALL],
		(entries - entries / SMALL_LACKS) / LINE_ENTRIES);
	fit(view, cache, part, &part->ghost[KIND_MAIN], entries / MAIN_SHARE / LINE_ENTRIES);
}

NxmResult
nxm_ghost_retire(NxmSpace *space, NxmCache *cache, NxmCachePartition *part)
{
	for (int kind = 0; kind < 2; kind++)
	{
		uint64_t	table = nxm_load(&part->ghost[kind].table);

		do
		{
			if (GHOST_REF(table) != 0 && !can_retire(space, table))
				return NXM_NEED_CHUNK;
			/* acquire: its pages.  Fails if another one has come meanwhile */
		} while (!nxm_cas(&part->ghost[kind].table, &table, GHOST_CLOSED));
		if (GHOST_REF(table) == 0)
			continue;
		nxm_cache_give(cache, ghost_bytes(table));
		free_ghost(space, table, nxm_retire_epoch);
	}
	return NXM_OK;
}
