//! Avro in the Confluent wire format: read by what was registered here or elsewhere, refused with its reason, and waited for only while a
//! registry does not answer.

use std::sync::Arc;
use std::time::Duration;

use flywheel::domain::{Millis, PartitionId};
use flywheel::env::ManualClock;
use flywheel::gateway::{Access, Options};
use flywheel::log::{LogWriter, MemoryLog};
use flywheel::schema::records::{Registered, SchemasRecord};
use flywheel::schema::remote::{self, Remote};
use flywheel::stream::{Spine, Stepped, Topic};

use crate::http_support::{self, Running};
use crate::inbox_world::{ACME, arrived, dead, items, open, publish, setup, world};
use crate::spine_world::{START, World, tenant, track};

const EVENT: &str = r#"{"type": "record", "name": "Event", "fields": [{"name": "type", "type": "string"}, {"name": "user_id", "type": "string"},
    {"name": "message_id", "type": "string"}, {"name": "properties", "type": {"type": "map", "values": "long"}},
    {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;

fn text(value: &str) -> Vec<u8> {
    let mut bytes = vec![value.len() as u8 * 2];
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

fn long(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    flywheel::domain::varint::put(&mut bytes, flywheel::domain::varint::zigzag(value));
    bytes
}

/// A page view of this person as a serializer writes it with schema `id`.
fn page(id: u32, message: &str, who: &str) -> Vec<u8> {
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    let parts = [text("page"), text(who), text(message), vec![2], text("n"), long(-7), vec![0], long(START.0 * 1_000 + 250)];
    value.extend(parts.concat());
    value
}

/// What a gateway appends for a schema.
fn register(world: &World, tenant: &str, subject: &str, schema: &str, revision: i64) {
    let record = SchemasRecord::Registered(Registered { tenant, subject, schema, revision });
    world.append(&world.topics(), Topic::Schemas, PartitionId(0), tenant.as_bytes(), START, &record);
}

#[test]
fn a_value_is_read_with_the_schema_it_names_and_becomes_an_event() {
    let world = world("");
    let mut spine = open(&world);
    register(&world, "acme", "t.inbox-value", EVENT, 0);
    publish(&world, 0, ACME, Some(&page(1, "m1", "ann")));
    publish(&world, 1, ACME, Some(track("m2", "ann", "Page", START).as_bytes()));
    world.drive(&mut spine);
    assert_eq!(arrived(&world), ["acme/inbox m1 u:ann", "acme/inbox m2 u:ann"], "Avro and JSON may be mixed");
    items(&world, |_, item| {
        if item.message_id == "m1" {
            let expect = r#"{"type":"page","messageId":"m1","userId":"ann","timestamp":"2024-01-01T00:00:00Z","properties":{"n":-7}}"#;
            let (found, expect): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(item.body).unwrap(), serde_json::from_str(expect).unwrap());
            assert_eq!(found["properties"], expect["properties"]);
            assert_eq!(Millis::parse(found["timestamp"].as_str().unwrap()), Some(START));
        }
    });
    // What is registered while the decoder runs is found when it is first named.
    register(
        &world,
        "acme",
        "other-value",
        r#"{"type": "record", "name": "E", "fields": [{"name": "event", "type": "string"}, {"name": "userId", "type": "int"}]}"#,
        1,
    );
    publish(&world, 0, ACME, Some(&[&[0, 0, 0, 0, 2][..], &text("Paid"), &long(7)].concat()));
    world.drive(&mut spine);
    assert!(arrived(&world).iter().any(|line| line.ends_with(" u:7")), "{:?}", arrived(&world));
    assert_eq!(dead(&world), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_a_dead_letter_that_says_why() {
    let world = world("");
    let mut spine = open(&world);
    register(&world, "globex", "t.inbox-value", EVENT, 0);
    register(&world, "acme", "count", r#""int""#, 0);
    register(&world, "acme", "sensor", r#"{"type": "record", "name": "S", "fields": [{"name": "celsius", "type": "int"}]}"#, 1);
    register(&world, "acme", "t.inbox-value", &EVENT.replace("\"Event\"", "\"Ours\""), 2);
    let value = page(4, "m1", "ann");
    let globex = [("flywheel-tenant", "globex")];
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8], &'a str);
    let cases: [Case<'_>; 9] = [
        (ACME, &page(1, "m1", "ann"), "unknown_schema: no schema 1 is registered here by tenant acme"),
        (ACME, &page(99, "m1", "ann"), "unknown_schema: no schema 99"),
        (ACME, &[0, 0, 0], "undecodable: the value is 3 bytes long"),
        (ACME, &value[..value.len() - 1], "undecodable: the body ends within its value"),
        (ACME, &[&value[..], b"x"].concat(), "undecodable: 1 bytes are left after the body's end"),
        (ACME, &[0, 0, 0, 0, 2, 4], "malformed: the value is no record"),
        (ACME, &[0, 0, 0, 0, 3, 4], "malformed: the record has none of the fields of an event"),
        (
            &[("flywheel-tenant", "acme"), ("__value_schema_id", "\u{1}0123456789abcdef")],
            &value[5..],
            "unknown_schema: its schema is named by a GUID",
        ),
        (&globex, &[0, 0, 0, 0, 1, 255], "undecodable: the body ends within its value"),
    ];
    for (headers, value, _) in cases {
        publish(&world, 0, headers, Some(value));
    }
    publish(&world, 0, ACME, Some(&value));
    publish(&world, 0, &globex, Some(&page(1, "m2", "ben")));
    world.drive(&mut spine);
    let mut expect: Vec<&str> = cases.iter().map(|(.., expect)| *expect).collect();
    expect.sort_unstable();
    let found: Vec<String> = dead(&world).iter().map(|line| line.replacen("decoder ", "", 1).replacen(" : ", ": ", 1)).collect();
    assert_eq!(found.len(), expect.len(), "{found:?}");
    for (found, expect) in found.iter().zip(expect) {
        assert!(found.starts_with(expect), "{found} is not {expect}");
    }
    assert_eq!(arrived(&world), ["acme/inbox m1 u:ann", "globex/inbox m2 u:ben"]);
}

/// A gateway whose registry others ask; nothing else of it is used.
async fn registry() -> Running {
    let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new(Arc::new(ManualClock::at(START))));
    let mut sources = http_support::sources();
    sources.api_keys.insert("registry-key".to_owned(), Access { tenant: tenant(), namespace: http_support::namespace("main") });
    crate::http_registry::with_topic(&*log);
    http_support::start_on(Options::default(), sources, log).await
}

/// Runs the decoders until `done`; what they wait for comes from other threads.
fn run_until(world: &World, spine: &mut Spine, done: impl Fn(&World, &mut Spine) -> bool) {
    let begun = std::time::Instant::now();
    while !done(world, spine) {
        for worker in spine.workers() {
            while worker.step().expect("steps") == Stepped::Worked {}
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not done: {:?} {:?}", arrived(world), dead(world));
        std::thread::yield_now();
    }
}

fn elsewhere(world: &World, url: &str, password: &str) -> Spine {
    let options =
        remote::Options { url: url.to_owned(), user: "registry-key".to_owned(), password: password.to_owned(), timeout_ms: 2_000 };
    let mut setup = setup(world);
    setup.inbox.registry = Some(Arc::new(Remote::start(&options).expect("starts")));
    Spine::open(setup).expect("opens")
}

fn stalled(spine: &mut Spine) -> Option<String> {
    spine.workers().iter().find_map(|worker| worker.shared().status().stalled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_registry_is_asked_and_what_it_does_not_know_is_refused() {
    let registry = registry().await;
    let url = format!("http://{}/registry", registry.address);
    let id = crate::http_registry::register(&registry, "any-value", EVENT).await;
    let world = world("");
    tokio::task::spawn_blocking(move || {
        let mut spine = elsewhere(&world, &url, "");
        publish(&world, 0, ACME, Some(&page(id, "m1", "ann")));
        publish(&world, 0, ACME, Some(&page(77, "m2", "ann")));
        publish(&world, 0, &[("flywheel-tenant", "globex")], Some(&page(id, "m3", "ann")));
        run_until(&world, &mut spine, |world, _| arrived(world).len() == 2 && dead(world).len() == 1);
        assert_eq!(dead(&world), ["decoder unknown_schema : the registry has no schema 77"]);
        assert_eq!(stalled(&mut spine), None);
    })
    .await
    .expect("runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_stalls_the_decoder_and_refuses_nothing() {
    // Nobody listens there: the port was ours a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let registry = registry().await;
    let known = crate::http_registry::register(&registry, "any-value", EVENT).await;
    let address = registry.address;
    let world = world("");
    tokio::task::spawn_blocking(move || {
        let mut spine = elsewhere(&world, &format!("http://{free}/registry"), "");
        publish(&world, 0, ACME, Some(track("m0", "ann", "Page", START).as_bytes()));
        publish(&world, 0, ACME, Some(&page(known, "m1", "ann")));
        publish(&world, 0, ACME, Some(track("m2", "ann", "Page", START).as_bytes()));
        run_until(&world, &mut spine, |_, spine| stalled(spine).is_some());
        let why = stalled(&mut spine).unwrap();
        assert!(why.contains("registry.url") && why.contains(&free.to_string()), "{why}");
        assert_eq!((arrived(&world), dead(&world)), (vec!["acme/inbox m0 u:ann".to_owned()], Vec::new()), "what stands before is decoded");
        let before = spine.workers().iter().filter_map(|worker| worker.shared().status().time).max();
        world.clock.advance(60_000);
        for _ in 0..10 {
            for worker in spine.workers() {
                worker.step().expect("steps");
            }
        }
        let decoders = |spine: &mut Spine| {
            let of_stage = spine.workers().iter().map(|worker| worker.shared().status()).filter(|status| status.stage == "decoder");
            of_stage.map(|status| status.time).min().unwrap()
        };
        assert_eq!(decoders(&mut spine), before, "time waits for what is stalled");
        drop(spine);
        // The same records with a registry that is there.
        let mut spine = elsewhere(&world, &format!("http://{address}/registry"), "");
        run_until(&world, &mut spine, |world, _| arrived(world).len() == 3);
        assert_eq!(dead(&world), [""; 0]);
    })
    .await
    .expect("runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_path_or_password_is_no_answer_and_shows_no_secret() {
    let registry = registry().await;
    let id = crate::http_registry::register(&registry, "any-value", EVENT).await;
    let address = registry.address;
    tokio::task::spawn_blocking(move || {
        let told = |url: String, user: &str| {
            let options = remote::Options { url, user: user.to_owned(), password: "sesame".to_owned(), timeout_ms: 2_000 };
            let remote = Remote::start(&options).unwrap();
            let begun = std::time::Instant::now();
            loop {
                assert_eq!(remote.find(id), remote::Lookup::Pending);
                if let Some(why) = remote.failing() {
                    return why;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "no word of it");
                std::thread::yield_now();
            }
        };
        let wrong_path = told(format!("http://{address}/regstry"), "registry-key");
        assert!(wrong_path.contains("404"), "{wrong_path}");
        let wrong_user = told(format!("http://{address}/registry"), "nobody");
        assert!(wrong_user.contains("401") && wrong_user.contains("registry.password") && !wrong_user.contains("sesame"), "{wrong_user}");
    })
    .await
    .expect("runs");
}
