/*
 * topology.c
 *	  Divides a machine into logical nodes.
 *
 * A topology is made in four steps:
 *
 * 1. sort_cores: the usable CPUs are put in order of (OS node, last-level
 *	  cache, core, CPU).  A core's thread siblings are neighbours in it, and
 *	  from here on a core is the smallest thing that is handed out.  What
 *	  belongs together (a node, a cache) is a run of cores.
 * 2. find_domains: runs are cut where the OS node, or the cache, changes.
 *	  Memory without CPUs is a domain of no cores: in its place by OS node id
 *	  where domains are NUMA nodes, at the end where they are caches.
 * 3. divide: domains become parts, one for one, or merged or split to reach
 *	  num_nodes.  An even division ignores the domains and cuts all cores.
 * 4. emit_nodes: CPUs, memories and distances of each part.
 *
 * Rules, where several would do:
 *
 * - A CPU is usable if it is allowed and online; if the hardware tells of no CPU
 *	 at all, all allowed ones are taken to be online.  Whoever has what is allowed
 *	 from the kernel has it read as online (see nxm_hardware_read()).
 * - CPUs that no OS node lists are taken as CPUs of the lowest OS node in use,
 *	 so they end up in logical node 0.
 * - Splitting: a domain without CPUs is never split.  Each extra part goes to
 *	 the domain with the most cores a part, the lowest of equals.  Inside a
 *	 domain, whole caches go to a part, or whole parts to a cache, if their
 *	 numbers divide each other; otherwise cores are dealt out evenly.  Only
 *	 where there are more parts than cores do parts share a core.
 * - Merging: part i of n takes domains [i * d / n, (i + 1) * d / n), those
 *	 without CPUs like all others.
 * - A node's memory is that of its OS nodes; only if none of them has any is it
 *	 the nearest to each (lowest id of equals).  So a node that owns memory
 *	 never borrows, and each memory belongs to the nodes on its OS node alone,
 *	 who report equal shares of its bytes.
 * - The distance between nodes is the mean over all pairs of their OS nodes,
 *	 where the distance of an OS node to itself is 10.
 * - "auto" takes caches for nodes only if at least two of them are shared by
 *	 several usable cores.  Private last-level caches, as of virtual machines
 *	 with a socket for each CPU, would make each core a node.
 * - Without any usable CPU there is one node without CPUs, which has all the
 *	 memories, whatever num_nodes says.
 *
 * Limits: an even division leaves memory without CPUs unused, and the note says
 * so.  Needs about 80 kB of stack.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "topology.h"

/*
 * A sort key holds all that the order depends on, and the CPU itself:
 *
 *	  47     37 36      24 23       12 11        0
 *	 | node + 1 | cache + 1 |   core    |   CPU     |
 *
 * Nodes and caches are numbered from 1 so that 0 says "unknown".
 */
#define KEY_CPU_BITS	12
#define KEY_CACHE_BITS	13
#define KEY_CORE_SHIFT	KEY_CPU_BITS
#define KEY_CACHE_SHIFT (2 * KEY_CPU_BITS)
#define KEY_NODE_SHIFT	(2 * KEY_CPU_BITS + KEY_CACHE_BITS)

_Static_assert(NXM_MAX_CPUS <= 1 << KEY_CPU_BITS, "CPU fits its key");
_Static_assert(NXM_MAX_CPUS + 1 <= 1 << KEY_CACHE_BITS, "cache fits its key");
_Static_assert(NXM_MAX_OS_NODES <= INT16_MAX, "node fits Domain.os_node");

/* Each core is in one domain, and each memory without CPUs in one more. */
#define MAX_DOMAINS		(NXM_MAX_CPUS + NXM_MAX_OS_NODES)

typedef struct Domain
{
	uint16_t	first_core;
	uint16_t	ncores;			/* 0: memory only */
	int16_t		os_node;		/* -1: there are none */
} Domain;

typedef struct Part
{
	int			first_core;
	int			ncores;
	int			first_domain;	/* whose memory-only members belong to it */
	int			ndomains;
} Part;

typedef struct Plan
{
	const NxmHardware *hw;
	NxmOsNodeSet with_cpus;		/* OS nodes that have usable CPUs */
	int			ncpus;
	int			ncores;
	int			ndomains;
	uint64_t	key[NXM_MAX_CPUS];
	uint16_t	core_start[NXM_MAX_CPUS + 1];	/* index of first key */
	Domain		domain[MAX_DOMAINS];
} Plan;

