/*
 * stress_map.c
 *	  The hash map under many workers, growing from nothing.
 *
 * What must hold for a key can be told while others work on the map: one worker
 * alone writes its keys, and knows what each result has to be; others who read
 * them never see an older version after a newer one; a key that all write is
 * inserted and deleted by turns, and counters in it add up.
 */
#include <stdio.h>
#include <stdlib.h>

#include "map.h"
#include "stress_run.h"

#define OWN_KEYS 20000			/* of a worker */
#define SHARED_KEYS 64
#define STABLE_KEYS 3000

typedef struct Test
{
	NxmMap		map;
	NxmAtomic	clears;
	NxmAtomic	removed;
	struct
	{
		NxmAtomic	inserted[SHARED_KEYS];	/* by this worker */
		NxmAtomic	deleted[SHARED_KEYS];
		NxmAtomic	added[SHARED_KEYS];
	}			count[STRESS_MAX_WORKERS];
} Test;

/* Bits of the hash that are used: fewer give keys of the same hash. */
static uint64_t hash_mask = UINT64_MAX;

typedef struct KeyText
{
	char		text[NXM_MAX_KEY + 1];
	NxmKey		key;
} KeyText;

/* Keys of one kind differ in length: a few are long. */
static const NxmKey *
make_key(KeyText *k, char kind, uint64_t who, uint64_t n)
{
	int			len = snprintf(k->text, sizeof(k->text), "%c%llu:%llu", kind,
							   (unsigned long long) who, (unsigned long long) n);

	if (n % 97 == 0)
	{
		uint32_t	longer = (uint32_t) (NXM_MAX_KEY - n % 500);

		memset(k->text + len, '.', longer - (uint32_t) len);
		len = (int) longer;
	}
	k->key = (NxmKey) {k->text, (uint32_t) len,
	env_hash(k->text, (size_t) len) & hash_mask};
	return &k->key;
}

static NxmResult
put(Worker *worker, const NxmKey *key, const NxmValue *value)
{
	Test	   *test = worker->test;
	NxmResult	r;

	ENV_DO(&worker->space, r, nxm_map_put(&worker->space, &test->map, key, value));
	return r;
}

static NxmResult
get(Worker *worker, const NxmKey *key, NxmBuffer *buffer)
{
	Test	   *test = worker->test;
	NxmResult	r;

	ENV_DO(&worker->space, r, nxm_map_get(&worker->space, &test->map, key, buffer));
	return r;
}

static NxmResult
delete(Worker *worker, const NxmKey *key)
{
	Test	   *test = worker->test;
	NxmResult	r;

	ENV_DO(&worker->space, r, nxm_map_delete(&worker->space, &test->map, key));
	return r;
}

static NxmValue
make_value(Worker *worker, uint32_t len, uint64_t who, uint64_t version)
{
	NxmValue	value = {worker->buffer2, 0, (NxmType) (version % 3)};

	value.len = stress_fill(worker->buffer2, len, who, version);
	return value;
}

/* Gets a key and checks the value; its version, or 0: absent. */
static uint64_t
get_version(Worker *worker, const NxmKey *key, uint64_t who)
{
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	uint64_t	seen;
	uint64_t	version;
	NxmResult	r;

	if (env_below(&worker->random, 32) == 0)
	{
		buffer.size = 20;
		r = get(worker, key, &buffer);
		CHECK(worker, r == NXM_NEED_BUFFER || r == NXM_ABSENT, "a short buffer: %d", (int) r);
		buffer.size = NXM_MAX_VALUE;
	}
	r = get(worker, key, &buffer);
	if (r == NXM_ABSENT)
		return 0;
	CHECK(worker, r == NXM_OK, "get: %d", (int) r);
	stress_verify(worker, buffer.data, (uint32_t) buffer.len, &seen, &version);
	CHECK(worker, seen == who, "key %.20s has the value of %llx", key->data,
		  (unsigned long long) seen);
	CHECK(worker, buffer.type == (NxmType) (version % 3), "key %.20s has type %d", key->data,
		  (int) buffer.type);
	return version;
}

