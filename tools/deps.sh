#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that building and testing need and that are missing; does nothing,
# and asks for nothing, when all are there. The lists below are the only ones; each has its reason.
# Quiet and non-interactive: apt's own output is shown only when it fails.
# Usage: tools/deps.sh [--lab|--redis]     also what `make lab` needs (so do all tests where KVM cannot be
# used); what `make redis-suite` needs
set -euo pipefail

packages() {
    sed -e 's/ *#.*//' -e '/^$/d' <<'LIST'
gcc                 # compiler of the programs and of the guest image
libc6-dev           # C library headers; static libraries for the test programs
pkg-config          # where libraries keep their headers
libfdt-dev          # flattened device tree: how the guest is told its world
libzydis-dev        # decodes the instruction that missed, to find the address
libfabric-dev       # the "ofi" transport
libibverbs-dev      # the "verbs" transport
librdmacm-dev       # the "verbs" transport: connection set-up
libjansson-dev      # --stats as JSON
libelf-dev          # crash reports: symbols
libdw-dev           # crash reports: backtraces
libseccomp-dev      # sandbox around the monitor
systemtap-sdt-dev   # static probes
check               # unit tests
spin                # model checker: page states
clang               # fuzz targets
libclang-rt-dev     # fuzz targets: libFuzzer and its sanitizers
clang-format        # lint
clang-tidy          # lint
cppcheck            # lint
shellcheck          # lint
groff               # lint: man pages
black               # lint: Python
pyflakes3           # lint: Python
g++                 # test program: C++ exceptions and threads
libgomp1            # test program: OpenMP
python3             # tests: unmodified program
sqlite3             # tests: unmodified program
xz-utils            # tests: unmodified program
openssl             # tests: unmodified program
gawk                # tests: unmodified program
mawk                # tests: unmodified program
memtester           # tests: unmodified program
bc                  # tests: unmodified program
zstd                # tests: unmodified program
bzip2               # tests: unmodified program
lz4                 # tests: unmodified program
gzip                # tests: unmodified program
tar                 # tests: unmodified program
perl                # tests: unmodified program
curl                # tests: unmodified program on the network
redis-tools         # tests: a server (the same binary as redis-server, without its service) and clients
python3-redis       # tests: a client of redis
fio                 # tests: unmodified program with System V shared memory
jq                  # tests read --stats with it
file                # tests: unmodified program
libmimalloc-dev     # libfaralloc: what it does not serve itself
libsnappy-dev       # benchmark: snappy
libsqlite3-dev      # benchmark: analytics in SQL
gnuplot-nox         # benchmark: plots
LIST
    { [ "${1:-}" = --lab ] || [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; } && sed -e 's/ *#.*//' -e '/^$/d' <<'LIST'
qemu-system-x86     # the emulated machines
busybox-static      # their first process
cpio                # their initial RAM file system
LIST
    [ "${1:-}" = --redis ] && sed -e 's/ *#.*//' -e '/^$/d' <<'LIST'
tcl                 # Redis's own tests are written in it
dpkg-dev            # unpacks Debian's source package, where they are
LIST
    true
}

missing=()
if ! command -v dpkg-query >/dev/null; then
    echo "deps: this is not a Debian system; install what these Debian packages hold:" >&2
    packages "$@" | tr '\n' ' ' >&2
    echo >&2
    exit 0
fi
mapfile -t wanted < <(packages "$@")
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
for package in "${wanted[@]}"; do
    grep -qx "installed $package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: packages are missing and this is not root; run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
echo "  DEPS    installing ${#missing[@]} Debian packages: ${missing[*]}"
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy \
        -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1 </dev/null
}
# A stale or half-reachable package index is worth a try: the install decides.
apt update || true
if ! apt install --no-install-recommends "${missing[@]}"; then
    tail -n 40 "$log" >&2
    echo "deps: installing failed: ${missing[*]}" >&2
    exit 1
fi
