/*
 * status.c
 *	  The view nexusmem.status.
 *
 * A row a feature, made when it is asked for from what the features know of
 * themselves; nothing is kept here.  state is "active", "degraded" (on, and
 * something of it does not work) or "off".
 */
#include "status.h"

#include <errno.h>

#include "access/xact.h"
#include "arena.h"
#include "arena_chunks.h"
#include "compat.h"
#include "core/cache.h"
#include "fmgr.h"
#include "funcapi.h"
#include "memory_worker.h"
#include "nodes.h"
#include "placement.h"
#include "prefetch_index.h"
#include "prefetch_nestloop.h"
#include "prefetch_stats.h"
#include "predictor_area.h"
#include "registry.h"
#include "save.h"
#include "scheduler.h"
#include "shmem.h"
#include "storage/dsm_impl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(nxm_status);

#define HINT_PRELOAD "Add nexusmem to shared_preload_libraries and restart the server."
#define HINT_KERNEL "Use a kernel with CONFIG_NUMA."
#define HINT_REBUILD "Rebuild nexusmem for this PostgreSQL."
#define HINT_CONTAINER "In a container, grant the capability SYS_NICE or a seccomp profile that allows these calls."
#define HINT_PROFILE "In a container, grant a seccomp profile that allows move_pages."
#define HINT_BOTH "In a container, grant the capability SYS_NICE, and for move_pages a seccomp profile that allows it."
#define HINT_FILTER "Have the seccomp filter allow these calls, or refuse them without killing (systemd: SystemCallErrorNumber=EPERM)."
#define HINT_STOPPED "Continue that process (kill -CONT, or detach its debugger); pg_terminate_backend() can end it then. To kill it would restart the server and empty all structures."
#define HINT_FORK "Begin a new session; where the library is preloaded, restart the server."

/* that a backend's memory policy takes */
#define POLICY_CALLS (NXM_CALL_GET_MEMPOLICY | NXM_CALL_SET_MEMPOLICY)

/* of the structures' memory, when status is asked */
#define SAMPLED_PAGES 256

/* a want of memory for caches is told for so long, in ms */
#define SHORT_MS 60000

typedef struct StatusRow
{
	const char *state;
	const char *detail;
	const char *hint;			/* NULL: nothing to do */
} StatusRow;

static StatusRow
row(const char *state, const char *hint, const char *detail)
{
	StatusRow	r;

	r.state = state;
	r.detail = detail;
	r.hint = hint;
	return r;
}

/*
 * What to do about these system calls, which are refused.  The default profiles of Docker
 * and containerd allow with SYS_NICE all of them but move_pages.
 */
static const char *
hint_refused(unsigned calls)
{
	const NxmNumaSupport *support = nxm_seam_support();

	if (!support->probed)
		return support->probe_errno != 0 ? HINT_FORK : HINT_FILTER;
	if ((calls & NXM_CALL_MOVE_PAGES) == 0)
		return HINT_CONTAINER;
	return calls == NXM_CALL_MOVE_PAGES ? HINT_PROFILE : HINT_BOTH;
}

/* Which are, and why it is known or supposed. */
static const char *
refused_calls(void)
{
	const NxmNumaSupport *support = nxm_seam_support();
	char		buf[128];
	const char *names = nxm_seam_call_names(support->refused, buf, sizeof(buf));

	if (support->probed)
		return psprintf("refused (%s): %s", strerror(EPERM), names);
	if (support->probe_errno != 0)
		return psprintf("not made, for no process could be forked to try them (%s): %s",
						strerror(support->probe_errno), names);
	if (support->probe_signal == 0)
		return psprintf("not made, for the process that tried them was killed: %s", names);
	return psprintf("not made, for the process that tried them was killed by signal %d (%s): %s",
					support->probe_signal, pg_strsignal(support->probe_signal), names);
}

/* What to do about a system call, one of these, that failed so. */
static const char *
hint_for(int err, unsigned calls)
{
	switch (err)
	{
		case EPERM:
		case EACCES:
			return hint_refused(calls);
		case ENOSYS:
			return HINT_KERNEL;
		case EINVAL:
			return "CPUs or memories that were there when the server started may be gone: restart it.";
		default:
			return "See the server's log.";
	}
}

