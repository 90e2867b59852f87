/* SPDX-License-Identifier: Apache-2.0 */
/*
 * address_decode_with: every way an x86 instruction names memory, checked against addresses worked
 * out by hand. Encodings come from the GNU assembler. No vCPU: vector registers are made up here in
 * the layout of the XSAVE area, placed by this host's CPUID.
 */
#include "tests/unit/unit.h"
#include "vmm/miss.h"

#include <cpuid.h>
#include <string.h>

struct expectation {
    const char *name;
    uint8_t code[11];
    uint8_t bytes;
    uint8_t count;
    struct access accesses[3];
};

#define R(at, size)                                                                                \
    {                                                                                              \
        .gpa = (at), .bytes = (size), .write = false                                               \
    }
#define W(at, size)                                                                                \
    {                                                                                              \
        .gpa = (at), .bytes = (size), .write = true                                                \
    }
#define CODE(...) {__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__})

static const struct kvm_regs registers = {
    .rax = 0x10,
    .rbx = 0x10000,
    .rcx = 2,
    .rdx = 3,
    .rsi = 0x20000,
    .rdi = 0x30000,
    .rsp = 0x40000,
    .rbp = 0x50000,
    .r15 = 0xf000,
    .rip = 0x1000,
};
static const struct kvm_sregs segments = {.fs.base = 0x600000, .gs.base = 0x700000};

static const struct expectation operands[] = {
    {"mov (%rbx),%rax", CODE(0x48, 0x8b, 0x03), 1, {R(0x10000, 8)}},
    {"mov %rax,8(%rbx,%rcx,4)", CODE(0x48, 0x89, 0x44, 0x8b, 0x08), 1, {W(0x10010, 8)}},
    {"movb $1,(%r15)", CODE(0x41, 0xc6, 0x07, 0x01), 1, {W(0xf000, 1)}},
    {"movzbl (%rbx),%eax", CODE(0x0f, 0xb6, 0x03), 1, {R(0x10000, 1)}},
    {"mov 0x1000(%rip),%eax", CODE(0x8b, 0x05, 0, 0x10, 0, 0), 1, {R(0x2006, 4)}},
    {"mov (%ebx),%eax", CODE(0x67, 0x8b, 0x03), 1, {R(0x10000, 4)}},
    {"mov %gs:(%rdi),%eax", CODE(0x65, 0x8b, 0x07), 1, {R(0x730000, 4)}},
    {"mov %fs:0x28,%rax", CODE(0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0), 1, {R(0x600028, 8)}},
    {"add %al,(%rbx)", CODE(0x00, 0x03), 1, {W(0x10000, 1)}},
    {"cmp %al,(%rbx)", CODE(0x38, 0x03), 1, {R(0x10000, 1)}},
    {"lock xadd %rax,(%rbx)", CODE(0xf0, 0x48, 0x0f, 0xc1, 0x03), 1, {W(0x10000, 8)}},
    {"cmpxchg16b (%rdi)", CODE(0x48, 0x0f, 0xc7, 0x0f), 1, {W(0x30000, 16)}},
    {"xlat", CODE(0xd7), 1, {R(0x10010, 1)}},
    {"fstpt (%rbx)", CODE(0xdb, 0x3b), 1, {W(0x10000, 10)}},
    {"fxsave (%rbx)", CODE(0x0f, 0xae, 0x03), 1, {W(0x10000, 512)}},
    {"movaps %xmm0,-16(%rbp)", CODE(0x0f, 0x29, 0x45, 0xf0), 1, {W(0x4fff0, 16)}},
    {"vmovdqu (%rbx),%ymm0", CODE(0xc5, 0xfe, 0x6f, 0x03), 1, {R(0x10000, 32)}},
    {"vmovdqu64 %zmm0,(%rbx)", CODE(0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x03), 1, {W(0x10000, 64)}},
    {"maskmovdqu %xmm1,%xmm0", CODE(0x66, 0x0f, 0xf7, 0xc1), 1, {W(0x30000, 16)}},
};

