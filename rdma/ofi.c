/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network transport on libfabric: each queue is one connected endpoint with a completion queue
 * of its own, so queues never wait for each other's locks, nor a demand read behind a write-back.
 * A write asks for FI_DELIVERY_COMPLETE: "sent" would not do, because a later read may come through
 * another queue, and so over another connection, and must see it. The provider has no thread: data
 * moves while somebody polls.
 */
#include "rdma/fabric_info.h"
#include "rdma/ofi_internal.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONNECT_LOOK_NS 100000L /* 0.1 ms between looks at a connection being made */
#define POLL_MAX        64u

struct ofi_node {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
};

static int ofi_setup_failed(struct rdma_node *node, const char *what, int error)
{
    message_error("memory node %s: cannot use libfabric's tcp provider: %s: %s", node->address_text,
                  what, fabric_strerror(-error));
    return error;
}

/* The worker listens on the address that we reached the server at; only its port is told. */
static void ofi_worker_address(const struct rdma_node *node, struct address *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->storage;

    memset(out, 0, sizeof(*out));
    if (address_is_unix(&node->address)) {
        v4->sin_family = AF_INET;
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        out->bytes = sizeof(*v4);
    } else {
        *out = node->address;
    }
    v4->sin_port = htons(node->ready.fabric_port); /* same place in sockaddr_in6 */
}

static int ofi_open(struct rdma_node *node, int passed_fd)
{
    struct ofi_node *ofi = calloc(1, sizeof(*ofi));
    struct address worker;
    int error;

    (void)passed_fd;
    if (!ofi)
        return ofi_setup_failed(node, "memory", -ENOMEM);
    node->private = ofi;
    ofi_worker_address(node, &worker);
    error = fabric_info_get(&ofi->info, &worker, false, QUEUE_DEPTH_MAX);
    if (error)
        return ofi_setup_failed(node, "fi_getinfo", error);
    error = fabric_open(ofi->info->fabric_attr, &ofi->fabric);
    if (error)
        return ofi_setup_failed(node, "fi_fabric", error);
    error = fi_domain(ofi->fabric, ofi->info, &ofi->domain, NULL);
    return error ? ofi_setup_failed(node, "fi_domain", error) : 0;
}

/* A missing library is reported by open, with its message. */
static void ofi_prepare(void)
{
    (void)fabric_library_load();
}

static void ofi_close(struct rdma_node *node)
{
    struct ofi_node *ofi = node->private;

    if (!ofi)
        return;
    if (ofi->domain)
        fi_close(&ofi->domain->fid);
    if (ofi->fabric)
        fi_close(&ofi->fabric->fid);
    if (ofi->info)
        fabric_info_free(ofi->info);
    free(ofi);
    node->private = NULL;
}

/* Why the connection was not made. */
static int ofi_connect_error(struct ofi_queue *ofi)
{
    struct fi_eq_err_entry entry = {0};

    if (fi_eq_readerr(ofi->eq, &entry, 0) < 0 || entry.err <= 0)
        return -ECONNREFUSED;
    return -entry.err;
}

static int ofi_connect_wait(struct rdma_node *node, struct ofi_queue *ofi)
{
    struct patience patience = rdma_patience(node);
    const struct timespec look = {.tv_nsec = CONNECT_LOOK_NS};

    for (;;) {
        struct fi_eq_cm_entry entry;
        uint32_t event;
        ssize_t got = fi_eq_read(ofi->eq, &event, &entry, sizeof(entry), 0);
        int error = rdma_node_error(node);

        if (error)
            return error;
        if (got > 0)
            return event == FI_CONNECTED ? 0 : -ECONNREFUSED;
        if (got == -FI_EAVAIL)
            return ofi_connect_error(ofi);
        if (got < 0 && got != -FI_EAGAIN)
            return (int)got;
        if (patience_spend(&patience))
            return -ETIMEDOUT;
        nanosleep(&look, NULL);
    }
}

static int ofi_endpoint_open(struct rdma_node *node, struct ofi_queue *ofi, uint32_t depth)
{
    struct ofi_node *shared = node->private;
    struct fi_eq_attr eq_attr = {.wait_obj = FI_WAIT_UNSPEC};
    struct fi_cq_attr cq_attr = {
        .size = depth, .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD};
    int error = fi_eq_open(shared->fabric, &eq_attr, &ofi->eq, NULL);

    if (!error)
        error = fi_cq_open(shared->domain, &cq_attr, &ofi->cq, NULL);
    if (!error)
        error = fi_control(&ofi->cq->fid, FI_GETWAIT, &ofi->wait_fd);
    if (!error)
        error = fi_endpoint(shared->domain, shared->info, &ofi->ep, NULL);
    if (!error)
        error = fi_ep_bind(ofi->ep, &ofi->eq->fid, 0);
    if (!error)
        error = fi_ep_bind(ofi->ep, &ofi->cq->fid, FI_TRANSMIT | FI_RECV);
    if (!error)
        error = fi_enable(ofi->ep);
    if (!error)
        error = fi_connect(ofi->ep, shared->info->dest_addr, node->ready.token,
                           sizeof(node->ready.token));
    return error;
}

static void ofi_queue_close(struct rdma_queue *queue)
{
    struct ofi_queue *ofi = queue->private;

    if (!ofi)
        return;
    if (ofi->ep)
        fi_close(&ofi->ep->fid);
    if (ofi->cq)
        fi_close(&ofi->cq->fid);
    if (ofi->eq)
        fi_close(&ofi->eq->fid);
    free(ofi->chains);
    free(ofi);
    queue->private = NULL;
}

