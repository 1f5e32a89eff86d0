/*
 * registry_drain.c
 *	  Frees dropped objects and cleared maps, and drops the objects of databases
 *	  that are gone.
 *
 * Dropping an object needs no memory: it goes on the list anchor->buried, with
 * the epoch of that moment, read after the generation was raised.  A section
 * that saw the generation before began in that epoch or an earlier one, and is
 * over when the global epoch is two further.  Then whoever comes frees it, in
 * steps: the process that dropped it, another one that drops something, or a
 * worker.  The list changes under the registry lock.  An object's `draining`,
 * set and reset under it too, keeps two from freeing the same; it is never held
 * across anything that could raise an error.
 *
 * Reconciling compares objects with the catalogs.  Objects are copied first: a
 * database or role that is not in the catalogs then cannot be one that came into
 * being meanwhile.  An object that was shared meanwhile is left to the next time.
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
#include "registry_internal.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

bool
nxm_registry_drain_pending(void)
{
	NxmAnchor  *anchor = nxm_anchor_if_any();

	return anchor != NULL && (nxm_load(&anchor->buried) != 0 ||
							  nxm_load(&anchor->cleared) != 0);
}

void
nxm_registry_note_clear(void)
{
	nxm_store(&nxm_registry_anchor->cleared, 1);
}

/* Drains a map that was cleared by a process that did not get to its end. */
static void
drain_cleared(const NxmObjectInfo *info, void *context)
{
	bool	   *more = context;
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
			*more = true;
		}
		CHECK_FOR_INTERRUPTS();
	} while (result == NXM_OK);
}

/*
 * In a section, under the lock: a buried object that nobody can be using any
 * more, marked as being drained; 0: there is none.  *passed: others are in front of it.
 */
static NxmResult
exhume(NxmRef *found, bool *passed)
{
	NxmSpace   *space = nxm_registry_space;
	NxmRef		ref = nxm_load_relaxed(&nxm_registry_anchor->buried);
	uint64		epoch = nxm_load(&space->shared->epoch);

	*found = 0;
	*passed = false;
	while (ref != 0)
	{
		NxmObject  *object = nxm_at(space, ref);

		if (object == NULL)
			return NXM_NEED_CHUNK;
		if (nxm_load_relaxed(&object->draining) == 0 &&
			epoch >= nxm_load_relaxed(&object->dropped) + 2)
		{
			nxm_store_relaxed(&object->draining, 1);
			*found = ref;
			break;
		}
		*passed = true;
		ref = nxm_load_relaxed(&object->buried);
	}
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
	bool		more = false;

	if (nxm_exchange(&nxm_registry_anchor->cleared, 0) == 0)
		return false;
	/* an error, or the end of this process, leaves the rest to others */
	PG_ENSURE_ERROR_CLEANUP(note_clear_again, (Datum) 0);
	nxm_registry_scan(drain_cleared, &more);
	PG_END_ENSURE_ERROR_CLEANUP(note_clear_again, (Datum) 0);
	return more;
}

