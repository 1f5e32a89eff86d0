/*
 * saved_file.c
 *	  What our saved files have in common: their header, and how they are written
 *	  and read.
 *
 * A file is written under another name, its header last, and then renamed: there is
 * a whole one or the one before.  The header names the cluster, for numbers in a
 * file are the machine's own and OIDs the cluster's.  A file that is not loaded
 * is kept beside, so that somebody may look at it.
 *
 * Writers have little time, and look at the clock between two writes.  So each STEP has
 * gone to the disk before the next but one is written: a writer sees how fast the disk
 * is, and the flush at the end has little left to do.  And what is saved is worth less
 * than a server that can write its checkpoint: the disk is left some room.
 */
#include "saved_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#define BYTE_ORDER_MARK	0x01020304
#define BLOCK_SIZE		(256 * 1024)
#define STEP			(8 * 1024 * 1024)
/* bytes of the disk that are left to the server, and as many WAL segments */
#define ROOM			(64 * 1024 * 1024)
#define ROOM_SEGMENTS	4

static bool
fail(const char **what_failed, const char *what)
{
	*what_failed = what;
	return false;
}

/* Is there more on the file's disk than is left to the server? */
static bool
has_room(int fd, const char **what_failed)
{
	struct statvfs st;

	/* some file systems do not tell */
	if (fstatvfs(fd, &st) != 0 || st.f_blocks == 0 ||
		(uint64) st.f_bavail * st.f_frsize >=
		Max((uint64) ROOM, (uint64) ROOM_SEGMENTS * wal_segment_size))
		return true;
	errno = ENOSPC;
	return fail(what_failed, "too little of the disk would be left to the server");
}

/*
 * Has the disk begin to write a STEP, or waits until it has.  Not by pg_flush_data(),
 * which takes an error for a reason to end the server.
 */
static bool
flush_step(int fd, uint64 offset, bool wait, const char **what_failed)
{
#ifdef HAVE_SYNC_FILE_RANGE
	int			flags = SYNC_FILE_RANGE_WRITE;

	if (wait)
		flags |= SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
	/* where it is not to be had, fsync does it all; but an error is told only once */
	if (enableFsync &&
		sync_file_range(fd, (off_t) offset, STEP, flags) != 0 &&
		errno != ENOSYS && errno != EINVAL && errno != ESPIPE &&
		errno != EOPNOTSUPP && errno != EPERM)
		return fail(what_failed, "could not flush the file");
#endif
	return true;
}

/* The file has been written up to `end`, the end of a STEP. */
static bool
end_step(int fd, uint64 end, const char **what_failed)
{
	return has_room(fd, what_failed) &&
		flush_step(fd, end - STEP, false, what_failed) &&
		(end < 2 * STEP ||
		 flush_step(fd, end - 2 * STEP, true, what_failed));
}

int
nxm_saved_create(const NxmSavedFile *file, const char **what_failed)
{
	int			fd;

	if (MakePGDirectory(NXM_SAVED_DIR) == 0)
		(void) fsync_fname_ext(".", true, false, LOG);
	else if (errno != EEXIST)
	{
		*what_failed = "could not create directory \"" NXM_SAVED_DIR "\"";
		return -1;
	}
	/* as the data directory; a backup by its group needs to read all */
	(void) chmod(NXM_SAVED_DIR, pg_dir_create_mode);
	(void) unlink(file->tmp);
	fd = OpenTransientFile(file->tmp, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY);
	if (fd < 0)
		*what_failed = "could not create the file";
	else if (!has_room(fd, what_failed))
	{
		int			save_errno = errno;

		(void) CloseTransientFile(fd);
		(void) unlink(file->tmp);
		errno = save_errno;
		fd = -1;
	}
	return fd;
}

bool
nxm_saved_write(int fd, const void *data, size_t len, uint64 offset,
				const char **what_failed)
{
	const char *p = data;

	while (len > 0)
	{
		ssize_t		n;

		errno = 0;
		n = pg_pwrite(fd, p, len, (off_t) offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			return fail(what_failed, "could not write the file");
		}
		p += n;
		len -= n;
		/* one at a time: blocks are shorter than a STEP */
		if ((offset + n) / STEP > offset / STEP &&
			!end_step(fd, (offset + n) / STEP * STEP, what_failed))
			return false;
		offset += n;
	}
	return true;
}

