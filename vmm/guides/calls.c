/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FV_CALL_GUIDE: what a program or guide asks of the VMM by a system call, because it needs the
 * answer now (farvisor/hints.h). Runs on the calling vCPU's thread.
 */
#include "vmm/guides/hints.h"

#include "support.h"
#include "vmm/machine.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#define RESIDENCY_BATCH 256u
#define WAIT_MAX_NS     1000000000ULL /* then the caller is asked to look again */

static int64_t guide_open(struct vcpu *vcpu)
{
    int error = hints_open(vcpu->vm->hints, vcpu);
    return error ? error : (int64_t)(FV_HINT_BASE + (gpa_t)vcpu->index * FV_HINT_STRIDE);
}

/* Sleeps on the status word itself; guides/reads.c wakes it. */
static int64_t guide_wait(struct vcpu *vcpu, uint64_t slot, uint64_t timeout_ns)
{
    struct hint_ring *ring = atomic_load(&vcpu->vm->hints->rings[vcpu->index]);
    if (!ring || slot >= FV_READS)
        return -EINVAL;
    uint32_t *status = &ring->shared->reads[slot].status;
    uint32_t seen = FV_READ_PENDING;
    if (timeout_ns > WAIT_MAX_NS)
        timeout_ns = WAIT_MAX_NS;
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    if (!__atomic_compare_exchange_n(status, &seen, FV_READ_WAITED, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST) &&
        seen != FV_READ_WAITED)
        return 0;
    long result = vcpu_syscall(vcpu, SYS_futex, (long)(uintptr_t)status, FUTEX_WAIT_PRIVATE,
                               FV_READ_WAITED, (long)(uintptr_t)&timeout, 0, 0);
    return result == -EAGAIN ? 0 : result;
}

static int64_t guide_residency(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes, gpa_t to)
{
    struct vm *vm = vcpu->vm;
    uint8_t state[RESIDENCY_BATCH];
    gpa_t end;
    if (bytes == 0 || __builtin_add_overflow(gpa, bytes, &end) || end > ept_span(vm->ept))
        return -EINVAL;
    if (!mm_allows(vm->mm, gpa, bytes, EPT_NONE))
        return -ENOMEM;
    uint64_t page = gpa >> EPT_PAGE_SHIFT;
    uint64_t left = ((end - 1) >> EPT_PAGE_SHIFT) - page + 1;
    int error = 0;
    while (left > 0 && !error) {
        if (atomic_load(&vm->ending)) /* a large reservation takes its time */
            return -EINTR;
        uint64_t now = left < RESIDENCY_BATCH ? left : RESIDENCY_BATCH;
        error = fault_residency(vm->engine, page, now, state);
        if (!error)
            error = guestmem_write(vm, to, state, now);
        page += now;
        to += now;
        left -= now;
    }
    return error;
}

void guide_name_read(struct vm *vm, char name[GUIDE_NAME_BYTES], gpa_t from, uint64_t bytes)
{
    size_t room = bytes < GUIDE_NAME_BYTES ? (size_t)bytes : GUIDE_NAME_BYTES - 1;
    if (guestmem_read(vm, name, from, room))
        room = 0;
    name[room] = '\0';
    for (size_t i = 0; i < room && name[i]; i++)
        if (name[i] < ' ' || name[i] > '~')
            name[i] = '?';
}

void guide_warn_off(struct hints *hints, uint64_t why, const char *name)
{
    static const char *const reasons[] = {
        [FV_OFF_CRASH] = "it crashed",
        [FV_OFF_STALL] = "it did not come back",
        [FV_OFF_SLOW] = "it took more of the program's time than --guide-time allows",
    };
    if (atomic_fetch_add(&hints->warned, 1) == 0)
        message_warning("guide %s: switched off: %s; the program goes on without it", name,
                        reasons[why]);
}

static int64_t guide_off(struct vcpu *vcpu, uint64_t why, gpa_t from, uint64_t bytes)
{
    char name[GUIDE_NAME_BYTES];
    if (why < FV_OFF_CRASH || why > FV_OFF_SLOW)
        return -EINVAL;
    guide_name_read(vcpu->vm, name, from, bytes);
    guide_warn_off(vcpu->vm->hints, why, name);
    return 0;
}

/* What the allocator says is only ever about the guest's own pages: fault_live_map checks the rest.
 */
static int64_t guide_heap(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes, gpa_t map)
{
    struct vm *vm = vcpu->vm;
    if (vm->config->whole_pages)
        return -EOPNOTSUPP;
    if (vm->config->local_bytes == vm->config->memory_bytes) /* nothing travels */
        return 0;
    return fault_live_map(vm->engine, gpa, bytes, map);
}

int64_t guide_call(struct vcpu *vcpu, const uint64_t args[6])
{
    switch (args[0]) {
    case FV_GUIDE_OPEN:
        return guide_open(vcpu);
    case FV_GUIDE_WAIT:
        return guide_wait(vcpu, args[1], args[2]);
    case FV_GUIDE_PIN:
        return guide_pin(vcpu, args[1], args[2]);
    case FV_GUIDE_UNPIN:
        return guide_unpin(vcpu, args[1], args[2]);
    case FV_GUIDE_RESIDENCY:
        return guide_residency(vcpu, args[1], args[2], args[3]);
    case FV_GUIDE_OFF:
        return guide_off(vcpu, args[1], args[2], args[3]);
    case FV_GUIDE_HEAP:
        return guide_heap(vcpu, args[1], args[2], args[3]);
    case FV_GUIDE_WATCH:
        return guide_watch(vcpu, args[1], args[2], args[3], args[4]);
    case FV_GUIDE_UNWATCH:
        return guide_unwatch(vcpu, args[1], args[2]);
    case FV_GUIDE_FAULT_END:
        return guide_fault_end(vcpu, args[1]);
    case FV_GUIDE_COPY:
        return guide_copy(vcpu, args[1], args[2], args[3]);
    default:
        return -EINVAL;
    }
}
