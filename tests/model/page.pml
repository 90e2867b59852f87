/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one guest page, as fault/ and ept/ live it, under two vCPUs that read, write, pin and
 * discard it, a reclaimer that evicts it and a prefetcher that fetches it. Names are those of
 * ept/ept.h, whose table of transitions is all here. tests/model/run.sh has spin visit every
 * interleaving.
 *
 * Checked: no lost write and no stale read (what is read is what was written last), no two owners of
 * a busy state, no page freed while pinned or written while protected, no pin that was never taken
 * let go, no page left behind where nothing is mapped, no deadlock.
 *
 * Modelled with care: the guest's Dirty bit as KVM keeps it on shadow page tables. A vCPU's fault
 * first walks the guest's tables, setting D for a store; later, perhaps much later, it maps whatever
 * page is there by then, writable if the walk allowed it. Such a late map may come after the page
 * was evicted (D cleared) and fetched again, so a clear D bit proves nothing until every vCPU has
 * left KVM_RUN since it was cleared: the epoch rule.
 *
 * What the page is, each a configuration:
 *   (none)     anonymous memory
 *   FILE_PAGE  of a private file mapping
 *   MAPPINGS   either, and mmap puts the one in the other's place: a first touch looks up what is
 *              mapped without a lock (fault/fill.c)
 *   HEAP       it holds an object of the guest's allocator, and neighbours of it that are not
 *              followed: a dead object's bytes do not travel, and a page on which nothing lives is
 *              forgotten (fault/live.c, docs/allocator.md)
 *   CHAINS     the prefetcher reads the copy without a claim, too, and judges afterwards whether
 *              that was the page (fault/chain.c)
 *
 * Each rule can be broken by a macro, and spin then finds what goes wrong (run.sh expects it to):
 *   NO_EPOCH_RULE            a page that comes back is trusted at once
 *   EPOCH_BEFORE_CLEAR       the epoch is taken before D is cleared
 *   TRUST_AFTER_INSTALL      the epoch is looked at when the page is already back
 *   CLASSIFY_BEFORE_PROTECT  D is looked at while stores still get through
 *   CLEAN_WHEN_RESCUED       a page that was written back and stays counts as clean
 *   DROP_BEFORE_WRITTEN      the frame is freed before the write-back is acknowledged
 *   DISCARD_IN_FLIGHT        a page being fetched is given up at once; its bytes arrive later
 *   DISCARD_PINNED           a page under a request is given up
 *   DISCARD_KEEPS_COPY       a copy that was released still counts as one
 *   UNPIN_WITHOUT_PIN        whoever could not pin the page unpins it all the same
 *   ZERO_FILE_FORGOTTEN      a page of a file that was written full of zeroes becomes ABSENT
 *   NO_SECOND_LOOK           a first touch does not look again what is mapped after its claim
 *   COUNT_AFTER_FILL         a page counts as existing only when it is filled
 *   MAP_BEFORE_PROTECT       what lives is looked up while stores still get through
 *   MAP_BEFORE_CLAIM         what lives is looked up before the page is claimed for its fetch
 *   DEPART_AFTER_WORD        the number of a departure is left after the word says REMOTE
 *   DEPARTED_BEFORE_STATE    a chain is judged by the number first, then by the state
 */

#define VCPUS 2
#ifndef OPS
#define OPS 2 /* operations of a vCPU ... */
#endif
#ifndef OPS_OTHER
#define OPS_OTHER OPS /* ... and of the other one */
#endif
#ifndef EVICTIONS
#define EVICTIONS 2
#endif
#ifndef FETCHES
#define FETCHES 1
#endif
#ifdef MAPPINGS
#define FILE_BYTES 50 /* what the file holds */
#else
#define FILE_BYTES 0
#endif
#define UNKNOWN    98 /* truth only: no byte of a live object was stored */
#define GARBAGE    99 /* what a freed frame or a released remote copy holds */

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

