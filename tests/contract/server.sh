# For the scripts beside this one: the tools of requirements.txt in $venv, and a server with the simulator at $url,
# with an application of each kind. Set $pushlet first, and, for a server that asks who calls, `options` (of the
# server) and `login` (of curl). Needs python3 with venv.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/target/contract
work=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/tests/contract/requirements.txt"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
(cd "$work" && exec "$pushlet" serve --simulator --listen "127.0.0.1:$port" "${options[@]}") > "$work/out" 2> "$work/log" &
server=$!
for _ in $(seq 300); do
  curl -fs "$url/healthz" > /dev/null && break
  kill -0 "$server" 2>/dev/null || { cat "$work/out" "$work/log"; exit 1; }
  sleep 0.1
done

register() {
  curl -fsS "${login[@]}" "$url/register_application" "$@" > /dev/null
}
register -F "application_id=my-apns-app" -F "apns_p12=@$work/simulator/apns.p12"
register -F "application_id=my-apns-token-app" -F "apns_p8=@$work/simulator/apns.p8" -F apns_key_id=SIMKEY0001 \
  -F apns_team_id=SIMTEAM001 -F apns_topic=com.example.app
register -F "application_id=my-fcm-app" -F "fcm_service_account=@$work/simulator/fcm-service-account.json"
register -F "application_id=my-gcm-app" -F gcm_api_key=a-key
