/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checked access to the program's memory: addresses inside the kernel region or outside the address
 * space never reach the instructions in usercopy.S. Never called with a lock held, for a
 * second-stage miss in here may take a network round trip.
 */
#include "guest-os/kernel.h"

bool user_range(gpa_t at, uint64_t bytes)
{
    gpa_t end;
    if (__builtin_add_overflow(at, bytes, &end) || end > USER_END || at < FV_USER_MIN)
        return false;
    return end <= FV_KERNEL_BASE || at >= FV_KERNEL_BASE + FV_KERNEL_SIZE;
}

int user_read(void *to, gpa_t from, size_t bytes)
{
    return user_range(from, bytes) ? usercopy_bytes(to, (const void *)from, bytes) : -LINUX_EFAULT;
}

int user_write(gpa_t to, const void *from, size_t bytes)
{
    return user_range(to, bytes) ? usercopy_bytes((void *)to, from, bytes) : -LINUX_EFAULT;
}

int user_clear(gpa_t at, size_t bytes)
{
    return user_range(at, bytes) ? usercopy_zero((void *)at, bytes) : -LINUX_EFAULT;
}

int user_get32(uint32_t *to, gpa_t from)
{
    return user_range(from, sizeof(*to)) ? usercopy_get32(to, (const void *)from) : -LINUX_EFAULT;
}

int user_get64(uint64_t *to, gpa_t from)
{
    return user_range(from, sizeof(*to)) ? usercopy_get64(to, (const void *)from) : -LINUX_EFAULT;
}

int user_put32(gpa_t to, uint32_t value)
{
    return user_range(to, sizeof(value)) ? usercopy_put32((void *)to, value) : -LINUX_EFAULT;
}

int user_put64(gpa_t to, uint64_t value)
{
    return user_range(to, sizeof(value)) ? usercopy_put64((void *)to, value) : -LINUX_EFAULT;
}

int user_cmpxchg32(gpa_t at, uint32_t *expected, uint32_t desired)
{
    if (!user_range(at, sizeof(desired)))
        return -LINUX_EFAULT;
    return usercopy_cmpxchg32((void *)at, expected, desired);
}
