/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both ends of the ofi transport set up alike in libfabric: the choice of provider and of an
 * address. The client's side is ofi.c, the tenant worker's memserver/fabric.c.
 */
#ifndef FARVISOR_RDMA_FABRIC_INFO_H
#define FARVISOR_RDMA_FABRIC_INFO_H

#include "rdma/address.h"

#include <rdma/fabric.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * fabric_info_get - the tcp provider's connected endpoints with one-sided operations.
 * listens: `address` is ours to bind to, else the peer's. depth: transfers in flight an endpoint.
 * Returns 0 with *info for fi_freeinfo, or -errno. Not while other threads use the environment.
 */
int fabric_info_get(struct fi_info **info, const struct address *address, bool listens,
                    size_t depth);

#endif
