/*
 * bench_map.c
 *	  Throughput of hash tables by number of threads, share of reads, and
 *	  distribution of keys.
 *
 *	bench_map [-n entries] [-r rounds] [-t seconds] [-o data-file]
 *			  [-T threads,...] [-b table,...] [-P huge|small]
 *
 * Keys of 8 bytes, values of 100.  All tables are filled once; then each round
 * runs each case with one table after the other.  A write puts a new value under
 * an existing key.  Which keys, is drawn beforehand.  The result of a case is the
 * median over the rounds; the ratio is the median of those within a round, to the
 * baseline that has the highest median.
 *
 * All memory is in huge pages, as that of structures is in a server (arena_huge.c) and
 * malloc's where it is told to; or, with -P small, all is in pages of 4 kB.
 *
 * CPU time: of all threads, for one operation; with more threads than cores it
 * tells what waiting cost, where wall time tells what was done.
 */
#define _GNU_SOURCE

#include <math.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "measure.h"
#include "stress_env.h"
#include "tables.h"

#define VALUE_LEN 100
#define DRAWN (1 << 22)

static const Table *const all_tables[] = {
	&nexusmem_table, &ck_table, &mutex_table, &rwlock_table, &ck_epoch_table
};

#define NTABLES 5
/* those that the target is about: ours first, then the locked ones */
#define NLOCKED 4

bool		huge_pages = true;

static uint64_t nentries = 1000000;
static int	rounds = 5;
static double seconds = 0.3;

/* Which keys, in the order drawn. */
static uint32_t *uniform;
static uint32_t *zipf;

typedef struct Run
{
	const Table *table;
	const uint32_t *drawn;
	int			thread;
	int			reads;			/* of 100 */
	uint64_t	from;
	uint64_t	operations;
} __attribute__((aligned(2 * NXM_CACHE_LINE))) Run;

static pthread_barrier_t start;
static NxmAtomic stop;

