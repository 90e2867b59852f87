#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Networking: off unless asked for, listening and connecting only where granted, and then real
# servers and clients in a guest against real ones outside. Everything stays on this host.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

HERE=127.0.0.1

# listening PORT: does somebody accept connections there?
listening() {
    python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$1" 2>/dev/null
}

# start_guest OPTION... -- PROGRAM...: in the background; GUEST_PID, output in guest.out, guest.err.
start_guest() {
    far "$@" >guest.out 2>guest.err &
    GUEST_PID=$!
    at_exit "end_process $GUEST_PID"
}

# start_http: a web server outside, HTTP_PORT.
start_http() {
    HTTP_PORT=$(free_port)
    mkdir -p www && seq 1 20000 >www/numbers
    python3 -m http.server "$HTTP_PORT" --bind $HERE --directory www >/dev/null 2>&1 &
    at_exit "end_process $!"
    wait_until 10 listening "$HTTP_PORT" || fail 'the web server did not start'
}

test_is_off_by_default() {
    expect_status 0 far -- python3 -c '
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        socket.socket(family)
        print("made")
    except OSError as error:
        print(error.errno)'
    [ "$(tr '\n' ' ' <out)" = '97 97 ' ] || fail "not EAFNOSUPPORT: $(cat out)"
    expect_stderr "networking is off: the program's sockets other than AF_UNIX are refused$"
}

test_messages_of_many_pieces_stay_whole() {
    local mode
    for mode in on off; do
        expect_status 0 far --polling $mode -- python3 -c '
import os, socket
pieces = [b"%04d" % i for i in range(300)]
for kind in socket.SOCK_DGRAM, socket.SOCK_SEQPACKET:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    for count in one.sendmsg(pieces), os.writev(one.fileno(), pieces):
        print(count, other.recv(4096) == b"".join(pieces))'
        [ "$(sort -u out)" = '1200 True' ] || fail "polling $mode: $(cat out err)"
    done
}

test_recvmmsg_tells_who_sent() {
    local port mode
    port=$(free_port)
    for mode in on off; do
        expect_status 0 far --memory 256M --local 16M --polling $mode --net host --publish "$HERE:$port/udp" \
            --allow-connect "$HERE:$port" -- "$GUESTS/recvmmsg" "$port"
        grep -qx 'recvmmsg: ok' out || fail "polling $mode: $(cat out err)"
    done
}

test_kicks_elsewhere_cut_nothing_short() {
    local port mode
    port=$(free_port)
    for mode in on off; do
        expect_status 0 far --memory 256M --local 16M --polling $mode --net host --publish "127.0.0.1:$port" \
            --allow-connect "127.0.0.1:$port" -- "$GUESTS/kicks_elsewhere" "$port"
        grep -qx 'kicks_elsewhere: ok' out || fail "polling $mode: $(cat out err)"
    done
}

# For root the host would load any module of that name.
test_congestion_control_is_chosen_among_the_hosts() {
    local before after
    before=$(cat /proc/sys/net/ipv4/tcp_available_congestion_control)
    expect_status 0 far --net host -- python3 -c '
import socket
for name in b"reno", b"vegas_no_such", b"":
    one = socket.socket()
    try:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        print(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).strip(b"\0").decode())
    except OSError as error:
        print(error.errno)'
    [ "$(tr '\n' ' ' <out)" = 'reno 2 22 ' ] || fail "$(cat out)"
    after=$(cat /proc/sys/net/ipv4/tcp_available_congestion_control)
    [ "$before" = "$after" ] || fail "the host has another one now: $after"
}