#define WHO(worker, n) ((uint64_t) (worker) << 32 | (n))

/*
 * Each writes its own keys and knows what is in the map; and reads those of the
 * others, whose versions never go back.
 */
static void
own_keys(Worker *worker)
{
	uint64_t   *version = calloc(OWN_KEYS, sizeof(uint64_t));
	uint64_t   *last = calloc((size_t) OWN_KEYS * (size_t) worker->nworkers, sizeof(uint64_t));
	uint64_t	next = 1;
	KeyText		k;

	CHECK(worker, version != NULL && last != NULL, "no memory");
	while (stress_go(worker))
	{
		/* half of the work on few keys */
		uint32_t	n = env_below(&worker->random,
								  env_below(&worker->random, 2) == 0 ? 40 : OWN_KEYS);
		uint32_t	dice = env_below(&worker->random, 100);
		const NxmKey *key = make_key(&k, 'o', (uint64_t) worker->id, n);
		NxmResult	r;

		if (dice < 40)
		{
			NxmValue	value = make_value(worker, stress_length(worker),
										   WHO(worker->id, n), next);

			r = put(worker, key, &value);
			CHECK(worker, r == (version[n] == 0 ? NXM_OK : NXM_EXISTS),
				  "put of %.20s: %d, version was %llu", key->data, (int) r,
				  (unsigned long long) version[n]);
			version[n] = next++;
		}
		else if (dice < 55)
		{
			r = delete(worker, key);
			CHECK(worker, r == (version[n] == 0 ? NXM_ABSENT : NXM_OK),
				  "delete of %.20s: %d, version was %llu", key->data, (int) r,
				  (unsigned long long) version[n]);
			version[n] = 0;
		}
		else if (dice < 75)
		{
			uint64_t	is = get_version(worker, key, WHO(worker->id, n));

			CHECK(worker, is == version[n], "get of %.20s: version %llu for %llu", key->data,
				  (unsigned long long) is, (unsigned long long) version[n]);
		}
		else
		{
			uint32_t	other = env_below(&worker->random, (uint32_t) worker->nworkers);
			uint64_t   *before = &last[(size_t) other * OWN_KEYS + n];
			uint64_t	is;

			key = make_key(&k, 'o', other, n);
			is = get_version(worker, key, WHO(other, n));
			CHECK(worker, is == 0 || is >= *before, "%.20s went back from %llu to %llu",
				  key->data, (unsigned long long) *before, (unsigned long long) is);
			if (is != 0)
				*before = is;
		}
	}
	/* the end: what is there is what should be, and then nothing */
	for (uint32_t n = 0; n < OWN_KEYS; n++)
	{
		const NxmKey *key = make_key(&k, 'o', (uint64_t) worker->id, n);
		uint64_t	is = get_version(worker, key, WHO(worker->id, n));
		NxmResult	r;

		CHECK(worker, is == version[n], "at the end %.20s has version %llu for %llu", key->data,
			  (unsigned long long) is, (unsigned long long) version[n]);
		r = delete(worker, key);
		CHECK(worker, r == (version[n] == 0 ? NXM_ABSENT : NXM_OK),
			  "at the end, delete of %.20s: %d", key->data, (int) r);
	}
	free(version);
	free(last);
}

