# SPDX-License-Identifier: Apache-2.0
"""Section redis: Debian's redis-server, far away, with each prefetcher and with its guide, and in a
memory cgroup that swaps to zram.

Every run is a server of its own, filled once and then asked the same requests, a block in each round.
All values are checked. Needs redis-server (or redis-check-rdb, which is the same program)."""
import contextlib
import functools
import json
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time

from measure import with_children_gone
from trials import Case, Failed, Metric, Section

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import resp

TRANSPORT = "loopback,delay=20us"
ANSWER_S = 60  # longest wait for an answer
START_S = 120  # ... for a server to listen
RUNS = {
    "none": ("--prefetch", "none"),
    "readahead": ("--prefetch", "readahead"),
    "trend": ("--prefetch", "trend"),
    "auto": ("--prefetch", "auto"),
    "guide": (),  # and --guide, see Server
    "zram": None,
}


class Client:
    """One connection that speaks RESP2."""

    def __init__(self, port, alive):
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
                break
            except OSError:
                if time.monotonic() > deadline or not alive():
                    raise Failed("the server does not listen") from None
                time.sleep(0.1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 20)

    def send(self, *words):
        self.socket.sendall(resp.encoded(words))

    def reply(self):
        try:
            return resp.reply(self.file)
        except resp.ErrorReply as error:
            raise Failed(str(error)) from None

    def ask(self, *words):
        self.send(*words)
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()


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
                    client.send("RPUSH", f"list:{key}", *elements)
                for _ in keys:
                    client.reply()

    def request(self, client, rng):
        key, start = rng.randrange(self.keys), rng.randrange(self.LENGTH - self.RANGE)
        began = time.perf_counter()
        got = client.ask("LRANGE", f"list:{key}", start, start + self.RANGE - 1)
        took = time.perf_counter() - began
        ends = [element_of(key, start + i) for i in (0, self.RANGE - 1)]
        if len(got) != self.RANGE or [got[0], got[-1]] != ends:
            raise Failed(f"wrong elements of list:{key} from {start}")
        return took


class Get:
    """Strings of one size, or of 1 to 128 KiB."""

    def __init__(self, mib, size=None):
        rng, total = random.Random(5), 0
        self.sizes = []
        while total < mib << 20:
            self.sizes.append(size or 1024 << rng.randrange(8))
            total += self.sizes[-1]

    def fill(self, client):
        for key, size in enumerate(self.sizes):
            client.ask("SET", f"s:{key}", value_of(key, size))

    def request(self, client, rng):
        key = rng.randrange(len(self.sizes))
        began = time.perf_counter()
        got = client.ask("GET", f"s:{key}")
        took = time.perf_counter() - began
        if got != value_of(key, self.sizes[key]):
            raise Failed(f"wrong value of s:{key}")
        return took


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One run's redis-server and a connection to it."""

    def __init__(self, lab, folder, run, mib):
        self.stats_path = folder / f"{run}.json"
        port = free_port()
        program = [str(folder / "redis-server"), "--port", str(port), "--save", ""]
        program += ["--daemonize", "no", "--bind", "127.0.0.1"]
        local_mib = max(mib // 8, 10)
        if run == "zram":
            swap = lab.swap()
            swap.set_limit(None)
            swap.set_limit(local_mib << 20)
            command = lab.runner.launch(program, swap.group)
        else:
            command = self.far(lab, run, mib, local_mib, port, folder) + program
        self.log = open(folder / f"{run}.log", "wb")
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        try:
            self.client = Client(port, lambda: self.process.poll() is None)
        except Failed:
            self.end()
            raise

    def far(self, lab, run, mib, local_mib, port, folder):
        command = [lab.runner.farvisor, "run", "--memory", f"{mib * 4}M", "--local"]
        command += [f"{local_mib}M", "--stats", str(self.stats_path), "--transport", TRANSPORT]
        command += ["--net", "host", "--publish", str(port), "--dir", str(folder), *RUNS[run]]
        if run == "guide":  # it waits in the program's place: no reason to switch it off
            command += ["--guide-time", "100%"]
            command += ["--guide", str(lab.runner.programs.parent.parent / "guides/redis.so")]
        return [*command, "--"]

    def closing(self):
        """Shuts it down: what farvisor counted of the whole run, filling included."""
        self.client.send("SHUTDOWN", "NOSAVE")
        self.process.wait(ANSWER_S)
        if not self.stats_path.exists():
            return {}
        stats = json.loads(self.stats_path.read_text())
        return {
            "demand_fetched_pages": stats["paging"]["demand_fetched_pages"],
            "hinted_pages": stats["hints"]["prefetch_pages"],
        }

    def end(self):
        with_children_gone(self.process)
        self.log.close()


def block_of(workload, client, turn, requests):
    """The figures of one block of requests, the same for every run of the round."""
    rng = random.Random(turn)
    took = sorted(workload.request(client, rng) for _ in range(requests))
    return {
        "requests_per_s": len(took) / sum(took),
        "p50_us": took[len(took) // 2] * 1e6,
        "p99_us": took[int(len(took) * 0.99)] * 1e6,
    }


@contextlib.contextmanager
def servers_of(make, mib, requests, lab, runs):
    """Starts and fills a server for each run; what cannot start fails when it is asked."""
    program = shutil.which("redis-check-rdb") or shutil.which("redis-server")
    if not program:
        raise Failed("redis-server is not installed")
    folder = lab.runner.work / "redis"
    folder.mkdir(exist_ok=True)
    shutil.copy(program, folder / "redis-server")
    workload, servers, broken, turns = make(mib), {}, {}, dict.fromkeys(runs, 0)

    def take(run):
        if run in broken:
            raise broken[run]
        turns[run] += 1
        return {run: block_of(workload, servers[run].client, turns[run], requests)}

    try:
        for run in runs:
            try:
                servers[run] = Server(lab, folder, run, mib)
                workload.fill(servers[run].client)
            except (Failed, OSError) as problem:
                broken[run] = problem if isinstance(problem, Failed) else Failed(repr(problem))
        yield take, lambda run: {run: servers[run].closing()} if run not in broken else {}
    finally:
        for server in servers.values():
            server.end()


def redis_cases(mib, _quick):
    size = 8 * mib
    requests = max(40, min(300, size * 5 // 2))
    forms = {
        "lrange": ("LRANGE of 300 elements of 128 bytes", Lrange),
        "get64k": ("GET of 64 KiB", lambda mib: Get(mib, 65536)),
        "getmix": ("GET of 1 to 128 KiB", Get),
        "get4k": ("GET of 4 KiB", lambda mib: Get(mib, 4096)),
    }
    return [
        Case(
            name,
            f"{words}; {size} MiB of values, blocks of {requests} requests",
            tuple(RUNS),
            functools.partial(servers_of, make, size, requests),
        )
        for name, (words, make) in forms.items()
    ]


REDIS = Section(
    "redis",
    "Redis",
    f"One client. An eighth of the values is local (10 MiB at least); {TRANSPORT}. guide is "
    "`guides/redis.so` with the default prefetcher.",
    (
        Metric("requests_per_s", "requests/s"),
        Metric("p50_us", "p50, us"),
        Metric("p99_us", "p99, us"),
        Metric("demand_fetched_pages", "demand pages, whole run"),
        Metric("hinted_pages", "pages named, whole run"),
    ),
    redis_cases,
    ("zram",),
)
SECTIONS = (REDIS,)
