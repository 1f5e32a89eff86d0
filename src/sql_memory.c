/*
 * sql_memory.c
 *	  The view nexusmem.node_memory.
 */
#include "postgres.h"

#include "arena.h"
#include "core/cache.h"
#include "fmgr.h"
#include "funcapi.h"
#include "predictor_area.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_node_memory);

/* 1 GB, in pages of 64 kB; asking about it takes some tenths of a second. */
#define MAX_PAGES 16384

Datum
nxm_node_memory(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	NxmNodeMemory *memory = palloc(sizeof(NxmNodeMemory) * NXM_NODE_MEMORIES);
	int			n = nxm_arena_measure(memory, MAX_PAGES);
	NxmPredictorAreaMemory predictor;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		const NxmNodeMemory *m = &memory[i];
		bool		asked = m->asked || m->reserved == 0;
		bool		told = m->node >= 0 && (m->told || m->reserved == 0);
		Datum		values[6] = {
			Int32GetDatum(m->node),
			CStringGetTextDatum(m->account == NXM_CACHE_ACCOUNT ? "caches" : "structures"),
			Int64GetDatum((int64) m->reserved),
			Int64GetDatum((int64) m->used),
			Int64GetDatum((int64) m->on_node),
			Int64GetDatum((int64) m->resident)
		};
		bool		nulls[6] = {m->node < 0, false, false, false, !told, !asked};

		/* what is bound to no node is for caches, and lent seldom */
		if (m->node < 0 && m->account != NXM_CACHE_ACCOUNT && m->reserved == 0 &&
			m->used == 0)
			continue;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	if (nxm_predictor_area_memory(&predictor))
	{
		Datum		values[6] = {
			0,
			CStringGetTextDatum("learned sequences"),
			Int64GetDatum((int64) predictor.bytes),
			Int64GetDatum((int64) predictor.bytes),
			0,
			Int64GetDatum((int64) predictor.resident)
		};
		bool		nulls[6] = {true, false, false, false, true, !predictor.asked};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
