/*
 * space.c
 *	  Pages, objects and reclamation.  space.h has the design.
 *
 * Orders.  Stacks of pages: a push releases the page's words, a pop acquires
 * them; `next` of a page that others have popped meanwhile may be any value,
 * and then the tag has changed and the CAS fails.  Bitmaps: setting a bit
 * releases what the freer did with the object, taking it acquires.
 *
 * An object that waits for the epoch and finds its process's list full goes
 * with the others to an orphan record, an object of its own, on a stack that
 * any process takes from when it polls.  Where there is no memory for the record
 * the objects are lost until the server restarts, and counted as leaked.
 *
 * A list that its process left with others in it may be wanted by several, one of
 * which may be the new process in that place, who then writes to it.  So who
 * wants it copies it first, and then sees by the CAS of `left`, which has a
 * serial, whether it was all the time what it read of.
 */
#include "space.h"

#include "item.h"
#include "pause.h"

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

#define PAGE_MASK		UINT64_C(0xFFFFFFFF)
#define TAG_ONE			(UINT64_C(1) << 32)

#define NODE_CHUNK_PAGES(page) ((page) & (NXM_MAX_CHUNK_PAGES - 1))

/* Epoch-retired objects that their process could not keep. */
typedef struct NxmOrphans
{
	uint64_t	header;			/* of an item of this size */
	NxmRef		next;
	uint64_t	count;
	struct
	{
		NxmRef		ref;
		uint64_t	epoch;
	}			retired[NXM_EPOCH_LIMBO];
} NxmOrphans;

/* NxmProcLine.left */
#define LEFT_COUNT UINT64_C(0xFF)
#define LEFT_SERIAL_ONE UINT64_C(0x100)
_Static_assert(NXM_EPOCH_LIMBO <= LEFT_COUNT, "the count of a list fits");

static size_t
class_size(int class)
{
	int			doubling = (class - 29) / 16;

	if (class < 29)
		return NXM_MIN_OBJECT + 8 * (size_t) class;
	return ((size_t) 256 << doubling) +
		(size_t) ((class - 29) % 16 + 1) * ((size_t) 16 << doubling);
}

static int
size_class(size_t size)
{
	int			doubling;

	if (size <= NXM_MIN_OBJECT)
		return 0;
	if (size <= 256)
		return (int) (size - NXM_MIN_OBJECT + 7) / 8;
	/* size - 1 has its first bit at 8 + doubling */
	doubling = 63 - __builtin_clzll(size - 1) - 8;
	return 29 + 16 * doubling +
		(int) ((size - 1 - ((size_t) 256 << doubling)) >> (4 + doubling));
}

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
	return (NxmPage *) space->base[chunk] + NODE_CHUNK_PAGES(page);
}

static inline void *
page_memory(NxmSpace *space, uint32_t page)
{
	return nxm_at(space, (NxmRef) page << NXM_PAGE_SHIFT);
}

static inline uint32_t
page_node(NxmSpace *space, uint32_t page)
{
	return space->shared->chunks[page >> NXM_CHUNK_PAGE_SHIFT].node;
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
count_page(NxmSpace *space, int account, int64_t n)
{
	nxm_fetch_add_relaxed(&space->shared->account[account].pages, (uint64_t) n);
}

/* Counts one more, if the limit lets. */
static bool
count_taken(NxmSpace *space, int account)
{
	NxmAccount *of = &space->shared->account[account];

	if (nxm_fetch_add_relaxed(&of->pages, 1) < nxm_load_relaxed(&of->page_limit))
		return true;
	count_page(space, account, -1);
	return false;
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
		nxm_fetch_add_relaxed(&node->nkept, (uint64_t) -1);
		space->depopulate(space, (int) (page >> NXM_CHUNK_PAGE_SHIFT),
						  page_memory(space, page));
		count_page(space, state_account(state), -1);
		populated = false;
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
			count_page(space, account, -1);
			push_page(&node->free_pages, desc, page);
			space->want = NXM_WANT_SPACE;
			space->need_node = node_no;
			space->need_account = account;
			return UINT32_MAX;
		}
		if (!room)
		{
			push_page(populated ? &node->kept_pages : &node->free_pages, desc, page);
			space->want = NXM_WANT_LIMIT;
			space->need_node = node_no;
			space->need_account = account;
			return UINT32_MAX;
		}
		if (moves)
			count_page(space, state_account(state), -1);
		if (populated)
			nxm_fetch_add_relaxed(&node->nkept, (uint64_t) -1);
	}
	nxm_fetch_add_relaxed(&node->used_pages, 1);
	return page;

