/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events from the VMM: signals from outside and expired timers, in a ring in fv_shared. Whichever
 * thread was told to look takes them all; each becomes a signal for whoever is to have it.
 */
#include "guest-os/kernel.h"

static bool take(struct fv_event *event)
{
    volatile struct fv_shared *shared = FV_SHARED;
    bool found = false;
    lock_take(&process.lock);
    uint32_t tail = shared->event_tail;
    uint32_t head = __atomic_load_n(&shared->event_head, __ATOMIC_ACQUIRE);
    if (tail != head) {
        volatile struct fv_event *from = &shared->events[tail % FV_EVENT_RING];
        event->type = from->type;
        event->id = from->id;
        event->value = from->value;
        __atomic_store_n(&shared->event_tail, tail + 1, __ATOMIC_RELEASE);
        found = true;
    }
    lock_release(&process.lock);
    return found;
}

void events_drain(void)
{
    struct fv_event event;
    while (take(&event)) {
        if (event.type == FV_EVENT_TIMER) {
            timer_expired(event.id, event.value);
        } else if (event.type == FV_EVENT_SIGNAL && event.id >= 1 && event.id <= LINUX_NSIG) {
            struct linux_siginfo info = {.signal = (int32_t)event.id,
                                         .code = LINUX_SI_USER,
                                         .sent.pid = (uint32_t)event.value,
                                         .sent.uid = process.uid};
            signal_send(0, &info);
        }
    }
}
