/*
 * registry.h
 *	  Names, owners and privileges of the shared structures.
 *
 * An object is a structure with its name.  Objects live in the space, are found
 * through the anchor's map by (database, kind, name).  What is in one is freed as soon
 * as it was dropped, itself two epochs after.  Of caches named NXM_DEFAULT_CACHE each
 * role has its own, found by (database, kind, owner, name).
 */
#ifndef NXM_REGISTRY_H
#define NXM_REGISTRY_H

#include "arena.h"
#include "common/hashfn.h"
#include "core/cache.h"
#include "core/counter.h"
#include "core/map.h"
#include "core/queue.h"
#include "core/stack.h"
#include "fmgr.h"
#include "miscadmin.h"

#define NXM_MAX_NAME 63

#define NXM_DEFAULT_CACHE "default"

/* Roles that an object can be shared with, one by one. */
#define NXM_MAX_ACL 64

typedef enum NxmKind
{
	NXM_KIND_COUNTER,
	NXM_KIND_MAP,
	NXM_KIND_STACK,
	NXM_KIND_QUEUE,
	NXM_KIND_CACHE
} NxmKind;

#define NXM_KINDS 5

typedef enum NxmPrivilege
{
	NXM_READ = 1,
	NXM_WRITE = 2,				/* includes reading */
	NXM_OWN = 4					/* dropping, sharing */
} NxmPrivilege;

/* Whom an object is shared with: a private copy. */
typedef struct NxmAcl
{
	uint32		count;
	struct
	{
		Oid			role;		/* InvalidOid: everyone */
		uint32		privileges;
	}			entry[NXM_MAX_ACL];
} NxmAcl;

typedef struct NxmObject
{
	uint64		id;				/* immutable, never used again */
	uint32		kind;			/* immutable */
	Oid			database;		/* immutable */
	NxmAtomic	owner;			/* Oid; changed under the registry lock */
	NxmAtomic	acl;			/* NxmRef of what registry_rights.c knows, 0: none; likewise */
	NxmAtomic	dropped;		/* 0, or the epoch it was dropped, or last found in use, in;
								 * likewise */
	NxmAtomic	buried;			/* NxmRef of the one dropped before; likewise */
	NxmAtomic	drain;			/* what registry_drain.c knows; likewise */
	uint32		node;			/* of the space: its maker's, or as it was saved */
	uint32		name_len;		/* immutable */
	char		name[NXM_MAX_NAME + 1]; /* immutable, with a 0 at its end */
	union
	{
		NxmCounter	counter;
		NxmMap		map;
		NxmStack	stack;
		NxmQueue	queue;
		struct
		{
			NxmCache	cache;
			int64		default_ttl;	/* microseconds, 0: none; immutable */
		}			c;
	}			u __attribute__((aligned(NXM_CACHE_LINE)));
} NxmObject;

StaticAssertDecl(sizeof(NxmObject) % NXM_CACHE_LINE == 0, "an object begins at a line");

/* What an object is made with.  All 0: nothing special. */
typedef struct NxmObjectOptions
{
	bool		striped;		/* of a counter */
	uint64		max_bytes;		/* of a cache, 0: no limit of its own */
	int64		default_ttl;	/* of a cache, microseconds, 0: none */
} NxmObjectOptions;

/*
 * What is remembered of an object that was used: name, privilege and place.  It is
 * good while the anchor's generation, the current role and this process's count of
 * role changes are what they were.
 */
typedef struct NxmSite
{
	NxmObject  *object;			/* NULL: nothing is remembered */
	uint64		generation;		/* of the anchor */
	uint64		role_changes;	/* of this process */
	uint64		id;				/* of the object */
	Oid			role;
	Oid			owner;			/* of the object */
	NxmKind		kind;
	uint32		privileges;		/* that the role has */
	uint32		size_hint;		/* for its user: bytes of the last value */
	int64		default_ttl;	/* of a cache: NxmObjectOptions */
	uint32		name_len;
	char		name[NXM_MAX_NAME + 1];
} NxmSite;

