#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# First process of an emulated machine: loads the modules, mounts the host's root file system
# read-only below a RAM disk (so that what was built on the host just runs), makes a soft-RoCE device
# if there is a network, and runs the role's script: tests/lab/ROLE.sh, less a number that tells
# machines of one role apart. What the machine says goes to /lab (a folder of the host), its exit
# status to /lab/ROLE.status; then the machine ends. Runs in busybox.
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev

argument() { sed -n "s/.*\blab\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
say() { echo "init: $*"; }
die() {
    say "$*"
    sync
    reboot -f
}

while read -r module; do
    insmod "/modules/$module" || say "module $module failed"
done </modules/order

root=/newroot
share="trans=virtio,version=9p2000.L,msize=512000,access=any"
mkdir -p /host /tools /ram
mount -t tmpfs none /ram
mkdir -p /ram/upper /ram/work
mount -t 9p -o "ro,$share,cache=loose" root /host || die 'no root file system'
mount -t 9p -o "ro,$share,cache=loose" tools /tools || die 'no tools'
mount -t overlay -o lowerdir=/tools:/host,upperdir=/ram/upper,workdir=/ram/work overlay $root ||
    die 'no overlay'
for directory in proc sys dev; do
    mount --bind /$directory $root/$directory
done
mkdir -p /dev/shm /dev/pts
ln -s /proc/self/fd /dev/fd
mount -t tmpfs none $root/dev/shm
mount -t devpts none $root/dev/pts
mount -t tmpfs none $root/tmp
mount -t tmpfs none $root/run
mkdir -p $root/lab "$root$(argument repo)"
# After /tmp: the sources may lie there. What is written among them stays in this machine.
mkdir -p /sources /ram/sources /ram/sources-work
mount -t 9p -o "ro,$share,cache=loose" repo /sources || die 'no sources'
mount -t overlay -o lowerdir=/sources,upperdir=/ram/sources,workdir=/ram/sources-work overlay \
    "$root$(argument repo)" || die 'no overlay over the sources'
# Both machines and the host talk through this one: nothing may be cached.
mount -t 9p -o "rw,$share,cache=none" lab $root/lab || die 'no work folder'

role=$(argument role)
hostname "$role"
ip link set lo up
if [ -d /sys/class/net/eth0 ]; then
    ip addr add "$(argument address)/24" dev eth0
    # One page and its headers in a frame, as on a network built for this.
    ip link set eth0 mtu 4200
    ip link set eth0 up
    chroot $root /usr/bin/rdma link add rxe0 type rxe netdev eth0 || die 'no rxe device'
fi
# shellcheck disable=SC3045 # busybox has it
ulimit -l unlimited
# shellcheck disable=SC3045
ulimit -n 65536
read -r up _ </proc/uptime
say "$role is up after $up s"
LAB_PEER=$(argument peer)
LAB_ADDRESS=$(argument address)
export HOME=/root TERM=dumb LAB_PEER LAB_ADDRESS
# shellcheck disable=SC2046 # words they are
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot $root /bin/bash "$(argument repo)/tests/lab/${role%%[0-9]*}.sh" $(argument options | sed 's/,/ /g') \
    >$root/lab/"$role".log 2>&1 </dev/null
echo $? >$root/lab/"$role".status
read -r up _ </proc/uptime
say "$role ended after $up s"
sync
reboot -f
