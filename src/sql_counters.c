/*
 * sql_counters.c
 *	  SQL functions of counters.
 *
 * counter_drain() takes what counters have, and gives it back should its
 * transaction, or the subtransaction that called it, abort.  What was taken is
 * remembered in the transaction's memory with its nesting level.  A backend that
 * ends in the middle of a transaction gives it back before it leaves the shared
 * memory, which is before PostgreSQL aborts that transaction.
 *
 * Limits: what was taken is not given back after a crash, which empties all
 * structures anyway; nor to a counter that was dropped meanwhile.  A transaction
 * that took anything cannot be prepared.  A cursor that was declared before a
 * savepoint, and first fetched from after it, still has the rows when what they
 * tell was given back at ROLLBACK TO.  A striped counter whose sum leaves the
 * bigints between being read and being taken is taken, and 2^64 or a multiple are
 * lost to what is given back.
 */
#include "sql_structures.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "compat.h"
#include "funcapi.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_sql_counter_add);
PG_FUNCTION_INFO_V1(nxm_sql_counter_get);
PG_FUNCTION_INFO_V1(nxm_sql_counter_set);
PG_FUNCTION_INFO_V1(nxm_sql_counter_create);
PG_FUNCTION_INFO_V1(nxm_sql_counter_drop);
PG_FUNCTION_INFO_V1(nxm_sql_counter_drain);

/* of a millisecond each, to add something back: see core/counter.h */
#define MOST_EPOCH_WAITS 1000

#define NAME_ARG() nxm_bytes_arg(fcinfo, 0, "name of a counter", NULL)

/* What a transaction took of a counter. */
typedef struct Taken
{
	uint64		id;
	int64		amount;
	int			level;			/* of the subtransaction that took it */
	uint32		name_len;
	char		name[NXM_MAX_NAME + 1];
} Taken;

/* In TopTransactionContext. */
static Taken *taken = NULL;
static size_t ntaken = 0;
static size_t taken_size = 0;

_Noreturn static void
out_of_range(NxmBytes name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("counter \"%.*s\" is out of range", (int) name.len,
					name.data),
			 errdetail("Its value would not fit in a bigint.")));
}

/* In a section: adds, and tells whether the counter gives a new value. */
static inline NxmResult
add(NxmObject *object, int64 delta, int64 *result, bool *striped)
{
	NxmCounter *counter = &object->u.counter;

	*striped = counter->nstripes > 0;
	return nxm_counter_add(nxm_registry_space, counter,
						   *striped ? nxm_memory_node() : 0, delta, result);
}

Datum
nxm_sql_counter_add(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	int64		delta = nxm_int8_arg(fcinfo, 1, "delta");
	NxmSite    *site;
	int64		value = 0;
	bool		striped = false;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_COUNTER, name, NXM_WRITE, true);
		NXM_OPERATE(site, r, add(site->object, delta, &value, &striped));
	} while (NXM_AGAIN(r));
	if (unlikely(r == NXM_OVERFLOW))
		out_of_range(name);
	if (striped)
		PG_RETURN_NULL();
	PG_RETURN_INT64(value);
}

Datum
nxm_sql_counter_get(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	NxmSite    *site;
	int64		value = 0;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_COUNTER, name, NXM_READ, false);
		if (site == NULL)
			PG_RETURN_NULL();
		NXM_OPERATE(site, r, nxm_counter_get(nxm_registry_space,
											 &site->object->u.counter, &value));
	} while (NXM_AGAIN(r));
	if (unlikely(r == NXM_OVERFLOW))
		out_of_range(name);
	PG_RETURN_INT64(value);
}

Datum
nxm_sql_counter_set(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	int64		value = nxm_int8_arg(fcinfo, 1, "value");
	NxmSite    *site;
	int64		old = 0;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_COUNTER, name, NXM_WRITE, true);
		NXM_OPERATE(site, r, nxm_counter_set(nxm_registry_space,
											 &site->object->u.counter, value,
											 &old));
	} while (NXM_AGAIN(r));
	if (unlikely(r == NXM_OVERFLOW))
		out_of_range(name);
	PG_RETURN_INT64(old);
}

