/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data side of a hostile memory server on libfabric: accepts one connection and answers the
 * chains asked for on it (rdma/chain_wire.h) with a lie. In a thread of the test.
 */
#ifndef FARVISOR_HOSTILE_FABRIC_H
#define FARVISOR_HOSTILE_FABRIC_H

#include "rdma/chain_wire.h"

#include <pthread.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <stdatomic.h>
#include <stdbool.h>

enum hostile_chains {
    HOSTILE_CHAIN_OF_ANOTHER_COOKIE, /* two asked for, answered together: the first one wrongly */
    HOSTILE_CHAIN_OF_MORE_NODES,     /* than were asked for */
    HOSTILE_CHAIN_OF_NO_MAGIC,
    HOSTILE_CHAIN_TWICE /* each answer comes twice */
};

struct hostile_fabric {
    enum hostile_chains lie;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_pep *listener;
    struct fid_ep *endpoint;
    struct chain_request requests[CHAIN_DEPTH];
    unsigned asked;
    atomic_uint answered; /* answers sent, lies or not */
    atomic_bool stopping;
    pthread_t thread;
    uint16_t port; /* of 127.0.0.1 */
};

/* Listens and starts the thread. */
void hostile_fabric_start(struct hostile_fabric *fabric, enum hostile_chains lie);
void hostile_fabric_stop(struct hostile_fabric *fabric);

#endif
