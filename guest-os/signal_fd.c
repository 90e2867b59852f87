/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalfd. Signals wait here (signal_queue.c); the descriptor is the VMM's (vmm/io/signals.c),
 * which keeps its mask and makes it readable or not, as it is told here. Reading takes from the
 * queues, as rt_sigtimedwait does.
 *
 * States of a descriptor: down, up (poll, select and epoll find it readable). It is up while a
 * signal of its mask waits for the process. What waits for one thread alone only that one sees, in
 * Linux as here: its set goes along with each request to poll, in a word of the vCPU, and the VMM
 * looks with its eyes (vmm/io/signal_own.c). A descriptor's state is for all; to raise it for one
 * thread would show the signal to each other loop that has it in its mask, for as long as that
 * thread polls anything at all. So a signal for a thread is no matter of states: if it polls, it is
 * kicked, and looks anew.
 *
 * What is told, and why:
 *  - up, an edge also where it was up: a signal of the mask came; the mask was changed.
 *  - up to down: the last of them was taken or discarded, or the mask has it no more.
 *
 * Races:
 *  - A signal comes between the taking of the last one and the telling. Whoever takes it, or puts
 *    it, notes in the same step, under process.lock, what waits then, with a number. The VMM keeps
 *    the set of the highest number; of a lower one that comes late only the edge counts. It is told
 *    with the lock released: telling wakes who polls, and if that one is of a higher priority it
 *    runs at once, on this processor, and would wait for the lock for ever.
 *  - A descriptor is made while a signal comes. Its mask is in `masks` before the VMM has it, and
 *    what waits is told once more after. A tell that is answered between takes the mask out again;
 *    so it is put back before that last one. A tell that is not the newest changes no masks.
 *  - A thread begins to poll while a signal for it comes. Each side writes, then looks at what the
 *    other writes (`polls`, pending.set), with a barrier between: one of them sees both. If it is
 *    the sender, vcpu->pending ends the wait, even one that has not begun.
 *  - The mask is changed while a thread polls, and has what waits for it alone. It is kicked, too.
 *  - The mask is changed, or the descriptor closed, while a thread waits in read. It is woken by a
 *    change and asks for the mask by the serial number: the descriptor may be another's by then.
 *    Closed: it goes on with the mask it has, as Linux does.
 *  - Two read, one signal comes. It is told to one of them. Whoever stops reading hands on
 *    what waits for the process (signal_set_reading), as after rt_sigtimedwait.
 */
#include "guest-os/kernel.h"

#define SIGSET_BYTES 8
#define SFD_NONBLOCK 04000
#define SFD_CLOEXEC  02000000
#define IOV_MAX      1024

struct linux_signalfd_siginfo {
    uint32_t signal;
    int32_t error, code;
    uint32_t pid, uid;
    int32_t fd;
    uint32_t tid, band, overrun, trap;
    int32_t status, value_int;
    uint64_t value, user_time, system_time, address;
    uint8_t rest[48];
};
_Static_assert(sizeof(struct linux_signalfd_siginfo) == 128, "struct signalfd_siginfo");

/* Guarded by process.lock. */
static uint64_t masks;   /* at least those of all descriptors */
static uint32_t changes; /* of masks of descriptors that somebody may be reading */
static uint64_t tells;   /* numbers given */

/* What waits for the process is to be told. */
static void note(uint64_t came)
{
    struct signal_tell *tell = &thread_current()->tell;
    tell->number = ++tells;
    tell->waits = process.pending.set;
    tell->came |= came;
}

void signal_fd_tell(void)
{
    struct thread *thread = thread_current();
    struct signal_tell tell = thread->tell;
    if (tell.number == 0)
        return;
    thread->tell = (struct signal_tell){0};
    uint64_t now = (uint64_t)vmm_call(FV_CALL_SIGNALFD, FV_SIGNALFD_TELL, tell.number, tell.waits,
                                      tell.came, 0, 0);
    lock_take(&process.lock);
    if (tells == tell.number)
        masks = now;
    lock_release(&process.lock);
}

bool signal_fd_came(struct thread *thread, uint64_t set)
{
    static uint32_t ever; /* no two threads that a vCPU runs have the same number */
    if (thread == NULL) {
        if ((masks & set) != 0)
            note(set);
        return false;
    }
    __atomic_store_n(&thread->own_came, ++ever, __ATOMIC_SEQ_CST); /* pending.set is written */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return (masks & set) != 0 && __atomic_load_n(&thread->polls, __ATOMIC_SEQ_CST);
}

