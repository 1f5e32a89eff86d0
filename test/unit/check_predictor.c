/*
 * check_predictor.c
 *	  The predictor under the checker: no association that was never seen.
 *
 * The log is so short that it is overwritten all the time.
 */
#include "check.h"
#include "predictor_internal.h"

#define LENGTH(a) ((int) (sizeof(a) / sizeof((a)[0])))
#define CHUNKS	3
#define STEP	3				/* between the blocks of a sequence: never the next one */
#define MOST	8

static NxmPredictor *predictor;
static NxmPredictorSession sessions[CHECK_MAX_PROCS];
static bool cyclic;				/* sequences begin again */

static void
setup(void)
{
	uint64_t	log_size = CHUNKS * CHUNK;
	size_t		size = sizeof(NxmPredictor) + NXM_PREDICTOR_RELATIONS * sizeof(Relation) +
		(log_size + log_size * 2 + WAYS) * sizeof(NxmAtomic);

	predictor = nxm_predictor_init(check_shared(size, "predictor"), size);
	check_assert(predictor->log_size == log_size);
	for (int i = 0; i < CHECK_MAX_PROCS; i++)
		nxm_predictor_begin(&sessions[i]);
	cyclic = false;
}

static void
setup_cyclic(void)
{
	setup();
	cyclic = true;
}

/* What is known to follow a block is of the same sequence, which has its own relation. */
static void
look(uint32_t relation, uint32_t number)
{
	NxmPrediction found[MOST];
	int			n = nxm_predictor_lookup(predictor, (NxmBlock) {1, relation, number}, MOST, found);

	for (int f = 0; f < n; f++)
	{
		uint32_t	ahead = found[f].block.number - number;

		check_assert(found[f].block.relation == relation);
		/* the next block is a candidate after every block */
		check_assert(ahead == 1 || found[f].block.number % STEP == 0);
		check_assert(ahead == 1 || cyclic || (int32_t) ahead > 0);
	}
}

static void
record(int proc, uint32_t number)
{
	nxm_predictor_record(predictor, &sessions[proc], (NxmBlock) {1, (uint32_t) proc, number});
}

/* Each a sequence of a relation of its own, without an end. */
static void
sequences(int proc)
{
	for (uint32_t i = 0; i < 7; i++)
	{
		record(proc, i * STEP);
		if (i > 0)
			look((uint32_t) proc, (i - 1) * STEP);
	}
}

/* One writes little, or only looks, while others write the log twice over. */
static void
few_and_many(int proc)
{
	if (proc == 1)
		for (uint32_t i = 0; i < 4; i++)
			record(proc, i * STEP);
	else if (proc == 2)
		for (uint32_t i = 0; i < 24; i++)
			record(proc, i * STEP);
	else
		for (uint32_t i = 0; i < 6; i++)
			look(1 + i % 2, i / 2 * STEP);
}

/* One that comes again, so that it is followed, scored and written anew. */
static void
again(int proc)
{
	NxmPrediction found[MOST];

	for (uint32_t i = 0; i < (proc == 2 ? 20 : 8); i++)
	{
		uint32_t	number = (proc == 1 ? i % 3 : i) * STEP;

		record(proc, number);
		if (proc != 1)
			continue;
		look(1, number);
		(void) nxm_predictor_predict(predictor, &sessions[proc], MOST, found);
	}
}

/* What stands side by side in a chunk is one sequence. */
static void
one_sequence(void)
{
	uint64_t	head = nxm_load(&predictor->head);

	for (uint64_t at = head - predictor->log_size; at + 1 < head; at++)
	{
		uint64_t	one = log_read(predictor, at);
		uint64_t	two = log_read(predictor, at + 1);

		if (at % CHUNK == CHUNK - 1 || one == 0 || two == 0 || ((one | two) & LINK) != 0)
			continue;
		check_assert((one & BLOCK_MASK) >> 32 == (two & BLOCK_MASK) >> 32);
		check_assert(cyclic || (uint32_t) two - (uint32_t) one == STEP);
	}
}

