#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The storm over every transport and fault mode: 8 threads, 8 times the local memory, random delays.
# A quarter of a minute each, --full: 10 minutes each (STORM_SECONDS). And with every prefetcher in half
# of that local memory, so that the reclaimer never rests: 10 seconds each, --full: 2 minutes
# (STORM_PREFETCH_SECONDS).
# The sizes and limits below depend on it, so it is looked at before the runner does.
[[ " $* " != *" --full "* ]] || export FULL=1
CASE_TIMEOUT=$([ "${FULL:-}" ] && echo 900 || echo 75)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

STORM_SECONDS=${STORM_SECONDS:-$([ "$FULL" ] && echo 600 || echo 15)}

STORM_PREFETCH_SECONDS=${STORM_PREFETCH_SECONDS:-$([ "$FULL" ] && echo 120 || echo 10)}
STORM_LOCAL_MIB=32

# storm_run MODE OPTION...: no mismatch, and no more here than allowed.
storm_run() {
    local mode=$1 peak
    shift
    expect_status 0 far --memory 320M --local "${STORM_LOCAL_MIB}M" --fault-mode "$mode" --stats stats "$@" -- \
        "$GUESTS/storm" --threads 8 --bytes 256 --seconds "$STORM_SECONDS" --seed "$RANDOM"
    grep -q ' mismatches=0$' out || fail "$(cat out)"
    peak=$(($(stat_of stats paging resident_peak_pages) * 4096))
    [ "$peak" -le $((STORM_LOCAL_MIB << 20)) ] ||
        fail "$peak bytes were resident, $STORM_LOCAL_MIB MiB allowed"
}

# storm MODE OPTION...
storm() {
    storm_run "$@"
    # Pages of the whole region were out there and came back.
    [ "$(stat_of stats paging demand_fetched_pages)" -gt 1000 ] || fail 'hardly anything was fetched'
}

test_loopback_exit() { storm exit --transport loopback,delay=20us,jitter=60us; }
test_loopback_uffd() { storm uffd --transport loopback,delay=20us,jitter=60us; }

test_ofi_exit() {
    start_memserver --capacity 1G
    storm exit --transport ofi --memserver "$MEMSERVER_ADDR"
}

test_ofi_uffd() {
    start_memserver --capacity 1G
    storm uffd --transport ofi --memserver "$MEMSERVER_ADDR"
}

# No delay at all: pages are copied straight from shared memory.
test_loopback_direct() {
    STORM_SECONDS=$([ "${SANITIZE:-}" ] && echo 15 || echo 5) storm exit --transport loopback
}

# prefetching NAME: the storm with this prefetcher while frames are always short.
prefetching() {
    local ahead fetched evicted moved
    STORM_LOCAL_MIB=16 STORM_SECONDS=$STORM_PREFETCH_SECONDS \
        storm_run exit --transport loopback,delay=20us,jitter=60us --prefetch "$1"
    ahead=$(stat_of stats paging prefetched_pages)
    case $1 in
    # Requests of several pages, as the storm's own I/O, fetch them together: those are asked for.
    none)
        moved=$(sed -nE 's/.* io=([0-9]+) .*/\1/p' out)
        [ "$ahead" -lt $((100 + 3 * moved)) ] || fail "$ahead pages were fetched unasked, with $moved moves of some"
        ;;
    *) [ "$ahead" -gt 100 ] || fail "only $ahead pages were fetched ahead" ;;
    esac
    fetched=$((ahead + $(stat_of stats paging demand_fetched_pages)))
    [ "$fetched" -gt 500 ] || fail "only $fetched pages were fetched"
    evicted=$(stat_of stats paging evicted_pages)
    [ "$evicted" -gt 4096 ] || fail "only $evicted pages were evicted"
}

test_prefetch_none() { prefetching none; }
test_prefetch_readahead() { prefetching readahead; }
test_prefetch_trend() { prefetching trend; }
test_prefetch_auto() { prefetching auto; }

system_main "$@"
