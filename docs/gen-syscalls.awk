# SPDX-License-Identifier: Apache-2.0
#
# Makes docs/syscalls.md from the two tables that drive dispatch:
#   awk -f docs/gen-syscalls.awk vmm/io/table.def guest-os/syscalls.def > docs/syscalls.md
# Fails if the guest forwards a call for which the VMM has no answer.

function unquote(text)
{
    sub(/^ *"/, "", text)
    sub(/" *$/, "", text)
    return text
}

# "GUEST(1, write, handler, "note, with commas")" into field[1..4].
function split_row(row, fields,    body, i, at)
{
    body = row
    sub(/^[A-Z_]*\(/, "", body)
    sub(/\) *$/, "", body)
    for (i = 1; i < fields; i++) {
        at = index(body, ",")
        field[i] = substr(body, 1, at - 1)
        gsub(/ /, "", field[i])
        body = substr(body, at + 1)
    }
    field[fields] = body
}

function emit(number, name, where, note)
{
    rows[++count] = sprintf("| %d | %s | %s | %s |", number, name, where, note)
    tally[where]++
}

BEGIN {
    split("mmap mprotect munmap brk mremap msync mincore madvise mlock munlock mlockall " \
          "munlockall mlock2 shmget shmat shmdt shmctl", memory)
    for (i in memory) {
        answered[memory[i]] = 1
        if (memory[i] ~ /lock/)
            io_note[memory[i]] = "no effect: --local bounds what is here; guide_pin pins"
    }
    io_note["shmget"] = "the guest's own keys; this host's memory, at most as much as --memory"
    io_note["shmctl"] = "IPC_STAT, IPC_SET, IPC_RMID; SHM_LOCK has no effect"
}

/^IO_CALL\(/ {
    split_row($0, 4)
    answered[field[2]] = 1
    io_note[field[2]] = unquote(field[4])
}

/^GUEST\(/ {
    split_row($0, 4)
    emit(field[1], field[2], "guest kernel", unquote(field[4]))
}

/^VMM\(/ {
    split_row($0, 2)
    gsub(/ /, "", field[2])
    if (!(field[2] in answered)) {
        print "gen-syscalls: " field[2] ": forwarded, but not in vmm/io/table.def" > "/dev/stderr"
        failed = 1
    }
    emit(field[1], field[2], "VMM", io_note[field[2]])
}

/^REFUSED\(/ {
    split_row($0, 3)
    emit(field[1], field[2], "refused", unquote(field[3]))
}

END {
    if (failed)
        exit 1
    print "<!-- Made by docs/gen-syscalls.awk from guest-os/syscalls.def and vmm/io/table.def. -->"
    print "# System calls"
    print ""
    print "What a program's system calls meet: answered in the guest kernel without leaving the guest"
    print "(or at least begun there), forwarded to the VMM, or refused with ENOSYS and one line of"
    print "warning. A number that is not listed gets ENOSYS silently, as on a Linux kernel without it;"
    print "`rseq` is one. Results and errors are Linux's except as noted."
    print ""
    printf "%d in the guest kernel, %d in the VMM, %d refused.\n", tally["guest kernel"], \
        tally["VMM"], tally["refused"]
    print ""
    print "| Number | Name | Where | Notes |"
    print "|---:|---|---|---|"
    for (i = 1; i <= count; i++)
        print rows[i]
}
