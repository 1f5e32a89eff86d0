/*
 * predictor.h
 *	  Learns from the blocks that sessions miss, and predicts the next ones.
 *
 * What is recorded is the sequence of blocks that a session had to read, whatever
 * their relations.  A sequence that comes again, even once, is recognized by its
 * last blocks and read on; runs, next blocks and strides are candidates of the same
 * kind.  Each candidate comes from an association, and an association has a score:
 * what came of its predictions.  One scorer turns score and context, which is how
 * well this session was predicted of late, into a confidence.  predictor.c has the
 * algorithm, predictor_internal.h the layout and the protocol.
 *
 * Memory.  The predictor is one flat area, given by the caller, mapped wherever a
 * process likes; it never grows, and forgets what is oldest.  A session is a struct
 * of the caller's own, private to one process, with nothing in it to free.
 *
 * Concurrency.  Everything but nxm_predictor_init() may be called by any number of
 * processes at once.  There is no lock, no wait, no section to enter, no allocation,
 * and a process may die anywhere: every association is one word, changed at once.  Of two processes that write the same word at the same
 * time one may be lost; none is ever half of each.
 *
 * What it never knows.  A predicted block may lie past the end of its relation, or
 * in one that was dropped, and is not locked.  The caller looks before it reads.
 *
 * A session goes like this, at each block that it had to read, or that had been
 * prefetched for it (nxm_predictor_awaits()):
 *
 *		if (nxm_predictor_record(predictor, &session, block))
 *			n = nxm_predictor_predict(predictor, &session, LENGTH(found), found);
 *		for each of found: prefetch it, or nxm_predictor_decline() it
 */
#ifndef NXM_PREDICTOR_H
#define NXM_PREDICTOR_H

#include "core_atomic.h"

/* A block of a relation's main fork. */
typedef struct NxmBlock
{
	uint32_t	database;
	uint32_t	relation;		/* by whatever number the caller knows relations */
	uint32_t	number;
} NxmBlock;

typedef struct NxmPrediction
{
	NxmBlock	block;
	float		confidence;		/* 0 to 1: how likely it is to be missed soon */
	uint32_t	serial;			/* which of the session's predictions it is */
} NxmPrediction;

typedef struct NxmPredictor NxmPredictor;

/* No area is smaller, or larger. */
#define NXM_PREDICTOR_MIN_SIZE	((size_t) 64 * 1024)
#define NXM_PREDICTOR_MAX_SIZE	((size_t) 1 << 34)

/* Below this confidence nothing is predicted, unless the caller sets another. */
#define NXM_PREDICTOR_CONFIDENCE 0.5f

/* Of a session: blocks remembered, candidates awaited, relations whose strides it knows. */
#define NXM_PREDICTOR_HISTORY	8
#define NXM_PREDICTOR_PENDING	256
#define NXM_PREDICTOR_STRIDES	4
/*
 * Blocks that a session learns together while nothing it has missed comes again.  Odd, so
 * that with misses of two kinds in turns the last of them is of either.
 */
#define NXM_PREDICTOR_LATE		15
/* Contexts in which precision is measured. */
#define NXM_PREDICTOR_CONTEXTS	280

/*
 * What is counted: name, and what it means.  One row makes the constant, the field
 * and the name.
 */
#define NXM_PREDICTOR_COUNTERS(X) \
	X(recorded, "blocks recorded") \
	X(issued, "predictions given out and not declined") \
	X(used, "of them, recorded soon after") \
	X(wasted, "of them, not recorded soon after") \
	X(quiet, "candidates that were not likely enough") \
	X(refused, "blocks not recorded for want of a place for their relation")

enum
{
#define X(name, text) NXM_PREDICTOR_COUNTER_##name,
	NXM_PREDICTOR_COUNTERS(X)
#undef X
	NXM_PREDICTOR_NCOUNTERS
};

/* A candidate whose outcome is awaited, issued or only thought. */
typedef struct NxmPending
{
	uint64_t	block;			/* as the predictor packs it */
	uint64_t	where;			/* the association */
	uint32_t	at;				/* when, by the session's clock */
	uint32_t	serial;			/* of the prediction; 0: only thought */
	uint32_t	context;
	bool		awaited;		/* this is one */
} NxmPending;

/* The last step in a relation, and how often in a row it was the same. */
typedef struct NxmStride
{
	uint32_t	id;				/* of the relation, as the predictor packs it */
	uint32_t	last;			/* block */
	int32_t		step;
	uint32_t	streak;
	uint32_t	at;				/* when, by the session's clock */
} NxmStride;

/* What one session has done of late.  For predictor.c alone, but `confidence`. */
typedef struct NxmPredictorSession
{
	float		confidence;		/* the least of a prediction; the caller may set it */
	uint32_t	clock;			/* blocks recorded */
	uint32_t	serial;			/* last given out */
	uint32_t	unconfirmed;	/* blocks since one came as anything foretold */
	uint32_t	futile;			/* next blocks watched in a row that did not come */
	uint32_t	nlate;			/* recorded, and not learned from yet */
	NxmBlock	late[NXM_PREDICTOR_LATE];
	uint64_t	history[NXM_PREDICTOR_HISTORY]; /* number i is at i % length */
	uint64_t	write;			/* position of its next entry in the log; 0: no chunk */
	bool		cut;			/* what it wrote last leads to nothing written later */
	bool		jumped;			/* found the stream, has not followed it yet */
	uint32_t	unwritten;		/* of the last blocks of the history */
	uint64_t	stream;			/* position in the log; 0: none */
	uint32_t	streak;			/* blocks in a row that were the stream's */
	uint32_t	strayed;		/* blocks since that were not */
	NxmStride	strides[NXM_PREDICTOR_STRIDES];
	uint32_t	stride;			/* the one of the last block */
	uint16_t	used[NXM_PREDICTOR_CONTEXTS];	/* of late, by context */
	uint16_t	total[NXM_PREDICTOR_CONTEXTS];
	uint16_t	fresh_used[NXM_PREDICTOR_CONTEXTS]; /* not told to the others yet */
	uint16_t	fresh_total[NXM_PREDICTOR_CONTEXTS];
	uint64_t	counts[NXM_PREDICTOR_NCOUNTERS];	/* likewise */
	NxmPending	pending[NXM_PREDICTOR_PENDING];
} NxmPredictorSession;