/* The first node for which the last call failed, and *err; or -1, and 0. */
static int
failing_node(int (*errno_of) (int node), int *err)
{
	*err = 0;
	for (int i = 0; i < nxm_topology()->nnodes; i++)
	{
		*err = errno_of(i);
		if (*err != 0)
			return i;
	}
	return -1;
}

/* Errno of calls that are needed: the last one for a node, or what the probe found; or 0. */
static int
errno_of_calls(int (*errno_of) (int node), unsigned needed)
{
	int			err;

	(void) failing_node(errno_of, &err);
	if (err == 0 && (nxm_seam_support()->refused & needed) != 0)
		err = EPERM;
	if (err == 0 && (nxm_seam_support()->missing & needed) != 0)
		err = ENOSYS;
	return err;
}

static StatusRow
shared_memory_status(void)
{
	if (nxm_shmem_available())
		return row("active", NULL, "the library was preloaded");
	return row("off", HINT_PRELOAD,
			   NXM_HAVE_DSM_REGISTRY ?
			   "the library was loaded by this session alone: nexusmem.num_nodes, node_source, enable_numa_caching, shared_buffers_placement and predictor_memory have no effect, and nothing but structures and caches is shared" :
			   "the library was loaded by this session alone: nexusmem.num_nodes, node_source, enable_numa_caching, shared_buffers_placement and predictor_memory have no effect, and nothing is shared");
}

static StatusRow
topology_status(void)
{
	const NxmTopology *topo = nxm_topology();
	char	   *detail = psprintf("%d %s from %s%s%s%s%s",
								  topo->nnodes,
								  topo->nnodes == 1 ? "node" : "nodes",
								  nxm_node_source_name(topo->source),
								  topo->divided ? ", divided by nexusmem.num_nodes" : "",
								  topo->shared_cpus ? ", more than cores: some share CPUs" : "",
								  topo->note[0] ? "; " : "", topo->note);
	NxmCpuSet	allowed;

	/* who is not preloaded has found the topology in this session, by itself */
	if (nxm_shmem_available() &&
		nxm_seam_get_affinity(PostmasterPid, &allowed) == 0 &&
		memcmp(&allowed, &topo->allowed, sizeof(allowed)) != 0)
		return row("degraded", "Restart the server, to make nodes of the CPUs that it may use now.",
				   psprintf("%s; the CPUs allowed have changed since the start", detail));
	if (topo->note[0])
		return row("degraded", "See the view nexusmem.nodes.", detail);
	return row("active", NULL, detail);
}

static StatusRow
numa_calls_status(void)
{
	const NxmNumaSupport *support = nxm_seam_support();
	char		names[128];

	if (support->refused != 0)
		return row("degraded", hint_refused(support->refused), refused_calls());
	if (support->missing != 0)
		return row("off", HINT_KERNEL,
				   psprintf("this kernel does not have: %s",
							nxm_seam_call_names(support->missing, names,
												sizeof(names))));
	return row("active", NULL, "all NUMA system calls are allowed");
}

static StatusRow
pinning_status(void)
{
	const NxmTopology *topo = nxm_topology();
	int			err;
	int			node = failing_node(nxm_scheduler_affinity_errno, &err);

	if (!nxm_shmem_available())
		return row("off", HINT_PRELOAD, "needs shared memory");
	if (!nxm_enable_numa_optimizations)
		return row("off", "Set nexusmem.enable_numa_optimizations = on and reload.",
				   "nexusmem.enable_numa_optimizations is off");
	if ((nxm_seam_support()->refused & NXM_CALL_SETAFFINITY) != 0)
		return row("degraded", hint_refused(NXM_CALL_SETAFFINITY),
				   psprintf("backends could not be pinned: %s",
							strerror(EPERM)));
	if (node >= 0)
		return row("degraded", hint_for(err, NXM_CALL_SETAFFINITY),
				   psprintf("backends could not be pinned to node %d: %s", node,
							strerror(err)));
	if (topo->nnodes == 1)
		return row("active", "Set nexusmem.num_nodes or node_source to divide this machine.",
				   "there is one node, so every process may use all CPUs");
	if (nxm_preferred_node != -1 &&
		(nxm_preferred_node < 0 || nxm_preferred_node >= topo->nnodes ||
		 topo->node[nxm_preferred_node].cpu_count == 0))
		return row("degraded", "Set nexusmem.preferred_node to a node of the view nexusmem.nodes that has CPUs.",
				   psprintf("this session's preferred_node %d takes no backends; the policy decides",
							nxm_preferred_node));
	return row("active", NULL,
			   psprintf("policy %s over %d %s",
						GetConfigOption("nexusmem.scheduling_policy", false,
										false),
						topo->ncpu_nodes,
						topo->ncpu_nodes == 1 ? "node" : "nodes"));
}

