/*
 * clock_back.c
 *	  A clock that can be set back, for a server that is started with it in LD_PRELOAD.
 *
 * It is as many hours earlier as the file that CLOCK_BACK names has bytes.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	const char *back = getenv("CLOCK_BACK");
	struct stat st;
	struct timespec now;

	(void) tz;
	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec;
	if (back != NULL && stat(back, &st) == 0)
		tv->tv_sec -= 3600 * st.st_size;
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}
