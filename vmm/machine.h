/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files that run the machine share among themselves: image, device tree, system tables,
 * vCPUs, traps, events, clock. The rest of vmm/ sees vmm.h only.
 */
#ifndef FARVISOR_MACHINE_H
#define FARVISOR_MACHINE_H

#include "vmm/vmm.h"

/*
 * Host signals that never reach the program: the kick of a vCPU and the expiry of a timer. A kick
 * must not be a real-time signal: those are queued one by one, and refused (EAGAIN) while this user
 * has as many queued as RLIMIT_SIGPENDING allows, which whoever is kicked in vain would bring
 * about. One kick is as good as many. Nobody uses SIGSTKFLT.
 */
#define MACHINE_SIGNAL_KICK  SIGSTKFLT
#define MACHINE_SIGNAL_TIMER SIGRTMAX

/*
 * How long the end of a guest waits for its threads, and how long it may take: END until the main
 * thread has left the guest, and again from there to the end of the process. Where far
 * memory is lost nothing is left to finish, and before Linux 6.2 a thread that waits for a page in
 * uffd mode may not come at all: --timeout and a second is what a user waits (farvisor(1)).
 */
#define MACHINE_JOIN_NS      2000000000ULL
#define MACHINE_END_NS       4000000000ULL
#define MACHINE_LOST_JOIN_NS 300000000ULL
#define MACHINE_LOST_END_NS  600000000ULL

/* ---- program.c: is it a program this machine can run? ---- */
struct program {
    int guest_fd;
    char *path;  /* absolute, as the program sees it; owned */
    char **argv; /* what it is started with; owned */
};
/* Finds and checks config->argv[0]. Returns 0, or an exit status (125..127) after one message. */
int program_open(struct vm *vm, struct program *out);
void program_close(struct program *program); /* what was allocated; the descriptor is the guest's */
void program_arguments_free(struct program *program);
/* The ELF checks alone, on the file's first bytes: NULL, or what is wrong with it. */
const char *program_check_header(const void *header, size_t bytes);

/* ---- script.c ---- */
/*
 * Does fd begin with a #! line? Returns 0: no; 1: *interpreter (malloc'ed) is to be run instead and
 * the program's arguments were rewritten; -ENOEXEC: nothing in it; -ENOMEM.
 */
int script_follow(int fd, const char *script, struct program *program, char **interpreter);

/* ---- image.c: the guest kernel ---- */
/* Finds, checks and places the guest image; fills vm->image. 0 or -errno after one message. */
int image_load(struct vm *vm);

/* ---- devicetree.c: what the guest is told at the start ---- */
/* Writes the device tree at FV_FDT_BASE. 0 or -errno after one message. */
int devicetree_place(struct vm *vm, const struct program *program);

/* ---- system_tables.c: GDT, IDT, TSS; what only ring 0 sees ---- */
int system_tables_create(struct vm *vm);
/* Fills vCPU `index`'s page (GDT, TSS, trap stack). */
int system_tables_vcpu(struct vm *vm, uint32_t index);
void system_tables_load(uint32_t index, struct kvm_sregs *sregs);
/* Code and stack segments of ring 3 alone, as after a return from a trap. */
void system_tables_ring3(struct kvm_sregs *sregs);
gpa_t system_trap_stack_top(uint32_t index);
gpa_t system_trap_stack_bottom(uint32_t index);

/* ---- vcpu_setup.c: one KVM vCPU ---- */
/* CPUID as this host supports it, asked once. Returns malloc'ed memory or NULL. */
struct kvm_cpuid2 *vcpu_cpuid_query(int kvm_fd);
int vcpu_open(struct vcpu *vcpu); /* KVM_CREATE_VCPU and everything that stays; 0 or -errno */
void vcpu_close(struct vcpu *vcpu);
/* Registers for a fresh start in the guest kernel, ring 3. 0 or -errno. */
int vcpu_reset(struct vcpu *vcpu, gpa_t rip, uint64_t argument);

/* ---- kvm_counters.c ---- */
void kvm_counters_open(struct vcpu *vcpu); /* if --stats is wanted; the vCPU's thread */
void kvm_counters_close(struct vcpu *vcpu);
/* One of KVM's counters of this vCPU; false where it has none of that name. Any thread. */
bool kvm_counter_read(const struct vcpu *vcpu, const char *name, uint64_t *value);

/* ---- kick.c ---- */
int vcpu_signals_init(void); /* the kick's handler */
/* The timer of the host thread vcpu->tid, by which a kick is repeated. 0 or -errno, with a message
 * the first time. */
int kick_timer_create(struct vcpu *vcpu);
void kick_timer_delete(struct vcpu *vcpu); /* if there is one; any thread */

