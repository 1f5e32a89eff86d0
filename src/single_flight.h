/*
 * single_flight.h
 *	  Of the sessions that miss a key of a cache at once, one computes it.
 */
#ifndef NXM_SINGLE_FLIGHT_H
#define NXM_SINGLE_FLIGHT_H

#include "registry.h"

#include "executor/execdesc.h"
#include "storage/lock.h"

/*
 * The fourth field of our advisory locks, pg_locks.objsubid: pg_advisory_lock()
 * and its like use 1 and 2.
 */
#define NXM_FLIGHT_LOCK_CLASS 0x4E58

typedef enum NxmFlightState
{
	NXM_FLIGHT_MISSED,			/* the key was, and nothing else is known */
	NXM_FLIGHT_WAITED,			/* another session computed it, or tried to */
	NXM_FLIGHT_LOCKED,			/* this one is to compute it, with the lock */
	NXM_FLIGHT_ALONE			/* or without */
} NxmFlightState;

/*
 * One session's way to the value of a key, on the stack of who wants it, for the
 * time of one function call.  Where an error ends that call, nxm_flight_leave()
 * must have been called if nxm_flight_enter() was; the lock is released with the
 * transaction or savepoint that the error aborts.
 */
typedef struct NxmFlight
{
	struct NxmFlight *outer;	/* in whose query this one computes */
	const char *cache;
	size_t		cache_len;
	Oid			owner;			/* of a default cache, which each role has */
	Oid			role;			/* who asks */
	NxmKey		key;
	NxmFlightWatch watch;		/* whether it is deleted meanwhile */
	LOCKTAG		tag;
	LOCKTAG		unmade_tag;		/* of flights begun before the cache was made */
	NxmFlightState state;
	bool		waited_in_vain; /* for one that was deleted meanwhile */
	bool		private;		/* what it computes is not for others */
	bool		too_deep;		/* in too many others: not for others either, but theirs is */
	bool		entered;		/* others can tell it of what is deleted */
	uint64		fruitless;		/* the shared count, as it was */
} NxmFlight;

/*
 * After the key was missed, in a cache of the current role.  cache_id: of the one that the
 * role may write to; 0: there was none.  Raises invalid_recursion where this session
 * computes that key already.
 */
extern void nxm_flight_begin(NxmFlight *flight, const char *cache, size_t cache_len,
							 uint64 cache_id, const NxmKey *key);

/*
 * Shall the key be looked for once more?  Takes its lock, or waits for who has it.
 * To be called until the key is found, or false: then it is to be computed.
 * Raises what waiting for a lock does.
 */
extern bool nxm_flight_look_again(NxmFlight *flight);

/* Before the value is computed, and after it was stored; also after an error. */
extern void nxm_flight_enter(NxmFlight *flight);
extern void nxm_flight_leave(NxmFlight *flight);

/* May what was computed be stored for others? */
extern bool nxm_flight_shareable(const NxmFlight *flight);

/*
 * No, and yes: since nxm_flight_enter() the key was deleted or set, or the cache emptied
 * or dropped, and the value may be older than that.  The first is to be asked before it is
 * stored, which makes a cache, and the second afterwards: then it has to be deleted.
 */
extern bool nxm_flight_may_store(const NxmFlight *flight);
extern bool nxm_flight_must_remove(const NxmFlight *flight);

/*
 * Lets others go on.  fruitless: a value was computed and could not be stored, or was
 * outdated once more: who waited for it shall not wait for another one.
 */
extern void nxm_flight_end(NxmFlight *flight, bool fruitless);

/*
 * Before a key is deleted, or a cache of the current role emptied or dropped, also
 * where there is none yet.  This process must be attached.
 */
extern void nxm_flight_note_delete(const char *cache, size_t len,
								   const NxmKey *key);
extern void nxm_flight_note_clear(const char *cache, size_t len);

/* Before a key is set or added by who does not compute it.  As above. */
extern void nxm_flight_note_set(const char *cache, size_t len, const NxmKey *key);

/* To be called after each ExecutorStart. */
extern void nxm_flight_statement_slow(QueryDesc *query);
extern NxmFlight *nxm_flight_innermost;

static inline void
nxm_flight_statement(QueryDesc *query)
{
	if (unlikely(nxm_flight_innermost != NULL))
		nxm_flight_statement_slow(query);
}

#endif							/* NXM_SINGLE_FLIGHT_H */
