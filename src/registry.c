/*
 * registry.c
 *	  Names of the shared structures: making, finding, dropping them.
 *
 * Objects are found through anchor->names, a map of core, under
 *
 *	| database OID, 4 bytes | kind, 1 byte | name, 1 to 63 bytes |
 *
 * with the reference of the NxmObject as value; a cache named "default" under
 *
 *	| database OID, 4 bytes | kind + 128, 1 byte | owner's OID, 4 bytes | name |
 *
 * since each role has its own.
 *
 * Looking a name up takes no lock.  Whatever changes a name, an owner or a
 * sharing does so under anchor->registry_lock, in one section, with all memory
 * allocated before the first change, and then raises anchor->generation; what a
 * call site remembers is void from then on.  Making an object needs no new
 * generation, since nobody remembers that there is none.
 *
 * In a section the generation is looked at before the object is touched.  A
 * lookup reads the generation before the name, so that it remembers too old a
 * one rather than too new.
 *
 * Closing, for a save, is a bit of the generation.  A section that sees it uses and
 * changes nothing; one that does not see it began before the closing process looks
 * at epochs, since both have a fence between their store and their load, and is
 * waited for.
 *
 * A dropped object goes on the list anchor->buried, and is freed from there:
 * see registry_drain.c.
 *
 * Owners and sharing are in registry_rights.c, going through all objects in
 * registry_scan.c.
 *
 * Limits: while a process is stopped within a few microseconds of changing names,
 * nobody else can.
 */
#include "registry.h"

#include "access/xlog.h"
#include "arena_chunks.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_control.h"
#include "caches.h"
#include "compat.h"
#include "core/pause.h"
#include "registry_internal.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* Stripes of a striped counter on each node. */
#define STRIPES_PER_NODE 4

#define DRAIN_ITEMS 256

/* Bytes of the index of a new map, about: its first segment and directory. */
#define NEW_MAP_INDEX_BYTES 1024

NxmSpace   *nxm_registry_space = NULL;
NxmAnchor  *nxm_registry_anchor = NULL;
uint64		nxm_role_changes = 0;
uint64		nxm_hash_seeds[2] = {0, 0};
bool		nxm_enable_lock_free_structures = true;
int			nxm_role_limit = -1;
void		(*nxm_registry_load_hook) (void) = NULL;

static bool closed_by_us = false;

/* In the key, of a kind: each owner has its own of this name. */
#define OWN_NAME 0x80

static const char *const kind_names[NXM_KINDS] = {
	"counter", "map", "stack", "queue", "cache"
};

const char *
nxm_kind_name(NxmKind kind)
{
	return kind_names[kind];
}

int
nxm_kind_of_name(const char *name, size_t len)
{
	for (int i = 0; i < NXM_KINDS; i++)
	{
		if (strlen(kind_names[i]) == len && memcmp(kind_names[i], name, len) == 0)
			return i;
	}
	return -1;
}

bool
nxm_is_default_cache(NxmKind kind, const char *name, size_t len)
{
	return kind == NXM_KIND_CACHE && len == strlen(NXM_DEFAULT_CACHE) &&
		memcmp(name, NXM_DEFAULT_CACHE, len) == 0;
}

void
nxm_check_enabled(NxmKind kind)
{
	if (kind != NXM_KIND_CACHE && !nxm_enable_lock_free_structures)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lock-free structures are disabled"),
				 errhint("Set nexusmem.enable_lock_free_structures = on and reload.")));
}

void
nxm_check_name(NxmKind kind, size_t len)
{
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a %s must not be empty", nxm_kind_name(kind))));
	if (len > NXM_MAX_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of a %s is too long", nxm_kind_name(kind)),
				 errdetail("It has %zu bytes; at most %d are allowed.", len,
						   NXM_MAX_NAME)));
}

void
nxm_hash_prepare(void)
{
	/* random, made by initdb, and never shown */
	const unsigned char *nonce = (const unsigned char *) GetMockAuthenticationNonce();

	nxm_hash_seeds[1] = hash_bytes_extended(nonce, MOCK_AUTH_NONCE_LEN, 1);
	nxm_hash_seeds[0] = hash_bytes_extended(nonce, MOCK_AUTH_NONCE_LEN, 0) | 1;
}