Datum
nxm_sql_counter_create(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	NxmObjectOptions options = {0};

	if (PG_ARGISNULL(1))
		nxm_null_argument("striped", NULL);
	options.striped = PG_GETARG_BOOL(1);
	PG_RETURN_BOOL(nxm_object_create(NXM_KIND_COUNTER, name.data, name.len,
									 &options));
}

Datum
nxm_sql_counter_drop(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();

	PG_RETURN_BOOL(nxm_object_drop(NXM_KIND_COUNTER, name.data, name.len));
}

/* Adds back what was taken, where the counter is still there. */
static NxmResult
add_back(const Taken *t)
{
	NxmObjectInfo info;
	NxmResult	r;
	int			waits = 0;

	nxm_registry_use();			/* detached already, if the process ends */
	info.object = NULL;
	info.generation = PG_UINT64_MAX;	/* look the name up */
	info.id = t->id;
	info.kind = NXM_KIND_COUNTER;
	info.database = MyDatabaseId;
	info.name_len = t->name_len;
	memcpy(info.name, t->name, sizeof(info.name));
	do
	{
		NxmObject  *object;
		int64		value;
		bool		striped;

		nxm_begin_operation();
		nxm_enter(nxm_registry_space);
		r = nxm_object_find(&info, &object);
		if (r == NXM_OK)
			r = add(object, t->amount, &value, &striped);
		nxm_leave(nxm_registry_space);
		nxm_end_operation();
		/* nobody could interrupt it */
		if (r == NXM_NEED_EPOCH && ++waits > MOST_EPOCH_WAITS)
			break;
	} while (nxm_again(nxm_registry_space, r));
	if (r == NXM_DROPPED)
		nxm_registry_use();		/* raises the error if it was closed */
	return r;
}

/* error: that adding it back raised, or NULL: then r tells why it was not. */
static void
warn_not_given_back(const Taken *t, NxmResult r, const ErrorData *error)
{
	ereport(WARNING,
			(errcode(error != NULL ? error->sqlerrcode :
					 r == NXM_OVERFLOW ? ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE : ERRCODE_WARNING),
			 errmsg("could not add %lld back to counter \"%.*s\"",
					(long long) t->amount, (int) t->name_len, t->name),
			 error != NULL ? errdetail_internal("%s", error->message) :
			 r == NXM_OVERFLOW ? errdetail("Its value would not fit in a bigint.") :
			 errdetail("It is near the end of the bigints, and another process was for a second in the middle of an operation.")));
}

/*
 * Gives back what was taken at this nesting level and above.  Runs while a
 * transaction aborts, where an error would do harm: one becomes a warning.  (While
 * the process ends an error ends it, and what was not given back is lost.)
 */
static void
give_back(int level)
{
	MemoryContext context = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;

	while (ntaken > 0 && taken[ntaken - 1].level >= level)
	{
		Taken	   *t = &taken[--ntaken];
		ErrorData  *volatile error = NULL;
		volatile NxmResult r = NXM_OK;

		if (t->amount == 0)
			continue;
		PG_TRY();
		{
			r = add_back(t);
		}
		PG_CATCH();
		{
			/* the error took all back; who aborts holds interrupts off still */
			InterruptHoldoffCount = holdoff;
			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			FlushErrorState();
		}
		PG_END_TRY();
		if (error != NULL || (r != NXM_OK && r != NXM_DROPPED))
			warn_not_given_back(t, r, error);
	}
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	(void) arg;
	if (event == XACT_EVENT_PRE_PREPARE && ntaken > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has drained counters")));
	if (event == XACT_EVENT_ABORT)
		give_back(0);
	/* preparing too: a savepoint that was rolled back leaves its array behind */
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT ||
		event == XACT_EVENT_PREPARE)
	{
		taken = NULL;			/* its memory goes with the transaction's */
		ntaken = 0;
		taken_size = 0;
	}
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine,
						 SubTransactionId parent, void *arg)
{
	int			level;

	(void) mine;
	(void) parent;
	(void) arg;
	if (ntaken == 0)
		return;
	level = GetCurrentTransactionNestLevel();
	if (event == SUBXACT_EVENT_ABORT_SUB)
		give_back(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (size_t i = ntaken; i > 0 && taken[i - 1].level >= level; i--)
			taken[i - 1].level = level - 1;
	}
}

/* The transaction under way, if any, did not commit, and will not. */
static void
at_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	give_back(0);
}

