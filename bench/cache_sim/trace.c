/*
 * trace.c
 *	  Reads traces, and makes synthetic ones.
 *
 * Formats, by the end of the file's name:
 *
 *	.lis		ARC's: first block, number of blocks, ignored, request number; each
 *				block is a request
 *	.csv		columns by a first line of names (obj_id, obj, id, key or lbn;
 *				obj_size or size), or without one time, key, size
 *	.bin		libCacheSim's oracleGeneral: 24 bytes of time (4), object (8), size (4)
 *				and next access (8), little endian
 *	others		a key a line; what follows a blank is not read
 *
 * A key that has no size has one of 1.
 *
 * Synthetic ones are the same each time; requests, keys and what else may be given:
 *
 *	zipf:skew=0.9		Zipf's distribution
 *	scan:skew=0.9,every=20000,length=10000
 *						the same, and now and then a scan of keys never seen before
 *	loop:keys=20000		all keys in order, over and over
 *	mix:loop=20000		Zipf's distribution and a loop take turns by request
 *	shift:every=50000	Zipf's distribution of which the ranks move on by a tenth
 *						of the keys
 *	sequences:sequences=500,lookups=20,tables=5,passes=4,repeat=1
 *						blocks, each id table << 32 | number: in each pass all sequences,
 *						in another order, of lookups of which each reads one of the 1,000
 *						leaves of an index, and a block of its table; repeat=0: others in
 *						each pass
 *
 * and, but for the last, with sizes=1 sizes from 32 bytes to 16 kB, of which each doubling is as frequent.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* Requests as they are read. */
typedef struct Reader
{
	Trace	   *trace;
	uint64_t	room;
	uint32_t	key_room;
	bool		equal;
	/* open addressing: of (id, size) the key + 1 */
	uint32_t   *table;
	uint64_t	mask;
} Reader;

static uint64_t
slot_of(const Reader *r, uint64_t id, uint32_t size)
{
	uint64_t	at = mix(id ^ mix(size)) & r->mask;

	while (r->table[at] != 0 &&
		   (r->trace->ids[r->table[at] - 1] != id || r->trace->sizes[r->table[at] - 1] != size))
		at = (at + 1) & r->mask;
	return at;
}

static void
add(Reader *r, uint64_t id, uint64_t bytes)
{
	Trace	   *t = r->trace;
	uint32_t	size = r->equal || bytes < 1 ? 1 : bytes > UINT32_MAX ? UINT32_MAX : (uint32_t) bytes;
	uint64_t	at;

	if (t->nkeys == r->key_room)
	{
		r->key_room = r->key_room ? 2 * r->key_room : 1024;
		t->ids = grow(t->ids, r->key_room, sizeof(uint64_t));
		t->sizes = grow(t->sizes, r->key_room, sizeof(uint32_t));
		free(r->table);
		r->mask = 4 * (uint64_t) r->key_room - 1;
		r->table = allocate(r->mask + 1, sizeof(uint32_t));
		for (uint32_t k = 0; k < t->nkeys; k++)
			r->table[slot_of(r, t->ids[k], t->sizes[k])] = k + 1;
	}
	if (t->nrequests == r->room)
	{
		r->room = r->room ? 2 * r->room : 65536;
		t->keys = grow(t->keys, r->room, sizeof(uint32_t));
	}
	at = slot_of(r, id, size);
	if (r->table[at] == 0)
	{
		t->ids[t->nkeys] = id;
		t->sizes[t->nkeys] = size;
		t->bytes += size;
		r->table[at] = ++t->nkeys;
	}
	t->keys[t->nrequests++] = r->table[at] - 1;
}

static uint64_t
id_of(const char *text, size_t len)
{
	uint64_t	h = UINT64_C(0xCBF29CE484222325);

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char) text[i]) * UINT64_C(0x100000001B3);
	return mix(h);
}

static void
read_arc(Reader *r, FILE *f)
{
	char		line[256];

	while (fgets(line, sizeof(line), f) != NULL)
	{
		char	   *end;
		uint64_t	first = strtoull(line, &end, 10);
		uint64_t	n = strtoull(end, NULL, 10);

		for (uint64_t i = 0; i < n; i++)
			add(r, first + i, 1);
	}
}

static void
read_lines(Reader *r, FILE *f)
{
	char		line[4096];

	while (fgets(line, sizeof(line), f) != NULL)
	{
		size_t		len = strcspn(line, " \t\r\n");

		if (len > 0)
			add(r, id_of(line, len), 1);
	}
}

