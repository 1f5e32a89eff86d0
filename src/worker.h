/*
 * worker.h
 *	  Our background worker.
 */
#ifndef NXM_WORKER_H
#define NXM_WORKER_H

#include "postgres.h"

/* Registers the worker (only while preloading). */
extern void nxm_worker_init(void);
extern Size nxm_worker_size(void);
extern void nxm_worker_shmem_init(void *ptr, bool found);
/* pid of the running worker, 0 where there is none. */
extern int	nxm_worker_pid(void);

extern PGDLLEXPORT void nxm_worker_main(Datum arg);

#endif							/* NXM_WORKER_H */
