//! A small campaign in March with one person for each thing that may happen, for docs/sql.md and what reads the tables.

use super::workflows::{append_fact, time};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::log::{self, Committed, Fetched, Group, LogReader, TopicInfo, TopicPartition, Watermarks};
use crate::permit::{AddressKey, Cause};
use crate::projections::runs::{EffectOf, RunQuery};
use crate::schema::records::{Activated, JournalRecord};
use crate::workflow::{Definition, Fact, What};

/// The last moment that anything is known of.
pub const NOW: &str = "2024-03-04T10:00:00Z";

const WINBACK: &str = r#"
[workflow]
name = "winback"
entry = { segment = "lapsing", reenter = "never" }

[[node]]
name = "bought"
kind = "goal"
event = "Order Completed"

[[node]]
name = "arm"
kind = "split"
arms = [{ name = "treatment", weight = 3, next = "write" }, { name = "holdout", weight = 1, next = "watch" }]

[[node]]
name = "watch"
kind = "delay"
wait = "6d"
next = "held_out"

[[node]]
name = "write"
kind = "effect"
agent = "copywriter"
returns = { subject = "string" }
timeout = "10d"
retry = { attempts = 2, first = "1m" }
next = "review"

[[node]]
name = "review"
kind = "approval"
who = "marketing"
shows = { subject = "results.write.subject" }
deadline = "3d 30m"
silence = "rejects"
on_approve = "send"
on_reject = "turned_down"

[[node]]
name = "send"
kind = "effect"
channel = "email"
input = { template = "'winback'", subject = "results.write.subject" }
timeout = "1m"
retry = { attempts = 9, first = "2h", most = "2h", factor = 1.0 }
on_refused = "may_not"
next = "response"

[[node]]
name = "response"
kind = "wait_for"
any = [{ signal = "reply" }]
timeout = "5d"
on_timeout = "over"
next = "over"

[[node]]
name = "over"
kind = "exit"

[[node]]
name = "held_out"
kind = "exit"

[[node]]
name = "turned_down"
kind = "exit"
outcome = "turned down"

[[node]]
name = "may_not"
kind = "exit"
outcome = "not permitted"
"#;

/// Three days of one person each; `#` stands for the effects that answer well.
const PEOPLE: [(&str, &str); 10] = [
    (
        "ann",
        r#"given = [{ enters = "lapsing" }, { at = "1h", approve = "review", by = "bo" }, { at = "2d", event = "Order Completed" }]
           for = "1d" #"#,
    ),
    (
        "ben",
        r#"given = [{ enters = "lapsing" }, { at = "1h", approve = "review", by = "bo" }]
           for = "2d 23h" #"#,
    ),
    (
        "bud",
        r#"given = [{ enters = "lapsing" }]
           for = "3d"
           effects = [{ node = "write", fails = "401: the key has expired", category = "api" }]"#,
    ),
    (
        "cid",
        r#"given = [{ enters = "lapsing" }]
           for = "3d" #"#,
    ),
    (
        "cyd",
        r#"given = [{ enters = "lapsing" }, { at = "1d", event = "Order Completed" }]
           for = "2d" #"#,
    ),
    (
        "eve",
        r#"given = [{ enters = "lapsing" }, { at = "1h", consent = { marketing = false } }, { at = "2h", approve = "review", by = "bo" }]
           for = "2d 22h" #"#,
    ),
    (
        "gus",
        r#"given = [{ enters = "lapsing" }, { at = "2d 23h 10m", approve = "review", by = "bo" }]
           for = "50m"
           effects = [{ node = "write", result = { subject = "Gus!" } }, { node = "send", fails = "503", category = "integration" }]"#,
    ),
    (
        "hal",
        r#"given = [{ enters = "lapsing" }]
           for = "3d" #"#,
    ),
    (
        "jim",
        r#"given = [{ enters = "lapsing" }, { at = "1h", reject = "review", by = "bo" }, { at = "2d", enters = "lapsing" }]
           for = "1d" #"#,
    ),
    (
        "joe",
        r#"given = [{ enters = "lapsing" }]
           for = "3d"
           effects = [{ node = "write", lost = true }]"#,
    ),
];

