/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mechanisms that put pages into the second stage and take them out, with userfaultfd on a shared
 * memfd mapping. Every call takes a run of pages, since one call costs far more than one page
 * (docs/performance.md). Kernel documentation: admin-guide/mm/userfaultfd.
 */
#include "ept/ept_internal.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* Linux 5.7 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HUGE_PAGES 512u

#define WANTED_FEATURES                                                                            \
    (UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

static uint64_t host_address(const struct ept *ept, uint64_t page)
{
    return (uintptr_t)ept->base + (page << EPT_PAGE_SHIFT);
}

/* /dev/userfaultfd gives the right by file permission; the system call wants CAP_SYS_PTRACE. */
static int uffd_open(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        close(device);
        if (fd >= 0)
            return fd;
    }
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int ept_frames_create(struct ept *ept)
{
    int fd = uffd_open();
    if (fd < 0) {
        message_error("userfaultfd: open: %s (run `farvisor doctor`)", strerror(-fd));
        return fd;
    }
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = WANTED_FEATURES |
                    (ept->config.exit_mode ? UFFD_FEATURE_SIGBUS : UFFD_FEATURE_THREAD_ID),
    };
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int error = errno;
        message_error("userfaultfd: write protection of shared memory: %s (needs Linux 5.19)",
                      strerror(error));
        close(fd);
        return -error;
    }
    ept->uffd = fd;
    return 0;
}

/*
 * Watches a range that has no contents. A vCPU that left the guest for one of its pages a while ago
 * may be looking for it in the host kernel only now. If that was before the range was watched, it
 * made a page that nobody knows of, and whoever installs one there would find it in the way.
 */
int ept_frames_watch(struct ept *ept, gpa_t gpa, uint64_t bytes)
{
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)ept->base + gpa, .len = bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(ept->uffd, UFFDIO_REGISTER, &range) == 0)
        return ept_drop(ept, gpa >> EPT_PAGE_SHIFT, bytes >> EPT_PAGE_SHIFT);
    int error = errno;
    message_error("userfaultfd: register 0x%llx: %s", (unsigned long long)gpa, strerror(error));
    return -error;
}

