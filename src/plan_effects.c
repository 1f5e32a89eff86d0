/*
 * plan_effects.c
 *	  What is seen of evaluating an expression or running a plan ahead of time.
 *
 * - Effects: volatile functions, row locks, writes, foreign scans and custom
 *   scans of others.
 * - Errors that depend on the row: of what is not leakproof, which is
 *   PostgreSQL's own mark of a function that raises none.  What depends on the
 *   time, a role or a setting counts as the same: a cursor's next FETCH may find
 *   another one.  So do xmax, cmin and cmax, which no snapshot keeps as they were.
 *
 * Types of nodes, of plans and of expressions, are allowed one by one; one that
 * is not known has effects.  Functions are looked at wherever PostgreSQL will
 * call them: those that an expression names, and those behind it that
 * contain_volatile_functions() does not see, of aggregates, operator families,
 * indexes, domains.  docs/prefetch.md has the table.
 *
 * A node that takes in all its input before its first row (Sort, Hash, hashed
 * and plain aggregates, function scans) has done so when look-ahead begins,
 * which is after the first row: what is below it is not looked at.  Unless it may
 * start then, or anew: below the inner side of a nested loop, in an Append, below
 * the inner side of an outer join by merging.
 *
 * Comparisons of PostgreSQL's own raise no errors, but for those of types that
 * hold others (records, arrays, ranges).
 *
 * Limits: volatile functions behind those that are marked as not volatile are
 * not seen, as PostgreSQL itself does not see them: comparison functions of what
 * is in an array or a record, types' output functions in XML and JSON
 * constructors, functions of partition bounds.
 */
#include "plan_effects.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "btree_probe.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_amproc.h"
#include "catalog/pg_index.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static bool plan_starts_quiet(NxmEffects *effects, Plan *plan);
static bool subplan_is_quiet(NxmEffects *effects, int id);
static bool subplan_starts_quiet(NxmEffects *effects, int id);

/*
 * InvalidOid: there is none.  One that says something else when a role or a setting is
 * another one counts as one that may fail.
 */
static bool
function_has_effect(NxmEffects *effects, Oid function)
{
	char		volatility;

	if (!OidIsValid(function))
		return false;
	volatility = func_volatile(function);
	if (volatility != PROVOLATILE_IMMUTABLE || !get_func_leakproof(function))
		effects->leakproof = false;
	return volatility == PROVOLATILE_VOLATILE;
}

/* The same of one that an expression names. */
static bool
named_function_has_effect(Oid function, void *context)
{
	NxmEffects *effects = context;

	if (function >= FirstNormalObjectId)
		effects->added_functions = true;
	return function_has_effect(effects, function);
}

static bool
aggregate_has_effect(NxmEffects *effects, Oid aggregate)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate agg;
	bool		answer;

	if (!HeapTupleIsValid(tuple))
		return true;
	agg = (Form_pg_aggregate) GETSTRUCT(tuple);
	answer = function_has_effect(effects, agg->aggtransfn) ||
		function_has_effect(effects, agg->aggfinalfn) ||
		function_has_effect(effects, agg->aggcombinefn) ||
		function_has_effect(effects, agg->aggserialfn) ||
		function_has_effect(effects, agg->aggdeserialfn) ||
		function_has_effect(effects, agg->aggmtransfn) ||
		function_has_effect(effects, agg->aggminvtransfn) ||
		function_has_effect(effects, agg->aggmfinalfn);
	ReleaseSysCache(tuple);
	return answer;
}

/* Of an operator family's support functions, those that were added to PostgreSQL. */
static bool
family_has_effect(NxmEffects *effects, Oid family)
{
	CatCList   *procs = SearchSysCacheList1(AMPROCNUM, ObjectIdGetDatum(family));
	bool		answer = false;

	for (int i = 0; i < procs->n_members && !answer; i++)
	{
		Oid			function = ((Form_pg_amproc)
								GETSTRUCT(&procs->members[i]->tuple))->amproc;

		answer = function >= FirstNormalObjectId &&
			function_has_effect(effects, function);
	}
	ReleaseSysCacheList(procs);
	return answer;
}