/// What a person's part gives, on the campaign as it is or was before.
fn journal(name: &str, part: &str, text: &str) -> (Definition, Vec<Fact>) {
    let well = r#"
effects = [{ node = "write", result = { subject = "We miss you" } }, { node = "send", result = { id = 7 } }]"#;
    let part = part.replace('#', well).replace("given", "\ngiven").replace("for =", "\nfor =");
    let part: String = part.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let text = format!(
        "{text}\n[[test]]\nname = \"{name}\"\nsubject = \"{name}\"\nstart = \"2024-03-01T10:00:00Z\"\nnever = [\"nothing\"]\n{part}\n"
    );
    let definition = Definition::parse("winback.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let facts = crate::workflow::run(&definition, &definition.tests[0]);
    (definition, facts)
}

/// Appends the whole campaign.
pub fn campaign(world: &World) {
    // Ben came in before the holdout was watched for as long as it is now.
    let before = WINBACK.replace("6d", "5d");
    for (name, part) in PEOPLE {
        let text = if name == "ben" { &before } else { WINBACK };
        let (definition, facts) = journal(name, part, text);
        for fact in &facts {
            append_fact(world, 0, &format!("u:{name}"), fact);
        }
        let digest = definition.digest.to_hex();
        let activated = Activated { kind: "workflow", name: "winback", digest: &digest, from: 0, tenant: "" };
        world.append("journal", 0, "", &JournalRecord::Activated(activated));
    }
    let address = AddressKey::of("email", "zoe@example.org");
    let (channel, reason, said) = ("email".to_owned(), Cause::HardBounce, Millis::parse("2024-03-02T08:00:00Z").unwrap());
    let by = "message 0ddba110ddba110ddba110ddba110ddb".to_owned();
    let suppressed = Fact { at: said, run: None, what: What::Suppressed { address, channel, reason, said, until: None, by } };
    for subject in [format!("@:{address}"), "u:zoe".to_owned(), "u:zed".to_owned()] {
        append_fact(world, 0, &subject, &suppressed);
    }
    // Written otherwise it is the same address.
    let (name, value, was) = ("email".to_owned(), " Zoe@example.org".into(), Some("zoe@example.org".into()));
    append_fact(world, 0, "u:zoe", &Fact { at: said, run: None, what: What::AttributeSet { name, value, was } });
    for partition in [0, 1] {
        time(world, partition, Millis::parse(NOW).unwrap().0);
    }
}

#[test]
fn the_reader_answers_what_the_command_line_and_the_api_ask() {
    use crate::projections::runs::ApprovalQuery;
    for world in World::on_each() {
        campaign(&world);
        world.project();
        let reader = world.reader();
        let acme = TenantId::new("acme").unwrap();
        let subjects = |query: RunQuery| {
            let page = block_on(reader.runs(&acme, &RunQuery { limit: 20, ..query })).unwrap();
            page.runs.into_iter().map(|run| run.subject).collect::<Vec<_>>().join(" ")
        };
        let all = RunQuery::default;
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(subjects(all()), "u:joe u:jim u:hal u:gus u:eve u:cyd u:cid u:bud u:ben u:ann");
        assert_eq!(subjects(RunQuery { status: some("open"), ..all() }), "u:joe u:hal u:gus u:cid u:bud u:ben");
        assert_eq!(subjects(RunQuery { status: some("waiting"), ..all() }), "u:hal u:cid u:ben");
        assert_eq!(subjects(RunQuery { status: some("paused"), reason: some("401"), ..all() }), "u:bud");
        assert_eq!(subjects(RunQuery { status: some("goal"), workflow: some("winback"), ..all() }), "u:cyd u:ann");
        assert_eq!(subjects(RunQuery { subject: some("u:eve"), ..all() }), "u:eve");
        assert_eq!(subjects(RunQuery { workflow: some("other"), ..all() }), "");
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = block_on(reader.runs(&acme, &RunQuery { limit: 4, after, ..all() })).unwrap();
            pages.push(page.runs.len());
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(pages, [4, 4, 2]);

        let gus = block_on(reader.runs(&acme, &RunQuery { subject: some("u:gus"), limit: 1, ..all() })).unwrap().runs.remove(0);
        let found = block_on(reader.run(&acme, gus.id().unwrap())).unwrap().unwrap();
        assert_eq!((found.at.len(), found.effects.len(), found.effects[1].status.as_str()), (1, 2, "retrying"));
        assert_eq!(found.at[0].until, found.effects[1].next_try_at);
        let effect = crate::workflow::EffectId::parse(&found.effects[1].effect).unwrap();
        let (subject, target) = ("u:gus".to_owned(), "email".to_owned());
        let whose = EffectOf { run: gus.run.clone(), subject, target, address: Some("person@example.org".to_owned()) };
        assert_eq!(block_on(reader.effect_of(&acme, effect)).unwrap(), Some(whose));
        let other = TenantId::new("other").unwrap();
        assert_eq!(block_on(reader.run(&other, gus.id().unwrap())).unwrap(), None, "another tenant's run is not there");

        let approvals =
            |open_only| block_on(reader.approvals(&acme, &ApprovalQuery { open_only, limit: 9, ..Default::default() })).unwrap();
        let open = approvals(true);
        assert_eq!((open.len(), open[0].subject.as_str(), &open[0].shows["subject"]), (1, "u:hal", &serde_json::json!("We miss you")));
        assert_eq!(approvals(false).len(), 6);

        let funnel = block_on(reader.funnel(&acme, "winback", None, None)).unwrap();
        let told: Vec<_> = funnel.iter().map(|node| (node.node.as_str(), node.entered, node.here)).collect();
        assert_eq!(told[..3], [("arm", 10, 0), ("write", 8, 2), ("review", 6, 1)]);

        let versions = block_on(reader.arms(&acme, "winback")).unwrap();
        let told = |arms: &[crate::projections::runs::ArmResult]| {
            arms.iter().map(|arm| (arm.arm.clone(), arm.converted, arm.runs, arm.is_baseline)).collect::<Vec<_>>()
        };
        assert_eq!(told(&versions[0]), [("holdout".to_owned(), 1, 2, true), ("treatment".to_owned(), 1, 7, false)]);
        assert_eq!(told(&versions[1]), [("treatment".to_owned(), 0, 1, true)], "the version before is held against nothing of this one");
        assert!(versions.len() == 2 && versions[0][0].digest != versions[1][0].digest);
        let arms = &versions[0];
        assert!(!arms[1].difference.unwrap().excludes_zero(), "of ten people nothing is known");

        let now = block_on(reader.workflow_now()).unwrap();
        assert_eq!(now, Millis::parse(NOW));
        let timers = block_on(reader.timers(&acme, now.map(|now| now + 3_600_000), 10)).unwrap();
        assert_eq!(timers.iter().map(|timer| timer.node.as_str()).collect::<Vec<_>>(), ["review", "send"]);
        assert_eq!(block_on(reader.timers(&acme, None, 10)).unwrap().len(), 4);
    }
}

#[test]
fn a_story_is_read_from_the_journal_itself() {
    let world = World::new();
    campaign(&world);
    let acme = TenantId::new("acme").unwrap();
    let key = Subject::user("jim").key(&acme);
    let journal = world.partition("journal", 0);
    let lines =
        |run, place| runs::story(&*world.log, journal, key.as_bytes(), run, runs::Stretch { from: Offset(0), facts: None }, place).unwrap();
    let all = lines(None, (0, 100));
    let run = all.iter().find_map(|line| crate::workflow::RunId::parse(line.run.as_deref()?));
    assert_eq!(all.last().unwrap().line, "run of winback skipped: reentry");
    let of_the_run: Vec<_> = all.iter().filter(|line| line.run.is_some()).cloned().collect();
    assert_eq!(of_the_run[0].line, "run of winback started");
    assert_eq!(lines(run, (0, 100)), of_the_run, "neither what is of the subject nor the entry that was skipped is the run's");
    assert_eq!(lines(run, (2, 3)), of_the_run[2..5]);
    assert_eq!(lines(Some(crate::workflow::RunId(1)), (0, 100)), []);
}

/// A log that counts fetches, and may have a hole.
struct Watched<'l> {
    log: &'l dyn LogReader,
    fetches: AtomicUsize,
    hole: Option<(Offset, Offset)>,
}