void signal_fd_went(uint64_t set)
{
    if ((masks & set) != 0)
        note(0);
}

void signal_fd_poll(bool polls)
{
    (void)__atomic_exchange_n(&thread_current()->polls, polls, __ATOMIC_SEQ_CST);
}

/* Counted first: one that comes between is told twice, rather than not at all. */
void signal_fd_show(void)
{
    struct thread *thread = thread_current();
    thread->vcpu->own_came = __atomic_load_n(&thread->own_came, __ATOMIC_SEQ_CST);
    thread->vcpu->own_signals = __atomic_load_n(&thread->pending.set, __ATOMIC_SEQ_CST);
}

static int64_t fd_set(int32_t fd, gpa_t mask_at, uint64_t mask_bytes, uint32_t flags)
{
    uint64_t mask;
    if (mask_bytes != SIGSET_BYTES)
        return -LINUX_EINVAL;
    if (user_get64(&mask, mask_at) != 0)
        return -LINUX_EFAULT;
    if ((flags & ~(uint32_t)(SFD_NONBLOCK | SFD_CLOEXEC)) != 0)
        return -LINUX_EINVAL;
    mask &= ~(signal_bit(LINUX_SIGKILL) | signal_bit(LINUX_SIGSTOP));
    lock_take(&process.lock);
    masks |= mask;
    tells++; /* what is being told does not know of it */
    lock_release(&process.lock);
    int64_t result =
        vmm_call(FV_CALL_SIGNALFD, FV_SIGNALFD_SET, (uint64_t)(int64_t)fd, mask, flags, 0, 0);
    lock_take(&process.lock);
    bool changed = result >= 0 && fd != -1;
    masks |= mask; /* a tell since then may have taken it out */
    uint32_t change = changed ? ++changes : changes;
    note(changed ? mask : 0);
    lock_release(&process.lock);
    signal_fd_tell();
    if (changed)
        signal_wake_readers(change, mask);
    return result;
}

int64_t sys_signalfd(struct frame *frame)
{
    return fd_set((int32_t)frame->rdi, frame->rsi, frame->rdx, 0);
}

int64_t sys_signalfd4(struct frame *frame)
{
    return fd_set((int32_t)frame->rdi, frame->rsi, frame->rdx, (uint32_t)frame->r10);
}

static uint32_t changes_now(void)
{
    lock_take(&process.lock);
    uint32_t now = changes;
    lock_release(&process.lock);
    return now;
}

/* SIGKILL stands for "it reads": a mask may be empty, and be made wider under it. */
static void set_reading(uint64_t mask)
{
    signal_set_reading(mask | signal_bit(LINUX_SIGKILL));
}

/* The mask may have been changed; -ENOENT, which no mask is: closed. */
static void look_again(struct fv_signalfd *fd, uint32_t *seen)
{
    *seen = changes_now();
    int64_t mask = vmm_call3(FV_CALL_SIGNALFD, FV_SIGNALFD_MASK, fd->serial, 0);
    if (mask != -LINUX_ENOENT)
        fd->mask = (uint64_t)mask;
    set_reading(fd->mask);
}