static StatusRow
memory_policy_status(void)
{
	const NxmTopology *topo = nxm_topology();
	int			err;

	if (!nxm_shmem_available())
		return row("off", HINT_PRELOAD, "needs shared memory");
	if (!nxm_enable_numa_optimizations)
		return row("off", "Set nexusmem.enable_numa_optimizations = on and reload.",
				   "nexusmem.enable_numa_optimizations is off");
	if (!topo->numa)
		return row("off", NULL, "there is one memory to choose from");
	err = errno_of_calls(nxm_scheduler_policy_errno, POLICY_CALLS);
	if (err != 0)
		return row("degraded", hint_for(err, POLICY_CALLS),
				   psprintf("backends keep the kernel's memory policy: %s",
							strerror(err)));
	err = errno_of_calls(nxm_scheduler_affinity_errno, NXM_CALL_SETAFFINITY);
	if (err != 0)
		return row("degraded", hint_for(err, NXM_CALL_SETAFFINITY),
				   psprintf("backends that could not be pinned keep the kernel's memory policy: %s",
							strerror(err)));
	return row("active", NULL, "backends prefer their node's memory");
}

static StatusRow
placement_status(void)
{
	const NxmPlacementResult *p = nxm_placement_result();
	const char *how;
	const char *pages;
	const char *detail;

	if (!nxm_shmem_available())
		return row("off", HINT_PRELOAD, "needs shared memory");
	if (p->wanted == NXM_PLACE_DEFAULT)
		return row("off", nxm_topology()->numa ?
				   "Set nexusmem.shared_buffers_placement and restart the server." : NULL,
				   "nexusmem.shared_buffers_placement is default");
	if (p->nodes < 2)
		return row("off", NULL, "there is one memory to choose from");
	if (!p->done)
		return row("degraded", hint_for(p->refused, NXM_CALL_MBIND),
				   p->refused ?
				   psprintf("shared_buffers was not placed: %s",
							strerror(p->refused)) :
				   psprintf("shared_buffers was not placed: a helper process was ended by signal %d",
							p->child_signal));

	pages = p->unit >= 1024 * 1024 ?
		psprintf("%zu MB", p->unit / (1024 * 1024)) :
		psprintf("%zu kB", p->unit / 1024);
	if (p->wanted == NXM_PLACE_INTERLEAVE)
		how = psprintf("interleaved by %s pages over %d memories", pages,
					   p->nodes);
	else
		how = psprintf("%d stripes of %d buffers %s over %d memories, pages of %s",
					   p->stripes, p->stripe_buffers,
					   p->with_descriptors ? "with their descriptors" :
					   p->move_refused != 0 ? "without their descriptors" :
					   "without their descriptors (shared_buffers is too small for pages of this size)",
					   p->nodes, pages);
	if (p->move_refused != 0)
		how = psprintf("%s; the descriptors could not be moved: %s", how,
					   strerror(p->move_refused));
	detail = psprintf("%s; %d of %d sampled pages verified, on %d %s",
					  how, p->verified, p->sampled, p->memories_seen,
					  p->memories_seen == 1 ? "memory" : "memories");
	if (p->ask_refused != 0)
		return row("degraded", hint_for(p->ask_refused, NXM_CALL_MOVE_PAGES),
				   psprintf("%s; the kernel would not tell where pages lie: %s",
							how, strerror(p->ask_refused)));
	if (p->move_refused != 0)
		return row("degraded", hint_for(p->move_refused, NXM_CALL_MOVE_PAGES), detail);
	if (p->sampled == 0)
		return row("degraded", "Raise shared_buffers, or use smaller pages.",
				   psprintf("%s; there is not one whole page to place", how));
	if (p->verified < p->sampled)
		return row("degraded",
				   "A node may be short of memory or of huge pages: see the view nexusmem.shared_buffers_nodes.",
				   detail);
	return row("active", NULL, detail);
}

