/*
 * check_memory.c
 *	  The checker's shared memory: C11's, by views.
 *
 * Atomic words.  A word keeps its last stores, in modification order, which is
 * the order in which they were executed.  Each store carries a message: what
 * happened before it, if it was a release; what happened before the last
 * release fence, if it was not; joined with the message of the store that it
 * replaced, if it was a read-modify-write (release sequences).  What happened
 * before is a vector clock.  A process has
 *
 *	hb		what happened before its next operation
 *	vis		hb, and what sequentially consistent fences make visible without
 *			making it happen before
 *	rel		hb and vis at its last fence, for relaxed stores
 *	acq		messages of its relaxed loads, for its next fence
 *
 * A load may return any store that is not older than one that an event in vis
 * has stored to the word or loaded from it: write and read coherence, and the
 * rule for fences (RC11: psc is acyclic) in one.  Read-modify-writes take the
 * newest store; a failing compare-and-set is a load of a store with another
 * value.  A fence joins vis with what all fences before it had.
 *
 * Plain memory.  Each granule of 8 bytes knows the last plain write and the last
 * plain read by each process, each word the last atomic load and store by each:
 * two accesses, of which one writes and one is plain, without one in the hb of
 * the other, are a race (FastTrack, PLDI 2009, for few processes).  nxm_init()
 * counts as a plain write.
 *
 * Objects.  Freeing one counts as writing to it all over, so that a free not
 * ordered after the last access is a race even if nothing else goes wrong in
 * that run; any access after it fails.  Handing one out forgets its history.
 *
 * Everything lies in one arena, with a cell beside each granule.  Cells carry
 * the number of the run, so that a new run need not clear them.
 */
#define _DEFAULT_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check_atomic.h"
#include "check_model.h"

#define CHECK_HISTORY	8		/* stores kept of a word */
#define CHECK_SEEN		4		/* steps kept of what a process has seen of one */
#define CHECK_LOCATIONS	16384
#define CHECK_TRACE		4096	/* power of 2 */
#define CHECK_NAMES		32

typedef struct View
{
	CheckClock	hb;
	CheckClock	vis;
} View;

typedef struct Store
{
	uint64_t	value;
	View		message;
} Store;

/* From this event on, the process has seen this store. */
typedef struct Seen
{
	uint32_t	clock;
	uint32_t	store;
} Seen;

/* An atomic word. */
typedef struct Location
{
	uint32_t	newest;			/* stores are numbered from 0 */
	uint32_t	floor;			/* older ones are forgotten */
	Store		stores[CHECK_HISTORY];
	Seen		seen[CHECK_MAX_PROCS][CHECK_SEEN];	/* newest first */
	uint8_t		nseen[CHECK_MAX_PROCS];
	uint32_t	loaded[CHECK_MAX_PROCS];	/* clock of the last time */
	uint32_t	stored[CHECK_MAX_PROCS];
} Location;

typedef enum CellState
{
	FRESH,						/* never part of an object */
	LIVE,
	FREED
} CellState;

typedef struct Cell
{
	uint32_t	run;			/* of which the rest is */
	uint32_t	location;		/* + 1; 0: no atomic access yet */
	uint8_t		state;
	uint8_t		writer;
	uint16_t	freed_line;
	uint32_t	written;		/* clock of writer; 0: never */
	uint32_t	read[CHECK_MAX_PROCS];
	const char *freed_func;
} Cell;

typedef struct Process
{
	View		now;
	View		rel;
	View		acq;
} Process;

typedef struct Event
{
	const char *what;
	const char *func;
	int			line;
	int			proc;
	uint64_t	value;
	uint64_t	other;
	const void *address;
	int			age;			/* how many stores back a load looked */
} Event;

static char *arena;
static size_t arena_used;
static Cell *cells;
static Location *locations;
static uint32_t nlocations;
static uint32_t run;
static Process processes[CHECK_MAX_PROCS];
static CheckClock fences;		/* vis of all fences so far */
static Event events[CHECK_TRACE];
static uint64_t nevents;

static struct
{
	const char *name;
	char	   *base;
	size_t		size;
}			names[CHECK_NAMES];
static int	nnames;

static inline void
join_clock(CheckClock *into, const CheckClock *from)
{
	for (int i = 0; i < CHECK_MAX_PROCS; i++)
		if (into->at[i] < from->at[i])
			into->at[i] = from->at[i];
}

static inline void
join(View *into, const View *from)
{
	join_clock(&into->hb, &from->hb);
	join_clock(&into->vis, &from->vis);
}

