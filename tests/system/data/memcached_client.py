# SPDX-License-Identifier: Apache-2.0
"""Stores MIB mebibytes in a memcached over four connections at once, reads them back twice in another
order, and says how many requests that were: memcached_client.py PORT MIB"""

import hashlib
import socket
import sys
import threading

CONNECTIONS, VALUE_BYTES = 4, 32768
failures = []


def value_of(connection, number):
    seed = hashlib.sha256(b"%d %d" % (connection, number)).digest()
    return seed * (VALUE_BYTES // len(seed))


def expect(stream, wanted):
    got = stream.read(len(wanted))
    assert got == wanted, (got[:60], wanted[:60])


def talk(port, connection, count):
    stream = socket.create_connection(("127.0.0.1", port)).makefile("rwb")
    for number in range(count):
        stream.write(b"set %d-%d 7 0 %d\r\n" % (connection, number, VALUE_BYTES))
        stream.write(value_of(connection, number) + b"\r\n")
        stream.flush()
        expect(stream, b"STORED\r\n")
    for step in (1, 7):
        for i in range(count):
            number = i * step % count if count % step else i
            stream.write(b"get %d-%d\r\n" % (connection, number))
            stream.flush()
            expect(stream, b"VALUE %d-%d 7 %d\r\n" % (connection, number, VALUE_BYTES))
            expect(stream, value_of(connection, number) + b"\r\nEND\r\n")
    stream.write(b"incr none 1\r\n")
    stream.flush()
    expect(stream, b"NOT_FOUND\r\n")


def talk_and_tell(*arguments):
    try:
        talk(*arguments)
    except BaseException as error:  # the thread's end is not the program's
        failures.append(repr(error))
        raise


def main():
    port, mib = int(sys.argv[1]), int(sys.argv[2])
    count = mib * (1 << 20) // VALUE_BYTES // CONNECTIONS
    threads = [
        threading.Thread(target=talk_and_tell, args=(port, connection, count))
        for connection in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(failures[0])
    print(CONNECTIONS * (3 * count + 1))


main()
