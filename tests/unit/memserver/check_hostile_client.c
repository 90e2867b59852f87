/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that send garbage, half messages, requests out of order or nothing, or never read, while
 * an honest tenant works: the honest one must not notice, the other must be rid of soon.
 */
#include "memserver/memserver.h"
#include "rdma/address.h"
#include "rdma/channel.h"
#include "tests/unit/rdma/server_fixture.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define QUOTA        (8 * FIXTURE_SLAB_BYTES)
#define GONE_IN_MS   7000 /* the greeting deadline is 5 s */
#define HONEST_TURNS 200
#define FAR_SLABS    2000u /* a page each would be four times what is allowed */

static struct server_fixture server;
static struct rdma_node *honest;
static struct rdma_queue *queue;
static uint8_t *page;

static void set_up(void)
{
    static const char *const options[] = {"--capacity", "64M", "--max-tenants", "40", NULL};
    void *buffer = NULL;

    message_init("check_hostile", MESSAGE_NORMAL);
    fixture_start(&server, options);
    honest = fixture_connect_as(&server, "ofi", QUOTA);
    queue = fixture_queue(honest, 4);
    ck_assert_int_eq(rdma_reserve(honest, 0, 1), 0);
    ck_assert_int_eq(rdma_buffer_alloc(honest, RDMA_PAGE_BYTES, &buffer), 0);
    page = buffer;
}

static void tear_down(void)
{
    rdma_queue_destroy(queue);
    rdma_node_destroy(honest);
    fixture_stop(&server, SIGKILL);
}

static void honest_work(void)
{
    for (int i = 0; i < HONEST_TURNS; i++) {
        memset(page, i, RDMA_PAGE_BYTES);
        ck_assert_int_eq(fixture_transfer(queue, RDMA_WRITE, 0, 1, page), 0);
        memset(page, ~i, RDMA_PAGE_BYTES);
        ck_assert_int_eq(fixture_transfer(queue, RDMA_READ, 0, 1, page), 0);
        ck_assert_uint_eq(page[RDMA_PAGE_BYTES - 1], (uint8_t)i);
    }
    ck_assert_int_eq(rdma_reserve(honest, 3 * RDMA_SLAB_PAGES, 1), 0);
    ck_assert_int_eq(rdma_release_slab(honest, 3 * RDMA_SLAB_PAGES), 0);
    ck_assert_int_eq(rdma_node_error(honest), 0);
}

static int dial(void)
{
    struct address address;
    const char *why;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(address_parse(server.unix_address, &address, &why), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address.storage, address.bytes), 0);
    return fd;
}

static void say(int fd, const void *bytes, size_t count)
{
    /* The server may have closed already. */
    if (send(fd, bytes, count, MSG_NOSIGNAL) < 0)
        return;
}

/* True once the server has closed; what it says before is thrown away. */
static bool closed_within(int fd, int limit_ms)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    uint64_t deadline_ns = clock_now_ns() + (uint64_t)limit_ms * 1000000;
    char text[4096];

    while (clock_now_ns() < deadline_ns) {
        if (poll(&readable, 1, 100) == 1 && recv(fd, text, sizeof(text), 0) <= 0)
            return true;
    }
    return false;
}

static union wire_message hello(void)
{
    union wire_message message;

    wire_message_init(&message, WIRE_HELLO);
    message.hello.quota_bytes = QUOTA;
    message.hello.span_pages = 1 << 20;
    message.hello.transport = WIRE_LOOPBACK;
    message.hello.timeout_ms = 1000;
    return message;
}

static union wire_message range(enum wire_type type, uint64_t first, uint32_t count)
{
    union wire_message message;

    wire_message_init(&message, type);
    message.range.first_slab = first;
    message.range.count = count;
    return message;
}

#define SAY(fd, message) say(fd, &(message), (message).header.bytes)

static void misbehave_garbage(int fd)
{
    say(fd, "GET / HTTP/1.1\r\nHost: memory\r\n\r\n", 33);
}

static void misbehave_half_a_header(int fd)
{
    union wire_message message = hello();

    say(fd, &message, 7);
}

