/*
 * counter.c
 *	  Exact and striped counters.  counter.h has the design.
 *
 * The words are added to and read relaxed, but where the loop of add_slow() and setting
 * take them as they come: a counter orders nothing but itself.
 */
#include "counter.h"

#define SAFE_VALUE (INT64_C(1) << 62)
/* The checker makes these small. */
#ifndef NXM_SAFE_DELTA
#define NXM_SAFE_DELTA (INT64_C(1) << 40)
/* all that processes can be about to add */
#define NXM_MOST_PENDING (INT64_C(1) << 58)
#endif

/* May the word be this value, whatever is about to be added? */
static bool
may_be(NxmSpace *space, NxmStripe *stripe, int64_t value)
{
	NxmAtomic  *epoch = &space->shared->epoch;
	uint64_t	since = 0;

	if (value <= INT64_MAX - NXM_MOST_PENDING && value >= INT64_MIN + NXM_MOST_PENDING)
		return true;
	if (nxm_cas(&stripe->slow, &since, 1))
		since = 1;
	if (since == 1)
	{
		/* slow comes before the epoch is read: pairs with nxm_enter() */
		nxm_fence();
		if (nxm_cas(&stripe->slow, &since, nxm_load(epoch)))
			return false;
	}
	/* acquire: sections that began before are over, and what they added is seen */
	return nxm_load(epoch) >= since + 2;
}

/* Not inlined, so that the registers that it takes are not saved in the common case. */
static __attribute__((noinline)) NxmResult
add_slow(NxmSpace *space, NxmStripe *stripe, int64_t delta, int64_t *result)
{
	uint64_t	old = nxm_load_relaxed(&stripe->value);
	int64_t		sum;

	do
	{
		if (__builtin_add_overflow((int64_t) old, delta, &sum))
			return NXM_OVERFLOW;
		if (!may_be(space, stripe, sum))
			return NXM_NEED_EPOCH;
	} while (!nxm_cas(&stripe->value, &old, (uint64_t) sum));
	*result = sum;
	return NXM_OK;
}

static NxmResult
add_to(NxmSpace *space, NxmStripe *stripe, int64_t delta, int64_t *result)
{
	int64_t		old = (int64_t) nxm_load_relaxed(&stripe->value);

	/* slow: nxm_enter()'s fence pairs with may_be()'s: we see it, or it waits for us */
	if (old >= SAFE_VALUE || old <= -SAFE_VALUE ||
		delta >= NXM_SAFE_DELTA || delta <= -NXM_SAFE_DELTA ||
		nxm_load_relaxed(&stripe->slow) != 0)
		return add_slow(space, stripe, delta, result);
	*result = (int64_t) (nxm_fetch_add_relaxed(&stripe->value, (uint64_t) delta) +
						 (uint64_t) delta);
	return NXM_OK;
}

NxmResult
nxm_counter_init(NxmSpace *space, NxmCounter *counter, bool striped,
				 int nnodes, int stripes_per_node)
{
	int			n;

	counter->nstripes = 0;
	counter->nnodes = (uint32_t) nnodes;
	counter->per_node = 1;
	nxm_init(&counter->exact.value, 0);
	nxm_init(&counter->exact.slow, 0);
	if (!striped)
		return NXM_OK;
	while (counter->per_node < (uint32_t) stripes_per_node &&
		   2 * counter->per_node * counter->nnodes <= NXM_MAX_STRIPES)
		counter->per_node *= 2;
	n = (int) (counter->nnodes * counter->per_node);
	for (int i = 0; i < n; i++)
	{
		NxmRef		ref = nxm_alloc_on(space, i % (int) counter->nnodes, sizeof(NxmStripe));
		NxmStripe  *stripe;

		if (ref == 0)
		{
			NxmResult	why = nxm_no_object(space);

			nxm_counter_fini(space, counter);
			return why;
		}
		counter->stripes[counter->nstripes++] = ref;
		stripe = nxm_at(space, ref);
		nxm_init(&stripe->value, 0);
		nxm_init(&stripe->slow, 0);
	}
	return NXM_OK;
}

void
nxm_counter_fini(NxmSpace *space, NxmCounter *counter)
{
	while (counter->nstripes > 0)
		nxm_free(space, counter->stripes[--counter->nstripes]);
}

NxmResult
nxm_counter_add(NxmSpace *space, NxmCounter *counter, int node, int64_t delta,
				int64_t *result)
{
	NxmStripe  *stripe;
	uint32_t	nth = (uint32_t) node;
	uint32_t	i;

	if (counter->nstripes == 0)
		return add_to(space, &counter->exact, delta, result);

	/* a process may have found more nodes than the one that made it */
	if (nth >= counter->nnodes)
		nth %= counter->nnodes;
	i = ((uint32_t) space->proc & (counter->per_node - 1)) * counter->nnodes + nth;
	stripe = nxm_at(space, counter->stripes[i]);
	if (stripe == NULL)
		return NXM_NEED_CHUNK;
	return add_to(space, stripe, delta, result);
}

NxmResult
nxm_counter_get(NxmSpace *space, NxmCounter *counter, int64_t *result)
{
	__int128	sum = 0;

	if (counter->nstripes == 0)
	{
		*result = (int64_t) nxm_load_relaxed(&counter->exact.value);
		return NXM_OK;
	}
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		NxmStripe  *stripe = nxm_at(space, counter->stripes[i]);

		if (stripe == NULL)
			return NXM_NEED_CHUNK;
		sum += (int64_t) nxm_load_relaxed(&stripe->value);
	}
	*result = (int64_t) sum;
	return sum > INT64_MAX || sum < INT64_MIN ? NXM_OVERFLOW : NXM_OK;
}

NxmResult
nxm_counter_set(NxmSpace *space, NxmCounter *counter, int64_t value,
				int64_t *old)
{
	__int128	sum = 0;

	if (counter->nstripes == 0)
	{
		if (!may_be(space, &counter->exact, value))
			return NXM_NEED_EPOCH;
		*old = (int64_t) nxm_exchange(&counter->exact.value, (uint64_t) value);
		return NXM_OK;
	}
	/* first all that could fail */
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		NxmStripe  *stripe = nxm_at(space, counter->stripes[i]);

		if (stripe == NULL)
			return NXM_NEED_CHUNK;
		if (i == 0 && !may_be(space, stripe, value))
			return NXM_NEED_EPOCH;
	}
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		NxmStripe  *stripe = nxm_at(space, counter->stripes[i]);

		sum += (int64_t) nxm_exchange(&stripe->value, i == 0 ? (uint64_t) value : 0);
	}
	*old = (int64_t) sum;
	return sum > INT64_MAX || sum < INT64_MIN ? NXM_OVERFLOW : NXM_OK;
}
