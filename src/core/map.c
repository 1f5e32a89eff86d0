/*
 * map.c
 *	  The hash map: looking up, writing, iterating.  map.h has the design.
 *
 * Orders.  Slots and headers are changed by CAS alone (release) and read with
 * acquire where what they name is read; a scan over the tags is relaxed, and a
 * slot that it found is read again with acquire after its item was protected.
 * Successor segments are published by the CAS of `next`, directories by that of
 * `directory`, the first one by a store.
 */
#include "map_internal.h"
#include "map_lookup.h"

uint64_t
nxm_map_entries(NxmMap *map)
{
	uint64_t	sum = 0;

	for (int i = 0; i < NXM_MAP_STATS; i++)
		sum += nxm_load_relaxed(&map->stats[i].entries);
	/* a delete may be counted, and the insert before it not yet */
	return (int64_t) sum < 0 ? 0 : sum;
}

uint64_t
nxm_map_bytes(NxmMap *map)
{
	uint64_t	sum = 0;

	for (int i = 0; i < NXM_MAP_STATS; i++)
		sum += nxm_load_relaxed(&map->stats[i].bytes);
	return (int64_t) sum < 0 ? 0 : sum;
}

uint64_t
nxm_map_index_bytes(NxmMap *map)
{
	return nxm_load_relaxed(&map->memory);
}

NxmResult
nxm_map_init(NxmSpace *space, NxmMap *map)
{
	uint64_t	body = nxm_map_new_body(space, map, NXM_MIN_LOG);

	if (body == 0)
		return nxm_no_object(space);
	nxm_store(&map->directory, body);
	return NXM_OK;
}

/* For nxm_map_locate(): the bucket at place is not open. */
NxmResult
nxm_map_locate_slow(NxmSpace *space, NxmMap *map, uint64_t position, NxmPlace *place)
{
	while ((place->header & H_STATUS) != H_OPEN)
	{
		uint64_t	next = nxm_load(&place->seg->next);
		NxmResult	result;

		if (next == CUT)
		{
			result = look_in_directory(space, map, position, place);
			if (result != NXM_OK)
				return result;
			look_in_segment(position, place);
			continue;
		}
		if ((place->header & H_MIGRATED) == 0)
		{
			result = nxm_map_migrate(space, place->seg,
									 (uint32_t) (place->bucket - place->seg->bucket));
			if (result != NXM_OK)
				return result;
		}
		place->parent = place->seg;
		place->seg = nxm_at(space, next);
		if (place->seg == NULL)
			return NXM_NEED_CHUNK;
		if (NXM_GET(place->seg->sibling) != 0 &&
			(position << place->depth >> 63) != 0)
		{
			place->seg = nxm_at(space, NXM_GET(place->seg->sibling));
			if (place->seg == NULL)
				return NXM_NEED_CHUNK;
		}
		place->depth = NXM_GET(place->seg->depth);
		place->log = NXM_GET(place->seg->log);
		look_in_segment(position, place);
	}
	return NXM_OK;
}

/* Items of maps have no link: spares looking where their keys and values are. */
static inline const NxmItem *
unlinked(const NxmItem *item)
{
	if ((item->header & NXM_ITEM_LINKED) != 0)
		__builtin_unreachable();
	return item;
}

static inline bool
has_key(const void *item, const NxmKey *key)
{
	return nxm_item_has_key(unlinked(item), key);
}

/* nxm_map_get() where look_up_fast() has not found the key. */
static __attribute__((noinline)) NxmResult
get_slow(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmBuffer *buffer)
{
	NxmFound	found;
	NxmResult	result = nxm_map_find_slow(space, map, position_of(key->hash), key,
										   has_key, &found);

	return result == NXM_OK ? nxm_item_copy(space, unlinked(found.item), buffer) : result;
}

NxmResult
nxm_map_get(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmBuffer *buffer)
{
	NxmFound	found;
	NxmResult	result = look_up_fast(space, map, position_of(key->hash), key, has_key,
									  &found);

	if (__builtin_expect(result != NXM_OK, 0))
		return result;
	/* a call at the end, so that no registers are saved for it */
	if (__builtin_expect(found.item == NULL, 0))
		return get_slow(space, map, key, buffer);
	NXM_PAUSE("get");
	return nxm_item_copy(space, unlinked(found.item), buffer);
}

/*
 * Puts a new item into an EMPTY slot of the chain as it was looked up.  false:
 * something changed, the item is still ours.
 */