/* All write the same keys. */
static void
shared_keys(Worker *worker)
{
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;
	uint64_t	next = 1;
	KeyText		k;

	while (stress_go(worker))
	{
		uint32_t	n = env_below(&worker->random, SHARED_KEYS);
		uint32_t	dice = env_below(&worker->random, 100);
		const NxmKey *key = make_key(&k, 's', 0, n);
		NxmValue	value;
		NxmResult	r;
		int64_t		sum;

		value = make_value(worker, STRESS_MIN_VALUE + env_below(&worker->random, 60),
						   WHO(0, n), next++);
		if (dice < 20)
		{
			r = put(worker, key, &value);
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS, "put: %d", (int) r);
			if (r == NXM_OK)
				nxm_fetch_add(&test->count[worker->id].inserted[n], 1);
		}
		else if (dice < 40)
		{
			ENV_DO(space, r, nxm_map_put_if(space, &test->map, key, NULL, &value));
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS, "put if absent: %d", (int) r);
			if (r == NXM_OK)
				nxm_fetch_add(&test->count[worker->id].inserted[n], 1);
		}
		else if (dice < 70)
		{
			r = delete(worker, key);
			CHECK(worker, r == NXM_OK || r == NXM_ABSENT, "delete: %d", (int) r);
			if (r == NXM_OK)
				nxm_fetch_add(&test->count[worker->id].deleted[n], 1);
		}
		else if (dice < 80)
		{
			/* it can be there and be ours, or not */
			NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};

			r = get(worker, key, &buffer);
			if (r == NXM_OK)
			{
				NxmValue	expected = {buffer.data, (uint32_t) buffer.len, buffer.type};

				ENV_DO(space, r, nxm_map_put_if(space, &test->map, key, &expected, &value));
				CHECK(worker, r == NXM_OK || r == NXM_MISMATCH || r == NXM_ABSENT,
					  "put if the same: %d", (int) r);
			}
		}
		else if (dice < 90)
			get_version(worker, key, WHO(0, n));
		else
		{
			int64_t		delta = (int64_t) env_below(&worker->random, 1000) - 300;

			key = make_key(&k, 'c', 0, n);
			ENV_DO(space, r, nxm_map_add(space, &test->map, key, delta, &sum));
			CHECK(worker, r == NXM_OK, "add: %d", (int) r);
			nxm_fetch_add(&test->count[worker->id].added[n], (uint64_t) delta);
		}
		/* others, for the map to grow and split around them */
		if (dice % 4 == 0)
		{
			key = make_key(&k, 'g', (uint64_t) worker->id, worker->turn / 2);
			r = put(worker, key, &value);
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS, "put: %d", (int) r);
		}
	}
}

/* What one scan has seen of the keys that are always there. */
typedef struct Seen
{
	Worker	   *worker;
	uint8_t		stable[STABLE_KEYS];
	uint32_t	in_bucket[512];	/* of the bucket being read */
	uint32_t	nbucket;
	uint64_t	entries;
	uint64_t	bucket_entries;
} Seen;

static void
scan_begin(void *context)
{
	Seen	   *seen = context;

	seen->nbucket = 0;
	seen->bucket_entries = 0;
}

static NxmResult
scan_each(NxmSpace *space, NxmRef ref, const NxmItem *item, void *context)
{
	Seen	   *seen = context;
	uint32_t	len = NXM_ITEM_KEY_LEN(item->header);
	const char *key = nxm_item_key(item);
	char		text[32] = {0};

	(void) space;
	(void) ref;
	seen->bucket_entries++;
	memcpy(text, key, len < 31 ? len : 31);
	if (text[0] == 't')
	{
		CHECK(seen->worker, seen->nbucket < 512, "a bucket of 512 entries");
		seen->in_bucket[seen->nbucket++] = (uint32_t) atoi(text + 3);
	}
	return NXM_OK;
}

static NxmResult
scan(Worker *worker, Seen *seen)
{
	Test	   *test = worker->test;
	uint64_t	position = 0;
	NxmResult	r;

	memset(seen, 0, sizeof(*seen));
	seen->worker = worker;
	do
	{
		ENV_DO(&worker->space, r,
			   nxm_map_scan(&worker->space, &test->map, &position, scan_begin, scan_each, seen));
		CHECK(worker, r == NXM_OK || r == NXM_ABSENT, "scan: %d", (int) r);
		for (uint32_t i = 0; i < seen->nbucket; i++)
			seen->stable[seen->in_bucket[i]]++;
		seen->entries += seen->bucket_entries;
		seen->nbucket = 0;
		seen->bucket_entries = 0;
	} while (r == NXM_OK);
	return r;
}

