#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Words and signs that must not be in the repository: notes of unfinished work, conflict marks,
# blanks at line ends, spellings that are wrong. And one that must be: the licence of each source.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
status=0

forbid() { # PATTERN REASON
    local found
    found=$(files ':!tests/lint/check_words.sh' ':!LICENSE' ':!tests/fuzz/corpus' |
        xargs grep -nIE "$1" || true)
    [ -z "$found" ] && return
    printf '%s:\n%s\n' "$2" "$found"
    status=1
}

forbid '\b(TODO|FIXME|XXX|HACK|WIP)\b' 'unfinished work'
forbid '\b[Nn]ot( yet)? implemented\b' 'unfinished work'
forbid '^(<<<<<<<|>>>>>>>|=======$)' 'conflict mark'
forbid '[[:blank:]]+$' 'blanks at the end of a line'
forbid '\b([Ss]eperat|[Oo]ccured|[Rr]ecieve|[Ww]ich\b|[Tt]hier\b|[Ee]xistance|[Aa]cknowlege|[Nn]eccess|[Pp]refered\b|[Aa]ddres\b|[Ll]enght|[Ww]ether\b)' 'spelling'

while read -r file; do
    if ! head -n 4 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
        echo "$file: no SPDX-License-Identifier in its first lines"
        status=1
    fi
done < <(files '*.c' '*.h' '*.S' '*.cc' '*.sh' '*.mk' '*.pml' '*.def' '*.py' Makefile)
exit $status
