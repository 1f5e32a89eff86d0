/*
 * nxm_user.c
 *	  Each function of nexusmem's C interface, made callable from SQL.
 *
 * Besides being a test it shows the ways to keep a handle: for one call, closed at
 * its end, or for the life of the session in TopMemoryContext.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nexusmem/nexusmem_api.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(user_version);
PG_FUNCTION_INFO_V1(user_exists);
PG_FUNCTION_INFO_V1(user_null_exists);
PG_FUNCTION_INFO_V1(user_drop);
PG_FUNCTION_INFO_V1(user_add);
PG_FUNCTION_INFO_V1(user_kept_add);
PG_FUNCTION_INFO_V1(user_value);
PG_FUNCTION_INFO_V1(user_set);
PG_FUNCTION_INFO_V1(user_kept_fill);
PG_FUNCTION_INFO_V1(user_put);
PG_FUNCTION_INFO_V1(user_put_bytes);
PG_FUNCTION_INFO_V1(user_put_if);
PG_FUNCTION_INFO_V1(user_get);
PG_FUNCTION_INFO_V1(user_read);
PG_FUNCTION_INFO_V1(user_delete);
PG_FUNCTION_INFO_V1(user_map_add);
PG_FUNCTION_INFO_V1(user_size);
PG_FUNCTION_INFO_V1(user_scan);
PG_FUNCTION_INFO_V1(user_push);
PG_FUNCTION_INFO_V1(user_pop);
PG_FUNCTION_INFO_V1(user_length);
PG_FUNCTION_INFO_V1(user_ends);

#define WRITER (NXM_API_WRITE | NXM_API_CREATE)

static char *
string_arg(FunctionCallInfo fcinfo, int n)
{
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static NxmApiValue
value_of(char *s, int type)
{
	NxmApiValue value;

	value.data = s;
	value.len = strlen(s);
	value.type = (NxmApiType) type;
	return value;
}

static Datum
text_datum(const NxmApiValue *value)
{
	return PointerGetDatum(cstring_to_text_with_len(value->data,
													(int) value->len));
}

static Datum
record(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

Datum
user_version(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_INT32(nxm_api()->version);
}

Datum
user_exists(PG_FUNCTION_ARGS)
{
	NxmHandle  *handle = nxm_api()->open((NxmApiKind) PG_GETARG_INT32(0),
										 string_arg(fcinfo, 1), NXM_API_READ);
	bool		exists = nxm_api()->exists(handle);

	nxm_api()->close(handle);
	PG_RETURN_BOOL(exists);
}

Datum
user_null_exists(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_BOOL(nxm_api()->exists(NULL));
}

Datum
user_drop(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(nxm_api()->drop((NxmApiKind) PG_GETARG_INT32(0),
								   string_arg(fcinfo, 1)));
}

Datum
user_add(PG_FUNCTION_ARGS)
{
	NxmHandle  *handle = nxm_api()->open(NXM_API_COUNTER,
										 string_arg(fcinfo, 0),
										 PG_GETARG_INT32(2));
	int64		value;
	bool		exact = nxm_api()->counter_add(handle, PG_GETARG_INT64(1),
											   &value);

	nxm_api()->close(handle);
	if (!exact)
		PG_RETURN_NULL();
	PG_RETURN_INT64(value);
}

/* The same for one counter, with a handle that is kept. */
Datum
user_kept_add(PG_FUNCTION_ARGS)
{
	static NxmHandle *handle = NULL;
	int64		value;

	if (handle == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		handle = nxm_api()->open(NXM_API_COUNTER, "kept", WRITER);
		MemoryContextSwitchTo(old);
	}
	(void) nxm_api()->counter_add(handle, PG_GETARG_INT64(0), &value);
	PG_RETURN_INT64(value);
}