/* What is mapped here (vmm/mm/mm.c), and what a page that was never written holds. */
#if defined(MAPPINGS)
bool mapped = true;
bool maps_file;
bool file;     /* EPT_FILE */
bool change;   /* the lock of whoever changes what is mapped */
byte existing; /* of the page's block: 0 says that nothing is there to discard */
bool held;     /* a request held the page when its range was unmapped */
#define MAPPED mapped
#define ORIGIN (mapped && maps_file -> FILE_BYTES : 0)
#elif defined(FILE_PAGE)
#define file   true
#define MAPPED true
#define ORIGIN FILE_BYTES
#else
#define file   false
#define MAPPED true
#define ORIGIN 0
#endif

/* The object that lives on the page. */
#ifdef HEAP
bool live;
byte users; /* vCPUs in the middle of an access to it: no program frees it then */
#define USES uses
#else
#define live true
#define USES true
#endif

#ifdef CHAINS
byte departures; /* the last number given */
byte departed;   /* ... to the page's block */
#endif

/* Truth. */
byte truth;  /* what a read must find */
byte latest; /* counts writes, so that each writes something new */
byte owner;  /* of a busy state; 0: none */

#define RIGHT(content) (truth == UNKNOWN || (content) == truth)
#define RECLAIMER      (VCPUS + 1)
#define PREFETCHER     (VCPUS + 2)

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

/* Without USES: to something else on the page. */
inline store()
{
    assert(present && !protected_);
    if
    :: !USES -> skip
    :: USES -> latest++; frame = latest; truth = frame
    :: USES -> frame = 0; truth = frame
    fi
}

inline load()
{
    assert(present);
    assert(!USES || RIGHT(frame))
}

/* ---- fault/fill.c, fault/fetch.c ---- */

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

#ifdef MAPPINGS
inline count(n)
{
    atomic { existing = existing + n; assert(existing < 8) }
}

/* From the first look at what is mapped on; somebody may map something else at every step. */
inline fill(me)
{
    atomic { missing = !mapped; as_file = maps_file };
    if
    :: missing -> missing = false; as_file = false; failed = true /* SIGSEGV, EFAULT */
    :: else ->
#ifndef COUNT_AFTER_FILL
        count(1);
#endif
        if
        :: atomic { state == ABSENT -> state = FILLING; own(me) };
#ifndef NO_SECOND_LOOK
            atomic { missing = !mapped || maps_file != as_file };
#endif
            if
            :: atomic { !missing && as_file -> buffer = (mapped -> FILE_BYTES : GARBAGE) }
            :: !missing && !as_file -> buffer = 0
            :: missing -> skip
            fi;
            if
            :: missing || buffer == GARBAGE ->
                missing = false;
                atomic { settle(me, ABSENT) };
#ifndef COUNT_AFTER_FILL
                count(-1)
#endif
            :: !missing && buffer != GARBAGE ->
                file = as_file;
                install(me, buffer, as_file);
#ifdef COUNT_AFTER_FILL
                count(1)
#endif
            fi;
            buffer = 0
        :: state != ABSENT ->
#ifndef COUNT_AFTER_FILL
            count(-1)
#else
            skip
#endif
        fi;
        as_file = false
    fi
}
#else
inline fill(me)
{
    if
    :: atomic { state == ABSENT -> state = FILLING; own(me) };
        if
        :: install(me, ORIGIN, file)
        :: atomic { settle(me, ABSENT) } /* no frame in time, no quota; who is patient tries again */
        fi
    :: state != ABSENT
    fi
}
#endif

/* What lives is asked once the page is claimed; what is dead arrives as zeroes. */
inline fetch(me)
{
#if defined(HEAP) && !defined(MAP_BEFORE_CLAIM)
    sees = live;
#endif
    atomic {
        buffer = (sees -> remote : 0);
        assert(!sees || RIGHT(buffer));
        sees = true
    };
    if
    :: install(me, buffer, true)
    :: atomic { settle(me, REMOTE) } /* it failed, no frame was free, or a look (fault/peek.c) */
    fi;
    buffer = 0
}

/* ---- fault/resolve.c ---- */

