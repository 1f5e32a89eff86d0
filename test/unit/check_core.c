/*
 * check_core.c
 *	  The space that the checker's programs run core in.
 */
#include <string.h>

#include "check_core.h"
#include "check_model.h"

#define MAX_LEN 4096

static NxmSpaceShared *shared;
static NxmSpace spaces[CHECK_MAX_PROCS];
static int	nprocs;
static uint32_t npages_all;
static char *chunk;
static NxmRef held[400];
static int	nheld;

CheckRefusals check_refusals;

static bool
populate(NxmSpace *space, int number, void *page)
{
	(void) space;
	(void) number;
	memset(page, 0, NXM_PAGE_SIZE);
	return true;
}

/* No object may be in it, and nobody may look at it any more. */
static bool
depopulate(NxmSpace *space, int number, void *page)
{
	(void) space;
	(void) number;
	if (check_refusals == CHECK_REFUSED ||
		(check_refusals == CHECK_MAY_BE_REFUSED && check_pick(2) == 0))
		return false;
	check_withdraw(page, NXM_PAGE_SIZE, CHECK_HERE);
	return true;
}

void
check_core_setup(int procs, int npages)
{
	uint32_t	first;

	nprocs = procs;
	check_refusals = CHECK_NOT_REFUSED;
	nheld = 0;
	shared = check_shared(nxm_space_size(procs), "space");
	nxm_space_init(shared, procs, 1, (uint64_t) npages);
	for (int i = 1; i <= procs; i++)
	{
		nxm_space_open(&spaces[i], shared);
		spaces[i].populate = populate;
		spaces[i].depopulate = depopulate;
		nxm_proc_attach(&spaces[i], i - 1, 0, (uint64_t) i);
	}
	first = nxm_chunk_first_page((uint32_t) npages);
	npages_all = first + (uint32_t) npages;
	chunk = check_shared((size_t) npages_all * NXM_PAGE_SIZE, "chunk");
	check_assert(nxm_chunk_add(&spaces[1], chunk, npages_all, 0, 0) == 0);
	for (int i = 2; i <= procs; i++)
		spaces[i].base[0] = chunk;
}

NxmSpace *
check_space(void)
{
	int			self = check_self();

	return &spaces[self == 0 ? 1 : self];
}

void
check_reattach(void)
{
	NxmSpace   *space = check_space();
	int			proc = space->proc;

	nxm_proc_detach(space);
	nxm_proc_attach(space, proc, 0, (uint64_t) proc + 1);
}

bool
check_again(NxmResult result)
{
	NxmSpace   *space = check_space();

	if (result != NXM_NEED_CHUNK)
		return false;
	check_assert(space->need_chunk == 0);
	check_assert(space->base[0] == NULL);
	nxm_chunk_mapped(space, 0, chunk);
	return true;
}

void
check_unmap(void)
{
	for (int i = 2; i <= nprocs; i++)
		spaces[i].base[0] = NULL;
}

void
check_hold(size_t size)
{
	NxmRef		ref;

	while ((ref = nxm_alloc(check_space(), size)) != 0)
	{
		check_assert(nheld < LENGTH(held));
		held[nheld++] = ref;
	}
}

void
check_hold_one(size_t size)
{
	check_assert(nheld < LENGTH(held));
	held[nheld] = nxm_alloc(check_space(), size);
	check_assert(held[nheld++] != 0);
}

void
check_free_held(void)
{
	while (nheld > 0)
		nxm_free(check_space(), held[--nheld]);
}

#define FAR_PAGES 4

static char *far_chunk;

void
check_far_record(void)
{
	NxmSpace   *space = check_space();

	for (int i = 0; i < NXM_EPOCH_LIMBO - 1; i++)
		nxm_retire_epoch(space, nxm_alloc(space, NXM_MIN_OBJECT));
	check_hold(NXM_PAGE_SIZE);
	far_chunk = check_shared((size_t) FAR_PAGES * NXM_PAGE_SIZE, "far chunk");
	check_assert(nxm_chunk_add(space, far_chunk, FAR_PAGES, 0, 0) == 1);
	space->base[1] = NULL;
	nxm_store(&space->lines[1].epoch, nxm_load(&space->shared->epoch));
}

