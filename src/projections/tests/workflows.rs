//! What facts become, and that neither batches nor restarts nor a rebuild show in it.

use super::*;
use crate::projections::runs::Funnel;
use crate::schema::records::{JournalFact, JournalRecord, JournalTime};
use crate::workflow::{Definition, Fact, RunId, SHIPPED};

const MINUTE: i64 = 60_000;

pub(super) fn append_fact(world: &World, partition: u32, subject: &str, fact: &Fact) {
    let (run, body) = fact.parts();
    append_body(world, partition, subject, fact.at.0, &run, &body);
}

pub(super) fn append_body(world: &World, partition: u32, subject: &str, at: i64, run: &str, body: &str) {
    world.append("journal", partition, subject, &JournalRecord::Fact(JournalFact { at, run, body }));
}

pub(super) fn time(world: &World, partition: u32, at: i64) {
    world.append("journal", partition, "", &JournalRecord::Time(JournalTime { time: at }));
}

fn shipped(name: &str) -> Definition {
    let (_, text) = SHIPPED.iter().find(|(known, _)| *known == name).unwrap();
    Definition::parse(name, text).unwrap()
}

/// The journals that the tests of all shipped workflows give, each of a subject of its own.
pub(super) fn journals() -> Vec<(String, Vec<Fact>)> {
    let mut journals = Vec::new();
    for (name, _) in SHIPPED {
        let definition = shipped(name);
        for (number, case) in definition.tests.iter().enumerate() {
            let case = crate::workflow::Case { subject: format!("{}-{name}-{number}", case.subject), ..case.clone() };
            journals.push((format!("u:{}", case.subject), crate::workflow::run(&definition, &case)));
        }
    }
    journals
}

