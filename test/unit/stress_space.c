/*
 * stress_space.c
 *	  Objects under many workers: none is handed out twice, none is used again
 *	  while somebody may read it, and all memory comes back.
 */
#include <stdio.h>

#include "stress_run.h"

#define SLOTS 512
#define OWN 4000

typedef struct Test
{
	NxmAtomic	slot[SLOTS];	/* references of objects that are anybody's to take */
	NxmAtomic	item[SLOTS];	/* of items, read under a hazard */
	NxmAtomic	array[SLOTS];	/* of objects, read under the epoch */
	NxmAtomic	stopped;		/* worker 0 is in its section */
	NxmAtomic	pages_seen;		/* most of them while it was */
} Test;

/* What an object is filled with; the length is in it, for its class rounds up. */
static void
fill_object(Worker *worker, NxmRef ref, uint32_t len)
{
	char	   *data = nxm_at(&worker->space, ref);

	nxm_copy_in(data, &len, sizeof(len));
	NXM_WRITES(data, len);
	stress_fill(data + 8, len - 8, (uint64_t) worker->id, ref);
}

static void
verify_object(Worker *worker, NxmRef ref)
{
	const char *data = nxm_at(&worker->space, ref);
	uint32_t	len;
	uint64_t	who;
	uint64_t	version;

	nxm_copy_out(&len, data, sizeof(len));
	CHECK(worker, len >= NXM_MIN_OBJECT && len <= NXM_PAGE_SIZE, "object %llx has length %u",
		  (unsigned long long) ref, len);
	stress_verify(worker, data + 8, len - 8, &who, &version);
	CHECK(worker, version == ref, "object %llx says that it is %llx", (unsigned long long) ref,
		  (unsigned long long) version);
}

/* A reference with its chunk mapped: outside of a section. */
static void
mapped(Worker *worker, NxmRef ref)
{
	while (ref != 0 && nxm_at(&worker->space, ref) == NULL)
		env_again(&worker->space, NXM_NEED_CHUNK);
}

static NxmRef
new_object(Worker *worker, uint32_t len, int node)
{
	NxmSpace   *space = &worker->space;
	NxmRef		ref;

	do
		ref = node < 0 ? nxm_alloc(space, len) : nxm_alloc_on(space, node, len);
	while (ref == 0 &&
		   env_again(space, space->need_chunk >= 0 ? NXM_NEED_CHUNK : NXM_NEED_MEMORY));
	CHECK(worker, ref != 0, "no memory for %u bytes", len);
	mapped(worker, ref);
	CHECK(worker, nxm_ref_size(space, ref) == nxm_object_size(len),
		  "an object of %zu for %u bytes", nxm_ref_size(space, ref), len);
	CHECK(worker, node < 0 || space->shared->chunks[nxm_ref_chunk(ref)].node == (uint32_t) node,
		  "an object on another node than %d", node);
	return ref;
}

static uint32_t
object_length(Worker *worker)
{
	uint32_t	dice = env_below(&worker->random, 100);

	if (dice < 70)
		return NXM_MIN_OBJECT + env_below(&worker->random, 225);
	if (dice < 95)
		return NXM_MIN_OBJECT + env_below(&worker->random, 4000);
	if (dice < 99)
		return NXM_MIN_OBJECT + env_below(&worker->random, NXM_MAX_OBJECT - NXM_MIN_OBJECT + 1);
	return NXM_PAGE_SIZE;
}

/* Each makes objects, some for itself, some handed to whoever takes them. */
static void
allocate_and_free(Worker *worker)
{
	Test	   *test = worker->test;
	static _Thread_local NxmRef own[OWN];
	uint32_t	n = 0;

	while (stress_go(worker))
	{
		uint32_t	dice = env_below(&worker->random, 100);

		if (dice < 40 && n < OWN)
		{
			uint32_t	len = object_length(worker);

			own[n] = new_object(worker, len, dice < 4 ? (int) (dice % 2) : -1);
			fill_object(worker, own[n++], len);
		}
		else if (dice < 70)
		{
			NxmRef		mine = 0;
			NxmRef		theirs;

			if (n > 0)
				mine = own[--n];
			theirs = nxm_exchange(&test->slot[env_below(&worker->random, SLOTS)], mine);
			if (theirs != 0)
			{
				mapped(worker, theirs);
				verify_object(worker, theirs);
				nxm_free(&worker->space, theirs);
			}
		}
		else if (n > 0)
		{
			uint32_t	i = env_below(&worker->random, n);

			verify_object(worker, own[i]);
			nxm_free(&worker->space, own[i]);
			own[i] = own[--n];
		}
		/* all away, for pages to become empty */
		if (env_below(&worker->random, 20000) == 0)
			while (n > 0)
				nxm_free(&worker->space, own[--n]);
	}
	while (n > 0)
	{
		verify_object(worker, own[--n]);
		nxm_free(&worker->space, own[n]);
	}
}

