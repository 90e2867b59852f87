# SPDX-License-Identifier: Apache-2.0
"""Clients of the guest program event_server: `event_clients.py PORT edge|level wait|nowait TURNS`.

Prints how each kind of connection ended, sorted; the same against a native server.
"""

import random
import socket
import sys
import threading

PORT, WAITS, TURNS = int(sys.argv[1]), sys.argv[3] == "wait", int(sys.argv[4])
results = []
lock = threading.Lock()


def connect(kind):
    one = socket.create_connection(("127.0.0.1", PORT))
    one.settimeout(120)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.sendall(kind)
    return one


def receive(one, count):
    got = bytearray()
    while len(got) < count:
        part = one.recv(count - len(got))
        if not part:
            break
        got += part
    return bytes(got)


def ending(one):
    try:
        return "end" if one.recv(1) == b"" else "more"
    except ConnectionResetError:
        return "reset"


def echo(index, rng):
    """Ask, wait for the answer; at last a half-close, and the end of the other half."""
    one = connect(b"e")
    for _ in range(TURNS):
        want = rng.randbytes(rng.choice([1, 5, 40, 900, 3000, 7000, 20000]))
        one.sendall(want)
        if receive(one, len(want)) != want:
            return "other bytes"
    last = rng.randbytes(5000)
    one.sendall(last)
    one.shutdown(socket.SHUT_WR)
    return "echoed" if receive(one, 6000) == last and ending(one) == "end" else "cut"


def slow(index, rng):
    """Many bytes before the first is read: every window on the way is full."""
    one = connect(b"e")
    want = rng.randbytes(400000)
    sender = threading.Thread(target=one.sendall, args=(want,))
    sender.start()
    sender.join(0.3)
    got = receive(one, len(want))
    sender.join()
    one.shutdown(socket.SHUT_WR)
    return "echoed" if got == want and ending(one) == "end" else "cut"


def hang_up(index, rng):
    """The server closes though there is more to read: a reset."""
    one = connect(b"h")
    one.sendall(rng.randbytes(500))
    return ending(one)


def total(index, rng):
    """The server reads all there is, answers and closes: an orderly end."""
    one = connect(b"s")
    sent = rng.randbytes(1000)
    for at in range(0, 1000, 250):
        one.sendall(sent[at : at + 250])
    value = 0
    for byte in sent:
        value = (value * 31 + byte) % 2**32
    answer = receive(one, len(str(value)))
    return ("right" if answer == str(value).encode() else "wrong") + " " + ending(one)


def reset(index, rng):
    """Vanishes in the middle."""
    one = connect(b"e")
    one.sendall(rng.randbytes(rng.choice([10, 3000])))
    if index % 2:
        receive(one, 5)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()
    return "gone"


def run(kind, index):
    try:
        result = kind(index, random.Random(index))
    except OSError as error:
        result = repr(error)
    with lock:
        results.append(f"{kind.__name__} {result}")


kinds = [echo, echo, echo, hang_up, total, reset] + ([] if WAITS else [slow])
threads = [threading.Thread(target=run, args=(kind, i)) for i in range(4) for kind in kinds]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(sorted(results)))
