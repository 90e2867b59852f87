/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second stage on a real VM: guest tables, installing, protecting and dropping pages. KVM and
 * userfaultfd objects do not survive a fork, so they are made in a checked fixture.
 */
#include "ept/ept.h"
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

#define BASE ((1ULL << 39) - (4ULL << 30)) /* high, on the smallest host too */

static int kvm = -1, vm = -1;
static struct ept *ept;

static void machine_setup(bool paged, uint64_t bytes)
{
    message_init("check_ept", MESSAGE_NORMAL);
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(kvm, 0);
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm, 0);
    struct ept_config config = {
        .kvm_fd = kvm, .vm_fd = vm, .paged = paged, .exit_mode = paged, .map_ahead = paged};
    ck_assert_int_eq(ept_create(&ept, &config), 0);
    ck_assert_int_eq(ept_back(ept, BASE, bytes), 0);
}

static void vm_setup(void)
{
    machine_setup(true, 16 << 20);
}

static void memory_setup(void)
{
    machine_setup(false, 64 << 20);
}

static void vm_teardown(void)
{
    ept_destroy(ept);
    close(vm);
    close(kvm);
}

START_TEST(rights_follow_protect)
{
    ck_assert_uint_eq(ept_table_access(ept, BASE), EPT_NONE);
    ck_assert_int_eq(ept_protect(ept, BASE, 0x4000, EPT_READ | EPT_WRITE), 0);
    ck_assert_uint_eq(ept_table_access(ept, BASE + 0x3000), EPT_READ | EPT_WRITE);
    ck_assert_uint_eq(ept_table_access(ept, BASE + 0x4000), EPT_NONE);
    ck_assert_int_eq(ept_protect(ept, BASE + 0x1000, 0x1000, EPT_NONE), 0);
    ck_assert_uint_eq(ept_table_access(ept, BASE), EPT_READ | EPT_WRITE);
    ck_assert_uint_eq(ept_table_access(ept, BASE + 0x1000), EPT_NONE);
    ck_assert_int_eq(ept_protect(ept, BASE + 0x1000, 0x1000, EPT_READ | EPT_EXEC), 0);
    ck_assert_uint_eq(ept_table_access(ept, BASE + 0x1000), EPT_READ | EPT_EXEC);
}
END_TEST

START_TEST(large_ranges_get_tables_when_touched)
{
    uint64_t before = ept_table_bytes(ept);
    ck_assert_int_eq(ept_protect(ept, BASE, EPT_EAGER_BYTES * 8, EPT_READ), 0);
    ck_assert_uint_eq(ept_table_bytes(ept), before);
    ck_assert_uint_eq(ept_table_access(ept, BASE), EPT_NONE);
}
END_TEST

START_TEST(dirty_state_survives_losing_access)
{
    uint64_t page = BASE >> EPT_PAGE_SHIFT;
    ck_assert_int_eq(ept_protect(ept, BASE, 0x2000, EPT_READ | EPT_WRITE), 0);
    ck_assert(!ept_dirty(ept, page));
    ept_prime(ept, page, 2, true, true);
    ck_assert(ept_dirty(ept, page) && ept_dirty(ept, page + 1));
    ck_assert_int_eq(ept_protect(ept, BASE, 0x1000, EPT_NONE), 0);
    ck_assert_int_eq(ept_protect(ept, BASE, 0x1000, EPT_READ), 0);
    ck_assert(ept_dirty(ept, page));
    ept_dirty_clear(ept, page);
    ck_assert(!ept_dirty(ept, page));
}
END_TEST

START_TEST(pages_come_and_go)
{
    static uint8_t bytes[4 * EPT_PAGE_BYTES] __attribute__((aligned(4096)));
    uint64_t page = BASE >> EPT_PAGE_SHIFT;
    memset(bytes, 0x5a, sizeof(bytes));
    ck_assert_int_eq(ept_install(ept, page, bytes, 4), 0);
    ck_assert_int_eq(memcmp(ept_hva(ept, BASE), bytes, sizeof(bytes)), 0);
    ck_assert_int_eq(ept_install(ept, page + 1, bytes, 1), -EEXIST);
    ck_assert_uint_eq(ept_resident_bytes(ept), sizeof(bytes));
    ck_assert_int_eq(ept_unmap(ept, page, 4), 0);
    ck_assert_int_eq(memcmp(ept_hva(ept, BASE), bytes, sizeof(bytes)), 0);
    ck_assert_int_eq(ept_drop(ept, page, 4), 0);
    ck_assert_uint_eq(ept_resident_bytes(ept), 0);
    ck_assert_int_eq(ept_install_zero(ept, page, 4), 0);
    ck_assert_uint_eq(*(uint8_t *)ept_hva(ept, BASE + 0x2000), 0);
}
END_TEST

