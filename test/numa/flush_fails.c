/*
 * flush_fails.c
 *	  A sync_file_range() that fails, for a server that is started with it in LD_PRELOAD.
 *
 * It fails while there is the file that FLUSH_FAILS names: with EIO where that is empty,
 * else as where there is no such call.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

int
sync_file_range(int fd, off_t offset, off_t count, unsigned int flags)
{
	const char *fails = getenv("FLUSH_FAILS");
	struct stat st;

	(void) fd;
	(void) offset;
	(void) count;
	(void) flags;
	if (fails == NULL || stat(fails, &st) != 0)
		return 0;
	errno = st.st_size == 0 ? EIO : ENOSYS;
	return -1;
}
