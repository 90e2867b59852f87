/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the verbs transport: one protection domain a node, one reliable connected queue pair
 * with a completion queue of its own a queue, so that a demand read waits behind nothing else.
 *
 *   verbs.c          the node: open, close
 *   verbs_buffers.c  registered memory
 *   verbs_thread.c   the thread that makes, watches and ends connections
 *   verbs_connect.c  one connection, by rdma_cm
 *   verbs_queue.c    transfers
 */
#ifndef FARVISOR_RDMA_VERBS_H
#define FARVISOR_RDMA_VERBS_H

#include "rdma/transport.h"
#include "rdma/verbs_library.h"
#include "rdma/verbs_wire.h"

/* Memory that requests may name: rdma_buffer_alloc. */
struct verbs_buffer {
    struct verbs_buffer *next;
    uintptr_t base;
    size_t bytes;
    struct ibv_mr *region; /* the chunk's */
    struct verbs_chunk *chunk;
};

/* One connection. */
struct verbs_link {
    struct rdma_cm_id *id;
    struct ibv_comp_channel *completions;
    struct ibv_cq *cq;
};

/* What the connection thread is asked for; lives with whoever asks. */
struct verbs_job {
    struct verbs_job *next;
    struct verbs_link *link;
    bool closes; /* else connects */
    uint16_t kind;
    uint32_t depth;
    const char *why; /* what failed */
    int error;
    bool done;
};

struct verbs_node {
    struct rdma_node *node;
    struct rdma_event_channel *events; /* the thread's, once it runs */
    struct ibv_pd *pd;                 /* on the device that the peer's address is reached by */
    /*
     * A connection that carries nothing. It proves at the start that data can get through (a
     * firewall that lets TCP pass may stop RoCE), settles the device that buffers are registered
     * with, and tells when the memory node's end goes.
     */
    struct verbs_link anchor;
    char why[VERBS_WHY_BYTES]; /* why the selection does not fit */
    int keeper_fd; /* or -1: keeps the device's files open for when we cannot wait: keeper.h */
    pthread_t thread;
    bool thread_runs, stopping;
    int wake_fd;
    pthread_mutex_t job_lock;
    pthread_cond_t job_done;
    struct verbs_job *jobs;
    pthread_mutex_t buffer_lock;
    struct verbs_buffer *buffers;
    struct verbs_chunk *chunks; /* what they are parts of */
    bool pages_told;
    atomic_uint buffers_changed; /* counts changes of the list */
    uint32_t depth_max;          /* of a queue pair, by the device */
    uint8_t reads_max;           /* READs that one queue pair may have under way */
};

struct verbs_queue {
    struct verbs_link link;
    bool armed; /* the completion channel tells of the next completion */
    unsigned events_unacknowledged;
    /* Counts of transfers since the start; position % limit is a place in the arrays. */
    uint64_t chained, handed_over, completed, reported;
    uint32_t limit; /* at most the queue's depth */
    struct ibv_send_wr *requests;
    struct ibv_sge *pieces;
    uint32_t *slots;
    /* The buffer last used, which is nearly always the next one's. */
    unsigned buffers_seen;
    uintptr_t base, end;
    uint32_t key;
};

/* verbs_thread.c */
int verbs_thread_start(struct rdma_node *node);
void verbs_thread_stop(struct verbs_node *shared);
/*
 * Once the node is lost, nothing of it is destroyed any more: that may keep a thread in the kernel,
 * where no bound reaches it. The keeper process holds the files, this one is about to end, and what
 * is left of the node's memory and registrations goes with them.
 */
bool verbs_abandoned(const struct verbs_node *shared);
/* Has a connection made; 0, or -errno with *why set. To be closed either way. */
int verbs_link_open(struct rdma_node *node, struct verbs_link *link, uint16_t kind, uint32_t depth,
                    const char **why);
void verbs_link_close(struct verbs_node *shared, struct verbs_link *link);

/*
 * verbs_connect.c: for the thread, or before there is one.
 *
 * verbs_connect - resolve, make a queue pair of `depth`, connect, all within the node's timeout.
 * The first call decides on the device and makes the protection domain.
 * Returns 0, or -errno with *why set to what failed; -ENODEV: the address is not reached by an RDMA
 * device. verbs_disconnect undoes it, also a failed one.
 */
int verbs_connect(struct rdma_node *node, struct verbs_link *link, uint16_t kind, uint32_t depth,
                  const char **why);
void verbs_disconnect(struct verbs_link *link);
/* Whether the address is reached by an RDMA device; bounded, quiet. */
int verbs_reaches(struct rdma_node *node);
/* Takes the events that nobody waits for; the end of a connection is the end of the node. */
void verbs_events_look(struct rdma_node *node);

/* verbs_buffers.c: rows of the operations table, and the end of what was not freed. */
int verbs_buffer_alloc(struct rdma_node *node, size_t bytes, void **out);
void verbs_buffer_free(struct rdma_node *node, void *base);
void verbs_buffers_close(struct rdma_node *node);

/* verbs_queue.c: rows of the operations table. */
int verbs_queue_open(struct rdma_queue *queue);
void verbs_queue_close(struct rdma_queue *queue);
int verbs_post(struct rdma_queue *queue, uint32_t slot, uint64_t remote, uint64_t key);
int verbs_flush(struct rdma_queue *queue);
int verbs_poll(struct rdma_queue *queue, struct rdma_finished *finished, uint32_t max);
void verbs_wait(struct rdma_queue *queue, uint64_t until_ns);

#endif
