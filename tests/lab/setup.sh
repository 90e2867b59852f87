#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What the lab boots, out of Debian packages that are downloaded and unpacked, never installed: a
# kernel, an initial RAM file system with the modules that the two machines need, and a tree of RDMA
# tools. Kept in ${XDG_CACHE_HOME:-~/.cache}/farvisor/lab; removing that folder starts afresh.
# Prints the folder. The kernel is the one linux-image-amd64 named when it was first fetched
# (`tests/lab/setup.sh --fresh` asks again).
#
# LAB_SUITE=bookworm-backports: that suite's kernel instead, in a folder lab-SUITE of its own. Its
# package lists are kept there too, so the host's apt neither has to know the suite nor learns of it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=${LAB_SUITE:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/farvisor/lab${suite:+-$suite}

die() {
    echo "lab: $*" >&2
    exit 1
}

# The modules loaded by init.sh, in this order, each after those it depends on. crc32_generic is
# what rdma_rxe asks for at run time.
modules=(virtio_pci 9pnet_virtio 9p overlay virtio_net virtio_rng sch_netem crc32c_generic
    crc32_generic kvm-amd zram ib_uverbs rdma_ucm rdma_rxe)
# perftest and its libraries are the yardstick of the latency table; the rest makes rxe devices and
# drives them.
packages=(perftest libibumad3 libpci3 ibverbs-utils rdmacm-utils libibverbs1 librdmacm1
    ibverbs-providers libnl-3-200 libnl-route-3-200 iproute2 libbpf1 libmnl0 libcap2 libelf1)

# Where the kernel comes from, as options of apt's: nothing, hence the host's own sources, or the
# suite's. How to reach a mirror (/etc/apt/apt.conf.d) stays the host's affair.
kernel_apt=()
suite_apt() {
    local mirror
    [ -n "$suite" ] || return 0
    kernel_apt=(-o "Dir::Etc::sourcelist=$cache/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$cache/apt/lists" -o "Dir::Cache=$cache/apt/cache"
        -o APT::Sandbox::User=root) # another user could not write to a home folder
    [ -s "$cache/release" ] && return
    mirror=$(apt-get indextargets --format "\$(ORIGIN) \$(REPO_URI)" 'Created-By: Packages' |
        sed -n 's/^Debian //p' | head -n 1)
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "${mirror:-http://deb.debian.org/debian} $suite main" >"$cache/apt/sources.list"
    echo "lab: asking for the kernel of $suite" >&2
    apt-get "${kernel_apt[@]}" update -q --error-on=any >"$cache/apt.log" 2>&1 ||
        die "apt knows no suite $suite: $(grep '^[EW]:' "$cache/apt.log" | head -n 1)"
}

fetch() { # PACKAGE [OPTION OF APT...]: its .deb below $cache/deb
    local found
    found=$(find "$cache/deb" -name "$1_*.deb" | head -n 1)
    if [ -z "$found" ]; then
        echo "lab: downloading $1" >&2
        (cd "$cache/deb" && apt-get "${@:2}" download -q "$1" >"$cache/apt.log" 2>&1) ||
            die "apt-get download $1 failed: $(tail -n 1 "$cache/apt.log") (apt-get update?)"
        found=$(find "$cache/deb" -name "$1_*.deb" | head -n 1)
    fi
    echo "$found"
}

# Resolved once and then kept: mirrors drop old kernels, results should not change by themselves.
kernel_release() {
    if [ ! -s "$cache/release" ]; then
        apt-cache "${kernel_apt[@]}" depends linux-image-amd64 |
            sed -n 's/^ *Depends: linux-image-\([0-9].*\)/\1/p' | head -n 1 >"$cache/release.new"
        [ -s "$cache/release.new" ] || die "${suite:-apt} has no linux-image-amd64 (apt-get update?)"
        mv "$cache/release.new" "$cache/release"
    fi
    cat "$cache/release"
}

