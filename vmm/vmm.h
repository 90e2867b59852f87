/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM's private map: configuration, VM, vCPU, and the prototypes of each file in vmm/.
 */
#ifndef FARVISOR_VMM_H
#define FARVISOR_VMM_H

#include "ept/ept.h"
#include "farvisor/abi.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>

struct fault_engine;
struct fault_context;
struct hints;
struct hostio;
struct mm;
struct rdma_node;
struct stat;
struct timers;

/* Exit statuses, as `docker run`. */
enum { EXIT_FARVISOR = 125, EXIT_NOT_RUNNABLE = 126, EXIT_NOT_FOUND = 127, EXIT_SIGNAL_BASE = 128 };

enum fault_mode { FAULT_MODE_EXIT, FAULT_MODE_UFFD, FAULT_MODE_UFFD_SPIN };
const char *fault_mode_name(enum fault_mode mode); /* as the command line has it (cli/values.c) */
enum polling { POLLING_AUTO, POLLING_ON, POLLING_OFF };

struct dir_grant {
    const char *host;  /* absolute host path */
    const char *guest; /* absolute path the program sees */
    bool writable;
};

/* Addresses on the network: those the program may listen on, or connect to. */
struct net_rule {
    sa_family_t family;  /* AF_INET, AF_INET6; AF_UNSPEC: any address of either */
    uint8_t address[16]; /* network order; an IPv4 address has 4 bytes */
    uint16_t port;       /* 0: any */
    bool udp;            /* of --publish; a connection may be of either kind */
};

/* What `farvisor run` was asked for; filled by cli.c, read-only afterwards. */
struct run_config {
    char *const *argv;     /* program and its arguments, NULL ended */
    char **envp;           /* NULL ended */
    uint64_t memory_bytes; /* quota on pages that exist */
    uint64_t local_bytes;  /* hard bound on resident pages; == memory_bytes: nothing is remote */
    const char *memserver; /* NULL: embedded when needed */
    const char *transport; /* as rdma_config.transport */
    enum fault_mode fault_mode;
    bool map_ahead;         /* into the second stage, where KVM can */
    const char *prefetcher; /* fault_prefetcher_known */
    uint32_t threads_max;   /* vCPUs */
    enum polling polling;   /* who carries out system calls: poller.c */
    struct dir_grant *dirs;
    size_t dir_count;
    bool net; /* sockets other than AF_UNIX, within: */
    struct net_rule *publish;
    size_t publish_count;
    struct net_rule *connect;
    size_t connect_count;
    const char *workdir;    /* NULL: the current directory */
    const char *stats_path; /* NULL: none */
    const char *trace_path; /* NULL: none */
    uint64_t timeout_ns;    /* longest wait on a memory node */
    bool progress;
    const char *allocator;           /* "own", "far", ...; it is in LD_PRELOAD */
    bool whole_pages;                /* what the allocator knows of its pages is not wanted */
    size_t guide_count;              /* how many --guide; they are in LD_PRELOAD */
    uint32_t guide_accuracy_percent; /* fewer of the hinted pages used: hints are switched off */
    uint32_t guide_time_percent;     /* most of a thread's time that guides may take */
};

struct vm;
struct poller;

struct io_file;

/* What the poller's part of a system call leaves to its own thread's. */
struct io_part {
    uint64_t done;        /* bytes transferred; sendmmsg, recvmmsg: messages */
    uint64_t inner;       /* ... and bytes of the next of them */
    uint64_t other;       /* serial number of the second file, of a call between two */
    int64_t offsets[2];   /* where such a call is in its files, if the program told it */
    bool resumed;         /* the call was interrupted, and goes on */
    uint64_t deadline_ns; /* of a wait that was interrupted and goes on */
    struct io_file *file; /* what its descriptor named when it began; owned; NULL: look it up */
};

/* A posted request (abi.h, FV_POST_*) as far as the VMM relies on it. */
struct post {
    atomic_uint state;   /* POST_*; futex */
    struct fv_call call; /* as it was when taken */
    struct io_part part; /* of it, when it is handed back */
};
enum { POST_FREE, POST_BUSY, POST_BUSY_WAITED, POST_BACK };

