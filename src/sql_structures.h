/*
 * sql_structures.h
 *	  What the SQL functions of counters, maps, stacks and queues share: taking
 *	  arguments, running an operation, returning values.  The C interface has some of it, too.
 *
 * The functions are not STRICT, since a NULL is an error and not a NULL result.
 */
#ifndef NXM_SQL_STRUCTURES_H
#define NXM_SQL_STRUCTURES_H

#include "compat.h"
#include "registry.h"

typedef struct NxmBytes
{
	const char *data;
	size_t		len;
} NxmBytes;

/* Bytes of memory that an entry takes besides its key and value, about. */
#define NXM_ENTRY_OVERHEAD 32

/* Values of maps up to this length are read in one go, into a buffer on the stack. */
#define NXM_SHORT_VALUE 1024

/*
 * Sets result to what an operation says of the object of *site, or to
 * NXM_DROPPED.  To be repeated, with the object opened anew, while NXM_AGAIN().
 */
#define NXM_OPERATE(site, result, operation) \
	do { \
		NxmSpace   *space_ = nxm_registry_space; \
\
		nxm_begin_operation(); \
		nxm_enter(space_); \
		(result) = nxm_object_valid(site) ? (operation) : NXM_DROPPED; \
		nxm_leave(space_); \
		nxm_end_operation(); \
	} while (0)

/*
 * In the section, after an operation that does not say NXM_DROPPED itself: were parts of
 * the object freed before it, or while it ran?  The fence is for what it loaded relaxed.
 */
#define NXM_STILL(site) (nxm_fence(), nxm_object_valid(site) ? NXM_OK : NXM_DROPPED)

#define NXM_AGAIN(result) \
	(unlikely((result) == NXM_DROPPED) || nxm_again(nxm_registry_space, (result)))

/*
 * Makes the SQL functions name_text, name_bytea and name_jsonb.  Each returns call, an
 * expression with fcinfo and with type, which is a constant there.  A comment above each use
 * names the three, so that they are found.
 */
