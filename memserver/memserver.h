/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map of the memory node's server. One supervisor process serves every control connection from one
 * epoll loop (server.c, tenant.c) and owns all memory accounting (slabs.c). A tenant that uses a
 * network has a worker process of its own (worker.c starts it, process.c is it, with fabric.c for
 * libfabric or verbs.c for RDMA), which holds the tenant's memory and connections and nothing of
 * anybody else: what a hostile tenant can break is its own worker. A tenant on this host maps its
 * memory file itself and has none.
 */
#ifndef FARVISOR_MEMSERVER_H
#define FARVISOR_MEMSERVER_H

#include "rdma/address.h"
#include "rdma/channel.h"
#include "rdma/verbs_select.h"
#include "rdma/wire.h"
#include "support.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SERVER_LISTEN_MAX      16
#define SERVER_DEFAULT_ADDRESS "127.0.0.1:7470"
#define SERVER_FAILURE_STATUS  125

/* ---- options.c ---- */
struct server_config {
    const char *listen[SERVER_LISTEN_MAX];
    int listen_count;
    const char *status_address; /* ask a running server, do not serve */
    bool json, help, version;
    bool quiet, verbose;
    bool hugepages;
    bool exit_with_parent;
    uint64_t capacity_bytes; /* 0: three quarters of the memory available at the start */
    uint64_t quota_bytes;    /* most for one tenant; 0: capacity */
    uint64_t grace_ns;
    uint32_t tenants_max;
    struct verbs_selection rdma; /* all zero: any device */
    int ready_fd;                /* -1: none */
};

extern const struct option_spec server_options[];
/* Returns 0 or -EINVAL after the usage error. */
int server_config_parse(struct server_config *config, int argc, char **argv);

/* ---- slab_table.c: slab number -> place; in the supervisor, and in each worker ---- */
struct slab_table {
    struct slab_pair *pairs;
    uint64_t key[2];    /* of the hash; secret, drawn with the first pair */
    unsigned pair_bits; /* 1 << this many pairs, where there are any */
    uint64_t held_slabs;
};
/* A number below UINT64_MAX; one that is there moves. 0, -ENOMEM, or getrandom's error. */
int slab_table_put(struct slab_table *table, uint64_t slab, uint64_t index);
/* 0 or -ENOENT. */
int slab_table_find(const struct slab_table *table, uint64_t slab, uint64_t *index);
void slab_table_remove(struct slab_table *table, uint64_t slab);
void slab_table_free(struct slab_table *table);

/* ---- slabs.c: accounting of memory; whole slabs, no locks ---- */
struct slab_pool {
    uint64_t capacity_slabs, used_slabs;
};
/* One tenant's slabs: number <-> place in its memory file. */
struct slab_map {
    uint64_t quota_slabs;
    struct slab_table table;
    uint64_t *free_indices; /* released ones, used again first */
    uint64_t free_count, free_room;
    uint64_t fresh_index; /* never used from here on */
};
void slab_map_init(struct slab_map *map, uint64_t quota_slabs);
void slab_map_destroy(struct slab_map *map, struct slab_pool *pool);
/* 0, -EEXIST, -EDQUOT (quota), -ENOSPC (capacity), -ENOMEM. */
int slab_map_add(struct slab_map *map, struct slab_pool *pool, uint64_t slab, uint64_t *index);
/* 0 or -ENOENT. */
int slab_map_find(const struct slab_map *map, uint64_t slab, uint64_t *index);
void slab_map_remove(struct slab_map *map, struct slab_pool *pool, uint64_t slab);
/* Huge pages that could be had now, in slabs; for the check at the start. */
uint64_t slab_huge_available(void);
uint64_t slab_memory_available_bytes(void);

/* ---- worker.c: the supervisor's side of a tenant's worker process ---- */
enum worker_type {
    WORKER_START = 1, /* -> port, or status */
    WORKER_MAP,       /* slabs[].remote = offsets -> slabs[].key */
    WORKER_UNMAP,     /* slabs[] -> memory of them is freed */
    WORKER_PING,
};
/* One datagram either way; an answer repeats the type. The supervisor checks it like a peer's. */
struct worker_message {
    uint32_t type; /* enum worker_type */
    /* IN */
    uint32_t count;
    uint32_t transport; /* enum wire_transport */
    uint64_t stamp, map_bytes, parent;
    struct address bind;
    uint64_t span_pages; /* START: the tenant's page numbers are below */
    uint64_t first_slab; /* MAP, UNMAP: the tenant's number of slabs[0]; the others follow */
    struct verbs_selection rdma;
    uint8_t token[WIRE_TOKEN_BYTES];
    struct wire_slab slabs[WIRE_SLABS_MAX];
    /* OUT */
    int32_t status;
    uint16_t port;
};
/* Starts the process with the memory file; *fd is its control socket. 0 or -errno. */
int worker_spawn(pid_t *pid, int *fd, int memory_fd);
int worker_send(int fd, const struct worker_message *message);
/* 1 got one, 0 nothing there, -errno: worker gone or broken. */
int worker_receive(int fd, struct worker_message *message);

