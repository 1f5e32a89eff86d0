/*
 * stats.c
 *	  SQL functions of the statistics views.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "prefetch_stats.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_stat_prefetch);
PG_FUNCTION_INFO_V1(nxm_stat_prefetch_reset);
PG_FUNCTION_INFO_V1(nxm_session_prefetch_stats);

static void
put_stats(Datum *values, const int64 stat[NXM_NUM_PREFETCH_STATS])
{
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		values[i] = Int64GetDatum(stat[i]);
}

Datum
nxm_stat_prefetch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			nrows;
	NxmPrefetchRow *rows = nxm_prefetch_rows(&nrows);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < nrows; i++)
	{
		Datum		values[3 + NXM_NUM_PREFETCH_STATS];
		bool		nulls[3 + NXM_NUM_PREFETCH_STATS] = {false};

		values[0] = ObjectIdGetDatum(rows[i].database);
		values[1] = ObjectIdGetDatum(rows[i].relation);
		values[2] = CStringGetTextDatum(nxm_prefetch_kind_name(rows[i].kind));
		put_stats(&values[3], rows[i].stat);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
nxm_session_prefetch_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int kind = 0; kind < NXM_NUM_PREFETCH_KINDS; kind++)
	{
		int64		stat[NXM_NUM_PREFETCH_STATS];
		Datum		values[1 + NXM_NUM_PREFETCH_STATS];
		bool		nulls[1 + NXM_NUM_PREFETCH_STATS] = {false};

		nxm_session_prefetch(kind, stat);
		values[0] = CStringGetTextDatum(nxm_prefetch_kind_name(kind));
		put_stats(&values[1], stat);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
nxm_stat_prefetch_reset(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	nxm_prefetch_stats_reset();
	PG_RETURN_VOID();
}
