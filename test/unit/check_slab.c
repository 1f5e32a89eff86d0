/*
 * check_slab.c
 *	  Pages whose bitmaps have two words, under the checker: those of check_space.c have
 *	  one, so that its schedules are few.
 */
#include "check_core.h"

#define OBJECT NXM_MIN_OBJECT
#define OBJECTS (NXM_PAGE_SIZE / OBJECT)

_Static_assert(NXM_PAGE_WORDS == 2, "pages of two words");

/* Of each word one. */
static NxmRef last[2];

/* One page, of which all is free but an object of each word. */
static void
setup(void)
{
	NxmSpace   *space;
	NxmRef		ref[OBJECTS];

	check_core_setup(2, 1);
	space = check_space();
	for (int i = 0; i < OBJECTS; i++)
	{
		ref[i] = nxm_alloc(space, OBJECT);
		check_assert(ref[i] != 0);
	}
	check_assert(nxm_alloc(space, OBJECT) == 0);
	last[0] = last[1] = 0;
	for (int i = 0; i < OBJECTS; i++)
	{
		NxmRef		number = (ref[i] & ((1 << NXM_PAGE_SHIFT) - 1)) * 8 / OBJECT;
		NxmRef	   *keep = &last[number / 64];

		if (*keep == 0)
			*keep = ref[i];
		else
			nxm_free(space, ref[i]);
	}
	nxm_give_back(space);
}

static void
free_last(int proc)
{
	nxm_free(check_space(), last[proc - 1]);
	nxm_give_back(check_space());
}

/* Whoever came last gave its memory back. */
static void
finish(void)
{
	check_assert(nxm_load(&check_space()->shared->nodes[0].used_pages) == 0);
	check_all_free(0);
}

static const CheckCase cases[] = {
	{"the last objects of two words", 2, setup, free_last, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"the last objects of two words, all schedules", 2, setup, free_last, finish, CHECK_EXHAUSTIVE, 0, 2, 2, NULL, NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_slab", cases, LENGTH(cases));
}
