#!/usr/bin/env bash
# All services of a Flywheel cluster on this machine, without Docker: three Kafka brokers (everything stored three times, two must have it),
# Cassandra, PostgreSQL and Redis, on free ports of 127.0.0.1.
#
#   scripts/services/cluster.sh up DIR      starts what does not run yet, and waits until all of it answers; also after a kill
#   scripts/services/cluster.sh status DIR  what runs, and its process id
#   scripts/services/cluster.sh down DIR    ends everything; ports and data stay for the next `up`
#
# DIR/env is for the shell: KAFKA_BROKERS, CASSANDRA_NODES, POSTGRES_URL, REDIS_URL (with passwords: for its owner only). Each service has a
# folder in DIR with its data, `log` and `pid`. Together they hold about 1.5 GB of memory at first, 4 GB at most.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
services=(kafka-1 kafka-2 kafka-3 cassandra postgres redis)
started=""
start_max_s=180
end_max_s=30

usage() {
  sed -n 's/^#   //p' "$0" >&2
  exit 2
}

# A process by number and start time, since numbers come back. Nothing of one that is dead and not yet reaped.
identity() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 !~ /[ZX]/ { print $20 }'; }
pid_of() {
  local pid began
  read -r pid began 2>/dev/null <"$dir/$1/pid" && [ "$(identity "$pid")" = "$began" ] && echo "$pid"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range that the kernel takes outgoing ports from, so that a service finds its own again.
next_port=$((10000 + RANDOM % 20000))
free_port() {
  while next_port=$((next_port + 1)) && listens $next_port; do :; done
  printf -v "$1" %s $next_port
}

secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# Ports and passwords are chosen once.
settle() {
  local name
  for name in KAFKA_PORT_{1,2,3} CONTROLLER_PORT_{1,2,3} CASSANDRA_PORT CASSANDRA_STORAGE_PORT POSTGRES_PORT REDIS_PORT; do free_port $name; done
  POSTGRES_PASSWORD=$(secret) REDIS_PASSWORD=$(secret)
  KAFKA_CLUSTER=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d =)
  KAFKA_CONTROLLERS=1@127.0.0.1:$CONTROLLER_PORT_1,2@127.0.0.1:$CONTROLLER_PORT_2,3@127.0.0.1:$CONTROLLER_PORT_3
  (
    umask 077
    for name in KAFKA_PORT_{1,2,3} KAFKA_CLUSTER KAFKA_CONTROLLERS CASSANDRA_PORT CASSANDRA_STORAGE_PORT POSTGRES_PORT POSTGRES_PASSWORD \
      REDIS_PORT REDIS_PASSWORD; do printf 'export %s=%s\n' "$name" "${!name}"; done >"$dir/settings"
    cat >"$dir/env.part" <<ENV
export KAFKA_BROKERS=127.0.0.1:$KAFKA_PORT_1,127.0.0.1:$KAFKA_PORT_2,127.0.0.1:$KAFKA_PORT_3
export CASSANDRA_NODES=127.0.0.1:$CASSANDRA_PORT
export POSTGRES_URL=postgres://postgres:$POSTGRES_PASSWORD@127.0.0.1:$POSTGRES_PORT/flywheel
export REDIS_URL=redis://default:$REDIS_PASSWORD@127.0.0.1:$REDIS_PORT/
ENV
    # Last, and whole: it says that there are settings.
    mv "$dir/env.part" "$dir/env"
  )
}

start() {
  local service=$1 node=${1#kafka-} pid
  [ -z "$(pid_of "$service")" ] || return 0
  mkdir -p "$dir/$service"
  if [ "$node" != "$service" ]; then
    local port=KAFKA_PORT_$node
    export KAFKA_NODE=$node KAFKA_PORT=${!port} KAFKA_HEAP_MB=512
  fi
  setsid "$here/${service%-*}.sh" "$dir/$service" </dev/null >>"$dir/$service/log" 2>&1 &
  pid=$!
  echo "$pid $(identity $pid)" >"$dir/$service/pid"
  started+=" $service "
}

is_ready() {
  case $1 in
    kafka-*)
      local port=KAFKA_PORT_${1#kafka-}
      listens "${!port}"
      ;;
    cassandra) listens "$CASSANDRA_PORT" ;;
    postgres) sql postgres 'SELECT 1' >/dev/null 2>&1 ;;
    redis) REDISCLI_AUTH=$REDIS_PASSWORD redis-cli -p "$REDIS_PORT" ping 2>/dev/null | grep -q PONG ;;
  esac
}

sql() { PGPASSWORD=$POSTGRES_PASSWORD PGCONNECT_TIMEOUT=5 psql -qAt -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres -d "$1" -c "$2"; }

up() {
  mkdir -p "$dir"
  # PostgreSQL runs as a user of its own and must reach its folder.
  chmod a+x "$dir"
  [ -e "$dir/env" ] || settle
  # shellcheck disable=SC1091
  source "$dir/settings"
  local service
  for service in "${services[@]}"; do start "$service"; done
  for service in "${services[@]}"; do
    until is_ready "$service"; do
      # One that was still dying when it was looked for.
      [[ -n "$(pid_of "$service")" || $started == *" $service "* ]] || start "$service"
      if [ -z "$(pid_of "$service")" ] || [ $SECONDS -gt $start_max_s ]; then
        echo "$service does not answer; the end of $dir/$service/log:" >&2
        tail -n 20 "$dir/$service/log" >&2
        return 1
      fi
      sleep 0.1
    done
  done
  [ -n "$(sql postgres "SELECT 1 FROM pg_database WHERE datname = 'flywheel'")" ] || sql postgres 'CREATE DATABASE flywheel'
  echo "$dir/env"
}

status() {
  local service pid
  for service in "${services[@]}"; do
    if pid=$(pid_of "$service"); then echo "$service $pid"; else echo "$service -"; fi
  done
}

down() {
  local service pid
  for service in "${services[@]}"; do
    pid=$(pid_of "$service") || continue
    # For PostgreSQL this is the one that does not wait for its clients.
    if [ "$service" = postgres ]; then kill -INT "$pid"; else kill -TERM "$pid"; fi
    # A paused one would take it up only when it goes on.
    kill -CONT -- "-$pid"
  done
  local until=$((SECONDS + end_max_s))
  for service in "${services[@]}"; do
    while pid=$(pid_of "$service"); do
      [ $SECONDS -lt $until ] || kill -KILL -- "-$pid" 2>/dev/null || true
      sleep 0.1
    done
    rm -f "$dir/$service/pid"
  done
}

[ $# = 2 ] || usage
case $1 in up | down | status) ;; *) usage ;; esac
[ "$1" = up ] || [ -d "$2" ] || { echo "there is no $2" >&2; exit 1; }
mkdir -p "$2"
dir=$(cd "$2" && pwd)
"$1"
