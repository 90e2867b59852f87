#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Small pieces: no function over 80 lines, no source file over 700 (aim: 40 and 400).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
status=0
while read -r file; do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 700 ]; then
        echo "$file: $lines lines (at most 700)"
        status=1
    fi
    # Our brace style opens and closes functions in the first column, and nothing else does so
    # with a line that is just a brace.
    awk -v file="$file" '
        /^{$/ { start = NR }
        /^}$/ && start {
            if (NR - start > 80) {
                printf "%s:%d: function of %d lines (at most 80)\n", file, start, NR - start
                bad = 1
            }
            start = 0
        }
        END { exit bad }' "$file" || status=1
done < <(files '*.c' '*.h' '*.cc' '*.S')
exit $status
