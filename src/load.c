/*
 * load.c
 *	  Reads the file of saved structures.
 *
 * The whole file is checked before anything is made, since half of what was
 * saved is worse than nothing.  Then each structure is made and filled.  One that
 * cannot be, mostly for want of memory, is dropped whole, and the rest go on.
 *
 * Nobody else sees the structures before all are there: save.c keeps the others
 * waiting.  So nothing here needs a lock, and an attempt that was interrupted is
 * undone by dropping all there is.
 *
 * A stack was saved from the top and is pushed from the bottom: the places of its
 * frames are remembered, and read backward.
 *
 * A cache is filled as far as there is room, with what has not expired meanwhile;
 * having lost entries is no failure.
 *
 * Limits: a structure is loaded onto the node that it was made on, if there is
 * such a node yet, by one process.
 */
#include "save_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "caches.h"
#include "core/pause.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_WARNINGS		10	/* of single structures */
#define NOT_READ			"it was not read to its end"

/* The file, and the frame read last.  Private memory. */
typedef struct Reader
{
	int			fd;
	uint64		offset;			/* of the next frame */
	uint64		length;
	NxmSavedHeader header;
	const char *broken;			/* not NULL: it cannot be read any further */
	volatile sig_atomic_t *stop;	/* not NULL: it is not to be, once set */

	NxmSaveFrame frame;
	char	   *data;			/* that follow the frame, and a 0 byte */
	size_t		size;
	bool		in_object;		/* the object's END was not read yet */
	NxmSpace   *space;
	MemoryContext context;		/* of all of this */
} Reader;

/* One entry of a frame; points into it. */
typedef struct Entry
{
	const char *key;
	NxmValue	value;
	uint32		key_len;
	int64		deadline;		/* of a cache's, in its time, 0: none */
} Entry;

static bool
is_stopped(const Reader *reader)
{
	return reader->stop != NULL && *reader->stop;
}

/* Reads exactly len bytes. */
static bool
read_at(Reader *reader, void *to, size_t len, uint64 offset)
{
	reader->broken = nxm_saved_read(reader->fd, to, len, offset);
	return reader->broken == NULL;
}

/* Reads the frame at reader->offset.  false: reader->broken says why. */
static bool
next_frame(Reader *reader)
{
	NxmSaveFrame *frame = &reader->frame;
	pg_crc32c	crc;

	CHECK_FOR_INTERRUPTS();
	if (is_stopped(reader))
	{
		reader->broken = NOT_READ;
		return false;
	}
	if (!read_at(reader, frame, sizeof(*frame), reader->offset))
		return false;
	if (frame->length > NXM_FRAME_MAX)
	{
		reader->broken = "a part of it is too long";
		return false;
	}
	if (frame->length >= reader->size)
	{
		reader->size = frame->length + 1;
		if (reader->data != NULL)
			pfree(reader->data);
		reader->data = NULL;
		reader->data = MemoryContextAlloc(reader->context, reader->size);
	}
	if (!read_at(reader, reader->data, frame->length,
				 reader->offset + sizeof(*frame)))
		return false;
	reader->data[frame->length] = '\0';

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &frame->type,
				sizeof(*frame) - offsetof(NxmSaveFrame, type));
	COMP_CRC32C(crc, reader->data, frame->length);
	FIN_CRC32C(crc);
	if (!EQ_CRC32C(crc, frame->crc))
	{
		reader->broken = "the checksum of a part of it is wrong";
		return false;
	}
	reader->offset += sizeof(*frame) + frame->length;
	if (frame->type == NXM_FRAME_OBJECT)
		reader->in_object = true;
	else if (frame->type == NXM_FRAME_END)
		reader->in_object = false;
	return true;
}

/* Raises that the file, though its checksums are right, has something senseless. */
static void
broken_content(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg_internal("could not restore %s: it is malformed", what)));
}

