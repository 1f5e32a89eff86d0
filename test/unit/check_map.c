/*
 * check_map.c
 *	  The map under the checker: buckets of 3 slots, 2 more in an overflow bucket,
 *	  segments of one to four buckets, so that a dozen keys take it through
 *	  overflow, growth, splits and the doubling of its directory.
 *
 * Operations on one key must be linearizable; a clear counts as one on each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check_core.h"
#include "map_internal.h"

#define KEYS 12

enum
{
	GET,
	PUT,
	PUT_IF,						/* arg: expected, -1 for absent; new */
	DELETE,
	ADD,
	CLEAR,						/* result 0: it was not done */
	DROP,
	NKINDS
};

static NxmMap *map;
static bool dropped;
static bool crowded;			/* keys 6 to 11 stay together in the other half */

/* state: is it there, its value */
static bool
apply(int64_t *state, const CheckOp *op)
{
	bool		there = state[0] != 0;

	/* who is told so may be late, and nobody is told anything else */
	if (op->kind == DROP)
		state[2] = 1;
	if (op->kind == DROP || op->result[0] == NXM_DROPPED)
		return true;
	if (state[2] != 0)
		return false;
	switch (op->kind)
	{
		case GET:
			return there ? op->result[0] == NXM_OK && op->result[1] == state[1] :
				op->result[0] == NXM_ABSENT;
		case PUT:
			state[0] = 1;
			state[1] = op->arg[0];
			return op->result[0] == (there ? NXM_EXISTS : NXM_OK);
		case PUT_IF:
			if (there != (op->arg[0] >= 0) || (there && state[1] != op->arg[0]))
				return op->result[0] == (op->arg[0] < 0 ? NXM_EXISTS :
										 there ? NXM_MISMATCH : NXM_ABSENT);
			state[0] = 1;
			state[1] = op->arg[1];
			return op->result[0] == NXM_OK;
		case DELETE:
			state[0] = state[1] = 0;
			return op->result[0] == (there ? NXM_OK : NXM_ABSENT);
		case ADD:
			state[0] = 1;
			state[1] += op->arg[0];
			return op->result[0] == NXM_OK && op->result[1] == state[1];
		default:
			if (op->result[0] != 0)
				state[0] = state[1] = 0;
			return true;
	}
}

static const char *
describe(const CheckOp *op)
{
	static const char *const kinds[] = {
		"get", "put", "put_if", "delete", "add", "clear", "drop"
	};
	static char text[100];

	snprintf(text, sizeof(text), "key %d %s %d %d gave %d, %d", op->key,
			 kinds[op->kind], (int) op->arg[0], (int) op->arg[1],
			 (int) op->result[0], (int) op->result[1]);
	return text;
}

static const CheckSpec spec = {"map", apply, describe};

/*
 * The first bits of the hash say where a key goes.  Keys 0 to 5 stay together
 * for four splits, and two of them for good.  A bit further down says which line
 * of a bucket they prefer: the last one, or the first one where it is written.
 */
#define FIRST UINT64_C

static NxmKey
key_of(int number)
{
	static char names[KEYS][4];
	static const uint64_t hashes[KEYS] = {
		FIRST(0x1000000200000000), UINT64_C(0x1100000000000000),
		UINT64_C(0x1200000000000000), UINT64_C(0x1300000000000000),
		UINT64_C(0x1400000000000000), UINT64_C(0x1400000000000000),
		UINT64_C(0x4000000000000000), FIRST(0x6000000200000000),
		UINT64_C(0x9000000000000000), FIRST(0xb000000100000000),
		UINT64_C(0xd000000000000000), FIRST(0xf000000100000000)
	};
	NxmKey		key = {names[number], 0, hashes[number]};

	if (crowded && number >= 6)
		key.hash = UINT64_C(0xe000000000000000) +
			((uint64_t) (number - 6) << 56);
	key.len = (uint32_t) snprintf(names[number], sizeof(names[number]), "k%d",
								  number);
	return key;
}

static NxmValue
text_of(int number, char *text)
{
	NxmValue	value = {text, 0, NXM_TEXT};

	value.len = (uint32_t) snprintf(text, 12, "%d", number);
	return value;
}

