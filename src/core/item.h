/*
 * item.h
 *	  Items: a value, with a key in maps and a link in stacks and queues.
 *
 * An item is immutable once published, but for its link.
 *
 *	 header    link       key            value
 *	+--------+---------+--------------+------------------------------+
 *	| 8      | 0 or 8  | 0 to 1024    | 0 to 16 kB less the others   |
 *	+--------+---------+--------------+------------------------------+
 *
 *	header	63   62  61 60 59          32 31       11 10       0
 *			+---+---+------+-------------+-----------+---------+
 *			|big|lnk| type |  position   |  value    |   key   |	lengths in bytes
 *			+---+---+------+-------------+-----------+---------+
 *
 * position: in maps, the first bits of the key's, for splits of small ones.
 *
 * One that would be longer than NXM_MAX_OBJECT is big: in place of the value it
 * has the references of its pieces, which live and die with it: raw pages, and for
 * the rest objects of NXM_MAX_OBJECT, of which a page holds several, and one of some
 * eighths of that.  A rest that all but fills a page has that page.
 */
#ifndef NXM_ITEM_H
#define NXM_ITEM_H

#include "space.h"

#define NXM_MAX_KEY			1024
#define NXM_MAX_VALUE		(1024 * 1024)

/* Of a value; for the layer above, opaque to core but for comparing. */
typedef enum NxmType
{
	NXM_TEXT,
	NXM_BYTEA,
	NXM_JSONB,
	NXM_INTERNAL
} NxmType;

typedef struct NxmItem
{
	uint64_t	header;
	char		data[];
} NxmItem;

typedef struct NxmKey
{
	const char *data;
	uint32_t	len;			/* 1 to NXM_MAX_KEY */
	uint64_t	hash;			/* of data, all 64 bits of good quality */
} NxmKey;

typedef struct NxmValue
{
	const char *data;
	uint32_t	len;			/* up to NXM_MAX_VALUE */
	NxmType		type;
} NxmValue;

/*
 * Where a value is to be put.  On NXM_OK len bytes of data are filled; on
 * NXM_NEED_BUFFER len says how many there would be, and nothing else changed.
 */
typedef struct NxmBuffer
{
	char	   *data;
	size_t		size;
	size_t		len;
	NxmType		type;
} NxmBuffer;

#define NXM_ITEM_BIG		(UINT64_C(1) << 63)
#define NXM_ITEM_LINKED		(UINT64_C(1) << 62)
/* In the header of an item of a map: its position's first bits. */
#define NXM_ITEM_POSITION(p) ((uint64_t) (p) >> 36 << 32)
#define NXM_ITEM_KEY_LEN(h)	((uint32_t) (h) & 0x7FF)
#define NXM_ITEM_LEN(h)		((uint32_t) ((h) >> 11) & 0x1FFFFF)
#define NXM_ITEM_TYPE(h)	((NxmType) (((h) >> 60) & 3))
/* The link of a linked item. */
#define NXM_ITEM_LINK(item)	((NxmAtomic *) (item)->data)

/* Frees one that nobody else can have seen, with its pieces. */
extern void nxm_item_free(NxmSpace *space, NxmRef item);

/* Where the value, or what stands for it, begins in an item of that header. */
static inline size_t
nxm_item_value_offset(uint64_t header)
{
	return sizeof(uint64_t) + ((header & NXM_ITEM_LINKED) != 0 ? 8 : 0) +
		NXM_ITEM_KEY_LEN(header);
}

/* The rest of a value has a page of its own if it leaves less of that than so much. */
#define NXM_ITEM_SPARE		(NXM_PAGE_SIZE / 16)

/* Bytes of the piece of a big item with that many bytes of its value to come. */
static inline size_t
nxm_item_piece_len(size_t left)
{
	size_t		most = left > NXM_PAGE_SIZE - NXM_ITEM_SPARE ? NXM_PAGE_SIZE : NXM_MAX_OBJECT;

	return left < most ? left : most;
}

/*
 * What is allocated for such a piece, which is the size of a class, or a page: the last
 * ones of all lengths share pages of eight classes, where each class would have a page
 * that is partly empty, counted nowhere.
 */
static inline size_t
nxm_item_piece_bytes(size_t len)
{
	size_t		step = NXM_MAX_OBJECT / 8;

	return len > NXM_MAX_OBJECT ? NXM_PAGE_SIZE : (len + step - 1) / step * step;
}

