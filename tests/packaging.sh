#!/usr/bin/env bash
# What is shipped, as an administrator has it: the Debian package installed by apt and run by systemd, the image's root
# read-only and without rights, the units checked by systemd, the chart by Helm. Needs root for package and image.
# usage: tests/packaging.sh [path to the pushlet program]
set -euo pipefail
cd "$(dirname "$0")/.."
pushlet=$(realpath "${1:-target/debug/pushlet}")
work=$(mktemp -d)
# shellcheck source=tests/machine.sh
. tests/machine.sh
trap 'machine_end; rm -rf "$work"' EXIT
packaging=host/packaging

# systemd's own check, on copies whose program exists.
units() {
  command -v systemd-analyze >/dev/null || { echo 'units: not checked, there is no systemd-analyze'; return; }
  mkdir -p "$work/units"
  for unit in pushlet.service pushlet.socket; do
    sed "s|/usr/bin/pushlet|$pushlet|" "$packaging/$unit" > "$work/units/$unit"
  done
  systemd-analyze verify "$work/units/pushlet.service" "$work/units/pushlet.socket"
  local exposure
  exposure=$(systemd-analyze security --offline=true --no-pager "$packaging/pushlet.service" | sed -nE 's/.*exposure level for [^ ]+ ([0-9.]+).*/\1/p')
  awk -v exposure="$exposure" 'BEGIN { exit !(exposure > 0 && exposure < 2) }' || { echo "units: exposure $exposure"; return 1; }
  echo "units: sound, exposure $exposure of 10"
}

