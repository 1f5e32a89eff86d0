/*
 * prefetch_nestloop.c
 *	  Look-ahead over the outer side of nested loops.
 *
 * A nested loop whose inner side is an index scan reads, for each outer row, a
 * leaf of the index and a block of the table, one after the other.  The node
 * here stands between the loop and its outer side (nestloop_plan.c puts it
 * there), reads outer rows ahead into a ring, looks their keys up in the index
 * (btree_probe.c), and asks the operating system for what the inner side will
 * read.  It returns the same rows in the same order, and keeps no pins.
 *
 * Two stages.  When a row enters the ring, the leaf that its key leads to is
 * asked for (the levels above are read, they are few and soon cached).  Half a
 * ring later, when that leaf has come, it is searched, and the heap blocks of
 * the matching items are asked for.
 *
 *	 returned  <-  [ heap in flight | leaf in flight ]  <-  outer side
 *				   0			distance		 2 * distance
 *
 * How far.  At most the distance in force of leaves and as many heap blocks are
 * in flight, or more by those of one row.  A loop that is surely asked for all its rows goes there in a few
 * rows.  One that may be stopped has a credit: the rows returned, less the blocks
 * wasted by earlier rescans; no more blocks than that are in flight.  Under a
 * LIMIT no more rows are read ahead than are still wanted.  An outer side that had to
 * look at MOST_OUTER_BUFFERS for one row is read ahead no more: the next may be one that
 * nobody would have looked for.
 *
 * When not.  Quiet, the node passes the outer side's own slots on, and looks at
 * nothing until the inner side has read a block (pgBufferUsage, less what the
 * outer side reads).  Then it takes one row more and looks where its blocks are.
 * If one has to be read from the disk it wakes, else it lets more reads pass,
 * fourfold up to QUIET_STEP.  Awake, 8 + distance rows in a row with all blocks
 * cached halve the distance; below 1 it is quiet again.  Loops begin quiet, with
 * what the last loop over the same table found.
 *
 * A block counts as used if it is in shared_buffers when the loop has done with its
 * row.  Of the heap blocks of a row no more are asked for than the rows before it used.
 *
 * Keys probed lately are remembered by their hashes and not probed again: below
 * Memoize they are answered from there.
 *
 * A rescan empties the ring: what is in it belongs to the old parameters.
 *
 * The inner scans are found after ExecutorStart, by plan_node_id, and their
 * relations used as they have them open; so is the LIMIT above, for what it computed.
 *
 * A parallel worker gets its part of the plan from the leader, with the nodes in it,
 * and asks nothing that the leader has asked: whether the query may have them, and
 * whether it is run for a part of its rows.  A LIMIT above Gather it does not see.
 *
 * Plans.  The copy of the plan lives in the query's own memory.  While the
 * executor starts, QueryDesc.plannedstmt is the copy, afterwards again the
 * original, so that nobody else comes to hold what ends with the query.  (Unless
 * another extension put a plan of its own there.)
 * EXPLAIN ANALYZE runs the node and shows it; EXPLAIN alone does not.
 *
 * Limits: a row of more than 1 GB, which a nested loop passes on where it was computed,
 * cannot be kept, and is an error.
 * What the outer side does for its next row is not bounded: a filter may look through the
 * rest of a table for a row that no LIMIT or FETCH comes to, where those before it have
 * many matches.  It is the last one that is read ahead (MOST_OUTER_BUFFERS), unless it
 * took no buffers, as from a function or a CTE.
 *
 * Not for: row locks, writing statements, SERIALIZABLE (reading ahead takes
 * predicate locks), scrollable cursors, temporary and catalog tables, tables
 * that are no heaps, direct I/O.
 */
#include "prefetch_nestloop.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "btree_probe.h"
#include "catalog/catalog.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "compat.h"
#include NXM_EXPLAIN_STATE_H
#include "executor/executor.h"
#include "executor/instrument.h"
#include "executor/nodeCustom.h"
#include "nestloop_plan.h"
#include "nodes/nodeFuncs.h"
#include "plan_walk.h"
#include "prefetch_explain.h"
#include "prefetch_index.h"
#include "prefetch_page.h"
#include "prefetch_parallel.h"
#include "prefetch_stats.h"
#include "tcop/dest.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define QUIET_STEP 128
/* so many reads a loop may miss for what the one before it found */
#define INHERITED_STEP 8
/* credit for a row, in a loop that is surely asked for all of them */
#define COMPLETE_CREDIT 8
/* heap blocks asked for of one outer row; its scan looks further itself */
#define MAX_ROW_BLOCKS 16
/* rows after which one block is asked for of a side that reads none of those asked for */
#define TRY_EVERY 16
/* rows in a row whose blocks were all used, after which more are asked for of one */
#define MORE_AFTER 8
/* and rows of which nothing was used, after which nothing is */
#define LESS_AFTER 8
/* in a loop that may be stopped */
#define MOST_OUTER_BUFFERS 64
/* blocks and keys remembered, by their low bits */
#define RECENT_BLOCKS 64
#define RECENT_KEYS 256
#define RECENT_KEYS_MEMOIZED 8192

