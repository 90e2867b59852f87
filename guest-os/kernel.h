/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unikernel's private map: its structures, and the prototypes of each file in guest-os/.
 *
 * The kernel shares ring 3 and the address space with the program; its data is pinned, so only user
 * memory can take second-stage misses, and those are invisible here. No SSE, no floating point. One
 * kernel stack a vCPU, never re-entered: the VMM makes no upcall while rip is in kernel text.
 */
#ifndef GUEST_KERNEL_H
#define GUEST_KERNEL_H

#include "farvisor/abi.h"
#include "farvisor/hints.h"
#include "guest-os/linux.h"
#include "guest-os/offsets.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The program's registers at the top of the kernel stack; filled and emptied by entry.S. */
struct frame {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
    uint64_t rax, rcx, rdx, rsi, rdi;
    int64_t orig_rax; /* system call number, or -1: not (or no longer) a call to restart */
    uint64_t rip, cs, rflags, rsp, ss;
};
_Static_assert(sizeof(struct frame) == FRAME_BYTES, "entry.S builds this");
_Static_assert(offsetof(struct fv_vcpu, kernel_stack) == VCPU_KERNEL_STACK, "offsets.h");
_Static_assert(offsetof(struct fv_vcpu, pending) == VCPU_PENDING, "offsets.h");
_Static_assert(offsetof(struct fv_vcpu, guest) == VCPU_USER_RSP, "offsets.h");

/* A lock that spins briefly, then yields: its holder's vCPU may not be running. */
struct lock {
    atomic_uint held;
};

/* Signals that wait: a set, and the information of each in order of arrival. */
struct signal_node;
struct signal_pending {
    uint64_t set;
    struct signal_node *first, *last;
};

/* What waits for the process, as it was when the number was given; and what of it came. */
struct signal_tell {
    uint64_t number; /* 0: nothing to tell */
    uint64_t waits, came;
};

struct thread {
    struct thread *next;     /* in process.threads or on the free list */
    uint32_t tid;            /* 0 until known */
    struct fv_vcpu *vcpu;    /* NULL until it runs */
    uint64_t blocked;        /* signal mask; written by the thread itself */
    uint64_t saved_mask;     /* to restore when restore_mask is set */
    bool restore_mask;       /* a call swapped the mask (sigsuspend, ppoll...) */
    uint64_t resumes_at;     /* where restart_syscall is the next instruction; 0: nowhere */
    uint64_t resumes_unless; /* the result if a handler runs before */
    uint32_t resumes_number; /* of the call that goes on there */
    uint64_t resume_mask;    /* with which it is to wait, ... */
    bool resumes_masked;     /* ... if what it goes on with did */
    uint64_t so_far;         /* what its interrupted call has done: FV_ERESTART_SO_FAR */
    uint64_t waiting;        /* set rt_sigtimedwait waits for */
    uint64_t reading;        /* set that a read of a signalfd waits for */
    bool polls;              /* is in a call that polls descriptors; atomic (signal_fd.c) */
    struct signal_tell tell; /* what the VMM is to be told once process.lock is not held */
    uint32_t woken;          /* last change of masks that it was woken for (signal_wake_readers) */
    uint32_t own_came;       /* number of the newest signal that came for it alone; atomic */
    struct signal_pending pending;
    struct linux_stack altstack;
    uint64_t clear_tid;   /* set_tid_address */
    uint64_t robust_list; /* set_robust_list */
    /* For its start (thread.c). */
    struct frame start;
    uint64_t fs_base;
    uint64_t parent_tid, child_tid; /* where to store the tid, or 0 */
    atomic_uint tid_stored;
    atomic_uint holders; /* its creator and itself: who still uses this structure */
    uint32_t mxcsr;
    uint16_t x87_control;
    struct fv_hint_ring *hints; /* of the vCPU it runs on, once it asked for it */
    bool in_fault;              /* runs a guide's handler of a fault (guide_fault.c) */
    bool shares_tls; /* with a thread it made, or was made by (clone without CLONE_SETTLS) */
};

