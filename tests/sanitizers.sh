# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# How sanitizers behave in tests; sourced by the runners. Options given from outside come last and
# so win.

# By default ThreadSanitizer lets a program sleep a second before it ends: failures that must be
# noticed within a time would not be.
export TSAN_OPTIONS="atexit_sleep_ms=50 ${TSAN_OPTIONS:-}"

# Check gives a test four seconds: not enough for a slow build on a busy machine.
[ ! "${SANITIZE:-}" ] || export CK_TIMEOUT_MULTIPLIER="${CK_TIMEOUT_MULTIPLIER:-8}"

# Relative names of suppression files are looked up beside the program, so: absolute.
suppressions=$(realpath "$(dirname "${BASH_SOURCE[0]}")/lsan.supp")
export LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0 ${LSAN_OPTIONS:-}"
