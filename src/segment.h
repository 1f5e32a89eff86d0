/*
 * segment.h
 *	  DSM segments, without errors.
 */
#ifndef NXM_SEGMENT_H
#define NXM_SEGMENT_H

#include "postgres.h"

#include "storage/dsm.h"

/*
 * Makes a segment that stays until the server stops, mapped as long as this process
 * lives.  NULL: *reason, palloc'd, says why, or is NULL: PostgreSQL has none left.
 */
extern dsm_segment *nxm_segment_create(Size size, char **reason);

/*
 * Maps such a segment as long as this process lives.  NULL: *reason, palloc'd,
 * says why, or is NULL: there is no such segment any more.
 */
extern dsm_segment *nxm_segment_attach(dsm_handle handle, char **reason);

#endif							/* NXM_SEGMENT_H */
