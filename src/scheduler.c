/*
 * scheduler.c
 *	  Gives each server process a home node, and keeps it there.
 *
 * A client backend is placed twice.  At authentication, provisionally, so that
 * the caches it is about to build lie near; the database's OID and ALTER
 * ROLE/DATABASE settings are unknown there.  At its first statement for good.
 * Parallel query workers are placed in ExecutorStart, on their leader's node
 * unless it has as many processes as CPUs.  Other background processes run no
 * hook of ours, and neither do walsenders once they send: our worker sets their
 * affinity from outside, and nobody can set their memory policy.
 *
 * The truth about a process is the home word of its slot.  Whoever wants it
 * elsewhere (the process, our worker, pin_backend() in another session)
 * exchanges the word and sets the affinity by pid.  The process compares the
 * word with the one it last acted on at every statement, and then sets its
 * affinity again and its memory policy, which only it can set.  Somebody else
 * looks at the word again after setting the affinity, and follows it if it has
 * changed.  So whatever order two such changes come in, the last word wins.
 *
 * Load is a counter a node.  It moves with the home word: whoever's
 * compare-and-exchange succeeded counts the new node and uncounts the old one.
 * A choice of the least loaded node is a compare-and-exchange on the counter
 * it was made by, so that a burst of connections spreads evenly.  Background
 * processes have counters of their own: a mostly idle checkpointer is not a
 * backend's worth of load.
 *
 * The memory policy is MPOL_PREFERRED, which falls back when the node is full.
 * A node of several memories (nexusmem.num_nodes below what was found) keeps
 * the kernel's local allocation, which on pinned CPUs is one of them.
 *
 * A pin does not last by itself: before Linux 6.2 each write to the cpuset, and a
 * CPU of it that comes or goes, sets the affinity of all that are in it; and any
 * kernel gives a process up whose CPUs have all gone.  So our worker looks at a
 * share of the processes in each pass, and pins those again that it finds on
 * other CPUs than their node's; under a new word, since one that could not be pinned
 * has set no memory policy.
 *
 * What is given back on unpinning: the memory policy that the process had, and
 * the affinity that the postmaster has, for that is what it was started with.
 *
 * Memory order: home words and counters are changed by full-barrier
 * compare-and-exchange or fetch-and-add; reads need no order, for they decide
 * nothing that a later compare-and-exchange does not check.
 *
 * Limits: a pid can be reused between the check and sched_setaffinity(); the
 * kernel allows the call only for processes of our own user, and pids recycle
 * far slower.  NXM_DATABASES databases are told apart under the policy
 * "database", more share by their OID.
 */
#include "scheduler.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>

#include "access/parallel.h"
#include "compat.h"
#include "nodes.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "utils/guc.h"

#define NXM_DATABASES 1024

/* passes of our worker in which it looks at the pin of each process once */
#define RENEWAL_PASSES 8

typedef enum Policy
{
	POLICY_LEAST_LOADED,
	POLICY_ROUND_ROBIN,
	POLICY_DATABASE
} Policy;

typedef struct NodeLoad
{
	pg_atomic_uint32 backends;
	pg_atomic_uint32 background;

	/* errno of the last call for this node, 0 where it succeeded: for status */
	pg_atomic_uint32 affinity_errno;
	pg_atomic_uint32 policy_errno;
	char		pad[PG_CACHE_LINE_SIZE - 4 * sizeof(pg_atomic_uint32)];
} NodeLoad;

typedef struct SchedulerShared
{
	pg_atomic_uint32 round_robin;	/* next node to try */
	pg_atomic_uint32 told;		/* NxmSysCall bits of failures in the log */

	/* database OID << 32 | node + 1; an entry is set once, by CAS from 0 */
	pg_atomic_uint64 database[NXM_DATABASES];
	NodeLoad	load[NXM_MAX_NODES];
} SchedulerShared;

bool		nxm_enable_numa_optimizations = false;
static int	scheduling_policy = POLICY_LEAST_LOADED;
int			nxm_preferred_node = -1;

static const struct config_enum_entry policy_options[] = {
	{"least_loaded", POLICY_LEAST_LOADED, false},
	{"round_robin", POLICY_ROUND_ROBIN, false},
	{"database", POLICY_DATABASE, false},
	{NULL, 0, false}
};

