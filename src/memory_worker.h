/*
 * memory_worker.h
 *	  The background worker that looks after shared structures.
 */
#ifndef NXM_MEMORY_WORKER_H
#define NXM_MEMORY_WORKER_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* What to do where there is no room for a background worker. */
#define NXM_HINT_WORKERS "Raise max_worker_processes, on standbys first, and restart the server."

/* Registers the worker (only while preloading). */
extern void nxm_memory_worker_init(void);
extern Size nxm_memory_worker_size(void);
extern void nxm_memory_worker_shmem_init(void *ptr, bool found);
/* pid of the running worker, 0 where there is none. */
extern int	nxm_memory_worker_pid(void);

/* There is something to do: a chunk was added, something was dropped. */
extern void nxm_memory_worker_wake(void);

/*
 * Before a utility statement: if it may drop a database or a role, the worker looks for
 * their structures when the transaction has committed.  Returns the database that it is
 * about to drop, InvalidOid: none; of one that is about to be made there are no structures.
 * May wait, cancellably, for what was saved to be loaded.
 */
extern Oid	nxm_memory_worker_utility(const Node *statement);

/*
 * After that statement: drops the structures of the database, at once, before there can be
 * another one with its OID.  Raises no error of theirs.
 */
extern void nxm_memory_worker_database_dropped(Oid database);

extern PGDLLEXPORT void nxm_memory_worker_main(Datum arg);

#endif							/* NXM_MEMORY_WORKER_H */