static void misbehave_silent(int fd)
{
    (void)fd;
}

static void misbehave_reserves_first(int fd)
{
    union wire_message message = range(WIRE_RESERVE, 0, 1);

    SAY(fd, message);
}

static void misbehave_twice_hello(int fd)
{
    union wire_message message = hello();

    SAY(fd, message);
    SAY(fd, message);
}

static void misbehave_reserves_twice(int fd)
{
    union wire_message first = hello(), twice = range(WIRE_RESERVE, 5, 2);

    SAY(fd, first);
    SAY(fd, twice);
    SAY(fd, twice);
}

static void misbehave_reserves_beyond_its_span(int fd)
{
    union wire_message first = hello(), beyond = range(WIRE_RESERVE, 1 << 20, 1);

    SAY(fd, first);
    SAY(fd, beyond);
}

static void misbehave_releases_what_it_has_not(int fd)
{
    union wire_message first = hello(), release = range(WIRE_RELEASE, 0, 1);

    SAY(fd, first);
    SAY(fd, release);
}

static void misbehave_spoils_a_message(int fd)
{
    union wire_message first = hello(), spoilt = range(WIRE_RESERVE, 0, 0);

    SAY(fd, first);
    SAY(fd, spoilt);
}

static void misbehave_never_reads(int fd)
{
    union wire_message first = hello(), ping;
    struct timeval limit = {.tv_usec = 200000};

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    SAY(fd, first);
    wire_message_init(&ping, WIRE_PING);
    for (int i = 0; i < 200000; i++) {
        if (send(fd, &ping, ping.header.bytes, MSG_NOSIGNAL) <= 0)
            break;
    }
}

static void misbehave_floods_with_descriptors(int fd)
{
    struct channel channel;
    union wire_message message = hello();

    channel_init(&channel, fd, WIRE_TO_CLIENT);
    for (int i = 0; i < 50; i++)
        channel_send_fd(&channel, &message, fd);
}

static void (*const misdeeds[])(int) = {
    misbehave_garbage,
    misbehave_half_a_header,
    misbehave_silent,
    misbehave_reserves_first,
    misbehave_twice_hello,
    misbehave_reserves_twice,
    misbehave_reserves_beyond_its_span,
    misbehave_releases_what_it_has_not,
    misbehave_spoils_a_message,
    misbehave_never_reads,
    misbehave_floods_with_descriptors,
};

START_TEST(a_misdeed_ends_its_connection_only)
{
    int fd = dial();

    honest_work();
    misdeeds[_i](fd);
    honest_work();
    ck_assert(closed_within(fd, GONE_IN_MS));
    honest_work();
    close(fd);
    fixture_expect_status(&server, "tenants_now", 1);
    fixture_expect_status(&server, "used_bytes", FIXTURE_SLAB_BYTES);
}
END_TEST

START_TEST(idle_connections_are_limited_and_closed)
{
    int fds[300];

    for (size_t i = 0; i < 300; i++)
        fds[i] = dial();
    honest_work();
    for (size_t i = 0; i < 300; i++) {
        ck_assert(closed_within(fds[i], GONE_IN_MS));
        close(fds[i]);
    }
    honest_work();
    fixture_expect_status(&server, "tenants_now", 1);
}
END_TEST

/* The next message of the server but its pings, which must come within 5 s. */
static void hear(struct channel *channel, union wire_message *message)
{
    struct pollfd readable = {.fd = channel->fd, .events = POLLIN};

    do {
        int got;

        while ((got = channel_receive(channel, message)) == 0)
            ck_assert_int_eq(poll(&readable, 1, 5000), 1);
        ck_assert_int_gt(got, 0);
    } while (message->header.type == WIRE_PING);
}

/* Says HELLO and takes the READY. */
static void become_tenant(struct channel *channel, int fd, union wire_message *message)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    channel_init(channel, fd, WIRE_TO_CLIENT);
    ck_assert_int_eq(channel_send(channel, message), 0);
    hear(channel, message);
    ck_assert_int_eq(message->header.type, WIRE_READY);
}

