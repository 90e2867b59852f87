/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads rdma-core, and keeps the table of what failed work completions mean.
 */
#include "rdma/verbs_library.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

struct verbs_library verbs;
static int library_error;

/* dlsym's result is not a function pointer to ISO C; POSIX says it may be copied into one. */
static void library_symbol(void *handle, const char *name, void *function)
{
    void *symbol = dlsym(handle, name);

    if (!symbol)
        library_error = -ELIBACC;
    memcpy(function, &symbol, sizeof(symbol));
}

static void library_open(void)
{
    void *handle = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
    void *cm_handle = dlopen("librdmacm.so.1", RTLD_NOW | RTLD_LOCAL);

    if (!handle || !cm_handle) {
        library_error = -ELIBACC;
        return;
    }
#define VERBS_LOAD(name)    library_symbol(handle, #name, &verbs.name);
#define VERBS_CM_LOAD(name) library_symbol(cm_handle, #name, &verbs.name);
    VERBS_FUNCTIONS(VERBS_LOAD)
    VERBS_CM_FUNCTIONS(VERBS_CM_LOAD)
}

int verbs_library_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, library_open);
    return library_error;
}

bool verbs_device_exists(void)
{
    DIR *folder = opendir("/sys/class/infiniband");
    const struct dirent *entry;
    bool found = false;

    while (folder && !found && (entry = readdir(folder)))
        found = entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return found;
}

int verbs_event_channel_open(struct rdma_event_channel **out)
{
    struct rdma_event_channel *channel = verbs.rdma_create_event_channel();
    int flags;

    if (!channel)
        return errno == ENOENT ? -ENODEV : -errno;
    flags = fcntl(channel->fd, F_GETFL);
    if (flags < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(channel->fd, F_SETFD, FD_CLOEXEC) < 0) {
        int error = -errno;

        verbs.rdma_destroy_event_channel(channel);
        return error;
    }
    *out = channel;
    return 0;
}

/* InfiniBand Architecture Specification vol. 1, 11.6.2; every one ends a reliable connection. */
static const struct verbs_fault faults[] = {
    [IBV_WC_LOC_LEN_ERR] = {-ECONNRESET, "longer than the port can carry"},
    [IBV_WC_LOC_QP_OP_ERR] = {-ECONNRESET, "is this host's link down?"},
    [IBV_WC_LOC_EEC_OP_ERR] = {-ECONNRESET, "is this host's link down?"},
    [IBV_WC_LOC_PROT_ERR] = {-ECONNRESET, "this host's buffer is not registered"},
    [IBV_WC_WR_FLUSH_ERR] = {-ECONNRESET, "the connection had ended"},
    [IBV_WC_MW_BIND_ERR] = {-ECONNRESET, "not used by farvisor"},
    [IBV_WC_BAD_RESP_ERR] = {-ECONNRESET, "the other end broke the protocol"},
    [IBV_WC_LOC_ACCESS_ERR] = {-ECONNRESET, "this host's buffer is not registered"},
    [IBV_WC_REM_INV_REQ_ERR] = {-ECONNRESET, "the memory node does not take such transfers"},
    [IBV_WC_REM_ACCESS_ERR] = {-ECONNRESET, "the memory node withdrew the memory"},
    [IBV_WC_REM_OP_ERR] = {-ECONNRESET, "the memory node's device failed"},
    [IBV_WC_RETRY_EXC_ERR] = {-ETIMEDOUT, "is the link or the memory node down?"},
    [IBV_WC_RNR_RETRY_EXC_ERR] = {-ETIMEDOUT, "the memory node's device was never ready"},
    [IBV_WC_LOC_RDD_VIOL_ERR] = {-ECONNRESET, "not used by farvisor"},
    [IBV_WC_REM_INV_RD_REQ_ERR] = {-ECONNRESET, "not used by farvisor"},
    [IBV_WC_REM_ABORT_ERR] = {-ECONNRESET, "the memory node gave the transfer up"},
    [IBV_WC_INV_EECN_ERR] = {-ECONNRESET, "not used by farvisor"},
    [IBV_WC_INV_EEC_STATE_ERR] = {-ECONNRESET, "not used by farvisor"},
    [IBV_WC_FATAL_ERR] = {-ECONNRESET, "this host's device failed"},
    [IBV_WC_RESP_TIMEOUT_ERR] = {-ETIMEDOUT, "is the link or the memory node down?"},
    [IBV_WC_GENERAL_ERR] = {-ECONNRESET, "this host's device failed"},
    [IBV_WC_TM_ERR] = {-ECONNRESET, "not used by farvisor"},
    [IBV_WC_TM_RNDV_INCOMPLETE] = {-ECONNRESET, "not used by farvisor"},
};

const struct verbs_fault *verbs_fault_of(enum ibv_wc_status status)
{
    if (status <= IBV_WC_SUCCESS || (size_t)status >= sizeof(faults) / sizeof(faults[0]))
        return &faults[IBV_WC_GENERAL_ERR];
    return &faults[status];
}
