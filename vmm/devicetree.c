/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flattened device tree that tells the guest its world: names in guides-api/farvisor/fdt.h,
 * format by libfdt. Written straight into guest memory, read-only for the guest.
 * Main thread, before the guest runs.
 */
#include "vmm/machine.h"

#include "farvisor/fdt.h"
#include "support.h"

#include <cpuid.h>
#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define RANDOM_BYTES        32u
#define FIXED_BYTES         16384u /* all but the lists, with a path of PATH_MAX */
#define STACK_DEFAULT_BYTES (8ULL << 20)
#define STACK_MAX_BYTES     (1ULL << 30)

/* AT_HWCAP is CPUID.1:EDX, which getauxval cannot tell: on x86 glibc puts flags of its own there.
 */
static unsigned cpu_features(void)
{
    unsigned eax, ebx, ecx, edx = 0;
    (void)__get_cpuid(1, &eax, &ebx, &ecx, &edx);
    return edx;
}

static int machine_node(const struct vm *vm, void *tree)
{
    int error = fdt_begin_node(tree, FV_FDT_MACHINE + 1);
    error |= fdt_property_u32(tree, FV_FDT_ABI_VERSION, FV_ABI_VERSION);
    error |= fdt_property_u64(tree, FV_FDT_MEMORY_BYTES, vm->config->memory_bytes);
    error |= fdt_property_u64(tree, FV_FDT_ADDRESS_END, ept_span(vm->ept));
    error |= fdt_property_u32(tree, FV_FDT_VCPUS_MAX, vm->config->threads_max);
    error |= fdt_property_u32(tree, FV_FDT_PID, (uint32_t)vm->pid);
    error |= fdt_property_u32(tree, FV_FDT_PPID, (uint32_t)getppid());
    error |= fdt_property_u32(tree, FV_FDT_PGID, (uint32_t)getpgrp());
    error |= fdt_property_u32(tree, FV_FDT_SID, (uint32_t)getsid(0));
    error |= fdt_property_u32(tree, FV_FDT_UID, getuid());
    error |= fdt_property_u32(tree, FV_FDT_GID, getgid());
    error |= fdt_property_u32(tree, FV_FDT_EUID, geteuid());
    error |= fdt_property_u32(tree, FV_FDT_EGID, getegid());
    error |= fdt_property_u64(tree, FV_FDT_HWCAP, cpu_features());
    /* Not FSGSBASE, though %fs may be used so: a program's wrgsbase would end the guest kernel. */
    error |= fdt_property_u64(tree, FV_FDT_HWCAP2, 0);
    error |= fdt_property_u32(tree, FV_FDT_CLOCK_TICKS, (uint32_t)sysconf(_SC_CLK_TCK));
    error |= fdt_end_node(tree);
    return error;
}

static size_t list_bytes(char *const *strings)
{
    size_t bytes = 0;
    for (size_t i = 0; strings[i]; i++)
        bytes += strlen(strings[i]) + 1;
    return bytes;
}

/* The strings one after the other, each with its NUL, as device trees have lists. */
static int string_list(void *tree, const char *name, char *const *strings)
{
    size_t bytes = list_bytes(strings);
    if (bytes > FV_FDT_MAX)
        return -FDT_ERR_NOSPACE;
    void *at;
    int error = fdt_property_placeholder(tree, name, (int)bytes, &at);
    for (size_t i = 0; !error && strings[i]; i++)
        at = stpcpy(at, strings[i]) + 1;
    return error;
}

/* The limit the program would have had; "unlimited" means the default, as the stack is mapped. */
static uint64_t stack_bytes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return STACK_DEFAULT_BYTES;
    return limit.rlim_cur < STACK_MAX_BYTES ? limit.rlim_cur : STACK_MAX_BYTES;
}

static int program_node(const struct vm *vm, const struct program *program, void *tree)
{
    uint8_t random[RANDOM_BYTES];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -FDT_ERR_INTERNAL;
    int error = fdt_begin_node(tree, FV_FDT_PROGRAM + 1);
    error |= fdt_property(tree, FV_FDT_PATH, program->path, (int)strlen(program->path) + 1);
    error |= fdt_property_u32(tree, FV_FDT_FD, (uint32_t)program->guest_fd);
    error |= fdt_property(tree, FV_FDT_RANDOM, random, sizeof(random));
    error |= fdt_property_u64(tree, FV_FDT_STACK_BYTES, stack_bytes());
    error |= string_list(tree, FV_FDT_ARGV, program->argv);
    if (vm->config->envp[0])
        error |= string_list(tree, FV_FDT_ENVP, vm->config->envp);
    error |= fdt_end_node(tree);
    return error;
}

/* Room for what will be written: libfdt clears all it is given, and 4 MiB of that take 2 ms. */
static int room_bytes(const struct vm *vm, const struct program *program)
{
    size_t bytes = list_bytes(program->argv) + list_bytes(vm->config->envp) + FIXED_BYTES;
    return bytes < FV_FDT_MAX ? (int)bytes : FV_FDT_MAX;
}

int devicetree_place(struct vm *vm, const struct program *program)
{
    void *tree = ept_hva(vm->ept, FV_FDT_BASE);
    int error = fdt_create(tree, room_bytes(vm, program));
    error |= fdt_finish_reservemap(tree);
    error |= fdt_begin_node(tree, "");
    error |= fdt_property_string(tree, "compatible", FV_FDT_COMPATIBLE);
    error |= machine_node(vm, tree);
    error |= program_node(vm, program, tree);
    error |= fdt_end_node(tree);
    error |= fdt_finish(tree);
    if (error) {
        message_error("%s: arguments and environment: too long together (at most 4 MiB)",
                      program->path);
        return -E2BIG;
    }
    return ept_map_kernel(vm->ept, FV_FDT_BASE, fdt_totalsize(tree), EPT_READ, true);
}
