/*
 * bench_growth.c
 *	  How long an operation on the map takes while it grows, against one at rest;
 *	  and what an entry takes.
 *
 *	bench_growth latency [-n entries] [-r rounds] [-p processes]
 *	bench_growth bytes [-n entries]
 *
 * latency: processes, each pinned to a core of its own, each with its own
 * mappings of one space, time every operation.  Growing: each inserts its share
 * of the keys and gets as often a key that it has inserted; from a map of 1,000
 * entries on.  At rest: the same with the complete map, where a write replaces a
 * value.  Both run with memory that was touched before (the map was filled and
 * cleared, and the kernel kept the pages); then growing also runs where each page
 * comes from the kernel.  A round runs all of them; figures are medians over the
 * rounds.
 *
 * bytes: memory for each entry beyond 7 bytes of key and 100 of value, of all that
 * the space takes, at several sizes.
 */
#define _GNU_SOURCE

#include "map.h"
#include "measure.h"
#include "stress_env.h"

#define VALUE_LEN 100
#define MAX_PROCESSES 8
#define FIRST 1000

typedef struct Shared
{
	NxmMap		map;
	NxmAtomic	ready;			/* processes at the start */
	NxmAtomic	go;
	uint64_t	histogram[MAX_PROCESSES][CELLS];
} Shared;

static uint64_t nentries = 1000000;
static int	nprocesses = 2;
static int	rounds = 5;
static Env *env;

static void
make_key(uint64_t n, char *bytes, NxmKey *key)
{
	uint64_t	mixed = env_mix(n + 1);

	memcpy(bytes, &mixed, 8);
	*key = (NxmKey) {bytes, 8, env_hash(bytes, 8)};
}

/* Seven digits, as the tables of the other benchmarks have. */
static void
make_text_key(uint64_t n, char *bytes, NxmKey *key)
{
	snprintf(bytes, 9, "%07llu", (unsigned long long) n);
	*key = (NxmKey) {bytes, 7, env_hash(bytes, 7)};
}

static void
put(NxmSpace *space, NxmMap *map, const NxmKey *key, const NxmValue *value)
{
	NxmResult	r;

	ENV_DO(space, r, nxm_map_put(space, map, key, value));
	env_must(r);
}

/* One process's share of the keys: those of its number, modulo. */
static void
operate(NxmSpace *space, Shared *shared, int process, bool growing)
{
	uint64_t   *histogram = shared->histogram[process];
	uint64_t	random = env_mix((uint64_t) process + 99) | 1;
	uint64_t	share = nentries / (uint64_t) nprocesses;
	uint64_t	first = FIRST / (uint64_t) nprocesses;
	char		in[VALUE_LEN];
	char		out[VALUE_LEN];
	NxmValue	value = {in, VALUE_LEN, NXM_TEXT};

	memset(in, process, sizeof(in));
	for (uint64_t i = first; i < share; i++)
	{
		char		bytes[8];
		NxmKey		key;
		NxmBuffer	buffer = {out, sizeof(out), 0, NXM_TEXT};
		NxmResult	r;
		uint64_t	t0;
		uint64_t	t1;
		uint64_t	t2;
		uint64_t	n = growing ? i : env_below(&random, (uint32_t) share);

		make_key(n * (uint64_t) nprocesses + (uint64_t) process, bytes, &key);
		t0 = nanoseconds();
		put(space, &shared->map, &key, &value);
		t1 = nanoseconds();
		histogram[cell_of(t1 - t0)]++;
		n = env_below(&random, (uint32_t) (growing ? i : share));
		make_key(n * (uint64_t) nprocesses + (uint64_t) process, bytes, &key);
		t1 = nanoseconds();
		ENV_DO(space, r, nxm_map_get(space, &shared->map, &key, &buffer));
		t2 = nanoseconds();
		if (r != NXM_OK)
			env_must(NXM_OVERFLOW);
		histogram[cell_of(t2 - t1)]++;
		/* outside of what is timed: a server's worker does this */
		if (i % 1024 == 0)
			nxm_epoch_poll(space);
	}
}

