/*
 * cache.h
 *	  A cache for any number of processes: bounded memory, deadlines, eviction.
 *
 * Shape.  A cache has one to NXM_SPACE_NODES partitions, each on a node with all
 * that it has; a key's home is given by the low half of its hash.  A partition is
 * an index, segments of items, two chains that order the segments, and two ghosts.
 *
 *	index		the map's (map.h), with dense growth: a slot holds tag, frequency and
 *				reference
 *	segment		a raw page of the space, filled with items from its beginning
 *	chain		the segments of a kind, small or main, in order of their age
 *	ghosts		fingerprints of the keys evicted from small segments, and from main
 *
 * An item is immutable.  It begins at a multiple of 8 bytes:
 *
 *	 header  deadline    key           value
 *	+-------+----------+-------------+---------------------------------+
 *	| 4     | 0, 1, 4  | 1 to 1024   | rest of NXM_CACHE_INLINE        |
 *	+-------+----------+-------------+---------------------------------+
 *
 * A value with which it would be more than NXM_CACHE_INLINE is an item of its own
 * (item.h), without a key: the one in the segment has its reference and its length.
 * The deadline is what lacks to that of the segment, `due`, which none of its items
 * outlives: exact for seconds, else sooner by up to a four-millionth of the time to
 * live, or a millionth where windows are widest.  Most of it is in the header where
 * key and value are short.
 *
 * Linearization.  All is as in the map, whose slots these are: reading is at the
 * load of the slot word that confirms it after the item was protected, replacing
 * and deleting at the CAS of the slot, inserting at the CAS of the bucket's
 * header.  Eviction and expiry are deletions that nobody asked for.  An item
 * whose deadline has passed is absent to every operation.
 *
 * Segments.  The state is one word beside the page's descriptor, changed by CAS:
 *
 *	NONE		not a segment of any cache
 *	OPEN		writers reserve room in it, by CAS of the same word
 *	SEALED		no more room is given out
 *	EVICTING	one process changes slots that name it; then it goes back to
 *				SEALED, after a few items, for anybody to go on
 *	DRAINED		no slot names it
 *
 * A writer reserves, writes the item, publishes it in the index, and then adds
 * its size to `committed`.  Invariants:
 *
 *	1. A slot names an item only if the item's room is reserved, and written.
 *	2. A segment is evicted only when sealed, with committed = used.  So no slot
 *	   begins to name an item of it any more.
 *	3. It is DRAINED only when all of it is dead, so that by 5 no slot of whatever
 *	   body of the index names it; or after each of its items was looked for in the
 *	   index and the slot changed that named it, while no body that a clear has cut
 *	   off is yet to be drained.
 *	4. It is given back only after 3, a fence, and a look at all hazards of which
 *	   none was in the page.  A reader that publishes its hazard later looks at the
 *	   slot again, and does not find the item there.
 *	5. Who takes an item out of its slot has it protected, or has claimed its segment,
 *	   until it has added its size to `dead`.  So by 4 what is live of a segment is
 *	   used - dead, less its head.
 *	6. The word has a serial that each life of the segment raises, so that who was
 *	   held up changes nothing of another life.
 *	7. The room of a dead item is written again only when no hazard names it, and
 *	   with its size taken off `committed` and `dead` before it is seen that nobody
 *	   has claimed the segment; who claims it looks at `committed` after that.
 *
 * A stopped writer or evictor holds back one segment, a stopped reader likewise;
 * others pass it by.  Drained segments that hazards hold back are noted by their names,
 * so that they are found when the hazard is gone; those for which there was no place, by
 * going through the chains.
 *
 * Overwriting.  The item of a key that is there already is written to the room of
 * one that was overwritten a moment ago, of about the same size and the same kind and
 * deadlines, and else to the end of the log (cache_recycle.c).  So no copies are made
 * for values that keep their sizes.  With values of 50 to 150 bytes, drawn anew for
 * each write, 0.8 items are copied for each as long as an eighth of the segments may
 * be dead, and 2.6 for a twentieth, which is what housekeeping sees to; it is
 * housekeeping that copies them.  (Always at the end of the log: 2.9 for an eighth.)
 *
 * Order of victims: what is expired; what is dead for the most part, whose living
 * items are copied; the oldest small segment while small ones have more than their
 * share, else the oldest main one (S3-FIFO, SOSP 2023, by segments).  From small,
 * items read twice go to main, others to small's ghost; in main, items of whose reads
 * there one is left are copied once more, which takes that one off, and others go to main's
 * ghost.  Of items longer than 1.5 average ones it takes one read more, of those longer than 3
 * three, and in small of those shorter than half of one only one.  New items go to small, but
 * for three kinds: as long as nothing was evicted they fill main up to its share; a
 * key in main's ghost goes to main if there is room in its share; and so does a key in
 * small's ghost, or else if main's oldest segment is older than the key's absence, and
 * then that segment is the next victim.  The share of small is a tenth at first, and
 * grows with each key that comes back just after small has lost it, and shrinks with
 * each that main has.
 *
 * A set that finds memory short evicts a few items of the victim, so that many
 * sets share the work.  Copies use the last few pages below the limits, which
 * sets leave alone; where these are gone too, items are dropped.  And where memory
 * is short, a chain of the index that is full loses the entry that was read least, and
 * of several such the one next to be evicted, unless its whole segment is full, or the
 * index takes little beside the items.
 *
 * What a partition has, index, ghosts and counts included, is counted in `used`, which
 * max_bytes bounds: before it is allocated, by CAS, so that no number of writers passes
 * the limit, and until it is retired.  The index grows with the entries.  When
 * a limit was lowered, or entries have become few and long, it may be in the way: it
 * takes more than a third of what the partition may use, and less than half of it
 * would do for the entries that fit beside it.  Then it is cut off as by a clear, and
 * its entries are drained as evictions.  So a limit holds that is lowered below what
 * the index takes.  (They are not kept: those of one segment of items are spread over
 * all of the index, so that keeping some would take a merge of two indexes under
 * writers, for a cache that loses most of them anyway.)
 *
 * Space of an item of 7 + 100 bytes, 1,000,000 of them in an empty cache: 4 of its
 * header, 1 of rounding, 11.0 of the index, 2.1 of the ghosts, 0.6 of page
 * descriptors, 0.3 of what is not full yet: 19.0 bytes, and as many after all of them
 * have been written over.  With deadlines it is 19.2.  In a cache that evicts as many
 * take 20.0 each: 99 % of its segments lives, and its index has 10.6, being fuller.
 *
 * Deadlines.  Segments with deadlines hold items of like time to live and like
 * deadline: TTLs of 2^e to 2^(e+1) microseconds beyond 2^21, deadlines in one window
 * of 2^(e-3), at the end of which all have passed.  (Writers find a window's segment by a
 * hash of 15 bits, and pass by the one that another window with the same hash has open.)
 * So a whole segment expires at once, and an eighth of the TTL less 2^18 microseconds late at most, or half a
 * second: what lacks to an eighth of the TTL, or to a second, is for housekeeping,
 * which comes every NXM_CACHE_PERIOD and then takes its time.
 *
 * Each window has a segment open.  Times to live of all lengths have some ten windows for
 * each doubling, which in a small partition would be most of its segments, or more than it
 * has.  So one in eight segments may be open, and at most NXM_CACHE_WINDOWS.  A window that
 * is one too many takes the place of the fullest one.  Where that was less than half full,
 * windows are soon widened, by levels: on level n a window is that of a TTL 2^n to 2^2n
 * times as long, of one scale in n + 1; what is copied follows, if its deadline can still
 * be told within a four-millionth of what is left.  Housekeeping goes back a level every few minutes
 * if few windows are open.  What was sealed before it was half full is evicted before all
 * that is not expired or dead.  With TTLs drawn from a minute to an hour 8 MB have 84 % of the
 * entries that there would be without deadlines, on level 3, where each item would
 * else soon have a segment of its own; with TTLs to a month 80 %, on level 4.  (Partitions of
 * less than some 4 MB have half, those of a few segments fewer.)  Deadlines are
 * kept on all levels; what is expired keeps its memory the longer, or until that is needed.
 *
 * Time is microseconds of any clock that all processes share, above 0 and not above
 * NXM_CACHE_LAST_DEADLINE, some 9,000 years; deadline 0: none.  An operation looks at it
 * once: one that found an entry there may take effect a moment after the deadline.
 *
 * Limits.  Those of the index.  Of chains 9 bytes a segment are not counted.
 * A process that is stopped between two stores of a clear keeps others from
 * evicting in that partition.
 *
 * Every operation runs in a section that its caller entered, and may say
 * NXM_DROPPED, NXM_NEED_CHUNK, or NXM_NEED_MEMORY where the space has no pages
 * although the limits would allow for more: the caller grows it and repeats, or
 * sets view->cannot_grow and repeats.
 */
