/*
 * test_predictor.c
 *	  The predictor of missed blocks, in one process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "predictor.h"

#define DATABASE	5
#define LENGTH		40			/* of a sequence */
#define MOST		16

static uint64_t random_state;
static NxmPredictorSession session;

/* xorshift64*: the same sequence everywhere */
static uint32_t
random_number(uint32_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t) ((random_state * UINT64_C(2685821657736338717)) >> 32) % below;
}

static NxmPredictor *
make(size_t budget)
{
	size_t		size = nxm_predictor_size(budget);

	assert_true(size > 0 && size <= budget);
	random_state = 42;
	return nxm_predictor_init(aligned_alloc(NXM_CACHE_LINE, (size + 63) / 64 * 64), size);
}

static int
setup(void **state)
{
	*state = make(4 << 20);
	nxm_predictor_begin(&session);
	return 0;
}

static int
teardown(void **state)
{
	free(*state);
	return 0;
}

/* Block i of sequence n: five relations in turn, numbers that say nothing. */
static NxmBlock
block_of(uint32_t n, uint32_t i)
{
	uint32_t	x = (n * LENGTH + i + 1) * 2654435761u;

	return (NxmBlock) {DATABASE, 100 + i % 5, (x ^ x >> 15) >> 4};
}

/* Reads a sequence; gives how many blocks had been predicted.  issued: adds. */
static int
run(NxmPredictor *p, uint32_t n, int *issued)
{
	int			awaited = 0;

	for (uint32_t i = 0; i < LENGTH; i++)
	{
		NxmPrediction found[MOST];
		NxmBlock	block = block_of(n, i);

		awaited += nxm_predictor_awaits(p, &session, block);
		nxm_predictor_record(p, &session, block);
		*issued += nxm_predictor_predict(p, &session, MOST, found);
	}
	return awaited;
}

static void
assert_block(NxmBlock found, NxmBlock expected)
{
	assert_int_equal(found.database, expected.database);
	assert_int_equal(found.relation, expected.relation);
	assert_int_equal(found.number, expected.number);
}

static void
sizes(void **state)
{
	(void) state;
	assert_int_equal(nxm_predictor_size(NXM_PREDICTOR_MIN_SIZE - 1), 0);
	for (size_t budget = NXM_PREDICTOR_MIN_SIZE; budget < 100000000; budget = budget * 3 / 2 + 7)
	{
		size_t		size = nxm_predictor_size(budget);

		assert_true(size <= budget && size > budget - 8192);
		assert_int_equal(nxm_predictor_size(size), size);
	}
	assert_true(nxm_predictor_size(SIZE_MAX) <= NXM_PREDICTOR_MAX_SIZE);
}

static void
sequence_seen_once(void **state)
{
	NxmPredictor *p = *state;
	NxmPredictorStats stats;
	int			issued = 0;
	int			awaited = 0;

	for (uint32_t n = 0; n < 100; n++)
		assert_int_equal(run(p, n, &issued), 0);
	assert_true(issued <= 4);
	issued = 0;
	for (uint32_t n = 0; n < 100; n++)
		awaited += run(p, n * 37 % 100, &issued);
	/* all but the first blocks of each, and few beyond their ends */
	assert_true(awaited > 100 * LENGTH * 8 / 10);
	assert_true(awaited > issued * 8 / 10);
	nxm_predictor_end(p, &session);
	nxm_predictor_stats(p, &stats);
	assert_int_equal(stats.recorded, 2 * 100 * LENGTH);
	assert_int_equal(stats.used, awaited);
	assert_int_equal(stats.issued, stats.used + stats.wasted);
	assert_int_equal(stats.relations, 5);
}

/* What comes again takes hardly any memory again. */
static void
repeated_without_growing(void **state)
{
	NxmPredictor *p = *state;
	NxmPredictorStats before;
	NxmPredictorStats after;
	int			issued = 0;

	for (uint32_t n = 0; n < 100; n++)
		run(p, n, &issued);
	nxm_predictor_stats(p, &before);
	for (uint32_t n = 0; n < 1000; n++)
		run(p, n * 37 % 100, &issued);
	nxm_predictor_stats(p, &after);
	assert_true(before.associations > 3000);
	assert_true(after.associations < before.associations * 2);
}

