# shellcheck shell=bash
# Sourced by the suites that run the peers against each other, after lib.sh.

# Long: the machine is emulated, and shares its processors.
PEER_LIMIT=${PEER_LIMIT:-240}

# pair SERVER... -- CLIENT...: starts the server, and the client when it says that it listens, or for one that says nothing
# when the command UNTIL has ended; both have to succeed. Their output is the item's.
UNTIL=()
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
    ((status == 0)) || kill "$pid" 2>/dev/null || true
    wait "$pid" || status=$((status ? status : $?))
    echo "-- server:"
    cat "$log"
    rm -f "$log"
    return "$status"
}
says_listening() { [[ $(<"$1") == *listening* ]] || ! kill -0 "$2"; }
