#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# In the machine that counted.sh booted: the benchmark suite. What it runs lies in memory, or waits for
# this machine's disk, which are real waits, would be counted.
set -u
cd "$(dirname "$0")/../.." || exit 1
mount -t cgroup2 none /sys/fs/cgroup || exit 1
# shellcheck source=/dev/null # BUILD and the arguments
. /lab/environment

mkdir /tmp/build /tmp/build/tests
cp -r "$BUILD"/{farvisor,memserver,*.elf,*.so*,guides} /tmp/build/
cp -r "$BUILD"/tests/{bench,guests,guides} /tmp/build/tests/
BUILD=/tmp/build exec tests/bench/bench.py --counted --output /lab/report "$@"
