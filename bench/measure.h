/*
 * measure.h
 *	  What the benchmark programs measure with: a clock, a histogram of latencies,
 *	  the median over rounds, a processor of one's own, and the end of a child.
 *
 * C and POSIX alone; a file that includes it defines _GNU_SOURCE.  A histogram has
 * one writer; those of several are summed cell by cell.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Most rounds that a median is of. */
#define MAX_ROUNDS	99

/* A histogram of nanoseconds: 64 steps to each doubling, so within 1.6 %. */
#define STEPS_LOG	6
#define CELLS		(40 << STEPS_LOG)

static inline uint64_t
nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

/* The cell that counts a latency: below 128 ns one for each nanosecond. */
static inline int
cell_of(uint64_t ns)
{
	int			log = 63 - __builtin_clzll(ns | 1);
	int			cell;

	if (log <= STEPS_LOG)
		return (int) ns;
	cell = ((log - STEPS_LOG) << STEPS_LOG) + (int) (ns >> (log - STEPS_LOG));
	return cell < CELLS ? cell : CELLS - 1;
}

/* The shortest latency that a cell counts, in nanoseconds. */
static inline double
cell_value(int cell)
{
	int			shift = (cell >> STEPS_LOG) - 1;

	if (shift <= 0)
		return cell;
	return (double) ((uint64_t) ((cell & ((1 << STEPS_LOG) - 1)) + (1 << STEPS_LOG)) << shift);
}

/* The latency that this share of all does not exceed, in nanoseconds; 1: the longest. */
static inline double
quantile(const uint64_t *cells, double share)
{
	uint64_t	total = 0;
	uint64_t	seen = 0;

	for (int c = 0; c < CELLS; c++)
		total += cells[c];
	for (int c = 0; c < CELLS; c++)
	{
		seen += cells[c];
		if (seen > 0 && (double) seen >= share * (double) total)
			return cell_value(c);
	}
	return 0;
}

static inline int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* Of 1 to MAX_ROUNDS values, which stay as they are. */
static inline double
median(const double *values, int n)
{
	double		sorted[MAX_ROUNDS];

	memcpy(sorted, values, (size_t) n * sizeof(double));
	qsort(sorted, (size_t) n, sizeof(double), compare_doubles);
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* Keeps the calling process on one processor, by its number modulo those online. */
static inline void
pin_to_processor(int n)
{
	cpu_set_t	cpus;

	CPU_ZERO(&cpus);
	CPU_SET(n % (int) sysconf(_SC_NPROCESSORS_ONLN), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
}

/* Waits for a child; ends the program where it did not end well. */
static inline void
wait_for_child(pid_t pid)
{
	int			status = -1;

	waitpid(pid, &status, 0);
	if (status != 0)
	{
		fprintf(stderr, "a process ended with status 0x%x\n", (unsigned int) status);
		exit(1);
	}
}

#endif							/* MEASURE_H */
