/*
 * nestloop_plan.c
 *	  Which nested loops of a plan can be looked ahead in, and how.
 *
 * A nested loop is eligible if an index scan below its inner side has keys that
 * come from the outer row, on leading columns of a btree, and if reading the
 * outer side ahead cannot be seen.  In a copy of the plan, a CustomScan is put
 * over its outer side; prefetch_nestloop.c is what it does.  The copy is of the
 * nodes above the change alone, and else shares the plan, which the executor
 * only reads: a whole copy would cost short queries more than they take.
 *
 * Why the finished plan and not the planner's paths: only there it is known what
 * is above the loop (LIMIT, row locks), and which path has won.
 *
 * What is seen of reading ahead, so that the outer side must not have it
 * (plan_effects.c finds it):
 *
 * - effects, such as those of volatile functions.
 * - errors of rows that nobody asks for.  Where the loop may be stopped early,
 *   everything evaluated for an outer row has to be leakproof.  Where the whole
 *   result is wanted they would come anyway, only earlier: before rows in front
 *   of it are worked on.  So there no function of the statement may be volatile,
 *   which would be called less often.  (Of two errors of one statement, the one
 *   that is told may be the other.)
 *
 * Stopping early.  The walk from the top carries what is known: below a node
 * that takes in everything the loop is complete; below LIMIT, a merge join, the
 * inner side of semi-, anti- and unique joins, and in sub-plans it may be
 * stopped.  Else it depends on how the query is run, which is known only then:
 * for a count of rows, as a cursor or a function may do, or to a place where
 * rows in front of an error remain.
 *
 * Below Gather the nodes go to the workers with the plan, which is written down and
 * read there; each worker reads its own part of the outer side ahead.  What is known
 * to the leader alone is written into them when the query is run.
 *
 * Limits: nothing below an inner Append (it would probe partitions that are pruned),
 * no array keys.
 */
#include "nestloop_plan.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_proc.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "plan_effects.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/*
 * Plan node ids tell apart the nodes of a statement, in instrumentation and
 * shared memory of parallel queries.  The planner counts up from 0.
 */
#define FIRST_PLAN_NODE_ID (PG_INT32_MAX / 2)

#define NO_LIMIT	(-1)

/*
 * Of what is written into a node: a parallel worker may have loaded another version of
 * the library than its leader, where it is not preloaded.
 */
#define NODE_LAYOUT	1

typedef struct Walk
{
	PlannedStmt *stmt;
	const CustomScanMethods *methods;
	int			next_id;
	MemoryContext context;		/* made when first needed */
	bool		quiet_known;
	bool		quiet;			/* no function of the statement is volatile */
	NxmSubPlanEffects subplans;	/* for all loops, in that context */
} Walk;

/* Turning an inner key into one over the outer row. */
typedef struct KeyContext
{
	NestLoop   *join;
	bool		of_outer;		/* it uses the outer row */
	bool		usable;
	List	   *params;			/* of int */
	bool		may_fail;		/* a value that raises an error may be used: the
								 * scan computes it for each outer row */
	bool		leakproof;
} KeyContext;

static Node *
over_outer(Node *node, void *context)
{
	KeyContext *key = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		int			id = ((Param *) node)->paramid;
		ListCell   *cell;

		foreach(cell, key->join->nestParams)
		{
			NestLoopParam *param = lfirst(cell);

			if (param->paramno == id)
			{
				key->of_outer = true;
				return copyObject((Node *) param->paramval);
			}
		}
		/* set below the join, by the row of another one: not known yet */
		if (!bms_is_member(id, key->join->join.plan.extParam))
			key->usable = false;
		key->params = list_append_unique_int(key->params, id);
		return node;
	}
	if (IsA(node, Var) || IsA(node, SubPlan))
		key->usable = false;
	return expression_tree_mutator(node, over_outer, context);
}

/*
 * The value, over the outer row, that this qual gives to the index's column.
 * NULL: it is no such qual, or the value may not be computed ahead.
 */
