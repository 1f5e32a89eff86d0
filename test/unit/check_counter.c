/*
 * check_counter.c
 *	  Counters under the checker.
 */
#include <stdio.h>

#include "check_core.h"
#include "counter.h"

enum
{
	ADD,
	GET,
	SET
};

static NxmCounter *counter;
static int64_t added[CHECK_MAX_PROCS];
static int64_t start;

/* state[0]: the value less where it starts */
static bool
apply(int64_t *state, const CheckOp *op)
{
	int64_t		value = start + state[0];

	switch (op->kind)
	{
		case ADD:
			if (op->result[0] == NXM_OVERFLOW)
				return __builtin_add_overflow(value, op->arg[0], &value);
			if (op->result[0] == NXM_NEED_EPOCH)
				return true;
			if (__builtin_add_overflow(value, op->arg[0], &value))
				return false;
			state[0] = value - start;
			return op->result[1] == value;
		case GET:
			return op->result[1] == value;
		default:
			if (op->result[0] == NXM_NEED_EPOCH)
				return true;
			state[0] = (int64_t) ((uint64_t) op->arg[0] - (uint64_t) start);
			return op->result[1] == value;
	}
}

static const char *
describe(const CheckOp *op)
{
	static const char *const kinds[] = {"add", "get", "set"};
	static char text[100];

	snprintf(text, sizeof(text), "%s %lld gave %d, %lld", kinds[op->kind],
			 (long long) op->arg[0], (int) op->result[0],
			 (long long) op->result[1]);
	return text;
}

static const CheckSpec spec = {"counter", apply, describe};

/* Where another process holds the epoch, it is given up after a few times. */
#define TRIES 5
#define DO(result, operation) \
	do { \
		int			tries = 0; \
		do \
		{ \
			nxm_enter(check_space()); \
			(result) = (operation); \
			nxm_leave(check_space()); \
			if ((result) == NXM_NEED_EPOCH) \
				nxm_epoch_poll(check_space()); \
		} while (check_again(result) || ((result) == NXM_NEED_EPOCH && ++tries < TRIES)); \
	} while (0)

static NxmResult
add(int64_t delta)
{
	CheckOp    *op = check_begin(ADD, 0, delta, 0);
	int64_t		value = 0;
	NxmResult	result;

	DO(result, nxm_counter_add(check_space(), counter, 0, delta, &value));
	check_end(op, result, value);
	return result;
}

static void
get(void)
{
	CheckOp    *op = check_begin(GET, 0, 0, 0);
	int64_t		value = 0;

	check_assert(nxm_counter_get(check_space(), counter, &value) == NXM_OK);
	check_end(op, NXM_OK, value);
}

static void
set(int64_t to)
{
	CheckOp    *op = check_begin(SET, 0, to, 0);
	int64_t		value = 0;
	NxmResult	result;

	DO(result, nxm_counter_set(check_space(), counter, to, &value));
	check_assert(result == NXM_OK || result == NXM_NEED_EPOCH);
	check_end(op, result, value);
}

static void
setup(bool striped, int64_t value)
{
	int64_t		old;
	NxmResult	result;

	start = value;
	memset(added, 0, sizeof(added));
	counter = check_shared(sizeof(*counter), "counter");
	check_core_setup(3, 4);
	check_assert(nxm_counter_init(check_space(), counter, striped, 1, 2) == NXM_OK);
	DO(result, nxm_counter_set(check_space(), counter, value, &old));
	check_assert(result == NXM_OK && old == 0);
}

static void
setup_exact(void)
{
	setup(false, 0);
}

static void
setup_brink(void)
{
	/* no addition has to be waited for yet */
	setup(false, INT64_MAX - NXM_MOST_PENDING);
}

static void
setup_striped(void)
{
	setup(true, 0);
	check_unmap();
}

static void
exact(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		switch (check_pick(5))
		{
			case 0:
				get();
				break;
			case 1:
				set(100 * proc + i);
				break;
			default:
				add(1 + check_pick(3));
		}
	}
}

static void
brink(int proc)
{
	(void) proc;
	for (int i = 0; i < 3; i++)
		add(check_pick(4) == 0 ? -1 : NXM_SAFE_DELTA - 1);
}

static void
fixed(int proc)
{
	if (proc == 1)
	{
		add(1);
		set(10);
	}
	else
	{
		add(2);
		get();
		add(4);
	}
}

/* One each: little enough for every schedule. */
static void
add_set(int proc)
{
	if (proc == 2)
		set(10);
	else
		add(proc);
}

/* Taken to the brink while others are about to add. */
static void
to_the_brink(int proc)
{
	if (proc == 1)
		add(2);
	else if (check_pick(2) == 0)
		set(INT64_MAX - 1);
	else
		add(INT64_MAX - 1);
	add(1);
}

/* Likewise, as an epoch passes by a process that has no part in that. */
static void
brink_passed(int proc)
{
	if (proc == 1)
		set(INT64_MAX - 1);
	else if (proc == 2)
		add(2);
	else
		nxm_epoch_poll(check_space());
}

static void
brink_fixed(int proc)
{
	/* a large one first: what is added below cannot be added twice */
	add(NXM_MOST_PENDING - 2);
	add(proc == 1 ? -1 : 1);
}

static void
exact_finish(void)
{
	get();
	check_linearizable(&spec, -1);
	check_all_free(0);
}

/*
 * A striped counter: what is taken out by setting it to 0 and what is in it at
 * the end is all that was added.
 */
