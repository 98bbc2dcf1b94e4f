#!/usr/bin/env bash
# Installs nats-server into target/nats, where the tests of a fleet look for it. Needs python3 with venv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$here/../../target/nats
[ -x "$target/bin/python" ] || python3 -m venv "$target"
"$target/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
"$target/bin/nats-server" --version
