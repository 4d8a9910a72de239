//! Tests that hold every version's bytes still: `schemas/golden/TOPIC.VERSION.json` lists records as bytes and as JSON.
//!
//! A version without a golden file gets one written and the test fails once, so that a person looks at it before it is committed.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::container::{Entry, export, import};
use super::profile::*;
use super::records::*;
use super::registry::TOPICS;
use super::{Error, TopicSchema, Wire, compatibility, decode, encode, from_json, to_json, topic_schema};
use crate::domain::{Digest, FieldType, Millis, Money, Value};

const ORIGIN: Origin = Origin { incarnation: 1, partition: 3, offset: 1 << 40 };

fn bytes_of<'a, T: Wire<'a>>(record: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, &mut out).unwrap();
    out
}

fn item() -> IntakeItem<'static> {
    IntakeItem {
        source: "web",
        message_id: "ajs-next-1700000000000-\u{e9}",
        message_id_derived: false,
        received_at: 1_700_000_000_123,
        sent_at: Some(1_700_000_000_001),
        route: "track",
        remote_ip: "2001:db8::1",
        user_agent: "Mozilla/5.0",
        historical: true,
        body: r#"{"type":"track","event":"Order Completed"}"#,
        batch: r#"{"context":{"library":{"name":"analytics-node"}}}"#,
        redriven_from: Some(ORIGIN),
        depth: 0,
    }
}

fn event() -> EventBody<'static> {
    EventBody {
        message_id: "m-1",
        kind: "track",
        name: "Order Completed",
        event_time: -1,
        received_at: i64::MAX,
        user_id: "u-1",
        anonymous_id: "",
        source: "server",
        historical: false,
        properties: r#"{"revenue":12.5}"#,
        context: "",
        origin: ORIGIN,
        redriven_from: None,
        depth: 0,
    }
}

/// A person with every feature known, or with none.
fn person(nothing: usize) -> ProfileRecord<'static> {
    let known = |(at, column): (usize, &Column)| match column.kind {
        _ if nothing == 1 => Value::Null,
        FieldType::Int => Value::Int(at as i64),
        FieldType::Float => Value::Float(at as f64 / 4.0),
        FieldType::Bool => Value::Bool(true),
        FieldType::Text => Value::Text(column.name.into()),
        FieldType::Time => Value::Time(Millis(1_700_000_000_000 + at as i64)),
        FieldType::Money => Value::Money(Money(at as i64 * 1_250_000)),
    };
    let reasons = vec![ReasonRecord { feature: "days_since_seen", effect: 0.5 }];
    ProfileRecord {
        subject: "u:1",
        as_of: 1_700_000_000_000,
        fold_version: 1,
        traits: r#"{"plan":"pro"}"#,
        consent: "",
        features: Features(columns().iter().enumerate().map(known).collect()),
        events: vec![EventTotals { event: "Order Completed", total: 9, d7: 0, d30: 2, d90: 3 }],
        currencies: vec![CurrencyTotals { currency: "USD", orders: 9, revenue: 12_500_000, refunds: 0 }],
        funnels: vec![FunnelStep { funnel: "checkout", step: 2, steps: 3 }],
        scores: vec![ScoreRecord { score: "churn", value: 0.5, model: "churn-own-pauses", version: 1, reasons }],
        segments: vec!["lapsing"],
    }
}

#[test]
fn what_is_written_by_hand_is_what_the_schema_says() {
    let mut full = person(0);
    full.events.push(EventTotals { event: "", total: i64::MAX, d7: i64::MIN, d30: -1, d90: 64 });
    full.scores.push(ScoreRecord { score: "lead", value: f64::MIN_POSITIVE, model: "m", version: i32::MIN, reasons: Vec::new() });
    for record in [person(0), person(1), full] {
        let mut by_serde = Vec::new();
        super::codec::put_by_serde(&record, &mut by_serde).unwrap();
        assert_eq!(bytes_of(&record)[super::codec::HEADER_BYTES..], by_serde);
    }
}

