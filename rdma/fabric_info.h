/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both ends of the ofi transport need alike: libfabric itself, and the choice of provider and
 * address. The client's side is ofi.c, the tenant worker's memserver/fabric.c.
 *
 * libfabric is loaded when first needed, never linked: Debian's build pulls in libraries whose
 * constructors sleep for 0.2 s in all, which every `farvisor run` would pay, network or not. Most
 * of its interface is inline calls through tables; only these few functions are symbols.
 */
#ifndef FARVISOR_RDMA_FABRIC_INFO_H
#define FARVISOR_RDMA_FABRIC_INFO_H

#include "rdma/address.h"

#include <rdma/fabric.h>
#include <stdbool.h>
#include <stddef.h>

/* fabric_load.c: calls `start` in a thread of its own, where the providers' start is cheap. */
void fabric_start_quietly(void (*start)(void));

/* Loads and starts the library; later calls cost nothing. 0, or -ELIBACC: not installed or not fit.
 * The first one not while others use the environment. */
int fabric_library_load(void);

/*
 * fabric_info_get - the tcp provider's connected endpoints with one-sided operations.
 * listens: `address` is ours to bind to, else the peer's. depth: transfers in flight an endpoint.
 * Returns 0 with *info for fabric_info_free, or -errno.
 */
int fabric_info_get(struct fi_info **info, const struct address *address, bool listens,
                    size_t depth);
void fabric_info_free(struct fi_info *info);

int fabric_open(struct fi_fabric_attr *attribute, struct fid_fabric **out);
/* As fi_strerror, for positive libfabric and system error numbers. */
const char *fabric_strerror(int error);

#endif