static void add_note(NxmTopology *topo, const char *format,...)
			__attribute__((format(printf, 2, 3)));

/* Appends to the note, as far as there is room. */
static void
add_note(NxmTopology *topo, const char *format,...)
{
	size_t		len = strlen(topo->note);
	va_list		args;

	if (len > 0 && len + 2 < sizeof(topo->note))
	{
		memcpy(topo->note + len, "; ", 3);
		len += 2;
	}
	va_start(args, format);
	vsnprintf(topo->note + len, sizeof(topo->note) - len, format, args);
	va_end(args);
}

/* What the hardware says of a CPU, or unknown. */
static int
core_of_cpu(const NxmHardware *hw, int cpu)
{
	if (cpu < hw->ncpus && hw->cpu[cpu].core >= 0 &&
		hw->cpu[cpu].core < NXM_MAX_CPUS)
		return hw->cpu[cpu].core;
	return cpu;
}

static int
cache_of_cpu(const NxmHardware *hw, int cpu)
{
	if (cpu < hw->ncpus && hw->cpu[cpu].llc < NXM_MAX_CPUS)
		return hw->cpu[cpu].llc;
	return -1;
}

static int
os_node_of_cpu(const NxmHardware *hw, int cpu)
{
	if (cpu < hw->ncpus && hw->cpu[cpu].os_node < hw->nos_nodes)
		return hw->cpu[cpu].os_node;
	return -1;
}

static int
os_distance(const NxmHardware *hw, int from, int to)
{
	if (from == to)
		return NXM_DISTANCE_LOCAL;
	if (hw->os_node[from].distance[to] == 0)
		return NXM_DISTANCE_REMOTE;
	return hw->os_node[from].distance[to];
}

static void
find_usable(NxmTopology *topo, const NxmHardware *hw, const NxmCpuSet *cpus,
			const NxmOsNodeSet *mems)
{
	bool		all_mems = nxm_osnodeset_count(mems) == 0;

	for (int i = 0; i < NXM_MAX_CPUS; i++)
		if (nxm_cpuset_has(cpus, i) && (hw->ncpus == 0 || hw->cpu[i].online))
		{
			nxm_cpuset_add(&topo->allowed, i);
			topo->ncpus = i + 1;
		}
	for (int i = 0; i < hw->nos_nodes; i++)
		if (hw->os_node[i].memory_bytes > 0 &&
			(all_mems || nxm_osnodeset_has(mems, i)))
			nxm_osnodeset_add(&topo->memories, i);
	topo->numa = nxm_osnodeset_count(&topo->memories) > 1;
}

/* Shell sort: libc's qsort may allocate, and the input is nearly in order. */
static void
sort_keys(uint64_t *key, int n)
{
	static const int gaps[] = {1750, 701, 301, 132, 57, 23, 10, 4, 1};

	for (size_t g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++)
		for (int i = gaps[g]; i < n; i++)
		{
			uint64_t	k = key[i];
			int			j = i;

			for (; j >= gaps[g] && key[j - gaps[g]] > k; j -= gaps[g])
				key[j] = key[j - gaps[g]];
			key[j] = k;
		}
}

