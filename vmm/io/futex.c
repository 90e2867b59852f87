/* SPDX-License-Identifier: Apache-2.0 */
/*
 * futex: the host's, on the host address of the guest's word. Guest threads are host threads with
 * the same ids and guest memory is one shared file, so the shared kind of key (file, offset) names
 * a word for good, wherever its page is, and even priority inheritance is the host's own.
 *
 * The word must be resident while the host kernel looks at it, but not while a thread sleeps. It
 * is pinned, unpinned and tried; if it was evicted in between, the host says EFAULT, and it is
 * tried again. Operations by which the host writes to the word keep it pinned throughout.
 *
 * The guest kernel skips a wake while fv_shared.futex_waiters has no sleeper counted for the word.
 * So a sleeper is counted before the host compares the word's value and until it is awake again,
 * and a requeue counts it for the new word, too, before it can be moved there. Counting too many is
 * only slow; see waits_close for why none is missed.
 */
#include "vmm/io/hostio_internal.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#define TRIES_UNPINNED 64
#define WORD_BYTES     sizeof(uint32_t)
#define BUCKETS        256u
#define WORD_BITS      64u

/* A thread asleep, or on its way there or back; on its own stack. */
struct io_futex_wait {
    struct io_futex_wait *next, **link;
    uint64_t counted[BUCKETS / WORD_BITS]; /* buckets it may be found in */
};

/* A requeue that may be moving sleepers now; on its thread's stack. */
struct io_futex_requeue {
    struct io_futex_requeue *next, **link;
    uint32_t from, to;
};

static bool wait_counts(const struct io_futex_wait *wait, uint32_t bucket)
{
    return wait->counted[bucket / WORD_BITS] >> (bucket % WORD_BITS) & 1;
}

static void wait_count(struct hostio *io, struct io_futex_wait *wait, uint32_t bucket)
{
    wait->counted[bucket / WORD_BITS] |= 1ull << (bucket % WORD_BITS);
    __atomic_fetch_add(&io->vm->shared->futex_waiters[bucket], 1, __ATOMIC_SEQ_CST);
}

/*
 * Counts a sleeper wherever the requeues under way could put it. A sleeper that registers after a
 * requeue began sees that requeue here; one that registered before is seen by the requeue. The
 * outer loop follows chains of requeues. Lock held.
 */
static void waits_close(struct hostio *io, struct io_futex_wait *wait)
{
    bool changed = true;

    while (changed) {
        changed = false;
        for (struct io_futex_requeue *at = io->futexes.requeue; at; at = at->next) {
            if (wait_counts(wait, at->from) && !wait_counts(wait, at->to)) {
                wait_count(io, wait, at->to);
                changed = true;
            }
        }
    }
}

static void wait_begin(struct hostio *io, struct io_futex_wait *wait, gpa_t word)
{
    *wait = (struct io_futex_wait){0};
    pthread_mutex_lock(&io->futexes.lock);
    wait->next = io->futexes.waits;
    wait->link = &io->futexes.waits;
    if (wait->next)
        wait->next->link = &wait->next;
    io->futexes.waits = wait;
    wait_count(io, wait, fv_futex_bucket(word));
    waits_close(io, wait);
    pthread_mutex_unlock(&io->futexes.lock);
}

