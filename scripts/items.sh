# shellcheck shell=bash
# Sourced by what runs tests. Wants TOP, below which names of logs are told, and LOGS, a directory for them.

passed=0
failed=0
failures=() # "NAME<tab>LOG"

# item NAME COMMAND... runs a command or function in a shell of its own, under `set -e`, with its output in a log. A test
# that skips proves nothing: 77 is a failure as any other number.
item() {
    local name=$1 log start end seconds code
    shift
    log=$LOGS/$(printf '%03d' $((passed + failed + 1)))-${name//[^A-Za-z0-9._-]/-}.log
    start=${EPOCHREALTIME/[.,]/}
    (
        set -euo pipefail
        "$@"
    ) >"$log" 2>&1 </dev/null
    code=$?
    end=${EPOCHREALTIME/[.,]/}
    seconds=$(printf '%d.%d' $(((end - start) / 1000000)) $(((end - start) / 100000 % 10)))
    if ((code == 0)); then
        passed=$((passed + 1))
        printf 'PASS %7ss  %s\n' "$seconds" "$name"
    else
        failed=$((failed + 1))
        failures+=("$name"$'\t'"$log")
        printf 'FAIL %7ss  %s (exit %d, %s)\n' "$seconds" "$name" "$code" "${log#"$TOP"/}"
        tail -n "${TAIL:-40}" "$log" | sed 's/^/     | /'
    fi
    return "$code"
}

# What failed stands once more at the end, with the end of its log: the middle of long outputs gets lost.
finish() {
    local failure
    echo
    for failure in "${failures[@]}"; do
        printf 'failed: %s\n' "${failure%%$'\t'*}"
        tail -n 5 "${failure#*$'\t'}" 2>/dev/null | cut -c 1-400 | sed 's/^/     | /'
    done
    echo "$passed passed, $failed failed"
    ((failed == 0))
    exit
}
