/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which signals wait where, and who is to take them. Signals go to a thread or to the process; a
 * process's signal is taken by any thread that does not block it. All under process.lock, except
 * the kick that makes a thread look.
 */
#include "guest-os/kernel.h"

/*
 * A timer has a node of its own from its begin, so that its signal finds room however many are
 * queued. process.lock guards:
 *   kept 1            a timer's. Not queued until it expires, then queued until the signal is taken
 *                     or forgotten; what expires meanwhile is counted in it
 *   kept 1 -> 0       the timer is deleted. A node that is queued then stays so, as Linux has it
 *   kept 0, queued 0  free
 */
struct signal_node {
    struct signal_node *next;
    bool kept, queued;
    struct linux_siginfo info;
};

/* As many may be queued at once; Linux's limit (RLIMIT_SIGPENDING) is of this order. */
#define QUEUE_MAX 2048

static struct signal_node nodes[QUEUE_MAX];
static struct signal_node *free_nodes;
static unsigned fresh_nodes; /* nodes[fresh_nodes...] were never used */

uint64_t signal_bit(unsigned signal)
{
    return 1ULL << (signal - 1);
}

static struct signal_node *node_take(void)
{
    struct signal_node *node = free_nodes;
    if (node != NULL)
        free_nodes = node->next;
    else if (fresh_nodes < QUEUE_MAX)
        node = &nodes[fresh_nodes++];
    return node;
}

/* It leaves a queue, or its timer. */
static void node_release(struct signal_node *node)
{
    if (node->kept || node->queued)
        return;
    node->next = free_nodes;
    free_nodes = node;
}

struct signal_node *signal_node_keep(void)
{
    struct signal_node *node = node_take();
    if (node != NULL)
        node->kept = true;
    return node;
}

void signal_node_drop(struct signal_node *node)
{
    node->kept = false;
    node_release(node);
}

/* Ignored by request or by default, so that it need not wait at all. */
static bool is_ignored(unsigned signal)
{
    uint64_t handler = process.actions[signal].handler;
    if (handler != LINUX_SIG_DFL)
        return handler == LINUX_SIG_IGN;
    return signal == LINUX_SIGCHLD || signal == LINUX_SIGURG || signal == LINUX_SIGWINCH ||
           signal == LINUX_SIGCONT;
}

static bool wants(const struct thread *thread, unsigned signal)
{
    return (thread->blocked & signal_bit(signal)) == 0 ||
           ((thread->waiting | thread->reading) & signal_bit(signal)) != 0;
}

static bool blocks(const struct thread *thread, unsigned signal)
{
    return ((thread->blocked | thread->waiting) & signal_bit(signal)) != 0;
}

/* The thread that will take a process's signal: the main one if it can, as Linux prefers. */
static struct thread *choose(unsigned signal)
{
    struct thread *found = NULL;
    for (struct thread *thread = process.threads; thread != NULL; thread = thread->next) {
        if (!wants(thread, signal))
            continue;
        if (thread->tid == process.pid)
            return thread;
        if (found == NULL || thread == thread_current())
            found = thread;
    }
    return found;
}

/* Of one timer one signal waits; what expires meanwhile is counted in it. */
static void count_expiry(struct linux_siginfo *waits, const struct linux_siginfo *info)
{
    int64_t overrun = (int64_t)waits->timer.overrun + info->timer.overrun + 1;
    waits->timer.overrun = overrun < INT32_MAX ? (int32_t)overrun : INT32_MAX;
}

static void append(struct signal_pending *pending, struct signal_node *node,
                   const struct linux_siginfo *info)
{
    node->info = *info;
    node->queued = true;
    node->next = NULL;
    if (pending->last != NULL)
        pending->last->next = node;
    else
        pending->first = node;
    pending->last = node;
    pending->set |= signal_bit((unsigned)info->signal);
}

/* 0, -LINUX_EAGAIN, or 1: it waits already. */
static int enqueue(struct signal_pending *pending, const struct linux_siginfo *info)
{
    uint64_t bit = signal_bit((unsigned)info->signal);
    if (info->signal < LINUX_SIGRTMIN && (pending->set & bit) != 0)
        return 1; /* standard signals do not queue */
    struct signal_node *node = node_take();
    if (node != NULL) {
        append(pending, node, info);
        return 0;
    }
    /* Linux, too, keeps a standard signal without its information when the queue is full. */
    if (info->signal >= LINUX_SIGRTMIN)
        return -LINUX_EAGAIN;
    pending->set |= bit;
    return 0;
}

