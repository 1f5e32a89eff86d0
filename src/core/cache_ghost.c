/*
 * cache_ghost.c
 *	  The ghost: which keys were evicted from small segments of late.
 *
 * A table of lines; a key's line and fingerprint are of bits of its mixed hash.
 *
 *	line	lane 0     1       2     ...    30        31
 *			+-------+-------+-------+-----+-------+--------+
 *			| print | print | print |     | print | cursor |	16 bits each
 *			+-------+-------+-------+-----+-------+--------+
 *
 * The cursor counts the prints put into the line, and so tells which one is the
 * oldest.  It is in the last lane, so that what it carries over is lost.  A print
 * of 0 is none.  Taking a print is a CAS to 0, so that one of several inserts of
 * the key takes it.
 *
 * Up to a page the table is one object, then an object with the references of its
 * pages.  When it does not fit the number of entries any more another one, empty,
 * takes its place; that happens while the cache fills for the first time, when
 * nothing has been evicted, and seldom later.  It is retired by the epoch.
 *
 * Two bytes for each one or two entries.  One in 2,000 keys that were not evicted
 * is taken for one that was, which costs a place in main.
 *
 * Orders.  A print is no more than a hint; it is written and read relaxed but for
 * the CAS.
 */
#include "cache_internal.h"

#define LINE_BYTES			64
#define LINE_PRINTS			31
#define PAGE_LINES_LOG		(NXM_PAGE_SHIFT - 3)
#ifndef NXM_GHOST_MIN_LOG
#define NXM_GHOST_MIN_LOG	4
#endif
#define MAX_LOG				(PAGE_LINES_LOG + 11)

#define GHOST_LOG(g)		((uint32_t) ((g) >> NXM_REF_BITS) & 0x3F)
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
print_of(uint64_t mixed)
{
	uint64_t	print = mixed & 0xFFFF;

	return print == 0 ? 1 : print;
}

/* NULL: there is no ghost, or it is not mapped. */
static NxmAtomic *
line_at(NxmSpace *space, uint64_t ghost, uint64_t mixed)
{
	uint32_t	log = GHOST_LOG(ghost);
	uint64_t	line = log == 0 ? 0 : mixed >> (64 - log);
	NxmRef		ref = GHOST_REF(ghost);
	char	   *at;

	if (ref == 0)
		return NULL;
	at = nxm_at(space, ref);
	if (at != NULL && log > PAGE_LINES_LOG)
	{
		at = nxm_at(space, NXM_GET(((uint64_t *) at)[line >> PAGE_LINES_LOG]));
		line &= (UINT64_C(1) << PAGE_LINES_LOG) - 1;
	}
	return at == NULL ? NULL : (NxmAtomic *) (at + line * LINE_BYTES);
}

void
nxm_ghost_add(NxmSpace *space, NxmCachePartition *part, uint64_t hash)
{
	uint64_t	mixed = mix(hash);
	NxmAtomic  *line = line_at(space, nxm_load(&part->ghost), mixed);
	uint64_t	lane;
	uint64_t	before;

	if (line == NULL)
		return;
	lane = (nxm_fetch_add_relaxed(&line[7], UINT64_C(1) << 48) >> 48) % LINE_PRINTS;
	before = nxm_load_relaxed(&line[lane / 4]);
	while (!nxm_cas(&line[lane / 4], &before,
					(before & ~(UINT64_C(0xFFFF) << (lane % 4 * 16))) |
					print_of(mixed) << (lane % 4 * 16)))
		;
}

bool
nxm_ghost_take(NxmSpace *space, NxmCachePartition *part, uint64_t hash)
{
	uint64_t	mixed = mix(hash);
	NxmAtomic  *line = line_at(space, nxm_load(&part->ghost), mixed);

	if (line == NULL)
		return false;
	for (int lane = 0; lane < LINE_PRINTS; lane++)
	{
		int			shift = lane % 4 * 16;
		uint64_t	word = nxm_load_relaxed(&line[lane / 4]);

		while ((word >> shift & 0xFFFF) == print_of(mixed))
		{
			/* of several inserts one alone counts it */
			if (nxm_cas(&line[lane / 4], &word, word & ~(UINT64_C(0xFFFF) << shift)))
				return true;
		}
	}
	return false;
}

