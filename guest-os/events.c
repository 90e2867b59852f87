/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events from the VMM: signals from outside and expired timers, in a ring in fv_shared. Whichever
 * thread was told to look takes them all; each becomes a signal for whoever is to have it.
 */
#include "guest-os/kernel.h"

static void become_signal(const volatile struct fv_event *event, uint32_t *kick)
{
    uint32_t id = event->id;
    if (event->type == FV_EVENT_TIMER) {
        timer_expired(id, event->value, kick);
    } else if (event->type == FV_EVENT_SIGNAL && id >= 1 && id <= LINUX_NSIG) {
        struct linux_siginfo info = {.signal = (int32_t)id,
                                     .code = LINUX_SI_USER,
                                     .sent.pid = (uint32_t)event->value,
                                     .sent.uid = process.uid};
        signal_queue(0, &info, kick);
    }
}

/*
 * One, if there is one. It leaves the ring and becomes a signal in one step: who finds the ring
 * empty, because it has stopped a timer, say, must not be followed by a signal out of it.
 */
static bool take(uint32_t *kick)
{
    volatile struct fv_shared *shared = FV_SHARED;
    lock_take(&process.lock);
    uint32_t tail = shared->event_tail;
    bool found = tail != __atomic_load_n(&shared->event_head, __ATOMIC_ACQUIRE);
    if (found) {
        become_signal(&shared->events[tail % FV_EVENT_RING], kick);
        __atomic_store_n(&shared->event_tail, tail + 1, __ATOMIC_RELEASE);
    }
    lock_release(&process.lock);
    signal_fd_tell();
    return found;
}

void events_drain(void)
{
    uint32_t kick = 0;
    while (take(&kick)) {
        if (kick != 0)
            vmm_call1(FV_CALL_KICK, kick);
        kick = 0;
    }
}
