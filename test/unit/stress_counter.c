/*
 * stress_counter.c
 *	  Counters under many workers: no addition is lost, no value given twice.
 */
#include <limits.h>
#include <stdio.h>

#include "counter.h"
#include "stress_run.h"

typedef struct Test
{
	NxmCounter	exact;
	NxmCounter	striped;
	struct
	{
		int64_t		exact;		/* what this worker added */
		int64_t		striped;
		int64_t		drained;	/* and took out again */
		uint64_t	unused[5];
	}			sums[STRESS_MAX_WORKERS];
} Test;

static void
distinct(Worker *worker)
{
	Test	   *test = worker->test;
	int64_t		last = 0;
	int64_t		value;
	NxmResult	r;

	while (stress_go(worker))
	{
		ENV_DO(&worker->space, r, nxm_counter_add(&worker->space, &test->exact, 0, 1, &value));
		CHECK(worker, r == NXM_OK, "add: %d", (int) r);
		CHECK(worker, value > last, "%lld after %lld", (long long) value,
			  (long long) last);
		last = value;
		test->sums[worker->id].exact++;
	}
}

static void
add_and_drain(Worker *worker)
{
	Test	   *test = worker->test;
	int64_t		value;
	NxmResult	r;

	while (stress_go(worker))
	{
		int64_t		delta = (int64_t) env_below(&worker->random, 2000001) - 1000000;

		/* now and then past the bounds of the fetch-and-add */
		if (env_below(&worker->random, 16) == 0)
			delta *= INT64_C(1) << 22;
		ENV_DO(&worker->space, r, nxm_counter_add(&worker->space, &test->exact, 0, delta, &value));
		CHECK(worker, r == NXM_OK, "add: %d", (int) r);
		test->sums[worker->id].exact += delta;
		ENV_DO(&worker->space, r, nxm_counter_add(&worker->space, &test->striped,
												  worker->id % 2, delta, &value));
		CHECK(worker, r == NXM_OK, "striped add: %d", (int) r);
		test->sums[worker->id].striped += delta;
		if (env_below(&worker->random, 64) == 0)
		{
			ENV_DO(&worker->space, r, nxm_counter_set(&worker->space, &test->exact, 0, &value));
			CHECK(worker, r == NXM_OK, "set: %d", (int) r);
			test->sums[worker->id].exact -= value;
			ENV_DO(&worker->space, r, nxm_counter_set(&worker->space, &test->striped, 0, &value));
			CHECK(worker, r == NXM_OK, "striped set: %d", (int) r);
			test->sums[worker->id].striped -= value;
			ENV_DO(&worker->space, r, nxm_counter_get(&worker->space, &test->striped, &value));
			CHECK(worker, r == NXM_OK, "striped get: %d", (int) r);
		}
	}
}

/* Near the greatest value an addition is refused or done, nothing else. */
static void
overflow(Worker *worker)
{
	Test	   *test = worker->test;
	int64_t		value;
	NxmResult	r;

	while (stress_go(worker))
	{
		int64_t		delta = 1 + (int64_t) env_below(&worker->random, 1000);

		if (env_below(&worker->random, 2) == 0)
			delta = -delta;
		ENV_DO(&worker->space, r, nxm_counter_add(&worker->space, &test->exact, 0, delta, &value));
		if (r == NXM_OK)
		{
			test->sums[worker->id].exact += delta;
			CHECK(worker, value > INT64_MAX - 10000000, "overflow to %lld", (long long) value);
		}
		else
			CHECK(worker, r == NXM_OVERFLOW && delta > 0, "add: %d", (int) r);
	}
}

static int64_t
total(Test *test, bool striped)
{
	int64_t		sum = 0;

	for (int i = 0; i < STRESS_MAX_WORKERS; i++)
	{
		sum += striped ? test->sums[i].striped : test->sums[i].exact;
		test->sums[i].exact = striped ? test->sums[i].exact : 0;
		test->sums[i].striped = striped ? 0 : test->sums[i].striped;
	}
	return sum;
}

/* Is each stripe in memory of the node that it is for? */
static bool
on_their_nodes(const NxmSpace *space, const NxmCounter *counter)
{
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		uint32_t	chunk = nxm_ref_page(counter->stripes[i]) >> NXM_CHUNK_PAGE_SHIFT;

		if (space->shared->chunks[chunk].node != i % counter->nnodes)
			return false;
	}
	return true;
}

int
main(int argc, char **argv)
{
	Worker	   *worker = stress_begin(argc, argv, sizeof(Test));
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;
	int64_t		value = -1;
	int64_t		old;
	NxmResult	r;

	ENV_DO(space, r, nxm_counter_init(space, &test->exact, false, 2, 4));
	stress_ok(r == NXM_OK, "an exact counter is made");
	ENV_DO(space, r, nxm_counter_init(space, &test->striped, true, 2, 4));
	stress_ok(r == NXM_OK && test->striped.nstripes == 8, "a striped counter is made");
	stress_ok(on_their_nodes(space, &test->striped), "of stripes on all nodes");

	stress_phase("workers get rising values of a counter", distinct);
	ENV_DO(space, r, nxm_counter_get(space, &test->exact, &value));
	stress_ok(r == NXM_OK && value == total(test, false), "and their sum is its value");

	ENV_DO(space, r, nxm_counter_set(space, &test->exact, 0, &old));
	stress_phase("workers add to and empty an exact and a striped counter", add_and_drain);
	ENV_DO(space, r, nxm_counter_get(space, &test->exact, &value));
	stress_ok(r == NXM_OK && value == total(test, false), "the exact one's sum");
	ENV_DO(space, r, nxm_counter_get(space, &test->striped, &value));
	stress_ok(r == NXM_OK && value == total(test, true), "the striped one's sum");

	ENV_DO(space, r, nxm_counter_set(space, &test->exact, INT64_MAX - 1000, &old));
	stress_phase("workers add where it may overflow", overflow);
	ENV_DO(space, r, nxm_counter_get(space, &test->exact, &value));
	stress_ok(r == NXM_OK && value == INT64_MAX - 1000 + total(test, false), "and the sum is right");

	nxm_counter_fini(space, &test->striped);
	nxm_counter_fini(space, &test->exact);
	stress_all_free(worker, "all memory came back");
	return stress_end();
}
