/*
 * check_space.c
 *	  Pages, objects and reclamation under the checker: no object is handed out
 *	  twice, none is touched after it was freed, all memory comes back.
 *
 * The specification of the allocator is in the memory model: handing out an
 * object that is in use fails, as does freeing one twice, and the owner writes
 * to it, which is a race with whoever still has it.
 */
#include "check_core.h"

#define SLOTS 3

static struct
{
	NxmAtomic	slot[SLOTS];	/* references */
}		   *table;

/* one page has many of the small ones, few of the large ones */
#define SMALL	32
#define LARGE	(NXM_PAGE_SIZE / 2)
/* a page of its own, of which we use as much as of a small one */
#define RAW		(NXM_MAX_OBJECT + 1)

static NxmRef
alloc(size_t size, int number)
{
	NxmSpace   *space = check_space();
	NxmRef		ref = nxm_alloc(space, size);
	char	   *object;

	if (ref == 0)
	{
		check_assert(nxm_no_object(space) == NXM_NEED_MEMORY);
		return 0;
	}
	object = nxm_at(space, ref);
	check_assert(nxm_object_size(size) >= (size == RAW ? NXM_PAGE_SIZE : size));
	check_assert(nxm_ref_size(space, ref) == nxm_object_size(size));
	if (size == RAW)
		size = SMALL;
	NXM_WRITES(object, size);
	memset(object, number, size);
	return ref;
}

static void
give_back(NxmRef ref, size_t size)
{
	char	   *object = nxm_at(check_space(), ref);

	if (size == RAW)
		size = SMALL;
	NXM_READS(object, size);
	(void) check_number(object, size);
	nxm_free(check_space(), ref);
}

static void
setup_pages(int procs, int npages)
{
	table = check_shared(sizeof(*table), "table");
	check_core_setup(procs, npages);
}

static void
setup_two(void)
{
	setup_pages(2, 2);
}

static void
setup_three(void)
{
	setup_pages(3, 4);
}

static void
setup_one_page(void)
{
	setup_pages(2, 1);
}

static void
finish(void)
{
	check_all_free(0);
}

/* Each takes and gives back on its own. */
static void
own_objects(int proc)
{
	NxmRef		refs[3];
	size_t		size = check_pick(2) ? SMALL : LARGE;

	for (int round = 0; round < 2; round++)
	{
		int			n = 1 + check_pick(3);

		for (int i = 0; i < n; i++)
			refs[i] = alloc(size, proc);
		for (int i = 0; i < n; i++)
			if (refs[i] != 0)
				give_back(refs[i], size);
	}
}

/* One page, as many lives as there are takers. */
static void
lives(int proc)
{
	static const size_t sizes[] = {LARGE, NXM_PAGE_SIZE / 4, RAW};

	for (int i = 0; i < 3; i++)
	{
		size_t		size = sizes[check_pick(3)];
		NxmRef		ref = alloc(size, proc);

		if (ref != 0)
			give_back(ref, size);
		if (check_pick(4) == 0)
			check_reattach();
		if (check_pick(4) == 0)
			nxm_trim(check_space());
	}
}

static void
lives_fixed(int proc)
{
	size_t		size = proc == 1 ? LARGE : NXM_PAGE_SIZE / 4;
	NxmRef		ref = alloc(size, proc);

	if (ref != 0)
		give_back(ref, size);
	nxm_flush(check_space());
}

/* Objects that processes leave each other, or the end. */
static NxmRef kept[CHECK_MAX_PROCS];

static void
setup_refused(void)
{
	setup_pages(2, 2);
	check_refusals = CHECK_MAY_BE_REFUSED;
}

static void
lives_refused(int proc)
{
	lives(proc);
	nxm_sweep(check_space());
}

