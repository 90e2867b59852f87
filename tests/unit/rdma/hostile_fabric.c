/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hostile server's data side: see its header. What it sends are well-formed messages of the
 * provider, so that they reach our code and not the provider's checks.
 */
#include "tests/unit/rdma/hostile_fabric.h"

#include "rdma/fabric_info.h"

#include <check.h>
#include <netinet/in.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_US 200 /* between two looks at the connection */

static void send_answer(struct hostile_fabric *fabric, const struct chain_request *request,
                        bool lies)
{
    struct chain_answer answer = {
        .magic = CHAIN_MAGIC, .node_bytes = request->node_bytes, .cookie = request->cookie};

    if (lies && fabric->lie == HOSTILE_CHAIN_OF_ANOTHER_COOKIE)
        answer.cookie += 7;
    if (lies && fabric->lie == HOSTILE_CHAIN_OF_MORE_NODES)
        answer.nodes = (uint16_t)(request->nodes + 1);
    if (lies && fabric->lie == HOSTILE_CHAIN_OF_NO_MAGIC)
        answer.magic = 0;
    /* The client may have hung up already: that is its right. */
    if (fi_inject(fabric->endpoint, &answer, offsetof(struct chain_answer, data), 0) == 0)
        atomic_fetch_add(&fabric->answered, 1);
}

/* A request came: into requests[asked], because the provider fills them in their order. */
static void asked(struct hostile_fabric *fabric)
{
    const struct chain_request *request = &fabric->requests[fabric->asked++];

    if (fabric->lie == HOSTILE_CHAIN_OF_ANOTHER_COOKIE) {
        if (fabric->asked != 2)
            return;
        send_answer(fabric, request - 1, true);
        send_answer(fabric, request, false);
        return;
    }
    send_answer(fabric, request, true);
    if (fabric->lie == HOSTILE_CHAIN_TWICE)
        send_answer(fabric, request, true);
}

static void accept_client(struct hostile_fabric *fabric)
{
    struct {
        struct fi_eq_cm_entry entry;
        uint8_t data[256]; /* the token, which nobody checks here */
    } event;
    uint32_t type;

    if (fi_eq_read(fabric->eq, &type, &event, sizeof(event), 0) < 0 || type != FI_CONNREQ ||
        fabric->endpoint)
        return;
    if (fi_endpoint(fabric->domain, event.entry.info, &fabric->endpoint, NULL) ||
        fi_ep_bind(fabric->endpoint, &fabric->eq->fid, 0) ||
        fi_ep_bind(fabric->endpoint, &fabric->cq->fid, FI_TRANSMIT | FI_RECV) ||
        fi_enable(fabric->endpoint) || fi_accept(fabric->endpoint, NULL, 0))
        abort();
    for (unsigned i = 0; i < CHAIN_DEPTH; i++)
        if (fi_recv(fabric->endpoint, &fabric->requests[i], sizeof(fabric->requests[i]), NULL, 0,
                    &fabric->requests[i]))
            abort();
    fabric_info_free(event.entry.info);
}

static void *serve(void *argument)
{
    struct hostile_fabric *fabric = argument;
    struct fi_cq_entry entry;

    while (!atomic_load(&fabric->stopping)) {
        accept_client(fabric);
        while (fi_cq_read(fabric->cq, &entry, 1) > 0)
            if (entry.op_context)
                asked(fabric);
        usleep(LOOK_US);
    }
    return NULL;
}

void hostile_fabric_start(struct hostile_fabric *fabric, enum hostile_chains lie)
{
    struct fi_eq_attr eq_attr = {.wait_obj = FI_WAIT_NONE};
    struct fi_cq_attr cq_attr = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE};
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct address any = {.bytes = sizeof(name)};
    size_t bytes = sizeof(name);

    memset(fabric, 0, sizeof(*fabric));
    fabric->lie = lie;
    memcpy(&any.storage, &name, sizeof(name));
    ck_assert_int_eq(fabric_info_get(&fabric->info, &any, true, 16), 0);
    ck_assert_int_eq(fabric_open(fabric->info->fabric_attr, &fabric->fabric), 0);
    ck_assert_int_eq(fi_domain(fabric->fabric, fabric->info, &fabric->domain, NULL), 0);
    ck_assert_int_eq(fi_eq_open(fabric->fabric, &eq_attr, &fabric->eq, NULL), 0);
    ck_assert_int_eq(fi_cq_open(fabric->domain, &cq_attr, &fabric->cq, NULL), 0);
    ck_assert_int_eq(fi_passive_ep(fabric->fabric, fabric->info, &fabric->listener, NULL), 0);
    ck_assert_int_eq(fi_pep_bind(fabric->listener, &fabric->eq->fid, 0), 0);
    ck_assert_int_eq(fi_listen(fabric->listener), 0);
    ck_assert_int_eq(fi_getname(&fabric->listener->fid, &name, &bytes), 0);
    fabric->port = ntohs(name.sin_port);
    ck_assert_int_eq(pthread_create(&fabric->thread, NULL, serve, fabric), 0);
}

void hostile_fabric_stop(struct hostile_fabric *fabric)
{
    atomic_store(&fabric->stopping, true);
    pthread_join(fabric->thread, NULL);
    if (fabric->endpoint)
        fi_close(&fabric->endpoint->fid);
    fi_close(&fabric->listener->fid);
    fi_close(&fabric->cq->fid);
    fi_close(&fabric->eq->fid);
    fi_close(&fabric->domain->fid);
    fi_close(&fabric->fabric->fid);
    fabric_info_free(fabric->info);
}