test_options_are_refused() {
    local value
    for value in '' 0 65536 x 1: :1: 300.0.0.1:5 name:5 1/icmp '[::1' '[::1]5'; do
        expect_status 125 "$FARVISOR" run --net host --publish "$value" true
        head -n 1 err | grep -q -- '--publish .*: not of the form' || fail "--publish '$value': $(cat err)"
    done
    for value in '' h:0 :65536 '[::1'; do
        expect_status 125 "$FARVISOR" run --net host --allow-connect "$value" true
        head -n 1 err | grep -q -- '--allow-connect .*: not of the form' || fail "'$value': $(cat err)"
    done
    expect_status 125 "$FARVISOR" run --net host --allow-connect no-such-host.invalid:1 true
    head -n 1 err | grep -q -- '--allow-connect no-such-host.invalid:1: no-such-host.invalid: ' || fail "$(cat err)"
    expect_status 125 "$FARVISOR" run --net bridge true
    head -n 1 err | grep -q -- '--net bridge: unknown mode (none or host)$' || fail "$(cat err)"
    expect_status 125 "$FARVISOR" run --publish 80 true
    head -n 1 err | grep -q -- '--publish needs --net host$' || fail "$(cat err)"
    expect_status 0 "$FARVISOR" run --net host --publish '[::1]:80' --publish $HERE:53/udp --allow-connect :443 \
        --dump-config true
    for value in 'publish=\[::1\]:80' "publish=$HERE:53/udp" 'connect=\*:443'; do
        grep -qx "$value" out || fail "no $value: $(cat out)"
    done
}

test_published_port_in_use_is_said_at_once() {
    start_http
    expect_status 125 far --net host --publish "$HERE:$HTTP_PORT" -- /bin/true
    expect_stderr "^farvisor: --publish $HERE:$HTTP_PORT: Address already in use$"
    expect_status 125 far --net host --publish "$HTTP_PORT" -- /bin/true
    expect_stderr "^farvisor: --publish 0.0.0.0:$HTTP_PORT: Address already in use$"
}

test_listens_only_where_published() {
    local port
    port=$(free_port)
    expect_status 0 far --net host --publish "$HERE:$port" -- python3 -c '
import errno, socket, sys
port = int(sys.argv[1])
def refused(what, code):
    try:
        what()
    except OSError as error:
        assert error.errno == code, error
        return
    raise AssertionError("was allowed")
refused(lambda: socket.socket().bind(("127.0.0.1", port + 1)), errno.EACCES)
refused(lambda: socket.socket().bind(("127.0.0.2", port)), errno.EACCES)
refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", port)), errno.EACCES)
refused(lambda: socket.socket().listen(), errno.EACCES)
chosen = socket.socket()
chosen.bind(("127.0.0.1", 0))
refused(lambda: chosen.listen(), errno.EACCES)
refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), errno.EPERM)
refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM), errno.EAFNOSUPPORT)
wildcard = socket.socket()
wildcard.bind(("0.0.0.0", port))
assert wildcard.getsockname() == ("127.0.0.1", port), wildcard.getsockname()
wildcard.listen()
print("ok")' "$port"
    [ "$(cat out)" = ok ] || fail "$(cat out err)"
    expect_stderr 'network: 127.0.0.1:[0-9]+: the program may not listen there \(--publish\)$'
}

test_connects_only_where_allowed() {
    start_http
    local other code='
import http.client, socket, sys
port, other = int(sys.argv[1]), int(sys.argv[2])
connection = http.client.HTTPConnection("localhost", port)
connection.request("GET", "/numbers")
print(connection.getresponse().read().decode() == "".join(f"{i}\n" for i in range(1, 20001)))
for address in ("127.0.0.1", other), ("127.0.0.2", port), ("0.0.0.0", other):
    try:
        socket.create_connection(address)
        print("connected to", address)
    except OSError as error:
        print(error.errno)
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", other))
    print("sent")
except OSError as error:
    print(error.errno)'
    other=$(free_port)
    expect_status 0 far --net host --allow-connect "localhost:$HTTP_PORT" -- python3 -c "$code" "$HTTP_PORT" "$other"
    [ "$(tr '\n' ' ' <out)" = 'True 13 13 13 13 ' ] || fail "$(cat out err)"
    expect_stderr "network: $HERE:$other: the program may not connect there \(--allow-connect\)$"
}

