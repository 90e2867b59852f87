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
passed=0 failed=0 skipped=0

run_program() {
    local program=$1 output status summary checks bad
    output=$(timeout "${UNIT_TIMEOUT:-180}" "$program" 2>&1 </dev/null)
    status=$?
    summary=$(grep -oE '^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+' <<<"$output")
    if [ $status = 77 ]; then
        skipped=$((skipped + 1))
        echo "skip  ${program#"$build"/tests/unit/}: ${output##*skip: }"
        return
    fi
    if [ -z "$summary" ]; then
        failed=$((failed + 1))
        echo "FAIL  ${program#"$build"/tests/unit/}: ended with status $status before its summary"
        tail -n 30 <<<"$output"
        return
    fi
    read -r checks bad <<<"$(sed -E 's/.*Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2+\3/' <<<"$summary")"
    bad=$((bad))
    # A leak report comes after the summary and only shows in the exit status.
    if [ $bad = 0 ] && [ $status != 0 ]; then
        bad=1
        [ "$checks" -gt 0 ] || checks=1
    fi
    passed=$((passed + checks - bad)) failed=$((failed + bad))
    if [ $bad = 0 ]; then
        echo "ok    ${program#"$build"/tests/unit/}: $checks tests"
    else
        echo "FAIL  ${program#"$build"/tests/unit/}: $bad of $checks tests"
        tail -n 60 <<<"$output"
    fi
}

for source in tests/unit/*/check_*.c; do
    program=${source#tests/unit/} program=${program%.c}
    if [ $# -gt 0 ] && [[ " $* " != *" ${program%/*} "* ]] && [[ " $* " != *" $program "* ]]; then
        continue
    fi
    if [ "${KVM_TESTS:-}" = apart ] && grep -qE "$NEEDS_KVM" "$source"; then
        continue
    fi
    run_program "$build/${source%.c}"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