static Expr *
key_of(KeyContext *key, OpExpr *qual, AttrNumber column)
{
	KeyContext	found = *key;
	NxmEffects	effects = {.leakproof = true};
	Node	   *left;
	Expr	   *value;

	if (!IsA(qual, OpExpr) || list_length(qual->args) != 2)
		return NULL;
	left = linitial(qual->args);
	if (IsA(left, RelabelType))
		left = (Node *) ((RelabelType *) left)->arg;
	if (!IsA(left, Var) || ((Var *) left)->varno != INDEX_VAR ||
		((Var *) left)->varattno != column)
		return NULL;

	found.usable = true;
	value = (Expr *) over_outer(lsecond(qual->args), &found);
	/* a key is computed twice more: added functions may take long, count, or notify */
	if (!found.usable || !nxm_expr_is_quiet(&effects, value) ||
		effects.added_functions || (!effects.leakproof && !found.may_fail))
		return NULL;
	found.leakproof = found.leakproof && effects.leakproof;
	*key = found;
	return value;
}

/* How many columns a btree has to search by; 0: it is none. */
static int
search_columns(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(index));
	int			n = 0;

	if (!HeapTupleIsValid(tuple))
		return 0;
	if (((Form_pg_class) GETSTRUCT(tuple))->relam == BTREE_AM_OID)
	{
		HeapTuple	columns = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));

		if (HeapTupleIsValid(columns))
		{
			n = ((Form_pg_index) GETSTRUCT(columns))->indnkeyatts;
			ReleaseSysCache(columns);
		}
	}
	ReleaseSysCache(tuple);
	return n;
}

static void
collect_index(NxmLoop *loop, NestLoop *join, Plan *scan, Oid index,
			  List *quals, ScanDirection dir, bool memoized, bool direct)
{
	NxmLoopTarget target = {0};
	KeyContext	key = {join, false, true, NIL, false, true};
	int			ncolumns;

	if (loop->ntargets == NXM_MAX_LOOP_TARGETS ||
		index < FirstNormalObjectId)
		return;
	ncolumns = search_columns(index);

	key.may_fail = direct && loop->early != NXM_LOOP_EARLY;
	for (AttrNumber column = 1; column <= ncolumns; column++)
	{
		Oid			opclass = get_index_column_opclass(index, column);
		OpExpr	   *qual = NULL;
		Expr	   *value = NULL;
		ListCell   *cell;
		int			strategy;
		Oid			left;
		Oid			right;

		foreach(cell, quals)
		{
			qual = lfirst(cell);
			if (IsA(qual, OpExpr) &&
				get_op_opfamily_strategy(qual->opno, get_opclass_family(opclass)) ==
				BTEqualStrategyNumber &&
				(value = key_of(&key, qual, column)) != NULL)
				break;
		}
		if (value == NULL)
			break;
		get_op_opfamily_properties(qual->opno, get_opclass_family(opclass),
								   false, &strategy, &left, &right);
		target.strategies = lappend_int(target.strategies, strategy);
		target.types = lappend_oid(target.types, right);
		target.collations = lappend_oid(target.collations, qual->inputcollid);
		target.exprs = lappend(target.exprs, value);
	}
	if (!key.of_outer)
		return;
	target.plan_node_id = scan->plan_node_id;
	target.index_only = IsA(scan, IndexOnlyScan);
	target.memoized = memoized;
	target.dir = dir;
	target.params = key.params;
	loop->leakproof = loop->leakproof && key.leakproof;
	loop->target[loop->ntargets++] = target;
}

/*
 * Finds the index scans below the inner side whose keys come from the outer
 * row.  direct: the plan is run for each outer row, but for known ones.
 */
