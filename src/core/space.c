/*
 * space.c
 *	  Pages and objects.  space.h has the design.
 *
 * Orders.  Stacks of pages: a push releases the page's words, a pop acquires
 * them; `next` of a page that others have popped meanwhile may be any value,
 * and then the tag has changed and the CAS fails.  Bitmaps: setting a bit
 * releases what the freer did with the object, taking it acquires.
 */
#include "pause.h"
#include "space_internal.h"

#define STATUS_FREE		0
#define STATUS_SLAB		1
#define STATUS_EMPTY	2
#define STATUS_RAW		3
#define STATUS_MASK		UINT64_C(0x7)
#define LISTED			UINT64_C(0x8)
#define POPULATED		UINT64_C(0x10)
#define CLASS_SHIFT		8
#define ACCOUNT_SHIFT	16
#define LIFE_SHIFT		32
/* What makes two states of a page the same life. */
#define LIFE_MASK		(~(LISTED | POPULATED))

/* Pages of a node, by one nxm_trim(), which ends at one that the kernel leaves with memory. */
#define MOST_TRIMMED	(2 * NXM_KEPT_PAGES)
/* Times that EMPTY pages are taken off stacks by one nxm_trim(), of each node. */
#define MOST_UNLISTS	16

/*
 * EMPTY pages that one allocation takes off stacks at a time: clearing a map leaves
 * 16,000 a GB, which would be 3 ms in a section.
 */
#define MOST_UNLISTED	8

#define PAGE_MASK		UINT64_C(0xFFFFFFFF)
#define TAG_ONE			(UINT64_C(1) << 32)

#define PAGE_IN_CHUNK(page) ((page) & (NXM_MAX_CHUNK_PAGES - 1))

size_t
nxm_large_object_size(size_t size)
{
	return size > NXM_MAX_OBJECT ? NXM_PAGE_SIZE : class_size(size_class(size));
}

static inline uint32_t
objects_in_page(int class)
{
	return (uint32_t) (NXM_PAGE_SIZE / class_size(class));
}

static inline uint32_t
words_of(int class)
{
	return (objects_in_page(class) + 63) / 64;
}

/* The word when all its objects are free. */
static inline uint64_t
full_word(int class, uint32_t word)
{
	uint32_t	left = objects_in_page(class) - word * 64;

	return left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
}

static inline int
state_class(uint64_t state)
{
	return (int) ((state >> CLASS_SHIFT) & 0xFF);
}

/* NULL: its chunk is not mapped; need_chunk is set. */
static inline NxmPage *
page_at(NxmSpace *space, uint32_t page)
{
	int			chunk = (int) (page >> NXM_CHUNK_PAGE_SHIFT);

	if (space->base[chunk] == NULL)
	{
		space->need_chunk = chunk;
		return NULL;
	}
	return (NxmPage *) space->base[chunk] + PAGE_IN_CHUNK(page);
}

static inline void *
page_memory(NxmSpace *space, uint32_t page)
{
	return nxm_at(space, (NxmRef) page << NXM_PAGE_SHIFT);
}

/* The page is ours, or nobody's yet. */
static void
push_page(NxmAtomic *stack, NxmPage *desc, uint32_t page)
{
	uint64_t	top = nxm_load_relaxed(stack);

	do
		nxm_store_relaxed(&desc->next, top & PAGE_MASK);
	while (!nxm_cas(stack, &top,
					((top & ~PAGE_MASK) + TAG_ONE) | (page + UINT64_C(1))));
}

/* Takes the top off if it still is `top`. */
static bool
pop_page(NxmAtomic *stack, uint64_t top, NxmPage *desc)
{
	uint64_t	next = nxm_load_relaxed(&desc->next);

	return nxm_cas(stack, &top, ((top & ~PAGE_MASK) + TAG_ONE) | next);
}

static inline int
state_account(uint64_t state)
{
	return (int) (state >> ACCOUNT_SHIFT) & 1;
}

static void
uncount_page(NxmSpace *space, int account)
{
	nxm_fetch_add_relaxed(&space->shared->account[account].pages, (uint64_t) -1);
}

