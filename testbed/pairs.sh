# shellcheck shell=bash
# Sourced by the suites that run the peers against each other, after lib.sh.

# Long: the machine is emulated, and shares its processors.
PEER_LIMIT=${PEER_LIMIT:-240}

# pair SERVER... -- CLIENT...: starts the server, and the client when it says that it listens, or for one that says nothing
# when the command UNTIL has ended; both have to succeed, but with ENDLESS the server is one that goes on until it is ended.
# Their output is the item's.
UNTIL=()
ENDLESS=
pair() {
    local server=() log pid status=0 ready=("${UNTIL[@]}")
    while [[ $1 != -- ]]; do
        server+=("$1")
        shift
    done
    shift
    log=$(mktemp "$LOGS/server.XXXXXX")
    timeout -s KILL "$PEER_LIMIT" "${server[@]}" >"$log" 2>&1 &
    pid=$!
    ((${#ready[@]})) || ready=(await 60 says_listening "$log" "$pid")
    if "${ready[@]}"; then
        timeout -s KILL "$PEER_LIMIT" "$@" || status=$?
    else
        status=125
    fi
    # A server whose client has failed waits for it in vain.
    [[ $status == 0 && ! $ENDLESS ]] || kill "$pid" 2>/dev/null || true
    wait "$pid" || [[ $ENDLESS ]] || status=$((status ? status : $?))
    echo "-- server:"
    cat "$log"
    rm -f "$log"
    return "$status"
}
says_listening() { [[ $(<"$1") == *listening* ]] || ! kill -0 "$2"; }

# The unmodified ucmatose and cmtime against ours, at the listener's address. OUR_CMATOSE: how ours is called.
MESSAGES=(-c 4 -C 10 -S 1000)
ucmatose_listens() {
    local UNTIL=(await_rdma_listen "$PORT")
    pair ucmatose -b "$1" -p "$PORT" "${MESSAGES[@]}" -- "${OUR_CMATOSE[@]}" "${MESSAGES[@]}" "$1" "$PORT"
}
ucmatose_connects() {
    pair "${OUR_CMATOSE[@]}" -l "${MESSAGES[@]}" "$1" "$PORT" -- ucmatose -s "$1" -p "$PORT" "${MESSAGES[@]}"
}
cmtime_listens() {
    local UNTIL=(await_rdma_listen "$PORT") ENDLESS=1
    pair cmtime -b "$1" -p "$PORT" -c 20 -- "${OUR_CMATOSE[@]}" -c 20 -C 0 "$1" "$PORT"
}
cmtime_connects() { pair "${OUR_CMATOSE[@]}" -l -c 20 -C 0 "$1" "$PORT" -- cmtime -s "$1" -p "$PORT" -c 20; }
