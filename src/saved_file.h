/*
 * saved_file.h
 *	  What our saved files have in common: their header, and how they are written
 *	  and read.
 */
#ifndef NXM_SAVED_FILE_H
#define NXM_SAVED_FILE_H

#include "postgres.h"

#include <signal.h>

#include "datatype/timestamp.h"
#include "port/pg_crc32c.h"

/* Relative to the data directory, where server processes work. */
#define NXM_SAVED_DIR "pg_nexusmem"

/* In place of the magic of a file that one start passed over: no later one may load it. */
#define NXM_SAVED_LEFT_MAGIC "NXMLEFT"

/* One of them; the names are constants of the program. */
typedef struct NxmSavedFile
{
	const char *what;			/* is in it: "saved structures" */
	const char *path;
	const char *tmp;			/* while it is being written */
	const char *refused;		/* what could not be loaded is kept as this */
	const char *magic;			/* at most 7 characters */
	uint32		format;			/* raised when anything behind the header changes */
	uint32		oldest_format;	/* that is read */
} NxmSavedFile;

/* Its fields, with a path below NXM_SAVED_DIR. */
#define NXM_SAVED_FILE_NAMES(name) \
	.path = NXM_SAVED_DIR "/" name, \
	.tmp = NXM_SAVED_DIR "/" name ".tmp", \
	.refused = NXM_SAVED_DIR "/" name ".refused"

typedef struct NxmSavedHeader
{
	char		magic[8];
	uint32		byte_order;
	uint32		format;
	uint64		system_identifier;	/* pg_control's */
	uint64		length;			/* of the file */
	TimestampTz saved_at;
	uint32		objects;		/* in the file; its writer's own */
	uint32		alignment;		/* MAXIMUM_ALIGNOF */
	pg_crc32c	body_crc;		/* of all behind the header */
	pg_crc32c	header_crc;		/* of the fields above */
} NxmSavedHeader;

StaticAssertDecl(sizeof(NxmSavedHeader) == 56, "NxmSavedHeader has no padding");

/*
 * Writing.  What fails returns false, or -1, with *what_failed set and the reason in
 * errno.  Nothing here raises errors.
 */

/*
 * Makes the directory and an empty tmp, for whom the data directory is for.  Returns an
 * open transient file.
 */
extern int	nxm_saved_create(const NxmSavedFile *file, const char **what_failed);

/*
 * A file is written from its beginning to its end, in blocks of less than 8 MB, and then
 * its header.  It may wait for the disk, which the caller's time limit is to count.
 */
extern bool nxm_saved_write(int fd, const void *data, size_t len, uint64 offset,
							const char **what_failed);

/* The body is written: adds the header, and makes both durable, in this order. */
extern bool nxm_saved_finish(const NxmSavedFile *file, int fd, uint64 length,
							 uint32 objects, pg_crc32c body_crc,
							 const char **what_failed);

/* Closes the file, and makes it the saved one, or (keep false) removes it. */
extern bool nxm_saved_close(const NxmSavedFile *file, int fd, bool keep,
							const char **what_failed);

/*
 * Reading.  What fails returns the reason, a constant or palloc'd; NULL: all is well.
 */

extern const char *nxm_saved_read(int fd, void *to, size_t len, uint64 offset);

/*
 * Is the file, of so many bytes, whole, ours, and one that this version can read?  It is
 * looked through, but for when *stop is set meanwhile; stop may be NULL.
 */
extern const char *nxm_saved_check(const NxmSavedFile *file, int fd, uint64 length,
								   NxmSavedHeader *header, volatile sig_atomic_t *stop);

/* What becomes of a file that is refused, and can be given no other name. */
typedef enum NxmRefused
{
	NXM_REFUSED_STAYS,			/* it may be good, and still is at the next start */
	NXM_REFUSED_LEFT,			/* it may be good, but the next start must not load it */
	NXM_REFUSED_FOR_EVER		/* it must not be loaded: it is removed */
} NxmRefused;

/*
 * A warning that a load gives, for the log alone: it has names of all databases, in their
 * encodings, and of the server's files, and any client's backend may come to load.  detail,
 * hint: or NULL.
 */
extern void nxm_saved_warn(int sqlerrcode, const char *message, const char *detail,
						   const char *hint);

/*
 * Tells in the log why a file was not loaded, and keeps it under its other name.  path:
 * where it is.  false: it must not be loaded, and was not got rid of.
 */
extern bool nxm_saved_refuse(const NxmSavedFile *file, const char *path,
							 const char *why, NxmRefused what);

/*
 * No start will load the file any more, and its contents stay: the magic is another one.
 * That needs no permission on the directory.  false: it may still be loaded, with the
 * reason in errno.
 */
extern bool nxm_saved_leave(const NxmSavedFile *file);

/*
 * No start will load the file any more: it is removed, or, where that is not possible,
 * loses its header.  false: neither, with the reason in errno.
 */
extern bool nxm_saved_discard(const char *path);

#endif							/* NXM_SAVED_FILE_H */
