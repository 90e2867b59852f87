#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# C and C++ look as .clang-format says. Mend: clang-format -i FILE.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
files '*.c' '*.h' '*.cc' | xargs clang-format --dry-run -Werror
