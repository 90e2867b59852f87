# SPDX-License-Identifier: Apache-2.0
"""What a redis-server is asked and answers in, RESP2; for system tests and the benchmark."""


class ErrorReply(Exception):
    """The server said that it would not, or ended, or said something else than RESP2."""


def encoded(words):
    """One request of `words`: bytes as they are, anything else as its text."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


def reply(file):
    """The next answer from a connection's file: bytes, None, a number, or a list of such."""
    line = file.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":
        size = int(rest)
        return None if size < 0 else file.read(size + 2)[:-2]
    if kind == b"*":
        return [reply(file) for _ in range(int(rest))]
    if kind == b":":
        return int(rest)
    if kind == b"+":
        return rest
    raise ErrorReply(f"answer {line[:80]!r}")
