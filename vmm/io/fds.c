/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's descriptor table: numbers given out lowest first, as Linux does, each with a host
 * descriptor of its own under it.
 *
 * Any vCPU thread. The table lock is never held over a host call that can block; a descriptor in
 * use by a call in flight is kept alive by its reference count, not by the lock.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FIRST_SLOTS   64
#define MEMORY_DEVICE 1 /* major number of /dev/null, zero, full, random, urandom */

int io_fds_create(struct io_fds *fds)
{
    fds->slots = calloc(FIRST_SLOTS, sizeof(*fds->slots));
    if (!fds->slots)
        return -ENOMEM;
    fds->capacity = FIRST_SLOTS;
    fds->lowest = 0;
    pthread_mutex_init(&fds->lock, NULL);
    return 0;
}

void io_fds_destroy(struct io_fds *fds)
{
    if (!fds->slots)
        return;
    for (unsigned i = 0; i < fds->capacity; i++) {
        if (fds->slots[i].file)
            io_file_put(fds->slots[i].file);
    }
    free(fds->slots);
    fds->slots = NULL;
    pthread_mutex_destroy(&fds->lock);
}

/* Writing to a file of these fills the host's page cache; others may ask a server first. */
static bool is_local(int fd)
{
    static const long types[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,      BTRFS_SUPER_MAGIC,
                                 F2FS_SUPER_MAGIC, TMPFS_MAGIC,          RAMFS_MAGIC,
                                 HUGETLBFS_MAGIC,  OVERLAYFS_SUPER_MAGIC};
    struct statfs status;

    if (fstatfs(fd, &status))
        return false;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (status.f_type == types[i])
            return true;
    }
    return false;
}

static bool is_synchronous(const struct io_file *file)
{
    return fcntl(file->fd, F_GETFL) & (O_DSYNC | O_SYNC | O_DIRECT);
}

void io_file_flags_changed(struct io_file *file)
{
    atomic_store(&file->slow,
                 S_ISBLK(file->type) ||
                     (S_ISREG(file->type) && (is_synchronous(file) || !is_local(file->fd))));
}

/* O_DIRECT is the open file's, whichever of its descriptors it was set by. */
bool io_file_is_slow(const struct io_file *file)
{
    return atomic_load(&file->slow) ||
           (S_ISREG(file->type) && atomic_load(&file->sight.shared) && is_synchronous(file));
}

static void file_classify(struct io_file *file)
{
    int type = 0, family = 0, lowest = 1;
    socklen_t bytes = sizeof(int);
    struct stat status;

    if (fstat(file->fd, &status))
        return;
    file->type = status.st_mode & S_IFMT;
    file->whole = S_ISREG(status.st_mode) || S_ISBLK(status.st_mode) ||
                  (S_ISCHR(status.st_mode) && major(status.st_rdev) == MEMORY_DEVICE);
    io_file_flags_changed(file);
    if (!S_ISSOCK(status.st_mode))
        return;
    (void)getsockopt(file->fd, SOL_SOCKET, SO_TYPE, &type, &bytes);
    (void)getsockopt(file->fd, SOL_SOCKET, SO_DOMAIN, &family, &bytes);
    bytes = sizeof(int);
    (void)getsockopt(file->fd, SOL_SOCKET, SO_RCVLOWAT, &lowest, &bytes);
    atomic_init(&file->patient, lowest > 1); /* accepted sockets inherit it */
    file->stream = type == SOCK_STREAM;
    file->family = (sa_family_t)family;
}

struct io_file *io_file_create(int host_fd, const char *path)
{
    static _Atomic uint64_t serial;
    struct io_file *file = calloc(1, sizeof(*file));

    if (file && path)
        file->path = strdup(path);
    if (!file || (path && !file->path)) {
        free(file);
        close(host_fd);
        return NULL;
    }
    atomic_init(&file->references, 1);
    file->serial = atomic_fetch_add(&serial, 1) + 1;
    file->fd = host_fd;
    pthread_mutex_init(&file->seek, NULL);
    file_classify(file);
    return file;
}

