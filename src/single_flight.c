/*
 * single_flight.c
 *	  Of the sessions that miss a key of a cache at once, one computes it.
 *
 * The lock is one of PostgreSQL's lock manager, an advisory lock of a class of
 * its own, named by the database and 64 bits of a hash of cache and key.  Two
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
 * Deletes.  A value is computed from a snapshot, and stored later.  A key that
 * was deleted between the two, because what it was computed from had changed,
 * would come back with its old value and stay.  So deleting raises a count, and
 * who stores looks at it before and after:
 *
 *	who computes: count, snapshot, store, fence, count again; delete if changed
 *	who deletes:  (commit), raise count, fence, delete
 *
 * By the two fences, either who deletes finds what was stored, or who stored
 * finds the count raised.  If it was raised before the first look, the snapshot
 * was taken after the commit that came before it.  A look just before the store spares
 * it, which would make a cache again that was dropped.  (Only one that is dropped
 * between that look and the store comes back, empty.)
 *
 * Setting a key is like deleting it, for what was set may have expired or been evicted
 * when an older value is stored.
 *
 * A count that is raised costs others, and most keys are not being computed.  So who
 * deletes or sets one raises the count only where it finds that somebody computes one
 * of that hash:
 *
 *	who computes: raise number of flights, fence, count, snapshot
 *	who deletes: (commit), fence, flights; if one may be of this hash raise count, fence;
 *		delete
 *
 * So who finds no flight has committed before the snapshots of those that come.  Who
 * sets a key does likewise, and leaves out the first fence: commits end with barriers.
 *
 * Counts are words in the anchor, by hash, that keys of all caches share: one that was
 * raised for another key costs a computation or a stored value, and no more.
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

static inline NxmAtomic *
count_of(NxmAtomic *counts, uint64 hash)
{
	return &counts[hash % NXM_FLIGHT_COUNTS];
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

static void
note(uint64 hash)
{
	/* pairs with the loads in nxm_flight_enter() */
	(void) nxm_fetch_add(count_of(nxm_registry_anchor->deletes, hash), 1);
	/* pairs with the fence in nxm_flight_outdated() */
	nxm_fence();
}

/*
 * What a flight adds to a word: one, and above that the rest of its hash, so that the word
 * tells of which hash a flight is that is the only one there.  The word is found by the
 * hash of the key alone, which who deletes or sets has.
 */
#define FLIGHT_COUNT		UINT64CONST(0xFFFFF)
#define FLIGHT_OF(hash)		(((hash) & ~FLIGHT_COUNT) | 1)

void
nxm_flight_note_set(const char *cache, size_t len, const NxmKey *key)
{
	/* acquire; pairs with the addition in nxm_flight_enter() */
	uint64		flights = nxm_load(count_of(nxm_registry_anchor->flights, key->hash));

	/* most keys are not being computed, and a count that is raised costs others */
	if (unlikely(flights != 0))
	{
		uint64		hash = hash_of(owner_of(cache, len), cache, len, key);

		if ((flights & FLIGHT_COUNT) > 1 || flights == FLIGHT_OF(hash))
			note(hash);
	}
}

void
nxm_flight_note_delete(const char *cache, size_t len, const NxmKey *key)
{
	/* what changed need not be of a commit; pairs with the fence in nxm_flight_enter() */
	nxm_fence();
	nxm_flight_note_set(cache, len, key);
}

void
nxm_flight_note_clear(const char *cache, size_t len)
{
	note(hash_of(owner_of(cache, len), cache, len, NULL));
}

/* What nxm_flight_outdated() is about from now on. */
static void
look_at_deletes(NxmFlight *flight)
{
	NxmAtomic  *deletes = nxm_registry_anchor->deletes;

	/* acquire; pair with note(): a snapshot taken from here on is newer */
	flight->key_deletes = nxm_load(count_of(deletes, flight->hash));
	flight->cache_deletes = nxm_load(count_of(deletes, flight->cache_hash));
}

