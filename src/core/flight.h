/*
 * flight.h
 *	  Values of keys of caches that are being computed, and what deletes or sets the
 *	  keys meanwhile.
 *
 * A value is computed from a snapshot, and stored later: that is a flight.  A key that
 * was deleted between the two, because what it was computed from had changed, would come
 * back with its old value and stay.  So deleting raises a count, and who stores looks at
 * it before and after.  A count that is raised costs others, and most keys are not being
 * computed.  So who deletes a key raises the count only where it finds that somebody
 * computes one of that hash:
 *
 *	who computes: raise number of flights, fence, counts, snapshot; store; fence, counts:
 *		remove if changed; lower number of flights
 *	who deletes: (commit), fence, flights; if one may be of this key raise count, fence;
 *		delete
 *
 * Who deletes and finds the flight: by the two fences between raising a count, storing
 * and looking for what the other did, either it finds what was stored, or who stored
 * finds the count raised.  If it was raised before the first look at it, the snapshot was
 * taken after the commit that came before it.
 *
 * Who deletes and finds none has committed before the snapshots of the flights that come,
 * by the other two fences; and finds what those stored that are over.
 *
 * Setting a key is like deleting it, for what was set may have expired or been evicted
 * when an older value is stored.  Who sets one leaves out the first fence: commits end
 * with barriers.
 *
 * Emptying a cache, or dropping it, is like deleting all its keys.  Anybody may do so where
 * there is no cache of that name, so it must cost flights of other caches nothing: each
 * flight has a slot with the hash of its cache, and who empties one looks at all slots.
 * For "number of flights" and "count" above read slot, and a bit in it.
 *
 * A look just before the store spares it, which would make a cache again that was dropped.
 * (Only one that is dropped between that look and the store comes back, empty.)
 *
 * Words are shared by keys of all caches, by hash: a count that was raised for another
 * key costs a computation or a stored value, and no more.  Where there is no slot left, what
 * is computed is not stored.
 *
 * Memory orders.  A snapshot and a lookup in a cache may be relaxed loads.  What is called
 * commit has to be a release, and a barrier before a key is set.  test/unit/check_flight.c
 * tries them so.
 *
 * Limits.  A word has room for 2^20 - 1 flights at once; a process is in several where a
 * query that computes asks for another key.  One that ends without lowering the number
 * leaves a flight for ever, and others with counts that are raised for nothing.
 */
#ifndef NXM_FLIGHT_H
#define NXM_FLIGHT_H

#include "core_atomic.h"

#define NXM_FLIGHT_WORDS 1024
#ifndef NXM_FLIGHT_SLOTS		/* a test has less */
#define NXM_FLIGHT_SLOTS 1024
#endif

/* Shared; zeroed memory. */
typedef struct NxmFlights
{
	NxmAtomic	deletes[NXM_FLIGHT_WORDS];	/* counts, by hash of cache and key, and of a
											 * cache alone */
	NxmAtomic	fruitless[NXM_FLIGHT_WORDS];	/* by hash of cache and key; of
												 * single_flight.c, which has a lock */
	NxmAtomic	under_way[NXM_FLIGHT_WORDS];	/* numbers of flights, by hash of the key */
	NxmAtomic	slots[NXM_FLIGHT_SLOTS];	/* caches of flights: NXM_FLIGHT_IN(), 0: free */
} NxmFlights;

