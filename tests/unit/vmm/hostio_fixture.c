/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets up and removes what hostio_fixture.h describes.
 */
#include "tests/unit/vmm/hostio_fixture.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char top[64];
struct vm vm;
struct hostio *io;
static struct dir_grant grants[2];
static char grant_paths[2][PATH_MAX];
static char *program_argv[] = {"program", NULL};
static char *program_env[] = {"PATH=/nowhere:/usr/bin", NULL};
static struct run_config config;
static struct vcpu vcpu;

void host_file(const char *name, mode_t mode)
{
    int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, mode);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, name, strlen(name)), (ssize_t)strlen(name));
    close(fd);
}

static void host_tree(void)
{
    snprintf(top, sizeof(top), "/tmp/check_hostio-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    ck_assert_int_eq(chdir(top), 0);
    ck_assert_int_eq(mkdir("vault", 0755) | mkdir("base", 0755) | mkdir("ro", 0755) |
                         mkdir("rw", 0755) | mkdir("base/sub", 0755),
                     0);
    host_file("secret", 0644);
    host_file("vault/secret", 0644);
    host_file("base/file", 0644);
    host_file("base/sub/inner", 0755);
    host_file("ro/file", 0644);
    ck_assert_int_eq(chdir("base"), 0);
}

void hostio_setup(void)
{
    host_tree();
    snprintf(grant_paths[0], PATH_MAX, "%s/ro", top);
    snprintf(grant_paths[1], PATH_MAX, "%s/rw", top);
    grants[0] = (struct dir_grant){.host = grant_paths[0], .guest = "/ro", .writable = false};
    grants[1] = (struct dir_grant){.host = grant_paths[1], .guest = "/data", .writable = true};
    config = (struct run_config){.argv = program_argv,
                                 .envp = program_env,
                                 .memory_bytes = 1ull << 30,
                                 .dirs = grants,
                                 .dir_count = 2};
    vm = (struct vm){.config = &config};
    vcpu = (struct vcpu){.vm = &vm};
    ck_assert_int_eq(hostio_create(&io, &vm), 0);
    vm.io = io;
}

void hostio_teardown(void)
{
    char command[128];

    hostio_destroy(io);
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof(command), "rm -rf '%s'", top);
    ck_assert_int_eq(system(command), 0);
}

const char *resolved(const char *path, unsigned flags)
{
    static struct io_node node;
    int error = io_resolve(io, AT_FDCWD, path, flags, &node);

    io_node_done(&node);
    errno = -error;
    return error ? NULL : node.path;
}

const char *in_base(const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/base%s%s", top, *name ? "/" : "", name);
    return path;
}

int64_t call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    const uint64_t args[6] = {a, b, c, d};

    return hostio_call(&vcpu, number, args);
}