/* What a faulting thread does until the guest may run again; `failed`: it may not. */
inline resolve(me, write)
{
    do
    :: failed || state == LOCAL -> break
    :: state == EVICTING && !write -> break
    :: atomic { state == EVICTING && write -> rescue = true }; (state != EVICTING)
    :: state == ABSENT -> fill(me)
#ifdef MAP_BEFORE_CLAIM
    :: state == REMOTE ->
        sees = live;
        if
        :: atomic { state == REMOTE -> state = FETCHING; own(me) }; fetch(me)
        :: state != REMOTE -> sees = true
        fi
#else
    :: atomic { state == REMOTE -> state = FETCHING; own(me) }; fetch(me)
#endif
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

#ifdef HEAP
inline use_begin()
{
    atomic {
        if
        :: live -> uses = true; users++
        :: skip
        fi
    }
}

inline use_end()
{
    atomic {
        if
        :: uses -> uses = false; users--
        :: else -> skip
        fi
    }
}
#endif

inline guest_access(me, write)
{
#ifdef HEAP
    use_begin();
#endif
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
            resolve(me, write);
            if
            :: atomic { failed -> failed = false }; break
            :: atomic { !failed -> in_kvm[me - 1] = true }
            fi
        :: else -> skip
        fi
    od
#ifdef HEAP
    ;
    use_end()
#endif
}

/* ---- fault/pin.c: the VMM reads or writes the page for a system call ---- */

inline pin(me, write)
{
    do
    :: atomic { state == LOCAL -> pins++; dirty = dirty || write; pinned = true }; break
    :: state != LOCAL ->
        resolve(me, true);
        if
        :: atomic { failed -> failed = false }; break
        :: !failed
        fi
    od
}

inline unpin()
{
    atomic {
        if
        :: pinned -> assert(pins > 0); pins--; pinned = false
#ifdef UNPIN_WITHOUT_PIN
        :: !pinned && pins > 0 -> pins--
        :: !pinned && pins == 0 -> skip
#else
        :: else -> skip
#endif
        fi
    }
}

inline host_access(me, write)
{
#ifdef HEAP
    use_begin();
#endif
    pin(me, write);
    atomic {
        if
        :: pinned && write -> store()
        :: pinned && !write -> load()
        :: else -> skip
        fi
    };
    assert(!pinned || (present && !protected_));
    unpin()
#ifdef HEAP
    ;
    use_end()
#endif
}

/* ---- fault/discard.c ---- */

inline renew_in_place(me)
{
    pin(me, true);
    atomic {
        if
        :: pinned ->
            frame = ORIGIN;
            truth = ORIGIN;
#ifdef MAPPINGS
            file = mapped && file;
            held = held || !mapped
#endif
        :: else -> skip
        fi
    };
    unpin()
}

inline forget(me)
{
    atomic {
#ifndef DISCARD_KEEPS_COPY
        copy = false;
#endif
        dirty = false;
        remote = GARBAGE;
#ifdef MAPPINGS
        file = false;
        held = false;
#endif
        settle(me, ABSENT)
    };
#ifdef MAPPINGS
    count(-1)
#endif
}

inline discard(me)
{
    do
#ifdef MAPPINGS
    :: existing == 0 -> truth = ORIGIN; break
#endif
    :: atomic { state == ABSENT -> truth = ORIGIN }; break
#ifdef DISCARD_PINNED
    :: atomic { state == LOCAL -> state = DISCARDING; own(me) };
#else
    :: state == LOCAL && pins > 0 -> renew_in_place(me); break
    :: atomic { state == LOCAL && pins == 0 -> state = DISCARDING; own(me) };
#endif
        atomic {
            assert(pins == 0);
            present = false;
            shadow = NONE;
            frame = GARBAGE;
            truth = ORIGIN /* stores that got in until now are discarded too */
        };
        forget(me);
        break
    :: atomic { state == REMOTE -> state = DISCARDING; own(me); truth = ORIGIN };
        forget(me);
        break
    :: state == FILLING -> (state != FILLING)
#ifdef DISCARD_IN_FLIGHT
    :: atomic { state == FETCHING -> owner = me; truth = ORIGIN; forget(me) }; break
#else
    :: state == FETCHING -> (state != FETCHING)
#endif
    :: state == EVICTING -> (state != EVICTING)
    :: state == DROPPING -> (state != DROPPING)
    :: state == DISCARDING -> (state != DISCARDING)
    od
}

/* ---- vmm/mm/mmap.c ---- */

#ifdef MAPPINGS
/* munmap, or mmap of something else in its place. */
inline remap(me)
{
    atomic { !change -> change = true };
    mapped = false;
    discard(me);
    if
    :: skip
    :: atomic {
            if
            :: as_file = true
            :: as_file = false
            fi
        };
        discard(me); /* a request that was under way may have filled it since */
        if
        :: as_file && state != ABSENT -> skip /* ENOMEM */
        :: else ->
            atomic {
                mapped = true;
                maps_file = as_file;
                held = false;
                if
                :: state == ABSENT || state == FILLING -> truth = ORIGIN
                :: else -> skip
                fi
            }
        fi;
        as_file = false
    fi;
    change = false
}
#endif

/* ---- guides-api/guide: the allocator ---- */

#ifdef HEAP
inline allocate_or_free()
{
    atomic {
        if
        :: !live -> live = true; truth = UNKNOWN
        :: live && users == 0 -> live = false; truth = UNKNOWN
        :: else -> skip
        fi
    }
}
#endif

proctype vcpu(byte me)
{
    byte ops = (me == 1 -> 0 : OPS - OPS_OTHER);
    byte buffer = 0;
    bool allow = false;
    bool missed = false;
    bool failed = false;
    bool pinned = false;
    bool trusted = false;
    bool sees = true;
#ifdef HEAP
    bool uses = false;
#endif
#ifdef MAPPINGS
    bool missing = false;
    bool as_file = false;
#endif

    do
    :: ops < OPS ->
        ops++;
        if
        :: guest_access(me, false)
        :: guest_access(me, true)
        :: kvm_leave(me); host_access(me, true)
#if defined(HEAP)
        :: allocate_or_free()
#elif defined(MAPPINGS)
        :: kvm_leave(me); remap(me)
#else
        :: kvm_leave(me); host_access(me, false)
        :: kvm_leave(me); discard(me)
#endif
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
#if defined(HEAP) && !defined(MAP_BEFORE_PROTECT)
    sees = live;
#endif
    atomic {
        clean = !dirty && !d_bit;
        if
#ifdef HEAP
        :: !sees -> fate = FATE_FORGET                /* nor do its neighbours live */
        :: !(clean && copy) -> fate = FATE_WRITE      /* its neighbours are not zero */
#endif
        :: clean && copy -> fate = FATE_COPY_VALID
        :: clean && !copy && file -> fate = FATE_FORGET
#ifdef ZERO_FILE_FORGOTTEN
        :: !(clean && (copy || file)) && frame == 0 -> fate = FATE_FORGET
        :: !(clean && (copy || file)) && frame != 0 -> fate = FATE_WRITE
#else
        :: !(clean && (copy || file)) && (!file && frame == 0) -> fate = FATE_FORGET
        :: !(clean && (copy || file)) && (file || frame != 0) -> fate = FATE_WRITE
#endif
        fi;
        clean = false
    }
}

inline write_back()
{
    if
    :: atomic { fate == FATE_WRITE && sees -> buffer = frame }; atomic { remote = buffer; buffer = 0 }
    :: else -> skip
    fi
}

inline take_epoch()
{
    d_step { has_left[0] = !in_kvm[0]; has_left[1] = !in_kvm[1] }
}

#ifdef CHAINS
inline depart()
{
    departures++;
    departed = departures
}
#endif

inline drop()
{
    atomic {
        assert(pins == 0);
        present = false;
        shadow = NONE;
#ifdef DROP_BEFORE_WRITTEN
        buffer = frame;
#endif
        frame = GARBAGE
    };
#ifdef EPOCH_BEFORE_CLEAR
    take_epoch();
    d_bit = false;
#else
    d_bit = false;
    take_epoch();
#endif
#if defined(CHAINS) && !defined(DEPART_AFTER_WORD)
    depart();
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
    };
#ifdef DEPART_AFTER_WORD
    depart();
#endif
#ifdef MAPPINGS
    if
    :: fate == FATE_FORGET -> count(-1)
    :: else -> skip
    fi;
#endif
#ifdef DROP_BEFORE_WRITTEN
    if
    :: fate == FATE_WRITE -> remote = buffer
    :: else -> skip
    fi;
    buffer = 0;
#endif
    skip
}

