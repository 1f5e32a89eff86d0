/*
 * subtransaction.c
 *	  What may raise an error that the transaction is to survive.
 *
 * PL/pgSQL's way of catching errors, without its block.
 */
#include "subtransaction.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

ErrorData *
nxm_catch(void (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	uint32		holdoff = InterruptHoldoffCount;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

void
nxm_rethrow(ErrorData *error)
{
	/* as it was raised: nobody else lets interrupts in again */
	InterruptHoldoffCount = 0;
	ReThrowError(error);
	pg_unreachable();
}
