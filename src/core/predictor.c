/*
 * predictor.c
 *	  What was missed once is read ahead of the next time.  predictor.h has the
 *	  contract.
 *
 * The log.  A sequence of misses is kept as one, in a circular log that all sessions
 * write (STMS, HPCA 2009; the index finds places in it as that of a global history
 * buffer does, HPCA 2004).  A session takes CHUNK entries at a time, so that what
 * stands side by side in a chunk was missed one after the other by one session.
 * Positions count up for ever; position p is at slot p % log_size, and is of lap
 * p / log_size.
 *
 *	entry	63   62   58 57   55 54        48 47      32 31        0
 *			+---+-------+-------+------------+----------+-----------+
 *			| 0 |  lap  | score | generation | relation |   block   |
 *			+---+-------+-------+------------+----------+-----------+
 *	link	+---+-------+-------+----------------+------------------+
 *			| 1 |  lap  |   1   |       0        |   position, 40   |
 *			+---+-------+-------+----------------+------------------+
 *
 * An entry stands for the association with the entry before it.  A link says where the
 * sequence goes on: in the next chunk, or where the same blocks were recorded before.
 * So a sequence that comes again is not written again, and what is in memory of a
 * recurring load does not grow.  One that is followed in the older half of the log is
 * written anew, and is thus the last to be overwritten.
 *
 * The index has two words for each entry: one by its block, one by its block and the
 * one before (a second-order context), each tag 24 | position 40.  Both are hints.  The
 * entry that they lead to is compared.
 *
 * Following.  A session is at a place of the log, the stream.  If the block recorded
 * now is one of the next few there, it has moved on; if not, its last two blocks are
 * looked for, then the last one.  Candidates are the blocks that follow the stream.
 *
 * Runs.  A region word is tag 32 | 16 x 2 bits: for each of 16 blocks whether the next
 * one followed: not known, no, yes, always.  Strides are kept by the session: for each
 * of the relations it read last the last block, the difference, and how often it came
 * in a row.
 *
 * The scorer.  Whatever proposes a block, it comes with a context: who proposed it, how
 * much of the past agreed (blocks of the stream in a row, length of the run), the
 * score of the association and the least on the way to it, and how far ahead it is.
 * Confidence is the precision measured in that context: of this session of late,
 * which counts most, and of all sessions, which is what a session begins with.  What
 * is not known at all has a prior.  A candidate that is not issued is watched as if it
 * were (its block is missed or it is not), so that silence is measured too and a
 * context that becomes good is found; so is an association that disabled itself.
 *
 *	used		recorded within WINDOW blocks of the session: score + 1
 *	wasted		not: score - 1; at SCORE_DISABLED it is not predicted any more, nor
 *				is anything beyond it
 *
 * Limits of that: a candidate that was only thought and is cached is not missed, and
 * counts as wasted, so that contexts are judged too low where much is cached.
 *
 * Protocol.  Every word of log, index, regions and contexts is whole by itself, is
 * read and written relaxed, and orders nothing.  That a place in the log is still what
 * it was is seen in the word: its lap.  Scores change by CAS of the whole word, so an
 * entry that was overwritten is never brought back.  A writer looks at the head before
 * each entry and takes a new chunk where its own is about to be overwritten.  A process
 * that is stopped between that look and its store for a multiple of 32 laps could
 * place an entry in a foreign sequence: a wrong prediction, once.
 *
 * Relations.  An entry names a slot of the relation table, and the generation of the
 * slot.  A slot's words are changed in this order, and read so that generation, name
 * and generation agree:
 *
 *		forget:	name X -> GONE (CAS: the winner goes on), generation + 1, name 0
 *		enter:	name 0 -> X (CAS)
 *
 * A process that dies in the middle leaves a slot that is not used until the next
 * reset.  A slot whose stamp is older than the log has no entries left; it is taken for
 * another relation when its neighbours are.  After 128 relations in one slot within one
 * turn of the log an entry could name a foreign relation: again a wrong prediction.
 *
 * Bytes per entry of the log: 8, its index 16, regions 2, relations 0.4: 26.4.  The
 * session's struct has 11 kB.
 *
 * Related work.  Leap (ATC 2020) and Linux's read-ahead know strides alone; Markov
 * prefetching (Joseph and Grunwald, ISCA 1997) has counts of successors of one miss;
 * Mithril (SoCC 2017) mines pairs that were requested close to each other.
 */
#include "predictor.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* The checker has smaller ones. */
#ifndef NXM_PREDICTOR_CHUNK
#define NXM_PREDICTOR_CHUNK 16
#endif
#define CHUNK			((uint64_t) NXM_PREDICTOR_CHUNK)

#define WAYS			8		/* words of a cache line */