static void *
reserve(size_t size)
{
	void	   *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
						 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
	{
		perror("mmap");
		exit(2);
	}
	return p;
}

void
check_memory_init(void)
{
	arena = reserve(CHECK_ARENA_BYTES);
	cells = reserve(CHECK_ARENA_BYTES / 8 * sizeof(Cell));
	locations = reserve(CHECK_LOCATIONS * sizeof(Location));
}

void
check_memory_reset(void)
{
	memset(arena, 0, arena_used);
	arena_used = 0;
	nlocations = 0;
	nnames = 0;
	nevents = 0;
	memset(processes, 0, sizeof(processes));
	memset(&fences, 0, sizeof(fences));
	if (++run == 0)
	{
		/* numbers come round: no cell may seem to be of this run */
		memset(cells, 0, CHECK_ARENA_BYTES / 8 * sizeof(Cell));
		run = 1;
	}
}

/* Processes 1 to procs begin after all that 0 has done. */
void
check_memory_fork(int procs)
{
	for (int i = 1; i <= procs; i++)
		processes[i] = processes[0];
	check_memory_tick();
}

void
check_memory_join(int procs)
{
	for (int i = 1; i <= procs; i++)
		join(&processes[0].now, &processes[i].now);
}

const CheckClock *
check_memory_clock(int proc)
{
	return &processes[proc].now.hb;
}

uint32_t
check_memory_tick(void)
{
	int			self = check_self();

	processes[self].now.vis.at[self]++;
	return ++processes[self].now.hb.at[self];
}

void *
check_shared(size_t size, const char *name)
{
	char	   *p = arena + arena_used;

	size = (size + 63) & ~(size_t) 63;
	if (arena_used + size > CHECK_ARENA_BYTES || nnames == CHECK_NAMES)
		check_fail("the checker's memory is too small");
	arena_used += size;
	names[nnames].name = name;
	names[nnames].base = p;
	names[nnames++].size = size;
	return p;
}

long
check_memory_granule(const void *p)
{
	size_t		offset = (size_t) ((const char *) p - arena);

	return offset < arena_used ? (long) (offset / 8) : -1;
}

static void
note(const char *what, const void *address, uint64_t value, uint64_t other,
	 int age, const char *func, int line)
{
	events[nevents++ & (CHECK_TRACE - 1)] = (Event) {
		.what = what,.func = func,.line = line,.proc = check_self(),
		.value = value,.other = other,.address = address,.age = age
	};
}

/* "name+offset" */
static const char *
place(const void *address)
{
	static char text[4][64];
	static int	next;
	char	   *to = text[next++ & 3];

	snprintf(to, sizeof(text[0]), "%p", address);
	for (int i = 0; i < nnames; i++)
	{
		size_t		offset = (size_t) ((const char *) address - names[i].base);

		if (offset < names[i].size)
			snprintf(to, sizeof(text[0]), "%s+%#zx", names[i].name, offset);
	}
	return to;
}

void
check_memory_trace(void)
{
	uint64_t	at = nevents > CHECK_TRACE ? nevents - CHECK_TRACE : 0;

	if (at > 0)
		printf("# ... %" PRIu64 " operations\n", at);
	for (; at < nevents; at++)
	{
		const Event *e = &events[at & (CHECK_TRACE - 1)];

		printf("# %d  %-8s %-24s %16" PRIx64 " %16" PRIx64, e->proc, e->what,
			   place(e->address), e->value, e->other);
		if (e->age > 0)
			printf("  %d older", e->age);
		printf("  %s:%d\n", e->func, e->line);
	}
}

static inline Cell *
cell_at(size_t granule)
{
	Cell	   *cell = &cells[granule];

	if (cell->run != run)
	{
		memset(cell, 0, sizeof(*cell));
		cell->run = run;
	}
	return cell;
}

static void
not_freed(const Cell *cell, const void *address, const char *func, int line)
{
	if (cell->state == FREED)
		check_fail("%s:%d touches a freed object, %s, freed in %s:%d", func, line,
				   place(address), cell->freed_func, cell->freed_line);
}

static void
race(const char *ours, const char *theirs, int proc, const void *address,
	 const char *func, int line)
{
	check_fail("race: %s of %s in %s:%d with a %s by process %d", ours,
			   place(address), func, line, theirs, proc);
}

