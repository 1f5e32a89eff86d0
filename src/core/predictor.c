/*
 * predictor.c
 *	  What was missed once is read ahead of the next time: sessions of the predictor.
 *	  predictor.h has the contract, predictor_internal.h what is in memory.
 *
 * Following.  What a session misses is written to the log.  It is at a place there, the
 * stream: if the block recorded now is one of the next few there, it has moved on; if
 * not, its last two blocks are looked for, then the last one.  Candidates are the blocks
 * that follow the stream.
 *
 * As long as a session follows, it writes nothing: what has been written leads to the
 * stream by a link.  So a sequence that comes again takes no memory again.  One that is
 * followed in the older half of the log is written anew, and is thus the last to be
 * overwritten.
 *
 * Runs.  That the next block follows is a candidate, whose association is the block's
 * bits in its region.  Strides are kept by the session: for each of the relations it
 * read last the last block, the step, and how often it came in a row.
 *
 * The scorer.  Whatever proposes a block, it comes with a context: who proposed it, how
 * much of the past agreed (blocks of the stream in a row, length of the run), the
 * least score of the associations on the way to it, and how far ahead it is.
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
 * Learning late.  A miss that is not foretold costs some twenty cache misses of our own:
 * of index, log, session and code, all of which the read before it has driven out.  So a
 * session in which UNCONFIRMED blocks were not foretold, by a stream of three at least, by
 * a prediction or by a stride, keeps its blocks until it has some, and learns from them
 * together: what they need is fetched at once, and the rest is cached for all but the
 * first.  It looks at what follows the last of them, and no farther than for finding out
 * whether that has become worth while.  Nothing is lost but predictions for at most
 * NXM_PREDICTOR_LATE blocks of the first sequence that comes again; but one of two blocks
 * alone does not wake it.
 *
 * Limit: a candidate that was only thought and is cached is not missed, and counts as
 * wasted, so that contexts are judged too low where much is cached.
 *
 * Related work.  The log with an index into it is that of temporal streaming (STMS, HPCA
 * 2009) and of the global history buffer (HPCA 2004).  Markov prefetching (Joseph and
 * Grunwald, ISCA 1997) counts the successors of one miss; Mithril (SoCC 2017) mines
 * pairs that were requested close to each other; Leap (ATC 2020) knows strides alone.
 */
#include "predictor_internal.h"

#define DEPTH			32		/* blocks looked at beyond the stream's place */
#define SKIP			4		/* of them that may have been cached this time */
#define PATIENCE		4		/* blocks that may come in between */
#define WINDOW			128		/* blocks within which a candidate comes true */
#define FLUSH			64		/* blocks after which a session tells the others */
#define UNCONFIRMED		128		/* blocks of nothing known after which a session learns late */
#define FUTILE			64		/* next blocks in vain after which most are not looked at */
#define FUTILE_STEP		16		/* but one block in so many */

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
/* Outcomes of a context after which a session halves their counts. */
#define SESSION_HALF	64

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
	{
		s->counts[used ? NXM_PREDICTOR_COUNTER_used : NXM_PREDICTOR_COUNTER_wasted]++;
		if (used)
			s->unconfirmed = 0;
	}
	if (pending->context < FIRST_NEXT)
		nxm_predictor_score(p, pending->where, pending->block, used);
	else if (pending->context < FIRST_STRIDE)
	{
		s->futile = used ? 0 : s->futile + (s->futile < UINT32_MAX);
		nxm_predictor_region_score(p, pending->where, used, s->clock);
	}
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

	base = nxm_predictor_take(p, 1, NULL);
	if (s->write != 0)
		nxm_predictor_write(p, s->write, LINK | SCORE_ONE | ((base - 1) & POSITION_MASK));
	s->write = base + 1;
	return base;
}

/* What was written last goes on where the session is in the log. */
static void
write_link(NxmPredictor *p, NxmPredictorSession *s)
{
	if (!s->cut)
		nxm_predictor_write(p, write_place(p, s), LINK | SCORE_ONE | (s->stream & POSITION_MASK));
	s->cut = true;
}