/* One operation, recorded. */
static NxmResult
operate(int kind, int number, int arg0, int arg1)
{
	NxmSpace   *space = check_space();
	CheckOp    *op = check_begin(kind, number, arg0, arg1);
	NxmKey		key = key_of(number);
	char		text[2][12];
	NxmValue	first = text_of(arg0, text[0]);
	NxmValue	second = text_of(arg1, text[1]);
	char		bytes[16];
	NxmBuffer	buffer = {bytes, sizeof(bytes) - 1, 0, NXM_BYTEA};
	NxmResult	result;
	int64_t		value = 0;

	do
	{
		nxm_enter(space);
		switch (kind)
		{
			case GET:
				result = nxm_map_get(space, map, &key, &buffer);
				break;
			case PUT:
				result = nxm_map_put(space, map, &key, &first);
				break;
			case PUT_IF:
				result = nxm_map_put_if(space, map, &key,
										arg0 < 0 ? NULL : &first, &second);
				break;
			case DELETE:
				result = nxm_map_delete(space, map, &key);
				break;
			default:
				result = nxm_map_add(space, map, &key, arg0, &value);
				break;
		}
		nxm_leave(space);
	} while (check_again(result));
	if (kind == GET && result == NXM_OK)
	{
		bytes[buffer.len] = '\0';
		value = atoi(bytes);
	}
	if (result == NXM_DROPPED)
		check_assert(dropped);
	check_assert(result != NXM_NEED_MEMORY && result != NXM_NEED_BUFFER);
	check_end(op, result, value);
	return result;
}

/* Tries to empty it; another one may be at it. */
static void
clear(void)
{
	NxmSpace   *space = check_space();
	CheckOp    *ops[KEYS];
	uint64_t	removed;
	NxmResult	result;

	for (int i = 0; i < KEYS; i++)
		ops[i] = check_begin(CLEAR, i, 0, 0);
	nxm_enter(space);
	result = nxm_map_clear(space, map, &removed);
	nxm_leave(space);
	check_assert(result == NXM_OK || result == NXM_EXISTS);
	for (int i = 0; i < KEYS; i++)
		check_end(ops[i], result == NXM_OK, 0);
}

/* Drops it. */
static void
drop(void)
{
	NxmSpace   *space = check_space();
	CheckOp    *ops[KEYS];

	for (int i = 0; i < KEYS; i++)
		ops[i] = check_begin(DROP, i, 0, 0);
	dropped = true;
	nxm_enter(space);
	check_assert(nxm_map_drop(map) == NXM_OK);
	nxm_leave(space);
	for (int i = 0; i < KEYS; i++)
		check_end(ops[i], NXM_OK, 0);
}

/* A step of draining, or all of it. */
static void
drain(bool all)
{
	NxmSpace   *space = check_space();
	NxmResult	result;

	do
	{
		nxm_enter(space);
		result = nxm_map_drain(space, map);
		nxm_leave(space);
	} while (check_again(result) || (all && result == NXM_OK));
	check_assert(result == NXM_OK || result == NXM_ABSENT);
}

/* Iteration. */
typedef struct Scan
{
	int			seen[KEYS];		/* in the buckets before */
	int			bucket[KEYS];	/* in this one */
	size_t		bytes;			/* in this section */
	size_t		before;			/* when it began to read the bucket */
} Scan;

static void
scan_begin(void *context)
{
	Scan	   *scan = context;

	memset(scan->bucket, 0, sizeof(scan->bucket));
	scan->before = scan->bytes;
}

static NxmResult
scan_each(NxmSpace *space, NxmRef ref, const NxmItem *item, void *context)
{
	Scan	   *scan = context;
	char		bytes[16];
	NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_BYTEA};
	char		name[8] = {0};
	int			number;

	(void) ref;
	if (scan->before > NXM_SCAN_BYTES)
		check_fail("iteration reads a bucket anew in a section of %d bytes", (int) scan->before);
	scan->bytes += NXM_ITEM_KEY_LEN(NXM_GET(item->header)) +
		NXM_ITEM_LEN(NXM_GET(item->header));
	memcpy(name, nxm_item_key(item), NXM_ITEM_KEY_LEN(NXM_GET(item->header)));
	number = atoi(name + 1);
	check_assert(number >= 0 && number < KEYS);
	scan->bucket[number]++;
	return nxm_item_copy(space, item, &buffer);
}

