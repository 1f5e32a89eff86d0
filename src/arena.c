/*
 * arena.c
 *	  The anchor of the shared space, and a process's view of it.
 *
 * Place.  Preloaded, the anchor is in main shared memory.  Otherwise, from 17
 * on, it is a segment of its own, and the DSM registry's "nexusmem" is a root of
 * a fixed size that says where: the registry refuses a segment of another size
 * with an error that would not tell a user what to do, and ours can.  An anchor
 * that a library of another version made is not touched.
 *
 *	NxmAnchor | NxmSpaceShared | lines of processes | locals of processes
 *
 * A process attaches at its first call, with the number of its PGPROC, and is
 * detached by before_shmem_exit, while segments are still mapped.  Something may
 * call again after that (callbacks of an abort at exit do) and attaches anew.
 *
 * Locks.  grow_lock: see arena_chunks.c, and changing the limit in force.  The
 * root's lock: making the anchor.  All else of the space is lock-free.
 *
 * The limits in force, of structures and of caches, are words of the space.
 * Whoever learns of a new nexusmem.memory_limit or nexusmem.cache_size stores it, unless
 * somebody who read the configuration later did; they all learn the same in the end.
 *
 * Signals.  A background worker that has not said otherwise dies from within
 * its SIGTERM handler, at any instruction.  Operations keep that away.  All
 * other processes only note a signal and die at CHECK_FOR_INTERRUPTS.
 *
 * Limits: MaxBackends + NUM_AUXILIARY_PROCS processes, as PostgreSQL has.  A
 * process does not change its node's memory while it holds magazines: it goes
 * on with what it has.
 */
#include "arena.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "arena_chunks.h"
#include "compat.h"
#include "core/cache.h"
#include "core/pause.h"
#include "miscadmin.h"
#include "nodes.h"
#include "postmaster/interrupt.h"
#include "scheduler.h"
#include "shmem.h"
#include "slot.h"
#include "storage/dsm.h"
#include "storage/dsm_impl.h"
#include "storage/ipc.h"
#include "subtransaction.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#define ANCHOR_MAGIC	0x4E584D41
#ifndef ROOT_BYTES				/* a test changes it */
#define ROOT_BYTES		1024
#endif
#define TRANCHE_NAME	"nexusmem"

/* after this, ms, it is tried again whether there is memory for caches */
#define CACHE_RETRY_MS		1000

/* so long, ms, a write waits for what others may still use to be freed */
#define DRAIN_WAIT_MS		100
/* so often it tries again because others freed something meanwhile */
#define DRAIN_TRUSTS		100
/* the same of what only an operation that gave its memory back may have freed */
#define UNDONE_TRUSTS		8

/* after this, ms, a node that was found full is tried again */
#define FULL_RETRY_MS		1000

/* so often pages that are kept are given back, and memory is put into huge pages */
#define COLLAPSE_INTERVAL_MS	700

#define DEFAULT_LIMIT_KB	(256 * 1024)
#define LEAST_LIMIT_KB		1024
/* what NXM_MAX_CHUNKS hold, less what small ones waste */
#define MOST_LIMIT_KB		(100 * 1024 * 1024)

/*
 * In the DSM registry.  The same in all versions of this library, for the sake
 * of which it has room to spare.
 */
typedef struct Root
{
	uint32		magic;			/* immutable, as are these: */
	uint32		version;		/* NXM_LAYOUT_VERSION */
	uint32		tranche;
	dsm_handle	anchor;			/* the lock's: segment of the anchor, 0: none yet */
	LWLock		lock;
	char		unused[ROOT_BYTES - 4 * sizeof(uint32) - sizeof(LWLock)];
} Root;

StaticAssertDecl(sizeof(Root) == ROOT_BYTES, "the root's size is fixed");

int			nxm_memory_limit = DEFAULT_LIMIT_KB;
int			nxm_cache_size = DEFAULT_LIMIT_KB;
bool		nxm_enable_numa_caching = false;
bool		nxm_signals_matter = false;
volatile sig_atomic_t *nxm_arena_stop = NULL;
void		(*nxm_arena_detached_hook) (void) = NULL;
NxmDrain	(*nxm_arena_drain_hook) (void) = NULL;
bool		(*nxm_arena_last_resort_hook) (void) = NULL;

