/*
 * item.c
 *	  Items: making, reading, freeing.  item.h has the layout.
 */
#include "item.h"

/* References of pieces are at multiples of 8. */
static inline size_t
pieces_offset(uint64_t header)
{
	return (nxm_item_value_offset(header) + 7) & ~(size_t) 7;
}

NxmResult
nxm_item_new_big(NxmSpace *space, const NxmKey *key, const NxmValue *value,
				 uint64_t header, NxmRef *ref)
{
	size_t		offset = nxm_item_value_offset(header);
	size_t		done = 0;
	NxmItem    *item;
	uint64_t   *pieces;

	header |= NXM_ITEM_BIG;
	*ref = nxm_alloc(space, nxm_item_head_bytes(header));
	if (*ref == 0)
		return nxm_no_object(space);
	item = nxm_at(space, *ref);
	NXM_SET(item->header, header);
	if ((header & NXM_ITEM_LINKED) != 0)
		nxm_init(NXM_ITEM_LINK(item), 0);
	if (key != NULL)
		nxm_copy_in((char *) item + offset - key->len, key->data, key->len);

	pieces = (uint64_t *) ((char *) item + pieces_offset(header));
	for (uint32_t i = 0; done < value->len; i++)
	{
		size_t		len = nxm_item_piece_len(value->len - done);
		NxmRef		piece = nxm_alloc(space, nxm_item_piece_bytes(len));

		if (piece == 0)
		{
			NxmResult	why = nxm_no_object(space);

			while (i > 0)
				nxm_free(space, pieces[--i]);
			nxm_free(space, *ref);
			return why;
		}
		NXM_SET(pieces[i], piece);
		nxm_copy_in(nxm_at(space, piece), value->data + done, len);
		done += len;
	}
	return NXM_OK;
}

bool
nxm_item_pieces_are_mapped(NxmSpace *space, const NxmItem *item)
{
	uint64_t	header = NXM_GET(item->header);
	const uint64_t *pieces = (const uint64_t *)
		((const char *) item + pieces_offset(header));

	for (uint32_t i = 0; i < nxm_item_piece_count(NXM_ITEM_LEN(header)); i++)
	{
		if (nxm_at(space, NXM_GET(pieces[i])) == NULL)
			return false;
	}
	return true;
}

void
nxm_item_free_pieces(NxmSpace *space, const NxmItem *item)
{
	uint64_t	header = NXM_GET(item->header);
	const uint64_t *pieces = (const uint64_t *)
		((const char *) item + pieces_offset(header));

	for (uint32_t i = 0; i < nxm_item_piece_count(NXM_ITEM_LEN(header)); i++)
		nxm_free(space, NXM_GET(pieces[i]));
}

void
nxm_item_free(NxmSpace *space, NxmRef ref)
{
	const NxmItem *item = nxm_at(space, ref);

	if (item != NULL && (NXM_GET(item->header) & NXM_ITEM_BIG) != 0)
		nxm_item_free_pieces(space, item);
	nxm_free(space, ref);
}

NxmResult
nxm_item_copy_pieces(NxmSpace *space, const NxmItem *item, NxmBuffer *buffer)
{
	uint64_t	header = NXM_GET(item->header);
	const uint64_t *pieces;
	size_t		done = 0;

	pieces = (const uint64_t *) ((const char *) item + pieces_offset(header));
	for (uint32_t i = 0; done < NXM_ITEM_LEN(header); i++)
	{
		const void *piece = nxm_at(space, NXM_GET(pieces[i]));
		size_t		len = nxm_item_piece_len(NXM_ITEM_LEN(header) - done);

		if (piece == NULL)
			return NXM_NEED_CHUNK;
		nxm_copy_out(buffer->data + done, piece, len);
		done += len;
	}
	return NXM_OK;
}

NxmResult
nxm_item_compare(NxmSpace *space, const NxmItem *item, const NxmValue *value)
{
	uint64_t	header = NXM_GET(item->header);
	const uint64_t *pieces;
	size_t		done = 0;

	if (NXM_ITEM_LEN(header) != value->len || NXM_ITEM_TYPE(header) != value->type)
		return NXM_MISMATCH;
	if ((header & NXM_ITEM_BIG) == 0)
	{
		const char *data = (const char *) item + nxm_item_value_offset(header);

		NXM_READS(data, value->len);
		return memcmp(data, value->data, value->len) == 0 ? NXM_OK : NXM_MISMATCH;
	}
	pieces = (const uint64_t *) ((const char *) item + pieces_offset(header));
	for (uint32_t i = 0; done < value->len; i++)
	{
		const void *piece = nxm_at(space, NXM_GET(pieces[i]));
		size_t		len = nxm_item_piece_len(value->len - done);

		if (piece == NULL)
			return NXM_NEED_CHUNK;
		NXM_READS(piece, len);
		if (memcmp(piece, value->data + done, len) != 0)
			return NXM_MISMATCH;
		done += len;
	}
	return NXM_OK;
}

size_t
nxm_item_big_bytes(uint64_t header)
{
	size_t		bytes = nxm_object_size(nxm_item_head_bytes(header));
	size_t		left = NXM_ITEM_LEN(header);

	while (left > 0)
	{
		size_t		len = nxm_item_piece_len(left);

		bytes += nxm_item_piece_bytes(len);
		left -= len;
	}
	return bytes;
}