bool
nxm_map_insert(NxmSpace *space, const NxmPlace *place, int slot, uint64_t tag, NxmRef ref)
{
	NxmAtomic  *at = slot_at(place, slot);
	uint64_t	word = EMPTY;
	uint64_t	tentative = TENTATIVE | tag | ref;
	uint64_t	header = place->header;
	uint64_t	committed = next_version(header) |
		(uint64_t) (slot + 1) << H_PENDING_SHIFT;

	/* once committed it may be deleted before we have made it LIVE */
	nxm_protect(space, ref);
	if (!nxm_cas(at, &word, tentative))
		return false;
	NXM_PAUSE("reserved");
	if (!nxm_cas(&place->bucket->header, &header, committed))
	{
		/* fails if the bucket froze, and with it the reservation */
		(void) nxm_cas(at, &tentative, EMPTY);
		return false;
	}
	NXM_PAUSE("committed");
	(void) nxm_cas(at, &tentative, OPEN | tag | ref);
	(void) nxm_cas(&place->bucket->header, &committed,
				   next_version(committed) & ~H_PENDING);
	return true;
}

/*
 * The common case of a write: the key is in a slot where look_up_fast() finds it, and
 * gets another value.  false: it is not, or not so simple, and nothing was changed.
 *
 * The bucket's header, in another line most often, is not looked at, though the
 * insert of the slot may be pending: that is no harm to another LIVE word in it, see
 * map.h.
 */
static inline __attribute__((always_inline)) bool
overwrite(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write,
		  NxmAction (*decide) (NxmSpace *, NxmWrite *, const NxmItem *),
		  NxmResult *result)
{
	uint64_t	position = position_of(key->hash);
	NxmFound	found;
	NxmAction	action;
	NxmResult	made;
	NxmRef		ref;
	int64_t		more;

	*result = look_up_fast(space, map, position, key, has_key, &found);
	if (*result != NXM_OK)
		return true;
	if (found.item == NULL)
		return false;
	action = decide(space, write, found.item);
	*result = write->result;
	if (action == NXM_KEEP || *result == NXM_NEED_CHUNK)
		return true;
	if (action == NXM_REMOVE)
		return false;
	if (!nxm_item_is_mapped(space, found.item))
	{
		*result = NXM_NEED_CHUNK;
		return true;
	}
	made = nxm_item_new(space, key, &write->value, NXM_ITEM_POSITION(position), &ref);
	if (made != NXM_OK)
	{
		*result = made;
		return true;
	}
	more = nxm_item_more_bytes(nxm_at(space, ref), found.item);
	if (!nxm_cas(found.slot, &found.word, OPEN | tag_of(position) | ref))
	{
		nxm_item_free(space, ref);
		return false;
	}
	nxm_retire(space, found.word & NXM_REF_MASK);
	nxm_map_count(space, map, 0, more);
	return true;
}

/* nxm_map_write() in all other cases. */
static NxmResult
write_slow(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write)
{
	uint64_t	position = position_of(key->hash);
	uint64_t	tag = tag_of(position);
	NxmSegment    *growing = NULL;
	NxmRef		ref = 0;		/* of the item that we store */
	NxmResult	result;

	for (;;)
	{
		NxmPlace		place;
		NxmFound	found;
		NxmItem    *item;
		int			free;
		NxmAction	action;

		result = nxm_map_locate(space, map, position, &place);
		if (result != NXM_OK)
			break;
		if (place.parent != NULL)
			growing = place.parent;
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		result = nxm_map_look_up(space, &place, tag, key, has_key, &found);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			break;

		item = found.item;
		action = write->decide(space, write, item);
		result = write->result;
		if (action == NXM_KEEP || result == NXM_NEED_CHUNK ||
			(item == NULL && action == NXM_REMOVE))
			break;
		if (action == NXM_STORE)
		{
			if (ref != 0 && write->value_varies)
			{
				nxm_item_free(space, ref);
				ref = 0;
			}
			if (ref == 0)
			{
				NxmResult	made = nxm_item_new(space, key, &write->value,
												NXM_ITEM_POSITION(position), &ref);

				if (made != NXM_OK)
				{
					ref = 0;
					result = made;
					break;
				}
			}
		}

		if (item != NULL)
		{
			uint64_t	header = nxm_load(&place.bucket->header);
			int64_t		more;

			/* a slot is emptied only when its insert is not pending any more */
			if (pending_slot(header) == found.number)
			{
				nxm_map_complete_pending(space, &place, header);
				continue;
			}
			if (!nxm_item_is_mapped(space, item))
			{
				result = NXM_NEED_CHUNK;
				break;
			}
			more = action == NXM_STORE ?
				nxm_item_more_bytes(nxm_at(space, ref), item) :
				-(int64_t) nxm_item_bytes(item);
			if (!nxm_cas(found.slot, &found.word,
						 action == NXM_STORE ? OPEN | tag | ref : EMPTY))
				continue;
			nxm_retire(space, found.word & NXM_REF_MASK);
			nxm_map_count(space, map, action == NXM_STORE ? 0 : -1, more);
			if (action == NXM_STORE)
				ref = 0;
			break;
		}

		free = nxm_map_empty_slot(&place, tag);
		if (free < 0)
		{
			NxmResult	made = nxm_map_make_room(space, map, &place, position, false);

			if (made != NXM_OK)
			{
				result = made;
				break;
			}
			continue;
		}
		if (nxm_map_insert(space, &place, free, tag, ref))
		{
			/* still protected, if another process has it already */
			nxm_map_count(space, map, 1,
						  (int64_t) nxm_item_bytes(nxm_at(space, ref)));
			ref = 0;
			break;
		}
	}
	if (ref != 0)
		nxm_item_free(space, ref);
	if (growing != NULL)
		nxm_map_help_growth(space, map, growing, position);
	return result;
}

