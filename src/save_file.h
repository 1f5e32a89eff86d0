/*
 * save_file.h
 *	  The file of saved structures: what save_write.c writes and load.c reads.
 *
 *	+--------+-------+-------+-----+-------+
 *	| header | frame | frame | ... | frame |
 *	+--------+-------+-------+-----+-------+
 *
 * For each structure or cache a frame OBJECT, frames ENTRIES, a frame END.  A frame is
 * followed by `length` bytes, and its checksum covers them and the rest of itself;
 * the header's body_crc covers all behind the header.  The header is written last,
 * so a file that was not finished has none.
 *
 * OBJECT is followed by NxmSaveObject, the name, the NxmSaveGrants, and, of a cache,
 * NxmSaveCache.  ENTRIES by `count` times NxmSaveEntry, of a cache int64 deadline,
 * key, value: a map's and a cache's in any order, a queue's from the oldest, a
 * stack's from the top.  END by nothing; `count` says how many entries there were,
 * modulo 2^32.  Format 1 had no caches, and is read too.
 *
 * Caches come last: where time is short they are saved in part, and what was
 * written of them is as good as a cache that has lost entries; where they could not be
 * written a file without them is as good as one of a server that has none.
 *
 * Numbers are the machine's own, and so is jsonb: a file is for the cluster that
 * wrote it.  saved_file.h has the header, and how a file is written and read.
 */
#ifndef NXM_SAVE_FILE_H
#define NXM_SAVE_FILE_H

#include "postgres.h"

#include "registry.h"
#include "saved_file.h"

extern const NxmSavedFile nxm_structures_file;

/* Its name from the beginning of a load on; a start loads no file that has it. */
#define NXM_STRUCTURES_LOADING NXM_SAVED_DIR "/structures.loading"

typedef enum NxmSaveFrameType
{
	NXM_FRAME_OBJECT = 1,
	NXM_FRAME_ENTRIES,
	NXM_FRAME_END
} NxmSaveFrameType;

typedef struct NxmSaveFrame
{
	pg_crc32c	crc;
	uint32		type;
	uint32		length;
	uint32		count;
} NxmSaveFrame;

/* ENTRIES are closed when they have this many bytes. */
#define NXM_FRAME_FILL		65536
/* An entry is at most a key and a value of the longest. */
#define NXM_FRAME_MAX \
	(NXM_FRAME_FILL + sizeof(NxmSaveEntry) + sizeof(int64) + NXM_MAX_KEY + \
	 NXM_MAX_VALUE)

typedef struct NxmSaveObject
{
	uint32		kind;
	Oid			database;
	Oid			owner;
	uint32		node;
	uint32		striped;
	uint32		name_len;
	uint32		grants;
	uint32		unused;
	int64		value;			/* of a counter */
} NxmSaveObject;

typedef struct NxmSaveGrant
{
	Oid			role;
	uint32		privileges;
} NxmSaveGrant;

/* Of a cache: NxmObjectOptions. */
typedef struct NxmSaveCache
{
	uint64		max_bytes;
	int64		default_ttl;
} NxmSaveCache;

/* The deadline of a cache's entry that follows it is a TimestampTz, 0: none. */
typedef struct NxmSaveEntry
{
	uint32		value_len;
	uint16		key_len;		/* 0: none */
	uint16		type;
} NxmSaveEntry;

StaticAssertDecl(NXM_MAX_KEY <= PG_UINT16_MAX, "a key's length has 16 bits");

/* Of save_write.c: outcome of writing the file. */
typedef struct NxmSaveResult
{
	const char *what_failed;	/* NULL: it was written, or there was nothing to write */
	int			failed_errno;	/* 0: what_failed says it all */
	uint32		objects;
	uint64		length;			/* of the file */
	bool		cut_short;		/* some entries of caches were left out */
	const char *caches_failed;	/* not NULL: why all caches were, of a file that was written */
	int			caches_errno;	/* 0: caches_failed says it all */
} NxmSaveResult;

/*
 * Writes all structures, and the caches, to the file, which is there whole or not
 * at all.  Nothing changes them meanwhile.  May raise errors.
 */
extern void nxm_save_write(bool caches, NxmSaveResult *result);

/* Of load.c: outcome of reading the file. */
typedef struct NxmLoadResult
{
	const char *refused;		/* why nothing was loaded; NULL: it was */
	bool		stopped;		/* by *stop: nothing was loaded, the file is good */
	uint32		objects;
	uint32		dropped;		/* of these, that could not be loaded */
} NxmLoadResult;

/*
 * Makes the structures of the file, which is NXM_STRUCTURES_LOADING.  What has no room
 * or makes no sense it tells in the log; other errors, as query_canceled, it raises, and
 * the next attempt starts over.
 */
extern void nxm_load_file(volatile sig_atomic_t *stop, NxmLoadResult *result);

/* Drops what an attempt before has made. */
extern void nxm_load_undo(volatile sig_atomic_t *stop);

#endif							/* NXM_SAVE_FILE_H */