static SchedulerShared *shared = NULL;
static NxmClientAuthenticationHook prev_client_authentication = NULL;

/* The calling process. */
static NxmSlot *my_slot = NULL;
static bool settings_changed = true;	/* since the last look at them */
static NxmHome seen_home = 0;	/* word last acted on */
static int	applied_node = -1;	/* node whose CPUs and memory are in force */
static bool pin_failed = false; /* they are not, the CPUs were refused */
static bool policy_saved = false;
static NxmMemPolicy saved_policy;

static NxmHome
make_home(int pid, uint16 serial, int node, NxmHomeReason reason)
{
	return ((NxmHome) (uint32) pid << 32) | ((NxmHome) serial << 16) |
		((NxmHome) (node + 1) << 8) | (NxmHome) reason;
}

static pg_atomic_uint32 *
load_of(int node, NxmHomeReason reason)
{
	NodeLoad   *load = &shared->load[node];

	return reason == NXM_HOME_AFFINITY ? &load->background : &load->backends;
}

static bool
takes_backends(int node)
{
	const NxmTopology *topo = nxm_topology();

	return node >= 0 && node < topo->nnodes && topo->node[node].cpu_count > 0;
}

/*
 * Counts one more process on the node that has the fewest for its CPUs, and
 * returns it.  except (or -1) is taken only if there is no other.
 */
static int
reserve_least_loaded(NxmHomeReason reason, int except)
{
	const NxmTopology *topo = nxm_topology();

	for (;;)
	{
		int			best = -1;
		uint32		best_load = 0;

		for (int i = 0; i < topo->nnodes; i++)
		{
			uint32		load;

			if (!takes_backends(i) || i == except)
				continue;
			load = pg_atomic_read_u32(load_of(i, reason));
			/* (load + 1) / cpus, multiplied out */
			if (best < 0 ||
				(uint64) (load + 1) * topo->node[best].cpu_count <
				(uint64) (best_load + 1) * topo->node[i].cpu_count)
			{
				best = i;
				best_load = load;
			}
		}
		if (best < 0)
		{
			if (except < 0)
				return -1;
			pg_atomic_fetch_add_u32(load_of(except, reason), 1);
			return except;
		}
		if (pg_atomic_compare_exchange_u32(load_of(best, reason), &best_load,
										   best_load + 1))
			return best;
	}
}

static int
reserve(int node, NxmHomeReason reason)
{
	pg_atomic_fetch_add_u32(load_of(node, reason), 1);
	return node;
}

static int
reserve_round_robin(NxmHomeReason reason)
{
	const NxmTopology *topo = nxm_topology();

	for (int tries = 0; tries < topo->nnodes; tries++)
	{
		int			node = pg_atomic_fetch_add_u32(&shared->round_robin, 1) %
			topo->nnodes;

		if (takes_backends(node))
			return reserve(node, reason);
	}
	return -1;
}

/*
 * The node of a database: the one that the fewest databases share, kept from
 * the first time that it is asked for until the server restarts.
 */
static int
node_of_database(Oid database)
{
	const NxmTopology *topo = nxm_topology();
	int			databases[NXM_MAX_NODES] = {0};
	int			best = -1;
	int			nth;

	for (int i = 0; i < NXM_DATABASES; i++)
	{
		uint64		entry = pg_atomic_read_u64(&shared->database[i]);

		if (entry == 0)
		{
			uint64		expected = 0;

			for (int node = 0; node < topo->nnodes; node++)
			{
				if (takes_backends(node) &&
					(best < 0 || databases[node] < databases[best]))
					best = node;
			}
			if (best < 0)
				return -1;
			/* pairs with itself: who loses the race reads the winner's entry */
			if (pg_atomic_compare_exchange_u64(&shared->database[i], &expected,
											   ((uint64) database << 32) |
											   (uint64) (best + 1)))
				return best;
			entry = expected;
			best = -1;
		}
		if ((Oid) (entry >> 32) == database)
			return (int) (entry & 0xFFFFFFFF) - 1;
		databases[(entry & 0xFFFFFFFF) - 1]++;
	}

	nth = database % topo->ncpu_nodes;
	for (int node = 0; node < topo->nnodes; node++)
	{
		if (takes_backends(node) && nth-- == 0)
			return node;
	}
	return -1;
}

