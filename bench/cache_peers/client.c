/*
 * client.c
 *	  One client program for all caches: so many clients, one operation over and
 *	  over, operations a second and their latencies.
 *
 *	client -s side -a address -o operation [-c clients] [-w seconds] [-t seconds]
 *		   [-k keys] [-v bytes of a value] [-b keys a batch] [-f]
 *	client -V
 *
 * -s	postgres: libpq, one prepared statement, text parameters and results;
 *		redis: hiredis
 * -a	connection string, or path of the socket
 * -o	postgres: the statement.  Its $1 is a key or, with -b, an array of keys; $2,
 *		if it has one, a value
 *		redis: get or set; with -b so many of them are sent before the answers
 *		are read
 * -w	so long the operation is done before it is measured: a plan is made, and a
 *		backend maps each page of shared memory when it first touches it
 * -f	stores all keys once, instead: the operation is one that stores
 * -V	tells the versions of the libraries, instead
 *
 * Keys are drawn uniformly, also for a statement that takes none.  Clients are
 * threads, and wait for each answer.  All sides send a request with one system call.
 * libpq, as it comes, waits for the answer with poll() before it reads it, and asks
 * for the description of each result; hiredis reads at once.
 *
 * Prints operations a second (with -b: keys a second), and microseconds of an
 * operation (of a batch): median, 99 % and 99.9 %.  A get that finds nothing, or a
 * value of another length, is an error.
 */
#define _GNU_SOURCE

#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>

#include "measure.h"

#define MAX_CLIENTS 256
#define MAX_BATCH	1024
#define KEY_ROOM	16

typedef struct Client
{
	int			number;
	pthread_t	thread;
	uint64_t	random;
	PGconn	   *pg;
	redisContext *redis;
	uint64_t	operations;
	uint64_t	histogram[CELLS];
} Client;

static const char *side;
static const char *address;
static const char *operation;
static int	nclients = 4;
static double warm_seconds = 1;
static double seconds = 3;
static uint64_t nkeys = 1000000;
static int	value_len = 100;
static int	batch = 0;
static bool fill = false;

static char *value;
static pthread_barrier_t start;
static volatile bool stop = false;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "client: %s: %s\n", what, why);
	exit(1);
}

static uint64_t
draw(Client *client)
{
	client->random ^= client->random << 13;
	client->random ^= client->random >> 7;
	client->random ^= client->random << 17;
	return client->random % nkeys;
}

/* Seven digits where the number has no more. */
static int
make_key(uint64_t number, char *key)
{
	return snprintf(key, KEY_ROOM, "%07llu", (unsigned long long) number);
}

static void
check_length(size_t len)
{
	if (len != (size_t) value_len)
		die(operation, "a key was not found, or with another value");
}

/* Keys from the number first on, or drawn where fill is off. */
static void
pg_operate(Client *client, uint64_t first, int n)
{
	static __thread char text[MAX_BATCH * KEY_ROOM + 2];
	const char *values[2] = {text, value};
	char	   *at = text;
	PGresult   *result;
	bool		stores = strstr(operation, "$2") != NULL;
	int			nparams = strstr(operation, "$1") == NULL ? 0 : stores ? 2 : 1;

	if (batch)
		*at++ = '{';
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			*at++ = ',';
		at += make_key(fill ? first + (uint64_t) i : draw(client), at);
	}
	if (batch)
		*at++ = '}';
	*at = '\0';
	result = PQexecPrepared(client->pg, "s", nparams, values, NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		die(operation, PQresultErrorMessage(result));
	if (nparams > 0 && !stores)
	{
		if (PQntuples(result) != n)
			die(operation, "rows are missing");
		for (int i = 0; i < n; i++)
			check_length((size_t) PQgetlength(result, i, PQnfields(result) - 1));
	}
	PQclear(result);
}

static void
redis_operate(Client *client, uint64_t first, int n)
{
	bool		stores = strcmp(operation, "set") == 0;

	for (int i = 0; i < n; i++)
	{
		char		key[KEY_ROOM];
		const char *args[3] = {stores ? "SET" : "GET", key, value};
		size_t		lens[3] = {3, 0, (size_t) value_len};

		lens[1] = (size_t) make_key(fill ? first + (uint64_t) i : draw(client), key);
		if (redisAppendCommandArgv(client->redis, stores ? 3 : 2, args, lens) != REDIS_OK)
			die("redis", client->redis->errstr);
	}
	for (int i = 0; i < n; i++)
	{
		redisReply *reply;

		if (redisGetReply(client->redis, (void **) &reply) != REDIS_OK)
			die("redis", client->redis->errstr);
		if (reply->type == REDIS_REPLY_ERROR)
			die("redis", reply->str);
		if (!stores)
			check_length(reply->type == REDIS_REPLY_STRING ? (size_t) reply->len : 0);
		freeReplyObject(reply);
	}
}

