/*
 * space_reclaim.c
 *	  When freed memory may be used again, and the processes that say so.  space.h has
 *	  the design.
 *
 * Orders.  Each fence here is half of a pair with that of nxm_protect(), for items,
 * or of nxm_enter(), for the epoch: what was removed before ours is not found after
 * theirs, or we see what they published before it.
 *
 * When an object is to wait for the epoch and its process's list is full, those in
 * the list go to an orphan record, an object of its own, on a stack that any process
 * takes from when it polls.  Where there is no memory for the record
 * the objects are lost until the server restarts, and counted as leaked.  Nor can a
 * chunk be mapped here, in the middle of an operation: whoever retires many has a
 * record made ahead, see nxm_can_retire().
 *
 * A list that its process left with objects in it may be wanted by several, one of
 * which may be the new process in that place, who then writes to it.  So who
 * wants it copies it first, and then sees by the CAS of `left`, which has a
 * serial, whether it was all the time what it read of.
 */
#include "item.h"
#include "space_internal.h"

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

static NxmProcLocal *
local_of(NxmSpace *space, int proc)
{
	size_t		stride = (sizeof(NxmProcLocal) + NXM_CACHE_LINE - 1) &
		~(size_t) (NXM_CACHE_LINE - 1);

	return (NxmProcLocal *) ((char *) space->locals + (size_t) proc * stride);
}

/*
 * In the limbo, beside the reference: what freeing wants to know of an item, so that
 * it need not read it.
 */
#define LIMBO_CLASS(entry)	((int) ((entry) >> NXM_LIMBO_CLASS_SHIFT) & 0x7F)
#define LIMBO_BIG			(UINT64_C(1) << 62)
/* It is of another account than the ready stack's. */
#define LIMBO_OTHER_ACCOUNT	(UINT64_C(1) << 63)
_Static_assert(NXM_CLASSES <= 0x80, "a class fits");

static inline uint64_t
limbo_entry(const NxmItem *item, NxmRef ref, bool other_account)
{
	uint64_t	header = NXM_GET(item->header);

	return ref |
		(uint64_t) size_class(nxm_item_head_bytes(header)) << NXM_LIMBO_CLASS_SHIFT |
		((header & NXM_ITEM_BIG) != 0 ? LIMBO_BIG : 0) |
		(other_account ? LIMBO_OTHER_ACCOUNT : 0);
}

/* Of an item, whatever this process allocates from.  It is mapped. */
static inline bool
in_other_account(NxmSpace *space, NxmRef ref)
{
	return nxm_page_account(space, nxm_ref_page(ref)) != 0;
}

