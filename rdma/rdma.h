/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far memory as the paging engine sees it: a memory node holding a sparse array of 4 KiB pages that
 * belong to this tenant alone, read and written with one-sided operations through queues.
 *
 * A node is shared by all threads; a queue belongs to one thread at a time. Every wait is bounded:
 * a peer that is late, dead or lying ends in an error code and one message, never in a hang. Knows
 * nothing of page states or guests.
 */
#ifndef FARVISOR_RDMA_H
#define FARVISOR_RDMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RDMA_PAGE_BYTES 4096u
#define RDMA_SLAB_PAGES 512u /* allocation unit on the node: 2 MiB, aligned in page numbers */

struct rdma_node;
struct rdma_queue;

struct rdma_config {
    const char *transport; /* "auto", "loopback", "ofi", "verbs"; with ",key=value" parameters for
                            * loopback: delay= jitter= (ns/us/ms suffix) bandwidth= (bits/s, K/M/G);
                            * for ofi: delay=; for verbs: device= port= gid= */
    const char *address;   /* "HOST:PORT", "[V6]:PORT", "unix:PATH"; never NULL here */
    const char *name;      /* shown by `memserver --status`; NULL: none */
    uint64_t quota_bytes;  /* far memory this tenant must be able to ask for */
    uint64_t quota_wish_bytes; /* more that it would like to; halved until the node agrees */
    uint64_t span_pages;       /* page numbers used are < span_pages */
    uint64_t timeout_ns;       /* longest a peer may keep us waiting */
};

enum rdma_queue_kind { RDMA_QUEUE_DEMAND, RDMA_QUEUE_PREFETCH, RDMA_QUEUE_WRITEBACK };
enum rdma_op { RDMA_READ, RDMA_WRITE, RDMA_CHAIN };

/*
 * One transfer within one slab: either `pages` whole pages, or `bytes` bytes from `offset_bytes` of
 * the first page on (any alignment, pages = 0), as a guide's look into a page needs it.
 *
 * RDMA_CHAIN, where rdma_chains says so: the memory node itself reads `chain_nodes` nodes of
 * `bytes` bytes, the first one at the place named, each next one at the address (page number *
 * RDMA_PAGE_BYTES + offset) that is `chain_next` bytes into the one before. They come one after the
 * other to `local`, which has room for all of them; *chain_got says how many. The chain's end, 0,
 * and whatever was never reserved end it.
 */
struct rdma_request {
    enum rdma_op op;
    uint32_t pages;
    uint64_t page;         /* first remote page number */
    void *local;           /* page aligned for whole pages; stays valid until completion */
    uint64_t cookie;       /* handed back */
    uint32_t offset_bytes; /* < RDMA_PAGE_BYTES; 0 for whole pages */
    uint32_t bytes;        /* 0: whole pages */
    /* RDMA_CHAIN only */
    uint32_t chain_nodes, chain_next;
    uint32_t *chain_got;
};

#define RDMA_CHAIN_NODES_MAX      64u
#define RDMA_CHAIN_NODE_MAX_BYTES 256u

/* How much a checked request moves. */
static inline size_t rdma_request_bytes(const struct rdma_request *request)
{
    return request->bytes ? request->bytes : (size_t)request->pages * RDMA_PAGE_BYTES;
}

struct rdma_completion {
    uint64_t cookie;
    int status; /* 0 or -errno: -EIO transfer failed, -ETIMEDOUT, -ECONNRESET node lost */
};

struct rdma_counters {
    uint64_t read_bytes, write_bytes, reads, writes, slabs_held, slabs_peak;
};

/*
 * rdma_node_connect - attach to a memory node as a new tenant.
 * Returns 0, or -errno after printing one message: -EINVAL bad address or transport, -ECONNREFUSED,
 * -ETIMEDOUT, -EPROTO not a memory server or another version, -ENOSPC quota over capacity, -EBUSY
 * it takes no more tenants, -EOPNOTSUPP it does not serve that transport, -EIO its worker failed,
 * or what the transport failed with.
 */
int rdma_node_connect(struct rdma_node **out, const struct rdma_config *config);
void rdma_node_destroy(
    struct rdma_node *node); /* accepts NULL; frees the tenant's memory on the node */

/* "loopback", "ofi/tcp", ...: with simulated delays named. Valid while the node lives. */
const char *rdma_node_describe(const struct rdma_node *node);

/* 0 while healthy, else the -errno that ended it. Sticky, any thread, a relaxed load. */
int rdma_node_error(const struct rdma_node *node);

/* File descriptor that becomes readable when the node is lost (for the VMM's watchdog), or -1. */
int rdma_node_event_fd(const struct rdma_node *node);
void rdma_node_counters(struct rdma_node *node, struct rdma_counters *out);

#define RDMA_BUFFER_MAX_BYTES (1ULL << 40)
/*
 * rdma_buffer_alloc - memory that every transport can transfer from and to without a copy.
 * True from rdma_needs_buffer means only such memory may be a request's `local`.
 */
int rdma_buffer_alloc(struct rdma_node *node, size_t bytes, void **out);
void rdma_buffer_free(struct rdma_node *node, void *buffer, size_t bytes);
bool rdma_needs_buffer(const struct rdma_node *node);

/* May RDMA_CHAIN be asked of this node? A few a queue at a time; a queue says when it is full. */
bool rdma_chains(const struct rdma_node *node);

/*
 * rdma_reserve - make sure remote memory exists for pages [page, page + pages). Idempotent; costs a
 * round trip a new slab, amortised by asking ahead. New memory reads as zero. Any thread.
 * Returns 0, -ENOSPC (node or quota full; message printed once), -ETIMEDOUT, -ECONNRESET.
 */
int rdma_reserve(struct rdma_node *node, uint64_t page, uint64_t pages);

/*
 * rdma_release_slab - the whole slab starting at `page` holds nothing any more; its memory goes
 * back. No transfer to the slab may be in flight. Asynchronous and bounded; any thread.
 */
int rdma_release_slab(struct rdma_node *node, uint64_t page);

/*
 * rdma_queue_create - one connection of its own to the node. 0 or -errno: -ENOMEM, else after one
 * message. May wait for the node's timeout; a node that did not answer by then is lost.
 */
int rdma_queue_create(struct rdma_node *node, enum rdma_queue_kind kind, uint32_t depth,
                      struct rdma_queue **out);
void rdma_queue_destroy(struct rdma_queue *queue); /* accepts NULL */

/*
 * rdma_queue_post - start transfers, in order of posting, completing in any order.
 * Returns how many were taken (fewer than `count` when the queue is full), or -errno. A page that
 * was never reserved is -EFAULT. With nothing in flight at least one is taken, which may wait for
 * the node's timeout, except on a prefetch queue.
 */
int rdma_queue_post(struct rdma_queue *queue, const struct rdma_request *requests, uint32_t count);

/*
 * rdma_queue_poll - collect completions: spins for a short bounded time, then sleeps.
 * timeout_ns 0 only looks. Returns how many (0: none in time), or -errno when the node is lost.
 */
int rdma_queue_poll(struct rdma_queue *queue, struct rdma_completion *out, uint32_t max,
                    uint64_t timeout_ns);

#endif
