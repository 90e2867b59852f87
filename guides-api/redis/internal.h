/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the redis guide: prototypes by file. All of it runs on the program's main thread,
 * inside of a hook; the state is that thread's. What a hook does before it calls the hooked
 * function is a look; a command may have several.
 */
#ifndef REDIS_GUIDE_H
#define REDIS_GUIDE_H

#include "layout.h"

#include <farvisor/guide.h>

/* ---- pages.c: naming pages, and finding out what is far ---- */

/*
 * Links (table entries, objects) that are touched to find out what they lead to. While some of
 * them turn out to be far they are named before; while all are here that would be a waste.
 */
struct links {
    uint32_t credit; /* so many more are named */
    bool far;        /* one was, since links_begin */
};
#define LINKS_CREDIT 256u

/* Finds out how fast the time-stamp counter runs; takes a millisecond. */
void pages_open(void);
/* That time in its ticks. */
uint64_t pages_ticks(uint64_t ns);
/* A look begins: what was named before may have left again; `pages` may be named at most. */
void pages_begin(uint32_t pages);
/* How many of them are left. */
uint32_t pages_left(void);
extern uint64_t pages_late_ns; /* for the tests, which must not depend on who else runs */
/* Has this look lasted so long that the program had better go on? */
bool pages_late(void);
/* Names [start, start + bytes) unless that was just done. false: nothing more may be named. */
bool pages_name(const void *start, uint64_t bytes);
/* The header of an sds and its first bytes. */
bool text_name(const uint8_t *text);
/* Touches the header and names what text_name left out. Returns the text's length. */
uint64_t text_name_rest(const uint8_t *text);
/* A walk begins: if anything was far in the one before, this one starts with all the credit. */
void links_begin(struct links *links);
/* A link that links_touch comes to soon. */
void links_name(const struct links *links, const void *link, uint64_t bytes);
/* Touches it; whether it was far decides what is named from now on. false: it is late. */
bool links_touch(struct links *links, const void *link);
/* A listpack or intset: one block, its length at its start. Others are left alone. */
void block_name(const struct object *object);

/* ---- tables.c: hash tables ---- */

enum { NAME_KEYS = 1, NAME_VALUES = 2, NAME_SCORES = 4 }; /* the first two as OBJ_HASH_* */

/* All elements will be read. */
void dict_name(const struct dict *dict, unsigned what);
/* About `count` elements from the cursor on, as dictScan finds them in at most `visits` calls. */
void dict_name_scan(const struct dict *dict, uint64_t cursor, uint64_t count, uint64_t visits,
                    unsigned what);

/* ---- chains.c: what has to be followed node by node ---- */

/* How nodes are read: whichever took less time so far, or as FARVISOR_REDIS_WALK says. */
void chains_open(void);
/* Elements [start, end] of a list, counted from the end it is walked from. */
void list_name(const struct list *list, uint64_t start, uint64_t end, bool from_tail);
/* From `node` on: `skip` nodes, then as many as `count` within `range` (NULL: no bound). */
void skiplist_name(const struct skip_node *node, bool reverse, uint64_t skip, uint64_t count,
                   const struct score_range *range);

/* ---- requests.c: what clients sent; no more than bytes are looked at ---- */

/* What of a key's value a command reads. */
enum request_reads {
    READS_OBJECT, /* its head */
    READS_ALL     /* a string's text; of others what their own hook begins with */
};

#define REQUEST_KEYS 64u

struct request {
    enum request_reads reads;
    unsigned keys; /* 0: nothing is known of this command */
    struct {
        const uint8_t *text;
        size_t bytes;
    } key[REQUEST_KEYS];
};

/* Parses one request; returns its length, or 0: not a whole one, or not in the binary form. */
size_t request_parse(const uint8_t *text, size_t bytes, struct request *request);

/* ---- keyspace.c: the databases, and whether they look as they should ---- */

/* 0, or -ENOENT: what is needed of the program is missing. */
int keyspace_open(void);
/* The hash table of the client's database, or NULL where there is none that could be one. */
const struct dict *keyspace_of(const struct client *client);
/* A command is about to run: is all that is known of a client's layout as it has to be? */
bool keyspace_known(const struct client *client);

/* ---- pipeline.c ---- */

/* 0, or -ENOENT: functions of the program that are called are missing. */
int pipeline_open(void);
/*
 * The query buffer has something new, or (`fresh` false) a command of this client is about to run,
 * which matters if it came from that buffer. Begins a look.
 */
void pipeline_look(const struct client *client, bool fresh);
/* Was this text named for a request that was looked ahead for? Asked once. */
bool pipeline_named(const void *text);

#endif
