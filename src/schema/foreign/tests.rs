//! What other writers make is read as they meant it, and what nobody meant is refused within bounds.

use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Decimal, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A record of one field `x` of this type, written by `apache-avro`.
#[track_caller]
fn check(field: &Value, written: Avro, expect: &Value) {
    let text = json!({"type": "record", "name": "R", "fields": [{"name": "x", "type": field}]}).to_string();
    let schema = Schema::parse_str(&text).unwrap();
    let record = Avro::Record(vec![("x".into(), written)]);
    let mut body = Vec::new();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_ref(&mut body, &record).unwrap();
    let writer = WriterSchema::parse(&text).unwrap();
    assert_eq!(writer.decode(&body).unwrap()["x"], *expect, "{field}");
    for cut in 0..body.len() {
        assert_eq!(writer.decode(&body[..cut]), Err(Error::Cut), "{field} cut at {cut}");
    }
    let longer = [body.as_slice(), b"\0"].concat();
    assert_eq!(writer.decode(&longer), Err(Error::LeftOver(1)));
}

#[test]
fn every_type_is_read_as_apache_avro_wrote_it() {
    check(&json!("boolean"), Avro::Boolean(true), &json!(true));
    check(&json!("int"), Avro::Int(i32::MIN), &json!(i32::MIN));
    check(&json!("long"), Avro::Long(i64::MIN), &json!(i64::MIN));
    check(&json!("float"), Avro::Float(1.5), &json!(1.5));
    check(&json!("double"), Avro::Double(f64::NAN), &json!(null));
    check(&json!("double"), Avro::Double(0.1), &json!(0.1));
    check(&json!("bytes"), Avro::Bytes(vec![0, 255]), &json!("AP8="));
    check(&json!("string"), Avro::String("caf\u{e9}".into()), &json!("caf\u{e9}"));
    check(&json!({"type": "fixed", "name": "F", "size": 2}), Avro::Fixed(2, vec![0, 255]), &json!("AP8="));
    check(&json!({"type": "enum", "name": "E", "symbols": ["A", "B"]}), Avro::Enum(1, "B".into()), &json!("B"));
    check(&json!({"type": "array", "items": "int"}), Avro::Array(vec![Avro::Int(1), Avro::Int(2)]), &json!([1, 2]));
    check(&json!({"type": "map", "values": "int"}), Avro::Map([("a".to_owned(), Avro::Int(1))].into()), &json!({"a": 1}));
    check(&json!(["null", "string"]), Avro::Union(1, Box::new(Avro::String("s".into()))), &json!("s"));
}

