/*
 * cache_chain.c
 *	  The order of segments, and which of them is to be evicted next.  cache.h has
 *	  the design.
 *
 * A chain is a list of blocks of names of segments, the oldest first.  Names are
 * added at its end, lock-free (Michael and Scott 1996, with blocks for nodes).  A
 * name is a hint: whether the segment is still there, in the same life, is told by
 * the word beside its page, and who finds that it is not writes GONE over the
 * name.  So a segment can be taken from the middle at any time.
 *
 * Cleaning takes blocks out, and has the names of a run of blocks move to fewer ones, under
 * a try-lock.  Everybody else may be in the blocks that are taken out.  So:
 *
 *	1. The last block is never taken out, nor one after what was the last one while `tail`
 *	   was there or before it: no new process finds a block by `tail` that was taken out.
 *	2. Nor is a block with an entry that is not written yet, so that nobody who is to write
 *	   one is in a block that is taken out.
 *	3. New blocks are complete, and linked among themselves, before one store of the link
 *	   to the run has them take its place.  The run keeps its names and where it leads to,
 *	   and waits for the epoch: who is in it meets each name once, in order, as does who
 *	   is not, and comes out behind it.
 *	4. A new block is due when the first block of the run is.  Who raises `due` of a block has
 *	   looked at all the names that it ever has had: for that no block that is there
 *	   gets names of others.
 *	5. `sought` and `cleaned` name blocks that are there.  Who takes out a block that one of
 *	   them names has it name another one.
 *
 * A step takes what is empty off the head, and then goes on through the chain: runs of up
 * to CHAIN_RUN blocks move on as soon as that saves a block.  Names move towards the
 * head only, so that blocks behind which it has come do not have fewer for that: of any
 * CHAIN_RUN that follow each other one's worth of entries, less one, is free at most.  When
 * it has come to the end, with E entries a block and S segments, 4 blocks have 3 E + 1 names
 * at least, and E - 1 entries free; up to three more have a name each; and the last one may
 * be free: of all less than a third of S, and 4 E.  It begins again at half of S and 4 E
 * (nxm_chain_is_sparse()), so not for what it has left.
 *
 * Entries that are GONE stay so.  A block that is full of them is marked with ALL_GONE by who
 * found that, and is passed by from then on.
 *
 * Sparse segments, which are dead for a large part, are sought in rounds through both
 * chains, of steps that go on where the one before came to.  A round makes those ripe that
 * are not much less sparse than the sparsest one that the round before it left, or that
 * it meets itself.  So most of what is copied is of segments that are dead for about as
 * much as any is, and all segments are looked at once for all of them.  A round that
 * found none worth it is followed by one that just looks.  Where a step is to go on
 * belongs to who has the lock.
 *
 * Limits: where the process that has the lock is stopped, blocks of names that are
 * GONE stay, 9 bytes a segment, and sparse segments are not sought.
 */
#include "cache_internal.h"

/* Most names to look at for one victim. */
#define LOOK				1024
/* A segment of which less than one in so many units is dead is not compacted. */
#define LEAST_SPARSE		16

/*
 * `sparse`, of a partition: the chain that the round is in 32; units dead of the sparsest
 * segment that it is after, 0: it is to find that out, 31..16; of the sparsest that it
 * has left where it was, 15..0.
 */
#define SPARSE(kind, most, left) \
	((uint64_t) (kind) << 32 | (uint64_t) (most) << 16 | (left))
#define SPARSE_KIND(s)		((int) ((s) >> 32))
#define SPARSE_MOST(s)		((uint32_t) (s) >> 16)
#define SPARSE_LEFT(s)		((uint32_t) (s) & 0xFFFF)
_Static_assert(SEGMENT_UNITS <= 0xFFFF, "units dead fit");

/* `next_due`: in units of 2^16 microseconds, and a serial. */
#define DUE_UNIT			(UINT64_C(1) << 16)
#define DUE_SERIAL			UINT64_C(0xFFFF)
#define DUE_NONE			(UINT64_MAX >> 16)

/* Blocks that a step of cleaning looks at, about. */
#ifndef NXM_CHAIN_STEP
#define NXM_CHAIN_STEP		64
#endif
/* Blocks that it has fewer take the place of at once. */
#define CHAIN_RUN			4
_Static_assert(NXM_CHAIN_STEP > CHAIN_RUN, "a step that takes nothing off the head moves on");

/* In `count` of a block: all its entries are GONE. */
#define ALL_GONE			(UINT64_C(1) << 62)

static inline bool
is_all_gone(NxmChainBlock *block)
{
	return (nxm_load(&block->count) & ALL_GONE) != 0;
}

/* Entries to look at. */
static inline int
names_of(NxmChainBlock *block)
{
	uint64_t	n = nxm_load(&block->count);

	if ((n & ALL_GONE) != 0)
		return 0;
	return n < NXM_CHAIN_ENTRIES ? (int) n : NXM_CHAIN_ENTRIES;
}