static NxmAnchor *anchor = NULL;
static NxmSpace my_space;
static bool attached = false;
/* True in a process that was not preloaded: it may be the first since a reload. */
bool		nxm_limit_changed = false;
bool		nxm_borrowing = false;
pg_atomic_uint64 *nxm_home = NULL;
uint64		nxm_seen_home = 0;
static int	my_node = 0;		/* of the space */
static TimestampTz borrowed = 0;	/* while borrowing: since when */

/* The anchor */

NxmSpaceShared *
nxm_arena_shared(NxmAnchor *a)
{
	return (NxmSpaceShared *) TYPEALIGN(NXM_CACHE_LINE, a + 1);
}

Size
nxm_arena_size(void)
{
	return TYPEALIGN(NXM_CACHE_LINE, sizeof(NxmAnchor)) +
		nxm_space_size(nxm_slot_count()) + NXM_CACHE_LINE;
}

static int
limit_kb(int account)
{
	return account == NXM_CACHE_ACCOUNT ? nxm_cache_size : nxm_memory_limit;
}

static uint64
limit_pages(NxmSpaceShared *shared, int account)
{
	uint64		pages = (uint64) limit_kb(account) * 1024 / NXM_PAGE_SIZE;
	uint64		descriptors = nxm_chunk_descriptor_pages(shared, account);

	return pages > descriptors ? pages - descriptors : 0;
}

/* When this process's settings were read. */
static TimestampTz
settings_as_of(void)
{
	/* a parallel worker has those of its leader, which may be old */
	return IsParallelWorker() ? 0 : PgReloadTime;
}

/* Under the lock: unless newer ones are in force. */
static void
store_limits(NxmAnchor *a, TimestampTz as_of)
{
	NxmSpaceShared *shared = nxm_arena_shared(a);

	/* one that is yet to come: the clock was set back */
	if (as_of < a->limits_as_of && a->limits_as_of <= GetCurrentTimestamp())
		return;
	a->limits_as_of = as_of;
	for (int i = 0; i < NXM_ACCOUNTS; i++)
	{
		/* to be told, which orders nothing */
		nxm_store_relaxed(&a->limit_kb[i], (uint64) limit_kb(i));
		nxm_store_relaxed(&shared->account[i].page_limit, limit_pages(shared, i));
	}
}

/* ptr is aligned, and nobody else sees it. */
static void
init_anchor(NxmAnchor *a, uint32 tranche)
{
	NxmSpaceShared *shared = nxm_arena_shared(a);

	/* slices of min_dynamic_shared_memory were used before */
	memset(a, 0, nxm_arena_size() - NXM_CACHE_LINE);
	a->magic = ANCHOR_MAGIC;
	a->version = NXM_LAYOUT_VERSION;
	a->size = nxm_arena_size();
	a->tranche = tranche;
	LWLockInitialize(&a->grow_lock, tranche);
	LWLockInitialize(&a->registry_lock, tranche);
	nxm_init(&a->generation, 1);
	nxm_init(&a->next_id, 1);
	nxm_space_init(shared, nxm_slot_count(), nxm_space_nodes(), 0);
	store_limits(a, settings_as_of());
}

void
nxm_arena_shmem_init(void *ptr, bool found)
{
	anchor = (NxmAnchor *) TYPEALIGN(NXM_CACHE_LINE, ptr);
	if (!found)
		init_anchor(anchor, nxm_new_lwlock_tranche(TRANCHE_NAME));
	nxm_limit_changed = false;
}

static void
init_root(void *ptr)
{
	Root	   *root = ptr;

	memset(root, 0, sizeof(Root));
	root->magic = ANCHOR_MAGIC;
	root->version = NXM_LAYOUT_VERSION;
	root->tranche = nxm_new_lwlock_tranche(TRANCHE_NAME);
	LWLockInitialize(&root->lock, root->tranche);
}

static bool
root_is_ours(const Root *root)
{
	return root->magic == ANCHOR_MAGIC && root->version == NXM_LAYOUT_VERSION;
}

