/*
 * placement.c
 *	  Spreads shared_buffers and the buffer descriptors over the memories.
 *
 * This runs in the postmaster right after shared memory was made.  Buffers are
 * untouched then, so a policy is all they need: for ordinary shared memory it
 * belongs to the shared object and governs whichever backend touches a page
 * first.  Descriptors have been initialized, and their pages must be moved,
 * which needs no privilege as long as the postmaster alone has mapped them.
 *
 * A policy for a part of a mapping splits the mapping, and every fork copies
 * the postmaster's list of them.  So short-lived children set the policies
 * (the object keeps them, the children's mappings end with them) and the
 * postmaster only moves pages.  Huge pages carry no policy of their own: there
 * the children also touch the pages, which allocates them where the child's
 * policy says; one child a memory, for zeroing takes its time.  The pool was
 * reserved by the postmaster's mmap and the policy is a preference, so a node
 * that has too few huge pages is helped out by another.
 *
 * Where the kernel makes huge pages of shared memory by itself (always and
 * within_size in transparent_hugepage/shmem_enabled), one lies where the policy
 * of its first byte says.  So it is what is placed as one, the unit, as if it
 * had been reserved.  Its policy is the object's all the same, and nothing has
 * to be touched.  It is aligned in the object; so are our addresses, for the
 * kernel then maps such an object at a multiple of that size.  Where it has no
 * huge page left, it makes small ones, which are interleaved by themselves: the
 * unit is then what more of the blocks lie by.
 *
 * partition puts stripe s on memory s modulo n.  Up to PostgreSQL 18 free
 * buffers are handed out by number, so that stripes fill all nodes alike where
 * one range a node would fill node 0 first.  A stripe is a whole number of
 * descriptor pages' worth of buffers:
 *
 *	page size	buffers a page	descriptors a page	smallest stripe
 *	4 kB		1/2				64					512 kB
 *	2 MB		256				32,768				256 MB
 *	1 GB		131,072			16,777,216			128 GB
 *
 * Where that leaves fewer than MIN_STRIPES stripes a memory, the buffers are
 * placed alone, in stripes of whole pages, and the result says so.  It doubles
 * until there are at most MAX_STRIPES.  The descriptors need not start on a
 * page, so stripes are counted from the first buffer whose descriptor does;
 * the buffers before it belong to the last memory, where, with a number of
 * stripes that the memories divide evenly, the last stripe is short by as many.
 * BufferBlocks need not start on a page either (before PostgreSQL 16): then
 * one buffer at each edge straddles two nodes, and none inside a stripe.
 *
 * No return value is believed.  A sample of pages is touched and the kernel is
 * asked where they are: of stripes, as many pages of each memory, at random
 * places all over its stripes; interleaved, runs of neighbours as long as there
 * are memories, in which each memory has one page, at random places too.  A
 * fixed step would fall into step with the stripes.  Descriptors that were
 * moved are asked about in the same way.
 *
 * Limits: the rest of shared memory (lock tables, WAL buffers) stays where the
 * kernel puts it.
 */
#include "placement.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/pg_prng.h"
#include "compat.h"
#include "nodes.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define MAX_STRIPES 8192
#define MIN_STRIPES 8			/* a memory */
#define MAX_SAMPLE 256			/* of the buffers, and of the descriptors */
#define MOVE_BATCH 4096

typedef struct Range
{
	char	   *start;
	char	   *end;
} Range;

static int	shared_buffers_placement = NXM_PLACE_DEFAULT;
static NxmPlacementResult result;

static const struct config_enum_entry placement_options[] = {
	{"default", NXM_PLACE_DEFAULT, false},
	{"interleave", NXM_PLACE_INTERLEAVE, false},
	{"partition", NXM_PLACE_PARTITION, false},
	{NULL, 0, false}
};

/* Numbers of the memories, in stripe order. */
static int	memories[NXM_MAX_OS_NODES];
/* Number of the first buffer of stripe 0; those before it are stripe -1. */
static int	first_buffer;

static char *
page_up(char *p)
{
	return (char *) TYPEALIGN(result.unit, p);
}

