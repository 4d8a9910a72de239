#!/usr/bin/env bash
# Published SDKs, unmodified, against the running binary: each sends one event of every type, and each must be there exactly once.
# Needs FLYWHEEL_BIN. Installs the SDKs into FLYWHEEL_CACHE (default ~/.cache/flywheel) when they are missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${FLYWHEEL_BIN:?name the flywheel binary to test}"
cache=${FLYWHEEL_CACHE:-$HOME/.cache/flywheel}/sdk
work=$(mktemp -d)
server=

finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
  rm -rf "$work"
}
trap finish EXIT

# The stamp is the list of versions itself: another list, another install.
install_python() {
  cmp -s "$here/requirements.txt" "$cache/python/installed" && return
  rm -rf "$cache/python"
  mkdir -p "$cache"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$cache/python/installed"
}

install_node() {
  cmp -s "$here/package.json" "$cache/node/installed" && return
  rm -rf "$cache/node"
  mkdir -p "$cache/node"
  cp "$here/package.json" "$cache/node/"
  # No install scripts: none of these packages needs one.
  (cd "$cache/node" && npm install --silent --no-audit --no-fund --ignore-scripts)
  cp "$here/package.json" "$cache/node/installed"
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

# Every message of the run exactly once, of the type its name says, and nothing besides.
check() {
  local run=$1 found wanted
  wanted=$(printf '%s\n' "$run-alias,alias,1" "$run-anonymous,track,1" "$run-group,group,1" "$run-identify,identify,1" \
    "$run-page,page,1" "$run-screen,screen,1" "$run-track,track,1")
  for _ in $(seq 100); do
    found=$(query "SELECT message_id, type, count(*) FROM events WHERE message_id LIKE '$run-%' GROUP BY 1, 2 ORDER BY 1")
    [ "$found" != "$wanted" ] || break
    sleep 0.1
  done
  if [ "$found" != "$wanted" ]; then
    printf '%s: wanted\n%s\nfound\n%s\n' "$run" "$wanted" "$found" >&2
    exit 1
  fi
  # Identified: what the device did before belongs to the user.
  "$FLYWHEEL_BIN" --data "$work/data" trace "$run-track" | grep -q "$run-user" || { echo "$run: trace does not name the user" >&2; exit 1; }
  echo "$run: 7 events of 6 types, each exactly once"
}

install_python
install_node
start_server
key=development
export SDK_MODULES="$cache/node"
for gzip in plain gzip; do
  "$cache/python/bin/python" "$here/segment_python.py" "$url" "$key" "segment-python-$gzip" "$gzip"
  check "segment-python-$gzip"
done
"$cache/python/bin/python" "$here/rudder_python.py" "$url" "$key" rudder-python
check rudder-python
node "$here/segment_node.mjs" "$url" "$key" segment-node
check segment-node
node "$here/rudder_node.mjs" "$url" "$key" rudder-node
check rudder-node
