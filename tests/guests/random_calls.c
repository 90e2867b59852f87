/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random system calls with random arguments, half of them good descriptors, paths and addresses,
 * while another thread interrupts: the machine answers them all and nothing of the host changes.
 * On a real system this would do harm, so outside of a guest it only says that it passed.
 */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define CALLS        20000
#define NUMBERS      453
#define BUFFER_BYTES 65536u

/* These would end, stop or unmap the test itself, or silence its answer. */
static const long left_out[] = {
    SYS_exit,
    SYS_exit_group,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_pause,
    SYS_rt_sigsuspend,
    SYS_rt_sigreturn,
    SYS_rt_sigtimedwait,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_sigaltstack,
    SYS_alarm,
    SYS_setitimer,
    SYS_timer_settime,
    SYS_timer_create,
    SYS_munmap,
    SYS_mmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_brk,
    SYS_arch_prctl,
    SYS_clone,
    SYS_clone3,
    SYS_set_tid_address,
    SYS_set_robust_list,
    SYS_close_range,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_setrlimit,
    SYS_prlimit64,
};

static uint64_t state;
static char *buffer;
static atomic_bool done;

static uint64_t random_next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t random_path(void)
{
    static const char *const paths[] = {
        "file",        "dir",
        "missing",     "/",
        "..",          "/proc/self/fd/3",
        "link",        "/dev/null",
        "fifo",        "/proc/self/maps",
        "/etc/passwd", "dir/x",
        "/dev/fd/0",   "/proc",
        "/tmp/y",      "/usr/bin/env",
    };
    char *at = buffer + random_next() % (BUFFER_BYTES - 64);

    strcpy(at, paths[random_next() % (sizeof(paths) / sizeof(paths[0]))]);
    return (uint64_t)at;
}

static uint64_t random_argument(void)
{
    switch (random_next() % 12) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return (uint64_t)AT_FDCWD;
    case 3:
        return random_next();
    case 4:
        return 1ull << (random_next() % 64);
    case 5:
        return random_path();
    case 6: /* close before memory that is not there */
        return (uint64_t)buffer + BUFFER_BYTES - random_next() % 16;
    case 7:
        return (uint64_t)buffer + random_next() % BUFFER_BYTES;
    case 8:
        return 3 + random_next() % 20;
    case 9:
        return random_next() % 4096;
    default:
        return random_next() % 8;
    }
}

static bool is_left_out(long number, const uint64_t args[6])
{
    for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++) {
        if (left_out[i] == number)
            return true;
    }
    /* Standard streams stay as they are. */
    if (number == SYS_dup2 || number == SYS_dup3)
        return (uint32_t)args[1] < 3;
    return (uint32_t)args[0] < 3;
}

static void on_signal(int signal)
{
    (void)signal;
}

static void *interrupter(void *target)
{
    while (!atomic_load(&done)) {
        usleep(3000);
        pthread_kill(*(pthread_t *)target, SIGUSR1);
    }
    return NULL;
}

static void prepare(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    int pair[2];

    buffer =
        mmap(NULL, BUFFER_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(buffer != MAP_FAILED);
    EXPECT(mprotect(buffer + BUFFER_BYTES, 4096, PROT_NONE) == 0);
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    EXPECT(syscall(SYS_mkdirat, AT_FDCWD, "dir", 0755) == 0);
    EXPECT(open("file", O_RDWR | O_CREAT, 0644) == 3);
    EXPECT(open("dir", O_RDONLY) == 4);
    EXPECT(pipe(pair) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    EXPECT(open("/dev/zero", O_RDWR) >= 0 && open("/proc/self/status", O_RDONLY) >= 0);
}

static bool in_a_guest(void)
{
    char start[16] = "";
    int fd = open("/proc/mounts", O_RDONLY);

    EXPECT(fd >= 0 && read(fd, start, sizeof(start) - 1) > 0);
    close(fd);
    return !strncmp(start, "farvisor ", 9);
}

int main(int argc, char **argv)
{
    char top[] = "random_calls-XXXXXX";
    pthread_t self = pthread_self(), thread;

    if (!in_a_guest())
        return guest_passed("random_calls");
    state = (argc > 1 ? strtoull(argv[1], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
    EXPECT(mkdtemp(top) && chdir(top) == 0);
    prepare();
    EXPECT(pthread_create(&thread, NULL, interrupter, &self) == 0);
    for (unsigned i = 0; i < CALLS; i++) {
        long number = (long)(random_next() % NUMBERS);
        uint64_t args[6];

        for (unsigned k = 0; k < 6; k++)
            args[k] = random_argument();
        if (!is_left_out(number, args))
            syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
    }
    atomic_store(&done, true);
    return guest_passed("random_calls");
}