/* A private copy of what is known of an object, as of some moment. */
typedef struct NxmObjectInfo
{
	NxmObject  *object;			/* only for nxm_object_find() */
	uint64		generation;		/* of the anchor, at that moment */
	uint64		id;
	NxmKind		kind;
	Oid			database;
	Oid			owner;
	int			node;			/* of the space; -1: none, of a cache */
	NxmObjectOptions options;
	uint32		name_len;
	char		name[NXM_MAX_NAME + 1];
	NxmAcl		acl;
} NxmObjectInfo;

/* What is in an object. */
typedef struct NxmObjectSums
{
	uint64		entries;
	uint64		bytes;			/* its own ones included */
	uint64		cache_used;		/* of these, what a cache's max_bytes bounds */
} NxmObjectSums;

/* Set when this process first asks for an object. */
extern NxmSpace *nxm_registry_space;
extern NxmAnchor *nxm_registry_anchor;

extern uint64 nxm_role_changes; /* seen by this process */
extern bool nxm_enable_lock_free_structures;
extern int	nxm_role_limit;		/* kB, -1: none */

/* Called before the first use of names: waits for what was saved, or loads it. */
extern void (*nxm_registry_load_hook) (void);

/*
 * Attaches this process and waits until what was saved is there.  The functions
 * that take a name do it themselves.
 */
extern void nxm_registry_use(void);

/*
 * In the generation: nothing is to be used or changed but by the process that
 * closed the registry.  No name is found then, and no call site is good.
 */
#define NXM_CLOSED (UINT64CONST(1) << 63)

/*
 * Closes the registry, and opens it again.  nxm_registry_load_hook must raise an
 * error from before until after it is closed.  A section in which something was
 * found may still be under way: it is in its process's line of the space, and the
 * next one of that process finds nothing.
 */
extern void nxm_registry_close(void);
extern void nxm_registry_reopen(void);

/*
 * Opening an object: of this name in this database, with the privilege checked,
 * remembered in *site, which the caller zeroed once and keeps as long as it
 * likes.  create: make it where there is none, owned by the current role.
 * false: there is none, also for want of memory if it is a cache, and *site is as
 * before.  Raises invalid_parameter_value, name_too_long, insufficient_privilege,
 * object_not_in_prerequisite_state (not preloaded;
 * nexusmem.enable_lock_free_structures off), and what nxm_again() raises.
 *
 * The object may be dropped by others at any time, so it is used only in a
 * section, after looking there whether it still is what it was:
 *
 *	do
 *	{
 *		if (!nxm_site_open(&site, kind, name, len, NXM_WRITE, true))
 *			...
 *		nxm_begin_operation();
 *		nxm_enter(nxm_registry_space);
 *		r = nxm_object_valid(&site) ? nxm_map_put(...) : NXM_DROPPED;
 *		nxm_leave(nxm_registry_space);
 *		nxm_end_operation();
 *	} while (r == NXM_DROPPED || nxm_again(nxm_registry_space, r));
 */
extern bool nxm_site_open(NxmSite *site, NxmKind kind, const char *name,
						  size_t len, NxmPrivilege privilege, bool create);

/* In a section: is the object of *site still to be used? */
static inline bool
nxm_object_valid(const NxmSite *site)
{
	/*
	 * acquire; the section's fence came before.  Pairs with the increment in
	 * bury(), after which the object's epoch of death is taken: seen without
	 * it, this section began early enough to keep the object.
	 */
	return likely(nxm_load(&nxm_registry_anchor->generation) ==
				  site->generation);
}

/*
 * Is the privilege among what *site remembers for this role?  Whether the object is
 * still what it was is to be seen in the section.
 */
static inline bool
nxm_site_permits(const NxmSite *site, NxmPrivilege privilege)
{
	return likely(site->object != NULL &&
				  site->role_changes == nxm_role_changes &&
				  site->role == GetUserId() &&
				  (site->privileges & privilege) != 0 &&
				  (site->kind == NXM_KIND_CACHE ||
				   nxm_enable_lock_free_structures));
}

/* Does what *site remembers still hold, and is the privilege among it? */
static inline bool
nxm_site_holds(const NxmSite *site, NxmPrivilege privilege)
{
	return nxm_site_permits(site, privilege) && likely(nxm_object_valid(site));
}

