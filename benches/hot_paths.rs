//! The named hot paths one by one, in nanoseconds per call: `cargo bench`. What they sum to under load is `flywheel bench`.
//!
//! Each line is JSON with the least and the median of many rounds; a round is long enough that reading the clock does not count.

use std::hint::black_box;
use std::time::Instant;

use flywheel::domain::{Millis, Subject, TenantId};
use flywheel::features::{self, Profile, RawEvent};
use flywheel::intake::{self, Clock, Item, KeyState, Seen};
use flywheel::log::BatchBuilder;
use flywheel::models;
use flywheel::schema;
use flywheel::schema::records::{EventBody, EventsRecord, Origin};

const ROUNDS: usize = 40;
const CALLS: usize = 2_000;
const START: i64 = 1_700_000_000_000;
const BODY: &str = r#"{"type":"track","event":"Order Completed","userId":"user-1","messageId":"m-1","timestamp":"2023-11-14T22:13:20.000Z","properties":{"order_id":"o-1","total":79.4,"currency":"USD","products":[{"product_id":"sku-77","category":"bags","price":19.5,"quantity":2}]},"context":{"library":{"name":"analytics-python","version":"2.4.0"},"timezone":"Europe/Berlin","campaign":{"source":"news","medium":"email"}}}"#;
const PROPERTIES: &str = r#"{"order_id":"o-1","total":79.4,"currency":"USD","products":[{"product_id":"sku-77","category":"bags"}]}"#;
const CONTEXT: &str = r#"{"library":{"name":"bench"},"timezone":"Europe/Berlin","campaign":{"source":"news","medium":"email"}}"#;

fn main() {
    let rules = intake::Rules::new(&intake::Settings::default(), Clock::Wall).expect("the defaults are valid");
    let item = Item {
        key_id: "user-1",
        key_is_user: true,
        source: "web",
        message_id: "m-1",
        received_at: Millis(START),
        sent_at: None,
        route: "",
        remote_ip: "",
        user_agent: "",
        historical: true,
        body: BODY,
        batch: "",
    };
    let mut key = KeyState::default();
    measure("intake.decide", "a 430-byte order", |_| drop(black_box(intake::decide(&mut key, &item, Seen::No, &rules))));

    let rules = features::Rules::default();
    let event = |at: usize| RawEvent {
        kind: "track",
        name: if at.is_multiple_of(3) { "Order Completed" } else { "Product Viewed" },
        event_time: START + at as i64 * 60_000,
        properties: PROPERTIES,
        context: CONTEXT,
    };
    let mut profile = Profile::default();
    let mut at = 0;
    measure("features.observe", "extract and fold one event, one person", |_| {
        at += 1;
        let _ = black_box(profile.observe(&features::extract(&event(at), &rules), &rules));
    });
    let mut bytes = Vec::new();
    measure("features.encode", "one profile's state", |_| {
        bytes.clear();
        profile.encode(black_box(&mut bytes));
    });
    measure("features.decode", "one profile's state", |_| drop(black_box(Profile::decode(&bytes))));
    let models = models::Models::compile(&models::Settings::default()).expect("the defaults are valid");
    let now = Millis(START + at as i64 * 60_000);
    measure("models.scores", "all scores with reasons", |_| drop(black_box(models.scores(&profile, now, &rules))));

    let subject = Subject::user("user-1").key(&TenantId::new("bench").expect("a slug"));
    let record = EventsRecord::Event(EventBody {
        message_id: "m-1",
        kind: "track",
        name: "Order Completed",
        event_time: START,
        received_at: START,
        user_id: "user-1",
        anonymous_id: "",
        source: "web",
        historical: false,
        properties: PROPERTIES,
        context: CONTEXT,
        origin: Origin { incarnation: 1, partition: 0, offset: 1 },
        redriven_from: None,
        depth: 0,
    });
    let mut batch = BatchBuilder::new();
    measure("schema.encode", "an event into a batch", |_| {
        if batch.len() == 1_000 {
            batch = BatchBuilder::new();
        }
        batch.push_with(subject.as_bytes(), Millis(START), |out| schema::encode(&record, out)).expect("it encodes");
    });
    let mut value = Vec::new();
    schema::encode(&record, &mut value).expect("it encodes");
    measure("schema.decode", "an event, borrowed", |_| drop(black_box(schema::decode::<EventsRecord<'_>>(&value))));
}

fn measure(name: &str, what: &str, mut call: impl FnMut(usize)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let started = Instant::now();
            for at in 0..CALLS {
                call(round * CALLS + at);
            }
            started.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let setup = format!("{what}; {ROUNDS} rounds of {CALLS} calls, one thread");
    println!(
        "{{\"name\":\"{name}\",\"least\":{:.0},\"median\":{:.0},\"unit\":\"ns\",\"setup\":\"{setup}\"}}",
        rounds[0],
        rounds[ROUNDS / 2]
    );
}
