/*
 * prefetch_stats.c
 *	  Counts of look-ahead, by relation and kind, in a bounded shared table.
 *
 * A scan counts in a process-local entry, one for each relation and kind that
 * the transaction touches, found once a scan (once a block, of kind learned,
 * which costs far less than the block's read).  At the end of the transaction the
 * entries are added to the shared table, as PostgreSQL does with its own
 * statistics.  Blocks still in flight then belong to scans that an error
 * ended: they count as wasted, so that issued is always used + wasted.
 *
 * The shared table has MAX_RELATIONS entries, each of a relation of a database
 * and a kind.  A new one finding it full makes EVICTED of those leave that were not
 * counted for longest, as pg_stat_statements does: to look for them is a walk through
 * the table.  One LWLock: shared to find an entry and add to it (atomically),
 * exclusive to insert, evict or forget, with SIGTERM kept away.  It is taken when a
 * transaction ends that looked ahead, once for each entry, never else.
 *
 * What was dropped leaves when somebody reads the view: relations of this database,
 * and whole databases.  Until then it takes a place of the table at most.  (So do the
 * counts of a relation that a prepared transaction has made, if somebody reads them before
 * it is committed.)  An object access hook would tell of drops at once, but takes from all
 * sessions, be look-ahead on or not, what namespace.c remembers of search_path since 17 (it
 * computes the path anew wherever there is such a hook), and does not see sessions without
 * the library.
 *
 * Without preloading there is no shared table.  The view then shows what this
 * session did, from an array of MAX_SESSION entries that works by the same
 * rules.  It is static, for at a transaction's end nothing may be allocated.
 *
 * Limits: a transaction counts up to MAX_LOCAL relations and kinds one by one,
 * those past it only in the session's totals.
 */
#include "prefetch_stats.h"

#include "access/xact.h"
#include "compat.h"
#include "shmem.h"
#include "storage/lock.h"
#include "utils/hsearch.h"
#include "utils/syscache.h"

#define MAX_RELATIONS 4096
#define MAX_SESSION 512
#define MAX_LOCAL 512
#define EVICTED (MAX_RELATIONS / 16)

typedef struct StatKey
{
	Oid			database;
	Oid			relation;
	int32		kind;
} StatKey;

typedef struct StatEntry
{
	StatKey		key;			/* immutable while the entry exists */
	pg_atomic_uint32 age;		/* shared->clock when last counted */
	pg_atomic_uint64 stat[NXM_NUM_PREFETCH_STATS];
} StatEntry;

/* The same without shared memory: this process's own. */
typedef struct SessionEntry
{
	StatKey		key;
	uint32		age;			/* session_clock when last counted */
	int64		stat[NXM_NUM_PREFETCH_STATS];
} SessionEntry;

typedef struct StatShared
{
	LWLock		lock;
	pg_atomic_uint32 clock;		/* one tick a transaction that counted */

	/* set once, under the lock, before off is */
	char		off_reason[128];
	pg_atomic_uint32 off;
} StatShared;

static StatShared *shared = NULL;
static HTAB *table = NULL;

static NxmPrefetchCounts local[MAX_LOCAL];
static int	nlocal = 0;
/* for those past MAX_LOCAL, and what earlier transactions counted */
static NxmPrefetchCounts overflow[NXM_NUM_PREFETCH_KINDS];
static int64 session[NXM_NUM_PREFETCH_KINDS][NXM_NUM_PREFETCH_STATS];
/* used only where shared is NULL */
static SessionEntry session_entry[MAX_SESSION];
static int	nsession_entries = 0;
static uint32 session_clock = 0;
static char local_off_reason[128];

NxmPrefetchCounts *
nxm_prefetch_counts(Oid relation, NxmPrefetchKind kind)
{
	NxmPrefetchCounts *c;

	for (int i = 0; i < nlocal; i++)
	{
		if (local[i].relation == relation && local[i].kind == kind)
			return &local[i];
	}
	if (nlocal == MAX_LOCAL)
		return &overflow[kind];
	c = &local[nlocal++];
	memset(c, 0, sizeof(*c));
	c->relation = relation;
	c->kind = kind;
	return c;
}

