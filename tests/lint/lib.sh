# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the lint scripts share: which files there are, and the flags they are compiled with. Only
# files known to git are looked at, so that a build folder or an editor's leftovers never matter.
# shellcheck disable=SC2034  # the variables are for the scripts that read this file

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
export LC_ALL=C
JOBS=${JOBS:-$(nproc)}
HOST_FLAGS=(-D_GNU_SOURCE -I. -Iguides-api -std=gnu11)
# The guest image is freestanding, without vector registers.
KERNEL_FLAGS=(-ffreestanding -mgeneral-regs-only -I. -Iguides-api -std=gnu11)

# Tracked files that still exist and match the patterns.
files() {
    git ls-files -- "$@" | while read -r file; do
        if [ -f "$file" ]; then
            echo "$file"
        fi
    done
}

scripts() {
    files '*' | while read -r file; do
        if head -c 40 "$file" | tr -d '\0' | grep -qE '^#!.*sh$|^# shellcheck shell='; then
            echo "$file"
        fi
    done
}
