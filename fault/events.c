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

#define HANDLERS 4

struct event_threads {
    struct fault_engine *engine;
    int stop_fd;
    atomic_bool stop; /* for a handler that spins */
    unsigned running;
    pthread_t threads[HANDLERS];
};

static void event_handle(struct fault_context *context, const struct uffd_msg *event)
{
    struct fault_engine *engine = context->engine;
    gpa_t gpa;
    if (event->event != UFFD_EVENT_PAGEFAULT ||
        !ept_gpa_of(engine->ept, (void *)(uintptr_t)event->arg.pagefault.address, &gpa))
        return;
    bool write = event->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
    uint64_t page = gpa >> EPT_PAGE_SHIFT;
    /* Any handler may get any thread's event; what a thread does next is known by thread. */
    context->lane = event->arg.pagefault.feat.ptid % LANES;
    int error = fault_resolve(context, page, write);
    const struct fault_source *source = &engine->config.source;
    /* The sleeper must wake even if somebody else installed the page: it then touches it again. */
    if (error >= 0 || error == -EFAULT) {
        ept_wake(engine->ept, page, 1);
        return;
    }
    bool told_by_vcpu = error == -EIO || error == -ENOMEM || error == -EBUSY;
    if (!told_by_vcpu || !source->unfillable || fault_engine_error(engine))
        fault_fail(engine, error);
    /* The vCPU looks for itself then, and says what it found; or finds that all is over. */
    if (source->unfillable)
        source->unfillable(source->owner, page, (int)event->arg.pagefault.feat.ptid);
}

static void *handler_main(void *argument)
{
    struct event_threads *threads = argument;
    struct fault_context *context;
    int uffd = ept_event_fd(threads->engine->ept);
    if (fault_context_create(threads->engine, &context))
        return NULL;
    struct pollfd fds[2] = {{.fd = uffd, .events = POLLIN},
                            {.fd = threads->stop_fd, .events = POLLIN}};
    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        if (fds[1].revents)
            break;
        struct uffd_msg event;
        if (read(uffd, &event, sizeof(event)) == sizeof(event))
            event_handle(context, &event);
    }
    fault_context_destroy(context);
    return NULL;
}

/* Never sleeps: what a design with a handler thread can do at best, for a processor of its own. */
static void *spinner_main(void *argument)
{
    struct event_threads *threads = argument;
    struct fault_context *context;
    int uffd = ept_event_fd(threads->engine->ept);
    if (fault_context_create(threads->engine, &context))
        return NULL;
    while (!atomic_load_explicit(&threads->stop, memory_order_relaxed)) {
        struct uffd_msg event;
        if (read(uffd, &event, sizeof(event)) == sizeof(event))
            event_handle(context, &event);
        else
            __builtin_ia32_pause();
    }
    fault_context_destroy(context);
    return NULL;
}

int fault_events_start(struct fault_engine *engine, bool spin)
{
    struct event_threads *threads = calloc(1, sizeof(*threads));
    if (!threads)
        return -ENOMEM;
    threads->engine = engine;
    threads->stop_fd = eventfd(0, EFD_CLOEXEC);
    engine->events = threads;
    if (threads->stop_fd < 0)
        return -errno;
    for (; threads->running < (spin ? 1 : HANDLERS); threads->running++) {
        int error = pthread_create(&threads->threads[threads->running], NULL,
                                   spin ? spinner_main : handler_main, threads);
        if (error)
            return -error;
    }
    return 0;
}

void fault_events_stop(struct fault_engine *engine)
{
    struct event_threads *threads = engine->events;
    if (!threads)
        return;
    eventfd_write(threads->stop_fd, 1);
    atomic_store(&threads->stop, true);
    for (unsigned i = 0; i < threads->running; i++)
        pthread_join(threads->threads[i], NULL);
    close(threads->stop_fd);
    free(threads);
    engine->events = NULL;
}
