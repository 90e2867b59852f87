/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who the program is: ids, groups, and the few per-process settings that are kept here. There is
 * one process; what it is told of the world outside came with the device tree.
 */
#include "guest-os/kernel.h"

#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004

int64_t sys_getpid(struct frame *frame)
{
    (void)frame;
    return process.pid;
}

int64_t sys_gettid(struct frame *frame)
{
    (void)frame;
    return thread_current()->tid;
}

int64_t sys_getppid(struct frame *frame)
{
    (void)frame;
    return process.ppid;
}

int64_t sys_getuid(struct frame *frame)
{
    (void)frame;
    return process.uid;
}

int64_t sys_getgid(struct frame *frame)
{
    (void)frame;
    return process.gid;
}

int64_t sys_geteuid(struct frame *frame)
{
    (void)frame;
    return process.euid;
}

int64_t sys_getegid(struct frame *frame)
{
    (void)frame;
    return process.egid;
}

int64_t sys_getpgrp(struct frame *frame)
{
    (void)frame;
    return process.pgid;
}

static bool is_self(uint64_t pid)
{
    return (uint32_t)pid == 0 || (uint32_t)pid == process.pid;
}

int64_t sys_getpgid(struct frame *frame)
{
    return is_self(frame->rdi) ? (int64_t)process.pgid : -LINUX_ESRCH;
}

int64_t sys_getsid(struct frame *frame)
{
    return is_self(frame->rdi) ? (int64_t)process.sid : -LINUX_ESRCH;
}

/* Only what changes nothing can be granted: the group is the host's. */
int64_t sys_setpgid(struct frame *frame)
{
    if (!is_self(frame->rdi))
        return -LINUX_ESRCH;
    uint32_t group = (uint32_t)frame->rsi == 0 ? process.pid : (uint32_t)frame->rsi;
    return group == process.pgid ? 0 : -LINUX_EPERM;
}

int64_t sys_setsid(struct frame *frame)
{
    (void)frame;
    return -LINUX_EPERM;
}

/*
 * The program's thread pointer is %fs's base, which ring 3 writes itself. %gs is the kernel's: its
 * base finds the vCPU.
 */
int64_t sys_arch_prctl(struct frame *frame)
{
    uint64_t base;
    switch ((uint32_t)frame->rdi) {
    case ARCH_SET_FS:
        if (frame->rsi >= TLS_LIMIT)
            return -LINUX_EPERM;
        __asm__ volatile("wrfsbase %0" ::"r"(frame->rsi));
        return 0;
    case ARCH_GET_FS:
        __asm__ volatile("rdfsbase %0" : "=r"(base));
        return user_put64(frame->rsi, base);
    case ARCH_GET_GS:
        return user_put64(frame->rsi, 0);
    case ARCH_SET_GS:
        return -LINUX_EPERM;
    default:
        return -LINUX_EINVAL;
    }
}