static const char *
unbound_hint(const NxmArenaReport *report)
{
	if ((report->unbound_flags & NXM_CHUNK_UNBOUND_TYPE) != 0)
		return "Set dynamic_shared_memory_type to posix or sysv and restart the server.";
	if ((report->unbound_flags & NXM_CHUNK_UNBOUND_MAIN) != 0)
		return "Set min_dynamic_shared_memory to 0 and restart the server.";
	return HINT_CONTAINER;
}

/*
 * What to do where memory could not be had: why is NXM_GROW_NO_SEGMENT or
 * NXM_GROW_NO_MEMORY.  otherwise: what helps against the latter besides, or "".
 */
static const char *
memory_hint(NxmGrowth why, const char *otherwise)
{
	if (why == NXM_GROW_NO_SEGMENT)
		return NXM_HINT_CONNECTIONS;
	return psprintf("%s%s.", dynamic_shared_memory_type == DSM_IMPL_POSIX ?
					"Enlarge /dev/shm (in a container with --shm-size)" :
					"Give the server more shared memory", otherwise);
}

/* Why there is no memory of ours. */
static StatusRow
no_arena(NxmArenaState state, const NxmArenaReport *report)
{
	if (state == NXM_ARENA_NO_MEMORY)
		return row("degraded", memory_hint(NXM_GROW_NO_MEMORY, ""),
				   psprintf("not preloaded, and there is no memory to look for it, or to make it: %s",
							report->why));
	if (state == NXM_ARENA_NO_REGISTRY)
		return row("degraded", "Restart the server.",
				   psprintf("not preloaded, and it cannot be looked for: %s",
							report->why));
	if (state == NXM_ARENA_OTHER_VERSION)
		return row("off", "Restart the server.",
				   "made by another version of the library");
	if (NXM_HAVE_DSM_REGISTRY)
		return row("off", NULL,
				   "not preloaded: made when a structure is first used");
	return row("off", HINT_PRELOAD, "needs the library preloaded");
}

static StatusRow
structures_status(void)
{
	NxmArenaReport report;
	NxmArenaState state;

	if (!nxm_enable_lock_free_structures)
		return row("off", "Set nexusmem.enable_lock_free_structures = on and reload.",
				   "nexusmem.enable_lock_free_structures is off");
	state = nxm_arena_report(&report);
	if (state != NXM_ARENA_READY)
		return no_arena(state, &report);
	return row("active", NULL, "counters, maps, stacks and queues");
}