/* Worker 0 scans; the others put and delete around the stable keys. */
static void
scan_while_growing(Worker *worker)
{
	KeyText		k;

	if (worker->id == 0)
	{
		Seen	   *seen = malloc(sizeof(Seen));

		CHECK(worker, seen != NULL, "no memory");
		do
		{
			scan(worker, seen);
			for (int i = 0; i < STABLE_KEYS; i++)
				CHECK(worker, seen->stable[i] == 1, "stable key %d was seen %d times", i,
					  seen->stable[i]);
		} while (stress_go(worker));
		free(seen);
		return;
	}
	for (uint64_t n = 0; stress_go(worker); n++)
	{
		/* rises and falls, so that it always grows somewhere */
		const NxmKey *key = make_key(&k, 'u', (uint64_t) worker->id, n % 60000);
		NxmValue	value = make_value(worker, 40, WHO(worker->id, n), n);
		NxmResult	r;

		if (n / 60000 % 2 == 0)
			r = put(worker, key, &value);
		else
			r = delete(worker, key);
		CHECK(worker, r == NXM_OK, "%s of %.20s: %d", n / 60000 % 2 == 0 ? "put" : "delete",
			  key->data, (int) r);
		key = make_key(&k, 't', 0, env_below(&worker->random, STABLE_KEYS));
		if (env_below(&worker->random, 4) == 0)
			CHECK(worker, get(worker, key,
							  &(NxmBuffer) {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT}) == NXM_OK,
				  "a stable key is away");
	}
}

/* Replacing under a scan: worker 0 as above, the others replace stable keys. */
static void
scan_while_replacing(Worker *worker)
{
	KeyText		k;

	if (worker->id == 0)
	{
		scan_while_growing(worker);
		return;
	}
	while (stress_go(worker))
	{
		uint32_t	n = env_below(&worker->random, STABLE_KEYS);
		NxmValue	value = make_value(worker, stress_length(worker), WHO(9, n), worker->turn);
		NxmResult	r = put(worker, make_key(&k, 't', 0, n), &value);

		CHECK(worker, r == NXM_EXISTS, "replacing: %d", (int) r);
	}
}

static void
drain(Worker *worker)
{
	Test	   *test = worker->test;
	NxmResult	r;

	do
		ENV_DO(&worker->space, r, nxm_map_drain(&worker->space, &test->map));
	while (r == NXM_OK);
	CHECK(worker, r == NXM_ABSENT, "drain: %d", (int) r);
}

/* Worker 0 clears all the time. */
static void
clear_while_growing(Worker *worker)
{
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;
	uint64_t	next = 1;
	KeyText		k;

	while (stress_go(worker))
	{
		NxmResult	r;

		if (worker->id == 0 && env_below(&worker->random, 300) == 0)
		{
			uint64_t	removed = 0;

			ENV_DO(space, r, nxm_map_clear(space, &test->map, &removed));
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS, "clear: %d", (int) r);
			if (r == NXM_OK)
			{
				nxm_fetch_add(&test->clears, 1);
				nxm_fetch_add(&test->removed, removed);
			}
			/* sometimes it is left to the others */
			if (env_below(&worker->random, 2) == 0)
				drain(worker);
		}
		else
		{
			uint32_t	n = env_below(&worker->random, OWN_KEYS);
			const NxmKey *key = make_key(&k, 'o', (uint64_t) worker->id, n);
			NxmValue	value = make_value(worker, stress_length(worker),
										   WHO(worker->id, n), next);
			uint64_t	is;

			if (env_below(&worker->random, 100) == 0)
			{
				r = delete(worker, key);
				CHECK(worker, r == NXM_OK || r == NXM_ABSENT, "delete: %d", (int) r);
				is = get_version(worker, key, WHO(worker->id, n));
				CHECK(worker, is == 0, "a deleted key is there");
			}
			r = put(worker, key, &value);
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS, "put: %d", (int) r);
			is = get_version(worker, key, WHO(worker->id, n));
			/* cleared or not, nothing older comes back */
			CHECK(worker, is == 0 || is == next, "%.20s has version %llu for %llu", key->data,
				  (unsigned long long) is, (unsigned long long) next);
			next++;
		}
	}
}