static void
sort_cores(Plan *plan, NxmTopology *topo)
{
	const NxmHardware *hw = plan->hw;
	uint16_t	leader[NXM_MAX_CPUS];	/* of a core: its lowest usable CPU */
	NxmOsNodeSet in_use = topo->memories;
	int			home;
	int			unlisted = 0;

	/*
	 * The node and the cache of a core are those of its leader, so that not
	 * even contradicting text can tear a core apart.
	 */
	for (int i = topo->ncpus - 1; i >= 0; i--)
		if (nxm_cpuset_has(&topo->allowed, i))
			leader[core_of_cpu(hw, i)] = (uint16_t) i;
	for (int i = 0; i < topo->ncpus; i++)
		if (nxm_cpuset_has(&topo->allowed, i))
			nxm_osnodeset_add(&in_use,
							  os_node_of_cpu(hw, leader[core_of_cpu(hw, i)]));
	home = nxm_osnodeset_next(&in_use, -1);

	for (int i = 0; i < topo->ncpus; i++)
	{
		int			core;
		int			cache;
		int			os_node;

		if (!nxm_cpuset_has(&topo->allowed, i))
			continue;
		core = core_of_cpu(hw, i);
		cache = cache_of_cpu(hw, leader[core]);
		os_node = os_node_of_cpu(hw, leader[core]);
		if (os_node < 0)
		{
			os_node = home;
			unlisted++;
		}
		nxm_osnodeset_add(&plan->with_cpus, os_node);
		plan->key[plan->ncpus++] =
			(uint64_t) (os_node + 1) << KEY_NODE_SHIFT |
			(uint64_t) (cache < 0 ? 0 : cache + 1) << KEY_CACHE_SHIFT |
			(uint64_t) core << KEY_CORE_SHIFT |
			(uint64_t) i;
	}
	if (unlisted > 0 && hw->nos_nodes > 0)
		add_note(topo, "%d CPUs that no NUMA node lists were put in node 0",
				 unlisted);

	sort_keys(plan->key, plan->ncpus);
	for (int i = 0; i < plan->ncpus; i++)
		if (i == 0 || plan->key[i] >> KEY_CORE_SHIFT !=
			plan->key[i - 1] >> KEY_CORE_SHIFT)
			plan->core_start[plan->ncores++] = (uint16_t) i;
	plan->core_start[plan->ncores] = (uint16_t) plan->ncpus;
}

/* The key of a core without its lowest bits. */
static uint64_t
core_key(const Plan *plan, int core, int shift)
{
	return plan->key[plan->core_start[core]] >> shift;
}

static int
core_os_node(const Plan *plan, int core)
{
	return (int) core_key(plan, core, KEY_NODE_SHIFT) - 1;
}

static bool
core_cache_known(const Plan *plan, int core)
{
	return (core_key(plan, core, KEY_CACHE_SHIFT) &
			((1 << KEY_CACHE_BITS) - 1)) != 0;
}

/* The core after the run that first is in; end is the end of all. */
static int
run_end(const Plan *plan, int first, int end, int shift)
{
	int			core = first;

	while (core < end &&
		   core_key(plan, core, shift) == core_key(plan, first, shift))
		core++;
	return core;
}

static int
count_runs(const Plan *plan, int first, int end, int shift)
{
	int			runs = 0;

	for (int core = first; core < end; runs++)
		core = run_end(plan, core, end, shift);
	return runs;
}

/* Caches that are known and have at least so many usable cores. */
static int
count_caches(const Plan *plan, int min_cores)
{
	int			caches = 0;
	int			end;

	for (int core = 0; core < plan->ncores; core = end)
	{
		end = run_end(plan, core, plan->ncores, KEY_CACHE_SHIFT);
		if (core_cache_known(plan, core) && end - core >= min_cores)
			caches++;
	}
	return caches;
}

static NxmNodeSource
choose_source(const Plan *plan, NxmTopology *topo, NxmNodeSource wanted)
{
	if (plan->ncores == 0)
		return NXM_SOURCE_NUMA;
	if (wanted == NXM_SOURCE_CACHE && count_caches(plan, 1) == 0)
	{
		add_note(topo, "no last-level cache is known, NUMA nodes were taken");
		return NXM_SOURCE_NUMA;
	}
	if (wanted != NXM_SOURCE_AUTO)
		return wanted;
	if (topo->numa || count_runs(plan, 0, plan->ncores, KEY_NODE_SHIFT) > 1)
		return NXM_SOURCE_NUMA;
	return count_caches(plan, 2) > 1 ? NXM_SOURCE_CACHE : NXM_SOURCE_NUMA;
}

static void
add_domain(Plan *plan, int os_node, int first_core, int ncores)
{
	Domain	   *domain = &plan->domain[plan->ndomains++];

	domain->first_core = (uint16_t) first_core;
	domain->ncores = (uint16_t) ncores;
	domain->os_node = (int16_t) os_node;
}

