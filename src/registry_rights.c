/*
 * registry_rights.c
 *	  Owners of the shared structures, and with whom they are shared.
 *
 * The owner, its members and superusers may do everything; others what the object was
 * shared for.  The result is remembered together with a count of this process's
 * invalidations of roles and memberships.
 *
 * Both are read in a section, without a lock.  The sharing is an array of words, each a
 * role and its privileges, that a change replaces as a whole, and retires, where there
 * is a new role.  Else the words are overwritten, a role without privileges keeping its
 * own: a right can be taken back, and a role that is gone left out, where there is no
 * memory.  Changes are made under the registry lock, and raise the generation
 * (registry.c).
 *
 * Limits: an object is shared with at most NXM_MAX_ACL roles.
 */
#include "registry.h"

#include "miscadmin.h"
#include "registry_internal.h"
#include "utils/acl.h"

/* An NxmAcl in the space.  With privileges 0 a role has none. */
typedef struct SharedAcl
{
	uint64		count;			/* immutable */
	NxmAtomic	entry[FLEXIBLE_ARRAY_MEMBER];	/* role 63..32, privileges 31..0 */
} SharedAcl;

NxmResult
nxm_object_copy_rights(NxmObject *object, Oid *owner, NxmAcl *acl)
{
	/* acquire: pairs with the store in set_rights(), its bytes are there */
	NxmRef		ref = nxm_load(&object->acl);

	*owner = (Oid) nxm_load_relaxed(&object->owner);
	acl->count = 0;
	if (ref != 0)
	{
		SharedAcl  *shared = nxm_at(nxm_registry_space, ref);

		if (shared == NULL)
			return NXM_NEED_CHUNK;
		/* kept by our epoch; the generation tells of a change */
		for (uint64 i = 0; i < shared->count; i++)
		{
			uint64		entry = nxm_load_relaxed(&shared->entry[i]);

			if ((uint32) entry == 0)
				continue;
			acl->entry[acl->count].role = (Oid) (entry >> 32);
			acl->entry[acl->count++].privileges = (uint32) entry;
		}
	}
	return NXM_OK;
}

uint32
nxm_object_privileges(Oid role, Oid owner, const NxmAcl *acl)
{
	uint32		privileges = 0;

	/* superusers have everybody's */
	if (has_privs_of_role(role, owner))
		return NXM_READ | NXM_WRITE | NXM_OWN;
	for (uint32 i = 0; i < acl->count; i++)
	{
		Oid			grantee = acl->entry[i].role;

		if (!OidIsValid(grantee) || has_privs_of_role(role, grantee))
			privileges |= acl->entry[i].privileges;
	}
	if ((privileges & NXM_WRITE) != 0)
		privileges |= NXM_READ;
	return privileges;
}

void
nxm_deny(NxmKind kind, const char *name, size_t len, NxmPrivilege privilege)
{
	if (privilege == NXM_OWN)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of %s \"%.*s\"", nxm_kind_name(kind),
						(int) len, name)));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s \"%.*s\"", nxm_kind_name(kind),
					(int) len, name)));
}

static uint64
shared_entry(const NxmAcl *acl, uint32 i)
{
	return (uint64) acl->entry[i].role << 32 | acl->entry[i].privileges;
}

NxmResult
nxm_acl_new(const NxmAcl *acl, NxmRef *ref)
{
	SharedAcl  *shared;

	*ref = 0;
	if (acl->count == 0)
		return NXM_OK;
	*ref = nxm_alloc(nxm_registry_space,
					 offsetof(SharedAcl, entry) + acl->count * sizeof(NxmAtomic));
	if (*ref == 0)
		return nxm_no_object(nxm_registry_space);
	shared = nxm_at(nxm_registry_space, *ref);
	shared->count = acl->count;
	for (uint32 i = 0; i < acl->count; i++)
		nxm_init(&shared->entry[i], shared_entry(acl, i));
	return NXM_OK;
}

/*
 * Under the lock: makes a sharing in the space say what acl does.  false: there is a role
 * that it has no word of, and nothing is changed.
 */
static bool
overwrite(SharedAcl *shared, const NxmAcl *acl)
{
	uint64		new[NXM_MAX_ACL];
	uint32		found = 0;

	for (uint64 i = 0; i < shared->count; i++)
	{
		uint64		role = nxm_load_relaxed(&shared->entry[i]) >> 32;

		new[i] = role << 32;
		for (uint32 j = 0; j < acl->count; j++)
		{
			if (acl->entry[j].role != role)
				continue;
			new[i] = shared_entry(acl, j);
			found++;
		}
	}
	if (found < acl->count)
		return false;
	/* the generation is raised next */
	for (uint64 i = 0; i < shared->count; i++)
		nxm_store_relaxed(&shared->entry[i], new[i]);
	return true;
}

/* A sharing that was replaced, or one before it. */
static void
free_retired(void)
{
	nxm_begin_operation();
	nxm_epoch_poll(nxm_registry_space);
	nxm_end_operation();
}

/*
 * In a section, under the lock: a new owner and a new sharing.  Nothing is
 * changed unless NXM_OK.
 */
