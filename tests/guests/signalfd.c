/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd: what a read tells, and when poll, select and epoll find it readable. With an argument
 * it waits for SIGTERM from outside and ends with 40 + its number.
 */
#include "signalfd.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>

/* What poll says within ms. */
static int ready(int fd, int ms)
{
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI};
    int count = poll(&one, 1, ms);
    EXPECT(count == (one.revents != 0));
    return one.revents;
}

static info_t taken(int fd)
{
    info_t info;
    memset(&info, 0xa5, sizeof(info));
    EXPECT(read(fd, &info, sizeof(info)) == sizeof(info));
    return info;
}

static void expect_nothing(int fd)
{
    info_t info;
    EXPECT(ready(fd, 0) == 0);
    EXPECT(read(fd, &info, sizeof(info)) == -1 && errno == EAGAIN);
}

static void arguments(void)
{
    sigset_t set = set_of(SIGUSR1, SIGUSR2);
    info_t info[2];
    struct stat status;
    struct epoll_event event = {.events = EPOLLIN};
    int fd = made(SIGUSR1, SIGUSR2, SFD_NONBLOCK | SFD_CLOEXEC), plain = made(SIGUSR1, SIGKILL, 0);
    EXPECT(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(plain, F_GETFD) == 0);
    EXPECT(fcntl(fd, F_GETFL) == (O_RDWR | O_NONBLOCK) && fcntl(plain, F_GETFL) == O_RDWR);
    EXPECT(syscall(SYS_signalfd4, -1, &set, 4, 0) == -1 && errno == EINVAL);
    EXPECT(syscall(SYS_signalfd4, -1, &set, 8, 1) == -1 && errno == EINVAL);
    EXPECT(syscall(SYS_signalfd4, -1, 8, 8, 0) == -1 && errno == EFAULT);
    EXPECT(syscall(SYS_signalfd4, 99, &set, 8, 0) == -1 && errno == EBADF);
    EXPECT(syscall(SYS_signalfd4, -2, &set, 8, 0) == -1 && errno == EBADF);
    EXPECT(syscall(SYS_signalfd4, 0, &set, 8, 0) == -1 && errno == EINVAL);
    EXPECT(read(fd, info, sizeof(info[0]) - 1) == -1 && errno == EINVAL);
    EXPECT(read(fd, info, 0) == -1 && errno == EINVAL);
    EXPECT(read(fd, info, sizeof(info)) == -1 && errno == EAGAIN);
    EXPECT(write(fd, info, sizeof(info)) == -1 && errno == EINVAL);
    EXPECT(pread(fd, info, sizeof(info), 0) == -1 && errno == ESPIPE);
    EXPECT(epoll_ctl(fd, EPOLL_CTL_ADD, plain, &event) == -1 && errno == EINVAL);
    EXPECT(epoll_wait(fd, &event, 1, 0) == -1 && errno == EINVAL);
    int bytes = 1;
    EXPECT(ioctl(fd, FIONREAD, &bytes) == -1 && errno == ENOTTY);
    EXPECT(ioctl(plain, FIONBIO, &bytes) == 0 && fcntl(plain, F_GETFL) == (O_RDWR | O_NONBLOCK));
    EXPECT(fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0);
    EXPECT(close(fd) == 0 && close(plain) == 0);
    EXPECT(read(fd, info, sizeof(info)) == -1 && errno == EBADF);
    fd = (int)syscall(SYS_signalfd, -1, &set, 8);
    EXPECT(fd >= 0 && fcntl(fd, F_GETFL) == O_RDWR && close(fd) == 0);
}

static void expect_zero(const info_t *info)
{
    EXPECT(info->ssi_errno == 0 && info->ssi_fd == 0 && info->ssi_band == 0 &&
           info->ssi_trapno == 0);
    EXPECT(info->ssi_status == 0 && info->ssi_utime == 0 && info->ssi_stime == 0 &&
           info->ssi_addr == 0);
    for (size_t i = offsetof(info_t, ssi_addr_lsb); i < sizeof(*info); i++)
        EXPECT(((const char *)info)[i] == 0);
}

static void expect_sent(const info_t *info, int signal, int code, uint64_t value)
{
    expect_zero(info);
    EXPECT(info->ssi_signo == (uint32_t)signal && info->ssi_code == code);
    EXPECT(info->ssi_pid == (uint32_t)getpid() && info->ssi_uid == getuid());
    EXPECT(info->ssi_ptr == value && info->ssi_int == (int32_t)value);
    EXPECT(info->ssi_tid == 0 && info->ssi_overrun == 0);
}