/*
 * Each key is seen once at most; those of the bits of `all` are seen.  And no bucket is
 * read anew where much was read in the same section.
 */
static void
scan(unsigned all)
{
	NxmSpace   *space = check_space();
	Scan		found = {0};
	uint64_t	position = 0;
	NxmResult	result;

	do
	{
		uint64_t	before = position;

		found.bytes = 0;
		nxm_enter(space);
		result = nxm_map_scan(space, map, &position, scan_begin, scan_each, &found);
		nxm_leave(space);
		if (check_again(result))
		{
			check_assert(position == before);
			result = NXM_OK;
			continue;
		}
		check_assert(result == NXM_OK || result == NXM_ABSENT);
		for (int i = 0; i < KEYS; i++)
			found.seen[i] += found.bucket[i];
	} while (result == NXM_OK);
	for (int i = 0; i < KEYS; i++)
	{
		if (found.seen[i] > 1)
			check_fail("iteration returned key %d %d times", i, found.seen[i]);
		if ((all >> i & 1) != 0 && found.seen[i] == 0)
			check_fail("iteration did not return key %d", i);
	}
}

/* With the keys 0 to n - 1 in it. */
static void
setup(int procs, int n)
{
	dropped = false;
	crowded = false;
	map = check_shared(sizeof(*map), "map");
	check_core_setup(procs, 40);
	check_assert(nxm_map_init(check_space(), map) == NXM_OK);
	for (int i = 0; i < n; i++)
		operate(PUT, i, i, 0);
}

static void
setup_empty(void)
{
	setup(3, 0);
}

static void
setup_some(void)
{
	setup(3, check_pick(8));
}

static void
setup_full(void)
{
	/* the next one takes it over an edge */
	setup(3, check_pick(2) ? 3 : 5);
}

static void
setup_unmapped(void)
{
	setup(3, 5);
	check_unmap();
}

static void
random_operation(int proc, int i, int nkeys)
{
	int			key = check_pick(nkeys);
	int			value = 100 * proc + 10 * i;

	switch (check_pick(8))
	{
		case 0:
		case 1:
			operate(GET, key, 0, 0);
			break;
		case 2:
		case 3:
			operate(PUT, key, value, 0);
			break;
		case 4:
		case 5:
			operate(DELETE, key, 0, 0);
			break;
		case 6:
			operate(PUT_IF, key, check_pick(2) ? -1 : key, value);
			break;
		default:
			operate(ADD, key, value, 0);
	}
}

/* On few keys. */
static void
body_few(int proc)
{
	for (int i = 0; i < 4; i++)
		random_operation(proc, i, 2);
}

static void
body(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		random_operation(proc, i, KEYS);
		if (check_pick(8) == 0)
			check_reattach();
	}
}

/* Inserts mostly. */
static void
body_growth(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		if (check_pick(3) > 0)
			operate(PUT, check_pick(KEYS), 100 * proc + i, 0);
		else
			random_operation(proc, i, KEYS);
	}
}

/* One half of the map grows again and again, while the other half is filled. */
static void
setup_halves(void)
{
	setup(3, 5);
	operate(PUT, 8, 8, 0);
	operate(PUT, 10, 10, 0);
}

static void
body_halves(int proc)
{
	if (proc == 1)
		operate(PUT, 5, 500, 0);
	else
	{
		for (int i = 0; i < 2; i++)
			random_operation(proc, i, KEYS);
		operate(check_pick(2) ? GET : PUT, 8 + check_pick(4), proc, 0);
	}
}

/* The same key by all, into a bucket that grows. */
static void
body_same(int proc)
{
	operate(PUT_IF, 6, -1, proc);
	operate(PUT, check_pick(6), proc, 0);
	operate(DELETE, 6, 0, 0);
	operate(PUT_IF, 6, -1, 10 * proc);
}

static void
body_clear(int proc)
{
	for (int i = 0; i < 2; i++)
	{
		random_operation(proc, i, 7);
		if (check_pick(4) == 0)
			clear();
		if (check_pick(2) == 0)
			drain(false);
	}
}

