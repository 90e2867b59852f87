/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may happen to a page, a thread or the machine while a guide's handler is asked about a
 * fault. Each touch of far memory has to find the right bytes afterwards, and to come to an end.
 *
 * usage: guide_races MODE [TOUCHES]
 * MODE: replace (the handler maps new memory over the page), unmap (it unmaps the page), elsewhere
 * (another thread does either), leave (the page is evicted before the handler is done), cross (of
 * two pages that an instruction needs, the other one is gone whenever one is asked for), toggle
 * (the range is given up and watched again meanwhile), quit (the handler ends the process, with
 * status 7), quit_elsewhere (another thread does), linger (handlers take 0.3 s; says "asked").
 */
#include "farvisor/guide.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE        4096u
#define PAGES       8192u /* 32 MiB: more than is here */
#define CROWD       2u
#define CROWD_PAGES 8192u
#define WAIT_NS     500000000u /* handlers are abandoned after 2 s */
#define NOBODY      (-1)

static char *far_memory, *crowd_memory;
static const char *mode;
static atomic_int calls, wrong, left_early, toggles;
static atomic_long asked = NOBODY; /* page that something is to happen to */
static atomic_bool stop;
static uint64_t expected[PAGES]; /* first word of each page; UINT64_MAX: unmapped */
static sigjmp_buf unmapped;
static void *volatile unmapped_at;

static int is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static void complain(const char *what, uint64_t found, uint64_t wanted)
{
    if (atomic_fetch_add(&wrong, 1) < 5)
        fprintf(stderr, "guide_races: %s: 0x%llx, not 0x%llx\n", what, (unsigned long long)found,
                (unsigned long long)wanted);
}

static char *page_at(long page)
{
    return far_memory + (size_t)page * PAGE;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static bool is_here(long page)
{
    unsigned char state = 0;
    if (guide_residency(page_at(page), 1, &state))
        complain("guide_residency", 1, 0);
    return state == GUIDE_LOCAL;
}

/* ---- what happens to pages ---- */

static void page_change(long page, bool unmap)
{
    if (unmap ? munmap(page_at(page), PAGE) != 0
              : mmap(page_at(page), PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        complain("changing a page", (uint64_t)errno, 0);
    expected[page] = unmap ? UINT64_MAX : 0;
}

/* Does to the page that is asked for what the mode says. */
static void *changer(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop)) {
        long page = atomic_load(&asked);
        if (page == NOBODY) {
            pause_ms(1);
            continue;
        }
        page_change(page, page & 1);
        atomic_store(&asked, NOBODY);
    }
    return NULL;
}

/* Drives out the page that is asked for: it is cold, and others are wanted. */
static void *crowd(void *number)
{
    for (size_t at = (uintptr_t)number * CROWD_PAGES / CROWD; !atomic_load(&stop);) {
        long page = atomic_load(&asked);
        if (page == NOBODY) {
            pause_ms(1);
            continue;
        }
        (void)guide_will_not_need(page_at(page), PAGE);
        for (unsigned i = 0; i < 128; i++)
            ++*(volatile uint64_t *)(crowd_memory + at++ % CROWD_PAGES * PAGE);
    }
    return NULL;
}

static void *toggler(void *argument)
{
    guide_fault_handler *handler = argument;
    while (!atomic_load(&stop)) {
        int error = guide_off_fault(far_memory, (size_t)PAGES * PAGE);
        if (!error)
            error = guide_on_fault(far_memory, (size_t)PAGES * PAGE, handler, &calls);
        if (error)
            complain("watching anew", (uint64_t)-error, 0);
        atomic_fetch_add(&toggles, 1);
        pause_ms(1);
    }
    return NULL;
}

static void *quitter(void *argument)
{
    (void)argument;
    while (atomic_load(&asked) == NOBODY)
        pause_ms(1);
    _exit(7);
}

/* ---- the handler ---- */

static void wait_until_taken(void)
{
    for (uint64_t start = now_ns(); atomic_load(&asked) != NOBODY;) {
        if (now_ns() - start > 2 * WAIT_NS)
            complain("nobody did it", 0, 1);
        pause_ms(1);
    }
}

static void wait_until_left(long page)
{
    uint64_t start = now_ns();
    atomic_store(&asked, page);
    while (is_here(page) && now_ns() - start < WAIT_NS)
        pause_ms(10); /* looking costs processor time, of which a handler has 0.1 s */
    atomic_store(&asked, NOBODY);
    if (!is_here(page))
        atomic_fetch_add(&left_early, 1);
}

static void handler(const struct guide_fault *fault, void *argument)
{
    long page = ((const char *)fault->address - far_memory) / PAGE;
    if (argument != &calls || page < 0 || page >= (long)PAGES)
        complain("what a handler is told", (uint64_t)page, PAGES);
    atomic_fetch_add(&calls, 1);
    if (is("replace") || is("unmap"))
        page_change(page, is("unmap"));
    if (is("elsewhere")) {
        atomic_store(&asked, page);
        wait_until_taken();
    }
    if (is("leave")) {
        while (!is_here(page)) /* somebody lands it, though nobody waits */
            pause_ms(5);
        wait_until_left(page);
    }
    if (is("cross"))
        wait_until_left(page & 1 ? page - 1 : page + 1);
    if (is("quit"))
        _exit(7);
    if (is("quit_elsewhere"))
        for (atomic_store(&asked, page);;)
            pause_ms(100);
    if (is("linger")) {
        if (write(STDOUT_FILENO, "asked\n", 6) != 6)
            complain("writing", (uint64_t)errno, 0);
        pause_ms(300);
    }
}

/* ---- the program ---- */

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    unmapped_at = info->si_addr;
    siglongjmp(unmapped, 1);
}