static void
roles_changed(Datum arg, NxmSysCacheId cacheid, uint32 hashvalue)
{
	(void) arg;
	(void) cacheid;
	(void) hashvalue;
	nxm_role_changes++;
}

void
nxm_registry_close(void)
{
	closed_by_us = true;
	nxm_fetch_or(&nxm_anchor()->generation, NXM_CLOSED);
	/* pairs with nxm_enter()'s: it sees the bit, or we its epoch */
	nxm_fence();
}

void
nxm_registry_reopen(void)
{
	nxm_fetch_and(&nxm_anchor()->generation, ~NXM_CLOSED);
	closed_by_us = false;
}

bool
nxm_registry_is_closed(void)
{
	return (nxm_load(&nxm_registry_anchor->generation) & NXM_CLOSED) != 0 &&
		!closed_by_us;
}

bool
nxm_registry_reopened(NxmResult result)
{
	if (likely(result != NXM_DROPPED))
		return false;
	CHECK_FOR_INTERRUPTS();
	nxm_registry_use();
	return true;
}

/* This process has left the space: whatever comes now attaches it anew. */
static void
detached(void)
{
	nxm_registry_space = NULL;
	nxm_role_changes++;
}

void
nxm_registry_attach(void)
{
	static bool watching = false;
	NxmSpace   *space;

	if (nxm_registry_space != NULL)
		return;
	/* what may raise an error comes first */
	space = nxm_space();
	nxm_registry_anchor = nxm_anchor();
	if (!watching)
	{
		watching = true;
		CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, (Datum) 0);
		/* its owner is the one member of pg_database_owner */
		CacheRegisterSyscacheCallback(DATABASEOID, roles_changed, (Datum) 0);
	}
	nxm_arena_detached_hook = detached;
	nxm_arena_drain_hook = nxm_registry_drain_for_room;
	nxm_registry_space = space;
}

void
nxm_registry_use(void)
{
	if (unlikely(nxm_registry_space == NULL))
		nxm_registry_attach();
	else
		(void) nxm_space();		/* a new home, a new limit */
	if (!OidIsValid(MyDatabaseId))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("structures belong to a database, and this process is connected to none")));
	if (nxm_registry_load_hook != NULL)
		nxm_registry_load_hook();
}

void
nxm_name_key(NxmNameKey *k, Oid database, Oid owner, NxmKind kind, const char *name,
		 size_t len)
{
	bool		own = nxm_is_default_cache(kind, name, len);
	char	   *p = k->bytes;

	memcpy(p, &database, sizeof(Oid));
	p += sizeof(Oid);
	*p++ = (char) (kind | (own ? OWN_NAME : 0));
	if (own)
	{
		memcpy(p, &owner, sizeof(Oid));
		p += sizeof(Oid);
	}
	memcpy(p, name, len);
	k->key.data = k->bytes;
	k->key.len = (uint32) (p + len - k->bytes);
	k->key.hash = nxm_hash(k->bytes, k->key.len);
}

/* In a section: the object of a name.  NXM_OK, NXM_ABSENT, NXM_NEED_CHUNK. */
static NxmResult
find(const NxmNameKey *k, NxmRef *ref, NxmObject **object)
{
	NxmBuffer	buffer = {(char *) ref, sizeof(*ref), 0, NXM_INTERNAL};
	NxmResult	result;

	/* acquire: nobody has used the registry, or the map is there */
	if (nxm_load(&nxm_registry_anchor->names.directory) == 0)
		return NXM_ABSENT;
	result = nxm_map_get(nxm_registry_space, &nxm_registry_anchor->names,
						 &k->key, &buffer);
	if (result != NXM_OK)
		return result;
	*object = nxm_at(nxm_registry_space, *ref);
	return *object == NULL ? NXM_NEED_CHUNK : NXM_OK;
}

static void
name_key_of_info(NxmNameKey *k, const NxmObjectInfo *info)
{
	nxm_name_key(k, info->database, info->owner, info->kind, info->name, info->name_len);
}

