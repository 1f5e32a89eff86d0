/*
 * slot.h
 *	  One slot for every process that PostgreSQL can have, by its PGPROC number.
 */
#ifndef NXM_SLOT_H
#define NXM_SLOT_H

#include "postgres.h"

#include "core/topology.h"
#include "port/atomics.h"

/* Why a process is where it is. */
typedef enum NxmHomeReason
{
	NXM_HOME_NONE = 0,			/* never placed */
	NXM_HOME_PROVISIONAL,		/* at authentication */
	NXM_HOME_POLICY,			/* by nexusmem.scheduling_policy */
	NXM_HOME_PREFERRED,			/* by nexusmem.preferred_node */
	NXM_HOME_LEADER,			/* parallel worker, on its leader's node */
	NXM_HOME_SPREAD,			/* parallel worker, its leader's node was full */
	NXM_HOME_AFFINITY,			/* background process or walsender, by
								 * affinity only */
	NXM_HOME_MANUAL,			/* pin_backend() */
	NXM_HOME_UNPINNED			/* unpin_backend(): stays unpinned */
} NxmHomeReason;

/*
 * A process's home, one atomic word:
 *
 *	63         32 31         16 15          8 7           0
 *	+------------+-------------+-------------+-------------+
 *	|    pid     |  serial     |  node + 1   |   reason    |
 *	+------------+-------------+-------------+-------------+
 *
 * node + 1 is 0 where there is none.  The serial makes two homes with the same
 * node and reason different words, so that the process sees that somebody set
 * its affinity again.
 */
typedef uint64 NxmHome;

#define NXM_HOME_PID(h)		((int) ((h) >> 32))
#define NXM_HOME_SERIAL(h)	((uint16) ((h) >> 16))
#define NXM_HOME_NODE(h)	((int) (((h) >> 8) & 0xFF) - 1)
#define NXM_HOME_REASON(h)	((NxmHomeReason) ((h) & 0xFF))

StaticAssertDecl(NXM_MAX_NODES < 255, "node + 1 has 8 bits in NxmHome");

typedef struct NxmSlot
{
	/* changed by anybody, by compare-and-exchange */
	pg_atomic_uint64 home;

	/*
	 * Set by a process that looks after its own placement (it runs our hooks)
	 * to its pid; others read it and leave such a process alone.
	 */
	pg_atomic_uint32 self_placed;
} NxmSlot;

extern Size nxm_slots_size(void);
extern void nxm_slots_shmem_init(void *ptr, bool found);

/* Number of slots: all backends and auxiliary processes. */
extern int	nxm_slot_count(void);
/* i below nxm_slot_count() */
extern NxmSlot *nxm_slot(int i);
/* The calling process's slot; NULL where it has none (postmaster, no preload) */
extern NxmSlot *nxm_slot_mine(void);

#endif							/* NXM_SLOT_H */
