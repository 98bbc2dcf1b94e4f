#!/usr/bin/env bash
# What an administrator does with the Debian package: follows "Going live" in operating.md to the letter, reloads, restarts
# under load, restores a backup, upgrades and removes it. Runs where systemd is the first process; tests/packaging.sh
# starts it there. usage: tests/installed.sh, in a directory with the package, operating.md, and the next version in next/
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
base=http://127.0.0.1:9292
control=http://127.0.0.1:9445
config=/etc/pushlet/pushlet.toml
key=/etc/pushlet/registry.key
simulator=/run/simulator
device=00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9

fail() {
  echo "package: $*"
  journalctl --no-pager --unit pushlet | tail -30
  exit 1
}

# Waits until a command succeeds.
until_ok() {
  local what=$1
  shift
  for _ in $(seq 600); do
    "$@" > /dev/null 2>&1 && return
    sleep 0.1
  done
  fail "$what"
}

ready() { until_ok 'the server is not ready' curl -fsS "$base/readyz"; }

application=app-dev

push() {
  curl -sS --max-time 60 -u "me:$(cat /etc/pushlet/password)" -d "device_token=$device&alert=hello&application_id=$application" "$base/send_notification"
}

pushed() { [ "$(push)" = '{"response":"ok"}' ] || fail "a push fails: $(push)"; }

# How many pushes arrived at the simulator.
arrived() { curl -fsS "$control/received?service=apns&limit=10000" | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["received"]))'; }

# Runs the commands of operating.md from one line to another, as they stand there but for what is only an example.
follow() {
  local commands
  commands=$(sed -n "/$1/,/$2/p" operating.md | sed -n '/^```sh$/,/^```$/p' | sed '/^```/d')
  [ -n "$commands" ] || fail "there is nothing to follow from $1"
  commands=$(sed "s/\bKEYID\b/SIMKEY0001/; s/\bTEAMID\b/SIMTEAM001/; s/--to TOKEN/--to $device/" <<< "$commands")
  eval "$commands" > /run/said || fail "$1 fails: $(cat /run/said)"
}

# A step of "Going live", with how long its commands take.
step() {
  local begin=${EPOCHREALTIME/./}
  follow "^\*\*$1\. " "^\*\*$(($1 + 1))\. "
  echo "package: going live, step $1: $(((${EPOCHREALTIME/./} - begin) / 1000)) ms"
}

# As its unit says: it runs, and may do nothing that it need not.
installs() {
  step 1
  [ "$(systemctl is-active pushlet)" = active ] || fail 'the service is not active'
  ready
  [ "$(stat -c '%a %s' "$key")" = '600 64' ] || fail "the key is $(stat -c '%a %s' "$key")"
  local status licence
  status=/proc/$(systemctl show --property MainPID --value pushlet)/status
  grep -qP '^Uid:\t[1-9]' "$status" || fail 'it runs as root'
  grep -qP '^NoNewPrivs:\t1' "$status" && grep -qP '^CapEff:\t0+$' "$status" || fail 'it has rights'
  [ "$(stat -c %a /var/lib/private/pushlet)" = 700 ] || fail 'others can read its data'
  for licence in LICENSE-MIT LICENSE-APACHE; do
    [ -s "/usr/share/doc/pushlet/$licence" ] || fail "$licence is missing"
  done
}

# The servers of the simulator in place of Apple's, a certificate for push.example, and Apple's key.
pretends() {
  pushlet simulator --simulator-dir "$simulator" > /run/simulator.txt &
  until_ok 'the simulator does not run' curl -fsS "$control/"
  install -m 644 "$simulator/ca.pem" /etc/pushlet/simulator-ca.pem
  { printf '# mine\n'; sed -n '/^\[/,$p' /run/simulator.txt | sed "s|$simulator/ca.pem|/etc/pushlet/simulator-ca.pem|"; } >> "$config"
  cp "$simulator/apns.p8" AuthKey.p8
  echo '127.0.0.1 push.example' >> /etc/hosts
  local new=(openssl req -x509 -newkey rsa:2048 -nodes -days 2)
  "${new[@]}" -keyout ca.key -out /usr/local/share/ca-certificates/test.crt -subj /CN=test 2> /dev/null
  "${new[@]}" -CA /usr/local/share/ca-certificates/test.crt -CAkey ca.key -keyout /etc/ssl/private/push.example.key \
    -out /etc/ssl/push.example.pem -subj /CN=push.example -addext subjectAltName=DNS:push.example -addext basicConstraints=critical,CA:FALSE 2> /dev/null
  update-ca-certificates > /dev/null 2>&1
}

