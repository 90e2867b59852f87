/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the paging engine asks of a vCPU that is inside KVM_RUN, waiting for a page perhaps.
 */
#include "vmm/mm_internal.h"

#include <stdatomic.h>
#include <time.h>

#define LOOK_SLICE_NS 100000L
#define SIGNAL_SLICES 200   /* 20 ms: a signal that can get it out has done so */
#define BARRED_SLICES 20000 /* 2 s: it may have to wait for a processor */

/* Whether the vCPU has left KVM_RUN and looks for itself, now or within some slices. */
static bool has_looked(struct vcpu *vcpu, int slices)
{
    const struct timespec slice = {.tv_nsec = LOOK_SLICE_NS};
    while (atomic_load(&vcpu->look_again) && slices-- > 0)
        nanosleep(&slice, NULL);
    return !atomic_load(&vcpu->look_again);
}

/*
 * uffd mode: the vCPU waits for a page without contents. From Linux 6.2 on a signal gets it out of
 * that wait; before, only one that kills does. Then the page is barred for a moment and the waiter
 * woken: KVM finds that it cannot be reached, and KVM_RUN fails with EFAULT, as in exit mode.
 * Another vCPU that touches the page meanwhile fails alike and finds what this one finds. One that
 * fills pages around it finds the host's mapping in parts: ept_install knows.
 */
void mm_source_unfillable(void *owner, uint64_t page, int tid)
{
    struct mm *mm = owner;
    struct vcpu *vcpu = vcpu_by_tid(mm->vm, tid);
    if (!vcpu)
        return;
    atomic_store(&vcpu->look_again, true);
    vcpu_kick(vcpu);
    if (has_looked(vcpu, SIGNAL_SLICES) || ept_bar(mm->vm->ept, page, true))
        return;
    ept_wake(mm->vm->ept, page, 1);
    has_looked(vcpu, BARRED_SLICES);
    ept_bar(mm->vm->ept, page, false);
}

void mm_source_expel(void *owner, int tid)
{
    struct mm *mm = owner;
    struct vcpu *vcpu = vcpu_by_tid(mm->vm, tid);
    if (vcpu)
        vcpu_kick(vcpu);
}