/* One row in the ring, and one index scan. */
typedef struct Lookup
{
	BlockNumber leaf;			/* to be searched; InvalidBlockNumber: nothing */
	uint8		leaf_asked;		/* blocks asked for, by stage */
	uint8		heap_asked;
	BlockNumber leaf_block;		/* if that was asked for */
	BlockNumber heap_block[MAX_ROW_BLOCKS];	/* the first heap_asked */
} Lookup;

typedef struct Row
{
	TupleTableSlot *slot;		/* a MinimalTuple: no pins */
	bool		submitted;		/* something of it goes to the disk */
	bool		cached;			/* something of it did not have to */
	Lookup		lookup[NXM_MAX_LOOP_TARGETS];
} Row;

typedef struct Target
{
	NxmLoopTarget plan;
	bool		linked;			/* the following are set */
	Relation	index;			/* the inner scan's */
	Relation	heap;
	NxmBtreeProbe probe;
	int			nkeys;
	ExprState **key;
	int16	   *typlen;
	bool	   *typbyval;
	NxmPrefetchCounts *counts;
	int			most;			/* heap blocks worth asking for of one row */
	int			rows_without;	/* while that is 0 */
	int			rows_full;		/* in a row that used all that was asked for */
	int			rows_empty;		/* in a row that used nothing of it */
	BlockNumber index_blocks;	/* sizes, as last asked */
	BlockNumber heap_blocks;
	BlockNumber recent_leaf[RECENT_BLOCKS];
	BlockNumber recent_heap[RECENT_BLOCKS];
	uint32		nrecent_keys;	/* power of two */
	uint32	   *recent_key;
} Target;

typedef struct LoopState
{
	CustomScanState css;		/* must be first */
	struct LoopState *next;		/* of the same query */

	NxmLoop		plan;
	const LimitState *limit;	/* that counts our rows, if any does */
	int			max_distance;	/* 0: pass rows on */
	Oid			heap;			/* of the first inner scan */
	bool		in_part;		/* rows of this ExecutorRun() may be all there are */
	bool		outer_done;
	bool		outer_is_dear;	/* and may be asked for too much */
	uint64		returned;		/* rows, since the last rescan */

	/* when to look */
	bool		quiet;
	int64		reads;			/* pgBufferUsage's when we returned last */
	int64		missed;			/* reads of the inner side since the last look */
	int			step;			/* of these to let pass */
	int			distance;		/* in force */
	int			cached_run;		/* rows in a row with all cached */
	int64		credit;

	/* ring, made when first needed; oldest at head */
	Row		   *ring;
	int			size;
	int			head;
	int			count;
	int			staged;			/* rows from head on that are past stage 2 */
	bool		head_returned;	/* the one at head is with the loop now */
	int			leaves_in_flight;
	int			heap_in_flight;
	Size		bytes;			/* of the rows in it */

	int64		stat[NXM_NUM_PREFETCH_STATS];	/* for EXPLAIN */
	Target		target[NXM_MAX_LOOP_TARGETS];
} LoopState;

/* A query that is being executed and has nodes, in its own memory. */
typedef struct LoopQuery
{
	struct LoopQuery *next;
	EState	   *estate;
	LoopState  *loops;
} LoopQuery;

typedef enum Found
{
	FOUND_NOTHING,				/* looked at lately, or not to be read */
	FOUND_CACHED,
	FOUND_ON_DISK				/* and asked for */
} Found;

bool		nxm_enable_nestloop_prefetch = false;

static LoopQuery *queries = NULL;	/* the one that was started last first */

/* What the last loop over this table found, if it was "cached". */
static struct
{
	Oid			heap;
	int			step;
}			verdict;

