/*
 * sql_predictor.c
 *	  SQL functions of the learned predictor.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/index.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "predictor_area.h"
#include "shmem.h"
#include "storage/block.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_sql_predictor_predict);
PG_FUNCTION_INFO_V1(nxm_sql_predictor_reset);

#define MOST_PREDICTIONS 32

/*
 * May the current user know which blocks of it were read?  As whoever may read the
 * table, or the table of the index; false too where there is none any more.
 */
static bool
may_see(Oid relid)
{
	Oid			table = relid;

	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return true;
	if (get_rel_relkind(relid) == RELKIND_INDEX)
		table = IndexGetRelation(relid, true);
	return OidIsValid(table) && get_rel_relkind(table) != '\0' &&
		pg_class_aclcheck(table, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/*
 * Takes no lock on the relation, as pg_relation_filenode() does not: asking
 * must not wait behind an ALTER TABLE.
 */
Datum
nxm_sql_predictor_predict(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			relid = PG_GETARG_OID(0);
	int64		block = PG_GETARG_INT64(1);
	char	   *name = get_rel_name(relid);
	NxmPrediction found[MOST_PREDICTIONS];
	NxmPredictor *predictor;
	NxmBlock	b;
	int			n;

	nxm_shmem_require("predictor_predict()");
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (!may_see(relid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for relation %s", name),
				 errhint("What the predictor knows of a table and its indexes is for roles with SELECT on it and for members of pg_read_all_stats.")));
	if (!RELKIND_HAS_STORAGE(get_rel_relkind(relid)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" has no blocks", name),
				 errhint("Name a table, a materialized view, or an index; of a partitioned one, a partition.")));
	if (block < 0 || block > MaxBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("block number " INT64_FORMAT " is out of range", block),
				 errdetail("Block numbers are 0 to %u.", MaxBlockNumber)));

	InitMaterializedSRF(fcinfo, 0);
	predictor = nxm_predictor_area();
	if (predictor == NULL)
		return (Datum) 0;
	b.database = MyDatabaseId;
	b.relation = relid;
	b.number = (uint32_t) block;
	n = nxm_predictor_lookup(predictor, b, MOST_PREDICTIONS, found);
	for (int i = 0; i < n; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		if (found[i].block.database != MyDatabaseId ||
			!may_see(found[i].block.relation))
			continue;
		values[0] = ObjectIdGetDatum(found[i].block.relation);
		values[1] = Int64GetDatum((int64) found[i].block.number);
		values[2] = Float4GetDatum(found[i].confidence);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
nxm_sql_predictor_reset(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	nxm_shmem_require("predictor_reset()");
	nxm_predictor_area_reset();
	PG_RETURN_VOID();
}
