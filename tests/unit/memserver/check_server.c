/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server as its users and starters see it: readiness, status, draining, options that cannot
 * work, limits on tenants, and memory that comes back when a tenant goes.
 */
#include "rdma/address.h"
#include "rdma/channel.h"
#include "tests/unit/rdma/server_fixture.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const char *const transports[] = {"loopback", "ofi", "verbs"};
#define QUOTA (8 * FIXTURE_SLAB_BYTES)

static struct server_fixture server;

static void set_up(void)
{
    static const char *const options[] = {
        "--capacity", "64M", "--quota", "32M", "--max-tenants", "3", "--grace", "1s", NULL};

    message_init("check_server", MESSAGE_NORMAL);
    fixture_start(&server, options);
}

static void tear_down(void)
{
    fixture_stop(&server, SIGKILL);
}

static int try_connect(uint64_t quota_bytes)
{
    struct rdma_config config = {.address = server.unix_address,
                                 .quota_bytes = quota_bytes,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = FIXTURE_TIMEOUT_NS};
    struct rdma_node *node;
    int error = rdma_node_connect(&node, &config);

    rdma_node_destroy(node);
    return error;
}

START_TEST(a_wish_beyond_the_quota_is_cut_to_what_there_is)
{
    struct rdma_config config = {.address = server.unix_address,
                                 .quota_bytes = QUOTA,
                                 .quota_wish_bytes = 1ULL << 40,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = FIXTURE_TIMEOUT_NS};
    struct rdma_node *node;

    ck_assert_int_eq(rdma_node_connect(&node, &config), 0);
    ck_assert_uint_eq(fixture_status(&server, "quota_bytes"), 32 << 20);
    rdma_node_destroy(node);
}
END_TEST

/* Waits for the server to end by itself; its wait status, or -1 after `limit_ms`. */
static int wait_for_end(int limit_ms)
{
    int status;

    for (; limit_ms > 0; limit_ms -= 20) {
        if (waitpid(server.pid, &status, WNOHANG) == server.pid) {
            server.pid = 0;
            return status;
        }
        usleep(20000);
    }
    return -1;
}

START_TEST(status_tells_tenants_and_bytes)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);

    ck_assert_int_eq(rdma_reserve(node, 0, 2 * RDMA_SLAB_PAGES), 0);
    ck_assert_uint_eq(fixture_status(&server, "capacity_bytes"), 64 << 20);
    ck_assert_uint_eq(fixture_status(&server, "used_bytes"), 2 * FIXTURE_SLAB_BYTES);
    ck_assert_uint_eq(fixture_status(&server, "held_bytes"), 2 * FIXTURE_SLAB_BYTES);
    ck_assert_uint_eq(fixture_status(&server, "quota_bytes"), QUOTA);
    ck_assert_uint_eq(fixture_status(&server, "tenants_now"), 1);
    rdma_node_destroy(node);
    fixture_expect_status(&server, "tenants_now", 0);
    ck_assert_uint_eq(fixture_status(&server, "served"), 1);
}
END_TEST

START_TEST(memory_is_back_when_a_tenant_is_killed)
{
    pid_t child = fork();

    if (child == 0) {
        struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);

        if (rdma_reserve(node, 0, 3 * RDMA_SLAB_PAGES))
            _exit(1);
        pause();
    }
    fixture_expect_status(&server, "used_bytes", 3 * FIXTURE_SLAB_BYTES);
    kill(child, SIGKILL);
    fixture_expect_status(&server, "used_bytes", 0);
    waitpid(child, NULL, 0);
    ck_assert_int_eq(fixture_worker(&server), 0);
}
END_TEST

START_TEST(limits_are_enforced)
{
    struct rdma_node *nodes[3];

    ck_assert_int_eq(try_connect(64 << 20), -ENOSPC); /* over --quota */
    ck_assert_int_eq(try_connect(1ULL << 40), -ENOSPC);
    for (int i = 0; i < 3; i++)
        nodes[i] = fixture_connect_as(&server, "loopback", QUOTA);
    ck_assert_int_eq(try_connect(QUOTA), -EBUSY);
    rdma_node_destroy(nodes[1]);
    fixture_expect_status(&server, "tenants_now", 2);
    ck_assert_int_eq(try_connect(QUOTA), 0);
    rdma_node_destroy(nodes[0]);
    rdma_node_destroy(nodes[2]);
}
END_TEST