/* Counts one more, if the limit lets, or does not matter. */
static bool
count_taken(NxmSpace *space, int account)
{
	NxmAccount *of = &space->shared->account[account];

	if (nxm_fetch_add_relaxed(&of->pages, 1) < nxm_load_relaxed(&of->page_limit) ||
		space->past_limit)
		return true;
	uncount_page(space, account);
	return false;
}

/* Takes the memory of a page that is ours away.  false: it is still there, and counted. */
static bool
depopulate(NxmSpace *space, uint32_t page, uint64_t state)
{
	if (!space->depopulate(space, (int) (page >> NXM_CHUNK_PAGE_SHIFT),
						   page_memory(space, page)))
		return false;
	uncount_page(space, state_account(state));
	return true;
}

/*
 * Puts a page that is ours, with no object out and not listed, on its node's
 * free stack: with its memory, if few are.
 */
static void
free_page(NxmSpace *space, uint32_t page, NxmPage *desc, uint64_t state)
{
	NxmNodeSpace *node = &space->shared->nodes[page_node(space, page)];
	NxmAccount *account = &space->shared->account[state_account(state)];
	bool		populated = (state & POPULATED) != 0;

	if (populated &&
		(nxm_fetch_add_relaxed(&node->nkept, 1) >= NXM_KEPT_PAGES ||
		 nxm_load_relaxed(&account->pages) > nxm_load_relaxed(&account->page_limit)))
	{
		populated = !depopulate(space, page, state);
		if (!populated)
			nxm_fetch_add_relaxed(&node->nkept, (uint64_t) -1);
	}
	/* release: whoever takes bits of the next life sees this one ended */
	nxm_store(&desc->state,
			  (((state >> LIFE_SHIFT) + 1) << LIFE_SHIFT) | STATUS_FREE |
			  (state & (UINT64_C(1) << ACCOUNT_SHIFT)) |
			  (populated ? POPULATED : 0));
	push_page(populated ? &node->kept_pages : &node->free_pages, desc, page);
}

/*
 * Takes the top page off a stack of free ones.  UINT32_MAX: there is none, or, with
 * *unmapped, it is not mapped.
 */
static uint32_t
pop_free_page(NxmSpace *space, NxmAtomic *stack, bool *unmapped)
{
	for (;;)
	{
		uint64_t	top = nxm_load(stack);
		uint32_t	page = (uint32_t) (top & PAGE_MASK) - 1;
		NxmPage    *desc;

		if ((top & PAGE_MASK) == 0)
			return UINT32_MAX;
		desc = page_at(space, page);
		*unmapped = desc == NULL;
		if (desc == NULL)
			return UINT32_MAX;
		if (pop_page(stack, top, desc))
			return page;
	}
}

/* Takes the memory of a page that was kept, and is ours, away.  false: it still is. */
static bool
trim_page(NxmSpace *space, NxmNodeSpace *node, uint32_t page, NxmPage *desc)
{
	if (!depopulate(space, page, nxm_load_relaxed(&desc->state)))
		return false;
	nxm_fetch_add_relaxed(&node->nkept, (uint64_t) -1);
	nxm_fetch_and(&desc->state, ~POPULATED);
	push_page(&node->free_pages, desc, page);
	return true;
}

/*
 * Lists a page of the given life if it is not: the first object of it was
 * freed.  It may be in another life by now, and then is left alone.
 */
static void
list_page(NxmSpace *space, uint32_t page, NxmPage *desc, uint64_t life)
{
	uint64_t	state = nxm_load(&desc->state);

	do
	{
		if ((state & LIFE_MASK) != (life & LIFE_MASK) || (state & LISTED) != 0)
			return;
		/* pairs with the clearing of LISTED in unlist_top() */
	} while (!nxm_cas(&desc->state, &state, state | LISTED));
	push_page(&space->shared->nodes[page_node(space, page)]
			  .slabs[state_account(state)][state_class(state)], desc, page);
}

/*
 * Takes the top page off its class's stack: it has no free object, or is EMPTY.
 */