bool
nxm_saved_finish(const NxmSavedFile *file, int fd, uint64 length, uint32 objects,
				 pg_crc32c body_crc, const char **what_failed)
{
	NxmSavedHeader header;

	/* The body first: a header means a whole file. */
	if (pg_fsync(fd) != 0)
		return fail(what_failed, "could not fsync the file");
	memset(&header, 0, sizeof(header));
	strlcpy(header.magic, file->magic, sizeof(header.magic));
	header.byte_order = BYTE_ORDER_MARK;
	header.format = file->format;
	header.system_identifier = GetSystemIdentifier();
	header.length = length;
	header.saved_at = GetCurrentTimestamp();
	header.objects = objects;
	header.alignment = MAXIMUM_ALIGNOF;
	header.body_crc = body_crc;
	INIT_CRC32C(header.header_crc);
	COMP_CRC32C(header.header_crc, &header,
				offsetof(NxmSavedHeader, header_crc));
	FIN_CRC32C(header.header_crc);
	if (!nxm_saved_write(fd, &header, sizeof(header), 0, what_failed))
		return false;
	if (pg_fsync(fd) != 0)
		return fail(what_failed, "could not fsync the file");
	return true;
}

bool
nxm_saved_close(const NxmSavedFile *file, int fd, bool keep,
				const char **what_failed)
{
	bool		ok = true;

	if (CloseTransientFile(fd) != 0 && keep)
		ok = fail(what_failed, "could not close the file");
	if (ok && keep && durable_rename(file->tmp, file->path, LOG) != 0)
		ok = fail(what_failed, "could not rename the file");
	if (!ok || !keep)
	{
		int			save_errno = errno;

		(void) unlink(file->tmp);
		errno = save_errno;
	}
	return ok;
}

const char *
nxm_saved_read(int fd, void *to, size_t len, uint64 offset)
{
	char	   *p = to;

	while (len > 0)
	{
		ssize_t		n = pg_pread(fd, p, len, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? "it could not be read" : "it is truncated";
		p += n;
		offset += n;
		len -= n;
	}
	return NULL;
}

static const char *
check_header(const NxmSavedFile *file, int fd, uint64 length,
			 NxmSavedHeader *header)
{
	pg_crc32c	crc;
	const char *broken;

	if (length < sizeof(*header))
		return "it is truncated";
	broken = nxm_saved_read(fd, header, sizeof(*header), 0);
	if (broken != NULL)
		return broken;
	if (strncmp(header->magic, NXM_SAVED_LEFT_MAGIC, sizeof(header->magic)) == 0)
		return "an earlier start could neither load it nor put it beside";
	if (strncmp(header->magic, file->magic, sizeof(header->magic)) != 0)
		return psprintf("it is not a file of %s, or was not finished", file->what);
	if (header->byte_order != BYTE_ORDER_MARK)
		return "it was written on a machine of another byte order";
	if (header->format < file->oldest_format || header->format > file->format)
		return psprintf("its format is %u, and this version of nexusmem reads %u to %u",
						header->format, file->oldest_format, file->format);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, header, offsetof(NxmSavedHeader, header_crc));
	FIN_CRC32C(crc);
	if (!EQ_CRC32C(crc, header->header_crc))
		return "the checksum of its header is wrong";
	if (header->alignment != MAXIMUM_ALIGNOF)
		return "it was written on a machine of another alignment";
	if (header->system_identifier != GetSystemIdentifier())
		return psprintf("it belongs to the database system %llu, and this one is %llu",
						(unsigned long long) header->system_identifier,
						(unsigned long long) GetSystemIdentifier());
	if (header->length != length)
		return psprintf("it has %llu bytes instead of %llu",
						(unsigned long long) length,
						(unsigned long long) header->length);
	return NULL;
}

static const char *
check_body(int fd, const NxmSavedHeader *header, volatile sig_atomic_t *stop)
{
	char	   *block = palloc(BLOCK_SIZE);
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	for (uint64 offset = sizeof(*header); offset < header->length;)
	{
		size_t		n = Min(BLOCK_SIZE, header->length - offset);
		const char *broken;

		CHECK_FOR_INTERRUPTS();
		if (stop != NULL && *stop)
			return "it was not read to its end";
		broken = nxm_saved_read(fd, block, n, offset);
		if (broken != NULL)
			return broken;
		COMP_CRC32C(crc, block, n);
		offset += n;
	}
	FIN_CRC32C(crc);
	pfree(block);
	return EQ_CRC32C(crc, header->body_crc) ? NULL : "its checksum is wrong";
}