START_TEST(sigterm_without_tenants_ends_at_once)
{
    kill(server.pid, SIGTERM);
    ck_assert_int_eq(wait_for_end(1000), 0);
}
END_TEST

START_TEST(sigterm_waits_for_the_last_tenant)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);

    kill(server.pid, SIGTERM);
    usleep(300000);
    ck_assert_int_eq(try_connect(QUOTA), -EBUSY);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    rdma_node_destroy(node);
    ck_assert_int_eq(wait_for_end(1000), 0);
}
END_TEST

START_TEST(sigterm_ends_tenants_after_the_grace_time)
{
    struct rdma_node *node = fixture_connect_as(&server, transports[_i], QUOTA);
    struct pollfd lost = {.fd = rdma_node_event_fd(node), .events = POLLIN};

    kill(server.pid, SIGTERM);
    ck_assert_int_eq(wait_for_end(3000), 0);
    ck_assert_int_eq(poll(&lost, 1, 1000), 1);
    ck_assert_int_eq(rdma_node_error(node), -ECONNRESET);
    rdma_node_destroy(node);
}
END_TEST

/* A server that was stopped for longer than the grace has not given it. */
START_TEST(a_drain_does_not_count_the_time_it_was_stopped)
{
    struct rdma_node *node = fixture_connect_as(&server, "loopback", QUOTA);

    kill(server.pid, SIGTERM);
    usleep(200000);
    kill(server.pid, SIGSTOP);
    usleep(1300000);
    kill(server.pid, SIGCONT);
    usleep(100000);
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    ck_assert_int_eq(wait_for_end(3000), 0);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_second_sigint_ends_at_once)
{
    struct rdma_node *node = fixture_connect_as(&server, "loopback", QUOTA);

    kill(server.pid, SIGINT);
    usleep(200000);
    ck_assert_uint_eq(fixture_status(&server, "tenants_now"), 1);
    kill(server.pid, SIGINT);
    ck_assert_int_eq(wait_for_end(500), 0);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(workers_die_with_a_killed_supervisor)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi", QUOTA);
    pid_t worker = fixture_worker(&server);

    ck_assert_int_gt(worker, 0);
    kill(server.pid, SIGKILL);
    for (int i = 0; i < 100 && kill(worker, 0) == 0; i++)
        usleep(20000);
    ck_assert_int_eq(kill(worker, 0), -1);
    rdma_node_destroy(node);
}
END_TEST

START_TEST(a_server_ends_with_its_parent)
{
    int report[2];
    pid_t parent, pid = 0;

    ck_assert_int_eq(pipe(report), 0);
    parent = fork();
    if (parent == 0) {
        struct server_fixture child;

        fixture_start(&child, NULL);
        _exit(write(report[1], &child.pid, sizeof(child.pid)) == sizeof(child.pid) ? 0 : 1);
    }
    ck_assert_int_eq(read(report[0], &pid, sizeof(pid)), (int)sizeof(pid));
    waitpid(parent, NULL, 0);
    for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
        usleep(20000);
    ck_assert(kill(pid, 0) == -1);
}
END_TEST

START_TEST(a_dead_servers_socket_is_taken_over_and_a_live_ones_is_not)
{
    char command[512];
    int status;

    snprintf(command, sizeof(command), "%s --listen %s 2>/dev/null", fixture_program(),
             server.unix_address);
    status = system(command);
    ck_assert_int_eq(WEXITSTATUS(status), 125);
    kill(server.pid, SIGKILL);
    waitpid(server.pid, NULL, 0);
    server.pid = fork();
    if (server.pid == 0) {
        execl(fixture_program(), "memserver", "--quiet", "--exit-with-parent", "--listen",
              server.unix_address, NULL);
        _exit(127);
    }
    for (int i = 0; i < 100 && try_connect(QUOTA); i++)
        usleep(20000);
    ck_assert_int_eq(try_connect(QUOTA), 0);
}
END_TEST