#ifndef NXM_CACHE_H
#define NXM_CACHE_H

#include "item.h"

/* The account of the space that all memory of caches is counted in. */
#define NXM_CACHE_ACCOUNT	1

/* How often, in microseconds, housekeeping is to look at a cache that has entries. */
#define NXM_CACHE_PERIOD	200000

/* No deadline may be later: the head of a segment has 58 bits of it. */
#define NXM_CACHE_LAST_DEADLINE ((INT64_C(1) << 58) - (INT64_C(1) << 52))

/* Most keys in one nxm_cache_get_many(). */
#define NXM_CACHE_BATCH		32

/*
 * What is counted of a partition: name, and what it means.  One row makes the
 * constant, the field and the name.
 */
#define NXM_CACHE_COUNTERS(X) \
	X(local_hits, "gets that found the key, by processes of the same node") \
	X(remote_hits, "gets that found the key, by processes of other nodes") \
	X(misses, "gets that did not") \
	X(sets, "values stored") \
	X(evictions, "entries taken out for others") \
	X(expirations, "entries taken out after their deadline") \
	X(refusals, "values not stored for want of room")

enum
{
#define X(name, text) NXM_CACHE_COUNTER_##name,
	NXM_CACHE_COUNTERS(X)
#undef X
	NXM_CACHE_NCOUNTERS
};

