#!/usr/bin/env bash
# Installs real services for the tests of adapters and for the cluster demonstration, only what is missing: Apache Kafka and Apache Cassandra
# as jars from Maven Central, PostgreSQL and Redis from the distribution. Starts nothing. Prints where the jars are.
#
#   scripts/services/install.sh [kafka] [cassandra] [postgres] [redis]      all four if none is named
#
# FLYWHEEL_SERVICES is where the jars go, ~/.cache/flywheel-services if it is not set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root="${FLYWHEEL_SERVICES:-$HOME/.cache/flywheel-services}"
[ $# -gt 0 ] || set -- kafka cassandra postgres redis

# What .complete says of an installation of these jars. Their version is in the file.
wanted() { sha256sum "$here/$1.xml" | cut -c1-16; }
is_complete() { [ "$(cat "$root/$1/.complete" 2>/dev/null)" = "$(wanted "$1")" ]; }

packages=()
for service in "$@"; do
  case $service in
    kafka | cassandra)
      command -v java >/dev/null || packages+=(openjdk-17-jre-headless)
      is_complete "$service" || command -v mvn >/dev/null || packages+=(maven)
      ;;
    postgres) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || packages+=(postgresql) ;;
    redis) command -v redis-server >/dev/null || packages+=(redis-server) ;;
    *)
      echo "there is no service $service: kafka, cassandra, postgres, redis" >&2
      exit 2
      ;;
  esac
done
if [ ${#packages[@]} -gt 0 ]; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  echo "installing: ${packages[*]}" >&2
  if ! command -v apt-get >/dev/null; then
    echo "this machine has no apt-get; install the equivalents of: ${packages[*]}" >&2
    exit 1
  fi
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq >&2
  # The distribution would start servers of its own on the well-known ports. Who has a policy about that already keeps it.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
    trap '$sudo rm -f $policy' EXIT
  fi
  # With env, since sudo would not pass a variable that stands before it.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
fi

for service in "$@"; do
  case $service in kafka | cassandra) ;; *) continue ;; esac
  is_complete "$service" && continue
  echo "downloading: $service" >&2
  mkdir -p "$root"
  # Beside and then under its name, so that what a stopped download left is never taken for whole.
  part=$(mktemp -d "$root/$service.XXXXXX")
  mvn -q -B -f "$here/$service.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$part/libs" >&2
  wanted "$service" >"$part/.complete"
  chmod 755 "$part"
  rm -rf "${root:?}/$service"
  mv "$part" "$root/$service"
done
echo "$root"
