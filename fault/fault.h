/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paging engine: policy over ept/ (mechanism) and rdma/ (far memory). Demand fetch, prefetch,
 * residency bound, write-back and reclaim. Knows nothing of KVM or sockets.
 */
#ifndef FARVISOR_FAULT_H
#define FARVISOR_FAULT_H

#include "ept/ept.h"
#include "rdma/rdma.h"

#include <stdbool.h>
#include <stdint.h>

struct fault_engine;
struct fault_context; /* one a thread that faults: its queue and buffers */

/*
 * Where the first contents of a page come from. Called for ABSENT pages in FILLING, no locks held.
 */
struct fault_source {
    /* Bounds the run of pages [*first, *last) around `page` that share its origin and may be filled
     * together; sets *zero when they are zero pages. Returns 0, 1 if the host kernel fills the
     * page by itself, -EFAULT if nothing is mapped, -EIO beyond the end of a file. */
    int (*extent)(void *owner, uint64_t page, uint64_t *first, uint64_t *last, bool *zero);
    /* Reads the initial bytes of `pages` pages into `to`. 0 or -errno (-EIO: SIGBUS). */
    int (*read)(void *owner, uint64_t page, uint64_t pages, void *to);
    /* `extent` or `read` answered -EFAULT. True: only while what is mapped there was replaced,
     * which was waited for (a time that the replacing bounds); ask again. Called with nothing
     * claimed. NULL: never. */
    bool (*replaced)(void *owner, uint64_t page);
    /* uffd mode: thread `tid` waits in KVM_RUN for a page whose contents do not exist. It is to
     * leave that and look for itself. `again`: it was told, and is only waited for. True: it has
     * looked, or is no vCPU (any more); false: not within `wait_ns`. */
    bool (*unfillable)(void *owner, int tid, bool again, uint64_t wait_ns);
    /* The vCPU on thread `tid` should leave KVM_RUN soon, and come back. NULL: never asked. */
    void (*expel)(void *owner, int tid);
    void *owner;
};

/* Fewer resident pages than this cannot hold what one fault and one request pin. */
#define FAULT_LOCAL_MIN_PAGES 2048u

struct fault_config {
    struct ept *ept;
    struct rdma_node *node; /* NULL: nothing is remote, only file contents are filled */
    uint64_t memory_pages;  /* quota on pages that exist, here and remote */
    uint64_t local_pages;   /* hard bound on resident pages */
    uint64_t timeout_ns;    /* longest wait on the node */
    const char *prefetcher; /* "none", "readahead", "trend", "auto"; NULL: auto */
    struct fault_source source;
};

/* Logarithmic histogram of nanoseconds: four buckets a power of two. */
#define FAULT_HISTOGRAM_BUCKETS 160
struct fault_histogram {
    uint64_t count, sum_ns, max_ns;
    uint64_t buckets[FAULT_HISTOGRAM_BUCKETS];
};

struct fault_counters {
    uint64_t faults;            /* second-stage misses that came here */
    uint64_t spurious;          /* ... whose page turned out to be there already */
    uint64_t zero_filled_pages; /* first touches, with their neighbours */
    uint64_t file_filled_pages;
    uint64_t demand_fetches;   /* pages fetched because they were touched */
    uint64_t prefetched_pages; /* pages fetched unasked */
    uint64_t late_hits;        /* touches of pages that were still in flight */
    uint64_t samples_used;     /* of the prefetched pages looked at (one in 8), those used ... */
    uint64_t samples_wasted;   /* ... and those that left untouched */
    uint64_t refaulted_pages;  /* demanded again soon after they were evicted */
    uint64_t distrusted_pages; /* counted as dirty because their D bit could not be trusted */
    uint64_t fetched_bytes;
    uint64_t written_bytes; /* to the memory node */
    uint64_t evicted_pages;
    uint64_t evicted_clean_pages; /* ... dropped without a write */
    uint64_t evicted_zero_pages;  /* ... that held only zeroes */
    uint64_t evicted_dead_pages;  /* ... on which nothing lived (live.c) */
    uint64_t unwritten_bytes;     /* not sent with written pages, because they were dead */
    uint64_t unread_bytes;        /* not asked for with fetched pages, likewise */
    uint64_t rescued_pages;       /* eviction given up: touched meanwhile */
    uint64_t discarded_pages;
    uint64_t frame_waits;    /* faults that had to wait for the reclaimer */
    uint64_t active_pages;   /* now: resident and protected from scans */
    uint64_t resident_pages; /* now */
    uint64_t resident_peak_pages;
    uint64_t existing_pages; /* now, here and remote */
    uint64_t existing_peak_pages;
    struct fault_histogram fault_ns;   /* whole fault inside the engine */
    struct fault_histogram fetch_ns;   /* demand reads, from posted to arrived */
    struct fault_histogram flight_ns;  /* prefetch reads, from posted to landed */
    struct fault_histogram install_ns; /* putting pages into the second stage */
};