static void fields(void)
{
    int fd = made(SIGUSR1, SIGRTMIN, SFD_NONBLOCK);
    info_t info[4];
    EXPECT(kill(getpid(), SIGUSR1) == 0);
    EXPECT(kill(getpid(), SIGUSR1) == 0); /* the same one */
    info[0] = taken(fd);
    expect_sent(&info[0], SIGUSR1, SI_USER, 0);
    expect_nothing(fd);
    EXPECT(raise(SIGUSR1) == 0);
    info[0] = taken(fd);
    expect_sent(&info[0], SIGUSR1, SI_TKILL, 0);
    for (int i = 1; i <= 3; i++)
        EXPECT(sigqueue(getpid(), SIGRTMIN,
                        (union sigval){.sival_ptr = (void *)(0x123456789aULL * (unsigned)i)}) == 0);
    EXPECT(read(fd, info, sizeof(info) - 1) == 3 * sizeof(info[0]));
    for (unsigned i = 1; i <= 3; i++)
        expect_sent(&info[i - 1], SIGRTMIN, SI_QUEUE, 0x123456789aULL * i);
    expect_nothing(fd);
    EXPECT(kill(getpid(), SIGRTMIN) == 0 && kill(getpid(), SIGUSR1) == 0 &&
           kill(getpid(), SIGUSR2) == 0);
    struct iovec pieces[3] = {
        {&info[0], sizeof(info[0])}, {&info[1], sizeof(info[0])}, {&info[2], sizeof(info[0])}};
    EXPECT(readv(fd, pieces, 3) == 2 * sizeof(info[0]));
    expect_sent(&info[0], SIGUSR1, SI_USER, 0);
    expect_sent(&info[1], SIGRTMIN, SI_USER, 0);
    EXPECT(raise(SIGUSR1) == 0);
    EXPECT(preadv2(fd, pieces, 3, -1, 0) == sizeof(info[0]));
    expect_sent(&info[0], SIGUSR1, SI_TKILL, 0);
    EXPECT(kill(getpid(), SIGUSR1) == 0);
    EXPECT(syscall(SYS_read, fd, 8, sizeof(info)) == -1 && errno == EFAULT);
    close(fd);
    fd = made(SIGUSR2, SIGUSR2, SFD_NONBLOCK); /* one that waited before */
    EXPECT(ready(fd, 0) == POLLIN);
    info[0] = taken(fd);
    expect_sent(&info[0], SIGUSR2, SI_USER, 0);
    close(fd);
}

static void timers(void)
{
    int fd = made(SIGRTMIN + 2, SIGALRM, 0);
    timer_t id;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2};
    struct itimerspec soon = {.it_value.tv_nsec = 20000000};
    struct itimerval alarm_soon = {.it_value.tv_usec = 20000};
    event.sigev_value.sival_ptr = (void *)0x7000000012345678;
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &id) == 0);
    EXPECT(timer_settime(id, 0, &soon, NULL) == 0);
    EXPECT(ready(fd, 30000) == POLLIN);
    info_t info = taken(fd);
    expect_zero(&info);
    EXPECT(info.ssi_signo == (uint32_t)SIGRTMIN + 2 && info.ssi_code == SI_TIMER &&
           info.ssi_pid == 0);
    EXPECT(info.ssi_ptr == 0x7000000012345678 && info.ssi_int == 0x12345678 && info.ssi_uid == 0);
    EXPECT(timer_settime(id, 0, &soon, NULL) == 0);
    EXPECT(taken(fd).ssi_tid == info.ssi_tid); /* which waits */
    EXPECT(timer_delete(id) == 0);
    EXPECT(setitimer(ITIMER_REAL, &alarm_soon, NULL) == 0);
    info = taken(fd);
    expect_zero(&info);
    EXPECT(info.ssi_signo == SIGALRM && info.ssi_code == SI_KERNEL && info.ssi_pid == 0);
    close(fd);
}

static bool selects(int fd)
{
    fd_set in, out;
    struct timeval none = {0};
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    int count = select(fd + 1, &in, &out, NULL, &none);
    EXPECT(count == (FD_ISSET(fd, &in) != 0) && !FD_ISSET(fd, &out));
    return count == 1;
}

static bool told(int set)
{
    struct epoll_event event;
    int count = epoll_wait(set, &event, 1, 0);
    EXPECT(count == 0 || (count == 1 && event.events == EPOLLIN && event.data.u32 == 7));
    return count == 1;
}

