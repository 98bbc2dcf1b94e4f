#!/usr/bin/env bash
# A provider's way through a real registry (Debian's docker-registry, on loopback, with a password): pushed, signed,
# read and verified by tools that are not ours (skopeo, openssl), signed by openssl, pulled, and refused where the
# signature is not the key's. Needs openssl, perl and python3; apt-get for docker-registry and skopeo.
# usage: tests/registry.sh [path to the pushlet program]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pushlet=$(realpath "${1:-$here/../target/debug/pushlet}")
work=$(mktemp -d)
trap 'kill "${registry:-}" "${server:-}" 2> /dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$here/../target/kit"
tools=$(realpath "$here/../target/kit")
cd "$work"

# Without the server that the package starts.
program() {
  command -v "$1" && return
  (cd "$work" && apt-get download -qq "$1" > /dev/null 2>&1 && dpkg -x "$1"_*.deb "$work/$1")
  echo "$work/$1/usr/bin/$1"
}
docker_registry=$(program docker-registry)
command -v skopeo > /dev/null || { apt-get update -qq && apt-get install -qq -y skopeo > /dev/null; }

fail() { echo "$*"; exit 1; }
refused() {
  local why=$1; shift
  rm -f refused.wasm
  if "$@" > told 2>&1; then fail "not refused: $*"; fi
  grep -q "$why" told || { cat told; fail "refused for another reason: $*"; }
  [ ! -e refused.wasm ] || fail "a file was written: $*"
  echo "refused: $(cat told)"
}

# The component that tests/kit.sh built, or the same anew.
component=$tools/rust/wasm32-wasip2/release/acme.wasm
if [ ! -e "$component" ]; then
  "$pushlet" provider new acme --lang rust
  (cd acme && CARGO_TARGET_DIR=$tools/rust cargo build --quiet --release --target wasm32-wasip2)
fi

# shellcheck disable=SC2016 # perl's
perl -e 'print "robot:", crypt("hush", q($2y$05$abcdefghijklmnopqrstuu)), "\n"' > htpasswd
cat > registry.yml << END
version: 0.1
log: { level: info }
storage: { filesystem: { rootdirectory: $work/storage } }
http: { addr: "127.0.0.1:0" }
auth: { htpasswd: { realm: test, path: $work/htpasswd } }
END
"$docker_registry" serve registry.yml > registry.log 2>&1 & registry=$!
for _ in $(seq 100); do
  address=$(grep -o 'listening on 127.0.0.1:[0-9]*' registry.log | grep -o '127.*' || true)
  [ -n "$address" ] && break
  kill -0 "$registry" || { cat registry.log; exit 1; }
  sleep 0.1
done
for name in cosign other; do
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $name.key
  openssl pkey -in $name.key -pubout -out $name.pub
done

