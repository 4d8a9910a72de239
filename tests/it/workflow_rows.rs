//! Runs of the real engine as SQL: what the journal says and what the rows say is the same, and a rebuild says it again.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flywheel::domain::{DAY_MS, HOUR_MS, Namespace, Offset, PartitionId};
use flywheel::log::LogReader;
use flywheel::projections::runs::RunQuery;
use flywheel::projections::{self, Limits, Options, Projector, Reader, Value};
use flywheel::stream::{NamespaceClock, Topic};
use flywheel::workflow::What;
use serde_json::json;

use crate::spine_world::{START, World, tenant, track};
use crate::workflow_world::{done, journal, open, run_to_end};

const OFFER: &str = r#"
[workflow]
name = "offer"
entry = { event = "Signed Up", reenter = "never" }

[[node]]
name = "bought"
kind = "goal"
event = "Order Completed"

[[node]]
name = "arm"
kind = "split"
arms = [{ name = "treatment", weight = 3, next = "write" }, { name = "holdout", weight = 1, next = "rest" }]

[[node]]
name = "write"
kind = "effect"
agent = "writer"
timeout = "1m"
retry = { attempts = 2, first = "1m" }
on_failure = "over"
next = "rest"

[[node]]
name = "rest"
kind = "delay"
wait = "2d"
next = "over"

[[node]]
name = "over"
kind = "exit"
outcome = "rested"
"#;

const PEOPLE: usize = 60;

fn project(world: &World, dir: &Path) {
    let namespace = Namespace::new("t").expect("a slug");
    let log: Arc<dyn LogReader> = Arc::new(world.log.clone());
    let handle = Projector::start(Arc::clone(&log), dir, &namespace, Options::default()).expect("starts");
    for id in world.topics().partitions(Topic::Journal) {
        let end = log.watermarks(id).expect("reads").end;
        let last = Offset(end.0.saturating_sub(1));
        assert!(
            end.0 == 0 || handle.wait_applied("journal", PartitionId(id.partition.0), last, Duration::from_secs(30)),
            "{:?}",
            handle.health()
        );
    }
    handle.stop();
}

fn sql(dir: &Path, sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let rows = runtime.block_on(projections::query(dir, &Namespace::new("t").expect("a slug"), sql, Limits::default())).expect("answers");
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number}"),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{bytes:?}"),
    };
    rows.rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect()
}

#[test]
fn what_the_engine_decided_is_in_sql_and_a_rebuild_says_it_again() {
    let world = World::new(NamespaceClock::Event, "");
    let mut spine = open(&world, &[OFFER], None);
    for person in 0..PEOPLE {
        let name = format!("u{person}");
        world.send(&[track(&format!("in-{person}"), &name, "Signed Up", START + person as i64 * HOUR_MS)]);
        if person % 3 == 0 {
            world.send(&[track(&format!("buy-{person}"), &name, "Order Completed", START + DAY_MS + person as i64 * HOUR_MS)]);
        }
    }
    world.state_time(START + 4 * DAY_MS);
    let mut asked = 0;
    run_to_end(&world, &mut spine, |_, _| {
        asked += 1;
        match asked % 7 {
            0 => flywheel::workflow::Outcome::Failed {
                category: flywheel::workflow::Category::Integration,
                error: "503".to_owned(),
                permanent: false,
                retry_after_ms: None,
            },
            _ => done(json!({"text": "hello"})),
        }
    });

    let dir = tempfile::tempdir().expect("a folder");
    project(&world, dir.path());
    let facts = journal(&world);
    let count = |is: &dyn Fn(&What) -> bool| facts.values().flatten().filter(|fact| is(&fact.what)).count();
    let of_runs = facts.values().flatten().filter(|fact| fact.run.is_some()).count();
    let (goals, ended) = (count(&|what| matches!(what, What::GoalReached { .. })), count(&|what| matches!(what, What::RunEnded { .. })));
    let totals = sql(dir.path(), "SELECT count(*), sum(facts), count(ended_at), count(goal) FROM workflow_runs");
    assert_eq!(totals, [format!("{PEOPLE}|{of_runs}|{ended}|{goals}")]);
    assert!(goals > 0 && ended > goals && ended < PEOPLE, "some bought, some rested, some still rest: {goals}, {ended}");
    let effects = sql(dir.path(), "SELECT count(*), sum(performed), sum(failures) FROM workflow_effects");
    let done = count(&|what| matches!(what, What::EffectCompleted { .. }));
    let failed = count(&|what| matches!(what, What::AttemptFailed { .. }));
    assert_eq!(effects, [format!("{}|{done}|{failed}", count(&|what| matches!(what, What::EffectRequested { .. })))]);
    assert!(failed > 0, "some were tried again");
    let arms = sql(dir.path(), "SELECT sum(runs), sum(converted) FROM workflow_conversions");
    assert_eq!(arms, [format!("{PEOPLE}|{goals}")]);
    let here = sql(dir.path(), "SELECT sum(entered) - sum(left), (SELECT count(*) FROM workflow_nodes) FROM workflow_funnel");
    assert_eq!(here, [format!("{0}|{0}", PEOPLE - ended)], "who has not ended rests");
    assert_eq!(sql(dir.path(), "SELECT DISTINCT node, doing FROM workflow_nodes"), ["rest|delay"]);
    assert_eq!(sql(dir.path(), "SELECT workflow, is_active FROM workflow_versions"), ["offer|1"]);

    let all = "SELECT * FROM workflow_runs ORDER BY run_ref";
    let before = sql(dir.path(), all);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let namespace = Namespace::new("t").expect("a slug");
    let log: Arc<dyn LogReader> = Arc::new(world.log.clone());
    let options = Options::default();
    let mut go_on = |_| ControlFlow::Continue(());
    runtime.block_on(projections::rebuild(log, dir.path(), &namespace, &options, &mut go_on)).expect("rebuilds");
    assert_eq!(sql(dir.path(), all), before, "the same rows, numbers and all");

    let reader = Reader::new(dir.path(), &namespace);
    let query = RunQuery { status: Some("open".to_owned()), limit: 100, ..RunQuery::default() };
    let page = runtime.block_on(reader.runs(&tenant(), &query)).expect("reads");
    assert_eq!(page.runs.len(), PEOPLE - ended);
}
