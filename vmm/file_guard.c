/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading mapped files that others may cut short. Our own copies of guest memory go on behind the
 * copy (guarded.S). Of code that is not ours the SIGBUS of such a read is the end, by a jump out of
 * it. Only the thread that looks is meant: any other SIGBUS is what it was before.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static __thread sigjmp_buf *way_out; /* of the thread that looks, else NULL */
static struct sigaction before;

/* Not one that somebody sent, nor memory that failed. */
static bool is_cut(const siginfo_t *info)
{
    return info->si_code == BUS_ADRERR;
}

/* A fault is met again when the instruction is repeated; what was sent has to be sent again. */
static void as_before(int number, const siginfo_t *info, const struct sigaction *action)
{
    sigaction(number, action, NULL);
    if (info->si_code <= 0)
        syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), number);
}

/* Returns whether it was a copy. */
static bool copy_ended(const siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)registers[REG_RIP];
    if (!is_cut(info) || rip < (uintptr_t)guarded_copy_begin || rip >= (uintptr_t)guarded_copy_end)
        return false;
    registers[REG_RIP] = (greg_t)(uintptr_t)guarded_copy_fault;
    return true;
}

static void on_copy(int number, siginfo_t *info, void *context)
{
    static const struct sigaction fatal = {.sa_handler = SIG_DFL};
    if (!copy_ended(info, context))
        as_before(number, info, &fatal);
}

int guarded_copy_init(void)
{
    const struct sigaction action = {.sa_sigaction = on_copy, .sa_flags = SA_SIGINFO};
    sigset_t bus;
    if (sigaction(SIGBUS, &action, NULL) < 0)
        return -errno;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    return -pthread_sigmask(SIG_UNBLOCK, &bus, NULL); /* whoever started us may have blocked it */
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    if (copy_ended(info, context))
        return;
    if (way_out && is_cut(info))
        siglongjmp(*way_out, 1);
    as_before(number, info, &before);
}

/* Did it come to its end? */
static bool looked(void (*look)(void *argument), void *argument)
{
    sigjmp_buf here;
    if (sigsetjmp(here, 1) != 0)
        return false;
    way_out = &here;
    look(argument);
    return true;
}

int file_guard(void (*look)(void *argument), void *argument)
{
    const struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    int error = 0;
    pthread_mutex_lock(&one_at_a_time);
    if (sigaction(SIGBUS, &action, &before) < 0) {
        error = -errno;
    } else {
        if (!looked(look, argument))
            error = -EFAULT;
        way_out = NULL;
        sigaction(SIGBUS, &before, NULL);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return error;
}
