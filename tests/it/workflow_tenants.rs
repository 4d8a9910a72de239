//! A tenant's own workflows and policy are for its own subjects: whatever would begin a run begins none of anybody else's.

use bytes::Bytes;
use flywheel::domain::{HOUR_MS, Subject, TenantId};
use flywheel::env::Clock;
use flywheel::schema;
use flywheel::schema::records::CommandsRecord;
use flywheel::stream::{NamespaceClock, Spine, Topic, activate_policy, activate_workflows, retire_workflow};
use flywheel::workflow::{Input, Policy, What};
use serde_json::{Value as Json, json};

use crate::http_campaigns::ASKS;
use crate::spine_world::{START, World, track};
use crate::workflow_world::{command, definition, journal, open, pass};

const BUYERS: &str = "[[segment]]\nname = \"buyer\"\nwhen = \"orders >= 1\"\n";

/// A workflow that begins so, and rests.
fn workflow(name: &str, entry: &str) -> String {
    format!(
        "[workflow]\nname = \"{name}\"\nentry = {entry}\n[[node]]\nname = \"rest\"\nkind = \"delay\"\nwait = \"30d\"\nnext = \"over\"\n\
         [[node]]\nname = \"over\"\nkind = \"exit\"\n"
    )
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a slug")
}

fn of(tenant: &str, user: &str) -> Bytes {
    Subject::user(user).key(&self::tenant(tenant)).bytes().clone()
}

fn publish(world: &World, spine: &Spine, of: &str, text: &str) {
    let published = activate_workflows(&world.log, spine.topics(), Some(&tenant(of)), &[&definition(text)], world.clock.now());
    published.expect("the name is free");
}

/// Ann of each tenant buys something.
fn buy(world: &World, id: &str) {
    for tenant in ["acme", "other"] {
        world.send_under(&world.topics(), &of(tenant, "ann"), &track(&format!("{tenant}-{id}"), "ann", "Order Completed", START));
    }
}

fn start(world: &World, key: &Bytes, workflow: &str, entry: Json) {
    let input = Input::Start { workflow: workflow.into(), cause: "c".into(), entry, profile: json!({}), depth: 0, parent: None };
    command(world, key, &input, None);
}

/// The runs that began, as `TENANT/SUBJECT WORKFLOW`, in order.
fn begun(world: &World) -> Vec<String> {
    let mut begun = Vec::new();
    for (key, facts) in journal(world) {
        let who = String::from_utf8(key.to_vec()).expect("a key is text").replace('\0', "/");
        begun.extend(facts.into_iter().filter_map(|fact| match fact.what {
            What::RunStarted { workflow, .. } => Some(format!("{who} {workflow}")),
            _ => None,
        }));
    }
    begun.sort();
    begun
}

/// Whom the profile fold has told of an event or a segment change.
fn told(world: &World) -> Vec<String> {
    let mut told = Vec::new();
    for record in world.records(Topic::Commands) {
        let value = record.value.as_deref().expect("a value");
        if let CommandsRecord::Command(command) = schema::decode(value).expect("decodes")
            && ["event", "segment_change"].contains(&command.kind)
        {
            let who = String::from_utf8(record.key.to_vec()).expect("a key is text").replace('\0', "/");
            told.push(format!("{who} {}", command.kind));
        }
    }
    told.sort();
    told
}

#[test]
fn an_event_or_a_segment_begins_runs_of_the_tenants_own_people() {
    let world = World::new(NamespaceClock::Wall, BUYERS);
    let mut spine = open(&world, &[], None);
    publish(&world, &spine, "other", &workflow("by_event", "{ event = \"Order Completed\" }"));
    publish(&world, &spine, "other", &workflow("by_segment", "{ segment = \"buyer\" }"));
    pass(&world, &mut spine, 1_000);
    buy(&world, "m1");
    pass(&world, &mut spine, 2_000);
    assert_eq!(begun(&world), ["other/u:ann by_event", "other/u:ann by_segment"]);
    assert_eq!(told(&world), ["other/u:ann event", "other/u:ann segment_change"], "nobody else's people are even told of");
}

