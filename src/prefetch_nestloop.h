/*
 * prefetch_nestloop.h
 *	  Look-ahead over the outer side of nested loops.
 */
#ifndef NXM_PREFETCH_NESTLOOP_H
#define NXM_PREFETCH_NESTLOOP_H

#include "postgres.h"

#include "executor/execdesc.h"
#include "nodes/execnodes.h"

extern bool nxm_enable_nestloop_prefetch;

/* Defines the setting, and makes the node known to parallel workers. */
extern void nxm_prefetch_nestloop_init(void);

/*
 * Around ExecutorStart.  Before it, may give the query another plan; the
 * result, a memory context or NULL, is to be passed on.  After it, gives the
 * query its own plan back, unless somebody else has replaced ours meanwhile, and
 * tells the nodes of ours where their indexes are.
 */
extern MemoryContext nxm_prefetch_nestloop_plan(QueryDesc *query, int eflags);
extern void nxm_prefetch_nestloop_started(QueryDesc *query, PlannedStmt *own,
										  PlannedStmt *ours,
										  MemoryContext context);

/* Before ExecutorRun, with its count (0: all rows) and its destination. */
extern void nxm_prefetch_nestloop_run(QueryDesc *query, uint64 count);

/* After ExecutorRun of an instrumented query: a parallel worker reports to its leader. */
extern void nxm_prefetch_nestloop_ran(QueryDesc *query);

/* Is it one of the nodes put into plans? */
extern bool nxm_is_nestloop_node(const PlanState *state);

#endif							/* NXM_PREFETCH_NESTLOOP_H */