/*
 * Finds the anchor that the root leads to.  make: where there is none, makes it.
 */
static NxmArenaState
find_anchor(Root *root, bool make)
{
	dsm_segment *segment = NULL;
	NxmAnchor  *a;

	/* whoever makes an anchor here also made the lock */
	if (!root_is_ours(root))
		return NXM_ARENA_OTHER_VERSION;
	LWLockAcquire(&root->lock, LW_EXCLUSIVE);
	if (root->anchor != 0)
	{
		segment = dsm_find_mapping(root->anchor);
		if (segment == NULL)
		{
			segment = dsm_attach(root->anchor);
			if (segment != NULL)
				dsm_pin_mapping(segment);
		}
	}
	else if (make)
	{
		segment = dsm_create(nxm_arena_size(), 0);
		dsm_pin_mapping(segment);
		/* a segment begins at a cache line in every process, if not at a page */
		init_anchor((NxmAnchor *) TYPEALIGN(NXM_CACHE_LINE,
											dsm_segment_address(segment)),
					root->tranche);
		dsm_pin_segment(segment);
		root->anchor = dsm_segment_handle(segment);
	}
	LWLockRelease(&root->lock);
	if (segment == NULL)
		return NXM_ARENA_NONE;

	a = (NxmAnchor *) TYPEALIGN(NXM_CACHE_LINE, dsm_segment_address(segment));
	if (a->magic != ANCHOR_MAGIC || a->version != NXM_LAYOUT_VERSION ||
		a->size != nxm_arena_size())
		return NXM_ARENA_OTHER_VERSION;
	anchor = a;
	nxm_space_found(nxm_arena_shared(a));
	return NXM_ARENA_READY;
}

/*
 * In older minor releases of 17 and 18 an entry that there was no memory for stays in the
 * registry, half made, and is an error for whoever asks for it later.
 */
static Root *
ask_registry(void)
{
	MemoryContext context = CurrentMemoryContext;
	Root	   *root;

	PG_TRY();
	{
		root = nxm_named_segment("nexusmem", sizeof(Root), init_root);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (error->hint == NULL && error->sqlerrcode == ERRCODE_INTERNAL_ERROR)
			error->hint = pstrdup("Restart the server.");
		nxm_rethrow(error);
	}
	PG_END_TRY();
	return root;
}

static Root *
find_root(void)
{
	static Root *root = NULL;

	if (root == NULL)
	{
		root = ask_registry();
		if (root_is_ours(root))
			nxm_name_lwlock_tranche((int) root->tranche, TRANCHE_NAME);
	}
	return root;
}

NxmAnchor *
nxm_anchor(void)
{
	if (anchor == NULL)
	{
		if (!NXM_HAVE_DSM_REGISTRY)
			nxm_shmem_require("this function or view");
		if (find_anchor(find_root(), true) != NXM_ARENA_READY)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("nexusmem's shared memory was made by another version of the library"),
					 errhint("Restart the server.")));
	}
	return anchor;
}

static NxmArenaState
arena_state(void)
{
	if (anchor != NULL)
		return NXM_ARENA_READY;
	return NXM_HAVE_DSM_REGISTRY ? find_anchor(find_root(), false) :
		NXM_ARENA_NONE;
}

static void
look(void *arg)
{
	*(NxmArenaState *) arg = arena_state();
}

/*
 * PostgreSQL has no way to ask the registry for what may not be there, so its error is
 * caught, in a subtransaction: it is raised with locks held.
 */
NxmArenaState
nxm_arena_look(const char **reason)
{
	NxmArenaState state;
	ErrorData  *error;
	int			category;

	*reason = NULL;
	if (anchor != NULL || !NXM_HAVE_DSM_REGISTRY)
		return arena_state();
	error = nxm_catch(look, &state);
	if (error == NULL)
		return state;
	category = ERRCODE_TO_CATEGORY(error->sqlerrcode);
	/* cancelled */
	if (category == ERRCODE_OPERATOR_INTERVENTION)
		nxm_rethrow(error);
	*reason = pstrdup(error->message);
	FreeErrorData(error);
	return category == ERRCODE_INSUFFICIENT_RESOURCES ? NXM_ARENA_NO_MEMORY :
		NXM_ARENA_NO_REGISTRY;
}

