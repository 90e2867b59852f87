/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libibverbs and librdmacm, loaded when the verbs transport is first wanted, never linked: a host
 * without RDMA needs neither, and nobody pays for their start who does not use them. What moves
 * data (post, poll, notify) are inline calls through the device's own table; these are the others.
 * Also what both ends need alike: which device faults mean what.
 */
#ifndef FARVISOR_RDMA_VERBS_LIBRARY_H
#define FARVISOR_RDMA_VERBS_LIBRARY_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>

#define VERBS_FUNCTIONS(X)                                                                         \
    X(ibv_alloc_pd)                                                                                \
    X(ibv_dealloc_pd)                                                                              \
    X(ibv_reg_mr_iova2)                                                                            \
    X(ibv_dereg_mr)                                                                                \
    X(ibv_create_comp_channel)                                                                     \
    X(ibv_destroy_comp_channel)                                                                    \
    X(ibv_create_cq)                                                                               \
    X(ibv_destroy_cq)                                                                              \
    X(ibv_get_cq_event)                                                                            \
    X(ibv_ack_cq_events)                                                                           \
    X(ibv_query_device)                                                                            \
    X(ibv_modify_qp)                                                                               \
    X(ibv_get_device_name)                                                                         \
    X(ibv_wc_status_str)
#define VERBS_CM_FUNCTIONS(X)                                                                      \
    X(rdma_create_event_channel)                                                                   \
    X(rdma_destroy_event_channel)                                                                  \
    X(rdma_create_id)                                                                              \
    X(rdma_destroy_id)                                                                             \
    X(rdma_bind_addr)                                                                              \
    X(rdma_listen)                                                                                 \
    X(rdma_get_src_port)                                                                           \
    X(rdma_resolve_addr)                                                                           \
    X(rdma_resolve_route)                                                                          \
    X(rdma_set_option)                                                                             \
    X(rdma_create_qp)                                                                              \
    X(rdma_destroy_qp)                                                                             \
    X(rdma_connect)                                                                                \
    X(rdma_accept)                                                                                 \
    X(rdma_reject)                                                                                 \
    X(rdma_get_cm_event)                                                                           \
    X(rdma_ack_cm_event)

#define VERBS_MEMBER(name) __typeof__(&name) name;
struct verbs_library {
    VERBS_FUNCTIONS(VERBS_MEMBER)
    VERBS_CM_FUNCTIONS(VERBS_MEMBER)
};
/* Filled once by verbs_library_load; not to be used before it returned 0. */
extern struct verbs_library verbs;

/* Loads both libraries; later calls cost nothing. 0, or -ELIBACC: not installed or not fit. */
int verbs_library_load(void);

/* Cheap, from sysfs: does this host have any RDMA device? */
bool verbs_device_exists(void);

/* What a work completion that failed means. */
struct verbs_fault {
    int error;        /* the node's error: -ECONNRESET or -ETIMEDOUT */
    const char *hint; /* likely cause, in few words; docs/errors.md has the rest */
};
const struct verbs_fault *verbs_fault_of(enum ibv_wc_status status);

/*
 * verbs_event_channel_open - a connection manager's event channel whose reads do not block.
 * Returns 0 or -errno (-ENODEV: the kernel has no rdma_ucm).
 */
int verbs_event_channel_open(struct rdma_event_channel **out);

#endif
