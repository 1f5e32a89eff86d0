/*
 * check_self.c
 *	  The checker checked: small programs with known errors, which it must find,
 *	  and their correct forms, with which it must find no fault.
 */
#include <stdio.h>

#include "core_atomic.h"
#include "check.h"

#define LENGTH(a) ((int) (sizeof(a) / sizeof((a)[0])))

/* Message passing: a plain word and the flag that says that it is there. */
static struct
{
	NxmAtomic	flag;
	uint64_t	pad[7];
	uint64_t	data;
	NxmAtomic	other;
}		   *message;

static void
message_setup(void)
{
	message = check_shared(sizeof(*message), "message");
}

static void
message_body(int proc)
{
	if (proc == 1)
	{
		NXM_SET(message->data, 42);
		nxm_store(&message->flag, 1);
	}
	else if (nxm_load(&message->flag) == 1)
		check_assert(NXM_GET(message->data) == 42);
}

static void
message_relaxed_store(int proc)
{
	if (proc == 1)
	{
		NXM_SET(message->data, 42);
		nxm_store_relaxed(&message->flag, 1);
	}
	else if (nxm_load(&message->flag) == 1)
		check_assert(NXM_GET(message->data) == 42);
}

static void
message_relaxed_load(int proc)
{
	if (proc == 1)
	{
		NXM_SET(message->data, 42);
		nxm_store(&message->flag, 1);
	}
	else if (nxm_load_relaxed(&message->flag) == 1)
		check_assert(NXM_GET(message->data) == 42);
}

/* the same with an atomic word: no race, just an older store */
static void
message_atomic(int proc)
{
	if (proc == 1)
	{
		nxm_store_relaxed(&message->other, 42);
		nxm_store_relaxed(&message->flag, 1);
	}
	else if (nxm_load(&message->flag) == 1)
		check_assert(nxm_load_relaxed(&message->other) == 42);
}

static void
message_fences(int proc)
{
	if (proc == 1)
	{
		NXM_SET(message->data, 42);
		nxm_fence();
		nxm_store_relaxed(&message->flag, 1);
	}
	else if (nxm_load_relaxed(&message->flag) == 1)
	{
		nxm_fence();
		check_assert(NXM_GET(message->data) == 42);
	}
}

/* A third process adds to the flag: the release sequence goes on. */
static void
message_sequence(int proc)
{
	if (proc == 1)
	{
		NXM_SET(message->data, 42);
		nxm_store(&message->flag, 1);
	}
	else if (proc == 2)
		nxm_fetch_add_relaxed(&message->flag, 2);
	else if (nxm_load(&message->flag) == 3)
		check_assert(NXM_GET(message->data) == 42);
}

/* Store buffering: both load 0 unless fences are between. */
static struct
{
	NxmAtomic	x;
	NxmAtomic	y;
	NxmAtomic	z;
	uint64_t	loaded[CHECK_MAX_PROCS][2];
}		   *words;

static void
words_setup(void)
{
	words = check_shared(sizeof(*words), "words");
}

static void
buffering(int proc, bool first_fence, bool second_fence)
{
	NxmAtomic  *mine = proc == 1 ? &words->x : &words->y;
	NxmAtomic  *theirs = proc == 1 ? &words->y : &words->x;

	nxm_store(mine, 1);
	if (proc == 1 ? first_fence : second_fence)
		nxm_fence();
	words->loaded[proc][0] = nxm_load(theirs);
}

static void
buffering_two(int proc)
{
	buffering(proc, true, true);
}

static void
buffering_one(int proc)
{
	buffering(proc, true, false);
}

static void
buffering_finish(void)
{
	check_assert(words->loaded[1][0] + words->loaded[2][0] > 0);
}

/* Coherence: what has been seen does not go back. */
static void
coherence_body(int proc)
{
	if (proc == 1)
	{
		nxm_store_relaxed(&words->x, 1);
		nxm_store_relaxed(&words->x, 2);
	}
	else
	{
		uint64_t	a = nxm_load_relaxed(&words->x);
		uint64_t	b = nxm_load_relaxed(&words->x);

		check_assert(a <= b);
	}
}

/* and what another one has seen and told of neither */
static void
coherence_told(int proc)
{
	if (proc == 1)
		nxm_store_relaxed(&words->x, 1);
	else if (proc == 2)
	{
		if (nxm_load_relaxed(&words->x) == 1)
			nxm_store(&words->y, 1);
	}
	else if (nxm_load(&words->y) == 1)
		check_assert(nxm_load_relaxed(&words->x) == 1);
}

