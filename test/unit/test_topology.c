/*
 * test_topology.c
 *	  Logical nodes of recorded and of random machines.
 *
 * A recording is a file under trees/, in the format that
 * "grep -r . /sys/devices/system/{cpu,node}" prints, without the leading path
 * and reduced to the files that matter.  Lines that start with # are comments.
 *
 * The big structures are static: they do not fit the stack.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "topology.h"

#define MAX_FILES 8192

typedef struct File
{
	const char *path;
	const char *content;		/* without its newline */
} File;

static char tree_text[256 * 1024];
static File tree_file[MAX_FILES];
static int	tree_nfiles;

static NxmHardware hw;
static NxmTopology topo;
static NxmTopology topo2;
static NxmCpuSet all_cpus;
static NxmCpuSet cpus;
static NxmOsNodeSet mems;

static uint64_t random_state;

/* xorshift64*: the same sequence everywhere */
static uint32_t
random_number(uint32_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t) ((random_state * UINT64_C(2685821657736338717)) >> 32) %
		below;
}

static int
compare_files(const void *a, const void *b)
{
	return strcmp(((const File *) a)->path, ((const File *) b)->path);
}

/* Makes tree_text the tree. */
static void
index_tree(void)
{
	char	   *line = tree_text;

	tree_nfiles = 0;
	while (*line)
	{
		char	   *end = strchr(line, '\n');
		char	   *colon = strchr(line, ':');

		if (end)
			*end = '\0';
		if (*line != '#' && colon && tree_nfiles < MAX_FILES)
		{
			*colon = '\0';
			tree_file[tree_nfiles].path = line;
			tree_file[tree_nfiles++].content = colon + 1;
		}
		if (!end)
			break;
		line = end + 1;
	}
	qsort(tree_file, (size_t) tree_nfiles, sizeof(File), compare_files);
}

static int
read_tree(void *arg, const char *path, char *buf, size_t size)
{
	File		key = {path, NULL};
	const File *file;
	int			len;

	(void) arg;
	file = bsearch(&key, tree_file, (size_t) tree_nfiles, sizeof(File),
				   compare_files);
	if (!file)
		return -1;
	len = snprintf(buf, size, "%s\n", file->content);
	return len < (int) size ? len : (int) size - 1;
}

static void
load_text(const char *text)
{
	assert_true(strlen(text) < sizeof(tree_text));
	strcpy(tree_text, text);
	index_tree();
	nxm_hardware_read(&hw, NULL, read_tree, NULL);
}

static void
load(const char *name)
{
	char		path[200];
	FILE	   *file;
	size_t		len;

	snprintf(path, sizeof(path), "trees/%s", name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("cannot open %s: run in test/unit", path);
	len = fread(tree_text, 1, sizeof(tree_text) - 1, file);
	fclose(file);
	assert_true(len < sizeof(tree_text) - 1);
	tree_text[len] = '\0';
	index_tree();
	assert_true(tree_nfiles < MAX_FILES);
	assert_true(nxm_hardware_read(&hw, NULL, read_tree, NULL));
}

static void
build(NxmNodeSource source, int num_nodes)
{
	static const NxmOsNodeSet any;

	nxm_topology_build(&topo, &hw, &all_cpus, &any, source, num_nodes);
}

static void
build_allowed(const char *cpu_list, const char *mem_list,
			  NxmNodeSource source, int num_nodes)
{
	assert_true(nxm_list_parse(cpu_list, cpus.word, NXM_MAX_CPUS, NULL));
	assert_true(nxm_list_parse(mem_list, mems.word, NXM_MAX_OS_NODES, NULL));
	nxm_topology_build(&topo, &hw, &cpus, &mems, source, num_nodes);
}

static void
assert_node(int i, const char *cpu_list, const char *mem_list)
{
	static char text[2][4 * NXM_MAX_CPUS];

	assert_in_range(i, 0, topo.nnodes - 1);
	nxm_list_format(topo.node[i].cpus.word, NXM_MAX_CPUS, text[0],
					sizeof(text[0]));
	nxm_list_format(topo.node[i].mems.word, NXM_MAX_OS_NODES, text[1],
					sizeof(text[1]));
	assert_string_equal(text[0], cpu_list);
	assert_string_equal(text[1], mem_list);
}

static void
assert_distances(int i, const uint16_t *distance)
{
	for (int j = 0; j < topo.nnodes; j++)
		assert_int_equal(topo.node[i].distance[j], distance[j]);
}

/*
 * What holds for every topology made of hw, whatever it is.  Plain conditions
 * rather than assert_*, which is too slow for thousands of machines.
 */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
			fail_msg("%s: line %d (note \"%s\", %d nodes)", #condition, \
					 __LINE__, topo.note, topo.nnodes); \
	} while (0)

