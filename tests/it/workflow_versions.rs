//! Runs go on under the version that they began under: what they wait for still reaches them when another version takes the entries, or none.

use flywheel::domain::{HOUR_MS, Millis};
use flywheel::env::Clock;
use flywheel::state::{Flush, StateStore};
use flywheel::stream::{NamespaceClock, Spine, Watermark, activate_workflow, retire_workflow};
use flywheel::workflow::{Ending, What};

use crate::spine_world::{START, World, track, user};
use crate::workflow_world::{definition, journal, kinds, open, pass};

/// Ends by a goal, or by an event under a condition on the profile that nobody else names.
const FIRST: &str = r#"
[workflow]
name = "journey"
entry = { event = "Signed Up", reenter = "always" }
[[node]]
name = "bought"
kind = "goal"
event = "Order Completed"
when = "orders >= 1"
[[node]]
name = "rest"
kind = "wait_for"
any = [{ event = "Reviewed", when = "sessions >= 1", next = "over" }, { enters = "fan", next = "over" }]
timeout = "30d"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

const SECOND: &str = r#"
[workflow]
name = "journey"
entry = { event = "Joined", reenter = "always" }
[[node]]
name = "subscribed"
kind = "goal"
event = "Subscribed"
[[node]]
name = "rest"
kind = "delay"
wait = "30d"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

const FANS: &str = r#"
[[segment]]
name = "fan"
when = "count(\"Liked\") >= 1"
"#;

enum Then {
    Published,
    Retired,
}

/// How the process ends before the people do what the first version's runs wait for.
#[derive(Clone, Copy)]
enum Restart {
    None,
    Clean,
    /// The stored states are lost.
    Rebuilt,
    /// The stored states are those of a build that kept the versions in force only.
    Upgraded,
}

fn stop(mut spine: Spine) {
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
}

/// As a build wrote the profile fold's memo that did not know what runs hear.
fn forget_what_is_heard(world: &World) {
    let tables = world.state.tables().expect("reads");
    for table in tables.iter().filter(|table| table.0.contains(".profiles.")) {
        let mut watermark = Watermark::decode(&world.state.watermark(table).expect("reads").expect("flushed")).expect("decodes");
        let mut memo: serde_json::Value = serde_json::from_slice(&watermark.memo).expect("JSON");
        memo.as_object_mut().expect("an object").remove("heard").expect("kept");
        watermark.memo = serde_json::to_vec(&memo).expect("plain data").into();
        let upto = watermark.progress.upto(watermark.incarnation);
        world.state.flush(table, Flush { upto, watermark: Some(watermark.encode()), ..Flush::default() }).expect("stores");
    }
}

fn ending(world: &World, who: &str) -> Option<Ending> {
    let facts = journal(world).remove(&user(who)).unwrap_or_default();
    facts.into_iter().find_map(|fact| match fact.what {
        What::RunEnded { ending, .. } => Some(ending),
        _ => None,
    })
}

#[test]
fn runs_of_a_superseded_or_retired_version_still_hear_what_they_wait_for() {
    for then in [Then::Published, Then::Retired] {
        for restart in [Restart::None, Restart::Clean, Restart::Rebuilt, Restart::Upgraded] {
            let mut world = World::new(NamespaceClock::Wall, FANS);
            let mut spine = open(&world, &[FIRST], None);
            world.drive(&mut spine);
            world.send(&["buys", "reviews", "likes", "rests"].map(|who| track(&format!("s-{who}"), who, "Signed Up", START)));
            pass(&world, &mut spine, 1_000);
            let now = world.clock.now();
            match then {
                Then::Published => drop(activate_workflow(&world.log, spine.topics(), &definition(SECOND), now).expect("activates")),
                Then::Retired => drop(retire_workflow(&world.log, spine.topics(), None, "journey", now).expect("retires")),
            }
            world.drive(&mut spine);
            if !matches!(restart, Restart::None) {
                stop(spine);
                match restart {
                    Restart::Rebuilt => world.state = Default::default(),
                    Restart::Upgraded => forget_what_is_heard(&world),
                    Restart::None | Restart::Clean => {}
                }
                spine = open(&world, &[], None);
                world.drive(&mut spine);
            }
            let later = world.clock.now() + 1;
            world.send(&[
                track("b", "buys", "Order Completed", later),
                track("r", "reviews", "Reviewed", later),
                track("l", "likes", "Liked", later),
                track("x", "rests", "Seen", later),
            ]);
            pass(&world, &mut spine, HOUR_MS);
            let ended = ["buys", "reviews", "likes", "rests"].map(|who| ending(&world, who));
            assert_eq!(ended, [Some(Ending::Goal), Some(Ending::Completed), Some(Ending::Completed), None]);
        }
    }
}

#[test]
fn what_begins_runs_is_the_version_in_force_alone() {
    let world = World::new(NamespaceClock::Wall, FANS);
    let mut spine = open(&world, &[FIRST, SECOND], None);
    world.drive(&mut spine);
    let say = |spine: &mut Spine, n: u32| {
        let at: Millis = world.clock.now();
        world.send(&[
            track(&format!("s{n}"), &format!("old{n}"), "Signed Up", at),
            track(&format!("j{n}"), &format!("new{n}"), "Joined", at),
        ]);
        pass(&world, spine, 1_000);
        [format!("old{n}"), format!("new{n}")].map(|who| kinds(&world, &user(&who)).len())
    };
    assert_eq!(say(&mut spine, 1), [0, 2], "entries go to the second version: started and delayed");
    retire_workflow(&world.log, spine.topics(), None, "journey", world.clock.now()).expect("retires");
    world.drive(&mut spine);
    assert_eq!(say(&mut spine, 2), [0, 0], "to none");
    activate_workflow(&world.log, spine.topics(), &definition(FIRST), world.clock.now()).expect("activates");
    world.drive(&mut spine);
    assert_eq!(say(&mut spine, 3), [2, 0], "to the first again");
    let commands = crate::workflow_world::count(&world, flywheel::stream::Topic::Commands);
    world.send(&[track("q", "quiet", "Joined", world.clock.now())]);
    world.drive(&mut spine);
    assert_eq!(crate::workflow_world::count(&world, flywheel::stream::Topic::Commands), commands, "nobody is told what begins nothing");
}
