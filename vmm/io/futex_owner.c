/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits for a priority-inheriting lock waits for its owner's host thread, in the host kernel,
 * with the words pinned, for the kernel writes to them. vcpu->awaits says which they are: before
 * they are pinned, until they no longer are. A file that is to be mapped there cannot wait that
 * long: who sleeps is kicked (lets_go), and gets EFAULT. To ask again what the word says would be
 * to write to memory that is something else now.
 *
 * When the guest thread of the owner ends, the guest kernel marks the word of a robust lock
 * (OWNER_DIED, no owner), but only the host kernel hands the lock on, with that mark, at the end of
 * the host thread. So that one ends too while owners_awaited is not 0 (vcpu.c). It is counted
 * before the host looks at the word: who found the owner's id there was counted before the mark was
 * made, and so before the count is read.
 *
 * A host thread that was kept (vcpu.c) is nobody's owner, though the host kernel would wait for it.
 * So who is about to ask the host kernel looks at the owner first, with vcpu_lock, under which a
 * guest thread begins and ends:
 *   the word's thread id is that of   then
 *   a guest thread that is in use     wait: when it ends it sees that we are counted
 *   a host thread that is to leave    wait until it has (not long: nothing holds it), then ask:
 *                                     somebody was counted when its guest thread ended
 *   a host thread that is parked      ESRCH: nobody was, and nobody comes to wait from here on
 *   another thread of ours            ESRCH: no guest thread had it
 *   a process beside the guest        as the host kernel says
 * The word is read without it, for it may lie on a page that is long in coming (of a file on a
 * network), and a guest thread that lives may write to it meanwhile. So where the answer is ESRCH
 * the word is read again, between two looks that find the same host thread parked, without another
 * guest thread on it in between: who had the lock then was over.
 * Who joins a thread may come while that one is still in use here, and gets its lock as if it had
 * come before the end, marked. Thread ids are used again soon, other than on Linux: who takes a
 * lock that a thread left behind whose id another has by now waits for that one.
 *
 * The main thread's host thread is the process's, and stays. So it hands on by itself what others
 * wait for: it unlocks, and sets the mark, which that took away, again. main_over 0 -> 1, under
 * `bequest`, before it looks for them. The races:
 *   - the heir wakes before the mark is set: it passes through `bequest` on its way out;
 *   - who is about to wait as the main thread looks, and did not see main_over, was seen itself
 *     (awaits), and finds the word marked, for there was nobody to hand it to;
 *   - who comes later finds the main thread's id in a word that nobody waited for: ESRCH, as Linux.
 * Nobody holds a pin while it waits for `bequest`: the main thread may wait, with it, for a mapping
 * that is being replaced, and that one for pins (mm/range.c).
 *
 * One is not told: who takes the lock by itself, in user space, between the unlocking and the
 * marking, where nobody waited for this lock, though somebody did when it was last contended.
 */
#include "vmm/io/hostio_internal.h"
#include "vmm/machine.h"

#include "support.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#define WORD_BYTES      sizeof(uint32_t)
#define LEAVES_SLICE_NS 50000L
#define LEAVES_MAX_NS   1000000000ULL

bool hostio_owner_is_awaited(const struct hostio *io)
{
    return atomic_load(&io->futexes.owners_awaited) != 0;
}

enum owner { OWNER_LIVES, OWNER_LEAVES, OWNER_STAYS };

/* Whose a thread id is. begun: which of its guest threads, if it is a vCPU's. */
struct owner_look {
    enum owner owner;
    const struct vcpu *vcpu;
    uint64_t begun;
};

static bool is_our_thread(const struct vm *vm, pid_t tid)
{
    return IO_HOST3(SYS_tgkill, vm->pid, tid, 0) == 0;
}

/* OWNER_STAYS: no guest thread's any more, but a host thread's. Does not wait. */
static struct owner_look owner_look(struct vm *vm, pid_t tid)
{
    struct owner_look look = {.owner = OWNER_LIVES};
    uint32_t count;

