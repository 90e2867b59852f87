/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doctor: the rest of the host. Nothing here but a missing program file keeps guests from running;
 * the rest says how fast, and which transports there are.
 */
#include "vmm/cli/cli.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static void check_memory(void)
{
    char total[32], available[32] = "?";
    char line[128];
    struct sysinfo info;
    unsigned long long kib;

    if (sysinfo(&info))
        return;
    FILE *meminfo = fopen("/proc/meminfo", "re");
    while (meminfo && fgets(line, sizeof(line), meminfo)) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            format_bytes(kib << 10, available, sizeof(available));
    }
    if (meminfo)
        fclose(meminfo);
    doctor_line(DOCTOR_OK, "memory", NULL, "%s, %s available; %d processors",
                format_bytes((uint64_t)info.totalram * info.mem_unit, total, sizeof(total)),
                available, get_nprocs());
}

static void check_hugepages(void)
{
    char free_pages[32] = "0";

    doctor_read_line("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", free_pages,
                     sizeof(free_pages));
    bool none = strcmp(free_pages, "0") == 0;

    doctor_line(
        DOCTOR_OK, "huge pages", NULL, "%s of 2 MiB free%s", free_pages,
        none
            ? " (memserver --hugepages and verbs' buffers want them: sudo sysctl vm.nr_hugepages=N)"
            : "");
}

/* verbs registers memory, and registered memory counts as locked. */
static void check_memlock(void)
{
    struct rlimit limit;
    char text[32];

    if (getrlimit(RLIMIT_MEMLOCK, &limit))
        return;
    if (limit.rlim_cur == RLIM_INFINITY || geteuid() == 0) {
        doctor_line(DOCTOR_OK, "memlock", NULL, "unlimited");
        return;
    }
    doctor_line(
        DOCTOR_WARN, "memlock",
        "echo \"$USER - memlock unlimited\" | sudo tee /etc/security/limits.d/farvisor.conf",
        "%s may be locked; matters for the verbs transport only",
        format_bytes(limit.rlim_cur, text, sizeof(text)));
}

/* One port: whether it can carry anything, and over what. Devices with more are seldom. */
static bool check_rdma_port(const char *device)
{
    char path[PATH_MAX], state[32] = "", layer[32] = "unknown";
    bool active;

    snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/state", device);
    doctor_read_line(path, state, sizeof(state)); /* "4: ACTIVE" */
    snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/link_layer", device);
    doctor_read_line(path, layer, sizeof(layer));
    active = strstr(state, "ACTIVE") != NULL;
    doctor_line(active ? DOCTOR_OK : DOCTOR_WARN, "RDMA device",
                active ? NULL : "ip link; rdma link   (is the cable in, the interface up?)",
                "%s: port 1 %s, %s", device, active ? "active" : "not active", layer);
    return active;
}

static void check_rdma_devices(void)
{
    DIR *folder = opendir("/sys/class/infiniband");
    const struct dirent *entry;
    unsigned found = 0, active = 0;

    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        found++;
        active += check_rdma_port(entry->d_name);
    }
    if (folder)
        closedir(folder);
    if (!found)
        doctor_line(DOCTOR_OK, "RDMA device", NULL,
                    "none: transports here are loopback and ofi (TCP)");
    else if (active && access("/dev/infiniband/rdma_cm", R_OK | W_OK))
        doctor_line(DOCTOR_WARN, "RDMA device", "sudo modprobe rdma_ucm",
                    "/dev/infiniband/rdma_cm: %s: the verbs transport cannot be used",
                    strerror(errno));
}

void doctor_check_host(void)
{
    check_memory();
    check_hugepages();
    check_memlock();
    check_rdma_devices();
}

static void check_file(const char *topic, const char *variable, const char *name)
{
    char path[PATH_MAX];

    if (install_find(variable, name, path, sizeof(path)) == 0)
        doctor_line(DOCTOR_OK, topic, NULL, "%s", path);
    else
        doctor_line(DOCTOR_FAIL, topic, "make all   (or: sudo make install)",
                    "%s not found beside the program nor in ../lib/farvisor", name);
}

void doctor_check_files(void)
{
    check_file("guest image", INSTALL_GUEST_VARIABLE, INSTALL_GUEST_NAME);
    check_file("memserver", INSTALL_MEMSERVER_VARIABLE, INSTALL_MEMSERVER_NAME);
}