/* Keeps how a call went, 0 or an errno value, for status and the log. */
static void
note_result(pg_atomic_uint32 *where, NxmSysCall call, const char *what,
			int err)
{
	/* the line is shared by all: written only when something has changed */
	if (pg_atomic_read_u32(where) != (uint32) err)
		pg_atomic_write_u32(where, err);

	/*
	 * One LOG line a server run, by whoever meets it first; none where the
	 * postmaster has already told that the call is refused.
	 */
	if (err != 0 && (nxm_seam_support()->refused & call) == 0 &&
		(pg_atomic_read_u32(&shared->told) & call) == 0 &&
		(pg_atomic_fetch_or_u32(&shared->told, call) & call) == 0)
		ereport(LOG,
				(errmsg("nexusmem cannot %s: %s", what, strerror(err)),
				 errhint("See the view nexusmem.status.")));
}

/* Returns 0 or an errno value; ESRCH, a process that has ended, is no failure. */
static int
set_affinity(int pid, int node)
{
	int			err = nxm_seam_set_affinity(pid == MyProcPid ? 0 : pid,
											&nxm_topology()->node[node].cpus);

	if (err != ESRCH)
		note_result(&shared->load[node].affinity_errno, NXM_CALL_SETAFFINITY,
					"pin processes to nodes", err);
	return err;
}

/*
 * What a process is started with: the postmaster's affinity, with its CPUs that
 * are offline, for they may come back.
 */
static void
restore_affinity(int pid)
{
	NxmCpuSet	cpus;

	if (nxm_seam_get_whole_affinity(PostmasterPid, &cpus) != 0)
		cpus = nxm_topology()->allowed;
	(void) nxm_seam_set_affinity(pid == MyProcPid ? 0 : pid, &cpus);
}

static void
prefer_memory(int node)
{
	const NxmTopology *topo = nxm_topology();
	const NxmOsNodeSet *mems = &topo->node[node].mems;
	int			err;

	if (!topo->numa)
		return;
	if (!policy_saved)
	{
		err = nxm_seam_get_policy(&saved_policy);
		if (err != 0)
		{
			note_result(&shared->load[node].policy_errno,
						NXM_CALL_GET_MEMPOLICY, "set memory policies", err);
			return;
		}
		policy_saved = true;
	}
	if (nxm_osnodeset_count(mems) == 1)
		err = nxm_seam_prefer(nxm_osnodeset_next(mems, -1));
	else
		err = nxm_seam_set_policy(&saved_policy);
	note_result(&shared->load[node].policy_errno, NXM_CALL_SET_MEMPOLICY,
				"set memory policies", err);
}

/* Makes the calling process be where its home word says. */
static void
apply_home(NxmHome home)
{
	int			node = NXM_HOME_NODE(home);

	seen_home = home;
	pin_failed = false;
	if (node < 0)
	{
		/* even if we never pinned ourselves: our worker may have, before */
		restore_affinity(MyProcPid);
		if (policy_saved)
			(void) nxm_seam_set_policy(&saved_policy);
	}
	else if (nxm_topology()->nnodes > 1)
	{
		/* memory there would be remote for a process that runs elsewhere */
		if (set_affinity(MyProcPid, node) == 0)
			prefer_memory(node);
		else
		{
			pin_failed = true;
			if (policy_saved)
				(void) nxm_seam_set_policy(&saved_policy);
		}
	}
	applied_node = node;
}

/*
 * Sets the affinity of another process to what its home word, last seen as
 * home, says; or of whoever has the slot by now, if it is that one's word.
 */
static void
apply_home_of(NxmSlot *slot, NxmHome home)
{
	NxmHome		done;

	do
	{
		int			node = NXM_HOME_NODE(home);

		if (home == 0)
			return;				/* it has left */
		if (node < 0)
			restore_affinity(NXM_HOME_PID(home));
		else if (nxm_topology()->nnodes > 1)
			(void) set_affinity(NXM_HOME_PID(home), node);
		done = home;
		home = pg_atomic_read_u64(&slot->home);
	} while (home != done);
}

/* Does what the new word of a slot says, which may be this process's own. */
static void
apply_home_in(NxmSlot *slot, NxmHome home)
{
	if (NXM_HOME_PID(home) == MyProcPid)
		apply_home(home);
	else
		apply_home_of(slot, home);
}

