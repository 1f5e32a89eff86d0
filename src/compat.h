/*
 * compat.h
 *	  Every test of a PostgreSQL version, each with the upstream commit or
 *	  release that made it necessary.  The rest of the code is written against
 *	  the newest names.
 */
#ifndef NXM_COMPAT_H
#define NXM_COMPAT_H

#include "postgres.h"

#include "access/amapi.h"
#include "access/nbtree.h"
#include "datatype/timestamp.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "postmaster/bgworker_internals.h"
#if PG_VERSION_NUM >= 170000
#include "storage/dsm_registry.h"
#endif
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/rel.h"
#include "utils/relmapper.h"
#include "utils/syscache.h"

/* 16 (d952373a9): VARDATA_ANY() and its like left postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000
#error "nexusmem needs PostgreSQL 15 or newer"
#endif

/*
 * What libpq/auth.h declares.  That header wants gssapi.h, which Debian's
 * server headers do not bring; a Port is only passed on here.
 */
struct Port;
typedef void (*NxmClientAuthenticationHook) (struct Port *port, int status);
extern PGDLLIMPORT NxmClientAuthenticationHook ClientAuthentication_hook;

/* 17 (024c52111): the slot number left PGPROC for a variable. */
#if PG_VERSION_NUM >= 170000
#define nxm_my_procno() ((int) MyProcNumber)
#else
#define nxm_my_procno() (MyProc == NULL ? -1 : MyProc->pgprocno)
#endif

/* 16 (b0a55e432): relfilenode became relfilenumber, rd_node rd_locator. */
#if PG_VERSION_NUM >= 160000
typedef RelFileLocator NxmLocator;
typedef RelFileNumber NxmFileNumber;
#define nxm_rel_locator(rel) (&(rel)->rd_locator)
#define nxm_mapped_file_number(oid, shared) \
	RelationMapOidToFilenumber(oid, shared)
#else
typedef RelFileNode NxmLocator;
typedef Oid NxmFileNumber;
#define nxm_rel_locator(rel) (&(rel)->rd_node)
#define nxm_mapped_file_number(oid, shared) \
	RelationMapOidToFilenode(oid, shared)
#endif

/* 16 (82ac34db2): BufferTag became flat, INIT_BUFFERTAG a function. */
static inline void
nxm_init_buffer_tag(BufferTag *tag, const NxmLocator *locator,
					ForkNumber fork, BlockNumber block)
{
#if PG_VERSION_NUM >= 160000
	InitBufferTag(tag, locator, fork, block);
#else
	INIT_BUFFERTAG(*tag, *locator, fork, block);
#endif
}

/* Does the buffer hold a block of this relation file? */
static inline bool
nxm_buffer_tag_is(const BufferTag *tag, const NxmLocator *locator)
{
#if PG_VERSION_NUM >= 160000
	return tag->relNumber == locator->relNumber &&
		tag->dbOid == locator->dbOid && tag->spcOid == locator->spcOid;
#else
	return RelFileNodeEquals(tag->rnode, *locator);
#endif
}

/* 16 (b0a55e432): the members of a relation file's name. */
static inline void
nxm_make_locator(NxmLocator *locator, Oid spc, Oid db, NxmFileNumber number)
{
#if PG_VERSION_NUM >= 160000
	locator->spcOid = spc;
	locator->dbOid = db;
	locator->relNumber = number;
#else
	locator->spcNode = spc;
	locator->dbNode = db;
	locator->relNode = number;
#endif
}

/*
 * 16 (a61b1f748): whose permissions a table of a plan is read with left
 * RangeTblEntry.  InvalidOid: the current role's.  Needs parser/parse_relation.h.
 */
#if PG_VERSION_NUM >= 160000
#define nxm_check_as_user(stmt, rte) \
	((rte)->perminfoindex == 0 ? InvalidOid : \
	 getRTEPermissionInfo((stmt)->permInfos, rte)->checkAsUser)
#else
#define nxm_check_as_user(stmt, rte) ((rte)->checkAsUser)
#endif

/* 16 (d4e71df6d): data files can be read past the operating system's cache. */
static inline bool
nxm_direct_io(void)
{
#if PG_VERSION_NUM >= 160000
	return (io_direct_flags & IO_DIRECT_DATA) != 0;
#else
	return false;
#endif
}

