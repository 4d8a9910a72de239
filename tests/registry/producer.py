"""An unmodified confluent-kafka producer: registers, checks and looks up schemas, serializes events, reads them back.

Arguments: the registry's URL, the API key, the file for the records. They are written as `flywheel topic import` takes them.
"""

import base64
import datetime
import json
import sys

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

TOPIC = "main.inbox"
SUBJECT = f"{TOPIC}-value"
url, key, out = sys.argv[1:]


def client(api_key=key):
    return SchemaRegistryClient({"url": url, "basic.auth.user.info": f"{api_key}:"})


def record(*more):
    fields = [
        {"name": "type", "type": "string"},
        {"name": "event", "type": "string"},
        {"name": "message_id", "type": "string"},
        {"name": "user_id", "type": "string"},
        {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "properties", "type": {"type": "map", "values": ["null", "double", "string"]}},
        *more,
    ]
    return json.dumps({"type": "record", "name": "Order", "namespace": "shop", "fields": fields})


CONTEXT = {"name": "context", "type": ["null", {"type": "record", "name": "Context", "fields": [{"name": "locale", "type": "string"}]}]}
FIRST = record()
SECOND = record({**CONTEXT, "default": None})
BROKEN = record({"name": "fresh", "type": "long"})


def refused(code, call):
    try:
        call()
    except SchemaRegistryError as error:
        assert error.error_code == code, f"wanted {code}, got {error}"
    else:
        raise AssertionError(f"wanted {code}, and it was taken")


def event(at, **more):
    paid = datetime.datetime(2024, 5, 1, 12, 0, at, tzinfo=datetime.timezone.utc)
    properties = {"revenue": 12.5, "currency": "EUR", "coupon": None}
    return {"type": "track", "event": "Order Completed", "message_id": f"avro-{at}", "user_id": "ada", "timestamp": paid, "properties": properties, **more}


registry = client()
assert "AVRO" in json.dumps(registry._rest_client.get("schemas/types"))
refused(40401, lambda: registry.get_latest_version(SUBJECT))
refused(40401, lambda: registry.lookup_schema(SUBJECT, Schema(FIRST, "AVRO")))
refused(40101, lambda: client("nobody's").get_subjects())

# What a producer does: one serializer per schema, registered when first used.
context = SerializationContext(TOPIC, MessageField.VALUE)
values = []
for schema, events in [(FIRST, [event(1), event(2)]), (SECOND, [event(3, context={"locale": "de-DE"}), event(4, context=None)])]:
    serialize = AvroSerializer(client(), schema)
    for sent in events:
        value = serialize(sent, context)
        assert AvroDeserializer(client())(value, context) == sent
        values.append(value)
ids = [int.from_bytes(value[1:5], "big") for value in values]
assert ids == [1, 1, 2, 2], ids

# The newest schema that is registered, whatever the producer was built with.
latest = AvroSerializer(client(), FIRST, conf={"auto.register.schemas": False, "use.latest.version": True})
values.append(latest(event(5, context=None), context))
assert values[-1][:5] == bytes([0, 0, 0, 0, 2])

# What tools ask.
registry = client()
assert registry.register_schema(SUBJECT, Schema(FIRST, "AVRO")) == 1, "the same schema has its number"
assert registry.get_versions(SUBJECT) == [1, 2]
assert registry.get_latest_version(SUBJECT).schema_id == 2
assert registry.get_version(SUBJECT, 1).schema_id == 1
assert registry.lookup_schema(SUBJECT, Schema(FIRST, "AVRO")).version == 1
assert json.loads(registry.get_schema(2).schema_str) == json.loads(SECOND)
assert SUBJECT in registry.get_subjects() and f"{TOPIC[:-5]}events-value" in registry.get_subjects()
refused(40403, lambda: registry.get_schema(7))
refused(40402, lambda: registry.get_version(SUBJECT, 7))
assert registry.test_compatibility(SUBJECT, Schema(FIRST, "AVRO")) is True
assert registry.test_compatibility(SUBJECT, Schema(BROKEN, "AVRO"), 1) is False
refused(409, lambda: registry.register_schema(SUBJECT, Schema(BROKEN, "AVRO")))
refused(42201, lambda: registry.register_schema(SUBJECT, Schema('{"type": "nonsense"}', "AVRO")))
refused(42201, lambda: registry.register_schema(SUBJECT, Schema("{}", "JSON")))
assert registry.get_compatibility() == "BACKWARD"
refused(40408, lambda: registry.get_compatibility(SUBJECT))
registry.set_compatibility(SUBJECT, "NONE")
assert registry.get_compatibility(SUBJECT) == "NONE"
assert registry.register_schema(SUBJECT, Schema(BROKEN, "AVRO")) == 3
refused(404, lambda: registry.delete_subject(SUBJECT))

# Of no schema that is known here, and cut short.
values += [bytes([0, 0, 0, 0, 99, 2]), values[0][:-1]]
with open(out, "w", encoding="utf-8") as file:
    for at, value in enumerate(values):
        line = {"partition": at % 2, "offset": at, "timestamp": 0, "key": "", "record": {"base64": base64.b64encode(value).decode()}}
        line["headers"] = [{"name": "flywheel-write-key", "value": "shop-key"}]
        file.write(json.dumps(line) + "\n")
print(f"{len(values)} records serialized")