NxmResult
nxm_name_find_again(const NxmNameKey *k, const NxmObjectInfo *info, NxmRef *ref, NxmObject **object)
{
	NxmResult	result = find(k, ref, object);

	return result == NXM_OK && (*object)->id != info->id ? NXM_ABSENT : result;
}

NxmResult
nxm_object_copy_info(NxmObject *object, NxmObjectInfo *info)
{
	NxmResult	result = nxm_object_copy_rights(object, &info->owner, &info->acl);

	if (result != NXM_OK)
		return result;
	info->object = object;
	info->id = object->id;
	info->kind = (NxmKind) object->kind;
	info->database = object->database;
	info->node = (int) object->node;
	memset(&info->options, 0, sizeof(info->options));
	if (info->kind == NXM_KIND_COUNTER)
		info->options.striped = object->u.counter.nstripes > 0;
	else if (info->kind == NXM_KIND_CACHE)
	{
		info->node = -1;
		info->options.max_bytes = nxm_load_relaxed(&object->u.c.cache.max_bytes);
		info->options.default_ttl = object->u.c.default_ttl;
	}
	info->name_len = object->name_len;
	memcpy(info->name, object->name, sizeof(info->name));
	return NXM_OK;
}

/* Bytes that a new object counts for. */
static size_t
new_object_bytes(NxmKind kind)
{
	return sizeof(NxmObject) + (kind == NXM_KIND_MAP ? NEW_MAP_INDEX_BYTES :
								kind == NXM_KIND_CACHE ? nxm_cache_least_bytes() : 0);
}

bool
nxm_name_look_up(const NxmNameKey *k, NxmObjectInfo *info)
{
	NxmResult	result;

	NXM_PAUSE("look up");
	do
	{
		NXM_IN_SECTION(
		{
			NxmRef		ref;
			NxmObject  *object;

			/* before the name: pairs with the increments under the lock */
			info->generation = nxm_load(&nxm_registry_anchor->generation);
			result = nxm_registry_is_closed() ? NXM_DROPPED :
				find(k, &ref, &object);
			if (result == NXM_OK)
				result = nxm_object_copy_info(object, info);
		});
	} while (nxm_registry_reopened(result));
	return result == NXM_OK;
}

NxmResult
nxm_object_free_contents(NxmObject *object, bool last)
{
	NxmSpace   *space = nxm_registry_space;

	switch ((NxmKind) object->kind)
	{
		case NXM_KIND_COUNTER:
			if (!last)
				return NXM_ABSENT;
			/* what is not mapped here could not be freed */
			for (uint32 i = 0; i < object->u.counter.nstripes; i++)
			{
				if (nxm_at(space, object->u.counter.stripes[i]) == NULL)
					return NXM_NEED_CHUNK;
			}
			nxm_counter_fini(space, &object->u.counter);
			return NXM_ABSENT;
		case NXM_KIND_MAP:
			{
				NxmResult	dropped = nxm_map_drop(&object->u.map);
				NxmResult	drained;

				/* else later: when the epoch has gone on, its index need not wait */
				drained = last ? NXM_OK : nxm_keeps_retired(space);
				if (drained != NXM_OK)
					return drained;
				drained = nxm_map_drain(space, &object->u.map);
				if (drained != NXM_ABSENT || dropped != NXM_EXISTS)
					return drained;
				/* that was the rest of an earlier clear: drop it now; or one is under way */
				return nxm_load(&object->u.map.dead) == 0 ? NXM_OK : NXM_EXISTS;
			}
		case NXM_KIND_STACK:
			return nxm_stack_drain(space, &object->u.stack, DRAIN_ITEMS);
		case NXM_KIND_QUEUE:
			return nxm_queue_drain(space, &object->u.queue, DRAIN_ITEMS, last);
		case NXM_KIND_CACHE:
			{
				NxmCacheView *view = nxm_cache_view();
				NxmResult	result = nxm_cache_drop(view, &object->u.c.cache);

				return result == NXM_OK ?
					nxm_cache_drain(view, &object->u.c.cache) : result;
			}
	}
	return NXM_ABSENT;
}