bool
check_far_again(NxmResult result)
{
	NxmSpace   *space = check_space();

	if (result != NXM_NEED_CHUNK)
		return false;
	check_assert(space->need_chunk == 1 && space->base[1] == NULL);
	space->base[1] = far_chunk;
	return true;
}

void
check_far_free(void)
{
	NxmSpace   *space = check_space();

	for (int i = 0; i < 100 && nxm_load(&space->shared->limbo) != 0; i++)
		nxm_epoch_poll(space);
	nxm_flush(space);
	nxm_give_back(space);
	check_assert(nxm_load(&space->shared->limbo) == 0);
	check_assert(nxm_load(&space->shared->nodes[0].used_pages) == 0);
}

NxmValue
check_value(int number, uint32_t len)
{
	static char bytes[CHECK_MAX_PROCS][MAX_LEN];
	char	   *data = bytes[check_self()];
	NxmValue	value = {data, len, NXM_BYTEA};

	check_assert(len <= MAX_LEN);
	memset(data, number, len);
	return value;
}

int
check_number(const char *data, size_t len)
{
	check_assert(len > 0);
	for (size_t i = 1; i < len; i++)
	{
		if (data[i] != data[0])
			check_fail("a value of %d has %d as its byte %zu", data[0], data[i], i);
	}
	return data[0];
}

/* Objects of a page that are handed out. */
static int
objects_out(uint32_t page)
{
	NxmPage    *desc = (NxmPage *) chunk + page;
	uint64_t	status = nxm_load(&desc->state) & 7;
	int			free = 0;

	/* as in space.c: 1 is SLAB, 3 is RAW */
	if (status != 1)
		return status == 3;
	for (int i = 0; i < NXM_PAGE_WORDS; i++)
		free += __builtin_popcountll(nxm_load(&desc->free[i]));
	return (int) (NXM_PAGE_SIZE /
				  nxm_ref_size(&spaces[1], (NxmRef) page << NXM_PAGE_SHIFT)) - free;
}

int
check_pages_counted(void)
{
	return (int) (nxm_load(&shared->account[0].pages) + nxm_load(&shared->account[1].pages));
}

int
check_pages_empty(void)
{
	int			n = 0;

	/* 2 is EMPTY */
	for (uint32_t page = shared->chunks[0].first_page; page < npages_all; page++)
		n += (nxm_load(&((const NxmPage *) chunk + page)->state) & 7) == 2;
	return n;
}

void
check_listed(void)
{
	for (uint32_t page = shared->chunks[0].first_page; page < npages_all; page++)
	{
		const NxmPage *desc = (const NxmPage *) chunk + page;
		uint64_t	state = nxm_load(&desc->state);

		/* 1 is SLAB, 8 is LISTED */
		for (int i = 0; i < NXM_PAGE_WORDS; i++)
			check_assert((state & 7) != 1 || (state & 8) != 0 ||
						 nxm_load(&desc->free[i]) == 0);
	}
}

/* Pages on a stack, of which each has this state, as far as the mask goes. */
static int
pages_on(NxmAtomic *stack, uint64_t mask, uint64_t state)
{
	int			n = 0;

	for (uint64_t next = nxm_load(stack) & UINT32_MAX; next != 0; n++)
	{
		const NxmPage *desc = (const NxmPage *) chunk + (next - 1);

		check_assert(next - 1 < npages_all && n < (int) npages_all);
		check_assert((nxm_load(&desc->state) & mask) == state);
		next = nxm_load(&desc->next);
	}
	return n;
}

