/*
 * bench_cache.c
 *	  The cache of src/core without a server: how long operations take while it
 *	  evicts, against at rest; throughput by the number of processes; and what an
 *	  entry takes.
 *
 *	bench_cache latency [-n entries] [-r rounds] [-t seconds] [-p processes]
 *	bench_cache throughput [-n entries] [-r rounds] [-t seconds] [-P processes,...]
 *	bench_cache bytes [-n entries]
 *
 * Keys of 7 bytes, values of 100, keys drawn uniformly.  Processes have mappings
 * of their own, as backends do, and have touched all memory before.  One more
 * process does the housekeeping ten times a second, as a worker of a server does.
 *
 * latency: processes, each pinned to a core of its own, time every operation; a
 * half are gets, a half sets.  At rest all entries have room; evicting, a half of
 * them, so that nearly each second set takes another's place.  Rest and eviction
 * take turns; figures are medians over the rounds.
 *
 * throughput: 95 % gets, 5 % sets, with room for all.
 *
 * bytes: of all memory in use, beyond 107 bytes an entry, at several sizes, with
 * values of 50 to 150 bytes, with eight times to live and with any; and what share of the
 * memory, and of the segments, is entries with their headers.
 */
#define _GNU_SOURCE

#include <sys/mman.h>

#include "cache_internal.h"
#include "measure.h"
#include "stress_env.h"

#define KEY_LEN		7
#define VALUE_LEN	100
#define ITEM_BYTES	(KEY_LEN + VALUE_LEN + 24)	/* with overhead, about */
#define MAX_PROCESSES 64
#define FIRST_PAGES	64			/* of the first chunk */

typedef struct Shared
{
	NxmCache	cache;
	NxmAtomic	ready;			/* processes at the start */
	NxmAtomic	go;
	NxmAtomic	stop;
	uint64_t	operations[MAX_PROCESSES];
	/* gets, sets */
	uint64_t	histogram[MAX_PROCESSES][2][CELLS];
} Shared;

typedef struct Figures
{
	double		throughput;		/* a second */
	double		ns[3][4];		/* gets, sets, all: 50, 99, 99.9 %, and most */
} Figures;

static const double quantiles[4] = {0.5, 0.99, 0.999, 1};

static uint64_t nentries = 1000000;
static int	rounds = 5;
static double seconds = 1;
static int	nprocesses = 2;
static const char *process_list = "1,2,4,16";
static Env *env;
static NxmSpace space;
static NxmCacheView view;

static uint64_t
hash(const char *key, size_t len)
{
	return env_hash(key, len);
}

