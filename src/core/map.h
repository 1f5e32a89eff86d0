/*
 * map.h
 *	  A hash map for any number of processes, with keys and values of any length.
 *
 * Shape.  Extendible hashing (Fagin 1979): a directory of 2^depth references by
 * the first bits of the key's position leads to segments of up to 32 buckets,
 * the next bits to the bucket.  A bucket is four cache lines, of which the tag tells
 * the one to look into first:
 *
 *	| header | 31 slots |	and where these are full, from the segment's pool
 *	| 8 slots |				an overflow bucket of one line; or up to four.
 *
 *	slot	63   62 61       60 59            34 33             0
 *			+-------+---------+-----------------+---------------+
 *			| state |  freq   |       tag       |   reference   |	of an item
 *			+-------+---------+-----------------+---------------+
 *
 *	UNINIT		0: a migration has not been here
 *	OPEN		reference 0: EMPTY; else LIVE
 *	TENTATIVE	reserved by an insert that may or may not be committed
 *	FROZEN		reference 0 or not; never changes again
 *
 *	header	63  62 61         33 32                  9 8       3  2   1   0
 *			+-----+-------------+-----+-----+-----+----+---------+---+------+
 *			|  0  |   version   |       overflow       | pending | m |status|
 *			+-----+-------------+-----+-----+-----+----+---------+---+------+
 *
 *	status UNINIT, OPEN or FROZEN; m: migrated; pending and overflow: slot and
 *	overflow buckets, 6 bits each, + 1.
 *
 * Position.  y = (4x - x^2) / 3 of the hash x, as fractions: monotone, and twice
 * as dense at 1 as at 0.  Segments thereby fill, and are split, at times spread
 * evenly over each doubling of the map, where a uniform position would split
 * all at once: the space taken is the same at every size, and so is the time.
 * The tag is bits 5 to 30 of y, so that a split needs no look at the items
 * (below depth 5 it takes the item's hash).
 *
 * Linearization.
 *
 * - A key is found in a LIVE slot: at the load of the slot word that confirms
 *   it after its item was protected.
 * - It is found in none: at some time during the look each slot was seen without
 *   it, and items do not move between slots of a bucket, so it was absent at
 *   some moment.
 * - Replacing and deleting: the CAS of the slot.
 * - Inserting: a key must not get into two slots.  The insert reserves an EMPTY
 *   slot as TENTATIVE and commits by CAS of the header from the word that it
 *   read before it looked for the key, to the next version with the slot as
 *   pending.  Any other insert into the bucket changes the version.  Then the
 *   slot becomes LIVE and pending is cleared, by whoever comes first: everybody
 *   who meets a pending slot completes it.  (Versions: DLHT, HPDC 2024.)
 *   A LIVE slot becomes EMPTY only after the header was seen without it as pending,
 *   so while a slot is pending it is TENTATIVE with the committed item, or LIVE with
 *   that or what replaced it; and completing protects the item and reads the header
 *   again, so that the word it changes is of this commit and not of a later one.
 *   Replacing one LIVE word by another needs no look at the header.
 *
 * Growth.  When a chain is full, or the pool is used up, a segment gets
 * successors: one of twice the buckets, or, from 32 on, two of 32.  Each bucket
 * b migrates on its own: its header is frozen, then its slots (an uncommitted
 * reservation is struck out), which then hold the same for everybody; each
 * helper computes the same contents of the two buckets that follow, and fills
 * their slots by CAS from UNINIT.  A slot that is UNINIT no more was filled, and
 * may have been emptied since: UNINIT is not EMPTY, or deletes would be undone.
 * Both are full before either is opened.  A chain has at most 63 entries, and so at
 * most one successor of over 31, which takes the overflow bucket of the number that
 * the chain's first one has, and no other insert takes one before the whole segment
 * has migrated.
 *
 * An operation that meets a frozen bucket migrates it, no memory being needed,
 * and goes on: nobody waits for a resize.  Writers migrate eight more buckets.
 *
 * Dense growth.  The index of a cache splits a segment later: a chain takes up to four
 * overflow buckets, and the segment up to two extents, of 24 more of them each.  An
 * extent is published by CAS of a word in the segment, before any of its overflow
 * buckets is given out; an overflow bucket by the commit of the header that names it,
 * with its slots EMPTY.  A header names more of them as time goes by and never others,
 * so that a frozen one tells all helpers the same chain.  Segments begin without
 * extents: what a chain leaves to one successor must fit a bucket and the overflow
 * bucket above, or the bucket alone if the number of that is one of an extent.  An
 * insert sees to that: into a chain of several it counts the entries of its own side,
 * those that would have the same successor, which only the commit of another insert
 * could make more.  If they are as many as may be, the segment is split.  Retiring a
 * segment closes its words for extents first, so that none comes after.
 *
 * Housekeeping, which no operation needs: putting the successors into the
 * directory, doubling it, retiring what was replaced, is done by whoever gets
 * the try-lock `housekeeper`.  If it is held by a stopped process, operations
 * go by way of the old segments; clearing puts another directory in place of the
 * one that the process works on.
 *
 * Iteration goes by position, a bucket at a time.  A bucket that freezes under
 * it is copied anew from its successors; splits never change the order.  So an
 * entry that is present throughout is returned exactly once.
 *
 * Space.  Segments are split with 26 entries a bucket and have 18 on average: 15.8
 * bytes an entry, old segments included, measured from 100,000 to 2,000,000 (with
 * buckets of two lines it was 17.4, of eight 15.2, which are slower to search).
 * And 8 of its header, 4 of rounding, 1 of page descriptor.  With dense growth
 * segments have 15 overflow buckets up to 31 entries a bucket, 39 up to 37, and are
 * split with 43: 11.0 bytes an entry; 8 % of the entries are in overflow buckets.
 * Then a get takes 11 % more instructions, finding nothing 13 %, an insert 14 %,
 * which is why maps do without.  (A line more for all buckets at once: 11.4, and
 * 13 % of the entries beyond the first four.)
 *
 * Limits: 39 keys of one hash; the next one is refused (NXM_NEED_MEMORY, in want
 * of nothing).  A scan waits at a bucket as long as keys are added to it and deleted from it
 * faster than it can be copied.
 *
 * Every operation runs in a section that its caller entered.
 */