/* Field number of a line, from 0; its length. */
static const char *
field_of(const char *line, int number, size_t *len)
{
	for (; number > 0 && line != NULL; number--)
	{
		line = strchr(line, ',');
		if (line != NULL)
			line++;
	}
	if (line == NULL)
		line = "";
	while (*line == ' ' || *line == '"')
		line++;
	*len = strcspn(line, ",\" \r\n");
	return line;
}

static int
column_named(const char *line, const char *names, int otherwise)
{
	for (int c = 0;; c++)
	{
		size_t		len;
		const char *field = field_of(line, c, &len);
		char		name[64];

		if (len == 0)
			return otherwise;
		snprintf(name, sizeof(name), " %.*s ", (int) (len < 60 ? len : 60), field);
		for (char *p = name; *p != '\0'; p++)
			*p = (char) tolower((unsigned char) *p);
		if (strstr(names, name) != NULL)
			return c;
	}
}

static void
read_csv(Reader *r, FILE *f)
{
	char		line[4096];
	int			key_column = 1;
	int			size_column = 2;
	bool		first = true;

	while (fgets(line, sizeof(line), f) != NULL)
	{
		size_t		len;
		const char *key;

		if (first && !isdigit((unsigned char) line[0]))
		{
			key_column = column_named(line, " obj_id obj id key lbn object ", 1);
			size_column = column_named(line, " obj_size size bytes ", -1);
			first = false;
			continue;
		}
		first = false;
		key = field_of(line, key_column, &len);
		if (len > 0)
		{
			uint64_t	id = id_of(key, len);
			const char *size = size_column < 0 ? "1" : field_of(line, size_column, &len);

			add(r, id, strtoull(size, NULL, 10));
		}
	}
}

static uint64_t
little_endian(const unsigned char *p, int n)
{
	uint64_t	x = 0;

	while (n-- > 0)
		x = x << 8 | p[n];
	return x;
}

static void
read_oracle(Reader *r, FILE *f)
{
	unsigned char record[24];

	while (fread(record, sizeof(record), 1, f) == 1)
		add(r, little_endian(record + 4, 8), little_endian(record + 12, 4));
}

static uint64_t
draw(uint64_t *state)
{
	*state += UINT64_C(0x9E3779B97F4A7C15);
	return mix(*state);
}