static const struct expectation stack[] = {
    {"push %rax", CODE(0x50), 1, {W(0x3fff8, 8)}},
    {"push (%rbx)", CODE(0xff, 0x33), 2, {R(0x10000, 8), W(0x3fff8, 8)}},
    {"pop %rax", CODE(0x58), 1, {R(0x40000, 8)}},
    {"pop 8(%rsp)", CODE(0x8f, 0x44, 0x24, 0x08), 2, {W(0x40010, 8), R(0x40000, 8)}},
    {"pushf", CODE(0x9c), 1, {W(0x3fff8, 8)}},
    {"call .+100", CODE(0xe8, 0x5f, 0, 0, 0), 1, {W(0x3fff8, 8)}},
    {"call *(%rbx)", CODE(0xff, 0x13), 2, {R(0x10000, 8), W(0x3fff8, 8)}},
    {"jmp *(%rbx)", CODE(0xff, 0x23), 1, {R(0x10000, 8)}},
    {"ret", CODE(0xc3), 1, {R(0x40000, 8)}},
    {"iretq", CODE(0x48, 0xcf), 1, {R(0x40000, 40)}},
    {"leave", CODE(0xc9), 1, {R(0x50000, 8)}},
    {"enter $32,$0", CODE(0xc8, 0x20, 0, 0), 2, {W(0x3fff8, 8), W(0x3ffd8, 1)}},
    {"enter $32,$2", CODE(0xc8, 0x20, 0, 2), 3, {W(0x3ffe8, 24), R(0x4fff8, 8), W(0x3ffc8, 1)}},
};

static const struct expectation strings[] = {
    {"rep movsb", CODE(0xf3, 0xa4), 2, {W(0x30000, 1), R(0x20000, 1)}},
    {"rep movsq", CODE(0xf3, 0x48, 0xa5), 2, {W(0x30000, 8), R(0x20000, 8)}},
    {"movsq", CODE(0x48, 0xa5), 2, {W(0x30000, 8), R(0x20000, 8)}},
    {"repne scasb", CODE(0xf2, 0xae), 1, {R(0x30000, 1)}},
    {"lodsl", CODE(0xad), 1, {R(0x20000, 4)}},
    {"rep stosq", CODE(0xf3, 0x48, 0xab), 1, {W(0x30000, 8)}},
    {"cmpsb", CODE(0xa6), 2, {R(0x20000, 1), R(0x30000, 1)}},
};

static const struct expectation nothing[] = {
    {"lea (%rbx),%rax", CODE(0x48, 0x8d, 0x03), 0, {R(0, 0)}},
    {"nopw (%rbx)", CODE(0x66, 0x0f, 0x1f, 0x03), 0, {R(0, 0)}},
    {"prefetcht0 (%rbx)", CODE(0x0f, 0x18, 0x0b), 0, {R(0, 0)}},
    {"prefetchw (%rbx)", CODE(0x0f, 0x0d, 0x0b), 0, {R(0, 0)}},
    {"mov %rax,%rbx", CODE(0x48, 0x89, 0xc3), 0, {R(0, 0)}},
};

static const struct expectation bits[] = {
    {"bt $3,(%rbx)", CODE(0x0f, 0xba, 0x23, 0x03), 1, {R(0x10000, 4)}},
    {"bts %rcx,(%rbx)", CODE(0x48, 0x0f, 0xab, 0x0b), 1, {W(0x10000 + 8 * 16, 8)}},
    {"bt %ecx,(%rbx)", CODE(0x0f, 0xa3, 0x0b), 1, {R(0x10000 + 4 * 32, 4)}},
    {"btc %edx,(%rbx)", CODE(0x0f, 0xbb, 0x13), 1, {W(0x10000 - 4, 4)}},
};

static bool found(const struct access *wanted, const struct access *out, int count)
{
    for (int i = 0; i < count; i++) {
        if (out[i].gpa == wanted->gpa && out[i].bytes == wanted->bytes &&
            out[i].write == wanted->write)
            return true;
    }
    return false;
}