typedef struct NxmPredictorStats
{
#define X(name, text) uint64_t name;
	NXM_PREDICTOR_COUNTERS(X)
#undef X
	uint64_t	relations;		/* known now */
	uint64_t	associations;	/* kept now, about */
	uint64_t	disabled;		/* of them, by their own score, about */
	uint64_t	capacity;		/* associations that there is room for */
} NxmPredictorStats;

typedef enum NxmPredictorLoad
{
	NXM_PREDICTOR_LOADED,
	NXM_PREDICTOR_OTHER_FORMAT, /* written by another version, or something else */
	NXM_PREDICTOR_CORRUPT		/* cut off, or changed since */
} NxmPredictorLoad;

/*
 * How many bytes of a budget a predictor uses: at most the budget, 0 when that is
 * below NXM_PREDICTOR_MIN_SIZE.
 */
extern size_t nxm_predictor_size(size_t budget);

/*
 * Makes an empty predictor of size bytes, as nxm_predictor_size() gave them, at an
 * area aligned to a cache line.  Nobody else uses it yet.
 */
extern NxmPredictor *nxm_predictor_init(void *area, size_t size);

/* Begins a session: sets all of the struct. */
extern void nxm_predictor_begin(NxmPredictorSession *session);

/*
 * Ends it: predictions that did not come true are wasted, and what it alone had counted
 * is told to the others.  The struct is then as nxm_predictor_begin() makes it.
 */
extern void nxm_predictor_end(NxmPredictor *predictor, NxmPredictorSession *session);

/*
 * The session had to read this block, or would have without a prediction: learns
 * from it, and settles what was predicted.  False: the session, to which nothing has
 * come again for long, keeps the block to itself until it has NXM_PREDICTOR_LATE of
 * them, or ends; there is nothing to predict.
 */
extern bool nxm_predictor_record(NxmPredictor *predictor, NxmPredictorSession *session,
								 NxmBlock block);

/*
 * Predicts up to max blocks that the session will miss soon, best first, each at
 * least as likely as session->confidence and none that is awaited already.  Gives
 * their number.  Each counts as issued.  With max 0 it only watches what it would have
 * said.
 */
extern int	nxm_predictor_predict(NxmPredictor *predictor, NxmPredictorSession *session,
								  int max, NxmPrediction *predictions);

/*
 * A prediction was not acted upon: the block is cached, cannot be locked, is past the
 * end.  It counts neither as issued nor as used or wasted.
 */
extern void nxm_predictor_decline(NxmPredictor *predictor, NxmPredictorSession *session,
								  const NxmPrediction *prediction);

/*
 * Has the block been predicted to this session, and not been recorded since?  For
 * callers whose prefetching makes it a hit, which they would not record else.
 */
extern bool nxm_predictor_awaits(NxmPredictor *predictor,
								 const NxmPredictorSession *session, NxmBlock block);

/*
 * What is known to follow a block, without a session's context: up to max, best
 * first, whatever their confidence.  Counts nothing.
 */
extern int	nxm_predictor_lookup(NxmPredictor *predictor, NxmBlock block,
								 int max, NxmPrediction *predictions);

/*
 * A relation (0: all of a database's) is gone.  Nothing of it is predicted any more;
 * what is in memory of it is overwritten by and by.
 */
extern void nxm_predictor_forget(NxmPredictor *predictor, uint32_t database,
								 uint32_t relation);

/*
 * The relations that are known, for comparing them with what there is: the first one
 * at or after *cursor, which begins at 0 and is moved on.  False: no more.
 */
extern bool nxm_predictor_next_relation(NxmPredictor *predictor, uint32_t *cursor,
										uint32_t *database, uint32_t *relation);

/* Forgets everything. */
extern void nxm_predictor_reset(NxmPredictor *predictor);

extern void nxm_predictor_stats(NxmPredictor *predictor, NxmPredictorStats *stats);

/*
 * What saving and loading call now and then, outside of any protocol, or NULL: so that
 * a process can answer others meanwhile.  If it does not return, a part was loaded.
 */
typedef void (*NxmPredictorPause) (void);

/*
 * Saves what is known to size bytes, aligned to 8, and gives how many were used, at most
 * nxm_predictor_save_size().  Where size is less, the oldest is left out.  Others may
 * go on meanwhile.
 */
extern size_t nxm_predictor_save(NxmPredictor *predictor, void *bytes, size_t size,
								 NxmPredictorPause pause);
extern size_t nxm_predictor_save_size(const NxmPredictor *predictor);

/*
 * Adds what was saved, perhaps by a predictor of another size.  Any bytes (aligned to 8) may be
 * given; unless it says NXM_PREDICTOR_LOADED nothing was added.  Others may go on.
 */
extern NxmPredictorLoad nxm_predictor_load(NxmPredictor *predictor, const void *bytes,
										   size_t size, NxmPredictorPause pause);

#endif							/* NXM_PREDICTOR_H */
