/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's answer to STATUS: totals and one row a tenant, in order of their numbers, as many as
 * fit one message; the asker comes again for the rest.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <string.h>

static void report_row(const struct tenant *tenant, uint64_t now, struct wire_status_row *row)
{
    row->tenant = tenant->number;
    row->quota_bytes = tenant->hello.quota_bytes;
    row->held_bytes = tenant->slabs.table.held_slabs * WIRE_SLAB_BYTES;
    row->age_ms = (now - tenant->came_ns) / 1000000;
    row->silent_ms = (now - tenant->heard_ns) / 1000000;
    row->transport = tenant->hello.transport;
    memcpy(row->name, tenant->hello.name, sizeof(row->name));
}

/* The tenant with the lowest number above `after`, or NULL. The list is in no useful order:
 * connections join when accepted, numbers come with HELLO. */
static const struct tenant *report_next(const struct server *server, uint64_t after)
{
    const struct tenant *next = NULL;

    for (const struct tenant *at = server->tenants; at; at = at->next) {
        if (at->admitted && at->number > after && (!next || at->number < next->number))
            next = at;
    }
    return next;
}

void report_fill(const struct server *server, uint64_t after, struct wire_status_reply *reply)
{
    uint64_t now = clock_now_ns();
    const struct tenant *tenant;

    reply->capacity_bytes = server->pool.capacity_slabs * WIRE_SLAB_BYTES;
    reply->used_bytes = server->pool.used_slabs * WIRE_SLAB_BYTES;
    reply->uptime_ms = (now - server->started_ns) / 1000000;
    reply->served = server->served;
    reply->tenants = server->admitted;
    reply->tenants_max = server->config.tenants_max;
    reply->draining = server->draining;
    reply->hugepages = server->config.hugepages;
    while (reply->rows < WIRE_STATUS_ROWS_MAX && (tenant = report_next(server, after))) {
        report_row(tenant, now, &reply->row[reply->rows++]);
        after = tenant->number;
    }
}
