#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Redis's own test suite, out of Debian's source package of the redis-server that is installed here.
# The package goes to $BUILD/redis with package lists of its own: the host's apt needs no deb-src line
# and gets none. apt checks what it fetches as it always does, against Debian's archive key. How to
# reach a mirror (/etc/apt) stays the host's affair. Prints the folder of the unpacked source.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$repo/$build ;; esac
folder=$build/redis

die() {
    echo "redis-suite: $*" >&2
    exit 1
}

for program in apt-get dpkg-source dpkg-query tclsh; do
    command -v "$program" >/dev/null || die "$program is missing (tools/deps.sh --redis)"
done
# shellcheck disable=SC2016 # dpkg's variables
version=$(dpkg-query -W -f '${source:Version}' redis-tools 2>/dev/null) || die 'redis-tools is not installed'
source=$folder/source-${version//[^0-9A-Za-z.+~-]/_}
if [ -e "$source/tests/test_helper.tcl" ]; then
    echo "$source"
    exit 0
fi

mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
# The archives that the host's packages come from.
apt-get indextargets --format "\$(ORIGIN) \$(REPO_URI) \$(RELEASE)" 'Created-By: Packages' |
    sed -nE 's,^Debian (.*) (.*)$,deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \1 \2 main,p' |
    sort -u >"$folder/apt/sources.list"
[ -s "$folder/apt/sources.list" ] || die 'apt knows no archive of Debian (apt-get update?)'
apt=(apt-get -q -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache"
    -o APT::Sandbox::User=root) # another user could not write to a home folder
echo "redis-suite: fetching the source of redis $version" >&2
"${apt[@]}" update --error-on=any >"$folder/apt.log" 2>&1 ||
    die "apt has no lists of source packages: $(grep '^[EW]:' "$folder/apt.log" | head -n 1)"
rm -rf "$folder/unpacking"
mkdir "$folder/unpacking"
(cd "$folder/unpacking" && "${apt[@]}" source "redis=$version") >"$folder/apt.log" 2>&1 ||
    die "no source of redis $version: $(grep '^E:' "$folder/apt.log" | head -n 1)"
unpacked=$(find "$folder/unpacking" -mindepth 1 -maxdepth 1 -type d)
[ -e "$unpacked/tests/test_helper.tcl" ] || die "redis $version has no tests/test_helper.tcl"
mv "$unpacked" "$source"
rm -rf "$folder/unpacking"
echo "$source"
