/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one guest page, as fault/ and ept/ live it, under two vCPUs that read, write, pin and
 * discard it, a reclaimer that evicts it and a prefetcher that fetches it. Names are those of
 * ept/ept.h. tests/model/run.sh has spin visit every interleaving.
 *
 * Checked: no lost write and no stale read (what is read is what was written last), no two owners of
 * a busy state, no page freed while pinned or written while protected, no deadlock.
 *
 * Modelled with care: the guest's Dirty bit as KVM keeps it on shadow page tables. A vCPU's fault
 * first walks the guest's tables, setting D for a store; later, perhaps much later, it maps whatever
 * page is there by then, writable if the walk allowed it. Such a late map may come after the page
 * was evicted (D cleared) and fetched again, so a clear D bit proves nothing until every vCPU has
 * left KVM_RUN since it was cleared: the epoch rule.
 *
 * Each rule can be broken by a macro, and spin then finds the lost write (run.sh expects it to):
 *   NO_EPOCH_RULE            a page that comes back is trusted at once
 *   EPOCH_BEFORE_CLEAR       the epoch is taken before D is cleared
 *   TRUST_AFTER_INSTALL      the epoch is looked at when the page is already back
 *   CLASSIFY_BEFORE_PROTECT  D is looked at while stores still get through
 * FILE_PAGE models a page of a private file mapping (content 0 stands for the file's bytes).
 */

#define VCPUS 2
#ifndef OPS
#define OPS 2 /* operations of each vCPU */
#endif
#ifndef EVICTIONS
#define EVICTIONS 2
#endif
#ifndef FETCHES
#define FETCHES 1
#endif
#define GARBAGE 99 /* what a freed frame or a released remote copy holds */

mtype = { ABSENT, FILLING, FETCHING, LOCAL, EVICTING, DROPPING, REMOTE, DISCARDING };
mtype = { NONE, READABLE, WRITABLE };               /* KVM's shadow mapping */
mtype = { FATE_COPY_VALID, FATE_FORGET, FATE_WRITE };

/* The page's word. */
mtype state = ABSENT;
bool dirty;  /* EPT_DIRTY */
bool copy;   /* EPT_COPY: the memory node holds a copy */
bool rescue; /* EPT_RESCUE */
byte pins;
bool has_left[VCPUS] = true; /* this vCPU has left KVM_RUN since the page's epoch */

/* The frame, the mappings of it, and the memory node. */
bool present;
bool protected_;
byte frame = GARBAGE;
bool d_bit;
mtype shadow = NONE;
byte remote = GARBAGE;
bool in_kvm[VCPUS];

/* Truth. */
byte truth;  /* what a read must find */
byte latest; /* counts writes, so that each writes something new */
byte owner;  /* of a busy state; 0: none */

#define RECLAIMER  (VCPUS + 1)
#define PREFETCHER (VCPUS + 2)

inline own(me)
{
    assert(owner == 0);
    owner = me
}

inline settle(me, to)
{
    assert(owner == me);
    owner = 0;
    state = to
}

inline store()
{
    assert(present && !protected_);
    if
    :: latest++; frame = latest
    :: frame = 0
    fi;
    truth = frame
}

inline load()
{
    assert(present);
    assert(frame == truth)
}

/* ---- fault/resolve.c ---- */

/* Has every vCPU left KVM_RUN since the page's epoch? What it says stays true. */
inline look_at_epoch(trusted)
{
#ifdef NO_EPOCH_RULE
    trusted = true
#else
    d_step { trusted = has_left[0] && has_left[1] }
#endif
}

inline install(me, content, clean_if_trusted)
{
#ifndef TRUST_AFTER_INSTALL
    look_at_epoch(trusted);
#endif
    if
    :: d_bit = true /* ept_prime for a store */
    :: skip
    fi;
    atomic {
        assert(!present);
        present = true;
        protected_ = false;
        frame = content
    };
#ifdef TRUST_AFTER_INSTALL
    look_at_epoch(trusted);
#endif
    atomic {
        dirty = !(clean_if_trusted && trusted);
        settle(me, LOCAL)
    }
}

inline fill(me)
{
#ifdef FILE_PAGE
    install(me, 0, true)
#else
    install(me, 0, false)
#endif
}

inline fetch(me)
{
    buffer = remote;
    if
    :: install(me, buffer, true)
    :: atomic { settle(me, REMOTE) } /* the transfer failed, or no frame was free */
    fi;
    buffer = 0
}

/* One round of a faulting thread; `ready` when the guest may run again. */
inline resolve(me, write, ready)
{
    ready = false;
    do
    :: state == LOCAL -> ready = true; break
    :: state == EVICTING && !write -> ready = true; break
    :: atomic { state == EVICTING && write -> rescue = true }; (state != EVICTING)
    :: atomic { state == ABSENT -> state = FILLING; own(me) }; fill(me)
    :: atomic { state == REMOTE -> state = FETCHING; own(me) }; fetch(me)
    :: state == FILLING -> (state != FILLING)
    :: state == FETCHING -> (state != FETCHING)
    :: state == DROPPING -> (state != DROPPING)
    :: state == DISCARDING -> (state != DISCARDING)
    od
}

/* ---- a vCPU in the guest: KVM_RUN until one access is done ---- */

inline kvm_enter(me)
{
    atomic { in_kvm[me - 1] = true }
}

inline kvm_leave(me)
{
    atomic { in_kvm[me - 1] = false; has_left[me - 1] = true }
}

/* KVM's fault path. Step 1 walks the guest's tables; step 2 maps, or gives up to the VMM. */
inline kvm_fault(write)
{
    atomic {
        d_bit = d_bit || write;
        allow = d_bit
    };
    atomic {
        if
        :: !present || (write && protected_) -> missed = true
        :: present && allow && !protected_ -> shadow = WRITABLE
        :: present && !(allow && !protected_) && !(write && protected_) ->
            if
            :: shadow == NONE -> shadow = READABLE
            :: else -> skip
            fi
        fi;
        allow = false
    }
}

inline guest_access(me, write)
{
    kvm_enter(me);
    do
    :: atomic { write && shadow == WRITABLE -> store() }; break
    :: atomic { !write && shadow != NONE -> load() }; break
    :: shadow == NONE || (write && shadow == READABLE) ->
        kvm_fault(write);
        if
        :: missed ->
            missed = false;
            kvm_leave(me);
            resolve(me, write, ready);
            ready = false;
            kvm_enter(me)
        :: else -> skip
        fi
    od
}

/* ---- fault/pin.c: the VMM reads or writes the page for a system call ---- */

inline pin(me, write)
{
    do
    :: atomic { state == LOCAL -> pins++; dirty = dirty || write }; break
    :: state != LOCAL -> resolve(me, true, ready); ready = false
    od
}

inline host_access(me, write)
{
    pin(me, write);
    atomic {
        if
        :: write -> store()
        :: else -> load()
        fi
    };
    assert(present && !protected_);
    atomic { pins-- }
}

/* ---- fault/discard.c ---- */

inline zero_in_place(me)
{
    pin(me, true);
    atomic { frame = 0; truth = 0 };
    atomic { pins-- }
}

inline discard(me)
{
    do
    :: state == ABSENT -> break
    :: state == LOCAL && pins > 0 -> zero_in_place(me); break
    :: atomic { state == LOCAL && pins == 0 -> state = DISCARDING; own(me) };
        atomic {
            assert(pins == 0);
            present = false;
            shadow = NONE;
            frame = GARBAGE;
            truth = 0 /* stores that got in until now are discarded too */
        };
        atomic { copy = false; dirty = false; remote = GARBAGE; settle(me, ABSENT) };
        break
    :: atomic { state == REMOTE -> state = DISCARDING; own(me); truth = 0 };
        atomic { copy = false; dirty = false; remote = GARBAGE; settle(me, ABSENT) };
        break
    :: state == FILLING -> (state != FILLING)
    :: state == FETCHING -> (state != FETCHING)
    :: state == EVICTING -> (state != EVICTING)
    :: state == DROPPING -> (state != DROPPING)
    :: state == DISCARDING -> (state != DISCARDING)
    od
}

proctype vcpu(byte me)
{
    byte ops = 0;
    byte buffer = 0;
    bool allow = false;
    bool missed = false;
    bool ready = false;
    bool trusted = false;

    do
    :: ops < OPS ->
        ops++;
        if
        :: guest_access(me, false)
        :: guest_access(me, true)
        :: kvm_leave(me); host_access(me, false)
        :: kvm_leave(me); host_access(me, true)
        :: kvm_leave(me); discard(me)
        fi
    :: ops == OPS -> break
    od;
    kvm_leave(me)
}

/* ---- fault/evict.c ---- */

inline protect()
{
    atomic {
        protected_ = true;
        if
        :: shadow == WRITABLE -> shadow = NONE
        :: else -> skip
        fi
    }
}

inline classify()
{
    atomic {
        if
        :: !dirty && !d_bit && copy -> fate = FATE_COPY_VALID
#ifdef FILE_PAGE
        :: !dirty && !d_bit && !copy -> fate = FATE_FORGET
        :: dirty || d_bit -> fate = FATE_WRITE
#else
        :: !(!dirty && !d_bit && copy) && frame == 0 -> fate = FATE_FORGET
        :: !(!dirty && !d_bit && copy) && frame != 0 -> fate = FATE_WRITE
#endif
        fi
    }
}

inline take_epoch()
{
    d_step { has_left[0] = !in_kvm[0]; has_left[1] = !in_kvm[1] }
}

inline drop()
{
    atomic {
        assert(pins == 0);
        present = false;
        shadow = NONE;
        frame = GARBAGE
    };
#ifdef EPOCH_BEFORE_CLEAR
    take_epoch();
    d_bit = false;
#else
    d_bit = false;
    take_epoch();
#endif
    atomic {
        dirty = false;
        if
        :: fate == FATE_FORGET ->
            copy = false;
            remote = GARBAGE;
            settle(RECLAIMER, ABSENT)
        :: else ->
            copy = true;
            settle(RECLAIMER, REMOTE)
        fi
    }
}

proctype reclaimer()
{
    byte rounds = 0;
    byte buffer = 0;
    mtype fate = FATE_WRITE;

    do
    :: rounds < EVICTIONS ->
        rounds++;
        if
        :: atomic { state == LOCAL && pins == 0 -> state = EVICTING; rescue = false;
                    own(RECLAIMER) };
#ifdef CLASSIFY_BEFORE_PROTECT
            classify();
            protect();
#else
            protect();
            classify();
#endif
            if
            :: fate == FATE_WRITE ->
                buffer = frame;
                remote = buffer;
                buffer = 0
            :: else -> skip
            fi;
            if
            :: atomic { !rescue -> state = DROPPING }; drop()
            :: rescue -> /* or an error of the memory node */
                protected_ = false;
                atomic { copy = copy || fate == FATE_WRITE; rescue = false;
                         settle(RECLAIMER, LOCAL) }
            fi;
            fate = FATE_WRITE
        :: skip /* nothing to do this time */
        fi
    :: rounds == EVICTIONS -> break
    od
}

proctype prefetcher()
{
    byte rounds = 0;
    byte buffer = 0;
    bool trusted = false;

    do
    :: rounds < FETCHES ->
        rounds++;
        if
        :: atomic { state == REMOTE -> state = FETCHING; own(PREFETCHER) }; fetch(PREFETCHER)
        :: skip
        fi
    :: rounds == FETCHES -> break
    od
}

init
{
    atomic {
        run vcpu(1);
        run vcpu(2);
        run reclaimer();
        run prefetcher()
    };
    (_nr_pr == 1);
    /* Everyone is done: the page must be somewhere, whole, and belong to nobody. */
    assert(owner == 0 && pins == 0 && !rescue);
    if
    :: state == LOCAL -> assert(present && !protected_ && frame == truth)
    :: state == REMOTE -> assert(!present && copy && remote == truth)
    :: state == ABSENT -> assert(!present && truth == 0)
    fi
}
