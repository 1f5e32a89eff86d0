/*
 * nodes.c
 *	  Finds the topology once and keeps it.
 *
 * The postmaster does so while it preloads the library, before it touches any
 * affinity, so that "allowed" means what the server was started with.  Its
 * children inherit the result by fork; nothing of it is in shared memory and
 * nothing changes it.  A process that loaded the library by itself finds out
 * on first use, with the built-in settings: postmaster-level settings cannot
 * be defined then.
 *
 * Limits: CPUs and memories that come or go while the server runs change nothing
 * until a restart; of CPUs status tells.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes.h"
#include "utils/guc.h"
#include "utils/memutils.h"

static int	num_nodes = 0;
static int	node_source = NXM_SOURCE_AUTO;

static const struct config_enum_entry node_source_options[] = {
	{"auto", NXM_SOURCE_AUTO, false},
	{"numa", NXM_SOURCE_NUMA, false},
	{"cache", NXM_SOURCE_CACHE, false},
	{"even", NXM_SOURCE_EVEN, false},
	{NULL, 0, false}
};

static NxmTopology *topology = NULL;

static void
find_topology(void)
{
	NxmTopology *topo = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(NxmTopology));
	NxmHardware *hw = MemoryContextAllocZero(TopMemoryContext,
											 sizeof(NxmHardware));
	NxmCpuSet	cpus;
	NxmOsNodeSet mems;

	(void) nxm_seam_allowed(&cpus, &mems);
	(void) nxm_seam_hardware(hw, &cpus);
	nxm_topology_build(topo, hw, &cpus, &mems, node_source, num_nodes);
	pfree(hw);
	topology = topo;
}

const NxmTopology *
nxm_topology(void)
{
	if (topology == NULL)
		find_topology();
	return topology;
}

void
nxm_check_backend_node(int node)
{
	const NxmTopology *topo = nxm_topology();

	if (node < 0 || node >= topo->nnodes)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("node %d does not exist", node),
				 errdetail("Nodes are numbered from 0 to %d.",
						   topo->nnodes - 1),
				 errhint("See the view nexusmem.nodes, or set nexusmem.num_nodes.")));
	if (topo->node[node].cpu_count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("node %d has no CPUs", node),
				 errdetail("It takes memory and no backends."),
				 errhint("See the column cpus of the view nexusmem.nodes.")));
}

void
nxm_nodes_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomIntVariable("nexusmem.num_nodes",
							"Number of nodes to divide the allowed CPUs into.",
							"0 takes the nodes as they are found.",
							&num_nodes,
							0, 0, NXM_MAX_NODES,
							PGC_POSTMASTER,
							0, NULL, NULL, NULL);
	DefineCustomEnumVariable("nexusmem.node_source",
							 "What a node is: a NUMA node, a last-level-cache domain, or an even split.",
							 NULL,
							 &node_source,
							 NXM_SOURCE_AUTO, node_source_options,
							 PGC_POSTMASTER,
							 0, NULL, NULL, NULL);
	/* asked once, here, it is inherited by all */
	(void) nxm_seam_support();
	find_topology();
}