NxmAnchor *
nxm_anchor_if_any(void)
{
	return arena_state() == NXM_ARENA_READY ? anchor : NULL;
}

/* This process */

/*
 * Under the lock, as no segment is being made then whose descriptors are charged
 * and not among limit_pages()'s yet.  Not wait: where one is, later.
 */
static void
put_limits_into_force(NxmAnchor *a, TimestampTz as_of, bool wait)
{
	nxm_begin_operation();
	if (wait)
		LWLockAcquire(&a->grow_lock, LW_EXCLUSIVE);
	if (wait || LWLockConditionalAcquire(&a->grow_lock, LW_EXCLUSIVE))
	{
		nxm_limit_changed = false;
		store_limits(a, as_of);
		LWLockRelease(&a->grow_lock);
	}
	nxm_end_operation();
}

/*
 * Takes over what is new of this process's home, and has it there.  The word tells where
 * that is, which the scheduler follows at the next statement only: by then the word would
 * have been seen.
 */
static void
see_home(void)
{
	NxmHome		home = nxm_home == NULL ? 0 : pg_atomic_read_u64(nxm_home);

	nxm_borrowing = false;
	nxm_seen_home = home;
	my_node = nxm_space_node_of(NXM_HOME_PID(home) == MyProcPid &&
								NXM_HOME_NODE(home) >= 0 ?
								NXM_HOME_NODE(home) : nxm_scheduler_my_node());
	if (attached)
		my_space.local->node = (uint32) my_node;
}

static void
detach(int code, Datum arg)
{
	(void) code;
	(void) arg;
	if (!attached)
		return;
	nxm_begin_operation();
	nxm_proc_detach(&my_space);
	attached = false;
	if (nxm_arena_detached_hook != NULL)
		nxm_arena_detached_hook();
	nxm_end_operation();
}

/* Caches have to do with less than their limit. */
static void
note_cache_short(NxmGrowth why, TimestampTz now)
{
	nxm_store_relaxed(&anchor->cache_short_why, (uint64) why);
	/* pairs with status: who sees the time sees its reason, or a newer one */
	nxm_store(&anchor->cache_short, (uint64) now);
}

/* NxmSpace's: notes it where caches have to do with less than their limit. */
static bool
populate(NxmSpace *space, int chunk, void *page)
{
	if (likely(nxm_chunk_populate(space, chunk, page)))
		return true;
	if (space->account == NXM_CACHE_ACCOUNT)
		note_cache_short(NXM_GROW_NO_MEMORY, GetCurrentTimestamp());
	return false;
}

static void
attach(void)
{
	NxmAnchor  *a = nxm_anchor();
	int			proc = nxm_my_procno();
	NxmSlot    *slot;

	if (MyProc == NULL || proc < 0 || proc >= nxm_slot_count())
		elog(ERROR, "nexusmem: this process has no number");
	/* what an attachment before has mapped is still mapped */
	if (my_space.shared == NULL)
	{
		nxm_space_open(&my_space, nxm_arena_shared(a));
		my_space.populate = populate;
		my_space.depopulate = nxm_chunk_depopulate;
	}
	nxm_signals_matter = MyBackendType == B_BG_WORKER && !IsParallelWorker();
	slot = nxm_slot_mine();
	nxm_home = slot == NULL ? NULL : &slot->home;
	see_home();
	before_shmem_exit(detach, 0);
	/* what it takes over, detach() has to leave again */
	nxm_begin_operation();
	nxm_proc_attach(&my_space, proc, my_node, (uint64) MyProcPid);
	attached = true;
	nxm_end_operation();
}

NxmSpace *
nxm_space(void)
{
	if (unlikely(!attached))
		attach();
	if (unlikely(nxm_limit_changed))
		put_limits_into_force(anchor, settings_as_of(), false);
	if (unlikely(nxm_home_changed()) ||
		(unlikely(nxm_borrowing) &&
		 nxm_is_over(borrowed, GetCurrentTimestamp(), FULL_RETRY_MS)))
		see_home();
	return &my_space;
}

