/*
 * prefetch_explain.h
 *	  What look-ahead did, in the lines of EXPLAIN ANALYZE.
 */
#ifndef NXM_PREFETCH_EXPLAIN_H
#define NXM_PREFETCH_EXPLAIN_H

#include "postgres.h"

#include "executor/execdesc.h"
#include "prefetch_stats.h"

struct ExplainState;

/* Takes EXPLAIN's hook, where there is one: PostgreSQL 18 and newer. */
extern void nxm_prefetch_explain_init(void);

/* After ExecutorRun of an instrumented query: a parallel worker reports to its leader. */
extern void nxm_prefetch_explain_ran(QueryDesc *query);

/*
 * Prints the counts of one node of a plan, and the most blocks that it might
 * have in flight.
 */
extern void nxm_prefetch_explain(const int64 stat[NXM_NUM_PREFETCH_STATS],
								 int distance, struct ExplainState *es);

#endif							/* NXM_PREFETCH_EXPLAIN_H */
