/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest/host ABI: what the VMM (vmm/) and the unikernel (guest-os/) must agree on, and nothing
 * else.
 *
 * Freestanding C11 and assembler safe (constants only under __ASSEMBLER__). Every structure lives
 * in the guest's pinned kernel region, so neither side can take a second-stage fault on it. The
 * guest is not trusted: the VMM copies a structure once and validates the copy. Explained in
 * docs/hypercalls.md.
 */
#ifndef FARVISOR_ABI_H
#define FARVISOR_ABI_H

/* Bumped by every incompatible change; the VMM refuses an image that carries another one. */
#define FV_ABI_VERSION 4

/*
 * Address map. Guest-virtual equals guest-physical everywhere. The kernel region is 1 GiB of
 * pinned memory (never paged out, allocated when touched) just below 256 GiB:
 * every 64-bit host can address that much guest-physical memory.
 */
#define FV_PAGE_SIZE 0x1000
#define FV_KERNEL_BASE                                                                             \
    0x3fc0000000 /* the guest image is linked here; starts with struct fv_image */
#define FV_KERNEL_SIZE  0x0040000000
#define FV_IMAGE_MAX    0x0001000000 /* 16 MiB for image, bss and kernel heap */
#define FV_FDT_BASE     0x3fc1000000 /* flattened device tree, read-only for the guest */
#define FV_FDT_MAX      0x0000400000 /* 4 MiB: arguments and environment travel in it */
#define FV_SHARED_BASE  0x3fc1800000 /* struct fv_shared, one page */
#define FV_SYSTEM_BASE  0x3fc1900000 /* GDT, IDT, TSSs, trap stacks: ring 0 only, the VMM's */
#define FV_SYSTEM_SIZE  0x0000700000
#define FV_VCPU_BASE    0x3fc2000000 /* one area a vCPU: struct fv_vcpu, then its kernel stack */
#define FV_VCPU_STRIDE  0x0000010000 /* 64 KiB */
#define FV_VCPU_MAX     1024
#define FV_AHEAD_BASE   0x3fd0000000 /* one area a vCPU: struct fv_ahead, mapped once of use */
#define FV_AHEAD_STRIDE 0x0000010000 /* 64 KiB */
#define FV_SENDS_BASE   0x3fd8000000 /* one area a vCPU: struct fv_sends, mapped with the above */
#define FV_SENDS_STRIDE 0x0000010000 /* 64 KiB */
#define FV_TABLES_BASE  0x3fe0000000 /* guest page tables: physical only, mapped nowhere */
#define FV_TABLES_SIZE  0x0020000000

/* Programs live below the kernel region and, where the host can address it, above 256 GiB. */
#define FV_USER_MIN       0x0000010000 /* as vm.mmap_min_addr */
#define FV_USER_HIGH_BASE 0x4000000000

/* Selectors (PVM runs only the first two natively: docs/hypercalls.md, "How the guest runs"). */
#define FV_CS_USER   0x33
#define FV_SS_USER   0x2b
#define FV_CS_KERNEL 0x10
#define FV_SS_KERNEL 0x18

/* Doorbells: `out %al, $port`. Allowed in ring 3 by IOPL 3, which every host kind honours. */
#define FV_PORT_CALL 0xf0 /* fv_vcpu.call holds a request; ring 3 */
#define FV_PORT_TRAP 0xf1 /* a vector stub reports an exception; ring 0 */

/* Vector stubs: entry n of the table at fv_image.vectors, FV_VECTOR_STRIDE bytes each. */
#define FV_VECTOR_COUNT  32
#define FV_VECTOR_STRIDE 16

#define FV_IMAGE_MAGIC 0x6e726b7669736672 /* "rfsivkrn", little endian */

/*
 * Requests. 0..0xfff are Linux x86-64 system call numbers with Linux arguments, pointers being
 * guest addresses; the VMM answers those in its own table (docs/syscalls.md) and -ENOSYS otherwise.
 * A result of -512 (ERESTARTSYS) means: interrupted before any effect, deliver signals, then
 * restart. A result above 0 of madvise(MADV_POPULATE_*): a kick ended it after that many bytes;
 * given as the fourth argument, it goes on from there.
 */
#define FV_CALL_LINUX_MAX     0x0fff
#define FV_CALL_THREAD_CREATE 0x1000 /* (cookie) -> tid; a vCPU enters fv_image.thread_entry */
#define FV_CALL_THREAD_EXIT   0x1001 /* () does not return */
#define FV_CALL_EXIT_GROUP                                                                         \
    0x1002 /* (code, signal, core) does not return; signal != 0: killed by it */
