/*
 * single_flight.c
 *	  Of the sessions that miss a key of a cache at once, one computes it.
 *
 * The lock is one of PostgreSQL's lock manager, an advisory lock of a class of
 * its own, named by the database and 64 bits of a hash of key and cache, which is told
 * by its id: so who must not write to it holds up nobody.  Two
 * keys of one hash wait for each other without need, and that is all.  It is
 * held to the end of the function call that took it; an error, a cancellation
 * or the end of the session release it as they do all locks of a transaction.
 * It does not outlive the call otherwise, so that nothing of it is prepared or
 * held while a transaction is idle.  Waiting can be cancelled, is subject to
 * lock_timeout and statement_timeout, is seen in pg_locks and as wait event
 * Lock/advisory, and takes part in the search for deadlocks.
 *
 * Who computes has it in exclusive mode.  Others wait in share mode, so that all
 * wake up at once, give it up and look for the key again.  Where it is still
 * missing, who computed has failed, or the key was deleted: they wait in exclusive
 * mode then, one by one, and the first computes.  Where a value was computed that
 * cannot be stored (a NULL, too long, for one role only) that would make each of
 * them wait for all before it, so it is counted as fruitless, and who waited
 * meanwhile computes on its own.  So it is where the key was deleted while others
 * waited for it, one of them computes it in its turn, and it is deleted again meanwhile.
 *
 * Where there is no cache yet, the lock is of the role alone: the cache may become
 * another's.  Who finds it made then waits for his own role's flights from before it was.
 *
 * Who computes one key and misses another takes that lock only if it is free.  So
 * whoever waits holds none, and locks of this class alone make no deadlock.  A
 * transaction whose value could not be stored anyway neither locks nor waits.
 *
 * What must not be stored: others would see what only this transaction can see,
 * or what a role was shown by row security.
 *
 *	- the transaction has a transaction ID: it has written, before or in the query
 *	- it has a snapshot of its own, from REPEATABLE READ up
 *	- a statement run meanwhile, the query or one in a function that it called,
 *	  had row security applied to a table, or read a temporary one.  Each plan is
 *	  looked at when it starts; one that may run functions in parallel workers, where
 *	  nobody looks, counts as if it had.  (The query itself runs without workers then.)
 *	- the query has changed the role: the value would go where that one stores
 *
 * And what is computed in NXM_FLIGHTS_NESTED others, each in the one before, is not
 * stored, though those may be: one session could take all slots of core/flight.h, as far
 * as its stack goes, and as many locks.
 *
 * Deletes.  A key that is deleted or set while it is computed does not get an older
 * value afterwards: core/flight.h has the protocol, on words in the anchor.
 *
 * Limits.  What a function reads through a foreign table or another connection is
 * not seen, nor what policies are written into a view.  A query that waits for
 * the same key through another connection of its own waits for itself, which no
 * search for deadlocks sees.
 */
#include "single_flight.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "parser/parse_relation.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

NxmFlight  *nxm_flight_innermost = NULL;

static inline NxmFlights *
shared_flights(void)
{
	return &nxm_registry_anchor->flights;
}

static Oid
owner_of(const char *cache, size_t len)
{
	return nxm_is_default_cache(NXM_KIND_CACHE, cache, len) ? GetUserId() :
		InvalidOid;
}

/* The hash of a cache, and of a key in it. */
static uint64
hash_of(Oid owner, const char *cache, size_t cache_len, const NxmKey *key)
{
	char		name[2 * sizeof(Oid) + NXM_MAX_NAME + 1 + NXM_MAX_KEY];
	char	   *p = name;

	memcpy(p, &MyDatabaseId, sizeof(Oid));
	p += sizeof(Oid);
	memcpy(p, &owner, sizeof(Oid));
	p += sizeof(Oid);
	memcpy(p, cache, cache_len);
	p += cache_len;
	/* in no name of a cache */
	*p++ = '\0';
	if (key != NULL)
	{
		memcpy(p, key->data, key->len);
		p += key->len;
	}
	return nxm_hash(name, (size_t) (p - name));
}

/* under_way: flights that may be of this key, none as a rule. */
static inline void
note(uint64 under_way, const char *cache, size_t len, const NxmKey *key)
{
	if (unlikely(under_way != 0))
	{
		uint64		hash = hash_of(owner_of(cache, len), cache, len, key);

		if (nxm_flights_concern(under_way, hash))
			nxm_flights_tell(shared_flights(), hash, false);
	}
}

void
nxm_flight_note_set(const char *cache, size_t len, const NxmKey *key)
{
	note(nxm_flights_before_set(shared_flights(), key->hash), cache, len, key);
}

