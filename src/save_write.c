/*
 * save_write.c
 *	  Writes the file of saved structures; save_file.h has its format.
 *
 * The structures stand still meanwhile, see save.c.  Each is copied bucket by
 * bucket, or value by value, into frames.
 *
 * Caches come last.  Where there is no room for them, or no time, the file ends with the
 * structures, which a cache can do without.
 *
 * Limits: it gives up after WRITE_LIMIT_MS.  Of caches it writes what it can until
 * CACHES_LIMIT_MS.
 */
#include "save_file.h"

#include <unistd.h>

#include "caches.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#define WRITE_LIMIT_MS		30000	/* the last fsync not counted */
#define CACHES_LIMIT_MS		20000	/* of these */
#define BLOCK_SIZE			(256 * 1024)

/* One save.  Private memory. */
typedef struct Saver
{
	NxmSpace   *space;
	int64		deadline;		/* as nxm_steady_ms() */
	int64		caches_deadline;
	bool		with_caches;	/* they are to be saved */
	bool		caches;			/* it is their turn */
	bool		cut_short;		/* some entries of caches were left out */
	int			fd;
	char	   *block;			/* not written yet */
	size_t		block_used;
	uint64		length;			/* of the file so far, block included */
	pg_crc32c	body_crc;
	uint32		objects;

	/* the same where the structures end, and the first cache begins; 0: not there yet */
	uint64		structures_length;
	pg_crc32c	structures_crc;
	uint32		structures;

	/* the frame being filled */
	char	   *frame;			/* NXM_FRAME_MAX bytes, behind the frame itself */
	size_t		frame_used;
	uint32		frame_count;

	/* the entries of the bucket that a scan reads, as in a frame */
	char	   *bucket;
	size_t		bucket_size;
	size_t		bucket_used;
	size_t		wanted;			/* bucket_size that the last NEED_BUFFER was for */

	const char *what_failed;	/* NULL: all is well */
	int			failed_errno;	/* 0: what_failed says it all */
} Saver;

static bool
fail(Saver *saver, const char *what, int err)
{
	if (saver->what_failed == NULL)
	{
		saver->what_failed = what;
		saver->failed_errno = err;
	}
	return false;
}

static bool
flush_block(Saver *saver)
{
	const char *what_failed;
	bool		ok = nxm_saved_write(saver->fd, saver->block, saver->block_used,
									 saver->length - saver->block_used,
									 &what_failed);

	saver->block_used = 0;
	return ok || fail(saver, what_failed, errno);
}

static bool
put(Saver *saver, const void *data, size_t len)
{
	const char *p = data;

	COMP_CRC32C(saver->body_crc, data, len);
	while (len > 0)
	{
		size_t		n = Min(len, BLOCK_SIZE - saver->block_used);

		memcpy(saver->block + saver->block_used, p, n);
		saver->block_used += n;
		saver->length += n;
		p += n;
		len -= n;
		if (saver->block_used == BLOCK_SIZE && !flush_block(saver))
			return false;
	}
	return true;
}

/* Writes the frame that was filled, and begins an empty one. */
static bool
put_frame(Saver *saver, NxmSaveFrameType type)
{
	NxmSaveFrame frame;

	/* load.c refuses a file with a longer one */
	Assert(saver->frame_used <= NXM_FRAME_MAX);
	frame.type = type;
	frame.length = (uint32) saver->frame_used;
	frame.count = saver->frame_count;
	INIT_CRC32C(frame.crc);
	COMP_CRC32C(frame.crc, &frame.type,
				sizeof(frame) - offsetof(NxmSaveFrame, type));
	COMP_CRC32C(frame.crc, saver->frame, saver->frame_used);
	FIN_CRC32C(frame.crc);

	if (!put(saver, &frame, sizeof(frame)) ||
		!put(saver, saver->frame, saver->frame_used))
		return false;
	saver->frame_used = 0;
	saver->frame_count = 0;
	if (nxm_steady_ms() > saver->deadline)
		return fail(saver, "writing took too long", 0);
	CHECK_FOR_INTERRUPTS();
	return true;
}

/* Adds to the frame; there is room. */
static void
add(Saver *saver, const void *data, size_t len)
{
	Assert(len <= NXM_FRAME_MAX - saver->frame_used);
	memcpy(saver->frame + saver->frame_used, data, len);
	saver->frame_used += len;
}

/* An entry was added to the frame, which is written once it is full. */
static bool
end_entry(Saver *saver, uint32 *entries)
{
	saver->frame_count++;
	(*entries)++;
	return saver->frame_used < NXM_FRAME_FILL ||
		put_frame(saver, NXM_FRAME_ENTRIES);
}

static void
begin_bucket(void *context)
{
	Saver	   *saver = context;

	saver->bucket_used = 0;
}

