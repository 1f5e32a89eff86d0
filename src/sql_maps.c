/*
 * sql_maps.c
 *	  SQL functions of maps.
 *
 * A map comes into being with the first key that is put into it; one that does
 * not exist is like one that is empty.
 *
 * A value is read into a buffer on the stack, and where it is longer, into the
 * result itself, as long as the map said it is; should it have grown meanwhile,
 * once more.
 *
 * Values are compared byte by byte: to map_put_if(), jsonb numbers that are
 * equal but written differently (1.0 and 1.00) are different.
 *
 * Limits: that a text which an extension stored is valid in the encoding is seen by
 * map_entries() alone; to map_get() it would cost too much for what should not be.
 */
#include "sql_structures.h"

#include "compat.h"
#include "core/pause.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(nxm_sql_map_delete);
PG_FUNCTION_INFO_V1(nxm_sql_map_add);
PG_FUNCTION_INFO_V1(nxm_sql_map_size);
PG_FUNCTION_INFO_V1(nxm_sql_map_entries);
PG_FUNCTION_INFO_V1(nxm_sql_map_clear);
PG_FUNCTION_INFO_V1(nxm_sql_map_drop);

/* What map_entries() reads of a bucket at first. */
#define ENTRIES_BUFFER (64 * 1024)

#define NAME_ARG() nxm_bytes_arg(fcinfo, 0, "name of a map", NULL)

static inline Datum
map_put(FunctionCallInfo fcinfo, NxmType type)
{
	NxmBytes	name = NAME_ARG();
	NxmKey		key = nxm_key_arg(fcinfo, 1);
	NxmValue	value = nxm_value_arg(fcinfo, 2, type,
									  "Use map_delete() to remove a key.");
	NxmSite    *site;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_WRITE, true);
		nxm_check_role_limit(site->owner,
							 key.len + value.len + NXM_ENTRY_OVERHEAD);
		NXM_OPERATE(site, r, nxm_map_put(nxm_registry_space,
										 &site->object->u.map, &key, &value));
	} while (NXM_AGAIN(r));
	PG_RETURN_BOOL(r == NXM_OK);
}

/* nxm_sql_map_put_text, nxm_sql_map_put_bytea, nxm_sql_map_put_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_map_put, map_put(fcinfo, type));

static inline Datum
map_get(FunctionCallInfo fcinfo, NxmType type)
{
	NxmBytes	name = NAME_ARG();
	NxmKey		key = nxm_key_arg(fcinfo, 1);
	NxmSite    *site;
	char		space[NXM_SHORT_VALUE];
	NxmBuffer	buffer = {space, sizeof(space), 0, NXM_TEXT};
	char	   *result = NULL;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_READ, false);
		if (site == NULL)
			PG_RETURN_NULL();
		NXM_OPERATE(site, r, nxm_map_get(nxm_registry_space,
										 &site->object->u.map, &key, &buffer));
	} while (nxm_read_again(r, &buffer, &result, VARHDRSZ));
	if (r == NXM_ABSENT)
		PG_RETURN_NULL();
	Assert(r == NXM_OK);
	if (unlikely(buffer.type != type))
	{
		NxmBytes	key_bytes = {key.data, key.len};

		nxm_wrong_type(NXM_KIND_MAP, name, &key_bytes, buffer.type, type,
					   "Use map_get%s().");
	}
	PG_RETURN_TEXT_P(nxm_buffer_datum(&buffer, result));
}

/* nxm_sql_map_get_text, nxm_sql_map_get_bytea, nxm_sql_map_get_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_map_get, map_get(fcinfo, type));

static Datum
map_put_if(FunctionCallInfo fcinfo, NxmType type)
{
	NxmBytes	name = NAME_ARG();
	NxmKey		key = nxm_key_arg(fcinfo, 1);
	bool		absent = PG_ARGISNULL(2);
	NxmValue	expected = {NULL, 0, type};
	NxmValue	value = nxm_value_arg(fcinfo, 3, type,
									  "Use map_delete() to remove a key.");
	NxmSite    *site;
	NxmResult	r;

	if (!absent)
	{
		NxmBytes	bytes = nxm_bytes_arg(fcinfo, 2, "value", NULL);

		/* nothing so long is in any map */
		if (bytes.len > NXM_MAX_VALUE)
			PG_RETURN_BOOL(false);
		expected.data = bytes.data;
		expected.len = (uint32) bytes.len;
	}
	do
	{
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_WRITE, absent);
		if (site == NULL)
			PG_RETURN_BOOL(false);
		nxm_check_role_limit(site->owner,
							 key.len + value.len + NXM_ENTRY_OVERHEAD);
		NXM_OPERATE(site, r, nxm_map_put_if(nxm_registry_space,
											&site->object->u.map, &key,
											absent ? NULL : &expected, &value));
	} while (NXM_AGAIN(r));
	PG_RETURN_BOOL(r == NXM_OK);
}