NxmResult
nxm_map_write(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write)
{
	NxmResult	result;

	if (overwrite(space, map, key, write, write->decide, &result))
		return result;
	return write_slow(space, map, key, write);
}

static inline NxmAction
decide_put(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	(void) space;
	write->result = item == NULL ? NXM_OK : NXM_EXISTS;
	return NXM_STORE;
}

NxmResult
nxm_map_put(NxmSpace *space, NxmMap *map, const NxmKey *key,
			const NxmValue *value)
{
	NxmWrite	write = {.value = *value};
	NxmResult	result;

	if (overwrite(space, map, key, &write, decide_put, &result))
		return result;
	/* another one, so that the first need not be in memory */
	return write_slow(space, map, key,
					  &(NxmWrite) {.decide = decide_put,.value = *value});
}

static NxmAction
decide_put_if(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	const NxmValue *expected = write->context;

	if (expected == NULL)
		write->result = item == NULL ? NXM_OK : NXM_EXISTS;
	else if (item == NULL)
		write->result = NXM_ABSENT;
	else
		write->result = nxm_item_compare(space, item, expected);
	return write->result == NXM_OK ? NXM_STORE : NXM_KEEP;
}

NxmResult
nxm_map_put_if(NxmSpace *space, NxmMap *map, const NxmKey *key,
			   const NxmValue *expected, const NxmValue *value)
{
	NxmWrite	write = {.decide = decide_put_if,.value = *value,
		.context = (void *) expected};

	return nxm_map_write(space, map, key, &write);
}

static NxmAction
decide_delete(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	(void) space;
	write->result = item == NULL ? NXM_ABSENT : NXM_OK;
	return NXM_REMOVE;
}

NxmResult
nxm_map_delete(NxmSpace *space, NxmMap *map, const NxmKey *key)
{
	NxmWrite	write = {.decide = decide_delete};

	return write_slow(space, map, key, &write);
}

typedef struct Addition
{
	int64_t		delta;
	int64_t		sum;
	char		text[24];
} Addition;

/* An optional sign and digits, that fit. */
static bool
parse_integer(const char *s, size_t len, int64_t *result)
{
	bool		negative = len > 0 && s[0] == '-';
	size_t		i = len > 0 && (s[0] == '-' || s[0] == '+') ? 1 : 0;
	int64_t		value = 0;

	if (i == len)
		return false;
	for (; i < len; i++)
	{
		if (s[i] < '0' || s[i] > '9' ||
			__builtin_mul_overflow(value, 10, &value) ||
			__builtin_sub_overflow(value, s[i] - '0', &value))
			return false;
	}
	/* gathered negative, for there is one more of these */
	if (!negative && value == INT64_MIN)
		return false;
	*result = negative ? value : -value;
	return true;
}

static uint32_t
print_integer(int64_t value, char *to)
{
	char		digits[24];
	uint32_t	n = 0;
	uint32_t	len = 0;
	uint64_t	rest = value < 0 ? -(uint64_t) value : (uint64_t) value;

	do
		digits[n++] = (char) ('0' + rest % 10);
	while ((rest /= 10) != 0);
	if (value < 0)
		to[len++] = '-';
	while (n > 0)
		to[len++] = digits[--n];
	return len;
}

