#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy with the checks of .clang-tidy. Left out: the programs of tests/guests, which do on
# purpose what an analyser must object to (null pointers, overflowing stacks, wild jumps).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tidy() {
    local output
    # "N warnings generated" counts what was filtered out; findings are what is left.
    if ! output=$(clang-tidy --quiet "$@" 2>&1); then
        grep -vE '^[0-9]+ warnings? (generated|treated as errors)' <<<"$output"
        return 1
    fi
}
export -f tidy

status=0
# shellcheck disable=SC2016  # expanded by the inner shells
files '*.c' ':!tests/guests' ':!guest-os' ':!tests/unit/guest-os' ':!tests/fuzz' |
    xargs -P"$JOBS" -n5 bash -c 'tidy "$@" -- '"${HOST_FLAGS[*]}" _ || status=1
# shellcheck disable=SC2016
files 'guest-os/*.c' |
    xargs -r -P"$JOBS" -n5 bash -c 'tidy "$@" -- '"${KERNEL_FLAGS[*]}" _ || status=1
exit $status