/* Little memory: an operation fails and nothing that was there is lost. */
static void
full(Worker *worker)
{
	uint64_t   *version = calloc(OWN_KEYS, sizeof(uint64_t));
	uint64_t	next = 1;
	KeyText		k;

	CHECK(worker, version != NULL, "no memory");
	while (stress_go(worker))
	{
		uint32_t	n = env_below(&worker->random, OWN_KEYS);
		const NxmKey *key = make_key(&k, 'o', (uint64_t) worker->id, n);
		uint64_t	is;
		NxmResult	r;

		if (env_below(&worker->random, 3) > 0)
		{
			NxmValue	value = make_value(worker, stress_length(worker),
										   WHO(worker->id, n), next);

			r = put(worker, key, &value);
			CHECK(worker, r == NXM_NEED_MEMORY || r == (version[n] == 0 ? NXM_OK : NXM_EXISTS),
				  "put of %.20s: %d, version was %llu", key->data, (int) r,
				  (unsigned long long) version[n]);
			if (r != NXM_NEED_MEMORY)
				version[n] = next;
			next++;
		}
		else
		{
			r = delete(worker, key);
			CHECK(worker, r == (version[n] == 0 ? NXM_ABSENT : NXM_OK),
				  "delete of %.20s: %d, version was %llu", key->data, (int) r,
				  (unsigned long long) version[n]);
			version[n] = 0;
		}
		n = env_below(&worker->random, OWN_KEYS);
		is = get_version(worker, make_key(&k, 'o', (uint64_t) worker->id, n),
						 WHO(worker->id, n));
		CHECK(worker, is == version[n], "get of %.20s: version %llu for %llu", k.text,
			  (unsigned long long) is, (unsigned long long) version[n]);
	}
	for (uint32_t n = 0; n < OWN_KEYS; n++)
	{
		uint64_t	is = get_version(worker, make_key(&k, 'o', (uint64_t) worker->id, n),
									 WHO(worker->id, n));

		CHECK(worker, is == version[n], "at the end %.20s has version %llu for %llu", k.text,
			  (unsigned long long) is, (unsigned long long) version[n]);
		CHECK(worker, delete(worker, &k.key) == (version[n] == 0 ? NXM_ABSENT : NXM_OK),
			  "at the end, a delete");
	}
	free(version);
}

static bool
shared_keys_add_up(Worker *worker)
{
	Test	   *test = worker->test;
	KeyText		k;
	bool		ok = true;

	for (uint32_t n = 0; n < SHARED_KEYS; n++)
	{
		int64_t		there = 0;
		int64_t		added = 0;
		int64_t		sum = 0;
		NxmResult	r;

		for (int i = 0; i < STRESS_MAX_WORKERS; i++)
		{
			there += (int64_t) nxm_load(&test->count[i].inserted[n]);
			there -= (int64_t) nxm_load(&test->count[i].deleted[n]);
			added += (int64_t) nxm_load(&test->count[i].added[n]);
		}
		if (there != (get_version(worker, make_key(&k, 's', 0, n), WHO(0, n)) != 0))
		{
			printf("# key %u was inserted %lld times more than deleted\n", n, (long long) there);
			ok = false;
		}
		make_key(&k, 'c', 0, n);
		ENV_DO(&worker->space, r, nxm_map_add(&worker->space, &test->map, &k.key, 0, &sum));
		if (r != NXM_OK || sum != added)
		{
			printf("# counter %u is %lld for %lld\n", n, (long long) sum, (long long) added);
			ok = false;
		}
	}
	return ok;
}

