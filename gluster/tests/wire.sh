#!/usr/bin/env bash
# A brick and a client of which one has a device and the other has none, over the wire of the test bed: NEAR is the address at
# this end, the device's, FAR that at the other, whose network namespace is descriptor 9.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
m=$WORK/mnt far=(nsenter --net=/proc/self/fd/9)
mkdir -p "$WORK/bricks/1" "$m/a"

# use PROVIDER PROVIDER: of the brick and of the client, whose last connection it was.
use() {
    await 10 stat "$m/a/."
    mkdir "$m/a/$1"
    "$BIN/files" stream "$m/a/$1/stream" "${MIB:-64}"
    "$BIN/files" write "$m/a/$1" "${SMALL:-200}"
    "$BIN/files" check "$m/a/$1" "${SMALL:-200}"
    "$BIN/files" xattrs "$m/a/$1/xattrs"
    compare_bricks "$m/a" "$WORK/bricks/1"
    leave "$m/a"
    test "$(last server) $(last a)" = "$1 $2"
}
# The provider of the last connection.
last() { sed -n 's/.*MSGID: 103007.* provider \([a-z]*\),.*/\1/p' "$WORK/log/$1.log" | tail -n 1; }

server '*' "transport.rdma.bind-address $NEAR" 'listen-port 24100' 'rdma-provider verbs'
CLIENT_RUN=("${far[@]}")
client "$m/a" "remote-host $NEAR" 'remote-port 24100' 'rdma-provider iwarp'
use verbs iwarp

SERVER_RUN=("${far[@]}") CLIENT_RUN=()
server '*' "transport.rdma.bind-address $FAR" 'listen-port 24100' 'rdma-provider iwarp'
client "$m/a" "remote-host $FAR" 'remote-port 24100' 'rdma-provider verbs'
use iwarp verbs
no_errors