#define LINK			(UINT64_C(1) << 63)
#define LAP_SHIFT		58
#define LAP_MASK		(UINT64_C(31) << LAP_SHIFT)
#define SCORE_SHIFT		55
#define SCORE_ONE		(UINT64_C(1) << SCORE_SHIFT)
#define SCORE_MASK		(UINT64_C(7) << SCORE_SHIFT)
#define BLOCK_MASK		(SCORE_ONE - 1) /* generation, relation, block */
#define GENERATIONS		128
#define POSITION_MASK	((UINT64_C(1) << 40) - 1)

/* 0 is not a score: no entry is the word 0. */
#define SCORE_LEAST		1
#define SCORE_DISABLED	2
#define SCORE_NEW		4
#define SCORE_MOST		7

#define GONE			UINT64_C(1) /* a name that no relation has */

#define DEPTH			32		/* blocks looked at beyond the stream's place */
#define SKIP			4		/* of them that may have been cached this time */
#define PATIENCE		4		/* blocks that may come in between */
#define WINDOW			128		/* blocks within which a candidate comes true */
#define FLUSH			64		/* blocks after which a session tells the others */

/* Kinds of candidates, and their contexts. */
#define DISTANCES		6		/* 1, 2, to 4, to 8, to 16, to 32 */
#define AGREEMENTS		4
#define STREAM_CONTEXTS (AGREEMENTS * 8 * DISTANCES)
#define NEXT_CONTEXTS	64
#define STRIDE_CONTEXTS (AGREEMENTS * DISTANCES)
#define FIRST_NEXT		STREAM_CONTEXTS
#define FIRST_STRIDE	(FIRST_NEXT + NEXT_CONTEXTS)
_Static_assert(FIRST_STRIDE + STRIDE_CONTEXTS == NXM_PREDICTOR_CONTEXTS, "contexts");

/* How much the prior weighs against what was measured. */
#define PRIOR_WEIGHT	4.0f
/* A session forgets by halves, at so many outcomes of a context; all do later. */
#define SESSION_HALF	64
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
static NxmAtomic *
index_of(NxmPredictor *p)
{
	return p->words;
}

static NxmAtomic *
regions_of(NxmPredictor *p)
{
	return index_of(p) + p->nindex * WAYS;
}

static NxmAtomic *
log_of(NxmPredictor *p)
{
	return regions_of(p) + p->nregions * WAYS;
}

static Relation *
relations_of(NxmPredictor *p)
{
	return (Relation *) (log_of(p) + p->log_size);
}

static uint64_t
mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}

/* 0 to below - 1, by the high half of a hash; the low half makes tags. */
static uint64_t
place(uint64_t hash, uint64_t below)
{
	return ((hash >> 32) * below) >> 32;
}

/* ---- relations ---- */

static Relation *
relation_at(NxmPredictor *p, uint64_t hash, uint64_t i)
{
	return relations_of(p) + (place(hash, p->nrelations) + i) % p->nrelations;
}

/* The name goes, and with its generation all that was known by it. */
static bool
retire(Relation *relation, uint64_t name)
{
	if (!nxm_cas(&relation->name, &name, GONE))
		return false;
	(void) nxm_fetch_add(&relation->generation, 1);
	name = GONE;
	(void) nxm_cas(&relation->name, &name, 0);
	return true;
}

/*
 * The relation's slot and generation, as they stand in entries: bits 32 to 54.  False:
 * it has none, and with enter could be given none.
 */
static bool
relation_id(NxmPredictor *p, uint32_t database, uint32_t relation, bool enter, uint64_t *id)
{
	uint64_t	name = (uint64_t) database << 32 | relation;
	uint64_t	hash = mix(name);
	uint64_t	head = nxm_load_relaxed(&p->head);

	if (name <= GONE)
		return false;
	for (int attempt = 0; attempt < 2; attempt++)
	{
		for (uint64_t i = 0; i < WAYS; i++)
		{
			Relation   *r = relation_at(p, hash, i);
			uint64_t	seen = nxm_load(&r->name);

			if (seen == 0 && enter)
			{
				nxm_store_relaxed(&r->stamp, head);
				if (nxm_cas(&r->name, &seen, name))
					seen = name;
			}
			if (seen == name)
			{
				*id = (nxm_load(&r->generation) % GENERATIONS) << 48 |
					(uint64_t) (r - relations_of(p)) << 32;
				if (nxm_load(&r->name) != name)
					return false;
				if (head - nxm_load_relaxed(&r->stamp) > p->log_size / 8)
					nxm_store_relaxed(&r->stamp, head);
				return true;
			}
		}
		if (!enter)
			return false;
		/* all taken: one that no entry names any more is retired, and its place used */
		for (uint64_t i = 0; i < WAYS; i++)
		{
			Relation   *r = relation_at(p, hash, i);
			uint64_t	seen = nxm_load(&r->name);

			if (seen > GONE && (int64_t) (head - nxm_load_relaxed(&r->stamp)) > (int64_t) p->log_size &&
				retire(r, seen))
				break;
		}
	}
	return false;
}

