/*
 * nxm_hooks.c
 *	  An extension that gives a query another plan while the executor starts, and a
 *	  btree's scans a state that is not what other libraries were compiled for.
 *
 * Loaded before nexusmem, its hook runs inside that of nexusmem.  With
 * nxm_hooks.replace on, the PlannedStmt that the executor has begun is replaced by
 * a copy; at the executor's end a NOTICE tells whether the query still has it.
 *
 * nxm_hooks_swell(index): until its relcache entry is built again, the state of a scan
 * of this btree is twice as large in this session.
 *
 * nxm_hooks_evict(files): takes files, told by paths below the data directory with spaces
 * between them, out of the operating system's cache.
 *
 * nxm_hooks_drop_buffers(relation): writes what this relation has in shared_buffers, or in
 * a session's own, and takes it out of them.
 *
 * Limits: one query, and one such index, at a time.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/amapi.h"
#include "access/genam.h"
#include "access/relation.h"
#include "access/relscan.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "storage/fd.h"
#include "storage/smgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);
PG_FUNCTION_INFO_V1(nxm_hooks_swell);
PG_FUNCTION_INFO_V1(nxm_hooks_evict);
PG_FUNCTION_INFO_V1(nxm_hooks_drop_buffers);

/* renamed in 16 (b0a55e432) */
#if PG_VERSION_NUM < 160000
#define DropRelationBuffers DropRelFileNodeBuffers
#endif

static ambeginscan_function begin_scan;
static IndexAmRoutine swollen;
static bool replace = false;
static PlannedStmt *ours = NULL;
static ExecutorStart_hook_type prev_start = NULL;
static ExecutorEnd_hook_type prev_end = NULL;

static void
executor_start(QueryDesc *query, int eflags)
{
	if (prev_start)
		prev_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	ours = NULL;
	if (replace)
	{
		ours = MemoryContextAlloc(query->estate->es_query_cxt, sizeof(*ours));
		*ours = *query->plannedstmt;
		query->plannedstmt = ours;
	}
}

static void
executor_end(QueryDesc *query)
{
	if (ours != NULL)
		ereport(NOTICE,
				(errmsg("the plan is %s", query->plannedstmt == ours ?
						"still the other extension's" : "not the other extension's")));
	ours = NULL;
	if (prev_end)
		prev_end(query);
	else
		standard_ExecutorEnd(query);
}

static IndexScanDesc
begin_swollen_scan(Relation index, int nkeys, int norderbys)
{
	IndexScanDesc scan = begin_scan(index, nkeys, norderbys);

	scan->opaque = repalloc(scan->opaque, 2 * GetMemoryChunkSpace(scan->opaque));
	return scan;
}

Datum
nxm_hooks_swell(PG_FUNCTION_ARGS)
{
	Relation	index = index_open(PG_GETARG_OID(0), AccessShareLock);

	memcpy(&swollen, index->rd_indam, sizeof(swollen));
	begin_scan = swollen.ambeginscan;
	swollen.ambeginscan = begin_swollen_scan;
	index->rd_indam = &swollen;
	index_close(index, AccessShareLock);
	PG_RETURN_VOID();
}

Datum
nxm_hooks_evict(PG_FUNCTION_ARGS)
{
	char	   *files = text_to_cstring(PG_GETARG_TEXT_PP(0));

	for (char *path = strtok(files, " "); path != NULL; path = strtok(NULL, " "))
	{
		int			fd = OpenTransientFile(path, O_RDWR | PG_BINARY);

		/* what is not written yet stays in the cache */
		if (fd < 0 || fdatasync(fd) != 0 ||
			(errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not take file \"%s\" out of the cache: %m", path)));
		CloseTransientFile(fd);
	}
	PG_RETURN_VOID();
}

Datum
nxm_hooks_drop_buffers(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	SMgrRelation smgr;

	FlushRelationBuffers(rel);
	smgr = RelationGetSmgr(rel);
	for (ForkNumber fork = MAIN_FORKNUM; fork <= VISIBILITYMAP_FORKNUM; fork++)
	{
		BlockNumber first = 0;

		if (smgrexists(smgr, fork))
			DropRelationBuffers(smgr, &fork, 1, &first);
	}
	relation_close(rel, AccessShareLock);
	PG_RETURN_VOID();
}

void
_PG_init(void)
{
	DefineCustomBoolVariable("nxm_hooks.replace", "Replaces plans.", NULL,
							 &replace, false, PGC_USERSET, 0, NULL, NULL, NULL);
	prev_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_end = ExecutorEnd_hook;
	ExecutorEnd_hook = executor_end;
}