NxmDrain
nxm_registry_drain_some(void)
{
	NxmSpace   *space;
	LWLock	   *lock;
	NxmResult	result;
	NxmRef		ref = 0;
	bool		passed;
	bool		more;

	if (!nxm_registry_drain_pending())
		return NXM_DRAIN_NOTHING;
	if (nxm_registry_space == NULL)
		nxm_registry_attach();
	space = nxm_registry_space;
	lock = &nxm_registry_anchor->registry_lock;

	do
	{
		nxm_begin_operation();
		LWLockAcquire(lock, LW_EXCLUSIVE);
		nxm_enter(space);
		result = exhume(&ref, &passed);
		nxm_leave(space);
		LWLockRelease(lock);
		if (ref != 0)
		{
			NxmObject  *object = nxm_at(space, ref);

			nxm_enter(space);
			result = nxm_object_free_contents(object);
			nxm_leave(space);

			LWLockAcquire(lock, LW_EXCLUSIVE);
			nxm_enter(space);
			if (result == NXM_ABSENT)
				result = forget(ref);
			/* some process is held up in it: others get their turn until then */
			else if (result == NXM_EXISTS)
				nxm_store_relaxed(&object->dropped,
								  nxm_load(&space->shared->epoch));
			if (result != NXM_ABSENT)
				nxm_store_relaxed(&object->draining, 0);
			nxm_leave(space);
			LWLockRelease(lock);
			/* each of the last items may keep a page: none for later */
			if (result == NXM_ABSENT)
			{
				nxm_flush(space);
				nxm_give_back(space);
			}
		}
		nxm_end_operation();
	} while (nxm_again(space, result));
	if (ref != 0 && result != NXM_EXISTS)
	{
		/* those in front get old enough, or each step would walk past them */
		if (passed)
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
	return nxm_registry_drain_pending() ? NXM_DRAIN_LATER : NXM_DRAIN_NOTHING;
}

void
nxm_registry_drain(volatile sig_atomic_t *stop)
{
	/* each try may move the epoch by one, and two further is enough */
	for (int tries = 0; tries < 4 && (stop == NULL || !*stop);)
	{
		NxmDrain	drain = nxm_registry_drain_some();

		if (drain == NXM_DRAIN_NOTHING)
			break;
		if (drain == NXM_DRAIN_LATER)
			tries++;
		CHECK_FOR_INTERRUPTS();
	}
}

/* What is in a catalog: OID to owner, where there is one. */
typedef struct CatalogEntry
{
	Oid			oid;			/* key */
	Oid			owner;
} CatalogEntry;

typedef struct Collected
{
	NxmObjectInfo *info;
	size_t		count;
	size_t		size;
} Collected;

static void
collect(const NxmObjectInfo *info, void *context)
{
	Collected  *all = context;

	if (all->count == all->size)
	{
		all->size *= 2;
		all->info = repalloc_huge(all->info,
								  all->size * sizeof(NxmObjectInfo));
	}
	all->info[all->count++] = *info;
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

/* Enters what a scan of pg_database or pg_authid finds. */
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
		entry = hash_search(table, &oid, HASH_ENTER, NULL);
		entry->owner = owner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static bool
known(HTAB *table, Oid oid)
{
	return hash_search(table, &oid, HASH_FIND, NULL) != NULL;
}

int
nxm_registry_reconcile(void)
{
	MemoryContext context;
	MemoryContext old;
	Collected	all;
	HTAB	   *databases;
	HTAB	   *roles;
	SnapshotData dirty;
	int			changed = 0;

	if (nxm_anchor_if_any() == NULL ||
		nxm_load(&nxm_anchor_if_any()->names.directory) == 0)
		return 0;

	context = AllocSetContextCreate(CurrentMemoryContext, "nexusmem reconcile",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	all.count = 0;
	all.size = 64;
	all.info = palloc(all.size * sizeof(NxmObjectInfo));
	nxm_registry_scan(collect, &all);
	if (all.count > 0)
	{
		databases = make_table("nexusmem databases");
		roles = make_table("nexusmem roles");
		InitDirtySnapshot(dirty);
		read_catalog(databases, DatabaseRelationId, NULL);
		read_catalog(roles, AuthIdRelationId, &dirty);
		read_catalog(roles, AuthIdRelationId, NULL);
		for (size_t i = 0; i < all.count; i++)
		{
			NxmObjectInfo *info = &all.info[i];
			CatalogEntry *database = hash_search(databases, &info->database,
												 HASH_FIND, NULL);
			NxmAcl		acl;
			Oid			owner = info->owner;

			CHECK_FOR_INTERRUPTS();
			if (database == NULL)
			{
				changed += nxm_object_drop_info(info);
				continue;
			}
			if (!known(roles, owner) &&
				nxm_is_default_cache(info->kind, info->name, info->name_len))
			{
				/* nobody else could use it */
				changed += nxm_object_drop_info(info);
				continue;
			}
			if (!known(roles, owner))
				owner = database->owner;
			acl.count = 0;
			for (uint32 j = 0; j < info->acl.count; j++)
			{
				if (!OidIsValid(info->acl.entry[j].role) ||
					known(roles, info->acl.entry[j].role))
					acl.entry[acl.count++] = info->acl.entry[j];
			}
			if (owner != info->owner || acl.count != info->acl.count)
				changed += nxm_object_reassign(info, owner, &acl);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return changed;
}
