/*
 * sql_cache_admin.c
 *	  SQL functions that make, empty and drop caches, and the view stat_cache.
 */
#include "sql_cache.h"

#include "arena_chunks.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "single_flight.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(nxm_sql_cache_create);
PG_FUNCTION_INFO_V1(nxm_sql_cache_clear);
PG_FUNCTION_INFO_V1(nxm_sql_cache_drop);
PG_FUNCTION_INFO_V1(nxm_stat_cache);
PG_FUNCTION_INFO_V1(nxm_stat_cache_reset);

/* After clearing, memory is given back for so long at most, ms; then by the worker. */
#define GIVE_BACK_MS 5000

#define STAT_COLUMNS 16

#define NAME_ARG(n) nxm_bytes_arg(fcinfo, n, "name of a cache", NULL)

Datum
nxm_sql_cache_create(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG(0);
	NxmObjectOptions options = {0};

	if (!PG_ARGISNULL(1))
	{
		int64		max_bytes = PG_GETARG_INT64(1);
		int64		least = (int64) nxm_cache_least_bytes();

		if (max_bytes < least)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("max_bytes is too small: %lld",
							(long long) max_bytes),
					 errdetail_plural("A cache of %d partition takes at least %lld bytes.",
									  "A cache of %d partitions takes at least %lld bytes.",
									  nxm_cache_partitions(),
									  nxm_cache_partitions(), (long long) least),
					 errhint("NULL means that nexusmem.cache_size alone limits the cache.")));
		options.max_bytes = (uint64) max_bytes;
	}
	if (!PG_ARGISNULL(2))
	{
		options.default_ttl = nxm_ttl_of(PG_GETARG_INTERVAL_P(2));
		if (options.default_ttl < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("default_ttl must be greater than zero, not \"%s\"",
							DatumGetCString(DirectFunctionCall1(interval_out,
																PG_GETARG_DATUM(2)))),
					 errhint("NULL means that entries do not expire by default.")));
	}
	PG_RETURN_BOOL(nxm_object_create(NXM_KIND_CACHE, name.data, name.len, &options));
}

/* Drains what was cut off of the cache with this id.  Others would, but a session may be alone. */
static void
give_back(FunctionCallInfo fcinfo, NxmBytes name, uint64 id)
{
	TimestampTz start = GetCurrentTimestamp();
	NxmSite    *site;
	NxmResult	r;

	do
	{
		NxmCacheView *view;

		CHECK_FOR_INTERRUPTS();
		site = nxm_cache_open(fcinfo, name, NXM_WRITE, false);
		if (site == NULL || site->id != id)
			break;
		view = nxm_cache_view();
		NXM_OPERATE(site, r, nxm_cache_tick(view, &site->object->u.c.cache));
		if (nxm_cache_again(view, r))
			r = NXM_OK;
		/* NXM_EXISTS: this step has freed nothing, and the next ones may */
	} while ((r == NXM_OK || r == NXM_EXISTS) &&
			 !nxm_is_over(start, GetCurrentTimestamp(), GIVE_BACK_MS));
	/* the last values may be large: do not keep them in limbo */
	nxm_begin_operation();
	nxm_flush(nxm_registry_space);
	nxm_end_operation();
}

Datum
nxm_sql_cache_clear(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG(0);
	NxmSite    *site;
	NxmCacheCursor cursor = {0, 0};
	uint64		removed = 0;
	uint64		id = 0;
	long		wait = 1;		/* ms */

	for (;;)
	{
		NxmCacheView *view;
		NxmResult	r;

		CHECK_FOR_INTERRUPTS();
		site = nxm_cache_open(fcinfo, name, NXM_WRITE, false);
		/* also for who is about to make the cache */
		nxm_flight_note_clear(name.data, name.len);
		if (site == NULL)
			break;
		/* dropped and made anew: that is another cache, and has been empty */
		if (id == 0)
			id = site->id;
		else if (id != site->id)
			break;
		view = nxm_cache_view();
		NXM_OPERATE(site, r, nxm_cache_clear(view, &site->object->u.c.cache, &cursor,
											 &removed));
		if (r == NXM_OK)
		{
			give_back(fcinfo, name, id);
			break;
		}
		if (r == NXM_EXISTS)
		{
			/* a clear under way that ours has to wait for */
			NXM_OPERATE(site, r, nxm_cache_tick(view, &site->object->u.c.cache));
			if (!nxm_cache_again(view, r) && r == NXM_ABSENT)
			{
				/* somebody else is cutting it off, and may have been stopped there */
				(void) WaitLatch(MyLatch,
								 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 wait, PG_WAIT_EXTENSION);
				ResetLatch(MyLatch);
				wait = Min(wait * 2, 10);
			}
			continue;
		}
		/* an empty index takes some memory, and there may be none but ours */
		if (r == NXM_DROPPED || nxm_caches_make_way(r) ||
			nxm_again(view->space, r))
			continue;
		elog(ERROR, "unexpected result %d of a cache", (int) r);
	}
	PG_RETURN_INT64((int64) removed);
}

