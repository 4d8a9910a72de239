//! What each topic's records become.

use super::*;

#[test]
fn events_are_rows_and_daily_counts() {
    for world in World::on_each() {
        world.event(0, "u:ann", "Page", DAY, r#"{"a":1}"#);
        world.event(0, "u:ann", "Page", DAY + 5, "");
        world.event(1, "a:x", "Buy", 2 * DAY - 1, "");
        world.append("events", 1, "", &EventsRecord::Tick(Tick { feeder: 0, feeders: 1, time: 9, by_operator: false }));
        world.event(1, "a:x", "Buy", 2 * DAY, "");
        world.project();
        world.event(0, "u:bob", "Page", DAY, "");
        world.project();
        let rows = world
            .sql("SELECT tenant_id, user_id, anonymous_id, event_name, properties, session_id FROM events ORDER BY timestamp, user_id");
        let expected =
            ["acme|ann|-|Page|{\"a\":1}|42", "acme|bob|-|Page|-|42", "acme|ann|-|Page|-|42", "acme|-|x|Buy|-|42", "acme|-|x|Buy|-|42"];
        assert_eq!(rows, expected);
        assert_eq!(world.sql("SELECT day, events, actives FROM v_daily ORDER BY day"), ["1970-01-02|4|3", "1970-01-03|1|1"]);
        let names = world.sql("SELECT day, event_name, events FROM daily_events ORDER BY 1, 2");
        assert_eq!(names, ["1970-01-02|Buy|1", "1970-01-02|Page|3", "1970-01-03|Buy|1"]);
        let status =
            world.sql("SELECT partition, next_offset, lag, applied, skipped FROM processing_status WHERE topic = 'events' ORDER BY 1");
        assert_eq!(status, ["0|3|0|3|0", "1|3|0|2|1"]);
    }
}

#[test]
fn revenue_is_exact_per_day_and_currency() {
    for world in World::on_each() {
        let acme = TenantId::new("acme").unwrap();
        for (name, properties) in [
            ("Order Completed", r#"{"revenue": 11.77}"#),
            ("Order Completed", r#"{"revenue": "0.10", "currency": "eur"}"#),
            ("Order Completed", r#"{"revenue": 0.2, "currency": "EUR"}"#),
            ("Order Refunded", r#"{"total": 1.77}"#),
            ("Page", r#"{"revenue": 5}"#),
        ] {
            world.event(0, "u:ann", name, DAY, properties);
            world.project();
        }
        let rows = world.sql("SELECT day, currency, orders, revenue_micros, refunds_micros FROM daily_revenue ORDER BY 1, 2");
        assert_eq!(rows, ["1970-01-02|EUR|2|300000|0", "1970-01-02|USD|1|11770000|1770000"]);
        let reconciled = block_on(world.reader().reconciliation(&acme)).unwrap();
        assert_eq!((reconciled.events, reconciled.subjects), (5, 1));
        assert_eq!(
            reconciled.revenue[1],
            Revenue { currency: "USD".to_owned(), orders: 1, amount: Money(11_770_000), refunds: Money(1_770_000) }
        );
    }
}

#[test]
fn profiles_are_rows_with_a_column_per_feature_and_the_latest_wins() {
    for world in World::on_each() {
        let orders =
            |orders, revenue| [("orders", Field::Int(orders)), ("revenue", Field::Money(Money(revenue))), ("churn", Field::Float(0.25))];
        world.append("profiles", 0, "u:ann", &profile("u:ann", &orders(1, 1_500_000)));
        world.append(
            "profiles",
            0,
            "a:x",
            &profile("a:x", &[("last_seen", Field::Time(Millis(DAY))), ("session_open", Field::Bool(true))]),
        );
        world.append("profiles", 0, "u:ann", &profile("u:ann", &orders(2, 3_250_000)));
        world.project();
        let rows = world.sql("SELECT subject, user_id, orders, revenue, last_seen, session_open FROM profiles ORDER BY 1");
        assert_eq!(rows, [format!("a:x|-|-|-|{DAY}|1"), "u:ann|ann|2|3.25|-|-".to_owned()]);
        world.append("profiles", 0, "u:ann", &profile("u:ann", &orders(3, 4_000_000)));
        world.remove("profiles", 0, "a:x");
        world.project();
        assert_eq!(world.sql("SELECT subject, orders FROM profiles"), ["u:ann|3"]);
        assert_eq!(world.sql("SELECT email, segment, churn_risk FROM users"), ["ann@example.com|new, vip|0.25"]);
        assert_eq!(world.sql("SELECT score, model, rank, feature, effect FROM v_scores"), ["churn|silence|1|days_since_seen|0.25"]);
        assert_eq!(world.sql("SELECT funnel, step, people FROM v_funnel"), ["buy|1|1", "buy|2|0"]);
    }
}

#[test]
fn a_feature_that_a_file_lacks_gets_its_column_when_it_is_opened() {
    let world = World::new();
    world.append("profiles", 0, "u:ann", &profile("u:ann", &[("orders", Field::Int(1))]));
    world.project();
    block_on(tamper(&world, "ALTER TABLE profiles DROP COLUMN preferred_hour"));
    world.append("profiles", 0, "u:bob", &profile("u:bob", &[("preferred_hour", Field::Int(7))]));
    world.project();
    assert_eq!(world.sql("SELECT user_id, preferred_hour FROM profiles ORDER BY 1"), ["ann|-", "bob|7"]);
}

#[test]
fn segment_changes_are_membership_history_and_daily_counts() {
    for world in World::on_each() {
        let change = |segment, entered, at| SegmentChange { segment, digest: "d", entered, at, cause: "m", late: at == 2 * DAY && entered };
        world.append("segment_changes", 0, "u:ann", &change("vip", true, DAY));
        world.append("segment_changes", 0, "u:ann", &change("vip", false, DAY + 1));
        world.append("segment_changes", 0, "u:ann", &change("new", true, DAY + 2));
        world.project();
        world.append("segment_changes", 0, "u:ann", &change("vip", true, 2 * DAY));
        world.append("segment_changes", 0, "u:ann", &change("new", false, 2 * DAY));
        world.project();
        assert_eq!(world.sql("SELECT segment, subject, since FROM membership"), [format!("vip|u:ann|{}", 2 * DAY)]);
        assert_eq!(world.sql("SELECT count(*), count(CASE WHEN late THEN 1 END) FROM membership_history"), ["5|1"]);
        let daily = world.sql("SELECT segment, day, entered, \"left\" FROM segment_daily ORDER BY 1, 2");
        assert_eq!(daily, ["new|1970-01-02|1|0", "new|1970-01-03|0|1", "vip|1970-01-02|1|1", "vip|1970-01-03|1|0"]);
    }
}

#[test]
fn outcomes_add_up_and_identities_are_replaced() {
    for world in World::on_each() {
        let exception = |offset, kind: &str, reason: &str| RecordOutcome {
            offset,
            message_id: format!("m{offset}"),
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            tenant: "acme".to_owned(),
        };
        let mut batch = BatchOutcomes {
            stage: "intake".to_owned(),
            partition: 0,
            from_offset: 0,
            to_offset: 10,
            at: 5,
            records: 10,
            applied: 6,
            duplicate: 2,
            filtered: 1,
            dead_lettered: 0,
            control: 1,
            exceptions: vec![exception(3, "duplicate", ""), exception(4, "filtered", "bot")],
        };
        world.append("outcomes", 0, "", &batch);
        batch.from_offset = 12;
        batch.to_offset = 22;
        world.append("outcomes", 0, "", &batch);
        let tie = |user_id: &str, from| Tie { user_id: user_id.to_owned(), from };
        world.append("identities", 0, "a:x", &IdentityRecord { ties: vec![tie("ann", 1)] });
        world.append("identities", 0, "a:x", &IdentityRecord { ties: vec![tie("ann", 1), tie("bob", 2)] });
        world.project();
        let totals = world.sql("SELECT kind, reason, records FROM outcome_totals ORDER BY 1, 2");
        assert_eq!(totals, ["applied||12", "control||2", "duplicate||4", "filtered|bot|2"]);
        assert_eq!(world.sql("SELECT from_offset, to_offset, records, gaps FROM outcome_coverage"), ["0|22|20|1"]);
        assert_eq!(world.sql("SELECT anonymous_id, ordinal, user_id FROM identities ORDER BY 1, 2"), ["x|0|ann", "x|1|bob"]);
    }
}

#[test]
fn a_copy_of_an_event_is_a_row_only_if_its_original_is_none() {
    for world in World::on_each() {
        let order = |message_id, properties, redriven_from| {
            EventsRecord::Event(EventBody { message_id, redriven_from, ..event("Order Completed", DAY, properties) })
        };
        let revenue = r#"{"revenue":2}"#;
        let append = |record: EventsRecord<'_>| world.append("events", 0, "u:ann", &record);
        let from = |offset| Some(Origin { incarnation: 1, partition: 0, offset });
        append(order("m1", revenue, None));
        append(order("m1", revenue, from(0)));
        world.project();
        append(order("m1", revenue, from(1)));
        // What was damaged or unknown when it was projected is no row; the first of its copies is.
        append(order("m2", revenue, from(77)));
        append(order("m2", revenue, from(3)));
        world.append_of("other", "events", 0, "u:ann", &order("m1", revenue, from(5)));
        world.project();
        assert_eq!(
            world.sql("SELECT tenant_id, message_id, log_offset FROM events ORDER BY 1, 2"),
            ["acme|m1|0", "acme|m2|3", "other|m1|5"]
        );
        assert_eq!(world.sql("SELECT orders, revenue_micros FROM daily_revenue WHERE tenant_id = 'acme'"), ["2|4000000"]);
        assert_eq!(world.sql("SELECT events FROM daily_totals WHERE tenant_id = 'acme'"), ["2"]);
    }
}

#[test]
fn a_record_that_cannot_be_read_is_listed_and_the_rest_goes_on() {
    for world in World::on_each() {
        let mut batch = BatchBuilder::new();
        batch.push(b"acme\0u:ann", Some(b"\0\x63garbage"), Millis(1));
        let batches = vec![(world.partition("events", 0), batch.build())];
        world.log.append(Transaction { batches, commits: Vec::new() }).unwrap().wait().unwrap();
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        assert_eq!(world.sql("SELECT topic, log_offset FROM unreadable_records"), ["events|0"]);
        assert_eq!(world.sql("SELECT applied, unreadable FROM processing_status WHERE topic = 'events' AND partition = 0"), ["1|1"]);
    }
}
