#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make lab`: boots two machines in software emulation, a memory node and a compute node, joined by
# an emulated Ethernet with soft-RoCE devices on it, the compute node with KVM on AMD's nested paging.
# Neither hardware virtualisation nor an RDMA card is needed, nor root. compute.sh, inside, runs the
# tests; here their lines are shown as they come. Ends with "N passed, N failed, N skipped".
#
#   tests/lab/run.sh [--quick] [CASE...]      CASE: a case of compute.sh
#
# LAB_TIMEOUT: seconds until the whole is given up. LAB_NICE: niceness of the machines.
# Logs go to $BUILD/lab. Everything else is gone afterwards, whatever way this ends.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$repo/$build ;; esac
limit=${LAB_TIMEOUT:-1680}

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

# boot ROLE ADDRESS PEER NETWORK MEMORY: one machine in the background.
boot() {
    local role=$1 shares append
    # no_timer_check: on a busy host the emulated timer looks broken to the kernel, which panics.
    append="console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check"
    append+=" lab.role=$role lab.address=$2"
    append+=" lab.peer=$3 lab.repo=$repo lab.options=$options"
    mapfile -t shares < <(share root / ,readonly=on && share tools "$cache/tools" ,readonly=on &&
        share repo "$repo" ,readonly=on && share lab "$work" '')
    # One emulating thread each: two virtual processors on one real one make waits last milliseconds.
    # The machine ends with this script, even if that is killed.
    setpriv --pdeathsig KILL -- nice -n "${LAB_NICE:-10}" qemu-system-x86_64 -M q35 \
        -accel tcg,thread=single,tb-size=256 -cpu EPYC,+svm -smp 1 -m "$5" -nodefaults \
        -display none -no-reboot -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
        -append "$append" -serial "file:$work/$role.console" -device virtio-rng-pci \
        -netdev "stream,id=net,$4,addr.type=unix,addr.path=$work/link" \
        -device "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:55:00:0${2##*.}" \
        "${shares[@]}" </dev/null >"$work/$role.qemu.log" 2>&1 &
    machines+=($!)
}

options=$(IFS=, && echo "$*")
mkdir "$work/requests" "$work/answers"
# For the case that loads it anew without nested paging.
module=$(find "$cache/kernel/lib/modules" -name 'kvm-amd.ko*' | head -n 1)
case $module in
*.xz) xz -dc "$module" ;;
*) cat "$module" ;;
esac >"$work/kvm-amd.ko"
: >"$work/compute.log"
echo "== lab: booting two machines (Linux $(cat "$cache/release"), software emulation)"
started=$SECONDS
boot memory 10.55.0.1 10.55.0.2 server=on 3072
until [ -S "$work/link" ]; do
    sleep 0.1
    kill -0 "${machines[0]}" 2>/dev/null || break
done
boot compute 10.55.0.2 10.55.0.1 server=off 3072

# Lines come out as the compute node writes them; `wait` is not used, so that TERM is heard at once.
shown=0
while kill -0 "${machines[1]}" 2>/dev/null; do
    total=$(wc -l <"$work/compute.log")
    if [ "$total" -gt "$shown" ]; then
        sed -n "$((shown + 1)),${total}p" "$work/compute.log"
        shown=$total
    fi
    if ! kill -0 "${machines[0]}" 2>/dev/null && [ ! -e "$work/memory.may-end" ]; then
        echo "FAIL  lab - the memory node ended early; its console:"
        tail -n 20 "$work/memory.console" "$work/memory.qemu.log"
        echo '0 passed, 1 failed'
        exit 1
    fi
    if [ $((SECONDS - started)) -gt "$limit" ]; then
        echo "FAIL  lab - not done within $limit s"
        echo '0 passed, 1 failed'
        exit 1
    fi
    sleep 1
done
sed -n "$((shown + 1)),\$p" "$work/compute.log"
sed 's/^/      /' "$work/figures.log" "$work/endings.log" 2>/dev/null
if [ ! -s "$work/compute.status" ]; then
    echo "FAIL  lab - the compute node ended early; its console:"
    tail -n 20 "$work/compute.console" "$work/compute.qemu.log"
    echo '0 passed, 1 failed'
    exit 1
fi
exit "$(cat "$work/compute.status")"
