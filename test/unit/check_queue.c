/*
 * check_queue.c
 *	  The queue under the checker.
 */
#include <stdio.h>

#include "check_core.h"
#include "queue.h"

enum
{
	PUSH,
	POP,
	DROP
};

static NxmQueue *queue;
static bool dropped;
/* items that there is room for */
static int64_t most;

/* Some small, some with a page for three, some in pieces: a page and two objects. */
static uint32_t
length_of(int number)
{
	static const uint32_t lengths[] = {600, 8, NXM_PAGE_SIZE + NXM_MAX_OBJECT + 40, 16};

	return lengths[number % 4];
}

/* state[0]: how many; then the values, the oldest first */
static bool
apply(int64_t *state, const CheckOp *op)
{
	/* who still pushes then loses it, who pops may be told or not have seen it yet */
	if (op->kind == DROP)
		state[0] = -1;
	if (op->kind == DROP || op->result[0] == NXM_DROPPED)
		return true;
	if (state[0] < 0)
		return op->kind == PUSH;
	if (op->kind == PUSH)
	{
		if (op->result[0] == NXM_NEED_MEMORY)
			return state[0] == most;
		if (state[0] == CHECK_STATE_WORDS - 1)
			check_fail("the specification's queue is too small");
		if (state[0] == most)
			return false;
		state[++state[0]] = op->arg[0];
		return true;
	}
	if (state[0] == 0)
		return op->result[0] == NXM_ABSENT;
	if (op->result[0] != NXM_OK || op->result[1] != state[1])
		return false;
	memmove(state + 1, state + 2, (CHECK_STATE_WORDS - 2) * sizeof(int64_t));
	state[CHECK_STATE_WORDS - 1] = 0;
	state[0]--;
	return true;
}

static const char *
describe(const CheckOp *op)
{
	static char text[60];

	if (op->kind == DROP || op->result[0] == NXM_DROPPED)
		snprintf(text, sizeof(text), op->kind == DROP ? "drop" : "pop: dropped");
	else if (op->kind == PUSH)
		snprintf(text, sizeof(text), "push %d%s", (int) op->arg[0],
				 op->result[0] == NXM_OK ? "" : ": full");
	else if (op->result[0] == NXM_ABSENT)
		snprintf(text, sizeof(text), "pop: empty");
	else
		snprintf(text, sizeof(text), "pop gave %d", (int) op->result[1]);
	return text;
}

static const CheckSpec spec = {"queue", apply, describe};

static void
push(int number)
{
	NxmSpace   *space = check_space();
	CheckOp    *op = check_begin(PUSH, 0, number, 0);
	NxmValue	value = check_value(number, length_of(number));
	NxmResult	result;

	do
	{
		nxm_enter(space);
		result = nxm_queue_push(space, queue, &value);
		nxm_leave(space);
	} while (check_again(result));
	check_assert(result == NXM_OK ||
				 (result == NXM_NEED_MEMORY && space->need_chunk == -1 &&
				  space->want == NXM_WANT_NOTHING));
	check_end(op, result, 0);
}

static NxmResult
pop(void)
{
	NxmSpace   *space = check_space();
	CheckOp    *op = check_begin(POP, 0, 0, 0);
	char		bytes[NXM_PAGE_SIZE + NXM_MAX_OBJECT + 40];
	NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};
	NxmResult	result;
	int			number = 0;

	do
	{
		nxm_enter(space);
		result = nxm_queue_pop(space, queue, -1, &buffer);
		nxm_leave(space);
	} while (check_again(result));
	if (result == NXM_OK)
	{
		number = check_number(buffer.data, buffer.len);
		check_assert(buffer.len == length_of(number));
		check_assert(buffer.type == NXM_BYTEA);
	}
	else
		check_assert(result == NXM_ABSENT || (result == NXM_DROPPED && dropped));
	check_end(op, result, number);
	/* at least the dummy's */
	check_assert((int64_t) nxm_load(&queue->bytes) > 0);
	return result;
}