/* Iterates over 0 to 4, while the others come and go. */
static void
setup_scan(void)
{
	setup(3, 5);
}

static void
body_scan(int proc)
{
	if (proc == 1)
	{
		scan(0x1f);
		return;
	}
	for (int i = 0; i < 5; i++)
	{
		int			key = 5 + check_pick(KEYS - 5);

		if (check_pick(4) == 0)
			operate(PUT, check_pick(5), 100 * proc + i, 0);
		else
			operate(check_pick(3) > 0 ? PUT : DELETE, key, 100 * proc + i, 0);
	}
}

static void
finish(void)
{
	uint64_t	entries = 0;
	int			here = 0;
	unsigned	all = 0;

	/* what a clear has cut off still counts until it is drained */
	drain(true);
	for (int i = 0; i < KEYS; i++)
	{
		if (operate(GET, i, 0, 0) == NXM_OK)
		{
			here++;
			all |= 1U << i;
		}
	}
	entries = nxm_map_entries(map);
	scan(all);
	for (int i = 0; i < KEYS; i++)
		check_linearizable(&spec, i);
	if (entries != (uint64_t) here)
		check_fail("%d entries are counted, %d are there", (int) entries, here);

	nxm_enter(check_space());
	check_assert(nxm_map_drop(map) == NXM_OK);
	dropped = true;
	nxm_leave(check_space());
	drain(true);
	check_assert(nxm_map_entries(map) == 0);
	check_assert(nxm_map_bytes(map) == 0);
	check_all_free(0);
}

/* Dropped, and drained, while it is in use. */
static void
body_drop(int proc)
{
	if (proc == 1)
	{
		drop();
		drain(true);
		return;
	}
	for (int i = 0; i < 4; i++)
	{
		random_operation(proc, i, check_pick(2) ? 4 : KEYS);
		if (check_pick(4) == 0)
			drain(false);
	}
}

static void
finish_drop(void)
{
	drain(true);
	for (int i = 0; i < KEYS; i++)
		check_linearizable(&spec, i);
	check_assert(nxm_map_entries(map) == 0);
	check_assert(nxm_map_bytes(map) == 0);
	check_assert(nxm_map_index_bytes(map) == 0);
	check_all_free(0);
}

/* Small ones for all schedules. */
static void
setup_one(void)
{
	setup(2, 1);
}

static void
setup_three_keys(void)
{
	setup(2, 3);
}

static void
setup_five_keys(void)
{
	setup(2, 5);
}

static void
insert_insert(int proc)
{
	operate(PUT_IF, 1, -1, proc);
}

static void
insert_delete(int proc)
{
	if (proc == 1)
		operate(PUT, 1, 1, 0);
	else
	{
		operate(DELETE, 1, 0, 0);
		operate(PUT_IF, 1, -1, 2);
	}
}

static void
replace_get(int proc)
{
	if (proc == 1)
	{
		operate(PUT, 0, 1, 0);
		operate(PUT, 0, 2, 0);
	}
	else
		operate(GET, 0, 0, 0);
}

static void
grow_delete(int proc)
{
	if (proc == 1)
		operate(PUT, 6, 1, 0);
	else
		operate(DELETE, 1, 0, 0);
}

static void
grow_grow(int proc)
{
	operate(PUT, 5 + proc, proc, 0);
}

/*
 * What happens between the reservation of a slot and the end of its insert, with
 * three keys of one bucket: switches elsewhere only make it rare.
 */
static const char *const insertion[] = {
	"nxm_map_insert", "nxm_map_complete_pending", "nxm_map_look_up", "check_item", "write_slow",
	"look_in_segment", NULL
};

static const char *const scanning[] = {
	"nxm_map_insert", "candidates", "nxm_map_complete_pending", NULL
};

static const char *const replacing[] = {
	"nxm_map_insert", "nxm_map_complete_pending", "check_item", "overwrite", NULL
};

/* less, for one more process */
static const char *const reservation[] = {"nxm_map_insert", NULL};

static void
setup_bucket(void)
{
	setup(3, 0);
}

static void
setup_bucket_four(void)
{
	setup(4, 0);
}

