/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine over a real memserver, second stage and userfaultfd, for the tests of what it does;
 * their threads stand where vCPUs and the VMM's system calls would, using pins. Needs $MEMSERVER
 * and /dev/kvm. Included once by each test program.
 */
#ifndef TESTS_UNIT_FAULT_ENGINE_H
#define TESTS_UNIT_FAULT_ENGINE_H

#include "farvisor/hints.h"
#include "fault/fault.h"
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST        ((1ULL << 38) / EPT_PAGE_BYTES + 512)
#define LOCAL_PAGES  2048u
#define MEMORY_PAGES 32768u

static int kvm = -1, vm = -1;
static pid_t server;
static struct ept *ept;
static struct rdma_node *node;
static struct fault_engine *engine;
static struct fault_context *context;
static char address[128];
static const char *transport = "auto";
static uint64_t timeout_ns = 5000000000u;

static inline void server_start(void)
{
    int ready[2];
    char fd[16], line[128] = "";
    snprintf(address, sizeof(address), "unix:/tmp/check_engine.%d", (int)getpid());
    ck_assert_int_eq(pipe(ready), 0);
    server = fork();
    ck_assert_int_ge(server, 0);
    if (server == 0) {
        close(ready[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(fd, sizeof(fd), "%d", ready[1]);
        execl(getenv("MEMSERVER"), "memserver", "--listen", address, "--capacity", "256M",
              "--ready-fd", fd, (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    ck_assert_int_gt(read(ready[0], line, sizeof(line) - 1), 0);
    close(ready[0]);
}

/* Memory whose second half is a file's, if it is said to be. */
#define FILE_FIRST (FIRST + MEMORY_PAGES)
static bool has_file;
static atomic_uint_fast64_t file_reads; /* pages */
static atomic_bool host_fills;          /* all of it, as if a shared file were mapped there */

static inline int extent(void *owner, uint64_t page, uint64_t *first, uint64_t *last, bool *zero)
{
    (void)owner;
    if (page < FIRST || page >= FIRST + 2 * MEMORY_PAGES)
        return -EFAULT;
    *zero = !has_file || page < FILE_FIRST;
    *first = *zero ? FIRST : FILE_FIRST;
    *last = has_file && *zero ? FILE_FIRST : FIRST + 2 * MEMORY_PAGES;
    return atomic_load(&host_fills) ? 1 : 0;
}

/* What page_get takes for this page's number. */
static inline int file_read(void *owner, uint64_t page, uint64_t pages, void *to)
{
    uint64_t *words = to;
    (void)owner;
    for (uint64_t i = 0; i < pages * 512; i++)
        words[i] = page + i / 512 + i % 512;
    atomic_fetch_add(&file_reads, pages);
    return 0;
}

static inline void setup(void)
{
    message_init("check_engine", MESSAGE_NORMAL);
    server_start();
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm, 0);
    struct ept_config second = {.kvm_fd = kvm, .vm_fd = vm, .paged = true, .exit_mode = true};
    ck_assert_int_eq(ept_create(&ept, &second), 0);
    gpa_t gpa = FIRST << EPT_PAGE_SHIFT;
    ck_assert_int_eq(ept_back(ept, gpa, 2ULL * MEMORY_PAGES * EPT_PAGE_BYTES), 0);
    ck_assert_int_eq(ept_protect(ept, gpa, 16 << 20, EPT_READ | EPT_WRITE), 0);
    struct rdma_config far = {.transport = transport,
                              .address = address,
                              .name = "check_engine",
                              .quota_bytes = 128 << 20,
                              .timeout_ns = 5000000000u,
                              .span_pages = ept_span(ept) >> EPT_PAGE_SHIFT};
    ck_assert_int_eq(rdma_node_connect(&node, &far), 0);
    struct fault_config config = {.ept = ept,
                                  .node = node,
                                  .memory_pages = MEMORY_PAGES,
                                  .local_pages = LOCAL_PAGES,
                                  .timeout_ns = timeout_ns,
                                  .source = {.extent = extent, .read = file_read}};
    ck_assert_int_eq(fault_engine_create(&engine, &config), 0);
    ck_assert_int_eq(fault_context_create(engine, &context), 0);
}

static inline void teardown(void)
{
    fault_context_destroy(context);
    fault_engine_destroy(engine);
    rdma_node_destroy(node);
    ept_destroy(ept);
    close(vm);
    close(kvm);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    unlink(address + strlen("unix:"));
}

static inline uint64_t *bytes_of(uint64_t page)
{
    return ept_hva(ept, page << EPT_PAGE_SHIFT);
}

static inline void page_put(struct fault_context *by, uint64_t page, uint64_t value)
{
    ck_assert_int_eq(fault_pin(by, page, 1, true), 0);
    for (int i = 0; i < 512; i += 73)
        bytes_of(page)[i] = value + (uint64_t)i;
    fault_unpin(engine, page, 1);
}

static inline uint64_t page_get(struct fault_context *by, uint64_t page)
{
    ck_assert_int_eq(fault_pin(by, page, 1, false), 0);
    uint64_t value = bytes_of(page)[0];
    for (int i = 0; i < 512; i += 73)
        ck_assert_uint_eq(bytes_of(page)[i], value ? value + (uint64_t)i : 0);
    fault_unpin(engine, page, 1);
    return value;
}

static inline struct fault_counters counters(void)
{
    struct fault_counters now;
    fault_engine_counters(engine, &now);
    return now;
}

static inline uint8_t residency(uint64_t page)
{
    uint8_t state = 99;
    ck_assert_int_eq(fault_residency(engine, page, 1, &state), 0);
    return state;
}

/* A range whose pages were all written and are all away now. */
static inline void range_send_away(uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        page_put(context, FIRST + i, 1000 * i + 1000);
    for (uint64_t i = pages; i < pages + 2 * LOCAL_PAGES; i++)
        page_put(context, FIRST + i, 7);
}

static inline unsigned resident(uint64_t page, uint64_t pages)
{
    uint8_t here[512];
    unsigned count = 0;
    ck_assert_int_eq(fault_residency(engine, page, pages, here), 0);
    for (uint64_t i = 0; i < pages; i++)
        count += here[i] == FV_PAGE_LOCAL;
    return count;
}

/* Advice may find no frame free, or the lane busy: given again until it was taken. */
static inline void prefetch_until_resident(uint64_t page, uint64_t pages)
{
    for (int i = 0; i < 5000 && resident(page, pages) < pages; i++) {
        ck_assert_int_ge(fault_prefetch(context, page, pages), 0);
        usleep(1000);
    }
    ck_assert_uint_eq(resident(page, pages), pages);
}

/* Ends the program, with a reason, where the tests cannot run. */
static inline void engine_requirements(void)
{
    if (access("/dev/kvm", R_OK | W_OK))
        unit_skip("no /dev/kvm");
    if (!getenv("MEMSERVER"))
        unit_skip("$MEMSERVER is not set");
}

#endif
