# SPDX-License-Identifier: Apache-2.0
"""A file system (FUSE) with one file, `file`, a page long, whose contents never come.

hung_file.py DIRECTORY: mounts it there and serves it until it is ended. Prints `mounted`, and
`read` when somebody waits. What waits then waits until the server ends, whoever kills it.
"""
import ctypes
import os
import struct
import sys

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ = 1, 2, 3, 4, 14, 15
RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 18, 25, 26, 27, 28, 29
ACCESS, INTERRUPT, BATCH_FORGET = 34, 36, 42
NO_REPLY = (FORGET, READ, INTERRUPT, BATCH_FORGET)
ROOT, FILE = 1, 2
IN_HEADER = "<IIQQ"  # length, operation, request, node; more follows
VALID_S = 100
MAX_BYTES = 1 << 18
ENOENT, ENOSYS = 2, 38


def attributes(node):
    mode, size = (0o40755, 0) if node == ROOT else (0o100666, 4096)
    return struct.pack("<6Q10I", node, size, size // 512, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)


def answer(operation, node, argument):
    """Error number and data."""
    if operation == INIT:
        return 0, struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 12, 9, 65536, 1, *[0] * 10)
    if operation == LOOKUP:
        if argument.rstrip(b"\0") != b"file":
            return ENOENT, b""
        return 0, struct.pack("<4Q2I", FILE, 0, VALID_S, VALID_S, 0, 0) + attributes(FILE)
    if operation in (GETATTR, SETATTR):
        return 0, struct.pack("<Q2I", VALID_S, 0, 0) + attributes(node)
    if operation in (OPEN, OPENDIR):
        return 0, struct.pack("<Q2I", 1, 0, 0)
    if operation in (READDIR, RELEASE, RELEASEDIR, FLUSH, ACCESS):
        return 0, b""
    return ENOSYS, b""


device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"hung", sys.argv[1].encode(), b"fuse", 0, options.encode()):
    sys.exit("mount: " + os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
while True:
    message = os.read(device, MAX_BYTES)
    _, operation, request, node = struct.unpack_from(IN_HEADER, message)
    if operation == READ:
        print("read", flush=True)
    if operation not in NO_REPLY:
        error, data = answer(operation, node, message[40:])
        os.write(device, struct.pack("<IiQ", 16 + len(data), -error, request) + data)