static int
compare_ages(const void *a, const void *b)
{
	uint32		x = *(const uint32 *) a;
	uint32		y = *(const uint32 *) b;

	return (x > y) - (x < y);
}

/* Makes room by dropping EVICTED entries not counted for longest.  Lock exclusive. */
static void
evict_oldest(void)
{
	static uint32 ages[MAX_RELATIONS];
	HASH_SEQ_STATUS seq;
	StatEntry  *entry;
	uint32		now = pg_atomic_read_u32(&shared->clock);
	int			n = 0;

	hash_seq_init(&seq, table);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		Assert(n < MAX_RELATIONS);
		ages[n++] = now - pg_atomic_read_u32(&entry->age);
	}
	qsort(ages, n, sizeof(ages[0]), compare_ages);
	hash_seq_init(&seq, table);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (now - pg_atomic_read_u32(&entry->age) >= ages[n - EVICTED])
			hash_search(table, &entry->key, HASH_REMOVE, NULL);
	}
}

/* NULL where there is no room.  Lock exclusive. */
static StatEntry *
insert_entry(const StatKey *key)
{
	bool		found;
	StatEntry  *entry = hash_search(table, key, HASH_ENTER_NULL, &found);

	if (entry != NULL && !found)
	{
		pg_atomic_init_u32(&entry->age, 0);
		for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
			pg_atomic_init_u64(&entry->stat[i], 0);
	}
	return entry;
}

static void
add_counts(StatEntry *entry, const NxmPrefetchCounts *c)
{
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
	{
		if (c->stat[i] != 0)
			pg_atomic_fetch_add_u64(&entry->stat[i], c->stat[i]);
	}
}

/* To change the table. */
static void
lock_table(void)
{
	nxm_hold_signals();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
}

static void
unlock_table(void)
{
	LWLockRelease(&shared->lock);
	nxm_let_signals();
}

static void
flush_shared(const NxmPrefetchCounts *c)
{
	StatKey		key = {MyDatabaseId, c->relation, c->kind};
	StatEntry  *entry;
	bool		insert;

	LWLockAcquire(&shared->lock, LW_SHARED);
	entry = hash_search(table, &key, HASH_FIND, NULL);
	insert = entry == NULL;
	if (insert)
	{
		LWLockRelease(&shared->lock);
		lock_table();
		if (hash_get_num_entries(table) >= MAX_RELATIONS)
			evict_oldest();
		entry = insert_entry(&key);
	}
	if (entry != NULL)
	{
		pg_atomic_write_u32(&entry->age,
							pg_atomic_fetch_add_u32(&shared->clock, 1));
		add_counts(entry, c);
	}
	if (insert)
		unlock_table();
	else
		LWLockRelease(&shared->lock);
}

static void
flush_session(const NxmPrefetchCounts *c)
{
	StatKey		key = {MyDatabaseId, c->relation, c->kind};
	SessionEntry *entry = NULL;
	SessionEntry *oldest = &session_entry[0];

	for (int i = 0; i < nsession_entries && entry == NULL; i++)
	{
		SessionEntry *e = &session_entry[i];

		if (memcmp(&e->key, &key, sizeof(key)) == 0)
			entry = e;
		else if (session_clock - e->age > session_clock - oldest->age)
			oldest = e;
	}
	if (entry == NULL)
	{
		entry = nsession_entries < MAX_SESSION ?
			&session_entry[nsession_entries++] : oldest;
		entry->key = key;
		memset(entry->stat, 0, sizeof(entry->stat));
	}
	entry->age = session_clock++;
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		entry->stat[i] += c->stat[i];
}

