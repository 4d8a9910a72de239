//! Runs on a real log with everyone who takes part: the fold decides, the executor performs, and what was performed is found outside.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flywheel::app::{Engine, Plan};
use flywheel::config::Config;
use flywheel::domain::{Millis, Namespace, Offset, Subject, TenantId, partition_of};
use flywheel::engine::effects::WorkerOptions;
use flywheel::log::{BatchBuilder, Record, TopicPartition, Transaction};
use flywheel::schema;
use flywheel::schema::records::{Command, CommandsRecord, JournalRecord};
use flywheel::stream::{NamespaceClock, Partitions, Topic, Topics, topology};
use flywheel::workflow::{Definition, Fact, Input, What};
use serde_json::json;

use crate::place::until;
use crate::running::{flywheel, output_of};

/// Five agents, one after the other.
const CHAIN: &str = r#"
    [workflow]
    name = "chain"
    [workflow.entry]
    command = true
    reenter = "always"
    [[node]]
    name = "a"
    kind = "effect"
    agent = "lead_gen"
    input = { audience = "'runners'", budget = "500.0" }
    timeout = "1m"
    next = "b"
    [[node]]
    name = "b"
    kind = "effect"
    agent = "content"
    input = { brief = "'shoes'" }
    timeout = "1m"
    next = "c"
    [[node]]
    name = "c"
    kind = "effect"
    agent = "ad_manager"
    unknown = "look_up"
    input = { headline = "'h'", text = "'t'", change = "'c'", round = "1" }
    timeout = "1m"
    next = "done"
    [[node]]
    name = "done"
    kind = "exit"
"#;

const LETTER: &str = r#"
    [workflow]
    name = "letter"
    [workflow.entry]
    command = true
    reenter = "always"
    [[node]]
    name = "send"
    kind = "effect"
    channel = "email"
    purpose = "transactional"
    unknown = "look_up"
    input = { template = "'winback'", subject = "'Your order'", body = "'It is on its way.'" }
    timeout = "1m"
    next = "done"
    [[node]]
    name = "done"
    kind = "exit"
"#;

const OUTSIDE: &str = r#"
    [workflow]
    name = "outside"
    [workflow.entry]
    command = true
    reenter = "always"
    [[node]]
    name = "ask"
    kind = "effect"
    agent = "oracle"
    input = { question = "'why'" }
    returns = { answer = "int" }
    retry = { attempts = 3, first = "1s", most = "1s" }
    timeout = "10s"
    next = "done"
    [[node]]
    name = "done"
    kind = "exit"
"#;

struct Shop {
    engine: Engine,
    topics: Topics,
}

fn shop(dir: &Path, workflow: &str, change: impl FnOnce(&mut Config)) -> Shop {
    let mut config = Config::default();
    config.data.dir = dir.join("data");
    config.stream.tick_interval_ms = 50;
    config.stream.tick_idle_interval_ms = 50;
    change(&mut config);
    let plan = Plan {
        namespace: Namespace::new("main").unwrap(),
        clock: NamespaceClock::Wall,
        topology: topology::load("spine").unwrap(),
        partitions: Partitions { intake: 1, events: 2, inbox: 0 },
        workflows: vec![Definition::parse("test.toml", workflow).unwrap_or_else(|problems| panic!("{problems}"))],
        policy: None,
        performers: Default::default(),
        senders: Default::default(),
    };
    let engine = Engine::start_with(&config, Some(plan)).unwrap();
    let topics = Topics::find(&*engine.log, &Namespace::new("main").unwrap()).unwrap().unwrap();
    let shop = Shop { engine, topics };
    shop.wait_in_force();
    shop
}

fn key(id: &str) -> Bytes {
    Subject::user(id).key(&TenantId::new("acme").unwrap()).bytes().clone()
}

impl Shop {
    /// Until new entries go to the workflow, in every partition.
    fn wait_in_force(&self) {
        let is_it = |record: &Record| {
            let decoded = schema::decode::<JournalRecord<'_>>(record.value.as_deref().unwrap()).unwrap();
            matches!(decoded, JournalRecord::Activated(activated) if activated.kind == "workflow")
        };
        self.until_journal(|| {
            let everywhere = self.topics.partitions(Topic::Journal).all(|id| self.records(id).iter().any(is_it));
            if everywhere { Ok(()) } else { Err("the workflow is not in force".to_owned()) }
        });
    }

    /// Looks again whenever the journal has grown.
    #[track_caller]
    fn until_journal<T>(&self, look: impl Fn() -> Result<T, String>) -> T {
        until(|| {
            let ends: Vec<(TopicPartition, Offset)> =
                self.topics.partitions(Topic::Journal).map(|id| (id, self.engine.log.watermarks(id).unwrap().end)).collect();
            let looked = look();
            if looked.is_err() {
                self.engine.log.wait(&ends, Duration::from_millis(100)).unwrap();
            }
            looked
        })
    }