/* Nothing is in use, and all memory can be had back. */
static void
finish_refused(void)
{
	check_refusals = CHECK_NOT_REFUSED;
	check_listed();
	finish();
	nxm_sweep(check_space());
	while (nxm_trim(check_space()))
		;
	/* one that was taken for its class while another was listed above it was never used */
	check_assert(check_pages_counted() <= 1);
}

/*
 * One page on top of its class's stack and one below it, each with an object out: one
 * gives that of the lower page back, and can't take its memory away, while the other
 * takes what there is.
 */
static void
setup_lower_page(void)
{
	NxmRef		refs[4];

	setup_pages(2, 2);
	for (int i = 0; i < 4; i++)
		refs[i] = alloc(LARGE, 1);
	give_back(refs[0], LARGE);
	give_back(refs[2], LARGE);
	kept[1] = refs[1];
	kept[2] = refs[3];
	check_refusals = CHECK_REFUSED;
}

static void
lower_page(int proc)
{
	if (proc == 1)
		give_back(kept[1], LARGE);
	else
	{
		kept[0] = alloc(LARGE, proc);
		kept[3] = alloc(LARGE, proc);
	}
}

static void
lower_page_finish(void)
{
	check_listed();
	for (int i = 0; i < 4; i++)
	{
		if (i != 1 && kept[i] != 0)
			give_back(kept[i], LARGE);
	}
	finish_refused();
}

/* Three pages on the free stack: one takes one, the other two and one back. */

static void
setup_free_pages(void)
{
	NxmRef		refs[3];

	setup_pages(2, 3);
	for (int i = 0; i < 3; i++)
		refs[i] = alloc(RAW, 1);
	for (int i = 0; i < 3; i++)
		give_back(refs[i], RAW);
}

static void
free_pages(int proc)
{
	NxmRef		ref = 0;

	if (proc == 2)
		ref = alloc(RAW, 2);
	kept[proc] = alloc(RAW, proc);
	if (ref != 0)
		give_back(ref, RAW);
}

static void
free_pages_finish(void)
{
	NxmRef		ref = alloc(RAW, 3);

	check_assert(ref != 0);
	give_back(ref, RAW);
	give_back(kept[1], RAW);
	give_back(kept[2], RAW);
	finish();
}

#define MANY_PAGES	12

static NxmRef many[2 * MANY_PAGES];

/*
 * Fills all pages with objects of a class and gives all back but one of the page at the top
 * of the stack, or of the one at the bottom, or none: all others are EMPTY then.
 */
typedef enum InUse
{
	NONE_IN_USE,
	TOP_IN_USE,
	BOTTOM_IN_USE
} InUse;

static void
empty_pages(int npages, InUse in_use)
{
	for (int i = 0; i < 2 * npages; i++)
	{
		many[i] = alloc(LARGE, 1);
		check_assert(many[i] != 0);
	}
	/* who looks for more takes the last one off, too, which is full */
	check_assert(alloc(LARGE, 1) == 0);
	for (int i = 0; i < 2 * npages; i += 2)
		give_back(many[i], LARGE);
	for (int i = 1; i < 2 * npages; i += 2)
	{
		if (!(in_use == BOTTOM_IN_USE && i == 1) &&
			!(in_use == TOP_IN_USE && i == 2 * npages - 1))
			give_back(many[i], LARGE);
	}
}

static void
setup_many_pages(void)
{
	setup_pages(1, MANY_PAGES);
}

/* All pages, less some in use, are had for another class: there is no other chunk. */
static void
take_all_pages(int in_use)
{
	NxmRef		refs[MANY_PAGES];

	for (int i = 0; i < MANY_PAGES - in_use; i++)
	{
		refs[i] = alloc(RAW, 1);
		check_assert(refs[i] != 0);
	}
	check_assert(check_pages_empty() == 0);
	for (int i = 0; i < MANY_PAGES - in_use; i++)
		give_back(refs[i], RAW);
}