inline stay(written)
{
    protected_ = false;
#ifdef CLEAN_WHEN_RESCUED
    atomic { d_bit = d_bit && !written; dirty = dirty && !written };
#endif
    atomic { copy = copy || written; rescue = false; settle(RECLAIMER, LOCAL) }
}

proctype reclaimer()
{
    byte rounds = 0;
    byte buffer = 0;
    bool clean = false;
    bool sees = true;
    mtype fate = FATE_WRITE;

    do
    :: rounds < EVICTIONS ->
        rounds++;
        if
        :: atomic { state == LOCAL && pins == 0 -> state = EVICTING; rescue = false;
                    own(RECLAIMER) };
#ifdef MAP_BEFORE_PROTECT
            sees = live;
#endif
#ifdef CLASSIFY_BEFORE_PROTECT
            classify();
            protect();
#else
            protect();
            classify();
#endif
#ifndef DROP_BEFORE_WRITTEN
            write_back();
#endif
            if
            :: atomic { !rescue -> state = DROPPING }; drop()
            :: rescue -> stay(fate == FATE_WRITE) /* or an error of the memory node */
            fi;
            atomic { fate = FATE_WRITE; sees = true }
        :: skip /* nothing to do this time */
        fi
    :: rounds == EVICTIONS -> break
    od
}