impl LogReader for Watched<'_> {
    fn topics(&self) -> Result<Vec<TopicInfo>, log::Error> {
        self.log.topics()
    }

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, log::Error> {
        self.log.watermarks(partition)
    }

    fn fetch(&self, partition: TopicPartition, from: Offset, _: usize) -> Result<Fetched, log::Error> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        if let Some((begin, end)) = self.hole.filter(|(begin, end)| (*begin..*end).contains(&from)) {
            return Err(log::Error::Hole { partition: partition.into(), from: begin, to: end });
        }
        // One record at a time, so that what is read is seen.
        self.log.fetch(partition, from, 1)
    }

    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, log::Error> {
        self.log.offset_at(partition, time)
    }

    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, log::Error> {
        self.log.committed(group, partition)
    }

    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, log::Error> {
        self.log.wait(positions, at_most)
    }
}

#[test]
fn a_story_reads_no_further_than_the_run_went_and_over_what_is_damaged() {
    let world = World::new();
    campaign(&world);
    world.project();
    let acme = TenantId::new("acme").unwrap();
    let reader = world.reader();
    let page = block_on(reader.runs(&acme, &RunQuery { subject: Some("u:jim".into()), limit: 9, ..RunQuery::default() })).unwrap();
    let run = page.runs[0].id().unwrap();
    let detail = block_on(reader.run(&acme, run)).unwrap().unwrap();
    let (key, journal) = (Subject::user("jim").key(&acme), world.partition("journal", detail.run.begins().0.0));
    let told = |facts, hole| {
        let watched = Watched { log: &*world.log, fetches: AtomicUsize::new(0), hole };
        let stretch = runs::Stretch { from: detail.run.begins().1, facts };
        let lines = runs::story(&watched, journal, key.as_bytes(), Some(run), stretch, (0, 100)).unwrap();
        (lines, watched.fetches.into_inner())
    };
    let ((whole, all), (bounded, few)) = (told(None, None), told(Some(detail.told()), None));
    assert_eq!(bounded, whole);
    assert!(few < all, "{few} of {all} fetches: what others did since is not read");
    let (second, third) = (Offset(whole[1].offset), Offset(whole[2].offset));
    let (lines, _) = told(Some(detail.told()), Some((second, third)));
    assert_eq!(lines.len(), whole.len(), "one is missing, and that is said in its place");
    assert!(lines[1].kind == "damaged" && lines[1].line.contains("is not known"), "{lines:?}");
    assert_eq!((&lines[0], &lines[2..]), (&whole[0], &whole[2..]));
}

