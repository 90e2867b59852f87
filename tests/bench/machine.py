# SPDX-License-Identifier: Apache-2.0
"""This host: what it is, its zram swap for the time of the bench, its memory server."""
import contextlib
import os
import pathlib
import platform
import re
import select
import subprocess
import threading

HERE = pathlib.Path(__file__).resolve().parent
SWAP_MIB = 4096


def kvm_kind():
    modules = {name for name in os.listdir("/sys/module") if name.startswith("kvm_")}
    for module, words in (
        ("kvm_pvm", "PVM (shadow paging)"),
        ("kvm_intel", "VMX"),
        ("kvm_amd", "SVM"),
    ):
        if module in modules:
            return words
    return "unknown kind"


def host_line():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return (
        f"{os.cpu_count()} CPUs, {cpu.group(1) if cpu else platform.machine()}, "
        f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB, "
        f"Linux {platform.release()}, KVM by {kvm_kind()}"
    )


class OomRescue(threading.Thread):
    """Keeps the kernel from killing a program whose memory could be swapped.

    Linux 6.18 without multi-generational LRU kills in small cgroups although all their pages are
    anonymous and swap is free: 16 attempts at reclaim, microseconds apart, each trusting statistics
    that say there are inactive pages, and there are none. cgroup v1 can stop the program instead
    and tell us; reading memory.stat brings the statistics up to date, and a limit that is 64 KiB
    higher for a moment lets the program go on. With v2 there is no such way: it is killed.
    """

    MORE_BYTES = 64 << 10

    def __init__(self, group):
        super().__init__(daemon=True)
        self.group, self.limit, self.count = group, None, 0
        self.control = os.open(group / "memory.oom_control", os.O_RDWR | os.O_CLOEXEC)
        os.write(self.control, b"1")
        self.event = os.eventfd(0, os.EFD_CLOEXEC)
        (group / "cgroup.event_control").write_text(f"{self.event} {self.control}")
        self.start()

    def run(self):
        with contextlib.suppress(OSError):  # the group is gone
            while True:
                os.eventfd_read(self.event)
                while (
                    self.limit and "under_oom 1" in (self.group / "memory.oom_control").read_text()
                ):
                    self.help()

    def help(self):
        (self.group / "memory.stat").read_text()
        limit = self.group / "memory.limit_in_bytes"
        wanted = self.limit
        if wanted is None:
            return
        limit.write_text(str(wanted + self.MORE_BYTES))
        self.count += 1
        for _ in range(20):  # lowering it reclaims, and may have to try again
            with contextlib.suppress(OSError):
                limit.write_text(str(wanted))
                return


class Swap:
    """A memory cgroup that swaps to zram; see swap.sh, that also takes it away."""

    def __init__(self):
        self.process = subprocess.Popen(
            [HERE / "swap.sh", str(SWAP_MIB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        values = {}
        for line in self.process.stdout:
            key, _, value = line.strip().partition(" ")
            values[key] = value
            if key == "ready":
                break
        if "ready" not in values:
            raise RuntimeError(self.process.stderr.read().strip() or "swap: cannot be set up")
        self.group, self.kind = values["group"], values["kind"]
        self.limit_file, self.unlimited = values["limit"], values["unlimited"]
        group = pathlib.Path(self.group)
        self.rescue = OomRescue(group) if (group / "memory.oom_control").exists() else None

    def set_limit(self, limit_bytes):
        """None lifts the limit."""
        if self.rescue:
            self.rescue.limit = limit_bytes
            self.rescue.count = 0
        text = self.unlimited if limit_bytes is None else str(limit_bytes)
        pathlib.Path(self.limit_file).write_text(text)

    def rescues(self):
        return self.rescue.count if self.rescue else 0

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


@contextlib.contextmanager
def swap(wanted):
    """Yields (Swap or None, why not)."""
    if not wanted:
        yield None, ""
        return
    try:
        made = Swap()
    except (RuntimeError, OSError) as error:
        yield None, str(error)
        return
    try:
        yield made, ""
    finally:
        made.close()


@contextlib.contextmanager
def memory_server(program, wanted):
    """Yields the address of a memory server on this host, "" if none is wanted."""
    if not wanted:
        yield ""
        return
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [program, "--listen", "127.0.0.1:0", "--capacity", "4G", "--ready-fd", str(write_end)],
        pass_fds=[write_end],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], 10)
        address = os.read(read_end, 200).decode().strip() if ready else ""
        if not address:
            raise RuntimeError("the memory server did not start")
        yield address
    finally:
        os.close(read_end)
        process.terminate()
        process.wait(timeout=30)
