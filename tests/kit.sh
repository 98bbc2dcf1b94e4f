#!/usr/bin/env bash
# A stranger's way from an empty folder to a delivered push, in each language: the tutorial of providers/README.md line
# by line (new, build with the tools of npm, PyPI and the Rust registry, check, dev), then upload and send. Needs node,
# npm, python3, rustup and curl.
# usage: tests/kit.sh [path to the pushlet program]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${1:-$here/../target/debug/pushlet}")
tools=$here/../target/kit
work=$(mktemp -d)
trap 'kill "${server:-0}" "${sink:-0}" 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$tools" "$work/bin"
tools=$(realpath "$tools")

# What the tutorial calls: the program with a folder for compiled code of its own, which the server shares, so that each
# component is compiled once; and what `check` measures is kept.
pushlet=$work/bin/pushlet
cat > "$pushlet" << END
#!/bin/sh
export XDG_CACHE_HOME=$work/cache
case "\$1 \$2" in
  "provider check") exec "$program" "\$@" --json > $work/figures.json ;;
  *) exec "$program" "\$@" ;;
esac
END
chmod +x "$pushlet"

# The service that the templates push to: an HTTPS server that notes each request and delivers it.
mkdir "$work/sink"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=sink \
  -addext 'subjectAltName=IP:127.0.0.1' -addext 'basicConstraints=critical,CA:FALSE' -keyout "$work/sink/key.pem" -out "$work/sink/cert.pem" 2> /dev/null
python3 "$here/kit_sink.py" "$work/sink" & sink=$!
for _ in $(seq 100); do [ -s "$work/sink/port" ] && break; sleep 0.1; done
origin=https://127.0.0.1:$(cat "$work/sink/port")

# A server whose requests of these providers go to that service.
cd "$work"
{
  echo 'listen = "127.0.0.1:0"'
  echo "providers.cache_dir = \"$work/cache/pushlet/components\""
  echo "tls.extra_roots = [\"$work/sink/cert.pem\"]"
  echo "endpoints.\"default/acme\" = { production = \"$origin\", development = \"$origin\" }"
} > pushlet.toml
"$program" serve --config pushlet.toml > server.log 2>&1 & server=$!
for _ in $(seq 300); do
  address=$(grep -o 'http://127.0.0.1:[0-9]*' server.log | head -1 || true)
  [ -n "$address" ] && curl -fs "$address/healthz" > /dev/null && break
  kill -0 "$server" || { cat server.log; exit 1; }
  sleep 0.1
done
export PUSHLET_SERVER=$address

# Uploads, registers and sends: the answer must be delivered, and the service must have got the request.
deliver() {
  local language=$1 component=$2
  "$pushlet" provider call encode "$component" --notification '{"body":"called"}' | grep -q '"called"'
  "$pushlet" provider upload acme "$component" > /dev/null
  curl -fs -X PUT "$address/v1/applications/$language" -H 'content-type: application/json' \
    -d '{"provider":"acme","settings":{"acme_channel":"news"},"credentials":{"acme_token":"hush"}}' > /dev/null
  curl -fs "$address/v1/notifications" -H 'content-type: application/json' \
    -d "{\"application_id\":\"$language\",\"notification\":{\"title\":\"Hello\",\"body\":\"from $language\"},\"targets\":[\"device-1\"]}" > sent.json
  grep -q '"status":"delivered"' sent.json || { cat sent.json; exit 1; }
  grep -q "POST /v1/news/device-1 Bearer hush .*from $language" sink/requests || { cat sink/requests; exit 1; }
  # What it prints before it fails, and why it failed, are in its log.
  curl -s "$address/v1/notifications" -H 'content-type: application/json' \
    -d "{\"application_id\":\"$language\",\"notification\":{\"body\":\"trouble\"},\"targets\":[\"device-1\"]}" > failed.json
  "$pushlet" provider log acme > log.txt
  grep -q "in trouble with $language" log.txt && grep -q 'on purpose' log.txt || { cat failed.json log.txt; exit 1; }
  echo "$language: delivered, and what it printed is in its log"
}

# Has the provider in this folder print and fail when the text is "trouble".
troubled() {
  case $1 in
    rust) sed -i '/^fn message/a if notification.alert.as_ref().is_some_and(|alert| alert.body.as_deref() == Some("trouble")) { println!("in trouble with rust"); panic!("on purpose"); }' src/lib.rs ;;
    js) sed -i '/^function message/a if (notification.alert?.body === "trouble") { console.log("in", "trouble with js"); throw new Error("on purpose"); }' provider.js ;;
    python) sed -i '/^def message/a \    if notification.alert and notification.alert.body == "trouble":\n        print("in trouble with python")\n        raise ValueError("on purpose")' app.py ;;
  esac
}

# The folders of what was built before, so that a second run takes less time.
cargo() { mkdir -p "$tools/rust"; [ -e target ] || ln -s "$tools/rust" target; command cargo "$@"; }

# Runs the lines of the tutorial for a language, in a folder of its own, and leaves the component in "built".
tutorial() {
  local language=$1 line lines
  lines=$(awk -v wanted="--lang $language" '
    /^```sh$/ { block = ""; inside = 1; next }
    /^```$/ { if (inside && index(block, wanted)) print block; inside = 0; next }
    inside { block = block $0 "\n" }' "$here/../providers/README.md")
  [ "$(grep -c . <<< "$lines")" -ge 6 ] || { echo "the tutorial has no lines for $language"; exit 1; }
  mkdir "$work/$language"
  (
    cd "$work/$language"
    PATH=$work/bin:$PATH
    while IFS= read -r line; do
      [ -n "$line" ] || continue
      printf '$ %s\n' "$line"
      start=$SECONDS
      eval "$line" > "$work/line.txt" 2>&1 < /dev/null || { cat "$work/line.txt" "$work/figures.json"; exit 1; }
      [[ $line != 'cd '* ]] || troubled "$language"
      printf '  %d s\n' "$((SECONDS - start))"
    done <<< "$lines"
    grep -q '^= delivered' "$work/line.txt" || { cat "$work/line.txt"; exit 1; }
    grep -q '^> POST https://push.acme.example' "$work/line.txt" || { cat "$work/line.txt"; exit 1; }
  )
  built=$(find -L "$work/$language/acme" -maxdepth 5 -name acme.wasm -not -path '*/deps/*' -not -path '*/node_modules/*' | head -1)
}

# A row of the table of costs in providers/facts.md, as this machine and this build of the program have them.
costs() {
  python3 - "$1" "$work/figures.json" >> "$work/costs" << 'END'
import json, sys
report = json.load(open(sys.argv[2]))
figures = report["figures"]
of = lambda name: f"{figures[name]:,.0f}"
print(f"| {sys.argv[1]} | {report['size'] / 1e6:.1f} MB | {figures['load_us'] / 1e6:.1f} s | {of('encode_us')} µs | {of('encode_each_us')} µs"
      f" | {of('decode_us')} µs | {of('encode_fresh_us')} µs | {figures['memory_bytes'] / 2**20:.1f} MiB |")
END
}

for language in rust js python; do
  tutorial "$language"
  deliver "$language" "$built"
  costs "$language"
done
echo '| language | size | compile and describe | encode, one target | encode, each of 500 | decode | encode, new instance | memory |'
cat "$work/costs"
# One file of an uploaded component's code for each language: nothing was compiled twice.
[ "$(find "$work/cache" -name '*.*.artefact' | wc -l)" = 3 ] || { find "$work/cache"; exit 1; }
echo 'each language: the tutorial, upload, delivered'