static bool
counts_agree(Worker *worker)
{
	Test	   *test = worker->test;
	Seen	   *seen = malloc(sizeof(Seen));
	bool		ok;

	CHECK(worker, seen != NULL, "no memory");
	scan(worker, seen);
	ok = seen->entries == nxm_map_entries(&test->map);
	if (!ok)
		printf("# %llu entries are counted, %llu are there\n",
			   (unsigned long long) nxm_map_entries(&test->map),
			   (unsigned long long) seen->entries);
	free(seen);
	return ok;
}

static void
new_map(Worker *worker)
{
	Test	   *test = worker->test;
	NxmResult	r;

	memset(&test->map, 0, sizeof(test->map));
	ENV_DO(&worker->space, r, nxm_map_init(&worker->space, &test->map));
	CHECK(worker, r == NXM_OK, "making a map: %d", (int) r);
}

static void
drop_map(Worker *worker, const char *name)
{
	Test	   *test = worker->test;
	NxmResult	r;

	ENV_DO(&worker->space, r, nxm_map_drop(&test->map));
	CHECK(worker, r == NXM_OK, "dropping a map: %d", (int) r);
	drain(worker);
	if (nxm_map_entries(&test->map) != 0 || nxm_map_bytes(&test->map) != 0)
		printf("# the dropped map counts %llu entries, %llu bytes\n",
			   (unsigned long long) nxm_map_entries(&test->map),
			   (unsigned long long) nxm_map_bytes(&test->map));
	stress_all_free(worker, name);
}

int
main(int argc, char **argv)
{
	Worker	   *worker = stress_begin(argc, argv, sizeof(Test));
	Test	   *test = worker->test;
	KeyText		k;

	new_map(worker);
	stress_phase("each worker writes its keys, all read them, from one bucket on", own_keys);
	stress_ok(counts_agree(worker) && nxm_map_entries(&test->map) == 0, "the count of entries is right");
	drop_map(worker, "all memory came back");

	new_map(worker);
	hash_mask = UINT64_MAX << 48;
	stress_phase("the same with many keys of one hash", own_keys);
	stress_ok(counts_agree(worker), "the count of entries is right with many keys of one hash");
	hash_mask = UINT64_MAX;
	drop_map(worker, "all memory came back after keys of one hash");

	new_map(worker);
	stress_phase("all workers write the same keys", shared_keys);
	stress_ok(shared_keys_add_up(worker), "inserts, deletes and additions add up");
	stress_ok(counts_agree(worker), "the count of entries is right after that");
	drop_map(worker, "all memory came back after that");

	new_map(worker);
	for (uint32_t n = 0; n < STABLE_KEYS; n++)
	{
		NxmValue	value = make_value(worker, 60, WHO(9, n), 0);

		CHECK(worker, put(worker, make_key(&k, 't', 0, n), &value) == NXM_OK, "put");
	}
	stress_phase("scans see each entry once while the map grows", scan_while_growing);
	stress_phase("scans see each entry once while it is replaced", scan_while_replacing);
	stress_ok(counts_agree(worker), "the count of entries is right after scans");
	drop_map(worker, "all memory came back after scans");

	new_map(worker);
	stress_phase("workers write while the map is cleared", clear_while_growing);
	printf("# %llu clears, %llu entries removed\n", (unsigned long long) nxm_load(&test->clears),
		   (unsigned long long) nxm_load(&test->removed));
	drain(worker);
	stress_ok(counts_agree(worker), "the count of entries is right after clears");
	drop_map(worker, "all memory came back after clears");

	new_map(worker);
	nxm_store(&worker->env->shared->account[0].page_limit, 150);
	stress_phase("workers write where memory is short", full);
	stress_ok(counts_agree(worker), "the count of entries is right where memory was short");
	nxm_store(&worker->env->shared->account[0].page_limit, 16384);
	drop_map(worker, "all memory came back where it was short");
	return stress_end();
}