static void
watch_transactions(void)
{
	static bool watching = false;

	if (watching)
		return;
	RegisterXactCallback(at_end_of_transaction, NULL);
	RegisterSubXactCallback(at_end_of_subtransaction, NULL);
	/* after the arena's, so that it runs before it */
	before_shmem_exit(at_exit, (Datum) 0);
	watching = true;
}

typedef struct DrainContext
{
	ReturnSetInfo *rsinfo;
	text	   *pattern;
} DrainContext;

/* A place to remember what will be taken: without it nothing is. */
static Taken *
remember(const NxmObjectInfo *info)
{
	Taken	   *t;

	if (ntaken == taken_size)
	{
		size_t		size = taken_size == 0 ? 64 : taken_size * 2;
		Taken	   *larger = MemoryContextAllocHuge(TopTransactionContext, size * sizeof(Taken));

		/* of which an exit from a signal handler gives back: never what is freed */
		if (taken != NULL)
			memcpy(larger, taken, ntaken * sizeof(Taken));
		taken = larger;
		taken_size = size;
	}
	t = &taken[ntaken];
	t->id = info->id;
	t->amount = 0;
	t->level = GetCurrentTransactionNestLevel();
	t->name_len = info->name_len;
	memcpy(t->name, info->name, sizeof(t->name));
	ntaken++;
	return t;
}

static void
drain(const NxmObjectInfo *info, void *context)
{
	DrainContext *c = context;
	NxmBytes	name = {info->name, info->name_len};
	Datum		values[2];
	bool		nulls[2] = {false, false};
	text	   *name_text;
	Taken	   *t;
	int64		amount;
	NxmResult	r;

	if (info->kind != NXM_KIND_COUNTER || info->database != MyDatabaseId ||
		(nxm_object_privileges(GetUserId(), info->owner, &info->acl) &
		 NXM_WRITE) == 0)
		return;
	name_text = cstring_to_text_with_len(name.data, (int) name.len);
	if (!DatumGetBool(DirectFunctionCall2Coll(textlike, C_COLLATION_OID,
											  PointerGetDatum(name_text),
											  PointerGetDatum(c->pattern))))
	{
		pfree(name_text);
		return;
	}

	t = remember(info);
	do
	{
		NxmObject  *object;
		int64		value;

		nxm_begin_operation();
		nxm_enter(nxm_registry_space);
		r = nxm_object_find(info, &object);
		/* a sum that is no bigint could be neither returned nor given back */
		if (r == NXM_OK)
			r = nxm_counter_get(nxm_registry_space, &object->u.counter, &value);
		if (r == NXM_OK)
			r = nxm_counter_set(nxm_registry_space, &object->u.counter, 0,
								&t->amount);
		nxm_leave(nxm_registry_space);
		nxm_end_operation();
	} while (nxm_again(nxm_registry_space, r));
	amount = t->amount;
	/* nothing to give back: the last one remembered is this one still */
	if (amount == 0)
		ntaken--;
	if (r == NXM_OVERFLOW)
		out_of_range(name);
	if (r == NXM_DROPPED)
		nxm_registry_use();		/* raises the error if it was closed */
	if (r != NXM_OK)
		return;					/* dropped meanwhile */

	values[0] = PointerGetDatum(name_text);
	values[1] = Int64GetDatum(amount);
	tuplestore_putvalues(c->rsinfo->setResult, c->rsinfo->setDesc, values,
						 nulls);
	pfree(name_text);
}

Datum
nxm_sql_counter_drain(PG_FUNCTION_ARGS)
{
	DrainContext c;

	nxm_check_enabled(NXM_KIND_COUNTER);
	/* its transaction ends before its leader's, which may still abort */
	if (IsParallelWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot drain counters in a parallel worker"),
				 errhint("Mark the function that calls counter_drain() as PARALLEL RESTRICTED or PARALLEL UNSAFE.")));
	if (PG_ARGISNULL(0))
		nxm_null_argument("pattern", NULL);
	c.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	c.pattern = PG_GETARG_TEXT_PP(0);
	InitMaterializedSRF(fcinfo, 0);
	nxm_registry_use();
	watch_transactions();
	nxm_registry_scan(drain, &c);
	return (Datum) 0;
}