/*
 * In a section, under the lock: makes an object, unless there is one of that
 * name: NXM_EXISTS.  Nothing is left of what did not succeed.
 */
static NxmResult
create(const NxmNameKey *k, Oid database, Oid owner, NxmKind kind,
	   const char *name, size_t len, const NxmObjectOptions *options,
	   const NxmAcl *acl, NxmObject **made)
{
	NxmSpace   *space = nxm_registry_space;
	NxmAnchor  *anchor = nxm_registry_anchor;
	NxmObject  *object;
	NxmRef		ref;
	NxmRef		acl_ref = 0;
	NxmValue	value = {(const char *) &ref, sizeof(ref), NXM_INTERNAL};
	NxmResult	result;

	if (nxm_load(&anchor->names.directory) == 0)
	{
		result = nxm_map_init(space, &anchor->names);
		if (result != NXM_OK)
			return result;
	}
	result = find(k, &ref, &object);
	if (result != NXM_ABSENT)
		return result == NXM_OK ? NXM_EXISTS : result;

	ref = nxm_alloc(space, sizeof(NxmObject));
	if (ref == 0)
		return nxm_no_object(space);
	object = nxm_at(space, ref);
	memset(object, 0, sizeof(NxmObject));
	object->id = nxm_fetch_add(&anchor->next_id, 1) + 1;
	object->kind = kind;
	object->database = database;
	object->node = (uint32) nxm_memory_node();
	object->name_len = (uint32) len;
	memcpy(object->name, name, len);
	nxm_init(&object->owner, owner);

	result = NXM_OK;
	switch (kind)
	{
		case NXM_KIND_COUNTER:
			result = nxm_counter_init(space, &object->u.counter, options->striped,
									  nxm_space_node_count(),
									  STRIPES_PER_NODE);
			break;
		case NXM_KIND_MAP:
			result = nxm_map_init(space, &object->u.map);
			break;
		case NXM_KIND_STACK:
			nxm_stack_init(&object->u.stack);
			break;
		case NXM_KIND_QUEUE:
			result = nxm_queue_init(space, &object->u.queue);
			break;
		case NXM_KIND_CACHE:
			object->u.c.default_ttl = options->default_ttl;
			result = nxm_cache_init(nxm_cache_view(), &object->u.c.cache,
									nxm_cache_partitions(), options->max_bytes);
			break;
	}
	if (result != NXM_OK)
	{
		nxm_free(space, ref);
		return result;
	}

	result = nxm_acl_new(acl, &acl_ref);
	if (result == NXM_OK)
	{
		nxm_init(&object->acl, acl_ref);
		/* publishes all of the above: the map's stores are releases */
		result = nxm_map_put_if(space, &anchor->names, &k->key, NULL, &value);
	}
	if (result != NXM_OK)
	{
		NxmResult	drained;

		if (acl_ref != 0)
			nxm_free(space, acl_ref);
		/* nobody has seen it, and draining one of these might fail for want of a chunk */
		if (kind == NXM_KIND_MAP)
			nxm_map_fini(space, &object->u.map);
		else if (kind == NXM_KIND_CACHE)
			nxm_cache_fini(space, &object->u.c.cache);
		else
		{
			do
				drained = nxm_object_free_contents(object, true);
			while (drained == NXM_OK);
		}
		nxm_free(space, ref);
	}
	else if (kind == NXM_KIND_CACHE)
		nxm_fetch_add(&anchor->caches_made, 1);
	*made = object;
	return result;
}

/*
 * NXM_OK; NXM_EXISTS; with quiet NXM_NEED_MEMORY, where an error would be raised for that.
 */
