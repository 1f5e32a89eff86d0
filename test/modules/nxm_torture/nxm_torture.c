/*
 * nxm_torture.c
 *	  Ends and stops processes in the middle of operations.
 *
 * A background worker with the handler of SIGTERM that PostgreSQL gave it before 19
 * dies from within that handler, at whatever instruction it is.  The one here has
 * such a handler on all versions, operates on structures without end, and does
 * nothing else, so that it is mostly in an operation.
 *
 * One that drains counters instead ends where it looks for interrupts, in a transaction.
 *
 * The C interface has no caches: SQL's functions of these are called by their addresses,
 * with no statement around them.
 *
 * torture_pause_at() names a place of src/core/pause.h, where the process then
 * stops; false: the library was built without these.
 *
 * Limits: one worker a session at a time.  Dying in a signal handler is never safe
 * outside of what nexusmem protects: so the loop allocates no memory after its
 * first round but what its context keeps.  That of a call in SQL does: it is for
 * dying at a place.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <signal.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "nexusmem/nexusmem_api.h"
#include "postmaster/bgworker.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(torture_pause_at);
PG_FUNCTION_INFO_V1(torture_worker_start);
PG_FUNCTION_INFO_V1(torture_worker_end);

extern PGDLLEXPORT void torture_worker_main(Datum arg);

#define NAME_SIZE 32
#define KEYS 20000

/* Of caches: a few keys that are written all the time, many, and a few with long values. */
#define HOT_KEYS 16
#define CACHE_KEYS 3000
#define FIRST_LONG (CACHE_KEYS - 4)
#define MOST_INLINE 1200
#define LONG_BYTES 20000

/* In bgw_extra. */
typedef struct Order
{
	Oid			database;
	char		work[NAME_SIZE];	/* "map", "queue", "stack", "cache", "all", "drain", or a call */
	char		place[NAME_SIZE];	/* or "" */
} Order;

StaticAssertDecl(sizeof(Order) <= BGW_EXTRALEN, "an order fits");

static BackgroundWorkerHandle *worker = NULL;

static bool
pause_at(const char *place)
{
	char	   *at = dlsym(RTLD_DEFAULT, "nxm_pause_at");

	if (at == NULL)
		return false;
	strlcpy(at, place, NAME_SIZE);
	return true;
}