/* nxm_sql_map_put_if_text, nxm_sql_map_put_if_bytea, nxm_sql_map_put_if_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_map_put_if, map_put_if(fcinfo, type));

Datum
nxm_sql_map_delete(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	NxmKey		key = nxm_key_arg(fcinfo, 1);
	NxmSite    *site;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_WRITE, false);
		if (site == NULL)
			PG_RETURN_BOOL(false);
		NXM_OPERATE(site, r, nxm_map_delete(nxm_registry_space,
											&site->object->u.map, &key));
	} while (NXM_AGAIN(r));
	PG_RETURN_BOOL(r == NXM_OK);
}

/* The value that map_add() found is no integer: says what it is. */
_Noreturn static void
not_a_number(NxmSite *site, NxmBytes name, const NxmKey *key)
{
	char		space[NXM_SHORT_VALUE];
	NxmBuffer	buffer = {space, sizeof(space), 0, NXM_TEXT};
	NxmBytes	key_bytes = {key->data, key->len};
	NxmResult	r;

	NXM_OPERATE(site, r, nxm_map_get(nxm_registry_space, &site->object->u.map,
									 key, &buffer));
	if (r == NXM_OK && buffer.type != NXM_TEXT)
		nxm_wrong_type(NXM_KIND_MAP, name, &key_bytes, buffer.type, NXM_TEXT,
					   "map_add() adds to decimal numbers in text.");
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("value of key \"%.*s\" in map \"%.*s\" is not an integer",
					(int) key->len, key->data, (int) name.len, name.data),
			 errhint("map_add() adds to decimal numbers that fit in a bigint.")));
}

Datum
nxm_sql_map_add(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	NxmKey		key = nxm_key_arg(fcinfo, 1);
	int64		delta = nxm_int8_arg(fcinfo, 2, "delta");
	NxmSite    *site;
	int64		value = 0;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_WRITE, true);
		nxm_check_role_limit(site->owner, key.len + NXM_ENTRY_OVERHEAD);
		NXM_OPERATE(site, r, nxm_map_add(nxm_registry_space,
										 &site->object->u.map, &key, delta,
										 &value));
	} while (NXM_AGAIN(r));
	if (unlikely(r == NXM_MISMATCH))
		not_a_number(site, name, &key);
	if (unlikely(r == NXM_OVERFLOW))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("value of key \"%.*s\" in map \"%.*s\" is out of range",
						(int) key.len, key.data, (int) name.len, name.data),
				 errdetail("The sum would not fit in a bigint.")));
	PG_RETURN_INT64(value);
}

Datum
nxm_sql_map_size(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	NxmSite    *site;
	uint64		n = 0;
	NxmResult	r;

	do
	{
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_READ, false);
		if (site == NULL)
			PG_RETURN_INT64(0);
		NXM_OPERATE(site, r,
					(n = nxm_map_entries(&site->object->u.map), NXM_STILL(site)));
	} while (NXM_AGAIN(r));
	PG_RETURN_INT64((int64) n);
}

static inline bool
is_text(const char *data, size_t len)
{
	return pg_verify_mbstr(GetDatabaseEncoding(), data, (int) len, true);
}

/* An entry has no text form: what is wrong is its key, or else its value. */
_Noreturn static void
not_text(NxmBytes name, const char *key, size_t key_len)
{
	if (!is_text(key, key_len))
	{
		char	   *hex = palloc0(2 * key_len + 1);

		(void) hex_encode(key, key_len, hex);
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("key in map \"%.*s\" is not valid text in encoding \"%s\"",
						(int) name.len, name.data, GetDatabaseEncodingName()),
				 errdetail("Its bytes are \\x%s.", hex),
				 errhint("An extension put it there through the C interface, by which alone it can be read or deleted.")));
	}
	ereport(ERROR,
			(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
			 errmsg("value of key \"%.*s\" in map \"%.*s\" is not valid text in encoding \"%s\"",
					(int) key_len, key, (int) name.len, name.data,
					GetDatabaseEncodingName()),
			 errhint("An extension put it there through the C interface.")));
}

