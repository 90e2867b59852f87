/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM's only way to the program's memory. A host system call that meets a missing page fails
 * with EFAULT, and a stray touch would make a zero page behind the engine's back: so every page is
 * first made resident and pinned. The pinned kernel region is the guest kernel's own: always there.
 */
#include "vmm/io/hostio_internal.h"
#include "vmm/mm/internal.h"

#include "fault/fault.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/*
 * Pages of the kernel region that were never mapped have no memory yet: a touch would make some, up
 * to all of the region, at the bidding of any pointer.
 */
static bool kernel_allows(const struct vm *vm, gpa_t gpa, size_t bytes, unsigned need)
{
    for (gpa_t at = gpa & ~(gpa_t)(EPT_PAGE_BYTES - 1); at < gpa + bytes; at += EPT_PAGE_BYTES)
        if ((ept_table_access(vm->ept, at) & need) != need)
            return false;
    return true;
}

/* Kernel image, device tree, shared page and vCPU areas; not the VMM's tables. */
static bool in_kernel_region(gpa_t gpa, size_t bytes)
{
    gpa_t end;
    if (__builtin_add_overflow(gpa, bytes, &end))
        return false;
    return (gpa >= FV_KERNEL_BASE && end <= FV_SYSTEM_BASE) ||
           (gpa >= FV_VCPU_BASE && end <= FV_TABLES_BASE);
}

static uint64_t page_count(gpa_t gpa, size_t bytes)
{
    return ((gpa + bytes - 1) >> EPT_PAGE_SHIFT) - (gpa >> EPT_PAGE_SHIFT) + 1;
}

/* The poller waits for nothing; what it would have to wait for is the vCPU's own thread's. */
static struct vcpu *not_to_wait(void)
{
    struct vcpu *self = vcpu_self();
    return self && self->at_once && !self->committed ? self : NULL;
}

static int error_of(int error)
{
    return error == -ETIMEDOUT || error == -ECONNRESET ? -EIO : error == -EBUSY ? -ENOMEM : error;
}

int64_t guestmem_admit(struct vm *vm, uint64_t pages)
{
    struct vcpu *poller = not_to_wait();
    if (!pages)
        return 0;
    int64_t got = fault_admit(mm_context(vm->mm), pages, !poller);
    if (got == -EAGAIN) {
        poller->handed_back = true;
        return -EINTR;
    }
    return got < 0 ? error_of((int)got) : got;
}

void guestmem_dismiss(struct vm *vm, uint64_t pages)
{
    if (pages)
        fault_dismiss(vm->engine, pages);
}

int guestmem_pin(struct vm *vm, gpa_t gpa, size_t bytes, bool writable, void **hva)
{
    bool kernel = in_kernel_region(gpa, bytes);
    unsigned need = writable ? EPT_WRITE : EPT_READ;
    *hva = NULL;
    if (!bytes)
        return 0;
    /* Only an address that was checked has a host address: the arithmetic goes anywhere. */
    if (kernel ? !kernel_allows(vm, gpa, bytes, need) : !mm_allows(vm->mm, gpa, bytes, need))
        return -EFAULT;
    *hva = ept_hva(vm->ept, gpa);
    if (kernel)
        return 0;
    uint64_t page = gpa >> EPT_PAGE_SHIFT, pages = page_count(gpa, bytes);
    struct vcpu *poller = not_to_wait();
    int error = poller ? fault_pin_resident(poller->fault, page, pages, writable)
                       : fault_pin(mm_context(vm->mm), page, pages, writable);
    if (poller && error == -EAGAIN) {
        poller->handed_back = true;
        return -EINTR;
    }
    return error_of(error);
}

/*
 * A mapping that another thread replaces has to be waited for, but not with pages in hand: the
 * other one may wait for that.
 */
int guestmem_use(struct vm *vm, gpa_t gpa, uint64_t bytes, bool writable, bool held, void **hva)
{
    struct vcpu *self = vcpu_self();
    unsigned need = writable ? EPT_WRITE : EPT_READ;
    bool again = true;
    int error = -EFAULT;

    if (!self || in_kernel_region(gpa, bytes))
        return guestmem_pin(vm, gpa, bytes, writable, hva);
    while (error == -EFAULT && again) {
        mm_use_begin(self, gpa, gpa + bytes);
        self->holds_pins = true;
        error = guestmem_pin(vm, gpa, bytes, writable, hva);
        self->holds_pins = false;
        if (error && !held)
            mm_use_end(self);
        /* Mapped again: it was in between. */
        again = error == -EFAULT && !held && !atomic_load(&vm->ending) &&
                mm_allows(vm->mm, gpa, bytes, need);
    }
    return error == -EFAULT && self->at_once && self->handed_back ? -EINTR : error;
}

void guestmem_unpin(struct vm *vm, gpa_t gpa, size_t bytes)
{
    if (bytes && !in_kernel_region(gpa, bytes))
        fault_unpin(vm->engine, gpa >> EPT_PAGE_SHIFT, page_count(gpa, bytes));
}

/* Bytes from gpa to the end of its page, at most `left`. */
static size_t piece(gpa_t gpa, size_t left)
{
    size_t here = EPT_PAGE_BYTES - (gpa & (EPT_PAGE_BYTES - 1));
    return here < left ? here : left;
}

/* Of the copy itself (guarded.S) a sanitizer sees nothing. */
static void see(const void *ours, size_t bytes)
{
#ifdef __SANITIZE_ADDRESS__
    const volatile char *at = ours;
    if (bytes)
        (void)(at[0] + at[bytes - 1]);
#else
    (void)ours;
    (void)bytes;
#endif
}

int guestmem_read(struct vm *vm, void *to, gpa_t from, size_t bytes)
{
    int error = 0;
    see(to, bytes);
    for (size_t done = 0, n; done < bytes && !error; done += n) {
        void *hva;
        n = piece(from + done, bytes - done);
        error = guestmem_use(vm, from + done, n, false, false, &hva);
        if (error)
            return error;
        error = guarded_copy((char *)to + done, hva, n);
        guestmem_unpin(vm, from + done, n);
        mm_use_end(vcpu_self());
    }
    return error;
}

int guestmem_write(struct vm *vm, gpa_t to, const void *from, size_t bytes)
{
    int error = 0;
    see(from, bytes);
    for (size_t done = 0, n; done < bytes && !error; done += n) {
        void *hva;
        n = piece(to + done, bytes - done);
        error = guestmem_use(vm, to + done, n, true, false, &hva);
        if (error)
            return error;
        error = guarded_copy(hva, (const char *)from + done, n);
        guestmem_unpin(vm, to + done, n);
        mm_use_end(vcpu_self());
    }
    return error;
}

long guestmem_read_string(struct vm *vm, char *to, gpa_t from, size_t bytes)
{
    for (size_t done = 0, n; done < bytes; done += n) {
        n = piece(from + done, bytes - done);
        int error = guestmem_read(vm, to + done, from + done, n);
        if (error)
            return error;
        char *end = memchr(to + done, 0, n);
        if (end)
            return end - to;
    }
    return -ENAMETOOLONG;
}
