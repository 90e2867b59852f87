/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The events thread: signals sent to farvisor and expired timers become events in fv_shared's ring,
 * a lost memory node ends the machine, the guest's clock is kept true, and an end that hangs is cut
 * short. It never touches pageable guest memory, so it goes on when far memory does not.
 *
 * The ring may be full: what does not fit waits here, signals as a set and timers as overrun
 * counts, and is offered again soon. The guest's half of the ring is taken with a grain of salt.
 */
#include "vmm/machine.h"

#include "fault/fault.h"
#include "rdma/rdma.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define CLOCK_REFRESH_NS   250000000ULL
#define RETRY_NS           10000000ULL
#define TICK_NS            1000000ULL
#define FORCE_NS           3000000000ULL /* a second interrupt this soon, the first unseen, ends it */
#define EVENTS_STACK_BYTES (128u << 10)

struct events {
    struct vm *vm;
    pthread_t thread;
    bool started;
    int epoll_fd, signal_fd, stop_fd, end_fd, tick_fd, engine_fd;
    bool ticking; /* hostio_sends_tick wants it, at: */
    uint64_t tick_due_ns;
    unsigned idle_ticks;
    struct clock_state clock;
    uint64_t clock_due_ns, force_from_ns;
    atomic_ullong cut_ns; /* when the process is ended as it is; 0: the guest lives */
    uint32_t force_head;  /* ring position of the interrupt that may be unseen */

    pthread_mutex_t reading; /* of signal_fd: what was read is in the ring once it is given up */
    pthread_mutex_t lock;    /* the ring's writing end, and what did not fit */
    uint64_t signals_held;
    uint64_t timers_held[FV_TIMER_MAX];
    _Atomic uint64_t timers_told[FV_TIMER_MAX];
    bool held;
};

