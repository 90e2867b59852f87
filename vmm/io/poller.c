/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The poller: carries out requests that vCPUs post in shared memory (abi.h, FV_POST_*), so that
 * they need not leave the guest. It makes the same handlers' calls as an exit would, but waits for
 * nothing: not for a descriptor, a disk or far memory. What would wait is handed back, and
 * FV_CALL_FINISH carries it out, from the copy taken here, on the vCPU's own thread.
 *
 * Spinning costs a processor, so it must pay. An exit's cost is what the guest kernel measured. The
 * poller wakes when a program loses more than 1/PAYS of its time in exits that could have been
 * posts; each request it answers lets it look for another PAYS exits' worth of time, and when that
 * is used up it sleeps. If it is itself kept from running, comes too late too often or hands most
 * back, it does not help: then it stays away for a while, longer each time. So it does if others
 * are put on its processor in its place: who answers or asks the program on this host, mostly, and
 * makes it wait for longer than an exit takes.
 */
#include "vmm/machine.h"

#include "fault/fault.h"
#include "support.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAYS               100u  /* exits: what may be lost, by spinning or by not spinning */
#define WINDOW_CALLS       16u   /* postable exits between two looks at the clock */
#define EXIT_MIN_NS        1000u /* bounds of what the guest says an exit costs */
#define EXIT_MAX_NS        100000u
#define REVIEW_NS          10000000u /* how often the poller asks itself whether it helps */
#define GAP_NS             50000u    /* between two looks: something else ran here */
#define DISPLACED_MAX      4         /* times in a review that something else took the processor */
#define AWAY_MIN_NS        20000000u
#define AWAY_MAX_NS        320000000u
#define SLICE_NS           100000000 /* a wait for the poller is looked at again this often */
#define POLLER_STACK_BYTES (256u << 10)

struct poller {
    struct vm *vm;
    struct vcpu self; /* stands in for the vCPU whose request it is */
    pthread_t thread;
    atomic_uint wanted; /* futex */
    atomic_bool stopping;
    _Atomic uint64_t away_until_ns;
    uint64_t away_ns;      /* how long it stays away next time */
    _Atomic uint64_t late; /* postable calls that came by an exit though it was awake */
    _Atomic uint64_t answered, handed_back, wakes;
};

static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void futex_wait(atomic_uint *word, unsigned seen, const struct timespec *timeout)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, timeout, NULL, 0);
}