/* Takes the entry at *p, which is moved behind it.  false: there is no whole one. */
static bool
take_entry(const Reader *reader, NxmKind kind, const char **p, Entry *entry)
{
	NxmSaveEntry e;
	size_t		left = reader->data + reader->frame.length - *p;

	if (left < sizeof(e))
		return false;
	memcpy(&e, *p, sizeof(e));
	left -= sizeof(e);
	*p += sizeof(e);
	entry->deadline = 0;
	if (kind == NXM_KIND_CACHE)
	{
		if (left < sizeof(int64))
			return false;
		memcpy(&entry->deadline, *p, sizeof(int64));
		left -= sizeof(int64);
		*p += sizeof(int64);
		if (entry->deadline > nxm_cache_timestamp(NXM_CACHE_LAST_DEADLINE) ||
			e.key_len == 0)
			return false;
		if (entry->deadline != 0)
			entry->deadline = nxm_cache_time(entry->deadline);
	}
	if (e.key_len > NXM_MAX_KEY || e.value_len > NXM_MAX_VALUE ||
		e.key_len + (size_t) e.value_len > left || e.type > NXM_INTERNAL)
		return false;
	entry->key = *p;
	entry->key_len = e.key_len;
	entry->value.data = entry->key + e.key_len;
	entry->value.len = e.value_len;
	entry->value.type = (NxmType) e.type;
	*p = entry->value.data + e.value_len;
	return true;
}

/* Raises that something did not come to be what the file has. */
static void
not_restored(const char *what, NxmResult r)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg_internal("could not restore %s: %s", what,
							 r == NXM_DROPPED ? "the structure was dropped meanwhile" :
							 r == NXM_TOO_LONG ? "it is too long" :
							 "the structure did not take it")));
}

/* Stores an entry in the object that *site was restored with. */
static void
put_entry(Reader *reader, NxmSite *site, const Entry *entry)
{
	NxmSpace   *space = reader->space;
	/* not for the others: it has this process in the memory of a new home */
	NxmCacheView *view = site->kind == NXM_KIND_CACHE ? nxm_cache_view() : NULL;
	NxmKey		key;
	NxmResult	r;

	key.data = entry->key;
	key.len = entry->key_len;
	key.hash = site->kind == NXM_KIND_MAP || site->kind == NXM_KIND_CACHE ?
		nxm_hash(entry->key, entry->key_len) : 0;
	do
	{
		nxm_begin_operation();
		nxm_enter(space);
		if (!nxm_object_valid(site))
			r = NXM_DROPPED;
		else if (site->kind == NXM_KIND_MAP)
			r = nxm_map_put(space, &site->object->u.map, &key, &entry->value);
		else if (site->kind == NXM_KIND_CACHE)
			r = nxm_cache_set(view, &site->object->u.c.cache, &key, &entry->value,
							  entry->deadline);
		else if (site->kind == NXM_KIND_STACK)
			r = nxm_stack_push(space, &site->object->u.stack, &entry->value);
		else
			r = nxm_queue_push(space, &site->object->u.queue, &entry->value);
		nxm_leave(space);
		nxm_end_operation();
	} while (site->kind == NXM_KIND_CACHE ?
			 r != NXM_DROPPED && nxm_cache_again(view, r) : nxm_again(space, r));

	if (r != NXM_OK &&
		!(site->kind == NXM_KIND_CACHE && (r == NXM_ABSENT || r == NXM_NEED_MEMORY)))
		not_restored("an entry", r);
}

static void
set_counter(Reader *reader, NxmSite *site, int64 value)
{
	NxmResult	r;

	do
	{
		int64_t		old;

		nxm_begin_operation();
		nxm_enter(reader->space);
		r = nxm_object_valid(site) ?
			nxm_counter_set(reader->space, &site->object->u.counter, value,
							&old) : NXM_DROPPED;
		nxm_leave(reader->space);
		nxm_end_operation();
	} while (nxm_again(reader->space, r));

	if (r != NXM_OK)
		not_restored("a value", r);
}

/* The entries of the frame read last; into a stack from the last to the first. */
static void
put_entries(Reader *reader, NxmSite *site)
{
	const char *p = reader->data;
	uint32		count = reader->frame.count;
	Entry	   *entries = NULL;
	Entry		entry;

	/* count is the file's: nothing is allocated for more than can be there */
	if (count > reader->frame.length / sizeof(NxmSaveEntry))
		broken_content("an entry");
	if (site->kind == NXM_KIND_STACK)
		entries = palloc_extended(sizeof(Entry) * count, MCXT_ALLOC_HUGE);
	for (uint32 i = 0; i < count; i++)
	{
		if (!take_entry(reader, site->kind, &p, &entry))
			broken_content("an entry");
		if (site->kind == NXM_KIND_STACK)
			entries[i] = entry;
		else
			put_entry(reader, site, &entry);
	}
	if (entries == NULL)
		return;
	for (uint32 i = count; i > 0; i--)
		put_entry(reader, site, &entries[i - 1]);
	pfree(entries);
}