/* In a section: an entry of a map goes to the bucket's others. */
static NxmResult
add_item(NxmSpace *space, NxmRef ref, const NxmItem *item, void *context)
{
	Saver	   *saver = context;
	NxmSaveEntry entry;
	NxmBuffer	value;
	NxmResult	r;
	char	   *p;

	(void) ref;
	entry.key_len = (uint16) NXM_ITEM_KEY_LEN(item->header);
	entry.value_len = NXM_ITEM_LEN(item->header);
	entry.type = (uint16) NXM_ITEM_TYPE(item->header);
	saver->wanted = saver->bucket_used + sizeof(entry) + entry.key_len +
		entry.value_len;
	if (saver->wanted > saver->bucket_size)
		return NXM_NEED_BUFFER;

	p = saver->bucket + saver->bucket_used;
	value.data = p + sizeof(entry) + entry.key_len;
	value.size = entry.value_len;
	r = nxm_item_copy(space, item, &value);
	if (r != NXM_OK)
		return r;
	memcpy(p, &entry, sizeof(entry));
	memcpy(p + sizeof(entry), nxm_item_key(item), entry.key_len);
	saver->bucket_used = saver->wanted;
	return NXM_OK;
}

/* In a section: an entry of a cache goes to the bucket's others. */
static NxmResult
add_cache_entry(NxmCacheView *view, const NxmCacheEntry *from, void *context)
{
	Saver	   *saver = context;
	NxmSaveEntry entry;
	TimestampTz deadline = from->deadline == 0 ? 0 : nxm_cache_timestamp(from->deadline);
	NxmBuffer	value;
	NxmResult	r;
	char	   *p;

	entry.key_len = (uint16) from->key_len;
	entry.value_len = from->len;
	entry.type = (uint16) from->type;
	saver->wanted = saver->bucket_used + sizeof(entry) + sizeof(deadline) +
		entry.key_len + entry.value_len;
	if (saver->wanted > saver->bucket_size)
		return NXM_NEED_BUFFER;

	p = saver->bucket + saver->bucket_used;
	memcpy(p + sizeof(entry), &deadline, sizeof(deadline));
	memcpy(p + sizeof(entry) + sizeof(deadline), from->key, from->key_len);
	value.data = p + sizeof(entry) + sizeof(deadline) + entry.key_len;
	value.size = saver->bucket_size -
		(saver->bucket_used + sizeof(entry) + sizeof(deadline) + entry.key_len);
	r = nxm_cache_entry_value(view, from, &value);
	if (r == NXM_ABSENT)
		return NXM_OK;
	if (r == NXM_NEED_BUFFER)
		saver->wanted += value.len - entry.value_len;
	if (r != NXM_OK)
		return r;
	entry.value_len = (uint32) value.len;
	entry.type = (uint16) value.type;
	memcpy(p, &entry, sizeof(entry));
	saver->bucket_used += sizeof(entry) + sizeof(deadline) + entry.key_len +
		entry.value_len;
	return NXM_OK;
}

/*
 * Moves a bucket's entries into frames.  One by one, since a bucket of long values
 * is longer than a frame may be.
 */
static bool
put_bucket(Saver *saver, uint32 *entries)
{
	size_t		more = saver->caches ? sizeof(int64) : 0;

	for (size_t at = 0; at < saver->bucket_used;)
	{
		NxmSaveEntry entry;
		size_t		len;

		memcpy(&entry, saver->bucket + at, sizeof(entry));
		len = sizeof(entry) + more + entry.key_len + entry.value_len;
		if (len > NXM_FRAME_MAX - saver->frame_used)
			return fail(saver, "an entry is too long", 0);
		add(saver, saver->bucket + at, len);
		at += len;
		if (!end_entry(saver, entries))
			return false;
	}
	return true;
}

/* Where the scan of a map or of a cache is. */
typedef union ScanPlace
{
	uint64_t	map;
	NxmCacheCursor cache;
} ScanPlace;

/* Reads some entries of a map or of a cache into the bucket, and goes on. */
static NxmResult
scan_some(Saver *saver, const NxmObjectInfo *info, ScanPlace *place)
{
	NxmCacheView *view = info->kind == NXM_KIND_CACHE ? nxm_cache_view() : NULL;
	NxmObject  *object;
	NxmResult	r;

	nxm_begin_operation();
	nxm_enter(saver->space);
	r = nxm_object_find(info, &object);
	if (r == NXM_OK)
		r = view == NULL ?
			nxm_map_scan(saver->space, &object->u.map, &place->map,
						 begin_bucket, add_item, saver) :
			nxm_cache_scan(view, &object->u.c.cache, &place->cache,
						   begin_bucket, add_cache_entry, saver);
	nxm_leave(saver->space);
	nxm_end_operation();
	return r;
}