static void
unlist_top(NxmSpace *space, NxmAtomic *stack, uint64_t top, uint32_t page,
		   NxmPage *desc)
{
	uint64_t	state;

	if (!pop_page(stack, top, desc))
		return;
	/* a page does not change its life while it is listed */
	state = nxm_fetch_and(&desc->state, ~LISTED);
	if ((state & STATUS_MASK) == STATUS_EMPTY)
	{
		nxm_fetch_add_relaxed(&space->shared->nodes[page_node(space, page)].nempty,
							  (uint64_t) -1);
		free_page(space, page, desc, state);
		return;
	}
	/*
	 * Somebody may have freed an object and seen it still listed.  A load might
	 * miss that; this sees it, or is seen by put_bits() and LISTED gone with it.
	 */
	for (uint32_t w = 0; w < words_of(state_class(state)); w++)
	{
		if (nxm_fetch_or(&desc->free[w], 0) != 0)
		{
			list_page(space, page, desc, state);
			return;
		}
	}
}

/* What the top page of a stack is, for unlist_empty_of(). */
typedef enum TopPage
{
	TOP_NONE,
	TOP_EMPTY,
	TOP_IN_USE,
	TOP_UNMAPPED				/* need_chunk is set */
} TopPage;

static TopPage
look_at_top(NxmSpace *space, uint64_t top, NxmPage **desc)
{
	if ((top & PAGE_MASK) == 0)
		return TOP_NONE;
	*desc = page_at(space, (uint32_t) (top & PAGE_MASK) - 1);
	if (*desc == NULL)
		return TOP_UNMAPPED;
	return (nxm_load(&(*desc)->state) & STATUS_MASK) == STATUS_EMPTY ? TOP_EMPTY : TOP_IN_USE;
}

/*
 * Takes up to so many EMPTY pages off a stack: those on top, or below one page that is in
 * use.  That one is off its stack for a moment and LISTED, as it is in list_page(), so
 * whoever frees its objects leaves it to us.  How many; -1: need_chunk is set.
 */
static int
unlist_empty_of(NxmSpace *space, NxmAtomic *stack, int most)
{
	TopPage		what = TOP_NONE;
	uint32_t	held = UINT32_MAX;
	NxmPage    *held_desc = NULL;
	int			n = 0;

	while (n < most)
	{
		uint64_t	top = nxm_load(stack);
		uint32_t	page = (uint32_t) (top & PAGE_MASK) - 1;
		NxmPage    *desc;

		what = look_at_top(space, top, &desc);
		if (what == TOP_IN_USE && held == UINT32_MAX)
		{
			NxmPage    *below;

			/*
			 * Not in vain: while we have it others do not find its objects.  Relaxed: if
			 * another one is below it by now, the top has changed, too.
			 */
			what = look_at_top(space, nxm_load_relaxed(&desc->next), &below);
			if (what == TOP_EMPTY)
			{
				if (pop_page(stack, top, desc))
				{
					held = page;
					held_desc = desc;
				}
				continue;
			}
		}
		if (what != TOP_EMPTY)
			break;
		unlist_top(space, stack, top, page, desc);
		n++;
		/* at once, for somebody may be in want of its objects */
		if (held != UINT32_MAX)
			push_page(stack, held_desc, held);
		held = UINT32_MAX;
	}
	if (held != UINT32_MAX)
		push_page(stack, held_desc, held);
	return what == TOP_UNMAPPED ? -1 : n;
}

/* The same of all stacks of a node, for any other use of the pages. */
static int
unlist_empty(NxmSpace *space, NxmNodeSpace *node)
{
	int			n = 0;

	/* relaxed: a hint */
	if ((int64_t) nxm_load_relaxed(&node->nempty) <= 0)
		return 0;
	for (int i = 0; i < NXM_ACCOUNTS * NXM_CLASSES && n < MOST_UNLISTED; i++)
	{
		int			unlisted = unlist_empty_of(space, &node->slabs[i / NXM_CLASSES][i % NXM_CLASSES],
											   MOST_UNLISTED - n);

		if (unlisted < 0)
			return -1;
		n += unlisted;
	}
	return n;
}

/*
 * A page with memory behind it, ours, in state FREE.  UINT32_MAX: there is
 * none.
 */
