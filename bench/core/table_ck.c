/*
 * table_ck.c
 *	  Concurrency Kit's ck_ht in 256 shards, in two ways.
 *
 * ck: each shard behind a mutex; a value of the same length is written over the
 * old one.
 *
 * ck-epoch: as ck_ht is meant: one writer at a time by the shard's mutex,
 * readers without a lock, in an epoch (ck_epoch), which what writers replace
 * waits for.
 */
#include <pthread.h>
#include <stdlib.h>

#include <ck_epoch.h>
#include <ck_ht.h>

#include "tables.h"

#define SHARDS 256

typedef struct Node
{
	ck_epoch_entry_t epoch;
	uint32_t	key_len;
	uint32_t	len;
	NxmType		type;
	char		data[];			/* key, value */
} Node;

/* What ck_ht allocates. */
typedef struct Block
{
	ck_epoch_entry_t epoch;
	uint64_t	unused[2];		/* keeps what follows aligned as malloc does */
	char		data[];
} Block;

_Static_assert(sizeof(Block) % 16 == 0, "alignment");

typedef struct Shard
{
	pthread_mutex_t mutex;
	ck_ht_t		ht;
} __attribute__((aligned(2 * NXM_CACHE_LINE))) Shard;

static Shard locked_shards[SHARDS];
static Shard epoch_shards[SHARDS];

static ck_epoch_t epoch;
static struct
{
	ck_epoch_record_t record;
	bool		registered;
} __attribute__((aligned(2 * NXM_CACHE_LINE))) records[MAX_THREADS];
static _Thread_local int this_thread;

static void *
must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

static void *
block_alloc(size_t size)
{
	return ((Block *) must(malloc(sizeof(Block) + size)))->data;
}

static void
block_free(ck_epoch_entry_t *entry)
{
	free(entry);
}

static void
free_block(void *p, size_t size, bool defer)
{
	Block	   *block = (Block *) ((char *) p - sizeof(Block));

	(void) size;
	if (defer && records[this_thread].registered)
		ck_epoch_call(&records[this_thread].record, &block->epoch, block_free);
	else
		free(block);
}

static struct ck_malloc allocator = {
	.malloc = block_alloc,
	.free = free_block
};

static void
hash_bytes(ck_ht_hash_t *hash, const void *key, size_t len, uint64_t seed)
{
	/* only ck_ht_hash() would call it, and hashes come with the keys here */
	(void) key;
	(void) len;
	(void) seed;
	hash->value = 0;
}

static inline Shard *
shard_of(Shard *shards, uint64_t hash)
{
	return &shards[hash >> 56];
}

static Node *
new_node(const NxmKey *key, const NxmValue *value)
{
	Node	   *node = must(malloc(sizeof(Node) + key->len + value->len));

	node->key_len = key->len;
	node->len = value->len;
	node->type = value->type;
	memcpy(node->data, key->data, key->len);
	memcpy(node->data + key->len, value->data, value->len);
	return node;
}

static inline bool
find(Shard *shard, const NxmKey *key, ck_ht_entry_t *entry)
{
	ck_ht_hash_t hash = {key->hash};

	ck_ht_entry_key_set(entry, key->data, (uint16_t) key->len);
	return ck_ht_get_spmc(&shard->ht, hash, entry);
}

static inline void
copy(const Node *node, NxmBuffer *buffer)
{
	buffer->len = node->len;
	buffer->type = node->type;
	memcpy(buffer->data, node->data + node->key_len, node->len);
}

static void
create_shards(Shard *shards)
{
	for (int i = 0; i < SHARDS; i++)
	{
		pthread_mutex_init(&shards[i].mutex, NULL);
		if (!ck_ht_init(&shards[i].ht, CK_HT_MODE_BYTESTRING, hash_bytes,
						&allocator, 8, 0))
			abort();
	}
}

static void
locked_create(void)
{
	create_shards(locked_shards);
}

static void
nothing(int thread)
{
	(void) thread;
}

static bool
locked_get(int thread, const NxmKey *key, NxmBuffer *buffer)
{
	Shard	   *shard = shard_of(locked_shards, key->hash);
	ck_ht_entry_t entry;
	bool		found;

	(void) thread;
	pthread_mutex_lock(&shard->mutex);
	found = find(shard, key, &entry);
	if (found)
		copy(ck_ht_entry_value(&entry), buffer);
	pthread_mutex_unlock(&shard->mutex);
	return found;
}

static void
locked_put(int thread, const NxmKey *key, const NxmValue *value)
{
	Shard	   *shard = shard_of(locked_shards, key->hash);
	ck_ht_entry_t entry;
	Node	   *old = NULL;

	(void) thread;
	pthread_mutex_lock(&shard->mutex);
	if (find(shard, key, &entry))
		old = ck_ht_entry_value(&entry);
	if (old != NULL && old->len == value->len)
	{
		old->type = value->type;
		memcpy(old->data + old->key_len, value->data, value->len);
	}
	else
	{
		ck_ht_hash_t hash = {key->hash};
		Node	   *node = new_node(key, value);

		ck_ht_entry_set(&entry, hash, node->data, (uint16_t) key->len, node);
		if (!ck_ht_set_spmc(&shard->ht, hash, &entry))
			abort();
		free(old);
	}
	pthread_mutex_unlock(&shard->mutex);
}

static void
epoch_create(void)
{
	ck_epoch_init(&epoch);
	create_shards(epoch_shards);
}

static void
epoch_begin(int thread)
{
	this_thread = thread;
	if (!records[thread].registered)
	{
		ck_epoch_register(&epoch, &records[thread].record, NULL);
		records[thread].registered = true;
	}
}

static void
epoch_end(int thread)
{
	ck_epoch_barrier(&records[thread].record);
}

static bool
epoch_get(int thread, const NxmKey *key, NxmBuffer *buffer)
{
	Shard	   *shard = shard_of(epoch_shards, key->hash);
	ck_ht_entry_t entry;
	bool		found;

	ck_epoch_begin(&records[thread].record, NULL);
	found = find(shard, key, &entry);
	if (found)
		copy(ck_ht_entry_value(&entry), buffer);
	ck_epoch_end(&records[thread].record, NULL);
	return found;
}

static void
epoch_free(ck_epoch_entry_t *entry)
{
	free(entry);				/* the first field of Node */
}

static void
epoch_put(int thread, const NxmKey *key, const NxmValue *value)
{
	Shard	   *shard = shard_of(epoch_shards, key->hash);
	ck_ht_hash_t hash = {key->hash};
	Node	   *node = new_node(key, value);
	Node	   *old = NULL;
	ck_ht_entry_t entry;

	pthread_mutex_lock(&shard->mutex);
	if (find(shard, key, &entry))
		old = ck_ht_entry_value(&entry);
	ck_ht_entry_set(&entry, hash, node->data, (uint16_t) key->len, node);
	if (!ck_ht_set_spmc(&shard->ht, hash, &entry))
		abort();
	pthread_mutex_unlock(&shard->mutex);
	if (old != NULL)
		ck_epoch_call(&records[thread].record, &old->epoch, epoch_free);
	if (records[thread].record.n_pending > 64)
		ck_epoch_poll(&records[thread].record);
}

const Table ck_table = {
	"ck", "256 ck_ht, each behind a mutex",
	locked_create, NULL, nothing, nothing, locked_get, locked_put
};

const Table ck_epoch_table = {
	"ck-epoch", "256 ck_ht, writers behind mutexes, readers in ck_epoch",
	epoch_create, NULL, epoch_begin, epoch_end, epoch_get, epoch_put
};