static void
collect(NxmLoop *loop, NestLoop *join, Plan *plan, bool memoized, bool direct)
{
	if (plan == NULL)
		return;
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			{
				IndexScan  *scan = (IndexScan *) plan;

				collect_index(loop, join, plan, scan->indexid, scan->indexqual,
							  scan->indexorderdir, memoized, direct);
				break;
			}
		case T_IndexOnlyScan:
			{
				IndexOnlyScan *scan = (IndexOnlyScan *) plan;

				collect_index(loop, join, plan, scan->indexid, scan->indexqual,
							  scan->indexorderdir, memoized, direct);
				break;
			}
		case T_Memoize:
			collect(loop, join, outerPlan(plan), true, direct);
			break;
		case T_SubqueryScan:
			collect(loop, join, ((SubqueryScan *) plan)->subplan, memoized, false);
			break;
		case T_NestLoop:
		case T_HashJoin:
		case T_MergeJoin:
		case T_Hash:
		case T_Limit:
		case T_Sort:
		case T_IncrementalSort:
		case T_Agg:
		case T_Group:
		case T_Unique:
		case T_WindowAgg:
		case T_Result:
		case T_ProjectSet:
		case T_Material:
			collect(loop, join, outerPlan(plan), memoized, false);
			collect(loop, join, innerPlan(plan), memoized, false);
			break;
		default:
			break;
	}
}

static List *
targets_as_nodes(const NxmLoop *loop)
{
	List	   *nodes = NIL;

	for (int i = 0; i < loop->ntargets; i++)
	{
		const NxmLoopTarget *target = &loop->target[i];
		List	   *numbers = list_make4_int(target->plan_node_id,
											 target->index_only,
											 target->memoized, target->dir);
		List	   *node = list_make4(numbers, target->strategies,
									  target->types, target->collations);

		node = lappend(node, target->exprs);
		node = lappend(node, target->params);
		nodes = lappend(nodes, node);
	}
	return nodes;
}

/* In the order in which nxm_nestloop_read() takes them. */
static List *
loop_as_nodes(const NxmLoop *loop)
{
	return list_make2(list_make5_int(NODE_LAYOUT, loop->early, loop->limit,
									 loop->leakproof, loop->in_part),
					  targets_as_nodes(loop));
}

void
nxm_nestloop_read(const CustomScan *scan, NxmLoop *loop)
{
	List	   *numbers = linitial(scan->custom_private);
	ListCell   *cell;

	*loop = (NxmLoop) {.early = NXM_LOOP_EARLY,.limit = NO_LIMIT,.in_part = true};
	if (linitial_int(numbers) != NODE_LAYOUT)
		return;
	loop->early = lsecond_int(numbers);
	loop->limit = lthird_int(numbers);
	loop->leakproof = lfourth_int(numbers) != 0;
	loop->in_part = llast_int(numbers) != 0;
	foreach(cell, lsecond(scan->custom_private))
	{
		NxmLoopTarget *target = &loop->target[loop->ntargets++];
		List	   *node = lfirst(cell);

		numbers = linitial(node);
		target->plan_node_id = linitial_int(numbers);
		target->index_only = lsecond_int(numbers) != 0;
		target->memoized = lthird_int(numbers) != 0;
		target->dir = lfourth_int(numbers);
		target->strategies = lsecond(node);
		target->types = lthird(node);
		target->collations = lfourth(node);
		target->exprs = list_nth(node, 4);
		target->params = list_nth(node, 5);
	}
}

void
nxm_nestloop_note_part(CustomScan *scan, bool in_part)
{
	llast_int((List *) linitial(scan->custom_private)) = in_part;
}

