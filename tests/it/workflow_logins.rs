//! A login tells the user's runs what was done before it: a purchase made on a phone ends the campaign that waits for one.

use flywheel::domain::Millis;
use flywheel::schema::records::{EventBody, EventsRecord, Origin};
use flywheel::stream::{NamespaceClock, Spine, Topic};
use flywheel::workflow::{Ending, What};

use crate::spine_world::{START, World, anonymous, identify, track, user};
use crate::workflow_world::{journal, kinds, open, pass};

const WINBACK: &str = r#"
[workflow]
name = "winback"
entry = { event = "Lapsed", reenter = "always" }
[[node]]
name = "bought"
kind = "goal"
event = "Order Completed"
when = "orders >= 1 && event.revenue > 10.0"
[[node]]
name = "quiet"
kind = "wait_for"
any = [{ event = "Reviewed", next = "over" }]
timeout = "2h"
next = "remind"
[[node]]
name = "remind"
kind = "delay"
wait = "1d"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

/// Whoever buys begins one, too: what was done before a login must not.
const THANKS: &str = r#"
[workflow]
name = "thanks"
entry = { event = "Order Completed", reenter = "always" }
[[node]]
name = "over"
kind = "exit"
"#;

fn ended(world: &World, who: &str) -> Option<Ending> {
    let facts = journal(world).remove(&user(who)).unwrap_or_default();
    facts.into_iter().find_map(|fact| match fact.what {
        What::RunEnded { ending, .. } => Some(ending),
        _ => None,
    })
}

/// Time goes on for everyone.
fn later(world: &World, spine: &mut Spine, at: Millis) {
    match world.time {
        NamespaceClock::Wall => pass(world, spine, at.since_ms(flywheel::env::Clock::now(&world.clock)).max(1)),
        NamespaceClock::Event => {
            world.state_time(at);
            world.drive(spine);
        }
    }
}

/// Ann's campaign begins; she buys on her phone, not logged in yet; logs in; hours pass.
fn tell(world: &World, spine: &mut Spine, buys_at: i64) {
    if buys_at < 0 {
        world.send(&[track("m2", "a:phone", "Order Completed", START + 10)]);
    }
    world.send(&[track("m1", "ann", "Lapsed", START + 1_000)]);
    later(world, spine, START + 2_000);
    if buys_at >= 0 {
        world.send(&[track("m2", "a:phone", "Order Completed", START + 1_000 + buys_at)]);
    }
    later(world, spine, START + 60_000);
    world.send(&[identify("m3", "phone", "ann", START + 60_000)]);
    later(world, spine, START + 3 * 3_600_000);
}

#[test]
fn a_purchase_made_before_logging_in_reaches_the_goal_of_a_run_that_had_begun() {
    for time in [NamespaceClock::Wall, NamespaceClock::Event] {
        let world = World::new(time, "");
        let mut spine = open(&world, &[WINBACK, THANKS], None);
        tell(&world, &mut spine, 30_000);
        assert_eq!(ended(&world, "ann"), Some(Ending::Goal), "{time:?}");
        let told = kinds(&world, &user("ann"));
        assert_eq!(told.iter().filter(|kind| *kind == "run_started").count(), 1, "and began nothing: {told:?}");
        assert!(!told.contains(&"timer_fired".to_owned()), "no reminder: {told:?}");
        assert!(kinds(&world, &anonymous("phone")).contains(&"run_started".to_owned()), "the phone's own purchase was thanked for");
    }
}

#[test]
fn one_made_before_the_run_began_reaches_nothing() {
    for time in [NamespaceClock::Wall, NamespaceClock::Event] {
        let world = World::new(time, "");
        let mut spine = open(&world, &[WINBACK, THANKS], None);
        tell(&world, &mut spine, -1);
        assert_eq!(ended(&world, "ann"), None, "{time:?}");
        assert!(kinds(&world, &user("ann")).contains(&"timer_fired".to_owned()), "the silence is one");
    }
}

#[test]
fn it_does_so_whatever_crashes_and_with_states_built_again() {
    for commits in 1.. {
        let mut world = World::new(NamespaceClock::Wall, "");
        let mut spine = open(&world, &[WINBACK], None);
        world.send(&[track("m1", "ann", "Lapsed", START)]);
        pass(&world, &mut spine, 1_000);
        let now = flywheel::env::Clock::now(&world.clock);
        world.send(&[track("m2", "a:phone", "Order Completed", now), identify("m3", "phone", "ann", now + 1)]);
        world.log.stop_after(commits);
        let finished = flywheel::stream::drive(spine.workers()).is_ok();
        drop(spine);
        world.log = world.log.reopen();
        if commits % 2 == 0 {
            world.state = Default::default();
        }
        let mut spine = open(&world, &[WINBACK], None);
        pass(&world, &mut spine, 2_000);
        assert_eq!(ended(&world, "ann"), Some(Ending::Goal), "a crash after {commits} commits");
        if finished {
            assert!(commits > 5);
            return;
        }
    }
}

#[test]
fn what_comes_under_the_old_name_after_the_login_reaches_the_user_too() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[WINBACK, THANKS], None);
    world.send(&[track("m0", "a:phone", "Seen", START), track("m1", "ann", "Lapsed", START), identify("m2", "phone", "ann", START + 1)]);
    pass(&world, &mut spine, 1_000);
    let (topics, now) = (world.topics(), flywheel::env::Clock::now(&world.clock));
    let key = anonymous("phone");
    let event = EventBody {
        message_id: "m3",
        kind: "track",
        name: "Order Completed",
        event_time: now.0,
        received_at: now.0,
        user_id: "",
        anonymous_id: "phone",
        source: "web",
        historical: false,
        properties: r#"{"revenue":12.5}"#,
        context: "",
        origin: Origin { incarnation: 1, partition: 0, offset: 99 },
        redriven_from: None,
        depth: 0,
    };
    let partition = flywheel::domain::partition_of(&key, topics.count(Topic::Events));
    world.append(&topics, Topic::Events, partition, &key, now, &EventsRecord::Event(event));
    pass(&world, &mut spine, 1_000);
    assert_eq!(ended(&world, "ann"), Some(Ending::Goal));
    assert_eq!(kinds(&world, &user("ann")).iter().filter(|kind| *kind == "run_started").count(), 1, "and begins nothing");
}
