/*
 * flushes_told.c
 *	  Tells in what order files are flushed and renamed, and fails to flush, for a server
 *	  that is started with it in LD_PRELOAD.
 *
 * Each fsync() and rename(), and each pwrite() to the beginning of a file, adds a line to
 * the file that FLUSHES_TOLD names: the call, and the path of the file, for rename() its
 * new one.  The calls do what they always do.
 *
 * But while there is the file that FSYNC_FAILS names, fsync() fails for want of room on a
 * file of pg_nexusmem that is longer than that one, as where a file system looks for room
 * no earlier than that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void
tell(const char *call, const char *path)
{
	const char *to = getenv("FLUSHES_TOLD");
	char		line[4200];
	int			fd = to == NULL ? -1 : open(to, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (fd < 0)
		return;
	snprintf(line, sizeof(line), "%s %s\n", call, path);
	/* a test misses what could not be told */
	if (write(fd, line, strlen(line)) < 0)
		(void) 0;
	close(fd);
}

/* Adds a line, and returns whether it is about a file of pg_nexusmem. */
static bool
tell_of(const char *call, int fd)
{
	char		link[64];
	char		path[4096];
	ssize_t		len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	path[len < 0 ? 0 : len] = '\0';
	tell(call, path);
	return strstr(path, "/pg_nexusmem/") != NULL;
}

int
fsync(int fd)
{
	const char *fails = getenv("FSYNC_FAILS");
	struct stat limit;
	struct stat file;

	if (tell_of("fsync", fd) && fails != NULL && stat(fails, &limit) == 0 &&
		fstat(fd, &file) == 0 && file.st_size > limit.st_size)
	{
		errno = ENOSPC;
		return -1;
	}
	return (int) syscall(SYS_fsync, fd);
}

int
rename(const char *from, const char *to)
{
	tell("rename", to);
	return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	struct iovec part = {(void *) data, len};

	if (offset == 0)
		(void) tell_of("pwrite", fd);
	return pwritev(fd, &part, 1, offset);
}

/* what pwrite() is called where it is compiled for large files */
ssize_t		pwrite64(int fd, const void *data, size_t len, off_t offset)
			__attribute__((alias("pwrite")));