static void
another_class(int proc)
{
	(void) proc;
	empty_pages(MANY_PAGES, NONE_IN_USE);
	check_assert(check_pages_empty() == MANY_PAGES - 1);
	take_all_pages(0);
	empty_pages(MANY_PAGES, TOP_IN_USE);
	check_assert(check_pages_empty() == MANY_PAGES - 1);
	take_all_pages(1);
	give_back(many[2 * MANY_PAGES - 1], LARGE);
}

/* An allocation does not go through all EMPTY pages, unless there is no other. */
static void
same_class(int proc)
{
	NxmSpace   *space = check_space();
	NxmAtomic  *limit = &space->shared->account[0].page_limit;
	NxmAtomic  *nempty = &space->shared->nodes[0].nempty;
	uint64_t	n;
	NxmRef		ref;

	empty_pages(MANY_PAGES, NONE_IN_USE);
	ref = alloc(LARGE, proc);
	check_assert(ref != 0 && check_pages_empty() > 0);
	give_back(ref, LARGE);
	take_all_pages(0);

	/* one page with a free object is below them, and there can be no other page */
	empty_pages(MANY_PAGES, BOTTOM_IN_USE);
	/* trimming is to leave them where they are */
	n = nxm_exchange(nempty, 0);
	while (nxm_trim(space))
		;
	nxm_store(nempty, n);
	check_assert(check_pages_counted() == 1);
	nxm_store(limit, 1);
	ref = alloc(LARGE, proc);
	check_assert(ref != 0);
	check_assert(alloc(LARGE, proc) == 0 && space->want == NXM_WANT_LIMIT);
	nxm_store(limit, MANY_PAGES);
	give_back(ref, LARGE);
	give_back(many[1], LARGE);
}

/*
 * Two EMPTY pages below one with an object out: one process takes both of them, while the
 * other one takes and gives back what is in the one above.
 */
static void
setup_hidden_pages(void)
{
	setup_pages(2, 3);
	empty_pages(3, TOP_IN_USE);
	kept[0] = many[5];
	kept[1] = kept[2] = kept[3] = 0;
}

static void
hidden_pages(int proc)
{
	if (proc == 1)
	{
		kept[1] = alloc(LARGE, proc);
		give_back(kept[0], LARGE);
	}
	else
	{
		kept[2] = alloc(RAW, proc);
		kept[3] = alloc(RAW, proc);
	}
}

static void
hidden_pages_finish(void)
{
	check_listed();
	if (kept[1] != 0)
		give_back(kept[1], LARGE);
	for (int i = 2; i <= 3; i++)
	{
		if (kept[i] != 0)
			give_back(kept[i], RAW);
	}
	finish();
}

static const char *const in_stacks[] = {
	"look_at_top", "pop_page", "push_page", "unlist_top", "list_page", "release_page",
	"put_bits", "take_bits", NULL
};

/* What one takes another one gives back. */
static void
exchanged_objects(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		NxmAtomic  *slot = &table->slot[check_pick(SLOTS)];
		NxmRef		ref = alloc(LARGE, proc);
		NxmRef		other = nxm_exchange(slot, ref);

		if (other != 0)
			give_back(other, LARGE);
	}
}

static void
exchanged_finish(void)
{
	check_listed();
	for (int i = 0; i < SLOTS; i++)
	{
		NxmRef		ref = nxm_load(&table->slot[i]);

		if (ref != 0)
			give_back(ref, LARGE);
	}
	finish();
}

static NxmRef
new_item(int number)
{
	NxmValue	value = check_value(number, 16);
	NxmRef		ref;

	if (nxm_item_new(check_space(), NULL, &value, 0, &ref) != NXM_OK)
		return 0;
	return ref;
}

static void
setup_items(int procs)
{
	setup_pages(procs, 6);
	nxm_init(&table->slot[0], new_item(1));
	nxm_init(&table->slot[1], new_item(2));
}

static void
setup_items_two(void)
{
	setup_items(2);
}

static void
setup_items_three(void)
{
	setup_items(3);
}

