#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What a guide that loops, crashes or posts garbage costs the program it is loaded beside: the
# tutorial's program without a guide and with each of tests/guides, in turn. Prints the median wall
# time of each and its ratio to none, in Markdown.
# Usage: tests/bench/bad_guides.sh [RUNS [MIB REQUESTS]]      Environment: BUILD, FARVISOR.
set -uo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../system/lib.sh
. "$here/../system/lib.sh"
RUNS=${1:-5} MIB=${2:-96} REQUESTS=${3:-500}
GUIDES=$BUILD/tests/guides
KINDS=(none loop crash garbage)

work=$(mktemp -d "${TMPDIR:-/tmp}/farvisor-guides.XXXXXX")
at_exit "rm -rf '$work'"
cd "$work" || exit 1

# run KIND: its wall time in ms is added to the file KIND; what it prints must be right.
run() {
    local guide=() start
    [ "$1" = none ] || guide=(--guide "$GUIDES/$1.so")
    start=$(date +%s%N)
    timeout 120 "$FARVISOR" run --dir "$BUILD:ro" --memory 256M --local 24M "${guide[@]}" -- \
        "$GUIDES/orders" "$MIB" "$REQUESTS" >out 2>err || fail "$1: status $?: $(head -c 300 err)"
    echo $((($(date +%s%N) - start) / 1000000)) >>"$1"
    cmp -s out total || fail "$1: printed '$(cat out)', not '$(cat total)'"
}

# of KIND RANK: the value of this rank, 0 the least.
of() {
    sort -n "$1" | sed -n "$(($2 + 1))p"
}

"$GUIDES/orders" "$MIB" "$REQUESTS" >total 2>err || fail "$(cat err)"
for ((i = 0; i < RUNS; i++)); do
    for kind in "${KINDS[@]}"; do
        run "$kind"
    done
done
echo "orders $MIB $REQUESTS, 24 MiB local, loopback; $RUNS runs in turn; load $(cut -d' ' -f1 /proc/loadavg)"
echo
echo '| guide | median, ms | least .. most | to none |'
echo '|---|---|---|---|'
for kind in "${KINDS[@]}"; do
    awk -v kind="$kind" -v ms="$(of "$kind" $((RUNS / 2)))" -v least="$(of "$kind" 0)" \
        -v most="$(of "$kind" $((RUNS - 1)))" -v none="$(of none $((RUNS / 2)))" \
        'BEGIN { printf "| %s | %d | %d .. %d | %.2f |\n", kind, ms, least, most, ms / none }'
done
