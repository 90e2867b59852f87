#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The manuals format without a single warning.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
status=0
while read -r page; do
    output=$(groff -ww -man -Tutf8 -z "$page" 2>&1) || status=1
    if [ -n "$output" ]; then
        echo "$output"
        status=1
    fi
done < <(files 'man/*.1' 'man/*.3')
exit $status