static void
pending_deleted(int proc)
{
	switch (proc)
	{
		case 1:
			operate(PUT_IF, 1, -1, 1);
			operate(DELETE, 1, 0, 0);
			break;
		case 2:
			operate(GET, 1, 0, 0);
			operate(PUT, 3, 2, 0);
			break;
		default:
			operate(PUT_IF, 2, -1, 3);
	}
}

static void
pending_again(int proc)
{
	switch (proc)
	{
		case 1:
			operate(PUT_IF, 1, -1, 1);
			break;
		case 2:
			operate(DELETE, 1, 0, 0);
			operate(PUT_IF, 1, -1, 2);
			break;
		default:
			operate(PUT, 3, 3, 0);
	}
}

/* A LIVE slot gets another value while its insert is pending. */
static void
pending_replaced(int proc)
{
	switch (proc)
	{
		case 1:
			operate(PUT_IF, 1, -1, 1);
			break;
		case 2:
			operate(PUT, 1, 2, 0);
			operate(DELETE, 1, 0, 0);
			break;
		default:
			operate(PUT_IF, 2, -1, 3);
	}
}

static void
pending_changed(int proc)
{
	switch (proc)
	{
		case 1:
			operate(DELETE, 1, 0, 0);
			operate(GET, 2, 0, 0);
			break;
		case 2:
			operate(PUT_IF, 2, -1, 2);
			break;
		default:
			operate(PUT_IF, 1, -1, 3);
	}
}

/*
 * Were key 1 deleted while its insert is pending, key 2 might reserve that slot,
 * and be completed before it is committed.  The delete would have read the header
 * before the insert committed: an older store, so that it need not be stopped
 * there.
 */
static void
pending_reused(int proc)
{
	switch (proc)
	{
		case 1:
			operate(PUT_IF, 2, -1, 1);
			break;
		case 2:
			operate(PUT_IF, 1, -1, 2);
			break;
		case 3:
			operate(DELETE, 1, 0, 0);
			break;
		default:
			operate(GET, 2, 0, 0);
	}
}

/* A key that comes again in another slot: one of the same line has taken its own. */
static void
scan_moved(int proc)
{
	if (proc == 1)
		scan(0);
	else
	{
		operate(DELETE, 0, 0, 0);
		operate(PUT, 7, 1, 0);
		operate(PUT, 0, 2, 0);
	}
}

static void
clear_get(int proc)
{
	if (proc == 1)
		clear();
	else
	{
		drain(false);
		operate(GET, 0, 0, 0);
	}
}

/* Changing the directory, and putting another one in its place. */
static const char *const housekeeping[] = {
	"keep_house", "find_migrated", "replace_in_directory", "double_directory", "cut_off",
	"nxm_map_drain_items", NULL
};

/*
 * The first half of the map has grown deep.  The other one is a segment with
 * several entries in the directory, which the next insert splits.
 */
static void
setup_crowded(void)
{
	setup(2, 0);
	crowded = true;
	for (int i = 0; i < 11; i++)
		operate(PUT, i, i, 0);
}

static void
clear_growth(int proc)
{
	if (proc == 1)
		operate(PUT, 11, 11, 0);
	else
	{
		clear();
		drain(true);
	}
}

static void
drop_get(int proc)
{
	if (proc == 1)
	{
		drop();
		drain(false);
	}
	else
		operate(GET, 0, 0, 0);
}

static void
drop_put(int proc)
{
	if (proc == 1)
	{
		drop();
		drain(false);
	}
	else
		operate(PUT, check_pick(2), 10, 0);
}

static void
drop_growth(int proc)
{
	if (proc == 1)
	{
		drop();
		drain(true);
	}
	else
		operate(PUT, 11, 11, 0);
}

/*
 * Two drain one body, and one of them may be the last to say how far they got.  The
 * next body is as deep at its other end, so that there its segments have other entries.
 */
static const char *const draining[] = {"nxm_map_drain_items", NULL};

static void
setup_cut_off(void)
{
	setup(2, 6);
	clear();
}

static void
drain_both(int proc)
{
	(void) proc;
	drain(true);
}

static void
finish_other_shape(void)
{
	crowded = true;
	for (int i = 6; i < KEYS; i++)
		operate(PUT, i, i, 0);
	clear();
	finish();
}