    fn records(&self, id: TopicPartition) -> Vec<Record> {
        let (mut records, mut from) = (Vec::new(), Offset(0));
        loop {
            let fetched = self.engine.log.fetch(id, from, 1 << 20).unwrap();
            if fetched.next == from {
                return records;
            }
            records.extend(fetched.records().map(|record| record.to_owned()));
            from = fetched.next;
        }
    }

    fn command(&self, id: &str, input: &Input) {
        let body = serde_json::to_string(input).unwrap();
        let record = CommandsRecord::Command(Command { kind: input.kind(), at: None, depth: 0, body: &body });
        let mut batch = BatchBuilder::new();
        batch.push_with(&key(id), self.engine.clock.now(), |out| schema::encode(&record, out)).unwrap();
        let partition = partition_of(&key(id), self.topics.count(Topic::Commands));
        let batches = vec![(self.topics.partition(Topic::Commands, partition), batch.build())];
        self.engine.log.append(Transaction { batches, commits: vec![] }).unwrap().wait().unwrap();
    }

    fn start(&self, id: &str, workflow: &str) {
        let (workflow, cause) = (workflow.to_owned(), format!("start {id}"));
        self.command(id, &Input::Start { workflow, cause, entry: json!({}), profile: json!({}), depth: 0, parent: None });
    }

    fn facts(&self) -> Vec<(Bytes, Fact)> {
        let records = self.topics.partitions(Topic::Journal).flat_map(|id| self.records(id));
        let fact = |record: Record| match schema::decode(record.value.as_deref().unwrap()).unwrap() {
            JournalRecord::Fact(fact) => Some((record.key.clone(), Fact::from_parts(Millis(fact.at), fact.run, fact.body).unwrap())),
            _ => None,
        };
        records.filter_map(fact).collect()
    }

    /// Waits until so many facts are such.
    #[track_caller]
    fn until(&self, count: usize, is: impl Fn(&What) -> bool) -> Vec<(Bytes, Fact)> {
        self.until_journal(|| {
            let facts = self.facts();
            let such = facts.iter().filter(|(_, fact)| is(&fact.what)).count();
            if such >= count { Ok(facts) } else { Err(format!("{count} such facts, have {facts:#?}")) }
        })
    }
}

fn is_end(what: &What) -> bool {
    matches!(what, What::RunEnded { .. })
}

#[test]
fn runs_of_agents_go_from_start_to_end_and_each_effect_completes_once() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), CHAIN, |_| {});
    (0..40).for_each(|person| shop.start(&format!("p{person}"), "chain"));
    let facts = shop.until(40, is_end);
    let count = |is: fn(&What) -> bool| facts.iter().filter(|(_, fact)| is(&fact.what)).count();
    assert_eq!(count(|what| matches!(what, What::EffectCompleted { assumed: false, .. })), 120);
    assert_eq!(count(|what| matches!(what, What::AttemptMinted { .. })), 120);
    assert_eq!(count(|what| matches!(what, What::EffectStarted { .. })), 40, "what is looked up is started on record");
    shop.engine.stop().unwrap();
}

#[test]
fn runs_go_on_after_a_restart_whatever_they_were_waiting_for() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), CHAIN, |_| {});
    (0..200).for_each(|person| shop.start(&format!("p{person}"), "chain"));
    shop.until(20, |what| matches!(what, What::EffectCompleted { .. }));
    shop.engine.stop().unwrap();
    let shop = self::shop(dir.path(), CHAIN, |_| {});
    let facts = shop.until(200, is_end);
    let completed = facts.iter().filter(|(_, fact)| matches!(fact.what, What::EffectCompleted { .. })).count();
    assert_eq!(completed, 600, "every effect has one result");
    shop.engine.stop().unwrap();
}

#[test]
fn while_effects_are_switched_off_they_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path(), CHAIN, |config| config.effects.enabled = false);
    shop.start("p", "chain");
    shop.until(1, |what| matches!(what, What::AttemptMinted { .. }));
    shop.engine.stop().unwrap();
    let shop = self::shop(dir.path(), CHAIN, |_| {});
    shop.until(1, is_end);
    shop.engine.stop().unwrap();
}

