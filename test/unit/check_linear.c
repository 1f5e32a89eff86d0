/*
 * check_linear.c
 *	  Is a recorded history linearizable?  Wing and Gong's search (1993) with
 *	  Lowe's memory of configurations (2017).
 *
 * A configuration is the set of operations that have been put in order and the
 * state after them.  The next one may be any operation that has all its
 * predecessors in the set and whose result the specification allows; a
 * configuration met before leads nowhere.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "check_model.h"

#define MEMORY	(1 << 14)		/* configurations; power of 2 */

typedef struct Configuration
{
	uint32_t	search;			/* that it is of */
	uint64_t	done;
	int64_t		state[CHECK_STATE_WORDS];
} Configuration;

static CheckOp ops[CHECK_MAX_OPS];
static int	nops;
static uint64_t now;

static Configuration memory[MEMORY];
static int	remembered;
static uint32_t search;
static const CheckSpec *spec;
static const CheckOp *chosen[CHECK_MAX_OPS];
static int	nchosen;
static uint64_t before[CHECK_MAX_OPS];

static const CheckSpec *last_spec;

void
check_linear_reset(void)
{
	nops = 0;
	now = 0;
	last_spec = NULL;
}

int
check_linear_count(void)
{
	return nops;
}

CheckOp *
check_begin(int kind, int key, int64_t arg0, int64_t arg1)
{
	CheckOp    *op;

	if (nops == CHECK_MAX_OPS)
		check_fail("more than %d operations in one run", CHECK_MAX_OPS);
	op = &ops[nops++];
	memset(op, 0, sizeof(*op));
	op->proc = check_self();
	op->kind = kind;
	op->key = key;
	op->arg[0] = arg0;
	op->arg[1] = arg1;
	op->began = ++now;
	check_memory_tick();
	memcpy(op->saw, check_memory_clock(op->proc)->at, sizeof(op->saw));
	return op;
}

void
check_end(CheckOp *op, int64_t result0, int64_t result1)
{
	op->result[0] = result0;
	op->result[1] = result1;
	op->ended = ++now;
	op->clock = check_memory_tick();
}

/* Has this configuration been met?  It has now. */
static bool
met(uint64_t done, const int64_t *state)
{
	uint64_t	hash = done * UINT64_C(0x9E3779B97F4A7C15);
	Configuration *at;

	for (int i = 0; i < CHECK_STATE_WORDS; i++)
	{
		hash ^= (uint64_t) state[i];
		hash *= UINT64_C(0xD6E8FEB86659FD93);
		hash ^= hash >> 32;
	}
	for (;; hash++)
	{
		at = &memory[hash & (MEMORY - 1)];
		if (at->search != search)
			break;
		if (at->done == done &&
			memcmp(at->state, state, sizeof(at->state)) == 0)
			return true;
	}
	/* what does not fit is searched again: slower, not wrong */
	if (remembered < MEMORY * 3 / 4)
	{
		remembered++;
		at->search = search;
		at->done = done;
		memcpy(at->state, state, sizeof(at->state));
	}
	return false;
}

static bool
extend(uint64_t done, const int64_t *state)
{
	if (done == (nchosen == 64 ? ~UINT64_C(0) : (UINT64_C(1) << nchosen) - 1))
		return true;
	if (met(done, state))
		return false;
	for (int i = 0; i < nchosen; i++)
	{
		int64_t		next[CHECK_STATE_WORDS];

		if ((done >> i & 1) != 0 || (before[i] & ~done) != 0)
			continue;
		memcpy(next, state, sizeof(next));
		if (spec->apply(next, chosen[i]) &&
			extend(done | UINT64_C(1) << i, next))
			return true;
	}
	return false;
}

void
check_linearizable(const CheckSpec *by, int key)
{
	static const int64_t empty[CHECK_STATE_WORDS];

	last_spec = spec = by;
	nchosen = 0;
	for (int i = 0; i < nops; i++)
	{
		if (key >= 0 && ops[i].key != key)
			continue;
		if (nchosen == 64)
			check_fail("more than 64 operations to put in order");
		chosen[nchosen++] = &ops[i];
	}
	for (int i = 0; i < nchosen; i++)
	{
		before[i] = 0;
		for (int j = 0; j < nchosen; j++)
		{
			const CheckOp *a = chosen[j];
			const CheckOp *b = chosen[i];

			if (check_was_stale() ? a->clock <= b->saw[a->proc] :
				a->ended < b->began)
				before[i] |= UINT64_C(1) << j;
		}
	}
	remembered = 0;
	if (++search == 0)
	{
		memset(memory, 0, sizeof(memory));
		search = 1;
	}
	if (!extend(0, empty))
	{
		if (key < 0)
			check_fail("not linearizable as a %s", by->name);
		check_fail("not linearizable as a %s, key %d", by->name, key);
	}
}

void
check_linear_print(void)
{
	for (int i = 0; i < nops; i++)
	{
		const CheckOp *op = &ops[i];

		printf("# process %d, %" PRIu64 " to %" PRIu64 ": ", op->proc, op->began,
			   op->ended);
		if (last_spec != NULL)
			printf("%s\n", last_spec->describe(op));
		else
			printf("kind %d, key %d (%" PRId64 ", %" PRId64 ")\n", op->kind, op->key,
				   op->arg[0], op->arg[1]);
	}
}