static void expect(const struct expectation *wanted, const struct kvm_regs *regs)
{
    struct access out[ACCESS_MAX];
    int count = address_decode_with(regs, &segments, wanted->code, wanted->bytes, NULL, NULL, out);
    ck_assert_msg(count == wanted->count, "%s: %d accesses, not %d", wanted->name, count,
                  wanted->count);
    for (int i = 0; i < wanted->count; i++)
        ck_assert_msg(found(&wanted->accesses[i], out, count), "%s: access %d is missing",
                      wanted->name, i);
}

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

START_TEST(explicit_operands_are_found_with_size_and_direction)
{
    expect(&operands[_i], &registers);
}
END_TEST

START_TEST(stack_accesses_count_from_the_right_side_of_the_pointer)
{
    expect(&stack[_i], &registers);
}
END_TEST

START_TEST(string_instructions_touch_their_current_element)
{
    expect(&strings[_i], &registers);
}
END_TEST

START_TEST(address_arithmetic_and_hints_touch_nothing)
{
    expect(&nothing[_i], &registers);
}
END_TEST

START_TEST(bit_offsets_in_registers_move_the_operand)
{
    struct kvm_regs regs = registers;
    regs.rcx = 64 * 16 + 1; /* bit 1 of quadword 16, or of doubleword 32 */
    regs.rdx = 0xffffffff;  /* bit -1 */
    expect(&bits[_i], &regs);
}
END_TEST

START_TEST(repeat_count_zero_touches_nothing)
{
    struct expectation none = {"rep stosq", CODE(0xf3, 0x48, 0xab), 0, {R(0, 0)}};
    struct kvm_regs regs = registers;
    regs.rcx = 0;
    expect(&none, &regs);
}
END_TEST

START_TEST(state_saving_covers_the_enabled_features)
{
    const uint8_t xsave[] = {0x0f, 0xae, 0x23};
    struct access out[ACCESS_MAX];
    unsigned a, b = 0, c, d;
    if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
        return;
    ck_assert_int_eq(
        address_decode_with(&registers, &segments, xsave, sizeof(xsave), NULL, NULL, out), 1);
    ck_assert_uint_eq(out[0].gpa, 0x10000);
    ck_assert_uint_ge(out[0].bytes, b);
}
END_TEST

START_TEST(garbage_is_refused)
{
    const uint8_t cut[] = {0x48, 0x8b}, wrong[] = {0x06, 0x06};
    struct access out[ACCESS_MAX];
    ck_assert_int_lt(address_decode_with(&registers, &segments, cut, sizeof(cut), NULL, NULL, out),
                     0);
    ck_assert_int_lt(
        address_decode_with(&registers, &segments, wrong, sizeof(wrong), NULL, NULL, out), 0);
}
END_TEST

/* ---- gather and scatter ---- */

static uint32_t component(unsigned number)
{
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(0xd, number, &a, &b, &c, &d) ? b : 0;
}

/* Puts `bytes` of a vector's image where the XSAVE area keeps register `number` (below 16). */
static void vector_put(uint8_t *area, unsigned number, const void *value, size_t bytes)
{
    const uint8_t *from = value;
    memcpy(area + 160 + number * 16, from, bytes < 16 ? bytes : 16);
    if (bytes > 16 && component(2))
        memcpy(area + component(2) + number * 16, from + 16, bytes < 32 ? bytes - 16 : 16);
    if (bytes > 32 && component(6))
        memcpy(area + component(6) + number * 32, from + 32, 32);
}

static int area_copy(void *owner, uint8_t xsave[], size_t bytes)
{
    memcpy(xsave, owner, bytes);
    return 0;
}

START_TEST(gathers_touch_the_elements_their_mask_selects)
{
    static const uint8_t gather[] = {0xc4, 0xe2, 0x6d, 0x92, 0x04, 0x8b}; /* ymm2, ymm1, scale 4 */
    static uint8_t area[ADDRESS_XSAVE_BYTES];
    const int32_t index[8] = {0, 1024, -1024, 5, 6, 7, 8, 2048};
    const uint32_t mask[8] = {1u << 31, 0, 1u << 31, 0, 0, 0, 0, 1u << 31};
    struct access out[ACCESS_MAX];
    vector_put(area, 1, index, sizeof(index));
    vector_put(area, 2, mask, sizeof(mask));
    if (!component(2))
        return;
    ck_assert_int_eq(
        address_decode_with(&registers, &segments, gather, sizeof(gather), area_copy, area, out),
        3);
    ck_assert_uint_eq(out[0].gpa, 0x10000);
    ck_assert_uint_eq(out[1].gpa, 0x10000 - 4096);
    ck_assert_uint_eq(out[2].gpa, 0x10000 + 8192);
    ck_assert(!out[0].write && out[0].bytes == 4);
}
END_TEST

