# Sourced: a machine of its own in namespaces, whose root is a copy-on-write view of this one's and whose first process is
# systemd. It has no network but loopback. Needs root, overlayfs and cgroup2.

# Says why there can be no such machine here, and nothing if there can.
machine_obstacle() {
  local needed
  [ "$(id -u)" = 0 ] || { echo 'this is not root'; return; }
  [ -x /lib/systemd/systemd ] || { echo 'there is no systemd'; return; }
  for needed in overlay cgroup2; do
    grep -qw "$needed" /proc/filesystems || { echo "the kernel has no $needed"; return; }
  done
  unshare --mount --pid --fork --uts --ipc --net --cgroup true 2> /dev/null || echo 'namespaces are not allowed'
}

# Boots it; everything that it changes is in DIRECTORY. Sets MACHINE. usage: machine_boot DIRECTORY
machine_boot() {
  local directory=$1 first
  mkdir -p "$directory/changes" "$directory/work" "$directory/root"
  unshare --mount --propagation private --pid --fork --uts --ipc --net --cgroup \
    bash -euc "$(declare -f machine_first); machine_first \"\$1\"" machine "$directory" > "$directory/boot.log" 2>&1 &
  first=$!
  for _ in $(seq 300); do
    MACHINE=$(ps -o pid= --ppid "$first" 2> /dev/null | tr -d ' ' || true)
    [ -n "$MACHINE" ] && machine_run systemctl is-system-running 2> /dev/null | grep -qE 'running|degraded' && return
    kill -0 "$first" 2> /dev/null || break
    sleep 0.1
  done
  cat "$directory/boot.log"
  return 1
}

# Runs a command there. Standard input and output are the caller's.
machine_run() {
  nsenter --target "$MACHINE" --mount --pid --uts --ipc --net --cgroup --wd=/ -- \
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
}

# Ends it at once.
machine_end() {
  [ -z "${MACHINE:-}" ] || kill -KILL "$MACHINE"
  MACHINE=
}

# What the first process does before it becomes systemd.
machine_first() {
  local root=$1/root device
  mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 console:5:1; do
    IFS=: read -r name major minor <<< "$device"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
  ln -s pts/ptmx "$root/dev/ptmx"
  mkdir "$root/dev/shm" "$root/dev/pts" "$root/dev/mqueue"
  mount -t tmpfs tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  mount -t mqueue mqueue "$root/dev/mqueue"
  ip link set lo up
  # Nothing but what systemd itself needs: not the services of this machine.
  printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' > "$root/etc/systemd/system/machine.target"
  # What starts packaged services, which an image may have forbidden.
  rm -f "$root/usr/sbin/policy-rc.d"
  mkdir -p "$root/.outside"
  cd "$root"
  pivot_root . .outside
  umount -l /.outside
  # In a container, systemd leaves this to whoever made it. Without it, no service sees its credentials.
  mount --make-rshared /
  exec env -i container=machine PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=machine.target --show-status=0 < /dev/null
}