# The configuration of the package is one that the program takes.
configuration() {
  (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$work/registry-key")
  sed "s|/run/credentials/pushlet.service/registry-key|$work/registry-key|; s|/var/lib/pushlet|$work/data|" \
    "$packaging/pushlet.toml" > "$work/pushlet.toml"
  "$pushlet" check-config --config "$work/pushlet.toml" > /dev/null
  echo 'configuration: taken'
}

# The pushes by which packages are laid out arrive: those of profile.sh.
load() {
  local server
  "$pushlet" serve --simulator --simulator-dir "$work/simulator" > "$work/load.out" 2> "$work/load.log" &
  server=$!
  "$packaging/load.py" http://127.0.0.1:9292 "$work/simulator" 0.5 || { tail -5 "$work/load.log"; kill $server; return 1; }
  kill -TERM $server && wait $server
  echo 'load: sent'
}

# The package of `cargo deb`, on a machine with systemd: tests/installed.sh.
package() {
  local obstacle
  [ -x /lib/systemd/systemd ] || [ "$(id -u)" != 0 ] || { apt-get update -qq && apt-get install -qq -y systemd > /dev/null; }
  obstacle=$(machine_obstacle)
  [ -z "$obstacle" ] || { echo "package: not installed, $obstacle"; return; }
  command -v cargo-deb > /dev/null || cargo install --locked --quiet --debug cargo-deb --version 3.8.0
  local packages=$work/packages name version
  mkdir -p "$packages/next"
  # What is there is packaged: nothing is built.
  mkdir -p target/packaging
  objcopy --strip-debug "$pushlet" target/packaging/pushlet
  for name in pushlet-0.1.0-linux:0.1.0 next/pushlet:0.1.1; do
    version=${name#*:}
    cargo deb --quiet -p pushlet --no-build --no-strip --fast --profile packaging --deb-version "$version" --output "$packages/${name%:*}.deb"
  done
  # For a machine without a network.
  apt-get update -qq
  apt-get install -qq -y --download-only nginx openssl > /dev/null
  machine_boot "$work/machine"
  machine_run mkdir -p /run/test
  tar -C "$packages" -c . -C "$PWD/tests" installed.sh -C "$PWD/host/docs" operating.md | machine_run tar -C /run/test -x
  machine_run sh -c 'cd /run/test && exec ./installed.sh'
  machine_end
}

# The image's root: the program with what it needs, no shell, no users. It runs as in a container with a read-only root,
# without rights, as user 65532, and writes to /data and /tmp alone. There is no container engine here.
image() {
  [ "$(id -u)" = 0 ] || { echo 'image: not tried, this is not root'; return; }
  local tree=$work/image
  mkdir -p "$tree/usr/bin" "$tree/etc/pushlet" "$tree/data" "$tree/proc" "$tree/tmp"
  cp "$pushlet" "$tree/usr/bin/pushlet"
  # A static program needs none.
  { ldd "$pushlet" || true; } | { grep -oE '/[^ ]+' || true; } | sort -u | xargs -r -I{} cp -L --parents {} "$tree"
  cp -L --parents /etc/ssl/certs/ca-certificates.crt "$tree"
  (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$tree/etc/pushlet/registry-key")
  chown 65532:65532 "$tree/etc/pushlet/registry-key" "$tree/data"
  printf 'data_dir = "/data/pushlet"\n[registry]\nkey_file = "/etc/pushlet/registry-key"\n' > "$tree/etc/pushlet/pushlet.toml"
  # As the Dockerfile starts it, with the simulator for this test.
  local command
  command=$(sed -nE 's/^(ENTRYPOINT|CMD) \[(.*)\]$/\2/p' "$packaging/Dockerfile" | tr -d '",' | tr '\n' ' ')
  unshare --mount --propagation private --net --pid --fork bash -euc "$(declare -f in_image); in_image \"\$@\"" image "$tree" "$work" \
    $command --simulator --simulator-dir /data/simulator
  echo 'image: pushes, and keeps what is registered, as user 65532 with a read-only root'
}

# Starts the command twice; the second one knows what was registered with the first.
in_image() {
  local tree=$1 work=$2 device=00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9 turn server answer
  shift 2
  ip link set lo up
  mount --bind "$tree" "$tree"
  mount -t proc proc "$tree/proc"
  mount -t tmpfs tmpfs "$tree/tmp"
  mount --bind "$tree/data" "$tree/data"
  mount -o remount,bind,ro "$tree"
  ! touch "$tree/etc/x" 2> /dev/null || { echo 'image: its root can be written'; exit 1; }
  for turn in 1 2; do
    setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot --userspec=65532:65532 --groups= "$tree" "$@" \
      > "$work/image.out" 2> "$work/image.log" &
    server=$!
    for _ in $(seq 600); do
      curl -fsS http://127.0.0.1:9292/readyz > /dev/null 2>&1 && break
      kill -0 $server || { cat "$work/image.out" "$work/image.log"; exit 1; }
      sleep 0.1
    done
    grep -qP '^Uid:\t65532\t65532\t65532' "$tree/proc/$server/status" || { echo 'image: it is another user'; exit 1; }
    [ $turn = 2 ] || curl -sS -o /dev/null -F "apns_p12=@$tree/data/simulator/apns.p12" -F application_id=shop http://127.0.0.1:9292/register_application
    answer=$(curl -sS -d "device_token=$device&alert=hello&application_id=shop" http://127.0.0.1:9292/send_notification)
    [ "$answer" = '{"response":"ok"}' ] && curl -fsS http://127.0.0.1:9445/received | grep -q "$device" || {
      echo "image: $answer"
      cat "$work/image.log"
      exit 1
    }
    kill -TERM $server && wait $server
  done
}

# By Helm's own library and Kubernetes' schemas: tests/chart.py. The variables that it sets are keys of the program.
chart() {
  local chart=$packaging/helm variables
  python3 -m venv "$work/python"
  "$work/python/bin/pip" install --quiet --disable-pip-version-check helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 PyYAML==6.0.4
  "$work/python/bin/python" tests/chart.py "$chart"
  variables=$(grep -ohE 'PUSHLET_[A-Z_]+' "$chart"/templates/*.yaml | sort -u)
  "$pushlet" serve --help > "$work/help"
  for variable in $variables; do
    grep -qF "[env: $variable" "$work/help" || grep -qF -- "--$(tr 'A-Z_' 'a-z-' <<< "${variable#PUSHLET_}")" "$work/help" || {
      echo "chart: the program knows no $variable"
      return 1
    }
  done
  echo 'chart: sound'
}

units
configuration
load
chart
image
package