static void
setup(int procs, int n)
{
	queue = check_shared(sizeof(*queue), "queue");
	most = INT64_MAX;
	dropped = false;
	check_core_setup(procs, 16);
	check_assert(nxm_queue_init(check_space(), queue) == NXM_OK);
	for (int i = 1; i <= n; i++)
		push(i);
}

static void
setup_empty(void)
{
	setup(2, 0);
}

static void
setup_two(void)
{
	setup(2, 2);
}

/* As long as it may be, by its counts, but for one item.  Nobody pops then. */
#define MISSING (((UINT64_C(1) << 30) - (UINT64_C(1) << 20) - 3) << NXM_REF_BITS)

static void
setup_full(void)
{
	setup(2, 2);
	most = 3;
	nxm_fetch_add(&queue->tail, MISSING);
}

static void
setup_three(void)
{
	setup(3, 2);
}

static void
setup_unmapped(void)
{
	setup(3, 1);
	check_unmap();
}

static void
body(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		if (check_pick(2))
			push(10 * proc + i);
		else
			pop();
		if (check_pick(8) == 0)
			check_reattach();
	}
}

/* One each: little enough for every schedule. */
static void
push_pop(int proc)
{
	if (proc == 1)
		push(11);
	else
		pop();
}

static void
body_full(int proc)
{
	push(10 * proc);
}

/* the last item and the one before it */
static void
body_short(int proc)
{
	pop();
	push(10 * proc + 1);
	pop();
	pop();
}

/* what pops are most at odds with: the same memory pushed again */
static void
body_pops(int proc)
{
	pop();
	pop();
	push(2 * (5 * proc));
	pop();
	push(2 * (5 * proc + 1));
}

static void
fixed(int proc)
{
	if (proc == 1)
		pop();
	else
	{
		pop();
		push(11);
	}
}

static void
fixed_pushes(int proc)
{
	push(10 * proc + 1);
	if (proc == 1)
		pop();
}

static void
fixed_overtaken(int proc)
{
	if (proc == 1)
		push(11);
	else
	{
		pop();
		pop();
		pop();
		push(21);
		push(23);
	}
}

/* The one that is overtaken is the longer one. */
static void
fixed_bytes(int proc)
{
	if (proc == 1)
		push(12);
	else
	{
		pop();
		push(21);
		pop();
	}
}

/*
 * Length and queue stay as they are while one pushes, as if by nearly as many pushes and
 * pops as the counts can tell.
 */
static void
fixed_long(int proc)
{
	uint64_t	many = ((UINT64_C(1) << 30) - 4) << NXM_REF_BITS;

	if (proc == 1)
		push(11);
	else
	{
		/* head first: the length is never near the most */
		nxm_fetch_add(&queue->head, many);
		nxm_fetch_add(&queue->tail, many);
	}
}

/* Too short a buffer, or another type, takes nothing. */
static void
refused(int proc)
{
	NxmSpace   *space = check_space();
	char		bytes[4];
	NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};
	NxmResult	result;

	nxm_enter(space);
	result = nxm_queue_pop(space, queue, proc == 1 ? -1 : NXM_TEXT, &buffer);
	nxm_leave(space);
	check_assert(result == NXM_ABSENT ||
				 result == (proc == 1 ? NXM_NEED_BUFFER : NXM_MISMATCH));
	pop();
	push(10 * proc);
}

static void
finish(void)
{
	uint64_t	length = nxm_queue_length(queue);

	while (pop() == NXM_OK)
		length--;
	/* the last one popped stays as the dummy: a small one, of one object */
	push(1);
	check_assert(pop() == NXM_OK);
	check_assert(length == 0);
	check_linearizable(&spec, -1);
	check_assert(nxm_load(&queue->bytes) ==
				 nxm_item_bytes(nxm_at(check_space(),
									   nxm_load(&queue->head) & NXM_REF_MASK)));
	check_all_free(1);
}

