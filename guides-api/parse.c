/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict text to number. Accepts exactly what the documentation shows and refuses everything else,
 * because a size that is quietly misread (sscanf takes "512MB" for 512) is worse than an error.
 * No sign, no blanks, no fractions, no locale. Pure functions, any thread.
 */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* Reads decimal digits up to *end; at least one. */
static int parse_digits(const char *text, const char **end, uint64_t *value)
{
    uint64_t sum = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(sum, 10u, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum))
            return -ERANGE;
    }
    if (at == text)
        return -EINVAL;
    *end = at;
    *value = sum;
    return 0;
}

/* Digits, then exactly one of the suffixes; `units` ends with a NULL suffix. */
static int parse_scaled(const char *text, const struct unit *units, uint64_t *value)
{
    const char *suffix;
    uint64_t number, scaled;
    int error = parse_digits(text, &suffix, &number);

    if (error)
        return error;
    for (; units->suffix; units++) {
        if (strcmp(suffix, units->suffix) != 0)
            continue;
        if (__builtin_mul_overflow(number, units->factor, &scaled))
            return -ERANGE;
        *value = scaled;
        return 0;
    }
    return -EINVAL;
}

int parse_size(const char *text, uint64_t *bytes)
{
    static const struct unit units[] = {{"", 1},           {"K", 1ULL << 10}, {"M", 1ULL << 20},
                                        {"G", 1ULL << 30}, {"T", 1ULL << 40}, {NULL, 0}};

    return parse_scaled(text, units, bytes);
}

int parse_duration(const char *text, uint64_t *ns)
{
    static const struct unit units[] = {
        {"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {NULL, 0}};

    return parse_scaled(text, units, ns);
}

/* Decimal multiples, as network links are sold. */
int parse_rate(const char *text, uint64_t *bits_per_s)
{
    static const struct unit units[] = {
        {"", 1}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0}};

    return parse_scaled(text, units, bits_per_s);
}

int parse_u64(const char *text, uint64_t *value)
{
    static const struct unit units[] = {{"", 1}, {NULL, 0}};

    return parse_scaled(text, units, value);
}

const char *format_bytes(uint64_t bytes, char *buffer, size_t buffer_bytes)
{
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t step = 0;
    double scaled = (double)bytes / 1024.0;

    if (bytes < 1024) {
        snprintf(buffer, buffer_bytes, "%llu B", (unsigned long long)bytes);
        return buffer;
    }
    /* 1023.95 and above would print as "1024.0". */
    for (; scaled >= 1023.95 && step + 1 < sizeof(names) / sizeof(names[0]); step++)
        scaled /= 1024.0;
    snprintf(buffer, buffer_bytes, "%.1f %s", scaled, names[step]);
    return buffer;
}