test_curl_fetches_with_all_memory_here_and_with_little() {
    requires curl
    start_http
    local memory
    for memory in 256M 16M; do
        expect_status 0 far --memory 256M --local $memory --net host --allow-connect "$HERE:$HTTP_PORT" -- \
            curl -sS "http://localhost:$HTTP_PORT/numbers"
        cmp -s out www/numbers || fail "at $memory: other contents: $(head -c 300 err)"
    done
}

# Fifty connections at a time, whose messages come back whole, and a datagram.
echo_clients() {
    python3 -c '
import selectors, socket, sys
port, count = int(sys.argv[1]), 50
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(10)
datagram.sendto(b"datagram", ("127.0.0.1", port))
assert datagram.recv(100) == b"datagram"
clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
for turn in range(20):
    for i, client in enumerate(clients):
        client.sendall(bytes([turn, i]) * (100 + 37 * i))
    for i, client in enumerate(clients):
        want = bytes([turn, i]) * (100 + 37 * i)
        got = b""
        client.settimeout(20)
        while len(got) < len(want):
            part = client.recv(65536)
            assert part, "closed"
            got += part
        assert got == want
for client in clients:
    client.close()
print("echoed")' "$1"
}

test_echo_server_with_many_clients() {
    local port memory polling
    for memory in 256M 16M; do
        for polling in auto on off; do
            port=$(free_port)
            start_guest --memory 256M --local $memory --polling $polling --net host --publish "$port" \
                --publish "$port/udp" -- "$GUESTS/echo_server" "$port" 50
            wait_until 15 grep -q ready guest.out || fail "did not start: $(cat guest.err)"
            [ "$(echo_clients "$port" 2>client.err)" = echoed ] ||
                fail "$memory, polling $polling: $(tail -n 2 client.err guest.err)"
            wait "$GUEST_PID" || fail "server: $(cat guest.err)"
            grep -qx 'echo_server: ok' guest.out || fail "server: $(cat guest.out)"
        done
    done
}

# event_clients PORT HOW...: what the clients of event_server saw.
event_clients() {
    timeout $((60 * ${TIME_FACTOR:-1})) python3 "$REPO/tests/system/data/event_clients.py" "$@" 6 2>clients.err
}

# Reads that the guest kernel answers by itself are those that the host would have answered: against
# slow, vanishing and half-closing peers, with other threads and looks between, as natively.
test_event_server_is_as_natively() {
    local mode memory polling port connections how native used=0 gathered=0
    while read -r memory polling connections mode; do
        read -ra how <<<"$mode"
        port=$(free_port)
        "$GUESTS/event_server" "$port" "$connections" "${how[@]}" >native.out 2>&1 &
        native=$!
        at_exit "end_process $native"
        wait_until 15 grep -q ready native.out || fail "natively: $(cat native.out)"
        event_clients "$port" "${how[@]}" >native || fail "natively: $(tail -n 2 clients.err native.out)"
        wait "$native" || fail "server natively, $mode: $(tail -n 2 native.out)"
        port=$(free_port)
        start_guest --memory 256M --local "$memory" --polling "$polling" --stats stats --net host --publish "$port" \
            -- "$GUESTS/event_server" "$port" "$connections" "${how[@]}"
        wait_until 15 grep -q ready guest.out || fail "did not start: $(cat guest.err)"
        event_clients "$port" "${how[@]}" >guest || fail "$mode: $(tail -n 2 clients.err guest.err)"
        wait "$GUEST_PID" || fail "server, $mode, $memory, polling $polling: $(cat guest.err)"
        diff native guest >difference || fail "$mode, $memory, polling $polling: $(cat difference)"
        used=$((used + $(stat_of stats vcpus reads_ahead_used)))
        gathered=$((gathered + $(stat_of stats vcpus sends_gathered)))
    done <<END
256M auto 28 level nowait
16M off 28 edge nowait
256M on 28 edge nowait
16M auto 24 level wait
END
    [ "$used" -gt 50 ] || fail "only $used reads were answered in the guest"
    [ "$gathered" -gt 20 ] || fail "only $gathered answers were gathered"
    note "$used reads answered in the guest, $gathered answers gathered"
}

