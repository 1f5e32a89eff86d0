/*
 * numa_seam.c
 *	  The only file that makes the NUMA system calls.
 *
 * Each call is probed once, without changing anything: containers' seccomp
 * filters answer EPERM to some of them, and a kernel without CONFIG_NUMA answers
 * ENOSYS.  Both mean "not here", and the caller degrades.  Other filters kill
 * (systemd's SystemCallFilter without SystemCallErrorNumber): so it is a forked
 * process that tries the calls, and where that does not survive they count as
 * refused.  A call that is refused is not made again, but answered EPERM here.
 *
 * The calls are made by their numbers, with constants of the kernel's own header: both
 * are its ABI.  libnuma has functions for them, but some releases of it (2.0.16) make
 * two of the calls while they are loaded, and so the server would be killed for loading
 * us.
 *
 * No return value of mbind is believed: it says 0 and
 * moves nothing where pages are mapped twice.  Whoever places memory asks
 * nxm_seam_page_nodes() where it lies.
 *
 * Memory that is given back and taken again, by madvise, is here too.  To take
 * it is to have the kernel write to it: where it can't, for a full file system,
 * it says so, and a process that just touched the page would get SIGBUS.
 *
 * Never MPOL_BIND: with huge pages mbind succeeds on a node without enough of
 * them, and the first touch is a SIGBUS.
 *
 * Limits: Linux alone.  NXM_MAX_CPUS CPUs (sched_getaffinity fails where the kernel is built
 * for more and their affinity is unknown), NXM_MAX_OS_NODES nodes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa_seam.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SYSFS_ROOT "/sys/devices/system/"

/* glibc has them since 2.35 */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
/* and this one since 2.37 */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define ALL_CALLS (NXM_CALL_GET_MEMPOLICY | NXM_CALL_SET_MEMPOLICY | \
				   NXM_CALL_MBIND | NXM_CALL_MOVE_PAGES | NXM_CALL_SETAFFINITY)

static NxmNumaSupport support;
static bool support_known = false;

/* Asked before each of the calls, for to make it could be the end of this process. */
static bool
is_refused(NxmSysCall call)
{
	return (nxm_seam_support()->refused & call) != 0;
}

