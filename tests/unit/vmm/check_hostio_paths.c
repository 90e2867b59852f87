/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What guest paths resolve to, and that no trick makes them lead out of the grants.
 */
#include "tests/unit/unit.h"
#include "tests/unit/vmm/hostio_fixture.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ck_assert_fails(path, flags, error)                                                        \
    do {                                                                                           \
        ck_assert_ptr_null(resolved(path, flags));                                                 \
        ck_assert_int_eq(errno, error);                                                            \
    } while (0)

START_TEST(normal_forms_of_paths_are_textual)
{
    static const struct {
        const char *base, *path, *normal;
        int dots;
    } cases[] = {
        {"/", "a", "/a", 0},        {"/a/b", "c", "/a/b/c", 0},
        {"/a/b", "/c", "/c", 0},    {"/a", "./b//c/.", "/a/b/c", 0},
        {"/a", "../../..", "/", 1}, {"/a", "b/../c", "/a/c", 1},
        {"/", "/", "/", 0},         {"/a", "...", "/a/...", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[PATH_MAX];

        ck_assert_int_eq(io_path_join(cases[i].base, cases[i].path, out), cases[i].dots);
        ck_assert_str_eq(out, cases[i].normal);
    }
}
END_TEST

START_TEST(relative_path_starts_at_current_directory)
{
    ck_assert_str_eq(resolved("file", IO_FOLLOW), in_base("file"));
    ck_assert_str_eq(resolved("sub/../file", IO_FOLLOW), in_base("file"));
    ck_assert_str_eq(resolved("./sub//inner", IO_FOLLOW), in_base("sub/inner"));
}
END_TEST

START_TEST(dotdot_stops_at_the_root)
{
    ck_assert_str_eq(resolved("/../../..", IO_FOLLOW), "/");
    ck_assert_str_eq(resolved("/usr/../../usr/bin/../bin", IO_FOLLOW), "/usr/bin");
}
END_TEST

START_TEST(dotdot_does_not_leave_a_grant)
{
    ck_assert_fails("../secret", IO_FOLLOW, ENOENT);
    ck_assert_fails("sub/../../secret", IO_FOLLOW, ENOENT);
    ck_assert_fails("/ro/../secret", IO_FOLLOW, ENOENT);
    /* The parent exists in the guest's view, as a bare step of the way to the grant. */
    ck_assert_str_eq(resolved("..", IO_FOLLOW), top);
    ck_assert_str_eq(resolved("../base/file", IO_FOLLOW), in_base("file"));
}
END_TEST

START_TEST(relative_link_does_not_leave_a_grant)
{
    ck_assert_int_eq(symlink("../secret", "escape"), 0);
    ck_assert_int_eq(symlink("..", "up"), 0);
    ck_assert_fails("escape", IO_FOLLOW, ENOENT);
    ck_assert_fails("up/secret", IO_FOLLOW, ENOENT);
    ck_assert_fails("up/vault/secret", IO_FOLLOW, ENOENT);
    ck_assert_str_eq(resolved("up/base/file", IO_FOLLOW), in_base("file"));
}
END_TEST

START_TEST(absolute_link_is_followed_in_the_guests_view)
{
    char target[PATH_MAX];

    snprintf(target, sizeof(target), "%s/secret", top);
    ck_assert_int_eq(symlink(target, "outside"), 0);
    ck_assert_int_eq(symlink("/ro/file", "across"), 0);
    ck_assert_int_eq(symlink("/usr/bin", "bin"), 0);
    ck_assert_fails("outside", IO_FOLLOW, ENOENT);
    ck_assert_str_eq(resolved("across", IO_FOLLOW), "/ro/file");
    ck_assert_str_eq(resolved("bin/env", IO_FOLLOW), "/usr/bin/env");
}
END_TEST

START_TEST(link_itself_is_found_when_not_followed)
{
    struct io_node node;
    struct stat status;

    ck_assert_int_eq(symlink("nowhere", "dangling"), 0);
    ck_assert_fails("dangling", IO_FOLLOW, ENOENT);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "dangling", 0, &node), 0);
    ck_assert_int_eq(fstat(node.fd, &status), 0);
    ck_assert(S_ISLNK(status.st_mode));
    io_node_done(&node);
}
END_TEST

START_TEST(loops_of_links_end)
{
    char name[16], next[16];

    ck_assert_int_eq(symlink("b", "a") | symlink("a", "b"), 0);
    ck_assert_fails("a", IO_FOLLOW, ELOOP);
    ck_assert_fails("a/x", IO_FOLLOW, ELOOP);
    for (int i = 0; i <= IO_LINKS_MAX; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        snprintf(next, sizeof(next), "l%d", i + 1);
        ck_assert_int_eq(symlink(i == IO_LINKS_MAX ? "file" : next, name), 0);
    }
    ck_assert_fails("l0", IO_FOLLOW, ELOOP);
    ck_assert_str_eq(resolved("l1", IO_FOLLOW), in_base("file"));
}
END_TEST

