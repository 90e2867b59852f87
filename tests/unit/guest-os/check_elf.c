/* SPDX-License-Identifier: Apache-2.0 */
/* The guest loader's judgement of ELF files, on the host: what it takes, and why it refuses. */
#include "guest-os/elf_check.h"
#include "tests/unit/unit.h"

#include <elf.h>
#include <string.h>

#define PHDRS 3

/* A small right program, spoilt by each test in one place. */
static Elf64_Ehdr ehdr;
static Elf64_Phdr phdrs[PHDRS];
static struct elf_header header;
static struct elf_plan plan;

static void setup(void)
{
    ehdr = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_entry = 0x401000,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = PHDRS,
    };
    phdrs[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_flags = PF_R | PF_X,
                            .p_vaddr = 0x400000,
                            .p_filesz = 0x2000,
                            .p_memsz = 0x2000,
                            .p_align = 0x1000};
    phdrs[1] = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_flags = PF_R | PF_W,
                            .p_vaddr = 0x403800,
                            .p_offset = 0x2800,
                            .p_filesz = 0x100,
                            .p_memsz = 0x2100,
                            .p_align = 0x1000};
    phdrs[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x200, .p_filesz = 28};
}

static const char *judge(uint64_t file_bytes)
{
    const char *wrong = elf_header_check(&ehdr, sizeof(ehdr), &header);
    return wrong != NULL ? wrong : elf_segments_check(&header, phdrs, file_bytes, &plan);
}

START_TEST(right_program_is_taken)
{
    ck_assert_ptr_null(judge(0x3000));
    ck_assert_uint_eq(plan.segment_count, 2);
    ck_assert_uint_eq(plan.begin, 0x400000);
    ck_assert_uint_eq(plan.end, 0x406000);
    ck_assert_uint_eq(plan.phdr_address, 0x400040);
    ck_assert_uint_eq(plan.interpreter_offset, 0x200);
    ck_assert_uint_eq(plan.interpreter_bytes, 28);
    ck_assert_uint_eq(plan.segments[0].protection, 5);
    ck_assert_uint_eq(plan.segments[1].protection, 3);
    ck_assert(!header.dynamic);
}
END_TEST

START_TEST(short_file_is_refused)
{
    ck_assert_str_eq(elf_header_check(&ehdr, sizeof(ehdr) - 1, &header),
                     "too short for an ELF file");
}
END_TEST

/* Each spoils one field of the header or of a program header and names what must be said. */
static const struct {
    size_t offset; /* within ehdr, or sizeof(ehdr) + within phdrs */
    size_t bytes;
    uint64_t value;
    const char *says;
} spoilt[] = {
#define IN_EHDR(field, value, says)                                                                \
    {                                                                                              \
        offsetof(Elf64_Ehdr, field), sizeof(((Elf64_Ehdr *)0)->field), value, says                 \
    }
#define IN_PHDR(index, field, value, says)                                                         \
    {                                                                                              \
        sizeof(Elf64_Ehdr) + (index) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field),           \
            sizeof(((Elf64_Phdr *)0)->field), value, says                                          \
    }
    {EI_MAG1, 1, 'X', "not an ELF file"},
    {EI_CLASS, 1, ELFCLASS32, "not a 64-bit program"},
    {EI_DATA, 1, ELFDATA2MSB, "not a little-endian program"},
    {EI_VERSION, 1, 9, "unknown ELF version"},
    IN_EHDR(e_machine, EM_AARCH64, "not an x86-64 program"),
    IN_EHDR(e_type, ET_REL, "not an executable"),
    IN_EHDR(e_phentsize, 32, "wrong size of program headers"),
    IN_EHDR(e_phnum, 0, "impossible number of program headers"),
    IN_EHDR(e_phnum, PN_XNUM, "impossible number of program headers"),
    IN_EHDR(e_phoff, UINT64_MAX - 8, "program headers outside the file"),
    IN_EHDR(e_entry, 0, "entry point outside the program's code"),
    IN_EHDR(e_entry, 0x403800, "entry point outside the program's code"),
    IN_PHDR(0, p_filesz, 0x2001, "segment larger in the file than in memory"),
    IN_PHDR(0, p_vaddr, UINT64_MAX - 0xfff, "segment outside the address space"),
    IN_PHDR(0, p_memsz, UINT64_MAX, "segment outside the address space"),
    IN_PHDR(0, p_memsz, 0x3900, "segments overlap or are out of order"),
    IN_PHDR(0, p_offset, 0x8000000000000000, "segment outside the file"),
    IN_PHDR(0, p_offset, 0x123, "segment's address and file offset disagree"),
    IN_PHDR(0, p_align, 0x3000, "segment alignment is not a power of two"),
    IN_PHDR(0, p_align, 1ULL << 40, "segment alignment is too large"),
    IN_PHDR(1, p_offset, 0x3800, "segment outside the file"),
    IN_PHDR(1, p_vaddr, 0x3ff800, "segments overlap or are out of order"),
    IN_PHDR(2, p_filesz, 1, "impossible interpreter path"),
    IN_PHDR(2, p_filesz, 5000, "impossible interpreter path"),
    IN_PHDR(2, p_offset, 0x2ff0, "interpreter path outside the file"),
};

