/*
 * stress_run.c
 *	  Phases of a stress program: see stress_run.h.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stress_run.h"

/* Two nodes: references between nodes and per-node stacks are part of the test. */
#define NODES 2
#define LIMIT 16384				/* pages: 1 GB */
#define CHUNK_PAGES 16			/* small first ones: there are to be many */
#define MAX_CHUNK_PAGES 2048

/* a phase that takes so many seconds longer than it should hangs */
#define PATIENCE 120
/* and one that does not come to do what it is for in so many has failed */
#define LONGEST 60

static Env *env;
static Worker main_worker;
static int	nworkers = 4;
static double seconds = 0.4;
static uint64_t seed = 1;
static const char *only;
static int	ntests;
static int	nphases;
static bool failed;

static double
number(const char *name, double otherwise)
{
	const char *text = getenv(name);

	return text == NULL || *text == '\0' ? otherwise : atof(text);
}

static void
hang(int sig)
{
	static const char text[] = "Bail out! a worker hangs\n";

	(void) sig;
	if (write(1, text, sizeof(text) - 1) < 0)
		_exit(3);
	_exit(2);
}

static void
open_worker(Worker *worker, int id, int proc)
{
	worker->id = id;
	worker->nworkers = nworkers;
	worker->env = env;
	worker->test = env->test;
	worker->random = env_mix(seed * 1000003 + (uint64_t) (nphases * 64 + id + 1)) | 1;
	worker->turn = 0;
	worker->buffer = malloc(NXM_MAX_VALUE);
	worker->buffer2 = malloc(NXM_MAX_VALUE);
	if (worker->buffer == NULL || worker->buffer2 == NULL)
		abort();
	env_open(env, &worker->space, proc, id % NODES);
}

static void
close_worker(Worker *worker)
{
	nxm_proc_detach(&worker->space);
	free(worker->buffer);
	free(worker->buffer2);
}

Worker *
stress_begin(int argc, char **argv, size_t test_size)
{
	(void) argc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	nworkers = (int) number("STRESS_WORKERS", nworkers);
	seconds = number("STRESS_SECONDS", seconds);
	seed = (uint64_t) number("STRESS_SEED", (double) seed);
	only = getenv("STRESS_PHASE");
	if (nworkers < 2 || nworkers > STRESS_MAX_WORKERS)
		nworkers = 4;
	signal(SIGALRM, hang);
	alarm(PATIENCE);
	env = env_create(STRESS_MAX_WORKERS + 1, NODES, LIMIT, test_size,
					 CHUNK_PAGES, MAX_CHUNK_PAGES);
#ifdef STRESS_PROCESSES
	printf("# %s: %d processes\n", argv[0], nworkers);
#else
	printf("# %s: %d threads\n", argv[0], nworkers);
#endif
	open_worker(&main_worker, STRESS_MAX_WORKERS, STRESS_MAX_WORKERS);
	return &main_worker;
}

void
stress_ok(bool ok, const char *name)
{
	printf("%sok %d - %s\n", ok ? "" : "not ", ++ntests, name);
	/* for what the main program does next */
	alarm(PATIENCE);
	if (!ok)
	{
		if (nxm_load(&env->world->failed) == 2)
			printf("# %s\n", env->world->message);
		printf("Bail out! the rest would say nothing\n");
		exit(1);
	}
}

void
stress_fail(Worker *worker, const char *format, ...)
{
	World	   *world = worker->env->world;
	uint64_t	nobody = 0;
	va_list		args;

	if (nxm_cas(&world->failed, &nobody, 1))
	{
		int			n = snprintf(world->message, sizeof(world->message),
								 "worker %d: ", worker->id);

		va_start(args, format);
		vsnprintf(world->message + n, sizeof(world->message) - (size_t) n, format, args);
		va_end(args);
		/* pairs with the load in stress_ok(): the message is complete */
		nxm_store(&world->failed, 2);
	}
	nxm_store(&world->stop, 1);
	if (worker == &main_worker)
	{
		stress_ok(false, "what the main program checks");
		abort();
	}
#ifdef STRESS_PROCESSES
	_exit(1);
#else
	pthread_exit(NULL);
#endif
}