#define FV_CALL_KICK      0x1003 /* (tid) -> 0: the thread's vCPU sees fv_vcpu.pending soon */
#define FV_CALL_BRK_BASE  0x1004 /* (gpa) -> 0: where the program's break starts */
#define FV_CALL_TIMER_SET 0x1005 /* (id < FV_TIMER_MAX, clockid, flags, new *itimerspec, old *) */
#define FV_CALL_TIMER_GET 0x1006 /* (id, *itimerspec) */
#define FV_CALL_CRASH     0x1007 /* (signal, si_code, address, *fv_regs): print the crash report */
#define FV_CALL_WARN                                                                               \
    0x1008 /* (*text, bytes, fatal): one line on standard error; fatal: even if quiet */
#define FV_CALL_GUIDE 0x1009 /* (FV_GUIDE_*, its arguments): hints.h */
#define FV_CALL_FINISH                                                                             \
    0x100a /* () -> result of the posted request, waited for or carried out by this thread */
#define FV_CALL_SIGNALFD 0x100b /* (FV_SIGNALFD_*, its arguments) */

/* Of FV_CALL_SIGNALFD. A mask never has SIGKILL, so no mask is an error. */
#define FV_SIGNALFD_SET  1 /* (fd or -1, mask, flags) -> fd: makes one, or changes its mask */
#define FV_SIGNALFD_LOOK 2 /* (fd, *fv_signalfd) -> 0 */
#define FV_SIGNALFD_MASK 3 /* (serial) -> mask; -ENOENT: closed */
#define FV_SIGNALFD_TELL                                                                           \
    4 /* (number, set that waits, set that just came) -> masks of all: makes them readable or not  \
       */

#define FV_TIMER_MAX       64
#define FV_ERESTARTSYS     512
#define FV_ERESTARTNOINTR  513         /* the same, and a handler does not end it */
#define FV_ERESTART_SO_FAR 517         /* a part was done before it was interrupted: call.args[0] */
#define FV_ESIGNALFD       518         /* of read, readv, preadv2: the guest kernel's to answer */
#define FV_SENDMMSG_PIPE   (1LL << 32) /* beside a count: the message after it met EPIPE */

/*
 * fv_post.state: a request without an exit. The guest kernel posts and spins; the VMM's poller, on
 * another processor, carries out what needs no wait.
 *
 *   from    to      by      when
 *   any     POSTED  guest   the request is complete; then its bit in fv_shared.posted is set
 *   POSTED  TAKEN   poller  compare-and-swap; the request is copied after it
 *   POSTED  IDLE    guest   compare-and-swap: not taken in time; the request is made by an exit
 *   TAKEN   DONE    poller  `result` is there
 *   TAKEN   BACK    poller  it would wait: FV_CALL_FINISH carries it out on the calling thread
 *
 * A guest that breaks these rules gets wrong results and nothing else: what the VMM relies on is in
 * its own memory.
 */
#define FV_POST_IDLE   0
#define FV_POST_POSTED 1
#define FV_POST_TAKEN  2
#define FV_POST_DONE   3
#define FV_POST_BACK   4

/*
 * fv_ahead.grant[]: bytes that wait in a socket, shown to the guest so that it can answer read and
 * recv without a request. One word a grant; the host made it after an epoll_wait of this vCPU told
 * that the socket is readable, from a look (MSG_PEEK): the bytes are still in the socket.
 *
 *   bits 32..63  descriptor + 1
 *   bits 16..31  length of the grant, bytes
 *   bits  0..15  taken, bytes: those are the program's
 *
 *   from          to            by     when
 *   0             fd, n, 0      host   epoll_wait of this vCPU; nobody else uses socket or set
 *   fd, n, t      fd, n, t + k  guest  compare-and-swap, after it copied k bytes to the program
 *   fd, n, t      0             host   exchange: any request, of any thread, that names the
 *                                      descriptor or the set; then the t bytes leave the socket
 *
 * A guest whose compare-and-swap fails makes the request as if there had been no grant. Bytes that
 * were not taken need no giving back. Data and offsets change in epoll_wait of this vCPU alone.
 */
#define FV_AHEAD_GRANTS      128
#define FV_AHEAD_DATA        64256
#define FV_AHEAD_FD_SHIFT    32
#define FV_AHEAD_BYTES_SHIFT 16
#define FV_AHEAD_BYTES_MASK  0xffff

