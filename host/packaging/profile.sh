#!/usr/bin/env bash
# Counts which code pushes run through, for build.sh: builds the program with counters, sends pushes on every route
# through it to the simulators of the push services, and merges what was counted. A program that is built by these
# counts needs two fifths less processor time for a push. Takes as long as a build. The compiler finds the counts of a
# function by its name, so all is built as build.sh builds it, with the same linker and target.
# Needs what build.sh has set up: it calls this.
# usage: host/packaging/profile.sh FILE TARGET GLIBC
set -euo pipefail
cd "$(dirname "$0")/../.."
file=${1:?where the counts go}
target=${2:?the target of cargo}
glibc=${3:?the version of glibc}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$work"' EXIT
rustup component add llvm-tools 2> /dev/null
# It takes this machine's Python before any zig that it is given.
export CARGO_ZIGBUILD_PYTHON_PATH=false CARGO_ZIGBUILD_ZIG_PATH=$PWD/host/packaging/zig
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate" cargo zigbuild --locked --profile dist --target "$target.$glibc" \
  --target-dir target/profiling -p pushlet --features precompiled
program=target/profiling/$target/dist/pushlet

# What the simulator runs through is not counted.
LLVM_PROFILE_FILE=/dev/null "$program" simulator --simulator-dir "$work/simulator" > "$work/simulator.txt" &
until grep -q '^\[endpoints.webpush\]' "$work/simulator.txt"; do kill -0 $!; sleep 0.1; done

# Counts a server with this isolation while it serves load.py with these arguments.
count() {
  { echo 'listen = "127.0.0.1:9290"'; sed -n '/^\[tls\]/,$p' "$work/simulator.txt"; printf '[sandbox]\nisolation = "%s"\n' "$1"; } \
    > "$work/pushlet.toml"
  LLVM_PROFILE_FILE=$work/counts-$1-%m.profraw "$program" serve --config "$work/pushlet.toml" 2> "$work/log" &
  local server=$!
  host/packaging/load.py http://127.0.0.1:9290 "$work/simulator" "${@:2}"
  # It writes the counts at its end.
  kill -TERM "$server"
  wait "$server"
}
count warm 6
count per-call 3 token
# What compiles an upload is not to be kept small as if nobody waited for it.
LLVM_PROFILE_FILE=$work/counts-compile-%m.profraw "$program" provider check "target/profiling/$target/components/built-in/gcm.wasm"
"$(rustc --print sysroot)/lib/rustlib/$target/bin/llvm-profdata" merge -o "$file" "$work"/counts-*.profraw
