/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What guest descriptors do, and what calls with bad arguments answer.
 */
#include "tests/unit/unit.h"
#include "tests/unit/vmm/hostio_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- descriptors ---- */

static int open_null(void)
{
    return io_install(io, open("/dev/null", O_RDWR | O_CLOEXEC), NULL, false);
}

START_TEST(descriptors_are_given_out_lowest_first)
{
    ck_assert_int_eq(open_null(), 3);
    ck_assert_int_eq(open_null(), 4);
    ck_assert_int_eq(open_null(), 5);
    ck_assert_int_eq(call(SYS_close, 3, 0, 0, 0), 0);
    ck_assert_int_eq(call(SYS_close, 4, 0, 0, 0), 0);
    ck_assert_int_eq(call(SYS_dup, 5, 0, 0, 0), 3);
    ck_assert_int_eq(open_null(), 4);
    ck_assert_int_eq(open_null(), 6);
    ck_assert_int_eq(call(SYS_close, 3, 0, 0, 0), 0);
    ck_assert_int_eq(call(SYS_close, 3, 0, 0, 0), -EBADF);
}
END_TEST

START_TEST(descriptor_limit_is_kept)
{
    io->limits[RLIMIT_NOFILE].rlim_cur = 5;
    ck_assert_int_eq(open_null(), 3);
    ck_assert_int_eq(open_null(), 4);
    ck_assert_int_eq(open_null(), -EMFILE);
    ck_assert_int_eq(call(SYS_dup2, 3, 5, 0, 0), -EBADF);
    ck_assert_int_eq(call(SYS_dup2, 3, (uint64_t)-1, 0, 0), -EBADF);
    ck_assert_int_eq(call(SYS_fcntl, 3, F_DUPFD, 5, 0), -EINVAL);
    ck_assert_int_eq(call(SYS_fcntl, 3, F_DUPFD, 4, 0), -EMFILE);
}
END_TEST

START_TEST(a_connection_waits_for_a_descriptor)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    ck_assert_int_eq(connect(peer, (struct sockaddr *)&address, bytes), 0);
    io->limits[RLIMIT_NOFILE].rlim_cur = 4;
    ck_assert_int_eq(io_install(io, listener, NULL, false), 3);
    ck_assert_int_eq(call(SYS_accept, 3, 0, 0, 0), -EMFILE);
    io->limits[RLIMIT_NOFILE].rlim_cur = 5;
    ck_assert_int_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0); /* it is still there */
    ck_assert_int_eq(call(SYS_accept, 3, 0, 0, 0), 4);
    close(peer);
}
END_TEST

START_TEST(descriptors_are_bounded_whatever_the_host_allows)
{
    struct rlimit many = {.rlim_cur = 1 << 30, .rlim_max = RLIM_INFINITY};
    struct rlimit few = {.rlim_cur = 1024, .rlim_max = 4096};

    io_descriptors_bound(&many);
    ck_assert(many.rlim_cur == 1 << 20 && many.rlim_max == 1 << 20);
    io_descriptors_bound(&few);
    ck_assert(few.rlim_cur == 1024 && few.rlim_max == 4096);
    io->limits[RLIMIT_NOFILE] = many;
    ck_assert_int_eq(open_null(), 3);
    ck_assert_int_eq(call(SYS_dup2, 3, 1 << 20, 0, 0), -EBADF);
    ck_assert_int_eq(call(SYS_dup2, 3, (1 << 20) - 1, 0, 0), (1 << 20) - 1);
}
END_TEST

START_TEST(dup_forms_follow_linux)
{
    ck_assert_int_eq(open_null(), 3);
    ck_assert_int_eq(call(SYS_dup2, 3, 3, 0, 0), 3);
    ck_assert_int_eq(call(SYS_dup2, 9, 9, 0, 0), -EBADF);
    ck_assert_int_eq(call(SYS_dup3, 3, 3, 0, 0), -EINVAL);
    ck_assert_int_eq(call(SYS_dup3, 3, 8, O_APPEND, 0), -EINVAL);
    ck_assert_int_eq(call(SYS_dup3, 3, 8, O_CLOEXEC, 0), 8);
    ck_assert_int_eq(call(SYS_fcntl, 8, F_GETFD, 0, 0), FD_CLOEXEC);
    ck_assert_int_eq(call(SYS_dup2, 3, 8, 0, 0), 8);
    ck_assert_int_eq(call(SYS_fcntl, 8, F_GETFD, 0, 0), 0);
    ck_assert_int_eq(call(SYS_fcntl, 3, F_DUPFD_CLOEXEC, 8, 0), 9);
    ck_assert_int_eq(call(SYS_fcntl, 9, F_GETFD, 0, 0), FD_CLOEXEC);
    ck_assert_int_eq(call(SYS_fcntl, 9, F_SETFD, 0, 0), 0);
    ck_assert_int_eq(call(SYS_fcntl, 9, F_GETFD, 0, 0), 0);
}
END_TEST

