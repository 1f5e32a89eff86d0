/*
 * check_model.h
 *	  What the parts of the checker know of each other.
 */
#ifndef NXM_CHECK_MODEL_H
#define NXM_CHECK_MODEL_H

#include "check.h"

/* For each process, up to which of its events. */
typedef struct CheckClock
{
	uint32_t	at[CHECK_MAX_PROCS];
} CheckClock;

/* check_run.c */

/* The next operation of this process: others may go first. */
extern void check_point(const void *address, bool writes, const char *func);
/* One of n stores, 0 the newest. */
extern int	check_choose_store(int n);
extern void check_finish_run(void) __attribute__((noreturn));

/* check_memory.c */
extern void check_memory_init(void);
extern void check_memory_reset(void);
extern void check_memory_fork(int procs);
extern void check_memory_join(int procs);
extern const CheckClock *check_memory_clock(int proc);
/* Counts an event of this process that is no access; its clock. */
extern uint32_t check_memory_tick(void);
extern void check_memory_trace(void);
/* Index of the 8 bytes at p in shared memory; -1: not shared. */
extern long check_memory_granule(const void *p);

#define CHECK_ARENA_BYTES	(16 * 1024 * 1024)

/* check_linear.c */
extern void check_linear_reset(void);
extern int	check_linear_count(void);
extern void check_linear_print(void);

#endif							/* NXM_CHECK_MODEL_H */