#[test]
fn runs_that_a_retry_would_move_are_found() {
    for world in World::on_each() {
        campaign(&world);
        world.project();
        let acme = TenantId::new("acme").unwrap();
        let reader = world.reader();
        let stuck = RunQuery { is_stuck: true, limit: 99, ..RunQuery::default() };
        let found: Vec<String> = block_on(reader.runs(&acme, &stuck)).unwrap().runs.into_iter().map(|run| run.subject).collect();
        assert_eq!(found, ["u:gus", "u:bud"], "who is out of attempts or waits for the next, and nobody who goes on");
    }
}

#[test]
fn one_run_one_person_and_one_key_are_found_without_reading_everything() {
    let world = World::new();
    campaign(&world);
    world.project();
    let plans = [
        ("SELECT * FROM workflow_runs WHERE run_id = 'x'", "SEARCH r USING INDEX wf_runs_by_id (ANY(bucket) AND run_id=?)"),
        ("SELECT * FROM workflow_runs WHERE subject = 'u:ann'", "SEARCH r USING INDEX wf_runs_by_subject (ANY(bucket) AND subject=?)"),
        ("SELECT * FROM workflow_effects WHERE effect_id = 'x'", "SEARCH e USING INDEX wf_effects_by_id (ANY(bucket) AND effect_id=?)"),
        ("SELECT * FROM workflow_effects WHERE run_id = 'x'", "SEARCH e USING INDEX wf_effects_by_run (run_ref=?)"),
        ("SELECT * FROM workflow_messages WHERE subject = 'u:ann'", "SEARCH e USING INDEX wf_effects_by_run (run_ref=?)"),
        ("SELECT * FROM workflow_timers WHERE due_ms < 5", "SEARCH s USING INDEX wf_steps_due (until>? AND until<?)"),
        (
            "SELECT * FROM workflow_why_not WHERE subject = 'u:ann'",
            "SEARCH wf_skips USING INDEX wf_skips_by_subject (ANY(bucket) AND subject=?)",
        ),
        (
            "SELECT run_ref FROM wf_runs WHERE run_id IN ('x', 'y') AND ended_at IS NULL",
            "SEARCH wf_runs USING INDEX wf_runs_open (run_id=?)",
        ),
    ];
    for (sql, step) in plans {
        let plan = world.sql(&format!("EXPLAIN QUERY PLAN {sql}"));
        assert!(plan.iter().any(|line| line.ends_with(step)), "{sql}: {plan:#?}");
    }
}