/* The whole pages of an array in shared memory. */
static Range
whole_pages(char *start, size_t len)
{
	Range		r;

	r.start = page_up(start);
	r.end = (char *) TYPEALIGN_DOWN(result.unit, start + len);
	if (r.end < r.start)
		r.end = r.start;
	return r;
}

static Range
block_pages(void)
{
	return whole_pages(BufferBlocks, (size_t) NBuffers * BLCKSZ);
}

static Range
descriptor_pages(void)
{
	return whole_pages((char *) BufferDescriptors,
					   (size_t) NBuffers * sizeof(BufferDescPadded));
}

/*
 * The part of an array's whole pages that a stripe takes.  A page that two
 * stripes share belongs to the one that it starts in.
 */
static Range
stripe_part(int stripe, char *start, size_t item, Range whole)
{
	int64		from = stripe < 0 ? 0 :
		first_buffer + (int64) stripe * result.stripe_buffers;
	int64		to = first_buffer + (int64) (stripe + 1) * result.stripe_buffers;
	Range		r;

	r.start = Max(whole.start, page_up(start + Min(from, NBuffers) * item));
	r.end = to >= NBuffers ? whole.end :
		Min(whole.end, page_up(start + to * item));
	if (r.end < r.start)
		r.end = r.start;
	return r;
}

static int
memory_of_stripe(int stripe)
{
	return memories[(stripe + result.nodes) % result.nodes];
}

/* The stripe that the page at p of an array belongs to. */
static int
stripe_of_page(char *p, char *start, size_t item)
{
	int64		buffer = (p - start) / item;

	return buffer < first_buffer ? -1 :
		(int) ((buffer - first_buffer) / result.stripe_buffers);
}

/* In a child: gives a range its policy, and its pages if they are huge. */
static int
place_range(Range r, NxmRangePolicy how, const NxmOsNodeSet *nodes, bool touch)
{
	int			err;

	if (r.end == r.start)
		return 0;
	err = nxm_seam_range_policy(r.start, r.end - r.start, how, nodes);
	if (err == 0 && touch)
	{
		for (char *p = r.start; p < r.end; p += result.page_size)
			(void) *(volatile char *) p;
	}
	return err;
}

/* The n-th of parts equal parts of a range, by whole pages. */
static Range
nth_part(Range r, int n, int parts)
{
	size_t		pages = (r.end - r.start) / result.unit;
	Range		part;

	part.start = r.start + pages * n / parts * result.unit;
	part.end = r.start + pages * (n + 1) / parts * result.unit;
	return part;
}

/*
 * The work of child n of children.  Nothing but system calls: this is a forked
 * postmaster.
 */
static int
child_work(int n, int children, bool huge)
{
	const NxmTopology *topo = nxm_topology();
	int			err = 0;

	if (result.wanted == NXM_PLACE_INTERLEAVE)
	{
		err = place_range(nth_part(block_pages(), n, children),
						  NXM_RANGE_INTERLEAVE, &topo->memories, huge);
		if (err == 0 && !huge)
			err = place_range(nth_part(descriptor_pages(), n, children),
							  NXM_RANGE_INTERLEAVE, &topo->memories, false);
		return err;
	}

	for (int s = -1; s < result.stripes && err == 0; s++)
	{
		NxmOsNodeSet node = {{0}};

		if ((s + result.nodes) % children != n)
			continue;
		nxm_osnodeset_add(&node, memory_of_stripe(s));
		err = place_range(stripe_part(s, BufferBlocks, BLCKSZ, block_pages()),
						  NXM_RANGE_PREFER, &node, huge);
		if (err == 0 && result.with_descriptors && !huge)
			err = place_range(stripe_part(s, (char *) BufferDescriptors,
										  sizeof(BufferDescPadded),
										  descriptor_pages()),
							  NXM_RANGE_PREFER, &node, false);
	}
	return err;
}

