/*
 * dshash_user.c
 *	  What nexusmem's map is compared with in a server: dshash, PostgreSQL's hash
 *	  table in dynamic shared memory, with 128 partitions, an LWLock each.
 *
 * Keys and values lie in the entries, which have one size: the best case for
 * dshash.  A value is copied out under the lock of its partition.
 *
 * dshash_run() and nexusmem_run() do the same operations in a loop in C, the
 * latter by nexusmem's C interface, without SQL around each one.
 * nexusmem_count() adds to a counter in such a loop.
 *
 * Limits: keys up to 15 bytes, values up to 107; shared_preload_libraries.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/dshash.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/dsa.h"
#include "utils/memutils.h"

#include "nexusmem_api.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

PG_FUNCTION_INFO_V1(dshash_put);
PG_FUNCTION_INFO_V1(dshash_get);
PG_FUNCTION_INFO_V1(dshash_run);
PG_FUNCTION_INFO_V1(nexusmem_run);
PG_FUNCTION_INFO_V1(nexusmem_count);

typedef struct Entry
{
	char		key[16];		/* filled up with zeros */
	uint32		len;
	char		value[108];
} Entry;

typedef struct Anchor
{
	dsa_handle	area;
	dshash_table_handle table;
	bool		made;			/* under the lock */
} Anchor;

/* Lock tranches of the server's own do: their names show in wait events alone. */
static const dshash_parameters parameters = {
	.key_size = sizeof(((Entry *) 0)->key),
	.entry_size = sizeof(Entry),
	.compare_function = dshash_memcmp,
	.hash_function = dshash_memhash,
#ifdef HAVE_DSHASH_MEMCPY
	.copy_function = dshash_memcpy,
#endif
	.tranche_id = LWTRANCHE_PER_SESSION_RECORD_TYPE
};

static Anchor *anchor;
static dshash_table *table;
static shmem_request_hook_type next_request;
static shmem_startup_hook_type next_startup;

static void
request(void)
{
	if (next_request)
		next_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Anchor)));
	RequestNamedLWLockTranche("dshash_user", 1);
}

static void
startup(void)
{
	bool		found;

	if (next_startup)
		next_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	anchor = ShmemInitStruct("dshash_user", sizeof(Anchor), &found);
	if (!found)
		memset(anchor, 0, sizeof(Anchor));
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	next_request = shmem_request_hook;
	shmem_request_hook = request;
	next_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

static void
attach(void)
{
	LWLock	   *lock;
	MemoryContext old;
	dsa_area   *area;

	if (table != NULL)
		return;
	if (anchor == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dshash_user is not preloaded"),
				 errhint("Add it to shared_preload_libraries.")));
	lock = &GetNamedLWLockTranche("dshash_user")->lock;
	old = MemoryContextSwitchTo(TopMemoryContext);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (!anchor->made)
	{
		area = dsa_create(LWTRANCHE_PER_SESSION_DSA);
		dsa_pin(area);
		dsa_pin_mapping(area);
		table = dshash_create(area, &parameters, NULL);
		anchor->area = dsa_get_handle(area);
		anchor->table = dshash_get_hash_table_handle(table);
		anchor->made = true;
	}
	else
	{
		area = dsa_attach(anchor->area);
		dsa_pin_mapping(area);
		table = dshash_attach(area, &parameters, anchor->table, NULL);
	}
	LWLockRelease(lock);
	MemoryContextSwitchTo(old);
}

static void
make_key(char *key, const char *data, size_t len)
{
	if (len >= sizeof(((Entry *) 0)->key))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("key is too long")));
	memset(key, 0, sizeof(((Entry *) 0)->key));
	memcpy(key, data, len);
}

static bool
put(const char *key, const char *value, size_t len)
{
	bool		found;
	Entry	   *entry;

	if (len > sizeof(entry->value))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value is too long")));
	entry = dshash_find_or_insert(table, key, &found);
	entry->len = (uint32) len;
	memcpy(entry->value, value, len);
	dshash_release_lock(table, entry);
	return !found;
}

Datum
dshash_put(PG_FUNCTION_ARGS)
{
	text	   *key_arg = PG_GETARG_TEXT_PP(0);
	text	   *value = PG_GETARG_TEXT_PP(1);
	char		key[sizeof(((Entry *) 0)->key)];

	attach();
	make_key(key, VARDATA_ANY(key_arg), VARSIZE_ANY_EXHDR(key_arg));
	PG_RETURN_BOOL(put(key, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)));
}