static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec(CustomScanState *node);
static void end(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

static const CustomScanMethods scan_methods = {
	.CustomName = "nexusmem Look-Ahead",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "nexusmem Look-Ahead",
	.BeginCustomScan = begin,
	.ExecCustomScan = exec,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

static inline Row *
row_at(LoopState *state, int i)
{
	int			at = state->head + i;

	return &state->ring[at < state->size ? at : at - state->size];
}

static inline bool
may_stop_early(LoopState *state)
{
	return state->plan.early == NXM_LOOP_EARLY ||
		(state->plan.early == NXM_LOOP_AS_RUN && state->in_part);
}

static inline int64
buffers_used(void)
{
	return pgBufferUsage.shared_blks_hit + pgBufferUsage.shared_blks_read +
		pgBufferUsage.local_blks_hit + pgBufferUsage.local_blks_read;
}

static void
count_stat(LoopState *state, Target *target, NxmPrefetchStat stat, int n)
{
	state->stat[stat] += n;
	target->counts->stat[stat] += n;
}

/* Asks for a block that will be read, unless it is cached. */
static Found
ask(LoopState *state, Target *target, Relation rel, BlockNumber block,
	BlockNumber *nblocks)
{
	if (nxm_is_buffered(rel, block))
	{
		count_stat(state, target, NXM_STAT_skipped, 1);
		return FOUND_CACHED;
	}
	/* past the end, asking would raise an error */
	if (block >= *nblocks)
	{
		*nblocks = RelationGetNumberOfBlocks(rel);
		if (block >= *nblocks)
			return FOUND_NOTHING;
	}
	if (nxm_prefetch_ask(rel, block) != NXM_ASKED_DISK)
	{
		count_stat(state, target, NXM_STAT_skipped, 1);
		return FOUND_CACHED;
	}
	count_stat(state, target, NXM_STAT_issued, 1);
	return FOUND_ON_DISK;
}

/*
 * Computes the row's keys into the probe.  False: there is nothing to be
 * probed, for a key is null or not to be known yet.  *hash: of the keys.
 */
static bool
set_keys(LoopState *state, Target *target, Row *row, uint32 *hash)
{
	ExprContext *context = state->css.ss.ps.ps_ExprContext;
	ListCell   *cell;

	/* an InitPlan that has not run is the scan's to run */
	foreach(cell, target->plan.params)
	{
		if (context->ecxt_param_exec_vals[lfirst_int(cell)].execPlan != NULL)
			return false;
	}
	ResetExprContext(context);
	context->ecxt_outertuple = row->slot;
	*hash = 0;
	for (int i = 0; i < target->nkeys; i++)
	{
		bool		isnull;
		Datum		value = ExecEvalExprSwitchContext(target->key[i], context,
													  &isnull);

		if (isnull)
			return false;
		/* once, and not at each comparison with a page locked */
		if (target->typlen[i] == -1)
		{
			MemoryContext old;

			/* too long for most indexes, and its table may be damaged */
			if (VARATT_IS_EXTERNAL(DatumGetPointer(value)))
				return false;
			old = MemoryContextSwitchTo(context->ecxt_per_tuple_memory);
			value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
			MemoryContextSwitchTo(old);
		}
		nxm_btree_probe_set(&target->probe, i, value);
		*hash = hash_combine(*hash, datum_image_hash(value, target->typbyval[i],
													 target->typlen[i]));
	}
	return true;
}

static void
note(Row *row, Found found)
{
	row->submitted |= found == FOUND_ON_DISK;
	row->cached |= found == FOUND_CACHED;
}

/* Stage 1: asks for the leaf. */
static void
look_at_leaf(LoopState *state, Target *target, Row *row, Lookup *lookup)
{
	uint32		hash;
	uint32	   *recent_key;
	BlockNumber *recent;

	if (!set_keys(state, target, row, &hash))
		return;
	recent_key = &target->recent_key[hash & (target->nrecent_keys - 1)];
	if (*recent_key == hash)
		return;
	*recent_key = hash;

	lookup->leaf = nxm_btree_probe_leaf(&target->probe);
	if (lookup->leaf == InvalidBlockNumber)
		return;
	recent = &target->recent_leaf[lookup->leaf % RECENT_BLOCKS];
	if (*recent != lookup->leaf)
	{
		Found		found = ask(state, target, target->index, lookup->leaf,
								&target->index_blocks);

		*recent = lookup->leaf;
		note(row, found);
		if (found == FOUND_ON_DISK)
		{
			lookup->leaf_asked = 1;
			lookup->leaf_block = lookup->leaf;
			state->leaves_in_flight++;
		}
	}
}

/* Stage 2: searches the leaf, and asks for up to max heap blocks. */
static void
look_at_heap(LoopState *state, Target *target, Row *row, Lookup *lookup, int max)
{
	BlockNumber block[MAX_ROW_BLOCKS];
	Buffer		vmbuf = InvalidBuffer;
	uint32		hash;
	int			n;

	if (lookup->leaf == InvalidBlockNumber)
		return;
	if (max > 0 && target->most == 0 && ++target->rows_without >= TRY_EVERY)
	{
		target->rows_without = 0;
		max = 1;
	}
	else
		max = Min(max, target->most);
	if (max == 0 || !set_keys(state, target, row, &hash))
		return;
	n = nxm_btree_probe_blocks(&target->probe, lookup->leaf, block,
							   Min(max, MAX_ROW_BLOCKS));
	for (int i = 0; i < n; i++)
	{
		BlockNumber *recent = &target->recent_heap[block[i] % RECENT_BLOCKS];
		Found		found;

		if (*recent == block[i] ||
			(target->plan.index_only &&
			 nxm_is_passed_over(target->heap, block[i], &vmbuf)))
			continue;
		*recent = block[i];
		found = ask(state, target, target->heap, block[i],
					&target->heap_blocks);
		note(row, found);
		if (found == FOUND_ON_DISK)
		{
			lookup->heap_block[lookup->heap_asked++] = block[i];
			state->heap_in_flight++;
		}
	}
	if (BufferIsValid(vmbuf))
		ReleaseBuffer(vmbuf);
	lookup->leaf = InvalidBlockNumber;
}

static void
fall_quiet(LoopState *state, int step)
{
	state->quiet = true;
	state->step = step;
	state->missed = 0;
	state->cached_run = 0;
	state->distance = state->max_distance;
	verdict.heap = state->heap;
	verdict.step = step;
}

/* What a row that is past both stages tells. */
static void
learn(LoopState *state, Row *row)
{
	if (row->submitted)
		state->cached_run = 0;
	else if (row->cached && !nxm_debug_force_prefetch &&
			 ++state->cached_run >= 8 + state->distance)
	{
		state->cached_run = 0;
		state->distance /= 2;
		if (state->distance == 0)
			fall_quiet(state, QUIET_STEP);
	}
}

/* Blocks that may be asked for now, with so many in flight. */
static int
room(LoopState *state, int in_flight)
{
	int64		room = Min(state->credit, state->distance) - in_flight;

	if (may_stop_early(state))
		room = Min(room, state->credit - state->leaves_in_flight -
				   state->heap_in_flight);
	return (int) Max(room, 0);
}

/* The ring, in memory that the query frees. */
static void
make_ring(LoopState *state)
{
	EState	   *estate = state->css.ss.ps.state;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	TupleDesc	desc = state->css.ss.ps.ps_ResultTupleDesc;
	int			size = 2 * state->max_distance + 2;
	Row		   *ring = palloc0(sizeof(Row) * size);

	for (int i = 0; i < size; i++)
		ring[i].slot = ExecInitExtraTupleSlot(estate, desc,
											  &TTSOpsMinimalTuple);
	state->ring = ring;
	state->size = size;
	MemoryContextSwitchTo(old);
}

/* Takes a row of the outer side into the ring.  NULL: there is none. */
static Row *
take_row(LoopState *state)
{
	TupleTableSlot *slot;
	Row		   *row;
	int64		buffers = buffers_used();

	if (state->outer_done)
		return NULL;
	slot = ExecProcNode(outerPlanState(state));
	if (state->count > 0 && may_stop_early(state) &&
		buffers_used() - buffers > MOST_OUTER_BUFFERS)
		state->outer_is_dear = true;
	if (TupIsNull(slot))
	{
		state->outer_done = true;
		return NULL;
	}
	if (state->ring == NULL)
		make_ring(state);
	row = row_at(state, state->count);
	ExecCopySlot(row->slot, slot);
	state->bytes += ((MinimalTupleTableSlot *) row->slot)->mintuple->t_len;
	state->count++;
	row->submitted = false;
	row->cached = false;
	for (int i = 0; i < state->plan.ntargets; i++)
	{
		row->lookup[i].leaf = InvalidBlockNumber;
		row->lookup[i].leaf_asked = 0;
		row->lookup[i].heap_asked = 0;
	}
	return row;
}

/* Of what was asked for, what the inner side has read: it is in shared_buffers. */
static int
leaves_used(const Target *target, const Lookup *lookup)
{
	return lookup->leaf_asked > 0 &&
		nxm_is_buffered(target->index, lookup->leaf_block);
}

static int
heap_used(const Target *target, const Lookup *lookup)
{
	int			used = 0;

	for (int i = 0; i < lookup->heap_asked; i++)
		used += nxm_is_buffered(target->heap, lookup->heap_block[i]);
	return used;
}

/*
 * An inner side that stops early (EXISTS, LIMIT), or has conditions that the probe does
 * not know, reads less of a row's blocks: no more are asked for than it reads.
 */
static void
learn_most(Target *target, int asked, int used)
{
	target->rows_empty = used > 0 ? 0 : target->rows_empty + 1;
	if (used < asked)
	{
		target->most = (Min(target->most, asked) + used) / 2;
		/* where only some rows have none */
		if (target->most == 0 && target->rows_empty < LESS_AFTER)
			target->most = 1;
		target->rows_full = 0;
	}
	else if (target->most == 0)
		target->most = 1;
	else if (asked >= target->most && ++target->rows_full >= MORE_AFTER)
	{
		target->most = Min(target->most * 2, MAX_ROW_BLOCKS);
		target->rows_full = 0;
	}
}

/* The loop has done with the row at head: what it read of its blocks is used. */
static void
drop_head(LoopState *state)
{
	Row		   *row = row_at(state, 0);

	for (int i = 0; i < state->plan.ntargets; i++)
	{
		Target	   *target = &state->target[i];
		Lookup	   *lookup = &row->lookup[i];
		int			asked = lookup->leaf_asked + lookup->heap_asked;
		int			used;

		if (asked > 0)
		{
			used = heap_used(target, lookup);
			if (lookup->heap_asked > 0)
				learn_most(target, lookup->heap_asked, used);
			used += leaves_used(target, lookup);
			count_stat(state, target, NXM_STAT_used, used);
			state->credit = Max(0, state->credit - (asked - used));
		}
		state->leaves_in_flight -= lookup->leaf_asked;
		state->heap_in_flight -= lookup->heap_asked;
	}
	state->bytes -= ((MinimalTupleTableSlot *) row->slot)->mintuple->t_len;
	ExecClearTuple(row->slot);
	state->head = state->head + 1 < state->size ? state->head + 1 : 0;
	state->count--;
	if (state->staged > 0)
		state->staged--;
	state->head_returned = false;
}

static void
stage_1(LoopState *state, Row *row)
{
	for (int i = 0; i < state->plan.ntargets; i++)
	{
		if (state->target[i].linked)
			look_at_leaf(state, &state->target[i], row, &row->lookup[i]);
	}
}

static void
stage_2(LoopState *state, Row *row)
{
	int			most = Min(MAX_ROW_BLOCKS, state->distance);

	/* the last row may go over, for it is not looked at again */
	for (int i = 0; i < state->plan.ntargets; i++)
	{
		if (state->target[i].linked)
			look_at_heap(state, &state->target[i], row, &row->lookup[i],
						 may_stop_early(state) ?
						 room(state, state->heap_in_flight) : most);
	}
}

/* Rows after which no more are wanted; 0: not known. */
static int64
bound_of(const LoopState *state)
{
	const LimitState *limit = state->limit;
	int64		bound;

	/* before it has computed them it asks for nothing */
	if (limit == NULL || limit->noCount ||
		pg_add_s64_overflow(limit->offset, limit->count, &bound))
		return 0;
	return Max(bound, 1);
}

/* Rows to have in the ring behind the one at head. */
static int
wanted_rows(LoopState *state)
{
	int64		wanted = 2 * Min(state->credit, state->distance);

	if (may_stop_early(state))
	{
		int64		bound = bound_of(state);

		wanted = Min(wanted, state->credit);
		if (bound > (int64) state->returned)
			wanted = Min(wanted, bound - (int64) state->returned - 1);
	}
	return (int) Min(wanted, state->size - 1);
}

/* Takes one row more, and looks whether its blocks are cached. */
static void
sample(LoopState *state)
{
	Row		   *row;

	state->missed = 0;
	if (may_stop_early(state) && bound_of(state) == (int64) state->returned + 1)
		return;					/* no other is wanted */
	if (state->credit == 0 || state->outer_is_dear ||
		(row = take_row(state)) == NULL)
		return;
	stage_1(state, row);
	if (!row->submitted)
	{
		stage_2(state, row);
		state->staged = state->count;
	}
	if (row->submitted)
	{
		state->quiet = false;
		verdict.heap = InvalidOid;
	}
	else if (row->cached)
		fall_quiet(state, Min(state->step * 4, QUIET_STEP));
}

static void
look_ahead(LoopState *state)
{
	int			wanted;

	/* the row at head is returned now: too late for it */
	if (state->staged == 0)
		state->staged = 1;
	while (!state->quiet && state->staged < state->count &&
		   state->staged <= state->distance &&
		   room(state, state->heap_in_flight) > 0)
	{
		Row		   *row = row_at(state, state->staged++);

		stage_2(state, row);
		learn(state, row);
	}
	wanted = wanted_rows(state);
	while (!state->quiet && state->count - 1 < wanted &&
		   !(state->outer_is_dear && may_stop_early(state)) &&
		   room(state, state->leaves_in_flight) > 0 &&
		   state->bytes < (Size) work_mem * 1024)
	{
		Row		   *row = take_row(state);

		if (row == NULL)
			break;
		stage_1(state, row);
	}
}

/* Returns the outer side's next row as it is.  The ring is empty. */
static inline TupleTableSlot *
pass_on(LoopState *state)
{
	TupleTableSlot *slot;

	if (unlikely(state->outer_done))
		return NULL;
	slot = ExecProcNode(outerPlanState(state));
	state->returned++;
	state->credit++;
	state->reads = pgBufferUsage.shared_blks_read;
	return slot;
}

/* All but the way of a cached loop. */
static pg_noinline TupleTableSlot *
next_row(LoopState *state)
{
	TupleTableSlot *slot = NULL;

	if (state->head_returned)
		drop_head(state);
	if (!state->quiet && !nxm_enable_nestloop_prefetch)
		fall_quiet(state, QUIET_STEP);
	if (state->count == 0 &&
		(state->max_distance == 0 || !nxm_enable_nestloop_prefetch ||
		 (!state->plan.leakproof && may_stop_early(state)) ||
		 (state->quiet && state->missed < state->step)))
		return pass_on(state);

	if (state->count > 0 || take_row(state) != NULL)
	{
		slot = row_at(state, 0)->slot;
		state->head_returned = true;
		if (!state->quiet)
			look_ahead(state);
		else if (state->count == 1 && state->missed >= state->step)
			sample(state);
		state->returned++;
		state->credit += may_stop_early(state) ? 1 : COMPLETE_CREDIT;
	}
	state->reads = pgBufferUsage.shared_blks_read;
	return slot;
}

static inline TupleTableSlot *
exec_loop(LoopState *state)
{
	if (likely(state->quiet))
	{
		state->missed += pgBufferUsage.shared_blks_read - state->reads;
		if (likely(state->count == 0 && state->missed < state->step))
			return pass_on(state);
	}
	return next_row(state);
}

static TupleTableSlot *
exec(CustomScanState *node)
{
	return exec_loop((LoopState *) node);
}

/* In place of ExecCustomScan() and exec(): one call less for each row. */
static TupleTableSlot *
exec_node(PlanState *node)
{
	if (node->chgParam != NULL)
		ExecReScan(node);
	return exec_loop((LoopState *) node);
}

static Node *
create_state(CustomScan *scan)
{
	LoopState  *state = palloc0(sizeof(LoopState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	nxm_nestloop_read(scan, &state->plan);
	return (Node *) state;
}

static void
begin_target(LoopState *state, Target *target, const NxmLoopTarget *plan)
{
	ListCell   *cell;
	int			i = 0;

	target->plan = *plan;
	target->nkeys = list_length(plan->exprs);
	target->key = palloc(sizeof(ExprState *) * target->nkeys);
	target->typlen = palloc(sizeof(int16) * target->nkeys);
	target->typbyval = palloc(sizeof(bool) * target->nkeys);
	foreach(cell, plan->exprs)
	{
		Expr	   *value = lfirst(cell);

		target->key[i] = ExecInitExpr(value, &state->css.ss.ps);
		get_typlenbyval(exprType((Node *) value), &target->typlen[i],
						&target->typbyval[i]);
		i++;
	}
	target->most = MAX_ROW_BLOCKS;
	memset(target->recent_leaf, 0xFF, sizeof(target->recent_leaf));
	memset(target->recent_heap, 0xFF, sizeof(target->recent_heap));
}

static void
forget_query(void *arg)
{
	for (LoopQuery **link = &queries; *link != NULL; link = &(*link)->next)
	{
		if (*link == arg)
		{
			*link = (*link)->next;
			return;
		}
	}
}

/* NULL: it has no nodes. */
static LoopQuery *
query_of(const EState *estate)
{
	LoopQuery  *query = queries;

	while (query != NULL && query->estate != estate)
		query = query->next;
	return query;
}

/* The first one; NULL: there is none. */
static LoopState *
loops_of(const EState *estate)
{
	LoopQuery  *query = query_of(estate);

	return query == NULL ? NULL : query->loops;
}

static LoopQuery *
new_query(EState *estate)
{
	LoopQuery  *query = MemoryContextAllocZero(estate->es_query_cxt,
											   sizeof(LoopQuery));
	MemoryContextCallback *callback = MemoryContextAlloc(estate->es_query_cxt,
														 sizeof(*callback));

	query->estate = estate;
	callback->func = forget_query;
	callback->arg = query;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, callback);
	query->next = queries;
	queries = query;
	return query;
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	LoopState  *state = (LoopState *) node;
	PlanState  *ps = &node->ss.ps;
	LoopQuery  *query;

	outerPlanState(node) = ExecInitNode(outerPlan(ps->plan), estate, eflags);

	/* we return slots of two kinds, and evaluate over one of them */
	ps->resultops = &TTSOpsMinimalTuple;
	ps->resultopsfixed = false;
	ps->resultopsset = true;
	ps->outerops = &TTSOpsMinimalTuple;
	ps->outeropsfixed = true;
	ps->outeropsset = true;

	state->quiet = !nxm_debug_force_prefetch;
	state->step = 1;
	state->in_part = state->plan.in_part;	/* until ExecutorRun() says more */
	for (int i = 0; i < state->plan.ntargets; i++)
		begin_target(state, &state->target[i], &state->plan.target[i]);

	/* made by now, if there is a loop on the outer side */
	query = query_of(estate);
	if (query == NULL)
		query = new_query(estate);
	state->next = query->loops;
	query->loops = state;
}

static void
end(CustomScanState *node)
{
	LoopState  *state = (LoopState *) node;

	if (state->head_returned)
		drop_head(state);		/* the loop got as far as this one */
	ExecEndNode(outerPlanState(node));
}

static void
rescan(CustomScanState *node)
{
	LoopState  *state = (LoopState *) node;
	PlanState  *outer = outerPlanState(node);

	if (state->head_returned)
		drop_head(state);
	/* rows that were not wanted, or that there were none of */
	state->credit = Max(0, state->credit - state->leaves_in_flight -
						state->heap_in_flight - state->count);
	if (state->count > 0 && state->outer_done && may_stop_early(state))
		state->credit = 0;
	while (state->count > 0)
	{
		ExecClearTuple(row_at(state, state->count - 1)->slot);
		state->count--;
	}
	state->head = 0;
	state->staged = 0;
	state->bytes = 0;
	state->leaves_in_flight = 0;
	state->heap_in_flight = 0;
	state->outer_done = false;
	state->returned = 0;
	state->reads = pgBufferUsage.shared_blks_read;

	/* else its next ExecProcNode() does */
	if (outer->chgParam == NULL)
		ExecReScan(outer);
}

/* What was counted in this process, while the query is not ended. */
static void
own_counts(LoopState *state, int64 stat[NXM_NUM_PREFETCH_STATS])
{
	memcpy(stat, state->stat, sizeof(state->stat));
	/* the loop got as far as the row at head: see end() */
	if (state->head_returned)
	{
		for (int i = 0; i < state->plan.ntargets; i++)
		{
			const Lookup *lookup = &row_at(state, 0)->lookup[i];

			stat[NXM_STAT_used] += leaves_used(&state->target[i], lookup) +
				heap_used(&state->target[i], lookup);
		}
	}
	stat[NXM_STAT_wasted] = stat[NXM_STAT_issued] - stat[NXM_STAT_used];
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	LoopState  *state = (LoopState *) node;
	int64		stat[NXM_NUM_PREFETCH_STATS];
	int			distance = state->max_distance;

	(void) ancestors;
	/* auto_explain prints the node also where no numbers were asked for */
	if (!es->analyze)
		return;
	own_counts(state, stat);
	nxm_prefetch_parallel_add(&node->ss.ps, stat, &distance);
	nxm_prefetch_explain(stat, distance, es);
}

void
nxm_prefetch_nestloop_ran(QueryDesc *query)
{
	int64		stat[NXM_NUM_PREFETCH_STATS];

	if (!nxm_prefetch_parallel_is_part(query))
		return;
	for (LoopState *state = loops_of(query->estate); state != NULL;
		 state = state->next)
	{
		own_counts(state, stat);
		nxm_prefetch_parallel_report(&state->css.ss.ps, stat, state->max_distance);
	}
}

/* A node, by its plan's number. */
typedef struct FindNode
{
	int			plan_node_id;
	PlanState  *found;
} FindNode;

static bool
find_node(PlanState *node, void *context)
{
	FindNode   *find = context;

	if (node->plan->plan_node_id == find->plan_node_id)
	{
		find->found = node;
		return true;
	}
	return nxm_walk_below(node, find_node, context);
}

/* Prepares looking ahead for one inner scan, now that it is open. */
static void
link_target(LoopState *state, Target *target, const JoinState *join)
{
	PlanState  *inner = innerPlanState(join);
	FindNode	find = {target->plan.plan_node_id, NULL};
	NxmProbeKey keys[INDEX_MAX_KEYS];

	(void) find_node(inner, &find);
	if (find.found == NULL)
		return;
	/* it stops at the first match */
	if (find.found == inner &&
		(join->single_match || join->jointype == JOIN_ANTI))
		target->most = 1;
	target->index = IsA(find.found, IndexScanState) ?
		((IndexScanState *) find.found)->iss_RelationDesc :
		((IndexOnlyScanState *) find.found)->ioss_RelationDesc;
	target->heap = ((ScanState *) find.found)->ss_currentRelation;
	if (target->index == NULL || target->heap == NULL ||
		target->heap->rd_tableam != GetHeapamTableAmRoutine() ||
		IsCatalogRelationOid(RelationGetRelid(target->heap)))
		return;

	for (int i = 0; i < target->nkeys; i++)
	{
		keys[i].strategy = list_nth_int(target->plan.strategies, i);
		keys[i].type = list_nth_oid(target->plan.types, i);
		keys[i].collation = list_nth_oid(target->plan.collations, i);
	}
	if (!nxm_btree_probe_init(&target->probe, target->index, keys,
							  target->nkeys, target->plan.dir))
		return;
	target->counts = nxm_prefetch_counts(RelationGetRelid(target->heap),
										 NXM_PREFETCH_NESTLOOP);
	target->nrecent_keys = target->plan.memoized ? RECENT_KEYS_MEMOIZED :
		RECENT_KEYS;
	target->recent_key = palloc0(sizeof(uint32) * target->nrecent_keys);
	target->linked = true;
	if (!OidIsValid(state->heap))
	{
		state->heap = RelationGetRelid(target->heap);
		state->max_distance =
			nxm_prefetch_distance_for(target->heap->rd_rel->reltablespace);
		if (verdict.heap == state->heap)
			state->step = Min(verdict.step, INHERITED_STEP);
	}
}

bool
nxm_is_nestloop_node(const PlanState *state)
{
	return IsA(state, CustomScanState) &&
		((const CustomScanState *) state)->methods == &exec_methods;
}

/* *context: the nearest LIMIT above the node, or NULL. */
static bool
link_loops(PlanState *node, void *context)
{
	const LimitState **limit = context;
	const LimitState *above = *limit;
	PlanState  *outer = IsA(node, NestLoopState) ? outerPlanState(node) : NULL;

	if (outer != NULL && nxm_is_nestloop_node(outer))
	{
		LoopState  *state = (LoopState *) outer;

		for (int i = 0; i < state->plan.ntargets; i++)
			link_target(state, &state->target[i], (JoinState *) node);
		if (above != NULL && above->ps.plan->plan_node_id == state->plan.limit)
			state->limit = above;
		state->distance = state->max_distance;
		state->reads = pgBufferUsage.shared_blks_read;
		ExecSetExecProcNode(outer, exec_node);
	}
	if (IsA(node, LimitState))
		*limit = (const LimitState *) node;
	(void) nxm_walk_below(node, link_loops, context);
	*limit = above;
	return false;
}

MemoryContext
nxm_prefetch_nestloop_plan(QueryDesc *query, int eflags)
{
#ifdef USE_PREFETCH
	PlannedStmt *stmt = query->plannedstmt;
	PlannedStmt *copy;
	MemoryContext context;

	if (likely(!nxm_enable_nestloop_prefetch) ||
		query->operation != CMD_SELECT || stmt->hasModifyingCTE ||
		stmt->rowMarks != NIL || IsParallelWorker() ||
		(eflags & (EXEC_FLAG_EXPLAIN_ONLY | EXEC_FLAG_BACKWARD)) != 0 ||
		IsolationIsSerializable() || nxm_prefetch_distance == 0 ||
		nxm_direct_io())
		return NULL;
	copy = nxm_nestloop_plan(stmt, &scan_methods, &context);
	if (copy == NULL)
		return NULL;
	query->plannedstmt = copy;
	return context;
#else
	(void) query;
	(void) eflags;
	return NULL;
#endif
}

void
nxm_prefetch_nestloop_started(QueryDesc *query, PlannedStmt *own,
							  PlannedStmt *ours, MemoryContext context)
{
	const LimitState *limit = NULL;
	MemoryContext old;

	if (context != NULL)
	{
		if (query->plannedstmt == ours)
			query->plannedstmt = own;
		MemoryContextSetParent(context, query->estate->es_query_cxt);
	}
	/* a worker has the leader's nodes, and no queries of its own with any */
	else if (likely(queries == NULL || !IsParallelWorker()))
		return;
	old = MemoryContextSwitchTo(query->estate->es_query_cxt);
	(void) nxm_walk_query(query, link_loops, &limit);
	MemoryContextSwitchTo(old);
}

void
nxm_prefetch_nestloop_run(QueryDesc *query, uint64 count)
{
	/*
	 * Rows in front of an error stay where they are: RETURN QUERY in a block with
	 * an exception handler goes on with them, COPY has written them.
	 */
	bool		in_part = count != 0 || query->dest == NULL ||
		query->dest->mydest == DestTuplestore ||
		query->dest->mydest == DestCopyOut;

	if (IsParallelWorker())
		return;
	for (LoopState *state = loops_of(query->estate); state != NULL;
		 state = state->next)
	{
		state->in_part = in_part;
		nxm_nestloop_note_part((CustomScan *) state->css.ss.ps.plan, in_part);
	}
}

void
nxm_prefetch_nestloop_init(void)
{
	DefineCustomBoolVariable("nexusmem.enable_nestloop_prefetch",
							 "Reads ahead in nested loops over an index.",
							 NULL,
							 &nxm_enable_nestloop_prefetch,
							 false,
							 PGC_USERSET,
							 GUC_EXPLAIN, NULL, NULL, NULL);
	RegisterCustomScanMethods(&scan_methods);
}