Datum
user_value(PG_FUNCTION_ARGS)
{
	NxmHandle  *handle = nxm_api()->open(NXM_API_COUNTER,
										 string_arg(fcinfo, 0), NXM_API_READ);
	int64		value;

	if (!nxm_api()->counter_get(handle, &value))
		PG_RETURN_NULL();
	PG_RETURN_INT64(value);
}

Datum
user_set(PG_FUNCTION_ARGS)
{
	NxmHandle  *handle = nxm_api()->open(NXM_API_COUNTER,
										 string_arg(fcinfo, 0), WRITER);
	int64		old;

	nxm_api()->counter_set(handle, PG_GETARG_INT64(1), &old);
	PG_RETURN_INT64(old);
}

static NxmHandle *
map_arg(FunctionCallInfo fcinfo, int flags)
{
	return nxm_api()->open(NXM_API_MAP, string_arg(fcinfo, 0), flags);
}

/* Puts so many new values of 1,000 bytes into one map, with a handle that is kept. */
Datum
user_kept_fill(PG_FUNCTION_ARGS)
{
	static NxmHandle *handle = NULL;
	static int	number = 0;
	char		bytes[1000] = {0};
	NxmApiValue value = {bytes, sizeof(bytes), NXM_API_BYTEA};

	if (handle == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		handle = nxm_api()->open(NXM_API_MAP, "filled", WRITER);
		MemoryContextSwitchTo(old);
	}
	for (int i = 0; i < PG_GETARG_INT32(0); i++)
	{
		number++;
		(void) nxm_api()->map_put(handle, (char *) &number, sizeof(number), &value);
	}
	PG_RETURN_INT32(number);
}

Datum
user_put(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, WRITER);
	char	   *key = string_arg(fcinfo, 1);
	NxmApiValue value = value_of(string_arg(fcinfo, 2), PG_GETARG_INT32(3));

	PG_RETURN_BOOL(nxm_api()->map_put(map, key, strlen(key), &value));
}

/* The same, of bytes that need not be text. */
Datum
user_put_bytes(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, WRITER);
	bytea	   *key = PG_GETARG_BYTEA_PP(1);
	bytea	   *bytes = PG_GETARG_BYTEA_PP(2);
	NxmApiValue value = {VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes),
	(NxmApiType) PG_GETARG_INT32(3)};

	PG_RETURN_BOOL(nxm_api()->map_put(map, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
									  &value));
}

Datum
user_put_if(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, WRITER);
	char	   *key = string_arg(fcinfo, 1);
	NxmApiValue expected;
	NxmApiValue value = value_of(string_arg(fcinfo, 3), NXM_API_TEXT);

	if (!PG_ARGISNULL(2))
		expected = value_of(string_arg(fcinfo, 2), NXM_API_TEXT);
	PG_RETURN_BOOL(nxm_api()->map_put_if(map, key, strlen(key),
										 PG_ARGISNULL(2) ? NULL : &expected,
										 &value));
}

Datum
user_get(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, NXM_API_READ);
	char	   *key = string_arg(fcinfo, 1);
	NxmApiValue value;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (!nxm_api()->map_get(map, key, strlen(key), &value))
		PG_RETURN_NULL();
	if (value.data[value.len] != '\0')
		elog(ERROR, "a value does not end with a 0 byte");
	values[0] = text_datum(&value);
	values[1] = Int32GetDatum(value.type);
	PG_RETURN_DATUM(record(fcinfo, values, nulls));
}

/* The value; and whether it is in room of so many bytes. */
Datum
user_read(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, NXM_API_READ);
	char	   *key = string_arg(fcinfo, 1);
	size_t		size = (size_t) PG_GETARG_INT32(2);
	char	   *room = palloc(size + 1);
	NxmApiValue value;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	room[size] = 'r';
	if (!nxm_api()->map_read(map, key, strlen(key), room, size, &value))
		PG_RETURN_NULL();
	if (value.data[value.len] != '\0' || room[size] != 'r')
		elog(ERROR, "a value does not end with a 0 byte, or where its room does");
	values[0] = text_datum(&value);
	values[1] = BoolGetDatum(value.data == room);
	if (value.data != room)
		pfree((void *) value.data);
	PG_RETURN_DATUM(record(fcinfo, values, nulls));
}