int
nxm_memory_node(void)
{
	if (unlikely(!attached))
		(void) nxm_space();
	return my_node;
}

/* More memory */

/* What could be freed, in parts, for each may be others' as well. */
typedef struct Reclaimable
{
	uint64		own;			/* objects that this process retired or keeps */
	uint64		waiting;		/* of all, for the epoch */
	uint64		kept;			/* pages of other nodes, for later */
} Reclaimable;

static Reclaimable
reclaimable(NxmSpace *space, int but_node)
{
	Reclaimable r = {space->local->nlimbo + space->local->nready,
	nxm_load(&space->shared->limbo), 0};

	for (int i = 0; i < (int) space->shared->nnodes; i++)
	{
		if (i != but_node)
			r.kept += nxm_load(&space->shared->nodes[i].nkept);
	}
	return r;
}

/* Frees what this process has, and what others retired. */
static void
free_retired(NxmSpace *space)
{
	nxm_begin_operation();
	nxm_flush(space);
	nxm_epoch_poll(space);
	/* a few objects may keep as many pages */
	nxm_give_back(space);
	nxm_end_operation();
}

/* Gives the pages back that are kept. */
static void
trim(NxmSpace *space)
{
	bool		more;

	do
	{
		nxm_begin_operation();
		more = nxm_trim(space);
		nxm_end_operation();
	} while (more);
}

/* How many pages there are less without objects. */
static uint64
sweep(NxmSpace *space)
{
	uint64		released;

	nxm_begin_operation();
	released = nxm_sweep(space);
	nxm_end_operation();
	return released;
}

/* By the hook, which allocates, too, but not by itself. */
static NxmDrain
drain_some(void)
{
	static bool draining = false;
	NxmDrain	drain = NXM_DRAIN_NOTHING;

	if (nxm_arena_drain_hook == NULL || draining)
		return NXM_DRAIN_NOTHING;
	draining = true;
	PG_TRY();
	{
		drain = nxm_arena_drain_hook();
	}
	PG_FINALLY();
	{
		draining = false;
	}
	PG_END_TRY();
	return drain;
}

bool
nxm_arena_drain(NxmSpace *space, bool wait)
{
	static int	trusts = 0;		/* in what others freed, which may be taken again */
	NxmWant		want = space->want;
	uint64		newest = space->need_newest;
	int			node = space->need_node;
	int			account = space->need_account;
	NxmAtomic  *pages = &space->shared->account[account].pages;
	uint64		before = nxm_load_relaxed(pages);
	int64		since = 0;

	for (;;)
	{
		NxmDrain	drain = drain_some();

		space->want = want;
		space->need_newest = newest;
		space->need_node = node;
		space->need_account = account;

		if (drain == NXM_DRAIN_MORE)
		{
			trusts = 0;
			return true;
		}
		if (since != 0 && trusts < DRAIN_TRUSTS &&
			(drain == NXM_DRAIN_NOTHING || nxm_load_relaxed(pages) < before))
		{
			trusts++;
			return true;
		}
		if (drain == NXM_DRAIN_NOTHING || !wait ||
			(since != 0 && nxm_steady_ms() - since >= DRAIN_WAIT_MS))
		{
			if (wait)
				trusts = 0;
			return false;
		}
		if (since == 0)
			since = nxm_steady_ms();
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000L);
	}
}

/*
 * Frees what can be freed for an allocation on a node.  false: nothing was.  The
 * pages kept on that very node do not count: the allocation would have had
 * them, or gave them back itself when it failed.  trusts: of nxm_again_undone(), or NULL.
 */
static bool
make_room(NxmSpace *space, int node, int *trusts)
{
	Reclaimable before = reclaimable(space, node);
	Reclaimable after;
	uint64		swept;

	/* pages without objects may be in any */
	nxm_chunk_map_all(space);
	swept = sweep(space);
	free_retired(space);
	trim(space);
	after = reclaimable(space, node);
	if (swept > 0 || after.waiting < before.waiting)
		return true;
	if ((after.own < before.own || after.kept < before.kept) &&
		(trusts == NULL || (*trusts)++ < UNDONE_TRUSTS))
		return true;
	return nxm_arena_drain(space, false);
}

