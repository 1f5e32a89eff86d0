/*
 * predictor_internal.h
 *	  What is in the predictor's memory, and who may change it how.  predictor.h has
 *	  the contract, predictor.c what sessions do with it.
 *
 * The log.  A sequence of misses is kept as one, in a circular log that all sessions
 * write.  A session takes CHUNK entries at a time, so that what stands side by side in a
 * chunk was missed one after the other by one session.  Positions count up for ever;
 * position p is at slot p % log_size.
 *
 *	entry	63   62   60 59          48 47        32 31            0
 *			+---+-------+--------------+------------+---------------+
 *			| 0 | score |  generation  |  relation  |     block     |
 *			+---+-------+--------------+------------+---------------+
 *	link	+---+-------+------------------+------------------------+
 *			| 1 |   1   |        0         |      position, 40      |
 *			+---+-------+------------------+------------------------+
 *	nothing	+---+-------+-------------------------------------------+
 *			| 0 |   0   |         position / size of the log        |
 *			+---+-------+-------------------------------------------+
 *
 * An entry stands for the association with the entry before it.  A link says that the
 * sequence goes on after another position: in the next chunk, or where the same blocks
 * were recorded before; 0: nowhere.  The last slot of a chunk has nothing else.
 *
 * The index has two words for each entry: one by its block, one by its block and the
 * one before, each tag 24 | position 40.  Both are hints: the entry that they lead to is
 * compared.
 *
 * Regions.  A word is tag 32 | 16 x 2 bits: for each of 16 blocks whether the next one
 * followed: not known, no, yes, again.
 *
 * Protocol.  Every word of log, index, regions and contexts is whole by itself.  That an
 * entry is what stood at that position, and not what the next turn of the log has put
 * there, is seen so:
 *
 *	- Who takes a chunk, by adding to head, clears it before it writes, or lets anybody
 *	  know of it.  A word of a later turn was therefore written by who had moved the head;
 *	  whoever reads it, with acquire, sees by the head that the position is lost.
 *	- What is written replaces the cleared word, which names the turn, and not where the
 *	  head has passed.  So a writer that was stopped, for how long ever, writes nothing
 *	  into what others have taken; where it was stopped while it cleared an entry, and they
 *	  wrote the same one there, it may clear that.
 *	- A score is changed by CAS of the whole word: an entry that was overwritten is never
 *	  brought back.
 *
 * So what stands after an entry was missed after it, by one session.  All other words are
 * read and written relaxed, and order nothing; of two that write one at the same time one
 * may be lost.
 *
 * Relations.  An entry names a slot of the relation table, and the generation of the
 * slot.  A slot's words are changed in this order, and read so that generation, name
 * and generation agree:
 *
 *		forget:	name X -> GONE (CAS: the winner goes on), generation + 1, name 0
 *		enter:	name 0 -> X (CAS)
 *
 * A slot whose stamp is older than the log, and than what may have been recorded without
 * it, has no entries left; it is taken for another relation when its neighbours are taken.
 *
 * Limits.  After 4,096 relations in one slot within one turn of the log an entry names a
 * foreign relation: a wrong prediction, which scores.  A process that dies while it
 * forgets a relation leaves a slot that is not used until the next reset.
 *
 * Bytes per entry: 8, its index 16, regions 2, relations 0.4: 26.4.
 */
#ifndef NXM_PREDICTOR_INTERNAL_H
#define NXM_PREDICTOR_INTERNAL_H

#include "predictor.h"

/* The checker makes these small. */
#ifndef NXM_PREDICTOR_CHUNK
#define NXM_PREDICTOR_CHUNK 16
#define NXM_PREDICTOR_RELATIONS 64	/* no table has fewer */
#endif
#define CHUNK			((uint64_t) NXM_PREDICTOR_CHUNK)

#define WAYS			8		/* words of a cache line */
_Static_assert(WAYS * sizeof(NxmAtomic) == NXM_CACHE_LINE, "a set is a line");

#define LINK			(UINT64_C(1) << 63)
#define SCORE_SHIFT		60
#define SCORE_ONE		(UINT64_C(1) << SCORE_SHIFT)
#define SCORE_MASK		(UINT64_C(7) << SCORE_SHIFT)
#define BLOCK_MASK		(SCORE_ONE - 1) /* generation, relation, block */
#define GENERATIONS		4096
#define POSITION_MASK	((UINT64_C(1) << 40) - 1)

/* 0 is not a score, but that of a word with nothing in it. */
#define SCORE_LEAST		1
#define SCORE_DISABLED	2
#define SCORE_NEW		4
#define SCORE_MOST		7

#define MAX_RELATIONS	65536	/* by the bits in an entry */
#define GONE			UINT64_C(1) /* a name that no relation has */

/* The counts of a context are halved at this total. */
#define SHARED_HALF		4096

#define REGION			16		/* blocks */

typedef struct Relation
{
	NxmAtomic	name;			/* database 32 | relation 32; 0: free; GONE */
	NxmAtomic	generation;		/* changed by who changed the name to GONE */
	NxmAtomic	stamp;			/* position of the head at about its last record */
} Relation;