static int ofi_queue_open(struct rdma_queue *queue)
{
    struct rdma_node *node = queue->node;
    struct ofi_queue *ofi = calloc(1, sizeof(*ofi));
    int error;

    if (!ofi)
        return -ENOMEM;
    queue->private = ofi;
    error = ofi_endpoint_open(node, ofi, queue->depth);
    if (!error)
        error = ofi_connect_wait(node, ofi);
    if (error) {
        rdma_queue_refused(node, error, fabric_strerror(-error));
        ofi_queue_close(queue);
    }
    return error;
}

static int ofi_write(struct ofi_queue *ofi, struct queue_slot *slot, uint64_t remote, uint64_t key)
{
    size_t bytes = rdma_request_bytes(&slot->request);
    struct iovec local = {slot->request.local, bytes};
    struct fi_rma_iov target = {.addr = remote, .len = bytes, .key = key};
    struct fi_msg_rma message = {
        .msg_iov = &local, .iov_count = 1, .rma_iov = &target, .rma_iov_count = 1, .context = slot};

    return (int)fi_writemsg(ofi->ep, &message, FI_COMPLETION | FI_DELIVERY_COMPLETE);
}

static int ofi_failed(struct rdma_queue *queue, ssize_t code)
{
    struct ofi_queue *ofi = queue->private;
    struct fi_cq_err_entry entry = {0};
    int error = (int)-code;

    if (code == -FI_EAVAIL && fi_cq_readerr(ofi->cq, &entry, 0) > 0)
        error = entry.err;
    rdma_node_fail(queue->node, -ECONNRESET, "a transfer failed: %s (did the server end?)",
                   fabric_strerror(error));
    return rdma_node_error(queue->node);
}

/* No room: only progress makes some, and the provider makes progress only when asked. */
static int ofi_busy(struct rdma_queue *queue)
{
    struct ofi_queue *ofi = queue->private;
    ssize_t got = fi_cq_read(ofi->cq, NULL, 0);

    return got < 0 && got != -FI_EAGAIN ? ofi_failed(queue, got) : 0;
}

static int ofi_post(struct rdma_queue *queue, uint32_t index, uint64_t remote, uint64_t key)
{
    struct ofi_queue *ofi = queue->private;
    struct queue_slot *slot = &queue->slots[index];
    size_t bytes = rdma_request_bytes(&slot->request);
    int error;

    if (slot->request.op == RDMA_READ)
        error = (int)fi_read(ofi->ep, slot->request.local, bytes, NULL, 0, remote, key, slot);
    else if (slot->request.op == RDMA_CHAIN)
        error = ofi_chain_post(queue, index);
    else
        error = ofi_write(ofi, slot, remote, key);
    if (error == 0)
        return 1;
    if (error == -FI_EAGAIN)
        return ofi_busy(queue);
    rdma_node_fail(queue->node, -ECONNRESET, "cannot start a transfer: %s",
                   fabric_strerror(-error));
    return rdma_node_error(queue->node);
}

static int ofi_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max)
{
    struct ofi_queue *ofi = queue->private;
    struct fi_cq_entry entries[POLL_MAX];
    ssize_t got = fi_cq_read(ofi->cq, entries, max < POLL_MAX ? max : POLL_MAX);

    if (got == -FI_EAGAIN)
        return 0;
    if (got < 0)
        return ofi_failed(queue, got);
    for (ssize_t i = 0; i < got; i++) {
        const struct queue_slot *slot = entries[i].op_context;
        int chain = ofi_chain_completed(queue, slot, &finished[i]);

        if (chain < 0)
            return chain;
        if (chain > 0)
            continue;
        finished[i].slot = (uint32_t)(slot - queue->slots);
        finished[i].status = 0;
    }
    return (int)got;
}

static void ofi_wait(struct rdma_queue *queue, uint64_t until_ns)
{
    struct ofi_node *shared = queue->node->private;
    struct ofi_queue *ofi = queue->private;
    struct fid *waited[] = {&ofi->cq->fid};
    struct pollfd descriptors[] = {{.fd = ofi->wait_fd, .events = POLLIN},
                                   {.fd = queue->node->event_fd, .events = POLLIN}};
    uint64_t now = clock_now_ns();
    struct timespec sleep;

    /* Not safe to sleep: something arrived between the last look and now. */
    if (until_ns <= now || fi_trywait(shared->fabric, waited, 1) != FI_SUCCESS)
        return;
    sleep.tv_sec = (time_t)((until_ns - now) / 1000000000);
    sleep.tv_nsec = (long)((until_ns - now) % 1000000000);
    ppoll(descriptors, 2, &sleep, NULL);
}

const struct rdma_transport rdma_ofi = {
    .name = "ofi",
    .wire = WIRE_OFI_TCP,
    .chains = true,
    /* A 4 KiB read takes about 20 us where both ends spin: sleeping sooner would triple that. */
    .spin_ns =
        {[RDMA_QUEUE_DEMAND] = 60000, [RDMA_QUEUE_PREFETCH] = 20000, [RDMA_QUEUE_WRITEBACK] = 5000},
    .prepare = ofi_prepare,
    .open = ofi_open,
    .close = ofi_close,
    .queue_open = ofi_queue_open,
    .queue_close = ofi_queue_close,
    .post = ofi_post,
    .poll = ofi_poll,
    .wait = ofi_wait,
};
