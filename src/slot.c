/*
 * slot.c
 *	  The array of per-process slots.
 *
 * A slot belongs to a PGPROC number, and so to one process after another.  All
 * that is in it carries the pid it is about; a word with another pid is void.
 * Nothing needs cleaning when a process dies without notice, and a crash
 * resets the array with the rest of shared memory.
 */
#include "slot.h"

#include "compat.h"

/* Slots do not share cache lines: a home is read at every statement. */
typedef union PaddedSlot
{
	NxmSlot		slot;
	char		pad[PG_CACHE_LINE_SIZE];
} PaddedSlot;

StaticAssertDecl(sizeof(PaddedSlot) == PG_CACHE_LINE_SIZE, "slots share no line");

static PaddedSlot *slots = NULL;

int
nxm_slot_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

Size
nxm_slots_size(void)
{
	return add_size(mul_size(sizeof(PaddedSlot), nxm_slot_count()),
					PG_CACHE_LINE_SIZE);
}

void
nxm_slots_shmem_init(void *ptr, bool found)
{
	slots = (PaddedSlot *) TYPEALIGN(PG_CACHE_LINE_SIZE, ptr);
	if (found)
		return;
	for (int i = 0; i < nxm_slot_count(); i++)
	{
		NxmSlot    *slot = nxm_slot(i);

		pg_atomic_init_u64(&slot->home, 0);
		pg_atomic_init_u32(&slot->self_placed, 0);
	}
}

NxmSlot *
nxm_slot(int i)
{
	return &slots[i].slot;
}

NxmSlot *
nxm_slot_mine(void)
{
	int			i = nxm_my_procno();

	if (slots == NULL || MyProc == NULL || i < 0 || i >= nxm_slot_count())
		return NULL;
	return nxm_slot(i);
}
