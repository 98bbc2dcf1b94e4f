#!/usr/bin/env bash
# An independent APNs client sends through the simulator, so that the fake is not only tested by us.
# Needs node and npm. usage: tests/third_party/run.sh [path to the pushlet program]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
pushlet=$(realpath "${1:-$root/target/debug/pushlet}")
modules=$root/target/third_party
work=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

mkdir -p "$modules"
cp "$here/package.json" "$modules/"
npm install --prefix "$modules" --no-audit --no-fund --no-package-lock --silent

"$pushlet" simulator --simulator-dir "$work" > "$work/out" 2>&1 &
server=$!
for _ in $(seq 100); do
  curl -fs http://127.0.0.1:9445/healthz > /dev/null && break
  kill -0 "$server" 2>/dev/null || { cat "$work/out"; exit 1; }
  sleep 0.1
done
THIRD_PARTY_MODULES=$modules/node_modules node "$here/apns.js" "$work" http://127.0.0.1:9445 9443