/* An item that nobody can read: to our ready stack, or free. */
static inline void
free_item(NxmSpace *space, uint64_t entry)
{
	NxmProcLocal *local = space->local;
	NxmRef		ref = entry & NXM_REF_MASK;

	if ((entry & LIMBO_BIG) != 0)
		nxm_item_free_pieces(space, nxm_at(space, ref));
	if ((entry & LIMBO_OTHER_ACCOUNT) == 0 && local->nready < NXM_READY &&
		page_node(space, nxm_ref_page(ref)) == local->node)
	{
		NXM_POISON(nxm_at(space, ref), class_size(LIMBO_CLASS(entry)));
		local->ready[local->nready] = ref;
		local->ready_class[local->nready++] = (uint8_t) LIMBO_CLASS(entry);
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
	NxmProcScan scan = {0, 0};
	int			i;

	if (item != NULL && nxm_item_is_mapped(space, item))
	{
		free_item(space, limbo_entry(item, ref, in_other_account(space, ref)));
		return;
	}
	while ((i = nxm_next_proc(space, &scan)) >= 0)
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
	NxmProcScan scan = {0, 0};
	int			i;

	/* pairs with nxm_protect(): we see the hazard, or they what was changed before */
	nxm_fence();
	while ((i = nxm_next_proc(space, &scan)) >= 0)
	{
		uint64_t	hazard = nxm_load(&space->lines[i].hazard);

		if (hazard != 0 && nxm_ref_page(hazard) == page)
			return true;
	}
	return false;
}

uint64_t
nxm_hazards_on(NxmSpace *space, const NxmRef *refs, int n)
{
	NxmProcScan scan = {0, 0};
	uint64_t	named = 0;
	int			i;

	/* pairs with nxm_protect(): we see the hazard, or they what was changed before */
	nxm_fence();
	while ((i = nxm_next_proc(space, &scan)) >= 0)
	{
		/* acquire: what the reader read is read, if it is withdrawn */
		uint64_t	hazard = nxm_load(&space->lines[i].hazard);

		for (int r = 0; r < n && hazard != 0; r++)
			named |= (uint64_t) (refs[r] == hazard) << r;
	}
	return named;
}

/* The process, if any, whose hazard is the item; -1. */
static int
hazard_on(NxmSpace *space, NxmRef ref)
{
	NxmProcScan scan = {0, 0};
	int			i;

	while ((i = nxm_next_proc(space, &scan)) >= 0)
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
	uint64_t	limbo[NXM_LIMBO];
	uint32_t	nlimbo = local->nlimbo;
	uint64_t	filter[16] = {0};	/* of the hazards: a bit for each value of 10 of theirs */
	NxmProcScan scan = {0, 0};
	int			i;

	memcpy(limbo, local->limbo, sizeof(limbo));
	local->nlimbo = 0;
	local->nbig = 0;

	/* pairs with nxm_protect(): it sees the removal, or we its hazard */
	nxm_fence();
	while ((i = nxm_next_proc(space, &scan)) >= 0)
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
	for (uint32_t l = 0; l < nlimbo; l++)
	{
		NxmRef		hazard = limbo[l] & NXM_REF_MASK;
		int			proc = -1;

		/* the hazards seen above are told apart here: one withdrawn since is
		 * no harm, one published since has looked again and found nothing */
		if ((filter[(hazard >> 6) & 15] & (UINT64_C(1) << (hazard & 63))) != 0)
			proc = hazard_on(space, hazard);
		if (proc >= 0)
			hold_item(space, hazard, proc);
		else
			free_item(space, limbo[l]);
	}
}

static void
retire_entry(NxmSpace *space, uint64_t entry)
{
	NxmProcLocal *local = space->local;

	if (local->nlimbo == NXM_LIMBO)
		nxm_flush(space);
	local->limbo[local->nlimbo++] = entry;
	/* 64 of 1 MB would be too much to wait for: these go at the end of the section */
	if ((entry & LIMBO_BIG) != 0)
		local->nbig++;
	if (local->nlimbo == NXM_LIMBO || local->nbig > 0)
		space->limbo_due = true;
}

void
nxm_retire_slow(NxmSpace *space, NxmRef ref)
{
	retire_entry(space, limbo_entry(nxm_at(space, ref), ref, space->account != 0));
}

/* The i-th of this process's epoch limbo. */
static inline void
set_retired(NxmProcLocal *local, uint32_t i, NxmRef ref, uint64_t epoch)
{
	/* relaxed: `left` publishes them */
	nxm_store_relaxed(&local->retired[i].ref, ref);
	nxm_store_relaxed(&local->retired[i].epoch, epoch);
}

/* Objects in its epoch limbo that a process polls for. */
#define POLLED_FOR (NXM_EPOCH_LIMBO / 16)

/* Of those in it: not the ones that polling does not free, for want of their chunk. */
static inline uint32_t
waiting(const NxmProcLocal *local)
{
	return local->nretired - local->nunmapped;
}

static inline void
see_if_due(NxmSpace *space)
{
	if (waiting(space->local) >= POLLED_FOR)
		space->limbo_due = true;
}

/* With an object that waits for the epoch: its bytes are counted in its account. */
#define RETIRED_COUNTED		(UINT64_C(1) << 63)

/* Its bytes wait, or with sign UINT64_MAX do not any more.  It is mapped. */
static void
count_limbo(NxmSpace *space, NxmRef ref, uint64_t sign)
{
	int			account = nxm_page_account(space, nxm_ref_page(ref));

	/* relaxed: a sum for estimates */
	nxm_fetch_add_relaxed(&space->shared->account[account].limbo,
						  sign * nxm_ref_size(space, ref));
}

/* An object for an orphan record.  0: nxm_no_object() tells why. */
static NxmRef
new_record(NxmSpace *space)
{
	bool		past_limit = space->past_limit;
	NxmRef		ref;

	/* a lowered limit is reached by what is retired here, up to 128 pages */
	space->past_limit = true;
	ref = nxm_alloc(space, sizeof(NxmOrphans));
	space->past_limit = past_limit;
	return ref;
}

bool
nxm_can_retire(NxmSpace *space, uint32_t n)
{
	uint32_t	before = space->local->nretired;

	if ((before < NXM_EPOCH_LIMBO_HIGH && before + n <= NXM_EPOCH_LIMBO) ||
		space->record != 0)
		return true;
	space->record = new_record(space);
	return space->record != 0 || space->need_chunk < 0;
}

NxmResult
nxm_keeps_retired(NxmSpace *space)
{
	if (space->local->nretired - space->local->nunmapped < NXM_EPOCH_LIMBO_HIGH)
		return NXM_OK;
	if (!nxm_can_retire(space, 1))
		return NXM_NEED_CHUNK;
	return space->record == 0 ? NXM_EXISTS : NXM_OK;
}

/* Moves the whole epoch limbo to an orphan record. */
static void
orphan_retired(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	NxmRef		ref = space->record;
	NxmOrphans *orphans;
	uint64_t	top;

	space->record = 0;
	if (ref == 0)
		ref = new_record(space);
	if (ref == 0)
	{
		nxm_fetch_add_relaxed(&space->shared->leaked, local->nretired);
		nxm_fetch_add_relaxed(&space->shared->limbo, -(uint64_t) local->nretired);
		for (uint32_t i = 0; i < local->nretired; i++)
		{
			NxmRef		lost = nxm_load_relaxed(&local->retired[i].ref);

			if ((lost & RETIRED_COUNTED) != 0 && nxm_at(space, lost & NXM_REF_MASK) != NULL)
				count_limbo(space, lost & NXM_REF_MASK, UINT64_MAX);
		}
		local->nretired = local->nunmapped = 0;
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
	local->nretired = local->nunmapped = 0;
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
	/* made in the account that whoever was short of room allocated from */
	if (taken)
		retire_entry(space, limbo_entry((const NxmItem *) orphans, ref,
										in_other_account(space, ref)));
}

/* Takes over what a process left in its epoch limbo. */
static void
adopt_left(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	NxmProcScan scan = {0, 0};
	int			i;

	while ((i = nxm_next_proc(space, &scan)) >= 0)
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
	uint64_t	counted = 0;

	if (space->base[nxm_ref_chunk(ref)] != NULL)
	{
		count_limbo(space, ref, 1);
		counted = RETIRED_COUNTED;
	}
	if (local->nretired == NXM_EPOCH_LIMBO)
		orphan_retired(space);
	/* the removal comes before the epoch is read: pairs with nxm_enter() */
	nxm_fence();
	set_retired(local, local->nretired++, ref | counted, nxm_load(&space->shared->epoch));
	nxm_fetch_add_relaxed(&space->shared->limbo, 1);
	see_if_due(space);
}

void
nxm_epoch_poll(NxmSpace *space)
{
	NxmProcLocal *local = space->local;
	uint64_t	epoch = nxm_load(&space->shared->epoch);
	NxmProcScan scan = {0, 0};
	int			proc;
	uint32_t	kept = 0;
	uint32_t	nunmapped = 0;
	bool		all = true;

	if (local->nretired == 0)
		adopt_orphans(space);
	if (local->nretired == 0)
		adopt_left(space);
	space->polled_epoch = epoch;
	space->polled_waiting = waiting(local);
	/* pairs with nxm_enter(): an epoch published before is seen below */
	nxm_fence();
	while (all && (proc = nxm_next_proc(space, &scan)) >= 0)
	{
		uint64_t	theirs = nxm_load(&space->lines[proc].epoch);

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
		if (retired.epoch + 2 > epoch)
			set_retired(local, kept++, retired.ref, retired.epoch);
		else if (nxm_at(space, retired.ref & NXM_REF_MASK) == NULL)
		{
			set_retired(local, kept++, retired.ref, retired.epoch);
			nunmapped++;
		}
		else
		{
			nxm_fetch_add_relaxed(&space->shared->limbo, (uint64_t) -1);
			if ((retired.ref & RETIRED_COUNTED) != 0)
				count_limbo(space, retired.ref & NXM_REF_MASK, UINT64_MAX);
			nxm_free(space, retired.ref & NXM_REF_MASK);
		}
	}
	local->nretired = kept;
	local->nunmapped = nunmapped;
	see_if_due(space);
}

/* Since the last poll began: was the epoch advanced, or does more wait, or less? */
static inline bool
has_moved(const NxmSpace *space)
{
	return nxm_load(&space->shared->epoch) != space->polled_epoch ||
		waiting(space->local) != space->polled_waiting;
}

void
nxm_leave_slow(NxmSpace *space)
{
	NxmProcLocal *local = space->local;

	space->limbo_due = false;
	if (local->nlimbo == NXM_LIMBO || local->nbig > 0)
		nxm_flush(space);
	/* not at every leaving while a stopped process holds the epoch */
	if (waiting(local) >= POLLED_FOR && ++space->leaves % 4 == 0)
		nxm_epoch_poll(space);
	/* unless it is urgent, and not in vain; alone, three are enough for all */
	for (int i = 0; i < 3 && waiting(local) >= NXM_EPOCH_LIMBO_HIGH && has_moved(space); i++)
		nxm_epoch_poll(space);
	see_if_due(space);
}

void
nxm_proc_attach(NxmSpace *space, int proc, int node, uint64_t owner)
{
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
	space->local->nunmapped = 0;
	see_if_due(space);
	/*
	 * Before the fence that follows our first hazard or epoch: pairs with nxm_next_proc()
	 * after its caller's.  For ever, as `held` and `left` are there when we are not.
	 */
	nxm_fetch_or(&space->attached[proc / 64], UINT64_C(1) << (proc % 64));
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
	/* last: from here on the line may be another process's */
	nxm_store(&space->line->owner, 0);
	space->proc = -1;
	space->line = NULL;
	space->local = NULL;
}