static NxmResult
create_object(Oid database, Oid owner, NxmKind kind, const char *name,
			  size_t len, const NxmObjectOptions *options, const NxmAcl *acl,
			  NxmSite *site, bool quiet)
{
	static const NxmObjectOptions none;
	NxmNameKey		k;
	NxmResult	result;
	NxmObject  *object = NULL;
	int			trusts = 0;

	if (options == NULL)
		options = &none;
	nxm_name_key(&k, database, owner, kind, name, len);
	do
	{
		NXM_LOCKED_ONCE(
		{
			/* the lock keeps the object from being dropped before this is known */
			uint64		generation = nxm_load(&nxm_registry_anchor->generation);

			result = create(&k, database, owner, kind, name, len, options, acl,
							&object);
			if (result == NXM_OK && site != NULL)
			{
				site->object = object;
				site->generation = generation;
				site->id = object->id;
			}
		});
		/* a new cache takes memory from the largest one, if need be */
	} while (nxm_registry_reopened(result) ||
			 (kind == NXM_KIND_CACHE && nxm_caches_make_way(result)) ||
			 nxm_again_undone(nxm_registry_space, result, &trusts, quiet));
	return result;
}

bool
nxm_object_create(NxmKind kind, const char *name, size_t len,
				  const NxmObjectOptions *options)
{
	NxmObjectInfo info;
	NxmNameKey		k;
	NxmAcl		acl;

	nxm_check_enabled(kind);
	nxm_check_name(kind, len);
	nxm_registry_use();
	nxm_name_key(&k, MyDatabaseId, GetUserId(), kind, name, len);
	if (nxm_name_look_up(&k, &info))
	{
		if (nxm_object_privileges(GetUserId(), info.owner, &info.acl) == 0)
			nxm_deny(kind, name, len, NXM_READ);
		return false;
	}
	acl.count = 0;
	nxm_check_role_limit(GetUserId(), new_object_bytes(kind));
	return create_object(MyDatabaseId, GetUserId(), kind, name, len, options,
						 &acl, NULL, false) == NXM_OK;
}

bool
nxm_object_restore(NxmSite *site, Oid database, Oid owner, NxmKind kind,
				   const char *name, size_t len,
				   const NxmObjectOptions *options, const NxmAcl *acl)
{
	NxmAcl		none;

	none.count = 0;
	nxm_check_name(kind, len);
	if (nxm_registry_space == NULL)
		nxm_registry_attach();
	memset(site, 0, sizeof(*site));
	site->owner = owner;
	site->kind = kind;
	return create_object(database, owner, kind, name, len, options,
						 acl == NULL ? &none : acl, site, false) == NXM_OK;
}

bool
nxm_site_open(NxmSite *site, NxmKind kind, const char *name, size_t len,
			  NxmPrivilege privilege, bool create)
{
	NxmObjectInfo info;
	NxmNameKey		k;
	uint64		role_changes;
	uint32		privileges;
	Oid			role = GetUserId();

	CHECK_FOR_INTERRUPTS();
	nxm_check_enabled(kind);
	nxm_check_name(kind, len);
	nxm_registry_use();
	nxm_name_key(&k, MyDatabaseId, role, kind, name, len);
	while (!nxm_name_look_up(&k, &info))
	{
		NxmAcl		acl;

		if (!create)
			return false;
		CHECK_FOR_INTERRUPTS();
		nxm_check_role_limit(role, new_object_bytes(kind));
		acl.count = 0;
		if (create_object(MyDatabaseId, role, kind, name, len, NULL, &acl, NULL,
						  kind == NXM_KIND_CACHE) == NXM_NEED_MEMORY)
		{
			/* relaxed: for status */
			nxm_store_relaxed(&nxm_registry_anchor->cache_not_made,
							  (uint64) GetCurrentTimestamp());
			return false;
		}
	}

	role_changes = nxm_role_changes;
	privileges = nxm_object_privileges(role, info.owner, &info.acl);
	if ((privileges & privilege) == 0)
		nxm_deny(kind, name, len, privilege);
	site->privileges = privileges;
	site->size_hint = 0;
	site->generation = info.generation;
	site->role_changes = role_changes;
	site->id = info.id;
	site->role = role;
	site->owner = info.owner;
	site->kind = kind;
	site->default_ttl = info.options.default_ttl;
	site->name_len = (uint32) len;
	memcpy(site->name, name, len);
	site->object = info.object;
	return true;
}

