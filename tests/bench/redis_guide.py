#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian's redis-server, far away, without a guide, with each prefetcher and with the redis guide.

Each configuration is a server of its own, filled and then asked in the same way; the
configurations take turns, and a round is one block of requests to each. Prints a Markdown table:
requests a second (median of the rounds), 99th percentile of the latency, and pages from its
statistics. Needs redis-server (or redis-check-rdb, which is the same program).
"""
import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system"))
import redis_answers

CONFIGS = {
    "none": ["--prefetch", "none"],
    "readahead": ["--prefetch", "readahead"],
    "trend": ["--prefetch", "trend"],
    "auto": [],
    "guide": ["--guide"],
}


def value_of(seed, size):
    """Bytes that can be told again, and do not compress."""
    return random.Random(seed).randbytes(size)


def element_of(key, number):
    return value_of(key * 100003 + number, 128)


class Lrange:
    """Lists of 128-byte elements; a range of 300 at a random place."""

    LENGTH, RANGE = 1200, 300

    def __init__(self, mib):
        self.keys = (mib << 20) // (self.LENGTH * 132)

    def fill(self, client):
        # Element by element over all lists, so that a list's nodes lie apart, as in a used server.
        for first in range(0, self.LENGTH, 20):
            for base in range(0, self.keys, 50):
                keys = range(base, min(base + 50, self.keys))
                for key in keys:
                    elements = [element_of(key, first + i) for i in range(20)]
                    client.send("RPUSH", "list:%d" % key, *elements)
                for _ in keys:
                    client.reply()

    def request(self, client, rng):
        key, start = rng.randrange(self.keys), rng.randrange(self.LENGTH - self.RANGE)
        began = time.perf_counter()
        got = client.ask("LRANGE", "list:%d" % key, start, start + self.RANGE - 1)
        took = time.perf_counter() - began
        assert len(got) == self.RANGE
        for i in (0, self.RANGE - 1):
            assert got[i] == element_of(key, start + i)
        return took


class Get:
    """Strings of 64 KiB, or of 1 to 128 KiB."""

    def __init__(self, mib, mixed):
        sizes = random.Random(5)
        self.sizes = []
        while sum(self.sizes) < mib << 20:
            self.sizes.append(1024 << sizes.randrange(8) if mixed else 65536)

    def fill(self, client):
        for key, size in enumerate(self.sizes):
            client.ask("SET", "s:%d" % key, value_of(key, size))

    def request(self, client, rng):
        key = rng.randrange(len(self.sizes))
        began = time.perf_counter()
        got = client.ask("GET", "s:%d" % key)
        took = time.perf_counter() - began
        assert len(got) == self.sizes[key] and got[:16] == value_of(key, 16)[:16]
        return took


class Answers:
    """The data and requests of the system test, as much of them as asked for."""

    BYTES_A_KEY = {"hgetall": 170000, "smembers": 150000, "zrange": 200000, "pipeline": 35000}

    def __init__(self, mib, name):
        self.name, self.keys, self.workload = name, (mib << 20) // self.BYTES_A_KEY[name], None

    def fill(self, client):
        kind = redis_answers.WORKLOADS["get" if self.name == "pipeline" else self.name]
        self.workload = kind(client, random.Random(5))
        self.workload.KEYS = self.keys
        self.workload.load()

    def request(self, client, rng):
        requests, expected = self.workload.request(rng)
        began = time.perf_counter()
        client.check(requests, expected)
        return (time.perf_counter() - began) / len(requests)


WORKLOADS = {
    "lrange": Lrange,
    "get64k": lambda mib: Get(mib, False),
    "getmix": lambda mib: Get(mib, True),
    **{name: lambda mib, name=name: Answers(mib, name) for name in Answers.BYTES_A_KEY},
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_start(options, folder, name, config):
    """Starts one; returns (process, client)."""
    port, stats = free_port(), os.path.join(folder, name + ".json")
    if config == ["--guide"]:  # it waits in the program's place: not a reason to switch it off
        config = ["--guide-time", "100%", "--guide", options.guide]
    command = [options.farvisor, "run", "--memory", "%dM" % (options.mib * 4), "--local"]
    command += ["%dM" % max(options.local or options.mib // 8, 8), "--stats", stats]
    command += ["--transport", options.transport, "--net", "host", "--publish", str(port)]
    command += ["--dir", folder, *config, "--", os.path.join(folder, "redis-server")]
    command += ["--port", str(port), "--save", "", "--daemonize", "no", "--bind", "127.0.0.1"]
    log = open(os.path.join(folder, name + ".log"), "w", encoding="utf-8")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    return process, redis_answers.Client(port)


def measure(options, workload, folder):
    servers, rows = {}, {}
    for name in options.configs:
        servers[name] = server_start(options, folder, name, CONFIGS[name])
        workload.fill(servers[name][1])
        rows[name] = {"rates": [], "latencies": []}
    for turn in range(options.rounds):
        for name in options.configs:
            rng = random.Random(turn)  # the same requests for all
            took = [workload.request(servers[name][1], rng) for _ in range(options.requests)]
            rows[name]["rates"].append(len(took) / sum(took))
            rows[name]["latencies"] += took
    for name, (process, client) in servers.items():
        client.send("SHUTDOWN", "NOSAVE")
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        with open(os.path.join(folder, name + ".json"), encoding="utf-8") as file:
            rows[name]["stats"] = json.load(file)
    return rows


def report(options, rows, name):
    load = os.getloadavg()[0]
    print(
        "%s, %d MiB of values, %d rounds of %d requests, "
        % (name, options.mib, options.rounds, options.requests)
        + "%s, load %.1f\n" % (options.transport, load)
    )
    print("| | requests/s, median | least .. most | p99, us | demand fetches | pages named |")
    print("|---|---|---|---|---|---|")
    for config, row in rows.items():
        latencies = sorted(row["latencies"])
        hints = row["stats"].get("hints") or {}
        print(
            "| %s | %.0f | %.0f .. %.0f | %.0f | %d | %d |"
            % (
                config,
                statistics.median(row["rates"]),
                min(row["rates"]),
                max(row["rates"]),
                latencies[int(len(latencies) * 0.99)] * 1e6,
                row["stats"]["paging"]["demand_fetched_pages"],
                hints.get("prefetch_pages", 0),
            )
        )
    general = [c for c in rows if c != "guide"]
    if "guide" in rows and general:
        best = max(general, key=lambda c: statistics.median(rows[c]["rates"]))
        ratios = [g / b for g, b in zip(rows["guide"]["rates"], rows[best]["rates"])]
        print(
            "\nguide to the best of the others (%s): %.2f (by round: %.2f .. %.2f)\n"
            % (best, statistics.median(ratios), min(ratios), max(ratios))
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    build = os.environ.get("BUILD", "build")
    parser.add_argument("--farvisor", default=os.path.abspath(build + "/farvisor"))
    parser.add_argument("--guide", default=os.path.abspath(build + "/guides/redis.so"))
    parser.add_argument("--transport", default="loopback,delay=20us")
    parser.add_argument("--mib", type=int, default=1024, help="values, in MiB")
    parser.add_argument("--local", type=int, help="MiB here; default: an eighth of the values")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS))
    options = parser.parse_args()
    program = shutil.which("redis-check-rdb") or shutil.which("redis-server")
    if not program:
        raise SystemExit("redis_guide: redis-server is not installed")
    for name in options.workloads:
        with tempfile.TemporaryDirectory(prefix="farvisor-redis.") as folder:
            shutil.copy(program, os.path.join(folder, "redis-server"))
            report(options, measure(options, WORKLOADS[name](options.mib), folder), name)


if __name__ == "__main__":
    main()