/* What an entry names; false: nothing that is known now. */
static bool
resolve(NxmPredictor *p, uint64_t block, NxmBlock *named)
{
	uint64_t	slot = (block >> 32) & 0xffff;
	uint64_t	generation = (block & BLOCK_MASK) >> 48;
	uint64_t	before;
	uint64_t	name;
	Relation   *r = relations_of(p) + slot;

	if (slot >= p->nrelations)
		return false;
	/* pairs with retire(): a name read between two equal generations is of that one */
	before = nxm_load(&r->generation);
	name = nxm_load(&r->name);
	if (name <= GONE || before % GENERATIONS != generation || nxm_load(&r->generation) != before)
		return false;
	*named = (NxmBlock) {(uint32_t) (name >> 32), (uint32_t) name, (uint32_t) block};
	return true;
}

/* ---- the log ---- */

/* What is at a position; 0: not, or no longer, that. */
static uint64_t
log_read(NxmPredictor *p, uint64_t position)
{
	uint64_t	w = nxm_load_relaxed(log_of(p) + position % p->log_size);

	if ((w & LAP_MASK) >> LAP_SHIFT != (position / p->log_size) % 32 ||
		position < nxm_load_relaxed(&p->reset_at))
		return 0;
	return w;
}

static void
log_write(NxmPredictor *p, uint64_t position, uint64_t w)
{
	nxm_store_relaxed(log_of(p) + position % p->log_size,
					  w | ((position / p->log_size) % 32) << LAP_SHIFT);
}

/* The position whose low bits these are: the last one before the head. */
static uint64_t
log_position(NxmPredictor *p, uint64_t bits)
{
	uint64_t	head = nxm_load_relaxed(&p->head);

	return head - ((head - bits) & POSITION_MASK);
}

/* Goes on to the entry after *position, over links.  0: the sequence ends here. */
static uint64_t
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

static uint64_t
score_of(uint64_t entry)
{
	return (entry & SCORE_MASK) >> SCORE_SHIFT;
}

/* Moves the score of the entry for block at a position, if that is still there. */
static void
log_score(NxmPredictor *p, uint64_t position, uint64_t block, bool used)
{
	NxmAtomic  *word = log_of(p) + position % p->log_size;
	uint64_t	w = log_read(p, position);

	while (w != 0 && (w & LINK) == 0 && (w & BLOCK_MASK) == block &&
		   score_of(w) != (used ? SCORE_MOST : SCORE_LEAST))
	{
		/* the whole word: where it was overwritten it stays so */
		if (nxm_cas(word, &w, used ? w + SCORE_ONE : w - SCORE_ONE))
			return;
		w = log_read(p, position);
	}
}

/* ---- the index ---- */

static uint64_t
hash_1(uint64_t block)
{
	return mix(block + 1);
}

static uint64_t
hash_2(uint64_t before, uint64_t block)
{
	return mix(mix(before + 1) ^ block);
}

static NxmAtomic *
index_set(NxmPredictor *p, uint64_t hash)
{
	return index_of(p) + place(hash, p->nindex) * WAYS;
}

static uint64_t
index_tag(uint64_t hash)
{
	return (hash << 40) & ~POSITION_MASK;
}

/* Where block was recorded last by this hash; 0: nowhere that is left. */
static uint64_t
index_find(NxmPredictor *p, uint64_t hash, uint64_t block)
{
	NxmAtomic  *set = index_set(p, hash);

	for (int i = 0; i < WAYS; i++)
	{
		uint64_t	w = nxm_load_relaxed(&set[i]);

		if (w != 0 && (w & ~POSITION_MASK) == index_tag(hash))
		{
			uint64_t	position = log_position(p, w);
			uint64_t	entry = log_read(p, position);

			if (entry != 0 && (entry & LINK) == 0 && (entry & BLOCK_MASK) == block)
				return position;
		}
	}
	return 0;
}

/*
 * What is found by this hash from now on, in place of what was, of nothing, or of what
 * is oldest.  Whoever changes the set at the same time wins.
 */
