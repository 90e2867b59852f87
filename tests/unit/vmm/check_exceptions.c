/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions become the signals Linux would send, and a file that is no program of ours is refused
 * with the reason.
 */
#include "tests/unit/unit.h"
#include "vmm/machine.h"

#include <elf.h>
#include <string.h>

#define RIP 0x401000

static const struct {
    struct exception_state state;
    int signal, code;
    gpa_t address;
} exceptions[] = {
    {{.vector = 0, .rip = RIP}, SIGFPE, FPE_INTDIV, RIP},
    {{.vector = 1, .rip = RIP, .dr6 = 1u << 14}, SIGTRAP, TRAP_TRACE, RIP},
    {{.vector = 1, .rip = RIP}, SIGTRAP, TRAP_HWBKPT, RIP},
    {{.vector = 3, .rip = RIP}, SIGTRAP, SI_KERNEL, 0},
    {{.vector = 6, .rip = RIP}, SIGILL, ILL_ILLOPN, RIP},
    {{.vector = 12, .rip = RIP}, SIGBUS, SI_KERNEL, 0},
    {{.vector = 13, .rip = RIP}, SIGSEGV, SI_KERNEL, 0},
    {{.vector = 17, .rip = RIP}, SIGBUS, BUS_ADRALN, 0},
    {{.vector = 16, .rip = RIP, .x87_status = 4, .x87_control = 0x37b}, SIGFPE, FPE_FLTDIV, RIP},
    {{.vector = 16, .rip = RIP, .x87_status = 4, .x87_control = 0x37f}, 0, 0, 0},
    {{.vector = 19, .rip = RIP, .mxcsr = (0x1f80 & ~(1u << 7)) | 1}, SIGFPE, FPE_FLTINV, RIP},
    {{.vector = 19, .rip = RIP, .mxcsr = (0x1f80 & ~(1u << 10)) | 8}, SIGFPE, FPE_FLTOVF, RIP},
    {{.vector = 19, .rip = RIP, .mxcsr = (0x1f80 & ~(1u << 12)) | 32}, SIGFPE, FPE_FLTRES, RIP},
};

START_TEST(exceptions_become_the_signals_linux_sends)
{
    struct fv_trap trap;
    exception_to_trap(&exceptions[_i].state, &trap);
    ck_assert_uint_eq(trap.vector, exceptions[_i].state.vector);
    ck_assert_int_eq((int)trap.signal, exceptions[_i].signal);
    ck_assert_int_eq(trap.code, exceptions[_i].code);
    ck_assert_uint_eq(trap.address, exceptions[_i].address);
}
END_TEST

static Elf64_Ehdr good_header(void)
{
    Elf64_Ehdr elf = {
        .e_type = ET_DYN, .e_machine = EM_X86_64, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 3};
    memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e_ident[EI_DATA] = ELFDATA2LSB;
    return elf;
}

START_TEST(programs_of_this_machine_pass)
{
    Elf64_Ehdr elf = good_header();
    ck_assert_ptr_null(program_check_header(&elf, sizeof(elf)));
}
END_TEST

START_TEST(other_files_are_refused_with_the_reason)
{
    Elf64_Ehdr elf = good_header();
    ck_assert_str_eq(program_check_header("hello", 5), "not an ELF program");
    ck_assert_str_eq(program_check_header(&elf, 20), "truncated ELF header");
    ck_assert_str_eq(program_check_header("", 0), "not an ELF program");
    elf.e_ident[EI_CLASS] = ELFCLASS32;
    ck_assert_ptr_nonnull(strstr(program_check_header(&elf, sizeof(elf)), "32-bit"));
    elf = good_header();
    elf.e_machine = EM_AARCH64;
    ck_assert_ptr_nonnull(strstr(program_check_header(&elf, sizeof(elf)), "another kind of CPU"));
    elf = good_header();
    elf.e_type = ET_REL;
    ck_assert_ptr_nonnull(program_check_header(&elf, sizeof(elf)));
    elf = good_header();
    elf.e_phnum = 0;
    ck_assert_ptr_nonnull(program_check_header(&elf, sizeof(elf)));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exceptions");
    TCase *tests = tcase_create("tables");
    tcase_add_loop_test(tests, exceptions_become_the_signals_linux_sends, 0,
                        (int)(sizeof(exceptions) / sizeof(exceptions[0])));
    tcase_add_test(tests, programs_of_this_machine_pass);
    tcase_add_test(tests, other_files_are_refused_with_the_reason);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
