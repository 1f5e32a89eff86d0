/*
 * stress_lists.c
 *	  Stack and queue under many workers: each value that is pushed is popped
 *	  once, whole; a queue gives those of one worker in their order.
 */
#include <stdio.h>

#include "queue.h"
#include "stack.h"
#include "stress_run.h"

#define MAX_PUSHES (1 << 21)	/* of one worker */

typedef struct Test
{
	NxmStack	stack;
	NxmQueue	queue;
	struct
	{
		NxmAtomic	pushed;		/* values that it has pushed; its own */
		NxmAtomic	popped;		/* by it; its own */
		uint64_t	unused[6];
	}			count[STRESS_MAX_WORKERS + 1];
	/* a bit for each of a worker's values: it was popped */
	NxmAtomic	seen[STRESS_MAX_WORKERS][MAX_PUSHES / 64];
} Test;

/* The two, as one interface. */
static bool is_queue;

static NxmResult
push(Worker *worker, const NxmValue *value)
{
	Test	   *test = worker->test;
	NxmResult	r;

	ENV_DO(&worker->space, r,
		   is_queue ? nxm_queue_push(&worker->space, &test->queue, value)
		   : nxm_stack_push(&worker->space, &test->stack, value));
	return r;
}

static NxmResult
pop(Worker *worker, int type, NxmBuffer *buffer)
{
	Test	   *test = worker->test;
	NxmResult	r;

	ENV_DO(&worker->space, r,
		   is_queue ? nxm_queue_pop(&worker->space, &test->queue, type, buffer)
		   : nxm_stack_pop(&worker->space, &test->stack, type, buffer));
	return r;
}

static uint64_t
length(Test *test)
{
	return is_queue ? nxm_queue_length(&test->queue) : nxm_stack_depth(&test->stack);
}

/* Pops one; false: there is none. */
static bool
pop_one(Worker *worker, uint64_t *last)
{
	Test	   *test = worker->test;
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	uint64_t	who;
	uint64_t	version;
	NxmResult	r;

	/* a short buffer, or the wrong type, takes nothing */
	if (env_below(&worker->random, 16) == 0)
	{
		buffer.size = env_below(&worker->random, 40);
		r = pop(worker, NXM_INTERNAL, &buffer);
		CHECK(worker, r == NXM_MISMATCH || r == NXM_ABSENT, "pop of the wrong type: %d", (int) r);
		r = pop(worker, -1, &buffer);
		CHECK(worker, r == NXM_NEED_BUFFER || r == NXM_ABSENT || r == NXM_OK,
			  "pop into a short buffer: %d", (int) r);
		CHECK(worker, r != NXM_NEED_BUFFER || buffer.len > buffer.size,
			  "a buffer of %zu is too short for %zu", buffer.size, buffer.len);
		CHECK(worker, r != NXM_OK || buffer.len <= buffer.size,
			  "a buffer of %zu got %zu", buffer.size, buffer.len);
		if (r == NXM_ABSENT)
			return false;
		if (r == NXM_NEED_BUFFER)
		{
			buffer.size = NXM_MAX_VALUE;
			r = pop(worker, -1, &buffer);
		}
	}
	else
		r = pop(worker, -1, &buffer);
	if (r == NXM_ABSENT)
		return false;
	CHECK(worker, r == NXM_OK, "pop: %d", (int) r);
	stress_verify(worker, buffer.data, (uint32_t) buffer.len, &who, &version);
	CHECK(worker, who < STRESS_MAX_WORKERS && version < MAX_PUSHES,
		  "value %llu of %llu", (unsigned long long) version, (unsigned long long) who);
	CHECK(worker, buffer.type == (NxmType) (version % 3), "type %d of value %llu",
		  (int) buffer.type, (unsigned long long) version);
	CHECK(worker, (nxm_fetch_or(&test->seen[who][version / 64],
								UINT64_C(1) << version % 64) >>
				   version % 64 & 1) == 0, "value %llu of worker %llu again",
		  (unsigned long long) version, (unsigned long long) who);
	/* version + 1, so that 0 is none */
	CHECK(worker, last == NULL || !is_queue || version + 1 > last[who],
		  "value %llu of worker %llu after %llu", (unsigned long long) version,
		  (unsigned long long) who, (unsigned long long) last[who] - 1);
	if (last != NULL)
		last[who] = version + 1;
	nxm_store_relaxed(&test->count[worker->id].popped,
					  nxm_load_relaxed(&test->count[worker->id].popped) + 1);
	return true;
}

static void
push_one(Worker *worker, uint32_t len)
{
	Test	   *test = worker->test;
	uint64_t	n = nxm_load_relaxed(&test->count[worker->id].pushed);
	NxmValue	value = {worker->buffer, 0, (NxmType) (n % 3)};
	NxmResult	r;

	if (n == MAX_PUSHES)
		return;
	value.len = stress_fill(worker->buffer, len, (uint64_t) worker->id, n);
	/* before the push, so that what is popped was always counted */
	nxm_store(&test->count[worker->id].pushed, n + 1);
	r = push(worker, &value);
	CHECK(worker, r == NXM_OK, "push: %d", (int) r);
}

/* Around empty: the contended states. */
static void
near_empty(Worker *worker)
{
	uint64_t	last[STRESS_MAX_WORKERS] = {0};

	while (stress_go(worker))
	{
		if (env_below(&worker->random, 2) == 0)
			push_one(worker, STRESS_MIN_VALUE + env_below(&worker->random, 60));
		else
			pop_one(worker, last);
	}
}

