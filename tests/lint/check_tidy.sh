#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy with the checks of .clang-tidy. Left out: the programs of tests/guests, which do on
# purpose what an analyser must object to (null pointers, overflowing stacks, wild jumps). Tests are
# spared the path analysis, which does not know that a failed ck_assert ends the test.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tidy() {
    local output
    # One line a finding; run clang-tidy on the file for the path that leads there.
    if ! output=$(clang-tidy --quiet "$@" 2>&1); then
        grep -E '(error|warning):' <<<"$output" | sed "s|^$PWD/||"
        return 1
    fi
}
export -f tidy

status=0
run() { # FLAGS, then the files on standard input
    # shellcheck disable=SC2016  # expanded by the inner shells
    xargs -r -P"$JOBS" -n5 bash -c 'tidy "${@:2}" $1' _ "$1"
}

files '*.c' ':!tests' ':!guest-os' | run "-- ${HOST_FLAGS[*]}" || status=1
files 'guest-os/*.c' | run "-- ${KERNEL_FLAGS[*]}" || status=1
files 'tests/unit/*.c' 'tests/fuzz/*.c' 'tests/bench/*.c' ':!tests/unit/guest-os' |
    run "--checks=-clang-analyzer-*,-bugprone-integer-division -- ${HOST_FLAGS[*]}" || status=1
exit $status
