# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Machines in QEMU's software emulation, with KVM on AMD's nested paging inside: what run.sh and
# emulated.sh have in common. Sourced by them; init.sh is what runs first in each machine. Leaves
# behind the logs in $BUILD/lab, whatever way the script ends.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$repo/$build ;; esac

command -v qemu-system-x86_64 >/dev/null || {
    echo 'lab: qemu-system-x86_64 is missing (tools/deps.sh --lab)' >&2
    exit 1
}
cache=$("$here/setup.sh") || exit 1

work=$(mktemp -d "${TMPDIR:-/tmp}/farvisor-lab.XXXXXX") || exit 1
machines=()
finish() {
    [ ${#machines[@]} = 0 ] || kill "${machines[@]}" 2>/dev/null
    wait
    mkdir -p "$build/lab"
    cp "$work"/*.log "$work"/*.console "$build/lab/" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' TERM INT HUP

# share NAME FOLDER OPTIONS: a folder of this host, for the machine to mount.
share() {
    printf '%s\n' -fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap$3" \
        -device "virtio-9p-pci,fsdev=$1,mount_tag=$1"
}

# boot ROLE MEMORY ARGUMENTS [QEMU_OPTION...]: one machine in the background. ARGUMENTS are more
# words of the kernel's command line, for init.sh.
boot() {
    local role=$1 memory=$2 shares append
    # no_timer_check: on a busy host the emulated timer looks broken to the kernel, which panics.
    append="console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check"
    append+=" lab.role=$role lab.repo=$repo $3"
    shift 3
    mapfile -t shares < <(share root / ,readonly=on && share tools "$cache/tools" ,readonly=on &&
        share repo "$repo" ,readonly=on && share lab "$work" '')
    # One emulating thread each: two virtual processors on one real one make waits last milliseconds.
    # The machine ends with this script, even if that is killed.
    setpriv --pdeathsig KILL -- nice -n "${LAB_NICE:-10}" qemu-system-x86_64 -M q35 \
        -accel tcg,thread=single,tb-size=256 -cpu EPYC,+svm -smp 1 -m "$memory" -nodefaults \
        -display none -no-reboot -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
        -append "$append" -serial "file:$work/$role.console" -device virtio-rng-pci \
        "$@" "${shares[@]}" </dev/null >"$work/$role.qemu.log" 2>&1 &
    machines+=($!)
}
