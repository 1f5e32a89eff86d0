/*
 * counter.c
 *	  Exact and striped counters.  counter.h has the design.
 *
 * The words are added to and read relaxed: a counter orders nothing but itself.
 */
#include "counter.h"

#define SAFE_VALUE (INT64_C(1) << 62)
#define SAFE_DELTA (INT64_C(1) << 40)

static NxmResult
add_to(NxmAtomic *word, int64_t delta, int64_t *result)
{
	uint64_t	old = nxm_load_relaxed(word);
	int64_t		sum;

	if ((int64_t) old < SAFE_VALUE && (int64_t) old > -SAFE_VALUE &&
		delta < SAFE_DELTA && delta > -SAFE_DELTA)
	{
		*result = (int64_t) (nxm_fetch_add_relaxed(word, (uint64_t) delta) +
							 (uint64_t) delta);
		return NXM_OK;
	}
	do
	{
		if (__builtin_add_overflow((int64_t) old, delta, &sum))
			return NXM_OVERFLOW;
	} while (!nxm_cas(word, &old, (uint64_t) sum));
	*result = sum;
	return NXM_OK;
}

NxmResult
nxm_counter_init(NxmSpace *space, NxmCounter *counter, bool striped,
				 int nnodes, int stripes_per_node)
{
	int			n;

	counter->nstripes = 0;
	counter->nnodes = (uint32_t) nnodes;
	nxm_init(&counter->exact.value, 0);
	if (!striped)
		return NXM_OK;
	if (stripes_per_node < 1)
		stripes_per_node = 1;
	n = nnodes * stripes_per_node;
	if (n > NXM_MAX_STRIPES)
		n = nnodes < NXM_MAX_STRIPES ? NXM_MAX_STRIPES / nnodes * nnodes :
			NXM_MAX_STRIPES;
	for (int i = 0; i < n; i++)
	{
		NxmRef		ref = nxm_alloc_on(space, i % nnodes, sizeof(NxmStripe));

		if (ref == 0)
		{
			NxmResult	why = nxm_no_object(space);

			nxm_counter_fini(space, counter);
			return why;
		}
		counter->stripes[counter->nstripes++] = ref;
		nxm_init(&((NxmStripe *) nxm_at(space, ref))->value, 0);
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
	uint32_t	nnodes = counter->nnodes;
	uint32_t	per_node;
	uint32_t	i;

	if (counter->nstripes == 0)
		return add_to(&counter->exact.value, delta, result);

	per_node = counter->nstripes / nnodes;
	i = per_node == 0 ? (uint32_t) space->proc % counter->nstripes :
		(uint32_t) space->proc % per_node * nnodes + (uint32_t) node % nnodes;
	stripe = nxm_at(space, counter->stripes[i]);
	if (stripe == NULL)
		return NXM_NEED_CHUNK;
	return add_to(&stripe->value, delta, result);
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
		*old = (int64_t) nxm_exchange(&counter->exact.value, (uint64_t) value);
		return NXM_OK;
	}
	/* first all that could fail */
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		if (nxm_at(space, counter->stripes[i]) == NULL)
			return NXM_NEED_CHUNK;
	}
	for (uint32_t i = 0; i < counter->nstripes; i++)
	{
		NxmStripe  *stripe = nxm_at(space, counter->stripes[i]);

		sum += (int64_t) nxm_exchange(&stripe->value, i == 0 ? (uint64_t) value : 0);
	}
	*old = (int64_t) sum;
	return sum > INT64_MAX || sum < INT64_MIN ? NXM_OVERFLOW : NXM_OK;
}
