#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The storm over every transport and fault mode: 8 threads, 8 times the local memory, random delays.
# A quarter of a minute each, --full: 10 minutes each.
# The sizes and limits below depend on it, so it is looked at before the runner does.
[[ " $* " != *" --full "* ]] || export FULL=1
CASE_TIMEOUT=$([ "${FULL:-}" ] && echo 900 || echo 75)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

STORM_SECONDS=${STORM_SECONDS:-$([ "$FULL" ] && echo 600 || echo 15)}

# storm MODE OPTION...
storm() {
    local mode=$1 peak
    shift
    expect_status 0 far --memory 320M --local 32M --fault-mode "$mode" --stats stats "$@" -- \
        "$GUESTS/storm" --threads 8 --bytes 256 --seconds "$STORM_SECONDS" --seed "$RANDOM"
    grep -q ' mismatches=0$' out || fail "$(cat out)"
    peak=$(($(stat_of stats paging resident_peak_pages) * 4096))
    [ "$peak" -le $((32 << 20)) ] || fail "$peak bytes were resident, 32 MiB allowed"
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

system_main "$@"