/*
 * fv_sends.grant[]: bytes that the program has sent and that have not left yet. Word n of it goes
 * with word n of fv_ahead.grant[]: a socket that was shown to the guest, whose send queue has
 * room for FV_SENDS_MAX more bytes for certain. They are sent once.
 *
 *   bits 32..63  descriptor + 1
 *   bits 16..31  where the bytes begin in data[]
 *   bits  0..15  how many there are, perhaps none: sent, as far as the program can tell
 *
 *   from          to              by     when
 *   0             fd, 0, 0        host   with the grant of fv_ahead
 *   fd, 0, 0      fd, used, k     guest  compare-and-swap, after k bytes were copied to data[used]
 *   fd, o, n      fd, o, n + k    guest  likewise, if o + n = used: nothing else was added since
 *   fd, o, n      0               host   exchange: any request that this vCPU leaves the guest
 *                                        for, they have waited for a millisecond, or as fv_ahead's;
 *                                        then the n bytes are sent
 *
 * A guest whose compare-and-swap fails makes the request, before which the host sends what the
 * guest had gathered: so the order stays. `used` is added to by the guest, and set to 0 by the host
 * in a request of this vCPU, when no byte of data[] is needed any more.
 */
#define FV_SENDS_MAX  (16 * 1024) /* bytes of one grant */
#define FV_SENDS_DATA 64496

/* fv_vcpu.pending bits, set by either side, cleared by the guest. */
#define FV_PENDING_SIGNAL 1 /* look at thread and process signals, and at fv_shared events */

/* fv_vcpu.upcall_reason */
#define FV_UPCALL_NONE  0
#define FV_UPCALL_TRAP  1 /* fv_vcpu.trap is valid: the program did something wrong */
#define FV_UPCALL_EVENT 2 /* pending became set while the program ran */
#define FV_UPCALL_FAULT 3 /* a page of watched memory is on its way (hints.h, fv_fault) */

#define FV_EVENT_SIGNAL 1 /* id = signal number, value = sender pid */
#define FV_EVENT_TIMER  2 /* id = timer id, value = overruns */
#define FV_EVENT_RING   64

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t;

/* General registers in a fixed order; the same layout for upcalls and crash reports. */
struct fv_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rip, rflags;
};

/* First bytes of the guest image (section .fv_image): what the VMM must know of it. */
struct fv_image {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t bytes; /* of this structure */
    gpa_t entry;    /* ring 3, rsp = the vCPU's kernel stack, rdi = FV_FDT_BASE, gs = its fv_vcpu */
    gpa_t thread_entry;  /* likewise, rdi = cookie of FV_CALL_THREAD_CREATE */
    gpa_t syscall_entry; /* LSTAR; entered in ring 0 on VMX and SVM, in ring 3 on PVM */
    gpa_t upcall_entry;  /* ring 3; interrupted registers in fv_vcpu.saved */
    gpa_t vectors;       /* FV_VECTOR_COUNT stubs of FV_VECTOR_STRIDE bytes */
    gpa_t text_begin;    /* [begin, end): kernel code; the VMM never upcalls with rip in here */
    gpa_t text_end;
    gpa_t return_begin; /* [begin, end): return-to-program sequence that rechecks `pending`; */
    gpa_t return_end;   /*   a kick that lands inside restarts it at return_begin */
    gpa_t fixups;       /* struct fv_fixup[]: kernel instructions that may touch bad addresses */
    uint64_t fixup_count;
};

struct fv_fixup {
    gpa_t fault_rip;
    gpa_t resume_rip;
};

struct fv_call {
    uint32_t number;  /* IN */
    uint32_t pad;     /* IN, zero */
    uint64_t args[6]; /* IN */
    int64_t result;   /* OUT: >= 0, or -errno as Linux */
};

struct fv_signalfd {
    uint64_t mask;     /* OUT */
    uint64_t serial;   /* OUT: no other has it */
    uint32_t nonblock; /* OUT */
    uint32_t pad;
};

struct fv_post {
    uint32_t state; /* both: FV_POST_*, atomic */
    uint32_t pad;
    struct fv_call call;
};

struct fv_trap {
    uint32_t vector;     /* OUT: x86 exception number */
    uint32_t error_code; /* OUT: as the CPU pushes it */
    gpa_t address;       /* OUT: si_addr: CR2 for #PF, rip or 0 for others, as Linux */
    uint32_t signal;     /* OUT: the signal Linux would raise */
    int32_t code;        /* OUT: its si_code */
};

/* One a vCPU, at FV_VCPU_BASE + index * FV_VCPU_STRIDE; the kernel's %gs points at it. */
struct fv_vcpu {
    gpa_t self;             /* OUT: own address, so that %gs:0 is a pointer */
    uint32_t index;         /* OUT */
    uint32_t tid;           /* OUT: thread id, the host's */
    uint64_t kernel_stack;  /* OUT: top of stack, 16-byte aligned */
    uint32_t pending;       /* both: FV_PENDING_*, atomic or/exchange */
    uint32_t upcall_reason; /* OUT */
    struct fv_call call;
    struct fv_trap trap;
    struct fv_regs saved; /* OUT: the program's registers at an upcall */
    uint64_t guest[64];   /* the guest kernel's own per-vCPU words; the VMM never looks */
    struct fv_post post __attribute__((aligned(64)));
    uint32_t ahead_count; /* OUT: words of fv_ahead.grant to look at; 0: perhaps there is no area */
    uint32_t sends_count; /* OUT: likewise, of fv_sends.grant */
    uint64_t own_signals; /* IN: what waits for the thread alone, written before it polls */
    uint32_t own_came;    /* IN: number of the newest that came for it; then it is another number */
};

