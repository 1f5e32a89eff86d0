/*
 * shmem.c
 *	  Reserves and initializes the modules' shared memory from one table.
 *
 * Only a preloaded library can reserve main shared memory.  Loaded later,
 * nxm_shmem_available() is false and each feature says what it does without.
 */
#include "shmem.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

static const NxmShmemModule *shmem_modules;
static int	n_shmem_modules;
static void (*shmem_after_startup) (void);
static bool shmem_ready = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < n_shmem_modules; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(shmem_modules[i].size()));
		if (shmem_modules[i].extra)
			RequestAddinShmemSpace(shmem_modules[i].extra());
	}
}

static void
startup_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < n_shmem_modules; i++)
	{
		bool		found;
		void	   *ptr = ShmemInitStruct(shmem_modules[i].name,
										  shmem_modules[i].size(), &found);

		shmem_modules[i].init(ptr, found);
	}
	LWLockRelease(AddinShmemInitLock);
	shmem_ready = true;

	if (shmem_after_startup && !IsUnderPostmaster)
		shmem_after_startup();
}

bool
nxm_shmem_available(void)
{
	return shmem_ready;
}

void
nxm_shmem_require(const char *what)
{
	if (!shmem_ready)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs nexusmem's shared memory, which this server does not have", what),
				 errhint("Add nexusmem to shared_preload_libraries and restart the server.")));
}

void
nxm_shmem_init(const NxmShmemModule *modules, int nmodules,
			   void (*after_startup) (void))
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	shmem_modules = modules;
	n_shmem_modules = nmodules;
	shmem_after_startup = after_startup;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

/* Operations are within others where a view of the caches is made in one. */
static sigset_t signals_before;
static int	signals_held = 0;

void
nxm_hold_signals(void)
{
	sigset_t	term;

	if (signals_held++ > 0)
		return;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &signals_before);
}

void
nxm_let_signals(void)
{
	if (--signals_held == 0)
		sigprocmask(SIG_SETMASK, &signals_before, NULL);
}