/* ---- vcpu.c: threads ---- */
int vcpu_first_create(struct vm *vm);
void vcpu_first_run(struct vm *vm); /* on the main thread, until the guest's main thread ends */
/* The machine ends: wakes whoever runs, waits or is parked. */
void vcpu_stop_all(struct vm *vm);
int64_t vcpu_thread_create(struct vcpu *parent, uint64_t cookie); /* tid or -errno */
bool vcpu_join_all(struct vm *vm, uint64_t timeout_ns);           /* false: some did not come */
void vcpu_destroy_all(struct vm *vm);

/* ---- inherit.c ---- */
/* Is its parked host thread scheduled as the calling thread? */
bool inherit_fits(const struct vcpu *vcpu);
void inherit_give(struct vcpu *vcpu); /* what the caller has; its host thread is parked */
void inherit_take(struct vcpu *vcpu); /* its own thread, before the guest thread begins */

/* ---- run.c: the run loop ---- */
void vcpu_loop(struct vcpu *vcpu); /* until the guest thread or the machine ends */
/* A defect of the guest kernel or a host that cannot go on: one line, then the end with 125. */
void vcpu_fatal(struct vcpu *vcpu, const char *what);

/* ---- trap.c: exceptions and upcalls ---- */
void trap_handle(struct vcpu *vcpu); /* a vector stub knocked at FV_PORT_TRAP */
/* The program did something wrong that has no x86 exception: upcall with this signal. */
void trap_raise(struct vcpu *vcpu, const struct kvm_regs *at, const struct fv_trap *trap);
/* The guest kernel runs next, with the program's registers in fv_vcpu.saved. FV_UPCALL_*. */
void trap_upcall(struct vcpu *vcpu, const struct kvm_regs *at, uint32_t reason);
/* After a kick: tells the guest kernel of pending events unless it will look by itself. */
void trap_deliver_pending(struct vcpu *vcpu);
bool trap_in_kernel(const struct vm *vm, gpa_t rip);

/* ---- exceptions.c: which signal an exception is ---- */
struct exception_state {
    uint32_t vector;
    uint32_t error_code;
    gpa_t rip;
    uint64_t dr6;
    uint16_t x87_status, x87_control;
    uint32_t mxcsr;
};
void exception_to_trap(const struct exception_state *state, struct fv_trap *out);

/* ---- events.c ---- */
struct events;
int events_start(struct vm *vm);
/* Makes some thread of the guest look at pending events. Any thread. */
void events_reader_kick(struct vm *vm);
/* What came by signal before the call is in the ring when it returns. Any thread, no lock held. */
void events_settle(struct vm *vm);
/* Expiries of a timer that became events so far. */
unsigned long long events_timer_seen(const struct vm *vm, uint32_t id);
/* The timer is set anew: an expiry from before that found no room in the ring will not come. */
void events_timer_forget(struct vm *vm, uint32_t id);
/* The end was decided: from now on the events thread sees to it that it comes. Any thread. */
void events_watch_end(struct vm *vm);
void events_main_left(struct vm *vm);
void events_stop(struct vm *vm);
int events_block_signals(void); /* before any thread is made */

/* ---- timers.c: FV_CALL_TIMER_* on the host's POSIX timers ---- */
struct timers;
int timers_create(struct timers **out);
void timers_destroy(struct timers *timers);
int64_t timers_set(struct vcpu *vcpu, const uint64_t args[6]);
int64_t timers_get(struct vcpu *vcpu, const uint64_t args[6]);

/* ---- embedded.c ---- */
/* The node is connected: the socket's name can go. Accepts NULL. */
void embedded_connected(struct embedded *embedded);

/* ---- file_guard.c, guarded.S ---- */
extern const char guarded_copy_begin[], guarded_copy_end[], guarded_copy_fault[];
int guarded_copy_init(void); /* the handler of SIGBUS */
/*
 * Calls look(argument), which reads mapped files that others may cut short: 0, or -EFAULT if one
 * was, and look did not come to its end: what it held is lost. Others wait meanwhile; not nested.
 */
int file_guard(void (*look)(void *argument), void *argument);

/* ---- backtrace.c ---- */
/* The calls that led to `regs`, one line each. One at a time; this vCPU's thread. */
void backtrace_print(struct vcpu *vcpu, const struct fv_regs *regs);

/* ---- clock.c ---- */
struct clock_state {
    uint64_t tsc, mono_ns;           /* the guest's point of the last refresh */
    uint64_t host_tsc, host_mono_ns; /* what the host said then */
    uint64_t mult;
    int64_t real_offset_ns, boot_offset_ns, tai_offset_ns; /* from CLOCK_MONOTONIC */
};
void clock_start(struct vm *vm, struct clock_state *state);
void clock_refresh(struct vm *vm, struct clock_state *state);

/* ---- interruptible.S ---- */
#define TURNED_AWAY (-4096) /* the call was not made, for a kick came first */
long interruptible_syscall(const atomic_int *kicked, long number, long a, long b, long c, long d,
                           long e, long f);
/* For the kick's signal handler (vcpu.c): moves an interrupted context out of the window. */
void interruptible_redirect(void *ucontext);
extern const char interruptible_begin[], interruptible_end[], interruptible_cancel[];

#endif
