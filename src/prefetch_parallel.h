/*
 * prefetch_parallel.h
 *	  What look-ahead did in parallel workers, for their leader's EXPLAIN ANALYZE.
 */
#ifndef NXM_PREFETCH_PARALLEL_H
#define NXM_PREFETCH_PARALLEL_H

#include "postgres.h"

#include "executor/execdesc.h"
#include "nodes/execnodes.h"
#include "prefetch_stats.h"

extern Size nxm_prefetch_parallel_size(void);
extern void nxm_prefetch_parallel_shmem_init(void *ptr, bool found);

/*
 * After ExecutorStart of an instrumented query: prepares for what its workers will
 * report.
 */
extern void nxm_prefetch_parallel_start(QueryDesc *query);

/* Is this query, which is instrumented, what a parallel worker runs for its leader? */
extern bool nxm_prefetch_parallel_is_part(const QueryDesc *query);

/*
 * In such a query, once it has run: these were counted in one node of its plan.
 * At most once for each node.  Raises no errors.
 */
extern void nxm_prefetch_parallel_report(const PlanState *node,
										 const int64 stat[NXM_NUM_PREFETCH_STATS],
										 int distance);

/*
 * In the leader, once the query has run: adds what its workers reported of a
 * node, and makes *distance theirs where that is more.
 */
extern void nxm_prefetch_parallel_add(const PlanState *node,
									  int64 stat[NXM_NUM_PREFETCH_STATS],
									  int *distance);

#endif							/* NXM_PREFETCH_PARALLEL_H */