/* Of which key a flight is, and the counts as it has seen them.  Of one process. */
typedef struct NxmFlightWatch
{
	uint64_t	key_hash;		/* of the key alone, which who deletes has at hand */
	uint64_t	hash;			/* of cache and key */
	uint64_t	cache_hash;
	int			slot;			/* -1: none */
	uint64_t	key_deletes;
	uint64_t	cache_deletes;
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

/* A slot that is taken, by a flight in this cache; and the bit that tells of its emptying. */
#define NXM_FLIGHT_CLEARED		UINT64_C(2)
#define NXM_FLIGHT_IN(cache_hash)	(((cache_hash) & ~UINT64_C(3)) | 1)

/* nxm_flights_changed() is about what comes from now on. */
static inline void
nxm_flights_watch(NxmFlights *flights, NxmFlightWatch *watch)
{
	/* acquire; pair with nxm_flights_note(): a snapshot taken from here on is newer */
	watch->key_deletes = nxm_load(nxm_flights_word(flights->deletes, watch->hash));
	watch->cache_deletes = nxm_load(nxm_flights_word(flights->deletes, watch->cache_hash));
}

/* Before the snapshot.  false: without a slot, and what is computed must not be stored. */
static inline bool
nxm_flights_enter(NxmFlights *flights, NxmFlightWatch *watch)
{
	(void) nxm_fetch_add(nxm_flights_word(flights->under_way, watch->key_hash),
						 NXM_FLIGHT_OF(watch->hash));
	watch->slot = -1;
	for (int i = 0; i < NXM_FLIGHT_SLOTS && watch->slot < 0; i++)
	{
		int			slot = (int) ((watch->hash / NXM_FLIGHT_WORDS + (uint64_t) i) %
								  NXM_FLIGHT_SLOTS);
		uint64_t	is_free = 0;

		/* acquire; pairs with the store in nxm_flights_leave() */
		if (nxm_load_relaxed(&flights->slots[slot]) == 0 &&
			nxm_cas(&flights->slots[slot], &is_free, NXM_FLIGHT_IN(watch->cache_hash)))
			watch->slot = slot;
	}
	/*
	 * pairs with the ones in nxm_flights_before_delete() and nxm_flights_note_clear(), or
	 * a commit's: who deletes or sets sees us, or we what it changed
	 */
	nxm_fence();
	nxm_flights_watch(flights, watch);
	return watch->slot >= 0;
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
	/* likewise, with the load in nxm_flights_note_clear() */
	if (watch->slot >= 0)
		nxm_store(&flights->slots[watch->slot], 0);
}

/*
 * Has one of the counts been raised since they were looked at?  For who is in no flight, and
 * waits for one.
 */
static inline bool
nxm_flights_changed(NxmFlights *flights, const NxmFlightWatch *watch)
{
	return nxm_load(nxm_flights_word(flights->deletes, watch->hash)) != watch->key_deletes ||
		nxm_load(nxm_flights_word(flights->deletes, watch->cache_hash)) !=
		watch->cache_deletes;
}

/* Was the key deleted or set, or its cache emptied, since nxm_flights_enter()? */
static inline bool
nxm_flights_outdated(NxmFlights *flights, const NxmFlightWatch *watch)
{
	if (watch->slot < 0)
		return true;
	/*
	 * pairs with the ones in nxm_flights_note() and nxm_flights_note_clear(): one of the two
	 * sees what the other did
	 */
	nxm_fence();
	/* relaxed: the fence came before */
	return nxm_load_relaxed(nxm_flights_word(flights->deletes, watch->hash)) !=
		watch->key_deletes ||
		nxm_load_relaxed(&flights->slots[watch->slot]) != NXM_FLIGHT_IN(watch->cache_hash);
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

/* Raises the count of a hash of cache and key, before the key is deleted or set. */
static inline void
nxm_flights_note(NxmFlights *flights, uint64_t hash)
{
	/* release; pairs with the loads in nxm_flights_watch() */
	(void) nxm_fetch_add(nxm_flights_word(flights->deletes, hash), 1);
	/* pairs with the one in nxm_flights_outdated() */
	nxm_fence();
}

/*
 * Before a cache is emptied or dropped.  A flight that has taken a slot since another one
 * in this cache left it may be told for nothing.
 */
static inline void
nxm_flights_note_clear(NxmFlights *flights, uint64_t cache_hash)
{
	bool		found = false;

	/* pairs with the one in nxm_flights_enter(), as that in nxm_flights_before_delete() */
	nxm_fence();
	for (int i = 0; i < NXM_FLIGHT_SLOTS; i++)
	{
		/* relaxed: with the fence below it pairs with the store in nxm_flights_leave() */
		uint64_t	in = nxm_load_relaxed(&flights->slots[i]);

		if (in == NXM_FLIGHT_IN(cache_hash))
		{
			/* it fails where the flight is over, or was told by somebody else */
			(void) nxm_cas(&flights->slots[i], &in, in | NXM_FLIGHT_CLEARED);
			found = true;
		}
	}
	/* for who waits for one of them */
	if (found)
		(void) nxm_fetch_add(nxm_flights_word(flights->deletes, cache_hash), 1);
	/* pairs with the one in nxm_flights_outdated(); what was stored is found by it too */
	nxm_fence();
}

/*
 * Before a key is set, and what it was made from has changed with a barrier.  0: nothing
 * is to be noted; else the caller asks nxm_flights_concern().
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

/* May one of them be of this hash of cache and key?  Then it is to be noted. */
static inline bool
nxm_flights_concern(uint64_t under_way, uint64_t hash)
{
	return (under_way & NXM_FLIGHT_COUNT) > 1 || under_way == NXM_FLIGHT_OF(hash);
}

#endif							/* NXM_FLIGHT_H */
