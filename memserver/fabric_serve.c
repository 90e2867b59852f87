/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker does for its tenant: accepts the tenant's connections (and only them: each brings
 * the token), moves data, and makes slabs reachable or unreachable. A slab's key is random and
 * dies with it, so a stale or guessed key ends the connection that used it and reaches nothing.
 */
#include "memserver/fabric.h"

#include <errno.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <string.h>
#include <sys/random.h>

#define KEY_TRIES 8 /* random 64-bit keys do not collide twice by accident */

void fabric_progress(struct fabric *fabric)
{
    struct fi_cq_entry entries[16];
    struct fi_cq_err_entry failed = {0};
    ssize_t got;

    do {
        got = fi_cq_read(fabric->cq, entries, 16);
        for (ssize_t i = 0; i < got; i++)
            if (entries[i].op_context)
                fabric->answers_wait |= fabric_chains_completed(entries[i].op_context);
        if (got == -FI_EAVAIL)
            got = fi_cq_readerr(fabric->cq, &failed, 0);
    } while (got > 0);
    if (!fabric->answers_wait)
        return;
    fabric->answers_wait = false;
    for (int i = 0; i < fabric->endpoint_count; i++)
        fabric->answers_wait |= fabric_chains_retry(fabric->chains[i]);
}

static void fabric_accept(struct fabric *fabric, struct fi_info *info)
{
    struct fid_ep *endpoint = NULL;
    int error = fi_endpoint(fabric->domain, info, &endpoint, NULL);

    if (!error)
        error = fi_ep_bind(endpoint, &fabric->eq->fid, 0);
    if (!error)
        error = fi_ep_bind(endpoint, &fabric->cq->fid, FI_TRANSMIT | FI_RECV);
    if (!error)
        error = fi_enable(endpoint);
    if (!error)
        error = fi_accept(endpoint, NULL, 0);
    if (!error) {
        fabric->chains[fabric->endpoint_count] = fabric_chains_open(endpoint);
        fabric->endpoints[fabric->endpoint_count++] = endpoint;
    } else if (endpoint) {
        fi_close(&endpoint->fid);
    }
}

static void fabric_drop(struct fabric *fabric, const struct fid *fid)
{
    for (int i = 0; i < fabric->endpoint_count; i++) {
        if (&fabric->endpoints[i]->fid != fid)
            continue;
        struct fabric_chains *chains = fabric->chains[i];

        /* No completion may be left that names its slots: what came before the end is taken while
         * they are there, what the end itself brings comes as errors. */
        fabric_progress(fabric);
        fi_close(&fabric->endpoints[i]->fid);
        fabric->endpoints[i] = fabric->endpoints[--fabric->endpoint_count];
        fabric->chains[i] = fabric->chains[fabric->endpoint_count];
        fabric_progress(fabric);
        fabric_chains_free(chains);
        return;
    }
}

void fabric_connections(struct fabric *fabric)
{
    struct {
        struct fi_eq_cm_entry entry;
        uint8_t data[256]; /* the most the provider passes on */
    } event;
    struct fi_eq_err_entry failed = {0};
    uint32_t type;
    ssize_t got;

    while ((got = fi_eq_read(fabric->eq, &type, &event, sizeof(event), 0)) != -FI_EAGAIN) {
        if (got == -FI_EAVAIL) {
            if (fi_eq_readerr(fabric->eq, &failed, 0) > 0 && failed.fid)
                fabric_drop(fabric, failed.fid);
            continue;
        }
        if (got < 0)
            return;
        if (type == FI_SHUTDOWN) {
            fabric_drop(fabric, event.entry.fid);
        } else if (type == FI_CONNREQ) {
            bool known = (size_t)got == sizeof(event.entry) + WIRE_TOKEN_BYTES &&
                         worker_token_matches(fabric->token, event.data);

            if (known && fabric->endpoint_count < FABRIC_ENDPOINTS_MAX)
                fabric_accept(fabric, event.entry.info);
            else
                fi_reject(fabric->listener, event.entry.info->handle, NULL, 0);
            fabric_info_free(event.entry.info);
        }
    }
}

int fabric_slab_map(struct fabric *fabric, struct wire_slab *slab)
{
    struct fid_mr *region = NULL;
    uint64_t index = slab->remote / WIRE_SLAB_BYTES;
    int error = -EINVAL;

    if (fabric->regions[index])
        return error;
    for (int i = 0; i < KEY_TRIES && !region; i++) {
        if (getrandom(&slab->key, sizeof(slab->key), 0) != (ssize_t)sizeof(slab->key))
            return -EIO;
        error = fi_mr_reg(fabric->domain, fabric->base + slab->remote, WIRE_SLAB_BYTES,
                          FI_REMOTE_READ | FI_REMOTE_WRITE, 0, slab->key, 0, &region, NULL);
    }
    if (error)
        return error;
    fabric->regions[index] = region;
    /* The provider addresses a region by offset from its start. */
    slab->remote = 0;
    return 0;
}

int fabric_slab_unmap(struct fabric *fabric, uint64_t offset)
{
    uint64_t index = offset / WIRE_SLAB_BYTES;

    if (!fabric->regions[index])
        return -EINVAL;
    fi_close(&fabric->regions[index]->fid);
    fabric->regions[index] = NULL;
    return 0;
}