static void
find_domains(Plan *plan, const NxmTopology *topo)
{
	bool		cache = topo->source == NXM_SOURCE_CACHE;
	int			shift = cache ? KEY_CACHE_SHIFT : KEY_NODE_SHIFT;
	int			memory = nxm_osnodeset_next(&topo->memories, -1);
	int			end;

	for (int core = 0; core < plan->ncores; core = end)
	{
		int			os_node = core_os_node(plan, core);

		for (; !cache && memory >= 0 && memory < os_node;
			 memory = nxm_osnodeset_next(&topo->memories, memory))
			if (!nxm_osnodeset_has(&plan->with_cpus, memory))
				add_domain(plan, memory, core, 0);
		end = run_end(plan, core, plan->ncores, shift);
		add_domain(plan, os_node, core, end - core);
	}
	for (; memory >= 0; memory = nxm_osnodeset_next(&topo->memories, memory))
		if (!nxm_osnodeset_has(&plan->with_cpus, memory))
			add_domain(plan, memory, plan->ncores, 0);
}

/* Part i starts at core i * ncores / nparts, and has at least that core. */
static void
split_evenly(Part *part, int nparts, int first, int ncores)
{
	for (int i = 0; i < nparts; i++)
	{
		int			start = i * ncores / nparts;
		int			end = (i + 1) * ncores / nparts;

		part[i].first_core = first + start;
		part[i].ncores = end > start ? end - start : 1;
	}
}

/* Splits a run of cores, along its caches if their number allows it. */
static void
split_run(const Plan *plan, Part *part, int nparts, int first, int ncores)
{
	int			end = first + ncores;
	int			caches = count_runs(plan, first, end, KEY_CACHE_SHIFT);
	int			core = first;

	if (caches % nparts == 0)
	{
		for (int i = 0; i < nparts; i++)
		{
			part[i].first_core = core;
			for (int j = 0; j < caches / nparts; j++)
				core = run_end(plan, core, end, KEY_CACHE_SHIFT);
			part[i].ncores = core - part[i].first_core;
		}
		return;
	}
	if (nparts % caches == 0)
	{
		int			each = nparts / caches;
		bool		enough = true;
		int			next;

		/* a small cache must not make its parts share cores needlessly */
		for (core = first; core < end; core = next)
		{
			next = run_end(plan, core, end, KEY_CACHE_SHIFT);
			if (next - core < each)
				enough = false;
		}
		if (enough)
		{
			for (core = first; core < end; core = next)
			{
				next = run_end(plan, core, end, KEY_CACHE_SHIFT);
				split_evenly(part, each, core, next - core);
				part += each;
			}
			return;
		}
	}
	split_evenly(part, nparts, first, ncores);
}

static void
split_domains(const Plan *plan, Part *part, int nparts)
{
	int			share[NXM_MAX_NODES];
	int			next = 0;

	for (int i = 0; i < plan->ndomains; i++)
		share[i] = 1;
	for (int extra = nparts - plan->ndomains; extra > 0; extra--)
	{
		int			most = 0;

		for (int i = 1; i < plan->ndomains; i++)
			if (plan->domain[i].ncores * share[most] >
				plan->domain[most].ncores * share[i])
				most = i;
		share[most]++;
	}
	for (int i = 0; i < plan->ndomains; i++)
	{
		const Domain *domain = &plan->domain[i];

		if (domain->ncores == 0)
		{
			part[next].first_domain = i;
			part[next].ndomains = 1;
		}
		else
			split_run(plan, &part[next], share[i], domain->first_core,
					  domain->ncores);
		next += share[i];
	}
}

static void
merge_domains(const Plan *plan, Part *part, int nparts)
{
	for (int i = 0; i < nparts; i++)
	{
		int			first = i * plan->ndomains / nparts;
		int			end = (i + 1) * plan->ndomains / nparts;

		part[i].first_domain = first;
		part[i].ndomains = end - first;
		if (end > first)
			part[i].first_core = plan->domain[first].first_core;
		for (int d = first; d < end; d++)
			part[i].ncores += plan->domain[d].ncores;
	}
}

/* Whether an even division differs from the NUMA nodes. */
static bool
cuts_domains(const Plan *plan, const Part *part, int nparts)
{
	int			i = 0;

	for (int d = 0; d < plan->ndomains; d++)
	{
		if (plan->domain[d].ncores == 0)
			continue;
		if (i == nparts || part[i].first_core != plan->domain[d].first_core)
			return true;
		i++;
	}
	return i != nparts;
}

