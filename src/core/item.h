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
 *	header	63   62  61 60     56          24        11 10       0
 *			+---+---+------+-------------+-----------+---------+
 *			|big|lnk| type |             |  value    |   key   |	lengths in bytes
 *			+---+---+------+-------------+-----------+---------+
 *
 * One that would be longer than NXM_MAX_OBJECT is big: in place of the value it
 * has the references of its pieces, raw pages and for the rest an object, which
 * live and die with it.
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
#define NXM_ITEM_KEY_LEN(h)	((uint32_t) (h) & 0x7FF)
#define NXM_ITEM_LEN(h)		((uint32_t) ((h) >> 11) & 0x1FFFFF)
#define NXM_ITEM_TYPE(h)	((NxmType) (((h) >> 60) & 3))
/* The link of a linked item. */
#define NXM_ITEM_LINK(item)	((NxmAtomic *) (item)->data)

/*
 * Makes an unpublished item.  key NULL: none.  linked: with a link, set to 0.
 * On anything but NXM_OK there is none and nothing is lost.
 */
extern NxmResult nxm_item_new(NxmSpace *space, const NxmKey *key,
							  const NxmValue *value, bool linked, NxmRef *item);

/* Frees one that nobody else can have seen, with its pieces. */
extern void nxm_item_free(NxmSpace *space, NxmRef item);

/* Where the value, or what stands for it, begins in an item of that header. */
static inline size_t
nxm_item_value_offset(uint64_t header)
{
	return sizeof(uint64_t) + ((header & NXM_ITEM_LINKED) != 0 ? 8 : 0) +
		NXM_ITEM_KEY_LEN(header);
}

/* Pieces of a big item whose value is so long. */
static inline uint32_t
nxm_item_piece_count(uint32_t len)
{
	return (len + NXM_PAGE_SIZE - 1) / NXM_PAGE_SIZE;
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
		memcmp(nxm_item_key(item), key->data, key->len) == 0;
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

/*
 * Are its pieces mapped in this process?  Whoever is going to retire an item
 * must be able to free them; false: need_chunk is set.
 */
extern bool nxm_item_is_mapped(NxmSpace *space, const NxmItem *item);

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

/* For space_reclaim.c: frees the pieces of a big item. */
extern void nxm_item_free_pieces(NxmSpace *space, const NxmItem *item);

#endif							/* NXM_ITEM_H */