static void
check_invariants(const NxmCpuSet *allowed, const NxmOsNodeSet *allowed_mems,
				 NxmNodeSource source, int num_nodes)
{
	static int16_t node_of_core[NXM_MAX_CPUS];
	static bool core_seen[NXM_MAX_CPUS];
	bool		all_mems = nxm_osnodeset_count(allowed_mems) == 0;
	bool		any_memory = false;
	int			usable = 0;
	int			ncores = 0;
	int			counted = 0;
	int			cpu_nodes = 0;
	uint64_t	bytes = 0;
	uint64_t	reported = 0;

	REQUIRE(topo.nnodes >= 1 && topo.nnodes <= NXM_MAX_NODES);
	REQUIRE(topo.source != NXM_SOURCE_AUTO);
	REQUIRE(memchr(topo.note, '\0', sizeof(topo.note)) != NULL);

	for (int m = 0; m < NXM_MAX_OS_NODES; m++)
	{
		bool		usable_memory = m < hw.nos_nodes &&
			hw.os_node[m].memory_bytes > 0 &&
			(all_mems || nxm_osnodeset_has(allowed_mems, m));
		int			owner = nxm_topology_node_of_memory(&topo, m);

		REQUIRE(nxm_osnodeset_has(&topo.memories, m) == usable_memory);
		if (!usable_memory)
			REQUIRE(owner == -1);
		else if (topo.source != NXM_SOURCE_EVEN)
			REQUIRE(owner >= 0);
		if (owner >= 0)
			bytes += hw.os_node[m].memory_bytes;
		any_memory |= usable_memory;
	}
	REQUIRE(topo.numa == (nxm_osnodeset_count(&topo.memories) > 1));

	memset(core_seen, 0, sizeof(core_seen));
	memset(node_of_core, -1, sizeof(node_of_core));
	for (int i = 0; i < NXM_MAX_CPUS; i++)
	{
		bool		known = i < hw.ncpus;
		bool		is_usable = nxm_cpuset_has(allowed, i) &&
			(hw.ncpus == 0 || hw.cpu[i].online);
		int			core = known && hw.cpu[i].core >= 0 ? hw.cpu[i].core : i;
		int			node = nxm_topology_node_of_cpu(&topo, i);

		REQUIRE(nxm_cpuset_has(&topo.allowed, i) == is_usable);
		REQUIRE((node >= 0) == is_usable);
		if (!is_usable)
			continue;
		usable++;
		REQUIRE(i < topo.ncpus);
		if (!core_seen[core])
			ncores++;
		core_seen[core] = true;
		/* siblings are together, even where cores are shared */
		if (node_of_core[core] < 0)
			node_of_core[core] = (int16_t) node;
		REQUIRE(node_of_core[core] == node);
		/* a node's memory is that of its CPUs, where there is any */
		if (known && hw.cpu[i].os_node >= 0 && hw.cpu[i].core == i &&
			nxm_osnodeset_has(&topo.memories, hw.cpu[i].os_node))
			REQUIRE(nxm_osnodeset_has(&topo.node[node].mems,
									  hw.cpu[i].os_node));
	}
	for (int i = 0; i < topo.nnodes; i++)
	{
		const NxmNode *node = &topo.node[i];

		REQUIRE(node->cpu_count == nxm_cpuset_count(&node->cpus));
		counted += node->cpu_count;
		if (node->cpu_count > 0)
			cpu_nodes++;
		for (int w = 0; w < NXM_OS_NODE_WORDS; w++)
			REQUIRE((node->mems.word[w] & ~topo.memories.word[w]) == 0);
		if (any_memory)
			REQUIRE(nxm_osnodeset_count(&node->mems) > 0);
		if (!node->own_memory)
			REQUIRE(node->memory_bytes == 0 && node->cpu_count > 0);
		else if (any_memory)
			REQUIRE(node->memory_bytes > 0);
		reported += node->memory_bytes;
		REQUIRE(node->distance[i] == NXM_DISTANCE_LOCAL);
		for (int j = 0; j < topo.nnodes; j++)
		{
			REQUIRE(node->distance[j] >= NXM_DISTANCE_LOCAL);
			if (node->os_node >= 0 && node->os_node == topo.node[j].os_node)
				REQUIRE(node->distance[j] == NXM_DISTANCE_LOCAL);
		}
		if (source != NXM_SOURCE_EVEN && !topo.divided && i > 0 &&
			topo.source == NXM_SOURCE_NUMA)
			REQUIRE(node->os_node > topo.node[i - 1].os_node);
	}
	REQUIRE(topo.shared_cpus ? counted > usable && cpu_nodes > ncores :
			counted == usable);
	REQUIRE(topo.ncpu_nodes == (cpu_nodes > 0 ? cpu_nodes : 1));
	REQUIRE(reported <= bytes);
	REQUIRE(bytes - reported <= (uint64_t) NXM_MAX_NODES * NXM_MAX_OS_NODES);
	if (usable == 0)
		REQUIRE(topo.nnodes == 1);
	else if (num_nodes > 0)
		REQUIRE(topo.nnodes == (num_nodes < NXM_MAX_NODES ? num_nodes :
								NXM_MAX_NODES));
	else if (topo.nnodes < NXM_MAX_NODES && topo.source != NXM_SOURCE_EVEN)
		REQUIRE(!topo.divided);
}

static void
xeon_4s(void **state)
{
	static const uint16_t distance[4] = {21, 21, 10, 21};

	(void) state;
	load("xeon-4s20c2t");
	assert_int_equal(hw.ncpus, 160);
	assert_int_equal(hw.cpu[133].core, 53);
	assert_int_equal(hw.cpu[133].package, 2);
	assert_int_equal(hw.cpu[133].llc, 40);
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.source, NXM_SOURCE_NUMA);
	assert_int_equal(topo.nnodes, 4);
	assert_int_equal(topo.ncpus, 160);
	assert_true(topo.numa);
	assert_false(topo.divided);
	assert_string_equal(topo.note, "");
	assert_node(0, "0-19,80-99", "0");
	assert_node(3, "60-79,140-159", "3");
	assert_int_equal(topo.node[0].memory_bytes, UINT64_C(264105960) * 1024);
	assert_distances(2, distance);
	assert_int_equal(nxm_topology_node_of_cpu(&topo, 159), 3);
	assert_int_equal(nxm_topology_node_of_cpu(&topo, 160), -1);
	assert_int_equal(nxm_topology_node_of_memory(&topo, 2), 2);
	assert_int_equal(nxm_topology_node_of_memory(&topo, 4), -1);
	check_invariants(&all_cpus, &mems, NXM_SOURCE_AUTO, 0);
}

