#!/usr/bin/env bash
# Clients that are not ours, unmodified, send through the simulator, so that it is not only tested by us; and the gateway
# sends through an SMPP server and to a Web Push service that are not ours.
# They know the services by their real names alone. So they run in a network and with a hosts file of their own,
# where those names lead to the simulator on port 443; nothing reaches the network outside.
# Needs node, npm, python3, unshare and ip, and root or user namespaces.
# usage: tests/third_party/run.sh [path to the pushlet program]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
modules=$root/target/third_party

install() {
  mkdir -p "$modules"
  cp "$here/package.json" "$modules/"
  npm install --prefix "$modules" --no-audit --no-fund --no-package-lock --silent
  [ -x "$modules/python/bin/python" ] || python3 -m venv "$modules/python"
  "$modules/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
}

# Inside: the loopback device, the names, the simulator, the clients.
inside() {
  local pushlet=$1 client
  work=$(mktemp -d)
  trap 'kill "${server:-0}" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
  ip link set lo up
  {
    echo '127.0.0.1 localhost'
    echo '127.0.0.2 api.sandbox.push.apple.com api.development.push.apple.com'
    echo '127.0.0.3 api.push.apple.com'
    echo '127.0.0.4 fcm.googleapis.com oauth2.googleapis.com www.googleapis.com accounts.google.com'
  } > "$work/hosts"
  mount --bind "$work/hosts" /etc/hosts

  "$pushlet" simulator --simulator-dir "$work/simulator" --simulator-apns 127.0.0.2:443 \
    --simulator-apns-production 127.0.0.3:443 --simulator-google 127.0.0.4:443 > "$work/out" 2>&1 &
  server=$!
  for _ in $(seq 300); do
    curl -fs http://127.0.0.1:9445/healthz > /dev/null && break
    kill -0 "$server" 2>/dev/null || { cat "$work/out"; exit 1; }
    sleep 0.1
  done

  # The authority of the simulator's certificates, as each TLS library is told of it.
  local ca=$work/simulator/ca.pem
  export NODE_EXTRA_CA_CERTS=$ca SSL_CERT_FILE=$ca REQUESTS_CA_BUNDLE=$ca
  export NO_PROXY='*' no_proxy='*' THIRD_PARTY_MODULES=$modules/node_modules
  unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY all_proxy
  for client in node_apn.js firebase_admin.js; do
    timeout 120 node "$here/$client" "$work/simulator" http://127.0.0.1:9445
  done
  timeout 180 node "$here/gateway_smpp.js" "$work/simulator" "$pushlet"
  PYTHONDONTWRITEBYTECODE=1 timeout 180 "$modules/python/bin/python" "$here/gateway_webpush.py" "$work/simulator" "$pushlet"
  for client in aioapns_client.py apns2_client.py kalyke_client.py firebase_admin_client.py pyfcm_client.py; do
    PYTHONDONTWRITEBYTECODE=1 timeout 120 "$modules/python/bin/python" "$here/$client" "$work/simulator" http://127.0.0.1:9445
  done
}

if [ "${1:-}" = --inside ]; then
  inside "$2"
else
  pushlet=$(realpath "${1:-$root/target/debug/pushlet}")
  install
  user=()
  [ "$(id -u)" = 0 ] || user=(--map-root-user)
  unshare --mount --net "${user[@]}" "$0" --inside "$pushlet"
fi