/* Is it what *site remembers, or remembered once? */
static inline bool
nxm_site_is_of(const NxmSite *site, NxmKind kind, const char *name, size_t len)
{
	return site->name_len == len && site->kind == kind &&
		memcmp(site->name, name, len) == 0;
}

extern NxmSite *nxm_object_open_slow(FunctionCallInfo fcinfo, NxmKind kind,
									 const char *name, size_t len,
									 NxmPrivilege privilege, bool create);

/*
 * For a function's call: nxm_site_open(), in a site that outlives the statement.
 * NULL: there is no such object.  The site is good until the next of these calls
 * in this process, whoever makes it: a query that is run may.
 */
static inline NxmSite *
nxm_object_open(FunctionCallInfo fcinfo, NxmKind kind, const char *name,
				size_t len, NxmPrivilege privilege, bool create)
{
	NxmSite    *site = fcinfo->flinfo == NULL ? NULL : fcinfo->flinfo->fn_extra;

	if (likely(site != NULL && nxm_site_is_of(site, kind, name, len) &&
			   nxm_site_holds(site, privilege)))
		return site;
	return nxm_object_open_slow(fcinfo, kind, name, len, privilege, create);
}

/* Creates an object for the current role; false: there is one of that name. */
extern bool nxm_object_create(NxmKind kind, const char *name, size_t len,
							  const NxmObjectOptions *options);
/*
 * The same for whatever database, owner and sharing, without any check; for loading
 * what was saved.  options, acl NULL: none.  Tells *site of it, but no privileges: to be
 * used while nxm_object_valid(), not to be opened again.
 */
extern bool nxm_object_restore(NxmSite *site, Oid database, Oid owner,
							   NxmKind kind, const char *name, size_t len,
							   const NxmObjectOptions *options,
							   const NxmAcl *acl);

/* false: there was none.  Needs NXM_OWN.  Frees what is in it, where it can, at once. */
extern bool nxm_object_drop(NxmKind kind, const char *name, size_t len);
/* Drops the object of info, if it is still there, without any check. */
extern bool nxm_object_drop_info(const NxmObjectInfo *info);

/*
 * Shares (grant) or unshares; role InvalidOid: with everyone.  Unsharing reading
 * unshares writing too.  false: it was so already.  Needs NXM_OWN; raises
 * undefined_object where there is none.
 */
extern bool nxm_object_share(NxmKind kind, const char *name, size_t len,
							 Oid role, uint32 privileges, bool grant);
/*
 * Gives the object of info a new owner and sharing, if it is still there and has those
 * of info.
 */
extern bool nxm_object_reassign(const NxmObjectInfo *info, Oid owner,
								const NxmAcl *acl);

/* NxmPrivilege bits that a role has on what has this owner and sharing. */
extern uint32 nxm_object_privileges(Oid role, Oid owner, const NxmAcl *acl);

/* Raises the errors that names, or the setting, deserve. */
extern void nxm_check_name(NxmKind kind, size_t len);
extern void nxm_check_enabled(NxmKind kind);
/* Is it one of the caches of which each role has its own? */
extern bool nxm_is_default_cache(NxmKind kind, const char *name, size_t len);

/*
 * Raises configuration_limit_exceeded if the objects of owner would take more than
 * nexusmem.role_limit with so many bytes more.
 */
extern void nxm_check_role_limit_slow(Oid owner, size_t bytes);

/*
 * How many bytes of those that an object counts for its owner's nexusmem.role_limit
 * leaves to it, which is to take about so many now; at most the limit.  Taken anew now
 * and then.  Not in a section.
 */
extern uint64 nxm_role_limit_of_object(Oid owner, uint64 id, size_t bytes);

static inline void
nxm_check_role_limit(Oid owner, size_t bytes)
{
	if (unlikely(nxm_role_limit >= 0))
		nxm_check_role_limit_slow(owner, bytes);
}

/*
 * The hash of a map's key, for NxmKey.hash.  Its seeds are the cluster's own and
 * secret, so that nobody can make up keys that collide.
 */