    pthread_mutex_lock(&vm->vcpu_lock);
    count = atomic_load(&vm->vcpu_count);
    for (uint32_t i = 1; i < count; i++) {
        const struct vcpu *vcpu = vm->vcpus[i];

        /* One that left has its id still, though the host may have given it to another. */
        if (vcpu->tid != tid || (look.vcpu && look.owner != OWNER_LEAVES))
            continue;
        look = (struct owner_look){OWNER_STAYS, vcpu, vcpu->begun};
        if (atomic_load(&vcpu->in_use))
            look.owner = OWNER_LIVES;
        else if (vcpu->retired || vcpu->gone || vcpu->taken)
            look.owner = OWNER_LEAVES;
    }
    pthread_mutex_unlock(&vm->vcpu_lock);
    if (!look.vcpu && is_our_thread(vm, tid))
        look.owner = OWNER_STAYS;
    return look;
}

/* Asked before, the host would take its thread for one that lives. */
static void await_leaving(struct vm *vm, pid_t tid)
{
    static const struct timespec slice = {.tv_nsec = LEAVES_SLICE_NS};
    uint64_t until_ns = clock_now_ns() + LEAVES_MAX_NS;

    while (is_our_thread(vm, tid) && owner_look(vm, tid).owner == OWNER_LEAVES &&
           !atomic_load(&vm->ending) && clock_now_ns() < until_ns)
        nanosleep(&slice, NULL);
}

/* 0: nobody; or the word lies in a file that was cut short, and the host kernel will say so. */
static pid_t owner_tid(const struct io_call *call, gpa_t lock)
{
    uint32_t word;

    if (guarded_copy(&word, ept_hva(call->vm->ept, lock), WORD_BYTES))
        return 0;
    return (pid_t)(word & FUTEX_TID_MASK);
}

bool io_owner_is_over(const struct io_call *call, gpa_t lock, bool main_over)
{
    struct vm *vm = call->vm;
    struct owner_look before, after;
    pid_t tid;

    do {
        tid = owner_tid(call, lock);
        if (!tid || tid == vm->pid)
            return tid && main_over;
        before = owner_look(vm, tid);
        if (before.owner == OWNER_LEAVES)
            await_leaving(vm, tid);
        if (before.owner != OWNER_STAYS)
            return false;
        if (owner_tid(call, lock) == tid) {
            after = owner_look(vm, tid);
            if (after.owner == OWNER_STAYS && after.vcpu == before.vcpu &&
                after.begun == before.begun)
                return true;
        }
    } while (!atomic_load(&vm->ending));
    return false;
}

/*
 * As Linux: an error only where somebody waits. That is found out by a requeue of one from the
 * condition to itself, which leaves him where he is and counts him; or is refused, if he waits to
 * be moved to a lock.
 */
long io_owner_requeue_refused(const struct io_call *call, gpa_t condition, long expected)
{
    long at = (long)ept_hva(call->vm->ept, condition);
    long result = io_host(SYS_futex, at, FUTEX_CMP_REQUEUE, 0, 1, at, expected);

    if (result == -EINVAL)
        return -ESRCH;
    return result > 0 ? -EINVAL : result;
}

bool io_owner_main_is_over(const struct io_call *call)
{
    return atomic_load(&call->io->futexes.main_over);
}

static void bequest_await(struct io_futexes *futexes)
{
    pthread_mutex_lock(&futexes->bequest);
    pthread_mutex_unlock(&futexes->bequest);
}

/* Returns whether the main thread was over before: it will not look any more. */
bool io_owner_await(const struct io_call *call, gpa_t lock, gpa_t condition)
{
    struct io_futexes *futexes = &call->io->futexes;
    bool over;

    atomic_fetch_add(&futexes->owners_awaited, 1);
    atomic_store(&call->vcpu->lets_go, false);
    atomic_store(&call->vcpu->awaits[1], condition);
    atomic_store(&call->vcpu->awaits[0], lock);
    over = atomic_load(&futexes->main_over);
    if (over)
        bequest_await(futexes);
    return over;
}

