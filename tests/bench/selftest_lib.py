# SPDX-License-Identifier: Apache-2.0
"""What the suite's own tests share."""
import csv
import os
import pathlib
import subprocess

import measure

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / os.environ.get("BUILD", "build")
PROGRAMS = BUILD / "tests/bench"


class Skip(Exception):
    """What a test needs is not here."""


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def run(*argv, **options):
    program = PROGRAMS / argv[0]
    return subprocess.run(
        [program, *argv[1:]], capture_output=True, text=True, timeout=60, check=True, **options
    ).stdout


def canned():
    with open(HERE / "data/runs.csv", newline="") as source:
        return [dict.fromkeys(measure.COLUMNS, "") | row for row in csv.DictReader(source)]
