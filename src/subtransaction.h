/*
 * subtransaction.h
 *	  What may raise an error that the transaction is to survive.
 */
#ifndef NXM_SUBTRANSACTION_H
#define NXM_SUBTRANSACTION_H

#include "postgres.h"

/*
 * Runs work(arg) in a subtransaction.  NULL: it is done, and the subtransaction
 * released.  Else the error that it raised, in the current memory context: the
 * subtransaction is rolled back, and interrupts are held off as they were.  The caller
 * frees it, or hands it to nxm_rethrow().  In a transaction.
 */
extern ErrorData *nxm_catch(void (*work) (void *arg), void *arg);

/* Raises an error that was caught and that the caller did not expect. */
_Noreturn extern void nxm_rethrow(ErrorData *error);

#endif							/* NXM_SUBTRANSACTION_H */