/*
 * A write that is in need of a chunk meets a growth: a segment as deep as the directory
 * has migrated, and there is no memory to double that.
 */
#define FOREIGN_CHUNK 5

static void
setup_undoubled(void)
{
	NxmSpace   *space;
	NxmAtomic  *limit;

	setup(2, 5);
	space = check_space();
	limit = &space->shared->account[0].page_limit;
	/* there is memory for segments */
	for (int log = 0; log <= NXM_MAX_LOG; log++)
		check_hold_one(sizeof(NxmSegment) + (sizeof(NxmBucket) << log) + sizeof(NxmOverflow));
	for (int i = 0; i < 4; i++)
		nxm_epoch_poll(space);
	nxm_flush(space);
	nxm_give_back(space);
	while (nxm_trim(space))
		;
	nxm_store(limit, nxm_load(&space->shared->account[0].pages));
	/* for a directory of 8 entries: of a size that nothing else has */
	check_hold(sizeof(uint64_t) << 3);
	operate(PUT, 5, 5, 0);
	check_assert(directory_depth(nxm_load(&map->directory)) == 2);
}

static NxmAction
decide_foreign(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	(void) item;
	space->need_chunk = FOREIGN_CHUNK;
	write->result = NXM_NEED_CHUNK;
	return NXM_KEEP;
}

static void
write_foreign(int proc)
{
	NxmSpace   *space = check_space();

	if (proc != 2)
		return;
	for (int i = 0; i < KEYS; i++)
	{
		NxmWrite	write = {.decide = decide_foreign};
		NxmKey		key = key_of(i);

		nxm_enter(space);
		check_assert(nxm_map_write(space, map, &key, &write) == NXM_NEED_CHUNK);
		nxm_leave(space);
		check_assert(space->need_chunk == FOREIGN_CHUNK);
	}
}

static void
finish_undoubled(void)
{
	NxmSpace   *space = check_space();

	nxm_store(&space->shared->account[0].page_limit, 40);
	check_free_held();
	finish();
}

/*
 * Keys that none of their first nine bits part: a few make a directory of several
 * pages.  While there is no memory to double it that is told, nothing else is in the way,
 * and when there is some it is doubled by the next write there.
 */
static void
setup_deep(void)
{
	setup(1, 0);
	nxm_store(&check_space()->shared->account[0].page_limit, 100);
}

static void
put_deep(int i)
{
	NxmSpace   *space = check_space();
	char		name[8];
	NxmKey		key = {name, 0, UINT64_C(0x1000000000000000) + ((uint64_t) (i * 41 % 128) << 47)};
	NxmValue	value = {"1", 1, NXM_TEXT};
	NxmResult	result;

	key.len = (uint32_t) snprintf(name, sizeof(name), "d%d", i);
	nxm_enter(space);
	result = nxm_map_put(space, map, &key, &value);
	check_assert(result == NXM_OK || result == NXM_EXISTS);
	nxm_leave(space);
}

static void
deep(int proc)
{
	NxmSpace   *space = check_space();
	NxmAtomic  *limit = &space->shared->account[0].page_limit;
	int			i = 0;
	uint32_t	depth;

	(void) proc;
	/* of several pages, with memory for segments, and not for twice as many */
	while (directory_pages(directory_depth(nxm_load(&map->directory))) < 2)
		put_deep(i++);
	check_assert(nxm_map_pages_wanted(map) == 0);
	depth = directory_depth(nxm_load(&map->directory));
	for (int p = 0; p < 4; p++)
		nxm_epoch_poll(space);
	nxm_flush(space);
	nxm_give_back(space);
	while (nxm_trim(space))
		;
	nxm_store(limit, nxm_load(&space->shared->account[0].pages) + 4);
	while (nxm_map_pages_wanted(map) == 0)
		put_deep(i++);
	check_assert(nxm_map_pages_wanted(map) == directory_pages(depth + 1) + 1);
	for (int j = 0; j < i; j++)
		put_deep(j);
	check_assert(directory_depth(nxm_load(&map->directory)) == depth);
	nxm_store(limit, 100);
	for (int j = 0; j < i; j++)
		put_deep(j);
	check_assert(directory_depth(nxm_load(&map->directory)) > depth);
	check_assert(nxm_map_pages_wanted(map) == 0);
}