static void touch(long page)
{
    volatile uint64_t *word = (volatile uint64_t *)page_at(page);
    if (sigsetjmp(unmapped, 1)) {
        if (expected[page] != UINT64_MAX || unmapped_at != page_at(page))
            complain("a signal at", (uintptr_t)unmapped_at, (uintptr_t)page_at(page));
        page_change(page, false);
        return;
    }
    uint64_t found = *word;
    __asm__ volatile("" ::: "memory"); /* the handler may have written to expected[] */
    if (found != expected[page])
        complain("a page's word", found, expected[page]);
    *word = found + 1;
    __asm__ volatile("" ::: "memory");
    expected[page] = found + 1;
}

/* The last half of a word is on the next page. One upcall at most: it is one instruction. */
static void touch_across(long page)
{
    int before = atomic_load(&calls);
    uint64_t found;
    __asm__ volatile("movq (%1), %0" : "=r"(found) : "r"(page_at(page + 1) - 4) : "memory");
    if (found >> 32 != expected[page + 1])
        complain("a word across", found >> 32, expected[page + 1]);
    if (atomic_load(&calls) > before + 1)
        complain("upcalls of one instruction", (uint64_t)(atomic_load(&calls) - before), 1);
}

static void touches_make(unsigned touches)
{
    uint64_t random = 88172645463325252u;
    for (unsigned i = 0; i < touches; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        long page = (long)((random >> 33) % (PAGES / 2));
        if (is("cross"))
            touch_across(page * 2);
        else
            touch(page * 2 + (long)(i & 1));
    }
}

static void threads_start(pthread_t threads[], unsigned *count)
{
    if (is("elsewhere"))
        pthread_create(&threads[(*count)++], NULL, changer, NULL);
    if (is("toggle"))
        pthread_create(&threads[(*count)++], NULL, toggler, (void *)handler);
    if (is("quit_elsewhere"))
        pthread_create(&threads[(*count)++], NULL, quitter, NULL);
    for (uintptr_t i = 0; i < CROWD && (is("leave") || is("cross")); i++)
        pthread_create(&threads[(*count)++], NULL, crowd, (void *)i);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    pthread_t threads[CROWD];
    unsigned count = 0;
    mode = argc > 1 ? argv[1] : "replace";
    sigaction(SIGSEGV, &action, NULL);
    far_memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    crowd_memory = mmap(NULL, (size_t)CROWD_PAGES * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long page = 0; page < (long)PAGES; page++)
        *(uint64_t *)page_at(page) = expected[page] = (uint64_t)page + 1;
    int error = guide_on_fault(far_memory, (size_t)PAGES * PAGE, handler, &calls);
    if (error)
        complain("guide_on_fault", (uint64_t)-error, 0);
    threads_start(threads, &count);
    touches_make(argc > 2 ? (unsigned)atoi(argv[2]) : 100);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("%d calls, %d left early, %d toggles, %d wrong\n", atomic_load(&calls),
           atomic_load(&left_early), atomic_load(&toggles), atomic_load(&wrong));
    return atomic_load(&wrong) != 0;
}