/*
 * What is left to try before an error.  false: nothing helps.  quiet: there will be no error,
 * and nothing here may wait or raise one.
 */
static bool
find_room(NxmSpace *space, bool quiet)
{
	return nxm_arena_drain(space, !quiet) ||
		(!quiet && nxm_arena_last_resort_hook != NULL && nxm_arena_last_resort_hook());
}

/*
 * Where this process's own node cannot have another chunk, it goes on in the
 * memory of one that has room.  A node that had too little for what is wanted, which may
 * be many pages, is tried again only when it has more: else two of them could have the
 * process come and go for ever.  It is forgotten a second after the last search for memory,
 * when the next one begins, which is `now`.  Not by the time that a statement began, which
 * a background worker need not have: a second later the process is at home again.
 */
static bool
borrow(NxmSpace *space, int node, TimestampTz now)
{
	static uint64 too_few[NXM_SPACE_NODES];	/* pages that nodes had, and one; 0: enough */
	static TimestampTz marked = 0;

	if (node != (int) space->local->node)
		return false;
	/* what is wanted now is not what was wanted then */
	if (nxm_is_over(marked, now, FULL_RETRY_MS))
		memset(too_few, 0, sizeof(too_few));
	too_few[node] = nxm_chunk_free_pages(space, node) + 1;
	for (int i = 0; i < (int) space->shared->nnodes; i++)
	{
		if (i != node && nxm_chunk_room(space, i) &&
			nxm_chunk_free_pages(space, i) >= too_few[i])
		{
			space->local->node = (uint32) i;
			marked = borrowed = GetCurrentTimestamp();
			nxm_borrowing = true;
			return true;
		}
	}
	/* an error; what comes next may want less */
	memset(too_few, 0, sizeof(too_few));
	return false;
}

/*
 * Segments stay until a restart.  Those made below a higher limit may take more than the
 * one in force with their descriptors alone, and then nothing that a user frees helps.
 */
static void
raise_limit_reached(NxmSpace *space)
{
	int			account = space->need_account;
	bool		caches = account == NXM_CACHE_ACCOUNT;
	bool		none_left = nxm_load(&space->shared->account[account].page_limit) == 0;
	uint64		kb = nxm_load_relaxed(&anchor->limit_kb[account]);
	uint64		descriptors_kb = nxm_chunk_descriptor_pages(space->shared, account) *
		(NXM_PAGE_SIZE / 1024);

	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 caches ? errmsg("caches have reached their memory limit") :
			 errmsg("shared structures have reached their memory limit"),
			 none_left ?
			 errdetail("The limit is " UINT64_FORMAT " kB, and what describes the segments that were made takes " UINT64_FORMAT " kB until the server restarts.",
					   kb, descriptors_kb) :
			 errdetail("The limit is " UINT64_FORMAT " kB.", kb),
			 caches ?
			 (none_left ?
			  errhint("Restart the server, or raise nexusmem.cache_size and reload the configuration.") :
			  errhint("Drop caches, or raise nexusmem.cache_size and reload the configuration.")) :
			 none_left ?
			 errhint("Restart the server, or raise nexusmem.memory_limit and reload the configuration.") :
			 errhint("Remove entries, drop structures, or raise nexusmem.memory_limit and reload the configuration.")));
}

/* reason: what the operating system said, or NULL. */
static void
raise_no_memory(const char *reason)
{
	bool		posix = dynamic_shared_memory_type == DSM_IMPL_POSIX;

	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("the operating system has no more shared memory for shared structures"),
			 reason ? errdetail_internal("%s", reason) :
			 posix ? errdetail("The file system /dev/shm is full.") : 0,
			 posix ?
			 errhint("Drop structures, enlarge /dev/shm (in a container with --shm-size), or lower nexusmem.memory_limit and nexusmem.cache_size.") :
			 errhint("Drop structures, give the server more shared memory, or lower nexusmem.memory_limit and nexusmem.cache_size.")));
}

