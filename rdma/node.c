/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory node: life, health, counters, buffers. Health is one sticky error: whoever notices that
 * the node is lost first (the control thread, a queue) sets it, prints the one message and makes
 * the event descriptor readable, which wakes everybody who sleeps on the node.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define TIMEOUT_MIN_NS 1000000ULL        /* 1 ms: below, scheduling alone would end nodes */
#define TIMEOUT_MAX_NS 86400000000000ULL /* a day */

void rdma_node_fail(struct rdma_node *node, int error, const char *format, ...)
{
    int healthy = 0;
    uint64_t one = 1;
    char text[512];
    va_list arguments;

    if (!atomic_compare_exchange_strong(&node->error, &healthy, error))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    message_error("memory node %s: %s", node->address_text, text);
    /* Cannot fail: the counter is far from its limit. */
    if (write(node->event_fd, &one, sizeof(one)) < 0)
        return;
}

void rdma_node_explain(const struct rdma_node *node, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (node->fallback)
        message_info("memory node %s: not by %s: %s", node->address_text, node->transport->name,
                     text);
    else
        message_error("memory node %s: %s", node->address_text, text);
}

static int node_tables_create(struct rdma_node *node)
{
    size_t bytes = node->slab_count * sizeof(struct slab_entry);
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (table == MAP_FAILED)
        return -errno;
    node->slabs = table;
    return 0;
}

static int node_locks_create(struct rdma_node *node)
{
    pthread_condattr_t attribute;

    pthread_mutex_init(&node->lock, NULL);
    pthread_condattr_init(&attribute);
    /* Deadlines are monotonic: setting the date must not stretch a bounded wait. */
    pthread_condattr_setclock(&attribute, CLOCK_MONOTONIC);
    pthread_cond_init(&node->changed, &attribute);
    pthread_condattr_destroy(&attribute);
    node->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    node->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return node->event_fd < 0 || node->wake_fd < 0 ? -errno : 0;
}

static int node_create(struct rdma_node **out, const struct rdma_config *config)
{
    struct rdma_node *node = calloc(1, sizeof(*node));
    int error;

    if (!node)
        return -ENOMEM;
    channel_init(&node->channel, -1, WIRE_TO_CLIENT);
    node->event_fd = -1;
    node->wake_fd = -1;
    node->last_reserved = UINT64_MAX;
    node->span_pages = config->span_pages;
    node->slab_count = (config->span_pages + RDMA_SLAB_PAGES - 1) / RDMA_SLAB_PAGES;
    node->quota_least_bytes =
        (config->quota_bytes + WIRE_SLAB_BYTES - 1) & ~(WIRE_SLAB_BYTES - 1ULL);
    node->quota_bytes = config->quota_wish_bytes & ~(WIRE_SLAB_BYTES - 1ULL);
    if (node->quota_bytes > WIRE_SPAN_MAX_PAGES * RDMA_PAGE_BYTES / 2)
        node->quota_bytes = WIRE_SPAN_MAX_PAGES * RDMA_PAGE_BYTES / 2;
    if (node->quota_bytes < node->quota_least_bytes)
        node->quota_bytes = node->quota_least_bytes;
    node->timeout_ns = config->timeout_ns;
    if (node->timeout_ns < TIMEOUT_MIN_NS)
        node->timeout_ns = TIMEOUT_MIN_NS;
    if (node->timeout_ns > TIMEOUT_MAX_NS)
        node->timeout_ns = TIMEOUT_MAX_NS;
    snprintf(node->address_text, sizeof(node->address_text), "%s", config->address);
    error = node_locks_create(node);
    if (!error)
        error = node_tables_create(node);
    if (error) {
        message_error("memory node %s: cannot set up: %s", config->address, strerror(-error));
        rdma_node_destroy(node);
        return error;
    }
    *out = node;
    return 0;
}

static int node_config_check(const struct rdma_config *config)
{
    if (config->span_pages == 0 ||
        config->span_pages > WIRE_SPAN_MAX_PAGES - 64 * RDMA_SLAB_PAGES ||
        config->quota_bytes == 0 ||
        config->quota_bytes > WIRE_SPAN_MAX_PAGES * RDMA_PAGE_BYTES / 2) {
        message_error("memory node %s: cannot use it: quota or span is out of range",
                      config->address);
        return -EINVAL;
    }
    return 0;
}