static void
merge(void **state)
{
	static const uint16_t distance[2] = {10, 21};

	(void) state;
	load("xeon-4s20c2t");
	build(NXM_SOURCE_NUMA, 2);
	assert_int_equal(topo.nnodes, 2);
	assert_true(topo.divided);
	assert_node(0, "0-39,80-119", "0-1");
	assert_node(1, "40-79,120-159", "2-3");
	assert_int_equal(topo.node[0].os_node, -1);
	assert_true(topo.node[1].own_memory);
	assert_int_equal(topo.node[1].memory_bytes,
					 hw.os_node[2].memory_bytes + hw.os_node[3].memory_bytes);
	assert_distances(0, distance);
	build(NXM_SOURCE_NUMA, 3);
	assert_node(0, "0-19,80-99", "0");
	assert_int_equal(topo.node[0].os_node, 0);
	assert_node(2, "40-79,120-159", "2-3");
	build(NXM_SOURCE_NUMA, 1);
	assert_node(0, "0-159", "0-3");
}

static void
split(void **state)
{
	static const uint16_t distance[8] = {10, 10, 21, 21, 21, 21, 21, 21};

	(void) state;
	load("xeon-4s20c2t");
	build(NXM_SOURCE_NUMA, 8);
	assert_int_equal(topo.nnodes, 8);
	assert_true(topo.divided);
	assert_false(topo.shared_cpus);
	assert_node(0, "0-9,80-89", "0");
	assert_node(1, "10-19,90-99", "0");
	assert_node(7, "70-79,150-159", "3");
	assert_int_equal(topo.node[0].memory_bytes,
					 hw.os_node[0].memory_bytes / 2);
	assert_distances(1, distance);
	build(NXM_SOURCE_NUMA, 5);
	assert_node(1, "10-19,90-99", "0");
	assert_node(2, "20-39,100-119", "1");
}

static void
epyc_12_caches(void **state)
{
	(void) state;
	load("epyc-1s96c2t-12l3");
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.source, NXM_SOURCE_CACHE);
	assert_int_equal(topo.nnodes, 12);
	assert_false(topo.numa);
	assert_node(0, "0-7,96-103", "0");
	assert_node(11, "88-95,184-191", "0");
	assert_int_equal(topo.node[3].os_node, 0);
	assert_int_equal(topo.node[3].memory_bytes,
					 hw.os_node[0].memory_bytes / 12);
	assert_int_equal(topo.node[3].distance[8], NXM_DISTANCE_LOCAL);
	build(NXM_SOURCE_NUMA, 0);
	assert_int_equal(topo.nnodes, 1);
	assert_node(0, "0-191", "0");
	build(NXM_SOURCE_CACHE, 4);
	assert_node(1, "24-47,120-143", "0");
	assert_int_equal(topo.node[1].os_node, 0);
	build(NXM_SOURCE_CACHE, 24);
	assert_node(1, "4-7,100-103", "0");
	build(NXM_SOURCE_EVEN, 0);
	assert_int_equal(topo.source, NXM_SOURCE_EVEN);
	assert_int_equal(topo.nnodes, 1);
	assert_false(topo.divided);
	build(NXM_SOURCE_EVEN, 5);
	assert_true(topo.divided);
	assert_node(0, "0-18,96-114", "0");
	assert_node(4, "76-95,172-191", "0");
}

/* Three caches of 8, 8 and 3 usable cores, and one of 7. */
static void
split_along_caches(void **state)
{
	(void) state;
	load("epyc-1s96c2t-12l3");
	build_allowed("0-18,24-30", "", NXM_SOURCE_NUMA, 2);
	assert_node(0, "0-15", "0");
	assert_node(1, "16-18,24-30", "0");
	build_allowed("0-18,24-30", "", NXM_SOURCE_NUMA, 8);
	assert_node(1, "4-7", "0");
	assert_node(4, "16", "0");
	assert_node(5, "17-18", "0");
	assert_node(6, "24-26", "0");
	/* four parts a cache are too many for the small one: evenly, unshared */
	build_allowed("0-18,24-30", "", NXM_SOURCE_NUMA, 16);
	assert_false(topo.shared_cpus);
	build_allowed("0-18,24-30", "", NXM_SOURCE_NUMA, 3);
	assert_node(0, "0-7", "0");
	assert_node(1, "8-16", "0");
}

static void
epyc_nps4(void **state)
{
	(void) state;
	load("epyc-1s64c2t-nps4");
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.source, NXM_SOURCE_NUMA);
	assert_int_equal(topo.nnodes, 4);
	assert_node(1, "16-31,80-95", "1");
	assert_int_equal(topo.node[1].distance[0], 12);
	build(NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, 8);
	assert_node(2, "16-23,80-87", "1");
	assert_node(3, "24-31,88-95", "1");
	assert_int_equal(topo.node[2].distance[3], NXM_DISTANCE_LOCAL);
	assert_int_equal(topo.node[2].distance[4], 12);
}

/* The kernel's L3 lists reach over both nodes of a socket. */
static void
xeon_snc(void **state)
{
	static const uint16_t distance[4] = {21, 21, 10, 11};

	(void) state;
	load("xeon-2s20c2t-snc2");
	assert_int_equal(hw.cpu[3].llc, 0);
	build(NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, 4);
	assert_node(0, "0-2,5-6,10-12,15-16,40-42,45-46,50-52,55-56", "0");
	assert_node(1, "3-4,7-9,13-14,17-19,43-44,47-49,53-54,57-59", "1");
	assert_distances(2, distance);
	build(NXM_SOURCE_AUTO, 2);
	assert_node(1, "20-39,60-79", "2-3");
}