/* For `wanted` bytes.  What the bucket has is read again. */
static bool
grow_bucket(Saver *saver)
{
	pfree(saver->bucket);
	saver->bucket_size = Max(saver->wanted, saver->bucket_size * 2);
	saver->bucket = palloc_extended(saver->bucket_size,
									MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	return saver->bucket != NULL || fail(saver, "out of memory", 0);
}

/* The entries of a map, or of a cache, the latter as long as there is time. */
static bool
save_entries(Saver *saver, const NxmObjectInfo *info, uint32 *entries)
{
	ScanPlace	place;
	NxmResult	r;

	memset(&place, 0, sizeof(place));
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (info->kind == NXM_KIND_CACHE &&
			nxm_steady_ms() > saver->caches_deadline)
		{
			saver->cut_short = true;
			return true;
		}
		r = scan_some(saver, info, &place);
		if (r == NXM_ABSENT || r == NXM_OK)
		{
			if (!put_bucket(saver, entries))
				return false;
			/* a scan of a cache may end without a bucket to begin */
			saver->bucket_used = 0;
		}
		else if (r == NXM_NEED_BUFFER)
		{
			if (!grow_bucket(saver))
				return false;
		}
		else if (r == NXM_DROPPED)
			return true;
		else if (!nxm_again(saver->space, r))
			return fail(saver, "a structure could not be read", 0);
	} while (r != NXM_ABSENT);
	return true;
}

/* A stack or a queue. */
static bool
save_list(Saver *saver, const NxmObjectInfo *info, uint32 *entries)
{
	NxmRef		at = 0;

	do
	{
		NxmObject  *object;
		NxmBuffer	value;
		NxmSaveEntry entry;
		NxmResult	r;

		value.data = saver->frame + saver->frame_used + sizeof(entry);
		value.size = NXM_FRAME_MAX - saver->frame_used - sizeof(entry);
		nxm_begin_operation();
		nxm_enter(saver->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
			r = info->kind == NXM_KIND_STACK ?
				nxm_stack_peek(saver->space, &object->u.stack, &at, &value) :
				nxm_queue_peek(saver->space, &object->u.queue, &at, &value);
		nxm_leave(saver->space);
		nxm_end_operation();

		if (r == NXM_ABSENT || r == NXM_DROPPED)
			break;
		/* the frame has room for the longest value */
		if (r == NXM_NEED_BUFFER)
			return fail(saver, "a value is too long", 0);
		if (nxm_again(saver->space, r))
			continue;
		if (r != NXM_OK)
			return fail(saver, "a stack or a queue could not be read", 0);

		entry.key_len = 0;
		entry.value_len = (uint32) value.len;
		entry.type = (uint16) value.type;
		add(saver, &entry, sizeof(entry));
		saver->frame_used += value.len;
		if (!end_entry(saver, entries))
			return false;
		if (at == 0)
			break;
	} while (true);
	return true;
}

/* false: it is none, or has no value. */
static bool
read_counter(Saver *saver, const NxmObjectInfo *info, int64 *value)
{
	NxmResult	r;

	do
	{
		NxmObject  *object;
		int64_t		v = 0;

		nxm_begin_operation();
		nxm_enter(saver->space);
		r = nxm_object_find(info, &object);
		if (r == NXM_OK)
			r = nxm_counter_get(saver->space, &object->u.counter, &v);
		nxm_leave(saver->space);
		nxm_end_operation();
		*value = v;
	} while (nxm_again(saver->space, r));

	if (r == NXM_OVERFLOW)
		ereport(WARNING,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("counter \"%s\" was not saved: its value is out of range",
						info->name)));
	return r == NXM_OK;
}

/*
 * Before the first cache: what is there of structures could be the whole file.  It is
 * flushed, so that an error in flushing what comes later is not one about them.
 */
static bool
end_structures(Saver *saver)
{
	if (!flush_block(saver))
		return false;
	if (saver->objects > 0 && pg_fsync(saver->fd) != 0)
		return fail(saver, "could not fsync the file", errno);
	saver->structures_length = saver->length;
	saver->structures_crc = saver->body_crc;
	saver->structures = saver->objects;
	return true;
}

/*
 * Writing has failed: if nothing but caches is in want of what there is not, room, time or
 * memory, the file ends before them.  true: it is whole so far, and can be finished.
 */
static bool
leave_caches_out(Saver *saver, NxmSaveResult *result)
{
	int			err = saver->failed_errno;

	if (saver->structures == 0 ||
		(err != 0 && err != ENOSPC && err != EDQUOT && err != EFBIG) ||
		ftruncate(saver->fd, (off_t) saver->structures_length) != 0)
		return false;
	result->caches_failed = saver->what_failed;
	result->caches_errno = err;
	saver->what_failed = NULL;
	saver->failed_errno = 0;
	saver->cut_short = false;
	saver->block_used = 0;
	saver->length = saver->structures_length;
	saver->body_crc = saver->structures_crc;
	saver->objects = saver->structures;
	/* that it fails once more has nothing to do with caches */
	saver->structures = 0;
	return true;
}

