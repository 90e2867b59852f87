#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The memory node's side of the lab: does what the compute node asks for, one shell text at a time,
# through the folder that both share with the host, so that it also works while the network is cut.
# Jobs that a request leaves in the background live on.
set -u
cd /tmp || exit 1
number=1
while [ ! -e /lab/finished ]; do
    if [ ! -e "/lab/requests/$number" ]; then
        sleep 0.2
        continue
    fi
    # In this shell, not a child: background jobs and variables stay.
    eval "$(cat "/lab/requests/$number")" >"/lab/answers/$number.out" 2>&1 </dev/null
    echo $? >"/lab/answers/$number.status.new"
    mv "/lab/answers/$number.status.new" "/lab/answers/$number.status"
    number=$((number + 1))
done
