/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real memory server for a test: started as its own process before the test, ended after it, and
 * in any case with the test process. Also used by tests/unit/memserver.
 *
 * Tests that hold for every transport loop over a table that ends with "verbs". That one needs an
 * RDMA device: with FARVISOR_TEST_RDMA set to this host's address on it (tests/lab does), only it
 * is tested, else only the others.
 */
#ifndef FARVISOR_SERVER_FIXTURE_H
#define FARVISOR_SERVER_FIXTURE_H

#include "rdma/rdma.h"
#include "rdma/wire.h"
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIXTURE_SLAB_BYTES (2ULL << 20)
#define FIXTURE_TIMEOUT_NS 2000000000ULL /* loading libfabric takes 0.4 s of an idle machine */

struct server_fixture {
    pid_t pid;
    char unix_address[128], tcp_address[128], rdma_address[128];
    char folder[64];
};

static inline const char *fixture_rdma(void)
{
    return getenv("FARVISOR_TEST_RDMA");
}

/* Adds a test for each transport of the table that can be tested here. */
#define fixture_add_each(tcase, test, transports)                                                  \
    do {                                                                                           \
        int count_ = (int)(sizeof(transports) / sizeof((transports)[0]));                          \
                                                                                                   \
        tcase_add_loop_test(tcase, test, fixture_rdma() ? count_ - 1 : 0,                          \
                            fixture_rdma() ? count_ : count_ - 1);                                 \
    } while (0)

static inline const char *fixture_program(void)
{
    const char *program = getenv("MEMSERVER");

    return program ? program : "build/memserver";
}