/*
 * Makes node (already reserved under reason; -1: none) the home of pid.
 * Returns the new word.
 */
static NxmHome
set_home(NxmSlot *slot, int pid, int node, NxmHomeReason reason)
{
	NxmHome		old = pg_atomic_read_u64(&slot->home);
	NxmHome		new;

	do
		new = make_home(pid, NXM_HOME_SERIAL(old) + 1, node, reason);
	while (!pg_atomic_compare_exchange_u64(&slot->home, &old, new));

	if (NXM_HOME_NODE(old) >= 0)
		pg_atomic_fetch_sub_u32(load_of(NXM_HOME_NODE(old),
										NXM_HOME_REASON(old)), 1);
	return new;
}

/* Empties a slot whose home is still old; true if this call did it. */
static bool
release_home(NxmSlot *slot, NxmHome old)
{
	if (!pg_atomic_compare_exchange_u64(&slot->home, &old, 0))
		return false;
	if (NXM_HOME_NODE(old) >= 0)
		pg_atomic_fetch_sub_u32(load_of(NXM_HOME_NODE(old),
										NXM_HOME_REASON(old)), 1);
	return true;
}

static void
leave_slot(int code, Datum arg)
{
	NxmHome		home;

	(void) code;
	(void) arg;
	do
		home = pg_atomic_read_u64(&my_slot->home);
	while (home != 0 && NXM_HOME_PID(home) == MyProcPid &&
		   !release_home(my_slot, home));
	pg_atomic_write_u32(&my_slot->self_placed, 0);
}

/*
 * Finds the calling process's slot; false where the process does not look
 * after itself.  A walsender may run no statement ever, and so would never
 * follow a setting: that is our worker's.
 */
static bool
enter_slot(void)
{
	if (my_slot != NULL)
		return true;
	if (shared == NULL || MyProc == NULL ||
		(MyBackendType != B_BACKEND && !IsParallelWorker()))
		return false;
	my_slot = nxm_slot_mine();
	if (my_slot == NULL)
		return false;
	pg_atomic_write_u32(&my_slot->self_placed, MyProcPid);
	on_shmem_exit(leave_slot, 0);
	return true;
}

/* A node by the policy, reserved. */
static int
reserve_by_policy(NxmHomeReason reason)
{
	if (scheduling_policy == POLICY_ROUND_ROBIN)
		return reserve_round_robin(reason);
	if (scheduling_policy == POLICY_DATABASE && OidIsValid(MyDatabaseId))
	{
		int			node = node_of_database(MyDatabaseId);

		return node < 0 ? -1 : reserve(node, reason);
	}
	return reserve_least_loaded(reason, -1);
}

/* Undoes what our worker did to this process before it came to a hook. */
static void
leave_home(NxmHome home)
{
	if (NXM_HOME_PID(home) == MyProcPid && NXM_HOME_NODE(home) >= 0 &&
		NXM_HOME_REASON(home) != NXM_HOME_MANUAL)
		apply_home(set_home(my_slot, MyProcPid, -1, NXM_HOME_NONE));
}

static void
place_parallel_worker(void)
{
	PGPROC	   *leader = MyProc->lockGroupLeader;
	NxmHome		home;
	int			node = -1;

	if (leader == NULL || leader == MyProc)
		return;
	home = pg_atomic_read_u64(&nxm_slot(leader - ProcGlobal->allProcs)->home);
	if (NXM_HOME_PID(home) == leader->pid &&
		(nxm_enable_numa_optimizations ||
		 NXM_HOME_REASON(home) == NXM_HOME_MANUAL))
		node = NXM_HOME_NODE(home);
	if (node < 0)
	{
		leave_home(pg_atomic_read_u64(&my_slot->home));
		return;
	}

	if (pg_atomic_read_u32(load_of(node, NXM_HOME_LEADER)) <
		(uint32) nxm_topology()->node[node].cpu_count)
		apply_home(set_home(my_slot, MyProcPid, reserve(node, NXM_HOME_LEADER),
							NXM_HOME_LEADER));
	else
		apply_home(set_home(my_slot, MyProcPid,
							reserve_least_loaded(NXM_HOME_SPREAD, -1),
							NXM_HOME_SPREAD));
}

