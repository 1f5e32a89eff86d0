/*
 * sql_cache.c
 *	  SQL functions of caches that work on one key.
 *
 * A value is read into a buffer on the stack, and where it is longer, into the
 * result itself, as long as the cache said it is; should it have grown meanwhile,
 * once more.
 *
 * Writing never fails for want of memory: entries give way, and where none can the
 * value is not stored, and what the key had before is gone.
 */
#include "sql_cache.h"

#include "single_flight.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(nxm_sql_cache_delete);
PG_FUNCTION_INFO_V1(nxm_sql_cache_ttl);
PG_FUNCTION_INFO_V1(nxm_sql_cache_expire);

/* Values up to this length are read in one go. */
#define SHORT_VALUE 1024

/* From here on a time to live has no end: a thousand years, in microseconds. */
#define MOST_TTL	(INT64CONST(1000) * 12 * DAYS_PER_MONTH * USECS_PER_DAY)

#define NAME_ARG(n) nxm_bytes_arg(fcinfo, n, "name of a cache", NULL)

int64
nxm_ttl_of(const Interval *interval)
{
	__int128	us;

	if (nxm_interval_infinity(interval) != 0)
		return nxm_interval_infinity(interval) > 0 ? 0 : -1;
	us = interval->time + ((__int128) interval->month * DAYS_PER_MONTH +
						   interval->day) * USECS_PER_DAY;
	return us <= 0 ? -1 : us >= MOST_TTL ? 0 : (int64) us;
}

/*
 * What a time to live says, NULL for the default of the cache: nxm_ttl_of(), 0 for NULL.
 * Below 0 the key is removed, and that is done as deleting is, which no limit forbids.
 */
static inline int64
ttl_given(const Interval *ttl)
{
	return ttl == NULL ? 0 : nxm_ttl_of(ttl);
}

/*
 * The deadline of what is stored now, in the time of caches, 0: none.  us: ttl_given(ttl),
 * not below 0.
 */
static inline int64
deadline_for(const NxmSite *site, const Interval *ttl, int64 us)
{
	if (ttl == NULL)
		us = site->default_ttl;
	return us == 0 ? 0 : nxm_cache_time(GetCurrentTimestamp()) + us;
}

bool
nxm_cache_remove(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key, bool note)
{
	NxmSite    *site;
	NxmCacheView *view;
	NxmResult	r;

	do
	{
		site = nxm_cache_open(fcinfo, name, NXM_WRITE, false);
		/* also for who is about to make the cache */
		if (note)
			nxm_flight_note_delete(name.data, name.len, key);
		if (site == NULL)
			return false;
		view = nxm_cache_view();
		NXM_OPERATE(site, r, nxm_cache_delete(view, &site->object->u.c.cache, key));
	} while (nxm_cache_again(view, r));
	return r == NXM_OK;
}

bool
nxm_cache_look(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key,
			   NxmPrivilege privilege, int64_t *deadline)
{
	NxmSite    *site;
	NxmCacheView *view;
	NxmResult	r;

	do
	{
		site = nxm_cache_open(fcinfo, name, privilege, false);
		if (site == NULL)
			return false;
		view = nxm_cache_view();
		NXM_OPERATE(site, r, nxm_cache_deadline(view, &site->object->u.c.cache, key, deadline));
	} while (nxm_cache_again(view, r));
	return r == NXM_OK;
}

NxmStored
nxm_cache_store(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key,
				const NxmValue *value, const Interval *ttl, bool if_absent, bool note)
{
	NxmCacheView *view;
	NxmSite    *site;
	int64		us = ttl_given(ttl);
	bool		again = false;
	NxmResult	r;

	if (us < 0)
	{
		if (if_absent)
			return nxm_cache_look(fcinfo, name, key, NXM_WRITE, NULL) ? NXM_THERE : NXM_STORED;
		(void) nxm_cache_remove(fcinfo, name, key, true);
		return NXM_STORED;
	}
	do
	{
		int64		deadline;

		site = nxm_cache_open(fcinfo, name, NXM_WRITE, true);
		r = NXM_NEED_MEMORY;
		if (site == NULL)
			break;
		view = nxm_cache_writing(site, key->len + value->len);
		deadline = deadline_for(site, ttl, us);
		if (note)
			nxm_flight_note_set(name.data, name.len, key);
		do
			NXM_OPERATE(site, r, if_absent ?
						nxm_cache_add(view, &site->object->u.c.cache, key, value,
									  deadline) :
						nxm_cache_set(view, &site->object->u.c.cache, key, value,
									  deadline));
		while (r != NXM_DROPPED && nxm_cache_again(view, r));
	} while (unlikely(r == NXM_DROPPED) ||
			 (unlikely(r == NXM_ABSENT || r == NXM_NEED_MEMORY) && !again &&
			  (again = nxm_caches_choose_again())));
	nxm_caches_free_dropped();
	if (if_absent && r == NXM_EXISTS)
		return NXM_THERE;
	if (r == NXM_OK || r == NXM_EXISTS)
		return NXM_STORED;
	/* the key is absent now, and an older value must not come back */
	if (!if_absent)
		(void) nxm_cache_remove(fcinfo, name, key, true);
	return NXM_NOT_STORED;
}

