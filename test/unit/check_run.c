/*
 * check_run.c
 *	  The checker's processes, schedulers and main program.
 *
 * Processes are fibers, switched by hand where we know how and by ucontext
 * where not (which enters the kernel at every switch).  The main program, the
 * host, resets the memory and starts process 0 for the setup, which starts the
 * others; the last of these to end wakes process 0 for the rest; a failure, be
 * it a segmentation fault, leaves all of them where they are and goes back to
 * the host.
 *
 * Exhaustive search keeps the choices of a run, and how many there were at each
 * point; the next run repeats all up to the last one that has another choice.
 * Where nobody but one process ever touches a word, or nobody stores to it, who
 * goes first makes no difference, so only words known to be shared are points of
 * choice.  When a run finds more of those, the search begins anew with them.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#if defined(__x86_64__) && !defined(CHECK_UCONTEXT)
#define BY_HAND
#else
#include <ucontext.h>
#endif

#include "check_model.h"

#define STACK_BYTES		(256 * 1024)
#define GUARD_BYTES		(64 * 1024)
#define HOST			CHECK_MAX_PROCS		/* its place among the fibers */
#define MAX_STEPS		50000	/* of a run; more is taken for never ending */
#define MAX_CHOICES		65536	/* of a run of an exhaustive search */
#define MAX_STALE		12		/* loads of older stores, of a random run */
#define MAX_CHANGES		5		/* of priorities, PCT */

/* unless the case or the environment says otherwise */
#define SCHEDULES		1500
#define EXHAUSTIVE_MAX	300000	/* runs, of a fixed-length check */
#define MUTANT_MIN		25		/* random ones of a mutant in the first round */
#define MUTANT_MAX		6400	/* and in the last one */

/* those that CHECK_SECONDS is for */
#define RANDOM_MODES	(CHECK_RANDOM | CHECK_PCT)

typedef struct Fiber
{
#ifdef BY_HAND
	void	   *sp;
#else
	ucontext_t	context;
#endif
	char	   *stack;
} Fiber;

static Fiber fibers[CHECK_MAX_PROCS + 1];

static const CheckCase *running;
static int	mode;
static int	self;
static unsigned alive;			/* bits of processes 1.. that have not ended */
static int	steps;
static int	focused;			/* of these, where the case may switch */
static unsigned focus_met;		/* bits of the functions in the case's focus */
static int	stale_loads;
static bool failed;
static char message[512];
static volatile sig_atomic_t beat;

/* random and PCT */
static uint64_t state;
static uint32_t switch_chance;	/* of 2^16 */
static uint32_t stale_chance;
static int	priority[CHECK_MAX_PROCS];
static int	change_at[MAX_CHANGES];
static int	nchanges;
static int	longest;			/* steps of this case's runs so far, most */
static uint32_t picks;

/* exhaustive */
static uint16_t choice[MAX_CHOICES];
static uint16_t choices[MAX_CHOICES];
static int	nchoices;
static int	nfixed;				/* of these, given by the search */
static int	preemptions;
static bool bound_met;			/* a run could have done more, but for its bounds */
static uint8_t *touched_by;		/* for each granule, which processes */
static uint8_t *stored_by;
static bool *is_shared;
static bool found_shared;		/* more of them, for the next search */

#ifdef BY_HAND
/* Saves what a call must, leaves this stack for the other. */
extern void check_switch(void **from, void *to);

__asm__(
		".text\n"
		".globl check_switch\n"
		".type check_switch, @function\n"
		"check_switch:\n"
		"	pushq %rbp\n"
		"	pushq %rbx\n"
		"	pushq %r12\n"
		"	pushq %r13\n"
		"	pushq %r14\n"
		"	pushq %r15\n"
		"	movq %rsp, (%rdi)\n"
		"	movq %rsi, %rsp\n"
		"	popq %r15\n"
		"	popq %r14\n"
		"	popq %r13\n"
		"	popq %r12\n"
		"	popq %rbx\n"
		"	popq %rbp\n"
		"	ret\n"
		".size check_switch, . - check_switch\n");
#endif

/* xorshift64* */
static inline uint32_t
random_number(uint32_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t) (((state * UINT64_C(2685821657736338717)) >> 32) *
					   below >> 32);
}