static uint32_t
take_page(NxmSpace *space, int node_no, int account)
{
	NxmSpaceShared *shared = space->shared;
	NxmNodeSpace *node = &shared->nodes[node_no];
	uint32_t	page;
	NxmPage    *desc;
	uint64_t	newest;
	bool		unmapped = false;
	int			unlisted;

again:
	page = pop_free_page(space, &node->kept_pages, &unmapped);
	if (page == UINT32_MAX && !unmapped)
		page = pop_free_page(space, &node->free_pages, &unmapped);
	if (unmapped)
		return UINT32_MAX;
	if (page != UINT32_MAX)
	{
		desc = page_at(space, page);
		goto have_page;
	}

	newest = nxm_load(&node->chunk);
	{
		NxmChunk   *chunk;
		uint64_t	bump;

		if (newest == 0)
			goto need_memory;
		chunk = &shared->chunks[newest - 1];
		/* looked at first, so that bump can't run away */
		if (nxm_load_relaxed(&chunk->bump) >= nxm_load(&chunk->published))
			goto need_memory;
		if (space->base[newest - 1] == NULL)
		{
			space->need_chunk = (int) newest - 1;
			return UINT32_MAX;
		}
		bump = nxm_fetch_add_relaxed(&chunk->bump, 1);
		if (bump >= nxm_load(&chunk->published))
			goto need_memory;
		page = (uint32_t) ((newest - 1) << NXM_CHUNK_PAGE_SHIFT) + (uint32_t) bump;
		desc = page_at(space, page);
	}

have_page:
	{
		uint64_t	state = nxm_load_relaxed(&desc->state);
		bool		populated = (state & POPULATED) != 0;
		/* one kept populated is counted already, if for another account */
		bool		moves = populated && state_account(state) != account;
		bool		room = (populated && !moves) || count_taken(space, account);

		if (room && !populated &&
			!space->populate(space, (int) (page >> NXM_CHUNK_PAGE_SHIFT),
							 page_memory(space, page)))
		{
			uncount_page(space, account);
			push_page(&node->free_pages, desc, page);
			space->want = NXM_WANT_SPACE;
			space->need_node = node_no;
			space->need_account = account;
			return UINT32_MAX;
		}
		/* of the other account, and full is ours: below it there may be one of ours */
		if (!room && moves && trim_page(space, node, page, desc))
			goto again;
		if (!room)
		{
			push_page(populated ? &node->kept_pages : &node->free_pages, desc, page);
			space->want = NXM_WANT_LIMIT;
			space->need_node = node_no;
			space->need_account = account;
			return UINT32_MAX;
		}
		if (moves)
			uncount_page(space, state_account(state));
		if (populated)
			nxm_fetch_add_relaxed(&node->nkept, (uint64_t) -1);
	}
	nxm_fetch_add_relaxed(&node->used_pages, 1);
	return page;

need_memory:
	unlisted = unlist_empty(space, node);
	if (unlisted > 0)
		goto again;
	if (unlisted < 0)
		return UINT32_MAX;
	space->want = NXM_WANT_CHUNK;
	space->need_newest = newest;
	space->need_node = node_no;
	space->need_account = account;
	return UINT32_MAX;
}

static void put_bits(NxmSpace *space, uint32_t page, NxmPage *desc,
					 uint32_t word, uint64_t bits);

/* Are all objects of the page free, at a glance? */
static bool
all_are_free(NxmPage *desc, int class)
{
	for (uint32_t w = 0; w < words_of(class); w++)
	{
		if (nxm_load_relaxed(&desc->free[w]) != full_word(class, w))
			return false;
	}
	return true;
}

/*
 * All objects of the page were free a moment ago, when it had this state: gives
 * its memory back if they still are.
 */