/* Who has not said HELLO when the server is stopped for longer than it waits may say it afterwards.
 */
START_TEST(a_stopped_server_has_not_waited_for_hello)
{
    int fd = dial();
    static struct channel channel;
    union wire_message message = hello();

    rdma_queue_destroy(queue); /* it would not wait for so long */
    rdma_node_destroy(honest);
    queue = NULL;
    honest = NULL;
    fixture_expect_status(&server, "tenants_now", 0);
    kill(server.pid, SIGSTOP);
    usleep(5500000);
    kill(server.pid, SIGCONT);
    usleep(300000); /* a tick */
    become_tenant(&channel, fd, &message);
    channel_close(&channel);
}
END_TEST

/* A tenant on this host maps its whole file; taking more than it reserved must end it. */
START_TEST(a_tenant_that_takes_unreserved_memory_is_ended)
{
    int fd = dial();
    static struct channel channel;
    union wire_message message = hello();
    void *map;

    become_tenant(&channel, fd, &message);
    map = mmap(NULL, QUOTA, PROT_READ | PROT_WRITE, MAP_SHARED, channel.passed_fd, 0);
    ck_assert_ptr_ne(map, MAP_FAILED);
    ck_assert_int_eq(ftruncate(channel.passed_fd, 1LL << 40), -1);
    memset(map, 1, FIXTURE_SLAB_BYTES);
    ck_assert(closed_within(fd, 3000));
    honest_work();
    munmap(map, QUOTA);
    channel_close(&channel);
}
END_TEST

/* Memory of its own, not shared with the tenant's, that the last worker started has. */
static uint64_t worker_own_kib(void)
{
    char path[64], text[4096] = "";
    const char *at;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/status", fixture_last_worker(&server));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
    close(fd);
    at = strstr(text, "RssAnon:");
    ck_assert_ptr_nonnull(at);
    return strtoull(at + strlen("RssAnon:"), NULL, 10);
}

/* Takes the slab and gives it back. */
static void use_slab(struct channel *channel, uint64_t slab)
{
    union wire_message message = range(WIRE_RESERVE, slab, 1);

    ck_assert_int_eq(channel_send(channel, &message), 0);
    hear(channel, &message);
    ck_assert_int_eq(message.header.type, WIRE_RESERVED);
    ck_assert_uint_eq(message.reserved.count, 1);
    message = range(WIRE_RELEASE, slab, 1);
    ck_assert_int_eq(channel_send(channel, &message), 0);
    hear(channel, &message);
    ck_assert_int_eq(message.header.type, WIRE_RELEASED);
}

/* The numbers of slabs are the tenant's to choose: they must cost the node nothing. */
START_TEST(slabs_far_apart_cost_the_node_no_memory_of_its_own)
{
    int fd = dial();
    static struct channel channel;
    union wire_message message = hello();
    uint64_t before_kib;

    message.hello.transport = WIRE_OFI_TCP; /* has a worker */
    message.hello.span_pages = WIRE_SPAN_MAX_PAGES;
    message.hello.quota_bytes = FIXTURE_SLAB_BYTES;
    message.hello.timeout_ms = 5000;
    become_tenant(&channel, fd, &message);
    for (uint64_t i = 0; i < 100; i++)
        use_slab(&channel, i);
    before_kib = worker_own_kib();
    for (uint64_t i = 0; i < FAR_SLABS; i++)
        use_slab(&channel, i * 1024);
    ck_assert_uint_lt(worker_own_kib(), before_kib + FAR_SLABS);
    channel_close(&channel);
    honest_work();
}
END_TEST

/* Is the socket with this inode open in the process? */
static bool process_has_socket(pid_t process, unsigned long inode)
{
    char path[64], target[64], wanted[64];

    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    for (int fd = 0; fd < 64; fd++) {
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", process, fd);
        length = readlink(path, target, sizeof(target) - 1);
        if (length < 0)
            continue;
        target[length] = '\0';
        if (strcmp(target, wanted) == 0)
            return true;
    }
    return false;
}

