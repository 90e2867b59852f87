/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest threads as host threads: creation when the program first needs one, reuse of those whose
 * guest thread ended. The guest's main thread lives on our main thread, so its thread id equals the
 * process id as programs expect.
 *
 * A vCPU is kept for good: KVM frees none before the machine ends, and kernels before 6.13 wait for
 * all processors (milliseconds) when another host thread begins to run one. So its host thread is
 * kept, too, unless something of its last guest thread would stay with it: who waits for a
 * priority-inheriting lock waits for this host thread, and only its end tells that the owner died;
 * and how it is scheduled may not be what the next one is to begin with (inherit.c).
 *
 * A host thread; vcpu_lock guards all but `joinable`, which is its maker's:
 *   ready 0 -> 1     itself: it is set up (or cannot be: start_error)
 *   in_use 0 -> 1    maker of a guest thread, which may run from here on
 *   in_use 1 -> 0    itself: the guest thread is over. It parks, waiting on `wake`, or, if it may
 *                    hold a lock, leaves: gone 0 -> 1 with it
 *   taken 0 -> 1     maker of a guest thread: this host thread is to be replaced. retired 0 -> 1
 *                    ends a parked one, it is joined, another made; taken 1 -> 0
 */
#include "vmm/machine.h"

#include "fault/fault.h"
#include "support.h"
#include "vmm/miss.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Deep enough for the paging engine and a crash report; only touched pages count. */
#ifdef __SANITIZE_THREAD__ /* its own state of a thread, 0.4 MiB, lies on the stack too */
#define VCPU_STACK_BYTES (2u << 20)
#else
#define VCPU_STACK_BYTES (512u << 10)
#endif

static __thread struct vcpu *self;

struct vcpu *vcpu_self(void)
{
    return self;
}

void vcpu_stand_in(struct vcpu *vcpu)
{
    self = vcpu;
}

struct vcpu *vcpu_by_tid(struct vm *vm, pid_t tid)
{
    uint32_t count = atomic_load(&vm->vcpu_count);
    for (uint32_t i = 0; i < count; i++) {
        struct vcpu *vcpu = vm->vcpus[i];
        if (atomic_load(&vcpu->in_use) && vcpu->tid == tid)
            return vcpu;
    }
    return NULL;
}

void vcpu_stop_all(struct vm *vm)
{
    pthread_mutex_lock(&vm->vcpu_lock);
    uint32_t count = atomic_load(&vm->vcpu_count);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load(&vm->vcpus[i]->in_use))
            vcpu_kick(vm->vcpus[i]);
        pthread_cond_signal(&vm->vcpus[i]->wake);
    }
    pthread_cond_broadcast(&vm->vcpu_wake);
    pthread_mutex_unlock(&vm->vcpu_lock);
}

/* Caller holds vcpu_lock. The vCPU joins the table only once it is ready to be found there. */
static struct vcpu *vcpu_alloc(struct vm *vm)
{
    struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return NULL;
    vcpu->vm = vm;
    vcpu->index = atomic_load(&vm->vcpu_count);
    vcpu->fd = vcpu->kvm_stats_fd = -1;
    pthread_cond_init(&vcpu->wake, NULL);
    return vcpu;
}

static void vcpu_free(struct vcpu *vcpu)
{
    poller_forget(vcpu);
    pthread_cond_destroy(&vcpu->wake);
    free(vcpu);
}

static int vcpu_prepare(struct vcpu *vcpu)
{
    vcpu->tid = (pid_t)syscall(SYS_gettid);
    int error = kick_timer_create(vcpu);
    if (error)
        return error;
    if (vcpu->fd < 0) {
        error = vcpu_open(vcpu);
        if (!error && vcpu->vm->engine)
            error = fault_context_create(vcpu->vm->engine, &vcpu->fault);
    } else if (vcpu->fault) {
        fault_context_adopt(vcpu->fault);
    }
    if (error) {
        vcpu_close(vcpu);
        kick_timer_delete(vcpu);
        return error;
    }
    self = vcpu;
    return 0;
}

static void vcpu_publish(struct vcpu *vcpu)
{
    vcpu->vm->vcpus[vcpu->index] = vcpu;
    atomic_store(&vcpu->vm->vcpu_count, vcpu->index + 1);
}

int vcpu_first_create(struct vm *vm)
{
    struct vcpu *vcpu = vcpu_alloc(vm);
    if (!vcpu)
        return -ENOMEM;
    vcpu_publish(vcpu); /* nobody else is there yet; the owner frees it on failure too */
    int error = vcpu_prepare(vcpu);
    if (!error)
        error = vcpu_reset(vcpu, vm->image.entry, FV_FDT_BASE);
    atomic_store(&vcpu->in_use, !error);
    return error;
}

