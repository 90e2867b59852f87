#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What travels when 70 % of the objects of a store are freed at random: bytes read from and written to the
# memory node in each phase, with the far allocator, with the same one transferring whole pages, and
# with the program's own. A phase is the difference of a run that stops after it and one that stops before.
#
# usage: tests/bench/live.sh [MIB [LOCAL_MIB [OBJECT_BYTES]]]      default: 48 16 128
set -euo pipefail

BUILD=${BUILD:-build}
FARVISOR=${FARVISOR:-$BUILD/farvisor}
mib=${1:-48} local_mib=${2:-16} bytes=${3:-128}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# measure ALLOCATOR PHASE: fetched and written bytes and the checksum up to the end of the phase.
measure() {
    "$FARVISOR" run --memory $((mib * 4))M --local "$local_mib"M --allocator "$1" --env BENCH_STOP="$2" \
        --stats "$work/stats" -- "$BUILD/tests/bench/objects" "$mib" "$bytes" >"$work/out"
    jq -r '.paging | [.fetched_bytes, .written_bytes] | @tsv' "$work/stats"
}

printf '%-16s %-6s %12s %12s %12s\n' allocator phase 'read MiB' 'written MiB' 'both MiB'
for allocator in own far,whole-pages far; do
    read_before=0 written_before=0
    for phase in fill del get; do
        read -r read_now written_now < <(measure "$allocator" "$phase")
        awk -v a="$allocator" -v p="$phase" -v r=$((read_now - read_before)) \
            -v w=$((written_now - written_before)) 'BEGIN { m = 1048576
            printf "%-16s %-6s %12.1f %12.1f %12.1f\n", a, p, r / m, w / m, (r + w) / m }'
        read_before=$read_now written_before=$written_now
    done
done
