/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the VMM (docs/hypercalls.md), and what is built directly on them: locks that give the
 * processor away when their holder is not running, sleeping, ending, and warnings.
 */
#include "guest-os/kernel.h"

/* Fills fields one by one: a structure assignment would become a call of memcpy. */
static inline void call_fill(struct fv_call *call, uint32_t number, const uint64_t args[6])
{
    call->number = number;
    call->pad = 0;
    for (unsigned i = 0; i < 6; i++)
        call->args[i] = args[i];
}

/* The cheapest exit ever is what an exit costs: any other also did or waited for something. */
static int64_t call_by_exit(uint32_t number, const uint64_t args[6])
{
    struct fv_call *call = &vcpu_current()->call;
    call_fill(call, number, args);
    uint64_t start = ticks_now();
    __asm__ volatile("outb %%al, %0" ::"N"(FV_PORT_CALL) : "memory");
    uint64_t ticks = ticks_now() - start;
    uint32_t best = FV_SHARED->exit_ticks;
    if (ticks < best || (best == 0 && ticks <= UINT32_MAX))
        FV_SHARED->exit_ticks = (uint32_t)ticks;
    return call->result;
}

/* A request under way is waited for as long as that many exits cost: copying takes its time. */
#define TAKEN_EXITS 16

/*
 * Waits for what is posted no longer than an exit would have cost: that at most doubles the price
 * where nobody answers. Returns whether *result is there.
 */
static bool post_wait(struct fv_post *post, int64_t *result)
{
    uint64_t start = ticks_now(), patience = FV_SHARED->exit_ticks;
    for (;;) {
        uint32_t state = __atomic_load_n(&post->state, __ATOMIC_ACQUIRE);
        if (state == FV_POST_DONE) {
            *result = post->call.result;
            return true;
        }
        uint64_t waited = ticks_now() - start;
        if (state == FV_POST_BACK || (state == FV_POST_TAKEN && waited > patience * TAKEN_EXITS)) {
            *result = call_by_exit(FV_CALL_FINISH, (const uint64_t[6]){0});
            return true;
        }
        if (state == FV_POST_POSTED && waited > patience &&
            __atomic_compare_exchange_n(&post->state, &state, FV_POST_IDLE, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return false;
        __asm__ volatile("pause");
    }
}

/* Without an exit, if the VMM's poller looks and answers. Returns whether it did. */
static bool call_by_post(uint32_t number, const uint64_t args[6], int64_t *result)
{
    struct fv_vcpu *vcpu = vcpu_current();
    struct fv_post *post = &vcpu->post;
    volatile uint64_t *word = &FV_SHARED->posted[vcpu->index / 64 % (FV_VCPU_MAX / 64)];
    call_fill(&post->call, number, args);
    __atomic_store_n(&post->state, FV_POST_POSTED, __ATOMIC_RELEASE);
    __atomic_fetch_or(word, 1ULL << (vcpu->index % 64), __ATOMIC_RELEASE);
    return post_wait(post, result);
}

int64_t vmm_call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                 uint64_t f)
{
    const uint64_t args[6] = {a, b, c, d, e, f};
    int64_t result;
    /* What is kept to be sent has to go first, which may take longer than the poller has. */
    if (FV_SHARED->poller_awake != 0 && fv_call_postable(number) != 0 && !sends_wait() &&
        call_by_post(number, args, &result))
        return result;
    return call_by_exit(number, args);
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
