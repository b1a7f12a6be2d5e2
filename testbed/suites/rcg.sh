#!/usr/bin/env bash
# rcg, the administrator's command, on kernel devices. Wants rcg in BED_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

RCG=$BED_BIN/rcg
PORT=18520
OUT=$(mktemp -d)
STATS=$OUT/stats
mkdir "$STATS"

# holds PYTHON: an expression on `r`, what the last command has written as JSON.
holds() {
    python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
if not eval(sys.argv[2]):
    print(json.dumps(r, indent=1)); sys.exit("does not hold: " + sys.argv[2])' "$OUT/json" "$1"
}
# json STATUS EXPRESSION COMMAND...: rcg COMMAND --json ends with this status, and the expression holds.
json() {
    local want=$1 expression=$2 status=0
    shift 2
    "$RCG" "$@" --json >"$OUT/json" || status=$?
    ((status == want)) || { cat "$OUT/json"; echo "-- status $status, expected $want"; return 1; }
    holds "$expression"
}

# serve ADDRESS [OPTION...]
serve() {
    RCG_STATS_DIR=$STATS "$RCG" serve --port $PORT --provider verbs "$@" >"$OUT/serve" 2>&1 &
    server=$!
    await 60 grep -q '^ready' "$OUT/serve" || { cat "$OUT/serve"; bed_die "rcg serve does not start"; }
}
serve_ends() {
    kill -TERM $server
    await 30 bed_gone $server
    cat "$OUT/serve"
    grep -q ' 0 refused, ' "$OUT/serve" && [[ ! $(ls "$STATS") ]]
}
# The server's statistics while a client of DEVICE moves octets.
watched() {
    local status=0
    "$RCG" bw $DUM4 -o send -c 2 --seconds 120 --no-tcp >/dev/null 2>&1 &
    local client=$!
    await 60 moves "$1" || status=1
    json 0 "len(r) == 2 and all(l['device'] == '$1' and l['state'] == 'established' for l in r)" top --dir "$STATS" -n 1 || status=1
    "$RCG" dump --dir "$STATS" --format prometheus >"$OUT/prom" || status=1
    grep '^rcg_conn_send_room{.*device="'"$1"'".*} [1-9]' "$OUT/prom" || status=1
    kill $client
    return $status
}
moves() {
    "$RCG" dump --dir "$STATS" --json >"$OUT/json" &&
        holds "len(r) == 1 and len([c for c in r[0]['connections'] if c['device'] == '$1' and c['stats']['ops'].get('RECV', 0) > 0]) == 2" >/dev/null 2>&1
}
bed_gone() { ! kill -0 "$1" 2>/dev/null; }

# finding CHECK STATUS TEXT: as an expression on doctor's report.
finding() { echo "any(f['check'] == '$1' and f['status'] == '$2' and '$3' in f['text'] for f in r['findings'])"; }

# ---- without a device ----

bed_net
item "doctor without a device: a failure where one is wanted" json 1 "$(finding verbs fail 'no RDMA device')" doctor --provider verbs
item "doctor without a device: a warning else" json 0 "$(finding verbs warn 'no RDMA device')" doctor
item "info without a device" json 0 "r['devices'] == [] and any(a['address'] == '$DUM4' and a['provider'] == 'iwarp' for a in r['addresses'])" info

# ---- on each kind of device ----

# on DEVICE KIND: all there is to ask of one.
on() {
    local device=$1 kind=$2 op
    local way="r['provider'] == 'verbs' and r['device'] == '$device'"
    item "$device: info" json 0 "any(d['name'] == '$device' and d['kind'] == '$kind' and d['interface'] == 'dum0' and d['limits']['max_sge'] > 0 for d in r['devices']) and any(a['address'] == '$DUM4' and a['device'] == '$device' for a in r['addresses'])" info
    item "$device: doctor" json 0 "r['healthy'] and $(finding connection ok "device $device")" doctor --provider verbs
    serve $DUM4
    item "$device: probe" json 0 "r['chosen']['device'] == '$device' and r['attempts'][0]['stages']['handshake_us'] > 0" probe $DUM4
    item "$device: ping" json 0 "$way" ping $DUM4 --count 2 --size 100000
    for op in send write read; do
        item "$device: lat $op" json 0 "$way and r['rdma']['count'] == 100 and r['ratio'] > 0" lat $DUM4 -o $op -n 100 --rounds 2
        item "$device: bw $op" json 0 "$way and r['rdma']['bytes_per_second'] > 0 and r['ratio'] > 0" bw $DUM4 -o $op --seconds 1 --rounds 2
        item "$device: bw $op, both ways, 3 connections" json 0 "$way and r['rdma']['bytes_per_second'] > 0" bw $DUM4 -o $op -b -c 3 -t 2 --seconds 1 --rounds 2 --no-tcp
    done
    item "$device: connect-rate" json 0 "$way and r['rdma']['times']['count'] == 10 and r['stages']['handshake_us'] > 0" connect-rate $DUM4 -n 10 -c 2
    item "$device: dump and top of a server at work" watched "$device"
    item "$device: the server ends in good order" serve_ends
    item "$device: nothing is left in the kernel" bed_no_kernel_objects
}

