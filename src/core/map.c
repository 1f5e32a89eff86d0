/*
 * map.c
 *	  The hash map: looking up, writing, iterating.  map.h has the design.
 *
 * Orders.  Slots and headers are changed by CAS alone (release) and read with
 * acquire where what they name is read; a scan over the tags is relaxed, and a
 * slot that it found is read again with acquire after its item was protected.
 * Successor segments are published by the CAS of `next`, directories by the
 * store of `directory`.
 */
#include "map_internal.h"

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

NxmResult
nxm_map_init(NxmSpace *space, NxmMap *map)
{
	uint64_t	body = nxm_map_new_body(space);

	if (body == 0)
		return nxm_no_object(space);
	nxm_store(&map->directory, body);
	return NXM_OK;
}

/* Finds the OPEN bucket of a position, migrating what is on the way to it. */
static NxmResult
locate(NxmSpace *space, NxmMap *map, uint64_t position, NxmPlace *place)
{
	uint64_t	directory;
	NxmAtomic  *entry;
	uint64_t	word;

again:
	directory = nxm_load(&map->directory);
	if ((directory & NXM_REF_MASK) == 0)
		return NXM_DROPPED;
	entry = directory_entry(space, directory,
							first_bits(position, directory_depth(directory)));
	if (entry == NULL)
		return NXM_NEED_CHUNK;
	word = nxm_load(entry);
	/* of a body that has been cut off and drained meanwhile */
	if ((word & NXM_REF_MASK) == 0)
		goto again;
	place->parent = NULL;
	place->log = (uint32_t) (word >> ENTRY_LOG_SHIFT) & 0x3F;
	place->depth = (uint32_t) (word >> ENTRY_DEPTH_SHIFT) & 0x3F;
	place->seg = nxm_at(space, word & NXM_REF_MASK);
	if (place->seg == NULL)
		return NXM_NEED_CHUNK;

	for (;;)
	{
		uint64_t	b = bucket_number(position, place->depth, place->log);
		uint64_t	next;
		NxmResult	result;

		place->bucket = &place->seg->bucket[b];
		__builtin_prefetch(&place->bucket->slot[NXM_BUCKET_SLOTS / 2]);
		place->header = nxm_load(&place->bucket->header);
		if ((place->header & H_STATUS) == H_OPEN)
		{
			place->overflow = overflows_of(place->seg, place->log);
			return NXM_OK;
		}

		next = nxm_load(&place->seg->next);
		if (next == CUT)
			goto again;
		if ((place->header & H_MIGRATED) == 0)
		{
			result = nxm_map_migrate(space, place->seg, (uint32_t) b);
			if (result != NXM_OK)
				return result;
		}
		place->parent = place->seg;
		place->seg = nxm_at(space, next);
		if (place->seg == NULL)
			return NXM_NEED_CHUNK;
		if (NXM_GET(place->seg->sibling) != 0)
		{
			if ((position << place->depth >> 63) != 0)
			{
				place->seg = nxm_at(space, NXM_GET(place->seg->sibling));
				if (place->seg == NULL)
					return NXM_NEED_CHUNK;
			}
		}
		place->depth = NXM_GET(place->seg->depth);
		place->log = NXM_GET(place->seg->log);
	}
}

/*
 * Looks a key up in the chain at place.  *item: its protected item, *slot and
 * *word where it is; NULL if there is none.  NXM_EXISTS: the chain changes its
 * shape: locate it anew.
 */
