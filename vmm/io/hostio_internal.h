/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to the host, seen from inside: what the files of this folder share.
 *
 * The program names files by guest descriptors (io/fds.c) and guest paths (io/mounts.c,
 * io/walk.c); nothing it passes reaches the host untranslated. Its memory is touched only through
 * guestmem_*. Descriptors and paths know nothing of KVM, so tests drive them without a guest.
 */
#ifndef FARVISOR_HOSTIO_INTERNAL_H
#define FARVISOR_HOSTIO_INTERNAL_H

#include "vmm/io/ahead.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* ---- io/fds.c: guest descriptors ---- */

/*
 * One guest descriptor in use. Each has a host descriptor of its own (dup is a host dup), so epoll
 * registrations and file positions behave as on Linux. Reference counted: a blocked call keeps the
 * host descriptor open though another thread closed the guest's.
 */
struct io_file {
    atomic_uint references;
    uint64_t serial;     /* no other file has had it */
    int fd;              /* host descriptor, owned */
    mode_t type;         /* S_IFMT bits; 0 for eventfd, epoll and their kind */
    bool whole;          /* transfers go on until complete: regular files, memory devices */
    atomic_bool slow;    /* a file that waits even to be written: elsewhere, or synchronous */
    bool frozen;         /* not the program's to change: no fchmod and the like */
    sa_family_t family;  /* of a socket */
    bool stream;         /* a socket without message boundaries */
    atomic_bool patient; /* a socket that waits for more than a byte: SO_RCVLOWAT */
    bool read_only;      /* comes from a read-only grant: no new open to write either */
    bool made_here;      /* a socket of the program's own, not one it was started with */
    struct io_sight sight;
    struct io_signal_fd *signals; /* a signalfd: shared with its duplicates; else NULL */
    struct io_signal_set *holds;  /* an epoll set: likewise, the signalfds in it */
    /* What a set was last asked to tell of it once (EPOLLONESHOT): its serial << 32, and events. */
    _Atomic uint64_t asked_once;
    char *path;           /* guest path when opened by name, else NULL */
    pthread_mutex_t seek; /* one transfer at the file position at a time */
};

struct io_slot {
    struct io_file *file; /* NULL: free */
    bool cloexec;         /* kept for F_GETFD only: there is no exec */
};

struct io_fds {
    pthread_mutex_t lock;
    struct io_slot *slots;
    unsigned capacity;
    unsigned lowest;          /* no free slot below */
    struct io_aheads *aheads; /* NULL: nothing is looked at ahead */
};

int io_fds_create(struct io_fds *fds);
void io_fds_destroy(struct io_fds *fds);
/*
 * Takes host_fd over (closed on failure). path is copied, may be NULL. Returns a file with one
 * reference, or NULL for lack of memory.
 */
struct io_file *io_file_create(int host_fd, const char *path);
/* A file on a host dup of `file`'s descriptor; *out with one reference. 0 or -errno. */
int io_file_dup(struct io_file *file, struct io_file **out);
void io_file_put(struct io_file *file);
/* Does it wait even to be written? The flags that say so can change (F_SETFL). */
bool io_file_is_slow(const struct io_file *file);
void io_file_flags_changed(struct io_file *file);
/*
 * The file behind a descriptor with a new reference, or NULL. What was shown of it ahead is over,
 * and not begun anew while the reference is held: the caller sees what the program has left of it.
 */
struct io_file *io_fds_get(struct io_fds *fds, int fd);
/* The same for those who use the file in no way that could tell. */
struct io_file *io_fds_look(struct io_fds *fds, int fd);
/* The one on that host descriptor, likewise; NULL if the program has closed it. Takes long. */
struct io_file *io_fds_of_host(struct io_fds *fds, int host_fd);
/*
 * Puts `file` (its reference is consumed, on failure too) on the lowest free descriptor >= from.
 * limit is RLIMIT_NOFILE. Returns the descriptor, -EMFILE, -ENOMEM.
 */