/* A system call that stores into a protected page must fail, and succeed when it is free again. */
START_TEST(protection_stops_stores)
{
    uint64_t page = BASE >> EPT_PAGE_SHIFT;
    int zero = open("/dev/zero", O_RDONLY);
    ck_assert_int_eq(ept_install_zero(ept, page, 2), 0);
    ck_assert_int_eq(ept_write_protect(ept, page, 1, true), 0);
    ck_assert_int_eq(read(zero, ept_hva(ept, BASE), 8), -1);
    ck_assert_int_eq(errno, EFAULT);
    ck_assert_int_eq(read(zero, ept_hva(ept, BASE + 0x1000), 8), 8);
    ck_assert_int_eq(ept_write_protect(ept, page, 1, false), 0);
    ck_assert_int_eq(read(zero, ept_hva(ept, BASE), 8), 8);
    close(zero);
}
END_TEST

/* Protection set, page dropped, page installed anew: it must be writable. */
START_TEST(drop_forgets_protection)
{
    uint64_t page = BASE >> EPT_PAGE_SHIFT;
    int zero = open("/dev/zero", O_RDONLY);
    for (int unmapped = 0; unmapped < 2; unmapped++) {
        ck_assert_int_eq(ept_install_zero(ept, page, 1), 0);
        if (unmapped)
            ck_assert_int_eq(ept_unmap(ept, page, 1), 0);
        ck_assert_int_eq(ept_write_protect(ept, page, 1, true), 0);
        ck_assert_int_eq(ept_drop(ept, page, 1), 0);
        ck_assert_int_eq(ept_install_zero(ept, page, 1), 0);
        ck_assert_int_eq(read(zero, ept_hva(ept, BASE), 8), 8);
        ck_assert_int_eq(ept_drop(ept, page, 1), 0);
    }
    close(zero);
}
END_TEST

START_TEST(missing_pages_fail_system_calls)
{
    int zero = open("/dev/zero", O_RDONLY);
    ck_assert_int_eq(read(zero, ept_hva(ept, BASE), 8), -1);
    ck_assert_int_eq(errno, EFAULT);
    close(zero);
}
END_TEST

/* Needs a kernel that can; elsewhere it must say that it cannot. */
START_TEST(mapping_ahead_ends_at_a_missing_page)
{
    uint64_t page = BASE >> EPT_PAGE_SHIFT;
    bool can = ioctl(vm, KVM_CHECK_EXTENSION, 236) > 0; /* KVM_CAP_PRE_FAULT_MEMORY */
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    ck_assert_int_ge(vcpu, 0);
    ck_assert(ept_maps_ahead(ept) == can);
    if (can) {
        ck_assert_int_eq(ept_protect(ept, BASE, 16 * EPT_PAGE_BYTES, EPT_READ | EPT_WRITE), 0);
        ept_accessed_clear(ept, page + 1);
        ck_assert_int_eq(ept_install_zero(ept, page, 4), 0);
        ck_assert_int_eq(ept_install_zero(ept, page + 5, 2), 0);
        ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page, 8), 4);
        ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page + 5, 2), 2);
        ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page + 1, 2), 2); /* mapped already */
        ck_assert(!ept_dirty(ept, page) && !ept_accessed(ept, page + 1));
        /* Nothing was filled where nothing was: it can still be installed. */
        ck_assert_uint_eq(ept_resident_bytes(ept), 6 * EPT_PAGE_BYTES);
        ck_assert_int_eq(ept_install_zero(ept, page + 4, 1), 0);
    }
    close(vcpu);
}
END_TEST

