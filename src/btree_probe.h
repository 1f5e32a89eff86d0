/*
 * btree_probe.h
 *	  Where a btree keeps the rows of a key, found ahead of the scan for them.
 */
#ifndef NXM_BTREE_PROBE_H
#define NXM_BTREE_PROBE_H

#include "postgres.h"

#include "access/nbtree.h"
#include "access/sdir.h"
#include "catalog/pg_type.h"

/* How the scan that is to come uses one column of the index. */
typedef struct NxmProbeKey
{
	Oid			type;			/* of the value; InvalidOid: the column's own */
	Oid			collation;		/* of the comparison */
	StrategyNumber strategy;	/* BTEqualStrategyNumber; of the last key, any
								 * strategy that bounds where the scan starts */
} NxmProbeKey;

/* Process-local; the caller's memory, some 2.5 kB. */
typedef struct NxmBtreeProbe
{
	Relation	index;			/* open and locked, the caller's */
	ScanDirection dir;
	int			nequal;			/* leading keys with equality */
	BlockNumber root;			/* P_NONE: not known */
	uint32		root_level;
	BTScanInsertData key;
} NxmBtreeProbe;

/*
 * Do comparisons of this type, an operator's or an operator class's, call those
 * of other types, which may be anybody's and may raise errors?
 */
static inline bool
nxm_type_holds_others(Oid type)
{
	return type == ANYARRAYOID || type == RECORDOID || type == ANYRANGEOID ||
		type == ANYMULTIRANGEOID;
}

/*
 * Prepares a probe for keys on the first nkeys columns of the index, of a scan
 * in direction dir.  False: this index can't be probed (no btree, not valid, of
 * a temporary table, or its operator family compares no such types, or not by
 * functions of PostgreSQL's own alone).  May ereport as catalog look-ups do.
 */
extern bool nxm_btree_probe_init(NxmBtreeProbe *probe, Relation index,
								 const NxmProbeKey *keys, int nkeys,
								 ScanDirection dir);

/*
 * Sets the value of key i, from 0, not null (nothing equals NULL: do not
 * probe).  By-reference values have to stay until the search is done.
 */
static inline void
nxm_btree_probe_set(NxmBtreeProbe *probe, int i, Datum value)
{
	probe->key.scankeys[i].sk_argument = value;
}

/*
 * Stage 1: the block of the leaf on which the scan starts, without reading the
 * leaf.  The levels above it are read where they are not in shared_buffers.
 * InvalidBlockNumber: the index is empty, or a page was not as expected.
 */
extern BlockNumber nxm_btree_probe_leaf(NxmBtreeProbe *probe);

/*
 * Stage 2: reads this leaf, by stage 1 and maybe split since, and puts the heap
 * blocks of the first matching items into blocks[], in the order in which the
 * scan reaches them, without immediate repetitions.  Returns how many, at most
 * max; what lies on the next leaf is not looked for.  Matching means equal in
 * the keys with equality.
 */
extern int	nxm_btree_probe_blocks(NxmBtreeProbe *probe, BlockNumber leaf,
								   BlockNumber *blocks, int max);

#endif							/* NXM_BTREE_PROBE_H */