static void
index_put(NxmPredictor *p, uint64_t hash, uint64_t position)
{
	NxmAtomic  *set = index_set(p, hash);
	NxmAtomic  *victim = NULL;
	uint64_t	victim_word = 0;
	uint64_t	oldest = 0;
	uint64_t	head = nxm_load_relaxed(&p->head);

	for (int i = 0; i < WAYS; i++)
	{
		uint64_t	w = nxm_load_relaxed(&set[i]);
		uint64_t	age = w == 0 ? POSITION_MASK : (head - w) & POSITION_MASK;

		if (w != 0 && (w & ~POSITION_MASK) == index_tag(hash))
			age = UINT64_MAX;
		if (victim == NULL || age > oldest)
		{
			victim = &set[i];
			victim_word = w;
			oldest = age;
		}
	}
	(void) nxm_cas(victim, &victim_word, index_tag(hash) | (position & POSITION_MASK));
}

/*
 * The block at position, after another (0: none), is found from now on; but not where a
 * place is found now from which a prediction has come true.
 */
static void
index_entry(NxmPredictor *p, uint64_t before, uint64_t block, uint64_t position, bool always)
{
	uint64_t	hashes[2] = {hash_1(block), hash_2(before, block)};

	for (int i = 0; i < (before != 0 ? 2 : 1); i++)
	{
		uint64_t	now = always ? 0 : index_find(p, hashes[i], block);

		if (now == 0 || score_of(log_next(p, &now)) <= SCORE_NEW)
			index_put(p, hashes[i], position);
	}
}

/* ---- regions ---- */

static uint64_t
region_hash(uint64_t block)
{
	return mix(~(block / REGION));
}

static NxmAtomic *
region_find(NxmPredictor *p, uint64_t block, uint64_t *word)
{
	uint64_t	hash = region_hash(block);
	NxmAtomic  *set = regions_of(p) + place(hash, p->nregions) * WAYS;

	for (int i = 0; i < WAYS; i++)
	{
		*word = nxm_load_relaxed(&set[i]);
		if (*word >> 32 == (uint32_t) (hash | 1))
			return &set[i];
	}
	*word = 0;
	return NULL;
}

/* What became of the prediction that the next block follows. */
static void
region_score(NxmPredictor *p, uint64_t block, bool used, uint32_t clock)
{
	uint64_t	hash = region_hash(block);
	int			shift = (int) (block % REGION) * 2;
	uint64_t	w;
	NxmAtomic  *word = region_find(p, block, &w);
	uint64_t	state;

	if (word == NULL)
	{
		NxmAtomic  *set = regions_of(p) + place(hash, p->nregions) * WAYS;

		/* that it does not follow is what is expected of blocks not known */
		if (!used)
			return;
		word = &set[clock % WAYS];
		for (int i = 0; i < WAYS; i++)
			if (nxm_load_relaxed(&set[i]) == 0)
				word = &set[i];
		w = nxm_load_relaxed(word);
		(void) nxm_cas(word, &w, (hash | 1) << 32 | UINT64_C(2) << shift);
		return;
	}
	state = (w >> shift) & 3;
	state = used ? (state < 2 ? 2 : 3) : (state == 3 ? 2 : 1);
	(void) nxm_cas(word, &w, (w & ~(UINT64_C(3) << shift)) | state << shift);
}

/* ---- what is counted ---- */

/* Tells the others what this session has measured. */
static void
tell(NxmPredictor *p, NxmPredictorSession *s)
{
	for (int c = 0; c < NXM_PREDICTOR_NCOUNTERS; c++)
		if (s->counts[c] != 0)
		{
			(void) nxm_fetch_add_relaxed(&p->counts[c], s->counts[c]);
			s->counts[c] = 0;
		}
	for (int c = 0; c < NXM_PREDICTOR_CONTEXTS; c++)
		if (s->fresh_total[c] != 0)
		{
			uint64_t	w = nxm_load_relaxed(&p->contexts[c]);
			uint64_t	used = (w >> 32) + s->fresh_used[c];
			uint64_t	total = (uint32_t) w + s->fresh_total[c];

			if (total >= SHARED_HALF)
			{
				used /= 2;
				total /= 2;
			}
			/* lost where another one is as fast: it measured the same */
			(void) nxm_cas(&p->contexts[c], &w, used << 32 | total);
			s->fresh_used[c] = s->fresh_total[c] = 0;
		}
}

/* Before anything was measured: of a candidate, whatever its score. */
static float
prior(uint32_t context)
{
	uint32_t	agreement;

	if (context >= FIRST_STRIDE)
		return 0.6f;
	if (context >= FIRST_NEXT)
		return 0.35f;
	if (context / DISTANCES % 8 <= SCORE_DISABLED)
		return 0.1f;
	agreement = context / DISTANCES / 8;
	return agreement == 0 ? 0.35f : 0.6f;
}

