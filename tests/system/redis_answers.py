#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a redis-server and compares every answer with what a model of the data expects.

redis_answers.py PORT WORKLOAD REQUESTS [SEED]: `mixed` does everything a guide looks ahead for, in
random order and in pipelines, while keys come, grow, change their encoding and go. The others fill
the server with one kind of data, scattered over its heap as in a used server, and read that. Ends
the server, prints how many answers were right, or fails at the first wrong one.
"""
import pathlib
import random
import socket
import sys
import time

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import resp

BLOCK = random.Random(11).randbytes(1 << 20)


def value(rng, size):
    """`size` bytes that do not compress and are cheap to make."""
    start = rng.randrange(len(BLOCK) - size)
    return BLOCK[start : start + size]


class Client:
    """One connection that speaks RESP2; ask() checks an answer, pipelines check many."""

    def __init__(self, port, patience=120):
        deadline = time.monotonic() + patience
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), 300)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 18)
        self.answers = 0

    def send(self, *words):
        self.socket.sendall(resp.encoded(words))

    def pipeline(self, requests):
        self.socket.sendall(b"".join(resp.encoded(words) for words in requests))
        try:
            return [resp.reply(self.file) for _ in requests]
        except resp.ErrorReply as error:
            raise SystemExit("redis_answers: %s" % error) from None

    def ask(self, *words):
        return self.pipeline([words])[0]

    def check(self, requests, expected):
        """Sends all at once. `expected`: for each what it is compared with, or a function."""
        for words, got, want in zip(requests, self.pipeline(requests), expected):
            right = want(got) if callable(want) else got == want
            if not right:
                raise SystemExit(
                    "redis_answers: %s answered %.200r, not %.200r" % (words[:4], got, want)
                )
            self.answers += 1


def pairs(answer):
    return dict(zip(answer[::2], answer[1::2]))


def same_pairs(want):
    return lambda got: len(got) == 2 * len(want) and pairs(got) == want


def same_set(want):
    return lambda got: len(got) == len(want) and set(got) == want


def ranked(scores, reverse=False):
    return sorted(scores, key=lambda member: (scores[member], member), reverse=reverse)


class Mixed:
    """Every kind of key, in small and large encodings, changed and read at random."""

    KEYS = 12  # of each kind
    LARGE = 900

    def __init__(self, client, rng):
        self.client, self.rng = client, rng
        self.strings, self.lists, self.hashes, self.sets, self.scores = {}, {}, {}, {}, {}

    def member(self, limit=LARGE):
        return b"member:%d" % self.rng.randrange(limit)

    def write_string(self):
        key = b"s:%d" % self.rng.randrange(self.KEYS * 100)
        self.strings[key] = value(self.rng, self.rng.randrange(4096, 65536))
        return ("SET", key, self.strings[key]), b"OK"

    def drop_string(self):
        key = b"s:%d" % self.rng.randrange(self.KEYS * 100)
        return ("DEL", key), int(self.strings.pop(key, None) is not None)

    def read_string(self):
        key = b"s:%d" % self.rng.randrange(self.KEYS * 100)
        return ("GET", key), self.strings.get(key)

    def read_strings(self):
        keys = [b"s:%d" % self.rng.randrange(self.KEYS * 100) for _ in range(8)]
        return ("MGET", *keys), [self.strings.get(key) for key in keys]

    def write_list(self):
        key = b"l:%d" % self.rng.randrange(self.KEYS)
        elements = [value(self.rng, 300) for _ in range(20)]
        self.lists.setdefault(key, []).extend(elements)
        return ("RPUSH", key, *elements), len(self.lists[key])

    def read_list(self):
        key = b"l:%d" % self.rng.randrange(self.KEYS)
        start, count = self.rng.randrange(-300, 300), self.rng.randrange(1, 200)
        data = self.lists.get(key, [])
        first = max(start + len(data), 0) if start < 0 else start
        end = first + count - 1
        return ("LRANGE", key, first, end), data[first : end + 1]

    def write_hash(self):
        """The last third of the keys stays small: one block."""
        number = self.rng.randrange(self.KEYS)
        key, small = b"h:%d" % number, number >= self.KEYS * 2 // 3
        size = self.rng.randrange(8, 60) if small else self.rng.choice([40, 100, 100, 1500])
        fields = {self.member(60 if small else self.LARGE): value(self.rng, size)}
        for _ in range(0 if small else 15):
            fields[self.member()] = value(self.rng, size)
        old = self.hashes.setdefault(key, {})
        added = len(fields.keys() - old.keys())
        old.update(fields)
        return ("HSET", key, *[word for field in fields.items() for word in field]), added

    def drop_field(self):
        key, field = b"h:%d" % self.rng.randrange(self.KEYS), self.member()
        gone = self.hashes.get(key, {}).pop(field, None) is not None
        return ("HDEL", key, field), int(gone)

    def read_hash(self):
        data = dict(self.hashes.get(key := b"h:%d" % self.rng.randrange(self.KEYS), {}))
        return self.rng.choice(
            [
                (("HGETALL", key), same_pairs(data)),
                (("HKEYS", key), same_set(set(data))),
                (("HVALS", key), lambda got, want=sorted(data.values()): sorted(got) == want),
            ]
        )

    def write_set(self):
        number = self.rng.randrange(self.KEYS)
        key = b"n:%d" % number
        if number < self.KEYS // 3:  # numbers: an intset as long as there are few
            members = {b"%d" % self.rng.randrange(1 << 40) for _ in range(20)}
        else:
            members = {self.member(2000) for _ in range(20)}
        old = self.sets.setdefault(key, set())
        added = len(members - old)
        old |= members
        return ("SADD", key, *members), added

    def drop_member(self):
        key, member = b"n:%d" % self.rng.randrange(self.KEYS), self.member(2000)
        gone = member in self.sets.get(key, set())
        self.sets.get(key, set()).discard(member)
        return ("SREM", key, member), int(gone)

    def read_set(self):
        key = b"n:%d" % self.rng.randrange(self.KEYS)
        return ("SMEMBERS", key), same_set(set(self.sets.get(key, set())))

    def write_scores(self):
        number = self.rng.randrange(self.KEYS)
        key, small = b"z:%d" % number, number >= self.KEYS * 2 // 3
        old = self.scores.setdefault(key, {})
        fresh = {self.member(100 if small else 3000): self.rng.randrange(5000) for _ in range(12)}
        added = len(fresh.keys() - old.keys())
        old.update(fresh)
        words = [word for member in fresh for word in (fresh[member], member)]
        return ("ZADD", key, *words), added

    def read_scores(self):
        key = b"z:%d" % self.rng.randrange(self.KEYS)
        data = self.scores.get(key, {})
        start, count = self.rng.randrange(0, 400), self.rng.randrange(1, 300)
        least = self.rng.randrange(5000)
        most = least + self.rng.randrange(1500)
        up, down = ranked(data), ranked(data, True)
        inside = [member for member in up if least <= data[member] < most]
        return self.rng.choice(
            [
                (("ZRANGE", key, start, start + count - 1), up[start : start + count]),
                (("ZREVRANGE", key, start, start + count - 1), down[start : start + count]),
                (("ZRANGEBYSCORE", key, least, "(%d" % most), inside),
                (("ZREVRANGEBYSCORE", key, "(%d" % most, least), inside[::-1]),
                (
                    ("ZRANGEBYSCORE", key, least, "(%d" % most, "LIMIT", 5, 30),
                    inside[5:35],
                ),
            ]
        )

    def drop_key(self):
        """Whole keys go now and then, so that they are small again afterwards."""
        kind = self.rng.choice(["lists", "hashes", "sets", "scores"])
        letter = {"lists": b"l", "hashes": b"h", "sets": b"n", "scores": b"z"}[kind]
        key = letter + b":%d" % self.rng.randrange(self.KEYS)
        there = bool(getattr(self, kind).pop(key, None))
        return ("UNLINK", key), int(there)

    WRITES = ["write_string", "write_list", "write_hash", "write_set", "write_scores"]
    DROPS = ["drop_string", "drop_field", "drop_member"]
    READS = ["read_string"] * 3 + ["read_strings", "read_list", "read_hash", "read_set"]
    READS += ["read_scores"] * 2

    def batch(self, kinds, count):
        requests, expected = [], []
        for _ in range(count):
            words, want = getattr(self, self.rng.choice(kinds))()
            requests.append(words)
            expected.append(want)
        self.client.check(requests, expected)

    def scan(self, command, key, present, change):
        """All that is there all the time is found, though other members come and go meanwhile."""
        found, cursor, ever = set(), b"0", set(present)
        while True:
            cursor, part = self.client.ask(command, key, cursor, "COUNT", 50)
            found |= set(part[::2] if command in ("HSCAN", "ZSCAN") else part)
            if cursor == b"0":
                break
            ever.add(change())
        if not present <= found <= ever:
            raise SystemExit("redis_answers: %s of %s missed or invented members" % (command, key))
        self.client.answers += 1

    def scans(self):
        """Members are added during each scan, so that the table grows and is rehashed."""
        number = self.rng.randrange(self.KEYS)

        def add_field():
            field = b"new:%d" % self.rng.randrange(10**9)
            self.client.ask("HSET", b"h:%d" % number, field, "x")
            self.hashes.setdefault(b"h:%d" % number, {})[field] = b"x"
            return field

        def add_member():
            member = b"new:%d" % self.rng.randrange(10**9)
            self.client.ask("SADD", b"n:%d" % number, member)
            self.sets.setdefault(b"n:%d" % number, set()).add(member)
            return member

        def add_score():
            member = b"new:%d" % self.rng.randrange(10**9)
            self.client.ask("ZADD", b"z:%d" % number, 7, member)
            self.scores.setdefault(b"z:%d" % number, {})[member] = 7
            return member

        self.scan("HSCAN", b"h:%d" % number, set(self.hashes.get(b"h:%d" % number, ())), add_field)
        self.scan("SSCAN", b"n:%d" % number, set(self.sets.get(b"n:%d" % number, ())), add_member)
        self.scan("ZSCAN", b"z:%d" % number, set(self.scores.get(b"z:%d" % number, ())), add_score)

    def run(self, requests):
        while len(self.strings) < self.KEYS * 70:
            self.batch(["write_string"], 16)
        for _ in range(24):
            self.batch(self.WRITES[1:], 64)
        done = 0
        while done < requests:
            depth = self.rng.choice([1, 16, 32, 64])
            kinds = self.rng.choice([self.READS, self.READS + self.WRITES + self.DROPS])
            self.batch(kinds + ["drop_key"] * (self.rng.random() < 0.2), depth)
            done += depth
            if self.rng.random() < 0.25:
                self.scans()


class Reads:
    """One kind of data, all of it loaded and then read by one kind of request."""

    KEYS, STEPS, FIELDS, BYTES = 150, 10, 20, 480

    def __init__(self, client, rng):
        self.client, self.rng = client, rng

    def field(self, key, number):
        place = (key * 7919 + number * 104729) % (len(BLOCK) - self.BYTES)
        return b"field:%d" % number, BLOCK[place : place + self.BYTES]

    def member(self, key, number):
        return b"%d:%d:" % (key, number) + self.field(key, number)[1]

    def step_numbers(self, step):
        return range(step * self.FIELDS, (step + 1) * self.FIELDS)

    def fill(self, key, step):
        """The request that adds one step's elements to a key."""
        raise NotImplementedError

    def load(self):
        """Adds to all keys in turn, so that what belongs to one key lies apart."""
        for step in range(self.STEPS):
            for first in range(0, self.KEYS, 32):
                keys = range(first, min(first + 32, self.KEYS))
                self.client.pipeline([self.fill(key, step) for key in keys])

    def request(self, rng):
        """Requests that are sent together, and what they should answer."""
        raise NotImplementedError

    def run(self, requests):
        self.load()
        while self.client.answers < requests:
            self.client.check(*self.request(self.rng))


