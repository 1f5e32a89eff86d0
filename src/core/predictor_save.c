/*
 * predictor_save.c
 *	  What the predictor knows as bytes, and back.
 *
 *	Header | relations: name, generation | contexts | regions | log
 *
 * Words are as in memory, in the machine's byte order: the magic number is another one
 * elsewhere.  Those of the log are in the order of their positions, from the oldest
 * that is saved; a link's position is as in memory.
 *
 * Loading takes as many chunks of the log and records there what was saved, each
 * relation by its name; links are moved by the difference.  So it goes into a predictor
 * of any size, used or not; into a smaller one the newest part.  The index is made
 * anew.  Regions cannot be placed in a table of another size, and are left out there.
 *
 * Nothing is believed: the sum of all bytes comes first, then sizes, then each word.
 * Whatever the words are, what is made of them are entries of the log as any other.
 */
#include <stddef.h>

#include "predictor_internal.h"

#define MAGIC	UINT64_C(0x314d58444552504e)
/* Of the format, and of what contexts and words mean. */
#define VERSION 1

typedef struct Header
{
	uint64_t	magic;
	uint64_t	sum;			/* of all that follows */
	uint64_t	version;
	uint64_t	chunk;
	uint64_t	ncontexts;
	uint64_t	nrelations;
	uint64_t	nregions;		/* words */
	uint64_t	first;			/* position of the first entry saved */
	uint64_t	nentries;
} Header;

typedef struct SavedRelation
{
	uint64_t	name;			/* 0: none */
	uint64_t	generation;
} SavedRelation;

/* Words of the sum's input follow the field. */
#define SUMMED offsetof(Header, version)

static uint64_t
sum_of(const void *bytes, size_t size, NxmPredictorPause pause)
{
	uint64_t	sum = size;

	for (size_t at = SUMMED; at + sizeof(uint64_t) <= size; at += sizeof(uint64_t))
	{
		uint64_t	w;

		pause_at(pause, at);
		memcpy(&w, (const char *) bytes + at, sizeof(w));
		sum = mix(sum ^ w) + at;
	}
	return sum;
}

/* Of all before the log. */
static size_t
fixed_size(const NxmPredictor *p)
{
	return sizeof(Header) + p->nrelations * sizeof(SavedRelation) +
		(NXM_PREDICTOR_CONTEXTS + p->nregions * WAYS) * sizeof(uint64_t);
}

size_t
nxm_predictor_save_size(const NxmPredictor *p)
{
	return fixed_size(p) + p->log_size * sizeof(uint64_t);
}

size_t
nxm_predictor_save(NxmPredictor *p, void *bytes, size_t size, NxmPredictorPause pause)
{
	Header		header = {.magic = MAGIC,.version = VERSION,.chunk = CHUNK,
		.ncontexts = NXM_PREDICTOR_CONTEXTS,.nrelations = p->nrelations,
	.nregions = p->nregions * WAYS};
	SavedRelation *relations = (SavedRelation *) ((char *) bytes + sizeof(Header));
	uint64_t   *words = (uint64_t *) (relations + p->nrelations);
	uint64_t	head;

	if (size < fixed_size(p))
		return 0;
	/* relations first: an entry of a later generation is not believed */
	for (uint64_t r = 0; r < p->nrelations; r++)
	{
		Relation   *relation = &relations_of(p)[r];
		uint64_t	generation = nxm_load(&relation->generation);
		uint64_t	name = nxm_load(&relation->name);

		if (name <= GONE || nxm_load(&relation->generation) != generation)
			name = 0;
		relations[r] = (SavedRelation) {name, generation % GENERATIONS};
	}
	for (int c = 0; c < NXM_PREDICTOR_CONTEXTS; c++)
		*words++ = nxm_load_relaxed(&p->contexts[c]);
	for (uint64_t i = 0; i < header.nregions; i++)
	{
		pause_at(pause, i);
		*words++ = nxm_load_relaxed(regions_of(p) + i);
	}
	head = nxm_load_relaxed(&p->head);
	header.nentries = (size - fixed_size(p)) / sizeof(uint64_t) / CHUNK * CHUNK;
	if (header.nentries > p->log_size)
		header.nentries = p->log_size;
	header.first = head - header.nentries;
	for (uint64_t i = 0; i < header.nentries; i++)
	{
		pause_at(pause, i);
		*words++ = log_read(p, header.first + i);
	}
	size = (size_t) ((char *) words - (char *) bytes);
	memcpy(bytes, &header, sizeof(header));
	header.sum = sum_of(bytes, size, pause);
	memcpy(bytes, &header, sizeof(header));
	return size;
}

