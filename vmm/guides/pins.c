/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that a guide or program pinned, up to a quarter of --local: what has to be fetched anyway
 * may not be crowded out by advice. The table is the VMM's: a guest can only unpin what it pinned,
 * never a page that a request of the VMM holds. Unmapping or discarding any part of a pinned range
 * ends its pin, as the contents it was about are gone.
 */
#include "vmm/guides/hints.h"

#include <errno.h>

#define STEP_PAGES 16u /* pinned between two looks whether the pin was ended */

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

/* ---- the table; the caller holds pin_lock ---- */

static void pin_remove(struct hints *hints, unsigned index)
{
    unsigned last = atomic_load(&hints->pin_count) - 1;
    hints->pinned_pages -= pin_pages(&hints->pins[index]);
    hints->pins[index] = hints->pins[last];
    atomic_store(&hints->pin_count, last);
}

/* Of one that is there. */
static void pin_end(struct hints *hints, unsigned index)
{
    const struct guide_pin *pin = &hints->pins[index];
    fault_unpin(hints->vm->engine, pin->start >> EPT_PAGE_SHIFT, pin_pages(pin));
    pin_remove(hints, index);
}

static unsigned pin_index(const struct hints *hints, uint64_t ticket)
{
    unsigned i = 0;
    while (hints->pins[i].ticket != ticket)
        i++;
    return i;
}

/* ---- pinning ---- */

static int pin_begin(struct hints *hints, struct guide_pin *pin)
{
    uint64_t quota = hints->vm->config->local_bytes / EPT_PAGE_BYTES / 4;
    int error = -EDQUOT;
    pthread_mutex_lock(&hints->pin_lock);
    unsigned count = atomic_load(&hints->pin_count);
    if (count < GUIDE_PINS_MAX && pin_pages(pin) <= quota - hints->pinned_pages) {
        pin->ticket = ++hints->pin_tickets;
        pin->coming = true;
        hints->pins[count] = *pin;
        hints->pinned_pages += pin_pages(pin);
        atomic_store(&hints->pin_count, count + 1);
        error = 0;
    }
    pthread_mutex_unlock(&hints->pin_lock);
    return error;
}

static bool pin_ended(struct hints *hints, const struct guide_pin *pin)
{
    pthread_mutex_lock(&hints->pin_lock);
    bool ended = hints->pins[pin_index(hints, pin->ticket)].ended;
    pthread_mutex_unlock(&hints->pin_lock);
    return ended;
}

/* All of them or, with -errno, none: a pin that is being ended lets go of what it has. */
static int pin_fetch(struct vcpu *vcpu, const struct guide_pin *pin)
{
    struct hints *hints = vcpu->vm->hints;
    uint64_t first = pin->start >> EPT_PAGE_SHIFT, pages = pin_pages(pin), done = 0;
    int error = 0;
    while (done < pages && !error) {
        uint64_t step = pages - done < STEP_PAGES ? pages - done : STEP_PAGES;
        if (pages > STEP_PAGES) /* as far as may be, not only what this step waits for */
            (void)fault_prefetch(vcpu->fault, first + done, pages - done);
        error = fault_pin(vcpu->fault, first + done, step, false);
        if (error)
            break;
        done += step;
        if (pin_ended(hints, pin))
            error = -ENOMEM; /* as if it had come after what ended it */
    }
    if (error)
        fault_unpin(hints->vm->engine, first, done);
    return error;
}

/* `error`: it could not be pinned, and none of its pages is. */
static int pin_settle(struct hints *hints, const struct guide_pin *pin, int error)
{
    pthread_mutex_lock(&hints->pin_lock);
    unsigned index = pin_index(hints, pin->ticket);
    hints->pins[index].coming = false;
    if (!error && hints->pins[index].ended) {
        pin_end(hints, index);
        error = -ENOMEM;
    } else if (error) {
        pin_remove(hints, index);
    }
    pthread_cond_broadcast(&hints->pin_settled);
    pthread_mutex_unlock(&hints->pin_lock);
    return error;
}

/*
 * The pages come without the lock, which every munmap takes. The entry is in the table before it is
 * asked whether the range is mapped, so an unmapping (guide_pins_drop) is either seen by mm_allows
 * or finds the entry:
 *
 *   coming -> there    pin_settle
 *   coming -> ended    guide_pins_drop, which waits: the pinning thread gives up at its next step
 *   ended  -> gone     pin_settle, after the last of its pages was let go
 *   there  -> gone     guide_pins_drop, guide_unpin
 *
 * The wait is what lets the range be mapped anew with a file: none of its pages is held for what
 * was there before. The pinning thread needs the table of mappings for reading only, never
 * `change`, which the one who waits holds, nor (holds_pins) the end of a replacement; and each of
 * its pages comes, or fails, in bounded time.
 */
int64_t guide_pin(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes)
{
    struct vm *vm = vcpu->vm;
    struct guide_pin pin = {0};
    if (!range_of(vm, gpa, bytes, &pin))
        return -EINVAL;
    if (!is_paged(vm))
        return mm_allows(vm->mm, pin.start, pin.end - pin.start, EPT_READ) ? 0 : -ENOMEM;
    int error = pin_begin(vm->hints, &pin);
    if (error)
        return error;
    vcpu->holds_pins = true;
    if (!mm_allows(vm->mm, pin.start, pin.end - pin.start, EPT_READ))
        error = -ENOMEM;
    if (!error)
        error = pin_fetch(vcpu, &pin);
    vcpu->holds_pins = false;
    error = pin_settle(vm->hints, &pin, error);
    if (error == -EFAULT || error == -EBUSY)
        return -ENOMEM;
    return error == -ETIMEDOUT || error == -ECONNRESET ? -EIO : error;
}

int64_t guide_unpin(struct vcpu *vcpu, gpa_t gpa, uint64_t bytes)
{
    struct vm *vm = vcpu->vm;
    struct hints *hints = vm->hints;
    struct guide_pin pin = {0};
    int error = -EINVAL;
    if (!range_of(vm, gpa, bytes, &pin))
        return -EINVAL;
    if (!is_paged(vm))
        return 0;
    pthread_mutex_lock(&hints->pin_lock);
    for (unsigned i = 0; i < atomic_load(&hints->pin_count) && error; i++) {
        if (hints->pins[i].start == pin.start && hints->pins[i].end == pin.end &&
            !hints->pins[i].coming) {
            pin_end(hints, i);
            error = 0;
        }
    }
    pthread_mutex_unlock(&hints->pin_lock);
    return error;
}

/* Ends those that overlap and were begun up to `ticket`. True if one of them is still coming. */
static bool pins_end(struct hints *hints, gpa_t start, gpa_t end, uint64_t ticket)
{
    bool coming = false;
    for (unsigned i = atomic_load(&hints->pin_count); i-- > 0;) {
        struct guide_pin *pin = &hints->pins[i];
        if (pin->start >= end || pin->end <= start || pin->ticket > ticket)
            continue;
        if (pin->coming)
            coming = pin->ended = true;
        else
            pin_end(hints, i);
    }
    return coming;
}

void guide_pins_drop(struct hints *hints, gpa_t start, gpa_t end)
{
    if (!hints || atomic_load(&hints->pin_count) == 0)
        return;
    pthread_mutex_lock(&hints->pin_lock);
    /* Not those begun while it waits: they find the range as it is then, and could go on for ever.
     */
    uint64_t ticket = hints->pin_tickets;
    while (pins_end(hints, start, end, ticket))
        pthread_cond_wait(&hints->pin_settled, &hints->pin_lock);
    pthread_mutex_unlock(&hints->pin_lock);
}
