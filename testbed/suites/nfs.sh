#!/usr/bin/env bash
# The Linux kernel's NFS client and server are our peers: `rcg rpc-proxy` in both roles, over rxe, over siw, and by our own
# iWARP over TCP towards kernel siw. All of NFS comes from the kernel; only the transport is ours. Wants rcg in BED_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh
# shellcheck source=testbed/nfsd.sh
. testbed/nfsd.sh

RCG=$BED_BIN/rcg
W=$NFS MNT=$NFS/mnt
RDMA_PORT=20050 TCP_PORT=2050
MIB=${BED_NFS_MIB:-64}
NAMES=${BED_NFS_NAMES:-500}
RANDOM_SECONDS=${BED_NFS_RANDOM:-60}

# ---- the proxy ----

# proxy NAME COMMAND-PREFIX... -- ARGS...: in the background, its number in $W/proxy. Items are shells of their own, so its
# status comes by a file, too.
proxy() {
    PROXY_LOG=$LOGS/proxy-$1.out
    local prefix=()
    shift
    while [[ $1 != -- ]]; do
        prefix+=("$1")
        shift
    done
    shift
    rm -f $W/proxy $W/proxy-status
    RUST_BACKTRACE=1 "${prefix[@]}" bash -c 'echo $$ >"$0/proxy"; exec "$@"' $W "$RCG" rpc-proxy "$@" >"$PROXY_LOG" 2>&1 ||
        echo $? >$W/proxy-status &
    await 20 grep -q '^ready' "$PROXY_LOG" || bed_die "no proxy: $(<"$PROXY_LOG")"
}
proxy_is_gone() { ! kill -0 "$(<$W/proxy)" 2>/dev/null; }
proxy_gets() { kill "-$1" "$(<$W/proxy)" && await 20 proxy_is_gone; }
# It ends in good order, has seen nothing that made no sense, and none of $1 is so.
proxy_ends() {
    local last
    proxy_gets TERM || return
    cat "$PROXY_LOG"
    last=$(tail -n 2 "$PROXY_LOG")
    [[ ! -e $W/proxy-status && $last == *"bad messages 0"* && $last == *"(now 0)"* && ! $last =~ $1 ]]
}
UNUSED='backchannel 0,|refused [1-9]|read chunks 0,|write chunks 0,|reply chunks 0,'

# ---- mounts ----

# mounted VERSION ADDRESS OPTIONS: mounts what the server exports.
mounted() {
    local version=$1 address=$2 options=$3 path=/
    # Mounting is a protocol of its own in version 3, and goes to the server directly.
    [[ $version != 3 ]] || { path=$EXPORT options+=,mountproto=tcp,mountaddr=$DUM4,nolock; }
    timeout 60 mount -t nfs -o "vers=$version,hard,timeo=100,$options" "$address:$path" $MNT
}
unmounted() { umount $MNT || { sleep 1; umount -f $MNT; }; }
forget_pages() { sync && echo 3 >/proc/sys/vm/drop_caches; }
# same SOURCE FILE: the digest of a source is made once, as that takes an emulated processor a while.
same() {
    [[ -s $1.sha256 ]] || sha256sum <"$1" >"$1.sha256"
    [[ $(sha256sum <"$2") == "$(<"$1.sha256")" ]] || { echo "-- $1 and $2 differ"; cmp "$1" "$2"; return 1; }
}

