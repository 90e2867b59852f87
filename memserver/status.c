/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `memserver --status ADDR`: asks a running server and prints a table, or JSON for scripts. Every
 * wait is bounded; the server's answer is checked like any peer's.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define STATUS_LIMIT_NS 5000000000ULL

struct status_report {
    const char *address;
    bool json;
    uint64_t rows; /* printed so far */
};

static const char *status_transport(uint32_t transport)
{
    static const char *const names[] = {"?", "loopback", "ofi/tcp", "verbs"};

    return names[transport < WIRE_TRANSPORT_END ? transport : 0];
}

/* Names are printable ASCII by the parser's check; only quote and backslash need escaping. */
static void status_print_json_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void status_print_totals(const struct status_report *report,
                                const struct wire_status_reply *reply)
{
    char used[32], capacity[32];

    if (report->json) {
        printf("{\"capacity_bytes\": %llu, \"used_bytes\": %llu, \"uptime_ms\": %llu, "
               "\"served\": %llu, \"tenants_now\": %u, \"tenants_max\": %u, \"draining\": %s, "
               "\"hugepages\": %s, \"tenants\": [",
               (unsigned long long)reply->capacity_bytes, (unsigned long long)reply->used_bytes,
               (unsigned long long)reply->uptime_ms, (unsigned long long)reply->served,
               reply->tenants, reply->tenants_max, reply->draining ? "true" : "false",
               reply->hugepages ? "true" : "false");
        return;
    }
    printf("memory   %s of %s used%s\n", format_bytes(reply->used_bytes, used, sizeof(used)),
           format_bytes(reply->capacity_bytes, capacity, sizeof(capacity)),
           reply->hugepages ? ", huge pages" : "");
    printf("tenants  %u of at most %u, %llu served in %.1f s%s\n", reply->tenants,
           reply->tenants_max, (unsigned long long)reply->served, (double)reply->uptime_ms / 1e3,
           reply->draining ? ", draining" : "");
    if (reply->rows)
        printf("\n%8s  %-9s %12s %12s %10s  %s\n", "TENANT", "TRANSPORT", "HELD", "QUOTA", "AGE",
               "NAME");
}

static void status_print_row(struct status_report *report, const struct wire_status_row *row)
{
    char held[32], quota[32];

    if (report->json) {
        printf("%s{\"tenant\": %llu, \"name\": ", report->rows++ ? ", " : "",
               (unsigned long long)row->tenant);
        status_print_json_text(row->name);
        printf(", \"transport\": \"%s\", \"held_bytes\": %llu, \"quota_bytes\": %llu, "
               "\"age_ms\": %llu, \"silent_ms\": %llu}",
               status_transport(row->transport), (unsigned long long)row->held_bytes,
               (unsigned long long)row->quota_bytes, (unsigned long long)row->age_ms,
               (unsigned long long)row->silent_ms);
        return;
    }
    printf("%8llu  %-9s %12s %12s %8.1f s  %s\n", (unsigned long long)row->tenant,
           status_transport(row->transport), format_bytes(row->held_bytes, held, sizeof(held)),
           format_bytes(row->quota_bytes, quota, sizeof(quota)), (double)row->age_ms / 1e3,
           row->name);
    report->rows++;
}

static int status_wait(struct channel *channel, short events, uint64_t deadline_ns)
{
    struct pollfd waited = {.fd = channel->fd, .events = events};
    uint64_t now = clock_now_ns();

    if (now >= deadline_ns)
        return -ETIMEDOUT;
    if (poll(&waited, 1, (int)((deadline_ns - now) / 1000000 + 1)) < 0 && errno != EINTR)
        return -errno;
    return 0;
}

/* One question, one answer. */
static int status_ask(struct channel *channel, uint64_t after, uint64_t deadline_ns,
                      union wire_message *reply)
{
    union wire_message ask;
    int got;

    wire_message_init(&ask, WIRE_STATUS);
    ask.status.after_tenant = after;
    got = channel_send(channel, &ask);
    if (got < 0)
        return got;
    while ((got = channel_receive(channel, reply)) == 0) {
        got = status_wait(channel, POLLIN, deadline_ns);
        if (got < 0)
            return got;
    }
    if (got < 0)
        return got;
    return reply->header.type == WIRE_STATUS_REPLY ? 0 : -EPROTO;
}

static int status_connect(const struct address *address, struct channel *channel)
{
    int error = 0;
    socklen_t bytes = sizeof(error);
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    channel_init(channel, fd, WIRE_TO_CLIENT);
    if (connect(fd, (const struct sockaddr *)&address->storage, address->bytes) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    uint64_t deadline_ns = clock_now_ns() + STATUS_LIMIT_NS;
    struct pollfd waited = {.fd = fd, .events = POLLOUT};

    while (poll(&waited, 1, 100) <= 0) {
        if (clock_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        return -errno;
    return -error;
}

static int status_run(struct channel *channel, struct status_report *report)
{
    union wire_message reply;
    uint64_t after = 0;
    /* For all of it: a server that always has another tenant must not keep us here. */
    uint64_t deadline_ns = clock_now_ns() + STATUS_LIMIT_NS;
    int error = status_ask(channel, after, deadline_ns, &reply);

    if (error)
        return error;
    status_print_totals(report, &reply.status_reply);
    for (;;) {
        const struct wire_status_reply *status = &reply.status_reply;

        for (uint32_t i = 0; i < status->rows; i++) {
            /* A server that repeats itself must not keep us here. */
            if (status->row[i].tenant <= after)
                return -EPROTO;
            after = status->row[i].tenant;
            status_print_row(report, &status->row[i]);
        }
        if (status->rows < WIRE_STATUS_ROWS_MAX)
            break;
        error = clock_now_ns() < deadline_ns ? status_ask(channel, after, deadline_ns, &reply)
                                             : -ETIMEDOUT;
        if (error)
            return error;
    }
    if (report->json)
        printf("]}\n");
    return fflush(stdout) == EOF ? -errno : 0;
}

int status_print(const char *address_text, bool json)
{
    static struct channel channel = {.fd = -1, .passed_fd = -1};
    struct status_report report = {.address = address_text, .json = json};
    struct address address;
    const char *why;
    int error = address_parse(address_text, &address, &why);

    if (error) {
        message_error("--status: '%s': %s", address_text, why);
        return error;
    }
    error = status_connect(&address, &channel);
    if (!error)
        error = status_run(&channel, &report);
    channel_close(&channel);
    if (error == -EPROTO || error == -EPROTONOSUPPORT)
        message_error("--status: %s: no memory server there, or of another version", address_text);
    else if (error)
        message_error("--status: %s: cannot ask: %s (is a memserver listening there?)",
                      address_text, strerror(-error));
    return error;
}