/// At least one record of each kind a topic may hold.
fn samples(topic: &TopicSchema) -> Vec<Vec<u8>> {
    match topic.topic {
        "intake" => vec![
            bytes_of(&IntakeRecord::Item(item())),
            bytes_of(&IntakeRecord::Item(IntakeItem { sent_at: None, redriven_from: None, batch: "", depth: 3, ..item() })),
            bytes_of(&IntakeRecord::Time(TimeStatement { time: 854_668_800_000 })),
            bytes_of(&IntakeRecord::InboxTime(InboxTime { feeder: 1, feeders: 4, time: 9 })),
        ],
        "events" => vec![
            bytes_of(&EventsRecord::Event(event())),
            bytes_of(&EventsRecord::Event(EventBody { redriven_from: Some(ORIGIN), depth: 3, ..event() })),
            bytes_of(&EventsRecord::Handover(Handover {
                anonymous_id: "a",
                user_id: "u",
                at: 5,
                origin: ORIGIN,
                redriven_from: Some(ORIGIN),
            })),
            bytes_of(&EventsRecord::Expect(Expect { anonymous_id: "a", user_id: "u", at: 5, origin: ORIGIN, redriven_from: Some(ORIGIN) })),
            bytes_of(&EventsRecord::Absorb(Absorb {
                anonymous_id: "a",
                user_id: "u",
                at: 5,
                fold_version: 2,
                state: &[0, 255, 7],
                redriven_from: None,
                past: &[1, 2],
            })),
            bytes_of(&EventsRecord::Tick(Tick { feeder: 1, feeders: 4, time: 9, by_operator: false })),
            bytes_of(&EventsRecord::Activated(Activated { kind: "segment", name: "lapsing", digest: "ab", from: 3, tenant: "" })),
            bytes_of(&EventsRecord::Broadcast(Broadcast {
                id: "b1",
                tenant: "acme",
                workflow: "news",
                segment: "vip",
                throttle_ms: 60_000,
                entry: r#"{"n":1}"#,
                at: 5,
            })),
            bytes_of(&EventsRecord::Ask(Ask { run: "ab", fields: vec!["orders", "traits.plan"], at: 5, redriven_from: Some(ORIGIN) })),
        ],
        "commands" => vec![
            bytes_of(&CommandsRecord::Command(Command { kind: "event", at: Some(-1), depth: 1, body: r#"{"name":"x"}"# })),
            bytes_of(&CommandsRecord::Command(Command { kind: "effect_finished", at: None, depth: 0, body: "{}" })),
            bytes_of(&CommandsRecord::Tick(CommandsTick { time: 9 })),
            bytes_of(&CommandsRecord::Activated(Activated { kind: "workflow", name: "winback", digest: "ab", from: 3, tenant: "acme" })),
        ],
        "journal" => vec![
            bytes_of(&JournalRecord::Fact(JournalFact { at: 5, run: "ab", body: r#"{"run_ended":{}}"# })),
            bytes_of(&JournalRecord::Time(JournalTime { time: 9 })),
            bytes_of(&JournalRecord::Activated(Activated { kind: "workflow", name: "winback", digest: "", from: 3, tenant: "acme" })),
        ],
        "identities" => vec![bytes_of(&IdentityRecord {
            ties: vec![Tie { user_id: "u1".to_owned(), from: 1 }, Tie { user_id: "u2".to_owned(), from: 2 }],
        })],
        "profiles" => vec![bytes_of(&person(0)), bytes_of(&person(1))],
        "segment_changes" => {
            vec![bytes_of(&SegmentChange { segment: "lapsing", digest: "ab", entered: true, at: 1, cause: "", late: true })]
        }
        "corrections" => vec![bytes_of(&CorrectionsRecord::SessionsJoined(SessionsJoined {
            first_start: 1,
            second_start: 2_400_001,
            at: 1_200_000,
            cause: "m",
        }))],
        "definitions" => {
            let (kind, name, digest, body, tenant) = ("segment", "lapsing", "ab", "x = 1\n", "acme");
            vec![bytes_of(&Definition { kind, name, digest, body, tenant, from_file: true, about: "who goes", at: 3, by: "kim" })]
        }
        "dead_letters" => vec![bytes_of(&DeadLetter {
            topic: "demo.intake",
            origin: ORIGIN,
            stage: "intake",
            reason: "no_identity",
            detail: "say who",
            message_id: "m",
            at: 1,
            value: &[0, 1, 255],
            headers: &[1, 0, 1, 0, b'a', b'b'],
        })],
        "schemas" => vec![
            bytes_of(&SchemasRecord::Registered(Registered { tenant: "acme", subject: "s-value", schema: r#""string""#, revision: 3 })),
            bytes_of(&SchemasRecord::Configured(Configured { tenant: "acme", subject: "", compatibility: "FULL", revision: 4 })),
        ],
        "outcomes" => vec![bytes_of(&BatchOutcomes {
            stage: "intake".to_owned(),
            partition: 1,
            from_offset: 0,
            to_offset: 3,
            at: 9,
            records: 3,
            applied: 2,
            duplicate: 1,
            filtered: 0,
            dead_lettered: 0,
            control: 0,
            exceptions: vec![RecordOutcome {
                offset: 2,
                message_id: "m".to_owned(),
                kind: "duplicate".to_owned(),
                reason: String::new(),
                tenant: "acme".to_owned(),
            }],
        })],
        other => panic!("no samples for {other}: add some here"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn digest_of(schema: &str) -> String {
    Digest::of(apache_avro::Schema::parse_str(schema).unwrap().canonical_form().as_bytes()).to_hex()
}

fn golden_of(topic: &TopicSchema) -> Json {
    let records = samples(topic);
    let records = records.iter().map(|bytes| json!({"bytes": hex(bytes), "json": to_json(topic.topic, bytes).unwrap()}));
    json!({"schema": digest_of(topic.text), "records": records.collect::<Vec<_>>()})
}

fn golden_file(topic: &TopicSchema, version: u8) -> PathBuf {
    PathBuf::from("schemas/golden").join(format!("{}.{version}.json", topic.topic))
}

#[test]
fn the_current_version_writes_its_golden_bytes() {
    let mut written = Vec::new();
    for topic in TOPICS {
        let path = golden_file(topic, topic.version);
        let now = golden_of(topic);
        let Ok(text) = std::fs::read_to_string(&path) else {
            std::fs::write(&path, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
            written.push(path);
            continue;
        };
        let golden: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(golden, now, "{}: a change of the schema or its samples needs a new version", topic.topic);
    }
    assert!(written.is_empty(), "{written:?} were missing and have been written: look at them and commit");
}

/// Whether `now` says what `then` said, whatever it says besides; a field that is gone is not missed.
fn is_within(then: &Json, now: &Json) -> bool {
    match (then, now) {
        (Json::Object(then), Json::Object(now)) => then.iter().all(|(name, value)| now.get(name).is_none_or(|now| is_within(value, now))),
        (Json::Array(then), Json::Array(now)) => then.len() == now.len() && then.iter().zip(now).all(|(then, now)| is_within(then, now)),
        _ => then == now,
    }
}

#[test]
fn golden_bytes_of_every_version_read_as_their_json() {
    for topic in TOPICS {
        for (version, _) in topic.versions() {
            let golden: Json = serde_json::from_str(&std::fs::read_to_string(golden_file(topic, version)).unwrap()).unwrap();
            assert_eq!(golden["schema"], digest_of(topic.text_of(version).unwrap()), "{} {version} is as it was", topic.topic);
            for record in golden["records"].as_array().unwrap() {
                let bytes = unhex(record["bytes"].as_str().unwrap());
                assert_eq!(bytes[1], version);
                let shown = to_json(topic.topic, &bytes).unwrap();
                // An older record shows today's new fields too, so what was golden must be within what is shown.
                assert!(is_within(&record["json"], &shown), "{} {version}: {shown}", topic.topic);
            }
        }
    }
}

#[test]
fn every_version_stays_readable_with_the_next() {
    for topic in TOPICS {
        let versions: Vec<_> = topic.versions().collect();
        for pair in versions.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{}: versions rise", topic.topic);
        }
        for (version, text) in &versions {
            compatibility::check(text, topic.text).unwrap_or_else(|error| panic!("{} {version}: {error}", topic.topic));
        }
    }
}

#[test]
fn both_avro_libraries_read_each_others_bytes() {
    for topic in TOPICS {
        for ours in samples(topic) {
            let tree = super::json::to_value(topic, &ours).unwrap();
            let theirs = super::json::from_value(topic, &tree).unwrap();
            assert_eq!(hex(&theirs), hex(&ours), "{}", topic.topic);
            assert_eq!((topic.upgrade)(&theirs).unwrap(), ours, "{}", topic.topic);
        }
    }
}

#[test]
fn json_turns_back_into_the_same_bytes() {
    for topic in TOPICS {
        for bytes in samples(topic) {
            let json = to_json(topic.topic, &bytes).unwrap();
            assert_eq!(from_json(topic.topic, &json).unwrap(), bytes, "{json}");
        }
    }
}

#[test]
fn an_export_imports_to_the_same_records() {
    for topic in TOPICS {
        let with_values = samples(topic).into_iter().map(Some).chain([None]).enumerate();
        let entries: Vec<Entry> = with_values
            .map(|(at, value)| Entry { partition: 2, offset: at as i64, timestamp: -5, key: b"t\0u:1".to_vec(), value })
            .collect();
        let mut file = Vec::new();
        let written = export(topic.topic, &mut file, |push| entries.iter().cloned().try_for_each(push));
        assert_eq!(written.unwrap(), entries.len() as u64);
        let back: Vec<Entry> = import(topic.topic, &file[..]).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(back, entries);
        let other = if topic.topic == "intake" { "events" } else { "intake" };
        assert!(import(other, &file[..]).is_err(), "the export of {} is none of {other}", topic.topic);
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let good = bytes_of(&EventsRecord::Tick(Tick { feeder: 1, feeders: 4, time: 9, by_operator: false }));
    let read = |bytes: &[u8]| decode::<EventsRecord<'_>>(bytes).unwrap_err();
    assert_eq!(read(&[]), Error::Short { topic: "events", len: 0 });
    assert_eq!(read(&[1, 1, 8]), Error::Sealed { topic: "events" });
    assert_eq!(read(&[9, 1, 8]), Error::Codec { topic: "events", codec: 9 });
    assert_eq!(read(&[0, 99, 8]), Error::Version { topic: "events", version: 99, known: 7 });
    assert!(matches!(read(&good[..good.len() - 1]), Error::Decode { .. }));
    assert!(matches!(read(&[&good[..], &[0]].concat()), Error::Decode { .. }));
    assert!(to_json("demo.events", &[1, 1, 8]).unwrap_err().to_string().contains("sealed"));
    assert!(topic_schema("demo.nothing").is_err());
}

#[test]
fn events_and_outcomes_of_version_1_read_as_todays() {
    let first = |topic: &str| {
        let topic = topic_schema(topic).unwrap();
        let golden: Json = serde_json::from_str(&std::fs::read_to_string(golden_file(topic, 1)).unwrap()).unwrap();
        unhex(golden["records"][0]["bytes"].as_str().unwrap())
    };
    let bytes = first("events");
    assert_eq!(decode::<EventsRecord<'_>>(&bytes).unwrap(), EventsRecord::Event(event()), "it is no copy");
    let bytes = first("outcomes");
    let outcomes: BatchOutcomes = decode(&bytes).unwrap();
    assert_eq!((outcomes.exceptions[0].offset, outcomes.exceptions[0].tenant.as_str()), (2, ""), "it does not say whose it was");
}

mod versions {
    //! A topic of the tests' own with a past in which more happened than in those of the product.
    use serde::{Deserialize, Serialize};

    use super::super::registry::upgrade;
    use super::*;

    const FIRST: &str = r#"{"type":"record","name":"Visit","fields":[
        {"name":"page","type":"string"},{"name":"gone","type":"long"},{"name":"count","type":"int"}]}"#;
    const SECOND: &str = r#"{"type":"record","name":"Visit","fields":[
        {"name":"page","type":"string"},{"name":"count","type":"long"},{"name":"referrer","type":"string","default":"none"}]}"#;

    static VISITS_1: TopicSchema = TopicSchema::new("visits", 1, FIRST, &[], |_| unreachable!("only written"));
    static VISITS_2: TopicSchema = TopicSchema::new("visits", 2, SECOND, &[(1, FIRST)], |value| upgrade::<VisitNow<'_>>(value));

    #[derive(Serialize, Deserialize)]
    struct VisitThen<'a> {
        page: &'a str,
        gone: i64,
        count: i32,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct VisitNow<'a> {
        page: &'a str,
        count: i64,
        #[serde(default = "none")]
        referrer: &'a str,
    }
    fn none() -> &'static str {
        "none"
    }
    impl<'a> Wire<'a> for VisitThen<'a> {
        fn schema() -> &'static TopicSchema {
            &VISITS_1
        }
    }
    impl<'a> Wire<'a> for VisitNow<'a> {
        fn schema() -> &'static TopicSchema {
            &VISITS_2
        }
    }

    #[test]
    fn bytes_of_an_older_version_read_as_todays_type() {
        let old = bytes_of(&VisitThen { page: "/", gone: 7, count: 3 });
        assert_eq!(decode::<VisitNow<'_>>(&old).unwrap(), VisitNow { page: "/", count: 3, referrer: "none" });
        assert_eq!(compatibility::check(FIRST, SECOND), Ok(()));
        let tree = super::super::json::to_value(&VISITS_2, &old).unwrap();
        assert_eq!(super::super::json::from_value(&VISITS_2, &tree).unwrap(), (VISITS_2.upgrade)(&old).unwrap());
    }

    #[test]
    fn bytes_of_a_newer_version_are_refused() {
        let new = bytes_of(&VisitNow { page: "/", count: 3, referrer: "x" });
        assert_eq!(decode::<VisitThen<'_>>(&new).err(), Some(Error::Version { topic: "visits", version: 2, known: 1 }));
    }
}
