/*
 * sql_cache_fetch.c
 *	  cache_fetch(): the value of a key, computed by a query where it is missing.
 *
 * The query runs by SPI as the calling role, with its search_path, in a snapshot
 * of its own; single_flight.h decides who of many sessions runs it, and whether
 * others may be given what it returned.  Its plan is not kept: a hit needs none.
 *
 * The one value goes from the executor to a receiver of ours, which raises an
 * error at a second row without waiting for the rest, and leaves the planner free
 * to use parallel workers: but where functions of somebody's own would run in them,
 * whose statements nobody would look at there.  What can be known of the statement without running it
 * is checked before.
 *
 * Whoever deletes the key after a commit is heard only from the beginning of the flight
 * on.  So all that the value is made of is taken anew then: also what the server's caches
 * of the catalog know, such as a function's body, which else was as old as the statement
 * or the last lock of a relation, and the snapshot in which the planner evaluates functions
 * said to be immutable.
 *
 * The value is added, not set: where somebody has stored another one meanwhile,
 * that one is newer and stays.  A value that cannot be stored is returned all the
 * same.
 */
#include "sql_structures.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "single_flight.h"
#include "sql_cache.h"
#include "subtransaction.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(nxm_sql_cache_fetch);

typedef struct ValueReceiver
{
	DestReceiver pub;
	MemoryContext context;		/* of the value */
	text	   *value;			/* NULL: no row, or a NULL */
	uint64		rows;
	Oid			output;			/* the type's output function */
} ValueReceiver;

static void
check_columns(TupleDesc desc)
{
	if (desc->natts != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query of cache_fetch() must return one column, not %d",
						desc->natts)));
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	ValueReceiver *r = (ValueReceiver *) self;
	bool		is_varlena;

	(void) operation;
	/* it was checked, but a plan is made anew when a table changes */
	check_columns(desc);
	getTypeOutputInfo(TupleDescAttr(desc, 0)->atttypid, &r->output,
					  &is_varlena);
}

static bool
receiver_receive(TupleTableSlot *slot, DestReceiver *self)
{
	ValueReceiver *r = (ValueReceiver *) self;
	MemoryContext old_context;
	Datum		value;
	bool		isnull;

	if (++r->rows > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("query of cache_fetch() returned more than one row")));
	value = slot_getattr(slot, 1, &isnull);
	if (isnull)
		return true;
	old_context = MemoryContextSwitchTo(r->context);
	r->value = cstring_to_text(OidOutputFunctionCall(r->output, value));
	MemoryContextSwitchTo(old_context);
	return true;
}

static void
receiver_nothing(DestReceiver *self)
{
	(void) self;
}

/*
 * Would workers run functions of somebody's own?  What statements these read cannot be
 * seen here.
 */
static bool
has_unseen_functions(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	ListCell   *lc;
	ListCell   *item;
	bool		found = false;

	if (cached == NULL)
		return false;
	foreach(lc, cached->stmt_list)
	{
		PlannedStmt *stmt = lfirst_node(PlannedStmt, lc);

		if (stmt->parallelModeNeeded)
		{
			foreach(item, stmt->invalItems)
				found |= lfirst_node(PlanInvalItem, item)->cacheId == PROCOID;
		}
	}
	ReleaseCachedPlan(cached, NULL);
	return found;
}

static SPIPlanPtr
prepare(const char *query, int cursor_options)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(query, 0, NULL, cursor_options);

	if (plan == NULL)
		elog(ERROR, "could not prepare the query of cache_fetch(): %s",
			 SPI_result_code_string(SPI_result));
	return plan;
}

/* Runs the query, in its flight: its value, or NULL. */
static text *
run(NxmFlight *flight, const char *query)
{
	ValueReceiver receiver = {0};
	SPIExecuteOptions options = {0};
	SPIPlanPtr	plan;
	List	   *sources;
	TupleDesc	desc;
	int			rc;

	receiver.pub.receiveSlot = receiver_receive;
	receiver.pub.rStartup = receiver_startup;
	receiver.pub.rShutdown = receiver_nothing;
	receiver.pub.rDestroy = receiver_nothing;
	receiver.pub.mydest = DestNone;
	receiver.context = CurrentMemoryContext;

	SPI_connect();
	plan = prepare(query, CURSOR_OPT_PARALLEL_OK);
	sources = SPI_plan_get_plan_sources(plan);
	desc = list_length(sources) != 1 ? NULL :
		((CachedPlanSource *) linitial(sources))->resultDesc;
	if (desc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query of cache_fetch() must be one statement that returns a value")));
	check_columns(desc);
	/* of a cursor: it was opened before, in a snapshot that may be an older one */
	if (((CachedPlanSource *) linitial(sources))->commandTag == CMDTAG_FETCH)
		flight->private = true;
	if (has_unseen_functions(plan))
		plan = prepare(query, 0);

	options.dest = &receiver.pub;
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc < 0)
		elog(ERROR, "could not run the query of cache_fetch(): %s",
			 SPI_result_code_string(rc));
	SPI_finish();
	return receiver.value;
}

