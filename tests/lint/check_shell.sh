#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every shell script passes shellcheck. Off: SC1091 (sourced file not followed), SC2034 (variable
# only used by the file that sources or is sourced) and SC2317 (function called only through a
# variable): test cases are found by name and share a harness.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
scripts | xargs shellcheck --exclude=SC1091,SC2034,SC2317