static void
sparse_node_ids(void **state)
{
	static const uint16_t distance[2][2] = {{10, 32}, {31, 10}};

	(void) state;
	load("sparse-nodes-0-2");
	assert_int_equal(hw.nos_nodes, 3);
	assert_false(hw.os_node[1].present);
	assert_int_equal(hw.os_node[0].distance[1], 0);
	assert_int_equal(hw.os_node[0].distance[2], 32);
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 2);
	assert_node(0, "0,2,4,6,8,10,12,14", "0");
	assert_node(1, "1,3,5,7,9,11,13,15", "2");
	assert_int_equal(topo.node[1].os_node, 2);
	assert_distances(0, distance[0]);
	assert_distances(1, distance[1]);
	assert_int_equal(nxm_topology_node_of_memory(&topo, 2), 1);
	assert_int_equal(nxm_topology_node_of_memory(&topo, 1), -1);
	build(NXM_SOURCE_EVEN, 4);
	assert_node(0, "0,2,8,10", "0");
	assert_node(3, "5,7,13,15", "2");
	build(NXM_SOURCE_EVEN, 3);
	assert_int_equal(topo.node[1].os_node, -1);
	assert_node(1, "1,4,6,9,12,14", "0,2");
	/* the mean of 10 and 31, rounded */
	assert_int_equal(topo.node[1].distance[0], 21);
	assert_int_equal(topo.node[0].distance[1], 21);
	/* as many as NUMA nodes, but not the same */
	build(NXM_SOURCE_EVEN, 2);
	assert_false(topo.divided);
	build_allowed("0,2,4,1", "", NXM_SOURCE_EVEN, 0);
	assert_true(topo.divided);
	assert_node(1, "1,4", "0,2");
}

static void
offline_cpu(void **state)
{
	(void) state;
	load("offline-cpu");
	assert_int_equal(hw.ncpus, 16);
	assert_false(hw.cpu[5].online);
	assert_false(hw.cpu[8].online);
	assert_int_equal(hw.cpu[5].llc, -1);
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 1);
	assert_node(0, "0-4,6-7", "0");
	assert_int_equal(topo.ncpus, 8);
	assert_int_equal(topo.node[0].cpu_count, 7);
	build(NXM_SOURCE_AUTO, 4);
	assert_node(0, "0,4", "0");
	assert_node(1, "1", "0");
	assert_node(2, "2,6", "0");
}

/* lxcfs counts a container's CPUs and lists as many as online, from 0 on. */
static void
faked_online(void **state)
{
	(void) state;
	load("xeon-4s20c2t");
	for (int i = 0; i < tree_nfiles; i++)
		if (strcmp(tree_file[i].path, "cpu/online") == 0)
			tree_file[i].content = "0-7";
	assert_true(nxm_list_parse("4-7,24-25,104-105", cpus.word, NXM_MAX_CPUS,
							   NULL));
	assert_true(nxm_hardware_read(&hw, &cpus, read_tree, NULL));
	assert_true(hw.cpu[105].online);
	assert_int_equal(hw.cpu[105].core, 25);
	assert_int_equal(hw.cpu[105].llc, 20);
	assert_false(hw.cpu[26].online);
	nxm_topology_build(&topo, &hw, &cpus, &mems, NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 4);
	assert_int_equal(topo.ncpu_nodes, 2);
	assert_node(0, "4-7", "0");
	assert_node(1, "24-25,104-105", "1");

	/* of a CPU that nothing is written of, only that it is there is known */
	load_text("cpu/online:0\n");
	assert_true(nxm_list_parse("8", cpus.word, NXM_MAX_CPUS, NULL));
	assert_true(nxm_hardware_read(&hw, &cpus, read_tree, NULL));
	assert_int_equal(hw.ncpus, 9);
	nxm_topology_build(&topo, &hw, &cpus, &mems, NXM_SOURCE_AUTO, 0);
	assert_node(0, "8", "");
}

static void
memoryless_and_cpuless(void **state)
{
	(void) state;
	load("memoryless-and-cpuless");
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 4);
	assert_int_equal(topo.ncpu_nodes, 3);
	assert_node(0, "0-3", "0");
	assert_node(1, "4-7", "2");
	assert_node(2, "8-11", "2");
	assert_node(3, "", "3");
	assert_false(topo.node[1].own_memory);
	assert_int_equal(topo.node[1].memory_bytes, 0);
	assert_int_equal(topo.node[1].os_node, 1);
	assert_int_equal(topo.node[2].memory_bytes, UINT64_C(4000000) * 1024);
	assert_int_equal(nxm_topology_node_of_memory(&topo, 2), 2);
	assert_int_equal(topo.node[3].os_node, 3);
	assert_int_equal(topo.node[3].cpu_count, 0);
	assert_int_equal(topo.node[1].distance[3], 28);

	/* nodes without CPUs are not split */
	build(NXM_SOURCE_NUMA, 7);
	assert_node(0, "0-1", "0");
	assert_node(3, "6-7", "2");
	assert_node(6, "", "3");
	assert_false(topo.node[2].own_memory);
	build(NXM_SOURCE_NUMA, 10);
	assert_true(topo.shared_cpus);
	assert_node(9, "", "3");

	/* who owns memory does not borrow */
	build(NXM_SOURCE_NUMA, 2);
	assert_node(0, "0-7", "0");
	assert_node(1, "8-11", "2-3");
	assert_true(topo.node[0].own_memory);

	build(NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, 4);
	assert_node(3, "", "3");
	build(NXM_SOURCE_EVEN, 0);
	assert_int_equal(topo.nnodes, 3);
	assert_string_equal(topo.note,
						"memory of NUMA nodes without CPUs is not used: 3");
	assert_int_equal(nxm_topology_node_of_memory(&topo, 3), -1);
}