/* The guest thread is over. Events it was to look at, and now will not, are another's. */
static void vcpu_leave(struct vcpu *vcpu)
{
    guide_fault_forget(vcpu);
    atomic_store(&vcpu->in_use, false);
    if (__atomic_load_n(&vcpu->page->pending, __ATOMIC_SEQ_CST))
        events_reader_kick(vcpu->vm);
}

void vcpu_first_run(struct vm *vm)
{
    struct vcpu *vcpu = vm->vcpus[0];
    vcpu_loop(vcpu);
    vcpu_leave(vcpu);
    /* pthread_exit in main: the others go on. */
    if (!atomic_load(&vm->ending))
        hostio_main_ends(vm);
    pthread_mutex_lock(&vm->vcpu_lock);
    while (!atomic_load(&vm->ending))
        pthread_cond_wait(&vm->vcpu_wake, &vm->vcpu_lock);
    pthread_mutex_unlock(&vm->vcpu_lock);
}

/* Waits for a guest thread to run. Caller holds vcpu_lock. false: it is to leave. */
static bool vcpu_park(struct vcpu *vcpu)
{
    while (!atomic_load(&vcpu->in_use) && !vcpu->retired && !atomic_load(&vcpu->vm->ending))
        pthread_cond_wait(&vcpu->wake, &vcpu->vm->vcpu_lock);
    return !vcpu->retired && !atomic_load(&vcpu->vm->ending);
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *vcpu = argument;
    struct vm *vm = vcpu->vm;
    int error = vcpu_prepare(vcpu);
    pthread_mutex_lock(&vm->vcpu_lock);
    vcpu->start_error = error;
    vcpu->ready = true;
    pthread_cond_broadcast(&vm->vcpu_wake);
    while (!error && !vcpu->retired && vcpu_park(vcpu)) {
        uint64_t cookie = vcpu->cookie;
        pthread_mutex_unlock(&vm->vcpu_lock);
        inherit_take(vcpu);
        atomic_store(&vcpu->look_again, false); /* the last thread's */
        /* So is a kick whose signal went to a host thread that is no more. The handler of one that
         * comes from here on sets immediate_exit, too. */
        atomic_store(&vcpu->kicked, 0);
        error = vcpu_reset(vcpu, vm->image.thread_entry, cookie);
        /* It may have been picked to look at events already, and vcpu_reset wiped the note. */
        __atomic_store_n(&vcpu->page->pending, FV_PENDING_SIGNAL, __ATOMIC_SEQ_CST);
        if (error)
            vcpu_fatal(vcpu, "registers of a new thread were refused by KVM");
        else
            vcpu_loop(vcpu);
        pthread_mutex_lock(&vm->vcpu_lock);
        vcpu_leave(vcpu);
        vcpu->retired = hostio_owner_is_awaited(vm->io);
    }
    kick_timer_delete(vcpu);
    vcpu->gone = true;
    pthread_cond_broadcast(&vm->vcpu_wake);
    pthread_mutex_unlock(&vm->vcpu_lock);
    return NULL;
}

/* Caller holds vcpu_lock, which is dropped while the thread starts. */
static int vcpu_host(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, VCPU_STACK_BYTES);
    int error = -pthread_create(&vcpu->thread, &attributes, vcpu_thread, vcpu);
    pthread_attr_destroy(&attributes);
    if (error)
        return error;
    vcpu->joinable = true;
    vm->hosts_made++;
    while (!vcpu->ready)
        pthread_cond_wait(&vm->vcpu_wake, &vm->vcpu_lock);
    return vcpu->start_error;
}

/* Likewise, until it has left and is no more. */
static void vcpu_unhost(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    vcpu->retired = true;
    pthread_cond_signal(&vcpu->wake);
    pthread_mutex_unlock(&vm->vcpu_lock);
    if (vcpu->joinable)
        pthread_join(vcpu->thread, NULL);
    pthread_mutex_lock(&vm->vcpu_lock);
    vcpu->joinable = false;
}

