/*
 * registry_drain.c
 *	  Frees dropped objects and cleared maps, and drops the objects of databases
 *	  that are gone.
 *
 * Dropping an object needs no memory: it goes on the list anchor->buried, with
 * the epoch of that moment, read after the generation was raised.  A section
 * that saw the generation before began in that epoch or an earlier one, and is
 * over when the global epoch is two further.  Whoever comes frees it, in steps: the
 * process that dropped it, another one that drops something or finds no memory, or a
 * worker.  A session that drops something frees that, and helps with the rest for HELP_MS at
 * most: what is left after that is for the worker, or, where there is none, for whoever drops
 * something next, or has no room.
 *
 * What is in the object is freed at once, as if it were cleared: a process that is
 * stopped in a section, of whatever object, must not hold all of it back.  Who is still
 * using it is told NXM_DROPPED, or finds it empty.  The object itself, and what an
 * operation that has begun relies on, is freed when the sections are over, with what
 * was still put there.
 *
 * The list changes under the registry lock.  An object's `drain`, changed under it too,
 * keeps two from freeing the same; DRAINING is never held across anything that could
 * raise an error.
 *
 * The objects of a database that is dropped go with it, before there can be another one of
 * that OID; but for those that nxm_registry_scan() does not get to, since nobody could cancel
 * it: they are reconciled by the worker, or before that other one is made.
 *
 * Reconciling, for these and for what was dropped where that could not be seen, compares objects
 * with the catalogs.  Objects come first, and what databases and roles they have: one that is
 * not in the catalogs then is gone for good, and cannot be one that came into being meanwhile.
 * Only if there is such a one objects are looked at again, and changed; what they have by then
 * and had not before is left to the next time.
 * Roles are looked for with an MVCC snapshot, which finds what is being changed, and
 * with a dirty one, which finds what a transaction has made and not committed yet, for
 * it may own something already.
 */
#include "registry.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "core/pause.h"
#include "registry_internal.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* In an object's `drain`. */
#define DRAINING		UINT64CONST(1)	/* a process is freeing a part of it */
#define EMPTIED			UINT64CONST(2)	/* more of its contents is left until nobody uses it */
#define HELD_UP_SHIFT	2		/* above: when what was left was in use, of nxm_steady_ms() */

/* so long contents are left that were in use, for who used them to be done */
#define HELD_UP_MS		500

/* each LATER may move the epoch by one, and two further is enough */
#define LATER_TRIES		4

/* so long a session frees what others have dropped, after its own */
#define HELP_MS			500

/* that a step takes of what was cleared, but for one of each further map */
#define CLEARED_MS		50

/* Is there anything to free?  Does not attach. */
static bool
drain_pending(void)
{
	NxmAnchor  *anchor = nxm_anchor_if_any();

	return anchor != NULL && (nxm_load(&anchor->buried) != 0 ||
							  nxm_load(&anchor->cleared) != 0);
}

void
nxm_registry_note_clear(void)
{
	/* a read-modify-write, so that it hides no other's from whoever takes the note */
	(void) nxm_fetch_or(&nxm_registry_anchor->cleared, 1);
}

/* Draining what was cleared. */
typedef struct Cleared
{
	int64		until;			/* of nxm_steady_ms() */
	bool		more;
} Cleared;

/*
 * Drains a map that was cleared by a process that did not get to its end, or is about to:
 * a part of it, where that takes long.
 */
static void
drain_cleared(const NxmObjectInfo *info, void *context)
{
	Cleared    *cleared = context;
	NxmResult	result;

	if (info->kind != NXM_KIND_MAP)
		return;
	do
	{
		NXM_IN_SECTION(
		{
			NxmObject  *object;

			result = nxm_object_find(info, &object);
			if (result == NXM_OK && nxm_load(&object->u.map.dead) == 0)
				result = NXM_ABSENT;
			if (result == NXM_OK)
				result = nxm_map_drain(nxm_registry_space, &object->u.map);
		});
		if (result == NXM_OK)
		{
			/* should we be interrupted */
			nxm_registry_note_clear();
			cleared->more = true;
		}
		CHECK_FOR_INTERRUPTS();
	} while (result == NXM_OK && nxm_steady_ms() < cleared->until);
}

/* A buried object of which a part is to be freed. */
typedef struct Exhumed
{
	NxmRef		ref;			/* 0: there is none */
	NxmObject  *object;
	bool		last;			/* nobody can be using it any more */
	bool		passed;			/* others are in front of it */
	bool		own;			/* it is the one that was asked for */
} Exhumed;