START_TEST(wide_indices_halve_the_elements)
{
    static const uint8_t gather[] = {0xc4, 0xe2, 0xed, 0x93, 0x04, 0xcb}; /* vgatherqpd, scale 8 */
    static uint8_t area[ADDRESS_XSAVE_BYTES];
    const int64_t index[4] = {1LL << 32, 0, 0, -1};
    const uint64_t mask[4] = {1ULL << 63, 0, 0, 1ULL << 63};
    struct access out[ACCESS_MAX];
    vector_put(area, 1, index, sizeof(index));
    vector_put(area, 2, mask, sizeof(mask));
    if (!component(2))
        return;
    ck_assert_int_eq(
        address_decode_with(&registers, &segments, gather, sizeof(gather), area_copy, area, out),
        2);
    ck_assert_uint_eq(out[0].gpa, 0x10000 + (8ULL << 32));
    ck_assert_uint_eq(out[1].gpa, 0x10000 - 8);
    ck_assert_uint_eq(out[0].bytes, 8);
}
END_TEST

START_TEST(scatters_use_the_opmask_and_write)
{
    static const uint8_t scatter[] = {0x62, 0xf2, 0xfd, 0x49, 0xa1, 0x04, 0xcb}; /* zmm1, k1 */
    static uint8_t area[ADDRESS_XSAVE_BYTES];
    const int64_t index[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const uint64_t k1 = 0x81;
    struct access out[ACCESS_MAX];
    if (!component(5) || !component(6))
        return; /* a CPU without AVX-512 never runs it */
    vector_put(area, 1, index, sizeof(index));
    memcpy(area + component(5) + 8, &k1, sizeof(k1));
    ck_assert_int_eq(
        address_decode_with(&registers, &segments, scatter, sizeof(scatter), area_copy, area, out),
        2);
    ck_assert_uint_eq(out[0].gpa, 0x10008);
    ck_assert_uint_eq(out[1].gpa, 0x10040);
    ck_assert(out[0].write && out[1].write);
}
END_TEST

START_TEST(vector_indices_without_a_vcpu_are_refused)
{
    static const uint8_t gather[] = {0xc4, 0xe2, 0x6d, 0x92, 0x04, 0x8b};
    struct access out[ACCESS_MAX];
    ck_assert_int_lt(
        address_decode_with(&registers, &segments, gather, sizeof(gather), NULL, NULL, out), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("address");
    TCase *scalar = tcase_create("scalar"), *vector = tcase_create("vector");
    tcase_add_loop_test(scalar, explicit_operands_are_found_with_size_and_direction, 0,
                        COUNT(operands));
    tcase_add_loop_test(scalar, stack_accesses_count_from_the_right_side_of_the_pointer, 0,
                        COUNT(stack));
    tcase_add_loop_test(scalar, string_instructions_touch_their_current_element, 0, COUNT(strings));
    tcase_add_loop_test(scalar, address_arithmetic_and_hints_touch_nothing, 0, COUNT(nothing));
    tcase_add_loop_test(scalar, bit_offsets_in_registers_move_the_operand, 0, COUNT(bits));
    tcase_add_test(scalar, repeat_count_zero_touches_nothing);
    tcase_add_test(scalar, state_saving_covers_the_enabled_features);
    tcase_add_test(scalar, garbage_is_refused);
    tcase_add_test(vector, gathers_touch_the_elements_their_mask_selects);
    tcase_add_test(vector, wide_indices_halve_the_elements);
    tcase_add_test(vector, scatters_use_the_opmask_and_write);
    tcase_add_test(vector, vector_indices_without_a_vcpu_are_refused);
    suite_add_tcase(suite, scalar);
    suite_add_tcase(suite, vector);
    return unit_run(suite);
}
