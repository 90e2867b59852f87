#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The other way to have more memory than there is: a memory cgroup that swaps to zram. Makes both,
# prints "group DIRECTORY", "limit FILE", "unlimited WORD" and "kind TEXT", then waits for the end of
# its standard input and takes everything away again. The harness holds the other end of that pipe:
# however it ends, by a signal or a crash, the machine is as before.
#
# Usage: swap.sh MIB      (size of the zram device; needs root, cgroup v1 or v2, and zram)
set -euo pipefail
export LC_ALL=C
trap '' INT TERM HUP

group='' device='' swapping=''

give_up() {
    echo "swap: $*" >&2
    exit 1
}

# Processes that are left hold both the group and the swap; they are the harness's own.
empty_group() {
    for _ in $(seq 50); do
        [ -s "$group/cgroup.procs" ] || return 0
        while read -r pid; do
            kill -KILL "$pid" 2>/dev/null || true
        done <"$group/cgroup.procs"
        sleep 0.1
    done
}

restore() {
    set +e
    [ -z "$group" ] || empty_group
    [ -z "$swapping" ] || swapoff "/dev/$device"
    if [ -n "$device" ]; then
        echo 1 >"/sys/block/$device/reset"
        echo "${device#zram}" >/sys/class/zram-control/hot_remove
    fi
    [ -z "$group" ] || rmdir "$group"
}

make_group() {
    local v1 v2
    v1=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ {print $2; exit}' /proc/mounts)
    v2=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
    if [ -n "$v1" ]; then
        group=$v1/farvisor-bench.$$
        mkdir "$group" || { group='' && give_up "cannot make a memory cgroup below $v1"; }
        limit=$group/memory.limit_in_bytes unlimited=-1 version=v1
    elif [ -n "$v2" ] && grep -qw memory "$v2/cgroup.controllers"; then
        echo +memory >"$v2/cgroup.subtree_control" || give_up "cannot enable the memory controller"
        group=$v2/farvisor-bench.$$
        mkdir "$group" || { group='' && give_up "cannot make a memory cgroup below $v2"; }
        limit=$group/memory.max unlimited=max version=v2
    else
        give_up "this kernel has no memory cgroups"
    fi
}

make_swap() {
    [ -e /sys/class/zram-control ] || modprobe zram 2>/dev/null ||
        give_up "this kernel has no zram"
    device=zram$(cat /sys/class/zram-control/hot_add)
    echo "${1}M" >"/sys/block/$device/disksize"
    [ -b "/dev/$device" ] || give_up "/dev/$device is missing"
    mkswap "/dev/$device" >/dev/null
    swapon -p 32000 "/dev/$device"
    swapping=1
}

[ "$(id -u)" = 0 ] || give_up "needs root"
trap restore EXIT
make_group
make_swap "$1"
echo "group $group"
echo "limit $limit"
echo "unlimited $unlimited"
echo "kind cgroup $version, zram ($(sed 's/.*\[\(.*\)\].*/\1/' "/sys/block/$device/comp_algorithm")," \
    "vm.page-cluster $(cat /proc/sys/vm/page-cluster), vm.swappiness $(cat /proc/sys/vm/swappiness))"
echo ready
while read -r _; do :; done