/* Makes the thread look at its signals. Returns its tid if that takes a kick. */
static uint32_t notify(struct thread *thread)
{
    if (thread == NULL || thread->vcpu == NULL)
        return 0; /* one that has not started yet looks when it does */
    uint32_t before =
        __atomic_exchange_n(&thread->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_ACQ_REL);
    return before == 0 && thread != thread_current() ? thread->tid : 0;
}

/* Where it waits, and *taker: who is to be told, or NULL. NULL: that thread is not there. */
static struct signal_pending *waits_at(uint32_t tid, unsigned signal, struct thread **taker)
{
    *taker = tid != 0 ? thread_find(tid) : NULL;
    if (*taker != NULL)
        return &(*taker)->pending;
    if (tid != 0)
        return NULL;
    *taker = choose(signal);
    return &process.pending;
}

static bool needs_no_queue(const struct thread *taker, unsigned signal)
{
    return is_ignored(signal) && taker != NULL && !blocks(taker, signal);
}

int signal_queue(uint32_t tid, const struct linux_siginfo *info, uint32_t *kick)
{
    unsigned signal = (unsigned)info->signal;
    if (signal == 0) /* asks whether there is anybody */
        return tid == 0 || thread_find(tid) != NULL ? 0 : -LINUX_ESRCH;
    struct thread *taker;
    struct signal_pending *pending = waits_at(tid, signal, &taker);
    if (pending == NULL)
        return -LINUX_ESRCH;
    if (needs_no_queue(taker, signal))
        return 0;
    int result = enqueue(pending, info);
    if (result < 0)
        return result;
    bool looks = result == 0 && signal_fd_came(tid != 0 ? taker : NULL, signal_bit(signal));
    if (taker != NULL && (looks || wants(taker, signal)))
        *kick = notify(taker);
    return 0;
}

void signal_queue_node(uint32_t tid, struct signal_node *node, const struct linux_siginfo *info,
                       uint32_t *kick)
{
    unsigned signal = (unsigned)info->signal;
    struct thread *taker;
    struct signal_pending *pending = waits_at(tid, signal, &taker);
    if (pending == NULL || needs_no_queue(taker, signal))
        return;
    bool looks = false;
    if (node->queued) {
        count_expiry(&node->info, info);
    } else {
        append(pending, node, info);
        looks = signal_fd_came(tid != 0 ? taker : NULL, signal_bit(signal));
    }
    if (taker != NULL && (looks || wants(taker, signal)))
        *kick = notify(taker);
}

/* SIGKILL ends all, whoever it is for; but there has to be somebody. */
static int kill_all(uint32_t tid)
{
    lock_take(&process.lock);
    bool found = tid == 0 || thread_find(tid) != NULL;
    lock_release(&process.lock);
    if (found)
        vmm_exit_group(0, LINUX_SIGKILL, false);
    return -LINUX_ESRCH;
}

int signal_send(uint32_t tid, const struct linux_siginfo *info)
{
    uint32_t kick = 0;
    if (info->signal == LINUX_SIGKILL)
        return kill_all(tid);
    lock_take(&process.lock);
    int result = signal_queue(tid, info, &kick);
    lock_release(&process.lock);
    signal_fd_tell();
    if (kick != 0)
        vmm_call1(FV_CALL_KICK, kick);
    return result;
}

/*
 * Removes the first entry of this signal; pending->set keeps the bit if there is another. Returns
 * whether a timer still has the entry: one that was deleted has left its number to another,
 * perhaps.
 */
static bool dequeue(struct signal_pending *pending, unsigned signal, struct linux_siginfo *info)
{
    struct signal_node *previous = NULL, *found = NULL;
    bool more = false;
    for (struct signal_node *node = pending->first; node != NULL; node = node->next) {
        if (node->info.signal != (int32_t)signal) {
            if (found == NULL)
                previous = node;
        } else if (found == NULL) {
            found = node;
        } else {
            more = true;
        }
    }
    if (!more)
        pending->set &= ~signal_bit(signal);
    if (found == NULL)
        return false;
    if (previous != NULL)
        previous->next = found->next;
    else
        pending->first = found->next;
    if (pending->last == found)
        pending->last = previous;
    *info = found->info;
    found->queued = false;
    node_release(found);
    return found->kept;
}