static inline __attribute__((always_inline)) NxmResult
look_up(NxmSpace *space, const NxmPlace *place, uint64_t tag, const NxmKey *key,
		NxmItem **item, int *slot, uint64_t *word)
{
	uint64_t	want = OPEN | tag;
	NxmAtomic  *at = place->bucket->slot;
	int			end = NXM_BUCKET_SLOTS;

	*item = NULL;
	for (int i = 0;; i++, at++)
	{
		uint64_t	w;

		if (i == end)
		{
			if (end == chain_slots(place->header))
				return NXM_OK;
			end = CHAIN_SLOTS;
			at = slot_at(place, place->header, i);
		}
		w = nxm_load_relaxed(at);

again:
		/*
		 * One test for the many slots of no interest: 0 is our tag in an OPEN
		 * one, and the first bit is set in those TENTATIVE and FROZEN.
		 */
		if ((int64_t) ((w ^ want) & (STATE_MASK | TAG_MASK)) > 0)
			continue;
		if ((w & STATE_MASK) == OPEN)
		{
			uint64_t	confirmed;

			if (w == EMPTY)
				continue;
			*item = nxm_at(space, w & NXM_REF_MASK);
			if (*item == NULL)
				return NXM_NEED_CHUNK;
			/* they come while the fence waits */
			__builtin_prefetch(*item);
			__builtin_prefetch((char *) *item + NXM_CACHE_LINE);
			nxm_protect(space, w & NXM_REF_MASK);
			confirmed = nxm_load(at);
			if (confirmed != w)
			{
				*item = NULL;
				w = confirmed;
				goto again;
			}
			if (nxm_item_has_key(*item, key))
			{
				*slot = i;
				*word = w;
				return NXM_OK;
			}
			*item = NULL;
		}
		else if ((w & STATE_MASK) == FROZEN)
			return NXM_EXISTS;
		else if ((w & TAG_MASK) == tag)
		{
			uint64_t	header = nxm_load(&place->bucket->header);

			if (pending_slot(header) == i)
			{
				nxm_map_complete_pending(space, place, header);
				return NXM_EXISTS;
			}
		}
	}
}

/* The number of an EMPTY slot of the chain, or -1. */
static int
empty_slot(const NxmPlace *place)
{
	int			n = chain_slots(place->header);

	for (int i = 0; i < n; i++)
		if (nxm_load_relaxed(slot_at(place, place->header, i)) == EMPTY)
			return i;
	return -1;
}

NxmResult
nxm_map_get(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmBuffer *buffer)
{
	uint64_t	position = position_of(key->hash);

	for (;;)
	{
		NxmPlace		place;
		NxmItem    *item;
		int			slot;
		uint64_t	word;
		NxmResult	result = locate(space, map, position, &place);

		if (result != NXM_OK)
			return result;
		result = look_up(space, &place, tag_of(position), key, &item, &slot,
						 &word);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			return result;
		if (item == NULL)
			return NXM_ABSENT;
		NXM_PAUSE("get");
		return nxm_item_copy(space, item, buffer);
	}
}

/* Makes the item that a write stores. */
static NxmResult
make_item(NxmSpace *space, const NxmKey *key, uint64_t position,
		  const NxmWrite *write, NxmRef *ref, size_t *bytes)
{
	NxmResult	result = nxm_item_new(space, key, &write->value, false, ref);
	NxmItem    *item;

	if (result != NXM_OK)
	{
		*ref = 0;
		return result;
	}
	item = nxm_at(space, *ref);
	/* the position's first bits, for splits of small maps */
	NXM_SET(item->header, item->header | position >> 36 << 32);
	*bytes = nxm_item_bytes(item);
	return NXM_OK;
}

/*
 * Puts a new item into an EMPTY slot of the chain as it was looked up.  false:
 * something changed, the item is still ours.
 */
