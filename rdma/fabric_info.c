/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks libfabric for its tcp provider: connected (MSG) endpoints, offsets and keys chosen by the
 * server for remote memory, any local memory. Connected endpoints rather than datagram-like ones
 * (RDM), because then the client listens nowhere and each queue has a TCP connection of its own.
 * Source: fi_getinfo(3), fi_tcp(7), libfabric 1.17.
 */
#include "rdma/fabric_info.h"

#include <errno.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <stdlib.h>
#include <string.h>

static int info_hints(struct fi_info *hints, const struct address *address, bool listens,
                      size_t depth)
{
    void *name = malloc(address->bytes);

    hints->fabric_attr->prov_name = strdup("tcp");
    if (!name || !hints->fabric_attr->prov_name) {
        free(name);
        return -ENOMEM;
    }
    memcpy(name, &address->storage, address->bytes);
    hints->ep_attr->type = FI_EP_MSG;
    hints->caps = FI_MSG | FI_RMA;
    hints->addr_format = FI_SOCKADDR;
    hints->domain_attr->mr_mode = 0;
    hints->domain_attr->threading = FI_THREAD_SAFE;
    hints->tx_attr->size = depth;
    if (listens) {
        hints->src_addr = name;
        hints->src_addrlen = address->bytes;
    } else {
        hints->dest_addr = name;
        hints->dest_addrlen = address->bytes;
    }
    return 0;
}

int fabric_info_get(struct fi_info **info, const struct address *address, bool listens,
                    size_t depth)
{
    struct fi_info *hints = fi_allocinfo();
    /* Without this the first call probes every provider, RDMA hardware included. */
    bool filtered = setenv("FI_PROVIDER", "tcp", 0) == 0;
    int error = hints ? info_hints(hints, address, listens, depth) : -ENOMEM;

    if (!error)
        error = fi_getinfo(FI_VERSION(1, 17), NULL, NULL, listens ? FI_SOURCE : 0, hints, info);
    if (filtered)
        unsetenv("FI_PROVIDER");
    if (hints)
        fi_freeinfo(hints);
    return error;
}