struct NxmPredictor
{
	/* immutable */
	uint64_t	size;
	uint64_t	log_size;		/* a multiple of CHUNK */
	uint64_t	nindex;			/* sets of WAYS words */
	uint64_t	nregions;		/* likewise */
	uint64_t	nrelations;
	uint64_t	unused[3];
	/* position of the next chunk; fetch-and-add */
	NxmAtomic	head __attribute__((aligned(NXM_CACHE_LINE)));
	NxmAtomic	reset_at;		/* positions before are forgotten */
	/* added to, relaxed */
	NxmAtomic	counts[NXM_PREDICTOR_NCOUNTERS] __attribute__((aligned(NXM_CACHE_LINE)));
	/* used 32 | total 32, by CAS */
	NxmAtomic	contexts[NXM_PREDICTOR_CONTEXTS];
	/* index, regions, log, relations */
	NxmAtomic	words[] __attribute__((aligned(NXM_CACHE_LINE)));
};

/* The places of the four in words. */
static inline NxmAtomic *
index_of(NxmPredictor *p)
{
	return p->words;
}

static inline NxmAtomic *
regions_of(NxmPredictor *p)
{
	return index_of(p) + p->nindex * WAYS;
}

static inline NxmAtomic *
log_of(NxmPredictor *p)
{
	return regions_of(p) + p->nregions * WAYS;
}

static inline Relation *
relations_of(NxmPredictor *p)
{
	return (Relation *) (log_of(p) + p->log_size);
}

static inline uint64_t
mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}

/* Of a loop, at its number i. */
static inline void
pause_at(NxmPredictorPause pause, uint64_t i)
{
	if (pause != NULL && i % (64 * 1024) == 0)
		pause();
}

/* 0 to below - 1, by the high half of a hash; the low half makes tags. */
static inline uint64_t
place(uint64_t hash, uint64_t below)
{
	return ((hash >> 32) * below) >> 32;
}

/* What is at a position; 0: not, or no longer, that. */
static inline uint64_t
log_read(NxmPredictor *p, uint64_t position)
{
	/* acquire pairs with who wrote it, and had taken the chunk before, which head says */
	uint64_t	w = nxm_load(log_of(p) + position % p->log_size);

	if ((w & SCORE_MASK) == 0 || nxm_load_relaxed(&p->head) - position > p->log_size ||
		position < nxm_load_relaxed(&p->reset_at))
		return 0;
	return w;
}

/* The position whose low bits these are: the last one before the head. */
static inline uint64_t
log_position(NxmPredictor *p, uint64_t bits)
{
	uint64_t	head = nxm_load_relaxed(&p->head);

	return head - ((head - bits) & POSITION_MASK);
}

/* Goes on to the entry after *position, over links.  0: the sequence ends here. */
static inline uint64_t
log_next(NxmPredictor *p, uint64_t *position)
{
	uint64_t	at = *position;

	for (int hops = 0; hops < 4; hops++)
	{
		uint64_t	w = log_read(p, at + 1);

		if (w == 0)
			return 0;
		if ((w & LINK) == 0)
		{
			*position = at + 1;
			return w;
		}
		if ((w & POSITION_MASK) == 0)
			return 0;
		at = log_position(p, w);
	}
	return 0;
}

static inline uint64_t
score_of(uint64_t entry)
{
	return (entry & SCORE_MASK) >> SCORE_SHIFT;
}

/*
 * predictor_table.c.  A block is as in an entry: generation, relation, number.
 */

/*
 * The relation's slot and generation, as they stand in entries.  False: it has none, and
 * with enter could be given none.
 */
extern bool nxm_predictor_id(NxmPredictor *p, uint32_t database, uint32_t relation, bool enter,
							 uint64_t *id);

/* What an entry names; false: nothing that is known now. */
extern bool nxm_predictor_named(NxmPredictor *p, uint64_t block, NxmBlock *named);

/* Takes n chunks of the log, one after the other; the position of their first entry. */
extern uint64_t nxm_predictor_take(NxmPredictor *p, uint64_t n, NxmPredictorPause pause);

/* Writes at a position of a chunk that was taken, once, unless it is lost by now. */
extern void nxm_predictor_write(NxmPredictor *p, uint64_t position, uint64_t w);

/* Moves the score of the entry for block at a position, if that is still there. */
extern void nxm_predictor_score(NxmPredictor *p, uint64_t position, uint64_t block, bool used);

/*
 * Lets the processor fetch, all at the same time, what the functions below look at for
 * a block and the one before it.
 */
extern void nxm_predictor_fetch(NxmPredictor *p, uint64_t before, uint64_t block);

/* Where block was recorded, alone or after another; 0: nowhere that is left. */
extern uint64_t nxm_predictor_find_1(NxmPredictor *p, uint64_t block);
extern uint64_t nxm_predictor_find_2(NxmPredictor *p, uint64_t before, uint64_t block);

/*
 * The block at position, after another (0: none), is found from now on; but, unless
 * always, not where a place is found now from which a prediction has come true.
 */
extern void nxm_predictor_index(NxmPredictor *p, uint64_t before, uint64_t block,
								uint64_t position, bool always);

/* The states of all blocks of the block's region, 2 bits each. */
extern uint32_t nxm_predictor_region(NxmPredictor *p, uint64_t block);

/* What became of the prediction that the next block follows. */
extern void nxm_predictor_region_score(NxmPredictor *p, uint64_t block, bool used,
									   uint32_t clock);

#endif							/* NXM_PREDICTOR_INTERNAL_H */