static void
nothing_repeated(void **state)
{
	NxmPredictor *p = *state;
	int			issued = 0;

	for (uint32_t n = 0; n < 2000; n++)
		run(p, n, &issued);
	assert_true(issued <= 8);
}

/* A session is predicted from what others have done, and from nobody else's context. */
static void
learned_from_others(void **state)
{
	NxmPredictor *p = *state;
	int			issued = 0;

	for (int pass = 0; pass < 2; pass++)
		for (uint32_t n = 0; n < 20; n++)
			run(p, n, &issued);
	nxm_predictor_end(p, &session);
	nxm_predictor_begin(&session);
	issued = 0;
	assert_true(run(p, 7, &issued) > LENGTH * 8 / 10);
}

/* Other blocks, none of which comes again; gives how many predictions are of sequence n. */
static int
something_else(NxmPredictor *p, uint32_t n)
{
	int			of_n = 0;

	for (uint32_t i = 0; i < 150; i++)
	{
		NxmPrediction found[MOST];
		int			nfound;

		nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, 99, random_number(1u << 30) * 2});
		nfound = nxm_predictor_predict(p, &session, MOST, found);
		for (int f = 0; f < nfound; f++)
			for (uint32_t j = 0; j < LENGTH; j++)
				of_n += found[f].block.number == block_of(n, j).number;
	}
	return of_n;
}

/*
 * Sequence 1 followed sequence 0 once, and does not any more: it is predicted after it for
 * a while, then no longer, while sequence 0 is, and so is sequence 1 where it comes itself.
 */
static void
disables_itself(void **state)
{
	NxmPredictor *p = *state;
	NxmPredictorStats stats;
	int			issued = 0;
	int			in_vain[20];

	run(p, 0, &issued);
	run(p, 1, &issued);
	(void) something_else(p, 1);
	for (int turn = 0; turn < 20; turn++)
	{
		int			awaited = 0;

		/* those at its end are counted where they are awaited still */
		for (uint32_t i = 0; i < LENGTH; i++)
		{
			NxmPrediction found[MOST];

			awaited += nxm_predictor_awaits(p, &session, block_of(0, i));
			nxm_predictor_record(p, &session, block_of(0, i));
			nxm_predictor_predict(p, &session, MOST, found);
		}
		assert_true(awaited > LENGTH / 2);
		in_vain[turn] = 0;
		for (uint32_t i = 0; i < LENGTH; i++)
			in_vain[turn] += nxm_predictor_awaits(p, &session, block_of(1, i));
		in_vain[turn] += something_else(p, 1);
	}
	assert_true(in_vain[0] >= 8);
	for (int turn = 5; turn < 20; turn++)
		assert_true(in_vain[turn] <= 1);
	nxm_predictor_stats(p, &stats);
	assert_true(stats.disabled > 0);
	assert_true(run(p, 1, &issued) > LENGTH / 2);
}

static void
next_blocks_and_strides(void **state)
{
	NxmPredictor *p = *state;

	for (int step = -7; step <= 7; step++)
	{
		int			awaited = 0;

		if (step == 0)
			continue;
		nxm_predictor_end(p, &session);
		for (uint32_t i = 0; i < 200; i++)
		{
			NxmPrediction found[MOST];
			NxmBlock	block = {DATABASE, 200, (uint32_t) (1000000 + (step + 8) * 10000 + (int) i * step)};

			awaited += nxm_predictor_awaits(p, &session, block);
			nxm_predictor_record(p, &session, block);
			nxm_predictor_predict(p, &session, MOST, found);
		}
		assert_true(awaited > 190);
	}
}

