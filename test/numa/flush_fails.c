/*
 * flush_fails.c
 *	  A sync_file_range() that fails or takes long, for a server that is started with it
 *	  in LD_PRELOAD.
 *
 * It fails while there is the file that FLUSH_FAILS names: with EIO where that is empty,
 * else as where there is no such call.
 *
 * While there is the file that FLUSH_TAKES names, it takes as many seconds as that has
 * bytes, by the clock that nobody sets, and nothing else takes any: in each process that
 * clock stands still from when it is looked at first.  So what is given up for lack of
 * time, and where, does not depend on how fast the machine is.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static struct timespec stands_at;	/* 0: not looked at yet */

/* The length of the file that a variable names; -1: there is none. */
static off_t
length_of(const char *variable)
{
	const char *name = getenv(variable);
	struct stat st;

	return name != NULL && stat(name, &st) == 0 ? st.st_size : -1;
}

int
clock_gettime(clockid_t id, struct timespec *now)
{
	int			save_errno = errno;

	if (id != CLOCK_MONOTONIC || length_of("FLUSH_TAKES") < 0)
	{
		errno = save_errno;
		return (int) syscall(SYS_clock_gettime, id, now);
	}
	if (stands_at.tv_sec == 0)
		(void) syscall(SYS_clock_gettime, id, &stands_at);
	*now = stands_at;
	errno = save_errno;
	return 0;
}

int
sync_file_range(int fd, off_t offset, off_t count, unsigned int flags)
{
	off_t		seconds = length_of("FLUSH_TAKES");
	off_t		fails = length_of("FLUSH_FAILS");

	(void) fd;
	(void) offset;
	(void) count;
	(void) flags;
	if (seconds > 0 && stands_at.tv_sec != 0)
		stands_at.tv_sec += seconds;
	if (fails < 0)
		return 0;
	errno = fails == 0 ? EIO : ENOSYS;
	return -1;
}