#ifndef NXM_MAP_H
#define NXM_MAP_H

#include "item.h"

#define NXM_MAP_STATS 8

/* How often a bucket is read anew that changes meanwhile; the checker makes it small. */
#ifndef NXM_SCAN_TRIES
#define NXM_SCAN_TRIES 64
#endif
/*
 * And after how many bytes no more in the same call: a bucket may have 39 values of 1 MB,
 * and as long as they are copied the epoch of all stands still.
 */
#ifndef NXM_SCAN_BYTES
#define NXM_SCAN_BYTES (256 * 1024)
#endif

typedef struct NxmMap
{
	NxmAtomic	directory;		/* serial 63..40, depth 39..34, reference */
	NxmAtomic	housekeeper;	/* process + 1; 0: nobody */
	NxmAtomic	dead;			/* a directory cut off by clear, being drained; 1: one
								 * is being cut off */
	NxmAtomic	drained;		/* hint: its serial, and so many of its last entries that
								 * are drained */
	NxmAtomic	mark;			/* of who cut that directory off */
	NxmAtomic	memory;			/* bytes of segments and directories */
	NxmAtomic	wanted;			/* hint: depth of a directory for which there was no
								 * memory, one more than what there is; else it is void */
	uint64_t	unused[1];
	struct
	{
		NxmAtomic	entries;
		NxmAtomic	bytes;		/* of items' memory */
		uint64_t	unused[6];
	}			stats[NXM_MAP_STATS];
} NxmMap;

_Static_assert(offsetof(NxmMap, stats) == NXM_CACHE_LINE &&
			   sizeof(((NxmMap *) 0)->stats[0]) == NXM_CACHE_LINE,
			   "who counts writes to no line that readers load");

/* What a decision says to do with the entry. */
typedef enum NxmAction
{
	NXM_KEEP,
	NXM_STORE,					/* value, inserted or replaced */
	NXM_REMOVE
} NxmAction;

