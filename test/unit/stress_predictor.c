/*
 * stress_predictor.c
 *	  The predictor under many workers: what is predicted was seen, and is learned from
 *	  others.
 */
#include <stdio.h>

#include "predictor.h"
#include "stress_run.h"

#define AREA		(256 * 1024)
#define SEQUENCES	200
#define TAUGHT		40			/* sequences that all record */
#define ENOUGH		(10 * TAUGHT * LENGTH)	/* blocks of them, most of them predicted */
#define LENGTH		30
#define RELATIONS	20
#define MOST		16
#define GAP			4			/* between numbers, so that a next block is none of them */

typedef struct Test
{
	NxmAtomic	awaited;		/* blocks that had been predicted */
	NxmAtomic	recorded;
	char		area[AREA] __attribute__((aligned(NXM_CACHE_LINE)));
} Test;

/* In each mapping it is elsewhere. */
static NxmPredictor *
predictor_of(Worker *worker)
{
	return (NxmPredictor *) ((Test *) worker->test)->area;
}

/* The relation follows from the number, so that a block made of two is known. */
static uint32_t
relation_of(uint32_t number)
{
	return 1 + number / GAP % RELATIONS;
}

static NxmBlock
block_of(uint32_t sequence, uint32_t i)
{
	uint32_t	number = (sequence * LENGTH + i * 7 % LENGTH) * GAP;

	return (NxmBlock) {1, relation_of(number), number};
}

/* A next block, or one at a stride, has the relation that follows from its number too. */
static void
check_block(Worker *worker, NxmBlock block)
{
	CHECK(worker, block.database == 1 && block.relation == relation_of(block.number),
		  "block %u of relation %u", block.number, block.relation);
}

static void
sequence(Worker *worker, NxmPredictorSession *session, uint32_t number)
{
	NxmPredictor *p = predictor_of(worker);
	Test	   *test = worker->test;
	uint64_t	awaited = 0;

	for (uint32_t i = 0; i < LENGTH; i++)
	{
		NxmPrediction found[MOST];
		NxmBlock	block = block_of(number, i);
		int			n;

		awaited += nxm_predictor_awaits(p, session, block);
		nxm_predictor_record(p, session, block);
		n = nxm_predictor_predict(p, session, MOST, found);
		for (int f = 0; f < n; f++)
			check_block(worker, found[f].block);
		n = nxm_predictor_lookup(p, block, MOST, found);
		for (int f = 0; f < n; f++)
			check_block(worker, found[f].block);
	}
	(void) nxm_fetch_add_relaxed(&test->awaited, awaited);
	(void) nxm_fetch_add_relaxed(&test->recorded, LENGTH);
}

/* All record and are predicted the same sequences. */
static void
learn(Worker *worker)
{
	Test	   *test = worker->test;
	NxmPredictorSession session;

	nxm_predictor_begin(&session);
	/* also where the machine and the sanitizer are slow: each of them is new once */
	while (stress_go(worker) || (nxm_load(&test->recorded) < ENOUGH &&
								 nxm_load_relaxed(&worker->env->world->failed) == 0))
		sequence(worker, &session, env_below(&worker->random, TAUGHT));
	nxm_predictor_end(predictor_of(worker), &session);
}

/*
 * More than there is room for, while relations are forgotten, sessions end, and all is
 * saved, loaded and reset.
 */
static void
disturb(Worker *worker)
{
	NxmPredictor *p = predictor_of(worker);
	NxmPredictorSession session;
	NxmPredictorStats stats;

	nxm_predictor_begin(&session);
	while (stress_go(worker))
	{
		sequence(worker, &session, env_below(&worker->random, SEQUENCES));
		switch (env_below(&worker->random, 200))
		{
			case 0:
				nxm_predictor_forget(p, 1, 1 + env_below(&worker->random, RELATIONS));
				break;
			case 1:
				nxm_predictor_end(p, &session);
				break;
			case 2:
				{
					size_t		size = nxm_predictor_save(p, worker->buffer,
														  nxm_predictor_save_size(p), NULL);

					CHECK(worker, size > 0 && nxm_predictor_load(p, worker->buffer, size, NULL) ==
						  NXM_PREDICTOR_LOADED, "what was saved was not loaded");
					break;
				}
			case 3:
				nxm_predictor_stats(p, &stats);
				CHECK(worker, stats.associations <= stats.capacity && stats.relations <= 2 * RELATIONS,
					  "%llu associations", (unsigned long long) stats.associations);
				break;
			case 4:
				if (env_below(&worker->random, 10) == 0)
					nxm_predictor_reset(p);
				break;
		}
	}
	nxm_predictor_end(p, &session);
}

int
main(int argc, char **argv)
{
	Worker	   *worker = stress_begin(argc, argv, sizeof(Test));
	Test	   *test = worker->test;
	NxmPredictor *p = nxm_predictor_init(test->area, nxm_predictor_size(AREA));
	NxmPredictorStats stats;
	uint64_t	awaited;
	uint64_t	recorded;

	stress_ok(nxm_predictor_save_size(p) <= NXM_MAX_VALUE, "there is room to save");
	stress_phase("workers record and are predicted the same sequences", learn);
	awaited = nxm_load(&test->awaited);
	recorded = nxm_load(&test->recorded);
	stress_ok(awaited > recorded / 2, "most of which was predicted");
	nxm_predictor_stats(p, &stats);
	stress_ok(stats.recorded == recorded && stats.used == awaited &&
			  stats.issued == stats.used + stats.wasted, "and nothing was counted twice, or lost");
	stress_phase("while all is forgotten, saved, loaded and reset", disturb);
	return stress_end();
}
