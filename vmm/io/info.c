/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program asks about the system and itself: memory, names, identity, process attributes.
 * Also the answers to what it may not do.
 */
#include "vmm/io/hostio_internal.h"

#include "fault/fault.h"

#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#define GROUPS_MAX 1024

uint64_t io_memory_free(struct hostio *io)
{
    uint64_t total = io->config->memory_bytes, used;
    struct fault_counters counters;

    if (!io->vm || !io->vm->engine)
        return total;
    fault_engine_counters(io->vm->engine, &counters);
    used = counters.existing_pages * FV_PAGE_SIZE;
    return used < total ? total - used : 0;
}

int64_t io_sysinfo(const struct io_call *call)
{
    struct sysinfo info;

    if (sysinfo(&info))
        return -errno;
    info.totalram = call->io->config->memory_bytes;
    info.freeram = io_memory_free(call->io);
    info.sharedram = info.bufferram = info.totalswap = info.freeswap = 0;
    info.totalhigh = info.freehigh = 0;
    info.mem_unit = 1;
    return guestmem_write(call->vm, call->args[0], &info, sizeof(info));
}

int64_t io_uname(const struct io_call *call)
{
    struct utsname name;
    int64_t result = IO_HOST1(SYS_uname, &name);

    return result ? result : guestmem_write(call->vm, call->args[0], &name, sizeof(name));
}

/* ---- identity: the VMM's own, since host files are opened with it ---- */

static int64_t ids_write(const struct io_call *call, uint32_t real, uint32_t effective,
                         uint32_t saved)
{
    const uint32_t ids[3] = {real, effective, saved};
    int error = 0;

    for (unsigned i = 0; !error && i < 3; i++)
        error = guestmem_write(call->vm, call->args[i], &ids[i], sizeof(ids[i]));
    return error;
}

int64_t io_getresid(const struct io_call *call)
{
    uint32_t ids[3];

    if (call->number == SYS_getresuid)
        (void)getresuid(&ids[0], &ids[1], &ids[2]);
    else
        (void)getresgid(&ids[0], &ids[1], &ids[2]);
    return ids_write(call, ids[0], ids[1], ids[2]);
}

/* Nothing changes: only what is already held, or -1 ("leave it"), may be asked for. */
int64_t io_setid(const struct io_call *call)
{
    bool group =
        call->number == SYS_setgid || call->number == SYS_setregid || call->number == SYS_setresgid;
    uint32_t held[3];
    unsigned count = 3;

    if (group)
        (void)getresgid(&held[0], &held[1], &held[2]);
    else
        (void)getresuid(&held[0], &held[1], &held[2]);
    if (call->number == SYS_setuid || call->number == SYS_setgid)
        count = 1;
    else if (call->number == SYS_setreuid || call->number == SYS_setregid)
        count = 2;
    for (unsigned i = 0; i < count; i++) {
        uint32_t id = io_arg_u32(call, i);

        if (id != held[i] && (count == 1 || id != UINT32_MAX))
            return -EPERM;
    }
    return 0;
}

int64_t io_getgroups(const struct io_call *call)
{
    gid_t groups[GROUPS_MAX];
    int room = io_arg_int(call, 0), error = 0;
    int64_t count = IO_HOST2(SYS_getgroups, room < GROUPS_MAX ? room : GROUPS_MAX, groups);

    if (count > 0 && room)
        error = guestmem_write(call->vm, call->args[1], groups, (size_t)count * sizeof(gid_t));
    return error ? error : count;
}

/* The program has none, whoever runs the VMM. */
int64_t io_capget(const struct io_call *call)
{
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    int error = guestmem_read(call->vm, &header, call->args[0], sizeof(header));

    if (error)
        return error;
    if (header.version != _LINUX_CAPABILITY_VERSION_3) {
        header.version = _LINUX_CAPABILITY_VERSION_3;
        error = guestmem_write(call->vm, call->args[0], &header, sizeof(header));
        return error ? error : call->args[1] ? -EINVAL : 0;
    }
    if (!io_is_ours(call, header.pid))
        return -ESRCH;
    return call->args[1] ? guestmem_write(call->vm, call->args[1], none, sizeof(none)) : 0;
}

int64_t io_personality(const struct io_call *call)
{
    uint32_t persona = io_arg_u32(call, 0);

    return persona && persona != UINT32_MAX ? -EINVAL : 0;
}

int64_t io_umask(const struct io_call *call)
{
    return IO_HOST1(SYS_umask, call->args[0] & 0777);
}

/* ---- prctl ---- */

#define COMM_BYTES 16

static int64_t prctl_set_name(const struct io_call *call)
{
    char name[COMM_BYTES];
    long bytes = guestmem_read_string(call->vm, name, call->args[1], sizeof(name));

    name[COMM_BYTES - 1] = '\0'; /* Linux cuts a longer one, too */
    if (bytes < 0 && bytes != -ENAMETOOLONG)
        return bytes;
    return IO_HOST2(SYS_prctl, PR_SET_NAME, name);
}

static int64_t prctl_get_name(const struct io_call *call)
{
    char name[COMM_BYTES] = {0};
    int64_t result = IO_HOST2(SYS_prctl, PR_GET_NAME, name);

    return result ? result : guestmem_write(call->vm, call->args[1], name, sizeof(name));
}

int64_t io_prctl(const struct io_call *call)
{
    const int zero = 0;

    switch (io_arg_int(call, 0)) {
    case PR_SET_NAME:
        return prctl_set_name(call);
    case PR_GET_NAME:
        return prctl_get_name(call);
    case PR_SET_TIMERSLACK:
    case PR_GET_TIMERSLACK:
        return IO_HOST2(SYS_prctl, io_arg_int(call, 0), call->args[1]);
    case PR_SET_PDEATHSIG:
    case PR_SET_DUMPABLE:
    case PR_SET_NO_NEW_PRIVS:
    case PR_SET_CHILD_SUBREAPER:
    case PR_SET_THP_DISABLE:
    case PR_SET_KEEPCAPS:
    case PR_GET_KEEPCAPS:
    case PR_GET_THP_DISABLE:
    case PR_GET_SECCOMP:
    case PR_CAPBSET_READ:
        return 0;
    case PR_GET_PDEATHSIG:
    case PR_GET_CHILD_SUBREAPER:
        return guestmem_write(call->vm, call->args[1], &zero, sizeof(zero));
    case PR_GET_DUMPABLE:
    case PR_GET_NO_NEW_PRIVS:
        return 1;
    case PR_SET_MM:
    case PR_CAPBSET_DROP:
        return -EPERM;
    default:
        return -EINVAL;
    }
}

/* ---- answers that are always the same ---- */

int64_t io_zero(const struct io_call *call)
{
    (void)call;
    return 0;
}

int64_t io_no_child(const struct io_call *call)
{
    (void)call;
    return -ECHILD;
}

int64_t io_refuse_perm(const struct io_call *call)
{
    (void)call;
    return -EPERM;
}

int64_t io_refuse_nosys(const struct io_call *call)
{
    (void)call;
    return -ENOSYS;
}

int64_t io_refuse_inval(const struct io_call *call)
{
    (void)call;
    return -EINVAL;
}