#[test]
fn a_mail_is_one_file_named_by_its_key_and_can_be_unsubscribed_from_where_its_purpose_allows() {
    let dir = tempfile::tempdir().unwrap();
    let marketing = LETTER.replace("purpose = \"transactional\"", "purpose = \"marketing\"");
    // Without quiet hours, which a test at night would wait for.
    let shop = shop(dir.path(), &marketing, |config| config.channels.email.from = "Shop <news@shop.example>".into());
    shop.command("ann", &Input::Attribute { name: "email".into(), value: json!("ann@example.com") });
    // Somewhere it is noon.
    let hour = shop.engine.clock.now().0.div_euclid(3_600_000).rem_euclid(24);
    let zone = match 12 - hour {
        0 => "UTC".to_owned(),
        // The signs of these names are the other way round.
        east @ 1.. => format!("Etc/GMT-{east}"),
        west => format!("Etc/GMT+{}", -west),
    };
    shop.command("ann", &Input::Attribute { name: "time_zone".into(), value: json!(zone) });
    shop.start("ann", "letter");
    let facts = shop.until(1, is_end);
    let requested = facts.iter().find_map(|(_, fact)| match &fact.what {
        What::EffectRequested { effect, .. } => Some(*effect),
        _ => None,
    });
    let kinds: Vec<String> = facts.iter().map(|(_, fact)| fact.parts().1.split('"').nth(1).unwrap().to_owned()).collect();
    let granted = kinds.iter().position(|kind| kind == "permit_granted").unwrap_or_else(|| panic!("{facts:#?}"));
    assert!(kinds[..granted].contains(&"effect_started".to_owned()) && kinds[granted..].contains(&"effect_completed".to_owned()));
    let outbox = dir.path().join("data/outbox/main");
    let files: Vec<_> = std::fs::read_dir(&outbox).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, [format!("{}.eml", requested.unwrap())]);
    let mail = std::fs::read_to_string(outbox.join(&files[0])).unwrap();
    assert!(
        mail.contains("To: ann@example.com") && mail.contains("Subject: Your order") && mail.contains("From: Shop <news@shop.example>")
    );
    assert!(mail.contains("List-Unsubscribe: <http"), "{mail}");
    shop.engine.stop().unwrap();
}

#[test]
fn templates_are_looked_at_and_tried_out_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("flywheel.toml");
    std::fs::write(&config, "").unwrap();
    let text = output_of(dir.path(), &config, &["template", "preview", "winback", "--with", r#"{"subject": "Hello Bob"}"#]);
    assert!(text.starts_with("Subject: Hello Bob\n") && text.contains("https://example.com/unsubscribe_url"), "{text}");
    let sent = output_of(dir.path(), &config, &["--json", "template", "send", "winback_reminder", "--to", "me@example.com"]);
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    let mail = std::fs::read_to_string(sent["file"].as_str().unwrap()).unwrap();
    assert!(mail.contains("To: me@example.com") && mail.contains("Still there?"), "{mail}");
    let missing = flywheel(dir.path(), &config, &["template", "preview", "nothing"]);
    assert_eq!(missing.status.code(), Some(3));
    let unclear = LETTER.replace("'winback'", "'winbuck'");
    std::fs::write(dir.path().join("letter.toml"), unclear).unwrap();
    let file = dir.path().join("letter.toml").display().to_string();
    let refused = flywheel(dir.path(), &config, &["workflow", "check", &file]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(4) && said.contains("letter.toml:13:26:") && said.contains("there is no template `winbuck`"),
        "{said}"
    );
}

#[test]
fn an_http_worker_gets_the_call_with_its_key_and_is_asked_again_after_it_was_busy() {
    let dir = tempfile::tempdir().unwrap();
    let asked: Arc<parking_lot::Mutex<Vec<(String, serde_json::Value)>>> = Arc::default();
    let (runtime, seen) = (tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(), Arc::clone(&asked));
    let answer = move |headers: axum::http::HeaderMap, axum::Json(body): axum::Json<serde_json::Value>| async move {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        seen.lock().push((key, body));
        match seen.lock().len() {
            1 => (axum::http::StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "busy".to_owned()),
            _ => (axum::http::StatusCode::OK, [("retry-after", "0")], json!({ "answer": 42, "page": "x".repeat(100_000) }).to_string()),
        }
    };
    let app = axum::Router::new().route("/perform", axum::routing::post(answer));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/perform", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await });
    let shop = shop(dir.path(), OUTSIDE, |config| {
        let worker = WorkerOptions { url, token: None, concurrency: None, per_second: None };
        config.effects.workers.insert("oracle".into(), worker);
    });
    shop.start("p", "outside");
    let facts = shop.until(1, is_end);
    let result = facts.iter().find_map(|(_, fact)| match &fact.what {
        What::EffectCompleted { result, attempt: 2, .. } => Some(result.clone()),
        _ => None,
    });
    let cut = "the result is 100030 bytes long, at most 65536 are kept";
    assert_eq!(result, Some(json!({ "answer": 42, "error": cut })), "of a long one what is declared is kept");
    let asked = asked.lock();
    assert_eq!(asked.len(), 2);
    assert_eq!((&asked[0].0, &asked[1].1["effect"]), (&asked[1].0, &json!(asked[0].0)), "one key for both attempts");
    let call = &asked[1].1;
    assert_eq!(
        (&call["tenant"], &call["subject"], &call["workflow"], &call["node"]),
        (&json!("acme"), &json!("u:p"), &json!("outside"), &json!("ask"))
    );
    assert_eq!((&call["input"], &call["attempt"], &call["look_up"]), (&json!({ "question": "why" }), &json!(2), &json!(false)));
    shop.engine.stop().unwrap();
}