START_TEST(duplicates_share_the_file_position)
{
    ck_assert_int_eq(io_install(io, open("file", O_RDONLY | O_CLOEXEC), NULL, false), 3);
    ck_assert_int_eq(call(SYS_dup, 3, 0, 0, 0), 4);
    ck_assert_int_eq(call(SYS_lseek, 3, 2, SEEK_SET, 0), 2);
    ck_assert_int_eq(call(SYS_lseek, 4, 0, SEEK_CUR, 0), 2);
    ck_assert_int_eq(call(SYS_close, 3, 0, 0, 0), 0);
    ck_assert_int_eq(call(SYS_lseek, 4, 0, SEEK_CUR, 0), 2);
}
END_TEST

START_TEST(close_range_closes_or_marks)
{
    for (int i = 3; i < 10; i++)
        ck_assert_int_eq(open_null(), i);
    ck_assert_int_eq(call(SYS_close_range, 5, 7, 4 /* CLOSE_RANGE_CLOEXEC */, 0), 0);
    ck_assert_int_eq(call(SYS_fcntl, 4, F_GETFD, 0, 0), 0);
    ck_assert_int_eq(call(SYS_fcntl, 5, F_GETFD, 0, 0), FD_CLOEXEC);
    ck_assert_int_eq(call(SYS_close_range, 4, UINT32_MAX, 0, 0), 0);
    ck_assert_int_eq(call(SYS_fcntl, 3, F_GETFD, 0, 0), 0);
    for (int i = 4; i < 10; i++)
        ck_assert_int_eq(call(SYS_fcntl, (uint64_t)i, F_GETFD, 0, 0), -EBADF);
    ck_assert_int_eq(call(SYS_close_range, 7, 5, 0, 0), -EINVAL);
}
END_TEST

START_TEST(descriptor_in_use_outlives_its_close)
{
    struct io_file *file;
    int host_fd;

    ck_assert_int_eq(open_null(), 3);
    file = io_fds_get(&io->fds, 3);
    host_fd = file->fd;
    ck_assert_int_eq(call(SYS_close, 3, 0, 0, 0), 0);
    ck_assert_ptr_null(io_fds_get(&io->fds, 3));
    ck_assert_int_ge(fcntl(host_fd, F_GETFD), 0);
    io_file_put(file);
    ck_assert_int_eq(fcntl(host_fd, F_GETFD), -1);
}
END_TEST

START_TEST(closed_standard_input_stays_closed)
{
    hostio_destroy(io);
    close(0);
    hostio_keep_stdio();
    ck_assert_int_gt(open("/dev/zero", O_RDONLY | O_CLOEXEC), 0); /* the VMM's next descriptor */
    ck_assert_int_eq(hostio_create(&io, &vm), 0);
    vm.io = io;
    ck_assert_int_eq(call(SYS_fcntl, 0, F_GETFD, 0, 0), -EBADF);
    ck_assert_int_eq(call(SYS_fcntl, 1, F_GETFD, 0, 0), 0);
    ck_assert_int_eq(open_null(), 0);
}
END_TEST

START_TEST(mapping_gets_a_descriptor_of_its_own)
{
    int flags = -1, fd;

    ck_assert_int_eq(io_install(io, open("file", O_RDONLY | O_CLOEXEC), NULL, false), 3);
    fd = hostio_dup_host(io, 3, &flags);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(flags, O_RDONLY);
    ck_assert_int_eq(call(SYS_close, 3, 0, 0, 0), 0);
    ck_assert_int_ge(fcntl(fd, F_GETFD), 0);
    close(fd);
    ck_assert_int_eq(hostio_dup_host(io, 3, &flags), -EBADF);
    ck_assert_int_eq(hostio_host_fd(io, 3), -EBADF);
}
END_TEST

START_TEST(standard_streams_are_not_the_programs_to_change)
{
    ck_assert_int_eq(call(SYS_fchmod, 1, 0600, 0, 0), -EROFS);
    ck_assert_int_eq(call(SYS_fchown, 1, 1, 1, 0), -EROFS);
    ck_assert_int_eq(call(SYS_dup, 1, 0, 0, 0), 3);
    ck_assert_int_eq(call(SYS_fchmod, 3, 0600, 0, 0), -EROFS);
    ck_assert_int_eq(io_install(io, open("file", O_RDONLY | O_CLOEXEC), in_base("file"), false), 4);
    ck_assert_int_eq(call(SYS_fchmod, 4, 0600, 0, 0), 0);
}
END_TEST

