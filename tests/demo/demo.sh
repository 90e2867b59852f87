#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The demonstration: sqlite3 builds, joins, updates and checks an in-memory database four times the
# size of the memory this host lends it; the rest lives in a memory server, another process reached
# over TCP. The answers equal the native run's. On a host without KVM all of it runs in an emulated
# machine, at less than half the size, in some four minutes; its times tell nothing.
# Run by `make demo`. Usage: demo.sh [--emulated]. Environment: BUILD, FARVISOR, MEMSERVER.
set -uo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../system/lib.sh
. "$here/../system/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../kvm.sh
. "$here/../kvm.sh"
if ! kvm_here; then
    echo 'demo: no usable /dev/kvm here: an emulated machine takes its place; its times tell nothing'
    exec "$here/../lab/emulated.sh" demo
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/farvisor-demo.XXXXXX")
at_exit "rm -rf '$work'"
cd "$work" || exit 1

ROWS=130000 MEMORY=112M LOCAL=19M
[ "${1:-}" != --emulated ] || ROWS=52000 MEMORY=50M LOCAL=8M
PROGRAM=(sqlite3 :memory: '.read work.sql')

die() {
    echo "demo: $*" >&2
    exit 1
}

# timed NAME COMMAND...: output to NAME.out, seconds to NAME.s.
timed() {
    local name=$1 start
    shift
    start=$(date +%s%N)
    "$@" >"$name.out" 2>"$name.err" || die "$name run: status $?: $(head -n 3 "$name.err")"
    awk -v ns=$(($(date +%s%N) - start)) 'BEGIN {printf "%.2f", ns / 1e9}' >"$name.s"
}

figure() {
    stat_of "$1.stats" "${@:2}"
}

mib() {
    awk -v bytes="$1" 'BEGIN {printf "%.0f MiB", bytes / 1048576}'
}

# row NAME TITLE: one line of the table.
row() {
    local name=$1 touched=- faults=- fetched=- written=- hits=-
    if [ -s "$name.stats" ]; then
        touched=$(mib $(($(figure "$name" paging resident_peak_pages) * 4096)))
        faults=$(figure "$name" paging faults)
        fetched=$(mib "$(figure "$name" memory_node read_bytes)")
        written=$(mib "$(figure "$name" memory_node write_bytes)")
        # Hit ratio: of the far pages that came back, those that were here before the program asked.
        hits=$(awk -v share="$(figure "$name" prefetch coverage)" 'BEGIN {printf "%.1f %%", share * 100}')
    fi
    printf '%-34s %8s s %10s %9s %10s %10s %9s\n' "$2" "$(cat "$name.s")" "$touched" "$faults" \
        "$fetched" "$written" "$hits"
}

sed "s/ROWS/$ROWS/" "$here/../system/data/work.sql" >work.sql || die 'cannot make the input'
start_memserver --capacity 1G
echo "memserver: process $MEMSERVER_PID, listening on $MEMSERVER_ADDR (TCP)"
echo "program:   ${PROGRAM[*]}"
echo

timed native "${PROGRAM[@]}"
timed here "$FARVISOR" run --memory $MEMORY -- "${PROGRAM[@]}"
timed far "$FARVISOR" run --memory $MEMORY --local $LOCAL --transport ofi --memserver "$MEMSERVER_ADDR" \
    --stats far.stats -- "${PROGRAM[@]}"
cmp -s native.out here.out || die 'the output of the guest with all memory here differs'
cmp -s native.out far.out || die 'the output of the guest with far memory differs'

working_set=$(($(figure far paging existing_peak_pages) * 4096))
printf '%-34s %10s %10s %9s %10s %10s %9s\n' '' time resident faults fetched 'written' 'hit ratio'
row native 'native process'
row here 'guest, all memory on this host'
row far "guest, $LOCAL here, rest over TCP"
echo
echo "working set $(mib $working_set), $(awk -v w=$working_set -v l=$((${LOCAL%M} * 1048576)) \
    'BEGIN {printf "%.1f", w / l}') times the $LOCAL it may keep here"
echo
sed 's/^/  /' far.out | tail -n 6
echo "output: $(sha256sum <native.out | cut -c 1-16)... natively and in both guests: identical"
