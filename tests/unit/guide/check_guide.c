/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfarguide outside of a guest: instruction lengths against Zydis, functions that are moved and
 * hooked and still do what they did, and what advice and reads become natively.
 */
#include "guide/internal.h"
#include "tests/unit/unit.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- instruction lengths ---- */

struct sweep {
    ZydisDecoder decoder;
    uint64_t seen, unknown;
};

static void compare(struct sweep *sweep, const uint8_t *code, size_t room,
                    const ZydisDecodedInstruction *theirs)
{
    struct guide_insn ours;
    sweep->seen++;
    if (!guide_insn_decode(code, room, &ours)) {
        sweep->unknown++;
        return;
    }
    ck_assert_msg(ours.bytes == theirs->length, "%s %02x %02x %02x %02x: %u bytes, not %u",
                  ZydisMnemonicGetString(theirs->mnemonic), code[0], code[1], code[2], code[3],
                  ours.bytes, theirs->length);
    bool rip = theirs->attributes & ZYDIS_ATTRIB_IS_RELATIVE && theirs->raw.disp.size == 32 &&
               !theirs->raw.imm[0].is_relative;
    ck_assert_uint_eq(ours.rip_at, rip ? theirs->raw.disp.offset : 0);
    ck_assert_uint_eq(ours.branch_at,
                      theirs->raw.imm[0].is_relative ? theirs->raw.imm[0].offset : 0);
}

static void sweep_range(struct sweep *sweep, const uint8_t *code, size_t bytes)
{
    ZydisDecodedInstruction insn;
    for (size_t at = 0; at < bytes; at += insn.length) {
        if (ZYAN_FAILED(
                ZydisDecoderDecodeInstruction(&sweep->decoder, NULL, code + at, bytes - at, &insn)))
            insn.length = 1;
        else
            compare(sweep, code + at, bytes - at, &insn);
    }
}

static int sweep_object(struct dl_phdr_info *info, size_t bytes, void *owner)
{
    (void)bytes;
    if (!strstr(info->dlpi_name, "libc.so") && !strstr(info->dlpi_name, "libm.so"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && header->p_flags & PF_X)
            sweep_range(owner, (const uint8_t *)info->dlpi_addr + header->p_vaddr, header->p_memsz);
    }
    return 0;
}

START_TEST(lengths_are_those_of_zydis_over_the_c_library)
{
    struct sweep sweep = {.seen = 0};
    ZydisDecoderInit(&sweep.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    dl_iterate_phdr(sweep_object, &sweep);
    ck_assert_uint_gt(sweep.seen, 300000);
    ck_assert_uint_lt(sweep.unknown, sweep.seen / 1000);
}
END_TEST

START_TEST(truncated_and_unknown_instructions_are_refused)
{
    static const uint8_t lea[] = {0x48, 0x8d, 0x05, 1, 2, 3, 4}, push_es[] = {0x06, 0, 0};
    static const uint8_t prefixes[16] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                         0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90};
    struct guide_insn insn;
    for (size_t room = 0; room < sizeof(lea); room++)
        ck_assert(!guide_insn_decode(lea, room, &insn));
    ck_assert(guide_insn_decode(lea, sizeof(lea), &insn) && insn.rip_at == 3);
    ck_assert(!guide_insn_decode(push_es, sizeof(push_es), &insn));
    ck_assert(!guide_insn_decode(prefixes, sizeof(prefixes), &insn));
}
END_TEST

START_TEST(control_ends_at_jumps_whatever_their_operand)
{
    static const struct {
        uint8_t code[8];
        bool ends;
    } cases[] = {
        {{0xff, 0xe0}, true},                   /* jmp *%rax */
        {{0xff, 0x60, 0x08}, true},             /* jmp *8(%rax) */
        {{0xff, 0x25, 1, 0, 0, 0}, true},       /* jmp *1(%rip) */
        {{0xff, 0x24, 0xc5, 1, 0, 0, 0}, true}, /* jmp *1(,%rax,8) */
        {{0xff, 0x70, 0x20}, false},            /* push 32(%rax) */
        {{0xff, 0x15, 0, 0, 0, 0x20}, false},   /* call *0x20000000(%rip) */
        {{0xc3}, true},
        {{0x90}, false},
    };
    struct guide_insn insn;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert(guide_insn_decode(cases[i].code, sizeof(cases[i].code), &insn) &&
                  insn.ends == cases[i].ends);
}
END_TEST