static Location *
location_of(const NxmAtomic *p, Cell **its_cell, const char *func, int line)
{
	long		granule = check_memory_granule(p);
	Cell	   *cell;
	Location   *location;

	if (granule < 0 || ((uintptr_t) p & 7) != 0)
		check_fail("%s:%d: an atomic operation outside of shared memory", func, line);
	*its_cell = cell = cell_at((size_t) granule);
	not_freed(cell, p, func, line);
	if (cell->location != 0)
		return &locations[cell->location - 1];

	if (nlocations == CHECK_LOCATIONS)
		check_fail("the checker has too few locations");
	location = &locations[nlocations++];
	cell->location = nlocations;
	/* stores and what was seen are written before they are counted */
	location->newest = location->floor = 0;
	memset(&location->stores[0], 0, sizeof(Store));
	memset(location->nseen, 0, sizeof(location->nseen));
	memset(location->loaded, 0, sizeof(location->loaded));
	memset(location->stored, 0, sizeof(location->stored));
	location->stores[0].value = p->word;
	return location;
}

/* An atomic access against plain ones. */
static inline void
atomic_races(const Cell *cell, bool writes, const void *p, const char *func,
			 int line)
{
	const CheckClock *hb = &processes[check_self()].now.hb;

	if (cell->written > hb->at[cell->writer])
		race(writes ? "an atomic store" : "an atomic load", "plain write",
			 cell->writer, p, func, line);
	if (writes)
	{
		for (int i = 0; i < CHECK_MAX_PROCS; i++)
			if (cell->read[i] > hb->at[i])
				race("an atomic store", "plain read", i, p, func, line);
	}
}

/* The oldest store that process self may see. */
static inline uint32_t
oldest_visible(const Location *location, int self)
{
	const CheckClock *vis = &processes[self].now.vis;
	uint32_t	oldest = location->floor;

	for (int i = 0; i < CHECK_MAX_PROCS; i++)
	{
		for (int j = 0; j < location->nseen[i]; j++)
		{
			const Seen *seen = &location->seen[i][j];

			if (seen->clock <= vis->at[i])
			{
				if (oldest < seen->store)
					oldest = seen->store;
				break;
			}
		}
	}
	return oldest;
}

/* Process self has, by the event of this clock, seen this store. */
static inline void
saw(Location *location, int self, uint32_t clock, uint32_t store)
{
	Seen	   *seen = location->seen[self];
	int			n = location->nseen[self];

	if (n > 0 && seen[0].store == store)
		return;
	if (n == CHECK_SEEN)
	{
		/* forgetting it for some is wrong; letting all know is allowed */
		if (location->floor < seen[n - 1].store)
			location->floor = seen[n - 1].store;
		n--;
	}
	memmove(seen + 1, seen, (size_t) n * sizeof(Seen));
	seen[0].clock = clock;
	seen[0].store = store;
	location->nseen[self] = (uint8_t) (n + 1);
}

static inline void
take_message(int self, const Store *store, CheckOrder order)
{
	if (order == CHECK_ACQUIRE || order == CHECK_ACQ_REL)
		join(&processes[self].now, &store->message);
	else
		join(&processes[self].acq, &store->message);
}

/* Appends a store.  rmw: it replaces the newest in a read-modify-write. */
static inline void
add_store(Location *location, NxmAtomic *p, uint64_t value, CheckOrder order,
		  bool rmw, int self, uint32_t clock)
{
	const Store *before = &location->stores[location->newest % CHECK_HISTORY];
	Store	   *store = &location->stores[++location->newest % CHECK_HISTORY];
	View		message;

	if (order == CHECK_RELEASE || order == CHECK_ACQ_REL)
		message = processes[self].now;
	else
		message = processes[self].rel;
	if (rmw)
		join(&message, &before->message);
	store->value = value;
	store->message = message;
	if (location->newest >= CHECK_HISTORY &&
		location->floor < location->newest - CHECK_HISTORY + 1)
		location->floor = location->newest - CHECK_HISTORY + 1;
	location->stored[self] = clock;
	saw(location, self, clock, location->newest);
	p->word = value;
}

uint64_t
check_load(const NxmAtomic *p, CheckOrder order, const char *func, int line)
{
	int			self;
	Cell	   *cell;
	Location   *location;
	uint32_t	clock;
	uint32_t	oldest;
	uint32_t	chosen;
	const Store *store;

	check_point(p, false, func);
	self = check_self();
	location = location_of(p, &cell, func, line);
	clock = check_memory_tick();
	atomic_races(cell, false, p, func, line);
	oldest = oldest_visible(location, self);
	chosen = location->newest;
	if (oldest < chosen)
		chosen -= (uint32_t) check_choose_store((int) (chosen - oldest + 1));
	store = &location->stores[chosen % CHECK_HISTORY];
	take_message(self, store, order);
	location->loaded[self] = clock;
	saw(location, self, clock, chosen);
	note(order == CHECK_RELAXED ? "load.rlx" : "load", p, store->value, 0,
		 (int) (location->newest - chosen), func, line);
	return store->value;
}