/* Pieces of a big item whose value is so long. */
static inline uint32_t
nxm_item_piece_count(uint32_t len)
{
	uint32_t	rest = len % NXM_PAGE_SIZE;

	return len / NXM_PAGE_SIZE +
		(rest > NXM_PAGE_SIZE - NXM_ITEM_SPARE ? 1 :
		 (rest + NXM_MAX_OBJECT - 1) / NXM_MAX_OBJECT);
}

/* Bytes of the object that an item of that header is, without its pieces. */
static inline size_t
nxm_item_head_bytes(uint64_t header)
{
	if ((header & NXM_ITEM_BIG) == 0)
		return nxm_item_value_offset(header) + NXM_ITEM_LEN(header);
	/* references of pieces are at multiples of 8 */
	return ((nxm_item_value_offset(header) + 7) & ~(size_t) 7) +
		nxm_item_piece_count(NXM_ITEM_LEN(header)) * sizeof(uint64_t);
}

/* For nxm_item_new(): a big item, of a header that does not say so yet. */
extern NxmResult nxm_item_new_big(NxmSpace *space, const NxmKey *key,
								  const NxmValue *value, uint64_t header,
								  NxmRef *ref);

/*
 * Makes an unpublished item.  key NULL: none.  bits: of the header: NXM_ITEM_LINKED,
 * with a link, set to 0; or NXM_ITEM_POSITION().  On anything but NXM_OK there is
 * none and nothing is lost.
 */
static inline __attribute__((always_inline)) NxmResult
nxm_item_new(NxmSpace *space, const NxmKey *key, const NxmValue *value, uint64_t bits,
			 NxmRef *ref)
{
	uint32_t	key_len = key == NULL ? 0 : key->len;
	uint64_t	header = key_len | (uint64_t) value->len << 11 |
		(uint64_t) value->type << 60 | bits;
	size_t		offset = sizeof(uint64_t) +
		((bits & NXM_ITEM_LINKED) != 0 ? sizeof(uint64_t) : 0) + key_len;
	NxmItem    *item;

	if (key_len > NXM_MAX_KEY || value->len > NXM_MAX_VALUE)
		return NXM_TOO_LONG;
	if (offset + value->len > NXM_MAX_OBJECT)
		return nxm_item_new_big(space, key, value, header, ref);
	*ref = nxm_alloc(space, offset + value->len);
	if (*ref == 0)
		return nxm_no_object(space);
	item = nxm_at(space, *ref);

	NXM_SET(item->header, header);
	if ((bits & NXM_ITEM_LINKED) != 0)
		nxm_init(NXM_ITEM_LINK(item), 0);
	if (key_len > 0)
		nxm_copy_in_short((char *) item + offset - key_len, key->data, key_len);
	nxm_copy_in((char *) item + offset, value->data, value->len);
	return NXM_OK;
}

/* The following want it protected, or the caller's own. */

/* Key bytes: NXM_ITEM_KEY_LEN of them. */
static inline const char *
nxm_item_key(const NxmItem *item)
{
	uint64_t	header = NXM_GET(item->header);
	const char *key = (const char *) item + nxm_item_value_offset(header) -
		NXM_ITEM_KEY_LEN(header);

	NXM_READS(key, NXM_ITEM_KEY_LEN(header));
	return key;
}

static inline bool
nxm_item_has_key(const NxmItem *item, const NxmKey *key)
{
	return NXM_ITEM_KEY_LEN(NXM_GET(item->header)) == key->len &&
		nxm_bytes_equal(nxm_item_key(item), key->data, key->len);
}

/* For nxm_item_copy(): the value of a big item, which fits. */
extern NxmResult nxm_item_copy_pieces(NxmSpace *space, const NxmItem *item,
									  NxmBuffer *buffer);

/* NXM_OK, NXM_NEED_BUFFER, or for a big item NXM_NEED_CHUNK. */
static inline NxmResult
nxm_item_copy(NxmSpace *space, const NxmItem *item, NxmBuffer *buffer)
{
	uint64_t	header = NXM_GET(item->header);
	uint32_t	len = NXM_ITEM_LEN(header);

	buffer->len = len;
	buffer->type = NXM_ITEM_TYPE(header);
	if (len > buffer->size)
		return NXM_NEED_BUFFER;
	if (__builtin_expect((header & NXM_ITEM_BIG) != 0, 0))
		return nxm_item_copy_pieces(space, item, buffer);
	nxm_copy_out(buffer->data,
				 (const char *) item + nxm_item_value_offset(header), len);
	return NXM_OK;
}