/* Caller holds vcpu_lock, which is dropped meanwhile. */
static int vcpu_spawn(struct vm *vm, struct vcpu **out)
{
    if (atomic_load(&vm->vcpu_count) >= vm->config->threads_max || vm->spawning)
        return -EAGAIN;
    struct vcpu *vcpu = vcpu_alloc(vm);
    if (!vcpu)
        return -ENOMEM;
    vm->spawning = true; /* its index is taken */
    int error = vcpu_host(vcpu);
    if (error && vcpu->joinable) {
        vcpu_unhost(vcpu);
        error = error == -ENOMEM ? -ENOMEM : -EAGAIN;
    }
    vm->spawning = false;
    pthread_cond_broadcast(&vm->vcpu_wake);
    if (error) {
        vcpu_free(vcpu);
        return error;
    }
    vcpu_publish(vcpu);
    *out = vcpu;
    return 0;
}

/* Another host thread for an idle vCPU, made by the calling one. Caller holds vcpu_lock, likewise.
 */
static int vcpu_rehost(struct vcpu *vcpu)
{
    vcpu->taken = true;
    vcpu_unhost(vcpu);
    vcpu->retired = vcpu->ready = vcpu->gone = false;
    int error = vcpu_host(vcpu);
    vcpu->gone |= error != 0; /* there is none: whoever waits for all to leave does not wait */
    vcpu->taken = false;
    pthread_cond_broadcast(&vcpu->vm->vcpu_wake);
    return error;
}

/*
 * One whose host thread can be used as it is, if there is one (*fits); or one that has none, or has
 * to get another. Index 0 stays with the program's main thread: its thread id is the process id.
 */
static struct vcpu *vcpu_find_idle(struct vm *vm, bool *fits)
{
    struct vcpu *found = NULL;
    uint32_t count = atomic_load(&vm->vcpu_count);
    for (uint32_t i = 1; i < count; i++) {
        struct vcpu *vcpu = vm->vcpus[i];
        if (atomic_load(&vcpu->in_use) || vcpu->taken)
            continue;
        *fits = !vcpu->gone && inherit_fits(vcpu);
        if (*fits)
            return vcpu;
        if (!found || vcpu->gone)
            found = vcpu;
    }
    return found;
}

int64_t vcpu_thread_create(struct vcpu *parent, uint64_t cookie)
{
    struct vm *vm = parent->vm;
    struct vcpu *vcpu;
    bool fits = false;
    int error = 0;
    pthread_mutex_lock(&vm->vcpu_lock);
    while ((vcpu = vcpu_find_idle(vm, &fits)) == NULL && vm->spawning && !atomic_load(&vm->ending))
        pthread_cond_wait(&vm->vcpu_wake, &vm->vcpu_lock);
    if (!vcpu)
        error = vcpu_spawn(vm, &vcpu);
    else if (!fits)
        error = vcpu_rehost(vcpu);
    if (!error) {
        inherit_give(vcpu);
        vcpu->cookie = cookie;
        vcpu->begun++;
        atomic_store(&vcpu->in_use, true);
        pthread_cond_signal(&vcpu->wake);
    }
    int64_t result = error ? error : vcpu->tid;
    pthread_mutex_unlock(&vm->vcpu_lock);
    return result;
}

bool vcpu_join_all(struct vm *vm, uint64_t timeout_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t deadline = (uint64_t)until.tv_nsec + timeout_ns;
    until.tv_sec += (time_t)(deadline / 1000000000);
    until.tv_nsec = (long)(deadline % 1000000000);
    pthread_mutex_lock(&vm->vcpu_lock);
    bool all = true;
    /* The count may still grow: whoever was starting a thread leaves only after that one joined. */
    for (uint32_t i = 1; i < atomic_load(&vm->vcpu_count) && all; i++) {
        while (!vm->vcpus[i]->gone && all)
            all = pthread_cond_timedwait(&vm->vcpu_wake, &vm->vcpu_lock, &until) != ETIMEDOUT;
    }
    all = all && !vm->spawning;
    uint32_t count = atomic_load(&vm->vcpu_count);
    pthread_mutex_unlock(&vm->vcpu_lock);
    for (uint32_t i = 1; i < count && all; i++) {
        if (vm->vcpus[i]->joinable)
            pthread_join(vm->vcpus[i]->thread, NULL);
    }
    return all;
}

void vcpu_destroy_all(struct vm *vm)
{
    uint32_t count = atomic_load(&vm->vcpu_count);
    self = NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (vm->vcpus[i]->fault)
            fault_context_destroy(vm->vcpus[i]->fault);
        kick_timer_delete(vm->vcpus[i]);
        vcpu_close(vm->vcpus[i]);
        vcpu_free(vm->vcpus[i]);
        vm->vcpus[i] = NULL;
    }
    atomic_store(&vm->vcpu_count, 0);
}
