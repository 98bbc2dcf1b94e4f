#!/usr/bin/env bash
# The packages for authors of providers: each is packed and checked by the tools of its registry, without an upload, and
# a stranger's project uses what was packed. The Rust crate is also used by path and by git. Needs rustup, git, node,
# npm and python3.
# usage: tests/sdk.sh [path to the pushlet program]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
pushlet=$(realpath "${1:-$root/target/debug/pushlet}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$root/target/kit"
tools=$(realpath "$root/target/kit")

check() {
  "$pushlet" provider check "$2" > "$work/check" || { cat "$work/check"; echo "$1: it breaks the contract"; exit 1; }
  echo "$1: $(head -1 "$work/check")"
}

# The same crate from another place: it only has to load.
loads() {
  "$pushlet" provider call describe "$2" > "$work/described" || { cat "$work/described"; echo "$1: it does not load"; exit 1; }
  echo "$1: $(grep -m 1 'title:' "$work/described")"
}

# Rust. `cargo publish --dry-run` does this and asks the registry whether the version is there already.
rust() {
  cd "$root"
  # Packages are built in a folder of their own, from what is in them alone.
  cargo package --quiet --allow-dirty --target-dir "$tools/package" -p pushlet-json -p pushlet-provider
  for name in pushlet-json pushlet-provider; do
    tar xzf "$tools/package/package/$name-"*.crate -C "$work"
    ! grep -q 'workspace = true' "$work/$name-"*/Cargo.toml || { echo "$name inherits from a workspace"; exit 1; }
  done
  # The tree as it is, committed or not.
  git clone --quiet "$root" "$work/repository"
  git -C "$root" diff HEAD --binary | git -C "$work/repository" apply --allow-empty
  git -C "$work/repository" -c user.name=x -c user.email=x@localhost commit --quiet --allow-empty -am x
  rust_from check registry "pushlet-provider = \"0.1\"" \
    "[patch.crates-io]
pushlet-json = { path = \"$(echo "$work"/pushlet-json-*)\" }
pushlet-provider = { path = \"$(echo "$work"/pushlet-provider-*)\" }"
  rust_from loads path "pushlet-provider = { path = \"$root/providers/sdk\" }" ''
  rust_from loads git "pushlet-provider = { git = \"file://$work/repository\" }" ''
}

rust_from() {
  mkdir -p "$work/$2/src"
  cd "$work/$2"
  cp "$root/providers/sdk/examples/chat.rs" src/lib.rs
  cat > Cargo.toml << END
[package]
name = "chat"
version = "0.1.0"
edition = "2024"

[workspace]

[lib]
crate-type = ["cdylib"]

[dependencies]
$3
serde_json = "1"

$4
END
  CARGO_TARGET_DIR=$tools/chat cargo build --quiet --release --target wasm32-wasip2
  "$1" "crate by $2" "$tools/chat/wasm32-wasip2/release/chat.wasm"
}

javascript() {
  cd "$root/providers/sdk-js"
  node --test > "$work/test" || { cat "$work/test"; exit 1; }
  npm publish --dry-run --silent
  npm pack --silent --pack-destination "$work" > /dev/null
  rm -f provider.wit
  mkdir "$work/js"
  cd "$work/js"
  cp "$root/tests/sdk/provider.mjs" provider.mjs
  echo '{"name": "stranger", "private": true, "type": "module"}' > package.json
  npm install --silent --no-audit --no-fund "$work"/pushlet-provider-*.tgz componentize-qjs@0.4.5 esbuild@0.28.2 typescript@5.9.3
  npx tsc --noEmit --allowJs --checkJs --strict --target es2022 --lib es2024 --module nodenext --moduleResolution nodenext provider.mjs
  npx esbuild provider.mjs --bundle --format=esm --log-level=warning --outfile=bundle.js
  npx componentize-qjs --sync --wit node_modules/pushlet-provider/provider.wit --world http-provider --js bundle.js --output chat.wasm
  check 'npm package' chat.wasm
}

python() {
  python3 -m venv "$tools/venv-sdk"
  local bin=$tools/venv-sdk/bin
  "$bin/pip" install --quiet build==1.6.1 twine==7.0.0 componentize-py==0.25.1
  cp -r "$root/providers/sdk-python" "$work/sdk-python"
  cp "$root/wit/provider.wit" "$work/sdk-python/pushlet_provider/"
  cd "$work/sdk-python"
  "$bin/python" -m build --outdir "$work/dist" . > "$work/build" 2>&1 || { cat "$work/build"; exit 1; }
  "$bin/twine" check --strict "$work/dist"/*
  "$bin/pip" install --quiet --force-reinstall --no-deps "$work"/dist/*.whl
  mkdir "$work/python"
  cd "$work/python"
  cp "$root/tests/sdk/app.py" .
  local wit
  wit=$("$bin/python" -m pushlet_provider)
  "$bin/componentize-py" -d "$wit" -w http-provider bindings bindings
  PYTHONPATH=bindings "$bin/python" -m unittest discover -s "$root/providers/sdk-python/tests"
  "$bin/componentize-py" -d "$wit" -w http-provider componentize -p . -p "$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" app -o chat.wasm
  check 'PyPI package' chat.wasm
}

rust
javascript
python
echo 'the crate, the npm package and the PyPI package: packed, checked and used'