unsigned signal_take(uint64_t set, struct linux_siginfo *info)
{
    struct thread *thread = thread_current();
    unsigned signal = 0;
    lock_take(&process.lock);
    struct signal_pending *pending = &thread->pending;
    if ((pending->set & set) == 0)
        pending = &process.pending;
    if ((pending->set & set) != 0) {
        signal = (unsigned)__builtin_ctzll(pending->set & set) + 1;
        memset(info, 0, sizeof(*info));
        info->signal = (int32_t)signal; /* all there is, if the queue was full */
        if (dequeue(pending, signal, info))
            timer_delivered(info);
        if (pending == &process.pending && (pending->set & signal_bit(signal)) == 0)
            signal_fd_went(signal_bit(signal));
    }
    lock_release(&process.lock);
    signal_fd_tell();
    return signal;
}

uint64_t signal_waiting_set(void)
{
    lock_take(&process.lock);
    uint64_t set = thread_current()->pending.set | process.pending.set;
    lock_release(&process.lock);
    return set;
}

bool signal_is_due(void)
{
    return (signal_waiting_set() & ~thread_current()->blocked) != 0 || guide_is_overdue();
}

bool signal_look(void)
{
    /* Cleared first: what comes from here on ends the next sleep. */
    __atomic_exchange_n(&thread_current()->vcpu->pending, 0, __ATOMIC_ACQ_REL);
    events_drain();
    return signal_is_due();
}

/*
 * A process's signal is told to one thread. If that one no longer takes it when it comes to look,
 * because it blocks it now or waits for it no more, another has to be told.
 */
void signal_set_blocked(uint64_t mask)
{
    struct thread *thread = thread_current();
    mask &= ~(signal_bit(LINUX_SIGKILL) | signal_bit(LINUX_SIGSTOP));
    lock_take(&process.lock);
    bool hands_on = (process.pending.set & mask & ~thread->blocked) != 0;
    thread->blocked = mask;
    if (((thread->pending.set | process.pending.set) & ~mask) != 0)
        __atomic_store_n(&thread->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
    lock_release(&process.lock);
    if (hands_on)
        signal_reassign();
}

static void wait_for(uint64_t *waits, uint64_t set)
{
    lock_take(&process.lock);
    bool hands_on = (process.pending.set & *waits & ~set) != 0;
    *waits = set;
    lock_release(&process.lock);
    if (hands_on)
        signal_reassign();
}

void signal_set_waiting(uint64_t set)
{
    wait_for(&thread_current()->waiting, set);
}

void signal_set_reading(uint64_t set)
{
    wait_for(&thread_current()->reading, set);
}

/* The next that this change concerns and that was not told yet, or NULL. process.lock held. */
static struct thread *next_to_wake(uint32_t change, uint64_t set)
{
    for (struct thread *thread = process.threads; thread != NULL; thread = thread->next) {
        bool polls = __atomic_load_n(&thread->polls, __ATOMIC_SEQ_CST);
        bool looks = thread->reading != 0 || (polls && (thread->pending.set & set) != 0);
        if (looks && (int32_t)(change - thread->woken) > 0)
            return thread;
    }
    return NULL;
}

/* One after the other: who is kicked may run at once, and needs the lock. */
void signal_wake_readers(uint32_t change, uint64_t set)
{
    for (;;) {
        lock_take(&process.lock);
        struct thread *thread = next_to_wake(change, set);
        uint32_t kick = thread != NULL ? notify(thread) : 0;
        if (thread != NULL)
            thread->woken = change;
        lock_release(&process.lock);
        if (kick != 0)
            vmm_call1(FV_CALL_KICK, kick);
        if (thread == NULL)
            break;
    }
}

void signal_discard(struct signal_pending *pending, uint64_t set)
{
    struct linux_siginfo unused;
    for (unsigned signal = 1; signal <= LINUX_NSIG; signal++)
        while ((pending->set & set & signal_bit(signal)) != 0)
            dequeue(pending, signal, &unused);
}

void signal_reassign(void)
{
    for (unsigned signal = 1; signal <= LINUX_NSIG; signal++) {
        lock_take(&process.lock);
        bool waits = (process.pending.set & signal_bit(signal)) != 0;
        uint32_t kick = waits ? notify(choose(signal)) : 0;
        bool none = process.pending.set == 0;
        lock_release(&process.lock);
        if (kick != 0)
            vmm_call1(FV_CALL_KICK, kick);
        if (none)
            break;
    }
}
