/*
 * stress_cache.c
 *	  The cache under many workers, against what a model says.
 *
 * A value has in it whose key it is of, the number of its write and its deadline, and
 * a checksum.  One worker alone writes its keys and so knows what each result has to be,
 * but for absence where memory is short.  It tells the others which write it begins, and
 * which has returned: who reads a key, alone or in a batch, sees no write before the last
 * one that had returned when it asked, and none that had not begun when it was answered,
 * but may see either of two that a write lies between; nor an older write after a newer
 * one, nor a value whose deadline had passed before it asked.  Where several write the
 * same keys, that is so of the writes of each; and of those of two: tickets tell whether one
 * had returned before the other one began, and then who asks after that one has returned
 * does not see the first.  Time is a word that one worker moves on.
 */
#define _GNU_SOURCE

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_internal.h"
#include "stress_run.h"

#define OWN_KEYS 4000			/* of a worker */
#define SHARED_KEYS 64
#define PARTITIONS 2
#define AMPLE 8000				/* pages */

/* One worker alone is not watched: ThreadSanitizer would take minutes over it. */
#ifdef __SANITIZE_THREAD__
#define WATCHED true
#else
#define WATCHED false
#endif

/* Pages where memory is short, and for two caches: so few that all come to evict in time. */
#define SHORT (WATCHED ? 24 : 60)
#define TWO (WATCHED ? 40 : 100)

/* What a phase goes on for, all workers together: as processes, two million in all. */
#ifdef STRESS_PROCESSES
#define LEAST_OPERATIONS 200000
#else
#define LEAST_OPERATIONS 2000
#endif

typedef struct Test
{
	NxmCache	cache;
	NxmAtomic	clock;			/* microseconds */
	NxmAtomic	largest;		/* for the views: the cache that is to give way */
	NxmAtomic	remade;			/* times that it was dropped and made anew */
	NxmAtomic	taken;			/* items of it that writes to the other one looked at */
	NxmAtomic	clears;
	NxmAtomic	operations;
	NxmAtomic	gets[STRESS_MAX_WORKERS + 1];	/* of the cache, by who did them */
	/* serials of a worker's writes of a key, deletes too: last begun, last returned */
	NxmAtomic	begun[STRESS_MAX_WORKERS][OWN_KEYS];
	NxmAtomic	returned[STRESS_MAX_WORKERS][OWN_KEYS];
	/* shared keys: when, in tickets, that write returned; its ticket is stored first */
	NxmAtomic	returned_at[STRESS_MAX_WORKERS][SHARED_KEYS];
	/* and when the one began that began last, of all that have returned */
	NxmAtomic	newest[SHARED_KEYS];
	NxmAtomic	tickets;		/* drawn */
} Test;

/* In `returned`: it left the key there. */
#define LEFT_IT (UINT64_C(1) << 32)

/* What the phases differ in; set before their workers begin. */
static bool ample;				/* nothing is evicted */
static bool with_deadlines;
static bool with_clears;
static bool with_resizes;
static bool with_largest;		/* one that gives way */

typedef struct KeyText
{
	char		text[NXM_MAX_KEY + 1];
	NxmKey		key;
} KeyText;

/* Keys of the largest cache that this worker was to evict. */
static _Thread_local uint64_t of_largest;

/* Asked for by core of what it evicts alone. */
static uint64_t
hash(const char *data, size_t len)
{
	of_largest += data[0] == 'L';
	return env_hash(data, len);
}

static int64_t
now(void *env)
{
	/* time never goes back, and who saw a moment is not shown one before it */
	return (int64_t) nxm_load(&((Test *) env)->clock);
}

static void
open_view(Worker *worker, NxmCacheView *view)
{
	Test	   *test = worker->test;

	*view = (NxmCacheView) {
		.space = &worker->space,.hash = hash,.now = now,.env = test,
		.home = worker->id % PARTITIONS,.cannot_grow = !ample && worker->id % 3 == 2,
		.largest = &test->largest
	};
}

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
	k->key = (NxmKey) {k->text, (uint32_t) len, env_hash(k->text, (size_t) len)};
	return &k->key;
}

/* A write: serial 23..0, deadline 63..24; FREE: the deadline may be another one. */
#define SERIAL(version) ((version) & 0xFFFFFF)
#define VERSION(deadline, serial) ((uint64_t) (deadline) << 24 | ((serial) & 0xFFFFFF))
#define FREE ((INT64_C(1) << 40) - 1)

static NxmValue
make_value(Worker *worker, uint32_t len, uint64_t who, uint64_t version)
{
	NxmValue	value = {worker->buffer2, 0, (NxmType) (version % 3)};

	value.len = stress_fill(worker->buffer2, len, who, version);
	return value;
}

static NxmResult
set(NxmCacheView *view, NxmCache *cache, const NxmKey *key, const NxmValue *value,
	int64_t deadline, bool add)
{
	NxmResult	r;

	ENV_DO(view->space, r, add ? nxm_cache_add(view, cache, key, value, deadline) :
		   nxm_cache_set(view, cache, key, value, deadline));
	return r;
}

/* What was got: version of the value, 0: absent; and whose write it was. */
typedef struct Got
{
	uint64_t	version;
	uint32_t	by;
} Got;

#define WHO(worker, n) ((uint64_t) (worker) << 32 | (n))
/* Of a key that all write. */
#define ANYBODY UINT32_MAX
/* The answer did not say the deadline. */
#define UNTOLD INT64_C(-1)

/* Checks a value that was got. */
static Got
check_value(Worker *worker, const char *data, size_t len, NxmType type,
			uint64_t who, int64_t asked, int64_t deadline)
{
	uint64_t	seen;
	uint64_t	version;
	int64_t		ends;

	stress_verify(worker, data, (uint32_t) len, &seen, &version);
	ends = (int64_t) (version >> 24);
	CHECK(worker, seen == who || (who >> 32 == ANYBODY && (uint32_t) seen == (uint32_t) who &&
								  seen >> 32 < STRESS_MAX_WORKERS), "key of %llx has the value of %llx",
		  (unsigned long long) who, (unsigned long long) seen);
	CHECK(worker, type == (NxmType) (version % 3), "a value has type %d", (int) type);
	if (deadline == UNTOLD)
		deadline = ends == FREE ? 0 : ends;
	CHECK(worker, deadline == 0 || deadline > asked, "a value %lld after its deadline",
		  (long long) (asked - deadline));
	if (ends != FREE)
		CHECK(worker, deadline == ends, "deadline %lld and not %lld", (long long) deadline,
			  (long long) ends);
	return (Got) {version, (uint32_t) (seen >> 32)};
}

/* Gets a key and checks the value. */
static Got
get(Worker *worker, NxmCacheView *view, const NxmKey *key, uint64_t who)
{
	Test	   *test = worker->test;
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	int64_t		asked = now(test);
	int64_t		deadline = 0;
	NxmResult	r;

	if (env_below(&worker->random, 64) == 0)
	{
		buffer.size = 20;
		ENV_DO(view->space, r, nxm_cache_get(view, &test->cache, key, &buffer, NULL));
		CHECK(worker, r == NXM_NEED_BUFFER || r == NXM_ABSENT, "a short buffer: %d", (int) r);
		nxm_fetch_add_relaxed(&test->gets[worker->id], r == NXM_ABSENT);
		buffer.size = NXM_MAX_VALUE;
		asked = now(test);
	}
	ENV_DO(view->space, r, nxm_cache_get(view, &test->cache, key, &buffer, &deadline));
	nxm_fetch_add_relaxed(&test->gets[worker->id], 1);
	if (r == NXM_ABSENT)
		return (Got) {0, 0};
	CHECK(worker, r == NXM_OK, "get: %d", (int) r);
	return check_value(worker, buffer.data, buffer.len, buffer.type, who, asked, deadline);
}

/* Keys of a batch, whose they are, and what was got. */
typedef struct Batch
{
	KeyText		text[NXM_CACHE_BATCH];
	uint64_t	who[NXM_CACHE_BATCH];
	Got			got[NXM_CACHE_BATCH];
} Batch;

static void
get_batch(Worker *worker, NxmCacheView *view, Batch *batch)
{
	Test	   *test = worker->test;
	NxmKey		keys[NXM_CACHE_BATCH];
	NxmCacheAnswer answers[NXM_CACHE_BATCH];
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	int			from = 0;
	int			first = 0;
	NxmResult	r;

	for (int i = 0; i < NXM_CACHE_BATCH; i++)
		keys[i] = batch->text[i].key;
	do
	{
		int64_t		asked = now(test);

		ENV_DO(view->space, r, nxm_cache_get_many(view, &test->cache, keys,
												  NXM_CACHE_BATCH, answers, &from, &buffer));
		for (; first < from; first++)
		{
			const NxmCacheAnswer *a = &answers[first];

			CHECK(worker, a->result == NXM_OK || a->result == NXM_ABSENT,
				  "an answer of a batch: %d", (int) a->result);
			batch->got[first] = a->result == NXM_ABSENT ? (Got) {0, 0} :
				check_value(worker, buffer.data + a->at, a->len, a->type,
							batch->who[first], asked, UNTOLD);
		}
		buffer.len = 0;
	} while (r == NXM_NEED_BUFFER);
	CHECK(worker, r == NXM_OK && from == NXM_CACHE_BATCH, "batch: %d", (int) r);
	nxm_fetch_add_relaxed(&test->gets[worker->id], NXM_CACHE_BATCH);
}

/*
 * A time to live: from a millisecond to some minutes, seldom for ever.  In units that it is
 * kept to, so that a read must tell the same.
 */
static int64_t
some_deadline(Worker *worker)
{
	uint32_t	dice = env_below(&worker->random, 10);

	if (!with_deadlines || dice == 0)
		return 0;
	return (now(worker->test) + (dice < 3 ? 1000 : 100000) *
			(int64_t) (1 + env_below(&worker->random, dice < 8 ? 100 : 3000))) / 64 * 64 + 64;
}

static void
clear_cache(Worker *worker, NxmCacheView *view)
{
	Test	   *test = worker->test;
	NxmCacheCursor cursor = {0, 0};
	uint64_t	removed = 0;
	NxmResult	r;

	do
	{
		ENV_DO(view->space, r, nxm_cache_clear(view, &test->cache, &cursor, &removed));
		if (r == NXM_EXISTS)
			ENV_DO(view->space, r, (nxm_cache_tick(view, &test->cache), NXM_EXISTS));
		CHECK(worker, r == NXM_OK || r == NXM_EXISTS || r == NXM_NEED_MEMORY,
			  "clear: %d", (int) r);
	} while (r == NXM_EXISTS && !stress_over(worker));
	if (r == NXM_OK)
		nxm_fetch_add(&test->clears, 1);
}

/* Something that goes on beside: time, housekeeping, limits. */
static void
go_on(Worker *worker, NxmCacheView *view)
{
	Test	   *test = worker->test;
	NxmResult	r;

	if (worker->id == 0 && with_deadlines)
		nxm_fetch_add(&test->clock, 1 + env_below(&worker->random, 4000));
	if (worker->turn % 64 == 0 && worker->id == 1)
	{
		ENV_DO(view->space, r, nxm_cache_tick(view, &test->cache));
		CHECK(worker, r == NXM_OK || r == NXM_EXISTS || r == NXM_ABSENT, "tick: %d", (int) r);
	}
	if (with_clears && worker->id == 0 && env_below(&worker->random, WATCHED ? 500 : 3000) == 0)
		clear_cache(worker, view);
	if (with_resizes && worker->id == 1 && worker->turn % 512 == 0)
	{
		NxmAccount *account = &worker->space.shared->account[NXM_CACHE_ACCOUNT];

		nxm_store(&account->page_limit, SHORT * 2 / 3 + env_below(&worker->random, SHORT * 5 / 3));
		nxm_store(&test->cache.max_bytes, env_below(&worker->random, 3) == 0 ? 0 :
				  (uint64_t) (SHORT / 2 + env_below(&worker->random, SHORT)) * NXM_PAGE_SIZE);
	}
	if (worker->turn % 64 == 0)
		nxm_fetch_add_relaxed(&test->operations, 64);
}

/*
 * Checks what was read of a key that `whose` wrote: the version, and which of its writes
 * had returned before the key was asked for.  seen: the newest that this worker has seen.
 */
static void
check_order(Worker *worker, const NxmKey *key, uint32_t whose, uint32_t n,
			uint64_t returned, uint64_t is, uint64_t *seen)
{
	Test	   *test = worker->test;
	uint64_t	begun = nxm_load(&test->begun[whose][n]);

	if (is == 0)
	{
		CHECK(worker, !ample || with_deadlines || with_clears || returned != (begun | LEFT_IT),
			  "%.20s is missing, write %llu had returned", key->data, (unsigned long long) begun);
		return;
	}
	CHECK(worker, SERIAL(is) >= SERIAL(returned), "%.20s is of write %llu, %llu had returned",
		  key->data, (unsigned long long) SERIAL(is), (unsigned long long) SERIAL(returned));
	CHECK(worker, SERIAL(is) <= SERIAL(begun), "%.20s is of write %llu, %llu had begun",
		  key->data, (unsigned long long) SERIAL(is), (unsigned long long) SERIAL(begun));
	CHECK(worker, SERIAL(is) >= *seen, "%.20s went back from %llu to %llu",
		  key->data, (unsigned long long) *seen, (unsigned long long) SERIAL(is));
	*seen = SERIAL(is);
}