void
nxm_ghost_prefetch(NxmSpace *space, NxmCachePartition *part, uint64_t hash)
{
	/* no pointer to follow for it but the directory's */
	NxmAtomic  *line = line_at(space, nxm_load(&part->ghost), mix(hash));

	if (line != NULL)
		__builtin_prefetch((const void *) line);
}

static inline uint64_t
page_count(uint32_t log)
{
	return log <= PAGE_LINES_LOG ? 0 : UINT64_C(1) << (log - PAGE_LINES_LOG);
}

size_t
nxm_ghost_bytes(NxmCachePartition *part)
{
	uint64_t	ghost = nxm_load_relaxed(&part->ghost);

	return GHOST_REF(ghost) == 0 ? 0 : (size_t) LINE_BYTES << GHOST_LOG(ghost);
}

static void
free_ghost(NxmSpace *space, uint64_t ghost, void (*release) (NxmSpace *, NxmRef))
{
	const uint64_t *pages = nxm_at(space, GHOST_REF(ghost));

	for (uint64_t i = 0; i < page_count(GHOST_LOG(ghost)); i++)
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
new_ghost(NxmSpace *space, uint32_t log)
{
	uint64_t	npages = page_count(log);
	uint64_t	ghost;
	NxmRef		ref;

	if (npages == 0)
	{
		ref = nxm_alloc(space, log == PAGE_LINES_LOG ? NXM_PAGE_SIZE :
						(size_t) LINE_BYTES << log);
		if (ref == 0)
			return 0;
		clear_lines(space, ref, (size_t) LINE_BYTES << log);
		return ref | (uint64_t) log << NXM_REF_BITS;
	}
	ref = nxm_alloc(space, npages * sizeof(uint64_t));
	if (ref == 0)
		return 0;
	ghost = ref | (uint64_t) log << NXM_REF_BITS;
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

/* Can all of it be retired by this process? */
static bool
is_mapped(NxmSpace *space, uint64_t ghost)
{
	const uint64_t *pages = nxm_at(space, GHOST_REF(ghost));

	for (uint64_t i = 0; pages != NULL && i < page_count(GHOST_LOG(ghost)); i++)
	{
		if (nxm_at(space, NXM_GET(pages[i])) == NULL)
			return false;
	}
	return pages != NULL;
}

void
nxm_ghost_fit(NxmCacheView *view, NxmCache *cache, NxmCachePartition *part)
{
	NxmSpace   *space = view->space;
	uint64_t	old = nxm_load(&part->ghost);
	uint64_t	lines = nxm_map_entries(&part->index) / (2 * LINE_PRINTS);
	uint32_t	log = NXM_GHOST_MIN_LOG;
	uint64_t	ghost;

	/* as many prints as half of the entries, or up to all of them */
	while (log < MAX_LOG && UINT64_C(1) << log < lines)
		log++;
	/* smaller only when it is far too large, and then with room to spare */
	if (old == GHOST_CLOSED)
		return;
	if (GHOST_REF(old) != 0 && log <= GHOST_LOG(old) && log + 2 >= GHOST_LOG(old))
		return;
	if (GHOST_REF(old) != 0 && !is_mapped(space, old))
		return;
	if (!nxm_cache_has_room(view, cache, part, NXM_CACHE_KEEP + page_count(log)))
		return;
	ghost = new_ghost(space, log);
	if (ghost == 0)
		return;
	/* release: publishes the lines.  Fails if another one has come meanwhile */
	if (!nxm_cas(&part->ghost, &old, ghost))
	{
		free_ghost(space, ghost, nxm_free);
		return;
	}
	nxm_fetch_add_relaxed(&cache->used, (uint64_t) LINE_BYTES << log);
	if (GHOST_REF(old) != 0)
	{
		nxm_fetch_add_relaxed(&cache->used,
							  -((uint64_t) LINE_BYTES << GHOST_LOG(old)));
		free_ghost(space, old, nxm_retire_epoch);
	}
}

void
nxm_ghost_retire(NxmSpace *space, NxmCache *cache, NxmCachePartition *part)
{
	uint64_t	ghost = nxm_exchange(&part->ghost, GHOST_CLOSED);

	if (GHOST_REF(ghost) == 0)
		return;
	nxm_fetch_add_relaxed(&cache->used, -((uint64_t) LINE_BYTES << GHOST_LOG(ghost)));
	free_ghost(space, ghost, nxm_retire_epoch);
}
