/*
 * util.c
 *	  Options, and memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* Of "name=1,other=2". */
double
policy_option(const char *options, const char *name, double otherwise)
{
	size_t		len = strlen(name);

	while (options != NULL && *options != '\0')
	{
		if (strncmp(options, name, len) == 0 && options[len] == '=')
			return atof(options + len + 1);
		options = strchr(options, ',');
		if (options != NULL)
			options++;
	}
	return otherwise;
}

void *
allocate(size_t n, size_t size)
{
	void	   *p = calloc(n > 0 ? n : 1, size);

	if (p == NULL)
	{
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return p;
}
