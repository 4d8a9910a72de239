#!/usr/bin/env bash
# Runs the commands of README.md as they are written, in a temporary folder, against the binary in $FLYWHEEL_BIN. A command that fails fails the test.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${FLYWHEEL_BIN:?the path of a built flywheel}
work=$(mktemp -d)
server=""
finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  rm -rf "$work"
}
trap finish EXIT
mkdir -p "$work/target/release" "$work/topologies"
ln -s "$bin" "$work/target/release/flywheel"
cp "$root"/topologies/*.toml "$work/topologies/"
cp "$root/topologies/spine.toml" "$work/shop.toml"
cp "$root/topologies/workflows/winback.toml" "$work/winback.toml"
printf 'From: ada@example.com\r\nSubject: Re: Hi\r\n\r\nThanks!\r\n' >"$work/bounce.eml"
printf 'customer,date,amount\nada,2026-01-05,12.50\ngrace,2026-02-11,99.00\n' >"$work/orders.csv"
cd "$work"
export PATH="$work/target/release:$PATH"
passed=0

# Starts `flywheel up` with the given arguments on a free port; sets server and url.
start() {
  FLYWHEEL_SERVER__LISTEN=127.0.0.1:0 "$bin" up "$@" >server.out 2>server.err &
  server=$!
  for _ in $(seq 200); do
    url=$(sed -n 's/^listening on //p' server.out)
    [ -z "$url" ] || return 0
    kill -0 "$server" 2>/dev/null || { cat server.err; exit 1; }
    read -rt 0.05 <> <(:) || true
  done
  echo "the server did not listen in 10 s"; cat server.err; exit 1
}
stop() { kill "$server"; wait "$server"; server=""; }

run() {
  local command=${1//http:\/\/127.0.0.1:8080/$url}
  # RUN stands for any run's id.
  if [[ $command == *" RUN"* ]]; then
    command=${command//RUN/$("$bin" query "SELECT run_id FROM workflow_runs LIMIT 1" --format json | grep -o '[0-9a-f]\{32\}' | head -1)}
  fi
  echo "\$ $command"
  bash -c "$command" >out.txt 2>err.txt || { echo "failed: $command"; cat out.txt err.txt; exit 1; }
  passed=$((passed + 1))
}

# The configured server first, on a folder of its own: it must start, and that is all.
sed -n '/^```toml/,/^```/p' "$root/README.md" | sed '/^```/d' >flywheel.toml
start --config flywheel.toml --data configured
stop
mv flywheel.toml configured.toml
passed=$((passed + 1))

start
while IFS= read -r command; do
  case $command in
    make\ *|*"flywheel up"*) ;;
    *) run "$command" ;;
  esac
done < <(sed -n '/^```sh/,/^```/p' "$root/README.md" | sed '/^```/d; s/ *#.*//')

# Every command in the tables, in their order; \` ends one.
while IFS= read -r command; do
  case $command in
    *bench*) run "flywheel bench --list" ;;
    *) run "$command" ;;
  esac
done < <(grep '^|' "$root/README.md" | grep -o '`flywheel [^`]*`' | tr -d '`')
run "flywheel config show"
stop

# And the demonstration, twice: the second time it explains itself.
run "flywheel --data demo demo"
run "flywheel --data demo demo"
grep -q 'nothing is sent again' err.txt || { echo "the second demonstration did not say that it sends nothing again"; cat err.txt; exit 1; }
echo "$passed passed, 0 failed"