#[test]
fn a_command_a_start_node_and_a_broadcast_find_a_tenants_workflow_for_its_own_subjects_only() {
    let parent = "[workflow]\nname = \"parent\"\nentry = { command = true }\n[[node]]\nname = \"ask\"\nkind = \"start\"\nworkflow = \"child\"\n\
                  subject = \"entry.whom\"\nnext = \"over\"\n[[node]]\nname = \"over\"\nkind = \"exit\"\n";
    let world = World::new(NamespaceClock::Wall, BUYERS);
    let mut spine = open(&world, &[parent], None);
    publish(&world, &spine, "other", &workflow("child", "{ command = true }"));
    publish(&world, &spine, "other", &workflow("news", "{ broadcast = \"buyer\", throttle = \"1m\" }"));
    pass(&world, &mut spine, 1_000);
    buy(&world, "m1");
    pass(&world, &mut spine, 1_000);
    for tenant in ["acme", "other"] {
        start(&world, &of(tenant, "bob"), "child", json!({}));
        start(&world, &of(tenant, "cy"), "parent", json!({ "whom": "di" }));
        start(&world, &of(tenant, "campaign:news"), "news", json!({}));
    }
    pass(&world, &mut spine, HOUR_MS);
    let expect = ["acme/u:cy parent", "other/u:ann news", "other/u:bob child", "other/u:cy parent", "other/u:di child"];
    assert_eq!(begun(&world), expect, "acme's parent finds no child, and acme's broadcast no news");
}

#[test]
fn a_schedule_is_its_tenants_and_goes_on_after_a_restart_from_the_journal() {
    let mut world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[&workflow("everyones", "{ every = \"1h\", reenter = \"always\" }")], None);
    publish(&world, &spine, "other", &workflow("report", "{ every = \"1h\", reenter = \"always\" }"));
    world.drive(&mut spine);
    pass(&world, &mut spine, HOUR_MS);
    let once = ["default/u:campaign:everyones everyones", "other/u:campaign:report report"];
    assert_eq!(begun(&world), once, "the namespace's as `default`, a tenant's as the tenant");
    drop(spine);
    // Nothing is left but the log.
    world.state = std::sync::Arc::default();
    let mut spine = open(&world, &[], None);
    pass(&world, &mut spine, HOUR_MS);
    assert_eq!(begun(&world), [once[0], once[0], once[1], once[1]]);
    retire_workflow(&world.log, spine.topics(), Some(&tenant("other")), "report", world.clock.now()).expect("retires");
    pass(&world, &mut spine, HOUR_MS);
    assert_eq!(begun(&world).iter().filter(|run| run.starts_with("other/")).count(), 2, "retired");
}

#[test]
fn two_tenants_may_have_workflows_of_one_name_that_have_nothing_in_common() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[], None);
    let (first, second) = (workflow("same", "{ command = true }"), workflow("same", "{ event = \"Order Completed\" }"));
    publish(&world, &spine, "acme", &first);
    publish(&world, &spine, "other", &second);
    pass(&world, &mut spine, 1_000);
    buy(&world, "m1");
    start(&world, &of("acme", "bob"), "same", json!({}));
    pass(&world, &mut spine, 1_000);
    assert_eq!(begun(&world), ["acme/u:bob same", "other/u:ann same"]);
    let digests: Vec<String> = journal(&world)
        .into_values()
        .flatten()
        .filter_map(|fact| match fact.what {
            What::RunStarted { digest, .. } => Some(digest),
            _ => None,
        })
        .collect();
    assert_eq!(digests, [definition(&first).digest.to_hex(), definition(&second).digest.to_hex()]);
}

#[test]
fn a_tenants_policy_decides_its_own_approvals_and_nobody_elses() {
    let rule = "[[purpose]]\nname = \"marketing\"\nbasis = \"opt_in\"\n[[approval]]\nworkflow = \"asks\"\nnode = \"review\"\nby = \"rule of ours\"\n";
    let policy = Policy::parse("policy.toml", rule).unwrap_or_else(|problems| panic!("{problems}"));
    let mut world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[ASKS], None);
    activate_policy(&world.log, spine.topics(), Some(&tenant("other")), &policy, world.clock.now()).expect("activates");
    world.drive(&mut spine);
    let ask = |world: &World, user: &str| {
        for tenant in ["acme", "other"] {
            start(world, &of(tenant, user), "asks", json!({ "subject": "Hi", "body": "x" }));
        }
    };
    let decided = |world: &World| {
        let is_decided = |facts: &Vec<flywheel::workflow::Fact>| facts.iter().any(|fact| matches!(fact.what, What::ApprovalDecided { .. }));
        let mut decided: Vec<Bytes> = journal(world).into_iter().filter(|(_, facts)| is_decided(facts)).map(|(key, _)| key).collect();
        decided.sort();
        decided
    };
    ask(&world, "ann");
    pass(&world, &mut spine, 1_000);
    assert_eq!(decided(&world), [of("other", "ann")]);
    drop(spine);
    world.state = std::sync::Arc::default();
    let mut spine = open(&world, &[], None);
    ask(&world, "bob");
    pass(&world, &mut spine, 1_000);
    assert_eq!(decided(&world), [of("other", "ann"), of("other", "bob")], "after a restart from the journal too");
}