/* ---- engine.c ---- */

/* May fault_config.prefetcher have this name? */
bool fault_prefetcher_known(const char *name);
/* Starts the reclaimers and the lander where something is remote. Returns 0, or -errno after one
 * message, but for -ENOMEM. */
int fault_engine_create(struct fault_engine **out, const struct fault_config *config);
/* Stops its threads: from here on it calls nothing of fault_source by itself, so that what that
 * needs (vCPUs) may go. No guest runs any more. Accepts NULL, also twice. */
void fault_engine_stop(struct fault_engine *engine);
/* Stops it; no context may be in use any more. Accepts NULL. */
void fault_engine_destroy(struct fault_engine *engine);
/* Sticky: why far memory cannot be reached any more, or 0. Any thread. */
int fault_engine_error(const struct fault_engine *engine);
/* Becomes readable with the first sticky error, for the VMM's watchdog. */
int fault_engine_event_fd(const struct fault_engine *engine);
void fault_engine_counters(struct fault_engine *engine, struct fault_counters *out);
/* Value below which `fraction` of the samples lie, in ns; 0 if there are none. */
uint64_t fault_histogram_quantile(const struct fault_histogram *histogram, double fraction);

/* One a thread that faults. Cheap until its first remote fault. 0 or -ENOMEM. */
int fault_context_create(struct fault_engine *engine, struct fault_context **out);
void fault_context_destroy(struct fault_context *context);
void fault_context_adopt(struct fault_context *context); /* the caller's now; its maker is gone */
/*
 * Brackets around KVM_RUN. A page whose dirty bit was cleared may be trusted to be clean only once
 * every vCPU has left KVM_RUN since (fault/engine.c says why); both are one store.
 */
void fault_context_enter(struct fault_context *context);
void fault_context_leave(struct fault_context *context);

/* ---- resolve.c ---- */

/*
 * fault_resolve - make a page resident, fetching or filling it and, perhaps, its neighbours.
 * Blocks for at most twice timeout_ns, whatever it waits for. Returns 0 (resident, or was: run the
 * guest again), 1 (not ours: the host kernel fills it), -EFAULT (nothing is mapped there), -EIO
 * (file contents unreadable), -ENOMEM (quota reached), -EBUSY (no resident page could be evicted),
 * -ETIMEDOUT, -ECONNRESET (memory node lost: sticky).
 */
int fault_resolve(struct fault_context *context, uint64_t page, bool write);

/* ---- arrivals.c ---- */
/*
 * fault_arrivals - after fault_resolve returned 0: the page and those around it that came along,
 * which no second stage maps yet, for all that can be told. Returns how many from *first on, 0:
 * none, not even the page. A moment old: any of them may have left. The context's thread.
 */
uint64_t fault_arrivals(const struct fault_context *context, uint64_t *first);

/* ---- open.c: a demand whose thread does something else while the read is out ---- */

/*
 * fault_demand_open - posts the read of a remote page as a demand, and returns without waiting.
 * Nothing is held: whoever needs the page meanwhile lands it. Returns 1, 0 (not done: not remote
 * any more, or no frame; resolve it), or -errno (sticky). The context's thread.
 */
