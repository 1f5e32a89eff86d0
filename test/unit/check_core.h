/*
 * check_core.h
 *	  A small space for the checker's programs: a few processes, a few pages.
 */
#ifndef NXM_CHECK_CORE_H
#define NXM_CHECK_CORE_H

#include "check.h"
#include "item.h"

#define LENGTH(a) ((int) (sizeof(a) / sizeof((a)[0])))

/*
 * Makes a space of one chunk, with room for npages pages, and attaches the
 * processes 1 to procs.  Process 0 takes the place of process 1, which is not
 * running while it is.
 */
extern void check_core_setup(int procs, int npages);

/* What becomes of taking the memory of a page away; setup resets it. */
typedef enum CheckRefusals
{
	CHECK_NOT_REFUSED,
	CHECK_MAY_BE_REFUSED,
	CHECK_REFUSED
} CheckRefusals;

extern CheckRefusals check_refusals;

/* This process's view. */
extern NxmSpace *check_space(void);
/* Ends the process's attachment, and begins a new one. */
extern void check_reattach(void);

/* The operation is to be repeated, for now the chunk is mapped. */
extern bool check_again(NxmResult result);
/* Only in cases that map on demand: chunks are no longer mapped in 2 and up. */
extern void check_unmap(void);

/* A value of len bytes that says `number` all over; and what it said. */
extern NxmValue check_value(int number, uint32_t len);
extern int	check_number(const char *data, size_t len);

/*
 * Takes all that there is for objects of a size, until check_free_held(), or one.
 * setup forgets them.
 */
extern void check_hold(size_t size);
extern void check_hold_one(size_t size);
extern void check_free_held(void);

/*
 * More is about to be retired than the list of process 1 holds, for process 2 is stopped
 * in a section, and the only memory for a record of it is in a chunk that process 1 has
 * not mapped.  The second maps it then: the operation is to be repeated.  The third, for
 * finish(), sees that all has been freed, whatever chunk it is in.
 */
extern void check_far_record(void);
extern bool check_far_again(NxmResult result);
extern void check_far_free(void);

/* Pages that are counted as having memory. */
extern int	check_pages_counted(void);

/* Pages given back that are still on the stack of their class. */
extern int	check_pages_empty(void);

/* For finish(): pages with free objects can be found. */
extern void check_listed(void);

/*
 * For finish(): all processes leave, and then no more objects may be handed
 * out than these.  Each page is listed where its state says, once, and counted.
 */
extern void check_all_free(int objects_kept);

#endif							/* NXM_CHECK_CORE_H */
