/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to libfarguide. Runs inside the program, perhaps inside its malloc: so no allocation but
 * by mmap, no lock on the way of a hint, and nothing that needs more than libc.
 */
#ifndef FARGUIDE_INTERNAL_H
#define FARGUIDE_INTERNAL_H

#include "farvisor/guide.h"
#include "farvisor/hints.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>

#define GUIDE_HIDDEN __attribute__((visibility("hidden")))
#define GUIDE_PUBLIC __attribute__((visibility("default")))

/* As enter.S saves them; the order is its. */
struct guide_regs {
    uint64_t xmm[16][2];
    uint64_t r15, r14, r13, r12, rbp, rbx;
    uint64_t r11, r10, rax, r9, r8, rcx, rdx, rsi, rdi;
    uint64_t slot;           /* IN: the hook's number; OUT: where to go on */
    uint64_t return_address; /* of the hooked call, on the caller's stack in place */
};
_Static_assert(offsetof(struct guide_regs, slot) == 256 + 15 * 8, "enter.S builds this");

enum guide_phase {
    GUIDE_BEFORE, /* in the guide, the original was not called yet */
    GUIDE_WITHIN, /* in the original */
    GUIDE_AFTER,  /* in the guide again, with a result */
    GUIDE_CALLED  /* in guide_start */
};

/* A guide's code on a thread's stack, innermost last. */
struct guide_record {
    uint32_t hook;
    enum guide_phase phase;
    struct guide_regs entry; /* as the function was called */
    uint64_t entry_stack;    /* where its return address lies */
    uint64_t original_return;
    struct guide_regs passed; /* to the original, by the guide */
    struct guide_regs result; /* as the original returned */
    jmp_buf *start;           /* GUIDE_CALLED */
};

#define GUIDE_DEPTH 32u

struct guide_thread {
    struct fv_hint_ring *ring;     /* NULL: natively */
    bool posting;                  /* a signal handler must not post into the middle of a post */
    uint64_t slots[FV_READS / 64]; /* answer slots in use */
    uint64_t began_ticks, guide_ticks, entered_ticks;
    bool entering; /* a record is being made: a signal handler that interrupts it makes none */
    uint32_t depth;
    struct guide_record records[GUIDE_DEPTH];
};

/* ---- channel.c ---- */
/* The calling thread's; made when first asked for. NULL: out of memory. Keeps errno. */
GUIDE_HIDDEN struct guide_thread *guide_thread_self(void);
/* Its ring, if hints are taken there now; else NULL. */
GUIDE_HIDDEN struct fv_hint_ring *guide_ring(void);
GUIDE_HIDDEN long guide_call(long operation, uint64_t a, uint64_t b, uint64_t c);
/* Does this process run in a guest that takes hints? No thread needs a ring for the answer. */
GUIDE_HIDDEN bool guide_has_channel(void);
/* Posts one. 0, or -EAGAIN: the ring is full, or a post was interrupted. */
GUIDE_HIDDEN int guide_post(struct guide_thread *thread, const struct fv_hint *hint);
/* Posts, waiting for room. 0, or -EAGAIN as above but for a full ring. */
GUIDE_HIDDEN int guide_post_wait(struct guide_thread *thread, const struct fv_hint *hint);

/* ---- insn.c ---- */
struct guide_insn {
    uint8_t bytes;        /* length */
    uint8_t rip_at;       /* where its RIP-relative displacement is, 0: none */
    uint8_t branch_at;    /* where its relative branch offset is, 0: none */
    uint8_t branch_bytes; /* 1 or 4 */
    bool ends;            /* ret, jmp: control does not reach the next one */
};
/* Decodes the 64-bit instruction at `code`, of which `room` bytes may be read. false: unknown. */
GUIDE_HIDDEN bool guide_insn_decode(const uint8_t *code, size_t room, struct guide_insn *out);

/* ---- relocate.c ---- */
#define GUIDE_PATCH_BYTES 5u  /* jmp rel32 */
#define GUIDE_MOVED_MAX   64u /* of moved instructions with the jump back */
/*
 * Copies the instructions that a patch of `function` (function_bytes long, 0: unknown) would
 * overwrite to `to`, made right for there, and a jump back behind them. Returns how many bytes of
 * the function they were, or -ENOTSUP.
 */
GUIDE_HIDDEN int guide_relocate(const uint8_t *function, size_t function_bytes, uint8_t *to);

/* ---- hook.c ---- */
struct guide_hooked {
    void *replacement;
    void *trampoline; /* the function's moved start */
    void *function;
    const char *guide; /* whose it is, for messages */
};
GUIDE_HIDDEN const struct guide_hooked *guide_hook_at(uint32_t index);

/* ---- faults.c ---- */
/* What the calling thread's handler was told, NULL outside of one. Touches nothing but TLS and the
 * ring. */
GUIDE_HIDDEN struct fv_fault *guide_fault_self(void);
/* Adds to the answer. 0, or -EAGAIN: it is full. */
GUIDE_HIDDEN int guide_fault_answer(struct fv_fault *fault, const struct fv_hint *hint);
/* Called by enter.S. */
GUIDE_HIDDEN void guide_on_upcall(struct fv_fault *fault);

/* ---- guard.c ---- */
/* Set once: no hook is entered any more. */
GUIDE_HIDDEN extern atomic_bool guide_is_off;
/* The guide whose start function runs, or "". */
GUIDE_HIDDEN const char *guide_starting(void);
/* The same, or the one whose hook the calling thread is in. */
GUIDE_HIDDEN const char *guide_running(void);

/*
 * Between these two the thread is not sent away from a guide that takes too long, so that nothing
 * stays half done; but it goes, and guide_let_go does not return, as soon as they are over. A fault
 * in between is the program's. `progress`: a bounded step of a guide's work was done, and its time
 * starts anew.
 */
GUIDE_HIDDEN void guide_hold(void);
GUIDE_HIDDEN void guide_let_go(bool progress);

/* ---- enter.S ---- */
GUIDE_HIDDEN void guide_hook_enter(void);
GUIDE_HIDDEN void guide_hook_return(void);
GUIDE_HIDDEN void guide_original_enter(void);
GUIDE_HIDDEN void guide_original_return(void);
GUIDE_HIDDEN void guide_rescue_entry(void);
GUIDE_HIDDEN void guide_fault_entry(void); /* fv_watch.entry */
/* Loads every register, and returns to what is on top of `stack`. */
GUIDE_HIDDEN _Noreturn void guide_resume(const struct guide_regs *regs, uint64_t stack);
/* Called by enter.S; they leave in regs->slot where to go on. */
GUIDE_HIDDEN void guide_on_enter(struct guide_regs *regs);
GUIDE_HIDDEN void guide_on_return(struct guide_regs *regs);
GUIDE_HIDDEN void guide_on_original(struct guide_regs *regs);
GUIDE_HIDDEN void guide_on_original_return(struct guide_regs *regs);
GUIDE_HIDDEN _Noreturn void guide_on_rescue(uint64_t why);

#endif
