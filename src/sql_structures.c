/*
 * sql_structures.c
 *	  What all kinds of structures have in common in SQL: sharing, the views
 *	  structures and sharing, values, and the errors of arguments.
 */
#include "sql_structures.h"

#include "arena_chunks.h"
#include "catalog/pg_authid.h"
#include "compat.h"
#include "funcapi.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_share);
PG_FUNCTION_INFO_V1(nxm_unshare);
PG_FUNCTION_INFO_V1(nxm_structures);
PG_FUNCTION_INFO_V1(nxm_sharing);

void
nxm_null_argument(const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must not be null", what),
			 hint == NULL ? 0 : errhint("%s", hint)));
}

void
nxm_bad_key(size_t len)
{
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must not be empty")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key is too long"),
			 errdetail("It has %zu bytes; at most %d are allowed.", len,
					   NXM_MAX_KEY)));
}

void
nxm_value_too_long(size_t len)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("value is too long"),
			 errdetail("It has %zu bytes; at most %d are allowed.", len,
					   NXM_MAX_VALUE)));
}

void
nxm_enlarge_buffer(NxmBuffer *buffer, char **memory, size_t header)
{
	if (*memory != NULL)
		pfree(*memory);
	*memory = palloc(header + buffer->len + 1);
	buffer->data = *memory + header;
	buffer->size = buffer->len;
}

void
nxm_entries_begin(void *context)
{
	((NxmEntries *) context)->used = 0;
}

NxmResult
nxm_entries_add(NxmSpace *space, NxmRef ref, const NxmItem *item, void *context)
{
	NxmEntries *entries = context;
	NxmEntryHead head;
	NxmBuffer	buffer;
	NxmResult	r;
	char	   *p = entries->data + entries->used;

	(void) ref;
	head.key_len = NXM_ITEM_KEY_LEN(item->header);
	head.value_len = NXM_ITEM_LEN(item->header);
	head.type = NXM_ITEM_TYPE(item->header);
	entries->need = entries->used + sizeof(head) + head.key_len + head.value_len + 2;
	if (entries->need > entries->size)
		return NXM_NEED_BUFFER;
	memcpy(p, &head, sizeof(head));
	p += sizeof(head);
	nxm_copy_out(p, nxm_item_key(item), head.key_len);
	p += head.key_len;
	*p++ = '\0';
	buffer.data = p;
	buffer.size = head.value_len;
	r = nxm_item_copy(space, item, &buffer);
	if (r != NXM_OK)
		return r;
	p[head.value_len] = '\0';
	entries->used = entries->need;
	return NXM_OK;
}

void
nxm_entries_enlarge(NxmEntries *entries)
{
	pfree(entries->data);
	entries->size = Max(entries->need, entries->size * 2);
	entries->data = MemoryContextAllocHuge(CurrentMemoryContext, entries->size);
}

static const char *
type_name(NxmType type)
{
	switch (type)
	{
		case NXM_TEXT:
			return "text";
		case NXM_BYTEA:
			return "bytea";
		case NXM_JSONB:
			return "jsonb";
		case NXM_INTERNAL:
			break;
	}
	return "internal";
}

void
nxm_wrong_type(NxmKind kind, NxmBytes name, const NxmBytes *key, NxmType is,
			   NxmType wanted, const char *hint)
{
	const char *suffix = is == NXM_BYTEA ? "_bytea" :
		is == NXM_JSONB ? "_jsonb" : "";

	if (key != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("value of key \"%.*s\" in %s \"%.*s\" is of type %s, not %s",
						(int) key->len, key->data, nxm_kind_name(kind),
						(int) name.len, name.data, type_name(is),
						type_name(wanted)),
				 errhint(hint, suffix)));
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("next value of %s \"%.*s\" is of type %s, not %s",
					nxm_kind_name(kind), (int) name.len, name.data,
					type_name(is), type_name(wanted)),
			 errhint(hint, suffix)));
}

Datum
nxm_value_as_text(const char *data, size_t len, NxmType type)
{
	char	   *copy;
	Datum		result;

	if (type == NXM_TEXT)
		return PointerGetDatum(cstring_to_text_with_len(data, (int) len));

	/* aligned, and with a header */
	copy = palloc(VARHDRSZ + len);
	SET_VARSIZE(copy, VARHDRSZ + len);
	memcpy(VARDATA(copy), data, len);
	if (type == NXM_JSONB)
	{
		Jsonb	   *jsonb = (Jsonb *) copy;

		result = CStringGetTextDatum(JsonbToCString(NULL, &jsonb->root,
													(int) len));
	}
	else
		result = CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(byteaout,
																		 PointerGetDatum(copy))));
	pfree(copy);
	return result;
}

