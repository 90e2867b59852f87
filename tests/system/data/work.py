# SPDX-License-Identifier: Apache-2.0
"""A Python program as they are: threads, json, zlib, regular expressions, hashes, a dict of MIB."""
import collections
import hashlib
import json
import queue
import re
import sys
import threading
import zlib

mib = int(sys.argv[1])


def compress(jobs, results):
    while (job := jobs.get()) is not None:
        data = json.dumps({"job": job, "items": [[i, str(i) * 3] for i in range(2000)]}).encode()
        packed = zlib.compress(data, 6)
        assert zlib.decompress(packed) == data
        results.put((job, len(packed), hashlib.sha256(packed).hexdigest()[:16]))


jobs, results = queue.Queue(), queue.Queue()
threads = [threading.Thread(target=compress, args=(jobs, results)) for _ in range(4)]
for thread in threads:
    thread.start()
for job in range(24):
    jobs.put(job)
for _ in threads:
    jobs.put(None)
for thread in threads:
    thread.join()
for row in sorted(results.get() for _ in range(24))[::6]:
    print(*row)

# About 400 bytes an entry.
table = {f"key-{i:08d}": [i, "v" * 200 + str(i)] for i in range(mib * 2600)}
for i in range(0, len(table), 3):
    table[f"key-{i:08d}"][0] = -i
del_keys = [key for i, key in enumerate(table) if i % 7 == 0]
for key in del_keys:
    del table[key]
print(len(table), sum(value[0] for value in table.values()))
digest = hashlib.md5()
for key in sorted(table)[::97]:
    digest.update(f"{key}{table[key]}".encode())
print(digest.hexdigest())
words = re.findall(r"[a-z]+", " ".join(f"word{i % 50}x" for i in range(20000)))
print(collections.Counter(words).most_common(2), sys.getrecursionlimit())