/* The program's to handle; those that stop or continue a job, and faults of our own, are not. */
static void forwarded_set(sigset_t *set)
{
    static const int taken[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1,   SIGUSR2, SIGALRM, SIGTERM,
                                SIGURG, SIGIO,  SIGPWR,  SIGVTALRM, SIGPROF, SIGXCPU, SIGWINCH};
    sigemptyset(set);
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        struct sigaction now;
        /* Ignored since before the start (nohup): stays ignored, as it would for the program. */
        if (sigaction(taken[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(set, taken[i]);
    }
    for (int number = SIGRTMIN; number < MACHINE_SIGNAL_TIMER; number++)
        sigaddset(set, number);
    sigaddset(set, MACHINE_SIGNAL_TIMER);
}

int events_block_signals(void)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    forwarded_set(&set);
    sigaction(SIGPIPE, &ignore, NULL); /* the guest kernel raises it itself, on the right thread */
    sigaction(SIGXFSZ, &ignore, NULL); /* ulimit -f: EFBIG says it, and is not the end of us */
    return -pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Caller holds the lock. */
static bool ring_put(struct events *events, uint32_t type, uint32_t id, uint64_t value)
{
    struct fv_shared *shared = events->vm->shared;
    uint32_t head = shared->event_head;
    uint32_t tail = __atomic_load_n(&shared->event_tail, __ATOMIC_ACQUIRE);
    if (head - tail >= FV_EVENT_RING)
        return false;
    shared->events[head % FV_EVENT_RING] =
        (struct fv_event){.type = type, .id = id, .value = value};
    __atomic_store_n(&shared->event_head, head + 1, __ATOMIC_RELEASE);
    return true;
}

/*
 * Whoever runs the guest kernel next reads the ring; the main thread is the natural reader. A
 * thread that ends just now may not look any more: either it sees `pending` after it gave up
 * `in_use` (vcpu_leave), or it is seen here to have given it up.
 */
void events_reader_kick(struct vm *vm)
{
    uint32_t count = atomic_load(&vm->vcpu_count);
    for (uint32_t i = 0; i < count; i++) {
        struct vcpu *vcpu = vm->vcpus[i];
        if (!atomic_load(&vcpu->in_use))
            continue;
        __atomic_fetch_or(&vcpu->page->pending, FV_PENDING_SIGNAL, __ATOMIC_SEQ_CST);
        if (!atomic_load(&vcpu->in_use))
            continue;
        vcpu_kick(vcpu);
        return;
    }
}

/* Caller holds the lock. */
static void event_hold(struct events *events, uint32_t type, uint32_t id, uint64_t value)
{
    if (type == FV_EVENT_SIGNAL && id >= 1 && id <= 64)
        events->signals_held |= 1ULL << (id - 1);
    else if (type == FV_EVENT_TIMER && id < FV_TIMER_MAX)
        events->timers_held[id] += value + 1;
    events->held = true;
}

void vm_post_event(struct vm *vm, uint32_t type, uint32_t id, uint64_t value)
{
    struct events *events = vm->events;
    pthread_mutex_lock(&events->lock);
    if (type == FV_EVENT_TIMER && id < FV_TIMER_MAX)
        events->timers_told[id]++;
    if (!ring_put(events, type, id, value))
        event_hold(events, type, id, value);
    pthread_mutex_unlock(&events->lock);
    events_reader_kick(vm);
}

uint64_t events_timer_told(struct vm *vm, uint32_t id)
{
    return atomic_load(&vm->events->timers_told[id]);
}

void events_timer_forget(struct vm *vm, uint32_t id)
{
    pthread_mutex_lock(&vm->events->lock);
    uint64_t count = vm->events->timers_held[id];
    vm->events->timers_held[id] = 0;
    if (count) /* there may be room by now */
        (void)ring_put(vm->events, FV_EVENT_TIMER, id, count - 1);
    pthread_mutex_unlock(&vm->events->lock);
}

/* Offers again what did not fit. */
static void held_retry(struct events *events)
{
    bool put = false, left = false;
    pthread_mutex_lock(&events->lock);
    for (uint32_t id = 1; id <= 64 && events->held; id++) {
        uint64_t bit = 1ULL << (id - 1);
        if (events->signals_held & bit && ring_put(events, FV_EVENT_SIGNAL, id, 0)) {
            events->signals_held &= ~bit;
            put = true;
        }
    }
    for (uint32_t id = 0; id < FV_TIMER_MAX && events->held; id++) {
        uint64_t count = events->timers_held[id];
        if (count && ring_put(events, FV_EVENT_TIMER, id, count - 1)) {
            events->timers_held[id] = 0;
            put = true;
        }
        left |= events->timers_held[id] != 0;
    }
    events->held = events->held && (left || events->signals_held);
    pthread_mutex_unlock(&events->lock);
    if (put)
        events_reader_kick(events->vm);
}

/*
 * Somebody who asks twice and is not even heard (the guest hangs) gets what he asked for. A program
 * that read the first one and chose to go on is left alone.
 */
static bool signal_forces_end(struct events *events, int number)
{
    const struct fv_shared *shared = events->vm->shared;
    if (number != SIGINT && number != SIGTERM)
        return false;
    uint64_t now_ns = clock_now_ns();
    uint32_t tail = __atomic_load_n(&shared->event_tail, __ATOMIC_ACQUIRE);
    bool unseen = (int32_t)(tail - events->force_head) <= 0;
    if (events->force_from_ns && unseen)
        return now_ns - events->force_from_ns <= FORCE_NS;
    events->force_from_ns = now_ns;
    events->force_head = shared->event_head;
    return false;
}

static void signals_read(struct events *events)
{
    struct signalfd_siginfo info;
    pthread_mutex_lock(&events->reading);
    while (read(events->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if ((int)info.ssi_signo == MACHINE_SIGNAL_TIMER) {
            if ((uint32_t)info.ssi_int < FV_TIMER_MAX)
                vm_post_event(events->vm, FV_EVENT_TIMER, (uint32_t)info.ssi_int, info.ssi_overrun);
        } else if (signal_forces_end(events, (int)info.ssi_signo)) {
            if (vm_end(events->vm, EXIT_SIGNAL_BASE + (int)info.ssi_signo))
                message_warning("guest: does not react to signals: ended");
        } else {
            vm_post_event(events->vm, FV_EVENT_SIGNAL, info.ssi_signo, info.ssi_pid);
        }
    }
    pthread_mutex_unlock(&events->reading);
}

void events_settle(struct vm *vm)
{
    signals_read(vm->events);
}

/* The memory node is lost, with every vCPU perhaps blocked elsewhere. rdma/ has mostly said why. */
static void engine_failed(struct events *events)
{
    epoll_ctl(events->epoll_fd, EPOLL_CTL_DEL, events->engine_fd, NULL);
    vm_end(events->vm, EXIT_FARVISOR);
    bool lost = events->vm->node && rdma_node_error(events->vm->node); /* rdma/ says so itself */
    if (!lost && !message_errors())
        message_error("far memory: %s", strerror(-fault_engine_error(events->vm->engine)));
}

void events_watch_end(struct vm *vm)
{
    uint64_t one = 1;
    if (!vm->events)
        return;
    bool lost = vm->engine && fault_engine_error(vm->engine);
    unsigned long long none = 0; /* the main thread may have seen the end before we come here */
    atomic_compare_exchange_strong(&vm->events->cut_ns, &none,
                                   clock_now_ns() + (lost ? MACHINE_LOST_END_NS : MACHINE_END_NS));
    (void)!write(vm->events->end_fd, &one, sizeof(one));
}

/* What is left is ours: threads to join, a trace and statistics to write. */
void events_main_left(struct vm *vm)
{
    atomic_store(&vm->events->cut_ns, clock_now_ns() + MACHINE_END_NS);
}

/* The main thread itself is stuck, in a host call that no signal ends. */
static void cut_short(struct events *events)
{
    uint64_t cut_ns = atomic_load(&events->cut_ns);
    if (cut_ns && clock_now_ns() >= cut_ns) {
        hostio_abandon(events->vm->io);
        _exit(events->vm->exit_status);
    }
}

/* Milliseconds until something is due by the clock alone. */
static int wait_ms(struct events *events)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t due_ns = events->clock_due_ns;
    if (events->held && now_ns + RETRY_NS < due_ns)
        due_ns = now_ns + RETRY_NS;
    if (events->ticking && events->tick_due_ns < due_ns)
        due_ns = events->tick_due_ns;
    uint64_t cut_ns = atomic_load(&events->cut_ns);
    if (cut_ns && cut_ns < due_ns)
        due_ns = cut_ns;
    return due_ns > now_ns ? (int)((due_ns - now_ns + 999999) / 1000000) : 0;
}

static void tick_begin(struct events *events)
{
    uint64_t asked;
    (void)!read(events->tick_fd, &asked, sizeof(asked));
    events->ticking = true;
    events->tick_due_ns = clock_now_ns() + TICK_NS;
}

/* Not oftener, whatever else wakes us. */
static void tick(struct events *events)
{
    uint64_t now_ns = clock_now_ns();
    if (!events->ticking || now_ns < events->tick_due_ns)
        return;
    events->tick_due_ns = now_ns + TICK_NS;
    events->ticking = hostio_sends_tick(events->vm->io, &events->idle_ticks);
}

static void *events_thread(void *argument)
{
    struct events *events = argument;
    pthread_setname_np(pthread_self(), "events");
    for (;;) {
        struct epoll_event ready[8];
        int count = epoll_wait(events->epoll_fd, ready, 8, wait_ms(events));
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == events->stop_fd)
                return NULL;
            if (ready[i].data.fd == events->end_fd)
                epoll_ctl(events->epoll_fd, EPOLL_CTL_DEL, events->end_fd, NULL);
            else if (ready[i].data.fd == events->signal_fd)
                signals_read(events);
            else if (ready[i].data.fd == events->tick_fd)
                tick_begin(events);
            else
                engine_failed(events);
        }
        cut_short(events);
        tick(events);
        if (events->held)
            held_retry(events);
        if (clock_now_ns() >= events->clock_due_ns) {
            clock_refresh(events->vm, &events->clock);
            events->clock_due_ns = clock_now_ns() + CLOCK_REFRESH_NS;
        }
    }
}

