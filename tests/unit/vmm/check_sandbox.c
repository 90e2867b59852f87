/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host kernel lets the VMM do once its sandbox is closed. Each test closes it in a child
 * of its own, since there is no way back.
 */
#include "tests/unit/unit.h"
#include "tests/unit/vmm/hostio_fixture.h"

#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `body` in a child behind the sandbox; the child's wait status. */
static int behind_sandbox(int (*body)(void))
{
    int status;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (!child)
        _exit(sandbox_files(&vm) || sandbox_calls(&vm) ? 99 : body());
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

static bool opens(const char *name, int flags)
{
    int fd = open(name, flags | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int open_granted(void)
{
    return !(opens("file", O_RDONLY) && opens("file", O_RDWR) && opens("made", O_RDWR | O_CREAT) &&
             opens("../ro/file", O_RDONLY) && opens("/usr/bin/env", O_RDONLY));
}

static int open_outside(void)
{
    return opens("../secret", O_RDONLY) || opens("../ro/file", O_RDWR) ||
           opens("../ro/made", O_RDWR | O_CREAT) || opens("../made", O_RDWR | O_CREAT) ||
           opens("/usr/made-by-a-test", O_RDWR | O_CREAT) ||
           opens("/var/lib/dpkg/status", O_RDONLY);
}

static int run_another_program(void)
{
    execl("/bin/true", "true", (char *)NULL);
    return 0;
}

static int load_a_filter_program(void)
{
    return syscall(SYS_bpf, 0, 0, 0) == 0;
}

/* Neither expected nor an intruder's: an error, not the end. */
static int ask_something_odd(void)
{
    return !(syscall(SYS_lookup_dcookie, 0, 0, 0) == -1 && errno == EPERM);
}

static void *thread_body(void *result)
{
    *(int *)result = open_outside();
    return NULL;
}

static int start_a_thread(void)
{
    pthread_t thread;
    int result = 1;

    if (pthread_create(&thread, NULL, thread_body, &result) || pthread_join(thread, NULL))
        return 2;
    return result;
}

/* A process of its own, or a thread with namespaces of its own. */
static int make_a_process(void)
{
    static const unsigned long flags[] = {SIGCHLD, CLONE_NEWUSER | SIGCHLD, CLONE_NEWNET | SIGCHLD};

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        long child = syscall(SYS_clone, flags[i], 0, 0, 0, 0);

        if (!child)
            _exit(0);
        if (child != -1 || errno != EPERM)
            return 1;
    }
    return !(syscall(SYS_clone3, 0, 0) == -1 && errno == ENOSYS);
}

static int make_a_device(void)
{
    return mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0;
}

static bool makes_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int open_local_sockets_only(void)
{
    return !makes_socket(AF_UNIX) || makes_socket(AF_INET) || makes_socket(AF_INET6) ||
           makes_socket(AF_PACKET);
}

static int open_internet_sockets_too(void)
{
    return !makes_socket(AF_UNIX) || !makes_socket(AF_INET) || !makes_socket(AF_INET6) ||
           makes_socket(AF_PACKET) || socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP) >= 0;
}

/* 0, or why not; a port beyond the grants is EACCES where the host has Landlock's rules for ports.
 */
static int bind_port(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = bind(fd, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;

    close(fd);
    return result;
}

#define PUBLISHED 47913

static int bind_beyond_the_grants(void)
{
    return bind_port(PUBLISHED) == EACCES || bind_port(PUBLISHED + 1) != EACCES;
}

static int clean_up(void)
{
    char disk[PATH_MAX], memory[PATH_MAX];

    snprintf(disk, sizeof(disk), "%s", io->mounts.disk.path);
    snprintf(memory, sizeof(memory), "%s", io->mounts.memory.path);
    hostio_destroy(io);
    return !access(disk, F_OK) || !access(memory, F_OK);
}

START_TEST(granted_files_open)
{
    ck_assert_int_eq(behind_sandbox(open_granted), 0);
}
END_TEST

START_TEST(other_files_do_not_open)
{
    ck_assert_int_eq(behind_sandbox(open_outside), 0);
}
END_TEST

START_TEST(running_a_program_ends_the_process)
{
    int status = behind_sandbox(run_another_program);

    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(WTERMSIG(status), SIGSYS);
    status = behind_sandbox(load_a_filter_program);
    ck_assert(WIFSIGNALED(status));
}
END_TEST

START_TEST(unexpected_call_is_refused)
{
    ck_assert_int_eq(behind_sandbox(ask_something_odd), 0);
}
END_TEST

START_TEST(later_threads_are_bounded_too)
{
    ck_assert_int_eq(behind_sandbox(start_a_thread), 0);
}
END_TEST

#ifndef __SANITIZE_ADDRESS__ /* its leak check makes one */
START_TEST(there_are_threads_but_no_processes)
{
    ck_assert_int_eq(behind_sandbox(make_a_process), 0);
}
END_TEST
#endif

START_TEST(devices_cannot_be_made)
{
    ck_assert_int_eq(behind_sandbox(make_a_device), 0);
}
END_TEST

START_TEST(there_are_no_internet_sockets_without_network)
{
    ck_assert_int_eq(behind_sandbox(open_local_sockets_only), 0);
}
END_TEST

START_TEST(with_network_only_published_ports_can_be_bound)
{
    struct net_rule rule = {.family = AF_UNSPEC, .port = PUBLISHED};
    struct run_config config = *vm.config;

    config.net = true;
    config.publish = &rule;
    config.publish_count = 1;
    vm.config = &config;
    ck_assert_int_eq(behind_sandbox(open_internet_sockets_too), 0);
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 4)
        ck_assert_int_eq(behind_sandbox(bind_beyond_the_grants), 0);
}
END_TEST

START_TEST(scratch_can_be_removed)
{
    ck_assert_int_eq(behind_sandbox(clean_up), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sandbox");
    TCase *tcase = tcase_create("sandbox");

    if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1)
        unit_skip("this host has no Landlock");
    tcase_add_checked_fixture(tcase, hostio_setup, hostio_teardown);
    tcase_add_test(tcase, granted_files_open);
    tcase_add_test(tcase, other_files_do_not_open);
    tcase_add_test(tcase, running_a_program_ends_the_process);
    tcase_add_test(tcase, unexpected_call_is_refused);
    tcase_add_test(tcase, later_threads_are_bounded_too);
#ifndef __SANITIZE_ADDRESS__
    tcase_add_test(tcase, there_are_threads_but_no_processes);
#endif
    tcase_add_test(tcase, devices_cannot_be_made);
    tcase_add_test(tcase, there_are_no_internet_sockets_without_network);
    tcase_add_test(tcase, with_network_only_published_ports_can_be_bound);
    tcase_add_test(tcase, scratch_can_be_removed);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
