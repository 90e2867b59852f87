/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --fault-mode uffd, the usual design: the faulting vCPU sleeps in the kernel, a handler thread
 * reads the event and resolves it through the same engine. Kept as a fallback and as the baseline
 * that benchmarks compare with. Several handlers, because one may sleep for a page another is
 * moving.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HANDLERS  4
#define SIGNAL_NS 20000000ULL   /* a signal that can get a vCPU out has done so */
#define BARRED_NS 1000000000ULL /* it may have to wait for a processor */

/* Its context is made before it starts: a handler that ended for want of one would leave whoever
 * faults asleep for ever. */
struct handler {
    struct event_threads *threads;
    struct fault_context *context;
    pthread_t thread;
};

struct event_threads {
    struct fault_engine *engine;
    int stop_fd;
    atomic_bool stop; /* for a handler that spins */
    unsigned running;
    struct handler handlers[HANDLERS];
};

/*
 * Owns the word of a page that has no contents, so that nobody fills it, copies from it or maps a
 * file there meanwhile: ABSENT or REMOTE is all it can be. *was: what it goes back to. A page that
 * the host kernel fills, or that is being mapped or unmapped, is left alone.
 */
static bool page_own(struct fault_engine *engine, uint64_t page, enum ept_state *was)
{
    const struct fault_source *source = &engine->config.source;
    uint64_t first, last;
    bool zero;
    *was = ept_word_state(atomic_load(&engine->words[page]));
    if (*was == EPT_REMOTE)
        return run_claim(engine, page, 1, EPT_REMOTE, EPT_FETCHING, 0) == 1;
    if (*was != EPT_ABSENT)
        return false;
    run_existing(engine, page, 1, 1); /* before the claim: fault/run.c */
    bool claimed = run_claim(engine, page, 1, EPT_ABSENT, EPT_FILLING, 0) == 1;
    int filled = claimed ? source->extent(source->owner, page, &first, &last, &zero) : 0;
    if (claimed && filled != 1 && filled != -EFAULT)
        return true;
    if (claimed)
        run_release(engine, page, 1, EPT_ABSENT);
    run_existing(engine, page, 1, -1);
    return false;
}

/*
 * Gets a vCPU out of KVM_RUN, where it waits for a page without contents. From Linux 6.2 on a
 * signal does it; before, only one that kills. Then access to the page is taken away and the waiter
 * woken: KVM finds that the page cannot be reached, and KVM_RUN fails with EFAULT, as in exit mode.
 * It looks by itself then, and waits for the word until the page is as it was.
 */
static void waiter_free(struct fault_engine *engine, uint64_t page, int tid)
{
    const struct fault_source *source = &engine->config.source;
    enum ept_state was;
    if (source->unfillable(source->owner, tid, false, SIGNAL_NS))
        return;
    if (page_own(engine, page, &was)) {
        int barred = ept_bar(engine->ept, page, true);
        ept_wake(engine->ept, page, 1);
        if (barred == 0) {
            source->unfillable(source->owner, tid, true, BARRED_NS);
            ept_bar(engine->ept, page, false);
        }
        run_release(engine, page, 1, was);
        if (was == EPT_ABSENT)
            run_existing(engine, page, 1, -1);
    }
    /* Whoever came too late to look waits anew, and is told anew. */
    ept_wake(engine->ept, page, 1);
}

static void event_handle(struct fault_context *context, const struct uffd_msg *event)
{
    struct fault_engine *engine = context->engine;
    gpa_t gpa;
    if (event->event != UFFD_EVENT_PAGEFAULT ||
        !ept_gpa_of(engine->ept, (void *)(uintptr_t)event->arg.pagefault.address, &gpa))
        return;
    bool write = event->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
    uint64_t page = gpa >> EPT_PAGE_SHIFT;
    int tid = (int)event->arg.pagefault.feat.ptid;
    /* Any handler may get any thread's event; what a thread does next is known by thread. */
    context->lane = (unsigned)tid % LANES;
    int error = fault_resolve(context, page, write);
    /* The sleeper must wake even if somebody else installed the page: it then touches it again. */
    bool asked = engine->config.source.unfillable != NULL;
    if (error >= 0 || (error == -EFAULT && !asked)) {
        ept_wake(engine->ept, page, 1);
        return;
    }
    /* The vCPU looks for itself, and says what it finds: that there is nothing, or no room for it,
     * or (EFAULT) that nothing is mapped there any more, which the guest's own tables tell it. */
    bool told_by_vcpu = error == -EIO || error == -ENOMEM || error == -EBUSY || error == -EFAULT;
    if (!told_by_vcpu || !asked || fault_engine_error(engine))
        fault_fail(engine, error);
    if (asked)
        waiter_free(engine, page, tid);
}

static void *handler_main(void *argument)
{
    struct handler *handler = argument;
    struct event_threads *threads = handler->threads;
    int uffd = ept_event_fd(threads->engine->ept), error = 0;
    struct pollfd fds[2] = {{.fd = uffd, .events = POLLIN},
                            {.fd = threads->stop_fd, .events = POLLIN}};
    for (;;) {
        error = poll(fds, 2, -1) < 0 && errno != EINTR ? -errno : 0;
        if (error || fds[1].revents)
            break;
        struct uffd_msg event;
        if (read(uffd, &event, sizeof(event)) == sizeof(event))
            event_handle(handler->context, &event);
    }
    if (error) {
        message_error("host: fault handler thread: %s", strerror(-error));
        fault_fail_told(threads->engine, error);
    }
    return NULL;
}

/* Never sleeps: what a design with a handler thread can do at best, for a processor of its own. */
static void *spinner_main(void *argument)
{
    struct handler *handler = argument;
    struct event_threads *threads = handler->threads;
    int uffd = ept_event_fd(threads->engine->ept);
    while (!atomic_load_explicit(&threads->stop, memory_order_relaxed)) {
        struct uffd_msg event;
        if (read(uffd, &event, sizeof(event)) == sizeof(event))
            event_handle(handler->context, &event);
        else
            __builtin_ia32_pause();
    }
    return NULL;
}

static int handler_start(struct event_threads *threads, bool spin)
{
    struct handler *handler = &threads->handlers[threads->running];
    handler->threads = threads;
    int error = fault_context_create(threads->engine, &handler->context);
    if (!error)
        error =
            -pthread_create(&handler->thread, NULL, spin ? spinner_main : handler_main, handler);
    threads->running += !error;
    return error;
}

int fault_events_start(struct fault_engine *engine, bool spin)
{
    struct event_threads *threads = calloc(1, sizeof(*threads));
    int error = threads ? 0 : -ENOMEM;
    if (!error) {
        threads->engine = engine;
        threads->stop_fd = eventfd(0, EFD_CLOEXEC);
        engine->events = threads;
        error = threads->stop_fd < 0 ? -errno : 0;
    }
    while (!error && threads->running < (spin ? 1 : HANDLERS))
        error = handler_start(threads, spin);
    if (error)
        message_error("host: fault handler thread: %s", strerror(-error));
    return error;
}

void fault_events_stop(struct fault_engine *engine)
{
    struct event_threads *threads = engine->events;
    if (!threads)
        return;
    eventfd_write(threads->stop_fd, 1);
    atomic_store(&threads->stop, true);
    for (unsigned i = 0; i < threads->running; i++)
        pthread_join(threads->handlers[i].thread, NULL);
    for (unsigned i = 0; i < HANDLERS; i++)
        fault_context_destroy(threads->handlers[i].context);
    if (threads->stop_fd >= 0)
        close(threads->stop_fd);
    free(threads);
    engine->events = NULL;
}
