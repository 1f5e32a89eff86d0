/*
 * sql_buffers.c
 *	  SQL functions about where buffers lie.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "buffer_nodes.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_tablespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_shared_buffers_nodes);
PG_FUNCTION_INFO_V1(nxm_relation_nodes);

static void
put_rows(FunctionCallInfo fcinfo, const NxmBufferNodes *found)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i <= NXM_MAX_NODES; i++)
	{
		const NxmBufferCount *c = &found->node[i];
		bool		unknown = i == NXM_NODE_UNKNOWN;
		Datum		values[6];
		bool		nulls[6] = {false};

		/* a row for each node, and one for "unknown" if there is any */
		if (unknown ? c->bytes == 0 : i >= nxm_topology()->nnodes)
			continue;
		values[0] = Int32GetDatum(i);
		nulls[0] = unknown;
		values[1] = Int64GetDatum((int64) rint(c->buffers));
		values[2] = Int64GetDatum((int64) rint(c->bytes));
		values[3] = Int64GetDatum((int64) rint(c->dirty));
		values[4] = Int64GetDatum((int64) rint(c->split));
		values[5] = Int32GetDatum(found->sampling);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

Datum
nxm_shared_buffers_nodes(PG_FUNCTION_ARGS)
{
	NxmBufferNodes *found = palloc(sizeof(NxmBufferNodes));

	nxm_buffer_nodes(found, NULL);
	put_rows(fcinfo, found);
	return (Datum) 0;
}

/*
 * Takes no lock on the relation, as pg_relation_filenode() does not: asking
 * must not wait behind an ALTER TABLE.
 */
Datum
nxm_relation_nodes(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	NxmBufferNodes *found = palloc(sizeof(NxmBufferNodes));
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	NxmLocator	locator;
	Form_pg_class rel;
	NxmFileNumber number;

	/* dropped since the caller's snapshot of pg_class, maybe: no error */
	if (!HeapTupleIsValid(tuple))
	{
		InitMaterializedSRF(fcinfo, 0);
		return (Datum) 0;
	}
	rel = (Form_pg_class) GETSTRUCT(tuple);
	if (!RELKIND_HAS_STORAGE(rel->relkind))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" has no blocks", NameStr(rel->relname)),
				 errhint("Name a table, a materialized view, an index, or a sequence; of a partitioned one, a partition.")));
	if (rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" is temporary", NameStr(rel->relname)),
				 errdetail("Its blocks are in memory of its session, not in shared_buffers.")));
	number = rel->relfilenode;
	if (number == 0)
		number = nxm_mapped_file_number(relid, rel->relisshared);
	nxm_make_locator(&locator,
					 rel->relisshared ? GLOBALTABLESPACE_OID :
					 OidIsValid(rel->reltablespace) ?
					 rel->reltablespace : MyDatabaseTableSpace,
					 rel->relisshared ? InvalidOid : MyDatabaseId,
					 number);
	ReleaseSysCache(tuple);
	nxm_buffer_nodes(found, &locator);
	put_rows(fcinfo, found);
	return (Datum) 0;
}