/* What its guest thread began with, where its host thread was another's before (inherit.c). */
struct inherited {
    char name[16];
    long slack_ns;
    _Atomic uint64_t clock_ns[3]; /* of each kind of a thread's clock: profiling, user, all */
    struct rusage usage;          /* own thread only */
};

struct vcpu {
    struct vm *vm;
    uint32_t index;
    int fd;
    int kvm_stats_fd;  /* KVM's own counters; -1 unless --stats wants them and KVM has them */
    _Atomic pid_t tid; /* host thread = guest thread id */
    pthread_t thread;
    struct inherited inherited;
    struct kvm_run *run;
    struct fv_vcpu *page;        /* shared with the guest; host address */
    struct fault_context *fault; /* this thread's handle on the paging engine */
    int kick_timer;              /* the kernel's, of its host thread: kick.c */
    bool has_kick_timer;         /* ... is there */
    atomic_int kicked;           /* set by vcpu_kick and its signal, cleared when looked at */
    atomic_bool look_again;      /* uffd mode: resolve as if KVM_RUN had failed (SIGBUS) */
    atomic_bool in_use;          /* a guest thread lives here */
    bool leaving;                /* the guest thread asked for its end; own thread only */
    bool holds_pins; /* others may wait for them: no waiting for mm/replace.c; own thread only */
    _Atomic gpa_t used_from, used_to; /* what its host call may touch: mm/replace.c; 0: nothing */
    atomic_uint used_turn;            /* uses that have ended */
    _Atomic gpa_t awaits[2];          /* words whose lock it waits for: io/futex_owner.c; 0: none */
    atomic_bool lets_go;              /* of them, for what is mapped there goes */
    /* The poller's stand-in for a vCPU: no host call may wait. */
    bool at_once;
    struct vcpu *caller;   /* whose request it carries out; NULL: its own */
    bool handed_back;      /* one would have: the request is the vCPU's own thread's */
    bool committed;        /* something was consumed or sent: it can be handed back no more */
    struct post post;      /* of this vCPU; the poller's and its thread's in turns */
    uint32_t window_calls; /* postable calls by exit since ... */
    uint64_t window_ns;    /* ... this time; own thread only */
    unsigned ahead_turns;  /* io/ahead.c; under its lock */
    unsigned agains;       /* times that KVM_RUN said EAGAIN and nothing else */
    pthread_cond_t wake;   /* in_use or vm->ending changed; with vm->vcpu_lock, as the rest: */
    uint64_t cookie;       /* of the guest thread to start */
    uint64_t begun;        /* guest threads, so far */
    bool ready, gone;      /* the host thread is set up; has left, or leaves */
    bool joinable;         /* there is a host thread, or what is left of it */
    bool taken;            /* by the maker of a thread, while its host thread is replaced */
    bool retired;          /* its host thread is to leave */
    int start_error;       /* why it could not be set up */
    /* Written by the vCPU's own thread (relaxed load and store), read by stats.c. */
    _Atomic uint64_t exits;                    /* returns from KVM_RUN, for whatever reason */
    _Atomic uint64_t calls;                    /* hypercalls */
    _Atomic uint64_t traps;                    /* exceptions reported by the vector stubs */
    _Atomic uint64_t ahead_calls, ahead_pages; /* mapped before they were touched (miss.c) */
};