/* The next of a worker's writes, after those of phases before. */
static uint64_t
first_serial(NxmAtomic *begun, uint32_t nkeys)
{
	uint64_t	last = 0;

	for (uint32_t n = 0; n < nkeys; n++)
		if (nxm_load(&begun[n]) > last)
			last = nxm_load(&begun[n]);
	return last + 1;
}

/* Each writes its own keys and knows what is there; and reads those of the others. */
static void
own_keys(Worker *worker)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	uint64_t   *version = calloc(OWN_KEYS, sizeof(uint64_t));
	int64_t    *deadlines = calloc(OWN_KEYS, sizeof(int64_t));
	uint64_t   *last = calloc((size_t) OWN_KEYS * (size_t) worker->nworkers, sizeof(uint64_t));
	Batch	   *batch = malloc(sizeof(Batch));
	NxmAtomic  *begun = test->begun[worker->id];
	NxmAtomic  *returned = test->returned[worker->id];
	uint64_t	next = first_serial(begun, OWN_KEYS);
	KeyText		k;

	CHECK(worker, version != NULL && deadlines != NULL && last != NULL && batch != NULL,
		  "no memory");
	open_view(worker, &view);
	while (stress_go(worker))
	{
		uint32_t	n = env_below(&worker->random,
								  env_below(&worker->random, 2) == 0 ? 40 : OWN_KEYS);
		uint32_t	dice = env_below(&worker->random, 100);
		const NxmKey *key = make_key(&k, 'o', (uint64_t) worker->id, n);
		int64_t		before = now(test);
		/* as far as this worker can tell */
		bool		there = version[n] != 0 && (deadlines[n] == 0 || deadlines[n] > before);
		NxmResult	r;

		if (dice < 40)
		{
			bool		add = dice < 10;
			int64_t		deadline = some_deadline(worker);
			uint64_t	v = VERSION(dice % 2 == 0 ? deadline : FREE, next++);
			NxmValue	value = make_value(worker, stress_length(worker), WHO(worker->id, n), v);

			nxm_store(&begun[n], SERIAL(v));
			r = set(&view, &test->cache, key, &value, deadline, add);
			if (!add || r != NXM_EXISTS)
				nxm_store(&returned[n], SERIAL(v) | (r == NXM_ABSENT ? 0 : LEFT_IT));
			if (ample && !with_deadlines)
				CHECK(worker, r == (there ? NXM_EXISTS : NXM_OK), "%s of %.20s: %d",
					  add ? "add" : "set", key->data, (int) r);
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS || (r == NXM_ABSENT && !ample),
				  "%s of %.20s: %d", add ? "add" : "set", key->data, (int) r);
			CHECK(worker, r != NXM_EXISTS || version[n] != 0, "%.20s was not there",
				  key->data);
			if (!add || r == NXM_OK)
			{
				version[n] = r == NXM_ABSENT ? 0 : v;
				deadlines[n] = deadline;
			}
		}
		else if (dice < 50)
		{
			nxm_store(&begun[n], SERIAL(next));
			ENV_DO(&worker->space, r, nxm_cache_delete(&view, &test->cache, key));
			nxm_store(&returned[n], SERIAL(next));
			next++;
			if (ample && !with_deadlines)
				CHECK(worker, r == (there ? NXM_OK : NXM_ABSENT), "delete of %.20s: %d",
					  key->data, (int) r);
			CHECK(worker, r == NXM_ABSENT || (r == NXM_OK && version[n] != 0),
				  "delete of %.20s: %d", key->data, (int) r);
			version[n] = 0;
		}
		else if (dice < 58 && (version[n] == 0 || version[n] >> 24 == (uint64_t) FREE))
		{
			int64_t		deadline = some_deadline(worker);

			ENV_DO(&worker->space, r, nxm_cache_expire(&view, &test->cache, key, deadline));
			if (ample && !with_deadlines)
				CHECK(worker, r == (there ? NXM_OK : NXM_ABSENT), "expire of %.20s: %d",
					  key->data, (int) r);
			CHECK(worker, r == NXM_ABSENT || (r == NXM_OK && version[n] != 0),
				  "expire of %.20s: %d", key->data, (int) r);
			if (r == NXM_OK)
				deadlines[n] = deadline;
			else
				version[n] = 0;
			ENV_DO(&worker->space, r, nxm_cache_deadline(&view, &test->cache, key, &deadline));
			CHECK(worker, r == NXM_ABSENT || (r == NXM_OK && deadline == deadlines[n]),
				  "deadline of %.20s: %d, %lld for %lld", key->data, (int) r,
				  (long long) deadline, (long long) deadlines[n]);
		}
		else if (dice < 75)
		{
			uint64_t	is = get(worker, &view, key, WHO(worker->id, n)).version;

			if (ample && !with_deadlines)
				CHECK(worker, is == version[n], "get of %.20s: version %llx for %llx",
					  key->data, (unsigned long long) is, (unsigned long long) version[n]);
			CHECK(worker, is == 0 || is == version[n], "get of %.20s: version %llx for %llx",
				  key->data, (unsigned long long) is, (unsigned long long) version[n]);
			if (is == 0 && ample && there && !with_clears)
				CHECK(worker, deadlines[n] != 0 && deadlines[n] <= now(test),
					  "%.20s is missing", key->data);
		}
		else if (dice < 97)
		{
			uint32_t	other = env_below(&worker->random, (uint32_t) worker->nworkers);
			uint64_t	before_it = nxm_load(&test->returned[other][n]);

			key = make_key(&k, 'o', other, n);
			check_order(worker, key, other, n, before_it,
						get(worker, &view, key, WHO(other, n)).version,
						&last[(size_t) other * OWN_KEYS + n]);
		}
		else
		{
			/* neighbours, of all workers */
			uint64_t	before_it[NXM_CACHE_BATCH];
			uint32_t	whose[NXM_CACHE_BATCH];
			uint32_t	which[NXM_CACHE_BATCH];

			for (uint32_t i = 0; i < NXM_CACHE_BATCH; i++)
			{
				whose[i] = i % (uint32_t) worker->nworkers;
				which[i] = (n + i) % OWN_KEYS;
				batch->who[i] = WHO(whose[i], which[i]);
				make_key(&batch->text[i], 'o', whose[i], which[i]);
				before_it[i] = nxm_load(&test->returned[whose[i]][which[i]]);
			}
			get_batch(worker, &view, batch);
			for (uint32_t i = 0; i < NXM_CACHE_BATCH; i++)
				check_order(worker, &batch->text[i].key, whose[i], which[i], before_it[i],
							batch->got[i].version, &last[(size_t) whose[i] * OWN_KEYS + which[i]]);
		}
		go_on(worker, &view);
	}
	/* the next phase begins anew */
	for (uint32_t n = 0; n < OWN_KEYS; n++)
	{
		const NxmKey *key = make_key(&k, 'o', (uint64_t) worker->id, n);
		uint64_t	is = get(worker, &view, key, WHO(worker->id, n)).version;
		NxmResult	r;

		CHECK(worker, is == 0 || is == version[n], "at the end %.20s has version %llx for %llx",
			  key->data, (unsigned long long) is, (unsigned long long) version[n]);
		/* others may still read it */
		nxm_store(&begun[n], SERIAL(next));
		ENV_DO(&worker->space, r, nxm_cache_delete(&view, &test->cache, key));
		nxm_store(&returned[n], SERIAL(next));
		CHECK(worker, r == NXM_OK || r == NXM_ABSENT, "delete at the end: %d", (int) r);
	}
	free(version);
	free(deadlines);
	free(last);
	free(batch);
}

static uint64_t
draw_ticket(Test *test)
{
	return nxm_fetch_add(&test->tickets, 1) + 1;
}

/* A write of a shared key has returned, whatever has become of it. */
static void
has_returned(Worker *worker, uint32_t n, uint64_t serial, uint64_t began)
{
	Test	   *test = worker->test;
	uint64_t	newest = nxm_load(&test->newest[n]);

	nxm_store(&test->returned_at[worker->id][n], draw_ticket(test));
	nxm_store(&test->returned[worker->id][n], SERIAL(serial));
	while (newest < began && !nxm_cas(&test->newest[n], &newest, began))
		;
}

/* What is known of a shared key before it is asked for. */
typedef struct Before
{
	uint64_t	newest;
	uint64_t	returned[STRESS_MAX_WORKERS];
	uint64_t	returned_at[STRESS_MAX_WORKERS];	/* or when a later one did */
} Before;

static void
look_before(Worker *worker, uint32_t n, Before *before)
{
	Test	   *test = worker->test;

	before->newest = nxm_load(&test->newest[n]);
	for (int w = 0; w < worker->nworkers; w++)
	{
		before->returned[w] = nxm_load(&test->returned[w][n]);
		before->returned_at[w] = nxm_load(&test->returned_at[w][n]);
	}
}

/* Checks what was got of a shared key: against the writes of its writer, and of others. */
static void
check_shared(Worker *worker, const NxmKey *key, uint32_t n, const Before *before, Got got,
			 uint64_t *seen)
{
	if (got.version == 0)
		return;
	check_order(worker, key, got.by, n, before->returned[got.by], got.version, &seen[got.by]);
	/* one of a later serial had not returned */
	CHECK(worker, SERIAL(got.version) != before->returned[got.by] ||
		  before->returned_at[got.by] > before->newest,
		  "%.20s is of a write that returned at %llu, one that began at %llu had returned",
		  key->data, (unsigned long long) before->returned_at[got.by],
		  (unsigned long long) before->newest);
}

/*
 * All write the same keys, and read them in batches too.  Every other key keeps the
 * deadline that it was written with, so that who reads it knows it.
 */
static void
shared_keys(Worker *worker)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	Batch	   *batch = malloc(sizeof(Batch));
	/* of each key, by whose write it is */
	Before	   *before = calloc(SHARED_KEYS, sizeof(*before));
	uint64_t	(*last)[STRESS_MAX_WORKERS] = calloc(SHARED_KEYS, sizeof(*last));
	NxmAtomic  *begun = test->begun[worker->id];
	uint64_t	next;
	KeyText		k;

	CHECK(worker, batch != NULL && before != NULL && last != NULL, "no memory");
	open_view(worker, &view);
	next = first_serial(begun, SHARED_KEYS);
	while (stress_go(worker))
	{
		uint32_t	n = env_below(&worker->random, SHARED_KEYS);
		uint32_t	dice = env_below(&worker->random, 100);
		const NxmKey *key = make_key(&k, 's', 0, n);
		uint64_t	began;
		NxmResult	r;

		if (dice < 40)
		{
			int64_t		deadline = some_deadline(worker);
			NxmValue	value = make_value(worker, stress_length(worker), WHO(worker->id, n),
										   VERSION(n % 2 == 0 ? deadline : FREE, next));

			nxm_store(&begun[n], SERIAL(next));
			began = draw_ticket(test);
			r = set(&view, &test->cache, key, &value, deadline, dice < 15);
			if (dice >= 15 || r != NXM_EXISTS)
				has_returned(worker, n, next, began);
			next++;
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS || (r == NXM_ABSENT && !ample),
				  "set: %d", (int) r);
		}
		else if (dice < 50)
		{
			nxm_store(&begun[n], SERIAL(next));
			began = draw_ticket(test);
			ENV_DO(view.space, r, nxm_cache_delete(&view, &test->cache, key));
			has_returned(worker, n, next, began);
			next++;
			CHECK(worker, r == NXM_OK || r == NXM_ABSENT, "delete: %d", (int) r);
		}
		else if (dice < 60 && n % 2 != 0)
		{
			ENV_DO(view.space, r, nxm_cache_expire(&view, &test->cache, key, some_deadline(worker)));
			CHECK(worker, r == NXM_OK || r == NXM_ABSENT, "expire: %d", (int) r);
		}
		else if (dice < 95)
		{
			look_before(worker, n, &before[n]);
			check_shared(worker, key, n, &before[n], get(worker, &view, key, WHO(ANYBODY, n)),
						 last[n]);
		}
		else
		{
			for (uint32_t i = 0; i < NXM_CACHE_BATCH; i++)
			{
				uint32_t	which = (n + i) % SHARED_KEYS;

				batch->who[i] = WHO(ANYBODY, which);
				make_key(&batch->text[i], 's', 0, which);
				look_before(worker, which, &before[which]);
			}
			get_batch(worker, &view, batch);
			for (uint32_t i = 0; i < NXM_CACHE_BATCH; i++)
			{
				uint32_t	which = (n + i) % SHARED_KEYS;

				check_shared(worker, &batch->text[i].key, which, &before[which], batch->got[i],
							 last[which]);
			}
		}
		/* others, so that there is something to evict */
		if (dice % 2 == 0)
		{
			NxmValue	value = make_value(worker, stress_length(worker), WHO(1, n),
										   VERSION(FREE, next++));

			r = set(&view, &test->cache, make_key(&k, 'f', (uint64_t) worker->id, next), &value,
					some_deadline(worker), false);
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS || (r == NXM_ABSENT && !ample),
				  "set: %d", (int) r);
		}
		go_on(worker, &view);
	}
	free(batch);
	free(before);
	free(last);
}

/* Drops a cache, all of it. */
static void
drain_cache(Worker *worker, NxmCacheView *view, NxmCache *cache)
{
	NxmResult	r;

	ENV_DO(view->space, r, nxm_cache_drop(view, cache));
	CHECK(worker, r == NXM_OK, "drop: %d", (int) r);
	do
	{
		ENV_DO(view->space, r, nxm_cache_drain(view, cache));
		nxm_epoch_poll(view->space);
		CHECK(worker, r == NXM_OK || r == NXM_EXISTS || r == NXM_ABSENT, "drain: %d", (int) r);
		if (r == NXM_EXISTS)
			sched_yield();
	} while (r != NXM_ABSENT);
}