bool
stress_over(Worker *worker)
{
	return nxm_load(&worker->env->world->stop) != 0;
}

bool
stress_go(Worker *worker)
{
	if (++worker->turn % 256 == 0)
	{
		nxm_epoch_poll(&worker->space);
		/* two cores: other orders than those of a time slice's end */
		if (env_below(&worker->random, 4) == 0)
			sched_yield();
	}
	return !stress_over(worker);
}

typedef struct Start
{
	int			id;
	void		(*work) (Worker *worker);
} Start;

static void *
run_worker(void *arg)
{
	Start	   *start = arg;
	Worker		worker;

#ifdef STRESS_PROCESSES
	env_remap(env, seed * 4096 + (uint64_t) (nphases * 64 + start->id + 1));
#endif
	open_worker(&worker, start->id, start->id);
	start->work(&worker);
	close_worker(&worker);
	return NULL;
}

static double
now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

void
stress_phase(const char *name, void (*work) (Worker *worker))
{
	stress_phase_until(name, work, NULL);
}

void
stress_phase_until(const char *name, void (*work) (Worker *worker),
				   bool (*enough) (Worker *worker))
{
	double		nap = seconds / 20;
	double		began;
	Start		starts[STRESS_MAX_WORKERS];
	bool		ok = true;
#ifdef STRESS_PROCESSES
	pid_t		pids[STRESS_MAX_WORKERS];
#else
	pthread_t	threads[STRESS_MAX_WORKERS];
#endif

	if (only != NULL && strstr(name, only) == NULL)
		return;
	nphases++;
	alarm(PATIENCE + (unsigned int) seconds);
	nxm_store(&env->world->stop, 0);
	fflush(stdout);
	for (int i = 0; i < nworkers; i++)
	{
		starts[i] = (Start) {i, work};
#ifdef STRESS_PROCESSES
		pids[i] = fork();
		if (pids[i] == 0)
		{
			/* the main program's alarm is not inherited */
			alarm(PATIENCE + (unsigned int) seconds);
			run_worker(&starts[i]);
			_exit(0);
		}
		if (pids[i] < 0)
			abort();
#else
		if (pthread_create(&threads[i], NULL, run_worker, &starts[i]) != 0)
			abort();
#endif
	}
	began = now_s();
	/* a failure ends the phase early */
	for (int i = 0; !stress_over(&main_worker); i++)
	{
		struct timespec pause = {(time_t) nap, (long) ((nap - (double) (time_t) nap) * 1e9)};

		if (i >= 20 && (enough == NULL || enough(&main_worker)))
			break;
		if (i >= 20 && now_s() > began + seconds + LONGEST)
		{
			printf("# it has not done enough in %d s\n", LONGEST);
			ok = false;
			break;
		}
		nanosleep(&pause, NULL);
	}
	nxm_store(&env->world->stop, 1);
	for (int i = 0; i < nworkers; i++)
	{
#ifdef STRESS_PROCESSES
		int			status;

		if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
		{
			if (nxm_load(&env->world->failed) == 0)
				printf("# worker %d ended with status 0x%x\n", i, status);
			ok = false;
		}
#else
		pthread_join(threads[i], NULL);
#endif
	}
	if (nxm_load(&env->world->failed) != 0)
		ok = false;
	failed = failed || !ok;
	stress_ok(ok, name);
}

/* Does the kernel give files in memory huge pages that nobody asked for? Then more lies in
 * the file of the chunks than was populated. */
static bool
unasked_huge_pages(void)
{
	char		text[128] = "";
	FILE	   *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "r");

	if (file == NULL)
		return false;
	if (fgets(text, sizeof(text), file) == NULL)
		text[0] = '\0';
	fclose(file);
	return strstr(text, "[always]") != NULL || strstr(text, "[within_size]") != NULL ||
		strstr(text, "[force]") != NULL;
}