struct vm {
    const struct run_config *config;
    int kvm_fd;
    int vm_fd;
    struct ept *ept;
    struct fault_engine *engine; /* NULL when nothing is remote */
    struct rdma_node *node;      /* NULL when nothing is remote */
    uint64_t started_ns;         /* clock_now_ns() when vm_run began */
    struct mm *mm;
    struct hostio *io;
    struct timers *timers;
    struct poller *poller;    /* NULL: requests are made by exits alone */
    struct fv_shared *shared; /* host address of FV_SHARED_BASE */
    struct fv_image image;    /* checked copy of the guest image's header */
    struct events *events;
    struct hints *hints;
    struct kvm_cpuid2 *cpuid; /* what KVM supports here */
    size_t run_bytes;         /* of a vCPU's kvm_run mapping */
    pid_t pid;                /* ours, and the program's */
    struct vcpu *vcpus[FV_VCPU_MAX];
    atomic_uint vcpu_count;
    atomic_uint kvm_vcpus;     /* made in KVM, also in vain */
    pthread_mutex_t vcpu_lock; /* creation and reuse of vCPUs */
    pthread_cond_t vcpu_wake;  /* a vCPU got ready, left, or the machine ends */
    bool spawning;             /* a host thread is being set up; under vcpu_lock */
    uint32_t hosts_made;       /* host threads for guest threads; likewise */
    atomic_int ending;         /* a thread asked for the end */
    int exit_status;           /* valid once `ending` was seen set */
};

/* ---- machine.c: one guest from start to end ---- */
int vm_run(const struct run_config *config); /* returns the exit status of `farvisor run` */
/*
 * First caller decides the status; every vCPU is kicked out. Any thread, no locks of vm held.
 * Returns whether this call decided: then the caller may say why, in the run's one last line.
 */
bool vm_end(struct vm *vm, int exit_status);

/* ---- vcpu.c: vCPU creation, registers, the run loop, threads ---- */
struct vcpu *vcpu_self(void);          /* the calling thread's, or NULL */
void vcpu_stand_in(struct vcpu *vcpu); /* the calling thread acts for it: the poller */
struct vcpu *vcpu_by_tid(struct vm *vm, pid_t tid);

/* ---- inherit.c: what a new guest thread begins with ---- */
/*
 * A time of a thread's clock, which in the guest counts from the begin of the guest thread; others
 * stay as they are. vcpu: the one that asks. Any thread.
 */
void inherit_clock_to_guest(struct vcpu *vcpu, clockid_t clock, struct timespec *time);
void inherit_clock_to_host(struct vcpu *vcpu, clockid_t clock, struct timespec *time);
void inherit_usage(const struct vcpu *vcpu, struct rusage *usage); /* likewise; own thread */
/* The vCPU leaves KVM_RUN or its interruptible system call at once. Any thread, async-signal-safe.
 */
void vcpu_kick(struct vcpu *vcpu);

/*
 * vcpu_syscall - a host system call that a kick interrupts without a lost wake-up: returns the
 * kernel's result or -errno, -EINTR if it had to wait and was kicked before or meanwhile. What need
 * not wait is never told EINTR for a kick (kick.c, call_made_kicked).
 */
long vcpu_syscall(struct vcpu *vcpu, long number, long a, long b, long c, long d, long e, long f);

/* ---- at_once.c ---- */
/*
 * The same on the poller, where nothing may wait: the call is made in a form that does not, and if
 * it would have, vcpu->handed_back is set and -EINTR returned.
 */
long at_once_syscall(struct vcpu *vcpu, long number, long a, long b, long c, long d, long e,
                     long f);

/* ---- poller.c: requests without an exit ---- */
/* Starts the thread where there is a processor to spare for it. 0 or -errno after one message. */
int poller_start(struct vm *vm);
/* false: it did not come to an end within timeout_ns and still uses vm. */
bool poller_stop(struct vm *vm, uint64_t timeout_ns);
/* A postable call came by an exit: is it time to wake the poller? The vCPU's thread. */
void poller_note_exit(struct vcpu *vcpu);
/* FV_CALL_FINISH. */
int64_t poller_finish(struct vcpu *vcpu);
/* What was handed back will not be finished: its thread is over. The vCPU's thread, or its last. */
void poller_forget(struct vcpu *vcpu);
struct poller_counters {
    uint64_t answered, handed_back, wakes;
};
/* The poller's stand-in for a vCPU, or NULL. Any thread, while the guest runs. */
const struct vcpu *poller_vcpu(const struct vm *vm);
void poller_counters(const struct vm *vm, struct poller_counters *out);

/* ---- events.c: signals from outside and timers, towards the guest ---- */
/* Queues an FV_EVENT_* for the guest kernel and kicks a vCPU. Any thread. */
void vm_post_event(struct vm *vm, uint32_t type, uint32_t id, uint64_t value);