static void
in_processes(bool growing)
{
	Shared	   *shared = env->test;
	pid_t		pids[MAX_PROCESSES];

	memset(shared->histogram, 0, sizeof(shared->histogram));
	nxm_store(&shared->ready, 0);
	nxm_store(&shared->go, 0);
	for (int p = 0; p < nprocesses; p++)
	{
		pids[p] = fork();
		if (pids[p] < 0)
			abort();
		if (pids[p] == 0)
		{
			NxmSpace	space;

			pin_to_processor(p);
			env_remap(env, (uint64_t) p + 1);
			shared = env->test;
			env_open(env, &space, p, 0);
			env_map_all(&space);
			/* where memory is there yet, backends are warm */
			if (nxm_load(&env->world->keep) != 0)
				env_populate(&space);
			nxm_fetch_add(&shared->ready, 1);
			while (nxm_load(&shared->go) == 0)
				;
			operate(&space, shared, p, growing);
			nxm_proc_detach(&space);
			_exit(0);
		}
	}
	while (nxm_load(&shared->ready) < (uint64_t) nprocesses)
		usleep(1000);
	nxm_store(&shared->go, 1);
	for (int p = 0; p < nprocesses; p++)
		wait_for_child(pids[p]);
}

/* The latency that this share of all operations does not exceed; 1: the longest. */
static double
percentile(double share)
{
	Shared	   *shared = env->test;
	static uint64_t sums[CELLS];

	memset(sums, 0, sizeof(sums));
	for (int p = 0; p < nprocesses; p++)
		for (int c = 0; c < CELLS; c++)
			sums[c] += shared->histogram[p][c];
	return quantile(sums, share);
}

static void
drop(NxmSpace *space, NxmMap *map)
{
	NxmResult	r;

	ENV_DO(space, r, nxm_map_drop(map));
	do
		ENV_DO(space, r, nxm_map_drain(space, map));
	while (r == NXM_OK);
	for (int i = 0; i < 1000; i++)
		nxm_epoch_poll(space);
	nxm_flush(space);
}

static void
fresh_map(NxmSpace *space, NxmMap *map)
{
	char		in[VALUE_LEN] = {0};
	NxmValue	value = {in, VALUE_LEN, NXM_TEXT};
	NxmResult	r;

	memset(map, 0, sizeof(NxmMap));
	ENV_DO(space, r, nxm_map_init(space, map));
	env_must(r);
	for (uint64_t n = 0; n < FIRST; n++)
	{
		char		bytes[8];
		NxmKey		key;

		make_key(n, bytes, &key);
		put(space, map, &key, &value);
	}
}

