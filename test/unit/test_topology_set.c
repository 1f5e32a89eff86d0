/*
 * test_topology_set.c
 *	  Sets of CPUs and nodes, and the kernel's text for them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "topology.h"

static uint64_t random_state;

/* xorshift64*: the same sequence everywhere */
static uint32_t
random_number(uint32_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t) ((random_state * UINT64_C(2685821657736338717)) >> 32) %
		below;
}

static void
list_well_formed(void **state)
{
	NxmCpuSet	set;
	bool		left_out;

	(void) state;
	assert_true(nxm_list_parse("0-3,8,10-11\n", set.word, 64, &left_out));
	assert_int_equal(set.word[0], 0xd0f);
	assert_false(left_out);
	assert_true(nxm_list_parse("", set.word, NXM_MAX_CPUS, NULL));
	assert_int_equal(nxm_cpuset_count(&set), 0);
	assert_true(nxm_list_parse("\n", set.word, NXM_MAX_CPUS, NULL));
	assert_int_equal(nxm_cpuset_count(&set), 0);
	assert_true(nxm_list_parse("5-5,5,4-6", set.word, NXM_MAX_CPUS, NULL));
	assert_int_equal(set.word[0], 0x70);
	assert_true(nxm_list_parse("63-64,4095", set.word, NXM_MAX_CPUS,
							   &left_out));
	assert_false(left_out);
	assert_int_equal(nxm_cpuset_count(&set), 3);
	assert_true(nxm_cpuset_has(&set, 4095));
}

static void
list_malformed(void **state)
{
	static const char *const bad[] = {
		"3-1", "a", "1-", "-", "-1", ",", "1,", ",1", "1,,2", "1--2", "1-2-3",
		" 1", "1 ", "1, 2", "\t1", "1\n\n", "\n1", "1\n2", "0x1", "1.5", "+1",
		"0-31:2/4", "1;2", "1-a", "99999999999999999999-1", "\r\n", "1\r\n"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		NxmCpuSet	set;
		bool		left_out = true;

		memset(&set, 0xff, sizeof(set));
		if (nxm_list_parse(bad[i], set.word, NXM_MAX_CPUS, &left_out))
			fail_msg("accepted \"%s\"", bad[i]);
		assert_int_equal(nxm_cpuset_count(&set), 0);
		assert_false(left_out);
	}
}

static void
list_past_the_end(void **state)
{
	NxmCpuSet	set;
	uint64_t	words[2] = {1, 1};
	bool		left_out;

	(void) state;
	assert_true(nxm_list_parse("4094-4096", set.word, NXM_MAX_CPUS,
							   &left_out));
	assert_true(left_out);
	assert_int_equal(nxm_cpuset_count(&set), 2);
	assert_true(nxm_list_parse("7,18446744073709551617", set.word,
							   NXM_MAX_CPUS, &left_out));
	assert_true(left_out);
	assert_int_equal(nxm_cpuset_count(&set), 1);
	assert_true(nxm_list_parse("5-99999999999999999999999", words, 70,
							   &left_out));
	assert_true(left_out);
	assert_int_equal(words[0], ~UINT64_C(0x1f));
	assert_int_equal(words[1], 0x3f);
}

static void
list_format(void **state)
{
	NxmCpuSet	set;
	char		text[64];
	char		little[6] = "xxxxx";

	(void) state;
	nxm_list_parse("11,10,0-1,8,2-3", set.word, NXM_MAX_CPUS, NULL);
	assert_int_equal(nxm_list_format(set.word, NXM_MAX_CPUS, text,
									 sizeof(text)), 11);
	assert_string_equal(text, "0-3,8,10-11");
	assert_int_equal(nxm_list_format(set.word, NXM_MAX_CPUS, NULL, 0), 11);
	assert_int_equal(nxm_list_format(set.word, NXM_MAX_CPUS, little, 5), 11);
	assert_memory_equal(little, "0-3,\0\0", 6);
	memset(&set, 0, sizeof(set));
	assert_int_equal(nxm_list_format(set.word, NXM_MAX_CPUS, text,
									 sizeof(text)), 0);
	assert_string_equal(text, "");
}