# What people do with files: use_files FILE NAMES.
use_files() {
    local source=$1 names=$2 name entries long
    rm -rf "$EXPORT"/*
    dd if="$source" of=$MNT/large bs=1M conv=fsync 2>&1 | tail -n 1 && same "$source" $EXPORT/large || return
    forget_pages
    same "$source" $MNT/large || return
    for name in 1 4095 4097 12345 262143 262147; do
        head -c "$name" $W/source >$MNT/odd && cmp <(head -c "$name" $W/source) $EXPORT/odd || return
        forget_pages
        cmp <(head -c "$name" $W/source) $MNT/odd || return
    done
    mkdir $MNT/many || return
    for name in $(seq "$names"); do : >"$MNT/many/a-name-that-is-not-short-$name"; done
    forget_pages
    entries=$(find $MNT/many -type f | wc -l)
    [[ $entries == "$names" ]] || { echo "-- $entries names"; return 1; }
    ln -s "$(printf 'x%.0s' $(seq 999))" $MNT/link || return
    long=$(printf 'y%.0s' $(seq 255))
    : >"$MNT/$long" && mv "$MNT/$long" "$MNT/${long//y/z}" || return
    forget_pages
    [[ $(readlink $MNT/link | wc -c) == 1000 && -e $EXPORT/${long//y/z} ]] || { echo "-- a long name is lost"; return 1; }
    rm -r $MNT/many $MNT/large $MNT/link
}

# COUNTED: the client's own counters of the mount, from the read chunks on.
client_counted() {
    local line
    line=$(grep -A 40 "mounted on $MNT with" /proc/self/mountstats | grep 'xprt:.*rdma' | tail -n 1)
    read -ra COUNTED <<<"${line#*rdma }"
    COUNTED=("${COUNTED[@]:10}")
    echo "read chunks ${COUNTED[0]}, write chunks ${COUNTED[1]}, reply chunks ${COUNTED[2]}," \
        "failed_marshal ${COUNTED[8]}, bad_reply ${COUNTED[9]}, long calls ${COUNTED[10]}"
}
# All kinds of chunks were used, and no reply was bad. failed_marshal counts calls that had to wait for memory of the client's,
# as they do towards the kernel's own server.
chunks_were_used() {
    client_counted
    ((COUNTED[0] > 0 && COUNTED[1] > 0 && COUNTED[2] > 0 && COUNTED[9] == 0))
}

# Access rights are no payload: where there are too many for a message, all of the call goes in a chunk. So many are over the
# client's threshold and still fit the page that its server has for them; its client can't read them again, nor over TCP.
long_call() {
    local rights
    rights=$(printf 'u:%d:rw,' {1001..1330})
    rm -f $EXPORT/shared
    : >$MNT/shared && setfacl -m "${rights%,}" $MNT/shared || return
    client_counted
    ((COUNTED[10] > 0 && COUNTED[9] == 0)) && [[ $(getfacl -cnp $EXPORT/shared | grep -c '^user:1...:rw-$') == 330 ]]
}

# on_mount VERSION ADDRESS OPTIONS COMMAND...: with what is mounted there.
on_mount() {
    local code=0
    mounted "$1" "$2" "$3" || return
    "${@:4}" || code=$?
    unmounted && return $code
}

# over_rdma VERSION ADDRESS PORT [FILE NAMES]: the kernel's client, with everything.
over_rdma() { on_mount "$1" "$2" "proto=rdma,port=$3" use_files_in_chunks "${4:-$W/source}" "${5:-$NAMES}"; }
use_files_in_chunks() { use_files "$1" "$2" && chunks_were_used; }
over_tcp() { on_mount "$1" "$2" "proto=tcp,port=$3" use_files $W/small $((NAMES / 10)); }

# A client that has nothing of the kernel's; libnfs_copies ADDRESS: in version 3, for which there must be a mountd at the address.
libnfs_copies() {
    local url="nfs://$1$EXPORT/libnfs/copy?version=3&nfsport=$TCP_PORT"
    rm -rf $EXPORT/libnfs $W/back && mkdir $EXPORT/libnfs || return
    timeout 60 nfs-cp $W/tiny "$url" && same $W/tiny $EXPORT/libnfs/copy || return
    timeout 60 nfs-cp "$url" $W/back && same $W/tiny $W/back
}
# libnfs_reads ADDRESS: in version 4, of which nfs-cp of libnfs 4.0 can't write, not even to the kernel directly.
libnfs_reads() {
    mkdir -p $EXPORT/libnfs && cp $W/tiny $EXPORT/libnfs/read || return
    timeout 60 nfs-cat "nfs://$1/libnfs/read?version=4&nfsport=$TCP_PORT" >$W/back && same $W/tiny $W/back
}

# captured NAME PORT KINDS COMMAND...: captures what goes over the wire meanwhile. Whether tshark finds anything wrong with it,
# and all kinds of it, is seen outside of the machine, where that is quick (check.sh).
captured() {
    local file=$BED_OUT/captures/$1.pcapng port=$2 kinds=$3 code=0 dumpcap
    mkdir -p "$BED_OUT/captures"
    dumpcap -q -B 64 -i wirek -f "tcp port $port or udp port 9" -w "$file" 2>"$file.log" &
    dumpcap=$!
    await 20 grep -q '^File:' "$file.log" || return
    "${@:4}" || code=$?
    # What came before the datagram is in the file with it.
    await 20 capture_is_whole "$file" || code=$?
    kill -INT $dumpcap && wait $dumpcap
    cat "$file.log"
    echo "$kinds" >"$file.kinds"
    return $code
}
capture_is_whole() { echo all-is-in-the-file >/dev/udp/$WIRE_USER4/9 && grep -q all-is-in-the-file "$1"; }
a_little() { use_files $W/tiny 10; }

# The proxy dies under load, without a word, and comes back.
survives_death() { on_mount 4.1 "$2" "proto=rdma,port=$RDMA_PORT" write_through_death "$1" "${@:3}"; }
write_through_death() {
    local code=0 writer
    dd if=$W/source of=$MNT/large bs=1M conv=fsync 2>/dev/null &
    writer=$!
    await 20 test -s $EXPORT/large
    proxy_gets KILL || return
    proxy "$@"
    wait "$writer" && forget_pages && same $W/source $MNT/large && same $W/source $EXPORT/large || code=1
    rm -f $MNT/large
    return $code
}

random_io() { on_mount "$1" "$2" "proto=rdma,port=$RDMA_PORT" write_at_random "$3"; }
write_at_random() {
    local code=0
    timeout 200 fio --name=verify --directory=$MNT --size=16m --rw=randwrite --bsrange=512-192k --direct=1 --ioengine=libaio \
        --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --time_based --runtime="$1" \
        --numjobs=2 --group_reporting || code=$?
    rm -f $MNT/verify*
    return $code
}

ping_answers() {
    "$@" --count 3 | tee "$LOGS/ping.out"
    [[ $(grep -c '^program 100003 .* ready at' "$LOGS/ping.out") == 3 ]]
}
ping_fails() { ! "$@" 2>"$LOGS/ping.out" && cat "$LOGS/ping.out" && grep -q "$TEXT" "$LOGS/ping.out"; }

# responder NAME ADDRESS COMMAND-PREFIX... -- ARGS...: the kernel's client over RDMA, through us, to the kernel's server by TCP.
responder() {
    local name=$1 address=$2 version
    shift 2
    proxy "$name" "$@"
    for version in 3 4.1; do
        item "$name: the kernel's client mounts NFS $version through us" over_rdma $version "$address" $RDMA_PORT
    done
    # To the transport these are much the same.
    for version in 4.0 4.2; do
        item "$name: the kernel's client mounts NFS $version through us" over_rdma $version "$address" $RDMA_PORT $W/small $((NAMES / 10))
    done
    item "$name: a call too long for a message" on_mount 3 "$address" proto=rdma,port=$RDMA_PORT long_call
    item "$name: the proxy ends in good order" proxy_ends "calls to TCP 0,|$UNUSED"
}
# requester NAME ADDRESS COMMAND-PREFIX... -- ARGS...: the kernel's client by TCP, through us, to the kernel's server over RDMA.
requester() {
    local name=$1 address=$2 version
    shift 2
    proxy "$name-tcp" "$@"
    for version in 3 4.0 4.1 4.2; do
        item "$name: TCP mounts of the kernel's RDMA server, NFS $version" over_tcp $version "$address" $TCP_PORT
    done
    [[ $address != 127.* ]] || item "$name: libnfs copies a file to and from it, NFS 3" libnfs_copies "$address"
    item "$name: libnfs reads a file from it, NFS 4" libnfs_reads "$address"
    item "$name: that proxy ends in good order" proxy_ends "calls to RDMA 0,|$UNUSED"
}

bed_net
bed_nfsd 600
mkdir $MNT
head -c "${MIB}M" /dev/urandom >$W/source
head -c "$((MIB / 8))M" $W/source >$W/small
head -c 1M $W/source >$W/tiny

for device in rxe siw; do
    bed_$device
    item "$device: kernel to kernel" over_rdma 4.1 "$DUM4" $KERNEL_RDMA_PORT $W/small $((NAMES / 10))
    item "$device: the kernel's server answers rpc-ping" ping_answers "$RCG" rpc-ping "$DUM4"
    TEXT="versions 3 to 4" item "$device: rpc-ping, a version that is not there" ping_fails "$RCG" rpc-ping "$DUM4" 100003 9
    TEXT="does not have this program" \
        item "$device: rpc-ping, a program that is not there" ping_fails "$RCG" rpc-ping "$DUM4" 100099 1
    responder $device "$DUM4" -- rdma:0.0.0.0:$RDMA_PORT tcp:127.0.0.1:2049
    requester $device 127.0.0.1 -- tcp:127.0.0.1:$TCP_PORT "rdma:$DUM4:$KERNEL_RDMA_PORT"
    args=(-- rdma:0.0.0.0:$RDMA_PORT tcp:127.0.0.1:2049)
    proxy $device-again "${args[@]}"
    item "$device: the proxy is killed under load" survives_death $device-again "$DUM4" "${args[@]}"
    item "$device: random reads and writes, verified" random_io 4.1 "$DUM4" "$((RANDOM_SECONDS / 3))"
    proxy_gets TERM
    proxy $device-silent -- --no-private-data rdma:0.0.0.0:$RDMA_PORT tcp:127.0.0.1:2049
    item "$device: without private data" over_rdma 3 "$DUM4" $RDMA_PORT $W/small $((NAMES / 10))
    proxy_gets TERM
    bed_${device}_down
done

# No RDMA device on our side: iWARP over TCP.
bed_wire
responder iwarp $WIRE_USER4 bed_user -- --provider iwarp rdma:0.0.0.0:$RDMA_PORT tcp:$WIRE_KERNEL4:2049
requester iwarp $WIRE_USER4 bed_user -- --provider iwarp tcp:0.0.0.0:$TCP_PORT rdma:$WIRE_KERNEL4:$KERNEL_RDMA_PORT
args=(bed_user -- --provider iwarp rdma:0.0.0.0:$RDMA_PORT tcp:$WIRE_KERNEL4:2049)
proxy iwarp-again "${args[@]}"
item "iwarp: the proxy is killed under load" survives_death iwarp-again $WIRE_USER4 "${args[@]}"
item "iwarp: random reads and writes, verified" random_io 4.1 $WIRE_USER4 "$RANDOM_SECONDS"
proxy_gets TERM
# On ports of their own: a connection that a mount of before has left has no beginning in the capture, and can't be read.
proxy iwarp-captured bed_user -- --provider iwarp rdma:0.0.0.0:$((RDMA_PORT + 1)) tcp:$WIRE_KERNEL4:2049
for version in 3 4.1; do
    kinds="read write reply"
    [[ $version == 3 ]] || kinds+=" backchannel"
    item "iwarp: a capture of the kernel's client and us, NFS $version" captured client-$version $((RDMA_PORT + 1)) "$kinds" \
        on_mount $version $WIRE_USER4 "proto=rdma,port=$((RDMA_PORT + 1))" a_little
done
proxy_gets TERM
proxy iwarp-tcp-captured bed_user -- --provider iwarp tcp:0.0.0.0:$((TCP_PORT + 1)) rdma:$WIRE_KERNEL4:$KERNEL_RDMA_PORT
for version in 3 4.1; do
    kinds="read write reply"
    [[ $version == 3 ]] || kinds+=" backchannel"
    item "iwarp: a capture of us and the kernel's server, NFS $version" captured server-$version $KERNEL_RDMA_PORT "$kinds" \
        on_mount $version $WIRE_USER4 "proto=tcp,port=$((TCP_PORT + 1))" a_little
done
proxy_gets TERM
bed_wire_down
item "the kernel's server ends" bed_nfsd_ends
suite_end