/* Of n entries of a block that were looked at so many were GONE. */
static inline void
note_gone(NxmChainBlock *block, int n, int gone)
{
	if (n == NXM_CHAIN_ENTRIES && gone == n)
		nxm_fetch_or(&block->count, ALL_GONE);
}

static NxmRef
new_block(NxmSpace *space, uint64_t count, uint64_t due)
{
	NxmRef		ref = nxm_alloc(space, sizeof(NxmChainBlock));
	NxmChainBlock *block;

	if (ref == 0)
		return 0;
	block = nxm_at(space, ref);
	nxm_init(&block->next, 0);
	nxm_init(&block->count, count);
	nxm_init(&block->due, due == 0 ? UINT64_MAX : due);
	for (int i = 0; i < NXM_CHAIN_ENTRIES; i++)
		nxm_init(&block->entry[i], 0);
	return ref;
}

NxmResult
nxm_chain_init(NxmSpace *space, NxmChain *chain)
{
	NxmRef		ref = new_block(space, 0, 0);

	if (ref == 0)
		return nxm_no_object(space);
	nxm_store(&chain->head, ref);
	nxm_store(&chain->tail, ref);
	nxm_store_relaxed(&chain->blocks, 1);
	return NXM_OK;
}

NxmResult
nxm_chain_reserve(NxmSpace *space, NxmChain *chain, uint64_t due,
				  NxmAtomic **entry)
{
	for (;;)
	{
		NxmRef		tail = nxm_load(&chain->tail);
		NxmChainBlock *block = nxm_at(space, tail);
		uint64_t	next;
		NxmRef		ref;

		if (block == NULL)
			return NXM_NEED_CHUNK;
		next = nxm_load(&block->next);
		if (next == CHAIN_CLOSED)
			return NXM_DROPPED;
		if (next != 0)
		{
			(void) nxm_cas(&chain->tail, &tail, next);
			continue;
		}
		/* before the entry is counted: who counts it sees when it is due */
		if (due != 0)
		{
			uint64_t	before = nxm_load_relaxed(&block->due);

			while (due < before && !nxm_cas(&block->due, &before, due))
				;
		}
		if (nxm_load_relaxed(&block->count) < NXM_CHAIN_ENTRIES)
		{
			uint64_t	i = nxm_fetch_add(&block->count, 1);

			if (i < NXM_CHAIN_ENTRIES)
			{
				*entry = &block->entry[i];
				return NXM_OK;
			}
		}
		ref = new_block(space, 1, due);
		if (ref == 0)
			return nxm_no_object(space);
		/* release: publishes the block */
		if (nxm_cas(&block->next, &next, ref))
		{
			/* relaxed: a sum */
			nxm_fetch_add_relaxed(&chain->blocks, 1);
			(void) nxm_cas(&chain->tail, &tail, ref);
			*entry = &((NxmChainBlock *) nxm_at(space, ref))->entry[0];
			return NXM_OK;
		}
		nxm_free(space, ref);
	}
}

NxmResult
nxm_chain_close(NxmSpace *space, NxmChain *chain)
{
	uint64_t	unlocked = 0;
	NxmResult	result = NXM_OK;

	if (!nxm_cas(&chain->lock, &unlocked, (uint64_t) space->proc + 1))
		return unlocked == LOCK_CLOSED ? NXM_OK : NXM_EXISTS;
	for (NxmRef ref = nxm_load(&chain->head); ref != CHAIN_CLOSED;)
	{
		NxmChainBlock *block = nxm_at(space, ref);
		uint64_t	next = 0;

		if (block == NULL)
		{
			result = NXM_NEED_CHUNK;
			break;
		}
		if (nxm_cas(&block->next, &next, CHAIN_CLOSED))
			break;
		ref = next;
	}
	/* nobody is to take blocks out of a closed one */
	nxm_store(&chain->lock, result == NXM_OK ? LOCK_CLOSED : 0);
	return result;
}

void
nxm_chain_retire(NxmSpace *space, NxmChain *chain)
{
	NxmRef		ref = nxm_load(&chain->head);

	while (ref != CHAIN_CLOSED)
	{
		NxmChainBlock *block = nxm_at(space, ref);
		NxmRef		next = nxm_load(&block->next);

		nxm_retire_epoch(space, ref);
		ref = next;
	}
}

/*
 * The segment of an entry.  NULL: it is not written yet, with *name 0; or, with
 * *result NXM_NEED_CHUNK, not mapped; or GONE.
 */
static NxmCacheSegment *
segment_of(NxmSpace *space, NxmAtomic *entry, uint64_t *name, uint64_t *word,
		   NxmResult *result)
{
	NxmCacheSegment *segment;

	*name = nxm_load(entry);
	if (*name == 0 || *name == NAME_GONE)
		return NULL;
	segment = segment_named(space, *name);
	if (segment == NULL)
	{
		*result = NXM_NEED_CHUNK;
		return NULL;
	}
	*word = nxm_load(&segment->word);
	if (SEG_LIFE(*word) == NAME_LIFE(*name))
		return segment;
	(void) nxm_cas(entry, name, NAME_GONE);
	return NULL;
}

