//! What foreign producers publish comes to the same as what is sent by HTTP: once, in time, under its tenant, or as a dead letter that says why.

use flywheel::domain::{DAY_MS, Millis};
use flywheel::env::Clock;
use flywheel::log::Advice;
use flywheel::replay::redrive::{Selection, redrive, transaction};
use flywheel::stream::{Spine, Topic};

use crate::inbox_world::{ACME, INBOXES, arrived, dead, items, open, publish, world};
use crate::spine_world::{START, track, user};

fn publish_event(world: &crate::spine_world::World, partition: u32, body: &str) {
    publish(world, partition, ACME, Some(body.as_bytes()));
}

#[test]
fn an_event_or_a_batch_is_rekeyed_as_the_gateway_would() {
    let world = world("");
    let mut spine = open(&world);
    publish_event(&world, 0, &track("m1", "ann", "Page", START));
    publish_event(&world, 1, &track("m2", "a:device", "Page", START));
    let both = format!(
        r#"{{"batch":[{},{{"type":"identify","userId":7,"anonymousId":"d"}}],"context":{{"locale":"de"}},"sentAt":"2024-01-01T00:00:00Z"}}"#,
        track("m3", "ben", "Page", START)
    );
    publish(&world, 0, &[("flywheel-write-key", "web")], Some(both.as_bytes()));
    publish(&world, 1, &[("flywheel-tenant", "globex"), ("flywheel-source", "crm")], Some(track("m1", "ann", "Page", START).as_bytes()));
    world.drive(&mut spine);
    // The id of the event that came without one is a hash of it.
    let derived = flywheel::intake::derived_message_id(r#"{"type":"identify","userId":7,"anonymousId":"d"}"#, "");
    let mut expect =
        ["acme/inbox m1 u:ann", "acme/inbox m2 a:device", "acme/web m3 u:ben", "globex/crm m1 u:ann"].map(str::to_owned).to_vec();
    expect.push(format!("acme/web {derived} a:d"));
    expect.sort();
    assert_eq!(arrived(&world), expect);
    items(&world, |_, item| {
        assert_eq!(item.received_at, START.0, "received when the log took it");
        let is_of_batch = item.source == "web";
        assert_eq!((item.batch, item.sent_at), if is_of_batch { (r#"{"context":{"locale":"de"}}"#, Some(START.0)) } else { ("", None) });
    });
    assert_eq!(world.event_ids(&user("ann")).iter().filter(|id| *id != "control").count(), 1);
    assert_eq!(dead(&world), [""; 0]);
}

#[test]
fn what_cannot_be_decoded_is_a_dead_letter_with_its_reason_and_the_rest_goes_on() {
    let world = world("");
    let mut spine = open(&world);
    publish(&world, 0, &[], Some(track("m1", "ann", "Page", START).as_bytes()));
    publish(&world, 0, &[("flywheel-tenant", "initech")], Some(track("m2", "ann", "Page", START).as_bytes()));
    publish(&world, 0, ACME, Some(br#"{"type":"track""#));
    publish(&world, 0, ACME, Some(b"[1]"));
    publish(&world, 0, ACME, Some(b"\xff\xfe"));
    publish(&world, 0, ACME, None);
    publish(&world, 0, &[("flywheel-write-key", "old")], Some(track("m3", "ann", "Page", START).as_bytes()));
    // What is wrong with an event that can be read intake says, and only of that event.
    publish(
        &world,
        0,
        ACME,
        Some(br#"{"batch":[{"type":"tracks","messageId":"m4","userId":"ann"},{"type":"page","messageId":"m5","userId":"ann"}]}"#),
    );
    publish_event(&world, 0, &track("m6", "ann", "Page", START));
    world.drive(&mut spine);
    let dead = dead(&world);
    let reasons: Vec<_> = dead.iter().map(|line| line.split(": ").next().expect("a line")).collect();
    assert_eq!(
        reasons,
        [
            "decoder malformed ",
            "decoder malformed ",
            "decoder malformed ",
            "decoder malformed ",
            "decoder unknown_tenant m1",
            "decoder unknown_tenant m2",
            "intake unknown_type m4"
        ]
    );
    assert!(dead[5].contains("\"initech\", a tenant that no source, API key or inbox.tenant has"), "{}", dead[5]);
    assert_eq!(arrived(&world), ["acme/inbox m4 u:ann", "acme/inbox m5 u:ann", "acme/inbox m6 u:ann"]);
    let decoder = spine.workers().iter().map(|worker| worker.shared().status()).find(|status| status.stage == "decoder").expect("runs");
    assert_eq!((decoder.records, decoder.applied, decoder.filtered, decoder.dead_lettered), (9, 2, 1, 6), "the counts balance");
}

#[test]
fn a_batch_that_would_grow_beyond_all_bounds_is_refused_whole() {
    let world = world("");
    let mut spine = open(&world);
    let event = r#"{"type":"page","userId":"ann"}"#;
    let many = |count: usize, context: usize| {
        let events = vec![event; count].join(",");
        format!(r#"{{"batch":[{events}],"context":{{"x":"{}"}}}}"#, "y".repeat(context))
    };
    publish_event(&world, 0, &many(10_001, 0));
    publish_event(&world, 0, &many(2, 17_000));
    publish_event(&world, 0, &many(9_000, 8_000));
    publish_event(&world, 0, &many(2, 8_000));
    world.drive(&mut spine);
    assert_eq!(
        dead(&world).iter().map(|line| line.split(' ').nth(1).unwrap()).collect::<Vec<_>>(),
        ["malformed", "too_large", "too_large"]
    );
    assert_eq!(arrived(&world).len(), 2);
}

#[test]
fn nothing_is_lost_or_decoded_twice_wherever_the_process_dies() {
    for cut in 1..40 {
        let world = world("");
        drop(open(&world));
        for at in 0..20 {
            publish_event(&world, at % INBOXES, &track(&format!("m{at}"), &format!("u{}", at % 3), "Page", START));
        }
        world.log.stop_after(cut);
        let died = match Spine::open(crate::inbox_world::setup(&world)) {
            Ok(mut spine) => flywheel::stream::drive(spine.workers()).is_err(),
            Err(error) => matches!(error, flywheel::stream::Error::Log(error) if error.advice() == Advice::Fatal),
        };
        let world = crate::spine_world::World { log: world.log.reopen(), ..world };
        let mut spine = open(&world);
        world.drive(&mut spine);
        let mut ids: Vec<String> = arrived(&world).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
        ids.sort();
        let mut sent: Vec<String> = (0..20).map(|at| format!("m{at}")).collect();
        sent.sort();
        assert_eq!(ids, sent, "cut after {cut} appends");
        if !died {
            return;
        }
    }
    panic!("no run came to its end");
}

const QUIET: &str = r#"
[[segment]]
name = "quiet"
when = "days_since_seen >= 1"
"#;

/// Workers of the decoders, which come after those of `intake` and `events`.
fn decoders(world: &crate::spine_world::World) -> std::ops::Range<usize> {
    let first = (world.partitions.intake + world.partitions.events) as usize;
    first..first + INBOXES as usize
}

#[test]
fn no_silence_is_concluded_while_an_earlier_record_waits_in_the_inbox() {
    let world = world(QUIET);
    let mut spine = open(&world);
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    // Acknowledged just in time, but its partition of the inbox is slow.
    world.clock.set(START + DAY_MS - 1);
    publish_event(&world, 1, &track("m2", "u1", "Page", START + DAY_MS - 1));
    world.clock.set(START + DAY_MS + 10_000);
    let slow = decoders(&world).start + 1;
    for _ in 0..3 {
        for at in (0..slow).rev() {
            while spine.workers()[at].step().expect("steps") == flywheel::stream::Stepped::Worked {}
        }
    }
    assert!(world.changes().is_empty(), "time waits for the slow decoder: {:?}", world.changes());
    world.drive(&mut spine);
    assert!(world.changes().is_empty(), "m2 was in time: {:?}", world.changes());
    world.clock.set(START + 2 * DAY_MS);
    world.drive(&mut spine);
    assert_eq!(world.changes(), [format!("u:u1 +quiet at {}", START + 2 * DAY_MS)], "woken at the tick's time");
}

#[test]
fn an_inbox_to_which_nothing_comes_does_not_hold_time_up() {
    let world = world(QUIET);
    let mut spine = open(&world);
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    for second in 1..=5 {
        world.clock.set(START + DAY_MS + second * 1_000);
        world.drive(&mut spine);
        let reached = |stage: &str, spine: &mut Spine| {
            let of_stage = spine.workers().iter().map(|worker| worker.shared().status()).filter(|status| status.stage == stage);
            of_stage.map(|status| Millis(status.time.expect("known"))).min().expect("runs")
        };
        let now = world.clock.now();
        assert_eq!([reached("decoder", &mut spine), reached("intake", &mut spine), reached("profiles", &mut spine)], [now; 3]);
    }
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn an_event_time_namespace_has_no_inbox() {
    let mut world = crate::spine_world::World::new(flywheel::stream::NamespaceClock::Event, "");
    world.partitions.inbox = INBOXES;
    let mut spine = open(&world);
    world.send(&[track("m1", "u1", "Page", START)]);
    world.state_time(START + DAY_MS);
    world.drive(&mut spine);
    assert_eq!((world.topics().count(Topic::Inbox), world.event_ids(&user("u1")).len()), (0, 1), "and nothing waits for one");
}

#[test]
fn time_is_told_seldom_while_nothing_comes_to_either_door() {
    let world = world(QUIET);
    let mut spine = open(&world);
    publish_event(&world, 0, &track("m1", "u1", "Page", START));
    world.drive(&mut spine);
    let written_in = |seconds: i64, spine: &mut Spine| {
        let before = world.records(Topic::Intake).len();
        for _ in 0..seconds {
            world.clock.advance(1_000);
            world.drive(spine);
        }
        world.records(Topic::Intake).len() - before
    };
    let each = (world.partitions.intake * INBOXES) as usize;
    let busy = written_in(10, &mut spine);
    assert!((9 * each..=11 * each).contains(&busy), "{busy} in ten seconds after an event");
    let quiet = written_in(600, &mut spine);
    assert!(quiet <= 12 * each, "{quiet} in ten minutes of silence: what decoders say of time is no news");
}

#[test]
fn a_record_that_was_refused_is_sent_again_with_its_headers_and_only_once() {
    let world = world("");
    let mut spine = open(&world);
    let headers = [("flywheel-tenant", "initech"), ("trace", "t1")];
    publish(&world, 1, &headers, Some(track("m1", "ann", "Page", START).as_bytes()));
    world.drive(&mut spine);
    drop(spine);
    let namespace = world.topics().namespace;
    let again = |expect: u64| {
        let topics = world.topics();
        let mut send = |record| {
            flywheel::log::LogWriter::append(&world.log, transaction(&topics, &record))?.wait()?;
            Ok(())
        };
        let redriven = redrive(&world.log, &namespace, &Selection::default(), &mut send).expect("redrives");
        assert_eq!(redriven.sent, expect);
    };
    again(1);
    again(0);
    let copy = world.records(Topic::Inbox).pop().expect("sent again");
    assert_eq!(copy.headers.as_headers().last("trace"), Some(Some(&b"t1"[..])));
    let mut setup = crate::inbox_world::setup(&world);
    let mut senders = (*setup.inbox.senders).clone();
    senders.tenants.insert(flywheel::domain::TenantId::new("initech").unwrap());
    setup.inbox.senders = std::sync::Arc::new(senders);
    world.drive(&mut Spine::open(setup).unwrap());
    assert_eq!(arrived(&world), ["initech/inbox m1 u:ann"]);
}