static void
write_block(NxmPredictor *p, NxmPredictorSession *s, uint32_t n, uint64_t score, bool always)
{
	uint64_t	block = past(s, n);
	uint64_t	before = past(s, n + 1);
	uint64_t	position = write_place(p, s);

	nxm_predictor_write(p, position, score << SCORE_SHIFT | block);
	s->cut = false;
	nxm_predictor_index(p, before, block, position, always);
}

/*
 * Writes the last blocks that are not in the log, or not there: so many of them that the
 * last one is found by what came before it.  Where there are more, write_link() has cut
 * them off from what was written before.
 */
static void
write_last(NxmPredictor *p, NxmPredictorSession *s, uint64_t score, bool always)
{
	uint32_t	n = s->unwritten;

	if (n > 3)
		n = 3;
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
	uint64_t	after;

	if (s->jumped)
	{
		/* the last block was found; was it the same sequence? */
		write_last(p, s, SCORE_NEW, false);
		s->jumped = false;
	}
	s->clock++;
	s->history[s->clock % NXM_PREDICTOR_HISTORY] = block;
	s->unwritten++;
	if (entry != 0)
	{
		if (nxm_load_relaxed(&p->head) - found > p->log_size / 2)
			write_last(p, s, score_of(entry), true);
		else
			write_link(p, s);
		s->stream = found;
		/* one block that follows may be chance: some blocks are missed by many sequences */
		if (s->streak > 1)
			s->unconfirmed = 0;
		s->streak += s->streak < UINT32_MAX;
		s->strayed = 0;
		return;
	}
	if (s->streak < 2 || s->strayed++ >= PATIENCE)
		s->stream = 0;
	/*
	 * What is not found by itself is not looked for after another: both were put together,
	 * and seldom is but one of them still there.
	 */
	found = nxm_predictor_find_1(p, block);
	if (found == 0)
	{
		write_last(p, s, SCORE_NEW, true);
		return;
	}
	after = before != 0 ? nxm_predictor_find_2(p, before, block) : 0;
	if (after == 0 && s->stream != 0)
	{
		write_last(p, s, SCORE_NEW, false);
		return;
	}
	s->stream = after != 0 ? after : found;
	s->streak = after != 0 ? 2 : 1;
	s->strayed = 0;
	s->jumped = true;
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

			stride->streak = step == stride->step ?
				stride->streak + (stride->streak < UINT32_MAX) : 1;
			if (stride->streak > 1)
				s->unconfirmed = 0;
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

static void
learn(NxmPredictor *p, NxmPredictorSession *s, uint64_t block)
{
	NxmPending *pending = pending_find(s, block);

	s->unconfirmed += s->unconfirmed < UINT32_MAX;
	if (pending != NULL)
		settle(p, s, pending, true);
	advance(p, s, block);
	settle_old(p, s);
	measure_stride(s, block);
	s->counts[NXM_PREDICTOR_COUNTER_recorded]++;
	if (s->clock % FLUSH == 0)
		tell(p, s);
}

static bool
learns_late(const NxmPredictorSession *s)
{
	return s->unconfirmed >= UNCONFIRMED;
}

/* All at once: their cache misses overlap, and code and session are cached for all but one. */
static void
learn_late(NxmPredictor *p, NxmPredictorSession *s)
{
	uint64_t	blocks[NXM_PREDICTOR_LATE];
	uint64_t	before = past(s, 0);
	uint32_t	n = 0;

	for (uint32_t i = 0; i < s->nlate; i++)
	{
		const NxmBlock *named = &s->late[i];

		if (!nxm_predictor_id(p, named->database, named->relation, true, &blocks[n]))
		{
			s->counts[NXM_PREDICTOR_COUNTER_refused]++;
			continue;
		}
		blocks[n] |= named->number;
		nxm_predictor_fetch(p, before, blocks[n]);
		before = blocks[n++];
	}
	s->nlate = 0;
	for (uint32_t i = 0; i < n; i++)
		learn(p, s, blocks[i]);
}

bool
nxm_predictor_record(NxmPredictor *p, NxmPredictorSession *s, NxmBlock named)
{
	s->late[s->nlate++] = named;
	if (learns_late(s) && s->nlate < NXM_PREDICTOR_LATE)
		return false;
	learn_late(p, s);
	return true;
}

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
stream_candidates(NxmPredictor *p, uint64_t stream, uint32_t agreement, uint32_t depth,
				  Candidate *out)
{
	uint64_t	least = SCORE_MOST;
	int			n = 0;

	for (uint32_t d = 1; d <= depth && least > SCORE_DISABLED; d++)
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

/*
 * Is the next block a candidate worth two cache misses to this session?  Where next
 * blocks do not come it looks now and then whether that has changed.
 */
static bool
looks_at_next(const NxmPredictorSession *s)
{
	return s->futile < FUTILE || s->clock % FUTILE_STEP == 0;
}

static int
next_candidate(NxmPredictor *p, const NxmPredictorSession *s, uint64_t block, Candidate *out)
{
	uint64_t	next = block + 1;
	uint32_t	states;
	uint32_t	own;
	uint32_t	ups;
	bool		run = false;

	if ((uint32_t) next == 0)
		return 0;
	for (uint32_t i = 1; s != NULL && i < NXM_PREDICTOR_HISTORY; i++)
		run = run || past(s, i) == block - 1;
	if (s != NULL && !run && !looks_at_next(s))
		return 0;
	states = nxm_predictor_region(p, block);
	own = states >> (block % REGION) * 2 & 3;
	/* states of 2 and 3 have the upper bit */
	ups = (uint32_t) __builtin_popcount(states & 0xaaaaaaaa);
	*out = (Candidate) {next, block, FIRST_NEXT + own * 16 +
		(ups > 8 ? 3 : ups > 3 ? 2 : ups > 0 ? 1 : 0) * 4 + run * 2 +
		(nxm_predictor_find_1(p, next) != 0), 0};
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
	int			kept = 0;
	int			given = 0;

	if (block == 0 || s->nlate > 0)
		return 0;
	if (s->stream != 0)
		n += stream_candidates(p, s->stream, s->streak, learns_late(s) ? SKIP : DEPTH,
							   candidates);
	n += next_candidate(p, s, block, candidates + n);
	n += stride_candidates(s, block, candidates + n);
	/* most of them have been issued, one after the other, as the session came nearer */
	for (int i = 0; i < n; i++)
	{
		const NxmPending *pending = pending_find(s, candidates[i].block);

		if (pending == NULL || pending->serial == 0)
			candidates[kept++] = candidates[i];
	}
	n = kept;
	rate(p, s, candidates, n);
	for (int i = 0; i < n; i++)
	{
		const Candidate *c = &candidates[i];
		NxmPending *pending = pending_find(s, c->block);
		bool		likely = c->confidence >= s->confidence;
		bool		issue = likely && given < max;

		if (pending != NULL && (pending->serial != 0 || !issue))
			continue;
		if (issue && !nxm_predictor_named(p, c->block, &predictions[given].block))
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

	if (!nxm_predictor_id(p, named->database, named->relation, false, &block))
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

	if (!nxm_predictor_id(p, named.database, named.relation, false, &block))
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

	if (!nxm_predictor_id(p, named.database, named.relation, false, &block))
		return 0;
	block |= named.number;
	stream = nxm_predictor_find_1(p, block);
	if (stream != 0)
		n += stream_candidates(p, stream, 1, DEPTH, candidates);
	n += next_candidate(p, NULL, block, candidates + n);
	rate(p, NULL, candidates, n);
	for (int i = 0; i < n && given < max; i++)
	{
		bool		twice = false;

		for (int j = 0; j < i; j++)
			twice = twice || candidates[j].block == candidates[i].block;
		if (twice || !nxm_predictor_named(p, candidates[i].block, &predictions[given].block))
			continue;
		predictions[given].confidence = candidates[i].confidence;
		predictions[given++].serial = 0;
	}
	return given;
}

void
nxm_predictor_begin(NxmPredictorSession *s)
{
	memset(s, 0, sizeof(*s));
	s->confidence = NXM_PREDICTOR_CONFIDENCE;
	s->cut = true;
}

void
nxm_predictor_end(NxmPredictor *p, NxmPredictorSession *s)
{
	learn_late(p, s);
	for (int i = 0; i < NXM_PREDICTOR_PENDING; i++)
		if (s->pending[i].awaited)
			settle(p, s, &s->pending[i], false);
	if (s->jumped)
		write_last(p, s, SCORE_NEW, false);
	tell(p, s);
	nxm_predictor_begin(s);
}