void
check_store(NxmAtomic *p, uint64_t value, CheckOrder order, const char *func,
			int line)
{
	int			self;
	Cell	   *cell;
	Location   *location;
	uint32_t	clock;

	check_point(p, true, func);
	self = check_self();
	location = location_of(p, &cell, func, line);
	clock = check_memory_tick();
	atomic_races(cell, true, p, func, line);
	add_store(location, p, value, order, false, self, clock);
	note(order == CHECK_RELAXED ? "stor.rlx" : "store", p, value, 0, 0, func, line);
}

bool
check_cas(NxmAtomic *p, uint64_t *expected, uint64_t value, CheckOrder order,
		  const char *func, int line)
{
	int			self;
	Cell	   *cell;
	Location   *location;
	uint32_t	clock;
	uint32_t	oldest;
	uint32_t	possible[CHECK_HISTORY];
	int			n = 0;
	uint32_t	chosen;
	const Store *store;
	uint64_t	wanted = *expected;

	check_point(p, true, func);
	self = check_self();
	location = location_of(p, &cell, func, line);
	clock = check_memory_tick();
	atomic_races(cell, true, p, func, line);

	/* the newest; or, where it is to fail, an older one of another value */
	oldest = oldest_visible(location, self);
	possible[n++] = location->newest;
	for (uint32_t i = location->newest; i-- > oldest;)
		if (location->stores[i % CHECK_HISTORY].value != wanted)
			possible[n++] = i;
	chosen = possible[n > 1 ? check_choose_store(n) : 0];
	store = &location->stores[chosen % CHECK_HISTORY];
	take_message(self, store, order);
	location->loaded[self] = clock;
	if (store->value != wanted)
	{
		saw(location, self, clock, chosen);
		*expected = store->value;
		note("cas fail", p, wanted, store->value,
			 (int) (location->newest - chosen), func, line);
		return false;
	}
	add_store(location, p, value, order, true, self, clock);
	note("cas", p, wanted, value, 0, func, line);
	return true;
}

uint64_t
check_rmw(NxmAtomic *p, CheckRmw op, uint64_t value, CheckOrder order,
		  const char *func, int line)
{
	static const char *const what[] = {"exchange", "add", "or", "and"};
	int			self;
	Cell	   *cell;
	Location   *location;
	uint32_t	clock;
	const Store *store;
	uint64_t	old;
	uint64_t	new = value;

	check_point(p, true, func);
	self = check_self();
	location = location_of(p, &cell, func, line);
	clock = check_memory_tick();
	atomic_races(cell, true, p, func, line);
	store = &location->stores[location->newest % CHECK_HISTORY];
	old = store->value;
	switch (op)
	{
		case CHECK_EXCHANGE:
			break;
		case CHECK_ADD:
			new = old + value;
			break;
		case CHECK_OR:
			new = old | value;
			break;
		case CHECK_AND:
			new = old & value;
			break;
	}
	take_message(self, store, order);
	location->loaded[self] = clock;
	add_store(location, p, new, order, true, self, clock);
	note(what[op], p, old, new, 0, func, line);
	return old;
}

void
check_pause(const char *func)
{
	check_point(NULL, true, func);
}

void
check_fence(const char *func, int line)
{
	Process    *process;

	check_point(NULL, true, func);
	process = &processes[check_self()];
	check_memory_tick();
	join(&process->now, &process->acq);
	join_clock(&fences, &process->now.vis);
	process->now.vis = fences;
	process->rel = process->now;
	note("fence", NULL, 0, 0, 0, func, line);
}

/* A plain write of granules from first to last; -1: they stay in their state. */
static void
write_granules(size_t first, size_t last, int state, const char *what,
			   const char *func, int line)
{
	int			self = check_self();
	uint32_t	clock = check_memory_tick();
	const CheckClock *hb = &processes[self].now.hb;

	for (size_t g = first; g <= last; g++)
	{
		Cell	   *cell = cell_at(g);
		const char *p = arena + g * 8;

		if (cell->written > hb->at[cell->writer])
			race(what, "plain write", cell->writer, p, func, line);
		for (int i = 0; i < CHECK_MAX_PROCS; i++)
			if (cell->read[i] > hb->at[i])
				race(what, "plain read", i, p, func, line);
		if (cell->location != 0)
		{
			const Location *location = &locations[cell->location - 1];

			for (int i = 0; i < CHECK_MAX_PROCS; i++)
			{
				if (location->stored[i] > hb->at[i])
					race(what, "atomic store", i, p, func, line);
				if (location->loaded[i] > hb->at[i])
					race(what, "atomic load", i, p, func, line);
			}
			/* all accesses so far are over for all to come */
			cell->location = 0;
		}
		memset(cell->read, 0, sizeof(cell->read));
		cell->writer = (uint8_t) self;
		cell->written = clock;
		if (state < 0)
			continue;
		cell->state = (uint8_t) state;
		cell->freed_func = func;
		cell->freed_line = (uint16_t) line;
	}
}

