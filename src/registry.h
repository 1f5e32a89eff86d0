/*
 * registry.h
 *	  Names, owners and privileges of the shared structures.
 *
 * An object is a structure with its name.  Objects live in the space, are found
 * through the anchor's map by (database, kind, name), and are freed two epochs
 * after they were dropped.
 */
#ifndef NXM_REGISTRY_H
#define NXM_REGISTRY_H

#include "arena.h"
#include "core/counter.h"
#include "core/map.h"
#include "core/queue.h"
#include "core/stack.h"
#include "fmgr.h"

#define NXM_MAX_NAME 63

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

/* Whom an object is shared with.  Immutable; a change makes a new one. */
typedef struct NxmAcl
{
	uint32		count;
	struct
	{
		Oid			role;		/* InvalidOid: everyone */
		uint32		privileges;
	}			entry[FLEXIBLE_ARRAY_MEMBER];
} NxmAcl;

typedef struct NxmObject
{
	uint64		id;				/* immutable, never used again */
	uint32		kind;			/* immutable */
	Oid			database;		/* immutable */
	NxmAtomic	owner;			/* Oid; changed under the registry lock */
	NxmAtomic	acl;			/* NxmRef of an NxmAcl, 0: none; likewise */
	NxmAtomic	dropped;		/* 1: two epochs from being freed */
	uint32		node;			/* it was made on; immutable */
	uint32		name_len;
	char		name[NXM_MAX_NAME + 1];	/* immutable */
	union
	{
		NxmCounter	counter;
		NxmMap		map;
		NxmStack	stack;
		NxmQueue	queue;
	}			u __attribute__((aligned(NXM_CACHE_LINE)));
} NxmObject;

/*
 * What a call site remembers of the object that it used last: name, privilege
 * and place.  It is good while the anchor's generation, the current role and
 * this process's count of role changes are what they were.
 */
typedef struct NxmSite
{
	NxmObject  *object;			/* NULL: nothing is remembered */
	uint64		generation;		/* of the anchor */
	uint64		role_changes;	/* of this process */
	Oid			role;
	NxmPrivilege privilege;
	uint32		name_len;
	char		name[NXM_MAX_NAME + 1];
} NxmSite;

/*
 * The object of this name in this database, with the privilege checked, for the
 * call site of fcinfo.  create: make it where there is none, owned by the
 * current role.  NULL: there is none.  Raises invalid_parameter_value,
 * name_too_long, insufficient_privilege, object_not_in_prerequisite_state
 * (nexusmem.enable_lock_free_structures off), and what nxm_again() raises.
 *
 * The object may be dropped by others at any time, so it is used only in a
 * section, after looking there whether it still is what it was:
 *
 *	do
 *	{
 *		object = nxm_site_object(...);
 *		nxm_begin_operation();
 *		nxm_enter(space);
 *		r = nxm_site_valid(fcinfo) ? nxm_map_put(...) : NXM_DROPPED;
 *		nxm_leave(space);
 *		nxm_end_operation();
 *	} while (r == NXM_DROPPED || nxm_again(space, r));
 */
extern NxmObject *nxm_site_object(FunctionCallInfo fcinfo, NxmKind kind,
								  text *name, NxmPrivilege privilege, bool create);

/* In a section: is the object that the call site remembers still to be used? */
extern bool nxm_site_valid(FunctionCallInfo fcinfo);

/*
 * The same without a call site, for other extensions: fills *site, which the
 * caller keeps as long as it likes.
 */
extern NxmObject *nxm_object_open(NxmSite *site, NxmKind kind, const char *name,
								  NxmPrivilege privilege, bool create);
extern bool nxm_object_valid(const NxmSite *site);

/* false: there was none.  Needs NXM_OWN. */
extern bool nxm_object_drop(NxmKind kind, const char *name);

extern const char *nxm_kind_name(NxmKind kind);
extern bool nxm_enable_lock_free_structures;
extern int	nxm_role_limit;		/* kB, -1: none */

extern void nxm_registry_init(void);	/* settings, callbacks */

/*
 * Calls each() for every object of all databases, outside a section, with a
 * private copy of what is immutable; the object itself may only be used within
 * the call, in a section it enters.
 */
extern void nxm_registry_scan(void (*each) (NxmObject *object, void *context),
							  void *context);

/*
 * Drops the objects of databases, and gives to the database's owner those of
 * roles, that do not exist any more.  For the worker, in a transaction.
 */
extern int	nxm_registry_reconcile(void);

#endif							/* NXM_REGISTRY_H */