static void
place_backend(void)
{
	NxmHome		home = pg_atomic_read_u64(&my_slot->home);
	NxmHomeReason reason = NXM_HOME_REASON(home);
	int			node = NXM_HOME_NODE(home);
	bool		mine = NXM_HOME_PID(home) == MyProcPid;

	/* what an administrator did by hand stands until it is undone by hand */
	if (mine && (reason == NXM_HOME_MANUAL || reason == NXM_HOME_UNPINNED))
	{
		apply_home(home);
		return;
	}

	if (!nxm_enable_numa_optimizations)
	{
		seen_home = home;
		leave_home(home);
		return;
	}

	if (takes_backends(nxm_preferred_node))
	{
		if (!mine || reason != NXM_HOME_PREFERRED || node != nxm_preferred_node)
			home = set_home(my_slot, MyProcPid,
							reserve(nxm_preferred_node, NXM_HOME_PREFERRED),
							NXM_HOME_PREFERRED);
	}
	else if (mine && node >= 0 &&
			 (reason == NXM_HOME_PROVISIONAL || reason == NXM_HOME_POLICY) &&
			 scheduling_policy != POLICY_DATABASE)
	{
		/* the policy has spoken already, at authentication */
		if (reason == NXM_HOME_PROVISIONAL)
			home = set_home(my_slot, MyProcPid, reserve(node, NXM_HOME_POLICY),
							NXM_HOME_POLICY);
	}
	else
		home = set_home(my_slot, MyProcPid, reserve_by_policy(NXM_HOME_POLICY),
						NXM_HOME_POLICY);

	if (NXM_HOME_NODE(home) == applied_node && !pin_failed &&
		NXM_HOME_SERIAL(home) == (uint16) (NXM_HOME_SERIAL(seen_home) + 1))
		seen_home = home;		/* only the reason is new */
	else
		apply_home(home);
}

static void
client_authentication(struct Port *port, int status)
{
	if (prev_client_authentication)
		prev_client_authentication(port, status);

	if (status != STATUS_OK || !enter_slot() || !nxm_enable_numa_optimizations)
		return;
	apply_home(set_home(my_slot, MyProcPid,
						reserve_by_policy(NXM_HOME_PROVISIONAL),
						NXM_HOME_PROVISIONAL));
}

void
nxm_scheduler_statement(void)
{
	if (likely(!settings_changed &&
			   (my_slot == NULL ||
				pg_atomic_read_u64(&my_slot->home) == seen_home)))
		return;

	settings_changed = false;
	if (!enter_slot())
		return;
	if (IsParallelWorker())
	{
		/* once: the leader's statement is all that it will ever run */
		if (seen_home == 0)
			place_parallel_worker();
		seen_home = pg_atomic_read_u64(&my_slot->home);
	}
	else
		place_backend();
}

void
nxm_scheduler_place_worker(void)
{
	my_slot = nxm_slot_mine();
	if (my_slot == NULL)
		return;
	pg_atomic_write_u32(&my_slot->self_placed, MyProcPid);
	on_shmem_exit(leave_slot, 0);
}

/*
 * Is this PGPROC a live process of that pid?  Before PostgreSQL 17 a PGPROC
 * keeps the pid of a process that is gone, and a background worker without a
 * database is in no list: so the kernel is asked whose child the pid is.
 */
static bool
is_live_proc(PGPROC *proc, int pid)
{
	PGPROC	   *owner = BackendPidGetProc(pid);

	if (owner == NULL)
		owner = AuxiliaryPidGetProc(pid);
	if (owner != NULL)
		return owner == proc;
	return nxm_seam_parent_of(pid) == PostmasterPid;
}

/* Frees the home of a process that ended without running our callback. */
static void
reconcile_slot(NxmSlot *slot)
{
	NxmHome		home = pg_atomic_read_u64(&slot->home);

	if (home != 0 && kill(NXM_HOME_PID(home), 0) != 0 && errno == ESRCH)
		(void) release_home(slot, home);
}

/*
 * Pins the process of a slot again if its pin was lost.  None of its CPUs is
 * left where they are all offline: then the kernel says no, and status why.
 */