Datum
nxm_sql_map_entries(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	NxmBytes	name = NAME_ARG();
	NxmSite    *site;
	NxmEntries	all;
	uint64		id = 0;
	uint64		position = 0;
	MemoryContext row_context;
	MemoryContext old_context;
	NxmResult	r;

	InitMaterializedSRF(fcinfo, 0);
	row_context = AllocSetContextCreate(CurrentMemoryContext,
										"nexusmem map_entries",
										ALLOCSET_DEFAULT_SIZES);
	all.size = ENTRIES_BUFFER;
	all.data = palloc(all.size);
	do
	{
		NxmEntry	entry;
		size_t		done = 0;
		uint64		at;

		CHECK_FOR_INTERRUPTS();
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_READ, false);
		if (site == NULL)
			break;
		/* dropped and made anew: that is another map */
		if (id == 0)
			id = site->id;
		else if (id != site->id)
			break;

		at = position;
		all.used = 0;
		NXM_OPERATE(site, r, nxm_map_scan(nxm_registry_space,
										  &site->object->u.map, &at,
										  nxm_entries_begin, nxm_entries_add, &all));
		if (r == NXM_NEED_BUFFER)
		{
			nxm_entries_enlarge(&all);
			continue;
		}
		if (NXM_AGAIN(r))
		{
			r = NXM_OK;
			continue;
		}
		position = at;
		while (nxm_entries_next(&all, &done, &entry))
		{
			Datum		values[2];
			bool		nulls[2] = {false, false};

			if (unlikely(!is_text(entry.key, entry.key_len) ||
						 (entry.type == NXM_TEXT &&
						  !is_text(entry.value, entry.value_len))))
				not_text(name, entry.key, entry.key_len);
			old_context = MemoryContextSwitchTo(row_context);
			values[0] = PointerGetDatum(cstring_to_text_with_len(entry.key,
																 (int) entry.key_len));
			values[1] = nxm_value_as_text(entry.value, entry.value_len, entry.type);
			MemoryContextSwitchTo(old_context);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 nulls);
			MemoryContextReset(row_context);
		}
	} while (r == NXM_OK || r == NXM_NEED_BUFFER);
	MemoryContextDelete(row_context);
	pfree(all.data);
	return (Datum) 0;
}

/*
 * In a section, where no signal comes between.  A note made before may be taken
 * by somebody who then finds nothing cleared yet.
 */
static NxmResult
clear(NxmMap *map, uint64 *removed)
{
	NxmResult	r = nxm_map_clear(nxm_registry_space, map, removed);

	if (r == NXM_OK)
		nxm_registry_note_clear();
	return r;
}

Datum
nxm_sql_map_clear(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();
	NxmSite    *site;
	uint64		removed = 0;
	bool		cleared = false;
	long		wait = 1;		/* ms */
	NxmResult	r;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		site = nxm_open(fcinfo, NXM_KIND_MAP, name, NXM_WRITE, false);
		if (site == NULL)
			break;
		if (!cleared)
		{
			NXM_OPERATE(site, r, clear(&site->object->u.map, &removed));
			if (NXM_AGAIN(r))
				continue;
			cleared = r == NXM_OK;
			NXM_PAUSE("cleared");
		}
		/* ours, or one under way that ours has to wait for */
		NXM_OPERATE(site, r, nxm_map_drain(nxm_registry_space,
										   &site->object->u.map));
		if (r == NXM_DROPPED && cleared)
			break;
		if (!NXM_AGAIN(r) && r == NXM_ABSENT)
		{
			if (cleared)
				break;

			/*
			 * Nothing is being drained, so somebody else is cutting it off, and may
			 * have been stopped there.
			 */
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 wait, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			wait = Min(wait * 2, 10);
		}
	}
	if (cleared)
	{
		/* each of the last items may keep a page: none for later */
		nxm_begin_operation();
		nxm_flush(nxm_registry_space);
		nxm_give_back(nxm_registry_space);
		nxm_end_operation();
	}
	/* 0: it was dropped before it could be cleared */
	PG_RETURN_INT64(cleared ? (int64) removed : 0);
}

Datum
nxm_sql_map_drop(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG();

	PG_RETURN_BOOL(nxm_object_drop(NXM_KIND_MAP, name.data, name.len));
}
