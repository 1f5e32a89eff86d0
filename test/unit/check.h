/*
 * check.h
 *	  A model checker for code written in core_atomic.h's operations.
 *
 * A case is what a few processes do to shared memory.  It is run again and
 * again, each time from its beginning under another schedule: setup() by
 * process 0, alone; then body(1) to body(procs), interleaved at every atomic
 * operation; then finish() by process 0, alone and after all the others.  The
 * processes are fibers of one thread, so a run is a function of its seed.
 *
 *	check_run.c		fibers, schedulers, the loop over cases, TAP
 *	check_memory.c	what a load may return; races; freed objects
 *	check_linear.c	is there a sequential order that explains the results?
 *
 * Schedulers.  Random: a switch with some probability at each operation.  PCT
 * (Burckhardt et al., ASPLOS 2010): priorities, lowered at a few random steps;
 * a process of high priority runs until then, as though the others were
 * stopped, so that an operation that waits for another process is found as one
 * that does not end.  Exhaustive: all schedules of at most so many preemptions
 * and stale loads, which the case's line tells; or that no run meets such a bound, so that
 * these are all there are, with switches in the functions of the case's focus.
 *
 * A search that stops at its limit before its end is a failure, unless the case says
 * CHECK_BOUNDED: then its line says how many schedules were tried.
 *
 * Environment: CHECK_SECONDS=n runs random and PCT schedules of a program's cases for n
 * seconds altogether rather than a fixed number of them; exhaustive searches are as
 * ever, and their time is not counted.  CHECK_SEED=n changes the base seed.
 * CHECK_CASE=name runs that case alone.  CHECK_REPLAY=mode:seed with it runs
 * that one schedule, and prints its trace.
 *
 * Limits.  Stores to one word are ordered as they are executed, and loads do
 * not return later stores: of C11's behaviours, those in which a store takes
 * effect before an earlier one, or a load after a later store of the same
 * process, are not tried.  A word remembers its last CHECK_HISTORY stores.
 */
#ifndef NXM_CHECK_H
#define NXM_CHECK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK_MAX_PROCS	5		/* process 0 included */
#define CHECK_MAX_OPS	128		/* recorded in one run */

/* How a case is run. */
#define CHECK_RANDOM		1
#define CHECK_PCT			2
#define CHECK_EXHAUSTIVE	4
#define CHECK_BOUNDED		8		/* the search is not expected to come to its end */

/* Preemptions and stale loads that no run comes to. */
#define CHECK_UNBOUNDED		INT_MAX, INT_MAX

typedef struct CheckCase
{
	const char *name;
	int			procs;			/* 0 not counted */
	void		(*setup) (void);
	void		(*body) (int proc);
	void		(*finish) (void);	/* or NULL */
	int			modes;
	int			schedules;		/* most of each kind; 0: as usual */
	int			preemptions;	/* exhaustive: most of them */
	int			stale;			/* exhaustive: most loads of older stores */
	const char *expect;			/* must fail, with these words in the message */
	const char *const *focus;	/* switch in these functions alone; NULL: in all */
} CheckCase;

/* Runs the cases.  The exit status of the program. */
extern int	check_main(int argc, char **argv, const char *program,
					   const CheckCase *cases, int ncases);

/* Zeroed shared memory, aligned to 64; gone after the run. */
extern void *check_shared(size_t size, const char *name);

/* Which process runs; and was any load of this run given an older store? */
extern int	check_self(void);
extern bool check_was_stale(void);

/* Atomic operations of this run so far. */
extern int	check_steps(void);

/* 0 to n - 1, random, but the same in all runs of an exhaustive search. */
extern int	check_pick(int n);

/* Ends the run: the case has failed. */
extern void check_fail(const char *format, ...)
			__attribute__((format(printf, 1, 2), noreturn));

#define check_assert(condition) \
	do { \
		if (!(condition)) \
			check_fail("line %d: not so: %s", __LINE__, #condition); \
	} while (0)

/*
 * A recorded operation.  What kind, key, args and results mean is for the
 * specification to say.
 */
typedef struct CheckOp
{
	int			proc;
	int			kind;
	int			key;
	int64_t		arg[2];
	int64_t		result[2];
	/* set by check_begin() and check_end() */
	uint64_t	began;
	uint64_t	ended;
	uint32_t	saw[CHECK_MAX_PROCS];	/* clocks of what happened before */
	uint32_t	clock;			/* of its process at its end; 0: it has not */
} CheckOp;

extern CheckOp *check_begin(int kind, int key, int64_t arg0, int64_t arg1);
extern void check_end(CheckOp *op, int64_t result0, int64_t result1);

#define CHECK_STATE_WORDS 16

/* A sequential specification.  The first state is all 0. */
typedef struct CheckSpec
{
	const char *name;
	/* Is the result as it must be in this state?  Then makes the next one. */
	bool		(*apply) (int64_t *state, const CheckOp *op);
	const char *(*describe) (const CheckOp *op);
} CheckSpec;

/*
 * Fails unless the operations recorded so far are linearizable.  key -1: all of
 * them; else those of that key alone.  An operation comes before another if it
 * ended before the other began; in a run with stale loads, where the processes
 * have no common time, if its end happened before the other's beginning.
 */
extern void check_linearizable(const CheckSpec *spec, int key);

#endif							/* NXM_CHECK_H */
