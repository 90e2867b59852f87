/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of mappings by itself, without a machine: what the system tests cannot reach.
 */
#include "ept/ept_internal.h"
#include "tests/unit/unit.h"
#include "vmm/mm/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ept ept = {.span_bytes = 1ULL << 39};
static struct vm vm = {.ept = &ept};

/* A run that fails early takes its table down before anything was mapped. */
START_TEST(an_empty_table_can_be_destroyed)
{
    struct mm *mm = NULL;
    ck_assert_int_eq(mm_create(&mm, &vm), 0);
    mm_destroy(mm);
}
END_TEST

START_TEST(erasing_the_last_mapping_leaves_an_empty_table)
{
    struct mm *mm = NULL;
    struct mapping one = {.start = 1 << 20, .end = 2 << 20, .access = EPT_READ};
    ck_assert_int_eq(mm_create(&mm, &vm), 0);
    ck_assert_int_eq(mm_insert(mm, &one), 0);
    ck_assert_uint_eq(mm->count, 1);
    mm_erase(mm, 0, 1);
    ck_assert_uint_eq(mm->count, 0);
    mm_destroy(mm);
}
END_TEST

/* Does another process find a record lock there? */
static bool is_locked(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int status = 0, fd;
    pid_t child = fork();
    if (child == 0) {
        fd = open(path, O_RDWR | O_CLOEXEC);
        _exit(fcntl(fd, F_SETLK, &lock) < 0 ? 1 : 0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status) == 1;
}

START_TEST(an_unmapping_keeps_record_locks)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[] = "/tmp/check_mm-XXXXXX";
    int fd = mkstemp(path), mapped = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    struct mm_file *file = calloc(1, sizeof(*file));
    struct stat st;
    ck_assert_int_eq(fstat(fd, &st), 0);
    *file = (struct mm_file){
        .users = 1, .fd = mapped, .writable = true, .device = st.st_dev, .inode = st.st_ino};
    ck_assert_int_eq(fcntl(fd, F_SETLK, &whole), 0);
    mm_file_put(file);
    ck_assert(is_locked(path));
    ck_assert_ptr_null(mm_file_find(st.st_dev, st.st_ino, false));
    ck_assert_ptr_eq(mm_file_find(st.st_dev, st.st_ino, true), file); /* mapped again */
    mm_file_put(file);
    ck_assert(is_locked(path));
    whole.l_type = F_UNLCK;
    ck_assert_int_eq(fcntl(fd, F_SETLK, &whole), 0);
    ck_assert_ptr_eq(mm_file_find(st.st_dev, st.st_ino, true), file);
    mm_file_put(file); /* nothing to keep it for */
    ck_assert_int_eq(fcntl(mapped, F_GETFD), -1);
    ck_assert_ptr_null(mm_file_find(st.st_dev, st.st_ino, true));
    close(fd);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm");
    TCase *tests = tcase_create("table");
    tcase_add_test(tests, an_empty_table_can_be_destroyed);
    tcase_add_test(tests, an_unmapping_keeps_record_locks);
    tcase_add_test(tests, erasing_the_last_mapping_leaves_an_empty_table);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