/* The cache in `largest`, in a section; NULL: NXM_DROPPED, there is none, or NXM_NEED_CHUNK. */
static NxmCache *
largest_cache(NxmCacheView *view, NxmResult *result)
{
	NxmRef		ref = nxm_load(view->largest);
	NxmCache   *cache = ref == 0 ? NULL : nxm_at(view->space, ref);

	*result = ref == 0 ? NXM_DROPPED : cache == NULL ? NXM_NEED_CHUNK : NXM_OK;
	return cache;
}

static NxmResult
set_in_largest(NxmCacheView *view, const NxmKey *key, const NxmValue *value)
{
	NxmResult	r;
	NxmCache   *cache = largest_cache(view, &r);

	return cache == NULL ? r : nxm_cache_set(view, cache, key, value, 0);
}

static void
make_largest(Worker *worker, NxmCacheView *view)
{
	Test	   *test = worker->test;
	NxmRef		ref;
	NxmCache   *cache;
	NxmResult	r;

	ENV_DO(view->space, r, (ref = nxm_alloc(view->space, sizeof(NxmCache))) != 0 ?
		   NXM_OK : nxm_no_object(view->space));
	CHECK(worker, r == NXM_OK, "no memory for a cache");
	cache = nxm_at(view->space, ref);
	memset((void *) cache, 0, sizeof(*cache));
	/* who makes a cache has others make room for it */
	ENV_DO(view->space, r, (nxm_cache_tick(view, &test->cache),
							nxm_cache_init(view, cache, PARTITIONS, 0)));
	CHECK(worker, r == NXM_OK, "making the largest cache: %d", (int) r);
	nxm_store(&test->largest, ref);
}

/* Others may be evicting in it, or about to. */
static void
drop_largest(Worker *worker, NxmCacheView *view)
{
	Test	   *test = worker->test;
	NxmRef		ref = nxm_exchange(&test->largest, 0);
	NxmCache   *cache = nxm_at(view->space, ref);
	uint64_t	epoch;

	drain_cache(worker, view, cache);
	/* until all have left it */
	epoch = nxm_load(&view->space->shared->epoch);
	while (nxm_load(&view->space->shared->epoch) < epoch + 2)
	{
		nxm_epoch_poll(view->space);
		sched_yield();
	}
	CHECK(worker, nxm_load(&cache->used) == 0, "%llu bytes are used of a dropped cache",
		  (unsigned long long) nxm_load(&cache->used));
	nxm_free(view->space, ref);
}

/*
 * When all memory is in use: the largest cache is dropped in the middle of giving way, and
 * made anew; or when it has given all that it does the other one begins anew.
 */
static void
begin_anew(Worker *worker, NxmCacheView *view)
{
	Test	   *test = worker->test;
	NxmAccount *account = &view->space->shared->account[NXM_CACHE_ACCOUNT];
	NxmCache   *largest;
	bool		gives_way;

	env_map_all(view->space);
	largest = nxm_at(view->space, nxm_load(&test->largest));
	gives_way = nxm_load(&largest->used) / 2 > nxm_load(&test->cache.used);
	if (nxm_load(&account->pages) + NXM_CACHE_KEEP + NXM_CACHE_AHEAD < nxm_load(&account->page_limit))
		return;
	if (gives_way)
	{
		if (env_below(&worker->random, 4) != 0)
			return;
		drop_largest(worker, view);
		make_largest(worker, view);
		nxm_fetch_add(&test->remade, 1);
	}
	clear_cache(worker, view);
}

/* Two caches, one of which is the largest and gives way to the other one. */
static void
two_caches(Worker *worker)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	KeyText		k;

	open_view(worker, &view);
	for (uint64_t n = 0; stress_go(worker); n++)
	{
		bool		in_largest = n % 4 != 0;
		const NxmKey *key = make_key(&k, in_largest ? 'L' : 'c', (uint64_t) worker->id, n % 30000);
		NxmValue	value = make_value(worker, stress_length(worker), WHO(worker->id, n % 30000),
									   VERSION(FREE, n));
		uint64_t	before = of_largest;
		NxmResult	r;

		if (in_largest)
		{
			ENV_DO(view.space, r, set_in_largest(&view, key, &value));
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS || r == NXM_ABSENT || r == NXM_DROPPED,
				  "set in the largest: %d", (int) r);
		}
		else
		{
			r = set(&view, &test->cache, key, &value, 0, false);
			CHECK(worker, r == NXM_OK || r == NXM_EXISTS || r == NXM_ABSENT, "set: %d", (int) r);
			nxm_fetch_add_relaxed(&test->taken, of_largest - before);
			get(worker, &view, key, WHO(worker->id, n % 30000));
		}
		if (worker->id == 0 && n % 32 == 0)
			begin_anew(worker, &view);
		go_on(worker, &view);
	}
}

typedef struct Sum
{
	uint64_t	entries;
	uint64_t	bytes;
	uint64_t	bucket_entries;
	uint64_t	bucket_bytes;
	Worker	   *worker;
} Sum;

static void
sum_begin(void *context)
{
	Sum		   *sum = context;

	sum->bucket_entries = sum->bucket_bytes = 0;
}

static NxmResult
sum_each(NxmCacheView *view, const NxmCacheEntry *entry, void *context)
{
	Sum		   *sum = context;
	Worker	   *worker = sum->worker;
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	uint64_t	who;
	uint64_t	version;
	NxmResult	r;

	sum->bucket_entries++;
	sum->bucket_bytes += nxm_cache_item_bytes(entry->item);
	r = nxm_cache_entry_value(view, entry, &buffer);
	if (r == NXM_NEED_CHUNK)
		return r;
	CHECK(worker, r == NXM_OK && buffer.len == entry->len, "an entry's value: %d", (int) r);
	stress_verify(worker, buffer.data, (uint32_t) buffer.len, &who, &version);
	return NXM_OK;
}

/* With no other worker: is what is counted what is there? */
static bool
counts_agree(Worker *worker)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	NxmCacheCursor cursor = {0, 0};
	Sum			sum = {.worker = worker};
	NxmCacheStats all = {0};
	uint64_t	used = 0;
	uint64_t	gets = 0;
	uint64_t	clock;
	NxmResult	r;
	bool		ok;

	open_view(worker, &view);
	env_map_all(view.space);
	do
		ENV_DO(view.space, r, nxm_cache_tick(&view, &test->cache));
	while (r != NXM_ABSENT);
	/* what has expired and is not reclaimed yet is counted, and left out by scans */
	clock = nxm_exchange(&test->clock, 1);
	do
	{
		ENV_DO(view.space, r, nxm_cache_scan(&view, &test->cache, &cursor, sum_begin,
											 sum_each, &sum));
		sum.entries += sum.bucket_entries;
		sum.bytes += sum.bucket_bytes;
		sum.bucket_entries = sum.bucket_bytes = 0;
	} while (r == NXM_OK);
	CHECK(worker, r == NXM_ABSENT, "scan: %d", (int) r);
	nxm_store(&test->clock, clock);
	for (int i = 0; i < PARTITIONS; i++)
	{
		NxmCacheStats stats;
		NxmCachePartition *part = nxm_at(view.space, nxm_load(&test->cache.partition[i]));
		uint64_t	alive = 0;

		CHECK(worker, nxm_cache_stats(&view, &test->cache, i, &stats), "no statistics");
		all.entries += stats.entries;
		all.bytes += stats.bytes;
#define X(name, text) all.name += stats.name;
		NXM_CACHE_COUNTERS(X)
#undef X
		for (int kind = 0; kind < 2; kind++)
		{
			NxmRef		ref = nxm_load(&part->chain[kind].head);

			used += nxm_load(&part->chain[kind].segments) * NXM_CACHE_SEGMENT;
			while (ref > CHAIN_CLOSED)
			{
				NxmChainBlock *block = nxm_at(view.space, ref);

				for (uint64_t e = 0; e < NXM_CHAIN_ENTRIES && e < nxm_load(&block->count); e++)
				{
					uint64_t	name = nxm_load(&block->entry[e]);
					NxmCacheSegment *segment;
					uint64_t	word;
					uint64_t	done;

					if (name == NAME_GONE || name == 0)
						continue;
					segment = segment_named(view.space, name);
					word = nxm_load(&segment->word);
					if (SEG_LIFE(word) != NAME_LIFE(name))
						continue;
					done = nxm_load(&segment->done);
					CHECK(worker, SEG_USED(word) == DONE_COMMITTED(done),
						  "a segment with %u units used, %u committed", SEG_USED(word),
						  DONE_COMMITTED(done));
					alive += (uint64_t) (SEG_USED(word) - HEAD_UNITS - DONE_DEAD(done)) * 8;
				}
				ref = nxm_load(&block->next);
			}
		}
		CHECK(worker, alive == stats.bytes - nxm_load(&part->big),
			  "segments have %llu bytes that live, %llu are counted",
			  (unsigned long long) alive, (unsigned long long) stats.bytes);
		CHECK(worker, !ample || worker->nworkers < 3 || nxm_counts_bytes(part) > 0,
			  "no lines for the counts of further processes");
		used += nxm_ghost_bytes(part) + nxm_counts_bytes(part) + nxm_load(&part->big) + nxm_load(&part->index.memory) +
			nxm_object_size(sizeof(NxmCachePartition));
	}
	for (int i = 0; i <= STRESS_MAX_WORKERS; i++)
		gets += nxm_load(&test->gets[i]);
	/* where memory is short lines of counts come and go, and what is counted then may be lost */
	CHECK(worker, all.local_hits + all.remote_hits + all.misses == gets ||
		  (!ample && all.local_hits + all.remote_hits + all.misses < gets),
		  "%llu hits and %llu misses of %llu reads",
		  (unsigned long long) (all.local_hits + all.remote_hits),
		  (unsigned long long) all.misses, (unsigned long long) gets);
	ok = sum.entries == all.entries && sum.bytes == all.bytes &&
		nxm_load(&test->cache.used) == used;
	printf("# %llu entries of %llu bytes; %llu hits, %llu misses, %llu sets, %llu evictions, "
		   "%llu expirations, %llu refusals\n",
		   (unsigned long long) all.entries, (unsigned long long) all.bytes,
		   (unsigned long long) (all.local_hits + all.remote_hits),
		   (unsigned long long) all.misses, (unsigned long long) all.sets,
		   (unsigned long long) all.evictions, (unsigned long long) all.expirations,
		   (unsigned long long) all.refusals);
	if (!ok)
		printf("# %llu entries and %llu bytes are there, used %llu for %llu\n",
			   (unsigned long long) sum.entries, (unsigned long long) sum.bytes,
			   (unsigned long long) nxm_load(&test->cache.used), (unsigned long long) used);
	return ok;
}

static void
new_cache(Worker *worker, NxmCache *cache, int partitions, uint64_t pages)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	NxmResult	r;

	open_view(worker, &view);
	memset((void *) cache, 0, sizeof(*cache));
	nxm_store(&test->largest, 0);
	for (int i = 0; i <= STRESS_MAX_WORKERS; i++)
		nxm_store(&test->gets[i], 0);
	for (int w = 0; w < STRESS_MAX_WORKERS; w++)
		for (int n = 0; n < OWN_KEYS; n++)
		{
			nxm_store(&test->begun[w][n], 0);
			nxm_store(&test->returned[w][n], 0);
		}
	nxm_store(&worker->space.shared->account[NXM_CACHE_ACCOUNT].page_limit, pages);
	ENV_DO(&worker->space, r, nxm_cache_init(&view, cache, partitions, 0));
	CHECK(worker, r == NXM_OK, "making a cache: %d", (int) r);
}

static void
drop_cache(Worker *worker, NxmCache *cache, const char *name)
{
	NxmCacheView view;

	open_view(worker, &view);
	nxm_store(&worker->space.shared->account[NXM_CACHE_ACCOUNT].page_limit, AMPLE);
	drain_cache(worker, &view, cache);
	/* what comes next has the memory, whatever other workers left */
	for (int i = 0; i < 100 && nxm_load(&worker->space.shared->limbo) != 0; i++)
		nxm_epoch_poll(&worker->space);
	CHECK(worker, nxm_load(&cache->used) == 0, "%llu bytes are used of a dropped cache",
		  (unsigned long long) nxm_load(&cache->used));
	if (name != NULL)
		stress_all_free(worker, name);
}

/*
 * With no other worker: is a long value there that a cache of small partitions took,
 * of which others have filled all but its own?
 */
static bool
long_values_stay(Worker *worker, int partitions, uint64_t pages)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	KeyText		k;
	int			lost = 0;

	new_cache(worker, &test->cache, partitions, pages);
	open_view(worker, &view);
	for (uint64_t n = 0; n < 40000; n++)
	{
		bool		is_long = n % 200 == 0;
		const NxmKey *key = make_key(&k, is_long ? 'l' : 's', 0, n);
		NxmValue	value = make_value(worker, is_long ? NXM_MAX_VALUE : 100, WHO(0, n),
									   VERSION(FREE, n));
		NxmResult	r;

		if (partitions > 1 && (home_of(&test->cache, key->hash) == 0) != is_long)
			continue;
		r = set(&view, &test->cache, key, &value, 0, false);
		CHECK(worker, r == NXM_OK, "set of value %llu: %d", (unsigned long long) n, (int) r);
		if (get(worker, &view, key, WHO(0, n)).version == 0)
			lost++;
	}
	if (lost != 0)
		printf("# %d values were gone at once\n", lost);
	drop_cache(worker, &test->cache, NULL);
	return lost == 0;
}