/* Independent reads of independent writes: seen in different orders. */
static void
independent_body(int proc)
{
	NxmAtomic  *first = proc == 3 ? &words->x : &words->y;
	NxmAtomic  *second = proc == 3 ? &words->y : &words->x;

	if (proc == 1)
		nxm_store(&words->x, 1);
	else if (proc == 2)
		nxm_store(&words->y, 1);
	else
	{
		words->loaded[proc][0] = nxm_load(first);
		words->loaded[proc][1] = nxm_load(second);
	}
}

static void
independent_finish(void)
{
	check_assert(!(words->loaded[3][0] == 1 && words->loaded[3][1] == 0 &&
				   words->loaded[4][0] == 1 && words->loaded[4][1] == 0));
}

/* A seqlock over two words. */
static void
seqlock(int proc, bool with_fences)
{
	if (proc == 1)
	{
		nxm_store_relaxed(&words->z, 1);
		if (with_fences)
			nxm_fence();
		nxm_store_relaxed(&words->x, 7);
		nxm_store_relaxed(&words->y, 7);
		nxm_store(&words->z, 2);
	}
	else
	{
		uint64_t	before = nxm_load(&words->z);
		uint64_t	x = nxm_load_relaxed(&words->x);
		uint64_t	y = nxm_load_relaxed(&words->y);

		if (with_fences)
			nxm_fence();
		if (nxm_load_relaxed(&words->z) == before && (before & 1) == 0)
			check_assert(x == y);
	}
}

static void
seqlock_fences(int proc)
{
	seqlock(proc, true);
}

static void
seqlock_none(int proc)
{
	seqlock(proc, false);
}

/* Adding by load and store loses some. */
static void
lost_update(int proc)
{
	(void) proc;
	nxm_store(&words->x, nxm_load(&words->x) + 1);
}

static void
update(int proc)
{
	uint64_t	x = nxm_load_relaxed(&words->x);

	(void) proc;
	while (!nxm_cas(&words->x, &x, x + 1))
		;
}

static void
updates_finish(void)
{
	check_assert(nxm_load(&words->x) == 2);
}

/* A lock that a stopped process does not give back. */
static void
spinning(int proc)
{
	(void) proc;
	for (;;)
	{
		uint64_t	no = 0;

		if (nxm_cas(&words->x, &no, 1))
			break;
	}
	NXM_SET(words->loaded[0][0], 1);
	nxm_store(&words->x, 0);
}

/*
 * Treiber's stack, whose popped nodes are pushed again at once.  The tag in the
 * top word, or its absence, makes the difference.
 */
#define NODES 3

static struct
{
	NxmAtomic	top;			/* tag, then number of the node */
	uint64_t	pad[7];
	NxmAtomic	next[NODES + 1];
}		   *stack;

static bool tagged;

enum
{
	PUSH,
	POP
};

static void
stack_setup(void)
{
	stack = check_shared(sizeof(*stack), "stack");
	for (uint64_t i = 1; i <= NODES; i++)
		nxm_init(&stack->next[i], i - 1);
	nxm_init(&stack->top, NODES);
}

static void
tagged_setup(void)
{
	tagged = true;
	stack_setup();
}

static void
untagged_setup(void)
{
	tagged = false;
	stack_setup();
}

static uint64_t
next_tag(uint64_t top)
{
	return ((top >> 8) + tagged) << 8;
}

static void
push(uint64_t node)
{
	CheckOp    *op = check_begin(PUSH, 0, (int64_t) node, 0);
	uint64_t	top = nxm_load(&stack->top);

	do
		nxm_store_relaxed(&stack->next[node], top & 0xff);
	while (!nxm_cas(&stack->top, &top, next_tag(top) | node));
	check_end(op, 0, 0);
}

static uint64_t
pop(void)
{
	CheckOp    *op = check_begin(POP, 0, 0, 0);
	uint64_t	top = nxm_load(&stack->top);
	uint64_t	next;

	do
	{
		if ((top & 0xff) == 0)
			break;
		next = nxm_load_relaxed(&stack->next[top & 0xff]);
	} while (!nxm_cas(&stack->top, &top, next_tag(top) | next));
	check_end(op, (int64_t) (top & 0xff), 0);
	return top & 0xff;
}