/* The number of the signal taken, or -errno. `seen`: of `changes`, before fd was filled. */
static int64_t wait_for_one(struct fv_signalfd *fd, uint32_t seen, struct linux_siginfo *info)
{
    int64_t result = 0;
    set_reading(fd->mask);
    for (;;) {
        (void)signal_look();
        if (changes_now() != seen)
            look_again(fd, &seen);
        result = signal_take(fd->mask, info);
        if (result == 0 && signal_is_due())
            result = -LINUX_ERESTARTSYS;
        if (result != 0)
            break;
        (void)vmm_sleep(-1);
    }
    signal_set_reading(0);
    __atomic_store_n(&thread_current()->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
    return result;
}

static void convert(const struct linux_siginfo *from, struct linux_signalfd_siginfo *to)
{
    *to = (struct linux_signalfd_siginfo){
        .signal = (uint32_t)from->signal, .error = from->error, .code = from->code};
    if (from->code == LINUX_SI_TIMER) {
        to->tid = (uint32_t)from->timer.id;
        to->overrun = (uint32_t)from->timer.overrun;
        to->value = from->timer.value;
        to->value_int = (int32_t)from->timer.value;
        return;
    }
    to->pid = from->sent.pid;
    to->uid = from->sent.uid;
    if (from->code < 0) {
        to->value = from->sent.value;
        to->value_int = (int32_t)from->sent.value;
    }
}

/* Where the program wants them: the spans of one read, as if there were no borders. */
struct span {
    gpa_t at;
    uint64_t bytes;
};

struct spans {
    gpa_t list;         /* of struct span, in the program's memory ... */
    uint64_t left;      /* ... so many */
    struct span now;    /* what is left of the one before those */
    uint64_t all_bytes; /* of all, at most INT64_MAX */
};

/* Nothing is taken for what cannot be a program's memory; what is not mapped shows too late. */
static bool is_beyond(const struct span *span)
{
    uint64_t end;
    return __builtin_add_overflow(span->at, span->bytes, &end) || end > USER_END;
}

/* As much as can be asked before anything is taken. 0 or -errno. */
static int spans_check(struct spans *spans)
{
    struct span span;
    for (uint64_t i = 0; i < spans->left; i++) {
        if (user_read(&span, spans->list + i * sizeof(span), sizeof(span)) != 0)
            return -LINUX_EFAULT;
        if (span.bytes > INT64_MAX - spans->all_bytes)
            return -LINUX_EINVAL;
        if (is_beyond(&span))
            return -LINUX_EFAULT;
        spans->all_bytes += span.bytes;
    }
    return 0;
}

/* 0 or -LINUX_EFAULT. */
static int spans_write(struct spans *spans, const uint8_t *from, uint64_t bytes)
{
    while (bytes != 0) {
        struct span *now = &spans->now;
        uint64_t piece = now->bytes < bytes ? now->bytes : bytes;
        if (piece == 0) {
            if (spans->left == 0 || user_read(now, spans->list, sizeof(*now)) != 0)
                return -LINUX_EFAULT;
            spans->list += sizeof(*now);
            spans->left--;
            continue;
        }
        if (user_write(now->at, from, piece) != 0)
            return -LINUX_EFAULT;
        *now = (struct span){now->at + piece, now->bytes - piece};
        from += piece;
        bytes -= piece;
    }
    return 0;
}

/* As Linux: it waits for the first one only. Bytes or -errno; -LINUX_EBADF: it is no signalfd. */
static int64_t fd_read(int32_t number, struct spans *spans)
{
    struct fv_signalfd fd;
    struct linux_siginfo info;
    struct linux_signalfd_siginfo out;
    uint32_t seen = changes_now();
    if (thread_current()->in_fault) /* a guide's handler: they are the program's to take */
        return -LINUX_EPERM;
    int64_t result =
        vmm_call3(FV_CALL_SIGNALFD, FV_SIGNALFD_LOOK, (uint64_t)(int64_t)number, (uint64_t)&fd);
    uint64_t done = 0;
    if (result != 0)
        return result;
    if (spans->all_bytes < sizeof(out))
        return -LINUX_EINVAL;
    events_drain(); /* what came from outside and nobody has looked at yet */
    for (; spans->all_bytes - done >= sizeof(out); done += sizeof(out)) {
        result = signal_take(fd.mask, &info);
        if (result == 0 && (fd.nonblock != 0 || done != 0))
            result = -LINUX_EAGAIN;
        else if (result == 0)
            result = wait_for_one(&fd, seen, &info);
        if (result < 0)
            break;
        convert(&info, &out);
        result = spans_write(spans, (const uint8_t *)&out, sizeof(out));
        if (result != 0)
            break;
    }
    return done != 0 ? (int64_t)done : result;
}

/*
 * The VMM said that it is a signalfd, and by then the number may name another file (dup2): what it
 * is then says the VMM. So a read is of one or the other.
 */
static int64_t read_on(struct frame *frame, const struct spans *given)
{
    int64_t result;
    do {
        struct spans spans = *given;
        result = fd_read((int32_t)frame->rdi, &spans);
        if (result == -LINUX_EBADF)
            result = syscall_forward(frame);
    } while (result == -FV_ESIGNALFD);
    return result;
}

int64_t signal_fd_read(struct frame *frame)
{
    struct spans spans = {.now = {frame->rsi, frame->rdx}, .all_bytes = frame->rdx};
    return is_beyond(&spans.now) ? -LINUX_EFAULT : read_on(frame, &spans);
}

int64_t sys_readv(struct frame *frame)
{
    int64_t result = syscall_forward(frame);
    struct spans spans = {.list = frame->rsi, .left = frame->rdx};
    if (result != -FV_ESIGNALFD)
        return result;
    if (frame->rdx > IOV_MAX)
        return -LINUX_EINVAL;
    result = spans_check(&spans);
    return result == 0 && spans.all_bytes != 0 ? read_on(frame, &spans) : result;
}
