/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second lock on the door: should a guest ever take over the VMM, the host kernel itself holds
 * it to what the guest was granted. Landlock bounds the files that can be opened from now on,
 * seccomp (sandbox_filter.c) the system calls, no_new_privs rules out set-user-id programs.
 *
 * Files are bounded before the memory node is connected and so before there is any other thread:
 * later ones inherit it. No later than that, for it changes the process's credentials, and RDMA's
 * files serve only whoever has those that they were opened with. System calls are bounded last, on
 * every thread. What the host kernel does not offer is left out with a line under --verbose.
 */
#include "vmm/io/hostio_internal.h"
#include "vmm/sandbox_internal.h"

#include "rdma/rdma.h"
#include "support.h"

#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rights newer than the oldest headers we build with. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif

/* Rights on TCP ports, Linux 6.7. */
#define NET_BIND    (1ULL << 0) /* LANDLOCK_ACCESS_NET_BIND_TCP */
#define NET_CONNECT (1ULL << 1) /* LANDLOCK_ACCESS_NET_CONNECT_TCP */
#define RULE_PORT   2           /* LANDLOCK_RULE_NET_PORT */
struct ruleset {
    uint64_t files, net; /* rights that are taken away but for rules */
};
struct port_rule {
    uint64_t allowed, port;
};

#define RIGHTS_V1   ((1ULL << 13) - 1)
#define RIGHTS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define RIGHTS_RUN  (RIGHTS_READ | LANDLOCK_ACCESS_FS_EXECUTE)
/* Making device nodes: for root a way to every disk. */
#define RIGHTS_DEVICE (LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)
#define RIGHTS_FILE                                                                                \
    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE |   \
     LANDLOCK_ACCESS_FS_TRUNCATE | LANDLOCK_ACCESS_FS_IOCTL_DEV)

/* What the VMM and its libraries themselves read: their own process, devices' descriptions. */
static const char *const own_read[] = {"/proc", "/sys"};
/* A link out of /etc on many systems; names of memory nodes are looked up with it. */
static const char resolver[] = "/etc/resolv.conf";
static const char rdma_devices[] = "/dev/infiniband";

/* Every right the host's Landlock knows; 0: none at all. */
static uint64_t rights_known(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    uint64_t rights = RIGHTS_V1;

    if (abi < 1)
        return 0;
    if (abi >= 2)
        rights |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= 3)
        rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
    if (abi >= 5)
        rights |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
    return rights;
}

static int rule_add(int ruleset, int fd, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};

    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
        return -errno;
    return 0;
}

static int rule_add_path(int ruleset, const char *path, uint64_t rights)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    int error;

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    error = rule_add(ruleset, fd, rights);
    close(fd);
    return error;
}

/* The guest's grants. */
static int rules_for_mounts(int ruleset, const struct io_mounts *mounts, uint64_t known)
{
    int error = 0;

    for (unsigned i = 0; !error && i < mounts->count; i++) {
        const struct io_mount *mount = mounts->list[i];
        uint64_t rights = mount->writable ? known & ~RIGHTS_DEVICE : RIGHTS_RUN;

        if (!mount->directory)
            rights &= RIGHTS_FILE;
        if (!mount->hidden)
            error = rule_add(ruleset, mount->fd, rights & known);
    }
    return error;
}

/* A scratch directory and its removal, which is a right on the directory it lies in. */
static int rules_for_scratch(int ruleset, const struct io_scratch *scratch, uint64_t known)
{
    char parent[PATH_MAX];
    char *slash;
    int error = rule_add(ruleset, scratch->fd, known & ~RIGHTS_DEVICE);

    if (error)
        return error;
    snprintf(parent, sizeof(parent), "%s", scratch->path);
    slash = strrchr(parent, '/');
    *slash = '\0';
    return rule_add_path(ruleset, parent[0] ? parent : "/", LANDLOCK_ACCESS_FS_REMOVE_DIR);
}

/* What connecting to a memory node opens. */
static int rules_for_node(int ruleset, uint64_t known)
{
    uint64_t use = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                   LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_IOCTL_DEV;
    int error = rule_add_path(ruleset, resolver, LANDLOCK_ACCESS_FS_READ_FILE);

    return error ? error : rule_add_path(ruleset, rdma_devices, use & known);
}

