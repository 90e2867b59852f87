/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of faults, good and bad, beside a program that checks all it has: each touch of far
 * memory is made with every register, the flags, the red zone, the vector and floating-point state
 * and errno known, and finds the right bytes.
 *
 * usage: guide_faults MODE [MIB] [PASSES]
 * MODE: good, or what the handler does in its 20th call: crash, loop, sleep, abort, reenter,
 * escape, signalfd; or nested, take, signals, threads, exit, busy.
 */
#include "farvisor/guide.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE_WORDS 512u
#define BAD_CALL   20
#define SIGNALS    2000
#define THREADS    4u
#define CSR        0x3f80u /* rounding down, all masked */

static uint64_t *far_memory;
static size_t pages;
static const char *mode;
static atomic_int calls, inside, signals_seen, wrong, jumps;
static jmp_buf back, out;
static char *stack_of_main;
static uint64_t begun_bytes;
static struct guide_read begun = {.to = &begun_bytes, .bytes = 8}; /* by the program */
static int signals_of_program = -1;                                /* a signalfd */
static volatile int *volatile nowhere = (volatile int *)8;

static void complain(const char *what, uint64_t found, uint64_t wanted)
{
    if (atomic_fetch_add(&wrong, 1) < 5)
        fprintf(stderr, "guide_faults: %s: 0x%llx, not 0x%llx\n", what, (unsigned long long)found,
                (unsigned long long)wanted);
}

static int is(const char *name)
{
    return strcmp(mode, name) == 0;
}

/* ---- what a touch must leave alone ---- */

struct state {
    uint64_t general[15]; /* rax, rbx, rcx, rdx, rdi, rsi, rbp, r8 .. r15 */
    uint64_t red_zone[16];
    uint64_t flags;
    uint8_t vectors[16][32];
};

/* Fills everything, loads *address, and stores what is there then. */
void touch(const uint64_t *address, struct state *state, const void *vectors, uint64_t wide);
__asm__(".text\n"
        "touch:\n"
        "pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
        "testq %rcx, %rcx; jz 1f\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "vmovdqu \\n*32(%rdx), %ymm\\n\n"
        ".endr\n"
        "jmp 2f\n"
        "1:\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "movdqu \\n*32(%rdx), %xmm\\n\n"
        ".endr\n"
        "2:\n"
        ".irp n, 8,9,10,11,12,13,14,15\n"
        "movq $0x5a5a000\\n, %r\\n\n"
        ".endr\n"
        "movq $0x5a5a0001, %rbx; movq $0x5a5a0006, %rbp\n"
        ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n"
        "movq $0x2edd00\\n, -8*\\n(%rsp)\n"
        ".endr\n"
        "std; stc\n"
        "movq (%rdi), %rax\n"
        "movq %rax, (%rsi); movq %rbx, 8(%rsi); movq %rcx, 16(%rsi); movq %rdx, 24(%rsi)\n"
        "movq %rdi, 32(%rsi); movq %rsi, 40(%rsi); movq %rbp, 48(%rsi)\n"
        ".irp n, 8,9,10,11,12,13,14,15\n"
        "movq %r\\n, 8*(\\n-1)(%rsi)\n"
        ".endr\n"
        ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n"
        "movq -8*\\n(%rsp), %rax; movq %rax, 120+8*(\\n-1)(%rsi)\n"
        ".endr\n"
        "pushfq; popq 248(%rsi); cld\n"
        "testq %rcx, %rcx; jz 3f\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "vmovdqu %ymm\\n, 256+\\n*32(%rsi)\n"
        ".endr\n"
        "vzeroupper; jmp 4f\n"
        "3:\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "movdqu %xmm\\n, 256+\\n*32(%rsi)\n"
        ".endr\n"
        "4:\n"
        "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx\n"
        "ret\n");

static void registers_check(const struct state *state)
{
    static const uint64_t numbers[16] = {0x5a5a0008,  0x5a5a0009,  0x5a5a00010, 0x5a5a00011,
                                         0x5a5a00012, 0x5a5a00013, 0x5a5a00014, 0x5a5a00015};
    for (unsigned i = 0; i < 8; i++)
        if (state->general[7 + i] != numbers[i])
            complain("r8 and on", state->general[7 + i], numbers[i]);
    if (state->general[1] != 0x5a5a0001 || state->general[6] != 0x5a5a0006)
        complain("rbx, rbp", state->general[1], state->general[6]);
    if (state->general[5] != (uintptr_t)state)
        complain("rsi", state->general[5], (uintptr_t)state);
    for (unsigned i = 0; i < 16; i++) { /* the assembler wrote decimal numbers behind 0x2edd00 */
        uint64_t wanted = i < 9 ? 0x2edd001 + i : 0x2edd0010 + (i - 9);
        if (state->red_zone[i] != wanted)
            complain("red zone", state->red_zone[i], wanted);
    }
    if ((state->flags & 0x401) != 0x401) /* DF, CF */
        complain("flags", state->flags, 0x401);
}