/* Reads the bound addresses; the server writes them when it is ready. */
static inline void fixture_read_addresses(struct server_fixture *server, int fd)
{
    char text[512] = "";
    size_t used = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (used + 1 < sizeof(text) && poll(&ready, 1, 5000) == 1) {
        ssize_t got = read(fd, text + used, sizeof(text) - 1 - used);
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    ck_assert_int_eq(sscanf(text, "%127s %127s %127s", server->unix_address, server->tcp_address,
                            server->rdma_address),
                     fixture_rdma() ? 3 : 2);
    close(fd);
}

/* Up to three more options; NULL ends them. */
static inline void fixture_start(struct server_fixture *server, const char *const options[])
{
    int ready[2];
    char listen_unix[96], listen_rdma[96], ready_fd[16];
    const char *arguments[32] = {"memserver", "--quiet", "--exit-with-parent"};
    int count = 3;

    strcpy(server->folder, "/tmp/farvisor-unit-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(server->folder));
    ck_assert_int_eq(pipe(ready), 0);
    snprintf(listen_unix, sizeof(listen_unix), "unix:%s/s", server->folder);
    snprintf(ready_fd, sizeof(ready_fd), "%d", ready[1]);
    arguments[count++] = "--listen";
    arguments[count++] = listen_unix;
    arguments[count++] = "--listen";
    arguments[count++] = "127.0.0.1:0";
    if (fixture_rdma()) {
        snprintf(listen_rdma, sizeof(listen_rdma), "%s:0", fixture_rdma());
        arguments[count++] = "--listen";
        arguments[count++] = listen_rdma;
    }
    arguments[count++] = "--ready-fd";
    arguments[count++] = ready_fd;
    for (int i = 0; options && options[i]; i++)
        arguments[count++] = options[i];
    arguments[count] = NULL;
    server->pid = fork();
    if (server->pid == 0) {
        close(ready[0]);
        execv(fixture_program(), (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    close(ready[1]);
    fixture_read_addresses(server, ready[0]);
}

/* Ends the server; returns its wait status. */
static inline int fixture_stop(struct server_fixture *server, int with_signal)
{
    int status = -1;
    char path[96];

    if (server->pid > 0) {
        kill(server->pid, SIGCONT);
        kill(server->pid, with_signal);
        waitpid(server->pid, &status, 0);
    }
    server->pid = 0;
    snprintf(path, sizeof(path), "%s/s", server->folder);
    unlink(path);
    rmdir(server->folder);
    return status;
}

/* Where the transport reaches the server. */
static inline const char *fixture_address(const struct server_fixture *server,
                                          const char *transport)
{
    if (strcmp(transport, "verbs") == 0)
        return server->rdma_address;
    return strcmp(transport, "ofi") == 0 ? server->tcp_address : server->unix_address;
}

static inline struct rdma_node *fixture_connect_as(const struct server_fixture *server,
                                                   const char *transport, uint64_t quota_bytes)
{
    struct rdma_config config = {.transport = transport,
                                 .address = fixture_address(server, transport),
                                 .name = "test",
                                 .quota_bytes = quota_bytes,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = FIXTURE_TIMEOUT_NS};
    struct rdma_node *node = NULL;

    ck_assert_int_eq(rdma_node_connect(&node, &config), 0);
    return node;
}

static inline struct rdma_queue *fixture_queue(struct rdma_node *node, uint32_t depth)
{
    struct rdma_queue *queue = NULL;

    ck_assert_int_eq(rdma_queue_create(node, RDMA_QUEUE_DEMAND, depth, &queue), 0);
    return queue;
}

/* One request from start to end; its status, or the node's error. */
static inline int fixture_request(struct rdma_queue *queue, const struct rdma_request *request)
{
    struct rdma_completion done = {.status = -EIO};
    int got = rdma_queue_post(queue, request, 1);

    if (got < 0)
        return got;
    ck_assert_int_eq(got, 1);
    got = rdma_queue_poll(queue, &done, 1, 10 * FIXTURE_TIMEOUT_NS);
    if (got < 0)
        return got;
    ck_assert_int_eq(got, 1);
    ck_assert_uint_eq(done.cookie, request->cookie);
    return done.status;
}

static inline int fixture_transfer(struct rdma_queue *queue, enum rdma_op op, uint64_t page,
                                   uint32_t pages, void *local)
{
    struct rdma_request request = {
        .op = op, .page = page, .pages = pages, .local = local, .cookie = page};

    return fixture_request(queue, &request);
}

static inline int fixture_transfer_bytes(struct rdma_queue *queue, uint64_t page,
                                         uint32_t offset_bytes, uint32_t bytes, void *local)
{
    struct rdma_request request = {.op = RDMA_READ,
                                   .page = page,
                                   .offset_bytes = offset_bytes,
                                   .bytes = bytes,
                                   .local = local,
                                   .cookie = page};

    return fixture_request(queue, &request);
}

/* A number after "key": in the server's --status --json. */
static inline uint64_t fixture_status(const struct server_fixture *server, const char *key)
{
    char command[512], text[65536], quoted[64];
    FILE *pipe;
    size_t used;
    const char *at;

    snprintf(command, sizeof(command), "%s --status %s --json", fixture_program(),
             server->unix_address);
    pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    used = fread(text, 1, sizeof(text) - 1, pipe);
    text[used] = '\0';
    ck_assert_int_eq(pclose(pipe), 0);
    snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
    at = strstr(text, quoted);
    ck_assert_ptr_nonnull(at);
    return strtoull(at + strlen(quoted), NULL, 10);
}

/* Waits up to 5 s, the promised bound, for a status value. */
static inline void fixture_expect_status(const struct server_fixture *server, const char *key,
                                         uint64_t wanted)
{
    uint64_t deadline_ns = clock_now_ns() + 5000000000ULL;
    uint64_t value = fixture_status(server, key);

    while (value != wanted && clock_now_ns() < deadline_ns) {
        usleep(20000);
        value = fixture_status(server, key);
    }
    ck_assert_uint_eq(value, wanted);
}

/* The worker that was started first, or last; 0: there is none. */
static inline pid_t fixture_worker_at(const struct server_fixture *server, bool last)
{
    char path[64], text[1024] = "";
    const char *at;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", server->pid, server->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
        text[0] = '\0';
    if (fd >= 0)
        close(fd);
    while (*text && text[strlen(text) - 1] == ' ')
        text[strlen(text) - 1] = '\0';
    at = last ? strrchr(text, ' ') : NULL;
    return (pid_t)atoi(at ? at : text);
}

static inline pid_t fixture_worker(const struct server_fixture *server)
{
    return fixture_worker_at(server, false);
}

static inline pid_t fixture_last_worker(const struct server_fixture *server)
{
    return fixture_worker_at(server, true);
}

#endif