Datum
user_delete(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, NXM_API_WRITE);
	char	   *key = string_arg(fcinfo, 1);

	PG_RETURN_BOOL(nxm_api()->map_delete(map, key, strlen(key)));
}

Datum
user_map_add(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, WRITER);
	char	   *key = string_arg(fcinfo, 1);

	PG_RETURN_INT64(nxm_api()->map_add(map, key, strlen(key),
									   PG_GETARG_INT64(2)));
}

Datum
user_size(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) nxm_api()->map_size(map_arg(fcinfo, NXM_API_READ)));
}

typedef struct Visited
{
	int64		most;
	int64		entries;
	int64		bytes;
} Visited;

static bool
visit(const char *key, size_t key_len, const NxmApiValue *value, void *context)
{
	Visited    *visited = context;

	if (key[key_len] != '\0' || value->data[value->len] != '\0')
		elog(ERROR, "a key or a value does not end with a 0 byte");
	visited->entries++;
	visited->bytes += (int64) (key_len + value->len);
	return visited->entries < visited->most;
}

Datum
user_scan(PG_FUNCTION_ARGS)
{
	NxmHandle  *map = map_arg(fcinfo, NXM_API_READ);
	Visited		visited = {PG_GETARG_INT64(1), 0, 0};
	Datum		values[2];
	bool		nulls[2] = {false, false};

	nxm_api()->map_scan(map, visit, &visited);
	values[0] = Int64GetDatum(visited.entries);
	values[1] = Int64GetDatum(visited.bytes);
	PG_RETURN_DATUM(record(fcinfo, values, nulls));
}

Datum
user_push(PG_FUNCTION_ARGS)
{
	NxmApiKind	kind = (NxmApiKind) PG_GETARG_INT32(0);
	NxmHandle  *list = nxm_api()->open(kind, string_arg(fcinfo, 1), WRITER);
	NxmApiValue value = value_of(string_arg(fcinfo, 2), NXM_API_TEXT);

	if (kind == NXM_API_STACK)
		nxm_api()->stack_push(list, &value);
	else
		nxm_api()->queue_push(list, &value);
	PG_RETURN_VOID();
}

Datum
user_pop(PG_FUNCTION_ARGS)
{
	NxmApiKind	kind = (NxmApiKind) PG_GETARG_INT32(0);
	NxmHandle  *list = nxm_api()->open(kind, string_arg(fcinfo, 1),
									   NXM_API_WRITE);
	NxmApiValue value;

	if (kind == NXM_API_STACK ? !nxm_api()->stack_pop(list, &value) :
		!nxm_api()->queue_pop(list, &value))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(text_datum(&value));
}

Datum
user_length(PG_FUNCTION_ARGS)
{
	NxmApiKind	kind = (NxmApiKind) PG_GETARG_INT32(0);
	NxmHandle  *list = nxm_api()->open(kind, string_arg(fcinfo, 1),
									   NXM_API_READ);

	PG_RETURN_INT64((int64) (kind == NXM_API_STACK ?
							 nxm_api()->stack_depth(list) :
							 nxm_api()->queue_length(list)));
}

static int32 ends = 0;

static void
count_ends(ResourceReleasePhase phase, bool commit, bool top_level, void *arg)
{
	(void) commit;
	(void) arg;
	ends += top_level && phase == RESOURCE_RELEASE_BEFORE_LOCKS;
}

/* Ends of transactions that this extension was told of since the first call. */
Datum
user_ends(PG_FUNCTION_ARGS)
{
	static bool counting = false;

	(void) fcinfo;
	if (!counting)
		RegisterResourceReleaseCallback(count_ends, NULL);
	counting = true;
	PG_RETURN_INT32(ends);
}
