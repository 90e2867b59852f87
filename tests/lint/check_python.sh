#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Python looks as black says, in 100 columns, and pyflakes finds nothing. Mend: black -l 100 FILE.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
files '*.py' | xargs black --quiet --check --line-length 100
files '*.py' | xargs pyflakes3