/* Of a cache that one worker alone writes new keys to. */
typedef struct Filling
{
	Worker	   *worker;
	NxmCacheView view;
	bool		own;			/* the limit is the cache's own, else the account's */
	uint64_t	limit;			/* in force: bytes */
	uint64_t	next;			/* key */
	uint64_t	sets;
	int			reads;			/* of each key; 0: of one in 64 */
} Filling;

static void
set_limit(Filling *f, uint64_t pages)
{
	Test	   *test = f->worker->test;

	f->limit = pages * NXM_PAGE_SIZE;
	nxm_store(f->own ? &test->cache.max_bytes :
			  &f->worker->space.shared->account[NXM_CACHE_ACCOUNT].page_limit,
			  f->own ? f->limit : pages);
}

static uint64_t
bytes_in_use(const Filling *f)
{
	const Test *test = f->worker->test;
	NxmAccount *account = &f->worker->space.shared->account[NXM_CACHE_ACCOUNT];

	return f->own ? nxm_load(&test->cache.used) : nxm_load(&account->pages) * NXM_PAGE_SIZE;
}

/* The n-th key of fill(), with its bytes in text. */
static NxmKey
key_of_number(const Filling *f, char text[17], uint64_t n)
{
	uint32_t	len = (uint32_t) snprintf(text, 17, "%llx", (unsigned long long) n);

	return (NxmKey) {text, len, f->view.hash(text, len)};
}

/* Sets n new keys to values of len bytes.  bounded: and the limit is never passed. */
static void
fill(Filling *f, uint64_t n, uint32_t len, bool bounded)
{
	Worker	   *worker = f->worker;
	Test	   *test = worker->test;
	NxmResult	r;

	for (uint64_t i = 0; i < n; i++, f->next++)
	{
		char		text[17];
		NxmKey		key = key_of_number(f, text, f->next);
		NxmValue	value = {worker->buffer2, len, NXM_TEXT};
		NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};

		memset(worker->buffer2, (int) f->next & 0xFF, len);
		r = set(&f->view, &test->cache, &key, &value, 0, false);
		/* where memory is being given back there may be no room yet */
		CHECK(worker, r == NXM_OK || (r == NXM_ABSENT && !bounded), "set of %s: %d", text, (int) r);
		if (r == NXM_ABSENT)
			continue;
		f->sets++;
		/* what is read stays: few are, or all of them often enough to go to main */
		for (int reads = f->reads > 0 ? f->reads : i % 64 == 0; reads > 0; reads--)
		{
			ENV_DO(f->view.space, r, nxm_cache_get(&f->view, &test->cache, &key, &buffer, NULL));
			CHECK(worker, r == NXM_OK && buffer.len == len &&
				  memcmp(buffer.data, worker->buffer2, len) == 0, "get of %s: %d", text, (int) r);
		}
		if (bounded)
			CHECK(worker, bytes_in_use(f) <= f->limit, "%llu bytes are used of %llu",
				  (unsigned long long) bytes_in_use(f), (unsigned long long) f->limit);
		if (i % 256 == 0)
		{
			ENV_DO(f->view.space, r, nxm_cache_tick(&f->view, &test->cache));
			/* as the worker does */
			nxm_epoch_poll(f->view.space);
		}
	}
}

/* Housekeeping until there is nothing to do. */
static void
settle(Filling *f)
{
	Test	   *test = f->worker->test;
	NxmResult	r;

	do
	{
		ENV_DO(f->view.space, r, nxm_cache_tick(&f->view, &test->cache));
		nxm_epoch_poll(f->view.space);
	} while (r != NXM_ABSENT || nxm_load(&f->view.space->shared->limbo) != 0);
}

static uint64_t
bytes_of_entries(Filling *f)
{
	Test	   *test = f->worker->test;
	uint64_t	bytes = 0;

	for (int i = 0; i < (int) test->cache.npartitions; i++)
	{
		NxmCacheStats stats;

		CHECK(f->worker, nxm_cache_stats(&f->view, &test->cache, i, &stats), "no statistics");
		bytes += stats.bytes;
	}
	return bytes;
}

/* Does each partition have an index that took the place of another one? */
static bool
indexes_replaced(Filling *f, bool expected)
{
	Test	   *test = f->worker->test;

	for (int i = 0; i < (int) test->cache.npartitions; i++)
	{
		NxmCachePartition *part = nxm_at(f->view.space, nxm_load(&test->cache.partition[i]));

		if ((nxm_load(&part->index.mark) == MARK_EVICTED) != expected)
			return false;
		nxm_store(&part->index.mark, MARK_CLEARED);
	}
	return true;
}

/*
 * With no other worker: does a cache full of values of len bytes keep a limit that is
 * lowered below what its index takes, and one that is raised again?  Is its index
 * replaced then, and only then?
 */