START_TEST(mapping_ahead_knows_of_eviction)
{
    uint64_t page = BASE >> EPT_PAGE_SHIFT;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0), zero = open("/dev/zero", O_RDONLY);
    if (ept_maps_ahead(ept)) {
        ck_assert_int_eq(ept_install_zero(ept, page, 4), 0);
        ck_assert_int_eq(ept_write_protect(ept, page, 4, true), 0);
        ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page, 4), 4); /* as a read would */
        ck_assert_int_eq(read(zero, ept_hva(ept, BASE), 8), -1); /* protected as before */
        ck_assert_int_eq(ept_drop(ept, page, 4), 0);
        ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page, 4), 0);
        ck_assert_uint_eq(ept_resident_bytes(ept), 0);
        ck_assert_int_eq(ept_install_zero(ept, page, 4), 0);
        ck_assert_int_eq(ept_unmap(ept, page, 4), 0);
        ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page, 4), 4); /* here, only not mapped */
    }
    close(zero);
    close(vcpu);
}
END_TEST

START_TEST(backing_beyond_the_span_is_refused)
{
    ck_assert_int_eq(ept_back(ept, ept_span(ept), 4096), -ENOMEM);
    ck_assert_int_eq(ept_back(ept, UINT64_MAX - 4095, 8192), -ENOMEM);
}
END_TEST

/* KVM's own count of small pages in the second stage (KVM documentation, KVM_GET_STATS_FD). */
static uint64_t second_stage_pages(void)
{
    struct kvm_stats_header header;
    union {
        struct kvm_stats_desc is; /* its name follows */
        char bytes[256];
    } entry;
    uint64_t pages = 0;
    int fd = ioctl(vm, KVM_GET_STATS_FD, 0);
    ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
    size_t bytes = sizeof(entry.is) + header.name_size;
    ck_assert_uint_le(bytes, sizeof(entry));
    for (uint32_t i = 0; i < header.num_desc; i++) {
        off_t at = (off_t)(header.desc_offset + i * bytes);
        ck_assert_int_eq(pread(fd, &entry, bytes, at), (ssize_t)bytes);
        if (strcmp(entry.is.name, "pages_4k") == 0)
            ck_assert_int_eq(pread(fd, &pages, 8, header.data_offset + entry.is.offset), 8);
    }
    close(fd);
    return pages;
}

/* Has KVM map 16 pages that are full of 0x5a, and takes all rights from them. */
static void flush_mapped_pages(int vcpu, uint64_t page)
{
    static uint8_t bytes[16 * EPT_PAGE_BYTES];
    gpa_t gpa = page << EPT_PAGE_SHIFT;
    memset(bytes, 0x5a, sizeof(bytes));
    ck_assert_int_eq(ept_protect(ept, gpa, sizeof(bytes), EPT_READ | EPT_WRITE), 0);
    ck_assert_uint_eq(ept_map_ahead(ept, vcpu, page, 16), 16);
    ck_assert_uint_eq(second_stage_pages(), 16);
    ck_assert_int_eq(ept_protect(ept, gpa, sizeof(bytes), EPT_NONE), 0);
    ck_assert_uint_eq(second_stage_pages(), 0);
    ck_assert_int_eq(memcmp(ept_hva(ept, gpa), bytes, sizeof(bytes)), 0);
    memset(ept_hva(ept, gpa), 0x5a, sizeof(bytes)); /* and it can be written to */
}

/* A right that was taken away is in no TLB, and contents stay; also where the host lets nothing
 * become executable. Needs a KVM that maps ahead. */
START_TEST(rights_are_flushed)
{
    uint64_t page = BASE >> EPT_PAGE_SHIFT, watched = page + 512;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    memset(ept_hva(ept, BASE), 0x5a, 16 * EPT_PAGE_BYTES);
    ck_assert_int_eq(ept_watch(ept, watched << EPT_PAGE_SHIFT, 32 * EPT_PAGE_BYTES, true), 0);
    ck_assert_int_eq(ept_install(ept, watched, ept_hva(ept, BASE), 16), 0);
    for (int denied = 0; denied < 2; denied++) {
        if (ioctl(vm, KVM_CHECK_EXTENSION, 236) <= 0) /* KVM_CAP_PRE_FAULT_MEMORY */
            break;
        ck_assert(!denied || prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0);
        flush_mapped_pages(vcpu, page);
        flush_mapped_pages(vcpu, watched);
        /* As watched as before, or not. */
        ck_assert_int_eq(ept_install_zero(ept, watched + 20 + (unsigned)denied, 1), 0);
        ck_assert_int_eq(ept_install_zero(ept, page + 20, 1), -ENOENT);
    }
    close(vcpu);
}
END_TEST