/*
 * A cache.  In the space, zeroed before nxm_cache_init(), freed by an epoch
 * after nxm_cache_drain() said that nothing is left of a dropped one.
 */
typedef struct NxmCache
{
	NxmAtomic	max_bytes;		/* most of `used`; 0: no limit */
	NxmAtomic	used;			/* bytes of all that it has: see above */
	uint64_t	npartitions;	/* immutable */
	uint64_t	unused[5];
	NxmAtomic	partition[NXM_SPACE_NODES]; /* references; 0 after it was dropped */
} NxmCache;

_Static_assert(offsetof(NxmCache, partition) == NXM_CACHE_LINE,
			   "who allocates writes to no line of the partitions'");

/* What a process brings to its operations.  Private memory. */
typedef struct NxmCacheView
{
	NxmSpace   *space;
	/* the hash of NxmKey, of these bytes */
	uint64_t	(*hash) (const char *key, size_t len);
	/* microseconds; only asked where there is a deadline */
	int64_t		(*now) (void *env);
	void	   *env;
	int			home;			/* number of the partition that is near; -1: none */
	bool		cannot_grow;	/* evict, where there are no pages below the limit */
	int			first_node;		/* of the space, for nxm_cache_init() */
	uint64_t	max_bytes;		/* like the cache's, for this process alone; 0: none */
	/*
	 * A word with the NxmRef of an NxmCache, 0 or the pointer NULL: none.  When
	 * the account is full, but not the cache that is written to by its own limit,
	 * and that other one is over twice as large, that one gives way.
	 */
	const NxmAtomic *largest;
} NxmCacheView;

