/*
 * check.c
 *	  The policies of the simulator against small traces computed by hand.
 *
 * Keys are letters; H stands for a hit.  What happens is told where it is not
 * plain.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

typedef struct Check
{
	const char *policy;			/* with options */
	uint64_t	capacity;
	const char *keys;
	const char *hits;
} Check;

/* Sizes of keys: 1, but of these. */
#define LARGE "XYZ"
#define LARGE_SIZE 3

static const Check checks[] = {
	{"lru", 2, "ABACBA", "..H..."},
	{"lru", 3, "ABXA", "...."},

	/* E evicts B, the oldest on probation; A is protected */
	{"slru:protected=0.5", 4, "ABACDEAB", "..H...H."},
	/* B and C protected, so A goes back to probation, and D, E, F drive it out */
	{"slru:protected=0.5", 4, "AABBCCDEFA", ".H.H.H...."},

	/* D: A's bit is cleared, B goes.  B: the hand is at C.  E: at D. */
	{"sieve", 3, "ABCADBEAC", "...H...H."},
	{"sieve", 3, "AAXA", ".H.."},

	/* B from its ghost moves the target to 1, so that A leaves T2 and not C T1 */
	{"arc", 2, "ABACBCAB", "..H..H.."},

	/* C requested again while on the stack: LIR, A back to the queue */
	{"lirs:hir=0.34", 3, "ABCDCABDA", ".....HH.."},
	/* a loop: A and B stay */
	{"lirs:hir=0.34", 3, "ABCDABCDABCD", "....HH..HH.."},

	/* D once, E thrice against A thrice: not admitted */
	{"tinylfu:climb=0,window=0.25", 4, "AAABBCDEEEFABC", ".HH.H...HH.HHH"},
	/* E more often than A */
	{"tinylfu:climb=0,window=0.25", 4, "ABCDEEEFEA", ".....HH.H."},

	/* A to main, B to the ghost and from it to main, C and D too; then A goes on,
	 * and B out */
	{"s3fifo:small=0.25,ghost=0.75", 4, "ABCDAAEBCAFDGAB", "....HH...H...H."},

	{"belady", 2, "ABCABC", "...HH."},
	/* C, not requested again, is not worth keeping */
	{"belady", 2, "ABCAB", "...HH"},
	{"belady", 3, "AXABA", "..H.H"},

	/* A, B and C fill main; D and E take turns in small.  When E comes back, A's
	 * segment is older than E was away: it is looked at, and stays. */
	{"segments:segments=4,small=0.25,adapt=0", 4, "ABCDEABCDEABCDE", ".....HHH..HHH.."},
	/* without filling main first, a loop has no hits */
	{"segments:segments=4,small=0.25,adapt=0,fill=0,paid=0,ghost=0.3", 4, "ABCDEABCDE", ".........."},
	/* segments of two: A and B leave together, but A was hit twice */
	{"segments:segments=2,small=0.5,adapt=0,fill=0", 4, "ABAACDEAB", "..HH...H."},
};

static bool
run(const Check *check)
{
	size_t		len = strcspn(check->policy, ":");
	const Policy *policy = policy_find(check->policy, len);
	const char *options = check->policy[len] == ':' ? check->policy + len + 1 : NULL;
	size_t		n = strlen(check->keys);
	uint32_t	keys[64];
	uint32_t	sizes[256];
	char		got[65] = "";
	Trace	   *trace;
	void	   *self;
	bool		ok;

	for (int c = 0; c < 256; c++)
		sizes[c] = c != 0 && strchr(LARGE, c) != NULL ? LARGE_SIZE : 1;
	for (size_t i = 0; i < n; i++)
		keys[i] = (unsigned char) check->keys[i];
	trace = trace_of_sizes("check", keys, n, sizes);
	self = policy->create(trace, check->capacity, options);
	ok = true;
	for (uint64_t i = 0; i < n; i++)
	{
		got[i] = policy->request(self, i) ? 'H' : '.';
		if (policy->used(self) > check->capacity)
			ok = false;
	}
	policy->destroy(self);
	trace_free(trace);
	ok = ok && strcmp(got, check->hits) == 0;
	printf("%s %s, capacity %" PRIu64 ", %s\n", ok ? "ok" : "not ok", check->policy,
		   check->capacity, check->keys);
	if (!ok)
		printf("# %s expected\n# %s found\n", check->hits, got);
	return ok;
}

int
main(void)
{
	int			failed = 0;

	for (size_t c = 0; c < sizeof(checks) / sizeof(checks[0]); c++)
		failed += !run(&checks[c]);
	printf("1..%zu\n", sizeof(checks) / sizeof(checks[0]));
	return failed > 0;
}
