#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# cppcheck's warnings on what goes into the programs. Suppressed, for the whole project:
#   missingIncludeSystem   system headers are not analysed
#   nullPointerRedundantCheck in Check's macros: they look at a pointer twice
set -euo pipefail
. "$(dirname "$0")/lib.sh"
build=build/lint/cppcheck
mkdir -p "$build"
files 'guides-api/*.c' 'rdma/*.c' 'ept/*.c' 'fault/*.c' 'vmm/*.c' 'memserver/*.c' 'guest-os/*.c' |
    cppcheck --quiet -j"$JOBS" --cppcheck-build-dir="$build" --std=c11 --platform=unix64 \
        --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
        --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches \
        -D__x86_64__ -D__GNUC__=12 -D_GNU_SOURCE -I. -Iguides-api --file-list=-
