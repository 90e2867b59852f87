#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Pages mapped in the second stage before they are touched (ept/ahead.c). Where KVM can, KVM counts
# fewer faults, and nothing else changes; where it cannot, or is not asked to, nothing is mapped.
CASE_TIMEOUT=${CASE_TIMEOUT:-150}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# Asked of KVM, not of farvisor: KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY.
kvm_can() {
    python3 -c 'import fcntl; exit(fcntl.ioctl(open("/dev/kvm", "rb"), 0xae03, 236) <= 0)'
}

mapped() { stat_of stats vcpus mapped_ahead_pages; }

# sequential MODE MIB PASSES LOCAL: sets FAULTS, KVM's own count.
sequential() {
    expect_status 0 far --memory 128M --local "$4" --map-ahead "$1" --stats stats -- \
        "$GUESTS/sequential" "$2" "$3"
    grep -qx 'sequential: ok' out || fail "$(cat out)"
    FAULTS=$(stat_of stats vcpus second_stage_faults)
    echo "map ahead $1: second-stage faults $FAULTS, mapped ahead $(mapped) pages in" \
        "$(stat_of stats vcpus mapped_ahead_calls) calls, exits $(stat_of stats vcpus exits)," \
        "late $(stat_of stats prefetch late_pages), demanded $(stat_of stats paging demand_fetched_pages)," \
        "ahead $(stat_of stats paging prefetched_pages), written $(stat_of stats paging written_bytes) bytes"
}

# 64 MiB of first touches, filled in runs that grow: all but the first of a run are mapped with it.
test_first_touches_fault_once_a_run() {
    local without
    sequential off 64 0 100M
    without=$FAULTS
    [ "$(mapped)" = 0 ] || fail "$(mapped) pages mapped though that is off"
    sequential on 64 0 100M
    if kvm_can; then
        [ "$(mapped)" -gt 12000 ] || fail "only $(mapped) pages of 16384 mapped"
        [ "$FAULTS" -lt $((without / 4)) ] || fail "$FAULTS faults with it, $without without"
    else
        [ "$(mapped)" = 0 ] || fail "KVM cannot, but $(mapped) pages are said to be mapped"
    fi
}

# Reads come out right, are fewer faults, and make nothing dirty: each page is written back once.
test_reading_ahead_writes_nothing_back() {
    local without mode most
    for mode in off on; do
        sequential $mode 48 3 12M
        most=$((52 * 1048576 + $(stat_of stats paging distrusted_pages) * 4096))
        [ "$(stat_of stats paging written_bytes)" -le $most ] ||
            fail "$mode: $(stat_of stats paging written_bytes) bytes written back, 48 MiB were written once"
        [ $mode = on ] || without=$FAULTS
    done
    if kvm_can; then
        [ "$(mapped)" -gt 0 ] || fail 'nothing was mapped'
        [ "$FAULTS" -lt "$without" ] || fail "$FAULTS faults with it, $without without"
    else
        [ "$(mapped)" = 0 ] || fail "KVM cannot, but $(mapped) pages are said to be mapped"
    fi
}

# Eviction, discards and stores race with it.
test_storm() {
    expect_status 0 far --memory 320M --local 32M --stats stats \
        --transport loopback,delay=20us,jitter=60us -- \
        "$GUESTS/storm" --threads 8 --bytes 256 --seconds 15 --seed "$RANDOM"
    grep -q ' mismatches=0$' out || fail "$(cat out)"
    ! kvm_can || [ "$(mapped)" -gt 0 ] || fail 'nothing was mapped'
    echo "mapped ahead: $(mapped) pages; $(stat_of stats paging evicted_pages) evicted"
}

# A missing page would make the call wait for the handler there.
test_not_in_uffd_mode() {
    expect_status 0 far --memory 128M --local 12M --fault-mode uffd --stats stats -- \
        "$GUESTS/sequential" 24 1
    [ "$(mapped)" = 0 ] || fail "$(mapped) pages mapped"
}

# With nothing paged, huge pages of the host are huge pages of the second stage.
test_memory_that_is_all_here_faults_once_for_2_MiB() {
    expect_status 0 far --memory 256M --stats stats -- "$GUESTS/sequential" 64 1
    note "$(stat_of stats vcpus second_stage_faults) second-stage faults for 64 MiB"
    if grep -qxE 'Y|1' /sys/module/kvm_{amd/parameters/npt,intel/parameters/ept} 2>/dev/null &&
        ! grep -q '\[never\]' /sys/kernel/mm/transparent_hugepage/enabled; then
        [ "$(stat_of stats vcpus second_stage_faults)" -lt 2000 ] ||
            fail "$(stat_of stats vcpus second_stage_faults) second-stage faults for 16384 pages"
    fi
}

system_main "$@"
