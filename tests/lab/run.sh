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
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$(dirname "$0")/machine.sh"
limit=${LAB_TIMEOUT:-1680}

# node ROLE ADDRESS PEER END: a machine at one end of the network.
node() {
    boot "$1" 3072 "lab.address=$2 lab.peer=$3 lab.options=$options" \
        -netdev "stream,id=net,$4,addr.type=unix,addr.path=$work/link" \
        -device "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:55:00:0${2##*.}"
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
node memory 10.55.0.1 10.55.0.2 server=on
until [ -S "$work/link" ]; do
    sleep 0.1
    kill -0 "${machines[0]}" 2>/dev/null || break
done
node compute 10.55.0.2 10.55.0.1 server=off

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