/* splitmix64: seeds that follow one another become far apart */
static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

static void
switch_to(int next)
{
	int			old = self;

	if (next == old)
		return;
	self = next;
#ifdef BY_HAND
	check_switch(&fibers[old].sp, fibers[next].sp);
#else
	swapcontext(&fibers[old].context, &fibers[next].context);
#endif
}

int
check_steps(void)
{
	return steps;
}

int
check_self(void)
{
	return self;
}

bool
check_was_stale(void)
{
	return stale_loads > 0;
}

void
check_finish_run(void)
{
	switch_to(HOST);
	abort();
}

void
check_fail(const char *format,...)
{
	va_list		args;

	if (self == HOST)
	{
		/* outside of any run: a mistake of the program */
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		exit(2);
	}
	failed = true;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	check_finish_run();
}

/* One of n, by the exhaustive search. */
static int
choose(int n)
{
	int			c = 0;

	if (n < 2)
		return 0;
	if (nchoices == MAX_CHOICES)
		check_fail("too many choices for an exhaustive search");
	if (nchoices < nfixed)
	{
		c = choice[nchoices];
		if (c >= n || (nchoices < nfixed - 1 && n != choices[nchoices]))
			check_fail("the case is not the same every time");
	}
	choice[nchoices] = (uint16_t) c;
	choices[nchoices++] = (uint16_t) n;
	return c;
}

int
check_pick(int n)
{
	picks++;
	if (mode == CHECK_EXHAUSTIVE)
		return (int) (mix(picks) % (uint64_t) n);
	return (int) random_number((uint32_t) n);
}

int
check_choose_store(int n)
{
	int			c;

	if (self == 0)
		return 0;
	if (mode == CHECK_EXHAUSTIVE)
	{
		if (stale_loads >= running->stale)
		{
			bound_met |= n > 1;
			return 0;
		}
		c = choose(n);
	}
	else
	{
		if (stale_chance == 0 || stale_loads >= MAX_STALE ||
			random_number(65536) >= stale_chance)
			return 0;
		c = 1 + (int) random_number((uint32_t) n - 1);
	}
	if (c > 0)
		stale_loads++;
	return c;
}

/* The process that is k-th in bits. */
static int
kth(unsigned bits, int k)
{
	while (k-- > 0)
		bits &= bits - 1;
	return __builtin_ctz(bits);
}

static int
highest_priority(void)
{
	int			best = -1;

	for (int i = 1; i < CHECK_MAX_PROCS; i++)
		if ((alive >> i & 1) != 0 && (best < 0 || priority[i] > priority[best]))
			best = i;
	return best;
}

static inline bool
touched_by_many(long granule)
{
	return stored_by[granule] != 0 &&
		(touched_by[granule] & (touched_by[granule] - 1)) != 0;
}

/* Does it matter who touches this word first? */
static bool
matters(const void *address, bool writes)
{
	long		granule;

	if (address == NULL)
		return true;			/* a fence */
	granule = check_memory_granule(address);
	if (granule < 0)
		return true;
	touched_by[granule] |= (uint8_t) (1 << self);
	if (writes)
		stored_by[granule] |= (uint8_t) (1 << self);
	if (!is_shared[granule] && touched_by_many(granule))
		found_shared = true;
	return is_shared[granule];
}

/* The first function of the focus that no run has come to; NULL: none. */
static const char *
focus_missed(void)
{
	for (int n = 0; running->focus != NULL && running->focus[n] != NULL; n++)
	{
		if ((focus_met >> n & 1) == 0)
			return running->focus[n];
	}
	return NULL;
}

/* May the case switch in this function? */
static bool
in_focus(const char *func)
{
	/* names are few and their addresses stay: what was found for each */
	static const char *known[256];
	static bool answer[256];
	static const CheckCase *of;
	size_t		i = ((uintptr_t) func >> 2) & 255;

	if (of != running)
	{
		of = running;
		memset(known, 0, sizeof(known));
		focus_met = 0;
	}
	if (known[i] != func)
	{
		known[i] = func;
		answer[i] = false;
		for (int n = 0; running->focus[n] != NULL; n++)
		{
			if (strcmp(running->focus[n], func) == 0)
			{
				answer[i] = true;
				focus_met |= 1U << n;
			}
		}
	}
	return answer[i];
}

