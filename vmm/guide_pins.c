/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that a guide or program pinned, up to a quarter of --local: what has to be fetched anyway
 * may not be crowded out by advice. The table is the VMM's: a guest can only unpin what it pinned,
 * never a page that a request of the VMM holds. Unmapping or discarding any part of a pinned range
 * ends its pin, as the contents it was about are gone.
 */
#include "vmm/hints.h"

#include <errno.h>

static bool is_paged(const struct vm *vm)
{
    return vm->config->local_bytes < vm->config->memory_bytes;
}

/* Whole pages; false when there are none or they are nowhere. */
static bool range_of(const struct vm *vm, gpa_t gpa, uint64_t bytes, struct guide_pin *out)
{
    gpa_t end;
    if (bytes == 0 || __builtin_add_overflow(gpa, bytes, &end) || end > ept_span(vm->ept))
        return false;
    out->start = gpa & ~(gpa_t)(EPT_PAGE_BYTES - 1);
    out->end = (end + EPT_PAGE_BYTES - 1) & ~(gpa_t)(EPT_PAGE_BYTES - 1);
    return true;
}

static uint64_t pin_pages(const struct guide_pin *pin)
{
    return (pin->end - pin->start) >> EPT_PAGE_SHIFT;
}

/* Caller holds pin_lock. */
static void pin_remove(struct hints *hints, unsigned index)
{
    struct guide_pin pin = hints->pins[index];
    unsigned last = atomic_load(&hints->pin_count) - 1;
    fault_unpin(hints->vm->engine, pin.start >> EPT_PAGE_SHIFT, pin_pages(&pin));
    hints->pinned_pages -= pin_pages(&pin);
    hints->pins[index] = hints->pins[last];
    atomic_store(&hints->pin_count, last);
}

/*
 * The lock is held while the pages come, so that an unmapping of them (guide_pins_drop) is either
 * seen by mm_allows or finds the pin in the table.
 */
int64_t guide_pin(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes)
{
    struct vm *vm = vcpu->vm;
    struct hints *hints = vm->hints;
    struct guide_pin pin;
    if (!range_of(vm, gpa, bytes, &pin))
        return -EINVAL;
    if (!is_paged(vm))
        return mm_allows(vm->mm, pin.start, pin.end - pin.start, EPT_READ) ? 0 : -ENOMEM;
    pthread_mutex_lock(&hints->pin_lock);
    unsigned count = atomic_load(&hints->pin_count);
    uint64_t quota = vm->config->local_bytes / EPT_PAGE_BYTES / 4;
    int error = 0;
    if (count == GUIDE_PINS_MAX || pin_pages(&pin) > quota - hints->pinned_pages)
        error = -EDQUOT;
    else if (!mm_allows(vm->mm, pin.start, pin.end - pin.start, EPT_READ))
        error = -ENOMEM;
    if (!error)
        error = fault_pin(vcpu->fault, pin.start >> EPT_PAGE_SHIFT, pin_pages(&pin), false);
    if (!error) {
        hints->pins[count] = pin;
        hints->pinned_pages += pin_pages(&pin);
        atomic_store(&hints->pin_count, count + 1);
    }
    pthread_mutex_unlock(&hints->pin_lock);
    return error == -EFAULT ? -ENOMEM : error == -ETIMEDOUT || error == -ECONNRESET ? -EIO : error;
}

int64_t guide_unpin(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes)
{
    struct vm *vm = vcpu->vm;
    struct hints *hints = vm->hints;
    struct guide_pin pin;
    int error = -EINVAL;
    if (!range_of(vm, gpa, bytes, &pin))
        return -EINVAL;
    if (!is_paged(vm))
        return 0;
    pthread_mutex_lock(&hints->pin_lock);
    for (unsigned i = 0; i < atomic_load(&hints->pin_count) && error; i++) {
        if (hints->pins[i].start == pin.start && hints->pins[i].end == pin.end) {
            pin_remove(hints, i);
            error = 0;
        }
    }
    pthread_mutex_unlock(&hints->pin_lock);
    return error;
}

void guide_pins_drop(struct hints *hints, gpa_t start, gpa_t end)
{
    if (!hints || atomic_load(&hints->pin_count) == 0)
        return;
    pthread_mutex_lock(&hints->pin_lock);
    for (unsigned i = atomic_load(&hints->pin_count); i-- > 0;) {
        if (hints->pins[i].start < end && hints->pins[i].end > start)
            pin_remove(hints, i);
    }
    pthread_mutex_unlock(&hints->pin_lock);
}
