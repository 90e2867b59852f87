#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make check` after the build: runs the suites one after another and adds up their summary lines.
# A suite is a script whose last line is "N passed, N failed[, N skipped]"; one that ends without
# it counts as one failure. The last line here has the same form and covers all of them.
# What needs KVM runs in emulated machines where the host has none (tests/lab/emulated.sh).
# Usage: tests/check.sh [unit|model|fuzz|bench|system ...]   (default: all that exist)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# shellcheck source-path=SCRIPTDIR source=kvm.sh
. tests/kvm.sh
passed=0 failed=0 skipped=0
log=$(mktemp) whole=$(mktemp)
trap 'rm -f "$log" "$whole"' EXIT

run_suite() {
    local name=$1 numbers status
    shift
    echo "== $name"
    "$@" 2>&1 </dev/null | tee -a "$whole" | tee "$log"
    status=${PIPESTATUS[0]}
    numbers=$(tail -n 1 "$log" |
        sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p')
    if [ -z "$numbers" ]; then
        echo "FAIL  $name: ended with status $status before its summary"
        failed=$((failed + 1))
        return
    fi
    read -r p f s <<<"$numbers"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        echo "FAIL  $name: all its tests passed, yet it ended with status $status"
        failed=$((failed + 1))
    fi
}

suites=("$@")
[ $# -gt 0 ] || suites=(unit model fuzz bench system)
apart=()
kvm_here || export KVM_TESTS=apart
for suite in "${suites[@]}"; do
    if [ "${KVM_TESTS:-}" ]; then
        case $suite in unit | bench | system) apart+=("$suite") ;; esac
    fi
    if [ "$suite" != system ] || [ ! "${KVM_TESTS:-}" ]; then
        run_suite "$suite" "tests/$suite/run.sh"
    fi
done
[ ${#apart[@]} = 0 ] || run_suite "${apart[*]}, with KVM" tests/lab/emulated.sh "${apart[@]}"
if [ $failed != 0 ]; then # again, for those who only see the end; with the assertions, as Check names them
    echo '== failed'
    grep -E '^FAIL |:[FE]:[^:]+:[^:]+:' "$whole"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