static float
confidence(NxmPredictor *p, const NxmPredictorSession *s, uint32_t context)
{
	uint64_t	w = nxm_load_relaxed(&p->contexts[context]);
	float		all = ((float) (w >> 32) + PRIOR_WEIGHT * prior(context)) /
		((float) (uint32_t) w + PRIOR_WEIGHT);

	if (s == NULL)
		return all;
	return ((float) s->used[context] + PRIOR_WEIGHT * all) /
		((float) s->total[context] + PRIOR_WEIGHT);
}

static void
measure(NxmPredictorSession *s, uint32_t context, bool used)
{
	s->used[context] = (uint16_t) (s->used[context] + used);
	s->fresh_used[context] = (uint16_t) (s->fresh_used[context] + used);
	s->fresh_total[context]++;
	if (++s->total[context] >= SESSION_HALF)
	{
		s->used[context] /= 2;
		s->total[context] /= 2;
	}
}

/* ---- what is awaited ---- */

#define PENDING_WAYS 4

static NxmPending *
pending_set(NxmPredictorSession *s, uint64_t block)
{
	return s->pending + place(mix(block), NXM_PREDICTOR_PENDING / PENDING_WAYS) * PENDING_WAYS;
}

static NxmPending *
pending_find(NxmPredictorSession *s, uint64_t block)
{
	NxmPending *set = pending_set(s, block);

	for (int i = 0; i < PENDING_WAYS; i++)
		if (set[i].awaited && set[i].block == block)
			return &set[i];
	return NULL;
}

/* What was awaited has come, or will not. */
static void
settle(NxmPredictor *p, NxmPredictorSession *s, NxmPending *pending, bool used)
{
	pending->awaited = false;
	measure(s, pending->context, used);
	if (pending->serial != 0)
		s->counts[used ? NXM_PREDICTOR_COUNTER_used : NXM_PREDICTOR_COUNTER_wasted]++;
	if (pending->context < FIRST_NEXT)
		log_score(p, pending->where, pending->block, used);
	else if (pending->context < FIRST_STRIDE)
		region_score(p, pending->where, used, s->clock);
}

static void
settle_old(NxmPredictor *p, NxmPredictorSession *s)
{
	/* two in each turn: all of them twice within a window */
	for (uint32_t i = 0; i < 2; i++)
	{
		NxmPending *pending = &s->pending[(s->clock * 2 + i) % NXM_PREDICTOR_PENDING];

		if (pending->awaited && s->clock - pending->at > WINDOW)
			settle(p, s, pending, false);
	}
}

static NxmPending *
pending_new(NxmPredictor *p, NxmPredictorSession *s, uint64_t block)
{
	NxmPending *set = pending_set(s, block);
	NxmPending *oldest = set;

	for (int i = 0; i < PENDING_WAYS; i++)
	{
		if (!set[i].awaited)
			return &set[i];
		if (s->clock - set[i].at > s->clock - oldest->at)
			oldest = &set[i];
	}
	settle(p, s, oldest, false);
	return oldest;
}

/* ---- recording ---- */

/* The block before the last n of the history; 0: none. */
static uint64_t
past(const NxmPredictorSession *s, uint32_t n)
{
	return n >= NXM_PREDICTOR_HISTORY ? 0 :
		s->history[(s->clock - n) % NXM_PREDICTOR_HISTORY];
}

/* Room for an entry, or a link, of this session. */
static uint64_t
write_place(NxmPredictor *p, NxmPredictorSession *s)
{
	uint64_t	base;

	/* its chunk is about to be overwritten */
	if (s->write != 0 && nxm_load_relaxed(&p->head) - s->write > p->log_size - 2 * CHUNK)
		s->write = 0;
	if (s->write == 0)
		s->cut = true;
	else if (s->write % CHUNK != CHUNK - 1)
		return s->write++;

	base = nxm_fetch_add_relaxed(&p->head, CHUNK);
	if (s->write != 0)
		log_write(p, s->write, LINK | SCORE_ONE | ((base - 1) & POSITION_MASK));
	s->write = base + 1;
	return base;
}

static void
write_link(NxmPredictor *p, NxmPredictorSession *s, uint64_t to)
{
	if (s->write != 0 && !s->cut)
		log_write(p, write_place(p, s), LINK | SCORE_ONE | (to & POSITION_MASK));
	s->cut = true;
}

static void
write_block(NxmPredictor *p, NxmPredictorSession *s, uint32_t n, uint64_t score, bool always)
{
	uint64_t	block = past(s, n);
	uint64_t	before = past(s, n + 1);
	uint64_t	position = write_place(p, s);

	log_write(p, position, score << SCORE_SHIFT | block);
	s->cut = false;
	index_entry(p, before, block, position, always);
}

/*
 * Writes the last blocks that are not in the log, or not there: so many of them that the
 * last one is found by what came before it.
 */