static int watch(struct events *events, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0)
        return -errno;
    return epoll_ctl(events->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int events_open(struct events *events)
{
    sigset_t set;
    forwarded_set(&set);
    events->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (events->epoll_fd < 0)
        return -errno;
    int error = watch(events, events->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!error)
        error = watch(events, events->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!error)
        error = watch(events, events->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!error)
        error = watch(events, events->tick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!error)
        hostio_tick_by(events->vm->io, events->tick_fd);
    events->engine_fd = fault_engine_event_fd(events->vm->engine);
    if (!error && events->engine_fd >= 0)
        error = watch(events, events->engine_fd);
    return error;
}

static int thread_start(struct events *events)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, EVENTS_STACK_BYTES);
    int error = -pthread_create(&events->thread, &attributes, events_thread, events);
    pthread_attr_destroy(&attributes);
    events->started = !error;
    return error;
}

int events_start(struct vm *vm)
{
    struct events *events = calloc(1, sizeof(*events));
    if (!events)
        return -ENOMEM;
    vm->events = events;
    events->vm = vm;
    events->epoll_fd = events->signal_fd = events->stop_fd = -1;
    events->end_fd = events->tick_fd = events->engine_fd = -1;
    pthread_mutex_init(&events->reading, NULL);
    pthread_mutex_init(&events->lock, NULL);
    clock_start(vm, &events->clock);
    events->clock_due_ns = clock_now_ns() + CLOCK_REFRESH_NS;
    int error = events_open(events);
    if (!error)
        error = thread_start(events);
    if (error)
        message_error("host: events thread: %s", strerror(-error));
    return error;
}

void events_stop(struct vm *vm)
{
    struct events *events = vm->events;
    if (!events)
        return;
    if (events->started) {
        uint64_t one = 1;
        (void)!write(events->stop_fd, &one, sizeof(one));
        pthread_join(events->thread, NULL);
    }
    int fds[] = {events->signal_fd, events->stop_fd, events->end_fd, events->tick_fd,
                 events->epoll_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    pthread_mutex_destroy(&events->reading);
    pthread_mutex_destroy(&events->lock);
    free(events);
    vm->events = NULL;
}