# As memcached answers: message by message, of several pieces. The look whether it listens is one of
# the twenty connections.
test_messages_of_a_server_are_gathered() {
    local port gathered
    port=$(free_port)
    start_guest --memory 256M --local 256M --stats stats --net host --publish "$HERE:$port" -- python3 -c '
import select, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
waiting = select.epoll()
waiting.register(listener, select.EPOLLIN)
open_ones, ended = {}, 0
while ended < 20:
    for number, _ in waiting.poll():
        if number == listener.fileno():
            one = listener.accept()[0]
            one.setblocking(False)
            open_ones[one.fileno()] = one
            waiting.register(one, select.EPOLLIN)
            continue
        got = open_ones[number].recv(4096)
        if got:
            open_ones[number].sendmsg([b"<", got, b"", b">"], [], socket.MSG_NOSIGNAL)
        else:
            open_ones.pop(number).close()
            ended += 1' "$port"
    wait_until $((3 * TIME_FACTOR)) listening "$port" || fail "did not start: $(cat guest.err)"
    timeout $((20 * TIME_FACTOR)) python3 -c '
import socket, sys
clients = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(19)]
for turn in range(20):
    for client in clients:
        client.sendall(b"%d" % turn)
    for client in clients:
        assert client.recv(100) == b"<%d>" % turn' "$port" 2>client.err || fail "$(tail -n 2 client.err guest.err)"
    wait "$GUEST_PID" || fail "server: $(cat guest.err)"
    gathered=$(stat_of stats vcpus sends_gathered)
    [ "$gathered" -gt 100 ] || fail "only $gathered of 380 answers were gathered"
    note "$gathered of 380 answers gathered"
}

test_ipv6_loopback() {
    grep -qs ' lo$' /proc/net/if_inet6 || skip 'no IPv6 on this host'
    local port
    port=$(free_port)
    expect_status 0 far --net host --publish "[::1]:$port" --allow-connect "[::1]:$port" -- python3 -c '
import socket, sys, threading
port = int(sys.argv[1])
server = socket.create_server(("::1", port), family=socket.AF_INET6)
client = socket.create_connection(("::1", port))
served, address = server.accept()
assert address[0] == "::1" and client.getpeername()[:2] == ("::1", port)
client.sendall(b"six")
assert served.recv(10) == b"six"
print("ok")' "$port"
    [ "$(cat out)" = ok ] || fail "$(cat out err)"
}

# redis SHARE: Debian's own, driven by its own tools. The server is the same binary as
# redis-check-rdb, and goes by its name; the package redis-server would only start one outside.
redis() {
    local port value
    requires redis-check-rdb redis-benchmark redis-cli
    cp "$(command -v redis-check-rdb)" redis-server
    port=$(free_port)
    start_guest --memory 512M --local "$1" --net host --publish "$HERE:$port" -- \
        ./redis-server --port "$port" --save '' --daemonize no --bind $HERE
    wait_until 20 listening "$port" || fail "did not start: $(tail -n 3 guest.out guest.err)"
    redis-benchmark -p "$port" -t set,get,lpush,mset -n 3000 -c 50 -r 1000 -q >bench.out 2>&1 || fail "$(tail -n 2 bench.out)"
    redis-benchmark -p "$port" -t set,get -n 5000 -c 20 -P 16 -d 1024 -r 100000 -q >bench.out 2>&1 || fail "$(tail -n 2 bench.out)"
    redis-cli -p "$port" set key "$(seq 1 2000)" >/dev/null
    value=$(redis-cli -p "$port" get key)
    [ "$value" = "$(seq 1 2000)" ] || fail "another value came back: ${value:0:60}"
    redis-cli -p "$port" shutdown nosave
    wait "$GUEST_PID" || fail "ended badly: $(tail -n 3 guest.out guest.err)"
}