#define MOVED_PAGES 1500u

/* Another thread maps and unmaps small things all the time: none may come to lie in the guest. */
static atomic_bool mapping;
static atomic_uint strangers;

static void *map_all_the_time(void *unused)
{
    uintptr_t first = (uintptr_t)ept_hva(ept, 0), last = first + ept_span(ept);
    void *kept[64] = {NULL};
    for (unsigned i = 0; atomic_load(&mapping); i = (i + 1) % 64) {
        if (kept[i])
            munmap(kept[i], 16384);
        kept[i] = mmap(NULL, 16384, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (kept[i] == MAP_FAILED)
            kept[i] = NULL;
        else if ((uintptr_t)kept[i] >= first && (uintptr_t)kept[i] < last)
            atomic_fetch_add(&strangers, 1);
    }
    return unused;
}

static uint64_t *word_at(uint64_t page)
{
    return ept_hva(ept, page << EPT_PAGE_SHIFT);
}

/* Moved again and again, grown in between: a host that moves one mapping a call finds ever more of
 * them. */
START_TEST(what_was_moved_can_be_moved_again)
{
    uint64_t here = BASE >> EPT_PAGE_SHIFT, there = here + 8192, grown = 300;
    pthread_t thread;
    atomic_store(&mapping, true);
    ck_assert_int_eq(pthread_create(&thread, NULL, map_all_the_time, NULL), 0);
    ept_populate(ept, here + 512, 512);
    for (uint64_t i = 0; i < MOVED_PAGES; i++)
        *word_at(here + i) = i + 1;
    for (int round = 0; round < 6; round++) {
        ck_assert_int_eq(ept_move(ept, here, there, MOVED_PAGES + grown), 0);
        for (uint64_t i = 0; i < MOVED_PAGES; i++)
            ck_assert_uint_eq(*word_at(there + i), i + 1);
        for (uint64_t i = 0; i < MOVED_PAGES + grown; i += 7)
            ck_assert_uint_eq(*word_at(here + i), 0);
        ck_assert_int_eq(ept_drop(ept, here, MOVED_PAGES + grown), 0);
        *word_at(there + MOVED_PAGES + grown / 2) = 0; /* makes a page of the part that grew */
        grown += 100;
        uint64_t left = here;
        here = there;
        there = left + 3; /* no two rounds at the same offset */
    }
    atomic_store(&mapping, false);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(strangers, 0);
}
END_TEST

static uint64_t pages_here(uint64_t page, uint64_t pages)
{
    static uint8_t here[1024];
    uint64_t count = 0;
    ck_assert_int_eq(mincore(word_at(page), pages << EPT_PAGE_SHIFT, here), 0);
    for (uint64_t i = 0; i < pages; i++)
        count += here[i] & 1;
    return count;
}

/* Else KVM maps page by page what is one huge page here. */
START_TEST(addresses_are_alike_within_a_slot)
{
    ck_assert_uint_eq((uintptr_t)ept_hva(ept, BASE) % EPT_SLOT_BYTES, BASE % EPT_SLOT_BYTES);
}
END_TEST

/* A small part of what had a huge page takes no more than its size when it is used again. */
START_TEST(huge_pages_do_not_come_back)
{
    uint64_t first = BASE >> EPT_PAGE_SHIFT;
    ept_populate(ept, first, 1024);
    ck_assert_uint_eq(pages_here(first, 1024), 1024);
    ck_assert_int_eq(ept_drop(ept, first, 1024), 0);
    *word_at(first + 7) = *word_at(first + 700) = 1;
    ck_assert_uint_eq(pages_here(first, 1024), 2);
}
END_TEST

/* A file's pages come in one piece where the host sees two mappings: one had been moved there. */
START_TEST(files_can_lie_where_arrays_were)
{
    static uint8_t bytes[32 * EPT_PAGE_BYTES] __attribute__((aligned(4096)));
    uint64_t first = BASE >> EPT_PAGE_SHIFT;
    memset(bytes, 0x5a, sizeof(bytes));
    ept_populate(ept, first + 4096, 512);
    ck_assert_int_eq(ept_move(ept, first + 4096, first + 512, 512), 0);
    ck_assert_int_eq(ept_drop(ept, first + 512, 512), 0);
    ck_assert_int_eq(ept_watch(ept, BASE, 8 << 20, true), 0);
    for (uint64_t page = first + 512 - 31; page < first + 960; page += 64) {
        ck_assert_int_eq(ept_install(ept, page, bytes, 32), 0);
        ck_assert_int_eq(memcmp(word_at(page), bytes, sizeof(bytes)), 0);
    }
    ck_assert_int_eq(ept_install(ept, first + 1024 - 16, bytes, 32), 0);
    ck_assert_int_eq(memcmp(word_at(first + 1024 - 16), bytes, sizeof(bytes)), 0);
    ck_assert_int_eq(ept_watch(ept, BASE, 8 << 20, false), 0);
}
END_TEST

/* As a vCPU does that looks for a page late: it makes one where a file goes. */
START_TEST(files_can_lie_where_pages_were_touched)
{
    static uint8_t bytes[4 * EPT_PAGE_BYTES] __attribute__((aligned(4096)));
    uint64_t first = BASE >> EPT_PAGE_SHIFT;
    memset(bytes, 0x5a, sizeof(bytes));
    *word_at(first + 1) = 1;
    ck_assert_int_eq(ept_watch(ept, BASE, 4 * EPT_PAGE_BYTES, true), 0);
    ck_assert_int_eq(ept_install(ept, first, bytes, 4), 0);
    ck_assert_int_eq(memcmp(word_at(first), bytes, sizeof(bytes)), 0);
    ck_assert_int_eq(ept_watch(ept, BASE, 4 * EPT_PAGE_BYTES, false), 0);
}
END_TEST

/* What this process maps next would lie in the hole, and the guest would have it. */
START_TEST(a_file_that_cannot_be_mapped_leaves_no_hole)
{
    gpa_t gpa = BASE + (16 << 20);
    int fd = open("/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_lt(ept_map_file(ept, gpa, 64 * EPT_PAGE_BYTES, fd, 0, false), 0);
    ck_assert_int_eq(msync(ept_hva(ept, gpa), 64 * EPT_PAGE_BYTES, MS_ASYNC), 0);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ept");
    TCase *tests = tcase_create("vm");
    if (access("/dev/kvm", R_OK | W_OK))
        unit_skip("no /dev/kvm");
    tcase_add_checked_fixture(tests, vm_setup, vm_teardown);
    tcase_add_test(tests, rights_follow_protect);
    tcase_add_test(tests, large_ranges_get_tables_when_touched);
    tcase_add_test(tests, dirty_state_survives_losing_access);
    tcase_add_test(tests, pages_come_and_go);
    tcase_add_test(tests, protection_stops_stores);
    tcase_add_test(tests, drop_forgets_protection);
    tcase_add_test(tests, missing_pages_fail_system_calls);
    tcase_add_test(tests, mapping_ahead_ends_at_a_missing_page);
    tcase_add_test(tests, mapping_ahead_knows_of_eviction);
    tcase_add_test(tests, backing_beyond_the_span_is_refused);
    tcase_add_test(tests, a_file_that_cannot_be_mapped_leaves_no_hole);
    suite_add_tcase(suite, tests);
    tests = tcase_create("memory");
    tcase_add_checked_fixture(tests, memory_setup, vm_teardown);
    tcase_add_test(tests, rights_are_flushed);
    tcase_add_test(tests, what_was_moved_can_be_moved_again);
    tcase_add_test(tests, addresses_are_alike_within_a_slot);
    tcase_add_test(tests, huge_pages_do_not_come_back);
    tcase_add_test(tests, files_can_lie_where_arrays_were);
    tcase_add_test(tests, files_can_lie_where_pages_were_touched);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
