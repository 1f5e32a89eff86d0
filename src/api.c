/*
 * api.c
 *	  The C interface that nexusmem_api.h describes.
 *
 * A handle is a site of the registry with its name: each call looks whether what
 * the site remembers still holds, and resolves the name anew if not.  What a
 * pop gives back is copied into memory that was allocated before the section, so
 * that no element is lost to a failing palloc.
 *
 * The types of the header have the values of core's, so that they are not
 * translated; only checked, for a caller can pass anything.
 */
#include "nexusmem_api.h"

#include "api.h"
#include "mb/pg_wchar.h"
#include "sql_structures.h"
#include "utils/builtins.h"

/* Least room for a popped value. */
#define FIRST_BUFFER 255

PGDLLEXPORT int nxm_api_version(void);

struct NxmHandle
{
	NxmKind		kind;
	int			flags;			/* NXM_API_... */
	NxmSite		site;
	size_t		name_len;
	char		name[NXM_MAX_NAME + 1];
};

StaticAssertDecl((int) NXM_API_COUNTER == (int) NXM_KIND_COUNTER &&
				 (int) NXM_API_MAP == (int) NXM_KIND_MAP &&
				 (int) NXM_API_STACK == (int) NXM_KIND_STACK &&
				 (int) NXM_API_QUEUE == (int) NXM_KIND_QUEUE &&
				 (int) NXM_API_TEXT == (int) NXM_TEXT &&
				 (int) NXM_API_BYTEA == (int) NXM_BYTEA &&
				 (int) NXM_API_JSONB == (int) NXM_JSONB,
				 "enums of the C interface have the values of ours");

static pg_noinline bool
resolve_slow(NxmHandle *handle, NxmPrivilege privilege, bool create)
{
	create = create && (handle->flags & NXM_API_CREATE) != 0;
	if (create && (handle->flags & NXM_API_STRIPED) != 0 &&
		!nxm_site_open(&handle->site, handle->kind, handle->name,
					   handle->name_len, privilege, false))
		(void) nxm_object_create(handle->kind, handle->name, handle->name_len,
								 &(const NxmObjectOptions){.striped = true});
	return nxm_site_open(&handle->site, handle->kind, handle->name,
						 handle->name_len, privilege, create);
}

/*
 * Opens the object for an operation, which sees in its section whether it is out of
 * date; false: there is none, and it is not to be made.
 */
static inline bool
resolve_for_now(NxmHandle *handle, NxmPrivilege privilege, bool create)
{
	/* a handle's site remembers nothing but the handle's kind and name */
	if (unlikely(!nxm_site_permits(&handle->site, privilege)))
		return resolve_slow(handle, privilege, create);
	/* one that is kept may be good for the life of the process */
	if (unlikely(nxm_space_is_outdated()))
		(void) nxm_space();
	return true;
}

/* The same, not out of date. */
static inline bool
resolve(NxmHandle *handle, NxmPrivilege privilege, bool create)
{
	return nxm_site_holds(&handle->site, privilege) ||
		resolve_slow(handle, privilege, create);
}

_Noreturn static void
raise_bad_handle(const NxmHandle *handle, NxmKind kind)
{
	if (handle == NULL || handle->kind != kind)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("handle is not one of a %s", nxm_kind_name(kind))));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("handle of %s \"%s\" was opened for reading only",
					nxm_kind_name(kind), handle->name)));
}

static inline void
check_handle(const NxmHandle *handle, NxmKind kind, int flags)
{
	if (unlikely(handle == NULL || handle->kind != kind ||
				 (flags & ~handle->flags & NXM_API_WRITE) != 0))
		raise_bad_handle(handle, kind);
}

/*
 * Does an operation, an expression of type NxmResult, on the object of a handle.
 * result is NXM_ABSENT where there is none.  The second is for operations that
 * read a value.
 */
#define OPERATE_WHILE(again, handle, privilege, create, operation) \
	do { \
		if (unlikely(!resolve_for_now(handle, privilege, create))) \
		{ \
			result = NXM_ABSENT; \
			break; \
		} \
		NXM_OPERATE(&(handle)->site, result, operation); \
		if (unlikely(result == NXM_DROPPED)) \
			(handle)->site.object = NULL; \
	} while (again)

#define OPERATE(handle, privilege, create, operation) \
	OPERATE_WHILE(NXM_AGAIN(result), handle, privilege, create, operation)