static void
list_round_trip(void **state)
{
	static char text[4 * NXM_MAX_CPUS];

	(void) state;
	random_state = 1;
	for (int round = 0; round < 500; round++)
	{
		NxmCpuSet	set = {{0}};
		NxmCpuSet	again;
		uint32_t	density = 1 + random_number(16);
		int			nbits = (int) random_number(NXM_MAX_CPUS) + 1;
		int			len;

		for (int i = 0; i < nbits; i++)
			if (random_number(density) == 0)
				nxm_cpuset_add(&set, i);
		len = nxm_list_format(set.word, nbits, text, sizeof(text));
		assert_int_equal(len, (int) strlen(text));
		assert_true(nxm_list_parse(text, again.word, NXM_MAX_CPUS, NULL));
		assert_memory_equal(&set, &again, sizeof(set));
	}
}

static void
set_bounds(void **state)
{
	NxmCpuSet	set = {{0}};
	NxmOsNodeSet nodes = {{0}};

	(void) state;
	nxm_cpuset_add(&set, -1);
	nxm_cpuset_add(&set, NXM_MAX_CPUS);
	assert_int_equal(nxm_cpuset_count(&set), 0);
	memset(&set, 0xff, sizeof(set));
	assert_false(nxm_cpuset_has(&set, -1));
	assert_false(nxm_cpuset_has(&set, NXM_MAX_CPUS));
	assert_int_equal(nxm_cpuset_count(&set), NXM_MAX_CPUS);
	assert_int_equal(nxm_osnodeset_next(&nodes, -1), -1);
	nxm_osnodeset_add(&nodes, 64);
	assert_int_equal(nxm_osnodeset_next(&nodes, -1), 64);
	nxm_osnodeset_add(&nodes, 0);
	nxm_osnodeset_add(&nodes, 1023);
	nxm_osnodeset_add(&nodes, 1024);
	assert_int_equal(nxm_osnodeset_count(&nodes), 3);
	assert_int_equal(nxm_osnodeset_next(&nodes, -1), 0);
	assert_int_equal(nxm_osnodeset_next(&nodes, 0), 64);
	assert_int_equal(nxm_osnodeset_next(&nodes, 64), 1023);
	assert_int_equal(nxm_osnodeset_next(&nodes, 1023), -1);
}

static void
fuzz_list(void **state)
{
	static const char alphabet[] = "0123456789--,,,\n ax:/";

	(void) state;
	random_state = 7;
	for (int round = 0; round < 50000; round++)
	{
		char		text[40];
		uint32_t	len = random_number(sizeof(text));
		int			nbits = 1 + (int) random_number(200);
		/* exactly as long as needed, for the address sanitizer */
		size_t		nwords = (size_t) (nbits + 63) / 64;
		uint64_t   *words = malloc(nwords * sizeof(uint64_t));
		char	   *exact = malloc(len + 1);
		bool		left_out;

		for (uint32_t i = 0; i < len; i++)
			text[i] = random_number(50) == 0 ? (char) random_number(256) :
				alphabet[random_number(sizeof(alphabet) - 1)];
		memcpy(exact, text, len);
		exact[len] = '\0';
		nxm_list_parse(exact, words, nbits, &left_out);
		for (int i = nbits; i < (int) nwords * 64; i++)
			if (words[i / 64] >> (i % 64) & 1)
				fail_msg("bit %d of %d set by \"%s\"", i, nbits, exact);
		nxm_list_format(words, nbits, text, random_number(sizeof(text)));
		free(exact);
		free(words);
	}
}

static void
set_within(void **state)
{
	NxmCpuSet	set = {{0}};
	NxmCpuSet	of = {{0}};

	(void) state;
	assert_true(nxm_cpuset_within(&set, &of));
	nxm_cpuset_add(&of, 3);
	nxm_cpuset_add(&of, NXM_MAX_CPUS - 1);
	assert_true(nxm_cpuset_within(&set, &of));
	nxm_cpuset_add(&set, NXM_MAX_CPUS - 1);
	assert_true(nxm_cpuset_within(&set, &of));
	assert_false(nxm_cpuset_within(&of, &set));
	nxm_cpuset_add(&set, 64);
	assert_false(nxm_cpuset_within(&set, &of));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list_well_formed),
		cmocka_unit_test(list_malformed),
		cmocka_unit_test(list_past_the_end),
		cmocka_unit_test(list_format),
		cmocka_unit_test(list_round_trip),
		cmocka_unit_test(set_bounds),
		cmocka_unit_test(set_within),
		cmocka_unit_test(fuzz_list),
	};

	return cmocka_run_group_tests_name("topology_set", tests, NULL, NULL);
}