void io_owner_await_end(const struct io_call *call)
{
    struct io_futexes *futexes = &call->io->futexes;

    if (atomic_load(&futexes->main_over)) /* the heir, perhaps */
        bequest_await(futexes);
    atomic_store(&call->vcpu->awaits[0], 0);
    atomic_store(&call->vcpu->awaits[1], 0);
    atomic_fetch_sub(&futexes->owners_awaited, 1);
}

void hostio_let_go(struct vm *vm, gpa_t start, gpa_t end)
{
    uint32_t count = atomic_load(&vm->vcpu_count);

    for (uint32_t i = 0; i < count; i++) {
        gpa_t lock = atomic_load(&vm->vcpus[i]->awaits[0]);
        gpa_t condition = atomic_load(&vm->vcpus[i]->awaits[1]);

        if ((lock >= start && lock < end) || (condition >= start && condition < end)) {
            atomic_store(&vm->vcpus[i]->lets_go, true);
            vcpu_kick(vm->vcpus[i]);
        }
    }
}

/* The heir's word, which says that somebody waits even where nobody else does, or nobody's. */
static void word_mark(_Atomic uint32_t *at)
{
    uint32_t value = atomic_load(at);

    while (!(value & FUTEX_TID_MASK) || value & FUTEX_WAITERS) {
        if (atomic_compare_exchange_weak(at, &value, value | FUTEX_OWNER_DIED))
            return;
    }
}

/* A word to hand on: `at` is pinned, but may lie in a file that another process cuts short. */
struct bequest {
    _Atomic uint32_t *at;
    uint32_t tid; /* of the main thread */
};

/*
 * The main thread's, or marked as a dead thread's: the host kernel knows whose. So another dead
 * thread's may be held here for a moment, between its mark and the end of its host thread. Who
 * comes meanwhile and is told by the host that the word is wrong (EINVAL) passes through `bequest`
 * and asks again (io/futex.c). The host thread's end and the heir do not look at the word to know
 * whose the lock is; the heir writes its own id and the mark over what is there.
 */
static void word_hand_on(void *argument)
{
    const struct bequest *bequest = argument;
    _Atomic uint32_t *at = bequest->at;
    uint32_t value = atomic_load(at), tid = bequest->tid, owned;

    do {
        bool marked = !(value & FUTEX_TID_MASK) && value & FUTEX_OWNER_DIED;

        if ((value & FUTEX_TID_MASK) != tid && !marked)
            return;
        owned = tid | FUTEX_WAITERS;
    } while (!atomic_compare_exchange_weak(at, &value, owned));
    if (io_host(SYS_futex, (long)at, FUTEX_UNLOCK_PI, 0, 0, 0, 0) == 0)
        word_mark(at);
    else /* another dead thread's, who hands it on: as it was, if that has not happened yet */
        atomic_compare_exchange_strong(at, &owned, value);
}

void hostio_main_ends(struct vm *vm)
{
    struct io_futexes *futexes = &vm->io->futexes;
    uint32_t count;

    pthread_mutex_lock(&futexes->bequest);
    atomic_store(&futexes->main_over, true);
    count = atomic_load(&vm->vcpu_count);
    for (uint32_t i = 1; i < count; i++) {
        gpa_t word = atomic_load(&vm->vcpus[i]->awaits[0]);
        struct bequest bequest = {.tid = (uint32_t)vm->pid};
        bool gone = false;
        void *at;

        if (!word)
            continue;
        if (guestmem_pin(vm, word, WORD_BYTES, true, &at)) {
            gone = true;
        } else {
            bequest.at = at;
            gone = file_guard(word_hand_on, &bequest) != 0;
            guestmem_unpin(vm, word, WORD_BYTES);
        }
        if (gone) /* with the end of its file: who waits asks the host again, and is told so */
            vcpu_kick(vm->vcpus[i]);
    }
    pthread_mutex_unlock(&futexes->bequest);
}