/* What there is once. Everything below `lock` is guarded by it. */
struct process {
    uint32_t pid, ppid, pgid, sid;
    uint32_t uid, gid, euid, egid;
    uint64_t hwcap, hwcap2;
    uint32_t clock_ticks;
    gpa_t address_end;
    struct lock lock;
    struct thread *threads;
    uint32_t thread_count;
    struct signal_pending pending;
    struct linux_sigaction actions[LINUX_NSIG + 1];
};
extern struct process process;

static inline struct fv_vcpu *vcpu_current(void)
{
    struct fv_vcpu *vcpu;
    __asm__("movq %%gs:0, %0" : "=r"(vcpu));
    return vcpu;
}

static inline struct thread *thread_current(void)
{
    return (struct thread *)vcpu_current()->guest[1];
}

#define USER_END  0x800000000000ULL /* 47 bits, as Linux without 5-level paging */
#define TLS_LIMIT 0x800000000000ULL /* a higher base could be one that faults when it is loaded */

#define FV_SHARED ((volatile struct fv_shared *)FV_SHARED_BASE)

/* ---- entry.S ---- */
extern const char guest_text_begin[], guest_text_end[];

/* ---- string.c: mem*, str*; gcc and libfdt call them ---- */
void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
void *memchr(const void *at, int value, size_t bytes);
size_t strlen(const char *text);
size_t strnlen(const char *text, size_t bytes);
char *strchr(const char *text, int value);
char *strrchr(const char *text, int value);
unsigned long strtoul(const char *text, char **end, int base);

/* ---- vmm.c: requests to the VMM, locks, warnings ---- */
/* Any thread; may take long; the result is the VMM's. */
int64_t vmm_call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                 uint64_t f);
int64_t vmm_call1(uint32_t number, uint64_t a);
int64_t vmm_call3(uint32_t number, uint64_t a, uint64_t b, uint64_t c);
static inline uint64_t ticks_now(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}
/* Sleeps until a kick (-EINTR) or for timeout_ms (0; negative: for ever). */
int64_t vmm_sleep(int timeout_ms);
_Noreturn void vmm_exit_group(uint32_t code, uint32_t signal, bool core);
void lock_take(struct lock *lock);
void lock_release(struct lock *lock);
/* One line on standard error made of up to three pieces (NULL: none). */
void warn(const char *a, const char *b, const char *c);
void complain(const char *a, const char *b, const char *c); /* the same for why the run ends */

/* ---- usercopy.S, usercopy.c: the program's memory; 0 or -EFAULT ---- */
int usercopy_bytes(void *to, const void *from, size_t bytes);
int usercopy_zero(void *to, size_t bytes);
int usercopy_get32(uint32_t *to, const void *from);
int usercopy_get64(uint64_t *to, const void *from);
int usercopy_put32(void *to, uint32_t value);
int usercopy_put64(void *to, uint64_t value);
int usercopy_cmpxchg32(void *at, uint32_t *expected, uint32_t desired);
bool user_range(gpa_t at, uint64_t bytes); /* could it be program memory? */
int user_read(void *to, gpa_t from, size_t bytes);
int user_write(gpa_t to, const void *from, size_t bytes);
int user_clear(gpa_t at, size_t bytes);
int user_get32(uint32_t *to, gpa_t from);
int user_get64(uint64_t *to, gpa_t from);
int user_put32(gpa_t to, uint32_t value);
int user_put64(gpa_t to, uint64_t value);
int user_cmpxchg32(gpa_t at, uint32_t *expected, uint32_t desired);

/* ---- boot.c, devicetree.c: the start ---- */
struct program {
    const char *path;
    uint32_t fd;
    const char *argv, *envp; /* strings one after the other; envp may be NULL */
    size_t argv_bytes, envp_bytes;
    const uint8_t *random; /* 16 bytes */
    uint64_t stack_bytes;
};
void boot_main(struct frame *frame, const void *fdt);
/* Ends the program before it began: one line, exit status 126. */
_Noreturn void boot_fail(const char *what, const char *why);
/* A signal came during the start: it is looked at once the program runs. */
void boot_defer_pending(void);
void devicetree_read(const void *fdt, struct program *out);

