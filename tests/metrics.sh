#!/usr/bin/env bash
# Prometheus' own tool checks what a running server exports and the alert rules, and every metric that a rule or the
# dashboard names is one that the program has. Needs promtool, of the Debian package prometheus.
# usage: tests/metrics.sh [path to the pushlet program]
set -euo pipefail
cd "$(dirname "$0")/.."
pushlet=$(realpath "${1:-target/debug/pushlet}")
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

promtool=$(command -v promtool) || {
  # Without the server that the package starts.
  (cd "$work" && apt-get download -qq prometheus 2>/dev/null && dpkg -x prometheus_*.deb prometheus)
  promtool=$work/prometheus/usr/bin/promtool
}
"$promtool" check rules host/api/assets/alerts.yml

"$pushlet" serve --listen 127.0.0.1:0 --limits-tenant-pushes-per-second 1000 2> "$work/log" &
server=$!
for _ in $(seq 600); do
  base=$(sed -n 's/.*is listening on \(http[^ ]*\).*/\1/p' "$work/log" | head -1)
  [ -n "$base" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log"; exit 1; }
  sleep 0.1
done
# So that all that an application has is there.
curl -fsS -o /dev/null -F gcm_api_key=key -F application_id=app "$base/register_application"
curl -sS -o /dev/null -d 'device_token=a&application_id=app&data={' "$base/send_notification"
curl -fsS "$base/metrics" > "$work/metrics"
"$promtool" check metrics < "$work/metrics"

names=$(grep -ohE '\b(pushlet|process)_[a-z_]+' host/api/assets/alerts.yml host/api/assets/grafana.json | sort -u)
# Series that need a push, a refusal, a certificate or a failure.
for name in $names; do
  plain=${name%_bucket}
  grep -q "^# TYPE ${plain%_sum} \|^# TYPE $plain " "$work/metrics" || grep -rqF "\"$(sed -E 's/^pushlet_//; s/_total$//' <<< "$plain")\"" host/gateway/src host/api/src || {
    echo "no metric is called $name"
    exit 1
  }
done
echo "metrics: $(grep -c '^# TYPE' "$work/metrics") names are by convention, and those of the rules and the dashboard exist"