static int64_t
now(void *unused)
{
	struct timespec t;

	(void) unused;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline NxmKey
make_key(uint64_t n, char *bytes)
{
	for (int i = KEY_LEN - 1; i >= 0; i--)
	{
		bytes[i] = (char) ('0' + n % 10);
		n /= 10;
	}
	return (NxmKey) {bytes, KEY_LEN, env_hash(bytes, KEY_LEN)};
}

static inline void
set(NxmCache *cache, uint64_t n, int64_t deadline)
{
	static const char data[VALUE_LEN];
	char		bytes[KEY_LEN];
	NxmKey		key = make_key(n, bytes);
	NxmValue	value = {data, VALUE_LEN, NXM_TEXT};
	NxmResult	r;

	ENV_DO(&space, r, nxm_cache_set(&view, cache, &key, &value, deadline));
	env_must(r);
}

static inline void
get(NxmCache *cache, uint64_t n)
{
	char		data[VALUE_LEN];
	char		bytes[KEY_LEN];
	NxmKey		key = make_key(n, bytes);
	NxmBuffer	buffer = {data, VALUE_LEN, 0, NXM_TEXT};
	NxmResult	r;

	ENV_DO(&space, r, nxm_cache_get(&view, cache, &key, &buffer, NULL));
	env_must(r);
}

/* Housekeeping until there is nothing to do, or until then: others make more of it. */
static void
tick(NxmCache *cache, uint64_t until)
{
	NxmResult	r;

	do
	{
		ENV_DO(&space, r, nxm_cache_tick(&view, cache));
		env_must(r);
	} while (r != NXM_ABSENT && (until == 0 || nanoseconds() < until));
	nxm_epoch_poll(&space);
}

static void
open_view(int proc)
{
	env_open(env, &space, proc, 0);
	view = (NxmCacheView) {.space = &space,.hash = hash,.now = now,.home = 0};
}

/* A world with a cache of at most so many bytes.  keep: freed memory stays. */
static Shared *
create(uint64_t max_bytes, bool keep)
{
	uint64_t	limit = max_bytes != 0 ? max_bytes : nentries * ITEM_BYTES * 5 / 4;
	uint32_t	most = (uint32_t) (limit / 4 / NXM_PAGE_SIZE);
	Shared	   *shared;
	NxmResult	r;

	/* chunks as the server makes them (arena_chunks.c), as their descriptors are counted too */
	env = env_create(MAX_PROCESSES + 2, 1, UINT64_C(1) << 40, sizeof(Shared), FIRST_PAGES,
					 most < FIRST_PAGES ? FIRST_PAGES : most);
	nxm_store(&env->shared->account[NXM_CACHE_ACCOUNT].page_limit, UINT64_C(1) << 40);
	nxm_store(&env->world->keep, keep);
	shared = env->test;
	open_view(0);
	ENV_DO(&space, r, nxm_cache_init(&view, &shared->cache, 1, max_bytes));
	env_must(r);
	return shared;
}

static void
destroy(void)
{
	nxm_proc_detach(&space);
	for (int c = 0; c < NXM_MAX_CHUNKS; c++)
		if (env->chunks[c] != NULL)
			munmap(env->chunks[c], env->chunk_bytes[c]);
	close(env->world_fd);
	close(env->chunk_fd);
	munmap(env->world, env->world->size);
	free(env->lock);
	free(env);
}

/* In a child: one process's operations until it is told to stop. */
static void
operate(Shared *shared, int process, int reads, bool timed)
{
	uint64_t	random = env_mix((uint64_t) process + 99 + nanoseconds()) | 1;
	uint64_t	done = 0;

	while (nxm_load_relaxed(&shared->stop) == 0)
		for (int i = 0; i < 64; i++)
		{
			uint64_t	n = env_below(&random, (uint32_t) nentries);
			bool		read = (int) env_below(&random, 100) < reads;
			uint64_t	began = timed ? nanoseconds() : 0;

			if (read)
				get(&shared->cache, n);
			else
				set(&shared->cache, n, 0);
			if (timed)
				shared->histogram[process][!read][cell_of(nanoseconds() - began)]++;
			done++;
		}
	shared->operations[process] = done;
}

static void
child(int process, int reads, bool pinned)
{
	Shared	   *shared;

	if (pinned)
		pin_to_processor(process);
	env_remap(env, (uint64_t) process + 1);
	shared = env->test;
	open_view(process + 1);
	env_map_all(&space);
	env_populate(&space);		/* backends are warm */
	nxm_fetch_add(&shared->ready, 1);
	while (nxm_load(&shared->go) == 0)
		sched_yield();
	operate(shared, process, reads, pinned);
	nxm_proc_detach(&space);
	_exit(0);
}

static void
in_processes(int n, int reads, bool pinned, Figures *figures)
{
	Shared	   *shared = env->test;
	pid_t		pids[MAX_PROCESSES];
	uint64_t	began;
	double		took;
	uint64_t	operations = 0;
	static uint64_t sums[3][CELLS];

	memset(shared->histogram, 0, sizeof(shared->histogram));
	memset(sums, 0, sizeof(sums));
	nxm_store(&shared->ready, 0);
	nxm_store(&shared->go, 0);
	nxm_store(&shared->stop, 0);
	fflush(stdout);
	for (int p = 0; p < n; p++)
	{
		pids[p] = fork();
		if (pids[p] < 0)
			abort();
		if (pids[p] == 0)
			child(p, reads, pinned);
	}
	while (nxm_load(&shared->ready) < (uint64_t) n)
		usleep(1000);
	began = nanoseconds();
	nxm_store(&shared->go, 1);
	while ((double) (nanoseconds() - began) / 1e9 < seconds)
	{
		usleep(100000);
		tick(&shared->cache, began + (uint64_t) (seconds * 1e9));
	}
	nxm_store(&shared->stop, 1);
	took = (double) (nanoseconds() - began) / 1e9;
	for (int p = 0; p < n; p++)
	{
		wait_for_child(pids[p]);
		operations += shared->operations[p];
		for (int c = 0; c < CELLS; c++)
		{
			sums[0][c] += shared->histogram[p][0][c];
			sums[1][c] += shared->histogram[p][1][c];
			sums[2][c] += shared->histogram[p][0][c] + shared->histogram[p][1][c];
		}
	}
	figures->throughput = (double) operations / took;
	for (int k = 0; k < 3; k++)
		for (int q = 0; q < 4; q++)
			figures->ns[k][q] = quantile(sums[k], quantiles[q]);
}

/* Filled, and all memory that it comes to use touched. */
static void
fill(Shared *shared, uint64_t writes)
{
	uint64_t	random = 4711;

	for (uint64_t i = 0; i < nentries; i++)
		set(&shared->cache, i, 0);
	for (uint64_t i = 0; i < writes; i++)
	{
		set(&shared->cache, env_below(&random, (uint32_t) nentries), 0);
		if (i % 10000 == 0)
			tick(&shared->cache, 0);
	}
}

static void
latency(void)
{
	static const char *const kinds[3] = {"gets", "sets", "all"};
	static Figures figures[2][MAX_ROUNDS];
	int			missed = 0;

	/* the states: at rest, evicting */
	for (int r = 0; r < rounds; r++)
		for (int state = 0; state < 2; state++)
		{
			Shared	   *shared = create(state == 0 ? 0 : nentries * ITEM_BYTES / 2, true);

			fill(shared, nentries);
			in_processes(nprocesses, 50, true, &figures[state][r]);
			destroy();
		}
	printf("nanoseconds of an operation, %d processes, each on a core; medians of %d rounds of %g s\n",
		   nprocesses, rounds, seconds);
	printf("%-6s %-10s %9s %9s %9s %9s\n", "", "", "median", "99 %", "99.9 %", "most");
	for (int k = 0; k < 3; k++)
	{
		double		values[MAX_ROUNDS];
		double		ratio;

		for (int state = 0; state < 2; state++)
		{
			printf("%-6s %-10s", kinds[k], state == 0 ? "at rest" : "evicting");
			for (int q = 0; q < 4; q++)
			{
				for (int r = 0; r < rounds; r++)
					values[r] = figures[state][r].ns[k][q];
				printf(" %9.0f", median(values, rounds));
			}
			printf("\n");
		}
		for (int r = 0; r < rounds; r++)
			values[r] = figures[1][r].ns[k][2] / figures[0][r].ns[k][2];
		ratio = median(values, rounds);
		printf("%-6s 99.9 %%, evicting / at rest %.2fx  <= 10: %s\n", kinds[k], ratio,
			   ratio <= 10 ? "met" : "MISSED");
		missed += ratio > 10;
	}
	printf("%d of the targets missed\n", missed);
}

static void
throughput(void)
{
	static double values[16][MAX_ROUNDS];
	int			counts[16];
	int			n = 0;
	Shared	   *shared = create(0, true);

	for (const char *p = process_list; p != NULL && n < 16; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
	{
		counts[n] = atoi(p);
		if (counts[n] < 1 || counts[n] > MAX_PROCESSES)
			exit(2);
		n++;
	}
	fill(shared, nentries);
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < n; i++)
		{
			Figures		figures;

			in_processes(counts[i], 95, false, &figures);
			values[i][r] = figures.throughput;
		}
	destroy();
	printf("million operations a second, 95 %% gets; medians of %d rounds of %g s\n", rounds, seconds);
	for (int i = 0; i < n; i++)
	{
		double		ratios[MAX_ROUNDS];
		double		ratio;

		for (int r = 0; r < rounds; r++)
			ratios[r] = i > 0 ? values[i][r] / values[i - 1][r] : 1;
		ratio = median(ratios, rounds);
		printf("%3d processes %8.2f", counts[i], median(values[i], rounds) / 1e6);
		if (i > 0)
			printf("   %.2fx of those before  >= 0.95: %s", ratio, ratio >= 0.95 ? "met" : "MISSED");
		printf("\n");
	}
}

static void
tell_bytes(const char *what, double target, double live_target)
{
	Shared	   *shared = env->test;
	NxmCachePartition *part = nxm_at(&space, nxm_load(&shared->cache.partition[0]));
	NxmCacheStats stats;
	uint64_t	used = (env_used_pages(env) + env_descriptor_pages(env)) * NXM_PAGE_SIZE;
	uint64_t	segments = 0;
	double		overhead;
	double		live;

	if (!nxm_cache_stats(&view, &shared->cache, 0, &stats) || stats.entries == 0)
		abort();
	for (int kind = 0; kind < 2; kind++)
		segments += nxm_load(&part->chain[kind].segments) * NXM_CACHE_SEGMENT;
	overhead = (double) used / (double) stats.entries - KEY_LEN - VALUE_LEN;
	live = 100 * (double) stats.bytes / (double) segments;
	printf("%-40s %9llu entries %7.1f bytes of overhead each", what,
		   (unsigned long long) stats.entries, overhead);
	if (target > 0)
		printf("  <= %g: %s", target, overhead <= target ? "met" : "MISSED");
	printf("\n%-40s %9.1f MB in use; entries with headers %.1f bytes each, %.1f %% of that\n", "",
		   (double) used / 1048576, (double) stats.bytes / (double) stats.entries,
		   100 * (double) stats.bytes / (double) used);
	printf("%-40s %9.1f %% of the segments  >= %g: %s\n", "", live, live_target,
		   live >= live_target ? "met" : "MISSED");
}

/* Entries of times to live drawn from a minute to `most` seconds. */
static void
any_ttls(uint64_t max_bytes, uint32_t most, const char *what)
{
	uint64_t	random = 4711;
	Shared	   *shared = create(max_bytes, false);

	for (uint64_t i = 0; i < nentries; i++)
	{
		set(&shared->cache, i, now(NULL) + (60 + (int64_t) env_below(&random, most - 60)) * 1000000);
		if (i % 10000 == 0)
			tick(&shared->cache, 0);
	}
	tick(&shared->cache, 0);
	tell_bytes(what, 0, 80);
	destroy();
}

static void
bytes(void)
{
	static const double factors[] = {0.5, 0.71, 1, 1.41, 2};
	uint64_t	target = nentries;
	uint64_t	random = 4711;
	Shared	   *shared;

	for (int i = 0; i < 5; i++)
	{
		char		what[64];

		nentries = (uint64_t) ((double) target * factors[i]);
		shared = create(0, false);
		fill(shared, 0);
		tick(&shared->cache, 0);
		tell_bytes("filled", 20, 95);
		if (factors[i] == 1)
		{
			fill(shared, 2 * nentries);
			tick(&shared->cache, 0);
			tell_bytes("each written thrice more", 20, 95);
		}
		destroy();

		shared = create(nentries * ITEM_BYTES / 2, false);
		fill(shared, nentries);
		tick(&shared->cache, 0);
		snprintf(what, sizeof(what), "evicting, limit %.0f MB", (double) nentries * ITEM_BYTES / 2 / 1048576);
		tell_bytes(what, 20, 95);
		destroy();
	}
	nentries = target;
	shared = create(0, false);
	for (uint64_t i = 0; i < 4 * nentries; i++)
	{
		static const char data[150];
		char		key_bytes[KEY_LEN];
		NxmKey		key = make_key(i < nentries ? i : env_below(&random, (uint32_t) nentries),
								   key_bytes);
		NxmValue	value = {data, 50 + env_below(&random, 101), NXM_TEXT};
		NxmResult	r;

		ENV_DO(&space, r, nxm_cache_set(&view, &shared->cache, &key, &value, 0));
		env_must(r);
		if (i % 10000 == 0)
			tick(&shared->cache, 0);
	}
	tick(&shared->cache, 0);
	tell_bytes("50 to 150 bytes, written thrice more", 0, 95);
	destroy();

	shared = create(0, false);
	for (int round = 0; round < 2; round++)
	{
		for (uint64_t i = 0; i < nentries; i++)
		{
			set(&shared->cache, i, now(NULL) + (INT64_C(3600) << i % 8) * 1000000);
			if (i % 10000 == 0)
				tick(&shared->cache, 0);
		}
		tick(&shared->cache, 0);
		tell_bytes(round == 0 ? "eight times to live" : "and each written once more", 0, 90);
	}
	destroy();

	any_ttls(0, 3600, "times to live up to an hour");
	any_ttls(0, 86400, "times to live up to a day");
	any_ttls(8 << 20, 3600, "up to an hour, in 8 MB");
	any_ttls(8 << 20, 30 * 86400, "up to 30 days, in 8 MB");
}

int
main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	int			c;

	optind = 2;
	while ((c = getopt(argc, argv, "n:r:t:p:P:")) != -1)
	{
		if (c == 'n')
			nentries = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			rounds = atoi(optarg);
		else if (c == 't')
			seconds = atof(optarg);
		else if (c == 'p')
			nprocesses = atoi(optarg);
		else if (c == 'P')
			process_list = optarg;
		else
			return 2;
	}
	if (rounds < 1 || rounds > MAX_ROUNDS || nentries < 1000 || nprocesses < 1 || nprocesses > MAX_PROCESSES)
		return 2;
	if (strcmp(mode, "latency") == 0)
		latency();
	else if (strcmp(mode, "throughput") == 0)
		throughput();
	else if (strcmp(mode, "bytes") == 0)
		bytes();
	else
		return 2;
	return 0;
}