/* And what comes next is learned. */
static void
finish(void)
{
	NxmPrediction found[2];

	one_sequence();
	for (uint32_t i = 1000; i < 1003; i++)
		record(2, i * STEP);
	check_assert(nxm_predictor_lookup(predictor, (NxmBlock) {1, 2, 1000 * STEP}, 2, found) == 2);
}

/* A chunk of blocks of a relation, which are the same each time. */
static void
fill_chunk(uint64_t relation)
{
	uint64_t	base = nxm_predictor_take(predictor, 1, NULL);

	for (uint64_t i = 0; i < CHUNK; i++)
		nxm_predictor_write(predictor, base + i,
							(uint64_t) SCORE_NEW << SCORE_SHIFT | relation << 32 | i);
}

static void
setup_filled(void)
{
	setup_cyclic();
	for (int i = 0; i < CHUNKS; i++)
		fill_chunk(2);
}

/* One is overtaken while it clears a chunk, by who then writes what it found there. */
static void
overtaken(int proc)
{
	for (int i = 0; i < (proc == 1 ? 1 : CHUNKS); i++)
		fill_chunk((uint64_t) proc);
}

/*
 * All places of relations but one are taken.  That one has another relation again and
 * again; the relation's number stands in its blocks.
 */
static void
setup_relations(void)
{
	uint64_t	id;

	setup();
	for (uint32_t r = 1; r < NXM_PREDICTOR_RELATIONS; r++)
		check_assert(nxm_predictor_id(predictor, 2, r, true, &id));
}

static void
relations(int proc)
{
	for (uint32_t i = 0; i < 2; i++)
	{
		uint32_t	relation = (uint32_t) proc * 100 + i;

		nxm_predictor_record(predictor, &sessions[proc], (NxmBlock) {1, relation, relation});
		nxm_predictor_forget(predictor, 1, 0);
	}
}

/* What stands in the log names no relation but the one that it was recorded of. */
static void
names_are_right(void)
{
	for (uint64_t i = 0; i < 6; i++)
	{
		uint64_t	w = log_read(predictor, predictor->log_size + i % 2 * CHUNK + i / 2);
		NxmBlock	named;

		if (w != 0 && (w & LINK) == 0 && nxm_predictor_named(predictor, w & BLOCK_MASK, &named))
			check_assert(named.relation == named.number);
	}
}

static void
reader(int proc)
{
	if (proc < 3)
		relations(proc);
	else
		names_are_right();
}

/* One records of a relation whose place another takes meanwhile, for a relation of its own. */
static void
place_taken(int proc)
{
	if (proc == 1)
		nxm_predictor_record(predictor, &sessions[1], (NxmBlock) {1, 100, 100});
	else
	{
		nxm_predictor_forget(predictor, 1, 100);
		nxm_predictor_record(predictor, &sessions[2], (NxmBlock) {1, 201, 201});
	}
}

static const char *const in_names[] = {
	"nxm_predictor_id", "nxm_predictor_forget", "retire", NULL
};
static const char *const in_log[] = {"nxm_predictor_take", "nxm_predictor_write", NULL};
static const char *const in_score[] = {"nxm_predictor_score", "log_read", NULL};

static const CheckCase cases[] = {
	{"sequences", 3, setup, sequences, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"few blocks and many", 3, setup, few_and_many, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"a sequence that comes again", 3, setup_cyclic, again, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
	{"scores", 2, setup_cyclic, again, finish, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, in_score},
	{"all schedules of a chunk taken twice", 2, setup_filled, overtaken, one_sequence, CHECK_EXHAUSTIVE, 0, 2, 1, NULL, in_log},
	{"all schedules of a name and its place taken", 2, setup_relations, place_taken, names_are_right, CHECK_EXHAUSTIVE, 20000, 3, 1, NULL, in_names},
	{"relations that come and go", 3, setup_relations, reader, NULL, CHECK_RANDOM | CHECK_PCT, 0, 0, 0, NULL, NULL},
};

int
main(int argc, char **argv)
{
	return check_main(argc, argv, "check_predictor", cases, LENGTH(cases));
}
