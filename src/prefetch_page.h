/*
 * prefetch_page.h
 *	  Reading pages ahead of who needs them, without an error or a warning.
 */
#ifndef NXM_PREFETCH_PAGE_H
#define NXM_PREFETCH_PAGE_H

#include "postgres.h"

#include "storage/block.h"
#include "storage/buf.h"
#include "utils/relcache.h"

/* Is this block of a relation, not a temporary one, in shared_buffers? */
extern bool nxm_is_buffered(Relation rel, BlockNumber block);

/*
 * The page, pinned, the caller's to release.  InvalidBuffer: it is past the
 * relation's end, or reading it would raise an error or a warning.
 */
extern Buffer nxm_read_ahead(Relation rel, BlockNumber block);

/*
 * Does an index-only scan pass over this block of a table?  Also true where the
 * page of the visibility map that tells is damaged.  *vmbuf: a pinned page of
 * the map or InvalidBuffer, the caller's to release.
 */
extern bool nxm_is_passed_over(Relation heap, BlockNumber block, Buffer *vmbuf);

#endif							/* NXM_PREFETCH_PAGE_H */