typedef struct Store
{
	FunctionCallInfo fcinfo;
	NxmBytes	name;
	const NxmKey *key;
	NxmValue	value;
	const Interval *ttl;
	NxmStored	stored;
} Store;

static void
do_store(void *arg)
{
	Store	   *s = arg;

	s->stored = nxm_cache_store(s->fcinfo, s->name, s->key, &s->value, s->ttl, true, false);
}

/*
 * Stores the value unless there is one.  A role's limit and the like raise errors,
 * which must not cost the caller a value that is there already.
 */
static NxmStored
store(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key,
	  text *text_value, const Interval *ttl)
{
	Store		s = {fcinfo, name, key,
		{VARDATA(text_value), (uint32) (VARSIZE(text_value) - VARHDRSZ), NXM_TEXT},
	ttl, NXM_NOT_STORED};
	ErrorData  *error;

	if (s.value.len > NXM_MAX_VALUE)
		return NXM_NOT_STORED;
	error = nxm_catch(do_store, &s);
	if (error == NULL)
		return s.stored;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES &&
		error->sqlerrcode != ERRCODE_SYSTEM_ERROR)
		nxm_rethrow(error);
	FreeErrorData(error);
	return NXM_NOT_STORED;
}

/*
 * Computes the value, and stores it.  Both in the flight: whoever sets the key before it
 * is stored has to see that it is being computed.  *stored is left alone where there is
 * nothing that could be.
 */
static text *
compute(FunctionCallInfo fcinfo, NxmFlight *flight, NxmBytes name, const NxmKey *key,
		const Interval *ttl, NxmStored *stored, bool *outdated)
{
	text	   *volatile value = NULL;
	const char *query = text_to_cstring(PG_GETARG_TEXT_PP(1));

	nxm_flight_enter(flight);
	PG_TRY();
	{
		AcceptInvalidationMessages();
		PushActiveSnapshot(GetTransactionSnapshot());
		value = run(flight, query);
		PopActiveSnapshot();
		/* what is stored and outdated must go */
		HOLD_INTERRUPTS();
		if (value != NULL && (ttl == NULL || nxm_ttl_of(ttl) >= 0) &&
			nxm_flight_shareable(flight))
		{
			/* storing would make a cache again that was dropped */
			*outdated = !nxm_flight_may_store(flight);
			if (!*outdated)
			{
				*stored = store(fcinfo, name, key, value, ttl);
				/* also where it was not: an error may have come after it was stored */
				if (*stored != NXM_THERE && nxm_flight_must_remove(flight))
				{
					*outdated = *stored == NXM_STORED;
					(void) nxm_cache_remove(fcinfo, name, key, false);
				}
			}
		}
		RESUME_INTERRUPTS();
	}
	PG_FINALLY();
	{
		nxm_flight_leave(flight);
	}
	PG_END_TRY();
	return value;
}

Datum
nxm_sql_cache_fetch(PG_FUNCTION_ARGS)
{
	NxmBytes	name = nxm_bytes_arg(fcinfo, 3, "name of a cache", NULL);
	NxmKey		key = nxm_key_arg(fcinfo, 0);
	const Interval *ttl = PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2);
	NxmFlight	flight;
	NxmSite    *site;
	uint64		cache_id;
	text	   *value;
	NxmStored	stored = NXM_NOT_STORED;
	bool		outdated = false;

	if (PG_ARGISNULL(1))
		nxm_null_argument("query", NULL);

	/* who must not write shall hear of it now, and not when the key is missing */
	site = nxm_cache_open(fcinfo, name, NXM_WRITE, false);
	cache_id = site == NULL ? 0 : site->id;
	value = nxm_cache_read(fcinfo, name, &key);
	if (value != NULL)
		PG_RETURN_TEXT_P(value);

	nxm_flight_begin(&flight, name.data, name.len, cache_id, &key);
	while (value == NULL && nxm_flight_look_again(&flight))
	{
		if (nxm_cache_look(fcinfo, name, &key, NXM_READ, NULL))
			value = nxm_cache_read(fcinfo, name, &key);
	}
	if (value != NULL)
	{
		nxm_flight_end(&flight, false);
		PG_RETURN_TEXT_P(value);
	}

	value = compute(fcinfo, &flight, name, &key, ttl, &stored, &outdated);
	/* one of those that wait computes what was outdated, and only once in a row */
	nxm_flight_end(&flight, outdated ? flight.waited_in_vain : stored == NXM_NOT_STORED);
	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(value);
}
