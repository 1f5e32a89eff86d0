/*
 * predictor_table.c
 *	  Relations, scores, index and regions of the predictor.  predictor_internal.h has
 *	  the design.
 */
#include "predictor_internal.h"

/* A record may come so long after the stamp and leave it. */
#define STAMP_AGE(p)	((p)->log_size / 8)

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

bool
nxm_predictor_id(NxmPredictor *p, uint32_t database, uint32_t relation, bool enter,
				 uint64_t *id)
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
				/* head may be from before the stamp */
				if ((int64_t) (head - nxm_load_relaxed(&r->stamp)) > (int64_t) STAMP_AGE(p))
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

			if (seen > GONE &&
				(int64_t) (head - nxm_load_relaxed(&r->stamp)) > (int64_t) (p->log_size + STAMP_AGE(p)) &&
				retire(r, seen))
				break;
		}
	}
	return false;
}

bool
nxm_predictor_named(NxmPredictor *p, uint64_t block, NxmBlock *named)
{
	uint64_t	slot = (block >> 32) & (MAX_RELATIONS - 1);
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

/* The word at a position at which nothing was written yet. */
static uint64_t
nothing_at(const NxmPredictor *p, uint64_t position)
{
	return position / p->log_size;
}

uint64_t
nxm_predictor_take(NxmPredictor *p, uint64_t n, NxmPredictorPause pause)
{
	uint64_t	base = nxm_fetch_add_relaxed(&p->head, n * CHUNK);

	for (uint64_t at = base; at < base + n * CHUNK; at++)
	{
		NxmAtomic  *word = log_of(p) + at % p->log_size;
		uint64_t	old;

		pause_at(pause, at - base);
		/* acquire as in log_read() */
		old = nxm_load(word);

		/* again where somebody came first who was stopped turns ago */
		while (nxm_load_relaxed(&p->head) - at <= p->log_size)
			if (nxm_cas(word, &old, nothing_at(p, at)))
				break;
	}
	return base;
}

void
nxm_predictor_write(NxmPredictor *p, uint64_t position, uint64_t w)
{
	uint64_t	nothing = nothing_at(p, position);

	/*
	 * Who took the chunk since may have written again what nxm_predictor_take() found and
	 * cleared.  It read that word of theirs, and so the head that they moved is seen here.
	 */
	if (nxm_load_relaxed(&p->head) - position > p->log_size)
		return;
	(void) nxm_cas(log_of(p) + position % p->log_size, &nothing, w);
}

void
nxm_predictor_score(NxmPredictor *p, uint64_t position, uint64_t block, bool used)
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

void
nxm_predictor_fetch(NxmPredictor *p, uint64_t before, uint64_t block)
{
	__builtin_prefetch((const void *) index_set(p, hash_1(block)), 1);
	__builtin_prefetch((const void *) index_set(p, hash_2(before, block)), 1);
}

uint64_t
nxm_predictor_find_1(NxmPredictor *p, uint64_t block)
{
	return index_find(p, hash_1(block), block);
}

uint64_t
nxm_predictor_find_2(NxmPredictor *p, uint64_t before, uint64_t block)
{
	return index_find(p, hash_2(before, block), block);
}

void
nxm_predictor_index(NxmPredictor *p, uint64_t before, uint64_t block, uint64_t position,
					bool always)
{
	uint64_t	hashes[2] = {hash_1(block), hash_2(before, block)};

	for (int i = 0; i < (before != 0 ? 2 : 1); i++)
	{
		uint64_t	now = always ? 0 : index_find(p, hashes[i], block);

		if (now == 0 || score_of(log_next(p, &now)) <= SCORE_NEW)
			index_put(p, hashes[i], position);
	}
}

/* By the relation's name: that of what was saved is the same. */
static uint64_t
region_hash(NxmPredictor *p, uint64_t block)
{
	Relation   *relation = relations_of(p) + ((block >> 32) & (MAX_RELATIONS - 1));

	return mix(mix(nxm_load_relaxed(&relation->name)) ^ (uint32_t) block / REGION);
}

static NxmAtomic *
region_find(NxmPredictor *p, uint64_t block, uint64_t *word)
{
	uint64_t	hash = region_hash(p, block);
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

uint32_t
nxm_predictor_region(NxmPredictor *p, uint64_t block)
{
	uint64_t	w;

	(void) region_find(p, block, &w);
	return (uint32_t) w;
}

void
nxm_predictor_region_score(NxmPredictor *p, uint64_t block, bool used, uint32_t clock)
{
	uint64_t	hash = region_hash(p, block);
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

/* Sets log_size and what follows from it; gives the bytes. */
static size_t
lay_out(NxmPredictor *p, uint64_t log_size)
{
	p->log_size = log_size;
	p->nindex = log_size * 2 / WAYS;
	p->nregions = (log_size / 4 + WAYS - 1) / WAYS;
	p->nrelations = log_size / 64;
	if (p->nrelations < NXM_PREDICTOR_RELATIONS)
		p->nrelations = NXM_PREDICTOR_RELATIONS;
	if (p->nrelations > MAX_RELATIONS)
		p->nrelations = MAX_RELATIONS;
	p->size = sizeof(NxmPredictor) +
		(p->nindex * WAYS + p->nregions * WAYS + log_size) * sizeof(NxmAtomic) +
		p->nrelations * sizeof(Relation);
	return p->size;
}

/* The largest that there is room for.  It is the same one again in its own size. */
static size_t
fit(NxmPredictor *p, size_t size)
{
	uint64_t	chunks = size / (sizeof(NxmAtomic) * CHUNK);

	while (lay_out(p, chunks * CHUNK) > size)
		chunks -= (p->size - size) / (4 * sizeof(NxmAtomic) * CHUNK) + 1;
	return p->size;
}

size_t
nxm_predictor_size(size_t budget)
{
	NxmPredictor p;

	if (budget < NXM_PREDICTOR_MIN_SIZE)
		return 0;
	return fit(&p, budget > NXM_PREDICTOR_MAX_SIZE ? NXM_PREDICTOR_MAX_SIZE : budget);
}

/* Sets what is counted and found to 0: by nxm_init, or while others use it. */
#define CLEAR(p, set) \
	do { \
		uint64_t	nwords = ((p)->nindex + (p)->nregions) * WAYS; \
		for (int c = 0; c < NXM_PREDICTOR_NCOUNTERS; c++) \
			set(&(p)->counts[c], 0); \
		for (int c = 0; c < NXM_PREDICTOR_CONTEXTS; c++) \
			set(&(p)->contexts[c], 0); \
		for (uint64_t w = 0; w < nwords; w++) \
			set(&(p)->words[w], 0); \
	} while (0)

NxmPredictor *
nxm_predictor_init(void *area, size_t size)
{
	NxmPredictor *p = area;

	(void) fit(p, size);
	/* so that position 0 is none */
	nxm_init(&p->head, p->log_size);
	nxm_init(&p->reset_at, 0);
	CLEAR(p, nxm_init);
	for (uint64_t i = 0; i < p->log_size; i++)
		nxm_init(log_of(p) + i, 0);
	for (uint64_t r = 0; r < p->nrelations; r++)
	{
		nxm_init(&relations_of(p)[r].name, 0);
		nxm_init(&relations_of(p)[r].generation, 0);
		nxm_init(&relations_of(p)[r].stamp, 0);
	}
	return p;
}

void
nxm_predictor_forget(NxmPredictor *p, uint32_t database, uint32_t relation)
{
	uint64_t	name = (uint64_t) database << 32 | relation;

	/* all slots: two processes may have entered it in two */
	for (uint64_t r = 0; r < p->nrelations; r++)
	{
		uint64_t	seen = nxm_load(&relations_of(p)[r].name);

		if (seen > GONE && (relation != 0 ? seen == name : seen >> 32 == database))
			(void) retire(&relations_of(p)[r], seen);
	}
}

bool
nxm_predictor_next_relation(NxmPredictor *p, uint32_t *cursor, uint32_t *database,
							uint32_t *relation)
{
	while (*cursor < p->nrelations)
	{
		uint64_t	name = nxm_load(&relations_of(p)[(*cursor)++].name);

		if (name > GONE)
		{
			*database = (uint32_t) (name >> 32);
			*relation = (uint32_t) name;
			return true;
		}
	}
	return false;
}

void
nxm_predictor_reset(NxmPredictor *p)
{
	/* first: entries from before are dropped, whatever their relations' slots hold then */
	nxm_store(&p->reset_at, nxm_load_relaxed(&p->head));
	for (uint64_t r = 0; r < p->nrelations; r++)
	{
		uint64_t	name = nxm_load(&relations_of(p)[r].name);

		if (name > GONE)
			(void) retire(&relations_of(p)[r], name);
		else if (name == GONE)
			(void) nxm_cas(&relations_of(p)[r].name, &name, 0);
	}
	CLEAR(p, nxm_store_relaxed);
}

/* Entries looked at, evenly spread: enough for some per cent. */
#define SAMPLE 4096

void
nxm_predictor_stats(NxmPredictor *p, NxmPredictorStats *stats)
{
	uint64_t	head = nxm_load_relaxed(&p->head);
	uint64_t	n = p->log_size < SAMPLE ? p->log_size : SAMPLE;
	uint32_t	cursor = 0;
	uint32_t	ignored;

	memset(stats, 0, sizeof(*stats));
#define X(name, text) \
	stats->name = nxm_load_relaxed(&p->counts[NXM_PREDICTOR_COUNTER_##name]);
	NXM_PREDICTOR_COUNTERS(X)
#undef X
	while (nxm_predictor_next_relation(p, &cursor, &ignored, &ignored))
		stats->relations++;
	for (uint64_t i = 0; i < n; i++)
	{
		uint64_t	w = log_read(p, head - p->log_size + i * p->log_size / n);

		if (w == 0 || (w & LINK) != 0)
			continue;
		stats->associations++;
		stats->disabled += score_of(w) <= SCORE_DISABLED;
	}
	stats->associations = stats->associations * p->log_size / n;
	stats->disabled = stats->disabled * p->log_size / n;
	stats->capacity = p->log_size / CHUNK * (CHUNK - 1);
}