/* 19: BufferDesc.state grew to 64 bits. */
static inline uint64
nxm_buffer_state(BufferDesc *desc)
{
#if PG_VERSION_NUM >= 190000
	return pg_atomic_read_u64(&desc->state);
#else
	return pg_atomic_read_u32(&desc->state);
#endif
}

/* 16 (3057465ac): find_option() is exported, the list of settings is not. */
static inline struct config_generic *
nxm_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, LOG);
#else
	struct config_generic **settings = get_guc_variables();
	int			n = GetNumConfigOptions();

	for (int i = 0; i < n; i++)
	{
		if (pg_strcasecmp(settings[i]->name, name) == 0)
			return settings[i];
	}
	return NULL;
#endif
}

/* 19: LWLockNewTrancheId() takes the name and registers it. */
static inline int
nxm_new_lwlock_tranche(const char *name)
{
#if PG_VERSION_NUM >= 190000
	return LWLockNewTrancheId(name);
#else
	int			id = LWLockNewTrancheId();

	LWLockRegisterTranche(id, name);
	return id;
#endif
}

/* ... and other processes need not name it again. */
static inline void
nxm_name_lwlock_tranche(int id, const char *name)
{
#if PG_VERSION_NUM >= 190000
	(void) id;
	(void) name;
#else
	LWLockRegisterTranche(id, name);
#endif
}

/*
 * 17 (8b2bcf3f2): the DSM registry.  19: its callback takes an argument.
 * init() runs in the process that makes the segment, before others see it, and
 * must not raise errors.
 */
#if PG_VERSION_NUM >= 170000
#define NXM_HAVE_DSM_REGISTRY true
#else
#define NXM_HAVE_DSM_REGISTRY false
#endif

#if PG_VERSION_NUM >= 190000
typedef struct NxmNamedSegmentInit
{
	void		(*init) (void *ptr);
} NxmNamedSegmentInit;

static inline void
nxm_named_segment_init(void *ptr, void *arg)
{
	((NxmNamedSegmentInit *) arg)->init(ptr);
}
#endif

static inline void *
nxm_named_segment(const char *name, size_t size, void (*init) (void *ptr))
{
#if PG_VERSION_NUM >= 190000
	NxmNamedSegmentInit arg = {init};
	bool		found;

	return GetNamedDSMSegment(name, size, nxm_named_segment_init, &found, &arg);
#elif PG_VERSION_NUM >= 170000
	bool		found;

	return GetNamedDSMSegment(name, size, init, &found);
#else
	(void) name;
	(void) size;
	(void) init;
	return NULL;
#endif
}

/*
 * A segment of min_dynamic_shared_memory has an odd handle, one of the
 * operating system's an even one: 14 (84b1c63ad) to 19, private to dsm.c.
 */
static inline bool
nxm_dsm_in_main_memory(uint32 handle)
{
	return (handle & 1) != 0;
}

/* 17 (519fc1bd9): intervals can be infinite.  1: it is, -1: negatively, 0: not. */
static inline int
nxm_interval_infinity(const Interval *interval)
{
#if PG_VERSION_NUM >= 170000
	return INTERVAL_IS_NOEND(interval) ? 1 : INTERVAL_IS_NOBEGIN(interval) ? -1 : 0;
#else
	(void) interval;
	return 0;
#endif
}

/* 19: a callback on a system cache is given an enum. */
#if PG_VERSION_NUM >= 190000
typedef SysCacheIdentifier NxmSysCacheId;
#else
typedef int NxmSysCacheId;
#endif

/* 18 (6d376c3b0): a lock that is not to be had can be logged. */
static inline LockAcquireResult
nxm_lock_if_free(const LOCKTAG *tag, LOCKMODE mode, LOCALLOCK **lock)
{
#if PG_VERSION_NUM >= 180000
	return LockAcquireExtended(tag, mode, false, true, false, lock, false);
#else
	return LockAcquireExtended(tag, mode, false, true, false, lock);
#endif
}

