/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant's worker process: holds that tenant's memory and the fabric endpoint that one-sided
 * operations reach it through. libfabric's tcp provider does the data in whichever process polls
 * it; it was not written for hostile peers, which is why it runs here, sandboxed, with one tenant's
 * memory and a token that only this tenant knows, and not in the supervisor. After traffic the
 * loop spins for a short bounded time, then sleeps.
 */
#include "memserver/fabric.h"

#include <errno.h>
#include <poll.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLEEP_MS 1000
#define SPIN_NS  50000ULL /* two round trips: the next demand read of a busy guest comes sooner */

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

/* Waits for the supervisor's first message. The connection's end is the supervisor's. */
static int fabric_receive(struct worker_message *message)
{
    struct pollfd waited = {.fd = WORKER_CONTROL_FD, .events = POLLIN};
    int got = worker_receive(WORKER_CONTROL_FD, message);

    while (got == 0) {
        if (poll(&waited, 1, -1) < 0 && errno != EINTR)
            return -errno;
        got = worker_receive(WORKER_CONTROL_FD, message);
    }
    return got < 0 ? got : 0;
}

static int fabric_setup(struct fabric *fabric, struct worker_message *start)
{
    int error = fabric_receive(start);

    if (error)
        return error;
    /* The supervisor may have died before the death signal was asked for. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if ((uint64_t)getppid() != start->parent)
        return -ECONNRESET;
    memcpy(fabric->token, start->token, sizeof(fabric->token));
    fabric->map_bytes = start->map_bytes;
    fabric->base = mmap(NULL, start->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        WORKER_MEMORY_FD, 0);
    if (fabric->base == MAP_FAILED)
        return -errno;
    fabric->regions = calloc(start->map_bytes / WIRE_SLAB_BYTES, sizeof(struct fid_mr *));
    if (!fabric->regions)
        return -ENOMEM;
    return fabric_listen(fabric, &start->bind, &start->port);
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
    if (fabric->spinning && clock_now_ns() - fabric->busy_ns > SPIN_NS) {
        fabric->spinning = false;
        spin_ended(&fabric->spin, false);
    }
    return fabric->spinning;
}

/* One turn: sleeps unless there was traffic a moment ago. */
static int fabric_turn(struct fabric *fabric)
{
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
    return descriptors[0].revents ? fabric_request(fabric) : 0;
}

int fabric_worker_main(void)
{
    static struct fabric fabric;
    struct worker_message start;
    int error;

    signal(SIGPIPE, SIG_IGN);
    error = fabric_setup(&fabric, &start);
    if (!error)
        error = sandbox_enter();
    start.status = error;
    if (worker_send(WORKER_CONTROL_FD, &start) < 0)
        return -ECONNRESET;
    while (!error)
        error = fabric_turn(&fabric);
    return error;
}