/* One class alone, up to many pages and down to none. */
static void
tides(Worker *worker)
{
	static _Thread_local NxmRef own[OWN];
	uint32_t	n = 0;

	while (stress_go(worker))
	{
		uint32_t	to = env_below(&worker->random, OWN);

		while (n < to && stress_go(worker))
		{
			own[n] = new_object(worker, 2000, 0);
			fill_object(worker, own[n++], 2000);
		}
		to = env_below(&worker->random, 2) == 0 ? 0 : env_below(&worker->random, n + 1);
		while (n > to)
		{
			verify_object(worker, own[--n]);
			nxm_free(&worker->space, own[n]);
		}
	}
	while (n > 0)
		nxm_free(&worker->space, own[--n]);
}

/*
 * Reads the item of a slot under a hazard, and stays a while: in a section.
 * false: its chunk has to be mapped.
 */
static bool
read_item(Worker *worker, NxmAtomic *slot)
{
	NxmSpace   *space = &worker->space;
	NxmRef		ref = nxm_load(slot);
	NxmItem    *item;
	NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
	uint64_t	who;
	uint64_t	version;

	for (;;)
	{
		NxmRef		again;

		if (ref == 0)
			return true;
		nxm_protect(space, ref);
		again = nxm_load(slot);
		if (again == ref)
			break;
		ref = again;
	}
	item = nxm_at(space, ref);
	if (item == NULL)
		return false;
	for (int i = 0; i < 2; i++)
	{
		NxmResult	r = nxm_item_copy(space, item, &buffer);

		if (r == NXM_NEED_CHUNK)
			return false;
		CHECK(worker, r == NXM_OK, "copying an item: %d", (int) r);
		stress_verify(worker, buffer.data, (uint32_t) buffer.len, &who, &version);
	}
	return true;
}

static NxmRef
new_item(Worker *worker, uint32_t len)
{
	NxmValue	value = {worker->buffer2, 0, NXM_TEXT};
	NxmRef		ref = 0;
	NxmResult	r;

	value.len = stress_fill(worker->buffer2, len, (uint64_t) worker->id, worker->turn);
	do
		r = nxm_item_new(&worker->space, NULL, &value, 0, &ref);
	while (env_again(&worker->space, r));
	CHECK(worker, r == NXM_OK, "a new item: %d", (int) r);
	return ref;
}

/* As the structures do, which look at an item, and its pieces, before they remove it. */
static void
replace_item(Worker *worker, NxmAtomic *slot, NxmRef ref)
{
	NxmSpace   *space = &worker->space;
	NxmRef		old;

	for (;;)
	{
		bool		known;

		old = nxm_load(slot);
		mapped(worker, old);
		nxm_enter(space);
		known = old == 0;
		if (old != 0)
		{
			nxm_protect(space, old);
			known = nxm_load(slot) == old && nxm_item_is_mapped(space, nxm_at(space, old));
		}
		if (known && nxm_cas(slot, &old, ref))
			break;
		nxm_leave(space);
		if (!known && space->need_chunk >= 0)
			(void) env_again(space, NXM_NEED_CHUNK);
	}
	if (old != 0)
		nxm_retire(space, old);
	nxm_leave(space);
}

static void
read_and_replace(Worker *worker)
{
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;

	while (stress_go(worker))
	{
		/* few slots, so that what is read is often what is replaced */
		NxmAtomic  *slot = &test->item[env_below(&worker->random, 24)];

		if (env_below(&worker->random, 2) == 0)
			replace_item(worker, slot, env_below(&worker->random, 10) == 0 ? 0 :
						 new_item(worker, stress_length(worker)));
		else
		{
			bool		done;

			do
			{
				nxm_enter(space);
				done = read_item(worker, slot);
				nxm_leave(space);
			} while (!done && env_again(space, NXM_NEED_CHUNK));
		}
	}
}