Datum
nxm_sql_cache_drop(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG(0);

	nxm_check_name(NXM_KIND_CACHE, name.len);
	nxm_registry_use();
	/* an error for who may not do so; then, before it is dropped, or was ever made */
	(void) nxm_cache_open(fcinfo, name, NXM_OWN, false);
	nxm_flight_note_clear(name.data, name.len);
	PG_RETURN_BOOL(nxm_object_drop(NXM_KIND_CACHE, name.data, name.len));
}

/* In a section: a partition of a cache that was there a moment ago. */
static NxmResult
read_stats(const NxmObjectInfo *info, int partition, NxmCacheStats *stats)
{
	NxmCacheView *view = nxm_cache_view();
	NxmObject  *object;
	NxmResult	r = nxm_object_find(info, &object);

	if (r != NXM_OK)
		return r;
	if (partition >= (int) object->u.c.cache.npartitions)
		return NXM_ABSENT;
	view->space->need_chunk = -1;
	if (nxm_cache_stats(view, &object->u.c.cache, partition, stats))
		return NXM_OK;
	return view->space->need_chunk >= 0 ? NXM_NEED_CHUNK : NXM_DROPPED;
}

typedef struct StatContext
{
	ReturnSetInfo *rsinfo;
	bool		all;
} StatContext;

static void
put_stats(const NxmObjectInfo *info, void *context)
{
	StatContext *c = context;

	if (info->kind != NXM_KIND_CACHE || info->database != MyDatabaseId ||
		(!c->all && nxm_object_privileges(GetUserId(), info->owner,
										  &info->acl) == 0))
		return;
	for (int partition = 0;; partition++)
	{
		NxmCacheStats stats;
		NxmResult	r;
		bool		bound;
		Datum		values[STAT_COLUMNS];
		bool		nulls[STAT_COLUMNS] = {false};
		int			n = 0;

		do
		{
			nxm_begin_operation();
			nxm_enter(nxm_registry_space);
			r = read_stats(info, partition, &stats);
			nxm_leave(nxm_registry_space);
			nxm_end_operation();
		} while (nxm_again(nxm_registry_space, r));
		if (r != NXM_OK)
			return;

		bound = stats.node != nxm_space_unbound_node();
		values[n++] = PointerGetDatum(cstring_to_text_with_len(info->name,
															   (int) info->name_len));
		nulls[n] = !bound;
		values[n++] = Int32GetDatum(bound ? nxm_space_node_first(stats.node) : 0);
		values[n++] = Int64GetDatum((int64) stats.entries);
		values[n++] = Int64GetDatum((int64) stats.bytes);
		values[n++] = Int64GetDatum((int64) (stats.used_bytes -
											 Min(stats.bytes, stats.used_bytes)));
		values[n++] = Int64GetDatum((int64) (stats.local_hits + stats.remote_hits));
		values[n++] = Int64GetDatum((int64) stats.misses);
		values[n++] = Int64GetDatum((int64) stats.sets);
		values[n++] = Int64GetDatum((int64) stats.evictions);
		values[n++] = Int64GetDatum((int64) stats.expirations);
		values[n++] = Int64GetDatum((int64) stats.local_hits);
		values[n++] = Int64GetDatum((int64) stats.remote_hits);
		values[n++] = Int64GetDatum((int64) stats.refusals);
		values[n++] = ObjectIdGetDatum(info->owner);
		nulls[n] = info->options.max_bytes == 0;
		values[n++] = Int64GetDatum((int64) info->options.max_bytes);
		nulls[n] = info->options.default_ttl == 0;
		values[n++] = Int64GetDatum(info->options.default_ttl);
		Assert(n == STAT_COLUMNS);
		tuplestore_putvalues(c->rsinfo->setResult, c->rsinfo->setDesc, values,
							 nulls);
		pfree(DatumGetPointer(values[0]));
	}
}

Datum
nxm_stat_cache(PG_FUNCTION_ARGS)
{
	StatContext c;

	c.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	c.all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	InitMaterializedSRF(fcinfo, 0);
	nxm_registry_use();
	nxm_registry_scan(put_stats, &c);
	return (Datum) 0;
}

static void
reset_stats(const NxmObjectInfo *info, void *context)
{
	NxmResult	r;

	(void) context;
	if (info->kind != NXM_KIND_CACHE || info->database != MyDatabaseId)
		return;
	do
	{
		NxmObject  *object;
		NxmCacheView *view = nxm_cache_view();

		nxm_begin_operation();
		nxm_enter(view->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
		{
			view->space->need_chunk = -1;
			nxm_cache_stats_reset(view, &object->u.c.cache);
			/* repeated, it does no harm */
			if (view->space->need_chunk >= 0)
				r = NXM_NEED_CHUNK;
		}
		nxm_leave(view->space);
		nxm_end_operation();
	} while (nxm_again(nxm_registry_space, r));
}

Datum
nxm_stat_cache_reset(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	nxm_registry_use();
	nxm_registry_scan(reset_stats, NULL);
	PG_RETURN_VOID();
}