#define READ_VALUE(handle, privilege, buffer, memory, operation) \
	OPERATE_WHILE(nxm_read_again(result, buffer, memory, 0), handle, privilege, \
				  false, operation)

/* The operation's arguments. */
#define SPACE nxm_registry_space
#define OBJECT(handle, member) (&(handle)->site.object->u.member)

_Noreturn static void
raise_undefined(const NxmHandle *handle)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" does not exist", nxm_kind_name(handle->kind),
					handle->name)));
}

/* As SQL's functions do, but for the key, which need not be text. */
_Noreturn static void
raise_overflow(const NxmHandle *handle)
{
	if (handle->kind == NXM_KIND_MAP)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("value of a key in map \"%s\" is out of range", handle->name),
				 errdetail("The sum would not fit in a bigint.")));
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("counter \"%s\" is out of range", handle->name),
			 errdetail("Its value would not fit in a bigint.")));
}

/* What no caller expects. */
static inline void
check_result(const NxmHandle *handle, NxmResult result)
{
	if (unlikely(result == NXM_NEED_MEMORY || result == NXM_NEED_CHUNK ||
				 result == NXM_TOO_LONG))
		elog(ERROR, "unexpected result %d of %s \"%s\"", (int) result,
			 nxm_kind_name(handle->kind), handle->name);
}

_Noreturn static void
raise_bad_value(const NxmApiValue *value)
{
	if (value == NULL)
		nxm_null_argument("value", NULL);
	if ((unsigned) value->type > NXM_API_JSONB)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized type of value: %d", (int) value->type),
				 errhint("Types are NXM_API_TEXT, NXM_API_BYTEA and NXM_API_JSONB.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("value of %zu bytes has no data", value->len)));
}

_Noreturn static void
raise_bad_kind(NxmApiKind kind)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized kind of structure: %d", (int) kind),
			 errhint("Kinds are NXM_API_COUNTER, NXM_API_MAP, NXM_API_STACK and NXM_API_QUEUE.")));
}

static inline void
take_value(const NxmApiValue *from, NxmValue *to)
{
	if (unlikely(from == NULL || (from->data == NULL && from->len > 0) ||
				 (unsigned) from->type > NXM_API_JSONB))
		raise_bad_value(from);
	if (unlikely(from->len > NXM_MAX_VALUE))
		nxm_value_too_long(from->len);
	to->data = from->data;
	to->len = (uint32_t) from->len;
	to->type = (NxmType) from->type;
}

static inline void
take_key(const char *data, size_t len, NxmKey *key)
{
	nxm_check_key(data == NULL ? 0 : len);
	key->data = data;
	key->len = (uint32_t) len;
	key->hash = nxm_hash(data, len);
}

/* data: the caller's, with a byte to spare */
static inline void
give_value(char *data, const NxmBuffer *buffer, NxmApiValue *value)
{
	data[buffer->len] = '\0';
	value->data = data;
	value->len = buffer->len;
	value->type = (NxmApiType) buffer->type;
}

/*
 * Objects
 */

static NxmHandle *
api_open(NxmApiKind kind, const char *name, int flags)
{
	NxmHandle  *handle;
	size_t		len = name == NULL ? 0 : strlen(name);

	if ((unsigned) kind > NXM_API_QUEUE)
		raise_bad_kind(kind);
	nxm_check_name((NxmKind) kind, len);
	(void) pg_verify_mbstr(GetDatabaseEncoding(), name, (int) len, false);
	if ((flags & (NXM_API_READ | NXM_API_WRITE)) == 0 ||
		((flags & NXM_API_STRIPED) != 0 && kind != NXM_API_COUNTER))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid flags for %s \"%s\": 0x%02x",
						nxm_kind_name((NxmKind) kind), name, (unsigned) flags),
				 errdetail("NXM_API_READ or NXM_API_WRITE is needed; NXM_API_STRIPED is for counters.")));
	handle = palloc0(sizeof(NxmHandle));
	handle->kind = (NxmKind) kind;
	handle->flags = flags;
	handle->name_len = len;
	memcpy(handle->name, name, len);
	(void) resolve(handle, (flags & NXM_API_WRITE) != 0 ? NXM_WRITE : NXM_READ,
				   true);
	return handle;
}

static void
api_close(NxmHandle *handle)
{
	if (handle != NULL)
		pfree(handle);
}

