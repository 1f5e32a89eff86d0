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

/* The following want it protected, or the caller's own. */
extern bool nxm_item_has_key(const NxmItem *item, const NxmKey *key);
extern NxmResult nxm_item_copy(NxmSpace *space, const NxmItem *item,
							   NxmBuffer *buffer);
/* NXM_OK: the same type and bytes.  NXM_MISMATCH: not. */
extern NxmResult nxm_item_compare(NxmSpace *space, const NxmItem *item,
								  const NxmValue *value);
/* Key bytes, for iteration: NXM_ITEM_KEY_LEN of them. */
extern const char *nxm_item_key(const NxmItem *item);

/*
 * Are its pieces mapped in this process?  Whoever is going to retire an item
 * must be able to free them; false: need_chunk is set.
 */
extern bool nxm_item_is_mapped(NxmSpace *space, const NxmItem *item);

/* Bytes of memory that it takes, pieces included. */
extern size_t nxm_item_bytes(const NxmItem *item);

/* For space.c: frees the pieces of a big item. */
extern void nxm_item_free_pieces(NxmSpace *space, const NxmItem *item);

#endif							/* NXM_ITEM_H */