static int
read_file(const char *path, char *buf, size_t size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t		len = 0;

	if (fd < 0)
		return -1;
	while (len + 1 < size)
	{
		ssize_t		n = read(fd, buf + len, size - 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += n;
	}
	close(fd);
	buf[len] = '\0';
	return (int) len;
}

static int
read_sysfs(void *arg, const char *path, char *buf, size_t size)
{
	char		full[256];

	(void) arg;
	if (snprintf(full, sizeof(full), SYSFS_ROOT "%s", path) >=
		(int) sizeof(full))
		return -1;
	return read_file(full, buf, size);
}

bool
nxm_seam_hardware(NxmHardware *hw, const NxmCpuSet *allowed)
{
	return nxm_hardware_read(hw, allowed, read_sysfs, NULL);
}

/*
 * The list behind a tag of /proc/pid/status (0: self), for want of a system
 * call.
 */
static bool
status_list(pid_t pid, const char *tag, uint64_t *words, int nbits)
{
	char		path[64];
	char		buf[8192];
	char	   *line;
	char	   *end;

	if (pid == 0)
		snprintf(path, sizeof(path), "/proc/self/status");
	else
		snprintf(path, sizeof(path), "/proc/%d/status", (int) pid);
	if (read_file(path, buf, sizeof(buf)) < 0)
		return false;
	line = strstr(buf, tag);
	if (line == NULL)
		return false;
	line += strlen(tag);
	line += strspn(line, " \t");
	end = strchr(line, '\n');
	if (end != NULL)
		*end = '\0';
	return nxm_list_parse(line, words, nbits, NULL);
}

int
nxm_seam_allowed(NxmCpuSet *cpus, NxmOsNodeSet *mems)
{
	int			err = nxm_seam_get_affinity(0, cpus);

	memset(mems, 0, sizeof(*mems));

	/*
	 * What numa_get_mems_allowed() asks by get_mempolicy(MEMS_ALLOWED) the
	 * kernel also prints, and there no seccomp filter can refuse it.
	 */
	if (!status_list(0, "\nMems_allowed_list:", mems->word, NXM_MAX_OS_NODES))
		memset(mems, 0, sizeof(*mems));
	return err;
}

int64_t
nxm_seam_free_bytes(int os_node)
{
	char		path[64];
	char		buf[8192];
	const char *text;

	snprintf(path, sizeof(path), SYSFS_ROOT "node/node%d/meminfo", os_node);
	if (read_file(path, buf, sizeof(buf)) < 0)
		return -1;
	text = strstr(buf, " MemFree:");
	return text == NULL ? -1 : atoll(text + strlen(" MemFree:")) * 1024;
}

int
nxm_seam_get_affinity(pid_t pid, NxmCpuSet *cpus)
{
	memset(cpus, 0, sizeof(*cpus));
	if (sched_getaffinity(pid, sizeof(*cpus), (cpu_set_t *) cpus) != 0)
		return errno;
	return 0;
}

int
nxm_seam_get_whole_affinity(pid_t pid, NxmCpuSet *cpus)
{
	if (!status_list(pid, "\nCpus_allowed_list:", cpus->word, NXM_MAX_CPUS))
		return nxm_seam_get_affinity(pid, cpus);
	return 0;
}

int
nxm_seam_set_affinity(pid_t pid, const NxmCpuSet *cpus)
{
	if (is_refused(NXM_CALL_SETAFFINITY))
		return EPERM;
	if (sched_setaffinity(pid, sizeof(*cpus), (const cpu_set_t *) cpus) != 0)
		return errno;
	return 0;
}

/*
 * Finds a field of /proc/pid/stat, counted as proc(5) does, from 3 on, in buf;
 * or NULL.
 */
static const char *
stat_text(pid_t pid, int wanted, char *buf, size_t size)
{
	char		path[64];
	char	   *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
	if (read_file(path, buf, size) < 0)
		return NULL;
	/* field 2 may hold anything but ends at the last ')' */
	p = strrchr(buf, ')');
	if (p == NULL)
		return NULL;
	p++;
	for (int field = 3; field <= wanted; field++)
	{
		p += strspn(p, " ");
		if (*p == '\0')
			return NULL;
		if (field == wanted)
			return p;
		p += strcspn(p, " ");
	}
	return NULL;
}

/* A numeric one, or -1. */
static int
stat_field(pid_t pid, int wanted)
{
	char		buf[1024];
	const char *text = stat_text(pid, wanted, buf, sizeof(buf));

	return text == NULL ? -1 : atoi(text);
}

bool
nxm_seam_stopped(pid_t pid)
{
	char		buf[1024];
	const char *state = stat_text(pid, 3, buf, sizeof(buf));

	return state != NULL && (*state == 'T' || *state == 't');
}

int
nxm_seam_cpu_of(pid_t pid)
{
	if (pid == 0 || pid == getpid())
		return sched_getcpu();
	return stat_field(pid, 39);
}

pid_t
nxm_seam_parent_of(pid_t pid)
{
	return stat_field(pid, 4);
}

size_t
nxm_seam_page_size(const void *addr)
{
	FILE	   *f = fopen("/proc/self/smaps", "re");
	char		line[512];
	bool		inside = false;
	size_t		size = 0;

	if (f == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL)
	{
		unsigned long from;
		unsigned long to;
		unsigned long kb;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = (uintptr_t) addr >= from && (uintptr_t) addr < to;
		else if (inside && sscanf(line, "KernelPageSize: %lu kB", &kb) == 1)
		{
			size = (size_t) kb * 1024;
			break;
		}
	}
	fclose(f);
	return size;
}

/*
 * EAGAIN and EINTR are answers of moments: a page that is being migrated, a
 * signal.
 */
static int
advise(void *addr, size_t len, int advice)
{
	for (int tries = 0; madvise(addr, len, advice) != 0; tries++)
	{
		if ((errno != EAGAIN && errno != EINTR) || tries == 100)
			return errno;
	}
	return 0;
}

bool
nxm_seam_can_populate(void)
{
	static int	can = -1;
	long		page_size = sysconf(_SC_PAGESIZE);
	void	   *page;

	if (can >= 0)
		return can;
	page = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return false;
	can = advise(page, page_size, MADV_POPULATE_WRITE) == 0;
	munmap(page, page_size);
	return can;
}

int
nxm_seam_populate(void *addr, size_t len)
{
	return advise(addr, len, MADV_POPULATE_WRITE);
}

int
nxm_seam_release(void *addr, size_t len)
{
	return advise(addr, len, MADV_REMOVE);
}

int
nxm_seam_map(void *addr, size_t len)
{
	return advise(addr, len, MADV_POPULATE_READ);
}

size_t
nxm_seam_huge_page_size(void)
{
	static ssize_t size = -1;
	char		text[32];

	if (size < 0)
		size = read_file("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
						 text, sizeof(text)) < 0 ? 0 : atol(text);
	return (size_t) size;
}

size_t
nxm_seam_shared_huge_page_size(void)
{
	static const char *const unasked[] = {"[always]", "[within_size]", "[force]"};
	char		text[128];

	if (read_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", text,
				  sizeof(text)) < 0)
		return 0;
	for (size_t i = 0; i < sizeof(unasked) / sizeof(unasked[0]); i++)
		if (strstr(text, unasked[i]) != NULL)
			return nxm_seam_huge_page_size();
	return 0;
}

