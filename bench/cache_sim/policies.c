/*
 * policies.c
 *	  The list of policies.
 */
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
