/*
 * memory_worker.h
 *	  The background worker that looks after shared structures.
 */
#ifndef NXM_MEMORY_WORKER_H
#define NXM_MEMORY_WORKER_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* Registers the worker (only while preloading). */
extern void nxm_memory_worker_init(void);
extern Size nxm_memory_worker_size(void);
extern void nxm_memory_worker_shmem_init(void *ptr, bool found);
/* pid of the running worker, 0 where there is none. */
extern int	nxm_memory_worker_pid(void);

/* There is something to do: a chunk was added, something was dropped. */
extern void nxm_memory_worker_wake(void);

/*
 * After a utility statement: if it may have dropped a database or a role, the
 * worker looks for their structures when the transaction has committed.
 */
extern void nxm_memory_worker_utility(const Node *statement);

extern PGDLLEXPORT void nxm_memory_worker_main(Datum arg);

#endif							/* NXM_MEMORY_WORKER_H */