static void wait_end(struct hostio *io, struct io_futex_wait *wait)
{
    pthread_mutex_lock(&io->futexes.lock);
    *wait->link = wait->next;
    if (wait->next)
        wait->next->link = wait->link;
    for (uint32_t bucket = 0; bucket < BUCKETS; bucket++) {
        if (wait_counts(wait, bucket))
            __atomic_fetch_sub(&io->vm->shared->futex_waiters[bucket], 1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&io->futexes.lock);
}

static void requeue_begin(struct hostio *io, struct io_futex_requeue *requeue, gpa_t from, gpa_t to)
{
    requeue->from = fv_futex_bucket(from);
    requeue->to = fv_futex_bucket(to);
    pthread_mutex_lock(&io->futexes.lock);
    requeue->next = io->futexes.requeue;
    requeue->link = &io->futexes.requeue;
    if (requeue->next)
        requeue->next->link = &requeue->next;
    io->futexes.requeue = requeue;
    for (struct io_futex_wait *wait = io->futexes.waits; wait; wait = wait->next)
        waits_close(io, wait);
    pthread_mutex_unlock(&io->futexes.lock);
}

static void requeue_end(struct hostio *io, struct io_futex_requeue *requeue)
{
    pthread_mutex_lock(&io->futexes.lock);
    *requeue->link = requeue->next;
    if (requeue->next)
        requeue->next->link = requeue->link;
    pthread_mutex_unlock(&io->futexes.lock);
}

/* One futex request in host terms. */
struct request {
    const struct io_call *call;
    gpa_t words[2]; /* the second is 0 where there is none */
    int operation;
    long value;
    long fourth; /* struct timespec *, or a count */
    long sixth;
    bool writes; /* the host kernel stores to the words */
    bool sleeps;
};

/*
 * Host addresses come from checked guest addresses only, for the first tries are made unpinned: a
 * wild one would be a futex somewhere in the VMM.
 */
static bool words_mapped(const struct request *request)
{
    struct mm *mm = request->call->vm->mm;
    const gpa_t *words = request->words;

    return mm_access(mm, words[0]) & EPT_READ && (!words[1] || mm_access(mm, words[1]) & EPT_READ);
}

static int words_pin(const struct request *request)
{
    struct vm *vm = request->call->vm;
    struct vcpu *self = vcpu_self();
    unsigned need = request->writes ? EPT_WRITE : EPT_READ;
    void *hva;
    int error;

    do {
        error = guestmem_pin(vm, request->words[0], WORD_BYTES, request->writes, &hva);
        if (error || !request->words[1])
            return error;
        if (self)
            self->holds_pins = true; /* not to wait with the first in hand: mm/replace.c */
        error = guestmem_pin(vm, request->words[1], WORD_BYTES, request->writes, &hva);
        if (self)
            self->holds_pins = false;
        if (error)
            guestmem_unpin(vm, request->words[0], WORD_BYTES);
    } while (error == -EFAULT && !atomic_load(&vm->ending) &&
             mm_allows(vm->mm, request->words[1], WORD_BYTES, need));
    return error;
}

static void words_unpin(const struct request *request)
{
    guestmem_unpin(request->call->vm, request->words[0], WORD_BYTES);
    if (request->words[1])
        guestmem_unpin(request->call->vm, request->words[1], WORD_BYTES);
}

static long request_try(const struct request *request)
{
    struct ept *ept = request->call->vm->ept;
    long first = (long)ept_hva(ept, request->words[0]);
    long second = request->words[1] ? (long)ept_hva(ept, request->words[1]) : 0;

    if (!request->sleeps)
        return io_host(SYS_futex, first, request->operation, request->value, request->fourth,
                       second, request->sixth);
    return vcpu_syscall(request->call->vcpu, SYS_futex, first, request->operation, request->value,
                        request->fourth, second, request->sixth);
}

static long request_pinned(const struct request *request)
{
    int error = words_pin(request);
    long result;

    if (error)
        return error;
    result = request_try(request);
    words_unpin(request);
    return result;
}

/* It was told to let go; but that may have been meant for words that it waited for before. */
static bool words_are_gone(const struct request *request, gpa_t lock, gpa_t condition)
{
    struct mm *mm = request->call->vm->mm;
    struct vcpu *vcpu = request->call->vcpu;
    bool gone;

    vcpu->holds_pins = true; /* what is being replaced is gone, and waits for us */
    gone = !mm_allows(mm, lock, WORD_BYTES, EPT_WRITE) ||
           (condition && !mm_allows(mm, condition, WORD_BYTES, EPT_READ));
    vcpu->holds_pins = false;
    return gone;
}

static int command_of(const struct request *request)
{
    return request->operation & FUTEX_CMD_MASK;
}

/* Pinned, and counted: io_owner_await. */
static long request_of_owner(const struct request *request, gpa_t lock, bool main_over)
{
    int command = command_of(request);

    /* Who waits for a condition does not look at the lock, but who moves it there. */
    if (command == FUTEX_WAIT_REQUEUE_PI || !io_owner_is_over(request->call, lock, main_over))
        return request_try(request);
    return command == FUTEX_CMP_REQUEUE_PI
               ? io_owner_requeue_refused(request->call, request->words[0], request->sixth)
               : -ESRCH;
}

/* The lock's word, the second where a condition is waited for first. */
static long request_await_owner(const struct request *request)
{
    gpa_t condition = request->words[1] ? request->words[0] : 0;
    gpa_t lock = condition ? request->words[1] : request->words[0];
    bool main_over = io_owner_await(request->call, lock, condition);
    long result = words_pin(request);

    if (!result) {
        result = request_of_owner(request, lock, main_over);
        if (result == -EINTR && atomic_load(&request->call->vcpu->lets_go) &&
            words_are_gone(request, lock, condition))
            result = -EFAULT;
        words_unpin(request);
    }
    io_owner_await_end(request->call);
    return result;
}

static bool request_asks_owner(const struct request *request)
{
    int command = command_of(request);

    return request->writes && command != FUTEX_UNLOCK_PI && command != FUTEX_WAKE_OP;
}

static long request_run(const struct request *request)
{
    long result;
    int error;

    if (!words_mapped(request))
        return -EFAULT;
    if (request_asks_owner(request)) {
        result = request_await_owner(request);
        /* The main thread, at its end, may have held another dead thread's lock for a moment: that
         * is over, for we were let through behind it. */
        return result == -EINVAL && !request->words[1] && io_owner_main_is_over(request->call)
                   ? request_await_owner(request)
                   : result;
    }
    if (request->writes)
        return request_pinned(request);
    /* Most often the words are there: they were touched a moment ago. */
    for (unsigned i = 0; i < TRIES_UNPINNED; i++) {
        result = request_try(request);
        if (result != -EFAULT)
            return result;
        error = words_pin(request);
        if (error)
            return error;
        words_unpin(request);
    }
    return request_pinned(request);
}

static int64_t futex_wait(const struct request *request)
{
    struct io_futex_wait wait;
    long result;

    wait_begin(request->call->io, &wait, request->words[0]);
    result = request_run(request);
    wait_end(request->call->io, &wait);
    return result;
}

/* FUTEX_WAIT with a timeout counts from when it was first made. */
static int64_t futex_wait_until(const struct io_call *call, const struct io_resume *wait)
{
    struct timespec left = io_time_left(wait->deadline_ns);
    struct request request = {
        .call = call,
        .words = {wait->args[0]},
        .operation = FUTEX_WAIT,
        .value = (long)wait->args[2],
        .fourth = (long)&left,
        .sleeps = true,
    };

    return futex_wait(&request);
}

static int64_t futex_wait_relative(const struct request *request, const struct timespec *timeout)
{
    struct io_resume wait = {.run = futex_wait_until,
                             .args = {request->words[0], 0, (uint64_t)request->value}};

    if (!io_timespec_valid(timeout))
        return -EINVAL;
    wait.deadline_ns = io_deadline_ns(timeout);
    return io_resumable_run(request->call, &wait);
}

static int64_t futex_requeue(const struct request *request)
{
    struct io_futex_requeue requeue;
    long result;

    requeue_begin(request->call->io, &requeue, request->words[0], request->words[1]);
    result = request_run(request);
    requeue_end(request->call->io, &requeue);
    return result;
}

/* Which arguments an operation has; the host checks their values. */
static int request_arguments(struct request *request, struct timespec *timeout, int command)
{
    const struct io_call *call = request->call;
    bool pair = false;

    switch (command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
        request->sleeps = true;
        break;
    case FUTEX_WAIT_REQUEUE_PI:
        request->sleeps = pair = request->writes = true;
        break;
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
        request->sleeps = request->writes = true;
        break;
    case FUTEX_UNLOCK_PI:
    case FUTEX_TRYLOCK_PI:
        request->writes = true;
        break;
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
        pair = true;
        break;
    case FUTEX_CMP_REQUEUE_PI:
    case FUTEX_WAKE_OP:
        pair = request->writes = true;
        break;
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
        break;
    default:
        return -ENOSYS;
    }
    request->words[1] = pair ? call->args[4] : 0;
    /* Before anything else, and not by the host alone, which is not always asked. */
    if (command == FUTEX_CMP_REQUEUE_PI &&
        (request->value != 1 || io_arg_int(call, 3) < 0 || request->words[0] == request->words[1]))
        return -EINVAL;
    if (request->words[0] % WORD_BYTES || request->words[1] % WORD_BYTES)
        return -EINVAL;
    if (pair && !request->words[1])
        return -EFAULT;
    request->fourth = request->sleeps ? 0 : (long)io_arg_u32(call, 3);
    if (!request->sleeps || !call->args[3])
        return 0;
    request->fourth = (long)timeout;
    return guestmem_read(call->vm, timeout, call->args[3], sizeof(*timeout));
}

int64_t io_futex(const struct io_call *call)
{
    int operation = io_arg_int(call, 1), command = operation & FUTEX_CMD_MASK;
    struct timespec timeout;
    struct request request = {
        .call = call,
        .words = {call->args[0]},
        .operation = operation & ~FUTEX_PRIVATE_FLAG,
        .value = (long)io_arg_u32(call, 2),
        .sixth = (long)io_arg_u32(call, 5),
    };
    int64_t result = request_arguments(&request, &timeout, command);

    if (result)
        return result;
    switch (command) {
    case FUTEX_WAIT:
        if (call->args[3])
            return futex_wait_relative(&request, &timeout);
        return io_restart(futex_wait(&request));
    case FUTEX_WAIT_REQUEUE_PI: /* as Linux: a handler does not end it */
        result = futex_wait(&request);
        return result == -EINTR ? -IO_ERESTARTNOINTR : result;
    case FUTEX_WAIT_BITSET:
        result = futex_wait(&request);
        return call->args[3] ? io_restart_nohand(result) : io_restart(result);
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
    case FUTEX_CMP_REQUEUE_PI:
        return futex_requeue(&request);
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
        result = request_run(&request);
        /* A private wake never looks at the word: it may be gone with its stack, say. */
        return result == -EFAULT && operation & FUTEX_PRIVATE_FLAG ? 0 : io_restart(result);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
        /* Always anew: whoever comes back has the lock, the C library takes it for granted. */
        result = request_run(&request);
        return result == -EINTR ? -IO_ERESTARTNOINTR : result;
    default:
        return io_restart(request_run(&request));
    }
}