int io_fds_add(struct io_fds *fds, struct io_file *file, int from, uint64_t limit, bool cloexec);
/*
 * 0, or -EMFILE: asked before something happens that cannot be undone, as Linux reserves a
 * descriptor first. Another thread may be faster.
 */
int io_fds_room(struct io_fds *fds, uint64_t limit);
/* As io_fds_add, but on descriptor fd, closing what was there. fd < limit is checked. */
int io_fds_replace(struct io_fds *fds, struct io_file *file, int fd, uint64_t limit, bool cloexec);
/* Returns what the host's close said, or -EBADF. */
int io_fds_close(struct io_fds *fds, int fd);
int io_fds_cloexec(struct io_fds *fds, int fd, const bool *set); /* 0/1 or -EBADF */
/* Next used descriptor >= fd, or -1. */
int io_fds_next(struct io_fds *fds, int fd);

/* ---- io/signals.c: signalfd ---- */
struct io_signals {
    pthread_mutex_t lock; /* held for no call that waits */
    struct io_signal_fd *list;
    uint64_t serial; /* of the newest */
    uint64_t told;   /* highest number of a set that was told */
};
/* One that was made, and its duplicates. Guarded by io_signals.lock. */
struct io_signal_fd {
    struct io_signals *of;
    struct io_signal_fd *next;
    unsigned references;
    uint64_t serial, mask;
    uint32_t changes; /* of the mask */
    int event_fd;
    bool up;     /* there is something in the eventfd: a signal waits for the process */
    bool raised; /* ... for the moment: io/signal_own.c */
};
struct io_signal_fd *io_signal_share(struct io_signal_fd *one); /* NULL: of none, none */
void io_signal_put(struct io_signal_fd *one);
/*
 * What waits in the guest, and what of it has just come, which is an edge for who waits for edges.
 * Sets have numbers, and may come late: an older one is told for its edge only. Returns the masks
 * of all descriptors together.
 */
uint64_t io_signals_tell(struct io_signals *signals, uint64_t number, uint64_t waits,
                         uint64_t came);

/* ---- io/signal_own.c: signals that wait for the calling thread alone ---- */
struct io_call;
struct io_signal_set *io_signal_set_create(void);
struct io_signal_set *io_signal_set_share(struct io_signal_set *set); /* NULL: of none, none */
void io_signal_set_put(struct io_signal_set *set);
/* The file is now in the set, with these events, or not. 0 or -ENOMEM. */
int io_signal_set_change(const struct io_call *call, struct io_file *set,
                         const struct io_file *file, bool there, uint32_t events);
/*
 * Has the caller such signals? Then nobody else looks until io_own_end. io_own_raise: what it is to
 * look at, without waiting; returns whether there may be something. io_own_told: the set was found
 * ready, and told all there was.
 */
bool io_own_begin(const struct io_call *call);
bool io_own_raise(const struct io_call *call, const struct io_file *file);
void io_own_told(const struct io_call *call, const struct io_file *file);
void io_own_end(const struct io_call *call);
/* What poll said of it, once nobody else looks. */
bool io_own_is_readable(const struct io_call *call, const struct io_file *file);

/* ---- io/mounts.c: the guest's view of the file system ---- */

struct io_mount {
    char *guest; /* absolute, normal form */
    size_t guest_bytes;
    char *host; /* where it comes from */
    int fd;     /* O_PATH */
    bool writable;
    bool hidden;    /* access is refused whatever the host says */
    bool directory; /* else a single file */
    bool device;    /* a device node is meant to be here */
    bool proc;      /* /proc: contents are made when opened */
};

#define IO_MOUNTS_MAX 128

/* A private host directory, removed at the end; locked while we live. */
struct io_scratch {
    char *path;
    int fd;
};

struct io_mounts {
    struct io_mount *list[IO_MOUNTS_MAX]; /* longest guest path first */
    unsigned count;
    struct io_scratch disk;   /* holds tmp/ */
    struct io_scratch memory; /* holds root/ and shm/ */
    int root_fd;              /* root/: what is visible outside of every grant */
    pid_t pid;
};

