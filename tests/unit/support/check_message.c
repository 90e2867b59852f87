/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages: one line, one prefix, right level, errno kept. Standard error is a pipe here.
 */
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int pipe_read_fd;
static char heard[8192];

static void catch_stderr(void)
{
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    pipe_read_fd = ends[0];
}

/* Everything written to standard error so far. */
static const char *hear(void)
{
    close(STDERR_FILENO);
    ssize_t bytes = read(pipe_read_fd, heard, sizeof(heard) - 1);

    heard[bytes > 0 ? bytes : 0] = '\0';
    return heard;
}

START_TEST(error_has_prefix_and_newline)
{
    message_init("memserver", MESSAGE_QUIET);
    message_error("%s: cannot open: %s", "/x", "no such file");
    ck_assert_str_eq(hear(), "memserver: /x: cannot open: no such file\n");
}
END_TEST

START_TEST(levels_choose_what_is_said)
{
    message_init("p", (enum message_level)_i);
    message_error("e");
    message_warning("w");
    message_info("i");
    static const char *const expected[] = {"p: e\n", "p: e\np: w\n", "p: e\np: w\np: i\n"};

    ck_assert_str_eq(hear(), expected[_i]);
}
END_TEST

START_TEST(control_characters_do_not_reach_the_terminal)
{
    message_init("p", MESSAGE_NORMAL);
    message_error("bad\nname\033[2J\177");
    ck_assert_str_eq(hear(), "p: bad?name?[2J?\n");
}
END_TEST

START_TEST(long_message_is_cut_to_one_line)
{
    char text[4000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    message_init("p", MESSAGE_NORMAL);
    message_error("%s", text);
    size_t length = strlen(hear());

    ck_assert_uint_gt(length, 500);
    ck_assert_uint_le(length, 1024);
    ck_assert_int_eq(heard[length - 1], '\n');
}
END_TEST

START_TEST(errno_survives_a_message)
{
    message_init("p", MESSAGE_NORMAL);
    close(STDERR_FILENO);
    errno = ENOSPC;
    message_error("unheard");
    ck_assert_int_eq(errno, ENOSPC);
}
END_TEST

START_TEST(assertion_that_holds_is_silent)
{
    FV_ASSERT(1 + 1 == 2);
    ck_assert_str_eq(hear(), "");
}
END_TEST

START_TEST(assertion_that_fails_aborts)
{
    FV_ASSERT(1 + 1 == 3);
}
END_TEST

START_TEST(clock_never_goes_back)
{
    uint64_t before = clock_now_ns();

    for (int i = 0; i < 10000; i++) {
        uint64_t now = clock_now_ns();

        ck_assert_uint_ge(now, before);
        before = now;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("message");
    TCase *tests = tcase_create("message");

    tcase_add_checked_fixture(tests, catch_stderr, NULL);
    tcase_add_test(tests, error_has_prefix_and_newline);
    tcase_add_loop_test(tests, levels_choose_what_is_said, 0, 3);
    tcase_add_test(tests, control_characters_do_not_reach_the_terminal);
    tcase_add_test(tests, long_message_is_cut_to_one_line);
    tcase_add_test(tests, errno_survives_a_message);
    tcase_add_test(tests, assertion_that_holds_is_silent);
    tcase_add_test_raise_signal(tests, assertion_that_fails_aborts, SIGABRT);
    tcase_add_test(tests, clock_never_goes_back);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
