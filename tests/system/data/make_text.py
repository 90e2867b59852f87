# SPDX-License-Identifier: Apache-2.0
"""Writes MIB of reproducible text: numbered lines of words, some repeated, some rare."""
import random
import sys

rng = random.Random(4711)
words = [
    "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(20000)
]
left = int(sys.argv[1]) << 20
number = 0
while left > 0:
    lines = []
    for _ in range(2000):
        number += 1
        lines.append(f"{rng.randrange(10**9):09d} {' '.join(rng.choices(words, k=8))} {number}\n")
    text = "".join(lines)[:left]
    sys.stdout.write(text)
    left -= len(text)