/* Of an operator that compares, hashes or sorts, by itself or by its families. */
static bool
operator_has_effect(NxmEffects *effects, Oid op)
{
	CatCList   *families;
	bool		answer;

	if (op < FirstNormalObjectId)
	{
		Oid			left;
		Oid			right;

		op_input_types(op, &left, &right);
		if (nxm_type_holds_others(left))
			effects->leakproof = false;
		return false;
	}
	answer = function_has_effect(effects, get_opcode(op));
	families = SearchSysCacheList1(AMOPOPID, ObjectIdGetDatum(op));
	for (int i = 0; i < families->n_members && !answer; i++)
		answer = family_has_effect(effects, ((Form_pg_amop)
											 GETSTRUCT(&families->members[i]->tuple))->amopfamily);
	ReleaseSysCacheList(families);
	return answer;
}

static bool
operators_have_effect(NxmEffects *effects, int n, const Oid *ops)
{
	for (int i = 0; i < n; i++)
	{
		if (operator_has_effect(effects, ops[i]))
			return true;
	}
	return false;
}

static bool
index_has_effect(NxmEffects *effects, Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	int			ncolumns;

	if (!HeapTupleIsValid(tuple))
		return true;
	ncolumns = ((Form_pg_index) GETSTRUCT(tuple))->indnkeyatts;
	ReleaseSysCache(tuple);
	for (AttrNumber column = 1; column <= ncolumns; column++)
	{
		Oid			opclass = get_index_column_opclass(index, column);

		if (family_has_effect(effects, get_opclass_family(opclass)))
			return true;
	}
	return false;
}

static bool has_effect(Node *node, void *context);

/* Are there checks of the domain that have one? */
static bool
domain_has_effect(NxmEffects *effects, Oid domain)
{
	/* the context calls back with it when it is reset */
	DomainConstraintRef *ref = palloc(sizeof(DomainConstraintRef));
	ListCell   *cell;

	InitDomainConstraintRef(domain, ref, CurrentMemoryContext, false);
	foreach(cell, ref->constraints)
	{
		if (has_effect((Node *) ((DomainConstraintState *) lfirst(cell))->check_expr,
					   effects))
			return true;
	}
	return false;
}

/* What else than the functions that it names has a node of an expression? */
static bool
node_has_effect(NxmEffects *effects, Node *node)
{
	switch (nodeTag(node))
	{
		case T_Param:
			/* another may be of an InitPlan that has not run yet */
			if (((Param *) node)->paramkind != PARAM_EXTERN &&
				!bms_is_member(((Param *) node)->paramid, effects->params))
				effects->leakproof = false;
			return false;
		case T_Var:
			/* read from the page when it is evaluated, where an update writes them */
			if (((Var *) node)->varattno == MaxTransactionIdAttributeNumber ||
				((Var *) node)->varattno == MinCommandIdAttributeNumber ||
				((Var *) node)->varattno == MaxCommandIdAttributeNumber)
				effects->leakproof = false;
			return false;
		case T_Const:
		case T_List:
		case T_TargetEntry:
		case T_RangeTblFunction:
		case T_BoolExpr:
		case T_RelabelType:
		case T_CollateExpr:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_RowExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CoalesceExpr:
		case T_GroupingFunc:
		case T_CoerceToDomainValue:
			return false;
		case T_ArrayExpr:
			/* the dimensions of arrays within it have to match */
			if (((ArrayExpr *) node)->multidims)
				effects->leakproof = false;
			return false;
		case T_FieldSelect:
			/* only a named type has the same fields in each row */
			if (exprType((Node *) ((FieldSelect *) node)->arg) == RECORDOID)
				effects->leakproof = false;
			return false;
		case T_SQLValueFunction:
			/* CURRENT_USER and its like, which are evaluated for each row */
			effects->leakproof = false;
			return false;
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_CoerceViaIO:
			return false;
		case T_ScalarArrayOpExpr:
			return function_has_effect(effects,
									   ((ScalarArrayOpExpr *) node)->hashfuncid);
		case T_RowCompareExpr:
			{
				ListCell   *cell;

				foreach(cell, ((RowCompareExpr *) node)->opnos)
				{
					if (operator_has_effect(effects, lfirst_oid(cell)))
						return true;
				}
				return false;
			}
		case T_MinMaxExpr:
			return function_has_effect(effects,
									   lookup_type_cache(((MinMaxExpr *) node)->minmaxtype,
														 TYPECACHE_CMP_PROC)->cmp_proc);
		case T_SortGroupClause:
			{
				SortGroupClause *clause = (SortGroupClause *) node;

				return operator_has_effect(effects, clause->eqop) ||
					(OidIsValid(clause->sortop) &&
					 operator_has_effect(effects, clause->sortop));
			}
		case T_Aggref:
			return aggregate_has_effect(effects, ((Aggref *) node)->aggfnoid);
		case T_WindowFunc:
			return ((WindowFunc *) node)->winagg &&
				aggregate_has_effect(effects, ((WindowFunc *) node)->winfnoid);
		case T_CoerceToDomain:
			effects->leakproof = false;
			return domain_has_effect(effects, ((CoerceToDomain *) node)->resulttype);
		case T_SubscriptingRef:
			effects->leakproof = false;
			return function_has_effect(effects,
									   get_typsubscript(((SubscriptingRef *) node)->refcontainertype,
														NULL));
		case T_SubPlan:
			effects->leakproof = false;
			return !subplan_starts_quiet(effects, ((SubPlan *) node)->plan_id);
		case T_FieldStore:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_XmlExpr:
			effects->leakproof = false;
			return false;
		default:
			/* NextValueExpr among them */
			effects->leakproof = false;
			return !nxm_is_newer_expr(node);
	}
}