static int set_with(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u32 = 7};
    int set = epoll_create1(0);
    EXPECT(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    return set;
}

static void polling(void)
{
    int fd = made(SIGUSR1, SIGRTMIN, SFD_NONBLOCK), other = made(SIGUSR2, SIGUSR2, SFD_NONBLOCK);
    int level = set_with(fd, EPOLLIN | EPOLLOUT), edge = set_with(fd, EPOLLIN | EPOLLOUT | EPOLLET);
    EXPECT(ready(fd, 0) == 0 && !selects(fd) && !told(level) && !told(edge));
    EXPECT(kill(getpid(), SIGRTMIN) == 0);
    EXPECT(ready(fd, 0) == POLLIN && selects(fd) && told(level) && told(level) &&
           ready(other, 0) == 0);
    EXPECT(told(edge) && !told(edge));
    EXPECT(kill(getpid(), SIGRTMIN) == 0); /* a new edge though it was readable */
    EXPECT(told(edge) && !told(edge));
    EXPECT(taken(fd).ssi_signo == (uint32_t)SIGRTMIN);
    EXPECT(ready(fd, 0) == POLLIN && told(level));
    EXPECT(taken(fd).ssi_signo == (uint32_t)SIGRTMIN);
    EXPECT(!selects(fd) && !told(level) && !told(edge));
    expect_nothing(fd);
    EXPECT(raise(SIGUSR1) == 0); /* for this thread only */
    EXPECT(ready(fd, 0) == POLLIN && selects(fd) && told(level) && told(edge));
    EXPECT(!told(edge) && told(level) && !told(edge));
    EXPECT(raise(SIGRTMIN) == 0 && told(edge) && !told(edge));
    EXPECT(taken(fd).ssi_signo == SIGUSR1 && taken(fd).ssi_signo == (uint32_t)SIGRTMIN);
    EXPECT(!told(level) && !told(edge));
    EXPECT(kill(getpid(), SIGUSR1) == 0 && told(edge));
    EXPECT(kill(getpid(), SIGUSR1) == 0 && !told(edge)); /* it waits already */
    EXPECT(taken(fd).ssi_signo == SIGUSR1 && !told(level) && !told(edge));
    /* Others take from the same queue, or forget it. */
    sigset_t set = set_of(SIGUSR1, SIGRTMIN);
    siginfo_t info;
    EXPECT(kill(getpid(), SIGUSR1) == 0 && told(level));
    EXPECT(sigwaitinfo(&set, &info) == SIGUSR1 && !told(level));
    EXPECT(kill(getpid(), SIGUSR1) == 0 && ready(fd, 0) == POLLIN);
    EXPECT(signal(SIGUSR1, SIG_IGN) == SIG_DFL && signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    expect_nothing(fd);
    close(level), close(edge), close(other), close(fd);
}

static void duplicates(void)
{
    int fd = made(SIGUSR1, SIGUSR1, SFD_NONBLOCK), copy = dup(fd), level = set_with(copy, EPOLLIN);
    sigset_t set = set_of(SIGUSR2, SIGUSR2);
    EXPECT(kill(getpid(), SIGUSR1) == 0 && ready(fd, 0) == POLLIN && ready(copy, 0) == POLLIN);
    EXPECT(signalfd(copy, &set, 0) == copy); /* of both */
    EXPECT(ready(fd, 0) == 0 && !told(level));
    expect_nothing(copy);
    EXPECT(kill(getpid(), SIGUSR2) == 0 && ready(fd, 0) == POLLIN);
    EXPECT(close(fd) == 0 && told(level));
    EXPECT(taken(copy).ssi_signo == SIGUSR2);
    EXPECT(!told(level));
    set = set_of(SIGUSR1, SIGUSR1);
    EXPECT(signalfd(copy, &set, 0) == copy && told(level));
    EXPECT(taken(copy).ssi_signo == SIGUSR1);
    EXPECT(fcntl(copy, F_SETFL, 0) == 0 && fcntl(copy, F_SETFL, O_NONBLOCK) == 0);
    expect_nothing(copy);
    close(copy), close(level);
}

/* A thread that does one thing with fd, and how far it is. */
struct helper {
    pthread_t thread;
    int fd;
    atomic_int tid;
    uint32_t got;
    int error;
};

static void announce(struct helper *helper)
{
    atomic_store(&helper->tid, (int)syscall(SYS_gettid));
}

static void *reads(void *argument)
{
    struct helper *helper = argument;
    info_t info = {0};
    announce(helper);
    helper->error = read(helper->fd, &info, sizeof(info)) == sizeof(info) ? 0 : errno;
    helper->got = info.ssi_signo;
    return NULL;
}

static void *waits_by_epoll(void *argument)
{
    struct helper *helper = argument;
    struct epoll_event event;
    announce(helper);
    EXPECT(epoll_wait(helper->fd, &event, 1, 60000) == 1);
    helper->got = event.events;
    return NULL;
}

static void *waits_by_poll(void *argument)
{
    struct helper *helper = argument;
    announce(helper);
    helper->got = (uint32_t)ready(helper->fd, 60000);
    return reads(argument);
}

/* Started, and most likely asleep in its call. */
static void start(struct helper *helper, int fd, void *(*run)(void *))
{
    *helper = (struct helper){.fd = fd};
    EXPECT(pthread_create(&helper->thread, NULL, run, helper) == 0);
    while (!atomic_load(&helper->tid))
        sched_yield();
    usleep(20000);
}

static int joined(struct helper *helper)
{
    EXPECT(pthread_join(helper->thread, NULL) == 0);
    EXPECT(helper->error == 0);
    return (int)helper->got;
}

static void wakes(void)
{
    struct helper one, two;
    int fd = made(SIGUSR1, SIGRTMIN, 0), edge = set_with(fd, EPOLLIN | EPOLLET);
    sigset_t set = set_of(SIGUSR2, SIGUSR2);
    start(&one, fd, reads);
    start(&two, fd, reads); /* two readers, a signal each */
    EXPECT(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGRTMIN) == 0);
    EXPECT(joined(&one) + joined(&two) == SIGUSR1 + SIGRTMIN);
    EXPECT(!told(edge));
    start(&one, fd, reads);
    EXPECT(pthread_kill(one.thread, SIGUSR1) == 0 && joined(&one) == SIGUSR1);
    start(&one, fd, waits_by_poll);
    EXPECT(pthread_kill(one.thread, SIGRTMIN) == 0 && joined(&one) == SIGRTMIN);
    (void)told(edge); /* a wake-up that came too late to find something */
    start(&one, edge, waits_by_epoll);
    EXPECT(kill(getpid(), SIGUSR1) == 0 && joined(&one) == EPOLLIN &&
           taken(fd).ssi_signo == SIGUSR1);
    (void)told(edge);
    start(&one, edge, waits_by_epoll);
    EXPECT(pthread_kill(one.thread, SIGUSR1) == 0 &&
           joined(&one) == EPOLLIN); /* it went with the thread */
    start(&one, fd, reads);          /* the mask changes under it */
    EXPECT(signalfd(fd, &set, 0) == fd && kill(getpid(), SIGUSR2) == 0 && joined(&one) == SIGUSR2);
    start(&one, fd, reads); /* it is closed under it */
    EXPECT(close(fd) == 0 && kill(getpid(), SIGUSR2) == 0 && joined(&one) == SIGUSR2);
    close(edge);
}