int fault_demand_open(struct fault_context *context, uint64_t page, bool write);
/*
 * fault_demand_close - waits until what was opened last is no longer on its way. Returns 0 (it had
 * arrived), 1 (it was waited for), or -errno as fault_resolve. Nothing open: 0. The context's
 * thread.
 */
int fault_demand_close(struct fault_context *context);
/* What a demand read takes on average, in ns; 0: none was made yet. The context's thread. */
uint64_t fault_fetch_mean_ns(const struct fault_context *context);

/* ---- pin.c ---- */

/*
 * fault_pin - make pages resident and keep them so until fault_unpin. `write`: the caller will
 * store to them through their host address; they count as dirty from now. All or nothing.
 * Returns as fault_resolve. Pins nest; at most 4095 a page.
 */
int fault_pin(struct fault_context *context, uint64_t page, uint64_t pages, bool write);
/* The same where nothing may be waited for: -EAGAIN if a page would have to be fetched first. */
int fault_pin_resident(struct fault_context *context, uint64_t page, uint64_t pages, bool write);
void fault_unpin(struct fault_engine *engine, uint64_t page, uint64_t pages);

/* ---- frames.c ---- */

/*
 * fault_admit - before a request pins more than two pages: how many it may pin now, from 1 to
 * `want`; the rest after it has unpinned them. The caller holds no pin. `wait`: for others to end,
 * when too many are pinned, for at most twice timeout_ns. Returns the count, to be given back with
 * fault_dismiss, -EAGAIN (it would have waited), -EBUSY (waited in vain) or a sticky error.
 */
int64_t fault_admit(struct fault_context *context, uint64_t want, bool wait);
void fault_dismiss(struct fault_engine *engine, uint64_t pages);

/* ---- discard.c ---- */

/*
 * fault_discard - forget contents: frames and remote copies are freed, pages are ABSENT afterwards.
 * A page pinned by a request under way is zeroed in place instead. Caller keeps the range from
 * being mapped anew meanwhile. `unmapped`: nothing can be filled there any more, so
 * memory without a state, which the host kernel filled, goes too. 0 or -errno as fault_resolve.
 */
int fault_discard(struct fault_context *context, uint64_t page, uint64_t pages, bool unmapped);
/* Has the page contents of its own (resident or remote)? For mincore, mremap, write-back. */
bool fault_page_exists(const struct fault_engine *engine, uint64_t page);
/* First page in [page, end) that exists, or `end`. Skips untouched 2 MiB blocks quickly. */
uint64_t fault_next_existing(const struct fault_engine *engine, uint64_t page, uint64_t end);

/* ---- live.c ---- */

/*
 * fault_live_map - from now on only live bytes of the heap travel; `map` has a bit for each
 * FV_HEAP_UNIT_BYTES of it (farvisor/hints.h). Nothing there is trusted or touched before it is
 * resident. Ends when the heap or the map is unmapped. 0; -EINVAL: not page aligned, empty or
 * beyond the address space; -EBUSY: there was one already. Any thread.
 */
int fault_live_map(struct fault_engine *engine, gpa_t heap, uint64_t bytes, gpa_t map);

/* ---- hints.c: advice, which never waits for the memory node nor for frames ---- */

/*
 * fault_prefetch - the pages will be touched soon: fetches those that are remote. Their reads are
 * gathered, so that several calls become one transfer, and start with fault_land at the latest.
 * Returns how many pages were passed (fewer when frames, buffers or the queue ran short), or
 * -EFAULT. The context's thread.
 */
int64_t fault_prefetch(struct fault_context *context, uint64_t page, uint64_t pages);
/* The pages will not be needed for long: the reclaimer takes them first. Any thread. */
void fault_cold(struct fault_engine *engine, uint64_t page, uint64_t pages);
/* Starts what fault_prefetch gathered and installs what has arrived of it, before the lander comes
 * by. Pages still on their way are the lander's to see to. The context's thread. */
void fault_land(struct fault_context *context);
/* state[i]: one FV_PAGE_* (farvisor/hints.h), true a moment ago. 0 or -EFAULT. Any thread. */
int fault_residency(const struct fault_engine *engine, uint64_t page, uint64_t pages,
                    uint8_t *state);