/* Makes a segment ours that nobody can write to or is evicting. */
static bool
claim(NxmCacheSegment *segment, uint64_t name, uint64_t word, uint64_t state,
	  NxmVictim *victim)
{
	if (SEG_STATE(word) != state)
		return false;
	/* acquire: pairs with nxm_cache_commit(): its items are in the index */
	if (DONE_COMMITTED(nxm_load(&segment->done)) != SEG_USED(word))
		return false;
	/* acquire: pairs with the store by who had it before; fails if it has ended */
	if (!nxm_cas(&segment->word, &word, word - state + SEG_EVICTING))
		return false;
	/* a room of it may have been taken since: see cache_recycle.c */
	if (DONE_COMMITTED(nxm_load(&segment->done)) != SEG_USED(word))
	{
		nxm_store(&segment->word, word);
		return false;
	}
	victim->page = (NxmRef) NAME_PAGE(name) << NXM_PAGE_SHIFT;
	victim->segment = segment;
	victim->word = word - state + SEG_EVICTING;
	victim->compact = false;
	victim->drop = false;
	return true;
}

/* Claims a segment that is drained, unless somebody still reads in it. */
static bool
claim_drained(NxmSpace *space, NxmCacheSegment *segment, uint64_t name, uint64_t word,
			  NxmVictim *victim)
{
	return SEG_STATE(word) == SEG_DRAINED && !nxm_page_is_read(space, NAME_PAGE(name)) &&
		claim(segment, name, word, SEG_DRAINED, victim);
}

/*
 * Claims the oldest segment in this state; of those that are drained in the whole chain.
 * NXM_ABSENT: none can be.
 */
static NxmResult
claim_oldest(NxmSpace *space, NxmCachePartition *part, int kind, uint64_t state,
			 NxmVictim *victim)
{
	NxmChain   *chain = &part->chain[kind];
	NxmResult	result = NXM_ABSENT;
	int			looked = 0;

	for (NxmRef ref = nxm_load(&chain->head); ref > CHAIN_CLOSED && looked < LOOK;)
	{
		NxmChainBlock *block = nxm_at(space, ref);
		int			gone = 0;
		int			n;

		if (block == NULL)
			return NXM_NEED_CHUNK;
		n = names_of(block);
		for (int i = 0; i < n; i++)
		{
			uint64_t	name;
			uint64_t	word;
			NxmCacheSegment *segment = segment_of(space, &block->entry[i], &name, &word,
												  &result);

			if (segment == NULL)
			{
				gone += name != 0 && result == NXM_ABSENT;
				continue;
			}
			if (state == SEG_DRAINED)
			{
				if (claim_drained(space, segment, name, word, victim))
					return NXM_OK;
				/* there may be a place by now */
				if (SEG_STATE(word) == SEG_DRAINED)
					nxm_cache_hold(part, name);
				continue;
			}
			if (claim(segment, name, word, state, victim))
				return NXM_OK;
			looked++;
		}
		note_gone(block, n, gone);
		ref = nxm_load(&block->next);
	}
	return result;
}

/* The name of the oldest segment; 0: none. */
static uint64_t
oldest(NxmSpace *space, NxmChain *chain)
{
	for (NxmRef ref = nxm_load(&chain->head); ref > CHAIN_CLOSED;)
	{
		NxmChainBlock *block = nxm_at(space, ref);
		NxmResult	result = NXM_OK;
		int			gone = 0;
		int			n;

		if (block == NULL)
			return 0;
		n = names_of(block);
		for (int i = 0; i < n; i++)
		{
			uint64_t	name;
			uint64_t	word;

			if (segment_of(space, &block->entry[i], &name, &word, &result) != NULL)
				return name;
			gone += name != 0 && result == NXM_OK;
		}
		note_gone(block, n, gone);
		ref = nxm_load(&block->next);
	}
	return 0;
}

/* Notes a segment in one of n places.  false: all are taken. */
static bool
note(NxmAtomic *places, int n, uint64_t name)
{
	for (int i = 0; i < n; i++)
		if (nxm_load_relaxed(&places[i]) == name)
			return true;
	for (int i = 0; i < n; i++)
	{
		uint64_t	none = nxm_load_relaxed(&places[i]);

		if (none == 0 && nxm_cas(&places[i], &none, name))
			return true;
	}
	return false;
}

/* Segment and word of what is noted in a place.  NXM_ABSENT: nothing; NXM_NEED_CHUNK. */
static NxmResult
noted(NxmSpace *space, NxmAtomic *place, uint64_t *name, NxmCacheSegment **segment,
	  uint64_t *word)
{
	*name = nxm_load(place);
	if (*name == 0)
		return NXM_ABSENT;
	*segment = segment_named(space, *name);
	if (*segment == NULL)
		return NXM_NEED_CHUNK;
	*word = nxm_load(&(*segment)->word);
	return NXM_OK;
}

bool
nxm_cache_ripen(NxmCachePartition *part, uint64_t name)
{
	return note(part->ripe, NXM_CACHE_RIPE, name);
}