/* At the edges of block numbers nothing wraps into another relation. */
static void
first_and_last_block(void **state)
{
	NxmPredictor *p = *state;
	NxmPrediction found[MOST];

	for (int round = 0; round < 2; round++)
		for (uint32_t i = 0; i < 64; i++)
		{
			NxmBlock	block = {DATABASE, 7, round == 0 ? 63 - i : UINT32_MAX - 63 + i};
			int			n;

			nxm_predictor_record(p, &session, block);
			n = nxm_predictor_predict(p, &session, MOST, found);
			for (int f = 0; f < n; f++)
			{
				assert_int_equal(found[f].block.relation, 7);
				assert_true(round == 0 ? found[f].block.number < 64 :
							found[f].block.number > UINT32_MAX - 64);
			}
		}
}

static void
declined(void **state)
{
	NxmPredictor *p = *state;
	NxmPredictorStats stats;
	int			ignored = 0;

	for (int pass = 0; pass < 3; pass++)
		for (uint32_t i = 0; i < LENGTH; i++)
		{
			NxmPrediction found[MOST];
			int			n;

			nxm_predictor_record(p, &session, block_of(3, i));
			n = nxm_predictor_predict(p, &session, MOST, found);
			for (int f = 0; f < n; f++)
			{
				assert_true(nxm_predictor_awaits(p, &session, found[f].block));
				nxm_predictor_decline(p, &session, &found[f]);
				assert_false(nxm_predictor_awaits(p, &session, found[f].block));
				ignored++;
			}
		}
	assert_true(ignored > LENGTH);
	nxm_predictor_end(p, &session);
	nxm_predictor_stats(p, &stats);
	assert_int_equal(stats.issued, 0);
	assert_int_equal(stats.used, 0);
	assert_int_equal(stats.wasted, 0);
}

static void
looked_up(void **state)
{
	NxmPredictor *p = *state;
	NxmPrediction found[4];
	int			issued = 0;

	assert_int_equal(nxm_predictor_lookup(p, block_of(1, 3), 4, found), 0);
	run(p, 1, &issued);
	run(p, 2, &issued);
	assert_int_equal(nxm_predictor_lookup(p, block_of(1, 3), 4, found), 4);
	for (uint32_t i = 0; i < 4; i++)
	{
		assert_block(found[i].block, block_of(1, 4 + i));
		assert_true(found[i].confidence > 0 && found[i].confidence < 1);
	}
}

/* A session to which nothing comes again learns late, all of it, until something does. */
static void
late(void **state)
{
	NxmPredictor *p = *state;
	NxmPredictorStats stats;
	NxmPrediction found[MOST];
	int			issued = 0;
	int			awaited = 0;
	int			at_once = 0;
	int			late_again = 0;

	for (uint32_t s = 0; s < 25; s++)
		run(p, s, &issued);
	for (uint32_t i = 0; i < 32 * NXM_PREDICTOR_LATE; i++)
	{
		bool		learned = nxm_predictor_record(p, &session, block_of(100, i));
		int			n = nxm_predictor_predict(p, &session, MOST, found);

		at_once += learned;
		assert_true(learned || n == 0);
	}
	assert_int_equal(at_once, 32);

	/* a sequence of another session is recognized when the next of its blocks are learned */
	awaited = run(p, 3, &issued);
	assert_in_range(awaited, LENGTH - 3 * NXM_PREDICTOR_LATE / 2, LENGTH);
	assert_true(nxm_predictor_record(p, &session, block_of(4, 0)));
	/* and the next one at its third block, as ever */
	(void) nxm_predictor_predict(p, &session, MOST, found);
	awaited = 0;
	for (uint32_t i = 1; i < LENGTH; i++)
	{
		awaited += nxm_predictor_awaits(p, &session, block_of(4, i));
		assert_true(nxm_predictor_record(p, &session, block_of(4, i)));
		(void) nxm_predictor_predict(p, &session, MOST, found);
	}
	assert_in_range(awaited, LENGTH - 4, LENGTH);

	/* what it kept to itself is learned when it ends */
	for (uint32_t s = 200; s < 210; s++)
		run(p, s, &issued);
	while (nxm_predictor_record(p, &session, block_of(300, (uint32_t) late_again)))
		assert_true(++late_again < 1000);
	nxm_predictor_end(p, &session);
	nxm_predictor_stats(p, &stats);
	assert_int_equal(stats.recorded, (25 + 2 + 10) * LENGTH + 32 * NXM_PREDICTOR_LATE + late_again + 1);
	assert_int_equal(stats.refused, 0);
	awaited = run(p, 209, &issued);
	assert_in_range(awaited, LENGTH - 4, LENGTH);
}

