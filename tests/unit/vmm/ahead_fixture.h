/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of the program's: connections over loopback that an epoll set watches, and the areas of
 * two vCPUs, as the guest kernel sees them.
 */
#ifndef FARVISOR_AHEAD_FIXTURE_H
#define FARVISOR_AHEAD_FIXTURE_H

#include "tests/unit/vmm/hostio_fixture.h"

#define PEERS 4

extern struct fv_ahead area, other_area;
extern struct fv_sends sends_area, other_sends;
extern struct fv_vcpu page, other_page;
extern struct vcpu reader, other;
extern int set;            /* guest descriptors */
extern int served[PEERS];  /* likewise */
extern int clients[PEERS]; /* the other ends, host descriptors */

void ahead_setup(void);
void ahead_teardown(void);
struct io_aheads *aheads(void);
/* A connection that the program accepted; *client is its other end. Guest descriptor. */
int connection(int *client);
/* The same to a peer with little room to receive; 0: as usual. */
int connection_to(int *client, int receive_bytes);
void watch_in(int which, int fd);
/* The peer sends, and it has arrived. */
void say(unsigned peer, const char *what);
/* What the program's epoll_wait does: how many were told. */
int wait_as(struct vcpu *vcpu, int which);

static inline uint32_t next_random(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

#endif