/// Every row of every table about workflows.
fn dump(world: &World) -> Vec<String> {
    let tables = world.sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'wf\\_%' ESCAPE '\\' ORDER BY name");
    assert_eq!(tables.len(), 16);
    let rows = tables.iter().flat_map(|table| {
        let rows = world.sql(&format!("SELECT * FROM {table}"));
        rows.into_iter().map(move |row| format!("{table} {row}"))
    });
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

#[test]
fn what_the_batches_and_restarts_were_does_not_show_in_the_rows() {
    let (at_once, in_pieces) = (World::new(), World::new());
    let journals = journals();
    for world in [&at_once, &in_pieces] {
        time(world, 0, 1);
    }
    in_pieces.project();
    let mut tail = block_on(in_pieces.tail());
    for (number, (subject, facts)) in journals.iter().enumerate() {
        for (count, fact) in facts.iter().enumerate() {
            append_fact(&at_once, number as u32 % 2, subject, fact);
            append_fact(&in_pieces, number as u32 % 2, subject, fact);
            if count % 3 == number % 3 {
                block_on(tail.step(1 << 20)).unwrap();
            }
            if count % 2 == 0 {
                // One that has just begun knows nothing that is not in the file.
                block_on(tail.reload()).unwrap();
            }
        }
    }
    block_on(tail.step(1 << 20)).unwrap();
    at_once.project();
    let rows = dump(&at_once);
    assert!(rows.len() > 200, "{}", rows.len());
    assert_eq!(dump(&in_pieces), rows);
    let rebuilt = block_on(rebuild(in_pieces.log.clone(), &in_pieces.place, &in_pieces.namespace, &Options::default(), &mut |_| {
        ControlFlow::Continue(())
    }));
    rebuilt.unwrap();
    assert_eq!(dump(&in_pieces), rows, "a rebuild gives the same");
}

/// Where a subject's runs are as the core's own state has it: `run visit node doing until status`.
fn open_steps(facts: &[Fact]) -> Vec<String> {
    use crate::workflow::{Doing, Subject};
    let mut subject = Subject::default();
    facts.iter().for_each(|fact| crate::workflow::evolve(&mut subject, fact));
    let steps = subject.runs.iter().flat_map(|(id, run)| {
        run.steps.iter().map(move |(visit, step)| {
            let (doing, until) = match &step.doing {
                Doing::Arriving => ("arriving", None),
                Doing::Delay { until } => ("delay", Some(*until)),
                Doing::Wait { until } => ("wait", Some(*until)),
                Doing::Asking => ("ask", None),
                Doing::Effect(pending) => ("effect", pending.retry_at.filter(|_| pending.failures > 0)),
                Doing::Approval { until, .. } => ("approval", Some(*until)),
                Doing::Child { until } => ("start", *until),
                Doing::Ready(_) => ("ready", None),
            };
            let until = until.map_or("-".to_owned(), |until| until.0.to_string());
            format!("{id}|{visit}|{}|{doing}|{until}|{}|{}", step.node, step.since.0, i64::from(run.paused.is_some()))
        })
    });
    steps.collect()
}

#[test]
fn where_runs_are_is_what_the_core_says_wherever_the_journal_is_cut() {
    let journals = journals();
    for (quarter, world) in (1..=4).flat_map(|quarter| World::on_each().map(move |world| (quarter, world))) {
        let mut expected = Vec::new();
        for (subject, facts) in &journals {
            let cut = &facts[..facts.len() * quarter / 4];
            cut.iter().for_each(|fact| append_fact(&world, 0, subject, fact));
            expected.extend(open_steps(cut));
        }
        world.project();
        expected.sort();
        let mut steps = world.sql(
            "SELECT r.run_id, s.visit, s.node, s.doing, s.until, s.since, r.paused_at IS NOT NULL \
             FROM wf_steps s JOIN wf_runs r USING (run_ref)",
        );
        steps.sort();
        assert_eq!(steps, expected, "{quarter} quarters of each journal");
        let here = "SELECT sum(entered) - sum(\"left\"), (SELECT count(*) FROM wf_steps) FROM wf_funnel";
        assert_eq!(world.sql(here), [format!("{0}|{0}", expected.len())], "the funnel and the steps agree");
    }
}

#[test]
fn a_run_is_told_from_its_start_to_its_end() {
    for world in World::on_each() {
        let definition = shipped("winback");
        let facts = crate::workflow::run(&definition, &definition.tests[0]);
        for fact in &facts {
            append_fact(&world, 0, "u:ann", fact);
        }
        world.project();
        let run = world.sql("SELECT workflow, user_id, status, outcome, nodes, arms, started_at, ended_at, facts FROM workflow_runs");
        let facts = facts.iter().filter(|fact| fact.run.is_some()).count();
        assert_eq!(
            run,
            [format!("winback|ann|completed|no answer|silent|arm=treatment|2024-03-01 17:00:00|2024-03-10 14:00:02|{facts}")],
            "some facts are of the subject and of no run"
        );
        let effects =
            world.sql("SELECT node, performer, target, status, attempts, performed, requested_at, finished_at FROM workflow_effects");
        assert_eq!(
            effects,
            [
                "write|agent|copywriter|done|1|1|2024-03-01 17:00:00|2024-03-01 17:00:20",
                "send|channel|email|done|1|1|2024-03-04 14:00:00|2024-03-04 14:00:01",
                "remind|channel|email|done|1|1|2024-03-07 14:00:01|2024-03-07 14:00:02"
            ]
        );
        let messages = world.sql("SELECT node, channel, template, status, sent_at FROM workflow_messages");
        assert_eq!(messages, ["send|email|winback|done|2024-03-04 14:00:01", "remind|email|winback_reminder|done|2024-03-07 14:00:02"]);
        let approvals = world.sql("SELECT node, who, status, decided_by, shows FROM workflow_approvals");
        assert_eq!(approvals, [r#"review|marketing|approved|bo|{"body":"Ann, come back","subject":"We miss you"}"#]);
        assert_eq!(world.sql("SELECT count(*) FROM workflow_nodes"), ["0"], "nothing is open");
        let here = world.sql("SELECT sum(entered), sum(\"left\") FROM workflow_funnel");
        assert_eq!(here, ["10|10"]);
        let ways = world.sql("SELECT node, way, runs FROM workflow_ways WHERE node IN ('review', 'response', 'silent', 'arm') ORDER BY 1");
        assert_eq!(ways, ["arm|treatment|1", "response|timeout|1", "review|approved|1", "silent|completed|1"]);
    }
}

#[test]
fn the_funnel_of_some_days_is_that_of_the_runs_that_began_then_wherever_they_went_since() {
    for world in World::on_each() {
        let (_, text) = crate::workflow::SHIPPED[0];
        // One goes to its end over ten days; the other began in the middle of that, and waits.
        for (user, start, for_days) in [("ann", "2024-03-01T10:00:00Z", 15), ("mia", "2024-03-05T10:00:00Z", 1)] {
            let text = format!(
                "{}\n[[test]]\nname = \"{user}\"\nsubject = \"ann\"\nstart = \"{start}\"\nfor = \"{for_days}d\"\nnever = [\"x\"]\n\
             given = [{{ enters = \"lapsing\" }}, {{ at = \"1h\", approve = \"review\", by = \"bo\" }}]\n\
             effects = [{{ node = \"write\", result = {{ subject = \"s\", body = \"b\" }} }}, {{ node = \"send\", result = {{}} }}, {{ node = \"remind\", result = {{}} }}]\n",
                &text[..text.find("[[test]]").unwrap()]
            );
            let definition = Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
            for fact in &crate::workflow::run(&definition, &definition.tests[0]) {
                append_fact(&world, 0, &format!("u:{user}"), fact);
            }
        }
        world.project();
        let reader = world.reader();
        let acme = TenantId::new("acme").unwrap();
        let funnel = |from: &str, before: &str| {
            let nodes = block_on(reader.funnel(&acme, "winback", None, Some((from, before)))).unwrap();
            for node in &nodes {
                let out: i64 = node.ways.iter().map(|way| way.runs).sum();
                assert_eq!((node.entered, node.left), (node.left + node.here, out), "{} adds up", node.node);
            }
            let sum = |of: fn(&Funnel) -> i64| nodes.iter().map(of).sum::<i64>();
            (
                sum(|node| i64::from(node.node == "arm") * node.entered),
                sum(|node| node.here),
                nodes.iter().any(|node| node.node == "silent"),
            )
        };
        assert_eq!(funnel("2024-03-01", "2024-03-02"), (1, 0, true), "who began that day has come to the end since");
        assert_eq!(funnel("2024-03-05", "2024-03-06"), (1, 1, false), "and who was there before is not among those that began later");
        assert_eq!(funnel("2024-03-06", "~"), (0, 0, false), "on these days many came and went, and nobody began");
        assert_eq!(funnel("", "~"), (2, 1, true));
    }
}

#[test]
fn versions_say_when_they_were_published_and_retired_and_by_whom() {
    use crate::schema::records::Definition as Said;
    for world in World::on_each() {
        let say = |digest: &str, tenant: &str, at: i64, by: &str| {
            let (kind, name, about) = ("workflow", "news", "What is new.");
            world.append("definitions", 0, "", &Said { kind, name, digest, body: "", tenant, from_file: false, about, at, by });
        };
        // The first as a build before said it.
        say("d1", "", 0, "");
        say("d2", "", 60_000, "kim");
        say("d9", "acme", 70_000, "ann");
        say("d8", "other", 70_000, "joe");
        say("", "", 120_000, "bo");
        world.project();
        let told = world.sql(
            "SELECT published_for, digest, about, published_at, published_by, is_active, retired_at, retired_by FROM workflow_publications \
             ORDER BY published_at IS NOT NULL, published_at, published_for",
        );
        assert_eq!(
            told,
            [
                "everyone|d1|What is new.|-|-|0|1970-01-01 00:01:00|kim",
                "everyone|d2|What is new.|1970-01-01 00:01:00|kim|0|1970-01-01 00:02:00|bo",
                "acme|d9|What is new.|1970-01-01 00:01:10|ann|1|-|-",
                "other|d8|What is new.|1970-01-01 00:01:10|joe|1|-|-",
            ]
        );
        let reader = world.reader();
        let found = block_on(reader.publications(&TenantId::new("acme").unwrap(), "news")).unwrap();
        let told: Vec<_> = found.iter().map(|one| (&*one.digest, one.tenant.as_deref(), one.is_active)).collect();
        assert_eq!(told, [("d9", Some("acme"), true), ("d2", None, false), ("d1", None, false)]);
    }
}

#[test]
fn a_goal_converts_the_arm_and_leaves_every_node() {
    for world in World::on_each() {
        let definition = shipped("winback");
        for fact in &crate::workflow::run(&definition, &definition.tests[1]) {
            append_fact(&world, 0, "u:ann", fact);
            world.project();
        }
        assert_eq!(world.sql("SELECT status, goal, outcome FROM workflow_runs"), ["goal|bought|bought"]);
        assert_eq!(world.sql("SELECT node, arm, runs, converted, rate FROM workflow_conversions"), ["arm|treatment|1|1|1.0"]);
    }
}

#[test]
fn a_refusal_and_a_skipped_entry_say_why() {
    for world in World::on_each() {
        let definition = shipped("winback");
        for (subject, test) in [("ann", "who said no to marketing"), ("bob", "nobody is won back twice")] {
            let case = definition.tests.iter().find(|case| case.name.starts_with(test)).unwrap();
            let case = crate::workflow::Case { subject: subject.to_owned(), ..case.clone() };
            for fact in &crate::workflow::run(&definition, &case) {
                append_fact(&world, 1, &format!("u:{subject}"), fact);
            }
        }
        world.project();
        let messages = world.sql("SELECT user_id, node, status, refusal, sent_at FROM workflow_messages WHERE refusal IS NOT NULL");
        assert_eq!(messages, ["ann|send|refused|the person opted out|-"]);
        assert_eq!(world.sql("SELECT subject, workflow, reason FROM workflow_skips"), ["u:bob|winback|reentry"]);
    }
}

const RUN: &str = "0123456789abcdef0123456789abcdef";
const EFFECT: &str = "00000000000000000000000000000abc";

/// A run that waits for its only effect's second attempt.
fn retrying(world: &World) {
    let facts = [
        (0, r#"{"run_started":{"workflow":"w","digest":"d1","cause":"m1","first":"send","entry":{},"vars":{},"profile":{}}}"#.to_owned()),
        (
            0,
            format!(
                r#"{{"effect_requested":{{"visit":1,"node":"send","effect":"{EFFECT}","by":"channel","target":"email",
                 "input":{{"template":"hello","to":null}},"timeout_ms":1,"unknown":"retry","purpose":"news","workflow":"w"}}}}"#
            ),
        ),
        (0, format!(r#"{{"attempt_minted":{{"effect":"{EFFECT}","attempt":1,"look_up":false,"by_hand":false}}}}"#)),
        (5, format!(r#"{{"effect_started":{{"effect":"{EFFECT}","attempt":1,"executor":"one"}}}}"#)),
        (6, format!(r#"{{"permit_granted":{{"effect":"{EFFECT}","attempt":1,"grant":{{"until":60}},"to":"ann@example.com"}}}}"#)),
        (
            9,
            format!(
                r#"{{"attempt_failed":{{"effect":"{EFFECT}","attempt":1,"category":"api","error":"503","timed_out":true,
                 "retry_at":{}}}}}"#,
                2 * MINUTE
            ),
        ),
    ];
    for (at, body) in facts {
        append_body(world, 0, "u:ann", at, RUN, &body);
    }
}

#[test]
fn what_is_tried_again_is_stuck_with_its_error_and_its_next_try() {
    for world in World::on_each() {
        retrying(&world);
        time(&world, 0, MINUTE);
        world.project();
        let stuck = "SELECT node, why, detail, next_try_at FROM workflow_stuck";
        assert_eq!(world.sql(stuck), ["send|retrying|503|1970-01-01 00:02:00"]);
        assert_eq!(world.sql("SELECT due, node, doing FROM workflow_timers"), ["1970-01-01 00:02:00|send|effect"]);
        assert_eq!(world.sql("SELECT day, node, target, category, errors FROM workflow_errors"), ["1970-01-01|send|email|api|1"]);
        let message = world.sql("SELECT purpose, template, address, permit_until, status FROM workflow_messages");
        assert_eq!(message, ["news|hello|ann@example.com|1970-01-01 00:00:00|retrying"]);
        let paused = r#"{"run_paused":{"reason":"wait","by":"bo"}}"#;
        append_body(&world, 0, "u:ann", 2 * MINUTE, RUN, paused);
        world.project();
        assert_eq!(world.sql(stuck), ["send|paused|wait|-"]);
        assert!(world.sql("SELECT * FROM workflow_timers").is_empty(), "what is paused fires nothing");
    }
}

#[test]
fn what_was_looked_up_and_not_done_is_tried_again_or_has_failed() {
    for (retry_at, status) in [(format!("{}", 3 * MINUTE), "retrying"), ("null".to_owned(), "failed")] {
        let world = World::new();
        retrying(&world);
        let found = format!(r#"{{"looked_up":{{"effect":"{EFFECT}","attempt":1,"retry_at":{retry_at}}}}}"#);
        append_body(&world, 0, "u:ann", MINUTE, RUN, &found);
        world.project();
        assert_eq!(world.sql("SELECT status FROM workflow_effects"), [status]);
    }
}

#[test]
fn an_answer_after_the_end_settles_and_a_message_sent_twice_is_found() {
    for world in World::on_each() {
        retrying(&world);
        // In a batch of its own: what ends with the run is written though nothing was said of it.
        world.project();
        append_body(&world, 0, "u:ann", 10, RUN, r#"{"run_ended":{"ending":"cancelled","node":"send","outcome":"by bo"}}"#);
        world.project();
        assert_eq!(world.sql("SELECT status, performed FROM workflow_effects"), ["cancelled|0"]);
        let settled =
            format!(r#"{{"effect_settled":{{"effect":"{EFFECT}","run":"{RUN}","attempt":1,"outcome":"done","result":{{"id":7}}}}}}"#);
        for performed in [1, 2] {
            append_body(&world, 0, "u:ann", 20, "", &settled);
            world.project();
            let row = world.sql("SELECT status, performed, settled, result, finished_at IS NOT NULL FROM workflow_effects");
            assert_eq!(row, [format!(r#"settled|{performed}|done|{{"id":7}}|1"#)]);
        }
        assert_eq!(world.sql("SELECT status, facts FROM workflow_runs"), ["cancelled|7"], "it moves no run");
    }
}

#[test]
fn facts_of_later_builds_are_counted_and_broken_ones_listed() {
    for world in World::on_each() {
        retrying(&world);
        append_body(&world, 0, "u:ann", 11, RUN, r#"{"held":{"input":{"a":[1,{"b":2}]}}}"#);
        append_body(&world, 0, "u:ann", 11, "", r#"{"consent_given":{"channel":"email"}}"#);
        append_body(&world, 0, "u:ann", 11, RUN, r#"{"moved":{"visit":"#);
        append_body(&world, 0, "u:ann", 11, "no id", r#"{"moved":{"visit":1,"from":"a","way":"","to":"b"}}"#);
        append_body(&world, 0, "u:ann", 11, &RunId(9).to_string(), r#"{"moved":{"visit":1,"from":"a","way":"","to":"b"}}"#);
        world.project();
        assert_eq!(world.sql("SELECT facts, nodes FROM workflow_runs"), ["7|send"]);
        let status = world.sql("SELECT applied, skipped, unreadable FROM processing_status WHERE topic = 'journal' AND partition = 0");
        assert_eq!(status, ["8|1|2"]);
    }
}

#[test]
fn branches_stand_beside_each_other_until_they_are_joined() {
    for world in World::on_each() {
        let bodies = [
            r#"{"run_started":{"workflow":"w","digest":"d1","cause":"m1","first":"both","entry":{},"vars":{},"profile":{}}}"#,
            r#"{"forked":{"visit":1,"node":"both","join":"end","needs":1,"branches":["a","b"],"failing_cancels":true}}"#,
            r#"{"delayed":{"visit":2,"node":"a","until":60000}}"#,
            r#"{"wait_begun":{"visit":3,"node":"b","until":120000,"awaits":["signal go","event Order Completed"]}}"#,
            r#"{"timer_fired":{"visit":2,"node":"a"}}"#,
            r#"{"moved":{"visit":2,"from":"a","way":"elapsed","to":"end"}}"#,
            r#"{"branch_ended":{"visit":4,"failed":false}}"#,
            r#"{"step_cancelled":{"visit":3,"effect":null}}"#,
            r#"{"joined":{"fork":1,"node":"end","to":"after","way":"joined"}}"#,
            r#"{"approval_requested":{"visit":5,"node":"after","who":"legal","shows":{},"until":180000}}"#,
        ];
        let mut seen = Vec::new();
        for (at, body) in bodies.iter().enumerate() {
            append_body(&world, 0, "a:tablet", at as i64, RUN, body);
            world.project();
            seen.push(world.sql("SELECT nodes || ' ' || status FROM workflow_runs").remove(0));
        }
        let expected = ["both running", "a, b running", "a, b running", "a, b waiting", "a, b running", "b, end running", "b waiting"];
        assert_eq!(seen[..7], expected);
        assert_eq!(seen[7..], [" running", "after running", "after waiting"]);
        let nodes = world.sql("SELECT node, doing, until, awaits FROM workflow_nodes");
        assert_eq!(nodes, ["after|approval|1970-01-01 00:03:00|decision of legal"]);
        append_body(&world, 0, "a:tablet", 200_000, RUN, r#"{"approval_late":{"visit":5,"by":"bo","approved":true}}"#);
        append_body(&world, 0, "a:tablet", 200_000, RUN, r#"{"run_ended":{"ending":"terminated","node":"after","outcome":""}}"#);
        world.project();
        assert_eq!(world.sql("SELECT status, late_clicks FROM workflow_approvals"), ["cancelled|1"]);
    }
}

#[test]
fn which_definition_takes_entries_is_said_for_each_tenant() {
    use crate::schema::records::Activated;
    for world in World::on_each() {
        let (first, second) = ("a".repeat(64), "b".repeat(64));
        let activate = |tenant: &str, digest: &str| {
            world.append(
                "journal",
                0,
                "",
                &JournalRecord::Activated(Activated { kind: "workflow", name: "news", digest, from: 0, tenant }),
            );
            world.project();
            world.sql("SELECT substr(digest, 1, 1), is_active, active_for FROM workflow_versions ORDER BY digest").join(" ")
        };
        let said =
            [activate("acme", &first), activate("other", &second), activate("acme", &second), activate("other", ""), activate("acme", "")];
        assert_eq!(
            said,
            ["a|1|acme", "a|1|acme b|1|other", "a|0|- b|1|acme, other", "a|0|- b|1|acme", "a|0|- b|0|-"].map(|text| text.to_owned())
        );
        activate("", &first);
        assert!(activate("", &second).ends_with("b|1|everyone"));
    }
}