/* What is known of a dropped relation is not used for one that has its place. */
static void
forgotten(void **state)
{
	NxmPredictor *p = *state;
	NxmPrediction found[MOST];
	NxmPredictorStats stats;
	uint32_t	cursor = 0;
	uint32_t	database;
	uint32_t	relation;
	int			issued = 0;
	int			n;

	for (uint32_t s = 0; s < 50; s++)
		run(p, s, &issued);
	/* a session that learns late would not enter it at once */
	nxm_predictor_end(p, &session);
	nxm_predictor_forget(p, DATABASE, 102);
	n = nxm_predictor_lookup(p, block_of(1, 0), MOST, found);
	assert_true(n > 8);
	for (int f = 0; f < n; f++)
		assert_int_not_equal(found[f].block.relation, 102);
	assert_int_equal(nxm_predictor_lookup(p, block_of(1, 2), MOST, found), 0);
	nxm_predictor_stats(p, &stats);
	assert_int_equal(stats.relations, 4);

	/* entered anew, it is another one */
	nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, 102, 1});
	assert_int_equal(nxm_predictor_lookup(p, block_of(1, 2), MOST, found), 1);

	nxm_predictor_record(p, &session, (NxmBlock) {DATABASE + 1, 100, 1});
	nxm_predictor_forget(p, DATABASE, 0);
	assert_true(nxm_predictor_next_relation(p, &cursor, &database, &relation));
	assert_int_equal(database, DATABASE + 1);
	assert_int_equal(relation, 100);
	assert_false(nxm_predictor_next_relation(p, &cursor, &database, &relation));
	assert_int_equal(nxm_predictor_lookup(p, block_of(1, 0), MOST, found), 0);

	run(p, 1, &issued);
	nxm_predictor_reset(p);
	cursor = 0;
	assert_false(nxm_predictor_next_relation(p, &cursor, &database, &relation));
	nxm_predictor_stats(p, &stats);
	assert_int_equal(stats.associations, 0);
	assert_int_equal(nxm_predictor_lookup(p, block_of(1, 0), MOST, found), 0);
	issued = 0;
	run(p, 1, &issued);
	assert_int_equal(issued, 0);
	assert_true(run(p, 1, &issued) > LENGTH / 2);
}

/* More relations than there are places, one after the other, without end. */
static void
many_relations(void **state)
{
	NxmPredictor *p = make(NXM_PREDICTOR_MIN_SIZE);
	NxmPredictorStats stats;

	(void) state;
	for (uint32_t r = 1; r < 100000; r++)
		for (uint32_t i = 0; i < 4; i++)
			nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, r / 400 * 400 + i + 1, r});
	nxm_predictor_end(p, &session);
	nxm_predictor_stats(p, &stats);
	assert_true(stats.refused < 8);
	assert_true(stats.relations <= 64);

	/* all at once: as many as there are places */
	nxm_predictor_reset(p);
	for (uint32_t r = 1; r < 1000; r++)
		nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, r, 1});
	nxm_predictor_end(p, &session);
	nxm_predictor_stats(p, &stats);
	assert_true(stats.refused > 900);
	free(p);
}

/* Whoever looks for a place leaves a relation its own as long as an entry names it. */
static void
named_by_an_entry(void **state)
{
	NxmPredictor *p = make(NXM_PREDICTOR_MIN_SIZE);
	NxmBlock	last = {DATABASE, 1, 2};
	NxmPrediction found[MOST];
	NxmPredictorStats stats;
	uint32_t	n = 0;

	(void) state;
	nxm_predictor_stats(p, &stats);
	nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, 1, 1});
	while (n < stats.capacity / 10)
		nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, 2, 10 * n++});
	nxm_predictor_record(p, &session, last);
	while (n < stats.capacity)
		nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, 2, 10 * n++});
	for (uint32_t r = 3; r < 130; r++)
		nxm_predictor_record(p, &session, (NxmBlock) {DATABASE, r, 1});
	nxm_predictor_end(p, &session);
	assert_true(nxm_predictor_lookup(p, last, MOST, found) > 0);
	free(p);
}