static bool
api_exists(NxmHandle *handle)
{
	if (handle == NULL)
		nxm_null_argument("handle", NULL);
	return resolve(handle, NXM_READ, false);
}

static bool
api_drop(NxmApiKind kind, const char *name)
{
	if ((unsigned) kind > NXM_API_QUEUE)
		raise_bad_kind(kind);
	return nxm_object_drop((NxmKind) kind, name, name == NULL ? 0 : strlen(name));
}

/*
 * Counters
 */

static bool
api_counter_add(NxmHandle *handle, int64 delta, int64 *value)
{
	NxmResult	result;
	int64_t		sum = 0;
	bool		exact = false;

	check_handle(handle, NXM_KIND_COUNTER, NXM_API_WRITE);
	OPERATE(handle, NXM_WRITE, true,
			(exact = OBJECT(handle, counter)->nstripes == 0,
			 nxm_counter_add(SPACE, OBJECT(handle, counter), nxm_memory_node(),
							 delta, &sum)));
	if (result == NXM_ABSENT)
		raise_undefined(handle);
	if (result == NXM_OVERFLOW)
		raise_overflow(handle);
	check_result(handle, result);
	if (exact && value != NULL)
		*value = sum;
	return exact;
}

static bool
api_counter_get(NxmHandle *handle, int64 *value)
{
	NxmResult	result;
	int64_t		sum = 0;

	check_handle(handle, NXM_KIND_COUNTER, NXM_API_READ);
	OPERATE(handle, NXM_READ, false,
			nxm_counter_get(SPACE, OBJECT(handle, counter), &sum));
	if (result == NXM_OVERFLOW)
		raise_overflow(handle);
	check_result(handle, result);
	if (result == NXM_OK && value != NULL)
		*value = sum;
	return result == NXM_OK;
}

static void
api_counter_set(NxmHandle *handle, int64 value, int64 *old)
{
	NxmResult	result;
	int64_t		before = 0;

	check_handle(handle, NXM_KIND_COUNTER, NXM_API_WRITE);
	OPERATE(handle, NXM_WRITE, true,
			nxm_counter_set(SPACE, OBJECT(handle, counter), value, &before));
	if (result == NXM_ABSENT)
		raise_undefined(handle);
	if (result == NXM_OVERFLOW)
		raise_overflow(handle);
	check_result(handle, result);
	if (old != NULL)
		*old = before;
}

/*
 * Maps
 */

/* Before something is stored: the object is there, and its owner has room. */
static void
prepare_store(NxmHandle *handle, size_t bytes)
{
	if (!resolve(handle, NXM_WRITE, true))
		raise_undefined(handle);
	nxm_check_role_limit(handle->site.owner, sizeof(NxmItem) + bytes);
}

static bool
api_map_put(NxmHandle *handle, const char *key, size_t key_len,
			const NxmApiValue *value)
{
	NxmResult	result;
	NxmKey		k;
	NxmValue	v;

	check_handle(handle, NXM_KIND_MAP, NXM_API_WRITE);
	take_key(key, key_len, &k);
	take_value(value, &v);
	if (unlikely(nxm_role_limit >= 0))
		prepare_store(handle, k.len + v.len);
	OPERATE(handle, NXM_WRITE, true,
			nxm_map_put(SPACE, OBJECT(handle, map), &k, &v));
	if (result == NXM_ABSENT)
		raise_undefined(handle);
	check_result(handle, result);
	return result == NXM_OK;
}

static bool
api_map_put_if(NxmHandle *handle, const char *key, size_t key_len,
			   const NxmApiValue *expected, const NxmApiValue *value)
{
	NxmResult	result;
	NxmKey		k;
	NxmValue	v;
	NxmValue	e = {NULL, 0, NXM_TEXT};

	check_handle(handle, NXM_KIND_MAP, NXM_API_WRITE);
	take_key(key, key_len, &k);
	take_value(value, &v);
	if (expected != NULL)
		take_value(expected, &e);
	prepare_store(handle, k.len + v.len);
	OPERATE(handle, NXM_WRITE, true,
			nxm_map_put_if(SPACE, OBJECT(handle, map), &k,
						   expected != NULL ? &e : NULL, &v));
	check_result(handle, result);
	return result == NXM_OK;
}