static void
run_children(bool huge)
{
	int			children = huge ? result.nodes : 1;
	pid_t		pid[NXM_MAX_OS_NODES];

	for (int n = 0; n < children; n++)
	{
		pid[n] = fork();
		if (pid[n] == 0)
		{
			sigset_t	none;

			nxm_seam_die_with_parent();
			signal(SIGBUS, SIG_DFL);
			signal(SIGTERM, SIG_DFL);
			sigemptyset(&none);
			sigprocmask(SIG_SETMASK, &none, NULL);
			_exit(child_work(n, children, huge));
		}
		if (pid[n] < 0 && result.refused == 0)
			result.refused = errno;
	}
	for (int n = 0; n < children; n++)
	{
		int			status;

		if (pid[n] < 0)
			continue;
		while (waitpid(pid[n], &status, 0) < 0)
		{
			if (errno != EINTR)
			{
				result.refused = errno;
				status = 0;
				break;
			}
		}
		if (WIFSIGNALED(status))
			result.child_signal = WTERMSIG(status);
		else if (WEXITSTATUS(status) != 0 && result.refused == 0)
			result.refused = WEXITSTATUS(status);
	}
}

/* The memory that a page of descriptors is moved to. */
static int
memory_of_descriptors(char *p)
{
	if (result.wanted == NXM_PLACE_INTERLEAVE)
		return memories[(p - descriptor_pages().start) / result.unit %
						result.nodes];
	return memory_of_stripe(stripe_of_page(p, (char *) BufferDescriptors,
										   sizeof(BufferDescPadded)));
}

/*
 * Descriptors have been written to: their pages exist and must be moved.  What
 * became of each page is found out by verify_descriptors().  False if the kernel would
 * not move them.
 */
static bool
move_descriptors(void)
{
	Range		r = descriptor_pages();
	void	  **pages = palloc(sizeof(void *) * MOVE_BATCH);
	int		   *target = palloc(sizeof(int) * MOVE_BATCH);
	int		   *status = palloc(sizeof(int) * MOVE_BATCH);
	char	   *p = r.start;

	while (p < r.end)
	{
		int			n = 0;
		int			err;

		for (; p < r.end && n < MOVE_BATCH; p += result.page_size)
		{
			pages[n] = p;
			target[n++] = memory_of_descriptors(p);
		}
		err = nxm_seam_move_pages(pages, n, target, status);
		if (err != 0)
		{
			result.move_refused = err;
			result.with_descriptors = false;
			break;
		}
	}
	pfree(pages);
	pfree(target);
	pfree(status);
	return result.move_refused == 0;
}

/*
 * Picks pages of an array in stripes: the same number of each memory, each at
 * a random place in its share of that memory's stripes.  Returns how many.
 */
static int
sample_stripes(char *start, size_t item, Range whole, void **pages)
{
	int64		pages_a_stripe = Max(1, result.stripe_buffers * (int64) item /
									 (int64) result.unit);
	int			n = 0;

	for (int m = 0; m < result.nodes; m++)
	{
		int			stripes = (result.stripes - m + result.nodes - 1) /
			result.nodes;
		int			wanted = (int) Min(Max(1, MAX_SAMPLE / result.nodes),
									   stripes * pages_a_stripe);

		for (int i = 0; i < wanted && n < MAX_SAMPLE; i++)
		{
			double		place = (i + pg_prng_double(&pg_global_prng_state)) /
				wanted * stripes;
			int			nth = Min((int) place, stripes - 1);
			Range		r = stripe_part(m + nth * result.nodes, start, item,
										whole);
			size_t		npages;

			/* the last one may have no whole page: the one before it then */
			if (r.end == r.start && nth > 0)
				r = stripe_part(m + --nth * result.nodes, start, item, whole);
			npages = (r.end - r.start) / result.unit;
			if (npages == 0)
				continue;
			pages[n++] = r.start + result.unit *
				Min((size_t) ((place - nth) * npages), npages - 1);
		}
	}
	return n;
}

/*
 * Picks runs of neighbouring pages, *run long, each at a random place in its
 * share of the range.  Returns how many pages.
 */
static int
sample_runs(Range r, int *run, void **pages)
{
	size_t		npages = (r.end - r.start) / result.unit;
	size_t		runs;
	int			n = 0;

	*run = (int) Min(Min(npages, MAX_SAMPLE), (size_t) result.nodes);
	if (*run == 0)
		return 0;
	runs = Min(npages, MAX_SAMPLE) / *run;
	for (size_t i = 0; i < runs; i++)
	{
		size_t		from = npages * i / runs;
		size_t		to = npages * (i + 1) / runs;
		size_t		first = from + pg_prng_uint64_range(&pg_global_prng_state,
														0, to - from - *run);

		for (int j = 0; j < *run; j++)
			pages[n++] = r.start + (first + j) * result.unit;
	}
	return n;
}

