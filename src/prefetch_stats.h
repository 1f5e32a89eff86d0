/*
 * prefetch_stats.h
 *	  What look-ahead did, by relation.
 */
#ifndef NXM_PREFETCH_STATS_H
#define NXM_PREFETCH_STATS_H

#include "postgres.h"

#include "port/atomics.h"

/*
 * One row a statistic: the counter, the column of stat_prefetch and
 * session_prefetch(), and what it means.  X(name, meaning)
 */
#define NXM_PREFETCH_STATS(X) \
	X(issued, "blocks, of the table or its indexes, asked of the operating system ahead of the scan") \
	X(used, "of these, blocks that the scan then reached") \
	X(wasted, "of these, blocks that the scan ended or turned back before") \
	X(skipped, "blocks looked at and found cached, so not asked for")

typedef enum NxmPrefetchStat
{
#define X(name, meaning) NXM_STAT_##name,
	NXM_PREFETCH_STATS(X)
#undef X
	NXM_NUM_PREFETCH_STATS
} NxmPrefetchStat;

typedef enum NxmPrefetchKind
{
	NXM_PREFETCH_INDEX,
	NXM_PREFETCH_NESTLOOP,
	NXM_PREFETCH_LEARNED,
	NXM_NUM_PREFETCH_KINDS
} NxmPrefetchKind;

/* The columns before and of the statistics, as stat_prefetch returns them. */
typedef struct NxmPrefetchRow
{
	Oid			database;
	Oid			relation;		/* the table whose blocks are read ahead */
	NxmPrefetchKind kind;
	int64		stat[NXM_NUM_PREFETCH_STATS];
} NxmPrefetchRow;

/*
 * This transaction's counts for one relation, process-local.  Valid until the
 * transaction ends, when they are added to the shared ones.
 */
typedef struct NxmPrefetchCounts
{
	Oid			relation;		/* the table; InvalidOid: counted in the
								 * session's totals alone */
	NxmPrefetchKind kind;
	int64		stat[NXM_NUM_PREFETCH_STATS];
} NxmPrefetchCounts;

extern void nxm_prefetch_stats_init(void);
extern Size nxm_prefetch_stats_size(void);
extern Size nxm_prefetch_stats_extra(void);
extern void nxm_prefetch_stats_shmem_init(void *ptr, bool found);

/* Never fails, never allocates. */
extern NxmPrefetchCounts *nxm_prefetch_counts(Oid relation,
											  NxmPrefetchKind kind);

/*
 * This session's totals since it began.  What is wasted is known when a
 * transaction ends: until then issued may be more than used + wasted.
 */
extern void nxm_session_prefetch(NxmPrefetchKind kind,
								 int64 stat[NXM_NUM_PREFETCH_STATS]);
/*
 * All rows, palloc'd; of this session alone where there is no shared memory.
 * Relations of this database that are gone are left out, and forgotten.
 */
extern NxmPrefetchRow *nxm_prefetch_rows(int *nrows);
extern void nxm_prefetch_stats_reset(void);

/*
 * Adds up what was counted since the last transaction ended: for a process that is
 * about to end.  Raises no errors.
 */
extern void nxm_prefetch_stats_flush(void);

extern const char *nxm_prefetch_kind_name(NxmPrefetchKind kind);

/*
 * A reason to switch index look-ahead off for good, shared by all sessions
 * where there is shared memory.
 */
extern void nxm_prefetch_switch_off(const char *reason);
/* "" where it is on. */
extern const char *nxm_prefetch_off_reason(void);

#endif							/* NXM_PREFETCH_STATS_H */
