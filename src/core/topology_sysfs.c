/*
 * topology_sysfs.c
 *	  Reads what Linux tells of CPUs, caches and memory under
 *	  /sys/devices/system.
 *
 * The files come through a callback, so that a recording of another machine is
 * read by the same code as the machine that we run on.
 *
 * Text is trusted for nothing: what cannot be parsed is unknown, numbers are
 * limited to the arrays' ranges, and lists that contradict each other (a CPU
 * in two nodes, siblings that do not name each other) still yield one answer.
 * A file that fills the whole buffer was cut off, and counts as unreadable.
 * What CPUs are online the caller may know better: lxcfs shows a container of
 * n CPUs that 0 to n - 1 are, whichever it has.
 *
 * Limits: kernels that print only masks (thread_siblings, shared_cpu_map) and
 * no lists are not understood; such kernels are older than any that the
 * supported PostgreSQL versions are run on.  Memory-side caches and the initiator
 * classes of heterogeneous memory are not read.
 */
#include <stdio.h>
#include <string.h>

#include "topology.h"

/*
 * The longest list of NXM_MAX_CPUS members is every second CPU, five bytes
 * each; the longest row of distances is NXM_MAX_OS_NODES times four bytes.
 */
#define TEXT_SIZE	(4 * NXM_MAX_CPUS)

/* More indexes than any CPU has; a hole in their numbering is passed over. */
#define MAX_CACHES	8

typedef struct Reader
{
	NxmReadFile read;
	void	   *arg;
	char		text[TEXT_SIZE];
} Reader;

/* Leaves the text of a file in reader->text. */
static bool
read_text(Reader *reader, const char *path)
{
	int			len = reader->read(reader->arg, path, reader->text, TEXT_SIZE);

	if (len < 0 || len >= TEXT_SIZE - 1)
		return false;
	reader->text[len] = '\0';
	return true;
}

static bool
read_list(Reader *reader, const char *path, uint64_t *words, int nbits,
		  bool *left_out)
{
	bool		some_left_out;

	memset(words, 0, (size_t) (nbits + 63) / 64 * sizeof(uint64_t));
	if (!read_text(reader, path) ||
		!nxm_list_parse(reader->text, words, nbits, &some_left_out))
		return false;
	if (left_out && some_left_out)
		*left_out = true;
	return true;
}

/*
 * Parses the decimal number that *text starts with, after blanks, and moves
 * *text behind it.  Larger numbers than UINT64_MAX are taken as that.
 */
static bool
parse_number(const char **text, uint64_t *value)
{
	const char *p = *text;
	uint64_t	v = 0;

	while (*p == ' ' || *p == '\t')
		p++;
	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
	{
		unsigned	digit = (unsigned) (*p - '0');

		v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
	}
	*text = p;
	*value = v;
	return true;
}

/* The number in a file of its own, or -1. */
static int32_t
read_small_number(Reader *reader, const char *path)
{
	const char *p = reader->text;
	uint64_t	value;

	if (!read_text(reader, path) || !parse_number(&p, &value) ||
		value > INT32_MAX)
		return -1;
	return (int32_t) value;
}

static int
lowest_cpu(const NxmCpuSet *set)
{
	for (int i = 0; i < NXM_MAX_CPUS; i++)
		if (nxm_cpuset_has(set, i))
			return i;
	return -1;
}

static void
read_cpu_topology(Reader *reader, int cpu, NxmCpu *result)
{
	char		path[80];
	NxmCpuSet	siblings;

	snprintf(path, sizeof(path), "cpu/cpu%d/topology/physical_package_id",
			 cpu);
	result->package = read_small_number(reader, path);

	snprintf(path, sizeof(path), "cpu/cpu%d/topology/thread_siblings_list",
			 cpu);
	if (!read_list(reader, path, siblings.word, NXM_MAX_CPUS, NULL))
	{
		snprintf(path, sizeof(path), "cpu/cpu%d/topology/core_cpus_list",
				 cpu);
		read_list(reader, path, siblings.word, NXM_MAX_CPUS, NULL);
	}
	result->core = lowest_cpu(&siblings);
	if (result->core < 0)
		result->core = cpu;
}

/*
 * The last level differs between machines (L3 mostly, L2 on some) and between
 * the CPUs of one machine, so it is looked for on each CPU.
 */
static void
read_cpu_cache(Reader *reader, int cpu, NxmCpu *result)
{
	char		path[80];
	int			best = -1;
	int32_t		best_level = 0;
	NxmCpuSet	sharers;

	for (int i = 0; i < MAX_CACHES; i++)
	{
		int32_t		level;

		snprintf(path, sizeof(path), "cpu/cpu%d/cache/index%d/level", cpu, i);
		level = read_small_number(reader, path);
		if (level <= best_level)
			continue;
		snprintf(path, sizeof(path), "cpu/cpu%d/cache/index%d/type", cpu, i);
		if (!read_text(reader, path) ||
			(strncmp(reader->text, "Unified", 7) != 0 &&
			 strncmp(reader->text, "Data", 4) != 0))
			continue;
		best = i;
		best_level = level;
	}
	if (best < 0)
		return;
	snprintf(path, sizeof(path), "cpu/cpu%d/cache/index%d/shared_cpu_list",
			 cpu, best);
	read_list(reader, path, sharers.word, NXM_MAX_CPUS, NULL);
	result->llc = lowest_cpu(&sharers);
}