/* Asks where pages lie; touches them first, for only mapped ones are known. */
static bool
ask(void **pages, int n, int *node)
{
	int			err = 0;

	for (int i = 0; i < n; i++)
		(void) *(volatile char *) pages[i];
	if (n > 0)
		err = nxm_seam_page_nodes(pages, n, node);
	if (err != 0)
		result.ask_refused = err;
	return err == 0;
}

/* Counts a page that is where it should be, and its memory if it is new. */
static void
count_verified(int node, NxmOsNodeSet *seen)
{
	result.verified++;
	if (!nxm_osnodeset_has(seen, node))
	{
		nxm_osnodeset_add(seen, node);
		result.memories_seen++;
	}
}

/* Samples the pages of the buffers.  False if the kernel would not tell. */
static bool
verify_blocks(NxmOsNodeSet *seen)
{
	bool		interleave = result.wanted == NXM_PLACE_INTERLEAVE;
	void	   *pages[MAX_SAMPLE];
	int			node[MAX_SAMPLE];
	int			run = 1;
	int			n;

	n = interleave ? sample_runs(block_pages(), &run, pages) :
		sample_stripes(BufferBlocks, BLCKSZ, block_pages(), pages);
	if (!ask(pages, n, node))
		return false;
	result.sampled += n;
	for (int i = 0; i < n; i++)
	{
		bool		right;

		if (interleave)
		{
			/* any order will do, but no memory has two pages of a run */
			right = nxm_osnodeset_has(&nxm_topology()->memories, node[i]);
			for (int j = i - i % run; j < i; j++)
				right &= node[j] != node[i];
		}
		else
			right = node[i] == memory_of_stripe(stripe_of_page(pages[i],
															   BufferBlocks,
															   BLCKSZ));
		if (right)
			count_verified(node[i], seen);
	}
	return true;
}

/* Those of the descriptors, which were moved. */
static void
verify_descriptors(NxmOsNodeSet *seen)
{
	bool		interleave = result.wanted == NXM_PLACE_INTERLEAVE;
	void	   *pages[MAX_SAMPLE];
	int			node[MAX_SAMPLE];
	int			run = 1;
	int			n;

	n = interleave ? sample_runs(descriptor_pages(), &run, pages) :
		sample_stripes((char *) BufferDescriptors, sizeof(BufferDescPadded),
					   descriptor_pages(), pages);
	if (!ask(pages, n, node))
		return;
	result.sampled += n;
	for (int i = 0; i < n; i++)
	{
		if (node[i] == memory_of_descriptors(pages[i]))
			count_verified(node[i], seen);
	}
}

/* The part of the sampled blocks that take turns by pages of this size. */
static double
taking_turns(size_t unit)
{
	NxmOsNodeSet seen = {{0}};
	double		part;

	result.unit = unit;
	part = verify_blocks(&seen) ? result.verified / Max(1.0, result.sampled) : 0;
	result.sampled = result.verified = result.memories_seen = 0;
	return part;
}

/*
 * The unit of interleaved memory that the kernel may not have in huge pages.  Where the
 * number of memories is odd, small pages that lie one unit apart take turns as well: so
 * units that do tell nothing.  Of a run of small pages in a huge one, which are all on one
 * memory, the first alone counts; where more than half of them are in huge ones, fewer
 * than half of the others do.
 */
static void
choose_unit(size_t huge_unit)
{
	double		by_unit = taking_turns(huge_unit);
	double		by_page = taking_turns(result.page_size);

	if (by_page == 0 ||
		(by_page < by_unit && by_page < (1 + 1.0 / result.nodes) / 2))
		result.unit = huge_unit;
}