typedef struct NxmCacheStats
{
#define X(name, text) uint64_t name;
	NXM_CACHE_COUNTERS(X)
#undef X
	uint64_t	entries;
	uint64_t	bytes;			/* of entries with their headers */
	uint64_t	used_bytes;		/* memory in use: its part of the cache's `used` */
	int			node;			/* of the space */
} NxmCacheStats;

/* cache.c */

/*
 * Makes an empty cache, partition i on node (first_node + i) % nnodes of the space.
 * NXM_OK, or NXM_NEED_* and nothing is made.
 */
extern NxmResult nxm_cache_init(NxmCacheView *view, NxmCache *cache,
								int npartitions, uint64_t max_bytes);

/* Frees what it made, before anybody else could see the cache. */
extern void nxm_cache_fini(NxmSpace *space, NxmCache *cache);

/* NXM_OK; NXM_ABSENT; NXM_NEED_BUFFER.  *deadline, unless NULL, is set on NXM_OK. */
extern NxmResult nxm_cache_get(NxmCacheView *view, NxmCache *cache,
							   const NxmKey *key, NxmBuffer *buffer,
							   int64_t *deadline);

/*
 * NXM_OK: a new key; NXM_EXISTS: replaced.  NXM_ABSENT: there was no room: the
 * key is absent now.  NXM_TOO_LONG.  A deadline that has passed deletes the key.
 */
extern NxmResult nxm_cache_set(NxmCacheView *view, NxmCache *cache,
							   const NxmKey *key, const NxmValue *value,
							   int64_t deadline);
/*
 * Only when absent.  NXM_OK; NXM_EXISTS: it is there; NXM_ABSENT: no room;
 * NXM_TOO_LONG.  With a deadline that has passed nothing is stored, and NXM_OK says
 * that the key is absent.
 */
extern NxmResult nxm_cache_add(NxmCacheView *view, NxmCache *cache,
							   const NxmKey *key, const NxmValue *value,
							   int64_t deadline);
/* NXM_OK or NXM_ABSENT. */
extern NxmResult nxm_cache_delete(NxmCacheView *view, NxmCache *cache,
								  const NxmKey *key);
/* The deadline of an entry, 0 if it has none.  NXM_OK or NXM_ABSENT. */
extern NxmResult nxm_cache_deadline(NxmCacheView *view, NxmCache *cache,
									const NxmKey *key, int64_t *deadline);
/*
 * Gives an entry another deadline, or none.  NXM_OK; NXM_ABSENT: there is none,
 * or no room, which removes it.
 */
extern NxmResult nxm_cache_expire(NxmCacheView *view, NxmCache *cache,
								  const NxmKey *key, int64_t deadline);

/* cache_batch.c */

/* Begins to load what sets or gets of these keys will read; no result. */
extern void nxm_cache_prefetch(NxmCacheView *view, NxmCache *cache,
							   const NxmKey *keys, int nkeys);

/* Of one key: NXM_OK with the place of its value in the buffer, or NXM_ABSENT. */
typedef struct NxmCacheAnswer
{
	NxmResult	result;
	NxmType		type;
	uint32_t	len;
	size_t		at;
} NxmCacheAnswer;

/*
 * Gets up to NXM_CACHE_BATCH keys, from *done on, which it moves; begin with 0.
 * Values are put one after another at buffer->data + buffer->len, which it moves
 * too.  NXM_OK: all are done.  NXM_NEED_BUFFER: the next value has answers[*done].len
 * bytes, or more by then, for which there is no room behind buffer->len: enlarge (or
 * empty) the buffer and repeat.  NXM_TOO_LONG: more than NXM_CACHE_BATCH keys.  Each
 * key is read at a time of its own.
 */
extern NxmResult nxm_cache_get_many(NxmCacheView *view, NxmCache *cache,
									const NxmKey *keys, int nkeys,
									NxmCacheAnswer *answers, int *done,
									NxmBuffer *buffer);

/* Iteration.  Private; begin with zeroes. */
typedef struct NxmCacheCursor
{
	uint64_t	partition;
	uint64_t	position;
} NxmCacheCursor;

