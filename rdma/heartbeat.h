/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a memory node that does not answer is lost: what the control thread (control.c) makes of
 * time, without its clock and its socket. One PING is out at a time; silence is counted while it
 * is, turn by turn, after whatever had come was taken.
 *
 * A turn on time comes half an interval after the one before, and counts for what passed. One that
 * comes later than an interval counts for an interval: that we got no processor, or were stopped,
 * is no proof of the peer's silence, and on a starved host it got none either. So a node is given
 * up after the limit by a thread that is on time, and by one that is late never in fewer turns than
 * the limit has intervals, which is three.
 */
#ifndef FARVISOR_RDMA_HEARTBEAT_H
#define FARVISOR_RDMA_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

#define HEARTBEAT_MIN_NS 2000000ULL    /* 2 ms */
#define HEARTBEAT_MAX_NS 1000000000ULL /* 1 s */

struct heartbeat {
    uint64_t interval_ns; /* between two PINGs */
    uint64_t limit_ns;    /* of silence */
    uint64_t looked_ns;   /* last turn */
    uint64_t pinged_ns;
    uint64_t quiet_ns; /* heard nothing for so long while a PING was out */
    uint64_t stamp;    /* of the last PING */
    bool waiting;      /* it is out */
};

enum heartbeat_turn { HEARTBEAT_GO_ON, HEARTBEAT_PING, HEARTBEAT_LOST };

/* For a peer that may keep us waiting for timeout_ns: with the PING's interval, that is the bound.
 */
static inline struct heartbeat heartbeat_begin(uint64_t timeout_ns, uint64_t now_ns)
{
    uint64_t quarter_ns = timeout_ns / 4;

    return (struct heartbeat){
        .interval_ns = quarter_ns < HEARTBEAT_MIN_NS   ? HEARTBEAT_MIN_NS
                       : quarter_ns > HEARTBEAT_MAX_NS ? HEARTBEAT_MAX_NS
                                                       : quarter_ns,
        .limit_ns = timeout_ns - quarter_ns,
        .looked_ns = now_ns,
    };
}

/* Anything that the peer says is a sign of life. */
static inline void heartbeat_heard(struct heartbeat *heartbeat)
{
    heartbeat->quiet_ns = 0;
}

/* False: that PING is not out. */
static inline bool heartbeat_pong(struct heartbeat *heartbeat, uint64_t stamp)
{
    bool asked = heartbeat->waiting && stamp == heartbeat->stamp;

    heartbeat->waiting = heartbeat->waiting && !asked;
    return asked;
}

/* HEARTBEAT_PING: one with heartbeat->stamp is to be sent now. */
static inline enum heartbeat_turn heartbeat_turn(struct heartbeat *heartbeat, uint64_t now_ns)
{
    uint64_t passed_ns = now_ns - heartbeat->looked_ns;

    heartbeat->looked_ns = now_ns;
    if (heartbeat->waiting) {
        heartbeat->quiet_ns +=
            passed_ns < heartbeat->interval_ns ? passed_ns : heartbeat->interval_ns;
        return heartbeat->quiet_ns >= heartbeat->limit_ns ? HEARTBEAT_LOST : HEARTBEAT_GO_ON;
    }
    if (now_ns - heartbeat->pinged_ns < heartbeat->interval_ns)
        return HEARTBEAT_GO_ON;
    heartbeat->stamp++;
    heartbeat->waiting = true;
    heartbeat->pinged_ns = now_ns;
    heartbeat->quiet_ns = 0;
    return HEARTBEAT_PING;
}

#endif
