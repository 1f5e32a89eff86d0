/*
 * buffer_nodes.h
 *	  Where buffers really lie, asked of the kernel.
 */
#ifndef NXM_BUFFER_NODES_H
#define NXM_BUFFER_NODES_H

#include "postgres.h"

#include "compat.h"
#include "core/topology.h"

typedef struct NxmBufferCount
{
	double		buffers;		/* whose first byte lies on the node */
	double		bytes;			/* of valid buffers, on the node */
	double		dirty;			/* of buffers */
	double		split;			/* of buffers: the rest lies on another node */
} NxmBufferCount;

typedef struct NxmBufferNodes
{
	/* by logical node; the last is for pages that no node could be told of */
	NxmBufferCount node[NXM_MAX_NODES + 1];
	int			sampling;		/* 1: all were asked about; n: one in n */
	int			refused;		/* errno of the kernel's refusal, 0: none */
} NxmBufferNodes;

#define NXM_NODE_UNKNOWN NXM_MAX_NODES

/*
 * Asks about all valid buffers (relation NULL), or about those of one relation
 * file.  Only valid buffers are looked at, so that nothing is allocated by
 * asking.  Never raises an error but for a cancel.
 */
extern void nxm_buffer_nodes(NxmBufferNodes *out, const NxmLocator *relation);

#endif							/* NXM_BUFFER_NODES_H */