class Strings(Reads):
    """GETs in pipelines of 32."""

    KEYS = 1100

    def load(self):
        self.data = [
            value(self.rng, self.rng.randrange(4096, 65536)) for _ in range(min(self.KEYS, 4096))
        ]
        for key in range(self.KEYS):
            self.client.ask("SET", "s:%d" % key, self.data[key % len(self.data)])

    def request(self, rng):
        keys = [rng.randrange(self.KEYS) for _ in range(32)]
        wanted = [self.data[key % len(self.data)] for key in keys]
        return [("GET", "s:%d" % key) for key in keys], wanted


class Hashes(Reads):
    """HGETALL of hashes in hash tables."""

    def fill(self, key, step):
        fields = [self.field(key, number) for number in self.step_numbers(step)]
        return ("HSET", "h:%d" % key, *[word for field in fields for word in field])

    def request(self, rng):
        key = rng.randrange(self.KEYS)
        want = dict(self.field(key, number) for number in range(self.STEPS * self.FIELDS))
        return [("HGETALL", "h:%d" % key)], [same_pairs(want)]


class Sets(Reads):
    """SMEMBERS of sets in hash tables."""

    def fill(self, key, step):
        return ("SADD", "n:%d" % key, *[self.member(key, i) for i in self.step_numbers(step)])

    def request(self, rng):
        key = rng.randrange(self.KEYS)
        want = {self.member(key, number) for number in range(self.STEPS * self.FIELDS)}
        return [("SMEMBERS", "n:%d" % key)], [same_set(want)]