static void count(_Atomic uint64_t *counter)
{
    /* One writer: a plain add, only made atomic for the reader. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* The guest's word for it, within what is possible. */
static uint64_t exit_ns(const struct vm *vm)
{
    uint64_t ticks = __atomic_load_n(&vm->shared->exit_ticks, __ATOMIC_RELAXED);
    uint64_t ns = (uint64_t)(((unsigned __int128)ticks * vm->shared->clock.mult) >> 32);
    if (ns < EXIT_MIN_NS)
        return EXIT_MIN_NS;
    return ns > EXIT_MAX_NS ? EXIT_MAX_NS : ns;
}

/* ---- serving ---- */

static void post_settle(struct post *post, unsigned state)
{
    if (atomic_exchange(&post->state, state) == POST_BUSY_WAITED)
        futex_wake(&post->state);
}

/* Returns whether there was a request. */
static bool post_serve(struct poller *poller, struct vcpu *vcpu)
{
    struct fv_post *guest = &vcpu->page->post;
    struct post *post = &vcpu->post;
    uint32_t posted = FV_POST_POSTED;
    unsigned none = POST_FREE;
    /* Busy before the guest can see it taken: then FV_CALL_FINISH waits, whatever comes between. */
    if (!atomic_compare_exchange_strong(&post->state, &none, POST_BUSY))
        return false;
    if (!__atomic_compare_exchange_n(&guest->state, &posted, FV_POST_TAKEN, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED)) {
        post_settle(post, POST_FREE);
        return false;
    }
    memcpy(&post->call, &guest->call, sizeof(post->call));
    post->part = (struct io_part){0};
    poller->self.handed_back = poller->self.committed = false;
    poller->self.caller = vcpu;
    int64_t result = -ENOSYS;
    if (fv_call_postable(post->call.number))
        result = hostio_call_part(&poller->self, post->call.number, post->call.args, &post->part);
    bool back = poller->self.handed_back;
    count(back ? &poller->handed_back : &poller->answered);
    guest->call.result = result;
    __atomic_store_n(&guest->state, back ? FV_POST_BACK : FV_POST_DONE, __ATOMIC_RELEASE);
    /*
     * Last, since a vCPU in FV_CALL_FINISH goes on at this and may post again: its state must not
     * be written over. A post before this is seen after it, by this very thread.
     */
    post_settle(post, back ? POST_BACK : POST_FREE);
    return true;
}

static bool posts_serve(struct poller *poller)
{
    struct vm *vm = poller->vm;
    uint32_t vcpus = atomic_load(&vm->vcpu_count);
    bool any = false;
    for (uint32_t first = 0; first < vcpus; first += 64) {
        uint64_t *word = &vm->shared->posted[first / 64];
        if (!__atomic_load_n(word, __ATOMIC_RELAXED))
            continue;
        uint64_t bits = __atomic_exchange_n(word, 0, __ATOMIC_ACQUIRE);
        for (; bits; bits &= bits - 1) {
            uint32_t index = first + (uint32_t)__builtin_ctzll(bits);
            if (index < vcpus)
                any |= post_serve(poller, vm->vcpus[index]);
        }
    }
    return any;
}

int64_t poller_finish(struct vcpu *vcpu)
{
    static const struct timespec slice = {.tv_nsec = SLICE_NS};
    struct post *post = &vcpu->post;
    unsigned state;
    while ((state = atomic_load(&post->state)) == POST_BUSY || state == POST_BUSY_WAITED) {
        if (state == POST_BUSY_WAITED ||
            atomic_compare_exchange_strong(&post->state, &state, POST_BUSY_WAITED))
            futex_wait(&post->state, POST_BUSY_WAITED, &slice);
    }
    if (state != POST_BACK)
        return vcpu->page->post.call.result;
    int64_t result = hostio_call_part(vcpu, post->call.number, post->call.args, &post->part);
    hostio_part_end(&post->part);
    atomic_store(&post->state, POST_FREE);
    return result;
}

void poller_forget(struct vcpu *vcpu)
{
    struct post *post = &vcpu->post;
    if (atomic_load(&post->state) != POST_BACK)
        return;
    hostio_part_end(&post->part);
    atomic_store(&post->state, POST_FREE);
}

/* ---- waking and sleeping ---- */

void poller_note_exit(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    struct poller *poller = vm->poller;
    if (!poller)
        return;
    if (__atomic_load_n(&vm->shared->poller_awake, __ATOMIC_RELAXED))
        atomic_fetch_add_explicit(&poller->late, 1, memory_order_relaxed);
    if (++vcpu->window_calls < WINDOW_CALLS)
        return;
    uint64_t now_ns = clock_now_ns(), took_ns = now_ns - vcpu->window_ns;
    vcpu->window_calls = 0;
    vcpu->window_ns = now_ns;
    if (took_ns > WINDOW_CALLS * PAYS * exit_ns(vm) || now_ns < atomic_load(&poller->away_until_ns))
        return;
    if (!atomic_exchange(&poller->wanted, 1))
        futex_wake(&poller->wanted);
}

/* What was seen since the last review. */
struct review {
    uint64_t start_ns, lost_ns, answered, in_vain;
    long displaced;
};

static long displaced(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_nivcsw;
}

/* Requests that cost more with the poller than without. */
static uint64_t in_vain(const struct poller *poller)
{
    return atomic_load(&poller->late) + atomic_load(&poller->handed_back);
}

static void review_begin(const struct poller *poller, struct review *review, uint64_t now_ns)
{
    *review = (struct review){
        .start_ns = now_ns,
        .answered = atomic_load(&poller->answered),
        .in_vain = in_vain(poller),
        .displaced = displaced(),
    };
}

/* Does it help? If not, it is away for a while. */
static bool review_end(struct poller *poller, const struct review *review, uint64_t now_ns)
{
    uint64_t answered = atomic_load(&poller->answered) - review->answered;
    uint64_t vain = in_vain(poller) - review->in_vain;
    bool helps = review->lost_ns < (now_ns - review->start_ns) / 4 && vain <= answered / 2 + 4 &&
                 displaced() - review->displaced <= DISPLACED_MAX;
    if (helps || poller->vm->config->polling == POLLING_ON) {
        poller->away_ns = AWAY_MIN_NS;
        return true;
    }

    atomic_store(&poller->away_until_ns, now_ns + poller->away_ns);
    if (poller->away_ns < AWAY_MAX_NS)
        poller->away_ns *= 2;
    return false;
}

/* Looks for requests until they are too rare, or it does not help. */
static void poller_look(struct poller *poller)
{
    uint64_t now_ns = clock_now_ns(), seen_ns = now_ns, worth_ns = PAYS * exit_ns(poller->vm);
    uint64_t most_ns = WINDOW_CALLS * worth_ns; /* that many calls woke it */
    uint64_t until_ns = now_ns + most_ns;
    struct review review;
    review_begin(poller, &review, now_ns);
    bool always = poller->vm->config->polling == POLLING_ON;
    while ((now_ns < until_ns || always) && !atomic_load(&poller->stopping)) {
        bool any = posts_serve(poller);
        now_ns = clock_now_ns();
        if (any && until_ns + worth_ns < now_ns + most_ns)
            until_ns += worth_ns;
        else if (!any && now_ns - seen_ns > GAP_NS)
            review.lost_ns += now_ns - seen_ns;
        seen_ns = now_ns;
        if (now_ns - review.start_ns >= REVIEW_NS) {
            if (!review_end(poller, &review, now_ns))
                return;
            review_begin(poller, &review, now_ns);
        }
        __builtin_ia32_pause();
    }
}

static void *poller_thread(void *argument)
{
    struct poller *poller = argument;
    struct vm *vm = poller->vm;
    pthread_setname_np(pthread_self(), "poller");
    poller->self.tid = (pid_t)syscall(SYS_gettid);
    vcpu_stand_in(&poller->self);
    while (!atomic_load(&poller->stopping)) {
        if (!atomic_exchange(&poller->wanted, 0)) {
            futex_wait(&poller->wanted, 0, NULL);
            continue;
        }
        count(&poller->wakes);
        __atomic_store_n(&vm->shared->poller_awake, 1, __ATOMIC_SEQ_CST);
        poller_look(poller);
        __atomic_store_n(&vm->shared->poller_awake, 0, __ATOMIC_SEQ_CST);
        /*
         * A post that crossed with this is withdrawn by its vCPU. Calls that came by exits while
         * it was awake do not count: it may just have decided to stay away.
         */
        atomic_store(&poller->wanted, 0);
    }
    return NULL;
}

/* ---- life ---- */

static int thread_start(struct poller *poller)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, POLLER_STACK_BYTES);
    int error = -pthread_create(&poller->thread, &attributes, poller_thread, poller);
    pthread_attr_destroy(&attributes);
    return error;
}

