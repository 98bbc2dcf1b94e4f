#!/usr/bin/env bash
# Holds the running server against its own /openapi.json: the document must be a valid one, and to thousands of
# requests, right and wrong ones, every answer must be one that it tells of, none of them an error of the server's.
# usage: tests/contract/run.sh [path to the pushlet program]
set -euo pipefail
pushlet=$(realpath "${1:-$(dirname "$0")/../../target/debug/pushlet}")
here=$(cd "$(dirname "$0")" && pwd)
options=(--auth-username me --auth-password sesame --admin-key the-operators-own-key)
login=(-u me:sesame)
# shellcheck source-path=SCRIPTDIR
. "$here/server.sh"

curl -fsS "${login[@]}" "$url/openapi.json" -o "$work/openapi.json"
"$venv/bin/openapi-spec-validator" "$work/openapi.json"
cd "$work"
SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 "$venv/bin/schemathesis" run "$url/openapi.json" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,lines_conform \
  --auth me:sesame --phases examples,coverage,fuzzing --max-examples 40 --max-time 75 --request-timeout 20 \
  --workers 2 --warnings off --no-color
# It ends in order, after all that.
kill -TERM "$server"
wait "$server"
if grep -E 'panic|unexpected_error' "$work/log"; then exit 1; fi