static void touch_check(size_t page, uint64_t wanted)
{
    struct state state;
    uint8_t vectors[16][32];
    unsigned wide = __builtin_cpu_supports("avx") != 0, bytes = wide ? 32 : 16;
    for (unsigned i = 0; i < sizeof(vectors); i++)
        ((uint8_t *)vectors)[i] = (uint8_t)(i * 7 + page);
    errno = (int)(page % 1000) + 5000;
    _mm_setcsr(CSR);
    touch(far_memory + page * PAGE_WORDS, &state, vectors, wide);
    if (_mm_getcsr() != CSR)
        complain("mxcsr", _mm_getcsr(), CSR);
    _mm_setcsr(0x1f80);
    if (errno != (int)(page % 1000) + 5000)
        complain("errno", (uint64_t)errno, page % 1000 + 5000);
    if (state.general[0] != wanted)
        complain("bytes", state.general[0], wanted);
    registers_check(&state);
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(state.vectors[i], vectors[i], bytes) != 0)
            complain("vector register", i, i);
}

/* ---- handlers ---- */

static void spoil_everything(void)
{
    double zero = 0;
    errno = EDOM;
    _mm_setcsr(0x1f80);
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm7; movdqa %%xmm0, %%xmm15;"
                     "fninit; fldl %0; fldl %0" ::"m"(zero)
                     : "xmm0", "xmm7", "xmm15", "st", "st(1)");
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vxorps %%ymm3, %%ymm3, %%ymm3; vxorps %%ymm12, %%ymm12, %%ymm12" ::
                             : "xmm3", "xmm12");
}

static void misbehave(void)
{
    static volatile int for_ever = 1;
    sigset_t all;
    atomic_store(&inside, 0); /* nobody comes back to do it */
    sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, NULL);
    if (is("crash"))
        *nowhere = 1;
    while (is("loop") && for_ever)
        ;
    while (is("sleep"))
        pause();
    if (is("abort"))
        abort();
    if (is("escape"))
        longjmp(out, 1);
    if (is("signalfd"))
        (void)signalfd(-1, &all, SFD_NONBLOCK);
    if (is("exit"))
        syscall(SYS_exit, 0);
}

/* Far away itself, and the page that is on its way; what may not wait is refused. */
static void touch_others(size_t page)
{
    volatile uint64_t *there = far_memory + (page + pages / 2) % pages * PAGE_WORDS;
    uint64_t bytes, own = far_memory[page * PAGE_WORDS];
    if (*there % pages != (page + pages / 2) % pages || own % pages != page)
        complain("a handler's own read", *there, page);
    int error = guide_read(far_memory + (page + pages / 3) % pages * PAGE_WORDS, &bytes, 8);
    if (error && error != -EAGAIN)
        complain("a read in a handler", (uint64_t)-error, 0);
    error = guide_reads_wait(&begun, 1);
    if (error && error != -EAGAIN)
        complain("a handler's wait for the program's read", (uint64_t)-error, 0);
    if (guide_is_far() && guide_pin(&bytes, sizeof(bytes)) != -EAGAIN)
        complain("a pin in a handler", 0, 0);
}

/* The program's signals are not a handler's to take, whatever it waits for. */
static void take(void)
{
    struct signalfd_siginfo info;
    struct iovec span = {&info, sizeof(info)};
    if (read(signals_of_program, &info, sizeof(info)) != -1 || errno != EPERM)
        complain("a signal that a handler took", (uint64_t)errno, EPERM);
    if (readv(signals_of_program, &span, 1) != -1 || errno != EPERM)
        complain("a signal that a handler took by readv", (uint64_t)errno, EPERM);
}

static void handler(const struct guide_fault *fault, void *argument)
{
    int call = atomic_fetch_add(&calls, 1);
    size_t page = (size_t)((const uint64_t *)fault->address - far_memory) / PAGE_WORDS;
    if (argument != &calls || page >= pages || fault->hit_count > GUIDE_HITS_MAX)
        complain("what a handler is told", page, pages);
    atomic_store(&inside, 1);
    if (!is("busy"))
        guide_prefetch(far_memory + (page + 1) % pages * PAGE_WORDS, 3 * 4096);
    spoil_everything();
    if (is("nested"))
        touch_others(page);
    if (is("signals") || is("busy")) {
        uint64_t until = __rdtsc() + (is("busy") ? 4000000 : 200000);
        while (__rdtsc() < until)
            ;
    }
    if (is("reenter") && call == 5)
        (void)_setjmp(back);
    if (is("reenter") && call == BAD_CALL && atomic_fetch_add(&jumps, 1) == 0)
        _longjmp(back, 1);
    if (is("take"))
        take();
    else if (call == BAD_CALL)
        misbehave();
    atomic_store(&inside, 0);
}

/* ---- the program ---- */

