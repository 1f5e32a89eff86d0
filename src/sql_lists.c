/*
 * sql_lists.c
 *	  SQL functions of stacks and queues.
 *
 * One comes into being with the first value pushed; one that does not exist is
 * like one that is empty.
 *
 * A value is popped straight into the result, which is allocated before: a pop
 * that finds the value longer than the room takes nothing, and is repeated.
 * So no value is lost to a lack of memory.  A site remembers how long the last
 * value was.
 */
#include "sql_structures.h"

#include "compat.h"
#include "funcapi.h"

PG_FUNCTION_INFO_V1(nxm_sql_stack_depth);
PG_FUNCTION_INFO_V1(nxm_sql_stack_drop);
PG_FUNCTION_INFO_V1(nxm_sql_queue_length);
PG_FUNCTION_INFO_V1(nxm_sql_queue_drop);

/* Least room for a popped value. */
#define SHORT_VALUE (256 - VARHDRSZ - 1)

/* Most room kept ready for a next value as long as the last one. */
#define LONG_VALUE (8192 - VARHDRSZ - 1)

static inline NxmBytes
name_arg(FunctionCallInfo fcinfo, NxmKind kind)
{
	return nxm_bytes_arg(fcinfo, 0, kind == NXM_KIND_STACK ?
						 "name of a stack" : "name of a queue", NULL);
}

static inline NxmResult
do_push(NxmKind kind, NxmObject *object, const NxmValue *value)
{
	return kind == NXM_KIND_STACK ?
		nxm_stack_push(nxm_registry_space, &object->u.stack, value) :
		nxm_queue_push(nxm_registry_space, &object->u.queue, value);
}

static inline NxmResult
do_pop(NxmKind kind, NxmObject *object, NxmType type, NxmBuffer *buffer)
{
	return kind == NXM_KIND_STACK ?
		nxm_stack_pop(nxm_registry_space, &object->u.stack, type, buffer) :
		nxm_queue_pop(nxm_registry_space, &object->u.queue, type, buffer);
}

static inline uint64
do_count(NxmKind kind, NxmObject *object)
{
	return kind == NXM_KIND_STACK ? nxm_stack_depth(&object->u.stack) :
		nxm_queue_length(&object->u.queue);
}

static inline Datum
push(FunctionCallInfo fcinfo, NxmKind kind, NxmType type)
{
	NxmBytes	name = name_arg(fcinfo, kind);
	NxmValue	value = nxm_value_arg(fcinfo, 1, type, NULL);
	NxmSite    *site;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, kind, name, NXM_WRITE, true);
		nxm_check_role_limit(site->owner, value.len + NXM_ENTRY_OVERHEAD);
		NXM_OPERATE(site, r, do_push(kind, site->object, &value));
	} while (NXM_AGAIN(r));
	PG_RETURN_VOID();
}

static inline Datum
pop(FunctionCallInfo fcinfo, NxmKind kind, NxmType type)
{
	NxmBytes	name = name_arg(fcinfo, kind);
	NxmSite    *site;
	NxmBuffer	buffer = {NULL, 0, 0, type};
	char	   *result = NULL;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, kind, name, NXM_WRITE, false);
		if (site == NULL)
			PG_RETURN_NULL();
		if (result == NULL)
		{
			buffer.len = Max(SHORT_VALUE, site->size_hint);
			nxm_enlarge_buffer(&buffer, &result, VARHDRSZ);
		}
		NXM_OPERATE(site, r, do_pop(kind, site->object, type, &buffer));
	} while (nxm_read_again(r, &buffer, &result, VARHDRSZ));
	if (r == NXM_ABSENT)
		PG_RETURN_NULL();
	if (r == NXM_MISMATCH)
		nxm_wrong_type(kind, name, NULL, buffer.type, type,
					   kind == NXM_KIND_STACK ? "Use stack_pop%s()." : "Use queue_pop%s().");
	Assert(r == NXM_OK);
	site->size_hint = (uint32) Min(buffer.len, LONG_VALUE);
	SET_VARSIZE(result, VARHDRSZ + buffer.len);
	PG_RETURN_POINTER(result);
}

static Datum
count(FunctionCallInfo fcinfo, NxmKind kind)
{
	NxmBytes	name = name_arg(fcinfo, kind);
	NxmSite    *site;
	uint64		n = 0;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, kind, name, NXM_READ, false);
		if (site == NULL)
			PG_RETURN_INT64(0);
		NXM_OPERATE(site, r, (n = do_count(kind, site->object), NXM_STILL(site)));
	} while (NXM_AGAIN(r));
	PG_RETURN_INT64((int64) n);
}

static Datum
drop(FunctionCallInfo fcinfo, NxmKind kind)
{
	NxmBytes	name = name_arg(fcinfo, kind);

	PG_RETURN_BOOL(nxm_object_drop(kind, name.data, name.len));
}

/* nxm_sql_stack_push_text, nxm_sql_stack_push_bytea, nxm_sql_stack_push_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_stack_push, push(fcinfo, NXM_KIND_STACK, type));

/* nxm_sql_stack_pop_text, nxm_sql_stack_pop_bytea, nxm_sql_stack_pop_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_stack_pop, pop(fcinfo, NXM_KIND_STACK, type));

Datum
nxm_sql_stack_depth(PG_FUNCTION_ARGS)
{
	return count(fcinfo, NXM_KIND_STACK);
}

Datum
nxm_sql_stack_drop(PG_FUNCTION_ARGS)
{
	return drop(fcinfo, NXM_KIND_STACK);
}

/* nxm_sql_queue_push_text, nxm_sql_queue_push_bytea, nxm_sql_queue_push_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_queue_push, push(fcinfo, NXM_KIND_QUEUE, type));

/* nxm_sql_queue_pop_text, nxm_sql_queue_pop_bytea, nxm_sql_queue_pop_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_queue_pop, pop(fcinfo, NXM_KIND_QUEUE, type));

Datum
nxm_sql_queue_length(PG_FUNCTION_ARGS)
{
	return count(fcinfo, NXM_KIND_QUEUE);
}

Datum
nxm_sql_queue_drop(PG_FUNCTION_ARGS)
{
	return drop(fcinfo, NXM_KIND_QUEUE);
}