static void
latency(void)
{
	static const char *const names[] = {"at rest", "growing", "growing, first touches"};
	static const double shares[] = {0.5, 0.99, 0.999, 0.9999, 1};
	double		seen[3][5][MAX_ROUNDS];
	double		ratios[2][MAX_ROUNDS];
	NxmSpace	space;
	Shared	   *shared;

	env = env_create(MAX_PROCESSES + 1, 1, UINT64_C(1) << 20, sizeof(Shared), 128,
					 NXM_MAX_CHUNK_PAGES);
	shared = env->test;
	env_open(env, &space, MAX_PROCESSES, 0);
	for (int r = 0; r < rounds; r++)
	{
		for (int what = 2; what >= 0; what--)
		{
			/* first without memory, then with the memory of before */
			if (what == 2)
				nxm_store(&env->world->keep, 0);
			if (what > 0)
			{
				if (what == 1)
				{
					nxm_store(&env->world->keep, 1);
					drop(&space, &shared->map);
				}
				fresh_map(&space, &shared->map);
			}
			in_processes(what > 0);
			env_map_all(&space);
			for (int s = 0; s < 5; s++)
				seen[what][s][r] = percentile(shares[s]);
		}
		ratios[0][r] = seen[1][2][r] / seen[0][2][r];
		ratios[1][r] = seen[2][2][r] / seen[0][2][r];
		nxm_store(&env->world->keep, 0);
		drop(&space, &shared->map);
		nxm_store(&env->shared->account[0].page_limit, 0);
		nxm_trim(&space);
		nxm_store(&env->shared->account[0].page_limit, UINT64_C(1) << 20);
	}
	printf("nanoseconds of an operation, %d processes, to %llu entries, medians of %d rounds\n",
		   nprocesses, (unsigned long long) nentries, rounds);
	printf("%-24s %8s %8s %8s %8s %10s\n", "", "50 %", "99 %", "99.9 %", "99.99 %", "greatest");
	for (int what = 0; what < 3; what++)
	{
		printf("%-24s", names[what]);
		for (int s = 0; s < 5; s++)
			printf(" %*.0f", s == 4 ? 10 : 8, median(seen[what][s], rounds));
		printf("\n");
	}
	printf("99.9th percentile growing / at rest %24.2fx  <= 10: %s\n", median(ratios[0], rounds),
		   median(ratios[0], rounds) <= 10 ? "met" : "MISSED");
	printf("the same with first touches         %24.2fx\n", median(ratios[1], rounds));
}

static void
bytes(void)
{
	static const double sizes[] = {0.01, 0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2};
	char		in[VALUE_LEN] = {0};
	NxmValue	value = {in, VALUE_LEN, NXM_TEXT};
	NxmSpace	space;
	NxmMap	   *map;
	NxmResult	r;
	uint64_t	n = 0;

	env = env_create(1, 1, UINT64_C(1) << 20, sizeof(NxmMap), 128, NXM_MAX_CHUNK_PAGES);
	map = env->test;
	env_open(env, &space, 0, 0);
	ENV_DO(&space, r, nxm_map_init(&space, map));
	env_must(r);
	printf("bytes an entry beyond 7 + %d\n", VALUE_LEN);
	printf("%10s %14s %14s %14s\n", "entries", "items alone", "and index", "and descriptors");
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
	{
		uint64_t	to = (uint64_t) (sizes[s] * (double) nentries);
		double		pages;
		double		per_entry;

		for (; n < to; n++)
		{
			char		text[9];
			NxmKey		key;

			make_text_key(n, text, &key);
			put(&space, map, &key, &value);
			if (n % 1024 == 0)
				nxm_epoch_poll(&space);
		}
		for (int i = 0; i < 8; i++)
			nxm_epoch_poll(&space);
		pages = (double) env_used_pages(env) * NXM_PAGE_SIZE;
		per_entry = pages * (1 + (double) sizeof(NxmPage) / NXM_PAGE_SIZE) / (double) n -
			7 - VALUE_LEN;
		printf("%10llu %14.1f %14.1f %14.1f%s\n", (unsigned long long) n,
			   (double) nxm_map_bytes(map) / (double) n - 7 - VALUE_LEN,
			   pages / (double) n - 7 - VALUE_LEN, per_entry,
			   sizes[s] == 1 ? per_entry <= 32 ? "  <= 32: met" : "  <= 32: MISSED" : "");
	}
}

int
main(int argc, char **argv)
{
	int			c;

	if (argc < 2)
		return 2;
	optind = 2;
	while ((c = getopt(argc, argv, "n:r:p:")) != -1)
	{
		if (c == 'n')
			nentries = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			rounds = atoi(optarg);
		else if (c == 'p')
			nprocesses = atoi(optarg);
		else
			return 2;
	}
	if (rounds < 1 || rounds > MAX_ROUNDS || nprocesses < 1 || nprocesses > MAX_PROCESSES ||
		nentries < 10 * FIRST || nentries > 9000000)
		return 2;
	if (strcmp(argv[1], "latency") == 0)
		latency();
	else if (strcmp(argv[1], "bytes") == 0)
		bytes();
	else
		return 2;
	return 0;
}
