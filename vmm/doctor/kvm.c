/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doctor: /dev/kvm, what kind of KVM is behind it, and the capabilities that the run loop uses.
 * Asks the kernel itself wherever it can (opens the device, makes a VM) instead of guessing from
 * versions; nothing of it stays.
 */
#include "vmm/cli/cli.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PHYSICAL_BITS_MIN 39 /* the guest's kernel region ends at 256 GiB: farvisor/abi.h */

static bool cpu_has_vmx(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & (1u << 5);
}

static bool cpu_has_svm(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && ecx & (1u << 2);
}

static bool in_virtual_machine(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & (1u << 31);
}

/* A kernel with KVM built in has the folders of both, whatever the processor: so that is asked. */
static void check_host_kind(void)
{
    char nested_paging[8] = "";

    if (access("/sys/module/kvm_pvm", F_OK) == 0) {
        doctor_line(DOCTOR_OK, "host kind", NULL,
                    "PVM (a cloud machine without nested virtualisation): leaving the guest costs "
                    "about 30 us");
        return;
    }
    if (cpu_has_vmx() && access("/sys/module/kvm_intel", F_OK) == 0) {
        doctor_read_line("/sys/module/kvm_intel/parameters/ept", nested_paging,
                         sizeof(nested_paging));
        doctor_line(nested_paging[0] == 'N' ? DOCTOR_WARN : DOCTOR_OK, "host kind",
                    nested_paging[0] == 'N' ? "sudo modprobe -r kvm_intel && "
                                              "sudo modprobe kvm_intel ept=1"
                                            : NULL,
                    "Intel VMX, %s", nested_paging[0] == 'N' ? "EPT switched off (slow)" : "EPT");
        return;
    }
    if (cpu_has_svm() && access("/sys/module/kvm_amd", F_OK) == 0) {
        doctor_read_line("/sys/module/kvm_amd/parameters/npt", nested_paging,
                         sizeof(nested_paging));
        bool off = nested_paging[0] == 'N' || nested_paging[0] == '0';

        doctor_line(off ? DOCTOR_WARN : DOCTOR_OK, "host kind",
                    off ? "sudo modprobe -r kvm_amd && sudo modprobe kvm_amd npt=1" : NULL,
                    "AMD SVM, %s", off ? "NPT switched off (slow)" : "NPT");
        return;
    }
    doctor_line(DOCTOR_WARN, "host kind", NULL, "neither Intel VMX, AMD SVM nor PVM: not tested");
}

static const struct {
    int capability;
    int least;
    bool needed;
    const char *name;
    const char *use;
} capabilities[] = {
    {KVM_CAP_USER_MEMORY, 1, true, "USER_MEMORY", "guest memory"},
    {KVM_CAP_SYNC_MMU, 1, true, "SYNC_MMU", "pages may leave while the guest runs"},
    {KVM_CAP_IMMEDIATE_EXIT, 1, true, "IMMEDIATE_EXIT", "signals without lost wake-ups"},
    {KVM_CAP_SYNC_REGS, KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS, true, "SYNC_REGS",
     "registers without system calls"},
    {KVM_CAP_XSAVE, 1, true, "XSAVE", "vector registers"},
    {KVM_CAP_EXT_CPUID, 1, true, "EXT_CPUID", "processor features for the guest"},
    {KVM_CAP_NR_MEMSLOTS, 64, true, "NR_MEMSLOTS", "large guests"},
    {KVM_CAP_MAX_VCPUS, 2, true, "MAX_VCPUS", "one a thread of the program"},
};

static void check_capabilities(int kvm)
{
    bool complete = true;

    for (size_t i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++) {
        int value = ioctl(kvm, KVM_CHECK_EXTENSION, capabilities[i].capability);

        if (value >= capabilities[i].least &&
            (capabilities[i].capability != KVM_CAP_SYNC_REGS ||
             (value & capabilities[i].least) == capabilities[i].least))
            continue;
        complete = false;
        doctor_line(capabilities[i].needed ? DOCTOR_FAIL : DOCTOR_WARN, "kvm features",
                    "install a newer kernel", "KVM_CAP_%s is missing or too small (%d): %s",
                    capabilities[i].name, value, capabilities[i].use);
    }
    int threads = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (complete)
        doctor_line(DOCTOR_OK, "kvm features", NULL, "all that are needed; up to %d threads",
                    threads < FV_VCPU_MAX ? threads : FV_VCPU_MAX);
}

static void check_physical_bits(void)
{
    unsigned eax, ebx, ecx, edx;
    unsigned bits = 0;

    if (__get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx))
        bits = eax & 0xff;
    doctor_line(bits >= PHYSICAL_BITS_MIN ? DOCTOR_OK : DOCTOR_FAIL, "address bits",
                bits >= PHYSICAL_BITS_MIN ? NULL : "use a newer processor or virtual machine type",
                "physical addresses have %u bits (at least %d)", bits, PHYSICAL_BITS_MIN);
}

static void report_no_device(int error)
{
    if (error == EACCES || error == EPERM)
        doctor_line(DOCTOR_FAIL, "/dev/kvm", "sudo usermod -aG kvm \"$USER\"   (then log in again)",
                    "no permission to open it");
    else if (error == ENOENT && (cpu_has_vmx() || cpu_has_svm()))
        doctor_line(DOCTOR_FAIL, "/dev/kvm", "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
                    "does not exist, though the processor can do it");
    else if (error == ENOENT)
        doctor_line(DOCTOR_FAIL, "/dev/kvm",
                    in_virtual_machine()
                        ? "switch nested virtualisation on for this virtual machine, or use another"
                        : "switch virtualisation on in the firmware, or use another machine",
                    "does not exist, and the processor shows no VMX or SVM");
    else
        doctor_line(DOCTOR_FAIL, "/dev/kvm", "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
                    "cannot be opened: %s", strerror(error));
}

void doctor_check_kvm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0) {
        report_no_device(errno);
        return;
    }
    int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        doctor_line(DOCTOR_FAIL, "/dev/kvm", "install a newer kernel", "API version %d, not %d",
                    version, KVM_API_VERSION);
        goto close_kvm;
    }
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0) {
        doctor_line(DOCTOR_FAIL, "/dev/kvm", "stop the other hypervisor, or free memory",
                    "a virtual machine cannot be made: %s", strerror(errno));
        goto close_kvm;
    }
    close(vm);
    doctor_line(DOCTOR_OK, "/dev/kvm", NULL, "can be used");
    check_host_kind();
    check_capabilities(kvm);
    check_physical_bits();
close_kvm:
    close(kvm);
}
