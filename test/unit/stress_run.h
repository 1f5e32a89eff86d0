/*
 * stress_run.h
 *	  Phases of a stress program: what its workers do at the same time.
 *
 * Workers are threads; in a program compiled with STRESS_PROCESSES they are
 * processes that map the space at different addresses.  Each phase ends with
 * one line of TAP.  The first failure ends the program.
 *
 * Environment: STRESS_SECONDS of a phase, STRESS_WORKERS, STRESS_SEED,
 * STRESS_PHASE (run those whose name contains it).
 */
#ifndef STRESS_RUN_H
#define STRESS_RUN_H

#include "item.h"
#include "stress_env.h"

#define STRESS_MAX_WORKERS 16

typedef struct Worker
{
	int			id;				/* 0 to nworkers - 1, also the process's line */
	int			nworkers;
	Env		   *env;
	void	   *test;			/* the program's shared data, in this mapping */
	NxmSpace	space;
	uint64_t	random;
	uint64_t	turn;			/* counts stress_go() */
	char	   *buffer;			/* NXM_MAX_VALUE bytes */
	char	   *buffer2;
} Worker;

/*
 * Makes the space and the test's zeroed shared data; gives the worker that the
 * main program is, which is not one of the others.
 */
extern Worker *stress_begin(int argc, char **argv, size_t test_size);

/* Runs work in every worker, for some seconds, until stress_go() is false. */
extern void stress_phase(const char *name, void (*work) (Worker *worker));

/* And until there was enough of it, as main's worker says, or it has failed for that. */
extern void stress_phase_until(const char *name, void (*work) (Worker *worker),
							   bool (*enough) (Worker *worker));

/* Is there more to do?  Also looks after the epoch.  Not in a section. */
extern bool stress_go(Worker *worker);
/* Has the phase ended?  stress_go() without its care. */
extern bool stress_over(Worker *worker);

/* A line of TAP, from the main program. */
extern void stress_ok(bool ok, const char *name);

/*
 * After everything was freed: that all pages came back, and their memory with
 * them.
 */
extern void stress_all_free(Worker *worker, const char *name);

/* Ends the program; its status. */
extern int	stress_end(void);

extern void stress_fail(Worker *worker, const char *format, ...)
			__attribute__((format(printf, 2, 3), noreturn));

#define CHECK(worker, condition, ...) \
	do { \
		if (!(condition)) \
			stress_fail(worker, __VA_ARGS__); \
	} while (0)

/*
 * Values that tell whether they are whole: 24 bytes of who, version and check,
 * then bytes that follow from these.  Returns the length.
 */
#define STRESS_MIN_VALUE 24
extern uint32_t stress_fill(char *data, uint32_t len, uint64_t who,
							uint64_t version);
/* Checks one, and gives what is in it. */
extern void stress_verify(Worker *worker, const char *data, uint32_t len,
						  uint64_t *who, uint64_t *version);
/* Lengths: most are short, some long, few so long that an item is big. */
extern uint32_t stress_length(Worker *worker);

#endif							/* STRESS_RUN_H */