/*
 * Was a page touched while it was here after the last time it was prefetched, also if it has left
 * since? One in 8 of a run can tell, those whose number is a multiple of 8, and each of a shorter
 * run. Advice that fetched nothing, because the page was here or on its way, changes nothing: its
 * sample is judged by the fetch before. Any thread.
 */
bool fault_was_used(const struct fault_engine *engine, uint64_t page);

/* ---- peek.c: bytes of a page wherever it is ---- */

#define FAULT_PEEK_MAX_BYTES 256u

/* A look at some bytes of one page. The caller owns it, and `to`, until it is finished. */
struct fault_peek {
    gpa_t gpa;
    uint32_t bytes; /* 1 .. FAULT_PEEK_MAX_BYTES, within one page */
    void *to;
    int status; /* 0 copied; -ENODATA: nothing to copy, touch it; -errno */
    void (*done)(struct fault_peek *peek); /* called in fault_peek_poll; may start another */
    void *owner;                           /* the caller's */
};

/*
 * fault_peek_start - copies bytes of a page: at once if it is here or was never written, and from
 * the memory node, these bytes alone, if it is remote. The page stays remote.
 * Returns 0 (finished, peek->status says how, `done` was not called), 1 (in flight, `done` will
 * be), or -EAGAIN (the page is moving, or too many are in flight: poll, then try again). Whoever
 * started one calls fault_peek_poll on the same context until nothing is in flight: until then a
 * fault on that page waits. The context's thread.
 */
int fault_peek_start(struct fault_context *context, struct fault_peek *peek);
/*
 * fault_peek_poll - finishes what has arrived, waiting up to wait_ns for the first. Returns what is
 * still in flight, or -errno (sticky) with nothing in flight any more.
 */
int fault_peek_poll(struct fault_context *context, uint64_t wait_ns);
/* One from start to end, within timeout_ns. 0, -ENODATA or -errno as fault_resolve. */
int fault_peek(struct fault_context *context, gpa_t gpa, uint32_t bytes, void *to);

/* ---- chain.c: many hops in one round trip, where the memory node can follow a chain ---- */

#define FAULT_CHAIN_NODES 64u

/* The caller owns it until `done` was called. */
struct fault_chain {
    gpa_t gpa;           /* of the first node */
    uint32_t node_bytes; /* sizeof(gpa_t) .. FAULT_PEEK_MAX_BYTES */
    uint32_t next_bytes; /* where in a node its successor's address is; it fits the node */
    uint32_t nodes;      /* wanted, 1 .. FAULT_CHAIN_NODES */
    uint32_t got;        /* came; each node begins at data + number * node_bytes */
    uint32_t departure;  /* the engine's */
    void (*done)(struct fault_chain *chain); /* called in fault_peek_poll; may start another */
    void *owner;                             /* the caller's */
    uint8_t data[FAULT_CHAIN_NODES * FAULT_PEEK_MAX_BYTES];
};

/*
 * fault_chain_start - asks the memory node for the nodes from gpa on. Returns 1 (in flight, `done`
 * will be called), 0 (look at this node instead: it is not remote, or the transport cannot),
 * -EAGAIN (too many in flight: poll first), or -errno (sticky). The context's thread.
 */
int fault_chain_start(struct fault_context *context, struct fault_chain *chain);
/*
 * fault_chain_valid - are the bytes that came for the node at gpa what the node holds right now?
 * False also where that cannot be told. Ask for each node before its contents, its `next` too, are
 * believed; whether the program may read there is the caller's business. Any thread.
 */
bool fault_chain_valid(const struct fault_engine *engine, const struct fault_chain *chain,
                       gpa_t gpa);

/* ---- events.c: the usual design, a thread that reads userfaultfd events (--fault-mode uffd) ----
 */
/* `spin`: one handler that never sleeps, to compare with; costs a processor. 0, or -errno after one
 * message; fault_engine_stop in any case. */
int fault_events_start(struct fault_engine *engine, bool spin);

#endif
