/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the VMM (docs/hypercalls.md), and what is built directly on them: locks that give the
 * processor away when their holder is not running, sleeping, ending, and warnings.
 */
#include "guest-os/kernel.h"

int64_t vmm_call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                 uint64_t f)
{
    struct fv_call *call = &vcpu_current()->call;
    call->number = number;
    call->pad = 0;
    call->args[0] = a;
    call->args[1] = b;
    call->args[2] = c;
    call->args[3] = d;
    call->args[4] = e;
    call->args[5] = f;
    __asm__ volatile("outb %%al, %0" ::"N"(FV_PORT_CALL) : "memory");
    return call->result;
}

int64_t vmm_call1(uint32_t number, uint64_t a)
{
    return vmm_call(number, a, 0, 0, 0, 0, 0);
}

int64_t vmm_call3(uint32_t number, uint64_t a, uint64_t b, uint64_t c)
{
    return vmm_call(number, a, b, c, 0, 0, 0);
}

int64_t vmm_sleep(int timeout_ms)
{
    return vmm_call3(LINUX_SYS_POLL, 0, 0, (uint64_t)timeout_ms) == 0 ? 0 : -LINUX_EINTR;
}

void vmm_exit_group(uint32_t code, uint32_t signal, bool core)
{
    for (;;)
        vmm_call3(FV_CALL_EXIT_GROUP, code, signal, core);
}

/* A vCPU that holds the lock runs a few hundred instructions: spin that long before giving way. */
#define LOCK_SPINS 200

void lock_take(struct lock *lock)
{
    for (unsigned spins = 0;; spins++) {
        if (atomic_load_explicit(&lock->held, memory_order_relaxed) == 0 &&
            atomic_exchange_explicit(&lock->held, 1, memory_order_acquire) == 0)
            return;
        if (spins < LOCK_SPINS)
            __asm__ volatile("pause");
        else
            vmm_call1(LINUX_SYS_SCHED_YIELD, 0);
    }
}

void lock_release(struct lock *lock)
{
    atomic_store_explicit(&lock->held, 0, memory_order_release);
}

#define LINE_MAX 200

static void say(const char *const pieces[3], bool fatal)
{
    char line[LINE_MAX];
    size_t length = 0;
    for (unsigned i = 0; i < 3; i++) {
        if (pieces[i] == NULL)
            continue;
        size_t bytes = strnlen(pieces[i], LINE_MAX - length);
        memcpy(line + length, pieces[i], bytes);
        length += bytes;
    }
    vmm_call3(FV_CALL_WARN, (uint64_t)line, length, fatal);
}

void warn(const char *a, const char *b, const char *c)
{
    say((const char *const[3]){a, b, c}, false);
}

void complain(const char *a, const char *b, const char *c)
{
    say((const char *const[3]){a, b, c}, true);
}