/* Page p holds p + pages * passes. */
static void passes_make(size_t passes)
{
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t page = 0; page < pages; page++) {
            begun.from = far_memory + (page + pages / 4) % pages * PAGE_WORDS;
            if (is("nested"))
                (void)guide_reads_start(&begun, 1);
            touch_check(page, page + pages * pass);
            if (is("nested") &&
                (guide_reads_wait(&begun, 1) || begun_bytes % pages != (page + pages / 4) % pages))
                complain("a read around an upcall", begun_bytes, page);
            far_memory[page * PAGE_WORDS] += pages;
        }
    }
}

static void on_signal(int number)
{
    char here;
    (void)number;
    if (atomic_load(&inside))
        complain("a signal in a handler", 0, 0);
    if (&here > stack_of_main + 65536 || &here < stack_of_main - 1048576)
        complain("stack of a signal", (uintptr_t)&here, (uintptr_t)stack_of_main);
    atomic_fetch_add(&signals_seen, 1);
}

static void *signaller(void *to)
{
    const union sigval value = {0};
    for (int sent = 0; sent < SIGNALS;) {
        if (pthread_sigqueue(*(pthread_t *)to, SIGRTMIN, value) == 0)
            sent++;
        usleep(100);
    }
    return NULL;
}

static void with_signals(size_t passes)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    pthread_t thread, self = pthread_self();
    sigaction(SIGRTMIN, &action, NULL);
    pthread_create(&thread, NULL, signaller, &self);
    passes_make(passes);
    pthread_join(thread, NULL);
    if (atomic_load(&signals_seen) != SIGNALS)
        complain("signals", (uint64_t)atomic_load(&signals_seen), SIGNALS);
}

static void with_one_waiting(size_t passes)
{
    struct signalfd_siginfo info;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals_of_program = signalfd(-1, &set, 0);
    raise(SIGUSR2);
    passes_make(passes);
    if (read(signals_of_program, &info, sizeof(info)) != sizeof(info) || info.ssi_signo != SIGUSR2)
        complain("the program's own read", (uint64_t)errno, 0);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* Everybody adds to every page: no addition may be lost. */
static void *adder(void *passes)
{
    for (size_t i = 0; i < *(size_t *)passes * pages; i++) {
        size_t page = i * 769 % pages;
        errno = (int)page;
        __atomic_fetch_add(&far_memory[page * PAGE_WORDS], pages, __ATOMIC_RELAXED);
        if (errno != (int)page)
            complain("errno of a thread", (uint64_t)errno, page);
    }
    return NULL;
}

static void with_threads(size_t passes)
{
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, adder, &passes);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t page = 0; page < pages; page++)
        touch_check(page, page + pages * passes * THREADS);
}

static void *one_that_ends(void *passes)
{
    passes_make(*(size_t *)passes);
    complain("a thread that ended", 0, 0);
    return NULL;
}

static void run(size_t passes)
{
    pthread_t thread;
    if (is("threads")) {
        with_threads(passes);
    } else if (is("signals")) {
        with_signals(passes);
    } else if (is("take")) {
        with_one_waiting(passes);
    } else if (is("exit")) { /* another thread, which its handler ends; then there are no pages to
                                lose */
        pthread_create(&thread, NULL, one_that_ends, &passes);
        pthread_join(thread, NULL);
    } else if (setjmp(out)) {
        long number = SYS_getpid; /* a call that touches no stack: the program is put back at it */
        __asm__ volatile("syscall" : "+a"(number)::"rcx", "r11", "memory");
        complain("a handler that jumped out", 0, 0);
    } else {
        passes_make(passes);
    }
}

int main(int argc, char **argv)
{
    char here;
    size_t bytes = (argc > 2 ? strtoul(argv[2], NULL, 10) : 32) << 20;
    size_t passes = argc > 3 ? strtoul(argv[3], NULL, 10) : 2;
    sigset_t before, after;
    mode = argc > 1 ? argv[1] : "good";
    stack_of_main = &here;
    pages = bytes / 4096;
    far_memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t page = 0; page < pages; page++)
        far_memory[page * PAGE_WORDS] = page;
    int error = guide_on_fault(far_memory, bytes, handler, &calls);
    if (error || guide_on_fault(far_memory, bytes, handler, &calls) != -EINVAL)
        complain("guide_on_fault", (uint64_t)-error, 0);
    signal(SIGUSR1, on_signal); /* from outside, if anybody sends it */
    sigprocmask(SIG_BLOCK, NULL, &before);
    run(passes);
    sigprocmask(SIG_BLOCK, NULL, &after);
    if (memcmp(&before, &after, 8) != 0)
        complain("signal mask", 0, 0);
    if (guide_off_fault(far_memory, bytes) || guide_off_fault(far_memory, bytes) != -EINVAL)
        complain("guide_off_fault", 0, 0);
    printf("%d calls, %d wrong\n", atomic_load(&calls), atomic_load(&wrong));
    return atomic_load(&wrong) != 0;
}
