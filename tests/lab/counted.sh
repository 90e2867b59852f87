#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures farvisor by instructions: the benchmark suite in an emulated machine whose clocks all count
# instructions, one nanosecond each, the host kernel's and KVM's as well as farvisor's and the
# program's. It takes the same however busy this host is, and no /dev/kvm; it knows nothing of caches,
# of memory latency, of what an exit costs a real processor, and has one processor. So it compares
# work, not time. docs/benchmarks/README.md says how to read it.
#
#   tests/lab/counted.sh OUTPUT [OPTION of tests/bench/bench.py...]
#
# LAB_NICE: niceness of the machine.
set -uo pipefail
[ $# -ge 1 ] || {
    echo "usage: $0 OUTPUT [OPTION...]" >&2
    exit 2
}
output=$(realpath -m "$1")
shift
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$(dirname "$0")/machine.sh"
memory_mib=6144

# What there is comes home however this ends.
save() {
    mkdir -p "$output"
    cp -r "$work/report/." "$output/"
    finish
}
trap save EXIT
mkdir "$work/report"
[ ! -d "$output" ] || cp -r "$output/." "$work/report/"
{
    printf 'export BUILD=%q\n' "$build"
    printf 'set --'
    printf ' %q' "$@"
    echo
} >"$work/environment"

: >"$work/counting.log"
echo "== counting instructions in an emulated machine (Linux $(cat "$cache/release"))" >&2
boot counting "$memory_mib" '' -icount shift=0
tail -n +1 -f --pid="${machines[0]}" "$work/counting.log" >&2 &
machines+=($!)
wait "${machines[0]}"
status=$(cat "$work/counting.status" 2>/dev/null) || {
    echo "counted: the machine ended before the bench: $build/lab/counting.console" >&2
    status=1
}
sleep 1 # tail's last lines
exit "$status"
