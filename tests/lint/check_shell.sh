#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every shell script passes shellcheck. SC1091 (sourced file not followed) and SC2317 (function called
# only through a variable) are off: test cases are found by name and sourced through a path.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
scripts | xargs shellcheck --exclude=SC1091,SC2317