static int rules_for_vmm(int ruleset, const struct io_mounts *mounts, uint64_t known)
{
    int error = rules_for_scratch(ruleset, &mounts->disk, known);

    if (!error)
        error = rules_for_scratch(ruleset, &mounts->memory, known);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* names in their reports */
    if (!error)
        error = rule_add_path(ruleset, "/proc/self/exe", LANDLOCK_ACCESS_FS_READ_FILE);
#endif
    for (size_t i = 0; !error && i < sizeof(own_read) / sizeof(own_read[0]); i++)
        error = rule_add_path(ruleset, own_read[i], RIGHTS_READ);
    return error;
}

/* Transports over a network make connections of their own while the guest runs. */
static bool has_network_node(const struct vm *vm)
{
    if (vm->config->memserver) /* not connected yet when files are bounded */
        return true;
    return vm->node && strncmp(rdma_node_describe(vm->node), "loopback", strlen("loopback")) != 0;
}

/* The rights on TCP ports that can be bounded; UDP is guarded by the VMM alone. */
static uint64_t net_rights(const struct vm *vm)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    uint64_t rights = NET_BIND | NET_CONNECT;

    if (abi < 4 || has_network_node(vm))
        return 0;
    for (size_t i = 0; i < vm->config->connect_count; i++) {
        if (!vm->config->connect[i].port)
            rights &= ~NET_CONNECT;
    }
    return rights;
}

static int rules_for_ports(int ruleset, const struct net_rule *rules, size_t count, uint64_t right)
{
    for (size_t i = 0; i < count; i++) {
        struct port_rule rule = {.allowed = right, .port = rules[i].port};

        if (!rules[i].udp && syscall(SYS_landlock_add_rule, ruleset, RULE_PORT, &rule, 0))
            return -errno;
    }
    return 0;
}

static int rules_for_net(int ruleset, const struct run_config *config, uint64_t rights)
{
    static const struct net_rule any = {.port = 0}; /* of the host's choice, to connect from */
    int error = 0;

    if (rights & NET_BIND)
        error = rules_for_ports(ruleset, config->publish, config->publish_count, NET_BIND);
    if (!error && rights & NET_BIND && config->net)
        error = rules_for_ports(ruleset, &any, 1, NET_BIND);
    if (!error && rights & NET_CONNECT)
        error = rules_for_ports(ruleset, config->connect, config->connect_count, NET_CONNECT);
    return error;
}

static int landlock_enter(const struct vm *vm, bool with_node)
{
    const struct hostio *io = vm->io;
    uint64_t known = rights_known();
    struct ruleset attr = {.files = known, .net = net_rights(vm)};
    size_t attr_bytes = attr.net ? sizeof(attr) : sizeof(attr.files);
    int error, ruleset;

    if (!known) {
        message_info("sandbox: this host has no Landlock: files are guarded by the VMM alone");
        return 0;
    }
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, attr_bytes, 0);
    if (ruleset < 0)
        return -errno;
    error = rules_for_mounts(ruleset, &io->mounts, known);
    if (!error)
        error = rules_for_vmm(ruleset, &io->mounts, known);
    if (!error && with_node)
        error = rules_for_node(ruleset, known);
    if (!error)
        error = rules_for_net(ruleset, vm->config, attr.net);
    if (!error && syscall(SYS_landlock_restrict_self, ruleset, 0))
        error = -errno;
    close(ruleset);
    return error;
}

int sandbox_files(struct vm *vm)
{
    int error;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
        message_error("sandbox: no_new_privs: %s", strerror(errno));
        return -errno;
    }
    error = landlock_enter(vm, vm->config->memserver != NULL);
    if (error)
        message_error("sandbox: Landlock: %s", strerror(-error));
    return error;
}

int sandbox_calls(const struct vm *vm)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6}; /* the first alone without --net */
    int error =
        sandbox_filter_load(has_network_node(vm) ? NULL : families, vm->config->net ? 3 : 1);

    if (error == -EINVAL) {
        message_info("sandbox: this host has no seccomp filters: system calls are not bounded");
        return 0;
    }
    if (error)
        message_error("sandbox: seccomp: %s", strerror(-error));
    return error;
}
