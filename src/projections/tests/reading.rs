//! What people and the product read: lookups, traces, bounds.

use super::*;

#[test]
fn a_profile_is_shown_as_json() {
    for world in World::on_each() {
        let features = [("orders", Field::Int(2)), ("revenue", Field::Money(Money(3_250_000))), ("last_seen", Field::Time(Millis(DAY)))];
        world.append("profiles", 0, "u:ann", &profile("u:ann", &features));
        world.project();
        let reader = world.reader();
        let acme = TenantId::new("acme").unwrap();
        let ann = block_on(reader.profile(&acme, &Subject::user("ann"))).unwrap().unwrap();
        assert_eq!(ann["user_id"], "ann");
        assert_eq!(ann["as_of"], "1970-01-03T00:00:00.000Z");
        assert_eq!(ann["traits"]["email"], "ann@example.com");
        assert_eq!(ann["features"]["revenue"], 3.25);
        assert_eq!(ann["features"]["last_seen"], "1970-01-02T00:00:00.000Z");
        assert_eq!(ann["features"]["first_seen"], serde_json::Value::Null);
        assert_eq!(ann["scores"][0]["reasons"][0]["feature"], "days_since_seen");
        assert_eq!(ann["segments"][1], "vip");
        assert_eq!(block_on(reader.profile(&acme, &Subject::anonymous("ann"))).unwrap(), None);
    }
}

#[test]
fn every_view_can_be_read() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let views = world.sql("SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name");
    assert!(views.len() > 10, "{views:?}");
    for view in views {
        world.sql(&format!("SELECT * FROM {view}"));
    }
}

#[test]
fn lookups_by_user_and_message_use_the_bucketed_indexes() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let plan = |sql: &str| world.sql(&format!("EXPLAIN QUERY PLAN {sql}")).join(" ");
    assert!(plan("SELECT * FROM events WHERE user_id = 'ann'").contains("events_by_user (ANY(bucket) AND user_id=?)"));
    assert!(plan("SELECT * FROM events WHERE message_id = 'm'").contains("events_by_message (ANY(bucket) AND message_id=?)"));
}

#[test]
fn a_query_is_bounded_in_rows_and_time() {
    for world in World::on_each() {
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let limits = Limits { time_ms_max: 30_000, rows_max: 5 };
        let rows = block_on(query(&world.place, &world.namespace, endless, limits)).unwrap();
        assert_eq!((rows.rows.len(), rows.truncated), (5, true));
        let limits = Limits { time_ms_max: 20, rows_max: 5 };
        let slow = block_on(query(&world.place, &world.namespace, &format!("SELECT count(*) FROM ({endless}) AS endless"), limits));
        assert!(matches!(slow, Err(Error::Timeout { ms: 20 })), "{slow:?}");
        let empty = block_on(query(&world.place, &world.namespace, "SELECT user_id FROM events WHERE false", limits)).unwrap();
        assert_eq!((empty.columns[0].name.as_str(), empty.rows.len()), ("user_id", 0));
    }
}

#[test]
fn a_trace_finds_messages_people_and_what_was_not_applied() {
    for world in World::on_each() {
        let acme = TenantId::new("acme").unwrap();
        world.event(0, "u:ann", "Page", 1, "");
        world.event(1, "a:x", "Buy", 2, "");
        let body = r#"{"type":"track"}"#;
        let item = IntakeItem {
            source: "web",
            message_id: "bad-1",
            message_id_derived: false,
            received_at: 3,
            sent_at: None,
            route: "",
            remote_ip: "",
            user_agent: "",
            historical: false,
            body,
            batch: "",
            redriven_from: None,
            depth: 0,
        };
        let mut value = Vec::new();
        crate::schema::encode(&IntakeRecord::Item(item), &mut value).unwrap();
        let letter = DeadLetter {
            topic: "intake",
            origin: Origin { incarnation: 1, partition: 1, offset: 8 },
            stage: "intake",
            reason: "missing_field",
            detail: "a track needs an event name",
            message_id: "bad-1",
            at: 4,
            value: &value,
            headers: &[],
        };
        world.append("dead_letters", 0, "u:ann", &letter);
        let of_profiles = DeadLetter { topic: "events", stage: "profiles", message_id: "bad-2", ..letter };
        world.append("dead_letters", 0, "u:bob", &of_profiles);
        world.append("profiles", 0, "u:ann", &profile("u:ann", &[]));
        world.project();
        let reader = world.reader();
        block_on(async {
            let bad = reader.trace(&acme, "bad-2").await.unwrap();
            assert_eq!(bad.dead_letters[0].topic, "events", "the profile fold reads another topic");
            assert_eq!(reader.trace(&acme, "Page").await.unwrap().events[0].profile, Some(0));
            assert_eq!(reader.trace(&acme, "Buy").await.unwrap().events[0].profile, None);
            let page = reader.trace(&acme, "Page").await.unwrap();
            assert_eq!((page.events.len(), page.events[0].user_id.as_deref(), page.events[0].intake), (1, Some("ann"), (0, 7)));
            let ann = reader.trace(&acme, "ann").await.unwrap();
            assert_eq!((ann.events.len(), ann.dead_letters.len()), (1, 1));
            assert_eq!(ann.dead_letters[0].detail.as_deref(), Some("a track needs an event name"));
            assert_eq!(reader.trace(&acme, "a:x").await.unwrap().events[0].name, "Buy");
            assert_eq!(reader.trace(&acme, "bad-1").await.unwrap().dead_letters[0].offset, 8);
            let other = TenantId::new("other").unwrap();
            assert!(reader.trace(&other, "ann").await.unwrap().is_empty(), "another tenant's data is not shown");
            assert!(reader.is_visible(&acme, "Buy").await.unwrap());
            assert!(!reader.is_visible(&acme, "Sold").await.unwrap());
        });
        assert_eq!(world.sql("SELECT body FROM dead_letters WHERE message_id = 'bad-1'"), [body]);
    }
}