/* ---- moving ---- */

static int relocate(const uint8_t *code, size_t bytes)
{
    static uint8_t *place;
    static uint8_t *function;
    if (!place) {
        place = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
        function = place + 4096;
    }
    memcpy(function, code, bytes);
    int moved = guide_relocate(function, bytes, place);
    return moved < 0 ? moved : ((int (*)(int))(uintptr_t)place)(0) * 100 + moved;
}

START_TEST(what_cannot_be_moved_is_refused)
{
    /* mov $7,%eax; ret */
    static const uint8_t plain[] = {0xb8, 7, 0, 0, 0, 0xc3};
    /* test %edi,%edi; je +6; mov $1,%eax; ret; mov $2,%eax; ret */
    static const uint8_t branch[] = {0x85, 0xff, 0x74, 6, 0xb8, 1, 0, 0,
                                     0,    0xc3, 0xb8, 2, 0,    0, 0, 0xc3};
    /* lea 2(%rip),%rax -> the 5; mov (%rax),%eax; ret */
    static const uint8_t rip[] = {0x48, 0x8d, 0x05, 3, 0, 0, 0, 0x8b, 0x00, 0xc3, 5, 0, 0, 0};
    /* ret */
    static const uint8_t tiny[] = {0xc3, 0x90, 0x90, 0x90, 0x90, 0x90};
    /* xor %eax,%eax; loop back to it */
    static const uint8_t loop[] = {0x31, 0xc0, 0xe2, 0xfc, 0x90, 0xc3};
    /* nop; xor %eax,%eax; inc %eax; cmp $9,%al; jne to the inc; ret */
    static const uint8_t back[] = {0x90, 0x31, 0xc0, 0xff, 0xc0, 0x3c, 9, 0x75, 0xfa, 0xc3};
    ck_assert_int_eq(relocate(plain, sizeof(plain)), 705);
    ck_assert_int_eq(relocate(branch, sizeof(branch)), 209);
    ck_assert_int_eq(relocate(rip, sizeof(rip)), 507);
    ck_assert_int_eq(relocate(tiny, sizeof(tiny)), -ENOTSUP);
    ck_assert_int_eq(relocate(loop, sizeof(loop)), -ENOTSUP);
    ck_assert_int_eq(relocate(back, sizeof(back)), -ENOTSUP);
}
END_TEST

/* ---- hooks ---- */

struct pair {
    long first, second;
};

long many(int a, long b, char c, short d, void *e, long f, long g, double h, long i);
struct pair twice(long a);
double scaled(double a, float b);
long quiet(long a);

#define OUT_OF_LINE __attribute__((noinline, visibility("default")))

OUT_OF_LINE long many(int a, long b, char c, short d, void *e, long f, long g, double h, long i)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * (e != NULL) + 6 * f + 7 * g + (long)(8 * h) + 9 * i;
}
OUT_OF_LINE struct pair twice(long a)
{
    return (struct pair){a, 2 * a};
}
OUT_OF_LINE double scaled(double a, float b)
{
    return a * 10 + (double)b;
}
/* So simple that the caller, in the same file, knows which registers it leaves alone. */
OUT_OF_LINE long quiet(long a)
{
    __asm__ volatile("nop; nop; nop; nop" ::: "memory");
    return a + 1;
}

static __typeof__(many) *many_original;
static __typeof__(twice) *twice_original;
static __typeof__(scaled) *scaled_original;
static __typeof__(quiet) *quiet_original;
static jmp_buf out_of_here;
static unsigned calls;

/* Everything that a call may change. */
static void trample(void)
{
    __asm__ volatile("mov $-1, %%rcx; mov %%rcx, %%rdx; mov %%rcx, %%rsi; mov %%rcx, %%rdi;"
                     "mov %%rcx, %%r8; mov %%rcx, %%r9; mov %%rcx, %%r10; mov %%rcx, %%r11;"
                     "pcmpeqd %%xmm7, %%xmm7; movaps %%xmm7, %%xmm2; movaps %%xmm7, %%xmm15" ::
                         : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm2", "xmm7",
                           "xmm15");
}