need_memory:
	space->want = NXM_WANT_CHUNK;
	space->need_newest = newest;
	space->need_node = node_no;
	space->need_account = account;
	return UINT32_MAX;
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

static void put_bits(NxmSpace *space, uint32_t page, NxmPage *desc,
					 uint32_t word, uint64_t bits);

/*
 * All objects of the page were free a moment ago, when it had this state: gives
 * its memory back if they still are.
 */
static void
release_page(NxmSpace *space, uint32_t page, NxmPage *desc, uint64_t state)
{
	int			class = state_class(state);
	NxmNodeSpace *node = &space->shared->nodes[page_node(space, page)];
	NxmAtomic  *stack = &node->slabs[state_account(state)][class];
	uint64_t	taken[NXM_PAGE_WORDS];
	uint32_t	n;
	uint64_t	top;
	bool		first;
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

	top = nxm_load(stack);
	first = (top & PAGE_MASK) == page + UINT64_C(1);
	if (!first || (now & LISTED) == 0)
	{
		space->depopulate(space, (int) (page >> NXM_CHUNK_PAGE_SHIFT),
						  page_memory(space, page));
		count_page(space, state_account(state), -1);
		first = false;
	}
	nxm_fetch_add_relaxed(&node->used_pages, (uint64_t) -1);
	for (;;)
	{
		uint64_t	empty = (now & ~(STATUS_MASK | POPULATED)) | STATUS_EMPTY |
			(first ? POPULATED : 0);

		/* only LISTED can change meanwhile */
		if (nxm_cas(&desc->state, &now, empty))
		{
			if ((empty & LISTED) == 0)
				free_page(space, page, desc, empty);
			else if (first)
				unlist_top(space, stack, top, page, desc);
			return;
		}
	}

put_back:
	for (uint32_t w = 0; w < n; w++)
	{
		if (taken[w] != 0)
			put_bits(space, page, desc, w, taken[w]);
	}
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
		bool		all = true;

		for (uint32_t w = 0; all && w < words_of(class); w++)
			all = nxm_load_relaxed(&desc->free[w]) == full_word(class, w);
		if (all)
		{
			release_page(space, page, desc, state);
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

	for (;;)
	{
		uint64_t	top = nxm_load(stack);
		uint32_t	page = (uint32_t) (top & PAGE_MASK) - 1;
		NxmPage    *desc;
		uint64_t	state;
		bool		found = false;

		if ((top & PAGE_MASK) == 0)
		{
			page = take_page(space, node_no, account);
			if (page == UINT32_MAX)
				return 0;
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

		desc = page_at(space, page);
		if (desc == NULL)
			return 0;
		state = nxm_load(&desc->state);
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
			unlist_top(space, stack, top, page, desc);
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
nxm_alloc(NxmSpace *space, size_t size)
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

	if (desc == NULL)
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

/* In the limbo: the item is of another account than the ready stack's. */
#define OTHER_ACCOUNT (UINT64_C(1) << 63)

/* An item that nobody can read: to our ready stack, or free. */
static void
free_item(NxmSpace *space, NxmRef ref, bool other_account)
{
	NxmProcLocal *local = space->local;
	const NxmItem *item = nxm_at(space, ref);
	uint64_t	header;

	if (item == NULL)
	{
		nxm_fetch_add_relaxed(&space->shared->leaked, 1);
		return;
	}
	if (other_account)
	{
		nxm_item_free(space, ref);
		return;
	}
	header = NXM_GET(item->header);
	if ((header & NXM_ITEM_BIG) != 0)
		nxm_item_free_pieces(space, item);
	if (local->nready < NXM_READY &&
		page_node(space, nxm_ref_page(ref)) == local->node)
	{
		int			class = size_class(nxm_item_head_bytes(header));

		NXM_POISON(item, class_size(class));
		local->ready[local->nready] = ref;
		local->ready_class[local->nready++] = (uint8_t) class;
	}
	else
		nxm_free(space, ref);
}

/*
 * Frees an item that was held.  One that this process has not mapped, or not all
 * pieces of, is left to another: it is noted wherever there is no note.
 */
static void
free_held(NxmSpace *space, NxmRef ref)
{
	const NxmItem *item = nxm_at(space, ref);
	int			n = (int) nxm_load(&space->shared->procs_used);

	if (item != NULL && nxm_item_is_mapped(space, item))
	{
		free_item(space, ref, state_account(nxm_load_relaxed(
			&page_at(space, nxm_ref_page(ref))->state)) != 0);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		uint64_t	none = 0;

		if (nxm_cas(&space->lines[i].held, &none, ref))
			return;
	}
	nxm_fetch_add_relaxed(&space->shared->leaked, 1);
}

bool
nxm_page_is_read(NxmSpace *space, uint32_t page)
{
	int			n;

	/* pairs with nxm_protect(): we see the hazard, or they what was changed before */
	nxm_fence();
	n = (int) nxm_load(&space->shared->procs_used);
	for (int i = 0; i < n; i++)
	{
		uint64_t	hazard = nxm_load(&space->lines[i].hazard);

		if (hazard != 0 && nxm_ref_page(hazard) == page)
			return true;
	}
	return false;
}

/* The process, if any, whose hazard is the item; -1. */
static int
hazard_on(NxmSpace *space, NxmRef ref)
{
	int			n = (int) nxm_load(&space->shared->procs_used);

	for (int i = 0; i < n; i++)
	{
		/* acquire: what the reader read is read, if it is withdrawn */
		if (nxm_load(&space->lines[i].hazard) == ref)
			return i;
	}
	return -1;
}

/*
 * Notes an item with a process whose hazard it is, and then what that displaces
 * with another, until something is displaced that is nobody's hazard: that is
 * freed.
 */
static void
hold_item(NxmSpace *space, NxmRef ref, int proc)
{
	for (;;)
	{
		/*
		 * Release: whoever takes the note may free the item.  Acquire: the fence
		 * of who retired what was noted here comes before our look at hazards.
		 */
		NxmRef		before = nxm_exchange(&space->lines[proc].held, ref);

		if (before == 0)
			return;
		ref = before;
		proc = hazard_on(space, ref);
		if (proc < 0)
			break;
	}
	free_held(space, ref);
}

void
nxm_flush(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	NxmRef		limbo[NXM_LIMBO];
	uint32_t	nlimbo = local->nlimbo;
	uint64_t	filter[16] = {0};
	int			nprocs;

	memcpy(limbo, local->limbo, sizeof(limbo));
	local->nlimbo = 0;
	local->nbig = 0;

	/* pairs with nxm_protect(): it sees the removal, or we its hazard */
	nxm_fence();
	nprocs = (int) nxm_load(&space->shared->procs_used);
	for (int i = 0; i < nprocs; i++)
	{
		uint64_t	hazard = nxm_load(&space->lines[i].hazard);
		uint64_t	held = nxm_load_relaxed(&space->lines[i].held);

		if (hazard != 0)
			filter[(hazard >> 6) & 15] |= UINT64_C(1) << (hazard & 63);
		/* most often that of a process that went on */
		if (held != 0 && held != hazard &&
			nxm_cas(&space->lines[i].held, &held, 0))
		{
			/* the fence of who retired it came before the note */
			int			proc = hazard_on(space, held);

			if (proc >= 0)
				hold_item(space, held, proc);
			else
				free_held(space, held);
		}
	}
	for (uint32_t i = 0; i < nlimbo; i++)
	{
		NxmRef		hazard = limbo[i] & ~OTHER_ACCOUNT;
		int			proc = -1;

		/* the hazards seen above are told apart here: one withdrawn since is
		 * no harm, one published since has looked again and found nothing */
		if ((filter[(hazard >> 6) & 15] & (UINT64_C(1) << (hazard & 63))) != 0)
			proc = hazard_on(space, hazard);
		if (proc >= 0)
			hold_item(space, hazard, proc);
		else
			free_item(space, hazard, hazard != limbo[i]);
	}
}

void
nxm_retire(NxmSpace *space, NxmRef ref)
{
	if (space->local->nlimbo == NXM_LIMBO)
		nxm_flush(space);
	/* 64 of 1 MB would be too much to wait for: these go at the end of the section */
	if ((NXM_GET(((const NxmItem *) nxm_at(space, ref))->header) & NXM_ITEM_BIG) != 0)
		space->local->nbig++;
	space->local->limbo[space->local->nlimbo++] =
		space->account == 0 ? ref : ref | OTHER_ACCOUNT;
}

static NxmProcLocal *
local_of(NxmSpace *space, int proc)
{
	size_t		stride = (sizeof(NxmProcLocal) + NXM_CACHE_LINE - 1) &
		~(size_t) (NXM_CACHE_LINE - 1);

	return (NxmProcLocal *) ((char *) space->locals + (size_t) proc * stride);
}

/* The i-th of this process's epoch limbo. */
static inline void
set_retired(NxmProcLocal *local, uint32_t i, NxmRef ref, uint64_t epoch)
{
	/* relaxed: `left` publishes them */
	nxm_store_relaxed(&local->retired[i].ref, ref);
	nxm_store_relaxed(&local->retired[i].epoch, epoch);
}

/* Moves the whole epoch limbo to an orphan record. */
static void
orphan_retired(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	NxmRef		ref = nxm_alloc(space, sizeof(NxmOrphans));
	NxmOrphans *orphans;
	uint64_t	top;

	if (ref == 0)
	{
		nxm_fetch_add_relaxed(&space->shared->leaked, local->nretired);
		local->nretired = 0;
		return;
	}
	orphans = nxm_at(space, ref);
	NXM_WRITES(orphans, sizeof(NxmOrphans));
	/* as of an item of that size */
	orphans->header = (uint64_t) (sizeof(NxmOrphans) - sizeof(NxmItem)) << 11;
	orphans->count = local->nretired;
	for (uint32_t i = 0; i < local->nretired; i++)
	{
		orphans->retired[i].ref = nxm_load_relaxed(&local->retired[i].ref);
		orphans->retired[i].epoch = nxm_load_relaxed(&local->retired[i].epoch);
	}
	local->nretired = 0;
	top = nxm_load_relaxed(&space->shared->orphans);
	do
		NXM_SET(orphans->next, top & NXM_REF_MASK);
	while (!nxm_cas(&space->shared->orphans, &top,
					((top & ~NXM_REF_MASK) + (UINT64_C(1) << NXM_REF_BITS)) | ref));
}

/*
 * Takes one orphan record's objects.  A record is popped and retired as an item
 * is, for others may be reading it.  Not in a section: the hazard is free.
 */
static void
adopt_orphans(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	uint64_t	top = nxm_load(&space->shared->orphans);
	NxmRef		ref = top & NXM_REF_MASK;
	NxmOrphans *orphans;
	bool		taken = false;

	if (ref == 0)
		return;
	orphans = nxm_at(space, ref);
	if (orphans == NULL)
		return;
	nxm_protect(space, ref);
	if (nxm_load(&space->shared->orphans) == top)
		taken = nxm_cas(&space->shared->orphans, &top,
						((top & ~NXM_REF_MASK) +
						 (UINT64_C(1) << NXM_REF_BITS)) |
						NXM_GET(orphans->next));
	if (taken)
	{
		NXM_READS(orphans, sizeof(NxmOrphans));
		local->nretired = (uint32_t) orphans->count;
		for (uint32_t i = 0; i < local->nretired; i++)
			set_retired(local, i, orphans->retired[i].ref,
						orphans->retired[i].epoch);
	}
	/* release: it has been read */
	nxm_store(&space->line->hazard, 0);
	if (taken)
		nxm_retire(space, ref);
}

/* Takes over what a process left in its epoch limbo. */
static void
adopt_left(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	int			n = (int) nxm_load(&space->shared->procs_used);

	for (int i = 0; i < n; i++)
	{
		NxmAtomic  *word = &space->lines[i].left;
		uint64_t	left = nxm_load(word);
		NxmProcLocal *theirs = local_of(space, i);

		if ((left & LEFT_COUNT) == 0)
			continue;
		for (uint32_t j = 0; j < (left & LEFT_COUNT); j++)
			set_retired(local, j, nxm_load_relaxed(&theirs->retired[j].ref),
						nxm_load_relaxed(&theirs->retired[j].epoch));
		/* release: they were read before, so all of them were what was left */
		if (nxm_cas(word, &left, left & ~LEFT_COUNT))
		{
			local->nretired = (uint32_t) (left & LEFT_COUNT);
			return;
		}
	}
}

void
nxm_retire_epoch(NxmSpace *space, NxmRef ref)
{
	NxmProcLocal *local = space->local;

	if (local->nretired == NXM_EPOCH_LIMBO)
		orphan_retired(space);
	/* the removal comes before the epoch is read: pairs with nxm_enter() */
	nxm_fence();
	set_retired(local, local->nretired++, ref, nxm_load(&space->shared->epoch));
	nxm_fetch_add_relaxed(&space->shared->limbo, 1);
}

void
nxm_epoch_poll(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	uint64_t	epoch = nxm_load(&space->shared->epoch);
	int			nprocs;
	uint32_t	kept = 0;
	bool		all = true;

	if (local->nretired == 0)
		adopt_orphans(space);
	if (local->nretired == 0)
		adopt_left(space);
	/* pairs with nxm_enter(): an epoch published before is seen below */
	nxm_fence();
	nprocs = (int) nxm_load(&space->shared->procs_used);
	for (int i = 0; all && i < nprocs; i++)
	{
		uint64_t	theirs = nxm_load(&space->lines[i].epoch);

		all = theirs == 0 || theirs == epoch;
	}
	if (all && nxm_cas(&space->shared->epoch, &epoch, epoch + 1))
		epoch++;

	for (uint32_t i = 0; i < local->nretired; i++)
	{
		struct
		{
			NxmRef		ref;
			uint64_t	epoch;
		}			retired;

		retired.ref = nxm_load_relaxed(&local->retired[i].ref);
		retired.epoch = nxm_load_relaxed(&local->retired[i].epoch);
		if (retired.epoch + 2 > epoch || nxm_at(space, retired.ref) == NULL)
			set_retired(local, kept++, retired.ref, retired.epoch);
		else
		{
			nxm_fetch_add_relaxed(&space->shared->limbo, (uint64_t) -1);
			nxm_free(space, retired.ref);
		}
	}
	local->nretired = kept;
}

void
nxm_leave_slow(NxmSpace *space)
{
	NxmProcLocal *local = space->local;

	if (local->nlimbo == NXM_LIMBO || local->nbig > 0)
		nxm_flush(space);
	/* not at every leaving while a stopped process holds the epoch */
	if (local->nretired >= NXM_EPOCH_LIMBO / 16 && local->nretired % 4 == 0)
		nxm_epoch_poll(space);
}

size_t
nxm_space_size(int nprocs)
{
	return sizeof(NxmSpaceShared) +
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
	space->locals = (NxmProcLocal *) (space->lines + shared->nprocs);
	space->proc = -1;
	space->need_chunk = -1;
	space->alloc_node = -1;
}

void
nxm_proc_attach(NxmSpace *space, int proc, int node, uint64_t owner)
{
	uint64_t	used = nxm_load_relaxed(&space->shared->procs_used);

	space->proc = proc;
	space->line = &space->lines[proc];
	space->local = local_of(space, proc);
	nxm_store(&space->line->owner, owner);
	nxm_store(&space->line->hazard, 0);
	nxm_store(&space->line->epoch, 0);
	space->local->nlimbo = 0;
	space->local->nready = 0;
	space->local->node = (uint32_t) node;
	memset(space->local->magazine, 0, sizeof(space->local->magazine));
	/* what the one before left is ours now, unless it was taken already */
	space->local->nretired = (uint32_t)
		(nxm_fetch_and(&space->line->left, ~LEFT_COUNT) & LEFT_COUNT);
	/* before our first hazard or epoch: pairs with the loads of procs_used */
	while (used < (uint64_t) proc + 1 &&
		   !nxm_cas(&space->shared->procs_used, &used, (uint64_t) proc + 1))
		;
}

void
nxm_give_back(NxmSpace *space)
{
	NxmProcLocal *local = space->local;

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

void
nxm_proc_detach(NxmSpace *space)
{
	NxmProcLocal *local = space->local;

	nxm_store(&space->line->hazard, 0);
	nxm_store(&space->line->epoch, 0);
	nxm_flush(space);
	/* alone, three are enough for all */
	for (int i = 0; i < 3 && local->nretired > 0; i++)
		nxm_epoch_poll(space);
	/* release: publishes the list */
	if (local->nretired > 0)
		nxm_store(&space->line->left,
				  ((nxm_load_relaxed(&space->line->left) & ~LEFT_COUNT) +
				   LEFT_SERIAL_ONE) | local->nretired);
	nxm_give_back(space);
	/* the last note of ours, should it be of a page held for another */
	nxm_store(&space->line->owner, 0);
	space->proc = -1;
	space->line = NULL;
	space->local = NULL;
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

void
nxm_trim(NxmSpace *space)
{
	for (uint64_t n = 0; n < space->shared->nnodes; n++)
	{
		NxmNodeSpace *node = &space->shared->nodes[n];

		/* bounded, for others may be freeing */
		for (int i = 0; i < NXM_KEPT_PAGES * 2; i++)
		{
			bool		unmapped;
			uint32_t	page = pop_free_page(space, &node->kept_pages, &unmapped);
			NxmPage    *desc;

			if (page == UINT32_MAX)
				break;
			desc = page_at(space, page);
			nxm_fetch_add_relaxed(&node->nkept, (uint64_t) -1);
			space->depopulate(space, (int) (page >> NXM_CHUNK_PAGE_SHIFT),
							  page_memory(space, page));
			count_page(space, state_account(nxm_load_relaxed(&desc->state)), -1);
			nxm_fetch_and(&desc->state, ~POPULATED);
			push_page(&node->free_pages, desc, page);
		}
	}
}

int
nxm_page_account(NxmSpace *space, uint32_t page)
{
	uint64_t	state = nxm_load_relaxed(&page_at(space, page)->state);

	return (state & POPULATED) != 0 ? state_account(state) : -1;
}