int io_file_dup(struct io_file *file, struct io_file **out)
{
    int host_fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);

    if (host_fd < 0)
        return -errno;
    *out = io_file_create(host_fd, file->path);
    if (!*out)
        return -ENOMEM;
    /* Either can be used without the other's knowledge. The caller's reference keeps grants away.
     */
    atomic_store(&file->sight.shared, true);
    atomic_store(&(*out)->sight.shared, true);
    /* Told twice is better than never. */
    atomic_store(&(*out)->sight.late_error, atomic_load(&file->sight.late_error));
    (*out)->frozen = file->frozen;
    (*out)->read_only = file->read_only;
    (*out)->signals = io_signal_share(file->signals);
    (*out)->holds = io_signal_set_share(file->holds);
    return 0;
}

/*
 * SO_LINGER: close would wait until the peer has taken everything, as long as the program said. At
 * the end of a process Linux does not; nor may the poller, which serves others.
 */
static void linger_not(const struct io_file *file)
{
    struct linger linger = {0};
    socklen_t bytes = sizeof(linger);

    if (S_ISSOCK(file->type) && !getsockopt(file->fd, SOL_SOCKET, SO_LINGER, &linger, &bytes) &&
        linger.l_onoff && linger.l_linger) {
        linger.l_onoff = 0;
        (void)setsockopt(file->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    }
}

/* The last reference closes; what close says goes to whoever dropped it. */
static int file_drop(struct io_file *file)
{
    const struct vcpu *self = vcpu_self();
    int error = 0;

    if (atomic_fetch_sub(&file->references, 1) != 1)
        return 0;
    if (!self || self->at_once)
        linger_not(file);
    if (close(file->fd))
        error = -errno;
    pthread_mutex_destroy(&file->seek);
    io_signal_put(file->signals);
    io_signal_set_put(file->holds);
    free(atomic_load(&file->sight.watches));
    free(file->path);
    free(file);
    return error;
}

void io_file_put(struct io_file *file)
{
    (void)file_drop(file);
}

struct io_file *io_fds_look(struct io_fds *fds, int fd)
{
    struct io_file *file = NULL;

    pthread_mutex_lock(&fds->lock);
    if (fd >= 0 && (unsigned)fd < fds->capacity) {
        file = fds->slots[fd].file;
        if (file)
            atomic_fetch_add(&file->references, 1);
    }
    pthread_mutex_unlock(&fds->lock);
    return file;
}

struct io_file *io_fds_of_host(struct io_fds *fds, int host_fd)
{
    struct io_file *file = NULL;

    pthread_mutex_lock(&fds->lock);
    for (unsigned i = 0; i < fds->capacity && !file; i++) {
        if (fds->slots[i].file && fds->slots[i].file->fd == host_fd)
            file = fds->slots[i].file;
    }
    if (file)
        atomic_fetch_add(&file->references, 1);
    pthread_mutex_unlock(&fds->lock);
    return file;
}

struct io_file *io_fds_get(struct io_fds *fds, int fd)
{
    struct io_file *file = io_fds_look(fds, fd);

    /* After the reference is there: io/ahead.c, `begin`. */
    if (file && atomic_load(&file->sight.ahead))
        io_ahead_revoke(fds->aheads, file);
    return file;
}

/* Makes slots[0..fd] exist. Lock held. */
static int fds_grow(struct io_fds *fds, unsigned fd)
{
    unsigned capacity = fds->capacity;
    struct io_slot *slots;

    if (fd < capacity)
        return 0;
    while (capacity <= fd)
        capacity *= 2;
    slots = realloc(fds->slots, capacity * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    memset(slots + fds->capacity, 0, (capacity - fds->capacity) * sizeof(*slots));
    fds->slots = slots;
    fds->capacity = capacity;
    return 0;
}

/* The lowest free descriptor >= from; it may not have a slot yet. Lock held. */
static unsigned fds_find(struct io_fds *fds, unsigned from)
{
    unsigned fd = from > fds->lowest ? from : fds->lowest;

    while (fd < fds->capacity && fds->slots[fd].file)
        fd++;
    if (from <= fds->lowest)
        fds->lowest = fd;
    return fd;
}

int io_fds_room(struct io_fds *fds, uint64_t limit)
{
    unsigned fd;

    pthread_mutex_lock(&fds->lock);
    fd = fds_find(fds, 0);
    pthread_mutex_unlock(&fds->lock);
    return fd < limit ? 0 : -EMFILE;
}

int io_fds_add(struct io_fds *fds, struct io_file *file, int from, uint64_t limit, bool cloexec)
{
    int result;
    unsigned fd;

    pthread_mutex_lock(&fds->lock);
    fd = fds_find(fds, (unsigned)from);
    result = fd < limit ? fds_grow(fds, fd) : -EMFILE;
    if (!result) {
        fds->slots[fd] = (struct io_slot){.file = file, .cloexec = cloexec};
        result = (int)fd;
    }
    pthread_mutex_unlock(&fds->lock);
    if (result < 0)
        io_file_put(file);
    return result;
}

/*
 * Takes the file out of a descriptor; NULL: there was none. What was shown of it is over before the
 * number can mean another file, and does not begin anew because of our reference; nor when that is
 * gone, though whoever is in a call with it may have the only two left: it is marked.
 */
static struct io_file *fds_swap(struct io_fds *fds, int fd, const struct io_slot *slot)
{
    for (;;) {
        struct io_file *old = io_fds_get(fds, fd);
        bool same;

        pthread_mutex_lock(&fds->lock);
        same = (unsigned)fd >= fds->capacity ? !old : fds->slots[fd].file == old;
        if (same && (unsigned)fd < fds->capacity) {
            fds->slots[fd] = *slot;
            if (!slot->file && (unsigned)fd < fds->lowest)
                fds->lowest = (unsigned)fd;
        }
        pthread_mutex_unlock(&fds->lock);
        if (old && same) {
            atomic_store(&old->sight.shared, true);
            atomic_fetch_sub(&old->references, 1); /* of two: the table's remains, ours now */
        } else if (old) {
            io_file_put(old);
        }
        if (same)
            return old;
    }
}

int io_fds_replace(struct io_fds *fds, struct io_file *file, int fd, uint64_t limit, bool cloexec)
{
    const struct io_slot slot = {.file = file, .cloexec = cloexec};
    struct io_file *old;
    int error = -EBADF;

    pthread_mutex_lock(&fds->lock);
    if (fd >= 0 && (uint64_t)fd < limit)
        error = fds_grow(fds, (unsigned)fd);
    pthread_mutex_unlock(&fds->lock);
    if (error) {
        io_file_put(file);
        return error;
    }
    old = fds_swap(fds, fd, &slot);
    if (old)
        io_file_put(old);
    return fd;
}

int io_fds_close(struct io_fds *fds, int fd)
{
    static const struct io_slot none;
    struct io_file *file = fd >= 0 ? fds_swap(fds, fd, &none) : NULL;

    return file ? file_drop(file) : -EBADF;
}

int io_fds_cloexec(struct io_fds *fds, int fd, const bool *set)
{
    int result = -EBADF;

    pthread_mutex_lock(&fds->lock);
    if (fd >= 0 && (unsigned)fd < fds->capacity && fds->slots[fd].file) {
        if (set)
            fds->slots[fd].cloexec = *set;
        result = fds->slots[fd].cloexec;
    }
    pthread_mutex_unlock(&fds->lock);
    return result;
}

int io_fds_next(struct io_fds *fds, int fd)
{
    int result = -1;

    pthread_mutex_lock(&fds->lock);
    for (unsigned i = fd < 0 ? 0 : (unsigned)fd; i < fds->capacity && result < 0; i++) {
        if (fds->slots[i].file)
            result = (int)i;
    }
    pthread_mutex_unlock(&fds->lock);
    return result;
}
