/*
 * shmem.h
 *	  Our part of PostgreSQL's main shared memory.
 */
#ifndef NXM_SHMEM_H
#define NXM_SHMEM_H

#include "postgres.h"

/*
 * One shared-memory module.  size() is asked when MaxBackends is known, and
 * extra(), where there is one, for what init() will allocate besides.  init()
 * runs under AddinShmemInitLock in the postmaster, at startup and again after
 * a crash, with found telling whether somebody initialized it already.
 */
typedef struct NxmShmemModule
{
	const char *name;
	Size		(*size) (void);
	Size		(*extra) (void);	/* NULL: nothing */
	void		(*init) (void *ptr, bool found);
} NxmShmemModule;

/*
 * Installs the hooks that reserve and initialize the modules.  after_startup
 * is called in the postmaster once they all are, outside the lock.
 */
extern void nxm_shmem_init(const NxmShmemModule *modules, int nmodules,
						   void (*after_startup) (void));

/* Was the library preloaded, and is its shared memory there? */
extern bool nxm_shmem_available(void);

/* Raises the documented error where it is not. */
extern void nxm_shmem_require(const char *what);

/*
 * Between these two SIGTERM is kept away, by system calls: a background worker that has
 * not said otherwise dies from within its handler, at any instruction, which must not be
 * in the middle of a change of shared memory.  They may be nested.
 */
extern void nxm_hold_signals(void);
extern void nxm_let_signals(void);

#endif							/* NXM_SHMEM_H */