/* nxm_chunk_grow() as an operation: it may raise an error, and what catches that go on. */
static NxmGrowth
grow_chunk(NxmSpace *space, char **reason)
{
	NxmGrowth	growth;

	NXM_PAUSE("want chunk");
	nxm_begin_operation();
	PG_TRY();
	{
		growth = nxm_chunk_grow(space, &anchor->grow_lock, reason);
	}
	PG_FINALLY();
	{
		nxm_end_operation();
	}
	PG_END_TRY();
	return growth;
}

/* As again(). */
static bool
grow(NxmSpace *space, int *trusts, bool quiet)
{
	int			node = space->need_node;
	TimestampTz now = GetCurrentTimestamp();
	NxmGrowth	growth;
	char	   *reason;

	growth = grow_chunk(space, &reason);
	/*
	 * Raised meanwhile, and it was read while somebody grew, or a call in a loop has not
	 * looked since.  One more turn for each reload.
	 */
	if (growth == NXM_GROW_LIMIT && nxm_limit_changed)
	{
		put_limits_into_force(anchor, settings_as_of(), true);
		return true;
	}
	if (growth == NXM_GROWN || make_room(space, node, trusts) || borrow(space, node, now) ||
		find_room(space, quiet))
		return true;
	if (quiet)
		return false;
	if (growth == NXM_GROW_LIMIT)
		raise_limit_reached(space);
	if (growth == NXM_GROW_NO_MEMORY)
		raise_no_memory(reason);
	if (growth == NXM_GROW_NO_SEGMENT)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many dynamic shared memory segments"),
				 errhint(NXM_HINT_CONNECTIONS)));
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("shared structures cannot have more than %d segments of memory",
					NXM_MAX_CHUNKS),
			 nxm_chunks_would_do(space->shared) ?
			 errhint("Remove entries, drop structures, or restart the server with a higher nexusmem.memory_limit, for which segments are larger.") :
			 errhint("Remove entries, drop structures, or lower nexusmem.cache_size and reload the configuration.")));
	return false;
}

/* Tries to move the epoch on, and where a section holds it waits for a moment. */
static void
wait_for_epoch(NxmSpace *space)
{
	uint64		before = nxm_load(&space->shared->epoch);

	nxm_begin_operation();
	nxm_epoch_poll(space);
	nxm_end_operation();
	if (nxm_load(&space->shared->epoch) == before)
		pg_usleep(1000L);
}

void
nxm_arena_check_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (nxm_arena_stop != NULL && *nxm_arena_stop)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg_internal("the process is to end")));
}

/* quiet: false where there is no memory, instead of an error. */
static bool
again(NxmSpace *space, NxmResult result, int *trusts, bool quiet)
{
	NxmWant		want = space->want;

	if (result == NXM_NEED_CHUNK)
	{
		int			chunk = space->need_chunk;

		space->need_chunk = -1;
		if (chunk >= 0)
			nxm_chunk_map(space, chunk);
		else
			CHECK_FOR_INTERRUPTS();
		return true;
	}

	/* every turn frees or adds something, and others may use it up */
	nxm_arena_check_interrupts();
	if (result == NXM_NEED_EPOCH)
	{
		wait_for_epoch(space);
		return true;
	}
	space->want = NXM_WANT_NOTHING;
	switch (want)
	{
		case NXM_WANT_CHUNK:
			return grow(space, trusts, quiet);
		case NXM_WANT_LIMIT:
			/* raised meanwhile, and a call in a loop has not looked since */
			if (nxm_limit_changed)
				put_limits_into_force(anchor, settings_as_of(), true);
			else if (!make_room(space, space->need_node, trusts) && !find_room(space, quiet))
			{
				if (quiet)
					return false;
				raise_limit_reached(space);
			}
			break;
		case NXM_WANT_SPACE:
			if (!make_room(space, space->need_node, trusts) && !find_room(space, quiet))
			{
				if (quiet)
					return false;
				raise_no_memory(NULL);
			}
			break;
		case NXM_WANT_NOTHING:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the structure cannot have more entries"),
					 errdetail("A stack or a queue has room for about 2^30 values, a map for few keys that have the same hash."),
					 errhint("Divide them among several structures.")));
	}
	return true;
}