/*
 * A write.  decide() is called in the section with the entry's item, protected,
 * or NULL where there is none, each time that the write is tried; the last call
 * counts.  It sets value for NXM_STORE, and result, which the write returns
 * when it is done.  A result NXM_NEED_CHUNK ends the write at once.
 */
typedef struct NxmWrite NxmWrite;
struct NxmWrite
{
	NxmAction	(*decide) (NxmSpace *space, NxmWrite *write,
						   const NxmItem *item);
	NxmValue	value;
	NxmResult	result;
	bool		value_varies;	/* decide() may give another value each time */
	void	   *context;
};

/*
 * Makes an empty map in zeroed memory.  NXM_OK; or NXM_NEED_MEMORY or NXM_NEED_CHUNK,
 * and nothing is made.
 */
extern NxmResult nxm_map_init(NxmSpace *space, NxmMap *map);

/* Frees what it made, before anybody else could see the map. */
extern void nxm_map_fini(NxmSpace *space, NxmMap *map);

extern NxmResult nxm_map_get(NxmSpace *space, NxmMap *map, const NxmKey *key,
							 NxmBuffer *buffer);
extern NxmResult nxm_map_write(NxmSpace *space, NxmMap *map, const NxmKey *key,
							   NxmWrite *write);

/* NXM_OK: a new key.  NXM_EXISTS: replaced. */
extern NxmResult nxm_map_put(NxmSpace *space, NxmMap *map, const NxmKey *key,
							 const NxmValue *value);
/*
 * expected NULL: only when absent.  NXM_OK; or NXM_MISMATCH, NXM_EXISTS,
 * NXM_ABSENT where it is not as expected.
 */
extern NxmResult nxm_map_put_if(NxmSpace *space, NxmMap *map, const NxmKey *key,
								const NxmValue *expected, const NxmValue *value);
/* NXM_OK or NXM_ABSENT. */
extern NxmResult nxm_map_delete(NxmSpace *space, NxmMap *map, const NxmKey *key);
/*
 * Adds to decimal text; an absent key counts as 0.  NXM_MISMATCH: the value is
 * no such text; NXM_OVERFLOW.
 */
extern NxmResult nxm_map_add(NxmSpace *space, NxmMap *map, const NxmKey *key,
							 int64_t delta, int64_t *result);

extern uint64_t nxm_map_entries(NxmMap *map);
extern uint64_t nxm_map_bytes(NxmMap *map);
/* Bytes of its segments and directories, relaxed: a hint while it changes. */
extern uint64_t nxm_map_index_bytes(NxmMap *map);

/*
 * Calls each() for the entries of the bucket at *position, with
 * protected items, and moves *position to the next one; begin with 0.  begin()
 * is called before the first entry, again whenever the bucket is read anew:
 * what each() has collected is then void.  NXM_OK: go on, perhaps with the same bucket,
 * of which then nothing was collected; NXM_ABSENT: that was the last one.  each()
 * returns NXM_OK, or what the scan shall return at once, *position unchanged.  A call
 * does not read a bucket anew once each() was given more than NXM_SCAN_BYTES.
 */
extern NxmResult nxm_map_scan(NxmSpace *space, NxmMap *map, uint64_t *position,
							  void (*begin) (void *context),
							  NxmResult (*each) (NxmSpace *space, NxmRef ref,
												 const NxmItem *item, void *context),
							  void *context);

/*
 * Empties it: at once to everybody, then frees the entries in steps.  NXM_OK:
 * call nxm_map_drain() until it says NXM_ABSENT.  NXM_EXISTS: another clear is
 * being drained: help draining, then repeat.
 */
extern NxmResult nxm_map_clear(NxmSpace *space, NxmMap *map, uint64_t *removed);
/*
 * Cuts everything off for good, at any time; operations say NXM_DROPPED from now on.
 * Results as of nxm_map_clear(), or NXM_DROPPED: it was dropped before.
 */
extern NxmResult nxm_map_drop(NxmMap *map);
/* Frees some buckets' worth of what was cut off.  Any process may. */
extern NxmResult nxm_map_drain(NxmSpace *space, NxmMap *map);

#endif							/* NXM_MAP_H */