/* One entry, as each() of a scan sees it. */
typedef struct NxmCacheEntry
{
	const char *key;
	uint32_t	key_len;
	uint32_t	len;			/* of the value */
	NxmType		type;
	int			frequency;		/* 0 to 3 */
	int64_t		deadline;		/* 0: none */
	/* for nxm_cache_entry_value() */
	const void *item;
	NxmAtomic  *slot;
	uint64_t	word;
} NxmCacheEntry;

/*
 * Calls each() for the entries of the bucket at the cursor, which it moves.
 * begin() is called before the first one, and again when the bucket is read anew:
 * what each() has collected of it is then void.  NXM_OK: go on; NXM_ABSENT: that
 * was the last one.  each() returns NXM_OK, or what the scan shall return at once
 * with the cursor unchanged.  Entries past their deadline are left out.
 */
extern NxmResult nxm_cache_scan(NxmCacheView *view, NxmCache *cache,
								NxmCacheCursor *cursor,
								void (*begin) (void *context),
								NxmResult (*each) (NxmCacheView *view,
												   const NxmCacheEntry *entry,
												   void *context),
								void *context);
/*
 * In each(), after which the key may not be read any more: copies the value.
 * NXM_OK, NXM_NEED_BUFFER, NXM_NEED_CHUNK; NXM_ABSENT: it has just been removed.
 */
extern NxmResult nxm_cache_entry_value(NxmCacheView *view,
									   const NxmCacheEntry *entry,
									   NxmBuffer *buffer);

/* cache_tick.c */

/*
 * Empties it, one partition after another, each at once to everybody; *removed
 * counts the entries.  NXM_OK: done; call nxm_cache_tick() until it says
 * NXM_ABSENT, or leave that to others.  The cursor tells how far it has come: begin
 * with zeroes, repeat with what it left.  NXM_EXISTS: another clear is not drained
 * yet: call nxm_cache_tick(), then repeat.
 */
extern NxmResult nxm_cache_clear(NxmCacheView *view, NxmCache *cache,
								 NxmCacheCursor *cursor, uint64_t *removed);

/*
 * Cuts all off for good; operations say NXM_DROPPED from now on.  NXM_OK, or
 * NXM_NEED_CHUNK, and it is to be called again.
 */
extern NxmResult nxm_cache_drop(NxmCacheView *view, NxmCache *cache);

/*
 * Frees a part of a dropped cache.  NXM_OK: call it again; NXM_ABSENT: nothing is
 * left; NXM_EXISTS: what is left is in use by some process: call it again later.
 */
extern NxmResult nxm_cache_drain(NxmCacheView *view, NxmCache *cache);

/*
 * Housekeeping, in steps of bounded length; for a worker, a few times a second,
 * for each cache: reclaims what has expired, keeps a few pages free below the
 * limits or gets back to lowered ones, compacts, drains what was cleared, replaces an
 * index that is in the way.
 * NXM_OK: there is more to do now; NXM_EXISTS: it has looked for something to do, and is
 * to go on; NXM_ABSENT: there is nothing.  As long as others fill the cache there is
 * always more, and where there is no memory for copies it may look for ever, so bound the
 * calls.
 */
extern NxmResult nxm_cache_tick(NxmCacheView *view, NxmCache *cache);

/* Has it no segments, and so no entries? */
extern bool nxm_cache_is_empty(NxmCacheView *view, NxmCache *cache);

/* cache_counts.c */

/*
 * Of a partition, 0 to npartitions - 1.  false: it is dropped, or not all of it is
 * mapped: then the space's need_chunk is set.
 */
extern bool nxm_cache_stats(NxmCacheView *view, NxmCache *cache, int partition,
							NxmCacheStats *stats);
/* Counters begin at 0 again; where need_chunk was set not all of them, yet. */
extern void nxm_cache_stats_reset(NxmCacheView *view, NxmCache *cache);

#endif							/* NXM_CACHE_H */
