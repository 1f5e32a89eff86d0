/*
 * ceiling.c
 *	  How much can asking ahead speed up random reads of these files?
 *
 *	ceiling READS DISTANCE SEED FILE...
 *
 * Reads as many 8 kB blocks at random places, through the operating system's
 * cache, which is emptied of the files first: one after the other with pread(),
 * and again, elsewhere, with posix_fadvise(POSIX_FADV_WILLNEED) DISTANCE blocks
 * ahead.  Prints the milliseconds of both.  No server and no executor takes
 * part, so their ratio is the most that look-ahead can reach on this device.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 8192
#define MAX_FILES 64

typedef struct File
{
	int			fd;
	uint64_t	blocks;
} File;

static File files[MAX_FILES];
static int	nfiles;
static uint64_t nblocks;
static uint64_t state;

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

/* splitmix64 */
static uint64_t
next_random(void)
{
	uint64_t	z = (state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static int
locate(uint64_t block, off_t *offset)
{
	int			i = 0;

	while (block >= files[i].blocks)
		block -= files[i++].blocks;
	*offset = (off_t) block * BLOCK;
	return files[i].fd;
}

static double
read_blocks(const uint64_t *block, int reads, int distance)
{
	static char buf[BLOCK];
	struct timespec from;
	struct timespec to;

	for (int i = 0; i < nfiles; i++)
	{
		if (posix_fadvise(files[i].fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
			die("posix_fadvise");
	}
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0, ahead = 0; i < reads; i++)
	{
		off_t		offset;
		int			fd;

		for (; distance > 0 && ahead < reads && ahead <= i + distance; ahead++)
		{
			fd = locate(block[ahead], &offset);
			(void) posix_fadvise(fd, offset, BLOCK, POSIX_FADV_WILLNEED);
		}
		fd = locate(block[i], &offset);
		if (pread(fd, buf, BLOCK, offset) != BLOCK)
			die("pread");
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	return (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6;
}

int
main(int argc, char **argv)
{
	int			reads;
	int			distance;
	uint64_t   *block;
	double		ms[2];

	if (argc < 5 || argc - 4 > MAX_FILES)
	{
		fprintf(stderr, "usage: ceiling READS DISTANCE SEED FILE...\n");
		return 2;
	}
	reads = atoi(argv[1]);
	distance = atoi(argv[2]);
	state = strtoull(argv[3], NULL, 10);
	for (int i = 4; i < argc; i++)
	{
		struct stat st;

		files[nfiles].fd = open(argv[i], O_RDONLY);
		if (files[nfiles].fd < 0 || fstat(files[nfiles].fd, &st) != 0)
			die(argv[i]);
		files[nfiles].blocks = st.st_size / BLOCK;
		nblocks += files[nfiles++].blocks;
	}
	block = malloc(sizeof(*block) * reads);
	if (block == NULL || nblocks == 0)
		die("nothing to read");
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < reads; i++)
			block[i] = next_random() % nblocks;
		ms[pass] = read_blocks(block, reads, pass == 0 ? 0 : distance);
	}
	printf("%.3f %.3f\n", ms[0], ms[1]);
	return 0;
}
