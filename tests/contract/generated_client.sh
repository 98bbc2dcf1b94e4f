#!/usr/bin/env bash
# A client that a public generator makes of /openapi.json registers an application, sends to it through the
# simulator, and reads what became of it. usage: tests/contract/generated_client.sh [path to the pushlet program]
set -euo pipefail
pushlet=$(realpath "${1:-$(dirname "$0")/../../target/debug/pushlet}")
here=$(cd "$(dirname "$0")" && pwd)
options=()
login=()
# shellcheck source-path=SCRIPTDIR
. "$here/server.sh"

"$venv/bin/openapi-python-client" generate --url "$url/openapi.json" --config "$here/client.yaml" --meta none \
  --output-path "$work/generated_pushlet"
PYTHONPATH=$work "$venv/bin/python" "$here/client.py" "$url" "$work/simulator"