#[test]
fn logical_types_become_what_json_has_for_them() {
    let of = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
    check(&of("int", "date"), Avro::Date(19_844), &json!("2024-05-01"));
    check(&of("int", "time-millis"), Avro::TimeMillis(46_805_250), &json!("13:00:05.250"));
    check(&of("long", "time-micros"), Avro::TimeMicros(46_805_250_999), &json!("13:00:05.250"));
    check(&of("long", "timestamp-millis"), Avro::TimestampMillis(1_714_521_600_250), &json!("2024-05-01T00:00:00.250Z"));
    check(&of("long", "timestamp-micros"), Avro::TimestampMicros(1_714_521_600_250_999), &json!("2024-05-01T00:00:00.250Z"));
    check(&of("long", "timestamp-nanos"), Avro::TimestampNanos(-1), &json!("1969-12-31T23:59:59.999Z"));
    check(&of("long", "local-timestamp-millis"), Avro::LocalTimestampMillis(1_714_521_600_250), &json!("2024-05-01T00:00:00.250"));
    check(&of("long", "timestamp-millis"), Avro::TimestampMillis(i64::MAX), &json!(i64::MAX));
    let uuid = uuid::Uuid::from_u128(7);
    check(&of("string", "uuid"), Avro::Uuid(uuid), &json!(uuid.to_string()));
    let decimal = |scale: u32| json!({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": scale});
    check(&decimal(2), Avro::Decimal(Decimal::from(1_250_i32.to_be_bytes())), &json!(12.5));
    check(&decimal(2), Avro::Decimal(Decimal::from((-5_i32).to_be_bytes())), &json!(-0.05));
    check(&decimal(0), Avro::Decimal(Decimal::from(7_i32.to_be_bytes())), &json!(7.0));
    let long = 123_456_789_012_345_678_i64;
    check(&decimal(3), Avro::Decimal(Decimal::from(long.to_be_bytes())), &json!("123456789012345.678"));
}

#[test]
fn names_are_resolved_in_their_namespace_and_may_refer_to_themselves() {
    let text = r#"{"type":"record","name":"a.Node","fields":[{"name":"x","type":"int"},{"name":"next","type":["null","Node"]}]}"#;
    let writer = WriterSchema::parse(text).unwrap();
    assert_eq!(writer.decode(&[2, 2, 4, 0]), Ok(json!({"x": 1, "next": {"x": 2, "next": null}})));
    let unknown = WriterSchema::parse(r#"{"type":"record","name":"R","fields":[{"name":"x","type":"Other"}]}"#);
    assert!(matches!(unknown, Err(Error::Schema(_))), "{unknown:?}");
}

#[test]
fn a_body_that_claims_more_than_it_holds_is_refused_before_it_costs_anything() {
    let nulls = WriterSchema::parse(r#"{"type":"array","items":"null"}"#).unwrap();
    let mut body = Vec::new();
    crate::domain::varint::put(&mut body, crate::domain::varint::zigzag(i64::MAX));
    assert!(matches!(nulls.decode(&body), Err(Error::TooLarge(_))));
    let text = WriterSchema::parse(r#""string""#).unwrap();
    assert_eq!(text.decode(&body), Err(Error::Cut));
    let endless = WriterSchema::parse(r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#);
    assert!(endless.is_err() || matches!(endless.unwrap().decode(&[]), Err(Error::TooLarge(_))));
    let list = WriterSchema::parse(r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#).unwrap();
    assert!(matches!(list.decode(&vec![2; 1_000_000]), Err(Error::TooLarge(_))));
    assert!(matches!(WriterSchema::parse(&format!("{}\"int\"", " ".repeat(SCHEMA_BYTES_MAX))), Err(Error::TooLarge(_))));
}

#[test]
fn the_frame_is_a_zero_byte_and_the_number() {
    assert_eq!(framed(&[0, 0, 0, 1, 2, 9]), Ok((258, &[9][..])));
    assert_eq!(framed(&[0, 0, 0, 1]), Err(Error::Unframed(4)));
    assert_eq!(framed(&[]), Err(Error::Unframed(0)));
    assert_eq!(framed(b"{}"), Err(Error::Magic(b'{')));
}

#[track_caller]
fn shaped(record: Value, expect: &Value) {
    let text = event(record).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), *expect);
}

#[test]
fn fields_are_told_by_name_in_either_spelling() {
    let record = json!({"type": "track", "event": "Paid", "user_id": "ann", "anonymousId": null, "message_id": "m", "other": 1,
        "properties": {"revenue": 12.5}, "context": "{\"locale\": \"de\"}", "timestamp": "2024-05-01T00:00:00Z"});
    shaped(
        record,
        &json!({"type": "track", "event": "Paid", "userId": "ann", "messageId": "m", "properties": {"revenue": 12.5},
            "context": {"locale": "de"}, "timestamp": "2024-05-01T00:00:00Z"}),
    );
    shaped(json!({"kind": "track", "name": "Paid", "userId": 7}), &json!({"type": "track", "event": "Paid", "userId": 7}));
    shaped(json!({"event": "Paid", "userId": 7, "traits": ""}), &json!({"type": "track", "event": "Paid", "userId": 7, "traits": {}}));
}

#[test]
fn records_in_batch_are_a_batch() {
    let items = json!([{"type": "page", "user_id": "ann"}, {"type": "page", "user_id": "ben"}]);
    shaped(
        json!({"batch": items, "sent_at": 5, "context": {"locale": "de"}, "historical": true, "other": 1}),
        &json!({"batch": [{"type": "page", "userId": "ann"}, {"type": "page", "userId": "ben"}], "sentAt": 5,
            "context": {"locale": "de"}, "historical": true}),
    );
}

#[test]
fn what_is_no_event_is_refused_with_what_is_wrong() {
    let refused = |value: Value| event(value).unwrap_err().to_string();
    assert_eq!(refused(json!("text")), "the value is no record");
    assert!(refused(json!({"sensor": 7})).starts_with("the record has none of the fields of an event"));
    assert_eq!(refused(json!({"type": "track", "properties": "[1]"})), "properties is no record, no map and no JSON object as text");
    assert_eq!(refused(json!({"batch": [1]})), "an item of `batch` is no record");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"map","values":["null","R","long"]}},
            {"name":"b","type":{"type":"array","items":{"type":"bytes","logicalType":"decimal","precision":9,"scale":4}}}]}"#;
        let _ = WriterSchema::parse(text).unwrap().decode(&body);
    }
}