/* The log has been written many times over, and nothing beyond it. */
static void
bounded(void **state)
{
	size_t		size = nxm_predictor_size(NXM_PREDICTOR_MIN_SIZE);
	char	   *area = aligned_alloc(64, (size + 127) / 64 * 64);
	NxmPredictor *p;
	NxmPredictorStats stats;
	int			issued = 0;

	(void) state;
	memset(area, 0x5a, (size + 127) / 64 * 64);
	p = nxm_predictor_init(area, size);
	for (uint32_t n = 0; n < 3000; n++)
		run(p, n, &issued);
	nxm_predictor_stats(p, &stats);
	assert_true(stats.associations <= stats.capacity);
	assert_true(stats.associations > stats.capacity / 2);
	for (size_t i = size; i < (size + 127) / 64 * 64; i++)
		assert_int_equal(area[i], 0x5a);
	/* it still learns, and what is used stays */
	for (uint32_t n = 0; n < 300; n++)
	{
		int			awaited = run(p, n % 10, &issued);

		assert_true(n < 20 || awaited > LENGTH / 2);
		run(p, 10000 + n, &issued);
		run(p, 20000 + n, &issued);
	}
	free(area);
}

static void *
saved(NxmPredictor *p, size_t *size)
{
	size_t		room = nxm_predictor_save_size(p);
	void	   *bytes = malloc(room);

	*size = nxm_predictor_save(p, bytes, room, NULL);
	assert_true(*size > 0 && *size <= room);
	return bytes;
}

static NxmPredictor *watched;
static uint64_t kept[64];
static int	nkept;

static void
watch(void)
{
	NxmPredictorStats stats;

	nxm_predictor_stats(watched, &stats);
	if (nkept < 64)
		kept[nkept++] = stats.associations;
}

/* Others are answered, too, while what is to be written over is cleared. */
static void
paused(void **state)
{
	size_t		size;
	void	   *bytes;
	int			fewer = 0;
	int			issued = 0;

	watched = *state;
	for (uint32_t n = 0; n < 6000; n++)
		run(watched, n, &issued);
	bytes = saved(watched, &size);
	nkept = 0;
	assert_int_equal(nxm_predictor_load(watched, bytes, size, watch), NXM_PREDICTOR_LOADED);
	for (int i = 1; i < nkept; i++)
		fewer += kept[i] < kept[i - 1];
	assert_true(fewer > 1);
	free(bytes);
}

static void
saved_and_loaded(void **state)
{
	NxmPredictor *p = *state;
	static const size_t budgets[] = {1 << 20, 4 << 20, 16 << 20};
	size_t		size;
	void	   *bytes;
	int			issued = 0;

	for (int pass = 0; pass < 2; pass++)
		for (uint32_t n = 0; n < 100; n++)
			run(p, n, &issued);
	/* not the first relations of the one that is loaded */
	nxm_predictor_end(p, &session);
	bytes = saved(p, &size);
	for (int b = 0; b < 3; b++)
	{
		NxmPredictor *q = make(budgets[b]);
		int			awaited = 0;

		for (uint32_t r = 1; r < 50; r++)
			nxm_predictor_record(q, &session, (NxmBlock) {DATABASE, r * 3, r * 17});
		nxm_predictor_end(q, &session);
		assert_int_equal(nxm_predictor_load(q, bytes, size, NULL), NXM_PREDICTOR_LOADED);
		issued = 0;
		for (uint32_t n = 0; n < 100; n++)
			awaited += run(q, n * 37 % 100, &issued);
		nxm_predictor_end(q, &session);
		assert_true(awaited > 100 * LENGTH * 8 / 10);
		assert_true(awaited > issued * 8 / 10);
		free(q);
	}
	/* into itself: all of it twice */
	assert_int_equal(nxm_predictor_load(p, bytes, size, NULL), NXM_PREDICTOR_LOADED);
	assert_true(run(p, 3, &issued) > LENGTH / 2);
	free(bytes);
}

