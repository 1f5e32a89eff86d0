/*
 * clock_back.c
 *	  A clock that can be set back, for a server that is started with it in LD_PRELOAD.
 *
 * From when the file that CLOCK_BACK names exists, it is an hour earlier.
 */
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	const char *back = getenv("CLOCK_BACK");
	struct timespec now;

	(void) tz;
	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec - (back != NULL && access(back, F_OK) == 0 ? 3600 : 0);
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}
