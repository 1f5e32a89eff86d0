/*
 * registry_limits.c
 *	  What nexusmem.role_limit lets a role have.
 *
 * The sum of what a role has is taken of all objects, which takes long where there
 * are many.  So a session takes it now and then, and lets some room be used up in
 * between: by what it adds itself to both structures and caches, ROLE_LIMIT_STEP at
 * most, by what others add meanwhile, and by a step of the growth of a map's index the
 * limit may be passed; and by what a scan that gives up has not seen.  A step is known
 * when it was made, and makes up a part of the room for the next write.
 */
#include "registry.h"

#include "caches.h"
#include "catalog/pg_authid.h"
#include "utils/acl.h"

/* Bytes that a session may add before the sum of its owner's is taken again. */
#define ROLE_LIMIT_STEP (64 * 1024)

typedef struct RoleSum
{
	Oid			owner;
	uint64		bytes;
	uint64		id;				/* of a cache whose own bytes are not summed; 0: none */
} RoleSum;

static void
sum_role(const NxmObjectInfo *info, void *context)
{
	RoleSum    *sum = context;
	NxmObjectSums sums;

	if (info->owner == sum->owner && nxm_object_sums(info, &sums))
		sum->bytes += sums.bytes -
			(info->id == sum->id ? Min(sums.cache_used, sums.bytes) : 0);
}

/*
 * more is as much as a write can add: what is in place of an older value, which gives
 * its own bytes back, adds less.
 */
_Noreturn static void
raise_role_limit(Oid owner, uint64 taken, uint64 more)
{
	char	   *role = GetUserNameFromId(owner, true);
	/* as of the view structures: others write to some of them */
	bool		may_see = has_privs_of_role(GetUserId(), owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("structures and caches of role \"%s\" would exceed nexusmem.role_limit",
					role == NULL ? "?" : role),
			 may_see ?
			 errdetail("They take %llu bytes, up to %llu more are needed, and the limit is %llu bytes.",
					   (unsigned long long) taken,
					   (unsigned long long) more,
					   (unsigned long long) nxm_role_limit * 1024) :
			 errdetail("Up to %llu more bytes are needed, and the limit is %llu bytes.",
					   (unsigned long long) more,
					   (unsigned long long) nxm_role_limit * 1024),
			 errhint("Remove entries, or drop structures or caches, of the role in any database, or have a superuser raise nexusmem.role_limit.")));
}

/* What this session may add to structures before it sums again; of checked_owner. */
static uint64 allowance;
/* The same of the cache that nxm_role_limit_of_object() knows; 0: of none. */
static uint64 cache_allowance;

static inline void
spend(uint64 *left, uint64 bytes)
{
	*left -= Min(*left, bytes);
}

/* Whosever it is, as below. */
static void
spend_index(void)
{
	static uint64 spent = 0;
	uint64		more = nxm_space()->index_bytes - spent;

	spent += more;
	spend(&allowance, more);
	spend(&cache_allowance, more);
}

/*
 * The sum is taken again when this session has added half of what there was
 * room for, or ROLE_LIMIT_STEP: entries before they are stored, what indexes grew by at
 * the next one.
 */
void
nxm_check_role_limit_slow(Oid owner, size_t bytes)
{
	static Oid	checked_owner = InvalidOid;
	static int	checked_limit = -1;
	uint64		limit = (uint64) nxm_role_limit * 1024;
	RoleSum		sum = {owner, 0, 0};
	bool		all;

	spend_index();
	if (owner != checked_owner || nxm_role_limit != checked_limit ||
		bytes > allowance)
	{
		checked_owner = InvalidOid;
		all = nxm_registry_scan(sum_role, &sum);
		if (sum.bytes + bytes > limit)
			raise_role_limit(owner, sum.bytes, bytes);
		allowance = Min(ROLE_LIMIT_STEP, (limit - sum.bytes) / 2);
		/* of a part of them only it is not remembered */
		if (all)
			checked_owner = owner;
		checked_limit = nxm_role_limit;
	}
	spend(&allowance, bytes);
	/* whosever it is: at worst a sum is taken early */
	spend(&cache_allowance, bytes);
}

/* Expiring and the like, whatever they add, are as many between two sums at most. */
#define ROLE_LIMIT_USES 256

/*
 * What the cache itself has is counted when it is written to.  What else there is may
 * have changed: it is summed again as above.
 */
uint64
nxm_role_limit_of_object(Oid owner, uint64 id, size_t bytes)
{
	static uint64 known_id = 0;
	static int	known_limit = -1;
	static int	uses = 0;
	static uint64 left;
	uint64		limit = (uint64) nxm_role_limit * 1024;
	RoleSum		sum = {owner, 0, id};
	bool		all;

	spend_index();
	if (known_id != id || known_limit != nxm_role_limit || uses-- <= 0 ||
		bytes > cache_allowance)
	{
		known_id = 0;
		all = nxm_registry_scan(sum_role, &sum);
		if (sum.bytes + nxm_cache_least_bytes() > limit)
			raise_role_limit(owner, sum.bytes, nxm_cache_least_bytes());
		left = limit - sum.bytes;
		cache_allowance = ROLE_LIMIT_STEP;
		if (all)
			known_id = id;
		known_limit = nxm_role_limit;
		uses = ROLE_LIMIT_USES;
	}
	spend(&cache_allowance, bytes);
	spend(&allowance, bytes);
	return left;
}