static void
divide_evenly(const Plan *plan, NxmTopology *topo, Part *part, int wanted)
{
	NxmOsNodeSet unused = {{0}};

	if (wanted == 0)
		wanted = count_runs(plan, 0, plan->ncores, KEY_NODE_SHIFT);
	topo->nnodes = wanted < NXM_MAX_NODES ? wanted : NXM_MAX_NODES;
	split_evenly(part, topo->nnodes, 0, plan->ncores);
	topo->divided = cuts_domains(plan, part, topo->nnodes);
	topo->shared_cpus = topo->nnodes > plan->ncores;

	for (int d = 0; d < plan->ndomains; d++)
		if (plan->domain[d].ncores == 0)
			nxm_osnodeset_add(&unused, plan->domain[d].os_node);
	if (nxm_osnodeset_count(&unused) > 0)
	{
		char		list[64];

		nxm_list_format(unused.word, NXM_MAX_OS_NODES, list, sizeof(list));
		add_note(topo, "memory of NUMA nodes without CPUs is not used: %s",
				 list);
	}
}

static void
divide(const Plan *plan, NxmTopology *topo, Part *part, int wanted)
{
	if (wanted < 0)
		wanted = 0;
	if (plan->ncores == 0)
	{
		add_note(topo, "no usable CPU is known, there is one node");
		topo->nnodes = 1;
		merge_domains(plan, part, 1);
		return;
	}
	if (wanted > NXM_MAX_NODES)
	{
		add_note(topo, "num_nodes was lowered from %d to %d", wanted,
				 NXM_MAX_NODES);
		wanted = NXM_MAX_NODES;
	}
	if (topo->source == NXM_SOURCE_EVEN)
	{
		divide_evenly(plan, topo, part, wanted);
		return;
	}
	if (wanted == 0 && plan->ndomains > NXM_MAX_NODES)
		add_note(topo, "%d nodes were found and merged into %d",
				 plan->ndomains, NXM_MAX_NODES);
	if (wanted == 0)
		wanted = plan->ndomains < NXM_MAX_NODES ? plan->ndomains :
			NXM_MAX_NODES;
	topo->nnodes = wanted;
	topo->divided = wanted != plan->ndomains;
	if (wanted <= plan->ndomains)
		merge_domains(plan, part, wanted);
	else
	{
		int			cpu_parts = wanted;

		split_domains(plan, part, wanted);
		for (int d = 0; d < plan->ndomains; d++)
			if (plan->domain[d].ncores == 0)
				cpu_parts--;
		topo->shared_cpus = cpu_parts > plan->ncores;
	}
}

/*
 * The mean of all pairs; 10 where one of the sets is empty, which is so only
 * if there are no OS nodes.
 */
static uint16_t
mean_distance(const NxmHardware *hw, const NxmOsNodeSet *from,
			  const NxmOsNodeSet *to)
{
	uint64_t	sum = 0;
	uint64_t	pairs = 0;

	for (int a = nxm_osnodeset_next(from, -1); a >= 0;
		 a = nxm_osnodeset_next(from, a))
		for (int b = nxm_osnodeset_next(to, -1); b >= 0;
			 b = nxm_osnodeset_next(to, b))
		{
			sum += (uint64_t) os_distance(hw, a, b);
			pairs++;
		}
	return pairs == 0 ? NXM_DISTANCE_LOCAL :
		(uint16_t) ((sum + pairs / 2) / pairs);
}

static int
nearest_memory(const NxmHardware *hw, const NxmOsNodeSet *memories, int os_node)
{
	int			best = -1;

	for (int m = nxm_osnodeset_next(memories, -1); m >= 0;
		 m = nxm_osnodeset_next(memories, m))
		if (best < 0 ||
			os_distance(hw, os_node, m) < os_distance(hw, os_node, best))
			best = m;
	return best;
}

/* On entry mems holds the OS nodes that the node stands on. */
static void
find_memory(const NxmHardware *hw, const NxmOsNodeSet *memories, NxmNode *node)
{
	NxmOsNodeSet stands_on = node->mems;
	bool		any = false;

	for (int w = 0; w < NXM_OS_NODE_WORDS; w++)
	{
		node->mems.word[w] &= memories->word[w];
		any |= node->mems.word[w] != 0;
	}

	/* where no memory is known, nobody borrows a neighbour's */
	node->own_memory = any || nxm_osnodeset_count(memories) == 0;
	if (node->own_memory)
		return;
	for (int m = nxm_osnodeset_next(&stands_on, -1); m >= 0;
		 m = nxm_osnodeset_next(&stands_on, m))
		nxm_osnodeset_add(&node->mems, nearest_memory(hw, memories, m));
}