/* Walks an expression; true: it has an effect. */
static bool
has_effect(Node *node, void *context)
{
	NxmEffects *effects = context;

	if (node == NULL)
		return false;
	if (check_functions_in_node(node, named_function_has_effect, effects) ||
		node_has_effect(effects, node))
		return true;
	return expression_tree_walker(node, has_effect, context);
}

bool
nxm_expr_is_quiet(NxmEffects *effects, const void *expr)
{
	return !has_effect((Node *) expr, effects);
}

static bool
plans_are_quiet(NxmEffects *effects, List *plans)
{
	ListCell   *cell;

	foreach(cell, plans)
	{
		if (!plan_starts_quiet(effects, lfirst(cell)))
			return false;
	}
	return true;
}

static bool
index_scan_is_quiet(NxmEffects *effects, Oid index, List *quals, List *orderbys)
{
	return !index_has_effect(effects, index) &&
		nxm_expr_is_quiet(effects, quals) && nxm_expr_is_quiet(effects, orderbys);
}

/* Of a scan that is not a leaf of the plan, or evaluates more than any node. */
static bool
scan_is_quiet(NxmEffects *effects, Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_NamedTuplestoreScan:
		case T_WorkTableScan:
			return true;
		case T_IndexScan:
			return index_scan_is_quiet(effects, ((IndexScan *) plan)->indexid,
									   ((IndexScan *) plan)->indexqual,
									   ((IndexScan *) plan)->indexorderby);
		case T_IndexOnlyScan:
			return index_scan_is_quiet(effects, ((IndexOnlyScan *) plan)->indexid,
									   ((IndexOnlyScan *) plan)->indexqual,
									   ((IndexOnlyScan *) plan)->indexorderby);
		case T_BitmapHeapScan:
			/* below it, all is done with the first row */
			return nxm_expr_is_quiet(effects, ((BitmapHeapScan *) plan)->bitmapqualorig) &&
				(!effects->whole || nxm_plan_is_quiet(effects, outerPlan(plan)));
		case T_BitmapIndexScan:
			return index_scan_is_quiet(effects, ((BitmapIndexScan *) plan)->indexid,
									   ((BitmapIndexScan *) plan)->indexqual, NIL);
		case T_BitmapAnd:
			return plans_are_quiet(effects, ((BitmapAnd *) plan)->bitmapplans);
		case T_BitmapOr:
			return plans_are_quiet(effects, ((BitmapOr *) plan)->bitmapplans);
		case T_TidScan:
			return nxm_expr_is_quiet(effects, ((TidScan *) plan)->tidquals);
		case T_TidRangeScan:
			return nxm_expr_is_quiet(effects, ((TidRangeScan *) plan)->tidrangequals);
		case T_ValuesScan:
			return nxm_expr_is_quiet(effects, ((ValuesScan *) plan)->values_lists);
		case T_FunctionScan:
			/* with several functions (ROWS FROM) too, all at the first row */
			return !effects->whole ||
				nxm_expr_is_quiet(effects, ((FunctionScan *) plan)->functions);
		case T_SubqueryScan:
			return nxm_plan_is_quiet(effects, ((SubqueryScan *) plan)->subplan);
		case T_CteScan:
			{
				Plan	   *cte = list_nth(effects->stmt->subplans,
										   ((CteScan *) plan)->ctePlanId - 1);

				/* one row more than is wanted of it may take for ever */
				if (IsA(cte, RecursiveUnion))
					effects->leakproof = false;
				return subplan_is_quiet(effects, ((CteScan *) plan)->ctePlanId);
			}
		default:
			return false;
	}
}

