/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists and sorted sets: nodes that only the node before them leads to. They are followed a batch
 * at a time, in one of two ways:
 *
 *   touch   the guide reads them where they are. Free while they are here; each page that is not
 *           costs a fault, one after the other, and brings whole pages.
 *   read    guide_read_chain: the nodes' few bytes travel, over some transports 64 nodes in one
 *           round trip; then their pages are named, as the program will touch them. Another thread
 *           has to answer, so it is slow where nodes are here.
 *
 * Which one pays differs by transport and by what is here, so the time a node takes is measured,
 * and now and then the other way is tried. FARVISOR_REDIS_WALK=touch or read in the program's
 * environment settles it.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#define BATCH       64u   /* one hint, and what the memory node follows in one round trip */
#define READ_LEAST  8u    /* fewer nodes are not worth a question */
#define NEAR_NS     400u  /* a node: they are here, no way is better */
#define RETRY       16u   /* every so many batches the way that is slower gets a try */
#define NODES_MAX   4096u /* a longer walk outlives what was prefetched for it */
#define NODE_MAX    sizeof(struct list_node)
#define FIRST_NODES 8u /* where nobody knows how many: twice as many each time */
#define LONG_BYTES  512u

enum { WALK_AUTO, WALK_TOUCH, WALK_READ };
static int forced;

struct kind {
    unsigned node_bytes;
    uint64_t touch_ticks, read_ticks; /* a node, averages; 0: unknown */
    uint32_t batches;
};
static struct kind list_kind = {.node_bytes = sizeof(struct list_node)};
static struct kind skip_kind = {.node_bytes = sizeof(struct skip_node)};

struct chain {
    struct kind *kind;
    const uint8_t *at; /* the next node */
    size_t next_offset;
    uint64_t left; /* nodes wanted at most */
    uint8_t node[BATCH][NODE_MAX];
};

void chains_open(void)
{
    const char *walk = getenv("FARVISOR_REDIS_WALK");
    if (walk && strcmp(walk, "touch") == 0)
        forced = WALK_TOUCH;
    else if (walk && strcmp(walk, "read") == 0)
        forced = WALK_READ;
}

/* Which way the next nodes are read; *trial: the one that was slower, to see whether it still is.
 */
static bool reading_pays(struct kind *kind, unsigned nodes, bool *trial)
{
    *trial = false;
    if (forced)
        return forced == WALK_READ;
    if (nodes < READ_LEAST || kind->touch_ticks < pages_ticks(NEAR_NS))
        return false;
    bool reads = kind->read_ticks == 0 || kind->read_ticks < kind->touch_ticks;
    *trial = ++kind->batches % RETRY == 0;
    return *trial ? !reads : reads;
}

/* A trial counts as if it were the first: what was known of that way is old. */
static void time_took(struct kind *kind, bool reads, bool trial, uint64_t node_ticks)
{
    uint64_t *ticks = reads ? &kind->read_ticks : &kind->touch_ticks;
    *ticks = *ticks == 0 || trial ? node_ticks + 1 : *ticks - *ticks / 8 + node_ticks / 8;
}

static const uint8_t *next_of(const struct chain *chain, unsigned node)
{
    const uint8_t *next;
    memcpy(&next, chain->node[node] + chain->next_offset, sizeof(next));
    return next;
}

static unsigned batch_touch(struct chain *chain, unsigned nodes)
{
    unsigned got = 0;
    for (; got < nodes && sane_link(chain->at) && !pages_late(); got++) {
        memcpy(chain->node[got], chain->at, chain->kind->node_bytes);
        chain->at = next_of(chain, got);
    }
    return got;
}

/* The nodes lie in `packed` one behind the other. */
static unsigned batch_read(struct chain *chain, unsigned nodes)
{
    uint8_t packed[BATCH * NODE_MAX];
    unsigned bytes = chain->kind->node_bytes;
    long got = guide_read_chain(chain->at, bytes, chain->next_offset, packed, nodes);
    for (unsigned i = 0; got > 0 && i < (unsigned)got; i++) {
        pages_name(chain->at, bytes);
        memcpy(chain->node[i], packed + (size_t)i * bytes, bytes);
        chain->at = next_of(chain, i);
    }
    return got > 0 ? (unsigned)got : 0;
}