static void
renew_pin(NxmSlot *slot)
{
	const NxmTopology *topo = nxm_topology();
	NxmHome		home = pg_atomic_read_u64(&slot->home);
	int			node = NXM_HOME_NODE(home);
	NxmCpuSet	cpus;

	if (node < 0 || topo->nnodes == 1 ||
		nxm_seam_get_affinity(NXM_HOME_PID(home), &cpus) != 0)
		return;
	if (nxm_cpuset_count(&cpus) == 0 ||
		!nxm_cpuset_within(&cpus, &topo->node[node].cpus))
	{
		NxmHome		new = make_home(NXM_HOME_PID(home),
									NXM_HOME_SERIAL(home) + 1, node,
									NXM_HOME_REASON(home));

		if (pg_atomic_compare_exchange_u64(&slot->home, &home, new))
			home = new;
		apply_home_in(slot, home);
	}
	else
		note_result(&shared->load[node].affinity_errno, NXM_CALL_SETAFFINITY,
					"pin processes to nodes", 0);
}

int
nxm_scheduler_background_pass(void)
{
	static int	pass = 0;
	int			placed = 0;

	if (my_slot == NULL)
		return 0;
	pass = (pass + 1) % RENEWAL_PASSES;

	/* our own worker goes where its fellow background processes would */
	for (int i = 0; i < nxm_slot_count(); i++)
	{
		NxmSlot    *slot = nxm_slot(i);
		PGPROC	   *proc = GetPGProcByNumber(i);
		int			pid = *(volatile int *) &proc->pid;
		NxmHome		home;
		int			node;

		reconcile_slot(slot);
		if (i % RENEWAL_PASSES == pass)
			renew_pin(slot);
		if (pid == 0 || (pid != MyProcPid &&
						 (int) pg_atomic_read_u32(&slot->self_placed) == pid))
			continue;

		home = pg_atomic_read_u64(&slot->home);
		if (NXM_HOME_PID(home) == pid && home != 0)
		{
			if (NXM_HOME_REASON(home) != NXM_HOME_AFFINITY)
				continue;
			if (nxm_enable_numa_optimizations)
				placed++;
			else if (pid == MyProcPid)
				apply_home(set_home(slot, pid, -1, NXM_HOME_NONE));
			else if (release_home(slot, home))
			{
				restore_affinity(pid);
				/* it may have placed itself meanwhile */
				home = pg_atomic_read_u64(&slot->home);
				if (home != 0)
					apply_home_of(slot, home);
			}
			continue;
		}
		if (!nxm_enable_numa_optimizations || !is_live_proc(proc, pid))
			continue;
		node = reserve_least_loaded(NXM_HOME_AFFINITY, -1);
		if (node < 0)
			continue;
		apply_home_in(slot, set_home(slot, pid, node, NXM_HOME_AFFINITY));
		placed++;
	}
	return placed;
}

/* It may have ended since the caller saw it, which is no error, as in pg_terminate_backend(). */
static void
warn_no_process(int pid)
{
	ereport(WARNING,
			(errmsg("PID %d is not a server process", pid),
			 errhint("See the column pid of the view nexusmem.backends.")));
}

/* The slot of a live server process, or a warning and NULL. */
static NxmSlot *
slot_of_pid(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc == NULL)
		proc = AuxiliaryPidGetProc(pid);
	if (proc == NULL)
	{
		warn_no_process(pid);
		return NULL;
	}
	return nxm_slot(proc - ProcGlobal->allProcs);
}

bool
nxm_scheduler_pin(int pid, int node)
{
	NxmSlot    *slot;
	NxmHome		home;
	int			err;

	nxm_check_backend_node(node);
	slot = slot_of_pid(pid);
	if (slot == NULL)
		return false;

	err = set_affinity(pid, node);
	if (err != 0)
	{
		if (err == ESRCH)
			warn_no_process(pid);
		else
			ereport(WARNING,
					(errmsg("could not pin process %d to node %d: %s",
							pid, node, strerror(err)),
					 errhint("See the view nexusmem.status.")));
		return false;
	}
	home = set_home(slot, pid, reserve(node, NXM_HOME_MANUAL), NXM_HOME_MANUAL);
	if (pid == MyProcPid && enter_slot())
		apply_home(home);
	else
		apply_home_of(slot, home);
	return true;
}