static void
write_last(NxmPredictor *p, NxmPredictorSession *s, uint64_t score, bool always)
{
	uint32_t	n = s->unwritten;

	if (n > 3)
	{
		write_link(p, s, 0);
		n = 3;
	}
	while (n-- > 0)
		if (past(s, n) != 0)
			write_block(p, s, n, n == 0 ? score : SCORE_NEW, always && n == 0);
	s->unwritten = 0;
}

/* Is block among the next ones of the stream?  Then that is its place. */
static uint64_t
follow(NxmPredictor *p, const NxmPredictorSession *s, uint64_t block, uint64_t *place)
{
	*place = s->stream;
	if (s->stream == 0)
		return 0;
	for (int i = 0; i < SKIP; i++)
	{
		uint64_t	entry = log_next(p, place);

		if (entry == 0 || (entry & BLOCK_MASK) == block)
			return entry;
	}
	return 0;
}

static void
advance(NxmPredictor *p, NxmPredictorSession *s, uint64_t block)
{
	uint64_t	found;
	uint64_t	entry = follow(p, s, block, &found);
	uint64_t	before = past(s, 0);

	if (s->jumped)
	{
		/* the last block was found; was it the same sequence? */
		write_last(p, s, SCORE_NEW, false);
		if (entry != 0)
			write_link(p, s, s->stream);
		s->jumped = false;
	}
	s->clock++;
	s->history[s->clock % NXM_PREDICTOR_HISTORY] = block;
	s->unwritten++;
	if (entry != 0)
	{
		s->stream = found;
		s->streak++;
		s->strayed = 0;
		if (nxm_load_relaxed(&p->head) - found > p->log_size / 2)
			write_last(p, s, score_of(entry), true);
		return;
	}
	if (s->streak < 2 || s->strayed++ >= PATIENCE)
		s->stream = 0;
	found = before != 0 ? index_find(p, hash_2(before, block), block) : 0;
	if (found != 0)
		s->streak = 2;
	else if (s->stream == 0)
	{
		found = index_find(p, hash_1(block), block);
		s->streak = 1;
	}
	if (found != 0)
	{
		s->stream = found;
		s->strayed = 0;
		s->jumped = true;
		return;
	}
	write_last(p, s, SCORE_NEW, false);
}

/* The step from the last block of the same relation. */
static void
measure_stride(NxmPredictorSession *s, uint64_t block)
{
	uint32_t	id = (uint32_t) (block >> 32);
	uint32_t	oldest = 0;
	NxmStride  *stride;

	for (uint32_t i = 0; i < NXM_PREDICTOR_STRIDES; i++)
	{
		stride = &s->strides[i];
		if (stride->at != 0 && stride->id == id)
		{
			int32_t		step = (int32_t) ((uint32_t) block - stride->last);

			stride->streak = step == stride->step ? stride->streak + 1 : 1;
			stride->step = step;
			stride->last = (uint32_t) block;
			stride->at = s->clock;
			s->stride = i;
			return;
		}
		if (s->clock - stride->at > s->clock - s->strides[oldest].at)
			oldest = i;
	}
	s->strides[oldest] = (NxmStride) {id, (uint32_t) block, 0, 0, s->clock};
	s->stride = oldest;
}

void
nxm_predictor_record(NxmPredictor *p, NxmPredictorSession *s, NxmBlock named)
{
	uint64_t	block;
	NxmPending *pending;

	if (!relation_id(p, named.database, named.relation, true, &block))
	{
		s->counts[NXM_PREDICTOR_COUNTER_refused]++;
		return;
	}
	block |= named.number;
	pending = pending_find(s, block);
	if (pending != NULL)
		settle(p, s, pending, true);
	advance(p, s, block);
	settle_old(p, s);
	measure_stride(s, block);
	s->counts[NXM_PREDICTOR_COUNTER_recorded]++;
	if (s->clock % FLUSH == 0)
		tell(p, s);
}

/* ---- predicting ---- */

typedef struct Candidate
{
	uint64_t	block;
	uint64_t	where;
	uint32_t	context;
	float		confidence;
} Candidate;

/* All that one block has: the stream's, the next one, the stride's. */
#define CANDIDATES (DEPTH + 1 + DEPTH)

static uint32_t
distance_class(uint32_t distance)
{
	return distance <= 2 ? distance - 1 : distance <= 4 ? 2 : distance <= 8 ? 3 :
		distance <= 16 ? 4 : 5;
}

