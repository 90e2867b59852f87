/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a worker process on libfabric: its state, and what its loop (fabric.c) calls
 * (fabric_serve.c).
 */
#ifndef FARVISOR_MEMSERVER_FABRIC_H
#define FARVISOR_MEMSERVER_FABRIC_H

#include "memserver/chain.h"
#include "memserver/memserver.h"
#include "rdma/fabric_info.h"
#include "rdma/spin.h"

#include <netinet/in.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#define FABRIC_ENDPOINTS_MAX 1280 /* queues of one tenant: a few a vCPU */

struct fabric {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_pep *listener;
    struct fid_ep *endpoints[FABRIC_ENDPOINTS_MAX];
    struct fabric_chains *chains[FABRIC_ENDPOINTS_MAX]; /* of the endpoint at the same place */
    int endpoint_count;
    int eq_fd, cq_fd;
    uint8_t *base;
    struct fid_mr **regions; /* one a slab of the map, NULL where not granted */
    uint64_t busy_ns;        /* when traffic was last seen */
    bool spinning;
    bool answers_wait; /* an answer to a chain could not be sent yet */
    struct spin spin;
    uint8_t token[WIRE_TOKEN_BYTES];
};

void fabric_progress(struct fabric *fabric);    /* moves data, answers chains */
void fabric_connections(struct fabric *fabric); /* new and ended ones */
int fabric_slab_map(struct fabric *fabric, struct wire_slab *slab);
int fabric_slab_unmap(struct fabric *fabric, uint64_t offset);

#endif