static bool
release_page(NxmSpace *space, uint32_t page, NxmPage *desc, uint64_t state)
{
	int			class = state_class(state);
	NxmNodeSpace *node = &space->shared->nodes[page_node(space, page)];
	NxmAtomic  *stack = &node->slabs[state_account(state)][class];
	uint64_t	taken[NXM_PAGE_WORDS];
	uint32_t	n;
	uint64_t	top;
	bool		populated = true;
	uint64_t	now;

	for (n = 0; n < words_of(class); n++)
	{
		taken[n] = nxm_exchange(&desc->free[n], 0);
		if (taken[n] != full_word(class, n))
		{
			n++;
			goto put_back;
		}
	}
	/* with all objects in hand nobody can end this life; if it is the same */
	now = nxm_load(&desc->state);
	if ((now & LIFE_MASK) != (state & LIFE_MASK))
		goto put_back;

	/* off the stack, where it is on top, it may keep its memory */
	top = nxm_load(stack);
	if ((now & LISTED) != 0 && (top & PAGE_MASK) == page + UINT64_C(1) &&
		pop_page(stack, top, desc))
		now = nxm_fetch_and(&desc->state, ~LISTED) & ~LISTED;
	for (;;)
	{
		uint64_t	empty;

		if ((now & LISTED) != 0 && populated)
		{
			populated = !depopulate(space, page, state);
			if (populated)
			{
				/* else nobody would look for it before it comes to the top */
				for (uint32_t w = 0; w < n; w++)
				{
					if (nxm_fetch_or(&desc->free[w], taken[w]) == 0)
						list_page(space, page, desc, now);
				}
				nxm_store(&space->shared->unreleased, 1);
				return false;
			}
		}
		empty = (now & ~(STATUS_MASK | POPULATED)) | STATUS_EMPTY |
			(populated ? POPULATED : 0);
		/* before others can take it off its stack: it is never less than there are */
		if ((empty & LISTED) != 0)
			nxm_fetch_add_relaxed(&node->nempty, 1);
		/* LISTED alone can change meanwhile: who freed an object before lists it late */
		if (nxm_cas(&desc->state, &now, empty))
		{
			nxm_fetch_add_relaxed(&node->used_pages, (uint64_t) -1);
			if ((empty & LISTED) == 0)
				free_page(space, page, desc, empty);
			return true;
		}
		if ((empty & LISTED) != 0)
			nxm_fetch_add_relaxed(&node->nempty, (uint64_t) -1);
	}

put_back:
	for (uint32_t w = 0; w < n; w++)
	{
		if (taken[w] != 0)
			put_bits(space, page, desc, w, taken[w]);
	}
	return false;
}

/* Makes objects free that are the caller's. */
static void
put_bits(NxmSpace *space, uint32_t page, NxmPage *desc, uint32_t word,
		 uint64_t bits)
{
	/* objects of the page are ours, so this is its life; till the next line */
	uint64_t	state = nxm_load(&desc->state);
	int			class = state_class(state);
	uint64_t	before = nxm_fetch_or(&desc->free[word], bits);

	if ((before | bits) == full_word(class, word))
	{
		/* of two that fill the last words at once, one sees the other's */
		if (words_of(class) > 1)
			nxm_fence();
		if (all_are_free(desc, class))
		{
			(void) release_page(space, page, desc, state);
			return;
		}
	}
	/* whoever finds a word of an unlisted page 0 lists it */
	if (before == 0)
		list_page(space, page, desc, state);
}

/*
 * Takes up to max free objects of one bitmap word.  0: none; nxm_no_object()
 * tells why.
 */
