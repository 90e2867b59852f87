/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at mapped files that are cut short meanwhile ends the look, not the process; nor does a
 * copy. */
#include "tests/unit/unit.h"
#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* What a bus error was before is the end by it, here too: not a report of a sanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
const char *__asan_default_options(void); // NOLINT(bugprone-reserved-identifier): their hooks
const char *__tsan_default_options(void); // NOLINT(bugprone-reserved-identifier)
const char *__asan_default_options(void)  // NOLINT(bugprone-reserved-identifier)
{
    return "handle_sigbus=0";
}
const char *__tsan_default_options(void) // NOLINT(bugprone-reserved-identifier)
{
    return "handle_sigbus=0";
}
#endif

#define FILE_BYTES 8192
#define ROUNDS     3

struct look {
    int fd;
    volatile char *mapped;
    bool cut, done;
};

static void look_at(void *argument)
{
    struct look *look = argument;

    ck_assert_int_eq(look->mapped[FILE_BYTES - 1], 0);
    if (look->cut) {
        ck_assert_int_eq(ftruncate(look->fd, 0), 0);
        (void)look->mapped[FILE_BYTES - 1];
    }
    look->done = true;
}

static struct look look_make(bool cut)
{
    char name[] = "/tmp/file_guard.XXXXXX";
    struct look look = {.fd = mkstemp(name), .cut = cut};

    ck_assert_int_ge(look.fd, 0);
    ck_assert_int_eq(unlink(name), 0);
    ck_assert_int_eq(ftruncate(look.fd, FILE_BYTES), 0);
    look.mapped = mmap(NULL, FILE_BYTES, PROT_READ, MAP_PRIVATE, look.fd, 0);
    ck_assert_ptr_ne((void *)look.mapped, MAP_FAILED);
    return look;
}

START_TEST(a_file_that_is_cut_short_ends_the_look_alone)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct look whole = look_make(false), cut = look_make(true);

        ck_assert_int_eq(file_guard(look_at, &whole), 0);
        ck_assert(whole.done);
        ck_assert_int_eq(file_guard(look_at, &cut), -EFAULT);
        ck_assert(!cut.done);
        close(whole.fd);
        close(cut.fd);
    }
}
END_TEST

START_TEST(a_bus_error_outside_of_a_look_is_what_it_was)
{
    struct look cut = look_make(true);

    ck_assert_int_eq(file_guard(look_at, &cut), -EFAULT);
    look_at(&cut); /* the test is to die of it */
}
END_TEST

/* Of every length around a word's, to the last byte of a page that is there and into one that is
 * not. */
START_TEST(a_copy_out_of_what_was_cut_is_an_error)
{
    struct look cut = look_make(true);
    const char *last = (const char *)cut.mapped + FILE_BYTES / 2;
    char to[64];

    ck_assert_int_eq(guarded_copy_init(), 0);
    for (size_t bytes = 0; bytes <= sizeof(to); bytes++)
        ck_assert_int_eq(guarded_copy(to, last - bytes / 2, bytes), 0);
    ck_assert_int_eq(pwrite(cut.fd, "12345678", 8, FILE_BYTES / 2 - 8), 8);
    ck_assert_int_eq(ftruncate(cut.fd, FILE_BYTES / 2), 0);
    for (size_t bytes = 1; bytes <= sizeof(to); bytes++) {
        ck_assert_int_eq(guarded_copy(to, last - bytes, bytes), 0);
        ck_assert_mem_eq(to + (bytes > 8 ? bytes - 8 : 0), "12345678" + (bytes < 8 ? 8 - bytes : 0),
                         bytes < 8 ? bytes : 8);
        ck_assert_int_eq(guarded_copy(to, last - bytes / 2, bytes), -EFAULT);
    }
    close(cut.fd);
}
END_TEST

START_TEST(a_copy_and_a_look_end_beside_each_other)
{
    struct look outer = look_make(true);
    struct look cut = look_make(true);
    char to[8];

    ck_assert_int_eq(guarded_copy_init(), 0);
    ck_assert_int_eq(file_guard(look_at, &outer), -EFAULT);
    ck_assert_int_eq(ftruncate(cut.fd, 0), 0);
    ck_assert_int_eq(guarded_copy(to, (const char *)cut.mapped, sizeof(to)), -EFAULT);
}
END_TEST

START_TEST(a_bus_error_outside_of_a_copy_is_what_it_was)
{
    struct look cut = look_make(true);

    ck_assert_int_eq(guarded_copy_init(), 0);
    look_at(&cut); /* the test is to die of it */
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("file_guard");
    Suite *suite = suite_create("file_guard");

    tcase_add_test(tests, a_file_that_is_cut_short_ends_the_look_alone);
    tcase_add_test_raise_signal(tests, a_bus_error_outside_of_a_look_is_what_it_was, SIGBUS);
    tcase_add_test(tests, a_copy_out_of_what_was_cut_is_an_error);
    tcase_add_test(tests, a_copy_and_a_look_end_beside_each_other);
    tcase_add_test_raise_signal(tests, a_bus_error_outside_of_a_copy_is_what_it_was, SIGBUS);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