static bool
stack_apply(int64_t *state, const CheckOp *op)
{
	if (state[CHECK_STATE_WORDS - 1] == 0)
	{
		/* the first one: as it was set up */
		state[CHECK_STATE_WORDS - 1] = 1;
		for (state[0] = 0; state[0] < NODES; state[0]++)
			state[1 + state[0]] = state[0] + 1;
	}
	if (op->kind == PUSH)
	{
		state[++state[0]] = op->arg[0];
		return true;
	}
	if (state[0] == 0)
		return op->result[0] == 0;
	if (state[state[0]] != op->result[0])
		return false;
	state[state[0]--] = 0;
	return true;
}

static const char *
stack_describe(const CheckOp *op)
{
	static char text[40];

	if (op->kind == PUSH)
		snprintf(text, sizeof(text), "push %d", (int) op->arg[0]);
	else
		snprintf(text, sizeof(text), "pop gave %d", (int) op->result[0]);
	return text;
}

static const CheckSpec stack_spec = {"stack", stack_apply, stack_describe};

static void
stack_body(int proc)
{
	(void) proc;
	for (int i = 0; i < 2; i++)
	{
		uint64_t	node = pop();

		if (node != 0)
			push(node);
	}
}

/* one takes two and puts back the first: the classic */
static void
stack_classic(int proc)
{
	uint64_t	a;

	if (proc == 1)
		pop();
	else
	{
		a = pop();
		pop();
		if (a != 0)
			push(a);
	}
}

static void
stack_finish(void)
{
	/* without tags it may have become a circle */
	for (int i = 0; i <= NODES && pop() != 0; i++)
		;
	check_linearizable(&stack_spec, -1);
}

/* Objects: freed while another one may read. */
static void
object_setup(void)
{
	words = check_shared(sizeof(*words), "words");
	message = check_shared(sizeof(*message), "message");
	NXM_UNPOISON(message, sizeof(*message));
	nxm_init(&message->flag, 0);
	NXM_SET(message->data, 42);
}

static void
object_freed(int proc)
{
	if (proc == 1)
	{
		nxm_store(&words->x, 1);
		NXM_POISON(message, sizeof(*message));
	}
	else if (nxm_load(&words->x) == 0)
		NXM_READS(&message->data, 8);
}

/* A hazard without the fence, or without the second look, or with both. */
static void
hazard(int proc, bool fence, bool look)
{
	if (proc == 1)
	{
		nxm_store(&words->x, 1);
		if (fence)
			nxm_fence();
		if (nxm_load(&words->y) == 0)
			NXM_POISON(message, sizeof(*message));
	}
	else if (nxm_load(&words->x) == 0)
	{
		nxm_store(&words->y, 1);
		if (fence)
			nxm_fence();
		if (!look || nxm_load(&words->x) == 0)
			NXM_READS(&message->data, 8);
		nxm_store(&words->y, 0);
	}
}

static void
hazard_right(int proc)
{
	hazard(proc, true, true);
}

static void
hazard_no_fence(int proc)
{
	hazard(proc, false, true);
}

static void
hazard_no_look(int proc)
{
	hazard(proc, true, false);
}

static void
freed_twice(int proc)
{
	(void) proc;
	if (nxm_load(&words->x) == 0)
	{
		nxm_store(&words->x, 1);
		NXM_POISON(message, sizeof(*message));
	}
}

static void
handed_out_twice(int proc)
{
	(void) proc;
	if (nxm_load(&words->x) == 0)
	{
		nxm_store(&words->x, 1);
		NXM_UNPOISON(&message->data, 8);
	}
}

/* A bad reference. */
static void
segmentation(int proc)
{
	if (proc == 1)
		nxm_store(&words->x, 8);
	else if (nxm_load(&words->x) != 0)
		*(volatile char *) (uintptr_t) nxm_load(&words->x) = 0;
}

/* A register: results that contradict each other. */
enum
{
	WRITE,
	READ
};

static bool
register_apply(int64_t *state, const CheckOp *op)
{
	if (op->kind == READ)
		return state[0] == op->result[0];
	state[0] = op->arg[0];
	return true;
}

static const char *
register_describe(const CheckOp *op)
{
	return op->kind == READ ? "read" : "write";
}

static const CheckSpec register_spec = {"register", register_apply, register_describe};

static void
register_read(NxmAtomic *word)
{
	CheckOp    *op = check_begin(READ, 0, 0, 0);

	check_end(op, (int64_t) nxm_load(word), 0);
}

/* a write in two steps, of which readers may see one */
static void
register_torn(int proc)
{
	if (proc == 1)
	{
		CheckOp    *op = check_begin(WRITE, 0, 2, 0);

		nxm_store(&words->x, 1);
		nxm_store(&words->x, 2);
		check_end(op, 0, 0);
	}
	else
		register_read(&words->x);
}