static void
bare_vm(void **state)
{
	(void) state;
	load("vm-bare");
	assert_int_equal(hw.nos_nodes, 0);
	build(NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.source, NXM_SOURCE_NUMA);
	assert_int_equal(topo.nnodes, 1);
	assert_node(0, "0-3", "");
	assert_int_equal(topo.node[0].os_node, -1);
	assert_true(topo.node[0].own_memory);
	assert_string_equal(topo.note, "");
	build(NXM_SOURCE_CACHE, 2);
	assert_int_equal(topo.source, NXM_SOURCE_NUMA);
	assert_string_not_equal(topo.note, "");
	assert_node(1, "2-3", "");
}

static void
allowed_cpus(void **state)
{
	(void) state;
	load("xeon-4s20c2t");
	build_allowed("20-23,60-61,141", "", NXM_SOURCE_AUTO, 0);
	/* memory of nodes 0 and 2 is allowed: nodes without CPUs */
	assert_int_equal(topo.nnodes, 4);
	assert_int_equal(topo.ncpu_nodes, 2);
	assert_node(0, "", "0");
	assert_node(1, "20-23", "1");
	assert_node(3, "60-61,141", "3");
	assert_int_equal(topo.ncpus, 142);
	build_allowed("20-23,60-61,141", "1,3", NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 2);
	assert_node(1, "60-61,141", "3");
	/* two cores a part in both: the lower node gets the fourth part */
	build_allowed("20-23,60-61,141", "1,3", NXM_SOURCE_AUTO, 4);
	assert_node(0, "20", "1");
	assert_node(2, "22-23", "1");
	assert_node(3, "60-61,141", "3");
	/* CPU 141 is the sibling of CPU 61 */
	build_allowed("20-23,60-61,141", "1,3", NXM_SOURCE_AUTO, 6);
	assert_false(topo.shared_cpus);
	assert_node(4, "60", "3");
	assert_node(5, "61,141", "3");
	/* memory without CPUs comes last where caches are nodes */
	build_allowed("20-23,60-61,141", "", NXM_SOURCE_CACHE, 0);
	assert_node(0, "20-23", "1");
	assert_node(1, "60-61,141", "3");
	assert_node(2, "", "0");
	assert_node(3, "", "2");
	build_allowed("0-3", "0", NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 1);
	assert_false(topo.numa);
}

static void
allowed_mems(void **state)
{
	(void) state;
	load("memoryless-and-cpuless");
	build_allowed("0-11", "0,3", NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 4);
	assert_node(1, "4-7", "0");
	assert_node(2, "8-11", "3");
	assert_false(topo.node[2].own_memory);
	assert_int_equal(topo.node[2].memory_bytes, 0);
	assert_false(nxm_osnodeset_has(&topo.memories, 2));
	/* nothing that is allowed has memory: left to the kernel */
	build_allowed("0-11", "1", NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.nnodes, 3);
	assert_node(0, "0-3", "");
	assert_string_not_equal(topo.note, "");
	/* equal distances: the lowest */
	load("xeon-4s20c2t");
	build_allowed("0-159", "2-3", NXM_SOURCE_AUTO, 0);
	assert_node(0, "0-19,80-99", "2");
}

static void
two_cpus_four_nodes(void **state)
{
	(void) state;
	load_text("cpu/possible:0-1\ncpu/online:0-1\n"
			  "cpu/cpu0/topology/thread_siblings_list:0\n"
			  "cpu/cpu1/topology/thread_siblings_list:1\n"
			  "node/online:0\nnode/node0/cpulist:0-1\n"
			  "node/node0/meminfo:Node 0 MemTotal:  8000000 kB\n");
	build(NXM_SOURCE_AUTO, 4);
	assert_int_equal(topo.nnodes, 4);
	assert_int_equal(topo.ncpu_nodes, 4);
	assert_true(topo.shared_cpus);
	assert_true(topo.divided);
	assert_node(0, "0", "0");
	assert_node(1, "0", "0");
	assert_node(2, "1", "0");
	assert_node(3, "1", "0");
	assert_int_equal(topo.node[0].memory_bytes, UINT64_C(2000000) * 1024);
	build(NXM_SOURCE_EVEN, 4);
	assert_true(topo.shared_cpus);
	assert_node(2, "1", "0");
	build(NXM_SOURCE_AUTO, 2);
	assert_false(topo.shared_cpus);
	assert_node(1, "1", "0");

	/* one core with two threads: whole cores are shared */
	load_text("cpu/online:0-1\n"
			  "cpu/cpu0/topology/thread_siblings_list:0-1\n"
			  "cpu/cpu1/topology/core_cpus_list:0-1\n");
	assert_int_equal(hw.cpu[1].core, 0);
	build(NXM_SOURCE_AUTO, 2);
	assert_true(topo.shared_cpus);
	assert_node(0, "0-1", "");
	assert_node(1, "0-1", "");
}

static void
no_usable_cpu(void **state)
{
	(void) state;
	load("xeon-4s20c2t");
	build_allowed("", "", NXM_SOURCE_AUTO, 4);
	assert_int_equal(topo.nnodes, 1);
	assert_int_equal(topo.ncpu_nodes, 1);
	assert_node(0, "", "0-3");
	assert_string_not_equal(topo.note, "");
	load_text("");
	assert_int_equal(hw.ncpus, 0);
	build_allowed("", "", NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, 1);
	/* nothing is known of the hardware, but CPUs are allowed */
	build_allowed("0-3", "", NXM_SOURCE_AUTO, 2);
	assert_node(1, "2-3", "");
}