static void
read_item(NxmAtomic *slot)
{
	NxmSpace   *space = check_space();
	char		bytes[16];
	NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};
	NxmRef		ref;

	nxm_enter(space);
	do
	{
		ref = nxm_load(slot);
		nxm_protect(space, ref);
	} while (nxm_load(slot) != ref);
	check_assert(nxm_item_copy(space, nxm_at(space, ref), &buffer) == NXM_OK);
	(void) check_number(buffer.data, buffer.len);
	nxm_leave(space);
}

/* Two items one after the other, in one section. */
static void
read_both(void)
{
	NxmSpace   *space = check_space();

	nxm_enter(space);
	for (int i = 0; i < 2; i++)
	{
		NxmAtomic  *slot = &table->slot[i];
		NxmRef		ref = nxm_load(slot);
		char		bytes[16];
		NxmBuffer	buffer = {bytes, sizeof(bytes), 0, NXM_TEXT};

		nxm_protect(space, ref);
		if (nxm_load(slot) != ref)
			continue;
		check_assert(nxm_item_copy(space, nxm_at(space, ref), &buffer) == NXM_OK);
		(void) check_number(buffer.data, buffer.len);
	}
	nxm_leave(space);
}

static void
replace_item(NxmAtomic *slot, int number)
{
	NxmSpace   *space = check_space();
	NxmRef		ref;

	nxm_enter(space);
	ref = new_item(number);
	check_assert(ref != 0);
	nxm_retire(space, nxm_exchange(slot, ref));
	nxm_leave(space);
}

/* Items under hazards. */
static void
items(int proc)
{
	for (int i = 0; i < 3; i++)
	{
		NxmAtomic  *slot = &table->slot[check_pick(2)];

		switch (check_pick(5))
		{
			case 0:
			case 1:
				replace_item(slot, 10 * proc + i);
				break;
			case 2:
				check_reattach();
				break;
			default:
				read_item(slot);
		}
	}
}

static void
items_fixed(int proc)
{
	if (proc == 1)
		read_item(&table->slot[0]);
	else
	{
		replace_item(&table->slot[0], 3);
		replace_item(&table->slot[0], 4);
	}
}

/*
 * A reader goes from one item to the next, and both are replaced: who notes the
 * first one with it, late, displaces the note of the second, which is being read.
 */
static void
items_held(int proc)
{
	if (proc == 1)
		read_both();
	else
		replace_item(&table->slot[proc - 2], 3);
}

static void
items_finish(void)
{
	for (int i = 0; i < 2; i++)
		nxm_item_free(check_space(), nxm_load(&table->slot[i]));
	finish();
}

/* Index arrays: read for as long as a section lasts. */
static void
setup_arrays(int procs)
{
	setup_pages(procs, 8);
	nxm_init(&table->slot[0], alloc(SMALL, 1));
}

static void
setup_arrays_two(void)
{
	setup_arrays(2);
}

static void
setup_arrays_three(void)
{
	setup_arrays(3);
}

static void
read_array(void)
{
	NxmSpace   *space = check_space();
	char	   *array;

	nxm_enter(space);
	array = nxm_at(space, nxm_load(&table->slot[0]));
	for (int i = 0; i < 2; i++)
	{
		NXM_READS(array, SMALL);
		(void) check_number(array, SMALL);
		(void) nxm_load_relaxed(&table->slot[1]);
	}
	nxm_leave(space);
}

static void
replace_array(int number)
{
	NxmSpace   *space = check_space();
	NxmRef		ref;

	nxm_enter(space);
	ref = alloc(SMALL, number);
	check_assert(ref != 0);
	nxm_retire_epoch(space, nxm_exchange(&table->slot[0], ref));
	nxm_leave(space);
}

static void
arrays(int proc)
{
	for (int i = 0; i < 4; i++)
	{
		switch (check_pick(6))
		{
			case 0:
			case 1:
				replace_array(10 * proc + i);
				break;
			case 2:
				nxm_epoch_poll(check_space());
				break;
			case 3:
				check_reattach();
				break;
			default:
				read_array();
		}
	}
}

