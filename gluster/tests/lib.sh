# shellcheck shell=bash
# Sourced by what runs inside lab.sh: glusterd, volumes, mounts. Wants WORK, and BIN with files and gfapi.
set -euo pipefail

gluster() { command gluster --mode=script "$@"; }

# await SECONDS COMMAND...: until it succeeds.
await() {
    local end=$((SECONDS + $1 * ${SLOW:-1}))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            echo "in vain: $*"
            return 1
        fi
        sleep 0.1
    done
}

start_glusterd() {
    glusterd -p /run/glusterd.pid
    await 30 gluster pool list
}

no_process() { ! pgrep -x "$1"; }

stop_glusterd() {
    kill "$(cat /run/glusterd.pid)"
    await 30 no_process glusterd
}

# A file system for bricks: with attributes as long as they may be.
make_bricks() {
    truncate -s 8G "$WORK/bricks.xfs"
    mkfs.xfs -q "$WORK/bricks.xfs"
    mount -o loop "$WORK/bricks.xfs" "$WORK/bricks"
}

# brick_pids VOLUME; port_of VOLUME BRICK
brick_pids() { gluster volume status "$1" --xml | sed -n 's|.*<pid>\([0-9]*\)</pid>.*|\1|p' | grep -vx 0; }
brick_pid() { pgrep -f "glusterfsd .*--brick-name $1 "; }

# That no brick has what is to be healed on others.
healed() {
    test -z "$(find "$WORK"/bricks/*/.glusterfs/indices/{xattrop,dirty} -type f ! -name 'xattrop-*' ! -name 'dirty-*')"
}

# mount_volume VOLUME DIRECTORY [OPTION...]
mount_volume() {
    local volume=$1 at=$2
    shift 2
    mkdir -p "$at"
    mount -t glusterfs -o "log-level=INFO${*:+,$*}" "10.77.0.1:/$volume" "$at"
    mountpoint -q "$at"
}

# That bricks have what the mount shows: compare_bricks MOUNT BRICK...; each file on at least one brick, and the same on all.
compare_bricks() {
    local at=$1 file sum brick found
    shift
    while IFS= read -r -d '' file; do
        sum=$(md5sum <"$at/$file")
        found=0
        for brick in "$@"; do
            # A pointer of distribute's to another brick is not the file.
            [[ -f $brick/$file && ! -k $brick/$file ]] || continue
            [[ $(md5sum <"$brick/$file") == "$sum" ]] || { echo "$brick/$file differs"; return 1; }
            found=$((found + 1))
        done
        ((found >= ${COPIES:-1})) || { echo "$file: $found copies"; return 1; }
    done < <(cd "$at" && find . -type f -print0)
}

# What a volume must not leave: processes, listeners but glusterd's own, errors of the transport's.
nothing_left() {
    await 20 no_process 'glusterfsd|glusterfs'
    test "$(ss -Hltn | awk '{ print $4 }' | grep -vc ':2400[78]$')" = 0
}

# Errors that the transport has logged anywhere.
no_errors() { ! grep -rhE ' E \[(MSGID: 1030[0-9]{2}|.*rdma\.c)' "$WORK/log"; }
# over_rdma PATTERN: of the log.
over_rdma() { find "$WORK/log" -name "$1" -exec grep -h 'MSGID: 103007' {} + | grep -q "provider ${PROVIDER:-iwarp}"; }

# ---- volume files written by hand ----

# server ALLOWED OPTION...: a brick with a volume file of its own, on port 24100. client MOUNT OPTION...
# SERVER_RUN and CLIENT_RUN: commands that they run under.
SERVER_RUN=() CLIENT_RUN=()
server() {
    local allowed=$1 option before
    shift
    cat >"$WORK/server.vol" <<V
volume posix
    type storage/posix
    option directory $WORK/bricks/1
end-volume
volume locks
    type features/locks
    subvolumes posix
end-volume
volume threads
    type performance/io-threads
    subvolumes locks
end-volume
volume brick
    type protocol/server
    subvolumes threads
    option transport-type rdma
    option auth.addr.threads.allow $allowed
$(for option; do echo "    option $option"; done)
end-volume
V
    before=$(listens)
    "${SERVER_RUN[@]}" glusterfsd -f "$WORK/server.vol" -l "$WORK/log/server.log" -p /run/server.pid
    await 10 listens_again "$before"
}
listens() { { grep -s 'MSGID: 103005' "$WORK/log/server.log" || :; } | wc -l; }
listens_again() { test "$(listens)" -gt "$1"; }

client() {
    local at=$1 option
    shift
    cat >"$WORK/client.vol" <<V
volume client
    type protocol/client
    option transport-type rdma
    option remote-subvolume threads
$(for option; do echo "    option $option"; done)
end-volume
V
    "${CLIENT_RUN[@]}" glusterfs -f "$WORK/client.vol" -l "$WORK/log/$(basename "$at").log" -L INFO "$at"
}

leave() {
    (($# == 0)) || umount "$@"
    kill "$(cat /run/server.pid)"
    nothing_left
}
