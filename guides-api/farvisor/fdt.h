/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the flattened device tree at FV_FDT_BASE, by which the VMM tells the guest its world.
 * Numbers are big-endian cells as device trees have them: u32 one cell, u64 two cells. A property
 * marked (optional) may be absent. Explained in docs/hypercalls.md.
 */
#ifndef FARVISOR_FDT_H
#define FARVISOR_FDT_H

#define FV_FDT_COMPATIBLE "farvisor,guest" /* root node's "compatible" */

#define FV_FDT_MACHINE      "/farvisor"
#define FV_FDT_ABI_VERSION  "abi-version"  /* u32: FV_ABI_VERSION */
#define FV_FDT_MEMORY_BYTES "memory-bytes" /* u64: quota on pages that exist */
#define FV_FDT_ADDRESS_END  "address-end"  /* u64: end of guest addresses */
#define FV_FDT_VCPUS_MAX    "vcpus-max"    /* u32 */
#define FV_FDT_PID          "pid"          /* u32: the VMM's, which is the program's */
#define FV_FDT_PPID         "ppid"         /* u32 (optional: 1) */
#define FV_FDT_PGID         "pgid"         /* u32 (optional: pid) */
#define FV_FDT_SID          "sid"          /* u32 (optional: pid) */
#define FV_FDT_UID          "uid"          /* u32 */
#define FV_FDT_GID          "gid"          /* u32 */
#define FV_FDT_EUID         "euid"         /* u32 */
#define FV_FDT_EGID         "egid"         /* u32 */
#define FV_FDT_HWCAP        "hwcap"        /* u64: AT_HWCAP */
#define FV_FDT_HWCAP2       "hwcap2"       /* u64: AT_HWCAP2 */
#define FV_FDT_CLOCK_TICKS  "clock-ticks"  /* u32: AT_CLKTCK */

#define FV_FDT_PROGRAM     "/program"
#define FV_FDT_PATH        "path"        /* string: absolute guest path */
#define FV_FDT_FD          "fd"          /* u32: guest descriptor open for reading */
#define FV_FDT_ARGV        "argv"        /* string list */
#define FV_FDT_ENVP        "envp"        /* string list (optional: empty) */
#define FV_FDT_RANDOM      "random"      /* 16 bytes or more: AT_RANDOM */
#define FV_FDT_STACK_BYTES "stack-bytes" /* u64: main thread's stack (optional: 8 MiB) */

#endif