static void
end_counts(NxmPrefetchCounts *c)
{
	c->stat[NXM_STAT_wasted] = c->stat[NXM_STAT_issued] -
		c->stat[NXM_STAT_used];
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
		session[c->kind][i] += c->stat[i];
}

/* Runs where nothing may fail: after the commit record, in an abort, at an exit. */
void
nxm_prefetch_stats_flush(void)
{
	/*
	 * A background worker may have been ended in here by its handler of SIGTERM: it goes
	 * on with what is left, and not where it holds the lock yet.
	 */
	if (shared != NULL && LWLockHeldByMe(&shared->lock))
		return;
	while (nlocal > 0)
	{
		NxmPrefetchCounts *c = &local[--nlocal];

		if (c->stat[NXM_STAT_issued] == 0 && c->stat[NXM_STAT_skipped] == 0)
			continue;
		end_counts(c);
		if (shared != NULL)
			flush_shared(c);
		else
			flush_session(c);
	}
	for (int k = 0; k < NXM_NUM_PREFETCH_KINDS; k++)
	{
		overflow[k].kind = k;
		end_counts(&overflow[k]);
		memset(overflow[k].stat, 0, sizeof(overflow[k].stat));
	}
}

static void
forget_session(const StatKey *key)
{
	for (int i = 0; i < nsession_entries; i++)
	{
		if (memcmp(&session_entry[i].key, key, sizeof(*key)) == 0)
		{
			session_entry[i] = session_entry[--nsession_entries];
			return;
		}
	}
}

/* Forgets these.  Takes the lock. */
static void
forget(const StatKey *keys, int nkeys)
{
	if (shared == NULL)
	{
		for (int i = 0; i < nkeys; i++)
			forget_session(&keys[i]);
		return;
	}
	lock_table();
	for (int i = 0; i < nkeys; i++)
		hash_search(table, &keys[i], HASH_REMOVE, NULL);
	unlock_table();
}

static void
xact_callback(XactEvent event, void *arg)
{
	(void) arg;
	if (likely(nlocal == 0))
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			nxm_prefetch_stats_flush();
			break;
		default:
			break;
	}
}

void
nxm_session_prefetch(NxmPrefetchKind kind, int64 stat[NXM_NUM_PREFETCH_STATS])
{
	memcpy(stat, session[kind], sizeof(session[kind]));
	for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
	{
		for (int j = 0; j < nlocal; j++)
		{
			if (local[j].kind == kind)
				stat[i] += local[j].stat[i];
		}
		stat[i] += overflow[kind].stat[i];
	}
}

static void
set_row(NxmPrefetchRow *row, const StatKey *key)
{
	row->database = key->database;
	row->relation = key->relation;
	row->kind = key->kind;
}

/* Copies the table, at most MAX_RELATIONS entries.  Takes the lock. */
static int
copy_shared(NxmPrefetchRow *rows)
{
	HASH_SEQ_STATUS seq;
	StatEntry  *entry;
	int			n = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	hash_seq_init(&seq, table);
	while ((entry = hash_seq_search(&seq)) != NULL && n < MAX_RELATIONS)
	{
		NxmPrefetchRow *row = &rows[n++];

		set_row(row, &entry->key);
		for (int i = 0; i < NXM_NUM_PREFETCH_STATS; i++)
			row->stat[i] = pg_atomic_read_u64(&entry->stat[i]);
	}
	if (entry != NULL)
		hash_seq_term(&seq);
	LWLockRelease(&shared->lock);
	return n;
}

static int
copy_session(NxmPrefetchRow *rows)
{
	for (int i = 0; i < nsession_entries; i++)
	{
		set_row(&rows[i], &session_entry[i].key);
		memcpy(rows[i].stat, session_entry[i].stat, sizeof(rows[i].stat));
	}
	return nsession_entries;
}

/* Was the relation of key, or its database, dropped? */
static bool
is_gone(const StatKey *key)
{
	if (key->database == MyDatabaseId)
		return !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(key->relation));
	return !SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(key->database));
}

