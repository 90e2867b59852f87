#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Replays the corpus of every fuzz target: one line a target, ends with "N passed, N failed".
# Usage: tests/fuzz/run.sh [TARGET...]     Environment: BUILD (default build).
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build}
passed=0 failed=0
if [ $# -gt 0 ]; then
    targets=("$@")
else
    targets=()
    for source in tests/fuzz/fuzz_*.c; do
        [ -e "$source" ] || continue
        target=${source##*/fuzz_}
        targets+=("${target%.c}")
    done
fi
for target in "${targets[@]}"; do
    if output=$(timeout 120 "$build/tests/fuzz/replay_$target" "tests/fuzz/corpus/$target" 2>&1); then
        passed=$((passed + 1))
        echo "ok    fuzz $target (${output##*$'\n'})"
    else
        failed=$((failed + 1))
        echo "FAIL  fuzz $target - $(printf '%s\n' "$output" | tail -n 5)"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