/* For nxm_registry_scan(). */
static void
save_object(const NxmObjectInfo *info, void *context)
{
	Saver	   *saver = context;
	NxmSaveObject object;
	uint32		entries = 0;

	if (saver->what_failed != NULL ||
		(info->kind == NXM_KIND_CACHE) != saver->caches)
		return;
	if (saver->caches && saver->structures_length == 0 && !end_structures(saver))
		return;

	memset(&object, 0, sizeof(object));
	object.kind = info->kind;
	object.database = info->database;
	object.owner = info->owner;
	object.node = (uint32) info->node;
	object.striped = info->options.striped;
	object.name_len = info->name_len;
	object.grants = info->acl.count;
	if (info->kind == NXM_KIND_COUNTER &&
		!read_counter(saver, info, &object.value))
		return;

	add(saver, &object, sizeof(object));
	add(saver, info->name, info->name_len);
	for (uint32 i = 0; i < info->acl.count; i++)
	{
		NxmSaveGrant grant;

		grant.role = info->acl.entry[i].role;
		grant.privileges = info->acl.entry[i].privileges;
		add(saver, &grant, sizeof(grant));
	}
	if (info->kind == NXM_KIND_CACHE)
	{
		NxmSaveCache cache = {info->options.max_bytes, info->options.default_ttl};

		add(saver, &cache, sizeof(cache));
	}
	if (!put_frame(saver, NXM_FRAME_OBJECT))
		return;

	if ((info->kind == NXM_KIND_MAP || info->kind == NXM_KIND_CACHE) &&
		!save_entries(saver, info, &entries))
		return;
	if ((info->kind == NXM_KIND_STACK || info->kind == NXM_KIND_QUEUE) &&
		!save_list(saver, info, &entries))
		return;
	if (saver->frame_used > 0 && !put_frame(saver, NXM_FRAME_ENTRIES))
		return;
	saver->frame_count = entries;
	if (put_frame(saver, NXM_FRAME_END))
		saver->objects++;
}

/* Writes what is left, and the header, if there is something in the file. */
static bool
finish_file(Saver *saver)
{
	pg_crc32c	crc = saver->body_crc;
	const char *what_failed;

	if (!flush_block(saver))
		return false;
	FIN_CRC32C(crc);
	return saver->objects == 0 ||
		nxm_saved_finish(&nxm_structures_file, saver->fd, saver->length,
						 saver->objects, crc, &what_failed) ||
		fail(saver, what_failed, errno);
}

/* The file is open, and there is a header's place at its beginning. */
static bool
write_file(Saver *saver, NxmSaveResult *result)
{
	bool		all;

	INIT_CRC32C(saver->body_crc);
	saver->length = sizeof(NxmSavedHeader);
	all = nxm_registry_scan(save_object, saver);
	if (saver->with_caches)
	{
		saver->caches = true;
		all = nxm_registry_scan(save_object, saver) && all;
	}
	/* not to be expected: names do not come and go while the registry is closed */
	if (!all)
		(void) fail(saver, "the structures could not be listed", 0);
	while (saver->what_failed != NULL || !finish_file(saver))
	{
		if (!leave_caches_out(saver, result))
			return false;
	}
	return true;
}

static bool
save_file(Saver *saver, NxmSaveResult *result)
{
	const char *what_failed;
	bool		ok;

	saver->fd = nxm_saved_create(&nxm_structures_file, &what_failed);
	if (saver->fd < 0)
		return fail(saver, what_failed, errno);

	saver->block = palloc(BLOCK_SIZE);
	saver->frame = palloc(NXM_FRAME_MAX);
	saver->bucket_size = NXM_FRAME_FILL;
	saver->bucket = palloc(saver->bucket_size);
	ok = write_file(saver, result);
	if (!nxm_saved_close(&nxm_structures_file, saver->fd, ok && saver->objects > 0,
						 &what_failed))
		ok = fail(saver, what_failed, errno);
	return ok;
}

void
nxm_save_write(bool caches, NxmSaveResult *result)
{
	Saver	   *saver = palloc0(sizeof(Saver));

	saver->space = nxm_space();
	saver->fd = -1;
	saver->with_caches = caches;
	saver->deadline = nxm_steady_ms() + WRITE_LIMIT_MS;
	saver->caches_deadline = nxm_steady_ms() + CACHES_LIMIT_MS;
	(void) save_file(saver, result);
	result->what_failed = saver->what_failed;
	result->failed_errno = saver->failed_errno;
	result->objects = saver->objects;
	result->length = saver->length;
	result->cut_short = saver->cut_short;
}