Datum
dshash_get(PG_FUNCTION_ARGS)
{
	text	   *key_arg = PG_GETARG_TEXT_PP(0);
	char		key[sizeof(((Entry *) 0)->key)];
	Entry	   *entry;
	text	   *result;

	attach();
	make_key(key, VARDATA_ANY(key_arg), VARSIZE_ANY_EXHDR(key_arg));
	entry = dshash_find(table, key, false);
	if (entry == NULL)
		PG_RETURN_NULL();
	/* an allocation under the lock could fail: errors release it */
	result = cstring_to_text_with_len(entry->value, (int) entry->len);
	dshash_release_lock(table, entry);
	PG_RETURN_TEXT_P(result);
}

/*
 * The loop: n operations on keys 'k0' to 'k<keys - 1>' in random order, `reads` of
 * 100 of them gets.  Returns how many gets found their key.
 */
typedef struct Loop
{
	int64		n;
	int			reads;
	uint32		keys;
	uint64		random;
} Loop;

static inline bool
next_operation(Loop *loop, char *key, size_t *len, bool *read)
{
	uint64		x;

	if (loop->n-- <= 0)
		return false;
	loop->random ^= loop->random >> 12;
	loop->random ^= loop->random << 25;
	loop->random ^= loop->random >> 27;
	x = loop->random * UINT64CONST(2685821657736338717);
	key[0] = 'k';
	*len = 1 + (size_t) pg_ulltoa_n(((x >> 32) * loop->keys) >> 32, key + 1);
	*read = (int) ((x & 0xFFFF) * 100 >> 16) < loop->reads;
	if ((loop->n & 0xFFF) == 0)
		CHECK_FOR_INTERRUPTS();
	return true;
}

#define LOOP_OF_ARGS() \
	{ PG_GETARG_INT64(0), PG_GETARG_INT32(1), (uint32) PG_GETARG_INT32(2), \
	  (uint64) PG_GETARG_INT64(3) * 2 + 1 }

Datum
dshash_run(PG_FUNCTION_ARGS)
{
	Loop		loop = LOOP_OF_ARGS();
	char		value[100];
	char		copy[sizeof(((Entry *) 0)->value) + 1];
	char		text[24];
	char		key[sizeof(((Entry *) 0)->key)];
	size_t		len;
	bool		read;
	int64		found = 0;

	attach();
	memset(value, 'v', sizeof(value));
	while (next_operation(&loop, text, &len, &read))
	{
		make_key(key, text, len);
		if (read)
		{
			Entry	   *entry = dshash_find(table, key, false);

			if (entry != NULL)
			{
				/* as nexusmem's interface gives it: a copy of one's own */
				memcpy(copy, entry->value, entry->len);
				copy[entry->len] = '\0';
				dshash_release_lock(table, entry);
				found++;
			}
		}
		else
			put(key, value, sizeof(value));
	}
	PG_RETURN_INT64(found);
}

Datum
nexusmem_run(PG_FUNCTION_ARGS)
{
	Loop		loop = LOOP_OF_ARGS();
	const NxmApi *nxm = nxm_api();
	NxmHandle  *map = nxm->open(NXM_API_MAP, "bench", NXM_API_WRITE | NXM_API_CREATE);
	char		bytes[100];
	NxmApiValue value = {bytes, sizeof(bytes), NXM_API_TEXT};
	char		copy[sizeof(((Entry *) 0)->value) + 1];
	char		key[24];
	size_t		len;
	bool		read;
	int64		found = 0;

	memset(bytes, 'v', sizeof(bytes));
	while (next_operation(&loop, key, &len, &read))
	{
		if (read)
		{
			NxmApiValue got;

			if (nxm->map_read(map, key, len, copy, sizeof(copy), &got))
				found++;
		}
		else
			nxm->map_put(map, key, len, &value);
	}
	nxm->close(map);
	PG_RETURN_INT64(found);
}

Datum
nexusmem_count(PG_FUNCTION_ARGS)
{
	int64		n = PG_GETARG_INT64(0);
	const NxmApi *nxm = nxm_api();
	NxmHandle  *counter = nxm->open(NXM_API_COUNTER,
									text_to_cstring(PG_GETARG_TEXT_PP(1)), NXM_API_WRITE);

	for (int64 i = 0; i < n; i++)
	{
		nxm->counter_add(counter, 1, NULL);
		if ((i & 0xFFFF) == 0)
			CHECK_FOR_INTERRUPTS();
	}
	nxm->close(counter);
	PG_RETURN_INT64(n);
}