/* The stack's frames at these places, the top's first, then the END behind them. */
static void
put_stack(Reader *reader, NxmSite *site, const uint64 *offsets, int n)
{
	uint64		end = reader->offset;

	/* an error leaves the reader between them, where the rest is to be skipped */
	reader->in_object = true;
	for (int i = n - 1; i >= 0; i--)
	{
		reader->offset = offsets[i];
		if (!next_frame(reader))
			return;
		put_entries(reader, site);
	}
	reader->in_object = false;
	reader->offset = end;
}

/* What is in the OBJECT frame read last.  name: a copy, for messages. */
static void
take_object(const Reader *reader, NxmSaveObject *object, char *name, NxmAcl *acl,
			NxmObjectOptions *options)
{
	const char *p = reader->data;
	size_t		want = sizeof(*object);

	name[0] = '\0';
	if (reader->frame.length >= want)
	{
		memcpy(object, p, sizeof(*object));
		p += sizeof(*object);
		want += object->name_len + (uint64) object->grants * sizeof(NxmSaveGrant) +
			(object->kind == NXM_KIND_CACHE ? sizeof(NxmSaveCache) : 0);
	}
	if (reader->frame.length != want || object->name_len < 1 ||
		object->name_len > NXM_MAX_NAME || object->grants > NXM_MAX_ACL ||
		object->kind >= NXM_KINDS)
		broken_content("a structure");

	memcpy(name, p, object->name_len);
	name[object->name_len] = '\0';
	p += object->name_len;
	acl->count = object->grants;
	for (uint32 i = 0; i < object->grants; i++)
	{
		NxmSaveGrant grant;

		memcpy(&grant, p, sizeof(grant));
		p += sizeof(grant);
		acl->entry[i].role = grant.role;
		acl->entry[i].privileges = grant.privileges;
	}
	memset(options, 0, sizeof(*options));
	options->striped = object->striped != 0;
	if (object->kind == NXM_KIND_CACHE)
	{
		NxmSaveCache cache;

		memcpy(&cache, p, sizeof(cache));
		if (cache.default_ttl < 0)
			broken_content("a cache");
		options->default_ttl = cache.default_ttl;
		/* there may be more partitions than there were */
		options->max_bytes = cache.max_bytes == 0 ? 0 :
			Max(cache.max_bytes, nxm_cache_least_bytes());
	}
}

/*
 * Makes the structure whose OBJECT frame was read last, and reads up to its END.
 * Raises errors; *site then tells whether there is an object to drop.
 */
static void
load_object(Reader *reader, NxmSite *site, char *name)
{
	NxmSaveObject object;
	NxmAcl		acl;
	NxmObjectOptions options;
	uint64	   *offsets = NULL;
	int			noffsets = 0;

	take_object(reader, &object, name, &acl, &options);
	if (object.node < reader->space->shared->nnodes)
		reader->space->local->node = object.node;
	if (!nxm_object_restore(site, object.database, object.owner,
							(NxmKind) object.kind, name, object.name_len,
							&options, &acl))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg_internal("could not restore a structure: there is one of this name")));
	/* nobody else has seen it */
	site->object->node = reader->space->local->node;
	if (site->kind == NXM_KIND_COUNTER)
		set_counter(reader, site, object.value);

	for (;;)
	{
		uint64		offset = reader->offset;

		if (!next_frame(reader))
			return;
		if (reader->frame.type == NXM_FRAME_END)
			break;
		if (reader->frame.type != NXM_FRAME_ENTRIES ||
			site->kind == NXM_KIND_COUNTER)
			broken_content("a structure");
		if (site->kind != NXM_KIND_STACK)
		{
			put_entries(reader, site);
			continue;
		}
		if ((noffsets & (noffsets - 1)) == 0)	/* a power of two: double */
		{
			size_t		size = sizeof(uint64) * (noffsets == 0 ? 1 : noffsets * 2);

			offsets = offsets == NULL ? palloc(size) : repalloc_huge(offsets, size);
		}
		offsets[noffsets++] = offset;
	}
	if (noffsets > 0)
		put_stack(reader, site, offsets, noffsets);
}

static void
drop_one(const NxmObjectInfo *info, void *context)
{
	const NxmSite *site = context;

	if (site == NULL || site->id == info->id)
		(void) nxm_object_drop_info(info);
}

/*
 * Is this error about the structure that was being loaded: no room for it, or
 * senseless content?  Any other, known or not, is about the process or a bug, and
 * may not be taken for that.  The class of insufficient resources is that of
 * configuration_limit_exceeded, and of out_of_memory, which a full /dev/shm gives (the
 * disk_full that PostgreSQL raises there is caught where segments are made).
 */