void
check_point(const void *address, bool writes, const char *func)
{
	int			next = self;

	if (self == 0)
		return;
	if (++steps > MAX_STEPS)
		check_fail("no end after %d operations: waiting for another process?",
				   MAX_STEPS);
	if (running->focus != NULL)
	{
		if (!in_focus(func))
			return;
		focused++;
	}
	else
		focused = steps;
	switch (mode)
	{
		case CHECK_RANDOM:
			if (random_number(65536) < switch_chance)
				next = kth(alive, (int) random_number((uint32_t)
													  __builtin_popcount(alive)));
			break;
		case CHECK_PCT:
			for (int i = 0; i < nchanges; i++)
				if (change_at[i] == focused)
					priority[self] = -1 - i;
			next = highest_priority();
			break;
		case CHECK_EXHAUSTIVE:
			if (matters(address, writes))
			{
				unsigned	others = alive & ~(1U << self);
				int			c = 0;

				if (preemptions < running->preemptions)
					c = choose(1 + __builtin_popcount(others));
				else
					bound_met |= others != 0;

				if (c > 0)
				{
					preemptions++;
					next = kth(others, c - 1);
				}
			}
			break;
	}
	switch_to(next);
}

/* The running process has ended, or process 0 has set everything up. */
static int
next_process(void)
{
	switch (mode)
	{
		case CHECK_PCT:
			return highest_priority();
		case CHECK_EXHAUSTIVE:
			return kth(alive, choose(__builtin_popcount(alive)));
		default:
			return kth(alive,
					   (int) random_number((uint32_t) __builtin_popcount(alive)));
	}
}

static void
fiber_main(void)
{
	if (self == 0)
	{
		running->setup();
		check_memory_fork(running->procs);
		alive = (2U << running->procs) - 2;
		switch_to(next_process());
		check_memory_join(running->procs);
		if (running->finish != NULL)
			running->finish();
		check_finish_run();
	}
	running->body(self);
	alive &= ~(1U << self);
	switch_to(alive == 0 ? 0 : next_process());
	abort();
}

static void
fiber_make(int i)
{
	Fiber	   *fiber = &fibers[i];

#ifdef BY_HAND
	/* as check_switch() leaves it: six registers and where to go on */
	void	  **top = (void **) (fiber->stack + STACK_BYTES) - 2;

	*--top = NULL;				/* what a call would have left; aligns */
	*--top = (void *) fiber_main;
	for (int r = 0; r < 6; r++)
		*--top = NULL;
	fiber->sp = top;
#else
	getcontext(&fiber->context);
	fiber->context.uc_stack.ss_sp = fiber->stack;
	fiber->context.uc_stack.ss_size = STACK_BYTES;
	fiber->context.uc_link = NULL;
	makecontext(&fiber->context, fiber_main, 0);
#endif
}

/* Runs the case once.  false: it failed. */
static bool
run_once(void)
{
	failed = false;
	steps = 0;
	focused = 0;
	stale_loads = 0;
	preemptions = 0;
	nchoices = 0;
	picks = 0;
	alive = 0;
	check_memory_reset();
	check_linear_reset();
	for (int i = 0; i <= running->procs; i++)
		fiber_make(i);
	self = HOST;
	switch_to(0);
	self = HOST;
	beat = 1;
	if (longest < steps)
		longest = steps;
	return !failed;
}

static bool
run_seed(uint64_t seed)
{
	static const uint16_t switches[] = {32768, 16384, 6000, 1500};
	static const uint16_t stales[] = {0, 0, 2000, 16384};
	uint32_t	horizon;

	state = mix(seed) | 1;
	switch_chance = switches[random_number(4)];
	stale_chance = stales[random_number(4)];
	if (mode == CHECK_PCT)
	{
		for (int i = 1; i <= running->procs; i++)
			priority[i] = i;
		for (int i = running->procs; i > 1; i--)
		{
			int			j = 1 + (int) random_number((uint32_t) i);
			int			swap = priority[i];

			priority[i] = priority[j];
			priority[j] = swap;
		}
		/* not of the steps that runs before took: a seed alone makes the run */
		horizon = 8U << random_number(9);
		nchanges = 1 + (int) random_number(MAX_CHANGES);
		for (int i = 0; i < nchanges; i++)
			change_at[i] = 1 + (int) random_number(horizon);
	}
	return run_once();
}