static bool
read_cpus(NxmHardware *hw, const NxmCpuSet *in_use, Reader *reader)
{
	NxmCpuSet	possible;
	NxmCpuSet	online;
	bool		know_online;

	/* possible reaches further than what exists: past the limit it may */
	know_online = read_list(reader, "cpu/online", online.word, NXM_MAX_CPUS,
							&hw->left_out);
	read_list(reader, "cpu/possible", possible.word, NXM_MAX_CPUS,
			  know_online ? NULL : &hw->left_out);

	for (int i = 0; i < NXM_MAX_CPUS; i++)
	{
		NxmCpu	   *cpu = &hw->cpu[i];
		bool		known = in_use && nxm_cpuset_has(in_use, i);
		bool		is_online = known || nxm_cpuset_has(&online, i);

		cpu->package = cpu->core = cpu->llc = cpu->os_node = -1;
		if (!is_online && !nxm_cpuset_has(&possible, i))
			continue;
		hw->ncpus = i + 1;
		if (!know_online && !known)
		{
			char		path[80];

			/* a CPU that cannot be taken offline has no such file */
			snprintf(path, sizeof(path), "cpu/cpu%d/online", i);
			is_online = read_small_number(reader, path) != 0;
		}
		if (!is_online)
			continue;
		cpu->online = true;
		read_cpu_topology(reader, i, cpu);
		read_cpu_cache(reader, i, cpu);
	}
	return hw->ncpus > 0;
}

/*
 * "Node 0 MemTotal:       65848480 kB".  A node whose memory is all offline
 * has the line too, with 0.
 */
static uint64_t
read_node_memory(Reader *reader, int node)
{
	char		path[80];
	const char *p;
	uint64_t	kilobytes;

	snprintf(path, sizeof(path), "node/node%d/meminfo", node);
	if (!read_text(reader, path))
		return 0;
	p = strstr(reader->text, "MemTotal:");
	if (!p)
		return 0;
	p += strlen("MemTotal:");
	if (!parse_number(&p, &kilobytes))
		return 0;

	/* keeps the sum over all nodes inside of 64 bits */
	if (kilobytes > UINT64_MAX / 1024 / NXM_MAX_OS_NODES)
		kilobytes = UINT64_MAX / 1024 / NXM_MAX_OS_NODES;
	return kilobytes * 1024;
}

/*
 * A row has one number for each node that is online, in order of their ids,
 * with nothing to tell which is which.  So a row with another count than that
 * is worthless, unless it is the nodes past our limit that make it longer.
 */
static void
read_node_distances(NxmHardware *hw, Reader *reader, int node,
					const NxmOsNodeSet *online, bool left_out)
{
	char		path[80];
	uint16_t   *row = hw->os_node[node].distance;
	int			to = -1;
	const char *p = reader->text;
	uint64_t	value;

	snprintf(path, sizeof(path), "node/node%d/distance", node);
	if (!read_text(reader, path))
		return;
	while ((to = nxm_osnodeset_next(online, to)) >= 0)
	{
		if (!parse_number(&p, &value))
			break;
		/* firmware's mistakes: nothing is nearer than a node to itself */
		if (value >= NXM_DISTANCE_LOCAL && value <= UINT16_MAX)
			row[to] = (uint16_t) value;
	}
	if (to >= 0 || (!left_out && parse_number(&p, &value)))
		memset(row, 0, sizeof(hw->os_node[node].distance));
}

static void
read_nodes(NxmHardware *hw, Reader *reader)
{
	NxmOsNodeSet online;
	bool		left_out = false;
	int			node = -1;

	/*
	 * Both files have been there as long as the directory.  Where only
	 * possible can be read, it is taken for online; nodes that do not exist
	 * then come out without CPUs and memory, and are never used.
	 */
	if (!read_list(reader, "node/online", online.word, NXM_MAX_OS_NODES,
				   &left_out))
		read_list(reader, "node/possible", online.word, NXM_MAX_OS_NODES,
				  &left_out);
	hw->left_out |= left_out;

	while ((node = nxm_osnodeset_next(&online, node)) >= 0)
	{
		char		path[80];
		NxmCpuSet	cpus;

		hw->os_node[node].present = true;
		hw->nos_nodes = node + 1;

		/* numa=fake lists a CPU in several nodes: the lowest gets it */
		snprintf(path, sizeof(path), "node/node%d/cpulist", node);
		read_list(reader, path, cpus.word, NXM_MAX_CPUS, NULL);
		for (int i = 0; i < hw->ncpus; i++)
			if (nxm_cpuset_has(&cpus, i) && hw->cpu[i].os_node < 0)
				hw->cpu[i].os_node = node;

		hw->os_node[node].memory_bytes = read_node_memory(reader, node);
		read_node_distances(hw, reader, node, &online, left_out);
	}
}

bool
nxm_hardware_read(NxmHardware *hw, const NxmCpuSet *online, NxmReadFile read,
				  void *arg)
{
	Reader		reader;

	memset(hw, 0, sizeof(*hw));
	reader.read = read;
	reader.arg = arg;
	if (!read_cpus(hw, online, &reader))
		return false;
	read_nodes(hw, &reader);
	return true;
}
