/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads: every one is a vCPU and a host thread, which the VMM makes (FV_CALL_THREAD_CREATE) and
 * the host schedules. Here is what the program sees of it: clone, ids, and the end of a thread.
 */
#include "guest-os/kernel.h"

#define CLONE_NEEDED   (LINUX_CLONE_VM | LINUX_CLONE_SIGHAND | LINUX_CLONE_THREAD)
#define CLONE_ARGS_MIN 64

static struct thread threads[FV_VCPU_MAX];
static struct thread *free_threads;
static unsigned fresh_threads = 1; /* threads[fresh_threads...] were never used; [0] is the first */

struct thread *thread_find(uint32_t tid)
{
    struct thread *thread = tid != 0 ? process.threads : NULL; /* one that begins has none yet */
    while (thread != NULL && thread->tid != tid)
        thread = thread->next;
    return thread;
}

static void thread_attach(struct thread *thread)
{
    struct fv_vcpu *vcpu = vcpu_current();
    vcpu->guest[1] = (uint64_t)thread;
    lock_take(&process.lock);
    thread->tid = vcpu->tid;
    thread->vcpu = vcpu;
    lock_release(&process.lock);
}

void thread_boot(uint32_t tid)
{
    struct thread *thread = &threads[0];
    thread->tid = tid;
    process.threads = thread;
    process.thread_count = 1;
    thread_attach(thread);
}

static struct thread *thread_allocate(void)
{
    lock_take(&process.lock);
    struct thread *thread = free_threads;
    if (thread != NULL)
        free_threads = thread->next;
    else if (fresh_threads < FV_VCPU_MAX)
        thread = &threads[fresh_threads++];
    lock_release(&process.lock);
    if (thread != NULL)
        memset(thread, 0, sizeof(*thread));
    return thread;
}

static void thread_link(struct thread *thread)
{
    lock_take(&process.lock);
    thread->next = process.threads;
    process.threads = thread;
    process.thread_count++;
    lock_release(&process.lock);
}

/* One of its holders (its creator, itself) is done with it. */
static void thread_drop(struct thread *thread)
{
    if (atomic_fetch_sub(&thread->holders, 1) != 1)
        return;
    lock_take(&process.lock);
    thread->next = free_threads;
    free_threads = thread;
    lock_release(&process.lock);
}

/* Nobody finds it any more. Returns how many threads are left. */
static uint32_t thread_unlink(struct thread *thread)
{
    lock_take(&process.lock);
    struct thread **at = &process.threads;
    while (*at != thread)
        at = &(*at)->next;
    *at = thread->next;
    uint32_t left = --process.thread_count;
    signal_discard(&thread->pending, UINT64_MAX);
    thread->tid = 0;
    thread->vcpu = NULL;
    lock_release(&process.lock);
    return left;
}

/*
 * The tid must be where CLONE_PARENT_SETTID wants it before clone returns in the parent and before
 * the child's first instruction, and not be written later, when the child may already have ended
 * and the memory be something else. So whoever comes first writes it, and the other one waits.
 */
enum { TID_NOT_STORED, TID_BEING_STORED, TID_STORED };

static void store_parent_tid(struct thread *thread, uint32_t tid)
{
    unsigned expected = TID_NOT_STORED;
    if (atomic_compare_exchange_strong(&thread->tid_stored, &expected, TID_BEING_STORED)) {
        if (thread->parent_tid != 0)
            (void)user_put32(thread->parent_tid, tid);
        atomic_store(&thread->tid_stored, TID_STORED);
    }
    while (atomic_load(&thread->tid_stored) != TID_STORED)
        vmm_call1(LINUX_SYS_SCHED_YIELD, 0);
}

void thread_main(struct frame *frame, struct thread *thread)
{
    thread_attach(thread);
    __asm__ volatile("wrfsbase %0" ::"r"(thread->fs_base));
    xstate_reset();
    xstate_control_set(thread->mxcsr, thread->x87_control);
    *frame = thread->start;
    store_parent_tid(thread, thread->tid);
    if (thread->child_tid != 0)
        (void)user_put32(thread->child_tid, thread->tid);
    /* Signals may have come before there was a vCPU to tell. */
    __atomic_store_n(&thread->vcpu->pending, FV_PENDING_SIGNAL, __ATOMIC_RELEASE);
}