/* One reads, one replaces, one just moves the epoch on. */
static void
arrays_three(int proc)
{
	switch (proc)
	{
		case 1:
			read_array();
			break;
		case 2:
			replace_array(2);
			nxm_epoch_poll(check_space());
			break;
		default:
			nxm_epoch_poll(check_space());
			nxm_epoch_poll(check_space());
	}
}

static void
arrays_fixed(int proc)
{
	if (proc == 1)
		read_array();
	else
	{
		replace_array(2);
		nxm_epoch_poll(check_space());
		nxm_epoch_poll(check_space());
	}
}

static void
arrays_finish(void)
{
	nxm_free(check_space(), nxm_load(&table->slot[0]));
	finish();
}

/* Retired by a process that has not mapped them, which does not look again and again. */
#define FAR_ARRAYS (NXM_EPOCH_LIMBO / 4 + 1)

static NxmRef far_arrays[FAR_ARRAYS];

static void
setup_far_arrays(void)
{
	setup_arrays(2);
	for (int i = 0; i < FAR_ARRAYS; i++)
		far_arrays[i] = alloc(SMALL, 1);
	check_unmap();
}

#define LEAVES 20

static void
leave_often(NxmSpace *space)
{
	for (int i = 0; i < LEAVES; i++)
	{
		nxm_enter(space);
		nxm_leave(space);
	}
}

static void
retire_far_arrays(int proc)
{
	NxmSpace   *space = check_space();

	if (proc != 2)
		return;
	nxm_enter(space);
	for (int i = 0; i < FAR_ARRAYS; i++)
		nxm_retire_epoch(space, far_arrays[i]);
	nxm_leave(space);
	leave_often(space);
	check_assert(!space->limbo_due);
	check_assert(space->local->nretired == FAR_ARRAYS);
	check_assert(check_again(NXM_NEED_CHUNK));
	leave_often(space);
	check_assert(space->local->nretired == 0);
}

/*
 * A process stopped in a section holds the epoch: leaving one does not poll again and
 * again for what waits, even where that is much; and frees it soon after it has gone on.
 */
static void
setup_stopped(void)
{
	setup_pages(2, 2);
	nxm_store(&check_space()->lines[1].epoch, nxm_load(&check_space()->shared->epoch));
}

static void
leave_held_up(int proc)
{
	enum { MANY = NXM_EPOCH_LIMBO_HIGH };
	NxmSpace   *space = check_space();
	int			poll;
	int			leaving;
	int			before;

	if (proc != 1)
		return;
	before = check_steps();
	nxm_enter(space);
	nxm_leave(space);
	leaving = check_steps() - before;
	for (int i = 0; i < MANY; i++)
		nxm_retire_epoch(space, alloc(SMALL, proc));
	/* it has seen this epoch, and not the next one */
	nxm_epoch_poll(space);
	before = check_steps();
	nxm_epoch_poll(space);
	poll = check_steps() - before;
	check_assert(space->local->nretired == MANY);

	before = check_steps();
	leave_often(space);
	check_assert(space->local->nretired == MANY);
	/* at each fourth, and see whether there is reason to at each */
	check_assert(check_steps() - before <= LEAVES * (leaving + 2) + LEAVES / 4 * poll);

	/* one more is reason for one more */
	before = check_steps();
	nxm_enter(space);
	nxm_retire_epoch(space, alloc(SMALL, proc));
	nxm_leave(space);
	check_assert(check_steps() - before > poll);

	nxm_store(&space->lines[1].epoch, 0);
	leave_often(space);
	check_assert(space->local->nretired == 0);
}

/* Bytes of a record of orphans. */
#define RECORD	(3 * sizeof(uint64_t) + NXM_EPOCH_LIMBO * 2 * sizeof(uint64_t))