extern uint64 nxm_hash_seeds[2];	/* the first one 0: not known yet */
extern void nxm_hash_prepare(void);

/* Both halves of the product, folded: how wyhash (Wang Yi) mixes. */
static inline uint64
nxm_hash_mix(uint64 a, uint64 b)
{
	unsigned __int128 product = (unsigned __int128) a * b;

	return (uint64) product ^ (uint64) (product >> 64);
}

/*
 * Short keys as wyhash takes them, which is a third of hash_bytes_extended()'s
 * instructions; with both factors under a seed, where wyhash has a constant: a factor
 * that somebody can make 0 lets the other one be anything.
 */
static inline uint64
nxm_hash(const char *key, size_t len)
{
	uint64		a;
	uint64		b;

	if (unlikely(nxm_hash_seeds[0] == 0))
		nxm_hash_prepare();
	if (len >= 8)
	{
		if (len > 16)
			return hash_bytes_extended((const unsigned char *) key, (int) len,
									   nxm_hash_seeds[0]);
		a = nxm_eight_bytes(key);
		b = nxm_eight_bytes(key + len - 8);
	}
	else if (len >= 4)
	{
		a = nxm_four_bytes(key);
		b = nxm_four_bytes(key + len - 4);
	}
	else
	{
		a = len == 0 ? 0 : (uint64) (unsigned char) key[0] << 16 |
			(uint64) (unsigned char) key[len / 2] << 8 | (unsigned char) key[len - 1];
		b = 0;
	}
	return nxm_hash_mix(nxm_hash_mix(a ^ nxm_hash_seeds[0], b ^ nxm_hash_seeds[1]),
						UINT64CONST(0x9E3779B97F4A7C15) ^ len);
}

extern const char *nxm_kind_name(NxmKind kind);
/* -1: no kind of this name */
extern int	nxm_kind_of_name(const char *name, size_t len);

/*
 * Calls each() for every object of all databases, outside of sections; objects
 * created or dropped meanwhile may be among them or not.  each() may raise
 * errors, and may use the object in a section after nxm_object_find().  false: interrupts
 * are held, and names have come and gone so fast that it gave up before the end.
 */
extern bool nxm_registry_scan(void (*each) (const NxmObjectInfo *info,
											void *context), void *context);

/*
 * In a section: the object of info, if it is still there.  NXM_OK, NXM_DROPPED,
 * or what nxm_again() handles.
 */
extern NxmResult nxm_object_find(const NxmObjectInfo *info, NxmObject **object);

/*
 * What is in the object of info, which takes reading many lines that others write to.
 * false: it is not there any more.  Not in a section.
 */
extern bool nxm_object_sums(const NxmObjectInfo *info, NxmObjectSums *sums);

/*
 * Makes the cache of info, if it is still there, the one that gives way to others.
 * Not in a section.
 */
extern void nxm_registry_set_largest(const NxmObjectInfo *info);

/* For drops and clears whose process went away before all was freed. */
extern NxmDrain nxm_registry_drain_some(void);
/* Frees all of it, unless another process holds it back, or *stop is set; NULL: never. */
extern void nxm_registry_drain(volatile sig_atomic_t *stop);
/*
 * The same for a session: what it has dropped itself, with this id, or 0; then, for a
 * moment, what others have.
 */
extern void nxm_registry_help_drain(uint64 own);
/* Tells nxm_registry_drain_some() to look for a cleared map. */
extern void nxm_registry_note_clear(void);

/*
 * Drops all objects of a database, in which nobody is any more.  What is in them is freed
 * by others.  Where nxm_registry_scan() gives up some are left to nxm_registry_reconcile().
 */
extern void nxm_registry_drop_database(Oid database);

/*
 * Drops the objects of databases, and gives to the database's owner those of
 * roles, that do not exist any more.  In a transaction, which has not dropped such itself;
 * it needs no database.  Returns how many it changed.
 */
extern int	nxm_registry_reconcile(void);

extern void nxm_registry_init(void);	/* settings */

#endif							/* NXM_REGISTRY_H */