/* 19: ShmemInitHash() lost the initial size, which was always the maximum. */
static inline HTAB *
nxm_shmem_init_hash(const char *name, int64 nelem, HASHCTL *ctl, int flags)
{
#if PG_VERSION_NUM >= 190000
	return ShmemInitHash(name, nelem, ctl, flags);
#else
	return ShmemInitHash(name, nelem, nelem, ctl, flags);
#endif
}

/*
 * 19: IndexAmRoutine became const and static, one for all indexes of an AM.
 * On every version a relation is given a pointer to a routine of ours, so the
 * type is all that differs.
 */
#if PG_VERSION_NUM >= 190000
typedef const struct IndexAmRoutine *NxmAmRoutinePtr;
#else
typedef struct IndexAmRoutine *NxmAmRoutinePtr;
#endif

/* 17: a node of a binaryheap has a type of its own. */
#if PG_VERSION_NUM >= 170000
typedef bh_node_type NxmHeapNode;
#else
typedef Datum NxmHeapNode;
#endif

/*
 * 17 (5bf748b86): a btree scan goes through the elements of an array within a
 * leaf; before, it descends anew for each, with the element in its key.
 */
#define NXM_BTREE_ARRAY_BY_ELEMENT (PG_VERSION_NUM < 170000)

/* ... and the array keys, which had their own copies, are among the others. */
static inline ScanKey
nxm_btree_array_key(BTScanOpaque so, int array)
{
#if PG_VERSION_NUM >= 170000
	return &so->keyData[so->arrayKeys[array].scan_key];
#else
	return &so->arrayKeyData[so->arrayKeys[array].scan_key];
#endif
}

/*
 * ... and when a leaf is read the arrays are advanced to what comes behind it;
 * before, they stay at the element whose items were read.  The first step of a
 * scan whose arrays are at `step` that is not on its current leaf; -1: none.
 */
static inline int
nxm_btree_next_step(BTScanOpaque so, ScanDirection dir, int step)
{
#if PG_VERSION_NUM >= 170000
	bool		more = ScanDirectionIsForward(dir) ? so->currPos.moreRight :
		so->currPos.moreLeft;

	return more || so->needPrimScan ? step : -1;
#else
	(void) so;
	(void) dir;
	return step + 1;
#endif
}

/* 18: a btree scan keeps its leaf's left link.  false: it does not. */
static inline bool
nxm_btree_left_link(const BTScanPosData *pos, BlockNumber *link)
{
#if PG_VERSION_NUM >= 180000
	*link = pos->prevPage;
	return true;
#else
	(void) pos;
	(void) link;
	return false;
#endif
}

/*
 * 18: PageIsVerified() ignores checksums only where it is told so, and
 * ignore_checksum_failure, which each user declared before, is in a header.
 */
#if PG_VERSION_NUM < 180000
extern PGDLLIMPORT bool ignore_checksum_failure;
#endif

/* Is it a page that may be read into a buffer?  Says nothing. */
static inline bool
nxm_page_is_verified(Page page, BlockNumber block)
{
#if PG_VERSION_NUM >= 180000
	bool		checksum_failed;

	return PageIsVerified((PageData *) page, block, 0, &checksum_failed);
#else
	return PageIsVerifiedExtended(page, block, 0);
#endif
}

/*
 * 17 (c9c0589fd): an insertion scan key knows that a scan goes backward, and
 * pivotsearch, which such a scan never sets, went.
 */
static inline void
nxm_set_insertion_backward(BTScanInsert key, bool backward)
{
#if PG_VERSION_NUM >= 170000
	key->backward = backward;
#else
	(void) backward;
	key->pivotsearch = false;
#endif
}

/* 18 (276279295): what SetOp compares its columns by is used sorted as well. */
#if PG_VERSION_NUM >= 180000
#define NXM_SETOP_OPERATORS cmpOperators
#else
#define NXM_SETOP_OPERATORS dupOperators
#endif

/*
 * Parts of expressions that are newer than 15 and have no effect of their own:
 * 16: SQL/JSON constructors and IS JSON.  17: SQL/JSON queries, run conditions.
 */