static long many_guided(int a, long b, char c, short d, void *e, long f, long g, double h, long i)
{
    trample();
    return many_original(a, b, c, d, e, f, g, h, i) + 1000000;
}
static struct pair twice_guided(long a)
{
    struct pair result = twice_original(a);
    trample();
    result.second++;
    return result;
}
static double scaled_guided(double a, float b)
{
    return scaled_original(a, b) + 0.5;
}
static long quiet_guided(long a)
{
    calls++;
    trample();
    long result = quiet_original(a); /* hooks called from here are not entered again: */
    ck_assert_int_eq(quiet(1), 2);
    trample();
    if (a == 99)
        longjmp(out_of_here, 1);
    return result;
}

static void hook(const char *name, void *replacement, void **original)
{
    ck_assert_int_eq(guide_hook(name, replacement, original), 0);
}

START_TEST(hooked_functions_get_their_arguments_and_return_their_results)
{
    hook("many", (void *)many_guided, (void **)&many_original);
    hook("twice", (void *)twice_guided, (void **)&twice_original);
    hook("scaled", (void *)scaled_guided, (void **)&scaled_original);
    ck_assert_int_eq(many(1, 2, 3, 4, &calls, 5, 6, 7.5, 8),
                     1 + 4 + 9 + 16 + 5 + 30 + 42 + 60 + 72 + 1000000);
    struct pair got = twice(21);
    ck_assert(got.first == 21 && got.second == 43);
    ck_assert(scaled(2.0, 0.25F) > 20.74 && scaled(2.0, 0.25F) < 20.76);
    ck_assert_int_eq(guide_hook("many", (void *)many_guided, NULL), -EBUSY);
    ck_assert_int_eq(guide_hook("no_such_function_here", (void *)many_guided, NULL), -ENOENT);
}
END_TEST

START_TEST(registers_that_only_the_compiler_knows_to_be_free_survive)
{
    hook("quiet", (void *)quiet_guided, (void **)&quiet_original);
    long sum = 0, weights[6] = {3, 5, 7, 11, 13, 17};
    for (long i = 0; i < 50; i++) {
        long a = weights[i % 6], b = a * 3, c = b + i, d = c ^ a, e = d * 2;
        sum += quiet(i) + a + b * 2 + c * 3 + d * 4 + e * 5 - (a + b * 2 + c * 3 + d * 4 + e * 5);
    }
    ck_assert_int_eq(sum, 50 * 49 / 2 + 50);
    ck_assert_uint_eq(calls, 50);
    for (int i = 0; i < 100; i++) /* more than there are records */
        if (setjmp(out_of_here) == 0)
            quiet(99);
    ck_assert_int_eq(quiet(4), 5);
    ck_assert_uint_eq(calls, 151);
}
END_TEST

/* The thread's ring, with the VMM's and the guest kernel's parts played here. */
static struct fv_hint_ring *ring_of_ours(void)
{
    static struct fv_hint_ring ring;
    guide_thread_self()->ring = &ring;
    return &ring;
}

static sigjmp_buf after_fault;

static void on_fault(int number)
{
    (void)number;
    siglongjmp(after_fault, 1);
}