/* ---- fault/flight.c, fault/chain.c ---- */

#ifdef CHAINS
/* The memory node reads; then the word is judged, and after it the block's number. */
inline chain()
{
    posted = departures;
    buffer = remote;
#ifdef DEPARTED_BEFORE_STATE
    later = departed > posted;
    atomic { was = truth; valid = (state == REMOTE || state == FETCHING) };
#else
    atomic { was = truth; valid = (state == REMOTE || state == FETCHING) };
    later = departed > posted;
#endif
    atomic {
        assert(!valid || later || buffer == was);
        posted = 0; buffer = 0; later = false; valid = false; was = 0
    }
}
#endif

proctype prefetcher()
{
    byte rounds = 0;
    byte buffer = 0;
    bool trusted = false;
    bool sees = true;
#ifdef CHAINS
    byte posted = 0;
    byte was = 0;
    bool later = false;
    bool valid = false;
#endif

    do
    :: rounds < FETCHES ->
        rounds++;
        if
#if defined(CHAINS)
        :: chain()
#elif defined(MAP_BEFORE_CLAIM)
        :: sees = live;
            if
            :: atomic { state == REMOTE -> state = FETCHING; own(PREFETCHER) }; fetch(PREFETCHER)
            :: state != REMOTE -> sees = true
            fi
#else
        :: atomic { state == REMOTE -> state = FETCHING; own(PREFETCHER) }; fetch(PREFETCHER)
#endif
        :: skip
        fi
    :: rounds == FETCHES -> break
    od
}

init
{
    atomic {
#ifdef MAPPINGS
        if
        :: maps_file = true
        :: maps_file = false
        fi;
#endif
#ifdef HEAP
        truth = UNKNOWN;
        if
        :: live = true
        :: live = false
        fi;
#else
        truth = ORIGIN;
#endif
        run vcpu(1);
        run vcpu(2);
        run reclaimer();
        run prefetcher()
    };
    (_nr_pr == 1);
    /* Everyone is done: the page must be somewhere, whole, and belong to nobody. */
    assert(owner == 0 && pins == 0 && !rescue);
    if
    :: state == LOCAL -> assert(present && !protected_ && RIGHT(frame))
    :: state == REMOTE -> assert(!present && copy && RIGHT(remote))
    :: state == ABSENT -> assert(!present && RIGHT(ORIGIN))
    fi;
#ifdef MAPPINGS
    assert(existing == (state == ABSENT -> 0 : 1));
    assert(mapped || held || state == ABSENT)
#endif
}