static void
open_client(Client *client)
{
	if (strcmp(side, "postgres") == 0)
	{
		PGresult   *result;

		client->pg = PQconnectdb(address);
		if (PQstatus(client->pg) != CONNECTION_OK)
			die(address, PQerrorMessage(client->pg));
		result = PQprepare(client->pg, "s", operation, 0, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			die(operation, PQresultErrorMessage(result));
		PQclear(result);
	}
	else
	{
		client->redis = redisConnectUnix(address);
		if (client->redis == NULL || client->redis->err)
			die(address, client->redis ? client->redis->errstr : "out of memory");
	}
}

static void
operate(Client *client, uint64_t first, int n)
{
	if (client->pg)
		pg_operate(client, first, n);
	else
		redis_operate(client, first, n);
}

static void *
run(void *arg)
{
	Client	   *client = arg;
	int			n = batch ? batch : 1;

	open_client(client);
	if (!fill)
	{
		uint64_t	until = nanoseconds() + (uint64_t) (warm_seconds * 1e9);

		while (nanoseconds() < until)
			operate(client, 0, n);
	}
	pthread_barrier_wait(&start);
	if (fill)
	{
		uint64_t	from = nkeys * (uint64_t) client->number / (uint64_t) nclients;
		uint64_t	to = nkeys * (uint64_t) (client->number + 1) / (uint64_t) nclients;

		for (; from < to; from += (uint64_t) n)
		{
			if (to - from < (uint64_t) n)
				n = (int) (to - from);
			operate(client, from, n);
			client->operations += (uint64_t) n;
		}
	}
	else
		while (!stop)
		{
			uint64_t	began = nanoseconds();

			operate(client, 0, n);
			client->histogram[cell_of(nanoseconds() - began)]++;
			client->operations += (uint64_t) n;
		}
	if (client->pg)
		PQfinish(client->pg);
	else
		redisFree(client->redis);
	return NULL;
}

int
main(int argc, char **argv)
{
	static Client clients[MAX_CLIENTS];
	static uint64_t histogram[CELLS];
	uint64_t	operations = 0;
	uint64_t	began;
	double		took;
	int			opt;

	while ((opt = getopt(argc, argv, "s:a:o:c:w:t:k:v:b:fV")) != -1)
	{
		switch (opt)
		{
			case 's':
				side = optarg;
				break;
			case 'a':
				address = optarg;
				break;
			case 'o':
				operation = optarg;
				break;
			case 'c':
				nclients = atoi(optarg);
				break;
			case 'w':
				warm_seconds = atof(optarg);
				break;
			case 't':
				seconds = atof(optarg);
				break;
			case 'k':
				nkeys = strtoull(optarg, NULL, 10);
				break;
			case 'v':
				value_len = atoi(optarg);
				break;
			case 'b':
				batch = atoi(optarg);
				break;
			case 'f':
				fill = true;
				break;
			case 'V':
				/* PostgreSQL numbers: 150014 is 15.14 */
				printf("libpq %d.%d, hiredis %d.%d.%d\n", PQlibVersion() / 10000,
					   PQlibVersion() % 10000, HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
				return 0;
			default:
				return 2;
		}
	}
	if (side == NULL || address == NULL || operation == NULL || nkeys < 1 || value_len < 1 ||
		nclients < 1 || nclients > MAX_CLIENTS || batch < 0 || batch > MAX_BATCH)
		return 2;
	value = malloc((size_t) value_len + 1);
	if (value == NULL)
		return 1;
	memset(value, 'v', (size_t) value_len);
	value[value_len] = '\0';
	pthread_barrier_init(&start, NULL, (unsigned int) nclients + 1);
	for (int c = 0; c < nclients; c++)
	{
		clients[c].number = c;
		clients[c].random = ((uint64_t) c + 1) * UINT64_C(0x9E3779B97F4A7C15) + nanoseconds() + 1;
		if (pthread_create(&clients[c].thread, NULL, run, &clients[c]) != 0)
			return 1;
	}
	pthread_barrier_wait(&start);
	began = nanoseconds();
	if (!fill)
	{
		struct timespec pause = {(time_t) seconds, (long) ((seconds - (double) (time_t) seconds) * 1e9)};

		nanosleep(&pause, NULL);
		stop = true;
	}
	for (int c = 0; c < nclients; c++)
	{
		pthread_join(clients[c].thread, NULL);
		operations += clients[c].operations;
		for (int i = 0; i < CELLS; i++)
			histogram[i] += clients[c].histogram[i];
	}
	took = (double) (nanoseconds() - began) / 1e9;
	printf("%.0f %.1f %.1f %.1f\n", (double) operations / took,
		   quantile(histogram, 0.5) / 1000, quantile(histogram, 0.99) / 1000,
		   quantile(histogram, 0.999) / 1000);
	return 0;
}