static bool
insert(NxmSpace *space, const NxmPlace *place, int slot, uint64_t tag, NxmRef ref)
{
	NxmAtomic  *at = slot_at(place, place->header, slot);
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

NxmResult
nxm_map_write(NxmSpace *space, NxmMap *map, const NxmKey *key, NxmWrite *write)
{
	uint64_t	position = position_of(key->hash);
	uint64_t	tag = tag_of(position);
	NxmSegment    *growing = NULL;
	NxmRef		ref = 0;		/* of the item that we store */
	size_t		bytes = 0;
	NxmResult	result;

	for (;;)
	{
		NxmPlace		place;
		NxmItem    *item;
		int			slot = 0;
		int			free;
		uint64_t	word = 0;
		NxmAction	action;

		result = locate(space, map, position, &place);
		if (result != NXM_OK)
			break;
		if (place.parent != NULL)
			growing = place.parent;
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		result = look_up(space, &place, tag, key, &item, &slot, &word);
		if (result == NXM_EXISTS)
			continue;
		if (result != NXM_OK)
			break;

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
				NxmResult	made = make_item(space, key, position, write, &ref,
											 &bytes);

				if (made != NXM_OK)
				{
					result = made;
					break;
				}
			}
		}

		if (item != NULL)
		{
			uint64_t	header = nxm_load(&place.bucket->header);
			size_t		old_bytes;

			/* a slot is changed only when its insert is not pending any more */
			if (pending_slot(header) == slot)
			{
				nxm_map_complete_pending(space, &place, header);
				continue;
			}
			if (!nxm_item_is_mapped(space, item))
			{
				result = NXM_NEED_CHUNK;
				break;
			}
			old_bytes = nxm_item_bytes(item);
			if (!nxm_cas(slot_at(&place, place.header, slot), &word,
						 action == NXM_STORE ? OPEN | tag | ref : EMPTY))
				continue;
			nxm_retire(space, word & NXM_REF_MASK);
			if (action == NXM_STORE)
				nxm_map_count(space, map, 0, (int64_t) bytes - (int64_t) old_bytes);
			else
				nxm_map_count(space, map, -1, -(int64_t) old_bytes);
			if (action == NXM_STORE)
				ref = 0;
			break;
		}

		free = empty_slot(&place);
		if (free < 0)
		{
			NxmResult	made = nxm_map_make_room(space, map, &place, position);

			if (made != NXM_OK)
			{
				result = made;
				break;
			}
			continue;
		}
		if (insert(space, &place, free, tag, ref))
		{
			ref = 0;
			nxm_map_count(space, map, 1, (int64_t) bytes);
			break;
		}
	}
	if (ref != 0)
		nxm_item_free(space, ref);
	if (growing != NULL)
		nxm_map_help_growth(space, map, growing, position);
	return result;
}

static NxmAction
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
	NxmWrite	write = {.decide = decide_put,.value = *value};

	return nxm_map_write(space, map, key, &write);
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

	return nxm_map_write(space, map, key, &write);
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
nxm_map_scan(NxmSpace *space, NxmMap *map, uint64_t *position,
			 void (*begin) (void *context),
			 NxmResult (*each) (NxmSpace *space, NxmRef ref,
								const NxmItem *item, void *context),
			 void *context)
{
	NxmPlace		place;
	uint32_t	depth;
	uint64_t	step;

	for (int tries = 0;; tries++)
	{
		bool		changed = false;
		NxmResult	result = locate(space, map, *position, &place);

		if (result != NXM_OK)
			return result;
		/* so that the caller can look at interrupts */
		if (tries == 64)
			return NXM_OK;
		if ((place.header & H_PENDING) != 0)
		{
			nxm_map_complete_pending(space, &place, place.header);
			continue;
		}
		begin(context);
		for (int i = 0; !changed && i < chain_slots(place.header); i++)
		{
			NxmAtomic  *slot = slot_at(&place, place.header, i);
			uint64_t	word = nxm_load(slot);
			NxmItem    *item;

			while ((word & STATE_MASK) == OPEN && word != EMPTY)
			{
				uint64_t	confirmed;

				item = nxm_at(space, word & NXM_REF_MASK);
				if (item == NULL)
					return NXM_NEED_CHUNK;
				nxm_protect(space, word & NXM_REF_MASK);
				confirmed = nxm_load(slot);
				if (confirmed == word)
				{
					result = each(space, word & NXM_REF_MASK, item, context);
					if (result != NXM_OK)
						return result;
					break;
				}
				word = confirmed;
			}
			changed = (word & STATE_MASK) == FROZEN;
		}
		/* a key deleted and inserted again might have been seen twice */
		if (!changed && nxm_load(&place.bucket->header) == place.header)
			break;
	}
	depth = place.depth + place.log;
	if (depth == 0)
		return NXM_ABSENT;
	step = UINT64_C(1) << (64 - depth);
	*position = (*position & ~(step - 1)) + step;
	return *position == 0 ? NXM_ABSENT : NXM_OK;
}
