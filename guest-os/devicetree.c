/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the flattened device tree (farvisor/fdt.h) into `process` and struct program. The tree
 * stays where it is: strings are pointers into it. A tree the VMM built wrongly ends the guest.
 */
#include "farvisor/fdt.h"
#include "guest-os/kernel.h"

#include <libfdt.h>

#define STACK_BYTES_DEFAULT (8ULL << 20)
#define RANDOM_BYTES        16

static const void *property(const void *fdt, int node, const char *name, int *bytes)
{
    return fdt_getprop(fdt, node, name, bytes);
}

static uint32_t get_u32(const void *fdt, int node, const char *name, uint32_t otherwise)
{
    int bytes;
    const void *value = property(fdt, node, name, &bytes);
    return value != NULL && bytes == 4 ? fdt32_ld(value) : otherwise;
}

static uint64_t get_u64(const void *fdt, int node, const char *name, uint64_t otherwise)
{
    int bytes;
    const void *value = property(fdt, node, name, &bytes);
    return value != NULL && bytes == 8 ? fdt64_ld(value) : otherwise;
}

/* NULL unless the property is there and, being text, ends with NUL. */
static const char *get_strings(const void *fdt, int node, const char *name, size_t *bytes)
{
    int length;
    const char *value = property(fdt, node, name, &length);
    *bytes = 0;
    if (value == NULL || length <= 0 || value[length - 1] != '\0')
        return NULL;
    *bytes = (size_t)length;
    return value;
}

static void read_machine(const void *fdt, int node)
{
    if (get_u32(fdt, node, FV_FDT_ABI_VERSION, 0) != FV_ABI_VERSION)
        boot_fail("device tree", "made for another version of the guest");
    process.pid = get_u32(fdt, node, FV_FDT_PID, 1);
    process.ppid = get_u32(fdt, node, FV_FDT_PPID, 1);
    process.pgid = get_u32(fdt, node, FV_FDT_PGID, process.pid);
    process.sid = get_u32(fdt, node, FV_FDT_SID, process.pid);
    process.uid = get_u32(fdt, node, FV_FDT_UID, 0);
    process.gid = get_u32(fdt, node, FV_FDT_GID, 0);
    process.euid = get_u32(fdt, node, FV_FDT_EUID, process.uid);
    process.egid = get_u32(fdt, node, FV_FDT_EGID, process.gid);
    process.hwcap = get_u64(fdt, node, FV_FDT_HWCAP, 0);
    process.hwcap2 = get_u64(fdt, node, FV_FDT_HWCAP2, 0);
    process.clock_ticks = get_u32(fdt, node, FV_FDT_CLOCK_TICKS, 100);
    process.address_end = get_u64(fdt, node, FV_FDT_ADDRESS_END, FV_KERNEL_BASE);
}

static void read_program(const void *fdt, int node, struct program *out)
{
    size_t path_bytes;
    int random_bytes;
    out->path = get_strings(fdt, node, FV_FDT_PATH, &path_bytes);
    out->argv = get_strings(fdt, node, FV_FDT_ARGV, &out->argv_bytes);
    out->envp = get_strings(fdt, node, FV_FDT_ENVP, &out->envp_bytes);
    out->fd = get_u32(fdt, node, FV_FDT_FD, UINT32_MAX);
    out->stack_bytes = get_u64(fdt, node, FV_FDT_STACK_BYTES, STACK_BYTES_DEFAULT);
    out->random = property(fdt, node, FV_FDT_RANDOM, &random_bytes);
    if (out->path == NULL || out->argv == NULL || out->fd == UINT32_MAX || out->random == NULL ||
        random_bytes < RANDOM_BYTES)
        boot_fail("device tree", "/program is not complete");
}

void devicetree_read(const void *fdt, struct program *out)
{
    if (fdt_check_header(fdt) != 0 || fdt_totalsize(fdt) > FV_FDT_MAX)
        boot_fail("device tree", "not a device tree");
    int machine = fdt_path_offset(fdt, FV_FDT_MACHINE);
    int program = fdt_path_offset(fdt, FV_FDT_PROGRAM);
    if (machine < 0 || program < 0)
        boot_fail("device tree", "a node is missing");
    read_machine(fdt, machine);
    read_program(fdt, program, out);
}