static bool
granules(const void *p, size_t n, size_t *first, size_t *last, const char *func,
		 int line)
{
	long		at = check_memory_granule(p);

	if (at < 0 || n == 0)
		return false;
	if (check_memory_granule((const char *) p + n - 1) < 0)
		check_fail("%s:%d: %zu bytes go past the end of shared memory", func,
				   line, n);
	*first = (size_t) at;
	*last = (size_t) ((const char *) p + n - 1 - arena) / 8;
	return true;
}

void
check_word_init(NxmAtomic *p, uint64_t value, const char *func, int line)
{
	size_t		first;
	size_t		last;

	if (!granules(p, 8, &first, &last, func, line))
		check_fail("%s:%d: an atomic operation outside of shared memory", func, line);
	not_freed(cell_at(first), p, func, line);
	write_granules(first, last, -1, "nxm_init()", func, line);
	p->word = value;
	note("init", p, value, 0, 0, func, line);
}

void
check_plain(const void *p, size_t n, bool write, const char *func, int line)
{
	int			self = check_self();
	size_t		first;
	size_t		last;
	uint32_t	clock;
	const CheckClock *hb = &processes[self].now.hb;

	/* private memory is nobody's business */
	if (!granules(p, n, &first, &last, func, line))
		return;
	note(write ? "write" : "read", p, n, 0, 0, func, line);
	for (size_t g = first; g <= last; g++)
		not_freed(cell_at(g), arena + g * 8, func, line);
	if (write)
	{
		write_granules(first, last, -1, "a plain write", func, line);
		return;
	}
	clock = check_memory_tick();
	for (size_t g = first; g <= last; g++)
	{
		Cell	   *cell = cell_at(g);

		if (cell->written > hb->at[cell->writer])
			race("a plain read", "plain write", cell->writer, arena + g * 8, func,
				 line);
		if (cell->location != 0)
		{
			const Location *location = &locations[cell->location - 1];

			for (int i = 0; i < CHECK_MAX_PROCS; i++)
				if (location->stored[i] > hb->at[i])
					race("a plain read", "atomic store", i, arena + g * 8, func,
						 line);
		}
		cell->read[self] = clock;
	}
}

void
check_poison(const void *p, size_t n, const char *func, int line)
{
	size_t		first;
	size_t		last;

	if (!granules(p, n, &first, &last, func, line))
		return;
	note("free", p, n, 0, 0, func, line);
	for (size_t g = first; g <= last; g++)
	{
		const Cell *cell = cell_at(g);

		if (cell->state == FREED)
			check_fail("%s:%d frees %s again, freed in %s:%d", func, line,
					   place(arena + g * 8), cell->freed_func, cell->freed_line);
	}
	write_granules(first, last, FREED, "freeing", func, line);
	/* what reads it all the same shall not find something that looks right */
	memset((void *) (uintptr_t) p, 0xdd, n);
}

void
check_withdraw(void *p, size_t n, const char *func, int line)
{
	size_t		first;
	size_t		last;

	if (!granules(p, n, &first, &last, func, line))
		return;
	note("withdraw", p, n, 0, 0, func, line);
	for (size_t g = first; g <= last; g++)
		if (cell_at(g)->state == LIVE)
			check_fail("memory is taken away from %s, which is in use",
					   place(arena + g * 8));
	write_granules(first, last, FREED, "taking away", func, line);
	memset(p, 0xee, n);
}

void
check_unpoison(void *p, size_t n, const char *func, int line)
{
	size_t		first;
	size_t		last;

	if (!granules(p, n, &first, &last, func, line))
		return;
	note("alloc", p, n, 0, 0, func, line);
	for (size_t g = first; g <= last; g++)
		if (cell_at(g)->state == LIVE)
			check_fail("%s:%d hands out %s, which is in use", func, line,
					   place(arena + g * 8));
	write_granules(first, last, LIVE, "handing out", func, line);
	memset(p, 0xaa, n);
}