/* Decides on stripes, see the head of this file. */
static void
lay_out_stripes(void)
{
	int64		per_descriptor_page = result.unit / sizeof(BufferDescPadded);
	int64		unit;

	result.with_descriptors =
		NBuffers / per_descriptor_page >= MIN_STRIPES * result.nodes;
	first_buffer = 0;
	if (result.with_descriptors)
	{
		char	   *start = (char *) BufferDescriptors;

		unit = per_descriptor_page;
		first_buffer = (page_up(start) - start) / sizeof(BufferDescPadded);
	}
	else
		unit = Max(1, (int64) result.unit / BLCKSZ);

	while (NBuffers / unit > MAX_STRIPES)
		unit *= 2;
	result.stripe_buffers = (int) unit;
	result.stripes = (int) ((NBuffers - first_buffer + unit - 1) / unit);
}

void
nxm_placement_apply(void)
{
	const NxmTopology *topo = nxm_topology();
	size_t		unit;
	bool		huge;

	memset(&result, 0, sizeof(result));
	result.wanted = shared_buffers_placement;
	result.page_size = Max(nxm_seam_page_size(BufferBlocks),
						   (size_t) sysconf(_SC_PAGESIZE));
	unit = Max(result.page_size, nxm_seam_shared_huge_page_size());
	/* a policy to interleave needs none, and the edges may be in small pages */
	result.unit = result.wanted == NXM_PLACE_INTERLEAVE ? result.page_size : unit;
	if (result.wanted == NXM_PLACE_DEFAULT)
		return;

	for (int i = -1; (i = nxm_osnodeset_next(&topo->memories, i)) >= 0;)
		memories[result.nodes++] = i;
	if (result.nodes < 2)
		return;
	huge = result.page_size > (size_t) sysconf(_SC_PAGESIZE);
	if (result.wanted == NXM_PLACE_PARTITION)
		lay_out_stripes();

	run_children(huge);
	if (result.refused == 0 && result.child_signal == 0)
	{
		bool		descriptors = result.with_descriptors;
		NxmOsNodeSet seen = {{0}};

		if (result.wanted == NXM_PLACE_INTERLEAVE)
		{
			descriptors = true;
			if (unit > result.page_size)
				choose_unit(unit);
		}
		if (descriptors)
			descriptors = move_descriptors();
		if (verify_blocks(&seen) && descriptors)
			verify_descriptors(&seen);
		result.done = true;
	}

	if (!result.done)
	{
		/* what the probe has told already needs no second LOG line */
		if (result.refused == EPERM &&
			(nxm_seam_support()->refused &
			 (NXM_CALL_MBIND | NXM_CALL_MOVE_PAGES)) != 0)
			return;
		ereport(LOG,
				(errmsg("nexusmem could not place shared_buffers: %s",
						result.refused ? strerror(result.refused) :
						"a helper process was killed"),
				 errhint("See the view nexusmem.status.")));
	}
	else if (result.move_refused != 0 || result.ask_refused != 0)
	{
		if ((nxm_seam_support()->refused & NXM_CALL_MOVE_PAGES) != 0)
			return;
		if (result.move_refused != 0)
			ereport(LOG,
					(errmsg("nexusmem placed shared_buffers, but could not move its descriptors: %s",
							strerror(result.move_refused)),
					 errhint("See the view nexusmem.status.")));
		if (result.ask_refused != 0)
			ereport(LOG,
					(errmsg("nexusmem placed shared_buffers, but cannot find out where it lies: %s",
							strerror(result.ask_refused)),
					 errhint("See the view nexusmem.status.")));
	}
	else if (result.verified < result.sampled)
		ereport(LOG,
				(errmsg("nexusmem placed shared_buffers, but %d of %d sampled pages lie elsewhere",
						result.sampled - result.verified, result.sampled),
				 errhint("See the view nexusmem.shared_buffers_nodes.")));
}

const NxmPlacementResult *
nxm_placement_result(void)
{
	return &result;
}

void
nxm_placement_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomEnumVariable("nexusmem.shared_buffers_placement",
							 "How shared_buffers is spread over the nodes.",
							 NULL,
							 &shared_buffers_placement,
							 NXM_PLACE_DEFAULT, placement_options,
							 PGC_POSTMASTER,
							 0, NULL, NULL, NULL);
}