to=oci://$address/team/acme:1.0
refused 'give --oci-username' "$pushlet" provider push "$component" "$to"
export PUSHLET_OCI_USERNAME=robot PUSHLET_OCI_PASSWORD=hush
pinned=$("$pushlet" provider push "$component" "$to" --sign cosign.key)
digest=${pinned#*@}
echo "pushed: $pinned"
[ "$("$pushlet" provider push "$component" "$to" --sign cosign.key)" = "$pinned" ] || fail 'another digest for the same component'

# What others read.
image=docker://$address/team/acme
skopeo=(skopeo inspect --tls-verify=false --creds robot:hush --raw)
"${skopeo[@]}" "$image:1.0" > manifest
[ "sha256:$(sha256sum < manifest | cut -d' ' -f1)" = "$digest" ] || fail 'the digest is not that of the manifest'
skopeo copy --quiet --src-tls-verify=false --src-creds robot:hush "$image@$digest" "dir:$work/copied"
cmp "$component" "$work/copied/$(sha256sum < "$component" | cut -d' ' -f1)"
"${skopeo[@]}" "$image:${digest/:/-}.sig" > signatures
python3 - "$digest" << 'END'
import base64, json, sys
[layer] = json.load(open("signatures"))["layers"]
open("signature", "wb").write(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
open("payload.digest", "w").write(layer["digest"])
END
curl -fsS -u robot:hush "http://$address/v2/team/acme/blobs/$(cat payload.digest)" > payload
openssl dgst -sha256 -verify cosign.pub -signature signature payload
grep -q "\"docker-manifest-digest\":\"$digest\"" payload

# And back.
"$pushlet" provider pull "oci://$address/team/acme@$digest" --key cosign.pub -o pulled.wasm
cmp "$component" pulled.wasm
refused 'by the key' "$pushlet" provider pull "oci://$address/team/acme@$digest" --key other.pub -o refused.wasm
refused 'a tag can be moved' "$pushlet" provider pull "$to" -o refused.wasm

# Pushed without a signature, then signed by others: as cosign does, with openssl and curl.
cp "$component" next.wasm
printf '\000\004\001vab' >> next.wasm
next=$("$pushlet" provider push next.wasm "oci://$address/team/acme:1.1")
digest=${next#*@}
refused 'it is not signed' "$pushlet" provider pull "oci://$address/team/acme:1.1" --key cosign.pub -o refused.wasm
put() {
  local place
  place=$(curl -fsS -u robot:hush -X POST -D - -o /dev/null "http://$address/v2/team/acme/blobs/uploads/" |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  curl -fsS -u robot:hush -X PUT -H 'content-type: application/octet-stream' --data-binary "@$1" "$place&digest=sha256:$(sha256sum < "$1" | cut -d' ' -f1)"
}
# name of the key, digest that is signed
sign() {
  printf '{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}' "$2" > payload
  openssl dgst -sha256 -sign "$1.key" -out signature payload
  printf '{}' > config
  put payload
  put config
  python3 - << 'END' > signatures
import base64, hashlib, json
part = lambda kind, name: {"mediaType": kind, "size": len(open(name, "rb").read()),
    "digest": "sha256:" + hashlib.sha256(open(name, "rb").read()).hexdigest()}
layer = part("application/vnd.dev.cosign.simplesigning.v1+json", "payload")
layer["annotations"] = {"dev.cosignproject.cosign/signature": base64.b64encode(open("signature", "rb").read()).decode()}
print(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": part("application/vnd.oci.image.config.v1+json", "config"), "layers": [layer]}))
END
  curl -fsS -u robot:hush -X PUT -H 'content-type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary @signatures "http://$address/v2/team/acme/manifests/${digest/:/-}.sig"
}
sign other "$digest"
refused 'by the key' "$pushlet" provider pull "oci://$address/team/acme:1.1" --key cosign.pub -o refused.wasm
sign cosign "${pinned#*@}"
refused 'something else' "$pushlet" provider pull "oci://$address/team/acme:1.1" --key cosign.pub -o refused.wasm

# A server sees nothing of what is refused, and all of what is not.
"$pushlet" serve --listen 127.0.0.1:0 > server.log 2>&1 & server=$!
for _ in $(seq 300); do
  base=$(grep -o 'http://127.0.0.1:[0-9]*' server.log | head -1 || true)
  [ -n "$base" ] && curl -fs "$base/healthz" > /dev/null && break
  kill -0 "$server" || { cat server.log; exit 1; }
  sleep 0.1
done
export PUSHLET_SERVER=$base
refused 'something else' "$pushlet" provider upload acme "oci://$address/team/acme:1.1" --key cosign.pub
[ "$(curl -s -o /dev/null -w '%{http_code}' "$base/v1/providers/acme")" = 404 ] || fail 'the server has a provider that was refused'
sign cosign "$digest"
"$pushlet" provider upload acme "oci://$address/team/acme:1.1" --key cosign.pub > /dev/null
curl -fsS "$base/v1/providers/acme" | grep -q "\"digest\":\"$(sha256sum < next.wasm | cut -d' ' -f1)\""
echo 'registry: pushed, signed, verified, pulled, uploaded; what is not signed was refused'