static double
cpu_now(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		(double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static inline void
make_key(uint64_t n, uint64_t *bytes, NxmKey *key)
{
	*bytes = env_mix(n + 1);
	*key = (NxmKey) {(const char *) bytes, sizeof(*bytes),
	env_hash(bytes, sizeof(*bytes))};
}

/* YCSB's: ranks by Gray and others, SIGMOD 1994, spread over the keys. */
static void
draw_keys(void)
{
	const double theta = 0.99;
	double		zeta = 0;
	double		alpha = 1 / (1 - theta);
	double		eta;
	uint64_t	random = 88172645463325252;

	uniform = malloc(DRAWN * sizeof(uint32_t));
	zipf = malloc(DRAWN * sizeof(uint32_t));
	if (uniform == NULL || zipf == NULL)
		abort();
	for (uint64_t i = 1; i <= nentries; i++)
		zeta += 1 / pow((double) i, theta);
	eta = (1 - pow(2.0 / (double) nentries, 1 - theta)) /
		(1 - (1 + pow(0.5, theta)) / zeta);
	for (int i = 0; i < DRAWN; i++)
	{
		double		u = (double) (env_random(&random) >> 11) * 0x1p-53;
		double		uz = u * zeta;
		uint64_t	rank;

		uniform[i] = env_below(&random, (uint32_t) nentries);
		if (uz < 1)
			rank = 0;
		else if (uz < 1 + pow(0.5, theta))
			rank = 1;
		else
			rank = (uint64_t) ((double) nentries * pow(eta * u - eta + 1, alpha));
		zipf[i] = (uint32_t) (env_mix(rank + 12345) % nentries);
	}
}

static void *
run_thread(void *arg)
{
	Run		   *run = arg;
	const Table *table = run->table;
	uint64_t	at = run->from;
	uint64_t	random = env_mix(run->from + 7) | 1;
	uint64_t	done = 0;
	char		in[VALUE_LEN];
	char		out[4096];
	NxmBuffer	buffer = {out, sizeof(out), 0, NXM_TEXT};
	NxmValue	value = {in, VALUE_LEN, NXM_TEXT};

	memset(in, run->thread, sizeof(in));
	table->begin(run->thread);
	pthread_barrier_wait(&start);
	while (nxm_load_relaxed(&stop) == 0)
	{
		for (int i = 0; i < 64; i++)
		{
			uint64_t	bytes;
			NxmKey		key;

			make_key(run->drawn[at++ % DRAWN], &bytes, &key);
			if (run->reads == 100 ||
				(int) env_below(&random, 100) < run->reads)
			{
				if (!table->get(run->thread, &key, &buffer) || buffer.len != VALUE_LEN)
					abort();
			}
			else
				table->put(run->thread, &key, &value);
		}
		done += 64;
	}
	run->operations = done;
	table->end(run->thread);
	return NULL;
}

/* Million operations a second; and CPU nanoseconds of one. */
static double
measure(const Table *table, int nthreads, int reads, const uint32_t *drawn,
		uint64_t seed, double *cpu)
{
	static Run	runs[MAX_THREADS];
	pthread_t	threads[MAX_THREADS];
	struct timespec pause;
	uint64_t	began;
	double		cpu_began;
	double		took;
	uint64_t	operations = 0;

	nxm_store(&stop, 0);
	pthread_barrier_init(&start, NULL, (unsigned int) nthreads + 1);
	for (int i = 0; i < nthreads; i++)
	{
		runs[i] = (Run) {table, drawn, i, reads, env_mix(seed * 64 + (uint64_t) i) % DRAWN, 0};
		if (pthread_create(&threads[i], NULL, run_thread, &runs[i]) != 0)
			abort();
	}
	pthread_barrier_wait(&start);
	began = nanoseconds();
	cpu_began = cpu_now();
	pause.tv_sec = (time_t) seconds;
	pause.tv_nsec = (long) ((seconds - (double) pause.tv_sec) * 1e9);
	nanosleep(&pause, NULL);
	nxm_store(&stop, 1);
	for (int i = 0; i < nthreads; i++)
	{
		pthread_join(threads[i], NULL);
		operations += runs[i].operations;
	}
	took = (double) (nanoseconds() - began) / 1e9;
	*cpu = (cpu_now() - cpu_began) / (double) operations * 1e9;
	pthread_barrier_destroy(&start);
	return (double) operations / took / 1e6;
}

/*
 * Tells malloc, and the kernel, what pages to take.  malloc looks at its environment
 * when the program starts, so it starts once more.
 */
static void
choose_pages(char **argv)
{
	const char *name = "GLIBC_TUNABLES";
	const char *value = "glibc.malloc.hugetlb=1";
	const char *is = getenv(name);

	if (!huge_pages)
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	else if (is == NULL || strstr(is, value) == NULL)
	{
		setenv(name, value, 1);
		execv("/proc/self/exe", argv);
		abort();
	}
}

/* Prints how much memory is in huge pages. */
static void
tell_pages(void)
{
	FILE	   *file = fopen("/proc/self/smaps_rollup", "r");
	char		line[128];
	unsigned long kb;
	unsigned long anonymous = 0;
	unsigned long shared = 0;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
	{
		if (sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			anonymous = kb;
		else if (sscanf(line, "ShmemPmdMapped: %lu", &kb) == 1)
			shared = kb;
	}
	if (file != NULL)
		fclose(file);
	printf("in huge pages: %lu MB of malloc, %lu MB of nexusmem\n", anonymous / 1024,
		   shared / 1024);
}

static void
fill(const Table *table)
{
	char		in[VALUE_LEN];
	NxmValue	value = {in, VALUE_LEN, NXM_TEXT};

	memset(in, 'x', sizeof(in));
	table->create();
	table->begin(0);
	for (uint64_t n = 0; n < nentries; n++)
	{
		uint64_t	bytes;
		NxmKey		key;

		make_key(n, &bytes, &key);
		table->put(0, &key, &value);
	}
	table->end(0);
	if (table->settle != NULL)
		table->settle();
}

int
main(int argc, char **argv)
{
	static double mops[NTABLES][MAX_ROUNDS];
	static double cpus[NTABLES][MAX_ROUNDS];
	static const int shares[] = {100, 95, 50};
	const char *threads = "1,2,16";
	const char *only = NULL;
	FILE	   *data = NULL;
	bool		use[NTABLES];
	int			missed = 0;
	int			c;

	while ((c = getopt(argc, argv, "n:r:t:o:T:b:P:")) != -1)
	{
		if (c == 'n')
			nentries = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			rounds = atoi(optarg);
		else if (c == 't')
			seconds = atof(optarg);
		else if (c == 'T')
			threads = optarg;
		else if (c == 'b')
			only = optarg;
		else if (c == 'P' && (strcmp(optarg, "huge") == 0 || strcmp(optarg, "small") == 0))
			huge_pages = optarg[0] == 'h';
		else if (c != 'o' || (data = fopen(optarg, "w")) == NULL)
			return 2;
	}
	if (rounds < 1 || rounds > MAX_ROUNDS || nentries < 1000)
		return 2;
	choose_pages(argv);
	draw_keys();
	for (int t = 0; t < NTABLES; t++)
	{
		use[t] = only == NULL || strstr(only, all_tables[t]->name) != NULL;
		if (!use[t])
			continue;
		printf("%-10s %s\n", all_tables[t]->name, all_tables[t]->what);
		fill(all_tables[t]);
	}
	tell_pages();
	printf("\nmillion operations a second (CPU ns an operation), medians of %d rounds of %g s\n",
		   rounds, seconds);
	printf("%-8s %-6s %7s", "keys", "reads", "threads");
	for (int t = 0; t < NTABLES; t++)
		printf(" %16s", use[t] ? all_tables[t]->name : "-");
	printf("  best locked; the epoch one\n");
	for (int k = 0; k < 2; k++)
		for (int s = 0; s < 3; s++)
			for (const char *p = threads; p != NULL; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
			{
				int			nthreads = atoi(p);
				int			best = 1;
				double		target = nthreads > 2 ? 1.3 : 1.0;
				double		ratio[MAX_ROUNDS];
				double		ratio_epoch[MAX_ROUNDS];

				if (nthreads < 1 || nthreads > MAX_THREADS)
					return 2;
				for (int r = 0; r < rounds; r++)
					for (int t = 0; t < NTABLES; t++)
						if (use[t])
							mops[t][r] = measure(all_tables[t], nthreads, shares[s],
												 k == 0 ? uniform : zipf,
												 (uint64_t) (r * 100 + nthreads),
												 &cpus[t][r]);
				for (int t = 2; t < NLOCKED; t++)
					if (median(mops[t], rounds) > median(mops[best], rounds))
						best = t;
				for (int r = 0; r < rounds; r++)
				{
					ratio[r] = mops[0][r] / mops[best][r];
					ratio_epoch[r] = mops[0][r] / mops[NLOCKED][r];
				}
				printf("%-8s %4d %% %7d", k == 0 ? "uniform" : "zipf", shares[s], nthreads);
				if (data)
					fprintf(data, "%s\t%d\t%d", k == 0 ? "uniform" : "zipf", shares[s], nthreads);
				for (int t = 0; t < NTABLES; t++)
				{
					printf(" %7.2f (%6.0f)", use[t] ? median(mops[t], rounds) : 0,
						   use[t] ? median(cpus[t], rounds) : 0);
					if (data)
						fprintf(data, "\t%.3f\t%.0f", median(mops[t], rounds),
								median(cpus[t], rounds));
				}
				if (only == NULL)
				{
					double		m = median(ratio, rounds);

					printf("  %5.2fx %-6s >= %.1f: %s; %5.2fx", m, all_tables[best]->name,
						   target, m >= target ? "met" : "MISSED",
						   median(ratio_epoch, rounds));
					missed += m < target;
				}
				printf("\n");
				fflush(stdout);
				if (data)
					fprintf(data, "\n");
			}
	if (only == NULL)
		printf("%d of %s missed\n", missed, "the targets");
	return 0;
}