unpack_kernel() {
    local deb
    [ -s "$cache/vmlinuz" ] && return
    deb=$(fetch "linux-image-$release" "${kernel_apt[@]}")
    rm -rf "$cache/kernel"
    dpkg -x "$deb" "$cache/kernel"
    busybox depmod -b "$cache/kernel" "$release"
    cp "$cache/kernel/boot/vmlinuz-$release" "$cache/vmlinuz.new"
    mv "$cache/vmlinuz.new" "$cache/vmlinuz"
}

unpack_tools() {
    local package deb directory
    [ -e "$cache/tools/.complete" ] && return
    rm -rf "$cache/tools"
    mkdir -p "$cache/tools"
    for package in "${packages[@]}"; do
        deb=$(fetch "$package")
        dpkg -x "$deb" "$cache/tools"
    done
    # Laid over a merged-usr system, a /bin of its own would hide that system's.
    for directory in bin sbin lib lib64; do
        [ -d "$cache/tools/$directory" ] || continue
        mkdir -p "$cache/tools/usr/$directory"
        cp -a "$cache/tools/$directory/." "$cache/tools/usr/$directory/"
        rm -rf "${cache:?}/tools/$directory"
    done
    touch "$cache/tools/.complete"
}

# A kernel has each of them as a module or built in; else it is not known by this name any more.
check_modules() {
    local directory=$cache/kernel/lib/modules/$release name
    for name in "${modules[@]}"; do
        grep -qE "/${name//[-_]/[-_]}\.ko[.:a-z]*( |\$)" "$directory/modules.dep" "$directory/modules.builtin" ||
            die "Linux $release has no module $name"
    done
}

# Files of the wanted modules and of what they depend on, dependencies first.
module_files() {
    awk -v wanted="${modules[*]}" '
        function name(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
        function visit(module,   list, count, i) {
            if (module in seen || !(module in file)) return
            seen[module] = 1
            count = split(needs[module], list, " ")
            for (i = 1; i <= count; i++) visit(name(list[i]))
            print file[module]
        }
        { path = $1; sub(/:$/, "", path); $1 = ""; file[name(path)] = path; needs[name(path)] = $0 }
        END { count = split(wanted, list, " "); for (i = 1; i <= count; i++) visit(name(list[i])) }
    ' "$cache/kernel/lib/modules/$release/modules.dep"
}

build_initrd() {
    local root path plain applet
    [ "$cache/initrd" -nt "$here/init.sh" ] && [ "$cache/initrd" -nt "$0" ] && return
    check_modules
    root=$(mktemp -d)
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -rf '$root'" EXIT
    mkdir -p "$root"/{bin,modules,proc,sys,dev,newroot}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in sh mount mkdir sed insmod cat ip sync reboot usleep ln chroot hostname; do
        ln -s busybox "$root/bin/$applet"
    done
    module_files | while read -r path; do
        plain=$(basename "${path%%.ko*}").ko
        case $path in
        *.xz) xz -dc "$cache/kernel/lib/modules/$release/$path" ;;
        *.zst) zstd -dcq "$cache/kernel/lib/modules/$release/$path" ;;
        *) cat "$cache/kernel/lib/modules/$release/$path" ;;
        esac >"$root/modules/$plain"
        echo "$plain" >>"$root/modules/order"
    done
    cp "$here/init.sh" "$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$cache/initrd.new"
    mv "$cache/initrd.new" "$cache/initrd"
}

for program in busybox cpio dpkg apt-get awk xz; do
    command -v "$program" >/dev/null || die "$program is missing (tools/deps.sh --lab)"
done
mkdir -p "$cache/deb"
if [ "${1:-}" = --fresh ]; then
    rm -rf "$cache/release" "$cache/vmlinuz" "$cache/initrd" "$cache/tools" "$cache"/deb/*
fi
exec 9>"$cache/lock"
flock 9 # two first runs at a time would unpack over each other
suite_apt
release=$(kernel_release)
unpack_kernel
unpack_tools
build_initrd
echo "$cache"