void
nxm_flight_note_delete(const char *cache, size_t len, const NxmKey *key)
{
	note(nxm_flights_before_delete(shared_flights(), key->hash), cache, len, key);
}

void
nxm_flight_note_clear(const char *cache, size_t len)
{
	nxm_flights_note_clear(shared_flights(), hash_of(owner_of(cache, len), cache, len, NULL));
}

bool
nxm_flight_may_store(const NxmFlight *flight)
{
	return nxm_flights_may_store(shared_flights(), &flight->watch);
}

bool
nxm_flight_must_remove(const NxmFlight *flight)
{
	return nxm_flights_must_remove(shared_flights(), &flight->watch);
}

/* Can nothing be stored, whatever the query is? */
static bool
transaction_is_private(void)
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		IsolationUsesXactSnapshot();
}

static bool
same_key(const NxmFlight *a, const NxmFlight *b)
{
	return a->key.len == b->key.len && a->cache_len == b->cache_len &&
		a->owner == b->owner &&
		memcmp(a->key.data, b->key.data, a->key.len) == 0 &&
		memcmp(a->cache, b->cache, a->cache_len) == 0;
}

/* The key, cut to what fits in a message. */
static int
shown_len(const NxmFlight *flight)
{
	return pg_mbcliplen(flight->key.data, (int) flight->key.len, 64);
}

static void
waiting_context(void *arg)
{
	const NxmFlight *flight = arg;

	errcontext("while waiting for another session to compute key \"%.*s\" of cache \"%.*s\"",
			   shown_len(flight), flight->key.data,
			   (int) flight->cache_len, flight->cache);
}

static void
wait_for_lock(NxmFlight *flight, const LOCKTAG *tag, LOCKMODE mode)
{
	ErrorContextCallback context;

	context.callback = waiting_context;
	context.arg = flight;
	context.previous = error_context_stack;
	error_context_stack = &context;
	(void) LockAcquire(tag, mode, false, false);
	error_context_stack = context.previous;
}

/* Of a key, and whose flights wait for each other. */
static void
set_tag(LOCKTAG *tag, uint64 hash, uint64 whose)
{
	hash = nxm_hash_mix(hash ^ nxm_hash_seeds[0], whose ^ nxm_hash_seeds[1]);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 NXM_FLIGHT_LOCK_CLASS);
}

void
nxm_flight_begin(NxmFlight *flight, const char *cache, size_t cache_len,
				 uint64 cache_id, const NxmKey *key)
{
	int			depth = 0;

	memset(flight, 0, sizeof(*flight));
	flight->owner = owner_of(cache, cache_len);
	flight->role = GetUserId();
	flight->cache = cache;
	flight->cache_len = cache_len;
	flight->key = *key;

	for (NxmFlight *f = nxm_flight_innermost; f != NULL; f = f->outer)
	{
		depth += f->entered;
		if (same_key(f, flight))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_RECURSION),
					 errmsg("query that computes key \"%.*s\" of cache \"%.*s\" asks for that key itself",
							shown_len(flight), flight->key.data,
							(int) cache_len, cache)));
	}

	flight->private = transaction_is_private();
	flight->too_deep = depth >= NXM_FLIGHTS_NESTED;
	flight->watch.key_hash = key->hash;
	flight->watch.hash = hash_of(flight->owner, cache, cache_len, key);
	flight->watch.cache_hash = hash_of(flight->owner, cache, cache_len, NULL);
	/* ids count from one up, and do not get there */
	set_tag(&flight->unmade_tag, flight->watch.hash, ~(uint64) flight->role);
	flight->tag = flight->unmade_tag;
	if (cache_id != 0)
		set_tag(&flight->tag, flight->watch.hash, cache_id);
}

static inline NxmAtomic *
fruitless_count(const NxmFlight *flight)
{
	return nxm_flights_word(shared_flights()->fruitless, flight->watch.hash);
}

/* Did somebody compute in vain since this session missed the key? */
static bool
was_fruitless(const NxmFlight *flight)
{
	/* acquire; pairs with the increment in nxm_flight_end() */
	return nxm_load(fruitless_count(flight)) != flight->fruitless;
}

