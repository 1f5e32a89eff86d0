/*
 * pause.h
 *	  Named places in the middle of operations, at which a test can stop a process.
 *
 * Nothing in a normal build.  In one with NXM_PAUSE_POINTS a process that comes
 * to the place whose name is in nxm_pause_at, a private variable of the process,
 * stops as if by SIGSTOP, once; the model checker may go on with another process
 * there.  Where a place is NXM_LACKS() it does not stop but acts as if it lacked what is
 * asked for there, once.  With a * after the name it does so each time.
 * test/modules/nxm_torture sets the variable; test/t/120_structures_death.pl and
 * test/numa/run.sh make the build.
 */
#ifndef NXM_PAUSE_H
#define NXM_PAUSE_H

#ifdef NXM_PAUSE_POINTS

#include <signal.h>
#include <stdbool.h>
#include <string.h>

/* Weak, so that each file that has a place may define it: they share one. */
__attribute__((weak, visibility("default"))) char nxm_pause_at[32];

static inline bool
nxm_is_place(const char *name)
{
	size_t		len = strlen(name);

	if (strncmp(nxm_pause_at, name, len) != 0)
		return false;
	if (nxm_pause_at[len] == '*')
		return true;
	if (nxm_pause_at[len] != '\0')
		return false;
	nxm_pause_at[0] = '\0';
	return true;
}

#define NXM_PAUSE(name) ((void) (nxm_is_place(name) && raise(SIGSTOP)))
#define NXM_LACKS(name) nxm_is_place(name)

#elif defined(NXM_CHECKED)
#include "core_atomic.h"
#define NXM_PAUSE(name) check_pause(__func__)
#define NXM_LACKS(name) 0

#else
#define NXM_PAUSE(name) ((void) 0)
#define NXM_LACKS(name) 0
#endif

#endif							/* NXM_PAUSE_H */