/* A connection of the program's whose peer reads nothing, with as much in it as fits. */
static int full_connection(int *peer)
{
    static const char much[1 << 16];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, bytes), 0);
    *peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(*peer, 0);
    close(listener);
    while (send(fd, much, sizeof(much), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
    return fd;
}

START_TEST(the_end_waits_for_no_peer)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 50}; /* seconds: the test has 60 */
    struct timespec start, now;
    int peer, fd = full_connection(&peer);

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    ck_assert_int_eq(io_install(io, fd, NULL, false), 3);
    clock_gettime(CLOCK_MONOTONIC, &start);
    hostio_destroy(io);
    clock_gettime(CLOCK_MONOTONIC, &now);
    ck_assert_int_lt(now.tv_sec - start.tv_sec, 20);
    close(peer);
    ck_assert_int_eq(hostio_create(&io, &vm), 0);
    vm.io = io;
}
END_TEST

/* ---- answers that need no guest memory ---- */

START_TEST(calls_on_a_bad_descriptor_say_so)
{
    static const uint32_t numbers[] = {
        SYS_read,
        SYS_write,
        SYS_close,
        SYS_fstat,
        SYS_lseek,
        SYS_ioctl,
        SYS_pread64,
        SYS_pwrite64,
        SYS_readv,
        SYS_writev,
        SYS_dup,
        SYS_fcntl,
        SYS_flock,
        SYS_fsync,
        SYS_fdatasync,
        SYS_ftruncate,
        SYS_getdents,
        SYS_getdents64,
        SYS_fchdir,
        SYS_fchmod,
        SYS_fchown,
        SYS_fstatfs,
        SYS_readahead,
        SYS_fadvise64,
        SYS_fallocate,
        SYS_syncfs,
        SYS_epoll_wait,
        SYS_accept,
        SYS_listen,
        SYS_shutdown,
        SYS_sendto,
        SYS_recvfrom,
        SYS_connect,
        SYS_bind,
        SYS_getsockname,
        SYS_preadv,
        SYS_pwritev,
        SYS_tee,
        SYS_splice,
        SYS_copy_file_range,
        SYS_sendfile,
        SYS_timerfd_gettime,
        SYS_inotify_rm_watch,
        SYS_sync_file_range,
    };
    static const int bad[] = {-1, 3, 1000000, INT_MAX};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++)
            ck_assert_msg(call(numbers[i], (uint64_t)bad[k], 0, 0, 0) == -EBADF,
                          "call %u on descriptor %d", numbers[i], bad[k]);
    }
}
END_TEST