static inline bool
nxm_is_newer_expr(const Node *node)
{
	bool		answer = false;

#if PG_VERSION_NUM >= 160000
	answer = IsA(node, JsonValueExpr) || IsA(node, JsonConstructorExpr) ||
		IsA(node, JsonIsPredicate);
#endif
#if PG_VERSION_NUM >= 170000
	answer = answer || IsA(node, JsonExpr) || IsA(node, JsonBehavior) ||
		IsA(node, WindowFuncRunCondition);
#endif
	(void) node;
	return answer;
}

/*
 * 18 (c65bc2e1d, 9173e8b60): what prints the parts of EXPLAIN, and its state,
 * have headers of their own.
 */
#if PG_VERSION_NUM >= 180000
#define NXM_EXPLAIN_FORMAT_H "commands/explain_format.h"
#define NXM_EXPLAIN_STATE_H "commands/explain_state.h"
#else
#define NXM_EXPLAIN_FORMAT_H "commands/explain.h"
#define NXM_EXPLAIN_STATE_H "commands/explain.h"
#endif

/*
 * 18 (4fd02bf7c): EXPLAIN calls a hook for each node of a plan.  Its address, or
 * NULL.  Needs commands/explain.h.
 */
#if PG_VERSION_NUM >= 180000
#define nxm_explain_node_hook (&explain_per_node_hook)
#else
struct PlanState;
struct ExplainState;
typedef void (*explain_per_node_hook_type) (struct PlanState *node,
											struct List *ancestors,
											const char *relationship,
											const char *plan_name,
											struct ExplainState *es);
#define nxm_explain_node_hook ((explain_per_node_hook_type *) NULL)
#endif

/* 16 (faeedbcef): memory that files are read into is to be aligned for direct I/O. */
#if PG_VERSION_NUM >= 160000
#define NxmReadBlock PGIOAlignedBlock
#else
#define NxmReadBlock PGAlignedBlock
#endif

/* 18 (c01743aa4): a plan counts the disabled nodes of it and below. */
#if PG_VERSION_NUM >= 180000
#define nxm_disabled_nodes(plan) ((plan)->disabled_nodes)
#define nxm_copy_disabled_nodes(to, from) \
	((to)->disabled_nodes = (from)->disabled_nodes)
#else
#define nxm_disabled_nodes(plan) 0
#define nxm_copy_disabled_nodes(to, from) ((void) 0)
#endif

/* 18 (3eea7a0c9): ExecutorRun() lost the promise to run once. */
#if PG_VERSION_NUM >= 180000
#define NXM_EXECUTOR_RUN_ARGS \
	QueryDesc *query, ScanDirection dir, uint64 count
#define NXM_EXECUTOR_RUN_PASS query, dir, count
#else
#define NXM_EXECUTOR_RUN_ARGS \
	QueryDesc *query, ScanDirection dir, uint64 count, bool once
#define NXM_EXECUTOR_RUN_PASS query, dir, count, once
#endif

/* Does this process hold the lock in this very mode? */
static inline bool
nxm_lock_is_held(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/* Does CountDBConnections() count this process?  Walsenders differ by minor release. */
static inline bool
nxm_is_counted_connection(const PGPROC *proc)
{
#if PG_VERSION_NUM >= 190000
	return proc->backendType == B_BACKEND;
#elif PG_VERSION_NUM >= 180000
	return proc->isRegularBackend;
#else
	return !proc->isBackgroundWorker;
#endif
}

/*
 * While preloading: is there a worker of this name?  RegisterBackgroundWorker() does not
 * tell.  18 (b43100f): the list is doubly linked.
 */
static inline bool
nxm_worker_is_registered(const char *name)
{
#if PG_VERSION_NUM >= 180000
#define NXM_WORKER_LIST(what)	dlist_##what
#else
#define NXM_WORKER_LIST(what)	slist_##what
#endif
	NXM_WORKER_LIST(iter) i;

	NXM_WORKER_LIST(foreach) (i, &BackgroundWorkerList)
	{
		if (strcmp(NXM_WORKER_LIST(container) (RegisteredBgWorker, rw_lnode,
											   i.cur)->rw_worker.bgw_name, name) == 0)
			return true;
	}
	return false;
#undef NXM_WORKER_LIST
}

#endif							/* NXM_COMPAT_H */
