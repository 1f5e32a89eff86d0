/*
 * nodes.h
 *	  The topology in force in this server.
 */
#ifndef NXM_NODES_H
#define NXM_NODES_H

#include "core/topology.h"
#include "numa_seam.h"

/*
 * Defines nexusmem.num_nodes and node_source (postmaster-level: only while the
 * library is being preloaded) and, there, finds the topology out.
 */
extern void nxm_nodes_init(void);

/* The topology.  Immutable once found; children inherit the postmaster's. */
extern const NxmTopology *nxm_topology(void);

/*
 * Raises an error unless node names a node that takes backends.
 */
extern void nxm_check_backend_node(int node);

#endif							/* NXM_NODES_H */