/* The same with the epoch: no hazard, and many objects in one section. */
static void
read_and_replace_arrays(Worker *worker)
{
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;

	while (stress_go(worker))
	{
		if (env_below(&worker->random, 4) == 0)
		{
			uint32_t	len = NXM_MIN_OBJECT + env_below(&worker->random, 9000);
			NxmRef		ref = new_object(worker, len, -1);
			NxmRef		old;

			fill_object(worker, ref, len);
			old = nxm_exchange(&test->array[env_below(&worker->random, 24)], ref);
			if (old != 0)
			{
				mapped(worker, old);
				nxm_enter(space);
				nxm_retire_epoch(space, old);
				nxm_leave(space);
			}
		}
		else
		{
			bool		done = true;

			nxm_enter(space);
			for (int i = 0; done && i < 6; i++)
			{
				NxmRef		ref = nxm_load(&test->array[env_below(&worker->random, 24)]);

				if (ref != 0)
				{
					done = nxm_at(space, ref) != NULL;
					if (done)
						verify_object(worker, ref);
				}
			}
			nxm_leave(space);
			if (!done)
				env_again(space, NXM_NEED_CHUNK);
		}
	}
}

/*
 * Worker 0 stays in one section, with a hazard on an item, until the phase ends;
 * the others replace all items and arrays all the time.
 */
static void
stopped_reader(Worker *worker)
{
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;

	if (worker->id != 0)
	{
		while (stress_go(worker))
		{
			NxmAtomic  *slot = &test->item[env_below(&worker->random, SLOTS)];
			uint64_t	pages;

			if (nxm_load(&test->stopped) == 0)
				continue;
			replace_item(worker, slot, new_item(worker, 100));
			pages = env_used_pages(worker->env);
			if (pages > nxm_load_relaxed(&test->pages_seen))
				nxm_store_relaxed(&test->pages_seen, pages);
		}
		return;
	}
	/* something to read, with its chunk mapped */
	replace_item(worker, &test->item[0], new_item(worker, 100));
	mapped(worker, nxm_load(&test->item[0]));
	nxm_enter(space);
	CHECK(worker, read_item(worker, &test->item[0]), "the item's chunk is not mapped");
	{
		NxmRef		ref = nxm_load(&test->item[0]);
		NxmItem    *item = nxm_at(space, ref);
		NxmBuffer	buffer = {worker->buffer, NXM_MAX_VALUE, 0, NXM_TEXT};
		uint64_t	who;
		uint64_t	version;
		uint64_t	first;

		CHECK(worker, nxm_item_copy(space, item, &buffer) == NXM_OK, "copying an item");
		stress_verify(worker, buffer.data, (uint32_t) buffer.len, &who, &first);
		nxm_store(&test->stopped, 1);
		while (!stress_over(worker))
		{
			CHECK(worker, nxm_item_copy(space, item, &buffer) == NXM_OK, "copying an item");
			stress_verify(worker, buffer.data, (uint32_t) buffer.len, &who, &version);
			CHECK(worker, version == first, "the item that is protected was replaced");
		}
	}
	nxm_leave(space);
}

/* Memory is refused at random: nothing is lost, nothing is handed out twice. */
static void
refusals(Worker *worker)
{
	static _Thread_local NxmRef own[OWN];
	NxmSpace   *space = &worker->space;
	uint32_t	n = 0;

	while (stress_go(worker))
	{
		uint32_t	len = object_length(worker);

		if (n < OWN && env_below(&worker->random, 2) == 0)
		{
			NxmRef		ref;

			do
				ref = nxm_alloc(space, len);
			while (ref == 0 &&
				   env_again(space, space->need_chunk >= 0 ? NXM_NEED_CHUNK : NXM_NEED_MEMORY));
			if (ref != 0)
			{
				mapped(worker, ref);
				fill_object(worker, ref, len);
				own[n++] = ref;
				continue;
			}
		}
		if (n > 0)
		{
			verify_object(worker, own[--n]);
			nxm_free(space, own[n]);
		}
	}
	while (n > 0)
		nxm_free(space, own[--n]);
}

/*
 * In a space of its own: of many lines a few have ever been owned, the first and the last
 * of words among them.  Is an item freed only when its reader goes on, whoever that is?
 */