/* room: size bytes of the caller's for the value, or for none of it. */
static inline __attribute__((always_inline)) bool
get_from_map(NxmHandle *handle, const char *key, size_t key_len, char *room,
			 size_t size, NxmApiValue *value)
{
	NxmResult	result;
	NxmKey		k;
	NxmBuffer	buffer;
	char	   *memory = NULL;

	check_handle(handle, NXM_KIND_MAP, NXM_API_READ);
	take_key(key, key_len, &k);
	if (size > 0)
	{
		buffer.size = size - 1;
		buffer.data = room;
	}
	else
	{
		/* most often it is as long as the one before, and so copied once */
		buffer.size = handle->site.size_hint;
		memory = buffer.data = palloc(buffer.size + 1);
	}
	READ_VALUE(handle, NXM_READ, &buffer, &memory,
			   nxm_map_get(SPACE, OBJECT(handle, map), &k, &buffer));
	if (unlikely(result != NXM_OK))
	{
		if (memory != NULL)
			pfree(memory);
		check_result(handle, result);
		return false;
	}
	if (size == 0)
		handle->site.size_hint = (uint32) Min(buffer.len, NXM_SHORT_VALUE);
	give_value(buffer.data, &buffer, value);
	return true;
}

static bool
api_map_get(NxmHandle *handle, const char *key, size_t key_len,
			NxmApiValue *value)
{
	return get_from_map(handle, key, key_len, NULL, 0, value);
}

static bool
api_map_read(NxmHandle *handle, const char *key, size_t key_len, char *room,
			 size_t size, NxmApiValue *value)
{
	return get_from_map(handle, key, key_len, room, room == NULL ? 0 : size, value);
}

static bool
api_map_delete(NxmHandle *handle, const char *key, size_t key_len)
{
	NxmResult	result;
	NxmKey		k;

	check_handle(handle, NXM_KIND_MAP, NXM_API_WRITE);
	take_key(key, key_len, &k);
	OPERATE(handle, NXM_WRITE, false,
			nxm_map_delete(SPACE, OBJECT(handle, map), &k));
	check_result(handle, result);
	return result == NXM_OK;
}

static int64
api_map_add(NxmHandle *handle, const char *key, size_t key_len, int64 delta)
{
	NxmResult	result;
	NxmKey		k;
	int64_t		sum = 0;

	check_handle(handle, NXM_KIND_MAP, NXM_API_WRITE);
	take_key(key, key_len, &k);
	prepare_store(handle, k.len + MAXINT8LEN);
	OPERATE(handle, NXM_WRITE, true,
			nxm_map_add(SPACE, OBJECT(handle, map), &k, delta, &sum));
	if (result == NXM_ABSENT)
		raise_undefined(handle);
	if (result == NXM_OVERFLOW)
		raise_overflow(handle);
	if (result == NXM_MISMATCH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("value of a key in map \"%s\" is not an integer",
						handle->name)));
	check_result(handle, result);
	return sum;
}

static uint64
api_map_size(NxmHandle *handle)
{
	NxmResult	result;
	uint64		n = 0;

	check_handle(handle, NXM_KIND_MAP, NXM_API_READ);
	OPERATE(handle, NXM_READ, false,
			(n = nxm_map_entries(OBJECT(handle, map)), NXM_STILL(&(handle)->site)));
	return result == NXM_OK ? n : 0;
}

static void
api_map_scan(NxmHandle *handle, NxmApiVisit visit, void *context)
{
	NxmResult	result;
	NxmEntries	scan;
	uint64		position = 0;
	bool		go_on = true;
	uint64		id = 0;

	check_handle(handle, NXM_KIND_MAP, NXM_API_READ);
	scan.size = 4096;
	scan.data = palloc(scan.size);
	do
	{
		NxmEntry	entry;
		uint64		at = position;
		size_t		done = 0;

		CHECK_FOR_INTERRUPTS();
		scan.used = 0;
		OPERATE(handle, NXM_READ, false,
				(at = position,
				 nxm_map_scan(SPACE, OBJECT(handle, map), &at, nxm_entries_begin,
							  nxm_entries_add, &scan)));
		if (result == NXM_NEED_BUFFER)
		{
			nxm_entries_enlarge(&scan);
			continue;
		}
		/* another map of that name: what was seen is the end of this one */
		if (position != 0 && handle->site.id != id)
			break;
		id = handle->site.id;
		position = at;
		while (go_on && nxm_entries_next(&scan, &done, &entry))
		{
			NxmApiValue value = {entry.value, entry.value_len, (NxmApiType) entry.type};

			go_on = visit(entry.key, entry.key_len, &value, context);
		}
	} while (go_on && (result == NXM_OK || result == NXM_NEED_BUFFER));
	pfree(scan.data);
}

