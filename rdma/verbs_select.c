/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device, port and GID as the user names them, checked against sysfs (Documentation/ABI/stable/
 * sysfs-class-infiniband). Any thread.
 */
#include "rdma/verbs_select.h"
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define GIDS_LOOKED_AT 256 /* devices have up to 256 a port */

static const uint8_t gid_none[VERBS_GID_BYTES];
static const uint8_t gid_v4[12] = {[10] = 0xff, [11] = 0xff}; /* ::ffff:a.b.c.d */

__attribute__((format(printf, 2, 3))) static void explain(char *why, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, VERBS_WHY_BYTES, format, arguments);
    va_end(arguments);
}

int verbs_selection_set(struct verbs_selection *selection, const char *key, const char *value,
                        char *why)
{
    uint64_t number = 0;
    bool is_number = parse_u64(value, &number) == 0;

    if (strcmp(key, "device") == 0) {
        /* It becomes part of a path. */
        if (!*value || strlen(value) >= VERBS_DEVICE_BYTES || strchr(value, '/') ||
            value[0] == '.') {
            explain(why, "device '%.64s': not a device's name (rdma link shows them)", value);
            return -EINVAL;
        }
        memcpy(selection->device, value, strlen(value) + 1);
    } else if (strcmp(key, "port") == 0) {
        if (!is_number || number < 1 || number > UINT8_MAX) {
            explain(why, "port '%.32s': not a number from 1 to 255", value);
            return -EINVAL;
        }
        selection->port = (uint8_t)number;
    } else if (strcmp(key, "gid") == 0) {
        if (!is_number || number > UINT16_MAX) {
            explain(why, "gid '%.32s': not an index from 0 to 65535", value);
            return -EINVAL;
        }
        selection->gid = (uint16_t)number;
        selection->gid_given = true;
    } else {
        explain(why, "'%.32s': unknown (expected device=, port= or gid=)", key);
        return -EINVAL;
    }
    return 0;
}

int verbs_selection_parse(struct verbs_selection *selection, const char *text, char *why)
{
    char copy[128];
    char *rest = copy;
    int error = 0;

    if ((size_t)snprintf(copy, sizeof(copy), "%s", text) >= sizeof(copy)) {
        explain(why, "'%.32s...': too long", text);
        return -EINVAL;
    }
    while (rest && !error) {
        char *value = strsep(&rest, ",");
        const char *key = strsep(&value, "=");

        error = verbs_selection_set(selection, key, value ? value : "", why);
    }
    return error;
}

static const char *sysfs_of(const struct verbs_selection *selection)
{
    return selection->sysfs ? selection->sysfs : VERBS_SYSFS;
}

/* The port to look at: the one asked for, or the first. */
static unsigned port_of(const struct verbs_selection *selection)
{
    return selection->port ? selection->port : 1;
}

/* First line of ROOT/DEVICE/ports/PORT/`name`, without its end. False: cannot be read. */
static bool port_read(const struct verbs_selection *selection, const char *name, char *line,
                      size_t bytes)
{
    char path[PATH_MAX];
    FILE *file;
    bool got;

    snprintf(path, sizeof(path), "%s/%s/ports/%u/%s", sysfs_of(selection), selection->device,
             port_of(selection), name);
    file = fopen(path, "re");
    got = file && fgets(line, (int)bytes, file);
    if (file)
        fclose(file);
    if (got)
        line[strcspn(line, "\n")] = '\0';
    return got;
}

/* False: there is none at that index. */
static bool gid_read(const struct verbs_selection *selection, unsigned index, uint8_t *gid)
{
    char name[32], line[64];
    unsigned part[8];

    snprintf(name, sizeof(name), "gids/%u", index);
    if (!port_read(selection, name, line, sizeof(line)) ||
        sscanf(line, "%4x:%4x:%4x:%4x:%4x:%4x:%4x:%4x", &part[0], &part[1], &part[2], &part[3],
               &part[4], &part[5], &part[6], &part[7]) != 8)
        return false;
    for (int i = 0; i < 8; i++) {
        gid[2 * i] = (uint8_t)(part[i] >> 8);
        gid[2 * i + 1] = (uint8_t)part[i];
    }
    return memcmp(gid, gid_none, sizeof(gid_none)) != 0;
}

static bool on_infiniband(const struct verbs_selection *selection)
{
    char layer[32] = "";

    return port_read(selection, "link_layer", layer, sizeof(layer)) &&
           strcmp(layer, "InfiniBand") == 0;
}

/* "no device 'x' (there is: a b)" */
static void explain_devices(const struct verbs_selection *selection, char *why)
{
    char names[128] = "";
    DIR *folder = opendir(sysfs_of(selection));
    const struct dirent *entry;

    while (folder && (entry = readdir(folder))) {
        size_t used = strlen(names), room = sizeof(names) - used;

        if (entry->d_name[0] == '.')
            continue;
        if ((size_t)snprintf(names + used, room, " %s", entry->d_name) >= room)
            break; /* enough to give the idea */
    }
    if (folder)
        closedir(folder);
    explain(why, "device '%s': no such RDMA device (this host has:%s)", selection->device,
            names[0] ? names : " none");
}