static int
stream_candidates(NxmPredictor *p, uint64_t stream, uint32_t agreement, Candidate *out)
{
	uint64_t	least = SCORE_MOST;
	int			n = 0;

	for (uint32_t d = 1; d <= DEPTH && least > SCORE_DISABLED; d++)
	{
		uint64_t	entry = log_next(p, &stream);

		if (entry == 0)
			break;
		if (score_of(entry) < least)
			least = score_of(entry);
		out[n++] = (Candidate) {entry & BLOCK_MASK, stream,
			((agreement > AGREEMENTS ? AGREEMENTS : agreement) - 1) * 8 * DISTANCES +
			(uint32_t) least * DISTANCES + distance_class(d), 0};
	}
	return n;
}

static int
next_candidate(NxmPredictor *p, const NxmPredictorSession *s, uint64_t block, Candidate *out)
{
	uint64_t	next = block + 1;
	uint64_t	w;
	uint32_t	ups = 0;
	uint32_t	own;
	bool		run = false;

	if ((uint32_t) next == 0)
		return 0;
	(void) region_find(p, block, &w);
	own = (w >> (block % REGION) * 2) & 3;
	/* states of 2 and 3 have the upper bit */
	ups = (uint32_t) __builtin_popcountll(w & UINT64_C(0xaaaaaaaa));
	for (uint32_t i = 1; s != NULL && i < NXM_PREDICTOR_HISTORY; i++)
		run = run || past(s, i) == block - 1;
	*out = (Candidate) {next, block, FIRST_NEXT + own * 16 +
		(ups > 8 ? 3 : ups > 3 ? 2 : ups > 0 ? 1 : 0) * 4 + run * 2 +
		(index_find(p, hash_1(next), next) != 0), 0};
	return 1;
}

static int
stride_candidates(const NxmPredictorSession *s, uint64_t block, Candidate *out)
{
	const NxmStride *stride = &s->strides[s->stride];
	uint32_t	streak = stride->streak;
	int64_t		number = (uint32_t) block;
	int			n = 0;

	if (streak < 2 || stride->step == 0)
		return 0;
	for (uint32_t d = 1; d <= DEPTH && d <= streak; d++)
	{
		number += stride->step;
		if (number < 0 || number >= UINT32_MAX)
			break;
		out[n++] = (Candidate) {(block & ~(uint64_t) UINT32_MAX) | (uint64_t) number, 0,
			FIRST_STRIDE + (streak > 8 ? 3 : streak > 4 ? 2 : streak > 2) * DISTANCES +
			distance_class(d), 0};
	}
	return n;
}

/* Rates the candidates, and orders them: best first, else as they are. */
static void
rate(NxmPredictor *p, const NxmPredictorSession *s, Candidate *candidates, int n)
{
	for (int i = 0; i < n; i++)
	{
		Candidate	c = candidates[i];
		int			to = i;

		c.confidence = confidence(p, s, c.context);
		while (to > 0 && candidates[to - 1].confidence < c.confidence)
		{
			candidates[to] = candidates[to - 1];
			to--;
		}
		candidates[to] = c;
	}
}

int
nxm_predictor_predict(NxmPredictor *p, NxmPredictorSession *s, int max,
					  NxmPrediction *predictions)
{
	Candidate	candidates[CANDIDATES];
	uint64_t	block = past(s, 0);
	int			n = 0;
	int			given = 0;

	if (block == 0)
		return 0;
	if (s->stream != 0)
		n += stream_candidates(p, s->stream, s->streak, candidates);
	n += next_candidate(p, s, block, candidates + n);
	n += stride_candidates(s, block, candidates + n);
	rate(p, s, candidates, n);
	for (int i = 0; i < n; i++)
	{
		const Candidate *c = &candidates[i];
		NxmPending *pending = pending_find(s, c->block);
		bool		likely = c->confidence >= s->confidence;
		bool		issue = likely && given < max;

		if (pending != NULL && (pending->serial != 0 || !issue))
			continue;
		if (issue && !resolve(p, c->block, &predictions[given].block))
			continue;
		if (pending == NULL)
		{
			if (!likely)
				s->counts[NXM_PREDICTOR_COUNTER_quiet]++;
			pending = pending_new(p, s, c->block);
		}
		*pending = (NxmPending) {c->block, c->where, s->clock, 0, c->context, true};
		if (issue)
		{
			if (++s->serial == 0)
				s->serial++;
			pending->serial = s->serial;
			predictions[given].confidence = c->confidence;
			predictions[given++].serial = s->serial;
			s->counts[NXM_PREDICTOR_COUNTER_issued]++;
		}
	}
	return given;
}

void
nxm_predictor_decline(NxmPredictor *p, NxmPredictorSession *s, const NxmPrediction *prediction)
{
	const NxmBlock *named = &prediction->block;
	uint64_t	block;
	NxmPending *pending;

	if (!relation_id(p, named->database, named->relation, false, &block))
		return;
	pending = pending_find(s, block | named->number);
	if (pending != NULL && prediction->serial != 0 && pending->serial == prediction->serial)
	{
		pending->awaited = false;
		s->counts[NXM_PREDICTOR_COUNTER_issued]--;
	}
}

