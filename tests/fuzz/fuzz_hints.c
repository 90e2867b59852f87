/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest at the hint channel and its hypercalls: rings filled with whatever the input has,
 * also behind the VMM's back, over a paging engine that answers as the input says. The real ring
 * and call code is compiled in here; what it may ask of the engine is checked, everything it may
 * write to is on the heap for the sanitizer to watch, and when the input ends all reads must
 * finish.
 */
/* One unit: the code under test is static for the most part, and the engine below is ours. */
/* NOLINTBEGIN(bugprone-suspicious-include): on purpose, as just said */
#include "vmm/guides/calls.c"
#include "vmm/guides/faults.c"
#include "vmm/guides/hints.c"
#include "vmm/guides/pins.c"
#include "vmm/guides/reads.c"
#include "vmm/guides/worth.c"
/* NOLINTEND(bugprone-suspicious-include) */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define SPAN   (1ULL << 40)
#define FLYING 64u
#define PROMISE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static const uint8_t *input;
static size_t input_left;
static struct fault_peek *flying[FLYING];
static unsigned flying_count;
static struct fault_chain *chains[HINT_CHAINS];
static unsigned chain_count;
static int64_t pins_held;
static struct fv_hint_ring *memory; /* the guest's */
static bool demand_is_open, handler_runs;
static uint64_t begun_rip; /* of the last upcall */
static uint8_t scratch[1 << 16];

/* 0 when there is no more: then everything goes well. */
static uint8_t next(void)
{
    if (input_left == 0)
        return 0;
    input_left--;
    return *input++;
}

static void next_bytes(void *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)to)[i] = next();
}

/* ---- the engine, second stage and address space, as far as they are asked ---- */

gpa_t ept_span(const struct ept *ept)
{
    (void)ept;
    return SPAN;
}

void *ept_hva(const struct ept *ept, gpa_t gpa)
{
    (void)ept;
    (void)gpa;
    return memory;
}

int ept_map_kernel(struct ept *ept, gpa_t gpa, uint64_t bytes, unsigned access, bool user)
{
    (void)ept;
    PROMISE(gpa >= FV_HINT_BASE && bytes == sizeof(struct fv_hint_ring));
    PROMISE(access == (EPT_READ | EPT_WRITE) && user);
    return 0;
}

static bool in_span(uint64_t page, uint64_t pages)
{
    uint64_t span = SPAN >> EPT_PAGE_SHIFT;
    return page < span && pages <= span - page;
}

bool mm_allows(struct mm *mm, gpa_t gpa, uint64_t bytes, unsigned need)
{
    (void)mm;
    (void)need;
    PROMISE(bytes > 0);
    return gpa >> 12 & 7 && gpa + bytes - 1 >= gpa && (gpa + bytes - 1) >> 12 & 7;
}

int fault_residency(const struct fault_engine *engine, uint64_t page, uint64_t pages,
                    uint8_t *state)
{
    (void)engine;
    PROMISE(in_span(page, pages));
    for (uint64_t i = 0; i < pages; i++)
        state[i] = next() & 3;
    return 0;
}

int64_t fault_prefetch(struct fault_context *context, uint64_t page, uint64_t pages)
{
    (void)context;
    PROMISE(in_span(page, pages));
    uint64_t left_out = next();
    return (int64_t)(left_out < pages ? pages - left_out : 0);
}

void fault_land(struct fault_context *context)
{
    (void)context;
}

bool fault_was_used(const struct fault_engine *engine, uint64_t page)
{
    (void)engine;
    (void)page;
    return !(next() & 1);
}

void fault_cold(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    (void)engine;
    PROMISE(in_span(page, pages));
}

int fault_peek_start(struct fault_context *context, struct fault_peek *peek)
{
    (void)context;
    PROMISE(peek->bytes > 0 && peek->bytes <= FAULT_PEEK_MAX_BYTES);
    PROMISE(peek->gpa % EPT_PAGE_BYTES + peek->bytes <= EPT_PAGE_BYTES);
    PROMISE(mm_allows(NULL, peek->gpa, peek->bytes, EPT_READ) && peek->gpa < SPAN);
    uint8_t what = next() & 7;
    if (what == 1 || (what == 2 && flying_count == FLYING))
        return -EAGAIN;
    if (what == 2) {
        flying[flying_count++] = peek;
        return 1;
    }
    next_bytes(peek->to, peek->bytes);
    peek->status = what == 3 ? -ENODATA : what == 4 ? -EIO : 0;
    return 0;
}