/* Up and down by thousands, all lengths. */
static void
waves(Worker *worker)
{
	uint64_t	last[STRESS_MAX_WORKERS] = {0};

	while (stress_go(worker))
	{
		uint32_t	n = env_below(&worker->random, 3000);

		for (uint32_t i = 0; i < n && stress_go(worker); i++)
			push_one(worker, stress_length(worker));
		CHECK(worker, length(worker->test) < (uint64_t) STRESS_MAX_WORKERS * MAX_PUSHES, "length %llu",
			  (unsigned long long) length(worker->test));
		n = env_below(&worker->random, 3300);
		for (uint32_t i = 0; i < n && stress_go(worker) && pop_one(worker, last); i++)
			;
	}
}

/* Half push, half pop. */
static void
hand_over(Worker *worker)
{
	uint64_t	last[STRESS_MAX_WORKERS] = {0};

	while (stress_go(worker))
	{
		if (worker->id % 2 == 0)
		{
			if (length(worker->test) < 10000)
				push_one(worker, STRESS_MIN_VALUE + env_below(&worker->random, 100));
		}
		else
			pop_one(worker, last);
	}
}

static uint64_t
sum(Test *test, bool pushed)
{
	uint64_t	n = 0;

	for (int i = 0; i <= STRESS_MAX_WORKERS; i++)
		n += nxm_load(pushed ? &test->count[i].pushed : &test->count[i].popped);
	return n;
}

static bool
all_seen(Test *test)
{
	for (int i = 0; i < STRESS_MAX_WORKERS; i++)
		for (uint64_t n = 0; n < nxm_load(&test->count[i].pushed); n++)
			if ((nxm_load(&test->seen[i][n / 64]) >> n % 64 & 1) == 0)
			{
				printf("# value %llu of worker %d is lost\n", (unsigned long long) n, i);
				return false;
			}
	return true;
}

static bool
counts_add_up(Test *test)
{
	uint64_t	pushed = sum(test, true);
	uint64_t	popped = sum(test, false);

	if (length(test) == pushed - popped)
		return true;
	printf("# %llu pushed, %llu popped, length %llu\n", (unsigned long long) pushed,
		   (unsigned long long) popped, (unsigned long long) length(test));
	return false;
}

static void
one_kind(Worker *worker, bool queue)
{
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;
	const char *kind = queue ? "queue" : "stack";
	char		name[100];
	uint64_t	peeked = 0;
	NxmRef		at = 0;
	NxmResult	r;

	is_queue = queue;
	for (int i = 0; i <= STRESS_MAX_WORKERS; i++)
	{
		nxm_store(&test->count[i].pushed, 0);
		nxm_store(&test->count[i].popped, 0);
	}
	for (int i = 0; i < STRESS_MAX_WORKERS; i++)
		for (int n = 0; n < MAX_PUSHES / 64; n++)
			nxm_store_relaxed(&test->seen[i][n], 0);
	if (queue)
	{
		ENV_DO(space, r, nxm_queue_init(space, &test->queue));
		stress_ok(r == NXM_OK, "a queue is made");
	}
	else
		nxm_stack_init(&test->stack);

	snprintf(name, sizeof(name), "%s: workers push and pop near its end", kind);
	stress_phase(name, near_empty);
	snprintf(name, sizeof(name), "%s: its length is right", kind);
	stress_ok(counts_add_up(test), name);
	snprintf(name, sizeof(name), "%s: workers push and pop many of all lengths", kind);
	stress_phase(name, waves);
	snprintf(name, sizeof(name), "%s: its length is still right", kind);
	stress_ok(counts_add_up(test), name);
	snprintf(name, sizeof(name), "%s: some workers push, others pop", kind);
	stress_phase(name, hand_over);

	/* copied without popping, then popped */
	do
	{
		NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
		uint64_t	who;
		uint64_t	version;

		if (length(test) == 0)
			break;
		ENV_DO(space, r, queue ? nxm_queue_peek(space, &test->queue, &at, &buffer)
			   : nxm_stack_peek(space, &test->stack, &at, &buffer));
		if (r != NXM_OK)
			break;
		stress_verify(worker, buffer.data, (uint32_t) buffer.len, &who, &version);
		peeked++;
	} while (at != 0);
	snprintf(name, sizeof(name), "%s: reading it without popping gives them all", kind);
	if (peeked != length(test))
		printf("# %llu of %llu\n", (unsigned long long) peeked, (unsigned long long) length(test));
	stress_ok(peeked == length(test), name);

	while (pop_one(worker, NULL))
		;
	snprintf(name, sizeof(name), "%s: none is lost", kind);
	stress_ok(all_seen(test) && length(test) == 0, name);

	/* for the drain to have something */
	for (int i = 0; i < 1000; i++)
	{
		NxmValue	value = {worker->buffer, 0, NXM_TEXT};

		value.len = stress_fill(worker->buffer, i % 100 == 0 ? 70000 : 100, 0, 0);
		r = push(worker, &value);
		CHECK(worker, r == NXM_OK, "push: %d", (int) r);
	}
	do
		ENV_DO(space, r, queue ? nxm_queue_drain(space, &test->queue, 100, true)
			   : nxm_stack_drain(space, &test->stack, 100));
	while (r == NXM_OK);
	snprintf(name, sizeof(name), "%s: drained", kind);
	stress_ok(r == NXM_ABSENT && nxm_load(queue ? &test->queue.bytes : &test->stack.bytes) == 0, name);
	snprintf(name, sizeof(name), "%s: all memory came back", kind);
	stress_all_free(worker, name);
}

int
main(int argc, char **argv)
{
	Worker	   *worker = stress_begin(argc, argv, sizeof(Test));

	one_kind(worker, false);
	one_kind(worker, true);
	return stress_end();
}