/* Wrong options: exit status 125 and the words that explain. */
static const struct {
    const char *options, *words;
} wrong[] = {
    {"--capacity 12X", "'12X' is not a size"},
    {"--capacity 1M", "below the smallest unit"},
    {"--quota ''", "is not a size"},
    {"--grace soon", "is not a duration"},
    {"--max-tenants 0", "is not a number from 1 to"},
    {"--ready-fd x", "is not a file descriptor"},
    {"--ready-fd 99", "cannot write"},
    {"--json", "only together with --status"},
    {"--listen nowhere", "expected HOST:PORT"},
    {"--listen 127.0.0.1:99999", "port is not a number"},
    {"--listen unix:/does/not/exist/s", "cannot listen"},
    {"--listen 192.0.2.1:1", "cannot listen"},
    {"--status unix:/nowhere", "cannot ask"},
    {"--status nowhere", "expected HOST:PORT"},
    {"--frobnicate", "unknown option"},
    {"extra", "unexpected argument"},
};

START_TEST(a_wrong_option_is_explained)
{
    char command[512], text[4096];
    FILE *pipe;
    size_t used;

    snprintf(command, sizeof(command), "timeout 5 %s --capacity 64M %s%s 2>&1", fixture_program(),
             wrong[_i].options,
             strstr(wrong[_i].options, "--ready-fd 99") ? " --listen 127.0.0.1:0" : "");
    pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    used = fread(text, 1, sizeof(text) - 1, pipe);
    text[used] = '\0';
    ck_assert_int_eq(WEXITSTATUS(pclose(pipe)), 125);
    ck_assert_msg(strstr(text, wrong[_i].words), "%s", text);
}
END_TEST

START_TEST(a_port_in_use_is_explained)
{
    char command[512];
    int status;

    snprintf(command, sizeof(command),
             "%s --listen %s 2>&1 | grep -q 'Address already in use (is another memserver'",
             fixture_program(), server.tcp_address);
    status = system(command);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(too_few_huge_pages_are_a_warning)
{
    char command[512];
    int status;

    /* More than any test machine has reserved, so that normal pages are used. */
    snprintf(command, sizeof(command),
             "timeout --preserve-status 1 %s --listen 127.0.0.1:0 --hugepages --capacity 4T 2>&1 | "
             "grep -q 'huge pages: .* using normal pages (raise vm.nr_hugepages)'",
             fixture_program());
    status = system(command);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(the_table_for_people_names_tenants)
{
    struct rdma_node *node = fixture_connect_as(&server, "loopback", QUOTA);
    char command[512];
    int status;

    snprintf(command, sizeof(command),
             "%s --status %s | tr '\n' ' ' | grep -q 'memory .* of 64.0 MiB used.*loopback .*test'",
             fixture_program(), server.tcp_address);
    status = system(command);
    ck_assert_int_eq(status, 0);
    rdma_node_destroy(node);
}
END_TEST

/* Processor time a process has used, in clock ticks. */
static unsigned long used_ticks(pid_t process)
{
    char path[64];
    unsigned long user = 0, system_time = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", process);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                            &user, &system_time),
                     2);
    fclose(file);
    return user + system_time;
}

START_TEST(idle_tenants_cost_no_processor_time)
{
    struct rdma_node *node = fixture_connect_as(&server, "ofi", QUOTA);
    struct rdma_queue *queue = fixture_queue(node, 4);
    pid_t worker = fixture_worker(&server);
    unsigned long before;

    usleep(100000);
    before = used_ticks(worker) + used_ticks(server.pid);
    sleep(2);
    /* A loop that spins would use 200 ticks of 10 ms. */
    ck_assert_uint_le(used_ticks(worker) + used_ticks(server.pid) - before, 10);
    rdma_queue_destroy(queue);
    rdma_node_destroy(node);
}
END_TEST

/* Its tenants are served, and somebody is accepted again when another has gone. */
START_TEST(without_descriptors_the_loop_does_not_spin)
{
    struct rdma_node *node = fixture_connect_as(&server, "loopback", QUOTA);
    struct rlimit few = {24, 24};
    struct address there;
    int fds[40];
    unsigned long before;
    const char *why;

    ck_assert_int_eq(prlimit(server.pid, RLIMIT_NOFILE, &few, NULL), 0);
    ck_assert_int_eq(address_parse(server.unix_address, &there, &why), 0);
    for (int i = 0; i < 40; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(fds[i], (struct sockaddr *)&there.storage, there.bytes), 0);
    }
    before = used_ticks(server.pid);
    sleep(1);
    ck_assert_uint_le(used_ticks(server.pid) - before, 20); /* of 100, if it spins */
    ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
    for (int i = 0; i < 40; i++)
        close(fds[i]);
    ck_assert_int_eq(try_connect(QUOTA), 0);
    rdma_node_destroy(node);
}
END_TEST

