/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of rdma/: what a node and a queue are, and the table of operations that a transport
 * (loopback.c, ofi.c, verbs*.c) fills in. The shared code checks requests, counts, spins, sleeps,
 * bounds every wait and ends the node; a transport only moves bytes and reports.
 */
#ifndef FARVISOR_RDMA_TRANSPORT_H
#define FARVISOR_RDMA_TRANSPORT_H

#include "rdma/address.h"
#include "rdma/channel.h"
#include "rdma/rdma.h"
#include "rdma/spin.h"
#include "rdma/verbs_select.h"
#include "rdma/wire.h"
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>

#define QUEUE_DEPTH_MAX  1024u
#define NODE_AHEAD_SLABS 4u

/* Where a slab lives on the node. `place` is 0, or the slab-aligned remote address with flags. */
#define SLAB_GRANTED 1ULL /* the node holds memory for it, asked ahead of need */
#define SLAB_CLAIMED 2ULL /* ... and rdma_reserve was told so */
#define SLAB_FLAGS   3ULL
struct slab_entry {
    _Atomic uint64_t place;
    _Atomic uint64_t key; /* written before place is published */
};

/* Simulated network of the loopback transport, delay_ns also of ofi; all 0: none. */
struct loopback_network {
    uint64_t delay_ns, jitter_ns, bits_per_s;
};

struct rdma_finished {
    uint32_t slot;
    int status;
};

struct rdma_transport {
    const char *name;
    enum wire_transport wire;
    bool needs_buffer;
    bool chains;           /* takes RDMA_CHAIN */
    uint64_t spin_ns[3];   /* by enum rdma_queue_kind: how long polling beats sleeping */
    void (*prepare)(void); /* NULL: nothing; called while the server prepares too */
    /* For "auto": can the node's address be reached by it? Bounded, quiet, leaves nothing. */
    bool (*usable)(struct rdma_node *node);
    /* After READY; passed_fd (or -1) stays the caller's. 0 or -errno after rdma_node_explain. */
    int (*open)(struct rdma_node *node, int passed_fd);
    void (*close)(struct rdma_node *node); /* undoes open, also a failed one */
    /* Zeroed memory that requests may name, page aligned; NULL: any will do. 0 or -errno, after a
     * message if it is the device that refused. */
    int (*buffer_alloc)(struct rdma_node *node, size_t bytes, void **out);
    void (*buffer_free)(struct rdma_node *node, void *base);
    int (*queue_open)(struct rdma_queue *queue);
    void (*queue_close)(struct rdma_queue *queue);
    /* One checked request in `slot`; 1 taken, 0 full, -errno. */
    int (*post)(struct rdma_queue *queue, uint32_t slot, uint64_t remote, uint64_t key);
    /* Ends a run of posts. NULL: each was started by post; 0 or -errno: the node is lost. */
    int (*flush)(struct rdma_queue *queue);
    /* Fills finished[]; returns how many, without waiting; or -errno: the node is lost. */
    int (*poll)(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max);
    /* Sleeps until something may have finished, the node is lost, or about `until_ns`. */
    void (*wait)(struct rdma_queue *queue, uint64_t until_ns);
};

struct rdma_node {
    const struct rdma_transport *transport;
    const struct rdma_transport *fallback; /* "auto": tried when transport cannot be; or NULL */
    void *private;                         /* the transport's */
    char address_text[ADDRESS_TEXT_BYTES];
    char describe[128];
    struct address address;
    uint64_t span_pages, quota_bytes, timeout_ns;
    uint64_t quota_least_bytes; /* what the server must grant at least */
    struct loopback_network network;
    struct verbs_selection selection;
    struct wire_ready ready;

    atomic_int error;
    int event_fd; /* readable once error is set; never read */

    struct slab_entry *slabs; /* slab_count of them, pages of the table appear when touched */
    uint64_t slab_count;
    uint64_t ahead[NODE_AHEAD_SLABS]; /* GRANTED but not CLAIMED; under lock */
    uint32_t ahead_count;
    uint64_t last_reserved; /* slab after the last one asked for: tells a sequential tenant */
    bool full_told;

    pthread_mutex_t lock; /* the channel and everything below */
    pthread_cond_t changed;
    struct channel channel;
    pthread_t thread;
    bool thread_runs, stopping;
    int wake_fd;    /* eventfd: the control thread looks again */
    bool claiming;  /* one thread at a time talks about slabs */
    bool reserving; /* its RESERVE is out */
    bool reserve_answered;
    struct wire_reserved reserve_answer;
    uint64_t reserve_first;
    uint32_t reserve_count;

    _Atomic uint64_t read_bytes, write_bytes, reads, writes, slabs_held, slabs_peak;
};

/* A request in flight. */
struct queue_slot {
    struct rdma_request request;
    uint64_t due_ns; /* loopback: when it becomes visible */
    uint64_t remote; /* address on the node */
    uint64_t turn;   /* order of posting */
    uint32_t next_free;
    bool busy;
};

struct rdma_queue {
    struct rdma_node *node;
    enum rdma_queue_kind kind;
    uint32_t depth, in_flight, free_slot;
    uint64_t turn;
    uint64_t looked_ns; /* last poll that found nothing */
    uint64_t stall_ns;  /* polled so long in vain; a stopped process does not count */
    struct spin spin;
    uint64_t link_free_ns;
    uint64_t random;
    struct delay_line *delay; /* NULL: none is simulated here */
    void *private;            /* the transport's */
    struct queue_slot slots[];
};

extern const struct rdma_transport rdma_loopback;
extern const struct rdma_transport rdma_ofi;
extern const struct rdma_transport rdma_verbs;

/* node.c: ends the node. The first call wins and prints "memory node ADDRESS: " and the text. */
void rdma_node_fail(struct rdma_node *node, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Why a queue could not be opened, in one message. A node that does not answer within the timeout
 * is lost, as anywhere; one that is lost already has said so.
 */
void rdma_queue_refused(struct rdma_node *node, int error, const char *why);

/* Why connecting failed: an error, or while there is a fallback a word under --verbose. */
void rdma_node_explain(const struct rdma_node *node, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* transport.c: "auto", "loopback,delay=20us", ... 0 or -errno after one message. */
int rdma_transport_parse(struct rdma_node *node, const char *text);
/* Fills node->describe from its transport. */
void rdma_transport_describe(struct rdma_node *node);

/* delay.c: a simulated delay for transports that reach a network (loopback has its own). */
int rdma_delay_create(struct rdma_queue *queue);
void rdma_delay_destroy(struct rdma_queue *queue);
/* As rdma_transport.poll, of what arrived at least the delay ago. */
int rdma_delay_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max);
/* As rdma_transport.wait. */
void rdma_delay_wait(struct rdma_queue *queue, uint64_t until_ns);

/* connect.c: socket, HELLO, READY. 0 or -errno after one message. */
int rdma_node_greet(struct rdma_node *node, const char *name);

/* control.c: the thread that keeps the control connection. */
int rdma_control_start(struct rdma_node *node);
void rdma_control_stop(struct rdma_node *node);
/* For the whole of one wait for the server. */
struct patience rdma_patience(const struct rdma_node *node);
/*
 * With node->lock held: waits for node->changed, a slice at most. 0, -ETIMEDOUT (the end of
 * patience; what was waited for may have come all the same) or the node's error.
 */
int rdma_control_wait(struct rdma_node *node, struct patience *patience);
/* With node->lock held: sends, waiting for room in the bounded buffer. 0 or -errno. */
int rdma_control_send(struct rdma_node *node, const union wire_message *message);

#endif