#define NXM_SQL_BY_TYPE(name, call) \
	NXM_SQL_OF_TYPE(name##_text, NXM_TEXT, call) \
	NXM_SQL_OF_TYPE(name##_bytea, NXM_BYTEA, call) \
	NXM_SQL_OF_TYPE(name##_jsonb, NXM_JSONB, call) \
	extern int	no_such_variable
#define NXM_SQL_OF_TYPE(name, its_type, call) \
PG_FUNCTION_INFO_V1(name); \
Datum \
name(PG_FUNCTION_ARGS) \
{ \
	const NxmType type = its_type; \
\
	return call; \
}

/* nxm_object_open() of a name that is an argument */
static inline NxmSite *
nxm_open(FunctionCallInfo fcinfo, NxmKind kind, NxmBytes name,
		 NxmPrivilege privilege, bool create)
{
	return nxm_object_open(fcinfo, kind, name.data, name.len, privilege, create);
}

/* what: "name of a map must not be null" and the like */
_Noreturn extern void nxm_null_argument(const char *what, const char *hint);
_Noreturn extern void nxm_bad_key(size_t len);
_Noreturn extern void nxm_value_too_long(size_t len);
/*
 * The type that a value has is not the one that was asked for.  hint: with a %s for
 * what the names of the functions for that type end in.
 */
_Noreturn extern void nxm_wrong_type(NxmKind kind, NxmBytes name, const NxmBytes *key,
						   NxmType is, NxmType wanted, const char *hint);
/* A value in its text form, as a text datum. */
extern Datum nxm_value_as_text(const char *data, size_t len, NxmType type);

static inline void
nxm_check_key(size_t len)
{
	if (unlikely(len == 0 || len > NXM_MAX_KEY))
		nxm_bad_key(len);
}

/*
 * Makes room for buffer->len bytes in the current context, behind so many for a
 * header and with one to spare.  *memory: the room that there was, or NULL.
 */
extern void nxm_enlarge_buffer(NxmBuffer *buffer, char **memory, size_t header);

/*
 * NXM_AGAIN() of what reads a value into a buffer, which is enlarged where it was
 * short.  The value may have grown again by the next time.
 */
static inline bool
nxm_read_again(NxmResult result, NxmBuffer *buffer, char **memory,
			   size_t header)
{
	if (likely(result == NXM_OK))
		return false;
	if (result != NXM_NEED_BUFFER)
		return NXM_AGAIN(result);
	nxm_enlarge_buffer(buffer, memory, header);
	return true;
}

/*
 * The datum of what was read into a buffer.  memory: what nxm_enlarge_buffer() made, with
 * VARHDRSZ for a header; NULL: the buffer's room was enough, and is the caller's.
 */
static inline text *
nxm_buffer_datum(const NxmBuffer *buffer, char *memory)
{
	if (memory == NULL)
	{
		memory = palloc(VARHDRSZ + buffer->len);
		memcpy(VARDATA(memory), buffer->data, buffer->len);
	}
	SET_VARSIZE(memory, VARHDRSZ + buffer->len);
	return (text *) memory;
}

/* Of an entry that a scan has copied: behind it are the key, 0, the value, 0. */
typedef struct NxmEntryHead
{
	uint32		key_len;
	uint32		value_len;
	NxmType		type;
} NxmEntryHead;

/* The entries of a map's bucket, one behind another; allocated. */
typedef struct NxmEntries
{
	char	   *data;
	size_t		size;
	size_t		used;
	size_t		need;			/* when size was not enough: NXM_NEED_BUFFER */
} NxmEntries;

typedef struct NxmEntry
{
	const char *key;
	const char *value;
	size_t		key_len;
	size_t		value_len;
	NxmType		type;
} NxmEntry;

/* For nxm_map_scan(), with NxmEntries as its context. */
extern void nxm_entries_begin(void *context);
extern NxmResult nxm_entries_add(NxmSpace *space, NxmRef ref, const NxmItem *item,
								 void *context);
/* After NXM_NEED_BUFFER; in the current context, and what there was is freed. */
extern void nxm_entries_enlarge(NxmEntries *entries);

/* Takes the entry at *at, which is 0 at first; false: there are no more. */
static inline bool
nxm_entries_next(const NxmEntries *entries, size_t *at, NxmEntry *entry)
{
	NxmEntryHead head;

	if (*at >= entries->used)
		return false;
	memcpy(&head, entries->data + *at, sizeof(head));
	entry->key = entries->data + *at + sizeof(head);
	entry->key_len = head.key_len;
	entry->value = entry->key + head.key_len + 1;
	entry->value_len = head.value_len;
	entry->type = head.type;
	*at += sizeof(head) + entry->key_len + entry->value_len + 2;
	return true;
}

/* A text, bytea or jsonb argument, detoasted.  None may be done in a section. */
static inline NxmBytes
nxm_bytes_arg(FunctionCallInfo fcinfo, int n, const char *what,
			  const char *hint)
{
	NxmBytes	bytes;
	text	   *t;

	if (unlikely(PG_ARGISNULL(n)))
		nxm_null_argument(what, hint);
	t = PG_GETARG_TEXT_PP(n);
	bytes.data = VARDATA_ANY(t);
	bytes.len = VARSIZE_ANY_EXHDR(t);
	return bytes;
}

/* The key of these bytes; raises an error if there are none, or too many. */
static inline NxmKey
nxm_key(NxmBytes bytes)
{
	NxmKey		key;

	nxm_check_key(bytes.len);
	key.data = bytes.data;
	key.len = (uint32) bytes.len;
	key.hash = nxm_hash(bytes.data, bytes.len);
	return key;
}

static inline NxmKey
nxm_key_arg(FunctionCallInfo fcinfo, int n)
{
	return nxm_key(nxm_bytes_arg(fcinfo, n, "key", NULL));
}

static inline int64
nxm_int8_arg(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (unlikely(PG_ARGISNULL(n)))
		nxm_null_argument(what, NULL);
	return PG_GETARG_INT64(n);
}

static inline NxmValue
nxm_value_arg(FunctionCallInfo fcinfo, int n, NxmType type, const char *hint)
{
	NxmBytes	bytes = nxm_bytes_arg(fcinfo, n, "value", hint);
	NxmValue	value;

	if (unlikely(bytes.len > NXM_MAX_VALUE))
		nxm_value_too_long(bytes.len);
	value.data = bytes.data;
	value.len = (uint32) bytes.len;
	value.type = type;
	return value;
}

#endif							/* NXM_SQL_STRUCTURES_H */