static StatusRow
structure_memory_status(void)
{
	NxmArenaReport report;
	NxmArenaState state = nxm_arena_report(&report);
	NxmNodeMemory sample;
	const char *detail;

	if (state != NXM_ARENA_READY)
		return no_arena(state, &report);
	/* segments, and so what of them is in huge pages, are of both accounts */
	detail = psprintf("%.1f of %.1f MB; structures and caches lie in %d %s of %.1f MB",
					  report.used[0] / 1048576.0, report.limit[0] / 1048576.0,
					  report.chunks, report.chunks == 1 ? "segment" : "segments",
					  report.reserved / 1048576.0);
	if (report.huge != 0)
		detail = psprintf("%s, %.0f MB in huge pages", detail,
						  report.huge / 1048576.0);

	if (report.stopped_pid != 0)
		return row("degraded", HINT_STOPPED,
				   psprintf("%s; process %d is stopped in a structure and keeps memory from being freed",
							detail, report.stopped_pid));
	if (report.leaked != 0)
		return row("degraded", "Restart the server when that is convenient.",
				   psprintf("%s; " UINT64_FORMAT " %s lost", detail, report.leaked,
							report.leaked == 1 ? "object was" : "objects were"));
	/* what is left of less than a page is of no use */
	if (report.used[0] + NXM_PAGE_SIZE > report.limit[0])
		return row("degraded", "Remove entries, drop structures, or raise nexusmem.memory_limit and reload the configuration.",
				   psprintf("%s; the limit is reached: writes that need memory may be refused",
							detail));
	if (report.solid != 0)
		return row("degraded", nxm_seam_can_populate() ? NULL :
				   "Use Linux 5.14 or newer.",
				   psprintf("%s; %s of %d cannot be given back and taken again",
							detail,
							nxm_seam_can_populate() ? "this kind of memory" :
							"memory", report.solid));
	if (report.unbound != 0)
		return row("degraded", unbound_hint(&report),
				   psprintf("%s; %d not bound to their nodes: %s", detail,
							report.unbound, nxm_arena_why_unbound(&report)));
	if (!nxm_topology()->numa || report.chunks == 0)
		return row("active", NULL, detail);

	nxm_arena_sample(&sample, SAMPLED_PAGES);
	if (sample.refused != 0)
		return row("degraded", hint_for(sample.refused, NXM_CALL_MOVE_PAGES),
				   psprintf("%s; the kernel would not tell where pages lie: %s",
							detail, strerror(sample.refused)));
	if (sample.on_node + sample.elsewhere == 0)
		return row("active", NULL, detail);
	detail = psprintf("%s; %d %% of sampled pages on their nodes", detail,
					  (int) (sample.on_node * 100 / (sample.on_node + sample.elsewhere)));
	if (sample.elsewhere > 0)
		return row("degraded",
				   "A node may be short of memory: see the view nexusmem.node_memory.",
				   detail);
	return row("active", NULL, detail);
}

/* Caches have less than their limit. */
static StatusRow
cache_short_status(NxmAnchor *anchor, const char *detail)
{
	NxmGrowth	why = (NxmGrowth) nxm_load_relaxed(&anchor->cache_short_why);

	if (why == NXM_GROW_TABLE_FULL)
		return row("degraded", nxm_chunks_would_do(nxm_arena_shared(anchor)) ?
				   "Restart the server: segments will be as large as the limits ask for." :
				   "Lower nexusmem.cache_size, or nexusmem.memory_limit: the two cannot be had together.",
				   psprintf("%s; there can be no more than %d segments to reach the limit: entries gave way",
							detail, NXM_MAX_CHUNKS));
	if (why == NXM_GROW_NO_SEGMENT)
		return row("degraded", memory_hint(why, ""),
				   psprintf("%s; the server had no dynamic shared memory segment left to reach the limit: entries gave way",
							detail));
	return row("degraded",
			   memory_hint(NXM_GROW_NO_MEMORY, ", or lower nexusmem.cache_size"),
			   psprintf("%s; there was no memory to reach the limit: entries gave way",
						detail));
}

static StatusRow
cache_status(void)
{
	NxmArenaReport report;
	NxmArenaState state = nxm_arena_report(&report);
	int			partitions = nxm_enable_numa_caching ? nxm_space_node_count() : 1;
	int			nodes = nxm_topology()->nnodes;
	TimestampTz short_at;
	TimestampTz not_made;
	const char *detail;

	if (state != NXM_ARENA_READY)
		return no_arena(state, &report);
	detail = psprintf("%.1f of %.1f MB, %s",
					  report.used[NXM_CACHE_ACCOUNT] / 1048576.0,
					  report.limit[NXM_CACHE_ACCOUNT] / 1048576.0,
					  partitions == 1 ? "not partitioned" :
					  partitions < nodes ?
					  psprintf("%d partitions for %d nodes", partitions, nodes) :
					  psprintf("a partition on each of %d nodes", nodes));
	short_at = (TimestampTz) nxm_load(&nxm_anchor()->cache_short);
	if (!nxm_is_over(short_at, GetCurrentTimestamp(), SHORT_MS))
		return cache_short_status(nxm_anchor(), detail);
	not_made = (TimestampTz) nxm_load_relaxed(&nxm_anchor()->cache_not_made);
	if (!nxm_is_over(not_made, GetCurrentTimestamp(), SHORT_MS))
		return row("degraded",
				   "Drop caches, or raise nexusmem.cache_size, or nexusmem.memory_limit where structures have reached that, and reload the configuration.",
				   psprintf("%s; there was no room for another cache: values were not stored",
							detail));
	if (nxm_memory_worker_pid() == 0)
		return row("degraded", nxm_shmem_available() ?
				   NXM_HINT_WORKERS : HINT_PRELOAD,
				   psprintf("%s; the worker \"nexusmem memory\" is not running: what has expired keeps its memory until that is needed",
							detail));
	return row("active", NULL, detail);
}

