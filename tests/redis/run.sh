#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Redis's own test suite against Debian's redis-server in a guest (suite.sh), on KVM or, where there
# is none, in emulated machines. Usage: tests/redis/run.sh [--full] [CASE...]
set -uo pipefail
cd "$(dirname "$0")" || exit 1
# shellcheck source-path=SCRIPTDIR source=../kvm.sh
. ../kvm.sh

./source.sh >/dev/null || exit 1 # before machines start, which reach no mirror
if kvm_here; then
    exec ./suite.sh "$@"
fi
options=() jobs=()
for argument in "$@"; do
    case $argument in
    --full) options+=(--full) ;;
    *) jobs+=("redis/${argument#test_}") ;;
    esac
done
[ ${#jobs[@]} -gt 0 ] || jobs=(redis)
LAB_TIMEOUT=${LAB_TIMEOUT:-21600} exec ../lab/emulated.sh "${options[@]}" "${jobs[@]}"