/*
 * A map is cleared past the limit where that gives back entries, or a larger index; not
 * where it has neither, for while the epoch stands still each such call takes memory.
 */
static void
hold_bodies(void)
{
	nxm_store(&check_space()->shared->account[0].page_limit, 0);
	check_hold(sizeof(NxmSegment) + sizeof(NxmBucket) + sizeof(NxmOverflow));
	check_hold(sizeof(uint64_t));
}

static void
setup_at_limit(void)
{
	NxmSpace   *space;

	setup(2, KEYS);
	space = check_space();
	hold_bodies();
	/* process 2 is in a section */
	nxm_store(&space->lines[1].epoch, nxm_load(&space->shared->epoch));
}

static void
clear_at_limit(int proc)
{
	NxmSpace   *space = check_space();
	uint64_t	removed;

	if (proc != 1)
		return;
	for (int i = 0; i < KEYS; i++)
		operate(DELETE, i, 0, 0);
	/* what was retired before the section of process 2 is free by now */
	for (int i = 0; i < 8; i++)
	{
		nxm_enter(space);
		nxm_leave(space);
	}
	hold_bodies();
	clear();
	drain(true);
	for (int i = 0; i < 2; i++)
	{
		hold_bodies();
		nxm_enter(space);
		check_assert(nxm_map_clear(space, map, &removed) == NXM_NEED_MEMORY);
		check_assert(space->want == NXM_WANT_LIMIT);
		nxm_leave(space);
		nxm_store(&space->shared->account[0].page_limit, 40);
		operate(PUT, 0, 0, 0);
		hold_bodies();
		clear();
		drain(true);
	}
}

static void
finish_at_limit(void)
{
	NxmSpace   *space = check_space();

	nxm_store(&space->lines[1].epoch, 0);
	nxm_store(&space->shared->account[0].page_limit, 40);
	check_free_held();
	finish();
}

/* One that nobody has seen needs no memory to be freed, nor to wait for the epoch. */
static void
fini_unseen(int proc)
{
	NxmSpace   *space = check_space();
	NxmMap	   *unseen = check_shared(sizeof(*unseen), "unseen");
	uint64_t	limbo = nxm_load(&space->shared->limbo);

	if (proc != 1)
		return;
	check_assert(nxm_map_init(space, unseen) == NXM_OK);
	nxm_map_fini(space, unseen);
	check_assert(nxm_load(&unseen->memory) == 0);
	check_assert(nxm_load(&space->shared->limbo) == limbo);
}

/* A chunk is needed for what a drain retires: it is mapped first. */
static void
setup_far_record(void)
{
	setup(2, KEYS);
	clear();
	check_far_record();
}

static void
drain_far_record(int proc)
{
	NxmSpace   *space = check_space();
	NxmResult	result;

	if (proc != 1)
		return;
	do
	{
		nxm_enter(space);
		result = nxm_map_drain(space, map);
		nxm_leave(space);
	} while (check_far_again(result) || result != NXM_ABSENT);
	check_assert(nxm_load(&space->shared->orphans) != 0);
	check_assert(nxm_load(&space->shared->leaked) == 0);
}

/* A segment that has migrated is left where it is. */
static void
setup_far_growth(void)
{
	setup(2, 0);
	nxm_store(&map->housekeeper, CHECK_MAX_PROCS);
	for (int i = 0; i < KEYS; i++)
		operate(PUT, i, i, 0);
	nxm_store(&map->housekeeper, 0);
	check_far_record();
}

static void
keep_far_growth(int proc)
{
	if (proc != 1)
		return;
	operate(DELETE, 0, 0, 0);
	check_assert(nxm_load(&map->housekeeper) == 0);
	check_assert(nxm_load(&check_space()->shared->leaked) == 0);
}

static void
finish_far_record(void)
{
	NxmSpace   *space = check_space();

	nxm_store(&space->lines[1].epoch, 0);
	check_free_held();
	check_assert(nxm_map_drop(map) == NXM_OK);
	drain(true);
	check_far_free();
}