/*
 * Of look-ahead within a query: off for a reason of its own (NULL: for none), or
 * for those that all kinds share, or active.
 */
static StatusRow
look_ahead_status(const char *off, const char *hint, const char *active)
{
#ifndef USE_PREFETCH
	return row("off", NULL, "this PostgreSQL was built without posix_fadvise");
#endif
	if (off != NULL)
		return row("off", hint, off);
	if (nxm_prefetch_distance == 0)
		return row("off", "Set nexusmem.prefetch_distance.",
				   "nexusmem.prefetch_distance is 0");
	if (nxm_direct_io())
		return row("off", "Take data out of debug_io_direct and restart the server.",
				   "debug_io_direct bypasses the operating system's cache, which look-ahead reads into");
	if (nxm_prefetch_distance_for(InvalidOid) == 0)
		return row("off", "Set effective_io_concurrency or nexusmem.prefetch_distance.",
				   "effective_io_concurrency is 0 for this database's tablespace");
	if (nxm_prefetch_threshold_us() <= 0)
		return row("degraded", NULL,
				   "could not be calibrated: blocks in the operating system's cache are asked for in vain");
	return row("active", NULL, active);
}

static StatusRow
prefetch_status(void)
{
	const char *reason = nxm_prefetch_off_reason();
	const char *off = NULL;
	const char *hint = NULL;

	if (reason[0] != '\0')
	{
		off = psprintf("switched off by its self-check: %s", reason);
		hint = HINT_REBUILD;
	}
	else if (!nxm_enable_prefetch)
	{
		off = "nexusmem.enable_prefetch is off";
		hint = "Set nexusmem.enable_prefetch = on.";
	}
	return look_ahead_status(off, hint,
							 psprintf("a read-ahead call of %.1f us or more counts as a read from the disk",
									  nxm_prefetch_threshold_us()));
}

static StatusRow
nestloop_status(void)
{
	const char *off = NULL;
	const char *hint = NULL;

	if (!nxm_enable_nestloop_prefetch)
	{
		off = "nexusmem.enable_nestloop_prefetch is off";
		hint = "Set nexusmem.enable_nestloop_prefetch = on.";
	}
	else if (IsolationIsSerializable())
	{
		off = "this transaction is SERIALIZABLE: reading ahead would take predicate locks";
		hint = "Use the isolation level READ COMMITTED or REPEATABLE READ.";
	}
	return look_ahead_status(off, hint,
							 "outer rows are read ahead where that cannot be seen");
}

static StatusRow
learned_status(void)
{
	NxmPredictorAreaReport report;
	NxmPredictor *predictor;
	NxmPredictorStats stats;
	const char *detail;

	if (!nxm_shmem_available())
		return row("off", HINT_PRELOAD, "needs the library preloaded");
	if (!nxm_enable_learned_prefetch)
		return row("off", "Set nexusmem.enable_learned_prefetch = on and reload.",
				   "nexusmem.enable_learned_prefetch is off");
	if (nxm_prefetch_off_reason()[0] != '\0')
		return row("off", HINT_REBUILD,
				   "index look-ahead, which it needs, is off");
	nxm_predictor_area_report(&report);
	if (nxm_memory_worker_pid() == 0)
		return row("degraded", NXM_HINT_WORKERS,
				   report.ready ?
				   "the worker \"nexusmem memory\" is not running: learned sequences will not be saved" :
				   "the worker \"nexusmem memory\" is not running: nothing is recorded");
	if (!report.ready)
		return report.failed[0] != '\0' ?
			row("degraded", report.no_memory == NXM_GROWN ? "See the server's log." :
				memory_hint(report.no_memory,
							", or lower nexusmem.predictor_memory and restart the server"),
				pstrdup(report.failed)) :
			row("degraded", "Ask again in a moment.", "its memory is being made");
	predictor = nxm_predictor_area();
	if (predictor == NULL)
		return row("degraded", "See the server's log.",
				   "this session could not map the predictor's memory");
	nxm_predictor_stats(predictor, &stats);
	detail = psprintf("%.1f MB: " UINT64_FORMAT " of " UINT64_FORMAT " associations, of " UINT64_FORMAT " relations",
					  report.bytes / 1048576.0, (uint64) stats.associations,
					  (uint64) stats.capacity, (uint64) stats.relations);
	if (report.failed[0] != '\0')
		return row("degraded", "See the server's log.",
				   psprintf("%s; %s", detail, report.failed));
	if (report.refused)
		return row("degraded", "See the server's log.",
				   psprintf("%s; saved ones were not loaded",
							detail));
	if (nxm_prefetch_distance_for(InvalidOid) == 0 || nxm_direct_io())
		return row("degraded", "See the row of index look-ahead.",
				   psprintf("%s; recorded, but nothing is read ahead", detail));
	if (report.saved_at != 0)
		detail = psprintf("%s; saved at %s", detail,
						  timestamptz_to_str(report.saved_at));
	return row("active", NULL, detail);
}

