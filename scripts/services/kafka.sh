#!/usr/bin/env bash
# Runs one Kafka broker, which is a KRaft controller too, in the foreground: formats its folder at the first start, then becomes the broker.
# The one place that knows a broker's settings; who starts it (tests/it/services, cluster.sh) knows ports, folders and its end.
#
#   KAFKA_NODE=1 KAFKA_PORT=9092 KAFKA_CONTROLLERS=1@127.0.0.1:9093 KAFKA_CLUSTER=ID scripts/services/kafka.sh DIR
#
# KAFKA_CONTROLLERS names every node; with three or more of them what is stored is stored three times, and two must have it.
# KAFKA_CLUSTER     22 characters of base64, the same on every node
# SERVICE_ADDRESS   where clients come to, 127.0.0.1
# KAFKA_DATA        where the log is, DIR/data if not set: a small disk, say
# KAFKA_HEAP_MB     512
# KAFKA_SECURE_PORT a second listener for clients, TLS with SCRAM-SHA-512 for the user flywheel with KAFKA_PASSWORD; the authority is the
#                   file KAFKA_CERTIFICATES/ca.pem, which certificates.sh makes
# KAFKA_PROPERTIES  further lines of server.properties, which win
set -euo pipefail
dir=$1
libs="${FLYWHEEL_SERVICES:-$HOME/.cache/flywheel-services}/kafka/libs"
if ! command -v java >/dev/null || ! compgen -G "$libs/kafka_*.jar" >/dev/null; then
  echo "Kafka is not installed (java, and jars in $libs): run scripts/services/install.sh kafka" >&2
  exit 1
fi
address=${SERVICE_ADDRESS:-127.0.0.1}
data=${KAFKA_DATA:-$dir/data}
voters=${KAFKA_CONTROLLERS//[^@]/}
copies=1 in_sync=1
if [ ${#voters} -ge 3 ]; then copies=3 in_sync=2; fi
controller_port=$(tr ',' '\n' <<<"$KAFKA_CONTROLLERS" | sed -n "s/^$KAFKA_NODE@.*:\([0-9]*\)$/\1/p")

listeners="PLAINTEXT://$address:$KAFKA_PORT"
secure="" scram=()
if [ -n "${KAFKA_SECURE_PORT:-}" ]; then
  listeners+=",SASL_SSL://$address:$KAFKA_SECURE_PORT"
  scram=(--add-scram "SCRAM-SHA-512=[name=flywheel,password=$KAFKA_PASSWORD]")
  secure="sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$KAFKA_CERTIFICATES/server.pem"
fi

mkdir -p "$dir" "$data"
# retention and cleaning: as a company's brokers. Sizes: for a machine that holds everything else too.
cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$KAFKA_NODE
controller.quorum.voters=$KAFKA_CONTROLLERS
listeners=$listeners,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=$listeners
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
$secure
log.dirs=$data
num.partitions=4
default.replication.factor=$copies
min.insync.replicas=$in_sync
auto.create.topics.enable=false
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$in_sync
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
${KAFKA_PROPERTIES:-}
PROPERTIES

# Without a logger's file of its own Log4j writes to standard output from this level on.
flags=(-XX:+UseSerialGC -Dlog4j2.level=WARN -cp "$libs/*")
if [ ! -e "$data/meta.properties" ]; then
  java -Xmx256m -XX:TieredStopAtLevel=1 "${flags[@]}" kafka.tools.StorageTool format -t "$KAFKA_CLUSTER" -c "$dir/server.properties" "${scram[@]}"
fi
exec java "-Xmx${KAFKA_HEAP_MB:-512}m" "${flags[@]}" kafka.Kafka "$dir/server.properties"
