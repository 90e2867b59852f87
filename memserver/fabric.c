/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker process on libfabric: the endpoints that one-sided operations reach its tenant's memory
 * through. libfabric's tcp provider does the data in whichever process polls it; it was not written
 * for hostile peers, which is why it runs here, sandboxed, with one tenant's memory and a token
 * that only this tenant knows, and not in the supervisor. After traffic the loop spins for a short
 * bounded time, then sleeps.
 */
#include "memserver/fabric.h"

#include <errno.h>
#include <poll.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <stdlib.h>
#include <string.h>

#define SLEEP_MS 1000
#define SPIN_NS  50000ULL /* two round trips: the next demand read of a busy guest comes sooner */

static struct fabric fabric_state;

static int fabric_listen(struct fabric *fabric, const struct address *bind, uint16_t *port)
{
    struct fi_eq_attr eq_attr = {.wait_obj = FI_WAIT_FD};
    struct fi_cq_attr cq_attr = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD};
    struct sockaddr_storage name;
    size_t bytes = sizeof(name);
    int error = fabric_info_get(&fabric->info, bind, true, 256);

    if (!error)
        error = fabric_open(fabric->info->fabric_attr, &fabric->fabric);
    if (!error)
        error = fi_domain(fabric->fabric, fabric->info, &fabric->domain, NULL);
    if (!error)
        error = fi_eq_open(fabric->fabric, &eq_attr, &fabric->eq, NULL);
    if (!error)
        error = fi_cq_open(fabric->domain, &cq_attr, &fabric->cq, NULL);
    if (!error)
        error = fi_control(&fabric->eq->fid, FI_GETWAIT, &fabric->eq_fd);
    if (!error)
        error = fi_control(&fabric->cq->fid, FI_GETWAIT, &fabric->cq_fd);
    if (!error)
        error = fi_passive_ep(fabric->fabric, fabric->info, &fabric->listener, NULL);
    if (!error)
        error = fi_pep_bind(fabric->listener, &fabric->eq->fid, 0);
    if (!error)
        error = fi_listen(fabric->listener);
    if (!error)
        error = fi_getname(&fabric->listener->fid, &name, &bytes);
    if (!error)
        *port = ntohs(((struct sockaddr_in *)&name)->sin_port);
    return error;
}

static int fabric_worker_open(struct worker_message *start, uint8_t *base)
{
    memcpy(fabric_state.token, start->token, sizeof(fabric_state.token));
    fabric_state.base = base;
    fabric_state.regions = calloc(start->map_bytes / WIRE_SLAB_BYTES, sizeof(struct fid_mr *));
    if (!fabric_state.regions)
        return -ENOMEM;
    return fabric_listen(&fabric_state, &start->bind, &start->port);
}

/* Traffic came: was it worth spinning for, and is it worth spinning for the next? */
static void fabric_busy(struct fabric *fabric)
{
    if (fabric->spinning)
        spin_ended(&fabric->spin, true);
    fabric->spinning = spin_wanted(&fabric->spin);
    fabric->busy_ns = clock_now_ns();
}

/* True while a spin goes on; ends it when it took too long. */
static bool fabric_spins(struct fabric *fabric)
{
    if (fabric->answers_wait)
        return true;
    if (fabric->spinning && clock_now_ns() - fabric->busy_ns > SPIN_NS) {
        fabric->spinning = false;
        spin_ended(&fabric->spin, false);
    }
    return fabric->spinning;
}

/* One turn: sleeps unless there was traffic a moment ago. */
static int fabric_turn(bool *asked)
{
    struct fabric *fabric = &fabric_state;
    struct fid *waited[] = {&fabric->cq->fid, &fabric->eq->fid};
    struct pollfd descriptors[] = {{.fd = WORKER_CONTROL_FD, .events = POLLIN},
                                   {.fd = fabric->cq_fd, .events = POLLIN},
                                   {.fd = fabric->eq_fd, .events = POLLIN}};
    bool sleep = !fabric_spins(fabric) && fi_trywait(fabric->fabric, waited, 2) == FI_SUCCESS;

    if (poll(descriptors, 3, sleep ? SLEEP_MS : 0) < 0 && errno != EINTR)
        return -errno;
    if (descriptors[1].revents || !sleep)
        fabric_progress(fabric);
    if (descriptors[1].revents)
        fabric_busy(fabric);
    if (descriptors[2].revents)
        fabric_connections(fabric);
    *asked = descriptors[0].revents != 0;
    return 0;
}

static int fabric_map(struct wire_slab *slab)
{
    return fabric_slab_map(&fabric_state, slab);
}

static int fabric_unmap(uint64_t offset)
{
    return fabric_slab_unmap(&fabric_state, offset);
}

const struct worker_transport worker_fabric = {
    .open = fabric_worker_open,
    .map = fabric_map,
    .unmap = fabric_unmap,
    .turn = fabric_turn,
};