static const char *
mode_name(int m)
{
	return m == CHECK_RANDOM ? "random" : m == CHECK_PCT ? "pct" : "exhaustive";
}

/* A segmentation fault, or no operation of core for seconds. */
static void
on_signal(int number)
{
	if (self == HOST)
	{
		if (number == SIGPROF)
			return;
		signal(number, SIG_DFL);
		raise(number);
		return;
	}
	if (number == SIGPROF)
	{
		static int	last_steps;

		if (beat || steps != last_steps)
		{
			beat = 0;
			last_steps = steps;
			return;
		}
		check_fail("does not end, without any operation");
	}
	check_fail("signal %d: %s", number, strsignal(number));
}

static void
catch_signals(void)
{
	static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGPROF};
	stack_t		alternative = {0};
	struct sigaction action = {0};
	struct itimerval every = {{2, 0}, {2, 0}};

	alternative.ss_size = STACK_BYTES;
	alternative.ss_sp = malloc(STACK_BYTES);
	sigaltstack(&alternative, NULL);
	action.sa_handler = on_signal;
	/* not masked: the handler does not return after a failure */
	action.sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESTART;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaction(numbers[i], &action, NULL);
	/* processor time: a busy machine may not let it run for seconds */
	setitimer(ITIMER_PROF, &every, NULL);
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* What the checking of a case came to. */
typedef struct Outcome
{
	bool		failed;
	uint64_t	runs[5];		/* by mode */
	uint64_t	stale;			/* runs with stale loads */
	bool		complete;		/* the exhaustive search came to its end */
	double		seconds[5];		/* by mode */
	uint64_t	seed;			/* of the failure; exhaustive: number of the run */
} Outcome;

static void
random_runs(Outcome *outcome, uint64_t base, uint64_t max, double until)
{
	/* the name is in the seed, so that cases differ */
	uint64_t	first = base;

	for (const char *p = running->name; *p != '\0'; p++)
		first = mix(first ^ (uint64_t) (unsigned char) *p);
	first = mix(first ^ (uint64_t) mode) >> 16;
	for (uint64_t i = outcome->runs[mode], end = i + max; i < end; i++)
	{
		/* late already: some all the same */
		if (until > 0 && i > 0 && (i & 63) == 0 && seconds() > until)
			return;
		outcome->runs[mode]++;
		if (!run_seed(first + i))
		{
			outcome->failed = true;
			outcome->seed = first + i;
			return;
		}
		if (stale_loads > 0)
			outcome->stale++;
	}
}

static void
exhaustive_runs(Outcome *outcome, uint64_t max)
{
	uint64_t   *runs = &outcome->runs[CHECK_EXHAUSTIVE];

	memset(touched_by, 0, CHECK_ARENA_BYTES / 8);
	memset(stored_by, 0, CHECK_ARENA_BYTES / 8);
	memset(is_shared, 0, CHECK_ARENA_BYTES / 8 * sizeof(bool));
	nfixed = 0;
	found_shared = false;
	bound_met = false;
	for (;;)
	{
		if (*runs == max)
			return;
		++*runs;
		if (!run_once())
		{
			outcome->failed = true;
			outcome->seed = *runs;
			return;
		}
		if (stale_loads > 0)
			outcome->stale++;
		if (found_shared)
		{
			for (long g = 0; g < CHECK_ARENA_BYTES / 8; g++)
				is_shared[g] = touched_by_many(g);
			found_shared = false;
			bound_met = false;
			nfixed = 0;
			continue;
		}
		/* the last choice that has another one */
		while (nchoices > 0 && choice[nchoices - 1] + 1 >= choices[nchoices - 1])
			nchoices--;
		if (nchoices == 0)
			break;
		choice[nchoices - 1]++;
		nfixed = nchoices;
	}
	outcome->complete = true;
}