static bool
is_about_structure(int sqlerrcode)
{
	return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
		sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		sqlerrcode == ERRCODE_DATA_CORRUPTED;
}

/*
 * load_object(), with errors about the structure told in the log.  false: there is
 * no such structure now.  The error is caught without a subtransaction: nothing below
 * uses more of PostgreSQL than memory, LWLocks, which are released here, and DSM
 * segments, which stay with the space.
 */
static bool
try_object(Reader *reader, uint32 dropped)
{
	NxmSite    *site = palloc0(sizeof(NxmSite));
	char	   *name = palloc0(NXM_MAX_NAME + 1);
	volatile bool ok = false;

	nxm_arena_stop = reader->stop;
	PG_TRY();
	{
		load_object(reader, site, name);
		ok = reader->broken == NULL;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		nxm_arena_stop = NULL;
		reader->space->local->node = (uint32) nxm_memory_node();
		MemoryContextSwitchTo(reader->context);
		error = CopyErrorData();
		if (!is_stopped(reader) && !is_about_structure(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		LWLockReleaseAll();
		if (is_stopped(reader))
			reader->broken = NOT_READ;
		else
		{
			if (site->object != NULL)
				nxm_registry_scan(drop_one, site);
			/* the next one may need its room */
			nxm_registry_drain(reader->stop);
		}
		if (reader->broken == NULL && dropped < MAX_WARNINGS)
			nxm_saved_warn(error->sqlerrcode,
						   psprintf("saved %s \"%s\" was not loaded: %s",
									site->object != NULL ? nxm_kind_name(site->kind) : "structure",
									name, error->message),
						   NULL, NULL);
		FreeErrorData(error);
	}
	PG_END_TRY();
	nxm_arena_stop = NULL;
	/* this process's, which may have been moved meanwhile */
	reader->space->local->node = (uint32) nxm_memory_node();
	pfree(site);
	pfree(name);
	return ok;
}

/* All structures of a file that was found good, or some, if it is stopped. */
static void
load_objects(Reader *reader, NxmLoadResult *result)
{
	MemoryContext each = AllocSetContextCreate(reader->context,
											   "nexusmem saved structure",
											   ALLOCSET_DEFAULT_SIZES);

	reader->offset = sizeof(NxmSavedHeader);
	for (uint32 i = 0; i < reader->header.objects && reader->broken == NULL; i++)
	{
		MemoryContext old;

		if (!next_frame(reader))
			break;
		if (reader->frame.type != NXM_FRAME_OBJECT)
		{
			reader->broken = "its parts are not in order";
			break;
		}
		old = MemoryContextSwitchTo(each);
		if (!try_object(reader, result->dropped))
			result->dropped++;
		NXM_PAUSE("loaded");
		MemoryContextSwitchTo(old);
		MemoryContextReset(each);

		/* what is left of one that was given up */
		while (reader->broken == NULL && reader->in_object)
			(void) next_frame(reader);
	}
	MemoryContextDelete(each);
}

void
nxm_load_undo(volatile sig_atomic_t *stop)
{
	nxm_registry_scan(drop_one, NULL);
	nxm_registry_drain(stop);
}

void
nxm_load_file(volatile sig_atomic_t *stop, NxmLoadResult *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "nexusmem saved structures",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Reader	   *reader = palloc0(sizeof(Reader));
	struct stat st;
	const char *refused;

	memset(result, 0, sizeof(*result));
	reader->context = context;
	reader->space = nxm_space();
	reader->stop = stop;

	reader->fd = OpenTransientFile(NXM_STRUCTURES_LOADING, O_RDONLY | PG_BINARY);
	if (reader->fd < 0 || fstat(reader->fd, &st) != 0)
		refused = psprintf("it could not be opened: %m");
	else
	{
		reader->length = (uint64) st.st_size;
		refused = nxm_saved_check(&nxm_structures_file, reader->fd, reader->length,
								  &reader->header, stop);
		if (refused == NULL)
		{
			result->objects = reader->header.objects;
			load_objects(reader, result);
			refused = reader->broken;
		}
	}
	if (reader->fd >= 0)
		CloseTransientFile(reader->fd);
	/* what was loaded is dropped by whoever loads the next time */
	result->stopped = refused != NULL && is_stopped(reader);
	if (result->stopped)
		refused = NULL;
	if (refused != NULL && result->objects > 0)
		nxm_registry_scan(drop_one, NULL);

	MemoryContextSwitchTo(old);
	if (refused != NULL)
	{
		result->refused = pstrdup(refused);
		result->objects = result->dropped = 0;
	}
	MemoryContextDelete(context);
}