/*
 * In a section, under the lock: a buried object that has contents, or that nobody can be
 * using any more, marked as being drained: the one with the id *own, which is set to 0 where
 * that is not there any more, else the first one.
 */
static NxmResult
exhume(uint64 *own, Exhumed *found)
{
	NxmSpace   *space = nxm_registry_space;
	NxmRef		ref = nxm_load_relaxed(&nxm_registry_anchor->buried);
	uint64		epoch = nxm_load(&space->shared->epoch);
	uint64		now = (uint64) nxm_steady_ms();
	Exhumed		chosen = {0};
	bool		passed = false;
	bool		met_own = *own == 0;

	memset(found, 0, sizeof(*found));
	while (ref != 0 && !(met_own && chosen.ref != 0))
	{
		NxmObject  *object = nxm_at(space, ref);
		uint64		drain;
		bool		last;
		bool		is_own;

		if (object == NULL)
			return NXM_NEED_CHUNK;
		drain = nxm_load_relaxed(&object->drain);
		last = epoch >= nxm_load_relaxed(&object->dropped) + 2;
		is_own = object->id == *own;
		if ((is_own || chosen.ref == 0) && (drain & DRAINING) == 0 &&
			(last || ((drain & EMPTIED) == 0 &&
					  now >= (drain >> HELD_UP_SHIFT) + HELD_UP_MS)))
			chosen = (Exhumed) {ref, object, last, passed, is_own};
		met_own |= is_own;
		passed = true;
		ref = nxm_load_relaxed(&object->buried);
	}
	if (!met_own)
		*own = 0;
	if (chosen.ref != 0)
		nxm_store_relaxed(&chosen.object->drain,
						  nxm_load_relaxed(&chosen.object->drain) | DRAINING);
	*found = chosen;
	return NXM_OK;
}

/* In a section, under the lock: takes an empty object off the list; frees it. */
static NxmResult
forget(NxmRef gone)
{
	NxmSpace   *space = nxm_registry_space;
	NxmAtomic  *link = &nxm_registry_anchor->buried;
	NxmObject  *object;
	NxmRef		acl;

	for (;;)
	{
		NxmRef		ref = nxm_load_relaxed(link);

		object = nxm_at(space, ref);
		if (object == NULL)
			return NXM_NEED_CHUNK;
		if (ref == gone)
			break;
		link = &object->buried;
	}
	acl = nxm_load_relaxed(&object->acl);
	if (acl != 0 && nxm_at(space, acl) == NULL)
		return NXM_NEED_CHUNK;
	nxm_store(link, nxm_load_relaxed(&object->buried));
	if (acl != 0)
		nxm_free(space, acl);
	nxm_free(space, gone);
	return NXM_ABSENT;
}

/*
 * In a section, under the lock: some of an object's contents was freed while others may
 * be using it, with this result.
 */
static void
note_early(NxmObject *object, NxmResult result)
{
	uint64		drain = 0;

	if (result == NXM_ABSENT)
		drain = EMPTIED;
	else if (result == NXM_EXISTS)
		drain = (uint64) nxm_steady_ms() << HELD_UP_SHIFT;
	nxm_store_relaxed(&object->drain, drain);
}

/* In a section, under the lock: an object that nobody uses any more, with this result. */
static NxmResult
note_last(NxmRef ref, NxmObject *object, NxmResult result)
{
	if (result == NXM_ABSENT)
		result = forget(ref);
	/* some process is held up in it: others get their turn until then */
	else if (result == NXM_EXISTS)
		nxm_store_relaxed(&object->dropped,
						  nxm_load(&nxm_registry_space->shared->epoch));
	if (result != NXM_ABSENT)
		nxm_store_relaxed(&object->drain, nxm_load_relaxed(&object->drain) & ~DRAINING);
	return result;
}

static void
note_clear_again(int code, Datum arg)
{
	(void) code;
	(void) arg;
	nxm_registry_note_clear();
}

/* true: something was freed. */
static bool
drain_all_cleared(void)
{
	Cleared		cleared = {.more = false};

	if (nxm_load(&nxm_registry_anchor->cleared) == 0)
		return false;
	cleared.until = nxm_steady_ms() + CLEARED_MS;
	/*
	 * An error, or the end of this process, leaves the rest to others: from before it
	 * takes the note, for a signal may end a background worker anywhere.  One note too
	 * many has them look in vain.
	 */
	PG_ENSURE_ERROR_CLEANUP(note_clear_again, (Datum) 0);
	if (nxm_exchange(&nxm_registry_anchor->cleared, 0) != 0)
		nxm_registry_scan(drain_cleared, &cleared);
	PG_END_ENSURE_ERROR_CLEANUP(note_clear_again, (Datum) 0);
	return cleared.more;
}