void
nxm_cache_hold(NxmCachePartition *part, uint64_t name)
{
	(void) note(part->held, NXM_CACHE_HELD, name);
}

void
nxm_cache_note_underfull(NxmCachePartition *part, uint64_t name)
{
	if (note(part->underfull, NXM_CACHE_UNDERFULL, name))
		nxm_fetch_add_relaxed(&part->nunderfull, 1);
}

void
nxm_cache_due(NxmCachePartition *part, uint64_t due)
{
	uint64_t	before = nxm_load(&part->next_due);
	uint64_t	unit = due >> 16;
	uint64_t	after;

	/* the serial changes in any case: who looks through the chains sees that */
	do
		after = (unit < before >> 16 ? unit : before >> 16) << 16 |
			((before + 1) & DUE_SERIAL);
	while (!nxm_cas(&part->next_due, &before, after));
}

bool
nxm_cache_is_due(NxmCacheView *view, NxmCachePartition *part)
{
	uint64_t	unit = nxm_load(&part->next_due) >> 16;

	return unit != DUE_NONE && (int64_t) (unit << 16) <= view->now(view->env);
}

/*
 * Makes a segment that is due ripe in place of one that is not, and that is found again
 * by nxm_cache_find_sparse().  false: there is none.
 */
static bool
displace(NxmSpace *space, NxmCachePartition *part, uint64_t now, uint64_t name)
{
	for (int i = 0; i < NXM_CACHE_RIPE; i++)
	{
		uint64_t	other = nxm_load(&part->ripe[i]);
		NxmCacheSegment *segment;

		if (other == 0)
			continue;
		segment = segment_named(space, other);
		/* without deadline: 0, which is never before */
		if (segment != NULL && nxm_load_relaxed(&segment->due) - 1 >= now &&
			nxm_cas(&part->ripe[i], &other, name))
			return true;
	}
	return false;
}

/*
 * Makes ripe what has expired, sealing it if need be: as much as there are places for,
 * which is to be taken before more is looked for.  NXM_EXISTS: and claims one for which
 * there was no place, for what has one may be in as many others' hands; NXM_OK; NXM_NEED_CHUNK.
 */
static NxmResult
find_expired(NxmSpace *space, NxmCachePartition *part, uint64_t now, NxmVictim *victim)
{
	uint64_t	before = nxm_load(&part->next_due);
	uint64_t	least = UINT64_MAX;
	NxmResult	result = NXM_OK;

	for (int kind = 0; kind < 2; kind++)
	{
		NxmChain   *chain = &part->chain[kind];

		for (NxmRef ref = nxm_load(&chain->head); ref > CHAIN_CLOSED;)
		{
			NxmChainBlock *block = nxm_at(space, ref);
			uint64_t	due;
			uint64_t	least_here = UINT64_MAX;
			bool		complete;
			int			n;

			if (block == NULL)
				return NXM_NEED_CHUNK;
			n = names_of(block);
			complete = n == NXM_CHAIN_ENTRIES || is_all_gone(block);
			due = nxm_load(&block->due);
			for (int i = 0; i < n && due <= now; i++)
			{
				uint64_t	name;
				uint64_t	word;
				uint64_t	theirs;
				NxmCacheSegment *segment = segment_of(space, &block->entry[i], &name,
													  &word, &result);

				if (result != NXM_OK)
					return result;
				complete = complete && name != 0;
				/* of one that is drained nothing can expire any more */
				if (segment == NULL || SEG_STATE(word) == SEG_DRAINED)
					continue;
				theirs = nxm_load_relaxed(&segment->due);
				if (theirs != 0 && theirs < least_here)
					least_here = theirs;
				if (theirs == 0 || theirs > now)
					continue;
				nxm_segment_seal(part, segment, NAME_PAGE(name), NAME_LIFE(name));
				if (nxm_cache_ripen(part, name) || displace(space, part, now, name))
					continue;
				word = nxm_load(&segment->word);
				if (SEG_LIFE(word) == NAME_LIFE(name) &&
					claim(segment, name, word, SEG_SEALED, victim))
					return NXM_EXISTS;
			}
			if (due <= now && complete)
				(void) nxm_cas(&block->due, &due, least_here);
			/* what is not written yet changes next_due when it is */
			if (due > now)
				least_here = due;
			if (least_here < least)
				least = least_here;
			ref = nxm_load(&block->next);
		}
	}
	/* ripe, or without a place, but in somebody's hands: there is nothing more to look for */
	if (least <= now)
		least = now + DUE_UNIT;
	/* not if any was added meanwhile, for that might be missing from `least` */
	(void) nxm_cas(&part->next_due, &before,
				   (least == UINT64_MAX ? DUE_NONE : least >> 16) << 16 |
				   ((before + 1) & DUE_SERIAL));
	return NXM_OK;
}

/*
 * Claims a ripe segment: one that was due before now, or with now 0 any.  spare: what
 * lives of it is kept in any case.
 */
