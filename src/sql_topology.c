/*
 * sql_topology.c
 *	  SQL functions about nodes and the processes on them.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes.h"
#include "scheduler.h"
#include "shmem.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(nxm_nodes);
PG_FUNCTION_INFO_V1(nxm_backend_nodes);
PG_FUNCTION_INFO_V1(nxm_my_node);
PG_FUNCTION_INFO_V1(nxm_pin_backend);
PG_FUNCTION_INFO_V1(nxm_unpin_backend);
PG_FUNCTION_INFO_V1(nxm_rebalance);

/* "0-3,8" of a set of CPUs */
static Datum
cpus_text(const NxmCpuSet *cpus)
{
	int			len = nxm_list_format(cpus->word, NXM_MAX_CPUS, NULL, 0);
	char	   *buf = palloc(len + 1);

	nxm_list_format(cpus->word, NXM_MAX_CPUS, buf, len + 1);
	return CStringGetTextDatum(buf);
}

/*
 * Free bytes of a node's own memories, divided by the nodes that share them as
 * memory_bytes is; -1 where it has none or they cannot be had.
 */
static int64
free_bytes_of(const NxmTopology *topo, const NxmNode *node)
{
	int64		sum = -1;

	if (!node->own_memory)
		return -1;
	for (int i = -1; (i = nxm_osnodeset_next(&node->mems, i)) >= 0;)
	{
		int64		bytes = nxm_seam_free_bytes(i);
		int			sharers = 0;

		for (int j = 0; j < topo->nnodes; j++)
			sharers += topo->node[j].own_memory &&
				nxm_osnodeset_has(&topo->node[j].mems, i);
		if (bytes >= 0)
			sum = Max(sum, 0) + bytes / sharers;
	}
	return sum;
}

Datum
nxm_nodes(PG_FUNCTION_ARGS)
{
	const NxmTopology *topo = nxm_topology();
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum	   *distances = palloc(sizeof(Datum) * topo->nnodes);

	InitMaterializedSRF(fcinfo, 0);
	nxm_scheduler_reconcile();
	for (int i = 0; i < topo->nnodes; i++)
	{
		const NxmNode *node = &topo->node[i];
		int64		free_bytes = free_bytes_of(topo, node);
		Datum		values[8];
		bool		nulls[8] = {false};

		for (int j = 0; j < topo->nnodes; j++)
			distances[j] = Int32GetDatum(node->distance[j]);
		values[0] = Int32GetDatum(i);
		values[1] = cpus_text(&node->cpus);
		values[2] = Int32GetDatum(node->cpu_count);
		values[3] = Int64GetDatum((int64) node->memory_bytes);
		values[4] = Int64GetDatum(free_bytes);
		nulls[4] = free_bytes < 0;
		values[5] = PointerGetDatum(construct_array(distances, topo->nnodes,
													INT4OID, sizeof(int32),
													true, TYPALIGN_INT));
		values[6] = CStringGetTextDatum(nxm_node_source_name(topo->source));
		values[7] = Int32GetDatum(nxm_scheduler_backends_on(i));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * The rule of the view backends, for whoever calls the function behind it:
 * everybody sees background processes, and others' sessions only with their
 * rights or those of pg_read_all_stats.
 */
static bool
may_see(const PGPROC *proc)
{
	Oid			role = proc->roleId;

	return !OidIsValid(role) || has_privs_of_role(GetUserId(), role) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

/*
 * One row for each of the pids that is a server process; the view joins them
 * to pg_stat_activity.
 */
Datum
nxm_backend_nodes(PG_FUNCTION_ARGS)
{
	ArrayType  *pids = PG_GETARG_ARRAYTYPE_P(0);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n = ArrayGetNItems(ARR_NDIM(pids), ARR_DIMS(pids));
	const int32 *pid = (const int32 *) ARR_DATA_PTR(pids);

	InitMaterializedSRF(fcinfo, 0);
	if (ARR_HASNULL(pids))
		n = 0;
	if (n > nxm_slot_count())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many processes: %d", n),
				 errdetail("This server has %d at most.",
						   nxm_slot_count()),
				 errhint("Use the view nexusmem.backends.")));
	for (int i = 0; i < n; i++)
	{
		PGPROC	   *proc = BackendPidGetProc(pid[i]);
		NxmHome		home = 0;
		NxmCpuSet	cpus;
		int			cpu;
		Datum		values[5];
		bool		nulls[5] = {false};

		if (proc == NULL)
			proc = AuxiliaryPidGetProc(pid[i]);
		/* nothing of the machine's other processes is told */
		if (proc == NULL || !may_see(proc))
			continue;
		if (nxm_shmem_available())
		{
			home = pg_atomic_read_u64(&nxm_slot(proc - ProcGlobal->allProcs)->home);
			if (NXM_HOME_PID(home) != pid[i])
				home = 0;
		}
		cpu = nxm_seam_cpu_of(pid[i]);
		values[0] = Int32GetDatum(pid[i]);
		values[1] = Int32GetDatum(NXM_HOME_NODE(home));
		nulls[1] = NXM_HOME_NODE(home) < 0;
		values[2] = CStringGetTextDatum(nxm_home_reason_name(NXM_HOME_REASON(home)));
		nulls[3] = nxm_seam_get_affinity(pid[i], &cpus) != 0;
		values[3] = nulls[3] ? (Datum) 0 : cpus_text(&cpus);
		values[4] = Int32GetDatum(cpu);
		nulls[4] = cpu < 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
nxm_my_node(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_INT32(nxm_scheduler_my_node());
}

Datum
nxm_pin_backend(PG_FUNCTION_ARGS)
{
	nxm_shmem_require("pin_backend()");
	PG_RETURN_BOOL(nxm_scheduler_pin(PG_GETARG_INT32(0), PG_GETARG_INT32(1)));
}

Datum
nxm_unpin_backend(PG_FUNCTION_ARGS)
{
	nxm_shmem_require("unpin_backend()");
	PG_RETURN_BOOL(nxm_scheduler_unpin(PG_GETARG_INT32(0)));
}

Datum
nxm_rebalance(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	nxm_shmem_require("rebalance()");
	PG_RETURN_INT32(nxm_scheduler_rebalance());
}