/* ---- load.c: ELF into memory ---- */
struct loaded {
    gpa_t base;  /* added to the file's addresses; for an interpreter AT_BASE */
    gpa_t entry; /* of this file */
    gpa_t phdr;  /* AT_PHDR */
    uint16_t phnum;
    gpa_t end; /* of the last segment */
    bool executable_stack;
    char interpreter[LINUX_PATH_MAX];
};
void load_program(const struct program *program, gpa_t scratch, struct loaded *out,
                  struct loaded *interpreter);

/* ---- stack.c: the main thread's stack ---- */
gpa_t stack_map(uint64_t bytes); /* returns its top */
void stack_make_executable(gpa_t top, uint64_t bytes);
/* interpreter NULL: none. Returns rsp. */
gpa_t stack_fill(const struct program *program, gpa_t top, const struct loaded *loaded,
                 const struct loaded *interpreter);

/* ---- xstate.c: FPU and vector state by XSAVE ---- */
#define XSTATE_MAX 4096
void xstate_init(void);
uint32_t xstate_bytes(void);
uint64_t xstate_features(void);
void xstate_save(void *area);    /* area: 64-byte aligned, xstate_bytes() long */
void xstate_restore(void *area); /* makes a foreign area harmless first */
void xstate_reset(void);         /* as at the start of a program */
void xstate_control_get(uint32_t *mxcsr, uint16_t *x87_control);
void xstate_control_set(uint32_t mxcsr, uint16_t x87_control);

/* ---- syscall.c: dispatch by syscalls.def ---- */
typedef int64_t syscall_fn(struct frame *frame);
#define GUEST(number, name, handler, note) syscall_fn handler;
#define VMM(number, name)
#define REFUSED(number, name, note)
#include "guest-os/syscalls.def"
#undef GUEST
#undef VMM
#undef REFUSED
void syscall_dispatch(struct frame *frame);
int64_t syscall_forward(struct frame *frame); /* as is, to the VMM */
/* Is it for the way out to decide whether the call starts again? */
bool syscall_was_interrupted(int64_t result);
/* What sendmmsg told, without its flag: SIGPIPE is raised if that says so. */
int64_t syscall_sendmmsg_told(const struct frame *frame, int64_t result);
int64_t syscall_refuse(struct frame *frame, const char *name); /* -ENOSYS, one warning a run */

/* ---- guide.c: the hint channel's system call, and what becomes of a guide that fails ---- */
int64_t sys_guide(struct frame *frame);
/*
 * If the interrupted code is a guide's, and it faulted (`fault`) or is overdue: continues it where
 * its library takes over. Returns whether it did.
 */
bool guide_rescue(struct frame *frame, bool fault);
/* Must a call that sleeps come back, because a guide made it that is to be rescued? */
bool guide_is_overdue(void);

/* ---- guide_fault.c: a guide's handler while a page is on its way ---- */
int64_t guide_watch(const struct frame *frame);
/* The VMM asks for an upcall: the program's state is put away, and the handler runs next. */
void guide_fault_begin(struct frame *frame);
/* Ends it: the program's state is back, and its signals are looked at. `why`: FV_OFF_*, or 0. */
void guide_fault_end(struct frame *frame, uint32_t why);
/* Did the handler leave its stack, or make a call that it may not make? */
bool guide_fault_escapes(const struct frame *frame);
/* Signals wait until it ended. Returns whether they do. */
bool guide_fault_defers(struct frame *frame);

/* ---- sends.c ---- */
bool sends_wait(
    void); /* the program sent something that has not left yet: the next exit sends it */

/* ---- thread.c ---- */
void thread_boot(uint32_t tid);
void thread_main(struct frame *frame, struct thread *thread);
struct thread *thread_find(uint32_t tid); /* process.lock held */

/* ---- time.c: deadlines, in ns of CLOCK_MONOTONIC; a wait that is woken in vain goes on to its
 * own.
 */
#define TIME_NEVER UINT64_MAX
uint64_t time_deadline_ns(const struct linux_timespec *timeout); /* from now; saturates */
uint64_t time_left_ns(uint64_t deadline_ns);                     /* 0: it is over */
int time_left_ms(uint64_t deadline_ns);                          /* rounded up; -1: for ever */

/* ---- futex.c ---- */
void futex_wake_joiner(gpa_t word); /* of a thread's tid, waited for where it was written */
void futex_exit_robust_list(gpa_t head, uint32_t tid);

