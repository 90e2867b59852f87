/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interruptible system call: a kick ends it whenever it comes, before, during or between the
 * look at `kicked` and the call. The storm would hang (and be ended by Check's time limit) if one
 * kick in 20,000 were lost in the gap.
 */
#include "tests/unit/unit.h"
#include "vmm/machine.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 20000

static atomic_int kicked;
static atomic_uint rounds;

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    interruptible_redirect(context);
}

static void handler_install(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    ck_assert_int_eq(sigaction(MACHINE_SIGNAL_KICK, &action, NULL), 0);
}

START_TEST(result_and_errno_come_through)
{
    atomic_store(&kicked, 0);
    ck_assert_int_eq(interruptible_syscall(&kicked, SYS_getpid, 0, 0, 0, 0, 0, 0), getpid());
    ck_assert_int_eq(interruptible_syscall(&kicked, SYS_close, -1, 0, 0, 0, 0, 0), -EBADF);
}
END_TEST

START_TEST(all_six_arguments_arrive)
{
    char page[1] = {7};
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    atomic_store(&kicked, 0);
    struct iovec {
        void *base;
        size_t bytes;
    } vector = {page, 1};
    /* vmsplice has four, mmap six: an anonymous page at no wished place. */
    ck_assert_int_eq(
        interruptible_syscall(&kicked, SYS_vmsplice, fds[1], (long)&vector, 1, 0, 0, 0), 1);
    long at = interruptible_syscall(&kicked, SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
    ck_assert(at > 0);
    ck_assert_int_eq(interruptible_syscall(&kicked, SYS_munmap, at, 4096, 0, 0, 0, 0), 0);
}
END_TEST

START_TEST(kicked_before_means_the_call_is_not_made)
{
    int fds[2];
    char byte = 1;
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(write(fds[1], &byte, 1), 1);
    atomic_store(&kicked, 1);
    ck_assert_int_eq(interruptible_syscall(&kicked, SYS_read, fds[0], (long)&byte, 1, 0, 0, 0),
                     -EINTR);
    atomic_store(&kicked, 0);
    ck_assert_int_eq(interruptible_syscall(&kicked, SYS_read, fds[0], (long)&byte, 1, 0, 0, 0), 1);
}
END_TEST

static void *sleeper(void *argument)
{
    const int *fds = argument;
    char byte;
    while (atomic_load(&rounds) < ROUNDS) {
        long result = interruptible_syscall(&kicked, SYS_read, fds[0], (long)&byte, 1, 0, 0, 0);
        if (result != -EINTR)
            return NULL;
        atomic_store(&kicked, 0);
        atomic_fetch_add(&rounds, 1);
    }
    return sleeper;
}

START_TEST(no_kick_is_lost_in_a_storm)
{
    int fds[2];
    pthread_t thread;
    void *result;
    ck_assert_int_eq(pipe(fds), 0);
    handler_install();
    ck_assert_int_eq(pthread_create(&thread, NULL, sleeper, fds), 0);
    for (unsigned sent = 0; sent < ROUNDS; sent++) {
        atomic_store(&kicked, 1);
        pthread_kill(thread, MACHINE_SIGNAL_KICK);
        while (atomic_load(&rounds) <= sent)
            ; /* one kick each time: a lost one hangs here */
    }
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_nonnull(result);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("interruptible");
    TCase *tests = tcase_create("calls");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, result_and_errno_come_through);
    tcase_add_test(tests, all_six_arguments_arrive);
    tcase_add_test(tests, kicked_before_means_the_call_is_not_made);
    tcase_add_test(tests, no_kick_is_lost_in_a_storm);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
