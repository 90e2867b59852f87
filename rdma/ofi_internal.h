/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the libfabric transport: ofi.c, ofi_chain.c. */
#ifndef FARVISOR_RDMA_OFI_INTERNAL_H
#define FARVISOR_RDMA_OFI_INTERNAL_H

#include "rdma/transport.h"

#include <rdma/fi_endpoint.h>

struct ofi_chains;

struct ofi_queue {
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_ep *ep;
    struct ofi_chains *chains; /* NULL until one was asked for */
    int wait_fd;
};

/* ---- ofi_chain.c ---- */
/* As rdma_transport.post, but 0 or a libfabric error: -FI_EAGAIN: full. */
int ofi_chain_post(struct rdma_queue *queue, uint32_t slot);
/* 1 and *finished filled in if this completion's context is a chain's; 0 if not; -errno: lost. */
int ofi_chain_completed(struct rdma_queue *queue, const void *context,
                        struct rdma_finished *finished);

#endif
