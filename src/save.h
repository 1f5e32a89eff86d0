/*
 * save.h
 *	  What a clean shutdown saves of the shared structures, and the next start
 *	  loads.
 */
#ifndef NXM_SAVE_H
#define NXM_SAVE_H

#include "postgres.h"

#include <signal.h>

/* nexusmem.save */
typedef enum NxmSaveWhat
{
	NXM_SAVE_OFF,
	NXM_SAVE_STRUCTURES,
	NXM_SAVE_ALL				/* caches too */
} NxmSaveWhat;

extern int	nxm_save_what;

/* Where the structures stand.  DONE is 0: a server without a file has it. */
typedef enum NxmLoadState
{
	NXM_LOAD_DONE,				/* they may be used */
	NXM_LOAD_PENDING,			/* there is a file; whoever comes first loads it */
	NXM_LOAD_LOADING,			/* the process `loader` does */
	NXM_LOAD_CLOSED,			/* the server stops: they are being, or were, saved */
	NXM_LOAD_KEPT				/* it stops, and the file was not loaded */
} NxmLoadState;

/* For status. */
typedef struct NxmSaveReport
{
	NxmLoadState state;
	uint32		loaded;			/* structures found in the file at the start */
	uint32		dropped;		/* of these, that could not be loaded */
	bool		refused;		/* the start found a file that it did not load */
} NxmSaveReport;

extern void nxm_save_init(void);	/* settings */
extern Size nxm_save_size(void);
extern void nxm_save_shmem_init(void *ptr, bool found);
extern void nxm_save_report(NxmSaveReport *report);

/*
 * Returns when the structures may be used: at once, or after loading what was
 * saved, or after waiting, cancellably, for the process that does.  Raises
 * cannot_connect_now once the server is being stopped.  Not in a section, with no
 * LWLock held.
 */
extern void nxm_load_wait(void);

/* The same, but where the server is being stopped already it returns at once. */
extern void nxm_load_settle(void);

/*
 * The same without waiting; true: they may be used.  It stops early, and the
 * file is kept for another time, when *stop becomes true (NULL: it never does).
 */
extern bool nxm_load_now(volatile sig_atomic_t *stop);

/* Is the postmaster in its shutdown sequence? */
extern bool nxm_server_stopping(void);

/*
 * For the worker, at a shutdown of the server that it has known of since a time of
 * nxm_steady_ms(): are the clients gone?  To be asked until they are.
 */
extern bool nxm_save_may_begin(int64 since);

/* Then: keeps everybody out and writes the file.  Raises no errors. */
extern void nxm_save_now(void);

/*
 * For the worker, when it starts: the server is alive, so whatever was saved in
 * this life of it is out of date.
 */
extern void nxm_save_reopen(void);

#endif							/* NXM_SAVE_H */