#define OFTEN CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL
#define ALL CHECK_EXHAUSTIVE, 0
/* of more than a test has time for */
#define SOME CHECK_EXHAUSTIVE | CHECK_BOUNDED

static const CheckCase cases[] = {
	{"few keys", 3, setup_empty, body_few, finish, OFTEN, NULL},
	{"many keys", 3, setup_some, body, finish, OFTEN, NULL},
	{"mapped on demand", 3, setup_unmapped, body, finish, OFTEN, NULL},
	{"growth", 3, setup_full, body_growth, finish, OFTEN, NULL},
	{"growth of one half", 3, setup_halves, body_halves, finish, OFTEN, NULL},
	{"the same key while it grows", 3, setup_full, body_same, finish, OFTEN, NULL},
	{"clear and drain", 3, setup_some, body_clear, finish, OFTEN, NULL},
	{"iteration", 3, setup_scan, body_scan, finish, OFTEN, NULL},
	{"schedules of inserts, deleted before they are complete", 4, setup_bucket_four, pending_reused, finish, SOME, 100000, 3, 1, NULL, reservation},
	{"all schedules of inserts, looked for before they are complete", 3, setup_bucket, pending_changed, finish, CHECK_EXHAUSTIVE, 100000, 3, 0, NULL, scanning},
	{"schedules of inserts, completed by others", 3, setup_bucket, pending_deleted, finish, SOME, 40000, 3, 0, NULL, insertion},
	{"all schedules of inserts, replaced before they are complete", 3, setup_bucket, pending_replaced, finish, CHECK_EXHAUSTIVE, 40000, 3, 0, NULL, replacing},
	{"schedules of inserts into the same slot", 3, setup_bucket, pending_again, finish, SOME, 40000, 3, 0, NULL, insertion},
	{"all schedules of iteration and an entry that moves", 2, setup_one, scan_moved, finish, ALL, 2, 1, NULL, NULL},
	{"all schedules of clear and drain, get", 2, setup_one, clear_get, finish, ALL, 1, 1, NULL, NULL},
	{"dropped while in use", 3, setup_full, body_drop, finish_drop, OFTEN, NULL},
	{"all schedules of drop and get", 2, setup_one, drop_get, finish_drop, ALL, 2, 1, NULL, NULL},
	{"all schedules of drop and put", 2, setup_one, drop_put, finish_drop, ALL, 1, 1, NULL, NULL},
	{"all schedules of drop and growth", 2, setup_crowded, drop_growth, finish_drop, CHECK_EXHAUSTIVE, 40000, 3, 0, NULL, housekeeping},
	{"a directory of several pages", 1, setup_deep, deep, NULL, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"a chunk needed where the directory cannot be doubled", 2, setup_undoubled, write_foreign, finish_undoubled, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"a chunk needed for what a drain retires", 2, setup_far_record, drain_far_record, finish_far_record, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"a chunk needed for what a growth retires", 2, setup_far_growth, keep_far_growth, finish_far_record, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"a map that nobody has seen", 2, setup_one, fini_unseen, finish, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"clearing at the limit", 2, setup_at_limit, clear_at_limit, finish_at_limit, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"all schedules of clear and growth", 2, setup_crowded, clear_growth, finish, CHECK_EXHAUSTIVE, 40000, 3, 0, NULL, housekeeping},
	{"all schedules of drain and drain, before a body of another shape", 2, setup_cut_off, drain_both, finish_other_shape, ALL, 2, 0, NULL, draining},
	{"all schedules of insert and insert", 2, setup_one, insert_insert, finish, ALL, 2, 1, NULL, NULL},
	{"all schedules of insert and delete, insert", 2, setup_one, insert_delete, finish, ALL, 2, 1, NULL, NULL},
	{"all schedules of replace, replace and get", 2, setup_one, replace_get, finish, ALL, 2, 2, NULL, NULL},
	{"all schedules of overflow and delete", 2, setup_three_keys, grow_delete, finish, ALL, 2, 1, NULL, NULL},
	{"all schedules of growth and delete", 2, setup_five_keys, grow_delete, finish, ALL, 1, 1, NULL, NULL},
	{"all schedules of growth and growth", 2, setup_five_keys, grow_grow, finish, ALL, 1, 1, NULL, NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_map", cases, LENGTH(cases));
}
