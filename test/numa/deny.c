/*
 * deny.c
 *	  Run a command for which some system calls fail with EPERM, or are its end.
 *
 *		deny mbind,set_mempolicy,move_pages -- postgres -D data
 *		deny -k mbind,set_mempolicy,move_pages -- postgres -D data
 *		deny madvise_populate,madvise_remove -- postgres -D data
 *
 * This is what the default seccomp profile of Docker and containerd does to the
 * NUMA calls of a container without CAP_SYS_NICE. Without fadvise64 look-ahead cannot
 * tell what is in the operating system's cache. The filter is inherited over
 * fork and exec, and cannot be taken off again, which is why this is a program
 * in front of the server and not a function in a test.
 *
 * With -k the process that makes such a call is killed by SIGSYS, as by systemd's
 * SystemCallFilter= without SystemCallErrorNumber=.
 *
 * Of madvise only some advice fails, with EINVAL, as where the kernel does not know it;
 * to populate pages it has known since Linux 5.14.
 *
 * Limits: x86-64 and 64-bit ARM (little-endian, for the advice is the lower half of
 * an argument), calls of the native ABI; only the calls listed below.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "deny: architecture not supported"
#endif

/* Linux 4.14 */
#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000U
#endif

/* Linux 5.17; the header of an older libc does not have it */
#ifndef SYS_set_mempolicy_home_node
#define SYS_set_mempolicy_home_node 450
#endif

#define ADVICE_REMOVE 9
/* Linux 5.14 */
#define ADVICE_POPULATE_READ 22
#define ADVICE_POPULATE_WRITE 23

typedef struct
{
	const char *name;
	unsigned    number;
	/* 0: whatever the arguments are; else the third one has to be one of these */
	unsigned advice[2];
} Call;

static const Call calls[] = {
	{ "mbind", SYS_mbind, { 0 } },
	{ "set_mempolicy", SYS_set_mempolicy, { 0 } },
	{ "get_mempolicy", SYS_get_mempolicy, { 0 } },
	{ "move_pages", SYS_move_pages, { 0 } },
	{ "migrate_pages", SYS_migrate_pages, { 0 } },
	{ "set_mempolicy_home_node", SYS_set_mempolicy_home_node, { 0 } },
	{ "sched_setaffinity", SYS_sched_setaffinity, { 0 } },
	{ "sched_getaffinity", SYS_sched_getaffinity, { 0 } },
	{ "fadvise64", SYS_fadvise64, { 0 } },
	{ "madvise_populate", SYS_madvise, { ADVICE_POPULATE_READ, ADVICE_POPULATE_WRITE } },
	{ "madvise_remove", SYS_madvise, { ADVICE_REMOVE, ADVICE_REMOVE } },
};

#define NCALLS (sizeof(calls) / sizeof(calls[0]))

static const Call *
call_of(const char *name)
{
	for (size_t i = 0; i < NCALLS; i++)
		if (strcmp(calls[i].name, name) == 0)
			return &calls[i];

	fprintf(stderr, "deny: unknown system call \"%s\"; known are:", name);
	for (size_t i = 0; i < NCALLS; i++)
		fprintf(stderr, " %s", calls[i].name);
	fprintf(stderr, "\n");
	exit(2);
}

static struct sock_filter
load(size_t offset)
{
	return (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset);
}

/* Skips so many instructions where what was loaded is, or is not, equal. */
static struct sock_filter
jump(unsigned equal, unsigned char if_so, unsigned char if_not)
{
	return (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, equal, if_so,
										 if_not);
}

static struct sock_filter
end(unsigned action)
{
	return (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, action);
}

int
main(int argc, char **argv)
{
	/* 4 instructions in front, 6 for each call at most, 1 at the end */
	struct sock_filter code[4 + 6 * NCALLS + 1];
	struct sock_fprog  prog = { .filter = code };
	unsigned           kill = 0;
	unsigned           n = 0;
	int                command = 2;

	if (argc > 1 && strcmp(argv[1], "-k") == 0)
	{
		kill = SECCOMP_RET_KILL_PROCESS;
		argc--;
		argv++;
	}
	if (argc > 2 && strcmp(argv[2], "--") == 0)
		command = 3;
	if (argc <= command)
	{
		fprintf(stderr,
				"usage: deny [-k] SYSCALL[,SYSCALL...] -- COMMAND [ARGUMENT...]\n");
		return 2;
	}

	/* a foreign ABI numbers its calls differently: let it pass */
	code[n++] = load(offsetof(struct seccomp_data, arch));
	code[n++] = jump(NATIVE_ARCH, 1, 0);
	code[n++] = end(SECCOMP_RET_ALLOW);
	code[n++] = load(offsetof(struct seccomp_data, nr));
	for (char *name = strtok(argv[1], ","); name != NULL;
		 name = strtok(NULL, ","))
	{
		const Call *call = call_of(name);

		if (n + 7 > sizeof(code) / sizeof(code[0]))
		{
			fprintf(stderr, "deny: too many system calls\n");
			return 2;
		}
		if (call->advice[0] == 0)
		{
			code[n++] = jump(call->number, 0, 1);
			code[n++] = end(kill != 0 ? kill : SECCOMP_RET_ERRNO | EPERM);
			continue;
		}
		code[n++] = jump(call->number, 0, 5);
		code[n++] = load(offsetof(struct seccomp_data, args[2]));
		code[n++] = jump(call->advice[0], 1, 0);
		code[n++] = jump(call->advice[1], 0, 1);
		code[n++] = end(kill != 0 ? kill : SECCOMP_RET_ERRNO | EINVAL);
		code[n++] = load(offsetof(struct seccomp_data, nr));
	}
	code[n++] = end(SECCOMP_RET_ALLOW);
	prog.len = n;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
	{
		perror("deny: seccomp");
		return 2;
	}
	execvp(argv[command], argv + command);
	fprintf(stderr, "deny: %s: %s\n", argv[command], strerror(errno));
	return 127;
}
