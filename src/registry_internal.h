/*
 * registry_internal.h
 *	  What the files of the registry share.
 */
#ifndef NXM_REGISTRY_INTERNAL_H
#define NXM_REGISTRY_INTERNAL_H

#include "registry.h"

/*
 * Runs a block, which sets `result`, in a section: again for as long as it asks for
 * chunks or memory.  For changes: once, under the registry lock, and not while it is
 * closed, which gives NXM_DROPPED; again, and with an error where it is closed.
 */
#define NXM_IN_SECTION(...) \
	do { \
		nxm_begin_operation(); \
		nxm_enter(nxm_registry_space); \
		__VA_ARGS__; \
		nxm_leave(nxm_registry_space); \
		nxm_end_operation(); \
	} while (nxm_again(nxm_registry_space, result))

#define NXM_LOCKED_ONCE(...) \
	do { \
		nxm_begin_operation(); \
		LWLockAcquire(&nxm_registry_anchor->registry_lock, LW_EXCLUSIVE); \
		nxm_enter(nxm_registry_space); \
		if (nxm_registry_is_closed()) \
			result = NXM_DROPPED; \
		else \
			__VA_ARGS__; \
		nxm_leave(nxm_registry_space); \
		LWLockRelease(&nxm_registry_anchor->registry_lock); \
		nxm_end_operation(); \
	} while (0)

#define NXM_LOCKED_SECTION(...) \
	do \
		NXM_LOCKED_ONCE(__VA_ARGS__); \
	while (nxm_registry_reopened(result) || \
		   nxm_again(nxm_registry_space, result))

/* In a section: is it closed, and not by this process? */
extern bool nxm_registry_is_closed(void);

/*
 * After a section with NXM_DROPPED for a closed registry: raises the error, unless
 * it is open again: true.  false: another result.
 */
extern bool nxm_registry_reopened(NxmResult result);

/* Makes this process one that may use the registry. */
extern void nxm_registry_attach(void);

typedef struct NxmNameKey
{
	NxmKey		key;
	char		bytes[2 * sizeof(Oid) + 1 + NXM_MAX_NAME];
} NxmNameKey;

/* The key of a name.  owner: of the object, or whose it would be. */
extern void nxm_name_key(NxmNameKey *k, Oid database, Oid owner, NxmKind kind,
						 const char *name, size_t len);

/*
 * In a section: the object of a key.  NXM_OK; NXM_ABSENT: there is none, or by now
 * another one than info tells of; NXM_NEED_CHUNK.
 */
extern NxmResult nxm_name_find_again(const NxmNameKey *k, const NxmObjectInfo *info,
									 NxmRef *ref, NxmObject **object);

/*
 * Changes the object that info tells of, in a section, under the lock.  false: there is
 * no such object any more, or change() said something else than NXM_OK.
 */
typedef NxmResult (*NxmChange) (const NxmNameKey *k, NxmRef ref, NxmObject *object,
								const void *context);
extern bool nxm_object_change(const NxmObjectInfo *info, NxmChange change,
							  const void *context);

/*
 * What is known of a name, looked up outside of a section.  false: there is no such
 * object.
 */
extern bool nxm_name_look_up(const NxmNameKey *k, NxmObjectInfo *info);

/* In a section: what is known of an object, but its generation.  NXM_OK or NXM_NEED_CHUNK. */
extern NxmResult nxm_object_copy_info(NxmObject *object, NxmObjectInfo *info);

/* In a section: owner and sharing.  NXM_OK or NXM_NEED_CHUNK. */
extern NxmResult nxm_object_copy_rights(NxmObject *object, Oid *owner, NxmAcl *acl);

/* An unpublished sharing; *ref 0: with nobody.  NXM_OK, or why there is none. */
extern NxmResult nxm_acl_new(const NxmAcl *acl, NxmRef *ref);

/* Raises insufficient_privilege. */
_Noreturn extern void nxm_deny(NxmKind kind, const char *name, size_t len,
					 NxmPrivilege privilege);

/*
 * Frees a part of an object that nobody finds any more.  last: nor does anybody use it;
 * else all is left that those rely on who do, and what they still put there.  NXM_ABSENT:
 * there is nothing to free but the object itself.  NXM_EXISTS: what is left is in use: later.
 */
extern NxmResult nxm_object_free_contents(NxmObject *object, bool last);

/* nxm_registry_drain_some() without waiting for the registry lock. */
extern NxmDrain nxm_registry_drain_for_room(void);

#endif							/* NXM_REGISTRY_INTERNAL_H */
