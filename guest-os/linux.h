/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of Linux's x86-64 user ABI the unikernel needs: freestanding, so no system headers.
 * Source: include/uapi and arch/x86/include/uapi of the Linux kernel.
 */
#ifndef GUEST_LINUX_H
#define GUEST_LINUX_H

#include <stdint.h>

enum {
    LINUX_EPERM = 1,
    LINUX_ENOENT = 2,
    LINUX_ESRCH = 3,
    LINUX_EINTR = 4,
    LINUX_EBADF = 9,
    LINUX_ECHILD = 10,
    LINUX_EAGAIN = 11,
    LINUX_ENOMEM = 12,
    LINUX_EFAULT = 14,
    LINUX_EINVAL = 22,
    LINUX_EPIPE = 32,
    LINUX_ENOSYS = 38,
    LINUX_EOPNOTSUPP = 95,
    /* Never seen by a program. */
    LINUX_ERESTARTSYS = 512,
    LINUX_ERESTARTNOINTR = 513,
    LINUX_ERESTARTNOHAND = 514,
    LINUX_ERESTART_RESTARTBLOCK = 516, /* beside FV_ERESTART_SO_FAR */
};

enum {
    LINUX_SYS_READ = 0,
    LINUX_SYS_CLOSE = 3,
    LINUX_SYS_FSTAT = 5,
    LINUX_SYS_POLL = 7,
    LINUX_SYS_MMAP = 9,
    LINUX_SYS_MPROTECT = 10,
    LINUX_SYS_PREAD64 = 17,
    LINUX_SYS_OPEN = 2,
    LINUX_SYS_SELECT = 23,
    LINUX_SYS_SCHED_YIELD = 24,
    LINUX_SYS_MADVISE = 28,
    LINUX_SYS_FUTEX = 202,
    LINUX_SYS_RESTART = 219,
    LINUX_SYS_EPOLL_WAIT = 232,
    LINUX_SYS_PSELECT6 = 270,
    LINUX_SYS_PPOLL = 271,
    LINUX_SYS_EPOLL_PWAIT = 281,
    LINUX_SYS_SENDMMSG = 307,
    LINUX_SYS_EPOLL_PWAIT2 = 441,
};

#define LINUX_PATH_MAX 4096

#define LINUX_PROT_READ           1
#define LINUX_PROT_WRITE          2
#define LINUX_PROT_EXEC           4
#define LINUX_MAP_PRIVATE         0x02
#define LINUX_MAP_FIXED           0x10
#define LINUX_MAP_ANON            0x20
#define LINUX_MAP_GROWSDOWN       0x100 /* the VMM names it [stack] */
#define LINUX_MAP_NORESERVE       0x4000
#define LINUX_MAP_STACK           0x20000
#define LINUX_MAP_FIXED_NOREPLACE 0x100000

/* Signals. */
enum {
    LINUX_SIGHUP = 1,
    LINUX_SIGQUIT = 3,
    LINUX_SIGILL = 4,
    LINUX_SIGTRAP = 5,
    LINUX_SIGABRT = 6,
    LINUX_SIGBUS = 7,
    LINUX_SIGFPE = 8,
    LINUX_SIGKILL = 9,
    LINUX_SIGSEGV = 11,
    LINUX_SIGPIPE = 13,
    LINUX_SIGALRM = 14,
    LINUX_SIGCHLD = 17,
    LINUX_SIGCONT = 18,
    LINUX_SIGSTOP = 19,
    LINUX_SIGTSTP = 20,
    LINUX_SIGTTIN = 21,
    LINUX_SIGTTOU = 22,
    LINUX_SIGURG = 23,
    LINUX_SIGXCPU = 24,
    LINUX_SIGXFSZ = 25,
    LINUX_SIGVTALRM = 26,
    LINUX_SIGPROF = 27,
    LINUX_SIGWINCH = 28,
    LINUX_SIGSYS = 31,
    LINUX_SIGRTMIN = 32,
    LINUX_NSIG = 64,
};

#define LINUX_SIG_DFL 0
#define LINUX_SIG_IGN 1

#define LINUX_SA_SIGINFO   0x00000004
#define LINUX_SA_RESTORER  0x04000000
#define LINUX_SA_ONSTACK   0x08000000
#define LINUX_SA_RESTART   0x10000000
#define LINUX_SA_NODEFER   0x40000000
#define LINUX_SA_RESETHAND 0x80000000

#define LINUX_SI_USER   0
#define LINUX_SI_KERNEL 0x80
#define LINUX_SI_TIMER  (-2)
#define LINUX_SI_TKILL  (-6)