static void
setup_accounts(void)
{
	setup_pages(2, 8);
	nxm_store(&check_space()->shared->account[1].page_limit, 8);
}

/*
 * While a process allocates from one account it retires more than its list holds, so
 * that a record is made there; a process that allocates from the other adopts it, and
 * may not take it for memory of that one.
 */
static void
accounts(int proc)
{
	NxmSpace   *space = check_space();
	NxmRef		ref;

	nxm_allocate_from(space, 1, -1);
	nxm_enter(space);
	for (int i = 0; i <= NXM_EPOCH_LIMBO; i++)
	{
		ref = alloc(SMALL, proc);
		check_assert(ref != 0);
		nxm_retire_epoch(space, ref);
	}
	nxm_leave(space);
	nxm_allocate_from(space, 0, -1);
	for (int i = 0; i < 4; i++)
		nxm_epoch_poll(space);
	nxm_flush(space);
	ref = alloc(RECORD, proc);
	check_assert(ref != 0);
	check_assert(nxm_page_account(space, nxm_ref_page(ref)) == 0);
	give_back(ref, RECORD);
}

/* There is no memory for a record of those that the list is too short for: they are lost. */
static void
setup_lost_arrays(void)
{
	setup_pages(1, 2);
}

static void
lose_arrays(int proc)
{
	NxmSpace   *space = check_space();
	NxmRef		refs[NXM_EPOCH_LIMBO + 1];

	for (int i = 0; i <= NXM_EPOCH_LIMBO; i++)
		refs[i] = alloc(SMALL, proc);
	check_hold(RECORD);
	for (int i = 0; i <= NXM_EPOCH_LIMBO; i++)
		nxm_retire_epoch(space, refs[i]);
	check_assert(nxm_load(&space->shared->leaked) == NXM_EPOCH_LIMBO);
	check_assert(nxm_load(&space->shared->limbo) == 1);
	check_assert(nxm_load(&space->shared->account[0].limbo) == SMALL);
	for (int i = 0; i < 3; i++)
		nxm_epoch_poll(space);
	check_assert(nxm_load(&space->shared->limbo) == 0);
	check_free_held();
}

/* Memory for a record is asked for ahead of many objects, and not where it fits without. */
static void
retire_many(int proc)
{
	enum { BEFORE = NXM_EPOCH_LIMBO_HIGH - 1, MANY = NXM_EPOCH_LIMBO };
	NxmSpace   *space = check_space();
	NxmRef		refs[BEFORE + MANY];

	for (int i = 0; i < BEFORE + MANY; i++)
		refs[i] = alloc(SMALL, proc);
	for (int i = 0; i < BEFORE; i++)
		nxm_retire_epoch(space, refs[i]);
	check_assert(nxm_can_retire(space, NXM_EPOCH_LIMBO - BEFORE) && space->record == 0);
	check_assert(nxm_can_retire(space, MANY));
	check_hold(RECORD);
	for (int i = BEFORE; i < BEFORE + MANY; i++)
		nxm_retire_epoch(space, refs[i]);
	check_assert(nxm_load(&space->shared->leaked) == 0);
	for (int i = 0; i < 8; i++)
		nxm_epoch_poll(space);
	check_assert(nxm_load(&space->shared->limbo) == 0);
	check_free_held();
}

static NxmRef raw[2];

/* Of the pages of the limit one is left, beyond it there are more. */
static void
setup_limit(void)
{
	setup_pages(2, 4);
	check_hold_one(RAW);
	nxm_store(&check_space()->shared->account[0].page_limit, 2);
	raw[0] = raw[1] = 0;
}

/* Both want the one that is left, and more. */
static void
last_page(int proc)
{
	NxmRef		ref = alloc(RAW, proc);

	raw[proc - 1] = ref;
	check_assert(alloc(RAW, proc) == 0 && check_space()->want == NXM_WANT_LIMIT);
}

