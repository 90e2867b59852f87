#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Servers and tools beyond those of network.sh and programs.sh: what people try first. Installing some
# of them starts a service, which no test should do to a host: their cases are there where they are.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

HERE=127.0.0.1
PATH=$PATH:/usr/sbin

is_installed() {
    command -v "$1" >/dev/null
}

# listening PORT: does somebody accept connections there?
listening() {
    python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$1" 2>/dev/null
}

# start_server LOCAL PROGRAM...: in a guest with 256 MiB of memory, on PORT; its end is stop_server's.
start_server() {
    local share=$1
    shift
    (exec timeout --foreground -k 2 "$((CASE_TIMEOUT - 5))" "$FARVISOR" run --memory 256M --local "$share" --stats stats \
        --net host --publish "$HERE:$PORT" --publish "$HERE:$PORT/udp" -- "$@") >guest.out 2>guest.err &
    GUEST_PID=$!
    at_exit "end_process $GUEST_PID"
    wait_until $((5 * TIME_FACTOR)) listening "$PORT" || fail "did not start: $(tail -n 3 guest.out guest.err)"
}

# stop_server SIGNAL: as an administrator does, who expects status 0.
stop_server() {
    kill "-$1" "$GUEST_PID"
    wait "$GUEST_PID" || fail "ended badly, with $?: $(tail -n 3 guest.out guest.err)"
}

# More than is here, over four connections at once to four threads.
! is_installed memcached || test_memcached() {
    local requests fetched
    PORT=$(free_port)
    start_server 32M memcached -u "$(id -un)" -t 4 -m 128 -l $HERE -p "$PORT" -U 0
    requests=$(timeout $((30 * TIME_FACTOR)) python3 "$SYSTEM_DIR/data/memcached_client.py" "$PORT" 66 2>client.err) ||
        fail "$(tail -n 2 client.err guest.err)"
    stop_server TERM
    fetched=$(stat_of stats paging fetched_bytes)
    [ "$fetched" -gt $((32 << 20)) ] || fail "only $fetched bytes were fetched"
    note "$requests requests, $(stat_of stats vcpus hypercalls) hypercalls"
}

! is_installed memcached || test_memcached_over_udp() {
    PORT=$(free_port)
    start_server 32M memcached -u "$(id -un)" -t 4 -m 64 -l $HERE -p "$PORT" -U "$PORT"
    timeout $((20 * TIME_FACTOR)) python3 -c '
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.connect(("127.0.0.1", int(sys.argv[1])))
one.settimeout(30)
for i in range(50):
    for asked, told in (b"set k%d 0 0 3\r\nv%02d\r\n" % (i, i), b"STORED\r\n"), (
        b"get k%d\r\n" % i, b"VALUE k%d 0 3\r\nv%02d\r\nEND\r\n" % (i, i)):
        one.send(b"\0%c\0\0\0\1\0\0" % i + asked)
        assert one.recv(2000)[8:] == told, (asked, told)' "$PORT" 2>client.err ||
        fail "$(tail -n 2 client.err guest.err)"
    stop_server TERM
}

# Fifty kept connections at once: a file by sendfile, and one that other threads read.
! is_installed nginx || test_nginx() {
    local path
    PORT=$(free_port)
    mkdir -p www/aio && seq 1 2000 >www/numbers && seq 1 30000 >www/aio/large
    cat >nginx.conf <<END
daemon off; master_process off; error_log stderr; pid nginx.pid;
events { worker_connections 256; }
http {
    access_log off; sendfile on; tcp_nopush on; keepalive_timeout 600;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server { listen $HERE:$PORT; root www; location /aio/ { aio threads; sendfile off; output_buffers 2 64k; } }
}
END
    start_server 16M nginx -p . -c "$PWD/nginx.conf" -e stderr
    for path in numbers aio/large; do
        timeout $((30 * TIME_FACTOR)) python3 "$SYSTEM_DIR/data/http_clients.py" "$PORT" 50 2 "$path" >/dev/null 2>client.err ||
            fail "$path: $(tail -n 2 client.err guest.err)"
    done
    stop_server QUIT
}

# Its jobs are threads that find each other in System V shared memory.
test_fio() {
    local engine
    requires fio
    for engine in psync mmap; do
        expect_status 0 far --memory 512M --local 64M -- fio --thread --minimal --name=job --ioengine=$engine --rw=randrw \
            --size=1M --bs=4k --numjobs=2 --verify=crc32c "--filename_format=file.\$jobnum"
        # shellcheck disable=SC2016 # awk's: name of the job, its error
        [ "$(awk -F';' '$3 == "job" && $5 == 0' out | wc -l)" = 2 ] || fail "$engine: $(head -c 300 out err)"
    done
}

# as_user COMMAND...: as somebody who may open /dev/kvm; the server refuses to be root's.
as_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_override --ambient-caps +dac_override "$@"
    else
        "$@"
    fi
}

# It waits for its latches by signalfd. Tables beyond what is here, and the answers as natively.
POSTGRES=/usr/lib/postgresql/15/bin
! is_installed $POSTGRES/postgres || test_postgres_single() {
    mkdir pg && chmod 777 . pg
    as_user $POSTGRES/initdb --no-sync -A trust -U postgres -D pg/data >initdb.log 2>&1 || fail "initdb: $(tail -n 3 initdb.log)"
    cp -a pg/data pg/native
    cat >queries <<END
create table numbers as select n, md5(n::text) as text from generate_series(1, 20000) n;
create index on numbers (text);
select count(*), sum(n), min(text), max(text) from numbers;
select n from numbers where text = md5('777');
select pg_sleep(0.2);
vacuum numbers;
delete from numbers where n % 2 = 0;
select count(*), sum(n) from numbers;
END
    as_user $POSTGRES/postgres --single -D pg/native postgres <queries >native.out 2>native.err || fail "natively: $(tail -n 3 native.err)"
    expect_status 0 as_user "$FARVISOR" run --memory 512M --local 32M --dir pg:rw -- \
        $POSTGRES/postgres --single -D pg/data postgres <queries
    diff native.out out >&2 || fail "other answers than natively: $(tail -n 3 err)"
    grep -q 'count = "10000"' out || fail "no answer: $(cat out err)"
}

system_main "$@"