int fault_chain_start(struct fault_context *context, struct fault_chain *chain)
{
    (void)context;
    PROMISE(chain->nodes > 0 && chain->nodes <= FAULT_CHAIN_NODES);
    PROMISE(chain->node_bytes <= FAULT_PEEK_MAX_BYTES);
    PROMISE(chain->next_bytes + sizeof(gpa_t) <= chain->node_bytes);
    PROMISE(mm_allows(NULL, chain->gpa, chain->node_bytes, EPT_READ) && chain->gpa < SPAN);
    switch (next() & 3) {
    case 0:
        return 0;
    case 1:
        return -EAGAIN;
    default:
        PROMISE(chain_count < HINT_CHAINS);
        chains[chain_count++] = chain;
        return 1;
    }
}

bool fault_chain_valid(const struct fault_engine *engine, const struct fault_chain *chain,
                       gpa_t gpa)
{
    (void)engine;
    PROMISE(chain->got <= chain->nodes && gpa < SPAN);
    return !(next() & 1);
}

/* A memory node is not believed: it may bring anything, also nothing. */
static void chain_arrives(void)
{
    struct fault_chain *chain = chains[--chain_count];
    chain->got = next() % (chain->nodes + 1);
    next_bytes(chain->data, (size_t)chain->got * chain->node_bytes);
    chain->done(chain);
}

int fault_peek_poll(struct fault_context *context, uint64_t wait_ns)
{
    (void)context;
    (void)wait_ns;
    while (chain_count > 0) {
        chain_arrives();
        if (next() & 1)
            break;
    }
    while (flying_count > 0) {
        struct fault_peek *peek = flying[--flying_count];
        next_bytes(peek->to, peek->bytes);
        peek->status = next() & 1 ? -EIO : 0;
        peek->done(peek);
        if (next() & 1)
            break;
    }
    return (int)(flying_count + chain_count);
}

int fault_pin(struct fault_context *context, uint64_t page, uint64_t pages, bool write)
{
    (void)context;
    PROMISE(in_span(page, pages) && !write);
    int error = next() & 1 ? -ENOMEM : 0;
    pins_held += error ? 0 : (int64_t)pages;
    return error;
}

/* Of a page that may be here, so that its bytes can be read: ept_hva leads to `memory`. */
int fault_pin_resident(struct fault_context *context, uint64_t page, uint64_t pages, bool write)
{
    return next() & 1 ? -EAGAIN : fault_pin(context, page, pages, write);
}

void fault_unpin(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    (void)engine;
    PROMISE(in_span(page, pages));
    pins_held -= (int64_t)pages;
    PROMISE(pins_held >= 0);
}

int fault_demand_open(struct fault_context *context, uint64_t page, bool write)
{
    (void)context, (void)write;
    PROMISE(in_span(page, 1) && !handler_runs);
    uint8_t what = next() & 3;
    if (what > 1)
        return what == 2 ? 0 : -ETIMEDOUT;
    demand_is_open = true;
    return 1;
}

int fault_demand_close(struct fault_context *context)
{
    (void)context;
    PROMISE(demand_is_open);
    demand_is_open = false;
    return (int)(next() % 3) - 1;
}

uint64_t fault_fetch_mean_ns(const struct fault_context *context)
{
    (void)context;
    return (uint64_t)next() << 8;
}

bool trap_in_kernel(const struct vm *vm, gpa_t rip)
{
    (void)vm;
    return rip & 1;
}

void trap_upcall(struct vcpu *vcpu, const struct kvm_regs *at, uint32_t reason)
{
    (void)vcpu, (void)at;
    PROMISE(reason == FV_UPCALL_FAULT && demand_is_open && !handler_runs);
    PROMISE(memory->fault.count == 0 && memory->fault.hit_count <= FV_FAULT_HITS);
    handler_runs = true;
}

const char *fault_mode_name(enum fault_mode mode)
{
    (void)mode;
    return "uffd";
}

/* It checks what it is told itself (tests/unit/fault/check_live.c). */
int fault_live_map(struct fault_engine *engine, gpa_t heap, uint64_t bytes, gpa_t map)
{
    (void)engine, (void)heap, (void)bytes, (void)map;
    return next() & 1 ? -EINVAL : 0;
}

int fault_context_create(struct fault_engine *engine, struct fault_context **out)
{
    (void)engine;
    *out = NULL;
    return 0;
}

void fault_context_destroy(struct fault_context *context)
{
    (void)context;
}

int guestmem_read(struct vm *vm, void *to, gpa_t from, size_t bytes)
{
    (void)vm;
    next_bytes(to, bytes);
    return from & 1 ? -EFAULT : 0;
}

int guarded_copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return 0;
}

int guestmem_write(struct vm *vm, gpa_t to, const void *from, size_t bytes)
{
    (void)vm;
    PROMISE(bytes <= sizeof(scratch));
    memcpy(scratch, from, bytes);
    return to & 1 ? -EFAULT : 0;
}

long vcpu_syscall(struct vcpu *vcpu, long number, long a, long b, long c, long d, long e, long f)
{
    (void)vcpu, (void)number, (void)b, (void)c, (void)d, (void)e, (void)f;
    PROMISE(a >= (long)(uintptr_t)memory && a < (long)(uintptr_t)(memory + 1));
    return -EINTR;
}