/*
 * wait: for the lock, else what is behind it is for later.  own: as of exhume(); *was_own:
 * it was that one's turn.
 */
static NxmDrain
drain_some(bool wait, uint64 *own, bool *was_own)
{
	NxmSpace   *space;
	LWLock	   *lock;
	NxmResult	result;
	Exhumed		found;
	bool		more;

	*was_own = false;
	if (!drain_pending())
		return NXM_DRAIN_NOTHING;
	if (nxm_registry_space == NULL)
		nxm_registry_attach();
	space = nxm_registry_space;
	lock = &nxm_registry_anchor->registry_lock;

	do
	{
		nxm_begin_operation();
		if (wait)
			LWLockAcquire(lock, LW_EXCLUSIVE);
		else if (!LWLockConditionalAcquire(lock, LW_EXCLUSIVE))
		{
			nxm_end_operation();
			return NXM_DRAIN_LATER;
		}
		nxm_enter(space);
		result = exhume(own, &found);
		nxm_leave(space);
		LWLockRelease(lock);
		if (found.ref != 0)
		{
			nxm_enter(space);
			result = nxm_object_free_contents(found.object, found.last);
			nxm_leave(space);

			LWLockAcquire(lock, LW_EXCLUSIVE);
			nxm_enter(space);
			if (found.last)
				result = note_last(found.ref, found.object, result);
			else
				note_early(found.object, result);
			nxm_leave(space);
			LWLockRelease(lock);
			/*
			 * Each of the last items may keep a page: none for later.  Who drains for
			 * room may go no further, and others do not free what it has.
			 */
			if (result == NXM_ABSENT || !wait)
			{
				nxm_flush(space);
				nxm_give_back(space);
			}
		}
		nxm_end_operation();
		/* early, others use it: it is not the turn of this one again soon */
	} while (nxm_again(space, result) ||
			 (found.ref != 0 && !found.last && result == NXM_EXISTS));
	*was_own = found.own;
	if (found.ref != 0 && result != NXM_EXISTS)
	{
		/* those in front get old enough, or each step would walk past them */
		if (found.passed)
		{
			nxm_begin_operation();
			nxm_epoch_poll(space);
			nxm_end_operation();
		}
		return NXM_DRAIN_MORE;
	}

	more = drain_all_cleared();
	nxm_begin_operation();
	nxm_flush(space);
	nxm_give_back(space);
	nxm_epoch_poll(space);
	nxm_end_operation();
	if (more)
		return NXM_DRAIN_MORE;
	return drain_pending() ? NXM_DRAIN_LATER : NXM_DRAIN_NOTHING;
}

NxmDrain
nxm_registry_drain_some(void)
{
	uint64		own = 0;
	bool		was_own;

	return drain_some(true, &own, &was_own);
}

NxmDrain
nxm_registry_drain_for_room(void)
{
	uint64		own = 0;
	bool		was_own;

	return drain_some(false, &own, &was_own);
}

void
nxm_registry_drain(volatile sig_atomic_t *stop)
{
	for (int tries = 0; tries < LATER_TRIES && (stop == NULL || !*stop);)
	{
		NxmDrain	drain = nxm_registry_drain_some();

		if (drain == NXM_DRAIN_NOTHING)
			break;
		if (drain == NXM_DRAIN_LATER)
			tries++;
		CHECK_FOR_INTERRUPTS();
	}
}

void
nxm_registry_help_drain(uint64 own)
{
	int64		until = nxm_steady_ms() + HELP_MS;
	int			tries = 0;
	bool		was_own;

	do
	{
		NxmDrain	drain = drain_some(true, &own, &was_own);

		if (drain == NXM_DRAIN_NOTHING)
			break;
		if (drain == NXM_DRAIN_LATER)
			tries++;
		if (was_own)
			until = nxm_steady_ms() + HELP_MS;
		CHECK_FOR_INTERRUPTS();
	} while (tries < LATER_TRIES &&
			 (was_own || (!NXM_LACKS("time to help") && nxm_steady_ms() < until)));
}

/* For nxm_registry_scan(). */
static void
drop_of_database(const NxmObjectInfo *info, void *database)
{
	if (info->database == *(Oid *) database)
		(void) nxm_object_drop_info(info);
}

void
nxm_registry_drop_database(Oid database)
{
	/* should it give up, reconciling finds the rest */
	if (nxm_anchor_if_any() != NULL)
		(void) nxm_registry_scan(drop_of_database, &database);
}

