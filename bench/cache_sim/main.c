/*
 * main.c
 *	  Replays traces through policies and prints what share of requests, and of
 *	  bytes, were hits.
 *
 *	cache_sim [-e] [-c capacity,...] [-p policy[:options]]... [-n requests]
 *			  [-d data-file] trace...
 *
 * -e			all entries have the same size
 * -c			bytes (or entries), or with % shares of all the trace's keys
 * -p			may be given often; all with their defaults, where it is not
 * -n			so many requests of each trace at most
 * -d			the results, a line each, for a plot
 *
 * Without a trace it lists the policies.
 *
 * For each trace: a line a policy, best mean hit ratio first, and by capacity hit
 * ratio, distance to the best one (belady, which can't be had, left out) and, with
 * sizes, byte hit ratio.  Then, of several traces, how far each policy was from
 * the best one in the mean and at most, and where.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

#define MAX_CAPACITIES 16
#define MAX_RUNS 64
#define FAR 3.0

typedef struct Run
{
	const Policy *policy;
	const char *options;
	const char *label;
	double		hits[MAX_CAPACITIES];	/* % */
	double		byte_hits[MAX_CAPACITIES];
	double		mean;
	/* over all traces */
	double		worst;
	char		worst_where[96];
	double		sum;
	int			far;			/* cases more than FAR points below the best */
} Run;

static Run runs[MAX_RUNS];
static int	nruns = 0;
static int	ncases = 0;

static void
replay(Run *run, const Trace *t, uint64_t capacity, int c)
{
	void	   *self = run->policy->create(t, capacity, run->options);
	uint64_t	hits = 0;
	uint64_t	bytes = 0;
	uint64_t	hit_bytes = 0;

	for (uint64_t i = 0; i < t->nrequests; i++)
	{
		uint32_t	size = t->sizes[t->keys[i]];

		bytes += size;
		if (size <= capacity && run->policy->request(self, i))
		{
			hits++;
			hit_bytes += size;
		}
		if (run->policy->used(self) > capacity)
		{
			fprintf(stderr, "%s holds %" PRIu64 " of %" PRIu64 " bytes\n", run->label,
					run->policy->used(self), capacity);
			exit(1);
		}
	}
	run->policy->destroy(self);
	run->hits[c] = 100.0 * (double) hits / (double) t->nrequests;
	run->byte_hits[c] = 100.0 * (double) hit_bytes / (double) bytes;
}

static int
by_mean(const void *a, const void *b)
{
	double		x = (*(Run *const *) a)->mean;
	double		y = (*(Run *const *) b)->mean;

	return (x < y) - (x > y);
}

static int
by_worst(const void *a, const void *b)
{
	double		x = (*(Run *const *) a)->sum;
	double		y = (*(Run *const *) b)->sum;

	return (x > y) - (x < y);
}

/* "1000,5%": capacities for this trace. */
static int
parse_capacities(const char *list, const Trace *t, uint64_t *capacities)
{
	int			n = 0;

	while (*list != '\0' && n < MAX_CAPACITIES)
	{
		char	   *end;
		double		value = strtod(list, &end);

		if (*end == '%')
		{
			value = value / 100 * (double) t->bytes;
			end++;
		}
		capacities[n] = (uint64_t) value;
		if (capacities[n] < 1)
			capacities[n] = 1;
		n++;
		list = *end == ',' ? end + 1 : end;
		if (*end != ',' && *end != '\0')
			return 0;
	}
	return n;
}