static inline NxmStored
store(FunctionCallInfo fcinfo, NxmType type, bool if_absent)
{
	NxmBytes	name = NAME_ARG(3);
	NxmKey		key = nxm_key_arg(fcinfo, 0);
	NxmValue	value = nxm_value_arg(fcinfo, 1, type,
									  "Use cache_delete() to remove a key.");
	const Interval *ttl = PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2);

	return nxm_cache_store(fcinfo, name, &key, &value, ttl, if_absent, true);
}

static inline Datum
cache_set(FunctionCallInfo fcinfo, NxmType type)
{
	(void) store(fcinfo, type, false);
	PG_RETURN_VOID();
}

/* nxm_sql_cache_set_text, nxm_sql_cache_set_bytea, nxm_sql_cache_set_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_cache_set, cache_set(fcinfo, type));

static inline Datum
cache_add(FunctionCallInfo fcinfo, NxmType type)
{
	PG_RETURN_BOOL(store(fcinfo, type, true) == NXM_STORED);
}

/* nxm_sql_cache_add_text, nxm_sql_cache_add_bytea, nxm_sql_cache_add_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_cache_add, cache_add(fcinfo, type));

static inline __attribute__((always_inline)) text *
read_value(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key,
		   NxmType wanted, const char *hint)
{
	char		space[SHORT_VALUE];
	NxmBuffer	buffer = {space, sizeof(space), 0, NXM_TEXT};
	char	   *result = NULL;
	NxmCacheView *view;
	NxmSite    *site;
	NxmResult	r;

	for (;;)
	{
		site = nxm_cache_open(fcinfo, name, NXM_READ, false);
		if (site == NULL)
			return NULL;
		view = nxm_cache_view();
		NXM_OPERATE(site, r, nxm_cache_get(view, &site->object->u.c.cache, key,
										   &buffer, NULL));
		if (likely(r == NXM_OK))
			break;
		if (likely(r == NXM_ABSENT))
			return NULL;
		if (r == NXM_NEED_BUFFER)
			nxm_enlarge_buffer(&buffer, &result, VARHDRSZ);
		else if (!nxm_cache_again(view, r))
			elog(ERROR, "unexpected result %d of a cache", (int) r);
	}
	if (unlikely(buffer.type != wanted))
	{
		NxmBytes	key_bytes = {key->data, key->len};

		nxm_wrong_type(NXM_KIND_CACHE, name, &key_bytes, buffer.type, wanted,
					   hint);
	}
	return nxm_buffer_datum(&buffer, result);
}

text *
nxm_cache_read(FunctionCallInfo fcinfo, NxmBytes name, const NxmKey *key)
{
	return read_value(fcinfo, name, key, NXM_TEXT, "Use cache_get%s(), or delete the key.");
}

static inline Datum
cache_get(FunctionCallInfo fcinfo, NxmType type)
{
	NxmBytes	name = NAME_ARG(1);
	NxmKey		key = nxm_key_arg(fcinfo, 0);
	text	   *value = read_value(fcinfo, name, &key, type, "Use cache_get%s().");

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(value);
}

/* nxm_sql_cache_get_text, nxm_sql_cache_get_bytea, nxm_sql_cache_get_jsonb */
NXM_SQL_BY_TYPE(nxm_sql_cache_get, cache_get(fcinfo, type));

Datum
nxm_sql_cache_delete(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG(1);
	NxmKey		key = nxm_key_arg(fcinfo, 0);

	PG_RETURN_BOOL(nxm_cache_remove(fcinfo, name, &key, true));
}

Datum
nxm_sql_cache_ttl(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG(1);
	NxmKey		key = nxm_key_arg(fcinfo, 0);
	int64_t		deadline;
	Interval   *left;
	int64		us;

	if (!nxm_cache_look(fcinfo, name, &key, NXM_READ, &deadline) || deadline == 0)
		PG_RETURN_NULL();
	us = deadline - nxm_cache_time(GetCurrentTimestamp());
	if (us <= 0)
		PG_RETURN_NULL();
	left = palloc(sizeof(Interval));
	/* as the difference of two timestamps would be */
	left->month = 0;
	left->day = (int32) (us / USECS_PER_DAY);
	left->time = us % USECS_PER_DAY;
	PG_RETURN_INTERVAL_P(left);
}

Datum
nxm_sql_cache_expire(PG_FUNCTION_ARGS)
{
	NxmBytes	name = NAME_ARG(2);
	NxmKey		key = nxm_key_arg(fcinfo, 0);
	const Interval *ttl = PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1);
	int64		us = ttl_given(ttl);
	NxmSite    *site;
	NxmCacheView *view;
	NxmResult	r;

	if (us < 0)
		PG_RETURN_BOOL(nxm_cache_remove(fcinfo, name, &key, true));
	do
	{
		int64		deadline;

		site = nxm_cache_open(fcinfo, name, NXM_WRITE, false);
		if (site == NULL)
			PG_RETURN_BOOL(false);
		view = nxm_cache_writing(site, key.len);
		deadline = deadline_for(site, ttl, us);
		do
			NXM_OPERATE(site, r, nxm_cache_expire(view, &site->object->u.c.cache,
												  &key, deadline));
		while (r != NXM_DROPPED && nxm_cache_again(view, r));
	} while (unlikely(r == NXM_DROPPED));
	PG_RETURN_BOOL(r == NXM_OK);
}
