#!/usr/bin/env bash
# The console and the API reference in a real Chromium, against `serve --simulator`: by mouse, by keyboard alone, with
# hostile names, with a thousand applications. The reference's examples are run as they stand.
# Needs node, npm, openssl, curl and python3 with requests; installs Debian's chromium where it is missing. Pictures go
# to target/console.
# usage: tests/console/run.sh [path to the pushlet program]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
pushlet=$(realpath "${1:-$root/target/debug/pushlet}")
output=$root/target/console
work=$(mktemp -d)
servers=()
trap 'for server in "${servers[@]}"; do kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; done; rm -rf "$work"' EXIT

command -v chromium > /dev/null || { apt-get update -qq && apt-get install -qq -y chromium > /dev/null; }
mkdir -p "$output"
cp "$here/package.json" "$output/"
npm install --prefix "$output" --no-audit --no-fund --no-package-lock --silent

# Certificates that end soon: name, topic, days.
certificate() {
  openssl req -x509 -newkey rsa:2048 -nodes -days "$3" -keyout "$work/key" -out "$work/certificate" \
    -subj "/UID=$2/CN=Apple Push Services: $2" 2> /dev/null
  cat "$work/certificate" "$work/key" > "$work/$1.pem"
}
certificate soon com.example.soon 20
certificate very-soon com.example.verysoon 3

# An authority, and the certificate of a receiver of webhooks.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout "$work/authority.key" -out "$work/authority.pem" -subj /CN=authority 2> /dev/null
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -CA "$work/authority.pem" -CAkey "$work/authority.key" -keyout "$work/hooks.key" \
  -out "$work/hooks.pem" -subj /CN=hooks -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE 2> /dev/null

serve() {
  local port=$1
  shift
  "$@" > "$work/out" 2> "$work/log-$port" &
  servers+=($!)
  for _ in $(seq 200); do
    curl -fs "http://127.0.0.1:$port/healthz" > /dev/null && return
    kill -0 "${servers[-1]}" 2> /dev/null || break
    sleep 0.1
  done
  cat "$work/out" "$work/log-$port"
  exit 1
}
cd "$work"
export PUSHLET_ADMIN_KEY=operators-key-of-this-test
serve 9292 env PUSHLET_AUTH_USERNAME=me PUSHLET_AUTH_PASSWORD='öpen:sesame' PUSHLET_TLS_EXTRA_ROOTS="$work/authority.pem" \
  PUSHLET_WEBHOOKS_PRIVATE_HOSTS=127.0.0.1 PUSHLET_WEBHOOKS_FIRST_RETRY=100ms "$pushlet" serve --simulator --simulator-dir "$work"
export CONSOLE_SERVER_PID=${servers[-1]}
serve 9293 env -u PUSHLET_ADMIN_KEY "$pushlet" serve --listen 127.0.0.1:9293 --providers-allow-shadowing=true
python3 -c 'import requests' 2> /dev/null || { apt-get update -qq && apt-get install -qq -y python3-requests > /dev/null; }
# Two versions of a component: a custom section makes another digest.
cp "$root/target/components/built-in/gcm.wasm" one.wasm
{ cat one.wasm; printf '\x00\x04\x03two'; } > two.wasm
for version in one two; do
  "$pushlet" provider upload gcm "$version.wasm" --server http://127.0.0.1:9293 > "$work/out"
done

CONSOLE_MODULES=$output/node_modules node "$here/console.js" http://127.0.0.1:9292 http://127.0.0.1:9293 \
  http://127.0.0.1:9445 "$work" "$output"
