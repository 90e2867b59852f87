/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which RDMA device, port and GID a user insists on: "device=mlx5_1,port=1,gid=3". Without, the
 * route to the peer decides. Used by both ends: the connecting one goes out by the address that the
 * GID stands for, the memory server takes only what comes in there. Knows sysfs, no library, and so
 * can say what is wrong before anything is loaded.
 */
#ifndef FARVISOR_RDMA_VERBS_SELECT_H
#define FARVISOR_RDMA_VERBS_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define VERBS_DEVICE_BYTES 64u /* IBV_SYSFS_NAME_MAX */
#define VERBS_GID_BYTES    16u
#define VERBS_WHY_BYTES    192u
#define VERBS_SYSFS        "/sys/class/infiniband"

/* All zero: no wish. */
struct verbs_selection {
    char device[VERBS_DEVICE_BYTES]; /* "": any */
    uint8_t port;                    /* 0: any; counted from 1 */
    bool gid_given;
    uint16_t gid;      /* index in the port's table */
    const char *sysfs; /* NULL: VERBS_SYSFS; another for tests */
};

/*
 * verbs_selection_set - one "key=value". 0, or -EINVAL with a text for the user in why (of
 * VERBS_WHY_BYTES, as below), which begins with what is wrong and needs no more around it.
 */
int verbs_selection_set(struct verbs_selection *selection, const char *key, const char *value,
                        char *why);
/* "device=x,port=1": each of them. `text` is not kept. 0 or -EINVAL. */
int verbs_selection_parse(struct verbs_selection *selection, const char *text, char *why);

/*
 * verbs_selection_check - do they belong together, and does this host have them?
 * 0, -EINVAL (port or gid without a device), -ENODEV (no such device, port, or GID). Reads sysfs.
 */
int verbs_selection_check(const struct verbs_selection *selection, char *why);

/*
 * verbs_selection_source - the address to connect from, so that the connection manager takes that
 * device, port and GID: the one that the chosen GID stands for, or else the first of the port in
 * the peer's family. On InfiniBand, whose GIDs are no addresses, only device and port can be had,
 * and they by the address of their IPoIB interface.
 * 0 with *out set, 1: nothing was asked for, -EADDRNOTAVAIL with why.
 */
int verbs_selection_source(const struct verbs_selection *selection, sa_family_t family,
                           struct sockaddr_storage *out, char *why);

/* What a connection has. */
struct verbs_path {
    const char *device;
    uint8_t port;
    const uint8_t *gid; /* VERBS_GID_BYTES, the local one */
};
/* 0, or -EXDEV with why: it is another than was asked for. */
int verbs_selection_matches(const struct verbs_selection *selection, const struct verbs_path *path,
                            char *why);

#endif
