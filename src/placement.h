/*
 * placement.h
 *	  Where shared_buffers lies.
 */
#ifndef NXM_PLACEMENT_H
#define NXM_PLACEMENT_H

#include "postgres.h"

typedef enum NxmBuffersPlacement
{
	NXM_PLACE_DEFAULT,			/* leave it to the kernel */
	NXM_PLACE_INTERLEAVE,		/* by OS page */
	NXM_PLACE_PARTITION			/* stripes of whole buffers */
} NxmBuffersPlacement;

/* What became of it; written once, at startup, inherited by fork. */
typedef struct NxmPlacementResult
{
	NxmBuffersPlacement wanted;
	bool		done;			/* the policy is in force */
	size_t		page_size;		/* of shared memory; 0: not preloaded */
	size_t		unit;			/* what is placed as one: page_size, or that of
								 * the huge pages that the kernel may make */
	int			nodes;			/* memories that the buffers are spread over */
	int			stripes;		/* partition only */
	int			stripe_buffers;
	bool		with_descriptors;	/* a buffer and its descriptor share a node */
	int			refused;		/* errno of the call that failed, 0: none */
	int			child_signal;	/* that ended a helper process, 0: none */
	int			move_refused;	/* errno where the descriptors could not be moved
								 * (all of them), 0: they were, or need not be */
	int			ask_refused;	/* errno where the kernel would not tell where
								 * pages lie, 0: it did */
	int			sampled;		/* pages, of buffers and of the descriptors
								 * placed, that the kernel was asked about */
	int			verified;		/* of these, pages where they should be */
	int			memories_seen;	/* different memories that those lie on */
} NxmPlacementResult;

/* Defines nexusmem.shared_buffers_placement (only while preloading). */
extern void nxm_placement_init(void);
/* Places the buffers; in the postmaster, with shared memory just made. */
extern void nxm_placement_apply(void);
extern const NxmPlacementResult *nxm_placement_result(void);

#endif							/* NXM_PLACEMENT_H */
