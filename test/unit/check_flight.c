/*
 * check_flight.c
 *	  Flights under the checker: values that are computed while their keys are deleted
 *	  or set.
 *
 * A word of a table stands for committed data, one of a cache for the entry of a key.
 * What PostgreSQL and the cache do to them is as weak as flight.h allows.
 */
#include "check.h"
#define NXM_FLIGHT_SLOTS 2
#define NXM_FLIGHT_OWN_SLOTS 1
#include "flight.h"

#define LENGTH(a) ((int) (sizeof(a) / sizeof((a)[0])))
#define KEYS 2

static struct
{
	NxmFlights	flights;
	NxmAtomic	table[KEYS];
	NxmAtomic	cache[KEYS];	/* 0: no entry */
}		   *shared;

/* keys of one cache, and of the same words */
static NxmFlightWatch
watch_of(int key)
{
	return (NxmFlightWatch) {
		.key_hash = (uint64_t) key * NXM_FLIGHT_WORDS,
			.hash = (uint64_t) (key + 1) << 32,
			.cache_hash = 1
	};
}

static void
setup(void)
{
	shared = check_shared(sizeof(*shared), "flights");
	for (int key = 0; key < KEYS; key++)
		nxm_init(&shared->table[key], 1);
}

/* Those slots from one on are another cache's. */
static void
fill(int from)
{
	setup();
	for (int i = from; i < NXM_FLIGHT_SLOTS; i++)
		nxm_init(&shared->flights.slots[i].cache, NXM_FLIGHT_TAKEN(UINT64_C(1) << 40));
}

static void
setup_full(void)
{
	fill(0);
}

/* All but those of a process each. */
static void
setup_shared_full(void)
{
	fill(NXM_FLIGHT_OWN_SLOTS);
}

static void
remove_entry(int key)
{
	uint64_t	value = nxm_load_relaxed(&shared->cache[key]);

	while (value != 0 && !nxm_cas(&shared->cache[key], &value, 0))
		;
}

static uint64_t
snapshot(int key)
{
	return nxm_load_relaxed(&shared->table[key]);
}

static bool
store(int key, uint64_t value)
{
	uint64_t	absent = 0;

	return nxm_cas(&shared->cache[key], &absent, value);
}

static void
compute(int proc, int key)
{
	NxmFlightWatch watch = watch_of(key);
	uint64_t	value;

	nxm_flights_enter(&shared->flights, &watch, proc);
	value = snapshot(key);
	if (nxm_flights_may_store(&shared->flights, &watch) && store(key, value) &&
		nxm_flights_must_remove(&shared->flights, &watch))
		remove_entry(key);
	nxm_flights_leave(&shared->flights, &watch);
}

static void
compute_without_looking(int proc, int key)
{
	NxmFlightWatch watch = watch_of(key);
	uint64_t	value;

	nxm_flights_enter(&shared->flights, &watch, proc);
	value = snapshot(key);
	if (nxm_flights_may_store(&shared->flights, &watch))
		(void) store(key, value);
	nxm_flights_leave(&shared->flights, &watch);
}

static void
compute_from_before(int proc, int key)
{
	NxmFlightWatch watch = watch_of(key);
	uint64_t	value = snapshot(key);

	nxm_flights_enter(&shared->flights, &watch, proc);
	if (nxm_flights_may_store(&shared->flights, &watch) && store(key, value) &&
		nxm_flights_must_remove(&shared->flights, &watch))
		remove_entry(key);
	nxm_flights_leave(&shared->flights, &watch);
}

/* One process alone changes the table. */
static void
commit(int key)
{
	nxm_store(&shared->table[key], snapshot(key) + 1);
}

static void
note(int key, uint64_t under_way)
{
	uint64_t	hash = watch_of(key).hash;

	if (under_way != 0 && nxm_flights_concern(under_way, hash))
		nxm_flights_tell(&shared->flights, hash, false);
}

static void
delete(int key)
{
	commit(key);
	note(key, nxm_flights_before_delete(&shared->flights, watch_of(key).key_hash));
	remove_entry(key);
}

/* To the new value, which is evicted. */
static void
set(int key, bool barrier)
{
	commit(key);
	if (barrier)
		nxm_fence();
	note(key, nxm_flights_before_set(&shared->flights, watch_of(key).key_hash));
	(void) nxm_exchange(&shared->cache[key], snapshot(key));
	remove_entry(key);
}

static void
clear(void)
{
	for (int key = 0; key < KEYS; key++)
		commit(key);
	nxm_flights_note_clear(&shared->flights, watch_of(0).cache_hash);
	for (int key = 0; key < KEYS; key++)
		remove_entry(key);
}

static void
deleted(int proc)
{
	if (proc == 1)
		compute(proc, 0);
	else
		delete(0);
}

static void
set_and_evicted(int proc)
{
	if (proc == 1)
		compute(proc, 0);
	else
		set(0, true);
}

static void
cleared(int proc)
{
	if (proc == 1)
		compute(proc, 0);
	else
		clear();
}

/* Another cache, of the same words. */
static void
other_cleared(int proc)
{
	if (proc == 1)
		compute(proc, 1);
	else
		nxm_flights_note_clear(&shared->flights,
							   watch_of(1).cache_hash + 4 * NXM_FLIGHT_WORDS);
}