/* The next nodes, `wanted` or fewer, in chain->node; 0: that was all. */
static unsigned batch_next(struct chain *chain, uint64_t wanted)
{
    struct kind *kind = chain->kind;
    unsigned nodes = chain->left < BATCH ? (unsigned)chain->left : BATCH;
    nodes = wanted < nodes ? (unsigned)wanted : nodes;
    if (nodes == 0 || !sane_link(chain->at) || pages_late())
        return 0;
    bool trial, reads = reading_pays(kind, nodes, &trial);
    uint64_t before = __rdtsc();
    unsigned got = reads ? batch_read(chain, nodes) : batch_touch(chain, nodes);
    if (got)
        time_took(kind, reads, trial, (__rdtsc() - before) / got);
    chain->left = got < nodes ? 0 : chain->left - got;
    return got;
}

/* How long a compressed one is stands where its entry lies: half is a guess. */
static uint64_t node_bytes(const struct list_node *node)
{
    return node->encoding == LIST_NODE_COMPRESSED ? node->bytes / 2 : node->bytes;
}

void list_name(const struct list *list, uint64_t start, uint64_t end, bool from_tail)
{
    struct chain chain = {.kind = &list_kind, .left = NODES_MAX};
    uint64_t first = 0, in_node = list->nodes ? list->count / list->nodes : 0;
    chain.at = (const uint8_t *)(from_tail ? list->tail : list->head);
    chain.next_offset =
        from_tail ? offsetof(struct list_node, previous) : offsetof(struct list_node, next);
    while (first <= end) {
        unsigned got = batch_next(&chain, (end - first) / (in_node ? in_node : 1) + 1);
        if (got == 0)
            return;
        for (unsigned i = 0; i < got && first <= end; i++) {
            struct list_node node;
            memcpy(&node, chain.node[i], sizeof(node));
            first += node.count;
            if (first > start && !pages_name(node.entry, node_bytes(&node)))
                return;
        }
    }
}

static bool in_range(const struct score_range *range, double score, bool reverse)
{
    if (!range)
        return true;
    if (reverse)
        return range->least_excluded ? score > range->least : score >= range->least;
    return range->most_excluded ? score < range->most : score <= range->most;
}

/* Elements of one batch, of which `skip` are passed by. false: the walk is over. */
static bool elements_name(const struct chain *chain, unsigned got, unsigned skip, bool reverse,
                          const struct score_range *range)
{
    struct skip_node node;
    bool more = true, ends = false;
    for (unsigned i = skip; i < got && more && !ends; i++) {
        memcpy(&node, chain->node[i], sizeof(node));
        ends = !in_range(range, node.score, reverse);
        if (!ends)
            more = text_name(node.element);
        got = ends ? i : got;
    }
    /* Of one it is asked whether they are long; elements of a set are alike. */
    for (unsigned i = skip; i < got && more && !pages_late(); i++) {
        memcpy(&node, chain->node[i], sizeof(node));
        if (text_name_rest(node.element) < LONG_BYTES)
            break;
    }
    return more && !ends;
}

void skiplist_name(const struct skip_node *node, bool reverse, uint64_t skip, uint64_t count,
                   const struct score_range *range)
{
    struct chain chain = {.kind = &skip_kind, .at = (const uint8_t *)node};
    chain.left = skip < NODES_MAX && count < NODES_MAX - skip ? skip + count : NODES_MAX;
    chain.next_offset =
        reverse ? offsetof(struct skip_node, backward) : offsetof(struct skip_node, forward);
    uint64_t wanted = range ? skip + FIRST_NODES : BATCH;
    for (unsigned got; (got = batch_next(&chain, wanted)) > 0; wanted *= 2) {
        unsigned passed = skip < got ? (unsigned)skip : got;
        skip -= passed;
        if (!elements_name(&chain, got, passed, reverse, range))
            return;
    }
}
