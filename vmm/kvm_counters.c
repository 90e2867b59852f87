/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's own counters of a vCPU, for --stats (KVM documentation, 4.133 KVM_GET_STATS_FD; Linux
 * 5.14). They are read through a file of their own: opened by the vCPU's thread, because KVM's lock
 * of a vCPU is held while the guest runs, and read by any thread, without it.
 */
#include "vmm/machine.h"

#include "support.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NAME_BYTES_MAX 128u

void kvm_counters_open(struct vcpu *vcpu)
{
    if (vcpu->vm->config->stats_path)
        vcpu->kvm_stats_fd = ioctl(vcpu->fd, KVM_GET_STATS_FD, 0);
}

void kvm_counters_close(struct vcpu *vcpu)
{
    if (vcpu->kvm_stats_fd >= 0)
        close(vcpu->kvm_stats_fd);
    vcpu->kvm_stats_fd = -1;
}

static bool read_all(int fd, void *to, size_t bytes, uint64_t offset)
{
    return pread(fd, to, bytes, (off_t)offset) == (ssize_t)bytes;
}

bool kvm_counter_read(const struct vcpu *vcpu, const char *name, uint64_t *value)
{
    struct kvm_stats_header header;
    union {
        struct kvm_stats_desc is; /* its name follows */
        char bytes[sizeof(struct kvm_stats_desc) + NAME_BYTES_MAX];
    } entry;
    int fd = vcpu->kvm_stats_fd;
    if (fd < 0 || !read_all(fd, &header, sizeof(header), 0) || header.name_size > NAME_BYTES_MAX)
        return false;
    size_t bytes = sizeof(entry.is) + header.name_size;
    for (uint32_t i = 0; i < header.num_desc; i++) {
        if (!read_all(fd, &entry, bytes, header.desc_offset + (uint64_t)i * bytes))
            return false;
        if (strncmp(entry.is.name, name, header.name_size) == 0)
            return entry.is.size == 1 && read_all(fd, value, sizeof(*value),
                                                  (uint64_t)header.data_offset + entry.is.offset);
    }
    return false;
}
