/*
 * segment.c
 *	  DSM segments, without errors.
 *
 * PostgreSQL raises an error where a segment cannot be made or mapped.  What we do
 * with one works without it, or has to give something back first, so the error is
 * caught here, and what it left behind is released with a resource owner of our own.
 * No transaction is needed, and LWLocks held by the caller stay held.
 */
#include "segment.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* size 0: maps the segment `handle`, else makes one. */
static dsm_segment *
create_or_attach(Size size, dsm_handle handle, char **reason)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ResourceOwner ours = ResourceOwnerCreate(owner, "nexusmem");
	uint32		holdoff = InterruptHoldoffCount;
	dsm_segment *volatile segment = NULL;

	*reason = NULL;
	CurrentResourceOwner = ours;
	PG_TRY();
	{
		segment = size > 0 ? dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS) :
			dsm_attach(handle);
		if (segment != NULL)
		{
			dsm_pin_mapping(segment);
			if (size > 0)
				dsm_pin_segment(segment);
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* the error took them all back; the caller's locks are still held */
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		*reason = pstrdup(error->message);
		FreeErrorData(error);
		segment = NULL;
	}
	PG_END_TRY();

	/*
	 * What a failure left behind; else there is nothing, as the mapping is pinned.  Other
	 * extensions are told of it as of the end of a subtransaction, or of a transaction
	 * where there is none: a worker has no owner that could be the parent of ours.
	 */
	CurrentResourceOwner = ours;
	if (*reason != NULL)
	{
		bool		top_level = owner == NULL;

		ResourceOwnerRelease(ours, RESOURCE_RELEASE_BEFORE_LOCKS, false, top_level);
		ResourceOwnerRelease(ours, RESOURCE_RELEASE_LOCKS, false, top_level);
		ResourceOwnerRelease(ours, RESOURCE_RELEASE_AFTER_LOCKS, false, top_level);
	}
	CurrentResourceOwner = owner;
	ResourceOwnerDelete(ours);
	return segment;
}

dsm_segment *
nxm_segment_create(Size size, char **reason)
{
	return create_or_attach(size, DSM_HANDLE_INVALID, reason);
}

dsm_segment *
nxm_segment_attach(dsm_handle handle, char **reason)
{
	return create_or_attach(0, handle, reason);
}