#[test]
fn a_trace_shows_no_outcome_that_may_be_another_tenants() {
    for world in World::on_each() {
        let [acme, other] = ["acme", "other"].map(|tenant| TenantId::new(tenant).unwrap());
        let refused = |offset, kind: &str| RecordOutcome {
            offset,
            message_id: "Page".to_owned(),
            kind: kind.to_owned(),
            reason: "a_reason".to_owned(),
            tenant: String::new(),
        };
        let batch = BatchOutcomes {
            stage: "intake".to_owned(),
            partition: 1,
            from_offset: 7,
            to_offset: 9,
            at: 4,
            records: 2,
            applied: 0,
            duplicate: 1,
            filtered: 0,
            dead_lettered: 1,
            control: 0,
            exceptions: vec![refused(7, "duplicate"), refused(8, "dead_lettered")],
        };
        let letter = DeadLetter {
            topic: "intake",
            origin: Origin { incarnation: 1, partition: 1, offset: 8 },
            stage: "intake",
            reason: "a_reason",
            detail: "",
            message_id: "Page",
            at: 4,
            value: b"",
            headers: &[],
        };
        world.event(0, "u:ann", "Page", 1, "");
        world.append("outcomes", 0, "", &batch);
        world.append("dead_letters", 0, "u:ann", &letter);
        world.project();
        let reader = world.reader();
        let traced = |tenant: &TenantId| {
            let trace = block_on(reader.trace(tenant, "Page")).unwrap();
            trace.outcomes.iter().map(|outcome| outcome.offset).collect::<Vec<_>>()
        };
        assert_eq!((traced(&acme), traced(&other)), (vec![7, 8], vec![]), "alone in the namespace, everything is the tenant's");
        world.append_of("other", "events", 0, "u:bob", &EventsRecord::Event(event("Page", 1, "")));
        world.project();
        assert_eq!((traced(&acme), traced(&other)), (vec![8], vec![]), "whose duplicate it is nothing says");
        let mut said = batch.clone();
        (said.from_offset, said.to_offset, said.exceptions[0].offset, said.exceptions[1].offset) = (9, 11, 9, 10);
        said.exceptions[0].tenant = "acme".to_owned();
        said.exceptions[1].tenant = "other".to_owned();
        world.append("outcomes", 0, "", &said);
        world.project();
        assert_eq!((traced(&acme), traced(&other)), (vec![8, 9], vec![10]), "outcomes say whose they are");
    }
}

#[test]
fn the_pointer_is_not_read_for_every_question() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let acme = TenantId::new("acme").unwrap();
    let new = || world.reader();
    let (believing, doubting) = (new().believing_for(Duration::from_secs(3600)), new().believing_for(Duration::ZERO));
    block_on(async {
        for reader in [&believing, &doubting] {
            assert!(reader.is_visible(&acme, "Page").await.unwrap());
        }
        std::fs::remove_file(world.dir.path().join("shop.current")).unwrap();
        assert!(believing.is_visible(&acme, "Page").await.unwrap());
        assert!(matches!(doubting.is_visible(&acme, "Page").await, Err(Error::Missing(_))));
        assert!(believing.rows("SELECT * FROM nowhere".to_owned(), &[]).await.is_err());
        assert!(matches!(believing.is_visible(&acme, "Page").await, Err(Error::Missing(_))), "after an error it is read again");
    });
}

#[test]
fn segment_sizes_have_no_missing_days() {
    for world in World::on_each() {
        let acme = TenantId::new("acme").unwrap();
        for (subject, entered, day) in [("u:ann", true, 1), ("u:bob", true, 1), ("u:ann", false, 4)] {
            let change = SegmentChange { segment: "vip", digest: "d", entered, at: day * DAY, cause: "", late: false };
            world.append("segment_changes", 0, subject, &change);
        }
        world.project();
        let reader = world.reader();
        block_on(async {
            let sizes = reader.segment_sizes(&acme, "vip").await.unwrap();
            let sizes: Vec<(&str, i64)> = sizes.iter().map(|size| (size.day.as_str(), size.members)).collect();
            assert_eq!(sizes, [("1970-01-02", 2), ("1970-01-03", 2), ("1970-01-04", 2), ("1970-01-05", 1)]);
            let members = reader.members(&acme, "vip", None, 10).await.unwrap();
            assert_eq!(members, [Member { subject: "u:bob".to_owned(), since: Millis(DAY) }]);
            assert!(reader.members(&acme, "vip", Some("u:bob"), 10).await.unwrap().is_empty());
            assert_eq!(reader.segments(&acme).await.unwrap()[0].members, 1);
        });
    }
}