static StatusRow
worker_status(void)
{
	if (!nxm_shmem_available())
		return row("off", HINT_PRELOAD, "needs the library preloaded");
	if (nxm_worker_pid() == 0)
		return row("degraded", NXM_HINT_WORKERS,
				   "the background worker is not running: background processes stay unpinned");
	return row("active", NULL, psprintf("pid %d", nxm_worker_pid()));
}

static StatusRow
memory_worker_status(void)
{
	NxmSaveReport report;

	if (!nxm_shmem_available())
		return row("off", HINT_PRELOAD,
				   "needs the library preloaded: structures are not saved");
	nxm_save_report(&report);
	if (nxm_memory_worker_pid() == 0)
		return row("degraded", NXM_HINT_WORKERS,
				   "the worker \"nexusmem memory\" is not running: structures will not be saved");
	if (report.refused)
		return row("degraded", "See the server's log.",
				   report.dropped > 0 ?
				   psprintf("%u of %u saved structures %s not loaded",
							report.dropped, report.loaded,
							report.dropped == 1 ? "was" : "were") :
				   "saved structures were not loaded");
	if (nxm_save_what == NXM_SAVE_OFF)
		return row("off", NULL, "nexusmem.save is off");
	return row("active", NULL,
			   report.state == NXM_LOAD_DONE ?
			   psprintf("%u %s loaded at the start; pid %d", report.loaded,
						report.loaded == 1 ? "structure was" : "structures were",
						nxm_memory_worker_pid()) :
			   "saved structures are being loaded");
}

Datum
nxm_status(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *feature;
		StatusRow	(*status) (void);
	}			features[] = {
		{"shared memory", shared_memory_status},
		{"topology", topology_status},
		{"NUMA system calls", numa_calls_status},
		{"pinning", pinning_status},
		{"memory policy", memory_policy_status},
		{"shared_buffers placement", placement_status},
		{"structures", structures_status},
		{"structure memory", structure_memory_status},
		{"cache", cache_status},
		{"index look-ahead", prefetch_status},
		{"nested loop look-ahead", nestloop_status},
		{"learned look-ahead", learned_status},
		{"background worker", worker_status},
		{"saved structures", memory_worker_status},
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (size_t i = 0; i < lengthof(features); i++)
	{
		StatusRow	r = features[i].status();
		Datum		values[4] = {
			CStringGetTextDatum(features[i].feature),
			CStringGetTextDatum(r.state),
			CStringGetTextDatum(r.detail),
			r.hint ? CStringGetTextDatum(r.hint) : (Datum) 0
		};
		bool		nulls[4] = {false, false, false, r.hint == NULL};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

void
nxm_status_init(void)
{
	const NxmNumaSupport *support;
	char		names[128];

	if (!process_shared_preload_libraries_in_progress)
		return;
	support = nxm_seam_support();
	if (support->refused != 0)
		ereport(LOG,
				(errmsg("nexusmem does without system calls that are refused here: %s",
						nxm_seam_call_names(support->refused, names,
											sizeof(names))),
				 support->probed ? 0 :
				 errdetail("They are %s.", refused_calls()),
				 errhint("%s", hint_refused(support->refused))));
}