/* A node that returns what the outer plan does. */
static Plan *
put_over(Walk *walk, Plan *outer, const NxmLoop *loop)
{
	CustomScan *scan = makeNode(CustomScan);
	Plan	   *plan = &scan->scan.plan;
	ListCell   *cell;

	plan->startup_cost = outer->startup_cost;
	plan->total_cost = outer->total_cost;
	plan->plan_rows = outer->plan_rows;
	plan->plan_width = outer->plan_width;
	plan->parallel_safe = outer->parallel_safe;
	plan->plan_node_id = walk->next_id++;
	plan->extParam = bms_copy(outer->extParam);
	plan->allParam = bms_copy(outer->allParam);
	plan->lefttree = outer;

	/*
	 * What EXPLAIN marks as disabled it finds by what a node has more than those
	 * below it, and of a custom scan these are custom_plans alone.  So there is a plan
	 * of that number, which is never run: were it the outer plan, whoever writes the
	 * plan down, as for parallel workers, would write it twice, at each level.
	 */
	nxm_copy_disabled_nodes(plan, outer);
	if (nxm_disabled_nodes(outer) > 0)
	{
		Plan	   *same = (Plan *) makeNode(Result);

		nxm_copy_disabled_nodes(same, outer);
		scan->custom_plans = list_make1(same);
	}
	foreach(cell, outer->targetlist)
	{
		TargetEntry *entry = lfirst(cell);
		Var		   *from = makeVarFromTargetEntry(OUTER_VAR, entry);
		Var		   *to = makeVarFromTargetEntry(INDEX_VAR, entry);

		scan->custom_scan_tlist =
			lappend(scan->custom_scan_tlist,
					makeTargetEntry((Expr *) from, entry->resno, entry->resname,
									entry->resjunk));
		plan->targetlist =
			lappend(plan->targetlist,
					makeTargetEntry((Expr *) to, entry->resno, entry->resname,
									entry->resjunk));
	}
	scan->custom_private = loop_as_nodes(loop);
	scan->methods = walk->methods;
	return plan;
}

/* Is it surely one row at most?  Only the commonest such plan is known. */
static bool
is_one_row(Plan *plan)
{
	HeapTuple	tuple;
	Form_pg_index index;
	List	   *quals;
	Oid			index_id;
	bool		answer;

	if (IsA(plan, IndexScan))
	{
		quals = ((IndexScan *) plan)->indexqual;
		index_id = ((IndexScan *) plan)->indexid;
	}
	else if (IsA(plan, IndexOnlyScan))
	{
		quals = ((IndexOnlyScan *) plan)->indexqual;
		index_id = ((IndexOnlyScan *) plan)->indexid;
	}
	else
		return false;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index_id));
	if (!HeapTupleIsValid(tuple))
		return false;
	index = (Form_pg_index) GETSTRUCT(tuple);
	answer = index->indisunique && index->indimmediate;
	for (AttrNumber column = 1; answer && column <= index->indnkeyatts; column++)
	{
		Oid			family = get_opclass_family(get_index_column_opclass(index_id, column));
		ListCell   *cell;

		answer = false;
		foreach(cell, quals)
		{
			OpExpr	   *qual = lfirst(cell);

			if (IsA(qual, OpExpr) && IsA(linitial(qual->args), Var) &&
				((Var *) linitial(qual->args))->varattno == column &&
				get_op_opfamily_strategy(qual->opno, family) == BTEqualStrategyNumber)
				answer = true;
		}
	}
	ReleaseSysCache(tuple);
	return answer;
}

/*
 * Could an error of the outer side that comes before the rows in front of it
 * were returned be told from one that comes behind them?
 */
static bool
statement_is_quiet(Walk *walk)
{
	NxmEffects	effects = {.stmt = walk->stmt,.subplans = &walk->subplans,
	.leakproof = true,.whole = true};

	if (!walk->quiet_known)
	{
		walk->quiet = nxm_plan_is_quiet(&effects, walk->stmt->planTree);
		walk->quiet_known = true;
	}
	return walk->quiet;
}

