#!/usr/bin/env bash
# Runs Redis in the foreground. The one place that knows its settings; who starts it knows the port, the folder and its end.
#
#   REDIS_PORT=6379 REDIS_PASSWORD=SECRET scripts/services/redis.sh DIR
#
# SERVICE_ADDRESS is where clients come to, 127.0.0.1 if not set. What it holds survives its own restart: losing it is a test of its own (FLUSHALL), not an accident.
set -euo pipefail
dir=$1
if ! command -v redis-server >/dev/null; then
  echo "Redis is not installed: run scripts/services/install.sh redis" >&2
  exit 1
fi
mkdir -p "$dir"
# By standard input: an argument is seen by everybody who lists processes.
exec redis-server - <<CONFIG
port $REDIS_PORT
bind ${SERVICE_ADDRESS:-127.0.0.1}
dir $(cd "$dir" && pwd)
requirepass $REDIS_PASSWORD
save ""
appendonly yes
maxmemory 256mb
maxmemory-policy allkeys-lru
loglevel warning
CONFIG