/* Ranks from 0 by the inverse of the cumulated distribution. */
static uint32_t
draw_rank(uint64_t *state, const double *cumulated, uint32_t n)
{
	double		u = (double) (draw(state) >> 11) * 0x1p-53 * cumulated[n - 1];
	uint32_t	low = 0;
	uint32_t	high = n - 1;

	while (low < high)
	{
		uint32_t	middle = low + (high - low) / 2;

		if (cumulated[middle] <= u)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool
make(Reader *r, const char *kind, const char *options)
{
	bool		loop_only = strcmp(kind, "loop") == 0;
	bool		scan = strcmp(kind, "scan") == 0;
	bool		shift = strcmp(kind, "shift") == 0;
	bool		mixed = strcmp(kind, "mix") == 0;
	bool		sizes = policy_option(options, "sizes", 0) != 0;
	double		skew = policy_option(options, "skew", 0.9);
	uint32_t	n = (uint32_t) policy_option(options, "keys", loop_only ? 20000 : 100000);
	uint64_t	requests = (uint64_t) policy_option(options, "requests", 1000000);
	uint64_t	every = (uint64_t) policy_option(options, "every", shift ? 50000 : 20000);
	uint64_t	length = (uint64_t) policy_option(options, "length", 10000);
	uint64_t	loop = (uint64_t) policy_option(options, "loop", 20000);
	uint64_t	state = 42;
	uint64_t	fresh = UINT64_C(1) << 40;
	uint64_t	moved = 0;
	double	   *cumulated;

	if (!loop_only && !scan && !shift && !mixed && strcmp(kind, "zipf") != 0)
		return false;
	if (n < 2 || every < 1 || loop < 1)
		return false;
	cumulated = allocate(n, sizeof(double));
	for (uint32_t k = 0; k < n; k++)
		cumulated[k] = (k > 0 ? cumulated[k - 1] : 0) + pow(k + 1, -skew);
	for (uint64_t i = 0; i < requests; i++)
	{
		uint64_t	id;
		double		u;

		if (scan && i % every == every - 1)
			for (uint64_t s = 0; s < length && i + 1 < requests; s++, i++)
			{
				id = fresh++;
				u = (double) (mix(id) >> 11) * 0x1p-53;
				add(r, id, sizes ? (uint64_t) (32 * pow(2, 9 * u)) : 1);
			}
		if (shift && i % every == every - 1)
			moved += n / 10;
		if (loop_only)
			id = i % n;
		else if (mixed && i % 2 == 1)
			id = fresh + i / 2 % loop;
		else
			id = (draw_rank(&state, cumulated, n) + moved) % (shift ? 4 * (uint64_t) n : n);
		u = (double) (mix(id) >> 11) * 0x1p-53;
		add(r, id, sizes ? (uint64_t) (32 * pow(2, 9 * u)) : 1);
	}
	free(cumulated);
	return true;
}

static bool
make_sequences(Reader *r, const char *options)
{
	uint32_t	n = (uint32_t) policy_option(options, "sequences", 500);
	uint64_t	lookups = (uint64_t) policy_option(options, "lookups", 20);
	uint64_t	tables = (uint64_t) policy_option(options, "tables", 5);
	uint64_t	passes = (uint64_t) policy_option(options, "passes", 4);
	bool		repeat = policy_option(options, "repeat", 1) != 0;
	uint64_t	state = 42;
	uint32_t   *order;

	if (n < 1 || lookups < 1 || tables < 1 || passes < 1)
		return false;
	order = allocate(n, sizeof(uint32_t));
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	for (uint64_t pass = 0; pass < passes; pass++)
	{
		for (uint32_t i = n; i > 1; i--)
		{
			uint32_t	j = (uint32_t) (draw(&state) % i);
			uint32_t	moved = order[i - 1];

			order[i - 1] = order[j];
			order[j] = moved;
		}
		for (uint32_t i = 0; i < n; i++)
			for (uint64_t lookup = 0; lookup < lookups; lookup++)
			{
				uint64_t	what = mix(((repeat ? 0 : pass) * n + order[i]) * lookups + lookup + 1);
				uint64_t	table = lookup % tables;

				add(r, (2 * table + 1) << 32 | what % 1000, 1);
				add(r, (2 * table + 2) << 32 | (what >> 32) % 500000, 1);
			}
	}
	free(order);
	return true;
}

static Trace *
finish(Reader *r)
{
	Trace	   *t = r->trace;

	free(r->table);
	if (t->nrequests > 0)
		return t;
	fprintf(stderr, "%s: no requests\n", t->name);
	trace_free(t);
	return NULL;
}

static bool
ends_in(const char *name, const char *end)
{
	size_t		a = strlen(name);
	size_t		b = strlen(end);

	return a >= b && strcmp(name + a - b, end) == 0;
}

Trace *
trace_open(const char *what, bool equal)
{
	Reader		r = {.trace = allocate(1, sizeof(Trace)),.equal = equal};
	const char *base = strrchr(what, '/') ? strrchr(what, '/') + 1 : what;
	const char *colon = strchr(what, ':');
	FILE	   *f = fopen(what, "r");

	snprintf(r.trace->name, sizeof(r.trace->name), "%s", base);
	if (f == NULL && (colon != NULL || strchr(what, '.') == NULL))
	{
		char		kind[16];

		snprintf(kind, sizeof(kind), "%.*s", colon ? (int) (colon - what) : 15, what);
		if (strcmp(kind, "sequences") == 0 ? make_sequences(&r, colon ? colon + 1 : NULL) :
			make(&r, kind, colon ? colon + 1 : NULL))
			return finish(&r);
		errno = ENOENT;
	}
	if (f == NULL)
	{
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		trace_free(r.trace);
		return NULL;
	}
	if (ends_in(what, ".lis"))
		read_arc(&r, f);
	else if (ends_in(what, ".csv"))
		read_csv(&r, f);
	else if (ends_in(what, ".bin"))
		read_oracle(&r, f);
	else
		read_lines(&r, f);
	fclose(f);
	if (strrchr(r.trace->name, '.'))
		*strrchr(r.trace->name, '.') = '\0';
	return finish(&r);
}

Trace *
trace_of_sizes(const char *name, const uint32_t *keys, uint64_t n, const uint32_t *sizes)
{
	Reader		r = {.trace = allocate(1, sizeof(Trace))};

	snprintf(r.trace->name, sizeof(r.trace->name), "%s", name);
	for (uint64_t i = 0; i < n; i++)
		add(&r, keys[i], sizes ? sizes[keys[i]] : 1);
	return finish(&r);
}

Trace *
trace_of_keys(const char *name, const uint32_t *keys, uint64_t n)
{
	return trace_of_sizes(name, keys, n, NULL);
}

void
trace_free(Trace *trace)
{
	free(trace->keys);
	free(trace->ids);
	free(trace->sizes);
	free(trace);
}