static bool
limits_hold(Worker *worker, int partitions, uint32_t len, bool own, uint64_t high, uint64_t low)
{
	Test	   *test = worker->test;
	Filling		f = {.worker = worker,.own = own};
	uint64_t	entries = high * NXM_PAGE_SIZE / (16 + 12 + len);	/* that it has room for */
	uint64_t	used = 0;
	uint64_t	there = 0;
	uint64_t	evicted = 0;
	uint64_t	bytes;
	NxmSpace	reader;
	int			ticks = 0;
	bool		ok;
	NxmResult	r;

	new_cache(worker, &test->cache, partitions, own ? AMPLE : high);
	open_view(worker, &f.view);
	env_map_all(f.view.space);
	set_limit(&f, high);
	fill(&f, entries * 3 / 2, len, true);
	CHECK(worker, bytes_in_use(&f) > f.limit * 9 / 10, "the cache is not full");
	fill(&f, entries / 2, len, true);
	ok = indexes_replaced(&f, false);
	if (!ok)
		printf("# an index was replaced that was in use\n");

	set_limit(&f, low);
	/* sets go on while memory is given back, by few steps of housekeeping */
	for (; bytes_in_use(&f) > f.limit && ticks < 20000; ticks++)
	{
		ENV_DO(f.view.space, r, nxm_cache_tick(&f.view, &test->cache));
		nxm_epoch_poll(f.view.space);
		if (ticks % 16 == 0)
			fill(&f, 1, len, false);
	}
	if (bytes_in_use(&f) > f.limit)
		printf("# %llu bytes are used of %llu\n", (unsigned long long) bytes_in_use(&f),
			   (unsigned long long) f.limit);
	ok = ok && bytes_in_use(&f) <= f.limit;
	settle(&f);
	if (!indexes_replaced(&f, true))
	{
		printf("# an index was not replaced\n");
		ok = false;
	}
	for (int i = 0; i < partitions; i++)
	{
		NxmCacheStats stats;

		CHECK(worker, nxm_cache_stats(&f.view, &test->cache, i, &stats), "no statistics");
		used += stats.used_bytes;
		there += stats.entries;
		evicted += stats.evictions;
	}
	if (there + evicted != f.sets)
	{
		printf("# %llu entries are there and %llu evicted of %llu\n", (unsigned long long) there,
			   (unsigned long long) evicted, (unsigned long long) f.sets);
		ok = false;
	}
	if (nxm_load(&test->cache.used) != used)
	{
		printf("# %llu bytes are used, %llu are counted\n", (unsigned long long) used,
			   (unsigned long long) nxm_load(&test->cache.used));
		ok = false;
	}

	/* nor is it replaced again while a stopped process holds what was before it */
	env_open(worker->env, &reader, 0, 0);
	nxm_enter(&reader);
	fill(&f, entries / 4, len, false);
	nxm_leave(&reader);
	nxm_proc_detach(&reader);
	ok = ok && indexes_replaced(&f, false);
	settle(&f);
	fill(&f, entries / 2, len, true);
	bytes = bytes_of_entries(&f);
	ok = ok && indexes_replaced(&f, false);
	set_limit(&f, high);
	fill(&f, entries * 6 / 5, len, true);
	CHECK(worker, bytes_in_use(&f) > f.limit * 9 / 10, "the cache is not full again");
	ok = ok && indexes_replaced(&f, false);
	nxm_store(&test->cache.max_bytes, 0);
	drop_cache(worker, &test->cache, NULL);

	/* at the low limit it was as good as one that never had another */
	new_cache(worker, &test->cache, partitions, own ? AMPLE : low);
	set_limit(&f, low);
	settle(&f);
	fill(&f, entries / 2, len, true);
	if (bytes < bytes_of_entries(&f) / 3 * 2)
	{
		printf("# entries had %llu bytes, and in a new cache %llu\n", (unsigned long long) bytes,
			   (unsigned long long) bytes_of_entries(&f));
		ok = false;
	}
	nxm_store(&test->cache.max_bytes, 0);
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/* The same of a cache whose entries have become few and long. */
static bool
few_and_long(Worker *worker)
{
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	bool		ok;

	new_cache(worker, &test->cache, 1, 120);
	open_view(worker, &f.view);
	set_limit(&f, 120);
	settle(&f);
	/* all is read, so that the first ones to give way would be copied */
	f.reads = 1;
	fill(&f, 360000, 4, true);
	ok = indexes_replaced(&f, false);
	/* as often as what is much longer than others is to be */
	f.reads = 3;
	fill(&f, 16000, 1000, true);
	ok = indexes_replaced(&f, true) && ok;
	fill(&f, 16000, 1000, true);
	ok = indexes_replaced(&f, false) && ok;
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/* Of keys that are 2,048 times as close as others, so that they are parted as late. */
static uint64_t
close_hash(const char *data, size_t len)
{
	return env_hash(data, len) >> 11;
}

/*
 * In a full cache, is the directory of the index doubled that takes more pages than are
 * kept free?  Entries become short, so that there are more and more of them.
 */
static bool
directory_is_doubled(Worker *worker)
{
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	NxmCachePartition *part;
	uint32_t	depth;
	uint32_t	wanted;

	new_cache(worker, &test->cache, 1, 100);
	open_view(worker, &f.view);
	f.view.hash = close_hash;
	part = nxm_at(f.view.space, nxm_load(&test->cache.partition[0]));
	set_limit(&f, 100);
	settle(&f);
	fill(&f, 10000, 1000, true);
	fill(&f, 400000, 4, true);
	depth = directory_depth(nxm_load(&part->index.directory));
	wanted = nxm_map_pages_wanted(&part->index);
	if (wanted != 0 || directory_pages(depth) <= NXM_CACHE_KEEP + NXM_CACHE_AHEAD)
		printf("# the directory has %u pages, and %u are wanted\n", directory_pages(depth), wanted);
	drop_cache(worker, &test->cache, NULL);
	return wanted == 0 && directory_pages(depth) > NXM_CACHE_KEEP + NXM_CACHE_AHEAD;
}

/* A new process does one thing, which this counter counts. */
static void
do_once(Worker *worker, NxmSpace *space, int proc, int counter)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	NxmResult	expected = counter == NXM_CACHE_COUNTER_local_hits ? NXM_OK :
		counter == NXM_CACHE_COUNTER_misses ? NXM_ABSENT : NXM_EXISTS;
	KeyText		k;
	const NxmKey *key = make_key(&k, 'l', 0, expected == NXM_ABSENT ? 2 : 1);
	NxmResult	r;

	open_view(worker, &view);
	view.space = space;
	view.home = 0;
	env_open(worker->env, space, proc, 0);
	if (expected == NXM_EXISTS)
		r = set(&view, &test->cache, key, &(NxmValue) {"v", 1, NXM_TEXT}, 0, false);
	else
		ENV_DO(space, r, nxm_cache_get(&view, &test->cache, key, &buffer, NULL));
	CHECK(worker, r == expected, "process %d: %d", proc, (int) r);
	nxm_proc_detach(space);
}

/* A page for a block of lines, in a chunk that `other` has not mapped. */
static NxmRef
page_elsewhere(NxmSpace *space, const NxmSpace *other)
{
	enum { MOST = 4096 };		/* a chunk has fewer */
	static NxmRef pages[MOST];
	NxmRef		found = 0;
	int			n = 0;
	NxmResult	r;

	while (found == 0 && n < MOST)
	{
		ENV_DO(space, r, (pages[n] = nxm_alloc(space, NXM_PAGE_SIZE)) != 0 ?
			   NXM_OK : nxm_no_object(space));
		env_must(r);
		if (other->base[nxm_ref_chunk(pages[n])] == NULL)
			found = pages[n];
		else
			n++;
	}
	while (n > 0)
		nxm_free(space, pages[--n]);
	return found;
}

/*
 * The first processes have lines in the partition, further ones in a block, once there is
 * one.  Each does one thing, and has mapped nothing before: is that counted in its line
 * alone, and is that a line?
 */
static bool
counts_in_its_own_line(Worker *worker, int counter)
{
	enum { PROCESSES = 2 * NXM_CACHE_STRIPES };
	Test	   *test = worker->test;
	NxmCacheView view;
	NxmCachePartition *part;
	NxmCacheCounts *lines;
	KeyText		k;
	NxmSpace	space;
	NxmRef		block;
	bool		ok = true;

	new_cache(worker, &test->cache, 1, 100);
	open_view(worker, &view);
	env_map_all(view.space);
	part = nxm_at(view.space, nxm_load(&test->cache.partition[0]));
	env_must(set(&view, &test->cache, make_key(&k, 'l', 0, 1), &(NxmValue) {"v", 1, NXM_TEXT}, 0,
				 false));
	do_once(worker, &space, 0, counter);
	block = page_elsewhere(view.space, &space);
	CHECK(worker, block != 0, "no page that is not mapped");
	lines = nxm_at(view.space, block);
	for (int line = 0; line < NXM_CACHE_COUNT_LINES; line++)
		for (int c = 0; c < NXM_CACHE_LINE_COUNTERS; c++)
			nxm_init(&lines[line].counter[c], 0);
	/* in place of none */
	CHECK(worker, nxm_load(&part->counts[0]) <= COUNTS_WANTED, "there is a block");
	nxm_fetch_add(&test->cache.used, -nxm_counts_bytes(part));
	nxm_store(&part->counts[0], block);
	nxm_fetch_add(&test->cache.used, nxm_counts_bytes(part));
	nxm_cache_stats_reset(&view, &test->cache);
	for (int p = 0; p < PROCESSES; p++)
	{
		do_once(worker, &space, p, counter);
		for (int q = 0; q < PROCESSES; q++)
		{
			NxmCacheCounts *line = q < NXM_CACHE_STRIPES ? &part->stripe[q] :
				&lines[q - NXM_CACHE_STRIPES];
			uint64_t	counted = nxm_load_relaxed(&line->counter[counter]);

			if (counted != (q <= p) || (uintptr_t) line % NXM_CACHE_LINE != 0)
			{
				printf("# process %d at %p has counted %llu, after those up to process %d\n",
					   q, (void *) line, (unsigned long long) counted, p);
				ok = false;
			}
		}
	}
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/* What a scan sees of the keys of fill() from `first` on, up to `end`. */
typedef struct Seen
{
	uint64_t	first;
	uint64_t	end;
	uint64_t	entries;
	uint64_t	in_main;		/* of these */
	uint64_t	oldest;			/* of all keys in small segments */
	NxmAtomic  *slot;			/* of one of them */
} Seen;

static void
begin_seeing(void *context)
{
	(void) context;
}

static NxmResult
see(NxmCacheView *view, const NxmCacheEntry *entry, void *context)
{
	Seen	   *seen = context;
	int			kind = SEG_KIND(nxm_load(&segment_at(view->space, entry->word & NXM_REF_MASK)->word));
	char		text[17] = "";
	uint64_t	n;

	memcpy(text, entry->key, entry->key_len);
	n = strtoull(text, NULL, 16);
	if (kind == KIND_SMALL && n < seen->oldest)
		seen->oldest = n;
	if (n >= seen->first && n < seen->end)
	{
		seen->entries++;
		seen->in_main += kind == KIND_MAIN;
		seen->slot = entry->slot;
	}
	return NXM_OK;
}

/* Nobody writes meanwhile, so that each entry is seen once. */
static Seen
look(Filling *f, uint64_t first, uint64_t end)
{
	Test	   *test = f->worker->test;
	Seen		seen = {.first = first, .end = end, .oldest = UINT64_MAX};
	NxmCacheCursor cursor = {0, 0};
	NxmResult	r;

	do
		ENV_DO(f->view.space, r, nxm_cache_scan(&f->view, &test->cache, &cursor, begin_seeing,
												see, &seen));
	while (r == NXM_OK);
	CHECK(f->worker, r == NXM_ABSENT, "a scan: %d", (int) r);
	return seen;
}

/*
 * Keys are written again that were evicted a while ago, unread: are they put where they
 * stay, other than new ones, while as many new keys are written as the cache holds?
 */
static bool
what_is_wanted_again_stays(Worker *worker)
{
	enum { PAGES = 60, KEYS = 500, HELD = PAGES * NXM_PAGE_SIZE / 128 };
	Filling		f = {.worker = worker};
	Test	   *test = worker->test;
	uint64_t	next = 2 * HELD;
	uint64_t	first;
	Seen		again;
	Seen		new;
	Seen		left;
	bool		ok;

	new_cache(worker, &test->cache, 1, PAGES);
	open_view(worker, &f.view);
	set_limit(&f, PAGES);
	fill(&f, next, 100, true);
	first = look(&f, 0, 0).oldest - KEYS;
	for (uint64_t n = first; n < first + KEYS; n++)
	{
		char		text[17];
		NxmKey		key = key_of_number(&f, text, n);

		/* one that was taken for another is there still */
		env_must(set(&f.view, &test->cache, &key, &(NxmValue) {text, key.len, NXM_TEXT}, 0, false));
	}
	again = look(&f, first, first + KEYS);
	fill(&f, KEYS, 100, true);
	new = look(&f, next, next + KEYS);
	fill(&f, HELD, 100, true);
	left = look(&f, first, first + KEYS);
	/* the ghost has lost some, and takes some for others */
	ok = again.in_main > KEYS * 9 / 10 && new.entries == KEYS && new.in_main < KEYS / 10 &&
		left.entries > KEYS * 9 / 10;
	if (!ok)
		printf("# of %d keys %llu went to main the second time, %llu the first time; %llu stayed\n", KEYS,
			   (unsigned long long) again.in_main, (unsigned long long) new.in_main,
			   (unsigned long long) left.entries);
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/*
 * Of keys that were read as often, do the short ones stay and the long ones leave?  In small,
 * while as many new keys are written as the cache holds; or in main, whose segments are
 * looked at once.
 */
static bool
short_ones_stay(Worker *worker, int kind)
{
	enum { PAGES = 60, KEYS = 60, HELD = PAGES * NXM_PAGE_SIZE / 232, LENS = 4, READS = 4 };
	/* about an average, a quarter of it, 2 and 5 of it; and the reads with which these stay */
	static const uint32_t len[LENS] = {200, 40, 430, 1050};
	static const int stays[2][LENS] = {[KIND_SMALL] = {2, 1, 3, 3},[KIND_MAIN] = {1, 1, 2, 3}};
	Filling		f = {.worker = worker};
	Test	   *test = worker->test;
	NxmCachePartition *part;
	uint64_t	first[LENS][READS];
	bool		ok = true;
	NxmResult	r;

	new_cache(worker, &test->cache, 1, PAGES);
	open_view(worker, &f.view);
	set_limit(&f, PAGES);
	/* as long as nothing is evicted new keys go to main */
	if (kind == KIND_SMALL)
		fill(&f, 2 * HELD, 200, true);
	for (int l = 0; l < LENS; l++)
	{
		for (int reads = 0; reads < READS; reads++)
		{
			first[l][reads] = f.next;
			/* 0: the first one is read, which is within what is allowed below */
			f.reads = reads;
			fill(&f, KEYS, len[l], true);
		}
	}
	f.reads = 0;
	fill(&f, kind == KIND_SMALL ? HELD : HELD / 2, 200, true);
	part = partition_at(&worker->space, &test->cache, 0, &r);
	/* the keys and some of what came later, and less than all of that */
	for (int i = 0; kind == KIND_MAIN && i < PAGES / 4; i++)
	{
		ENV_DO(f.view.space, r, nxm_cache_evict(&f.view, &test->cache, part, SEGMENT_UNITS, REACH_SEALED));
		env_must(r);
	}
	for (int l = 0; l < LENS; l++)
	{
		for (int reads = 0; reads < READS; reads++)
		{
			uint64_t	left = look(&f, first[l][reads], first[l][reads] + KEYS).entries;

			/* the ghost takes some for others, and a full chain of the index loses one */
			if (reads >= stays[kind][l] ? left >= KEYS * 9 / 10 : left <= KEYS / 10)
				continue;
			printf("# of %d keys of %u bytes that were read %d times %llu stayed\n", KEYS, len[l],
				   reads, (unsigned long long) left);
			ok = false;
		}
	}
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/* Pages of the system that a child has written to, as they were before. */
#define MOST_WRITTEN 16
#define MOST_PAGE 65536

static struct
{
	char	   *page;
	char		before[MOST_PAGE];
}			written[MOST_WRITTEN];
static int	nwritten;
static size_t os_page;

/* The first write to a page of the space. */
static void
has_written(int sig, siginfo_t *info, void *context)
{
	char	   *page = (char *) ((uintptr_t) info->si_addr / os_page * os_page);

	(void) sig;
	(void) context;
	if (nwritten == MOST_WRITTEN || os_page > MOST_PAGE)
		_exit(2);
	written[nwritten].page = page;
	memcpy(written[nwritten].before, page, os_page);
	if (mprotect(page, os_page, PROT_READ | PROT_WRITE) != 0)
		_exit(2);
	nwritten++;
}

/* What a read wrote. */
typedef struct Writes
{
	int			pages;
	int			nlines;
	const char *line[MOST_WRITTEN];
	bool		slot;			/* to the page with the key's slot */
} Writes;

/*
 * What a read of the key by this process writes to of all chunks: in a child, where a page
 * is written to once it has been noted.  Its own slot is not in a chunk.
 */
static Writes
writes_of_read(Filling *f, const NxmKey *key, NxmAtomic *slot, int proc)
{
	Test	   *test = f->worker->test;
	Env		   *of = f->worker->env;
	int			ends[2];
	Writes		writes = {0};
	pid_t		child;

	os_page = (size_t) sysconf(_SC_PAGESIZE);
	CHECK(f->worker, pipe(ends) == 0 && (child = fork()) >= 0, "no child");
	if (child == 0)
	{
		struct sigaction action = {.sa_sigaction = has_written,.sa_flags = SA_SIGINFO};
		NxmBuffer	buffer = {f->worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
		NxmSpace	space;
		NxmResult	r;

		env_open(of, &space, proc, 0);
		env_map_all(&space);
		f->view.space = &space;
		sigaction(SIGSEGV, &action, NULL);
		for (int i = 0; i < NXM_MAX_CHUNKS; i++)
			if (of->chunks[i] != NULL && mprotect(of->chunks[i], of->chunk_bytes[i], PROT_READ) != 0)
				_exit(2);
		ENV_DO(&space, r, nxm_cache_get(&f->view, &test->cache, key, &buffer, NULL));
		writes.pages = nwritten;
		for (int i = 0; i < nwritten; i++)
		{
			const char *page = written[i].page;

			writes.slot |= (const char *) slot >= page && (const char *) slot < page + os_page;
			for (size_t at = 0; at < os_page; at += NXM_CACHE_LINE)
				if (memcmp(page + at, written[i].before + at, NXM_CACHE_LINE) != 0 &&
					writes.nlines < MOST_WRITTEN)
					writes.line[writes.nlines++] = page + at;
		}
		_exit(r == NXM_OK && write(ends[1], &writes, sizeof(writes)) == sizeof(writes) ? 0 : 2);
	}
	close(ends[1]);
	CHECK(f->worker, read(ends[0], &writes, sizeof(writes)) == sizeof(writes), "no read");
	close(ends[0]);
	CHECK(f->worker, waitpid(child, NULL, 0) == child, "no child");
	return writes;
}

/*
 * A key that is read so often that reads are not counted any more: a process writes to the
 * line that it counts hits in, and no other one does to that line.
 */
static bool
hot_key_is_only_read(Worker *worker)
{
	Filling		f = {.worker = worker,.reads = 1};
	Test	   *test = worker->test;
	const NxmKey key = {"0", 1, hash("0", 1)};
	NxmAtomic  *slot;
	Writes		cold;
	Writes		hot[2];

	new_cache(worker, &test->cache, 1, 100);
	open_view(worker, &f.view);
	env_map_all(f.view.space);
	fill(&f, 1, 100, false);
	slot = look(&f, 0, 1).slot;
	CHECK(worker, slot != NULL, "the key is not there");
	cold = writes_of_read(&f, &key, slot, 0);
	for (int reads = 0; reads < (int) (FREQ_MASK / FREQ_ONE); reads++)
	{
		NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
		NxmResult	r;

		ENV_DO(f.view.space, r, nxm_cache_get(&f.view, &test->cache, &key, &buffer, NULL));
		CHECK(worker, r == NXM_OK, "get: %d", (int) r);
	}
	for (int p = 0; p < 2; p++)
	{
		hot[p] = writes_of_read(&f, &key, slot, p);
		printf("# a read of process %d writes to %d lines in %d pages%s\n", p, hot[p].nlines,
			   hot[p].pages, hot[p].slot ? ", and to that of the slot" : "");
	}
	drop_cache(worker, &test->cache, NULL);
	return cold.slot && !hot[0].slot && !hot[1].slot && hot[0].pages == 1 && hot[1].pages == 1 &&
		hot[0].nlines == 1 && hot[1].nlines == 1 && hot[0].line[0] != hot[1].line[0];
}

/*
 * A process is stopped that has taken all rooms of a list for a look at the hazards: those
 * that it shares the list with write again in the rooms of the next one.
 */
static bool
rooms_of_the_next_list(Worker *worker)
{
	Test	   *test = worker->test;
	NxmCacheView view;
	NxmCachePartition *part;
	NxmFreeRoom *list;
	NxmFreeRoom *next;
	int			rooms = 0;
	uint64_t	bytes;

	new_cache(worker, &test->cache, 1, 100);
	open_view(worker, &view);
	part = nxm_at(view.space, nxm_load(&test->cache.partition[0]));
	list = part->room[view.space->proc % NXM_CACHE_ROOM_LISTS];
	next = part->room[(view.space->proc + 1) % NXM_CACHE_ROOM_LISTS];
	/* 1: somebody is at it */
	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
		nxm_store(&list[i].name, 1);
	/* 1,000 values of 100 bytes, 20 times: they take less than a quarter of that */
	for (uint64_t n = 0; n < 20000; n++)
	{
		KeyText		k;
		const NxmKey *key = make_key(&k, 's', 0, n % 1000);
		NxmValue	value = make_value(worker, 100, WHO(0, n), VERSION(FREE, n));
		NxmResult	r = set(&view, &test->cache, key, &value, 0, false);

		CHECK(worker, r == (n < 1000 ? NXM_OK : NXM_EXISTS), "set of value %llu: %d",
			  (unsigned long long) n, (int) r);
	}
	for (int i = 0; i < NXM_CACHE_ROOMS; i++)
	{
		rooms += nxm_load(&next[i].name) != 0;
		nxm_store(&list[i].name, 0);
	}
	bytes = nxm_cache_segment_bytes(part);
	if (rooms == 0 || bytes > 20000 * 100 / 4)
		printf("# %d rooms are given, and segments take %llu bytes\n", rooms,
			   (unsigned long long) bytes);
	drop_cache(worker, &test->cache, NULL);
	return rooms > 0 && bytes <= 20000 * 100 / 4;
}

/*
 * Is an index that takes most of what its cache has, and that few entries need, kept
 * while memory waits for the epoch that is the cache's to fill then?
 */
static bool
waiting_is_as_good_as_free(Worker *worker)
{
	enum { PAGES = 60 };
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;
	Filling		f = {.worker = worker};
	NxmSpace	reader;
	NxmRef		page[2 * PAGES];
	int			npages = 0;
	NxmResult	r;
	bool		ok;

	new_cache(worker, &test->cache, 1, PAGES);
	open_view(worker, &f.view);
	set_limit(&f, PAGES);
	settle(&f);
	fill(&f, PAGES * NXM_PAGE_SIZE / 32, 4, true);
	for (uint64_t n = 0; n < f.next; n++)
	{
		char		text[17];
		NxmKey		key = key_of_number(&f, text, n);

		if (n % 8 != 0)
			ENV_DO(space, r, nxm_cache_delete(&f.view, &test->cache, &key));
	}
	settle(&f);
	/* what was freed is taken, as by another cache, and given back while somebody reads */
	nxm_allocate_from(space, NXM_CACHE_ACCOUNT, 0);
	while (npages < 2 * PAGES && (page[npages] = nxm_alloc(space, NXM_PAGE_SIZE)) != 0)
		npages++;
	nxm_allocate_from(space, 0, -1);
	env_open(worker->env, &reader, 0, 0);
	nxm_enter(&reader);
	for (int i = 0; i < npages; i++)
		nxm_retire_epoch(space, page[i]);
	for (int i = 0; i < 20; i++)
		ENV_DO(space, r, nxm_cache_tick(&f.view, &test->cache));
	ok = npages > PAGES / 3 && bytes_in_use(&f) >= f.limit && indexes_replaced(&f, false);
	nxm_leave(&reader);
	nxm_proc_detach(&reader);
	settle(&f);
	ok = ok && bytes_in_use(&f) < f.limit && indexes_replaced(&f, false);
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/*
 * With no other worker: items of all sorts say the deadline that they were given, or one
 * that is sooner by a two-millionth of their time to live, but not where that is seconds;
 * where windows are wide, by a millionth.
 */
static bool
deadlines_are_kept(Worker *worker)
{
	static const uint32_t keys[] = {1, 127, 128, NXM_MAX_KEY};
	static const uint32_t lens[] = {0, 2047, 2048, 30000};
	enum { NKEYS = 4, NLENS = 4, ROUNDS = 4 };
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	char		text[NXM_MAX_KEY];
	char	   *wanted = malloc(NXM_MAX_VALUE);
	NxmBuffer	buffer = {.data = worker->buffer,.size = NXM_MAX_VALUE};
	uint64_t	begin = nxm_load(&test->clock);
	NxmResult	r;
	NxmCachePartition *part;
	int			shorter = 0;
	bool		ok = true;

	CHECK(worker, wanted != NULL, "no memory");
	new_cache(worker, &test->cache, 1, 1000);
	open_view(worker, &f.view);
	part = nxm_at(f.view.space, nxm_load(&test->cache.partition[0]));
	for (int i = 0; i < 64 * NKEYS * NLENS * ROUNDS && ok; i++)
	{
		uint32_t	len = lens[i % NLENS];
		NxmKey		key = {text, keys[i / NLENS % NKEYS], 0};
		int			scale = i / (NLENS * NKEYS) % 55;
		int64_t		ttl = 1 + (int64_t) ((UINT64_C(1) << scale) +
										 env_below(&worker->random, UINT32_MAX) %
										 (UINT64_C(1) << scale));
		int64_t		kept = 0;
		int			level = i / 3 % (MAX_LEVEL + 1);
		int64_t		deadline;
		NxmValue	value = {wanted, len, NXM_BYTEA};

		/* the end of a window, its beginning, and anywhere */
		nxm_store(&part->level, (uint64_t) level);
		nxm_fetch_add(&test->clock, env_below(&worker->random, 1000));
		deadline = now(test) + ttl;
		if (i % 3 != 0)
			deadline = (deadline >> 42 << 42) + (i % 3 == 1 ? 0 : 1) + (INT64_C(1) << 42);
		ttl = deadline - now(test);
		memset(text, 'a' + i % 7, key.len);
		key.hash = env_hash(text, key.len);
		memset(wanted, i, len);
		/* in the room of what was there, too, and by another deadline for the same */
		if (i % 2 == 0)
			r = set(&f.view, &test->cache, &key, &value, deadline, false);
		else
		{
			r = set(&f.view, &test->cache, &key, &value, i % 4 == 1 ? 0 : deadline + 77, false);
			ENV_DO(f.view.space, r, nxm_cache_expire(&f.view, &test->cache, &key, deadline));
		}
		CHECK(worker, r == NXM_OK || r == NXM_EXISTS, "set: %d", (int) r);
		ENV_DO(f.view.space, r, nxm_cache_get(&f.view, &test->cache, &key, &buffer, &kept));
		ok = r == NXM_OK && buffer.len == len && memcmp(buffer.data, wanted, len) == 0 &&
			kept <= deadline && deadline - kept <= ttl >> (level == 0 ? 21 : 20);
		if (!ok)
			printf("# key of %u, value of %u, a TTL of %lld, level %d: %d, sooner by %lld\n",
				   key.len, len, (long long) ttl, level, (int) r, (long long) (deadline - kept));
		shorter += kept < deadline;
	}
	CHECK(worker, shorter > 0, "no deadline was rounded");
	free(wanted);
	nxm_store(&test->clock, begin);
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/* When the bytes of what has this deadline are to be free. */
static int64_t
reclaimed_by(int64_t ttl, int64_t deadline)
{
	return deadline + (ttl / 8 > 1000000 ? ttl / 8 : 1000000);
}

/* A pass of the worker, which stops after as many steps. */
static void
pass(Filling *f, int64_t at)
{
	Test	   *test = f->worker->test;
	NxmResult	r = NXM_OK;

	nxm_store(&test->clock, (uint64_t) at);
	for (int i = 0; i < 256 && r != NXM_ABSENT; i++)
	{
		ENV_DO(f->view.space, r, nxm_cache_tick(&f->view, &test->cache));
		nxm_epoch_poll(f->view.space);
	}
}

static void
set_with_ttl(Filling *f, int64_t ttl, int64_t deadline)
{
	Test	   *test = f->worker->test;
	NxmValue	value = {f->worker->buffer2, 100, NXM_TEXT};
	KeyText		k;
	NxmResult	r;

	nxm_store(&test->clock, (uint64_t) (deadline - ttl));
	r = set(&f->view, &test->cache, make_key(&k, 't', 0, f->next++), &value, deadline, false);
	CHECK(f->worker, r == NXM_OK, "set with a deadline: %d", (int) r);
}

/*
 * With no other worker: a small cache with times to live of all lengths is full of entries
 * for two thirds, although there are more windows of deadlines than it may have segments
 * open; and with one time to live, after that, windows become narrower.
 */
static bool
many_windows(Worker *worker, int64_t least, int64_t most)
{
	enum { PAGES = 128, SETS = 100000, ENTRY = 128 };
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	NxmCachePartition *part;
	NxmCacheStats stats;
	int64_t		begin = now(test);
	uint64_t	level;
	uint64_t	entries;
	bool		narrower;

	new_cache(worker, &test->cache, 1, PAGES);
	open_view(worker, &f.view);
	part = nxm_at(f.view.space, nxm_load(&test->cache.partition[0]));
	for (int i = 0; i < SETS; i++)
	{
		int64_t		ttl = (least + env_below(&worker->random, (uint32_t) (most - least))) * 1000000;

		set_with_ttl(&f, ttl, begin + ttl);
		if (i % 1000 == 0)
			pass(&f, begin);
	}
	(void) nxm_cache_stats(&f.view, &test->cache, 0, &stats);
	entries = stats.entries;
	level = nxm_load(&part->level);
	for (int i = 0; i < 4; i++)
	{
		/* past all windows */
		begin += most * INT64_C(100000000);
		set_with_ttl(&f, most * 1000000, begin + most * 1000000);
		pass(&f, begin);
	}
	printf("# %llu entries in %d MB, windows of level %llu, then %llu\n", (unsigned long long) entries,
		   PAGES * NXM_PAGE_SIZE / 1048576, (unsigned long long) level,
		   (unsigned long long) nxm_load(&part->level));
	nxm_store(&test->clock, (uint64_t) begin);
	narrower = nxm_load(&part->level) < level;
	drop_cache(worker, &test->cache, NULL);
	return entries > PAGES * NXM_PAGE_SIZE / ENTRY * 2 / 3 && level > 0 && narrower;
}

/* Hits of reads of long values, which a miss writes, while those wanted change slowly. */
static int
long_hits(Worker *worker, int64_t least, int64_t most, uint64_t *level)
{
	enum { PAGES = 256, LEN = 60000, READS = 20000, WANTED = 800 };
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	NxmBuffer	buffer = {.data = worker->buffer,.size = NXM_MAX_VALUE};
	NxmValue	value = {worker->buffer2, LEN, NXM_BYTEA};
	uint64_t	begin = nxm_load(&test->clock);
	int			hits = 0;

	new_cache(worker, &test->cache, 1, PAGES);
	open_view(worker, &f.view);
	for (int i = 0; i < READS; i++)
	{
		KeyText		text;
		const NxmKey *key = make_key(&text, 't', 0, (uint32_t) i / 20 + env_below(&worker->random, WANTED));
		int64_t		ttl = least + env_below(&worker->random, (uint32_t) ((most - least) / 1000000) + 1) * INT64_C(1000000);
		NxmResult	r;

		nxm_fetch_add(&test->clock, 100000);
		ENV_DO(f.view.space, r, nxm_cache_get(&f.view, &test->cache, key, &buffer, NULL));
		hits += r == NXM_OK;
		if (r != NXM_OK)
			r = set(&f.view, &test->cache, key, &value, ttl == 0 ? 0 : now(test) + ttl, false);
		CHECK(worker, r == NXM_OK, "set of a long value: %d", (int) r);
		if (i % 100 == 0)
			pass(&f, now(test));
	}
	*level = nxm_load(&((NxmCachePartition *) nxm_at(f.view.space, nxm_load(&test->cache.partition[0])))->level);
	nxm_store(&test->clock, begin);
	drop_cache(worker, &test->cache, NULL);
	return hits;
}

/*
 * With no other worker: long values, of whose segments few bytes are used, are kept
 * nearly as well with a time to live as without, and windows are as narrow as ever.
 */
static bool
long_values_expire(Worker *worker)
{
	uint64_t	level;
	uint64_t	level_of_many;
	int			without = long_hits(worker, 0, 0, &level);
	int			many = long_hits(worker, INT64_C(60000000), INT64_C(7200000000), &level_of_many);
	int			with = long_hits(worker, INT64_C(3600000000), INT64_C(3600000000), &level);

	printf("# %d hits without deadlines, %d with, windows of level %llu; %d of many times to live, level %llu\n",
		   without, with, (unsigned long long) level, many, (unsigned long long) level_of_many);
	return with >= without - without / 4 && level == 0 && many >= without / 2;
}

/*
 * With no other worker: are the bytes of one entry free in time, where the last pass
 * before is as long before as can be?  *after: all that came before is gone.
 */
static bool
one_is_in_time(Filling *f, int64_t ttl, bool aligned, int64_t *after)
{
	Test	   *test = f->worker->test;
	/* no window is longer: with its first deadline an entry waits for the end of it */
	int64_t		unit = INT64_C(1) << 43;
	int64_t		deadline = *after + ttl;
	int64_t		until;

	if (aligned)
		deadline = (deadline / unit + 1) * unit + 1;
	else
		deadline += env_below(&f->worker->random, UINT32_MAX);
	until = reclaimed_by(ttl, deadline);
	set_with_ttl(f, ttl, deadline);
	for (int back = 3; back > 0; back--)
	{
		int64_t		at = until + 1 - back * (int64_t) NXM_CACHE_PERIOD;

		if (at >= deadline - ttl)
			pass(f, at);
	}
	*after = until + ttl;
	if (nxm_cache_is_empty(&f->view, &test->cache) && bytes_of_entries(f) == 0)
		return true;
	printf("# a TTL of %lld: not free %lld after its end\n", (long long) ttl,
		   (long long) (until - deadline));
	pass(f, until + ttl);
	return false;
}

/* Many at once, whose deadlines come one after another. */
static bool
all_are_in_time(Filling *f, int64_t begin)
{
	enum { N = 4000 };
	Test	   *test = f->worker->test;
	int64_t    *until = calloc(N, sizeof(int64_t));
	int			most = 0;
	bool		ok = true;

	CHECK(f->worker, until != NULL, "no memory");
	for (int n = 0; n < N && ok; n++)
	{
		int64_t		now = begin + n * (int64_t) NXM_CACHE_PERIOD / 4;
		int64_t		ttl = 1000 + env_below(&f->worker->random,
										   UINT32_C(1) << (10 + env_below(&f->worker->random, 17)));

		until[n] = reclaimed_by(ttl, now + ttl);
		set_with_ttl(f, ttl, now + ttl);
		if (n % 4 == 3)
		{
			NxmCacheStats stats;
			int			late = 0;

			/* now, and not by this pass */
			for (int i = 0; i <= n; i++)
				late += until[i] < now;
			CHECK(f->worker, nxm_cache_stats(&f->view, &test->cache, 0, &stats), "no statistics");
			ok = stats.entries <= (uint64_t) (n + 1 - late);
			if (!ok)
				printf("# %llu entries are there of which %d may be\n",
					   (unsigned long long) stats.entries, n + 1 - late);
			if ((int) stats.entries > most)
				most = (int) stats.entries;
			pass(f, now);
		}
	}
	printf("# at most %d entries at once\n", most);
	free(until);
	return ok && most > 50;
}

/* More segments at once than there are places to note them in. */
static bool
all_at_once(Filling *f, int64_t begin)
{
	Test	   *test = f->worker->test;
	int64_t		ttl = INT64_C(3600) * 1000000;

	for (int n = 0; n < 4 * NXM_CACHE_RIPE * NXM_CACHE_SEGMENT / 128; n++)
		set_with_ttl(f, ttl, begin + ttl);
	pass(f, reclaimed_by(ttl, begin + ttl));
	if (nxm_cache_is_empty(&f->view, &test->cache))
		return true;
	printf("# of many segments that are due at once some stay\n");
	return false;
}

static bool
expires_in_time(Worker *worker)
{
	static const int64_t beside[] = {-1000, -1, 0, 1, 1000, 200000, 1000000, 1600000, 3000000};
	const int64_t year = INT64_C(366) * 86400 * 1000000;
	Filling		f = {.worker = worker};
	int64_t		after = (int64_t) nxm_load(&((Test *) worker->test)->clock);
	int			late = 0;
	bool		ok;

	new_cache(worker, &((Test *) worker->test)->cache, 1, AMPLE);
	open_view(worker, &f.view);
	memset(worker->buffer2, 't', 100);
	for (int log = 10; log < 45; log++)
		for (int i = 0; i < (int) (sizeof(beside) / sizeof(beside[0])); i++)
		{
			int64_t		ttl = (INT64_C(1) << log) + beside[i];

			if (ttl >= 1000 && ttl <= year)
				late += !one_is_in_time(&f, ttl, true, &after);
		}
	for (int i = 0; i < 2000; i++)
	{
		/* as many of each order of magnitude */
		int64_t		ttl = 1000 + (int64_t) (env_random(&worker->random) >>
											(19 + env_below(&worker->random, 35)));

		late += !one_is_in_time(&f, ttl < year ? ttl : year, i % 2 == 0, &after);
	}
	ok = all_are_in_time(&f, after) && late == 0 &&
		all_at_once(&f, (int64_t) nxm_load(&((Test *) worker->test)->clock));
	drop_cache(worker, &((Test *) worker->test)->cache, NULL);
	return ok;
}

/* Times to live of which both end in windows that a hash of 15 bits does not tell apart. */
static bool
windows_keep_apart(Worker *worker)
{
	enum { N = 4000 };
	const int64_t second = 1000000;
	/* in the middle of both: 2^28 and 2^33 microseconds long */
	const int64_t at = (INT64_C(3139841) << 28) - (INT64_C(1) << 27) - 3600 * second;
	Test	   *test = worker->test;
	uint64_t	before = nxm_load(&test->clock);
	Filling		f = {.worker = worker};
	NxmCachePartition *part;
	NxmResult	r;
	uint64_t	segments;

	nxm_store(&test->clock, (uint64_t) at);
	new_cache(worker, &test->cache, 1, AMPLE);
	open_view(worker, &f.view);
	memset(worker->buffer2, 't', 100);
	for (int n = 0; n < N; n++)
	{
		int64_t		ttl = n % 2 == 0 ? 3600 * second : 86400 * second;

		set_with_ttl(&f, ttl, at + ttl);
	}
	part = partition_at(&worker->space, &test->cache, 0, &r);
	segments = nxm_load(&part->chain[0].segments) + nxm_load(&part->chain[1].segments);
	drop_cache(worker, &test->cache, NULL);
	nxm_store(&test->clock, before);
	if (segments <= N * 144 / NXM_CACHE_SEGMENT + 2)
		return true;
	printf("# %llu segments for %d entries\n", (unsigned long long) segments, N);
	return false;
}

/*
 * Two readers are stopped in segments that are drained then.  When the second one goes on,
 * its segment is given back, though the first one's was drained before.
 */
static bool
others_pass_by(Worker *worker)
{
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	NxmCachePartition *part;
	NxmSpace	reader[2];
	NxmResult	r;
	uint64_t	deadline = nxm_load(&test->clock) + 60000000;
	uint64_t	segments[3];
	bool		ok = true;

	new_cache(worker, &test->cache, 1, AMPLE);
	open_view(worker, &f.view);
	memset(worker->buffer2, 't', 100);
	part = partition_at(&worker->space, &test->cache, 0, &r);
	for (int i = 0; i < 2; i++)
	{
		uint64_t	name;

		/* the first entry of a segment, and what fills the segment */
		for (int n = 0; n < 600; n++)
			set_with_ttl(&f, 60000000, (int64_t) deadline);
		name = nxm_load(&((NxmChainBlock *) nxm_at(&worker->space,
												   nxm_load(&part->chain[KIND_MAIN].head)))->entry[i]);
		env_open(worker->env, &reader[i], i, 0);
		nxm_enter(&reader[i]);
		nxm_protect(&reader[i], ((NxmRef) NAME_PAGE(name) << NXM_PAGE_SHIFT) + HEAD_UNITS);
	}
	for (int i = 0; i < 3; i++)
	{
		pass(&f, reclaimed_by(60000000, (int64_t) deadline));
		segments[i] = nxm_load(&part->chain[0].segments) + nxm_load(&part->chain[1].segments);
		if (i < 2)
		{
			nxm_leave(&reader[1 - i]);
			nxm_proc_detach(&reader[1 - i]);
		}
	}
	for (int i = 0; i < 3; i++)
		ok = ok && segments[i] == (uint64_t) (2 - i);
	if (!ok)
		printf("# %llu, %llu, %llu segments are held back\n", (unsigned long long) segments[0],
			   (unsigned long long) segments[1], (unsigned long long) segments[2]);
	drop_cache(worker, &test->cache, NULL);
	return ok;
}

/*
 * With no other worker: half of the segments go, evenly, so that any two blocks of their
 * chain keep more names than fit in one.  Housekeeping joins them all the same, and comes to
 * an end, and does not begin again for what it has left.
 */
static bool
chains_become_dense(Worker *worker)
{
	enum { STAY = 15, OF = 29, SEGMENTS = 30 * OF, PASSES = 40 };
	const int64_t ttl[2] = {INT64_C(100000) * 1000000, INT64_C(3600) * 1000000};
	const int64_t begin = INT64_C(1) << 50;
	Test	   *test = worker->test;
	uint64_t	clock = nxm_load(&test->clock);
	Filling		f = {.worker = worker};
	NxmCachePartition *part;
	uint64_t	before = 0;
	uint64_t	sparse = 0;
	uint64_t	blocks = 0;
	uint64_t	names = 0;
	uint64_t	segments = 0;
	NxmResult	r;
	bool		ok = true;

	nxm_store(&test->clock, (uint64_t) begin);
	new_cache(worker, &test->cache, 1, AMPLE);
	open_view(worker, &f.view);
	memset(worker->buffer2, 't', 100);
	part = partition_at(&worker->space, &test->cache, 0, &r);
	for (uint64_t i = 0; i < SEGMENTS; i++)
	{
		int64_t		mine = ttl[i * STAY % OF >= STAY];

		/* opens one */
		do
			set_with_ttl(&f, mine, begin + mine);
		while (nxm_load(&part->chain[0].segments) + nxm_load(&part->chain[1].segments) <= i);
	}
	for (int kind = 0; kind < 2; kind++)
		before += nxm_load(&part->chain[kind].blocks);
	for (int i = 0; i < PASSES; i++)
		pass(&f, reclaimed_by(ttl[1], begin + ttl[1]));
	for (int kind = 0; kind < 2; kind++)
	{
		NxmChain   *chain = &part->chain[kind];

		sparse += nxm_chain_is_sparse(chain) || nxm_load(&chain->cleaned) != 0;
		blocks += nxm_load(&chain->blocks);
		segments += nxm_load(&chain->segments);
		nxm_enter(&worker->space);
		for (NxmRef ref = nxm_load(&chain->head); ref > CHAIN_CLOSED;)
		{
			NxmChainBlock *block = nxm_at(&worker->space, ref);

			for (int e = 0; e < NXM_CHAIN_ENTRIES; e++)
			{
				uint64_t	name = nxm_load(&block->entry[e]);

				names += name != 0 && name != NAME_GONE &&
					SEG_LIFE(nxm_load(&segment_named(&worker->space, name)->word)) == NAME_LIFE(name);
			}
			ref = nxm_load(&block->next);
		}
		nxm_leave(&worker->space);
	}
	ENV_DO(f.view.space, r, nxm_cache_tick(&f.view, &test->cache));
	ok = r == NXM_ABSENT && sparse == 0 && names == segments &&
		segments <= SEGMENTS * STAY / OF + 2 && blocks * 4 < before * 3;
	printf("# %llu segments in %llu blocks, of %llu, and %llu names; %llu chains are sparse, and it says %d\n",
		   (unsigned long long) segments, (unsigned long long) blocks, (unsigned long long) before,
		   (unsigned long long) names, (unsigned long long) sparse, (int) r);
	drop_cache(worker, &test->cache, NULL);
	nxm_store(&test->clock, clock);
	return ok;
}

/*
 * With no other worker, but one that is stopped in a section, so that nothing comes back
 * from the epoch: is a full cache that is cleared drained all the same, by sets, or by
 * housekeeping?
 */
static bool
drained_while_one_is_stopped(Worker *worker, bool by_sets)
{
	enum { PAGES = 160, SETS = 10000 };
	Test	   *test = worker->test;
	Filling		f = {.worker = worker};
	NxmCacheCursor cursor = {0, 0};
	uint64_t	removed = 0;
	uint64_t	sets;
	NxmCachePartition *part;
	NxmSpace	stopped;
	NxmResult	r;
	bool		ok;

	new_cache(worker, &test->cache, 1, PAGES);
	open_view(worker, &f.view);
	set_limit(&f, PAGES);
	settle(&f);
	fill(&f, PAGES * NXM_PAGE_SIZE / 32, 4, true);
	env_open(worker->env, &stopped, 0, 0);
	nxm_enter(&stopped);
	ENV_DO(f.view.space, r, nxm_cache_clear(&f.view, &test->cache, &cursor, &removed));
	CHECK(worker, r == NXM_OK, "clear: %d", (int) r);
	sets = f.sets;
	if (by_sets)
		fill(&f, SETS, 4, false);
	for (int i = 0; i < 10000 && r != NXM_ABSENT && !by_sets; i++)
		ENV_DO(f.view.space, r, nxm_cache_tick(&f.view, &test->cache));
	part = partition_at(&worker->space, &test->cache, 0, &r);
	/* those that come while it is drained may be refused */
	ok = nxm_load(&part->index.dead) == 0 && (!by_sets || f.sets - sets > SETS * 99 / 100);
	if (!ok)
		printf("# %s, %llu of %d sets are refused\n",
			   nxm_load(&part->index.dead) == 0 ? "drained" : "not drained",
			   by_sets ? (unsigned long long) (SETS - (f.sets - sets)) : 0, SETS);
	nxm_leave(&stopped);
	nxm_proc_detach(&stopped);
	drop_cache(worker, &test->cache, NULL);
	return ok && nxm_load(&worker->space.shared->leaked) == 0;
}

/* With no other worker: a cache with a limit of its own, and the largest one. */
typedef struct Pair
{
	Worker	   *worker;
	NxmCacheView view;
	NxmCache   *small;
	NxmCache   *large;
	NxmRef		ref;			/* of the large one */
	uint64_t	next;			/* key */
	uint64_t	refused;		/* sets */
} Pair;

static void
open_pair(Pair *pair, Worker *worker, uint64_t pages, uint64_t own)
{
	Test	   *test = worker->test;
	NxmResult	r;

	*pair = (Pair) {.worker = worker, .small = &test->cache};
	open_view(worker, &pair->view);
	ENV_DO(&worker->space, r, (pair->ref = nxm_alloc(&worker->space, sizeof(NxmCache))) != 0 ?
		   NXM_OK : nxm_no_object(&worker->space));
	CHECK(worker, r == NXM_OK, "no memory for a cache");
	pair->large = nxm_at(&worker->space, pair->ref);
	new_cache(worker, pair->large, 1, pages);
	new_cache(worker, pair->small, 1, pages);
	nxm_store(&pair->small->max_bytes, own * NXM_PAGE_SIZE);
	nxm_store(&test->largest, pair->ref);
}

static void
close_pair(Pair *pair)
{
	nxm_store(&((Test *) pair->worker->test)->largest, 0);
	nxm_store(&pair->small->max_bytes, 0);
	drop_cache(pair->worker, pair->small, NULL);
	drop_cache(pair->worker, pair->large, NULL);
	nxm_free(&pair->worker->space, pair->ref);
}

static NxmCachePartition *
part_of(Pair *pair, NxmCache *cache)
{
	NxmResult	r;

	return partition_at(&pair->worker->space, cache, 0, &r);
}

/* Sets n new keys of a cache to values of len bytes. */
static void
write_keys(Pair *pair, NxmCache *cache, uint64_t n, uint32_t len)
{
	NxmValue	value = {pair->worker->buffer2, len, NXM_TEXT};
	KeyText		k;

	memset(pair->worker->buffer2, 'w', len);
	while (n-- != 0)
	{
		NxmResult	r = set(&pair->view, cache, make_key(&k, 'w', 0, pair->next++), &value, 0,
							false);

		CHECK(pair->worker, r == NXM_OK || r == NXM_ABSENT, "set of a key: %d", (int) r);
		pair->refused += r == NXM_ABSENT;
	}
}

/*
 * The largest cache has all that there is, and gives way to a small one while that
 * grows.  Is it left alone when the small one is full by its own limit?
 */
static bool
only_the_limit_of_all_takes_from_others(Worker *worker, uint64_t own, uint32_t len)
{
	enum { PAGES = 300 };
	Pair		pair;
	NxmCachePartition *part;
	uint64_t	taken[2];
	bool		ok;

	open_pair(&pair, worker, PAGES, own);
	part = part_of(&pair, pair.large);
	for (int i = 0; i < 2; i++)
	{
		write_keys(&pair, pair.large, PAGES * NXM_PAGE_SIZE / 100, 100);
		taken[i] = nxm_cache_segment_bytes(part);
		write_keys(&pair, pair.small, 2 * own * NXM_PAGE_SIZE / len, len);
		taken[i] -= nxm_cache_segment_bytes(part);
	}
	/* the last pages of the small one's limit are ahead of its need, at times */
	ok = taken[0] > own / 2 * NXM_PAGE_SIZE && taken[1] <= 2 * NXM_PAGE_SIZE && pair.refused == 0;
	if (!ok)
		printf("# the largest cache gave %llu kB, and %llu; %llu sets were refused\n",
			   (unsigned long long) taken[0] >> 10, (unsigned long long) taken[1] >> 10,
			   (unsigned long long) pair.refused);
	close_pair(&pair);
	return ok;
}

/*
 * The index of a small cache has to grow when no page is left by the limit of all, but
 * one by its own.  Does the largest one give way, and is what the small one has kept?
 */
static bool
index_grows_at_the_limit_of_all(Worker *worker)
{
	enum { PAGES = 100, OWN = 4, KEYS = 900 };
	NxmAccount *account = &worker->space.shared->account[NXM_CACHE_ACCOUNT];
	Pair		pair;
	NxmCachePartition *part;
	uint64_t	given;
	uint64_t	entries;
	bool		ok;

	open_pair(&pair, worker, PAGES, OWN);
	write_keys(&pair, pair.large, PAGES * NXM_PAGE_SIZE / 100, 100);
	write_keys(&pair, pair.small, 1, 4);
	part = part_of(&pair, pair.small);
	given = nxm_cache_segment_bytes(part_of(&pair, pair.large));
	for (int i = 1; i < KEYS; i++)
	{
		/* what is kept populated is room, too, and comes and goes */
		nxm_store(&account->page_limit, nxm_load(&account->page_limit) -
				  nxm_cache_room(&pair.view, pair.large, part));
		write_keys(&pair, pair.small, 1, 4);
	}
	given -= nxm_cache_segment_bytes(part_of(&pair, pair.large));
	entries = nxm_map_entries(&part->index);
	/* a few are crowded out */
	ok = given > 0 && pair.refused == 0 && entries > KEYS - KEYS / 50;
	if (!ok)
		printf("# the largest cache gave %llu kB; %llu of %d entries are there, %llu were refused\n",
			   (unsigned long long) given >> 10, (unsigned long long) entries, KEYS,
			   (unsigned long long) pair.refused);
	close_pair(&pair);
	return ok;
}

/* When the limit of all is lowered: does the largest cache give way to it, and no other? */
static bool
lowered_limit_spares_the_small(Worker *worker)
{
	enum { PAGES = 100, OWN = 5, KEYS = 200 };
	Pair		pair;
	uint64_t	entries;
	NxmResult	r;
	bool		ok;

	open_pair(&pair, worker, PAGES, OWN);
	write_keys(&pair, pair.large, PAGES * NXM_PAGE_SIZE / 100, 100);
	write_keys(&pair, pair.small, KEYS, 4);
	nxm_store(&worker->space.shared->account[NXM_CACHE_ACCOUNT].page_limit, PAGES / 2);
	for (int i = 0; i < 1000 && nxm_cache_is_over(&pair.view, pair.small); i++)
	{
		ENV_DO(&worker->space, r, nxm_cache_tick(&pair.view, pair.small));
		nxm_epoch_poll(&worker->space);
	}
	entries = nxm_map_entries(&part_of(&pair, pair.small)->index);
	ok = entries == KEYS && !nxm_cache_is_over(&pair.view, pair.small);
	if (!ok)
		printf("# %llu of %d entries are left below a lowered limit\n",
			   (unsigned long long) entries, KEYS);
	close_pair(&pair);
	return ok;
}

/* Of the phases before. */
static uint64_t operations_before;
static uint64_t evictions_before;
static uint64_t clears_before;

static uint64_t
evictions(Worker *worker)
{
	Test	   *test = worker->test;
	uint64_t	n = 0;
	NxmCacheView view;

	open_view(worker, &view);
	for (int i = 0; i < (int) test->cache.npartitions; i++)
	{
		NxmCacheStats stats;

		env_map_all(view.space);
		nxm_enter(view.space);
		/* 0 if there is a new chunk: it is asked again */
		(void) nxm_cache_stats(&view, &test->cache, i, &stats);
		nxm_leave(view.space);
		n += stats.evictions;
	}
	return n;
}

/* Has the phase come to do what it is for? */
static bool
enough(Worker *worker)
{
	Test	   *test = worker->test;

	return nxm_load(&test->operations) >= operations_before + LEAST_OPERATIONS &&
		(with_largest ? nxm_load(&test->taken) > 0 && nxm_load(&test->remade) > 0 :
		 ample || evictions(worker) > evictions_before) &&
		(!with_clears || nxm_load(&test->clears) > clears_before);
}

static void
phase(Worker *worker, const char *name, void (*work) (Worker *worker))
{
	Test	   *test = worker->test;

	operations_before = nxm_load(&test->operations);
	evictions_before = evictions(worker);
	clears_before = nxm_load(&test->clears);
	stress_phase_until(name, work, enough);
}

int
main(int argc, char **argv)
{
	Worker	   *worker = stress_begin(argc, argv, sizeof(Test));
	Test	   *test = worker->test;
	NxmCacheView view;

	nxm_store(&test->clock, UINT64_C(1000000000));

	ample = true;
	new_cache(worker, &test->cache, PARTITIONS, AMPLE);
	phase(worker, "workers own their keys, nothing is evicted", own_keys);
	stress_ok(counts_agree(worker), "what is counted is there");
	with_deadlines = true;
	phase(worker, "with deadlines", own_keys);
	stress_ok(counts_agree(worker), "what is counted is there after deadlines");
	drop_cache(worker, &test->cache, "all memory came back");

	ample = false;
	with_deadlines = false;
	new_cache(worker, &test->cache, PARTITIONS, SHORT);
	phase(worker, "workers own their keys, memory is short", own_keys);
	stress_ok(counts_agree(worker), "what is counted is there where memory is short");
	with_deadlines = true;
	phase(worker, "memory is short, with deadlines", own_keys);
	with_clears = true;
	phase(worker, "and clears", own_keys);
	stress_ok(counts_agree(worker), "what is counted is there after clears");
	with_resizes = true;
	phase(worker, "and limits that change", own_keys);
	stress_ok(counts_agree(worker), "what is counted is there after changes of limits");
	with_resizes = false;
	nxm_store(&test->cache.max_bytes, 0);
	drop_cache(worker, &test->cache, "all memory came back where it was short");

	with_clears = with_deadlines = false;
	new_cache(worker, &test->cache, PARTITIONS, SHORT);
	phase(worker, "workers share keys", shared_keys);
	stress_ok(counts_agree(worker), "what is counted is there after sharing");
	with_clears = with_deadlines = true;
	phase(worker, "workers share keys, with deadlines and clears", shared_keys);
	with_resizes = true;
	phase(worker, "and limits that change, sharing", shared_keys);
	with_resizes = false;
	nxm_store(&test->cache.max_bytes, 0);
	stress_ok(counts_agree(worker), "what is counted is there after all of it");
	drop_cache(worker, &test->cache, "all memory came back after sharing");

	with_clears = with_deadlines = false;
	new_cache(worker, &test->cache, PARTITIONS, TWO);
	open_view(worker, &view);
	make_largest(worker, &view);
	with_largest = true;
	phase(worker, "two caches in one account", two_caches);
	stress_ok(counts_agree(worker), "what is counted is there in two caches");
	printf("# %llu items were taken from the largest, which was made anew %llu times\n",
		   (unsigned long long) nxm_load(&test->taken), (unsigned long long) nxm_load(&test->remade));
	drop_largest(worker, &view);
	with_largest = false;
	drop_cache(worker, &test->cache, "all memory came back of two caches");

	if (!WATCHED)
	{
		stress_ok(long_values_stay(worker, 1, 80), "a long value stays in a small cache");
		stress_ok(long_values_stay(worker, 4, 80), "and in one of several partitions");
		stress_ok(long_values_stay(worker, 4, 256), "and in one that is larger");
		stress_ok(limits_hold(worker, 1, 20, false, 160, 40), "a limit is lowered below the index, and raised");
		stress_ok(limits_hold(worker, 2, 4, false, 240, 60), "and that of shorter entries in partitions");
		stress_ok(limits_hold(worker, 2, 20, true, 160, 40), "and a limit of the cache's own");
		stress_ok(limits_hold(worker, 1, 20, false, 320, 14), "and one that the ghost is larger than");
		stress_ok(waiting_is_as_good_as_free(worker), "an index is kept while memory waits for the epoch");
		stress_ok(few_and_long(worker), "an index that few entries need makes room for them");
		stress_ok(directory_is_doubled(worker), "the directory of a large index is doubled in a full cache");
		stress_ok(counts_in_its_own_line(worker, NXM_CACHE_COUNTER_local_hits), "each process counts in a line of its own");
		stress_ok(counts_in_its_own_line(worker, NXM_CACHE_COUNTER_misses), "and where it finds nothing");
		stress_ok(counts_in_its_own_line(worker, NXM_CACHE_COUNTER_sets), "and where it writes");
		stress_ok(hot_key_is_only_read(worker), "a key that is read often is read without a write to anything that others write");
		stress_ok(what_is_wanted_again_stays(worker), "a key that is wanted again after it was evicted stays");
		stress_ok(short_ones_stay(worker, KIND_SMALL), "of keys that were read as often the short ones stay");
		stress_ok(short_ones_stay(worker, KIND_MAIN), "and in main");
		stress_ok(rooms_of_the_next_list(worker), "rooms of the next list are written again where a process has all of one");
		stress_ok(deadlines_are_kept(worker), "deadlines are kept to a two-millionth of the TTL");
		stress_ok(many_windows(worker, 60, 3600), "a small cache has room for entries of many times to live");
		stress_ok(many_windows(worker, 60, 1000000), "and for those between a minute and days");
		stress_ok(long_values_expire(worker), "long values that expire are kept like others");
		stress_ok(expires_in_time(worker), "what has expired is reclaimed in time, whatever its TTL");
		stress_ok(windows_keep_apart(worker), "windows of deadlines write to segments of their own");
		stress_ok(others_pass_by(worker), "of what is evicted a reader holds one segment back, and no others");
		stress_ok(chains_become_dense(worker), "blocks of more names than half are joined, once");
		stress_ok(only_the_limit_of_all_takes_from_others(worker, 60, 100), "a cache at its own limit takes nothing from the largest one");
		stress_ok(only_the_limit_of_all_takes_from_others(worker, 60, 900000), "nor for long values");
		stress_ok(only_the_limit_of_all_takes_from_others(worker, 24, 900000), "nor where its first value is most of what it may have");
		stress_ok(index_grows_at_the_limit_of_all(worker), "the largest one gives way to the index of a small one");
		stress_ok(lowered_limit_spares_the_small(worker), "and to a lowered limit");
		stress_ok(drained_while_one_is_stopped(worker, false), "what was cleared is drained while a process is stopped");
		stress_ok(drained_while_one_is_stopped(worker, true), "and by sets, which go on");
	}
	printf("# %llu operations, %llu clears\n", (unsigned long long) nxm_load(&test->operations),
		   (unsigned long long) nxm_load(&test->clears));
	return stress_end();
}
