#!/usr/bin/env bash
# The published confluent-kafka[avro] client, unmodified, against our schema registry: what it serializes must be decoded, each event once,
# and what nobody can read must be a dead letter with its reason. Records come to the inbox by import: no broker is needed.
# Needs FLYWHEEL_BIN. Installs the client into FLYWHEEL_CACHE (default ~/.cache/flywheel) when it is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${FLYWHEEL_BIN:?name the flywheel binary to test}"
cache=${FLYWHEEL_CACHE:-$HOME/.cache/flywheel}/registry
work=$(mktemp -d)
server=

finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
  rm -rf "$work"
}
trap finish EXIT

# The stamp is the list of versions itself: another list, another install.
install() {
  cmp -s "$here/requirements.txt" "$cache/python/installed" && return
  rm -rf "$cache/python"
  mkdir -p "$cache"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$cache/python/installed"
}

start_server() {
  "$FLYWHEEL_BIN" --data "$work/data" up --listen 127.0.0.1:0 >"$work/out" 2>"$work/err" &
  server=$!
  for _ in $(seq 600); do
    url=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$work/out" "$work/err" | head -n 1)
    [ -z "$url" ] || return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  echo "the server did not come up:" >&2
  cat "$work/out" "$work/err" >&2
  exit 1
}

query() {
  "$FLYWHEEL_BIN" --data "$work/data" query --format csv "$1" | tail -n +2 | tr -d '\r'
}

# What a query finds in the end.
check() {
  local what=$1 wanted=$2 sql=$3 found
  for _ in $(seq 100); do
    found=$(query "$sql")
    [ "$found" != "$wanted" ] || break
    sleep 0.1
  done
  if [ "$found" != "$wanted" ]; then
    printf '%s: wanted\n%s\nfound\n%s\n' "$what" "$wanted" "$found" >&2
    cat "$work/err" >&2
    exit 1
  fi
  echo "$what: as it should be"
}

install
export FLYWHEEL_INBOX__PARTITIONS=2
export FLYWHEEL_SOURCES='[{name = "shop", write_key = "shop-key", tenant = "acme", namespace = "main"}]'
export FLYWHEEL_API_KEYS='[{api_key = "registry-key", tenant = "acme", namespace = "main"}]'
start_server
"$cache/python/bin/python" "$here/producer.py" "$url/registry" registry-key "$work/records.ndjson"
"$FLYWHEEL_BIN" --data "$work/data" topic import main.inbox "$work/records.ndjson" >/dev/null
check "events of Avro, each once" "$(printf 'avro-%s,track,Order Completed,ada,1\n' 1 2 3 4 5)" \
  "SELECT message_id, type, event_name, user_id, count(*) FROM events GROUP BY 1, 2, 3, 4 ORDER BY 1"
check "what nobody can read" "$(printf 'decoder,%s\n' undecodable unknown_schema)" \
  "SELECT stage, reason FROM dead_letters ORDER BY 2"
# The numbers are the log's: another process gives the same.
kill "$server" && wait "$server" || true
start_server
"$cache/python/bin/python" - "$url/registry" <<'PYTHON'
import sys
from confluent_kafka.schema_registry import SchemaRegistryClient
registry = SchemaRegistryClient({"url": sys.argv[1], "basic.auth.user.info": "registry-key:"})
assert registry.get_versions("main.inbox-value") == [1, 2, 3]
assert registry.get_version("main.inbox-value", 2).schema_id == 2
print("the same numbers after a restart: as it should be")
PYTHON