static void
finish_long(void)
{
	/* who has linked an item may find tail changed, with nobody having moved it there */
	push(21);
	finish();
}

static void
full_finish(void)
{
	nxm_fetch_add(&queue->tail, -MISSING);
	finish();
}

/* Several drain what is left. */
static void
drain_all(bool last)
{
	NxmSpace   *space = check_space();
	NxmResult	result;

	do
	{
		nxm_enter(space);
		result = nxm_queue_drain(space, queue, 1, last);
		nxm_leave(space);
	} while (result == NXM_OK || check_again(result));
	check_assert(result == NXM_ABSENT);
}

static void
drain(int proc)
{
	(void) proc;
	drain_all(true);
}

static void
drain_finish(void)
{
	check_assert((nxm_load(&queue->head) & NXM_REF_MASK) == 0);
	check_assert(nxm_load(&queue->bytes) == 0);
	check_all_free(0);
}

static void
setup_drain(void)
{
	setup(3, 4);
	check_unmap();
}

/* The queue's own words and hazards: with allocation and the epoch it is too much. */
static const char *const in_queue[] = {
	"nxm_queue_push", "take", "nxm_queue_length", "nxm_protect", NULL
};

/* Dropped while it is in use. */
static void
body_drop(int proc)
{
	if (proc == 1)
	{
		CheckOp    *op = check_begin(DROP, 0, 0, 0);

		dropped = true;
		drain_all(false);
		check_end(op, NXM_OK, 0);
	}
	else
		body(proc);
}

static void
fixed_drop(int proc)
{
	if (proc == 1)
		body_drop(proc);
	else
		pop();
}

static void
finish_drop(void)
{
	/* the dummy that is left has not the memory of a long value */
	drain_all(false);
	check_assert(nxm_load(&queue->bytes) <= NXM_PAGE_SIZE);
	drain_all(true);
	check_linearizable(&spec, -1);
	drain_finish();
}

#define OFTEN CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL

static const CheckCase cases[] = {
	{"two processes", 2, setup_two, body, finish, OFTEN, NULL},
	{"three processes", 3, setup_three, body, finish, OFTEN, NULL},
	{"mapped on demand", 3, setup_unmapped, body, finish, OFTEN, NULL},
	{"nearly empty", 3, setup_three, body_short, finish, OFTEN, NULL},
	{"pops", 3, setup_three, body_pops, finish, OFTEN, NULL},
	{"full", 2, setup_full, body_full, full_finish, OFTEN, NULL},
	{"refused pops", 2, setup_two, refused, finish, OFTEN, NULL},
	{"drain", 3, setup_drain, drain, drain_finish, OFTEN, NULL},
	{"dropped while in use", 3, setup_three, body_drop, finish_drop, OFTEN, NULL},
	{"all schedules of drop and pop", 2, setup_two, fixed_drop, finish_drop, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, NULL},
	{"all schedules of pop and pop, push", 2, setup_two, fixed, finish, CHECK_EXHAUSTIVE, 0, 2, 2, NULL, NULL},
	{"all schedules of a push and one that overtakes it", 2, setup_two, fixed_overtaken, finish, CHECK_EXHAUSTIVE, 0, 1, 1, NULL, NULL},
	{"all schedules of a push and pops that overtake it", 2, setup_empty, fixed_bytes, finish, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, NULL},
	{"all schedules of a push and what looks like as many as there can be", 2, setup_two, fixed_long, finish_long, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, NULL},
	{"all schedules of push, pop and push", 2, setup_two, fixed_pushes, finish, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, NULL},
	{"every schedule of push and pop", 2, setup_empty, push_pop, finish, CHECK_EXHAUSTIVE, 0, CHECK_UNBOUNDED, NULL, in_queue},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_queue", cases, LENGTH(cases));
}