bool
nxm_again_slow(NxmSpace *space, NxmResult result)
{
	return again(space, result, NULL, false);
}

bool
nxm_again_undone(NxmSpace *space, NxmResult result, int *trusts, bool quiet)
{
	return nxm_asks_for_more(result) && again(space, result, trusts, quiet);
}

bool
nxm_cache_again_slow(NxmSpace *space, NxmResult result)
{
	TimestampTz short_at = (TimestampTz) nxm_load_relaxed(&anchor->cache_short);
	TimestampTz now;
	NxmGrowth	growth;
	char	   *reason;

	if (result == NXM_NEED_CHUNK)
		return nxm_again_slow(space, result);
	space->want = NXM_WANT_NOTHING;
	now = GetCurrentTimestamp();
	/* making a segment in vain costs more than what is gained by asking often */
	if (!nxm_is_over(short_at, now, CACHE_RETRY_MS))
		return nxm_arena_drain(space, false);

	growth = grow_chunk(space, &reason);
	if (reason != NULL)
		pfree(reason);
	/* as in grow() */
	if (growth == NXM_GROW_LIMIT && nxm_limit_changed)
	{
		put_limits_into_force(anchor, settings_as_of(), true);
		return true;
	}
	if (growth == NXM_GROWN)
		return true;
	/* at the limit it is as it should be */
	if (growth != NXM_GROW_LIMIT)
		note_cache_short(growth, now);
	return nxm_arena_drain(space, false);
}

void
nxm_arena_tick(void)
{
	static TimestampTz cleaned = 0;
	TimestampTz now;
	NxmAnchor  *a = nxm_anchor_if_any();
	NxmSpaceShared *shared;
	NxmSpace   *space;
	uint64		waiting;
	bool		due;
	bool		over = false;

	if (a == NULL)
		return;
	shared = nxm_arena_shared(a);
	/* others may have read theirs long before they took them over */
	put_limits_into_force(a, ConfigReloadPending ? settings_as_of() : GetCurrentTimestamp(),
						  false);
	if (nxm_load(&shared->nchunks) == 0)
		return;
	space = nxm_space();
	/* what is retired may lie anywhere */
	nxm_chunk_map_all(space);
	/* what others left is taken over a list at a time, and freed two epochs on */
	do
	{
		waiting = nxm_load(&shared->limbo);
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < 3; i++)
			free_retired(space);
	} while (nxm_load(&shared->limbo) < waiting);

	/* passes may come more often while caches are busy, which take what is kept again */
	now = GetCurrentTimestamp();
	due = nxm_is_over(cleaned, now, COLLAPSE_INTERVAL_MS);
	for (int account = 0; account < NXM_ACCOUNTS; account++)
		over |= nxm_account_is_over(space, account);
	if (due || over)
		trim(space);
	if (due)
	{
		cleaned = now;
		(void) sweep(space);
		nxm_store_relaxed(&a->huge_bytes, nxm_chunk_collapse(space));
	}
}

/* Settings */

/* Of either. */
static void
assign_limit(int new_limit, void *extra)
{
	(void) new_limit;
	(void) extra;
	nxm_limit_changed = true;
}

void
nxm_arena_init(void)
{
	DefineCustomIntVariable("nexusmem.memory_limit",
							"Most memory that all shared structures together may take.",
							NULL,
							&nxm_memory_limit,
							DEFAULT_LIMIT_KB, LEAST_LIMIT_KB, MOST_LIMIT_KB,
							PGC_SIGHUP,
							GUC_UNIT_KB, NULL, assign_limit, NULL);
	DefineCustomIntVariable("nexusmem.cache_size",
							"Most memory that all caches together may take.",
							NULL,
							&nxm_cache_size,
							DEFAULT_LIMIT_KB, LEAST_LIMIT_KB, MOST_LIMIT_KB,
							PGC_SIGHUP,
							GUC_UNIT_KB, NULL, assign_limit, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomBoolVariable("nexusmem.enable_numa_caching",
								 "Divides each cache into one partition a node, in that node's memory.",
								 NULL,
								 &nxm_enable_numa_caching,
								 false,
								 PGC_POSTMASTER,
								 0, NULL, NULL, NULL);
}
