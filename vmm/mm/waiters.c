/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the paging engine asks of a vCPU that is inside KVM_RUN, waiting for a page perhaps.
 */
#include "vmm/mm/internal.h"

#include "support.h"

#include <stdatomic.h>
#include <time.h>

#define LOOK_SLICE_NS 100000L

/* In use: a vCPU whose guest thread is over looks at nothing any more. */
static bool has_looked(const struct vcpu *vcpu)
{
    return !atomic_load(&vcpu->look_again) || !atomic_load(&vcpu->in_use);
}

bool mm_source_unfillable(void *owner, int tid, bool again, uint64_t wait_ns)
{
    struct mm *mm = owner;
    struct vcpu *vcpu = vcpu_by_tid(mm->vm, tid);
    const struct timespec slice = {.tv_nsec = LOOK_SLICE_NS};
    uint64_t until_ns = clock_now_ns() + wait_ns;
    if (!vcpu)
        return true;
    if (!again) {
        atomic_store(&vcpu->look_again, true);
        vcpu_kick(vcpu);
    }
    while (!has_looked(vcpu) && clock_now_ns() < until_ns)
        nanosleep(&slice, NULL);
    return has_looked(vcpu);
}

void mm_source_expel(void *owner, int tid)
{
    struct mm *mm = owner;
    struct vcpu *vcpu = vcpu_by_tid(mm->vm, tid);
    if (vcpu)
        vcpu_kick(vcpu);
}
