/*
 * nexusmem_api.h
 *	  nexusmem's counters, maps, stacks and queues for other extensions.
 *
 * This file is all that a user needs: there is nothing to link with.  nxm_api()
 * finds the functions when it is first called, and loads nexusmem's library if
 * this server process has not.
 *
 *	#include "nexusmem/nexusmem_api.h"
 *
 *	const NxmApi *nxm = nxm_api();
 *	NxmHandle  *hits = nxm->open(NXM_API_COUNTER, "hits", NXM_API_WRITE |
 *								 NXM_API_CREATE);
 *	int64		n;
 *
 *	nxm->counter_add(hits, 1, &n);
 *	nxm->close(hits);
 *
 * with -I$(includedir_server)/extension in PG_CPPFLAGS.
 *
 * The structures are those that SQL sees: names belong to the current database,
 * privileges are those of the current role (GetUserId()) at each call, effects are
 * visible at once and are not undone by an abort.
 *
 * When to call.  In a transaction of a backend, or of a background worker that is
 * connected to a database; also on a standby and when it is read-only.  Not in a
 * critical section, with a lock of PostgreSQL's internals (LWLock, spinlock) held,
 * or while the transaction aborts.  Functions may wait for the server to have
 * loaded what it saved, and can be cancelled there.
 *
 * Errors are PostgreSQL errors (ereport(ERROR)), with nothing half done.  Any
 * function that takes a name or a handle may raise
 *
 *	object_not_in_prerequisite_state	nexusmem is not in shared_preload_libraries
 *		(before PostgreSQL 17), or nexusmem.enable_lock_free_structures is off
 *	insufficient_privilege				the current role may not
 *	cannot_connect_now					the server is shutting down
 *	query_canceled						while waiting for the load at the start
 *	invalid_parameter_value				an empty name; a key of 0 or of over 1,024 bytes;
 *		flags, types and handles that do not fit
 *	name_too_long						more than 63 bytes
 *	character_not_in_repertoire			a name that is not valid in the server's encoding
 *	system_error						this process could not map the shared memory
 *
 * and whatever stores something
 *
 *	configuration_limit_exceeded		nexusmem.memory_limit or role_limit, or there can be
 *		no more segments of memory
 *	out_of_memory						the operating system has no shared memory
 *	insufficient_resources				the server has no dynamic shared memory segment left
 *	program_limit_exceeded				a value of over 1 MB, or the structure can have no
 *		more entries
 *	undefined_object					no such object, and no NXM_API_CREATE
 *
 * What further errors a function has is told at the function.
 *
 * Memory.  Results are palloc'ed in the current memory context, and values end
 * with a 0 byte that is not counted in their length.  A handle is in the memory
 * context that was current at open() and must not be used when that is gone.
 *
 * Lifetime.  An open object may be dropped by others.  A function then does what
 * it does for an object that does not exist, or makes it anew if the handle has
 * NXM_API_CREATE; the handle stays good.
 *
 * Threads: none; a handle is for one process.
 *
 * Compatibility: functions are added at the end of NxmApi, and `size` tells how
 * many there are.  A change of what is there makes another NXM_API_VERSION.
 */
#ifndef NEXUSMEM_API_H
#define NEXUSMEM_API_H

#include "postgres.h"

#include "fmgr.h"

#define NXM_API_VERSION 1
#define NXM_API_RENDEZVOUS "nexusmem_api_1"

typedef enum NxmApiKind
{
	NXM_API_COUNTER,
	NXM_API_MAP,
	NXM_API_STACK,
	NXM_API_QUEUE
} NxmApiKind;

/* How a value's bytes are to be understood; SQL sees the same types. */
typedef enum NxmApiType
{
	NXM_API_TEXT,				/* valid in the server's encoding and without a 0 byte, which
								 * nobody checks here; without a header */
	NXM_API_BYTEA,				/* bytes, without a header */
	NXM_API_JSONB				/* the bytes of a Jsonb, without a header */
} NxmApiType;

/* Of open(). */
#define NXM_API_READ	0x01	/* what only reads is allowed */
#define NXM_API_WRITE	0x02	/* everything is */
#define NXM_API_CREATE	0x04	/* functions that store make the object */
#define NXM_API_STRIPED 0x08	/* with CREATE: a counter that is made is striped */

typedef struct NxmHandle NxmHandle;

typedef struct NxmApiValue
{
	const char *data;
	size_t		len;
	NxmApiType	type;
} NxmApiValue;

/* For map_scan().  false: end the scan. */
typedef bool (*NxmApiVisit) (const char *key, size_t key_len,
							 const NxmApiValue *value, void *context);

