/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that keeps files open: a pipe's end stands for a device's file. Whether it is still
 * open anywhere shows at the other end.
 */
#include "rdma/keeper.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOON_MS  5000
#define STILL_MS 100

/* Does the other end see that the last writer is gone? */
static bool closes_within(int reader, int milliseconds)
{
    struct pollfd waited = {.fd = reader, .events = POLLIN};

    return poll(&waited, 1, milliseconds) == 1 && waited.revents & POLLHUP;
}

START_TEST(files_stay_open_until_the_keeper_is_let_go)
{
    int ends[2], unrelated[2], keeper;

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(unrelated, O_CLOEXEC), 0);
    keeper = keeper_start(&ends[1], 1);
    ck_assert_int_ge(keeper, 0);
    close(ends[1]);
    close(unrelated[1]);
    ck_assert(closes_within(unrelated[0], SOON_MS)); /* it has nothing else open */
    ck_assert(!closes_within(ends[0], STILL_MS));
    close(keeper);
    ck_assert(closes_within(ends[0], SOON_MS));
}
END_TEST

/* Two files, in an order that is not theirs; the parent's end comes by a signal. */
START_TEST(files_are_closed_after_the_parent_died)
{
    int first[2], second[2];
    pid_t parent;
    int status;

    ck_assert_int_eq(pipe2(first, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(second, O_CLOEXEC), 0);
    parent = fork();
    if (parent == 0) {
        int files[] = {second[1], first[1]};

        if (keeper_start(files, 2) < 0)
            _exit(1);
        raise(SIGKILL);
    }
    ck_assert_int_eq(waitpid(parent, &status, 0), parent);
    ck_assert(WIFSIGNALED(status));
    close(first[1]);
    close(second[1]);
    ck_assert(closes_within(first[0], SOON_MS));
    ck_assert(closes_within(second[0], SOON_MS));
}
END_TEST

START_TEST(its_end_is_not_told)
{
    int ends[2], keeper;

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    keeper = keeper_start(&ends[1], 1);
    ck_assert_int_ge(keeper, 0);
    close(ends[1]);
    close(keeper);
    ck_assert(closes_within(ends[0], SOON_MS));
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
}
END_TEST

START_TEST(too_many_files_are_refused)
{
    int files[KEEPER_FILES_MAX + 1] = {0};

    ck_assert_int_eq(keeper_start(files, KEEPER_FILES_MAX + 1), -EINVAL);
}
END_TEST

static Suite *keeper_suite(void)
{
    Suite *suite = suite_create("rdma keeper");
    TCase *files = tcase_create("files");

    tcase_add_test(files, files_stay_open_until_the_keeper_is_let_go);
    tcase_add_test(files, files_are_closed_after_the_parent_died);
    tcase_add_test(files, its_end_is_not_told);
    tcase_add_test(files, too_many_files_are_refused);
    suite_add_tcase(suite, files);
    return suite;
}

int main(void)
{
    return unit_run(keeper_suite());
}
