/*
 * flight.h
 *	  Values of keys of caches that are being computed, and what deletes or sets the
 *	  keys meanwhile.
 *
 * A value is computed from a snapshot, and stored later: that is a flight.  A key that
 * was deleted between the two, because what it was computed from had changed, would come
 * back with its old value and stay.  So each flight has a slot, with words for its key and
 * for its cache, and who deletes the key, or empties or drops the cache, tells it by a bit
 * there:
 *
 *	who computes: take slot, fence, snapshot; store; fence, bits: remove if told; leave slot
 *	who deletes: (commit), fence, tell those in slots, fence; delete
 *
 * Who deletes and finds the flight: by the two fences between telling, storing and looking
 * for what the other did, either it finds what was stored, or who stored finds the bit.
 * It may be told of a change that its snapshot has, and then is not stored for nothing.
 *
 * Who deletes and finds none has committed before the snapshots of the flights that come,
 * by the other two fences; and finds what those stored that are over.
 *
 * Most keys are not being computed.  So numbers of flights, in words by hash of the key,
 * tell who deletes one whether to look at the slots at all.
 *
 * Setting a key is like deleting it, for what was set may have expired or been evicted
 * when an older value is stored.  Who sets one leaves out the first fence: commits end
 * with barriers.
 *
 * Slots.  Each process has one of its own, by its number, where the numbers do not go past
 * them, so that its outermost flight finds it free however many flights others have.  Those
 * of computations that another one asks for share the rest, and so do processes of one slot.
 * A process has NXM_FLIGHTS_NESTED flights at most: what is computed deeper is not stored,
 * and nobody has to be told of it.  So 74 sessions that compute so deep take all shared
 * slots, which costs flights in others alone; ten have a flight in 80 words of 1,024 and two
 * in 3, so that who deletes or sets another key rarely looks at the slots.
 *
 * Where all of them are taken a flight does without, and is told by counts: who deletes a key
 * or empties a cache raises one, by hash, and who computes compares it with what it was
 * before the snapshot.  These have more to do as well: who waits for a flight looks at
 * them to see that it was told.  So they are raised where a flight is told, or one is
 * without a slot.  Others that have the word share what it costs: where they are without a
 * slot too a stored value, where they wait a computation.
 *
 * A look just before the store spares it, which would make a cache again that was dropped.
 * (Only one that is dropped between that look and the store comes back, empty.)
 *
 * Memory orders.  A snapshot and a lookup in a cache may be relaxed loads.  What is called
 * commit has to be a release, and a barrier before a key is set.  test/unit/check_flight.c
 * tries them so.
 *
 * Limits.  A word has room for 2^20 - 1 flights at once.  A process that ends without leaving
 * its flights takes slots for ever.
 */
#ifndef NXM_FLIGHT_H
#define NXM_FLIGHT_H

#include "core_atomic.h"

#define NXM_FLIGHT_WORDS 1024
#ifndef NXM_FLIGHT_SLOTS		/* a test has less */
#define NXM_FLIGHT_SLOTS 1024
#define NXM_FLIGHT_OWN_SLOTS 512	/* the first of them: of a process each */
#endif
#define NXM_FLIGHTS_NESTED 8	/* most of a process, each in the one before */

/* Hashes of a flight's cache and key: NXM_FLIGHT_TAKEN(), NXM_FLIGHT_TOLD.  0: free. */
typedef struct NxmFlightSlot
{
	NxmAtomic	cache;
	NxmAtomic	key;			/* of cache and key; 0 where the slot was just taken */
} NxmFlightSlot;

/* Shared; zeroed memory. */
typedef struct NxmFlights
{
	NxmAtomic	told[NXM_FLIGHT_WORDS]; /* counts, by hash of cache and key, and of a cache
										 * alone */
	NxmAtomic	fruitless[NXM_FLIGHT_WORDS];	/* by hash of cache and key; of
												 * single_flight.c, which has a lock */
	NxmAtomic	under_way[NXM_FLIGHT_WORDS];	/* numbers of flights, by hash of the key */
	NxmFlightSlot slots[NXM_FLIGHT_SLOTS];
	NxmAtomic	slotless;		/* flights that have none */
} NxmFlights;