START_TEST(trailing_slash_wants_a_directory)
{
    ck_assert_int_eq(symlink("sub", "sublink"), 0);
    ck_assert_fails("file/", IO_FOLLOW, ENOTDIR);
    ck_assert_fails("file/.", IO_FOLLOW, ENOTDIR);
    ck_assert_str_eq(resolved("sublink/", 0), in_base("sub"));
}
END_TEST

START_TEST(bad_paths_have_linux_errors)
{
    static char name[NAME_MAX + 2], path[PATH_MAX + 8];

    memset(name, 'n', NAME_MAX + 1);
    memset(path, '/', PATH_MAX + 1);
    ck_assert_fails("", IO_FOLLOW, ENOENT);
    ck_assert_fails(name, IO_FOLLOW, ENAMETOOLONG);
    ck_assert_fails(name, IO_PARENT, ENAMETOOLONG);
    ck_assert_fails(path, IO_FOLLOW, ENAMETOOLONG);
    ck_assert_fails("file/x", IO_FOLLOW, ENOTDIR);
    ck_assert_fails("missing/x", IO_PARENT, ENOENT);
}
END_TEST

START_TEST(parent_of_a_new_name_is_found)
{
    struct io_node node;

    ck_assert_int_eq(symlink("/data/made", "new"), 0);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "sub/x", IO_PARENT, &node), 0);
    ck_assert_str_eq(node.name, "x");
    io_node_done(&node);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "new", IO_PARENT | IO_FOLLOW, &node), 0);
    ck_assert_str_eq(node.name, "made");
    ck_assert_str_eq(node.path, "/data/made");
    ck_assert(node.mount->writable);
    io_node_done(&node);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "new", IO_PARENT, &node), 0);
    ck_assert_str_eq(node.name, "new");
    io_node_done(&node);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "/data", IO_PARENT, &node), 0);
    ck_assert_str_eq(node.name, "");
    io_node_done(&node);
}
END_TEST

START_TEST(secrets_of_system_directories_are_hidden)
{
    if (access("/etc/shadow", F_OK))
        return;
    ck_assert_int_eq(symlink("/etc/shadow", "shadow"), 0);
    ck_assert_fails("/etc/shadow", IO_FOLLOW, EACCES);
    ck_assert_fails("/etc/../etc/shadow", IO_FOLLOW, EACCES);
    ck_assert_fails("shadow", IO_FOLLOW, EACCES);
}
END_TEST

START_TEST(only_granted_devices_exist)
{
    ck_assert_str_eq(resolved("/dev/null", IO_FOLLOW), "/dev/null");
    ck_assert_fails("/dev/null/x", IO_FOLLOW, ENOTDIR);
    ck_assert_fails("/dev/kvm", IO_FOLLOW, ENOENT);
    ck_assert_fails("/dev/mem", IO_FOLLOW, ENOENT);
    ck_assert_fails("/proc/1/root", IO_FOLLOW, ENOENT);
    ck_assert_fails("/proc/kcore", IO_FOLLOW, ENOENT);
}
END_TEST

START_TEST(proc_self_fd_names_guest_descriptors)
{
    struct io_node node;

    ck_assert_int_eq(io_install(io, open("file", O_RDONLY | O_CLOEXEC), in_base("file"), false), 3);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "/proc/self/fd/3", IO_FOLLOW, &node), 0);
    ck_assert_int_eq(node.alias, 3);
    io_node_done(&node);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "/dev/fd/3", IO_FOLLOW, &node), 0);
    ck_assert_int_eq(node.alias, 3);
    io_node_done(&node);
    ck_assert_fails("/proc/self/fd/77", IO_FOLLOW, ENOENT);
}
END_TEST

/* Whether it may be opened to be written is a fact of the file that was found, not of the number.
 */
START_TEST(proc_self_fd_stays_read_only_whatever_the_number_becomes)
{
    struct io_file *file = io_file_create(open("../ro/file", O_RDONLY | O_CLOEXEC), "/ro/file");
    struct io_node node;

    file->read_only = true;
    ck_assert_int_eq(io_install_file(io, file, false), 3);
    ck_assert_int_eq(io_install(io, open("file", O_RDWR | O_CLOEXEC), in_base("file"), false), 4);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "/proc/self/fd/3", IO_FOLLOW, &node), 0);
    ck_assert_int_eq(call(SYS_dup2, 4, 3, 0, 0), 3);
    ck_assert(node.alias == 3 && node.read_only);
    io_node_done(&node);
    ck_assert_int_eq(io_resolve(io, AT_FDCWD, "/proc/self/fd/3", IO_FOLLOW, &node), 0);
    ck_assert(node.alias == 3 && !node.read_only);
    io_node_done(&node);
}
END_TEST