/* More flights than slots: one does without. */
static void
many(int proc)
{
	if (proc < 4)
		compute(proc, 0);
	else if (check_pick(2) == 0)
		clear();
	else
		delete(0);
}

static void
alone(int proc)
{
	compute(proc, 1);
}

/* The word has several flights, none of this key. */
static void
other_deleted_beside_two(int proc)
{
	if (proc < 3)
		compute(proc, 1);
	else
		delete(0);
}

/* One that was told already is told again, as who waits for it has to know. */
static void
told_again(int proc)
{
	NxmFlightWatch watch = watch_of(0);
	NxmFlightWatch waiting = watch_of(0);

	nxm_flights_enter(&shared->flights, &watch, proc);
	clear();
	delete(0);
	for (int i = 0; i < 2; i++)
	{
		nxm_flights_watch(&shared->flights, &waiting);
		check_assert(!nxm_flights_changed(&shared->flights, &waiting));
		if (i == 0)
			clear();
		else
			delete(0);
		check_assert(nxm_flights_changed(&shared->flights, &waiting));
	}
	nxm_flights_leave(&shared->flights, &watch);
	nxm_flights_watch(&shared->flights, &waiting);
	clear();
	delete(0);
	check_assert(!nxm_flights_changed(&shared->flights, &waiting));
}

static void
other_deleted(int proc)
{
	if (proc == 1)
		compute(proc, 1);
	else
		delete(0);
}

static void
not_looked_at(int proc)
{
	if (proc == 1)
		compute_without_looking(proc, 0);
	else
		delete(0);
}

static void
from_before(int proc)
{
	if (proc == 1)
		compute_from_before(proc, 0);
	else
		delete(0);
}

static void
set_without_barrier(int proc)
{
	if (proc == 1)
		compute(proc, 0);
	else
		set(0, false);
}

/* Two compute keys of one word, or one key. */
static void
changed(int proc)
{
	for (int i = 0; i < 2; i++)
	{
		int			key = check_pick(KEYS);

		if (proc < 3)
			compute(proc, key);
		else
		{
			switch (check_pick(4))
			{
				case 0:
					set(key, true);
					break;
				case 1:
					clear();
					break;
				default:
					delete(key);
			}
		}
	}
}

static void
finish(void)
{
	for (int key = 0; key < KEYS; key++)
	{
		uint64_t	value = nxm_load(&shared->cache[key]);

		if (value != 0 && value != nxm_load(&shared->table[key]))
			check_fail("an old value stays");
	}
	check_assert(nxm_load(&shared->flights.under_way[0]) == 0);
	check_assert(nxm_load(&shared->flights.slotless) == 0);
	for (int i = 0; i < NXM_FLIGHT_SLOTS; i++)
		check_assert(nxm_load(&shared->flights.slots[i].cache) == 0 &&
					 nxm_load(&shared->flights.slots[i].key) == 0);
}

static void
finish_full(void)
{
	for (int i = 0; i < NXM_FLIGHT_SLOTS; i++)
		nxm_store(&shared->flights.slots[i].cache, 0);
	finish();
}

static void
finish_full_stored(void)
{
	finish_full();
	check_assert(nxm_load(&shared->cache[1]) != 0);
}

/* What happens to another key costs nothing. */
static void
finish_stored(void)
{
	finish();
	check_assert(nxm_load(&shared->cache[1]) != 0);
}

#define ALL CHECK_EXHAUSTIVE, 0, 5, 4

static const CheckCase cases[] = {
	{"deleted, all schedules", 2, setup, deleted, finish, ALL, NULL, NULL},
	{"set and evicted, all schedules", 2, setup, set_and_evicted, finish, ALL, NULL, NULL},
	{"cleared, all schedules", 2, setup, cleared, finish, ALL, NULL, NULL},
	{"another key deleted, all schedules", 2, setup, other_deleted, finish_stored, ALL, NULL, NULL},
	{"another cache cleared, all schedules", 2, setup, other_cleared, finish_stored, ALL, NULL, NULL},
	{"another key deleted beside two flights", 3, setup, other_deleted_beside_two, finish_stored, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"told again", 1, setup, told_again, finish, ALL, NULL, NULL},
	{"more computed than there are slots", 4, setup, many, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"deleted, without slots, all schedules", 2, setup_full, deleted, finish_full, ALL, NULL, NULL},
	{"cleared, without slots, all schedules", 2, setup_full, cleared, finish_full, ALL, NULL, NULL},
	{"another cache cleared, with a slot of one's own, all schedules", 2, setup_shared_full, other_cleared, finish_full_stored, ALL, NULL, NULL},
	{"nothing deleted, without slots", 1, setup_full, alone, finish_full_stored, ALL, NULL, NULL},
	{"two computed and changed", 3, setup, changed, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"not looked at after the store", 2, setup, not_looked_at, finish, ALL, "an old value stays", NULL},
	{"snapshot from before the flight", 2, setup, from_before, finish, ALL, "an old value stays", NULL},
	{"set without a barrier", 2, setup, set_without_barrier, finish, ALL, "an old value stays", NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_flight", cases, LENGTH(cases));
}