/* ---- calls.c: hypercall dispatch ---- */
void call_dispatch(struct vcpu *vcpu);

/* ---- hints.c: the hint channel (farvisor/hints.h) ---- */
int hints_create(struct hints **out, struct vm *vm); /* 0 or -errno after one message */
void hints_stop(
    struct hints *hints); /* ends its thread; while the vCPUs still exist. NULL is fine */
void hints_destroy(struct hints *hints);
void hints_ring_doorbell(struct hints *hints);

/* ---- guides/calls.c: FV_CALL_GUIDE ---- */
int64_t guide_call(struct vcpu *vcpu, const uint64_t args[6]);

/* ---- guides/pins.c ---- */
/* The contents of [start, end) go: so do the pins on it. Before the discard; any thread. */
void guide_pins_drop(struct hints *hints, gpa_t start, gpa_t end);

/* ---- guestmem.c: the only way the VMM touches the program's memory ---- */

/* Bytes that may be pinned at once by one request; longer transfers go in pieces. */
#define GUESTMEM_PIN_MAX (256u << 10)

/*
 * guestmem_pin - make [gpa, gpa + bytes) resident, check the program's own access rights, and keep
 * it resident until guestmem_unpin with the same range. bytes <= GUESTMEM_PIN_MAX. `writable` also
 * marks the pages dirty. Host addresses are contiguous. Faults pages in, so call it without locks
 * held. Returns 0 with *hva set, or -EFAULT (the program has no such access), -EIO (memory node
 * lost), -ENOMEM.
 */
int guestmem_pin(struct vm *vm, gpa_t gpa, size_t bytes, bool writable, void **hva);
void guestmem_unpin(struct vm *vm, gpa_t gpa, size_t bytes);
/*
 * guestmem_use - guestmem_pin between mm_use_begin and mm_use_end, which is the caller's after it
 * unpinned; after an error it was called unless `held`: earlier pieces of the request are in hand.
 */
int guestmem_use(struct vm *vm, gpa_t gpa, uint64_t bytes, bool writable, bool held, void **hva);

/* Copies of any length, page by page; 0 or -EFAULT/-EIO/-ENOMEM. */
int guestmem_read(struct vm *vm, void *to, gpa_t from, size_t bytes);
int guestmem_write(struct vm *vm, gpa_t to, const void *from, size_t bytes);
/* Between us and pinned guest memory, with no lock. 0, or -EFAULT: a file was cut short. */
int guarded_copy(void *to, const void *from, size_t bytes);
/* Copies a NUL-terminated string: its length, -ENAMETOOLONG if not ended within `bytes`, -EFAULT.
 */
long guestmem_read_string(struct vm *vm, char *to, gpa_t from, size_t bytes);

/* ---- mm.c, mmap.c: the program's address space ---- */
int mm_create(struct mm **out, struct vm *vm);
void mm_destroy(struct mm *mm);
/* mmap munmap mprotect mremap madvise brk mincore msync mlock... shmget...: Linux numbers, results.
 */
int64_t mm_call(struct vcpu *vcpu, uint32_t number, const uint64_t args[6]);
void mm_set_brk_base(struct mm *mm, gpa_t base);

/*
 * mm_access_fault - the program's page tables refused an access (#PF with CR2 = gpa).
 * Returns 0: mended, run on; or a signal number (SIGSEGV, SIGBUS) with *si_code set.
 */
int mm_access_fault(struct vcpu *vcpu, gpa_t gpa, uint32_t error_code, int *si_code);

/*
 * mm_use_begin - the calling thread's host call may touch [start, end), and what of it was said
 * before, until mm_use_end: mappings there are not replaced meanwhile (for a bounded time). Comes
 * before mm_allows, during which holds_pins must be set. self: the calling thread's; NULL is fine.
 */
void mm_use_begin(struct vcpu *self, gpa_t start, gpa_t end);
void mm_use_end(struct vcpu *self);