/* Swaps a directory and a link that leads out, for ever. */
static void *swapper(void *stop)
{
    while (!atomic_load((atomic_bool *)stop))
        syscall(SYS_renameat2, AT_FDCWD, "swap", AT_FDCWD, "out", 2 /* RENAME_EXCHANGE */);
    return NULL;
}

START_TEST(racing_rename_never_leads_out)
{
    struct stat secret, found;
    struct io_node node;
    atomic_bool stop = false;
    pthread_t thread;

    ck_assert_int_eq(mkdir("swap", 0755) | symlink("../vault", "out"), 0);
    host_file("swap/secret", 0644);
    ck_assert_int_eq(stat("../vault/secret", &secret), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, swapper, &stop), 0);
    for (int i = 0; i < 20000; i++) {
        if (io_resolve(io, AT_FDCWD, i % 2 ? "swap/secret" : "swap/../swap/secret", IO_FOLLOW,
                       &node))
            continue;
        ck_assert_int_eq(fstat(node.fd, &found), 0);
        ck_assert_int_ne((int64_t)found.st_ino, (int64_t)secret.st_ino);
        io_node_done(&node);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(program_is_searched_along_the_guests_path)
{
    char *path = NULL;
    int fd = hostio_open_program(io, "env", &path);

    ck_assert_int_eq(fd, 3);
    ck_assert_str_eq(path, "/usr/bin/env");
    free(path);
    ck_assert_str_eq(resolved("/proc/self/exe", IO_FOLLOW), "/usr/bin/env");
    ck_assert_int_eq(hostio_open_program(io, "sub/inner", &path), 4);
    ck_assert_str_eq(path, in_base("sub/inner"));
    free(path);
    ck_assert_int_eq(hostio_open_program(io, "inner", &path), -ENOENT);
    ck_assert_int_eq(hostio_open_program(io, "./missing", &path), -ENOENT);
    ck_assert_int_eq(hostio_open_program(io, "./file", &path), -EACCES);
    ck_assert_int_eq(hostio_open_program(io, "./sub", &path), -EACCES);
    ck_assert_int_eq(hostio_open_program(io, "", &path), -ENOENT);
}
END_TEST

START_TEST(host_path_of_a_guest_path_is_told)
{
    char path[PATH_MAX], wanted[PATH_MAX];

    snprintf(wanted, sizeof(wanted), "%s/ro/file", top);
    ck_assert_int_eq(hostio_host_path(io, "/ro/file", path, sizeof(path)), 0);
    ck_assert_str_eq(path, wanted);
    ck_assert_int_eq(hostio_host_path(io, "/ro/none", path, sizeof(path)), -ENOENT);
}
END_TEST

START_TEST(scratch_is_removed_however_deep)
{
    char scratch[PATH_MAX];
    int fd = open(io->mounts.disk.path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    snprintf(scratch, sizeof(scratch), "%s", io->mounts.disk.path);
    for (int i = 0; i < 3000; i++) {
        int next;

        ck_assert_int_eq(mkdirat(fd, "d", 0755), 0);
        next = openat(fd, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
    }
    close(fd);
    hostio_destroy(io);
    ck_assert_int_eq(access(scratch, F_OK), -1);
    ck_assert_int_eq(hostio_create(&io, &vm), 0);
    vm.io = io;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostio paths");
    TCase *tcase = tcase_create("hostio paths");

    tcase_add_checked_fixture(tcase, hostio_setup, hostio_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, normal_forms_of_paths_are_textual);
    tcase_add_test(tcase, relative_path_starts_at_current_directory);
    tcase_add_test(tcase, dotdot_stops_at_the_root);
    tcase_add_test(tcase, dotdot_does_not_leave_a_grant);
    tcase_add_test(tcase, relative_link_does_not_leave_a_grant);
    tcase_add_test(tcase, absolute_link_is_followed_in_the_guests_view);
    tcase_add_test(tcase, link_itself_is_found_when_not_followed);
    tcase_add_test(tcase, loops_of_links_end);
    tcase_add_test(tcase, trailing_slash_wants_a_directory);
    tcase_add_test(tcase, bad_paths_have_linux_errors);
    tcase_add_test(tcase, parent_of_a_new_name_is_found);
    tcase_add_test(tcase, secrets_of_system_directories_are_hidden);
    tcase_add_test(tcase, only_granted_devices_exist);
    tcase_add_test(tcase, proc_self_fd_names_guest_descriptors);
    tcase_add_test(tcase, proc_self_fd_stays_read_only_whatever_the_number_becomes);
    tcase_add_test(tcase, racing_rename_never_leads_out);
    tcase_add_test(tcase, program_is_searched_along_the_guests_path);
    tcase_add_test(tcase, host_path_of_a_guest_path_is_told);
    tcase_add_test(tcase, scratch_is_removed_however_deep);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
