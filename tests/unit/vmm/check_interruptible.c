/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interruptible system call: a kick ends it whenever it comes, before, during or between the
 * look at `kicked` and the call. The storm would hang (and be ended by Check's time limit) if one
 * kick in 20,000 were lost in the gap. And what vcpu_syscall makes of a kick that came before: the
 * call is made all the same, and ended where it would wait.
 */
#include "tests/unit/unit.h"
#include "vmm/machine.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/socket.h>
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
                     TURNED_AWAY);
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
        if (result != -EINTR && result != TURNED_AWAY)
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

/* A vCPU of this thread that a kick came for. */
static struct vcpu *kicked_vcpu(void)
{
    static struct kvm_run run;
    static struct vcpu vcpu = {.run = &run};
    atomic_store(&vcpu.tid, (pid_t)syscall(SYS_gettid));
    atomic_store(&vcpu.kicked, 1);
    ck_assert_int_eq(kick_timer_create(&vcpu), 0);
    ck_assert_int_eq(vcpu_signals_init(), 0);
    vcpu_stand_in(&vcpu);
    return &vcpu;
}

START_TEST(kicked_before_a_call_that_need_not_wait_does_not_matter)
{
    struct vcpu *vcpu = kicked_vcpu();
    char text[8] = "12";
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_write, fds[1], (long)text, 2, 0, 0, 0), 2);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_read, fds[0], (long)text, 8, 0, 0, 0), 2);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_close, -1, 0, 0, 0, 0, 0), -EBADF);
}
END_TEST

START_TEST(kicked_before_a_call_that_waits_ends_it_with_what_it_has)
{
    struct vcpu *vcpu = kicked_vcpu();
    char text[8] = "12";
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_read, fds[0], (long)text, 8, 0, 0, 0), -EINTR);
    ck_assert_int_eq(write(fds[1], text, 2), 2);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_recvfrom, fds[0], (long)text, 8, MSG_WAITALL, 0, 0), 2);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_poll, 0, 0, -1, 0, 0, 0), -EINTR);
}
END_TEST

/* To the thread of the vCPU, soon; *argument: the vCPU. */
static void *signal_late(void *argument)
{
    struct vcpu *vcpu = argument;
    usleep(50000);
    syscall(SYS_tgkill, getpid(), atomic_load(&vcpu->tid), MACHINE_SIGNAL_KICK);
    return NULL;
}

/* Looked at already when its signal comes; that ends the call all the same. */
START_TEST(a_kick_whose_signal_is_late_is_one_again)
{
    struct vcpu *vcpu = kicked_vcpu();
    char text[8] = "12";
    int fds[2];
    pthread_t thread;
    atomic_store(&vcpu->kicked, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    ck_assert_int_eq(write(fds[1], text, 2), 2);
    ck_assert_int_eq(pthread_create(&thread, NULL, signal_late, vcpu), 0);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_recvfrom, fds[0], (long)text, 8, MSG_WAITALL, 0, 0), 2);
    ck_assert_int_eq(atomic_load(&vcpu->kicked), 1);
    ck_assert_int_eq(vcpu->run->immediate_exit, 1);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

START_TEST(kicked_before_a_call_that_waits_ends_it_without_a_timer)
{
    struct vcpu *vcpu = kicked_vcpu();
    kick_timer_delete(vcpu);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_poll, 0, 0, -1, 0, 0, 0), -EINTR);
}
END_TEST

static void *owner(void *argument)
{
    uint32_t *word = argument;
    ck_assert_int_eq(syscall(SYS_futex, word, FUTEX_LOCK_PI, 0, NULL, NULL, 0), 0);
    pause();
    return NULL;
}

/* The kernel begins it anew after each signal, without a word to us. */
START_TEST(kicked_before_a_lock_that_is_held_does_not_hang)
{
    static uint32_t word;
    struct vcpu *vcpu = kicked_vcpu();
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, owner, &word), 0);
    while (!__atomic_load_n(&word, __ATOMIC_SEQ_CST))
        ;
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_futex, (long)&word, FUTEX_LOCK_PI, 0, 0, 0, 0), -EINTR);
    word = 0;
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_futex, (long)&word, FUTEX_LOCK_PI, 0, 0, 0, 0), 0);
}
END_TEST

/* Nothing is made for a call that the host could refuse. */
START_TEST(kicked_before_a_call_needs_nothing_that_is_counted)
{
    struct vcpu *vcpu = kicked_vcpu();
    const struct rlimit none = {0, 0};
    char text[8] = "12";
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_SIGPENDING, &none), 0);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_write, fds[1], (long)text, 2, 0, 0, 0), 2);
    ck_assert_int_eq(vcpu_syscall(vcpu, SYS_poll, 0, 0, -1, 0, 0, 0), -EINTR);
    kick_timer_delete(vcpu);
    ck_assert_int_eq(kick_timer_create(vcpu), -EAGAIN);
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
    tcase_add_test(tests, kicked_before_a_call_that_need_not_wait_does_not_matter);
    tcase_add_test(tests, kicked_before_a_call_that_waits_ends_it_with_what_it_has);
    tcase_add_test(tests, a_kick_whose_signal_is_late_is_one_again);
    tcase_add_test(tests, kicked_before_a_call_that_waits_ends_it_without_a_timer);
    tcase_add_test(tests, kicked_before_a_lock_that_is_held_does_not_hang);
    tcase_add_test(tests, kicked_before_a_call_needs_nothing_that_is_counted);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