/* May the program do all of `need` (EPT_*) with every byte of the range? */
bool mm_allows(struct mm *mm, gpa_t gpa, uint64_t bytes, unsigned need);

/* fault_source of the address space; owner is the struct mm. */
int mm_source_extent(void *owner, uint64_t page, uint64_t *first, uint64_t *last, bool *zero);
int mm_source_read(void *owner, uint64_t page, uint64_t pages, void *to);
bool mm_source_replaced(void *owner, uint64_t page);
bool mm_source_unfillable(void *owner, int tid, bool again, uint64_t wait_ns);
void mm_source_expel(void *owner, int tid);

/* Access rights of one page (EPT_*), EPT_NONE when unmapped. */
unsigned mm_access(struct mm *mm, gpa_t gpa);

/* One line a mapping as /proc/self/maps has it. */
void mm_print_maps(struct mm *mm, FILE *out);

/* ---- crash.c: FV_CALL_CRASH ---- */
void crash_report(struct vcpu *vcpu, int signal, int si_code, gpa_t address,
                  const struct fv_regs *regs);

/* ---- io/: the door to the host ---- */
/*
 * First thing in main: a standard stream that is closed gets a place holder, or the VMM's next
 * descriptor would take its number and pass for the program's stream.
 */
void hostio_keep_stdio(void);
int hostio_create(struct hostio **out, struct vm *vm);
void hostio_destroy(struct hostio *io);
/* Removes what lies on the host while threads still run: the process ends by _exit next. */
void hostio_abandon(struct hostio *io);
/* Linux system calls on files, pipes, sockets, futexes, time and scheduling; pointers are guest's.
 */
int64_t hostio_call(struct vcpu *vcpu, uint32_t number, const uint64_t args[6]);
/*
 * The same for a call that may be made in two parts. The second goes on with the file that the
 * first began with, as a call of Linux does, though the descriptor may name another by then.
 */
int64_t hostio_call_part(struct vcpu *vcpu, uint32_t number, const uint64_t args[6],
                         struct io_part *part);
/* FV_CALL_SIGNALFD; waits for nothing. */
int64_t hostio_signalfd(struct vcpu *vcpu, const uint64_t args[6]);
/* No part follows. */
void hostio_part_end(struct io_part *part);
/*
 * Before the vCPU does anything but run the guest: what the program has read of the bytes it was
 * shown (io/ahead.c) leaves the sockets, and what it sent is sent. The vCPU's thread.
 */
void hostio_settle(struct vcpu *vcpu);
/* Does anybody wait for the owner of a priority-inheriting lock? Any thread. */
bool hostio_owner_is_awaited(const struct hostio *io);
/* Who does, with a page of [start, end) pinned, lets go of it, and fails. Any thread. */
void hostio_let_go(struct vm *vm, gpa_t start, gpa_t end);
/* The main thread is over, and the others go on: they get what it held. Its host thread. */
void hostio_main_ends(struct vm *vm);
/* Nothing is shown any more, from now on. No vCPU runs. */
void hostio_end_sight(struct hostio *io);
/* What was gathered and waits: to be called every millisecond until it returns false, and again
 * when there is something to read at the eventfd of hostio_tick_by. *idle: the caller's, 0 at
 * first. */
bool hostio_sends_tick(struct hostio *io, unsigned *idle);
/* Somebody does so. Before the guest runs. */
void hostio_tick_by(struct hostio *io, int fd);
/* Grants made; of how many something was read; sent; times that something sent waited for a tick.
 */
struct sight_counters {
    uint64_t shown, used, gathered, late;
};
void hostio_sight_counters(struct hostio *io, struct sight_counters *out);
/*
 * Finds and opens the program as the guest would (PATH, --dir). Returns the guest fd with *path set
 * to the guest's absolute path (malloc), or -ENOENT, -EACCES, -ENOEXEC... without a message.
 */
