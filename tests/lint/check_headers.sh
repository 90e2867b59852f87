#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone, so that the order of #include lines never matters; the guest/host
# ABI also does so freestanding and as assembler.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
status=0
while read -r header; do
    case $header in
    guest-os/*) flags=("${KERNEL_FLAGS[@]}") ;;
    *) flags=("${HOST_FLAGS[@]}") ;;
    esac
    gcc "${flags[@]}" -Wall -Wextra -Wno-unused-function -Wno-unused-variable -fsyntax-only -x c \
        -include "$header" - </dev/null || status=1
done < <(files '*.h')
gcc -ffreestanding -std=c11 -Wall -Wextra -pedantic -fsyntax-only -x c guides-api/farvisor/abi.h \
    -Wno-pedantic || status=1
gcc -D__ASSEMBLER__ -E -x assembler-with-cpp guides-api/farvisor/abi.h -o /dev/null || status=1
exit $status