class Scores(Reads):
    """ZRANGE of sorted sets in skiplists, added to in no order."""

    @staticmethod
    def score(number):
        return number * 7919 % 100003

    def fill(self, key, step):
        words = []
        for number in self.step_numbers(step):
            words += [self.score(number), self.member(key, number)]
        return ("ZADD", "z:%d" % key, *words)

    def request(self, rng):
        count = self.STEPS * self.FIELDS
        key, start = rng.randrange(self.KEYS), rng.randrange(count // 2)
        order = sorted(range(count), key=self.score)[start : start + 80]
        want = [self.member(key, number) for number in order]
        return [("ZRANGE", "z:%d" % key, start, start + 79)], [want]


class Lists(Reads):
    """LRANGE of lists whose nodes lie apart."""

    KEYS, STEPS, RANGE = 60, 40, 300

    def fill(self, key, step):
        return ("RPUSH", "l:%d" % key, *[self.member(key, i) for i in self.step_numbers(step)])

    def request(self, rng):
        key, start = rng.randrange(self.KEYS), rng.randrange(self.STEPS * self.FIELDS // 2)
        want = [self.member(key, number) for number in range(start, start + self.RANGE)]
        return [("LRANGE", "l:%d" % key, start, start + self.RANGE - 1)], [want]


class Nodes(Lists):
    """Lists that grew together, one element in a node: nodes are a large part, and lie far apart."""

    KEYS, STEPS, FIELDS, RANGE = 150, 100, 2, 100

    def load(self):
        self.client.ask("CONFIG", "SET", "list-max-listpack-size", 1)
        super().load()


WORKLOADS = {
    "mixed": Mixed,
    "get": Strings,
    "hgetall": Hashes,
    "smembers": Sets,
    "zrange": Scores,
    "lrange": Lists,
    "nodes": Nodes,
}


def main():
    port, name, requests = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    client = Client(port)
    WORKLOADS[name](client, random.Random(seed)).run(requests)
    client.send("SHUTDOWN", "NOSAVE")
    print("redis_answers: %d answers were right" % client.answers)


if __name__ == "__main__":
    main()