START_TEST(spoilt_program_is_refused_with_the_reason)
{
    char *at = spoilt[_i].offset < sizeof(ehdr)
                   ? (char *)&ehdr + spoilt[_i].offset
                   : (char *)phdrs + (spoilt[_i].offset - sizeof(ehdr));
    memcpy(at, &spoilt[_i].value, spoilt[_i].bytes);
    const char *wrong = judge(0x3000);
    ck_assert_ptr_nonnull(wrong);
    ck_assert_str_eq(wrong, spoilt[_i].says);
}
END_TEST

START_TEST(nothing_to_load_is_refused)
{
    phdrs[0].p_type = phdrs[1].p_type = PT_NULL;
    ck_assert_str_eq(judge(0x3000), "nothing to load");
}
END_TEST

START_TEST(second_interpreter_is_refused)
{
    phdrs[1] = phdrs[2];
    ck_assert_str_eq(judge(0x3000), "more than one interpreter");
}
END_TEST

START_TEST(too_many_segments_are_refused)
{
    static Elf64_Phdr many[ELF_SEGMENTS_MAX + 1];
    for (size_t i = 0; i <= ELF_SEGMENTS_MAX; i++) {
        many[i] = phdrs[0];
        many[i].p_vaddr += i * 0x10000;
    }
    ehdr.e_phnum = ELF_SEGMENTS_MAX + 1;
    ck_assert_ptr_null(elf_header_check(&ehdr, sizeof(ehdr), &header));
    ck_assert_str_eq(elf_segments_check(&header, many, UINT64_MAX, &plan), "too many segments");
}
END_TEST

START_TEST(large_alignment_and_executable_stack_are_seen)
{
    phdrs[0].p_align = 0x200000;
    phdrs[2] = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W | PF_X};
    ck_assert_ptr_null(judge(UINT64_MAX));
    ck_assert_uint_eq(plan.align_bytes, 0x200000);
    ck_assert(plan.executable_stack);
    ck_assert_uint_eq(plan.interpreter_bytes, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("elf");
    TCase *tests = tcase_create("check");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, right_program_is_taken);
    tcase_add_test(tests, short_file_is_refused);
    tcase_add_loop_test(tests, spoilt_program_is_refused_with_the_reason, 0,
                        sizeof(spoilt) / sizeof(spoilt[0]));
    tcase_add_test(tests, nothing_to_load_is_refused);
    tcase_add_test(tests, second_interpreter_is_refused);
    tcase_add_test(tests, too_many_segments_are_refused);
    tcase_add_test(tests, large_alignment_and_executable_stack_are_seen);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