int io_mounts_create(struct io_mounts *mounts, const struct run_config *config);
void io_mounts_destroy(struct io_mounts *mounts);
/* The mount that holds a normal-form guest path; *rest is what follows inside ("" for its root). */
const struct io_mount *io_mounts_find(const struct io_mounts *mounts, const char *path,
                                      const char **rest);
/* The mount exactly at path, or NULL. */
const struct io_mount *io_mounts_at(const struct io_mounts *mounts, const char *path);
/* Is some mount strictly below path? */
bool io_mounts_below(const struct io_mounts *mounts, const char *path);

/* ---- io/skeleton.c: the private directories under the guest's / ---- */
int io_skeleton_create(struct io_mounts *mounts);
void io_skeleton_destroy(struct io_mounts *mounts);
/* Removes the directories from the host, the descriptors stay. */
void io_skeleton_remove(const struct io_mounts *mounts);
/* Makes `path` exist in the skeleton (and its parents), so that listings show it. */
int io_skeleton_place(struct io_mounts *mounts, const char *path, bool directory);
int io_skeleton_link(struct io_mounts *mounts, const char *path, const char *target);

/* ---- io/path.c: guest paths as text ---- */
/* Appends or removes a component; out is in normal form but "" for the root. */
int io_path_push(char out[PATH_MAX], size_t *bytes, const char *name, size_t name_bytes);
void io_path_pop(char out[PATH_MAX], size_t *bytes);
/* Moves *at to the next component, *bytes long; false at the end. */
bool io_path_next(const char **at, size_t *bytes);
/* Normal-form absolute path from base and path, textually. 0, -ENAMETOOLONG, or 1: has "..". */
int io_path_join(const char *base, const char *path, char out[PATH_MAX]);
/* openat2 inside a mount that follows no symbolic link and never leaves it. fd or -errno. */
int io_open_beneath(int dir_fd, const char *rest, uint64_t flags, mode_t mode);
/* Opens what lies at `rest` in a mount, its root included. fd or -errno. */
int io_mount_open(const struct io_mount *mount, const char *rest, uint64_t flags, mode_t mode);

/* ---- io/walk.c: path resolution ---- */

#define IO_FOLLOW    1u /* a symbolic link in last place is followed */
#define IO_PARENT    2u /* stop at the last component, which need not exist */
#define IO_EMPTY     4u /* AT_EMPTY_PATH: "" means the descriptor itself */
#define IO_LINKS_MAX 40

struct io_node {
    const struct io_mount *mount;
    int fd;                  /* O_PATH of the object; with IO_PARENT, of its directory. Owned */
    int alias;               /* guest descriptor that /proc/self/fd/N names, else -1 */
    bool frozen;             /* a descriptor's: as io_file.frozen */
    bool read_only;          /* an alias's: as io_file.read_only, of the file that `fd` is of */
    bool slash;              /* the path ended in '/': only a directory will do */
    char name[NAME_MAX + 1]; /* IO_PARENT: last component; "" if it is "..", "/" or a mount */
    char path[PATH_MAX];     /* normal-form guest path */
};

struct hostio;

/*
 * io_resolve - finds what `path` names in the guest's view, never leaving the grants. dir_fd is a
 * guest descriptor or AT_FDCWD. Returns 0 (undo with io_node_done) or -errno as Linux.
 */
int io_resolve(struct hostio *io, int dir_fd, const char *path, unsigned flags,
               struct io_node *node);
void io_node_done(struct io_node *node);
/* ---- io/proc.c: files made up for the guest ---- */
/* Makes the names of the guest's /proc, once, when somebody looks there. */
void io_proc_fill(struct hostio *io);
/* Contents of a /proc path as a read-only host descriptor, or -ENOENT if it is not made up. */
int io_proc_open(struct hostio *io, const char *path);
/* Brings /proc/PID/fd in the skeleton up to date. */
void io_proc_refresh_fds(struct hostio *io);
void io_proc_set_cwd(struct hostio *io, const char *guest_path); /* io->lock held */

/* Bytes of the guest's memory not in use, for meminfo and sysinfo; io/info.c. */
uint64_t io_memory_free(struct hostio *io);