#define LINUX_SS_ONSTACK    1
#define LINUX_SS_DISABLE    2
#define LINUX_SS_AUTODISARM (1u << 31)

struct linux_sigaction {
    uint64_t handler;
    uint64_t flags;
    uint64_t restorer;
    uint64_t mask;
};

struct linux_siginfo {
    int32_t signal;
    int32_t error;
    int32_t code;
    int32_t pad;
    union {
        struct {
            uint32_t pid, uid;
            uint64_t value;
        } sent;
        struct {
            int32_t id, overrun;
            uint64_t value;
        } timer;
        uint64_t address;
        uint8_t raw[112];
    };
};
_Static_assert(sizeof(struct linux_siginfo) == 128, "siginfo_t");

struct linux_stack {
    uint64_t sp;
    uint32_t flags;
    uint32_t pad;
    uint64_t bytes;
};

struct linux_sigcontext {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
    uint64_t rflags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2;
    uint64_t fpstate;
    uint64_t reserved[8];
};
_Static_assert(sizeof(struct linux_sigcontext) == 256, "struct sigcontext");

struct linux_ucontext {
    uint64_t flags;
    uint64_t link;
    struct linux_stack stack;
    struct linux_sigcontext mcontext;
    uint64_t sigmask;
};

struct linux_rt_sigframe {
    uint64_t return_address;
    struct linux_ucontext uc;
    struct linux_siginfo info;
};

#define LINUX_UC_FP_XSTATE         1
#define LINUX_UC_SIGCONTEXT_SS     2
#define LINUX_UC_STRICT_RESTORE_SS 4

/* At byte 464 of the FXSAVE image in a signal frame. */
struct linux_fpx_sw_bytes {
    uint32_t magic1;
    uint32_t extended_bytes;
    uint64_t features;
    uint32_t xstate_bytes;
    uint32_t padding[7];
};
#define LINUX_FPX_SW_OFFSET 464
#define LINUX_FP_MAGIC1     0x46505853u
#define LINUX_FP_MAGIC2     0x46505845u

struct linux_timespec {
    int64_t seconds;
    int64_t nanoseconds;
};

struct linux_timeval {
    int64_t seconds;
    int64_t microseconds;
};

struct linux_itimerspec {
    struct linux_timespec interval, value;
};

struct linux_itimerval {
    struct linux_timeval interval, value;
};

/* Threads. */
#define LINUX_CLONE_VM             0x00000100
#define LINUX_CLONE_SIGHAND        0x00000800
#define LINUX_CLONE_THREAD         0x00010000
#define LINUX_CLONE_SETTLS         0x00080000
#define LINUX_CLONE_PARENT_SETTID  0x00100000
#define LINUX_CLONE_CHILD_CLEARTID 0x00200000
#define LINUX_CLONE_CHILD_SETTID   0x01000000

struct linux_clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_bytes, tls;
};

/* Futexes. */
#define LINUX_FUTEX_WAIT           0
#define LINUX_FUTEX_WAKE           1
#define LINUX_FUTEX_UNLOCK_PI      7
#define LINUX_FUTEX_WAIT_BITSET    9
#define LINUX_FUTEX_WAKE_BITSET    10
#define LINUX_FUTEX_PRIVATE        128
#define LINUX_FUTEX_CLOCK_REALTIME 256
#define LINUX_FUTEX_WAITERS        0x80000000u
#define LINUX_FUTEX_OWNER_DIED     0x40000000u
#define LINUX_FUTEX_TID_MASK       0x3fffffffu

/* Auxiliary vector. */
enum {
    LINUX_AT_NULL = 0,
    LINUX_AT_PHDR = 3,
    LINUX_AT_PHENT = 4,
    LINUX_AT_PHNUM = 5,
    LINUX_AT_PAGESZ = 6,
    LINUX_AT_BASE = 7,
    LINUX_AT_FLAGS = 8,
    LINUX_AT_ENTRY = 9,
    LINUX_AT_UID = 11,
    LINUX_AT_EUID = 12,
    LINUX_AT_GID = 13,
    LINUX_AT_EGID = 14,
    LINUX_AT_PLATFORM = 15,
    LINUX_AT_HWCAP = 16,
    LINUX_AT_CLKTCK = 17,
    LINUX_AT_SECURE = 23,
    LINUX_AT_RANDOM = 25,
    LINUX_AT_HWCAP2 = 26,
    LINUX_AT_EXECFN = 31,
    LINUX_AT_SYSINFO_EHDR = 33,
    LINUX_AT_MINSIGSTKSZ = 51,
};

#endif
