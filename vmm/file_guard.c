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
#include <ucontext.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static __thread sigjmp_buf *way_out; /* of the thread that looks, else NULL */
static struct sigaction before;

/* Returns whether it was a copy. */
static bool copy_ended(void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)registers[REG_RIP];
    if (rip < (uintptr_t)guarded_copy_begin || rip >= (uintptr_t)guarded_copy_end)
        return false;
    registers[REG_RIP] = (greg_t)(uintptr_t)guarded_copy_fault;
    return true;
}

static void on_copy(int number, siginfo_t *info, void *context)
{
    static const struct sigaction fatal = {.sa_handler = SIG_DFL};
    (void)info;
    if (!copy_ended(context))
        sigaction(number, &fatal, NULL); /* the instruction is repeated, and says it again */
}

int guarded_copy_init(void)
{
    const struct sigaction action = {.sa_sigaction = on_copy, .sa_flags = SA_SIGINFO};
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)info;
    if (copy_ended(context))
        return;
    if (way_out)
        siglongjmp(*way_out, 1);
    sigaction(number, &before, NULL); /* the instruction is repeated, and says it again */
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