/* ---- io/futex.c ---- */
struct io_futexes {
    pthread_mutex_t lock;
    struct io_futex_wait *waits;      /* threads asleep or about to be */
    struct io_futex_requeue *requeue; /* requeues on their way */
    atomic_uint owners_awaited;       /* threads that wait for a lock's owner, or will */
    atomic_bool main_over;            /* the main thread ended, others go on */
    pthread_mutex_t bequest;          /* what it held is handed on */
};

/* ---- io/ahead.c ---- */
/* The error that a look met, once, as -errno; or 0. Before a transfer. */
static inline int io_ahead_error(struct io_file *file)
{
    return atomic_load(&file->sight.late_error) ? -atomic_exchange(&file->sight.late_error, 0) : 0;
}

/* The same before a receive: what a stream still holds comes first, as on Linux. */
int64_t io_ahead_error_received(struct io_file *file);

/*
 * How a connection ended, met by a later piece of a transfer whose answer is the bytes before: the
 * host tells it once, and the next transfer is to hear of it.
 */
static inline void io_ahead_keep_error(struct io_file *file, int64_t result)
{
    if (S_ISSOCK(file->type) && (result == -ECONNRESET || result == -ETIMEDOUT ||
                                 result == -EHOSTUNREACH || result == -ENETUNREACH))
        atomic_store(&file->sight.late_error, (int)-result);
}

/* ---- the whole ---- */
struct hostio {
    struct vm *vm;
    const struct run_config *config;
    struct io_fds fds;
    struct io_signals signals;
    struct io_mounts mounts;
    struct io_futexes futexes;
    struct io_aheads aheads;
    pthread_rwlock_t sets; /* registrations of epoll; its holders wait for nobody: epoll_keep.c */
    pthread_mutex_t lock;  /* cwd, limits, the making of /proc */
    char *cwd;             /* normal-form guest path */
    char *program;         /* guest path of the program */
    atomic_bool proc_filled;
    char comm[16]; /* the program's name, cut as Linux cuts it */
    struct rlimit limits[RLIM_NLIMITS];
    atomic_bool net_warned, bind_warned, connect_warned, keep_warned;
};

/* One system call being answered. */
struct io_call {
    struct hostio *io;
    struct vm *vm;
    struct vcpu *vcpu;
    uint32_t number;
    const uint64_t *args;
    struct io_part *part;     /* what was done of it: by the poller, which handed it back, or before
                                 it was interrupted */
    const struct io_call *of; /* it is one message of that call; else NULL */
};

typedef int64_t (*io_handler)(const struct io_call *call);

/* ---- io/futex_owner.c: who waits for a priority-inheriting lock's owner ---- */
/*
 * The caller waits for the owner of `lock`, or will: before it pins the words, until it has
 * unpinned them. condition: what it waits for first, or 0. Returns whether the main thread was over
 * by then: what is still its nobody will unlock.
 */
bool io_owner_await(const struct io_call *call, gpa_t lock, gpa_t condition);
void io_owner_await_end(const struct io_call *call);
/* Is the owner that the pinned word names none any more, so that who waited would for ever? */
bool io_owner_is_over(const struct io_call *call, gpa_t lock, bool main_over);
/* Who waits for the pinned condition is not moved to a lock that nobody would hand on. What
 * FUTEX_CMP_REQUEUE_PI says then: 0 or -errno. expected: the condition's value. */
long io_owner_requeue_refused(const struct io_call *call, gpa_t condition, long expected);
bool io_owner_main_is_over(const struct io_call *call);

/* ---- hostio.c: helpers every handler uses ---- */
static inline int io_arg_int(const struct io_call *call, unsigned index)
{
    return (int)(uint32_t)call->args[index];
}
static inline uint32_t io_arg_u32(const struct io_call *call, unsigned index)
{
    return (uint32_t)call->args[index];
}
/* Something was consumed that cannot be put back: the poller now has to finish the call. */
static inline void io_commit(const struct io_call *call)
{
    call->vcpu->committed = true;
}
/*
 * The file behind the descriptor in argument 0, with a reference, or NULL. If the poller began the
 * call it is the one that was named then. To be given back with io_call_put, which keeps it for the
 * other part if the call was handed back.
 */