typedef struct NxmApi
{
	int			version;		/* NXM_API_VERSION */
	size_t		size;			/* of this struct, in the library */

	/*
	 * A handle for an object.  The name and the flags are checked, the object
	 * need not exist; with NXM_API_CREATE it is made.  Raises
	 * insufficient_privilege if it exists and the role may not use it.
	 */
	NxmHandle  *(*open) (NxmApiKind kind, const char *name, int flags);
	void		(*close) (NxmHandle *handle);
	/* Does the object exist now? */
	bool		(*exists) (NxmHandle *handle);
	/* false: there was none.  Only its owner may. */
	bool		(*drop) (NxmApiKind kind, const char *name);

	/*
	 * Counters.  counter_add(): value is set to the new value of an exact
	 * counter and false is returned for a striped one, which has none; value may
	 * be NULL.  counter_get(): false: there is none.  counter_set() gives the old
	 * value; it may be NULL.  Raise numeric_value_out_of_range, nothing changed: but
	 * counter_set() has set a striped counter whose old sum does not fit.
	 */
	bool		(*counter_add) (NxmHandle *handle, int64 delta, int64 *value);
	bool		(*counter_get) (NxmHandle *handle, int64 *value);
	void		(*counter_set) (NxmHandle *handle, int64 value, int64 *old);

	/*
	 * Maps.  A key is 1 to 1,024 bytes.  To SQL keys are text: it can name those alone
	 * that are valid in the server's encoding and without a 0 byte, and its
	 * map_entries() raises character_not_in_repertoire where a map has others.
	 * map_put(): true: a new key.
	 * map_put_if(): stores if the present value is `expected`, type and bytes, or,
	 * where that is NULL, if there is none; false: it was not.  map_get(),
	 * map_delete(): false: there is no such key.  map_add(): adds to a decimal
	 * text, an absent key counting as 0, and returns the sum; raises
	 * invalid_text_representation and numeric_value_out_of_range.
	 */
	bool		(*map_put) (NxmHandle *handle, const char *key, size_t key_len,
							const NxmApiValue *value);
	bool		(*map_put_if) (NxmHandle *handle, const char *key,
							   size_t key_len, const NxmApiValue *expected,
							   const NxmApiValue *value);
	bool		(*map_get) (NxmHandle *handle, const char *key, size_t key_len,
							NxmApiValue *value);
	bool		(*map_delete) (NxmHandle *handle, const char *key,
							   size_t key_len);
	int64		(*map_add) (NxmHandle *handle, const char *key, size_t key_len,
							int64 delta);
	/* Entries; 0 where there is no map. */
	uint64		(*map_size) (NxmHandle *handle);
	/*
	 * Calls visit() for entries, outside of any lock; it may raise errors and use
	 * structures.  An entry that is there during the whole scan is visited exactly
	 * once, one that comes or goes meanwhile at most once.  The pointers are good
	 * within the call.
	 */
	void		(*map_scan) (NxmHandle *handle, NxmApiVisit visit,
							 void *context);

	/* Stacks.  stack_pop(): false: empty, or there is none. */
	void		(*stack_push) (NxmHandle *handle, const NxmApiValue *value);
	bool		(*stack_pop) (NxmHandle *handle, NxmApiValue *value);
	uint64		(*stack_depth) (NxmHandle *handle);

	/* Queues.  queue_pop(): false: empty, or there is none. */
	void		(*queue_push) (NxmHandle *handle, const NxmApiValue *value);
	bool		(*queue_pop) (NxmHandle *handle, NxmApiValue *value);
	uint64		(*queue_length) (NxmHandle *handle);

	/*
	 * As map_get(), with the value in `size` bytes of the caller's, value->data
	 * being room, if it and its 0 byte fit there, and palloc'ed if not: for reading
	 * many without allocating memory for each.
	 */
	bool		(*map_read) (NxmHandle *handle, const char *key, size_t key_len,
							 char *room, size_t size, NxmApiValue *value);
} NxmApi;

/*
 * The functions of the library that this process has loaded; loads it if it has
 * none.  Raises undefined_file where nexusmem is not installed, and
 * feature_not_supported where the library is too old.  What is returned is good
 * for the life of the process.
 */
static inline const NxmApi *
nxm_api(void)
{
	static const NxmApi *api = NULL;

	if (api == NULL)
	{
		void	  **variable = find_rendezvous_variable(NXM_API_RENDEZVOUS);

		if (*variable == NULL)
			(void) load_external_function("$libdir/nexusmem",
										  "nxm_api_version", true, NULL);
		if (*variable == NULL ||
			((const NxmApi *) *variable)->version != NXM_API_VERSION ||
			((const NxmApi *) *variable)->size < sizeof(NxmApi))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the nexusmem library does not have version %d of the C interface",
							NXM_API_VERSION),
					 errhint("Install a newer nexusmem and reconnect, or restart the server if it is preloaded.")));
		api = (const NxmApi *) *variable;
	}
	return api;
}

#endif							/* NEXUSMEM_API_H */