/* ---- process.c, sandbox.c: the worker process itself ---- */
#define WORKER_CONTROL_FD 3
#define WORKER_MEMORY_FD  4
#define WORKER_ARGUMENT   "--internal-worker"
int worker_process_main(void);
int sandbox_enter(void);

/* What a network is to the worker; fabric.c and verbs.c fill one in. */
struct worker_transport {
    /* Listens on start->bind and fills start->port in; `base` is the tenant's memory. */
    int (*open)(struct worker_message *start, uint8_t *base);
    /* Makes the slab at offset slab->remote reachable; the slab then says where and by which key.
     */
    int (*map)(struct wire_slab *slab);
    /* Its key works no more when this returns. */
    int (*unmap)(uint64_t offset);
    /* Sleeps until there is something to do, does what is the network's; *asked: the supervisor
     * wants something. 0 or -errno: the worker ends. */
    int (*turn)(bool *asked);
};
extern const struct worker_transport worker_fabric;
extern const struct worker_transport worker_verbs;
bool worker_token_matches(const uint8_t *ours, const uint8_t *theirs);

/* ---- tenant.c, report.c ---- */
struct server;
enum source_kind { SOURCE_LISTENER, SOURCE_SIGNAL, SOURCE_PARENT, SOURCE_PEER, SOURCE_WORKER };
struct source { /* what an epoll event points to */
    enum source_kind kind;
    int fd;
};
enum tenant_state {
    TENANT_GREETING, /* connected; must say HELLO or STATUS soon */
    TENANT_READY,
    TENANT_BUSY, /* its worker was asked something; its messages wait */
    TENANT_LEAVING,
};
struct tenant {
    struct source peer, worker; /* epoll sources; each has `tenant` found by server */
    struct tenant *next;
    struct server *server;
    enum tenant_state state;
    bool admitted;  /* counts as a tenant */
    bool starting;  /* its worker is */
    bool more;      /* has read bytes that were not looked at yet */
    uint32_t asked; /* BUSY: what its worker was, enum worker_type */
    uint64_t number, came_ns, heard_ns;
    struct patience admission; /* time that we were awake since it came; until it is READY */
    struct channel channel;
    struct wire_hello hello;
    struct slab_map slabs;
    struct wire_range range; /* RESERVE or RELEASE the worker works on */
    struct wire_reserved reserved;
    uint8_t token[WIRE_TOKEN_BYTES];
    int memory_fd;
    pid_t worker_pid;
};
struct tenant *tenant_create(struct server *server, int fd);
/* Frees everything; the memory goes back at once. */
void tenant_destroy(struct tenant *tenant);
void tenant_peer_event(struct tenant *tenant, uint32_t events);
void tenant_worker_event(struct tenant *tenant);
/* Tells the peer why and ends the tenant at the end of this turn of the loop. */
void tenant_end(struct tenant *tenant, enum wire_error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int tenant_start_memory(struct tenant *tenant); /* admit.c */
void tenant_hello(struct tenant *tenant, const struct wire_hello *hello);
void tenant_worker_started(struct tenant *tenant, const struct worker_message *answer);
void tenant_send(struct tenant *tenant, const union wire_message *message);
void tenant_ask_worker(struct tenant *tenant, struct worker_message *message);
void tenant_ready(struct tenant *tenant, uint16_t port);
const char *tenant_label(const struct tenant *tenant, char *buffer, size_t bytes);
void report_fill(const struct server *server, uint64_t after, struct wire_status_reply *reply);

/* ---- server.c ---- */
#define SERVER_TICK_MS    200
#define SERVER_SLICE_NS   (2 * SERVER_TICK_MS * 1000000ULL) /* a tick is at most twice as late */
#define STARTING_LIMIT_NS 30000000000ULL                    /* from connecting to READY */
#define GREETING_LIMIT_NS 5000000000ULL                     /* ... to HELLO */
struct server {
    struct server_config config;
    struct slab_pool pool;
    int epoll_fd, reaper_fd;
    struct source signals, parent;
    struct source listeners[SERVER_LISTEN_MAX];
    struct address bound[SERVER_LISTEN_MAX];
    int listener_count;
    struct tenant *tenants; /* also connections not yet admitted; oldest number last */
    uint32_t connections, admitted;
    uint64_t next_number, served, started_ns;
    struct patience drain;
    bool draining, stopping;
    bool accept_failed, accept_paused; /* listen.c */
};
int server_run(const struct server_config *config);
int server_watch(struct server *server, struct source *source, uint32_t events);
void server_rewatch(struct server *server, struct source *source, uint32_t events);
void server_unwatch(struct server *server, struct source *source);
/* Closes a memory file on a thread of its own: freeing many GiB takes seconds. */
void server_reap_memory(struct server *server, int memory_fd);

/* ---- reaper.c ---- */
int reaper_start(int *fd);

/* ---- listen.c ---- */
int listen_open_all(struct server *server);
void listen_close_all(struct server *server);
void listen_accept(struct server *server, const struct source *listener);
void listen_resume(struct server *server); /* each tick */

/* ---- status.c: the asking side ---- */
int status_print(const char *address_text, bool json);

#endif