struct fv_ahead {
    uint64_t grant[FV_AHEAD_GRANTS];  /* both, atomic: table above */
    uint16_t offset[FV_AHEAD_GRANTS]; /* OUT: where its bytes begin in data[] */
    uint8_t data[FV_AHEAD_DATA];      /* OUT */
};

struct fv_sends {
    uint64_t grant[FV_AHEAD_GRANTS]; /* both, atomic: table above */
    uint32_t used;                   /* both: bytes of data[] */
    uint32_t pad;
    uint64_t since;              /* the guest's own: TSC when the first of them were gathered */
    uint8_t data[FV_SENDS_DATA]; /* IN */
};

struct fv_event {
    uint32_t type; /* OUT: FV_EVENT_* */
    uint32_t id;   /* OUT */
    uint64_t value;
};

/*
 * CLOCK_MONOTONIC in ns = mono_base_ns + ((tsc - tsc_base) * mult >> 32), likewise real. The VMM
 * refreshes it several times a second under the sequence count (odd: being written).
 */
struct fv_clock {
    uint32_t sequence;
    uint32_t pad;
    uint64_t tsc_base;
    uint64_t mult; /* 32.32 fixed point ns a tick */
    uint64_t mono_base_ns;
    uint64_t real_base_ns;
    uint64_t boot_base_ns; /* CLOCK_BOOTTIME */
    uint64_t tai_base_ns;
};

struct fv_shared {
    struct fv_clock clock; /* OUT */
    uint32_t event_head;   /* OUT: next to write, free running */
    uint32_t event_tail;   /* IN: next to read */
    struct fv_event events[FV_EVENT_RING];
    uint32_t futex_waiters[256]; /* OUT: sleepers by hash; 0 lets a wake skip its exit */
    uint32_t poller_awake __attribute__((aligned(64))); /* OUT: 0: posts are not looked at */
    uint32_t exit_ticks; /* IN: what the cheapest exit so far took, TSC ticks; 0: unknown */
    uint64_t posted[FV_VCPU_MAX / 64] __attribute__((aligned(64))); /* both: vCPUs that posted */
};

/*
 * May this Linux call be posted? Those on descriptors whose outcome does not depend on which thread
 * makes them, and which are frequent. The VMM asks the same question of what it takes.
 */
static inline int fv_call_postable(uint32_t number)
{
    switch (number) {
    case 0:   /* read */
    case 1:   /* write */
    case 5:   /* fstat */
    case 7:   /* poll */
    case 8:   /* lseek */
    case 17:  /* pread64 */
    case 18:  /* pwrite64 */
    case 19:  /* readv */
    case 20:  /* writev */
    case 44:  /* sendto */
    case 45:  /* recvfrom */
    case 46:  /* sendmsg */
    case 47:  /* recvmsg */
    case 232: /* epoll_wait */
    case 233: /* epoll_ctl */
    case 281: /* epoll_pwait */
    case 295: /* preadv */
    case 296: /* pwritev */
        return 1;
    default:
        return 0;
    }
}

/* Which futex_waiters counter an address falls into: both sides must agree. */
static inline uint32_t fv_futex_bucket(gpa_t address)
{
    return (uint32_t)((address >> 2) * 0x9e3779b97f4a7c15ULL >> 56);
}

_Static_assert(sizeof(struct fv_regs) == 18 * 8, "fv_regs layout");
_Static_assert(offsetof(struct fv_vcpu, pending) == 24, "pending is reached from assembler");
_Static_assert(offsetof(struct fv_vcpu, call) == 32, "call is reached from assembler");
_Static_assert(sizeof(struct fv_vcpu) <= FV_PAGE_SIZE, "fv_vcpu is one page");
_Static_assert(sizeof(struct fv_ahead) == FV_AHEAD_STRIDE, "fv_ahead is one area");
_Static_assert(sizeof(struct fv_sends) == FV_SENDS_STRIDE, "fv_sends is one area");
_Static_assert(FV_AHEAD_BASE + FV_VCPU_MAX * (uint64_t)FV_AHEAD_STRIDE <= FV_SENDS_BASE,
               "areas follow one another");
_Static_assert(FV_SENDS_BASE + FV_VCPU_MAX * (uint64_t)FV_SENDS_STRIDE <= FV_TABLES_BASE,
               "areas end before the tables");
_Static_assert(sizeof(struct fv_shared) <= FV_PAGE_SIZE, "fv_shared is one page");
#endif /* __ASSEMBLER__ */
#endif
