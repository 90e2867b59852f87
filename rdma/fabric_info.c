/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads libfabric and asks it for its tcp provider: connected (MSG) endpoints, offsets and keys
 * chosen by the server for remote memory, any local memory. Connected endpoints rather than
 * datagram-like ones (RDM), because then the client listens nowhere and each queue has a TCP
 * connection of its own. Source: fi_getinfo(3), fi_tcp(7), libfabric 1.17.
 */
#include "rdma/fabric_info.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <stdlib.h>
#include <string.h>

#define FABRIC_VERSION FI_VERSION(1, 17)

static struct {
    int (*getinfo)(uint32_t, const char *, const char *, uint64_t, const struct fi_info *,
                   struct fi_info **);
    void (*freeinfo)(struct fi_info *);
    struct fi_info *(*dupinfo)(const struct fi_info *);
    int (*fabric)(struct fi_fabric_attr *, struct fid_fabric **, void *);
    const char *(*strerror)(int);
    int error;
} library;

/* dlsym's result is not a function pointer to ISO C; POSIX says it may be copied into one. */
static void library_symbol(void *handle, const char *name, void *function)
{
    void *symbol = dlsym(handle, name);

    if (!symbol)
        library.error = -ELIBACC;
    memcpy(function, &symbol, sizeof(symbol));
}

/* The first call starts the providers; the filter keeps all but one out of later ones. */
static void library_start(void)
{
    bool filtered = !getenv("FI_PROVIDER") && setenv("FI_PROVIDER", "tcp", 0) == 0;
    struct fi_info *info = NULL;

    if (library.getinfo(FABRIC_VERSION, NULL, NULL, 0, NULL, &info) == 0)
        library.freeinfo(info);
    if (filtered)
        unsetenv("FI_PROVIDER");
}

static void library_open(void)
{
    void *handle = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);

    if (!handle) {
        library.error = -ELIBACC;
        return;
    }
    library_symbol(handle, "fi_getinfo", &library.getinfo);
    library_symbol(handle, "fi_freeinfo", &library.freeinfo);
    library_symbol(handle, "fi_dupinfo", &library.dupinfo);
    library_symbol(handle, "fi_fabric", &library.fabric);
    library_symbol(handle, "fi_strerror", &library.strerror);
    if (!library.error)
        library_start();
}

static void library_open_quietly(void)
{
    fabric_start_quietly(library_open);
}

int fabric_library_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, library_open_quietly);
    return library.error;
}

static int info_hints(struct fi_info *hints, const struct address *address, bool listens,
                      size_t depth)
{
    void *name = malloc(address->bytes);

    hints->fabric_attr->prov_name = strdup("tcp");
    if (!name || !hints->fabric_attr->prov_name) {
        free(name);
        return -ENOMEM;
    }
    memcpy(name, &address->storage, address->bytes);
    hints->ep_attr->type = FI_EP_MSG;
    hints->caps = FI_MSG | FI_RMA;
    hints->addr_format = FI_SOCKADDR;
    hints->domain_attr->mr_mode = 0;
    hints->domain_attr->threading = FI_THREAD_SAFE;
    hints->tx_attr->size = depth;
    if (listens) {
        hints->src_addr = name;
        hints->src_addrlen = address->bytes;
    } else {
        hints->dest_addr = name;
        hints->dest_addrlen = address->bytes;
    }
    return 0;
}

int fabric_info_get(struct fi_info **info, const struct address *address, bool listens,
                    size_t depth)
{
    struct fi_info *hints;
    int error = fabric_library_load();

    if (error)
        return error;
    hints = library.dupinfo(NULL); /* an empty one, all parts allocated */
    error = hints ? info_hints(hints, address, listens, depth) : -ENOMEM;
    if (!error)
        error = library.getinfo(FABRIC_VERSION, NULL, NULL, 0, hints, info);
    if (hints)
        library.freeinfo(hints);
    return error;
}

void fabric_info_free(struct fi_info *info)
{
    library.freeinfo(info);
}

int fabric_open(struct fi_fabric_attr *attribute, struct fid_fabric **out)
{
    int error = fabric_library_load();

    return error ? error : library.fabric(attribute, out, NULL);
}

const char *fabric_strerror(int error)
{
    return fabric_library_load() || error == ELIBACC ? strerror(error) : library.strerror(error);
}
