/*
 * scheduler.h
 *	  Which node a process runs on.
 */
#ifndef NXM_SCHEDULER_H
#define NXM_SCHEDULER_H

#include "postgres.h"

#include "slot.h"

extern bool nxm_enable_numa_optimizations;
extern int	nxm_preferred_node;

/* Defines the settings and installs the authentication hook. */
extern void nxm_scheduler_init(void);
extern Size nxm_scheduler_size(void);
extern void nxm_scheduler_shmem_init(void *ptr, bool found);

/*
 * To be called at every statement; one load and one compare unless something
 * about this process's placement has changed.
 */
extern void nxm_scheduler_statement(void);

/* Places our own worker, which then calls the pass below every second. */
extern void nxm_scheduler_place_worker(void);
/*
 * Frees the homes of processes that are gone; renews pins that were lost; places
 * background processes and walsenders when pinning is on, and gives back their
 * affinity when it is off.
 * Returns the number of them that have a home.
 */
extern int	nxm_scheduler_background_pass(void);

/* For the SQL functions; pid is a server process, node takes backends. */
extern bool nxm_scheduler_pin(int pid, int node);
extern bool nxm_scheduler_unpin(int pid);
extern int	nxm_scheduler_rebalance(void);

/* Home of the calling process, or the node of its CPU where it has none. */
extern int	nxm_scheduler_my_node(void);
/* Uncounts processes that ended without a word, which our worker does while
 * pinning is on. */
extern void nxm_scheduler_reconcile(void);
/* Client backends and parallel workers whose home is node. */
extern int	nxm_scheduler_backends_on(int node);
extern const char *nxm_home_reason_name(NxmHomeReason reason);

/* errno of the last call for node; 0: it succeeded, or there was none. */
extern int	nxm_scheduler_affinity_errno(int node);
extern int	nxm_scheduler_policy_errno(int node);

#endif							/* NXM_SCHEDULER_H */
