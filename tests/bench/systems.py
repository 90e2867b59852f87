# SPDX-License-Identifier: Apache-2.0
"""The systems that are compared: how a program is started on each, and which this host has."""
import os
import re
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One bar of a plot."""

    name: str
    kind: str  # native, zram or far
    words: str
    options: tuple = ()  # of farvisor run


def far(name, words, *options):
    return System(name, "far", words, options)


KNOWN = [
    System("native", "native", "the program as an ordinary process, all memory local"),
    System(
        "zram",
        "zram",
        "the same process in a memory cgroup of the local size, that swaps to"
        " zram on this host; no limit at 100 %",
    ),
    far(
        "exit",
        "farvisor as it is used: misses solved in the thread that missed, default prefetcher",
        "--fault-mode",
        "exit",
    ),
    far(
        "uffd",
        "farvisor with a separate thread that handles userfaultfd events, default" " prefetcher",
        "--fault-mode",
        "uffd",
    ),
    far("uffd-spin", "as uffd, but that thread never sleeps", "--fault-mode", "uffd-spin"),
    far("none", "as exit, without prefetching", "--fault-mode", "exit", "--prefetch", "none"),
    far(
        "readahead", "as exit, window read-ahead", "--fault-mode", "exit", "--prefetch", "readahead"
    ),
    far(
        "trend",
        "as exit, majority trend of the last misses",
        "--fault-mode",
        "exit",
        "--prefetch",
        "trend",
    ),
    far(
        "auto",
        "as exit, follows several sequences per thread: the default",
        "--fault-mode",
        "exit",
        "--prefetch",
        "auto",
    ),
]
NAMES = [system.name for system in KNOWN]
PREFETCHERS = ("none", "readahead", "trend", "auto")


def far_help(farvisor):
    return subprocess.run(
        [farvisor, "run", "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def missing_option(system, help_text):
    """Why this farvisor cannot be that system: an option or a value that --help does not name."""
    pairs = zip(system.options[::2], system.options[1::2])
    for option, value in pairs:
        line = re.search(rf"^.*{option} .*(\n {{20,}}.*)*", help_text, re.M)
        if not line:
            return f"this farvisor has no {option}"
        if not re.search(rf"\b{value}\b", line.group()):
            return f"this farvisor's {option} does not know {value}"
    return ""


def choose(names, farvisor):
    """(systems that can run here, {name: reason} of those that cannot)."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"--systems: unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    help_text = far_help(farvisor)
    chosen, skipped = [], {}
    for system in KNOWN:
        if system.name not in names:
            continue
        reason = missing_option(system, help_text)
        if system.kind == "zram" and os.geteuid() != 0:
            reason = "needs root"
        if reason:
            skipped[system.name] = reason
        else:
            chosen.append(system)
    return chosen, skipped


def shares_of(system, workload, shares, quick):
    """At which shares a system runs a workload. A prefetcher differs only where memory is short."""
    if system.kind == "native":
        return [None]
    if workload.group == "overhead":
        return list(workload.shares) if system.name == "exit" else []
    # Page touches tell the same at every share below 100 %, but for how many of them miss.
    wanted = sorted({min(shares), max(shares)} if workload.group == "micro" else set(shares))
    if system.name in PREFETCHERS:
        return [share for share in wanted if share == min(wanted)]
    handler_thread = system.name in ("uffd", "uffd-spin")
    if handler_thread and quick and workload.name not in ("seq-read", "random-read"):
        return []
    if system.name == "uffd-spin" and workload.group == "macro":
        return []
    return wanted