int ept_watch(struct ept *ept, gpa_t gpa, uint64_t bytes, bool on)
{
    if (ept->config.paged)
        return 0;
    if (on)
        return ept_frames_watch(ept, gpa, bytes);
    struct uffdio_range range = {.start = (uintptr_t)ept->base + gpa, .len = bytes};
    return ioctl(ept->uffd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
}

/*
 * What to go on with after an attempt that said `error` (0: none) with `moved` bytes done. A
 * partial one reports its length and EAGAIN: the address space was changing. One ioctl stays within
 * one mapping of the host, and what looks like one range may be several (ept_move, ept_bar): ENOENT
 * then, and a shorter piece may do. -errno if not.
 */
static int piece_done(uint64_t *done, uint64_t *piece, uint64_t bytes, int error, int64_t moved)
{
    if (error == ENOENT && *piece > EPT_PAGE_BYTES) {
        *piece = (*piece / 2) & ~(EPT_PAGE_BYTES - 1);
        return 0;
    }
    if (error && error != EAGAIN)
        return -error;
    *done += !error ? *piece : moved > 0 ? (uint64_t)moved : 0;
    *piece = bytes - *done;
    return 0;
}

int ept_install(struct ept *ept, uint64_t page, const void *from, uint64_t pages)
{
    uint64_t done = 0, bytes = pages << EPT_PAGE_SHIFT, piece = bytes;
    while (done < bytes) {
        struct uffdio_copy copy = {
            .dst = host_address(ept, page) + done,
            .src = (uintptr_t)from + done,
            .len = piece,
        };
        int error = ioctl(ept->uffd, UFFDIO_COPY, &copy) < 0 ? errno : 0;
        error = piece_done(&done, &piece, bytes, error, copy.copy);
        if (error)
            return error;
    }
    return 0;
}

int ept_install_zero(struct ept *ept, uint64_t page, uint64_t pages)
{
    uint64_t done = 0, bytes = pages << EPT_PAGE_SHIFT, piece = bytes;
    while (done < bytes) {
        struct uffdio_zeropage zero = {
            .range = {.start = host_address(ept, page) + done, .len = piece}};
        int error = ioctl(ept->uffd, UFFDIO_ZEROPAGE, &zero) < 0 ? errno : 0;
        error = piece_done(&done, &piece, bytes, error, zero.zeropage);
        if (error)
            return error;
    }
    return 0;
}

int ept_write_protect(struct ept *ept, uint64_t page, uint64_t pages, bool on)
{
    uint64_t done = 0, bytes = pages << EPT_PAGE_SHIFT, piece = bytes;
    while (done < bytes) {
        struct uffdio_writeprotect protect = {
            .range = {.start = host_address(ept, page) + done, .len = piece},
            .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
        };
        int error = ioctl(ept->uffd, UFFDIO_WRITEPROTECT, &protect) < 0 ? errno : 0;
        error = piece_done(&done, &piece, bytes, error, 0);
        if (error)
            return error;
    }
    return 0;
}

int ept_unmap(struct ept *ept, uint64_t page, uint64_t pages)
{
    /* On shared memory this only empties the mapping: the pages stay in the memfd. */
    void *at = ept->base + (page << EPT_PAGE_SHIFT);
    return madvise(at, pages << EPT_PAGE_SHIFT, MADV_DONTNEED) < 0 ? -errno : 0;
}

int ept_drop(struct ept *ept, uint64_t page, uint64_t pages)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (!ept->config.paged) /* private memory: unmapped is gone */
        return ept_unmap(ept, page, pages);
    while (fallocate(ept->memory_fd, mode, (off_t)(page << EPT_PAGE_SHIFT),
                     (off_t)(pages << EPT_PAGE_SHIFT)) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/*
 * Private pages where nothing may become executable (PR_SET_MDWE of Linux 6.3, systemd's
 * MemoryDenyWriteExecute, SELinux): taking a write protection away changes the mapping, too, and
 * there need not be one. A range that is watched (ept_watch) can have it at once; ENOENT says that
 * it is not.
 */
static int flush_unprotect(struct ept *ept, uint64_t page, uint64_t pages)
{
    struct uffdio_register range = {
        .range = {.start = host_address(ept, page), .len = pages << EPT_PAGE_SHIFT},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    int error = ept_write_protect(ept, page, pages, false);
    if (error != -ENOENT)
        return error;
    if (ioctl(ept->uffd, UFFDIO_REGISTER, &range) < 0)
        return -errno;
    error = ept_write_protect(ept, page, pages, false);
    if (ioctl(ept->uffd, UFFDIO_UNREGISTER, &range.range) < 0)
        return -errno;
    return error;
}

/*
 * The flush is the MMU notifier's, which takes a range out of the second stage and out of every TLB
 * when the host's own mapping changes. Shared pages are unmapped and come back by a fault inside
 * the host kernel; private ones, which that would lose, become executable for a moment: a change of
 * rights that no host access to them can notice.
 */
int ept_flush(struct ept *ept, uint64_t page, uint64_t pages)
{
    void *at = ept->base + (page << EPT_PAGE_SHIFT);
    size_t bytes = pages << EPT_PAGE_SHIFT;
    if (ept->config.paged)
        return ept_unmap(ept, page, pages);
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
        return errno == EACCES || errno == EPERM ? flush_unprotect(ept, page, pages) : -errno;
    return mprotect(at, bytes, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
}

/*
 * Before Linux 6.17 one mremap moves within one mapping of the host, and what looks like one range
 * is several there: what was moved once keeps the offset of where it came from. Where they meet is
 * found by halving, with moves to anywhere: one to a given place unmaps that place before it fails,
 * and another thread's mmap could land there, in the guest's memory. From anywhere the piece, now
 * one mapping, takes its place in one step.
 */
static int piece_move(void *from, void *to, size_t bytes)
{
    void *aside = mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    if (aside == MAP_FAILED)
        return -errno;
    if (mremap(aside, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED)
        return 0;
    int error = -errno;
    int flags = MAP_FIXED | MAP_NORESERVE | MAP_PRIVATE | MAP_ANONYMOUS;
    if (mmap(to, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        error = -ENOMEM;
    munmap(aside, bytes);
    return error == -EFAULT ? -ENOMEM : error;
}

int ept_move(struct ept *ept, uint64_t from_page, uint64_t to_page, uint64_t pages)
{
    uint64_t piece = pages;
    while (pages) {
        int error = piece_move(ept->base + (from_page << EPT_PAGE_SHIFT),
                               ept->base + (to_page << EPT_PAGE_SHIFT), piece << EPT_PAGE_SHIFT);
        if (!error) {
            from_page += piece;
            to_page += piece;
            pages -= piece;
            piece = 2 * piece < pages ? 2 * piece : pages;
        } else if (error == -EFAULT && piece > 1) {
            piece /= 2;
        } else {
            return error;
        }
    }
    return 0;
}

/*
 * What has a huge page keeps it when the advice is taken back, and what takes its place one day
 * gets small pages: a stack of which one page is used, say.
 */
void ept_populate(struct ept *ept, uint64_t page, uint64_t pages)
{
    void *at = ept->base + (page << EPT_PAGE_SHIFT);
    size_t bytes = pages << EPT_PAGE_SHIFT;
    if (pages >= HUGE_PAGES)
        madvise(at, bytes, MADV_HUGEPAGE);
    madvise(at, bytes, MADV_POPULATE_WRITE);
    if (pages >= HUGE_PAGES)
        madvise(at, bytes, MADV_NOHUGEPAGE);
}

int ept_bar(struct ept *ept, uint64_t page, bool on)
{
    int rights = on ? PROT_NONE : PROT_READ | PROT_WRITE;
    return mprotect(ept->base + (page << EPT_PAGE_SHIFT), EPT_PAGE_BYTES, rights) < 0 ? -errno : 0;
}

int ept_event_fd(const struct ept *ept)
{
    return ept->config.exit_mode ? -1 : ept->uffd;
}

int ept_wake(struct ept *ept, uint64_t page, uint64_t pages)
{
    struct uffdio_range range = {.start = host_address(ept, page), .len = pages << EPT_PAGE_SHIFT};
    return ioctl(ept->uffd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}
