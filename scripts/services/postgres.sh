#!/usr/bin/env bash
# Runs PostgreSQL in the foreground: makes its cluster at the first start, then becomes the server. As root it becomes the user postgres,
# since the server refuses to be root. The one place that knows its settings; who starts it knows the port, the folder and its end.
#
#   POSTGRES_PORT=5432 POSTGRES_PASSWORD=SECRET scripts/services/postgres.sh DIR
#
# SERVICE_ADDRESS is where clients come to, 127.0.0.1 if not set. The first user is postgres. Everybody needs a password, so that a wrong one is refused as it is elsewhere.
set -euo pipefail
dir=$1
bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)
if [ -z "$bin" ] && command -v initdb >/dev/null; then bin=$(dirname "$(command -v initdb)"); fi
if [ -z "$bin" ]; then
  echo "PostgreSQL is not installed: run scripts/services/install.sh postgres" >&2
  exit 1
fi
as=()
mkdir -p "$dir"
if [ "$(id -u)" = 0 ]; then
  # The signal that comes when the starter dies is lost with the credentials unless it is kept.
  as=(setpriv --reuid=postgres --regid=postgres --init-groups --pdeathsig keep)
  chown postgres: "$dir"
fi
cd "$dir"
dir=$(pwd)
if [ ! -e "$dir/data/PG_VERSION" ]; then
  # Beside and then under its name, so that what a stopped start left is never taken for whole.
  rm -rf "$dir/part"
  (umask 077 && echo "$POSTGRES_PASSWORD" >"$dir/password")
  if [ "$(id -u)" = 0 ]; then chown postgres: "$dir/password"; fi
  "${as[@]}" "$bin/initdb" -D "$dir/part" -U postgres -A scram-sha-256 --pwfile="$dir/password" \
    -E UTF8 --locale=C.UTF-8 --no-sync --no-instructions >/dev/null
  rm "$dir/password"
  echo 'host all all samenet scram-sha-256' >>"$dir/part/pg_hba.conf"
  mv "$dir/part" "$dir/data"
fi
exec "${as[@]}" "$bin/postgres" -D "$dir/data" -p "$POSTGRES_PORT" -c listen_addresses="${SERVICE_ADDRESS:-127.0.0.1}" -c unix_socket_directories= \
  -c max_connections=200 -c log_min_messages=warning -c timezone=UTC