static uint64_t
take_bits(NxmSpace *space, int node_no, int account, int class, int max,
		  uint32_t *page_out, uint32_t *word_out)
{
	NxmNodeSpace *node = &space->shared->nodes[node_no];
	NxmAtomic  *stack = &node->slabs[account][class];
	int			unlisted = 0;	/* EMPTY pages */

	for (;;)
	{
		uint64_t	top = nxm_load(stack);
		uint32_t	page = (uint32_t) (top & PAGE_MASK) - 1;
		bool		is_none = (top & PAGE_MASK) == 0;
		NxmPage    *desc = NULL;
		uint64_t	state = 0;
		bool		found = false;

		if (!is_none)
		{
			desc = page_at(space, page);
			if (desc == NULL)
				return 0;
			state = nxm_load(&desc->state);
		}
		/* a free page is to be had by now, whatever is below */
		if (is_none ||
			(unlisted == MOST_UNLISTED && (state & STATUS_MASK) == STATUS_EMPTY))
		{
			page = take_page(space, node_no, account);
			if (page == UINT32_MAX && (is_none || space->need_chunk >= 0))
				return 0;
			if (page == UINT32_MAX)
			{
				/* the limit, or others were faster: below there may be free objects */
				unlisted++;
				continue;
			}
			unlisted = 0;
			desc = page_at(space, page);
			state = nxm_load_relaxed(&desc->state);
			state = (((state >> LIFE_SHIFT) + 1) << LIFE_SHIFT) | STATUS_SLAB |
				((uint64_t) account << ACCOUNT_SHIFT) |
				((uint64_t) class << CLASS_SHIFT) | LISTED | POPULATED;
			/* before the bits: who takes one must see the life it is of */
			nxm_store(&desc->state, state);
			for (uint32_t w = 0; w < words_of(class); w++)
				nxm_store(&desc->free[w], full_word(class, w));
			push_page(stack, desc, page);
			continue;
		}

		if ((state & STATUS_MASK) == STATUS_SLAB && state_class(state) == class &&
			state_account(state) == account)
		{
			for (uint32_t w = 0; w < words_of(class); w++)
			{
				uint64_t	free = nxm_load_relaxed(&desc->free[w]);

				while (free != 0)
				{
					uint64_t	bits = free;

					found = true;
					if (__builtin_popcountll(bits) > max)
					{
						bits = 0;
						for (int i = 0; i < max; i++)
							bits |= (free & ~bits) & -(free & ~bits);
					}
					if (!nxm_cas(&desc->free[w], &free, free & ~bits))
						continue;
					if (((nxm_load(&desc->state) ^ state) & LIFE_MASK) == 0)
					{
						*page_out = page;
						*word_out = w;
						return bits;
					}
					/* another life of the page: not what we came for */
					put_bits(space, page, desc, w, bits);
					break;
				}
			}
		}
		if (!found)
		{
			unlist_top(space, stack, top, page, desc);
			if ((state & STATUS_MASK) == STATUS_EMPTY)
				unlisted++;
		}
	}
}

static inline NxmRef
object_ref(uint32_t page, uint32_t word, int bit, int class)
{
	return ((NxmRef) page << NXM_PAGE_SHIFT) +
		(word * 64 + (uint32_t) bit) * (class_size(class) / NXM_REF_UNIT);
}

NxmRef
nxm_alloc_on(NxmSpace *space, int node, size_t size)
{
	NxmProcLocal *local = space->local;
	NxmMagazine *magazine;
	NxmMagazine other;
	int			account = space->account;
	int			class;
	int			bit;
	NxmRef		ref;

	space->need_chunk = -1;
	if (size > NXM_MAX_OBJECT)
	{
		uint32_t	page = take_page(space, node, account);
		NxmPage    *desc;

		if (page == UINT32_MAX)
			return 0;
		desc = page_at(space, page);
		nxm_store(&desc->state,
				  (((nxm_load_relaxed(&desc->state) >> LIFE_SHIFT) + 1) << LIFE_SHIFT) |
				  ((uint64_t) account << ACCOUNT_SHIFT) | STATUS_RAW | POPULATED);
		NXM_UNPOISON(page_memory(space, page), NXM_PAGE_SIZE);
		return (NxmRef) page << NXM_PAGE_SHIFT;
	}

	class = size_class(size);
	if (node == (int) local->node && account == 0)
	{
		uint32_t	i = local->nready;

		/* most often the last one */
		while (i > 0 && local->ready_class[i - 1] != class)
			i--;
		if (i-- > 0)
		{
			ref = local->ready[i];
			local->nready--;
			local->ready[i] = local->ready[local->nready];
			local->ready_class[i] = local->ready_class[local->nready];
			NXM_UNPOISON(nxm_at(space, ref), class_size(class));
			return ref;
		}
		magazine = &local->magazine[class];
	}
	else
	{
		other.bits = 0;
		magazine = &other;
	}

	if (magazine->bits == 0)
	{
		int			max = (int) (NXM_MAGAZINE_BYTES / class_size(class));
		uint32_t	page;
		uint32_t	word;
		uint64_t	bits;

		if (max < 1 || magazine == &other)
			max = 1;
		bits = take_bits(space, node, account, class, max, &page, &word);
		if (bits == 0)
			return 0;
		NXM_PAUSE("allocated");
		magazine->page = page;
		magazine->word = word;
		magazine->bits = bits;
	}
	bit = __builtin_ctzll(magazine->bits);
	magazine->bits &= magazine->bits - 1;
	ref = object_ref(magazine->page, magazine->word, bit, class);
	NXM_UNPOISON(nxm_at(space, ref), class_size(class));
	return ref;
}