START_TEST(calls_answer_bad_arguments_as_linux)
{
    static const struct {
        uint32_t number;
        uint64_t args[4];
        int64_t result;
    } cases[] = {
        {SYS_pread64, {0, 0, 0, (uint64_t)-1}, -EINVAL},
        {SYS_pwrite64, {1, 0, 0, (uint64_t)-1}, -EINVAL},
        {SYS_pipe2, {0, ~0ull}, -EINVAL},
        {SYS_eventfd2, {0, ~0ull}, -EINVAL},
        {SYS_epoll_create, {0}, -EINVAL},
        {SYS_epoll_create1, {1}, -EINVAL},
        {SYS_socket, {10 /* AF_INET6 */, 1}, -EAFNOSUPPORT},
        {SYS_socketpair, {2 /* AF_INET */, 1}, -EAFNOSUPPORT},
        {SYS_wait4, {(uint64_t)-1}, -ECHILD},
        {SYS_waitid, {0}, -ECHILD},
        {SYS_ptrace, {0}, -EPERM},
        {SYS_mount, {0}, -EPERM},
        {SYS_bpf, {0}, -EPERM},
        {SYS_io_uring_setup, {1}, -ENOSYS},
        {SYS_execve, {0}, -ENOSYS},
        {999, {0}, -ENOSYS},
        {FV_CALL_LINUX_MAX, {0}, -ENOSYS},
        {SYS_getrlimit, {RLIM_NLIMITS}, -EINVAL},
        {SYS_clock_gettime, {(uint64_t)-1}, -EINVAL},
        {SYS_clock_gettime, {(uint64_t)(uint32_t)(~0u << 3 | 3)}, -EINVAL},
        {SYS_getrusage, {7}, -EINVAL},
        {SYS_prctl, {~0ull}, -EINVAL},
        {SYS_personality, {1}, -EINVAL},
        {SYS_personality, {UINT32_MAX}, 0},
        {SYS_mknodat, {0, 0, S_IFCHR | 0600}, -EPERM},
        {SYS_readlink, {0, 0, 0}, -EINVAL},
        {SYS_fcntl, {0, 9999}, -EINVAL},
        {SYS_ioctl, {1, 0xdeadbeef}, -ENOTTY},
        {SYS_futex, {2, 1}, -EINVAL},
        {SYS_futex, {0, 99}, -ENOSYS},
        {SYS_sched_get_priority_max, {0}, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t result = call(cases[i].number, cases[i].args[0], cases[i].args[1], cases[i].args[2],
                              cases[i].args[3]);

        ck_assert_msg(result == cases[i].result, "case %zu: call %u gave %lld", i, cases[i].number,
                      (long long)result);
    }
}
END_TEST

static int64_t signal_call(uint64_t operation, int64_t fd, uint64_t mask)
{
    struct vcpu self = {.vm = &vm};

    return hostio_signalfd(&self, (const uint64_t[6]){operation, (uint64_t)fd, mask, SFD_NONBLOCK});
}

static bool is_readable(int64_t fd)
{
    struct pollfd one = {.fd = hostio_host_fd(io, (int)fd), .events = POLLIN | POLLOUT};

    ck_assert_int_ge(poll(&one, 1, 0), 0);
    ck_assert_int_eq(one.revents & ~POLLIN, 0);
    return one.revents;
}

/* Of a mask, of its duplicates as well, and of no other; until the last of them is closed. */
START_TEST(a_signalfd_is_readable_while_its_signals_wait)
{
    int64_t one = signal_call(FV_SIGNALFD_SET, -1, 0x14),
            other = signal_call(FV_SIGNALFD_SET, -1, 8);
    int64_t copy = call(SYS_dup, (uint64_t)one, 0, 0, 0);

    ck_assert(one >= 0 && other >= 0 && copy >= 0);
    ck_assert_uint_eq(io_signals_tell(&io->signals, 1, 0x24, 4), 0x1c);
    ck_assert(is_readable(one) && is_readable(copy) && !is_readable(other));
    ck_assert_uint_eq(io_signals_tell(&io->signals, 0, 8, 8), 0x1c); /* late: no longer so */
    ck_assert(is_readable(one) && !is_readable(other));
    ck_assert_int_eq(signal_call(FV_SIGNALFD_SET, copy, 2), copy);
    ck_assert_uint_eq(io_signals_tell(&io->signals, 2, 0x24, 0), 0xa);
    ck_assert(!is_readable(one) && !is_readable(copy));
    ck_assert_int_eq(call(SYS_read, (uint64_t)one, 0, 0, 0), -FV_ESIGNALFD);
    ck_assert_int_eq(call(SYS_close, (uint64_t)one, 0, 0, 0), 0);
    ck_assert_uint_eq(io_signals_tell(&io->signals, 3, 2, 2), 0xa);
    ck_assert(is_readable(copy));
    ck_assert_int_eq(call(SYS_close, (uint64_t)copy, 0, 0, 0), 0);
    ck_assert_uint_eq(io_signals_tell(&io->signals, 4, 2, 0), 8);
    ck_assert_int_eq(signal_call(FV_SIGNALFD_SET, 0, 8), -EINVAL);
    ck_assert_int_eq(signal_call(FV_SIGNALFD_SET, 77, 8), -EBADF);
    ck_assert_int_eq(signal_call(FV_SIGNALFD_MASK, 77, 0), -ENOENT);
}
END_TEST

START_TEST(ids_can_only_be_kept)
{
    ck_assert_int_eq(call(SYS_setuid, getuid(), 0, 0, 0), 0);
    ck_assert_int_eq(call(SYS_setuid, getuid() + 1, 0, 0, 0), -EPERM);
    ck_assert_int_eq(call(SYS_setresgid, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0), 0);
    ck_assert_int_eq(call(SYS_setregid, UINT32_MAX, getgid() + 1, 0, 0), -EPERM);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostio");
    TCase *tcase = tcase_create("hostio");

    tcase_add_checked_fixture(tcase, hostio_setup, hostio_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, descriptors_are_given_out_lowest_first);
    tcase_add_test(tcase, descriptor_limit_is_kept);
    tcase_add_test(tcase, a_connection_waits_for_a_descriptor);
    tcase_add_test(tcase, descriptors_are_bounded_whatever_the_host_allows);
    tcase_add_test(tcase, dup_forms_follow_linux);
    tcase_add_test(tcase, duplicates_share_the_file_position);
    tcase_add_test(tcase, close_range_closes_or_marks);
    tcase_add_test(tcase, descriptor_in_use_outlives_its_close);
    tcase_add_test(tcase, closed_standard_input_stays_closed);
    tcase_add_test(tcase, mapping_gets_a_descriptor_of_its_own);
    tcase_add_test(tcase, standard_streams_are_not_the_programs_to_change);
    tcase_add_test(tcase, the_end_waits_for_no_peer);
    tcase_add_test(tcase, calls_on_a_bad_descriptor_say_so);
    tcase_add_test(tcase, calls_answer_bad_arguments_as_linux);
    tcase_add_test(tcase, a_signalfd_is_readable_while_its_signals_wait);
    tcase_add_test(tcase, ids_can_only_be_kept);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