static void
print_failure(const Outcome *outcome, bool trace)
{
	printf("# %s\n", message);
	printf("# CHECK_CASE='%s' CHECK_REPLAY=%s:%" PRIu64 " repeats it\n",
		   running->name, mode_name(mode), outcome->seed);
	check_linear_print();
	if (trace)
		check_memory_trace();
}

/* Runs the case in this mode, for so many schedules or so long. */
static void
run_mode(Outcome *outcome, int m, uint64_t base, uint64_t max, double until)
{
	double		start = seconds();

	mode = m;
	if (m == CHECK_EXHAUSTIVE)
		exhaustive_runs(outcome, max);
	else
		random_runs(outcome, base, max, until);
	outcome->seconds[m] += seconds() - start;
}

/* What the exhaustive search of the running case tried, for its line. */
static void
tell_extent(char *text, size_t size, const Outcome *outcome)
{
	const char *const plural[] = {"s", ""};
	char		first[64] = "";
	char		where[32] = "";
	int			n = 0;

	if (!outcome->complete)
		snprintf(first, sizeof(first), "the first %" PRIu64 " schedules of ",
				 outcome->runs[CHECK_EXHAUSTIVE]);
	while (running->focus != NULL && running->focus[n] != NULL)
		n++;
	if (n > 0)
		snprintf(where, sizeof(where), " in %d function%s", n, plural[n == 1]);
	if (outcome->complete && !bound_met)
		snprintf(text, size, ", no run meets a bound%s", where);
	else
		snprintf(text, size, ", %sat most %d preemption%s%s, %d stale load%s", first,
				 running->preemptions, plural[running->preemptions == 1], where,
				 running->stale, plural[running->stale == 1]);
}

static int
test_number(void)
{
	static int	n;

	return ++n;
}

/* What the cases so far came to, by mode. */
static uint64_t total_runs[5];
static double total_seconds[5];

/*
 * One case, its TAP line; random and PCT schedules for so long, 0: a number of them.
 * true: well.
 */
static bool
check_case(const char *program, uint64_t base, double for_seconds)
{
	Outcome		outcome = {0};
	int			nrandom = __builtin_popcount((unsigned) running->modes & RANDOM_MODES);
	char		result[256];
	char		extent[128] = "";
	bool		well;
	bool		cut_short;
	const int	modes[] = {CHECK_EXHAUSTIVE, CHECK_RANDOM, CHECK_PCT};

	longest = 0;
	for (size_t i = 0; i < 3 && !outcome.failed; i++)
	{
		uint64_t	max = running->schedules > 0 ? (uint64_t) running->schedules :
			modes[i] == CHECK_EXHAUSTIVE ? EXHAUSTIVE_MAX : SCHEDULES;
		double		until = 0;

		if ((running->modes & modes[i]) == 0)
			continue;
		if (for_seconds > 0 && modes[i] != CHECK_EXHAUSTIVE)
		{
			max = UINT64_MAX;
			until = seconds() + for_seconds / nrandom;
		}
		run_mode(&outcome, modes[i], base, max, until);
		total_runs[modes[i]] += outcome.runs[modes[i]];
		total_seconds[modes[i]] += outcome.seconds[modes[i]];
	}

	cut_short = (running->modes & CHECK_EXHAUSTIVE) != 0 && !outcome.failed &&
		!outcome.complete;
	if (cut_short && (running->modes & CHECK_BOUNDED) != 0)
		cut_short = false;
	/* one alone has but one schedule */
	if ((running->modes & CHECK_EXHAUSTIVE) != 0 && !outcome.failed && !cut_short &&
		running->procs > 1)
		tell_extent(extent, sizeof(extent), &outcome);
	if (cut_short)
		snprintf(message, sizeof(message),
				 "the search stopped before its end: raise the case's limit, or say that it is bounded");

	well = running->expect == NULL ? !outcome.failed && !cut_short :
		(outcome.failed || cut_short) &&
		strstr(message, running->expect) != NULL;
	if (running->expect != NULL && outcome.failed)
		snprintf(result, sizeof(result), "found by %s schedule %" PRIu64,
				 mode_name(mode), outcome.runs[mode]);
	else
	{
		int			n = 0;

		result[0] = '\0';
		for (size_t i = 0; i < 3; i++)
			if ((running->modes & modes[i]) != 0)
				n += snprintf(result + n, sizeof(result) - (size_t) n,
							  "%s%" PRIu64 " %s%s", n > 0 ? ", " : "",
							  outcome.runs[modes[i]], mode_name(modes[i]),
							  modes[i] != CHECK_EXHAUSTIVE ? "" :
							  !outcome.complete ? " (of more)" :
							  bound_met ? " (all within the bounds)" : " (all)");
		snprintf(result + n, sizeof(result) - (size_t) n,
				 ", %" PRIu64 " with stale loads, up to %d steps", outcome.stale,
				 longest);
	}
	if (well && focus_missed() != NULL)
	{
		/* renamed in core, so that nothing was tried */
		well = false;
		snprintf(result, sizeof(result), "no run came to the function %s",
				 focus_missed());
	}
	printf("%s %d - %s: %s%s\n", well ? "ok" : "not ok", test_number(), program,
		   running->name, extent);
	printf("# %s\n", result);
	if (!well && outcome.failed)
		print_failure(&outcome, true);
	else if (!well && cut_short)
		printf("# %s\n", message);
	else if (!well && running->expect != NULL)
		printf("# it should have failed: %s\n", running->expect);
	return well;
}