/* share() and unshare(): kind, name, role, privilege */
static bool
change_sharing(FunctionCallInfo fcinfo, bool grant)
{
	NxmBytes	kind_name = nxm_bytes_arg(fcinfo, 0, "kind", NULL);
	NxmBytes	name = nxm_bytes_arg(fcinfo, 1, "name", NULL);
	Oid			role = InvalidOid;
	uint32		privileges = NXM_READ | NXM_WRITE;
	int			kind = nxm_kind_of_name(kind_name.data, kind_name.len);

	if (kind < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized kind of structure \"%.*s\"",
						(int) kind_name.len, kind_name.data),
				 errhint("Kinds are counter, map, stack, queue and cache.")));
	if (!PG_ARGISNULL(2))
	{
		role = PG_GETARG_OID(2);
		/* 0, "-" as a regrole, must not come to mean everyone */
		if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("role with OID %u does not exist", role),
					 errhint("NULL means everyone.")));
	}
	if (grant || !PG_ARGISNULL(3))
	{
		NxmBytes	privilege = nxm_bytes_arg(fcinfo, 3, "privilege", NULL);

		if (privilege.len == 4 && memcmp(privilege.data, "read", 4) == 0)
			privileges = NXM_READ;
		else if (privilege.len == 5 && memcmp(privilege.data, "write", 5) == 0)
			privileges = NXM_WRITE;
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized privilege \"%.*s\"",
							(int) privilege.len, privilege.data),
					 errhint("Privileges are read and write.")));
	}
	return nxm_object_share((NxmKind) kind, name.data, name.len, role,
							privileges, grant);
}

Datum
nxm_share(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change_sharing(fcinfo, true));
}

Datum
nxm_unshare(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change_sharing(fcinfo, false));
}

/* Of the views structures and sharing. */
typedef struct StructuresContext
{
	ReturnSetInfo *rsinfo;
	bool		all;
} StructuresContext;

static bool
is_shown(const NxmObjectInfo *info, const StructuresContext *c)
{
	return info->database == MyDatabaseId &&
		(c->all || nxm_object_privileges(GetUserId(), info->owner, &info->acl) != 0);
}

static void
put_structure(const NxmObjectInfo *info, void *context)
{
	StructuresContext *c = context;
	NxmObjectSums sums;
	Datum		values[6];
	bool		nulls[6] = {false, false, false, info->node < 0, false, false};

	if (!is_shown(info, c) || !nxm_object_sums(info, &sums))
		return;
	values[0] = CStringGetTextDatum(nxm_kind_name(info->kind));
	values[1] = PointerGetDatum(cstring_to_text_with_len(info->name,
														 (int) info->name_len));
	values[2] = ObjectIdGetDatum(info->owner);
	values[3] = Int32GetDatum(nulls[3] ? 0 : nxm_space_node_first(info->node));
	values[4] = Int64GetDatum((int64) sums.entries);
	values[5] = Int64GetDatum((int64) sums.bytes);
	tuplestore_putvalues(c->rsinfo->setResult, c->rsinfo->setDesc, values,
						 nulls);
	/* of as many structures as there are */
	pfree(DatumGetPointer(values[0]));
	pfree(DatumGetPointer(values[1]));
}

static void
put_sharing(const NxmObjectInfo *info, void *context)
{
	StructuresContext *c = context;
	Datum		values[4];
	bool		nulls[4] = {false};

	if (info->acl.count == 0 || !is_shown(info, c))
		return;
	values[0] = CStringGetTextDatum(nxm_kind_name(info->kind));
	values[1] = PointerGetDatum(cstring_to_text_with_len(info->name,
														 (int) info->name_len));
	for (uint32 i = 0; i < info->acl.count; i++)
	{
		values[2] = ObjectIdGetDatum(info->acl.entry[i].role);
		nulls[2] = !OidIsValid(info->acl.entry[i].role);
		for (uint32 privilege = NXM_READ; privilege <= NXM_WRITE; privilege *= 2)
		{
			if ((info->acl.entry[i].privileges & privilege) == 0)
				continue;
			values[3] = CStringGetTextDatum(privilege == NXM_READ ? "read" : "write");
			tuplestore_putvalues(c->rsinfo->setResult, c->rsinfo->setDesc,
								 values, nulls);
			pfree(DatumGetPointer(values[3]));
		}
	}
	pfree(DatumGetPointer(values[0]));
	pfree(DatumGetPointer(values[1]));
}

static Datum
put_all(FunctionCallInfo fcinfo, void (*put) (const NxmObjectInfo *info, void *context))
{
	StructuresContext c;

	c.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	c.all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	InitMaterializedSRF(fcinfo, 0);
	nxm_registry_use();
	nxm_registry_scan(put, &c);
	return (Datum) 0;
}

Datum
nxm_structures(PG_FUNCTION_ARGS)
{
	return put_all(fcinfo, put_structure);
}

Datum
nxm_sharing(PG_FUNCTION_ARGS)
{
	return put_all(fcinfo, put_sharing);
}