static NxmResult
claim_ripe(NxmSpace *space, NxmCachePartition *part, uint64_t now, bool spare,
		   NxmVictim *victim)
{
	for (int i = 0; i < NXM_CACHE_RIPE; i++)
	{
		uint64_t	name;
		NxmCacheSegment *segment;
		uint64_t	word;
		NxmResult	result = noted(space, &part->ripe[i], &name, &segment, &word);

		if (result == NXM_ABSENT)
			continue;
		if (result != NXM_OK)
			return result;
		if (SEG_LIFE(word) != NAME_LIFE(name) || SEG_STATE(word) == SEG_DRAINED)
		{
			(void) nxm_cas(&part->ripe[i], &name, 0);
			continue;
		}
		/* without deadline: 0, which is never before */
		if (now != 0 && nxm_load_relaxed(&segment->due) - 1 >= now)
			continue;
		if (claim(segment, name, word, SEG_SEALED, victim))
		{
			/* what is the oldest anyway need not be spared */
			victim->compact = spare ||
				oldest(space, &part->chain[SEG_KIND(word)]) != name;
			return NXM_OK;
		}
	}
	return NXM_ABSENT;
}

bool
nxm_cache_main_has_share(NxmCachePartition *part, uint64_t room)
{
	uint64_t	small = nxm_load_relaxed(&part->chain[KIND_SMALL].segments) + room;
	uint64_t	main = nxm_load_relaxed(&part->chain[KIND_MAIN].segments);

	return small * SHARE_ALL > (small + main) * nxm_load_relaxed(&part->share);
}

bool
nxm_cache_examine(NxmSpace *space, NxmCachePartition *part, uint64_t since)
{
	uint64_t	small = nxm_load_relaxed(&part->chain[KIND_SMALL].segments);
	uint64_t	main = nxm_load_relaxed(&part->chain[KIND_MAIN].segments);
	uint64_t	name;
	uint64_t	age;
	uint64_t	none = 0;
	NxmCacheSegment *segment;
	uint64_t	word;

	/* of no segments main has its share, though there may be some by now */
	if (small + main == 0 || nxm_cache_main_has_share(part, 0))
		return true;
	name = oldest(space, &part->chain[KIND_MAIN]);
	if (name == 0)
		return true;
	segment = segment_named(space, name);
	word = nxm_load(&segment->word);
	if (SEG_LIFE(word) != NAME_LIFE(name) || SEG_STATE(word) != SEG_SEALED)
		return false;
	age = nxm_load_relaxed(&part->ghost[KIND_SMALL].count) -
		nxm_load_relaxed(&segment->sealed_at);
	/* below 0: who sealed it in another life was late */
	if ((int64_t) age < 0)
		return false;
	/* the key has not been read for as long as it was in small before, too */
	if (age <= since + nxm_map_entries(&part->index) * small / (small + main))
		return false;
	(void) nxm_cas(&part->examined, &none, name);
	return true;
}

/* Claims a segment that was sealed before it was half full. */
static NxmResult
claim_underfull(NxmSpace *space, NxmCachePartition *part, NxmVictim *victim)
{
	if ((int64_t) nxm_load_relaxed(&part->nunderfull) <= 0)
		return NXM_ABSENT;
	for (int i = 0; i < NXM_CACHE_UNDERFULL; i++)
	{
		uint64_t	name;
		NxmCacheSegment *segment;
		uint64_t	word;
		NxmResult	result = noted(space, &part->underfull[i], &name, &segment, &word);

		if (result == NXM_ABSENT)
			continue;
		if (result != NXM_OK)
			return result;
		if (SEG_LIFE(word) != NAME_LIFE(name) || SEG_STATE(word) == SEG_DRAINED)
		{
			if (nxm_cas(&part->underfull[i], &name, 0))
				nxm_fetch_add_relaxed(&part->nunderfull, (uint64_t) -1);
		}
		else if (claim(segment, name, word, SEG_SEALED, victim))
			return NXM_OK;
	}
	return NXM_ABSENT;
}

/* Claims the segment that is to be examined. */
static bool
claim_examined(NxmSpace *space, NxmCachePartition *part, NxmVictim *victim)
{
	uint64_t	name = nxm_load(&part->examined);
	NxmCacheSegment *segment;
	uint64_t	word;

	if (name == 0)
		return false;
	segment = segment_named(space, name);
	if (segment == NULL)
		return false;
	word = nxm_load(&segment->word);
	if (SEG_LIFE(word) == NAME_LIFE(name) && SEG_STATE(word) != SEG_DRAINED)
		return claim(segment, name, word, SEG_SEALED, victim);
	(void) nxm_cas(&part->examined, &name, 0);
	return false;
}

