/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings are replaced (mmap and mremap with MAP_FIXED) while other threads use them: those see
 * the old or the new one and never none, whether an instruction or a system call touches it.
 */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define PAGE  ((size_t)4096)
#define PAGES ((size_t)12)
#define BYTES (PAGES * PAGE)

static char *range;
static int bytes_fd; /* BYTES of 'f' */
static atomic_bool stop;
static atomic_ulong touches, calls;

static int temporary(char byte)
{
    char path[] = "replaced-XXXXXX", page[PAGE];
    int fd = mkstemp(path);

    EXPECT(fd >= 0 && unlink(path) == 0);
    memset(page, byte, PAGE);
    for (size_t i = 0; byte && i < PAGES; i++)
        EXPECT(write(fd, page, PAGE) == (ssize_t)PAGE);
    return fd;
}

/* What was and what comes are full of letters: a zero is neither. */
static void *touch_main(void *unused)
{
    (void)unused;
    for (size_t i = 0; !atomic_load(&stop); i = (i + 5) % PAGES) {
        char seen = *(volatile char *)(range + i * PAGE + 100);

        EXPECT(seen == 'f' || seen == 'm' || seen == 's');
        atomic_fetch_add(&touches, 1);
    }
    return NULL;
}

static void *write_main(void *unused)
{
    int out = temporary(0);
    char back[BYTES];

    (void)unused;
    while (!atomic_load(&stop)) {
        struct iovec spans[2] = {{range, BYTES / 2}, {range + BYTES / 2, BYTES / 2}};

        EXPECT(pwrite(out, range, BYTES, 0) == (ssize_t)BYTES);
        EXPECT(pwritev(out, spans, 2, 0) == (ssize_t)BYTES);
        EXPECT(pread(out, back, BYTES, 0) == (ssize_t)BYTES);
        for (size_t i = 0; i < PAGES; i++)
            EXPECT(back[i * PAGE] == 'f' || back[i * PAGE] == 'm' || back[i * PAGE] == 's');
        atomic_fetch_add(&calls, 1);
    }
    return NULL;
}

/* Into the range: its bytes stay letters. */
static void *read_main(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        struct iovec spans[2] = {{range, BYTES / 2}, {range + BYTES / 2, BYTES / 2}};

        EXPECT(pread(bytes_fd, range, BYTES, 0) == (ssize_t)BYTES);
        EXPECT(preadv(bytes_fd, spans, 2, 0) == (ssize_t)BYTES);
        EXPECT(pread(bytes_fd, range + PAGE - 8, 16, 0) == 16);
        atomic_fetch_add(&calls, 1);
    }
    return NULL;
}

/* Small answers, which are copied; the range may be unmapped. */
static void *ask_main(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        for (size_t i = 0; i < PAGES; i++) {
            int result = fstat(bytes_fd, (struct stat *)(range + i * PAGE));

            EXPECT(result == 0 || errno == EFAULT);
        }
        atomic_fetch_add(&calls, 1);
    }
    return NULL;
}

static void map_over(int fd, int flags)
{
    EXPECT(mmap(range, BYTES, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0) == range);
}

static void move_over(void)
{
    char *from = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    EXPECT(from != MAP_FAILED);
    memset(from, 'm', BYTES);
    EXPECT(mremap(from, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, range) == range);
}

static void replace_beside(void *(*user)(void *), double seconds)
{
    int shared = temporary('s');
    double end_s = guest_now_s() + seconds;
    pthread_t threads[3];

    atomic_store(&stop, false);
    for (int i = 0; i < 3; i++)
        EXPECT(pthread_create(&threads[i], NULL, i == 0 ? touch_main : user, NULL) == 0);
    do {
        map_over(bytes_fd, MAP_PRIVATE);
        move_over();
        map_over(shared, MAP_SHARED);
        map_over(bytes_fd, MAP_PRIVATE);
        map_over(shared, MAP_SHARED);
        move_over();
    } while (guest_now_s() < end_s);
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    close(shared);
}

/* Nothing is mapped there for a while. */
static void unmap_beside(double seconds)
{
    double end_s = guest_now_s() + seconds;
    pthread_t threads[3];

    atomic_store(&stop, false);
    for (int i = 0; i < 3; i++)
        EXPECT(pthread_create(&threads[i], NULL, ask_main, NULL) == 0);
    do {
        EXPECT(munmap(range, BYTES) == 0);
        EXPECT(mmap(range, BYTES, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE | MAP_PRIVATE,
                    bytes_fd, 0) == range);
        EXPECT(munmap(range, BYTES) == 0);
        EXPECT(mmap(range, BYTES, PROT_READ | PROT_WRITE,
                    MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == range);
    } while (guest_now_s() < end_s);
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1;

    bytes_fd = temporary('f');
    range = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, bytes_fd, 0);
    EXPECT(range != MAP_FAILED);
    unmap_beside(
        seconds); /* before a shared file is mapped: with one, answers are copied otherwise */
    range = mmap(range, BYTES, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE, bytes_fd, 0);
    EXPECT(range != MAP_FAILED);
    replace_beside(touch_main, seconds);
    EXPECT(touches > 0);
    replace_beside(write_main, seconds);
    replace_beside(read_main, seconds);
    EXPECT(calls > 0);
    return guest_passed("replaced");
}