void
stress_all_free(Worker *worker, const char *name)
{
	NxmSpace   *space = &worker->space;
	uint64_t	used;
	uint64_t	pages;
	uint64_t	memory;
	uint64_t	most;
	bool		ok;

	if (only != NULL)
		return;
	if (nxm_load(&env->shared->limbo) != 0)
		printf("# %llu objects wait for the epoch\n",
			   (unsigned long long) nxm_load(&env->shared->limbo));
	env_map_all(space);
	/* lines that were left with something in them: take and leave each again */
	for (int i = 0; i < nworkers; i++)
	{
		NxmSpace	view;

		env_open(env, &view, i, i % NODES);
		env_map_all(&view);
		for (int round = 0; round < 4; round++)
		{
			nxm_epoch_poll(&view);
			nxm_flush(&view);
		}
		nxm_proc_detach(&view);
	}
	/* each record of orphans takes a few polls */
	for (int round = 0; round < 10000 &&
		 (round < 4 || nxm_load(&env->shared->limbo) != 0); round++)
	{
		nxm_epoch_poll(space);
		nxm_flush(space);
	}
	/* the main program's own magazines */
	nxm_proc_detach(space);
	env_open(env, space, STRESS_MAX_WORKERS, 0);
	env_map_all(space);
	nxm_store(&env->shared->account[0].page_limit, 0);
	nxm_sweep(space);
	while (nxm_trim(space))
		;
	used = env_used_pages(env);
	nxm_store(&env->shared->account[0].page_limit, LIMIT);
	/* some pages may be kept with their memory; what is counted must be true */
	pages = nxm_load(&env->shared->account[0].pages) + nxm_load(&env->shared->account[1].pages);
	memory = env_memory(env);
	most = (env_descriptor_pages(env) + pages) * NXM_PAGE_SIZE;
	if (unasked_huge_pages())
	{
		printf("# not compared: %llu bytes of memory, in huge pages of shmem_enabled\n",
			   (unsigned long long) memory);
		most = UINT64_MAX;
	}
	ok = used == 0 && memory <= most && pages <= NODES * NXM_KEPT_PAGES &&
		nxm_load(&env->shared->leaked) == 0 && nxm_load(&env->shared->limbo) == 0;
	if (!ok)
		printf("# %llu pages used, %llu with memory, %llu bytes of memory of %llu, %llu leaked, %llu in limbo\n",
			   (unsigned long long) used, (unsigned long long) pages,
			   (unsigned long long) memory, (unsigned long long) most,
			   (unsigned long long) nxm_load(&env->shared->leaked),
			   (unsigned long long) nxm_load(&env->shared->limbo));
	stress_ok(ok, name);
}

int
stress_end(void)
{
	printf("1..%d\n", ntests);
	return failed ? 1 : 0;
}

uint32_t
stress_fill(char *data, uint32_t len, uint64_t who, uint64_t version)
{
	uint64_t	head[3];

	if (len < STRESS_MIN_VALUE)
		len = STRESS_MIN_VALUE;
	head[0] = who;
	head[1] = version;
	head[2] = env_mix(who * 31 + version * 17 + len);
	memcpy(data, head, sizeof(head));
	for (uint32_t i = sizeof(head); i < len; i++)
		data[i] = (char) (head[2] + i);
	return len;
}

void
stress_verify(Worker *worker, const char *data, uint32_t len,
			  uint64_t *who, uint64_t *version)
{
	uint64_t	head[3];
	uint32_t	at = sizeof(head);

	CHECK(worker, len >= STRESS_MIN_VALUE, "a value of %u bytes", len);
	memcpy(head, data, sizeof(head));
	CHECK(worker, head[2] == env_mix(head[0] * 31 + head[1] * 17 + len),
		  "a torn head: %llx %llx %llx, %u bytes",
		  (unsigned long long) head[0], (unsigned long long) head[1],
		  (unsigned long long) head[2], len);
	while (at < len && data[at] == (char) (head[2] + at))
		at++;
	CHECK(worker, at == len, "a torn value: byte %u of %u", at, len);
	*who = head[0];
	*version = head[1];
}

uint32_t
stress_length(Worker *worker)
{
	uint32_t	dice = env_below(&worker->random, 1000);

	if (dice < 900)
		return STRESS_MIN_VALUE + env_below(&worker->random, 120);
	if (dice < 995)
		return STRESS_MIN_VALUE + env_below(&worker->random, 4000);
	return 12000 + env_below(&worker->random, 150000);
}
