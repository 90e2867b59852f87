/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tenant's worker can still ask of the kernel: enough for its data, nothing that reaches
 * beyond it. And that a real worker is held to it.
 */
#include "memserver/memserver.h"
#include "tests/unit/rdma/server_fixture.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static long open_file(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long make_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long run_program(void)
{
    static char *const arguments[] = {"true", NULL};
    return execv("/bin/true", arguments);
}

static long end_parent(void)
{
    return kill(getppid(), 0);
}

static long trace_parent(void)
{
    return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static long read_parent(void)
{
    return syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
}

static long make_process(void)
{
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static long make_memory_file(void)
{
    return memfd_create("x", MFD_CLOEXEC);
}

static long (*const refused[])(void) = {open_file,    make_socket, run_program,  end_parent,
                                        trace_parent, read_parent, make_process, make_memory_file};

#define WORKED 10 /* a sanitizer ends with 1 */

/* Child: 0 when refused with EPERM, WORKED, 2 for another error, 3 without a sandbox. */
static int try_in_child(long (*call)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        if (sandbox_enter())
            _exit(3);
        long result = call();
        _exit(result >= 0 ? WORKED : errno == EPERM ? 0 : 2);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(what_reaches_beyond_the_tenant_is_refused)
{
    ck_assert_int_eq(try_in_child(refused[_i]), 0);
}
END_TEST

static long move_data(void)
{
    int ends[2];
    char byte = 'x';
    void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0 ||
        write(ends[0], &byte, 1) != 1 || read(ends[1], &byte, 1) != 1)
        return -1;
    return munmap(memory, 1 << 20);
}

START_TEST(moving_data_is_allowed)
{
    ck_assert_int_eq(try_in_child(move_data), WORKED);
}
END_TEST

/* A number in /proc/ID/status of a process or thread, or -1. */
static long status_number(const char *id, const char *name)
{
    char path[300], line[256], format[64];
    long value = -1;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%s/status", id);
    snprintf(format, sizeof(format), "%s: %%ld", name);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file) && sscanf(line, format, &value) != 1)
        ;
    if (file)
        fclose(file);
    return value;
}

#define WORKERS_MAX 4u

/* The server's children. How many. */
static unsigned workers_find(pid_t server, pid_t out[WORKERS_MAX])
{
    DIR *processes = opendir("/proc");
    const struct dirent *entry;
    unsigned count = 0;

    ck_assert_ptr_nonnull(processes);
    while (count < WORKERS_MAX && (entry = readdir(processes)) != NULL)
        if (status_number(entry->d_name, "PPid") == server)
            out[count++] = (pid_t)atoi(entry->d_name);
    closedir(processes);
    return count;
}

/* In each thread: libfabric may have made some. */
START_TEST(a_tenants_worker_runs_in_it)
{
    struct server_fixture server = {0};
    pid_t workers[WORKERS_MAX];
    const struct dirent *entry;
    char tasks[64];
    unsigned threads = 0;

    fixture_start(&server, NULL);
    struct rdma_node *node = fixture_connect_as(&server, "ofi", 4 * FIXTURE_SLAB_BYTES);
    ck_assert_uint_eq(workers_find(server.pid, workers), 1);
    snprintf(tasks, sizeof(tasks), "/proc/%d/task", (int)workers[0]);
    DIR *directory = opendir(tasks);
    ck_assert_ptr_nonnull(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        ck_assert_int_eq(status_number(entry->d_name, "Seccomp"), 2); /* SECCOMP_MODE_FILTER */
        ck_assert_int_eq(status_number(entry->d_name, "NoNewPrivs"), 1);
        threads++;
    }
    closedir(directory);
    ck_assert_uint_ge(threads, 1);
    rdma_node_destroy(node);
    fixture_stop(&server, SIGKILL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memserver sandbox");
    TCase *tests = tcase_create("worker");
    tcase_set_timeout(tests, 15);
    tcase_add_loop_test(tests, what_reaches_beyond_the_tenant_is_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(tests, moving_data_is_allowed);
    tcase_add_test(tests, a_tenants_worker_runs_in_it);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