/* Did the case that runs fail?  random: as many runs as there shall have been. */
static bool
fails(Outcome *outcome, uint64_t base, uint64_t random, uint64_t exhaustive,
	  uint64_t *schedules)
{
	longest = 0;
	for (int m = CHECK_RANDOM; m <= CHECK_EXHAUSTIVE && !outcome->failed; m <<= 1)
	{
		uint64_t	most = m == CHECK_EXHAUSTIVE ? exhaustive : random;
		uint64_t	was;

		if ((running->modes & m) == 0 || outcome->complete || most == 0)
			continue;
		/* an exhaustive search begins anew each time */
		if (m == CHECK_EXHAUSTIVE)
			outcome->runs[m] = 0;
		was = outcome->runs[m];
		run_mode(outcome, m, base, most, 0);
		*schedules += outcome->runs[m] - was;
	}
	if (outcome->failed)
	{
		printf("found by '%s', %s, after %" PRIu64 " schedules: %s\n",
			   running->name, mode_name(mode), *schedules, message);
		print_failure(outcome, getenv("CHECK_TRACE") != NULL);
	}
	return outcome->failed;
}

/*
 * The program is a mutant: all cases by turns until one fails, beginning with `first`,
 * unless NULL, at its whole length.  Says which.  Exits with 3 for found, 0 for not.
 */
static int
check_mutant(const CheckCase *cases, int ncases, uint64_t base, const char *first)
{
	Outcome    *outcomes = calloc((size_t) ncases, sizeof(Outcome));
	uint64_t	schedules = 0;
	bool		known = first == NULL;

	for (int i = 0; i < ncases; i++)
	{
		if (first == NULL || strcmp(first, cases[i].name) != 0)
			continue;
		known = true;
		running = &cases[i];
		if (fails(&outcomes[i], base, MUTANT_MAX, EXHAUSTIVE_MAX, &schedules))
			return 3;
	}
	if (!known)
	{
		printf("there is no case '%s'\n", first);
		return 2;
	}
	/* bounded by numbers, not by time, on which a busy machine has a say */
	for (uint64_t max = MUTANT_MIN; max <= MUTANT_MAX; max *= 2)
	{
		uint64_t	exhaustive = max == MUTANT_MIN ? 32 * MUTANT_MIN :
			max == 8 * MUTANT_MIN ? MUTANT_MAX :
			max == 16 * MUTANT_MIN ? EXHAUSTIVE_MAX : 0;

		for (int i = 0; i < ncases; i++)
		{
			running = &cases[i];
			if (running->expect == NULL &&
				fails(&outcomes[i], base, max, exhaustive, &schedules))
				return 3;
		}
	}
	printf("not found in %" PRIu64 " schedules\n", schedules);
	return 0;
}

