#!/usr/bin/env bash
# A scheduler that is not written in Python: fcast-predict runs beside it for as long as it does, on two pipes. One line
# in for each request, one line of JSON out: any language that can start a process can do the same.
#
#     examples/pipe.sh artifacts/gru 30
#
# The artifact is one of single requests. --snapshot FILE would keep the history over a restart.
set -euo pipefail

coproc FORECASTS { exec fcast-predict "$1" --keep-going; }
echo "timestamp_s,request_tokens,response_tokens" >&"${FORECASTS[1]}"

for ((i = 0; i < ${2:-30}; i++)); do
    echo "$i,$((RANDOM % 2000)),$((RANDOM % 500))" >&"${FORECASTS[1]}"
    read -r line <&"${FORECASTS[0]}" # it answers each request at once
    source=$(sed 's/.*"source": "\([^"]*\)".*/\1/' <<<"$line")
    tokens=$(sed 's/.*"next_request": {.*"request_tokens": \([^,}]*\).*/\1/' <<<"$line")
    echo "request $i: the next prompt has about $tokens tokens ($source)"
done

eval "exec ${FORECASTS[1]}>&-" # the end of its input ends it
wait "$FORECASTS_PID"
