/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's set-up on a real VM, where it fails halfway: made in each test, for KVM's objects do not
 * survive a fork.
 */
#include "support.h"
#include "tests/unit/unit.h"
#include "vmm/machine.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct run_config config;
static struct vm vm;

static void machine_setup(void)
{
    message_init("check_vcpu", MESSAGE_NORMAL);
    vm = (struct vm){.config = &config};
    vm.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(vm.kvm_fd, 0);
    vm.vm_fd = ioctl(vm.kvm_fd, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm.vm_fd, 0);
    vm.cpuid = vcpu_cpuid_query(vm.kvm_fd);
    ck_assert_ptr_nonnull(vm.cpuid);
    vm.run_bytes = (size_t)ioctl(vm.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct ept_config memory = {.kvm_fd = vm.kvm_fd, .vm_fd = vm.vm_fd, .exit_mode = true};
    ck_assert_int_eq(ept_create(&vm.ept, &memory), 0);
}

static void machine_teardown(void)
{
    free(vm.cpuid);
    close(vm.vm_fd);
    ept_destroy(vm.ept);
    close(vm.kvm_fd);
}

/* Memory that is short for a moment must not be the end of all new threads. */
START_TEST(a_set_up_that_failed_can_be_tried_again)
{
    struct vcpu vcpu = {.vm = &vm, .index = 1, .fd = -1, .kvm_stats_fd = -1};
    size_t bytes = vm.run_bytes;
    vm.run_bytes = (size_t)1 << 60; /* no address space for it, after KVM has made the vCPU */
    ck_assert_int_lt(vcpu_open(&vcpu), 0);
    ck_assert_int_eq(vcpu.fd, -1);
    ck_assert_ptr_null(vcpu.run);
    vm.run_bytes = bytes;
    ck_assert_int_eq(vcpu_open(&vcpu), 0);
    ck_assert_int_ge(vcpu.fd, 0);
    vcpu_close(&vcpu);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vcpu");
    TCase *tests = tcase_create("set-up");
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        unit_skip("no /dev/kvm");
    tcase_add_checked_fixture(tests, machine_setup, machine_teardown);
    tcase_add_test(tests, a_set_up_that_failed_can_be_tried_again);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