NxmResult
nxm_cache_pick(NxmCacheView *view, NxmCachePartition *part, NxmReach reach,
			   NxmVictim *victim)
{
	NxmSpace   *space = view->space;
	bool		spare = reach == REACH_RIPE;
	NxmResult	result;
	int			first;

	if (nxm_cache_is_due(view, part))
	{
		uint64_t	now = (uint64_t) view->now(view->env);

		/* those found before first: looking goes through all that is due */
		result = claim_ripe(space, part, now, spare, victim);
		if (result == NXM_ABSENT)
			result = find_expired(space, part, now, victim);
		else
			return result;
		if (result == NXM_EXISTS)
			return NXM_OK;
		if (result == NXM_OK)
			result = claim_ripe(space, part, now, spare, victim);
		if (result != NXM_ABSENT)
			return result;
	}
	result = claim_ripe(space, part, 0, spare, victim);
	if (result != NXM_ABSENT || reach == REACH_RIPE)
		return result;
	result = claim_underfull(space, part, victim);
	if (result != NXM_ABSENT)
		return result;
	if (claim_examined(space, part, victim))
		return NXM_OK;
	for (int tries = 0; tries < 2; tries++)
	{
		first = nxm_cache_main_has_share(part, 0) ? KIND_SMALL : KIND_MAIN;
		result = claim_oldest(space, part, first, SEG_SEALED, victim);
		if (result == NXM_ABSENT)
			result = claim_oldest(space, part, 1 - first, SEG_SEALED, victim);
		if (result != NXM_ABSENT || reach < REACH_ALL)
			return result;
		/* a cache of a few segments that are all open */
		if (tries == 0)
			nxm_cache_widen_few(space, part);
		result = nxm_cache_seal(space, part, false);
		if (result != NXM_OK)
			return result;
	}
	return NXM_ABSENT;
}

NxmResult
nxm_cache_pick_drained(NxmSpace *space, NxmCachePartition *part, NxmVictim *victim)
{
	uint64_t	nheld = 0;
	NxmResult	result;

	for (int i = 0; i < NXM_CACHE_HELD; i++)
	{
		uint64_t	name;
		NxmCacheSegment *segment;
		uint64_t	word;

		result = noted(space, &part->held[i], &name, &segment, &word);
		if (result == NXM_ABSENT)
			continue;
		if (result != NXM_OK)
			return result;
		if (SEG_LIFE(word) != NAME_LIFE(name))
		{
			(void) nxm_cas(&part->held[i], &name, 0);
			continue;
		}
		/* one that is EVICTING, too, for `waiting` counts it a moment longer */
		nheld++;
		if (claim_drained(space, segment, name, word, victim))
			return NXM_OK;
	}
	/* more than there are places for */
	if (nxm_load_relaxed(&part->waiting) <= nheld)
		return NXM_ABSENT;
	result = claim_oldest(space, part, KIND_SMALL, SEG_DRAINED, victim);
	if (result == NXM_ABSENT)
		result = claim_oldest(space, part, KIND_MAIN, SEG_DRAINED, victim);
	return result;
}

/* A look for sparse segments. */
typedef struct Seek
{
	uint32_t	most;			/* as in `sparse`, both */
	uint32_t	left;
	int			names;			/* to look at yet, about */
	bool		found;			/* some are ripe */
	bool		full;			/* there is no place for more */
} Seek;

/* Looks at a segment that may be sparse. */
static void
seek_at(NxmCachePartition *part, NxmCacheSegment *segment, uint64_t name, uint64_t word,
		Seek *seek)
{
	uint64_t	done = nxm_load(&segment->done);
	uint32_t	dead = DONE_DEAD(done);

	/* nor one that could not be claimed, again and again */
	if (SEG_STATE(word) != SEG_SEALED || DONE_COMMITTED(done) != SEG_USED(word) ||
		dead <= SEGMENT_UNITS / LEAST_SPARSE)
		return;
	if (seek->most != 0 && dead > seek->most)
		seek->most = dead;
	if (seek->most == 0 || dead < seek->most - seek->most / 8)
		seek->left = dead > seek->left ? dead : seek->left;
	else if (nxm_cache_ripen(part, name))
		seek->found = true;
	else
		seek->full = true;
}

/* Goes on in a chain, to its end if *ended.  NXM_ABSENT: somebody else has its lock. */
static NxmResult
seek_in(NxmSpace *space, NxmCachePartition *part, NxmChain *chain, Seek *seek, bool *ended)
{
	uint64_t	unlocked = 0;
	NxmResult	result = NXM_OK;
	NxmRef		ref;

	if (nxm_load_relaxed(&chain->lock) != 0 ||
		!nxm_cas(&chain->lock, &unlocked, (uint64_t) space->proc + 1))
		return NXM_ABSENT;
	ref = nxm_load_relaxed(&chain->sought);
	if (ref == 0)
		ref = nxm_load(&chain->head);
	while (ref > CHAIN_CLOSED && seek->names > 0)
	{
		NxmChainBlock *block = nxm_at(space, ref);
		int			n;

		if (block == NULL)
		{
			result = NXM_NEED_CHUNK;
			break;
		}
		n = names_of(block);
		for (int i = 0; i < n && result == NXM_OK && !seek->full; i++)
		{
			uint64_t	name;
			uint64_t	word;
			NxmCacheSegment *segment = segment_of(space, &block->entry[i], &name, &word,
												  &result);

			if (segment != NULL)
				seek_at(part, segment, name, word, seek);
		}
		/* here again */
		if (result != NXM_OK || seek->full)
			break;
		seek->names -= NXM_CHAIN_ENTRIES;
		ref = nxm_load(&block->next);
	}
	*ended = ref <= CHAIN_CLOSED;
	nxm_store_relaxed(&chain->sought, *ended ? 0 : ref);
	/* release: hands on where it goes on */
	nxm_store(&chain->lock, 0);
	return result;
}