/* Text that contradicts itself, or is not there. */
static void
odd_text(void **state)
{
	(void) state;
	/* no cpu/online: each CPU's own file, which CPU 0 need not have */
	load_text("cpu/possible:0-3\ncpu/cpu1/online:1\ncpu/cpu2/online:0\n");
	assert_true(hw.cpu[0].online && hw.cpu[1].online && hw.cpu[3].online);
	assert_false(hw.cpu[2].online);

	/* CPU 2 is in two nodes, CPU 3 in none, the rows of distances are short,
	 * long, and right but for one number */
	load_text("cpu/online:0-3\nnode/possible:0-2\n"
			  "node/node0/cpulist:0,2\nnode/node0/distance:10 20\n"
			  "node/node1/cpulist:1-2\nnode/node1/distance:20 10 20 20\n"
			  "node/node2/cpulist:(null)\nnode/node2/distance:30 5 10\n"
			  "node/node0/meminfo:Node 0 MemTotal: 99999999999999999999999 kB\n"
			  "node/node1/meminfo:Node 1 MemTotal: lots\n"
			  "node/node2/meminfo:Node 2 MemFree: 1 kB\n");
	assert_int_equal(hw.cpu[2].os_node, 0);
	assert_int_equal(hw.cpu[3].os_node, -1);
	assert_int_equal(hw.os_node[0].distance[1], 0);
	assert_int_equal(hw.os_node[1].distance[0], 0);
	assert_int_equal(hw.os_node[2].distance[0], 30);
	assert_int_equal(hw.os_node[2].distance[1], 0);
	assert_true(hw.os_node[0].memory_bytes > 0);
	assert_int_equal(hw.os_node[1].memory_bytes, 0);
	build(NXM_SOURCE_NUMA, 0);
	assert_int_equal(topo.nnodes, 2);
	assert_node(0, "0,2-3", "0");
	assert_node(1, "1", "0");
	assert_int_equal(topo.node[0].distance[1], NXM_DISTANCE_REMOTE);
	build_allowed("0-3", "", NXM_SOURCE_NUMA, 4);
	assert_int_equal(topo.node[0].distance[1], NXM_DISTANCE_LOCAL);
	build_allowed("0-3", "", NXM_SOURCE_NUMA, 0);
	assert_string_equal(topo.note,
						"1 CPUs that no NUMA node lists were put in node 0");

	/* siblings in different nodes and caches stay together */
	load_text("cpu/online:0-1\n"
			  "cpu/cpu0/topology/thread_siblings_list:0-1\n"
			  "cpu/cpu1/topology/thread_siblings_list:0-1\n"
			  "node/online:0-1\n"
			  "node/node0/cpulist:0\nnode/node1/cpulist:1\n");
	build_allowed("0-1", "", NXM_SOURCE_NUMA, 0);
	assert_int_equal(topo.nnodes, 1);
	assert_node(0, "0-1", "");

	/* ... and siblings that say they have different caches */
	load_text("cpu/online:0-1\n"
			  "cpu/cpu0/topology/thread_siblings_list:0-1\n"
			  "cpu/cpu1/topology/thread_siblings_list:0-1\n"
			  "cpu/cpu0/cache/index0/level:3\n"
			  "cpu/cpu0/cache/index0/type:Unified\n"
			  "cpu/cpu0/cache/index0/shared_cpu_list:0\n"
			  "cpu/cpu1/cache/index0/level:3\n"
			  "cpu/cpu1/cache/index0/type:Unified\n"
			  "cpu/cpu1/cache/index0/shared_cpu_list:1\n");
	build_allowed("0-1", "", NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, 1);
	assert_node(0, "0-1", "");

	/* levels count, not indexes; instruction caches do not */
	load_text("cpu/online:0-3\n"
			  "cpu/cpu1/cache/index0/level:2\n"
			  "cpu/cpu1/cache/index0/type:Unified\n"
			  "cpu/cpu1/cache/index0/shared_cpu_list:0-1\n"
			  "cpu/cpu1/cache/index1/level:1\n"
			  "cpu/cpu1/cache/index1/type:Data\n"
			  "cpu/cpu1/cache/index1/shared_cpu_list:1\n"
			  "cpu/cpu1/cache/index4/level:3\n"
			  "cpu/cpu1/cache/index4/type:Instruction\n"
			  "cpu/cpu1/cache/index4/shared_cpu_list:1\n"
			  "cpu/cpu3/cache/index0/level:2\n"
			  "cpu/cpu3/cache/index0/type:Unified\n"
			  "cpu/cpu3/cache/index0/shared_cpu_list:3\n");
	assert_int_equal(hw.cpu[1].llc, 0);
	assert_int_equal(hw.cpu[0].llc, -1);
	assert_int_equal(hw.cpu[3].llc, 3);
	/* private caches make no nodes by themselves, only if asked for */
	build_allowed("0-3", "", NXM_SOURCE_AUTO, 0);
	assert_int_equal(topo.source, NXM_SOURCE_NUMA);
	build_allowed("0-3", "", NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, 3);

	/* a list that fills the buffer may go on behind it */
	strcpy(tree_text, "cpu/online:0");
	for (int i = 0; i < 20000; i++)
		strcat(tree_text + 2 * i, ",1");
	index_tree();
	assert_false(nxm_hardware_read(&hw, NULL, read_tree, NULL));

	load_text("cpu/online:0-5000\n");
	assert_true(hw.left_out);
	assert_int_equal(hw.ncpus, NXM_MAX_CPUS);
	build(NXM_SOURCE_AUTO, 0);
	assert_string_not_equal(topo.note, "");
	load_text("cpu/possible:0-8191\ncpu/online:0-1\n");
	assert_false(hw.left_out);
	load_text("cpu/online:0\nnode/online:0,1023-1024\n"
			  "node/node0/distance:10 40 50\n");
	assert_true(hw.left_out);
	assert_int_equal(hw.os_node[0].distance[1023], 40);
}