/* A database or role that objects have. */
typedef struct CatalogEntry
{
	Oid			oid;			/* key */
	bool		there;			/* in the catalog */
	Oid			owner;			/* of a database */
} CatalogEntry;

typedef struct Reconciling
{
	HTAB	   *databases;
	HTAB	   *roles;
	uint64		newest;			/* id of an object, before these were noted */
	int			changed;		/* objects */
} Reconciling;

static void
note(HTAB *table, Oid oid)
{
	bool		found;
	CatalogEntry *entry = hash_search(table, &oid, HASH_ENTER, &found);

	if (!found)
		entry->there = false;
}

static void
note_oids(const NxmObjectInfo *info, void *context)
{
	Reconciling *all = context;

	note(all->databases, info->database);
	note(all->roles, info->owner);
	for (uint32 i = 0; i < info->acl.count; i++)
	{
		if (OidIsValid(info->acl.entry[i].role))
			note(all->roles, info->acl.entry[i].role);
	}
}

static HTAB *
make_table(const char *name)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(CatalogEntry);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Marks what a scan of pg_database or pg_authid finds. */
static void
read_catalog(HTAB *table, Oid catalog, Snapshot snapshot)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CatalogEntry *entry;
		Oid			oid;
		Oid			owner = InvalidOid;

		if (catalog == DatabaseRelationId)
		{
			oid = ((Form_pg_database) GETSTRUCT(tuple))->oid;
			owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
		}
		else
			oid = ((Form_pg_authid) GETSTRUCT(tuple))->oid;
		entry = hash_search(table, &oid, HASH_FIND, NULL);
		if (entry == NULL)
			continue;
		entry->there = true;
		entry->owner = owner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static bool
all_there(HTAB *table)
{
	HASH_SEQ_STATUS scan;
	CatalogEntry *entry;

	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->there)
			continue;
		hash_seq_term(&scan);
		return false;
	}
	return true;
}

static bool
is_gone(HTAB *table, Oid oid)
{
	const CatalogEntry *entry = hash_search(table, &oid, HASH_FIND, NULL);

	return entry != NULL && !entry->there;
}

/* Drops or reassigns an object that has what is gone. */
static void
amend(const NxmObjectInfo *info, void *context)
{
	Reconciling *all = context;
	const CatalogEntry *database = hash_search(all->databases, &info->database,
											   HASH_FIND, NULL);
	Oid			owner = info->owner;
	NxmAcl		acl;

	CHECK_FOR_INTERRUPTS();
	/* a database may have been made meanwhile, with the OID of one that is gone */
	if (database == NULL || info->id > all->newest)
		return;
	/* a default cache nobody else could use */
	if (!database->there ||
		(is_gone(all->roles, owner) &&
		 nxm_is_default_cache(info->kind, info->name, info->name_len)))
	{
		all->changed += nxm_object_drop_info(info);
		return;
	}
	if (is_gone(all->roles, owner))
		owner = database->owner;
	acl.count = 0;
	for (uint32 i = 0; i < info->acl.count; i++)
	{
		if (!OidIsValid(info->acl.entry[i].role) ||
			!is_gone(all->roles, info->acl.entry[i].role))
			acl.entry[acl.count++] = info->acl.entry[i];
	}
	if (owner != info->owner || acl.count != info->acl.count)
		all->changed += nxm_object_reassign(info, owner, &acl);
}

int
nxm_registry_reconcile(void)
{
	MemoryContext context;
	MemoryContext old;
	Reconciling all;

	if (nxm_anchor_if_any() == NULL ||
		nxm_load(&nxm_anchor_if_any()->names.directory) == 0)
		return 0;

	context = AllocSetContextCreate(CurrentMemoryContext, "nexusmem reconcile",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	all.databases = make_table("nexusmem databases");
	all.roles = make_table("nexusmem roles");
	all.newest = nxm_load(&nxm_anchor_if_any()->next_id);
	all.changed = 0;
	nxm_registry_scan(note_oids, &all);
	if (hash_get_num_entries(all.databases) > 0)
	{
		SnapshotData dirty;

		InitDirtySnapshot(dirty);
		/* a statement's own may be of before the objects were noted */
		InvalidateCatalogSnapshot();
		read_catalog(all.databases, DatabaseRelationId, NULL);
		read_catalog(all.roles, AuthIdRelationId, &dirty);
		read_catalog(all.roles, AuthIdRelationId, NULL);
		if (!all_there(all.databases) || !all_there(all.roles))
			nxm_registry_scan(amend, &all);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return all.changed;
}
