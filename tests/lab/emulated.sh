#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The tests that need KVM, on a host that has none: machines in software emulation, one a processor,
# each with KVM on AMD's nested paging, take case after case until none is left. Slower than KVM on
# hardware by a factor of ten or so; what is tested is the same. Ends with "N passed, N failed,
# N skipped".
#
#   tests/lab/emulated.sh [--full] [unit[/FILE]|bench[/TEST]|system[/FILE[:CASE]]|demo|redis[/CASE] ...]
# By default unit, bench and system.
#
# LAB_TIMEOUT: seconds until the whole is given up. LAB_SUITE: the Debian suite whose kernel boots
# (setup.sh). LAB_NICE: niceness of the machines. LAB_MACHINES: how many. Logs go to $BUILD/lab.
set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$(dirname "$0")/machine.sh"
# shellcheck source-path=SCRIPTDIR source=../kvm.sh
. "$here/../kvm.sh"
limit=${LAB_TIMEOUT:-4200}
memory_mib=6144 # of each machine
fitting=$(awk -v mib=$memory_mib '$1 == "MemAvailable:" { print int($2 / 1024 / mib) }' /proc/meminfo)
count=${LAB_MACHINES:-$(nproc)}
[ "$count" -le "$fitting" ] || count=$((fitting > 0 ? fitting : 1))

# A job is "unit PROGRAM", "bench TEST", "system FILE CASE", "demo" or "redis CASE": what tester.sh
# runs in one go.
unit_jobs() {
    local source
    (cd "$repo" && grep -lE "$NEEDS_KVM" tests/unit/*/check_*.c) |
        while read -r source; do echo "unit ${source%.c}"; done
}

# system_jobs FILE [CASE]
system_jobs() {
    local name
    if [ "${2:-}" ]; then
        echo "system $1 $2"
        return
    fi
    for name in $(bash "$repo/tests/system/$1" --list); do echo "system $1 $name"; done
}

# The longest first, so that the machines end together.
all_system_jobs() {
    local file
    for file in programs storm guides bounds failures; do system_jobs $file.sh; done
    for file in "$repo"/tests/system/*.sh; do
        case ${file##*/} in
        programs.sh | storm.sh | guides.sh | bounds.sh | failures.sh | lib.sh | run.sh) ;;
        *) system_jobs "${file##*/}" ;;
        esac
    done
}

options='' wanted=()
for argument in "$@"; do
    case $argument in
    --full) options=--full ;;
    *) wanted+=("$argument") ;;
    esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=(unit bench system)
jobs_of() {
    local what=$1
    case $what in
    unit) unit_jobs ;;
    unit/*) unit_jobs | grep -x "unit tests/$what" ;;
    bench) bash "$repo/tests/bench/run.sh" $options --list-kvm | sed 's/^/bench /' ;;
    redis) bash "$repo/tests/redis/suite.sh" --list | sed 's/^/redis /' ;;
    redis/*) echo "redis ${what#redis/}" ;;
    bench/*) echo "bench ${what#bench/}" ;;
    system) all_system_jobs ;;
    demo) echo demo ;;
    system/*:*)
        what=${what#system/}
        system_jobs "$(basename "${what%%:*}" .sh).sh" "${what#*:}"
        ;;
    system/*) system_jobs "$(basename "$what" .sh).sh" ;;
    esac
}
for what in "${wanted[@]}"; do
    jobs_of "$what" >"$work/some"
    if [ ! -s "$work/some" ]; then
        echo "emulated: no tests: $what" >&2
        exit 1
    fi
    cat "$work/some"
done >"$work/jobs"
total=$(wc -l <"$work/jobs")
# What tester.sh has to know of this call.
printf 'export BUILD=%q SANITIZE=%q SERVERS=%q\n' "$build" "${SANITIZE:-}" "${SERVERS:-}" >"$work/environment"
mkdir "$work/taken" "$work/results"
[ "$count" -le "$total" ] || count=$total

echo "== no KVM here: $total jobs in $count emulated machines (Linux $(cat "$cache/release"))"
started=$SECONDS
for ((number = 1; number <= count; number++)); do
    : >"$work/tester$number.log"
    boot "tester$number" "$memory_mib" "lab.options=$options"
done

# Lines come out as the machines write them.
shown=()
show() {
    local number lines
    for ((number = 1; number <= count; number++)); do
        lines=$(wc -l <"$work/tester$number.log")
        sed -n "$((${shown[number]:-0} + 1)),${lines}p" "$work/tester$number.log"
        shown[number]=$lines
    done
}
any_left() {
    local machine
    for machine in "${machines[@]}"; do
        ! kill -0 "$machine" 2>/dev/null || return 0
    done
    return 1
}
late=''
while any_left; do
    show
    if [ $((SECONDS - started)) -gt "$limit" ]; then
        late=1
        break
    fi
    sleep 1
done
show

passed=0 failed=0 skipped=0 number=0
while read -r job; do
    number=$((number + 1))
    if read -r p f s <"$work/results/$number" 2>/dev/null; then
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        continue
    fi
    failed=$((failed + 1))
    if [ "$late" ]; then
        echo "FAIL  $job - not done within $limit s"
    else
        echo "FAIL  $job - its machine ended before it; see $build/lab"
    fi
done <"$work/jobs"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