/* Of which key a flight is, and the counts as it has seen them.  Of one process. */
typedef struct NxmFlightWatch
{
	uint64_t	key_hash;		/* of the key alone, which who deletes has at hand */
	uint64_t	hash;			/* of cache and key */
	uint64_t	cache_hash;
	int			slot;			/* -1: none */
	uint64_t	key_told;
	uint64_t	cache_told;
} NxmFlightWatch;

static inline NxmAtomic *
nxm_flights_word(NxmAtomic *words, uint64_t hash)
{
	return &words[hash % NXM_FLIGHT_WORDS];
}

/*
 * What a flight adds to a word: one, and above that the rest of its hash, so that the
 * word tells of which hash a flight is that is the only one there.
 */
#define NXM_FLIGHT_COUNT		UINT64_C(0xFFFFF)
#define NXM_FLIGHT_OF(hash)		(((hash) & ~NXM_FLIGHT_COUNT) | 1)

/* A word of a slot that is taken; and the bit that tells its flight. */
#define NXM_FLIGHT_TOLD			UINT64_C(2)
#define NXM_FLIGHT_TAKEN(hash)	(((hash) & ~UINT64_C(3)) | 1)

/* nxm_flights_changed() is about what comes from now on. */
static inline void
nxm_flights_watch(NxmFlights *flights, NxmFlightWatch *watch)
{
	/* acquire; pair with nxm_flights_tell(): a snapshot taken from here on is newer */
	watch->key_told = nxm_load(nxm_flights_word(flights->told, watch->hash));
	watch->cache_told = nxm_load(nxm_flights_word(flights->told, watch->cache_hash));
}

/* Takes slot n if it is free. */
static inline void
nxm_flights_try_slot(NxmFlights *flights, NxmFlightWatch *watch, int n)
{
	NxmFlightSlot *slot = &flights->slots[n];
	uint64_t	is_free = 0;

	/* acquire; pairs with the store in nxm_flights_leave() */
	if (nxm_load_relaxed(&slot->cache) == 0 &&
		nxm_cas(&slot->cache, &is_free, NXM_FLIGHT_TAKEN(watch->cache_hash)))
	{
		/* release, with the fence in nxm_flights_enter() */
		nxm_store_relaxed(&slot->key, NXM_FLIGHT_TAKEN(watch->hash));
		watch->slot = n;
	}
}

/* Before the snapshot.  proc: the number of this process. */
static inline void
nxm_flights_enter(NxmFlights *flights, NxmFlightWatch *watch, int proc)
{
	int			shared = NXM_FLIGHT_SLOTS - NXM_FLIGHT_OWN_SLOTS;

	(void) nxm_fetch_add(nxm_flights_word(flights->under_way, watch->key_hash),
						 NXM_FLIGHT_OF(watch->hash));
	watch->slot = -1;
	nxm_flights_try_slot(flights, watch, proc % NXM_FLIGHT_OWN_SLOTS);
	for (int i = 0; i < shared && watch->slot < 0; i++)
		nxm_flights_try_slot(flights, watch, NXM_FLIGHT_OWN_SLOTS +
							 (int) ((watch->hash / NXM_FLIGHT_WORDS + (uint64_t) i) %
									(uint64_t) shared));
	if (watch->slot < 0)
		(void) nxm_fetch_add(&flights->slotless, 1);
	/*
	 * pairs with the ones in nxm_flights_before_delete() and nxm_flights_note_clear(), or
	 * a commit's: who deletes or sets sees us, or we what it changed
	 */
	nxm_fence();
	nxm_flights_watch(flights, watch);
}

/* After what was stored has been removed, where it had to be. */
static inline void
nxm_flights_leave(NxmFlights *flights, const NxmFlightWatch *watch)
{
	/*
	 * release; pairs with the load in nxm_flights_before_set(), after which what was
	 * stored is found.  (So it is by the fence that came after the store.)
	 */
	(void) nxm_fetch_add(nxm_flights_word(flights->under_way, watch->key_hash),
						 -NXM_FLIGHT_OF(watch->hash));
	/* likewise, with the loads in nxm_flights_tell() and the fence after them */
	if (watch->slot < 0)
		(void) nxm_fetch_add(&flights->slotless, UINT64_C(-1));
	else
	{
		nxm_store_relaxed(&flights->slots[watch->slot].key, 0);
		nxm_store(&flights->slots[watch->slot].cache, 0);
	}
}

/*
 * Was a flight of this key or in this cache told since nxm_flights_watch()?  For who is in
 * none, and waits for one.
 */