/* The port on which the process listens, and that it listens on 127.0.0.1 only; 0: none. */
static unsigned listening_port(pid_t process)
{
    char line[512];
    unsigned found = 0;
    FILE *table = fopen("/proc/net/tcp", "re");

    ck_assert_ptr_nonnull(table);
    while (fgets(line, sizeof(line), table)) {
        unsigned address, port, state;
        unsigned long inode;

        if (sscanf(line, "%*d: %x:%x %*x:%*x %x %*s %*s %*s %*s %*s %lu", &address, &port, &state,
                   &inode) != 4 ||
            state != 0x0a || !process_has_socket(process, inode))
            continue;
        ck_assert_uint_eq(address, 0x0100007f);
        found = port;
    }
    fclose(table);
    return found;
}

/* Somebody who finds a worker's port but has no token. */
START_TEST(a_stranger_at_a_workers_port_gets_nowhere)
{
    char text[64];
    unsigned port = listening_port(fixture_worker(&server));

    ck_assert_uint_gt(port, 0);
    for (int i = 0; i < 20; i++) {
        struct address address;
        const char *why;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(text, sizeof(text), "127.0.0.1:%u", port);
        ck_assert_int_eq(address_parse(text, &address, &why), 0);
        ck_assert_int_eq(connect(fd, (struct sockaddr *)&address.storage, address.bytes), 0);
        misdeeds[i % 2](fd);
        honest_work();
        close(fd);
    }
    honest_work();
}
END_TEST

/* Answers in a worker's place, over its own socket. */
static void answer_as(pid_t worker, uint32_t type)
{
    struct worker_message answer = {.type = type};
    int process = (int)syscall(SYS_pidfd_open, worker, 0);
    int fd = (int)syscall(SYS_pidfd_getfd, process, WORKER_CONTROL_FD, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(worker_send(fd, &answer), 0);
    close(fd);
    close(process);
}

/* A tenant that has taken its worker over would hold memory that counts as nobody's. */
START_TEST(a_worker_that_answers_what_it_was_not_asked_ends_its_tenant)
{
    struct rdma_config config = {.transport = "ofi",
                                 .address = server.tcp_address,
                                 .quota_bytes = QUOTA,
                                 .span_pages = 1 << 20,
                                 .timeout_ns = 4 * FIXTURE_TIMEOUT_NS};
    struct rdma_node *node;
    pid_t worker;

    ck_assert_int_eq(rdma_node_connect(&node, &config), 0);
    worker = fixture_last_worker(&server);
    for (int i = 0; i < 2; i++) { /* the second one stays */
        ck_assert_int_eq(rdma_reserve(node, 0, 1), 0);
        if (i == 0)
            ck_assert_int_eq(rdma_release_slab(node, 0), 0);
    }
    fixture_expect_status(&server, "used_bytes", 2 * FIXTURE_SLAB_BYTES);
    kill(worker, SIGSTOP);
    usleep(1300000); /* it was asked for a sign of life by now, and is given 6 s */
    answer_as(worker, WORKER_UNMAP);
    usleep(100000);
    ck_assert_uint_eq(fixture_status(&server, "tenants_now"), 1);
    kill(worker, SIGKILL);
    rdma_node_destroy(node);
}
END_TEST

static Suite *hostile_client_suite(void)
{
    Suite *suite = suite_create("memserver hostile clients");
    TCase *cases = tcase_create("misdeeds");

    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, a_misdeed_ends_its_connection_only, 0,
                        (int)(sizeof(misdeeds) / sizeof(misdeeds[0])));
    tcase_add_test(cases, idle_connections_are_limited_and_closed);
    tcase_add_test(cases, a_stopped_server_has_not_waited_for_hello);
    tcase_add_test(cases, a_tenant_that_takes_unreserved_memory_is_ended);
    tcase_add_test(cases, slabs_far_apart_cost_the_node_no_memory_of_its_own);
    tcase_add_test(cases, a_worker_that_answers_what_it_was_not_asked_ends_its_tenant);
    tcase_add_test(cases, a_stranger_at_a_workers_port_gets_nowhere);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    return unit_run(hostile_client_suite());
}