/* The entry's block as it is packed here; 0: it names nothing. */
static uint64_t
translate(NxmPredictor *p, const SavedRelation *relations, uint64_t nrelations, uint64_t w)
{
	uint64_t	slot = (w >> 32) & (MAX_RELATIONS - 1);
	uint64_t	block;

	if (w == 0 || (w & LINK) != 0 || score_of(w) < SCORE_LEAST || slot >= nrelations ||
		relations[slot].generation != (w & BLOCK_MASK) >> 48 ||
		!nxm_predictor_id(p, (uint32_t) (relations[slot].name >> 32),
						  (uint32_t) relations[slot].name, true, &block))
		return 0;
	return block | (uint32_t) w;
}

NxmPredictorLoad
nxm_predictor_load(NxmPredictor *p, const void *bytes, size_t size, NxmPredictorPause pause)
{
	Header		header;
	const SavedRelation *relations;
	const uint64_t *words;
	uint64_t	most = p->log_size - 4 * CHUNK;
	uint64_t	skipped = 0;
	uint64_t	base;
	uint64_t	before = 0;

	if (size < sizeof(Header) || size % sizeof(uint64_t) != 0)
		return NXM_PREDICTOR_CORRUPT;
	memcpy(&header, bytes, sizeof(header));
	if (header.magic != MAGIC)
		return NXM_PREDICTOR_OTHER_FORMAT;
	if (sum_of(bytes, size, pause) != header.sum)
		return NXM_PREDICTOR_CORRUPT;
	if (header.version != VERSION || header.chunk != CHUNK ||
		header.ncontexts != NXM_PREDICTOR_CONTEXTS)
		return NXM_PREDICTOR_OTHER_FORMAT;
	/* each below the size, so that their sum does not overflow */
	if (header.nrelations > MAX_RELATIONS || header.nregions > size || header.nentries > size ||
		header.nentries % CHUNK != 0 || header.first % CHUNK != 0 ||
		size != sizeof(Header) + header.nrelations * sizeof(SavedRelation) +
		(NXM_PREDICTOR_CONTEXTS + header.nregions + header.nentries) * sizeof(uint64_t))
		return NXM_PREDICTOR_CORRUPT;
	relations = (const SavedRelation *) ((const char *) bytes + sizeof(Header));
	words = (const uint64_t *) (relations + header.nrelations);

	for (int c = 0; c < NXM_PREDICTOR_CONTEXTS; c++, words++)
	{
		uint64_t	now = nxm_load_relaxed(&p->contexts[c]);

		/* what was measured since counts more than what was saved */
		if (now == 0 && *words >> 32 <= (uint32_t) *words && (uint32_t) *words <= 2 * SHARED_HALF)
			(void) nxm_cas(&p->contexts[c], &now, *words);
	}
	if (header.nregions == p->nregions * WAYS)
		for (uint64_t i = 0; i < header.nregions; i++)
		{
			uint64_t	now = 0;

			pause_at(pause, i);
			(void) nxm_cas(regions_of(p) + i, &now, words[i]);
		}
	words += header.nregions;

	if (header.nentries > most)
		skipped = header.nentries - most / CHUNK * CHUNK;
	base = nxm_predictor_take(p, (header.nentries - skipped) / CHUNK, pause) - skipped;
	for (uint64_t i = skipped; i < header.nentries; i++)
	{
		uint64_t	w = words[i];
		uint64_t	block;

		pause_at(pause, i);
		if ((w & LINK) != 0)
		{
			uint64_t	to = (w - header.first + 1) & POSITION_MASK;

			before = 0;
			/* what it leads to is not loaded */
			if ((w & POSITION_MASK) == 0 || to < skipped || to >= header.nentries)
				nxm_predictor_write(p, base + i, LINK | SCORE_ONE);
			else
				nxm_predictor_write(p, base + i, LINK | SCORE_ONE | ((base + to - 1) & POSITION_MASK));
			continue;
		}
		block = i % CHUNK == CHUNK - 1 ? 0 : translate(p, relations, header.nrelations, w);
		if (block == 0)
			nxm_predictor_write(p, base + i, LINK | SCORE_ONE);
		else
		{
			nxm_predictor_write(p, base + i, (w & SCORE_MASK) | block);
			nxm_predictor_index(p, before, block, base + i, true);
		}
		before = block;
	}
	return NXM_PREDICTOR_LOADED;
}