static NxmResult
set_rights(NxmObject *object, Oid owner, const NxmAcl *acl)
{
	NxmRef		old = nxm_load_relaxed(&object->acl);
	NxmRef		new = old;
	SharedAcl  *shared = NULL;

	if (old != 0 && ((shared = nxm_at(nxm_registry_space, old)) == NULL ||
					 !nxm_can_retire(nxm_registry_space, 1)))
		return NXM_NEED_CHUNK;
	if (acl->count == 0 || shared == NULL || !overwrite(shared, acl))
	{
		NxmResult	result = nxm_acl_new(acl, &new);

		if (result != NXM_OK)
			return result;
	}
	nxm_store_relaxed(&object->owner, owner);
	/* release: the bytes before the reference; pairs with nxm_object_copy_rights() */
	nxm_store(&object->acl, new);
	nxm_fetch_add(&nxm_registry_anchor->generation, 1);
	if (old != new && old != 0)
		nxm_retire_epoch(nxm_registry_space, old);
	return NXM_OK;
}

typedef struct Rights
{
	const NxmObjectInfo *info;
	Oid			owner;
	const NxmAcl *acl;
} Rights;

static bool
same_acl(const NxmAcl *a, const NxmAcl *b)
{
	return a->count == b->count &&
		memcmp(a->entry, b->entry, a->count * sizeof(a->entry[0])) == 0;
}

static NxmResult
give_rights(const NxmNameKey *k, NxmRef ref, NxmObject *object, const void *context)
{
	const Rights *rights = context;
	NxmAcl		acl;
	Oid			owner;
	NxmResult	result = nxm_object_copy_rights(object, &owner, &acl);

	(void) k;
	(void) ref;
	/* the new ones were made of those of info */
	if (result == NXM_OK &&
		(owner != rights->info->owner || !same_acl(&acl, &rights->info->acl)))
		result = NXM_ABSENT;
	if (result == NXM_OK)
		result = set_rights(object, rights->owner, rights->acl);
	return result;
}

bool
nxm_object_reassign(const NxmObjectInfo *info, Oid owner, const NxmAcl *acl)
{
	Rights		rights = {info, owner, acl};
	bool		changed = nxm_object_change(info, give_rights, &rights);

	free_retired();
	return changed;
}

/*
 * Changes a private copy of a sharing.  NXM_OK: it is another now; NXM_EXISTS:
 * it is not; NXM_TOO_LONG: no room.
 */
static NxmResult
change_acl(NxmAcl *acl, Oid role, uint32 privileges, bool grant)
{
	uint32		i = 0;
	uint32		old;

	while (i < acl->count && acl->entry[i].role != role)
		i++;
	if (i == acl->count)
	{
		if (!grant)
			return NXM_EXISTS;
		if (i == NXM_MAX_ACL)
			return NXM_TOO_LONG;
		acl->entry[acl->count].role = role;
		acl->entry[acl->count++].privileges = 0;
	}
	old = acl->entry[i].privileges;
	if (grant)
		acl->entry[i].privileges |= privileges;
	else
	{
		/* who may write may read: without reading there is no writing */
		if ((privileges & NXM_READ) != 0)
			privileges |= NXM_WRITE;
		acl->entry[i].privileges &= ~privileges;
	}
	if (acl->entry[i].privileges == old)
		return NXM_EXISTS;
	if (acl->entry[i].privileges == 0)
		acl->entry[i] = acl->entry[--acl->count];
	return NXM_OK;
}

bool
nxm_object_share(NxmKind kind, const char *name, size_t len, Oid role,
				 uint32 privileges, bool grant)
{
	NxmObjectInfo info;
	NxmNameKey		k;
	NxmResult	result;

	nxm_check_enabled(kind);
	nxm_check_name(kind, len);
	if (nxm_is_default_cache(kind, name, len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cache \"%s\" cannot be shared", NXM_DEFAULT_CACHE),
				 errdetail("Each role has its own cache of this name."),
				 errhint("Share a cache of another name.")));
	nxm_registry_use();
	nxm_name_key(&k, MyDatabaseId, GetUserId(), kind, name, len);
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!nxm_name_look_up(&k, &info))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("%s \"%.*s\" does not exist", nxm_kind_name(kind),
							(int) len, name)));
		if ((nxm_object_privileges(GetUserId(), info.owner, &info.acl) &
			 NXM_OWN) == 0)
			nxm_deny(kind, name, len, NXM_OWN);

		NXM_LOCKED_SECTION(
		{
			NxmRef		ref;
			NxmObject  *object;
			NxmAcl		acl;
			Oid			owner;

			/* the rights were those of this very object and owner? */
			result = nxm_name_find_again(&k, &info, &ref, &object);
			if (result == NXM_OK)
				result = nxm_object_copy_rights(object, &owner, &acl);
			if (result == NXM_OK && owner != info.owner)
				result = NXM_ABSENT;
			if (result == NXM_OK)
				result = change_acl(&acl, role, privileges, grant);
			if (result == NXM_OK)
				result = set_rights(object, owner, &acl);
		});
	} while (result == NXM_ABSENT);

	if (result == NXM_TOO_LONG)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s \"%.*s\" is shared with too many roles",
						nxm_kind_name(kind), (int) len, name),
				 errdetail("At most %d are allowed.", NXM_MAX_ACL),
				 errhint("Share it with a role that they are members of.")));
	free_retired();
	return result == NXM_OK;
}