bool
nxm_flight_outdated(const NxmFlight *flight)
{
	NxmAtomic  *deletes = nxm_registry_anchor->deletes;

	/* pairs with the one in note(): one of the two sees what the other did */
	nxm_fence();
	/* relaxed: the fence came before */
	return nxm_load_relaxed(count_of(deletes, flight->hash)) !=
		flight->key_deletes ||
		nxm_load_relaxed(count_of(deletes, flight->cache_hash)) !=
		flight->cache_deletes;
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
wait_for_lock(NxmFlight *flight, LOCKMODE mode)
{
	ErrorContextCallback context;

	context.callback = waiting_context;
	context.arg = flight;
	context.previous = error_context_stack;
	error_context_stack = &context;
	(void) LockAcquire(&flight->tag, mode, false, false);
	error_context_stack = context.previous;
}

void
nxm_flight_begin(NxmFlight *flight, const char *cache, size_t cache_len,
				 const NxmKey *key)
{
	memset(flight, 0, sizeof(*flight));
	flight->owner = owner_of(cache, cache_len);
	flight->role = GetUserId();
	flight->cache = cache;
	flight->cache_len = cache_len;
	flight->key = *key;

	for (NxmFlight *f = nxm_flight_innermost; f != NULL; f = f->outer)
	{
		if (same_key(f, flight))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_RECURSION),
					 errmsg("query that computes key \"%.*s\" of cache \"%.*s\" asks for that key itself",
							shown_len(flight), flight->key.data,
							(int) cache_len, cache)));
	}

	flight->private = transaction_is_private();
	flight->hash = hash_of(flight->owner, cache, cache_len, key);
	flight->cache_hash = hash_of(flight->owner, cache, cache_len, NULL);
	SET_LOCKTAG_ADVISORY(flight->tag, MyDatabaseId, (uint32) (flight->hash >> 32),
						 (uint32) flight->hash, NXM_FLIGHT_LOCK_CLASS);
}

/* Did somebody compute in vain since this session missed the key? */
static bool
was_fruitless(const NxmFlight *flight)
{
	/* acquire; pairs with the increment in nxm_flight_end() */
	return nxm_load(count_of(nxm_registry_anchor->fruitless,
							 flight->hash)) != flight->fruitless;
}

bool
nxm_flight_look_again(NxmFlight *flight)
{
	switch (flight->state)
	{
		case NXM_FLIGHT_MISSED:
			if (flight->private)
				break;
			/* acquire; as in was_fruitless() */
			flight->fruitless = nxm_load(count_of(nxm_registry_anchor->fruitless,
												  flight->hash));
			if (LockAcquire(&flight->tag, ExclusiveLock, false, true) !=
				LOCKACQUIRE_NOT_AVAIL)
			{
				/* somebody may have computed it between the miss and now */
				flight->state = NXM_FLIGHT_LOCKED;
				return true;
			}
			if (nxm_flight_innermost != NULL)
				break;
			look_at_deletes(flight);
			wait_for_lock(flight, ShareLock);
			(void) LockRelease(&flight->tag, ShareLock, false);
			flight->waited_in_vain = nxm_flight_outdated(flight);
			flight->state = NXM_FLIGHT_WAITED;
			return true;
		case NXM_FLIGHT_WAITED:
			if (was_fruitless(flight))
				break;
			wait_for_lock(flight, ExclusiveLock);
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
	NxmAnchor  *anchor = nxm_registry_anchor;

	if (!watching)
		before_shmem_exit(leave_all, (Datum) 0);
	watching = true;
	/* a background worker that is ended between the two would be counted for ever */
	nxm_begin_operation();
	(void) nxm_fetch_add(count_of(anchor->flights, flight->key.hash),
						 FLIGHT_OF(flight->hash));
	flight->outer = nxm_flight_innermost;
	nxm_flight_innermost = flight;
	nxm_end_operation();
	/* pairs with the loads of who deletes or sets: it sees us, or we what it changed */
	nxm_fence();
	look_at_deletes(flight);
}

void
nxm_flight_leave(NxmFlight *flight)
{
	nxm_begin_operation();
	nxm_flight_innermost = flight->outer;
	(void) nxm_fetch_add(count_of(nxm_registry_anchor->flights, flight->key.hash),
						 -FLIGHT_OF(flight->hash));
	nxm_end_operation();
	if (flight->outer != NULL)
		flight->outer->private |= flight->private;
}

bool
nxm_flight_shareable(const NxmFlight *flight)
{
	return !flight->private && !transaction_is_private() &&
		flight->role == GetUserId();
}

void
nxm_flight_end(NxmFlight *flight, bool fruitless)
{
	if (flight->state != NXM_FLIGHT_LOCKED)
		return;
	/* before the lock is released: who waits for it sees the count */
	if (fruitless)
		(void) nxm_fetch_add(count_of(nxm_registry_anchor->fruitless,
									  flight->hash), 1);
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

		if (rte->rtekind != RTE_RELATION)
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
