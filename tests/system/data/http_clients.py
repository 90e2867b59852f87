# SPDX-License-Identifier: Apache-2.0
"""Asks a web server for one file over many connections that are kept, all at once, turn after turn, and
compares each answer with the file itself, below www: http_clients.py PORT CONNECTIONS TURNS FILE"""

import socket
import sys


def answer(stream):
    assert stream.readline().split()[1] == b"200"
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, value = line.lower().split(b":", 1)
        if name == b"content-length":
            length = int(value)
    return stream.read(length)


def main():
    port, connections, turns = map(int, sys.argv[1:4])
    path = sys.argv[4]
    with open("www/" + path.replace("nosf/", ""), "rb") as file:
        wanted = file.read()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    streams = [client.makefile("rb") for client in clients]
    for _ in range(turns):
        for client in clients:
            client.settimeout(60)
            client.sendall(b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n" % path.encode())
        for stream in streams:
            got = answer(stream)
            assert got == wanted, (len(got), len(wanted))
    print(connections * turns)


main()
