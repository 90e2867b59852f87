/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which transport a connection uses: the text of --transport, with the parameters of a simulated
 * network, to an operations table. "auto" takes shared memory on a unix socket, else RDMA where a
 * device leads to the address and the node takes it, else libfabric.
 */
#include "rdma/transport.h"
#include "rdma/verbs_library.h"

#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DELAY_MAX_NS 10000000000ULL /* 10 s: more is a typing error */

static const struct rdma_transport *const transports[] = {&rdma_loopback, &rdma_verbs, &rdma_ofi};

static int transport_choose(struct rdma_node *node, const char *name)
{
    if (strcmp(name, "auto") == 0) {
        node->transport = address_is_unix(&node->address) ? &rdma_loopback : &rdma_ofi;
        if (node->transport == &rdma_ofi && rdma_verbs.usable(node)) {
            node->transport = &rdma_verbs;
            node->fallback = &rdma_ofi;
        }
        return 0;
    }
    for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++) {
        if (strcmp(transports[i]->name, name) == 0) {
            node->transport = transports[i];
            return 0;
        }
    }
    message_error("transport '%s': unknown (expected auto, loopback, ofi or verbs)", name);
    return -EINVAL;
}

/* "delay=20us" into the network; 0 or -EINVAL after a message. */
static int network_parameter(struct loopback_network *network, const char *key, const char *value)
{
    int error = -EINVAL;

    if (strcmp(key, "delay") == 0)
        error = parse_duration(value, &network->delay_ns);
    else if (strcmp(key, "jitter") == 0)
        error = parse_duration(value, &network->jitter_ns);
    else if (strcmp(key, "bandwidth") == 0)
        error = parse_rate(value, &network->bits_per_s);
    else {
        message_error("transport parameter '%s': unknown (expected delay, jitter or bandwidth)",
                      key);
        return -EINVAL;
    }
    if (error || network->delay_ns > DELAY_MAX_NS || network->jitter_ns > DELAY_MAX_NS) {
        message_error("transport parameter '%s=%s': expected e.g. delay=20us, jitter=5us, "
                      "bandwidth=10G, at most 10s",
                      key, value);
        return -EINVAL;
    }
    return 0;
}

/* `name` is what the user wrote: of what "auto" found, a device is not asked for. */
static int transport_parameter(struct rdma_node *node, const char *name, const char *key,
                               const char *value)
{
    char why[VERBS_WHY_BYTES];

    if (node->transport == &rdma_loopback)
        return network_parameter(&node->network, key, value);
    if (node->transport == &rdma_ofi) {
        if (strcmp(key, "delay") == 0)
            return network_parameter(&node->network, key, value);
        message_error("transport 'ofi': takes only delay, not '%s'", key);
        return -EINVAL;
    }
    if (strcmp(name, rdma_verbs.name) != 0) {
        message_error("transport '%s': takes no parameters", name);
        return -EINVAL;
    }
    if (verbs_selection_set(&node->selection, key, value, why) == 0)
        return 0;
    message_error("transport verbs: %s", why);
    return -EINVAL;
}

static int verbs_check(const struct rdma_node *node)
{
    char why[VERBS_WHY_BYTES];
    int error;

    if (address_is_unix(&node->address)) {
        message_error("memory node %s: the verbs transport needs a HOST:PORT address",
                      node->address_text);
        return -EINVAL;
    }
    if (!verbs_device_exists()) {
        message_error("memory node %s: the verbs transport needs an RDMA device, and this host has "
                      "none (or use --transport ofi)",
                      node->address_text);
        return -ENODEV;
    }
    error = verbs_selection_check(&node->selection, why);
    if (error)
        message_error("transport verbs: %s", why);
    return error;
}

static int transport_check(struct rdma_node *node)
{
    int error = node->transport == &rdma_verbs ? verbs_check(node) : 0;

    if (error)
        return error;
    if (node->transport == &rdma_loopback && !address_is_unix(&node->address)) {
        message_error("memory node %s: the loopback transport needs a unix:PATH address",
                      node->address_text);
        return -EINVAL;
    }
    rdma_transport_describe(node);
    return 0;
}

void rdma_transport_describe(struct rdma_node *node)
{
    const struct loopback_network *network = &node->network;
    size_t room = sizeof(node->describe);
    size_t used = (size_t)snprintf(node->describe, room, "%s", node->transport->name);

    if (node->transport == &rdma_ofi)
        used += (size_t)snprintf(node->describe + used, room - used, "/tcp");
    if (!network->delay_ns && !network->jitter_ns && !network->bits_per_s)
        return;
    used += (size_t)snprintf(node->describe + used, room - used, " (simulated");
    if (network->delay_ns)
        used += (size_t)snprintf(node->describe + used, room - used, " delay=%lluns",
                                 (unsigned long long)network->delay_ns);
    if (network->jitter_ns)
        used += (size_t)snprintf(node->describe + used, room - used, " jitter=%lluns",
                                 (unsigned long long)network->jitter_ns);
    if (network->bits_per_s)
        used += (size_t)snprintf(node->describe + used, room - used, " bandwidth=%llubit/s",
                                 (unsigned long long)network->bits_per_s);
    snprintf(node->describe + used, room - used, ")");
}

int rdma_transport_parse(struct rdma_node *node, const char *text)
{
    char copy[128];
    char *rest = copy;
    char *name;
    int error;

    if ((size_t)snprintf(copy, sizeof(copy), "%s", text ? text : "auto") >= sizeof(copy)) {
        message_error("transport '%.32s...': too long", text);
        return -EINVAL;
    }
    name = strsep(&rest, ",");
    error = transport_choose(node, name);
    if (error)
        return error;
    while (rest) {
        char *value = strsep(&rest, ",");
        char *key = strsep(&value, "=");

        error = transport_parameter(node, name, key, value ? value : "");
        if (error)
            return error;
    }
    return transport_check(node);
}
