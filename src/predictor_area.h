/*
 * predictor_area.h
 *	  The shared memory of the learned predictor, and the file that it survives in.
 */
#ifndef NXM_PREDICTOR_AREA_H
#define NXM_PREDICTOR_AREA_H

#include "postgres.h"

#include <signal.h>

#include "arena_chunks.h"
#include "core/predictor.h"
#include "datatype/timestamp.h"

extern bool nxm_enable_learned_prefetch;

/* For status. */
typedef struct NxmPredictorAreaReport
{
	bool		ready;			/* there is memory */
	uint64		bytes;
	char		failed[256];	/* why there is none, or why it could not be saved; "": nothing failed */
	NxmGrowth	no_memory;		/* why there is none, NXM_GROWN: for something else */
	bool		refused;		/* a file was not loaded */
	TimestampTz saved_at;		/* 0: not in this life of the server */
} NxmPredictorAreaReport;

extern void nxm_predictor_area_init(void);	/* settings */
extern Size nxm_predictor_area_size(void);
extern void nxm_predictor_area_shmem_init(void *ptr, bool found);

/* For node_memory. */
typedef struct NxmPredictorAreaMemory
{
	uint64		bytes;
	uint64		resident;		/* of them, that the kernel says exist */
	bool		asked;			/* resident is known */
} NxmPredictorAreaMemory;

/*
 * The predictor, mapped if need be.  NULL: there is none, or it cannot be mapped, which
 * is tried again after a second.
 * Raises no errors but those of want of a few bytes of memory.  Not in a section, with
 * no LWLock held.
 */
extern NxmPredictor *nxm_predictor_area(void);

/* Forgets everything, and removes the file; the worker writes one of nothing. */
extern void nxm_predictor_area_reset(void);

extern void nxm_predictor_area_report(NxmPredictorAreaReport *report);

/* False: there is no memory.  Maps it. */
extern bool nxm_predictor_area_memory(NxmPredictorAreaMemory *memory);

/*
 * For the worker: makes the memory and loads the file once the setting is on, saves
 * from time to time.  Returns in how many ms to be called again, -1: when the
 * settings change, or somebody woke the worker.  Raises no errors.
 */
extern long nxm_predictor_area_tick(void);

/* For the worker, before it ends: saves what is new.  Raises no errors. */
extern void nxm_predictor_area_save(void);

#endif							/* NXM_PREDICTOR_AREA_H */
