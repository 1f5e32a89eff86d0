/*
 * numa_seam.h
 *	  The platform: what is asked of the kernel, and nothing of PostgreSQL.
 *
 * Functions that can be refused return 0 or an errno value; none prints,
 * exits or allocates.
 */
#ifndef NXM_NUMA_SEAM_H
#define NXM_NUMA_SEAM_H

#include <sys/types.h>

#include "core/topology.h"

/* Bits of NxmNumaSupport.refused and .missing. */
typedef enum NxmSysCall
{
	NXM_CALL_GET_MEMPOLICY = 1 << 0,
	NXM_CALL_SET_MEMPOLICY = 1 << 1,
	NXM_CALL_MBIND = 1 << 2,
	NXM_CALL_MOVE_PAGES = 1 << 3,
	NXM_CALL_SETAFFINITY = 1 << 4
} NxmSysCall;

/*
 * What this process may do; found out once, inherited by fork.  Where the process
 * that tries the calls did not come to its end, or there is none, all count as refused.
 */
typedef struct NxmNumaSupport
{
	bool		probed;			/* the calls were tried to the end */
	int			probe_signal;	/* that killed who tried them; 0: none, or not told */
	int			probe_errno;	/* nobody could be forked to try them */
	unsigned	refused;		/* calls answered EPERM: seccomp, a container */
	unsigned	missing;		/* calls that this kernel does not have */
} NxmNumaSupport;

/* A process's memory policy, to be given back. */
typedef struct NxmMemPolicy
{
	int			mode;
	NxmOsNodeSet nodes;
} NxmMemPolicy;

/* How a range of shared memory is to be spread. */
typedef enum NxmRangePolicy
{
	NXM_RANGE_INTERLEAVE,		/* page by page over the nodes */
	NXM_RANGE_PREFER			/* the first of the nodes, others when it is full */
} NxmRangePolicy;

/*
 * The probe of the five calls, by a forked process when it is first asked for.  Changes
 * nothing.  A call that is refused answers EPERM below, and is not made.
 */
extern const NxmNumaSupport *nxm_seam_support(void);
/* "mbind, move_pages" for a set of NxmSysCall bits. */
extern const char *nxm_seam_call_names(unsigned calls, char *buf, size_t size);

/*
 * Reads the machine's sysfs; *hw is large, give it from the heap.  allowed is
 * what nxm_seam_allowed() told: these CPUs are online.
 */
extern bool nxm_seam_hardware(NxmHardware *hw, const NxmCpuSet *allowed);
/* CPUs and memories that this process may use; mems empty: unknown. */
extern int	nxm_seam_allowed(NxmCpuSet *cpus, NxmOsNodeSet *mems);
/* Free bytes of the kernel's node, or -1. */
extern int64_t nxm_seam_free_bytes(int os_node);

/* CPUs of those that are online; pid 0 is the calling process. */
extern int	nxm_seam_get_affinity(pid_t pid, NxmCpuSet *cpus);
/* With those that are offline, where the kernel tells. */
extern int	nxm_seam_get_whole_affinity(pid_t pid, NxmCpuSet *cpus);
extern int	nxm_seam_set_affinity(pid_t pid, const NxmCpuSet *cpus);
/* CPU that the process runs on or ran on last, or -1. */
extern int	nxm_seam_cpu_of(pid_t pid);
/* Its parent, or -1. */
extern pid_t nxm_seam_parent_of(pid_t pid);

/* The calling process's own memory policy. */
extern int	nxm_seam_get_policy(NxmMemPolicy *policy);
extern int	nxm_seam_set_policy(const NxmMemPolicy *policy);
/* MPOL_PREFERRED on one node: other nodes serve when it is full. */
extern int	nxm_seam_prefer(int os_node);

/*
 * Policy of a range of shared memory, for pages that are still untouched.
 * addr and len are multiples of the page size.  Splits the caller's mapping.
 */
extern int	nxm_seam_range_policy(void *addr, size_t len, NxmRangePolicy how,
								  const NxmOsNodeSet *nodes);
/* The kernel's node that each page is on, or a negative errno value a page. */
extern int	nxm_seam_page_nodes(void **pages, int n, int *nodes);
/* Moves pages that only this process has mapped; status as above. */
extern int	nxm_seam_move_pages(void **pages, int n, const int *nodes,
								int *status);
/* Size of the pages behind addr, in bytes; 0 where it is not told. */
extern size_t nxm_seam_page_size(const void *addr);

/*
 * Memory behind a range of shared memory; addr and len are multiples of the
 * page size.  populate: all of it exists afterwards, or an errno value, and
 * never a signal; needs Linux 5.14, which can_populate() finds out once.
 * release: gives it back, from under all who have it mapped; it reads as zero
 * from then on.  map: maps what exists, for nxm_seam_page_nodes(); makes what does not.
 * EINVAL: the kernel can't (before Linux 5.14).
 */
extern bool nxm_seam_can_populate(void);
extern int	nxm_seam_populate(void *addr, size_t len);
extern int	nxm_seam_release(void *addr, size_t len);
extern int	nxm_seam_map(void *addr, size_t len);
/*
 * Huge pages behind it.  huge_page_size: of those that the kernel can put together;
 * 0: it can't.  map_aligned: maps shared memory that is mapped at addr once more, for
 * as long as the process lives, at a multiple of align; NULL: there is no room.
 * collapse: puts a range, aligned in address and object, into huge pages; what
 * of it does not exist is made.  EINVAL: the kernel can't (before Linux 6.1).
 */
extern size_t nxm_seam_huge_page_size(void);
/* The same where the kernel puts shared memory into them unasked; else 0. */
extern size_t nxm_seam_shared_huge_page_size(void);
extern void *nxm_seam_map_aligned(void *addr, size_t len, size_t align);
extern int	nxm_seam_collapse(void *addr, size_t len);
/* Sets bit 0 of a byte for each page of the kernel's that exists. */
extern int	nxm_seam_resident(void *addr, size_t len, unsigned char *pages);

/* Is the process stopped, by a signal or a debugger? */
extern bool nxm_seam_stopped(pid_t pid);
/* The calling process dies with its parent. */
extern void nxm_seam_die_with_parent(void);

/*
 * Median microseconds of posix_fadvise(WILLNEED) on a page that the OS has
 * cached, of calls tries on the open file fd; 0 where it cannot be had.
 */
extern double nxm_seam_cached_advice_us(int fd, int tries);

#endif							/* NXM_NUMA_SEAM_H */