const char *
nxm_saved_check(const NxmSavedFile *file, int fd, uint64 length,
				NxmSavedHeader *header, volatile sig_atomic_t *stop)
{
	const char *broken = check_header(file, fd, length, header);

	return broken != NULL ? broken : check_body(fd, header, stop);
}

/* Writes over the beginning of the file, durably, and closes it. */
static bool
overwrite(int fd, const void *data, size_t len)
{
	const char *what_failed;

	if (!nxm_saved_write(fd, data, len, 0, &what_failed) || pg_fsync(fd) != 0)
	{
		int			save_errno = errno;

		close(fd);
		errno = save_errno;
		return false;
	}
	return close(fd) == 0;
}

bool
nxm_saved_leave(const NxmSavedFile *file)
{
	char		magic[sizeof(((NxmSavedHeader *) NULL)->magic)];
	ssize_t		n;
	int			fd;

	/* not to wait for a writer, should it be a pipe */
	fd = BasicOpenFile(file->path, O_RDWR | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		return errno == ENOENT;
	n = pg_pread(fd, magic, sizeof(magic), 0);
	/* again where it is there already: it may not have come to the disk */
	if (n == (ssize_t) sizeof(magic) &&
		(strncmp(magic, file->magic, sizeof(magic)) == 0 ||
		 strncmp(magic, NXM_SAVED_LEFT_MAGIC, sizeof(magic)) == 0))
		return overwrite(fd, NXM_SAVED_LEFT_MAGIC, sizeof(magic));
	if (n < 0)
	{
		int			save_errno = errno;

		close(fd);
		errno = save_errno;
		return false;
	}
	/* something else, which is not loaded as it is */
	close(fd);
	return true;
}

bool
nxm_saved_discard(const char *path)
{
	NxmSavedHeader none;
	int			fd;

	if (durable_unlink(path, DEBUG1) == 0 || errno == ENOENT)
		return true;
	/* not to wait for a reader, should it be a pipe */
	fd = BasicOpenFile(path, O_WRONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		return errno == ENOENT;
	memset(&none, 0, sizeof(none));
	return overwrite(fd, &none, sizeof(none));
}

void
nxm_saved_warn(int sqlerrcode, const char *message, const char *detail, const char *hint)
{
	int			client_level = client_min_messages;

	PG_TRY();
	{
		client_min_messages = ERROR;
		ereport(WARNING,
				(errcode(sqlerrcode),
				 errmsg_internal("%s", message),
				 detail != NULL ? errdetail_internal("%s", detail) : 0,
				 hint != NULL ? errhint("%s", hint) : 0));
	}
	PG_FINALLY();
	{
		client_min_messages = client_level;
	}
	PG_END_TRY();
}

/* Gives the file another name, also where it is none and cannot be renamed durably. */
static bool
give_name(const char *path, const char *name)
{
	return durable_rename(path, name, DEBUG1) == 0 || rename(path, name) == 0;
}

bool
nxm_saved_refuse(const NxmSavedFile *file, const char *path, const char *why,
				 NxmRefused what)
{
	char		other[MAXPGPATH];
	const char *name = file->refused;
	bool		gone = give_name(path, name);
	int			rename_errno = errno;

	if (!gone)
	{
		/* something else has the name that does not give way, as a directory */
		snprintf(other, sizeof(other), "%s.1", file->refused);
		name = other;
		gone = give_name(path, name);
	}
	if (gone)
	{
		nxm_saved_warn(ERRCODE_CONFIG_FILE_ERROR,
					   psprintf("%s in file \"%s\" were not loaded: %s", file->what,
								file->path, why),
					   NULL,
					   psprintf("The file is kept as \"%s\" until another one is refused.",
								name));
		return true;
	}
	nxm_saved_warn(ERRCODE_CONFIG_FILE_ERROR,
				   psprintf("%s in file \"%s\" were not loaded: %s", file->what,
							file->path, why),
				   psprintf("Could not rename it to \"%s\": %s", file->refused,
							strerror(rename_errno)),
				   NULL);
	if (what == NXM_REFUSED_STAYS ||
		(what == NXM_REFUSED_LEFT ? nxm_saved_leave(file) : nxm_saved_discard(path)))
		return true;
	ereport(LOG_SERVER_ONLY,
			(errcode_for_file_access(),
			 what == NXM_REFUSED_LEFT ? errmsg("could not write file \"%s\": %m", path) :
			 errmsg("could not remove file \"%s\": %m", path)));
	return false;
}
