#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make lint`: runs every tests/lint/check_*.sh (or those named), prints ok or FAIL with what was
# found, and ends with "N passed, N failed".
# Usage: tests/lint/run.sh [NAME...]      e.g. tests/lint/run.sh format tidy
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

passed=0 failed=0
if [ $# -gt 0 ]; then
    checks=("${@/#/tests/lint/check_}")
    checks=("${checks[@]/%/.sh}")
else
    checks=(tests/lint/check_*.sh)
fi
for check in "${checks[@]}"; do
    name=${check##*/check_}
    name=${name%.sh}
    started=$SECONDS
    if output=$("$check" 2>&1 </dev/null); then
        passed=$((passed + 1))
        echo "ok    $name ($((SECONDS - started)) s)"
    else
        failed=$((failed + 1))
        echo "FAIL  $name"
        printf '%s\n' "$output"
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
