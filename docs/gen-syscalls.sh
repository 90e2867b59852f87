#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes docs/syscalls.md from the two tables that also drive the code: guest-os/syscalls.def (what
# the unikernel answers, forwards or refuses) and vmm/io_table.def (what the VMM answers).
# Usage: docs/gen-syscalls.sh > docs/syscalls.md
set -eu
cd "$(dirname "$0")/.."

awk '
function field(text, n,    parts) { split(text, parts, /, */); return parts[n] }
function note_of(text) { return match(text, /"[^"]*"/) ? substr(text, RSTART + 1, RLENGTH - 2) : "" }
function inside(line) { sub(/^[A-Z_]*\(/, "", line); sub(/\)[ \t]*$/, "", line); return line }
# A call may span lines: join until the parenthesis closes.
/^(GUEST|VMM|REFUSED|IO_CALL)\(/ { line = $0; while (line !~ /\)[ \t]*$/ && (getline more) > 0) { sub(/^[ \t]+/, "", more); line = line " " more }
    kind = line; sub(/\(.*/, "", kind); text = inside(line); number = field(text, 1) + 0
    name[number] = field(text, 2)
    if (kind == "IO_CALL") { vmm[number] = 1; vmm_note[number] = note_of(text); next }
    where[number] = kind; note[number] = note_of(text)
    if (number > last) last = number
}
END {
    print "# System calls"
    print ""
    print "Made by `docs/gen-syscalls.sh` from `guest-os/syscalls.def` and `vmm/io_table.def`; do not edit."
    print ""
    print "**guest**: answered by the unikernel, without leaving the guest unless the call has to wait."
    print "**VMM**: forwarded to the VMM, which answers with the host call of the same name on the host file or"
    print "thread behind the guest descriptor, path or thread id. **guest, VMM**: begun in the unikernel, which may"
    print "forward it. **refused**: ENOSYS and, once, one line of warning. **not permitted**: an error as the"
    print "note says, as for a program without privileges. A number that is not listed gets ENOSYS, as on a Linux"
    print "kernel that does not have it. No note: as Linux."
    print ""
    print "| number | name | where | note |"
    print "|---:|---|---|---|"
    for (n = 0; n <= last; n++) {
        if (!(n in where)) continue
        place = where[n] == "GUEST" ? (n in vmm ? "guest, VMM" : "guest") : where[n] == "VMM" ? "VMM" : "refused"
        text = note[n]
        if (n in vmm && vmm_note[n] != "") text = text (text == "" ? "" : "; ") vmm_note[n]
        if (place == "VMM" && text ~ /^(EPERM|ENOSYS|EINVAL)$/) place = "not permitted"
        printf "| %d | %s | %s | %s |\n", n, name[n], place, text
    }
}' guest-os/syscalls.def vmm/io_table.def
