/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory server that misbehaves in one chosen way, on a unix socket, in a thread of the test.
 * Everything up to the chosen lie is what a real server does, so the lie reaches the code it is
 * meant for.
 */
#ifndef FARVISOR_HOSTILE_SERVER_H
#define FARVISOR_HOSTILE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum hostile_lie {
    /* before READY: rdma_node_connect must fail */
    HOSTILE_CLOSES_AT_ONCE,
    HOSTILE_SENDS_GARBAGE,
    HOSTILE_CLOSES_IN_A_MESSAGE,
    HOSTILE_IS_SILENT,
    HOSTILE_TRICKLES,
    HOSTILE_SPEAKS_ANOTHER_VERSION,
    HOSTILE_REFUSES_AS_FULL,
    HOSTILE_REFUSES_WITH_CONTROL_CHARACTERS,
    HOSTILE_GRANTS_LESS_QUOTA,
    HOSTILE_PASSES_NO_MEMORY,
    HOSTILE_PASSES_SHORT_MEMORY,
    HOSTILE_PASSES_SHRINKABLE_MEMORY,
    HOSTILE_CHANGES_THE_TRANSPORT,
    /* after READY: the node must end */
    HOSTILE_CLOSES_AFTER_READY,
    HOSTILE_SENDS_GARBAGE_AFTER_READY,
    HOSTILE_IS_SILENT_AFTER_READY,
    HOSTILE_SAYS_READY_TWICE,
    HOSTILE_ANSWERS_ANOTHER_PING,
    HOSTILE_GRANTS_UNASKED,
    /* after a reservation was asked for */
    HOSTILE_FORGETS_RESERVATIONS,
    HOSTILE_GRANTS_ANOTHER_SLAB,
    HOSTILE_GRANTS_MORE_SLABS,
    HOSTILE_GRANTS_OUTSIDE_THE_MAP,
    HOSTILE_GRANTS_UNALIGNED,
    HOSTILE_SAYS_ERROR_LATER,
    HOSTILE_END,
    /* none of these: the lies are those of the data connection */
    HOSTILE_FABRIC,
    /* answers PINGs when the test says so */
    HOSTILE_ANSWERS_PINGS_LATE,
    /* messages without end, as fast as they are taken: instead of READY, and after it */
    HOSTILE_FLOODS_BEFORE_READY,
    HOSTILE_FLOODS_AFTER_READY
};

struct hostile_server {
    enum hostile_lie lie;
    char folder[64], address[96];
    int listener;
    uint16_t fabric_port;           /* HOSTILE_FABRIC: of hostile_fabric.h */
    atomic_bool pinged, may_answer; /* HOSTILE_ANSWERS_PINGS_LATE: a PING came; the test says so */
    pthread_t thread;
};

/* Listens and starts the thread, which serves one connection. */
void hostile_server_start(struct hostile_server *server, enum hostile_lie lie);
void hostile_server_stop(struct hostile_server *server);

#endif