bool
nxm_predictor_awaits(NxmPredictor *p, const NxmPredictorSession *s, NxmBlock named)
{
	uint64_t	block;
	const NxmPending *pending;

	if (!relation_id(p, named.database, named.relation, false, &block))
		return false;
	pending = pending_find((NxmPredictorSession *) s, block | named.number);
	return pending != NULL && pending->serial != 0;
}

int
nxm_predictor_lookup(NxmPredictor *p, NxmBlock named, int max, NxmPrediction *predictions)
{
	Candidate	candidates[CANDIDATES];
	uint64_t	block;
	uint64_t	stream;
	int			n = 0;
	int			given = 0;

	if (!relation_id(p, named.database, named.relation, false, &block))
		return 0;
	block |= named.number;
	stream = index_find(p, hash_1(block), block);
	if (stream != 0)
		n += stream_candidates(p, stream, 1, candidates);
	n += next_candidate(p, NULL, block, candidates + n);
	rate(p, NULL, candidates, n);
	for (int i = 0; i < n && given < max; i++)
	{
		bool		twice = false;

		for (int j = 0; j < i; j++)
			twice = twice || candidates[j].block == candidates[i].block;
		if (twice || !resolve(p, candidates[i].block, &predictions[given].block))
			continue;
		predictions[given].confidence = candidates[i].confidence;
		predictions[given++].serial = 0;
	}
	return given;
}

/* ---- all of it ---- */

void
nxm_predictor_begin(NxmPredictorSession *s)
{
	memset(s, 0, sizeof(*s));
	s->confidence = NXM_PREDICTOR_CONFIDENCE;
}

void
nxm_predictor_end(NxmPredictor *p, NxmPredictorSession *s)
{
	for (int i = 0; i < NXM_PREDICTOR_PENDING; i++)
		if (s->pending[i].awaited)
			settle(p, s, &s->pending[i], false);
	if (s->jumped)
		write_last(p, s, SCORE_NEW, false);
	tell(p, s);
	nxm_predictor_begin(s);
}

/* Sets log_size and what follows from it; gives the bytes. */
static size_t
lay_out(NxmPredictor *p, uint64_t log_size)
{
	p->log_size = log_size;
	p->nindex = log_size * 2 / WAYS;
	p->nregions = (log_size / 4 + WAYS - 1) / WAYS;
	p->nrelations = log_size / 64 < 64 ? 64 : log_size / 64 > 65536 ? 65536 : log_size / 64;
	p->size = sizeof(NxmPredictor) +
		(p->nindex * WAYS + p->nregions * WAYS + log_size) * sizeof(NxmAtomic) +
		p->nrelations * sizeof(Relation);
	return p->size;
}

size_t
nxm_predictor_size(size_t budget)
{
	NxmPredictor p;
	uint64_t	chunks;

	if (budget < NXM_PREDICTOR_MIN_SIZE)
		return 0;
	if (budget > NXM_PREDICTOR_MAX_SIZE)
		budget = NXM_PREDICTOR_MAX_SIZE;
	/* too many at first, as if an entry were all in the log */
	for (chunks = budget / (8 * CHUNK); lay_out(&p, chunks * CHUNK) > budget;)
		chunks -= (p.size - budget) / (32 * CHUNK) + 1;
	return p.size;
}

NxmPredictor *
nxm_predictor_init(void *area, size_t size)
{
	NxmPredictor *p = area;
	uint64_t	nwords;
	Relation   *relations;

	lay_out(p, CHUNK);
	for (uint64_t chunks = size / (8 * CHUNK); lay_out(p, chunks * CHUNK) > size;)
		chunks -= (p->size - size) / (32 * CHUNK) + 1;
	/* lap 1: lap 0 is what the empty words are of */
	nxm_init(&p->head, p->log_size);
	nxm_init(&p->reset_at, 0);
	for (int c = 0; c < NXM_PREDICTOR_NCOUNTERS; c++)
		nxm_init(&p->counts[c], 0);
	for (int c = 0; c < NXM_PREDICTOR_CONTEXTS; c++)
		nxm_init(&p->contexts[c], 0);
	nwords = p->nindex * WAYS + p->nregions * WAYS + p->log_size;
	for (uint64_t w = 0; w < nwords; w++)
		nxm_init(&p->words[w], 0);
	relations = relations_of(p);
	for (uint64_t r = 0; r < p->nrelations; r++)
	{
		nxm_init(&relations[r].name, 0);
		nxm_init(&relations[r].generation, 0);
		nxm_init(&relations[r].stamp, 0);
	}
	return p;
}
