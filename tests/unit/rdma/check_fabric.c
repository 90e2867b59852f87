/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting libfabric: what its providers may look at meanwhile, and that nothing of it stays.
 */
#include "rdma/fabric_info.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int errors[3], privileges;

static int open_error(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static void look(void)
{
    errors[0] = open_error("/proc/kallsyms");
    errors[1] = open_error("/proc/self/maps");
    errors[2] = open_error("/etc/passwd");
}

START_TEST(kernel_symbols_are_hidden_from_the_start_of_providers)
{
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1)
        return;
    fabric_start_quietly(look);
    ck_assert_int_eq(errors[0], EACCES);
}
END_TEST

START_TEST(everything_else_is_there)
{
    fabric_start_quietly(look);
    ck_assert_int_eq(errors[1], 0);
    ck_assert_int_eq(errors[2], 0);
}
END_TEST

START_TEST(nothing_stays_behind)
{
    privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    fabric_start_quietly(look);
    ck_assert_int_eq(open_error("/proc/kallsyms"), 0);
    ck_assert_int_eq(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), privileges);
}
END_TEST

START_TEST(the_library_is_loaded)
{
    ck_assert_int_eq(fabric_library_load(), 0);
    ck_assert_int_eq(fabric_library_load(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fabric");
    TCase *tests = tcase_create("start");
    tcase_add_test(tests, kernel_symbols_are_hidden_from_the_start_of_providers);
    tcase_add_test(tests, everything_else_is_there);
    tcase_add_test(tests, nothing_stays_behind);
    tcase_add_test(tests, the_library_is_loaded);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
