# SPDX-License-Identifier: Apache-2.0
"""Writes COUNT reproducible records of SIZE bytes (64 and more): a key of 10 printable bytes, the
record's number, filling, newline: the sort benchmark's form (sortbenchmark.org, gensort -a, 100
bytes) with longer filling."""
import random
import sys

left, size = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(4711)
printable = bytes(range(32, 127))
keys = bytes(printable[i % 95] for i in range(256))
number = 0
while left > 0:
    batch = min(left, 10000)
    random_bytes = rng.randbytes(10 * batch).translate(keys)
    for i in range(batch):
        key = random_bytes[10 * i : 10 * i + 10]
        filling = (b"%04X" % (number % 65536) * (size // 4))[: size - 47]
        sys.stdout.buffer.write(b"%b  %032X  %b\n" % (key, number, filling))
        number += 1
    left -= batch
