#!/bin/bash
set -u
cd /tmp
echo "== hello"
R=$(cd "$(dirname "$0")/../.." && pwd)
export FARVISOR=$R/build/farvisor MEMSERVER=$R/build/memserver
until busybox ping -c1 -W1 "$LAB_PEER" >/dev/null 2>&1; do sleep 0.2; done
echo pinged
time $FARVISOR doctor
time $FARVISOR run /bin/echo hello from npt
echo "$MEMSERVER --listen $LAB_PEER:7470 >/lab/memserver.log 2>&1 &" > /lab/requests/.1; mv /lab/requests/.1 /lab/requests/1
while [ ! -e /lab/answers/1.status ]; do sleep 0.2; done
cat /lab/answers/1.out
sleep 1
time $FARVISOR run --memory 128M --local 32M --memserver $LAB_PEER:7470 --transport ofi --stats /lab/stats /bin/echo over ofi
seq 1 100000 | shuf > in
time $FARVISOR run --memory 64M --local 8M --memserver $LAB_PEER:7470 --transport ofi --stats /lab/stats sort -n --parallel=1 -S 24M in | md5sum
sort -n in | md5sum
cat /lab/stats
touch /lab/finished
