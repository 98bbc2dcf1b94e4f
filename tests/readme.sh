#!/usr/bin/env bash
# Runs the README's curl lines as they stand there, against `serve --simulator`, and shows the answers.
# Every line must get the status that is expected of it. usage: tests/readme.sh [path to the pushlet program]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
pushlet=$(realpath "${1:-$root/target/release/pushlet}")
work=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

"$pushlet" serve --simulator > out 2> log &
server=$!
for _ in $(seq 100); do
  curl -fs http://127.0.0.1:9292/healthz > /dev/null && break
  kill -0 "$server" 2>/dev/null || { cat out log; exit 1; }
  sleep 0.1
done

lines=0
while IFS= read -r line; do
  expected=200
  case $line in *device_token=dead*) expected=410 ;; esac
  lines=$((lines + 1))
  printf '$ %s\n' "$line"
  status=$(eval "${line/#curl/curl -s -o answer -w '%{http_code\}'}")
  head -c 300 answer
  echo
  if [ "$status" != "$expected" ]; then
    echo "expected status $expected, got $status"
    tail -n 20 log
    exit 1
  fi
done < <(sed -n '/^```sh$/,/^```$/p' "$root/README.md" | grep '^curl ')

[ "$lines" -ge 8 ] || { echo "found only $lines curl lines in the README"; exit 1; }
kill -TERM "$server"
wait "$server"
echo "$lines lines of the README work as pasted"
