/*
 * space_internal.h
 *	  What the files of the space share: size classes, and the nodes of pages.
 */
#ifndef NXM_SPACE_INTERNAL_H
#define NXM_SPACE_INTERNAL_H

#include "space.h"

/* Bytes of an object of a class. */
static inline size_t
class_size(int class)
{
	int			doubling = (class - 29) / 16;

	if (class < 29)
		return NXM_MIN_OBJECT + 8 * (size_t) class;
	return ((size_t) 256 << doubling) +
		(size_t) ((class - 29) % 16 + 1) * ((size_t) 16 << doubling);
}

/* The class of the smallest objects that hold size bytes. */
static inline int
size_class(size_t size)
{
	int			doubling;

	if (size <= 256)
		return nxm_small_class(size);
	/* size - 1 has its first bit at 8 + doubling */
	doubling = 63 - __builtin_clzll(size - 1) - 8;
	return 29 + 16 * doubling +
		(int) ((size - 1 - ((size_t) 256 << doubling)) >> (4 + doubling));
}

/* The node that a page is on. */
static inline uint32_t
page_node(NxmSpace *space, uint32_t page)
{
	return space->shared->chunks[page >> NXM_CHUNK_PAGE_SHIFT].node;
}

#endif							/* NXM_SPACE_INTERNAL_H */