static int64_t clone_thread(const struct frame *frame, const struct linux_clone_args *args)
{
    if ((args->flags & LINUX_CLONE_SETTLS) != 0 && args->tls >= TLS_LIMIT)
        return -LINUX_EPERM;
    struct thread *parent = thread_current(), *thread = thread_allocate();
    if (thread == NULL)
        return -LINUX_EAGAIN;
    thread->start = *frame;
    thread->start.rax = 0;
    thread->start.orig_rax = -1;
    if (args->stack != 0)
        thread->start.rsp = args->stack;
    if ((args->flags & LINUX_CLONE_SETTLS) != 0)
        thread->fs_base = args->tls;
    else
        __asm__ volatile("rdfsbase %0" : "=r"(thread->fs_base));
    if ((args->flags & LINUX_CLONE_SETTLS) == 0)
        thread->shares_tls = parent->shares_tls = true;
    thread->parent_tid = (args->flags & LINUX_CLONE_PARENT_SETTID) != 0 ? args->parent_tid : 0;
    thread->child_tid = (args->flags & LINUX_CLONE_CHILD_SETTID) != 0 ? args->child_tid : 0;
    thread->clear_tid = (args->flags & LINUX_CLONE_CHILD_CLEARTID) != 0 ? args->child_tid : 0;
    thread->blocked = parent->blocked;
    xstate_control_get(&thread->mxcsr, &thread->x87_control);
    atomic_store(&thread->holders, 2);
    thread_link(thread);
    int64_t tid = vmm_call1(FV_CALL_THREAD_CREATE, (uint64_t)thread);
    if (tid < 0) {
        thread_unlink(thread);
        signal_reassign(); /* it was there to be told, for a moment */
        thread_drop(thread);
        thread_drop(thread);
        return tid;
    }
    lock_take(&process.lock);
    if (thread->vcpu == NULL)
        thread->tid = (uint32_t)tid; /* so that signals find it from now on */
    lock_release(&process.lock);
    store_parent_tid(thread, (uint32_t)tid);
    thread_drop(thread);
    return tid;
}

int64_t sys_clone(struct frame *frame)
{
    struct linux_clone_args args = {
        .flags = frame->rdi,
        .stack = frame->rsi,
        .parent_tid = frame->rdx,
        .child_tid = frame->r10,
        .tls = frame->r8,
    };
    if ((args.flags & CLONE_NEEDED) != CLONE_NEEDED)
        return syscall_refuse(frame, "fork"); /* a unikernel has one process */
    return clone_thread(frame, &args);
}

int64_t sys_clone3(struct frame *frame)
{
    struct linux_clone_args args;
    if (frame->rsi < CLONE_ARGS_MIN)
        return -LINUX_EINVAL;
    if (user_read(&args, frame->rdi, sizeof(args)) != 0)
        return -LINUX_EFAULT;
    if ((args.flags & CLONE_NEEDED) != CLONE_NEEDED)
        return syscall_refuse(frame, "fork"); /* a unikernel has one process */
    if ((args.stack == 0) != (args.stack_bytes == 0) || args.exit_signal != 0)
        return -LINUX_EINVAL;
    args.stack += args.stack_bytes;
    return clone_thread(frame, &args);
}

int64_t sys_set_tid_address(struct frame *frame)
{
    thread_current()->clear_tid = frame->rdi;
    return thread_current()->tid;
}

#define ROBUST_HEAD_BYTES 24

int64_t sys_set_robust_list(struct frame *frame)
{
    if (frame->rsi != ROBUST_HEAD_BYTES)
        return -LINUX_EINVAL;
    thread_current()->robust_list = frame->rdi;
    return 0;
}

int64_t sys_get_robust_list(struct frame *frame)
{
    lock_take(&process.lock);
    struct thread *thread = frame->rdi == 0 ? thread_current() : thread_find((uint32_t)frame->rdi);
    uint64_t head = thread != NULL ? thread->robust_list : 0;
    lock_release(&process.lock);
    if (thread == NULL)
        return -LINUX_ESRCH;
    if (user_put64(frame->rsi, head) != 0 || user_put64(frame->rdx, ROBUST_HEAD_BYTES) != 0)
        return -LINUX_EFAULT;
    return 0;
}

int64_t sys_exit(struct frame *frame)
{
    static uint32_t main_code; /* the process's status if every thread ends by itself */
    struct thread *thread = thread_current();
    uint32_t tid = thread->tid;
    if (tid == process.pid)
        main_code = (uint32_t)frame->rdi;
    futex_exit_robust_list(thread->robust_list, tid);
    events_drain();
    gpa_t clear_tid = thread->clear_tid;
    if (thread_unlink(thread) == 0)
        vmm_exit_group(main_code, 0, false);
    timer_thread_ends(tid);
    signal_reassign(); /* while the structure is nobody else's: a signal's taker is told from it */
    thread_drop(thread);
    if (clear_tid != 0 && user_put32(clear_tid, 0) == 0)
        futex_wake_joiner(clear_tid);
    for (;;)
        vmm_call1(FV_CALL_THREAD_EXIT, 0);
}

int64_t sys_exit_group(struct frame *frame)
{
    vmm_exit_group((uint32_t)frame->rdi, 0, false);
}