static void
last_page_finish(void)
{
	/* what was taken was kept: it had memory all at once */
	check_assert((raw[0] != 0) + (raw[1] != 0) == 1);
	check_assert(check_pages_counted() == 2);
	for (int i = 0; i < 2; i++)
	{
		if (raw[i] != 0)
			give_back(raw[i], RAW);
	}
	check_free_held();
	finish();
}

#define OFTEN CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL
#define ALL CHECK_EXHAUSTIVE

static const CheckCase cases[] = {
	{"objects of one's own", 3, setup_three, own_objects, finish, OFTEN, NULL},
	{"objects given to others", 3, setup_three, exchanged_objects, exchanged_finish, OFTEN, NULL},
	{"objects given to others, two processes", 2, setup_two, exchanged_objects, exchanged_finish, OFTEN, NULL},
	{"lives of pages", 3, setup_three, lives, finish, OFTEN, NULL},
	{"lives of one page", 2, setup_one_page, lives, finish, OFTEN, NULL},
	{"pages whose memory can't be taken away", 2, setup_refused, lives_refused, finish_refused, OFTEN, NULL},
	{"pages for another class", 1, setup_many_pages, another_class, finish, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"pages for the same class", 1, setup_many_pages, same_class, finish, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"pages for another class, all schedules", 2, setup_hidden_pages, hidden_pages, hidden_pages_finish, ALL, 0, 2, 1, NULL, in_stacks},
	{"free pages, all schedules", 2, setup_free_pages, free_pages, free_pages_finish, ALL, 0, 2, 1, NULL, NULL},
	{"a page whose memory stays, all schedules", 2, setup_lower_page, lower_page, lower_page_finish, ALL, 0, 3, 1, NULL, NULL},
	{"the last page of a limit, all schedules", 2, setup_limit, last_page, last_page_finish, ALL, 0, 3, 1, NULL, NULL},
	{"lives of one page, all schedules", 2, setup_one_page, lives_fixed, finish, ALL, 0, 2, 1, NULL, NULL},
	{"items under a hazard", 3, setup_items_three, items, items_finish, OFTEN, NULL},
	{"items under a hazard, two processes", 2, setup_items_two, items, items_finish, OFTEN, NULL},
	{"items under a hazard, all schedules", 2, setup_items_two, items_fixed, items_finish, ALL, 0, 2, 2, NULL, NULL},
	{"items held for a reader that goes on", 3, setup_items_three, items_held, items_finish, OFTEN, NULL},
	{"items held for a reader that goes on, all schedules", 3, setup_items_three, items_held, items_finish, ALL, 500000, 3, 1, NULL, NULL},
	{"arrays and the epoch", 3, setup_arrays_three, arrays, arrays_finish, OFTEN, NULL},
	{"arrays and the epoch, two processes", 2, setup_arrays_two, arrays, arrays_finish, OFTEN, NULL},
	{"arrays, and the epoch moved on by a third", 3, setup_arrays_three, arrays_three, arrays_finish, ALL, 0, 2, 2, NULL, NULL},
	{"arrays and the epoch, all schedules", 2, setup_arrays_two, arrays_fixed, arrays_finish, ALL, 0, 2, 2, NULL, NULL},
	{"arrays that are not mapped", 2, setup_far_arrays, retire_far_arrays, arrays_finish, CHECK_RANDOM, 10, 0, 0, NULL, NULL},
	{"arrays held up by a stopped process", 2, setup_stopped, leave_held_up, finish, CHECK_EXHAUSTIVE, 10, 0, 0, NULL, NULL},
	{"arrays that are lost", 1, setup_lost_arrays, lose_arrays, NULL, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"many arrays", 1, setup_lost_arrays, retire_many, NULL, CHECK_EXHAUSTIVE, 1, 0, 0, NULL, NULL},
	{"arrays of another account", 2, setup_accounts, accounts, finish, OFTEN, NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_space", cases, LENGTH(cases));
}