NxmResult
nxm_cache_find_sparse(NxmSpace *space, NxmCachePartition *part)
{
	/* relaxed, as below: of two who seek at once one's round is forgotten */
	uint64_t	sparse = nxm_load_relaxed(&part->sparse);
	int			kind = SPARSE_KIND(sparse);
	Seek		seek = {SPARSE_MOST(sparse), SPARSE_LEFT(sparse), NXM_CACHE_SEEK, false, false};
	bool		ended;
	NxmResult	result;

	do
	{
		result = seek_in(space, part, &part->chain[kind], &seek, &ended);
		if (result != NXM_OK)
			break;
		if (ended && kind++ == KIND_MAIN)
		{
			kind = KIND_SMALL;
			seek.most = seek.left;
			seek.left = 0;
			break;
		}
	} while (seek.names > 0 && !seek.full);
	nxm_store_relaxed(&part->sparse, SPARSE(kind, seek.most, seek.left));
	if (result == NXM_NEED_CHUNK)
		return result;
	if (seek.found || seek.full)
		return NXM_OK;
	if (result != NXM_OK)
		return result;
	return seek.most != 0 || seek.left != 0 ? NXM_EXISTS : NXM_ABSENT;
}

/* Blocks that follow each other and are to move to fewer, as they were when looked at. */
typedef struct Run
{
	int			nblocks;
	int			nnames;
	NxmRef		block[CHAIN_RUN];
	int			names_of[CHAIN_RUN];
	uint64_t	name[CHAIN_RUN * NXM_CHAIN_ENTRIES];
} Run;

/* Blocks that its names take. */
static inline int
blocks_for(const Run *run)
{
	return (run->nnames + NXM_CHAIN_ENTRIES - 1) / NXM_CHAIN_ENTRIES;
}

/*
 * Adds a block to a run, and writes GONE where it is.  NXM_ABSENT: it has entries that are
 * not written yet, and is not added; NXM_NEED_CHUNK.
 */
static NxmResult
add_block(NxmSpace *space, Run *run, NxmRef ref)
{
	NxmChainBlock *block = nxm_at(space, ref);
	int			entries;
	int			n = 0;

	if (block == NULL)
		return NXM_NEED_CHUNK;
	entries = is_all_gone(block) ? 0 : NXM_CHAIN_ENTRIES;
	for (int i = 0; i < entries; i++)
	{
		uint64_t	name;
		uint64_t	word;
		NxmResult	result = NXM_OK;

		if (segment_of(space, &block->entry[i], &name, &word, &result) != NULL)
			run->name[run->nnames + n++] = name;
		else if (result != NXM_OK)
			return result;
		else if (name == 0)
			return NXM_ABSENT;
	}
	run->block[run->nblocks] = ref;
	run->names_of[run->nblocks++] = n;
	run->nnames += n;
	return NXM_OK;
}

/* Takes the first block off a run, which stays where it is. */
static void
drop_first(Run *run)
{
	run->nblocks--;
	run->nnames -= run->names_of[0];
	memmove(run->block, run->block + 1, (size_t) run->nblocks * sizeof(run->block[0]));
	memmove(run->name, run->name + run->names_of[0], (size_t) run->nnames * sizeof(run->name[0]));
	memmove(run->names_of, run->names_of + 1, (size_t) run->nblocks * sizeof(run->names_of[0]));
}

/*
 * Has fewer blocks take the place of a run, behind this link.  NXM_OK: and it is empty;
 * NXM_NEED_CHUNK; NXM_NEED_MEMORY.
 */
