/* SPDX-License-Identifier: Apache-2.0 */
/* A signal ends a blocked call with EINTR, or restarts it under SA_RESTART; none is lost. */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>

#define TURN_US 20000

static atomic_int handled, over;
static pthread_t blocked;
static int pipe_fds[2];

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

/* As many signals as *argument says, handled one by one, and then what ends the wait. */
static void *interrupt(void *argument)
{
    int until = atomic_load(&handled) + *(const int *)argument;
    while (atomic_load(&handled) < until) {
        int before = atomic_load(&handled);
        usleep(TURN_US);
        EXPECT(pthread_kill(blocked, SIGUSR1) == 0);
        while (atomic_load(&handled) == before)
            usleep(TURN_US);
    }
    usleep(TURN_US);
    EXPECT(write(pipe_fds[1], "x", 1) == 1);
    return argument;
}

/* Again and again: the first may come before the call that it is to end. */
static void *interrupt_until_over(void *argument)
{
    while (!atomic_load(&over)) {
        usleep(TURN_US);
        EXPECT(pthread_kill(blocked, SIGUSR1) == 0);
    }
    return argument;
}

/* The next call is to be interrupted. */
static pthread_t call_begins(void)
{
    pthread_t thread;
    atomic_store(&over, 0);
    EXPECT(pthread_create(&thread, NULL, interrupt_until_over, NULL) == 0);
    return thread;
}

static void call_over(pthread_t thread)
{
    atomic_store(&over, 1);
    EXPECT(pthread_join(thread, NULL) == 0);
}

/* A socket's own time limit makes it one of the calls that are never restarted. */
static void limited_receive(void)
{
    const struct sigaction restart = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    const struct timeval limit = {20, 0};
    int ends[2];
    char byte;
    pthread_t thread;

    EXPECT(sigaction(SIGUSR1, &restart, NULL) == 0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    EXPECT(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    thread = call_begins();
    EXPECT(recv(ends[0], &byte, 1, 0) == -1 && errno == EINTR);
    call_over(thread);
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
}

static atomic_int stop;

static void *pester(void *argument)
{
    while (!atomic_load(&stop)) {
        int before = atomic_load(&handled);
        EXPECT(pthread_kill(blocked, SIGUSR1) == 0);
        while (atomic_load(&handled) == before && !atomic_load(&stop))
            __builtin_ia32_pause();
    }
    return argument;
}

#define COPIED 64

/* Between descriptors of files and of what does not wait, and locks that are free. */
static void move_and_lock(int from, int to, const int ends[2])
{
    struct flock record = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    loff_t in = 0, out = 0;
    off_t at = 0;
    char text[COPIED];

    EXPECT(flock(to, LOCK_EX) == 0 && flock(to, LOCK_UN) == 0);
    EXPECT(fcntl(to, F_SETLKW, &record) == 0 && fcntl(from, F_OFD_SETLKW, &record) == 0);
    EXPECT(copy_file_range(from, &in, to, &out, COPIED, 0) == COPIED);
    EXPECT(in == COPIED && out == COPIED && lseek(to, 0, SEEK_SET) == 0);
    EXPECT(sendfile(to, from, &at, COPIED) == COPIED && at == COPIED);
    EXPECT(sendfile(ends[1], from, &(off_t){0}, COPIED) == COPIED);
    EXPECT(read(ends[0], text, COPIED) == COPIED);
    EXPECT(splice(from, &(loff_t){0}, ends[1], NULL, COPIED, 0) == COPIED);
    EXPECT(splice(ends[0], NULL, to, &(loff_t){0}, COPIED, 0) == COPIED);
    EXPECT(splice(ends[0], NULL, to, &(loff_t){0}, COPIED, SPLICE_F_NONBLOCK) == -1);
    EXPECT(errno == EAGAIN);
}

static void files_and_locks(void)
{
    const char *names[2] = {"signal_interrupts.from", "signal_interrupts.to"};
    const char text[COPIED] = "moved";
    int fds[2], ends[2];
    pthread_t thread;

    EXPECT(pipe2(ends, O_NONBLOCK) == 0);
    for (int i = 0; i < 2; i++) {
        fds[i] = open(names[i], O_RDWR | O_CREAT | O_TRUNC, 0600);
        EXPECT(fds[i] >= 0);
    }
    EXPECT(write(fds[0], text, COPIED) == COPIED);
    atomic_store(&stop, 0);
    EXPECT(pthread_create(&thread, NULL, pester, NULL) == 0);
    for (int i = 0; i < 100; i++)
        move_and_lock(fds[0], fds[1], ends);
    atomic_store(&stop, 1);
    EXPECT(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(close(ends[i]) == 0 && close(fds[i]) == 0 && unlink(names[i]) == 0);
}

/* Calls that wait for nobody know no EINTR, whenever the signal comes. */
static void never_interrupted(void)
{
    const struct sockaddr_un address = {AF_UNIX, "signal_interrupts.socket"};
    const char *name = "signal_interrupts.tmp";
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    uint64_t random;
    pthread_t thread;
    int fd;

    EXPECT(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
    EXPECT(listen(listener, 400) == 0);
    EXPECT(pthread_create(&thread, NULL, pester, NULL) == 0);
    for (int i = 0; i < 300; i++) {
        fd = open(name, O_RDWR | O_CREAT, 0600);
        EXPECT(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
        fd = open(".", O_RDONLY | O_DIRECTORY);
        EXPECT(fd >= 0 && close(fd) == 0);
        EXPECT(getrandom(&random, sizeof(random), 0) == sizeof(random));
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        EXPECT(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
        EXPECT(close(fd) == 0);
    }
    atomic_store(&stop, 1);
    EXPECT(pthread_join(thread, NULL) == 0 && unlink(name) == 0);
    EXPECT(close(listener) == 0 && unlink(address.sun_path) == 0);
}

int main(void)
{
    char byte;
    int rounds = 3;
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    blocked = pthread_self();
    EXPECT(pipe(pipe_fds) == 0);
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, interrupt, &rounds) == 0);
    EXPECT(read(pipe_fds[0], &byte, 1) == 1 && byte == 'x');
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(atomic_load(&handled) == 3);

    action.sa_flags = 0;
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    thread = call_begins();
    EXPECT(read(pipe_fds[0], &byte, 1) == -1 && errno == EINTR);
    EXPECT(atomic_load(&handled) >= 4);
    call_over(thread);

    struct timespec wanted = {.tv_sec = 10};
    struct timespec left;
    thread = call_begins();
    EXPECT(nanosleep(&wanted, &left) == -1 && errno == EINTR); /* never restarted */
    EXPECT(left.tv_sec >= 0 && left.tv_sec < 10);
    call_over(thread);
    EXPECT(atomic_load(&handled) >= 5);

    sigset_t none;
    sigemptyset(&none);
    thread = call_begins();
    EXPECT(sigsuspend(&none) == -1 && errno == EINTR);
    call_over(thread);
    EXPECT(atomic_load(&handled) >= 6);
    limited_receive();
    const struct sigaction plain = {.sa_handler = on_signal};
    EXPECT(sigaction(SIGUSR1, &plain, NULL) == 0);
    never_interrupted();
    files_and_locks();
    return guest_passed("signal_interrupts");
}
