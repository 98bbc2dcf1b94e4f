#!/usr/bin/env bash
# Builds what is shipped for one architecture, into target/packages: the Debian package, a tarball of the program with
# its documents, the bill of materials (CycloneDX), checksums. The program needs nothing but glibc 2.28 or newer, which
# every distribution has had since 2018: zig links against that version whatever this machine has, and links for another
# architecture too. Not musl: there jemalloc has no background threads, so that memory is not given back at rest.
# Needs rustup, python3 and pip, a git clone. COUNTS: a file of profile.sh, by which the code is laid out; without, it
# is made first, for the profile `dist` and the architecture of this machine (for another one nothing can be counted).
# usage: [COUNTS=FILE] host/packaging/build.sh [x86_64|aarch64] [profile of cargo]
set -euo pipefail
cd "$(dirname "$0")/../.."
architecture=${1:-$(uname -m)}
profile=${2:-dist}
target=$architecture-unknown-linux-gnu
glibc=2.28
tools=$PWD/target/packaging-tools
out=$PWD/target/packages
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
PUSHLET_COMMIT=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export PUSHLET_COMMIT SOURCE_DATE_EPOCH
# Kernels for this architecture have pages of up to 64 KiB, and jemalloc must know the largest.
export JEMALLOC_SYS_WITH_LG_PAGE=$([ "$architecture" = aarch64 ] && echo 16 || echo 12)

python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1 cargo-zigbuild==0.24.1
for tool in cargo-deb:3.8.0 cargo-cyclonedx:0.5.9; do
  command -v "${tool%:*}" > /dev/null || cargo install --locked --quiet "${tool%:*}" --version "${tool#*:}"
done
rustup target add "$target" 2> /dev/null
export PATH=$tools/bin:$PATH
mkdir -p "$out"
name=pushlet-$version-$architecture-linux
counts=${COUNTS:-}
if [ -z "$counts" ] && [ "$profile" = dist ] && [ "$architecture" = "$(uname -m)" ]; then
  counts=$out/$name.profdata
  host/packaging/profile.sh "$counts" "$target" "$glibc"
fi
if [ -n "$counts" ]; then
  # Cargo sees that the file is another by its name alone.
  named=$tools/counts-$(sha256sum < "$counts" | cut -c1-16).profdata
  cp "$counts" "$named"
  # Functions that the counts do not know, or that have changed since, are built as without.
  flags=(-Cprofile-use="$named" -Cllvm-args=-no-pgo-warn-mismatch)
  # What was run often lies together, and what was never run, though in a function that was, lies behind everything
  # else. What was run once, as for the start, counts as run.
  flags+=(-Cllvm-args=-profile-summary-cold-count=0 -Cllvm-args=-enable-split-machine-functions -Cllvm-args=-mfs-psi-cutoff=0)
  flags+=(-Clink-arg=-Wl,-T,"$PWD/host/packaging/layout.ld")
  export RUSTFLAGS="${RUSTFLAGS:-} ${flags[*]}"
fi
cargo zigbuild --locked --profile "$profile" --target "$target.$glibc" -p pushlet --features precompiled

# One file next to each manifest, of which one is the program's.
cargo cyclonedx --manifest-path host/Cargo.toml --format json --spec-version 1.5 --target "$target" --no-build-deps --quiet
mv host/pushlet.cdx.json "$out/$name.cdx.json"
git ls-files --others --ignored --exclude='*.cdx.json' --exclude-standard -- '*.cdx.json' ':!target' | xargs -r rm --

# The profile strips, and this machine's `strip` knows no other architecture.
cargo deb -p pushlet --no-build --no-strip --profile "$profile" --target "$target" --output "$out/$name.deb"

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/$name"
cp "target/$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/pushlet" pushlet.example.toml README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE \
  host/packaging/pushlet.service host/packaging/pushlet.socket "$out/$name.cdx.json" "$tree/$name/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$tree" -cz -f "$out/$name.tar.gz" "$name"
(cd "$out" && sha256sum "$name".* > "$name.sha256")
ls -l "$out/$name".*
