#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Folders depend on each other in one direction only (docs/architecture.md), and on another folder's
# public header only. Each row: a folder, then the project headers it may include.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

api='guides-api/.*|farvisor/.*|support\.h'
declare -A allowed=(
    [guides-api]="$api|(guide|alloc)/.*"
    [guest-os]="guest-os/.*|farvisor/.*|guides-api/farvisor/.*"
    [rdma]="rdma/.*|$api"
    [ept]="ept/.*|rdma/rdma\.h|$api"
    [fault]="fault/.*|ept/ept\.h|rdma/rdma\.h|$api"
    [vmm]="vmm/.*|fault/(fault|prefetch|trace|replay)\.h|ept/ept\.h|rdma/rdma\.h|$api"
    [memserver]="memserver/.*|rdma/.*|$api"
)
status=0
for folder in "${!allowed[@]}"; do
    while IFS=: read -r file line text; do
        included=$(sed -E 's/^[^"]*"([^"]*)".*/\1/' <<<"$text")
        # A bare name is a neighbour in the same folder.
        [ -e "$(dirname "$file")/$included" ] && continue
        if ! grep -qxE "${allowed[$folder]}" <<<"$included"; then
            echo "$file:$line: $folder/ may not include \"$included\""
            status=1
        fi
    done < <(files "$folder/*.c" "$folder/*.h" "$folder/*.S" |
        xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' || true)
done
exit $status