/* Greets and opens the transport; where that cannot be, the other one that "auto" has in mind. */
static int node_attach(struct rdma_node *node, const char *name)
{
    for (;;) {
        int error = rdma_node_greet(node, name);
        bool other = error == -EOPNOTSUPP;

        if (!error) {
            error = node->transport->open(node, node->channel.passed_fd);
            other = error != 0;
        }
        /* A server that is not there, or takes no tenants, does so whatever the transport. */
        if (!other || !node->fallback)
            return error;
        node->transport->close(node);
        channel_close(&node->channel);
        node->transport = node->fallback;
        node->fallback = NULL;
        rdma_transport_describe(node);
    }
}

int rdma_node_connect(struct rdma_node **out, const struct rdma_config *config)
{
    struct rdma_node *node;
    const char *why;
    int error = node_config_check(config);

    *out = NULL;
    if (!error)
        error = node_create(&node, config);
    if (error)
        return error;
    error = address_parse(config->address, &node->address, &why);
    if (error) {
        message_error("memory node %s: bad address: %s", config->address, why);
        goto destroy;
    }
    error = rdma_transport_parse(node, config->transport);
    if (!error)
        error = node_attach(node, config->name);
    if (!error)
        error = rdma_control_start(node);
    if (error)
        goto destroy;
    message_info("memory node %s: tenant %llu over %s", node->address_text,
                 (unsigned long long)node->ready.tenant, node->describe);
    *out = node;
    return 0;
destroy:
    rdma_node_destroy(node);
    return error;
}

void rdma_node_destroy(struct rdma_node *node)
{
    if (!node)
        return;
    /* First the data connections: the server ends what is left of them when it hears our BYE, and
     * that would look like a failure. */
    if (node->transport)
        node->transport->close(node);
    rdma_control_stop(node);
    channel_close(&node->channel);
    if (node->slabs)
        munmap(node->slabs, node->slab_count * sizeof(struct slab_entry));
    if (node->event_fd >= 0)
        close(node->event_fd);
    if (node->wake_fd >= 0)
        close(node->wake_fd);
    pthread_cond_destroy(&node->changed);
    pthread_mutex_destroy(&node->lock);
    free(node);
}

const char *rdma_node_describe(const struct rdma_node *node)
{
    return node->describe;
}

int rdma_node_error(const struct rdma_node *node)
{
    return atomic_load_explicit(&node->error, memory_order_relaxed);
}

int rdma_node_event_fd(const struct rdma_node *node)
{
    return node->event_fd;
}

void rdma_node_counters(struct rdma_node *node, struct rdma_counters *out)
{
    out->read_bytes = atomic_load_explicit(&node->read_bytes, memory_order_relaxed);
    out->write_bytes = atomic_load_explicit(&node->write_bytes, memory_order_relaxed);
    out->reads = atomic_load_explicit(&node->reads, memory_order_relaxed);
    out->writes = atomic_load_explicit(&node->writes, memory_order_relaxed);
    out->slabs_held = atomic_load_explicit(&node->slabs_held, memory_order_relaxed);
    out->slabs_peak = atomic_load_explicit(&node->slabs_peak, memory_order_relaxed);
}

int rdma_buffer_alloc(struct rdma_node *node, size_t bytes, void **out)
{
    void *buffer;

    *out = NULL;
    if (bytes == 0 || bytes > RDMA_BUFFER_MAX_BYTES)
        return -EINVAL;
    if (node->transport->buffer_alloc)
        return node->transport->buffer_alloc(node, bytes, out);
    buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return -errno;
    *out = buffer;
    return 0;
}

void rdma_buffer_free(struct rdma_node *node, void *buffer, size_t bytes)
{
    if (!buffer)
        return;
    if (node->transport->buffer_free)
        node->transport->buffer_free(node, buffer);
    else
        munmap(buffer, bytes);
}

bool rdma_needs_buffer(const struct rdma_node *node)
{
    return node->transport->needs_buffer;
}