/* By this very transaction, which may yet be rolled back? */
static bool
is_ours_to_drop(const StatKey *key)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, key->database, key->relation);
	return nxm_lock_is_held(&tag, AccessExclusiveLock);
}

NxmPrefetchRow *
nxm_prefetch_rows(int *nrows)
{
	int			max = shared != NULL ? MAX_RELATIONS : MAX_SESSION;
	NxmPrefetchRow *rows = palloc(sizeof(NxmPrefetchRow) * max);
	StatKey    *gone = palloc(sizeof(StatKey) * max);
	int			ngone = 0;
	int			n = shared != NULL ? copy_shared(rows) : copy_session(rows);

	*nrows = 0;

	/* catalog look-ups may do anything: not under the lock */
	for (int i = 0; i < n; i++)
	{
		StatKey		key = {rows[i].database, rows[i].relation, rows[i].kind};

		if (is_gone(&key))
		{
			if (!is_ours_to_drop(&key))
				gone[ngone++] = key;
		}
		else
			rows[(*nrows)++] = rows[i];
	}
	if (ngone > 0)
		forget(gone, ngone);
	pfree(gone);
	return rows;
}

void
nxm_prefetch_stats_reset(void)
{
	HASH_SEQ_STATUS seq;
	StatEntry  *entry;

	if (shared == NULL)
	{
		nsession_entries = 0;
		return;
	}
	lock_table();
	hash_seq_init(&seq, table);
	while ((entry = hash_seq_search(&seq)) != NULL)
		hash_search(table, &entry->key, HASH_REMOVE, NULL);
	unlock_table();
}

const char *
nxm_prefetch_kind_name(NxmPrefetchKind kind)
{
	switch (kind)
	{
		case NXM_PREFETCH_INDEX:
			return "index";
		case NXM_PREFETCH_NESTLOOP:
			return "nestloop";
		case NXM_PREFETCH_LEARNED:
			return "learned";
		case NXM_NUM_PREFETCH_KINDS:
			break;
	}
	return "unknown";
}

void
nxm_prefetch_switch_off(const char *reason)
{
	bool		first = local_off_reason[0] == '\0';

	strlcpy(local_off_reason, reason, sizeof(local_off_reason));
	if (shared != NULL)
	{
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		first = pg_atomic_read_u32(&shared->off) == 0;
		if (first)
		{
			strlcpy(shared->off_reason, reason, sizeof(shared->off_reason));
			pg_write_barrier(); /* pairs with nxm_prefetch_off_reason() */
			pg_atomic_write_u32(&shared->off, 1);
		}
		LWLockRelease(&shared->lock);
	}
	if (first)
		ereport(LOG,
				(errmsg("nexusmem switched index look-ahead off: %s", reason),
				 errhint("See the view nexusmem.status.")));
}

const char *
nxm_prefetch_off_reason(void)
{
	if (shared != NULL && pg_atomic_read_u32(&shared->off) != 0)
	{
		pg_read_barrier();
		return shared->off_reason;
	}
	return local_off_reason;
}

Size
nxm_prefetch_stats_size(void)
{
	return sizeof(StatShared);
}

Size
nxm_prefetch_stats_extra(void)
{
	return hash_estimate_size(MAX_RELATIONS, sizeof(StatEntry));
}

void
nxm_prefetch_stats_shmem_init(void *ptr, bool found)
{
	HASHCTL		ctl = {
		.keysize = sizeof(StatKey),
		.entrysize = sizeof(StatEntry)
	};

	shared = ptr;
	if (!found)
	{
		LWLockInitialize(&shared->lock,
						 nxm_new_lwlock_tranche("nexusmem_prefetch_stats"));
		pg_atomic_init_u32(&shared->clock, 0);
		pg_atomic_init_u32(&shared->off, 0);
		shared->off_reason[0] = '\0';
	}
	table = nxm_shmem_init_hash("nexusmem stat_prefetch", MAX_RELATIONS, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

void
nxm_prefetch_stats_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
