#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Documents made from the sources are up to date. Mend: make docs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
if ! awk -f docs/gen-syscalls.awk vmm/io/table.def guest-os/syscalls.def | cmp -s - docs/syscalls.md; then
    echo "docs/syscalls.md is stale: run 'make docs'"
    exit 1
fi