START_TEST(names_of_functions_are_read_before_the_guide_is_held)
{
    struct sigaction action = {.sa_handler = on_fault};
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct fv_hint_ring *ring = ring_of_ours();
    memset(pages, 'x', 8192);
    ck_assert_int_eq(guide_hook(pages, (void *)quiet_guided, NULL), -EINVAL);
    ck_assert_int_eq(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
    if (sigsetjmp(after_fault, 1) == 0) {
        (void)guide_hook(pages + 4000, (void *)quiet_guided, NULL);
        ck_abort_msg("it read on beyond the end");
    }
    ck_assert_uint_eq(ring->held, 0);
}
END_TEST

START_TEST(no_guide_is_entered_while_a_hook_is_half_made)
{
    struct fv_hint_ring *ring = ring_of_ours();
    hook("quiet", (void *)quiet_guided, (void **)&quiet_original);
    ring->held = 1;
    ck_assert_int_eq(quiet(1), 2);
    ck_assert(calls == 0 && ring->inside == 0);
    ring->held = 0;
    guide_thread_self()->entering = true; /* a record is half made, and this a signal handler */
    ck_assert_int_eq(quiet(1), 2);
    ck_assert(calls == 0 && guide_thread_self()->depth == 0);
    guide_thread_self()->entering = false;
    ck_assert_int_eq(quiet(1), 2);
    ck_assert(calls == 1 && ring->inside == 0);
}
END_TEST

/* ---- signal handlers on a stack of their own ---- */

long interrupted(long a);
static __typeof__(interrupted) *interrupted_original;
static volatile long seen_by_handler;

OUT_OF_LINE long interrupted(long a)
{
    __asm__ volatile("nop; nop; nop; nop" ::: "memory");
    (void)raise(SIGUSR1);
    return a + 10;
}
static long interrupted_guided(long a)
{
    return interrupted_original(a) + 100;
}
static void on_user_signal(int number)
{
    (void)number;
    seen_by_handler = quiet(7);
}

/* On the lower half of `memory`; handlers run on the upper half. */
static void *calls_interrupted(void *memory)
{
    const stack_t above = {.ss_sp = (char *)memory + (1 << 20), .ss_size = 1 << 20};
    ck_assert_int_eq(sigaltstack(&above, NULL), 0);
    for (int i = 0; i < 3; i++) {
        seen_by_handler = 0;
        ck_assert_int_eq(interrupted(1), 111);
        ck_assert_int_eq(seen_by_handler, 8);
        ck_assert_uint_eq(guide_thread_self()->depth, 0);
    }
    return NULL;
}

START_TEST(handlers_on_a_stack_above_leave_the_records_below_alone)
{
    void *memory = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = {.sa_handler = on_user_signal, .sa_flags = SA_ONSTACK};
    pthread_attr_t attributes;
    pthread_t thread;
    hook("quiet", (void *)quiet_guided, (void **)&quiet_original);
    hook("interrupted", (void *)interrupted_guided, (void **)&interrupted_original);
    ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
    pthread_attr_init(&attributes);
    ck_assert_int_eq(pthread_attr_setstack(&attributes, memory, 1 << 20), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, calls_interrupted, memory), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(calls, 3);
    pthread_attr_destroy(&attributes);
}
END_TEST

/* ---- the rescue ---- */

/* As the guest kernel sends a guide there that does not come back. */
static _Noreturn void send_to_rescue(void)
{
    const struct fv_hint_ring *ring = guide_thread_self()->ring;
    __asm__ volatile("mov %0, %%rsp; jmp *%1" ::"r"(ring->rescue_stack), "r"(ring->rescue),
                     "D"((uint64_t)FV_OFF_STALL)
                     : "memory");
    __builtin_unreachable();
}

static long never_called(long a)
{
    (void)a;
    send_to_rescue();
}
static long never_comes_back(long a)
{
    (void)quiet_original(a);
    send_to_rescue();
}

static void expect_rescue(long (*guided)(long))
{
    (void)ring_of_ours();
    hook("quiet", (void *)guided, (void **)&quiet_original);
    long sum = 0, weights[6] = {3, 5, 7, 11, 13, 17};
    for (long i = 0; i < 6; i++) {
        long a = weights[i], b = a * 3, c = b + i, d = c ^ a, e = d * 2;
        sum += quiet(i) + a + b * 2 + c * 3 + d * 4 + e * 5 - (a + b * 2 + c * 3 + d * 4 + e * 5);
    }
    ck_assert_int_eq(sum, 21);
    ck_assert(guide_thread_self()->depth == 0 && atomic_load(&guide_is_off));
}

START_TEST(a_guide_that_is_abandoned_before_the_call_leaves_the_call)
{
    expect_rescue(never_called);
}
END_TEST

START_TEST(a_guide_that_is_abandoned_after_the_call_leaves_its_result)
{
    expect_rescue(never_comes_back);
}
END_TEST

START_TEST(functions_of_the_c_library_can_be_hooked)
{
    size_t (*length)(const char *) = NULL;
    int (*absolute)(int) = NULL;
    int error = guide_hook("strnlen", (void *)strnlen, (void **)&length);
    ck_assert(error == 0 || error == -ENOTSUP);
    error = guide_hook("abs", (void *)abs, (void **)&absolute);
    ck_assert(error == 0 || error == -ENOTSUP);
}
END_TEST

/* ---- hooks and the rescue ---- */

static struct fv_hint_ring own_ring;
static unsigned changes_of_code, changes_not_held;

/* In place of the C library's, as the library calls it. */
int mprotect(void *start, size_t bytes, int access)
{
    changes_of_code++;
    changes_not_held += own_ring.held == 0;
    return (int)syscall(SYS_mprotect, start, bytes, access);
}

static int went_on;

/* Its time is over before each hook; a kick of the VMM would do nothing now. */
static int hooks_late(void)
{
    own_ring.overdue = 1;
    hook("many", (void *)many_guided, (void **)&many_original); /* made: it gets another chance */
    ck_assert_uint_eq(own_ring.overdue, 0);
    went_on++;
    own_ring.overdue = 1;
    (void)guide_hook("no_such_function_here", (void *)many_guided, NULL);
    went_on++;
    return 0;
}

START_TEST(a_guide_that_is_late_goes_when_its_hook_is_whole)
{
    guide_thread_self()->ring = &own_ring;
    changes_not_held = changes_of_code = 0;
    ck_assert_int_eq(guide_start("late", hooks_late), -ECANCELED);
    ck_assert_int_eq(went_on, 1);
    ck_assert_uint_ge(changes_of_code, 4);
    ck_assert_uint_eq(changes_not_held, 0);
    ck_assert(own_ring.held == 0 && own_ring.inside == 0 && own_ring.overdue == 0 &&
              own_ring.entries == 2);
    ck_assert_uint_eq(guide_thread_self()->depth, 0);
    ck_assert_int_eq(many(1, 2, 3, 4, &calls, 5, 6, 7.5, 8),
                     1 + 4 + 9 + 16 + 5 + 30 + 42 + 60 + 72);
    ck_assert_int_eq(guide_hook("twice", (void *)twice_guided, (void **)&twice_original), 0);
    guide_thread_self()->ring = NULL;
}
END_TEST

/* ---- natively ---- */

START_TEST(advice_and_reads_work_without_a_channel)
{
    struct {
        void *next;
        long number;
    } nodes[3] = {{&nodes[1], 1}, {&nodes[2], 2}, {NULL, 3}}, got[5];
    uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec ranges[2] = {{page, 1}, {page + 4096, 4096}};
    struct guide_read reads[2] = {{.from = &nodes[2].number, .to = &got[0].number, .bytes = 8},
                                  {.from = page, .to = &got[1], .bytes = 500}};
    uint8_t states[2];
    memset(page, 7, 8192);
    errno = 4711;
    ck_assert_int_eq(guide_is_far(), 0);
    ck_assert_int_eq(guide_prefetch(page + 5, 100), 0);
    ck_assert_int_eq(guide_prefetch_many(ranges, 2), 2);
    ck_assert_int_eq(guide_will_not_need(page, 8192), 0);
    ck_assert(page[0] == 7 && page[8191] == 7);
    ck_assert_int_eq(guide_residency(page, 8192, states), 0);
    ck_assert(states[0] == GUIDE_LOCAL && states[1] == GUIDE_LOCAL);
    ck_assert_int_eq(guide_reads_start(reads, 2), 0);
    ck_assert_int_eq(guide_reads_wait(reads, 2), -EINVAL);
    ck_assert(reads[0].status == 0 && got[0].number == 3 && reads[1].status == -EINVAL);
    ck_assert_int_eq(guide_read_chain(&nodes[0], sizeof(nodes[0]), 0, got, 5), 3);
    ck_assert(got[0].number == 1 && got[2].number == 3);
    ck_assert_int_eq(guide_read_chain(&nodes[0], sizeof(nodes[0]), 9, got, 5), -EINVAL);
    ck_assert_int_eq(errno, 4711);
}
END_TEST

/* ---- handlers of faults, with the guest kernel's part played here ---- */

static unsigned asked;

static void answer(const struct guide_fault *fault, void *argument)
{
    uint64_t word, *page = argument;
    asked++;
    ck_assert_ptr_eq(fault->address, page + 3);
    ck_assert(fault->write == 1 && fault->hit_count == 1 && fault->hits[0] == page);
    ck_assert_int_eq(guide_will_not_need(page, 1), 0);
    for (unsigned i = 1; i < GUIDE_ANSWERS_MAX; i++)
        ck_assert_int_eq(guide_prefetch(page + i, 8), 0);
    ck_assert_int_eq(guide_prefetch(page, 8), -EAGAIN);
    ck_assert_int_eq(guide_pin(page, 8), -EAGAIN);
    ck_assert_int_eq(guide_unpin(page, 8), -EAGAIN);
    ck_assert_int_eq(guide_read_chain(page, 8, 0, &word, 1), -EAGAIN);
    /* Too late already, it does not take the way of hooks out, whose record it has not. */
    ck_assert_int_eq(guide_hook("qsort", NULL, NULL), -EAGAIN);
    ck_assert_int_eq(guide_on_fault(page, 1, answer, NULL), -EAGAIN);
    ck_assert_int_eq(guide_off_fault(page, 512 * sizeof(*page)), -EAGAIN);
}

START_TEST(handlers_are_asked_for_their_range_and_answer)
{
    static struct fv_hint_ring ring;
    static uint64_t page[512];
    struct fv_fault *fault = &ring.fault;
    ck_assert_int_eq(guide_on_fault(page, sizeof(page), NULL, NULL), -EINVAL);
    ck_assert_int_eq(guide_on_fault(page, 0, answer, page), -EINVAL);
    ck_assert_int_eq(guide_on_fault(page, sizeof(page), answer, page), 0);
    ck_assert_int_eq(guide_on_fault(page, sizeof(page), answer, page), -EINVAL);
    *fault = (struct fv_fault){
        .address = (uintptr_t)(page + 3), .write = 1, .hit_count = 1, .hits = {(uintptr_t)page}};
    ring.inside = FV_INSIDE_FAULT;
    ring.overdue = 1;
    guide_thread_self()->ring = &ring;
    guide_on_upcall(fault);
    guide_thread_self()->ring = NULL;
    ck_assert(asked == 1 && ring.overdue == 1 && fault->count == FV_FAULT_ANSWERS);
    ck_assert(fault->answers[0].op == FV_HINT_COLD && fault->answers[1].op == FV_HINT_PREFETCH);
    ck_assert(fault->answers[5].address == (uintptr_t)(page + 5) && fault->answers[5].bytes == 8);
    fault->address = (uintptr_t)(page + 512); /* just behind it */
    guide_on_upcall(fault);
    ck_assert_uint_eq(asked, 1);
    ring.inside = 0; /* it ended, in whatever way */
    ck_assert_int_eq(guide_prefetch(page, 8), 0);
    ck_assert_uint_eq(fault->count, FV_FAULT_ANSWERS);
    ck_assert_int_eq(guide_off_fault(page, 8), -EINVAL);
    ck_assert_int_eq(guide_off_fault(page, sizeof(page)), 0);
    fault->address = (uintptr_t)page;
    guide_on_upcall(fault);
    ck_assert_uint_eq(asked, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guide");
    TCase *tests = tcase_create("library");
    tcase_add_test(tests, lengths_are_those_of_zydis_over_the_c_library);
    tcase_add_test(tests, truncated_and_unknown_instructions_are_refused);
    tcase_add_test(tests, control_ends_at_jumps_whatever_their_operand);
    tcase_add_test(tests, what_cannot_be_moved_is_refused);
    tcase_add_test(tests, hooked_functions_get_their_arguments_and_return_their_results);
    tcase_add_test(tests, registers_that_only_the_compiler_knows_to_be_free_survive);
    tcase_add_test(tests, names_of_functions_are_read_before_the_guide_is_held);
    tcase_add_test(tests, no_guide_is_entered_while_a_hook_is_half_made);
    tcase_add_test(tests, handlers_on_a_stack_above_leave_the_records_below_alone);
    tcase_add_test(tests, a_guide_that_is_abandoned_before_the_call_leaves_the_call);
    tcase_add_test(tests, a_guide_that_is_abandoned_after_the_call_leaves_its_result);
    tcase_add_test(tests, functions_of_the_c_library_can_be_hooked);
    tcase_add_test(tests, a_guide_that_is_late_goes_when_its_hook_is_whole);
    tcase_add_test(tests, advice_and_reads_work_without_a_channel);
    tcase_add_test(tests, handlers_are_asked_for_their_range_and_answer);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