/* The descriptor is made, and put into the set, while a thread waits on that. */
static void made_late(void)
{
    struct helper one;
    struct epoll_event event = {.events = EPOLLIN};
    int set = epoll_create1(0);
    start(&one, set, waits_by_epoll);
    int fd = made(SIGUSR1, SIGUSR2, 0);
    EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    EXPECT(pthread_kill(one.thread, SIGUSR1) == 0 && joined(&one) == EPOLLIN);
    close(set), close(fd);
}

static atomic_int sleeper_goes;

static void *sleeper(void *argument)
{
    struct helper *helper = argument;
    announce(helper);
    while (!atomic_load(&sleeper_goes))
        usleep(1000);
    EXPECT(ready(helper->fd, 0) == POLLIN);
    return reads(argument);
}

static void for_one_thread(void)
{
    struct helper one;
    int fd = made(SIGUSR1, SIGRTMIN, SFD_NONBLOCK);
    start(&one, fd, sleeper);
    EXPECT(pthread_kill(one.thread, SIGUSR1) == 0);
    expect_nothing(fd);
    atomic_store(&sleeper_goes, 1);
    EXPECT(joined(&one) == SIGUSR1);
    expect_nothing(fd);
    close(fd);
}

static atomic_int handled;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *reads_open(void *argument)
{
    sigset_t set = set_of(SIGUSR2, SIGUSR2);
    EXPECT(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    return reads(argument);
}

static void handlers(void)
{
    struct helper one;
    int fd = made(SIGUSR1, SIGUSR1, 0);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    EXPECT(sigaction(SIGUSR2, &action, NULL) == 0);
    start(&one, fd, reads_open);
    EXPECT(pthread_kill(one.thread, SIGUSR2) == 0);
    while (!atomic_load(&handled))
        usleep(1000);
    EXPECT(kill(getpid(), SIGUSR1) == 0 && joined(&one) == SIGUSR1);
    action.sa_flags = 0;
    EXPECT(sigaction(SIGUSR2, &action, NULL) == 0);
    start(&one, fd, reads_open);
    EXPECT(pthread_kill(one.thread, SIGUSR2) == 0 && pthread_join(one.thread, NULL) == 0);
    EXPECT(one.error == EINTR && atomic_load(&handled) == 2);
    close(fd);
}

/*
 * Two threads read and two raise, some for a thread. Every value arrives once.
 */
#define RAISED 2000
#define STOP   (2 * RAISED)
#define STORM  (SIGRTMIN + 3)

static struct helper readers[2];
static atomic_uchar arrived[2 * RAISED];

static void raise_value(const pthread_t *to, int value)
{
    union sigval word = {.sival_int = value};
    while (to ? (errno = pthread_sigqueue(*to, STORM, word)) != 0
              : sigqueue(getpid(), STORM, word) != 0) {
        EXPECT(errno == EAGAIN); /* as many wait as may */
        usleep(100);
    }
}

static void *storm_reads(void *argument)
{
    struct helper *helper = argument;
    info_t info[5];
    bool polls = fcntl(helper->fd, F_GETFL) & O_NONBLOCK, stopped = false;
    announce(helper);
    while (!stopped) {
        if (polls)
            EXPECT(ready(helper->fd, 60000) == POLLIN);
        ssize_t bytes = read(helper->fd, info, sizeof(info));
        EXPECT(bytes > 0 || (polls && errno == EAGAIN)); /* the other one was faster */
        for (ssize_t i = 0; i < bytes / (ssize_t)sizeof(info[0]); i++) {
            int value = info[i].ssi_int;
            EXPECT(info[i].ssi_signo == (uint32_t)STORM && value >= 0 && value <= STOP);
            if (value < STOP)
                EXPECT(atomic_fetch_add(&arrived[value], 1) == 0);
            else if (stopped)
                raise_value(NULL, STOP); /* the other one's */
            else
                stopped = true;
        }
    }
    return NULL;
}

static void *storm_raises(void *argument)
{
    int first = *(const int *)argument;
    for (int i = 0; i < RAISED; i++)
        raise_value(i % 4 == 3 ? &readers[i / 4 % 2].thread : NULL, first + i);
    return NULL;
}

static void storm(void)
{
    pthread_t raisers[2];
    int first[2] = {0, RAISED};
    int fds[2] = {made(STORM, STORM, 0), made(STORM, STORM, SFD_NONBLOCK)};
    for (unsigned i = 0; i < 2; i++)
        start(&readers[i], fds[i], storm_reads);
    for (unsigned i = 0; i < 2; i++)
        EXPECT(pthread_create(&raisers[i], NULL, storm_raises, &first[i]) == 0);
    for (unsigned i = 0; i < 2; i++)
        EXPECT(pthread_join(raisers[i], NULL) == 0);
    raise_value(NULL, STOP);
    raise_value(NULL, STOP);
    for (unsigned i = 0; i < 2; i++)
        (void)joined(&readers[i]);
    for (unsigned i = 0; i < 2 * RAISED; i++)
        EXPECT(arrived[i] == 1);
    EXPECT(ready(fds[0], 0) == 0 && close(fds[0]) == 0);
    expect_nothing(fds[1]);
    close(fds[1]);
}

static int outside(void)
{
    int fd = made(SIGTERM, SIGTERM, 0), edge = set_with(fd, EPOLLIN | EPOLLET);
    struct epoll_event event;
    puts("ready");
    fflush(stdout);
    EXPECT(epoll_wait(edge, &event, 1, -1) == 1);
    info_t info = taken(fd);
    EXPECT(info.ssi_code == SI_USER && info.ssi_pid != 0);
    return 40 + (int)info.ssi_signo;
}

int main(int argc, char **argv)
{
    sigset_t all;
    (void)argv;
    sigfillset(&all);
    EXPECT(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
    if (argc > 1)
        return outside();
    arguments();
    fields();
    timers();
    polling();
    duplicates();
    wakes();
    made_late();
    for_one_thread();
    handlers();
    storm();
    return guest_passed("signalfd");
}