void *
nxm_seam_map_aligned(void *addr, size_t len, size_t align)
{
	char	   *room = mmap(NULL, len + align, PROT_NONE,
							MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t		before;
	void	   *second;

	if (room == MAP_FAILED)
		return NULL;
	before = (align - (uintptr_t) room % align) % align;
	/* of length 0: does not move the mapping, but makes another one, see mremap(2) */
	second = mremap(addr, 0, len, MREMAP_MAYMOVE | MREMAP_FIXED, room + before);
	if (second == MAP_FAILED)
	{
		munmap(room, len + align);
		return NULL;
	}
	if (before > 0)
		munmap(room, before);
	len = (len + (size_t) sysconf(_SC_PAGESIZE) - 1) & ~((size_t) sysconf(_SC_PAGESIZE) - 1);
	munmap((char *) second + len, align - before);
	return second;
}

int
nxm_seam_collapse(void *addr, size_t len)
{
	/* each try drains lists of all CPUs: whoever asks has other ranges to go on with */
	return madvise(addr, len, MADV_COLLAPSE) != 0 ? errno : 0;
}

int
nxm_seam_resident(void *addr, size_t len, unsigned char *pages)
{
	return mincore(addr, len, pages) != 0 ? errno : 0;
}

void
nxm_seam_die_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

double
nxm_seam_cached_advice_us(int fd, int tries)
{
	double		us[64];
	char		byte;

	if (tries > 64)
		tries = 64;
	if (tries < 1 || pread(fd, &byte, 1, 0) != 1)
		return 0;
	for (int i = 0; i < tries; i++)
	{
		struct timespec a;
		struct timespec b;

		clock_gettime(CLOCK_MONOTONIC, &a);
		if (posix_fadvise(fd, 0, 8192, POSIX_FADV_WILLNEED) != 0)
			return 0;
		clock_gettime(CLOCK_MONOTONIC, &b);
		us[i] = (b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3;
	}
	qsort(us, tries, sizeof(us[0]), compare_doubles);
	return us[tries / 2];
}

const char *
nxm_seam_call_names(unsigned calls, char *buf, size_t size)
{
	static const char *const name[] = {"get_mempolicy", "set_mempolicy",
	"mbind", "move_pages", "sched_setaffinity"};
	size_t		len = 0;

	buf[0] = '\0';
	for (int i = 0; i < (int) (sizeof(name) / sizeof(name[0])); i++)
	{
		if ((calls & (1u << i)) == 0 || len >= size)
			continue;
		len += snprintf(buf + len, size - len, "%s%s", len ? ", " : "",
						name[i]);
	}
	return buf;
}

static void
note_call(NxmSysCall call, int err)
{
	if (err == EPERM || err == EACCES)
		support.refused |= call;
	else if (err == ENOSYS)
		support.missing |= call;
}

/*
 * The kernel reads maxnode - 1 bits (get_mempolicy(2), BUGS).  Its masks are
 * arrays of unsigned long, which on every 64-bit platform have the layout of
 * our uint64_t words.
 */
#define MASK(set) ((unsigned long *) (set)->word)
#define CONST_MASK(set) ((const unsigned long *) (set)->word)
#define MASK_BITS ((unsigned long) NXM_MAX_OS_NODES + 1)

int
nxm_seam_get_policy(NxmMemPolicy *policy)
{
	memset(policy, 0, sizeof(*policy));
	if (is_refused(NXM_CALL_GET_MEMPOLICY))
		return EPERM;
	if (syscall(SYS_get_mempolicy, &policy->mode, MASK(&policy->nodes), MASK_BITS,
				NULL, 0L) != 0)
		return errno;
	return 0;
}

int
nxm_seam_set_policy(const NxmMemPolicy *policy)
{
	bool		empty = nxm_osnodeset_count(&policy->nodes) == 0;

	if (is_refused(NXM_CALL_SET_MEMPOLICY))
		return EPERM;
	if (syscall(SYS_set_mempolicy, (long) policy->mode,
				empty ? NULL : CONST_MASK(&policy->nodes),
				empty ? 0L : MASK_BITS) != 0)
		return errno;
	return 0;
}

int
nxm_seam_prefer(int os_node)
{
	NxmMemPolicy policy = {.mode = MPOL_PREFERRED};

	nxm_osnodeset_add(&policy.nodes, os_node);
	return nxm_seam_set_policy(&policy);
}

int
nxm_seam_range_policy(void *addr, size_t len, NxmRangePolicy how,
					  const NxmOsNodeSet *nodes)
{
	long		mode = how == NXM_RANGE_INTERLEAVE ? MPOL_INTERLEAVE :
		MPOL_PREFERRED;

	if (is_refused(NXM_CALL_MBIND))
		return EPERM;
	if (syscall(SYS_mbind, addr, len, mode, CONST_MASK(nodes), MASK_BITS, 0L) != 0)
		return errno;
	return 0;
}

int
nxm_seam_page_nodes(void **pages, int n, int *nodes)
{
	if (is_refused(NXM_CALL_MOVE_PAGES))
		return EPERM;
	if (syscall(SYS_move_pages, 0L, (long) n, pages, NULL, nodes, 0L) < 0)
		return errno;
	return 0;
}

int
nxm_seam_move_pages(void **pages, int n, const int *nodes, int *status)
{
	if (is_refused(NXM_CALL_MOVE_PAGES))
		return EPERM;
	if (syscall(SYS_move_pages, 0L, (long) n, pages, nodes, status,
				(long) MPOL_MF_MOVE) < 0)
		return errno;
	return 0;
}

/*
 * set_mempolicy is given what is already in force; mbind, the default policy
 * on a page of our own, that is mapped; move_pages only asks.
 */
static void
probe_memory_calls(void *page)
{
	NxmMemPolicy policy;
	int			err;
	int			node;

	err = nxm_seam_get_policy(&policy);
	note_call(NXM_CALL_GET_MEMPOLICY, err);
	/* where the policy in force is unknown, the default is the best guess */
	if (err != 0)
		memset(&policy, 0, sizeof(policy));
	note_call(NXM_CALL_SET_MEMPOLICY, nxm_seam_set_policy(&policy));

	note_call(NXM_CALL_MBIND,
			  syscall(SYS_mbind, page, sysconf(_SC_PAGESIZE), (long) MPOL_DEFAULT, NULL,
					  0L, 0L) != 0 ? errno : 0);
	note_call(NXM_CALL_MOVE_PAGES, nxm_seam_page_nodes(&page, 1, &node));
}

/* What the process that probes leaves behind, in memory that is shared with it. */
typedef struct Answer
{
	NxmNumaSupport support;
	bool		complete;
} Answer;

/*
 * In a forked postmaster or backend, of which it uses nothing: system calls, and
 * _exit(), for what is registered to run at exit is the parent's.  A filter's
 * SIGSYS kills it whatever handler there is, as all signals are blocked.
 */
static void
be_the_probe(Answer *answer)
{
	NxmCpuSet	none = {{0}};

	/* to be killed is an answer, and no crash to leave a core file of */
	prctl(PR_SET_DUMPABLE, 0);

	answer->complete = false;
	probe_memory_calls(answer);

	/* no CPU at all: who may call it gets EINVAL, and nothing is stored */
	note_call(NXM_CALL_SETAFFINITY, nxm_seam_set_affinity(0, &none));

	answer->support = support;
	answer->complete = true;
	_exit(0);
}

/*
 * The answer comes by memory and not as an exit status, which waitpid() does not
 * tell where SIGCHLD is ignored, or is handled by someone who waits for all
 * children.  It returns when the child has ended in any case.
 */
static void
ask_a_child(void)
{
	Answer	   *answer = mmap(NULL, sizeof(Answer), PROT_READ | PROT_WRITE,
							  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	sigset_t	all;
	sigset_t	before;
	int			status = 0;
	pid_t		pid;

	if (answer == MAP_FAILED)
	{
		support.probe_errno = errno;
		return;
	}
	/* no handler of the parent's is to run in the child */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		be_the_probe(answer);
	if (pid < 0)
		support.probe_errno = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);

	if (pid > 0)
	{
		while (waitpid(pid, &status, 0) < 0)
		{
			if (errno != EINTR)
			{
				status = 0;
				break;
			}
		}
		if (answer->complete)
			support = answer->support;
		else if (WIFSIGNALED(status))
			support.probe_signal = WTERMSIG(status);
		support.probed = answer->complete;
	}
	munmap(answer, sizeof(Answer));
}

const NxmNumaSupport *
nxm_seam_support(void)
{
	if (support_known)
		return &support;

	/* first, for the child is to make the calls by the functions that ask here */
	support_known = true;
	ask_a_child();
	if (!support.probed)
		support.refused = ALL_CALLS;
	return &support;
}