bed_rxe
on rxe0 roce
item "rxe0: nobody listens" json 1 "r['attempts'][0]['outcome'] == 'refused' and r['attempts'][0]['device'] == 'rxe0'" probe $DUM4 --provider verbs
chmod 600 /dev/infiniband/rdma_cm
nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
not_permitted() {
    nobody "$RCG" doctor --provider verbs --json >"$OUT/json" && return 1
    holds "$(finding nodes fail 'Permission denied') and not r['healthy']"
}
item "rxe0: doctor as a user who may not" not_permitted
chmod 666 /dev/infiniband/rdma_cm
low_memlock() {
    (ulimit -l 64 && "$RCG" doctor --provider verbs --json >"$OUT/json")
    holds "$(finding memlock warn 64)"
}
item "rxe0: doctor with little locked memory" low_memlock
link_down() {
    ip link set dum0 down
    local status=0
    json 1 "$(finding device fail 'port 1 is DOWN')" doctor --provider verbs || status=1
    ip link set dum0 up
    ip addr add $DUM6/64 dev dum0 nodad 2>/dev/null
    await 10 bed_active rxe0
    return $status
}
item "rxe0: doctor with the link down" link_down
bed_rxe_down

bed_siw
on siw0 iwarp
serve :: --keepalive 1
for address in $DUM4 $DUM6; do
    item "siw0: a listener on all addresses, $address" json 0 "r['device'] == 'siw0'" ping $address --count 2
done
item "siw0: who takes nothing but Writes outlives its keepalive" json 0 "r['rdma']['bytes_per_second'] > 0" bw $DUM4 -o write --seconds 5 --rounds 1 --no-tcp
# Without the address nothing is delivered any more, and nobody says so.
falls_silent() {
    local status=0
    timeout 60 "$RCG" bw $DUM4 -o "$1" --keepalive 2 --seconds 50 --rounds 1 --no-tcp >"$OUT/silent" 2>&1 &
    local client=$!
    await 30 established
    ip addr del $DUM4/24 dev dum0
    wait $client && status=1
    ip addr add $DUM4/24 dev dum0
    cat "$OUT/silent"
    grep -q 'has not answered for 2000 ms' "$OUT/silent" && return $status
}
established() { "$RCG" dump --dir "$STATS" --json >"$OUT/json" && holds "any(c['state'] == 'established' for c in r[0]['connections'])" >/dev/null 2>&1; }
for op in send read; do
    item "siw0: a peer that falls silent, $op" falls_silent $op
done
kill -TERM $server
await 30 bed_gone $server
other_mac() {
    local status=0
    ip link set dum0 address 02:09:00:00:00:77
    json 1 "$(finding device fail 'now it is 02:09:00:00:00:77') and $(finding connection fail "$DUM4")" doctor --provider verbs || status=1
    # As it says.
    bash -xec "$(python3 -c "import json; print(next(f['fix'] for f in json.load(open('$OUT/json'))['findings'] if 'now it is' in f['text']))")" || return
    await 10 bed_active siw0 && await 10 bed_has_uverbs siw0 || return
    json 0 "r['healthy']" doctor --provider verbs && return $status
}
small_sockets() {
    local room status=0
    room=$(sysctl -n net.ipv4.tcp_wmem)
    sysctl -qw net.ipv4.tcp_wmem="4096 16384 4194304"
    json 0 "$(finding sockets warn 'begin with 16384 octets')" doctor --provider verbs || status=1
    sysctl -qw net.ipv4.tcp_wmem="$room"
    json 0 "$(finding sockets ok 'begin with 8388608')" doctor --provider verbs && return $status
}
item "siw0: doctor warns of small sockets" small_sockets
item "siw0: its link has got another MAC address, and doctor's fix mends it" other_mac
suite_end