/* Puts a node over outer, the join's outer side, if that is of use and safe. */
static Plan *
consider(Walk *walk, NestLoop *join, Plan *outer, NxmLoopEarly early,
		 int limit)
{
	NxmLoop		loop = {early, limit, true, true, 0, {{0}}};
	NxmEffects	effects = {.stmt = walk->stmt,.subplans = &walk->subplans,
	.leakproof = true};
	MemoryContext old;

	if (join->nestParams == NIL || is_one_row(outerPlan(join)) ||
		list_length(outer->targetlist) > MaxTupleAttributeNumber)
		return outer;
	if (walk->context == NULL)
		walk->context = AllocSetContextCreate(CurrentMemoryContext,
											  "nexusmem plan",
											  ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(walk->context);
	collect(&loop, join, innerPlan(join), false, true);
	if (loop.ntargets > 0 && nxm_plan_is_quiet(&effects, outerPlan(join)))
	{
		loop.leakproof = loop.leakproof && effects.leakproof;
		if (loop.leakproof ||
			(early != NXM_LOOP_EARLY && statement_is_quiet(walk)))
			outer = put_over(walk, outer, &loop);
	}
	MemoryContextSwitchTo(old);
	return outer;
}

/* Of the nodes below which loops are looked for; 0 for all others. */
static Size
node_size(Plan *plan)
{
#define SIZE_OF(type) case T_##type: return sizeof(type)
	switch (nodeTag(plan))
	{
			SIZE_OF(NestLoop);
			SIZE_OF(MergeJoin);
			SIZE_OF(HashJoin);
			SIZE_OF(Hash);
			SIZE_OF(Limit);
			SIZE_OF(Sort);
			SIZE_OF(IncrementalSort);
			SIZE_OF(Agg);
			SIZE_OF(Group);
			SIZE_OF(Unique);
			SIZE_OF(WindowAgg);
			SIZE_OF(SetOp);
			SIZE_OF(Material);
			SIZE_OF(Memoize);
			SIZE_OF(Result);
			SIZE_OF(ProjectSet);
			SIZE_OF(SubqueryScan);
			SIZE_OF(Append);
			SIZE_OF(MergeAppend);
			SIZE_OF(RecursiveUnion);
			SIZE_OF(Gather);
			SIZE_OF(GatherMerge);
		default:
			return 0;
	}
#undef SIZE_OF
}

void
nxm_loop_early_below(const Plan *plan, NxmLoopEarly *outer, NxmLoopEarly *inner)
{
	switch (nodeTag(plan))
	{
		case T_Limit:
			*outer = NXM_LOOP_EARLY;
			break;
		case T_Agg:
			if (((const Agg *) plan)->aggstrategy == AGG_PLAIN ||
				((const Agg *) plan)->aggstrategy == AGG_HASHED)
				*outer = NXM_LOOP_COMPLETE;
			break;
		case T_Sort:
		case T_Hash:
			*outer = NXM_LOOP_COMPLETE;
			break;
		case T_MergeJoin:
			*outer = *inner = NXM_LOOP_EARLY;
			break;
		case T_WindowAgg:
			/* no more rows once the run condition fails */
			if (((const WindowAgg *) plan)->runCondition != NIL)
				*outer = NXM_LOOP_EARLY;
			break;
		case T_SetOp:
			/* 18: sorted, it may leave its inner side where the outer one ends */
			*inner = NXM_LOOP_EARLY;
			break;
		case T_HashJoin:
			/* an empty hash table ends it, after an outer row */
			*inner = NXM_LOOP_COMPLETE;
			if (((const Join *) plan)->jointype != JOIN_LEFT &&
				((const Join *) plan)->jointype != JOIN_FULL &&
				((const Join *) plan)->jointype != JOIN_ANTI)
				*outer = NXM_LOOP_EARLY;
			break;
		case T_NestLoop:
			if (((const Join *) plan)->inner_unique ||
				((const Join *) plan)->jointype == JOIN_SEMI ||
				((const Join *) plan)->jointype == JOIN_ANTI)
				*inner = NXM_LOOP_EARLY;
			break;
		default:
			break;
	}
}

/* The node alone: what it points to stays the plan's. */
static Plan *
copy_node(Walk *walk, Plan *plan)
{
	Size		size = node_size(plan);
	Plan	   *copy = MemoryContextAlloc(walk->context, size);

	memcpy(copy, plan, size);
	return copy;
}

static Plan *visit(Walk *walk, Plan *plan, NxmLoopEarly early, int limit);

/* The list, or a copy with the plans that visit() changed. */
static List *
visit_list(Walk *walk, List *plans, NxmLoopEarly early, int limit)
{
	List	   *changed = plans;

	for (int i = 0; i < list_length(plans); i++)
	{
		Plan	   *plan = visit(walk, list_nth(plans, i), early, limit);

		if (plan == list_nth(plans, i))
			continue;
		if (changed == plans)
		{
			MemoryContext old = MemoryContextSwitchTo(walk->context);

			changed = list_copy(plans);
			MemoryContextSwitchTo(old);
		}
		lfirst(list_nth_cell(changed, i)) = plan;
	}
	return changed;
}

/*
 * Puts nodes into the plan.  What is changed, and all above it, are copies; the
 * plan itself stays as it is.
 */
static Plan *
visit(Walk *walk, Plan *plan, NxmLoopEarly early, int limit)
{
	NxmLoopEarly inner_early = early;
	Plan	   *outer;
	Plan	   *inner;
	List	   *plans;

	if (plan == NULL || node_size(plan) == 0)
		return plan;
	check_stack_depth();

	switch (nodeTag(plan))
	{
		case T_Append:
			plans = visit_list(walk, ((Append *) plan)->appendplans, early, limit);
			if (plans == ((Append *) plan)->appendplans)
				return plan;
			plan = copy_node(walk, plan);
			((Append *) plan)->appendplans = plans;
			return plan;
		case T_MergeAppend:
			plans = visit_list(walk, ((MergeAppend *) plan)->mergeplans, early, limit);
			if (plans == ((MergeAppend *) plan)->mergeplans)
				return plan;
			plan = copy_node(walk, plan);
			((MergeAppend *) plan)->mergeplans = plans;
			return plan;
		case T_SubqueryScan:
			outer = visit(walk, ((SubqueryScan *) plan)->subplan, early, limit);
			if (outer == ((SubqueryScan *) plan)->subplan)
				return plan;
			plan = copy_node(walk, plan);
			((SubqueryScan *) plan)->subplan = outer;
			return plan;
		case T_Limit:
			/* WITH TIES it goes on */
			limit = ((Limit *) plan)->limitOption == LIMIT_OPTION_COUNT ?
				plan->plan_node_id : NO_LIMIT;
			break;
		case T_NestLoop:
		case T_HashJoin:
		case T_Result:
			break;
		default:
			/* it may take in more rows than it gives */
			limit = NO_LIMIT;
			break;
	}
	nxm_loop_early_below(plan, &early, &inner_early);
	outer = visit(walk, outerPlan(plan), early, limit);
	inner = visit(walk, innerPlan(plan), inner_early, NO_LIMIT);
	if (IsA(plan, NestLoop))
		outer = consider(walk, (NestLoop *) plan, outer, early, limit);
	if (outer != outerPlan(plan) || inner != innerPlan(plan))
	{
		plan = copy_node(walk, plan);
		outerPlan(plan) = outer;
		innerPlan(plan) = inner;
	}
	return plan;
}

PlannedStmt *
nxm_nestloop_plan(PlannedStmt *stmt, const CustomScanMethods *methods,
				  MemoryContext *context)
{
	Walk		walk = {.stmt = stmt,.methods = methods,.next_id = FIRST_PLAN_NODE_ID};
	Plan	   *plan = visit(&walk, stmt->planTree, NXM_LOOP_AS_RUN, NO_LIMIT);
	List	   *subplans = visit_list(&walk, stmt->subplans, NXM_LOOP_EARLY, NO_LIMIT);
	PlannedStmt *copy;

	if (plan == stmt->planTree && subplans == stmt->subplans)
	{
		if (walk.context != NULL)
			MemoryContextDelete(walk.context);
		return NULL;
	}
	copy = MemoryContextAlloc(walk.context, sizeof(PlannedStmt));
	memcpy(copy, stmt, sizeof(PlannedStmt));
	copy->planTree = plan;
	copy->subplans = subplans;
	*context = walk.context;
	return copy;
}
