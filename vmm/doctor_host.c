/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doctor: the rest of the host. Nothing here but a missing program file keeps guests from running;
 * the rest says how fast, and which transports there are.
 */
#include "vmm/cli.h"

#include <dirent.h>
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

    doctor_line(DOCTOR_OK, "huge pages", NULL, "%s of 2 MiB free%s", free_pages,
                none ? " (only memserver --hugepages wants them: sudo sysctl vm.nr_hugepages=N)"
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

static void check_rdma_devices(void)
{
    char names[256] = "";
    size_t used = 0;
    DIR *folder = opendir("/sys/class/infiniband");
    struct dirent *entry;

    while (folder && (entry = readdir(folder))) {
        size_t length = strlen(entry->d_name);

        if (entry->d_name[0] == '.' || used + length + 2 > sizeof(names))
            continue;
        names[used++] = ' ';
        memcpy(names + used, entry->d_name, length + 1);
        used += length;
    }
    if (folder)
        closedir(folder);
    if (used)
        doctor_line(DOCTOR_OK, "RDMA devices", NULL, "found:%s", names);
    else
        doctor_line(DOCTOR_OK, "RDMA devices", NULL,
                    "none: transports here are loopback and ofi (TCP)");
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
