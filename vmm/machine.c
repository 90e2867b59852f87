/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One guest from start to end: builds the machine in the order its parts need each other, runs the
 * program's main thread on ours, and takes everything down in reverse. The end is bounded: a thread
 * that does not come out in time is left to the process's own end.
 */
#include "vmm/machine.h"

#include "fault/fault.h"
#include "rdma/rdma.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define EMBEDDED_SPARSENESS 512 /* pages a slab: as sparse as a program can be */
#define FOREIGN_SPARSENESS  16  /* stacks and heaps of threads touch a few pages a slab */

struct machine {
    struct vm vm;
    struct embedded *embedded;
    struct program program;
};

static struct machine machine; /* one a process, as its pid is the program's */

bool vm_end(struct vm *vm, int exit_status)
{
    pthread_mutex_lock(&vm->vcpu_lock);
    bool first = !atomic_load(&vm->ending);
    if (first) {
        vm->exit_status = exit_status;
        atomic_store(&vm->ending, 1);
    }
    pthread_mutex_unlock(&vm->vcpu_lock);
    if (first) {
        events_watch_end(vm);
        vcpu_stop_all(vm);
    }
    return first;
}

static int kvm_failed(const char *what)
{
    int error = -errno;
    message_error("/dev/kvm: %s: %s (see 'farvisor doctor')", what, strerror(errno));
    return error;
}

static int kvm_open(struct vm *vm)
{
    vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vm->kvm_fd < 0)
        return kvm_failed("open");
    int version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        message_error("/dev/kvm: version %d of its interface, not %d", version, KVM_API_VERSION);
        return -ENOTSUP;
    }
    int sync = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
    int needed = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    if (sync < 0 || (sync & needed) != needed ||
        ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0) {
        message_error("/dev/kvm: too old: synchronous registers and immediate exit are missing");
        return -ENOTSUP;
    }
    int run_bytes = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < 0)
        return kvm_failed("vcpu mapping size");
    vm->run_bytes = (size_t)run_bytes;
    vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->vm_fd < 0)
        return kvm_failed("create a virtual machine");
    vm->cpuid = vcpu_cpuid_query(vm->kvm_fd);
    return vm->cpuid ? 0 : kvm_failed("supported CPU features");
}

static bool is_paged(const struct vm *vm)
{
    return vm->config->local_bytes < vm->config->memory_bytes;
}

static int memory_create(struct vm *vm)
{
    struct ept_config config = {
        .kvm_fd = vm->kvm_fd,
        .vm_fd = vm->vm_fd,
        .paged = is_paged(vm),
        .exit_mode = vm->config->fault_mode == FAULT_MODE_EXIT,
        .map_ahead = vm->config->map_ahead,
    };
    int error = ept_create(&vm->ept, &config);
    if (!error)
        error = image_load(vm);
    if (!error)
        error = system_tables_create(vm);
    if (!error)
        error = ept_map_kernel(vm->ept, FV_SHARED_BASE, FV_PAGE_SIZE, EPT_READ | EPT_WRITE, true);
    if (!error)
        vm->shared = ept_hva(vm->ept, FV_SHARED_BASE);
    return error;
}

/*
 * A block of 2 MiB that has any page remote holds a slab of 2 MiB there, so a sparse program needs
 * more slabs than --memory has. A server of our own costs nothing for what is not touched; a
 * foreign one must grant --memory, and is asked for more.
 */
static uint64_t quota_bytes(const struct run_config *config)
{
    uint64_t slab_bytes = (uint64_t)RDMA_SLAB_PAGES * RDMA_PAGE_BYTES;
    uint64_t bytes = config->memory_bytes * (config->memserver ? 1 : EMBEDDED_SPARSENESS);
    return (bytes + slab_bytes - 1) & ~(slab_bytes - 1);
}

/* The memory node, where --local does not hold everything. */
static int node_connect(struct machine *m)
{
    const struct run_config *config = m->vm.config;
    struct rdma_config node = {
        .transport = config->transport ? config->transport : "auto",
        .address = config->memserver,
        .name = m->program.path,
        .quota_bytes = quota_bytes(config),
        .quota_wish_bytes = config->memory_bytes * FOREIGN_SPARSENESS,
        .span_pages = ept_span(m->vm.ept) >> EPT_PAGE_SHIFT,
        .timeout_ns = config->timeout_ns,
    };
    if (!is_paged(&m->vm))
        return 0;
    int error = 0;
    if (!node.address)
        error = embedded_start(&m->embedded, node.quota_bytes, &node.address);
    if (!error)
        error = rdma_node_connect(&m->vm.node, &node);
    embedded_connected(m->embedded);
    return error;
}