struct io_file *io_call_file(const struct io_call *call);
struct io_file *io_call_look(const struct io_call *call); /* by io_fds_look */
void io_call_put(const struct io_call *call, struct io_file *file);
/* What may wait in the host where it cannot be told not to: not on the poller. -EINTR. */
static inline long io_hand_back(const struct io_call *call)
{
    call->vcpu->handed_back = true;
    return -EINTR;
}
/* A system call on the calling thread, errors as -errno. Not interruptible by a kick. */
long io_host(long number, long a, long b, long c, long d, long e, long f);
#define IO_HOST1(n, a)          io_host(n, (long)(a), 0, 0, 0, 0, 0)
#define IO_HOST2(n, a, b)       io_host(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define IO_HOST3(n, a, b, c)    io_host(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define IO_HOST4(n, a, b, c, d) io_host(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define IO_HOST5(n, a, b, c, d, e)                                                                 \
    io_host(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define IO_HOST6(n, a, b, c, d, e, f)                                                              \
    io_host(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/*
 * Interrupted calls, as Linux has them inside: the guest kernel restarts the call, or turns the
 * result into EINTR if a handler ran (FV_ERESTARTSYS: if one without SA_RESTART ran;
 * IO_ERESTARTNOINTR: never). After IO_ERESTART_RESUME it calls restart_syscall, and the wait goes
 * on to its old deadline.
 */
#define IO_ERESTARTNOINTR  FV_ERESTARTNOINTR
#define IO_ERESTARTNOHAND  514
#define IO_ERESTART_RESUME 516
static inline bool io_is_interrupted(int64_t result)
{
    return result <= -FV_ERESTARTSYS && result >= -IO_ERESTART_RESUME;
}
/* A kick has come since the guest was left: a wait that ended may have ended for it. */
static inline bool io_is_kicked(const struct io_call *call)
{
    return !call->vcpu->at_once && atomic_load(&call->vcpu->kicked);
}
/* -EINTR with nothing done yet: the guest kernel restarts the call. */
static inline int64_t io_restart(int64_t result)
{
    return result == -EINTR ? -FV_ERESTARTSYS : result;
}
static inline int64_t io_restart_nohand(int64_t result)
{
    return result == -EINTR ? -IO_ERESTARTNOHAND : result;
}
/* Has the socket a time limit of its own (SO_RCVTIMEO, SO_SNDTIMEO)? What was transferred by then
 * is told: Linux counts it once. */
bool io_is_limited(const struct io_file *file, bool send);
/*
 * As io_restart, for a transfer or accept. On a socket with a time limit of its own (SO_RCVTIMEO,
 * SO_SNDTIMEO) SA_RESTART does not count, and a receive that no handler ended waits on for what is
 * left of its time.
 */
int64_t io_restart_socket(const struct io_call *call, const struct io_file *file, bool send,
                          int64_t result);
uint64_t io_nofile(struct hostio *io);
/* New guest descriptor for a host descriptor, which is taken over. fd or -errno. */
int io_install(struct hostio *io, int host_fd, const char *path, bool cloexec);
/* ... for a socket, which may be looked at ahead. `from`: it was accepted there, or NULL. */
int io_install_socket(struct hostio *io, int host_fd, const struct io_file *from, bool cloexec);
int io_install_file(struct hostio *io, struct io_file *file, bool cloexec);
/* The calling program's path argument. 0 or -errno. */
int io_path_arg(const struct io_call *call, unsigned index, char path[PATH_MAX]);
/*
 * Resolves the path in argument `index` to the object itself; AT_* flags in `at`. `change`: the
 * object is to be changed, -EROFS in a read-only grant. To be ended with io_node_done even on
 * error.
 */
int io_object_arg(const struct io_call *call, int dir_fd, unsigned index, int at, bool change,
                  struct io_node *node);
/* Two host descriptors, taken over, become guest descriptors stored at `out`. 0 or -errno. */
int io_install_pair(const struct io_call *call, const int host_fds[2], gpa_t out, bool cloexec);
/* Is tid one of the guest's threads, or 0 or the process? */
bool io_is_ours(const struct io_call *call, pid_t tid);
/* /proc/self/fd/N of a host descriptor. */
#define IO_FD_LINK_BYTES 32
const char *io_fd_link(int host_fd, char out[IO_FD_LINK_BYTES]);

/* ---- io/limits.c ---- */
/*
 * Bounds the guest's descriptors, however many the host allows (2^30 in many containers): their
 * table, and what poll and select look at, are memory of this host beside --local.
 */
void io_descriptors_bound(struct rlimit *limit);

/* ---- io/address.c: socket addresses between program and host ---- */
/* The program's address of an internet socket, of argument values; 0 or -errno. */
int io_address_read(const struct io_call *call, gpa_t gpa, uint32_t bytes,
                    struct sockaddr_storage *address);
/* Tells the program a host address; *bytes_gpa is room and then length. 0 or -errno. */
int io_address_write(const struct io_call *call, gpa_t to, gpa_t bytes_gpa,
                     const struct sockaddr_storage *address);
/* As much of it as the program may see, and how long that is. */
socklen_t io_address_visible(const struct sockaddr_storage *address);
static inline bool io_is_inet(const struct io_file *file)
{
    return file->family == AF_INET || file->family == AF_INET6;
}
/*
 * May the program send or connect there? One warning a run if not. 0 or -EACCES; the wildcard
 * becomes the address it was taken for.
 */
int io_connect_check(const struct io_call *call, struct sockaddr_storage *address);
int io_bind_check(const struct io_call *call, struct sockaddr_storage *address, bool udp);

/* ---- io/epoll_keep.c ---- */
/* These events of the set could not be told: what the host tells once it is to tell again. */
struct epoll_event;
void io_epoll_keep(struct hostio *io, struct io_file *set, const struct epoll_event *told,
                   unsigned count);

/* ---- io/time.c ---- */
#define IO_NS_PER_S 1000000000ull
/* A timed wait that restart_syscall takes up again; one a thread. */
struct io_resume {
    int64_t (*run)(const struct io_call *call, const struct io_resume *wait);
    uint64_t args[6];     /* of the call */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC */
    /* Where it was done in part: */
    uint64_t told;        /* the result if it does not go on */
    uint64_t done, inner; /* where it goes on: io_part */
    int64_t offsets[2];
    uint64_t serial, other; /* its files: their descriptors may name others when it goes on */
    uint32_t number;        /* of the call */
};
/* Runs the wait; if it is interrupted it is kept for restart_syscall. */
int64_t io_resumable_run(const struct io_call *call, const struct io_resume *wait);
int64_t io_resumable_later(const struct io_resume *wait); /* it was interrupted before it began */
/*
 * It was interrupted with a part of it done: told, done, inner, serial, other, deadline_ns; the
 * rest is filled in here. If a handler runs the program is told of that part; else the call goes
 * on, for Linux would not have come back for a signal of somebody else.
 */
int64_t io_resumable_so_far(const struct io_call *call, const struct io_resume *so_far);
/* Saturates; the deadline of a relative wait beginning now. */
uint64_t io_deadline_ns(const struct timespec *timeout);
/* The time left until a deadline, at least 0. */
struct timespec io_time_left(uint64_t deadline_ns);
bool io_timespec_valid(const struct timespec *timeout);

/* ---- guestmem.c, for pieces of more than two pages ---- */
/*
 * guestmem_admit - before pinning more than two pages: how many of `pages` may be pinned now, the
 * rest in later pieces; with no pin held. The count, for guestmem_dismiss, or -errno as above.
 */
int64_t guestmem_admit(struct vm *vm, uint64_t pages);
void guestmem_dismiss(struct vm *vm, uint64_t pages);

/* ---- io/batch.c: pinned pieces of the program's memory ---- */
/* A host iovec over pinned guest memory. */
#define IO_BATCH_IOV 64
/* Most bytes of one call, as Linux has it (MAX_RW_COUNT). */
#define IO_BYTES_MAX 0x7ffff000u
static inline uint64_t io_bytes(uint64_t asked)
{
    return asked < IO_BYTES_MAX ? asked : IO_BYTES_MAX;
}
struct io_batch {
    struct iovec iov[IO_BATCH_IOV];
    gpa_t gpa[IO_BATCH_IOV];
    unsigned count;
    uint64_t bytes;
    uint64_t admitted; /* pages, guestmem_admit */
};
struct io_cursor {
    const struct iovec *spans; /* guest addresses */
    unsigned count;
    unsigned index;
    uint64_t offset; /* into spans[index] */
};
/* Pins the next piece: up to GUESTMEM_PIN_MAX, less when much is pinned by others. 0 or -errno with
 * nothing pinned. */
int io_batch_pin(struct vm *vm, struct io_batch *batch, const struct io_cursor *at, bool writable);
void io_batch_unpin(struct vm *vm, struct io_batch *batch);
void io_cursor_advance(struct io_cursor *at, uint64_t bytes);
uint64_t io_cursor_left(const struct io_cursor *at); /* bytes from here to the end */
/* Does it hold all that is left? Pins are bounded: no more than 64 spans, 64 pages. */
bool io_batch_is_whole(const struct io_batch *batch, const struct io_cursor *at);
/* Copies the first `bytes` of what is left, which must be as many, out of or into the program's
 * memory; pins a page at a time. 0 or -errno. */
int io_cursor_read(struct vm *vm, const struct io_cursor *at, char *to, uint64_t bytes);
int io_cursor_write(struct vm *vm, const struct io_cursor *at, const char *from, uint64_t bytes);
/*
 * What waits for somebody else, who may have to be admitted too, waits with nothing pinned: it is
 * tried with pins and told not to wait, and if that was in vain made by a copy, of so much of what
 * is left, of which `bytes` could be pinned.
 */
uint64_t io_copy_bytes(const struct io_file *file, const struct io_cursor *at, uint64_t bytes,
                       bool out);
bool io_never_waits(const struct io_file *file); /* EAGAIN is the program's own answer */
/* Copies and checks the program's iovec. *spans is freed by the caller unless == small. */
#define IO_SPANS_SMALL 8
int io_spans_read(struct vm *vm, gpa_t gpa, uint64_t count, struct iovec small[IO_SPANS_SMALL],
                  struct iovec **spans);

/* ---- io/message.c ---- */
struct msghdr;
struct io_message_end {
    uint64_t left; /* bytes that were not sent or received, if it succeeds */
    uint64_t told; /* bytes that were, also if it waits for more (FV_ERESTART_SO_FAR) */
    int flags;     /* msg_flags */
};
/* The bytes that a read of `asked` waits for: SO_RCVLOWAT. */
uint64_t io_message_least(const struct io_file *file, uint64_t asked);
/* sendmsg, recvmsg: arguments 0 to 2. Bytes or -errno. */
int64_t io_message_vector(const struct io_call *call, bool send, struct io_message_end *end);
/*
 * Sends the next `bytes` in one host call, by a copy: a message goes out whole or not at all, and
 * pins are bounded. header: the address, if any. Bytes or -errno.
 */
int64_t io_message_send(const struct io_call *call, const struct io_file *file,
                        const struct io_cursor *cursor, uint64_t bytes, const struct msghdr *header,
                        int flags);
/* Receives up to `bytes`, likewise. *header tells who sent it, and its flags. */
int64_t io_message_receive(const struct io_call *call, const struct io_file *file,
                           const struct io_cursor *cursor, uint64_t bytes, struct msghdr *header,
                           int flags);
/* Would a transfer of these pieces alone cut a message in two? */
bool io_message_is_cut(const struct io_file *file, const struct io_batch *batch,
                       const struct io_cursor *cursor, bool send);

/* Prototypes of every handler, from the table. */
#define IO_CALL(number, name, handler, note) int64_t handler(const struct io_call *call);
#include "vmm/io/table.def"
#undef IO_CALL

#endif