static void
register_whole(int proc)
{
	if (proc == 1)
	{
		for (int i = 1; i <= 3; i++)
		{
			CheckOp    *op = check_begin(WRITE, 0, i, 0);

			nxm_store(&words->x, (uint64_t) i);
			check_end(op, 0, 0);
		}
	}
	else
	{
		for (int i = 0; i < 3; i++)
			register_read(&words->x);
	}
}

static void
register_finish(void)
{
	check_linearizable(&register_spec, -1);
}

#define RUN CHECK_RANDOM | CHECK_PCT | CHECK_EXHAUSTIVE, 2000, 4, 3
/* of more than a test has time for */
#define SOME CHECK_RANDOM | CHECK_PCT | CHECK_EXHAUSTIVE | CHECK_BOUNDED, 2000, 4, 3

static const CheckCase cases[] = {
	{"message passing", 2, message_setup, message_body, NULL, RUN, NULL, NULL},
	{"message passing by fences", 2, message_setup, message_fences, NULL, RUN, NULL, NULL},
	{"message passing, relaxed store", 2, message_setup, message_relaxed_store, NULL, RUN, "race", NULL},
	{"message passing, relaxed load", 2, message_setup, message_relaxed_load, NULL, RUN, "race", NULL},
	{"message passing, relaxed stores of atomic words", 2, message_setup, message_atomic, NULL, RUN, "not so", NULL},
	{"release sequence", 3, message_setup, message_sequence, NULL, RUN, NULL, NULL},
	{"store buffering, two fences", 2, words_setup, buffering_two, buffering_finish, RUN, NULL, NULL},
	{"store buffering, one fence", 2, words_setup, buffering_one, buffering_finish, RUN, "not so", NULL},
	{"coherence", 2, words_setup, coherence_body, NULL, RUN, NULL, NULL},
	{"coherence through a third process", 3, words_setup, coherence_told, NULL, RUN, NULL, NULL},
	{"independent reads of independent writes", 4, words_setup, independent_body, independent_finish, RUN, "not so", NULL},
	{"seqlock", 2, words_setup, seqlock_fences, NULL, RUN, NULL, NULL},
	{"seqlock without fences", 2, words_setup, seqlock_none, NULL, RUN, "not so", NULL},
	{"updates", 2, words_setup, update, updates_finish, RUN, NULL, NULL},
	{"lost update", 2, words_setup, lost_update, updates_finish, RUN, "not so", NULL},
	{"waiting for another process", 2, words_setup, spinning, NULL, CHECK_PCT, 200, 0, 0, "no end", NULL},
	{"stack with tags", 2, tagged_setup, stack_classic, stack_finish, SOME, NULL, NULL},
	{"a search that is not complete", 2, tagged_setup, stack_classic, stack_finish, CHECK_EXHAUSTIVE, 100, 4, 3, "stopped before its end", NULL},
	{"stack with tags, three processes", 3, tagged_setup, stack_body, stack_finish, CHECK_RANDOM | CHECK_PCT, 2000, 0, 0, NULL, NULL},
	{"stack without tags", 2, untagged_setup, stack_classic, stack_finish, RUN, "not linearizable", NULL},
	{"stack without tags, three processes", 3, untagged_setup, stack_body, stack_finish, CHECK_RANDOM | CHECK_PCT, 2000, 0, 0, "not linearizable", NULL},
	{"freed while it is read", 2, object_setup, object_freed, NULL, RUN, "", NULL},
	{"hazard", 2, object_setup, hazard_right, NULL, RUN, NULL, NULL},
	{"hazard without fences", 2, object_setup, hazard_no_fence, NULL, RUN, "", NULL},
	{"hazard without a second look", 2, object_setup, hazard_no_look, NULL, RUN, "", NULL},
	{"freed twice", 2, object_setup, freed_twice, NULL, RUN, "again", NULL},
	{"handed out twice", 2, object_setup, handed_out_twice, NULL, RUN, "in use", NULL},
	{"segmentation fault", 2, words_setup, segmentation, NULL, RUN, "signal", NULL},
	{"register", 3, words_setup, register_whole, register_finish, CHECK_RANDOM | CHECK_PCT, 2000, 0, 0, NULL, NULL},
	{"register, written in two steps", 3, words_setup, register_torn, register_finish, RUN, "not linearizable", NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_self", cases, LENGTH(cases));
}
