# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What needs KVM, and whether it is here; sourced by the runners.

# In the source of a unit test: it opens /dev/kvm.
export NEEDS_KVM='"no /dev/kvm"|unit/fault/engine.h"'

kvm_here() {
    [ -r /dev/kvm ] && [ -w /dev/kvm ]
}
