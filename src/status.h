/*
 * status.h
 *	  What is active, degraded or off, why, and what to do about it.
 */
#ifndef NXM_STATUS_H
#define NXM_STATUS_H

#include "postgres.h"

/* At startup: the one LOG line about what this machine refuses. */
extern void nxm_status_init(void);

#endif							/* NXM_STATUS_H */
