# SPDX-License-Identifier: Apache-2.0
"""Writes COUNT reproducible records of the sort benchmark's form: a key of 10 printable bytes, the
record's number, filling, newline; 100 bytes in all (sortbenchmark.org, gensort -a)."""
import random
import sys

rng = random.Random(4711)
printable = bytes(range(32, 127))
keys = bytes(printable[i % 95] for i in range(256))
left, number = int(sys.argv[1]), 0
while left > 0:
    batch = min(left, 10000)
    random_bytes = rng.randbytes(10 * batch).translate(keys)
    for i in range(batch):
        key = random_bytes[10 * i : 10 * i + 10]
        sys.stdout.buffer.write(
            b"%b  %032X  %b\n" % (key, number, b"%04X" % (number % 65536) * 13 + b"0")
        )
        number += 1
    left -= batch
