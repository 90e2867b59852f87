#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every unit test program that was built and ends with "N passed, N failed, N skipped", where
# a unit is one Check test. A program that dies without Check's summary counts as one failure.
# Usage: tests/unit/run.sh [FOLDER | FOLDER/PROGRAM ...]
# Environment: BUILD, the build folder; KVM_TESTS=apart leaves out what needs KVM (../check.sh).
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

# shellcheck source-path=SCRIPTDIR source=../sanitizers.sh
. tests/sanitizers.sh
# shellcheck source-path=SCRIPTDIR source=../kvm.sh
. tests/kvm.sh
build=$(realpath --relative-to=. "${BUILD:-build}")
export FARVISOR=${FARVISOR:-$PWD/$build/farvisor} MEMSERVER=${MEMSERVER:-$PWD/$build/memserver}
export BUILD=$build

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# verdict LINE PASSED FAILED SKIPPED [OUTPUT]: whole, though other programs end at the same time.
verdict() {
    echo "$2 $3 $4" >>"$results/counts"
    flock "$results" printf '%s\n' "$1" ${5+"$5"}
}

run_program() {
    local program=$1 name=${1#"$build"/tests/unit/} output status summary checks bad
    output=$(timeout "${UNIT_TIMEOUT:-180}" "$program" 2>&1 </dev/null)
    status=$?
    summary=$(grep -oE '^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+' <<<"$output")
    if [ $status = 77 ]; then
        verdict "skip  $name: ${output##*skip: }" 0 0 1
        return
    fi
    if [ -z "$summary" ]; then
        verdict "FAIL  $name: ended with status $status before its summary" 0 1 0 "$(tail -n 30 <<<"$output")"
        return
    fi
    read -r checks bad <<<"$(sed -E 's/.*Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2+\3/' <<<"$summary")"
    bad=$((bad))
    # A leak report comes after the summary and only shows in the exit status.
    if [ $bad = 0 ] && [ $status != 0 ]; then
        bad=1
        [ "$checks" -gt 0 ] || checks=1
    fi
    if [ $bad = 0 ]; then
        verdict "ok    $name: $checks tests" "$checks" 0 0
    else
        verdict "FAIL  $name: $bad of $checks tests" $((checks - bad)) "$bad" 0 "$(tail -n 60 <<<"$output")"
    fi
}

# Most of them wait for a peer's end most of the time: as many at once as there are processors.
running=0 started=0
for source in tests/unit/*/check_*.c; do
    program=${source#tests/unit/} program=${program%.c}
    if [ $# -gt 0 ] && [[ " $* " != *" ${program%/*} "* ]] && [[ " $* " != *" $program "* ]]; then
        continue
    fi
    if [ "${KVM_TESTS:-}" = apart ] && grep -qE "$NEEDS_KVM" "$source"; then
        continue
    fi
    [ $running -lt "$(nproc)" ] || wait -n
    running=$((running < $(nproc) ? running + 1 : running))
    started=$((started + 1))
    run_program "$build/${source%.c}" &
done
wait
touch "$results/counts"
read -r ended passed failed skipped <<<"$(awk '{p += $1; f += $2; s += $3} END {print NR, p + 0, f + 0, s + 0}' "$results/counts")"
failed=$((failed + started - ended))
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