/*
 * A block that came in between once leads back to the sequence, and to nothing that came
 * later.
 */
static void
strayed(void **state)
{
	NxmPredictor *p = *state;
	NxmPrediction found[MOST];
	NxmBlock	stray = {DATABASE, 99, 12345};
	int			issued = 0;
	int			n;

	run(p, 0, &issued);
	for (uint32_t i = 0; i < 30; i++)
	{
		if (i == 10)
			nxm_predictor_record(p, &session, stray);
		nxm_predictor_record(p, &session, block_of(0, i));
	}
	run(p, 1, &issued);
	n = nxm_predictor_lookup(p, stray, MOST, found);
	assert_int_equal(n, MOST);
	for (uint32_t i = 0; i < MOST; i++)
		assert_block(found[i].block, block_of(0, 10 + i));
}

/* What links lead to was not saved: they do not lead into what another one knows. */
static void
links_to_nothing(void **state)
{
	NxmPredictor *p = *state;
	size_t		room = nxm_predictor_save_size(p);
	void	   *bytes = malloc(room);
	size_t		least;
	size_t		size;
	int			issued = 0;

	for (uint32_t n = 0; n < 400; n++)
		run(p, n % 200, &issued);
	for (least = 8; nxm_predictor_save(p, bytes, least, NULL) == 0; least += 8)
		;
	size = nxm_predictor_save(p, bytes, least + 4096, NULL);
	nxm_predictor_reset(p);
	nxm_predictor_end(p, &session);
	/* everywhere in the log */
	for (uint32_t i = 0; i < 300000; i++)
		nxm_predictor_record(p, &session, (NxmBlock) {DATABASE + 1, 1, random_number(1u << 30)});
	assert_int_equal(nxm_predictor_load(p, bytes, size, NULL), NXM_PREDICTOR_LOADED);
	for (uint32_t n = 0; n < 200; n++)
		for (uint32_t i = 0; i < LENGTH; i++)
		{
			NxmPrediction found[MOST];
			int			nfound = nxm_predictor_lookup(p, block_of(n, i), MOST, found);

			for (int f = 0; f < nfound; f++)
				assert_int_equal(found[f].block.database, DATABASE);
		}
	free(bytes);
}

/* With less room the newest is saved. */
static void
saved_in_part(void **state)
{
	NxmPredictor *p = *state;
	size_t		room = nxm_predictor_save_size(p);
	void	   *bytes = malloc(room);
	size_t		least;
	size_t		size;
	int			issued = 0;

	for (uint32_t n = 0; n < 200; n++)
		run(p, n, &issued);
	for (least = 8; nxm_predictor_save(p, bytes, least, NULL) == 0; least += 8)
		;
	size = nxm_predictor_save(p, bytes, least + 30000, NULL);
	assert_true(size > least + 29000 && size <= least + 30000);
	nxm_predictor_reset(p);
	nxm_predictor_end(p, &session);
	assert_int_equal(nxm_predictor_load(p, bytes, size, NULL), NXM_PREDICTOR_LOADED);
	run(p, 0, &issued);
	nxm_predictor_end(p, &session);
	assert_true(run(p, 190, &issued) > LENGTH / 2);
	free(bytes);
}

/* nxm_predictor_save()'s sum, so that what is behind it is tried as well. */
static void
sum_again(uint64_t *words, size_t n)
{
	uint64_t	sum = n * 8;

	for (size_t i = 2; i < n; i++)
	{
		uint64_t	x = sum ^ words[i];

		x ^= x >> 33;
		x *= UINT64_C(0xff51afd7ed558ccd);
		x ^= x >> 33;
		x *= UINT64_C(0xc4ceb9fe1a85ec53);
		sum = (x ^ (x >> 33)) + i * 8;
	}
	words[1] = sum;
}