/* One schedule again, with its trace. */
static int
replay(const char *which)
{
	uint64_t	seed;
	const char *colon = strchr(which, ':');
	Outcome		outcome = {0};
	const int	modes[] = {CHECK_RANDOM, CHECK_PCT, CHECK_EXHAUSTIVE};

	if (colon == NULL)
	{
		fprintf(stderr, "CHECK_REPLAY is mode:seed\n");
		return 2;
	}
	seed = strtoull(colon + 1, NULL, 0);
	for (size_t i = 0; i < 3; i++)
		if (strncmp(which, mode_name(modes[i]), (size_t) (colon - which)) == 0)
			mode = modes[i];
	outcome.seed = seed;
	if (mode == CHECK_EXHAUSTIVE)
	{
		exhaustive_runs(&outcome, seed);
		outcome.seed = seed;
	}
	else
		outcome.failed = !run_seed(seed);
	if (!outcome.failed)
		snprintf(message, sizeof(message), "that run did not fail");
	print_failure(&outcome, true);
	return outcome.failed;
}

int
check_main(int argc, char **argv, const char *program, const CheckCase *cases,
		   int ncases)
{
	const char *seconds_text = getenv("CHECK_SECONDS");
	const char *only = getenv("CHECK_CASE");
	double		for_seconds = seconds_text != NULL ? atof(seconds_text) : 0;
	uint64_t	base = getenv("CHECK_SEED") != NULL ?
		strtoull(getenv("CHECK_SEED"), NULL, 0) : 1;
	bool		mutant = argc > 1 && strcmp(argv[1], "mutant") == 0;
	int			status = 0;
	int			n = 0;
	int			left = 0;		/* cases that time is to be left for */

	setvbuf(stdout, NULL, _IOLBF, 0);
	self = HOST;
	check_memory_init();
	touched_by = calloc(CHECK_ARENA_BYTES / 8, 1);
	stored_by = calloc(CHECK_ARENA_BYTES / 8, 1);
	is_shared = calloc(CHECK_ARENA_BYTES / 8, sizeof(bool));
	for (int i = 0; i < CHECK_MAX_PROCS; i++)
	{
		char	   *stack = mmap(NULL, GUARD_BYTES + STACK_BYTES,
								 PROT_READ | PROT_WRITE,
								 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (stack == MAP_FAILED ||
			mprotect(stack, GUARD_BYTES, PROT_NONE) != 0)
		{
			perror("mmap");
			return 2;
		}
		fibers[i].stack = stack + GUARD_BYTES;
	}
	catch_signals();

	if (mutant)
		return check_mutant(cases, ncases, base, argc > 2 ? argv[2] : NULL);
	for (int i = 0; i < ncases; i++)
	{
		if (only != NULL && strcmp(only, cases[i].name) != 0)
			continue;
		n++;
		left += (cases[i].modes & RANDOM_MODES) != 0;
	}
	/* exhaustive ones first: one that ends early leaves its time to others */
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < ncases; i++)
		{
			double		share = 0;

			if ((only != NULL && strcmp(only, cases[i].name) != 0) ||
				((cases[i].modes & CHECK_EXHAUSTIVE) != 0) != (pass == 0))
				continue;
			running = &cases[i];
			if (only != NULL && getenv("CHECK_REPLAY") != NULL)
				return replay(getenv("CHECK_REPLAY"));
			if (for_seconds > 0 && (cases[i].modes & RANDOM_MODES) != 0)
			{
				share = (for_seconds - total_seconds[CHECK_RANDOM] -
						 total_seconds[CHECK_PCT]) / left--;
				if (share <= 0)
					share = 0.001;
			}
			if (!check_case(program, base, share))
				status = 1;
		}
	}
	printf("# %s: %" PRIu64 " random and %" PRIu64 " pct schedules in %.1f s, %" PRIu64 " exhaustive in %.1f s\n",
		   program, total_runs[CHECK_RANDOM], total_runs[CHECK_PCT],
		   total_seconds[CHECK_RANDOM] + total_seconds[CHECK_PCT],
		   total_runs[CHECK_EXHAUSTIVE], total_seconds[CHECK_EXHAUSTIVE]);
	printf("1..%d\n", n);
	return status;
}