/* Takes the lock, and returns NULL, unless that would wait; then the tag to wait at. */
static const LOCKTAG *
try_lock(NxmFlight *flight)
{
	/* only looked at: at most those begin there that have waited there */
	if (memcmp(&flight->tag, &flight->unmade_tag, sizeof(LOCKTAG)) != 0)
	{
		if (LockAcquire(&flight->unmade_tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
			return &flight->unmade_tag;
		(void) LockRelease(&flight->unmade_tag, ShareLock, false);
	}
	return LockAcquire(&flight->tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL ?
		&flight->tag : NULL;
}

bool
nxm_flight_look_again(NxmFlight *flight)
{
	const LOCKTAG *taken;

	switch (flight->state)
	{
		case NXM_FLIGHT_MISSED:
			if (flight->private || flight->too_deep)
				break;
			/* acquire; as in was_fruitless() */
			flight->fruitless = nxm_load(fruitless_count(flight));
			taken = try_lock(flight);
			if (taken == NULL)
			{
				/* somebody may have computed it between the miss and now */
				flight->state = NXM_FLIGHT_LOCKED;
				return true;
			}
			if (nxm_flight_innermost != NULL)
				break;
			nxm_flights_watch(shared_flights(), &flight->watch);
			wait_for_lock(flight, taken, ShareLock);
			(void) LockRelease(taken, ShareLock, false);
			/* with the others that wait there, should it fail */
			if (taken == &flight->unmade_tag)
				flight->tag = flight->unmade_tag;
			flight->waited_in_vain = nxm_flights_changed(shared_flights(), &flight->watch);
			flight->state = NXM_FLIGHT_WAITED;
			return true;
		case NXM_FLIGHT_WAITED:
			if (was_fruitless(flight))
				break;
			wait_for_lock(flight, &flight->tag, ExclusiveLock);
			flight->state = NXM_FLIGHT_LOCKED;
			return true;
		case NXM_FLIGHT_LOCKED:
			if (!was_fruitless(flight))
				return false;
			(void) LockRelease(&flight->tag, ExclusiveLock, false);
			break;
		case NXM_FLIGHT_ALONE:
			break;
	}
	flight->state = NXM_FLIGHT_ALONE;
	return false;
}

/* Of a session that is terminated in its query, on whose stack the flights still are. */
static void
leave_all(int code, Datum arg)
{
	(void) code;
	(void) arg;
	while (nxm_flight_innermost != NULL)
		nxm_flight_leave(nxm_flight_innermost);
}

void
nxm_flight_enter(NxmFlight *flight)
{
	static bool watching = false;

	if (!watching)
		before_shmem_exit(leave_all, (Datum) 0);
	watching = true;
	/* a background worker that is ended between the two would be counted for ever */
	nxm_begin_operation();
	/* where nothing will be stored nobody has to tell of anything */
	flight->entered = !flight->private && !flight->too_deep;
	if (flight->entered)
		nxm_flights_enter(shared_flights(), &flight->watch, nxm_registry_space->proc);
	flight->outer = nxm_flight_innermost;
	nxm_flight_innermost = flight;
	nxm_end_operation();
}

void
nxm_flight_leave(NxmFlight *flight)
{
	nxm_begin_operation();
	nxm_flight_innermost = flight->outer;
	if (flight->entered)
		nxm_flights_leave(shared_flights(), &flight->watch);
	nxm_end_operation();
	if (flight->outer != NULL)
		flight->outer->private |= flight->private;
}

bool
nxm_flight_shareable(const NxmFlight *flight)
{
	return !flight->private && !flight->too_deep && !transaction_is_private() &&
		flight->role == GetUserId();
}

void
nxm_flight_end(NxmFlight *flight, bool fruitless)
{
	if (flight->state != NXM_FLIGHT_LOCKED)
		return;
	/* before the lock is released: who waits for it sees the count */
	if (fruitless)
		(void) nxm_fetch_add(fruitless_count(flight), 1);
	(void) LockRelease(&flight->tag, ExclusiveLock, false);
}

void
nxm_flight_statement_slow(QueryDesc *query)
{
	PlannedStmt *stmt = query->plannedstmt;
	NxmFlight  *flight = nxm_flight_innermost;
	ListCell   *lc;

	if (flight->private)
		return;

	/* what functions of somebody's own read in workers is not looked at there */
	if (stmt->parallelModeNeeded)
	{
		foreach(lc, stmt->invalItems)
			flight->private |= lfirst_node(PlanInvalItem, lc)->cacheId == PROCOID;
	}
	foreach(lc, stmt->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* a view is a subquery with its OID, since 16 */
		if (rte->rtekind != RTE_RELATION &&
			(rte->rtekind != RTE_SUBQUERY || !OidIsValid(rte->relid)))
			continue;

		/*
		 * Not applied to a table's owner, for one.  (A plan's dependsOnRole tells
		 * of functions alone that were inlined in it.)
		 */
		if (check_enable_rls(rte->relid, nxm_check_as_user(stmt, rte), true) ==
			RLS_ENABLED ||
			get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
		{
			flight->private = true;
			return;
		}
	}
}
