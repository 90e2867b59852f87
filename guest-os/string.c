/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C library's memory and string functions that gcc and libfdt call. The kernel has no library:
 * these are plain, and built without turning their loops into calls of themselves.
 */
#include "guest-os/kernel.h"

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes)::"memory");
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    if ((uintptr_t)to - (uintptr_t)from >= bytes)
        return memcpy(to, from, bytes);
    char *target = to;
    const char *source = from;
    while (bytes-- > 0)
        target[bytes] = source[bytes];
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const uint8_t *left = a, *right = b;
    for (size_t i = 0; i < bytes; i++)
        if (left[i] != right[i])
            return left[i] - right[i];
    return 0;
}

void *memchr(const void *at, int value, size_t bytes)
{
    const uint8_t *byte = at;
    for (size_t i = 0; i < bytes; i++)
        if (byte[i] == (uint8_t)value)
            return (void *)(uintptr_t)&byte[i];
    return NULL;
}

size_t strnlen(const char *text, size_t bytes)
{
    size_t length = 0;
    while (length < bytes && text[length] != '\0')
        length++;
    return length;
}

size_t strlen(const char *text)
{
    return strnlen(text, SIZE_MAX);
}

char *strchr(const char *text, int value)
{
    return memchr(text, value, strlen(text) + 1);
}

char *strrchr(const char *text, int value)
{
    for (size_t i = strlen(text) + 1; i-- > 0;)
        if (text[i] == (char)value)
            return (char *)(uintptr_t)&text[i];
    return NULL;
}

/* libfdt reads "@address" parts with it; decimal and hexadecimal are enough for that. */
unsigned long strtoul(const char *text, char **end, int base)
{
    unsigned long value = 0;
    for (;; text++) {
        unsigned digit = (unsigned char)*text;
        if (digit >= '0' && digit <= '9')
            digit -= '0';
        else if (digit >= 'a' && digit <= 'f')
            digit -= 'a' - 10;
        else
            break;
        if (digit >= (unsigned)base)
            break;
        value = value * (unsigned)base + digit;
    }
    if (end != NULL)
        *end = (char *)(uintptr_t)text;
    return value;
}

/* libfdt is built with stack protection; the word it compares is constant, so this is unreachable.
 */
_Noreturn void __stack_chk_fail(void);
_Noreturn void __stack_chk_fail(void)
{
    vmm_exit_group(125, 0, false);
}
