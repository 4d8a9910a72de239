#!/usr/bin/env bash
# Runs one Cassandra node in the foreground. The one place that knows its settings; who starts it knows ports, the folder and its end.
#
#   CASSANDRA_PORT=9042 CASSANDRA_STORAGE_PORT=7000 scripts/services/cassandra.sh DIR
#
# SERVICE_ADDRESS     where clients come to, 127.0.0.1
# CASSANDRA_HEAP_MB   768
# CASSANDRA_PASSWORDS yes: clients must log in; the first user is cassandra with the password cassandra
set -euo pipefail
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
libs="${FLYWHEEL_SERVICES:-$HOME/.cache/flywheel-services}/cassandra/libs"
if ! command -v java >/dev/null || ! compgen -G "$libs/cassandra-all-*.jar" >/dev/null; then
  echo "Cassandra is not installed (java, and jars in $libs): run scripts/services/install.sh cassandra" >&2
  exit 1
fi
authenticator=AllowAllAuthenticator authorizer=AllowAllAuthorizer
if [ "${CASSANDRA_PASSWORDS:-}" = yes ]; then authenticator=PasswordAuthenticator authorizer=CassandraAuthorizer; fi

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cat >"$dir/cassandra.yaml" <<YAML
cluster_name: flywheel
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "127.0.0.1:$CASSANDRA_STORAGE_PORT"
listen_address: 127.0.0.1
rpc_address: ${SERVICE_ADDRESS:-127.0.0.1}
storage_port: $CASSANDRA_STORAGE_PORT
native_transport_port: $CASSANDRA_PORT
start_native_transport: true
endpoint_snitch: SimpleSnitch
authenticator: $authenticator
authorizer: $authorizer
# Synced before the answer: one node stands in for three. As shipped (periodic) a kill -9 loses what was acknowledged in the last 100 ms,
# which two other copies would still have.
commitlog_sync: batch
# A dropped keyspace is gone, not kept beside.
auto_snapshot: false
data_file_directories: [$dir/data]
commitlog_directory: $dir/commitlog
saved_caches_directory: $dir/saved_caches
hints_directory: $dir/hints
cdc_raw_directory: $dir/cdc_raw
YAML

exports=(
  java.base/{jdk.internal.misc,jdk.internal.ref,sun.nio.ch,java.lang.ref,java.lang.reflect}
  java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/{sun.rmi.registry,sun.rmi.server} java.sql/java.sql jdk.unsupported/sun.misc
)
opens=(
  java.base/{java.lang.module,jdk.internal.loader,jdk.internal.ref,jdk.internal.reflect,jdk.internal.math,jdk.internal.module,jdk.internal.util.jar}
  java.base/{sun.nio.ch,java.io,java.nio,java.lang,java.util} jdk.management/com.sun.management.internal
)
modules=()
for module in "${exports[@]}"; do modules+=(--add-exports "$module=ALL-UNNAMED"); done
for module in "${opens[@]}"; do modules+=(--add-opens "$module=ALL-UNNAMED"); done

# A cluster of one waits for no gossip, no ring and no first user.
exec java "-Xmx${CASSANDRA_HEAP_MB:-768}m" "-Xms256m" -XX:+UseSerialGC -Xss512k -XX:MaxDirectMemorySize=256m -Djdk.attach.allowAttachSelf=true \
  "-Dcassandra.config=file://$dir/cassandra.yaml" "-Dcassandra.storagedir=$dir" -Dcassandra-foreground=yes \
  "-Dlogback.configurationFile=$here/logback.xml" -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
  -Dcassandra.ring_delay_ms=1 -Dio.netty.tryReflectionSetAccessible=true "${modules[@]}" \
  -cp "$libs/*" org.apache.cassandra.service.CassandraDaemon