bool
nxm_scheduler_unpin(int pid)
{
	NxmSlot    *slot = slot_of_pid(pid);
	NxmHome		home;

	if (slot == NULL)
		return false;
	home = pg_atomic_read_u64(&slot->home);
	if (NXM_HOME_PID(home) != pid || NXM_HOME_NODE(home) < 0)
		return false;
	home = set_home(slot, pid, -1, NXM_HOME_UNPINNED);
	if (pid == MyProcPid && enter_slot())
		apply_home(home);
	else
		apply_home_of(slot, home);
	return true;
}

/*
 * Moves backends that the policy placed off the nodes that have more than
 * their share, or under the policy "database" to their database's node.
 */
int
nxm_scheduler_rebalance(void)
{
	const NxmTopology *topo = nxm_topology();
	int			moved = 0;

	for (int i = 0; i < nxm_slot_count(); i++)
	{
		NxmSlot    *slot = nxm_slot(i);
		PGPROC	   *proc = GetPGProcByNumber(i);
		NxmHome		home;
		int			from;
		int			to;

		reconcile_slot(slot);
		home = pg_atomic_read_u64(&slot->home);
		from = NXM_HOME_NODE(home);
		if (from < 0 || (NXM_HOME_REASON(home) != NXM_HOME_POLICY &&
						 NXM_HOME_REASON(home) != NXM_HOME_PROVISIONAL))
			continue;

		if (scheduling_policy == POLICY_DATABASE)
		{
			to = OidIsValid(proc->databaseId) ?
				node_of_database(proc->databaseId) : from;
			if (to < 0 || to == from)
				continue;
			(void) reserve(to, NXM_HOME_POLICY);
		}
		else
		{
			to = reserve_least_loaded(NXM_HOME_POLICY, from);
			/* worth it only if the target is then no fuller than the source was */
			if (to < 0 || to == from ||
				(uint64) pg_atomic_read_u32(load_of(to, NXM_HOME_POLICY)) *
				topo->node[from].cpu_count >=
				(uint64) pg_atomic_read_u32(load_of(from, NXM_HOME_POLICY)) *
				topo->node[to].cpu_count)
			{
				if (to >= 0)
					pg_atomic_fetch_sub_u32(load_of(to, NXM_HOME_POLICY), 1);
				continue;
			}
		}

		{
			NxmHome		new = make_home(NXM_HOME_PID(home),
										NXM_HOME_SERIAL(home) + 1, to,
										NXM_HOME_POLICY);

			/* the process may have moved or ended meanwhile: then leave it */
			if (!pg_atomic_compare_exchange_u64(&slot->home, &home, new))
			{
				pg_atomic_fetch_sub_u32(load_of(to, NXM_HOME_POLICY), 1);
				continue;
			}
			pg_atomic_fetch_sub_u32(load_of(from, NXM_HOME_POLICY), 1);
			apply_home_in(slot, new);
			moved++;
		}
	}
	return moved;
}

int
nxm_scheduler_my_node(void)
{
	int			node;

	if (applied_node >= 0)
		return applied_node;
	node = nxm_topology_node_of_cpu(nxm_topology(), nxm_seam_cpu_of(0));
	return node < 0 ? 0 : node;
}

void
nxm_scheduler_reconcile(void)
{
	for (int i = 0; shared != NULL && i < nxm_slot_count(); i++)
		reconcile_slot(nxm_slot(i));
}

int
nxm_scheduler_backends_on(int node)
{
	return shared == NULL ? 0 :
		(int) pg_atomic_read_u32(&shared->load[node].backends);
}

int
nxm_scheduler_affinity_errno(int node)
{
	return shared == NULL ? 0 :
		(int) pg_atomic_read_u32(&shared->load[node].affinity_errno);
}

int
nxm_scheduler_policy_errno(int node)
{
	return shared == NULL ? 0 :
		(int) pg_atomic_read_u32(&shared->load[node].policy_errno);
}

const char *
nxm_home_reason_name(NxmHomeReason reason)
{
	switch (reason)
	{
		case NXM_HOME_NONE:
			return "not placed";
		case NXM_HOME_PROVISIONAL:
			return "provisional";
		case NXM_HOME_POLICY:
			return "policy";
		case NXM_HOME_PREFERRED:
			return "preferred_node";
		case NXM_HOME_LEADER:
			return "leader's node";
		case NXM_HOME_SPREAD:
			return "leader's node was full";
		case NXM_HOME_AFFINITY:
			return "background";
		case NXM_HOME_MANUAL:
			return "pin_backend";
		case NXM_HOME_UNPINNED:
			return "unpin_backend";
	}
	return "unknown";
}

