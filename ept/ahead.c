/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Second-stage mappings made before the touch. An installed page is in the host's mapping of guest
 * memory but not in the second stage: the first touch leaves the guest, KVM looks the page up, maps
 * it and goes back, without a word to us. KVM_PRE_FAULT_MEMORY does the looking up and mapping for
 * a range, so that only the way out and back is saved. Linux 6.11 has it where the processor walks
 * the second stage (EPT, NPT), not under shadow paging. Runs in the vCPU's thread between two
 * KVM_RUN, because KVM holds the vCPU's lock during both.
 *
 * What may happen to a page of the range meanwhile, and what comes of it:
 *
 *   missing by now (dropped, discarded)  userfaultfd answers KVM's look-up with SIGBUS, as a touch:
 *                                        nothing is filled, the call ends with EFAULT there. Only
 *                                        in exit mode: in uffd mode it would wait for a handler
 *   being dropped                        the MMU notifier's sequence: KVM sees that the page moved
 *                                        and looks again
 *   protected for its eviction           mapped read-only, as a read would: KVM asks for the page
 *                                        to read it, and maps it writable only if the host's own
 *                                        entry is
 *   protected and written a moment later the store faults, as it would have
 *
 * Nothing here says that a page was touched or written to: D and A are bits of the guest's table
 * (tables.c), which the processor sets when the guest's own access walks it; KVM does not walk it
 * here. KVM's dirty log is not in use.
 */
#include "ept/ept_internal.h"
#include "support.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#ifndef KVM_CAP_PRE_FAULT_MEMORY /* Linux 6.11 */
#define KVM_CAP_PRE_FAULT_MEMORY 236
#define KVM_PRE_FAULT_MEMORY     _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
struct kvm_pre_fault_memory {
    __u64 gpa;
    __u64 size;
    __u64 flags;
    __u64 padding[5];
};
#endif

void ept_ahead_create(struct ept *ept)
{
    bool can = ept->config.map_ahead && ept->config.exit_mode &&
               ioctl(ept->config.vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY) > 0;
    atomic_store(&ept->maps_ahead, can);
}

bool ept_maps_ahead(const struct ept *ept)
{
    return atomic_load_explicit(&ept->maps_ahead, memory_order_relaxed);
}

uint64_t ept_map_ahead(struct ept *ept, int vcpu_fd, uint64_t page, uint64_t pages)
{
    struct kvm_pre_fault_memory range = {
        .gpa = page << EPT_PAGE_SHIFT,
        .size = pages << EPT_PAGE_SHIFT,
    };
    /* KVM moves both on to what is left, also where it ends early: EFAULT (the page has left),
     * EINTR (a kick, which the next KVM_RUN sees as well), EAGAIN. */
    if (ioctl(vcpu_fd, KVM_PRE_FAULT_MEMORY, &range) < 0 &&
        (errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL))
        atomic_store(&ept->maps_ahead, false); /* the capability promised too much */
    uint64_t left = range.size >> EPT_PAGE_SHIFT;
    return left < pages ? pages - left : 0;
}