NxmRef
nxm_alloc_slow(NxmSpace *space, size_t size)
{
	return nxm_alloc_on(space, space->alloc_node < 0 ? (int) space->local->node :
						space->alloc_node, size);
}

size_t
nxm_ref_size(NxmSpace *space, NxmRef ref)
{
	NxmPage    *desc = page_at(space, nxm_ref_page(ref));
	uint64_t	state = nxm_load_relaxed(&desc->state);

	return (state & STATUS_MASK) == STATUS_RAW ? NXM_PAGE_SIZE :
		class_size(state_class(state));
}

/* Which bit of its page's bitmap an object is. */
static inline uint32_t
object_index(NxmRef ref, int class)
{
	uint32_t	offset = (uint32_t) (ref & ((1 << NXM_PAGE_SHIFT) - 1)) * NXM_REF_UNIT;

	return offset / (uint32_t) class_size(class);
}

void
nxm_free(NxmSpace *space, NxmRef ref)
{
	uint32_t	page = nxm_ref_page(ref);
	NxmPage    *desc = page_at(space, page);
	uint64_t	state;
	uint32_t	index;

	if (desc == NULL || NXM_LACKS("mapping"))
	{
		nxm_fetch_add_relaxed(&space->shared->leaked, 1);
		return;
	}
	state = nxm_load_relaxed(&desc->state);
	if ((state & STATUS_MASK) == STATUS_RAW)
	{
		NXM_POISON(nxm_at(space, ref), NXM_PAGE_SIZE);
		nxm_fetch_add_relaxed(&space->shared->nodes[page_node(space, page)].used_pages,
							  (uint64_t) -1);
		free_page(space, page, desc, state);
		return;
	}
	NXM_POISON(nxm_at(space, ref), class_size(state_class(state)));
	index = object_index(ref, state_class(state));
	put_bits(space, page, desc, index / 64, UINT64_C(1) << (index % 64));
}

size_t
nxm_space_size(int nprocs)
{
	return sizeof(NxmSpaceShared) + NXM_PROC_WORDS(nprocs) * sizeof(NxmAtomic) +
		(size_t) nprocs * (sizeof(NxmProcLine) +
						   ((sizeof(NxmProcLocal) + NXM_CACHE_LINE - 1) &
							~(size_t) (NXM_CACHE_LINE - 1)));
}

void
nxm_space_init(NxmSpaceShared *shared, int nprocs, int nnodes, uint64_t limit)
{
	nxm_init(&shared->epoch, 2);
	nxm_init(&shared->account[0].page_limit, limit);
	shared->nprocs = (uint64_t) nprocs;
	shared->nnodes = (uint64_t) nnodes;
}

void
nxm_space_open(NxmSpace *space, NxmSpaceShared *shared)
{
	memset(space, 0, sizeof(NxmSpace));
	space->shared = shared;
	space->lines = (NxmProcLine *) (shared + 1);
	space->attached = (NxmAtomic *) (space->lines + shared->nprocs);
	space->locals = (NxmProcLocal *) (space->attached + NXM_PROC_WORDS(shared->nprocs));
	space->proc = -1;
	space->need_chunk = -1;
	space->alloc_node = -1;
}

