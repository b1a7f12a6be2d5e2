#!/usr/bin/env bash
# Bricks and clients with volume files written by hand: options, IPv6, who is let in.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
m=$WORK/mnt
mkdir -p "$WORK/bricks/1" "$m/a" "$m/b" "$m/name" "$m/address"

# IPv6, and IPv4 by the same listener; the client's addresses are what rules are about.
server 'fd77::1,10.77.0.*' 'transport.address-family inet6' 'listen-port 24100' 'rpc-auth-allow-insecure off'
client "$m/a" 'remote-host fd77::1' 'remote-port 24100' 'transport.address-family inet6' 'client-bind-insecure off'
client "$m/b" 'remote-host 10.77.0.2' 'transport.rdma.remote-port 24100' 'client-bind-insecure off'
await 10 stat "$m/a/." "$m/b/."
"$BIN/files" write "$m/a" 100
"$BIN/files" check "$m/b" 100
test "$(ss -Htn 'dport = :24100' | awk '{ n = split($4, part, ":"); low += part[n] < 1024 } END { print low }')" = 2
grep -hc 'received addr = "\(fd77::1\|10\.77\.0\.1\)"' "$WORK/log/server.log" | grep -x 3
leave "$m/a" "$m/b"

server 10.77.0.7 'transport.address-family inet6' 'transport.rdma.listen-port 24100'
client "$m/a" 'remote-host fd77::1' 'remote-port 24100'
await 10 grep -q 'failed to set the volume.*Permission denied\|SETVOLUME on remote-host failed' "$WORK/log/a.log"
# Such a client gives up.
await 10 no_process glusterfs
leave

# Few credits and short messages: all that waits goes on. Of the peer's addresses the one that answers is used.
server '*' 'listen-port 24100' 'rdma-work-request-recv-count 64' 'rdma-inline-size 1024' \
    'transport.rdma.bind-address 10.77.0.3' 'transport.rdma.channels 4'
client "$m/a" 'remote-host server.invalid' 'transport.rdma.addresses 10.77.0.4,fd77::1,10.77.0.3' 'remote-port 24100' 'rdma-work-request-send-count 16' \
    'transport.rdma.keepalive-time 5' 'transport.rdma.mtu 2048' 'rdma-attr-timeout 14'
await 10 stat "$m/a/."
mkdir "$m/a/sub"
for i in 1 2 3 4; do "$BIN/files" stream "$m/a/load$i" 16 & done
"$BIN/files" write "$m/a/sub" 300
"$BIN/files" xattrs "$m/a/xattrs"
wait
for i in 1 2 3 4; do "$BIN/files" compare "$m/a/load$i" 16; done
compare_bricks "$m/a" "$WORK/bricks/1"
! ss -Hltn 'sport = :24100' | grep -q '0\.0\.0\.0'
grep -h '1024 octets inline' "$WORK/log/a.log" "$WORK/log/server.log"

# A client that has only what it can't have says why.
if [[ ${PROVIDER:-iwarp} == iwarp ]]; then
    glusterfs --xlator-option='client.transport.rdma.provider=verbs' -f "$WORK/client.vol" -l "$WORK/log/b.log" "$m/b"
    await 10 grep -q 'MSGID: 103006' "$WORK/log/b.log"
    umount "$m/b"
fi
over_rdma a.log
leave "$m/a"
no_errors

# Addresses that are none are told.
glusterfs --xlator-option=client.transport.rdma.addresses=10.77.0.3,server -f "$WORK/client.vol" -l "$WORK/log/bad.log" "$m/b"
await 10 grep 'MSGID: 103003.*10.77.0.3,server' "$WORK/log/bad.log"
umount "$m/b"

# A brick that has only what it can't have goes on without: with tcp,rdma GlusterFS does not survive a transport that fails.
if [[ ${PROVIDER:-iwarp} == iwarp ]]; then
    sed -i 's/option listen-port 24100/&\n    option transport.rdma.provider verbs/' "$WORK/server.vol"
    glusterfsd -f "$WORK/server.vol" -l "$WORK/log/alone.log" -p /run/server.pid
    await 10 grep -q 'MSGID: 103004' "$WORK/log/alone.log"
    kill -0 "$(cat /run/server.pid)"
    leave
fi

# Bricks whose name and whose address come later say so once, and listen then.
cp /etc/hosts "$WORK/hosts"
mount --bind "$WORK/hosts" /etc/hosts
late() {
    sed -e '/listen-port/d; /provider/d' -e "s/\(option transport.rdma.bind-address\) .*/\1 $2/" "$WORK/server.vol" >"$WORK/$1.vol"
    glusterfsd -f "$WORK/$1.vol" -l "$WORK/log/$1.log" -p "/run/$1.pid"
    await 20 grep -q 'MSGID: 103004.*tried again' "$WORK/log/$1.log"
}
late name late.example
late address 10.78.0.1
echo 10.77.0.1 late.example >>/etc/hosts
ip addr add 10.78.0.1/24 dev lo
for i in name address; do
    await 15 grep -q ' W .*MSGID: 103005.*only now' "$WORK/log/$i.log"
    port=$(sed -n 's/.*MSGID: 103005.* on [0-9.]*:\([0-9]*\) .*/\1/p' "$WORK/log/$i.log")
    test "$(grep -c 'MSGID: 103004' "$WORK/log/$i.log")" = 1
    client "$m/$i" 'remote-host 10.77.0.1' 'transport.rdma.addresses 10.77.0.1,10.78.0.1' "remote-port $port"
    await 10 stat "$m/$i/."
done
umount "$m/name" "$m/address"
kill "$(cat /run/name.pid)" "$(cat /run/address.pid)"
nothing_left
ip addr del 10.78.0.1/24 dev lo
