/*
 * util.c
 *	  The list of policies, their options, and memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

const Policy *const policies[] = {
	&belady_policy,
	&lru_policy,
	&slru_policy,
	&sieve_policy,
	&arc_policy,
	&lirs_policy,
	&tinylfu_policy,
	&s3fifo_policy,
	&segments_policy,
#ifdef WITH_ENGINE
	&engine_policy,
#endif
	NULL
};

const Policy *
policy_find(const char *name, size_t len)
{
	for (int p = 0; policies[p] != NULL; p++)
		if (strlen(policies[p]->name) == len && memcmp(policies[p]->name, name, len) == 0)
			return policies[p];
	return NULL;
}

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