static NxmAction
decide_add(NxmSpace *space, NxmWrite *write, const NxmItem *item)
{
	Addition   *addition = write->context;
	int64_t		old = 0;

	if (item != NULL)
	{
		char		text[24];
		NxmBuffer	buffer = {text, sizeof(text), 0, NXM_TEXT};

		write->result = nxm_item_copy(space, item, &buffer);
		if (write->result == NXM_NEED_CHUNK)
			return NXM_KEEP;
		if (write->result != NXM_OK || buffer.type != NXM_TEXT ||
			!parse_integer(text, buffer.len, &old))
		{
			write->result = NXM_MISMATCH;
			return NXM_KEEP;
		}
	}
	if (__builtin_add_overflow(old, addition->delta, &addition->sum))
	{
		write->result = NXM_OVERFLOW;
		return NXM_KEEP;
	}
	write->result = NXM_OK;
	write->value.data = addition->text;
	write->value.len = print_integer(addition->sum, addition->text);
	write->value.type = NXM_TEXT;
	return NXM_STORE;
}

NxmResult
nxm_map_add(NxmSpace *space, NxmMap *map, const NxmKey *key, int64_t delta,
			int64_t *result)
{
	Addition	addition = {.delta = delta};
	NxmWrite	write = {.decide = decide_add,.value_varies = true,
		.context = &addition};
	NxmResult	done = nxm_map_write(space, map, key, &write);

	*result = addition.sum;
	return done;
}

NxmResult
nxm_map_scan_slots(NxmSpace *space, NxmMap *map, uint64_t *position,
				   void (*begin) (void *context),
				   NxmResult (*each) (NxmSpace *space, NxmAtomic *slot,
									  uint64_t word, void *context),
				   const uint64_t *seen, void *context)
{
	NxmPlace		place;
	uint32_t	depth;
	uint64_t	step;

	for (int tries = 0;; tries++)
	{
		bool		changed = false;
		NxmResult	result = nxm_map_locate(space, map, *position, &place);

		if (result != NXM_OK)
			return result;
		/* so that the caller can leave its section, and look at interrupts */
		if (tries == NXM_SCAN_TRIES || *seen > NXM_SCAN_BYTES)
		{
			begin(context);
			return NXM_OK;
		}
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		begin(context);
		for (int i = 0; !changed && i < chain_slots(place.header); i++)
		{
			NxmAtomic  *slot = slot_at(&place, i);
			uint64_t	word = nxm_load(slot);

			while ((word & STATE_MASK) == OPEN && word != EMPTY)
			{
				uint64_t	confirmed;

				if (nxm_at(space, word & NXM_REF_MASK) == NULL)
					return NXM_NEED_CHUNK;
				nxm_protect(space, word & NXM_REF_MASK);
				confirmed = nxm_load(slot);
				if (confirmed == word)
				{
					result = each(space, slot, word, context);
					if (result != NXM_OK)
						return result;
					break;
				}
				word = confirmed;
			}
			changed = (word & STATE_MASK) == FROZEN;
		}
		/* a key deleted and inserted again might have been seen twice */
		if (!changed && nxm_load(&place.bucket->header) == place.header &&
			!NXM_LACKS("a quiet bucket"))
			break;
	}
	depth = place.depth + place.log;
	if (depth == 0)
		return NXM_ABSENT;
	step = UINT64_C(1) << (64 - depth);
	*position = (*position & ~(step - 1)) + step;
	return *position == 0 ? NXM_ABSENT : NXM_OK;
}

typedef struct Scan
{
	void		(*begin) (void *context);
	NxmResult	(*each) (NxmSpace *space, NxmRef ref, const NxmItem *item,
						 void *context);
	void	   *context;
	uint64_t	seen;
} Scan;

static void
scan_begin(void *context)
{
	Scan	   *scan = context;

	scan->begin(scan->context);
}

static NxmResult
scan_slot(NxmSpace *space, NxmAtomic *slot, uint64_t word, void *context)
{
	Scan	   *scan = context;
	NxmRef		ref = word & NXM_REF_MASK;
	const NxmItem *item = nxm_at(space, ref);

	(void) slot;
	scan->seen += NXM_ITEM_KEY_LEN(item->header) + NXM_ITEM_LEN(item->header);
	return scan->each(space, ref, item, scan->context);
}

NxmResult
nxm_map_scan(NxmSpace *space, NxmMap *map, uint64_t *position,
			 void (*begin) (void *context),
			 NxmResult (*each) (NxmSpace *space, NxmRef ref,
								const NxmItem *item, void *context),
			 void *context)
{
	Scan		scan = {begin, each, context, 0};

	return nxm_map_scan_slots(space, map, position, scan_begin, scan_slot, &scan.seen, &scan);
}