/* Of a hash or merge join, the operators that it compares by. */
static bool
clauses_are_quiet(NxmEffects *effects, List *clauses)
{
	ListCell   *cell;

	foreach(cell, clauses)
	{
		if (operator_has_effect(effects, ((OpExpr *) lfirst(cell))->opno))
			return false;
	}
	return nxm_expr_is_quiet(effects, clauses);
}

/* Does it return outer rows that have no match? */
static bool
fills_outer(const Join *join)
{
	return join->jointype == JOIN_LEFT || join->jointype == JOIN_ANTI ||
		join->jointype == JOIN_FULL;
}

static bool
join_is_quiet(NxmEffects *effects, Plan *plan)
{
	ListCell   *cell;

	if (IsA(plan, NestLoop))
	{
		foreach(cell, ((NestLoop *) plan)->nestParams)
			effects->params = bms_add_member(effects->params,
											 ((NestLoopParam *) lfirst(cell))->paramno);
	}
	if (!nxm_expr_is_quiet(effects, ((Join *) plan)->joinqual) ||
		!nxm_plan_is_quiet(effects, outerPlan(plan)))
		return false;
	switch (nodeTag(plan))
	{
		case T_NestLoop:
			return plan_starts_quiet(effects, innerPlan(plan));
		case T_MergeJoin:
			if (!clauses_are_quiet(effects, ((MergeJoin *) plan)->mergeclauses))
				return false;
			/* rows whose key is null it returns before it asks for an inner one */
			return fills_outer((Join *) plan) ?
				plan_starts_quiet(effects, innerPlan(plan)) :
				nxm_plan_is_quiet(effects, innerPlan(plan));
		case T_HashJoin:
			/* the inner side is in the hash table by now */
			return clauses_are_quiet(effects, ((HashJoin *) plan)->hashclauses) &&
				(!effects->whole || nxm_plan_is_quiet(effects, innerPlan(plan)));
		default:
			return false;
	}
}

/* The operators by which a node sorts or groups, and the functions of windows. */
static bool
grouping_has_effect(NxmEffects *effects, Plan *plan)
{
#define OPERATORS(type, n, ops) \
	operators_have_effect(effects, ((type *) plan)->n, ((type *) plan)->ops)
	switch (nodeTag(plan))
	{
		case T_Sort:
			return OPERATORS(Sort, numCols, sortOperators);
		case T_IncrementalSort:
			return OPERATORS(IncrementalSort, sort.numCols, sort.sortOperators);
		case T_MergeAppend:
			return OPERATORS(MergeAppend, numCols, sortOperators);
		case T_GatherMerge:
			return OPERATORS(GatherMerge, numCols, sortOperators);
		case T_Group:
			return OPERATORS(Group, numCols, grpOperators);
		case T_Unique:
			return OPERATORS(Unique, numCols, uniqOperators);
		case T_SetOp:
			return OPERATORS(SetOp, numCols, NXM_SETOP_OPERATORS);
		case T_RecursiveUnion:
			return OPERATORS(RecursiveUnion, numCols, dupOperators);
		case T_Memoize:
			return OPERATORS(Memoize, numKeys, hashOperators);
		case T_Agg:
			{
				ListCell   *cell;

				/* further grouping sets */
				foreach(cell, ((Agg *) plan)->chain)
				{
					if (grouping_has_effect(effects, lfirst(cell)) ||
						(outerPlan(lfirst(cell)) != NULL &&
						 grouping_has_effect(effects, outerPlan(lfirst(cell)))))
						return true;
				}
				return OPERATORS(Agg, numCols, grpOperators);
			}
		case T_WindowAgg:
			return OPERATORS(WindowAgg, partNumCols, partOperators) ||
				OPERATORS(WindowAgg, ordNumCols, ordOperators) ||
				function_has_effect(effects, ((WindowAgg *) plan)->startInRangeFunc) ||
				function_has_effect(effects, ((WindowAgg *) plan)->endInRangeFunc);
		default:
			return false;
	}
#undef OPERATORS
}

/*
 * The same of a sub-plan, a CTE's or an expression's.  What is found is remembered: where
 * each of many CTEs refers to the one before twice, they would be walked as often as
 * there are ways, and partitions have copies of one expression.
 */
