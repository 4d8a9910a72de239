//! docs/sql.md is true: every query in it runs on a small shop and gives the answer that stands below it.

use super::*;

const DOCS: &str = include_str!("../../../docs/sql.md");

/// Query and expected answer of each example.
fn examples() -> Vec<(&'static str, &'static str)> {
    let block = |text: &'static str, kind: &str| {
        let (_, rest) = text.split_once(kind)?;
        rest.split_once("```")
    };
    let (mut found, mut rest) = (Vec::new(), DOCS);
    while let Some((sql, after)) = block(rest, "```sql\n") {
        let (answer, after) = block(after, "```text\n").expect("an answer follows each query");
        found.push((sql, answer));
        rest = after;
    }
    found
}

fn cells(line: &str) -> Vec<String> {
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn the_documented_queries_give_the_documented_answers() {
    let examples = examples();
    assert!(examples.len() > 10);
    for world in World::on_each() {
        small_shop(&world);
        for (sql, answer) in &examples {
            let on = world.place.backend();
            let rows = block_on(query(&world.place, &world.namespace, sql, Limits::default()));
            let rows = rows.unwrap_or_else(|error| panic!("{on:?}: {sql}: {error}"));
            let mut lines = vec![rows.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>()];
            lines.extend(rows.rows.iter().map(|row| row.iter().map(text).collect()));
            let expected: Vec<Vec<String>> = answer.lines().map(cells).collect();
            assert_eq!(lines, expected, "{on:?}: {sql}");
        }
    }
}

/// Two customers and a tablet on two days in March.
pub fn small_shop(world: &World) {
    let at = |time: &str| Millis::parse(&format!("2024-03-{time}Z")).unwrap().0;
    let events = [
        ("u:ann", "Page", "01T10:00:00", r#"{"path":"/"}"#),
        ("u:ann", "Order Completed", "01T10:20:00", r#"{"revenue":19.99}"#),
        ("a:tablet", "Page", "01T11:00:00", r#"{"path":"/"}"#),
        ("a:tablet", "Page", "01T11:05:00", r#"{"path":"/product"}"#),
        ("u:bob", "Page", "02T09:00:00", r#"{"path":"/"}"#),
        ("u:bob", "Order Completed", "02T09:10:00", r#"{"revenue":"5.01"}"#),
        ("u:ann", "Page", "02T12:00:00", r#"{"path":"/product"}"#),
    ];
    for (subject, name, time, properties) in events {
        world.event(0, subject, name, at(time), properties);
    }
    let tie = Tie { user_id: "bob".to_owned(), from: at("02T09:00:00") };
    world.append("identities", 0, "a:tablet", &IdentityRecord { ties: vec![tie] });
    let changes = [
        ("u:ann", "customers", true),
        ("u:bob", "customers", true),
        ("u:ann", "lapsing", true),
        ("u:bob", "lapsing", true),
        ("u:bob", "lapsing", false),
    ];
    for (subject, segment, entered) in changes {
        let change = SegmentChange { segment, digest: "d", entered, at: at("02T13:00:00"), cause: "", late: false };
        world.append("segment_changes", 0, subject, &change);
    }
    people(world, at);
    lost(world, at("02T13:00:00"));
    super::campaign::campaign(world);
    world.project();
}

fn people(world: &World, at: impl Fn(&str) -> i64) {
    let customer = |revenue, last_order, churn| {
        [
            ("orders", Field::Int(1)),
            ("revenue", Field::Money(Money(revenue))),
            ("last_order", Field::Time(Millis(last_order))),
            ("churn", Field::Float(churn)),
        ]
    };
    let mut ann = profile("u:ann", &customer(19_990_000, at("01T10:20:00"), 0.9));
    ann.segments = vec!["customers", "lapsing"];
    ann.funnels = vec![FunnelStep { funnel: "checkout", step: 2, steps: 2 }];
    ann.scores[0].value = 0.9;
    ann.scores[0].reasons =
        vec![ReasonRecord { feature: "days_since_seen", effect: 0.7 }, ReasonRecord { feature: "sessions", effect: 0.2 }];
    let mut bob = profile("u:bob", &customer(5_010_000, at("02T09:10:00"), 0.1));
    bob.segments = vec!["customers"];
    bob.funnels = vec![FunnelStep { funnel: "checkout", step: 1, steps: 2 }];
    let mut tablet = profile("a:tablet", &[]);
    tablet.funnels = Vec::new();
    for (subject, record) in [("u:ann", ann), ("u:bob", bob), ("a:tablet", tablet)] {
        world.append("profiles", 0, subject, &record);
    }
}

fn lost(world: &World, at: i64) {
    let letter = DeadLetter {
        topic: "intake",
        origin: Origin { incarnation: 1, partition: 0, offset: 8 },
        stage: "intake",
        reason: "missing_field",
        detail: "a track needs an event name",
        message_id: "m-8",
        at,
        value: b"",
        headers: &[],
    };
    world.append("dead_letters", 0, "u:ann", &letter);
    let exception = |offset, kind: &str, reason: &str| {
        let message_id = format!("m-{offset}");
        RecordOutcome { offset, message_id, kind: kind.to_owned(), reason: reason.to_owned(), tenant: String::new() }
    };
    let outcomes = BatchOutcomes {
        stage: "intake".to_owned(),
        partition: 0,
        from_offset: 0,
        to_offset: 10,
        at,
        records: 10,
        applied: 7,
        duplicate: 1,
        filtered: 1,
        dead_lettered: 1,
        control: 0,
        exceptions: vec![exception(7, "duplicate", ""), exception(8, "dead_lettered", "missing_field"), exception(9, "filtered", "bot")],
    };
    world.append("outcomes", 0, "", &outcomes);
}