/* Answers each question for the status with as many more tenants as go into one answer. */
static void *tenants_without_end(void *argument)
{
    int fd = accept4(*(int *)argument, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    static struct channel channel;
    union wire_message message;
    int got;

    channel_init(&channel, fd, WIRE_TO_SERVER);
    while ((got = channel_receive(&channel, &message)) >= 0) {
        uint64_t after = message.status.after_tenant;

        if (got == 0) {
            poll(&readable, 1, 10000);
            continue;
        }
        wire_message_init(&message, WIRE_STATUS_REPLY);
        message.status_reply.rows = WIRE_STATUS_ROWS_MAX;
        for (uint32_t i = 0; i < WIRE_STATUS_ROWS_MAX; i++) {
            message.status_reply.row[i].tenant = ++after;
            message.status_reply.row[i].transport = WIRE_LOOPBACK;
        }
        channel_send(&channel, &message);
    }
    channel_close(&channel);
    return NULL;
}

START_TEST(status_does_not_listen_to_a_server_without_end)
{
    struct address here;
    pthread_t thread;
    char text[64], command[512];
    const char *why;
    int status, listener;

    snprintf(text, sizeof(text), "unix:/tmp/farvisor-status-%d", (int)getpid());
    ck_assert_int_eq(address_parse(text, &here, &why), 0);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&here.storage, here.bytes), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, tenants_without_end, &listener), 0);
    snprintf(command, sizeof(command), "timeout 15 %s --status %s >/dev/null", fixture_program(),
             text);
    status = system(command);
    ck_assert_int_eq(WEXITSTATUS(status), 125);
    pthread_join(thread, NULL);
    close(listener);
    unlink(text + strlen("unix:"));
}
END_TEST

static Suite *server_suite(void)
{
    Suite *suite = suite_create("memserver");
    TCase *each = tcase_create("each transport");
    TCase *life = tcase_create("life");
    TCase *options = tcase_create("options");

    tcase_add_checked_fixture(each, set_up, tear_down);
    tcase_add_checked_fixture(life, set_up, tear_down);
    tcase_set_timeout(each, 30);
    tcase_set_timeout(life, 30);
    tcase_set_timeout(options, 30);
    fixture_add_each(each, status_tells_tenants_and_bytes, transports);
    fixture_add_each(each, memory_is_back_when_a_tenant_is_killed, transports);
    fixture_add_each(each, sigterm_waits_for_the_last_tenant, transports);
    fixture_add_each(each, sigterm_ends_tenants_after_the_grace_time, transports);
    tcase_add_test(life, a_wish_beyond_the_quota_is_cut_to_what_there_is);
    tcase_add_test(life, limits_are_enforced);
    tcase_add_test(life, sigterm_without_tenants_ends_at_once);
    tcase_add_test(life, a_drain_does_not_count_the_time_it_was_stopped);
    tcase_add_test(life, a_second_sigint_ends_at_once);
    tcase_add_test(life, workers_die_with_a_killed_supervisor);
    tcase_add_test(life, a_server_ends_with_its_parent);
    tcase_add_test(life, a_dead_servers_socket_is_taken_over_and_a_live_ones_is_not);
    tcase_add_test(life, a_port_in_use_is_explained);
    tcase_add_test(life, too_few_huge_pages_are_a_warning);
    tcase_add_test(life, the_table_for_people_names_tenants);
    tcase_add_test(life, idle_tenants_cost_no_processor_time);
    tcase_add_test(options, status_does_not_listen_to_a_server_without_end);
    tcase_add_test(life, without_descriptors_the_loop_does_not_spin);
    tcase_add_loop_test(options, a_wrong_option_is_explained, 0,
                        (int)(sizeof(wrong) / sizeof(wrong[0])));
    suite_add_tcase(suite, each);
    suite_add_tcase(suite, life);
    suite_add_tcase(suite, options);
    return suite;
}

int main(void)
{
    return unit_run(server_suite());
}