/* For nxm_item_is_mapped(): of a big item. */
extern bool nxm_item_pieces_are_mapped(NxmSpace *space, const NxmItem *item);

/*
 * Are its pieces mapped in this process?  Whoever is going to retire an item
 * must be able to free them; false: need_chunk is set.
 */
static inline bool
nxm_item_is_mapped(NxmSpace *space, const NxmItem *item)
{
	return __builtin_expect((NXM_GET(item->header) & NXM_ITEM_BIG) == 0, 1) ||
		nxm_item_pieces_are_mapped(space, item);
}

/*
 * For a pop, in place: may the item be taken into the buffer?  NXM_MISMATCH: it
 * is of another type, unless that is -1.  A big one is copied already, for that
 * may want pieces mapped; others by nxm_item_copy_popped(), once they are taken.
 * No buffer: it is taken to be freed.
 */
static inline NxmResult
nxm_item_check_pop(NxmSpace *space, const NxmItem *item, int type,
				   NxmBuffer *buffer)
{
	uint64_t	header;

	if (buffer == NULL)
		return nxm_item_is_mapped(space, item) ? NXM_OK : NXM_NEED_CHUNK;
	header = NXM_GET(item->header);
	buffer->len = NXM_ITEM_LEN(header);
	buffer->type = NXM_ITEM_TYPE(header);
	if (type >= 0 && buffer->type != (NxmType) type)
		return NXM_MISMATCH;
	if (buffer->len > buffer->size)
		return NXM_NEED_BUFFER;
	return (header & NXM_ITEM_BIG) != 0 ?
		nxm_item_copy_pieces(space, item, buffer) : NXM_OK;
}

static inline void
nxm_item_copy_popped(NxmSpace *space, const NxmItem *item, NxmBuffer *buffer)
{
	if (buffer != NULL && (NXM_GET(item->header) & NXM_ITEM_BIG) == 0)
		(void) nxm_item_copy(space, item, buffer);
}

/* NXM_OK: the same type and bytes.  NXM_MISMATCH: not. */
extern NxmResult nxm_item_compare(NxmSpace *space, const NxmItem *item,
								  const NxmValue *value);

/* For nxm_item_bytes(): of a big item. */
extern size_t nxm_item_big_bytes(uint64_t header);

/* Bytes of memory that it takes, pieces included. */
static inline size_t
nxm_item_bytes(const NxmItem *item)
{
	uint64_t	header = NXM_GET(item->header);

	if (__builtin_expect((header & NXM_ITEM_BIG) != 0, 0))
		return nxm_item_big_bytes(header);
	return nxm_object_size(nxm_item_head_bytes(header));
}

/* nxm_item_bytes() of an item of one header less that of another. */
static inline int64_t
nxm_item_more_bytes(const NxmItem *item, const NxmItem *than)
{
	/* most often the lengths are the same */
	if (__builtin_expect((uint32_t) (NXM_GET(item->header) ^ NXM_GET(than->header)) == 0, 1))
		return 0;
	return (int64_t) nxm_item_bytes(item) - (int64_t) nxm_item_bytes(than);
}

/* For nxm_retire(): in all other cases. */
extern void nxm_retire_slow(NxmSpace *space, NxmRef ref);

/*
 * An item that can no longer be found, and is mapped with its pieces.  It is of the
 * account that this process allocates from, see nxm_allocate_from().
 */
static inline void
nxm_retire(NxmSpace *space, NxmRef ref)
{
	NxmProcLocal *local = space->local;
	const NxmItem *item = nxm_at(space, ref);
	uint64_t	header = NXM_GET(item->header);
	size_t		size = nxm_item_value_offset(header) + NXM_ITEM_LEN(header);

	if (__builtin_expect(local->nlimbo == NXM_LIMBO || size > 256 || space->account != 0, 0))
	{
		nxm_retire_slow(space, ref);
		return;
	}
	local->limbo[local->nlimbo++] = ref |
		(uint64_t) nxm_small_class(size) << NXM_LIMBO_CLASS_SHIFT;
	if (local->nlimbo == NXM_LIMBO)
		space->limbo_due = true;
}

/* For space_reclaim.c: frees the pieces of a big item. */
extern void nxm_item_free_pieces(NxmSpace *space, const NxmItem *item);

#endif							/* NXM_ITEM_H */