static void
emit_nodes(const Plan *plan, NxmTopology *topo, const Part *part)
{
	const NxmHardware *hw = plan->hw;

	/* until the distances are done, mems is what the node stands on */
	for (int i = 0; i < topo->nnodes; i++)
	{
		NxmNode    *node = &topo->node[i];
		int			last = part[i].first_core + part[i].ncores;

		for (int core = part[i].first_core; core < last; core++)
		{
			nxm_osnodeset_add(&node->mems, core_os_node(plan, core));
			for (int k = plan->core_start[core];
				 k < plan->core_start[core + 1]; k++)
				nxm_cpuset_add(&node->cpus, (int)
							   (plan->key[k] & ((1 << KEY_CPU_BITS) - 1)));
		}
		last = part[i].first_domain + part[i].ndomains;
		for (int d = part[i].first_domain; d < last; d++)
			nxm_osnodeset_add(&node->mems, plan->domain[d].os_node);

		node->cpu_count = nxm_cpuset_count(&node->cpus);
		if (node->cpu_count > 0)
			topo->ncpu_nodes++;
		node->os_node = nxm_osnodeset_next(&node->mems, -1);
		if (nxm_osnodeset_count(&node->mems) > 1)
			node->os_node = -1;
	}
	if (topo->ncpu_nodes == 0)
		topo->ncpu_nodes = 1;

	for (int i = 0; i < topo->nnodes; i++)
		for (int j = 0; j < topo->nnodes; j++)
			topo->node[i].distance[j] = i == j ? NXM_DISTANCE_LOCAL :
				mean_distance(hw, &topo->node[i].mems, &topo->node[j].mems);

	for (int m = nxm_osnodeset_next(&topo->memories, -1); m >= 0;
		 m = nxm_osnodeset_next(&topo->memories, m))
	{
		uint64_t	sharers = 0;

		for (int i = 0; i < topo->nnodes; i++)
			if (nxm_osnodeset_has(&topo->node[i].mems, m))
				sharers++;
		for (int i = 0; i < topo->nnodes; i++)
			if (nxm_osnodeset_has(&topo->node[i].mems, m))
				topo->node[i].memory_bytes +=
					hw->os_node[m].memory_bytes / sharers;
	}

	for (int i = 0; i < topo->nnodes; i++)
		find_memory(hw, &topo->memories, &topo->node[i]);
}

void
nxm_topology_build(NxmTopology *topo, const NxmHardware *hw,
				   const NxmCpuSet *cpus, const NxmOsNodeSet *mems,
				   NxmNodeSource source, int num_nodes)
{
	Plan		plan;
	Part		part[NXM_MAX_NODES];

	memset(topo, 0, sizeof(*topo));
	memset(&plan, 0, sizeof(plan));
	memset(part, 0, sizeof(part));
	plan.hw = hw;
	if (hw->left_out)
		add_note(topo, "CPUs past %d or NUMA nodes past %d were left out",
				 NXM_MAX_CPUS, NXM_MAX_OS_NODES);
	find_usable(topo, hw, cpus, mems);
	if (hw->nos_nodes > 0 && nxm_osnodeset_count(&topo->memories) == 0)
		add_note(topo, "no usable memory of any NUMA node is known");
	sort_cores(&plan, topo);
	topo->source = choose_source(&plan, topo, source);
	find_domains(&plan, topo);
	divide(&plan, topo, part, num_nodes);
	emit_nodes(&plan, topo, part);
}

int
nxm_topology_node_of_cpu(const NxmTopology *topo, int cpu)
{
	for (int i = 0; i < topo->nnodes; i++)
		if (nxm_cpuset_has(&topo->node[i].cpus, cpu))
			return i;
	return -1;
}

int
nxm_topology_node_of_memory(const NxmTopology *topo, int os_node)
{
	for (int i = 0; i < topo->nnodes; i++)
		if (topo->node[i].own_memory &&
			nxm_osnodeset_has(&topo->node[i].mems, os_node))
			return i;
	return -1;
}

const char *
nxm_node_source_name(NxmNodeSource source)
{
	switch (source)
	{
		case NXM_SOURCE_AUTO:
			return "auto";
		case NXM_SOURCE_NUMA:
			return "numa";
		case NXM_SOURCE_CACHE:
			return "cache";
		case NXM_SOURCE_EVEN:
			return "even";
	}
	return "unknown";
}