static bool
lines_far_apart(Worker *worker)
{
	enum { LINES = 6 };
	static const int procs[LINES] = {0, 63, 64, 511, 512, 701};
	/* what no address is kept of would be taken for a leak */
	static Env *env;
	NxmSpace	spaces[LINES];
	NxmSpace   *space = &spaces[2];
	NxmValue	value = {worker->buffer, 16, NXM_BYTEA};
	bool		ok = true;

	env = env_create(702, 1, 16, 0, 16, 16);
	for (int i = 0; i < LINES; i++)
		env_open(env, &spaces[i], procs[i], 0);
	for (int i = 0; i < LINES && ok; i++)
	{
		NxmRef		ref;
		NxmRef		array;
		NxmResult	r;

		do
			r = nxm_item_new(space, NULL, &value, 0, &ref);
		while (env_again(space, r));
		CHECK(worker, r == NXM_OK, "no item: %d", (int) r);
		array = nxm_alloc(space, NXM_MIN_OBJECT);
		CHECK(worker, array != 0, "no array");

		nxm_enter(&spaces[i]);
		nxm_protect(&spaces[i], ref);
		nxm_retire(space, ref);
		nxm_retire_epoch(space, array);
		nxm_flush(space);
		for (int polls = 0; polls < 3; polls++)
			nxm_epoch_poll(space);
		nxm_give_back(space);
		ok = nxm_hazards_on(space, &ref, 1) == 1 && nxm_page_is_read(space, nxm_ref_page(ref)) &&
			nxm_load(&spaces[i].line->held) == ref && nxm_load(&env->shared->limbo) == 1;
		nxm_leave(&spaces[i]);
		nxm_flush(space);
		for (int polls = 0; polls < 3; polls++)
			nxm_epoch_poll(space);
		nxm_give_back(space);
		ok = ok && nxm_hazards_on(space, &ref, 1) == 0 && nxm_load(&spaces[i].line->held) == 0 &&
			nxm_load(&env->shared->limbo) == 0 && env_used_pages(env) == 0;
		if (!ok)
			printf("# line %d\n", procs[i]);
	}
	for (int i = 0; i < LINES; i++)
		nxm_proc_detach(&spaces[i]);
	return ok;
}

int
main(int argc, char **argv)
{
	Worker	   *worker = stress_begin(argc, argv, sizeof(Test));
	Test	   *test = worker->test;
	NxmSpace   *space = &worker->space;

	stress_phase("workers allocate, hand over and free objects of all sizes", allocate_and_free);
	for (int i = 0; i < SLOTS; i++)
	{
		NxmRef		ref = nxm_exchange(&test->slot[i], 0);

		if (ref == 0)
			continue;
		mapped(worker, ref);
		verify_object(worker, ref);
		nxm_free(space, ref);
	}
	stress_all_free(worker, "all of them came back");

	stress_phase("workers fill and empty many pages of one size", tides);
	stress_all_free(worker, "all pages came back");

	stress_phase("workers read items under a hazard while they are replaced", read_and_replace);
	for (int i = 0; i < SLOTS; i++)
		replace_item(worker, &test->item[i], 0);
	stress_all_free(worker, "all items came back");

	stress_phase("workers read arrays in an epoch while they are replaced", read_and_replace_arrays);
	for (int i = 0; i < SLOTS; i++)
	{
		NxmRef		ref = nxm_exchange(&test->array[i], 0);

		if (ref == 0)
			continue;
		mapped(worker, ref);
		nxm_retire_epoch(space, ref);
		if (i % 16 == 0)
			nxm_epoch_poll(space);
	}
	stress_all_free(worker, "all arrays came back");

	stress_phase("a reader that has stopped keeps its item", stopped_reader);
	/* SLOTS items of 128 bytes are one page; each worker has limbos of its own */
	printf("# %llu pages at most meanwhile\n", (unsigned long long) nxm_load(&test->pages_seen));
	stress_ok(nxm_load(&test->pages_seen) <= (uint64_t) (STRESS_MAX_WORKERS + 8),
			  "and holds back one page, not more");
	for (int i = 0; i < SLOTS; i++)
		replace_item(worker, &test->item[i], 0);
	stress_all_free(worker, "all items came back after it");

	nxm_store(&worker->env->world->fail_populate, 3);
	stress_phase("workers allocate where memory is often refused", refusals);
	nxm_store(&worker->env->world->fail_populate, 0);
	stress_all_free(worker, "all objects came back after refusals");

	nxm_store(&worker->env->world->fail_depopulate, 2);
	stress_phase("workers free where memory often can't be taken away", refusals);
	nxm_store(&worker->env->world->fail_depopulate, 0);
	stress_all_free(worker, "all memory was given back after that");

	nxm_store(&worker->env->shared->account[0].page_limit, 40);
	stress_phase("workers allocate where the limit is low", refusals);
	stress_all_free(worker, "all objects came back after the limit");
	stress_ok(lines_far_apart(worker), "hazards and epochs are seen in lines far apart");
	return stress_end();
}