int verbs_selection_check(const struct verbs_selection *selection, char *why)
{
    char path[PATH_MAX];
    char state[32];
    uint8_t gid[VERBS_GID_BYTES];

    if (!selection->device[0]) {
        if (!selection->port && !selection->gid_given)
            return 0;
        explain(why, "%s: of which device? (give device= too)", selection->port ? "port" : "gid");
        return -EINVAL;
    }
    snprintf(path, sizeof(path), "%s/%s", sysfs_of(selection), selection->device);
    DIR *folder = opendir(path);
    if (!folder) {
        explain_devices(selection, why);
        return -ENODEV;
    }
    closedir(folder);
    if (!port_read(selection, "state", state, sizeof(state))) {
        explain(why, "port %u: device %s has no such port (ls %s/ports)", port_of(selection),
                selection->device, path);
        return -ENODEV;
    }
    if (selection->gid_given && on_infiniband(selection)) {
        explain(why, "gid %u: cannot be chosen on InfiniBand; device= and port= can",
                selection->gid);
        return -EINVAL;
    }
    if (selection->gid_given && !gid_read(selection, selection->gid, gid)) {
        explain(why, "gid %u: %s port %u has none at that index (ibv_devinfo -v shows them)",
                selection->gid, selection->device, port_of(selection));
        return -ENODEV;
    }
    return 0;
}

/* ---- the address to connect from ---- */

static bool gid_is_v4(const uint8_t *gid)
{
    return memcmp(gid, gid_v4, sizeof(gid_v4)) == 0;
}

static bool gid_is_link_local(const uint8_t *gid)
{
    return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80;
}

static void gid_to_address(const struct verbs_selection *selection, unsigned index,
                           const uint8_t *gid, struct sockaddr_storage *out)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char name[32], interface[IF_NAMESIZE];

    memset(out, 0, sizeof(*out));
    if (gid_is_v4(gid)) {
        memcpy(&v4.sin_addr, gid + sizeof(gid_v4), sizeof(v4.sin_addr));
        memcpy(out, &v4, sizeof(v4));
        return;
    }
    memcpy(&v6.sin6_addr, gid, VERBS_GID_BYTES);
    snprintf(name, sizeof(name), "gid_attrs/ndevs/%u", index);
    if (gid_is_link_local(gid) && port_read(selection, name, interface, sizeof(interface)))
        v6.sin6_scope_id = if_nametoindex(interface);
    memcpy(out, &v6, sizeof(v6));
}

/* RoCE: GIDs are the interface's addresses. */
static int source_by_gid(const struct verbs_selection *selection, sa_family_t family,
                         struct sockaddr_storage *out, char *why)
{
    unsigned first = selection->gid_given ? selection->gid : 0;
    unsigned end = selection->gid_given ? first + 1u : GIDS_LOOKED_AT;

    for (unsigned i = first; i < end; i++) {
        uint8_t gid[VERBS_GID_BYTES];

        if (!gid_read(selection, i, gid) || gid_is_v4(gid) != (family == AF_INET))
            continue;
        if (!selection->gid_given && gid_is_link_local(gid))
            continue;
        gid_to_address(selection, i, gid, out);
        return 0;
    }
    if (selection->gid_given)
        explain(why, "gid %u of %s is not an %s address, as the memory node's is", selection->gid,
                selection->device, family == AF_INET ? "IPv4" : "IPv6");
    else
        explain(why, "device %s port %u has no %s address (ip address add)", selection->device,
                port_of(selection), family == AF_INET ? "IPv4" : "IPv6");
    return -EADDRNOTAVAIL;
}

/* InfiniBand: does the interface belong to the device's port? */
static bool interface_is_port(const struct verbs_selection *selection, const char *interface)
{
    char path[PATH_MAX];
    unsigned port = 0;
    FILE *file;
    DIR *folder;

    snprintf(path, sizeof(path), "/sys/class/net/%s/device/infiniband/%s", interface,
             selection->device);
    folder = opendir(path);
    if (!folder)
        return false;
    closedir(folder);
    snprintf(path, sizeof(path), "/sys/class/net/%s/dev_port", interface); /* counts from 0 */
    file = fopen(path, "re");
    if (!file || fscanf(file, "%u", &port) != 1)
        port = 0;
    if (file)
        fclose(file);
    return port + 1 == port_of(selection);
}

static int source_by_interface(const struct verbs_selection *selection, sa_family_t family,
                               struct sockaddr_storage *out, char *why)
{
    struct ifaddrs *all = NULL;
    int error = -EADDRNOTAVAIL;

    if (getifaddrs(&all))
        all = NULL;
    for (const struct ifaddrs *at = all; at && error; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != family ||
            !interface_is_port(selection, at->ifa_name))
            continue;
        memset(out, 0, sizeof(*out));
        memcpy(out, at->ifa_addr,
               family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        error = 0;
    }
    if (all)
        freeifaddrs(all);
    if (error)
        explain(why, "device %s port %u has no IPoIB interface with an %s address",
                selection->device, port_of(selection), family == AF_INET ? "IPv4" : "IPv6");
    return error;
}

int verbs_selection_source(const struct verbs_selection *selection, sa_family_t family,
                           struct sockaddr_storage *out, char *why)
{
    if (!selection->device[0])
        return 1;
    return on_infiniband(selection) ? source_by_interface(selection, family, out, why)
                                    : source_by_gid(selection, family, out, why);
}

int verbs_selection_matches(const struct verbs_selection *selection, const struct verbs_path *path,
                            char *why)
{
    uint8_t gid[VERBS_GID_BYTES];

    if (!selection->device[0])
        return 0;
    if (strcmp(selection->device, path->device) != 0 ||
        (selection->port && selection->port != path->port)) {
        explain(why, "the address is on %s port %u, not on %s port %u", path->device, path->port,
                selection->device, port_of(selection));
        return -EXDEV;
    }
    if (selection->gid_given && (!gid_read(selection, selection->gid, gid) ||
                                 memcmp(gid, path->gid, VERBS_GID_BYTES) != 0)) {
        explain(why, "the address is not that of gid %u of %s", selection->gid, selection->device);
        return -EXDEV;
    }
    return 0;
}
