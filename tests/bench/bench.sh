#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures what docs/performance.md claims, on this host, and prints Markdown. Systems alternate run
# by run, figures are medians with the range, and every table names its transport.
# Usage: tests/bench/bench.sh [--quick]     Environment: BUILD, FARVISOR, MEMSERVER.
set -uo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../system/lib.sh
. "$here/../system/lib.sh"
TOUCH=$BUILD/tests/bench/touch
RUNS=7 TOUCHES=60000 QUICK=
if [ "${1:-}" = --quick ]; then
    RUNS=5 TOUCHES=15000 QUICK=1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/farvisor-bench.XXXXXX")
at_exit "rm -rf '$work'"
cd "$work" || exit 1

# median FILE: "median (lowest-highest)" of one number a line.
median() {
    sort -n "$1" | awk '{v[NR] = $1} END {printf "%s (%s-%s)", v[int((NR + 1) / 2)], v[1], v[NR]}'
}

middle() {
    sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'
}

# wall_ms FILE COMMAND...: appends how long it took.
wall_ms() {
    local file=$1 start end
    shift
    start=$(date +%s%N)
    "$@" >/dev/null 2>bench.err </dev/null || { echo "bench: $*: $(head -c 300 bench.err)" >&2; exit 1; }
    end=$(date +%s%N)
    echo $(((end - start) / 100000)) | sed 's/\(.\)$/.\1/; s/^[.]/0./' >>"$file"
}

heading() {
    printf '\n### %s\n\n' "$1"
}

about() {
    echo "Host: $(nproc) CPUs, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r), $(date -u +%F)."
    echo "farvisor $("$FARVISOR" --version | tail -n 1). Medians (lowest-highest); memory server on the same host."
}

start_up() {
    heading "Start to exit of an empty program, ms"
    for _ in $(seq 1 $((RUNS * 2 + 1))); do
        wall_ms native.true /bin/true
        wall_ms far.true "$FARVISOR" run /bin/true
        wall_ms far.paged "$FARVISOR" run --memory 256M --local 64M /bin/true
    done
    echo '| native | farvisor run true | with an embedded memory server |'
    echo '|---|---|---|'
    echo "| $(median native.true) | $(median far.true) | $(median far.paged) |"
}

calls() {
    heading "Cheap calls, ns each"
    local name cost
    for _ in $(seq 1 $RUNS); do
        "$GUESTS/clocks" --costs | while read -r name cost; do echo "$cost" >>"native.$name"; done
        "$FARVISOR" run "${SEE_GUESTS[@]}" -- "$GUESTS/clocks" --costs | while read -r name cost; do echo "$cost" >>"far.$name"; done
    done
    echo '| call | native | in a guest |'
    echo '|---|---|---|'
    for name in clock_gettime_ns getpid_ns mutex_ns futex_wake_nobody_ns; do
        echo "| ${name%_ns} | $(median native.$name) | $(median far.$name) |"
    done
}

# versus NAME COMMAND...: natively and in a guest with all memory local, alternating.
versus() {
    local name=$1
    shift
    for _ in $(seq 1 $RUNS); do
        wall_ms "native.$name" "$@"
        wall_ms "far.$name" "$FARVISOR" run --memory 1G -- "$@"
    done
    echo "| $name | $(median "native.$name") | $(median "far.$name") | $(awk -v n="$(middle "native.$name")" \
        -v f="$(middle "far.$name")" 'BEGIN {printf "%.3f", f / n}') |"
}

cpu_bound() {
    heading "CPU-bound programs, all memory local, wall ms with start-up"
    /usr/bin/python3 "$here/../system/data/make_text.py" 12 >text
    echo 'scale=2600; 4*a(1)' >pi
    echo '| program | native | in a guest | ratio |'
    echo '|---|---|---|---|'
    versus bc bc -lq pi
    versus xz xz -1 -T1 -c text
    versus gzip gzip -9 -c text text text text
    # shellcheck disable=SC2016 # awk's own variables
    versus awk mawk '{ for (i = 1; i <= NF; i++) n[$i NR % 9]++ } END { print length(n) }' text text
    [ "$QUICK" ] || versus sha256 openssl speed -seconds 1 -bytes 16384 -evp sha256
}

# touch_run FRACTION_MIB TRANSPORT MODE ARGUMENT...: fills `touched` and `stats`.
touch_run() {
    local local_mib=$1 transport=$2 mode=$3
    shift 3
    local options=(--dir "${TOUCH%/*}:ro" --memory 320M --local "${local_mib}M" --fault-mode "$mode" --stats stats)
    case $transport in
    ofi) options+=(--transport ofi --memserver "$MEMSERVER_ADDR") ;;
    *) options+=(--transport "$transport") ;;
    esac
    timeout 120 "$FARVISOR" run "${options[@]}" -- "$TOUCH" "$@" >touched 2>bench.err ||
        { echo "bench: touch $*: $(head -c 300 bench.err)" >&2; exit 1; }
}

touched() {
    awk -v key="$1" '$1 == key {print $2}' touched
}

us_of() {
    awk -v ns="$(stat_of stats paging "$1" "$2")" 'BEGIN {printf "%.1f", ns / 1000}'
}

fault_cost() {
    heading "One demand miss: random reads of single pages, 256 MiB at 1/8 local, us"
    echo 'Seen by the program, and the parts of it inside the engine; the rest is leaving and entering the guest.'
    echo
    echo '| fault mode | transport | program p50 | program p99 | engine p50 | engine p99 | of it transfer p50 | of it install p50 |'
    echo '|---|---|---|---|---|---|---|---|'
    local mode transport
    for transport in loopback loopback,delay=5us ofi; do
        for mode in exit uffd; do
            touch_run 32 $transport $mode 256 random read "$TOUCHES"
            echo "| $mode | $transport | $(touched miss_p50_us) | $(touched miss_p99_us) | $(us_of fault p50_ns) |" \
                "$(us_of fault p99_ns) | $(us_of fetch p50_ns) | $(us_of install p50_ns) |"
        done
    done
}

throughput() {
    heading "Throughput of page touches, 256 MiB, MB/s (us a page)"
    echo '| pattern | local | transport | exit | uffd |'
    echo '|---|---|---|---|---|'
    local pattern operation share transport mode cells count
    for pattern in seq random; do
        for operation in read write; do
            for share in 64 32; do
                for transport in loopback ofi; do
                    cells=
                    for mode in exit uffd; do
                        [ $pattern = seq ] && count=0 || count=$TOUCHES
                        touch_run $share $transport $mode 256 $pattern $operation $count
                        cells+=" $(touched mb_per_s) ($(awk -v ns="$(touched ns_per_page)" 'BEGIN {printf "%.1f", ns / 1000}')) |"
                    done
                    echo "| $pattern $operation | $((share * 100 / 256)) % | $transport |$cells"
                done
            done
        done
    done
}

start_memserver --capacity 2G
about
start_up
calls
cpu_bound
fault_cost
throughput