static void
striped(int proc)
{
	NxmSpace   *space = check_space();
	int64_t		value = 0;

	for (int i = 0; i < 3; i++)
	{
		int64_t		delta = 1 + check_pick(3);
		NxmResult	result;

		if (check_pick(3) > 0)
		{
			do
				result = nxm_counter_add(space, counter, 0, delta, &value);
			while (check_again(result));
			check_assert(result == NXM_OK);
			added[proc] += delta;
		}
		else
		{
			do
				result = nxm_counter_set(space, counter, 0, &value);
			while (check_again(result));
			check_assert(result == NXM_OK && value >= 0);
			added[proc] -= value;
		}
	}
}

static void
striped_finish(void)
{
	int64_t		value;
	int64_t		sum = 0;

	for (int i = 1; i < CHECK_MAX_PROCS; i++)
		sum += added[i];
	check_assert(nxm_counter_get(check_space(), counter, &value) == NXM_OK);
	check_assert(value == sum);
	nxm_counter_fini(check_space(), counter);
	check_all_free(0);
}

/* The first stripe is taken to the brink while others are about to add to it. */
static __int128 balance[CHECK_MAX_PROCS];

static void
setup_striped_brink(void)
{
	memset(balance, 0, sizeof(balance));
	setup_striped();
}

static void
striped_to_the_brink(int proc)
{
	int64_t		value = 0;
	NxmResult	result;

	if (proc == 1)
	{
		DO(result, nxm_counter_set(check_space(), counter, INT64_MAX - 1, &value));
		if (result == NXM_OK)
			balance[proc] = (__int128) (INT64_MAX - 1) - value;
		else
			check_assert(result == NXM_NEED_EPOCH);
		return;
	}
	for (int i = 0; i < 2; i++)
	{
		DO(result, nxm_counter_add(check_space(), counter, 0, 2, &value));
		if (result == NXM_OK)
			balance[proc] += 2;
		else
			check_assert(result == NXM_OVERFLOW || result == NXM_NEED_EPOCH);
	}
}

static void
striped_brink_finish(void)
{
	__int128	sum = 0;

	for (int i = 1; i < CHECK_MAX_PROCS; i++)
		sum += balance[i];
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		NxmStripe  *stripe = nxm_at(check_space(), counter->stripes[i]);

		sum -= (int64_t) nxm_load(&stripe->value);
	}
	check_assert(sum == 0);
	nxm_counter_fini(check_space(), counter);
	check_all_free(0);
}

/*
 * Additions go to a stripe of the node that is named, and processes of a node to
 * its stripes by turns.  Of who adds what for which node each is a bit.
 */
#define NODES 2
#define STRIPES 2				/* of a node */
#define SPREAD_BIT(node, proc) (INT64_C(1) << ((node) * CHECK_MAX_PROCS + (proc)))

static void
setup_spread(void)
{
	counter = check_shared(sizeof(*counter), "counter");
	check_core_setup(3, 4);
	/* a second node, whose memory is of the same chunk */
	nxm_store(&check_space()->shared->nodes[1].chunk, 1);
	check_assert(nxm_counter_init(check_space(), counter, true, NODES, STRIPES) == NXM_OK);
	check_assert(counter->nstripes == NODES * STRIPES);
	check_unmap();
}

static void
spread(int proc)
{
	for (int node = 0; node < NODES; node++)
	{
		int64_t		value = 0;
		NxmResult	result;

		do
			result = nxm_counter_add(check_space(), counter, node,
									 SPREAD_BIT(node, proc), &value);
		while (check_again(result));
		check_assert(result == NXM_OK);
	}
}

static void
spread_finish(void)
{
	int64_t		all = 0;
	int64_t		sum = 0;

	for (int i = 0; i < NODES * STRIPES; i++)
	{
		NxmStripe  *stripe = nxm_at(check_space(), counter->stripes[i]);
		int64_t		value = (int64_t) nxm_load(&stripe->value);

		/* three processes: each stripe of a node has at least one of them */
		check_assert(value != 0);
		for (int proc = 1; proc <= 3; proc++)
			value &= ~SPREAD_BIT(i % NODES, proc);
		check_assert(value == 0);
		sum += (int64_t) nxm_load(&stripe->value);
	}
	for (int node = 0; node < NODES; node++)
		for (int proc = 1; proc <= 3; proc++)
			all += SPREAD_BIT(node, proc);
	check_assert(sum == all);
	nxm_counter_fini(check_space(), counter);
	check_all_free(0);
}

static const CheckCase cases[] = {
	{"exact", 3, setup_exact, exact, exact_finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"exact, all schedules", 2, setup_exact, fixed, exact_finish, CHECK_EXHAUSTIVE, 0, 4, 2, NULL, NULL},
	{"every schedule of add, set and add", 3, setup_exact, add_set, exact_finish, CHECK_EXHAUSTIVE, 0, CHECK_UNBOUNDED, NULL, NULL},
	{"on the brink of overflow", 3, setup_brink, brink, exact_finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"on the brink of overflow, all schedules", 2, setup_brink, brink_fixed, exact_finish, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, NULL},
	{"taken to the brink of overflow", 3, setup_exact, to_the_brink, exact_finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"taken to the brink of overflow, all schedules", 2, setup_exact, to_the_brink, exact_finish, CHECK_EXHAUSTIVE, 20000, 2, 1, NULL, NULL},
	{"taken to the brink as an epoch passes, all schedules", 3, setup_exact, brink_passed, exact_finish, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, NULL},
	{"striped", 3, setup_striped, striped, striped_finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"striped, taken to the brink of overflow", 3, setup_striped_brink, striped_to_the_brink, striped_brink_finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"striped, spread", 3, setup_spread, spread, spread_finish, CHECK_RANDOM, 0, 0, 0, NULL, NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_counter", cases, LENGTH(cases));
}