int poller_start(struct vm *vm)
{
    enum polling polling = vm->config->polling;
    cpu_set_t set;
    if (polling == POLLING_OFF ||
        (polling == POLLING_AUTO && sched_getaffinity(0, sizeof(set), &set) == 0 &&
         CPU_COUNT(&set) < 2))
        return 0;
    struct poller *poller = calloc(1, sizeof(*poller));
    int error = poller ? 0 : -ENOMEM;
    if (!error) {
        poller->vm = poller->self.vm = vm;
        poller->self.at_once = true;
        poller->self.fd = -1;
        poller->away_ns = AWAY_MIN_NS;
        atomic_init(&poller->wanted, polling == POLLING_ON);
        error = vm->engine ? fault_context_create(vm->engine, &poller->self.fault) : 0;
    }
    if (!error)
        error = thread_start(poller);
    if (!error) {
        vm->poller = poller;
        return 0;
    }
    message_error("host: poller thread: %s", strerror(-error));
    if (poller && poller->self.fault)
        fault_context_destroy(poller->self.fault);
    free(poller);
    return error;
}

bool poller_stop(struct vm *vm, uint64_t timeout_ns)
{
    struct poller *poller = vm->poller;
    struct timespec until;
    if (!poller)
        return true;
    atomic_store(&poller->stopping, true);
    atomic_store(&poller->wanted, 1);
    futex_wake(&poller->wanted);
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t deadline_ns = (uint64_t)until.tv_nsec + timeout_ns;
    until.tv_sec += (time_t)(deadline_ns / 1000000000);
    until.tv_nsec = (long)(deadline_ns % 1000000000);
    if (pthread_timedjoin_np(poller->thread, NULL, &until))
        return false;
    vm->poller = NULL;
    if (poller->self.fault)
        fault_context_destroy(poller->self.fault);
    free(poller);
    return true;
}

const struct vcpu *poller_vcpu(const struct vm *vm)
{
    return vm->poller ? &vm->poller->self : NULL;
}

void poller_counters(const struct vm *vm, struct poller_counters *out)
{
    const struct poller *poller = vm->poller;
    *out = (struct poller_counters){0};
    if (!poller)
        return;
    out->answered = atomic_load_explicit(&poller->answered, memory_order_relaxed);
    out->handed_back = atomic_load_explicit(&poller->handed_back, memory_order_relaxed);
    out->wakes = atomic_load_explicit(&poller->wakes, memory_order_relaxed);
}
