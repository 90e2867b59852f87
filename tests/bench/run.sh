#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The test of the benchmark suite, for `make check`: statistics, the report of a made-up CSV, and each
# program natively with a known result. It takes seconds and measures nothing; `make bench` does.
# Usage: tests/bench/run.sh [--full] [TEST... | --list-kvm]: with --full also a round of each section,
# which needs KVM; some tests only; the names of those that need KVM. Ends with "N passed, N failed, N skipped".
cd "$(dirname "$0")" && exec /usr/bin/python3 -B selftest.py "$@"