# The service reads its secrets by LoadCredential alone: their files are root's. Another secret counts after a restart.
hands_credentials_over() {
  local file uid handed
  uid=$(stat -c %u "/proc/$(systemctl show --property MainPID --value pushlet)")
  for file in registry.key:registry-key password:password admin.key:admin-key; do
    [ "$(stat -c '%u %a' "/etc/pushlet/${file%:*}")" = '0 600' ] || fail "others can read ${file%:*}"
    handed=/run/credentials/pushlet.service/${file#*:}
    [ "$(stat -c '%u %a' "$handed")" = "$uid 400" ] && cmp -s "/etc/pushlet/${file%:*}" "$handed" || fail "$handed is not the service's"
  done
  (umask 077 && openssl rand -hex 24 > /etc/pushlet/password)
  systemctl restart pushlet
  ready
  [ "$(curl -sS -o /dev/null -w '%{http_code}' -u "me:$(cat /etc/pushlet/password)" "$base/v1/status")" = 200 ] || fail 'the new password does not count'
}

goes_live() {
  step 2
  ready
  [ "$(curl -sS -o /dev/null -w '%{http_code}' "$base/v1/status")" = 401 ] || fail 'anybody may call'
  hands_credentials_over
  step 3
  grep -q '"status":"ok"' /run/said || fail "nginx: $(cat /run/said)"
  step 4
  grep -qF '{"application_id":"app-dev"}' /run/said || fail "registered: $(cat /run/said)"
  step 5
  [ "$(arrived)" = 1 ] || fail "the first push: $(cat /run/said)"
  until_ok 'the log does not know the caller behind nginx' sh -c 'journalctl --unit pushlet | grep -q "register_application.*peer=127.0.0.1"'
  pushed
}

reloads() {
  sed -i 's/^format = "text"$/&\nlevel = "debug"/' "$config"
  systemctl reload pushlet
  until_ok 'nothing was reloaded' sh -c 'journalctl --unit pushlet | grep -q "reloaded changed=\"log.level\""'
  pushed
}

# With the socket, connections wait while there is no server. Each push arrives once, and each caller hears of it.
restarts_under_load() {
  local before after said client jobs clients=4 each=30
  step 6
  ready
  before=$(arrived)
  for client in $(seq $clients); do
    for _ in $(seq $each); do push; echo; done > "/run/client.$client" &
    jobs="${jobs:-} $!"
  done
  for _ in 1 2 3; do
    sleep 0.3
    systemctl restart pushlet
  done
  # shellcheck disable=SC2086 # words
  wait $jobs
  said=$(cat /run/client.* | grep -cxF '{"response":"ok"}' || true)
  after=$(arrived)
  [ "$said" = $((clients * each)) ] && [ $((after - before)) = "$said" ] ||
    fail "of $((clients * each)) pushes, $said were answered with ok and $((after - before)) arrived: $(sort /run/client.* | uniq -c)"
}

# The copy knows what was registered before it, and nothing later.
restores() {
  local application=later
  step 7
  curl -sS -u "me:$(cat /etc/pushlet/password)" "$base/register_application" -F "apns_p12=@$simulator/apns.p12" -F application_id=later > /dev/null
  [ "$(push)" = '{"response":"ok"}' ] || fail 'what was registered later does not push'
  follow '^## Backup' '^A newer program'
  ready
  push | grep -q 'application_not_found\|not registered' || fail "the copy knows what came later: $(push)"
  application=app-dev
  pushed
}

# What is the administrator's stays, and so does what was registered.
upgrades() {
  local before
  before=$(cat "$key")
  apt-get install -qq -y ./next/*.deb > /dev/null
  ready
  [ "$(cat "$key")" = "$before" ] && grep -q '# mine' "$config" || fail "an upgrade changed what is the administrator's"
  pushed
}

removes() {
  systemctl disable --quiet --now pushlet.socket
  apt-get remove -qq -y pushlet > /dev/null
  [ ! -e /usr/bin/pushlet ] && [ -e "$key" ] && [ -e /var/lib/private/pushlet ] || fail 'removed too much or too little'
  [ "$(systemctl is-active pushlet)" != active ] || fail 'it still runs'
  apt-get purge -qq -y pushlet > /dev/null
  # What step 2 made.
  rm -f /etc/pushlet/{simulator-ca.pem,password,admin.key}
  rmdir /etc/pushlet 2> /dev/null || true
  [ ! -e /etc/pushlet ] && [ ! -e /var/lib/private/pushlet ] || fail "a purge leaves $(ls /etc/pushlet /var/lib/private/pushlet)"
}

installs
pretends
goes_live
reloads
restarts_under_load
restores
upgrades
removes
echo 'package: installed by apt and run by systemd as "Going live" says, behind nginx; reloaded, restarted under load without a loss, restored, upgraded, removed and purged'