static int paging_create(struct vm *vm)
{
    int error = mm_create(&vm->mm, vm);
    struct fault_config config = {
        .ept = vm->ept,
        .node = vm->node,
        .memory_pages = vm->config->memory_bytes / EPT_PAGE_BYTES,
        .local_pages = vm->config->local_bytes / EPT_PAGE_BYTES,
        .timeout_ns = vm->config->timeout_ns,
        .prefetcher = vm->config->prefetcher,
        .source = {.extent = mm_source_extent,
                   .read = mm_source_read,
                   .replaced = mm_source_replaced,
                   .unfillable = mm_source_unfillable,
                   .expel = mm_source_expel,
                   .owner = vm->mm},
    };
    if (!error)
        error = fault_engine_create(&vm->engine, &config);
    if (!error && vm->config->fault_mode != FAULT_MODE_EXIT)
        error = fault_events_start(vm->engine, vm->config->fault_mode == FAULT_MODE_UFFD_SPIN);
    return error;
}

/*
 * A memory server of our own has to be started before the sandbox forbids it; another's is
 * connected to inside, because RDMA's files serve only the credentials that they were opened with.
 */
static int node_and_files(struct machine *m)
{
    bool own = !m->vm.config->memserver;
    int error = own ? node_connect(m) : 0;
    if (!error)
        error = sandbox_files(&m->vm);
    return error || own ? error : node_connect(m);
}

/* No end without a word: most steps say more about what failed, where it is known. */
static bool failed(const char *step, int error)
{
    if (error && !message_errors())
        message_error("host: %s: %s", step, strerror(error < 0 ? -error : EIO));
    return error;
}

/* Returns 0 or an exit status, after one message. */
static int machine_build(struct machine *m)
{
    struct vm *vm = &m->vm;
    if (failed("ports", net_publish_probe(vm->config)) || failed("KVM", kvm_open(vm)) ||
        failed("guest memory", memory_create(vm)) || failed("files", hostio_create(&vm->io, vm)))
        return EXIT_FARVISOR;
    int status = program_open(vm, &m->program);
    if (status)
        return status;
    if (failed("memory node", node_and_files(m)) || failed("paging", paging_create(vm)) ||
        failed("trace", record_start(vm)) || failed("timers", timers_create(&vm->timers)) ||
        failed("hints", hints_create(&vm->hints, vm)) ||
        failed("device tree", devicetree_place(vm, &m->program)) ||
        failed("first vCPU", vcpu_first_create(vm)) || failed("events", events_start(vm)) ||
        failed("sandbox", sandbox_calls(vm)) || failed("poller", poller_start(vm)))
        return EXIT_FARVISOR;
    return 0;
}

static void machine_destroy(struct machine *m)
{
    struct vm *vm = &m->vm;
    events_stop(vm);
    hints_stop(vm->hints);
    fault_engine_stop(vm->engine); /* its threads look vCPUs up: mm_source_expel */
    vcpu_destroy_all(vm);
    (void)record_stop(vm); /* where the machine could not be built to the end */
    timers_destroy(vm->timers);
    hints_destroy(vm->hints);
    if (vm->engine)
        fault_engine_destroy(vm->engine);
    if (vm->mm)
        mm_destroy(vm->mm);
    rdma_node_destroy(vm->node);
    embedded_stop(m->embedded);
    program_close(&m->program);
    if (vm->io)
        hostio_destroy(vm->io);
    free(vm->cpuid);
    if (vm->vm_fd >= 0)
        close(vm->vm_fd);
    ept_destroy(vm->ept);
    if (vm->kvm_fd >= 0)
        close(vm->kvm_fd);
}

static int machine_execute(struct machine *m)
{
    struct vm *vm = &m->vm;
    if (vm->config->progress)
        stats_progress_start(vm);
    vcpu_first_run(vm);
    events_main_left(vm);
    if (vm->config->progress)
        stats_progress_stop(vm);
    bool lost = vm->engine && fault_engine_error(vm->engine);
    uint64_t patience_ns = lost ? MACHINE_LOST_JOIN_NS : MACHINE_JOIN_NS;
    bool all = vcpu_join_all(vm, patience_ns);
    hostio_end_sight(vm->io); /* a socket that was read to its end is closed, not reset */
    if (record_stop(vm))
        vm->exit_status = EXIT_FARVISOR;
    if (vm->config->stats_path && stats_write(vm, vm->config->stats_path))
        vm->exit_status = EXIT_FARVISOR;
    all = poller_stop(vm, patience_ns) && all;
    if (!all) {
        hostio_abandon(vm->io);
        _exit(vm->exit_status);
    }
    return vm->exit_status;
}

int vm_run(const struct run_config *config)
{
    struct vm *vm = &machine.vm;
    vm->config = config;
    vm->kvm_fd = vm->vm_fd = -1;
    vm->pid = getpid();
    vm->started_ns = clock_now_ns();
    pthread_mutex_init(&vm->vcpu_lock, NULL);
    pthread_cond_init(&vm->vcpu_wake, NULL);
    int error = events_block_signals();
    if (!error)
        error = vcpu_signals_init();
    if (!error)
        error = guarded_copy_init();
    if (error)
        message_error("host: signal set-up: %s", strerror(-error));
    int status = error ? EXIT_FARVISOR : machine_build(&machine);
    if (!status)
        status = machine_execute(&machine);
    machine_destroy(&machine);
    return status;
}