static inline bool
nxm_flights_changed(NxmFlights *flights, const NxmFlightWatch *watch)
{
	return nxm_load(nxm_flights_word(flights->told, watch->hash)) != watch->key_told ||
		nxm_load(nxm_flights_word(flights->told, watch->cache_hash)) != watch->cache_told;
}

/* Was the key deleted or set, or its cache emptied, since nxm_flights_enter()? */
static inline bool
nxm_flights_outdated(NxmFlights *flights, const NxmFlightWatch *watch)
{
	NxmFlightSlot *slot;

	/* pairs with the one in nxm_flights_tell(): one of the two sees what the other did */
	nxm_fence();
	if (watch->slot < 0)
		return nxm_flights_changed(flights, watch);
	slot = &flights->slots[watch->slot];
	/* relaxed: the fence came before */
	return nxm_load_relaxed(&slot->key) != NXM_FLIGHT_TAKEN(watch->hash) ||
		nxm_load_relaxed(&slot->cache) != NXM_FLIGHT_TAKEN(watch->cache_hash);
}

/*
 * Before the value is stored.  For what storing does apart from that: a count that is
 * not seen here is seen afterwards, also without the fence.
 */
static inline bool
nxm_flights_may_store(NxmFlights *flights, const NxmFlightWatch *watch)
{
	return !nxm_flights_outdated(flights, watch);
}

/* After it was.  Not where the key had a value meanwhile: who stored that one asks. */
static inline bool
nxm_flights_must_remove(NxmFlights *flights, const NxmFlightWatch *watch)
{
	return nxm_flights_outdated(flights, watch);
}

/*
 * Tells flights of which the hash is that of cache and key, or, with `of_cache`, of the cache,
 * before the key is deleted or set, or the cache emptied.  One that has taken a slot since
 * another such flight left it may be told for nothing.
 */
static inline void
nxm_flights_tell(NxmFlights *flights, uint64_t hash, bool of_cache)
{
	bool		found = nxm_load_relaxed(&flights->slotless) != 0;

	for (int i = 0; i < NXM_FLIGHT_SLOTS; i++)
	{
		NxmAtomic  *word = of_cache ? &flights->slots[i].cache : &flights->slots[i].key;
		uint64_t	in = nxm_load_relaxed(word);

		if ((in & ~NXM_FLIGHT_TOLD) != NXM_FLIGHT_TAKEN(hash))
			continue;
		/* it fails where the flight is over, or was told by somebody else */
		if ((in & NXM_FLIGHT_TOLD) == 0)
			(void) nxm_cas(word, &in, in | NXM_FLIGHT_TOLD);
		found = true;
	}
	/* also where it was told before: who waits since then has not seen that */
	if (found)
	{
		/* release, as the fence of who changed something is; pairs with nxm_flights_watch() */
		(void) nxm_fetch_add(nxm_flights_word(flights->told, hash), 1);
	}
	/* pairs with the one in nxm_flights_outdated(); what was stored is found by it too */
	nxm_fence();
}

/* Before a cache is emptied or dropped. */
static inline void
nxm_flights_note_clear(NxmFlights *flights, uint64_t cache_hash)
{
	/* pairs with the one in nxm_flights_enter(), as that in nxm_flights_before_delete() */
	nxm_fence();
	nxm_flights_tell(flights, cache_hash, true);
}

/*
 * Before a key is set, and what it was made from has changed with a barrier.  0: nobody
 * is to be told; else the caller asks nxm_flights_concern().
 */
static inline uint64_t
nxm_flights_before_set(NxmFlights *flights, uint64_t key_hash)
{
	/* acquire; pairs with the addition in nxm_flights_leave() */
	return nxm_load(nxm_flights_word(flights->under_way, key_hash));
}

/* Before one is deleted, likewise. */
static inline uint64_t
nxm_flights_before_delete(NxmFlights *flights, uint64_t key_hash)
{
	/* what changed need not be of a commit; pairs with the one in nxm_flights_enter() */
	nxm_fence();
	return nxm_flights_before_set(flights, key_hash);
}

/* May one of them be of this hash of cache and key?  Then nxm_flights_tell() is due. */
static inline bool
nxm_flights_concern(uint64_t under_way, uint64_t hash)
{
	return (under_way & NXM_FLIGHT_COUNT) > 1 || under_way == NXM_FLIGHT_OF(hash);
}

#endif							/* NXM_FLIGHT_H */