static void
make_regular(int ncpus, int nnodes, int threads, int per_cache)
{
	memset(&hw, 0, sizeof(hw));
	hw.ncpus = ncpus;
	hw.nos_nodes = nnodes;
	for (int i = 0; i < ncpus; i++)
	{
		hw.cpu[i].online = true;
		hw.cpu[i].core = i / threads * threads;
		hw.cpu[i].llc = i / per_cache * per_cache;
		hw.cpu[i].os_node = (int) ((int64_t) i * nnodes / ncpus);
	}
	for (int i = 0; i < nnodes; i++)
	{
		hw.os_node[i].present = true;
		hw.os_node[i].memory_bytes = UINT64_C(1) << 40;
		for (int j = 0; j < nnodes; j++)
			hw.os_node[i].distance[j] = i == j ? 10 : 65535;
	}
}

static void
largest_machine(void **state)
{
	(void) state;
	make_regular(NXM_MAX_CPUS, NXM_MAX_OS_NODES, 2, 2);
	for (int source = NXM_SOURCE_AUTO; source <= NXM_SOURCE_EVEN; source++)
	{
		static const int nums[] = {0, 1, 2, 127, 128, 129, 100000, -5};

		for (size_t i = 0; i < sizeof(nums) / sizeof(nums[0]); i++)
		{
			memset(&mems, 0, sizeof(mems));
			build((NxmNodeSource) source, nums[i]);
			check_invariants(&all_cpus, &mems, (NxmNodeSource) source,
							 nums[i]);
		}
	}
	build(NXM_SOURCE_NUMA, 0);
	assert_int_equal(topo.nnodes, NXM_MAX_NODES);
	assert_true(topo.divided);
	assert_string_not_equal(topo.note, "");
	assert_node(127, "4064-4095", "1016-1023");
	assert_int_equal(topo.node[0].distance[1], 65535);
	build(NXM_SOURCE_NUMA, 2);
	assert_int_equal(topo.node[0].distance[1], 65535);

	/* no two caches of one node, all memory elsewhere */
	make_regular(NXM_MAX_CPUS, 512, 1, 1);
	for (int i = 0; i < 512; i++)
		hw.os_node[i].memory_bytes = 0;
	for (int i = 512; i < NXM_MAX_OS_NODES; i++)
		hw.os_node[i].memory_bytes = 4096;
	hw.nos_nodes = NXM_MAX_OS_NODES;
	build(NXM_SOURCE_CACHE, 0);
	check_invariants(&all_cpus, &mems, NXM_SOURCE_CACHE, 0);
	assert_int_equal(topo.nnodes, NXM_MAX_NODES);
}

static void
clamped(void **state)
{
	(void) state;
	load("offline-cpu");
	build(NXM_SOURCE_EVEN, 1000);
	assert_int_equal(topo.nnodes, NXM_MAX_NODES);
	assert_true(topo.shared_cpus);
	assert_string_equal(topo.note, "num_nodes was lowered from 1000 to 128");
	build(NXM_SOURCE_NUMA, -3);
	assert_int_equal(topo.nnodes, 1);
}

/* Any numbers of CPUs, threads, caches and nodes, with holes in all. */
static void
make_random(void)
{
	int			threads = 1 << random_number(3);
	int			per_cache = threads * (1 + (int) random_number(8));
	int			ncores = 1 + (int) random_number(random_number(8) ? 24 : 200);
	int			ncaches_per_node = 1 + (int) random_number(4);
	int			nnodes = (int) random_number(7);
	bool		halves = random_number(2);
	bool		have_caches = random_number(5) != 0;
	int			id = -1;
	int			ids[8];

	/* only what the last machine used has to be cleared */
	memset(hw.cpu, 0, sizeof(hw.cpu));
	for (int i = 0; i < 64; i++)
		memset(&hw.os_node[i], 0, sizeof(hw.os_node[i]));
	hw.ncpus = ncores * threads;
	hw.left_out = random_number(50) == 0;

	for (int i = 0; i < nnodes; i++)
	{
		id += 1 + (random_number(4) ? 0 : (int) random_number(8));
		ids[i] = id;
		hw.os_node[id].present = true;
		if (random_number(5))
			hw.os_node[id].memory_bytes = UINT64_C(1000000) *
				(1 + random_number(1000));
	}
	hw.nos_nodes = id + 1;
	for (int i = 0; i < nnodes; i++)
		for (int j = 0; j < nnodes; j++)
			hw.os_node[ids[i]].distance[ids[j]] = i == j ? 10 :
				random_number(6) ? (uint16_t) (11 + random_number(30)) : 0;
	for (int i = 0; i < hw.ncpus; i++)
	{
		int			core = halves ? i % ncores : i / threads;
		int			group = core * threads / per_cache;
		NxmCpu	   *cpu = &hw.cpu[i];

		cpu->package = cpu->llc = cpu->os_node = -1;
		cpu->core = halves ? core : core * threads;
		if (have_caches)
		{
			cpu->llc = group * per_cache / threads;
			if (!halves)
				cpu->llc *= threads;
		}
		if (nnodes > 0)
			cpu->os_node = ids[group / ncaches_per_node % nnodes];
	}
	/* a core at a time is off, or unlisted; a thread at a time is off */
	for (int i = 0; i < hw.ncpus; i++)
	{
		hw.cpu[i].online = random_number(12) != 0;
		if (hw.cpu[i].core == i && random_number(40) == 0)
			for (int j = i; j < hw.ncpus; j++)
				if (hw.cpu[j].core == i)
					hw.cpu[j].os_node = -1;
	}
}

