/*
 * table_locked.c
 *	  256 shards, each a chained hash table behind a lock of its own: a mutex, or
 *	  a lock that readers share.
 *
 * A shard doubles its array when it has as many entries as chains, under its
 * lock.  A value of the same length is written over the old one.
 */
#include <pthread.h>
#include <stdlib.h>

#include "tables.h"

#define SHARDS 256

typedef struct Node
{
	struct Node *next;
	uint64_t	hash;
	uint32_t	key_len;
	uint32_t	len;
	NxmType		type;
	char		data[];			/* key, value */
} Node;

typedef struct Shard
{
	union
	{
		pthread_mutex_t mutex;
		pthread_rwlock_t rwlock;
	}			lock;
	Node	  **chain;
	uint64_t	nchains;
	uint64_t	entries;
} __attribute__((aligned(2 * NXM_CACHE_LINE))) Shard;

static Shard mutex_shards[SHARDS];
static Shard rwlock_shards[SHARDS];

static inline Shard *
shard_of(Shard *shards, uint64_t hash)
{
	return &shards[hash >> 56];
}

static void *
must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

static void
create_shards(Shard *shards, bool mutex)
{
	for (int i = 0; i < SHARDS; i++)
	{
		if (mutex)
			pthread_mutex_init(&shards[i].lock.mutex, NULL);
		else
			pthread_rwlock_init(&shards[i].lock.rwlock, NULL);
		shards[i].nchains = 8;
		shards[i].chain = must(calloc(8, sizeof(Node *)));
	}
}

static bool
get_locked(Shard *shard, const NxmKey *key, NxmBuffer *buffer)
{
	for (Node *node = shard->chain[key->hash & (shard->nchains - 1)]; node != NULL;
		 node = node->next)
	{
		if (node->hash == key->hash && node->key_len == key->len &&
			memcmp(node->data, key->data, key->len) == 0)
		{
			buffer->len = node->len;
			buffer->type = node->type;
			memcpy(buffer->data, node->data + node->key_len, node->len);
			return true;
		}
	}
	return false;
}

static void
grow(Shard *shard)
{
	uint64_t	nchains = shard->nchains * 2;
	Node	  **chain = must(calloc(nchains, sizeof(Node *)));

	for (uint64_t i = 0; i < shard->nchains; i++)
	{
		Node	   *node = shard->chain[i];

		while (node != NULL)
		{
			Node	   *next = node->next;
			Node	  **to = &chain[node->hash & (nchains - 1)];

			node->next = *to;
			*to = node;
			node = next;
		}
	}
	free(shard->chain);
	shard->chain = chain;
	shard->nchains = nchains;
}

static void
put_locked(Shard *shard, const NxmKey *key, const NxmValue *value)
{
	Node	  **at = &shard->chain[key->hash & (shard->nchains - 1)];
	Node	   *node;

	while ((node = *at) != NULL &&
		   !(node->hash == key->hash && node->key_len == key->len &&
			 memcmp(node->data, key->data, key->len) == 0))
		at = &node->next;
	if (node == NULL || node->len != value->len)
	{
		Node	   *new = must(malloc(sizeof(Node) + key->len + value->len));

		new->next = node == NULL ? NULL : node->next;
		new->hash = key->hash;
		new->key_len = key->len;
		new->len = value->len;
		memcpy(new->data, key->data, key->len);
		*at = new;
		if (node == NULL)
			shard->entries++;
		free(node);
		node = new;
	}
	node->type = value->type;
	memcpy(node->data + key->len, value->data, value->len);
	if (shard->entries > shard->nchains)
		grow(shard);
}

static void
nothing(int thread)
{
	(void) thread;
}

static void
mutex_create(void)
{
	create_shards(mutex_shards, true);
}

static bool
mutex_get(int thread, const NxmKey *key, NxmBuffer *buffer)
{
	Shard	   *shard = shard_of(mutex_shards, key->hash);
	bool		found;

	(void) thread;
	pthread_mutex_lock(&shard->lock.mutex);
	found = get_locked(shard, key, buffer);
	pthread_mutex_unlock(&shard->lock.mutex);
	return found;
}

static void
mutex_put(int thread, const NxmKey *key, const NxmValue *value)
{
	Shard	   *shard = shard_of(mutex_shards, key->hash);

	(void) thread;
	pthread_mutex_lock(&shard->lock.mutex);
	put_locked(shard, key, value);
	pthread_mutex_unlock(&shard->lock.mutex);
}

static void
rwlock_create(void)
{
	create_shards(rwlock_shards, false);
}

static bool
rwlock_get(int thread, const NxmKey *key, NxmBuffer *buffer)
{
	Shard	   *shard = shard_of(rwlock_shards, key->hash);
	bool		found;

	(void) thread;
	pthread_rwlock_rdlock(&shard->lock.rwlock);
	found = get_locked(shard, key, buffer);
	pthread_rwlock_unlock(&shard->lock.rwlock);
	return found;
}

static void
rwlock_put(int thread, const NxmKey *key, const NxmValue *value)
{
	Shard	   *shard = shard_of(rwlock_shards, key->hash);

	(void) thread;
	pthread_rwlock_wrlock(&shard->lock.rwlock);
	put_locked(shard, key, value);
	pthread_rwlock_unlock(&shard->lock.rwlock);
}

const Table mutex_table = {
	"mutex", "256 chained tables, each behind a mutex",
	mutex_create, NULL, nothing, nothing, mutex_get, mutex_put
};

const Table rwlock_table = {
	"rwlock", "256 chained tables, each behind a pthread_rwlock",
	rwlock_create, NULL, nothing, nothing, rwlock_get, rwlock_put
};
