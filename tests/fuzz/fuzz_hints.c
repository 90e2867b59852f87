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
#include "vmm/guide_calls.c"
#include "vmm/guide_pins.c"
#include "vmm/hint_reads.c"
#include "vmm/hint_worth.c"
#include "vmm/hints.c"
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

void fault_unpin(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    (void)engine;
    PROMISE(in_span(page, pages));
    pins_held -= (int64_t)pages;
    PROMISE(pins_held >= 0);
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
        args[0] = what >> 2 & 7; /* opening is done already */
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
    struct vcpu vcpu = {.vm = &vm};
    message_init("fuzz_hints", MESSAGE_QUIET);
    input = data;
    input_left = bytes;
    memory = calloc(1, sizeof(*memory));
    if (!memory || hints_create(&vm.hints, &vm) || ring_open(vm.hints, &vcpu))
        abort();
    struct hint_ring *ring = atomic_load(&vm.hints->rings[0]);
    vcpu.page = calloc(1, sizeof(*vcpu.page));
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
    free(memory);
    return 0;
}
