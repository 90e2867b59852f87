/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Option tables: which words are options, which are operands, and what is said about the rest.
 */
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct config {
    char size[32];
    int quiet;
};

static int set_size(void *config, const char *value)
{
    struct config *c = config;

    if (strcmp(value, "bad") == 0) {
        message_error("invalid size 'bad'");
        return -EINVAL;
    }
    snprintf(c->size, sizeof(c->size), "%s", value);
    return 0;
}

static int set_quiet(void *config, const char *value)
{
    struct config *c = config;

    ck_assert_ptr_null(value);
    c->quiet++;
    return 0;
}

static const struct option_spec table[] = {
    {"size", 's', "SIZE", "how much", set_size},
    {"quiet", 'q', NULL, "say less", set_quiet},
    {NULL, 0, NULL, NULL, NULL},
};

static const struct row {
    const char *words[6];
    int result; /* index of the first operand, or -errno */
    const char *size;
    int quiet;
    const char *says; /* first line on standard error */
} rows[] = {
    {{NULL}, 0, "", 0, NULL},
    {{"prog", "--size"}, 0, "", 0, NULL},
    {{"--size", "1", "prog"}, 2, "1", 0, NULL},
    {{"--size=1", "prog"}, 1, "1", 0, NULL},
    {{"--size=", "prog"}, 1, "", 0, NULL},
    {{"--size=a=b"}, 1, "a=b", 0, NULL},
    {{"-s", "1", "-q", "--quiet"}, 4, "1", 2, NULL},
    {{"--size", "1", "--size", "2"}, 4, "2", 0, NULL},
    {{"--quiet", "--", "--size"}, 2, "", 1, NULL},
    {{"-", "--quiet"}, 0, "", 0, NULL},
    {{"--size", "--quiet"}, 2, "--quiet", 0, NULL},
    {{"--siz", "1"}, -EINVAL, NULL, 0, "t: unknown option '--siz'\n"},
    {{"--sizes", "1"}, -EINVAL, NULL, 0, "t: unknown option '--sizes'\n"},
    {{"-x"}, -EINVAL, NULL, 0, "t: unknown option '-x'\n"},
    {{"-qq"}, -EINVAL, NULL, 0, "t: unknown option '-qq'\n"},
    {{"--=1"}, -EINVAL, NULL, 0, "t: unknown option '--=1'\n"},
    {{"--size"}, -EINVAL, NULL, 0, "t: option '--size' needs a value: SIZE\n"},
    {{"--quiet=1"}, -EINVAL, NULL, 0, "t: option '--quiet' takes no value, but got '1'\n"},
    {{"--size", "bad"}, -EINVAL, NULL, 0, "t: invalid size 'bad'\n"},
};

START_TEST(words_are_told_apart)
{
    const struct row *row = &rows[_i];
    struct config config = {.quiet = 0};
    char *words[6];
    char heard[512] = "";
    int count = 0;
    int ends[2];

    for (; count < 6 && row->words[count]; count++)
        words[count] = strdup(row->words[count]);
    ck_assert_int_eq(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    message_init("t", MESSAGE_NORMAL);
    int result = options_parse(table, "t run", &config, count, words);

    close(STDERR_FILENO);
    ck_assert_int_ge(read(ends[0], heard, sizeof(heard) - 1), 0);
    for (int i = 0; i < count; i++)
        free(words[i]);
    ck_assert_int_eq(result, row->result);
    if (row->size)
        ck_assert_str_eq(config.size, row->size);
    if (result >= 0)
        ck_assert_int_eq(config.quiet, row->quiet);
    char expected[512] = "";
    if (row->says)
        snprintf(expected, sizeof(expected), "%sTry 't run --help' for the options.\n", row->says);
    ck_assert_str_eq(heard, expected);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tests = tcase_create("options");

    tcase_add_loop_test(tests, words_are_told_apart, 0, sizeof(rows) / sizeof(rows[0]));
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