/* As in space.c. */
#define STATUS		UINT64_C(0x7)
#define FREE		UINT64_C(0)
#define SLAB		UINT64_C(1)
#define EMPTY		UINT64_C(2)
#define RAW			UINT64_C(3)
#define LISTED		UINT64_C(0x8)
#define POPULATED	UINT64_C(0x10)
#define CLASS_SHIFT	8
#define ACCOUNT_SHIFT 16

static void
check_page_lists(void)
{
	uint64_t	bump = nxm_load(&shared->chunks[0].bump);
	uint64_t	nkept = 0;
	uint64_t	used = 0;
	int			kept = 0;
	int			unpopulated = 0;
	int			listed = 0;
	int			populated[NXM_ACCOUNTS] = {0};
	int			of_status[4] = {0};
	int			with_list = 0;
	uint64_t	nempty = 0;

	/* of all nodes together: a page taken for one may be of another's chunk */
	for (int n = 0; n < NXM_SPACE_NODES; n++)
	{
		NxmNodeSpace *node = &shared->nodes[n];

		nkept += nxm_load(&node->nkept);
		nempty += nxm_load(&node->nempty);
		used += nxm_load(&node->used_pages);
		kept += pages_on(&node->kept_pages, STATUS | LISTED | POPULATED, FREE | POPULATED);
		unpopulated += pages_on(&node->free_pages, STATUS | LISTED | POPULATED, FREE);
		for (int account = 0; account < NXM_ACCOUNTS; account++)
			for (int class = 0; class < NXM_CLASSES; class++)
				listed += pages_on(&node->slabs[account][class],
								   LISTED | UINT64_C(0xFF) << CLASS_SHIFT |
								   UINT64_C(1) << ACCOUNT_SHIFT,
								   LISTED | (uint64_t) class << CLASS_SHIFT |
								   (uint64_t) account << ACCOUNT_SHIFT);
	}
	/* who finds no page any more may have raised it past the last one */
	if (bump > nxm_load(&shared->chunks[0].published))
		bump = nxm_load(&shared->chunks[0].published);
	for (uint32_t page = shared->chunks[0].first_page; page < bump; page++)
	{
		uint64_t	state = nxm_load(&((const NxmPage *) chunk + page)->state);

		check_assert((state & STATUS) <= RAW);
		of_status[state & STATUS]++;
		with_list += (state & LISTED) != 0;
		check_assert((state & LISTED) == 0 || (state & STATUS) == SLAB || (state & STATUS) == EMPTY);
		check_assert((state & STATUS) != EMPTY || (state & (LISTED | POPULATED)) == LISTED);
		if ((state & POPULATED) != 0)
			populated[state >> ACCOUNT_SHIFT & 1]++;
	}
	check_assert(of_status[FREE] == kept + unpopulated);
	check_assert(nkept == (uint64_t) kept);
	check_assert(nempty == (uint64_t) of_status[EMPTY]);
	check_assert(with_list == listed);
	check_assert(used == (uint64_t) (of_status[SLAB] + of_status[RAW]));
	for (int account = 0; account < NXM_ACCOUNTS; account++)
		check_assert(nxm_load(&shared->account[account].pages) == (uint64_t) populated[account]);
}

void
check_all_free(int objects_kept)
{
	int			out = 0;

	for (int i = 1; i <= nprocs; i++)
	{
		spaces[i].base[0] = chunk;
		nxm_proc_detach(&spaces[i]);
	}
	/* what one left for the others is found by any who flushes and polls */
	nxm_proc_attach(&spaces[1], 0, 0, 1);
	/* each record of orphans takes a few polls */
	for (int i = 0; i < 4 || (i < 100 && nxm_load(&shared->limbo) != 0); i++)
		nxm_epoch_poll(&spaces[1]);
	nxm_proc_detach(&spaces[1]);
	for (uint32_t page = shared->chunks[0].first_page; page < npages_all; page++)
		out += objects_out(page);
	if (out != objects_kept)
		check_fail("%d objects are handed out at the end, not %d", out,
				   objects_kept);
	check_assert(nxm_load(&shared->leaked) == 0);
	check_page_lists();
}