void
nxm_give_back(NxmSpace *space)
{
	NxmProcLocal *local = space->local;

	if (space->record != 0)
		nxm_free(space, space->record);
	space->record = 0;
	while (local->nready > 0)
	{
		NxmRef		ref = local->ready[--local->nready];

		/* it has been told to be free already */
		NXM_UNPOISON(nxm_at(space, ref), nxm_ref_size(space, ref));
		nxm_free(space, ref);
	}
	for (int i = 0; i < NXM_CLASSES; i++)
	{
		NxmMagazine *magazine = &local->magazine[i];
		NxmPage    *desc;

		if (magazine->bits == 0)
			continue;
		desc = page_at(space, magazine->page);
		put_bits(space, magazine->page, desc, magazine->word, magazine->bits);
		magazine->bits = 0;
	}
}

uint32_t
nxm_chunk_first_page(uint32_t npages)
{
	return (uint32_t) (((uint64_t) npages * sizeof(NxmPage) + NXM_PAGE_SIZE - 1) /
					   NXM_PAGE_SIZE);
}

int
nxm_chunk_add(NxmSpace *space, char *base, uint32_t npages, int node,
			  uint64_t handle)
{
	NxmSpaceShared *shared = space->shared;
	int			n = (int) nxm_load(&shared->nchunks);
	NxmChunk   *chunk;

	if (n == NXM_MAX_CHUNKS)
		return -1;
	chunk = &shared->chunks[n];
	chunk->node = (uint32_t) node;
	chunk->first_page = nxm_chunk_first_page(npages);
	chunk->handle = handle;
	space->base[n] = base;
	nxm_store_relaxed(&chunk->bump, chunk->first_page);
	nxm_store(&chunk->published, npages);
	/* release: who sees the number sees the chunk */
	nxm_store(&shared->nchunks, (uint64_t) n + 1);
	nxm_store(&shared->nodes[node].chunk, (uint64_t) n + 1);
	return n;
}

bool
nxm_trim(NxmSpace *space)
{
	bool		more = false;

	for (uint64_t n = 0; n < space->shared->nnodes; n++)
	{
		NxmNodeSpace *node = &space->shared->nodes[n];
		bool		refused = false;
		int			tries = 0;

		/* before pages in use come to lie above them */
		for (int i = 0; i < MOST_UNLISTS && unlist_empty(space, node) > 0; i++)
			;
		while (tries < MOST_TRIMMED && !refused)
		{
			bool		unmapped;
			uint32_t	page = pop_free_page(space, &node->kept_pages, &unmapped);
			NxmPage    *desc;

			if (page == UINT32_MAX)
				break;
			tries++;
			desc = page_at(space, page);
			refused = !trim_page(space, node, page, desc);
			/* at once, for somebody may be in want of it */
			if (refused)
				push_page(&node->kept_pages, desc, page);
		}
		more |= tries == MOST_TRIMMED && !refused;
	}
	return more;
}

uint64_t
nxm_sweep(NxmSpace *space)
{
	NxmSpaceShared *shared = space->shared;
	int			nchunks = (int) nxm_load(&shared->nchunks);
	uint64_t	released = 0;

	if (nxm_load_relaxed(&shared->unreleased) == 0 ||
		nxm_exchange(&shared->unreleased, 0) == 0)
		return 0;
	for (int c = 0; c < nchunks; c++)
	{
		NxmChunk   *chunk = &shared->chunks[c];
		uint64_t	bump = nxm_load(&chunk->bump);
		uint64_t	end = bump < nxm_load(&chunk->published) ? bump : nxm_load(&chunk->published);

		if (space->base[c] == NULL)
		{
			nxm_store(&shared->unreleased, 1);
			continue;
		}
		for (uint64_t i = chunk->first_page; i < end; i++)
		{
			uint32_t	page = ((uint32_t) c << NXM_CHUNK_PAGE_SHIFT) + (uint32_t) i;
			NxmPage    *desc = page_at(space, page);
			uint64_t	state = nxm_load(&desc->state);

			if ((state & STATUS_MASK) == STATUS_SLAB &&
				all_are_free(desc, state_class(state)))
				released += release_page(space, page, desc, state);
		}
	}
	return released;
}

int
nxm_page_account(NxmSpace *space, uint32_t page)
{
	uint64_t	state = nxm_load_relaxed(&page_at(space, page)->state);

	return (state & POPULATED) != 0 ? state_account(state) : -1;
}