/*
 * Stacks and queues
 */

static void
push(NxmHandle *handle, NxmKind kind, const NxmApiValue *value)
{
	NxmResult	result;
	NxmValue	v;

	check_handle(handle, kind, NXM_API_WRITE);
	take_value(value, &v);
	prepare_store(handle, sizeof(uint64) + v.len);
	OPERATE(handle, NXM_WRITE, true,
			kind == NXM_KIND_STACK ?
			nxm_stack_push(SPACE, OBJECT(handle, stack), &v) :
			nxm_queue_push(SPACE, OBJECT(handle, queue), &v));
	if (result == NXM_ABSENT)
		raise_undefined(handle);
	check_result(handle, result);
}

static bool
pop(NxmHandle *handle, NxmKind kind, NxmApiValue *value)
{
	NxmResult	result;
	NxmBuffer	buffer = {NULL, 0, FIRST_BUFFER, NXM_TEXT};
	char	   *memory = NULL;

	check_handle(handle, kind, NXM_API_WRITE);
	nxm_enlarge_buffer(&buffer, &memory, 0);
	READ_VALUE(handle, NXM_WRITE, &buffer, &memory,
			   kind == NXM_KIND_STACK ?
			   nxm_stack_pop(SPACE, OBJECT(handle, stack), -1, &buffer) :
			   nxm_queue_pop(SPACE, OBJECT(handle, queue), -1, &buffer));
	if (result != NXM_OK)
	{
		check_result(handle, result);
		pfree(memory);
		return false;
	}
	give_value(memory, &buffer, value);
	return true;
}

static uint64
count(NxmHandle *handle, NxmKind kind)
{
	NxmResult	result;
	uint64		n = 0;

	check_handle(handle, kind, NXM_API_READ);
	OPERATE(handle, NXM_READ, false,
			(n = kind == NXM_KIND_STACK ? nxm_stack_depth(OBJECT(handle, stack)) :
			 nxm_queue_length(OBJECT(handle, queue)), NXM_STILL(&(handle)->site)));
	return result == NXM_OK ? n : 0;
}

static void
api_stack_push(NxmHandle *handle, const NxmApiValue *value)
{
	push(handle, NXM_KIND_STACK, value);
}

static bool
api_stack_pop(NxmHandle *handle, NxmApiValue *value)
{
	return pop(handle, NXM_KIND_STACK, value);
}

static uint64
api_stack_depth(NxmHandle *handle)
{
	return count(handle, NXM_KIND_STACK);
}

static void
api_queue_push(NxmHandle *handle, const NxmApiValue *value)
{
	push(handle, NXM_KIND_QUEUE, value);
}

static bool
api_queue_pop(NxmHandle *handle, NxmApiValue *value)
{
	return pop(handle, NXM_KIND_QUEUE, value);
}

static uint64
api_queue_length(NxmHandle *handle)
{
	return count(handle, NXM_KIND_QUEUE);
}

static const NxmApi api = {
	.version = NXM_API_VERSION,
	.size = sizeof(NxmApi),
	.open = api_open,
	.close = api_close,
	.exists = api_exists,
	.drop = api_drop,
	.counter_add = api_counter_add,
	.counter_get = api_counter_get,
	.counter_set = api_counter_set,
	.map_put = api_map_put,
	.map_put_if = api_map_put_if,
	.map_get = api_map_get,
	.map_delete = api_map_delete,
	.map_add = api_map_add,
	.map_size = api_map_size,
	.map_scan = api_map_scan,
	.stack_push = api_stack_push,
	.stack_pop = api_stack_pop,
	.stack_depth = api_stack_depth,
	.queue_push = api_queue_push,
	.queue_pop = api_queue_pop,
	.queue_length = api_queue_length,
	.map_read = api_map_read,
};

/* The newest version of the interface; calling it is enough to load the library. */
int
nxm_api_version(void)
{
	return NXM_API_VERSION;
}

void
nxm_api_init(void)
{
	*find_rendezvous_variable(NXM_API_RENDEZVOUS) = (void *) &api;
}