int hostio_open_program(struct hostio *io, const char *name, char **path);
/* What a guest descriptor names, and its *flags: O_ACCMODE. 0 or -errno. */
int hostio_fd_stat(struct hostio *io, int guest_fd, struct stat *status, int *flags);
/* A duplicate of a guest descriptor's host descriptor for mmap; *flags: O_ACCMODE. fd or -errno. */
int hostio_dup_host(struct hostio *io, int guest_fd, int *flags);
/* The host descriptor itself, valid while the guest keeps it open; or -EBADF. */
int hostio_host_fd(struct hostio *io, int guest_fd);
/* Host path of a guest path as the program would open it; for symbol look-up. 0 or -errno. */
int hostio_host_path(struct hostio *io, const char *guest_path, char *out, size_t bytes);

/* ---- net_rules.c: what of the network the program may use ---- */
/*
 * May the program bind this address? It is changed where --publish names another one for its port.
 * 0 or -EACCES.
 */
int net_bind_check(const struct run_config *config, struct sockaddr_storage *address, bool udp);
/* Is this host socket bound to a published port, so that it may listen, or answer? 0 or -EACCES. */
int net_listen_check(const struct run_config *config, int fd, bool udp);
/* May it connect or send there? 0 or -EACCES. */
int net_connect_check(const struct run_config *config, struct sockaddr_storage *address);
/* May it choose this TCP_CONGESTION? Only what the host has already: for root, which the VMM may
 * be, the kernel loads the module tcp_NAME. `name` as setsockopt takes it. 0, -EINVAL (empty),
 * -ENOENT.
 */
int net_congestion_check(const char *name, size_t bytes);
/* Can the published ports be had? 0 or -errno after one message. */
int net_publish_probe(const struct run_config *config);
#define NET_TEXT_BYTES 64
/* ADDR:PORT or [ADDR]:PORT, for messages. */
const char *net_text(const struct sockaddr_storage *address, char text[NET_TEXT_BYTES]);

/* ---- sandbox.c: Landlock, seccomp, no_new_privs ---- */
/* Files: before a foreign memory node is connected and any other thread exists. */
int sandbox_files(struct vm *vm);
/* System calls: after everything is open, before the guest runs. */
int sandbox_calls(const struct vm *vm);

/* ---- install.c: files that belong to this program ---- */
#define INSTALL_GUEST_VARIABLE     "FARVISOR_GUEST" /* environment: another guest image */
#define INSTALL_GUEST_NAME         "farvisor-guest.elf"
#define INSTALL_MEMSERVER_VARIABLE "FARVISOR_MEMSERVER"
#define INSTALL_MEMSERVER_NAME     "memserver"
#define INSTALL_GUIDE_VARIABLE     "FARVISOR_GUIDE_LIB"
#define INSTALL_GUIDE_NAME         "libfarguide.so.0"
#define INSTALL_ALLOC_VARIABLE     "FARVISOR_ALLOC_LIB"
#define INSTALL_ALLOC_NAME         "libfaralloc.so"
/* Where `name` is, unless the environment variable says it. 0, -ENOENT, -EACCES, -ENAMETOOLONG. */
int install_find(const char *variable, const char *name, char *path, size_t bytes);

/* ---- stats.c ---- */
/* Opens the file of --stats before the sandbox closes the door; NULL: none. 0 or -errno, message.
 */
int stats_open(const char *path);
int stats_write(struct vm *vm, const char *path);
void stats_progress_start(struct vm *vm);
void stats_progress_stop(struct vm *vm);

/* ---- record.c: --trace ---- */
/* Opens the file before the sandbox closes the door; without --trace: nothing. 0 or -errno after
 * one message, likewise below. */
int record_open(const struct run_config *config);
int record_start(struct vm *vm); /* the engine is there, and nothing has missed yet */
int record_stop(struct vm *vm);  /* after the last vCPU; says what was recorded or dropped */

/* ---- embedded.c: a memserver of our own on this host ---- */
struct embedded;
/* Starts it; *address (owned by the handle) is what to connect to. Ends with the handle or with us.
 */
int embedded_start(struct embedded **out, uint64_t capacity_bytes, const char **address);
void embedded_stop(struct embedded *embedded);

/* ---- cli.c, cli/replay.c, doctor.c ---- */
int cli_run(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_replay(int argc, char **argv);

#endif