/* ---- signal_queue.c: who gets a signal ---- */
uint64_t signal_bit(unsigned signal);
/*
 * tid 0: to the process. A siginfo's signal 0 only asks. Returns 0, -ESRCH, or -EAGAIN (queue
 * full). Any thread, lock not held.
 */
int signal_send(uint32_t tid, const struct linux_siginfo *info);
/* The same, process.lock held. *kick: whom to kick (FV_CALL_KICK) once it is not, or unchanged. */
int signal_queue(uint32_t tid, const struct linux_siginfo *info, uint32_t *kick);
/*
 * A timer's place in the queue, from its begin to its end; process.lock held. NULL: too many are
 * queued or kept. signal_queue_node: as signal_queue, but it never fails for want of room.
 */
struct signal_node *signal_node_keep(void);
void signal_node_drop(struct signal_node *node);
void signal_queue_node(uint32_t tid, struct signal_node *node, const struct linux_siginfo *info,
                       uint32_t *kick);
/* Takes the next one of `set` for the calling thread; 0: none. */
unsigned signal_take(uint64_t set, struct linux_siginfo *info);
uint64_t signal_waiting_set(void); /* pending for this thread or the process */
bool signal_is_due(void); /* has this thread to go back to the program, for one or for a guide? */
/*
 * Looks at what this thread was woken for. Returns signal_is_due(): often not, for whoever is told
 * of an event passes on other threads' signals.
 */
bool signal_look(void);
void signal_set_blocked(uint64_t mask);
void signal_set_waiting(uint64_t set); /* of rt_sigtimedwait */
void signal_set_reading(uint64_t set); /* of a read of a signalfd */
/* The masks have changed, for the change-th time: who waits in a read, or polls with some of `set`
 * for itself alone, looks again. Lock not held. */
void signal_wake_readers(uint32_t change, uint64_t set);
/* The calling thread is gone, or takes less: others must see to the process's signals that it might
 * have taken. */
void signal_reassign(void);
/* Forgets what is queued there of `set`. process.lock held. */
void signal_discard(struct signal_pending *pending, uint64_t set);

/* ---- signal_fd.c: signalfd ---- */
/*
 * What waits has changed: signals came for the process (thread NULL) or that thread alone, or went
 * from the process. process.lock held; whoever releases it calls signal_fd_tell then. Returns
 * whether that thread has to look, though it may block them.
 */
void signal_fd_tell(void);
bool signal_fd_came(struct thread *thread, uint64_t set);
void signal_fd_went(uint64_t set);
void signal_fd_poll(bool polls); /* the calling thread begins, or ends, a call that polls */
void signal_fd_show(void);       /* before each request of that call */
int64_t signal_fd_read(struct frame *frame); /* read, of what the VMM says is a signalfd */

/* ---- signal_deliver.c: on the way back to the program ---- */
void signal_deliver_pending(struct frame *frame);
/* Does one that waits for this thread, and is not blocked, end the program? Lock not held. */
bool signal_ends_program(void);
/* A fault of the program itself: its handler, or the end. */
void signal_force(struct frame *frame, struct linux_siginfo *info, const struct fv_trap *trap);
void upcall_dispatch(struct frame *frame);

/* ---- signal_frame.c: Linux's rt_sigframe ---- */
int signal_frame_push(struct frame *frame, const struct linux_siginfo *info,
                      const struct linux_sigaction *action, const struct fv_trap *trap);
uint32_t signal_frame_bytes(void); /* AT_MINSIGSTKSZ */
/* The alternate stack as sigaltstack tells it at this stack pointer. */
struct linux_stack signal_altstack_at(const struct thread *thread, uint64_t rsp);

/* ---- events.c: fv_shared.events ---- */
void events_drain(void);

/* ---- timer.c ---- */
/* process.lock held; *kick as signal_queue's. */
void timer_expired(uint32_t id, uint64_t overruns, uint32_t *kick);
void timer_thread_ends(uint32_t tid); /* which nobody finds any more */
/* The signal of a timer that is still there is taken; process.lock held. */
void timer_delivered(const struct linux_siginfo *info);

#endif