void vcpu_kick(struct vcpu *vcpu)
{
    (void)vcpu;
}

/* ---- the guest ---- */

/* The program misses: on one or two places that the input names. */
static void guest_misses(struct vcpu *vcpu)
{
    struct kvm_regs at = {.rip = next(), .rflags = next() & 8 ? RFLAGS_TF : 0};
    struct access accesses[2];
    for (unsigned i = 0; i < 2; i++)
        accesses[i] = (struct access){.gpa = (uint64_t)next() << 32 | (uint64_t)next() << 8,
                                      .bytes = next(),
                                      .write = next() & 1};
    bool begun = guide_fault_begin(vcpu, &at, accesses, next() % 3);
    PROMISE(!begun || handler_runs);
    PROMISE(!begun || at.rip != begun_rip); /* nobody is asked twice where a program stands */
    begun_rip = begun ? at.rip : begun_rip;
}

/* The handler answers, whatever is in its answer, or is abandoned. */
static void guest_answers(struct vcpu *vcpu)
{
    next_bytes(&memory->fault.answers[next() % FV_FAULT_ANSWERS], sizeof(struct fv_hint));
    memory->fault.count = next();
    bool ended = guide_fault_end(vcpu, next() & 15 ? 0 : next()) == 0;
    PROMISE(!ended || handler_runs);
    if (ended)
        handler_runs = false;
}

static void guest_acts(struct vcpu *vcpu)
{
    uint8_t what = next();
    uint64_t args[6];
    switch (what & 3) {
    case 0: /* a hint, whatever is in it */
        next_bytes(&memory->hints[memory->head % FV_HINTS], sizeof(struct fv_hint));
        memory->head += what & 4 ? 1 : what >> 3;
        break;
    case 1: /* a hint that is nearly sane */
        memory->hints[memory->head % FV_HINTS] =
            (struct fv_hint){.op = 1 + (what >> 2 & 3),
                             .slot = next() & 127,
                             .hops = next() & 31,
                             .address = ((uint64_t)next() << 32 | next() << 8 | next()) + 0x7000,
                             .bytes = next(),
                             .next_bytes = next() & 63};
        memory->head++;
        break;
    case 2: /* any word of the ring, at any time */
        next_bytes((uint8_t *)memory + (next() | next() << 8) % (sizeof(*memory) - 8), 8);
        break;
    default:
        next_bytes(args, sizeof(args));
        if (what & 0x80) {
            (what & 0x40 ? guest_misses : guest_answers)(vcpu);
            break;
        }
        args[0] = what >> 2 & 15; /* opening is done already */
        if (args[0] != FV_GUIDE_FAULT_END)
            (void)guide_call(vcpu, args);
        guide_pins_drop(vcpu->vm->hints, args[1], args[1] + (args[2] & 0xffffff));
    }
}

static void finish(struct hints *hints, struct hint_ring *ring)
{
    for (unsigned i = 0; ring->reading || ring->pages; i++) {
        PROMISE(i < 100000);
        ring->broken = true; /* no further hints */
        (void)ring_turn(ring);
        (void)fault_peek_poll(NULL, 0);
        hint_worth_judge(hints);
    }
    PROMISE(flying_count == 0);
    guide_pins_drop(hints, 0, UINT64_MAX);
    PROMISE(pins_held == 0 && hints->pinned_pages == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct run_config config = {
        .memory_bytes = 1 << 30, .local_bytes = 1 << 28, .guide_accuracy_percent = 10};
    struct vm vm = {.config = &config, .vm_fd = -1};
    struct vcpu vcpu = {.vm = &vm, .fault = (struct fault_context *)scratch};
    message_init("fuzz_hints", MESSAGE_QUIET);
    input = data;
    input_left = bytes;
    memory = calloc(1, sizeof(*memory));
    if (!memory || hints_create(&vm.hints, &vm) || ring_open(vm.hints, &vcpu))
        abort();
    struct hint_ring *ring = atomic_load(&vm.hints->rings[0]);
    vcpu.page = calloc(1, sizeof(*vcpu.page));
    vcpu.run = calloc(1, sizeof(*vcpu.run));
    vcpu.run->s.regs.sregs.cs.dpl = 3;
    demand_is_open = handler_runs = false;
    begun_rip = UINT64_MAX;
    vm.vcpus[0] = &vcpu;
    vm.hints->running = true; /* this thread stands in for it */
    while (input_left > 0) {
        guest_acts(&vcpu);
        if (next() & 1)
            (void)ring_turn(ring);
        if (next() & 1)
            (void)fault_peek_poll(NULL, 0);
    }
    finish(vm.hints, ring);
    vm.hints->running = false;
    hints_destroy(vm.hints);
    free(vcpu.page);
    free(vcpu.run);
    free(memory);
    return 0;
}
