/*
 * prefetch_index.h
 *	  Look-ahead in btree index scans and index-only scans.
 */
#ifndef NXM_PREFETCH_INDEX_H
#define NXM_PREFETCH_INDEX_H

#include "postgres.h"

#include "access/genam.h"
#include "executor/execdesc.h"
#include "prefetch_stats.h"
#include "storage/block.h"
#include "utils/relcache.h"

extern bool nxm_enable_prefetch;
extern int	nxm_prefetch_distance;
/* scans and loops begin awake and stay so */
extern bool nxm_debug_force_prefetch;

/* Defines the settings; the postmaster also calibrates the clock. */
extern void nxm_prefetch_index_init(void);

/* Gives the plan's indexes our routine.  To be called after ExecutorStart. */
extern void nxm_prefetch_index_start(QueryDesc *query, int eflags);

/* Before ExecutorRun, with its count; 0: all rows. */
extern void nxm_prefetch_index_run(QueryDesc *query, uint64 count);

/* Is this scan of a btree, which has our routine, reading ahead of itself? */
extern bool nxm_prefetch_index_awake(IndexScanDesc scan);

/*
 * What look-ahead did in one scan, of any index, rescans included; what is in
 * flight counts as wasted.  *distance: the most blocks that might be in flight.
 * false: it looked at nothing.
 */
extern bool nxm_prefetch_index_stats(IndexScanDesc scan,
									 int64 stat[NXM_NUM_PREFETCH_STATS],
									 int *distance);

/*
 * Most blocks in flight for a scan of a table in this tablespace; InvalidOid:
 * the database's own.  0: none.  May raise errors.
 */
extern int	nxm_prefetch_distance_for(Oid tablespace);

/* Where a block was that was asked for, as the answer or the time of the call tells. */
typedef enum NxmAsked
{
	NXM_ASKED_BUFFERED,			/* in shared_buffers */
	NXM_ASKED_MEMORY,			/* the operating system has it */
	NXM_ASKED_DISK				/* it is being read */
} NxmAsked;

/* Asks the operating system for a block, which is not past the relation's end. */
extern NxmAsked nxm_prefetch_ask(Relation rel, BlockNumber block);

/*
 * Microseconds from which a read-ahead call counts as having gone to the
 * disk; 0 where that could not be found out.
 */
extern double nxm_prefetch_threshold_us(void);

#endif							/* NXM_PREFETCH_INDEX_H */