# Fifty clients that each wait for their answer: the server reads most of what they say, and keeps
# most of what it answers, without leaving the guest: it leaves for epoll_wait, which tells of many.
test_redis_reads_and_answers_without_a_call() {
    local port requests=20000 calls used gathered
    requires redis-check-rdb redis-benchmark redis-cli
    cp "$(command -v redis-check-rdb)" redis-server
    port=$(free_port)
    start_guest --memory 512M --local 512M --net host --publish "$HERE:$port" --stats stats -- \
        ./redis-server --port "$port" --save '' --daemonize no --bind $HERE
    wait_until 20 listening "$port" || fail "did not start: $(tail -n 3 guest.out guest.err)"
    redis-benchmark -p "$port" -t get,set -n $((requests / 2)) -c 50 -r 1000 -q >bench.out 2>&1 || fail "$(tail -n 2 bench.out)"
    redis-cli -p "$port" shutdown nosave
    wait "$GUEST_PID" || fail "ended badly: $(tail -n 3 guest.out guest.err)"
    used=$(stat_of stats vcpus reads_ahead_used)
    gathered=$(stat_of stats vcpus sends_gathered)
    calls=$(($(stat_of stats vcpus posted_calls) + $(stat_of stats vcpus hypercalls)))
    [ "$used" -gt $((requests * 8 / 10)) ] || fail "only $used of $requests requests were read in the guest"
    [ "$gathered" -gt $((requests * 8 / 10)) ] || fail "only $gathered of $requests answers were kept in the guest"
    [ "$calls" -lt $((requests / 2)) ] || fail "$calls calls for $requests requests"
    note "$calls calls for $requests requests, $gathered answers gathered, $(stat_of stats vcpus sends_late) ticks that sent"
}

# With its guide: every element and every byte is the right one, and pages were named.
test_redis_server_with_its_guide() {
    requires redis-check-rdb redis-cli
    timeout $((55 * TIME_FACTOR)) "$REPO/tests/bench/bench.py" --sections redis --cases lrange,get64k,getmix \
        --variants guide --mib 2 --runs 2 --output report >out 2>err || fail "$(tail -n 3 err)"
    awk -F, '/,hinted_pages,/ && $NF > 0 { named++ } /,requests_per_s,/ { rounds++ }
        END { exit named != 3 || rounds != 6 }' report/sections.csv || fail "$(cat report/sections.csv)"
}
test_redis_server_with_all_memory_here() {
    redis 512M
}

# What programs do, over python3-redis: all of it at hand, and a quarter of the 34 MiB that it touches.
test_redis_server_with_a_client_in_python() {
    local port memory fetched
    requires redis-check-rdb redis-cli
    /usr/bin/python3 -c 'import redis' 2>/dev/null || skip 'python3-redis is not installed'
    cp "$(command -v redis-check-rdb)" redis-server
    for memory in 512M 9M; do
        port=$(free_port)
        start_guest --memory 512M --local $memory --net host --publish "$HERE:$port" --stats stats -- \
            ./redis-server --port "$port" --save '' --daemonize no --bind $HERE
        wait_until 20 listening "$port" || fail "did not start: $(tail -n 3 guest.out guest.err)"
        [ "$(timeout $((30 * TIME_FACTOR)) /usr/bin/python3 "$SYSTEM_DIR/data/redis_client.py" "$port" 2>client.err)" = ok ] ||
            fail "at $memory: $(tail -n 2 client.err guest.err)"
        redis-cli -p "$port" shutdown nosave
        wait "$GUEST_PID" || fail "ended badly: $(tail -n 3 guest.out guest.err)"
    done
    fetched=$(stat_of stats paging fetched_bytes)
    [ "$fetched" -gt $((8 << 20)) ] || fail "only $fetched bytes were fetched"
}

test_redis_server_with_a_quarter_of_it() {
    redis 128M
}

CASE_TIMEOUT=${CASE_TIMEOUT:-90}
system_main "$@"
