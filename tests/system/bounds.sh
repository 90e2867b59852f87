#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# --local is a hard bound: by our own count and by the kernel's, read from outside while the guest
# runs; and what farvisor needs beside it stays small.
CASE_TIMEOUT=90
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# sample PID: appends "RssShmem RssAnon" in KiB until the process ends.
sample() {
    while awk '/^RssAnon/ {a = $2} /^RssShmem/ {s = $2} END {if (s == "") exit 1; print s, a}' \
        "/proc/$1/status" 2>/dev/null; do
        sleep 0.05
    done >samples
}

# bounded LOCAL_MIB MODE PROGRAM...: over ofi, where no page of the memory server is mapped here.
bounded() {
    local local_mib=$1 mode=$2 pid shmem anon peak
    shift 2
    start_memserver --capacity 2G
    "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 512M --local "${local_mib}M" --transport ofi --memserver "$MEMSERVER_ADDR" \
        --fault-mode "$mode" --stats stats -- "$@" >out 2>err &
    pid=$!
    at_exit "end_process $pid"
    sample $pid
    wait $pid || fail "status $?: $(cat err)"
    peak=$(($(stat_of stats paging resident_peak_pages) / 256))
    [ $peak -le "$local_mib" ] || fail "$peak MiB resident by our count, $local_mib allowed"
    [ "$(stat_of stats paging evicted_pages)" -gt 0 ] || fail 'nothing was evicted'
    shmem=$(sort -n samples | tail -n 1 | cut -d' ' -f1)
    anon=$(cut -d' ' -f2 samples | sort -n | tail -n 1)
    # The guest's kernel and page tables are shared memory too, but count as overhead.
    [ "$shmem" -le $((local_mib * 1024 + 16384)) ] || fail "$shmem KiB of shared memory seen from outside"
    [ $((shmem - local_mib * 1024 + anon)) -le $((48 * 1024)) ] ||
        fail "overhead: $shmem KiB shared - $local_mib MiB + $anon KiB private > 48 MiB"
    echo "local $local_mib MiB: peak $peak MiB, outside $shmem KiB shared, $anon KiB private"
}

test_writer_exit() { bounded 64 exit "$GUESTS/busy_writer" 256 10; }
test_writer_uffd() { bounded 64 uffd "$GUESTS/busy_writer" 256 10; }
test_storm_exit() { bounded 32 exit "$GUESTS/storm" --threads 8 --bytes 256 --seconds 10; }
test_storm_uffd() { bounded 32 uffd "$GUESTS/storm" --threads 8 --bytes 256 --seconds 10; }
test_smallest() { bounded 8 exit "$GUESTS/busy_writer" 64 5; }

# Never-written pages are never fetched: reading a huge region costs no transfer.
test_untouched_pages_cost_nothing() {
    far --memory 256M --local 32M --stats stats -- "$GUESTS/mmap_space" >out 2>err || fail "$(cat err)"
    [ "$(stat_of stats paging demand_fetched_pages)" -lt 2000 ] || fail 'fetched what was never written'
}

# A block of 2 MiB with a single page far away holds 2 MiB of the memory node: a program that touches
# little of much may hold more there than --memory, as long as there is room.
test_sparse_program_fits_a_foreign_server() {
    start_memserver --capacity 2G
    far --memory 128M --local 8M --transport ofi --memserver "$MEMSERVER_ADDR" --stats stats -- \
        "$GUESTS/sparse" 1024 512 >out 2>err || fail "$(cat err)"
    [ "$(stat_of stats memory_node slabs_peak)" -gt 300 ] || fail 'it was not sparse'
}

# Where there is no such room, --memory is enough to be let in.
test_small_server_is_asked_for_less() {
    start_memserver --capacity 128M
    far --memory 128M --local 8M --transport ofi --memserver "$MEMSERVER_ADDR" -- \
        "$GUESTS/sparse" 64 64 >out 2>err || fail "$(cat err)"
    far --memory 128M --local 8M --transport ofi --memserver "$MEMSERVER_ADDR" -- \
        "$GUESTS/sparse" 1024 512 >out 2>err
    [ $? = 125 ] || fail "more slabs than there are: $(cat out err)"
    grep -q 'used up' err || fail "message: $(cat err)"
}

# What the program gives up is given up on the memory server too.
test_discards_reach_the_server() {
    start_memserver --capacity 1G
    far --memory 256M --local 16M --transport ofi --memserver "$MEMSERVER_ADDR" --stats stats -- \
        "$GUESTS/madvise" 64 >out 2>err || fail "$(cat err)"
    [ "$(stat_of stats memory_node slabs_held)" -le 8 ] ||
        fail "$(stat_of stats memory_node slabs_held) slabs still held after everything was discarded"
}

system_main "$@"