NxmResult
nxm_object_find(const NxmObjectInfo *info, NxmObject **object)
{
	NxmNameKey		k;
	NxmRef		ref;
	NxmResult	result;

	if (nxm_registry_is_closed())
		return NXM_DROPPED;
	*object = info->object;
	if (nxm_load(&nxm_registry_anchor->generation) == info->generation)
		return NXM_OK;
	name_key_of_info(&k, info);
	result = nxm_name_find_again(&k, info, &ref, object);
	return result == NXM_ABSENT ? NXM_DROPPED : result;
}

/* Of the cache that an object is. */
static NxmRef
cache_ref(NxmRef object)
{
	return object + offsetof(NxmObject, u.c.cache) / NXM_REF_UNIT;
}

bool
nxm_object_change(const NxmObjectInfo *info, NxmChange change, const void *context)
{
	NxmNameKey	k;
	NxmResult	result;

	name_key_of_info(&k, info);
	NXM_LOCKED_SECTION(
	{
		NxmRef		ref;
		NxmObject  *object;

		result = nxm_name_find_again(&k, info, &ref, &object);
		if (result == NXM_OK)
			result = change(&k, ref, object, context);
	});
	return result == NXM_OK;
}

static NxmResult
make_largest(const NxmNameKey *k, NxmRef ref, NxmObject *object, const void *context)
{
	(void) k;
	(void) object;
	(void) context;
	/* release: pairs with nxm_cache_make_way() */
	nxm_store(&nxm_registry_anchor->largest, cache_ref(ref));
	return NXM_OK;
}

void
nxm_registry_set_largest(const NxmObjectInfo *info)
{
	(void) nxm_object_change(info, make_largest, NULL);
}

/*
 * In a section, under the lock: takes the object's name away and buries it.  It
 * needs no memory.
 */
static NxmResult
bury(const NxmNameKey *k, NxmRef ref, NxmObject *object, const void *context)
{
	NxmAnchor  *anchor = nxm_registry_anchor;
	NxmResult	result = nxm_map_delete(nxm_registry_space, &anchor->names,
										&k->key);

	(void) context;
	if (result != NXM_OK)
		return result;
	/* nobody begins to evict in it for others, from the next epoch on */
	if (nxm_load_relaxed(&anchor->largest) == cache_ref(ref))
		nxm_store_relaxed(&anchor->largest, 0);
	nxm_fetch_add(&anchor->generation, 1);
	/* see nxm_object_valid() */
	nxm_fence();
	nxm_store_relaxed(&object->dropped,
					  nxm_load(&nxm_registry_space->shared->epoch));
	nxm_store_relaxed(&object->buried, nxm_load_relaxed(&anchor->buried));
	nxm_store(&anchor->buried, ref);
	return NXM_OK;
}

bool
nxm_object_drop_info(const NxmObjectInfo *info)
{
	return nxm_object_change(info, bury, NULL);
}

bool
nxm_object_drop(NxmKind kind, const char *name, size_t len)
{
	NxmObjectInfo info;
	NxmNameKey		k;
	uint64		own = 0;

	nxm_check_enabled(kind);
	nxm_check_name(kind, len);
	nxm_registry_use();
	nxm_name_key(&k, MyDatabaseId, GetUserId(), kind, name, len);
	if (nxm_name_look_up(&k, &info))
	{
		if ((nxm_object_privileges(GetUserId(), info.owner, &info.acl) & NXM_OWN) == 0)
			nxm_deny(kind, name, len, NXM_OWN);
		if (nxm_object_drop_info(&info))
			own = info.id;
	}

	NXM_PAUSE("buried");
	/* one that is not there may be so since a drop that was cancelled here */
	nxm_registry_help_drain(own);
	return own != 0;
}

void
nxm_registry_init(void)
{
	DefineCustomBoolVariable("nexusmem.enable_lock_free_structures",
							 "Enables counters, maps, stacks and queues.",
							 NULL,
							 &nxm_enable_lock_free_structures,
							 true,
							 PGC_SIGHUP,
							 0, NULL, NULL, NULL);
	DefineCustomIntVariable("nexusmem.role_limit",
							"Most memory that the structures and caches of one role may take, in all databases.",
							"-1 means no limit.",
							&nxm_role_limit,
							-1, -1, INT_MAX,
							PGC_SUSET,
							GUC_UNIT_KB, NULL, NULL, NULL);
}