static void
random_machines(void **state)
{
	(void) state;
	random_state = 20260101;
	memset(&hw, 0, sizeof(hw));
	for (int round = 0; round < 3000; round++)
	{
		uint32_t	keep = 1 + random_number(10);
		NxmNodeSource source = (NxmNodeSource) random_number(4);
		int			num_nodes = random_number(3) == 0 ? 0 :
			(int) random_number(random_number(10) ? 20 : 200);

		make_random();
		memset(&cpus, 0, sizeof(cpus));
		memset(&mems, 0, sizeof(mems));
		if (random_number(20) == 0)
			hw.ncpus = 0;
		for (int i = 0; i < hw.ncpus + 3; i++)
			if (keep == 10 || random_number(10) < keep)
				nxm_cpuset_add(&cpus, i);
		if (random_number(3) == 0)
			for (int i = 0; i < hw.nos_nodes; i++)
				if (random_number(3))
					nxm_osnodeset_add(&mems, i);
		nxm_topology_build(&topo, &hw, &cpus, &mems, source, num_nodes);
		check_invariants(&cpus, &mems, source, num_nodes);

		/* nothing left over from the one before, nothing random */
		memset(&topo2, 0xa5, sizeof(topo2));
		nxm_topology_build(&topo2, &hw, &cpus, &mems, source, num_nodes);
		REQUIRE(memcmp(&topo, &topo2, sizeof(topo)) == 0);
	}
}

/* Answers any path with garbage that looks a little like an answer. */
static int
read_garbage(void *arg, const char *path, char *buf, size_t size)
{
	static const char *const plausible[] = {
		"0-7\n", "0-31\n", "0\n", "1\n", "3\n", "Unified\n", "Data\n",
		"0,2,5\n", "10 20 30\n", "4-4095\n", "1000-5000\n", "",
		"Node 0 MemTotal:       65848480 kB\n", "Node 0 MemTotal:", "7-3\n",
		"99999999999999999999999999\n", "18446744073709551615\n"
	};
	uint32_t	kind = random_number(8);
	size_t		len;

	(void) arg;
	/* few CPUs most of the time, else a round takes too long */
	if (strcmp(path, "cpu/online") == 0 && kind > 0)
		return snprintf(buf, size, "%u-%u\n", random_number(4),
						4 + random_number(60));
	if (kind == 0)
		return -1;
	if (kind == 1)
	{
		len = random_number(200) == 0 ? size - 1 : random_number(100);
		for (size_t i = 0; i < len; i++)
			buf[i] = (char) random_number(256);
		buf[len] = '\0';
		return (int) len;
	}
	return snprintf(buf, size, "%s",
					plausible[random_number(sizeof(plausible) /
											sizeof(plausible[0]))]);
}

static void
fuzz_hardware(void **state)
{
	(void) state;
	random_state = 11;
	for (int round = 0; round < 300; round++)
	{
		NxmNodeSource source = (NxmNodeSource) random_number(4);
		int			num_nodes = (int) random_number(12);

		nxm_hardware_read(&hw, round % 2 ? &all_cpus : NULL, read_garbage, NULL);
		REQUIRE(hw.ncpus >= 0 && hw.ncpus <= NXM_MAX_CPUS);
		REQUIRE(hw.nos_nodes >= 0 && hw.nos_nodes <= NXM_MAX_OS_NODES);
		for (int i = 0; i < hw.ncpus; i++)
			REQUIRE(hw.cpu[i].core >= -1 && hw.cpu[i].core < NXM_MAX_CPUS &&
					hw.cpu[i].llc >= -1 && hw.cpu[i].llc < NXM_MAX_CPUS &&
					hw.cpu[i].os_node >= -1 &&
					hw.cpu[i].os_node < hw.nos_nodes);
		memset(&cpus, 0, sizeof(cpus));
		memset(&mems, 0, sizeof(mems));
		for (int i = 0; i < 100; i++)
			nxm_cpuset_add(&cpus, i);
		nxm_topology_build(&topo, &hw, &cpus, &mems, source, num_nodes);
		REQUIRE(topo.nnodes >= 1 && topo.nnodes <= NXM_MAX_NODES);
	}
}

static void
source_names(void **state)
{
	(void) state;
	assert_string_equal(nxm_node_source_name(NXM_SOURCE_NUMA), "numa");
	assert_string_equal(nxm_node_source_name(NXM_SOURCE_CACHE), "cache");
	assert_string_equal(nxm_node_source_name(NXM_SOURCE_EVEN), "even");
}

static int
setup(void **state)
{
	(void) state;
	memset(&all_cpus, 0xff, sizeof(all_cpus));
	memset(&mems, 0, sizeof(mems));
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(xeon_4s, setup),
		cmocka_unit_test_setup(merge, setup),
		cmocka_unit_test_setup(split, setup),
		cmocka_unit_test_setup(epyc_12_caches, setup),
		cmocka_unit_test_setup(split_along_caches, setup),
		cmocka_unit_test_setup(epyc_nps4, setup),
		cmocka_unit_test_setup(xeon_snc, setup),
		cmocka_unit_test_setup(sparse_node_ids, setup),
		cmocka_unit_test_setup(offline_cpu, setup),
		cmocka_unit_test_setup(faked_online, setup),
		cmocka_unit_test_setup(memoryless_and_cpuless, setup),
		cmocka_unit_test_setup(bare_vm, setup),
		cmocka_unit_test_setup(allowed_cpus, setup),
		cmocka_unit_test_setup(allowed_mems, setup),
		cmocka_unit_test_setup(two_cpus_four_nodes, setup),
		cmocka_unit_test_setup(no_usable_cpu, setup),
		cmocka_unit_test_setup(odd_text, setup),
		cmocka_unit_test_setup(largest_machine, setup),
		cmocka_unit_test_setup(clamped, setup),
		cmocka_unit_test_setup(random_machines, setup),
		cmocka_unit_test_setup(fuzz_hardware, setup),
		cmocka_unit_test_setup(source_names, setup),
	};

	return cmocka_run_group_tests_name("topology", tests, NULL, NULL);
}
