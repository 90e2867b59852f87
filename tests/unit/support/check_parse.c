/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict number parsing: what the documentation shows is accepted, its neighbours are not.
 */
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdint.h>

struct row {
    const char *text;
    int error;
    uint64_t value;
};

static const struct row sizes[] = {
    {"0", 0, 0},
    {"4096", 0, 4096},
    {"64K", 0, 65536},
    {"512M", 0, 512ULL << 20},
    {"2G", 0, 2ULL << 30},
    {"1T", 0, 1ULL << 40},
    {"18446744073709551615", 0, UINT64_MAX},
    {"18446744073709551616", -ERANGE, 0},
    {"16777216T", -ERANGE, 0},
    {"99999999999999999999999M", -ERANGE, 0},
    {"", -EINVAL, 0},
    {"M", -EINVAL, 0},
    {"512MB", -EINVAL, 0},
    {"512m", -EINVAL, 0},
    {"512 M", -EINVAL, 0},
    {" 512M", -EINVAL, 0},
    {"512M ", -EINVAL, 0},
    {"+512M", -EINVAL, 0},
    {"-1", -EINVAL, 0},
    {"1.5G", -EINVAL, 0},
    {"0x10", -EINVAL, 0},
    {"1e9", -EINVAL, 0},
};

static const struct row durations[] = {
    {"10ns", 0, 10},   {"20us", 0, 20000},   {"5ms", 0, 5000000},          {"3s", 0, 3000000000},
    {"0s", 0, 0},      {"3", -EINVAL, 0},    {"3 s", -EINVAL, 0},          {"3m", -EINVAL, 0},
    {"s", -EINVAL, 0}, {"3sec", -EINVAL, 0}, {"-3s", -EINVAL, 0},          {"0.5s", -EINVAL, 0},
    {"", -EINVAL, 0},  {"3S", -EINVAL, 0},   {"99999999999s", -ERANGE, 0},
};

static const struct row rates[] = {
    {"100M", 0, 100000000}, {"25G", 0, 25000000000},
    {"1K", 0, 1000},        {"9600", 0, 9600},
    {"25Gb", -EINVAL, 0},   {"", -EINVAL, 0},
    {"-1G", -EINVAL, 0},    {"99999999999999G", -ERANGE, 0},
};

static const struct row numbers[] = {
    {"0", 0, 0},        {"8", 0, 8},      {"08", 0, 8},
    {"8K", -EINVAL, 0}, {"", -EINVAL, 0}, {"-1", -EINVAL, 0},
};

static void check_row(const struct row *row, int (*parse)(const char *, uint64_t *))
{
    uint64_t value = 12345;
    int error = parse(row->text, &value);

    ck_assert_msg(error == row->error, "'%s': got %d, expected %d", row->text, error, row->error);
    if (error == 0)
        ck_assert_msg(value == row->value, "'%s': got %llu", row->text, (unsigned long long)value);
    else
        ck_assert_msg(value == 12345, "'%s': result touched in spite of the error", row->text);
}

START_TEST(size_is_read_strictly)
{
    check_row(&sizes[_i], parse_size);
}
END_TEST

START_TEST(duration_is_read_strictly)
{
    check_row(&durations[_i], parse_duration);
}
END_TEST

START_TEST(rate_is_read_strictly)
{
    check_row(&rates[_i], parse_rate);
}
END_TEST

START_TEST(number_is_read_strictly)
{
    check_row(&numbers[_i], parse_u64);
}
END_TEST

static const struct {
    uint64_t bytes;
    const char *text;
} formatted[] = {
    {0, "0 B"},
    {1023, "1023 B"},
    {1024, "1.0 KiB"},
    {1536, "1.5 KiB"},
    {(1ULL << 20) - 1, "1.0 MiB"},
    {3ULL << 29, "1.5 GiB"},
    {1ULL << 40, "1.0 TiB"},
    {UINT64_MAX, "16.0 EiB"},
};

START_TEST(bytes_are_written_for_people)
{
    char buffer[32];

    ck_assert_str_eq(format_bytes(formatted[_i].bytes, buffer, sizeof(buffer)), formatted[_i].text);
}
END_TEST

#define ROWS(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
    Suite *suite = suite_create("parse");
    TCase *tests = tcase_create("parse");

    tcase_add_loop_test(tests, size_is_read_strictly, 0, ROWS(sizes));
    tcase_add_loop_test(tests, duration_is_read_strictly, 0, ROWS(durations));
    tcase_add_loop_test(tests, rate_is_read_strictly, 0, ROWS(rates));
    tcase_add_loop_test(tests, number_is_read_strictly, 0, ROWS(numbers));
    tcase_add_loop_test(tests, bytes_are_written_for_people, 0, ROWS(formatted));
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