static NxmResult
replace_run(NxmSpace *space, NxmChain *chain, NxmAtomic *link, Run *run)
{
	NxmChainBlock *end = nxm_at(space, run->block[run->nblocks - 1]);
	NxmRef		behind = nxm_load(&end->next);
	NxmRef		first = behind;
	uint64_t	due = UINT64_MAX;

	/* all are retired below, with nothing in between */
	if (!nxm_can_retire(space, CHAIN_RUN))
		return NXM_NEED_CHUNK;
	for (int b = 0; b < run->nblocks; b++)
	{
		/* raised meanwhile or not, no name that is left is due before */
		uint64_t	theirs = nxm_load(&((NxmChainBlock *) nxm_at(space, run->block[b]))->due);

		due = theirs < due ? theirs : due;
	}
	/* from the last one on, so that each can name the one behind it */
	for (int b = blocks_for(run) - 1; b >= 0; b--)
	{
		NxmRef		ref = new_block(space, NXM_CHAIN_ENTRIES, due);
		NxmChainBlock *block;

		if (ref == 0)
		{
			NxmResult	result = nxm_no_object(space);

			while (first != behind)
			{
				ref = first;
				first = nxm_load_relaxed(&((NxmChainBlock *) nxm_at(space, ref))->next);
				nxm_free(space, ref);
			}
			return result;
		}
		block = nxm_at(space, ref);
		for (int e = 0; e < NXM_CHAIN_ENTRIES; e++)
		{
			int			i = b * NXM_CHAIN_ENTRIES + e;

			nxm_store_relaxed(&block->entry[e], i < run->nnames ? run->name[i] : NAME_GONE);
		}
		nxm_store_relaxed(&block->next, first);
		first = ref;
	}
	/* release: publishes them, or hands on what publishes the one behind */
	nxm_store(link, first);
	nxm_fetch_add_relaxed(&chain->blocks, (uint64_t) (blocks_for(run) - run->nblocks));
	for (int b = 0; b < run->nblocks; b++)
	{
		NxmRef		ref = run->block[b];

		if (nxm_load_relaxed(&chain->sought) == ref)
			nxm_store_relaxed(&chain->sought, first);
		/* what cleaning goes on behind goes at the head only */
		if (nxm_load_relaxed(&chain->cleaned) == ref)
			nxm_store_relaxed(&chain->cleaned, 0);
		nxm_retire_epoch(space, ref);
	}
	run->nblocks = run->nnames = 0;
	return NXM_OK;
}

/* The last block, which `tail` names then, or has named.  NXM_NEED_CHUNK. */
static NxmResult
find_last(NxmSpace *space, NxmChain *chain, NxmRef *last)
{
	/* `tail` only moves forward, so from now on it is this one or a later one */
	for (*last = nxm_load(&chain->tail);;)
	{
		NxmChainBlock *block = nxm_at(space, *last);
		NxmRef		tail = *last;
		uint64_t	next;

		if (block == NULL)
			return NXM_NEED_CHUNK;
		next = nxm_load(&block->next);
		if (next <= CHAIN_CLOSED)
			return NXM_OK;
		*last = nxm_cas(&chain->tail, &tail, next) ? next : tail;
	}
}

/*
 * Goes on through the chain to this last block, looking at this many.  NXM_EXISTS: it has
 * not come there; NXM_NEED_CHUNK; NXM_NEED_MEMORY.
 */
static NxmResult
join_blocks(NxmSpace *space, NxmChain *chain, NxmRef last, int looks)
{
	NxmRef		before = nxm_load_relaxed(&chain->cleaned);
	NxmAtomic  *link = &chain->head;
	NxmResult	result = NXM_EXISTS;
	Run			run;

	run.nblocks = run.nnames = 0;
	if (before != 0)
	{
		NxmChainBlock *block = nxm_at(space, before);

		if (block == NULL)
			return NXM_NEED_CHUNK;
		link = &block->next;
	}
	while (result == NXM_EXISTS && looks-- > 0)
	{
		NxmRef		ref = nxm_load(run.nblocks == 0 ? link :
								   &((NxmChainBlock *) nxm_at(space, run.block[run.nblocks - 1]))->next);
		NxmResult	added;

		/* where all of a run takes as many blocks as it has, so does each part of it */
		if (ref == last)
		{
			result = NXM_OK;
			before = 0;
			break;
		}
		added = add_block(space, &run, ref);
		if (added == NXM_NEED_CHUNK)
			result = added;
		else if (added == NXM_ABSENT)
		{
			before = ref;
			run.nblocks = run.nnames = 0;
		}
		else if (blocks_for(&run) < run.nblocks)
		{
			added = replace_run(space, chain, link, &run);
			if (added != NXM_OK)
				result = added;
		}
		else if (run.nblocks == CHAIN_RUN || run.names_of[0] == NXM_CHAIN_ENTRIES)
		{
			before = run.block[0];
			drop_first(&run);
		}
		if (before != 0)
			link = &((NxmChainBlock *) nxm_at(space, before))->next;
	}
	nxm_store_relaxed(&chain->cleaned, before);
	return result;
}

NxmResult
nxm_chain_clean(NxmSpace *space, NxmChain *chain, bool all)
{
	uint64_t	unlocked = 0;
	int			looks = NXM_CHAIN_STEP;
	NxmResult	result;
	NxmRef		last;
	NxmRef		ref;
	Run			run;

	if (nxm_load_relaxed(&chain->lock) != 0 ||
		!nxm_cas(&chain->lock, &unlocked, (uint64_t) space->proc + 1))
		return NXM_OK;
	result = find_last(space, chain, &last);
	run.nblocks = run.nnames = 0;
	while (result == NXM_OK && looks > 0 && (ref = nxm_load(&chain->head)) != last)
	{
		looks--;
		result = add_block(space, &run, ref);
		if (result != NXM_OK || run.nnames > 0)
			break;
		result = replace_run(space, chain, &chain->head, &run);
	}
	if (all && result != NXM_NEED_CHUNK)
		result = join_blocks(space, chain, last, looks);
	/* release: hands on where it goes on */
	nxm_store(&chain->lock, 0);
	return result == NXM_EXISTS || result == NXM_NEED_CHUNK ? result : NXM_OK;
}
