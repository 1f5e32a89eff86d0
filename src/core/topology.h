/*
 * topology.h
 *	  The machine as nexusmem sees it: logical nodes, each with a set of CPUs
 *	  and the memories that serve it.
 *
 * Plain C11: no PostgreSQL header, no allocation, no globals.  Everything here
 * is a function of its arguments, so that a machine can be tried from a
 * recording of its sysfs text.
 */
#ifndef NXM_TOPOLOGY_H
#define NXM_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Limits.  A CPU or memory past them is left out, and the note says so. */
#define NXM_MAX_CPUS	 4096
#define NXM_MAX_OS_NODES 1024
#define NXM_MAX_NODES	 128

#define NXM_CPU_WORDS	 (NXM_MAX_CPUS / 64)
#define NXM_OS_NODE_WORDS (NXM_MAX_OS_NODES / 64)

/* Distance of a node to itself, and what is assumed where none is known. */
#define NXM_DISTANCE_LOCAL	10
#define NXM_DISTANCE_REMOTE 20

typedef struct NxmCpuSet
{
	uint64_t	word[NXM_CPU_WORDS];
} NxmCpuSet;

/* A set of the kernel's node numbers. */
typedef struct NxmOsNodeSet
{
	uint64_t	word[NXM_OS_NODE_WORDS];
} NxmOsNodeSet;

/* Setting nexusmem.node_source, and what a topology was made from. */
typedef enum NxmNodeSource
{
	NXM_SOURCE_AUTO,			/* numa if it has several nodes, else cache */
	NXM_SOURCE_NUMA,
	NXM_SOURCE_CACHE,			/* last-level-cache domains */
	NXM_SOURCE_EVEN				/* whole cores, split evenly */
} NxmNodeSource;

/* One CPU as the kernel numbers it. */
typedef struct NxmCpu
{
	bool		online;
	int32_t		package;		/* physical_package_id, -1: unknown */
	int32_t		core;			/* lowest CPU among its thread siblings */
	int32_t		llc;			/* lowest CPU that shares its last-level cache,
								 * -1: unknown */
	int32_t		os_node;		/* node it belongs to, -1: none is listed */
} NxmCpu;

/* One NUMA node as the kernel numbers it. */
typedef struct NxmOsNode
{
	bool		present;
	uint64_t	memory_bytes;	/* 0: memory-less */
	uint16_t	distance[NXM_MAX_OS_NODES]; /* 0: unknown */
} NxmOsNode;

/* What sysfs tells of a machine. */
typedef struct NxmHardware
{
	int			ncpus;			/* highest CPU number + 1 */
	int			nos_nodes;		/* highest node number + 1; 0: no NUMA text */
	bool		left_out;		/* there are CPUs or nodes past the limits */
	NxmCpu		cpu[NXM_MAX_CPUS];
	NxmOsNode	os_node[NXM_MAX_OS_NODES];
} NxmHardware;

/* One logical node. */
typedef struct NxmNode
{
	NxmCpuSet	cpus;			/* empty: takes memory and no backends */
	NxmOsNodeSet mems;			/* where its memory comes from; empty: unknown,
								 * leave it to the kernel */
	int32_t		cpu_count;
	int32_t		os_node;		/* the kernel's node of its CPUs (of its memory,
								 * where it has no CPU); -1: none or several */
	bool		own_memory;		/* false: memory-less, mems is a neighbour's */
	uint64_t	memory_bytes;	/* of its own memories, all that they have */
	uint16_t	distance[NXM_MAX_NODES];
} NxmNode;

typedef struct NxmTopology
{
	int32_t		nnodes;			/* at least 1 */
	NxmNodeSource source;		/* never NXM_SOURCE_AUTO */
	bool		numa;			/* more than one memory to choose from */
	bool		divided;		/* nodes were split or merged to reach num_nodes */
	bool		shared_cpus;	/* more nodes than cores: some share CPUs */
	int32_t		ncpu_nodes;		/* nodes that take backends, at least 1 */
	int32_t		ncpus;			/* highest allowed CPU number + 1 */
	NxmCpuSet	allowed;		/* CPUs that the process may use */
	NxmOsNodeSet memories;		/* all allowed memories that have any bytes */
	char		note[256];		/* what was left out or assumed; "" : nothing */
	NxmNode		node[NXM_MAX_NODES];
} NxmTopology;

/*
 * Reads one file of a sysfs tree.  path is relative to /sys/devices/system,
 * for example "cpu/cpu3/topology/thread_siblings_list".  Puts at most size - 1
 * bytes and a NUL into buf and returns their number, or -1 where the file
 * cannot be read.
 */
typedef int (*NxmReadFile) (void *arg, const char *path, char *buf,
							size_t size);

/* Sets.  i past the end is never a member and cannot be added. */
extern bool nxm_cpuset_has(const NxmCpuSet *set, int i);
extern void nxm_cpuset_add(NxmCpuSet *set, int i);
extern int	nxm_cpuset_count(const NxmCpuSet *set);
/* Is each member of set one of of's?  True of the empty set. */
extern bool nxm_cpuset_within(const NxmCpuSet *set, const NxmCpuSet *of);
extern bool nxm_osnodeset_has(const NxmOsNodeSet *set, int i);
extern void nxm_osnodeset_add(NxmOsNodeSet *set, int i);
extern int	nxm_osnodeset_count(const NxmOsNodeSet *set);
/* The lowest member greater than after (start with -1), or -1. */
extern int	nxm_osnodeset_next(const NxmOsNodeSet *set, int after);

/*
 * The kernel's list format ("0-3,8,10-11", a newline at the end allowed, the
 * empty list too).  Parsing sets the members among nbits bits of words, clears
 * all others, and returns false (leaving words cleared) for text that is not a
 * list.  Members past nbits are left out, and *left_out, if not NULL, says so.
 */
extern bool nxm_list_parse(const char *text, uint64_t *words, int nbits,
						   bool *left_out);
/* Writes a set in that format; returns the length needed, as snprintf does. */
extern int	nxm_list_format(const uint64_t *words, int nbits, char *buf,
							size_t size);

/*
 * Fills *hw from a sysfs tree.  The CPUs in online (NULL: none) are online
 * whatever the text says.  Missing files mean "unknown", never failure; returns
 * false only where not even one CPU could be found.
 */
extern bool nxm_hardware_read(NxmHardware *hw, const NxmCpuSet *online,
							  NxmReadFile read, void *arg);

/*
 * Divides the allowed part of a machine into logical nodes.  cpus and mems are
 * what the process may use (mems empty: unknown, everything is allowed).
 * num_nodes 0 takes the nodes as found.  Always yields at least one node.
 */
extern void nxm_topology_build(NxmTopology *topo, const NxmHardware *hw,
							   const NxmCpuSet *cpus,
							   const NxmOsNodeSet *mems,
							   NxmNodeSource source, int num_nodes);

/* The logical node that cpu belongs to (the lowest, if several), or -1. */
extern int	nxm_topology_node_of_cpu(const NxmTopology *topo, int cpu);
/* The logical node that memory of the kernel's node belongs to, or -1. */
extern int	nxm_topology_node_of_memory(const NxmTopology *topo, int os_node);
/* "numa", "cache" or "even". */
extern const char *nxm_node_source_name(NxmNodeSource source);

#endif							/* NXM_TOPOLOGY_H */
