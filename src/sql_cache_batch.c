/*
 * sql_cache_batch.c
 *	  cache_mget() and cache_mset(): many keys in one call.
 *
 * Keys are taken NXM_CACHE_BATCH at a time, so that what they wait for in memory
 * overlaps.  Each is read, or written, at a time of its own.
 */
#include "sql_cache.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_sql_cache_mget);
PG_FUNCTION_INFO_V1(nxm_sql_cache_mset);

/* What the values of a batch are read into at first. */
#define BATCH_BUFFER (16 * 1024)

typedef struct TextArray
{
	Datum	   *element;
	int			count;
} TextArray;

/* An array argument without nulls.  what, hint: of its elements. */
static TextArray
text_array_arg(FunctionCallInfo fcinfo, int n, const char *array_name,
			   const char *what, const char *hint)
{
	TextArray	array;
	bool	   *nulls;

	if (PG_ARGISNULL(n))
		nxm_null_argument(array_name, NULL);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT,
					  &array.element, &nulls, &array.count);
	for (int i = 0; i < array.count; i++)
	{
		if (nulls[i])
			nxm_null_argument(what, hint);
	}
	return array;
}

static NxmBytes
bytes_of(Datum text_datum)
{
	text	   *t = DatumGetTextPP(text_datum);
	NxmBytes	bytes = {VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)};

	return bytes;
}

/* The keys of a batch; those of the whole array were checked. */
static int
take_keys(const TextArray *keys, int first, NxmKey *key)
{
	int			n = Min(keys->count - first, NXM_CACHE_BATCH);

	for (int i = 0; i < n; i++)
		key[i] = nxm_key(bytes_of(keys->element[first + i]));
	return n;
}

static void
check_keys(const TextArray *keys)
{
	for (int i = 0; i < keys->count; i++)
		nxm_check_key(bytes_of(keys->element[i]).len);
}

/* Rows of the keys from first on, whose answers are known. */
static void
put_rows(ReturnSetInfo *rsinfo, MemoryContext row_context, const TextArray *keys,
		 int first, const NxmCacheAnswer *answer, int from, int to,
		 const char *data)
{
	for (int i = from; i < to; i++)
	{
		Datum		values[2] = {keys->element[first + i], (Datum) 0};
		bool		nulls[2] = {false, answer[i].result != NXM_OK};
		MemoryContext old = MemoryContextSwitchTo(row_context);

		if (!nulls[1])
			values[1] = nxm_value_as_text(data + answer[i].at, answer[i].len,
										  answer[i].type);
		MemoryContextSwitchTo(old);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextReset(row_context);
	}
}

Datum
nxm_sql_cache_mget(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TextArray	keys = text_array_arg(fcinfo, 0, "keys", "key", NULL);
	NxmBytes	name = nxm_bytes_arg(fcinfo, 1, "name of a cache", NULL);
	NxmSite    *site;
	NxmBuffer	buffer = {NULL, BATCH_BUFFER, 0, NXM_TEXT};
	MemoryContext row_context;

	check_keys(&keys);
	InitMaterializedSRF(fcinfo, 0);
	row_context = AllocSetContextCreate(CurrentMemoryContext,
										"nexusmem cache_mget",
										ALLOCSET_DEFAULT_SIZES);
	buffer.data = palloc(buffer.size);
	for (int first = 0; first < keys.count; first += NXM_CACHE_BATCH)
	{
		NxmKey		key[NXM_CACHE_BATCH];
		NxmCacheAnswer answer[NXM_CACHE_BATCH];
		int			n = take_keys(&keys, first, key);
		int			done = 0;
		int			put = 0;

		CHECK_FOR_INTERRUPTS();
		buffer.len = 0;
		while (done < n)
		{
			NxmCacheView *view;
			NxmResult	r;

			site = nxm_cache_open(fcinfo, name, NXM_READ, false);
			if (site == NULL)
			{
				while (done < n)
					answer[done++].result = NXM_ABSENT;
				break;
			}
			view = nxm_cache_view();
			NXM_OPERATE(site, r, nxm_cache_get_many(view, &site->object->u.c.cache,
													key, n, answer, &done,
													&buffer));
			if (r == NXM_NEED_BUFFER)
			{
				size_t		need = answer[done].len;

				put_rows(rsinfo, row_context, &keys, first, answer, put, done,
						 buffer.data);
				put = done;
				buffer.len = 0;
				if (need > buffer.size)
				{
					pfree(buffer.data);
					buffer.size = Max(need, buffer.size * 2);
					buffer.data = palloc(buffer.size);
				}
			}
			else if (r != NXM_OK && !nxm_cache_again(view, r))
				elog(ERROR, "unexpected result %d of a cache", (int) r);
		}
		put_rows(rsinfo, row_context, &keys, first, answer, put, n, buffer.data);
	}
	MemoryContextDelete(row_context);
	pfree(buffer.data);
	return (Datum) 0;
}

Datum
nxm_sql_cache_mset(PG_FUNCTION_ARGS)
{
	TextArray	keys = text_array_arg(fcinfo, 0, "keys", "key", NULL);
	TextArray	values = text_array_arg(fcinfo, 1, "values", "value",
										"Use cache_delete() to remove a key.");
	const Interval *ttl = PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2);
	NxmBytes	name = nxm_bytes_arg(fcinfo, 3, "name of a cache", NULL);
	NxmSite    *site;
	int			stored = 0;

	if (keys.count != values.count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of keys (%d) differs from number of values (%d)",
						keys.count, values.count)));
	check_keys(&keys);
	for (int i = 0; i < values.count; i++)
	{
		size_t		len = bytes_of(values.element[i]).len;

		if (len > NXM_MAX_VALUE)
			nxm_value_too_long(len);
	}

	for (int first = 0; first < keys.count; first += NXM_CACHE_BATCH)
	{
		NxmKey		key[NXM_CACHE_BATCH];
		int			n = take_keys(&keys, first, key);
		NxmCacheView *view;
		NxmResult	r;

		CHECK_FOR_INTERRUPTS();
		site = nxm_cache_open(fcinfo, name, NXM_WRITE, false);
		view = nxm_cache_view();
		/* what it cannot load now the stores will, which make the cache if need be */
		if (site != NULL)
			NXM_OPERATE(site, r,
						(nxm_cache_prefetch(view, &site->object->u.c.cache, key, n),
						 NXM_OK));
		(void) r;
		for (int i = 0; i < n; i++)
		{
			NxmBytes	bytes = bytes_of(values.element[first + i]);
			NxmValue	value = {bytes.data, (uint32) bytes.len, NXM_TEXT};

			stored += nxm_cache_store(fcinfo, name, &key[i], &value, ttl, false, true) ==
				NXM_STORED;
		}
	}
	PG_RETURN_INT32(stored);
}