static void
do_trace(const Trace *t, const char *list, FILE *data)
{
	uint64_t	capacities[MAX_CAPACITIES];
	double		best[MAX_CAPACITIES] = {0};
	Run		   *order[MAX_RUNS];
	int			n = parse_capacities(list, t, capacities);
	bool		sizes = t->bytes != t->nkeys;

	printf("%s: %" PRIu64 " requests for %" PRIu32 " keys", t->name, t->nrequests, t->nkeys);
	if (sizes)
		printf(" of %" PRIu64 " bytes", t->bytes);
	printf("\n%-34s", sizes ? "hit % (to the best) byte hit %" : "hit % (to the best)");
	for (int c = 0; c < n; c++)
		printf(" %*" PRIu64 "", sizes ? 21 : 15, capacities[c]);
	printf("\n");
	for (int r = 0; r < nruns; r++)
	{
		Run		   *run = &runs[r];

		run->mean = 0;
		for (int c = 0; c < n; c++)
		{
			replay(run, t, capacities[c], c);
			run->mean += run->hits[c] / n;
			if (run->policy != &belady_policy && run->hits[c] > best[c])
				best[c] = run->hits[c];
			if (data)
				fprintf(data, "%s\t%s\t%" PRIu64 "\t%.4f\t%.4f\n", t->name, run->label,
						capacities[c], run->hits[c], run->byte_hits[c]);
		}
		order[r] = run;
	}
	qsort(order, (size_t) nruns, sizeof(order[0]), by_mean);
	for (int r = 0; r < nruns; r++)
	{
		Run		   *run = order[r];

		printf("  %-32s", run->label);
		for (int c = 0; c < n; c++)
		{
			double		distance = best[c] - run->hits[c];

			if (run->policy == &belady_policy)
				printf(" %6.2f         ", run->hits[c]);
			else
				printf(" %6.2f (%6.2f)", run->hits[c], -distance);
			if (sizes)
				printf(" %6.2f", run->byte_hits[c]);
			run->sum += distance;
			run->far += distance > FAR;
			if (distance > run->worst || run->worst_where[0] == '\0')
			{
				run->worst = distance;
				snprintf(run->worst_where, sizeof(run->worst_where), "%s at %" PRIu64, t->name, capacities[c]);
			}
		}
		printf("\n");
	}
	printf("\n");
	fflush(stdout);
	ncases += n;
}

static void
add_run(const char *spec)
{
	size_t		len = strcspn(spec, ":");

	if (nruns == MAX_RUNS || policy_find(spec, len) == NULL)
	{
		fprintf(stderr, "no policy %s\n", spec);
		exit(2);
	}
	runs[nruns++] = (Run) {.policy = policy_find(spec, len),.label = spec,
		.options = spec[len] == ':' ? spec + len + 1 : NULL};
}

int
main(int argc, char **argv)
{
	const char *capacities = "0.1%,1%,10%,25%";
	uint64_t	most = UINT64_MAX;
	bool		equal = false;
	FILE	   *data = NULL;
	int			ntraces;
	int			opt;

	while ((opt = getopt(argc, argv, "ec:p:n:d:")) != -1)
	{
		if (opt == 'e')
			equal = true;
		else if (opt == 'c')
			capacities = optarg;
		else if (opt == 'p')
			add_run(optarg);
		else if (opt == 'n')
			most = strtoull(optarg, NULL, 10);
		else if (opt != 'd' || (data = fopen(optarg, "w")) == NULL)
			return 2;
	}
	if (nruns == 0)
		for (int p = 0; policies[p] != NULL; p++)
			add_run(policies[p]->name);
	ntraces = argc - optind;
	if (ntraces == 0)
	{
		for (int p = 0; policies[p] != NULL; p++)
			printf("%-10s %s\n", policies[p]->name, policies[p]->what);
		return 2;
	}
	for (int a = optind; a < argc; a++)
	{
		Trace	   *t = trace_open(argv[a], equal);

		if (t == NULL)
			return 1;
		if (t->nrequests > most)
			t->nrequests = most;
		do_trace(t, capacities, data);
		trace_free(t);
	}
	if (ntraces > 1)
	{
		Run		   *order[MAX_RUNS];

		for (int r = 0; r < nruns; r++)
			order[r] = &runs[r];
		qsort(order, (size_t) nruns, sizeof(order[0]), by_worst);
		printf("points below the best policy, in %d cases of %d traces\n", ncases, ntraces);
		for (int r = 0; r < nruns; r++)
			if (order[r]->policy != &belady_policy)
				printf("  %-32s mean %6.2f, most %6.2f, over 3 points in %3d cases (%s)\n", order[r]->label,
					   order[r]->sum / ncases, order[r]->worst, order[r]->far, order[r]->worst_where);
	}
	if (data)
		fclose(data);
	return 0;
}