static void
corrupt(void **state)
{
	NxmPredictor *p = *state;
	NxmPredictor *q = make(NXM_PREDICTOR_MIN_SIZE);
	NxmPredictorStats stats;
	size_t		size;
	uint64_t   *bytes;
	uint64_t   *copy;
	int			issued = 0;

	for (uint32_t n = 0; n < 60; n++)
		run(q, n, &issued);
	bytes = saved(q, &size);
	copy = malloc(size);
	nxm_predictor_end(q, &session);
	free(q);

	for (size_t cut = 0; cut < size; cut += 1 + cut / 8)
	{
		/* a copy of its own, so that reading past the end is seen */
		void	   *part = malloc(cut + 1);

		memcpy(part, bytes, cut);
		assert_int_equal(nxm_predictor_load(p, part, cut, NULL), NXM_PREDICTOR_CORRUPT);
		free(part);
	}
	for (int i = 0; i < 2000; i++)
	{
		uint32_t	bit = random_number((uint32_t) size * 8);

		memcpy(copy, bytes, size);
		((char *) copy)[bit / 8] ^= (char) (1 << bit % 8);
		assert_int_equal(nxm_predictor_load(p, copy, size, NULL),
						 bit < 64 ? NXM_PREDICTOR_OTHER_FORMAT : NXM_PREDICTOR_CORRUPT);
	}
	nxm_predictor_stats(p, &stats);
	assert_int_equal(stats.associations, 0);
	assert_int_equal(stats.relations, 0);

	/* with a good sum: whatever it says, predicting goes on and ends */
	for (int i = 0; i < 3000; i++)
	{
		NxmPredictorLoad result;
		uint32_t	flips = 1 + random_number(i % 3 == 0 ? 4 : 400);

		memcpy(copy, bytes, size);
		for (uint32_t f = 0; f < flips; f++)
		{
			/* every third time in the header: words 2 to 8 */
			uint32_t	at = i % 3 == 0 ? 2 + random_number(7) :
				9 + random_number((uint32_t) (size / 8 - 9));

			if (i % 5 == 0)
				copy[at] = (uint64_t) random_number(UINT32_MAX) << 32 | random_number(UINT32_MAX);
			else
				copy[at] ^= UINT64_C(1) << random_number(64);
		}
		sum_again(copy, size / 8);
		result = nxm_predictor_load(p, copy, size, NULL);
		assert_true(result == NXM_PREDICTOR_LOADED || i % 3 == 0);
		if (i % 10 == 0)
			run(p, (uint32_t) i / 10 % 60, &issued);
	}
	/* the sum above is the one that is used */
	memcpy(copy, bytes, size);
	sum_again(copy, size / 8);
	assert_memory_equal(copy, bytes, size);
	free(copy);
	free(bytes);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(sequence_seen_once, setup, teardown),
		cmocka_unit_test_setup_teardown(repeated_without_growing, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_repeated, setup, teardown),
		cmocka_unit_test_setup_teardown(learned_from_others, setup, teardown),
		cmocka_unit_test_setup_teardown(disables_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(next_blocks_and_strides, setup, teardown),
		cmocka_unit_test_setup_teardown(first_and_last_block, setup, teardown),
		cmocka_unit_test_setup_teardown(declined, setup, teardown),
		cmocka_unit_test_setup_teardown(looked_up, setup, teardown),
		cmocka_unit_test_setup_teardown(late, setup, teardown),
		cmocka_unit_test_setup_teardown(forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(many_relations, setup, teardown),
		cmocka_unit_test_setup_teardown(named_by_an_entry, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(saved_and_loaded, setup, teardown),
		cmocka_unit_test_setup_teardown(paused, setup, teardown),
		cmocka_unit_test_setup_teardown(saved_in_part, setup, teardown),
		cmocka_unit_test_setup_teardown(strayed, setup, teardown),
		cmocka_unit_test_setup_teardown(links_to_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(corrupt, setup, teardown),
	};

	return cmocka_run_group_tests_name("predictor", tests, NULL, NULL);
}
