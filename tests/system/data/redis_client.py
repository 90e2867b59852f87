#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of redis-server as programs are, with python3-redis: pipelines, transactions that lose a
race, scripts, messages, waiting for a list, streams, scans. Usage: redis_client.py PORT; prints "ok"."""
import hashlib
import sys
import threading

import redis

KEYS = 2000  # of about 9 KiB on average: more than what stays here
POOL = 8  # threads that race


def value(number):
    """Bytes that only this number has, 1 to 17 KiB."""
    return hashlib.sha256(b"%d" % number).digest() * (32 + 512 * (number % 997) // 997)


def pipelines(client):
    """Many values go in and come back, a hundred a round trip."""
    for start in range(0, KEYS, 100):
        with client.pipeline(transaction=False) as batch:
            for number in range(start, start + 100):
                batch.set(f"value:{number}", value(number))
            assert all(batch.execute())
    for start in range(0, KEYS, 100):
        names = [f"value:{number}" for number in range(start, start + 100)]
        for number, got in zip(range(start, start + 100), client.mget(names)):
            assert got == value(number), f"value:{number} is another one"
    assert len(set(client.scan_iter("value:*", count=500))) == KEYS


def transactions(client):
    """Threads add to one number, each after having read it: none is lost."""

    def add(_=None):
        for _turn in range(10):
            client.transaction(increase, "sum")

    def increase(pipe):
        before = int(pipe.get("sum") or 0)
        pipe.multi()
        pipe.set("sum", before + 1)

    threads = [threading.Thread(target=add) for _ in range(POOL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int(client.get("sum")) == POOL * 10, client.get("sum")


def scripts(client):
    """A script runs in the server, by its hash."""
    total = client.register_script(
        "local n = 0 for i = 1, ARGV[1] do n = n + redis.call('rpush', KEYS[1], i) end return n"
    )
    assert total(keys=["numbers"], args=[200]) == 200 * 201 // 2
    assert client.lrange("numbers", 0, -1) == [b"%d" % i for i in range(1, 201)]


def messages(client):
    """What is published arrives, in order, and a list's reader wakes up."""
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("news.*")
    listener.get_message(timeout=20)
    for number in range(100):
        assert client.publish(f"news.{number % 3}", value(number)) == 1
    got = [listener.get_message(timeout=20) for _ in range(100)]
    assert [one["data"] for one in got] == [value(number) for number in range(100)]
    listener.close()
    taken = []
    reader = threading.Thread(target=lambda: taken.append(client.blpop("work", timeout=20)))
    reader.start()
    client.rpush("work", b"item")
    reader.join()
    assert taken == [(b"work", b"item")], taken


def streams(client):
    """A group of readers gets each entry once."""
    client.xgroup_create("log", "readers", id="0", mkstream=True)
    for number in range(100):
        client.xadd("log", {"number": number})
    seen = []
    for reader in ("a", "b"):
        ((_, entries),) = client.xreadgroup("readers", reader, {"log": ">"}, count=50)
        seen += [int(fields[b"number"]) for _, fields in entries]
        assert client.xack("log", "readers", *(entry for entry, _ in entries)) == 50
    assert seen == list(range(100)), seen
    assert client.xpending("log", "readers")["pending"] == 0


def main():
    client = redis.Redis(port=int(sys.argv[1]), socket_timeout=120)
    for part in pipelines, transactions, scripts, messages, streams:
        part(client)
    print("ok")


main()