Size
nxm_scheduler_size(void)
{
	return sizeof(SchedulerShared);
}

void
nxm_scheduler_shmem_init(void *ptr, bool found)
{
	shared = ptr;
	if (found)
		return;
	pg_atomic_init_u32(&shared->round_robin, 0);
	pg_atomic_init_u32(&shared->told, 0);
	for (int i = 0; i < NXM_DATABASES; i++)
		pg_atomic_init_u64(&shared->database[i], 0);
	for (int i = 0; i < NXM_MAX_NODES; i++)
	{
		pg_atomic_init_u32(&shared->load[i].backends, 0);
		pg_atomic_init_u32(&shared->load[i].background, 0);
		pg_atomic_init_u32(&shared->load[i].affinity_errno, 0);
		pg_atomic_init_u32(&shared->load[i].policy_errno, 0);
	}
}

static void
assign_flag(bool newval, void *extra)
{
	(void) newval;
	(void) extra;
	settings_changed = true;
}

static void
assign_number(int newval, void *extra)
{
	(void) newval;
	(void) extra;
	settings_changed = true;
}

/*
 * In place of the range that PostgreSQL checks, for its message has no hint.
 * Refuses a node that does not exist where it is to be used by who asks for it.
 * A value kept from another machine (postgresql.conf, ALTER ROLE) must not keep
 * the server or a session from starting: it counts as -1, and status says so.
 * Nor may one that is only to be kept (ALTER ROLE, CREATE FUNCTION), which some
 * machine may have, end the restore of a dump: there it is a NOTICE.
 */
static bool
check_preferred_node(int *newval, void **extra, GucSource source)
{
	const NxmTopology *topo;
	const char *detail;

	(void) extra;
	if (*newval == -1 || source < PGC_S_INTERACTIVE)
		return true;
	topo = nxm_topology();
	if (*newval >= 0 && *newval < topo->nnodes &&
		topo->node[*newval].cpu_count > 0)
		return true;

	if (*newval >= 0 && *newval < topo->nnodes)
		detail = psprintf("Node %d has no CPUs.", *newval);
	else
		detail = psprintf("Nodes are numbered from 0 to %d; -1 leaves the choice to nexusmem.scheduling_policy.",
						  topo->nnodes - 1);
	if (source == PGC_S_TEST && *newval >= 0)
	{
		ereport(NOTICE,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\": %d",
						"nexusmem.preferred_node", *newval),
				 errdetail_internal("%s", detail),
				 errhint("See the view nexusmem.nodes.")));
		return true;
	}
	GUC_check_errmsg("invalid value for parameter \"%s\": %d",
					 "nexusmem.preferred_node", *newval);
	GUC_check_errdetail("%s", detail);
	GUC_check_errhint("See the view nexusmem.nodes.");
	return false;
}

void
nxm_scheduler_init(void)
{
	DefineCustomBoolVariable("nexusmem.enable_numa_optimizations",
							 "Pins backends to nodes and prefers node-local memory for them.",
							 NULL,
							 &nxm_enable_numa_optimizations,
							 false,
							 PGC_SIGHUP,
							 0, NULL, assign_flag, NULL);
	DefineCustomEnumVariable("nexusmem.scheduling_policy",
							 "How a new backend gets its node.",
							 NULL,
							 &scheduling_policy,
							 POLICY_LEAST_LOADED, policy_options,
							 PGC_SIGHUP,
							 0, NULL, assign_number, NULL);
	DefineCustomIntVariable("nexusmem.preferred_node",
							"This session's home node.",
							"-1 leaves the choice to nexusmem.scheduling_policy.",
							&nxm_preferred_node,
							-1, INT_MIN, INT_MAX,
							PGC_SUSET,
							0, check_preferred_node, assign_number, NULL);

	if (process_shared_preload_libraries_in_progress)
	{
		prev_client_authentication = ClientAuthentication_hook;
		ClientAuthentication_hook = client_authentication;
	}
}