Datum
torture_pause_at(PG_FUNCTION_ARGS)
{
	/* loads the library */
	(void) nxm_api();
	PG_RETURN_BOOL(pause_at(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/*
 * One round.  At whatever instruction it ends, the sum in the map is not below
 * `done` and not above `begun`.
 */
static void
round_of_map(const NxmApi *nxm, NxmHandle *map, NxmHandle *begun,
			 NxmHandle *done, uint64 i)
{
	char		key[32];
	int			len = snprintf(key, sizeof(key), "w%d", (int) (i * 7919 % KEYS));
	char		bytes[300] = {0};
	NxmApiValue value = {bytes, i % sizeof(bytes), NXM_API_BYTEA};

	if (i % 3 == 0)
		nxm->map_delete(map, key, len);
	else
		nxm->map_put(map, key, len, &value);
	(void) nxm->map_get(map, key, len, &value);
	nxm->counter_add(begun, 1, NULL);
	nxm->map_add(map, "sum", 3, 1);
	nxm->counter_add(done, 1, NULL);
}

/* The same of the length of a queue or stack. */
static void
round_of_list(const NxmApi *nxm, bool queue, NxmHandle *list,
			  NxmHandle *begun, NxmHandle *done, uint64 i)
{
	char		bytes[300] = {0};
	NxmApiValue value = {bytes, i % sizeof(bytes), NXM_API_BYTEA};
	void		(*push) (NxmHandle *, const NxmApiValue *) =
		queue ? nxm->queue_push : nxm->stack_push;
	bool		(*pop) (NxmHandle *, NxmApiValue *) =
		queue ? nxm->queue_pop : nxm->stack_pop;

	nxm->counter_add(begun, 1, NULL);
	push(list, &value);
	nxm->counter_add(done, 1, NULL);
	for (uint64 j = 0; j < i % 3; j++)
	{
		nxm->counter_add(done, -1, NULL);
		if (pop(list, &value))
			nxm->counter_add(begun, -1, NULL);
		else
			nxm->counter_add(done, 1, NULL);
	}
}

/* Functions of caches; all have a key first and the cache's name last. */
typedef enum CacheFunction
{
	CACHE_SET,
	CACHE_ADD,
	CACHE_GET,
	CACHE_DELETE,
	CACHE_EXPIRE,
	CACHE_TTL
} CacheFunction;

static const char *const cache_names[] = {
	"nexusmem.cache_set(text, text, interval, text)",
	"nexusmem.cache_add(text, text, interval, text)",
	"nexusmem.cache_get(text, text)",
	"nexusmem.cache_delete(text, text)",
	"nexusmem.cache_expire(text, interval, text)",
	"nexusmem.cache_ttl(text, text)"
};

static FmgrInfo cache_functions[lengthof(cache_names)];

static void
find_cache_functions(void)
{
	for (int i = 0; i < (int) lengthof(cache_names); i++)
		fmgr_info_cxt(DatumGetObjectId(DirectFunctionCall1(regprocedurein,
														   CStringGetDatum(cache_names[i]))),
					  &cache_functions[i], TopMemoryContext);
}

/* A text that is the caller's memory. */
typedef union Text
{
	text		header;
	char		bytes[VARHDRSZ + LONG_BYTES + NAME_SIZE];
} Text;

/* value, ttl: of those that have them; a ttl of 0 is none.  NULL: it gave no result. */
static const text *
call_cache(CacheFunction which, int key, const Text *value, int64 ttl)
{
	static Text name;
	static Text key_text;
	Interval	interval = {.time = ttl};
	bool		has_ttl = which == CACHE_SET || which == CACHE_ADD || which == CACHE_EXPIRE;
	int			n = 0;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 4);

	SET_VARSIZE(&key_text, VARHDRSZ +
				snprintf(VARDATA(&key_text), NAME_SIZE, "k%d", key));
	SET_VARSIZE(&name, VARHDRSZ + snprintf(VARDATA(&name), NAME_SIZE, "torture"));
	memset(fcinfo, 0, SizeForFunctionCallInfo(4));
	fcinfo->args[n++].value = PointerGetDatum(&key_text);
	if (value != NULL)
		fcinfo->args[n++].value = PointerGetDatum(value);
	if (has_ttl)
	{
		fcinfo->args[n].isnull = ttl == 0;
		fcinfo->args[n++].value = IntervalPGetDatum(&interval);
	}
	fcinfo->args[n++].value = PointerGetDatum(&name);
	fcinfo->flinfo = &cache_functions[which];
	fcinfo->nargs = (short) n;
	result = FunctionCallInvoke(fcinfo);
	return fcinfo->isnull ? NULL : (const text *) DatumGetPointer(result);
}

/* A value of a key tells the key, a number, and that many letters that go with it. */
static void
make_value(Text *value, int key, int n)
{
	char	   *data = VARDATA(value);
	int			len = snprintf(data, NAME_SIZE, "k%d %d ", key, n);

	memset(data + len, 'a' + n % 26, n);
	SET_VARSIZE(value, VARHDRSZ + len + n);
}

/* Is it one of the key, and all of it of one write? */
static bool
is_value(const text *value, int key)
{
	static Text wanted;
	const char *data = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);
	char		head[NAME_SIZE];
	int			of;
	int			n;

	memcpy(head, data, Min(len, NAME_SIZE - 1));
	head[Min(len, NAME_SIZE - 1)] = '\0';
	if (sscanf(head, "k%d %d ", &of, &n) != 2 || of != key || n < 0 || n > LONG_BYTES)
		return false;
	make_value(&wanted, key, n);
	return len == (int) VARSIZE(&wanted) - VARHDRSZ && memcmp(data, VARDATA(&wanted), len) == 0;
}

/*
 * `wrong` counts values that are not of their keys, or not whole.  Of the hot keys alone some
 * expire soon: a test that counts what is there writes them anew.  Long values are not read
 * here, which would take memory: see above.
 */
static void
round_of_cache(const NxmApi *nxm, NxmHandle *wrong, uint64 i)
{
	static const int64 ttls[] = {0, INT64CONST(3600) * USECS_PER_SEC, 200000, 0};
	static Text value;
	uint64		mixed = 0;
	int			cold = 0;
	int			key = (int) (i % HOT_KEYS);
	const text *seen;

	/* lengths that come again, so that values are written where others were */
	make_value(&value, key, (int) (i % 8 * MOST_INLINE / 8));
	(void) call_cache(i % 16 == 5 ? CACHE_ADD : CACHE_SET, key, &value, ttls[i / 16 % 4]);
	for (uint64 k = 0; k < 3; k++)
	{
		/* workers that count about the same rounds are to write other keys */
		mixed = hash_bytes_uint32_extended((uint32) (3 * i + k), (uint64) MyProcPid);
		cold = (int) (mixed % FIRST_LONG);
		make_value(&value, cold, (int) (mixed >> 40) % MOST_INLINE);
		(void) call_cache(CACHE_SET, cold, &value, ttls[mixed >> 60 & 1]);
	}
	for (int k = 0; k < HOT_KEYS; k += 4)
	{
		key = (int) ((i + k) % HOT_KEYS);
		seen = call_cache(CACHE_GET, key, NULL, 0);
		if (seen != NULL && !is_value(seen, key))
		{
			nxm->counter_add(wrong, 1, NULL);
			elog(LOG, "key %d of a cache has the value \"%.*s\"", key,
				 (int) VARSIZE_ANY_EXHDR(seen), VARDATA_ANY(seen));
		}
	}
	if (i % 8 == 0)
		(void) call_cache(CACHE_DELETE, key, NULL, 0);
	if (i % 8 == 3)
		(void) call_cache(CACHE_EXPIRE, cold, NULL, ttls[mixed >> 63]);
	if (i % 8 == 6)
		(void) call_cache(CACHE_TTL, key, NULL, 0);
	if (i % 32 == 7)
	{
		key = FIRST_LONG + (int) (i / 32 % (CACHE_KEYS - FIRST_LONG));
		make_value(&value, key, LONG_BYTES - (int) (i % 256));
		(void) call_cache(i % 128 == 7 ? CACHE_DELETE : CACHE_SET, key,
						  i % 128 == 7 ? NULL : &value, 0);
	}
}

/*
 * As bgworker_die() is in PostgreSQL 18, but for the second SIGTERM, which a test may
 * send: AbortTransaction() unblocks it in the middle of the exit, and FATAL there would
 * leave the callbacks half done, for which the postmaster restarts the server.
 */
static void
die_here(SIGNAL_ARGS)
{
	/* not pqsignal(), which from PostgreSQL 19 on takes no such handler */
	(void) signal(SIGTERM, SIG_IGN);
	sigprocmask(SIG_SETMASK, &BlockSig, NULL);
	ereport(FATAL,
			(errcode(ERRCODE_ADMIN_SHUTDOWN),
			 errmsg("terminating background worker \"%s\" due to administrator command",
					MyBgworkerEntry->bgw_type)));
}

/* Drains all counters, and ends, as a backend does, before its transaction. */
static void
drain_until_end(void)
{
	pqsignal(SIGTERM, die);
	SPI_connect();
	SPI_execute("SELECT nexusmem.counter_drain()", false, 0);
	SPI_execute("SELECT pg_sleep(86400)", false, 0);
}

void
torture_worker_main(Datum arg)
{
	const NxmApi *nxm;
	NxmHandle  *map;
	NxmHandle  *queue;
	NxmHandle  *stack;
	NxmHandle  *begun[3];
	NxmHandle  *done[3];
	NxmHandle  *rounds;
	NxmHandle  *own_rounds;
	NxmHandle  *wrong;
	MemoryContext context;
	Order		order;
	bool		all;

	(void) arg;
	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	all = strcmp(order.work, "all") == 0;
	pqsignal(SIGTERM, die_here);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(order.database, InvalidOid, 0);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	if (strcmp(order.work, "drain") == 0)
		drain_until_end();
	nxm = nxm_api();
	MemoryContextSwitchTo(TopMemoryContext);
	map = nxm->open(NXM_API_MAP, "torture", NXM_API_WRITE | NXM_API_CREATE);
	queue = nxm->open(NXM_API_QUEUE, "torture", NXM_API_WRITE | NXM_API_CREATE);
	stack = nxm->open(NXM_API_STACK, "torture", NXM_API_WRITE | NXM_API_CREATE);
	for (int i = 0; i < 3; i++)
	{
		begun[i] = nxm->open(NXM_API_COUNTER, psprintf("begun %d", i),
							 NXM_API_WRITE | NXM_API_CREATE);
		done[i] = nxm->open(NXM_API_COUNTER, psprintf("done %d", i),
							NXM_API_WRITE | NXM_API_CREATE);
	}
	rounds = nxm->open(NXM_API_COUNTER, "rounds", NXM_API_WRITE | NXM_API_CREATE);
	own_rounds = nxm->open(NXM_API_COUNTER, psprintf("rounds of %d", MyProcPid),
						   NXM_API_WRITE | NXM_API_CREATE);
	wrong = nxm->open(NXM_API_COUNTER, "wrong", NXM_API_WRITE | NXM_API_CREATE);
	find_cache_functions();
	/* all results of a round find place in the block that it keeps */
	context = AllocSetContextCreate(TopMemoryContext, "torture", 0, 64 * 1024, 64 * 1024);
	MemoryContextSwitchTo(context);
	(void) pause_at(order.place);
	while (strchr(order.work, '(') != NULL)
	{
		SPI_connect();
		SPI_execute(psprintf("SELECT %s", order.work), false, 0);
		SPI_finish();
	}
	for (uint64 i = (uint64) MyProcPid;; i++)
	{
		if (all || strcmp(order.work, "map") == 0)
			round_of_map(nxm, map, begun[0], done[0], i);
		if (all || strcmp(order.work, "queue") == 0)
			round_of_list(nxm, true, queue, begun[1], done[1], i);
		if (all || strcmp(order.work, "stack") == 0)
			round_of_list(nxm, false, stack, begun[2], done[2], i);
		if (all || strcmp(order.work, "cache") == 0)
			round_of_cache(nxm, wrong, i);
		nxm->counter_add(rounds, 1, NULL);
		nxm->counter_add(own_rounds, 1, NULL);
		MemoryContextReset(context);
	}
}

Datum
torture_worker_start(PG_FUNCTION_ARGS)
{
	char	   *work = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *place = text_to_cstring(PG_GETARG_TEXT_PP(1));
	BackgroundWorker w;
	Order		order;
	MemoryContext old_context;
	pid_t		pid;

	memset(&order, 0, sizeof(order));
	order.database = MyDatabaseId;
	strlcpy(order.work, work, NAME_SIZE);
	strlcpy(order.place, place, NAME_SIZE);
	memset(&w, 0, sizeof(w));
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = BGW_NEVER_RESTART;
	w.bgw_notify_pid = MyProcPid;
	strlcpy(w.bgw_library_name, "nxm_torture", BGW_MAXLEN);
	strlcpy(w.bgw_function_name, "torture_worker_main", BGW_MAXLEN);
	strlcpy(w.bgw_name, "nxm_torture", BGW_MAXLEN);
	strlcpy(w.bgw_type, "nxm_torture", BGW_MAXLEN);
	memcpy(w.bgw_extra, &order, sizeof(order));

	old_context = MemoryContextSwitchTo(TopMemoryContext);
	if (!RegisterDynamicBackgroundWorker(&w, &worker))
		elog(ERROR, "no room for a background worker");
	MemoryContextSwitchTo(old_context);
	if (WaitForBackgroundWorkerStartup(worker, &pid) != BGWH_STARTED)
		elog(ERROR, "the background worker did not start");
	PG_RETURN_INT32((int32) pid);
}

/* Sends SIGTERM and waits for the end. */
Datum
torture_worker_end(PG_FUNCTION_ARGS)
{
	bool		ended;

	(void) fcinfo;
	if (worker == NULL)
		PG_RETURN_BOOL(false);
	TerminateBackgroundWorker(worker);
	ended = WaitForBackgroundWorkerShutdown(worker) == BGWH_STOPPED;
	pfree(worker);
	worker = NULL;
	PG_RETURN_BOOL(ended);
}
