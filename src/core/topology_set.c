/*
 * topology_set.c
 *	  Sets of CPUs and of the kernel's nodes, and the kernel's text for them.
 *
 * Both kinds of set are arrays of 64-bit words, lowest number first, and share
 * the code below.
 *
 * Limits: of the kernel's list format only what it prints is read.  Strides
 * ("0-31:2/4"), which it accepts but never prints, are malformed here, and so
 * are blanks.
 */
#include <stdio.h>
#include <string.h>

#include "topology.h"

static bool
bit_has(const uint64_t *words, int nbits, int i)
{
	return i >= 0 && i < nbits && (words[i / 64] >> (i % 64) & 1) != 0;
}

static void
bit_add(uint64_t *words, int nbits, int i)
{
	if (i >= 0 && i < nbits)
		words[i / 64] |= UINT64_C(1) << (i % 64);
}

static int
bit_count(const uint64_t *words, int nwords)
{
	int			count = 0;

	for (int i = 0; i < nwords; i++)
		for (uint64_t w = words[i]; w != 0; w &= w - 1)
			count++;
	return count;
}

bool
nxm_cpuset_has(const NxmCpuSet *set, int i)
{
	return bit_has(set->word, NXM_MAX_CPUS, i);
}

void
nxm_cpuset_add(NxmCpuSet *set, int i)
{
	bit_add(set->word, NXM_MAX_CPUS, i);
}

int
nxm_cpuset_count(const NxmCpuSet *set)
{
	return bit_count(set->word, NXM_CPU_WORDS);
}

bool
nxm_cpuset_within(const NxmCpuSet *set, const NxmCpuSet *of)
{
	for (int i = 0; i < NXM_CPU_WORDS; i++)
		if ((set->word[i] & ~of->word[i]) != 0)
			return false;
	return true;
}

bool
nxm_osnodeset_has(const NxmOsNodeSet *set, int i)
{
	return bit_has(set->word, NXM_MAX_OS_NODES, i);
}

void
nxm_osnodeset_add(NxmOsNodeSet *set, int i)
{
	bit_add(set->word, NXM_MAX_OS_NODES, i);
}

int
nxm_osnodeset_count(const NxmOsNodeSet *set)
{
	return bit_count(set->word, NXM_OS_NODE_WORDS);
}

int
nxm_osnodeset_next(const NxmOsNodeSet *set, int after)
{
	for (int i = after < 0 ? 0 : after + 1; i < NXM_MAX_OS_NODES; i++)
	{
		if (i % 64 == 0 && set->word[i / 64] == 0)
			i += 63;
		else if (nxm_osnodeset_has(set, i))
			return i;
	}
	return -1;
}

/* Numbers that no int holds are all past any set, so they become INT_MAX. */
static bool
parse_member(const char **text, int *value)
{
	const char *p = *text;
	int64_t		v = 0;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
	{
		v = v * 10 + (*p - '0');
		if (v > INT32_MAX)
			v = INT32_MAX;
	}
	*text = p;
	*value = (int) v;
	return true;
}

bool
nxm_list_parse(const char *text, uint64_t *words, int nbits, bool *left_out)
{
	size_t		size = (size_t) (nbits + 63) / 64 * sizeof(uint64_t);
	const char *p = text;
	bool		some_left_out = false;

	memset(words, 0, size);
	if (left_out)
		*left_out = false;
	while (*p != '\0' && *p != '\n')
	{
		int			low;
		int			high;

		if (p != text && *p++ != ',')
			goto malformed;
		if (!parse_member(&p, &low))
			goto malformed;
		high = low;
		if (*p == '-')
		{
			p++;
			if (!parse_member(&p, &high) || high < low)
				goto malformed;
		}
		if (high >= nbits)
			some_left_out = true;
		for (int i = low; i <= high && i < nbits; i++)
			bit_add(words, nbits, i);
	}
	if (*p == '\n' && p[1] != '\0')
		goto malformed;
	if (left_out)
		*left_out = some_left_out;
	return true;

malformed:
	memset(words, 0, size);
	return false;
}

int
nxm_list_format(const uint64_t *words, int nbits, char *buf, size_t size)
{
	int			len = 0;

	if (size > 0)
		buf[0] = '\0';
	for (int i = 0; i < nbits; i++)
	{
		int			low = i;
		char		range[32];
		int			n;

		if (!bit_has(words, nbits, i))
			continue;
		while (bit_has(words, nbits, i + 1))
			i++;
		if (i == low)
			n = snprintf(range, sizeof(range), "%s%d", len ? "," : "", low);
		else
			n = snprintf(range, sizeof(range), "%s%d-%d", len ? "," : "",
						 low, i);
		if ((size_t) len < size)
			snprintf(buf + len, size - (size_t) len, "%s", range);
		len += n;
	}
	return len;
}