static bool
subplan_is_quiet(NxmEffects *effects, int id)
{
	NxmSubPlanEffects *subplans = effects->subplans;
	bool		leakproof = effects->leakproof;
	int			member = 2 * id + effects->whole;

	if (!bms_is_member(member, subplans->known))
	{
		effects->leakproof = true;
		if (nxm_plan_is_quiet(effects, list_nth(effects->stmt->subplans, id - 1)))
			subplans->quiet = bms_add_member(subplans->quiet, member);
		if (!effects->leakproof)
			subplans->failing = bms_add_member(subplans->failing, member);
		subplans->known = bms_add_member(subplans->known, member);
	}
	effects->leakproof = leakproof && !bms_is_member(member, subplans->failing);
	return bms_is_member(member, subplans->quiet);
}

/* LIMIT or OFFSET; a node for which one is negative raises an error when it starts. */
static bool
may_be_negative(const Node *count)
{
	const Const *value = (const Const *) count;

	if (count == NULL)
		return false;
	return !IsA(count, Const) ||
		(!value->constisnull && DatumGetInt64(value->constvalue) < 0);
}

bool
nxm_plan_is_quiet(NxmEffects *effects, Plan *plan)
{
	ListCell   *cell;

	if (plan == NULL)
		return true;
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (!nxm_expr_is_quiet(effects, plan->targetlist) ||
		!nxm_expr_is_quiet(effects, plan->qual))
		return false;
	foreach(cell, plan->initPlan)
	{
		if (!nxm_expr_is_quiet(effects, lfirst(cell)))
			return false;
	}
	/* on disk, a sort merges its runs and hashed groups are read back row by row */
	if (grouping_has_effect(effects, plan))
		return false;

	switch (nodeTag(plan))
	{
		case T_Sort:
			if (!effects->whole)
				return true;
			break;
		case T_Agg:
			if (!effects->whole &&
				(((Agg *) plan)->aggstrategy == AGG_PLAIN ||
				 ((Agg *) plan)->aggstrategy == AGG_HASHED))
				return true;
			break;
		case T_Result:
			if (!nxm_expr_is_quiet(effects, ((Result *) plan)->resconstantqual))
				return false;
			break;
		case T_WindowAgg:
			if (!nxm_expr_is_quiet(effects, ((WindowAgg *) plan)->startOffset) ||
				!nxm_expr_is_quiet(effects, ((WindowAgg *) plan)->endOffset) ||
				!nxm_expr_is_quiet(effects, ((WindowAgg *) plan)->runCondition))
				return false;
			break;
		case T_Limit:
			if (!nxm_expr_is_quiet(effects, ((Limit *) plan)->limitOffset) ||
				!nxm_expr_is_quiet(effects, ((Limit *) plan)->limitCount) ||
				operators_have_effect(effects, ((Limit *) plan)->uniqNumCols,
									  ((Limit *) plan)->uniqOperators))
				return false;
			if (effects->whole &&
				(may_be_negative(((Limit *) plan)->limitOffset) ||
				 may_be_negative(((Limit *) plan)->limitCount)))
				effects->leakproof = false;
			break;
		case T_ProjectSet:
		case T_Hash:
		case T_Material:
		case T_Memoize:
		case T_IncrementalSort:
		case T_Group:
		case T_Unique:
		case T_SetOp:
		case T_Gather:
		case T_GatherMerge:
			break;
		case T_RecursiveUnion:
			return nxm_plan_is_quiet(effects, outerPlan(plan)) &&
				plan_starts_quiet(effects, innerPlan(plan));
		case T_Append:
			return plans_are_quiet(effects, ((Append *) plan)->appendplans);
		case T_MergeAppend:
			/* all of them have started with its first row, but this is simpler */
			return plans_are_quiet(effects, ((MergeAppend *) plan)->mergeplans);
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
			return join_is_quiet(effects, plan);
		default:
			return scan_is_quiet(effects, plan);
	}
	return nxm_plan_is_quiet(effects, outerPlan(plan)) &&
		nxm_plan_is_quiet(effects, innerPlan(plan));
}

/* The same of one that may start, or start anew, after that first row. */
static bool
plan_starts_quiet(NxmEffects *effects, Plan *plan)
{
	bool		whole = effects->whole;
	bool		answer;

	effects->whole = true;
	answer = nxm_plan_is_quiet(effects, plan);
	effects->whole = whole;
	return answer;
}

static bool
subplan_starts_quiet(NxmEffects *effects, int id)
{
	bool		whole = effects->whole;
	bool		answer;

	effects->whole = true;
	answer = subplan_is_quiet(effects, id);
	effects->whole = whole;
	return answer;
}
